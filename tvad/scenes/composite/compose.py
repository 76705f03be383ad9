"""Pairs of frames of real normal footage with simulated people and events in them, and the exact masks of the events.

    compositor = Compositor(survey(videos))
    made = compositor.pair(video, start=40, gap=1, seed=7, anomalous=True)
    made.frames, made.masks, made.kinds

The same arguments give the same bytes.  Real people nearer to the camera cover pasted ones, by the row of their feet.
"""
from __future__ import annotations

from dataclasses import dataclass, field
from typing import Sequence

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from tvad.errors import ParameterError
from tvad.scenes.composite.backdrop import Background, blobs
from tvad.scenes.composite.crowd import DEFAULT_KINDS, KINDS, Pasted, event, ordinary, scene
from tvad.scenes.composite.site import Site
from tvad.scenes.composite.stamp import Stamp, draw_stamps, paste
from tvad.video.frames import Frames

_LEAST_VISIBLE = 24  # pixels of an event in 240 lines, in the better of the two frames; the simulator's own rule
_TRIES = 8
ORDINARY_ALONE = "ordinary"     # the kind of a clip with pasted people and no event


@dataclass(frozen=True)
class Composite:
    """A pair of frames. ``masks``: 0 background and pasted ordinary people, k the k-th event target; ``kinds``: their
    names; ``pasted``: boxes (x1, y1, x2, y2) of ordinary people in the first frame."""
    frames: UInt8[np.ndarray, "2 h w 3"]
    masks: UInt8[np.ndarray, "2 h w"]
    kinds: tuple[str, ...]
    pasted: tuple[tuple[int, int, int, int], ...] = ()


@dataclass(frozen=True)
class CompositeClip:
    """Frames of one stretch; ``masks`` as those of a :class:`Composite`; ``labels``: 1 where enough of an event is seen."""
    frames: UInt8[np.ndarray, "n h w 3"]
    masks: UInt8[np.ndarray, "n h w"]
    labels: UInt8[np.ndarray, "n"]


@dataclass(frozen=True)
class Mixture:
    """How much is pasted. ``events``: kinds to draw from; ``people``: mean number of groups of ordinary people beside an
    event, and ``alone`` where there is none (at least one); ``second``: chance of a second event."""
    events: tuple[str, ...] = DEFAULT_KINDS
    people: float = 1.5
    alone: float = 2.2
    second: float = 0.25

    def __post_init__(self) -> None:
        unknown = [kind for kind in self.events if kind not in KINDS]
        if unknown or not self.events:
            raise ParameterError(f"composites: events {unknown or '()'} are unknown or none; give some of "
                                 f"{', '.join(KINDS)}")
        if min(self.people, self.alone) < 0 or not 0 <= self.second <= 1:
            raise ParameterError(f"composites: people {self.people} and alone {self.alone} must be at least 0, second "
                                 f"{self.second} in 0..1")


@dataclass
class _Real:
    """A real frame and what of it covers pasted people: ``feet`` holds the row of the feet of whom each pixel shows."""
    frame: Float[np.ndarray, "h w c"]
    mask: Float[np.ndarray, "h w"]
    feet: Float[np.ndarray, "h w"]
    stands: list[tuple[float, float]] = field(default_factory=list)


