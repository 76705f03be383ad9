"""Bookkeeping of linking: fast paths and their slow twins, who is whose parent, that no pixel is lost or given twice."""
from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from tvad.language import assigning, geometry
from tvad.language.circling import turn_of
from tvad.language.exchanging import exchange
from tvad.language.founding import _grouped, births, found
from tvad.language.linking import link
from tvad.language.mending import divide_before, give_back, join, repoint, settle, stitch
from tvad.language.parting import _persons
from tvad.language.target import Blob, Target
from tvad.language.tracks import MaskError, targets_of_binary, tracks_from_binary, tracks_from_instances
from tvad.language.ungluing import unglue
from tvad.language.views import View, views_of
from tvad.metrics.components import label_frames

SIZE = (60, 90)


def target(frames, box, *, area=100, label=1, parent=None, whole=None):
    frames = list(frames)
    return Target(frames, [box] * len(frames), [area] * len(frames), [(label,)] * len(frames), geometry.sides(box),
                  parent=parent, whole=whole)


def specks(rng, count, *, size=(240, 360), side=5):
    """Blobs of 1 to ``side`` pixels on each side."""
    x, y = rng.integers(0, size[1] - side, count), rng.integers(0, size[0] - side, count)
    wide, high = rng.integers(1, side + 1, (2, count))
    return [Blob(*row, label) for label, row in enumerate(zip(*(a.tolist() for a in (x, y, x + wide - 1, y + high - 1,
                                                                                   wide * high))), start=1)]


def drawn(rng, frames=24, blobs=6):
    """Masks of squares that walk about, meet, part, hide and come back."""
    masks = np.zeros((frames, *SIZE), bool)
    place, way = rng.uniform(0, 60, (blobs, 2)), rng.uniform(-3, 3, (blobs, 2))
    side = rng.integers(2, 14, (blobs, 2))
    for frame in range(frames):
        for (y, x), (high, wide), seen in zip(place, side, rng.random(blobs) < 0.9):
            if seen:
                masks[frame, max(0, int(y)):max(0, int(y) + high), max(0, int(x)):max(0, int(x) + wide)] = True
        place += way
        way[rng.random(blobs) < 0.1] *= -1
    return masks


# -- fast paths and slow twins ---------------------------------------------------------------------------------------------

def grouped_slowly(blobs):
    """All pairs anew after every join."""
    groups, merged = [[index] for index in range(len(blobs))], True
    while merged:
        merged = False
        for one, two in combinations(range(len(groups)), 2):
            large, small = (geometry.union([blobs[index] for index in groups[place]]) for place in (one, two))
            gap, side = geometry.gap(large, small), max(geometry.sides(large))
            minor = sum(blobs[index].area for index in groups[two]) < 0.3 * sum(blobs[index].area for index in groups[one])
            if gap <= 2 + 0.1 * side or minor and gap <= 1 + 0.3 * max(geometry.sides(small)):
                groups[one] += groups.pop(two)
                merged = True
                break
    return groups


@pytest.mark.parametrize("count", [0, 1, 2, 12, 40])
def test_groups_equal_a_twin_that_begins_anew_after_every_join(count):
    rng, joined = np.random.default_rng(count), 0
    for _ in range(15):
        blobs = sorted(specks(rng, count, size=(60, 90), side=9), key=lambda blob: -blob.area)
        groups = _grouped(blobs)
        assert groups == grouped_slowly(blobs)
        joined += len(blobs) - len(groups)
    assert (joined > 0) == (count > 1)


def test_parents_are_the_nearest_seen_last_and_of_these_the_largest():
    live = [target(range(5, 9), (0, 0, 9, 9)), target(range(5, 9), (40, 0, 49, 9), area=50),
            target(range(5, 9), (40, 0, 49, 9), area=70), target(range(3), (20, 0, 29, 9)), target([8], (70, 0, 79, 9))]
    (born,) = births(live, [Blob(52, 0, 57, 9, 60, 7)], 9, least_area=12, merging=True)
    assert born.parent is live[2] and born.parts == [(7,)]
    (born,) = births(live, [Blob(22, 0, 25, 9, 40, 7)], 9, least_area=12, merging=True)
    assert born.parent is None                      # 12 pixels from the first; the one around it is gone
    (born,) = births(live, [Blob(86, 0, 89, 9, 40, 7)], 9, least_area=12, merging=True)
    assert born.parent is None                      # seen once: within half its length only
    assert births(live, [Blob(22, 0, 24, 2, 9, 7)], 9, least_area=12, merging=True) == []
    first, second = births([], [Blob(0, 0, 3, 9, 40, 1), Blob(10, 0, 29, 9, 200, 2)], 9, least_area=12, merging=False)
    assert second.parent is first and first.parts == [(2,)] and first.parent is None


