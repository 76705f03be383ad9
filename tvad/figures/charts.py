"""Figures with axes: training curves, score curves, results by event, validation against test.

Each takes a :class:`tvad.figures.page.Page` and returns a figure and its caption.
"""
from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import mean
from typing import Any

from matplotlib.figure import Figure

from tvad.figures.panels import curve_panel, place_of, plain_name
from tvad.figures.picks import Pick, best_median_worst, false_alarms
from tvad.figures.style import BLUE, COLUMN, GREEN, GREY, INTERVAL, NAMES, ORANGE, PAGE, PURPLE, VERMILION, canvas
from tvad.record import Row

METRICS = {"pixel_auroc": "pixel AUROC", "aupro": "AUPRO", "micro_auc": "micro AUC", "macro_auc": "macro AUC",
           "ap": "AP", "rbdc": "RBDC", "tbdc": "TBDC"}
CONTROLS = {"control-random-tower": ("random tower", "o", VERMILION), "control-static": ("no motion", "^", GREEN),
            "control-untrained": ("untrained decoder", "s", PURPLE)}


def headline(rows: Sequence[Row], metric: str, *, event: str | None = None, variant: str = "full") -> list[Row]:
    """The rows of one figure over seeds: smoothed with the sigma of validation, where there are such."""
    found = [row for row in rows if (row.metric, row.event, row.variant) == (metric, event, variant)
             and row.choice != "oracle"]
    smoothed = [row for row in found if row.sigma]
    return smoothed or found


def training(page: Any) -> tuple[Figure, str]:
    """Loss and validation metrics over the optimizer steps."""
    history, best = page.history, page.training["best"]
    steps = [entry["step"] for entry in history]
    figure = canvas(PAGE, 2.0)
    loss, quality = figure.subplots(1, 2)
    loss.plot(steps, [entry["train_loss"] for entry in history], color=BLUE, label="training (drawn patches)")
    loss.plot(steps, [entry["val_loss"] for entry in history], color=ORANGE, ls="--", label="validation")
    loss.set(xlabel="optimizer step", ylabel="pixel cross-entropy (nat)", yscale="log")
    quality.plot(steps, [entry["val_pixel_auroc"] for entry in history], color=BLUE, label="pixel AUROC")
    quality.plot(steps, [entry["val_micro_auc"] for entry in history], color=ORANGE, ls="--", label="micro AUC (raw)")
    quality.set(xlabel="optimizer step", ylabel="validation (fraction)")
    for axes in (loss, quality):
        axes.axvline(best["step"], color=GREY, lw=0.7, ls=":", label="kept checkpoint")
        axes.legend(loc="best")
    pairs = page.training["pairs"]
    source = page.training["taken_over_from"]
    more = f" The decoder was taken over from profile {source}." if source else ""
    return figure, (f"Training of the heatmap decoder on SimCampus (simulated), split {page.splits[0]}, "
                    f"{pairs['train']['pairs']:,} frame pairs; validation on {pairs['val']['pairs']:,} pairs of split "
                    f"{page.splits[1]}. Kept: the checkpoint with the best mean of both validation metrics.{more}")


