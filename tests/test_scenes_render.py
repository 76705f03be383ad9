"""The world and the renderer of SimCampus: geometry, exact labels, occlusion, determinism, errors."""

from __future__ import annotations

import math
from dataclasses import replace

import cv2
import numpy as np
import pytest

from tvad.errors import ParameterError
from tvad.scenes.camera import Camera
from tvad.scenes.draw import flatten
from tvad.scenes.paint import backdrop
from tvad.scenes.render import make_footage, render, stream
from tvad.scenes.sensor import Sensor, _displace
from tvad.scenes.types import PART_INDEX, ActorState, Appearance, Ball, Patch, Stroke
from tvad.scenes.world import SCENES, SPLITS

SMALL = (120, 180)
CLEAN = Sensor(noise=0, blur=0, quality=100, shake=0, drift=0)
TORSO, HEAD = PART_INDEX["torso"], PART_INDEX["head"]


class Post:
    """A person-sized actor that slides straight ahead; enough to test the renderer without the cast."""

    kind, event, appearance = "pedestrian", None, Appearance()

    def __init__(self, at, velocity=(0.0, 0.0)):
        self.at, self.velocity = np.array([*at, 0.0]), np.array([*velocity, 0.0])

    def state(self, time):
        return ActorState(self.at + time * self.velocity, 0.0, 1.0, "walking", 0.0, anomalous=time >= 0.2)

    def shapes(self, state):
        at = state.position
        return [
            Stroke(np.stack([at + (0, 0, 0.2), at + (0, 0, 1.4)]), 0.25, (200, 40, 40), TORSO),
            Ball(at + np.array([0, 0, 1.65]), 0.14, (220, 180, 150), HEAD),
        ]


@pytest.fixture(scope="module")
def scene():
    return replace(SCENES["scene00"], sensor=CLEAN)


def test_camera_ground_is_the_inverse_of_project():
    camera = Camera(7.0, 0.5, 1.3, roll=0.02, look=(1.0, -2.0))
    xy = np.random.default_rng(0).uniform(-4, 6, (50, 2))
    pixels, depth = camera.project(np.concatenate([xy, np.zeros((50, 1))], 1), size=SMALL)
    assert (depth > 0).all()
    np.testing.assert_allclose(camera.ground(pixels, size=SMALL), xy, atol=1e-9)
    middle, _ = camera.project(np.array([1.0, -2.0, 0.0]), size=SMALL)
    np.testing.assert_allclose(middle, (90, 60), atol=1e-9)
    assert np.isnan(camera.ground(np.array([90.0, -500.0]), size=SMALL)).all()


def test_camera_scale_is_the_size_of_a_metre():
    camera = Camera(6.0, 0.4, 1.2)
    ends = np.array([[-0.05, 2.0, 0.0], [0.05, 2.0, 0.0]])
    pixels, _ = camera.project(ends)
    assert camera.scale(np.array([0.0, 2.0])) == pytest.approx((pixels[1, 0] - pixels[0, 0]) * 10, rel=1e-6)


def test_scenes_are_thirteen_in_three_disjoint_splits():
    assert [len(SPLITS[split]) for split in ("train", "val", "test")] == [8, 2, 3]
    assert sorted(sum(SPLITS.values(), ())) == sorted(SCENES)
    assert any(SCENES[name].grade.grey for name in SPLITS["test"])
    assert len({(one.camera.height, one.camera.tilt, one.camera.focal) for one in SCENES.values()}) == 13


@pytest.mark.parametrize("name", list(SCENES))
def test_paths_cross_the_view_in_several_directions(name):
    place = SCENES[name]
    assert len(place.paths()) >= 4 and len(place.stands()) >= 3 and len(place.corners()) >= 1
    ways = []
    for path in place.paths():
        assert np.isfinite(path).all() and len(path) >= 2
        ways.append(math.atan2(*(path[-1] - path[0])[::-1]) % math.pi)
        assert np.linalg.norm(path[-1] - path[0]) > 5
    assert max(ways) - min(ways) > 0.5


