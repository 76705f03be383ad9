"""The same scene through another camera: what a model should not care about, hence what its training varies."""

from __future__ import annotations

import cv2
import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor
from torch.nn import functional as F


def disturb(frames: UInt8[Tensor, "n t h w 3"], generator: torch.Generator) -> UInt8[Tensor, "n t h w 3"]:
    """Grey or tinted, other gamma, gain and offset, sometimes soft: one draw a clip; noise of one strength, new a frame."""
    n = len(frames)

    def draw(low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(n, *shape, generator=generator).view(n, *shape, *[1] * (4 - len(shape)))

    x = frames.float() / 255
    grey = x.mean(-1, keepdim=True).expand_as(x)
    x = torch.where(draw(0, 1) < 0.35, grey, x)
    x = x.clamp(1e-3, 1) ** draw(0.7, 1.4) * draw(0.6, 1.15) + draw(-0.08, 0.12)
    x = x * draw(0.94, 1.06, 1, 1, 1, 3)
    soft = torch.nonzero(draw(0, 1).flatten() < 0.3).flatten()
    if len(soft):
        flat = x[soft].flatten(0, 1).movedim(-1, 1)
        flat = F.avg_pool2d(F.pad(flat, (1, 1, 1, 1), mode="replicate"), 3, 1)
        x[soft] = flat.movedim(1, -1).view_as(x[soft])
    # One bank of noise, read from a place of its own for each clip: fresh normal draws would cost as much as a block.
    bank = torch.randn(x[0].numel() * 2, generator=generator)
    starts = torch.randint(x[0].numel(), (n,), generator=generator).tolist()
    noise = torch.stack([bank[at : at + x[0].numel()].view_as(x[0]) for at in starts])
    x = x + noise * draw(0, 0.03)
    return (x.clamp(0, 1) * 255).round().to(torch.uint8)


def reframe(
    frames: UInt8[np.ndarray, "t h w 3"], masks: UInt8[np.ndarray, "t h w"], rng: np.random.Generator
) -> tuple[UInt8[np.ndarray, "t h w 3"], UInt8[np.ndarray, "t h w"]]:
    """Frames and their masks through another lens: mirrored by chance, nearer or farther, wider or narrower pixels.

    One draw for all frames, so that motion stays motion; beyond the border the picture is reflected.  Some are sharpened,
    as cheap cameras and old codecs do.
    """
    height, width = masks.shape[1:]
    zoom, aspect = np.exp(rng.uniform(np.log(0.8), np.log(1.5))), np.exp(rng.uniform(np.log(0.8), np.log(1.25)))
    across, down = zoom * np.sqrt(aspect), zoom / np.sqrt(aspect)
    left = rng.uniform(min(0, width * (1 - across)), max(0, width * (1 - across)))
    top = rng.uniform(min(0, height * (1 - down)), max(0, height * (1 - down)))
    if rng.random() < 0.5:
        across, left = -across, width - 1 - left
    view = np.array([[across, 0, left], [0, down, top]])

    def through(image: np.ndarray, how: int) -> np.ndarray:
        return cv2.warpAffine(image, view, (width, height), flags=how, borderMode=cv2.BORDER_REFLECT_101)

    seen = [through(frame, cv2.INTER_LINEAR) for frame in frames]
    if rng.random() < 0.4:
        strength = float(rng.uniform(0.4, 1.6))
        seen = [cv2.addWeighted(f, 1 + strength, cv2.GaussianBlur(f, (0, 0), 1.2), -strength, 0) for f in seen]
    return np.stack(seen), np.stack([through(mask, cv2.INTER_NEAREST) for mask in masks])
