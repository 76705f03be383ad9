"""From trained weights to a detector: levels of the camera's normal footage, a scale, and what validation says of each
choice of evidence."""
from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
import torch

from tvad.adaptation.detector import AdaptedDetector
from tvad.adaptation.evidence import Calibration, Fusion, Levels, blurred, fuse, squash
from tvad.adaptation.oneclass import NormalBank
from tvad.detection import Scoring, top_mean
from tvad.metrics.frame import micro_auc
from tvad.training.adapt.clips import Watched, choose
from tvad.training.adapt.config import AdaptConfig
from tvad.training.adapt.loop import HeldOut, by_kind, odds_of, quality
from tvad.training.cache import PairSet

_ALARM = 0.999   # share of held-out normal patches below the middle of the scale
_FRAME = 0.99    # share of held-out normal pairs below the level of an alarm


@dataclass
class CameraPairs:
    """Cached pairs of one gap: ``composites`` and real ``normal`` ones of training footage, ``held_out`` ones, and the
    virtual videos of the held-out composites."""
    composites: PairSet
    normal: PairSet
    held_out: HeldOut
    val_videos: Sequence[Any]


@dataclass(frozen=True)
class Assembly:
    """``detector``: as configured; ``options``: validation figures of every choice of evidence; ``choices``: the same
    weights with each of them; ``plain``: the detector before :func:`settled`, ``clips`` what was found for it."""
    detector: AdaptedDetector
    options: Mapping[str, Mapping[str, Any]]
    choices: Mapping[str, AdaptedDetector]
    plain: AdaptedDetector | None = None
    clips: Mapping[str, Any] = field(default_factory=dict)


def assemble(backbone: Any, decoder: Any, prototypes: Any, pairs: Mapping[int, CameraPairs], *, config: AdaptConfig,
             scoring: Scoring, key: str) -> Assembly:
    """The detector of a backbone and a decoder that were adapted to the camera of ``pairs`` (by gap)."""
    text, device = prototypes.float(), getattr(backbone, "device", "cpu")
    main = pairs[config.gaps[0]]
    bank = _bank(main.normal, np.arange(len(main.normal)), config.seed) if config.oneclass else None
    usual = _usual(decoder, text, device, bank, pairs, config)
    levels = {name: Levels.fit(values) for name, values in usual.items()}
    first = main.held_out
    seen = [_evidence(decoder, text, device, bank, {gap: getattr(each.held_out, name) for gap, each in pairs.items()})
            for name in ("composites", "normal")]
    val = {name: np.concatenate([seen[0][name], seen[1][name]]) for name in seen[0]}
    kinds = [kinds for video in main.val_videos for kinds in video.text["kinds"]] + [()] * len(first.normal)
    scoring = replace(scoring, chosen_on=scoring.chosen_on or "given")
    whole = AdaptedDetector(backbone, decoder, text, _calibrated(levels, seen[1], config.fusion, scoring), config.fusion,
                            bank, scoring, key=key)
    options, detectors, targets = {}, {}, first.targets()
    for title, fusion in choices(config, bank is not None).items():
        detectors[title] = replace(whole, fusion=fusion, calibration=_calibrated(levels, seen[1], fusion, scoring))
        maps = fuse(val, detectors[title].calibration, fusion)
        scores = top_mean(maps, scoring.top_fraction)
        options[title] = {**quality(maps, targets, first.labels, top_fraction=scoring.top_fraction),
                          **clip_spread(scores, first), "by_kind": by_kind(scores, first.labels, kinds)}
    return Assembly(whole, options, detectors)


def judged(made: Assembly, clips: Sequence[Watched], *, fps: float, tempo: float) -> dict[str, Any]:
    """What whole clips say of smoothing and of the scale, as plain numbers for :func:`settled`; {} where nothing."""
    chosen = choose(clips, made.detector, fps=fps, tempo=tempo)
    if chosen is None:
        return {}
    found, bare = {**asdict(chosen), "steady": {}}, [clip for clip in clips if not clip.kind]
    for title, detector in {"": made.detector, **made.choices}.items():
        fused = [fuse(clip.parts, detector.calibration, detector.fusion) for clip in bare]
        found["steady"][title] = _steady(detector.calibration, fused, chosen.blur)
    return found


def settled(made: Assembly, found: Mapping[str, Any]) -> Assembly:
    """The detectors with what :func:`judged` found.

    Scores, which are those of maps that are not smoothed, keep their scale.
    """
    if not found:
        return replace(made, plain=made.detector)

    def with_it(title: str, detector: AdaptedDetector) -> AdaptedDetector:
        told = f"{detector.scoring.chosen_on};smoothing on clips of held-out footage with pasted events"
        return replace(detector, fusion=replace(detector.fusion, blur=tuple(found["blur"])),
                       calibration=replace(detector.calibration, steady=tuple(found["steady"][title])),
                       scoring=replace(detector.scoring, sigma=found["sigma"], chosen_on=told))

    return replace(made, detector=with_it("", made.detector), plain=made.detector, clips=dict(found),
                   choices={title: with_it(title, one) for title, one in made.choices.items()})


