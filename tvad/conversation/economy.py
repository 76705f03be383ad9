"""How much of a clip is looked at, and how much of that the language model reads.

A clip of sixteen frames at 240x360 gives the tiny model 1,728 video tokens, ten times what is said about it; the tower
takes longer over it than over anything else.  Both are thinned alike in training, evaluation and conversation:

- ``every``: the tower sees every so-manyth temporal patch.  It looks at each by itself, so those seen do not change.
- ``token_step``: of these the language model reads every so-manyth; the heatmap keeps them all.
- ``pool``: the language model reads the mean of each ``pool`` x ``pool`` block of tokens.
"""
from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from tvad.errors import ParameterError
from tvad.region.geometry import seen_patches


@dataclass(frozen=True)
class Economy:
    """The three numbers; 1 keeps everything.  Raises :class:`ParameterError` below 1."""

    every: int = 1
    token_step: int = 1
    pool: int = 1

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if value < 1:
                raise ParameterError(f"{name}: {value} is not allowed; allowed: 1 or more")

    def read_grid(self, grid: tuple[int, int, int], merge: int) -> tuple[int, int, int]:
        """(t, h, w) in patches of what the language model reads of a clip seen with ``grid``: ``merge`` patches a side
        make a token, so that h and w are ``merge`` times the tokens' rows and columns."""
        t, h, w = grid
        return -(-t // self.token_step), *(merge * -(-side // (merge * self.pool)) for side in (h, w))

    def read(self, tokens: Float[Tensor, "n d"], grid: tuple[int, int, int], merge: int) -> Float[Tensor, "m d"]:
        """The tokens that the language model reads, of those of the tower (flat in raster order)."""
        t, h, w = grid[0], grid[1] // merge, grid[2] // merge
        kept = tokens.view(t, h, w, -1)[:: self.token_step]
        if self.pool > 1:
            kept = F.avg_pool2d(kept.permute(0, 3, 1, 2).float(), self.pool, ceil_mode=True).permute(0, 2, 3, 1)
            kept = kept.to(tokens.dtype)
        return kept.flatten(0, 2)


WHOLE = Economy()


def thinned(frames, *, every: int, patch: int):
    """One in ``every`` runs of ``patch`` frames (of an array whose first axis is time), from the first to the last run,
    which may be short."""
    if every == 1:
        return frames
    runs = np.arange(len(frames)) // patch
    return frames[np.isin(runs, seen_patches(int(runs[-1]) + 1, every))]
