"""The actors of the simulator: poses, trajectories, events and casting, on a stub ground."""

from __future__ import annotations

import math

import numpy as np
import pytest

from tvad.errors import ParameterError
from tvad.scenes import deeds, poses
from tvad.scenes.actors import Performer, gait_phase, pedestrian, stroll
from tvad.scenes.body import Body, Figure, place, two_link
from tvad.scenes.events import MAKERS
from tvad.scenes.palette import COLOURS, RANGES, describe, draw, dress
from tvad.scenes.script import cast
from tvad.scenes.tracks import STEP, Path, Track, grid
from tvad.scenes.types import EVENTS, MOTIONS, PART_INDEX, PARTS, Appearance, Ball, Stroke


class Lawn:
    """Two straight paths and a bend, seen by a camera that shows a rectangle."""

    name = "lawn"

    def paths(self):
        bend = np.array([(-2.0, 4.0), (0.0, 12.0), (9.0, 20.0)])
        return [np.array([(-14.0, 10.0), (14.0, 10.0)]), np.array([(-14.0, 13.0), (14.0, 12.0)]), bend]

    def stands(self):
        return [np.array(spot) for spot in ((-3.0, 9.0), (2.0, 11.0), (4.0, 14.0))]

    def seats(self):
        return [(np.array((0.0, 16.0)), -math.pi / 2)]

    def corners(self):
        return [np.array((-5.0, 17.0)), np.array((5.0, 8.0))]

    def visible(self, xy, margin=0.0):
        return bool(abs(xy[0]) < 7 + margin and 6 - margin < xy[1] < 18 + margin)

    def metre(self, xy):
        return 240.0 / xy[1]


LAWN = Lawn()
TIMES = np.arange(0.0, 6.0, 0.1)


def points_of(shape):
    return shape.centre[None] if isinstance(shape, Ball) else shape.points


def made(event, seed, duration=6.0):
    return MAKERS[event](LAWN, np.random.default_rng(seed), duration)


def walk_of(speed, *, seed=0, pause=""):
    rng = np.random.default_rng(seed)
    path = Path(LAWN.paths()[0])
    performer = pedestrian(rng)
    while pause == "bag" and not performer.bag:
        performer = pedestrian(rng)
    span = path.visible_span(LAWN)
    return stroll(rng, path, performer, enter=0.0, duration=20.0, speed=speed, span=span, pause=pause)


def test_cast_is_the_same_for_the_same_seed_and_another_for_another():
    def trace(seed):
        rows = []
        for actor in cast(LAWN, seed=seed, duration=4.0, events=("throwing", "bicycle"), density=4):
            for time in (0.3, 2.0):
                state = actor.state(time)
                rows += [points_of(shape).sum() for shape in actor.shapes(state)]
        return np.array(rows)

    assert np.array_equal(trace(5), trace(5))
    assert trace(5).shape != trace(6).shape or not np.allclose(trace(5), trace(6))


def test_adding_an_event_leaves_the_crowd_and_the_events_before_it_alone():
    plain, more = (cast(LAWN, seed=9, duration=4.0, events=names, density=5) for names in ((), ("car", "falling")))
    assert len(more) == len(plain) + 2
    for a, b in zip(plain, more):
        assert a.appearance == b.appearance and np.array_equal(a.state(1.0).position, b.state(1.0).position)


@pytest.mark.parametrize("event", EVENTS)
def test_every_event_is_in_view_and_marked_as_its_own(event):
    for seed in range(12):
        for duration in (1.0, 6.0):
            actors = made(event, seed, duration)
            assert len(actors) in ((2, 3) if event == "fighting" else (1,))
            shown = 0
            for time in np.arange(0.0, duration, 0.05):
                states = [actor.state(time) for actor in actors]
                shown += any(s.anomalous and LAWN.visible(s.position[:2], 1.0) for s in states)
                assert all(s.motion in MOTIONS for s in states)
            assert shown >= 5, f"{event}: seed {seed}, {duration} s: in view for {shown * 0.05:.2f} s"
            assert all(actor.event == event and actor.kind == event for actor in actors)


def test_events_at_a_place_have_normal_time_before_or_after():
    for event in ("fighting", "throwing", "falling", "jumping"):
        shares = []
        for seed in range(10):
            actor = made(event, seed)[0]
            shares.append(np.mean([actor.state(time).anomalous for time in TIMES]))
        assert 0.05 < np.mean(shares) < 0.95 and min(shares) < 0.7, (event, shares)


