"""Parameters of ``notebooks/phase1_ahd.ipynb``; see :mod:`tvad.params.base` for what all notebooks share."""
from __future__ import annotations

from dataclasses import dataclass

from tvad.errors import ParameterError
from tvad.params.base import DATASETS, RunParameters, setting


@dataclass(frozen=True, kw_only=True)
class Phase1(RunParameters):
    """Parameters of ``notebooks/phase1_ahd.ipynb``: train the Anomaly Heatmap Decoder, then measure and draw it."""

    # Data.
    dataset: str = setting("simcampus", "data set that is evaluated", choices=DATASETS)
    protocol: str = setting("scene-disjoint", "how the evaluated data set is split",
                            choices=("scene-disjoint", "open-set", "official"))
    split: str = setting("test", "split that is evaluated", choices=("test", "val", "test-open"))
    train_dataset: str = setting("simcampus", "data set that the decoder learns from", choices=DATASETS)
    train_protocol: str = setting("scene-disjoint", "how the training data set is split",
                                  choices=("scene-disjoint", "open-set", "official"))
    data_root: str | None = setting(None, "folder of the data sets; None: TVAD_DATA, else data/", hashed=False)
    max_videos: int = setting(0, "evaluate the first so many videos; 0: all", low=0, smoke=2)
    decoder: str = setting("pyav", "library that decodes videos", choices=("pyav", "decord", "torchcodec"))
    frames_per_clip: int = setting(16, "frames of one window", low=2, high=256)
    stride: int = setting(16, "frames from window to window in evaluation", low=1, high=256)
    # Model.
    backbone: str = setting("qwen2.5-vl-tiny", "name in data/zoo, a folder, or a hub name")
    taps: tuple[int, ...] = setting((0, 1, 3, 5), "tapped blocks of the vision tower, from 0", low=0, high=127)
    variant: str = setting("paper", "similarity of the decoder; thesis wants contrast raw and temperature 100",
                           choices=("paper", "thesis"))
    contrast: str = setting("centred", "text prototypes as they are, or less their mean", choices=("raw", "centred"))
    hidden_width: int = setting(128, "hidden width of the decoder's per-tap layers", low=8, high=8192)
    temperature: float = setting(25.0, "factor on the similarities before the softmax (thesis: 100)", low=0.01, high=1000.0)
    # Training; tvad.training.phase1.Phase1Config takes over what it shares by name.
    seed: int = setting(0, "seed of initial weights, order and patch draws", low=0, high=2**31 - 1)
    loss: str = setting("cross_entropy", "pixel loss", choices=("cross_entropy", "balanced", "focal", "dice"))
    target_rule: str = setting("any", "which patches of a mask count as anomalous", choices=("any", "area", "nearest"))
    target_threshold: float = setting(0.25, "share of a patch that the mask covers, for rule area", low=0.0, high=1.0)
    steps: int = setting(600, "optimizer steps", low=1, high=10_000_000, smoke=6)
    batch_size: int = setting(16, "frame pairs a step", low=1, high=65_536, smoke=4)
    validate_every: int = setting(150, "steps between validations", low=1, high=1_000_000, smoke=3)
    learning_rate: float = setting(1e-3, "peak learning rate of AdamW", low=1e-8, high=1.0)
    weight_decay: float = setting(0.01, "weight decay of AdamW", low=0.0, high=1.0)
    patches_per_pair: int = setting(256, "patches drawn of each pair; 0: whole maps", low=0, high=1_000_000)
    train_pairs: int = setting(2500, "cached training frame pairs in all", low=1, high=10_000_000, smoke=24)
    pairs_per_video: int = setting(0, "cached pairs of each training video; 0: spread evenly", low=0, high=100_000)
    refilmed: float = setting(0.7, "share of training pairs seen through another camera", low=0.0, high=1.0)
    val_pairs: int = setting(400, "cached validation frame pairs in all", low=1, high=10_000_000, smoke=24)
    # What the query heatmaps of the examples are asked for.
    events: tuple[str, ...] = setting(("bicycle", "skateboarding", "car"), "on footage that names no events itself",
                                      hashed=False)
    # Measurement.
    sigma: float | None = setting(None, "smoothing of frame scores in frames; None: chosen on validation",
                                  low=0.0, high=1000.0)
    top_fraction: float = setting(0.01, "share of heatmap pixels that make the frame score", low=1e-6, high=1.0)
    bootstrap_samples: int = setting(1000, "bootstrap samples over videos", low=10, high=100_000, smoke=20)
    # Where it runs; nothing here may change a result beyond rounding.
    device: str = setting("auto", "auto, cpu, cuda or cuda:<n>", pattern=r"auto|cpu|mps|cuda(:\d+)?", hashed=False)
    dtype: str = setting("auto", "number format of the backbone", choices=("auto", "float32", "bfloat16", "float16"))
    attention: str = setting("auto", "attention kernel of the backbone",
                             choices=("auto", "sdpa", "eager", "flash_attention_2"), hashed=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.variant == "thesis" and (self.contrast, self.temperature) != ("raw", 100.0):
            raise ParameterError(f"variant: 'thesis' is not allowed with contrast {self.contrast!r} and temperature "
                                 f"{self.temperature}; set contrast to raw and temperature to 100")
        if not self.taps or list(self.taps) != sorted(set(self.taps)):
            raise ParameterError(f"taps: {list(self.taps)} is not allowed; allowed: one block or more, ascending, "
                                 "each once")
        if self.dataset == self.train_dataset and self.protocol != self.train_protocol:
            raise ParameterError(f"train_protocol: {self.train_protocol!r} is not allowed with protocol "
                                 f"{self.protocol!r} of the same data set, a decoder must be measured by the protocol "
                                 f"that it was trained under; allowed: {self.protocol}")
        if self.stride > self.frames_per_clip:
            raise ParameterError(f"stride: {self.stride} would leave frames between windows unseen; allowed: "
                                 f"1 to frames_per_clip ({self.frames_per_clip})")
