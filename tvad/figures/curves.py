"""Figures with axes of the paper: score curves with labelled intervals, ROC and precision-recall, the study over seeds.

Each takes a :class:`tvad.figures.stored.Stored` and returns a figure and its caption.
"""
from __future__ import annotations

from collections.abc import Sequence
from statistics import mean

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from sklearn.metrics import precision_recall_curve, roc_curve

from tvad.errors import MissingPhaseError
from tvad.figures.charts import CONTROLS, METRICS, headline
from tvad.figures.panels import curve_panel, plain_name
from tvad.figures.picks import median_of_each_class
from tvad.figures.stored import Stored
from tvad.figures.style import BLUE, COLUMN, GREY, INTERVAL, NAMES, ORANGE, PAGE, SKY, canvas
from tvad.metrics import average_precision, micro_auc
from tvad.record import Row

_GRID = np.linspace(0, 1, 201)
_MOST = 12      # panels of score curves


def curves(stored: Stored) -> tuple[Figure, str]:
    """The median-detected video of each event class (of each video, where there are no classes): score over time."""
    detections, videos = stored.detections, stored.videos
    picks = median_of_each_class(detections, videos, _MOST)
    if not picks:
        raise MissingPhaseError(f"no event among the {len(videos)} scored videos; score more of them: "
                                f"make reproduce PROFILE={stored.params.profile}")
    columns = min(4, len(picks))
    rows = -(-len(picks) // columns)
    figure = canvas(PAGE, 0.93 * rows + 0.42)
    panels = figure.subplots(rows, columns, squeeze=False, sharey=True)
    for axes in panels.ravel()[len(picks):]:
        axes.set_visible(False)
    for place, (axes, pick) in enumerate(zip(panels.ravel(), picks)):
        curve_panel(axes, detections[pick.video.id], pick.video, kind=pick.kind)
        name = plain_name(pick.kind) if len(stored.kinds) > 1 else pick.video.id
        axes.set_title(f"{name}, AUC {pick.auc:.3f}", pad=3)
        if place + columns >= len(picks):
            axes.set_xlabel("time (s)")
        if place % columns == 0:
            axes.set_ylabel("anomaly score")
    _curve_legend(figure, panels.ravel()[0])
    which = (f"the median-detected video of each of {len(picks)} event classes, best first"
             if len(stored.kinds) > 1 else f"{len(picks)} events, best detected first")
    scoring = stored.scoring
    return figure, (f"{stored.place}. Frame score over time: {which}. Shaded: labelled frames, light where they are of "
                    "other events of the video. AUC: that event's frames in this video against all normal frames of the "
                    f"split. Smoothed per video, sigma {scoring.sigma:g} frames, fixed on {scoring.chosen_on}.")


def _curve_legend(figure: Figure, axes: Axes) -> None:
    handles, labels = axes.get_legend_handles_labels()
    handles.append(axes.axvspan(-2, -1, color=INTERVAL, lw=0))
    figure.legend(handles, [*labels, "labelled anomalous"], loc="outside upper center", ncols=3)


def roc_pr(stored: Stored) -> tuple[Figure, str]:
    """ROC and precision-recall of the frame scores, raw and smoothed, with bands over videos."""
    detections, videos = stored.detections, stored.videos
    labels = [np.asarray(video.labels) for video in videos]
    kinds = {"raw": ([detections[video.id].raw_scores for video in videos], SKY, 0.8),
             "smoothed": ([detections[video.id].frame_scores for video in videos], BLUE, 1.2)}
    base = float(np.concatenate(labels).mean())
    if not 0 < base < 1:
        raise MissingPhaseError(f"the {len(videos)} scored videos hold frames of one class alone, so that there is no "
                                f"curve; score more of them: make reproduce PROFILE={stored.params.profile}")
    figure = canvas(COLUMN, 1.98)
    roc, pr = figure.subplots(1, 2)
    for name, (scores, colour, width) in kinds.items():
        auc, ap = micro_auc(scores, labels), average_precision(scores, labels)
        if name == "smoothed":
            for axes, curve in ((roc, roc_on_grid), (pr, pr_on_grid)):
                low, high = band(curve, scores, labels, samples=stored.params.bootstrap_samples)
                axes.fill_between(_GRID, low, high, color=colour, alpha=0.2, lw=0)
        roc.plot(*roc_curve(np.concatenate(labels), np.concatenate(scores))[:2], color=colour, lw=width,
                 label=f"{name}, AUC {auc:.3f}")
        precision, recall, _ = precision_recall_curve(np.concatenate(labels), np.concatenate(scores))
        pr.plot(recall, precision, color=colour, lw=width, label=f"{name}, AP {ap:.3f}")
    roc.plot([0, 1], [0, 1], color=GREY, lw=0.7, ls=":")
    pr.axhline(base, color=GREY, lw=0.7, ls=":")
    roc.set(xlabel="false positive rate", ylabel="true positive rate")
    pr.set(xlabel="recall", ylabel="precision")
    for axes in (roc, pr):
        axes.set(xlim=(0, 1), ylim=(0, 1.005), xticks=[0, 0.5, 1], yticks=[0, 0.5, 1], aspect="equal")
        axes.legend(loc="upper left", bbox_to_anchor=(-0.06, 1.3), handlelength=1.2, borderaxespad=0)
    return figure, (f"{stored.place}. Frame-level ROC (left) and precision-recall (right) over all frames of all videos. "
                    f"Band: 95 % of {stored.params.bootstrap_samples} resamples of the videos (smoothed scores). Dotted: "
                    f"chance; base rate {base:.3f}. One seed; seeds and controls: figure study.")


def roc_on_grid(scores: Float[np.ndarray, "n"], labels: Float[np.ndarray, "n"]) -> Float[np.ndarray, "g"]:
    """The true positive rate at each of 201 false positive rates from 0 to 1."""
    false, true, _ = roc_curve(labels, scores)
    return np.interp(_GRID, false, true)


def pr_on_grid(scores: Float[np.ndarray, "n"], labels: Float[np.ndarray, "n"]) -> Float[np.ndarray, "g"]:
    """The precision at each of 201 recalls from 0 to 1: that of the strictest threshold which reaches the recall."""
    precision, recall, _ = precision_recall_curve(labels, scores)
    # recall falls along the arrays; the last entry that is still at least r is the strictest threshold for r
    places = np.searchsorted(-recall, -_GRID, side="right") - 1
    return precision[places]


def band(curve, scores: Sequence[np.ndarray], labels: Sequence[np.ndarray], *, samples: int, seed: int = 0
         ) -> tuple[Float[np.ndarray, "g"], Float[np.ndarray, "g"]]:
    """The 2.5th and 97.5th centile of a curve over resamples of whole videos; those with one class of frames are drawn
    again."""
    rng, found = np.random.default_rng(seed), []
    while len(found) < samples:
        drawn = rng.integers(0, len(scores), len(scores))
        truth = np.concatenate([labels[place] for place in drawn])
        if 0 < truth.sum() < len(truth):
            found.append(curve(np.concatenate([scores[place] for place in drawn]), truth))
    low, high = np.quantile(found, (0.025, 0.975), axis=0)
    return low, high


def study(stored: Stored) -> tuple[Figure, str]:
    """Every heatmap metric over the seeds of the committed study, the full system beside its controls."""
    params = stored.params
    place = (params.dataset, params.protocol, params.split)
    rows = [row for row in stored.study() if (row.dataset, row.protocol, row.split) == place]
    shown = [name for name in METRICS if any(row.value is not None for row in headline(rows, name))][::-1]
    if not shown:
        raise MissingPhaseError(f"figures/{params.profile}/study.jsonl: holds no rows of {'/'.join(place)}; "
                                f"run: make study PROFILE={params.profile}")
    figure = canvas(COLUMN, 0.27 * len(shown) + 0.78)
    axes = figure.subplots()
    kinds = {"full": ("full system", "D", BLUE), **CONTROLS}
    present = [name for name in kinds if any(headline(rows, metric, variant=name) for metric in shown)]
    step = 0.72 / max(len(present), 1)
    for number, variant in enumerate(present):
        label, marker, colour = kinds[variant]
        for at, metric in enumerate(shown):
            own = [row for row in headline(rows, metric, variant=variant) if row.value is not None]
            _seeds(axes, own, at + step * ((len(present) - 1) / 2 - number), colour, marker)
        axes.plot([], [], marker, color=colour, ms=3.5, ls="", label=label)
    rates = sorted({row.positive_rate for row in headline(rows, "ap") if row.positive_rate is not None})
    if rates and "ap" in shown:
        at = shown.index("ap")
        axes.plot([rates[0]] * 2, [at - 0.45, at + 0.45], color=ORANGE, lw=1.2, label="base rate (AP)")
    for at in range(len(shown) - 1):
        axes.axhline(at + 0.5, color="#E8E8E8", lw=0.5)
    axes.set(yticks=range(len(shown)), yticklabels=[METRICS[name] for name in shown], xlim=(-0.02, 1.02),
             ylim=(-0.5, len(shown) - 0.5), xlabel="fraction")
    axes.tick_params(axis="y", length=0)
    figure.legend(loc="outside upper center", ncols=3 if len(present) > 2 else 4, handletextpad=0.4,
                  handlelength=1.2, columnspacing=1.0)
    seeds = sorted({row.seed for row in rows})
    lacking = [CONTROLS[name][0] for name in CONTROLS if name not in present]
    more = f" No rows are kept yet of: {', '.join(lacking)} (make study)." if lacking else ""
    name = NAMES.get(params.dataset, f"{params.dataset} (real)")
    return figure, (f"{name}, {params.split} split ({params.protocol}), committed study rows. Large marks: mean over seeds "
                    f"{', '.join(map(str, seeds))}; small: single seeds; lines: 95 % bootstrap interval over videos, the "
                    f"mean of the seeds' ends. Frame metrics are smoothed with the sigma of validation.{more}")


def _seeds(axes: Axes, rows: Sequence[Row], at: float, colour: str, marker: str) -> None:
    if not rows:
        return
    low, high = ([getattr(row, end) for row in rows if getattr(row, end) is not None] for end in ("ci_low", "ci_high"))
    if low:
        axes.plot([mean(low), mean(high)], [at, at], color=colour, lw=1.0, alpha=0.6)
    axes.plot([row.value for row in rows], [at] * len(rows), marker, color=colour, ms=1.6, alpha=0.7, mew=0)
    axes.plot(mean(row.value for row in rows), at, marker, color=colour, ms=3.8, mec="white", mew=0.4)
