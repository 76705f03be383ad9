"""Figures of ``notebooks/your_camera.ipynb``: the composites, what validation says, the alarms, what was asked for."""
from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from PIL import Image

from tvad.figures.panels import curve_panel, frame_at, frame_panel, mask_at
from tvad.figures.shown import Shown
from tvad.figures.style import BLUE, COLUMN, PAGE, canvas
from tvad.study.own_camera import CameraRun, frames_of_interest

_SHOWN = 4
_INCHES = 2.0       # width of a frame


class CameraPage(Shown):
    """A camera's run as its figures see it: ``composites``, ``validation``, ``alarms`` and ``found``."""

    def __init__(self, run: CameraRun) -> None:
        self.run, self.params = run, run.params

    @property
    def figures(self) -> Mapping[str, Callable]:
        return {"composites": lambda page: composites(page.run), "validation": lambda page: validation(page.run),
                "alarms": lambda page: alarms(page.run), "found": lambda page: found(page.run)}

    @property
    def target(self) -> Path:
        """Beside the camera's own results, since they show its footage."""
        return self.run.folder / "figures"


def composites(run: CameraRun) -> tuple[Figure, str]:
    """The sheet that the adaptation left: simulated actors in the camera's own footage."""
    picture = np.asarray(Image.open(run.adapted.folder / "composites.png").convert("RGB"))
    figure = canvas(PAGE, PAGE * picture.shape[0] / picture.shape[1])
    axes = figure.subplots()
    axes.imshow(picture)
    axes.axis("off")
    return figure, ("Simulated actors in ordinary footage of this camera: red, events that count as anomalous; blue, "
                    "pasted people who count as ordinary, so that being pasted is less of a cue.")


def validation(run: CameraRun) -> tuple[Figure, str]:
    """Pixel AUROC and micro AUC on held-out footage over the steps."""
    history = run.adapted.report["history"]
    figure = canvas(COLUMN, 2.1)
    axes = figure.subplots()
    for key, name, style in (("val_pixel_auroc", "pixel AUROC", "-"), ("val_micro_auc", "micro AUC of pairs", "--")):
        axes.plot([record["step"] for record in history], [record[key] for record in history], style, color=BLUE, lw=1.2,
                  marker="o", ms=2.5, label=name)
    axes.axvline(run.adapted.report["best"]["step"], color="#333333", lw=0.6, ls=":")
    axes.set(xlabel="step", ylabel="AUC", xlim=(0, None), ylim=(None, 1))
    axes.legend(frameon=False)
    return figure, ("Held-out footage of the camera with simulated actors, before adaptation (step 0) and while it goes "
                    "on. The dotted line is the best step, which the detector mixes with weights from before. These are "
                    "composites: they say that adaptation works, not how well real events will be found.")


def alarms(run: CameraRun) -> tuple[Figure, str]:
    """The highest alarms: frame, heat, and score over the video's time."""
    videos = {video.id: video for video in run.watched}
    chosen = frames_of_interest(run.alarms, run.detections, _SHOWN)
    figure, rows = _rows([videos[name] for name, _ in chosen])
    for (frame_axes, heat_axes, curve_axes), (name, frame) in zip(rows, chosen):
        video, detection = videos[name], run.detections[name]
        picture, mask = frame_at(video, frame), mask_at(video, frame)
        frame_panel(frame_axes, picture, mask=mask, inches=_INCHES)
        # On the camera's scale bare ground has some 0.3: what is usual there stays unpainted.
        heat = np.clip((detection.heatmap[frame] - 0.35) / 0.65, 0, 1)
        frame_panel(heat_axes, picture, heat=heat, mask=mask, inches=_INCHES)
        _boxes(heat_axes, detection, frame)
        _curve(curve_axes, detection, video, frame, level=run.level)
        frame_axes.set_title(f"{name}, frame {frame}", fontsize=6.5, loc="left", pad=2)
    rows[-1][2].set_xlabel("time, s")
    truth = " Outlines and shading: the simulation's own truth." if run.simulated else ""
    return figure, (f"{len(run.alarms)} alarms in {len(run.watched)} videos (scores of {run.level:.3f} and above, dashed "
                    "line: one ordinary pair of frames in a hundred passes it, before smoothing); the highest first, then "
                    "the most suspicious frames of other videos. Middle: adapted heat above the usual, and its regions."
                    f"{truth}")


def found(run: CameraRun) -> tuple[Figure, str]:
    """For each event that was asked for: the frame that fits best, its heat, and its score over time."""
    if not run.found:
        figure = canvas(PAGE, 0.5)
        figure.text(0.5, 0.5, "nothing was asked for, or there is no decoder of query heatmaps", ha="center", va="center")
        return figure, "A decoder of query heatmaps comes with `make reproduce`; `events` says what to find."
    videos = {video.id: video for video in run.watched}
    best = {event: max(each, key=lambda name: each[name].frame_scores.max()) for event, each in run.found.items()}
    figure, rows = _rows([videos[name] for name in best.values()])
    for (frame_axes, heat_axes, curve_axes), (event, name) in zip(rows, best.items()):
        detection, video = run.found[event][name], videos[name]
        frame = int(detection.frame_scores.argmax())
        picture, mask = frame_at(video, frame), mask_at(video, frame)
        frame_panel(frame_axes, picture, mask=mask, inches=_INCHES)
        frame_panel(heat_axes, picture, heat=detection.heatmap[frame], mask=mask, inches=_INCHES)
        _curve(curve_axes, detection, video, frame)
        frame_axes.set_title(f"“{event}”: {name}, frame {frame}", fontsize=6.5, loc="left", pad=2)
    rows[-1][2].set_xlabel("time, s")
    return figure, ("For each thing asked for, the frame of all footage that fits best, which need not be a good fit: "
                    "the score says how good. Query heatmaps come from simulated scenes and are not adapted to the camera.")


def _rows(videos: Sequence[Any]) -> tuple[Figure, Any]:
    """A figure with frame, heat and curve for each video, and its axes, (n, 3)."""
    height, width = videos[0].frames.size
    figure = canvas(PAGE, len(videos) * (_INCHES * height / width + 0.27) + 0.2)
    return figure, figure.subplots(len(videos), 3, squeeze=False, width_ratios=(1, 1, 1.1))


def _curve(axes: Any, detection: Any, video: Any, frame: int, *, level: float = 0.5) -> None:
    if video.labels is None:
        time = np.arange(len(detection.raw_scores)) / video.frames.fps
        axes.plot(time, detection.frame_scores, color=BLUE, lw=1.1)
        axes.axvline(frame / video.frames.fps, color="#333333", lw=0.6, ls=":")
        axes.set(xlim=(0, max(time[-1], 1e-6)), ylim=(0, 1.02), yticks=[0, 0.5, 1])
    else:
        curve_panel(axes, detection, video, marked=frame)
    axes.add_line(Line2D(axes.get_xlim(), (level, level), color="#888888", lw=0.5, ls="--"))


def _boxes(axes: Any, detection: Any, frame: int) -> None:
    regions = detection.regions
    for x1, y1, x2, y2 in regions.box[regions.frame == frame]:
        axes.add_patch(Rectangle((x1, y1), x2 + 1 - x1, y2 + 1 - y1, fill=False, edgecolor="white", lw=0.5))
