"""Stage 3 of the zoo: reports say what the answers say, doubt never drowns the right word, and only the blocks change."""
import copy
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny_model import random_model

from tvad.backbones.pretrain import __main__ as command
from tvad.backbones.pretrain import language_stage, reading_stage, stories
from tvad.backbones.pretrain.language_stage import Lesson, video_tokens
from tvad.backbones.pretrain.loop import load_state
from tvad.backbones.pretrain.reading_stage import ReadingStage, School, pooled, reading_right, train_reading
from tvad.backbones.pretrain.stories import CLAUSES, FIELDS, SLOTS, Teller, draw_path, draw_subject
from tvad.backbones.pretrain.tiny import save_model
from tvad.backbones.qwen import QwenBackbone
from tvad.conversation.economy import Economy
from tvad.errors import BackboneError
from tvad.language.grammar import parse, phrase
from tvad.region.words import SENTENCES, STORY, Field

TEXTS = [*(word for words in FIELDS.values() for word in words), stories.BLANKS, *(t for c in CLAUSES.values() for t in c),
         "A person in a red top and blue trousers riding a white bicycle; first, second, third, from the top left."] * 3
TEXTS += [f"in a {word}," for word in {part for words in FIELDS.values() for word in words for part in word.split()}] * 9
SMALL = ReadingStage(steps=4, batch=3, rehearsed=4, rehearsal=2, learning_rate=1e-2)
LESSONS = language_stage.LanguageStage(scenes=("scene00",), lessons=9, block=9, height=80, width=120)


@pytest.fixture(scope="module")
def tiny():
    return random_model(TEXTS)


@pytest.fixture(scope="module")
def teller(tiny):
    model, processor = tiny
    return Teller(processor.tokenizer, len(model.get_input_embeddings().weight))


def drawn(teller, count, **options):
    return [teller.lesson(np.random.default_rng([5, number]), **options) for number in range(count)]


def test_what_is_asked_stands_in_the_report(teller):
    decode = teller.tokenizer.decode
    seen = set()
    for way in ("clauses", "text"):
        for told in drawn(teller, 90, way=way, doubt=None if way == "text" else 0.5):
            text = (told.turns[0][1] if told.tokens is None else decode(told.tokens.argmax(1))).lower()
            for _, _, answer in told.turns:
                facts = re.findall("top left|bottom right|red|green|bicycle|stroller|running|jumping", answer.lower())
                assert all(fact in text for fact in facts), (text, answer)
                seen |= set(facts)
    assert len(seen) == 8


def test_blanks_begin_with_the_verdict_and_an_empty_report_is_denied(teller):
    said = drawn(teller, 80, way="blanks")
    for told in said:
        first = teller.tokenizer.decode(told.tokens[:1].argmax(1))
        answers = {slot: answer for slot, _, answer in told.turns}
        assert answers.get("there", "Yes.") == f"{first}." or "there" not in answers
        assert set(answers) <= {"there", "target"} or first == "Yes"
        assert first == "Yes" or answers.get("target", "None.") == "None."
        assert np.allclose(told.tokens.sum(1), 1, atol=1e-5) and (told.tokens >= 0).all()
    assert 0 < sum(told.turns[0][2] == "No." for told in said) < 30


@pytest.mark.parametrize("doubt", [0.0, 0.3, 0.5])
def test_doubt_is_as_large_as_asked_and_the_right_word_stays_the_loudest(doubt):
    rng = np.random.default_rng(0)
    for name, words in FIELDS.items():
        for word in words:
            chances = stories._chances(name, word, doubt, rng)
            assert sum(chances) == pytest.approx(1) and words[int(np.argmax(chances))] == word
            assert sorted(chances)[-2] <= 0.9 * (1 - doubt) + 1e-9
            assert max(chances) >= 1 - doubt - 1e-9
    loud = [max(stories._chances("from", "top", doubt, rng)) for _ in range(50)]
    assert np.mean(loud) == pytest.approx(1 - doubt, abs=0.12)


def test_no_lesson_names_an_anomaly_and_every_slot_has_many_questions(teller):
    text = " ".join(part for told in drawn(teller, 60) for _, *turn in told.turns for part in turn)
    assert not re.search("anomal|abnormal|unusual|[{}]", text.lower())
    assert all(len(stories.wordings(slot)) >= 12 for slot in SLOTS)


