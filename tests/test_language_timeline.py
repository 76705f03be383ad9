"""Timelines of made-up tracks whose story is known, and the grammar: phrase and parse undo each other."""
from __future__ import annotations

import numpy as np
import pytest

from tvad.language.grammar import BEGINNINGS, ENDINGS, PLACES, STOP, WAYS, Path, PhraseError, parse, phrase
from tvad.language.timeline import MOTION_STATES, SPEEDS, Pace, pace_of, timeline_of
from tvad.language.tracks import MaskError, MaskTrack

SIZE = (240, 360)
CLIP = 120


def walk(points, *, start=0, wide=14, high=36):
    """A track whose middle passes through ``points`` = [(frames, x, y), ...], each reached after so many frames; what
    lies beyond the picture is cut off."""
    frames = np.cumsum([0] + [steps for steps, _, _ in points[1:]])
    when = np.arange(frames[-1] + 1)
    middle = np.stack([np.interp(when, frames, [point[side] for point in points]) for side in (1, 2)], axis=1)
    half = np.array([wide, high]) / 2
    box = np.round(np.concatenate((middle - half, middle + half), axis=1))
    seen = (box[:, 2] >= 0) & (box[:, 0] < SIZE[1]) & (box[:, 3] >= 0) & (box[:, 1] < SIZE[0])
    box = np.clip(box, 0, [SIZE[1] - 1, SIZE[0] - 1] * 2)
    return MaskTrack.of(1, start + when[seen], boxes=box[seen])


def tell(track, **given):
    return timeline_of(track, frames=CLIP, size=SIZE, **{"pace": 2.5, **given})


STORIES = {
    "enters from the right, turns towards the top right, leaves":
        walk([(0, 380, 150), (50, 240, 150), (50, 380, 10)], start=5),
    "enters from the left, moves towards the right, leaves": walk([(0, -20, 120), (100, 380, 120)], start=5),
    "starts in the middle, stays, stays in view": walk([(0, 180, 120), (119, 180, 120)]),
    "appears at the top, moves towards the bottom, stops, disappears in the middle":
        walk([(0, 180, 40), (40, 180, 130), (40, 180, 130)], start=10),
    "starts at the left, moves towards the right, stops, goes on towards the bottom, stays in view at the bottom":
        walk([(0, 60, 100), (40, 180, 100), (30, 180, 100), (49, 180, 205)]),
    "appears at the bottom left, moves towards the top right, disappears at the top right":
        walk([(0, 40, 210), (80, 320, 40)], start=20),
    "starts at the right, moves towards the left, turns towards the right, leaves":
        walk([(0, 300, 120), (50, 180, 120), (60, 390, 120)]),
    "enters from the top, turns towards the right, leaves": walk([(0, 180, -25), (50, 180, 120), (60, 380, 120)], start=4),
    "enters from the bottom left, moves towards the top, stays in view at the left":
        walk([(0, 50, 270), (100, 50, 120)], start=19),
}


@pytest.mark.parametrize("said", STORIES)
def test_stories_are_told(said):
    assert phrase(tell(STORIES[said])) == said


@pytest.mark.parametrize("said", STORIES)
def test_they_are_told_alike_however_the_boxes_tremble(said):
    words = said.split(", ")
    for seed in range(5):
        source = STORIES[said]
        rng = np.random.default_rng(seed)
        inner = (source.boxes[:, :2].min(axis=1) > 4) & (source.boxes[:, 2] < 355) & (source.boxes[:, 3] < 235)
        noise = np.where(inner[:, None], rng.integers(-2, 3, source.boxes.shape), 0)
        again = MaskTrack.of(1, source.frames, boxes=source.boxes + noise)
        assert phrase(tell(again)).split(", ") == words, seed


def test_entry_exit_and_places():
    timeline = tell(walk([(0, -20, 40), (100, 380, 200)], start=10))
    assert (timeline.entry, timeline.exit) == (14, 106) and len(timeline.places) == 93
    assert timeline.begins == "enters" and timeline.ends == "leaves"
    assert [timeline.origin, timeline.destination] == ["top-left", "bottom-right"]
    order = list(dict.fromkeys(timeline.places))
    assert order[0] == "top-left" and "middle" in order and order[-1] == "bottom-right"
    assert len(order) == sum(a != b for a, b in zip(timeline.places, timeline.places[1:])) + 1  # none is entered twice


