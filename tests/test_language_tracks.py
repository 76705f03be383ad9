"""Tracks of masks with targets whose way is known: births and deaths, hiding, pieces, merging, parting, bad input."""
from __future__ import annotations

import json

import numpy as np
import pytest
from real_data import ped2_root

from tvad.datasets.base import Video, open_dataset
from tvad.language.appearance import OpenAppearance
from tvad.language.bench import compare, shuffled, speed_of_conversations, windows_told
from tvad.language.corpus import walkers_pace
from tvad.language.timeline import phrase, timeline_of
from tvad.language.tracks import (
    MaskError,
    MaskTrack,
    boxes_of,
    tracks_from_binary,
    tracks_from_boxes,
    tracks_from_instances,
)
from tvad.metrics.tracking import hota, identity_switches
from tvad.scenes.render import make_footage
from tvad.video.frames import ArrayFrames

SIZE = (60, 90)
WAYS = {
    "instance": tracks_from_instances,
    "instance_shuffled": lambda masks: tracks_from_instances(shuffled(masks), ids="frame"),
    "binary": lambda masks: tracks_from_binary(masks > 0),
}


def blank(frames=20):
    return np.zeros((frames, *SIZE), np.uint8)


def put(masks, frame, x, y, wide=8, high=14, value=1):
    masks[frame, max(y, 0):max(y + high, 0), max(x, 0):max(x + wide, 0)] = value


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("length", [1, 7])
def test_a_target_may_appear_and_vanish_at_any_frame(way, length):
    for start in range(20 - length + 1):
        masks = blank()
        for frame in range(start, start + length):
            put(masks, frame, 10 + 3 * frame, 20)
        (track,) = WAYS[way](masks)
        assert (track.frames[0], track.frames[-1]) == (start, start + length - 1)
        assert track.boxes[0].tolist() == [10 + 3 * start, 20, 17 + 3 * start, 33] and track.areas[0] == 112
        assert track.centres[0].tolist() == [13.5 + 3 * start, 26.5]


@pytest.mark.parametrize("way", WAYS)
def test_two_targets_and_a_short_hiding(way):
    masks = blank()
    for frame in range(20):
        put(masks, frame, 4 * frame, 5, value=3)
        if not 6 <= frame < 12:
            put(masks, frame, 75 - 3 * frame, 40, value=9)
    tracks = WAYS[way](masks)
    assert [len(track) for track in tracks] == [20, 14]
    assert tracks[1].frames.tolist() == [*range(6), *range(12, 20)]


def test_hiding_is_bridged_no_longer_than_said_and_only_where_position_and_size_fit():
    masks = blank()
    for frame in (*range(5), *range(10, 15)):
        put(masks, frame, 10 + 2 * frame, 20)
    assert len(tracks_from_binary(masks, max_gap=5)) == 1 and len(tracks_from_binary(masks, max_gap=4)) == 2
    far, large = masks.copy(), masks.copy()
    far[10:] = np.roll(masks[10:], 35, axis=2)
    large[10:] = 0
    for frame in range(10, 15):
        put(large, frame, 50, 2, wide=36, high=50)
    assert len(tracks_from_binary(far)) == 2 and len(tracks_from_binary(large)) == 2


def test_what_passes_in_front_does_not_take_the_name_of_what_it_hides():
    masks = blank(40)
    for frame in range(40):
        put(masks, frame, 40, 40, wide=12, high=6, value=1)  # lies on the ground
        put(masks, frame, 4 * frame - 40, 26, wide=34, high=22, value=2)  # a car drives past, in front
    truth = tracks_from_instances(masks)
    found = tracks_from_instances(shuffled(masks), ids="frame")
    assert [track.frames[0] for track in found] == [track.frames[0] for track in truth]
    assert identity_switches(boxes_of(found), boxes_of(truth), alpha=0.3) == 0 and len(found) == 2


