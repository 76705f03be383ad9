"""The framework overview: video to heatmap to anomaly tokens to answers, with the shapes and sizes of the real model.

Every number is read from the models' configurations (``tvad.figures.shapes``); frame and heatmap are those of a stored
detection where there is one.  The drawing's coordinates are millimetres of the printed page.
"""
from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch, Rectangle

from tvad.errors import DatasetError, MissingPhaseError
from tvad.figures.panels import frame_at, overlay, shrunk
from tvad.figures.picks import across_classes
from tvad.figures.shapes import Shapes, in_words, shapes_of, times
from tvad.figures.stored import PHASE1, PHASE2, Stored
from tvad.figures.style import BLUE, GREY, MILLIMETRE, PAGE, VERMILION, canvas, few_colours

_HEIGHT = 82            # millimetres; the width is the page's 170
FROZEN, TRAINED, DATA = "#DCE9F3", "#FBE3D6", "#F2F2F2"
_SLOTS = ("yes / no", "target features", "state of motion", "from where", "to where", "trajectory")
_TINY, _SMALL, _SIZE = 5.6, 6.0, 6.8


def framework(stored: Stored) -> tuple[Figure, str]:
    """The whole system on one page width."""
    params = stored.params
    example = _example(stored)
    size = example[0].shape[:2] if example else (240, 360)
    shapes = shapes_of(params.backbone, size=size, frames=params.frames_per_clip,
                       decoder=_config(stored, f"{PHASE1}/ahd.safetensors", "ahd.safetensors"),
                       region=_config(stored, f"{PHASE2}/model/rae.safetensors", f"{PHASE2}/rae.safetensors",
                                      "model/rae.safetensors"),
                       phase2=stored.json(f"{PHASE2}/model/phase2.json") or stored.json("model/phase2.json"))
    figure = canvas(PAGE, _HEIGHT * MILLIMETRE)
    figure.set_layout_engine("none")
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, 170), ylim=(0, _HEIGHT))
    axes.axis("off")
    _video(axes, shapes, example)
    _tower(axes, shapes)
    _prompts(axes, shapes)
    _decoder(axes, shapes)
    _heatmap(axes, shapes, example)
    _regions(axes, shapes)
    _speaker(axes, shapes)
    _legend(axes)
    shown = f" Frame and heatmap: {example[2]} ({params.dataset}, {params.split} split)." if example else ""
    lacking = [name for name in ("decoder", "regions") if name not in shapes.trained]
    more = f" Not trained yet in this run, drawn as the notebooks would make it: {', '.join(lacking)}." if lacking else ""
    return figure, (f"Framework with the shapes of {shapes.model}. A clip passes the frozen vision tower once; the taps "
                    f"of blocks {', '.join(map(str, shapes.taps))} (from 0) are compared with two text prototypes and "
                    "fused to the heatmap, which the region encoder turns into anomaly tokens; the language model reads "
                    "video tokens, anomaly tokens and question in this order. In a conversation the tower looks at "
                    f"{shapes.steps} of the clip's {shapes.grid[0]} steps.{shown}{more}")


def _config(stored: Stored, *places: str) -> dict[str, Any] | None:
    record = stored.weights_record(*places)
    return None if record is None else dict(record["config"])


def _example(stored: Stored) -> tuple[np.ndarray, np.ndarray, str] | None:
    """A frame and its heatmap: the best detected class' median video; None where nothing is stored."""
    try:
        picks = across_classes(stored.detections, stored.videos)
    except (MissingPhaseError, DatasetError):
        return None
    if not picks or stored.detections[picks[0].video.id].heatmap is None:
        return None
    pick = picks[0]
    return frame_at(pick.video, pick.frame), stored.detections[pick.video.id].heatmap[pick.frame], pick.video.id


# The parts, left to right.

def _video(axes: Axes, shapes: Shapes, example: tuple | None) -> None:
    frames, height, width = shapes.clip
    w, h = 22.0, 22.0 * height / width
    for shift in (3, 2, 1, 0):
        x, y = 3 + 1.3 * shift, 56 + 1.3 * shift
        axes.add_patch(Rectangle((x, y), w, h, facecolor=DATA, edgecolor="#555555", linewidth=0.5, zorder=2 + 4 - shift))
    if example:
        _picture(axes, example[0], (3, 56, w, h), zorder=7)
    _label(axes, 15.5, 54.5, "clip", times((frames, height, width, 3)), va="top")


