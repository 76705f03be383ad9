"""Find what the user names in a whole video: one ``Detection`` a query, all from one pass of the tower.

A query's frame scores, smoothing and regions are made from its map exactly as the general detector makes them from its
own; ``Detection.answers`` says what the words were taken for.
"""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32

from tvad.cores import in_windows
from tvad.detection import DEFAULT_SCORING, Detection, Scoring, finish, top_mean
from tvad.errors import CheckpointError, DatasetError, ParameterError
from tvad.queries.heatmap import EventHeatmapDecoder
from tvad.video.clip import Clip, stitch


def find(backbone: Any, decoder: EventHeatmapDecoder, source: Any, events: Sequence[str], *,
         scoring: Scoring = DEFAULT_SCORING, batch: int = 4) -> dict[str, Detection]:
    """Detections of each query, keyed by the query, in a ``Video`` or ``Frames``; ``batch``: clips a pass of a GPU's tower.

    Raises:
        ParameterError: no query, one given twice, or one without meaning; said before any frame is read.
        CheckpointError: a decoder of other taps than the backbone's.
        DatasetError: a video without frames.
        VideoError: unreadable frames.
    """
    return find_with(backbone, {"only": decoder}, source, events, scoring=scoring, batch=batch)["only"]


@torch.inference_mode()
def find_with(backbone: Any, decoders: Mapping[Any, EventHeatmapDecoder], source: Any, events: Sequence[str], *,
              scoring: Scoring = DEFAULT_SCORING, batch: int = 4) -> dict[Any, dict[str, Detection]]:
    """:func:`find` with several decoders, by their keys; the video passes the tower once. Errors as there."""
    frames, step = getattr(source, "frames", source), backbone.temporal_patch_size
    name = getattr(source, "id", frames.name)
    asked = {key: (decoder.understand(events, backbone), decoder.book(backbone)) for key, decoder in decoders.items()}
    if len(set(events)) != len(events):
        raise ParameterError(f"events {list(events)}: a query is given twice; give each once")
    if not len(frames):
        raise DatasetError(f"{name}: the video has no frames; check the file")
    for decoder in decoders.values():
        if tuple(decoder.taps) != tuple(backbone.taps):
            raise CheckpointError(f"query decoder: made for taps {decoder.taps}, the backbone {backbone.name} gives "
                                  f"{tuple(backbone.taps)}; open the backbone with these taps")
    heat: dict[tuple, list] = {(key, event): [] for key in decoders for event in events}
    tops: dict[tuple, list] = {place: [] for place in heat}

    def maps_of(clips: Sequence[Clip]) -> list[dict[Any, Float32[np.ndarray, "k t h w"]]]:
        return [{key: decoders[key].maps(sight.taps, queries, book).float().cpu().numpy()
                 for key, (queries, book) in asked.items()} for sight in backbone.see_many(clips)]

    for start, count, seen in in_windows(frames, maps_of, length=scoring.frames_per_clip, stride=scoring.stride, name=name,
                                 batch=batch, device=getattr(backbone, "device", "cpu")):
        for key, several in seen.items():
            for event, maps in zip(events, several):
                heat[key, event].append((start, np.repeat(maps, step, axis=0)[:count]))
                tops[key, event].append((start, np.repeat(top_mean(maps, scoring.top_fraction), step)[:count]))
    found: dict[Any, dict[str, Detection]] = {key: {} for key in decoders}
    for key, (queries, _) in asked.items():
        for event, meanings in zip(events, queries):
            detection = finish(name, stitch(tops[key, event], len(frames)), stitch(heat[key, event], len(frames)),
                               size=tuple(frames.size), scoring=scoring)
            found[key][event] = replace(detection, answers={
                "query": event, "meaning": [str(meaning) for meaning in meanings],
                "similarity": [meaning.similarity for meaning in meanings]})
    return found
