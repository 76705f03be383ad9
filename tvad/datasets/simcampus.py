"""SimCampus as a data set: videos rendered on demand from recipes, with exact truth.

Protocols: "scene-disjoint" (train 8 scenes, val 2, test 3) and "open-set" (train-open and val-open leave out every
video in which hand_truck, motorcycle, jumping or fighting occurs; test-open holds the same videos as test).  A recipe
is a scene, a seed and the events to happen; no scene and no seed occurs in two of the three splits.

A frame is anomalous where at least ``MIN_PIXELS`` pixels of an anomalous target are visible; masks, labels, boxes and
events follow that one rule.
"""
from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, UInt8
from tqdm.auto import tqdm

from tvad.datasets.base import REPOSITORY_DATA, Dataset, Event, Video, hash_of
from tvad.datasets.footage_store import StoredFootage, StoredFrames, simulator_hash
from tvad.errors import DatasetError
from tvad.metrics.region import GroundTruthTracks
from tvad.scenes.render import make_footage
from tvad.scenes.types import EVENTS, OPEN_SET_EVENTS, Footage
from tvad.scenes.world import SCENES, SPLITS

PROTOCOLS: Mapping[str, tuple[str, ...]] = {
    "scene-disjoint": ("train", "val", "test"),
    "open-set": ("train-open", "val-open", "test-open"),
}
VIDEOS_PER_SCENE = 18      # 12 with events, 6 normal
# Training learns from many short videos, most of them of a relative of their scene (another camera, light, texture):
# with 18 long ones a scene the decoder learned the scenes by heart (docs/LOG.md).
TRAIN_VIDEOS_PER_SCENE, TRAIN_FRAMES, FRAMES = 72, 30, 150
MIN_PIXELS = 24            # half of a person of 12 pixels: fewer cannot be named by anybody
FPS = 10.0
SIZE = (240, 360)
_SEEDS = {"train": 100_000, "val": 200_000, "test": 300_000}
# the size that `make reproduce` trains on; the test is always the whole one, so that figures can be compared
_VARIANTS: Mapping[str, Mapping[str, int]] = {
    "full": {"train": TRAIN_VIDEOS_PER_SCENE, "val": VIDEOS_PER_SCENE, "test": VIDEOS_PER_SCENE},
    "small": {"train": TRAIN_VIDEOS_PER_SCENE // 2, "val": VIDEOS_PER_SCENE // 2, "test": VIDEOS_PER_SCENE},
}


@dataclass(frozen=True)
class Recipe:
    """What decides on a rendered video."""

    scene: str
    seed: int
    events: tuple[str, ...]
    frames: int
    fps: float = FPS
    size: tuple[int, int] = SIZE
    relative: int | None = None      # seed of the scene's relative that is filmed; None: the scene itself

    def facts(self) -> dict[str, Any]:
        """What decides the bytes, for hashes."""
        return {name: value for name, value in asdict(self).items() if value is not None}

    @property
    def id(self) -> str:
        """Name of the video, unique within the data set."""
        return f"{self.scene}_{self.seed}_{'+'.join(self.events) or 'normal'}"

    def render(self) -> Footage:
        """The footage; the same bytes each time."""
        scene = SCENES[self.scene]
        if self.relative is not None:
            scene = scene.vary(np.random.default_rng(self.relative))
        return make_footage(scene, self.seed, frames=self.frames, events=self.events, fps=self.fps, size=self.size)


def recipes(split: str, *, videos_per_scene: int | None = None, frames: int | None = None) -> tuple[Recipe, ...]:
    """Recipes of "train", "val" or "test", scene by scene.

    Each scene has one video for each of the 12 events and a normal one after every second; every fourth event video
    shows a second event, a kept-out event only beside another of that kind.  Fewer videos a scene are the first of
    the full list, which starts at another event in each scene; training repeats the list with other seeds, and three
    of its four videos film a relative of the scene.  ``frames``: of each video, else 30 in training and 150 elsewhere.
    """
    most = TRAIN_VIDEOS_PER_SCENE if split == "train" else VIDEOS_PER_SCENE
    count = most if videos_per_scene is None else videos_per_scene
    length = frames if frames is not None else TRAIN_FRAMES if split == "train" else FRAMES
    if not 1 <= count <= most:
        raise DatasetError(f"simcampus: videos_per_scene of {split} must lie in 1..{most}, got {count}")
    if length < 16:
        raise DatasetError(f"simcampus: frames must be at least 16, got {length}")
    found = []
    for place, scene in enumerate(SPLITS[split]):
        for number, events in enumerate(_casts(place, count)):
            seed = _SEEDS[split] + 1000 * place + number
            relative = seed if split == "train" and number % 4 else None
            found.append(Recipe(scene, seed, events, length, relative=relative))
    return tuple(found)


def _casts(place: int, count: int) -> list[tuple[str, ...]]:
    """The events of the first ``count`` videos of a split's scene number ``place``."""
    casts: list[tuple[str, ...]] = []
    begin = 6 * place + 3 * (place // 2)  # the first halves of scenes 0 and 1, of 2 and 3, ... hold every event
    for turn in range(count):
        first = EVENTS[(begin + 5 * turn) % len(EVENTS)]  # 5 and 12 share no factor: every event once in 12 turns
        kin = [event for event in EVENTS if (event in OPEN_SET_EVENTS) == (first in OPEN_SET_EVENTS)]
        step = place + turn // len(EVENTS) + turn % 2
        second = kin[(kin.index(first) + 1 + step % (len(kin) - 1)) % len(kin)]
        casts.append((first, second) if turn % 4 == 1 else (first,))
        if turn % 2:
            casts.append(())
    return casts[:count]


class SimCampus(Dataset):
    """The simulated data set.

    Args:
        root: not used, nothing needs to be fetched; here since every data set takes it.
        protocol: "scene-disjoint" or "open-set".
        variant: "full", or "small": half of the training and validation videos.
        videos_per_scene: for all splits or by split ("train", "val", "test"); overrides ``variant``.
        frames: of each video, at 10 a second; else 30 in training and 150 elsewhere.
        cache_dir: where rendered videos are kept, else ``data/simcampus`` of the repository.
    """

    name = "simcampus"

    def __init__(
        self,
        *,
        root: str | os.PathLike | None = None,
        protocol: str = "scene-disjoint",
        variant: str = "full",
        videos_per_scene: int | Mapping[str, int] | None = None,
        frames: int | None = None,
        cache_dir: str | os.PathLike | None = None,
    ) -> None:
        if protocol not in PROTOCOLS:
            raise DatasetError(f"simcampus: unknown protocol {protocol!r}; choose one of {', '.join(PROTOCOLS)}")
        if variant not in _VARIANTS:
            raise DatasetError(f"simcampus: unknown variant {variant!r}; choose one of {', '.join(_VARIANTS)}")
        if videos_per_scene is None:
            videos_per_scene = {}
        elif isinstance(videos_per_scene, int):
            videos_per_scene = dict.fromkeys(SPLITS, videos_per_scene)
        if unknown := set(videos_per_scene) - set(SPLITS):
            raise DatasetError(f"simcampus: videos_per_scene names {', '.join(sorted(unknown))}; it may name "
                               f"{', '.join(SPLITS)}")
        self.protocol, self._frames = protocol, frames
        self._per_scene = {**_VARIANTS[variant], **videos_per_scene}
        base = Path(cache_dir).expanduser() if cache_dir else REPOSITORY_DATA / "simcampus"
        self.cache_dir = base / simulator_hash()
        self._videos: dict[str, tuple[Video, ...]] = {}

    def splits(self) -> tuple[str, ...]:
        """Three names, according to the protocol."""
        return PROTOCOLS[self.protocol]

    def recipes(self, split: str) -> tuple[Recipe, ...]:
        """What the videos of a split are made from."""
        self._require_split(split)
        base, _, is_open = split.partition("-")
        found = recipes(base, videos_per_scene=self._per_scene[base], frames=self._frames)
        if is_open and base != "test":
            found = tuple(recipe for recipe in found if not set(recipe.events) & set(OPEN_SET_EVENTS))
        return found

    def split_hash(self, split: str) -> str:
        """Hash of the list of recipes; ``Frames.fingerprint`` of each video adds the simulator."""
        return hash_of([recipe.facts() for recipe in self.recipes(split)])

    def videos(self, split: str) -> tuple[Video, ...]:
        """Videos of a split; each is rendered when its frames or annotation are first read."""
        if split not in self._videos:
            self._videos[split] = tuple(self._video(recipe) for recipe in self.recipes(split))
        return self._videos[split]

    def prepare(self, splits: Iterable[str] | None = None, *, workers: int = 1) -> None:
        """Render all videos of ``splits`` (all by default) that are not on disk yet, in ``workers`` processes."""
        missing = [store for split in splits or self.splits() for store in map(self._store, self.recipes(split))
                   if not store.path.is_file()]
        if not missing:
            return
        with tqdm(total=len(missing), desc="rendering SimCampus", unit="video") as bar:
            if workers == 1:
                for store in missing:
                    store.ensure()
                    bar.update()
            else:
                with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:  # torch threads forbid fork
                    for _ in pool.map(_ensure, missing):
                        bar.update()

    def _store(self, recipe: Recipe) -> StoredFootage:
        key = hash_of(recipe.facts())[:12]
        return StoredFootage(self.cache_dir / f"{recipe.id}_{key}.safetensors", recipe.render, count=recipe.frames,
                             size=recipe.size)

    def _video(self, recipe: Recipe) -> Video:
        store = self._store(recipe)
        frames = StoredFrames(store, name=recipe.id, fps=recipe.fps,
                              fingerprint=hash_of([simulator_hash(), recipe.facts()]))
        return Video(recipe.id, self.name, frames, scene=recipe.scene, labels=partial(_labels, store),
                     masks=partial(_masks, store), tracks=partial(_tracks, store), events=partial(_events, store),
                     text=partial(script, store), truth=store.footage)


def _ensure(store: StoredFootage) -> None:
    store.ensure()


def _counted(store: StoredFootage) -> Bool[np.ndarray, "a n"]:
    """Where an actor is an anomalous target with enough visible pixels."""
    anomalous = np.array([actor.anomalous for actor in store.actors], bool).reshape(-1, store.count)
    return anomalous & (store.area >= MIN_PIXELS)


def _labels(store: StoredFootage) -> UInt8[np.ndarray, "n"]:
    return _counted(store).any(axis=0).astype(np.uint8)


def _masks(store: StoredFootage, start: int, stop: int) -> UInt8[np.ndarray, "m h w"]:
    instances = store.labels("instances", start, stop)
    keep = np.zeros((stop - start, 256), np.uint8)
    for actor, counted in zip(store.actors, _counted(store), strict=True):
        keep[:, actor.id] = np.where(counted[start:stop], actor.id, 0)
    return keep[np.arange(stop - start)[:, None, None], instances]


def _tracks(store: StoredFootage) -> GroundTruthTracks:
    counted = _counted(store)
    frame, row = np.nonzero(counted.T)
    ids = np.array([actor.id for actor in store.actors], np.int64)
    box = np.array([actor.box for actor in store.actors]).reshape(-1, store.count, 4)
    return GroundTruthTracks(track=ids[row], frame=frame, box=box[row, frame].astype(np.float64))


def _events(store: StoredFootage) -> tuple[Event, ...]:
    found = [Event(actor.event or actor.kind, start, stop, actor.id)
             for actor, counted in zip(store.actors, _counted(store), strict=True) for start, stop in _runs(counted)]
    return tuple(sorted(found, key=lambda event: (event.start, event.target)))


def script(store: StoredFootage) -> dict[str, Any]:
    """The video's script in JSON types: who is there, what they look like, what they do when, and where.

    ``motion`` and ``present`` are lists of frame ranges [start, stop(, word)]; ``box`` has one list [x1, y1, x2, y2] of
    inclusive pixels a frame, null where absent.
    """
    actors = []
    for actor in store.actors:
        words = np.array(actor.motion)
        turns = np.r_[0, np.flatnonzero(words[1:] != words[:-1]) + 1, len(words)].tolist()
        actors.append({
            "id": actor.id, "kind": actor.kind, "event": actor.event,
            "appearance": {**asdict(actor.appearance), "carries": list(actor.appearance.carries)},
            "present": [list(run) for run in _runs(actor.present)],
            "anomalous": [list(run) for run in _runs(actor.anomalous & actor.present)],
            "motion": [[start, stop, str(words[start])] for start, stop in zip(turns, turns[1:])],
            "box": [[int(x) for x in box] if here else None
                    for box, here in zip(actor.box, actor.present, strict=True)],
        })
    return {"frames": store.count, "fps": store.fps, "size": list(store.size), "actors": actors}


def _runs(mask: Bool[np.ndarray, "n"]) -> list[tuple[int, int]]:
    edges = np.flatnonzero(np.diff(np.r_[False, mask, False].astype(np.int8)))
    return [(int(start), int(stop)) for start, stop in edges.reshape(-1, 2)]
