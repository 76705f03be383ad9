"""What a random split of clips promises: the thesis' protocol replayed on SimCampus beside a scene-disjoint one.

The thesis cut its videos into overlapping clips, shuffled them with seed 42 and took 80 % for training: 95.7 % of its
validation clips share frames with a training clip, and every scene is on both sides (specification 8, item 10).  Here
the same is done with the videos of the test split.  Two decoders are trained with one configuration, one number of frame
pairs and about one share of anomalous ones: from the training clips of these very videos, or from videos of the training
scenes; both are measured on the very same held-out clips.  The last checkpoint is taken, raw scores and fixed
thresholds, so nothing is chosen on anything.  The gap is what the leak adds.

The clips of a source video are joined for measuring, so that intervals and tests draw videos, as everywhere.
"""
from __future__ import annotations

import json
import random
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8
from tqdm.auto import tqdm

from tvad.datasets.base import Event, Video, hash_of
from tvad.detection import Detection, Scoring
from tvad.detector import TVAD, score_many
from tvad.errors import DatasetError
from tvad.evaluation.compare import differences
from tvad.evaluation.measures import Measure, of_cell, put_measures
from tvad.evaluation.places import LEAK, LEAK_PROTOCOLS
from tvad.evaluation.rows import Cell, evaluate
from tvad.evaluation.scoring import detection_key, detection_path, stored
from tvad.heatmap import AnomalyHeatmapDecoder
from tvad.metrics.region import GroundTruthTracks, Regions
from tvad.params import Phase1
from tvad.prompts import prototypes
from tvad.record import Row, complete, is_complete, replace_rows, write_json
from tvad.training.phase1 import Phase1Config, train_heatmap
from tvad.training.targets import choose_pairs, pair_labels
from tvad.video.clip import windows
from tvad.video.frames import ArrayFrames, Frames

RANDOM, DISJOINT = LEAK_PROTOCOLS
VARIANT = "leak"
_VALIDATING = 6      # videos that the trainer wants for its record; it chooses nothing by them


@dataclass(frozen=True)
class LeakSettings:
    """The replay: clips of ``frames`` every ``stride`` (half, as in the thesis), shuffle, share, pairs, training."""

    frames: int = 16
    stride: int = 8
    share: float = 0.8
    shuffle_seed: int = 42
    pairs_per_clip: int = 4
    steps: int = 600
    samples: int = 1000


@dataclass(frozen=True)
class ClipSplit:
    """Clips for training and held-out ones, and how far they overlap.

    ``touched``: share of held-out clips that share a frame with a training clip; ``covered``: all of whose frames lie in
    training clips.
    """

    train: tuple[Video, ...]
    held_out: tuple[Video, ...]
    touched: float
    covered: float


class _ClipFrames(Frames):
    """Frames ``start:stop`` of another video."""

    def __init__(self, source: Frames, start: int, stop: int) -> None:
        super().__init__(f"{source.name}#{start}-{stop - 1}", fps=source.fps, size=source.size,
                         positions=np.arange(stop - start), fingerprint=f"{source.fingerprint}#{start}:{stop}")
        self._source, self._start = source, start

    def take(self, indices: Iterable[int]) -> UInt8[np.ndarray, "n h w 3"]:
        return self._source.take([self._start + index for index in indices])

    def _decode(self, indices: Sequence[int]) -> Iterator[UInt8[np.ndarray, "h w 3"]]:
        return iter(self.take(indices))


def clip_of(video: Any, start: int, stop: int) -> Video:
    """A stretch of a video as a video: frames, labels, masks, tracks and events, counted from its own first frame."""
    tracks, masks = video.tracks, None
    if tracks is not None:
        inside = (tracks.frame >= start) & (tracks.frame < stop)
        tracks = GroundTruthTracks(track=tracks.track[inside], frame=tracks.frame[inside] - start, box=tracks.box[inside])
    if video.masks is not None:
        def masks(first: int, last: int) -> np.ndarray:
            return video.masks(start + first, start + last)
    events = tuple(Event(event.kind, max(event.start, start) - start, min(event.stop, stop) - start, event.target)
                   for event in video.events if event.start < stop and event.stop > start)
    return Video(f"{video.id}#{start}-{stop - 1}", video.dataset, _ClipFrames(video.frames, start, stop), scene=video.scene,
                 labels=np.asarray(video.labels)[start:stop], masks=masks, tracks=tracks, events=events)