@pytest.mark.parametrize(
    "event, part",
    [("car", "car"), ("bicycle", "bicycle"), ("motorcycle", "motorcycle"), ("hand_truck", "hand_truck"),
     ("stroller", "stroller"), ("skateboarding", "skateboard"), ("throwing", "thrown_object")],
)  # fmt: skip
def test_things_are_part_of_their_actor_and_named_in_its_appearance(event, part):
    actor = made(event, 3)[0]
    time = next(t for t in TIMES if actor.state(t).anomalous)
    parts = {PARTS[shape.part] for shape in actor.shapes(actor.state(time))}
    assert part in parts
    assert actor.appearance.object.split()[0] in COLOURS
    if event != "car":
        assert {"head", "torso", "arm", "leg"} <= parts


def test_shapes_stay_few_finite_and_above_the_ground():
    crowd = cast(LAWN, seed=2, duration=6.0, events=EVENTS, density=8)
    limits = {"pedestrian": 19, "car": 40, "bicycle": 28, "motorcycle": 30, "hand_truck": 34, "stroller": 36}
    for actor in crowd:
        for time in TIMES[::6]:
            state = actor.state(time)
            shapes = actor.shapes(state)
            assert len(shapes) <= limits.get(actor.kind, 40)
            points = np.concatenate([points_of(shape) for shape in shapes])
            assert np.isfinite(points).all() and points[:, 2].min() > -0.06 and points[:, 2].max() < 9.0


def test_ordinary_people_are_never_targets_and_do_much_of_what_targets_do():
    motions, speeds = set(), []
    for seed in range(25):
        for actor in cast(LAWN, seed=seed, duration=6.0, density=8):
            assert actor.kind == "pedestrian" and actor.event is None
            for time in (0.5, 3.0, 5.5):
                state = actor.state(time)
                assert not state.anomalous
                if state.present:
                    motions.add(state.motion)
                    speeds.append(state.speed)
    assert {"walking", "hurrying", "standing", "talking", "sitting", "putting_down"} <= motions
    assert max(speeds) > 1.9 and min(speeds) == 0
    riders = [made("bicycle", seed)[0].state(3.0).speed for seed in range(30)]
    assert min(riders) < max(speeds), "some cyclist is slower than a person in a hurry"


def test_density_is_the_mean_number_in_view():
    for density in (3.0, 10.0):
        counts = []
        for seed in range(25):
            people = cast(LAWN, seed=seed, duration=5.0, density=density)
            for time in (0.5, 2.5, 4.5):
                states = [person.state(time) for person in people]
                counts.append(sum(s.present and LAWN.visible(s.position[:2]) for s in states))
        assert 0.7 * density < np.mean(counts) < 1.4 * density


def test_unknown_event_and_empty_duration_are_refused_by_name():
    with pytest.raises(ParameterError, match="unknown event 'runing'; did you mean 'running'"):
        cast(LAWN, seed=0, duration=3.0, events=("runing",))
    with pytest.raises(ParameterError, match="duration: got 0; give seconds above 0"):
        cast(LAWN, seed=0, duration=0)


def test_a_ground_whose_paths_are_out_of_view_is_refused():
    class Blind(Lawn):
        def visible(self, xy, margin=0.0):
            return False

    with pytest.raises(ValueError, match="scene 'lawn': no path is in view"):
        cast(Blind(), seed=0, duration=3.0)


@pytest.mark.parametrize("speed, brisk", [(0.7, 0.0), (1.3, 0.0), (2.2, 1.0)])
def test_planted_feet_do_not_slide(speed, brisk):
    body = Body(height=1.75, build=1.0)
    times = grid(0.0, 4.0)
    phase = gait_phase(times, np.full(len(times), speed), body.height)
    planted = []
    for time, angle in zip(times, phase):
        cycle = angle / (2 * math.pi)
        if 0.12 < cycle % 1.0 < 0.34:
            foot = poses.walk(body, angle, speed, brisk=brisk).feet[0]
            planted.append((int(cycle), speed * time + foot.f))
    stances = {}
    for step, place_ in planted:
        stances.setdefault(step, []).append(place_)
    full = [values for values in stances.values() if len(values) > 2]
    assert len(full) >= 2
    assert max(np.ptp(values) for values in full) < 0.01


