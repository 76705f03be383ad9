"""A judge of an adaptation's settings that needs no label of a real camera: a simulated scene plays the user's camera.

    python -m tvad.training.adapt.trial --scenes 0 1 --set tower_rank=16 steps=500

Most normal videos of a validation scene, which no decoder was trained on, are adapted to as a user's footage would be; the
scene's other videos, whose events are known, say how good the detector became, where composites on held-out footage
flatter.  The same maps are scored in several ways (``SCORES``), on whole videos and on pieces that are normal or
anomalous throughout: a score that compares a clip with itself shines on the former and fails on the latter.
"""
from __future__ import annotations

import argparse
import ast
import json
import logging
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float32, UInt8
from scipy import ndimage
from tqdm.auto import tqdm

from tvad.adaptation.detector import AdaptedDetector
from tvad.adaptation.evidence import Calibration, Fusion, Levels
from tvad.adaptation.views import reduced
from tvad.datasets import open_dataset
from tvad.detection import top_mean
from tvad.detector import TVAD
from tvad.errors import DatasetError, ParameterError, TvadError
from tvad.metrics.frame import micro_auc
from tvad.metrics.pixel import pixel_auroc
from tvad.params import project_root
from tvad.record import write_json
from tvad.training.adapt.config import AdaptConfig
from tvad.training.adapt.run import adapt
from tvad.training.targets import cover
from tvad.video.clip import Clip

Maps = Float32[np.ndarray, "n h w"]
Scores = Float[np.ndarray, "n"]
SMALL = AdaptConfig(composites=120, normal=100, val_composites=60, val_normal=60, rehearsal=0, steps=200,
                    validate_every=100, oneclass=False, clips=0, tower_steps=200, tower_after=150)
_LEARNT = 2 / 3     # share of the normal videos that are adapted to


def _less(quantile: float) -> Callable[[Maps], Scores]:
    def score(maps: Maps) -> Scores:
        found = top_mean(maps)
        return found - np.quantile(found, quantile)
    return score


def _hottest(spread: float) -> Callable[[Maps], Scores]:
    return lambda maps: ndimage.gaussian_filter(maps, (0, spread, spread)).reshape(len(maps), -1).max(1)


SCORES: Mapping[str, Callable[[Maps], Scores]] = {
    "top 1 %": top_mean,
    "top 0.25 %": lambda maps: top_mean(maps, 0.0025),
    "top 0.5 %": lambda maps: top_mean(maps, 0.005),
    "top 2 %": lambda maps: top_mean(maps, 0.02),
    "hottest spot, 0.7 patches wide": _hottest(0.7),
    "hottest spot, 1 patch wide": _hottest(1.0),
    "top 1 % over 3 pairs": lambda maps: top_mean(ndimage.gaussian_filter(maps, (1.0, 0.5, 0.5))),
    "top 1 % less the clip's 5 % quantile": _less(0.05),
    "top 1 % less the clip's 25 % quantile": _less(0.25),
}


def trial(model: Any, videos: Sequence[Any], *, output_dir: Path | str, config: AdaptConfig = SMALL,
          rehearsal: Sequence[Any] = (), cache_dir: Path | str = "data/cache", stride: int = 2,
          progress: bool = True) -> dict[str, Any]:
    """Adapt ``model`` to the normal videos of one scene and measure on its others; a pair every ``stride`` frames.

    Returns figures by detector ("simulated only", "frozen" and, where ``config`` adapts it, "tower"), each with
    ``pixel_auroc`` and, by way of scoring, micro AUC of ``whole`` videos and of ``pieces``.
    Raises :class:`DatasetError` for a scene without enough normal videos or without events.
    """
    normal = [video for video in videos if not np.any(video.labels)]
    learnt = normal[:max(1, round(_LEARNT * len(normal)))]
    judged = [video for video in videos if video not in learnt]
    if len(normal) < 2 or not any(np.any(video.labels) for video in judged):
        raise DatasetError(f"trial: {len(normal)} normal videos of {len(videos)}; a scene needs two, and one with an event")
    result = adapt(model, learnt, output_dir=output_dir, config=config, rehearsal=rehearsal, cache_dir=cache_dir,
                   progress=progress)
    detectors = {"simulated only": _plain(model, result.detector, judged[0]),
                 "frozen": result.frozen.detector if result.frozen else result.detector}
    if result.frozen is not None:
        detectors["tower"] = result.detector
    seen = {name: [maps_of(one, video, stride=stride, progress=progress) for video in judged]
            for name, one in detectors.items()}
    labels = [np.asarray(video.labels)[places_of(video, stride)] for video in judged]
    # A detector that sees enlarged pictures has more patches than the one before adaptation.
    masks = {grid: [np.stack([cover(video.masks(place, place + 1), grid) > 0 for place in places_of(video, stride)])
                    .astype(np.uint8) for video in judged] for grid in {maps[0].shape[1:] for maps in seen.values()}}
    found = {name: {"pixel_auroc": float(pixel_auroc(maps, masks[maps[0].shape[1:]])), **measured(maps, labels)}
             for name, maps in seen.items()}
    write_json(Path(output_dir) / "trial.json", found)
    return found


