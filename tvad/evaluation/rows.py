"""From detections and annotation to result rows; no model runs here.  All rows carry bootstrap intervals over videos.

Frame metrics appear twice: smoothed with the sigma fixed on validation (``sigma`` > 0, ``choice`` fixed) and raw
(``sigma`` 0).  A ``micro_auc`` row with an ``event`` compares the frames of that event with all normal frames.
"""
from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from typing import Any, Callable, Mapping, Sequence

import numpy as np
from jaxtyping import Bool, Float, UInt8

from tvad.detection import Detection
from tvad.errors import DatasetError
from tvad.metrics import (
    GroundTruthTracks,
    MetricError,
    Regions,
    aupro,
    average_precision,
    bootstrap,
    bootstrap_regions,
    event_auc,
    macro_auc,
    micro_auc,
    pixel_auroc,
)
from tvad.metrics.pixel import fitted
from tvad.record import Row, commit

_LOG = logging.getLogger(__name__)
_HELD_MASK_BYTES = 1 << 30


@dataclass(frozen=True)
class Cell:
    """What the rows of one evaluation share: one cell of a results table."""
    variant: str
    dataset: str
    split: str
    protocol: str
    seed: int
    config: str
    sigma: float
    system: str = "t-vad"
    samples: int = 1000
    choice: str = "fixed"       # "in-sample" where smoothing and thresholds were chosen on these very videos

    def row(self, metric: str, n: int, interval: Any, **more: Any) -> Row:
        """A row from an interval, from a bare value where no interval can be had, or from None: undefined."""
        value = dict.fromkeys(("value", "ci_low", "ci_high"))
        if isinstance(interval, float):
            value["value"] = interval
        elif interval is not None:
            # Sums of floats may leave [0, 1] by rounding.
            ends = (min(1.0, max(0.0, end)) for end in (interval.value, interval.low, interval.high))
            value = dict(zip(value, ends))
        return Row(system=self.system, variant=self.variant, dataset=self.dataset, split=self.split,
                   protocol=self.protocol, metric=metric, n=n, seed=self.seed, config=self.config, commit=commit(),
                   **value, **more)


@dataclass(frozen=True, eq=False)
class _Input:
    """One video as the metrics want it; ``keep`` has been applied to all of it."""
    name: str
    raw: Float[np.ndarray, "n"]
    smoothed: Float[np.ndarray, "n"]
    labels: UInt8[np.ndarray, "n"]
    spans: Mapping[str, Bool[np.ndarray, "n"]]
    heat: Float[np.ndarray, "n h w"] | None
    masks: Any
    regions: Regions
    tracks: GroundTruthTracks | None


def evaluate(detections: Mapping[str, Detection], videos: Sequence[Any], cell: Cell) -> list[Row]:
    """All rows of one system on one split: micro and macro AUC, AP, pixel AUROC, AUPRO, RBDC, TBDC, each event's AUC.

    Metrics whose annotation the data set lacks are left out, and videos without it where others have it; a metric that
    is undefined becomes a row without value.
    Raises :class:`DatasetError` when a video has no detection, no labels, or another number of frames.
    """
    inputs = [_input(detections, video) for video in videos]
    return [*_frame_rows(inputs, cell), *_event_rows(inputs, cell), *_pixel_rows(inputs, cell),
            *_region_rows(inputs, cell)]


def evaluate_events(detections: Mapping[str, Detection], videos: Sequence[Any], cell: Cell, *, kinds: Sequence[str],
                    name: str) -> list[Row]:
    """The same metrics for some kinds of event alone, as rows with ``event`` = ``name``.

    Frames that hold a target of any other kind are left out; all normal frames stay.
    """
    inputs = []
    for video in videos:
        whole = _input(detections, video)
        wanted = np.zeros(len(whole.labels), bool)
        others = np.zeros(len(whole.labels), bool)
        for kind, inside in whole.spans.items():
            (wanted if kind in kinds else others)[inside] = True
        keep = np.where(whole.labels == 1, wanted & ~others, True)
        if keep.any():  # macro AUC would count a video without frames as perfect
            inputs.append(_restrict(whole, keep))
    rows = [*_frame_rows(inputs, cell), *_pixel_rows(inputs, cell), *_region_rows(inputs, cell)]
    return [replace(row, event=name) for row in rows]


def _input(detections: Mapping[str, Detection], video: Any) -> _Input:
    found = detections.get(video.id)
    if found is None:
        raise DatasetError(f"{video.id}: no detection of this video; score the data set first")
    if video.labels is None or len(video.labels) != len(found.raw_scores):
        count = "no" if video.labels is None else len(video.labels)
        raise DatasetError(f"{video.id}: {count} frame labels for {len(found.raw_scores)} scores; "
                           "evaluate a split with annotation, with the frames it was scored on")
    n = len(video.labels)
    spans: dict[str, np.ndarray] = {}
    for event in video.events:
        spans.setdefault(event.kind, np.zeros(n, bool))[event.start:event.stop] = True
    masks = (lambda: np.asarray(video.masks(0, n))) if video.masks is not None else None
    if masks is None and not np.asarray(video.labels).any():
        def masks() -> np.ndarray:
            return np.zeros((n, *found.size), np.uint8)
    return _Input(video.id, found.raw_scores, found.frame_scores, np.asarray(video.labels, np.uint8), spans,
                  found.heatmap, masks, found.regions, video.tracks)


