"""Result rows: one measured figure each, kept as JSON Lines beside the executed notebook; nobody retypes a number."""
from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

from tvad.errors import StorageError
from tvad.record.files import atomic_write

_Record = TypeVar("_Record")

SYSTEMS: tuple[str, ...] = ("t-vad", "anyanomaly", "videoanomalyclip", "gv-vad")
# Every set that the field measures on, so that rows of others can be compared.
DATASETS: tuple[str, ...] = (
    "simcampus", "ucsd_ped2", "ucsd_ped1", "avenue", "shanghaitech", "ubnormal", "ucf_crime", "custom",
)
METRICS: tuple[str, ...] = (
    "micro_auc", "macro_auc", "ap", "rbdc", "tbdc", "pixel_auroc", "aupro",
    "bleu4_target", "bleu4_trajectory", "yes_no_accuracy", "yes_no_balanced_accuracy",
    "query_micro_auc", "query_pixel_auroc", "query_wrong_ratio",
    "slot_class", "slot_colours", "slot_motion", "slot_from", "slot_to",
)
SPOKEN: tuple[str, ...] = tuple(name for name in METRICS if name.startswith(("bleu4_", "yes_no_", "slot_")))
QUERIED: tuple[str, ...] = tuple(name for name in METRICS if name.startswith("query_"))


@dataclass(frozen=True, kw_only=True)
class Row:
    """One measured figure.  Values are fractions; the interval is a bootstrap over videos.

    ``value`` None says that the metric is undefined there (the AUC of a video without normal frames).  ``n`` counts
    what the value is taken over (frames; videos for ``macro_auc``).  ``positive_rate`` is the base rate that belongs
    beside an AP, ``event`` the class of a per-event figure, ``sigma`` the smoothing in frames, ``choice`` "fixed" for a
    setting chosen on another split, "in-sample" for one chosen on the validation videos of this very row, "oracle" for a
    published one that used test labels.
    """

    system: str
    variant: str
    dataset: str
    split: str
    protocol: str
    metric: str
    value: float | None
    ci_low: float | None
    ci_high: float | None
    n: int
    seed: int
    config: str
    commit: str | None
    positive_rate: float | None = None
    event: str | None = None
    sigma: float | None = None
    choice: str | None = None

    def __post_init__(self) -> None:
        for name, allowed in (("system", SYSTEMS), ("dataset", DATASETS), ("metric", METRICS),
                              ("choice", (None, "fixed", "in-sample", "oracle"))):
            if getattr(self, name) not in allowed:
                known = ", ".join(map(str, allowed))
                raise ValueError(f"row {name} {getattr(self, name)!r} is unknown; allowed: {known}")
        for name in ("value", "ci_low", "ci_high", "positive_rate"):
            number = getattr(self, name)
            if number is not None:
                number = float(number)      # numpy scalars are not JSON
                if not 0.0 <= number <= 1.0:
                    raise ValueError(f"row {name} of {self.metric} is {number}; allowed: a fraction, 0 to 1, or None")
                object.__setattr__(self, name, number)
        if (self.ci_low is None) != (self.ci_high is None):
            raise ValueError(f"row of {self.metric}: give both ends of the interval or none")
        if self.ci_low is not None and self.ci_low > self.ci_high:
            raise ValueError(f"row of {self.metric}: interval {self.ci_low} to {self.ci_high} is upside down")
        for name in ("n", "seed"):
            object.__setattr__(self, name, int(getattr(self, name)))

    @property
    def key(self) -> tuple:
        """What the row is about: everything but the measured numbers and where they were measured."""
        return (self.system, self.variant, self.dataset, self.split, self.protocol, self.metric, self.seed,
                self.event, self.sigma, self.choice)

    def as_dict(self) -> dict[str, Any]:
        """All the fields every row has, and those of the optional ones that are set."""
        optional = ("positive_rate", "event", "sigma", "choice")
        return {name: value for name, value in asdict(self).items() if value is not None or name not in optional}


