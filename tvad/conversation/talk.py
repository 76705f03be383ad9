"""Conversations over a KV cache: the clip is encoded once, every turn adds its own tokens alone.

A :class:`Talks` holds several conversations in step, a :class:`Talk` one.  Each owns its cache, its positions (what the
stock model keeps in ``rope_deltas`` on the module, where another video would overwrite it) and the hash of its clip, so
any number of them may be interleaved, with stock ``generate`` calls in between, and each equals a fresh recomputation.
"""
from __future__ import annotations

import copy
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from tvad.backbones.chat import ChatFormat, Dialogue, View, base_model, splice
from tvad.conversation.choice import probability
from tvad.errors import ParameterError


@dataclass(frozen=True)
class Evidence:
    """What the language model gets of a clip: the tower's video tokens, and the anomaly tokens or None.

    ``heatmap`` is kept for pictures; ``clip`` names the clip and ``key`` is the hash of its frames, for the record.
    """

    view: View
    seen: Float[Tensor, "m d"]
    anomaly: Float[Tensor, "a d"] | None = None
    heatmap: Float[Tensor, "t h w"] | None = None
    clip: str = ""
    key: str = ""


@dataclass(frozen=True)
class Turn:
    """A question and its answer."""

    question: str
    answer: str


class Thread:
    """Cache, mask and next position of b conversations; texts of different lengths are padded on the left."""

    def __init__(self, model: Any) -> None:
        from transformers import DynamicCache

        self.model = base_model(model)
        self.cache = DynamicCache(config=self.model.config.text_config)
        self.mask: Bool[Tensor, "b n"] | None = None
        self.next: Int[Tensor, " b"] | None = None

    def fork(self) -> Thread:
        """A copy that goes its own way; what is cached so far is shared, not copied (growing makes new tensors)."""
        twin = copy.copy(self)
        twin.cache = copy.copy(self.cache)
        twin.cache.layers = [copy.copy(layer) for layer in self.cache.layers]
        return twin

    @property
    def rope_deltas(self) -> Int[Tensor, "b 1"]:
        """Next position minus number of tokens: what the stock model would keep on the module."""
        return (self.next - self.mask.sum(1))[:, None]

    @property
    def cache_bytes(self) -> int:
        """Memory of keys and values."""
        return sum(part.numel() * part.element_size() for layer in self.cache.layers for part in (layer.keys, layer.values))

    def feed(
        self, embeds: Float[Tensor, "b m d"], positions: Int[Tensor, "3 b m"], mask: Bool[Tensor, "b m"],
    ) -> Float[Tensor, "b v"]:
        """Append; the float32 logits after the last column."""
        self.mask = mask if self.mask is None else torch.cat([self.mask, mask], 1)
        # without padding no mask is passed, which leaves the fast causal kernels open
        seen = None if bool(self.mask.all()) else self.mask.long()
        hidden = self.model.model.language_model(
            inputs_embeds=embeds, position_ids=positions, attention_mask=seen, past_key_values=self.cache, use_cache=True,
        ).last_hidden_state
        # text goes on from the last token, not from the highest position (a long video's time may exceed it): so a fresh
        # computation of the whole sequence gives the same positions
        reached = positions[0, :, -1] + 1
        self.next = reached if self.next is None else torch.where(mask[:, -1], reached, self.next)
        return self.model.lm_head(hidden[:, -1]).float()

    def feed_text(self, rows: Sequence[Sequence[int]]) -> Float[Tensor, "b v"]:
        """Append text ids to every conversation; an empty row adds nothing to its own."""
        device, length = self.next.device, max(len(row) for row in rows)
        ids = torch.tensor([[0] * (length - len(row)) + list(row) for row in rows], device=device)
        mask = torch.tensor([[False] * (length - len(row)) + [True] * len(row) for row in rows], device=device)
        positions = (self.next[:, None] + mask.long().cumsum(1) - 1).clamp_min(0)
        return self.feed(self.model.get_input_embeddings()(ids), positions.expand(3, -1, -1), mask)


