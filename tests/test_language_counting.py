"""People in one blob, what leaves its parent, what comes out of hiding, and what masks alone do not tell."""
from __future__ import annotations

import numpy as np
import pytest

from tvad.language.consistency import unclear
from tvad.language.counting import View, gap_between, traits
from tvad.language.dialogue import Target as Told
from tvad.language.fit_counting import Sample, fit, left_out, samples_of
from tvad.language.mending import stitch
from tvad.language.timeline import timeline_of
from tvad.language.tracks import MaskTrack, boxes_of, targets_of_binary, tracks_from_binary, tracks_from_instances
from tvad.metrics.tracking import edge_errors
from tvad.scenes.render import make_footage

SIZE = (60, 90)


def blank(frames=24):
    return np.zeros((frames, *SIZE), np.uint8)


def put(masks, frame, x, y, wide=8, high=14):
    masks[frame, max(y, 0):max(y + high, 0), max(x, 0):max(x + wide, 0)] = 1


def test_runs_and_soles_equal_a_twin_that_walks_along_each_row():
    rng = np.random.default_rng(0)
    views = [View(k, 3, 4, rng.random((12, 9)) < 0.4) for k in range(5)]
    for view in views:
        view.pixels[:, 4] |= True
    found = traits(views)
    runs, low, foot = [], [], []
    for view in views:
        counts = [sum(1 for part in "".join("#" if on else " " for on in row).split()) for row in view.pixels]
        runs.append(np.mean(counts))
        low.append(np.mean(counts[-4:]))
        foot.append(np.mean([np.ptp(np.flatnonzero(row)) + 1 for row in view.pixels[-2:]]))
    assert found["runs"] == pytest.approx(np.mean(runs)) and found["low"] == pytest.approx(np.mean(low))
    assert found["foot"] == pytest.approx(np.mean(foot) / 12) and found["sway"] == found["travel"] == found["breath"] == 0
    assert found["slim"] == 9 / 12 and found["one"] == 1


def test_a_gap_is_seen_between_two_upright_figures_alone():
    pixels = np.zeros((20, 22), bool)
    pixels[:, 1:9] = pixels[:, 12:21] = pixels[8:10] = True
    assert 9 <= gap_between(View(0, 0, 0, pixels)) <= 11
    assert gap_between(View(0, 0, 0, pixels[:8])) is None                       # not upright
    assert gap_between(View(0, 0, 0, np.ones((20, 8), bool))) is None           # one
    pixels[:9, 12:] = False
    assert gap_between(View(0, 0, 0, pixels)) is None                           # a bag beside its owner


def test_weights_are_found_from_samples_and_judged_on_other_scenes():
    rng = np.random.default_rng(0)
    samples = []
    for k in range(120):
        people = 1 + k % 2
        known = {"runs": people + rng.normal(0, 0.2), "noise": rng.normal(), "one": 1.0}
        samples.append(Sample(f"scene{k // 40}", known, people, k % 3 == 0))
    weights = fit(samples, ("runs", "noise"), least=2)
    assert weights["runs"] > 10 * abs(weights["noise"]) and -weights["one"] / weights["runs"] == pytest.approx(1.5, abs=0.1)
    counts = left_out(samples, ("runs", "noise"), least=2)
    assert counts["whole"]["true"] == 20 and counts["whole"]["found"] >= 18 and counts["windows"]["false"] <= 2


@pytest.fixture(scope="module")
def fight():
    return make_footage("scene00", 15, frames=30, events=("fighting",))


def test_fighters_in_one_blob_are_told_apart(fight):
    masks = fight.anomaly_masks()
    truth, found = tracks_from_instances(masks), tracks_from_binary(masks > 0)
    assert len(truth) == len(found) >= 2
    errors = edge_errors(boxes_of(found), boxes_of(truth))
    assert errors.within(2) == (1.0, 1.0)


def test_samples_count_the_people_that_a_blob_holds(fight):
    masks = fight.anomaly_masks()
    targets, labels = targets_of_binary(masks > 0)
    samples = samples_of(masks, [(target, labels) for target in targets], scene="a", whole=True)
    assert sum(sample.people for sample in samples) >= len(np.unique(masks)) - 1
    assert all(sample.traits["travel"] < 0.6 and sample.scene == "a" for sample in samples)


def test_who_comes_out_from_behind_a_car_and_stays_behind_is_no_piece_of_it():
    masks = blank()
    for frame in range(24):
        put(masks, frame, 4 * frame - 8, 20, wide=34, high=22)
        put(masks, frame, 10, 14, wide=7, high=24)  # in front of the house, hidden half by the car at first
    tracks = tracks_from_binary(masks)
    assert len(tracks) == 2 and sorted(int(track.boxes[-1, 0]) for track in tracks)[0] == 10


def test_a_first_sliver_out_of_hiding_is_the_target_that_went_in():
    masks = blank(30)
    for frame in range(30):
        put(masks, frame, 2 * frame, 20, wide=16, high=20)
    masks[:, :, 30:50] = 0
    tracks = tracks_from_binary(masks)
    assert len(tracks) == 1 and tracks[0].frames[-1] == 29
    assert stitch([], max_gap=5) == []


def test_a_target_lost_behind_another_is_waited_for_longer():
    masks = blank(60)
    for frame in range(60):
        put(masks, frame, 60, 24, wide=6, high=16)
        put(masks, frame, 2 * frame - 40, 16, wide=44, high=30)  # 22 frames all of it
    tracks = tracks_from_binary(masks)
    assert len(tracks) == 2 and {(int(track.frames[0]), int(track.frames[-1])) for track in tracks} >= {(0, 59)}


def told(boxes, frames=16, start=0):
    track = MaskTrack.of(1, range(start, start + len(boxes)), boxes=boxes)
    return timeline_of(track, frames=frames, size=SIZE), track


def test_masks_alone_do_not_say_that_somebody_stays_who_enters_or_who_may_be_two():
    still, track = told([(40, 20, 47, 33)] * 16)
    assert unclear(still, track) == "" and Told(still).pace == "still" and Told(still, paced=False).pace == ""
    enters, track = told([(0, 20, k // 2, 33) for k in range(4)], start=12)
    assert "it stays, yet enters and stays" in unclear(enters, track)
    meeting, track = told([(40 + abs(k - 8), 20, 60 - abs(k - 8), 33) for k in range(16)])
    assert "pixels wide" in unclear(meeting, track)
    moving, track = told([(5 * k, 20, 5 * k + 7, 33) for k in range(16)])
    assert unclear(moving, track) == ""
