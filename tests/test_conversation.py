"""Conversations: prompts equal the stock processor's, caches equal fresh computation, evidence is what is spliced in."""
from __future__ import annotations

import copy
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from tiny_model import random_model, random_model_directory

from tvad.backbones.chat import ANOMALY_TOKENS, IGNORED, ChatFormat, View, answer_logits, splice
from tvad.backbones.qwen import QwenBackbone
from tvad.conversation import TVAU, Evidence, fit_temperature, probability
from tvad.conversation import talk as talk_module
from tvad.conversation.model import load_adapter
from tvad.errors import BackboneError, CheckpointError, ParameterError
from tvad.heatmap import AnomalyHeatmapDecoder
from tvad.region import make_encoder
from tvad.video.clip import Clip
from tvad.video.frames import ArrayFrames

QUESTIONS = ("Where is the bicycle?", "one person in a red top?", "How many?")


def clip(frames=6, height=80, width=120, seed=0) -> Clip:
    pixels = np.random.default_rng(seed).integers(0, 256, (frames, height, width, 3), np.uint8)
    return Clip(pixels, 10.0, 0, f"noise{seed}")


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    return random_model_directory(tmp_path_factory.mktemp("zoo") / "tiny")


@pytest.fixture(scope="module")
def backbone(directory):
    made = QwenBackbone.from_pretrained(directory, device="cpu", dtype="float32", load_language_model=True)
    with torch.no_grad():  # a fresh model hardly attends; a livelier one says something else to every clip
        generator = torch.Generator().manual_seed(5)
        for name, value in made.language_model.model.language_model.named_parameters():
            if value.ndim == 2:
                value.copy_(torch.randn(value.shape, generator=generator) * (1.0 if "embed" in name else 0.12))
    return made


@pytest.fixture(scope="module")
def model(backbone):
    torch.manual_seed(3)
    decoder = AnomalyHeatmapDecoder(taps=backbone.taps, tap_width=48, hidden_width=8, text_width=256)
    regions = make_encoder("located", text_width=256, hidden_width=16, channels=2, scale=1.0)
    return TVAU(backbone, decoder, prototypes=torch.randn(2, 256), regions=regions)


@pytest.fixture(scope="module")
def plain(model):
    """The same without a region encoder."""
    return TVAU(model.backbone, model.decoder, prototypes=model.prototypes)


def fresh_greedy(model, evidence: Evidence, questions, *, limit=8) -> list[list[int]]:
    """The slow twin: for every single token the whole sequence again, no cache, positions from the stock rule."""
    said: list[list[int]] = []
    form = model.format
    for number in range(len(questions)):
        said.append([])
        for _ in range(limit):
            extra = 0 if evidence.anomaly is None else len(evidence.anomaly)
            ids = form.head(still=evidence.view.still, seen=len(evidence.seen), anomaly=extra)
            for turn in range(number + 1):
                ids = ids + (form.later(questions[turn]) if turn else form.first(questions[turn])) + said[turn]
                ids = ids + ([form.end_of_turn] if turn < number else [])
            table = model.language_model.get_input_embeddings()
            embeds = table(torch.tensor(ids)).detach().clone()
            embeds[[i for i, token in enumerate(ids) if token in (form.image_pad, form.video_pad)]] = evidence.seen
            if extra:
                embeds[[i for i, token in enumerate(ids) if token == form.anomaly_pad]] = evidence.anomaly
            with torch.no_grad():
                out = model.language_model(inputs_embeds=embeds[None],
                                           position_ids=form.positions(model.language_model, ids, evidence.view)[:, None])
            token = int(out.logits[0, -1].index_fill(0, form.unsayable(model.language_model), -torch.inf).argmax())
            if token == form.end_of_turn or token in talk_module._stop_ids(model.language_model, form):
                break
            said[-1].append(token)
    return said


def texts(model, rows) -> list[str]:
    return [model.format.tokenizer.decode(row, skip_special_tokens=True).strip() for row in rows]


