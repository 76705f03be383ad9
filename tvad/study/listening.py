"""Query heatmaps of the example clips of a phase-1 run: each event that they show is asked for in all of them."""
from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from tvad.queries.heatmap import EventHeatmapDecoder
from tvad.record import atomic_write
from tvad.study.examples import first_of_each_kind, largest_target
from tvad.video.clip import Clip

LISTENING = "queries.npz"


@torch.inference_mode()
def write_examples(run: Any, path: Path, *, count: int = 3) -> Path:
    """``queries.npz`` in the run's folder: ``videos`` (n,), ``frames`` (n,), ``words`` (k,) and ``heat`` (n, k, h, w).

    ``path``: the decoder of query heatmaps. Footage that names no events is asked for ``run.params.events``; where these
    are none either, :func:`write_silence` says so.
    """
    decoder = EventHeatmapDecoder.load(path, backbone=run.backbone).to(getattr(run.backbone, "device", "cpu"))
    chosen = first_of_each_kind(run.test_part.videos, count)
    named = list(dict.fromkeys(video.events[0].kind.replace("_", " ") for video in chosen))
    words = list(run.params.events) if named == ["anomaly"] else named
    if not words:
        return write_silence(run, "the footage names no events, and the parameter events asks for none")
    frames = [largest_target(video, video.events[0].kind) for video in chosen]
    step, heats = run.backbone.temporal_patch_size, []
    for video, frame in zip(chosen, frames):
        start = min(frame, len(video) - step)
        clip = Clip(video.frames.read(start, start + step), video.frames.fps, start, video.id)
        maps = decoder.heatmaps(run.backbone.see(clip).taps, words, run.backbone)
        heats.append(maps[:, 0].float().cpu().numpy())
    with atomic_write(run.folder / LISTENING) as file:
        np.savez_compressed(file, videos=np.array([video.id for video in chosen]), frames=np.array(frames),
                            words=np.array(words), heat=np.stack(heats))
    return run.folder / LISTENING


def write_silence(run: Any, why: str) -> Path:
    """``queries.npz`` of a run in which nothing can be asked for: ``why`` alone, a sentence for its figure."""
    with atomic_write(run.folder / LISTENING) as file:
        np.savez_compressed(file, why=np.array(why))
    return run.folder / LISTENING
