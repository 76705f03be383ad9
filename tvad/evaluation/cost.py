"""What a system costs: parameters, operations, speed and memory, as measures to stand beside accuracy.

Parameters are counted by part, frozen or trained.  Operations are those of PyTorch's own counter
(``torch.utils.flop_counter``: matrix products and convolutions, a multiply-add as two), per frame of video, over one
window.  Speed: from frames in memory to a ``Detection``; one warm-up, then the median of the repeats.  Memory: the
process' peak after it, and the GPU's own peak where there is one.
"""
from __future__ import annotations

import math
import platform
import resource
import sys
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from torch.utils.flop_counter import FlopCounterMode

from tvad.conversation.saved import ADAPTER, ENCODER, read_record
from tvad.detector import TVAD
from tvad.evaluation.measures import Measure
from tvad.metrics.bench import timed
from tvad.record import commit
from tvad.video.clip import Clip
from tvad.video.frames import ArrayFrames

SIZE, FPS = (240, 360), 10.0
DATASET = "custom"      # no footage of any set: cost hangs on the size of the pictures alone


def count(parameters: Iterable[torch.Tensor]) -> int:
    """Numbers in some tensors, each tensor once."""
    return sum({id(one): one.numel() for one in parameters}.values())


def parameter_counts(model: TVAD, *, speaker: Path | str | None = None) -> dict[str, int]:
    """Parameters by part: ``tower``, ``ahd``; ``language`` where it was opened; ``rae`` and ``lora`` of a speaker's folder.

    ``speaker``: what phase 2 left (``tvad.conversation.saved``); its files are counted, no model is built.
    Raises :class:`tvad.errors.MissingPhaseError` for an unfinished folder.
    """
    stock = getattr(model.backbone, "backbone", model.backbone)
    found = {"tower": count(stock.visual.parameters())}
    if stock.language_model is not None:
        tower = {id(one) for one in stock.visual.parameters()}
        found["language"] = count(one for one in stock.language_model.parameters() if id(one) not in tower)
    found["ahd"] = count(model.decoder.parameters())
    if speaker is not None:
        read_record(speaker)
        for part, name in (("rae", ENCODER), ("lora", f"{ADAPTER}/adapter_model.safetensors")):
            path = Path(speaker) / name
            found[part] = stored_numbers(path) if path.is_file() else 0
    return found


def stored_numbers(path: Path | str) -> int:
    """Numbers in a safetensors file, from its header."""
    with safe_open(path, "np") as file:
        return sum(math.prod(file.get_slice(name).get_shape()) for name in file.keys())


def operations(model: TVAD, *, frames: int = 16, size: tuple[int, int] = SIZE) -> dict[str, float]:
    """Floating-point operations a frame of one window: ``tower`` and ``ahd``."""
    clip = Clip(np.zeros((frames, *size, 3), np.uint8), FPS, 0, "cost")
    with torch.inference_mode():
        with FlopCounterMode(display=False) as tower:       # of this thread alone, so not ``see``
            taps, _ = model.backbone.forward(*model.backbone.patches(clip.frames))
        with FlopCounterMode(display=False) as decoder:
            model.decoder.heatmap(taps, model.prototypes)
    return {"tower": tower.get_total_flops() / frames, "ahd": decoder.get_total_flops() / frames}


def speed(model: TVAD, *, frames: int = 96, repeats: int = 3, size: tuple[int, int] = SIZE) -> float:
    """Frames a second from pictures in memory to a ``Detection``, noise for footage: the median of the repeats."""
    noise = np.random.default_rng(0).integers(0, 256, (frames, *size, 3), np.uint8)
    seconds = timed(lambda: model.detect(ArrayFrames(noise, FPS, "cost")), repeats=repeats)
    return frames / seconds["median"]


def memory() -> dict[str, float]:
    """Peak memory of this process and of its GPU in GiB, so far."""
    # Linux counts KiB, macOS bytes
    unit = 2**30 if sys.platform == "darwin" else 2**20
    found = {"peak_memory": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit}
    if torch.cuda.is_available() and torch.cuda.max_memory_allocated():
        found["peak_gpu_memory"] = torch.cuda.max_memory_allocated() / 2**30
    return found


def cost_measures(model: TVAD, *, system: str = "t-vad", variant: str = "full", frames: int = 96, repeats: int = 3,
                  speaker: Path | str | None = None) -> list[Measure]:
    """All of it for one detector on this machine; ``speaker`` as in :func:`parameter_counts`."""
    rate = speed(model, frames=frames, repeats=repeats)
    device = str(getattr(model.backbone, "device", "cpu"))
    regime = (f"{device}, {torch.get_num_threads()} threads, {platform.machine()}, "
              f"{str(getattr(model.backbone, 'dtype', '')).removeprefix('torch.')}, {SIZE[0]}x{SIZE[1]} pixels")
    made = [(f"parameters_{part}", "parameters", number) for part, number in
            parameter_counts(model, speaker=speaker).items()]
    made += [(f"flops_{part}", "FLOP/frame", number) for part, number in operations(model).items()]
    made += [("speed", "frames/s", rate), *((name, "GiB", number) for name, number in memory().items())]
    return [Measure(system=system, variant=variant, dataset=DATASET, split="none", protocol="none", name=name, unit=unit,
                    value=number, n=frames, config=model.fingerprint[:12], commit=commit(), note=regime)
            for name, unit, number in made]