def test_ids_and_positions_are_the_stock_processors_with_the_anomaly_block_behind_the_video():
    language, processor = random_model()
    form, pixels = ChatFormat.of(language, processor.tokenizer), clip(4).frames
    turns = [("Where is it?", "top left"), ("How many?", "one person")]
    messages = [{"role": "user", "content": [{"type": "video"}, {"type": "text", "text": "Where is it?"}]},
                {"role": "assistant", "content": "top left"}, {"role": "user", "content": "How many?"},
                {"role": "assistant", "content": "one person"}]
    stock = processor(text=[processor.apply_chat_template(messages, tokenize=False)],
                      videos=[torch.from_numpy(pixels).permute(0, 3, 1, 2)], return_tensors="pt", do_resize=False,
                      video_metadata=[{"fps": 10.0, "total_num_frames": 4, "frames_indices": [0, 1, 2, 3]}])
    view = View((2, 8, 12), seconds=0.2)
    row = form.dialogue(language, turns, view=view, seen=48, anomaly=0)
    assert stock["input_ids"][0, :len(row.ids)].tolist() == row.ids.tolist()
    wanted, _ = language.model.get_rope_index(
        stock["input_ids"], mm_token_type_ids=stock["mm_token_type_ids"], video_grid_thw=stock["video_grid_thw"],
        second_per_grid_ts=torch.tensor([0.2]))
    assert torch.equal(wanted[:, 0, :len(row.ids)], row.positions)
    assert processor.tokenizer.decode(row.labels[row.labels != IGNORED]) == "top left<|im_end|>one person<|im_end|>"

    block = form.dialogue(language, turns, view=view, seen=48, anomaly=3)
    at = block.ids.tolist().index(form.anomaly_start)
    assert block.ids[at:at + 5].tolist() == [form.anomaly_start, *[form.anomaly_pad] * 3, form.anomaly_end]
    assert torch.equal(torch.cat([block.ids[:at], block.ids[at + 5:]]), row.ids)
    assert row.ids[at - 1] == language.config.vision_end_token_id  # video, anomaly, question
    assert torch.equal(block.positions[:, at:], block.positions[:, at - 1:at] + torch.arange(1, len(block.ids) - at + 1))


def test_golden_positions_of_a_small_video(model):
    view = View((2, 4, 6), seconds=0.2)
    ids = model.format.head(still=False, seen=12, anomaly=2)
    positions = model.format.positions(model.language_model, ids, view)
    at = ids.index(model.format.video_pad)
    assert positions[0, at:at + 12].sub(at).tolist() == [0] * 6 + [2] * 6
    assert positions[1, at:at + 12].sub(at).tolist() == [0, 0, 0, 1, 1, 1] * 2
    assert positions[2, at:at + 12].sub(at).tolist() == [0, 1, 2] * 4
    assert positions[:, at + 12:].sub(at).tolist() == [[3, 4, 5, 6, 7]] * 3


def test_a_fast_camera_keeps_one_position_a_step(backbone):
    for fps in (5.0, 24.0, 240.0):
        view = View.of(backbone, (12, 2, 2), frames=24, fps=fps)
        steps = (torch.arange(12) * (backbone.config.vision_config.tokens_per_second * torch.tensor(view.seconds))).long()
        assert len(steps.unique()) == 12, fps
    assert View.of(backbone, (12, 2, 2), frames=24, fps=5.0).seconds == pytest.approx(0.4)
    assert View.of(backbone, (1, 2, 2), frames=1, fps=5.0).still


def examples(model, anomalies=(3, 0, 5, 2)):
    """A video, a longer one, a picture, and blobs without video: dialogue, video tokens, anomaly tokens."""
    generator, made = torch.Generator().manual_seed(2), []
    shapes = (((2, 4, 6), False), ((5, 4, 4), False), ((1, 6, 4), True), ((1, 2, 2), False))
    for (grid, still), extra in zip(shapes, anomalies, strict=True):
        seen = 0 if grid == (1, 2, 2) else grid[0] * grid[1] * grid[2] // 4
        answers = [("Where is it?", "top left"), ("How many?", "one person in a red top")][: 1 + extra % 2]
        dialogue = model.format.dialogue(model.language_model, answers, view=View(grid, still, 0.2), seen=seen,
                                         anomaly=extra)
        tokens = torch.randn(extra, 256, generator=generator).requires_grad_() if extra else None
        made.append((dialogue, torch.randn(seen, 256, generator=generator), tokens))
    return made


