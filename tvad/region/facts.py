"""Numbers that the worded encoder's classifiers read: of each warm thing its path and its look, of the clip its heat.

No weights enter, so what is computed here may be kept for all steps of a training.
"""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from tvad.language.grammar import phrase, spoken
from tvad.language.timeline import timeline_of
from tvad.language.tracks import MaskTrack
from tvad.region.objects import STEP_FACTS, Warm, warm_things
from tvad.region.words import STORY, story

_MARKS = 8                  # moments at which a track is looked up, spread over the clip
_LEAST = 1e-4               # heat is clamped to this far from 0 and 1
_HOT = 0.3                  # of its peak: where a thing is looked at
_FRAMES, _CELL = 16, 10     # frames of a clip and pixels of a patch for the rules, whose tolerances are in these
RULED = tuple(field for field in STORY if field.place)
PATH_FACTS = STEP_FACTS * _MARKS + 2 * 7 + 5 + sum(len(field.words) for field in RULED)
LOOK_FACTS = 3              # times the width of a video token
CLIP_FACTS = 6


@dataclass(frozen=True)
class Facts:
    """Of things ``path`` and ``look``, of whole clips ``clip``, and how many things were ``found``."""

    path: Float[Tensor, "b n f"]
    look: Float[Tensor, "b n v"]
    clip: Float[Tensor, "b c"]
    found: Int[Tensor, " b"]

    def rows(self, chosen: Sequence[int]) -> Facts:
        """Those of some clips."""
        return Facts(*(value[list(chosen)] for value in vars(self).values()))

    @classmethod
    def together(cls, parts: Sequence[Facts]) -> Facts:
        """Those of several batches as one."""
        return cls(*(torch.cat(values) for values in zip(*(vars(part).values() for part in parts))))


@torch.no_grad()
def facts_of(heatmap: Float[Tensor, "b t h w"], seen: Float[Tensor, "b m d"], *, most: int) -> Facts:
    """The facts of some clips of one shape with at most ``most`` things each.

    Of a look: mean and maximum of the video tokens where the thing is warm, and the clip's mean token.
    """
    b, t, h, w = heatmap.shape
    heatmap, seen = heatmap.float(), seen.float()
    side = round((t * h * w / seen.shape[1]) ** 0.5)
    tokens = seen.view(b, t, h // side, w // side, -1)      # side: patches of a token
    mean = tokens.mean((1, 2, 3))
    path = np.zeros((b, most, PATH_FACTS), np.float32)
    look, found = mean.new_zeros(b, most, LOOK_FACTS * seen.shape[-1]), []
    for row, heat in enumerate(heatmap.cpu().numpy()):
        things = warm_things(heat, most=most)
        found.append(len(things))
        for number, thing in enumerate(things):
            path[row, number] = path_facts(thing)
            own = torch.from_numpy(thing.heat).to(seen)
            own = own.view(t, h // side, side, w // side, side).amax((2, 4))
            share = own / own.sum()
            hot = tokens[row][own > _HOT * own.max()].amax(0)
            look[row, number] = torch.cat([(tokens[row] * share[..., None]).sum((0, 1, 2)), hot, mean[row]])
    return Facts(torch.from_numpy(path).to(heatmap), look, clip_facts(heatmap),
                 torch.tensor(found, device=heatmap.device))


def clip_facts(heatmap: Float[Tensor, "b t h w"]) -> Float[Tensor, "b 6"]:
    """How hot the map is: log-odds of its peak, its five hottest patches, its mean, its steps' peaks; the hot area."""
    heat, peaks = heatmap.flatten(1), heatmap.amax((2, 3))
    top = heat.topk(min(5, heat.shape[1]), 1).values
    levels = torch.stack([top[:, 0], top.mean(1), heat.mean(1), peaks.mean(1), peaks.amin(1)], 1)
    return torch.cat([torch.logit(levels, _LEAST) / 5, 2 * (heat > 0.5).float().mean(1, keepdim=True).sqrt()], 1)


def path_facts(thing: Warm) -> Float[np.ndarray, " f"]:
    """A track's facts at ``_MARKS`` moments of the clip, of its first and last step, and what a rule would say of it."""
    facts, steps = thing.facts, len(thing.facts)
    marks = np.linspace(0, steps - 1, _MARKS).round().astype(int)
    there = np.flatnonzero(thing.present)
    first, last = there[0], there[-1]
    span = [first / steps, (steps - 1 - last) / steps, len(there) / steps]
    ends = np.concatenate([facts[first, 1:8], facts[last, 1:8], facts[last, 1:3] - facts[first, 1:3], span])
    return np.concatenate([facts[marks].ravel(), ends, _ruled(thing)]).astype(np.float32)


def _ruled(thing: Warm) -> Float[np.ndarray, " r"]:
    """The path that the texts' own rules find in the track's boxes, one-hot a field."""
    steps, rows, columns = thing.heat.shape
    each = max(1, round(_FRAMES / steps))
    size = np.array([columns, rows, columns, rows]) * _CELL
    there = np.flatnonzero(thing.present)
    frames = np.arange(there[0] * each, (there[-1] + 1) * each)
    corners = (thing.facts[there, 3:7] + 1) / 2 * size - [0, 0, 1, 1]
    boxes = np.stack([np.interp(frames, there * each + (each - 1) / 2, side) for side in corners.T], 1)
    boxes = boxes.clip(0, size - 1)
    areas = (boxes[:, 2:] - boxes[:, :2] + 1).prod(1).round().astype(np.int64)
    track = MaskTrack(1, frames, boxes, (boxes[:, :2] + boxes[:, 2:]) / 2, areas)
    line = timeline_of(track, frames=steps * each, size=(rows * _CELL, columns * _CELL))
    said = story({"from": spoken(line.origin), "to": spoken(line.destination), "trajectory": phrase(line)})
    return np.concatenate([np.eye(len(field.words))[field.number(said[field.name])] for field in RULED])