def test_visible_agrees_with_the_camera():
    place, rng = SCENES["scene05"], np.random.default_rng(1)
    points = rng.uniform(-25, 25, (400, 2))
    for margin in (0.0, 1.0, -2.0):
        slow = place.camera.sees(points, margin=margin)
        assert [place.visible(point, margin) for point in points] == slow.tolist()
        assert 0 < slow.sum() < 400


def test_vary_is_deterministic_and_changes_the_look():
    first, again = (SCENES["scene02"].vary(np.random.default_rng(7)) for _ in range(2))
    other = SCENES["scene02"].vary(np.random.default_rng(8))
    assert first == again and first != other
    assert first.camera.height / SCENES["scene02"].camera.height == pytest.approx(1.0, abs=0.2001)
    assert not np.array_equal(backdrop(first, SMALL).labels, backdrop(other, SMALL).labels)


def test_same_seed_same_bytes():
    noisy = SCENES["scene03"]
    people = [Post((0.0, 1.0), (1.0, 0.0)), Post((2.0, 4.0))]
    first = render(noisy, people, frames=4, seed=3, size=SMALL)
    again = render(noisy, people, frames=4, seed=3, size=SMALL)
    other = render(noisy, people, frames=4, seed=4, size=SMALL)
    for field in ("frames", "instances", "parts"):
        assert getattr(first, field).tobytes() == getattr(again, field).tobytes()
    assert first.frames.tobytes() != other.frames.tobytes()


def test_stream_and_start_give_the_frames_of_render():
    scene, people = SCENES["scene05"], [Post((0.0, 1.0), (1.0, 0.0))]
    whole = render(scene, people, frames=20, seed=3, size=SMALL)
    parts = np.concatenate(list(stream(scene, people, frames=20, seed=3, size=SMALL)))
    np.testing.assert_array_equal(parts, whole.frames)
    late = render(scene, people, frames=5, seed=3, size=SMALL, start=15)
    np.testing.assert_array_equal(late.frames, whole.frames[15:])


def test_truth_of_a_track_matches_the_masks(scene):
    near, far = Post((0.3, 0.0), (0.8, 0.0)), Post((0.4, 0.9))
    footage = render(scene, [near, far], frames=6, seed=0, size=SMALL)
    assert set(np.unique(footage.instances)) == {0, 1, 2}
    for track in footage.actors:
        for index in range(6):
            rows, columns = np.nonzero(footage.instances[index] == track.id)
            box = (columns.min(), rows.min(), columns.max(), rows.max())
            np.testing.assert_array_equal(track.box[index], box)
            assert set(np.unique(footage.parts[index][rows, columns])) <= {TORSO, HEAD}
    alone = render(scene, [far], frames=1, seed=0, size=SMALL)
    share = (footage.instances[0] == 2).sum() / (alone.instances[0] == 1).sum()
    assert footage.actors[1].visible[0] == pytest.approx(share, abs=1e-6) and share < 0.9
    assert footage.actors[0].visible[0] == 1.0
    masks = footage.anomaly_masks()
    assert not masks[:2].any() and masks[2:].any()


def test_velocity_is_the_projected_motion_to_the_next_frame(scene):
    actor = Post((0.0, 2.0), (1.5, -0.5))
    track = render(scene, [actor], frames=3, fps=10, seed=0, size=SMALL).actors[0]
    points = np.array([[0.15 * k, 2.0 - 0.05 * k, 0.9] for k in range(4)])
    pixels, _ = scene.camera.project(points, size=SMALL)
    np.testing.assert_allclose(track.velocity, np.diff(pixels, axis=0), atol=1e-4)


def test_occluders_cover_those_behind_and_not_those_in_front(scene):
    pole = next(thing for thing in scene.plan.things if thing.kind == "pole")
    bare = backdrop(scene, SMALL).labels[..., 1] == PART_INDEX["pole"]
    behind = render(scene, [Post((pole.at[0], pole.at[1] + 1.0))], frames=1, seed=0, size=SMALL)
    before = render(scene, [Post((pole.at[0], pole.at[1] - 1.0))], frames=1, seed=0, size=SMALL)
    assert behind.actors[0].visible[0] < 1.0
    assert (behind.parts[0][bare] == PART_INDEX["pole"]).all()
    assert before.actors[0].visible[0] == 1.0
    assert (before.instances[0][bare] == 1).any()