def random_split(videos: Sequence[Any], settings: LeakSettings) -> ClipSplit:
    """The thesis' split of the clips of some videos. Raises :class:`DatasetError` where one side stays empty."""
    spans = [(number, *window) for number, video in enumerate(videos)
             for window in windows(len(video), length=settings.frames, stride=settings.stride)]
    random.Random(settings.shuffle_seed).shuffle(spans)
    cut = int(settings.share * len(spans))
    if not 0 < cut < len(spans):
        raise DatasetError(f"{len(spans)} clips cannot be split {settings.share:.0%} to the rest; give more videos")
    seen = [np.zeros(len(video), bool) for video in videos]
    for number, start, stop in spans[:cut]:
        seen[number][start:stop] = True
    shared = [seen[number][start:stop] for number, start, stop in spans[cut:]]
    train, held_out = (tuple(clip_of(videos[number], start, stop) for number, start, stop in sorted(part))
                       for part in (spans[:cut], spans[cut:]))
    return ClipSplit(train, held_out, float(np.mean([part.any() for part in shared])),
                     float(np.mean([part.all() for part in shared])))


def joined(clips: Sequence[Video], detections: Mapping[str, Detection]) -> tuple[Video, Detection]:
    """The clips of one source video and their detections end to end; a track of each clip stays a track of its own."""
    found = [detections[clip.id] for clip in clips]
    begins = np.cumsum([0, *(len(clip) for clip in clips)])
    regions = [one.regions for one in found]
    tracks = [clip.tracks for clip in clips]
    name = clips[0].id.split("#")[0]
    most = 1 + max((int(track.track.max(initial=0)) for track in tracks), default=0)

    def masks(start: int, stop: int) -> np.ndarray:
        return np.concatenate([clip.masks(0, len(clip)) for clip in clips])[start:stop]

    video = Video(name, clips[0].dataset, ArrayFrames(np.zeros((begins[-1], 1, 1, 3), np.uint8), clips[0].frames.fps, name),
                  scene=clips[0].scene, labels=np.concatenate([clip.labels for clip in clips]), masks=masks,
                  tracks=GroundTruthTracks(
                      track=np.concatenate([one.track + most * place for place, one in enumerate(tracks)]),
                      frame=np.concatenate([one.frame + begin for one, begin in zip(tracks, begins)]),
                      box=np.concatenate([one.box for one in tracks])))
    moved = Regions(frame=np.concatenate([one.frame + begin for one, begin in zip(regions, begins)]),
                    box=np.concatenate([one.box for one in regions]), score=np.concatenate([one.score for one in regions]),
                    track=np.concatenate([one.track for one in regions]))
    scores, heat = (np.concatenate([getattr(one, part) for one in found]) for part in ("raw_scores", "heatmap"))
    return video, Detection(name, scores, heat, moved, scores, found[0].size)


def leak_study(backbone: Any, *, source: Sequence[Any], train: Sequence[Any], val: Sequence[Any], output: Path | str,
               seeds: Sequence[int] = (0,), settings: LeakSettings | None = None, config: Phase1Config | None = None,
               cache_dir: Path | str = "data/cache", progress: bool = True) -> tuple[list[Row], list[Measure]]:
    """Train and measure both protocols with every seed; what ``output`` holds already is not done again.

    ``source``: videos that are cut into clips (test scenes). ``train``, ``val``: of the disjoint protocol. ``config``: of
    phase 1, whose steps and pairs the settings replace. ``cache_dir``: of prototypes; the features of clips, which serve
    nothing else and take gigabytes, lie in ``output`` until a protocol is trained. Rows go to ``rows.jsonl``, overlap and
    paired differences to ``measures.jsonl``. Raises what training raises.
    """
    settings, output = settings or LeakSettings(), Path(output)
    split = random_split(source, settings)
    shared = replace(config or Phase1Config.from_params(Phase1()), steps=settings.steps, validate_every=settings.steps,
                     pairs_per_video=settings.pairs_per_clip, val_pairs=4 * _VALIDATING)
    clips = matched(split.train, spread(train, len(split.train)), shared)
    sides = {RANDOM: clips, DISJOINT: spread(train, len(clips))}
    text = prototypes(backbone, cache_dir=cache_dir)
    scoring = Scoring(frames_per_clip=settings.frames, stride=settings.frames)
    key = hash_of([asdict(settings), asdict(replace(shared, seed=0)), backbone.fingerprint,
                   [video.frames.fingerprint for video in (*source, *train)]])[:12]
    systems, counts = {}, {}
    for protocol, videos in sides.items():
        for seed in seeds:
            folder = output / key / f"{protocol}-seed{seed}"
            if not is_complete(folder)[0]:
                made = train_heatmap(replace(shared, seed=seed), backbone, train=videos, val=spread(val, _VALIDATING),
                                     output_dir=folder, cache_dir=output / key / "features", prototypes=text,
                                     progress=progress)
                write_json(folder / "counts.json", made.counts["train"])
                complete(folder, [made.path.name, "counts.json"])
            decoder = AnomalyHeatmapDecoder.load(folder / "ahd.safetensors", backbone=backbone)
            systems[protocol, seed] = TVAD(backbone, decoder.to(getattr(backbone, "device", "cpu")), prototypes=text,
                                           scoring=scoring)
            counts[protocol] = json.loads((folder / "counts.json").read_text(encoding="utf-8"))
        shutil.rmtree(output / key / "features", ignore_errors=True)
    found = _score(systems, split.held_out, output / key / "detections", progress=progress)
    return _report(found, split, counts, key, settings, output)


