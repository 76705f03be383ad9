"""Figures of query heatmaps: is the event that was asked for found, and do the other events stay dark?

For each event that a split shows, its query is asked of every video:

- ``query_micro_auc``: frames that show the event against all other frames, also those of other events;
- ``query_pixel_auroc``: the event's pixels against all other pixels of all frames;
- ``query_wrong_ratio``: on the frames that show the event, the mean map of the queries whose events the video does not
  show, over the mean map of the right query (0 is best; cut at 1).

Rows with ``event`` are of one event, those without are means over the events.  Intervals: bootstrap over videos.
Smoothing is chosen on validation videos (``choose_query_sigma``), never on those that a row is of.
"""
from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
from jaxtyping import Float
from tqdm.auto import tqdm

from tvad.detection import DEFAULT_SCORING, SIGMAS, Detection, Scoring
from tvad.errors import DatasetError
from tvad.evaluation import Cell
from tvad.metrics.bootstrap import Interval, draw_videos
from tvad.metrics.frame import micro_auc_weighted, smooth
from tvad.metrics.pixel import pixel_auroc_weighted
from tvad.queries.finding import find_with
from tvad.queries.heatmap import EventHeatmapDecoder
from tvad.record import QUERIED, Row
from tvad.training.event_targets import kinds_of

Weighted = Callable[[np.ndarray], np.ndarray]


@dataclass
class Heard:
    """What all videos of a split gave for the events ``names``: one entry a video in each list."""
    names: tuple[str, ...]
    frames: list[int] = field(default_factory=list)
    shown: list[dict[str, np.ndarray]] = field(default_factory=list)          # event: (n,) True where it is seen
    kinds: list[np.ndarray] = field(default_factory=list)                     # (n, H, W) uint8, 1 + event
    scores: list[dict[str, np.ndarray]] = field(default_factory=list)
    heat: list[dict[str, np.ndarray]] = field(default_factory=list)           # event: (n, h, w) float16


def query_rows(backbone: Any, decoder: EventHeatmapDecoder, videos: Sequence[Any], cell: Cell, *,
               queries: Mapping[str, str] | None = None, scoring: Scoring = DEFAULT_SCORING, batch: int = 4,
               progress: bool = True) -> list[Row]:
    """All rows of a decoder of query heatmaps on a split; the tower passes each video once for all queries.

    ``queries``: the words to ask for each event, by default the event's name with spaces; events that no video shows are
    left out.  ``scoring``: windows and top fraction; smoothing is ``cell.sigma``, fixed on another split.
    Raises :class:`DatasetError` for videos without masks or events, :class:`tvad.errors.ParameterError` for a query
    without meaning.
    """
    heard = hear(backbone, {"only": decoder}, videos, queries=queries, scoring=scoring, batch=batch, progress=progress)
    return rows_of(heard["only"], cell)


def choose_query_sigma(backbone: Any, decoder: EventHeatmapDecoder, videos: Sequence[Any], *, chosen_on: str,
                       queries: Mapping[str, str] | None = None, scoring: Scoring = DEFAULT_SCORING, batch: int = 4,
                       sigmas: Sequence[float] = SIGMAS, progress: bool = True) -> Scoring:
    """``scoring`` with the smoothing of the best mean ``query_micro_auc`` on validation videos; of equals the smallest.

    ``chosen_on`` names their split in the record.  Kept as ``queries.json`` beside the decoder (``Scoring.save``) it is
    what ``TVAD.find`` uses.  ``sigmas`` in frames.  Errors as :func:`query_rows`.
    """
    heard = hear(backbone, {"only": decoder}, videos, queries=queries, scoring=scoring, batch=batch, progress=progress)
    return best_sigma(heard["only"], scoring, chosen_on=chosen_on, sigmas=sigmas)


def best_sigma(heard: Heard, scoring: Scoring, *, chosen_on: str, sigmas: Sequence[float] = SIGMAS) -> Scoring:
    """:func:`choose_query_sigma` from what was heard on the validation videos."""
    once = np.ones((1, len(heard.frames)))

    def quality(sigma: float) -> float:
        return float(np.nanmean([_frame_metric(heard, name, sigma)(once)[0] for name in heard.names]))

    return replace(scoring, sigma=float(max(sorted(sigmas), key=quality)), chosen_on=chosen_on)