def test_running_leaves_the_ground_and_reads_differently_from_walking():
    body = Body(height=1.75, build=1.0)
    angles = np.linspace(0, 2 * math.pi, 60, endpoint=False)
    lowest = [min(foot.u for foot in poses.run(body, angle, 4.5).feet) for angle in angles]
    assert max(lowest) > 0.03                                        # a flight: both feet are up
    assert all(min(foot.u for foot in poses.walk(body, angle, 1.4).feet) < 0.03 for angle in angles)
    assert max(foot.u for angle in angles for foot in poses.run(body, angle, 4.5).feet) > 0.4
    assert poses.run(body, 0.0, 4.5).lean > 1.6 * poses.walk(body, 0.0, 2.2, brisk=1.0).lean


def test_two_link_keeps_lengths_and_reaches():
    rng = np.random.default_rng(0)
    for _ in range(50):
        root, target = rng.normal(0, 0.3, 3), rng.normal(0, 0.3, 3)
        middle, end = two_link(tuple(root), tuple(target), 0.4, 0.4, (1.0, 0.0, 0.2))
        assert np.linalg.norm(np.subtract(middle, root)) == pytest.approx(0.4, abs=1e-6)
        assert np.linalg.norm(np.subtract(end, middle)) == pytest.approx(0.4, abs=1e-6)
        if np.linalg.norm(target - root) < 0.79:
            assert np.allclose(end, target, atol=1e-6)


def test_place_equals_a_rotation_point_by_point():
    local, position, heading = np.random.default_rng(1).normal(size=(5, 3)), np.array((3.0, -2.0, 0.5)), 0.7
    c, s = math.cos(heading), math.sin(heading)
    axes = np.array(((c, s, 0.0), (-s, c, 0.0), (0.0, 0.0, 1.0)))
    slow = [position + sum(point[k] * axes[k] for k in range(3)) for point in local]
    assert np.allclose(place(local, position, heading), slow)


def test_state_interpolates_like_the_slow_way():
    rng = np.random.default_rng(4)
    times = grid(-1.0, 3.0)
    n = len(times)
    xy, heading, speed = rng.normal(size=(n, 2)), np.cumsum(rng.normal(0, 0.1, n)), rng.random(n)
    track = Track(times, xy, heading, speed=speed, phase=np.cumsum(speed), motion="walking")
    for time in rng.uniform(-1.0, 3.0, 30):
        state = track.at(time)
        assert state.position[:2] == pytest.approx([np.interp(time, times, xy[:, axis]) for axis in (0, 1)])
        assert state.heading == pytest.approx(np.interp(time, times, np.unwrap(heading)))
        assert state.speed == pytest.approx(np.interp(time, times, speed)) and state.present
    assert not track.at(-1.2).present and not track.at(9.0).present
    with pytest.raises(ValueError, match="unknown: \\['dancing'\\]; use the words of MOTIONS"):
        Track(times, xy, heading, speed=speed, phase=speed, motion="dancing")


def test_nobody_jumps_between_places():
    for actor in cast(LAWN, seed=11, duration=6.0, events=EVENTS, density=6):
        states = [actor.state(time) for time in np.arange(0.0, 6.0, STEP)]
        for a, b in zip(states, states[1:]):
            if a.present and b.present:
                assert np.linalg.norm(b.position - a.position) < 7.0 * STEP
                assert abs(b.heading - a.heading) < 1.0


def test_a_bag_is_put_down_left_standing_and_picked_up():
    actor = walk_of(1.3, pause="bag")
    words, heights = [], []
    for time in np.arange(0.0, 18.0, 0.1):
        state = actor.state(time)
        if not words or words[-1] != state.motion:
            words.append(state.motion)
        bag = [shape for shape in actor.shapes(state) if shape.part == PART_INDEX["bag"]]
        heights.append((state.motion, bag[0].points[:, 2].mean()))
    down = words.index("putting_down")
    assert words[down:down + 3] == ["putting_down", "standing", "picking_up"] and words[-1] == "walking"
    assert max(height for motion, height in heights if motion == "walking") > 0.35
    assert min(height for motion, height in heights if motion == "picking_up") < 0.2


def test_a_thrown_thing_flies_from_the_hand_and_lands_when_the_event_ends():
    checked = 0
    for seed in range(12):
        actor = made("throwing", seed, 8.0)[0]
        heights = []
        for time in np.arange(0.0, 8.0, 0.05):
            state = actor.state(time)
            things = [s for s in actor.shapes(state) if s.part == PART_INDEX["thrown_object"]]
            if things:
                first = things[0]
                heights.append((state.anomalous, float(points_of(first)[:, 2].mean()), state.motion))
        if heights and heights[0][1] > 0.4 and not heights[-1][0]:
            checked += 1
            assert max(height for _, height, _ in heights) > 1.0
            assert heights[-1][1] < 0.45
            landed = [height for anomalous, height, motion in heights if not anomalous and motion != "throwing"]
            assert landed and landed[-1] == heights[-1][1]
    assert checked >= 3


