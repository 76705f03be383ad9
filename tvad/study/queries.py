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
from collections.abc import Sequence
from dataclasses import asdict
from functools import cached_property
from pathlib import Path

from tvad.backbones.qwen import QwenBackbone
from tvad.detection import Scoring
from tvad.evaluation import Cell
from tvad.params import Phase1, project_root
from tvad.queries.evaluation import choose_query_sigma, query_rows
from tvad.queries.heatmap import EventHeatmapDecoder
from tvad.record import QUERIED, Row, provenance, read_rows, replace_rows, write_json
from tvad.study.run import TRAINING_SPLITS, Study, open_backbone
from tvad.training.queries import QueryConfig, train_queries

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
        for protocol, seed in missing:
            rows = self._cell(protocol, seed)
            replace_rows(path, rows)
            for split in MEASURED[protocol]:
                said = ", ".join(f"{row.metric} {row.value:.3f}" for row in rows if row.split == split
                                 and row.event is None and row.value is not None)
                print(f"queries, seed {seed}, {protocol}/{split}: {said}", flush=True)
        if missing:
            record = provenance(config=self.key, device=str(self.backbone.device), attention=self.backbone.attention,
                                started=began, seeds=list(self.seeds), settings=asdict(self.config),
                                backbone=self.backbone.fingerprint)
            write_json(path.with_name(f"{path.stem}.queries.provenance.json"), record)
        return path

    def decoder(self, protocol: str, seed: int) -> Path:
        """The file of a trained decoder with its scoring (``queries.json``) beside it, made where it is missing."""
        folder = self.work / self.key / f"{protocol}-seed{seed}"
        train, val = (self.phase1.videos("simcampus", protocol, name) for name in TRAINING_SPLITS[protocol])
        shared = {**asdict(self.config), "seed": seed, "pairs_per_video": self.phase1.pairs_per_video()}
        result = train_queries(QueryConfig(**shared), self.backbone, train=train, val=val, output_dir=folder,
                               cache_dir=self.cache)
        scoring = result.path.with_suffix(".json")
        if not scoring.is_file():
            decoder = EventHeatmapDecoder.load(result.path, backbone=self.backbone)
            chosen_on = f"simcampus/{TRAINING_SPLITS[protocol][1]}"
            choose_query_sigma(self.backbone, decoder, val, chosen_on=chosen_on, scoring=self._scoring()).save(scoring)
        return result.path

    def _cell(self, protocol: str, seed: int) -> list[Row]:
        path = self.decoder(protocol, seed)
        decoder = EventHeatmapDecoder.load(path, backbone=self.backbone).to(self.backbone.device)
        scoring, rows = Scoring.load(path.with_suffix(".json")), []
        for split in MEASURED[protocol]:
            cell = Cell(variant="full", dataset="simcampus", split=split, protocol=protocol, seed=seed, config=self.key,
                        sigma=scoring.sigma, samples=self.params.bootstrap_samples,
                        choice=scoring.choice_on(f"simcampus/{split}"))
            videos = self.phase1.videos("simcampus", protocol, split)[:self.params.max_videos or None]
            rows += query_rows(self.backbone, decoder, videos, cell, scoring=scoring)
        return rows

    def _has(self, protocol: str, seed: int) -> bool:
        path = self.phase1.rows_path
        rows = read_rows(path) if path.is_file() else []
        found = {row.split for row in rows if row.metric in QUERIED
                 and (row.seed, row.protocol, row.config) == (seed, protocol, self.key)}
        return found >= set(MEASURED[protocol])

    def _scoring(self) -> Scoring:
        params = self.params
        return Scoring(frames_per_clip=params.frames_per_clip, stride=params.stride, top_fraction=params.top_fraction)

    def _shared(self) -> QueryConfig:
        pairs = self.phase1.config
        return QueryConfig(train_pairs=pairs.train_pairs, val_pairs=pairs.val_pairs, pair_seed=pairs.pair_seed,
                           positive_share=pairs.positive_share, refilmed=pairs.refilmed)
