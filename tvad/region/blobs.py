"""Synthetic heatmaps with known tracks: a warm blob that comes, moves or stays, and goes, among clutter.

They test the encoders, compare the variants (``python -m tvad.region``), and can teach an encoder places before the
first real heatmap.  Level and sharpness vary as decoders' do: a target may be hot or only warmer than its surroundings.
"""
from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


@dataclass(frozen=True)
class BlobTracks:
    """n clips: heatmaps, the blob's centre a step (x right, y down, 0 to 1) and whether it is there."""

    heatmaps: Float[Tensor, "n t h w"]
    places: Float[Tensor, "n t 2"]
    present: Bool[Tensor, "n t"]

    def ends(self) -> tuple[Float[Tensor, "n 2"], Float[Tensor, "n 2"]]:
        """The places at the first and the last step where the blob is there."""
        steps = self.present.shape[1]
        first = self.present.int().argmax(1)
        last = steps - 1 - self.present.flip(1).int().argmax(1)
        rows = torch.arange(len(first))
        return self.places[rows, first], self.places[rows, last]

    def facts(self) -> dict[str, Float[Tensor, "n k"]]:
        """What a reader of the tokens should know: where the blob comes from and goes to, and its motion a step."""
        source, target = self.ends()
        moving = (self.present.sum(1, keepdim=True) - 1).clamp_min(1)
        return {"from": source, "to": target, "motion": (target - source) / moving}


def cells(places: Float[Tensor, "*n 2"]) -> Int[Tensor, "*n"]:
    """The cell 0 to 8 of the 3x3 grid, in reading order, that each place lies in."""
    column, row = (places * 3).long().clamp(0, 2).unbind(-1)
    return row * 3 + column


def blob_tracks(count: int, *, steps: int = 8, grid: tuple[int, int] = (24, 36), seed: int = 0,
                still: float = 0.25, clutter: float = 0.15) -> BlobTracks:
    """``count`` clips drawn by ``seed``; ``still``: share of blobs that stay where they are; ``clutter``: highest heat
    of the noise, relative to the blob's."""
    rng = np.random.default_rng([seed, 71])
    start, goal = rng.uniform(0.04, 0.96, (2, count, 1, 2))
    goal = np.where(rng.random((count, 1, 1)) < still, start, goal)
    first = np.where(rng.random(count) < 0.5, 0, rng.integers(0, max(1, steps // 2), count))
    last = np.where(rng.random(count) < 0.5, steps - 1, rng.integers((steps - 1) // 2, steps, count))
    last = np.maximum(first, last)
    now = np.arange(steps)
    present = (now >= first[:, None]) & (now <= last[:, None])
    share = np.clip((now - first[:, None]) / np.maximum(last - first, 1)[:, None], 0, 1)
    places = start + (goal - start) * share[..., None]
    h, w = grid
    y, x = (np.arange(h) + 0.5) / h, (np.arange(w) + 0.5) / w
    size = rng.uniform(0.03, 0.1, (count, 1, 1, 1))
    far = ((x - places[..., :1, None]) / size) ** 2 + ((y[:, None] - places[..., 1:, None]) / size * h / w) ** 2
    level = np.exp(rng.uniform(np.log(0.03), np.log(0.98), (count, 1, 1, 1)))
    blob = level * np.exp(-far / 2) * present[..., None, None]
    noise = clutter * level * rng.random((count, steps, h, w)) ** 8
    heat = torch.from_numpy(np.maximum(blob, noise)).float().clamp(1e-6, 1 - 1e-6)
    return BlobTracks(heat, torch.from_numpy(places).float(), torch.from_numpy(present))