def test_a_fall_ends_flat_and_a_riser_stands_again():
    body, rise = Body(height=1.75, build=1.0), 4.0
    performer = Performer(Figure(body, dress(np.random.default_rng(0))[1], Appearance(top="red", bottom="blue")), 0.5)

    def head(clock):
        pose = deeds.stumble_and_fall(body, clock, phase=0.0, speed=1.0, rise=rise, way=0.0)
        shapes = performer.figure.shapes(pose, np.zeros(3), 0.3)
        return max(shape.centre[2] for shape in shapes if isinstance(shape, Ball) and shape.part == PART_INDEX["head"])

    assert head(0.0) > 1.5 and head(0.3) > 1.1
    assert head(1.0) < 0.5 and head(rise) < 0.5
    assert head(rise + 1.6) > 1.5
    steps = [head(clock) for clock in np.arange(0.0, rise + 1.7, 0.05)]
    assert np.abs(np.diff(steps)).max() < 0.35


def test_jumps_have_both_feet_in_the_air_again_and_again():
    body = Body(height=1.75, build=1.0)
    for style in (0.2, 0.9):
        lifts = np.array([deeds.jump(body, clock, style).lift for clock in np.arange(0, 3 * deeds.JUMP_CYCLE, 0.02)])
        takeoffs = np.sum((lifts[1:] > 0.05) & (lifts[:-1] <= 0.05))
        assert takeoffs == 3 and lifts.max() > 0.35


def test_loiterers_stay_at_a_corner_off_the_paths_and_turn_about():
    for seed in range(5):
        actor = made("loitering", seed, 20.0)[0]
        states = [actor.state(time) for time in np.arange(0, 20, 0.2)]
        places = np.array([state.position[:2] for state in states])
        assert min(np.linalg.norm(places.mean(0) - corner) for corner in LAWN.corners()) < 2.5
        assert np.ptp(places, axis=0).max() < 4.5 and np.linalg.norm(np.diff(places, axis=0), axis=1).sum() > 2.0
        assert np.ptp([state.heading for state in states]) > 2.5
        assert all(state.anomalous and state.motion == "pacing" for state in states)


def test_fighters_are_close_and_face_each_other():
    actors = made("fighting", 1)
    states = [actor.state(next(t for t in TIMES if actor.state(t).anomalous)) for actor in actors]
    gap = states[1].position - states[0].position
    assert 0.5 < np.linalg.norm(gap) < 1.5
    assert math.cos(states[0].heading - math.atan2(gap[1], gap[0])) > 0.8


def test_describe_names_what_is_worn_and_ridden():
    look = Appearance(top="red", bottom="blue", hair="black", carries=("backpack",), noun="man")
    assert describe(look) == "a man in a red top and blue trousers with a backpack"
    rider = Appearance(top="orange", bottom="grey", hat="helmet", object="white bicycle", noun="woman")
    assert describe(rider) == "a woman in an orange top and grey trousers with a helmet and a white bicycle"
    assert describe(Appearance(object="yellow van", noun="van")) == "a yellow van"


def test_colours_are_nearest_to_their_own_word():
    rng = np.random.default_rng(0)
    middles = np.array([np.add(*RANGES[word]) / 2 for word in COLOURS])
    right = total = 0
    for index, word in enumerate(COLOURS):
        for _ in range(40):
            distance = np.linalg.norm(middles - np.array(draw(rng, word)), axis=1)
            right, total = right + (distance.argmin() == index), total + 1
    assert right / total > 0.93


def test_figures_are_as_tall_as_their_bodies():
    rng = np.random.default_rng(3)
    for _ in range(10):
        performer = pedestrian(rng, carry=0.0)
        shapes = performer.figure.shapes(poses.stand(performer.body, 0.0, 0.9), np.zeros(3), 1.0)
        top = max(shape.centre[2] + shape.radius for shape in shapes if isinstance(shape, Ball))
        feet = min(shape.points[:, 2].min() - shape.radius for shape in shapes if isinstance(shape, Stroke))
        assert top == pytest.approx(performer.body.height, rel=0.08) and abs(feet) < 0.06
