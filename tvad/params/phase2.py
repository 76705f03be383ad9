"""Parameters of ``notebooks/phase2_rae_lora.ipynb``; see :mod:`tvad.params.base` for what all notebooks share."""
from __future__ import annotations

from dataclasses import dataclass

from tvad.errors import ParameterError
from tvad.params.base import DATASETS, RunParameters, setting


@dataclass(frozen=True, kw_only=True)
class Phase2(RunParameters):
    """Parameters of the conversation: the dialogue set, and what is trained on it."""

    # Data.
    dataset: str = setting("simcampus", "data set that is spoken of", choices=DATASETS)
    protocol: str = setting("scene-disjoint", "how the data set is split",
                            choices=("scene-disjoint", "open-set", "official"))
    split: str = setting("test", "split that is evaluated", choices=("test", "val", "test-open"))
    data_root: str | None = setting(None, "folder of the data sets; None: TVAD_DATA, else data/", hashed=False)
    # The dialogue set; tvad.language.corpus.Settings.
    frames_per_clip: int = setting(16, "frames of one clip", low=2, high=256)
    clip_stride: int = setting(14, "frames from clip to clip", low=1, high=256)
    dialogue_seed: int = setting(0, "seed of wordings and of which open questions are asked", low=0, high=2**31 - 1)
    dialogue_videos: int = setting(0, "first so many videos of each split; 0: all", low=0, smoke=2)
    appearance: str = setting("auto", "source of appearance: auto, script, open, or a model by folder or hub name")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.clip_stride > self.frames_per_clip:
            raise ParameterError(f"clip_stride: {self.clip_stride} would leave frames between clips unseen; allowed: 1 to "
                                 f"frames_per_clip ({self.frames_per_clip})")
