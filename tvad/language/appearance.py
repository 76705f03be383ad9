"""What a target looks like and does: from a simulator's script, or left open.

A source is asked for one track of one clip and answers with a :class:`Sighting`, or with a :class:`Drop` that says why
there is none.  For a vision-language model as the source see ``tvad.language.captioning``.
"""
from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
from jaxtyping import Bool, UInt8

from tvad.datasets.base import Video
from tvad.language.tracks import MaskTrack
from tvad.scenes.palette import RANGES

# What belongs to each class of target: the things that it is or has, and the motions that its frames may show.
OBJECTS: Mapping[str, tuple[str, ...]] = {
    "car": ("car", "van", "cart"), "bicycle": ("bicycle",), "motorcycle": ("motorcycle", "scooter"),
    "hand_truck": ("hand truck with boxes", "hand truck"), "stroller": ("stroller",), "skateboarding": ("skateboard",),
    "throwing": ("ball", "bag", "box", "thing"),
    "running": (), "falling": (), "jumping": (), "loitering": (), "fighting": (),
}
COLOURS: tuple[str, ...] = tuple(RANGES)
TONES: tuple[str, ...] = ("dark", "grey", "light")      # what remains of colours in black-and-white footage
VEHICLES: tuple[str, ...] = OBJECTS["car"]
PERSONS: tuple[str, ...] = ("person", "man", "woman")
_LEAST_SHARE = 0.15     # of a target's frames: a motion seen for less is not told
_LEAST_IOU = 0.5        # between a track and its actor of the script


@dataclass(frozen=True)
class Look:
    """Named looks of one target; empty where unknown.

    ``kind`` is a class of EVENTS, ``noun`` of PERSONS or VEHICLES, ``top``, ``bottom`` and ``object_colour`` are of COLOURS
    (of TONES in black-and-white footage), ``object`` is of OBJECTS[kind] without its colour.  ``accessories_known`` False:
    nobody asked about ``hat`` and ``carries``, so that empty ones do not mean that there are none.
    """

    kind: str
    noun: str = "person"
    top: str = ""
    bottom: str = ""
    hat: str = ""
    carries: tuple[str, ...] = ()
    object: str = ""
    object_colour: str = ""
    accessories_known: bool = True

    @property
    def is_vehicle(self) -> bool:
        return self.noun in VEHICLES

    def without_colours(self) -> Look:
        """The look in black-and-white footage: brightness instead of colours."""
        return replace(self, **{name: tone_of(getattr(self, name)) for name in ("top", "bottom", "object_colour")})


@dataclass(frozen=True)
class Sighting:
    """What a source says of one target; ``look`` None: left open.  ``motions``: in the order in which they were seen."""

    look: Look | None
    motions: tuple[str, ...] = ()


@dataclass(frozen=True)
class Drop:
    """Why a sample was not made: a word to count by, and the case in words."""

    reason: str
    detail: str


@dataclass(frozen=True, eq=False)
class ClipView:
    """Frames ``start`` to ``stop`` (exclusive) of a video with their target masks (0 background, or 0 and 1)."""

    video: Video
    start: int
    stop: int
    masks: UInt8[np.ndarray, "n h w"]

    @property
    def name(self) -> str:
        return f"{self.video.id}:{self.start}-{self.stop}"

    def target(self, track: MaskTrack, row: int) -> Bool[np.ndarray, "h w"]:
        """Pixels of the track in its ``row``-th frame: of what fills most of its box, in the box alone."""
        x1, y1, x2, y2 = track.boxes[row].astype(int)
        inside = self.masks[int(track.frames[row]), y1:y2 + 1, x1:x2 + 1]
        ids = np.bincount(inside[inside > 0], minlength=2)
        mask = np.zeros(self.masks.shape[1:], bool)
        mask[y1:y2 + 1, x1:x2 + 1] = inside == ids.argmax() if ids.any() else False
        return mask