def test_pairs_left_out_by_the_gate_could_not_have_been_chosen(monkeypatch):
    rng = np.random.default_rng(0)
    frames = [specks(rng, 40, size=(60, 90), side=9) for _ in range(10)]

    def seen():
        return [(one.frames, one.boxes) for one in link(frames, None, max_gap=3, least_area=1)]

    fast = seen()
    monkeypatch.setattr(assigning, "_FEW", 10**9)
    assert fast == seen() and max(len(frames) for frames, _ in fast) > 3


def test_boxes_as_arrays_equal_boxes_one_by_one():
    rng = np.random.default_rng(0)
    boxes = np.array([blob[:4] for blob in specks(rng, 30, size=(30, 30), side=9)], float)
    overlaps = geometry.overlaps(boxes, boxes[:7])
    assert overlaps.tolist() == [[geometry.overlap(one, two) for two in boxes[:7]] for one in boxes] and overlaps.any()
    assert geometry.gaps(boxes, boxes[0]).tolist() == [geometry.gap(one, boxes[0]) for one in boxes]


def test_hundreds_of_specks_are_no_matter_of_minutes():
    """Some 300 specks a frame, fresh ones each time; the cubic way took over a minute for these frames."""
    from time import process_time

    masks = np.random.default_rng(0).random((4, 240, 360)) < 0.0035
    assert len(label_frames(masks)[1]) > 4 * 250
    start = process_time()
    tracks_from_binary(masks)
    assert process_time() - start < 4


# -- who is whose ----------------------------------------------------------------------------------------------------------

def test_heirs_take_the_place_of_those_that_are_gone():
    gone, left, right = target(range(9), (0, 0, 20, 9)), target(range(9), (0, 0, 5, 9)), target(range(3, 9), (15, 0, 20, 9))
    near, late = target([4, 5], (12, 0, 13, 3), parent=gone, whole=gone), target([30], (0, 0, 3, 3), parent=gone)
    early, left.parent = target([0], (14, 0, 14, 3), parent=gone), gone
    others = [near, late, early, left, right]
    repoint(others, {id(gone): [left, right]})
    assert near.parent is near.whole is right and late.parent is None and early.parent is left   # who was seen then
    assert left.parent is None and right.parent is None
    repoint(others, {id(right): [near]})
    assert near.parent is None and near.whole is None      # nobody is his own parent


