"""``python -m tvad.bench``: frames a second of rendering and of the heatmap mode; ends with one JSON line.

Regime: one warm-up, then the best and the median of the repeats.  Rendering: a whole video with its cast, OpenCV on one
thread, nothing written.  Heatmap: from frames in memory (decoding is not counted) to scores, smoothed and linked into
regions, with an untrained decoder of the default width; PyTorch's own number of threads.
"""
from __future__ import annotations

import argparse
import json
import platform
from collections.abc import Sequence
from typing import Any

import cv2
import torch

from tvad.backbones.qwen import QwenBackbone
from tvad.detector import score_many
from tvad.metrics.bench import timed
from tvad.prompts import prototypes
from tvad.scenes.render import make_footage
from tvad.training.phase1 import Phase1Config, untrained_decoder
from tvad.video.frames import ArrayFrames


def rendering(*, frames: int, repeats: int) -> dict[str, float]:
    """Frames a second of SimCampus at 240x360 on one thread, the painting of the scene included."""
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        seconds = timed(lambda: make_footage("scene00", 1, frames=frames, events=("bicycle",)), repeats=repeats)
    finally:
        cv2.setNumThreads(threads)
    return {name: round(frames / value, 1) for name, value in seconds.items()}


def heatmaps(backbone: Any, *, frames: int, repeats: int) -> dict[str, float]:
    """Frames a second from pictures in memory to a ``Detection``."""
    footage = make_footage("scene00", 1, frames=frames, events=("bicycle",))
    source, text = ArrayFrames(footage.frames, footage.fps, "bench"), prototypes(backbone)
    decoder = untrained_decoder(Phase1Config(), backbone).eval().to(backbone.device)
    seconds = timed(lambda: score_many(backbone, {"bench": decoder}, source, prototypes=text), repeats=repeats)
    return {name: round(frames / value, 1) for name, value in seconds.items()}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run both and print the JSON line."""
    parser = argparse.ArgumentParser(prog="python -m tvad.bench", description=__doc__.splitlines()[0])
    parser.add_argument("--backbone", default="qwen2.5-vl-tiny")
    parser.add_argument("--frames", type=int, default=160)
    parser.add_argument("--repeats", type=int, default=3)
    given = parser.parse_args(arguments)
    backbone = QwenBackbone.from_pretrained(given.backbone)
    size = {"frames": given.frames, "repeats": given.repeats}
    results = {"rendering_240x360_one_thread": rendering(**size),
               "heatmap_mode_240x360": heatmaps(backbone, **size)}
    regime = {"warm_up": 1, **size, "unit": "frames/s", "threads": torch.get_num_threads(), "machine": platform.machine(),
              "device": str(backbone.device), "dtype": str(backbone.dtype), "attention": backbone.attention,
              "python": platform.python_version(), "torch": torch.__version__, "opencv": cv2.__version__}
    print(json.dumps({"bench": "tvad", "frames_per_second": results, "regime": regime}))


if __name__ == "__main__":
    main()