def test_a_mixed_batch_equals_each_clip_alone_on_either_side_of_the_padding(model):
    rows = examples(model)
    parts = [list(part) for part in zip(*rows)]
    together = splice(model.language_model, model.format, parts[0], seen=parts[1], anomaly=parts[2])
    logits, wanted = answer_logits(model.language_model, together)
    alone = [answer_logits(model.language_model, splice(model.language_model, model.format, [d], seen=[s], anomaly=[a]))
             for d, s, a in rows]
    assert torch.allclose(logits, torch.cat([one for one, _ in alone]), atol=1e-3)
    assert torch.equal(wanted, torch.cat([labels for _, labels in alone]))
    left = splice(model.language_model, model.format, parts[0], seen=parts[1], anomaly=parts[2], side="left")
    for row in range(4):
        assert torch.equal(left.embeds[row][left.mask[row]], together.embeds[row][together.mask[row]])
        assert left.mask[row].sum() == len(parts[0][row].ids) and left.mask[row, -1] and together.mask[row, 0]
        assert torch.equal(left.positions[:, row, left.mask[row]], parts[0][row].positions)


def test_only_pads_are_replaced_and_gradients_reach_the_anomaly_tokens(model):
    (dialogue, seen, anomaly), *_ = examples(model)
    batch = splice(model.language_model, model.format, [dialogue], seen=[seen], anomaly=[anomaly])
    table = model.language_model.get_input_embeddings()(dialogue.ids)
    video, block = dialogue.ids == model.format.video_pad, dialogue.ids == model.format.anomaly_pad
    assert torch.equal(batch.embeds[0, video], seen) and torch.equal(batch.embeds[0, block], anomaly)
    assert torch.equal(batch.embeds[0, ~video & ~block], table[~video & ~block])
    logits, wanted = answer_logits(model.language_model, batch)
    torch.nn.functional.cross_entropy(logits, wanted).backward()
    assert (anomaly.grad.abs().sum(1) > 0).all()


def test_counts_and_texts_that_would_shift_a_pad_are_refused(model):
    dialogue, seen, anomaly = examples(model)[0]
    with pytest.raises(BackboneError, match="clip 0 of the batch: 12 picture or video pads in the dialogue but 11 tokens"):
        splice(model.language_model, model.format, [dialogue], seen=[seen[1:]], anomaly=[anomaly])
    with pytest.raises(BackboneError, match="3 anomaly pads in the dialogue but 0 tokens"):
        splice(model.language_model, model.format, [dialogue], seen=[seen])
    for token in ("<|anomaly_prompt_pad|>", "<|video_pad|>", "<|im_end|>"):
        with pytest.raises(ParameterError, match="holds the special token"):
            model.format.first(f"Where {token} is it?")


def test_anomaly_tokens_are_added_where_absent_and_a_full_table_grows():
    from transformers import Qwen2TokenizerFast

    language, processor = random_model()
    ids = ChatFormat.of(language, processor.tokenizer).anomaly_ids
    rows = language.get_input_embeddings().weight.shape[0]
    kept = copy.deepcopy(processor.tokenizer)
    assert ChatFormat.of(language, kept).anomaly_ids == ids and len(kept) == len(processor.tokenizer)

    bare = Qwen2TokenizerFast(vocab={"a": 0, "b": 1}, merges=[], unk_token=None)
    bare.add_tokens(["<|im_end|>"], special_tokens=True)
    before = len(bare)
    assert ChatFormat.of(language, bare).anomaly_ids == (before, before + 1, before + 2)  # spare rows: nothing grows
    assert language.get_input_embeddings().weight.shape[0] == rows
    assert bare.convert_ids_to_tokens(before) == ANOMALY_TOKENS[0]

    full = Qwen2TokenizerFast(vocab={"a": 0}, merges=[], unk_token=None)
    full.add_tokens([f"w{i}" for i in range(rows - len(full))])
    old = language.get_input_embeddings().weight.detach().clone()
    assert ChatFormat.of(language, full).anomaly_ids == (rows, rows + 1, rows + 2)
    grown = language.get_input_embeddings().weight
    assert grown.shape[0] == rows + 3 and torch.equal(grown[:rows], old)
    assert torch.allclose(grown[rows:], old.mean(0).expand(3, -1), atol=1e-6)
    assert language.get_output_embeddings().weight.shape[0] == rows + 3