def _restrict(item: _Input, keep: Bool[np.ndarray, "n"]) -> _Input:
    """Only the frames in ``keep``, renumbered."""
    place = np.cumsum(keep) - 1
    rows = keep[item.regions.frame]
    regions = Regions(frame=place[item.regions.frame[rows]], box=item.regions.box[rows], score=item.regions.score[rows],
                      track=item.regions.track[rows])
    tracks = item.tracks
    if tracks is not None:
        rows = keep[tracks.frame]
        tracks = GroundTruthTracks(track=tracks.track[rows], frame=place[tracks.frame[rows]], box=tracks.box[rows])
    return _Input(item.name, item.raw[keep], item.smoothed[keep], item.labels[keep],
                  {kind: inside[keep] for kind, inside in item.spans.items()},
                  None if item.heat is None else item.heat[keep],
                  None if item.masks is None else (lambda: item.masks()[keep]), regions, tracks)


def _interval(cell: Cell, metric: Callable[..., float], *inputs: Sequence, **options: Any) -> Any:
    """Bootstrap interval over videos; the bare value where resamples leave it undefined; None where it is undefined."""
    try:
        return bootstrap(metric, inputs, samples=cell.samples, seed=0, **options)
    except MetricError as error:
        _LOG.info("%s of %s: no interval (%s)", metric.__name__, cell.dataset, error)
    try:
        return float(metric(*inputs, **options))
    except MetricError as error:
        _LOG.info("%s of %s: undefined (%s)", metric.__name__, cell.dataset, error)
        return None


def _score_kinds(inputs: Sequence[_Input], cell: Cell):
    kinds = [([item.raw for item in inputs], {"sigma": 0.0})]
    if cell.sigma > 0:
        kinds.insert(0, ([item.smoothed for item in inputs], {"sigma": cell.sigma, "choice": cell.choice}))
    return kinds


def _frame_rows(inputs: Sequence[_Input], cell: Cell) -> list[Row]:
    labels = [item.labels for item in inputs]
    n, rate = sum(map(len, labels)), float(np.concatenate(labels).mean())
    rows = []
    for scores, how in _score_kinds(inputs, cell):
        for name, metric, count in (("micro_auc", micro_auc, n), ("macro_auc", macro_auc, len(inputs)),
                                    ("ap", average_precision, n)):
            rows.append(cell.row(name, count, _interval(cell, metric, scores, labels), positive_rate=rate, **how))
    return rows


def _event_rows(inputs: Sequence[_Input], cell: Cell) -> list[Row]:
    labels = [item.labels for item in inputs]
    rows = []
    for kind in sorted({kind for item in inputs for kind in item.spans}):
        # A video may hold the event twice with a gap, so spans are read back from the frames.
        spans = [_spans(item.spans.get(kind), item.labels) for item in inputs]
        positives = sum(stop - start for video in spans for start, stop in video)
        n = positives + sum(int((label == 0).sum()) for label in labels)
        for scores, how in _score_kinds(inputs, cell):
            interval = _interval(cell, event_auc, scores, labels, spans=spans)
            rows.append(cell.row("micro_auc", n, interval, event=kind, positive_rate=positives / max(1, n), **how))
    return rows


def _spans(inside: Bool[np.ndarray, "n"] | None, labels: UInt8[np.ndarray, "n"]) -> list[tuple[int, int]]:
    if inside is None:
        return []
    edges = np.flatnonzero(np.diff(np.concatenate(([False], inside & (labels == 1), [False])).astype(np.int8)))
    return [(int(start), int(stop)) for start, stop in zip(edges[::2], edges[1::2])]


def _annotated(inputs: Sequence[_Input], has: Callable[[_Input], bool]) -> list[_Input]:
    """The videos that have the annotation; none where what is left has no anomalous video although the whole has.

    UCSD Ped1 has pixel masks for ten clips: in the others every detection would count as a false alarm.
    """
    kept = [item for item in inputs if has(item)]
    return kept if len(kept) == len(inputs) or any(item.labels.any() for item in kept) else []


def _pixel_rows(inputs: Sequence[_Input], cell: Cell) -> list[Row]:
    inputs = _annotated(inputs, lambda item: item.masks is not None and item.heat is not None)
    if not inputs:
        return []
    masks, heats = _held([item.masks for item in inputs]), []
    for item, mask in zip(inputs, masks):
        shape = (mask() if callable(mask) else mask).shape
        heats.append(fitted(item.heat, shape[1:]))
    n = sum(len(item.labels) for item in inputs)
    return [cell.row(name, n, _interval(cell, metric, heats, masks))
            for name, metric in (("pixel_auroc", pixel_auroc), ("aupro", aupro))]


def _held(masks: Sequence[Callable[[], np.ndarray]]) -> list[Any]:
    """Masks in memory as long as they fit, the rest as functions: each is read several times by the metrics."""
    held, used = [], 0
    for load in masks:
        mask = load() if used < _HELD_MASK_BYTES else load
        if not callable(mask):
            mask = (mask > 0).astype(np.uint8)
            used += mask.nbytes
        held.append(mask)
    return held


def _region_rows(inputs: Sequence[_Input], cell: Cell) -> list[Row]:
    inputs = _annotated(inputs, lambda item: item.tracks is not None or not item.labels.any())
    tracks = {item.name: item.tracks for item in inputs if item.tracks is not None and len(item.tracks)}
    if not tracks:
        return []
    frames = {item.name: len(item.labels) for item in inputs}
    try:
        found = bootstrap_regions({item.name: item.regions for item in inputs}, tracks, num_frames=frames,
                                  samples=cell.samples)
    except MetricError as error:
        _LOG.info("RBDC and TBDC of %s: undefined (%s)", cell.dataset, error)
        found = {"rbdc": None, "tbdc": None}
    return [cell.row(name, sum(frames.values()), found[name], choice=cell.choice) for name in ("rbdc", "tbdc")]
