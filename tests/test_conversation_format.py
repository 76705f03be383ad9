"""Prompts: ids and positions equal the stock processor's, and only pads are replaced by evidence."""
from __future__ import annotations

import copy

import pytest
import torch
from conversation_fakes import clip, lively_backbone, model_of
from tiny_model import random_model, random_model_directory

from tvad.backbones.chat import ANOMALY_TOKENS, IGNORED, ChatFormat, View, answer_logits, splice
from tvad.errors import BackboneError, ParameterError


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    return random_model_directory(tmp_path_factory.mktemp("zoo") / "tiny")


@pytest.fixture(scope="module")
def backbone(directory):
    return lively_backbone(directory)


@pytest.fixture(scope="module")
def model(backbone):
    return model_of(backbone)


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
