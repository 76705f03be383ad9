"""Stage 3 of the zoo: the language model learns to read reports that are told in its own, sometimes doubtful, words.

The heatmap's evidence will reach it as sentences whose words are mixtures of rows of its input embedding; what it cannot
read there, no adaptation of a few minutes teaches it.  Lessons are invented reports with questions (stories.py), which
cost no rendering and no tower, in the place where the conversations will put them: behind the picture or video, between
the anomaly-prompt tokens; a few stand as text in the question.  Part of them follows the pooled video tokens of some other
lesson, which say nothing of the report.  Beside them a few lessons of stage 2 are rehearsed in every step, so that
captions and questions about what is seen are not forgotten.

Tower, merger and input embedding (and with it the tied output head) stay as they are, bit for bit: whatever was made of
the tower's features and the prompts' embedding before stays valid.  Lessons are drawn by their number, so that a run
depends on its seed only and an interrupted one goes on.
"""
from __future__ import annotations

import contextlib
import logging
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm.auto import tqdm

from tvad.backbones.chat import Batch, ChatFormat, Dialogue, View, answer_logits, splice
from tvad.backbones.pretrain.language_stage import FPS, Encoded, LanguageStage, encode_all, lesson_logits, plan_batches
from tvad.backbones.pretrain.loop import Optimizers, load_state, save_state
from tvad.backbones.pretrain.stories import Teller

log = logging.getLogger(__name__)
_POOL = 3                   # side of the blocks of video tokens that are read as one
_GROUP = 4                  # steps whose lessons are drawn together and sorted by length
_HUM = 0.02                 # noise on the tokens of a report, at most; rows of words are about 0.1


@dataclass(frozen=True)
class ReadingStage:
    """What decides stage 3."""

    steps: int = 1300
    batch: int = 12             # reports of a step
    rehearsed: int = 1000       # lessons of stage 2 that are kept for rehearsal
    rehearsal: int = 2          # of them in a step
    share: float = 0.5          # weight of their loss
    filmed: float = 0.6         # share of the reports that stand behind a video
    learning_rate: float = 1.5e-3
    warm_up: int = 30           # steps; the model has learned before
    method: str = "Muon (3 x learning_rate) in the blocks, AdamW elsewhere; 1"  # raise with any change of loss or draws
    seed: int = 2


@dataclass(frozen=True)
class Report:
    """A lesson ready for the language model: ``told`` fills the anomaly pads, ``seen`` the video pads; ``slots`` of the
    turns."""

    dialogue: Dialogue
    seen: Float[Tensor, "m d"]
    told: Float[Tensor, "n d"] | None
    slots: tuple[str, ...]


class School:
    """Draws the lessons of a model: :meth:`report` by number.

    ``films``: video tokens with their grid in patches, which may stand before a report.
    """

    def __init__(self, model: Any, processor: Any, *, films: Sequence[tuple[Tensor, tuple[int, int, int]]] = (),
                 filmed: float = 0.0) -> None:
        self.model, self.format = model, ChatFormat.of(model, processor.tokenizer)
        self.table = model.get_input_embeddings().weight.detach()
        self.teller = Teller(processor.tokenizer, len(self.table))
        self.films, self.filmed = list(films), filmed

    def report(self, seed: int, number: int, *, way: str | None = None, doubt: float | None = None) -> Report:
        """Lesson ``number``; ``way`` and ``doubt`` as in :meth:`Teller.lesson`."""
        rng = np.random.default_rng([seed, 29, number])
        told = self.teller.lesson(rng, way=way, doubt=doubt)
        seen, view = torch.zeros(0, self.table.shape[1]), View((1, 2, 2))
        if self.films and rng.random() < self.filmed:
            tokens, grid = self.films[int(rng.integers(len(self.films)))]
            seen, grid = pooled(tokens, grid, merge=self.model.config.vision_config.spatial_merge_size)
            view = View(grid, seconds=2 / FPS * int(rng.choice((1, 2, 4))))
        tokens = None
        if told.tokens is not None:
            tokens = torch.from_numpy(told.tokens).to(self.table) @ self.table
            hum = rng.uniform(0, _HUM) * rng.standard_normal(tuple(tokens.shape), dtype=np.float32)
            tokens = tokens + torch.from_numpy(hum).to(tokens)
        dialogue = self.format.dialogue(self.model, [(question, answer) for _, question, answer in told.turns], view=view,
                                        seen=len(seen), anomaly=0 if tokens is None else len(tokens))
        return Report(dialogue, seen, tokens, tuple(slot for slot, _, _ in told.turns))

    def batch(self, reports: Sequence[Report]) -> Batch:
        """Reports as one padded batch."""
        return splice(self.model, self.format, [one.dialogue for one in reports], seen=[one.seen for one in reports],
                      anomaly=[one.told for one in reports])


