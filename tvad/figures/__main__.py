"""Command line of the figures: the paper's, and those of phases 1 and 2, from what a run left.

    python -m tvad.figures --profile tiny                          # what runs/tiny holds, into figures/tiny
    python -m tvad.figures --profile tiny --only trajectories      # one alone
    python -m tvad.figures --profile tiny --runs runs/study/<configuration>/<arm>       # of one arm of the study
"""
from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import fields
from pathlib import Path

import yaml

from tvad.errors import DatasetError, MissingPhaseError, ParameterError, TvadError
from tvad.figures import gallery
from tvad.figures.gallery import Gallery, Made, portable
from tvad.figures.page import FIGURES, Page
from tvad.figures.talks import FIGURES as TALKS
from tvad.figures.talks import TalkPage
from tvad.params import Parameters, Phase2, Phase4, project_root
from tvad.study.phase1 import read_params

_TALK = "talk_"


def main(arguments: Sequence[str] | None = None) -> int:
    """Redraw the figures of a profile; returns 0, or 1 where none could be made."""
    names = [*FIGURES, *(f"{_TALK}{name}" for name in TALKS), *gallery.FIGURES]
    parser = argparse.ArgumentParser(prog="python -m tvad.figures", description="Redraw the figures of a run.")
    parser.add_argument("--profile", default="tiny")
    parser.add_argument("--runs", default="", help="folder that holds the run; default: runs/<profile>")
    parser.add_argument("--only", nargs="+", choices=sorted(names), metavar="FIGURE",
                        help=f"these figures alone, of {', '.join(names)}")
    given = parser.parse_args(arguments)
    try:
        made = draw(given.profile, runs=given.runs, only=given.only)
    except TvadError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 1
    for one in made:
        if one.files:
            print(one.files[0])
    print("\n".join(lacking(made)), end="\n" if lacking(made) else "", file=sys.stderr)
    return 0 if any(one.files for one in made) else 1


def draw(profile: str, *, runs: str = "", only: Sequence[str] | None = None) -> list[Made]:
    """Redraw all figures of a profile, or ``only`` some; what is missing is a reason, not an error.

    Raises :class:`ParameterError` for an unknown profile and what a damaged file or a full disk raises.
    """
    folder = project_root() / (runs or f"runs/{profile}")
    params = of_profile(Phase4, profile, source=runs)
    paper, made = Gallery(params), []
    for prefix, table, page in (("", FIGURES, lambda: Page(read_params(folder))),
                                (_TALK, TALKS, lambda: TalkPage(of_profile(Phase2, profile, output_dir=runs)))):
        names = [name for name in table if only is None or f"{prefix}{name}" in only]
        made += _drawn(prefix, names, page, tables=only is None)
    if only is None:
        return [*made, *paper.write_all()]
    return [*made, *(paper.write(name) for name in gallery.FIGURES if name in only)]


def _drawn(prefix: str, names: Sequence[str], make: Callable, *, tables: bool) -> list[Made]:
    """The figures of one of the older pages."""
    if not names:
        return []
    made, page = [], None
    for name in names:
        try:
            page = page or make()
            picture, caption = page.write(name)
            made.append(Made(f"{prefix}{name}", (picture, picture.with_suffix(".pdf")), caption))
        except (MissingPhaseError, DatasetError) as error:
            made.append(Made(f"{prefix}{name}", reason=portable(error)))
    if tables and hasattr(page, "show_table") and all(one.files for one in made):
        page.show_table()
    return made


def lacking(made: Sequence[Made]) -> list[str]:
    """One line for each reason why figures were not made, with all that it concerns."""
    reasons: dict[str, list[str]] = {}
    for one in made:
        if not one.files:
            reasons.setdefault(one.reason, []).append(one.name)
    return [f"not made: {', '.join(names)}: {reason}" for reason, names in reasons.items()]


def of_profile(kind: type[Parameters], profile: str, **more: str) -> Parameters:
    """The parameters of one notebook from a profile's file, which may hold those of the others too.

    Raises :class:`ParameterError` for a profile that is not there.
    """
    path: Path = project_root() / "notebooks" / "profiles" / f"{profile}.yaml"
    if not path.is_file():
        known = ", ".join(sorted(other.stem for other in path.parent.glob("*.yaml"))) or "none"
        raise ParameterError(f"{portable(path)}: no such profile; profiles here: {known}")
    content = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    names = {item.name for item in fields(kind)}
    return kind(**{name: value for name, value in content.items() if name in names}, **more)


if __name__ == "__main__":
    sys.exit(main())
