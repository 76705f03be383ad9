"""From a scene and its actors to footage: frames with exact instance and part labels, and one track an actor."""

from __future__ import annotations

from typing import Iterator, Sequence

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from tvad.errors import ParameterError
from tvad.scenes.camera import DEFAULT_SIZE
from tvad.scenes.draw import SHIFT, Outlines, cast_shadows, flatten, outline, paint_outlines, region
from tvad.scenes.paint import Backdrop, backdrop
from tvad.scenes.sensor import Exposure
from tvad.scenes.types import Actor, ActorState, ActorTrack, Footage
from tvad.scenes.world import SCENES, Scene

_CHUNK = 16  # frames whose geometry is computed in one pass
_REACH = 4.0  # metres around its ground point within which an actor stays
_MIDDLE = 0.9  # metres above ground: the point whose motion is an actor's


class _Record:
    """Truth that is gathered while drawing: (n, actors) arrays."""

    def __init__(self, frames: int, actors: int) -> None:
        self.own = np.zeros((frames, actors), np.int64)
        self.shown = np.zeros((frames, actors), np.int64)
        self.box = np.full((frames, actors, 4), np.nan)
        self.position = np.full((frames + 1, actors, 3), np.nan)
        self.anomalous = np.zeros((frames, actors), bool)
        self.motion = np.full((frames, actors), "", object)


