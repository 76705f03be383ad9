"""People in view and their ordinary behaviour: walking, hurrying, waiting, talking, sitting, handling bags.

Every actor has its trajectory computed when it is made (:class:`tvad.scenes.tracks.Track`); ``state(time)`` looks it up
and ``shapes(state)`` poses a figure.  Ordinary behaviour shares looks, paths, speeds and stillness with the events of
:mod:`tvad.scenes.events`, so that neither motion nor size tells them apart.
"""

from __future__ import annotations

from typing import Callable, Sequence

import numpy as np
from jaxtyping import Float

from tvad.scenes import deeds, poses
from tvad.scenes.body import TAU, Body, Figure, Pose
from tvad.scenes.palette import describe, dress
from tvad.scenes.tracks import STEP, Path, Track, facing, grid, travelled
from tvad.scenes.types import ActorState, Appearance, Shape

__all__ = ["Participant", "Performer", "describe", "pedestrian", "stroll", "wait", "converse", "rest"]

Draw = Callable[["Performer", ActorState], Sequence[Shape]]


class Performer:
    """What does not change over time: a figure, its habits (``style`` 0..1) and how it is drawn."""

    def __init__(self, figure: Figure, style: float) -> None:
        self.figure, self.style = figure, style
        carries = figure.appearance.carries
        self.bag, self.umbrella = "bag" in carries, "umbrella" in carries

    @property
    def body(self) -> Body:
        return self.figure.body

    def free_hands(self) -> Performer:
        """The same person without hand bag and umbrella."""
        self.figure.hide_umbrella()
        self.figure.hide_bag()
        self.bag = self.umbrella = False
        return self

    def put_umbrella_away(self) -> Performer:
        self.figure.hide_umbrella()
        self.umbrella = False
        return self

    def pose(self, state: ActorState) -> Pose:
        """The posture that belongs to the state's motion."""
        body, style, motion, clock = self.figure.body, self.style, state.motion, state.extra["clock"]
        if motion == "walking":
            return poses.walk(body, state.phase, state.speed, bag=self.bag, umbrella=self.umbrella, style=style)
        if motion == "hurrying":
            return poses.walk(
                body, state.phase, state.speed, brisk=1.0, bag=self.bag, umbrella=self.umbrella, style=style
            )
        if motion == "running":
            return poses.run(body, state.phase, state.speed)
        if motion == "standing":
            if state.extra.get("bag_down"):
                return poses.beside_bag(body, clock, style)
            return poses.stand(body, clock, style, bag=self.bag, umbrella=self.umbrella)
        if motion == "talking":
            return poses.talk(body, clock, style, bag=self.bag)
        if motion == "sitting":
            return poses.sit(body, clock, style)
        if motion in ("putting_down", "picking_up"):
            return poses.handle_bag(body, clock, down=motion == "putting_down")
        if motion == "pacing":
            return deeds.pace(body, state.phase, state.speed, clock, style, peer=state.extra.get("peer", 0.0))
        if motion in ("falling", "lying"):
            return deeds.stumble_and_fall(
                body, clock, phase=state.phase, speed=state.speed, rise=state.extra["rise"], way=state.extra["way"]
            )
        if motion == "jumping":
            return deeds.jump(body, clock, style, height=0.30 + 0.25 * style)
        if motion == "throwing":
            return deeds.throw(body, clock, overarm=state.extra["overarm"] > 0.5)
        if motion == "fighting":
            return deeds.fight(body, clock, style)
        return poses.stand(body, clock, style)


def draw_person(performer: Performer, state: ActorState) -> Sequence[Shape]:
    """The plain pedestrian."""
    return performer.figure.shapes(performer.pose(state), state.position, state.heading)


class Participant:
    """An actor (see :class:`tvad.scenes.types.Actor`): a trajectory, a performer and a way to draw it."""

    def __init__(
        self,
        performer: Performer,
        track: Track,
        *,
        kind: str = "pedestrian",
        event: str | None = None,
        appearance: Appearance | None = None,
        draw: Draw = draw_person,
    ) -> None:
        self.kind, self.event = kind, event
        self.appearance = performer.figure.appearance if appearance is None else appearance
        self.performer, self.track, self._draw = performer, track, draw

    def state(self, time: float) -> ActorState:
        """Where it is and what it does at ``time`` seconds; a pure function."""
        return self.track.at(time)

    def shapes(self, state: ActorState) -> Sequence[Shape]:
        """What to draw for a state, in world coordinates."""
        return self._draw(self.performer, state)


def pedestrian(rng: np.random.Generator, *, hooded: bool = False, carry: float = 1.0) -> Performer:
    """A random person with a body, clothes and habits of its own."""
    appearance, colours = dress(rng, hooded=hooded, carry=carry)
    return Performer(Figure(Body.random(rng, appearance.noun), colours, appearance), float(rng.random()))


def walking_speed(rng: np.random.Generator) -> float:
    """Metres a second: a third of the people are slow, most walk at 1.1 to 1.5."""
    return float(rng.uniform(0.5, 1.0)) if rng.random() < 0.25 else float(np.clip(rng.normal(1.30, 0.17), 0.9, 1.75))


def hurrying_speed(rng: np.random.Generator) -> float:
    return float(rng.uniform(1.95, 2.35))


