"""The steps of an adaptation, from footage to a detector on disk.

    output_dir/  ahd.safetensors  levels.safetensors  bank.safetensors  detector.json  fusion.json
                 composites.png  report.json  report.txt  checkpoints/  complete.json (last)
"""
from __future__ import annotations

import copy
import hashlib
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tvad.adaptation.detector import AdaptedDetector
from tvad.adaptation.evidence import Calibration, Fusion, Levels, fuse
from tvad.adaptation.oneclass import NormalBank
from tvad.adaptation.views import reduced
from tvad.datasets import open_dataset
from tvad.detection import top_mean
from tvad.errors import DatasetError, ParameterError
from tvad.metrics.frame import micro_auc
from tvad.params import project_root
from tvad.record import atomic_write, complete, reopen, write_json
from tvad.scenes.composite.compose import Compositor
from tvad.scenes.composite.sheet import examples, save_sheet, sheet
from tvad.scenes.composite.survey import survey
from tvad.training.adapt.config import AdaptConfig
from tvad.training.adapt.loop import HeldOut, Source, by_kind, fine_tune, odds_of, quality, run_key
from tvad.training.adapt.pairs import composite_videos, normal_videos, pair_starts, split
from tvad.training.adapt.report import as_text
from tvad.training.cache import PairSet, cache_pairs
from tvad.training.targets import choose_pairs
from tvad.video.frames import Frames

_FILES = ("ahd.safetensors", "levels.safetensors", "detector.json", "fusion.json", "composites.png", "report.json",
          "report.txt")
_STEP_SECONDS = 0.1   # between the frames of a pair in the simulated footage that the tower was trained on
_ALARM = 0.999   # share of held-out normal patches below the middle of the scale
_REHEARSED = 0.7  # share of rehearsed pairs seen through another camera, as phase 1 does


@dataclass(frozen=True)
class AdaptResult:
    """``detector``: ready to use, also on disk in ``folder``; ``report``: what was found and measured; ``seconds``;
    ``choices``: the same weights with each choice of evidence that validation compared."""
    detector: AdaptedDetector
    folder: Path
    report: dict[str, Any]
    seconds: float
    choices: Mapping[str, AdaptedDetector] = field(default_factory=dict)


@dataclass
class _Pairs:
    """Cached pairs of one gap."""
    composites: PairSet
    normal: PairSet
    held_out: HeldOut
    val_videos: Sequence[Any]


def footage_of(source: Any) -> list[Frames]:
    """Frames of what the user gave: a path of a video or folder, one or several of ``Frames`` or ``Video``.

    Raises :class:`DatasetError` where there is no video or where their frames differ in size (one camera has one),
    :class:`tvad.errors.VideoError` for a damaged one.
    """
    if isinstance(source, (str, Path)):
        source = open_dataset("custom", root=source).videos("all")
    if isinstance(source, Frames) or hasattr(source, "frames"):
        source = [source]
    found = [getattr(one, "frames", one) for one in source]
    if not found:
        raise DatasetError("adapt: no footage; give a video, a folder of videos, or frames")
    for one in found:
        if tuple(one.size) != tuple(found[0].size):
            raise DatasetError(f"adapt: {one.name} has frames of {tuple(one.size)}, {found[0].name} of "
                               f"{tuple(found[0].size)}; one camera has one size, adapt to each camera on its own")
    return found


def folder_of(source: Any) -> Path:
    """Where an adaptation goes by default: ``runs/adapted/<name of the footage>``.

    Raises :class:`ParameterError` for frames, which have no name of their own.
    """
    if not isinstance(source, (str, Path)):
        raise ParameterError("adapt: footage that is no path names no folder; give output_dir")
    return project_root() / "runs" / "adapted" / (Path(source).resolve().name or "camera")


def adapt(model: Any, source: Any, *, output_dir: Path | str, config: AdaptConfig | None = None,
          rehearsal: Sequence[Any] = (), cache_dir: Path | str = "data/cache", stop_after: int | None = None,
          progress: bool = True) -> AdaptResult:
    """Adapt a T-VAD model (``backbone``, ``decoder``, ``prototypes``, ``scoring``) to the camera of ``source``.

    ``source``: normal footage, see :func:`footage_of`. ``rehearsal``: videos with masks from which the decoder was trained
    (SimCampus' training split), so that it forgets nothing; without them the other shares grow. A run that was broken off
    goes on. Raises :class:`DatasetError` for too little footage or several frame sizes, :class:`StorageError` when the
    disk refuses.
    """
    began, config, folder = time.monotonic(), config or AdaptConfig(), Path(output_dir)
    reopen(folder)
    run = _Run(model, footage_of(source), config, rehearsal, Path(cache_dir), progress)
    config = run.config
    pairs = {gap: run.pairs_of(gap) for gap in config.gaps}
    decoder, state, key = run.train(pairs, folder, stop_after)
    decoder.load_state_dict(state.best_weights)
    decoder.eval()
    main = pairs[config.gaps[0]]
    bank = _bank(main.normal, np.arange(len(main.normal)), config.seed) if config.oneclass else None
    detector, options, detectors = run.assemble(decoder, bank, pairs, key)
    detector.save(folder)
    made = examples(run.compositor, [part.footage for part in run.train_parts], seed=config.seed + 7, gap=config.gaps[0])
    save_sheet(folder / "composites.png", sheet(made))
    seconds = time.monotonic() - began
    names = {side: sorted({part.frames.name for part in parts})
             for side, parts in (("training", run.train_parts), ("held_out", run.val_parts))}
    counted = {f"{name}@{gap}": getattr(each, name).summary() for gap, each in pairs.items()
               for name in ("composites", "normal")}
    report = {"site": run.site.summary(), "videos": names, "config": asdict(config), "pairs": counted,
              "before": state.history[0], "best": state.best, "history": state.history, "options": options,
              "seconds": {**run.seconds, "all": round(seconds, 1)}, "key": key}
    write_json(folder / "report.json", report)
    atomic_write(folder / "report.txt", as_text(report), text=True)
    complete(folder, [*_FILES, *(["bank.safetensors"] if bank is not None else [])])
    return AdaptResult(detector, folder, report, seconds, detectors)


