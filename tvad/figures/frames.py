"""Figures with frames: the data, the taps, heatmaps before and after training, detections, false alarms, the overview.

Each takes a :class:`tvad.figures.page.Page` and returns a figure and its caption.
"""
from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.figure import Figure

from tvad.figures.panels import bare, curve_panel, frame_at, frame_panel, mask_at, place_of, plain_name
from tvad.figures.picks import Pick, across_classes, best_median_worst, false_alarms, frames_along
from tvad.figures.style import HEAT, PAGE, canvas
from tvad.study.examples import first_of_each_kind, largest_target

_OUTLINE = "Cyan outline: ground truth."


def data(page: Any) -> tuple[Figure, str]:
    """One frame for each event class (or evenly spaced test clips where there are no classes), with ground truth."""
    chosen = first_of_each_kind(page.videos, 12 if page.classes > 1 else 8)
    columns = 4 if len(chosen) > 3 else len(chosen)
    figure, panels = _grid(len(chosen), columns, _aspect(page))
    for axes, video in zip(panels, chosen):
        frame = largest_target(video, video.events[0].kind)
        frame_panel(axes, frame_at(video, frame), mask=mask_at(video, frame), inches=PAGE / columns)
        place = place_of(video) if page.classes > 1 else video.id
        axes.set_title(f"{plain_name(video.events[0].kind)} · {place}", pad=2)
    what = "the first video of each event class" if page.classes > 1 else "evenly spaced anomalous clips"
    return figure, (f"{page.place}. Shown: {what}, each at the frame in which its target is largest. {_OUTLINE}")


def taps(page: Any) -> tuple[Figure, str]:
    """A frame and the map of each tapped block, coloured by its first three principal components."""
    example = page.examples
    video, frame = page.video(str(example["videos"][0])), int(example["frames"][0])
    blocks, colours = example["taps"], example["colours"][0]
    figure, panels = _grid(len(blocks) + 1, len(blocks) + 1, _aspect(page))
    frame_panel(panels[0], frame_at(video, frame), mask=mask_at(video, frame), inches=PAGE / (len(blocks) + 1))
    panels[0].set_title("frame", pad=2)
    for axes, block, picture in zip(panels[1:], blocks, colours):
        axes.imshow(picture, extent=(0, picture.shape[1], picture.shape[0], 0))
        bare(axes, picture.shape[1], picture.shape[0])
        axes.set_title(f"tap of block {block}", pad=2)
    rows, columns = colours.shape[1:3]
    return figure, (f"{page.place}. Tapped features of one frame pair of {video.id}, on the grid of {columns} x "
                    f"{rows} patches in raster order. Red, green, blue: first three principal components over the "
                    f"patches of the map. {_OUTLINE}")


def before(page: Any) -> tuple[Figure, str]:
    """Heatmaps of the decoder before training."""
    return _examples(page, page.examples["heat"], "before training", "")


def after(page: Any) -> tuple[Figure, str]:
    """The same frames as in ``before`` through the trained decoder."""
    names, frames = page.examples["videos"], page.examples["frames"]
    heat = np.stack([page.detections[str(name)].heatmap[int(frame)] for name, frame in zip(names, frames)])
    return _examples(page, heat, "after training", " Same frames and scale as before training.")


def _examples(page: Any, heats: np.ndarray, when: str, more: str) -> tuple[Figure, str]:
    names, frames = [str(name) for name in page.examples["videos"]], [int(n) for n in page.examples["frames"]]
    # The bar beside the maps takes a share of the width.
    figure, panels = _grid(2 * len(names), len(names), 0.93 * _aspect(page))
    for column, (name, frame, heat) in enumerate(zip(names, frames, heats)):
        video, inches = page.video(name), PAGE / len(names)
        mask = mask_at(video, frame)
        frame_panel(panels[column], frame_at(video, frame), mask=mask, inches=inches)
        panels[column].set_title(f"{plain_name(video.events[0].kind)} · {place_of(video)}", pad=2)
        axes = panels[len(names) + column]
        height, width = video.frames.size
        picture = axes.imshow(heat, cmap=HEAT, vmin=0, vmax=1, extent=(0, width, height, 0))
        bare(axes, width, height)
        axes.set_title(f"{when}: {heat.min():.2f} to {heat.max():.2f}", pad=2)
    bar = figure.colorbar(picture, ax=panels[len(names):], fraction=0.02, pad=0.01)
    bar.set_label("P(anomalous)")
    bar.outline.set_linewidth(0.4)
    return figure, (f"{page.place}. Heatmaps {when} on the first videos of {len(names)} event classes (of the split's "
                    f"{len(page.videos)} videos), 0 to 1 a patch.{more} {_OUTLINE}")