def divided():
    """Two that begin side by side and go two ways, and a third that comes out of the second."""
    masks = np.zeros((40, *SIZE), bool)
    for frame in range(40):
        masks[frame, 32:48, 30 + frame // 3:40 + frame // 3] = True
        masks[frame, max(0, 15 - frame // 2):31 - frame // 2, 30 + frame // 3:40 + frame // 3] = True
        if frame >= 20:
            masks[frame, 34:46, 44 + frame // 3:50 + frame // 3 + (frame - 20)] = True
    return masks


def test_nobody_is_a_piece_of_a_target_that_was_divided():
    masks = divided()
    labels, table = label_frames(masks)
    frames = [[] for _ in masks]
    for label, (frame, *rest) in enumerate(table.tolist(), start=1):
        frames[frame].append(Blob(*rest, label))
    linked = link(frames, labels, max_gap=15, least_area=12)
    old = next(one for one in linked if any(len(parts) > 1 for parts in one.parts))
    child = target([25], (50, 36, 52, 40), parent=old, whole=old)
    found = unglue([*linked, child], frames, labels, max_gap=15, least_area=12)
    assert not any(one is old for one in found) and len(found) > len(linked)
    assert child.parent is child.whole and any(child.parent is one for one in found)
    assert child.parent.boxes[0][1] == 32                  # the lower one, which is nearer


@pytest.mark.parametrize("seed", range(12))
def test_nothing_points_outside_and_no_pixel_is_lost_or_given_twice(seed):
    masks = divided() if seed == 0 else drawn(np.random.default_rng(seed))
    labels, table = label_frames(masks)
    frames = [[] for _ in masks]
    for label, (frame, *rest) in enumerate(table.tolist(), start=1):
        frames[frame].append(Blob(*rest, label))

    def pixels(targets):
        found = np.zeros(len(masks), int)
        for one in targets:
            found[one.frames] += one.areas
        return found.tolist()

    def sound(targets):
        assert pixels(targets) == before
        for one in targets:
            assert one.frames == sorted(set(one.frames)) and len(one.frames) == len(one.boxes) == len(one.parts)
            for other in (one.parent, one.whole):
                assert other is not one and (other is None or any(other is each for each in targets))
        held = {}
        for one in targets:
            for parts in one.parts:
                assert len(set(parts)) == len(parts)
                for label in parts:
                    held[label] = held.get(label, 0) + 1
        assert set(held) == labels_before
        return targets

    targets = link(frames, labels, max_gap=6, least_area=12)
    before, labels_before = pixels(targets), {label for one in targets for parts in one.parts for label in parts}
    targets = sound(unglue(targets, frames, labels, max_gap=6, least_area=12))
    exchange(targets)
    targets = sound(stitch(sound(targets), max_gap=6))
    targets = sound(give_back(targets))
    settle(targets, table[:, 5])
    for one in targets:
        divide_before(one, labels)
    assert pixels(targets) == before
    for one in targets:
        for frame, area, parts in zip(one.frames, one.areas, one.parts):
            assert (frame in one.shared) == (area < sum((labels[frame] == part).sum() for part in parts))


def test_a_small_strand_that_overlaps_none_in_time_is_no_target():
    masks = divided()[:, :, :60].copy()
    masks[20:] = divided()[:20, :, :60]
    masks[20:, :, 44:] = False
    masks[:20] = False
    masks[10:20, 38:42, 32:38] = True                      # the first that is seen of the two
    targets, _ = targets_of_binary(masks)
    assert all(len(one.frames) >= 20 for one in targets)


def test_shared_frames_go_along_and_end_where_all_is_joined():
    one, two = target(range(5), (0, 0, 4, 9), area=50), target(range(5), (5, 0, 9, 9), area=50)
    one.shared, two.shared = {1, 2}, {2, 3}
    join(one, two)
    assert one.shared == {1, 2, 3} and one.parts == [(1,)] * 5 and one.areas == [100] * 5
    settle([one], np.array([100]))
    assert one.shared == set()
    settle([one], np.array([120]))
    assert one.shared == set(range(5))


def test_who_is_divided_before_they_parted_shares_those_frames():
    masks = np.zeros((30, *SIZE), bool)
    for frame in range(30):
        apart = max(0, frame - 9) * 2
        masks[frame, 20:34, 40 - apart:48 - apart] = masks[frame, 20:34, 48 + apart:56 + apart] = True
    targets, labels = targets_of_binary(masks)
    assert [one.shared for one in targets] == [set(range(11))] * 2
    assert [view.frame for view in views_of(targets[0], labels)] == list(range(11, 30))


# -- bad input and empty views ---------------------------------------------------------------------------------------------

def test_large_ids_are_told_apart_or_refused():
    masks = np.zeros((9, 8, 8), np.int64)
    masks[:, 1:3, 1:3], masks[:, 5:7, 5:7] = 2**60, 2**60 + 1
    one, two = tracks_from_instances(masks)
    assert (one.id, two.id) == (2**60, 2**60 + 1) and len(one) == len(two) == 9 and one.boxes[8].tolist() == [1, 1, 2, 2]
    assert len(tracks_from_instances(masks, ids="frame")) == 2
    with pytest.raises(MaskError, match=r"the value 9223372036854775808; ids must be below 2\*\*63, number"):
        tracks_from_instances(np.full((1, 2, 2), 2**63, np.uint64))


def test_a_view_without_pixels_says_nothing_of_a_turn():
    views = []
    for frame, angle in enumerate(0.3 + 0.05 * np.arange(50)):
        pixels = np.zeros((40, 40), bool)
        for sign in (-1, 1):
            x, y = round(15 + sign * 6 * np.cos(angle)), round(6 + sign * 5 * np.sin(angle))
            pixels[y:y + 26, x:x + 9] = True
        views.append(View(frame, 0, 0, pixels))
    whole = turn_of(views).places
    views[7], views[30] = (View(frame, 0, 0, np.zeros((3, 4), bool)) for frame in (7, 30))
    places = turn_of(views).places
    assert whole.shape == places.shape == (2, 50) and np.abs(places - whole).max() < 2 and np.ptp(whole[0]) > 8
    assert turn_of([View(frame, 0, 0, np.zeros((3, 4), bool)) for frame in range(20)]) is None


def test_of_whom_no_pixel_is_seen_there_is_no_track():
    one = target(range(4), (0, 0, 9, 9))
    boxes = {frame: (0, 0, 4, 9) for frame in range(4)}
    assert len(_persons(one, [boxes, boxes])) == 2 and _persons(one, [boxes, {}]) == [one]
    labels = np.zeros((4, *SIZE), int)
    labels[2, 3, 3] = 1
    assert [view.frame for view in views_of(one, labels)] == [2]
    assert found(3, [Blob(0, 0, 1, 1, 4, 5)], None).parts == [(5,)]
