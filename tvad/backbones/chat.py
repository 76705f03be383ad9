"""Qwen2.5-VL's chat as token ids: turns, the place of picture or video, T-VAD's anomaly block, labels, positions.

    format = ChatFormat.of(model, tokenizer)
    dialogue = format.dialogue(model, [("Where is it?", "top left")], view=view, seen=1728, anomaly=12)
    batch = splice(model, format, [dialogue], seen=[video_tokens], anomaly=[anomaly_tokens])
    logits, wanted = answer_logits(model, batch)

The stock chat template writes every turn; ids are those of the stock processor.  Behind the picture or video of the first
turn stands the anomaly block, ``<|anomaly_prompt_start|>``, as many ``<|anomaly_prompt_pad|>`` as there are anomaly tokens,
``<|anomaly_prompt_end|>``, and then the question: the order P = [video, anomaly, question] of the paper (eq. 13).  Pads are
replaced in ``inputs_embeds``; nothing of the model is changed.  Without anomaly tokens the block is left out.

Positions are the stock 3-D ones, computed once and always passed on: ``model.rope_deltas``, which is state of the module
and not of a conversation, is neither read nor written.
"""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from tvad.errors import BackboneError, ParameterError

ANOMALY_TOKENS = ("<|anomaly_prompt_start|>", "<|anomaly_prompt_pad|>", "<|anomaly_prompt_end|>")
IGNORED = -100  # label of what no loss is taken on


@dataclass(frozen=True)
class View:
    """Shape and pace of what the tower saw: grid (t, h, w) in patches, a still picture or a video, seconds a step."""

    grid: tuple[int, int, int]
    still: bool = False
    seconds: float = 1.0

    @classmethod
    def of(cls, backbone: Any, grid: tuple[int, int, int], *, frames: int, fps: float) -> View:
        """The view of a clip of ``frames`` frames; one frame is a picture.

        Temporal positions are floored (seconds a step x the model's ticks a second), so a fast camera would put several
        steps on one position; the pace is then stated as one tick a step.
        """
        pace = backbone.temporal_patch_size / fps
        tick = (1 + 1e-6) / backbone.config.vision_config.tokens_per_second  # the margin survives float32
        return cls(tuple(grid), frames == 1, max(pace, tick))


@dataclass(frozen=True)
class Dialogue:
    """A conversation on one clip: ids, labels (``IGNORED`` but on answers and their end of turn), 3-D positions."""

    ids: Int[Tensor, " n"]
    labels: Int[Tensor, " n"]
    positions: Int[Tensor, "3 n"]


@dataclass(frozen=True)
class Batch:
    """Padded inputs of the language model; ``mask`` is False on padding, labels are ``IGNORED`` there."""

    embeds: Float[Tensor, "b n d"]
    mask: Bool[Tensor, "b n"]
    positions: Int[Tensor, "3 b n"]
    labels: Int[Tensor, "b n"]


class ChatFormat:
    """Turns to ids for one tokenizer; make it with :meth:`of`."""

    def __init__(self, tokenizer: Any, config: Any) -> None:
        self.tokenizer = tokenizer
        ids = tokenizer.convert_tokens_to_ids
        self.anomaly_start, self.anomaly_pad, self.anomaly_end = (ids(token) for token in ANOMALY_TOKENS)
        self.image_pad, self.video_pad = config.image_token_id, config.video_token_id
        self.end_of_turn = ids("<|im_end|>")
        self._special = tuple(tokenizer.get_added_vocab())

    @classmethod
    def of(cls, model: Any, tokenizer: Any) -> ChatFormat:
        """The format of a model; the three anomaly tokens are added to tokenizer and embedding where they are absent.

        Qwen2.5-VL's table has spare rows for them; a table that is full grows.
        """
        known = tokenizer.get_vocab()
        if absent := [token for token in ANOMALY_TOKENS if token not in known]:
            tokenizer.add_tokens(absent, special_tokens=True)
        rows = model.get_input_embeddings().weight.shape[0]
        if len(tokenizer) > rows:
            model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
            for table in (model.get_input_embeddings(), model.get_output_embeddings()):
                with torch.no_grad():  # the mean row: the same on every load, where the stock initialisation draws
                    table.weight[rows:] = table.weight[:rows].mean(0)
        return cls(tokenizer, model.config)

    @property
    def anomaly_ids(self) -> tuple[int, int, int]:
        """Ids of start, pad and end: the rows that training may touch."""
        return self.anomaly_start, self.anomaly_pad, self.anomaly_end

    def unsayable(self, model: Any) -> Int[Tensor, " k"]:
        """Ids that no answer may hold: pads, which stand for other tokens, and spare rows of the table."""
        weight = model.get_input_embeddings().weight
        spare = range(len(self.tokenizer), weight.shape[0])
        return torch.tensor([self.image_pad, self.video_pad, *self.anomaly_ids, *spare], device=weight.device)

    def head(self, *, still: bool, seen: int, anomaly: int) -> list[int]:
        """The conversation up to the question: system turn, ``seen`` picture or video pads, ``anomaly`` pads."""
        before, _ = self._first("", still)
        pad = self.image_pad if still else self.video_pad
        ids = self._ids(before)
        at = ids.index(pad)
        block = [self.anomaly_start, *[self.anomaly_pad] * anomaly, self.anomaly_end] if anomaly else []
        return ids[:at] + [pad] * seen + ids[at + 1:] + block

    def first(self, question: str) -> list[int]:
        """The first question, behind the head, up to where the answer begins."""
        return self._ids(self._first(self._plain(question), False)[1])

    def later(self, question: str) -> list[int]:
        """Any further question, behind the end of the answer before it."""
        turn = [{"role": "user", "content": [{"type": "text", "text": self._plain(question)}]}]
        text = self._render(turn)
        return self._ids("\n" + text[text.rindex("<|im_start|>user"):])

    def answer(self, text: str) -> list[int]:
        """An answer and its end of turn."""
        return self._ids(self._plain(text)) + [self.end_of_turn]

    def dialogue(
        self, model: Any, turns: Sequence[tuple[str, str]], *, view: View, seen: int, anomaly: int,
    ) -> Dialogue:
        """A whole conversation for training; a last answer of ``""`` leaves the question open, for answering."""
        ids = self.head(still=view.still, seen=seen, anomaly=anomaly)
        labels = [IGNORED] * len(ids)
        for number, (question, said) in enumerate(turns):
            asked = self.later(question) if number else self.first(question)
            answered = self.answer(said) if said or number + 1 < len(turns) else []
            ids += asked + answered
            labels += [IGNORED] * len(asked) + answered
        return Dialogue(torch.tensor(ids), torch.tensor(labels), self.positions(model, ids, view))

    def positions(self, model: Any, ids: Sequence[int], view: View) -> Int[Tensor, "3 n"]:
        """The stock rotary positions (time, height, width) of a sequence with one picture or video."""
        sequence = torch.as_tensor(ids)[None]
        shape = torch.tensor([view.grid])
        kinds = (sequence == self.image_pad).int() + 2 * (sequence == self.video_pad).int()
        grids = {"image_grid_thw": shape} if view.still else {
            "video_grid_thw": shape, "second_per_grid_ts": torch.tensor([view.seconds])}
        return base_model(model).model.get_rope_index(sequence, mm_token_type_ids=kinds, **grids)[0][:, 0]

    def _first(self, question: str, still: bool) -> tuple[str, str]:
        content = [{"type": "image" if still else "video"}, {"type": "text", "text": question}]
        text = self._render([{"role": "user", "content": content}])
        before, mark, behind = text.partition("<|vision_end|>")
        return before + mark, behind

    def _render(self, turn: list) -> str:
        return self.tokenizer.apply_chat_template(turn, add_generation_prompt=True, tokenize=False)

    def _ids(self, text: str) -> list[int]:
        return self.tokenizer(text, add_special_tokens=False)["input_ids"]

    def _plain(self, text: str) -> str:
        """The text, refused where it would become a special token (a pad too many would take another's place)."""
        for token in self._special:
            if token in text:
                raise ParameterError(f"the text {text!r} holds the special token {token!r}; write it without")
        return text


