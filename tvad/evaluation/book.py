"""What the notebook of phase 3 shows: tables from rows, and breakdowns of this run's stored detections and answers.

Nothing is trained and no model is loaded.  What is missing is said with the command that makes it, and the rest is
shown.  Tables go to ``tables`` beside the run's figures.
"""
from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

from tvad.detection import Detection, Scoring
from tvad.errors import MissingPhaseError, TvadError
from tvad.evaluation.details import answer_measures, detail_measures, diagram
from tvad.evaluation.measures import Measure, put_measures
from tvad.evaluation.places import Place
from tvad.evaluation.results import Results
from tvad.evaluation.rows import Cell
from tvad.evaluation.scoring import load_detections
from tvad.evaluation.sheet import Figure, Sheet
from tvad.evaluation.tables import TABLES
from tvad.params import Phase3, project_root
from tvad.params.phase2 import not_run_for
from tvad.record import provenance, write_json
from tvad.study.answers import read_answers


class Book:
    """The evaluation of a run, read when needed; every method returns a :class:`Sheet`, which a notebook displays."""

    def __init__(self, params: Phase3) -> None:
        self.params, self.root = params, project_root()
        self.place = Place(params.dataset, params.split)
        self.folder = params.output / "phase3"

    @property
    def target(self) -> Path:
        """Where tables go: beside the run's figures."""
        return self.params.target / "tables"

    @cached_property
    def results(self) -> Results:
        """Committed rows and measures, and what this machine made since."""
        return Results.gather(self.root, run=self.params.output, more=[self.root / "runs" / "evaluation"])

    def sources(self) -> Sheet:
        """What there is to make tables of, and how to make what is missing."""
        rows, measures = len(self.results.rows), len(self.results.measures)
        lines = [("rows of studies and other systems", f"{rows:,}", "make study"),
                 ("measures", f"{measures:,}", "python -m tvad.evaluation score, compare, cost, leak"),
                 ("rows of this run", f"{len(self.results.run):,}", f"make reproduce PROFILE={self.params.profile}")]
        for what, read in (("detections of this run", lambda: len(self.detections)),
                           ("answers of this run", lambda: len(self.answers))):
            try:
                lines.append((what, f"{read():,}", f"make reproduce PROFILE={self.params.profile}"))
            except TvadError as error:
                lines.append((what, "missing", str(error)))
        return Sheet("sources", "What the tables are made of", ("source", "there is", "made by"), tuple(lines))

    def table(self, name: str) -> Sheet:
        """One table of ``TABLES``, written as CSV, Markdown and LaTeX. Raises KeyError for an unknown name."""
        return self._kept(TABLES[name](self.results))

    def write_all(self) -> list[Path]:
        """Every table."""
        return [path for name in TABLES for path in self.table(name).write(self.target)]

    # This run's own detections and answers.

    @cached_property
    def videos(self) -> tuple[Any, ...]:
        """The videos of the split that have a detection in this run: all of them, fewer in a smoke run."""
        videos = self.place.videos(root=self.params.data_root, render=False)
        known = self._phase1("params.json").get("max_videos") or None
        return tuple(videos[:known])

    @cached_property
    def detections(self) -> dict[str, Detection]:
        """Detections of phase 1 by video id. Raises :class:`MissingPhaseError`."""
        return load_detections(self.params.output / "phase1" / "detections" / self.params.split, self.videos)

    @cached_property
    def answers(self) -> Sequence[Any]:
        """Answers of the variant of phase 2 to this split. Raises :class:`MissingPhaseError`."""
        name = f"answers-{self.params.variant}-{self.params.split}.jsonl"
        found = sorted((self.params.output / "phase2").rglob(name))
        if not found:
            why = not_run_for(self.params.dataset) or (
                f"phase 2 has not been run here, run: make reproduce PROFILE={self.params.profile}")
            raise MissingPhaseError(f"{self.params.output / 'phase2'}: no {name}; {why}")
        return read_answers(found[0])

    @cached_property
    def measures(self) -> list[Measure]:
        """By scene and of alarms, from this run's detections; kept in the run's folder."""
        made = detail_measures(self.detections, self.videos, self._cell())
        put_measures(self.folder / "measures.jsonl", made)
        return made

    def breakdown(self, name: str) -> Sheet:
        """``scenes`` or ``alarms`` of this run alone; what is missing is said in the sheet."""
        try:
            own = Results(measures=tuple(self.measures))
        except TvadError as error:
            return Sheet(name, TABLES[name](Results()).title, ("",), (), missing=str(error))
        return self._kept(TABLES[name](own), suffix="_run")

    def reliability(self, *, bins: int = 10) -> Sheet:
        """The reliability diagram of this run's yes/no answers as a table: one line a bin."""
        head = ("probability of yes", "answers", "mean probability", "share of yes")
        title = "Reliability of the yes/no probability, this run"
        try:
            found = diagram(self.answers, bins=bins)
            made = answer_measures(self.answers, replace(self._cell(), variant=self.params.variant))
        except TvadError as error:
            return Sheet("reliability", title, head, (), missing=str(error))
        put_measures(self.folder / "measures.jsonl", made)
        lines = [(f"{found.edges[place]:.1f} to {found.edges[place + 1]:.1f}", str(number),
                  *((Figure(value) if number else "–") for value in (found.probability[place], found.share[place])))
                 for place, number in enumerate(found.count.tolist())]
        note = f"ECE {found.ece:.3f}, Brier score {found.brier:.3f}, {found.n} answers, {found.base:.3f} of them yes."
        return self._kept(Sheet("reliability", title, head, tuple(lines), (note,)))

    def finish(self) -> dict[str, Any]:
        """Write all tables and where they come from; returns the record."""
        paths = self.write_all()
        record = provenance(config=self.params.config_hash(), rows=len(self.results.rows),
                            measures=len(self.results.measures), tables=[path.name for path in paths])
        write_json(self.folder / "provenance.json", record)
        return {"tables": len(paths) // 3, "folder": os.path.relpath(self.target, self.root), "rows": record["rows"]}

    def _cell(self) -> Cell:
        scoring = Scoring.load(self.params.output / "phase1" / "detector.json")
        return Cell(variant="full", dataset=self.place.dataset, split=self.place.split, protocol=self.place.protocol,
                    seed=self.params.seed, config=self.params.config_hash(), sigma=scoring.sigma,
                    samples=self.params.bootstrap_samples, choice=scoring.choice_on(str(self.place)))

    def _phase1(self, name: str) -> dict[str, Any]:
        path = self.params.output / "phase1" / name
        if not path.is_file():
            raise MissingPhaseError(f"{path}: phase 1 has not been run here; run: make reproduce "
                                    f"PROFILE={self.params.profile}")
        return json.loads(path.read_text(encoding="utf-8"))

    def _kept(self, sheet: Sheet, *, suffix: str = "") -> Sheet:
        if suffix:
            sheet = replace(sheet, name=sheet.name + suffix, title=f"{sheet.title} (this run)")
        sheet.write(self.target)
        return sheet
