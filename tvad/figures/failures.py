"""The failure gallery: the worst false alarms and the worst misses, shown as they are.

Above each picture stands what the score was; in its corner the place in question, enlarged and without heat, so that a
reader sees what it was.  Where the data set knows its actors (SimCampus), the one under the alarm is named.
"""
from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from tvad.detection import Detection
from tvad.errors import MissingPhaseError
from tvad.figures.panels import frame_at, frame_panel, mask_at, place_of, plain_name
from tvad.figures.picks import Pick, false_alarms, worst_missed
from tvad.figures.stored import Stored
from tvad.figures.style import PAGE, TRUTH, canvas, few_colours

COUNT = 4
_LOOK = 56          # pixels of the enlarged square, at 360 pixels of width
_DOINGS = {"picking_up": "picking something up", "putting_down": "putting something down"}
_SHARE = 0.40       # of the panel's height that it takes


def failures(stored: Stored) -> tuple[Figure, str]:
    """Above the normal frames that score highest, below the events that rank lowest among the frames."""
    detections, videos = stored.detections, stored.videos
    alarms, missed = false_alarms(detections, videos, COUNT), worst_missed(detections, videos, COUNT)
    if not alarms and not missed:
        raise MissingPhaseError(f"neither normal frames nor events among the {len(videos)} scored videos; score more of "
                                f"them: make reproduce PROFILE={stored.params.profile}")
    height, width = videos[0].frames.size
    columns = max(len(alarms), len(missed), 2)
    rows = [picks for picks in (alarms, missed) if picks]
    figure = canvas(PAGE, len(rows) * (PAGE / columns * height / width + 0.275))
    for row, picks in enumerate(rows):
        for column, pick in enumerate(picks):
            axes = figure.add_subplot(len(rows), columns, row * columns + column + 1)
            draw = _alarm if picks is alarms else _miss
            draw(axes, pick, detections[pick.video.id], inches=PAGE / columns)
    known = " Named: the simulator's actor there." if videos[0].dataset == "simcampus" else ""
    one = "class" if len(stored.kinds) > 1 else "video"
    return figure, (f"{stored.place}. Upper row: false alarms, the normal frames of highest raw score, one a video; "
                    f"enlarged: the hottest patch.{known} Lower row: misses, the events of lowest frame AUC against all "
                    f"normal frames of the split (smoothed scores), one a {one}, at the frame of lowest raw score in which "
                    "the target is at least half as large as it gets; enlarged: the target. Scores: raw. Colour: heatmap "
                    "(inferno, 0 to 1); cyan: ground truth.")


def _alarm(axes: Axes, pick: Pick, detection: Detection, *, inches: float) -> None:
    heat = detection.heatmap[pick.frame]
    row, column = np.unravel_index(int(heat.argmax()), heat.shape)
    middle = ((column + 0.5) * detection.scale[1], (row + 0.5) * detection.scale[0])
    frame_panel(axes, frame_at(pick.video, pick.frame), heat=heat, mask=mask_at(pick.video, pick.frame), inches=inches)
    _enlarged(axes, pick, middle)
    what = actor_at(pick.video, pick.frame, middle)
    when = pick.frame / pick.video.frames.fps
    axes.set_title(f"{what or 'false alarm'}\n{place_of(pick.video)}, {when:.1f} s, score {pick.auc:.2f}", pad=2,
                   fontsize=7, linespacing=1.05)


def _miss(axes: Axes, pick: Pick, detection: Detection, *, inches: float) -> None:
    mask = mask_at(pick.video, pick.frame)
    frame_panel(axes, frame_at(pick.video, pick.frame), heat=detection.heatmap[pick.frame], mask=mask, inches=inches)
    if mask is not None and mask.any():
        own = [event.target for event in pick.video.events if event.kind == pick.kind]
        target = np.isin(mask, own) if any(own) else mask > 0
        y, x = np.nonzero(target if target.any() else mask)
        _enlarged(axes, pick, ((x.min() + x.max() + 1) / 2, (y.min() + y.max() + 1) / 2))
    score, when = detection.raw_scores[pick.frame], pick.frame / pick.video.frames.fps
    axes.set_title(f"{plain_name(pick.kind)}, event AUC {pick.auc:.3f}\n{place_of(pick.video)}, {when:.1f} s, score "
                   f"{score:.2f}", pad=2, fontsize=7, linespacing=1.05)


def _enlarged(axes: Axes, pick: Pick, middle: tuple[float, float]) -> None:
    """The place as it was filmed, in the corner that is farthest from it, and its square in the picture."""
    frame = frame_at(pick.video, pick.frame)
    height, width = frame.shape[:2]
    side = min(round(_LOOK * width / 360), height, width)
    left = int(np.clip(round(middle[0] - side / 2), 0, width - side))
    top = int(np.clip(round(middle[1] - side / 2), 0, height - side))
    share = _SHARE * height / width
    x = 0.0 if middle[0] > width / 2 else 1 - share
    y = 0.0 if middle[1] < height / 2 else 1 - _SHARE
    corner = axes.inset_axes([x, y, share, _SHARE])
    corner.imshow(few_colours(frame[top:top + side, left:left + side]), extent=(0, side, side, 0))
    corner.set(xticks=[], yticks=[])
    for spine in corner.spines.values():
        spine.set(visible=True, color="white", linewidth=1.0)
    axes.add_patch(Rectangle((left, top), side, side, fill=False, edgecolor="white", linewidth=0.8))
    mask = mask_at(pick.video, pick.frame)
    if mask is not None and mask[top:top + side, left:left + side].any():
        own = np.pad((mask[top:top + side, left:left + side] > 0).astype(float), 1)
        places = np.arange(-1, side + 1) + 0.5
        corner.contour(places, places, own, levels=[0.5], colors=[TRUTH], linewidths=0.7)


def actor_at(video: Any, frame: int, point: tuple[float, float], *, near: float = 12.0) -> str:
    """What the data set says moves at a point (x, y) of a frame, "" where it does not say.

    The nearest box within ``near`` pixels counts, of several the smallest.  Such as "man walking with umbrella".
    """
    found = []
    for actor in video.text.get("actors", ()):
        box = actor["box"][frame] if frame < len(actor["box"]) else None
        if box is None:
            continue
        x1, y1, x2, y2 = box
        away = max(x1 - point[0], 0, point[0] - x2 - 1) + max(y1 - point[1], 0, point[1] - y2 - 1)
        if away <= near:
            found.append((away, (x2 - x1 + 1) * (y2 - y1 + 1), actor))
    if not found:
        return ""
    actor = min(found, key=lambda entry: entry[:2])[2]
    motion = next((word for start, stop, word in actor["motion"] if start <= frame < stop), "")
    words = f"{actor['appearance'].get('noun') or actor['kind']} {_DOINGS.get(motion, motion)}".strip()
    carried = [thing for thing in actor["appearance"].get("carries", ()) if thing == "umbrella"]    # large enough to matter
    return f"{words} with umbrella" if carried else words
