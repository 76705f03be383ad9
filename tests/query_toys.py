"""Streets with cars and bicycles, a backbone whose words lie apart, and an untrained decoder of query heatmaps."""
from __future__ import annotations

import numpy as np
import torch
from training_fakes import GRID, SIZE, FakeBackbone

from tvad.datasets.base import Event, Video
from tvad.queries.heatmap import EventHeatmapDecoder
from tvad.queries.words import TextSpace
from tvad.video.frames import ArrayFrames

WORDS = {"car": ("car", "van"), "bicycle": ("bicycle", "bike", "someone cycling")}
LOOKS = {"car": 250, "bicycle": 5}

class Backbone(FakeBackbone):
    """The fake whose text space is wide enough that words are nearly at right angles."""
    text_width = 32


def street(name: str, events: tuple = (), n: int = 24) -> Video:
    """Grey noise; a car is a bright square, a bicycle a dark one."""
    rng = np.random.default_rng(list(name.encode()))
    frames = rng.integers(90, 110, size=(n, *SIZE, 3), dtype=np.uint8)
    masks = np.zeros((n, *SIZE), np.uint8)
    for target, (kind, start, stop) in enumerate(events, 3):
        for index in range(start, stop):
            x, y = (3 * index + 17 * target) % (SIZE[1] - 14), 5 if kind == "car" else 35
            frames[index, y:y + 14, x:x + 14], masks[index, y:y + 14, x:x + 14] = LOOKS[kind], target
    return Video(id=name, dataset="simcampus", frames=ArrayFrames(frames, 10.0, name),
                 labels=masks.any(axis=(1, 2)).astype(np.uint8), masks=lambda start, stop: masks[start:stop],
                 events=tuple(Event(kind, start, stop, target) for target, (kind, start, stop) in enumerate(events, 3)))


def streets(prefix: str, count: int) -> tuple[Video, ...]:
    casts = ((("car", 4, 16),), (("bicycle", 6, 20),), (("car", 2, 9), ("bicycle", 8, 22)), ())
    return tuple(street(f"{prefix}{index}", casts[index % 4]) for index in range(count))


def decoder_of(mode="softmax", seed=0):
    backbone = Backbone()
    torch.manual_seed(seed)
    return EventHeatmapDecoder(taps=backbone.taps, tap_width=6, hidden_width=5, text_width=32, wordings=WORDS, mode=mode,
                               normal=("walking", "tree"), space=TextSpace.of(backbone)).eval(), backbone


def some_taps(t=3):
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(t, *GRID, 6, generator=generator) for _ in range(2)]