def matched(clips: Sequence[Video], others: Sequence[Any], config: Phase1Config) -> list[Video]:
    """As many clips as there are ``others``, or fewer, of which about the same share of training pairs is anomalous.

    Without this the random split would also win by more examples of anomalies: a clip may lie within an event.
    """
    def rate(video: Any) -> float:
        starts = choose_pairs(video, config.pairs_per_video, seed=config.pair_seed, positive_share=config.positive_share)
        return float(pair_labels(video)[list(starts)].mean())

    rates, wanted = np.array([rate(clip) for clip in clips]), float(np.mean([rate(video) for video in others]))
    hot, cold = ([clip for clip, keep in zip(clips, side) if keep] for side in (rates > 0, rates == 0))
    of_hot = min(1.0, wanted / rates[rates > 0].mean()) if hot else 0.0      # share of clips that hold anomalous pairs
    count = min([len(others), len(clips), *([len(hot) / of_hot] if of_hot else []),
                 *([len(cold) / (1 - of_hot)] if of_hot < 1 else [])])
    first = min(len(hot), round(of_hot * count))
    chosen = {clip.id for clip in (*spread(hot, first), *spread(cold, int(count) - first))}
    return [clip for clip in clips if clip.id in chosen]


def spread(videos: Sequence[Any], count: int) -> list[Any]:
    """At most ``count`` of some videos, evenly spaced."""
    places = np.linspace(0, len(videos), min(count, len(videos)), endpoint=False).astype(int)
    return [videos[place] for place in places]


def _score(systems: Mapping[tuple[str, int], TVAD], clips: Sequence[Video], folder: Path, *,
           progress: bool) -> dict[tuple[str, int], dict[str, Detection]]:
    """Detections by system and clip; one pass of the tower serves all systems."""
    found: dict[tuple[str, int], dict[str, Detection]] = {system: {} for system in systems}
    for clip in tqdm(clips, desc="held-out clips", unit="clip", disable=not progress):
        missing = {}
        for (protocol, seed), model in systems.items():
            path, key = detection_path(folder / f"{protocol}-seed{seed}", clip), detection_key(model, clip)
            kept = stored(path, key)
            if kept is None:
                missing[protocol, seed] = (model, path, key)
            else:
                found[protocol, seed][clip.id] = kept
        if missing:
            model = next(iter(missing.values()))[0]
            made = score_many(model.backbone, {system: entry[0].decoder for system, entry in missing.items()}, clip,
                              prototypes=model.prototypes, scoring=model.scoring)
            for system, detection in made.items():
                detection.save(missing[system][1], key=missing[system][2])
                found[system][clip.id] = detection
    return found


def _report(found: Mapping[tuple[str, int], Mapping[str, Detection]], split: ClipSplit, counts: Mapping[str, Any], key: str,
            settings: LeakSettings, output: Path) -> tuple[list[Row], list[Measure]]:
    groups: dict[str, list[Video]] = {}
    for clip in split.held_out:
        groups.setdefault(clip.id.split("#")[0], []).append(clip)
    rows, whole, videos = [], {}, []
    for (protocol, seed), detections in found.items():
        pairs = [joined(clips, detections) for clips in groups.values()]
        videos = [video for video, _ in pairs]
        whole[protocol, seed] = {detection.video: detection for _, detection in pairs}
        cell = Cell(variant=VARIANT, dataset=LEAK.dataset, split=LEAK.split, protocol=protocol, seed=seed, config=key,
                    sigma=0.0, samples=settings.samples)
        rows += evaluate(whole[protocol, seed], videos, cell)
    sides = [[one for (protocol, _), one in whole.items() if protocol == wanted] for wanted in (RANDOM, DISJOINT)]
    shared = Cell(variant=RANDOM, dataset=LEAK.dataset, split=LEAK.split, protocol=RANDOM, seed=0, config=key, sigma=0.0,
                  samples=settings.samples)
    measures = [one for one in differences(*sides, videos, shared, against=f"t-vad/{DISJOINT}")
                if one.name != "latency_ap"]      # clips end to end have no delays
    told = {"source_videos": len(groups), "training_steps": settings.steps, "held_out_clips": len(split.held_out),
            "touched_by_training": split.touched, "covered_by_training": split.covered}
    for protocol, one in counts.items():
        told |= {f"pairs_{protocol}": one["pairs"], f"anomalous_pairs_{protocol}": one["anomalous_pairs"]}
    measures += [of_cell(shared, f"leak_{name}", "fraction" if isinstance(value, float) else "count", value,
                         n=len(split.held_out)) for name, value in told.items()]
    replace_rows(output / "rows.jsonl", rows)
    put_measures(output / "measures.jsonl", measures)
    return rows, measures
