"""Parameters of ``notebooks/demo.ipynb``; see :mod:`tvad.params.base` for what all notebooks share."""
from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tvad.params.base import DATASETS, RunParameters, project_root, setting


@dataclass(frozen=True, kw_only=True)
class Demo(RunParameters):
    """Parameters of the demo: whose weights it shows, and which videos it offers."""

    dataset: str = setting("simcampus", "data set whose videos are offered", choices=DATASETS)
    protocol: str = setting("scene-disjoint", "how the data set is split",
                            choices=("scene-disjoint", "open-set", "official"))
    split: str = setting("test", "split whose videos are offered", choices=("test", "val", "test-open"))
    data_root: str | None = setting(None, "folder of the data sets; None: TVAD_DATA, else data/", hashed=False)
    examples: int = setting(6, "so many videos of the split are offered", low=0, high=500)
    videos: str = setting("", "a video of your own, or a folder of videos; offered first", hashed=False)
    source: str = setting("", "folder of the run whose weights are shown; empty: the profile's own, runs/<profile>")
    backbone: str = setting("qwen2.5-vl-tiny", "model: name in data/zoo, folder, or hub name")

    @property
    def run(self) -> Path:
        """Folder of the run whose weights are shown; relative names start at the checkout.

        A reduced run shows the weights of the whole one.
        """
        return project_root() / (self.source or f"runs/{self.profile}")
