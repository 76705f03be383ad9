"""Evaluation of phase 2: a trained speaker's answers to a split, kept as JSON Lines, and the rows made of them.

Yes/no is measured on every clip.  BLEU and slots are measured on anomalous clips alone: on a normal one the right target
is "None.", which would lift every score.  By default the conversations of style "turns" are answered, whose references
are canonical.  Rows of single events set the clips of that event against all normal ones.
"""
from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from jaxtyping import Float
from torch import Tensor

from tvad.conversation.saved import read_record
from tvad.errors import StorageError
from tvad.evaluation import Cell
from tvad.language.appearance import COLOURS, OBJECTS, TONES
from tvad.language.grammar import PLACES, spoken
from tvad.language.phrasings import CORE, language
from tvad.language.timeline import MOTION_STATES
from tvad.metrics.text import YES_NO, Answer, SlotRule, TextScore, score_text
from tvad.record import METRICS, Row, atomic_write, read_lines
from tvad.scenes.types import MOTIONS
from tvad.training.answering import answer
from tvad.training.phase2 import open_clips, open_lessons
from tvad.training.phase2_config import Phase2Config
from tvad.training.speaker import load_speaker

STYLE = "turns"
# What is done says the class where no thing does; the objects thrown do not (a bag may also be carried).
_DEEDS: Mapping[str, str] = {"running": "running", "fighting": "fighting", "throwing": "throwing", "falling": "falling",
                             "lying": "falling", "fallen": "falling", "getting up": "falling", "jumping": "jumping",
                             "loitering": "loitering"}


def slot_rules(code: str = "en") -> tuple[SlotRule, ...]:
    """The facts by which answers are compared: class and colours of the target, motion, from, to."""
    things = {word: kind for kind, words in OBJECTS.items() if kind != "throwing" for word in words}
    say = language(code).speech
    motions = tuple(dict.fromkeys(say.motion((word,)) for word in (*MOTIONS, "getting_up", *MOTION_STATES)))
    places = tuple(spoken(place) for place in PLACES)
    return (SlotRule("class", "target", {**things, **_DEEDS}),
            SlotRule("colours", "target", (*COLOURS, *TONES), bound=True), SlotRule("motion", "motion", motions),
            SlotRule("from", "from", places), SlotRule("to", "to", places))


def answer_split(folder: Path | str, backbone: Any, decoder: Any, conversations: Sequence[Any],
                 videos: Mapping[str, Any], *, prototypes: Float[Tensor, "2 d"], output: Path | str,
                 cache_dir: Path | str = "data/cache", evidence: str | None = None, slots: Sequence[str] = CORE,
                 style: str | None = STYLE, batch: int = 16, limit: int = 64, progress: bool = True) -> list[Answer]:
    """Load the speaker of ``folder`` (phase 2's ``model``), let it answer, and write ``output`` (JSON Lines).

    ``evidence``: other than the speaker was trained on, see ``tvad.training.variants``. ``slots``: the turns that are
    asked; ``style`` of the conversations, None for all. The backbone is afterwards as it was.
    Raises DatasetError for conversations that do not fit the videos, StorageError when the disk refuses.
    """
    speaker = load_speaker(folder, backbone)
    try:
        record = read_record(folder)
        config = Phase2Config(**record["phase2"])
        chosen = [one for one in conversations if style is None or one.style == style]
        clips = open_clips(config, backbone, decoder, chosen, videos, prototypes=prototypes, cache_dir=cache_dir,
                           masks=evidence == "mask", progress=progress)
        lessons = open_lessons(config, speaker, chosen, clips, backbone=backbone, evidence=evidence)
        found = answer(lessons, keep=lambda turn: turn.slot in slots, batch=batch, limit=limit, progress=progress,
                       calibration=record["calibration"], bias=record.get("bias", 0.0))
    finally:
        speaker.release()
    write_answers(output, found)
    return found


def write_answers(path: Path | str, answers: Iterable[Answer]) -> None:
    """One JSON line an answer. Raises StorageError when the disk refuses."""
    atomic_write(path, "".join(json.dumps(asdict(one), ensure_ascii=False) + "\n" for one in answers))


def read_answers(path: Path | str) -> list[Answer]:
    """What ``write_answers`` wrote. Raises StorageError that names file and line."""
    path = Path(path)
    if not path.is_file():
        raise StorageError(f"{path}: no answers here; phase 2 writes them, run: make reproduce")
    return read_lines(path, Answer, what="an answer", remedy="delete the file and run again",
                      prepare=lambda row: {**row, "wanted": tuple(row["wanted"])})


def figures(answers: Sequence[Answer], *, samples: int = 1000, code: str = "en") -> dict[str, TextScore]:
    """All figures of a split: yes/no of every clip, BLEU-4 and slots of the anomalous ones."""
    counted = [one for one in answers if one.slot == YES_NO or one.event is not None]
    return score_text(counted, rules=_usable(counted, slot_rules(code)), samples=samples)


def text_rows(answers: Sequence[Answer], cell: Cell, *, code: str = "en") -> list[Row]:
    """Rows of all clips."""
    return _rows(figures(answers, samples=cell.samples, code=code), cell)


def event_rows(answers: Sequence[Answer], cell: Cell, *, kinds: Sequence[str], name: str, code: str = "en") -> list[Row]:
    """Rows of the clips whose targets are all of ``kinds``, with ``event`` = ``name``; normal clips stay for yes/no."""
    kept = [one for one in answers if one.event is None or set(one.event.split("; ")) <= set(kinds)]
    if not any(one.event for one in kept):
        return []
    return [replace(row, event=name) for row in text_rows(kept, cell, code=code)]


def _usable(answers: Sequence[Answer], rules: Sequence[SlotRule]) -> list[SlotRule]:
    """The rules that some right answer can be read by: in a few clips none may name a colour."""
    return [rule for rule in rules
            if any(one.slot == rule.slot and rule.facts(one.wanted[0]) for one in answers)]


def _rows(scores: Mapping[str, TextScore], cell: Cell) -> list[Row]:
    rows = []
    for name, score in scores.items():
        if name not in METRICS:     # figures that no row may hold are kept by ``figures`` alone
            continue
        whole = score if score.low is not None else float(score.value)
        more = {"positive_rate": score.base} if name.startswith("yes_no") else {}
        rows.append(cell.row(name, score.n, whole, choice=cell.choice, **more))
    return rows
