"""The twelve events: those that happen at one place, and the table of all makers.

A maker takes the ground, a random generator and the duration of the clip, chooses a place in view and a time window
that overlaps the clip well, and returns actors whose ``anomalous`` is True exactly during the event.
"""

from __future__ import annotations

from math import cos, pi, sin
from typing import Callable, Mapping

import numpy as np

from tvad.scenes import deeds
from tvad.scenes.actors import Participant, gait_phase, pedestrian, stops, walking_speed
from tvad.scenes.body import TAU
from tvad.scenes.rides import bicycle, car, hand_truck, motorcycle, running, skateboarding, stroller
from tvad.scenes.throws import throwing
from tvad.scenes.tracks import (
    LEGIBLE,
    STEP,
    Track,
    choose_distance,
    choose_path,
    choose_spot,
    grid,
    is_clear,
    travelled,
    window,
)
from tvad.scenes.types import Ground


def falling(ground: Ground, rng: np.random.Generator, duration: float) -> list[Participant]:
    """A walker stumbles, falls flat, lies there, and may get up and walk on."""
    performer = pedestrian(rng, carry=0.5)
    speed = walking_speed(rng)
    lie = float(rng.uniform(1.2, 6.0))
    rises = rng.random() < 0.5
    length = 0.9 + lie + (1.6 if rises else 0.0)
    began = max(-0.7, window(rng, duration, min(length, 3.5)))
    clear = is_clear(rng)
    path, span = choose_path(ground, rng, offset=float(rng.uniform(-1, 1)), clear=clear)
    spot = choose_distance(ground, rng, path, span, clear=clear)
    times = grid(min(-0.1, began - 1.0), duration + 0.1)
    rise = 0.9 + lie if rises else 1e6
    since = times - began
    profile = speed * np.where(since < 0, 1.0, np.clip(1.0 - since / 0.7, 0.0, 1.0)) + speed * np.clip(
        (since - rise - 1.6) / 0.7, 0.0, 1.0
    )
    along = travelled(times, profile)
    along += spot - np.interp(began, times, along)
    xy, heading = path.at(along)
    down = (since >= 0) & (since < rise + 1.6)
    words = np.where(down, np.where((since < 0.95) | (since > rise + 0.6), "falling", "lying"), "walking")
    way = (0.0, 0.0, 0.0, pi, pi / 2, -pi / 2)[int(rng.integers(0, 6))] + float(rng.normal(0, 0.25))
    clock = np.where(down, since, 0.0)
    track = Track(
        times,
        xy,
        heading,
        speed=profile,
        phase=gait_phase(times, profile, performer.body.height),
        motion=words.tolist(),
        clock=np.maximum(clock, 0.0),
        present=(along > 0) & (along < path.length - 0.2),
        anomalous=down,
        extra={"rise": np.full(len(times), rise), "way": np.full(len(times), way)},
    )
    return [Participant(performer, track, kind="falling", event="falling")]


def jumping(ground: Ground, rng: np.random.Generator, duration: float) -> list[Participant]:
    """Somebody jumps again and again, on the spot or a little forward each time; walks or stands before and after."""
    performer = pedestrian(rng, carry=0.3)
    length = float(rng.uniform(2, 8)) * deeds.JUMP_CYCLE
    length = deeds.JUMP_CYCLE * max(1, round(length / deeds.JUMP_CYCLE))
    began = window(rng, duration, length)
    times = grid(min(-0.1, began - 0.5), duration + 0.1)
    since = times - began
    active = (since >= 0) & (since < length)
    walks, clear = rng.random() < 0.45, is_clear(rng)
    if walks:
        path, span = choose_path(ground, rng, offset=float(rng.uniform(-1, 1)), clear=clear)
        profile = stops(times, walking_speed(rng), [(began, length)])
        hop = float(rng.uniform(0.0, 1.4)) if rng.random() < 0.5 else 0.0
        share = (since % deeds.JUMP_CYCLE) / deeds.JUMP_CYCLE
        profile = profile + np.where(active & (share > 0.36) & (share < 0.92), hop, 0.0)
        along = travelled(times, profile)
        along += choose_distance(ground, rng, path, span, low=0.2, high=0.7, clear=clear) - np.interp(began, times, along)
        xy, heading = path.at(along)
        words = np.where(active, "jumping", np.where(profile < 0.1, "standing", "walking"))
        present = (along > 0) & (along < path.length - 0.2)
    else:
        spot, _ = choose_spot(ground, rng, clear=clear)
        xy, heading = np.broadcast_to(spot, (len(times), 2)), np.full(len(times), float(rng.uniform(0, TAU)))
        profile, words, present = np.zeros(len(times)), np.where(active, "jumping", "standing"), True
    track = Track(
        times,
        xy,
        heading,
        speed=profile,
        phase=gait_phase(times, profile, performer.body.height),
        motion=words.tolist(),
        present=present,
        anomalous=active,
    )
    return [Participant(performer, track, kind="jumping", event="jumping")]