def hear(backbone: Any, decoders: Mapping[Any, EventHeatmapDecoder], videos: Sequence[Any], *,
         queries: Mapping[str, str] | None = None, scoring: Scoring = DEFAULT_SCORING, batch: int = 4,
         progress: bool = True) -> dict[Any, Heard]:
    """What every decoder gives on all videos; each video passes the tower once. Errors as :func:`query_rows`."""
    shown = sorted({event.kind for video in videos for event in video.events})
    if not shown:
        raise DatasetError("query figures: no video of the split names an event; take a split that does")
    asked = {name: (queries or {}).get(name, name.replace("_", " ")) for name in shown}
    heard = {key: Heard(tuple(shown)) for key in decoders}
    for video in tqdm(videos, desc="asking", unit="video", disable=not progress):
        found = find_with(backbone, decoders, video, list(asked.values()), scoring=scoring, batch=batch)
        for key, each in found.items():
            _add(heard[key], video, {name: each[words] for name, words in asked.items()})
    return heard


def _add(heard: Heard, video: Any, found: Mapping[str, Detection]) -> None:
    if video.masks is None:
        raise DatasetError(f"{video.dataset}/{video.id}: no masks; query figures need the pixels of each event")
    count = len(video.frames)
    masks, kinds = np.asarray(video.masks(0, count)), kinds_of(video)
    lookup: np.ndarray = np.zeros(max(int(masks.max(initial=0)), *kinds, 0) + 1, np.uint8)
    for target, kind in kinds.items():
        lookup[target] = heard.names.index(kind) + 1
    lookup[0], seen = 0, {}        # target 0 is "unknown": the background of the masks
    for event in video.events:
        seen.setdefault(event.kind, np.zeros(count, bool))[event.start:event.stop] = True
    heard.frames.append(count)
    heard.shown.append(seen)
    heard.kinds.append(lookup[masks])
    heard.scores.append({name: detection.raw_scores for name, detection in found.items()})
    heard.heat.append({name: detection.heatmap.astype(np.float16) for name, detection in found.items()})


def rows_of(heard: Heard, cell: Cell) -> list[Row]:
    """The rows from what was heard; every metric is a function of how often each video counts."""
    draws = draw_videos(len(heard.frames), samples=cell.samples)
    weights = np.concatenate([np.ones((1, len(heard.frames)), draws.dtype), draws])
    how = {"sigma": cell.sigma, "choice": cell.choice} if cell.sigma > 0 else {"sigma": 0.0}
    total, rows = sum(heard.frames), []
    makers = (partial(_frame_metric, sigma=cell.sigma), _pixel_metric, _wrong_ratio)
    for metric, make, more in zip(QUERIED, makers, (how, {}, {})):
        values = {name: make(heard, name)(weights) for name in heard.names}
        for name, value in values.items():
            rate = sum(int(seen[name].sum()) for seen in heard.shown if name in seen) / total
            rows.append(cell.row(metric, total, _interval(value, len(draws)), event=name, positive_rate=rate, **more))
        # A draw that lacks an event is a mean over the others.
        mean = np.nanmean(np.stack(list(values.values())), axis=0)
        rows.append(cell.row(metric, total, _interval(mean, len(draws)), **more))
    return rows


def _interval(values: Float[np.ndarray, "s"], count: int) -> Interval | float:
    usable = values[1:][~np.isnan(values[1:])]
    if 2 * len(usable) < count:          # too few videos show the event for an interval
        return float(values[0])
    low, high = np.quantile(usable, [0.025, 0.975])
    return Interval(float(values[0]), float(low), float(high), count, len(usable))


def _frame_metric(heard: Heard, name: str, sigma: float) -> Weighted:
    scores = smooth([scores[name] for scores in heard.scores], sigma)
    labels = [seen.get(name, np.zeros(count, bool)).astype(np.uint8) for seen, count in zip(heard.shown, heard.frames)]
    return micro_auc_weighted(scores, labels)


def _pixel_metric(heard: Heard, name: str) -> Weighted:
    code = heard.names.index(name) + 1
    masks = [lambda kinds=kinds: (kinds == code).view(np.uint8) for kinds in heard.kinds]
    return pixel_auroc_weighted([heat[name] for heat in heard.heat], masks)


def _wrong_ratio(heard: Heard, name: str) -> Weighted:
    """Means over frames, both sums taken over the same drawn videos."""
    right, wrong = (np.zeros((2, len(heard.frames))) for _ in range(2))      # sum of the frames' means, frames
    for index, (seen, heat) in enumerate(zip(heard.shown, heard.heat)):
        if name not in seen:
            continue
        others = [other for other in heard.names if other not in seen]
        right[:, index] = heat[name][seen[name]].mean((1, 2), dtype=np.float64).sum(), seen[name].sum()
        for other in others:
            wrong[:, index] += heat[other][seen[name]].mean((1, 2), dtype=np.float64).sum(), seen[name].sum()

    def evaluate(weights: np.ndarray) -> np.ndarray:
        with np.errstate(divide="ignore", invalid="ignore"):
            means = [(weights @ sums[0]) / (weights @ sums[1]) for sums in (wrong, right)]
            return np.minimum(means[0] / means[1], 1.0)

    return evaluate
