"""The colours of a clip beside its video tokens: mean RGB of small cells, a few to a patch.

Merged tokens of a vision tower know what something is, and hardly which colour it has; the pixels do.  Each token carries
the cells of its own patches in the first frame of its step, so that whatever reads tokens may read colours too.
"""
from __future__ import annotations

import cv2
import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from tvad.errors import BackboneError

CELLS = 4       # to the side of a patch
_GREY = 2.0     # mean difference of the channels, of 255, up to which a clip has no colours


def paint_of(frames: UInt8[np.ndarray, "n h w 3"], grid: tuple[int, int, int], *,
             patch_frames: int) -> UInt8[np.ndarray, "t y x 3"]:
    """The cells of each step of frames already thinned to those that the tower sees; y and x are ``CELLS`` times the
    grid's rows and columns."""
    size = grid[2] * CELLS, grid[1] * CELLS
    return np.stack([cv2.resize(frame, size, interpolation=cv2.INTER_AREA) for frame in frames[::patch_frames][:grid[0]]])


def painted(tokens: Float[Tensor, "n d"], paint: UInt8[np.ndarray, "t y x 3"], merge: int) -> Float[Tensor, "n e"]:
    """Tokens with the colours of their cells, 0 to 1, behind their own numbers."""
    t, y, x, _ = paint.shape
    side = merge * CELLS
    own = torch.as_tensor(paint).view(t, y // side, side, x // side, side, 3).permute(0, 1, 3, 2, 4, 5)
    return torch.cat([tokens, own.reshape(len(tokens), -1).to(tokens) / 255], 1)


def parted(seen: Float[Tensor, "b n e"], grid: tuple[int, int, int], width: int,
           side: int) -> tuple[Float[Tensor, "b n d"], Float[Tensor, "b t 3 y x"] | None]:
    """Tokens of ``width`` and the paint behind them, None where there is none; ``side``: patches of a token.

    Raises :class:`BackboneError` for numbers that are neither.
    """
    if seen.shape[-1] == width:
        return seen, None
    cells, (t, h, w) = side * CELLS, grid
    if seen.shape[-1] != width + 3 * cells**2:
        raise BackboneError(f"region encoder: video tokens of {seen.shape[-1]} numbers; {width} are wanted, or "
                            f"{width + 3 * cells**2} with the colours of their cells")
    paint = seen[..., width:].reshape(-1, t, h // side, w // side, cells, cells, 3)
    return seen[..., :width], paint.permute(0, 1, 6, 2, 4, 3, 5).reshape(-1, t, 3, h * CELLS, w * CELLS)


def is_grey(paint: UInt8[np.ndarray, "t y x 3"]) -> bool:
    """Whether the clip has no colours, apart from what its coding adds."""
    return float(np.ptp(paint.astype(np.int16), axis=-1).mean()) < _GREY
