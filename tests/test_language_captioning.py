"""Appearances from models, and from nonsense."""
from __future__ import annotations

import numpy as np
import pytest
from language_toys import ToyVideo, path, the_track

from tvad.errors import ParameterError
from tvad.language import captioning
from tvad.language.appearance import Drop, Look, Sighting
from tvad.language.captioning import CaptionedAppearance, HubCaptioner, focus_view, majority, named
from tvad.language.consistency import contradictions


def test_the_view_is_sharp_on_the_target_and_blurred_around():
    rng = np.random.default_rng(0)
    frame, mask = rng.integers(0, 256, (240, 360, 3), np.uint8), np.zeros((240, 360), bool)
    mask[100:140, 200:230] = True
    view = focus_view(frame, mask)
    assert view.shape == (120, 120, 3)
    around = np.r_[view[:20].ravel(), view[-20:].ravel()]
    assert around.std() < 25 < 60 < frame.std()
    assert np.abs(view[46:76, 51:71].astype(int) - frame[105:135, 205:225]).max() <= 1      # nothing of it is changed
    assert focus_view(frame, np.pad(mask[:4, :4] | True, ((0, 236), (356, 0)))).shape == (96, 96, 3)
    with pytest.raises(ValueError, match="the mask is empty"):
        focus_view(frame, np.zeros_like(mask))


def test_answers_count_where_they_name_one_thing():
    colours = {"red": "red", "blue": "blue"}
    assert named("It is RED.", colours) == "red"
    assert named("red or blue", colours) == named("no idea", colours) == named("tired", colours) == ""
    assert majority(["red", "a red one", "blue"], colours) == "red"
    assert majority(["red", "red", "blue", "no"], colours) == majority([], colours) == ""


class Speaker:
    """A captioner that answers from a table; ``noise`` of every so many answers is nonsense."""

    def __init__(self, answers, noise=0):
        self.answers, self.noise, self.asked = answers, noise, []

    def __call__(self, picture, question):
        assert picture.dtype == np.uint8 and picture.ndim == 3
        self.asked.append(question)
        if self.noise and len(self.asked) % self.noise == 0:
            return "as an assistant I cannot say %%"
        return next(answer for word, answer in self.answers.items() if word in question)


ANSWERS = {"in the blurred picture": "A man riding a bike.", "doing": "riding", "upper body": "Red", "trousers": "gray",
           "Which colour is the bicycle": "white"}


@pytest.mark.parametrize("noise", [0, 3])
def test_a_captioner_is_aggregated_over_frames(noise):
    view = ToyVideo().view()
    speaker = Speaker(ANSWERS, noise)
    said = CaptionedAppearance(speaker).of(view, the_track(view))
    assert said == Sighting(Look("bicycle", "man", "red", "grey", object="bicycle", object_colour="white",
                                 accessories_known=False), ("riding",))
    assert len(speaker.asked) == 25


def test_a_vehicle_has_no_clothes():
    view = ToyVideo().view()
    answers = {"in the blurred": "a white van", "doing": "driving", "colour is the van": "white"}
    said = CaptionedAppearance(Speaker(answers)).of(view, the_track(view))
    assert said == Sighting(Look("car", "van", object="van", object_colour="white", accessories_known=False), ("driving",))


@pytest.mark.parametrize(("answer", "kind"), [
    ("A man pushing a hand truck.", "hand_truck"), ("a hand-truck", "hand_truck"), ("hand trucks", "hand_truck"),
    ("a white truck", "car"), ("two trucks", "car"), ("There is no car.", ""), ("It is not a bicycle", ""),
    ("I don't see a car", ""), ("It isn\u2019t a van", ""), ("a person without a stroller", ""), ("I cannot see a car", ""),
    ("neither", ""), ("a notable car", "car"), ("unclear, maybe a car", ""), ("hardly a car", ""), ("a toy car", ""),
    ("hard to say whether it is a car", ""),
])
def test_a_hand_truck_is_no_car_and_what_is_denied_is_not_named(answer, kind):
    assert named(answer, captioning._KINDS) == kind
    assert named(answer, captioning._THINGS) == ("van" if kind == "car" and "truck" in answer else "")


@pytest.mark.parametrize("motion", ["riding a skateboard", "gliding", "rides, skating"])
def test_who_rides_a_skateboard_glides(motion):
    view = ToyVideo().view()
    answers = {"in the blurred picture": "a man on a skateboard", "doing": motion, "upper body": "red", "trousers": "blue",
               "Which colour is the skateboard": "black"}
    said = CaptionedAppearance(Speaker(answers)).of(view, the_track(view))
    assert said.motions == ("gliding",) and said.look.object == "skateboard"
    assert not [text for text in contradictions(said.look, said.motions, path()) if "appearance" in text]


@pytest.mark.parametrize(("change", "reason"), [({"in the blurred picture": "lovely weather"}, "captioner: no class"),
                                                ({"in the blurred picture": "a car or a bicycle"}, "captioner: no class"),
                                                ({"doing": "blue"}, "captioner: no motion")])
def test_nonsense_is_a_drop_that_shows_the_answers(change, reason):
    view = ToyVideo().view()
    said = CaptionedAppearance(Speaker({**ANSWERS, **change})).of(view, the_track(view))
    assert isinstance(said, Drop) and said.reason == reason and repr(list(change.values())[0]) in said.detail


@pytest.mark.parametrize("answer", [None, 7, ["a car"]])
def test_what_is_no_text_says_nothing(answer):
    view = ToyVideo().view()
    said = CaptionedAppearance(lambda picture, question: answer, frames=2).of(view, the_track(view))
    assert isinstance(said, Drop) and said.reason == "captioner: no class" and said.detail.endswith("answers ['', '']")


def test_a_random_model_of_the_hub_class_gives_a_drop_and_no_sentence(tmp_path):
    import torch
    from transformers import Qwen2_5_VLForConditionalGeneration

    from tvad.backbones.pretrain.tiny import make_config, make_processor, make_tokenizer, save_model

    tokenizer = make_tokenizer(["a person in a red top", "a white van"])
    config = make_config(tokenizer)
    config.vision_config.depth, config.vision_config.fullatt_block_indexes = 2, [1]
    config.text_config.num_hidden_layers, config.text_config.layer_types = 1, ["full_attention"]
    torch.manual_seed(0)
    save_model(Qwen2_5_VLForConditionalGeneration(config), make_processor(tokenizer), tmp_path / "model")
    captioner = HubCaptioner.from_pretrained(tmp_path / "model", device="cpu", dtype="float32")
    captioner.max_new_tokens = 6
    view = ToyVideo().view()
    said = CaptionedAppearance(captioner, frames=2).of(view, the_track(view))
    assert isinstance(said, Drop) and said.reason == "captioner: no class"


def test_a_model_that_is_not_there_is_named(tmp_path):
    from tvad.errors import BackboneError

    with pytest.raises(BackboneError, match=r"nothing: cannot be loaded as a captioner .*AutoModelForImageTextToText"):
        HubCaptioner.from_pretrained(tmp_path / "nothing")


def test_a_late_denial_counts_although_reports_are_cut():
    view = ToyVideo().view()
    long = "a car, it seems at first sight, on the far side of the road behind the trees; but no, there is nothing"
    said = CaptionedAppearance(Speaker({"in the blurred": long})).of(view, the_track(view))
    assert said.reason == "captioner: no class" and long[:80] in said.detail and long not in said.detail


def test_a_captioner_asks_about_one_frame_at_least():
    with pytest.raises(ParameterError, match="frames must be at least 1, got 0; 5 is usual"):
        CaptionedAppearance(Speaker({}), frames=0)
