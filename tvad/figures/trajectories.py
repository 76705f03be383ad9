"""Trajectory overlays: frames with boxes, the true masks of an event laid over one another, and the predicted ones.

Time is told by colour (viridis: ordered in grey too).  Shown are the best, the median and the worst of the events whose
target travels, ranked by how well the two sums of masks agree, so that a failure is shown as large as a success.
"""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
from jaxtyping import Bool, Int, UInt8
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from tvad.detection import Detection
from tvad.errors import MissingPhaseError
from tvad.figures.panels import bare, frame_at, frame_panel, place_of, plain_name, shrunk
from tvad.figures.stored import Stored
from tvad.figures.style import ORANGE, PAGE, TRUTH, canvas, few_colours
from tvad.metrics.components import regions_from_heatmap

TIME = "viridis"
TRAVELS = 0.25          # of the picture's width: what a target must cover to have a trajectory
_LEAST = 8              # frames of such an event
_FRAMES = 3             # columns of frames with boxes
_DASHED = (0, (3, 1.5))


@dataclass(frozen=True, eq=False)
class Passage:
    """The frames of one event, the true masks in them (of all anomalous targets: heat on another one is right too), the
    patches that the detector found, and how well they agree.

    ``agreement``: intersection over union of both sums of masks, on the patch grid; a patch counts as true where any of
    its pixels is covered in any frame.
    """

    video: Any
    kind: str
    frames: Int[np.ndarray, "k"]
    masks: Bool[np.ndarray, "k h w"]
    found: Bool[np.ndarray, "k gh gw"]
    agreement: float


