"""The learning curve of phase 2: answers on validation against clips, steps, width and rank, each by factors."""
from __future__ import annotations

import re
from collections.abc import Mapping

from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from tvad.errors import MissingPhaseError
from tvad.figures.stored import Stored
from tvad.figures.style import BLUE, GREEN, GREY, ORANGE, PAGE, PURPLE, canvas
from tvad.params.phase2 import not_run_for
from tvad.record import Row

PANELS: Mapping[str, str] = {"yes_no_balanced_accuracy": "yes/no, balanced", "bleu4_target": "BLEU-4, target",
                             "bleu4_trajectory": "BLEU-4, trajectory"}
AXES: Mapping[str, tuple[str, str, str]] = {
    "clips": ("training clips", "o", BLUE), "steps": ("steps of all stages", "s", ORANGE),
    "width": ("width of the region encoder", "^", GREEN), "rank": ("rank of LoRA", "D", PURPLE)}
_POINT = re.compile(r"full, (\w+) x ([\d.]+)")


def learning(stored: Stored) -> tuple[Figure, str]:
    """Three figures of the answers over factors of one setting at a time; all axes meet in the profile as it is."""
    if reason := not_run_for(stored.params.dataset):
        raise MissingPhaseError(reason)
    rows = [row for row in stored.learning() if row.metric in PANELS and row.value is not None]
    whole = {metric: _mean([row for row in rows if (row.variant, row.metric) == ("full", metric)]) for metric in PANELS}
    if None in whole.values():
        raise MissingPhaseError(f"figures/{stored.params.profile}/curve.jsonl: no rows of the profile as it is; run: "
                                f"python -m tvad.study run --phase curve --seeds 0 --profile {stored.params.profile}")
    figure = canvas(PAGE, 2.0)
    panels = figure.subplots(1, len(PANELS))
    for axes, (metric, title) in zip(panels, PANELS.items()):
        for name, (label, marker, colour) in AXES.items():
            points = _points([row for row in rows if row.metric == metric], name) | {1.0: whole[metric]}
            factors = sorted(points)
            axes.plot(factors, [points[factor] for factor in factors], marker, ls="-", color=colour, ms=3.5, lw=1.0,
                      label=label)
        for low, high in ((row.ci_low, row.ci_high) for row in rows if (row.variant, row.metric) == ("full", metric)):
            if low is not None and high is not None:
                axes.axhspan(low, high, color=GREY, alpha=0.12, lw=0)
        axes.set(xscale="log", title=title, xlabel="times the profile's setting")
        axes.set_xticks([0.25, 0.5, 1, 2, 4])
        axes.minorticks_off()
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    panels[0].set_ylabel("fraction")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside upper center", ncols=len(AXES))
    seeds = sorted({row.seed for row in rows})
    counts = ", ".join(f"{title} of {max(row.n for row in rows if row.metric == metric)} clips"
                       for metric, title in PANELS.items())
    said = f"seed {seeds[0]}" if len(seeds) == 1 else f"mean of seeds {', '.join(map(str, seeds))}"
    return figure, (f"SimCampus (simulated), validation, {counts}, {said}; each point is a training of its own, "
                    "answering freely. Grey: 95 % interval of the profile as it is, bootstrap over videos. "
                    "Validation chose the checkpoint and the balance of yes and no of each point.")


def _points(rows: list[Row], axis: str) -> dict[float, float]:
    """The mean over seeds at each factor of an axis."""
    found: dict[float, list[Row]] = {}
    for row in rows:
        if (match := _POINT.fullmatch(row.variant)) and match[1] == axis:
            found.setdefault(float(match[2]), []).append(row)
    return {factor: value for factor, own in found.items() if (value := _mean(own)) is not None}


def _mean(rows: list[Row]) -> float | None:
    return sum(row.value for row in rows) / len(rows) if rows else None
