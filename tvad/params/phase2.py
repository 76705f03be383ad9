"""Parameters of ``notebooks/phase2_rae_lora.ipynb``; see :mod:`tvad.params.base` for what all notebooks share."""
from __future__ import annotations

from dataclasses import dataclass

from tvad.errors import ParameterError
from tvad.params.base import DATASETS, RunParameters, setting


def not_run_for(dataset: str) -> str:
    """Why phase 2 is not run for a data set, in words; empty for SimCampus, which it is trained on."""
    return "" if dataset == "simcampus" else f"phase 2 is trained on simcampus; not run for {dataset}"


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

    # Clips that are spoken of: evenly spread over the videos of a split; 0: all.
    train_clips: int = setting(600, "clips that are trained on; 0: all", low=0, smoke=4)
    val_clips: int = setting(100, "clips that choose the checkpoint; 0: all", low=0, smoke=4)
    test_clips: int = setting(200, "clips that are measured; 0: all", low=0, smoke=4)
    style: str = setting("turns", "style of the conversations trained on and answered",
                         choices=("turns", "sentences", "report"))
    # Model; tvad.training.phase2_config.Phase2Config takes over what it shares by name, from here on.
    variant: str = setting("full", "row of the ablation", choices=(
        "full", "no-rae", "no-ahd", "no-rae-no-ahd", "no-lora", "shuffled-evidence", "oracle-evidence"))
    region: str = setting("worded", "variant of the region encoder", choices=("worded", "located", "paper", "thesis"))
    looks: int = setting(8, "hottest video tokens that the region encoder points out (located alone)", low=0, high=64)
    every: int = setting(2, "the tower sees every so-manyth temporal patch", low=1, high=64)
    token_step: int = setting(2, "the language model reads every so-manyth of these", low=1, high=64)
    pool: int = setting(3, "side of the blocks of video tokens that it reads the mean of", low=1, high=32)
    # Training.
    seed: int = setting(0, "seed of initial weights, order, dropout and blobs", low=0, high=2**31 - 1)
    word_steps: int = setting(400, "steps in which a region encoder that speaks in words learns these, before the others",
                              low=0, high=1_000_000, smoke=4)
    word_batch: int = setting(32, "clips of one of these steps, as many turned ones and blobs, twice as many people", low=1,
                              high=65_536, smoke=4)
    word_blobs: int = setting(1000, "different blobs in them", low=1, high=1_000_000, smoke=8)
    taught_rate: float = setting(0.1, "share of its rate at which it learns on afterwards", low=0.0, high=0.99)
    blob_steps: int = setting(80, "steps of the first stage, synthetic blobs told in words or drawn", low=0,
                              high=1_000_000, smoke=2)
    blob_batch: int = setting(8, "blobs of one of these steps", low=1, high=65_536, smoke=2)
    blob_share: float = setting(0.17, "share of blobs in the batches after them", low=0.0, high=0.9)
    steps: int = setting(80, "steps of conversations", low=1, high=1_000_000, smoke=4)
    scene_share: float = setting(0.05, "share of these that is the scene stage", low=0.0, high=0.9)
    skipped_share: float = setting(0.3, "share of the anomaly stage's conversations of which some turns are left out",
                                   low=0.0, high=1.0)
    asked: str = setting("core", "questions of the anomaly stage: the six core ones, or all", choices=("core", "all"))
    batch_size: int = setting(6, "conversations of a step", low=1, high=65_536, smoke=4)
    validate_every: int = setting(80, "steps between validations", low=1, high=1_000_000, smoke=3)
    val_conversations: int = setting(48, "conversations that validate; 0: all", low=0, smoke=4)
    learning_rate: float = setting(5e-3, "peak learning rate of LoRA; big models want 2e-4", low=1e-8, high=1.0)
    region_learning_rate: float = setting(3e-4, "that of region encoder and token rows", low=1e-8, high=1.0)
    bootstrap_samples: int = setting(1000, "bootstrap samples over videos", low=10, high=100_000, smoke=20)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.clip_stride > self.frames_per_clip:
            raise ParameterError(f"clip_stride: {self.clip_stride} would leave frames between clips unseen; allowed: 1 to "
                                 f"frames_per_clip ({self.frames_per_clip})")
