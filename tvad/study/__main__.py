"""Command line of the study, see ``tvad.study``."""
from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence

import tvad.study
from tvad.errors import StorageError, TvadError
from tvad.params import project_root
from tvad.record import latest_rows, read_rows
from tvad.study.run import VARIANTS, Study
from tvad.study.tables import compare_table, study_tables


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tvad.study", description=tvad.study.__doc__.splitlines()[0])
    parser.add_argument("command", choices=("run", "compare", "tables"))
    parser.add_argument("--profile", default="tiny")
    parser.add_argument("--seeds", type=int, nargs="+", default=(0, 1, 2))
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=VARIANTS)
    given = parser.parse_args(arguments)
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    figures = project_root() / "figures" / given.profile / "study.jsonl"
    try:
        if given.command == "run":
            Study(given.profile, seeds=given.seeds, variants=given.variants).run()
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
