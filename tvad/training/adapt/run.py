"""The steps of an adaptation, from footage to a detector on disk.

    output_dir/  ahd.safetensors  levels.safetensors  bank.safetensors  detector.json  fusion.json
                 tower.safetensors  frozen/ (the detector before its tower was adapted; both where it was)
                 zoom.json  clips.json  composites.png  report.json  report.txt  checkpoints/  complete.json (last)
"""
from __future__ import annotations

import copy
import hashlib
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from tvad.adaptation.detector import AdaptedDetector
from tvad.adaptation.evidence import Fusion
from tvad.adaptation.tower import attach, check_adaptable
from tvad.adaptation.views import reduced
from tvad.datasets import open_dataset
from tvad.errors import DatasetError, ParameterError
from tvad.heatmap import AnomalyHeatmapDecoder
from tvad.params import project_root
from tvad.record import atomic_write, complete, remembered, reopen, write_json
from tvad.scenes.composite.compose import Compositor
from tvad.scenes.composite.sheet import examples, save_sheet, sheet
from tvad.scenes.composite.survey import survey
from tvad.training.adapt.assembly import Assembly, CameraPairs, assemble, judged, settled
from tvad.training.adapt.clips import RULES, watch
from tvad.training.adapt.config import AdaptConfig
from tvad.training.adapt.disk import check_room, features_bytes, pair_bytes, scratch
from tvad.training.adapt.loop import HeldOut, Source, blended, fine_tune, hash_of, run_key
from tvad.training.adapt.pairs import composite_videos, normal_videos, pair_starts, source_hash, split
from tvad.training.adapt.report import as_text
from tvad.training.adapt.tempo import automatic_gap, scoring_of, tempo
from tvad.training.adapt.tower import Pictures, photograph, train_tower
from tvad.training.adapt.zoom import choose_zoom
from tvad.training.cache import PairSet, cache_pairs
from tvad.training.checkpoint import RunState
from tvad.training.targets import choose_pairs
from tvad.video.frames import Frames

FROZEN = "frozen"
_FILES = ("ahd.safetensors", "levels.safetensors", "detector.json", "fusion.json", "composites.png", "report.json",
          "report.txt")
_REHEARSED = 0.7  # share of rehearsed pairs seen through another camera, as phase 1 does


@dataclass(frozen=True)
class AdaptResult:
    """``detector``: ready to use, also on disk in ``folder``; ``report``: what was found and measured; ``seconds``;
    ``choices``: the same weights with each choice of evidence that validation compared; ``plain``: with nothing that whole
    clips said; ``frozen``: what there was before the tower was adapted, where it was."""
    detector: AdaptedDetector
    folder: Path
    report: dict[str, Any]
    seconds: float
    choices: Mapping[str, AdaptedDetector] = field(default_factory=dict)
    plain: AdaptedDetector | None = None
    frozen: Assembly | None = None


