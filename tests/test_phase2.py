"""Phase 2: what is adapted and trained, labels, cached evidence, ablations, blobs, and training that resumes exactly."""
from __future__ import annotations

import json
import logging
from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny_model import random_model_directory
from torch.nn import functional as F

from tvad.backbones.chat import IGNORED
from tvad.backbones.qwen import QwenBackbone
from tvad.datasets.base import Event, Video
from tvad.errors import BackboneError, CheckpointError, DatasetError, MissingPhaseError, ParameterError, StorageError
from tvad.evaluation import Cell
from tvad.heatmap import AnomalyHeatmapDecoder
from tvad.language.dialogue import Conversation
from tvad.language.phrasings import language
from tvad.language.timeline import parse, timeline_of
from tvad.metrics.text import Answer
from tvad.study import answers as study
from tvad.training import blobs, phase2, variants
from tvad.training.answering import answer, evidence_of, yes_no_temperature
from tvad.training.evidence import ClipRange, cache_clips
from tvad.training.lessons import Lessons, Turn, turns_of
from tvad.training.phase2_config import Phase2Config
from tvad.training.speaker import Lora, attach, load_speaker, optimizer_groups
from tvad.training.targets import cover
from tvad.training.variants import VARIANTS
from tvad.video.clip import Clip
from tvad.video.frames import ArrayFrames

SIZE, FRAMES = (80, 120), 6
TEXT = torch.nn.functional.normalize(torch.randn(2, 256, generator=torch.Generator().manual_seed(3)), dim=1)
LORA = Lora(4, 8, 0.05)
SMALL = Phase2Config(steps=4, batch_size=2, validate_every=2, lora_rank=4, lora_alpha=8, scene_share=0.5, blob_steps=2,
                     blob_batch=2, val_conversations=4, learning_rate=1e-2, region_learning_rate=1e-2, warm_up=0.0)


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    return random_model_directory(tmp_path_factory.mktemp("zoo") / "tiny")


def opened(directory) -> QwenBackbone:
    return QwenBackbone.from_pretrained(directory, taps=(0, 1), device="cpu", dtype="float32", load_language_model=True)


@pytest.fixture(scope="module")
def shared(directory):
    return opened(directory)


@pytest.fixture
def backbone(shared):
    """The shared backbone, given back as it was."""
    yield shared
    assert not any("lora_" in name for name, _ in shared.language_model.named_parameters()), "a speaker was not released"


@pytest.fixture(scope="module")
def decoder():
    torch.manual_seed(1)
    return AnomalyHeatmapDecoder(taps=(0, 1), tap_width=48, hidden_width=8, text_width=256).eval()


def toy_video(name: str, anomalous: bool) -> Video:
    rng = np.random.default_rng(list(name.encode()))
    frames = rng.integers(0, 256, (12, *SIZE, 3), np.uint8)
    masks = np.zeros((12, *SIZE), np.uint8)
    if anomalous:
        masks[2:, 31:38, 52:63] = 1
    events = (Event("car", 2, 12, 1),) if anomalous else ()
    return Video(id=name, dataset="simcampus", frames=ArrayFrames(frames, 10.0, name), events=events,
                 labels=masks.any(axis=(1, 2)).astype(np.uint8), masks=lambda start, stop: masks[start:stop])


def told(name: str, anomalous: bool, start: int = 0, stop: int = FRAMES) -> Conversation:
    said = [("anomaly", "Is there any anomaly?", "Yes." if anomalous else "No.", [])]
    if anomalous:
        said += [("target", "Name the abnormal target.", "I see a red car.", ["A red car."]),
                 ("from", "Where does it come from?", "From the top left.", [])]
    said.append(("people", "How many people are there?", "One.", []))
    messages = []
    for slot, question, reply, references in said:
        content = ([] if messages else [{"type": "video"}]) + [{"type": "text", "text": question}]
        messages += [{"role": "user", "slot": slot, "references": [], "content": content},
                     {"role": "assistant", "slot": slot, "references": references,
                      "content": [{"type": "text", "text": reply}]}]
    slots = {"anomaly": "yes" if anomalous else "no", "class": "car" if anomalous else "none"}
    return Conversation(f"{name}:{start}", name, start, stop, 10.0, "simcampus", "train", "s", anomalous, "turns",
                        tuple(messages), slots)


