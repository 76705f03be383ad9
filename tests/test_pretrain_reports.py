"""What the tiny model reads and is told of ordinary actors: true, unambiguous, in the conversations' own words."""
import re
from collections import Counter

import numpy as np
import pytest

from tvad.backbones.pretrain.language_stage import FRAMES, KINDS, lessons
from tvad.backbones.pretrain.questions import SMALLEST
from tvad.backbones.pretrain.reports import PATH_FRAMES, presence_turn, reading, reports, singled_out
from tvad.language.grammar import parse
from tvad.scenes.palette import COLOURS
from tvad.scenes.render import make_footage

WHOLE = slice(None)
PATH = re.compile("path of|From where to where|Which way")


@pytest.fixture(scope="module", params=["scene00", "scene01"], ids=["colour", "grey"])
def footage(request):
    return make_footage(request.param, 5, frames=PATH_FRAMES, events=("bicycle", "running"), density=5.0)


def _named(footage, frames=WHOLE):
    masks = footage.instances[frames]
    areas = np.stack([np.bincount(mask.ravel(), minlength=256) for mask in masks])
    return singled_out(footage, frames, areas, least=SMALLEST)


def test_no_two_actors_have_one_name_and_all_of_them_show(footage):
    named = _named(footage)
    assert named and max(Counter(one.subject for one in named).values()) == 1
    for one in named:
        assert (footage.instances == one.actor.id).any()
        rows, columns = np.nonzero(footage.instances[one.track.frames[0]] == one.actor.id)
        box = one.track.boxes[0]
        assert box[0] - 1 <= columns.mean() <= box[2] + 1 and box[1] - 1 <= rows.mean() <= box[3] + 1


def test_grey_footage_has_no_colours_and_colour_footage_the_scripts(footage):
    grey = footage.scene == "scene01"
    for one in _named(footage):
        said = {one.look.top, one.look.bottom} - {""}
        truth = {one.actor.appearance.top, one.actor.appearance.bottom} - {""}
        assert said == truth if not grey else not said & (set(COLOURS) - {"grey"})


def test_clips_tell_paths_that_parse_and_pairs_tell_places(footage):
    rng = np.random.default_rng(0)
    clip = reports(footage, WHOLE, _named(footage), rng=rng)
    paths = [answer for question, answer in clip if PATH.search(question)]
    assert len(paths) == len(_named(footage))
    for path in paths:
        parse(path[0].lower() + path[1:-1])
    pair = slice(2, 4)
    told = reports(footage, pair, _named(footage, pair), rng=rng)
    assert not [question for question, _ in told if PATH.search(question)]
    assert [question for question, _ in told if re.search("^Where|which part", question)]


def test_what_is_asked_of_a_text_stands_in_it(footage):
    rng, seen = np.random.default_rng(1), 0
    for _ in range(20):
        asked = reading(footage, WHOLE, _named(footage), rng=rng)
        text = asked[0][0].lower()
        for _, answer in asked:
            assert answer[:-1].lower() in text
            seen += 1
    assert seen > 40
    assert reading(footage, WHOLE, [], rng=rng) == []


def test_presence_is_a_plain_yes_or_no():
    rng = np.random.default_rng(0)
    said = {presence_turn(name, present, rng, still=True) for name in ("umbrella", "people talking") for present in (0, 1)
            for _ in range(20)}
    assert {answer for _, answer in said} == {"Yes.", "No."}
    assert not [question for question, _ in said if " a umbrella" in question or " a people" in question]
    assert [question for question, _ in said if "in the picture" in question]


def test_lessons_are_of_every_kind_and_never_name_an_anomaly():
    made = lessons(scenes=["scene00", "scene01"], seed=3, count=60, size=(80, 120))
    assert {len(lesson.frames) for lesson in made} >= {0, 1, FRAMES["pair"], FRAMES["clip"]}
    assert abs(sum(KINDS.values()) - 1) < 1e-9
    words = " ".join(text for lesson in made for turn in lesson.turns for text in turn).lower()
    assert not re.search("anomal|abnormal|unusual", words)
    again = lessons(scenes=["scene00", "scene01"], seed=3, count=60, size=(80, 120))
    assert [lesson.turns for lesson in made] == [lesson.turns for lesson in again]
