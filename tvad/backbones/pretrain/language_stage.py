"""Stage 2 of the zoo: with the tower frozen, the language model learns ordinary captions and questions.

A lesson is one picture or clip with a dozen questions (questions.py) as one conversation in the chat format, or a few
sentences to read without any picture (reports.py); the loss is on the answers' tokens alone.  Video tokens are computed
once a lesson by the frozen tower.  Lessons are rendered in blocks, each decided by its number, so that a run depends on
its seed only and an interrupted one goes on.
"""

from __future__ import annotations

import logging
import math
import multiprocessing
import pickle
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm.auto import tqdm
from transformers.image_utils import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD

from tvad.backbones import vision
from tvad.backbones.chat import ChatFormat, Dialogue, View, answer_logits, splice
from tvad.backbones.pretrain.loop import Optimizers, load_state, save_state
from tvad.backbones.pretrain.questions import SMALLEST, Turn, presence, scale_turn, turns
from tvad.backbones.pretrain.reports import reading, singled_out

log = logging.getLogger(__name__)
FPS = 10.0
# Most lessons are a single pair of frames: it shows motion, and costs a quarter of a clip of eight.
KINDS = {"pair": 0.55, "clip": 0.22, "long": 0.02, "picture": 0.1, "dark": 0.055, "grid": 0.055}
FRAMES = {"pair": 2, "clip": 8, "long": 16, "picture": 2, "dark": 2, "grid": 16}


@dataclass(frozen=True)
class LanguageStage:
    """What decides stage 2."""

    scenes: tuple[str, ...]
    lessons: int = 13_000
    block: int = 200
    epochs: float = 2.0
    batch: int = 8
    learning_rate: float = 1.5e-3
    method: str = "Muon (3 x learning_rate) in the blocks, AdamW elsewhere; 3"  # raise with any change of loss or draws
    seed: int = 1
    height: int = 240
    width: int = 360


@dataclass(frozen=True)
class Lesson:
    """Frames (one for a picture, none for a text to read) and the turns asked about them."""

    frames: np.ndarray
    turns: list[Turn]


def lessons(*, scenes: list[str], seed: int, count: int, size: tuple[int, int]) -> list[Lesson]:
    """``count`` lessons from the training scenes: clips, single frames, darkened frames and 2x2 grids in turn."""
    from tvad.scenes.render import render
    from tvad.scenes.script import cast
    from tvad.scenes.types import EVENTS
    from tvad.scenes.world import SCENES

    rng, made = np.random.default_rng([seed, 17]), []
    while len(made) < count:
        scene = SCENES[scenes[rng.integers(len(scenes))]]
        if rng.random() < 0.6:
            scene = scene.vary(np.random.default_rng(rng.integers(2**31)))
        happenings = tuple(rng.choice(EVENTS, size=rng.integers(0, 4), replace=False))
        number = int(rng.integers(2**31))
        actors = cast(scene, seed=number, duration=12.0, events=happenings, density=float(rng.uniform(0.5, 7.0)))
        for start in rng.choice(104, size=12, replace=False):
            kind = str(rng.choice(list(KINDS), p=list(KINDS.values())))
            footage = render(scene, actors, frames=FRAMES[kind], seed=number, size=size, start=int(start))
            moving = kind in ("pair", "clip", "long")
            made.append(clip_lesson(footage, rng) if moving else picture_lesson(footage, rng, kind))
            if kind == "clip":
                made += [reading_lesson(footage, rng) for _ in range(2)]
    return made[:count]


def clip_lesson(footage, rng: np.random.Generator) -> Lesson:
    """All frames with questions about looks, places and motion."""
    return Lesson(footage.frames, turns(footage, slice(None), rng=rng, count=18))


def reading_lesson(footage, rng: np.random.Generator) -> Lesson:
    """Sentences about people of the footage, to be read."""
    areas = np.stack([np.bincount(frame.ravel(), minlength=256) for frame in footage.instances])
    named = singled_out(footage, slice(None), areas, least=SMALLEST)
    return Lesson(footage.frames[:0], reading(footage, slice(None), named, rng=rng))