NAMES = {"a": True, "b": False, "c": True, "d": False}
VIDEOS = {name: toy_video(name, anomalous) for name, anomalous in NAMES.items()}
TALKS = [told(name, anomalous) for name, anomalous in NAMES.items()]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def clips(shared, decoder, root):
    ranges = [ClipRange(name, 0, FRAMES) for name in NAMES]
    return cache_clips(shared, decoder, ranges, VIDEOS, prototypes=TEXT, root=root, masks=True, progress=False)


def spoken(backbone, clips, name="full", talks=TALKS, seed=0, **options):
    speaker = attach(backbone, VARIANTS[name], lora=LORA, region={"variant": "located"}, seed=seed)
    heat = variants.evidence_maps(clips, VARIANTS[name].evidence, seed=0)
    return Lessons(talks, clips, speaker, backbone=backbone, heat=heat, **options)


# What is adapted, and what is trained

ADAPTED = ["model.language_model.layers.0.self_attn.q_proj", "model.language_model.layers.0.self_attn.v_proj"]


@pytest.mark.parametrize("name", VARIANTS)
def test_exactly_these_modules_are_adapted_and_nothing_else_learns(backbone, clips, name):
    before = {key: value.clone() for key, value in backbone.language_model.state_dict().items()}
    lessons = spoken(backbone, clips, name)
    speaker, variant = lessons.speaker, VARIANTS[name]
    adapted = sorted({key.split(".lora_")[0].removeprefix("language.base_model.model.")
                      for key, _ in speaker.named_parameters() if ".lora_" in key})
    assert adapted == (ADAPTED if variant.lora else [])
    losses, _ = speaker([lessons.example(row, "anomaly") for row in range(4)])
    losses.mean().backward()
    learning = {key for key, value in speaker.named_parameters() if value.grad is not None}
    assert learning == set(speaker.trainable())
    kinds = {"lora": [key for key in learning if ".lora_" in key], "region": [k for k in learning if k[:7] == "region."],
             "rows": [key for key in learning if "trainable_tokens" in key]}
    assert sum(map(len, kinds.values())) == len(learning)
    assert bool(kinds["lora"]) == variant.lora and bool(kinds["region"]) == variant.region
    assert len(kinds["rows"]) == (variant.evidence is not None)
    assert all(speaker.trainable()[key].shape == (3, 256) for key in kinds["rows"])
    groups = optimizer_groups(speaker, learning_rate=1e-4, region_learning_rate=1e-3, weight_decay=0.1)
    assert sum(len(group["params"]) for group in groups) == len(learning)
    assert all((group["peak"], group["weight_decay"]) in {(1e-4, 0.1), (1e-3, 0.1), (1e-3, 0.0)} for group in groups)
    speaker.release()
    after = backbone.language_model.state_dict()
    assert before.keys() == after.keys() and all(torch.equal(value, after[key]) for key, value in before.items())


def test_a_backbone_without_language_model_or_with_another_adapter_is_refused(directory, backbone):
    blind = QwenBackbone.from_pretrained(directory, taps=(0, 1), device="cpu", dtype="float32")
    with pytest.raises(BackboneError, match="needs the language model; open the backbone with load_language_model=True"):
        attach(blind, VARIANTS["full"], lora=LORA, region={}, seed=0)
    speaker = attach(backbone, VARIANTS["full"], lora=LORA, region={}, seed=0)
    with pytest.raises(BackboneError, match="adapted already; call release"):
        attach(backbone, VARIANTS["full"], lora=LORA, region={}, seed=0)
    speaker.release()


@pytest.mark.parametrize("change", ["bfloat16", "checkpointing"])
def test_half_precision_and_recomputed_activations_learn_the_same(directory, shared, clips, change):
    other = QwenBackbone.from_pretrained(directory, taps=(0, 1), device="cpu", load_language_model=True,
                                         dtype="bfloat16" if change == "bfloat16" else "float32")
    found = []
    for backbone, options in ((shared, {}), (other, {"checkpointing": change == "checkpointing"})):
        speaker = attach(backbone, VARIANTS["full"], lora=replace(LORA, dropout=0.0), region={}, seed=0, **options)
        lessons = Lessons(TALKS, clips, speaker, backbone=backbone, heat=variants.evidence_maps(clips, "heat", seed=0))
        losses, _ = speaker.train()([lessons.example(0, "anomaly")])
        losses.mean().backward()
        assert all(value.dtype == torch.float32 for value in speaker.trainable().values())
        found.append((losses.mean().item(), float(speaker.region.out.weight.grad.norm())))
        speaker.release()
    assert found[1] == pytest.approx(found[0], rel=0.1 if change == "bfloat16" else 1e-4)


