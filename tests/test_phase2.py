"""Phase 2: training that resumes exactly, speakers on disk, answers and their rows."""
from __future__ import annotations

import json
import shutil
from dataclasses import asdict, replace

import pytest
import torch
from phase2_fakes import LORA, SMALL, TALKS, TEXT, VIDEOS, opened, spoken
from safetensors.torch import load_file, save_file

from tvad.conversation import TVAU
from tvad.errors import CheckpointError, DatasetError, MissingPhaseError, StorageError
from tvad.evaluation import Cell
from tvad.language.phrasings import language
from tvad.metrics.text import Answer
from tvad.record import complete
from tvad.study import answers as study
from tvad.training import phase2
from tvad.training.answering import answer, yes_no_calibration
from tvad.training.lessons import Turn, turns_of
from tvad.training.speaker import attach, load_speaker
from tvad.training.variants import VARIANTS
from tvad.training.words import teach_words

pytest_plugins = ("phase2_fakes",)


# Training

def train(backbone, decoder, root, output, config=SMALL, talks=TALKS, **options):
    return phase2.train_speaker(config, backbone, decoder, train=talks, val=TALKS, videos=VIDEOS, output_dir=output,
                                cache_dir=root, prototypes=TEXT, progress=False, **options)


def weights(folder):
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


def test_words_are_taught_once_before_all_steps(backbone, decoder, root, clips, tmp_path):
    config = replace(SMALL, region="worded", word_steps=6, word_batch=4, word_blobs=6)
    whole = train(backbone, decoder, root, tmp_path / "whole", config)
    stopped = train(backbone, decoder, root, tmp_path / "broken", config, stop_after=3)
    assert stopped.resumed_at == 0
    resumed = train(backbone, decoder, root, tmp_path / "broken", config)
    assert resumed.resumed_at == 2
    first, second = weights(whole.path), weights(resumed.path)
    assert first.keys() == second.keys() and all(torch.equal(value, second[key]) for key, value in first.items())
    speaker = load_speaker(whole.path, backbone)
    rows = backbone.language_model.get_input_embeddings().weight
    number = backbone.tokenizer("Yes", add_special_tokens=False)["input_ids"][0]
    assert torch.equal(speaker.region.words_verdict[1, 0], rows[number].float())    # it still speaks in the model's words
    lessons = phase2.open_lessons(config, speaker, TALKS, clips, backbone=backbone)
    assert [bool(lessons.story(row)) for row in range(4)] == [True, False, True, False]
    speaker.release()

    fresh = phase2.new_speaker(config, backbone)
    lessons = phase2.open_lessons(config, fresh, TALKS, clips, backbone=backbone)
    roles = fresh.region.roles.detach().clone()
    losses = teach_words(replace(config, word_steps=30), fresh, lessons, phase2.world_of(clips, backbone), progress=False)
    assert losses[-1] < 0.7 * losses[0] and torch.equal(fresh.region.roles, roles)
    assert teach_words(replace(config, word_steps=0), fresh, lessons, phase2.world_of(clips, backbone)) == []
    fresh.release()


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
    (folder / "phase2.json").write_text(json.dumps({**record, "language_fingerprint": "other"}))
    with pytest.raises(MissingPhaseError, match="phase2.json: changed since complete.json was written"):
        load_speaker(folder, backbone)
    complete(folder, ["phase2.json"])
    with pytest.raises(CheckpointError, match=r"was trained on tiny \(fingerprint other\), not on tiny"):
        load_speaker(folder, backbone)


def test_a_language_model_with_other_layers_is_another_backbone(directory, backbone, decoder, tmp_path):
    """The tower and the embedding alone, which the heatmap is bound to, do not tell language models apart."""
    other = shutil.copytree(directory, tmp_path / "other")
    path = next(other.glob("*.safetensors"))
    state, changed = load_file(path), []
    for key, value in state.items():
        if key.endswith("layers.0.self_attn.o_proj.weight"):
            state[key], changed = value + 0.5, [*changed, key]
    save_file(state, path, metadata={"format": "pt"})
    schooled = opened(other)
    assert len(changed) == 1 and schooled.fingerprint == backbone.fingerprint
    assert schooled.language_fingerprint != backbone.language_fingerprint == opened(directory).language_fingerprint
    speaker = attach(backbone, VARIANTS["no-rae"], lora=LORA, region={}, seed=0)
    folder = speaker.save(tmp_path / "model", extra={"calibration": 1.0})
    speaker.release()
    with pytest.raises(CheckpointError, match=r"model: was trained on tiny .* or train phase 2 on this one"):
        load_speaker(folder, schooled)
    decoder.save(tmp_path / "ahd.safetensors", backbone_fingerprint=backbone.fingerprint)
    with pytest.raises(CheckpointError, match=r"model: was trained on tiny .* or train phase 2 on this one"):
        TVAU.from_phase2(schooled, tmp_path / "ahd.safetensors", folder, cache_dir=tmp_path)
    assert not any("lora_" in name for name, _ in schooled.language_model.named_parameters())

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
    assert yes_no_calibration(lessons, range(4))[0] > 0 and yes_no_calibration(lessons, [0, 2]) == (1.0, 0.0)
    lessons.speaker.release()


def test_a_split_is_answered_with_its_own_or_other_evidence(backbone, decoder, root, clips, tmp_path):
    speaker = attach(backbone, VARIANTS["full"], lora=LORA, region={"variant": "located"}, seed=0)
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
    assert {row.choice for row in rows.values()} == {"fixed"} and {row.sigma for row in rows.values()} == {None}
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
