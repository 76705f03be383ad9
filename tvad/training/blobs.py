"""Synthetic heat blobs with words for their place and path: a first stage in which only the evidence speaks.

In a trial a small language model learned from conversations what the target is, but not from where to where it goes:
the position must come through a few anomaly tokens, and a thousand clips show too few paths.  A blob that moves over an
empty map costs nothing to draw, and the timeline code tells its path as it tells that of a real mask.  Without video
tokens the sequence is a tenth as long.  The maps are drawn to look like the decoder's: soft edges, steps that are missed,
noise, and now and then a weak blob somewhere else.

Every lesson is a pure function of (seed, number).
"""
from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Float32, Int
from scipy.ndimage import gaussian_filter

from tvad.backbones.chat import View
from tvad.language.appearance import COLOURS, TONES
from tvad.language.grammar import phrase, spoken
from tvad.language.phrasings import Language, language
from tvad.language.timeline import Timeline, timeline_of
from tvad.language.tracks import MaskTrack
from tvad.region import WordedEncoder
from tvad.region.geometry import seen_patches
from tvad.region.words import story
from tvad.scenes.palette import article
from tvad.training.lessons import Turn
from tvad.training.speaker import Example, Speaker

BLOB_SLOTS = ("anomaly", "target", "motion", "from", "to", "trajectory", "when")
_EMPTY = 0.15           # share of lessons without a target
_DOUBT = 0.5            # at most, where true words are said
_TWO = 0.25             # and of those with two
_LEAST_FRAMES = 5       # in view


@dataclass(frozen=True)
class BlobWorld:
    """The clips that blobs are drawn for: heatmap ``steps`` and ``grid`` (h, w), side of a ``patch`` in pixels, frames of
    a step, frames a second; ``shown`` of a step's frames are looked at (0: all)."""

    steps: int
    grid: tuple[int, int]
    patch: int
    step_frames: int
    fps: float
    shown: int = 0

    @property
    def frames(self) -> int:
        return self.steps * self.step_frames

    @property
    def starts(self) -> Int[np.ndarray, " t"]:
        """The first frame of each step."""
        length = self.shown or self.step_frames
        every = self.step_frames // length
        return np.array(seen_patches(self.steps * every, every)) * length

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.grid[0] * self.patch, self.grid[1] * self.patch


def draw_track(world: BlobWorld, rng: np.random.Generator, *, legs: int = 3) -> MaskTrack:
    """A target that enters, starts or appears, walks one to ``legs`` legs with turns and stops, and perhaps leaves."""
    while True:
        boxes, shown = _boxes(world, rng, legs)
        frames = np.flatnonzero(shown)
        if len(frames) >= _LEAST_FRAMES and np.all(np.diff(frames) == 1):
            seen = boxes[frames]
            sides = seen[:, 2:] - seen[:, :2] + 1
            return MaskTrack(1, frames, seen, (seen[:, :2] + seen[:, 2:]) / 2, sides.prod(1).round().astype(np.int64))