# Sequences and labels

def test_labels_are_the_answers_and_stand_where_they_are_said(backbone, clips):
    lessons = spoken(backbone, clips)
    example = lessons.example(0, "anomaly")
    ids, labels = example.dialogue.ids, example.dialogue.labels
    tokenizer = backbone.tokenizer
    wanted = ["Yes.<|im_end|>", "I see a red car.<|im_end|>", "From the top left.<|im_end|>"]
    answered, turn = labels[labels != IGNORED], example.answered()
    assert [tokenizer.decode(answered[turn == number]) for number in range(3)] == wanted
    assert torch.equal(labels[labels != IGNORED], ids[labels != IGNORED])
    text = tokenizer.decode(ids)
    for number, reply in enumerate(wanted):     # what stands before an answer's first token is the cue to answer
        first = int(torch.nonzero(labels != IGNORED).flatten()[(turn == number).nonzero()[0, 0]])
        assert tokenizer.decode(ids[:first]).endswith("<|im_start|>assistant\n")
        assert tokenizer.decode(ids[first:]).startswith(reply)
    seen, hole = text.index("<|video_pad|>"), text.index("<|anomaly_prompt_pad|>")
    assert seen < hole < text.index("Is there any anomaly?")
    assert text.count("<|video_pad|>") == 72 and text.count("<|anomaly_prompt_pad|>") == lessons.speaker.evidence_tokens(3)
    lessons.speaker.release()


def test_stages_take_their_own_turns(backbone, clips):
    lessons = spoken(backbone, clips)
    assert [turn.slot for turn in lessons.chosen(0, "anomaly")] == ["anomaly", "target", "from"]
    assert [turn.slot for turn in lessons.chosen(0, "scene")] == ["people"]
    assert lessons.rows("scene") == [0, 1, 2, 3]
    lessons.speaker.release()


def test_malformed_conversations_are_named():
    broken = replace(TALKS[0], messages=TALKS[0].messages[:-1])
    with pytest.raises(DatasetError, match="conversation a:0: roles are .* must take turns"):
        turns_of(broken)
    slotless = ({"role": "user", "content": "Why?"}, {"role": "assistant", "content": "No."})
    with pytest.raises(DatasetError, match="an answer names no slot"):
        turns_of(replace(TALKS[0], messages=slotless))


def slow_losses(lessons, row):
    """One example, embedding by embedding, with logits at every place."""
    speaker, example = lessons.speaker, lessons.example(row, "anomaly")
    stock = speaker.stock
    table, merged = stock.get_input_embeddings(), iter(example.seen)
    tokens = speaker.evidence([example.heat])[0] if example.heat is not None else None
    given = iter(tokens if tokens is not None else [])
    embeds = []
    for number in example.dialogue.ids:
        if number == stock.config.video_token_id:
            embeds.append(next(merged).float())
        elif number == speaker.format.anomaly_pad:
            embeds.append(next(given))
        else:
            embeds.append(table(number[None])[0])
    out = stock.model.language_model(inputs_embeds=torch.stack(embeds)[None],
                                     position_ids=example.dialogue.positions[:, None])
    logits = stock.lm_head(out.last_hidden_state)[0]
    said = [place for place, label in enumerate(example.dialogue.labels) if label != IGNORED]
    return torch.stack([F.cross_entropy(logits[place - 1], example.dialogue.labels[place]) for place in said])


@pytest.mark.parametrize("name", ["full", "no-rae", "no-rae-no-ahd"])
@torch.no_grad()
def test_losses_of_a_padded_batch_equal_the_slow_twin(backbone, clips, name):
    lessons = spoken(backbone, clips, name)
    lessons.speaker.eval()
    losses, hits = lessons.speaker([lessons.example(row, "anomaly") for row in (1, 0)])
    expected = torch.cat([slow_losses(lessons, 1), slow_losses(lessons, 0)])
    assert torch.allclose(losses, expected, atol=1e-4) and hits.shape == losses.shape
    lessons.speaker.release()


# Evidence

