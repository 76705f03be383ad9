"""Synthetic heat blobs with words for their place and path: a first stage in which only the evidence speaks.

In a trial a small language model learned from conversations what the target is, but not from where to where it goes:
the position must come through a few anomaly tokens, and a thousand clips show too few paths.  A blob that moves over an
empty map costs nothing to draw, and the timeline code tells its path as it tells that of a real mask.  Without video
tokens the sequence is a tenth as long.  The maps are drawn to look like the decoder's: soft edges, steps that are missed,
noise, and now and then a weak blob somewhere else.

Every lesson is a pure function of (seed, number).
"""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Float32
from scipy.ndimage import gaussian_filter

from tvad.backbones.chat import View
from tvad.language.grammar import phrase, spoken
from tvad.language.phrasings import Language, language
from tvad.language.timeline import Timeline, timeline_of
from tvad.language.tracks import MaskTrack
from tvad.training.lessons import Turn
from tvad.training.speaker import Example, Speaker

BLOB_SLOTS = ("anomaly", "from", "to", "trajectory", "when")
_EMPTY = 0.15           # share of lessons without a target
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
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.grid[0] * self.patch, self.grid[1] * self.patch


def draw_track(world: BlobWorld, rng: np.random.Generator) -> MaskTrack:
    """A target that enters, starts or appears, walks one to three legs with turns and stops, and perhaps leaves."""
    while True:
        boxes, shown = _boxes(world, rng)
        frames = np.flatnonzero(shown)
        if len(frames) >= _LEAST_FRAMES and np.all(np.diff(frames) == 1):
            seen = boxes[frames]
            sides = seen[:, 2:] - seen[:, :2] + 1
            return MaskTrack(1, frames, seen, (seen[:, :2] + seen[:, 2:]) / 2, sides.prod(1).round().astype(np.int64))


def _boxes(world: BlobWorld, rng: np.random.Generator) -> tuple[Float[np.ndarray, "n 4"], np.ndarray]:
    height, width = world.size
    tall = np.exp(rng.uniform(np.log(0.06), np.log(0.3))) * height
    half = np.array([tall * rng.uniform(0.3, 1.4), tall]) / 2
    place = rng.uniform(0.05, 0.95, 2) * (width, height)
    heading = rng.uniform(0, 2 * np.pi)
    if rng.random() < 0.4:      # from outside, so that it crosses the border on its way to that place
        away = max(width, height) * rng.uniform(0.2, 0.8)
        place = place - away * np.array([np.cos(heading), np.sin(heading)])
    speed = 0.0 if rng.random() < 0.12 else rng.uniform(0.004, 0.05) * width
    legs = int(rng.integers(1, 4))
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
            step, within = divmod(frame, world.step_frames)
            if within < (world.shown or world.step_frames):
                left, top, right, bottom = (box / world.patch).astype(int)
                blob[step, top:bottom + 1, left:right + 1] = 1
        soft = gaussian_filter(blob, (0, *[rng.uniform(0.2, 0.8)] * 2))
        heat = np.maximum(heat, soft * level[:, None, None] * rng.uniform(0.8, 1.0, heat.shape))
    return np.clip(heat, 0, 1).astype(np.float32)


def blob_turns(world: BlobWorld, timelines: Sequence[Timeline], words: Language, rng: np.random.Generator) -> list[Turn]:
    """Questions about blobs in random wordings, answered in the canonical short form; without a target only the first."""
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
    if count == 1:
        (one,) = timelines
        said["when"] = answer("when", "span", [speech.span(one.entry, one.exit, frames=world.frames, fps=world.fps)])
    return [Turn(slot, ask(slot), said[slot]) for slot in BLOB_SLOTS if slot in said]


@dataclass(frozen=True)
class BlobLesson:
    """A map, the turns about it, and its targets' places and path as a conversation holds them (``targets``)."""

    heat: Float[torch.Tensor, "t h w"]
    turns: list[Turn]
    targets: tuple[Mapping[str, str], ...]


def blob_lesson(world: BlobWorld, *, seed: int, number: int, code: str = "en") -> BlobLesson:
    """One lesson: no target, one, or two, these told in the order in which they come and then from left to right."""
    rng = np.random.default_rng([seed, 11, number])
    drawn = rng.random()
    tracks = [draw_track(world, rng) for _ in range(0 if drawn < _EMPTY else 2 if drawn > 1 - _TWO else 1)]
    tracks.sort(key=lambda track: (track.frames[0], track.centres[0, 0]))
    timelines = [timeline_of(track, frames=world.frames, size=world.size) for track in tracks]
    words = language(code)
    heat, turns = draw_heat(world, tracks, rng), blob_turns(world, timelines, words, rng)
    targets = tuple({"from": spoken(one.origin), "to": spoken(one.destination), "trajectory": phrase(one)}
                    for one in timelines)
    return BlobLesson(torch.from_numpy(heat), turns, targets)


def blob_example(speaker: Speaker, world: BlobWorld, *, seed: int, number: int) -> Example:
    """One lesson as a sequence without video."""
    lesson = blob_lesson(world, seed=seed, number=number)
    heat, pairs = lesson.heat, [(turn.question, turn.answer) for turn in lesson.turns]
    dialogue = speaker.format.dialogue(speaker.language, pairs, view=View((world.steps, *world.grid)), seen=0,
                                       anomaly=speaker.evidence_tokens(len(heat)))
    return Example(dialogue, torch.empty(0, speaker.width), heat, targets=lesson.targets)
