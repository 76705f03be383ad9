"""Conversations: caches equal fresh computation, and evidence is what is spliced in."""
from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conversation_fakes import QUESTIONS, clip, fresh_greedy, lively_backbone, model_of, texts
from tiny_model import random_model_directory

from tvad.backbones.chat import splice
from tvad.backbones.qwen import QwenBackbone
from tvad.conversation import TVAU, fit_choice, fit_temperature, probability
from tvad.conversation import talk as talk_module
from tvad.conversation.model import load_adapter
from tvad.errors import BackboneError, CheckpointError, ParameterError
from tvad.heatmap import AnomalyHeatmapDecoder
from tvad.region import make_encoder
from tvad.video.clip import Clip
from tvad.video.frames import ArrayFrames


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    return random_model_directory(tmp_path_factory.mktemp("zoo") / "tiny")


@pytest.fixture(scope="module")
def backbone(directory):
    return lively_backbone(directory)


@pytest.fixture(scope="module")
def model(backbone):
    return model_of(backbone)


@pytest.fixture(scope="module")
def plain(model):
    """The same without a region encoder."""
    return TVAU(model.backbone, model.decoder, prototypes=model.prototypes)


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
    steps, fed = [], []
    hooks = [model.backbone.visual.register_forward_pre_hook(
                 lambda _m, _a, kwargs: steps.append(int(kwargs["grid_thw"][0, 0])), with_kwargs=True),
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
    assert sum(steps) == 8 and len(head) == 1 and head[0] > 8 * 24
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
    assert early._talks._pending[0]      # said, but not yet in the cache
    asked_alone, whole = model.converse(evidence), model.converse(evidence)
    asked_alone.ask(QUESTIONS[0], limit=1)
    lengths = [talk.thread.cache.get_seq_length() for talk in (early, asked_alone)]
    whole.ask(QUESTIONS[0], limit=1 + lengths[0] - lengths[1])     # the same tokens, and no more
    assert early.ask(QUESTIONS[1], limit=4) == whole.ask(QUESTIONS[1], limit=4) and len(early.history) == 2


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


def test_a_leaning_model_is_set_upright():
    rng = np.random.default_rng(1)
    labels = (rng.random(600) < 0.3).astype(int)
    margins = np.where(labels == 1, 1.0, -1.0) + rng.normal(0, 0.8, 600) - 4       # it says no to everything
    temperature, bias = fit_choice(margins, labels)
    chosen = probability(margins, temperature=temperature, bias=bias) >= 0.5
    assert chosen[labels == 1].mean() > 0.8 and chosen[labels == 0].mean() < 0.2
    assert bias == pytest.approx(4, abs=0.3) and np.array_equal(chosen, margins + bias >= 0)
    upright = np.where(labels == 1, 3.0, -3.0)
    assert fit_choice(upright, labels) == (fit_temperature(upright, labels), 0.0)
    with pytest.raises(ParameterError, match="labels of both kinds; give clips with and without an anomaly"):
        fit_choice(margins, np.ones(600, int))


def test_a_bias_moves_decisions_and_probabilities(model):
    evidence = model.look([clip(3), clip(4)])
    plain = model.converse_many(evidence)
    margins = plain.margins(QUESTIONS[0])
    model.bias = float(-margins.mean())
    try:
        moved = model.converse_many(evidence)
        chances = moved.probabilities(QUESTIONS[0])
        assert np.allclose(moved.margins(QUESTIONS[0]), margins)
        assert np.array_equal(chances >= 0.5, margins >= margins.mean())
        assert [answer == "Yes" for answer, _ in moved.decide(QUESTIONS[0])] == (margins >= margins.mean()).tolist()
    finally:
        model.bias = 0.0


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
