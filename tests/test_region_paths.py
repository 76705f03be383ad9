"""What the worded encoder reads of a thing: when its steps are, its path by rules, its colours, and who teaches them."""
from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from tvad.errors import BackboneError, ParameterError
from tvad.language.grammar import phrase, spoken
from tvad.language.timeline import timeline_of
from tvad.region import make_encoder
from tvad.region.facts import VIEW, VIEWS, clip_facts, looks_of
from tvad.region.geometry import Geometry, seen_patches
from tvad.region.objects import warm_boxes, warm_things
from tvad.region.paint import CELLS, is_grey, paint_of, painted, parted
from tvad.region.paths import OUTLINES, PATH_FACTS, RULE_FACTS, RULED, _edges, path_facts
from tvad.region.words import STORY, mirrored, reversed_in_time, story
from tvad.training.blobs import BlobWorld, draw_track
from tvad.training.people import people_of
from tvad.training.phase2 import _run_key
from tvad.training.phase2_config import Phase2Config

ROWS, COLUMNS = 24, 36
GEOMETRY = Geometry(patch=10, patch_frames=2, every=2)


def test_steps_are_spread_from_the_first_to_the_last_patch():
    assert seen_patches(8, 2) == [0, 2, 5, 7] and seen_patches(8, 1) == list(range(8)) and seen_patches(1, 3) == [0]
    assert seen_patches(7, 2) == [0, 2, 4, 6] and seen_patches(9, 4) == [0, 4, 8]
    assert GEOMETRY.starts(4) == [0, 4, 10, 14] and GEOMETRY.frames(4) == 16
    with pytest.raises(ParameterError, match="each must be 1 or more"):
        Geometry(patch=0)


def ruled(facts) -> list[dict[str, str]]:
    """What each outline's rules say."""
    said = facts[PATH_FACTS - len(OUTLINES) * RULE_FACTS:].reshape(len(OUTLINES), RULE_FACTS)
    ends = np.cumsum([len(field.words) for field in RULED])
    return [{field.name: field.words[int(part.argmax())] for field, part in zip(RULED, np.split(row, ends[:-1]))}
            for row in said]


@pytest.mark.parametrize("seed", range(3))
def test_the_rules_tell_most_drawn_tracks_as_their_masks_are_told(seed):
    """Slow twin: the timeline of the boxes of all frames."""
    world, rng, right, total = BlobWorld(4, (ROWS, COLUMNS), 10, 4, 10.0, 2), np.random.default_rng(seed), 0, 0
    for _ in range(12):
        track = draw_track(world, rng, legs=1)
        line = timeline_of(track, frames=world.frames, size=world.size)
        boxes = np.full((4, 4), np.nan)
        for step, start in enumerate(world.starts):
            if len(at := np.flatnonzero((track.frames >= start) & (track.frames < start + 2))):
                box = track.boxes[at]
                boxes[step] = (*box[:, :2].min(0), *(box[:, 2:].max(0) + 1))
        if np.isnan(boxes).all():
            continue
        said = ruled(path_facts(warm_boxes(boxes / 10, (ROWS, COLUMNS)), GEOMETRY))[1]
        true = story({"from": spoken(line.origin), "to": spoken(line.destination), "trajectory": phrase(line)})
        right += sum(said[field.name] == true[field.name] for field in RULED)
        total += len(RULED)
    assert right > 0.8 * total


def test_outlines_differ_where_the_edge_is_lukewarm():
    heat = np.zeros((1, ROWS, COLUMNS), np.float32)
    heat[0, 8:16, 10:14], heat[0, 8:16, 9] = 1.0, 0.5
    thing = warm_things(heat, most=1)[0]
    assert _edges(thing, "patches", 0.4).tolist() == [[9, 8, 14, 16]]
    assert _edges(thing, "inset", 0.4) == pytest.approx(np.array([[9.4, 8.4, 13.6, 15.6]]))
    assert _edges(thing, "weighted", 0.4) == pytest.approx(np.array([[9.5, 8, 14, 16]]))
    assert _edges(thing, "weighted", 0.6).tolist() == [[10, 8, 14, 16]]
    heat[0, 8:16, :4] = heat[0, 8:16, 10:14]
    assert _edges(warm_things(heat, most=2)[0], "inset", 0.4)[0, 0] == 0      # the picture's border is sharp


def test_known_boxes_are_warm_where_they_take_a_quarter_of_a_patch():
    thing = warm_boxes(np.array([[1.2, 2.8, 3.9, 4.2], [np.nan] * 4, [35.9, 23.9, 36, 24]]), (ROWS, COLUMNS))
    assert thing.present.tolist() == [True, False, True]
    assert np.argwhere(thing.heat[0]).tolist() == [[3, 1], [3, 2], [3, 3]]
    assert np.argwhere(thing.heat[2]).tolist() == [[23, 35]]