def scores(page: Any) -> tuple[Figure, str]:
    """Score curves of the best, median and worst detected event and of the highest false alarm."""
    picks = best_median_worst(page.detections, page.videos) + false_alarms(page.detections, page.videos, 1)
    figure = canvas(PAGE, 1.25 * -(-len(picks) // 2) + 0.2)
    panels = figure.subplots(-(-len(picks) // 2), 2, squeeze=False).ravel()
    for axes in panels[len(picks):]:
        axes.set_visible(False)
    for axes, pick in zip(panels, picks):
        curve_panel(axes, page.detections[pick.video.id], pick.video,
                    marked=pick.frame if pick.why == "false alarm" else None)
        axes.set(xlabel="time (s)", ylabel="anomaly score", title=_title(pick))
    handles, labels = panels[0].get_legend_handles_labels()
    handles.append(panels[0].axvspan(-2, -1, color=INTERVAL, lw=0))
    figure.legend(handles, [*labels, "labelled anomalous"], loc="outside upper center", ncols=3)
    return figure, (f"{page.place}. Frame score over time: the best, median and worst detected event and the video "
                    f"with the highest-scoring normal frame (dotted). Smoothed per video, sigma {page.sigma:g} frames, "
                    f"fixed on validation ({page.chosen_on}).")


def _title(pick: Pick) -> str:
    if pick.why == "false alarm":
        return f"highest false alarm: {place_of(pick.video)}"
    return f"{pick.why}: {plain_name(pick.kind)} ({place_of(pick.video)}), frame AUC {pick.auc:.3f}"


def events(page: Any) -> tuple[Figure, str]:
    """Frame AUC of each event class against normal frames; of each clip where there are no classes."""
    return _by_class(page) if page.classes > 1 else _by_clip(page)


def _by_class(page: Any) -> tuple[Figure, str]:
    found = [headline(page.rows, "micro_auc", event=kind)[0] for kind in page.kinds]
    found = sorted((row for row in found if row.value is not None), key=lambda row: row.value)
    figure = canvas(COLUMN, 0.19 * len(found) + 0.75)
    axes = figure.subplots()
    for place, row in enumerate(found):
        axes.barh(place, row.value, height=0.62, color=BLUE, alpha=0.75)
        if row.ci_low is not None:
            axes.plot([row.ci_low, row.ci_high], [place, place], color="black", lw=1.0)
        axes.text(1.015, place, f"{row.n * row.positive_rate:.0f}", va="center", fontsize=6.5, color=GREY)
        for variant, (_, marker, colour) in CONTROLS.items():
            values = [other.value for other in headline(page.study, "micro_auc", event=row.event, variant=variant)
                      if other.value is not None]
            if values:
                axes.plot(mean(values), place, marker, color=colour, ms=3.2, mec="white", mew=0.3)
    axes.axvline(0.5, color=GREY, lw=0.7, ls=":")
    axes.text(1.015, len(found) - 0.35, "frames", fontsize=6.5, color=GREY, va="bottom")
    axes.set(yticks=range(len(found)), yticklabels=[plain_name(row.event) for row in found], xlim=(0, 1),
             ylim=(-0.6, len(found) - 0.4), xlabel="frame AUC against normal frames")
    axes.tick_params(axis="y", length=0)
    _control_legend(figure, page)
    seed = found[0].seed if found else 0
    return figure, (f"{page.place}. Frame AUC of each event class against all normal frames, seed {seed}; lines: 95 % "
                    "bootstrap interval over videos; right: number of the event's frames; dotted: chance."
                    f"{_control_words(page)}")


def _by_clip(page: Any) -> tuple[Figure, str]:
    ranked = sorted(page.ranked, key=lambda pick: pick.video.id, reverse=True)
    figure = canvas(COLUMN, 0.19 * len(ranked) + 0.6)
    axes = figure.subplots()
    axes.barh(range(len(ranked)), [pick.auc for pick in ranked], height=0.62, color=BLUE, alpha=0.75)
    axes.axvline(0.5, color=GREY, lw=0.7, ls=":")
    axes.set(yticks=range(len(ranked)), yticklabels=[pick.video.id for pick in ranked], xlim=(0, 1),
             xlabel="AUC of the clip's anomalous frames\nagainst all normal frames of the split")
    axes.tick_params(axis="y", length=0)
    return figure, (f"{page.place}. The set names no event classes, so each clip stands for itself: AUC of its "
                    f"anomalous frames (smoothed scores) against the normal frames of all {len(page.videos)} clips, n "
                    f"= {page.normal_frames:,}. One clip gives no interval. Dotted: chance.")


def gap(page: Any) -> tuple[Figure, str]:
    """Each metric on validation and on the evaluated split, with intervals."""
    shown = [(name, label, headline(page.val_rows, name), headline(page.rows, name)) for name, label in METRICS.items()]
    shown = [entry for entry in shown if entry[2] and entry[3]][::-1]
    lows = [row.value if row.ci_low is None else row.ci_low for *_, one, other in shown for row in (one[0], other[0])
            if row.value is not None]
    figure = canvas(COLUMN, 0.24 * len(shown) + 0.75)
    axes = figure.subplots()
    for place, (_, _, validation, test) in enumerate(shown):
        for row, shift, marker, colour in ((validation[0], 0.14, "o", ORANGE), (test[0], -0.14, "D", BLUE)):
            if row.value is None:
                continue
            if row.ci_low is not None:
                axes.plot([row.ci_low, row.ci_high], [place + shift] * 2, color=colour, lw=1.2, clip_on=False)
            axes.plot(row.value, place + shift, marker, color=colour, ms=3.5, clip_on=False, zorder=3)
        if None not in (validation[0].value, test[0].value):
            axes.text(1.02, place, f"{test[0].value - validation[0].value:+.3f}", va="center", fontsize=6.5)
    axes.plot([], [], "o-", color=ORANGE, ms=3.5, label=f"validation ({page.splits[1]})")
    axes.plot([], [], "D-", color=BLUE, ms=3.5, label=page.split)
    axes.set(yticks=range(len(shown)), yticklabels=[label for _, label, _, _ in shown],
             xlim=(math.floor(10 * min(lows, default=0) - 0.2) / 10, 1), ylim=(-0.5, len(shown) - 0.5), xlabel="fraction")
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x", lw=0.3, color="#DDDDDD")
    figure.legend(loc="outside upper center", ncols=2)
    real = "" if page.part.dataset == "simcampus" else " Validation is simulated, the evaluated footage real."
    return figure, (f"Validation ({NAMES['simcampus']}, split {page.splits[1]}; sigma, thresholds and checkpoint were "
                    f"chosen there) against {page.place}. Lines: 95 % bootstrap interval over videos; right: the "
                    f"gap, evaluated less validation.{real}")


def _control_legend(figure: Figure, page: Any) -> None:
    present = [entry for variant, entry in CONTROLS.items() if any(row.variant == variant for row in page.study)]
    if present:
        axes = figure.axes[0]
        handles = [axes.plot([], [], marker, color=colour, ms=3.5, ls="", label=name)[0]
                   for name, marker, colour in present]
        figure.legend(handles=handles, loc="outside upper center", ncols=3, handletextpad=0.1, columnspacing=1.0)


def _control_words(page: Any) -> str:
    seeds = sorted({row.seed for row in page.study if row.variant in CONTROLS})
    if not seeds:
        return " No study rows of the controls are kept for this profile yet."
    return f" Marks: controls, mean over seeds {', '.join(map(str, seeds))}, from the committed study rows."


