"""Where a system is measured: a split of a data set, written ``simcampus/test``, and what its decoders learn from."""
from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

from tvad.datasets import open_dataset
from tvad.errors import ParameterError
from tvad.record import DATASETS

# The three that every system is measured on; the tables list them in this order.
STANDARD = ("simcampus/test", "simcampus/test-open", "ucsd_ped2/test")
_TITLES = {"simcampus/test": "SimCampus, closed set (simulated)", "simcampus/test-open": "SimCampus, open set (simulated)",
           "simcampus/val": "SimCampus, validation (simulated)", "ucsd_ped2/test": "UCSD Ped2 (real)",
           "ucsd_ped1/test": "UCSD Ped1 (real)"}


@dataclass(frozen=True)
class Place:
    """A split of a data set under its protocol; ``trained`` is the protocol of SimCampus that decoders learn under."""

    dataset: str
    split: str

    @classmethod
    def parse(cls, text: str) -> Place:
        """From ``dataset/split``. Raises :class:`ParameterError` for anything else."""
        dataset, sign, split = text.partition("/")
        if not sign or not split or dataset not in DATASETS:
            raise ParameterError(f"{text!r} is no place to measure on; write dataset/split, such as "
                                 f"{', '.join(STANDARD)}; data sets: {', '.join(DATASETS)}")
        return cls(dataset, split)

    def __str__(self) -> str:
        return f"{self.dataset}/{self.split}"

    @property
    def title(self) -> str:
        return _TITLES.get(str(self), str(self))

    @property
    def protocol(self) -> str:
        """As rows call it."""
        if self.dataset != "simcampus":
            return "official"
        return "open-set" if self.split.endswith("-open") else "scene-disjoint"

    @property
    def trained(self) -> str:
        return self.protocol if self.dataset == "simcampus" else "scene-disjoint"

    def videos(self, *, root: str | None = None, limit: int = 0, render: bool = True,
               **options: Any) -> tuple[Any, ...]:
        """Its videos (the first ``limit``; 0: all).

        ``render``: make missing simulated ones now, on all cores, where all are wanted. ``options`` go to the data set.
        Raises :class:`tvad.errors.DatasetError` for a missing set or an unknown split.
        """
        choice = {"protocol": self.protocol} if self.dataset == "simcampus" else {}
        opened = open_dataset(self.dataset, root=root, **choice, **options)
        videos = tuple(opened.videos(self.split))
        if self.dataset == "simcampus" and render and not limit:
            cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
            opened.prepare([self.split], workers=cores)
        return videos[:limit or None]


# Where the leak demonstration (``tvad.evaluation.leak``) measures, and the two protocols that it compares.
LEAK = Place("simcampus", "held-out-clips")
LEAK_PROTOCOLS = {"random-clips": "random split of clips (the thesis')", "scene-disjoint": "scene-disjoint (ours)"}
