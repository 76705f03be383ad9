"""The study of query heatmaps: a decoder that listens for every seed, measured on unseen scenes and on unseen words.

    python -m tvad.study run --phase queries

The closed protocol trains on all events and measures validation and test; the open-set one has never been told of the
kept-out events, so that its rows say how far the meaning of words alone carries (``tvad.queries.words``).  Features are
those of phase 1; smoothing is chosen on the validation split.  What has its rows is not made again, and a training that
was broken off goes on.
"""
from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import cached_property
from pathlib import Path

from tvad.backbones.qwen import QwenBackbone
from tvad.detection import Scoring
from tvad.evaluation import Cell
from tvad.params import Phase1, project_root
from tvad.queries.evaluation import best_sigma, hear, rows_of
from tvad.queries.heatmap import EventHeatmapDecoder
from tvad.record import QUERIED, has_rows, provenance, replace_rows, write_json
from tvad.study.run import TRAINING_SPLITS, Study, open_backbone, said
from tvad.training.queries import QueryConfig, train_queries

Place = tuple[str, int]         # training protocol and seed
MEASURED = {"scene-disjoint": ("val", "test"), "open-set": ("test-open",)}


class QueryStudy:
    """The query heatmaps of a profile of simulated scenes; ``run`` does what is missing.

    ``config``: settings of the training, by default those that share the cached pairs of phase 1.
    """

    def __init__(self, profile: str, *, seeds: Sequence[int] = (0, 1, 2), root: Path | None = None,
                 params: Phase1 | None = None, config: QueryConfig | None = None) -> None:
        self.root = root or project_root()
        self.phase1 = Study(profile, root=root, params=params)
        self.params, self.seeds = self.phase1.params, tuple(seeds)
        self.config = config or self._shared()
        self.work, self.cache = self.root / "runs" / "study" / "queries", self.phase1.cache

    @cached_property
    def backbone(self) -> QwenBackbone:
        """The frozen tower, opened as phase 1 says, once."""
        return open_backbone(self.params)

    @cached_property
    def key(self) -> str:
        """Hash of all that decides the rows."""
        settings = {name: value for name, value in asdict(self.config).items() if name != "seed"}
        parts = ["queries", settings, self.phase1.config_hash(self.backbone)]
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:12]

    def run(self) -> Path:
        """Train and measure every protocol and seed that has no rows yet; returns the file of rows.

        Raises what training raises; what is done by then stays.
        """
        began, path = time.perf_counter(), self.phase1.rows_path
        cells = [(protocol, seed) for seed in self.seeds for protocol in MEASURED]
        missing = [cell for cell in cells if not self._has(*cell)]
        print(f"query heatmaps: {len(missing)} of {len(cells)} cells to do, rows in {path}", flush=True)
        decoders = {cell: EventHeatmapDecoder.load(self.decoder(*cell), backbone=self.backbone).to(self.backbone.device)
                    for cell in missing}
        scorings = self._calibrated(decoders)
        for split in dict.fromkeys(split for protocol, _ in missing for split in MEASURED[protocol]):
            asked = {cell: decoder for cell, decoder in decoders.items() if split in MEASURED[cell[0]]}
            self._measure(split, asked, scorings)
        if missing:
            record = provenance(config=self.key, device=str(self.backbone.device), attention=self.backbone.attention,
                                started=began, seeds=list(self.seeds), settings=asdict(self.config),
                                backbone=self.backbone.fingerprint)
            write_json(path.with_name(f"{path.stem}.queries.provenance.json"), record)
        return path

    def decoder(self, protocol: str, seed: int) -> Path:
        """The file of a trained decoder, made where it is missing."""
        train, val = (self.phase1.videos("simcampus", protocol, name) for name in TRAINING_SPLITS[protocol])
        shared = {**asdict(self.config), "seed": seed, "pairs_per_video": self.phase1.pairs_per_video()}
        return train_queries(QueryConfig(**shared), self.backbone, train=train, val=val, cache_dir=self.cache,
                             output_dir=self.work / self.key / f"{protocol}-seed{seed}").path

    def _calibrated(self, decoders: Mapping[Place, EventHeatmapDecoder]) -> dict[Place, Scoring]:
        """Smoothing of each decoder, from its validation split; kept as ``queries.json`` beside it."""
        params = self.params
        plain = Scoring(frames_per_clip=params.frames_per_clip, stride=params.stride, top_fraction=params.top_fraction)
        paths = {cell: self.work / self.key / f"{cell[0]}-seed{cell[1]}" / "queries.json" for cell in decoders}
        for protocol in MEASURED:
            val = TRAINING_SPLITS[protocol][1]
            rest = {cell: one for cell, one in decoders.items() if cell[0] == protocol and not paths[cell].is_file()}
            heard = hear(self.backbone, rest, self.phase1.videos("simcampus", protocol, val), scoring=plain) if rest else {}
            for cell, each in heard.items():
                best_sigma(each, plain, chosen_on=f"simcampus/{val}").save(paths[cell])
        return {cell: Scoring.load(path) for cell, path in paths.items()}

    def _measure(self, split: str, decoders: Mapping[Place, EventHeatmapDecoder],
                 scorings: Mapping[Place, Scoring]) -> None:
        """Rows of a split, from one pass of the tower for all decoders."""
        protocol = next(iter(decoders))[0]
        videos = self.phase1.videos("simcampus", protocol, split)[:self.params.max_videos or None]
        windows = next(iter(scorings.values()))
        for (_, seed), heard in hear(self.backbone, decoders, videos, scoring=windows).items():
            scoring = scorings[protocol, seed]
            rows = rows_of(heard, Cell(variant="full", dataset="simcampus", split=split, protocol=protocol, seed=seed,
                                       config=self.key, sigma=scoring.sigma, samples=self.params.bootstrap_samples,
                                       choice=scoring.choice_on(f"simcampus/{split}")))
            replace_rows(self.phase1.rows_path, rows)
            print(f"queries, seed {seed}, {protocol}/{split}: {said(rows)}", flush=True)

    def _has(self, protocol: str, seed: int) -> bool:
        return has_rows(self.phase1.rows_path, "split", MEASURED[protocol], metrics=QUERIED, seed=seed, protocol=protocol,
                        config=self.key)

    def _shared(self) -> QueryConfig:
        pairs = self.phase1.config
        return QueryConfig(train_pairs=pairs.train_pairs, val_pairs=pairs.val_pairs, pair_seed=pairs.pair_seed,
                           positive_share=pairs.positive_share, refilmed=pairs.refilmed)
