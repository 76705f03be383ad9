"""The events that cross the view: driving, riding, pushing, running and gliding along the paths.

A maker takes the ground, a random generator and the duration of the clip and returns the actors of one event; their
speed ranges overlap with those of ordinary walkers on purpose.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Callable

import numpy as np

from tvad.scenes import carts, deeds, poses, vehicles
from tvad.scenes.actors import Participant, Performer, pedestrian, walking_speed
from tvad.scenes.body import TAU, Figure
from tvad.scenes.palette import dress, vehicle_colour
from tvad.scenes.tracks import Track, choose_path, grid, is_clear, travelled, window
from tvad.scenes.types import ActorState, Appearance, Ground, Shape


def _cross(
    ground: Ground, rng: np.random.Generator, duration: float, speed: float, *, offset: float = 0.0, lead: float = 3.0
):
    """Path, rows' times and distances of something that crosses the view at an even speed."""
    path, span = choose_path(ground, rng, offset=offset, clear=is_clear(rng))
    enter = window(rng, duration, max(0.3, (span[1] - span[0]) / speed))
    start = max(0.0, span[0] - lead)
    times = grid(enter - (span[0] - start) / speed, max(enter, duration) + 0.1)
    return path, span, enter, times, start


def _ride(
    ground: Ground,
    rng: np.random.Generator,
    duration: float,
    speed: float,
    *,
    motion: str,
    phase: Callable,
    offset: float,
    wobble: float = 0.05,
) -> Track:
    path, _, _, times, start = _cross(ground, rng, duration, speed, offset=offset, lead=4.5)
    profile = speed * (1.0 + wobble * np.sin(0.9 * times + rng.uniform(0, TAU)))
    along = start + travelled(times, profile)
    xy, heading = path.at(along)
    return Track(
        times,
        xy,
        heading,
        speed=profile,
        phase=phase(along),
        motion=motion,
        present=along < path.length - 0.2,
        anomalous=True,
    )


def car(ground: Ground, rng: np.random.Generator, duration: float) -> list[Participant]:
    """A car, van or utility cart drives slowly along the path."""
    kind = carts.CAR_KINDS[int(rng.choice(3, p=(0.35, 0.25, 0.40)))]
    word, colour = vehicle_colour(rng)
    performer = pedestrian(rng)
    thing = carts.Car(
        kind, colour, driver=performer.figure.colours.top, load=(168, 130, 84) if rng.random() < 0.6 else None
    )
    track = _ride(
        ground,
        rng,
        duration,
        float(rng.uniform(1.1, 4.5)),
        motion="driving",
        phase=lambda s: s / 0.3,
        offset=float(rng.uniform(-0.3, 0.3)),
    )
    return [
        Participant(
            performer,
            track,
            kind="car",
            event="car",
            appearance=Appearance(object=f"{word} {kind}", noun=kind),
            draw=lambda _, state: thing.shapes(state.phase, state.speed, state.position, state.heading),
        )
    ]


def _rider(rng: np.random.Generator, *, helmet: bool) -> Performer:
    appearance, colours = dress(rng, carry=0.5)
    appearance = replace(
        appearance,
        carries=tuple(c for c in appearance.carries if c == "backpack"),
        noun={"person": "man"}.get(appearance.noun, appearance.noun),
    )
    if helmet:
        appearance = replace(appearance, hat="helmet")
    return Performer(Figure(vehicles.seat_body(rng, appearance.noun), colours, appearance), float(rng.random()))


def bicycle(ground: Ground, rng: np.random.Generator, duration: float) -> list[Participant]:
    """A cyclist rides through, as slowly as a walker or three times as fast; one in six walks and pushes."""
    word, colour = vehicle_colour(rng)
    performer = _rider(rng, helmet=rng.random() < 0.25)
    thing = vehicles.Bicycle(performer.figure, colour, upright=bool(rng.random() < 0.5))
    height, offset = performer.body.height, float(rng.uniform(-1, 1))
    if rng.random() < 0.17:
        pace = float(rng.uniform(0.9, 1.6))
        track = _ride(
            ground,
            rng,
            duration,
            pace,
            motion="pushing",
            phase=lambda s: TAU * s / poses.stride(pace, height),
            offset=offset,
        )
        shapes = thing.walked
    else:
        track = _ride(
            ground, rng, duration, float(rng.uniform(1.6, 5.0)), motion="riding", phase=thing.crank_phase, offset=offset
        )
        shapes = thing.shapes
    return [
        Participant(
            performer,
            track,
            kind="bicycle",
            event="bicycle",
            appearance=replace(performer.figure.appearance, object=f"{word} bicycle"),
            draw=lambda _, state: shapes(state.phase, state.speed, state.position, state.heading),
        )
    ]


def motorcycle(ground: Ground, rng: np.random.Generator, duration: float) -> list[Participant]:
    """A motorcycle or scooter rides through."""
    word, colour = vehicle_colour(rng)
    scooter = bool(rng.random() < 0.4)
    performer = _rider(rng, helmet=rng.random() < 0.8)
    thing = vehicles.Motorcycle(performer.figure, colour, scooter=scooter)
    track = _ride(
        ground,
        rng,
        duration,
        float(rng.uniform(1.8, 5.5)),
        motion="riding",
        phase=lambda s: s / 0.3,
        offset=float(rng.uniform(-0.8, 0.8)),
    )
    return [
        Participant(
            performer,
            track,
            kind="motorcycle",
            event="motorcycle",
            appearance=replace(performer.figure.appearance, object=f"{word} {'scooter' if scooter else 'motorcycle'}"),
            draw=lambda _, state: thing.shapes(state.phase, state.speed, state.position, state.heading),
        )
    ]