def _tower(axes: Axes, shapes: Shapes) -> None:
    x, y, w, h = 37.0, 55.0, 30.0, 21.0
    _box(axes, x, y, w, h, FROZEN)
    axes.text(x + w / 2, y + h - 1.0, f"vision tower · {in_words(shapes.parameters['tower'])}", ha="center", va="top",
              fontsize=_SIZE)
    step = (w - 4) / shapes.depth
    thick = min(0.62 * step, 3.0)
    for block in range(shapes.depth):
        left = x + 2 + step * (block + 0.5) - thick / 2
        tapped = block in shapes.taps
        axes.add_patch(Rectangle((left, y + 4.6), thick, 10.6, facecolor=BLUE if tapped else "white", edgecolor=BLUE,
                                 linewidth=0.5, zorder=3))
        if tapped:
            axes.text(left + thick / 2, y + 4.0, str(block), ha="center", va="top", fontsize=_SMALL)
            axes.plot([left + thick / 2] * 2, [y, 47.2], color=BLUE, lw=0.7, zorder=1)
    _arrow(axes, (30.5, 66), (x, 66))
    axes.text(x + w + 1.2, 51.0, f"taps\n{len(shapes.taps)} × ({times((*shapes.grid, shapes.widths[0]))})",
              fontsize=_SMALL, va="center", linespacing=1.15)


def _prompts(axes: Axes, shapes: Shapes) -> None:
    _box(axes, 2, 17, 27, 15.5, DATA)
    axes.text(15.5, 24.8, f"prompt ensemble\n{shapes.sentences:,} normal\n{shapes.sentences:,} abnormal", ha="center",
              va="center", fontsize=_SIZE, linespacing=1.2)
    _box(axes, 2, 4, 27, 8.5, FROZEN)
    axes.text(15.5, 8.2, "rows of the embedding\ntable, mean", ha="center", va="center", fontsize=_SMALL, linespacing=1.15)
    _arrow(axes, (15.5, 17), (15.5, 12.7))
    _arrow(axes, (29, 8.2), (32.5, 8.2), (32.5, 29.7), (38, 29.7))
    axes.text(33.5, 8.2, f"prototypes\n{times((2, shapes.widths[2]))}", fontsize=_SMALL, va="center", linespacing=1.15)


def _decoder(axes: Axes, shapes: Shapes) -> None:
    x, y, w, h = 36.0, 18.0, 48.0, 29.0
    _box(axes, x, y, w, h, TRAINED)
    axes.text(x + w / 2, y + 1.0, f"anomaly heatmap decoder · {in_words(shapes.parameters['decoder'])}", ha="center",
              va="bottom", fontsize=_SIZE)
    _inner(axes, x + 2, y + 18.4, 21, 8.6, f"{len(shapes.taps)} MLPs\n{' → '.join(map(str, shapes.widths))}")
    _inner(axes, x + 2, y + 7.2, 16.5, 9.0, "cosine with\nprototypes")
    _inner(axes, x + 22, y + 7.2, 10.5, 9.0, "Σ wᵢ hᵢ")
    _inner(axes, x + 36, y + 7.2, 10.0, 9.0, "softmax")
    _arrow(axes, (x + 10, y + 18.4), (x + 10, y + 16.2))
    _arrow(axes, (x + 18.5, y + 11.7), (x + 22, y + 11.7))
    _arrow(axes, (x + 32.5, y + 11.7), (x + 36, y + 11.7))
    axes.text(x + 34.2, y + 19.6, f"$H_c$\n{times(shapes.heat)}", fontsize=_SMALL, ha="center", va="center",
              linespacing=1.1)
    axes.plot([x + 34.2] * 2, [y + 12.4, y + 17.0], color=GREY, lw=0.5, ls=":")


def _heatmap(axes: Axes, shapes: Shapes, example: tuple | None) -> None:
    _, rows, columns = shapes.grid
    w, h = 21.0, 21.0 * rows / columns
    x, y = 89.5, 29.7 - h / 2
    axes.add_patch(Rectangle((x, y), w, h, facecolor=DATA, edgecolor="#555555", linewidth=0.5))
    if example:
        _picture(axes, overlay(example[0], example[1]), (x, y, w, h), zorder=3)
    _label(axes, x + w / 2, y - 1.0, "heatmap H", times(shapes.grid), va="top")
    _arrow(axes, (82, 29.7), (x, 29.7))


def _regions(axes: Axes, shapes: Shapes) -> None:
    x, y, w, h = 115.0, 20.0, 18.0, 19.5
    _box(axes, x, y, w, h, TRAINED)
    axes.text(x + w / 2, y + h - 1.2, f"region\nencoder\n“{shapes.region}”\n{in_words(shapes.parameters['regions'])}",
              ha="center", va="top", fontsize=_SIZE, linespacing=1.2)
    axes.text(x + w / 2, y + 1.2, f"of {times((shapes.steps, *shapes.grid[1:]))}", ha="center", va="bottom",
              fontsize=_SMALL)
    _arrow(axes, (110.5, 29.7), (x, 29.7))


