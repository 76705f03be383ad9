"""Frame pairs of a camera as videos that the feature cache takes: composites and real normal pairs, training and held out.

A virtual video's frames 2i and 2i + 1 are its pair i, made when asked for.  Its fingerprint names all that decides them,
so features are made once.  A share of the videos (of the time, where there are few) never meets training: neither its
pairs nor the estimates of how people and light look there.  Only the empty background of a video is estimated whole.
"""
from __future__ import annotations

import hashlib
import logging
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

import tvad.scenes.composite
from tvad.adaptation.views import beginning
from tvad.datasets.base import Video
from tvad.datasets.footage_store import simulator_hash
from tvad.errors import DatasetError
from tvad.scenes.composite.compose import Composite, Compositor
from tvad.video.frames import Frames

CHUNK = 48  # pairs a virtual video: one file of the cache
SHORTEST = 3  # frames from which a background can be had
_FEW = 4      # videos below which time is split instead
_LOG = logging.getLogger(__name__)
Made = tuple[UInt8[np.ndarray, "2 h w 3"], UInt8[np.ndarray, "2 h w"]]


@dataclass(frozen=True)
class Stretch:
    """Frames ``start:stop`` of a video that one side of the split may use."""
    frames: Frames
    start: int
    stop: int

    @property
    def footage(self) -> Frames:
        """The video up to the end of the stretch: nothing after it can be read from here."""
        return beginning(self.frames, self.stop)

    def starts(self, count: int, *, gap: int, rng: np.random.Generator | None = None) -> list[int]:
        """First frames of ``count`` pairs: evenly spaced, or, with ``rng``, one draw from each of as many even parts."""
        room = self.stop - self.start - gap
        if room < 1:
            return []
        if rng is None:
            return np.unique(np.linspace(self.start, self.start + room - 1, min(count, room)).round().astype(int)).tolist()
        edges = np.linspace(self.start, self.start + room, count + 1)
        return [int(min(rng.uniform(low, high), self.start + room - 1)) for low, high in zip(edges[:-1], edges[1:])]


def split(videos: Sequence[Frames], share: float, *, gap: int) -> tuple[list[Stretch], list[Stretch]]:
    """Training and held-out stretches: every so many videos is held out, or the last part of each of a few videos.

    Clips of fewer than ``SHORTEST`` frames, which have no background, are left out, and that is said.
    Raises :class:`DatasetError` where one side would be empty.
    """
    short = [video for video in videos if len(video) < SHORTEST]
    if short:
        _LOG.warning("adapt: %d clips of fewer than %d frames are left out, first %s", len(short), SHORTEST, short[0].name)
    videos = [video for video in videos if len(video) >= SHORTEST]
    longest = max((len(video) for video in videos), default=0)
    if longest < 12 + 4 * gap:
        raise DatasetError(f"adapt: {len(videos)} videos, the longest of {longest} frames; give at least one of "
                           f"{12 + 4 * gap} frames of normal footage")
    if len(videos) >= _FEW:
        count = max(1, round(share * len(videos)))
        held = set(((np.arange(count) + 0.5) * len(videos) / count).astype(int).tolist())
        whole = [Stretch(video, 0, len(video)) for video in videos]
        return ([one for index, one in enumerate(whole) if index not in held],
                [one for index, one in enumerate(whole) if index in held])
    train, val = [], []
    for video in videos:
        border = round(len(video) * (1 - share))
        apart = min(round(2 * video.fps), len(video) // 20)  # nobody walks from one side into the other
        train.append(Stretch(video, 0, border - apart))
        val.append(Stretch(video, border, len(video)))
    return train, val


class PairFrames(Frames):
    """Pairs as consecutive frames; the masks of the pairs made last are kept beside them."""

    def __init__(self, name: str, make: Callable[[int], Made], count: int, *, fps: float, size: tuple[int, int],
                 fingerprint: str) -> None:
        self._make, self._masks = make, {}
        super().__init__(name, fps=fps, size=size, positions=np.arange(2 * count), fingerprint=fingerprint)

    def _decode(self, indices: Sequence[int]) -> Iterator[UInt8[np.ndarray, "h w 3"]]:
        last, pictures = -1, None
        for index in indices:
            pair, side = divmod(index, 2)
            if pair != last:
                pictures, masks = self._make(pair)
                self._masks = {pair: masks}  # the cache asks for a pair's frames, then for its masks
                last = pair
            yield pictures[side]

    def masks(self, start: int, stop: int) -> UInt8[np.ndarray, "m h w"]:
        """Masks of frames ``start:stop``, made again where the pair is not the last one read."""
        found = []
        for index in range(start, stop):
            pair, side = divmod(index, 2)
            found.append((self._masks[pair] if pair in self._masks else self._make(pair)[1])[side])
        return np.stack(found) if found else np.zeros((0, *self.size), np.uint8)


def source_hash() -> str:
    """Hash of all code that decides the pixels of a composite."""
    digest = hashlib.sha256(simulator_hash().encode())
    for folder in tvad.scenes.composite.__path__:
        for path in sorted(Path(folder).glob("*.py")):
            if path.name != "sheet.py":
                digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:16]