def _pushing(
    ground: Ground,
    rng: np.random.Generator,
    duration: float,
    thing: carts.HandTruck | carts.Stroller,
    event: str,
    words: str,
) -> list[Participant]:
    performer = pedestrian(rng, carry=0.0)
    height, pace = performer.body.height, float(rng.uniform(0.7, 1.6))
    track = _ride(
        ground,
        rng,
        duration,
        pace,
        motion="pushing",
        phase=lambda s: TAU * s / poses.stride(pace, height),
        offset=float(rng.uniform(-1, 1)),
    )
    lean = float(rng.uniform(0.08, 0.28))

    def draw(who: Performer, state: ActorState) -> list[Shape]:
        pose = poses.push(who.body, state.phase, state.speed, handle=thing.handle, lean=lean)
        return thing.shapes(state.position, state.heading) + who.figure.shapes(pose, state.position, state.heading)

    return [
        Participant(
            performer,
            track,
            kind=event,
            event=event,
            appearance=replace(performer.figure.appearance, object=words),
            draw=draw,
        )
    ]


def hand_truck(ground: Ground, rng: np.random.Generator, duration: float) -> list[Participant]:
    """Somebody pushes a hand truck with boxes."""
    word, colour = vehicle_colour(rng)
    return _pushing(
        ground,
        rng,
        duration,
        carts.HandTruck(colour, carts.random_boxes(rng)),
        "hand_truck",
        f"{word} hand truck with boxes",
    )


def stroller(ground: Ground, rng: np.random.Generator, duration: float) -> list[Participant]:
    """Somebody pushes a stroller."""
    word, colour = vehicle_colour(rng)
    return _pushing(
        ground,
        rng,
        duration,
        carts.Stroller(colour, hood_up=bool(rng.random() < 0.75)),
        "stroller",
        f"{word} stroller",
    )


def running(ground: Ground, rng: np.random.Generator, duration: float) -> list[Participant]:
    """Somebody runs; some walk first, or fall back into a walk."""
    performer = pedestrian(rng, carry=0.4)
    speed, walk = float(rng.uniform(3.2, 5.4)), walking_speed(rng)
    path, span, _, times, start = _cross(ground, rng, duration, speed, offset=float(rng.uniform(-1, 1)))
    profile = np.full(len(times), speed)
    along = start + travelled(times, profile)
    if duration > 2.5 and rng.random() < 0.35:
        # The change of gait happens in view and at least a second from either end of the clip.
        change, starts = float(rng.uniform(1.0, duration - 1.0)), rng.random() < 0.5
        place = float(rng.uniform(0.1, 0.5) if starts else rng.uniform(0.4, 0.8))
        times = grid(-0.1, duration + 0.1)
        share = np.clip((times - change if starts else change - times) / 0.5 + 0.5, 0.0, 1.0)
        profile = walk + (speed - walk) * share
        along = travelled(times, profile)
        along += span[0] + place * (span[1] - span[0]) - np.interp(change, times, along)
    fast = profile > 0.5 * (walk + speed)
    xy, heading = path.at(along)
    stride = np.where(
        fast, poses.running_stride(profile), poses.stride(1.3, performer.body.height) * np.maximum(profile, 0.3) / 1.3
    )
    phase = travelled(times, TAU * profile / stride) + rng.uniform(0, TAU)
    track = Track(
        times,
        xy,
        heading,
        speed=np.where(fast, profile, np.minimum(profile, 2.2)),
        phase=phase,
        motion=np.where(fast, "running", "walking").tolist(),
        present=(along > 0) & (along < path.length - 0.2),
        anomalous=fast,
    )
    return [Participant(performer, track, kind="running", event="running")]


def skateboarding(ground: Ground, rng: np.random.Generator, duration: float) -> list[Participant]:
    """Somebody glides by on a board and kicks off now and then."""
    performer = pedestrian(rng, carry=0.5)
    performer.free_hands()
    word, colour = vehicle_colour(rng)
    speed = float(rng.uniform(2.0, 4.5))
    path, _, _, times, start = _cross(ground, rng, duration, speed, offset=float(rng.uniform(-1, 1)))
    beat = float(rng.uniform(3.0, 5.5))
    kick = np.clip(1.6 - np.abs(((times + rng.uniform(0, beat)) % beat) - 0.8) * 2.2, 0.0, 1.0)
    profile = speed * (0.93 + 0.07 * np.cos(TAU * times / beat))
    along = start + travelled(times, profile)
    xy, heading = path.at(along)
    track = Track(
        times,
        xy,
        heading,
        speed=profile,
        phase=TAU * times / 0.75,
        motion="gliding",
        present=along < path.length - 0.2,
        anomalous=True,
        extra={"push": kick},
    )

    def draw(who: Performer, state: ActorState) -> list[Shape]:
        pose = deeds.glide(who.body, state.extra["clock"], who.style, push=state.extra["push"], phase=state.phase)
        return carts.skateboard(colour, state.position, state.heading) + who.figure.shapes(
            pose, state.position, state.heading
        )

    return [
        Participant(
            performer,
            track,
            kind="skateboarding",
            event="skateboarding",
            appearance=replace(performer.figure.appearance, object=f"{word} skateboard"),
            draw=draw,
        )
    ]
