"""Tables from rows: the study for the README, and a run beside the study.

A figure counts as within the study's spread when it lies within two standard deviations of the mean over seeds, or
within 0.001 of it: other machines round differently, and three equal seeds have no spread.
"""
from __future__ import annotations

from collections.abc import Iterable, Sequence
from statistics import mean, stdev

from tvad.record import SPOKEN, Row

_ORDER = ("pixel_auroc", "aupro", "micro_auc", "macro_auc", "ap", "rbdc", "tbdc", "yes_no_balanced_accuracy",
          "yes_no_accuracy", "bleu4_target", "bleu4_trajectory")
_NAMES = {"pixel_auroc": "pixel AUROC", "aupro": "AUPRO", "micro_auc": "micro AUC", "macro_auc": "macro AUC",
          "ap": "AP", "rbdc": "RBDC", "tbdc": "TBDC", "yes_no_balanced_accuracy": "yes/no, balanced",
          "yes_no_accuracy": "yes/no", "bleu4_target": "target BLEU-4", "bleu4_trajectory": "trajectory BLEU-4",
          "slot_class": "target class right", "slot_colours": "colours right", "slot_motion": "motion right",
          "slot_from": "from right", "slot_to": "to right"}
_ROUNDING = 0.001


def figure_key(row: Row) -> tuple:
    """What a figure is, seeds and the value of sigma aside: smoothed and raw stay apart."""
    smoothed = row.sigma is not None and row.sigma > 0
    return (row.system, row.variant, row.dataset, row.split, row.protocol, row.metric, row.event or "", smoothed)


def collect(rows: Iterable[Row]) -> dict[tuple, list[float]]:
    """Values over seeds of every figure; undefined ones are left out."""
    found: dict[tuple, list[float]] = {}
    for row in rows:
        if row.value is not None:
            found.setdefault(figure_key(row), []).append(row.value)
    return found


def spread(values: Sequence[float]) -> float:
    """Sample standard deviation; 0 for a single value."""
    return stdev(values) if len(values) > 1 else 0.0


def within(value: float, values: Sequence[float]) -> bool:
    """Whether a figure lies within the study's spread (see the head of this file)."""
    return abs(value - mean(values)) <= max(2 * spread(values), _ROUNDING)


def compare_table(results: Sequence[Row], study: Sequence[Row]) -> str:
    """Each figure of a run beside the study's mean and spread, as plain text that ends with a count."""
    reference = collect(study)
    lines = [f"{'figure':<58} {'value':>7} {'study':>16}  within"]
    outside = unknown = 0
    for row in sorted((row for row in results if row.value is not None), key=_sort_key):
        label = f"{row.dataset}/{row.split} {_label(row)}" + (f" [{row.variant}]" if row.variant != "full" else "")
        values = reference.get(figure_key(row))
        if values is None:
            unknown += 1
            lines.append(f"{label:<58} {row.value:7.4f} {'not in study':>16}  -")
            continue
        inside = within(row.value, values)
        outside += not inside
        said = f"{mean(values):.4f} ± {spread(values):.4f}"
        lines.append(f"{label:<58} {row.value:7.4f} {said:>16}  {'yes' if inside else 'NO'}")
    compared = len(lines) - 1 - unknown
    lines.append(f"{compared - outside} of {compared} figures lie within the study's spread"
                 + (f", {unknown} are not in the study" if unknown else ""))
    return "\n".join(lines)


def study_tables(rows: Sequence[Row]) -> str:
    """Markdown, for each split and phase: metrics by variant, then events; mean ± standard deviation over seeds."""
    parts = [f"> These rows come from {len(configs)} configurations ({', '.join(sorted(configs))}): they are not one "
             "study. Run it again to the end, or delete the older rows."
             for configs in _configurations(rows) if len(configs) > 1]
    for split in dict.fromkeys((row.dataset, row.protocol, row.split, row.metric in SPOKEN) for row in rows):
        chosen = [row for row in rows if (row.dataset, row.protocol, row.split, row.metric in SPOKEN) == split]
        dataset = "SimCampus (simulated)" if split[0] == "simcampus" else split[0]
        seeds = sorted({row.seed for row in chosen})
        rates = [row.positive_rate for row in chosen if row.positive_rate is not None and row.event is None]
        parts.append(f"### {dataset}, {split[2]} split ({split[1]}){', answers' if split[3] else ''}, seeds "
                     f"{', '.join(map(str, seeds))}" + (f", base rate {rates[0]:.3f}" if rates else ""))
        whole = [row for row in chosen if row.event is None]
        parts.append(_markdown(whole, head="metric"))
        events = [row for row in chosen if row.event is not None]
        if events:
            parts.append(_markdown(events, head="event"))
    return "\n\n".join(parts)


def _configurations(rows: Sequence[Row]) -> list[set[str]]:
    """The configurations of rows that must share one: phase 1 has one for all protocols, phase 2 one for each."""
    groups: dict[str | None, set[str]] = {}
    for row in rows:
        groups.setdefault(row.protocol if row.metric in SPOKEN else None, set()).add(row.config)
    return list(groups.values())


def _markdown(rows: Sequence[Row], *, head: str) -> str:
    variants = list(dict.fromkeys(row.variant for row in rows))
    reference = collect(rows)
    lines = [f"| {head} | " + " | ".join(variants) + " |", "|---" * (len(variants) + 1) + "|"]
    listed = dict.fromkeys((figure_key(row)[5:], _label(row)) for row in sorted(rows, key=_sort_key))
    for key, label in listed:
        cells = []
        for variant in variants:
            own = next((found for name, found in reference.items() if name[1] == variant and name[5:] == key), None)
            cells.append("–" if own is None else f"{mean(own):.3f} ± {spread(own):.3f}")
        lines.append(f"| {label} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _label(row: Row) -> str:
    name = _NAMES.get(row.metric, row.metric)
    if row.sigma is not None:
        name += ", smoothed" if row.sigma > 0 else ", raw"
    return f"{row.event}: {name}" if row.event else name


def _sort_key(row: Row) -> tuple:
    rank = _ORDER.index(row.metric) if row.metric in _ORDER else len(_ORDER)
    return (row.dataset, row.protocol, row.split, row.variant, row.event or "", rank, row.metric, -(row.sigma or 0))