class _Run:
    """An adaptation under way."""

    def __init__(self, model: Any, footage: Sequence[Frames], config: AdaptConfig, rehearsal: Sequence[Any], cache: Path,
                 progress: bool) -> None:
        self.model, self.config, self.rehearsal, self.cache, self.progress = model, config, rehearsal, cache, progress
        self.seconds: dict[str, float] = {}
        began = time.monotonic()
        frames = [reduced(one, model.backbone) for one in footage]
        self.train_parts, self.val_parts = split(frames, config.held_out, gap=max(config.gaps, default=1))
        # Backgrounds of held-out clips are needed to paste into them; scale and looks come from training footage alone.
        self.site = survey([part.footage for part in self.train_parts], seed=config.seed)
        self.compositor = Compositor(self.site, mixture=config.mixture())
        gaps = config.gaps or (automatic_gap(self.site.fps, self.site.pace),)
        self.config = replace(config, gaps=gaps, fusion=replace(config.fusion, gaps=config.fusion.gaps or gaps))
        self.reach = max(gaps)
        self.seconds["survey"] = round(time.monotonic() - began, 1)

    def pairs_of(self, gap: int) -> _Pairs:
        """Composites and real normal pairs of one gap, training and held out, their features cached."""
        config, began = self.config, time.monotonic()
        share = len(config.gaps)
        train = {"gap": gap, "reach": self.reach, "seed": 2 * config.seed}
        composites = composite_videos(self.compositor, self.train_parts, max(2, config.composites // share), **train)
        normal = normal_videos(self.train_parts, max(2, config.normal // share), **train)
        val = {"gap": gap, "reach": self.reach}
        val_composites = composite_videos(self.compositor, self.val_parts, config.val_composites, seed=7919, **val)
        val_normal = normal_videos(self.val_parts, config.val_normal, seed=None, **val)
        sets = [self._cached(videos, refilmed) for videos, refilmed in (
            (composites, config.refilmed), (normal, config.refilmed), (val_composites, 0.0), (val_normal, 0.0))]
        self.seconds[f"features@{gap}"] = round(time.monotonic() - began, 1)
        return _Pairs(sets[0], sets[1], HeldOut(sets[2], sets[3]), val_composites)

    def _cached(self, videos: Sequence[Any], refilmed: float) -> PairSet:
        return cache_pairs(self.model.backbone, videos, starts=pair_starts(videos), root=self.cache, refilmed=refilmed,
                           progress=self.progress)

    def _rehearsed(self) -> list[Source]:
        """The pairs from which the decoder was trained, a few of every video; none where none are given."""
        config = self.config
        if not self.rehearsal or not config.rehearsal or not config.shares[2]:
            return []
        began = time.monotonic()
        each = max(1, min(8, config.rehearsal // len(self.rehearsal)))
        count = max(1, config.rehearsal // each)
        places = np.unique(np.linspace(0, len(self.rehearsal) - 1, min(count, len(self.rehearsal))).round().astype(int))
        videos = [self.rehearsal[place] for place in places]
        starts = {video.id: choose_pairs(video, each, seed=config.seed) for video in videos}
        pairs = cache_pairs(self.model.backbone, videos, starts=starts, root=self.cache, refilmed=_REHEARSED,
                            progress=self.progress)
        self.seconds["rehearsal"] = round(time.monotonic() - began, 1)
        return [Source("rehearsal", pairs, config.shares[2])]

    def train(self, pairs: dict[int, _Pairs], folder: Path, stop_after: int | None):
        """The decoder in its last state, the run's state with the best weights, and the run's key."""
        config, share = self.config, len(pairs)
        decoder = copy.deepcopy(self.model.decoder)
        before = hashlib.sha256(self.model.backbone.fingerprint.encode())
        for name, value in sorted(decoder.state_dict().items()):
            before.update(name.encode() + value.cpu().float().numpy().tobytes())
        sources = [Source(f"composites@{gap}", each.composites, config.shares[0] / share) for gap, each in pairs.items()]
        if config.shares[1]:
            sources += [Source(f"normal@{gap}", each.normal, config.shares[1] / share) for gap, each in pairs.items()]
        sources += self._rehearsed()
        began = time.monotonic()
        held_out, text = pairs[config.gaps[0]].held_out, self.model.prototypes.float()
        device = getattr(self.model.backbone, "device", "cpu")
        state = fine_tune(decoder, sources, held_out, config=config, prototypes=text, folder=folder,
                          identity=before.hexdigest(), device=device, stop_after=stop_after, progress=self.progress)
        self.seconds["training"] = round(time.monotonic() - began, 1)
        return decoder, state, run_key(sources, held_out, config, text, before.hexdigest())

    def evidence(self, decoder: Any, bank: NormalBank | None, pairs: dict[int, PairSet]) -> dict[str, np.ndarray]:
        """All evidence on sets of pairs by gap, as :func:`tvad.adaptation.evidence.fuse` takes it."""
        found = {}
        device = getattr(self.model.backbone, "device", "cpu")
        for gap, each in pairs.items():
            found[f"heat@{gap}"] = odds_of(decoder, each, self.model.prototypes.float(), device)
            if bank is not None:
                found[f"oneclass@{gap}"] = _distances(bank, each, np.arange(len(each)))
        return found

    def usual(self, decoder: Any, bank: NormalBank | None, pairs: dict[int, _Pairs]) -> dict[str, np.ndarray]:
        """All evidence on the normal pairs of training, from which levels are taken.

        Patches that a bank holds are at no distance from it, so each half is scored by a bank of the other half.
        """
        found = self.evidence(decoder, None, {gap: each.normal for gap, each in pairs.items()})
        if bank is None:
            return found
        main = pairs[self.config.gaps[0]].normal
        halves = np.array_split(np.arange(len(main)), 2)
        others = [_bank(main, rows, self.config.seed) if len(rows) else bank for rows in reversed(halves)]
        for gap, each in pairs.items():
            parts = zip(others, np.array_split(np.arange(len(each.normal)), 2))
            found[f"oneclass@{gap}"] = np.concatenate([_distances(other, each.normal, rows) for other, rows in parts
                                                       if len(rows)])
        return found

    def assemble(self, decoder: Any, bank: NormalBank | None, pairs: dict[int, _Pairs], key: str):
        """The detector, and the validation figures of every choice of evidence."""
        config, began = self.config, time.monotonic()
        usual = self.usual(decoder, bank, pairs)
        levels = {name: Levels.fit(values) for name, values in usual.items()}
        first = pairs[config.gaps[0]].held_out
        seen = [self.evidence(decoder, bank, {gap: getattr(each.held_out, name) for gap, each in pairs.items()})
                for name in ("composites", "normal")]
        val = {name: np.concatenate([seen[0][name], seen[1][name]]) for name in seen[0]}
        kinds = [kinds for video in pairs[config.gaps[0]].val_videos for kinds in video.text["kinds"]]
        kinds += [()] * len(first.normal)
        scoring = replace(self.model.scoring, chosen_on=self.model.scoring.chosen_on or "given")
        whole = AdaptedDetector(self.model.backbone, decoder, self.model.prototypes.float(),
                                _calibrated(levels, seen[1], config.fusion), config.fusion, bank, scoring, key=key)
        options, detectors, targets = {}, {}, first.targets()
        for title, fusion in choices(config, bank is not None).items():
            detectors[title] = replace(whole, fusion=fusion, calibration=_calibrated(levels, seen[1], fusion))
            maps = fuse(val, detectors[title].calibration, fusion)
            scores = top_mean(maps, scoring.top_fraction)
            options[title] = {**quality(maps, targets, first.labels, top_fraction=scoring.top_fraction),
                              **clip_spread(scores, first), "by_kind": by_kind(scores, first.labels, kinds)}
        self.seconds["assembly"] = round(time.monotonic() - began, 1)
        return whole, options, detectors


def automatic_gap(fps: float, pace: float) -> int:
    """Frames between the two of a pair at which people move as far as in the footage that the tower was trained on."""
    return max(1, round(_STEP_SECONDS * fps / pace))


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


def _calibrated(levels: dict[str, Levels], normal: dict[str, np.ndarray], fusion: Fusion) -> Calibration:
    """The scale on which held-out normal footage, which no decoder was trained on, gives its share of alarms."""
    fused = fuse(normal, Calibration(levels), fusion)
    zero, half = float(np.quantile(fused, _ALARM)), float(np.median(fused))
    return Calibration(levels, zero, max(0.5 * (zero - half), 1e-3))


def _bank(pairs: PairSet, rows: np.ndarray, seed: int) -> NormalBank:
    return NormalBank.fit(lambda: _batches(pairs, rows), seed=seed)


def _distances(bank: NormalBank, pairs: PairSet, rows: np.ndarray) -> np.ndarray:
    return np.concatenate([bank.score(taps).numpy() for taps in _batches(pairs, rows)])


def _batches(pairs: PairSet, rows: np.ndarray) -> Iterator[list[torch.Tensor]]:
    for first in range(0, len(rows), 32):
        yield pairs.read(rows[first:first + 32])