def _boxes(world: BlobWorld, rng: np.random.Generator, most: int) -> tuple[Float[np.ndarray, "n 4"], np.ndarray]:
    height, width = world.size
    tall = np.exp(rng.uniform(np.log(0.06), np.log(0.3))) * height
    half = np.array([tall * rng.uniform(0.3, 1.4), tall]) / 2
    place = rng.uniform(0.05, 0.95, 2) * (width, height)
    heading = rng.uniform(0, 2 * np.pi)
    if rng.random() < 0.4:      # from outside, so that it crosses the border on its way to that place
        away = max(width, height) * rng.uniform(0.2, 0.8)
        place = place - away * np.array([np.cos(heading), np.sin(heading)])
    speed = 0.0 if rng.random() < 0.12 else rng.uniform(0.004, 0.05) * width
    legs = int(rng.integers(1, most + 1))
    turns = np.sort(rng.choice(np.arange(1, world.frames), legs - 1, replace=False)) if world.frames > legs else []
    first = int(rng.integers(0, world.frames // 2)) if rng.random() < 0.25 else 0
    last = int(rng.integers(world.frames // 2, world.frames)) if rng.random() < 0.15 else world.frames - 1
    centres, halted = np.empty((world.frames, 2)), False
    for frame in range(world.frames):
        if frame in turns:
            halted = not halted and rng.random() < 0.35
            heading += rng.choice([-1, 1]) * rng.uniform(0.8, 2.4)
        centres[frame] = place
        if not halted:
            place = place + speed * np.array([np.cos(heading), np.sin(heading)])
    boxes = np.concatenate([centres - half, centres + half], 1)
    clipped = np.clip(boxes, 0, (width - 1, height - 1, width - 1, height - 1))
    share = np.prod(clipped[:, 2:] - clipped[:, :2], 1) / np.prod(boxes[:, 2:] - boxes[:, :2], 1)
    shown = (share > 0.12) & (np.arange(world.frames) >= first) & (np.arange(world.frames) <= last)
    return clipped, shown


def draw_heat(world: BlobWorld, tracks: Sequence[MaskTrack],
              rng: np.random.Generator) -> Float32[np.ndarray, "t h w"]:
    """A map as a decoder might give it, 0 to 1; without tracks one of nothing."""
    rows, columns = world.grid
    heat = rng.gamma(0.3, 0.03, (world.steps, rows, columns))
    if rng.random() < 0.5:      # something it is not sure of
        y, x, level = rng.uniform(0, rows), rng.uniform(0, columns), rng.uniform(0.05, 0.35)
        near = np.exp(-((np.arange(rows)[:, None] - y) ** 2 + (np.arange(columns) - x) ** 2) / rng.uniform(1, 6))
        heat += level * near * rng.uniform(0, 1, (world.steps, 1, 1))
    for track in tracks:
        level = rng.uniform(0.4, 1.0) * np.where(rng.random(world.steps) < 0.1, 0.2, rng.uniform(0.7, 1.0, world.steps))
        blob = np.zeros_like(heat)
        for frame, box in zip(track.frames.tolist(), track.boxes):
            within = frame - world.starts
            for step in np.flatnonzero((within >= 0) & (within < (world.shown or world.step_frames))):
                left, top, right, bottom = (box / world.patch).astype(int)
                blob[step, top:bottom + 1, left:right + 1] = 1
        soft = gaussian_filter(blob, (0, *[rng.uniform(0.2, 0.8)] * 2))
        heat = np.maximum(heat, soft * level[:, None, None] * rng.uniform(0.8, 1.0, heat.shape))
    return np.clip(heat, 0, 1).astype(np.float32)


def blob_turns(world: BlobWorld, timelines: Sequence[Timeline], looks: Sequence[Mapping[str, str]], words: Language,
               rng: np.random.Generator) -> list[Turn]:
    """Questions about blobs in random wordings, answered in the canonical short form; without a target only the first.

    Only of dressed ones (``looks``, one a blob) look and motion are asked.
    """
    speech, count = words.speech, len(timelines)

    def ask(slot: str) -> str:
        wordings = words.wordings("questions", slot)
        return wordings[rng.integers(len(wordings))].format(**speech.pronouns(max(1, count)))

    def answer(slot: str, name: str, facts: Sequence[str]) -> str:
        return speech.sentence(speech.each([words.short[slot].format(**{name: fact}) for fact in facts]))

    if not timelines:
        return [Turn("anomaly", ask("anomaly"), speech.sentence(words.short["anomaly_no"]))]
    said = {"anomaly": speech.sentence(words.short["anomaly_yes"]),
            "from": answer("from", "place", [speech.place(one.origin) for one in timelines]),
            "to": answer("to", "place", [speech.place(one.destination) for one in timelines]),
            "trajectory": answer("trajectory", "path", [speech.trajectory(one) for one in timelines])}
    if looks:
        said |= {slot: answer(slot, slot, [look[slot] for look in looks]) for slot in ("target", "motion")}
    elif count == 1:
        (one,) = timelines
        said["when"] = answer("when", "span", [speech.span(one.entry, one.exit, frames=world.frames, fps=world.fps)])
    return [Turn(slot, ask(slot), said[slot]) for slot in BLOB_SLOTS if slot in said]


def recoloured(look: Mapping[str, str], rng: np.random.Generator) -> dict[str, str]:
    """A target of a conversation in other colours, so that they must be read."""
    changed = dict(look)
    for name, thing in (("top", "top"), ("bottom", "trousers"), ("object_colour", look["object"])):
        old = look[name]
        if old != "none":
            new = str(rng.choice(TONES if old in TONES and rng.random() < 0.5 else COLOURS))
            changed[name] = new
            changed["target"] = re.sub(rf"\ban? {old} {thing}\b", article(f"{new} {thing}"), changed["target"], count=1)
            changed["target"] = re.sub(rf"\b{old} {thing}\b", f"{new} {thing}", changed["target"], count=1)
    return changed


@dataclass(frozen=True)
class BlobLesson:
    """A map, the turns about it, and its targets' places and path as a conversation holds them (``targets``)."""

    heat: Float[torch.Tensor, "t h w"]
    turns: list[Turn]
    targets: tuple[Mapping[str, str], ...]


def blob_lesson(world: BlobWorld, *, seed: int, number: int, code: str = "en",
                looks: Sequence[Mapping[str, str]] = (), drawn: bool = True) -> BlobLesson:
    """One lesson: no target, one, or two, these told in the order in which they come and then from left to right.

    ``looks``: targets of conversations, of which each blob is given one in new colours. ``drawn``: False leaves the map
    empty, which is quicker where it is not read.
    """
    rng = np.random.default_rng([seed, 11, number])
    kind = rng.random()
    legs = 1 if looks else 3        # dressed ones take one leg, as nearly all targets of clips do
    tracks = [draw_track(world, rng, legs=legs) for _ in range(0 if kind < _EMPTY else 2 if kind > 1 - _TWO else 1)]
    tracks.sort(key=lambda track: (track.frames[0], track.centres[0, 0]))
    timelines = [timeline_of(track, frames=world.frames, size=world.size) for track in tracks]
    worn = [recoloured(looks[rng.integers(len(looks))], rng) for _ in tracks] if looks else []
    turns = blob_turns(world, timelines, worn, language(code), rng)
    heat = draw_heat(world, tracks, rng) if drawn else np.zeros((world.steps, *world.grid), np.float32)
    targets = [{"from": spoken(one.origin), "to": spoken(one.destination), "trajectory": phrase(one)} for one in timelines]
    targets = tuple({**look, **path} for look, path in zip(worn or [{}] * len(targets), targets))
    return BlobLesson(torch.from_numpy(heat), turns, targets)


def blob_example(speaker: Speaker, world: BlobWorld, *, seed: int, number: int,
                 looks: Sequence[Mapping[str, str]] = ()) -> Example:
    """One lesson as a sequence without video. A region encoder that speaks in words says the true ones, of dressed blobs
    (``looks``), with some doubt: reading is what the language model learns here."""
    worded = isinstance(speaker.region, WordedEncoder)
    lesson = blob_lesson(world, seed=seed, number=number, looks=looks if worded else (), drawn=not worded)
    pairs = [(turn.question, turn.answer) for turn in lesson.turns]
    dialogue = speaker.format.dialogue(speaker.language, pairs, view=View((world.steps, *world.grid)), seen=0,
                                       anomaly=speaker.evidence_tokens(len(lesson.heat)))
    told = [story(target) for target in lesson.targets] if worded else None
    doubt = float(np.random.default_rng([seed, 12, number]).uniform(0, _DOUBT)) if worded else 0.0
    return Example(dialogue, torch.empty(0, speaker.width), lesson.heat, told=told, doubt=doubt)
