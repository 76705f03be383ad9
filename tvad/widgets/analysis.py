"""One video scored window by window, so that the first heatmap is there long before the last.

    analysis = Analysis(model, frames)
    while analysis.step(near=frame) is not None: ...        # the window at the play head first, then the others
    analysis.detection()                                    # equals model.detect(frames)

A query of the user's is a further *layer*: a map and scores of its own, from the features of windows already seen where
they are still kept, from a new pass of the tower elsewhere.  A window whose frames cannot be read is left out and kept in
``lost``.  Nothing here knows of widgets or threads.
"""
from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float32

from tvad.detection import Detection, Scoring, finish, top_mean
from tvad.errors import VideoError
from tvad.metrics.components import regions_from_heatmap
from tvad.metrics.frame import smooth
from tvad.metrics.region import Regions, link_tracks
from tvad.video.clip import Clip, Window, windows
from tvad.video.frames import Frames

ANOMALY = ""                # name of the general layer
FEATURE_BYTES = 384 << 20   # features of windows that are kept for later queries


@dataclass
class Layer:
    """A map of a video: ``heat`` (n, h, w) and ``raw`` (n,), sums over ``count`` windows; NaN until a window is scored."""

    scoring: Scoring
    meanings: tuple[Any, ...] = ()
    spans: set[Window] = field(default_factory=set)
    heat: Float32[np.ndarray, "n h w"] | None = None
    raw: Float[np.ndarray, "n"] | None = None
    count: np.ndarray | None = None

    def add(self, span: Window, maps: Float32[np.ndarray, "t h w"], *, frames: int, step: int) -> None:
        """Take over the maps of a window, one a temporal patch of ``step`` frames; ``frames``: of the whole video."""
        if self.heat is None:
            self.heat = np.zeros((frames, *maps.shape[1:]), np.float32)
            self.raw, self.count = np.zeros(frames), np.zeros(frames, np.int64)
        inside, length = slice(*span), span.length
        self.heat[inside] += np.repeat(maps, step, axis=0)[:length]
        self.raw[inside] += np.repeat(top_mean(maps, self.scoring.top_fraction), step)[:length]
        self.count[inside] += 1
        self.spans.add(span)


