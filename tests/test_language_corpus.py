"""From masks to conversations: what is told of a clip, and what is dropped."""
from __future__ import annotations

import time

import numpy as np
import pytest
from language_toys import SIZE, Toy, toy_video
from real_data import ped2_root

from tvad.datasets import open_dataset
from tvad.datasets.base import Video
from tvad.errors import DatasetError
from tvad.language.appearance import Drop, OpenAppearance, ScriptAppearance, Sighting
from tvad.language.corpus import Dropped, Settings, clip_facts, clips_of, make_split, speak
from tvad.language.surroundings import Surroundings
from tvad.language.tracks import MaskError
from tvad.video.frames import ArrayFrames


@pytest.fixture(scope="module")
def simcampus(tmp_path_factory):
    """A SimCampus of one short video a scene."""
    return open_dataset("simcampus", videos_per_scene=1, frames=30, cache_dir=tmp_path_factory.mktemp("footage"))


@pytest.fixture(scope="module")
def made(simcampus):
    """Conversations about two rendered videos."""
    return make_split(simcampus, "val", ScriptAppearance(), Settings(), limit=2)


def view_of(video, start=0, stop=16):
    return next(view for view in clips_of(video, Settings(stride=1)) if (view.start, view.stop) == (start, stop))


# -- one clip --------------------------------------------------------------------------------------------------------------

def test_masks_become_facts():
    facts = clip_facts(view_of(toy_video("a", targets=2)), OpenAppearance(), split="train", masks="instances")
    assert len(facts.targets) == 2 and [target.timeline.entry for target in facts.targets] == [3, 3]
    assert facts.targets[0].timeline.places[0] == "top-left" and facts.targets[0].timeline.speed != "still"
    later = clip_facts(view_of(toy_video("a"), 10, 26), OpenAppearance(), split="train", masks="binary")
    assert later.targets[0].timeline.entry == 0 and later.id == "toy/a:10-26"


def test_a_clip_without_targets_is_a_normal_one_and_never_a_sentence_about_a_target():
    talks = speak(view_of(toy_video("empty", targets=0)), OpenAppearance(), Settings(), split="train", masks="binary")
    assert {talk.anomalous for talk in talks} == {False}
    assert {answer for talk in talks for _, _, answer in talk.turns()} & {"No.", "None."}


class Around:
    """A truth of the surroundings that always says the same."""

    def __init__(self, **facts):
        self.facts = Surroundings("plaza", "sun", **facts)

    def of(self, start, stop):
        return self.facts


def test_specks_and_events_too_small_for_a_mask_are_no_normal_clips():
    empty = toy_video("empty", targets=0)
    speck = np.zeros((30, *SIZE), np.uint8)
    speck[2:12, 20:23, 30:33] = 1
    video = Video("speck", "toy", empty.frames, masks=lambda start, stop: speck[start:stop])
    options = {"split": "train", "masks": "binary"}
    said = speak(view_of(video), OpenAppearance(), Settings(), **options)
    assert said == Dropped("speck:0-16", "barely seen", "no target is large enough for a track")
    said = speak(view_of(empty), OpenAppearance(), Settings(), truth=Around(events=frozenset({"running"})), **options)
    assert isinstance(said, Dropped) and said.reason == "barely seen"
    talks = speak(view_of(empty), OpenAppearance(), Settings(), truth=Around(doings=("walking",)), **options)
    assert {talk.anomalous for talk in talks} == {False}


def test_masks_that_are_wrong_are_named_by_their_video():
    labels = toy_video("two", targets=2)
    with pytest.raises(MaskError, match=r"toy, two:0-16: binary masks expected, got a label map"):
        clip_facts(view_of(labels), OpenAppearance(), split="train", masks="binary")
    short = Video("short", "toy", labels.frames, masks=lambda start, stop: labels.masks(start, stop)[:7])
    with pytest.raises(MaskError, match=r"toy, short: masks have shape \(7, 60, 90\), expected one .* the 30 frames"):
        next(clips_of(short, Settings()))