def test_a_target_may_be_first_seen_at_any_frame():
    for start in range(CLIP):
        track = MaskTrack.of(1, range(start, CLIP), boxes=[(170, 100, 183, 135)] * (CLIP - start))
        timeline = tell(track)
        assert timeline.entry == start and timeline.exit == CLIP - 1 and timeline.ends == "stays"
        assert timeline.begins == ("starts" if start == 0 else "appears")
        assert timeline.places == ("middle",) * (CLIP - start)
        back = tell(MaskTrack.of(1, range(start + 1), boxes=[(170, 100, 183, 135)] * (start + 1)))
        assert back.exit == start and back.ends == ("stays" if start == CLIP - 1 else "disappears")


def test_hidden_frames_have_a_place_between():
    track = MaskTrack.of(1, [0, 1, 20, 21], boxes=[(x, 110, x + 10, 130) for x in (50, 54, 296, 300)])
    timeline = tell(track)
    assert len(timeline.places) == 22 and timeline.places[0] == "left" and timeline.places[10] == "middle"


def test_a_cell_is_left_only_when_its_border_is_clearly_crossed():
    boxes = [(113 + dx, 110, 127 + dx, 130) for dx in [-2, 3] * 30]  # middle sways about x = 120, a third of the width
    assert len(set(tell(MaskTrack.of(1, range(60), boxes=boxes)).places)) == 1


@pytest.mark.parametrize("pixels, word", [(0, "still"), (1.0, "slow"), (2.5, "walking"), (5.5, "fast"), (10, "very fast")])
def test_speed_is_relative_to_the_pace(pixels, word):
    frames = 30
    track = walk([(0, 30, 120), (frames, 30 + pixels * frames, 120)])
    assert tell(track).speed == word and word in SPEEDS
    # at a third of the pace and the speed alike: a scene seen from further away
    assert tell(walk([(0, 30, 120), (frames, 30 + 1.2 * frames, 120)]), pace=1.2).speed == "walking"


def test_without_a_pace_a_target_is_measured_by_its_own_height():
    assert tell(walk([(0, 30, 120), (40, 140, 120)], high=36), pace=None).speed == "walking"
    assert tell(walk([(0, 30, 120), (40, 140, 120)], high=14, wide=6), pace=None).speed == "fast"


def test_pace_grows_towards_the_camera():
    walkers = [MaskTrack.of(k, range(40), boxes=[(5 + 0.02 * y * t, y - 10, 12 + 0.02 * y * t, y + 10) for t in range(40)])
               for k, y in enumerate((40, 60, 110, 130, 190, 210))]
    standing = MaskTrack.of(9, range(40), boxes=[(100, 100, 107, 120)] * 40)
    pace = pace_of([*walkers, standing])
    assert pace.at(np.array([50.0, 200.0])) == pytest.approx([1.0, 4.0], rel=0.1)
    assert pace_of([]) is None and pace_of([standing]) is None
    assert Pace(1.0, least=0.5).at(np.array([3.0])).tolist() == [1.0]


def test_motion_is_the_word_given_or_told_by_the_path():
    still, going = walk([(0, 180, 120), (50, 180, 120)]), walk([(0, 30, 120), (50, 200, 120)])
    both = walk([(0, 30, 120), (40, 150, 120), (40, 150, 120)])
    assert [tell(track).motion for track in (still, going, both)] == list(MOTION_STATES)
    assert tell(still, motion="fighting").motion == "fighting"
    assert [(leg.start, leg.stop) for leg in tell(both).legs][0][0] == 0 and tell(both).legs[-1].stop == 81


def test_a_track_beyond_clip_or_picture_is_named():
    track = walk([(0, 30, 120), (50, 200, 120)])
    with pytest.raises(MaskError, match="seen in frame 50, the clip has 40; count its frames from the clip's first"):
        timeline_of(track, frames=40, size=SIZE)
    with pytest.raises(MaskError, match="reaches beyond the picture of 100x90"):
        timeline_of(track, frames=60, size=(100, 90))