def test_cached_clips_are_what_the_tower_and_the_decoder_say(backbone, clips, decoder):
    frames = VIDEOS["c"].frames.read(0, FRAMES)
    sight = backbone.see(Clip(frames, 10.0, 0, "c"), tokens=True)
    assert clips.grids[2] == sight.grid == (3, 8, 12)
    assert torch.allclose(clips.tokens(2).float(), sight.tokens, atol=1e-2, rtol=1e-2)
    with torch.inference_mode():
        assert torch.allclose(clips.heat(2), decoder.heatmap(sight.taps, TEXT), atol=1e-3)
    masks = VIDEOS["c"].masks(0, FRAMES)
    assert torch.equal(clips.mask(2), torch.from_numpy(np.stack(
        [cover(masks[at:at + 2], (8, 12)) > 0 for at in (0, 2, 4)]).astype(np.float32)))
    assert clips.mask(2)[0].sum() == 0 and clips.mask(2)[1].sum() == 2 and clips.mask(1).sum() == 0


def test_the_tower_runs_only_for_what_is_missing_or_damaged(backbone, decoder, tmp_path, caplog, monkeypatch):
    ranges = [ClipRange("a", 0, 4), ClipRange("b", 2, 7)]
    seen, see = [], type(backbone).see_many

    def counted(self, parts, **options):
        seen.extend(parts)
        return see(self, parts, **options)

    monkeypatch.setattr(type(backbone), "see_many", counted)
    options = {"prototypes": TEXT, "root": tmp_path, "progress": False}
    first = cache_clips(backbone, decoder, ranges, VIDEOS, **options)
    assert [len(clip.frames) for clip in seen] == [4, 5] and [grid[0] for grid in first.grids] == [2, 3]
    again = cache_clips(backbone, decoder, ranges, VIDEOS, **options)
    assert len(seen) == 2 and again.key == first.key
    victim = next(tmp_path.rglob("simcampus-b-2-7-tokens-*"))
    victim.write_bytes(victim.read_bytes()[:-3] + b"abc")
    with caplog.at_level(logging.WARNING):
        assert cache_clips(backbone, decoder, ranges, VIDEOS, **options).key == first.key
    assert "damaged" in caplog.text and [clip.video for clip in seen[2:]] == ["b"]
    torch.manual_seed(9)
    other = AnomalyHeatmapDecoder(taps=(0, 1), tap_width=48, hidden_width=8, text_width=256)
    assert cache_clips(backbone, other, ranges, VIDEOS, **options).key != first.key


def test_clips_outside_their_video_are_refused(backbone, decoder, tmp_path):
    options = {"prototypes": TEXT, "root": tmp_path, "progress": False}
    with pytest.raises(DatasetError, match="z: the conversations speak of a video that is not among the 4 given"):
        cache_clips(backbone, decoder, [ClipRange("z", 0, 4)], VIDEOS, **options)
    with pytest.raises(DatasetError, match="a: frames 8 to 13 asked for, the video has 12"):
        cache_clips(backbone, decoder, [ClipRange("a", 8, 13)], VIDEOS, **options)
    plain = cache_clips(backbone, decoder, [ClipRange("a", 0, 4)], VIDEOS, **options)
    with pytest.raises(DatasetError, match="a-0-4: its ground-truth map was not cached"):
        plain.mask(0)


def test_the_language_model_may_see_every_second_step(backbone, clips):
    lessons = spoken(backbone, clips, token_step=2)
    example = lessons.example(0, "anomaly")
    assert torch.equal(example.seen, torch.cat([clips.tokens(0)[:24], clips.tokens(0)[48:]])) and len(example.heat) == 3
    pads = example.dialogue.ids == backbone.language_model.config.video_token_id
    times = example.dialogue.positions[0][pads]
    assert pads.sum() == 48 and times.max() - times.min() == 4      # ten ticks a second, 0.4 s between the steps
    lessons.speaker.release()


# Ablations

def test_the_rows_of_the_ablation_are_these():
    assert list(VARIANTS) == ["full", "no-rae", "no-ahd", "no-rae-no-ahd", "no-lora", "shuffled-evidence",
                              "oracle-evidence"]
    with pytest.raises(ParameterError, match="unknown variant 'half'; give one of full, no-rae"):
        Phase2Config(variant="half")