def pooled(tokens: Float[Tensor, "n d"], grid: tuple[int, int, int], *, merge: int,
           most: int = 2) -> tuple[Float[Tensor, "m d"], tuple[int, int, int]]:
    """Video tokens as the conversations read them: the first ``most`` steps, the mean of each block of ``_POOL`` squared;
    with their grid in patches."""
    t, h, w = grid[0], grid[1] // merge, grid[2] // merge
    kept = tokens.view(t, h, w, -1)[:most].permute(0, 3, 1, 2).float()
    kept = F.avg_pool2d(kept, _POOL, ceil_mode=True).permute(0, 2, 3, 1)
    return kept.flatten(0, 2).to(tokens.dtype), (kept.shape[0], merge * kept.shape[1], merge * kept.shape[2])


def readers(model: Any) -> dict[str, nn.Parameter]:
    """What stage 3 may change, by name: the language model's blocks and last norm, not the input embedding."""
    text = model.model.language_model
    return {name: value for name, value in text.named_parameters() if not name.startswith("embed_tokens.")}


def train_reading(model: Any, processor: Any, stage: ReadingStage, lessons: LanguageStage, *, work: Path,
                  blocks: Path | None = None, device: str = "cpu", stop_after: int | None = None) -> dict[str, float]:
    """Train the language model's blocks in place; resumes from ``work/reading.pt``.  Returns the last losses, minutes.

    ``lessons``: stage 2, whose first lessons are rehearsed; ``blocks``: its working folder, where they may lie already.
    ``stop_after``: end early after that many steps, as an interruption would.
    """
    work.mkdir(parents=True, exist_ok=True)
    began = time.perf_counter()
    model.to(device).train().requires_grad_(False)
    named = readers(model)
    for value in named.values():
        value.requires_grad_(True)
    rows = rehearsal_rows(model, processor, stage, lessons, work=work, blocks=blocks or work, device=device)
    films = [(row.vision, row.grid) for row in rows if len(row.vision)]
    school = School(model, processor, films=films, filmed=stage.filmed)
    optimizer = Optimizers(named.items(), learning_rate=stage.learning_rate, steps=stage.steps, warm_up=stage.warm_up)
    state = dict(blocks=model.model.language_model.layers, norm=model.model.language_model.norm, optimizer=optimizer)
    losses, checkpoint = [], work / "reading.pt"
    if first := load_state(checkpoint, device=device, **state):
        log.warning("resuming stage 3 at step %d of %d (%s)", first, stage.steps, checkpoint)
    again = plan_rehearsal([len(row.dialogue.ids) for row in rows], stage)
    drawn = reports(school, stage, first)
    last = min(stage.steps, stop_after or stage.steps)
    with _plain_attention(model), tqdm(total=stage.steps, initial=first, desc="reading", mininterval=5) as bar:
        for step in range(first, last):
            optimizer.zero_grad()
            with torch.autocast(torch.device(device).type, torch.bfloat16):
                logits, wanted = answer_logits(model, school.batch(next(drawn)))
            read = F.cross_entropy(logits.float(), wanted)
            read.backward()
            seen = _rehearse(model, processor, [rows[i] for i in again[step]], stage.share, device) if again else 0.0
            nn.utils.clip_grad_norm_(list(named.values()), 1.0)
            optimizer.step()
            losses.append((read.item(), seen))
            bar.update()
            if step % 100 == 99 or step == stage.steps - 1 or step == last - 1:
                save_state(checkpoint, step + 1, **state)
            bar.set_postfix(loss="{:.3f}, {:.3f}".format(*np.mean(losses[-50:], 0)), refresh=False)
    mean = np.mean(losses[-100:], 0) if losses else (math.nan, math.nan)
    return {"loss": float(mean[0]), "loss_rehearsal": float(mean[1]), "minutes": (time.perf_counter() - began) / 60}


