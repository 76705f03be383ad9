"""What a clip shows beside its targets, from SimCampus' script and scene: place, light, people, ordinary doings.

Only facts that somebody could see are kept: people of at least ``LEAST_HEIGHT`` pixels, things whose place is in view.
"""
from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tvad.language.timeline import Pace, pace_of
from tvad.language.tracks import MaskTrack
from tvad.scenes.world import SCENES, Scene

LEAST_HEIGHT, LEAST_AREA = 8, 40     # of a person's box, pixels; smaller ones cannot be counted by anybody
LEAST_FRAMES = 3                     # a doing seen for less is not told
_THINGS: Mapping[str, float] = {  # metres up: where it must be in view
    "tree": 1.0, "bench": 0.3, "parked_bicycle": 0.5, "parked_car": 0.7, "pole": 2.0,
}
_ORDINARY = ("walking", "hurrying", "standing", "talking", "sitting", "putting_down", "picking_up")

# Lookalikes: what could be taken for which event, and is none while no actor shows the event.
_LOOKALIKES: Mapping[str, str] = {
    "hurrying": "running", "sitting": "falling", "talking": "fighting", "standing": "loitering",
    "putting_down": "throwing", "picking_up": "throwing",
}
_PARKED: Mapping[str, str] = {"parked_bicycle": "bicycle", "parked_car": "car"}


@dataclass(frozen=True)
class Surroundings:
    """``place`` is a template of ``tvad.scenes.layouts``, ``light`` "sun", "dull" or "dark"; ``things`` counts what stands
    in view.  ``people`` counts who can be seen in the clip, drivers aside.  ``doings``: ordinary motions, most frequent
    first.  ``events``: classes of which any actor shows the motion in the clip, large or small.
    """

    place: str
    light: str
    things: Mapping[str, int] = field(default_factory=dict)
    people: int = 0
    doings: tuple[str, ...] = ()
    events: frozenset[str] = frozenset()

    def lookalikes(self) -> list[tuple[str, str]]:
        """(class, the harmless doing or thing that is like it) for classes that no actor shows."""
        like = [(kind, word) for word, kind in _LOOKALIKES.items() if word in self.doings]
        like += [(kind, thing) for thing, kind in _PARKED.items() if self.things.get(thing)]
        return [(kind, what) for kind, what in like if kind not in self.events]


def scene_of(recipe: Any) -> Scene:
    """The scene that a SimCampus recipe films: one of SCENES or a relative of it."""
    scene = SCENES[recipe.scene]
    return scene if recipe.relative is None else scene.vary(np.random.default_rng(recipe.relative))


def things_in_view(scene: Scene, *, size: tuple[int, int]) -> dict[str, int]:
    """How many trees, benches, lamp posts, parked bicycles and cars stand in view, behind no wall."""
    counts = dict.fromkeys(_THINGS, 0)
    height, width = size
    for thing in scene.plan.things:
        if thing.kind in counts:
            pixel, depth = scene.camera.project(np.array([*thing.at, _THINGS[thing.kind] * thing.size]), size=size)
            inside = 0 <= pixel[0] < width and 0 <= pixel[1] < height and depth > 0.5
            counts[thing.kind] += bool(inside and not _behind_a_wall(scene, thing.at))
    return counts


def _behind_a_wall(scene: Scene, at: tuple[float, float]) -> bool:
    """Whether a building's ground line crosses the line of sight to a ground point."""
    eye, spot = scene.camera.position[:2], np.array(at)

    def side(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> float:
        return (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0])

    for wall in scene.plan.buildings:
        start, end = np.array(wall.start), np.array(wall.end)
        if side(eye, spot, start) * side(eye, spot, end) < 0 and side(start, end, eye) * side(start, end, spot) < 0:
            return True
    return False


class SceneTruth:
    """Surroundings of every clip of one SimCampus video."""

    def __init__(self, scene: Scene, script: Mapping[str, Any]) -> None:
        self.scene, self.script = scene, script
        light = "dark" if scene.light.ambient < 0.7 else "sun" if scene.light.sun >= 0.4 else "dull"
        self._still = dict(place=scene.template, light=light, things=things_in_view(scene, size=tuple(script["size"])))
        self._words = {actor["id"]: _spread(actor["motion"]) for actor in script["actors"]}

    def of(self, start: int, stop: int) -> Surroundings:
        """What frames ``start`` to ``stop`` (exclusive) show."""
        doings: Counter[str] = Counter()
        people, events = 0, set()
        for actor in self.script["actors"]:
            boxes, words = actor["box"][start:stop], self._words[actor["id"]][start:stop]
            present = [box is not None for box in boxes]
            seen = np.array([box is not None and _is_seen(box) for box in boxes])
            odd = np.zeros(stop - start, bool)
            for a, b in actor["anomalous"]:
                odd[max(0, a - start):max(0, b - start)] = True
            if actor["event"] and (odd & present).any():
                events.add(actor["event"])
            if actor["kind"] == "car":
                continue
            people += bool(seen.any())
            for word, count in Counter(words[seen & ~odd]).items():
                if word in _ORDINARY and count >= LEAST_FRAMES:
                    doings[word] += count
        order = sorted(doings, key=lambda word: (-doings[word], word))
        return Surroundings(**self._still, people=people, doings=tuple(order), events=frozenset(events))


def _spread(runs: list) -> np.ndarray:
    words = np.empty(runs[-1][1], object)
    for start, stop, word in runs:
        words[start:stop] = word
    return words


def _is_seen(box: list[int]) -> bool:
    width, height = box[2] - box[0] + 1, box[3] - box[1] + 1
    return height >= LEAST_HEIGHT and width * height >= LEAST_AREA


def walkers_pace(script: Mapping[str, Any]) -> Pace | None:
    """Pace of those who walk in a SimCampus script, for ``timeline_of``; None where too few do."""
    tracks = []
    for actor in script["actors"]:
        if actor["event"] is None:
            frames = [k for start, stop, word in actor["motion"] if word == "walking" for k in range(start, stop)
                      if actor["box"][k] is not None]
            if frames:
                tracks.append(MaskTrack.of(actor["id"], frames, boxes=[actor["box"][k] for k in frames]))
    return pace_of(tracks)