class _Renderer:
    """Draws the frames of one footage in chunks."""

    def __init__(
        self,
        scene: Scene,
        actors: Sequence[Actor],
        *,
        frames: int,
        fps: float,
        seed: int,
        size: tuple[int, int],
        start: int,
    ) -> None:
        if len(actors) > 254:
            raise ParameterError(f"{scene.name}: {len(actors)} actors do not fit 8-bit labels; give at most 254")
        if frames < 1 or fps <= 0:
            raise ParameterError(
                f"{scene.name}: frames={frames}, fps={fps}; give at least one frame and a positive rate"
            )
        self.scene, self.actors, self.count, self.fps, self.size, self.start = scene, actors, frames, fps, size, start
        self.back: Backdrop = backdrop(scene, size)
        self.exposure = Exposure(
            scene.sensor, seed=seed, frames=start + frames, size=size, channels=self.back.frame.shape[2]
        )
        self.record = _Record(frames, len(actors))
        self.dark = 255 * (1 - (0.2 + 0.34 * scene.lit.sun))

    def states(self, index: int) -> list[ActorState]:
        time = (self.start + index) / self.fps
        return [actor.state(time) for actor in self.actors]

    def chunk(self, begin: int, end: int, frames: np.ndarray, instances: np.ndarray, parts: np.ndarray) -> None:
        """Draw frames ``begin`` to ``end`` (exclusive) into the first rows of the three arrays."""
        record, groups, owners, centres = self.record, [], [], []
        for index in range(begin, end):
            states = self.states(index)
            for row, state in enumerate(states):
                record.position[index, row] = state.position
                record.motion[index, row] = state.motion
                record.anomalous[index, row] = state.anomalous and state.present
            near = self._near(record.position[index])
            for row in np.flatnonzero(near):
                if states[row].present:
                    groups.append(self.actors[row].shapes(states[row]))
                    owners.append((index, int(row)))
                    centres.append(states[row].position)
        middle = np.array(centres, float).reshape(-1, 3)
        look = {"camera": self.scene.camera, "light": self.scene.lit, "size": self.size}
        shapes = flatten(groups)
        drawn = outline(shapes, middle, grade=self.scene.grade, shade=self._shade(middle), **look)
        shadows = cast_shadows(shapes, **look)
        depth = self.scene.camera.project(middle, size=self.size)[1] if len(middle) else np.zeros(0)
        by_frame: list[list[int]] = [[] for _ in range(end - begin)]
        for place in np.argsort(-depth, kind="stable"):
            by_frame[owners[place][0] - begin].append(int(place))
        for index in range(begin, end):
            cast = [(owners[place][1], float(depth[place]), drawn[place]) for place in by_frame[index - begin]]
            frame, labels = self._draw(index, cast, [shadows[place] for place in by_frame[index - begin]])
            row = index - begin
            frames[row], instances[row], parts[row] = frame, labels[..., 0], labels[..., 1]

    def _shade(self, places: Float[np.ndarray, "g 3"]) -> Float[np.ndarray, "g"]:
        """The share of light at ground points, looked up in the backdrop; the nearest border pixel if outside."""
        pixels = np.floor(self.scene.camera.project(places * (1, 1, 0), size=self.size)[0])
        columns, rows = np.clip(pixels, 0, np.array(self.size[::-1]) - 1).astype(int).T
        return self.back.shade[rows, columns]

    def _near(self, positions: Float[np.ndarray, "a 3"]) -> np.ndarray:
        """Which actors may touch the picture."""
        if not len(positions):
            return np.zeros(0, bool)
        pixels, depth = self.scene.camera.project(positions, size=self.size)
        reach = _REACH * self.scene.camera.focal * self.size[0] / np.maximum(depth, 0.5)
        x, y = pixels.T
        return (depth > 0.5) & (x > -reach) & (x < self.size[1] + reach) & (y > -reach) & (y < self.size[0] + reach)

    def _draw(self, index: int, cast: list[tuple[int, float, Outlines]], shadows: list[list[np.ndarray]]):
        back = self.back
        frame, labels = self._shaded(shadows), back.labels.copy()
        drawn: list[tuple[int, int, int, int]] = []
        boxes: list[tuple[int, tuple[int, int, int, int]]] = []
        waiting = list(back.occluders)
        for row, depth, outlines in cast:
            place = region(outlines, size=self.size)
            if place is None:
                continue
            while waiting and waiting[0].depth > depth:
                self._cover(waiting.pop(0), drawn, frame, labels)
            paint_outlines(outlines, frame, labels, identity=row + 1)
            top, bottom, left, right = place
            self.record.own[index, row] = cv2.countNonZero(
                cv2.inRange(labels[top:bottom, left:right, 0], row + 1, row + 1)
            )
            drawn.append(place)
            boxes.append((row, place))
        for occluder in waiting:
            self._cover(occluder, drawn, frame, labels)
        frame, labels = self.exposure.move(self.start + index, frame, labels)
        for row, (top, bottom, left, right) in boxes:
            top, left = max(top - 1, 0), max(left - 1, 0)
            mask = cv2.inRange(labels[top : bottom + 1, left : right + 1, 0], row + 1, row + 1)
            x, y, width, height = cv2.boundingRect(mask)
            if width:
                self.record.shown[index, row] = cv2.countNonZero(mask)
                self.record.box[index, row] = (left + x, top + y, left + x + width - 1, top + y + height - 1)
        return self.exposure.expose(self.start + index, frame), labels

    def _shaded(self, shadows: list[list[np.ndarray]]) -> np.ndarray:
        """A copy of the backdrop with the actors' soft shadows on the ground."""
        light = np.full(self.size, 255, np.uint8)
        for polygons in shadows:
            for polygon in polygons:
                cv2.fillConvexPoly(light, polygon, self.dark, cv2.LINE_8, SHIFT)
        light = cv2.max(cv2.blur(light, (3, 3)), self.back.unshaded)
        if self.back.frame.shape[2] == 1:
            return cv2.multiply(self.back.frame[..., 0], light, scale=1 / 255)[..., None]
        return cv2.multiply(self.back.frame, cv2.cvtColor(light, cv2.COLOR_GRAY2BGR), scale=1 / 255)

    def _cover(self, occluder, drawn: list[tuple[int, int, int, int]], frame: np.ndarray, labels: np.ndarray) -> None:
        """Put an occluder back over the actors drawn so far."""
        t, b, start, stop = occluder.box
        for top, bottom, left, right in drawn:
            y0, y1, x0, x1 = max(t, top), min(b, bottom), max(start, left), min(stop, right)
            if y0 < y1 and x0 < x1:
                mask, spot = occluder.mask[y0 - t : y1 - t, x0 - start : x1 - start], np.s_[y0:y1, x0:x1]
                cv2.copyTo(self.back.frame[spot], mask, frame[spot])
                cv2.copyTo(self.back.labels[spot], mask, labels[spot])

    def tracks(self) -> tuple[ActorTrack, ...]:
        """Tracks of all actors; call after the last chunk."""
        record = self.record
        for row, state in enumerate(self.states(self.count)):
            record.position[self.count, row] = state.position
        middle = record.position + np.array([0, 0, _MIDDLE])
        pixels, depth = self.scene.camera.project(middle, size=self.size)
        motion = np.where((np.minimum(depth[1:], depth[:-1]) > 0.5)[..., None], np.diff(pixels, axis=0), 0.0)
        present = record.shown > 0
        visible = np.where(present, np.minimum(1.0, record.shown / np.maximum(record.own, 1)), 0.0)
        return tuple(
            ActorTrack(
                id=row + 1,
                kind=actor.kind,
                event=actor.event,
                appearance=actor.appearance,
                present=present[:, row],
                anomalous=record.anomalous[:, row],
                box=record.box[:, row].astype(np.float32),
                position=record.position[:-1, row],
                velocity=motion[:, row].astype(np.float32),
                motion=tuple(record.motion[:, row]),
                visible=visible[:, row].astype(np.float32),
            )
            for row, actor in enumerate(self.actors)
        )