class Talks:
    """Several conversations in step, each about its own clip; questions of a turn are answered in one batch.

    ``histories``: the turns of each conversation.  ``calibration`` and ``bias``: temperature of
    :meth:`probabilities` and what is added to margins, there and in :meth:`decide` (``choice.py``).
    """

    def __init__(
        self, model: Any, format: ChatFormat, evidence: Sequence[Evidence], *, calibration: float = 1.0,
        bias: float = 0.0,
    ) -> None:
        if not evidence:
            raise ParameterError("a conversation needs a clip; got none")
        self.format, self.evidence, self.calibration, self.bias = format, tuple(evidence), calibration, bias
        self.histories: list[list[Turn]] = [[] for _ in evidence]
        self.thread = Thread(model)
        self._pending: list[list[int]] = [[] for _ in evidence]  # said, but not yet in the cache
        self._stops = _stop_ids(self.thread.model, format)
        self._unsayable = format.unsayable(self.thread.model)
        self._start()

    @torch.no_grad()
    def _start(self) -> None:
        heads = []
        for one in self.evidence:
            extra = 0 if one.anomaly is None else len(one.anomaly)
            ids = self.format.head(still=one.view.still, seen=len(one.seen), anomaly=extra)
            heads.append(Dialogue(torch.tensor(ids), torch.tensor(ids),
                                  self.format.positions(self.thread.model, ids, one.view)))
        batch = splice(self.thread.model, self.format, heads, seen=[one.seen for one in self.evidence],
                       anomaly=[one.anomaly for one in self.evidence], side="left")
        self.thread.feed(batch.embeds, batch.positions, batch.mask)

    def __len__(self) -> int:
        return len(self.evidence)

    def ask(self, questions: str | Sequence[str], *, limit: int = 64, temperature: float = 0.0, seed: int = 0) -> list[str]:
        """The answers to one question for all, or one question each; turns are kept.

        limit: most tokens of an answer.  temperature: 0 takes the likeliest token, else tokens are drawn by ``seed``.
        """
        questions = self._each(questions)
        said: list[list[int]] = [[] for _ in questions]
        for step in self._say(questions, limit, temperature, seed):
            for row, token in zip(said, step, strict=True):
                row += [] if token is None else [token]
        return self._keep(questions, said)

    def margins(
        self, questions: str | Sequence[str], *, options: tuple[str, str] = ("Yes", "No"),
    ) -> Float[np.ndarray, " b"]:
        """logit(first option) - logit(second) where the answer would begin; the conversations stay as they are.

        Raises :class:`ParameterError` for options that begin with the same token.
        """
        return self._weigh(self._each(questions), options)[1]

    def probabilities(
        self, questions: str | Sequence[str], *, options: tuple[str, str] = ("Yes", "No"),
    ) -> Float[np.ndarray, " b"]:
        """Calibrated probability of the first option against the second; the conversations stay as they are."""
        return probability(self.margins(questions, options=options), temperature=self.calibration, bias=self.bias)

    def decide(
        self, questions: str | Sequence[str], *, options: tuple[str, str] = ("Yes", "No"),
    ) -> list[tuple[str, float]]:
        """The answers held to one of two options, with the probability of the first; turns are kept."""
        questions = self._each(questions)
        self.thread, margins = self._weigh(questions, options)
        chosen = [options[0] if margin + self.bias >= 0 else options[1] for margin in margins]
        self._pending = [self.format.answer(option)[:-1] for option in chosen]
        self._keep(questions, self._pending)
        chances = probability(margins, temperature=self.calibration, bias=self.bias)
        return list(zip(chosen, chances.tolist(), strict=True))

    def fork(self) -> Talks:
        """The same conversations up to here, to be continued another way; the clips are not encoded again."""
        twin = copy.copy(self)
        twin.thread = self.thread.fork()
        twin.histories = [list(turns) for turns in self.histories]
        twin._pending = [list(row) for row in self._pending]
        return twin

    def _each(self, questions: str | Sequence[str]) -> list[str]:
        questions = [questions] * len(self) if isinstance(questions, str) else list(questions)
        if len(questions) != len(self) or not all(question.strip() for question in questions):
            raise ParameterError(f"{len(self)} conversations want one question, or one each, none of them empty; got "
                                 f"{len(questions)}: {questions[:3]}")
        return questions

    def _asked(self, questions: Sequence[str]) -> list[list[int]]:
        """Ids from the end of the cache to where the answers begin."""
        rows = []
        for question, turns, pending in zip(questions, self.histories, self._pending, strict=True):
            later = [*pending, self.format.end_of_turn, *self.format.later(question)] if turns else None
            rows.append(later or self.format.first(question))
        return rows

    @torch.no_grad()
    def _weigh(self, questions: Sequence[str], options: tuple[str, str]) -> tuple[Thread, Float[np.ndarray, " b"]]:
        """The thread after the questions, and the margins there; the conversations stay as they are."""
        first, second = (self.format.answer(option)[0] for option in options)
        if first == second:
            raise ParameterError(f"options {options} begin with the same token in this tokenizer; give options that "
                                 "differ from their first letters on")
        ahead = self.thread.fork()
        logits = ahead.feed_text(self._asked(questions))
        return ahead, (logits[:, first] - logits[:, second]).double().cpu().numpy()

    def _say(self, questions: Sequence[str], limit: int, temperature: float, seed: int) -> Iterator[list[int | None]]:
        """One token a conversation and step, None once it has ended.

        Between two yields no step is half done; an error or an interrupt takes the whole turn back.
        """
        if limit < 1 or not temperature >= 0:
            raise ParameterError(f"answers want limit of at least 1 and temperature of at least 0, got {limit} and "
                                 f"{temperature}")
        before = self.thread.fork(), self._pending
        try:
            yield from self._steps(questions, limit, temperature, torch.Generator().manual_seed(seed))
        except GeneratorExit:  # whoever listens has heard enough; what was said stays
            raise
        except BaseException:  # an interrupt may leave some layers a token ahead of others
            self.thread, self._pending = before
            raise

    def _steps(
        self, questions: Sequence[str], limit: int, temperature: float, generator: torch.Generator,
    ) -> Iterator[list[int | None]]:
        logits = self._fed(self._asked(questions))
        ended = [False] * len(questions)
        for step in range(limit):
            picked = _pick(logits.index_fill(1, self._unsayable, -torch.inf), temperature, generator)
            ended = [done or token in self._stops for done, token in zip(ended, picked, strict=True)]
            if all(ended):
                return
            tokens = [None if done else token for done, token in zip(ended, picked, strict=True)]
            texts = [[] if token is None else [token] for token in tokens]
            self._pending = texts
            yield tokens
            if step + 1 < limit:
                logits = self._fed(texts)

    @torch.no_grad()
    def _fed(self, texts: Sequence[Sequence[int]]) -> Float[Tensor, "b v"]:
        logits = self.thread.feed_text(texts)
        self._pending = [[] for _ in texts]
        return logits

    def _keep(self, questions: Sequence[str], said: Sequence[Sequence[int]]) -> list[str]:
        answers = [self._text(row).strip() for row in said]
        for turns, question, answer in zip(self.histories, questions, answers, strict=True):
            turns.append(Turn(question, answer))
        return answers

    def _text(self, ids: Sequence[int]) -> str:
        return self.format.tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)


