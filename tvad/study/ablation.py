"""The ablation of phase 2: every variant with every seed is a training of its own; rows stand beside those of phase 1.

    python -m tvad.study run --phase 2                                      # all variants, seeds 0 1 2
    python -m tvad.study run --phase 2 --variants full no-rae --seeds 0
    python -m tvad.study run --phase 2 --variants full --seeds 0 --set learning_rate=2e-3 steps=400      # a trial

All cells of a protocol share the heatmap decoder (phase 1's variant full, seed 0, trained where it is missing), the
clips and the cached features, so rows differ in phase 2 alone.  The closed protocol measures validation and test; the
open-set one, of ``OPEN_VARIANTS`` alone, the open test with the events never trained by themselves.  A cell that has its
rows is not made again, and a training that was broken off goes on.  Nothing is chosen here: a trial, with settings other
than the profile's, answers validation alone, and its rows stay under ``runs/study/phase2``.
"""
from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from jaxtyping import Float
from torch import Tensor

from tvad.backbones.qwen import QwenBackbone
from tvad.errors import ParameterError
from tvad.heatmap import AnomalyHeatmapDecoder
from tvad.language.run import dialogue_set, folder_of, opened
from tvad.params import Phase2, project_root
from tvad.prompts import prototypes
from tvad.record import SPOKEN, has_rows, provenance, replace_rows, write_json
from tvad.scenes.types import OPEN_SET_EVENTS
from tvad.study.run import TRAINING_SPLITS, Study, open_backbone, said
from tvad.study.speaking import Spoken, cell_key, speak_cell
from tvad.training.phase2_config import Phase2Config
from tvad.training.variants import VARIANTS

MEASURED = {"scene-disjoint": ("val", "test"), "open-set": ("test-open",)}
OPEN_VARIANTS = ("full",)
DECODER_SEED = 0