@pytest.mark.parametrize("frames", [1, 5])
def test_a_conversation_says_what_a_fresh_computation_says(model, frames):
    evidence = model.look([clip(frames)])[0]
    talk = model.converse(evidence)
    answers = [talk.ask(question, limit=8) for question in QUESTIONS]
    assert answers == texts(model, fresh_greedy(model, evidence, QUESTIONS))
    assert [turn.answer for turn in talk.history] == answers and any(answers)


def test_a_conversation_without_evidence_is_the_stock_models_own(plain):
    """Against the untouched class: pixels in, its own generate, its own rope_deltas."""
    shown = clip(4)
    talk = plain.converse(shown)
    stock, form = plain.language_model, plain.format
    flat, grid = plain.backbone.patches(shown.frames)
    ids = torch.tensor([form.head(still=False, seen=48, anomaly=0) + form.first(QUESTIONS[0])])
    out = stock.generate(input_ids=ids, attention_mask=torch.ones_like(ids), pixel_values_videos=flat,
                         video_grid_thw=torch.tensor([grid]), mm_token_type_ids=(ids == form.video_pad).int() * 2,
                         second_per_grid_ts=torch.tensor([0.2]), max_new_tokens=8, do_sample=False,
                         suppress_tokens=form.unsayable(stock).tolist())
    said = [token for token in out[0, ids.shape[1]:].tolist() if token not in talk._talks._stops]
    assert talk.ask(QUESTIONS[0], limit=8) == texts(plain, [said])[0]
    assert torch.equal(talk.thread.rope_deltas, stock.model.rope_deltas)


def test_interleaved_conversations_do_not_disturb_each_other(model):
    clips = [clip(6, seed=1), clip(3, 60, 80, seed=2)]
    alone = [[talk.ask(q, limit=6) for q in QUESTIONS] for talk in map(model.converse, clips)]
    assert alone[0] != alone[1]
    first, second = map(model.converse, clips)
    woven: list[list[str]] = [[], []]
    for question in QUESTIONS:
        woven[0].append(first.ask(question, limit=6))
        model.language_model.model.rope_deltas = torch.tensor([[999]])  # what another video leaves on the module
        woven[1].append(second.ask(question, limit=6))
    assert woven == alone
    assert model.language_model.model.rope_deltas.item() == 999  # neither read nor written
    model.language_model.model.rope_deltas = None


def test_answers_in_batches_equal_answers_alone(model):
    clips = [clip(6, seed=1), clip(1, seed=2), clip(3, 60, 80, seed=3)]
    evidence = model.look(clips)
    evidence.append(replace(evidence[0], anomaly=None))  # a clip without anomaly tokens among others
    alone = [[talk.ask(q, limit=6) for q in QUESTIONS] for talk in map(model.converse, evidence)]
    assert model.answer(evidence, QUESTIONS, limit=6, batch=4) == alone
    assert model.answer(clips, [QUESTIONS] * 3, limit=6, batch=2) == alone[:3]
    assert len({tuple(row) for row in alone}) > 1
    margins = model.converse_many(evidence).margins(QUESTIONS[0])
    assert np.allclose(margins, [model.converse(one)._talks.margins(QUESTIONS[0])[0] for one in evidence], atol=1e-3)