def picture_lesson(footage, rng: np.random.Generator, kind: str) -> Lesson:
    """One picture: the first frame ("picture"), darkened outside a region ("dark"), or a 2x2 grid of frames ("grid")."""
    one, (height, width) = slice(0, 1), footage.frames.shape[1:3]
    if kind == "picture":
        return Lesson(footage.frames[one], turns(footage, one, rng=rng, moving=False))
    if kind == "dark":
        y, x = int(rng.uniform(0.1, 0.6) * height), int(rng.uniform(0.1, 0.6) * width)
        region = (y // 2, y // 2 + height // 2, x // 2, x // 2 + width // 2)
        inside = np.s_[:, region[0] : region[1], region[2] : region[3]]
        dark = (footage.frames[one] * 0.15).astype(np.uint8)
        dark[inside] = footage.frames[one][inside]
        return Lesson(dark, turns(footage, one, rng=rng, moving=False, region=region))
    picked = np.linspace(0, len(footage.frames) - 1, 4).round().astype(int)
    small = [cv2.resize(footage.frames[i], (width // 2, height // 2), interpolation=cv2.INTER_AREA) for i in picked]
    grid = np.concatenate([np.concatenate(small[:2], 1), np.concatenate(small[2:], 1)], 0)[None]
    clear = presence(footage, slice(None), footage.instances, footage.parts)
    names = [
        *rng.permutation([n for n, v in clear.items() if v > 0])[:5],
        *rng.permutation([n for n, v in clear.items() if v == 0])[:4],
    ]
    return Lesson(grid, [scale_turn(str(name), clear[name], rng) for name in names])


def lesson_block(directory: str, number: int, stage: LanguageStage) -> str:
    """Render block ``number``; written beside and renamed, kept when it exists."""
    target = Path(directory) / f"lessons{number:04d}.pkl"
    if not target.exists():
        rows = lessons(
            scenes=list(stage.scenes),
            seed=stage.seed * 100_003 + number,
            count=stage.block,
            size=(stage.height, stage.width),
        )
        beside = target.with_suffix(".part")
        beside.write_bytes(pickle.dumps([(row.frames, row.turns) for row in rows]))
        beside.rename(target)
    return str(target)


@dataclass(frozen=True)
class Encoded:
    """A lesson ready for the language model: the conversation, the float16 tokens of the frozen tower, their grid (t, h, w)
    in patches."""

    dialogue: Dialogue
    vision: Tensor
    grid: tuple[int, int, int]


def encode(model, processor, lesson: Lesson, tokens: Tensor, grid: tuple[int, int, int]) -> Encoded:
    """The lesson as one conversation in the stock chat format, labels on the answers."""
    view = View(grid, still=len(lesson.frames) == 1, seconds=2 / FPS)
    form = ChatFormat.of(model, processor.tokenizer)
    return Encoded(form.dialogue(model, lesson.turns, view=view, seen=len(tokens), anomaly=0), tokens, tuple(grid))


@torch.no_grad()
def video_tokens(visual, frames: np.ndarray) -> tuple[Tensor, tuple[int, int, int]]:
    """Merged tokens of a clip or picture from the frozen tower, float16; none where there is no frame."""
    if not len(frames):
        return torch.zeros(0, visual.merger.mlp[-1].out_features, dtype=torch.float16), (1, 2, 2)
    device = visual.patch_embed.proj.weight.device
    flat, grid = vision.patchify(
        torch.from_numpy(frames).to(device),
        patch=visual.patch_size,
        merge=visual.spatial_merge_size,
        temporal=2,
        mean=OPENAI_CLIP_MEAN,
        std=OPENAI_CLIP_STD,
    )
    with torch.autocast(device.type, torch.bfloat16):
        _, merged = vision.run_tower(visual, flat, grid=grid, taps=[])
    return merged.to(torch.float16).cpu(), grid


def lesson_logits(model, processor, batch: list[Encoded]) -> tuple[Tensor, Tensor]:
    """Logits and ids of all answer tokens of a batch."""
    form = ChatFormat.of(model, processor.tokenizer)
    dialogues, seen = [row.dialogue for row in batch], [row.vision for row in batch]
    return answer_logits(model, splice(model, form, dialogues, seen=seen))


def train_language(model, processor, stage: LanguageStage, *, work: Path, device: str = "cpu") -> dict[str, float]:
    """Train language model and embeddings in place; the tower and merger stay as they are. Resumes from ``work``."""
    work.mkdir(parents=True, exist_ok=True)
    began = time.perf_counter()
    model.to(device).train()
    model.model.visual.eval().requires_grad_(False)
    rows = encode_all(model, processor, stage, work, device)
    named = [(name, value) for name, value in model.named_parameters() if value.requires_grad]
    parameters = [value for _, value in named]
    batches = plan_batches([len(row.dialogue.ids) for row in rows], stage)
    steps = len(batches)
    optimizer = Optimizers(named, learning_rate=stage.learning_rate, steps=steps)
    state, losses, checkpoint = dict(model=model, optimizer=optimizer), [], work / "language.pt"
    if first := load_state(checkpoint, device=device, **state):
        log.warning("resuming stage 2 at step %d of %d (%s)", first, steps, checkpoint)
    with tqdm(total=steps, initial=first, desc="language", mininterval=5) as bar:
        for step in range(first, steps):
            batch = [rows[i] for i in batches[step]]
            with torch.autocast(torch.device(device).type, torch.bfloat16):
                logits, wanted = lesson_logits(model, processor, batch)
            loss = F.cross_entropy(logits.float(), wanted)
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
            losses.append(loss.item())
            bar.update()
            bar.set_postfix(loss=f"{np.mean(losses[-50:]):.3f}", refresh=False)
            if step % 250 == 249 or step == steps - 1:
                save_state(checkpoint, step + 1, **state)
    return {
        "loss": float(np.mean(losses[-100:])) if losses else math.nan,
        "minutes": (time.perf_counter() - began) / 60,
    }


def plan_batches(lengths: list[int], stage: LanguageStage) -> list[list[int]]:
    """Row numbers of every step: shuffled, yet of like length within a batch, so that little is spent on padding."""
    order = torch.Generator().manual_seed(stage.seed)
    passes = [torch.randperm(len(lengths), generator=order) for _ in range(math.ceil(stage.epochs))]
    picks = torch.cat(passes)[: int(stage.epochs * len(lengths))].tolist()
    batches = []
    for start in range(0, len(picks), 16 * stage.batch):
        alike = sorted(picks[start : start + 16 * stage.batch], key=lambda row: lengths[row])
        group = [alike[i : i + stage.batch] for i in range(0, len(alike), stage.batch)]
        batches += [group[i] for i in torch.randperm(len(group), generator=order).tolist()]
    return batches


def encode_all(model, processor, stage: LanguageStage, work: Path, device: str) -> list[Encoded]:
    """All lessons of the stage, rendered where they are not yet in ``work``, seen by the tower, in a fixed order."""
    directory = work / "lessons"
    directory.mkdir(parents=True, exist_ok=True)
    blocks, rows = math.ceil(stage.lessons / stage.block), []
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as pool:
        futures = [pool.submit(lesson_block, str(directory), number, stage) for number in range(blocks)]
        for future in tqdm(futures, desc="lessons", mininterval=5):
            for frames, asked in pickle.loads(Path(future.result()).read_bytes()):
                if asked:
                    tokens, grid = video_tokens(model.model.visual, frames)
                    rows.append(encode(model, processor, Lesson(frames, asked), tokens, grid))
    return rows[: stage.lessons]


@torch.inference_mode()
def answers_right(
    model, processor, scenes: list[str], *, count: int, seed: int, size=(240, 360)
) -> dict[str, float]:
    """Share of answers on unseen scenes whose every token is the model's first choice: all, and by first word asked."""
    right: dict[str, list[bool]] = {}
    for lesson in lessons(scenes=scenes, seed=seed, count=count, size=size):
        if not lesson.turns:
            continue
        tokens, grid = video_tokens(model.model.visual, lesson.frames)
        row = encode(model, processor, lesson, tokens, grid)
        logits, wanted = lesson_logits(model.eval(), processor, [row])
        hits, at = (logits.argmax(-1) == wanted).tolist(), 0
        for question, answer in lesson.turns:
            length = len(processor.tokenizer(answer + "<|im_end|>", add_special_tokens=False)["input_ids"])
            kind = "read" if not len(lesson.frames) else "scale" if "0 to 1" in question else question.split()[0].lower()
            right.setdefault(kind, []).append(all(hits[at : at + length]))
            at += length
    scores = {kind: float(np.mean(hit)) for kind, hit in sorted(right.items())}
    return {"all": float(np.mean([h for hit in right.values() for h in hit])), **scores}
