"""Who appears in a clip: ordinary people in a given density, and the events asked for."""

from __future__ import annotations

import difflib
from typing import Sequence

import numpy as np
from jaxtyping import Float

from tvad.errors import ParameterError
from tvad.scenes.actors import (
    Participant,
    converse,
    hurrying_speed,
    pedestrian,
    rest,
    stroll,
    wait,
    walking_speed,
)
from tvad.scenes.body import TAU
from tvad.scenes.events import MAKERS
from tvad.scenes.tracks import Path, choose_path
from tvad.scenes.types import EVENTS, Actor, Ground


def cast(
    ground: Ground, *, seed: int, duration: float, events: Sequence[str] = (), density: float | None = None
) -> list[Actor]:
    """The actors of one clip of ``duration`` seconds, the same for the same arguments.

    ``events``: names of EVENTS, one target (fighting: two or three) for each, repeats allowed.  ``density``: how many
    ordinary people are in view on average; by default drawn between 2 and 15.  Ordinary people come first, then the
    events in the order given.  Raises :class:`ParameterError` for an unknown event or a duration that is not positive.
    """
    for event in events:
        if event not in MAKERS:
            close = difflib.get_close_matches(event, EVENTS, 1)
            hint = f"; did you mean {close[0]!r}?" if close else ""
            raise ParameterError(f"events: unknown event {event!r}{hint} allowed: {', '.join(EVENTS)}")
    if not duration > 0:
        raise ParameterError(f"duration: got {duration!r}; give seconds above 0")
    root = np.random.SeedSequence((seed, len(ground.name), *ground.name.encode()))
    crowd_seed, event_seed = root.spawn(2)
    rng = np.random.default_rng(crowd_seed)
    if density is None:
        density = float(rng.choice((2.5, 4.0, 6.0, 8.0, 11.0, 15.0), p=(0.16, 0.22, 0.22, 0.18, 0.13, 0.09)))
    actors: list[Actor] = list(_crowd(ground, rng, duration=duration, density=density))
    for event, child in zip(events, event_seed.spawn(len(events))):
        actors += MAKERS[event](ground, np.random.default_rng(child), float(duration))
    return actors


def _crowd(ground: Ground, rng: np.random.Generator, *, duration: float, density: float) -> list[Participant]:
    people: list[Participant] = []
    stands = [spot for spot in ground.stands() if ground.visible(spot)]
    rng.shuffle(stands)
    seats = [seat for seat in ground.seats() if ground.visible(seat[0])]
    # Up to about a third of the people stay where they are.
    still = density * float(rng.uniform(0.0, 0.45))
    for spot, heading in seats:
        if len(people) < still and rng.random() < 0.5:
            people.append(rest(rng, pedestrian(rng).put_umbrella_away(), spot, heading, duration=duration))
    while stands and len(people) < still:
        spot = stands.pop()
        if rng.random() < 0.6:
            group = [
                pedestrian(rng).put_umbrella_away() for _ in range(int(rng.choice((2, 3, 4), p=(0.6, 0.28, 0.12))))
            ]
            people += converse(rng, group, spot, duration=duration)
        else:
            people.append(wait(rng, pedestrian(rng), spot, duration=duration))
    people += _walkers(ground, rng, duration=duration, density=max(1.0, density - len(people)))
    return people


def _walkers(ground: Ground, rng: np.random.Generator, *, duration: float, density: float) -> list[Participant]:
    """A flow of walkers with ``density`` of them in view on average, from before the clip to its end."""
    people: list[Participant] = []
    filled, wanted = 0.0, density * duration  # person-seconds in view
    while filled < wanted and len(people) < 120:
        side = float(rng.choice((-1.0, 1.0)))
        path, span = choose_path(ground, rng, offset=side * float(rng.uniform(0.1, 1.3)))
        hurries = rng.random() < 0.16
        speed = hurrying_speed(rng) if hurries else walking_speed(rng)
        crossing = max(0.5, (span[1] - span[0]) / speed)
        enter = float(rng.uniform(-crossing, duration))
        performer = pedestrian(rng)
        pause = ""
        if not hurries:
            if performer.bag and rng.random() < 0.30:
                pause = "bag"
            elif rng.random() < 0.12:
                pause = "stand"
        people.append(
            stroll(
                rng,
                path,
                performer,
                enter=enter,
                duration=duration,
                speed=speed,
                span=span,
                pause=pause,
                start=float(rng.uniform(0, TAU)),
            )
        )
        filled += max(0.0, min(duration, enter + crossing) - max(0.0, enter))
        if not pause and rng.random() < 0.22:
            # A companion at the same pace, half a metre to the side.
            beside = _Beside(path, float(rng.choice((-0.6, 0.6))))
            people.append(
                stroll(
                    rng,
                    beside,
                    pedestrian(rng),
                    enter=enter + float(rng.normal(0, 0.08)),
                    duration=duration,
                    speed=speed,
                    span=span,
                    start=float(rng.uniform(0, TAU)),
                )
            )
            filled += max(0.0, min(duration, enter + crossing) - max(0.0, enter))
    return people


class _Beside:
    """A path moved sideways, with the arc lengths of the path it goes with, so that a pair stays abreast in curves."""

    def __init__(self, path: Path, offset: float) -> None:
        self._path, self._offset, self.length = path, offset, path.length

    def at(self, distance: Float[np.ndarray, "n"]) -> tuple[Float[np.ndarray, "n 2"], Float[np.ndarray, "n"]]:
        xy, heading = self._path.at(distance)
        return xy + self._offset * np.stack((-np.sin(heading), np.cos(heading)), axis=-1), heading