class Ablation:
    """One profile's ablation; ``run`` does what is missing.

    ``changes``: settings other than the profile's, by name, which make it a trial; of the notebook's
    (``tvad.params.Phase2``) or the training's own (``Phase2Config``: lora_rank, hidden_width, ...).
    Raises :class:`ParameterError` for unknown settings or variants, or a profile of real footage, which phase 2 is not
    trained on.
    """

    def __init__(self, profile: str, *, seeds: Sequence[int] = (0, 1, 2), variants: Sequence[str] = tuple(VARIANTS),
                 root: Path | None = None, params: Phase2 | None = None, phase1: Study | None = None,
                 changes: Mapping[str, Any] | None = None) -> None:
        self.root = root or project_root()
        given = params or Phase2.from_profile(self.root / "notebooks" / "profiles" / f"{profile}.yaml")
        # What only the training knows, as LoRA's rank, is no parameter of the notebook.
        inner = {item.name: item.default for item in fields(Phase2Config)
                 if item.name not in {own.name for own in fields(Phase2)}}
        self._inner = {name: value for name, value in (changes or {}).items() if name in inner}
        outer = {name: value for name, value in (changes or {}).items() if name not in inner}
        self.params = Phase2.read({**given.as_dict(), **outer}) if outer else given
        if self.params.dataset != "simcampus":
            raise ParameterError(f"profile {profile}: phase 2 is trained on simcampus, not on {self.params.dataset}; study "
                                 "another profile")
        self.trial, self.seeds, self.variants = bool(changes), tuple(seeds), tuple(variants)
        self.phase1 = phase1 or Study(profile, root=root)
        self.work, self.cache = self.root / "runs" / "study" / "phase2", self.root / "data" / "cache"
        self._study_rows = self.root / "figures" / profile / "study.jsonl"
        for name, value in self._inner.items():
            known = int if name == "hidden_width" else type(inner[name])      # whose default, None, has no type to go by
            if type(value) is not known and not (known is float and type(value) is int):
                raise ParameterError(f"{name}: {value!r} must be of type {known.__name__}")
        for variant in self.variants:
            self.config(variant, 0)

    def config(self, variant: str, seed: int) -> Phase2Config:
        """The settings of one cell. Raises :class:`ParameterError` for an unknown variant."""
        return Phase2Config.from_params(self.params, variant=variant, seed=seed, **self._inner)

    @cached_property
    def backbone(self) -> QwenBackbone:
        """The frozen model with its language model, opened as phase 1 says, once."""
        return open_backbone(self.phase1.params, load_language_model=True)

    @cached_property
    def prototypes(self) -> Float[Tensor, "2 d"]:
        """Text features of "normal" and "abnormal", in this order."""
        return prototypes(self.backbone, cache_dir=self.cache)

    def cells(self, protocol: str) -> list[tuple[str, int]]:
        """Variant and seed of all cells of a protocol; one seed is complete before the next begins."""
        kept = [variant for variant in self.variants if protocol == "scene-disjoint" or variant in OPEN_VARIANTS]
        return [(variant, seed) for seed in self.seeds for variant in kept]

    def splits(self, protocol: str) -> tuple[str, ...]:
        """The splits that are answered: in a trial validation alone."""
        return MEASURED[protocol] if not self.trial else tuple(TRAINING_SPLITS[protocol][1:])

    def rows_path(self, config: str) -> Path:
        """Where rows go: the study's own file, those of a trial under ``runs``, one file for its settings."""
        return self.work / config / "trial.jsonl" if self.trial else self._study_rows

    def run(self) -> list[Path]:
        """Train and measure every cell that has no rows yet; returns the files of rows.

        Raises what training raises; what is done by then stays.
        """
        written = []
        for protocol in ("scene-disjoint",) if self.trial else MEASURED:
            if cells := self.cells(protocol):
                written.append(self._run_protocol(protocol, cells))
        return list(dict.fromkeys(written))

    def _run_protocol(self, protocol: str, cells: Sequence[tuple[str, int]]) -> Path:
        began = time.perf_counter()
        data = self.spoken(protocol)
        decoder = self.phase1.decoder(self.backbone, self.prototypes, protocol=protocol, seed=DECODER_SEED)
        config = cell_key(self.config("full", 0), self.backbone, decoder, data, prototypes=self.prototypes)
        path = self.rows_path(config)
        missing = [cell for cell in cells if not self._has(path, cell, protocol, config)]
        print(f"phase 2, {protocol}: {len(missing)} of {len(cells)} cells to do, rows in {path}", flush=True)
        for cell in missing:
            self._run_cell(cell, protocol, config, data, decoder)
        if missing:
            record = provenance(config=config, device=str(self.backbone.device), attention=self.backbone.attention,
                                started=began, seeds=list(self.seeds), variants=list(self.variants), protocol=protocol,
                                settings=self.config("full", 0).given, backbone=self.backbone.language_fingerprint)
            write_json(path.with_name(f"{path.stem}.phase2-{protocol}.provenance.json"), record)
        return path

    def spoken(self, protocol: str) -> Spoken:
        """Conversations and videos of a protocol; the open-set one keeps its dialogue set apart."""
        params = self.params
        if protocol != params.protocol:
            params = replace(params, protocol=protocol, output_dir=f"runs/study/{protocol}")
        # "split" is the one that test_clips counts
        params = replace(params, split=MEASURED[protocol][-1])
        dialogue_set(params)
        return Spoken.of(params, opened(params), folder_of(params))

    def _has(self, path: Path, cell: tuple[str, int], protocol: str, config: str) -> bool:
        variant, seed = cell
        return has_rows(path, "split", self.splits(protocol), metrics=SPOKEN, variant=variant, seed=seed, protocol=protocol,
                        config=config)

    def _run_cell(self, cell: tuple[str, int], protocol: str, config: str, data: Spoken,
                  decoder: AnomalyHeatmapDecoder) -> None:
        (variant, seed), (train, val) = cell, TRAINING_SPLITS[protocol]
        rows = speak_cell(self.config(variant, seed), self.backbone, decoder, data, prototypes=self.prototypes,
                          output=self.work / config / f"{variant}-{protocol}-seed{seed}", cache_dir=self.cache,
                          train=train, val=val, splits=self.splits(protocol), style=self.params.style,
                          samples=self.params.bootstrap_samples,
                          kinds=OPEN_SET_EVENTS if protocol == "open-set" else ())
        replace_rows(self.rows_path(config), rows)
        for split in self.splits(protocol):
            own = [row for row in rows if (row.variant, row.split) == (variant, split)]
            print(f"{variant}, seed {seed}, {protocol}/{split}: {said(own)}", flush=True)
