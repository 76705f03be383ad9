"""Parameters of ``notebooks/phase3_evaluation.ipynb``; see :mod:`tvad.params.base` for what all notebooks share."""
from __future__ import annotations

from dataclasses import dataclass

from tvad.params.base import DATASETS, RunParameters, setting


@dataclass(frozen=True, kw_only=True)
class Phase3(RunParameters):
    """Parameters of the evaluation: which split the breakdowns are of. Tables take every row there is."""

    dataset: str = setting("simcampus", "data set that the breakdowns are of", choices=DATASETS)
    protocol: str = setting("scene-disjoint", "how the data set is split",
                            choices=("scene-disjoint", "open-set", "official"))
    split: str = setting("test", "split that the breakdowns are of", choices=("test", "val", "test-open"))
    data_root: str | None = setting(None, "folder of the data sets; None: TVAD_DATA, else data/", hashed=False)
    variant: str = setting("full", "variant of phase 2 whose answers are broken down", pattern=r"[a-z][a-z-]*")
    seed: int = setting(0, "seed that this run's figures carry", low=0, high=2**31 - 1)
    bootstrap_samples: int = setting(1000, "bootstrap samples over videos", low=10, high=100_000, smoke=20)