class Analysis:
    """A video being scored; ``detector`` is a :class:`tvad.detector.TVAD`.

    Raises nothing for footage that cannot be read: such windows are in ``lost``, with the reason.
    """

    def __init__(self, detector: Any, frames: Frames, *, name: str = "", feature_bytes: int = FEATURE_BYTES) -> None:
        self.detector, self.frames, self.name = detector, frames, name or frames.name
        scoring = detector.scoring
        self.spans = windows(len(frames), length=scoring.frames_per_clip, stride=scoring.stride)
        self.layers: dict[str, Layer] = {ANOMALY: Layer(scoring)}
        self.lost: dict[Window, str] = {}
        self._kept: OrderedDict[Window, Any] = OrderedDict()
        self._room = feature_bytes
        self._linked: dict[tuple[str, float], Regions] = {}

    def __len__(self) -> int:
        return len(self.frames)

    @property
    def missing(self) -> list[Window]:
        """Windows that some layer still wants, in order."""
        return [span for span in self.spans
                if span not in self.lost and any(span not in layer.spans for layer in list(self.layers.values()))]

    @property
    def complete(self) -> bool:
        """Whether every readable window is scored in every layer."""
        return not self.missing

    @property
    def progress(self) -> float:
        """Share of the windows that are done or lost, 0 to 1."""
        return 1 - len(self.missing) / max(1, len(self.spans))

    def span_at(self, frame: int) -> Window:
        """The window that shows a frame; of two the later."""
        return next(span for span in reversed(self.spans) if span.start <= frame < span.stop)

    def step(self, *, near: int = 0) -> Window | None:
        """Score the next window: the one that shows frame ``near``, else the first behind it, else the first of all.

        Returns the window, None where nothing is left.
        """
        missing = self.missing
        if not missing:
            return None
        span = next((span for span in missing if span.stop > near), missing[0])
        sight = self._see(span)
        if sight is None:
            return span
        for name, layer in list(self.layers.items()):      # a query may be taken away meanwhile
            if span not in layer.spans:
                self._fill(name, layer, span, sight)
        self._linked.clear()
        return span

    def listen(self, query: str) -> Layer:
        """Add the layer of a query; its maps of windows already seen are there at once, the others come with ``step``.

        Raises :class:`tvad.errors.ParameterError` for words without meaning, :class:`tvad.errors.CheckpointError` for a
        detector without a decoder of query heatmaps; the layers then stay as they were.
        """
        if query in self.layers:
            return self.layers[query]
        listener = self.detector._listener()
        layer = Layer(self.detector.query_scoring, meanings=listener.understand([query], self.detector.backbone)[0])
        # Windows are those of the general layer, so that one pass serves all.
        for span, sight in list(self._kept.items()):
            self._fill(query, layer, span, sight)
        self.layers[query] = layer
        return layer

    def forget(self, query: str) -> None:
        """Take a query's layer away."""
        if query != ANOMALY:
            self.layers.pop(query, None)

    def heat(self, frame: int, layer: str = ANOMALY) -> Float32[np.ndarray, "h w"] | None:
        """The map of one frame, None where it is not scored yet."""
        one = self.layers[layer]
        if one.count is None or not one.count[frame]:
            return None
        return one.heat[frame] / np.float32(one.count[frame])

    def scores(self, layer: str = ANOMALY, *, smoothed: bool = True) -> Float32[np.ndarray, "n"]:
        """Scores of all frames, NaN where not scored yet; every scored stretch is smoothed by itself until all are."""
        one = self.layers[layer]
        out = np.full(len(self), np.nan, np.float32)
        if one.count is None:
            return out
        done = one.count > 0
        raw = np.divide(one.raw, one.count, out=np.full(len(self), np.nan), where=done).astype(np.float32)
        for start, stop in runs(done):
            part = raw[start:stop]
            out[start:stop] = smooth([part], one.scoring.sigma)[0] if smoothed else part
        return out

    def boxes(self, frame: int, threshold: float, layer: str = ANOMALY) -> Regions:
        """Regions of one frame where the heat exceeds ``threshold``, in pixels; with tracks once the video is scored."""
        if self.complete and not self.lost:
            return at_frame(self.regions(threshold, layer), frame)
        heat = self.heat(frame, layer)
        if heat is None:
            return Regions.empty()
        found = self._components(heat[None], threshold, self.layers[layer].scoring)
        return replace(found, frame=np.full_like(found.frame, frame))

    def regions(self, threshold: float, layer: str = ANOMALY) -> Regions:
        """Regions of all scored frames at one threshold, linked into tracks."""
        key = (layer, round(float(threshold), 4))
        if key not in self._linked:
            one = self.layers[layer]
            if one.count is None:
                return Regions.empty()
            heat = one.heat / np.maximum(one.count, 1)[:, None, None].astype(np.float32)
            self._linked[key] = link_tracks(self._components(heat, threshold, one.scoring))
        return self._linked[key]

    def detection(self, layer: str = ANOMALY) -> Detection:
        """The finished result, as ``detector.detect`` gives it; frames that could not be read score 0."""
        one = self.layers[layer]
        count = np.maximum(one.count, 1)
        raw = (one.raw / count).astype(np.float32)
        heat = one.heat / count[:, None, None].astype(np.float32)
        return finish(self.name, raw, heat, size=tuple(self.frames.size), scoring=one.scoring)

    def _components(self, heat: Float32[np.ndarray, "n h w"], threshold: float, scoring: Scoring) -> Regions:
        scale = self.frames.size[0] / heat.shape[1], self.frames.size[1] / heat.shape[2]
        return regions_from_heatmap(heat, thresholds=(threshold,), min_area=scoring.min_area, scale=scale,
                                    score=scoring.region_score)

    def _see(self, span: Window) -> Any:
        if span in self._kept:
            return self._kept[span]
        try:
            pictures = self.frames.read(*span)
        except VideoError as error:
            self.lost[span] = str(error)
            return None
        sight = self.detector.see(Clip(pictures, self.frames.fps, span.start, self.name))
        self._kept[span] = sight
        size = sum(tap.numel() * tap.element_size() for tap in sight.taps)
        while len(self._kept) > max(1, self._room // max(1, size)):
            self._kept.popitem(last=False)
        return sight

    @torch.inference_mode()
    def _fill(self, name: str, layer: Layer, span: Window, sight: Any) -> None:
        if name == ANOMALY:
            maps = self.detector.heatmap(sight)
        else:
            listener = self.detector.queries
            maps = listener.maps(sight.taps, [layer.meanings], listener.book(self.detector.backbone))[0]
        layer.add(span, maps.float().cpu().numpy(), frames=len(self),
                  step=getattr(self.detector.backbone, "temporal_patch_size", 2))


def at_frame(regions: Regions, frame: int) -> Regions:
    """The regions of one frame."""
    return at_frames(regions, frame, frame)


def at_frames(regions: Regions, first: int, last: int) -> Regions:
    """The regions of frames ``first`` to ``last``, both inclusive."""
    chosen = (regions.frame >= first) & (regions.frame <= last)
    return Regions(frame=regions.frame[chosen], box=regions.box[chosen], score=regions.score[chosen],
                   track=regions.track[chosen])


def runs(mask: np.ndarray) -> list[tuple[int, int]]:
    """Half-open stretches of a boolean array in which it is true."""
    edges = np.flatnonzero(np.diff(np.r_[False, np.asarray(mask, bool), False].astype(np.int8)))
    return [(int(start), int(stop)) for start, stop in edges.reshape(-1, 2)]
