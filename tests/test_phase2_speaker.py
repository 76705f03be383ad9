"""Phase 2: what is adapted and trained, and where the labels of a sequence stand."""
from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from phase2_fakes import LORA, TALKS, spoken
from torch.nn import functional as F

from tvad.backbones.chat import IGNORED
from tvad.backbones.qwen import QwenBackbone
from tvad.errors import BackboneError, DatasetError
from tvad.training import variants
from tvad.training.lessons import Lessons, turns_of
from tvad.training.speaker import attach, optimizer_groups
from tvad.training.variants import VARIANTS

pytest_plugins = ("phase2_fakes",)


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
        speaker = attach(backbone, VARIANTS["full"], lora=replace(LORA, dropout=0.0), region={"looks": 2}, seed=0,
                         **options)
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