def random_path(rng):
    """Any path of the grammar, made without the code under test."""
    begins, ends = rng.choice(BEGINNINGS), rng.choice(ENDINGS)
    legs = [str(rng.choice([STOP, *WAYS]))]
    for _ in range(rng.integers(0, 5)):
        legs.append(str(rng.choice([leg for leg in (STOP, *WAYS) if leg != legs[-1]])))
    origin = rng.choice(WAYS if begins == "enters" else PLACES)
    destination = rng.choice(WAYS if ends == "leaves" else PLACES)
    return Path(str(begins), str(origin), tuple(legs), str(ends), str(destination))


def test_phrase_and_parse_undo_each_other_and_no_two_paths_are_told_alike():
    rng = np.random.default_rng(0)
    paths = {random_path(rng) for _ in range(4_000)}
    texts = {phrase(path): path for path in paths}
    assert len(texts) == len(paths) > 3_000
    for text, path in texts.items():
        assert parse(text) == path
        assert phrase(parse(text)) == text


def test_every_small_path_round_trips():
    count = 0
    for begins in BEGINNINGS:
        for origin in WAYS if begins == "enters" else PLACES:
            for ends in ENDINGS:
                for destination in WAYS if ends == "leaves" else PLACES:
                    for legs in ((STOP,), ("left",), ("left", STOP), ("top", "right"), (STOP, "bottom-left")):
                        path = Path(begins, origin, legs, ends, destination)
                        assert parse(phrase(path)) == path
                        count += 1
    assert count == 5 * 26 * 26


def test_the_papers_own_phrase():
    text = "enters from the right, turns towards the top right, leaves"
    assert parse(text) == Path("enters", "right", ("left", "top-right"), "leaves", "top-right")
    assert phrase(parse(text)) == text


@pytest.mark.parametrize("text", [
    "", "enters from the right", "enters from the middle, stays, leaves at the top", "enters from the right, leaves",
    "appears at the middle, stays, disappears", "appears in the middle, turns towards the top, disappears at the top",
    "starts at the top, moves towards the left, goes on towards the right, stays in view at the left",
    "enters from the right, moves towards the left, turns towards the top, leaves",     # said though it goes unsaid
    "starts at the left, stays, stays in view at the left", "starts at the left, moves towards the right, stays in view",
    "starts at the left, stays, moves towards the right, stays in view at the right",
    "Starts at the left, stays, stays in view", "starts at the left, stays, stays in view.",
    "starts at the left,stays,leaves",
    "starts at the left, stays, stops, stays in view at the left", "starts at the left, flies, stays in view",
])
def test_what_is_no_phrase_is_refused(text):
    with pytest.raises(PhraseError):
        parse(text)


@pytest.mark.parametrize("given, text", [
    (("comes", "left", (STOP,), "stays", "left"), "begins is 'comes'; choose one of enters, appears, starts"),
    (("enters", "middle", (STOP,), "stays", "left"), "origin is 'middle'; choose one of top-left"),
    (("starts", "left", (), "stays", "left"), "it has no leg; give at least one"),
    (("starts", "left", ("up",), "stays", "left"), "leg 0 is 'up'; choose 'stop' or one of"),
    (("starts", "left", ("top", "top"), "stays", "left"), "legs 0 and 1 are both 'top'; join them"),
])
def test_what_is_no_path_is_refused(given, text):
    with pytest.raises(PhraseError, match=text):
        Path(*given)


@pytest.mark.parametrize("pace", [float("nan"), 0.0, -1.0, float("inf")])
def test_a_pace_that_is_none_is_refused(pace):
    track = MaskTrack.of(1, range(6), boxes=[(10 + 3 * k, 10, 14 + 3 * k, 30) for k in range(6)], areas=[40] * 6)
    with pytest.raises(MaskError, match="pace must be pixels a frame above 0"):
        timeline_of(track, frames=6, size=(60, 90), pace=pace)


@pytest.mark.parametrize("box", [(float("nan"), 1, 2, 3), (9, 1, 2, 3), (1, 9, 2, 3)])
def test_a_box_that_is_none_is_refused_with_its_row(box):
    with pytest.raises(MaskError, match="in row 1 is none; give x1, y1, x2, y2"):
        MaskTrack.of(1, range(2), boxes=[(1, 1, 4, 4), box], areas=[4, 4])