class Compositor:
    """Makes composites on the footage of one site; keeps one background a video."""

    def __init__(self, site: Site, *, mixture: Mixture = Mixture()) -> None:
        self.site, self.mixture = site, mixture
        self._backgrounds: dict[str, Background] = {}
        self._least = _LEAST_VISIBLE * site.size[0] * site.size[1] / (240 * 360)

    def background(self, frames: Frames) -> Background:
        """The background of a video of the site. Raises :class:`ParameterError` for frames of another size."""
        if tuple(frames.size) != tuple(self.site.size):
            raise ParameterError(f"{frames.name}: frames of {frames.size}, the site {self.site.name} has {self.site.size}; "
                                 "survey this camera on its own")
        if frames.fingerprint not in self._backgrounds:
            self._backgrounds[frames.fingerprint] = back = Background(frames)
            back.shadow = self.site.look.cast
        return self._backgrounds[frames.fingerprint]

    def pair(self, frames: Frames, start: int, *, gap: int = 1, seed: int, anomalous: bool) -> Composite:
        """Frames ``start`` and ``start + gap`` with ordinary people and, where ``anomalous``, at least one visible event.

        Raises :class:`ParameterError` for a pair beyond the video's end.
        """
        if gap < 1 or not 0 <= start < len(frames) - gap:
            raise ParameterError(f"{frames.name}: no pair ({start}, {start + gap}) in {len(frames)} frames; give a smaller "
                                 "start or gap")
        back, indices = self.background(frames), (start, start + gap)
        pictures = frames.take(indices)
        real = [self._real(picture, back, index) for picture, index in zip(pictures, indices)]
        made = None
        for attempt in range(_TRIES):
            rng = np.random.default_rng([seed, start, int(anomalous), attempt])
            made = self._attempt(rng, real, gap, anomalous)
            if not anomalous or max(int((mask > 0).sum()) for mask in made.masks) >= self._least:
                break
        return made

    def clip(self, frames: Frames, places: Sequence[int], *, seed: int, kind: str) -> CompositeClip:
        """Frames ``places`` (ascending) of a stretch of footage with people and an event walking through it.

        ``kind``: of the event; ``ORDINARY_ALONE`` for people without one, "" for the footage as it is.  Of the mixture,
        ``people`` counts, with and without an event.  Raises :class:`ParameterError` for frames of another size and for
        an unknown kind.
        """
        if kind not in ("", ORDINARY_ALONE, *KINDS):
            raise ParameterError(f"composites: event {kind!r} is unknown; give one of {', '.join(KINDS)}")
        site, back, pictures = self.site, self.background(frames), frames.take(places)
        if not kind:
            return CompositeClip(pictures, np.zeros((len(places), *site.size), np.uint8), np.zeros(len(places), np.uint8))
        rng = np.random.default_rng([seed, 54])
        seconds = (np.asarray(places) - places[0]) / site.fps * site.pace
        cast = scene(site, rng, kind="" if kind == ORDINARY_ALONE else kind, duration=float(seconds[-1]),
                     people=self.mixture.people)
        seeds = [int(value) for value in rng.integers(1, 1 << 20, len(cast))]
        made = [self._paint(rng, self._real(picture, back, place), cast, seeds, float(later))
                for picture, place, later in zip(pictures, places, seconds)]
        masks = np.stack([mask for _, mask, _ in made])
        return CompositeClip(np.stack([frame for frame, _, _ in made]), masks,
                    ((masks > 0).sum((1, 2)) >= self._least).astype(np.uint8))

    def _attempt(self, rng: np.random.Generator, real: Sequence[_Real], gap: int, anomalous: bool) -> Composite:
        site, mix = self.site, self.mixture
        cast: list[tuple[Pasted, str]] = []
        if anomalous:
            for _ in range(1 + int(rng.random() < mix.second)):
                kind = str(rng.choice(mix.events))
                cast += [(member, kind) for member in event(site, rng, kind)]
        people = rng.poisson(mix.people if anomalous else mix.alone) + (not anomalous)
        near = [site.camera.ground(np.array(spot), size=site.size) for spot in real[0].stands]
        near = [spot for spot in near if np.isfinite(spot).all()]
        for _ in range(people):
            cast += [(member, "") for member in ordinary(site, rng, near=near)]
        seeds = [int(value) for value in rng.integers(1, 1 << 20, len(cast))]
        later = gap / site.fps * site.pace
        results = [self._paint(rng, one, cast, seeds, number * later) for number, one in enumerate(real)]
        kinds = tuple(kind for _, kind in cast if kind)
        return Composite(np.stack([frame for frame, _, _ in results]), np.stack([mask for _, mask, _ in results]), kinds,
                         tuple(results[0][2]))

    def _paint(self, rng: np.random.Generator, real: _Real, cast: Sequence[tuple[Pasted, str]], seeds: Sequence[int],
               later: float):
        """One frame with the cast ``later`` seconds after its instant, the mask of events, boxes of ordinary people."""
        site = self.site
        frame, mask = real.frame.copy(), np.zeros(site.size, np.uint8)
        boxes: list[tuple[int, int, int, int]] = []
        states = [member.actor.state(member.time + later) for member, _ in cast]
        shown = [row for row, state in enumerate(states) if state.present]
        target = np.cumsum([bool(kind) for _, kind in cast])
        stamps = draw_stamps([cast[row][0].actor.shapes(states[row]) for row in shown],
                             np.array([states[row].position for row in shown]).reshape(-1, 3), camera=site.camera,
                             size=site.size, look=site.look, seeds=[seeds[row] for row in shown])
        ready = [(row, stamp) for row, stamp in zip(shown, stamps) if stamp is not None]
        for row, stamp in sorted(ready, key=lambda item: -item[1].depth):
            visible = paste(frame, stamp, hidden=self._hidden(real, stamp), look=site.look,
                            noise_at=tuple(rng.integers(0, 128, 2)))
            spot = mask[stamp.box]
            event_here = bool(cast[row][1]) and states[row].anomalous
            spot[visible > 0.35] = min(int(target[row]), 255) if event_here else 0
            if not cast[row][1]:
                inside = stamp.alpha > 0.35
                if inside.any():
                    rows, columns = np.flatnonzero(inside.any(1)), np.flatnonzero(inside.any(0))
                    boxes.append((stamp.left + int(columns[0]), stamp.top + int(rows[0]), stamp.left + int(columns[-1]),
                                  stamp.top + int(rows[-1])))
        picture = frame.round().astype(np.uint8)
        return (np.repeat(picture, 3, axis=2) if picture.shape[2] == 1 else picture), mask, boxes

    def _hidden(self, real: _Real, stamp: Stamp) -> Float[np.ndarray, "h w"]:
        """Coverage of the whole frame by real people who stand nearer than the stamp (a view of the size of the frame)."""
        covered = np.zeros(self.site.size, np.float32)
        spot = stamp.box
        covered[spot] = real.mask[spot] * (real.feet[spot] > stamp.foot)
        return covered

    def _real(self, picture: UInt8[np.ndarray, "h w 3"], back: Background, index: int) -> _Real:
        mask = back.foreground(picture, index)
        found, labels, keep = blobs(mask)
        feet, stands = np.zeros(mask.shape, np.float32), []
        for blob, label in zip(found, keep):
            rows, columns = slice(blob.top, blob.bottom), slice(blob.left, blob.right)
            own = labels[rows, columns] == label
            height = np.arange(blob.top, blob.bottom, dtype=np.float32)[:, None]
            lowest = np.where(own, height, -1).max(0, keepdims=True)
            # Legs are slim: the feet of a pixel are the lowest of its neighbours within half a body.
            tall = self.site.pixels_high(blob.bottom)
            lowest = cv2.dilate(lowest, np.ones((1, max(1, 2 * round(0.15 * tall) + 1)), np.uint8))
            line = np.clip(self.site.line[0] + self.site.line[1] * height, 4, None)
            # Higher than one body above those feet is another person, who stands farther back.
            feet[rows, columns] = np.where(own, np.minimum(lowest, height + 1.15 * line), feet[rows, columns])
            stands.append(blob.foot)
        inner = cv2.erode(mask, cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3)))
        soft = cv2.blur(inner, (3, 3)).astype(np.float32) / 255
        # Grey footage whose codec left a tint stays in three channels, or composites would lose what real frames have.
        bare = self.site.look.grey and not np.ptp(picture, axis=-1).any()
        colours = picture[..., :1] if bare else picture
        return _Real(colours.astype(np.float32), soft, feet, stands)