def test_somebody_and_what_he_pushes_are_one():
    masks = blank(24)
    for frame in range(24):
        put(masks, frame, 2 * frame, 20, wide=6, high=20)
        put(masks, frame, 2 * frame + 7 + (frame % 2), 30, wide=8, high=10)
    assert len(tracks_from_binary(masks)) == 1


def test_a_lamp_post_makes_no_two_targets_of_one():
    masks = blank(30)
    for frame in range(30):
        put(masks, frame, 2 * frame, 20, wide=22)
    masks[:, :, 40:44] = 0
    pieces = [frame for frame in range(30) if 2 * frame < 40 < 2 * frame + 22 - 4]
    (track,) = tracks_from_binary(masks)
    assert len(track) == 30 and len(pieces) > 5
    assert track.boxes[pieces[4]].tolist() == [2 * pieces[4], 20, 2 * pieces[4] + 21, 33]


def test_targets_that_meet_and_part_keep_their_identities():
    masks, truth = blank(30), blank(30)
    for frame in range(30):
        put(truth, frame, 2 + 2 * frame, 20, value=1)
        put(truth, frame, 68 - 2 * frame, 24, value=2)
    masks[:] = truth > 0
    tracks = tracks_from_binary(masks)
    true = tracks_from_instances(truth)
    assert [len(track) for track in tracks] == [30, 30]
    assert identity_switches(boxes_of(tracks), boxes_of(true), alpha=0.3) == 0
    assert hota({"v": boxes_of(tracks)}, {"v": boxes_of(true)}).hota > 0.85


def test_targets_that_part_were_two_before():
    masks = blank(30)
    for frame in range(30):  # side by side, touching, until frame 9
        apart = max(0, frame - 9) * 2
        put(masks, frame, 40 - apart, 20)
        put(masks, frame, 48 + apart, 20)
    tracks = tracks_from_binary(masks)
    assert [(track.frames[0], track.frames[-1]) for track in tracks] == [(0, 29), (0, 29)]
    assert sorted(track.boxes[3, 0] for track in tracks) == pytest.approx([40, 48], abs=2)


def test_a_thrown_ball_belongs_to_its_thrower():
    masks = blank(20)
    for frame in range(20):
        put(masks, frame, 20, 20, wide=10, high=24)
        if 6 <= frame < 12:
            put(masks, frame, 32 + 7 * (frame - 6), 20 + frame, wide=4, high=4)
    (track,) = tracks_from_binary(masks)
    assert track.boxes[8].tolist() == [20, 20, 49, 43] and track.boxes[15].tolist() == [20, 20, 29, 43]


def test_a_splinter_beside_a_large_target_lets_none_take_its_blob():
    masks = blank()
    for frame in range(20):
        put(masks, frame, 10 + frame, 10, wide=34, high=40, value=1)              # a car
        if frame < 4:
            put(masks, frame, 70 - 7 * frame, 20, value=1)                        # somebody who goes behind it
        if frame >= 8:
            masks[frame, 20:32, 16 + frame:27 + frame] = 0                        # its window, and a hand in it
            masks[frame, 24:26, 20 + frame:22 + frame] = 1
    car = max(tracks_from_binary(masks > 0), key=len)
    assert len(car) == 20 and all(wide >= 33 for wide in car.boxes[:, 2] - car.boxes[:, 0])


def test_a_small_piece_that_begins_with_its_target_is_no_target():
    masks = blank()
    for frame in range(20):
        put(masks, frame, 10 + 2 * frame, 10, high=30)
        if frame < 7:
            put(masks, frame, 25 + 2 * frame, 20, wide=4, high=6)                 # what is pushed, then hidden
    (track,) = tracks_from_binary(masks > 0)
    assert len(track) == 20 and track.boxes[0].tolist() == [10, 10, 28, 39]