def measured(maps: Sequence[Maps], labels: Sequence[UInt8[np.ndarray, "n"]]) -> dict[str, dict[str, float]]:
    """Micro AUC of every way of scoring: ``whole`` videos, and ``pieces`` that are normal or anomalous throughout."""
    cut = [(part, label) for each, own in zip(maps, labels) for part, label in pieces(each, own)]
    return {"whole": {name: float(micro_auc([score(each) for each in maps], labels)) for name, score in SCORES.items()},
            "pieces": {name: float(micro_auc([score(part) for part, _ in cut], [label for _, label in cut]))
                       for name, score in SCORES.items()}}


def pieces(maps: Maps, labels: UInt8[np.ndarray, "n"]) -> list[tuple[Maps, UInt8[np.ndarray, "n"]]]:
    """A video cut wherever its label changes."""
    edges = np.flatnonzero(np.diff(labels)) + 1
    return list(zip(np.split(maps, edges), np.split(labels, edges)))


def places_of(video: Any, stride: int) -> np.ndarray:
    """First frames of the pairs that are judged."""
    return np.arange(0, len(video.frames), stride)


@torch.inference_mode()
def maps_of(detector: AdaptedDetector, video: Any, *, stride: int, progress: bool = True) -> Maps:
    """The detector's heat, not squashed, of a pair every ``stride`` frames."""
    frames = reduced(video.frames, detector.backbone)      # as in detection
    gap, count, found = detector.fusion.gaps[0], len(frames), []
    starts = np.minimum(places_of(video, stride), max(0, count - 1 - gap))
    for some in tqdm(np.array_split(starts, max(1, len(starts) // detector.batch)), desc=video.id, disable=not progress):
        unique, back = np.unique(np.stack([some, np.minimum(some + gap, count - 1)], 1), return_inverse=True)
        pairs = frames.take(unique)[back.ravel()].reshape(len(some), 2, *frames.size, 3)
        found.append(detector.parts(pairs, fps=frames.fps, gap=gap)[f"heat@{gap}"])
    return np.concatenate(found)


def _plain(model: Any, like: AdaptedDetector, video: Any) -> AdaptedDetector:
    """The model before adaptation, read as an adapted one is, on the grid that its own tower makes of ``video``."""
    pair = Clip(reduced(video.frames, model.backbone).read(0, 2), 1.0, 0, video.id)
    grid = tuple(model.backbone.see(pair).taps[0].shape[1:3])
    nothing = Levels(np.zeros(grid, np.float32), np.ones(grid, np.float32))
    gaps = like.fusion.gaps[:1]
    return AdaptedDetector(model.backbone, model.decoder, model.prototypes.float(),
                           Calibration({f"heat@{gaps[0]}": nothing}), Fusion(gaps=gaps), key="simulated-only")


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tvad.training.adapt.trial", description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--scenes", type=int, nargs="+", default=(0, 1), help="numbers of validation scenes (default: 0 1)")
    add("--ahd", type=Path, help="decoder to start from; default runs/tiny/phase1/ahd.safetensors")
    add("--set", nargs="+", metavar="NAME=VALUE", default=(), dest="changes", help="settings of AdaptConfig")
    add("--output", type=Path, help="folder of the results; default runs/adapted/trial")
    given = parser.parse_args(arguments)
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    root = project_root()
    try:
        config = replace(SMALL, **_settings(given.changes))
        campus = open_dataset("simcampus")
        videos = campus.videos("val")
        scenes = list(dict.fromkeys(video.scene for video in videos))
        model = TVAD.from_pretrained("qwen2.5-vl-tiny", given.ahd or root / "runs" / "tiny" / "phase1" / "ahd.safetensors",
                                     cache_dir=root / "data" / "cache", queries=False)
        for number in given.scenes:
            own = [video for video in videos if video.scene == scenes[number % len(scenes)]]
            folder = (given.output or root / "runs" / "adapted" / "trial") / own[0].scene
            print(json.dumps({"scene": own[0].scene, **trial(model, own, output_dir=folder, config=config,
                              rehearsal=campus.videos("train") if config.rehearsal else (),
                              cache_dir=root / "data" / "cache")}))
    except TvadError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 1
    return 0


def _settings(assignments: Sequence[str]) -> dict[str, Any]:
    """Values by name from NAME=VALUE. Raises :class:`ParameterError` for what is no setting or no value."""
    found = {}
    for assignment in assignments:
        name, _, value = assignment.partition("=")
        if name not in AdaptConfig.__dataclass_fields__:
            raise ParameterError(f"--set {assignment}: {name!r} is no setting of AdaptConfig")
        try:
            found[name] = ast.literal_eval(value)
        except (ValueError, SyntaxError) as error:
            raise ParameterError(f"--set {assignment}: {value!r} is no value ({error})") from error
    return found


if __name__ == "__main__":
    sys.exit(main())
