"""The learning curve of phase 2: what more clips, more steps or a wider model would buy.

    python -m tvad.study run --phase curve --seeds 0        # rows in figures/<profile>/curve.jsonl

One setting at a time is changed, by factors of the profile's value; the profile as it is is every axis' factor 1.  Each
point is a training of its own, answered on all clips of validation, never on test: what is read from it may be chosen by.
The clips that choose a point's checkpoint and set its balance of yes and no are among these, so its rows are in-sample.
Up to as many clips as there are videos, more clips are more videos of the same scenes; beyond, second clips of these.
``width`` is the region encoder's; the language model's own width and schooling are no axis: ``make zoo`` makes them.
"""
from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from tvad.params import Phase2, project_root
from tvad.record import latest_rows, read_rows, replace_rows, write_json, write_rows
from tvad.region import make_encoder
from tvad.study.ablation import Ablation
from tvad.study.run import Study
from tvad.training.lessons import clips_of
from tvad.training.phase2_config import Phase2Config

FILE = "curve.jsonl"
# Axis and its factors; 0: all clips that there are.
AXES: Mapping[str, tuple[float, ...]] = {"clips": (0.25, 0.5, 0), "steps": (0.25, 0.5, 2), "width": (0.25, 4),
                                         "rank": (0.25, 4)}
ALL_OF_VAL = {"val_clips": 0}      # the figures of all points are of the same clips
STEPS = ("word_steps", "blob_steps", "steps")


@dataclass(frozen=True)
class Point:
    """One training: ``factor`` of what ``axis`` names, and the ``changes`` of settings that make it."""

    axis: str = ""
    factor: float = 1.0
    changes: Mapping[str, Any] = field(default_factory=dict)

    @property
    def variant(self) -> str:
        """Its name in the rows; the profile as it is is ``full``."""
        return f"full, {self.axis} x {self.factor:g}" if self.axis else "full"


def points(params: Phase2, config: Phase2Config, *, clips: int) -> list[Point]:
    """The profile as it is, then every axis' points by turns, so that a curve that is broken off has some of each.

    clips: how many clips there are to train on; what would take more, or what the profile takes anyway, is left out.
    """
    own = [[point for factor in factors if (point := _point(axis, factor, params, config, clips)) is not None]
           for axis, factors in AXES.items()]
    return [Point(), *(made[turn] for turn in range(max(map(len, own))) for made in own if turn < len(made))]


def _point(axis: str, factor: float, params: Phase2, config: Phase2Config, clips: int) -> Point | None:
    if axis == "clips":
        used = min(params.train_clips or clips, clips)
        wanted = round(factor * used) or clips
        return Point(axis, wanted / used, {"train_clips": wanted}) if wanted != used and wanted <= clips else None
    if axis == "steps":
        return Point(axis, factor, {name: max(1, round(factor * getattr(params, name))) for name in STEPS})
    if axis == "rank":
        return Point(axis, factor, {"lora_rank": max(1, round(factor * config.lora_rank)),
                                    "lora_alpha": max(1, round(factor * config.lora_alpha))})
    if params.region != "worded":
        return None
    width = make_encoder(**config.encoder, text_width=1).hidden_width
    return Point(axis, factor, {"hidden_width": max(1, round(factor * width))})


class LearningCurve:
    """The curve of one profile; ``run`` trains the points that have no trial under ``runs/study/phase2`` yet.

    Raises :class:`tvad.errors.ParameterError` as :class:`Ablation` does.
    """

    def __init__(self, profile: str, *, seeds: Sequence[int] = (0,), root: Path | None = None,
                 ablation: Callable[..., Ablation] = Ablation) -> None:
        self.seeds, self.path = tuple(seeds), (root or project_root()) / "figures" / profile / FILE
        phase1 = Study(profile, root=root)
        self._made = partial(ablation, profile, root=root, phase1=phase1, seeds=seeds, variants=("full",))

    def run(self) -> Path:
        """Train and answer what is missing; returns the file of rows, which holds the points of this curve alone.

        Raises what training raises; the points that are done by then stay.
        """
        base = self._made(changes={**ALL_OF_VAL, "train_clips": 0})
        clips = len(set(clips_of(base.spoken("scene-disjoint").conversations["train"])))
        base = self._made(changes=ALL_OF_VAL)
        wanted, records = points(base.params, base.config("full", 0), clips=clips), {}
        names = {point.variant for point in wanted}
        for number, point in enumerate(wanted):
            print(f"learning curve, {number + 1} of {len(wanted)}: {point.variant} {dict(point.changes) or ''}", flush=True)
            trial, = self._made(changes={**ALL_OF_VAL, **point.changes}).run()
            rows = [replace(row, variant=point.variant) for row in latest_rows(read_rows(trial))
                    if row.variant == "full" and row.event is None and row.seed in self.seeds]
            replace_rows(self.path, rows)
            # Points of other settings, and other seeds, are no part of this curve.
            write_rows(self.path, [row for row in read_rows(self.path) if row.variant in names and row.seed in self.seeds])
            records[point.variant] = {"changes": dict(point.changes), "trained": _record_of(trial)}
            write_json(self.path.with_name("curve.provenance.json"),
                       {"config": base.params.config_hash(), "seeds": list(self.seeds), "points": records})
        return self.path


def _record_of(trial: Path) -> Any:
    """The provenance that a trial left beside its rows, None where it was broken off before."""
    found = sorted(trial.parent.glob("trial.*provenance.json"))
    return json.loads(found[0].read_text(encoding="utf-8")) if found else None
