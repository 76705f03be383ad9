"""Walls of buildings: a flat picture with windows and doors, drawn in perspective."""

from __future__ import annotations

import cv2
import numpy as np
from jaxtyping import UInt8

from tvad.scenes.plans import Building
from tvad.scenes.texture import fill, noise, on_ground
from tvad.scenes.types import PART_INDEX
from tvad.scenes.world import Scene


def facade(building: Building, length: float) -> UInt8[np.ndarray, "h w 3"]:
    """Flat picture of a wall: courses, window rows with frames and sills, doors, a base and a cornice."""
    rng = np.random.default_rng(building.seed)
    scale = float(min(26.0, 2200.0 / max(length, 1.0)))
    height, width = max(8, int(building.height * scale)), max(8, int(length * scale))
    rows, columns = np.mgrid[0:height, 0:width].astype(np.float32) / scale
    factor = (
        1
        + 0.03 * noise(columns, rows, 1.5)
        + 0.025 * noise(columns, rows, 0.3, seed=9)
        - 0.05 * np.clip(noise(columns, rows * 0.12, 1.1), 0, 2)
    )
    if rng.random() < 0.5:
        factor -= 0.05 * ((rows % 0.3) < 0.05)
    picture = np.array(building.colour, np.float32) * factor[..., None]
    picture[rows > building.height - 0.7] *= 0.82
    picture[rows < 0.35] *= 1.1

    def rectangle(x0: float, z0: float, x1: float, z1: float, colour, *, blend: float = 1.0) -> None:
        top, bottom = int((building.height - z1) * scale), int((building.height - z0) * scale)
        left, right = int(x0 * scale), int(x1 * scale)
        if bottom > max(top, 0) and right > max(left, 0):
            spot = picture[max(top, 0) : bottom, max(left, 0) : right]
            spot += blend * (np.array(colour, np.float32) - spot)

    glass = np.array(building.glass, float)
    wide, tall = building.bay * rng.uniform(0.45, 0.7), building.storey * rng.uniform(0.42, 0.58)
    frame = np.array(building.colour) * rng.choice([1.25, 0.6])
    for storey in range(int(building.height / building.storey)):
        sill = storey * building.storey + 0.95
        for bay in range(int(length / building.bay)):
            x = (bay + 0.5) * building.bay
            if storey == 0 and any(abs(x - door * length) < 1.9 for door in building.doors):
                continue
            tone = glass * rng.uniform(0.7, 1.5)
            rectangle(x - wide / 2 - 0.08, sill - 0.08, x + wide / 2 + 0.08, sill + tall + 0.08, frame)
            rectangle(x - wide / 2, sill, x + wide / 2, sill + tall, tone)
            rectangle(x - wide / 2, sill + tall * 0.55, x + wide / 2, sill + tall, tone * 1.3 + 10, blend=0.6)
            rectangle(x - 0.03, sill, x + 0.03, sill + tall, frame)
            rectangle(
                x - wide / 2 - 0.12, sill - 0.18, x + wide / 2 + 0.12, sill - 0.08, np.array(building.colour) * 1.2
            )
    for door in building.doors:
        rectangle(door * length - 1.3, 0, door * length + 1.3, 2.7, np.array(building.colour) * 0.7)
        rectangle(door * length - 1.1, 0, door * length + 1.1, 2.45, glass * 0.6)
        rectangle(door * length - 0.03, 0, door * length + 0.03, 2.45, frame)
    return np.clip(picture, 0, 255).astype(np.uint8)


def wall(
    scene: Scene, building: Building, canvas: np.ndarray, labels: np.ndarray, identity: int, size: tuple[int, int]
) -> float:
    """Draw one building in place; returns the depth behind which actors are hidden by it."""
    camera, light = scene.camera, scene.lit
    start, end = np.array(building.start), np.array(building.end)
    ends = camera.project(on_ground([start, end]), size=size)[1]
    if ends.max() < 1.5:
        return -1.0
    if ends.min() < 1.5:  # cut the part beside or behind the camera
        share = (1.5 - ends[0]) / (ends[1] - ends[0])
        start, end = (start + share * (end - start), end) if ends[0] < 1.5 else (start, start + share * (end - start))
    length = float(np.linalg.norm(end - start))
    picture = facade(building, length)
    if start[0] > end[0]:
        picture = picture[:, ::-1]
    normal = np.array([-(end - start)[1], (end - start)[0]]) / length
    if normal @ (camera.position[:2] - start) < 0:
        normal = -normal
    sun = max(0.0, float(normal @ light.direction[:2]))
    middle = (start + end) / 2
    brightness = (0.86 + 0.3 * light.sun * sun - 0.08 * light.sun) * float(light.level(middle + normal))
    corners = np.array([[*start, building.height], [*end, building.height], [*end, 0], [*start, 0]])
    back = np.array([[*(end - 14 * normal), building.height], [*(start - 14 * normal), building.height]])
    mask = np.zeros(size, np.uint8)
    fill(mask, camera, np.concatenate([corners[:2], back]), 255, size)
    canvas[mask > 0] = np.array([118, 116, 114]) * brightness
    labels[mask > 0] = (identity, PART_INDEX["building"])
    pixels = camera.project(corners, size=size)[0].astype(np.float32) - 0.5
    h, w = picture.shape[:2]
    source = np.array([[0, 0], [w, 0], [w, h], [0, h]], np.float32) - 0.5
    matrix = cv2.getPerspectiveTransform(source, pixels)
    extent = (size[1], size[0])
    cover = cv2.warpPerspective(np.full((h, w), 255, np.uint8), matrix, extent, flags=cv2.INTER_NEAREST)
    shown = cv2.warpPerspective(picture, matrix, extent, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    canvas[cover > 0] = np.clip(shown[cover > 0] * brightness * np.array(light.tint), 0, 255)
    labels[cover > 0] = (identity, PART_INDEX["building"])
    return float(max(ends))
