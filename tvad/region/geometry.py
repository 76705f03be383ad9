"""Which moments of a clip a heatmap's steps are, and how large its patches are: what the words' rules measure in."""
from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np

from tvad.errors import ParameterError


def seen_patches(count: int, every: int) -> list[int]:
    """Which of ``count`` temporal patches of a clip are looked at: one in ``every``, spread from the first to the last,
    since where somebody comes from and goes to is told by the ends."""
    return np.linspace(0, max(0, count - 1), -(-count // every)).round().astype(int).tolist()


@dataclass(frozen=True)
class Geometry:
    """``patch``: pixels of a patch's side; ``patch_frames``: frames of a temporal patch; of these ``every``-th is seen.

    Raises :class:`ParameterError` below 1.
    """

    patch: int = 14
    patch_frames: int = 2
    every: int = 1

    def __post_init__(self) -> None:
        if min(asdict(self).values()) < 1:
            raise ParameterError(f"geometry of the heatmap: {asdict(self)}; each must be 1 or more")

    def frames(self, steps: int) -> int:
        """Frames of a clip of so many steps (at most, where the last temporal patches are not filled)."""
        return steps * self.every * self.patch_frames

    def starts(self, steps: int) -> list[int]:
        """The first frame of each step."""
        return [place * self.patch_frames for place in seen_patches(steps * self.every, self.every)]