def queries(page: Any) -> tuple[Figure, str]:
    """The example frames, and the heatmap of each thing that was asked for in each of them, on one scale."""
    asked = page.queried
    if "why" in asked:
        figure = canvas(PAGE, 0.5)
        figure.text(0.5, 0.5, "no query heatmaps of these clips; the caption says why", ha="center", va="center")
        return figure, f"{page.place}. No query heatmaps: {asked['why']}"
    words = [str(word) for word in asked["words"]]
    figure = canvas(PAGE, PAGE / (len(words) + 1) * _aspect(page) * len(asked["videos"]) + 0.25)
    panels = figure.subplots(len(asked["videos"]), len(words) + 1, squeeze=False)
    inches = PAGE / (len(words) + 1)
    for row, name, frame, maps in zip(panels, asked["videos"], asked["frames"], asked["heat"]):
        video = page.video(str(name))
        picture, mask = frame_at(video, int(frame)), mask_at(video, int(frame))
        frame_panel(row[0], picture, mask=mask, inches=inches)
        for axes, heat in zip(row[1:], maps):
            frame_panel(axes, picture, heat=heat, mask=mask, inches=inches)
    panels[0, 0].set_title("frame", pad=2)
    for axes, word in zip(panels[0, 1:], words):
        axes.set_title(f"“{word}”", pad=2)
    return figure, (f"{page.place}. Each column is one question, asked of every frame: heat belongs where the thing asked "
                    f"for is, and nowhere else. The first clips of their kinds, not chosen by how well they come out. "
                    f"{_OUTLINE}")


def detections(page: Any) -> tuple[Figure, str]:
    """Best, median and worst detected event: four frames each, heat over them."""
    picks = best_median_worst(page.detections, page.videos)
    figure, panels = _grid(4 * len(picks), 4, _aspect(page))
    for row, pick in enumerate(picks):
        for place, frame in enumerate(frames_along(pick)):
            axes = panels[4 * row + place]
            _heat_panel(axes, page, pick, frame)
            axes.set_title(f"{frame / pick.video.frames.fps:.1f} s", pad=2)
        panels[4 * row].set_ylabel(f"{pick.why}: {plain_name(pick.kind)}\nframe AUC {pick.auc:.3f}")
    return figure, (f"{page.place}. The best, the median and the worst detected of {len(page.ranked)} events, ranked "
                    "by the AUC of their frames against all normal frames of the split; frames evenly spaced over the "
                    f"event. Colour: heatmap (inferno, 0 to 1). {_OUTLINE}")


def alarms(page: Any) -> tuple[Figure, str]:
    """The normal frames that score highest."""
    picks = false_alarms(page.detections, page.videos)
    if not picks:
        return _nothing("no normal frame in this split"), f"{page.place}. It holds no normal frame."
    figure, panels = _grid(len(picks), len(picks), _aspect(page))
    for axes, pick in zip(panels, picks):
        _heat_panel(axes, page, pick, pick.frame)
        when = pick.frame / pick.video.frames.fps
        axes.set_title(f"{place_of(pick.video)}, {when:.1f} s, score {pick.auc:.2f}", pad=2)
    return figure, (f"{page.place}. False alarms: the normal frames of highest raw score, one a video. Colour: "
                    "heatmap (inferno, 0 to 1).")


def overview(page: Any) -> tuple[Figure, str]:
    """Four events from the best to the worst detected class: frame with heat, and the score over the video below it."""
    picks = across_classes(page.detections, page.videos)
    figure = canvas(PAGE, PAGE / len(picks) * _aspect(page) + 1.12)
    grid = figure.add_gridspec(2, len(picks), height_ratios=[PAGE / len(picks) * _aspect(page), 0.75])
    for column, pick in enumerate(picks):
        axes = figure.add_subplot(grid[0, column])
        _heat_panel(axes, page, pick, pick.frame)
        name = plain_name(pick.kind) if page.classes > 1 else pick.video.id
        axes.set_title(f"{name} · AUC {pick.auc:.2f}", pad=2)
        axes = figure.add_subplot(grid[1, column])
        curve_panel(axes, page.detections[pick.video.id], pick.video, marked=pick.frame)
        axes.set_xlabel("time (s)")
        if column:
            axes.set_yticklabels([])
        else:
            axes.set_ylabel("anomaly score")
    which = ("median-detected videos of four event classes, evenly spaced from the best to the worst detected class"
             if page.classes > 3 else "events evenly spaced from the best to the worst detected")
    return figure, (f"{page.place}. Top: {which}, at the frame of the largest target, with heatmap (inferno, 0 to 1) "
                    "and ground truth (cyan). Below: frame score of the whole video, raw (light) and smoothed (dark); "
                    "shaded: labelled frames; dotted: the frame above. AUC: that event's frames against all normal "
                    "frames of the split.")


def _aspect(page: Any) -> float:
    height, width = page.videos[0].frames.size
    return height / width


def _heat_panel(axes: Any, page: Any, pick: Pick, frame: int) -> None:
    heat = page.detections[pick.video.id].heatmap[frame]
    frame_panel(axes, frame_at(pick.video, frame), heat=heat, mask=mask_at(pick.video, frame), inches=PAGE / 4)


def _grid(count: int, columns: int, aspect: float) -> tuple[Figure, list[Any]]:
    """A page-wide figure of ``count`` picture panels, row by row, with room for one line of title each."""
    rows = -(-count // columns)
    figure = canvas(PAGE, rows * (PAGE / columns * aspect + 0.19))
    panels = [figure.add_subplot(rows, columns, place + 1) for place in range(count)]
    return figure, panels


def _nothing(words: str) -> Figure:
    figure = canvas(PAGE, 0.5)
    figure.text(0.5, 0.5, words, ha="center", va="center")
    return figure