def _steady(scale: Calibration, bare: Sequence[np.ndarray], blur: tuple[float, float]) -> tuple[float, float]:
    """``zero`` and ``unit`` of smoothed heatmaps: the pairs' own, narrowed as smoothing narrows clips with nothing pasted.

    Held-out pairs are spread over all footage and the clips are not, so levels stay the pairs'.
    """
    (hot, half), (steady_hot, steady_half) = (np.quantile(np.concatenate(maps), (_ALARM, 0.5))
                                              for maps in (bare, [blurred(maps, blur) for maps in bare]))
    middle = scale.zero - 2 * scale.unit + (steady_half - half)      # of the pairs, as ``_calibrated`` has it
    unit = max(scale.unit * (steady_hot - steady_half) / max(hot - half, 1e-6), 1e-3)
    return float(middle + 2 * unit), float(unit)


def _evidence(decoder: Any, text: Any, device: Any, bank: NormalBank | None,
              pairs: Mapping[int, PairSet]) -> dict[str, np.ndarray]:
    """All evidence on sets of pairs by gap, as :func:`tvad.adaptation.evidence.fuse` takes it."""
    found = {}
    for gap, each in pairs.items():
        found[f"heat@{gap}"] = odds_of(decoder, each, text, device)
        if bank is not None:
            found[f"oneclass@{gap}"] = _distances(bank, each, np.arange(len(each)))
    return found


def _usual(decoder: Any, text: Any, device: Any, bank: NormalBank | None, pairs: Mapping[int, CameraPairs],
           config: AdaptConfig) -> dict[str, np.ndarray]:
    """All evidence on the normal pairs of training, from which levels are taken.

    Patches that a bank holds are at no distance from it, so each half is scored by a bank of the other half.
    """
    found = _evidence(decoder, text, device, None, {gap: each.normal for gap, each in pairs.items()})
    if bank is None:
        return found
    main = pairs[config.gaps[0]].normal
    halves = np.array_split(np.arange(len(main)), 2)
    others = [_bank(main, rows, config.seed) if len(rows) else bank for rows in reversed(halves)]
    for gap, each in pairs.items():
        parts = zip(others, np.array_split(np.arange(len(each.normal)), 2))
        found[f"oneclass@{gap}"] = np.concatenate([_distances(other, each.normal, rows) for other, rows in parts
                                                   if len(rows)])
    return found


def choices(config: AdaptConfig, bank: bool) -> dict[str, Fusion]:
    """The combinations of evidence that validation compares."""
    one = config.gaps[:1]
    found = {"heat": Fusion("none", 0.0, one), "heat by place": Fusion("place", 0.0, one)}
    if bank:
        found |= {f"heat by place + oneclass {weight:g}": Fusion("place", weight, one) for weight in (0.25, 0.5, 1.0)}
        found["oneclass alone"] = Fusion("place", 1.0, one, heat=0.0)
    if len(config.gaps) > 1:
        found["heat by place, all gaps"] = Fusion("place", 0.0, config.gaps)
        if bank:
            found["heat by place + oneclass 0.5, all gaps"] = Fusion("place", 0.5, config.gaps)
    return found


def clip_spread(scores: np.ndarray, held_out: HeldOut) -> dict[str, float]:
    """How comparable clips are: spread of the clips' mean normal scores, in spreads of normal scores within a clip; micro
    AUC against the tenth of the real normal pairs that look worst; and of composites of ordinary people against real
    normal pairs (``paste_auc``: 0.5 where being pasted is no cue)."""
    normal, videos = scores[len(held_out.composites):], held_out.normal.videos
    clips = [normal[videos == video] for video in np.unique(videos)]
    within = float(np.mean([clip.std() for clip in clips])) + 1e-9
    composites, shown = scores[:len(held_out.composites)], held_out.events == 1
    events, pasted = composites[shown], composites[~shown]
    worst = np.sort(normal)[-max(1, len(normal) // 10):]
    return {"clip_spread": float(np.std([clip.mean() for clip in clips]) / within), "hard_auc": _auc(events, worst),
            "paste_auc": _auc(pasted, normal)}


def _auc(above: np.ndarray, below: np.ndarray) -> float:
    labels = np.concatenate([np.ones(len(above), np.uint8), np.zeros(len(below), np.uint8)])
    return float(micro_auc([np.concatenate([above, below])], [labels]))


def _calibrated(levels: dict[str, Levels], normal: dict[str, np.ndarray], fusion: Fusion,
                scoring: Scoring) -> Calibration:
    """The scale on which held-out normal footage, which no decoder was trained on, has its share of hot patches, and the
    score, made as the detector makes it, that its share of pairs passes."""
    fused = fuse(normal, Calibration(levels), fusion)
    zero, half = float(np.quantile(fused, _ALARM)), float(np.median(fused))
    scale = Calibration(levels, zero, max(0.5 * (zero - half), 1e-3))
    scores = squash(top_mean(fused, scoring.top_fraction), scale)
    return replace(scale, frame=float(np.quantile(scores, _FRAME)))


def _bank(pairs: PairSet, rows: np.ndarray, seed: int) -> NormalBank:
    return NormalBank.fit(lambda: _batches(pairs, rows), seed=seed)


def _distances(bank: NormalBank, pairs: PairSet, rows: np.ndarray) -> np.ndarray:
    return np.concatenate([bank.score(taps).numpy() for taps in _batches(pairs, rows)])


def _batches(pairs: PairSet, rows: np.ndarray) -> Iterator[list[torch.Tensor]]:
    for first in range(0, len(rows), 32):
        yield pairs.read(rows[first:first + 32])