def _speaker(axes: Axes, shapes: Shapes) -> None:
    x, y, w, h = 139.0, 40.5, 29.0, 22.0
    width = shapes.widths[2]
    # P = [video, anomaly, question] below the language model, its answers above it.
    strip = ((139.0, 9.0, "#B9D3E6", "$P_V$"), (148.4, 9.0, "#F3B99B", "$P_{An}$"), (157.8, 10.2, "#CFCFCF", "$P_Q$"))
    for left, wide, colour, name in strip:
        axes.add_patch(Rectangle((left, 30), wide, 5, facecolor=colour, edgecolor="#555555", linewidth=0.5))
        axes.text(left + wide / 2, 32.5, name, ha="center", va="center", fontsize=_SIZE)
    _arrow(axes, (153.5, 35.2), (153.5, y))
    _box(axes, x, y, w, h, FROZEN)
    axes.text(x + w / 2, y + h - 1.2, f"language model\n{shapes.layers} layers · {in_words(shapes.parameters['language'])}",
              ha="center", va="top", fontsize=_SIZE, linespacing=1.2)
    _box(axes, x + 3, y + 2, w - 6, 8.2, TRAINED)
    axes.text(x + w / 2, y + 6.1, f"LoRA r = {shapes.rank} on q, v\n{in_words(shapes.parameters['lora'])}", ha="center",
              va="center", fontsize=_SMALL, linespacing=1.15)
    # Video tokens run over the top, anomaly tokens straight, the question from below.
    axes.add_patch(Rectangle((87, 62.6), 30, 6.8, facecolor="#B9D3E6", edgecolor="#555555", linewidth=0.5))
    axes.text(102, 66, f"video tokens  {times((shapes.seen, width))}", ha="center", va="center", fontsize=_SMALL)
    _arrow(axes, (67, 66), (87, 66))
    axes.text(77, 66.8, "merge 2 × 2", ha="center", va="bottom", fontsize=_SMALL)
    _arrow(axes, (117, 66), (136, 66), (136, 37.9), (143.5, 37.9), (143.5, 35.0))
    axes.text(118.2, 67.0, f"{shapes.read:,} read", fontsize=_SMALL, va="bottom")
    _arrow(axes, (133, 25.5), (153, 25.5), (153, 30))
    axes.text(134.2, 24.7, f"anomaly tokens\n{times((shapes.anomaly, width))}", fontsize=_SMALL, va="top", linespacing=1.15)
    _arrow(axes, (163, 20.5), (163, 30))
    axes.text(163, 19.7, "question", ha="center", va="top", fontsize=_SMALL)
    _arrow(axes, (153.5, y + h), (153.5, 66.3))
    axes.text(153.5, 77.0, " · ".join(_SLOTS[:2]) + "\n" + " · ".join(_SLOTS[2:4]) + "\n" + " · ".join(_SLOTS[4:]),
              ha="center", va="top", fontsize=_TINY, linespacing=1.25)
    _box(axes, 138.5, 66.5, 30, 14.8, "none")
    axes.text(153.5, 80.4, "answers, turn by turn", ha="center", va="top", fontsize=_SIZE)


def _legend(axes: Axes) -> None:
    for x, colour, name in ((60, FROZEN, "frozen"), (78, TRAINED, "trained"), (97, DATA, "data")):
        axes.add_patch(Rectangle((x, 3.4), 4, 3, facecolor=colour, edgecolor="#555555", linewidth=0.5))
        axes.text(x + 5, 4.9, name, va="center", fontsize=_SIZE)


# Strokes.

def _box(axes: Axes, x: float, y: float, w: float, h: float, colour: str) -> None:
    axes.add_patch(FancyBboxPatch((x, y), w, h, boxstyle="round,pad=0,rounding_size=1.1", facecolor=colour,
                                  edgecolor="#555555", linewidth=0.6, zorder=1.5))


def _inner(axes: Axes, x: float, y: float, w: float, h: float, words: str) -> None:
    axes.add_patch(Rectangle((x, y), w, h, facecolor="white", edgecolor=VERMILION, linewidth=0.5, zorder=2))
    axes.text(x + w / 2, y + h / 2, words, ha="center", va="center", fontsize=_SMALL, linespacing=1.15, zorder=3)


def _arrow(axes: Axes, *points: Sequence[float]) -> None:
    """An arrow through points; the last piece has the head."""
    x, y = zip(*points)
    axes.plot(x[:-1], y[:-1], color="#333333", lw=0.8, solid_joinstyle="miter", zorder=2)
    axes.add_patch(FancyArrowPatch(points[-2], points[-1], arrowstyle="-|>", mutation_scale=6, color="#333333",
                                   linewidth=0.8, shrinkA=0, shrinkB=0, zorder=2))


def _label(axes: Axes, x: float, y: float, name: str, shape: str, *, va: str) -> None:
    axes.text(x, y, f"{name}\n{shape}", ha="center", va=va, fontsize=_SMALL, linespacing=1.15)


def _picture(axes: Axes, picture: np.ndarray, place: tuple[float, float, float, float], *, zorder: float) -> None:
    x, y, w, h = place
    limits = axes.get_xlim(), axes.get_ylim()
    axes.imshow(few_colours(shrunk(picture, w * MILLIMETRE * 2)), extent=(x, x + w, y, y + h), zorder=zorder, aspect="auto")
    axes.add_patch(Rectangle((x, y), w, h, fill=False, edgecolor="#555555", linewidth=0.5, zorder=zorder + 0.1))
    axes.set(xlim=limits[0], ylim=limits[1])