def composite_videos(compositor: Compositor, stretches: Sequence[Stretch], count: int, *, gap: int, seed: int, reach: int,
                     positive: float = 0.5) -> list[Video]:
    """About ``count`` composite pairs, ``positive`` of them with an event, spread over the stretches by their length.

    ``text["kinds"]`` of a video names the events of each of its pairs (made anew to be asked: some 30 ms a pair).
    ``reach``: the longest gap in use; pairs of all gaps up to it begin at the same frames and hold the same actors.
    """
    code = source_hash()

    def build(part: Stretch, starts: list[int], number: int, before: int) -> Video:
        # Counted over all videos: many short clips of a pair each would else all round to no event.
        events = math.floor((before + len(starts)) * positive) - math.floor(before * positive)
        wanted = np.random.default_rng([seed, 51, number]).permutation(np.arange(len(starts)) < events)

        def compose(pair: int) -> Composite:
            return compositor.pair(part.frames, starts[pair], gap=gap, seed=seed * 100003 + number * 101 + pair,
                                   anomalous=bool(wanted[pair]))

        def make(pair: int) -> Made:
            made = compose(pair)
            return made.frames, made.masks

        def text() -> dict[str, Any]:
            return {"kinds": [compose(pair).kinds if wanted[pair] else () for pair in range(len(starts))]}

        facts = ["composite", code, compositor.site.fingerprint, compositor.mixture, part.frames.fingerprint, starts, gap,
                 seed, number, wanted.tolist()]
        return _virtual(f"{part.frames.name}~composite{number}-gap{gap}-seed{seed}", make, starts, part.frames, facts,
                        labels=np.repeat(wanted.astype(np.uint8), 2), text=text)

    return _spread(stretches, count, reach=reach, rng=np.random.default_rng([seed, 52]), build=build)


def normal_videos(stretches: Sequence[Stretch], count: int, *, gap: int, reach: int, seed: int | None) -> list[Video]:
    """About ``count`` real normal pairs; drawn by ``seed``, or evenly spaced where None. ``reach`` as for composites."""
    def build(part: Stretch, starts: list[int], number: int, before: int) -> Video:
        def make(pair: int) -> Made:
            start = starts[pair]
            return part.frames.take([start, start + gap]), np.zeros((2, *part.frames.size), np.uint8)

        facts = ["normal", part.frames.fingerprint, starts, gap]
        return _virtual(f"{part.frames.name}~normal{number}-gap{gap}", make, starts, part.frames, facts,
                        labels=np.zeros(2 * len(starts), np.uint8))

    rng = None if seed is None else np.random.default_rng([seed, 53])
    return _spread(stretches, count, reach=reach, rng=rng, build=build)


def _spread(stretches: Sequence[Stretch], count: int, *, reach: int, rng: np.random.Generator | None,
            build: Callable[[Stretch, list[int], int, int], Video]) -> list[Video]:
    """Virtual videos of up to ``CHUNK`` pairs; ``build`` gets stretch, starts, number and how many pairs came before."""
    lengths = np.array([max(0, part.stop - part.start - reach) for part in stretches], float)
    borders = np.round(np.concatenate([[0], np.cumsum(lengths)]) / max(lengths.sum(), 1) * count).astype(int)
    videos: list[Video] = []
    before = 0
    for part, low, high in zip(stretches, borders[:-1], borders[1:]):
        starts = part.starts(high - low, gap=reach, rng=rng)
        for first in range(0, len(starts), CHUNK):
            chosen = starts[first:first + CHUNK]
            videos.append(build(part, chosen, len(videos), before))
            before += len(chosen)
    if not videos:
        longest = max((part.stop - part.start for part in stretches), default=0)
        raise DatasetError(f"adapt: no pair of frames {reach} apart in stretches of at most {longest} frames (footage is "
                           "split in training and held out); give longer videos or smaller gaps")
    return videos


def _virtual(name: str, make: Callable[[int], Made], starts: list[int], source: Frames, facts: list[Any], *,
             labels: UInt8[np.ndarray, "n"], text: Any = dict) -> Video:
    digest = hashlib.sha256(repr(facts).encode()).hexdigest()
    frames = PairFrames(name, make, len(starts), fps=source.fps, size=tuple(source.size), fingerprint=digest)
    return Video(id=name, dataset="adapt", frames=frames, scene=source.name, labels=labels, masks=frames.masks, text=text)


def pair_starts(videos: Sequence[Video]) -> dict[str, tuple[int, ...]]:
    """Where the pairs of virtual videos begin, for :func:`tvad.training.cache.cache_pairs`."""
    return {video.id: tuple(range(0, len(video), 2)) for video in videos}
