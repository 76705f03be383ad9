"""What a warm thing's track says of its path: numbers for the classifiers, and what the texts' own rules make of it.

The rules want boxes in pixels, frame by frame; a heatmap has patches, a few steps.  Where an edge runs within a patch can
be guessed in several ways, so the rules speak several times (``OUTLINES``) and the encoder learns whom to trust.
"""
from __future__ import annotations

import numpy as np
from jaxtyping import Float
from scipy.ndimage import find_objects

from tvad.language.grammar import phrase, spoken
from tvad.language.timeline import timeline_of
from tvad.language.tracks import MaskTrack
from tvad.region.geometry import Geometry
from tvad.region.objects import STEP_FACTS, Warm
from tvad.region.words import STORY, story

_MARKS = 8              # moments at which a track is looked up, spread over the clip
_SLACK = 0.4            # of a patch: how far, on average, an edge lies within the outermost patch that is touched
_THIRDS = np.array([1 / 3, 2 / 3])
_STEEP = 25.0           # how sharply the borders of the nine places are told, by share of the picture
_SPAN, _ENDS, _COURSE = 3, 17, 13
# (how an edge is placed, share of the thing's peak that is warm)
OUTLINES: tuple[tuple[str, float], ...] = (("patches", 0.4), ("inset", 0.4), ("weighted", 0.4), ("weighted", 0.6))
RULED = tuple(field for field in STORY if field.place)
RULE_FACTS = sum(len(field.words) for field in RULED)
PATH_FACTS = STEP_FACTS * _MARKS + _SPAN + 2 * _ENDS + _COURSE + len(OUTLINES) * RULE_FACTS
Edges = Float[np.ndarray, "k 4"]      # x1 y1 x2 y2 of the steps where the thing is, in patches from the picture's corner


def path_facts(thing: Warm, geometry: Geometry) -> Float[np.ndarray, " f"]:
    """A track's facts at ``_MARKS`` moments, when it is there, where it begins and ends, its course, and what each rule
    says, one-hot a field, outline by outline."""
    facts, steps = thing.facts, len(thing.facts)
    marks = np.linspace(0, steps - 1, _MARKS).round().astype(int)
    there = np.flatnonzero(thing.present)
    span = [there[0] / steps, (steps - 1 - there[-1]) / steps, len(there) / steps]
    grid = thing.heat.shape[1:]
    outlines = [_edges(thing, how, share) for how, share in OUTLINES]
    middle = outlines[1]
    ruled = [_ruled(edges, there, steps, grid, geometry) for edges in outlines]
    ends = np.concatenate([_end(edges, grid) for edges in (middle[0], middle[-1])])
    return np.concatenate([facts[marks].ravel(), span, ends, _course(middle, there), *ruled]).astype(np.float32)


def _edges(thing: Warm, how: str, share: float) -> Edges:
    """The thing's box of each step where it is. ``patches``: whole ones; ``inset``: a little less, but not at the picture's
    borders; ``weighted``: an outermost patch counts as far as it is warm, compared with the warmest."""
    rows, columns = thing.heat.shape[1:]
    peak, boxes = float(thing.heat.max()), []
    for step in np.flatnonzero(thing.present):
        own = thing.heat[step]
        warm = own > share * peak if (own > share * peak).any() else own > 0
        y, x = find_objects(warm.astype(np.int8))[0]
        box = np.array([x.start, y.start, x.stop, y.stop], float)
        if how == "weighted":
            across, along = (own * warm).max(0), (own * warm).max(1)
            cold = 1 - np.array([across[x.start], along[y.start], across[x.stop - 1], along[y.stop - 1]]) / own.max()
        else:
            cold = np.full(4, _SLACK * (how == "inset"))
        cold *= box != (0, 0, columns, rows)
        room = (box[2:] - box[:2] - 0.5) / 2        # half a patch is left
        boxes.append(box + np.minimum(cold, np.tile(room, 2)) * (1, 1, -1, -1))
    return np.stack(boxes)


def _ruled(edges: Edges, there: np.ndarray, steps: int, grid: tuple[int, int], geometry: Geometry) -> np.ndarray:
    """The path that the texts' own rules find in the track, one-hot a field."""
    frames = geometry.frames(steps)
    middles = np.array(geometry.starts(steps))[there] + (geometry.patch_frames - 1) / 2
    gap = geometry.every * geometry.patch_frames / 2        # what is first seen in a step came since the one before
    first = 0 if there[0] == 0 else int(np.ceil(middles[0] - gap))
    last = frames - 1 if there[-1] == steps - 1 else int(middles[-1] + gap)
    when = np.arange(max(0, first), min(frames - 1, last) + 1)
    size = np.array([grid[1], grid[0]] * 2) * geometry.patch
    corners = edges * geometry.patch - (0, 0, 1, 1)
    boxes = np.stack([_drawn_out(when, middles, side) for side in corners.T], 1).clip(0, size - 1)
    boxes[:, 2:] = np.maximum(boxes[:, 2:], boxes[:, :2])
    areas = np.maximum(1, (boxes[:, 2:] - boxes[:, :2] + 1).prod(1).round()).astype(np.int64)
    track = MaskTrack(1, when, boxes, (boxes[:, :2] + boxes[:, 2:]) / 2, areas)
    line = timeline_of(track, frames=frames, size=(grid[0] * geometry.patch, grid[1] * geometry.patch))
    said = story({"from": spoken(line.origin), "to": spoken(line.destination), "trajectory": phrase(line)})
    return np.concatenate([np.eye(len(field.words))[field.number(said[field.name])] for field in RULED])


def _drawn_out(when: np.ndarray, middles: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Values between the steps, and beyond them as they went on."""
    between = np.interp(when, middles, values)
    if len(middles) < 2:
        return between
    before, after = ((values[one] - values[other]) / (middles[one] - middles[other]) for one, other in ((1, 0), (-1, -2)))
    return between + np.minimum(when - middles[0], 0) * before + np.maximum(when - middles[-1], 0) * after


def _end(box: np.ndarray, grid: tuple[int, int]) -> np.ndarray:
    """Where a box is, as the nine places are told apart, its sides, and how near it is to each border."""
    size = np.array([grid[1], grid[0]], float)
    middle = (box[:2] + box[2:]) / 2 / size
    places = 1 / (1 + np.exp(-_STEEP * (middle[:, None] - _THIRDS)))
    gaps = np.concatenate([box[:2], size - box[2:]])
    sides = np.log(box[2:] - box[:2])
    return np.concatenate([places.ravel(), np.exp(-gaps), np.exp(-gaps / 4), 2 * middle - 1, sides, [sides.min()]])


def _course(edges: Edges, there: np.ndarray) -> np.ndarray:
    """Which of the eight ways it goes from first to last step, how far, and how fast against its size."""
    middles = (edges[:, :2] + edges[:, 2:]) / 2
    went = middles[-1] - middles[0]
    far = float(np.hypot(*went))
    angle = np.arctan2(-went[1], went[0]) - np.arange(8) * np.pi / 4
    sector = np.tanh(far) * np.maximum(np.cos(angle), 0) ** 6
    high = float(np.median(edges[:, 3] - edges[:, 1]))
    steps = max(1, there[-1] - there[0])
    pace = [np.log(far + 0.1), np.log(far / high + 0.1), np.log(far / high / steps + 0.03)]
    return np.concatenate([sector, went / 10, pace])