def gait_phase(
    times: Float[np.ndarray, "n"], speed: Float[np.ndarray, "n"], height: float, *, start: float = 0.0
) -> Float[np.ndarray, "n"]:
    """Phase of a walk whose strides fit the speed, so that planted feet do not slide."""
    rate = TAU * speed / (height * (0.42 + 0.30 * np.minimum(speed, 2.4)))
    return start + travelled(times, rate)


def stops(times: Float[np.ndarray, "n"], speed: float, pauses: Sequence[tuple[float, float]]) -> Float[np.ndarray, "n"]:
    """A speed profile that is ``speed`` but for standstills at ``(start, length)``, with ramps of 0.7 s around them."""
    profile = np.full(len(times), speed)
    for start, length in pauses:
        profile *= 1.0 - np.clip(
            np.minimum((times - start + 0.7) / 0.7, (start + length + 0.7 - times) / 0.7), 0.0, 1.0
        )
    return profile


def stroll(
    rng: np.random.Generator,
    path: Path,
    performer: Performer,
    *,
    enter: float,
    duration: float,
    speed: float,
    span: tuple[float, float],
    pause: str = "",
    start: float = 0.0,
) -> Participant:
    """Somebody walks (above 1.9 m/s: hurries) along ``path``, reaching ``span[0]`` of it at time ``enter``.

    ``pause``: "" to go straight through, "stand" to stop for a while, "bag" to put a bag down and pick it up again.
    ``start``: phase of the gait at the first row (pairs walk in step or not).
    """
    lead = min(span[0], 4.0)
    times = grid(enter - lead / speed, max(duration, enter) + 0.1)
    pauses: list[tuple[float, float]] = []
    length = 0.0
    if pause:
        length = float(rng.uniform(4.2, 7.0) if pause == "bag" else rng.uniform(1.5, 5.0))
        crossing = (span[1] - span[0]) / speed
        # A pause that somebody can see: while he is in the middle of the view and the clip still runs.
        first, last = max(enter + 0.15 * crossing, 0.2), min(enter + 0.85 * crossing, duration - 0.3)
        pauses = [(float(rng.uniform(first, last)), length)] if last > first else []
    profile = stops(times, speed, pauses)
    along = span[0] - lead + travelled(times, profile)
    xy, heading = path.at(along)
    moving = "hurrying" if speed > 1.9 else "walking"
    words = np.full(len(times), moving, dtype="<U12")
    bag_down = np.zeros(len(times))
    if pauses:
        began = pauses[0][0]
        still = (times >= began - 0.12) & (times < began + length + 0.12)
        words[still] = "standing"
        if pause == "bag":
            words[(times >= began) & (times < began + 1.6)] = "putting_down"
            words[(times >= began + length - 1.6) & (times < began + length)] = "picking_up"
            bag_down[(times >= began + 1.6) & (times < began + length - 1.6)] = 1.0
    phase = gait_phase(times, profile, performer.body.height, start=start)
    track = Track(
        times,
        xy,
        heading,
        speed=profile,
        phase=phase,
        motion=words.tolist(),
        present=along < path.length - 0.2,
        extra={"bag_down": bag_down},
    )
    return Participant(performer, track)


def _still(
    duration: float, xy: Sequence[float], heading: float | Float[np.ndarray, "n"], motion: str, *, clock: float
) -> Track:
    times = grid(-0.1, duration + 0.1)
    n = len(times)
    # The clock starts anywhere, or all who wait would gesture in step.
    return Track(
        times,
        np.broadcast_to(np.asarray(xy, float), (n, 2)),
        np.broadcast_to(heading, n),
        speed=np.zeros(n),
        phase=np.zeros(n),
        motion=motion,
        clock=clock + STEP * np.arange(n),
    )


def wait(rng: np.random.Generator, performer: Performer, xy: Sequence[float], *, duration: float) -> Participant:
    """Somebody stands at a place on the path, shifting a little, and turns slowly now and then."""
    times = grid(-0.1, duration + 0.1)
    turn = rng.uniform(-1.2, 1.2) * 0.5 * (1.0 + np.tanh((times - rng.uniform(0, max(duration, 1.0))) / 0.4))
    track = _still(duration, xy, float(rng.uniform(0, TAU)) + turn, "standing", clock=float(rng.uniform(0, 60)))
    return Participant(performer, track)


def converse(
    rng: np.random.Generator, performers: Sequence[Performer], xy: Sequence[float], *, duration: float
) -> list[Participant]:
    """Two to four people stand in a ring and talk."""
    centre, turn = np.asarray(xy, float), rng.uniform(0, TAU)
    radius = 0.42 + 0.12 * len(performers)
    people = []
    for index, performer in enumerate(performers):
        angle = turn + TAU * index / len(performers) + rng.normal(0, 0.15)
        spot = centre + radius * np.array((np.cos(angle), np.sin(angle)))
        heading = facing(spot, centre) + float(rng.normal(0, 0.2))
        people.append(
            Participant(performer, _still(duration, spot, heading, "talking", clock=float(rng.uniform(0, 60))))
        )
    return people


def rest(
    rng: np.random.Generator, performer: Performer, xy: Sequence[float], heading: float, *, duration: float
) -> Participant:
    """Somebody sits on a seat."""
    return Participant(performer, _still(duration, xy, heading, "sitting", clock=float(rng.uniform(0, 60))))