def append_rows(path: str | Path, rows: Iterable[Row]) -> None:
    """Add rows to a JSON Lines file; after an error or a crash the file holds either all of them or none."""
    path = Path(path)
    before = path.read_bytes() if path.exists() else b""
    if before and not before.endswith(b"\n"):
        before += b"\n"
    lines = "".join(json.dumps(row.as_dict(), allow_nan=False) + "\n" for row in rows)
    atomic_write(path, before + lines.encode())


def read_rows(path: str | Path) -> list[Row]:
    """All rows of a JSON Lines file, in order.  Raises :class:`StorageError` that names file and line."""
    if not Path(path).is_file():
        raise StorageError(f"{path}: no result rows here; the run that writes them has not been made, "
                           "run: make reproduce")
    return read_lines(path, Row, what="a result row")


def read_lines(path: str | Path, make: Callable[..., _Record], *, what: str,
               remedy: str = "delete the line or restore the file",
               prepare: Callable[[dict[str, Any]], dict[str, Any]] = dict) -> list[_Record]:
    """The records of a JSON Lines file, in order: ``make``, a dataclass, of the fields of each line; empty lines are none.

    ``prepare``: what JSON cannot say, such as tuples. Raises :class:`StorageError` that names file and line, calling the
    record ``what``, for anything else than its fields.
    """
    known, found = {item.name for item in fields(make)}, []
    for number, line in enumerate(Path(path).read_text(encoding="utf-8").splitlines(), start=1):
        if not line.strip():
            continue
        try:
            content = json.loads(line)
            if unknown := sorted(set(content) - known):
                raise ValueError(f"unknown field {unknown[0]!r}")
            found.append(make(**prepare(content)))
        except (ValueError, TypeError, KeyError) as error:
            raise StorageError(f"{path}, line {number}: not {what} ({error}); {remedy}") from None
    return found


def has_rows(path: str | Path, field: str, values: Iterable[Any], *, metrics: Sequence[str] = METRICS,
             **wanted: Any) -> bool:
    """Whether a file holds, for each of ``values`` of a ``field``, a row of one of ``metrics`` that is as ``wanted``.

    What a study asks before it trains: ``has_rows(path, "split", ("test", "val"), seed=0, config=config)``.  No file has no
    rows.  Raises :class:`StorageError` for a damaged file.
    """
    rows = read_rows(path) if Path(path).is_file() else []
    found = {getattr(row, field) for row in rows
             if row.metric in metrics and all(getattr(row, name) == value for name, value in wanted.items())}
    return found >= set(values)


def replace_rows(path: str | Path, rows: Iterable[Row]) -> None:
    """Put rows in the place of all that were measured on the same splits before; the others stay.

    "The same" is system, variant, data set, split, protocol and seed, and whether a figure is of heat, of answers or of
    queries: these are measured apart.  All of them go, since another smoothing or configuration gives other
    rows, whose forerunners would stay beside the new.  Whole or not at all.
    """
    def place(row: Row) -> tuple:
        kind = next((kind for kind in (SPOKEN, QUERIED) if row.metric in kind), ())
        return row.system, row.variant, row.dataset, row.protocol, row.split, row.seed, kind

    path, rows = Path(path), list(rows)
    places = {place(row) for row in rows}
    kept = [row for row in read_rows(path) if place(row) not in places] if path.is_file() else []
    write_rows(path, (*kept, *rows))


def write_rows(path: str | Path, rows: Iterable[Row]) -> None:
    """A file of these rows alone, whole or not at all."""
    atomic_write(Path(path), "".join(json.dumps(row.as_dict(), allow_nan=False) + "\n" for row in rows))


def latest_rows(rows: Iterable[Row]) -> list[Row]:
    """The last row of each :attr:`Row.key`: what a repeated run measured replaces what it measured before."""
    return list({row.key: row for row in rows}.values())