def test_each_variant_gets_its_evidence(backbone, clips):
    assert torch.equal(variants.evidence_maps(clips, "heat", seed=0)[1], clips.heat(1))
    assert torch.equal(variants.evidence_maps(clips, "mask", seed=0)[2], clips.mask(2))
    assert {float(value) for one in variants.evidence_maps(clips, "constant", seed=0) for value in one.unique()} == {0.5}
    assert variants.evidence_maps(clips, None, seed=0) is None
    with pytest.raises(ParameterError, match="unknown evidence 'light'; give one of heat, constant, other, mask"):
        variants.evidence_maps(clips, "light", seed=0)
    lengths = {}
    for name in ("full", "no-rae", "no-rae-no-ahd"):
        lessons = spoken(backbone, clips, name)
        given = evidence_of(lessons, 0).anomaly
        assert given is None if name == "no-rae-no-ahd" else bool(given.any()) == (name == "full")
        lengths[name] = len(lessons.example(0, "anomaly").dialogue.ids)
        lessons.speaker.release()
    assert lengths["full"] == lengths["no-rae"] == lengths["no-rae-no-ahd"] + 7 + 2     # 3 steps + 4, start and end


class Numbered:
    """Only what dealing out needs."""

    def __init__(self, names, grids):
        self.clips, self.grids = [ClipRange(name, 0, number + 1) for number, name in enumerate(names)], grids

    def __len__(self):
        return len(self.clips)


def test_shuffled_evidence_is_of_another_video():
    names = [name for name in "abcdefg" for _ in range(3)]
    grids = [(3, 8, 12)] * 15 + [(2, 8, 12)] * 6
    for seed in range(5):
        chosen = variants.other_clips(Numbered(names, grids), seed=seed)
        assert sorted(chosen) == list(range(21))
        assert all(names[i] != names[j] and grids[i] == grids[j] for i, j in enumerate(chosen))
    assert np.array_equal(chosen, variants.other_clips(Numbered(names, grids), seed=4))
    with pytest.raises(ParameterError, match="a-0-1: no other clip has a map of its shape"):
        variants.other_clips(Numbered("ab", [(3, 8, 12), (4, 8, 12)]), seed=0)


# Blobs

WORLD = blobs.BlobWorld(steps=8, grid=(24, 36), patch=10, step_frames=2, fps=10.0)


def test_blobs_are_told_as_their_tracks_are():
    words, empty = language("en"), 0
    for number in range(60):
        heat, turns = blobs.blob_lesson(WORLD, seed=1, number=number)
        assert heat.shape == (8, 24, 36) and 0 <= heat.min() and heat.max() <= 1
        if len(turns) == 1:
            empty += 1
            assert turns[0].answer == "No." and heat.max() < 0.75
            continue
        rng = np.random.default_rng([1, 11, number])
        rng.random()
        track = blobs.draw_track(WORLD, rng)
        timeline = timeline_of(track, frames=16, size=(240, 360))
        said = {turn.slot: turn.answer for turn in turns}
        assert list(said) == list(blobs.BLOB_SLOTS) and said["anomaly"] == "Yes."
        assert said["from"] == f"From {words.speech.place(timeline.origin)}."
        path = said["trajectory"][0].lower() + said["trajectory"][1:-1]
        assert parse(path) == timeline.path
    assert 3 < empty < 20


