"""How the camera sees people: tones, colour, softness and shadow, measured on single people of the footage.

Blur and sharpening are found by trial: simulated people are drawn at the same places, and the point spread is kept whose
edges are as steep, and as fine, as those of the real ones.
"""
from __future__ import annotations

from dataclasses import replace
from typing import Sequence

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from tvad.scenes.actors import pedestrian, stroll
from tvad.scenes.composite.backdrop import Background, Blob
from tvad.scenes.composite.site import Look, Site
from tvad.scenes.composite.stamp import Stamp, draw_stamps, spread
from tvad.scenes.composite.sun import find_sun, shadow_mask
from tvad.scenes.tracks import Path
from tvad.video.frames import Frames

QUANTILES = (0.03, 0.15, 0.3, 0.5, 0.7, 0.85, 0.97)
BLURS = (0.3, 0.5, 0.7, 0.9, 1.2, 1.6, 2.2)
SHARPENS = (0.0, 0.4, 0.8)
_MOST = 80   # people looked at
_SATURATIONS = (0.02, 1.5)   # least and largest that pasted people are given
Spot = tuple[int, int, Blob]  # video, frame, blob


def measure_look(site: Site, videos: Sequence[Frames], backs: Sequence[Background], people: Sequence[Spot]) -> Look:
    """The :class:`Look` of a site from single people in its footage; what cannot be measured stays as ``site.look``."""
    look = replace(site.look, grey=all(_colourless(back.pictures) for back in backs))
    places = np.unique(np.linspace(0, len(people) - 1, min(_MOST, len(people))).round().astype(int)) if people else []
    chosen = [people[place] for place in places]
    if len(chosen) < 8:
        return look
    real = [_cut(videos[video], backs[video], index, blob) for video, index, blob in chosen]
    simulated = _simulate(site, look, [blob for _, _, blob in chosen])
    levels = np.concatenate([luma[inner] for luma, _, inner, _ in real])
    if levels.size < 200 or not simulated:
        return look
    drawn = [stamp.colour[stamp.alpha > 0.9] for stamp in simulated]
    if not look.grey:
        # Means: garments are either colourless or strong, and a median near zero says nothing of the strong ones.
        wanted = float(np.mean(np.concatenate([chroma for *_, chroma in real])))
        chroma = float(np.mean(np.concatenate([np.ptp(values, axis=1) for values in drawn])))
        look = replace(look, saturation=float(np.clip(look.saturation * wanted / max(chroma, 1.0), *_SATURATIONS)))
    flat = np.concatenate([_luma(values[None])[0] for values in drawn if len(values)])
    bright = float(np.quantile(np.concatenate([back.pictures[0][::5, ::5].ravel() for back in backs]), 0.995))
    look = replace(look, tones=tone_table(flat, levels, ceiling=max(bright, float(np.quantile(levels, 0.995)))),
                   measured=int(levels.size), shadow=_shadow(videos, backs, chosen))
    if look.cast is not None:
        look = replace(look, sun=_sun(site, videos, backs, chosen), shadow=look.cast)
    blur, sharpen = _softness(replace(site, look=look), look, real, [blob for _, _, blob in chosen])
    return replace(look, blur=blur, sharpen=sharpen)


def tone_table(simulated: Float[np.ndarray, "n"], real: Float[np.ndarray, "m"], *,
               ceiling: float) -> UInt8[np.ndarray, "256"]:
    """Levels (256) that give simulated brightness the distribution of the real: quantiles matched, straight in between.

    Beyond the outer quantiles the overall slope goes on, up to ``ceiling``, the brightest that the footage shows.
    """
    source, target = np.quantile(simulated, QUANTILES), np.quantile(real, QUANTILES)
    slope = float(np.clip((target[-1] - target[0]) / max(source[-1] - source[0], 1.0), 0.2, 1.5))
    straight = target[3] + slope * (source - source[3])
    target = np.maximum.accumulate(0.7 * target + 0.3 * straight)  # a few dozen people do not fix every bend
    grid = np.arange(256, dtype=float)
    table = np.interp(grid, source + 1e-3 * np.arange(len(source)), target)
    table = np.where(grid < source[0], target[0] - slope * (source[0] - grid), table)
    table = np.where(grid > source[-1], target[-1] + slope * (grid - source[-1]), table)
    return np.clip(table, 2, max(ceiling, target[-1])).round().astype(np.uint8)


def _colourless(pictures: UInt8[np.ndarray, "b h w 3"]) -> bool:
    few = pictures[:, ::4, ::4].astype(np.int16)
    return bool(np.quantile(np.ptp(few, axis=-1), 0.95) <= 4)


def _luma(colours: Float[np.ndarray, "h w c"]) -> Float[np.ndarray, "h w"]:
    return colours[..., 0] if colours.shape[-1] == 1 else colours @ np.array([0.299, 0.587, 0.114], np.float32)


def _cut(frames: Frames, back: Background, index: int, blob: Blob):
    """Luma and difference layer of one real person with a margin, its inner mask, and the chroma of the pixels in it."""
    frame = frames.read(index, index + 1)[0]
    rows = slice(max(0, blob.top - 4), blob.bottom + 4)
    columns = slice(max(0, blob.left - 4), blob.right + 4)
    mask = back.foreground(frame, index)[rows, columns]
    inner = cv2.erode(mask, np.ones((3, 3), np.uint8)) > 0
    patch = frame[rows, columns].astype(np.float32)
    luma = _luma(patch)
    layer = luma - _luma(back.at(index)[rows, columns].astype(np.float32))
    return luma, layer, inner, np.ptp(patch[inner], axis=1)


