"""Which videos and frames figures show: by rule and from the results, failures as openly as successes."""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from tvad.detection import Detection
from tvad.figures.panels import event_frames
from tvad.study.examples import largest_target, target_areas


@dataclass(frozen=True)
class Pick:
    """A video, why it was picked, the kind of its event, the frame to show, and its frame AUC against normal frames."""
    video: Any
    why: str
    kind: str
    frame: int
    auc: float


def auc_against(positive: Float[np.ndarray, "p"], normal: Float[np.ndarray, "n"]) -> float:
    """Share of (anomalous, normal) frame pairs in the right order, ties half: the ROC-AUC."""
    ranked = np.sort(normal)
    wins = np.searchsorted(ranked, positive, "left") + np.searchsorted(ranked, positive, "right")
    return float(wins.mean() / 2 / max(1, len(ranked)))


def normal_scores(detections: Mapping[str, Detection], videos: Sequence[Any]) -> Float[np.ndarray, "n"]:
    """Smoothed scores of all normal frames of the split."""
    return np.concatenate([detections[video.id].frame_scores[np.asarray(video.labels) == 0] for video in videos])


def ranked_events(detections: Mapping[str, Detection], videos: Sequence[Any]) -> list[Pick]:
    """Each event class of each video, best detected first.

    By the AUC of the event's frames against all normal frames of the split; of equals the higher mean score.
    """
    normal, found = normal_scores(detections, videos), []
    for video in videos:
        for kind in dict.fromkeys(event.kind for event in video.events):
            scores = detections[video.id].frame_scores[event_frames(video, kind)]
            if len(scores):
                found.append((auc_against(scores, normal), float(scores.mean()), video, kind))
    found.sort(key=lambda entry: (-entry[0], -entry[1], entry[2].id))
    return [Pick(video, "", kind, -1, auc) for auc, _, video, kind in found]


def best_median_worst(detections: Mapping[str, Detection], videos: Sequence[Any]) -> list[Pick]:
    """The best, the median and the worst detected event of the split (fewer where there are fewer)."""
    ranked = ranked_events(detections, videos)
    places = {"best": 0, "median": len(ranked) // 2, "worst": len(ranked) - 1}
    chosen = {}
    for why, place in places.items():
        chosen.setdefault(place, why)
    return [_framed(ranked[place], why) for place, why in chosen.items() if ranked]


def across_classes(detections: Mapping[str, Detection], videos: Sequence[Any], count: int = 4) -> list[Pick]:
    """Median-detected videos of ``count`` event classes, evenly spaced from the best to the worst detected class.

    Where a data set has fewer classes, events evenly spaced over the ranking, each from another video.
    """
    ranked = ranked_events(detections, videos)
    classes: dict[str, list[Pick]] = {}
    for pick in ranked:
        classes.setdefault(pick.kind, []).append(pick)
    if len(classes) >= count:
        order = sorted(classes.values(), key=lambda picks: -np.mean([pick.auc for pick in picks]))
        ranked = [picks[len(picks) // 2] for picks in order]
    places = np.linspace(0, len(ranked) - 1, min(count, len(ranked))).round().astype(int)
    return [_framed(ranked[place], "") for place in dict.fromkeys(places)]


def median_of_each_class(detections: Mapping[str, Detection], videos: Sequence[Any], most: int) -> list[Pick]:
    """The median-detected video of each event class, best first, at most so many.

    Where a data set has one class, its events themselves, best first.
    """
    classes: dict[str, list[Pick]] = {}
    for pick in ranked_events(detections, videos):
        classes.setdefault(pick.kind, []).append(pick)
    if len(classes) < 2:
        return [pick for picks in classes.values() for pick in picks][:most]
    return sorted((picks[len(picks) // 2] for picks in classes.values()), key=lambda pick: (-pick.auc, pick.kind))[:most]


def false_alarms(detections: Mapping[str, Detection], videos: Sequence[Any], count: int = 4) -> list[Pick]:
    """The normal frames of highest raw score, one a video, highest first."""
    found = []
    for video in videos:
        scores = np.where(np.asarray(video.labels) == 0, detections[video.id].raw_scores, -1)
        if scores.max() >= 0:
            found.append((float(scores.max()), video, int(scores.argmax())))
    found.sort(key=lambda entry: (-entry[0], entry[1].id))
    return [Pick(video, "false alarm", "normal", frame, score) for score, video, frame in found[:count]]


def worst_missed(detections: Mapping[str, Detection], videos: Sequence[Any], count: int = 4) -> list[Pick]:
    """The worst detected events, one a class where there are several, worst first.

    Each at the frame of its lowest raw score among those in which the target is at least half as large as it gets.
    """
    chosen: dict[str, Pick] = {}
    ranked = ranked_events(detections, videos)[::-1]
    several = len({pick.kind for pick in ranked}) > 1
    for pick in ranked:
        chosen.setdefault(pick.kind if several else pick.video.id, pick)
    return [Pick(pick.video, "missed", pick.kind, _lowest(pick, detections[pick.video.id]), pick.auc)
            for pick in list(chosen.values())[:count]]


def _lowest(pick: Pick, detection: Detection) -> int:
    areas = target_areas(pick.video, pick.kind)
    if not areas.any():     # no masks
        areas = event_frames(pick.video, pick.kind).astype(np.int64)
    shown = 2 * areas >= max(areas.max(), 1)
    return int(np.where(shown, detection.raw_scores, np.inf).argmin())


def frames_along(pick: Pick, count: int = 4) -> list[int]:
    """``count`` frames evenly spaced over the frames of the picked event."""
    inside = np.concatenate([np.arange(event.start, event.stop) for event in pick.video.events
                             if event.kind == pick.kind])
    inside = np.unique(inside)
    return [int(inside[int((place + 0.5) * len(inside) / count)]) for place in range(count)]


def _framed(pick: Pick, why: str) -> Pick:
    return Pick(pick.video, why, pick.kind, largest_target(pick.video, pick.kind), pick.auc)
