"""A backbone that reads its taps off the pixels, and toy videos in which a bright square that moves is the anomaly."""
from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import torch
from composite_footage import toy_footage

from tvad.backbones.qwen import Sight
from tvad.datasets.base import Event, Video
from tvad.detection import DEFAULT_SCORING
from tvad.heatmap import AnomalyHeatmapDecoder
from tvad.metrics import tracks_from_masks
from tvad.video.frames import ArrayFrames

PATCH, GRID = 10, (6, 9)
SIZE = (GRID[0] * PATCH, GRID[1] * PATCH)


class FakeBackbone:
    """Two taps of width 6: brightness and change of each patch in random projections."""
    name, taps, tap_width, text_width, temporal_patch_size = "fake", (0, 3), 6, 8, 2
    device = torch.device("cpu")
    attention = "none"

    def __init__(self, fingerprint: str = "fake-0", gain: float = 1.0):
        self.fingerprint, self.gain, self.seen = fingerprint, gain, 0
        rng = np.random.default_rng(0)
        self.mix = [torch.from_numpy(rng.normal(size=(4, self.tap_width)).astype(np.float32)) for _ in self.taps]

    def see(self, clip, *, tokens=False):
        return self.see_many([clip], tokens=tokens)[0]

    def see_many(self, clips, *, tokens=False):
        sights = []
        for clip in clips:
            frames = clip.frames.mean(-1).astype(np.float32) / 255
            if len(frames) % 2:
                frames = np.concatenate([frames, frames[-1:]])
            self.seen += len(frames) // 2
            cells = frames.reshape(len(frames) // 2, 2, GRID[0], PATCH, GRID[1], PATCH)
            change = np.abs(cells[:, 1] - cells[:, 0]).mean((2, 4))
            facts = np.stack([cells.mean((1, 3, 5)), cells.max((1, 3, 5)), change, np.ones_like(change)], -1)
            sights.append(Sight(tuple(torch.from_numpy(facts) @ mix * self.gain for mix in self.mix), None,
                                (len(facts), *GRID)))
        return sights

    def embed_prompts(self, sentences):
        codes = [np.random.default_rng(list(text.encode())).normal(size=self.text_width) for text in sentences]
        return torch.from_numpy(np.stack(codes)).float()

    def randomised(self, *, seed):
        return FakeBackbone(f"fake-random-{seed}", gain=0.0)


def toy_clips() -> list:
    """Four short videos of one toy camera in which nothing happens."""
    return [toy_footage(f"clip{number}", size=SIZE, frames=20, people=5, seed=number)[0] for number in range(4)]


def fake_model(backbone=None) -> SimpleNamespace:
    """What an adaptation needs of a T-VAD model, with an untrained decoder."""
    backbone = backbone or FakeBackbone()
    torch.manual_seed(0)
    decoder = AnomalyHeatmapDecoder(taps=backbone.taps, tap_width=6, hidden_width=12, text_width=8, contrast="centred",
                                    temperature=25.0)
    return SimpleNamespace(backbone=backbone, decoder=decoder, prototypes=backbone.embed_prompts(["normal", "abnormal"]),
                           scoring=DEFAULT_SCORING)


def toy_video(name: str, *, events=((10, 20, "car"),), n: int = 40, seed: int = 0, square: int = 14) -> Video:
    """Grey noise with a dim square that moves all the time, and during the events a bright one."""
    rng = np.random.default_rng([seed, *name.encode()])
    frames = rng.integers(60, 100, size=(n, *SIZE, 3), dtype=np.uint8)
    masks = np.zeros((n, *SIZE), np.uint8)
    for index in range(n):
        x = (2 * index) % (SIZE[1] - square)
        frames[index, 5:5 + square, x:x + square] = 140
        for target, (start, stop, _) in enumerate(events, 1):
            if start <= index < stop:
                x = (4 * index + 20 * target) % (SIZE[1] - square)
                frames[index, 35:35 + square, x:x + square] = 250
                masks[index, 35:35 + square, x:x + square] = target
    labels = masks.any(axis=(1, 2)).astype(np.uint8)
    return Video(id=name, dataset="simcampus", frames=ArrayFrames(frames, 10.0, name), labels=labels,
                 masks=lambda start, stop: masks[start:stop], tracks=tracks_from_masks(masks),
                 events=tuple(Event(kind, start, stop, target) for target, (start, stop, kind) in enumerate(events, 1)))


def toy_split(prefix: str, count: int = 4) -> tuple[Video, ...]:
    """Videos with a car, a bicycle, or both, every fourth one normal."""
    spans = (((10, 20, "car"),), ((5, 13, "bicycle"),), ((4, 9, "car"), (25, 33, "bicycle")), ())
    return tuple(toy_video(f"{prefix}{index}", events=spans[index % 4]) for index in range(count))