def base_model(model: Any) -> Any:
    """The stock model inside a PEFT wrapper, or the model itself; adapters are part of it either way."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def splice(
    model: Any, format: ChatFormat, dialogues: Sequence[Dialogue], *, seen: Sequence[Float[Tensor, "m d"]],
    anomaly: Sequence[Float[Tensor, "a d"] | None] | None = None, side: str = "right",
) -> Batch:
    """One batch of clips of any lengths: ids embedded, pads replaced by the clips' video and anomaly tokens.

    ``anomaly``: gradients flow into it; None for clips without.  ``side`` of the padding: right for training (causal
    attention never looks at it), left for answering.
    Raises :class:`BackboneError` where a clip's tokens and pads differ in number.
    """
    anomaly = [None] * len(dialogues) if anomaly is None else list(anomaly)
    table = base_model(model).get_input_embeddings()
    device = next(table.parameters()).device
    rows, length = [], max(len(dialogue.ids) for dialogue in dialogues)
    for number, (dialogue, view, extra) in enumerate(zip(dialogues, seen, anomaly, strict=True)):
        ids = dialogue.ids.to(device)
        embeds = table(ids)
        pads = (ids == format.image_pad) | (ids == format.video_pad)
        embeds = _replace(embeds, pads, view, number, "picture or video")
        embeds = _replace(embeds, ids == format.anomaly_pad, extra, number, "anomaly")
        before = length - len(ids) if side == "left" else 0
        rows.append((embeds, before, length - len(ids) - before, dialogue))

    def pad(value: Tensor, fill: int, before: int, behind: int) -> Tensor:
        return nn.functional.pad(value, (before, behind), value=fill)

    embeds = torch.stack([pad(row.T, 0, b, a).T for row, b, a, _ in rows])
    mask = torch.stack([pad(torch.ones_like(d.ids), 0, b, a) for _, b, a, d in rows]).bool()
    positions = torch.stack([pad(d.positions, 0, b, a) for _, b, a, d in rows], 1)
    labels = torch.stack([pad(d.labels, IGNORED, b, a) for _, b, a, d in rows])
    return Batch(embeds, mask.to(device), positions.to(device), labels.to(device))


def _replace(embeds: Tensor, places: Tensor, tokens: Tensor | None, number: int, what: str) -> Tensor:
    found, given = int(places.sum()), 0 if tokens is None else len(tokens)
    if found != given:
        raise BackboneError(f"clip {number} of the batch: {found} {what} pads in the dialogue but {given} tokens; build "
                            "the dialogue with the number of tokens that the clip has")
    if tokens is None:
        return embeds
    return embeds.masked_scatter(places[:, None], tokens.to(embeds.device, embeds.dtype))


def answer_logits(model: Any, batch: Batch) -> tuple[Float[Tensor, "k v"], Int[Tensor, " k"]]:
    """Logits before every labelled token of a right-padded batch, and these tokens; the head runs on no other place."""
    stock = base_model(model)
    hidden = stock.model.language_model(
        inputs_embeds=batch.embeds, position_ids=batch.positions, use_cache=False).last_hidden_state
    answered = batch.labels[:, 1:] != IGNORED
    return stock.lm_head(hidden[:, :-1][answered]), batch.labels[:, 1:][answered]
