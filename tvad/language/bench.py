"""``python -m tvad.language.bench``: tracks and timelines from masks alone against SimCampus' script.

Three ways from masks to tracks are measured: instance masks whose ids stay with their target ("instance"), the same with
ids shuffled anew in each frame, so that nothing can be read from them ("instance_shuffled"), and binary masks
("binary").  Truth are the targets of the script: frames and boxes where a target is anomalous and visible.  A trajectory
phrase counts where the found track that was matched to the target tells the same as the true one.

Regime of the speed: masks in memory, to tracks, timelines and phrases; processor seconds of one thread, best and median
of the repeats after one warm-up.  Ends with one JSON line.
"""
from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import scipy
from jaxtyping import Int, UInt8
from tqdm.auto import tqdm

from tvad.datasets.base import Video, open_dataset
from tvad.language.timeline import Pace, pace_of, phrase, timeline_of
from tvad.language.tracks import MaskTrack, boxes_of, tracks_from_binary, tracks_from_boxes, tracks_from_instances
from tvad.metrics.tracking import edge_errors, hota, identity_switches
from tvad.scenes.types import ActorTrack

NEAR = 2  # frames that an entry or exit may be off


def shuffled(masks: UInt8[np.ndarray, "n h w"], seed: int = 0) -> UInt8[np.ndarray, "n h w"]:
    """Instance masks whose ids are exchanged at random in each frame."""
    rng, out = np.random.default_rng(seed), masks.copy()
    for frame in out:
        frame[:] = np.concatenate(([0], 1 + rng.permutation(255))).astype(np.uint8)[frame]
    return out


WAYS: Mapping[str, Callable[[UInt8[np.ndarray, "n h w"]], tuple[MaskTrack, ...]]] = {
    "instance": tracks_from_instances,
    "instance_shuffled": lambda masks: tracks_from_instances(shuffled(masks), ids="frame"),
    "binary": lambda masks: tracks_from_binary(masks > 0),
}


def walkers(actors: Iterable[Any]) -> list[MaskTrack]:
    """Tracks of the ordinary pedestrians of a script: ``actors`` are those of ``Footage`` or of ``Video.text``."""
    tracks = []
    for actor in actors:
        if isinstance(actor, ActorTrack):
            kind, number, there, boxes = actor.kind, actor.id, actor.present & ~actor.anomalous, actor.box
        else:
            kind, number = actor["kind"], actor["id"]
            there = np.array([box is not None for box in actor["box"]])
            for start, stop in actor["anomalous"]:
                there[start:stop] = False
            boxes = np.array([box or [0] * 4 for box in actor["box"]], float)
        if kind == "pedestrian" and there.any():
            tracks.append(MaskTrack.of(number, np.flatnonzero(there), boxes=boxes[there]))
    return tracks


def compare(videos: Iterable[Video]) -> dict[str, dict[str, Any]]:
    """The figures of each way over ``videos`` that have masks, tracks and a script; with the odd cases by name."""
    truth, found = {}, {name: {} for name in WAYS}
    rows = {name: {"entry": [], "exit": [], "same": [], "switches": 0, "tracks": 0, "odd": []} for name in WAYS}
    for video in videos:
        truth[video.id] = video.tracks
        pace = pace_of(walkers(video.text["actors"]))
        tell = _teller(len(video), video.frames.size, pace)
        wanted = {track.id: tell(track) for track in tracks_from_boxes(video.tracks)}
        masks = video.masks(0, len(video))
        for name, way in WAYS.items():
            tracks = way(masks)
            boxes, row = boxes_of(tracks), rows[name]
            found[name][video.id] = boxes
            errors, said = edge_errors(boxes, video.tracks), {track.id: tell(track) for track in tracks}
            same = [said.get(int(other)) == wanted[int(target)] for target, other in zip(errors.track, errors.found)]
            row["entry"] += errors.entry.tolist()
            row["exit"] += errors.exit.tolist()
            row["same"] += same
            switches = identity_switches(boxes, video.tracks)
            row["switches"] += switches
            row["tracks"] += len(tracks)
            for target, other, alike, entry, leave in zip(errors.track, errors.found, same, errors.entry, errors.exit):
                if not (alike and abs(entry) <= NEAR and abs(leave) <= NEAR):
                    row["odd"].append({"video": video.id, "target": int(target), "entry": entry, "exit": leave,
                                       "true": wanted[int(target)], "found": said.get(int(other))})
    return {name: _figures(row, found[name], truth) for name, row in rows.items()}


