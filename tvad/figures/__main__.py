"""Command line of the figures, see ``tvad.figures``."""
from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from tvad.errors import TvadError
from tvad.figures.page import FIGURES, Page
from tvad.params import project_root
from tvad.study.phase1 import read_params


def main(arguments: Sequence[str] | None = None) -> int:
    """Redraw the figures of a profile; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tvad.figures", description="Redraw the figures of a run.")
    parser.add_argument("--profile", default="tiny")
    parser.add_argument("--runs", help="folder that holds the run; default: runs/<profile>")
    parser.add_argument("--only", nargs="+", choices=sorted(FIGURES), help="these figures alone")
    given = parser.parse_args(arguments)
    folder = project_root() / (given.runs or f"runs/{given.profile}")
    try:
        page = Page(read_params(folder))
        paths = [page.write(name)[0] for name in given.only] if given.only else page.write_all()
    except TvadError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 1
    print("\n".join(str(path) for path in paths))
    return 0


if __name__ == "__main__":
    sys.exit(main())