def test_a_label_map_where_binary_is_expected_and_masks_of_another_size_are_errors():
    with pytest.raises(MaskError, match="label map"):
        clip_facts(view_of(toy_video("a", targets=2)), OpenAppearance(), split="train", masks="binary")
    video = toy_video("a")
    other = Video("b", "toy", ArrayFrames(np.zeros((30, 40, 40, 3), np.uint8), 10.0, "b"), masks=video.masks)
    with pytest.raises(MaskError, match=r"toy, b:0-16: masks are 60x90 .* the video is 40x40"):
        clip_facts(view_of(other), OpenAppearance(), split="train", masks="binary")
    with pytest.raises(DatasetError, match="has no masks"):
        next(clips_of(Video("c", "toy", video.frames), Settings()))


class Fixed:
    """A source that always says the same."""

    name = "fixed"

    def __init__(self, said):
        self.said = said

    def of(self, view, track):
        return self.said


def test_what_cannot_be_told_truly_is_dropped_with_its_reason():
    from tvad.language.appearance import Look

    view, options = view_of(toy_video("a")), {"split": "train", "masks": "binary"}
    lying = Sighting(Look("falling", top="red", bottom="blue"), ("driving",))
    said = speak(view, Fixed(lying), Settings(), **options)
    assert isinstance(said, Dropped) and said.clip == "a:0-16"
    assert said.reason == "contradiction, appearance to motion" and "falling does not allow driving" in said.detail
    said = speak(view, Fixed(Drop("captioner: no class", "answers ['??']")), Settings(), **options)
    assert (said.reason, said.detail) == ("captioner: no class", "answers ['??']")
    hardly = Toy().videos("train")[2]
    assert speak(view_of(hardly), OpenAppearance(), Settings(), **options).reason == "barely seen"


def test_black_and_white_footage_has_no_colours():
    from tvad.language.appearance import Look

    walker = Fixed(Sighting(Look("running", top="red", bottom="white"), ("running",)))
    for grey, top in ((True, "dark"), (False, "red")):
        facts = clip_facts(view_of(toy_video("a")), walker, split="train", masks="binary", grey=grey)
        assert facts.targets[0].look.top == top


# -- SimCampus -------------------------------------------------------------------------------------------------------------

def test_conversations_agree_with_the_script(simcampus, made):
    videos = {video.id: video for video in simcampus.videos("val")}
    assert len(made.conversations) >= 6 and made.frames == 64
    for talk in made.conversations:
        video = videos[talk.video]
        there = {actor["event"] for actor in video.text["actors"] if actor["event"]
                 and any(start < talk.stop and stop > talk.start for start, stop in actor["anomalous"])}
        assert set(talk.slots["class"].split("; ")) - {"none"} <= there
        assert talk.anomalous == bool(video.masks(talk.start, talk.stop).any())
        for target in talk.targets:
            truth = [actor["appearance"] for actor in video.text["actors"] if actor["event"] == target["class"]]
            assert target["object"] == "none" or any(target["object"] in look["object"] for look in truth)
            assert target["noun"] in {look["noun"] for look in truth}


def test_masks_to_conversations_is_quick_enough(simcampus):
    video = simcampus.videos("val")[0]
    views = list(clips_of(video, Settings()))
    speak(views[0], ScriptAppearance(), Settings(), split="val", masks="instances")
    began = time.process_time()
    for view in views:
        speak(view, ScriptAppearance(), Settings(), split="val", masks="instances")
    assert sum(len(view.masks) for view in views) / (time.process_time() - began) > 500


def test_real_masks_of_ped2_become_conversations():
    dataset = open_dataset("ucsd_ped2", root=ped2_root())
    made = make_split(dataset, "test", OpenAppearance(), Settings(), limit=1)
    video = dataset.videos("test")[0]
    clips = {(talk.start, talk.stop) for talk in made.conversations} | {
        tuple(map(int, drop.clip.rpartition(":")[2].split("-"))) for drop in made.dropped}
    assert clips == {(view.start, view.stop) for view in clips_of(video, Settings())}
    assert {talk.anomalous for talk in made.conversations} == {True, False}
    for talk in made.conversations:
        assert talk.anomalous == bool(video.masks(talk.start, talk.stop).any()) and talk.video == video.id
        assert talk.slots["target"] == talk.slots["colours"] == "none"      # appearance is left open
    # The cyclist comes in at frame 60 of the script; what is told of that clip must say so.
    told = {(talk.slots["trajectory"].partition(",")[0], talk.slots["begins"]) for talk in made.conversations
            if talk.start == 56}
    assert told == {("enters from the left", "0.4")}
    assert all(drop.reason and drop.detail for drop in made.dropped)