def test_the_clip_is_encoded_once_and_a_turn_feeds_its_own_tokens_alone(model):
    calls, fed = [], []
    hooks = [model.backbone.visual.register_forward_hook(lambda *_: calls.append(1)),
             model.language_model.model.language_model.register_forward_pre_hook(
                 lambda _m, _a, kwargs: fed.append(kwargs["inputs_embeds"].shape[1]), with_kwargs=True)]
    try:
        talk = model.converse(clip(16))
        head = list(fed)
        for question in QUESTIONS:
            talk.ask(question, limit=3)
    finally:
        for hook in hooks:
            hook.remove()
    assert len(calls) == 1 and len(head) == 1 and head[0] > 8 * 24
    assert max(fed[1:]) < 60
    assert talk.thread.cache.get_seq_length() == sum(fed)
    assert talk.thread.cache_bytes == 2 * sum(fed) * 2 * 64 * 4  # keys and values, one block of two heads of 64, float32


def test_streamed_pieces_are_the_answer_and_early_readers_keep_the_turn(model):
    evidence = model.look([clip(5)])[0]
    asked, streamed, early = (model.converse(evidence) for _ in range(3))
    answer = asked.ask(QUESTIONS[0], limit=8)
    pieces = list(streamed.stream(QUESTIONS[0], limit=8))
    assert "".join(pieces).strip() == answer and len(pieces) > 1
    assert streamed.ask(QUESTIONS[1], limit=4) == asked.ask(QUESTIONS[1], limit=4)

    stream = early.stream(QUESTIONS[0], limit=8)
    heard = next(stream) + next(stream)
    stream.close()
    assert early.history[0].answer == heard.strip() and len(early.history) == 1
    said = early._talks
    assert said._pending[0] and early.ask(QUESTIONS[1], limit=4) is not None and len(early.history) == 2


def test_an_interrupted_turn_is_taken_back(model, monkeypatch):
    evidence = model.look([clip(5)])[0]
    calm, disturbed = model.converse(evidence), model.converse(evidence)
    for talk in (calm, disturbed):
        talk.ask(QUESTIONS[0], limit=3)
    whole, count = talk_module.Thread.feed_text, []

    def breaking(self, rows):
        count.append(1)
        if len(count) == 3:
            raise KeyboardInterrupt
        return whole(self, rows)

    monkeypatch.setattr(talk_module.Thread, "feed_text", breaking)
    with pytest.raises(KeyboardInterrupt):
        disturbed.ask(QUESTIONS[1], limit=8)
    monkeypatch.undo()
    assert len(disturbed.history) == 1
    assert disturbed.ask(QUESTIONS[1], limit=8) == calm.ask(QUESTIONS[1], limit=8)
    with pytest.raises(ParameterError, match="limit of at least 1"):
        disturbed.ask(QUESTIONS[2], limit=0)
    with pytest.raises(ParameterError, match="1 conversations want one question"):
        disturbed.ask("  ")
    assert len(disturbed.history) == 2


def test_forks_share_the_clip_and_go_their_own_ways(model):
    talk = model.converse(clip(5))
    talk.ask(QUESTIONS[0], limit=4)
    twin = talk.fork()
    other = twin.ask(QUESTIONS[1], limit=6)
    assert len(talk.history) == 1 and len(twin.history) == 2
    assert talk.ask(QUESTIONS[1], limit=6) == other


def test_yes_or_no_with_a_probability_from_the_logits(model):
    evidence = model.look([clip(5)])[0]
    talk = model.converse(evidence)
    chance = talk.probability(QUESTIONS[0])
    assert talk.history == () and talk.probability(QUESTIONS[0]) == pytest.approx(chance)
    form = model.format
    ids = form.head(still=False, seen=len(evidence.seen), anomaly=len(evidence.anomaly)) + form.first(QUESTIONS[0])
    dialogue = form.dialogue(model.language_model, [(QUESTIONS[0], "")], view=evidence.view, seen=len(evidence.seen),
                             anomaly=len(evidence.anomaly))
    assert dialogue.ids.tolist() == ids  # an open question ends where the answer begins
    batch = splice(model.language_model, form, [dialogue], seen=[evidence.seen], anomaly=[evidence.anomaly])
    with torch.no_grad():
        logits = model.language_model(inputs_embeds=batch.embeds, position_ids=batch.positions).logits[0, -1]
    pair = torch.stack([logits[form.answer(word)[0]] for word in ("Yes", "No")])
    assert chance == pytest.approx(pair.softmax(0)[0].item(), abs=1e-4)
    word, again = talk.decide(QUESTIONS[0])
    assert word == ("Yes" if chance >= 0.5 else "No") and again == pytest.approx(chance)
    assert talk.history[0].answer == word
    forced = [form.answer(word)[:-1]]
    following = model.converse(evidence)
    following.decide(QUESTIONS[0])
    assert following._talks._pending == forced and following.ask(QUESTIONS[1], limit=5) == talk.ask(QUESTIONS[1], limit=5)
    with pytest.raises(ParameterError, match="begin with the same token"):
        talk.probability(QUESTIONS[0], options=("No", "No"))


