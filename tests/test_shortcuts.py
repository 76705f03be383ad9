"""Single cues of SimCampus, on actors whose sizes and speeds are known."""
from types import SimpleNamespace

import numpy as np
import pytest

from tvad.datasets.shortcuts import CUES, cue_scores, shortcuts
from tvad.datasets.simcampus import SimCampus
from tvad.errors import DatasetError


def _actor(height, speed, present):
    present = np.asarray(present, bool)
    n = len(present)
    box = np.where(present[:, None], np.tile([0.0, 0.0, 9.0, height - 1.0], (n, 1)), np.nan)
    return SimpleNamespace(present=present, box=box, velocity=np.tile([speed, 0.0], (n, 1)))


@pytest.mark.parametrize(("cue", "wanted"), [
    ("height", [20, 40, 40]), ("area", [200, 400, 400]), ("speed", [5, 5, 1]),
    ("speed by height", [5 / 20, 5 / 20, 1 / 40]), ("number of people", [1, 2, 1]),
])
def test_a_frame_has_the_largest_value_of_the_actors_in_view(cue, wanted):
    actors = [_actor(20, 5.0, [1, 1, 0]), _actor(40, 1.0, [0, 1, 1])]
    assert np.allclose(cue_scores(actors, cue), wanted)


def test_a_sliver_has_no_speed_by_height_and_an_empty_frame_no_score():
    assert np.allclose(cue_scores([_actor(4, 9.0, [1, 0])], "speed by height"), 0)
    assert np.allclose(cue_scores([_actor(20, 9.0, [1, 0])], "speed"), [9, 0])


def test_unknown_cues_and_empty_casts_are_refused():
    with pytest.raises(DatasetError, match="unknown cue 'colour'; give one of height, area"):
        cue_scores([], "colour")
    with pytest.raises(DatasetError, match="without any actor"):
        cue_scores([], "height")


def test_no_single_cue_tells_simulated_events_apart(tmp_path):
    data = SimCampus(videos_per_scene={"train": 1, "val": 3, "test": 1}, frames=16, cache_dir=tmp_path)
    found = shortcuts(data.videos("val"))
    assert set(found) == set(CUES)
    assert all(0 <= value < 0.95 for value in found.values())
