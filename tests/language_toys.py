"""Toy footage with masks for the tests of tvad.language."""
from __future__ import annotations

import numpy as np

from tvad.datasets.base import Dataset, Video
from tvad.language.appearance import ClipView
from tvad.language.timeline import Leg, Timeline
from tvad.language.tracks import tracks_from_instances
from tvad.video.frames import ArrayFrames

SIZE = (60, 90)


def toy_video(name: str, *, targets: int = 1, n: int = 30, value: int = 1) -> Video:
    """Squares that cross from left to right one below the other, from frame 3 on; ids count from ``value``."""
    masks = np.zeros((n, *SIZE), np.uint8)
    for k in range(3, n):
        for target in range(targets):
            masks[k, 5 + 18 * target:15 + 18 * target, 2 * k:2 * k + 8] = value + target
    frames = np.repeat(np.random.default_rng(len(name)).integers(60, 200, (n, *SIZE, 1), np.uint8), 3, axis=3)
    return Video(name, "toy", ArrayFrames(frames, 10.0, name), masks=lambda start, stop: masks[start:stop])


class Toy(Dataset):
    """Three binary videos: one target, none, and one hardly seen."""

    name, protocol = "toy", "standard"

    def splits(self):
        return ("train", "test")

    def videos(self, split):
        self._require_split(split)
        whole = toy_video(f"{split}2")
        once = (np.arange(len(whole)) == 4)[:, None, None].astype(np.uint8)
        hardly = Video("hardly", "toy", whole.frames, masks=lambda a, b: whole.masks(a, b) * once[a:b])
        return toy_video(f"{split}0"), toy_video(f"{split}1", targets=0), hardly


class ToyVideo:
    """Frames with one moving square, and its script."""

    def __init__(self, *, kind="bicycle", n=20):
        self.id, self.dataset, self.scene = "toy", "simcampus", "scene00"
        self.masks_array = np.zeros((n, 120, 160), np.uint8)
        self.pictures = np.random.default_rng(0).integers(80, 120, (n, 120, 160, 3), np.uint8)
        boxes = [[10 + 4 * k, 30, 29 + 4 * k, 59] for k in range(n)]
        for k, (x1, y1, x2, y2) in enumerate(boxes):
            self.masks_array[k, y1:y2 + 1, x1:x2 + 1] = 3
            self.pictures[k, y1:y2 + 1, x1:x2 + 1] = (200, 20, 20)
        looks = {"top": "red", "bottom": "blue", "hair": "black", "hat": "cap", "carries": [], "noun": "woman",
                 "object": "white bicycle"}
        far = {"id": 1, "kind": "pedestrian", "event": None, "appearance": looks, "box": boxes, "anomalous": [],
               "motion": [[0, n, "walking"]]}
        self.text = {"actors": [far, {"id": 3, "kind": kind, "event": kind, "appearance": looks, "box": boxes,
                                      "anomalous": [[0, n]], "motion": [[0, n, "riding"]]}]}
        self.frames = self

    def read(self, start, stop):
        return self.pictures[start:stop]

    def view(self, start=2, stop=18):
        return ClipView(self, start, stop, self.masks_array[start:stop])


def the_track(view):
    (track,) = tracks_from_instances(view.masks)
    return track


def path(origin="left", destination="right", ways=("right",), speed="walking", entry=0, leave=15) -> Timeline:
    legs = tuple(Leg(way, entry, leave + 1) for way in ways)
    return Timeline(entry, leave, (origin, destination), legs, origin, destination, speed, None, "starts", "stays")