def test_lessons_are_fixed_by_their_number_and_differ(teller):
    once, again = drawn(teller, 6), drawn(teller, 6)
    for a, b in zip(once, again, strict=True):
        assert a.turns == b.turns and (a.tokens is None or np.array_equal(a.tokens, b.tokens))
    assert len({told.turns for told in once}) == 6


def test_paths_have_a_phrase_and_subjects_words_of_the_fields():
    rng = np.random.default_rng(1)
    for _ in range(200):
        path = draw_path(rng)
        assert parse(phrase(path)) == path
        subject = draw_subject(rng, grey=bool(rng.integers(2)))
        assert all(word in FIELDS[name] for name, word in subject.words().items())


def test_the_region_encoder_says_nothing_that_was_not_read_at_school():
    for field in STORY:
        assert set(field.words) <= set(FIELDS.get(field.name, field.words)), field.name
        assert field.length == stories.LENGTHS.get(field.name, 1), field.name
    assert " ".join(f"{{{word.name}}}" if isinstance(word, Field) else word for word in SENTENCES) == stories.BLANKS


def test_a_report_stands_between_the_anomaly_tokens_behind_the_video(tiny):
    model, processor = tiny
    films = [(torch.randn(2 * 6 * 9, 256).half(), (2, 12, 18))]
    school = School(model, processor, films=films, filmed=1.0)
    form, made = school.format, [school.report(3, number) for number in range(12)]
    for report in made:
        ids = report.dialogue.ids.tolist()
        assert ids.count(form.video_pad) == len(report.seen) == 2 * 2 * 3
        if report.told is not None:
            start, end = ids.index(form.anomaly_start), ids.index(form.anomaly_end)
            assert end - start - 1 == len(report.told) and start > max(i for i, x in enumerate(ids) if x == form.video_pad)
        answers = processor.tokenizer.decode(report.dialogue.labels[report.dialogue.labels != -100])
        assert answers.count("<|im_end|>") == len(report.slots)
    assert any(report.told is None for report in made) and any(report.told is not None for report in made)


def test_video_is_pooled_as_the_conversations_read_it():
    tokens = torch.randn(3 * 4 * 7, 16)
    found, grid = pooled(tokens, (3, 8, 14), merge=2, most=3)
    economy = Economy(pool=3)
    assert torch.allclose(found, economy.read(tokens, (3, 8, 14), 2)) and grid == economy.read_grid((3, 8, 14), 2)


def lesson_rows(model, processor, stage, work, device):
    frames = np.random.default_rng(0).integers(0, 256, (stage.lessons, 2, 80, 120, 3), np.uint8)
    return [language_stage.encode(model, processor, Lesson(own, [("Where is it?", "top left")]),
                                  *video_tokens(model.model.visual, own)) for own in frames]


@pytest.fixture
def rehearsed(monkeypatch):
    monkeypatch.setattr(reading_stage, "encode_all", lesson_rows)


def test_only_the_blocks_change_and_the_fingerprint_stays(tiny, tmp_path, rehearsed):
    model, processor = copy.deepcopy(tiny[0]), tiny[1]
    command.round_to_half(model)
    save_model(model, processor, tmp_path / "before")
    train_reading(model, processor, SMALL, LESSONS, work=tmp_path / "work")
    command.round_to_half(model)
    save_model(model, processor, tmp_path / "after")
    before, after = (QwenBackbone.from_pretrained(tmp_path / name, taps=(0, 1), device="cpu", dtype="float32")
                     for name in ("before", "after"))
    assert before.fingerprint == after.fingerprint
    assert before.language_fingerprint != after.language_fingerprint
    assert torch.equal(before.embedding, after.embedding)
    for name, value in before.visual.state_dict().items():
        assert torch.equal(value, after.visual.state_dict()[name]), name
    old, new = tiny[0].model.language_model.state_dict(), model.model.language_model.state_dict()
    changed = {name for name in old if not torch.allclose(old[name].half().float(), new[name], atol=1e-3)}
    assert changed and not any("embed" in name for name in changed)