def _simulate(site: Site, look: Look, places: Sequence[Blob], *, seed: int = 5) -> list[Stamp]:
    """Simulated walkers with their feet where the real people's were; colours are those before any tone table."""
    rng = np.random.default_rng([seed, 33])
    groups, centres = [], []
    for blob in places:
        spot = site.camera.ground(np.array(blob.foot), size=site.size)
        if not np.isfinite(spot).all():
            continue
        place = site.place(rng, near=spot)
        path = Path(place.paths()[0])
        walker = stroll(rng, path, pedestrian(rng).put_umbrella_away(), enter=-2.0, duration=0.2, speed=1.3,
                        span=(0.0, path.length))
        state = walker.state(0.05)
        shapes = walker.shapes(replace(state, position=np.array([*spot, 0.0])))
        groups.append(shapes)
        centres.append([*spot, 0.0])
    bare = replace(look, tones=np.arange(256, dtype=np.uint8)) if look.measured == 0 else look
    found = draw_stamps(groups, np.array(centres).reshape(-1, 3), camera=site.camera, size=site.size, look=bare,
                        seeds=range(1, len(groups) + 1))
    return [stamp for stamp in found if stamp is not None and stamp.alpha.max() > 0.9]


def _fineness(layers: Sequence[Float[np.ndarray, "h w"]]) -> Float[np.ndarray, "2"]:
    """Median steepness and curvature of difference layers, both relative to the layer's own spread."""
    found = []
    for layer in layers:
        scale = float(np.sqrt(np.mean(layer**2))) + 1e-3
        steep = np.hypot(np.diff(layer, axis=0)[:, :-1], np.diff(layer, axis=1)[:-1])
        bend = cv2.Laplacian(np.ascontiguousarray(layer, np.float32), cv2.CV_32F)
        found.append((np.sqrt(np.mean(steep**2)) / scale, np.sqrt(np.mean(bend**2)) / scale))
    return np.median(np.array(found), axis=0)


def _softness(site: Site, look: Look, real, places: Sequence[Blob]) -> tuple[float, float]:
    """Blur and sharpening whose simulated people are as fine as the real ones."""
    wanted = _fineness([layer for _, layer, _, _ in real])
    stamps = _simulate(site, look, places)
    grounds = float(np.median([np.median(luma - layer) for luma, layer, _, _ in real]))
    rng = np.random.default_rng(34)
    layers = [_luma(stamp.colour) - grounds * stamp.alpha for stamp in stamps]
    grain = [rng.standard_normal(layer.shape).astype(np.float32) * look.noise for layer in layers]
    best, least = (look.blur, look.sharpen), np.inf
    for sharpen in SHARPENS:
        for blur in BLURS:
            trial = replace(look, blur=blur, sharpen=sharpen)
            got = _fineness([spread(layer, trial) + noise for layer, noise in zip(layers, grain)])
            # Of nearly equal fits the one with less sharpening, which is the rarer camera.
            misfit = float(np.sum(np.log(got / wanted) ** 2)) + 0.004 * sharpen
            if misfit < least:
                best, least = (blur, sharpen), misfit
    return best


def _sun(site: Site, videos: Sequence[Frames], backs: Sequence[Background], people: Sequence[Spot]) -> tuple[float, float]:
    """Where the sun stands, by the shadows around single people."""
    spots, shadows = [], []
    for video, index, blob in people[::2]:
        spot = site.camera.ground(np.array(blob.foot), size=site.size)
        if not np.isfinite(spot).all():
            continue
        seen = shadow_mask(videos[video].read(index, index + 1)[0], backs[video].at(index), backs[video].shadow)
        near, reach = np.zeros_like(seen), 2 * blob.height
        rows = slice(max(0, blob.bottom - reach), blob.bottom + reach)
        columns = slice(max(0, blob.left - reach), blob.right + reach)
        near[rows, columns] = seen[rows, columns]
        spots.append(spot)
        shadows.append(near)
    return find_sun(np.array(spots).reshape(-1, 2), shadows, camera=site.camera, size=site.size)


def _shadow(videos: Sequence[Frames], backs: Sequence[Background], people: Sequence[Spot]) -> float:
    """Light left on the ground right beneath people's feet, as a share: the darker half of a low, wide band there."""
    shares = []
    for video, index, blob in people:
        frame, back = videos[video].read(index, index + 1)[0], backs[video].at(index)
        tall = blob.height
        rows = slice(max(0, blob.bottom - max(1, round(0.03 * tall))), blob.bottom + max(2, round(0.07 * tall)))
        columns = slice(max(0, blob.left), blob.right)
        now, then = (picture[rows, columns].mean(-1).astype(np.float32) for picture in (frame, back))
        if now.size:
            ratio = now / np.maximum(then, 8.0)
            shares.append(float(np.quantile(np.minimum(ratio, 1.0), 0.35)))
    return float(np.clip(np.median(shares), 0.55, 1.0)) if shares else 0.85