def test_fighters_who_never_let_go_are_two_and_a_loaded_truck_on_its_way_is_one():
    spot, moving = blank(24), blank(24)
    for frame in range(24):
        sway = frame % 3
        for masks, x in ((spot, 30), (moving, 2 + 2 * frame)):
            put(masks, frame, x - (sway if masks is spot else 0), 15, wide=9, high=20)
            put(masks, frame, x + 12 + (sway if masks is spot else 0), 16, wide=9, high=19)
            put(masks, frame, x, 24, wide=20, high=3)  # an arm between them
    one, two = tracks_from_binary(spot)
    assert len(one) == len(two) == 24 and one.boxes[0, 2] < two.boxes[0, 0] + 2
    assert len(tracks_from_binary(moving)) == 1


def test_specks_found_no_target_and_background_has_none():
    masks = blank()
    masks[4, 10:13, 10:13] = 1
    assert tracks_from_binary(masks) == () and len(tracks_from_binary(masks, least_area=9)) == 1
    assert len(tracks_from_instances(masks)) == 1
    assert tracks_from_binary(blank()) == () and tracks_from_instances(blank(), ids="frame") == ()


def test_tracks_equal_a_twin_that_looks_at_one_mask_at_a_time():
    rng = np.random.default_rng(0)
    masks = rng.choice((0, 0, 0, 2, 7, 200), (6, 9, 11)).astype(np.uint8)
    masks[3] = 0
    for track in tracks_from_instances(masks):
        rows = [(frame, *np.nonzero(mask == track.id)) for frame, mask in enumerate(masks) if (mask == track.id).any()]
        assert track.frames.tolist() == [row[0] for row in rows] and track.areas.tolist() == [len(row[1]) for row in rows]
        assert track.boxes.tolist() == [[x.min(), y.min(), x.max(), y.max()] for _, y, x in rows]


@pytest.mark.parametrize("call, text", [
    (lambda: tracks_from_binary(np.zeros((0, 4, 4), bool)), r"masks are empty, shape \(0, 4, 4\); give at least one frame"),
    (lambda: tracks_from_instances(np.zeros((4, 4), np.uint8)), r"\(frames, height, width\), got shape \(4, 4\)"),
    (lambda: tracks_from_binary(blank(), size=(240, 360)), "masks are 60x90 .*, the video is 240x360; resize"),
    (lambda: tracks_from_binary(np.array([[[0, 1, 2]]])), "got a label map with values 1, 2; use tracks_from_instances"),
    (lambda: tracks_from_binary(np.zeros((1, 2, 2), np.float32)), "whole numbers, got float32; threshold a heatmap"),
    (lambda: tracks_from_instances(np.full((1, 2, 2), -1)), "negative value -1"),
    (lambda: tracks_from_instances(blank(), ids="both"), "ids must be 'track' or 'frame', got 'both'"),
    (lambda: tracks_from_binary(blank(), max_gap=-1), "max_gap must be 0 or more frames, got -1"),
    (lambda: tracks_from_binary(blank(), least_area=0), "least_area must be 1 pixel or more, got 0"),
    (lambda: MaskTrack.of(3, [], boxes=[]), "track 3 has no frame"),
    (lambda: MaskTrack.of(3, [2, 2], boxes=[(0, 0, 1, 1)] * 2), r"track 3: frames must rise .* got \[2, 2\]"),
    (lambda: MaskTrack.of(3, [2, 3], boxes=[(0, 0, 1, 1)]), r"track 3: boxes has shape \(1, 4\), expected \(2, 4\)"),
])
def test_bad_input_is_named(call, text):
    with pytest.raises(MaskError, match=text):
        call()


def test_both_values_of_binary_masks_are_taken():
    masks = blank()
    put(masks, 3, 5, 5)
    assert len(tracks_from_binary(masks * 255)) == len(tracks_from_binary(masks > 0)) == len(tracks_from_binary(masks)) == 1


class _Clip:
    """What ``compare`` asks of a video, from footage in memory."""

    def __init__(self, footage):
        self.id, self.frames = footage.scene, type("", (), {"size": footage.instances.shape[1:]})
        self._masks = footage.anomaly_masks()
        self.text = {"actors": [
            {"id": actor.id, "event": actor.event, "motion": [[k, k + 1, word] for k, word in enumerate(actor.motion)],
             "box": [box.tolist() if here else None for box, here in zip(actor.box, actor.present)]}
            for actor in footage.actors]}
        self.tracks = boxes_of(tracks_from_instances(self._masks))

    def __len__(self):
        return len(self._masks)

    def masks(self, start, stop):
        return self._masks[start:stop]


