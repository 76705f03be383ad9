"""Dense ordinary facts of simulated frame pairs: what is where, which colour, how it moves.  No label says anomaly.

Every fact is a map over the patch grid, made from the simulator's exact pixel truth.  Scenes come from the training scenes
of SimCampus alone, each time with another camera, light and texture (``Scene.vary``).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, UInt8

from tvad.scenes.palette import COLOURS
from tvad.scenes.types import EVENTS, MOTIONS, PARTS, ActorTrack, Footage

MOTION_INDEX = {name: index for index, name in enumerate(MOTIONS)}
COLOUR_INDEX = {name: index for index, name in enumerate(COLOURS)}
NO_COLOUR = 255
DURATION, FPS = 12.0, 10.0
RARE_MOTIONS = ("picking_up", "putting_down", "falling", "lying", "jumping", "throwing")


@dataclass(frozen=True)
class Facts:
    """Facts of one frame pair on an ``h w`` patch grid; shares are in 1/255."""

    parts: UInt8[np.ndarray, "parts h w"]  # share of the patch that shows each of PARTS
    motions: UInt8[np.ndarray, "motions h w"]  # share covered by actors in each of MOTIONS
    velocity: Float[np.ndarray, "4 h w"]  # image motion x, y (pixels a frame), ground speed (m/s), log2 height (pixels)
    colours: UInt8[np.ndarray, "2 h w"]  # index of the top and the bottom colour word of the actor seen most


def pair_facts(footage: Footage, first: int, *, patch: int) -> Facts:
    """Facts of frames ``first`` and ``first + 1``; the shares are means over both frames."""
    pair = slice(first, first + 2)
    _, height, width = footage.instances[pair].shape
    h, w = height // patch, width // patch
    cell = (np.arange(height)[:, None] // patch) * w + np.arange(width)[None, :] // patch
    area = 2 * patch * patch

    def shares(labels: np.ndarray, kinds: int) -> np.ndarray:
        counts = np.bincount((cell[None] * kinds + labels).ravel(), minlength=h * w * kinds)
        return counts.reshape(h, w, kinds).transpose(2, 0, 1)

    instances = footage.instances[pair]
    ids = len(footage.actors) + 1
    seen = shares(instances, ids)
    motion_of = np.zeros((len(MOTIONS), ids), np.float32)
    numbers, colour_of = np.zeros((4, ids), np.float32), np.full((2, ids), NO_COLOUR, np.uint8)
    for actor in footage.actors:
        motion_of[MOTION_INDEX[actor.motion[first]], actor.id] = 1
        numbers[:, actor.id] = _numbers(actor, first, footage.fps)
        colour_of[:, actor.id] = [
            COLOUR_INDEX.get(word, NO_COLOUR) for word in (actor.appearance.top, actor.appearance.bottom)
        ]
    actors = seen[1:].sum(0)
    dominant = np.where(actors > 0, seen[1:].argmax(0) + 1 if ids > 1 else 0, 0)
    to_byte = 255 / area
    return Facts(
        parts=np.round(shares(footage.parts[pair], len(PARTS)) * to_byte).astype(np.uint8),
        motions=np.round(np.tensordot(motion_of, seen, 1) * to_byte).astype(np.uint8),
        velocity=numbers[:, dominant].astype(np.float16),
        colours=colour_of[:, dominant],
    )


def _numbers(actor: ActorTrack, frame: int, fps: float) -> tuple[float, float, float, float]:
    box = actor.box[frame]
    height = box[3] - box[1] + 1 if np.isfinite(box[0]) else 1.0
    speed = np.linalg.norm(actor.position[frame + 1] - actor.position[frame]) * fps
    return (*np.nan_to_num(actor.velocity[frame]), float(speed), float(np.log2(max(height, 1.0))))


def pairs(
    *, scenes: list[str], seed: int, patch: int, size: tuple[int, int] = (240, 360), per_cast: int = 8
) -> Iterator[tuple[UInt8[np.ndarray, "2 h w 3"], Facts]]:
    """An endless stream of frame pairs with their facts, decided by ``seed`` alone."""
    from tvad.scenes.render import render
    from tvad.scenes.script import cast
    from tvad.scenes.world import SCENES

    rng = np.random.default_rng(seed)
    while True:
        scene = SCENES[scenes[rng.integers(len(scenes))]]
        if rng.random() < 0.8:
            scene = scene.vary(np.random.default_rng(rng.integers(2**31)))
        for _ in range(3):  # painting a scene costs as much as a cast or a dozen frames
            happenings = tuple(rng.choice(EVENTS, size=rng.integers(1, 6), replace=False))
            number = int(rng.integers(2**31))
            actors = cast(scene, seed=number, duration=DURATION, events=happenings, density=float(rng.uniform(1.0, 14.0)))
            for moment in moments(actors, per_cast, rng):
                footage = render(scene, actors, frames=2, seed=number, size=size, start=moment)
                yield footage.frames, pair_facts(footage, 0, patch=patch)


def moments(actors, count: int, rng: np.random.Generator) -> list[int]:
    """Frames to look at, with more weight where a seldom thing happens, so that short events are met often enough."""
    last = int(DURATION * FPS) - 2
    weight = np.ones(last)
    for actor in actors:
        states = [actor.state(k / FPS) for k in range(last)]
        rare = np.array([state.present and (state.anomalous or state.motion in RARE_MOTIONS) for state in states])
        weight += 12 * rare / max(10, rare.sum()) * 10
    return rng.choice(last, size=count, replace=False, p=weight / weight.sum()).tolist()
