"""What is around the targets of a clip: things, people, doings."""
from __future__ import annotations

import pytest

from tvad.language.surroundings import SceneTruth, scene_of, things_in_view
from tvad.scenes.world import SCENES


@pytest.mark.parametrize("name", ["scene02", "scene06", "scene08"])
def test_things_in_view_are_those_that_show(name):
    import numpy as np

    from tvad.scenes.render import render
    from tvad.scenes.types import PART_INDEX

    scene = SCENES[name]
    shown = np.bincount(render(scene, [], frames=1, seed=0).parts.ravel(), minlength=len(PART_INDEX))
    counts = things_in_view(scene, size=(240, 360))
    assert {thing: count > 0 for thing, count in counts.items()} == {
        thing: bool(shown[PART_INDEX[thing]] > 20) for thing in counts}


def actor(number, kind, event, boxes, runs, anomalous=()):
    return {"id": number, "kind": kind, "event": event, "box": boxes, "motion": runs,
            "anomalous": [list(run) for run in anomalous]}


def test_people_and_doings_of_a_clip():
    man, far = [10, 10, 20, 40], [10, 10, 12, 15]
    script = {"size": [240, 360], "actors": [
        actor(1, "pedestrian", None, [man] * 30, [[0, 20, "walking"], [20, 30, "standing"]]),
        actor(2, "pedestrian", None, [far] * 30, [[0, 30, "talking"]]),                      # too small to be counted
        actor(3, "running", "running", [man] * 30, [[0, 15, "walking"], [15, 30, "running"]], [(15, 30)]),
        actor(4, "car", "car", [None] * 25 + [man] * 5, [[0, 30, "driving"]], [(25, 30)]),
    ]}
    truth = SceneTruth(SCENES["scene06"], script)
    early, late = truth.of(0, 15), truth.of(15, 30)
    assert (early.people, early.doings, early.events) == (2, ("walking",), frozenset())
    assert (late.people, late.doings, late.events) == (2, ("standing", "walking"), frozenset({"running", "car"}))
    assert (early.place, early.light) == ("parking", "dark") and early.things["parked_car"] > 1


def test_a_relative_of_a_scene_is_what_its_recipe_films():
    from tvad.datasets.simcampus import recipes

    base, relative = recipes("train", videos_per_scene=2)[:2]
    assert scene_of(base) is SCENES["scene00"] and scene_of(relative).name.startswith("scene00~")