@dataclass(frozen=True)
class _Trained:
    """Decoder with its best weights, the state of its run, the run's key, and the detector that keeps some old weights."""
    decoder: AnomalyHeatmapDecoder
    state: RunState
    key: str
    made: Assembly


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
    goes on. Raises :class:`DatasetError` for too little footage or several frame sizes,
    :class:`tvad.errors.BackboneError` for a tower that cannot be adapted, :class:`StorageError` when the disk refuses.
    """
    began, config, folder = time.monotonic(), config or AdaptConfig(), Path(output_dir)
    wants, footage = bool(config.tower_rank), footage_of(source)
    if wants:       # said before the survey, not after it
        check_adaptable(model.backbone, rank=config.tower_rank, first=config.tower_first)
    reopen(folder)
    run = _Run(model, footage, config, rehearsal, Path(cache_dir), folder, progress)
    run.check_room()
    config = run.config
    if wants:
        run.twin = attach(run.backbone, rank=config.tower_rank, first=config.tower_first, seed=config.seed)
    pairs = {gap: run.pairs_of(gap) for gap in config.gaps}
    if not wants and any((folder / FROZEN / name).exists() for name in ("fusion.json", "checkpoints")):
        shutil.rmtree(folder / FROZEN)      # of an earlier adaptation that had its tower adapted
    first = done = run.trained(model.decoder, pairs, folder / FROZEN if wants else folder, config, stop_after)
    facts: dict[str, Any] = {"before": first.state.history[0], "history": first.state.history, "best": first.state.best}
    counted = {f"{name}@{gap}": getattr(each, name).summary() for gap, each in pairs.items()
               for name in ("composites", "normal")}
    if wants:
        decoder = copy.deepcopy(first.decoder)
        losses = run.adapt_tower(decoder, first.key, folder)
        # Features of one adapted tower serve this run alone.
        with scratch(run.cache, "features-") as room:
            run.features = Path(room)
            pairs = {gap: run.pairs_of(gap) for gap in config.gaps}
            after = replace(config, steps=config.tower_after, learning_rate=config.learning_rate / 2, kept=0.0)
            done = run.trained(decoder, pairs, folder, after, stop_after)
        facts["tower"] = {"losses": losses, "frozen": {"best": first.state.best, "options": first.made.options}}
        # Steps of the decoder go on counting; those of the tower lie between the two runs.
        later = [{**record, "step": record["step"] + config.steps} for record in (done.state.best, *done.state.history)]
        facts |= {"best": later[0], "history": [*first.state.history, *later[1:]]}
    made = examples(run.compositor, [part.footage for part in run.train_parts], seed=config.seed + 7, gap=config.gaps[0])
    save_sheet(folder / "composites.png", sheet(made))
    seconds = time.monotonic() - began
    report = {**run.facts(), **facts, "pairs": counted, "options": done.made.options,
              "clips": {name: value for name, value in done.made.clips.items() if name != "steady"},
               "seconds": {**run.seconds, "all": round(seconds, 1)}, "key": done.made.detector.key}
    write_json(folder / "report.json", report)
    atomic_write(folder / "report.txt", as_text(report), text=True)
    complete(folder, [*_FILES, *(["bank.safetensors"] if config.oneclass else []),
                      *(["tower.safetensors"] if wants else [])])
    return AdaptResult(done.made.detector, folder, report, seconds, done.made.choices, done.made.plain,
                       first.made if wants else None)


class _Run:
    """An adaptation under way."""

    def __init__(self, model: Any, footage: Sequence[Frames], config: AdaptConfig, rehearsal: Sequence[Any], cache: Path,
                 folder: Path, progress: bool) -> None:
        self.model, self.config, self.rehearsal, self.progress = model, config, rehearsal, progress
        self.backbone, self.twin, self.cache, self.features = model.backbone, None, cache, cache
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
        self._took("survey", began)
        began, zooms = time.monotonic(), config.zooms if getattr(model.backbone, "enlarged", None) else (1.0,)
        choose = partial(choose_zoom, model.backbone, model.decoder, model.prototypes.float(), self.compositor,
                         self.train_parts, zooms=zooms, gap=gaps[0])
        found = remembered(folder / "zoom.json", self._zoom_key(zooms), lambda: dict(zip(("zoom", "tried"), choose())))
        zoom, self.tried = found["zoom"], found["tried"]
        if zoom != 1:
            self.backbone = model.backbone.enlarged(zoom)
        self.enlarged, self.config = self.backbone, replace(self.config, zooms=(zoom,))
        self._took("zoom", began)

    def _zoom_key(self, zooms: Sequence[float]) -> str:
        """Hash of what decides which magnification is chosen."""
        model, parts = self.model, [(part.frames.fingerprint, part.start, part.stop) for part in self.train_parts]
        facts = [model.backbone.fingerprint, str(getattr(model.backbone, "dtype", "")), source_hash(),
                 self.site.fingerprint, self.compositor.mixture, parts, sorted(zooms), self.config.gaps[0]]
        return hash_of(model.decoder, repr(facts) + repr(model.prototypes.float().cpu().numpy().tobytes()))

    def check_room(self) -> None:
        """Raise :class:`tvad.errors.StorageError` where features that are still to be made do not fit the cache's disk."""
        given = [(self.backbone, videos, pair_starts(videos), refilmed) for gap in self.config.gaps
                 for videos, refilmed in self._sets_of(gap)]
        if (chosen := self.rehearsed()) is not None:
            given.append((self.model.backbone, *chosen, _REHEARSED))
        needed = sum(features_bytes(backbone, videos, starts=starts, root=self.features, refilmed=refilmed)
                     for backbone, videos, starts, refilmed in given)
        counts = [sum(len(starts[video.id]) for video in videos) for _, videos, starts, _ in given]
        if self.config.tower_rank:      # an adapted tower sees every pair anew, beside the features that there are
            needed += sum(count * pair_bytes(self.backbone, tuple(videos[0].frames.size))
                          for count, (_, videos, _, _) in zip(counts, given))
        check_room(self.features, needed, pairs=sum(counts))

    def facts(self) -> dict[str, Any]:
        """Site, videos and settings, for the report."""
        names = {side: sorted({part.frames.name for part in parts})
                 for side, parts in (("training", self.train_parts), ("held_out", self.val_parts))}
        return {"site": self.site.summary(), "videos": names, "config": asdict(self.config), "zooms": dict(self.tried)}

    def videos_of(self, gap: int) -> tuple[list[Any], list[Any]]:
        """Training composites and real normal pairs of one gap, as virtual videos."""
        config, share = self.config, len(self.config.gaps)
        train = {"gap": gap, "reach": self.reach, "seed": 2 * config.seed}
        return (composite_videos(self.compositor, self.train_parts, max(2, config.composites // share), **train),
                normal_videos(self.train_parts, max(2, config.normal // share), **train))

    def _sets_of(self, gap: int) -> list[tuple[list[Any], float]]:
        """Composites and real normal pairs of one gap, training and held out, each with its share of refilmed pairs."""
        config = self.config
        composites, normal = self.videos_of(gap)
        val = {"gap": gap, "reach": self.reach}
        val_composites = composite_videos(self.compositor, self.val_parts, config.val_composites, seed=7919, **val)
        val_normal = normal_videos(self.val_parts, config.val_normal, seed=None, **val)
        return [(composites, config.refilmed), (normal, config.refilmed), (val_composites, 0.0), (val_normal, 0.0)]

    def pairs_of(self, gap: int) -> CameraPairs:
        """The pairs of one gap, their features cached."""
        began, given = time.monotonic(), self._sets_of(gap)
        sets = [self._cached(videos, refilmed) for videos, refilmed in given]
        self._took(f"features@{gap}", began)
        return CameraPairs(sets[0], sets[1], HeldOut(sets[2], sets[3]), given[2][0])

    def _cached(self, videos: Sequence[Any], refilmed: float) -> PairSet:
        return cache_pairs(self.backbone, videos, starts=pair_starts(videos), root=self.features, refilmed=refilmed,
                           progress=self.progress)

    def rehearsed(self) -> tuple[list[Any], dict[str, list[int]]] | None:
        """Videos from which the decoder was trained and a few pairs of each; None where none are given."""
        config = self.config
        if not self.rehearsal or not config.rehearsal or not config.shares[2]:
            return None
        each = max(1, min(8, config.rehearsal // len(self.rehearsal)))
        count = max(1, config.rehearsal // each)
        places = np.unique(np.linspace(0, len(self.rehearsal) - 1, min(count, len(self.rehearsal))).round().astype(int))
        videos = [self.rehearsal[place] for place in places]
        return videos, {video.id: choose_pairs(video, each, seed=config.seed) for video in videos}

    def _rehearsal_source(self) -> list[Source]:
        began, chosen = time.monotonic(), self.rehearsed()
        if chosen is None:
            return []
        # Simulated pairs are seen as the decoder first saw them; a tower that was adapted sees all alike.
        seeing = self.backbone if self.backbone is not self.enlarged else self.model.backbone
        pairs = cache_pairs(seeing, chosen[0], starts=chosen[1], root=self.features, refilmed=_REHEARSED,
                            progress=self.progress)
        self._took("rehearsal", began)
        return [Source("rehearsal", pairs, self.config.shares[2])]

    def trained(self, decoder: AnomalyHeatmapDecoder, pairs: dict[int, CameraPairs], folder: Path, config: AdaptConfig,
                stop_after: int | None) -> _Trained:
        """A decoder fine-tuned from ``decoder`` on what ``backbone`` sees; its detector is in ``folder``."""
        share, old, decoder = len(pairs), decoder, copy.deepcopy(decoder)
        scoring = scoring_of(self.model.scoring, self.site, config, pairs[config.gaps[0]].composites.grid)
        # Which weights are the best depends on how pairs are scored.
        before = hash_of(decoder, f"{self.backbone.fingerprint} {scoring.top_fraction}")
        sources = [Source(f"composites@{gap}", each.composites, config.shares[0] / share) for gap, each in pairs.items()]
        if config.shares[1]:
            sources += [Source(f"normal@{gap}", each.normal, config.shares[1] / share) for gap, each in pairs.items()]
        sources += self._rehearsal_source()
        began = time.monotonic()
        held_out, text = pairs[config.gaps[0]].held_out, self.model.prototypes.float()
        device = getattr(self.backbone, "device", "cpu")
        state = fine_tune(decoder, sources, held_out, config=config, prototypes=text, folder=folder,
                          identity=before, top_fraction=scoring.top_fraction, device=device,
                          stop_after=stop_after, progress=self.progress)
        self._took("training", began)
        began = time.monotonic()
        key = mixed_key = run_key(sources, held_out, config, text, before)
        decoder.load_state_dict(state.best_weights)
        mixed = decoder
        if config.kept:
            mixed = blended(decoder, old, config.kept)
            mixed_key = hashlib.sha256(f"{key} {config.kept}".encode()).hexdigest()[:16]
        made = assemble(self.backbone, mixed.eval(), text, pairs, config=config, scoring=scoring, key=mixed_key)
        self._took("assembly", began)
        made = self._settled(made, folder)
        made.detector.save(folder)
        return _Trained(decoder, state, key, made)

    def _settled(self, made: Assembly, folder: Path) -> Assembly:
        """The detectors with the smoothing that whole held-out clips ask for."""
        began, config, site, first = time.monotonic(), self.config, self.site, made.detector
        # All evidence that any choice of it asks for.
        seer = replace(first, fusion=Fusion("place", float(first.bank is not None), config.gaps))

        def found() -> dict[str, Any]:
            clips = watch(seer, self.compositor, parts=self.val_parts, count=config.clips, progress=self.progress)
            return judged(made, clips, fps=site.fps, tempo=tempo(site.fps, site.pace))

        facts = f"{first.fingerprint} {sorted(made.choices)} {config.clips} {RULES}"
        key = hashlib.sha256(facts.encode()).hexdigest()
        made = settled(made, remembered(folder / "clips.json", key, found) if config.clips else {})
        self._took("clips", began)
        return made

    def adapt_tower(self, decoder: AnomalyHeatmapDecoder, key: str, folder: Path) -> list[dict[str, float]]:
        """Train the tower's adapter together with ``decoder`` (in place); from here on ``backbone`` sees with it."""
        config, share = self.config, len(self.config.gaps)
        with scratch(self.cache, "pictures-") as room:
            make = partial(photograph, backbone=self.backbone, config=config, folder=Path(room), progress=self.progress)

            def pictures() -> list[Pictures]:
                began, made = time.monotonic(), []
                for gap in config.gaps:
                    composites, normal = self.videos_of(gap)
                    made.append(make(f"composites@{gap}", composites, pair_starts(composites), config.shares[0] / share))
                    if config.shares[1]:
                        made.append(make(f"normal@{gap}", normal, pair_starts(normal), config.shares[1] / share))
                if (chosen := self.rehearsed()) is not None:
                    made.append(make("rehearsal", *chosen, config.shares[2], refilmed=_REHEARSED))
                self._took("pictures", began)
                return made

            began = time.monotonic()
            losses = train_tower(self.twin, decoder, pictures, config=config, prototypes=self.model.prototypes.float(),
                                 folder=folder, identity=key, progress=self.progress)
        self.backbone = self.twin.merged()
        self._took("pictures and tower", began)
        return losses

    def _took(self, name: str, began: float) -> None:
        self.seconds[name] = round(self.seconds.get(name, 0.0) + time.monotonic() - began, 1)
