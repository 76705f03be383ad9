"""Figures that no result row can hold: rates, seconds, parameters, differences of systems, parts of a split.

A :class:`Measure` says what a :class:`tvad.record.Row` says, and besides its unit, the part of the split it is of
(``scene``, ``event``) and what it was compared with (``against``).  They are kept as JSON Lines beside the rows.
"""
from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tvad.record import Row, atomic_write, commit, read_lines

UNITS = ("fraction", "difference", "alarms/h", "s", "parameters", "FLOP/frame", "frames/s", "GiB", "count")


@dataclass(frozen=True, kw_only=True)
class Measure:
    """One figure with its unit.

    ``name``: of the figure. ``against``: the variant it is a difference to, as "system/variant". ``p``: of a paired
    test. ``note``: what a reader must know, such as the threshold or the machine. ``n``: what it is taken over.
    """

    system: str
    variant: str
    dataset: str
    split: str
    protocol: str
    name: str
    unit: str
    value: float | None
    n: int
    seed: int | None = None
    config: str | None = None
    commit: str | None = None
    ci_low: float | None = None
    ci_high: float | None = None
    event: str | None = None
    scene: str | None = None
    against: str | None = None
    p: float | None = None
    note: str | None = None

    def __post_init__(self) -> None:
        if self.unit not in UNITS:
            raise ValueError(f"measure {self.name}: unknown unit {self.unit!r}; allowed: {', '.join(UNITS)}")
        for name in ("value", "ci_low", "ci_high", "p"):
            number = getattr(self, name)
            if number is not None:
                number = float(number)
                if not math.isfinite(number):
                    raise ValueError(f"measure {self.name}: {name} is {number}; give a finite number or None")
                object.__setattr__(self, name, number)

    @property
    def key(self) -> tuple:
        """What the measure is of: everything but its numbers, where it was measured, and the note."""
        return (self.system, self.variant, self.dataset, self.split, self.protocol, self.name, self.seed, self.event,
                self.scene, self.against)

    def as_dict(self) -> dict[str, Any]:
        """The fields that are set; ``value`` always."""
        return {name: value for name, value in asdict(self).items() if value is not None or name == "value"}


def of_row(row: Row, *, scene: str) -> Measure:
    """A result row as the measure of one scene."""
    return Measure(system=row.system, variant=row.variant, dataset=row.dataset, split=row.split, protocol=row.protocol,
                   name=row.metric, unit="fraction", value=row.value, n=row.n, seed=row.seed, config=row.config,
                   commit=row.commit, ci_low=row.ci_low, ci_high=row.ci_high, event=row.event, scene=scene)


def of_cell(cell: Any, name: str, unit: str, found: Any, *, n: int, **more: Any) -> Measure:
    """A measure of an evaluation's cell from an ``Interval``, a number, or None: undefined."""
    value = {"value": found}
    if hasattr(found, "low"):
        value = {"value": found.value, "ci_low": found.low, "ci_high": found.high}
    return Measure(system=cell.system, variant=cell.variant, dataset=cell.dataset, split=cell.split,
                   protocol=cell.protocol, name=name, unit=unit, n=n, seed=cell.seed, config=cell.config,
                   commit=commit(), **value, **more)


def read_measures(path: Path | str) -> list[Measure]:
    """All measures of a file, in order; none where there is no file. Raises StorageError that names file and line."""
    return read_lines(path, Measure, what="a measure") if Path(path).is_file() else []


def put_measures(path: Path | str, measures: Sequence[Measure]) -> Path:
    """Add measures to a file, each in the place of an older one of the same ``key``; whole or not at all."""
    kept = {one.key: one for one in [*read_measures(path), *measures]}
    atomic_write(path, "".join(json.dumps(one.as_dict(), allow_nan=False) + "\n" for one in kept.values()))
    return Path(path)


def latest(measures: Iterable[Measure]) -> list[Measure]:
    """The last measure of each key."""
    return list({one.key: one for one in measures}.values())
