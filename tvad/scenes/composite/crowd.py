"""Who is pasted into a real frame: ordinary people of every kind that alarms wrongly, and the events.

Ordinary people walk, hurry, stand, talk, go in dense groups and are cut by the picture's edge, so that neither being
pasted nor any of that tells an event.  Events are those of the simulator and ``gliding``: somebody who stands upright and
moves faster than walkers do (skates, a board or scooter too small to see).
"""
from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Callable, Mapping, Sequence

import numpy as np
from jaxtyping import Float

from tvad.scenes import deeds, poses
from tvad.scenes.actors import Participant, Performer, converse, hurrying_speed, pedestrian, stroll, wait, walking_speed
from tvad.scenes.body import TAU
from tvad.scenes.composite.site import Place, Site
from tvad.scenes.events import MAKERS
from tvad.scenes.tracks import Path, Track, grid, travelled
from tvad.scenes.types import EVENTS, Actor, ActorState, Ground, Shape

GLIDING = "gliding"
KINDS: tuple[str, ...] = (*EVENTS, GLIDING)
# A loiterer is told by being off the paths, which footage does not say, and by minutes, which a pair does not show.
DEFAULT_KINDS: tuple[str, ...] = tuple(kind for kind in KINDS if kind != "loitering")
_DURATION = 4.0    # seconds of an event's life from which the moment is drawn
_INSTANT = 0.6     # seconds that ordinary people live for a pair
_SHOWN = 0.05      # share of a scene in which its event must be seen
_CROSSING = 6.0    # seconds that somebody takes through the view, about
_TRIES = 6
ORDINARY: Mapping[str, float] = {"walker": 0.34, "hurrying": 0.14, "group": 0.22, "edge": 0.18, "standing": 0.06,
                                 "talk": 0.06}


@dataclass(frozen=True)
class Pasted:
    """An actor and the instant (seconds of its own time) of the first frame; ``stays``: it is there all the time."""
    actor: Actor
    time: float
    stays: bool = False


def gliding(ground: Ground, rng: np.random.Generator, duration: float) -> list[Participant]:
    """Somebody glides along the way, upright, with legs nearly still; kicks off now and then."""
    performer = pedestrian(rng, carry=0.6).put_umbrella_away()
    path = Path(ground.paths()[0], reverse=bool(rng.random() < 0.5))
    span = path.visible_span(ground)
    speed = float(rng.uniform(1.7, 4.5))
    place = span[0] + float(rng.uniform(0.02, 0.98)) * (span[1] - span[0])
    times = grid(-0.1, duration + 0.1)
    along = place + travelled(times, np.full(len(times), speed)) - speed * duration * float(rng.uniform(0, 1))
    xy, heading = path.at(along)
    bent, kick = rng.random() < 0.5, float(rng.random() < 0.25)
    track = Track(times, xy, heading, speed=np.full(len(times), speed), phase=TAU * times / 0.8, motion="gliding",
                  clock=float(rng.uniform(0, 30)) + times, present=(along > 0) & (along < path.length), anomalous=True,
                  extra={"push": np.full(len(times), kick)})

    def draw(who: Performer, state: ActorState) -> Sequence[Shape]:
        if bent or state.extra["push"]:
            pose = deeds.glide(who.body, state.extra["clock"], who.style, push=state.extra["push"], phase=state.phase)
        else:
            pose = poses.stand(who.body, state.extra["clock"], who.style, bag=who.bag)
        return who.figure.shapes(pose, state.position, state.heading)

    return [Participant(performer, track, kind=GLIDING, event=GLIDING, draw=draw)]


_MAKERS: Mapping[str, Callable[[Ground, np.random.Generator, float], list[Participant]]] = {**MAKERS, GLIDING: gliding}


def event(site: Site, rng: np.random.Generator, kind: str) -> list[Pasted]:
    """The actors of one event at an instant at which it happens in view; an empty list where the draws found none."""
    for _ in range(_TRIES):
        place = site.place(rng)
        try:
            actors = _MAKERS[kind](place, rng, _DURATION)
        except ValueError:      # moved aside, the way through this place runs out of view: another place
            continue
        times = np.sort(rng.uniform(0, _DURATION, 12))
        states = [actors[0].state(float(time)) for time in times]
        fitting = [time for time, state in zip(times, states) if state.present and state.anomalous
                   and place.visible(state.position, -0.1)]
        if fitting:
            time = float(rng.choice(fitting))
            return [Pasted(actor, time) for actor in actors]
    return []


