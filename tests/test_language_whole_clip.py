"""What only the whole clip tells: two who circle each other, pieces that go two ways, long hiding, a thrower's things."""
from __future__ import annotations

import numpy as np
import pytest

from tvad.language.circling import _fit, turn_of
from tvad.language.counting import turning
from tvad.language.exchanging import exchange
from tvad.language.mending import lies_still
from tvad.language.parting import part_people
from tvad.language.target import Target
from tvad.language.tracks import targets_of_binary, tracks_from_binary
from tvad.language.views import View

SIZE = (60, 90)


def blank(frames):
    return np.zeros((frames, *SIZE), np.uint8)


def put(masks, frame, x, y, wide=8, high=14):
    masks[frame, max(y, 0):max(y + high, 0), max(x, 0):max(x + wide, 0)] = 1


def ring(angles, people=2, radius=6):
    """Masks and true left edges of people around a spot, the nearer one lower, the first at ``angles`` on the ground."""
    masks, edges = blank(len(angles)), []
    for frame, angle in enumerate(angles):
        turned = [angle + 2 * np.pi * place / people for place in range(people)]
        spots = [(round(40 + radius * np.cos(a)), round(18 + 0.8 * radius * np.sin(a))) for a in turned]
        for x, y in spots:
            put(masks, frame, x, y, wide=9, high=26)
        edges.append([x for x, _ in spots])
    return masks, np.array(edges)


def views(masks):
    found = []
    for frame, mask in enumerate(masks):
        (y, x) = np.nonzero(mask)
        found.append(View(frame, x.min(), y.min(), mask[y.min():y.max() + 1, x.min():x.max() + 1] > 0))
    return found


def test_two_who_walk_around_each_other_change_sides_where_they_do():
    masks, edges = ring(0.3 + 0.05 * np.arange(50))
    edges = edges[:, edges[0].argsort()]
    turn = turn_of(views(masks))
    assert turn.places.shape == (2, 50) and turn.places[0, 0] < turn.places[1, 0]
    apart, true = turn.places[1] - turn.places[0], edges[:, 1] - edges[:, 0]
    assert true.min() < -5 and np.abs(apart - true).max() < 4
    backwards = turn_of([View(k, view.x, view.y, view.pixels) for k, view in enumerate(views(masks)[::-1])])
    assert np.allclose(backwards.places[::-1, ::-1], turn.places, atol=1.5)


def test_three_who_circle_change_places_one_after_the_other():
    masks, edges = ring(0.2 - 0.05 * np.arange(60), people=3, radius=9)
    edges = edges[:, edges[0].argsort()].T
    turn = turn_of(views(masks), 3)
    true = edges - edges.mean(axis=0)
    assert turn.places.shape == (3, 60) and np.abs(turn.places - true).max() < 6
    assert len({tuple(order) for order in edges.argsort(axis=0).T}) >= 4
    clear = np.diff(np.sort(edges, axis=0), axis=0).min(axis=0) > 3
    assert (turn.places.argsort(axis=0) == edges.argsort(axis=0))[:, clear].all() and clear.sum() > 20
    assert turning(views(masks)) > 0.5 > turning(views(ring(0.3 + 0.05 * np.arange(50))[0]))
    assert turning(views(masks)[:5]) == 0


def test_who_circles_with_two_others_keeps_his_track(monkeypatch):
    masks, edges = ring(0.2 - 0.05 * np.arange(60), people=3, radius=9)
    (target,), labels = targets_of_binary(masks)
    monkeypatch.setattr("tvad.language.parting.people_in", lambda *_: 3)
    found = np.array([[box[0] for box in person.boxes] for person in part_people(target, labels)])
    true = edges[:, edges[0].argsort()].T
    assert found.shape == (3, 60) and np.abs(found - true).mean() < 3
    assert (found[:, 0].argsort() != found[:, 40].argsort()).any()


def test_two_who_do_not_turn_change_no_sides():
    steady, _ = ring(np.full(50, 0.4))
    swaying, _ = ring(0.4 + 0.5 * np.sin(np.arange(50)))
    assert turn_of(views(steady)) is None and turn_of(views(swaying)) is None
    assert turn_of(views(steady[:11])) is None and turn_of([]) is None and turn_of(views(steady), 3) is None


def test_factors_equal_a_twin_that_solves_row_by_row():
    rng = np.random.default_rng(0)
    shape, seen = rng.normal(size=(7, 20)), rng.normal(size=20)
    for centred in (True, False):
        factor, left = _fit(shape, seen, centred=centred)
        for row, got, rest in zip(shape, factor, left):
            columns = np.stack([row, np.ones(20)], axis=1) if centred else row[:, None]
            slope = max(0.0, np.linalg.lstsq(columns, seen, rcond=None)[0][0])
            level = (seen - slope * row).mean() if centred else 0.0
            whole = ((seen - (seen.mean() if centred else 0)) ** 2).mean()
            assert got == pytest.approx(slope) and rest == pytest.approx(((seen - slope * row - level) ** 2).mean() / whole)


