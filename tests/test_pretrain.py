"""The making of the tiny zoo: facts are the simulator's truth, lessons say what is there, a broken run goes on."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny_model import random_model

from tvad.backbones.pretrain import language_stage, vision_stage
from tvad.backbones.pretrain.facts import COLOUR_INDEX, MOTION_INDEX, moments, pair_facts
from tvad.backbones.pretrain.questions import PLACES, presence, turns
from tvad.backbones.pretrain.tiny import SPECIAL_TOKENS
from tvad.backbones.refilm import disturb
from tvad.scenes.render import make_footage
from tvad.scenes.script import cast
from tvad.scenes.types import PART_INDEX, PARTS
from tvad.scenes.world import SCENES, SPLITS

PATCH = 10


@pytest.fixture(scope="module")
def footage():
    return make_footage("scene00", 5, frames=8, events=("bicycle", "running"), density=6.0)


@pytest.fixture(scope="module")
def tiny():
    """Random model and processor with the real format and three small blocks."""
    return random_model(full_attention=(1, 2))


def test_facts_of_every_patch_equal_a_count_by_hand(footage):
    facts = pair_facts(footage, 2, patch=PATCH)
    people = {actor.id: actor for actor in footage.actors}
    for row, column in ((12, 10), (15, 20), (9, 30), (20, 5)):
        cell = np.s_[2:4, row * PATCH : (row + 1) * PATCH, column * PATCH : (column + 1) * PATCH]
        parts, ids = footage.parts[cell].ravel(), footage.instances[cell].ravel()
        assert [round(255 * np.mean(parts == k)) for k in range(len(PARTS))] == facts.parts[:, row, column].tolist()
        by_motion = np.zeros(len(MOTION_INDEX))
        for one in ids[ids > 0]:
            by_motion[MOTION_INDEX[people[one].motion[2]]] += 255 / len(ids)
        assert np.abs(by_motion - facts.motions[:, row, column]).max() <= 0.51


def test_numbers_belong_to_the_actor_that_covers_most(footage):
    facts = pair_facts(footage, 2, patch=PATCH)
    shown = [a for a in footage.actors if a.present[2] and a.present[3] and a.appearance.top]
    actor = max(shown, key=lambda a: (footage.instances[2] == a.id).sum())
    share = (
        np.stack([footage.instances[2:4] == a.id for a in footage.actors])
        .reshape(len(footage.actors), 2, 24, PATCH, 36, PATCH)
        .sum((1, 3, 5))
    )
    row, column = np.unravel_index(share[actor.id - 1].argmax(), (24, 36))
    assert share[:, row, column].argmax() == actor.id - 1
    assert np.allclose(facts.velocity[:2, row, column], actor.velocity[2], atol=0.02)
    assert facts.colours[0, row, column] == COLOUR_INDEX[actor.appearance.top]


def test_moments_prefer_what_is_rare():
    actors = cast(SCENES["scene00"], seed=4, duration=12.0, events=("falling",), density=2.0)
    rare = [k for k in range(118) if any(s.present and s.anomalous for s in (a.state(k / 10) for a in actors))]
    drawn = [m for seed in range(20) for m in moments(actors, 8, np.random.default_rng(seed))]
    assert 0 < len(rare) < 100
    assert np.isin(drawn, rare).mean() > 2 * len(rare) / 118 or np.isin(drawn, rare).mean() > 0.6


def test_only_training_scenes_teach():
    from tvad.backbones.pretrain.__main__ import TRAIN_SCENES, VALIDATION_SCENES

    assert TRAIN_SCENES == tuple(SPLITS["train"]) and VALIDATION_SCENES == tuple(SPLITS["val"])
    assert not set(TRAIN_SCENES) & set(SPLITS["test"])


def raw_pairs(footage, count=3):
    facts = [pair_facts(footage, k, patch=PATCH) for k in range(count)]
    return {
        "frames": np.stack([footage.frames[k : k + 2] for k in range(count)]),
        **{name: np.stack([getattr(f, name) for f in facts]) for name in vision_stage.FIELDS[1:]},
    }


def test_a_crop_keeps_frames_and_facts_together(footage):
    raw = raw_pairs(footage)
    crop = vision_stage.crop_pairs(raw, torch.Generator().manual_seed(3), side=120, patch=PATCH, merge=2)
    assert crop["frames"].shape == (3, 2, 120, 120, 3) and crop["parts"].shape == (3, len(PARTS), 12, 12)
    for n in range(3):
        places = [(y, x) for y in range(0, 121, 20) for x in range(0, 241, 20)
                  if np.array_equal(raw["frames"][n, :, y : y + 120, x : x + 120], crop["frames"][n])]
        assert len(places) == 1
        y, x = places[0][0] // PATCH, places[0][1] // PATCH
        assert np.array_equal(raw["parts"][n, :, y : y + 12, x : x + 12], crop["parts"][n])
        assert crop["motions"][n].any()          # there is an actor in it


def test_merged_facts_average_shares_and_pick_the_covering_actor(footage):
    maps = vision_stage.to_maps(raw_pairs(footage, 1))
    coarse = vision_stage.merge_maps(maps, 2)
    block = maps["parts"][0, 10:12, 14:16].reshape(4, -1)
    assert torch.allclose(coarse["parts"][0, 5, 7], block.mean(0))
    best = maps["motions"].sum(-1)[0, 10:12, 14:16].flatten().argmax()
    assert torch.equal(coarse["velocity"][0, 5, 7], maps["velocity"][0, 10:12, 14:16].reshape(4, -1)[best])


def test_disturbance_is_the_cameras_not_the_scenes(footage):
    frames = torch.from_numpy(footage.frames[:1]).unsqueeze(1).expand(4, 2, -1, -1, -1).contiguous()
    changed = [disturb(frames, torch.Generator().manual_seed(1)) for _ in range(2)]
    assert changed[0].dtype == torch.uint8 and changed[0].shape == frames.shape and torch.equal(*changed)
    assert not torch.equal(changed[0], frames)
    both = changed[0].float()
    assert ((both[:, 0] - both[:, 1]).abs().mean((1, 2, 3)) < 12).all()  # a still pair stays still but for noise


def test_answers_are_true_and_never_say_anomaly(footage):
    rng = np.random.default_rng(0)
    said = [turn for _ in range(40) for turn in turns(footage, slice(0, 8), rng=rng, count=16)]
    text = " ".join(q + a for q, a in said).lower()
    assert "anomal" not in text and "abnormal" not in text and "unusual" not in text
    clear = presence(footage, slice(0, 8), footage.instances, footage.parts)
    bicycle = (footage.parts == PART_INDEX["bicycle"]).reshape(8, -1).sum(1).max()
    assert (clear["bicycle"] > 0) == (bicycle >= 10) and clear["motorcycle"] == 0.0
    rider = next(actor for actor in footage.actors if actor.kind == "bicycle")
    if rider.present.any():
        box = rider.box[rider.present]
        x, y = (box[:, 0] + box[:, 2]).mean() / 2, (box[:, 1] + box[:, 3]).mean() / 2
        place = PLACES[min(2, int(3 * y / 240))][min(2, int(3 * x / 360))]
        assert {a for q, a in said if q == "Where is the bicycle?"} <= {place}


def test_a_region_hides_what_lies_outside(footage):
    nothing = (0, 20, 0, 20)
    rng = np.random.default_rng(1)
    said = [turn for _ in range(10) for turn in turns(footage, slice(0, 1), rng=rng, moving=False, region=nothing)]
    people = {a for q, a in said if "see a person?" in q or "shows a person." in q}
    assert people and people <= {"0.0", "No."}


def test_lesson_labels_are_the_answers_and_ids_the_stock_chat_format(tiny):
    model, processor = tiny
    frames = np.random.default_rng(0).integers(0, 256, (4, 80, 120, 3), np.uint8)
    lesson = language_stage.Lesson(frames, [("Where is it?", "top left"), ("How many?", "two")])
    tokens, grid = language_stage.video_tokens(model.model.visual, frames)
    row = language_stage.encode(model, processor, lesson, tokens, grid).dialogue
    said = processor.tokenizer.decode(row.labels[row.labels != -100])
    assert said == "top left<|im_end|>two<|im_end|>"
    talk = [
        {"role": "user", "content": [{"type": "video"}, {"type": "text", "text": "Where is it?"}]},
        {"role": "assistant", "content": "top left"},
        {"role": "user", "content": "How many?"},
        {"role": "assistant", "content": "two"},
    ]
    text = processor.apply_chat_template(talk, tokenize=False)
    stock = processor(
        text=[text],
        videos=[torch.from_numpy(frames).permute(0, 3, 1, 2)],
        return_tensors="pt",
        do_resize=False,
        video_metadata=[{"fps": 10.0, "total_num_frames": 4, "frames_indices": [0, 1, 2, 3]}],
    )
    assert stock["input_ids"][0].tolist()[: len(row.ids)] == row.ids.tolist()
    assert int((row.ids == model.config.video_token_id).sum()) == len(tokens) == 2 * 4 * 6
    wanted, _ = model.model.get_rope_index(
        stock["input_ids"],
        mm_token_type_ids=stock["mm_token_type_ids"],
        video_grid_thw=stock["video_grid_thw"],
        second_per_grid_ts=torch.tensor([0.2]),
    )
    assert torch.equal(wanted[:, 0, : len(row.ids)], row.positions)


def test_padding_of_a_batch_changes_no_logit(tiny):
    model, processor = tiny
    rows = []
    for n, answer in ((2, "two"), (6, "a longer answer at the top left")):
        frames = np.random.default_rng(n).integers(0, 256, (n, 80, 80, 3), np.uint8)
        tokens, grid = language_stage.video_tokens(model.model.visual, frames)
        rows.append(
            language_stage.encode(model, processor, language_stage.Lesson(frames, [("How?", answer)]), tokens, grid)
        )
    with torch.no_grad():
        together, _ = language_stage.lesson_logits(model, processor, rows)
        alone = torch.cat([language_stage.lesson_logits(model, processor, [row])[0] for row in rows])
    assert torch.allclose(together, alone, atol=1e-4)


def test_tokenizer_has_every_special_token_and_loses_no_text(tiny):
    tokenizer = tiny[1].tokenizer
    ids = tokenizer.convert_tokens_to_ids(list(SPECIAL_TOKENS))
    assert len(set(ids)) == len(SPECIAL_TOKENS) and all(
        tokenizer.encode(t) == [i] for t, i in zip(SPECIAL_TOKENS, ids, strict=True)
    )
    for text in ("Is there any anomaly in the video?", "有人奔跑", "café №5 – ok"):
        assert tokenizer.decode(tokenizer.encode(text)) == text


@pytest.mark.slow
def test_stage_one_learns_and_resumes_bit_for_bit(tiny, tmp_path, monkeypatch):
    stage = vision_stage.VisionStage(scenes=("scene00",), rounds=2, block=4, window=1, visits=4, batch=2, cropped=0.5)
    monkeypatch.setattr(vision_stage, "ProcessPoolExecutor", Inline)

    def fresh():
        torch.manual_seed(1)
        return type(tiny[0].model.visual)._from_config(tiny[0].config.vision_config)

    whole = fresh()
    vision_stage.train_vision(whole, stage, work=tmp_path / "whole")
    vision_stage.train_vision(fresh(), stage, work=tmp_path / "broken", stop_after=1)
    resumed = fresh()
    vision_stage.train_vision(resumed, stage, work=tmp_path / "broken")
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name


class Inline:
    """The pool, in this process: tests need no workers."""

    def __init__(self, *_, **__):
        pass

    def __enter__(self):
        return self

    def __exit__(self, *_):
        return None

    def shutdown(self, **_):
        return None

    def submit(self, function, *arguments):
        from concurrent.futures import Future

        done = Future()
        done.set_result(function(*arguments))
        return done


@pytest.mark.slow
def test_stage_two_lowers_the_loss_and_resumes(tiny, tmp_path, monkeypatch):
    import copy

    model, processor = copy.deepcopy(tiny[0]), tiny[1]
    monkeypatch.setattr(language_stage, "ProcessPoolExecutor", Inline)
    stage = language_stage.LanguageStage(
        scenes=("scene00",), lessons=6, block=6, epochs=12, batch=3, height=80, width=120
    )
    result = language_stage.train_language(model, processor, stage, work=tmp_path)
    again = language_stage.train_language(model, processor, replace(stage), work=tmp_path)
    assert result["loss"] < np.log(len(processor.tokenizer)) and np.isnan(again["loss"])  # finished: nothing left to do
