"""What the parts of the simulator hand to one another, and what rendered footage is.

World coordinates are metres: x to the right, y away from the camera, z up; the ground is z = 0.  Angles are radians,
heading 0 looks along +x and pi/2 along +y.  Colours are 8-bit RGB.  Time is in seconds, frame k is at ``k / fps``.
"""
from __future__ import annotations

from dataclasses import dataclass, field
from typing import Mapping, Protocol, Sequence

import numpy as np
from jaxtyping import Bool, Float, UInt8

Colour = tuple[int, int, int]

EVENTS: tuple[str, ...] = (
    "car", "bicycle", "fighting", "throwing", "hand_truck", "running",
    "skateboarding", "falling", "jumping", "loitering", "motorcycle", "stroller",
)
OPEN_SET_EVENTS: tuple[str, ...] = ("hand_truck", "motorcycle", "jumping", "fighting")

# Semantic label of a pixel; index = value in ``Footage.parts``.  The first block is the still world.
PARTS: tuple[str, ...] = (
    "other", "path", "grass", "road", "building", "sky", "tree", "pole", "bench", "parked_bicycle", "parked_car",
    "head", "torso", "arm", "leg", "bag", "umbrella",
    "bicycle", "motorcycle", "car", "hand_truck", "stroller", "skateboard", "thrown_object",
)
PART_INDEX: Mapping[str, int] = {name: index for index, name in enumerate(PARTS)}

# What an actor is doing, as an ordinary fact (an event is more than a motion: a hurrying person is no event).
MOTIONS: tuple[str, ...] = (
    "walking", "hurrying", "standing", "talking", "sitting", "running", "riding", "gliding", "driving", "pushing",
    "fighting", "throwing", "falling", "lying", "jumping", "pacing", "picking_up", "putting_down", "flying",
)


@dataclass(frozen=True)
class Stroke:
    """A limb: a round-ended thick line through two or more points, tapering from ``radius`` to ``end_radius`` (m)."""
    points: Float[np.ndarray, "k 3"]
    radius: float
    colour: Colour
    part: int
    end_radius: float | None = None


@dataclass(frozen=True)
class Patch:
    """A flat filled polygon."""
    points: Float[np.ndarray, "k 3"]
    colour: Colour
    part: int


@dataclass(frozen=True)
class Ball:
    """A sphere, drawn as a disc."""
    centre: Float[np.ndarray, "3"]
    radius: float
    colour: Colour
    part: int


Shape = Stroke | Patch | Ball


@dataclass(frozen=True)
class Appearance:
    """Named looks of an actor; colour words come from ``tvad.scenes.palette``."""
    top: str = ""
    bottom: str = ""
    hair: str = ""
    hat: str = ""
    carries: tuple[str, ...] = ()          # of: bag, backpack, umbrella
    object: str = ""                       # "red bicycle", "white van", "" for a plain pedestrian
    noun: str = "person"                   # "woman", "man", "person", "car"


@dataclass(frozen=True)
class ActorState:
    """Where an actor is and what it does at one instant."""
    position: Float[np.ndarray, "3"]       # of the ground point between the feet or wheels
    heading: float
    speed: float                           # metres a second over ground
    motion: str                            # of MOTIONS
    phase: float                           # of the gait, wheel or gesture, in radians
    present: bool = True
    anomalous: bool = False                # True while the actor is the target of its event
    extra: Mapping[str, float] = field(default_factory=dict)


class Actor(Protocol):
    """Anything that moves. Implemented in ``tvad.scenes.actors`` (pure functions of time, so any frame can be drawn)."""
    kind: str                              # "pedestrian" or one of EVENTS
    event: str | None                      # the event of which it is a target, if any
    appearance: Appearance

    def state(self, time: float) -> ActorState: ...
    def shapes(self, state: ActorState) -> Sequence[Shape]: ...


class Ground(Protocol):
    """What behaviours need to know of a scene; implemented by ``tvad.scenes.world.Scene``."""
    name: str
    def paths(self) -> Sequence[Float[np.ndarray, "k 2"]]: ...        # walkable polylines that cross the view
    def stands(self) -> Sequence[Float[np.ndarray, "2"]]: ...         # places on the path network to stand or talk
    def seats(self) -> Sequence[tuple[Float[np.ndarray, "2"], float]]: ...    # bench places, heading of the sitter
    def corners(self) -> Sequence[Float[np.ndarray, "2"]]: ...        # places off the paths where somebody may loiter
    def visible(self, xy: Float[np.ndarray, "2"], margin: float = 0.0) -> bool: ...   # within the frame
    def metre(self, xy: Float[np.ndarray, "2"]) -> float: ...     # pixels that a metre there fills at 240x360


@dataclass(frozen=True)
class ActorTrack:
    """One actor over the ``n`` frames of a footage."""
    id: int                                # value in ``Footage.instances`` (1-based)
    kind: str
    event: str | None
    appearance: Appearance
    present: Bool[np.ndarray, "n"]         # at least one visible pixel
    anomalous: Bool[np.ndarray, "n"]
    box: Float[np.ndarray, "n 4"]          # x1 y1 x2 y2 of the visible pixels, inclusive; nan where absent
    position: Float[np.ndarray, "n 3"]
    velocity: Float[np.ndarray, "n 2"]     # image motion of the actor's middle, pixels a frame (x, y)
    motion: tuple[str, ...]
    visible: Float[np.ndarray, "n"]        # visible share of its own pixels, 0 where absent


@dataclass(frozen=True)
class Footage:
    """Rendered frames with exact truth. ``instances`` holds actor ids, ``parts`` indices into PARTS."""
    frames: UInt8[np.ndarray, "n h w 3"]
    instances: UInt8[np.ndarray, "n h w"]
    parts: UInt8[np.ndarray, "n h w"]
    fps: float
    scene: str
    seed: int
    actors: tuple[ActorTrack, ...]

    def anomaly_masks(self) -> UInt8[np.ndarray, "n h w"]:
        """Instance ids of anomalous targets, 0 elsewhere."""
        keep = np.zeros((len(self.frames), 256), bool)
        for actor in self.actors:
            keep[:, actor.id] = actor.anomalous
        frame = np.arange(len(self.frames))[:, None, None]
        return np.where(keep[frame, self.instances], self.instances, 0).astype(np.uint8)