def test_a_broken_run_goes_on_to_the_same_weights(tiny, tmp_path, rehearsed):
    def run(*stops, work):
        model = copy.deepcopy(tiny[0])
        for stop in stops:
            model = copy.deepcopy(tiny[0])
            result = train_reading(model, tiny[1], SMALL, LESSONS, work=tmp_path / work, stop_after=stop)
        return model, result

    whole, result = run(None, work="whole")
    resumed, _ = run(1, 3, None, work="broken")
    assert result["loss"] > 0 and result["loss_rehearsal"] > 0
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name
    _, idle = run(None, work="whole")
    assert np.isnan(idle["loss"])       # finished: nothing left to do


def test_training_lowers_the_loss(tiny, tmp_path):
    model, stage = copy.deepcopy(tiny[0]), replace(SMALL, steps=10, rehearsal=0, learning_rate=1e-2, warm_up=3)
    first = train_reading(copy.deepcopy(tiny[0]), tiny[1], replace(stage, steps=1), LESSONS, work=tmp_path / "one")
    last = train_reading(model, tiny[1], stage, LESSONS, work=tmp_path / "all")
    assert last["loss"] < first["loss"] - 0.1
    assert load_state(tmp_path / "all" / "reading.pt", device="cpu") == 10


def test_answers_count_as_right_when_every_token_is_the_first_choice(tiny):
    model, processor = tiny
    found = reading_right(model, processor, count=6, seed=11, doubt=0.3, batch=4)
    assert found == reading_right(model, processor, count=6, seed=11, doubt=0.3, batch=1)
    assert found["all"] == 0.0 and set(found) - {"all"} <= {*SLOTS, "detail"}      # a random model gets nothing right
    school = School(model, processor)
    report = school.report(11, 0, way="blanks")
    wanted = school.batch([report]).labels[0][1:]
    right = torch.nn.functional.one_hot(wanted.clamp(min=0), len(school.table)).float()

    def perfect(model, batch):
        return right[wanted != -100], wanted[wanted != -100]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reading_stage, "answer_logits", perfect)
        assert set(reading_right(model, processor, count=1, seed=11, way="blanks").values()) == {1.0}
        right[wanted == wanted[wanted != -100][0]] = 0      # the first token of the first answer
        assert reading_right(model, processor, count=1, seed=11, way="blanks")["all"] < 1


def test_the_command_reads_on_from_a_finished_model(tiny, tmp_path, monkeypatch, rehearsed):
    model, processor = copy.deepcopy(tiny[0]), tiny[1]
    save_model(model, processor, tmp_path / "start")
    with pytest.raises(BackboneError, match="no card with recipe and metrics; start from a directory that this command"):
        command.main(["--start", str(tmp_path / "start"), "--output", str(tmp_path / "out"), "--work", str(tmp_path)])
    command.write_card(tmp_path / "start", recipe={"vision": {"rounds": 1}},
                       metrics={"vision": {"minutes": 2.0}, "answers_right": {"all": 0.25}})
    monkeypatch.setattr(command, "answers_right", lambda *_, **__: {"all": 0.5})
    monkeypatch.setattr(command, "how_it_reads", lambda *_: {"text": {"all": 0.75}})
    monkeypatch.setattr(command, "ReadingStage", lambda: SMALL)
    out = command.main(["--start", str(tmp_path / "start"), "--output", str(tmp_path / "out"), "--work", str(tmp_path),
                        "--reading-steps", "2"])
    recipe, metrics = command.read_card(out)
    assert recipe["vision"] == {"rounds": 1} and recipe["reading"]["steps"] == 2
    assert metrics["answers_right_before_reading"] == {"all": 0.25} and metrics["answers_right"] == {"all": 0.5}
    assert metrics["reading"]["read_right"] == {"text": {"all": 0.75}} and metrics["minutes_of_stages"] >= 2.0
    assert "No label says anomaly" in (out / "README.md").read_text()
    opened = [QwenBackbone.from_pretrained(path, taps=(0, 1), device="cpu", dtype="float32")
              for path in (tmp_path / "start", out)]
    assert opened[0].fingerprint == opened[1].fingerprint
