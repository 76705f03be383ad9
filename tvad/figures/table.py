"""The results table: this run with its intervals, the committed study and its controls beside it, in Markdown."""
from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tvad.record import Row
from tvad.study.tables import collect, figure_key, spread, within

_NAMES = {"pixel_auroc": "pixel AUROC", "aupro": "AUPRO", "micro_auc": "micro AUC", "macro_auc": "macro AUC",
          "ap": "AP", "rbdc": "RBDC", "tbdc": "TBDC"}
_COLUMNS = {"full": "study", "control-random-tower": "random tower", "control-static": "no motion",
            "control-untrained": "untrained decoder"}
_PUBLISHED = ("Published T-VAD (UBnormal, split called validation there; other footage, so not comparable): micro AUC "
              "0.948, macro AUC 0.878, RBDC 0.678, TBDC 0.767.")


def results_table(page: Any) -> str:
    """Markdown: one line a metric; the column ``study`` says mean and spread and whether this run lies within."""
    study = collect(page.study)
    seeds = sorted({row.seed for row in page.study})
    variants = [variant for variant in _COLUMNS if any(key[1] == variant for key in study)]
    rows = [row for row in page.rows if row.event is None]
    rows.sort(key=lambda row: (list(_NAMES).index(row.metric), not row.sigma))
    head = ["metric", f"this run (seed {rows[0].seed})", "95 % interval", *(_COLUMNS[variant] for variant in variants)]
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    for row in rows:
        own = ["undefined", ""] if row.value is None else [f"**{row.value:.3f}**", _interval(row)]
        others = [_reference(row, study, name) for name in variants]
        lines.append("| " + " | ".join([_label(row), *own, *others]) + " |")
    return "\n".join([_heading(page, rows), "", *lines, "", _notes(page, seeds, variants)])


def _label(row: Row) -> str:
    name = _NAMES[row.metric]
    if row.sigma is None:
        return name
    return f"{name}, smoothed" if row.sigma else f"{name}, raw"


def _interval(row: Row) -> str:
    return "none" if row.ci_low is None else f"{row.ci_low:.3f} to {row.ci_high:.3f}"


def _reference(row: Row, study: dict[tuple, list[float]], variant: str) -> str:
    key = list(figure_key(row))
    key[1] = variant
    values = study.get(tuple(key))
    if not values:
        return "–"
    said = f"{sum(values) / len(values):.3f} ± {spread(values):.3f}"
    if variant == "full" and row.value is not None:
        said += "" if within(row.value, values) else " (this run outside)"
    return said


def _heading(page: Any, rows: Sequence[Row]) -> str:
    rates = [row.positive_rate for row in rows if row.positive_rate is not None]
    return f"**{page.place}**" + (f", base rate {rates[0]:.3f}" if rates else "") + f", sigma {page.sigma:g} frames"


def _notes(page: Any, seeds: Sequence[int], variants: Sequence[str]) -> str:
    words = ["Intervals: bootstrap over videos. Smoothing, thresholds and checkpoint were chosen on "
             f"{page.chosen_on} (simulated), never on these labels."]
    if variants:
        words.append(f"Study and controls: mean ± standard deviation over seeds {', '.join(map(str, seeds))}, taken "
                     f"from the committed rows in figures/{page.params.profile}/study.jsonl, not from this run.")
    else:
        words.append("No study rows are kept for this profile yet, so controls are missing; they come from: "
                     f"make study PROFILE={page.params.profile}.")
    return " ".join([*words, _PUBLISHED])
