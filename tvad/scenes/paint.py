"""The still picture of a scene: textured ground, facades, objects, light and shadows, with exact part labels.

Painted once a scene and size at twice the resolution and averaged down.  Every wall and object also becomes an
:class:`Occluder`, the pixels to put back over actors that stand behind it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
from jaxtyping import Bool, Float, UInt8

from tvad.scenes.camera import NEAR
from tvad.scenes.draw import Geometry, Grade, cast_shadows, flatten, outline, paint_outlines
from tvad.scenes.facade import wall
from tvad.scenes.texture import fill, noise, noise_tile, on_ground, texture
from tvad.scenes.types import PART_INDEX
from tvad.scenes.world import Scene

_FINE = 2  # supersampling of the still picture
_PLAIN = Grade(saturation=1.0)


@dataclass(frozen=True)
class Occluder:
    """What stands in front of actors farther than ``depth`` metres along the line of sight."""

    box: tuple[int, int, int, int]  # top, bottom, left, right
    mask: UInt8[np.ndarray, "b c"]  # 255 where it shows, within the box
    depth: float


@dataclass(frozen=True)
class Backdrop:
    """The still world: graded picture (one channel when grey), part labels, walkable mask, occluders far to near."""

    frame: UInt8[np.ndarray, "h w c"]
    labels: UInt8[np.ndarray, "h w 2"]  # instance (0) and part
    unshaded: UInt8[np.ndarray, "h w"]  # 255 where no shadow can fall: everything but the ground
    shade: Float[np.ndarray, "h w"]  # share of light that reaches the ground past still objects
    occluders: tuple[Occluder, ...]


def _ground(scene: Scene, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Colours, parts and ground points of the bare ground under a sky."""
    camera, plan = scene.camera, scene.plan
    rows, columns = np.mgrid[0 : size[0], 0 : size[1]] + 0.5
    xy = camera.ground(np.stack([columns, rows], -1), size=size)
    below = np.isfinite(xy[..., 0]) & (np.nan_to_num(xy[..., 1], nan=1e9) < 400)
    which = np.zeros(size, np.uint8)
    for index, area in enumerate(plan.areas[1:], 1):
        fill(which, camera, on_ground(area.outline), min(index, 255), size)
    distance = np.hypot(np.linalg.norm(np.nan_to_num(xy) - camera.position[:2], axis=-1), camera.height)
    foot = (distance / (camera.focal * size[0])).astype(np.float32)
    deep = foot * distance.astype(np.float32) / camera.height
    share = np.clip(rows / size[0] * 2.2, 0, 1)[..., None]
    colours = (np.array(plan.sky) * (1 - share) + np.minimum(np.array(plan.sky) * 1.1, 250) * share).astype(np.float32)
    parts = np.full(size, PART_INDEX["sky"], np.uint8)
    for index, area in enumerate(plan.areas):
        inside = below & (which == index)
        if inside.any():
            x, y = xy[inside, 0].astype(np.float32), xy[inside, 1].astype(np.float32)
            factor = texture(area, x, y, foot[inside], deep[inside], (scene.seed + 31 * index) % 9973)
            colours[inside] = np.array(area.colour, np.float32) * factor[:, None]
            parts[inside] = PART_INDEX[area.part]
    horizon = ~below & np.roll(below, -max(2, size[0] // 60), 0)
    colours[horizon] = np.array([92, 100, 88], np.float32)  # far trees hide the edge of the world
    parts[horizon] = PART_INDEX["tree"]
    return colours, parts, np.where(below[..., None], xy, 1e6)


def _litter(scene: Scene, colours: np.ndarray, parts: np.ndarray, size: tuple[int, int]) -> None:
    """Cracks, patches and fallen leaves, in place."""
    rng, camera = np.random.default_rng([scene.seed, 3]), scene.camera
    hard = np.isin(parts, [PART_INDEX["path"], PART_INDEX["road"]])
    dark = np.zeros(size, np.uint8)
    for _ in range(int(rng.integers(3, 9))):
        spot = camera.ground(rng.uniform(0.1, 0.9, 2) * size[::-1], size=size)
        if np.isfinite(spot).all():
            line = spot + np.cumsum(rng.normal(0, 0.35, (9, 2)) + rng.normal(0, 0.3, 2), 0)
            pixels = camera.project(on_ground(line), size=size)[0]
            cv2.polylines(dark, [np.round(pixels * 16).astype(np.int32)], False, 60, 1, cv2.LINE_AA, 4)
    for _ in range(int(rng.integers(1, 5))):  # damp or mended places
        spot = camera.ground(rng.uniform(0.1, 0.9, 2) * size[::-1], size=size)
        if np.isfinite(spot).all():
            turn = np.linspace(0, 6.28, 12)[:-1]
            ring = spot + np.stack([np.cos(turn), np.sin(turn)], 1) * rng.uniform(0.3, 1.0, (11, 1))
            fill(dark, camera, on_ground(ring), int(rng.integers(15, 40)), size)
    factor = 1 - cv2.GaussianBlur(dark, (0, 0), 0.8).astype(np.float32) / 255
    colours[hard] *= factor[hard][:, None]
    leaves = [thing.at for thing in scene.plan.things if thing.kind == "tree"]
    for at in leaves:
        spots = np.array(at) + rng.normal(0, 2.2, (40, 2))
        pixels, depth = camera.project(on_ground(spots), size=size)
        for (x, y), far, tone in zip(pixels, depth, rng.uniform(0.7, 1.3, 40)):
            if far > 1 and 1 <= x < size[1] - 1 and 1 <= y < size[0] - 1:
                colours[int(y), int(x)] = 0.5 * colours[int(y), int(x)] + 0.5 * tone * np.array(
                    [120, 96, 52], np.float32
                )


def _shadows(scene: Scene, geometry: Geometry, xy: np.ndarray, size: tuple[int, int]) -> Float[np.ndarray, "h w"]:
    """Factor of the light that reaches the ground past still objects and walls."""
    light, camera = scene.lit, scene.camera
    mask = np.zeros(size, np.uint8)
    sunny = light.sun > 0.15
    cast = cast_shadows(geometry, camera=camera, light=light, size=size)
    for polygons in cast:
        for polygon in polygons:
            cv2.fillConvexPoly(mask, polygon, 255, cv2.LINE_8, 4)
    if sunny:
        towards = -light.direction[:2] / max(light.direction[2], 0.2)
        for building in scene.plan.buildings:
            foot = np.array([building.start, building.end])
            fill(mask, camera, on_ground(np.concatenate([foot, (foot + towards * building.height)[::-1]])), 255, size)
    soft = cv2.GaussianBlur(mask, (0, 0), 1.2 if sunny else size[0] / 60).astype(np.float32) / 255
    crowns = np.zeros(size, np.uint8)  # specks of light come through the leaves
    for thing, polygons in zip(scene.plan.things, cast):
        if thing.kind == "tree":
            for polygon in polygons:
                cv2.fillConvexPoly(crowns, polygon, 1, cv2.LINE_8, 4)
    specks = noise(xy[..., 0], xy[..., 1], 0.35) > 0.9
    soft = np.where((crowns > 0) & specks, soft * 0.45, soft)
    return 1 - soft * (0.16 + 0.36 * light.sun)


def _glow(scene: Scene, canvas: np.ndarray, size: tuple[int, int]) -> None:
    """Burning lamp heads with a halo, in place."""
    halo = np.zeros(size, np.float32)
    for thing in scene.plan.things:
        if thing.kind == "pole":
            head = np.array(
                [
                    [
                        thing.at[0] + 0.7 * np.cos(thing.heading) * thing.size,
                        thing.at[1] + 0.7 * np.sin(thing.heading) * thing.size,
                        4.7 * thing.size,
                    ]
                ]
            )
            pixels, depth = scene.camera.project(head, size=size)
            if depth[0] > NEAR and np.abs(pixels).max() < 4000:
                radius = max(2, int(0.16 * scene.camera.focal * size[0] / depth[0]))
                cv2.circle(halo, tuple(int(value) for value in pixels[0]), radius, 1.0, -1, cv2.LINE_AA)
    wide = cv2.GaussianBlur(halo, (0, 0), size[0] / 40)
    strength = np.clip(halo + 2.2 * wide, 0, 1)[..., None]
    canvas[:] = np.clip(canvas + strength * (np.array([255, 246, 220], np.float32) - canvas), 0, 255).astype(np.uint8)


@lru_cache(maxsize=6)
def backdrop(scene: Scene, size: tuple[int, int]) -> Backdrop:
    """The still world of a scene at a frame size (height, width); remembered for the last few scenes."""
    large, camera, light = (size[0] * _FINE, size[1] * _FINE), scene.camera, scene.lit
    things = scene.plan.things
    geometry = flatten([thing.shapes() for thing in things])
    colours, parts, xy = _ground(scene, large)
    _litter(scene, colours, parts, large)
    solid = parts != PART_INDEX["sky"]
    reached = _shadows(scene, geometry, xy, large).astype(np.float32)
    level = (light.level(xy) * reached).astype(np.float32) * (1 - 0.05 * light.sun)
    colours *= np.where(solid, level, light.ambient**1.5)[..., None] * np.array(light.tint, np.float32)
    canvas = np.clip(colours, 0, 255).astype(np.uint8)
    labels = np.stack([np.zeros(large, np.uint8), parts], -1)
    depths: list[float] = []
    walls = sorted(scene.plan.buildings, key=lambda one: -max(one.start[1], one.end[1]))
    for identity, building in enumerate(walls, 1):
        depths.append(wall(scene, building, canvas, labels, identity, large))
    places = np.array([[*thing.at, 0.0] for thing in things]).reshape(-1, 3)
    depth = camera.project(places, size=large)[1]
    drawn = outline(geometry, places, camera=camera, light=light, grade=_PLAIN, size=large)
    for index in np.argsort(-depth):
        depths.append(float(depth[index] - things[index].reach))
        paint_outlines(drawn[index], canvas, labels, identity=len(depths))
    leafy = labels[..., 1] == PART_INDEX["tree"]
    grain = (
        cv2.resize(noise_tile(), large[::-1], interpolation=cv2.INTER_NEAREST)
        if large[0] > 256
        else noise_tile()[: large[0], :1]
    )
    canvas[leafy] = np.clip(canvas[leafy] * (1 + 0.12 * np.broadcast_to(grain, large)[leafy])[:, None], 0, 255).astype(
        np.uint8
    )
    if light.lamps:
        _glow(scene, canvas, large)
    small = cv2.resize(canvas, size[::-1], interpolation=cv2.INTER_AREA)
    frame = scene.grade(small.astype(np.float32)).round().astype(np.uint8)
    frame = np.ascontiguousarray(frame[..., :1] if scene.grade.grey else frame)
    labels = np.ascontiguousarray(labels[::_FINE, ::_FINE])
    occluders = _occluders(labels[..., 0], depths)
    labels[..., 0] = 0
    ground = np.isin(labels[..., 1], [PART_INDEX[name] for name in ("path", "grass", "road")])
    return Backdrop(frame, labels, np.where(ground, 0, 255).astype(np.uint8), reached[::_FINE, ::_FINE], occluders)


def _occluders(identity: UInt8[np.ndarray, "h w"], depths: list[float]) -> tuple[Occluder, ...]:
    """One occluder for every still object that shows, far to near."""
    found = []
    for index, depth in enumerate(depths, 1):
        mask: Bool[np.ndarray, "h w"] = identity == index
        if mask.any():
            left, top, width, height = cv2.boundingRect(mask.astype(np.uint8))
            box = (top, top + height, left, left + width)
            found.append(Occluder(box, mask[top : top + height, left : left + width].astype(np.uint8) * 255, depth))
    return tuple(sorted(found, key=lambda one: -one.depth))