def test_a_path_in_the_mirror_and_backwards():
    told = {"there": "it", "begins": "enters", "from": "top left", "way": "bottom right", "ends": "stays", "to": "middle",
            "top": "red"}
    assert mirrored(told) == {"there": "it", "begins": "enters", "from": "top right", "way": "bottom left", "ends": "stays",
                              "to": "middle"}
    back = {"there": "it", "begins": "starts", "from": "middle", "way": "top left", "ends": "leaves", "to": "top left"}
    assert reversed_in_time(told) == back
    assert reversed_in_time(back) == mirrored(mirrored(told))
    assert reversed_in_time({**back, "way": "stays"})["way"] == "stays"


# Colours

def test_paint_goes_with_the_tokens_of_its_patches_and_comes_back():
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 256, (6, 80, 120, 3), np.uint8)
    paint = paint_of(frames, (3, 8, 12), patch_frames=2)
    assert paint.shape == (3, 8 * CELLS, 12 * CELLS, 3)
    # a cell is 2.5 pixels wide: only the mean of the patch is exact
    assert paint[1, :CELLS, :CELLS].mean((0, 1)) == pytest.approx(frames[2, :10, :10].mean((0, 1)), abs=1)
    tokens = torch.randn(3 * 4 * 6, 5)
    seen = painted(tokens, paint, 2)
    own, back = parted(seen[None], (3, 8, 12), 5, 2)
    assert torch.equal(own[0], tokens)
    assert torch.allclose(back[0] * 255, torch.from_numpy(paint).permute(0, 3, 1, 2).float(), atol=1e-4)
    assert parted(tokens[None], (3, 8, 12), 5, 2)[1] is None
    with pytest.raises(BackboneError, match="5 are wanted, or 197 with the colours of their cells"):
        parted(torch.zeros(1, 72, 9), (3, 8, 12), 5, 2)
    grey = np.repeat(paint[..., :1], 3, -1)
    assert is_grey(grey) and not is_grey(paint)


