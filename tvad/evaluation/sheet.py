"""A table and its three forms: CSV for machines, Markdown for pages, LaTeX (booktabs) for papers.

Cells are text or :class:`Figure`; a figure is rounded in Markdown and LaTeX, and whole in CSV, with its spread and its
interval in columns of their own.  LaTeX needs the packages booktabs and graphicx.
"""
from __future__ import annotations

import csv
import io
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev

from tvad.record import atomic_write

NOT_RUN, NONE = "not run", "–"
_ESCAPES = {"\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
            "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "±": r"$\pm$", "–": "--", "×": r"$\times$",
            "≤": r"$\leq$", "≥": r"$\geq$", "<": r"$<$", ">": r"$>$", "|": r"$|$", "−": r"$-$", "…": r"\ldots{}"}


# Letters of a line in heads and cells, and a box that shrinks what is wider than the text, and nothing else.
_HEAD, _CELL = 16, 34
_ROOM = r"\rule{0pt}{2.6ex}"      # above the first of several lines
_FIT = r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%"


@dataclass(frozen=True)
class Figure:
    """A number as a cell: ``spread`` over seeds, interval ends, decimals, and whether the sign is wanted."""

    value: float
    spread: float | None = None
    low: float | None = None
    high: float | None = None
    digits: int = 3
    signed: bool = False

    @classmethod
    def over(cls, values: Sequence[float], *, ends: Sequence[tuple[float, float]] = (), digits: int = 3) -> Figure:
        """Mean and sample standard deviation over seeds (no spread of one seed), and the means of the intervals' ends."""
        low, high = (mean(end[side] for end in ends) for side in (0, 1)) if ends else (None, None)
        return cls(mean(values), stdev(values) if len(values) > 1 else None, low, high, digits)

    def text(self, *, interval: bool = False) -> str:
        """Rounded: value, spread, and the interval in brackets where it is wanted."""
        sign = "+" if self.signed else ","
        said = f"{self.value:{sign}.{self.digits}f}"
        if self.spread is not None:
            said += f" ± {self.spread:.{self.digits}f}"
        if interval and self.low is not None:
            said += f" [{self.low:{sign}.{self.digits}f}, {self.high:{sign}.{self.digits}f}]"
        return said


Entry = str | Figure


@dataclass(frozen=True)
class Sheet:
    """A table: ``name`` of its files, ``title``, head, lines, notes below; ``rules``: lines that begin a new block.

    ``intervals``: whether Markdown and LaTeX show them (CSV always does). ``missing``: how to make what is not there.
    """

    name: str
    title: str
    head: tuple[str, ...]
    lines: tuple[tuple[Entry, ...], ...]
    notes: tuple[str, ...] = ()
    rules: tuple[int, ...] = ()
    intervals: bool = False
    missing: str = ""

    def __post_init__(self) -> None:
        for number, line in enumerate(self.lines):
            if len(line) != len(self.head):
                raise ValueError(f"table {self.name}, line {number}: {len(line)} cells under {len(self.head)} heads")

    def _said(self, cell: Entry) -> str:
        return cell.text(interval=self.intervals) if isinstance(cell, Figure) else cell

    def markdown(self) -> str:
        """Title, table and notes; bars in cells are escaped."""
        lines = [[self._said(cell).replace("|", "\\|") for cell in line] for line in self.lines]
        align = ["---"] + ["---:" if self._numeric(column) else "---" for column in range(1, len(self.head))]
        table = ["| " + " | ".join(line) + " |" for line in (self.head, align, *lines)] if self.lines else []
        parts = [f"**{self.title}**", "\n".join(table), " ".join(self.notes), f"*{self.missing}*" if self.missing else ""]
        return "\n\n".join(part for part in parts if part) + "\n"

    def latex(self) -> str:
        """A ``table`` with booktabs rules; the notes follow the title in the caption."""
        sides = ["r" if self._numeric(column) and column else "l" for column in range(len(self.head))]
        body = []
        for number, line in enumerate(self.lines):
            if number in self.rules and number:
                body.append(r"\midrule")
            body.append(" & ".join(self._latex_cell(cell, side) for cell, side in zip(line, sides)) + r" \\")
        size = [r"\footnotesize\setlength{\tabcolsep}{3pt}"] if len(self.head) > 6 else []
        caption = " ".join(latex_text(part) for part in (f"{self.title}.", *self.notes, self.missing) if part)
        opening = [r"\begin{table}[t]", r"\centering", rf"\caption{{{caption}}}",
                   rf"\label{{tab:{self.name.replace('_', '-')}}}", r"\vspace{1ex}", *size, _FIT,
                   rf"\begin{{tabular}}{{{''.join(sides)}}}"]
        heads = (_stacked(textwrap.wrap(text, _HEAD, break_on_hyphens=False), side) for text, side in zip(self.head, sides))
        head = [r"\toprule", " & ".join(heads) + r" \\", r"\midrule"]
        return "\n".join([*opening, *head, *body, r"\bottomrule", r"\end{tabular}}", r"\end{table}", ""])

    def _latex_cell(self, cell: Entry, side: str) -> str:
        if isinstance(cell, Figure):        # the interval stands below its value: beside it pages are too narrow
            value, interval = cell.text(), cell.text(interval=self.intervals)
            return _stacked([value, interval.removeprefix(value).strip()], side)
        return _stacked(textwrap.wrap(cell, _CELL, break_on_hyphens=False), side)

    def csv(self) -> str:
        """Whole numbers; a column with a spread or interval anywhere gets columns for them."""
        extras = {column: [name for name in ("spread", "low", "high") if any(
            isinstance(line[column], Figure) and getattr(line[column], name) is not None for line in self.lines)]
            for column in range(len(self.head))}
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow([title for column, head in enumerate(self.head)
                         for title in (head, *(f"{head}, {name}" for name in extras[column]))])
        for line in self.lines:
            written = []
            for column, cell in enumerate(line):
                whole = isinstance(cell, Figure)
                written.append(f"{cell.value:.10g}" if whole else cell)
                values = [getattr(cell, name) if whole else None for name in extras[column]]
                written += ["" if value is None else f"{value:.10g}" for value in values]
            writer.writerow(written)
        return out.getvalue()

    def write(self, folder: Path | str) -> list[Path]:
        """``<name>.csv``, ``.md`` and ``.tex`` in a folder, each whole. Raises StorageError when the disk refuses."""
        paths = []
        for ending, text in (("csv", self.csv()), ("md", self.markdown()), ("tex", self.latex())):
            paths.append(Path(folder) / f"{self.name}.{ending}")
            atomic_write(paths[-1], text)
        return paths

    def _numeric(self, column: int) -> bool:
        return any(isinstance(line[column], Figure) for line in self.lines)

    def _repr_markdown_(self) -> str:
        return self.markdown()

    def __repr__(self) -> str:
        return self.markdown()


def _stacked(lines: Sequence[str], side: str) -> str:
    """Lines of a cell one above the other; one alone as it is."""
    said = [latex_text(line) for line in lines if line]
    # The braces keep a bracket from being read as an option of the line break.
    return rf"\shortstack[{side}]{{{_ROOM}" + r"\\{}".join(said) + "}" if len(said) > 1 else "".join(said)


def latex_text(text: str) -> str:
    """Text with everything escaped that LaTeX would read as a command."""
    return "".join(_ESCAPES.get(letter, letter) for letter in text)