def loitering(ground: Ground, rng: np.random.Generator, duration: float) -> list[Participant]:
    """Somebody lingers off the paths: a few slow steps to and fro, stooped, looking about and bending to peer."""
    performer = pedestrian(rng, hooded=rng.random() < 0.8, carry=0.3)
    performer.free_hands()
    corners = [np.asarray(c, float) for c in ground.corners() if ground.visible(c)]
    clear = is_clear(rng)
    if clear:
        corners = [c for c in corners if ground.metre(c) >= LEGIBLE] or corners
    if corners:
        centre = corners[int(rng.integers(len(corners)))] + rng.normal(0, 0.25, 2)
    else:
        centre, _ = choose_spot(ground, rng, clear=clear)
    turn = float(rng.uniform(0, TAU))
    direction = np.array((cos(turn), sin(turn)))
    reach, speed = float(rng.uniform(0.7, 1.8)), float(rng.uniform(0.40, 0.75))
    times = grid(-0.1 - float(rng.uniform(0, 10)), duration + 0.1)
    place, way = float(rng.uniform(-reach, reach)), 1.0
    offsets, headings, speeds, peers = [], [], [], []
    now, mode, left = turn, "go", 0.0
    for _ in times:
        goal = turn if way > 0 else turn + pi
        peer = 0.0
        v = 0.0
        if mode == "go":
            v = speed
            place += way * v * STEP
            if way * place >= reach:
                mode, left = ("peer", float(rng.uniform(1.5, 3.2))) if rng.random() < 0.55 else ("turn", 1.0)
                total = left
                reach = float(rng.uniform(0.7, 1.8))
                if mode == "turn":
                    way = -way
        elif mode == "peer":
            left -= STEP
            peer = float(min(1.0, (total - left) / 0.5, max(0.0, left) / 0.5))
            if left <= 0:
                mode, left, way = "turn", 1.0, -way
        else:
            left -= STEP
            if left <= 0:
                mode = "go"
        step = 3.6 * STEP
        now += float(np.clip(goal - now, -step, step))
        offsets.append(place)
        headings.append(now)
        speeds.append(v)
        peers.append(peer)
    speeds = np.convolve(np.pad(np.array(speeds), 3, mode="edge"), np.ones(7) / 7, "valid")
    xy = centre + np.array(offsets)[:, None] * direction
    track = Track(
        times,
        xy,
        np.array(headings),
        speed=speeds,
        phase=gait_phase(times, speeds, performer.body.height),
        motion="pacing",
        anomalous=True,
        extra={"peer": np.array(peers)},
    )
    return [Participant(performer, track, kind="loitering", event="loitering")]


def fighting(ground: Ground, rng: np.random.Generator, duration: float) -> list[Participant]:
    """Two or three people brawl; before and after they stand in talk."""
    count = 2 if rng.random() < 0.75 else 3
    centre, _ = choose_spot(ground, rng, room=0.2, clear=is_clear(rng))
    length = float(rng.uniform(1.5, 9.0))
    began = window(rng, duration, length)
    times = grid(-0.1, duration + 0.1)
    since = times - began
    active = (since >= 0) & (since < length)
    close = np.clip(since / 0.4 + 1.0, 0.0, 1.0) * np.clip((length - since) / 0.5 + 1.0, 0.0, 1.0)
    gap = (0.46 if count == 2 else 0.56) + 0.30 * (1.0 - close)
    turn = float(rng.uniform(0, TAU))
    spin = float(rng.uniform(-0.5, 0.5))
    drift = close[:, None] * 0.35 * np.stack((np.sin(0.7 * times + turn), np.cos(0.9 * times + turn)), axis=1)
    spots = []
    for index in range(count):
        angle = turn + TAU * index / count + spin * np.cumsum(active) * STEP
        sway = close * 0.12 * np.sin(3.1 * times + 2.0 * index)
        radius = gap + sway
        spots.append(centre + drift + radius[:, None] * np.stack((np.cos(angle), np.sin(angle)), axis=1))
    people = []
    for index in range(count):
        performer = pedestrian(rng, carry=0.25)
        performer.free_hands()
        other = spots[(index + 1) % count]
        way = other - spots[index]
        heading = np.unwrap(np.arctan2(way[:, 1], way[:, 0]))
        words = np.where(active, "fighting", "talking")
        speed = np.concatenate(([0.0], np.hypot(*np.diff(spots[index], axis=0).T) / STEP))
        track = Track(
            times,
            spots[index],
            heading,
            speed=speed,
            phase=np.zeros(len(times)),
            motion=words.tolist(),
            clock=times + 30.0,
            anomalous=active,
        )
        people.append(Participant(performer, track, kind="fighting", event="fighting"))
    return people


Maker = Callable[[Ground, np.random.Generator, float], list[Participant]]
MAKERS: Mapping[str, Maker] = {
    "car": car,
    "bicycle": bicycle,
    "fighting": fighting,
    "throwing": throwing,
    "hand_truck": hand_truck,
    "running": running,
    "skateboarding": skateboarding,
    "falling": falling,
    "jumping": jumping,
    "loitering": loitering,
    "motorcycle": motorcycle,
    "stroller": stroller,
}