class Talk:
    """One conversation about one clip.

    Attributes: ``evidence`` (with the heatmap and the clip's hash), ``history`` (the turns so far).
    """

    def __init__(self, talks: Talks) -> None:
        self._talks = talks

    @property
    def history(self) -> tuple[Turn, ...]:
        return tuple(self._talks.histories[0])

    @property
    def evidence(self) -> Evidence:
        return self._talks.evidence[0]

    @property
    def thread(self) -> Thread:
        """Cache and positions."""
        return self._talks.thread

    def ask(self, question: str, *, limit: int = 64, temperature: float = 0.0, seed: int = 0) -> str:
        """The answer; the turn is kept.  Parameters as of :meth:`Talks.ask`."""
        return "".join(self.stream(question, limit=limit, temperature=temperature, seed=seed)).strip()

    def stream(self, question: str, *, limit: int = 64, temperature: float = 0.0, seed: int = 0) -> Iterator[str]:
        """The answer in pieces, as they are said; together they are the answer.

        Whoever stops reading early keeps the turn with what was said until then.
        """
        questions, said, shown = self._talks._each([question]), [], ""
        steps = self._talks._say(questions, limit, temperature, seed)
        try:
            for (token,) in steps:
                said.append(token)
                text = self._talks._text(said)
                if not text.endswith("\ufffd"):  # a character of several tokens is shown when it is whole
                    shown, piece = text, text[len(shown):]
                    yield piece
        except GeneratorExit:
            steps.close()
            self._talks._keep(questions, [said])
            raise
        self._talks._keep(questions, [said])
        if rest := self._talks._text(said)[len(shown):]:
            yield rest

    def probability(self, question: str, *, options: tuple[str, str] = ("Yes", "No")) -> float:
        """Calibrated probability of the first option against the second; the conversation stays as it is."""
        return float(self._talks.probabilities([question], options=options)[0])

    def decide(self, question: str, *, options: tuple[str, str] = ("Yes", "No")) -> tuple[str, float]:
        """The answer held to one of two options, with the probability of the first; the turn is kept."""
        return self._talks.decide([question], options=options)[0]

    def fork(self) -> Talk:
        """The same conversation up to here, to be continued another way."""
        return Talk(self._talks.fork())

    def transcript(self) -> dict[str, Any]:
        """The conversation for the record: clip, hash of its frames, number of anomaly tokens, turns."""
        one = self.evidence
        return {"clip": one.clip, "key": one.key, "anomaly_tokens": 0 if one.anomaly is None else len(one.anomaly),
                "turns": [[turn.question, turn.answer] for turn in self.history]}


def hash_of(frames: np.ndarray) -> str:
    """Hash of a clip's frames."""
    return hashlib.sha256(f"{frames.shape}".encode() + np.ascontiguousarray(frames).tobytes()).hexdigest()[:24]


def _pick(logits: Float[Tensor, "b v"], temperature: float, generator: torch.Generator) -> list[int]:
    if temperature == 0:
        return logits.argmax(-1).tolist()
    chances = (logits / temperature).softmax(-1).cpu()
    return torch.multinomial(chances, 1, generator=generator)[:, 0].tolist()


def _stop_ids(model: Any, format: ChatFormat) -> set[int]:
    stated = getattr(model.generation_config, "eos_token_id", None)
    return {format.end_of_turn, *(stated if isinstance(stated, list) else [] if stated is None else [stated])}
