"""Conversations as training examples: which turns a curriculum stage takes, and what fills their pads.

Two stages as in the paper's curriculum: ``scene`` takes the turns about the whole scene (place, people, doings, is there
somebody with a bicycle), ``anomaly`` all others.  A conversation keeps its order; one without a turn of the stage is left
out of it.
"""
from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float
from torch import Tensor

from tvad.backbones.chat import View
from tvad.conversation.economy import WHOLE, Economy
from tvad.errors import DatasetError
from tvad.region.words import story
from tvad.training.evidence import ClipRange, ClipSet
from tvad.training.speaker import Example, Speaker

STAGES = ("scene", "anomaly")
SCENE_SLOTS = frozenset({"environment", "people", "activity", "probe"})
_KEPT = 0.5         # of the turns of an example that skips some
_CHARACTERS = 4     # of text a token, roughly: only for sorting by length


@dataclass(frozen=True)
class Turn:
    """One question and its right answer; ``references``: other right wordings."""

    slot: str
    question: str
    answer: str
    references: tuple[str, ...] = ()


def turns_of(conversation: Any) -> list[Turn]:
    """The turns of a conversation in chat format, each answer with the ``slot`` that its message names.

    Raises DatasetError where user and assistant do not alternate or an answer names no slot.
    """
    messages = [message for message in conversation.messages if message["role"] != "system"]
    roles = [message["role"] for message in messages]
    if not roles or roles != ["user", "assistant"] * (len(roles) // 2):
        raise DatasetError(f"conversation {conversation.id}: roles are {roles}; user and assistant must take turns")
    turns = []
    for asked, said in zip(messages[::2], messages[1::2]):
        if "slot" not in said:
            raise DatasetError(f"conversation {conversation.id}: an answer names no slot; make the set anew: "
                               "python -m tvad.language")
        turns.append(Turn(said["slot"], _text(asked), _text(said), tuple(said.get("references") or ())))
    return turns


def _text(message: Any) -> str:
    content = message["content"]
    if isinstance(content, str):
        return content
    return "".join(part["text"] for part in content if part.get("type") == "text")


def clip_of(conversation: Any) -> ClipRange:
    """The frames that a conversation is about."""
    return ClipRange(conversation.video, int(conversation.start), int(conversation.stop))


def clips_of(conversations: Sequence[Any]) -> list[ClipRange]:
    """The clips of some conversations, each once, in order."""
    return list(dict.fromkeys(clip_of(conversation) for conversation in conversations))


class Lessons:
    """The conversations of a split with their cached clips.

    ``heat``: the map of each clip under the variant's evidence, or None. ``economy``: how much of the video the language
    model reads; the heatmap keeps all its steps. ``slots``: of the anomaly stage, these turns alone; None: all.
    """

    def __init__(self, conversations: Sequence[Any], clips: ClipSet, speaker: Speaker, *, backbone: Any,
                 heat: Sequence[Float[Tensor, "t h w"]] | None, economy: Economy = WHOLE,
                 slots: Collection[str] | None = None) -> None:
        self.conversations, self.clips, self.speaker, self.backbone = tuple(conversations), clips, speaker, backbone
        self.heat, self.economy = heat, economy
        self.turns = [turns_of(conversation) for conversation in conversations]
        self.slots = None if slots is None else frozenset(slots) | SCENE_SLOTS
        self.number = [clips.number[clip_of(conversation)] for conversation in conversations]

    def __len__(self) -> int:
        return len(self.conversations)

    def rows(self, stage: str) -> list[int]:
        """The conversations that have a turn in the stage."""
        return [row for row in range(len(self)) if self.chosen(row, stage)]

    def chosen(self, row: int, stage: str) -> list[Turn]:
        """The turns of a conversation that belong to the stage."""
        return [turn for turn in self.turns[row] if (turn.slot in SCENE_SLOTS) == (stage == "scene")
                and (self.slots is None or turn.slot in self.slots)]

    def length(self, row: int, stage: str) -> int:
        """About how many tokens the example has, to batch alike ones."""
        letters = sum(len(turn.question) + len(turn.answer) for turn in self.chosen(row, stage))
        return math.prod(self.grid(row)) // self._merge**2 + letters // _CHARACTERS

    def grid(self, row: int) -> tuple[int, int, int]:
        """(t, h, w) in patches of what the language model reads of the clip."""
        return self.economy.read_grid(self.clips.grids[self.number[row]], self._merge)

    def example(self, row: int, stage: str, *, skipping: np.random.Generator | None = None) -> Example:
        """A conversation's turns of the stage, ready for the speaker; ``skipping`` draws which of them are left out."""
        turns = self.chosen(row, stage)
        if skipping is not None:
            kept = skipping.random(len(turns)) < _KEPT
            kept[skipping.integers(len(turns))] = True      # one at least
            turns = [turn for turn, keep in zip(turns, kept) if keep]
        return self.ask(row, [(turn.question, turn.answer) for turn in turns])

    def ask(self, row: int, pairs: Sequence[tuple[str, str]]) -> Example:
        """Any turns about a conversation's clip; a last answer of "" leaves the question open."""
        heat = self.heat[self.number[row]] if self.heat is not None else None
        seen = self.seen(row)
        tokens = self.speaker.evidence_tokens(0 if heat is None else len(heat))
        dialogue = self.speaker.format.dialogue(self.speaker.language, pairs, view=self.view(row), seen=len(seen),
                                                anomaly=tokens)
        return Example(dialogue, seen, heat, self.look(row))

    def story(self, row: int) -> list[dict[str, str]]:
        """The words of the targets of a conversation's clip, for region encoders that are taught them."""
        return [story(target) for target in getattr(self.conversations[row], "targets", ())]

    def view(self, row: int) -> View:
        """Shape and pace of what the language model sees of a conversation's clip."""
        number = self.number[row]
        clip, fps = self.clips.clips[number], self.clips.fps[number]
        pace = fps / (self.clips.every * self.economy.token_step)
        return View.of(self.backbone, self.grid(row), frames=clip.stop - clip.start, fps=pace)

    def seen(self, row: int) -> Float[Tensor, "m d"]:
        """The video tokens of a conversation's clip that the language model reads."""
        number = self.number[row]
        return self.economy.read(self.clips.tokens(number), self.clips.grids[number], self._merge)

    def look(self, row: int) -> Float[Tensor, "n d"] | None:
        """All video tokens of a conversation's clip where the region encoder looks at them, with their colours where it
        reads these."""
        region = self.speaker.region
        if region is None or not region.looks:
            return None
        return (self.clips.look if region.painted else self.clips.tokens)(self.number[row])

    @property
    def _merge(self) -> int:
        return self.backbone.merge_size


def check_lengths(lessons: Lessons, limit: int) -> None:
    """Refuse conversations longer than the language model's positions reach.

    Raises DatasetError that names the first.
    """
    for row in range(len(lessons)):
        for stage in STAGES:
            if lessons.chosen(row, stage) and (length := lessons.length(row, stage)) > limit:
                raise DatasetError(f"conversation {lessons.conversations[row].id}: about {length} tokens, the model reads "
                                   f"{limit}; use shorter clips, or a larger token_step or pool")
