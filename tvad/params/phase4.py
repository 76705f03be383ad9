"""Parameters of ``notebooks/phase4_visualization.ipynb``; see :mod:`tvad.params.base` for what all notebooks share."""
from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tvad.params.base import DATASETS, RunParameters, project_root, setting


@dataclass(frozen=True, kw_only=True)
class Phase4(RunParameters):
    """Parameters of the paper's figures: what is drawn, and from which run."""

    # Data.
    dataset: str = setting("simcampus", "data set that is shown", choices=DATASETS)
    protocol: str = setting("scene-disjoint", "how the data set is split",
                            choices=("scene-disjoint", "open-set", "official"))
    split: str = setting("test", "split that is shown", choices=("test", "val", "test-open"))
    data_root: str | None = setting(None, "folder of the data sets; None: TVAD_DATA, else data/", hashed=False)
    # What is drawn.
    source: str = setting("", "folder of the run that is drawn; empty: the profile's own, runs/<profile>")
    backbone: str = setting("qwen2.5-vl-tiny", "model whose framework is drawn: name in data/zoo, folder, or hub name")
    answers: str = setting("", "file of answers of phase 2; empty: the one of variant and split in the run's phase2")
    variant: str = setting("full", "variant of phase 2 whose answers are shown", pattern=r"[a-z][a-z-]*")
    threshold: float = setting(0.5, "heat above which a patch counts as found, in overlays", low=0.01, high=0.99)
    frames_per_clip: int = setting(16, "frames of the clip whose shapes the framework shows", low=2, high=256)
    bootstrap_samples: int = setting(300, "resamples of videos behind the bands of ROC and PR", low=10, high=100_000,
                                     smoke=20)
    # The demo inside the notebook loads the model, which a run without a reader need not do.
    player: bool = setting(False, "whether the last cell opens the demo's player", hashed=False)

    @property
    def run(self) -> Path:
        """Folder of the run that is drawn; relative names start at the checkout."""
        return project_root() / self.source if self.source else self.output
