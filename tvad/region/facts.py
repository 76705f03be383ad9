"""Numbers that the worded encoder's classifiers read: of each warm thing its path, its look and a few views of it, of the
clip its heat.

No weights enter, so what is computed here may be kept for all steps of a training.
"""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from tvad.region.geometry import Geometry
from tvad.region.objects import Warm, right_half, warm_things
from tvad.region.paint import parted
from tvad.region.paths import PATH_FACTS, path_facts

_LEAST = 1e-4               # heat is clamped to this far from 0 and 1
_HOT = 0.3                  # of its peak: where a thing is looked at
LOOK_FACTS = 3              # times the width of a video token
VIEWS = 3                   # steps in which a thing is viewed, those where it has the most heat
VIEW = (4, 16, 12)          # red, green, blue and how far from the clip's usual colour; rows, columns
_MARGIN = 1.25              # of the thing's box that a view shows
CLIP_FACTS = 12


@dataclass(frozen=True)
class Facts:
    """Of things ``path``, ``look`` and ``views``, of whole clips ``clip``, the logarithm of each thing's ``share`` of the
    heat of the strongest, how many things were ``found``, and how many are
    told of: the right half of a single thing may be a second."""

    path: Float[Tensor, "b n f"]
    look: Float[Tensor, "b n v"]
    views: Float[Tensor, "b n k 4 r c"]
    clip: Float[Tensor, "b c"]
    share: Float[Tensor, "b n"]
    found: Int[Tensor, " b"]
    told: Int[Tensor, " b"]

    def rows(self, chosen: Sequence[int]) -> Facts:
        """Those of some clips."""
        return Facts(*(value[list(chosen)] for value in vars(self).values()))

    @classmethod
    def together(cls, parts: Sequence[Facts]) -> Facts:
        """Those of several batches as one."""
        return cls(*(torch.cat(values) for values in zip(*(vars(part).values() for part in parts))))


@torch.no_grad()
def facts_of(heatmap: Float[Tensor, "b t h w"], seen: Float[Tensor, "b m e"], *, width: int, most: int,
             geometry: Geometry) -> Facts:
    """The facts of some clips of one shape with at most ``most`` things each; ``seen``: video tokens of ``width``, with or
    without the colours of their cells (``paint.py``)."""
    heatmap = heatmap.float()
    path = np.zeros((len(heatmap), most, PATH_FACTS), np.float32)
    look = heatmap.new_zeros(len(heatmap), most, LOOK_FACTS * width)
    views = heatmap.new_zeros(len(heatmap), most, VIEWS, *VIEW)
    share = heatmap.new_zeros(len(heatmap), most)
    clip, found, told = [], [], []
    for row, heat in enumerate(heatmap.cpu().numpy()):
        things = warm_things(heat, most=most)
        found.append(len(things))
        clip.append(clip_facts(heat, things))
        if len(things) == 1 < most:
            things.append(right_half(things[0]))
        told.append(len(things))
        if things:
            mass = np.array([thing.heat.sum() for thing in things])
            share[row, :len(things)] = torch.from_numpy(np.log(mass / mass.max())).to(share)
            path[row, :len(things)] = [path_facts(thing, geometry) for thing in things]
            look[row, :len(things)], views[row, :len(things)] = looks_of(things, seen[row].float(), width=width)
    return Facts(torch.from_numpy(path).to(heatmap), look, views, heatmap.new_tensor(np.stack(clip)), share,
                 torch.tensor(found, device=heatmap.device), torch.tensor(told, device=heatmap.device))


def looks_of(things: Sequence[Warm], seen: Float[Tensor, "m e"], *,
             width: int) -> tuple[Float[Tensor, "n v"], Float[Tensor, "n k 4 r c"]]:
    """Look and views of things of one clip: mean and maximum of the video tokens where a thing is warm, and the clip's
    mean token; and its box cut out of the paint, blank where there is none."""
    t, h, w = things[0].heat.shape
    side = round((t * h * w / len(seen)) ** 0.5)      # patches of a token
    tokens, paint = parted(seen[None], (t, h, w), width, side)
    tokens = tokens.view(t, h // side, w // side, width)
    mean, looks = tokens.mean((0, 1, 2)), []
    for thing in things:
        own = torch.from_numpy(thing.heat).to(tokens).view(t, h // side, side, w // side, side).amax((2, 4))
        share = own / own.sum()
        hot = tokens[own > _HOT * own.max()].amax(0)
        looks.append(torch.cat([(tokens * share[..., None]).sum((0, 1, 2)), hot, mean]))
    if paint is None:
        return torch.stack(looks), seen.new_zeros(len(things), VIEWS, *VIEW)
    strange = (paint[0] - paint[0].median(0).values).abs().mean(1, keepdim=True)
    shown = torch.cat([paint[0], strange], 1)
    return torch.stack(looks), torch.stack([_views(thing, shown) for thing in things])


def _views(thing: Warm, shown: Float[Tensor, "t 4 y x"]) -> Float[Tensor, "k 4 r c"]:
    """The thing's box, a little wider, in the steps where it has the most heat; the same again where these are too few."""
    mass = thing.heat.sum((1, 2))
    there = [step for step in np.argsort(-mass, kind="stable") if mass[step] > 0]
    steps = np.resize(there[:VIEWS], VIEWS)
    box = torch.from_numpy(thing.facts[steps, 3:7]).to(shown)
    middle, half = (box[:, :2] + box[:, 2:]) / 2, (box[:, 2:] - box[:, :2]) / 2 * _MARGIN
    place = torch.stack([torch.stack([half[:, 0], 0 * half[:, 0], middle[:, 0]], 1),
                         torch.stack([0 * half[:, 1], half[:, 1], middle[:, 1]], 1)], 1)
    grid = F.affine_grid(place, [VIEWS, *VIEW], align_corners=False)
    return F.grid_sample(shown[torch.from_numpy(steps).to(shown.device)], grid, padding_mode="border", align_corners=False)


def clip_facts(heat: Float[np.ndarray, "t h w"], things: Sequence[Warm]) -> Float[np.ndarray, "12"]:
    """How hot the map is: log-odds of its peak, its five hottest patches, its mean, its steps' peaks; the hot area; and of
    the thing with the most heat how long it is there, how hot in its steps, how large and fast, and how hot all else is."""
    peaks, top = heat.max((1, 2)), np.sort(heat, None)[-5:]
    levels = [top[-1], top.mean(), heat.mean(), peaks.mean(), peaks.min()]
    whole = [*_odds(levels), 2 * np.sqrt((heat > 0.5).mean())]
    if not things:
        return np.array([*whole, *[0.0] * 6], np.float32)
    best = max(things, key=lambda thing: float(thing.heat.sum()))
    there, own = best.present, best.heat.max((1, 2))
    far = np.hypot(*(best.facts[there][-1, 1:3] - best.facts[there][0, 1:3]))
    rest = np.where(best.heat > 0, 0, heat).max()
    kept = [there.mean(), _odds(own[there]).mean(), _odds(own).mean(), 2 * best.facts[there, 7].mean(),
            far, _odds(rest)]
    return np.array([*whole, *kept], np.float32)


def _odds(chance: Float[np.ndarray, "*k"]) -> Float[np.ndarray, "*k"]:
    chance = np.clip(chance, _LEAST, 1 - _LEAST)
    return np.log(chance / (1 - chance)) / 5