def scene(site: Site, rng: np.random.Generator, *, kind: str, duration: float, people: float) -> list[tuple[Pasted, str]]:
    """Who is about during ``duration`` seconds, each with the name of his event, "" for ordinary people.

    ``kind``: of the event, "" for none; ``people``: mean number of groups of ordinary people that come in the time that one
    takes through the view, beside one group at least.  Instants are those of the scene's first frame.  Where the draws find
    no such event in view, there are ordinary people alone.
    """
    cast = [(Pasted(actor, 0.0), kind) for actor in (_lasting_event(site, rng, kind, duration) if kind else ())]
    for _ in range(1 + rng.poisson(people * max(1.0, duration / _CROSSING))):
        at = float(rng.uniform(0, duration))      # when the group is where it was drawn
        for member in ordinary(site, rng, lasting=duration):
            cast.append((member if member.stays else replace(member, time=-at), ""))
    return cast


def _lasting_event(site: Site, rng: np.random.Generator, kind: str, duration: float) -> Sequence[Actor]:
    for _ in range(_TRIES):
        place = site.place(rng)
        try:
            actors = _MAKERS[kind](place, rng, duration)
        except ValueError:
            continue
        states = [actors[0].state(float(time)) for time in np.linspace(0, duration, 60)]
        if np.mean([state.present and state.anomalous and place.visible(state.position, -0.1)
                    for state in states]) >= _SHOWN:
            return actors
    return []


def ordinary(site: Site, rng: np.random.Generator, *, near: Sequence[Float[np.ndarray, "2"]] = (),
             lasting: float = _INSTANT) -> list[Pasted]:
    """One or several ordinary people; ``near``: ground points of real people, whom some of them join; ``lasting``: seconds
    that they go on."""
    kind = str(rng.choice(list(ORDINARY), p=list(ORDINARY.values())))
    joins = near[int(rng.integers(len(near)))] if len(near) and rng.random() < 0.35 else None
    place = site.place(rng, near=joins)
    if kind == "standing":
        return [Pasted(wait(rng, pedestrian(rng), place.point, duration=lasting + 0.4), 0.3, stays=True)]
    if kind == "talk":
        people = [pedestrian(rng).put_umbrella_away() for _ in range(int(rng.integers(2, 5)))]
        return [Pasted(person, 0.3, stays=True) for person in converse(rng, people, place.point, duration=lasting + 0.4)]
    speed = hurrying_speed(rng) if kind == "hurrying" else walking_speed(rng)
    reverse = bool(rng.random() < 0.5)
    count = int(rng.choice((2, 3, 4, 5, 6), p=(0.4, 0.25, 0.15, 0.12, 0.08))) if kind == "group" else 1
    members = [_walker(place, rng, speed=speed, reverse=reverse, edge=kind == "edge", share=None, aside=0.0, back=0.0,
                       lasting=lasting)]
    share = members[0][1]
    for _ in range(count - 1):
        members.append(_walker(place, rng, speed=speed, reverse=reverse, edge=False, share=share,
                               aside=float(rng.normal(0, 0.6)), back=float(rng.normal(0, 0.7)), lasting=lasting))
    return [Pasted(walker, 0.0) for walker, _ in members]


def _walker(place: Place, rng: np.random.Generator, *, speed: float, reverse: bool, edge: bool, share: float | None,
            aside: float, back: float, lasting: float) -> tuple[Participant, float]:
    """Somebody who at time 0 is at ``share`` of the way in view (drawn where None), moved aside and back by metres."""
    path = Path(place.paths()[0], offset=aside, reverse=reverse)
    span = path.visible_span(place)
    length = max(0.5, span[1] - span[0])
    if share is None:
        if edge:  # about the border: half of a body's stride in or out
            at = float(rng.uniform(-0.45, 0.55))
            share = at / length if rng.random() < 0.5 else 1 - at / length
        else:
            middle = path.at(np.linspace(0, path.length, 40))[0]
            nearest = int(np.argmin(np.linalg.norm(middle - place.point, axis=1))) / 39 * path.length
            share = float(np.clip((nearest - span[0]) / length + rng.normal(0, 0.08), 0.02, 0.98))
    enter = -(share * length - back) / speed
    walker = stroll(rng, path, pedestrian(rng), enter=enter, duration=max(lasting, enter + 0.2), speed=speed, span=span,
                    start=float(rng.uniform(0, TAU)))
    return walker, share
