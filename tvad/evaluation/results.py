"""All rows and measures that tables are made of, and how a cell is picked from them.

Committed ones lie in ``figures/<profile>/``: ``study.jsonl`` (the study), ``evaluation.jsonl`` (other systems),
``leak.jsonl`` and ``measures.jsonl``.  What this machine made lies in ``runs/evaluation`` and ``runs/<profile>``.
"""
from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from tvad.evaluation.measures import Measure, latest, read_measures
from tvad.evaluation.places import Place
from tvad.evaluation.sheet import NOT_RUN, Entry, Figure
from tvad.record import SPOKEN, Row, latest_rows, read_rows

EVALUATION_FILE, LEAK_FILE = "evaluation.jsonl", "leak.jsonl"
ROW_FILES = ("study.jsonl", EVALUATION_FILE, LEAK_FILE)
MEASURE_FILE = "measures.jsonl"


@dataclass(frozen=True)
class Results:
    """Rows and measures, the latest of each key; ``run``: rows of this machine's own run of the profile."""

    rows: tuple[Row, ...] = ()
    measures: tuple[Measure, ...] = ()
    run: tuple[Row, ...] = ()

    @classmethod
    def gather(cls, root: Path | str, *, run: Path | str | None = None, more: Iterable[Path | str] = ()) -> Results:
        """What ``root/figures`` holds, then ``more``: folders with ``rows.jsonl`` and ``measures.jsonl``, which win.

        ``run``: folder of the profile's own run. Raises :class:`tvad.errors.StorageError` for a damaged file.
        """
        folders = sorted(path for path in (Path(root) / "figures").glob("*") if path.is_dir())
        rows = [row for folder in folders for name in ROW_FILES for row in _rows(folder / name)]
        measures = [one for folder in folders for one in read_measures(folder / MEASURE_FILE)]
        for folder in map(Path, more):
            rows += _rows(folder / "rows.jsonl")
            measures += read_measures(folder / MEASURE_FILE)
        own = _rows(Path(run) / "results.jsonl") if run else []
        return cls(tuple(latest_rows(rows)), tuple(latest(measures)), tuple(latest_rows(own)))

    def found(self, metric: str, place: Place, *, system: str = "t-vad", variant: str = "full",
              event: str | None = None) -> list[Row]:
        """One row a seed: the smoothed one where there are both, never one that was chosen on test labels."""
        wanted = (metric, place.dataset, place.split, system, variant, event)
        by_seed: dict[int, Row] = {}
        for row in self.rows:
            if (row.metric, row.dataset, row.split, row.system, row.variant, row.event) == wanted \
                    and row.choice != "oracle" and (row.seed not in by_seed or (row.sigma or 0) > 0):
                by_seed[row.seed] = row
        return [by_seed[seed] for seed in sorted(by_seed)]

    def figure(self, metric: str, place: Place, **wanted: object) -> Entry:
        """Mean and spread over seeds as a cell; "not run" without rows, "undefined" without values."""
        rows = self.found(metric, place, **wanted)
        values = [row.value for row in rows if row.value is not None]
        if not values:
            return "undefined" if rows else NOT_RUN
        ends = [(row.ci_low, row.ci_high) for row in rows if row.ci_low is not None]
        return Figure.over(values, ends=ends)

    def seeds(self, place: Place, *, system: str = "t-vad", variant: str = "full", spoken: bool = False) -> list[int]:
        """Seeds of which there are rows."""
        wanted = (system, variant, place.dataset, place.split, spoken)
        return sorted({row.seed for row in self.rows
                       if (row.system, row.variant, row.dataset, row.split, row.metric in SPOKEN) == wanted})

    def rate(self, place: Place) -> float | None:
        """Share of anomalous frames of a place, from any row of a whole split."""
        return next((row.positive_rate for row in self.rows if row.event is None and row.metric == "micro_auc"
                     and (row.dataset, row.split) == (place.dataset, place.split)), None)

    def systems(self, place: Place, *, spoken: bool = False) -> list[tuple[str, str]]:
        """System and variant of all answers, or of all frame scores, of a place, in the order of their rows."""
        return list(dict.fromkeys((row.system, row.variant) for row in self.rows
                                  if (row.dataset, row.split) == (place.dataset, place.split)
                                  and (row.metric in SPOKEN if spoken else row.metric == "micro_auc")))

    def measured(self, name: str, *, place: Place | None = None, system: str | None = None, variant: str | None = None,
                 scene: str | None = None, against: str | None = None) -> list[Measure]:
        """Measures of one name; those without a scene or a second system unless these are asked for."""
        return [one for one in self.measures if one.name == name and (one.scene, one.against) == (scene, against)
                and (place is None or (one.dataset, one.split) == (place.dataset, place.split))
                and system in (None, one.system) and variant in (None, one.variant)]

    def quantity(self, name: str, *, digits: int = 3, scale: float = 1.0, **wanted: object) -> Entry:
        """Mean and spread over seeds of a measure as a cell."""
        found = self.measured(name, **wanted)
        values = [one.value / scale for one in found if one.value is not None]
        if not values:
            return "undefined" if found else NOT_RUN
        ends = [(one.ci_low / scale, one.ci_high / scale) for one in found if one.ci_low is not None]
        return Figure.over(values, ends=ends, digits=digits)


def _rows(path: Path) -> list[Row]:
    return read_rows(path) if path.is_file() else []
