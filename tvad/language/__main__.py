"""Make a dialogue set: ``python -m tvad.language --dataset simcampus --splits train val test --output runs/dialogue``."""
from __future__ import annotations

import argparse
import sys

from tvad.datasets import open_dataset
from tvad.errors import ParameterError, TvadError
from tvad.language.corpus import Settings, build, check_limit
from tvad.language.run import appearance_source


def main(arguments: list[str] | None = None) -> int:
    """Build the set that the arguments ask for; 2 where that is impossible, with the reason on stderr."""
    given = _parser().parse_args(arguments)
    try:
        # What cannot be is refused before anything is opened, loaded or rendered.
        settings, limit = Settings(length=given.length, stride=given.stride, seed=given.seed), check_limit(given.limit)
        if given.workers < 1:
            raise ParameterError(f"workers: {given.workers} processes cannot be; allowed: 1 or more")
        choice = {"protocol": given.protocol} if given.protocol else {}
        dataset = open_dataset(given.dataset, root=given.root, **choice)
        splits = given.splits or list(dataset.splits())
        if given.dataset == "simcampus" and not limit:
            dataset.prepare(splits, workers=given.workers)
        manifest = build(dataset, splits, appearance_source(given.appearance, given.dataset), given.output,
                         settings=settings, limit=limit)
    except TvadError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 2
    for split, counts in manifest["splits"].items():
        print(f"{split}: {counts['conversations']} conversations about {counts['clips']} clips of {counts['videos']} "
              f"videos, {counts['anomalous_clips']} clips anomalous; dropped {counts['dropped']['clips']} clips "
              f"{counts['dropped']['reasons'] or ''}".rstrip())
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tvad.language", description="Make the dialogue set of a data set.")
    parser.add_argument("--dataset", default="simcampus", help="simcampus, ucsd_ped2, ... (default: simcampus)")
    parser.add_argument("--protocol", help="of the data set, where it has several")
    parser.add_argument("--root", help="folder of the data sets; default: TVAD_DATA, else data/")
    parser.add_argument("--splits", nargs="+", help="default: all")
    parser.add_argument("--output", default="runs/dialogue", help="folder of the set (default: runs/dialogue)")
    parser.add_argument("--appearance", default="auto", help="script, open, or a model by folder or hub name")
    parser.add_argument("--length", type=int, default=16, help="frames of a clip (default: 16)")
    parser.add_argument("--stride", type=int, default=14, help="frames from clip to clip (default: 14)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--limit", type=int, default=0, help="first so many videos of each split; 0: all")
    parser.add_argument("--workers", type=int, default=2, help="processes that render SimCampus (default: 2)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