def trajectories(stored: Stored) -> tuple[Figure, str]:
    """Three passages: frames with boxes, accumulated ground truth, accumulated prediction."""
    threshold = stored.params.threshold
    passages = ranked_passages(stored.videos, stored.detections, threshold)
    if not passages:
        raise MissingPhaseError(f"no target among the {len(stored.videos)} scored videos travels {TRAVELS:.0%} of the "
                                f"picture's width; score more of them: make reproduce PROFILE={stored.params.profile}")
    places = dict.fromkeys((0, len(passages) // 2, len(passages) - 1))
    height, width = passages[0].video.frames.size
    columns = _FRAMES + 2
    panel = (PAGE - 0.62) / columns
    figure = canvas(PAGE, len(places) * (panel * height / width + 0.18) + 0.22)
    grid = figure.add_gridspec(len(places), columns)
    for row, (place, why) in enumerate(zip(places, ("best", "median", "worst"))):
        _row(figure, [figure.add_subplot(grid[row, column]) for column in range(columns)], passages[place], why,
             stored.detections[passages[place].video.id], threshold)
    _keys(figure, threshold, rows=len(places))
    return figure, (f"{stored.place}. Of {len(passages)} videos in which a target travels at least {TRAVELS:.0%} of "
                    "the picture's width, the best, the median and the worst by agreement of the accumulated masks "
                    "(intersection over union on the patch grid, the number at the right). Left: frames evenly spaced over "
                    "the event, ground truth solid, found regions dashed. Right: masks of all frames of the event laid "
                    "over one another, coloured by time, of every anomalous target; predicted: patches with heat above "
                    f"{threshold:g}, anywhere in the picture.")


def ranked_passages(videos: Sequence[Any], detections: dict[str, Detection], threshold: float) -> list[Passage]:
    """Events of targets that travel, one a video (the longest), best agreement first; of equals by name.

    An event lasts from its target's first to its last labelled frame under one class.
    """
    found = []
    for video in videos:
        spans = {}
        for kind, target in dict.fromkeys((event.kind, event.target) for event in video.events):
            own = [event for event in video.events if (event.kind, event.target) == (kind, target)]
            start, stop = min(event.start for event in own), max(event.stop for event in own)
            if stop - start >= _LEAST and _travels(video, target, start, stop):
                spans[kind, target] = (start, stop)
        if spans and video.masks is not None:
            (kind, _), span = max(spans.items(), key=lambda entry: entry[1][1] - entry[1][0])
            found.append(_passage(video, kind, span, detections[video.id], threshold))
    return sorted(found, key=lambda one: (-one.agreement, one.video.id))


def _travels(video: Any, target: int, start: int, stop: int) -> bool:
    """Whether the middle of the target's box covers enough of the picture's width, by the data set's own tracks."""
    if video.tracks is None:
        return False
    own = (video.tracks.frame >= start) & (video.tracks.frame < stop)
    own &= (video.tracks.track == target) if target else True
    if not own.any():
        return False
    middles = (video.tracks.box[own, :2] + video.tracks.box[own, 2:]) / 2
    return float(np.linalg.norm(np.ptp(middles, axis=0))) >= TRAVELS * video.frames.size[1]


def _passage(video: Any, kind: str, span: tuple[int, int], detection: Detection, threshold: float) -> Passage:
    start, stop = span
    masks = video.masks(start, stop) > 0
    heat = detection.heatmap[start:stop] > threshold
    truth = patches_of(masks.any(0), heat.shape[1:])
    hit = heat.any(0)
    union = (truth | hit).sum()
    return Passage(video, kind, np.arange(start, stop), masks, heat, float((truth & hit).sum() / union) if union else 0.0)


def patches_of(mask: Bool[np.ndarray, "h w"], grid: tuple[int, int]) -> Bool[np.ndarray, "gh gw"]:
    """Which patches of a grid hold any pixel of a mask; the grid need not divide the picture evenly."""
    rows, columns = (np.arange(side) * cells // side for side, cells in zip(mask.shape, grid))
    patches = np.zeros(grid, bool)
    y, x = np.nonzero(mask)
    patches[rows[y], columns[x]] = True
    return patches


def by_time(masks: Bool[np.ndarray, "k h w"], background: UInt8[np.ndarray, "H W 3"]) -> UInt8[np.ndarray, "H W 3"]:
    """Masks (of the picture or of its patches) laid over a pale grey picture, each in its time's colour, later above."""
    height, width = background.shape[:2]
    grey = background @ np.array([0.299, 0.587, 0.114])
    picture = np.repeat((110 + 0.55 * grey)[..., None], 3, axis=2).clip(0, 255)
    rows, columns = (np.arange(side) * cells // side for side, cells in zip((height, width), masks.shape[1:]))
    last = np.full(masks.shape[1:], -1)
    for place, mask in enumerate(masks):
        last[mask] = place
    large = last[rows][:, columns]
    colour = 255 * matplotlib.colormaps[TIME](large / max(len(masks) - 1, 1))[..., :3]
    picture[large >= 0] = colour[large >= 0]
    return picture.round().astype(np.uint8)


def _row(figure: Figure, panels: Sequence[Axes], passage: Passage, why: str, detection: Detection,
         threshold: float) -> None:
    height, width = passage.video.frames.size
    seen = np.flatnonzero(passage.masks.any(axis=(1, 2)))
    for number, axes in enumerate(panels[:_FRAMES]):
        # The middle of each third of the frames in which the target is seen.
        place = int(seen[int((number + 0.5) * len(seen) / _FRAMES)])
        frame = int(passage.frames[place])
        frame_panel(axes, frame_at(passage.video, frame), inches=PAGE / 5)
        for box in regions_from_heatmap(detection.heatmap[frame:frame + 1], thresholds=(threshold,),
                                        scale=detection.scale).box:
            _box(axes, box, ORANGE, _DASHED)
        tracks = passage.video.tracks
        for box in tracks.box[tracks.frame == frame]:
            _box(axes, box, TRUTH, "-")
        where = "" if number else f"{place_of(passage.video)}, "
        axes.set_title(f"{where}{frame / passage.video.frames.fps:.1f} s", pad=2)
    panels[0].set_ylabel(f"{why}:\n{plain_name(passage.kind)}", labelpad=2, linespacing=1.05)
    middle = frame_at(passage.video, int(passage.frames[len(passage.frames) // 2]))
    for axes, masks, name in ((panels[-2], passage.masks, "ground truth"),
                              (panels[-1], passage.found, f"predicted, {passage.agreement:.2f}")):
        axes.imshow(few_colours(shrunk(by_time(masks, middle), PAGE / 5)), extent=(0, width, height, 0))
        bare(axes, width, height)
        axes.set_title(name, pad=2)


def _box(axes: Axes, box: Sequence[float], colour: str, line: Any) -> None:
    x1, y1, x2, y2 = box
    # A dark line below makes the colour stand out on any ground.
    for edge, width in (("black", 1.5), (colour, 0.9)):
        axes.add_patch(Rectangle((x1, y1), x2 - x1 + 1, y2 - y1 + 1, fill=False, edgecolor=edge, linewidth=width,
                                 linestyle=line))


def _keys(figure: Figure, threshold: float, *, rows: int) -> None:
    handles = [Rectangle((0, 0), 1, 1, fill=False, edgecolor=colour, linewidth=1.2, linestyle=line)
               for colour, line in ((TRUTH, "-"), (ORANGE, _DASHED))]
    bar = figure.colorbar(matplotlib.cm.ScalarMappable(cmap=TIME), ax=figure.axes, orientation="vertical", fraction=0.012,
                          pad=0.01, aspect=40)
    bar.set_ticks([0, 1], labels=["first", "last"], rotation=90, va="center")
    if rows > 1:        # beside one row there is no room
        bar.set_label("frame of the event", labelpad=-4)
    bar.outline.set_linewidth(0.4)
    figure.legend(handles, ["ground truth", f"found (heat above {threshold:g})"], loc="outside upper left", ncols=2)
