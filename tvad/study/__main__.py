"""Command line of the study, see ``tvad.study``."""
from __future__ import annotations

import argparse
import ast
import logging
import sys
from collections.abc import Sequence
from typing import Any

import tvad.study
from tvad.errors import ParameterError, StorageError, TvadError
from tvad.params import project_root
from tvad.record import latest_rows, read_rows
from tvad.study.ablation import Ablation
from tvad.study.camera import CameraStudy
from tvad.study.curve import LearningCurve
from tvad.study.queries import QueryStudy
from tvad.study.run import VARIANTS, Study
from tvad.study.tables import compare_table, study_tables
from tvad.training.variants import VARIANTS as SPEAKERS

# The variants that a phase lets one choose.
KNOWN = {"1": VARIANTS, "2": tuple(SPEAKERS), "queries": (), "camera": (), "curve": ()}


def settings(assignments: Sequence[str]) -> dict[str, Any]:
    """Values by name from NAME=VALUE: Python literals, anything else is text. Raises :class:`ParameterError`."""
    found = {}
    for assignment in assignments:
        name, sign, value = assignment.partition("=")
        if not sign or not name:
            raise ParameterError(f"--set {assignment}: not NAME=VALUE, as in learning_rate=2e-3")
        try:
            found[name] = ast.literal_eval(value)
        except (ValueError, SyntaxError):
            found[name] = value
    return found


def phases_of(profile: str) -> tuple[str, ...]:
    """What there is to study of a profile: simulated scenes are spoken of and queried, a real camera is adapted to."""
    return ("1", "2", "queries") if Study(profile).params.dataset == "simcampus" else ("1", "camera")


def _study(phase: str, given: argparse.Namespace) -> Any:
    if phase == "2":
        return Ablation(given.profile, seeds=given.seeds, variants=given.variants or KNOWN["2"],
                        changes=settings(given.changes))
    if phase == "1":
        return Study(given.profile, seeds=given.seeds, variants=given.variants or VARIANTS)
    return {"queries": QueryStudy, "camera": CameraStudy, "curve": LearningCurve}[phase](given.profile, seeds=given.seeds)


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tvad.study", description=tvad.study.__doc__.splitlines()[0])
    parser.add_argument("command", choices=("run", "compare", "tables"))
    parser.add_argument("--profile", default="tiny")
    parser.add_argument("--seeds", type=int, nargs="+", default=(0, 1, 2))
    parser.add_argument("--phase", choices=(*KNOWN, "all"), default="1", help="1: heatmaps, 2: answers, queries: heatmaps "
                        "of what is named, camera: adaptation to real footage, curve: learning curve of phase 2, all: what "
                        "the profile has but the curve (default: 1)")
    parser.add_argument("--variants", nargs="+", help="of phase 1 or 2; default: all")
    parser.add_argument("--set", nargs="+", metavar="NAME=VALUE", default=(), dest="changes",
                        help="phase 2: try other settings on validation alone, rows under runs/study/phase2")
    given = parser.parse_args(arguments)
    known = KNOWN.get(given.phase, ())
    if unknown := [name for name in given.variants or () if name not in known]:
        parser.error(f"variant {unknown[0]!r} is not of phase {given.phase}; " + (f"choose from {', '.join(known)}" if known
                     else "it has none to choose"))
    if given.changes and (given.command, given.phase) != ("run", "2"):
        parser.error("--set is for run --phase 2")
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    figures = project_root() / "figures" / given.profile / "study.jsonl"
    try:
        if given.command == "run":
            for phase in (given.phase,) if given.phase != "all" else phases_of(given.profile):
                _study(phase, given).run()
        elif given.command == "compare":
            results = project_root() / "runs" / given.profile / "results.jsonl"
            measured = latest_rows(read_rows(results))
            print(compare_table(measured, latest_rows(read_rows(figures)) if figures.is_file() else []))
            if not figures.is_file():
                print(f"{figures}: no study to compare with; make one: make study PROFILE={given.profile}")
        elif not figures.is_file():
            raise StorageError(f"{figures}: no study of this profile; run: make study PROFILE={given.profile}")
        else:
            print(study_tables(latest_rows(read_rows(figures))))
    except TvadError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
