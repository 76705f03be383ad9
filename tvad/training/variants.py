"""The ablations of phase 2: what the language model gets beside the video, and what is trained.

Each is its own training run and is answered with the evidence that it was trained on.  One more way to answer is for a
trained ``full`` model alone: the evidence of another clip swapped in at test time says whether it reads the map.
"""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from tvad.errors import ParameterError
from tvad.training.evidence import ClipSet

EVIDENCE = ("heat", "constant", "other", "mask")
CONSTANT = 0.5      # a map that says nothing: every patch as likely as not


@dataclass(frozen=True)
class Variant:
    """One row of the ablation.

    ``evidence``: the map that the region encoder reads: the decoder's ``heat``, a ``constant`` one, that of an ``other``
    clip, or the ground-truth ``mask``; None: no anomaly block in the prompt at all. ``region``: a region encoder turns
    it into tokens; without one the anomaly block's tokens are zero vectors. ``lora``: the language model is adapted.
    """

    name: str
    evidence: str | None
    region: bool
    lora: bool = True

    @property
    def reads_masks(self) -> bool:
        """Whether the ground truth must be cached."""
        return self.evidence == "mask"


VARIANTS: Mapping[str, Variant] = {variant.name: variant for variant in (
    Variant("full", "heat", True),
    Variant("no-rae", "heat", False),
    Variant("no-ahd", "constant", True),
    Variant("no-rae-no-ahd", None, False),
    Variant("no-lora", "heat", True, lora=False),
    Variant("shuffled-evidence", "other", True),
    Variant("oracle-evidence", "mask", True),
)}


def variant_named(name: str) -> Variant:
    """The variant of a row name. Raises ParameterError with the names."""
    if name not in VARIANTS:
        raise ParameterError(f"unknown variant {name!r}; give one of {', '.join(VARIANTS)}")
    return VARIANTS[name]


def other_clips(clips: ClipSet, *, seed: int) -> Int[np.ndarray, "n"]:
    """For each clip the number of another one whose map has the same shape, of another video as often as can be.

    A permutation within each shape, so that the maps as a whole stay the same; fixed by ``seed``.  Only where one video
    has more than half of a shape's clips do some of these get a map of another clip of their own video.
    Raises ParameterError where a clip has no other of its shape.
    """
    rng = np.random.default_rng([seed, 7])
    chosen = np.empty(len(clips), dtype=np.int64)
    by_grid: dict[tuple[int, int, int], list[int]] = {}
    for number, grid in enumerate(clips.grids):
        by_grid.setdefault(grid, []).append(number)
    for grid, numbers in by_grid.items():
        if len(numbers) < 2:
            raise ParameterError(f"{clips.clips[numbers[0]]}: no other clip has a map of its shape {grid}, so evidence "
                                 "cannot be shuffled; give more clips or clips of one length")
        # ordered by video and turned by more than the longest run of one video: nobody keeps a map of its own video
        order = sorted(numbers, key=lambda number: (clips.clips[number].video, rng.random()))
        names = [clips.clips[number].video for number in order]
        longest = max(names.count(name) for name in set(names))
        turn = longest % len(order) or 1
        if 2 * longest <= len(order):
            turn = int(rng.integers(longest, len(order) - longest + 1))
        chosen[order] = np.roll(order, -turn)
    return chosen


def evidence_maps(clips: ClipSet, kind: str | None, *, seed: int) -> Sequence[Float[Tensor, "t h w"]] | None:
    """The map of every clip under one kind of evidence; None for no evidence. Raises ParameterError for another kind."""
    if kind is None:
        return None
    if kind not in EVIDENCE:
        raise ParameterError(f"unknown evidence {kind!r}; give one of {', '.join(EVIDENCE)} or None")
    if kind == "constant":
        return [torch.full_like(clips.heat(number), CONSTANT) for number in range(len(clips))]
    if kind == "mask":
        return [clips.mask(number) for number in range(len(clips))]
    source = other_clips(clips, seed=seed) if kind == "other" else range(len(clips))
    return [clips.heat(int(number)) for number in source]