def test_what_follows_a_decision_is_what_a_fresh_computation_says(model):
    evidence = model.look([clip(5)])[0]
    talk, form = model.converse(evidence), model.format
    word, _ = talk.decide(QUESTIONS[0])
    said = talk.ask(QUESTIONS[1], limit=1)
    dialogue = form.dialogue(model.language_model, [(QUESTIONS[0], word), (QUESTIONS[1], "")], view=evidence.view,
                             seen=len(evidence.seen), anomaly=len(evidence.anomaly))
    batch = splice(model.language_model, form, [dialogue], seen=[evidence.seen], anomaly=[evidence.anomaly])
    with torch.no_grad():
        logits = model.language_model(inputs_embeds=batch.embeds, position_ids=batch.positions).logits[0, -1]
    token = logits.index_fill(0, form.unsayable(model.language_model), -torch.inf).argmax()
    assert said == texts(model, [[int(token)]])[0]


def test_no_answer_holds_a_placeholder(model, monkeypatch):
    form = model.format
    banned = form.unsayable(model.language_model).tolist()
    assert set(banned) == {form.image_pad, form.video_pad, *form.anomaly_ids}
    roomy = SimpleNamespace(get_input_embeddings=lambda: torch.nn.Embedding(len(form.tokenizer) + 2, 4))
    assert set(form.unsayable(roomy).tolist()) - set(banned) == {len(form.tokenizer), len(form.tokenizer) + 1}
    wished = []
    monkeypatch.setattr(talk_module.Thread, "feed", lambda self, *inputs, whole=talk_module.Thread.feed: (
        wished.append(1), whole(self, *inputs).index_fill(1, torch.tensor(banned), 1e4))[1])
    talk = model.converse(clip(3))
    said = [token for step in talk._talks._say([QUESTIONS[0]], 6, 0.0, 0) for token in step]
    drawn = [token for step in model.converse(clip(3))._talks._say([QUESTIONS[0]], 6, 2.0, 1) for token in step]
    assert wished and not {*said, *drawn} & set(banned)


def test_drawn_answers_depend_on_the_seed_alone(model):
    evidence = model.look([clip(3)])[0]
    drawn = [model.converse(evidence).ask(QUESTIONS[0], limit=8, temperature=5.0, seed=seed) for seed in (1, 1, 2)]
    assert drawn[0] == drawn[1] != drawn[2]


def test_temperature_is_found_again_and_leaves_the_ranking():
    rng = np.random.default_rng(0)
    truth = rng.normal(0, 2, 4000)
    labels = (rng.random(4000) < 1 / (1 + np.exp(-truth))).astype(int)
    assert fit_temperature(truth * 3, labels) == pytest.approx(3, rel=0.1)
    chances = probability(truth * 3, temperature=3.0)
    assert np.allclose(chances, 1 / (1 + np.exp(-truth)))
    assert np.array_equal(np.argsort(chances), np.argsort(truth))
    assert np.isfinite(probability(np.array([-1e4, 1e4]))).all()
    with pytest.raises(ParameterError, match="temperature must be positive, got 0"):
        probability(truth, temperature=0)
    with pytest.raises(ParameterError, match="labels 0 or 1"):
        fit_temperature(truth, labels + 1)


