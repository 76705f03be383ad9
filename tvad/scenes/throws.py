"""The event of throwing: a person, and balls, bags or boxes that fly in an arc and land."""

from __future__ import annotations

from dataclasses import replace
from math import cos, sin
from typing import Sequence

import numpy as np
from jaxtyping import Float

from tvad.scenes import deeds
from tvad.scenes.actors import Participant, Performer, draw_person, gait_phase, pedestrian, stops, walking_speed
from tvad.scenes.body import TAU
from tvad.scenes.palette import object_colour, shade
from tvad.scenes.tracks import STEP, Track, choose_distance, choose_path, choose_spot, grid, is_clear, travelled, window
from tvad.scenes.types import PART_INDEX, ActorState, Ball, Colour, Ground, Patch, Shape, Stroke

THROWN = PART_INDEX["thrown_object"]
GRAVITY = 9.81


class Missile:
    """A thing that is thrown: carried in the hand, then on a ballistic arc, then lying where it landed."""

    def __init__(self, rng: np.random.Generator, kind: str, colour: Colour) -> None:
        self.kind, self._colour = kind, colour
        self.size = float(rng.uniform(0.10, 0.17) if kind == "ball" else rng.uniform(0.15, 0.21))
        self._spin = float(rng.uniform(3.0, 9.0))

    def fly(self, start: Float[np.ndarray, "3"], velocity: Float[np.ndarray, "3"]) -> None:
        """Fixes the arc; ``duration`` is the time until it lies."""
        self._start, self._velocity = start, velocity
        drop = start[2] - self.size
        self.duration = float((velocity[2] + np.sqrt(velocity[2] ** 2 + 2 * GRAVITY * max(drop, 0.0))) / GRAVITY)

    def at(self, time: float) -> Float[np.ndarray, "3"]:
        """Its middle ``time`` seconds after the release."""
        time = min(time, self.duration)
        place = self._start + self._velocity * time
        return np.array((place[0], place[1], max(self.size, place[2] - 0.5 * GRAVITY * time * time)))

    def shapes(self, centre: Float[np.ndarray, "3"], time: float) -> list[Shape]:
        size, turn = self.size, self._spin * min(time, self.duration) if time > 0 else 0.0
        if self.kind == "ball":
            return [Ball(centre, size, self._colour, THROWN)]
        c, s = cos(turn), sin(turn)
        if self.kind == "bag":
            ends = centre + np.array(
                ((0.8 * size * c, 0.3 * size, 0.8 * size * s), (-0.8 * size * c, -0.3 * size, -0.8 * size * s))
            )
            return [Stroke(ends, size * 0.85, self._colour, THROWN)]
        corners = _CUBE * size
        corners = (
            np.stack(
                (corners[:, 0] * c - corners[:, 2] * s, corners[:, 1], corners[:, 0] * s + corners[:, 2] * c), axis=1
            )
            + centre
        )
        return [Patch(corners[list(face)], shade(self._colour, tone), THROWN) for face, tone in _FACES]


_CUBE = np.array([(x, y, z) for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)], float)
_FACES = (
    ((0, 1, 3, 2), 0.85),
    ((4, 5, 7, 6), 0.95),
    ((0, 1, 5, 4), 0.8),
    ((2, 3, 7, 6), 0.9),
    ((1, 3, 7, 5), 1.1),
    ((0, 2, 6, 4), 0.6),
)


def right_hand(shapes: Sequence[Shape]) -> Float[np.ndarray, "3"]:
    """Where the right hand of a drawn figure is (see ``Figure._draw``: the tenth shape ends in it)."""
    last = shapes[9]
    return last.centre if isinstance(last, Ball) else last.points[-1]