class AppearanceSource(Protocol):
    """Says what a track of a clip looks like and does."""

    name: str

    def of(self, view: ClipView, track: MaskTrack) -> Sighting | Drop: ...


class OpenAppearance:
    """Leaves the appearance open: for footage of which nothing but masks is known."""

    name = "open"

    def of(self, view: ClipView, track: MaskTrack) -> Sighting:
        """No look, no motion word; the timeline alone speaks."""
        return Sighting(None)


class ScriptAppearance:
    """The truth of SimCampus' script (``Video.text``): looks and motions of the actor that a track follows.

    The actor is found by the overlap of boxes, so that binary masks serve as well as instance masks.
    """

    name = "script"

    def of(self, view: ClipView, track: MaskTrack) -> Sighting | Drop:
        """Look and motions; a drop where no anomalous actor fits the track."""
        actors = view.video.text.get("actors")
        if actors is None:
            return Drop("no script", f"{view.name}: the data set has no script; choose another source of appearance")
        frames = [view.start + int(frame) for frame in track.frames]
        fits = [(_overlap(actor, frames, track.boxes), actor) for actor in actors if actor["event"] and actor["anomalous"]]
        fit, actor = max(fits, key=lambda pair: pair[0], default=(0.0, None))
        if fit < _LEAST_IOU:
            return Drop("no actor fits", f"{view.name}: the best actor overlaps track {track.id} by {fit:.2f}")
        return Sighting(look_of(actor), motions_of(actor, frames))


def look_of(actor: Mapping[str, Any]) -> Look:
    """The look of an actor of a SimCampus script."""
    seen = actor["appearance"]
    colour, _, thing = seen["object"].partition(" ")
    return Look(actor["kind"], seen["noun"], top=seen["top"], bottom=seen["bottom"], hat=seen["hat"],
                carries=tuple(seen["carries"]), object=thing, object_colour=colour)


def motions_of(actor: Mapping[str, Any], frames: Sequence[int]) -> tuple[str, ...]:
    """Motion words of an actor over ``frames`` of the video, first seen first, without what shows for a moment only.

    The script calls both the fall and the way up "falling"; after "lying" it is told as "getting_up".
    """
    words = np.empty(actor["motion"][-1][1], object)
    before = ""
    for start, stop, word in actor["motion"]:
        words[start:stop] = "getting_up" if (word, before) == ("falling", "lying") else word
        before = word
    seen = [word for word in words[list(frames)] if word]
    counts = Counter(seen)
    return tuple(word for word in dict.fromkeys(seen) if counts[word] >= max(1.0, _LEAST_SHARE * len(seen)))


def _overlap(actor: Mapping[str, Any], frames: Sequence[int], boxes: np.ndarray) -> float:
    """Mean IoU of a track's boxes and an actor's, 0 where the actor is absent."""
    total = 0.0
    for frame, box in zip(frames, boxes, strict=True):
        other = actor["box"][frame]
        if other is not None:
            width = min(box[2], other[2]) - max(box[0], other[0]) + 1
            height = min(box[3], other[3]) - max(box[1], other[1]) + 1
            shared = max(0.0, width) * max(0.0, height)
            total += shared / (_area(box) + _area(other) - shared)
    return total / max(1, len(frames))


def _area(box: Sequence[float]) -> float:
    return (box[2] - box[0] + 1) * (box[3] - box[1] + 1)


def tone_of(colour: str) -> str:
    """What is left of a colour word without colour: "dark", "grey" or "light" by its luma (BT.601); "" of ""."""
    if colour not in RANGES:
        return colour
    luma = np.mean(RANGES[colour], axis=0) @ (0.299, 0.587, 0.114)
    return "dark" if luma < 100 else "grey" if luma < 155 else "light"


def is_black_and_white(frame: UInt8[np.ndarray, "h w 3"]) -> bool:
    """Whether a frame has no colours, apart from what its coding adds."""
    return float(np.ptp(frame.astype(np.int16), axis=2).mean()) < 2.0
