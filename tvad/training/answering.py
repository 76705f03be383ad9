"""A trained speaker answers the questions of a conversation set from cached clips, each turn after its own answers.

The evidence is what the lessons hold, so a variant answers from what it was trained on, and a ``full`` model can be given
another clip's map to see whether it reads it.
"""
from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import torch
from tqdm.auto import tqdm

from tvad.conversation.choice import fit_choice
from tvad.conversation.talk import Evidence, Talks
from tvad.metrics.text import YES_NO, Answer, yes_no
from tvad.training.lessons import Lessons, Turn


@torch.no_grad()
def evidence_of(lessons: Lessons, row: int) -> Evidence:
    """What the language model gets of a conversation's clip."""
    speaker, seen = lessons.speaker, lessons.seen(row).to(lessons.speaker.device)
    heat = None if lessons.heat is None else lessons.heat[lessons.number[row]].to(speaker.device)
    anomaly = None if heat is None else speaker.evidence([heat], [lessons.look(row)])[0]
    clip = lessons.clips.clips[lessons.number[row]]
    return Evidence(lessons.view(row), seen, anomaly, heat, str(clip))


def talk_about(lessons: Lessons, rows: Sequence[int], *, calibration: float = 1.0, bias: float = 0.0) -> Talks:
    """Fresh conversations in step about the clips of some rows."""
    speaker = lessons.speaker
    return Talks(speaker.language, speaker.format, [evidence_of(lessons, row) for row in rows], calibration=calibration,
                 bias=bias)


def answer(lessons: Lessons, rows: Iterable[int] | None = None, *, keep: Callable[[Turn], bool] | None = None,
           batch: int = 16, limit: int = 64, calibration: float = 1.0, bias: float = 0.0,
           progress: bool = True) -> list[Answer]:
    """The speaker's answers to the turns of conversations (all rows by default), greedy, at most ``limit`` tokens each.

    Questions are asked in their order, each after the model's own answers to those before. ``keep`` leaves turns out
    altogether. Whether there is an anomaly is answered by the likelier of "Yes." and "No." under ``calibration`` and
    ``bias``, with the probability of yes. The clip is encoded once a conversation.
    """
    lessons.speaker.eval()
    wanted = [row for row in (range(len(lessons)) if rows is None else rows) if _turns(lessons, row, keep)]
    groups = _groups(lessons, wanted, keep, batch)
    found: dict[int, list[Answer]] = {}
    for group in tqdm(groups, desc="answers", unit="batch", disable=not (progress and groups)):
        turns = [_turns(lessons, row, keep) for row in group]
        talks = talk_about(lessons, group, calibration=calibration, bias=bias)
        for place in range(len(turns[0])):
            asked = [own[place] for own in turns]
            questions = [turn.question for turn in asked]
            for row, turn, (said, chance) in zip(group, asked, _said(talks, asked, questions, limit)):
                found.setdefault(row, []).append(_answer(lessons.conversations[row], turn, said, chance))
    return [one for row in wanted for one in found[row]]


def _said(talks: Talks, asked: Sequence[Turn], questions: Sequence[str], limit: int) -> list[tuple[str, float]]:
    """Answers of one turn with the probability of yes, nan for another question."""
    if all(turn.slot == YES_NO and yes_no(turn.answer) is not None for turn in asked):
        return talks.decide(questions, options=("Yes.", "No."))
    binary = any(turn.slot == YES_NO for turn in asked)
    chances = talks.probabilities(questions) if binary else np.full(len(asked), np.nan)
    return list(zip(talks.ask(questions, limit=limit), chances.tolist(), strict=True))


def yes_no_calibration(lessons: Lessons, rows: Sequence[int], *, batch: int = 16) -> tuple[float, float]:
    """Temperature and bias of yes/no, fitted on validation conversations that begin with the question; 1 and 0 where these
    hold fewer than both answers."""
    first = [row for row in rows if lessons.turns[row][0].slot == YES_NO]
    labels = np.array([int(bool(yes_no(lessons.turns[row][0].answer))) for row in first])
    if len(set(labels.tolist())) < 2:
        return 1.0, 0.0
    lessons.speaker.eval()
    margins = [talk_about(lessons, part).margins([lessons.turns[row][0].question for row in part])
               for part in (first[at:at + batch] for at in range(0, len(first), batch))]
    return fit_choice(np.concatenate(margins), labels)


def _turns(lessons: Lessons, row: int, keep: Callable[[Turn], bool] | None) -> list[Turn]:
    return [turn for turn in lessons.turns[row] if keep is None or keep(turn)]


def _groups(lessons: Lessons, rows: Sequence[int], keep: Callable[[Turn], bool] | None, batch: int) -> list[list[int]]:
    """Rows of equally many turns and like length, ``batch`` at a time."""
    by_count: dict[int, list[int]] = {}
    for row in sorted(rows, key=lambda row: lessons.length(row, "anomaly")):
        by_count.setdefault(len(_turns(lessons, row, keep)), []).append(row)
    return [own[at:at + batch] for own in by_count.values() for at in range(0, len(own), batch)]


def _answer(conversation: Any, turn: Turn, said: str, chance: float) -> Answer:
    kind = conversation.slots.get("class") if conversation.anomalous else None
    # the canonical wording first: figures compare with it, other styles keep theirs as a further reference
    wanted = tuple(dict.fromkeys((*turn.references, turn.answer)))
    return Answer(conversation.video, turn.slot, said, wanted, event=kind,
                  probability=chance if turn.slot == YES_NO else None)