def test_the_heat_lies_on_the_track():
    rng = np.random.default_rng(0)
    for _ in range(20):
        track = blobs.draw_track(WORLD, rng)
        heat = blobs.draw_heat(WORLD, track, rng)
        step = int(track.frames[len(track.frames) // 2]) // 2
        x1, y1, x2, y2 = track.boxes[track.frames // 2 == step].mean(0) / 10
        inside = heat[step, max(0, int(y1) - 1):int(y2) + 2, max(0, int(x1) - 1):int(x2) + 2]
        assert heat[heat.max(axis=(1, 2)).argmax()].max() > 0.3 and inside.max() > 0.05
        boxes, frames = track.boxes, track.frames
        assert (boxes[:, :2] >= 0).all() and (boxes[:, 2] <= 359).all() and (boxes[:, 3] <= 239).all()
        assert np.all(np.diff(frames) == 1) and frames[-1] < 16


def test_a_blob_lesson_has_no_video_and_depends_on_its_number_alone(backbone):
    speaker = attach(backbone, VARIANTS["full"], lora=LORA, region={}, seed=0)
    one, two = (blobs.blob_example(speaker, WORLD, seed=0, number=number) for number in (5, 6))
    again = blobs.blob_example(speaker, WORLD, seed=0, number=5)
    assert torch.equal(one.heat, again.heat) and torch.equal(one.dialogue.ids, again.dialogue.ids)
    assert not torch.equal(one.heat, two.heat)
    assert not (one.dialogue.ids == backbone.language_model.config.video_token_id).any()
    losses, _ = speaker([one, two])
    assert torch.isfinite(losses).all() and len(losses) == sum(len(x.answered()) for x in (one, two))
    speaker.release()


def test_blobs_are_skipped_where_tokens_cannot_tell():
    steps = {name: Phase2Config(variant=name, blob_steps=5, steps=10, scene_share=0.3).total for name in VARIANTS}
    assert steps == {"full": 15, "no-rae": 10, "no-ahd": 10, "no-rae-no-ahd": 10, "no-lora": 15, "shuffled-evidence": 15,
                    "oracle-evidence": 15}
    config = Phase2Config(blob_steps=5, steps=10, scene_share=0.3)
    assert [config.stage(step) for step in (0, 4, 5, 7, 8, 14)] == 2 * ["blobs"] + 2 * ["scene"] + 2 * ["anomaly"]


@pytest.mark.parametrize(("change", "said"), [({"steps": 0}, "steps must be at least 1, got 0"),
                                              ({"scene_share": 1.0}, r"scene_share must be in \[0, 1\), got 1.0"),
                                              ({"learning_rate": 0.0}, "must be above 0"),
                                              ({"micro_batch": -1}, "micro_batch must be at least 0")])
def test_settings_out_of_range_are_named(change, said):
    with pytest.raises(ParameterError, match=said):
        Phase2Config(**change)


# Training

def train(backbone, decoder, root, output, config=SMALL, talks=TALKS, **options):
    return phase2.train_speaker(config, backbone, decoder, train=talks, val=TALKS, videos=VIDEOS, output_dir=output,
                                cache_dir=root, prototypes=TEXT, progress=False, **options)


def weights(folder):
    from safetensors.torch import load_file

    return {f"{path.name}/{key}": value for path in sorted(folder.rglob("*.safetensors"))
            for key, value in load_file(path).items()}


def test_a_resumed_run_equals_the_unbroken_one_and_the_best_is_kept(backbone, decoder, root, clips, tmp_path):
    stock = {key: value.clone() for key, value in backbone.language_model.state_dict().items()}
    whole = train(backbone, decoder, root, tmp_path / "whole")
    stopped = train(backbone, decoder, root, tmp_path / "broken", stop_after=5)     # the last checkpoint is at 4
    assert stopped.resumed_at == 0 and len(stopped.history) == 2
    resumed = train(backbone, decoder, root, tmp_path / "broken")
    assert resumed.resumed_at == 4 and [dict(one) for one in resumed.history] == [dict(one) for one in whole.history]
    first, second = weights(whole.path), weights(resumed.path)
    assert first.keys() == second.keys() and all(torch.equal(value, second[key]) for key, value in first.items())
    assert [record["stage"] for record in whole.history] == ["blobs", "scene", "anomaly"]
    assert whole.best["val_loss"] == min(record["val_loss"] for record in whole.history)
    assert all(torch.equal(value, backbone.language_model.state_dict()[key]) for key, value in stock.items())

    again = train(backbone, decoder, root, tmp_path / "whole")
    assert again.resumed_at == SMALL.total and dict(again.best) == dict(whole.best)

    speaker = load_speaker(whole.path, backbone)
    lessons = phase2.open_lessons(SMALL, speaker, TALKS, clips, backbone=backbone)
    found = phase2.validate(lessons, range(4), batch=2)
    assert found["val_loss"] == pytest.approx(whole.best["val_loss"], rel=1e-5)
    assert set(found["val_slots"]) == {"anomaly", "target", "from"}
    assert not speaker.trainable()
    speaker.release()
    record = json.loads((whole.path / "phase2.json").read_text())
    assert record["variant"] == "full" and record["phase2"]["lora_rank"] == 4 and record["calibration"] > 0
    settings = json.loads((whole.path / "adapter" / "adapter_config.json").read_text())
    assert settings["base_model_name_or_path"] == backbone.name


def test_small_batches_at_a_time_give_the_same_training(backbone, decoder, root, clips, tmp_path):
    config = replace(SMALL, lora_dropout=0.0, steps=2, blob_steps=0, scene_share=0.0, batch_size=4, validate_every=2)
    whole = train(backbone, decoder, root, tmp_path / "whole", config)
    parts = train(backbone, decoder, root, tmp_path / "parts", replace(config, micro_batch=1))
    assert parts.history[0]["train_loss"] == pytest.approx(whole.history[0]["train_loss"], rel=1e-4)
    assert parts.history[0]["val_loss"] == pytest.approx(whole.history[0]["val_loss"], rel=1e-3)


def test_training_lowers_the_loss(backbone, decoder, root, clips, tmp_path):
    config = replace(SMALL, steps=6, blob_steps=0, scene_share=0.0, batch_size=4, validate_every=6)
    speaker = phase2.new_speaker(config, backbone)
    before = phase2.validate(phase2.open_lessons(config, speaker, TALKS, clips, backbone=backbone), range(4), batch=4)
    speaker.release()
    trained = train(backbone, decoder, root, tmp_path, config)
    assert trained.best["val_loss"] < before["val_loss"] - 0.2


def test_unusable_conversations_are_named(backbone, decoder, root, clips, tmp_path):
    scenes = [replace(talk, messages=({**talk.messages[0], "slot": "people"},
                                      {**talk.messages[1], "slot": "people"})) for talk in TALKS]
    with pytest.raises(DatasetError, match="no training conversation has a turn for the anomaly stage"):
        train(backbone, decoder, root, tmp_path, talks=scenes)
    plain = [replace(talk, messages=talk.messages[:2]) for talk in TALKS]
    with pytest.raises(DatasetError, match="for the scene stage; .* set scene_share to 0"):
        train(backbone, decoder, root, tmp_path, talks=plain)


def test_damaged_and_foreign_speakers_are_refused(backbone, decoder, root, clips, tmp_path):
    folder = tmp_path / "model"
    speaker = attach(backbone, VARIANTS["full"], lora=LORA, region={}, seed=0)
    speaker.save(folder, extra={"calibration": 1.0})
    speaker.release()
    record = json.loads((folder / "phase2.json").read_text())
    with pytest.raises(MissingPhaseError, match="phase 2 leaves its model there"):
        load_speaker(tmp_path / "nowhere", backbone)
    (folder / "phase2.json").write_text(json.dumps({**record, "backbone_fingerprint": "other"}))
    with pytest.raises(MissingPhaseError, match="phase2.json: changed since complete.json was written"):
        load_speaker(folder, backbone)
    from tvad.record import complete
    complete(folder, ["phase2.json"])
    with pytest.raises(CheckpointError, match=r"was trained on tiny \(fingerprint other\), not on tiny"):
        load_speaker(folder, backbone)


# Answers

def test_answers_follow_the_questions_and_do_not_depend_on_the_batch(backbone, clips):
    lessons = spoken(backbone, clips)
    keep = lambda turn: turn.slot != "people"  # noqa: E731
    found = answer(lessons, keep=keep, limit=4, batch=4, progress=False)
    alone = answer(lessons, keep=keep, limit=4, batch=1, progress=False)
    assert [(one.video, one.slot) for one in found] == [("a", "anomaly"), ("a", "target"), ("a", "from"), ("b", "anomaly"),
                                                        ("c", "anomaly"), ("c", "target"), ("c", "from"), ("d", "anomaly")]
    assert [one.said for one in found] == [one.said for one in alone]
    assert found[1].wanted == ("A red car.", "I see a red car.") and found[1].event == "car" and found[3].event is None
    assert all((one.probability is not None) == (one.slot == "anomaly") for one in found)
    assert found[0].probability == pytest.approx(alone[0].probability, abs=1e-4)
    assert yes_no_temperature(lessons, range(4)) > 0 and yes_no_temperature(lessons, [0, 2]) == 1.0
    lessons.speaker.release()


def test_a_split_is_answered_with_its_own_or_other_evidence(backbone, decoder, root, clips, tmp_path):
    speaker = attach(backbone, VARIANTS["full"], lora=LORA, region={"variant": "located"}, seed=0)
    from dataclasses import asdict
    speaker.save(tmp_path / "model", extra={"calibration": 2.0, "phase2": asdict(SMALL)})
    speaker.release()
    options = {"prototypes": TEXT, "cache_dir": root, "progress": False, "limit": 3, "slots": ("anomaly",)}
    found = {kind: study.answer_split(tmp_path / "model", backbone, decoder, TALKS, VIDEOS, evidence=kind,
                                      output=tmp_path / f"{kind}.jsonl", **options) for kind in (None, "mask", "other")}
    assert study.read_answers(tmp_path / "None.jsonl") == found[None]
    chances = {kind: [one.probability for one in answers] for kind, answers in found.items()}
    assert chances[None] != chances["mask"] and chances[None] != chances["other"]


def reply(video, slot, said, *wanted, event=None):
    return Answer(video, slot, said, wanted, event=event)


TOLD = [reply("a", "anomaly", "Yes.", "Yes.", event="car"), reply("b", "anomaly", "No.", "No."),
        reply("c", "anomaly", "No.", "Yes.", event="fighting"), reply("d", "anomaly", "No.", "No."),
        reply("b", "target", "None.", "None."),
        reply("a", "target", "A red car.", "A red van.", event="car"),
        reply("c", "target", "A person in a red top and blue trousers fighting.",
              "A person in a blue top and red trousers fighting.", event="fighting"),
        reply("a", "to", "To the top.", "To the top left.", event="car"),
        reply("c", "from", "From the left.", "From the left.", event="fighting"),
        reply("c", "motion", "Fighting, then lying on the ground.", "Fighting.", event="fighting")]
CELL = Cell(variant="full", dataset="simcampus", split="test", protocol="scene-disjoint", seed=0, config="x", sigma=0.0,
            samples=20)


def test_figures_of_a_split_by_hand():
    found = study.figures(TOLD, samples=20)
    values = {name: score.value for name, score in found.items()}
    assert values["yes_no_accuracy"] == 0.75 and values["yes_no_balanced_accuracy"] == 0.75
    assert values["slot_class"] == 1.0 and values["slot_colours"] == 0.0 and values["slot_motion"] == 0.0
    assert values["slot_from"] == 1.0 and values["slot_to"] == 0.0
    assert found["bleu4_target"].n == 2             # not the normal clip's


def test_rows_of_a_split_and_of_kept_out_events():
    rows = {row.metric: row for row in study.text_rows(TOLD, CELL)}
    assert {"yes_no_accuracy", "yes_no_balanced_accuracy", "bleu4_target"} <= set(rows)
    assert rows["yes_no_accuracy"].n == 4 and rows["yes_no_accuracy"].positive_rate == 0.5
    kept = {row.metric: row for row in study.event_rows(TOLD, CELL, kinds=("fighting",), name="kept-out")}
    assert kept["yes_no_balanced_accuracy"].value == 0.5 and kept["yes_no_accuracy"].n == 3
    assert {row.event for row in kept.values()} == {"kept-out"}
    assert study.event_rows(TOLD, CELL, kinds=("jumping",), name="jumping") == []


def test_every_word_of_the_language_is_known_to_the_rules():
    from tvad.language.appearance import OBJECTS, Look
    rules = {rule.name: rule for rule in study.slot_rules()}
    say = language("en").speech
    doing = {"running": "running", "falling": "falling", "jumping": "jumping", "loitering": "pacing",
             "fighting": "fighting", "throwing": "throwing", "car": "driving", "bicycle": "riding", "motorcycle": "riding"}
    for kind, things in OBJECTS.items():
        for thing in things or ("",):
            look = Look(kind, thing if kind == "car" else "person", top="" if kind == "car" else "red", object=thing,
                        object_colour="blue" if thing else "")
            text = say.target(look, (doing.get(kind, "pushing"),))
            assert rules["class"].facts(text) == {kind}, text
            assert rules["colours"].facts(text), text
    assert rules["from"].facts(f"From {say.place('middle')}.") == {"middle"}


def test_missing_and_damaged_answers_are_named(tmp_path):
    with pytest.raises(StorageError, match="no answers here; phase 2 writes them"):
        study.read_answers(tmp_path / "none.jsonl")
    study.write_answers(tmp_path / "a.jsonl", TOLD)
    assert study.read_answers(tmp_path / "a.jsonl") == TOLD
    (tmp_path / "a.jsonl").write_text('{"video": 3}\n')
    with pytest.raises(StorageError, match="a.jsonl, line 1: not an answer"):
        study.read_answers(tmp_path / "a.jsonl")


def test_turns_are_read_from_the_chat_format():
    assert turns_of(TALKS[0])[1] == Turn("target", "Name the abnormal target.", "I see a red car.", ("A red car.",))
