"""Command line of the adaptation: ``python -m tvad.training.adapt --video FOLDER``."""
from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

import tvad.training.adapt
from tvad.adaptation.evidence import Fusion
from tvad.datasets import open_dataset
from tvad.detector import TVAD
from tvad.errors import CheckpointError, TvadError
from tvad.params import project_root
from tvad.training.adapt import AdaptConfig


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tvad.training.adapt",
                                     description=tvad.training.adapt.__doc__.splitlines()[0])
    add, own = parser.add_argument, AdaptConfig()
    add("--video", required=True, help="normal footage of one camera: a video, or a folder of videos or of frames")
    add("--output", type=Path, help="folder of the result; default runs/adapted/<name of the footage>")
    add("--ahd", type=Path, help="decoder to start from; default runs/tiny/phase1/ahd.safetensors")
    add("--backbone", default="qwen2.5-vl-tiny", help="zoo name, folder or hub name")
    add("--seed", type=int, default=own.seed)
    add("--steps", type=int, default=own.steps)
    add("--composites", type=int, default=own.composites, help="frame pairs with simulated actors")
    add("--gaps", type=int, nargs="+", default=(), help="frames between the two of a pair; default: by the people's pace")
    add("--clips", type=int, default=own.clips, help="whole held-out clips on which smoothing is chosen, 0 for none "
        f"(default: {own.clips})")
    add("--oneclass", type=float, default=own.fusion.oneclass, help="weight of the one-class score, 0: off")
    add("--levels", choices=("place", "none"), default=own.fusion.levels, help="heat by place, or as the decoder gives it")
    add("--kept", type=float, default=own.kept, help="share of the decoder's old weights in the new ones "
        f"(default: {own.kept})")
    add("--tower-rank", type=int, default=own.tower_rank, help="rank of the tower's low-rank adapter, 0: the tower stays "
        f"frozen (default: {own.tower_rank})")
    add("--tower-steps", type=int, default=own.tower_steps, help="steps that train the adapter")
    add("--no-rehearsal", action="store_true", help="leave SimCampus' training pairs out")
    given = parser.parse_args(arguments)
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    root = project_root()
    try:
        gaps = tuple(given.gaps)
        config = AdaptConfig(seed=given.seed, steps=given.steps, composites=given.composites, gaps=gaps,
                             oneclass=given.oneclass > 0, kept=given.kept, tower_rank=given.tower_rank,
                             tower_steps=given.tower_steps, clips=given.clips,
                             fusion=Fusion(given.levels, given.oneclass, gaps))
        ahd = given.ahd or root / "runs" / "tiny" / "phase1" / "ahd.safetensors"
        if not ahd.is_file():
            raise CheckpointError(f"{ahd}: no decoder to start from; run: make reproduce (or give --ahd, the "
                                  "ahd.safetensors of another run)")
        open_dataset("custom", root=given.video)     # a wrong path is said before any model is loaded
        model = TVAD.from_pretrained(given.backbone, ahd, cache_dir=root / "data" / "cache")
        result = model.adapt(given.video, output_dir=given.output, config=config,
                             rehearsal=() if given.no_rehearsal else None)
    except TvadError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 1
    print((result.folder / "report.txt").read_text(encoding="utf-8"), end="")
    print(f"adapted detector: {result.folder} ({result.seconds:.0f} s); look at {result.folder / 'composites.png'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