def throwing(ground: Ground, rng: np.random.Generator, duration: float) -> list[Participant]:
    """Somebody throws a ball, bag or box, once or again and again; between throws he walks or stands like others."""
    performer = pedestrian(rng, carry=0.3)
    performer.free_hands()
    overarm = bool(rng.random() < 0.65)
    kind = ("ball", "bag", "box")[int(rng.choice(3, p=(0.35, 0.35, 0.30)))]
    word, colour = object_colour(rng)
    first = window(rng, duration, 1.9)
    walks, clear = rng.random() < 0.3, is_clear(rng)
    count = 1 if walks else 1 + max(0, int((duration - first) / float(rng.uniform(2.4, 4.5))))
    count = min(count, 8)
    starts = [first + index * float(rng.uniform(2.3, 2.6)) for index in range(count)]
    starts = [start for k, start in enumerate(starts) if k == 0 or start > starts[k - 1] + 2.2]
    times = grid(min(-0.1, first - 1.0), duration + 0.1)
    if walks:
        path, span = choose_path(ground, rng, offset=float(rng.uniform(-1, 1)), clear=clear)
        profile = stops(times, walking_speed(rng), [(first, deeds.THROW_LENGTH)])
        along = travelled(times, profile)
        along += choose_distance(ground, rng, path, span, low=0.2, high=0.7, clear=clear) - np.interp(first, times, along)
        xy, heading = path.at(along)
        present = (along > 0) & (along < path.length - 0.2)
    else:
        spot, _ = choose_spot(ground, rng, room=0.2, clear=clear)
        xy, heading = np.broadcast_to(spot, (len(times), 2)), np.full(len(times), float(rng.uniform(0, TAU)))
        profile, present = np.zeros(len(times)), True
    words = np.where(profile < 0.1, "standing", "walking").astype("<U12")
    anomalous = np.zeros(len(times), bool)
    clock = times - times[0]
    missiles: list[tuple[float, Missile]] = []
    carried = times[0] - 1.0 if walks or rng.random() < 0.5 else first - 0.6
    for start in starts:
        missile = Missile(rng, kind, colour)
        row = min(len(times) - 1, max(0, int((start + deeds.RELEASE - times[0]) / STEP)))
        place = np.array((xy[row, 0], xy[row, 1], 0.0))
        shapes = performer.figure.shapes(
            deeds.throw(performer.body, deeds.RELEASE, overarm=overarm), place, float(heading[row])
        )
        away = float(heading[row]) + float(rng.normal(0, 0.1))
        level = float(rng.uniform(4.0, 9.5))
        missile.fly(
            np.array(right_hand(shapes)),
            np.array(
                (
                    level * cos(away),
                    level * sin(away),
                    float(rng.uniform(1.8, 4.6) if overarm else rng.uniform(3.2, 5.2)),
                )
            ),
        )
        missiles.append((start + deeds.RELEASE, missile))
        since = times - start
        active = (since >= 0) & (since < deeds.THROW_LENGTH)
        words[active] = "throwing"
        clock = np.where(active, since, clock)
        anomalous |= (since >= 0) & (since < deeds.RELEASE + missile.duration)
    track = Track(
        times,
        xy,
        heading,
        speed=profile,
        phase=gait_phase(times, profile, performer.body.height),
        motion=words.tolist(),
        clock=clock,
        present=present,
        anomalous=anomalous,
        extra={"overarm": np.full(len(times), float(overarm))},
    )

    def draw(who: Performer, state: ActorState) -> list[Shape]:
        shapes = list(draw_person(who, state))
        hand = right_hand(shapes)
        now, free = state.extra["time"], carried
        for release, missile in missiles:
            if now >= release:
                shapes += missile.shapes(missile.at(now - release), now - release)
                free = float("inf")  # the next one is taken from a pocket or a pile just before its throw
            elif now >= min(free, release - deeds.RELEASE - 0.4):
                free = float("inf")
                shapes += missile.shapes(hand - np.array((0.0, 0.0, 0.5 * missile.size)), 0.0)
        return shapes

    return [
        Participant(
            performer,
            track,
            kind="throwing",
            event="throwing",
            appearance=replace(performer.figure.appearance, object=f"{word} {kind}"),
            draw=draw,
        )
    ]