def test_the_evidence_is_the_heatmap_given_and_it_is_heard(model, plain):
    shown = clip(6)
    maps = [torch.full((3, 8, 12), 1e-3), torch.full((3, 8, 12), 1e-3)]
    maps[0][:, 1, 1], maps[1][:, 6, 10] = 0.9, 0.9
    here, there = (model.look([shown], heatmaps=[one])[0] for one in maps)
    assert torch.equal(here.seen, there.seen) and not torch.allclose(here.anomaly, there.anomaly)
    assert torch.allclose(here.anomaly, model.regions(maps[0][None])[0]) and torch.equal(here.heatmap, maps[0])
    margins = model.converse_many([here, there]).margins(QUESTIONS[0])
    assert abs(margins[0] - margins[1]) > 1e-3
    own = model.look([shown])[0]
    assert torch.allclose(own.heatmap, model.heatmap(model.see(shown)), atol=1e-5)
    assert plain.look([shown])[0].anomaly is None and own.key == here.key != model.look([clip(6, seed=9)])[0].key
    record = model.converse(own).transcript()
    assert record == {"clip": "noise0:0", "key": own.key, "anomaly_tokens": model.regions.tokens(3), "turns": []}


def test_yes_scores_cover_every_frame(model):
    frames = ArrayFrames(clip(21).frames, 10.0, "long")
    scores = model.yes_scores(frames, question=QUESTIONS[0])
    assert scores.shape == (21,) and ((scores > 0) & (scores < 1)).all()
    chance = model.converse(Clip(frames.read(0, 16), 10.0, 0, "long")).probability(QUESTIONS[0])
    assert scores[:5] == pytest.approx(chance, abs=1e-4)  # the frames that only the first window covers


def test_assembly_from_files_with_a_lora_adapter(directory, tmp_path):
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(1)
    backbone = QwenBackbone.from_pretrained(directory, device="cpu", dtype="float32", load_language_model=True)
    decoder = AnomalyHeatmapDecoder(taps=backbone.taps, tap_width=48, hidden_width=8, text_width=256)
    decoder.save(tmp_path / "ahd.safetensors", backbone_fingerprint=backbone.fingerprint)
    regions = make_encoder("thesis", text_width=256)
    regions.save(tmp_path / "rae.safetensors", backbone_fingerprint=backbone.fingerprint, extra={"calibration": "2.5"})
    pattern = r"model\.language_model\.layers\.\d+\.self_attn\.(q_proj|v_proj)"
    adapted = get_peft_model(backbone.language_model, LoraConfig(r=2, target_modules=pattern, init_lora_weights=False))
    adapted.save_pretrained(tmp_path / "adapter", save_embedding_layers=False)
    files = dict(rae=tmp_path / "rae.safetensors", device="cpu", dtype="float32", cache_dir=tmp_path)
    bare = TVAU.from_pretrained(directory, tmp_path / "ahd.safetensors", **files)
    loaded = TVAU.from_pretrained(directory, tmp_path / "ahd.safetensors", adapter=tmp_path / "adapter", **files)
    memory = TVAU(backbone, decoder, prototypes=loaded.prototypes, regions=regions, language_model=adapted, calibration=2.5)
    assert loaded.calibration == 2.5 and not any(p.requires_grad for p in loaded.language_model.parameters())
    margins = [one.converse(clip(4))._talks.margins(QUESTIONS[0])[0] for one in (bare, loaded, memory)]
    assert margins[1] == pytest.approx(margins[2], abs=1e-5) and abs(margins[0] - margins[1]) > 1e-6
    assert loaded.detect(ArrayFrames(clip(6).frames, 10.0, "v")).frame_scores.shape == (6,)
    with pytest.raises(CheckpointError, match=r"adapter_config.json: no such file; was the adapter made by phase 2"):
        load_adapter(bare.language_model, tmp_path)
    tower = QwenBackbone.from_pretrained(directory, device="cpu", dtype="float32")
    with pytest.raises(BackboneError, match="tiny: opened without its language model.*load_language_model=True"):
        TVAU(tower, decoder, prototypes=loaded.prototypes)