def test_pixels_away_from_an_actor_stay_the_backdrop(scene):
    footage = render(scene, [Post((0.0, 0.0))], frames=1, seed=0, size=SMALL)
    same = (footage.frames[0] == backdrop(scene, SMALL).frame).all(-1)
    assert same[:, :40].all() and not same[footage.instances[0] > 0].all()


def test_actors_outside_the_view_or_behind_the_camera_are_absent(scene):
    back = scene.camera.position[1] - 5.0
    footage = render(scene, [Post((0.0, back)), Post((500.0, 0.0))], frames=2, seed=0, size=SMALL)
    assert not footage.instances.any()
    for track in footage.actors:
        assert not track.present.any() and np.isnan(track.box).all() and (track.visible == 0).all()


def test_grey_scenes_have_equal_channels():
    footage = render(SCENES["scene01"], [Post((0.0, 0.0))], frames=2, seed=0, size=SMALL)
    assert (footage.frames[..., 0] == footage.frames[..., 1]).all()
    assert (footage.frames[..., 0] == footage.frames[..., 2]).all()


def test_flatten_equals_a_walk_over_the_shapes():
    rng = np.random.default_rng(2)
    line = Stroke(rng.normal(size=(4, 3)), 0.3, (1, 2, 3), TORSO, 0.12)
    groups = [
        [line, Patch(rng.normal(size=(5, 3)), (4, 5, 6), HEAD)],
        [],
        [Ball(rng.normal(size=3), 0.2, (7, 8, 9), HEAD)],
    ]
    flat = flatten(groups)
    slow = []
    for k in range(3):
        radii = [0.3 + (0.12 - 0.3) * j / 3 for j in (k, k + 1)]
        slow.append((line.points[k], line.points[k + 1], *radii))
    slow.append((groups[2][0].centre, groups[2][0].centre, 0.2, 0.2))
    assert len(flat.ends) == len(slow)
    for (first, last), radii, (a, b, start, end) in zip(flat.ends, flat.radii, slow):
        np.testing.assert_allclose(flat.points[first], a)
        np.testing.assert_allclose(flat.points[last], b)
        np.testing.assert_allclose(radii, (start, end))
    assert flat.polygons.tolist() == [[4, 9, 1]]
    assert flat.group_of.tolist() == [0, 0, 2] and flat.groups == 3


@pytest.mark.parametrize("move", [(0.3, -0.2), (-1.4, 0.75), (2.0, 0.0)])
def test_displacement_equals_a_warp(move):
    image = cv2.GaussianBlur(np.random.default_rng(0).integers(0, 255, (40, 60, 3), np.uint8), (5, 5), 2)
    matrix = np.array([[1, 0, move[0]], [0, 1, move[1]]])
    slow = cv2.warpAffine(image, matrix, (60, 40), borderMode=cv2.BORDER_REPLICATE)
    assert np.abs(_displace(image, *move).astype(int) - slow).max() <= 3


def test_make_footage_draws_the_events_asked_for():
    footage = make_footage("scene04", 5, frames=30, events=("bicycle",), density=3.0, size=SMALL)
    assert footage.frames.shape == (30, *SMALL, 3) and footage.frames.dtype == np.uint8
    assert any(track.event == "bicycle" for track in footage.actors)
    assert footage.instances.max() <= len(footage.actors)


def test_errors_say_what_to_do():
    with pytest.raises(ParameterError, match="unknown scene 'scene99'; known: scene00, "):
        make_footage("scene99", 1)
    with pytest.raises(ParameterError, match="300 actors do not fit 8-bit labels; give at most 254"):
        render(SCENES["scene00"], [Post((0, 0))] * 300, frames=1, seed=0, size=SMALL)
    with pytest.raises(ParameterError, match="frames=0, fps=10.0; give at least one frame"):
        render(SCENES["scene00"], [], frames=0, seed=0, size=SMALL)