def _rehearse(model: Any, processor: Any, rows: list[Encoded], share: float, device: str) -> float:
    with torch.autocast(torch.device(device).type, torch.bfloat16):
        logits, wanted = lesson_logits(model, processor, rows)
    loss = F.cross_entropy(logits.float(), wanted)
    (share * loss).backward()
    return loss.item()


def reports(school: School, stage: ReadingStage, first: int) -> Iterator[list[Report]]:
    """The reports of every step from ``first`` on: drawn for some steps together, of like length within one."""
    for group in range(first // _GROUP, math.ceil(stage.steps / _GROUP)):
        size = _GROUP * stage.batch
        drawn = [school.report(stage.seed, group * size + i) for i in range(size)]
        drawn.sort(key=lambda one: len(one.dialogue.ids))
        batches = [drawn[i:i + stage.batch] for i in range(0, size, stage.batch)]
        order = np.random.default_rng([stage.seed, 31, group]).permutation(_GROUP)
        yield from (batches[i] for i in order[max(0, first - group * _GROUP):])


def plan_rehearsal(lengths: list[int], stage: ReadingStage) -> list[list[int]]:
    """Rows rehearsed in each step, of like length within one; none without rows."""
    if not lengths or not stage.rehearsal:
        return []
    plan = _Plan(stage.seed, (stage.steps + 1) * stage.rehearsal / len(lengths), stage.rehearsal)
    return plan_batches(lengths, plan)


@dataclass(frozen=True)
class _Plan:
    """What ``plan_batches`` wants to know."""

    seed: int
    epochs: float
    batch: int


def rehearsal_rows(model: Any, processor: Any, stage: ReadingStage, lessons: LanguageStage, *, work: Path,
                   blocks: Path, device: str) -> list[Encoded]:
    """The first lessons of stage 2, encoded; kept in ``work``, for a resumed run."""
    if not stage.rehearsal or not stage.rehearsed:
        return []
    kept = work / "rehearsal.pt"
    if not kept.exists():
        rows = encode_all(model, processor, replace(lessons, lessons=stage.rehearsed), blocks, device)
        packed = [{"grid": torch.tensor(row.grid), "vision": row.vision, **vars(row.dialogue)} for row in rows]
        torch.save(packed, kept.with_suffix(".part"))
        kept.with_suffix(".part").rename(kept)
    found = torch.load(kept, weights_only=True)
    return [Encoded(Dialogue(row["ids"], row["labels"], row["positions"]), row["vision"], tuple(row["grid"].tolist()))
            for row in found]


@contextlib.contextmanager
def _plain_attention(model: Any) -> Iterator[None]:
    """On a CPU the plain product is a fifth faster than the fused kernel on sequences as short as these."""
    text = model.model.language_model.config
    before = text._attn_implementation
    if model.device.type == "cpu":
        text._attn_implementation = "eager"
    try:
        yield
    finally:
        text._attn_implementation = before


@torch.inference_mode()
def reading_right(model: Any, processor: Any, *, count: int, seed: int, way: str | None = None,
                  doubt: float | None = None, batch: int = 16) -> dict[str, float]:
    """Share of the answers to ``count`` unseen reports whose every token is the first choice: all, and by slot.

    ``seed``: another than the stage's, so that the reports are others. ``way``, ``doubt``: see :meth:`Teller.lesson`.
    """
    school, right = School(model.eval(), processor), {}
    for start in range(0, count, batch):
        rows = [school.report(seed, number, way=way, doubt=doubt) for number in range(start, min(count, start + batch))]
        with torch.autocast(model.device.type, torch.bfloat16):
            logits, wanted = answer_logits(model, school.batch(rows))
        hits, at = (logits.argmax(-1) == wanted).tolist(), 0
        for row in rows:
            marked = (row.dialogue.labels != -100).long()
            ends = marked.diff(prepend=marked.new_zeros(1)).clamp_min(0).cumsum(0)[marked.bool()]
            for slot, length in zip(row.slots, ends.unique_consecutive(return_counts=True)[1].tolist(), strict=True):
                right.setdefault(slot, []).append(all(hits[at:at + length]))
                at += length
    return {"all": float(np.mean([hit for found in right.values() for hit in found])),
            **{slot: float(np.mean(found)) for slot, found in sorted(right.items())}}
