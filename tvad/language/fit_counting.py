"""The weights of ``tvad.language.counting``, fitted on simulated masks whose script says how many people a blob holds.

``python -m tvad.language.fit_counting`` prints them as a JSON line, with what a fit on the other scenes gets right.
"""
from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, UInt8
from tqdm.auto import tqdm

from tvad.datasets.base import open_dataset
from tvad.language.corpus import Settings
from tvad.language.counting import LEAST, SEVERAL, SPOT, THREE, traits, turning, weighted
from tvad.language.target import Target
from tvad.language.tracks import targets_of_binary
from tvad.language.views import views_of
from tvad.video.clip import windows


@dataclass(frozen=True)
class Sample:
    """One target on a spot: its traits and how many people it holds in truth; ``weight`` in the fit."""

    scene: str
    traits: Mapping[str, float]
    people: int
    whole: bool


def samples_of(instances: UInt8[np.ndarray, "n h w"], targets: Iterable[tuple[Target, np.ndarray]], *, scene: str,
               whole: bool) -> list[Sample]:
    """Samples of linked targets with their label maps; a person counts where the target holds 0.4 of all pixels that are
    seen of him, and these are 0.1 of the target's."""
    seen, found = np.bincount(instances.ravel(), minlength=256), []
    for target, labels in targets:
        views = views_of(target, labels)
        if len(views) < LEAST:
            continue
        inside: Counter[int] = Counter()
        for view in views:
            high, wide = view.pixels.shape
            ids = instances[view.frame, view.y:view.y + high, view.x:view.x + wide][view.pixels]
            inside.update(dict(enumerate(np.bincount(ids).tolist())))
        total = sum(inside.values())
        people = sum(many >= 0.4 * seen[who] and many >= 0.1 * total for who, many in inside.items() if many)
        known = traits(views) | {"turn": turning(views)}
        if people and known["travel"] < SPOT:
            found.append(Sample(scene, known, people, whole))
    return found


def fit(samples: Sequence[Sample], names: Sequence[str], *, least: int, penalty: float = 0.1) -> dict[str, float]:
    """Weights of ``names`` and "one" for "at least ``least`` people": logistic regression by Newton steps.

    Traits are brought to unit spread first, and their weights (not that of "one") shrunk by ``penalty`` times half their
    square.  A window counts half a whole video.
    """
    x = np.array([[sample.traits[name] for name in names] for sample in samples])
    mean, spread = x.mean(axis=0), x.std(axis=0)
    x = np.column_stack(((x - mean) / spread, np.ones(len(x))))
    y = np.array([sample.people >= least for sample in samples], float)
    weight = np.array([1.0 if sample.whole else 0.5 for sample in samples])
    shrink = np.diag([penalty] * len(names) + [0.0])
    found: Float[np.ndarray, "k"] = np.zeros(x.shape[1])
    for _ in range(25):
        p = 1 / (1 + np.exp(-x @ found))
        slope = x.T @ (weight * (p - y)) + shrink @ found
        found -= np.linalg.solve((x.T * (weight * p * (1 - p))) @ x + shrink, slope)
    raw = found[:-1] / spread
    return {**dict(zip(names, raw.tolist())), "one": float(found[-1] - raw @ mean)}


def main(arguments: Sequence[str] | None = None) -> None:
    """Fit the weights anew, count hits on scenes left out, and print both as a JSON line."""
    parser = argparse.ArgumentParser(prog="python -m tvad.language.fit_counting", description=__doc__.splitlines()[0])
    parser.add_argument("--splits", nargs="+", default=["train", "val"], help="of SimCampus")
    parser.add_argument("--videos", type=int, default=None, help="only the first so many with targets of each split")
    given, dataset, samples = parser.parse_args(arguments), open_dataset("simcampus"), []
    for split in given.splits:
        videos = [video for video in dataset.videos(split) if not video.id.endswith("_normal")][:given.videos]
        for video in tqdm(videos, desc=f"samples of {split}", unit="video", mininterval=2):
            masks, parts = video.masks(0, len(video)), [(0, len(video))]
            parts += windows(len(video), length=Settings().length, stride=Settings().length // 2)
            for number, (start, stop) in enumerate(parts):
                part = masks[start:stop]
                targets, labels = targets_of_binary(part > 0)
                samples += samples_of(part, [(target, labels) for target in targets], scene=video.scene or video.id,
                                      whole=not number)
    rows = {}
    for name, old, least in (("several", SEVERAL, 2), ("three", THREE, 3)):
        known, names = [one for one in samples if one.people >= least - 1], [trait for trait in old if trait != "one"]
        rows[name] = {"weights": {trait: round(weight, 2) for trait, weight in fit(known, names, least=least).items()},
                      "samples": len(known), **left_out(known, names, least=least)}
    print(json.dumps({"fit": "tvad.language.fit_counting", **rows}))


def left_out(samples: Sequence[Sample], names: Sequence[str], *, least: int) -> dict[str, dict[str, int]]:
    """Samples with at least ``least`` people, those of them that weights from the other scenes find, and false ones."""
    counts = {"whole": Counter(), "windows": Counter()}
    for scene in sorted({sample.scene for sample in samples}):
        weights = fit([sample for sample in samples if sample.scene != scene], names, least=least)
        for sample in (one for one in samples if one.scene == scene):
            found, true = weighted(weights, sample.traits) > 0, sample.people >= least
            counts["whole" if sample.whole else "windows"].update(true=int(true), found=int(found and true),
                                                                  false=int(found and not true))
    return {kind: dict(count) for kind, count in counts.items()}


if __name__ == "__main__":
    main()