def render(
    scene: Scene,
    actors: Sequence[Actor],
    *,
    frames: int,
    fps: float = 10.0,
    seed: int,
    size: tuple[int, int] = DEFAULT_SIZE,
    start: int = 0,
) -> Footage:
    """Frames ``start`` to ``start + frames`` of a scene with actors, at ``fps`` and ``size`` (height, width).

    ``visible`` of a track is the share of an actor's pixels within the picture that nothing covers.  ``velocity`` is
    the motion to the next frame.  Raises :class:`ParameterError` for more than 254 actors.
    """
    renderer = _Renderer(scene, actors, frames=frames, fps=fps, seed=seed, size=size, start=start)
    pictures = np.empty((frames, *size, 3), np.uint8)
    instances, parts = np.empty((frames, *size), np.uint8), np.empty((frames, *size), np.uint8)
    for begin in range(0, frames, _CHUNK):
        end = min(begin + _CHUNK, frames)
        renderer.chunk(begin, end, pictures[begin:end], instances[begin:end], parts[begin:end])
    return Footage(pictures, instances, parts, fps, scene.name, seed, renderer.tracks())


def stream(
    scene: Scene,
    actors: Sequence[Actor],
    *,
    frames: int,
    fps: float = 10.0,
    seed: int,
    size: tuple[int, int] = DEFAULT_SIZE,
) -> Iterator[UInt8[np.ndarray, "m h w 3"]]:
    """The pictures of :func:`render` in chunks of at most 16 frames, with little memory."""
    renderer = _Renderer(scene, actors, frames=frames, fps=fps, seed=seed, size=size, start=0)
    for begin in range(0, frames, _CHUNK):
        end = min(begin + _CHUNK, frames)
        pictures = np.empty((end - begin, *size, 3), np.uint8)
        labels = np.empty((2, end - begin, *size), np.uint8)
        renderer.chunk(begin, end, pictures, labels[0], labels[1])
        yield pictures


def make_footage(
    scene: str | Scene,
    seed: int,
    *,
    frames: int = 160,
    events: Sequence[str] = (),
    density: float | None = None,
    fps: float = 10.0,
    size: tuple[int, int] = DEFAULT_SIZE,
) -> Footage:
    """Footage of a scene (by name or as an object) with a cast of people and the named events.

    ``density`` scales the number of people; None draws it from the seed.  Same arguments, same bytes.
    """
    from tvad.scenes.script import cast

    place = _named(scene) if isinstance(scene, str) else scene
    actors = cast(place, seed=seed, duration=frames / fps, events=tuple(events), density=density)
    return render(place, actors, frames=frames, fps=fps, seed=seed, size=size)


def _named(name: str) -> Scene:
    if name not in SCENES:
        raise ParameterError(f"unknown scene {name!r}; known: {', '.join(SCENES)}")
    return SCENES[name]