def _teller(frames: int, size: tuple[int, int], pace: Pace | None) -> Callable[[MaskTrack], str]:
    return lambda track: phrase(timeline_of(track, frames=frames, size=size, pace=pace))


def _figures(row: Mapping[str, Any], found: Mapping, truth: Mapping) -> dict[str, Any]:
    score, count = hota(found, truth), len(row["same"])
    near = {name: float((np.abs(np.array(row[name])) <= NEAR).mean()) for name in ("entry", "exit")}
    return {"targets": count, "tracks": row["tracks"], "entry_within_2": near["entry"], "exit_within_2": near["exit"],
            "identity_switches": row["switches"], "switches_per_target": row["switches"] / count,
            "hota": score.hota, "detection": score.detection, "association": score.association,
            "phrase_equal": float(np.mean(row["same"])), "odd": row["odd"]}


def speed(masks: Sequence[Int[np.ndarray, "n h w"]], *, repeats: int) -> dict[str, dict[str, float]]:
    """Frames a processor second from masks to phrases, by way; shuffling is not counted."""
    tell = {"instance": (tracks_from_instances, masks), "binary": (tracks_from_binary, [one > 0 for one in masks]),
            "instance_shuffled": (lambda one: tracks_from_instances(one, ids="frame"), [shuffled(one) for one in masks])}
    frames = sum(len(one) for one in masks)
    results = {}
    for name, (way, given) in tell.items():
        seconds = []
        for _ in range(repeats + 1):
            start = time.process_time()
            for one in given:
                for track in way(one):
                    phrase(timeline_of(track, frames=len(one), size=one.shape[1:]))
            seconds.append(time.process_time() - start)
        results[name] = {"best": round(frames / min(seconds[1:]), 1),
                         "median": round(frames / statistics.median(seconds[1:]), 1)}
    return results


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure a split and print the JSON line; ``--odd FILE`` lists the targets that were told wrong."""
    parser = argparse.ArgumentParser(prog="python -m tvad.language.bench", description=__doc__.splitlines()[0])
    parser.add_argument("--split", default="test", help="of SimCampus: train, val or test")
    parser.add_argument("--videos", type=int, default=None, help="only the first so many with targets")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--odd", type=Path, default=None, help="write the targets that were told wrong to this file")
    given = parser.parse_args(arguments)
    cv2.setNumThreads(1)
    videos = [video for video in open_dataset("simcampus").videos(given.split) if not video.id.endswith("_normal")]
    videos = videos[:given.videos]
    results = compare(tqdm(videos, desc="masks to phrases", unit="video"))
    odd = {name: figures.pop("odd") for name, figures in results.items()}
    if given.odd:
        given.odd.write_text(json.dumps(odd, indent=1) + "\n")
    regime = {"split": given.split, "videos": len(videos), "warm_up": 1, "repeats": given.repeats, "near_frames": NEAR,
              "unit": "frames per processor second, one thread", "machine": platform.machine(),
              "python": platform.python_version(), "numpy": np.__version__, "scipy": scipy.__version__,
              "opencv": cv2.__version__}
    fast = speed([video.masks(0, len(video)) for video in videos[:8]], repeats=given.repeats)
    print(json.dumps({"bench": "tvad.language", "simulated": results, "frames_per_second": fast, "regime": regime}))


if __name__ == "__main__":
    main()