def test_who_circles_keeps_his_track(monkeypatch):
    masks, edges = ring(0.3 + 0.05 * np.arange(50))
    (target,), labels = targets_of_binary(masks)
    monkeypatch.setattr("tvad.language.parting.people_in", lambda *_: 2)
    people = part_people(target, labels)
    found = np.array([[box[0] for box in person.boxes] for person in people]).T
    first, last = (np.argsort(found[row]) for row in (0, -1))
    assert (first == first[::-1]).sum() == 0 and (np.argsort(edges[0]) == np.argsort(edges[-1])).sum() == 0
    assert (first != last).all()
    middle = int(abs(edges[:, 0] - edges[:, 1]).argmin())   # one before the other: both boxes are nearly the blob
    assert all(person.boxes[middle][2] - person.boxes[middle][0] >= 7 for person in people)


def test_two_that_begin_as_pieces_of_one_and_go_two_ways_are_two():
    apart, together = blank(30), blank(30)
    for frame in range(30):
        put(apart, frame, 30 + frame // 3, 32, wide=10, high=16)
        put(apart, frame, 30 + frame // 3, 15 - frame // 2, wide=10, high=16)    # rides away
        put(together, frame, 30 + frame, 15, wide=10, high=16)
        put(together, frame, 30 + frame, 33, wide=10, high=14)                   # legs below a railing
    assert sorted(len(track) for track in tracks_from_binary(apart)) == [30, 30]
    assert len(tracks_from_binary(together)) == 1


def hidden(gap, *, shift=0, high=20):
    masks = blank(30 + gap)
    for frame in range(15):
        put(masks, frame, 30, 20, wide=8, high=20)
        put(masks, 15 + gap + frame, 30 + shift, 20, wide=8, high=high)
    return tracks_from_binary(masks)


def test_who_comes_out_where_he_hid_is_himself_even_after_long():
    assert len(hidden(30)) == 1 and len(hidden(30, shift=20)) == 1
    assert len(hidden(30, shift=50)) == 2 and len(hidden(30, high=36)) == 2 and len(hidden(70)) == 2


def test_what_lies_there_whenever_a_thrower_is_seen_is_his():
    def thrown(also_alone):
        masks = blank(60)
        for frame in (*range(20), *range(40, 60)):
            put(masks, frame, 20 + frame % 2, 10, wide=9, high=24)
            if frame >= 40:
                put(masks, frame, 60, 44, wide=8, high=7)
        if also_alone:
            for frame in range(30, 40):
                put(masks, frame, 60, 44, wide=8, high=7)
        return tracks_from_binary(masks)

    (track,) = thrown(False)
    assert track.boxes[-1].tolist() == [21, 10, 67, 50] and len(track) == 40
    assert len(thrown(True)) == 2


def test_a_large_ball_that_flies_off_and_lies_is_its_throwers():
    masks = blank(60)
    for frame in range(60):
        put(masks, frame, 10 + frame % 2, 10, wide=9, high=24)
        if frame >= 10:
            put(masks, frame, min(20 + 7 * (frame - 10), 69), min(12 + 5 * (frame - 10), 46), wide=10, high=10)
    (track,) = tracks_from_binary(masks)
    assert track.boxes[-1, 2:].tolist() == [78, 55]


def test_things_lie_and_people_breathe():
    class Boxes:
        frames, boxes = list(range(20)), [(5 * min(k, 6), 3, 5 * min(k, 6) + 4, 9) for k in range(20)]

    assert not lies_still(Boxes) and lies_still(Boxes, after=6) and not lies_still(Boxes, after=17)


def passing():
    """Somebody at the left border, and a larger one who rides in beside him; who stands comes out when the other is gone
    by."""
    masks = blank(60)
    for frame in range(60):
        put(masks, frame, frame % 2, 20, wide=9, high=22)
        if frame >= 30:
            put(masks, frame, -20 + 4 * (frame - 29), 24, wide=22, high=20)
    return masks


def edge(masks):
    for frame in range(30, 60):     # only what is inside the picture is drawn
        start = -20 + 4 * (frame - 29)
        if start < 0:
            masks[frame, 24:44, 0:start + 22] = 1
    return masks


def test_who_stands_keeps_his_name_when_another_enters_beside_him():
    tracks = tracks_from_binary(edge(passing()))
    assert len(tracks) == 2
    stays, rides = sorted(tracks, key=lambda track: track.boxes[-1, 0])
    assert (stays.frames[0], stays.frames[-1]) == (0, 59) and stays.boxes[-1].tolist() == [1, 20, 9, 41]
    assert 30 <= rides.frames[0] <= 32 and rides.frames[-1] == 56


def test_an_exchange_takes_all_later_frames_and_what_is_shared():
    one = Target(list(range(40)), [(10, 0, 19, 19)] * 10 + [(10 + 4 * k, 0, 29 + 4 * k, 9) for k in range(30)],
                 [200] * 40, [(1,)] * 40, (20, 10), shared={3, 12})
    two = Target(list(range(10, 40)), [(10, 0, 19, 19)] * 30, [200] * 30, [(2,)] * 30, (10, 20), shared={12, 13})
    exchange([one, two])
    assert one.frames == list(range(40)) and set(one.boxes) == {(10, 0, 19, 19)} and one.parts == [(1,)] * 10 + [(2,)] * 30
    assert two.frames == list(range(10, 40)) and two.boxes[-1][0] == 126 and two.parts == [(1,)] * 30
    assert one.shared == {3, 12, 13} and two.shared == {12} and one.sides == (10, 20)
    exchange([one, two])
    assert two.boxes[-1][0] == 126      # right as it is