def test_views_show_the_thing_and_what_is_strange_about_it():
    boxes = np.array([[4, 4, 6, 8], [10, 4, 12, 8], [16, 4, 18, 8]], float)
    paint = np.full((3, ROWS * CELLS, COLUMNS * CELLS, 3), 100, np.uint8)
    for step, (left, top, right, bottom) in enumerate((boxes * CELLS).astype(int)):
        paint[step, top:(top + bottom) // 2, left:right] = (255, 0, 0)
        paint[step, (top + bottom) // 2:bottom, left:right] = (0, 0, 255)
    thing = warm_boxes(boxes, (ROWS, COLUMNS))
    tokens = torch.arange(3 * 12 * 18 * 2.0).view(-1, 2)
    look, views = looks_of([thing], painted(tokens, paint, 2), width=2)
    assert look.shape == (1, 6) and views.shape == (1, VIEWS, *VIEW)
    middle = VIEW[2] // 2
    assert views[0, :, :3, 4, middle].tolist() == [[1, 0, 0]] * VIEWS
    assert views[0, :, :3, 11, middle].tolist() == [[0, 0, 1]] * VIEWS
    assert (views[0, :, 3, 4, middle] > 0.4).all() and (views[0, :, 3, 0, 0] < 0.01).all()
    blank = looks_of([thing], tokens, width=2)
    assert torch.equal(blank[0], look) and not blank[1].any()


def test_clip_facts_of_a_lasting_thing_and_of_none():
    heat = np.full((4, ROWS, COLUMNS), 0.01, np.float32)
    assert not clip_facts(heat, [])[6:].any()
    heat[:, 3:5, 3:5] = 0.9
    heat[0, 20, 30] = 0.6
    things = warm_things(heat, most=2)
    kept = clip_facts(heat, things)[6:]
    assert kept[0] == 1 and kept[1] == pytest.approx(np.log(9) / 5, abs=1e-4) and kept[4] == 0
    assert kept[5] == pytest.approx(np.log(1.5) / 5, abs=1e-4)


# Ordinary people

def actor(top="red", bottom="black", *, box, anomalous=()):
    return {"appearance": {"top": top, "bottom": bottom}, "anomalous": list(anomalous), "box": box}


def test_ordinary_people_in_clear_view_are_known_by_their_clothes():
    still = [[10, 10, 19, 39]] * 4
    actors = [actor(box=still), actor("white", box=[[100, 10, 109, 39], None, [12, 12, 21, 41], [100, 10, 109, 39]]),
              actor(box=still, anomalous=[[0, 4]]), actor(box=[[60, 60, 62, 64]] * 4), actor(bottom="", box=still)]
    video = SimpleNamespace(text={"actors": actors[:2]}, frames=SimpleNamespace(size=(240, 360)))
    one, other = people_of(video, [0, 2, 3], grid=(3, ROWS, COLUMNS), grey=False)
    assert one.words == {"top": "red", "bottom": "black"} and one.boxes[0] == pytest.approx([1, 1, 2, 4])
    assert np.isnan(one.boxes[1]).all() and np.isnan(other.boxes[1]).all() and not np.isnan(other.boxes[2]).any()
    video.text = {"actors": actors[2:]}
    assert people_of(video, [0], grid=(1, ROWS, COLUMNS), grey=False) == ()     # a target, one too small, a vehicle
    video.text = {"actors": actors[1:2]}
    assert people_of(video, [0], grid=(1, ROWS, COLUMNS), grey=True)[0].words == {"top": "light", "bottom": "dark"}
    video.text = {}
    assert people_of(video, [0], grid=(1, ROWS, COLUMNS), grey=False) == ()


# The classifiers

def test_a_fighting_thing_is_told_as_two_and_others_as_one():
    torch.manual_seed(0)
    model = make_encoder("worded", text_width=8, patch=10, every=2).eval()
    heat = torch.full((1, 4, ROWS, COLUMNS), 0.01)
    heat[0, :, 8:12, 10:14] = 0.9
    facts = model.facts(heat)
    assert facts.found.tolist() == [1] and facts.told.tolist() == [2]
    assert facts.share[0].tolist() == pytest.approx([0, np.log(0.5)])
    fighting = next(field for field in STORY if field.name == "motion").number("fighting")
    head = model.reader.heads["motion_"]
    said = []
    for bias in (9.0, -9.0):
        head.bias.data.zero_()
        head.bias.data[fighting] = bias
        said.append((model.read(facts)["there"][0, 1, 1] - model.read(facts)["there"][0, 1, 0]).item())
    assert said[0] > -5 > said[1]
    assert (facts.path[0, 1] != facts.path[0, 0]).any()        # the right half of it


def test_fitted_words_are_those_of_a_regression_and_unknown_ones_are_never_said():
    from sklearn.linear_model import LogisticRegression

    torch.manual_seed(1)
    reader = make_encoder("worded", text_width=8).reader.eval()
    field = next(field for field in STORY if field.name == "thing")
    known = sorted(field.number(word) for word in ("none", "car", "bicycle"))
    words = np.array(known * 20)
    facts = np.random.default_rng(0).normal(size=(60, 24)).astype(np.float32) + words[:, None] * np.linspace(0, 1, 24)
    reader._fit(field, facts, words)
    slow = LogisticRegression(C=0.03, max_iter=300).fit((facts - facts.mean(0)) / (facts.std(0) + 1e-6), words)
    chances = slow.predict_proba((facts - facts.mean(0)) / (facts.std(0) + 1e-6))
    with torch.no_grad():
        made = reader.heads["thing_"](torch.from_numpy(facts).float()).softmax(-1).numpy()
    assert made[:, known] == pytest.approx(chances, abs=1e-3) and made.sum(1) == pytest.approx(1)
    reader._fit(field, facts, np.full(60, known[0]))        # a single word teaches nothing
    with torch.no_grad():
        assert reader.heads["thing_"](torch.from_numpy(facts).float()).softmax(-1).numpy() == pytest.approx(made)


def test_the_rules_are_believed_before_anything_is_learned():
    torch.manual_seed(2)
    model = make_encoder("worded", text_width=8, patch=10, every=2).eval()
    heat = torch.full((1, 4, ROWS, COLUMNS), 0.01)
    for step in range(4):
        heat[0, step, 8:12, 3 + 7 * step:6 + 7 * step] = 0.9
    logits = model.read(model.facts(heat))
    said = {field.name: field.words[int(logits[field.name][0, 0].argmax())] for field in RULED}
    assert said == {"begins": "starts", "from": "left", "way": "right", "ends": "stays", "to": "right"}


def test_a_thing_that_grows_faint_is_followed_and_one_that_is_gone_is_not():
    heat = np.full((4, ROWS, COLUMNS), 0.01, np.float32)
    for step, level in enumerate((0.9, 0.8, 0.2, 0.15)):
        heat[step, 8:10, 10 + 2 * step:12 + 2 * step] = level
    assert warm_things(heat, most=2)[0].present.all()
    heat[2:, 8:10] = 0.01
    heat[3, 20, 2] = 0.3        # elsewhere
    assert warm_things(heat, most=1)[0].present.tolist() == [True, True, False, False]


def test_other_words_of_the_targets_are_another_training():
    def key(targets):
        lessons = SimpleNamespace(number=[0], turns=[[]], conversations=[SimpleNamespace(targets=targets)],
                                  clips=SimpleNamespace(key="c"))
        return _run_key(SimpleNamespace(train=lessons, val=lessons, config=Phase2Config(),
                                        speaker=SimpleNamespace(settings={}, language_fingerprint="f")))

    assert key(({"top": "red"},)) == key(({"top": "red"},)) != key(({"top": "blue"},))
