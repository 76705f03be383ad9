"""One run of phase 2 as its notebook makes it: the heatmap decoder of phase 1, conversations, training, answers, rows.

    run = Phase2Run(params)     # tvad.params.Phase2, after ``dialogue_set(params)`` and a run of phase 1 in the same folder
    rows = run.speak()          # trains (or goes on), answers the evaluated split, rows into ``results.jsonl``
    run.finish()

Everything lies in ``<output>/phase2``: the model, its history, every answer, the seconds.  A finished training is kept.
Phase 2 is trained and measured on SimCampus alone: for any other data set nothing is run or written, every step says so
(``not_run``) and the notebook goes on.
"""
from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from statistics import mean
from typing import Any

from jaxtyping import Float
from torch import Tensor

from tvad.backbones.qwen import QwenBackbone
from tvad.errors import MissingPhaseError
from tvad.heatmap import AnomalyHeatmapDecoder
from tvad.language.run import folder_of, opened
from tvad.params import Phase1, Phase2, project_root
from tvad.params.phase2 import not_run_for
from tvad.prompts import prototypes
from tvad.record import Row, append_rows, complete, latest_rows, provenance, read_rows, reopen, replace_rows, write_json
from tvad.study.phase1 import read_params
from tvad.study.report import Table
from tvad.study.run import TRAINING_SPLITS
from tvad.study.speaking import Spoken, read_seconds, speak_cell
from tvad.study.tables import collect, figure_key, spread
from tvad.training.phase2 import MODEL
from tvad.training.phase2_config import Phase2Config

PHASE = "phase2"
_PHASE1 = "phase1"


class Phase2Run:
    """A run under way; ``not_run`` says in words why there is none, else it is empty.

    Raises :class:`MissingPhaseError` where phase 1 has left no decoder in the same output folder.
    """

    def __init__(self, params: Phase2, *, backbone: Any = None) -> None:
        self.params, self.config = params, Phase2Config.from_params(params)
        self.folder, self.cache = params.output / PHASE, project_root() / "data" / "cache"
        self.ahd = params.output / _PHASE1 / "ahd.safetensors"
        self._began = time.perf_counter()
        self.not_run = not_run_for(params.dataset)
        if self.not_run:
            return
        if not self.ahd.is_file():
            raise MissingPhaseError(f"{self.ahd}: phase 2 starts from the heatmap decoder of phase 1, which is not there; "
                                    "run notebooks/phase1_ahd.ipynb with this profile, or: make reproduce "
                                    f"PROFILE={params.profile}")
        self.splits = (*TRAINING_SPLITS.get(params.protocol, ("train", "val")), params.split)
        if backbone is not None:
            self.backbone = backbone
        reopen(self.folder)
        write_json(self.folder / "params.json", params.as_dict())

    @cached_property
    def phase1(self) -> Phase1:
        """The parameters that phase 1 was run with."""
        return read_params(self.params.output)

    @cached_property
    def backbone(self) -> QwenBackbone:
        """The frozen model with its language model, opened as phase 1 says."""
        wanted = self.phase1
        return QwenBackbone.from_pretrained(wanted.backbone, taps=wanted.taps, device=wanted.device, dtype=wanted.dtype,
                                            attention=wanted.attention, load_language_model=True)

    @cached_property
    def decoder(self) -> AnomalyHeatmapDecoder:
        """Phase 1's decoder."""
        return AnomalyHeatmapDecoder.load(self.ahd, backbone=self.backbone).to(self.backbone.device).eval()

    @cached_property
    def prototypes(self) -> Float[Tensor, "2 d"]:
        """Text features of "normal" and "abnormal", in this order."""
        return prototypes(self.backbone, cache_dir=self.cache)

    @cached_property
    def data(self) -> Spoken:
        """The conversations and their videos."""
        return Spoken.of(self.params, opened(self.params), folder_of(self.params))

    @property
    def model(self) -> Path:
        """The trained speaker's folder."""
        return self.folder / MODEL

    def speak(self) -> list[Row]:
        """Train what is not trained yet, answer the evaluated split, and write the rows; none where it is ``not_run``."""
        if self.not_run:
            print(self.not_run)
            return []
        train, val, split = self.splits
        rows = speak_cell(self.config, self.backbone, self.decoder, self.data, prototypes=self.prototypes,
                          output=self.folder, cache_dir=self.cache, train=train, val=val, splits=(split,),
                          style=self.params.style, samples=self.params.bootstrap_samples)
        (self.folder / "rows.jsonl").unlink(missing_ok=True)
        append_rows(self.folder / "rows.jsonl", rows)
        replace_rows(self.params.output / "results.jsonl", rows)
        return rows

    def history(self) -> list[Mapping[str, Any]]:
        """One record a validation."""
        return json.loads((self.folder / "history.json").read_text(encoding="utf-8"))

    def finish(self) -> dict[str, Any]:
        """Write provenance, then ``complete.json``; returns the provenance, and writes nothing where it is ``not_run``."""
        if self.not_run:
            return provenance(config=self.params.config_hash(), started=self._began, seconds={}, not_run=self.not_run)
        seconds = {name: round(value, 1) for name, value in read_seconds(self.folder).items()}
        record = provenance(config=self.params.config_hash(), device=str(self.backbone.device),
                            attention=self.backbone.attention, started=self._began, backbone=self.backbone.name,
                            fingerprint=self.backbone.language_fingerprint, seconds=seconds)
        write_json(self.folder / "provenance.json", record)
        complete(self.folder, ["params.json", "history.json", "rows.jsonl", "provenance.json"])
        return record

    def table(self) -> Table:
        """Each figure of this run with its interval, the same model with other clips' maps, and the committed study."""
        if self.not_run:
            return Table(self.not_run)
        rows = read_rows(self.folder / "rows.jsonl")
        path = project_root() / "figures" / self.params.profile / "study.jsonl"
        study = collect(latest_rows(read_rows(path))) if path.is_file() else {}
        lines = []
        for row in (row for row in rows if row.variant == self.params.variant and row.value is not None):
            other = next((one for one in rows if (one.variant, one.metric) == ("swapped", row.metric)), None)
            interval = "" if row.ci_low is None else f"{row.ci_low:.3f} to {row.ci_high:.3f}"
            known = [_mean(study, replace(row, variant=name)) for name in (self.params.variant, "no-rae-no-ahd")]
            lines.append((row.metric, f"**{row.value:.3f}**", interval, f"{row.n}",
                          "" if other is None or other.value is None else f"{other.value:.3f}", *known))
        head = ("figure", f"seed {self.params.seed}", "95 % interval", "n", "other clip's map", "study",
                "study, neither module")
        return Table("\n".join("| " + " | ".join(line) + " |" for line in (head, ("---",) * len(head), *lines)))


def _mean(study: Mapping[tuple, list[float]], row: Row) -> str:
    values = study.get(figure_key(row))
    return "" if not values else f"{mean(values):.3f} ± {spread(values):.3f}"