def test_rendered_targets_are_told_as_the_script_has_them():
    footage = make_footage("scene08", 7, frames=30, events=("bicycle", "running"))
    clip = _Clip(footage)
    assert len(tracks_from_boxes(clip.tracks)) == 2 and walkers_pace(clip.text) is not None
    figures = compare([clip])
    for name in ("instance", "instance_shuffled", "binary"):
        assert figures[name]["targets"] == 2 and figures[name]["entry_within_2"] == 1.0, figures[name]
        assert figures[name]["phrase_equal"] == 1.0 and figures[name]["hota"] > 0.95, figures[name]
        assert figures[name]["windowed_targets"] >= 2 and 0 <= figures[name]["phrase_equal_windows"] <= 1.0
    assert figures["instance"]["phrase_equal_windows"] == 1.0


class _Drawn:
    """A video of masks and true tracks alone."""

    def __init__(self, masks, truth):
        self.id, self.text, self.tracks, self._masks = "drawn", {"actors": []}, boxes_of(truth), masks
        self.frames = type("", (), {"size": SIZE})

    def __len__(self):
        return len(self._masks)

    def masks(self, start, stop):
        return self._masks[start:stop]


def test_figures_without_targets_or_with_missed_ones_are_null_and_json():
    masks = blank()
    for frame in range(20):
        put(masks, frame, 2 * frame, 20)
    for videos in ([], [_Drawn(masks * 0, ())]):
        figures = compare(videos)["binary"]
        assert figures["targets"] == 0 and figures["hota"] is figures["phrase_equal"] is figures["entry_within_2"] is None
        json.dumps(figures, allow_nan=False)
    missed = compare([_Drawn(masks * 0, tracks_from_instances(masks))])["binary"]
    assert missed["entry_within_2"] == missed["phrase_equal"] == missed["phrase_equal_windows"] == 0.0
    assert missed["odd"][0]["entry"] is None and json.dumps(missed, allow_nan=False)


def test_phrases_of_windows_are_compared_with_the_true_track_of_the_window():
    masks = blank(30)
    for frame in range(30):
        put(masks, frame, 2 * frame, 20)
    truth = boxes_of(tracks_from_instances(masks))
    assert windows_told(truth, masks, WAYS["binary"], size=SIZE) == [True, True]      # frames 0-15 and 14-29
    masks[20:] = 0
    assert windows_told(truth, masks, WAYS["binary"], size=SIZE) == [True, False]
    assert windows_told(boxes_of([]), masks, WAYS["binary"], size=SIZE) == []


def test_speed_of_conversations_is_stated_for_both_kinds_of_masks():
    masks = blank(30)
    for frame in range(30):
        put(masks, frame, 2 * frame, 20)
    video = Video("a", "toy", ArrayFrames(np.zeros((30, *SIZE, 3), np.uint8), 10.0, "a"), masks=lambda a, b: masks[a:b])
    rates = speed_of_conversations([video], [{"split": "test"}], repeats=1, source=OpenAppearance())
    assert rates.keys() == {"instance", "binary"} and all(rate["best"] >= rate["median"] > 0 for rate in rates.values())
    assert speed_of_conversations([], [], repeats=1)["binary"] is None


def test_real_masks_of_ped2():
    video = open_dataset("ucsd_ped2", root=ped2_root()).videos("test")[0]
    tracks = tracks_from_binary(video.masks(0, len(video)), size=video.frames.size)
    assert len(tracks) == 1 and (tracks[0].frames[0], tracks[0].frames[-1]) == (60, 179)  # frames 61:180 of the script
    said = phrase(timeline_of(tracks[0], frames=len(video), size=video.frames.size))
    assert said == "enters from the left, moves towards the right, stays in view at the right"
