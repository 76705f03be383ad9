"""``python -m tvad.language.bench``: tracks, timelines and conversations from masks alone against SimCampus' script.

Three ways from masks to tracks are measured: instance masks whose ids stay with their target ("instance"), the same with
ids shuffled anew in each frame, so that nothing can be read from them ("instance_shuffled"), and binary masks
("binary").  Truth are the targets of the script: frames and boxes where a target is anomalous and visible.  A trajectory
phrase counts where the found track that was matched to the target tells the same as the true one; it is stated on whole
videos ("phrase_equal") and on the windows of which conversations speak ("phrase_equal_windows": targets seen for at
least LEAST_FRAMES of a window, others are dropped there).

Regime of the speed: masks in memory, (a) of whole videos to tracks, timelines and phrases, (b) of windows to
conversations (``speak`` over ``clips_of``), with every frame of a video counted once though windows overlap; processor
seconds of one thread, best and median of the repeats after one warm-up.  Ends with one JSON line; null where there is
nothing to measure.
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
from tvad.language.appearance import AppearanceSource, ClipView, ScriptAppearance
from tvad.language.corpus import LEAST_FRAMES, Masks, Settings, clips_of, speak, walkers_pace
from tvad.language.surroundings import SceneTruth, scene_of
from tvad.language.timeline import Pace, phrase, timeline_of
from tvad.language.tracks import MaskTrack, boxes_of, tracks_from_binary, tracks_from_boxes, tracks_from_instances
from tvad.metrics.region import GroundTruthTracks
from tvad.metrics.tracking import EdgeErrors, edge_errors, hota, identity_switches
from tvad.video.clip import windows

NEAR = 2  # frames that an entry or exit may be off
SETTINGS = Settings()


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


def compare(videos: Iterable[Video]) -> dict[str, dict[str, Any]]:
    """The figures of each way over ``videos`` that have masks, tracks and a script; with the odd cases by name.

    Shares are None where there is no target to take them over.
    """
    truth, found = {}, {name: {} for name in WAYS}
    rows = {name: {"errors": [], "same": [], "windows": [], "switches": 0, "tracks": 0, "odd": []} for name in WAYS}
    for video in videos:
        truth[video.id], size = video.tracks, video.frames.size
        pace, masks = walkers_pace(video.text), video.masks(0, len(video))
        tell = _teller(len(video), size, pace)
        wanted = {track.id: tell(track) for track in tracks_from_boxes(video.tracks)}
        for name, way in WAYS.items():
            tracks, row = way(masks), rows[name]
            boxes = found[name][video.id] = boxes_of(tracks)
            errors, said = edge_errors(boxes, video.tracks), {track.id: tell(track) for track in tracks}
            same = [said.get(int(other)) == wanted[int(target)] for target, other in zip(errors.track, errors.found)]
            row["errors"].append(errors)
            row["same"] += same
            row["windows"] += windows_told(video.tracks, masks, way, size=size, pace=pace)
            row["switches"] += identity_switches(boxes, video.tracks)
            row["tracks"] += len(tracks)
            for target, other, alike, entry, leave in zip(errors.track, errors.found, same, errors.entry, errors.exit):
                if not (alike and abs(entry) <= NEAR and abs(leave) <= NEAR):
                    row["odd"].append({"video": video.id, "target": int(target), "entry": _number(entry),
                                       "exit": _number(leave), "true": wanted[int(target)], "found": said.get(int(other))})
    return {name: _figures(row, found[name], truth) for name, row in rows.items()}


def windows_told(truth: GroundTruthTracks, masks: UInt8[np.ndarray, "n h w"], way: Callable, *, size: tuple[int, int],
                 pace: Pace | None = None) -> list[bool]:
    """For each target of each window of a dialogue set: whether its phrase equals the one of its true track there."""
    same = []
    for start, stop in windows(len(masks), length=SETTINGS.length, stride=SETTINGS.stride):
        inside = (truth.frame >= start) & (truth.frame < stop)
        part = GroundTruthTracks(track=truth.track[inside], frame=truth.frame[inside] - start, box=truth.box[inside])
        tell = _teller(stop - start, size, pace)
        wanted = {track.id: tell(track) for track in tracks_from_boxes(part) if len(track) >= LEAST_FRAMES}
        if wanted:
            tracks = way(masks[start:stop])
            errors, said = edge_errors(boxes_of(tracks), part), {track.id: tell(track) for track in tracks}
            same += [said.get(int(other)) == wanted[int(target)] for target, other in zip(errors.track, errors.found)
                     if int(target) in wanted]
    return same


def _teller(frames: int, size: tuple[int, int], pace: Pace | None) -> Callable[[MaskTrack], str]:
    return lambda track: phrase(timeline_of(track, frames=frames, size=size, pace=pace))


def _number(value: float) -> float | None:
    return None if np.isnan(value) else float(value)


def _figures(row: Mapping[str, Any], found: Mapping, truth: Mapping) -> dict[str, Any]:
    count, known = len(row["same"]), bool(row["same"])
    columns = ("track", "found", "entry", "exit")
    errors = EdgeErrors(*(np.concatenate([getattr(one, name) for one in row["errors"]] or [[]]) for name in columns))
    entry, leave = errors.within(NEAR) if known else (None, None)
    score = hota(found, truth) if known else None
    return {"targets": count, "tracks": row["tracks"], "entry_within_2": entry, "exit_within_2": leave,
            "identity_switches": row["switches"], "switches_per_target": row["switches"] / count if known else None,
            "hota": score and score.hota, "detection": score and score.detection,
            "association": score and score.association, "phrase_equal": float(np.mean(row["same"])) if known else None,
            "windowed_targets": len(row["windows"]),
            "phrase_equal_windows": float(np.mean(row["windows"])) if row["windows"] else None, "odd": row["odd"]}


def speed(masks: Sequence[Int[np.ndarray, "n h w"]], *, repeats: int) -> dict[str, dict[str, float] | None]:
    """Frames a processor second from masks of whole videos to phrases, by way; shuffling is not counted."""
    tell = {"instance": (tracks_from_instances, masks), "binary": (tracks_from_binary, [one > 0 for one in masks]),
            "instance_shuffled": (lambda one: tracks_from_instances(one, ids="frame"), [shuffled(one) for one in masks])}

    def phrases(way: Callable, given: Sequence[np.ndarray]) -> None:
        for one in given:
            for track in way(one):
                phrase(timeline_of(track, frames=len(one), size=one.shape[1:]))

    frames = sum(len(one) for one in masks)
    return {name: _rate(lambda way=way, given=given: phrases(way, given), frames, repeats=repeats)
            for name, (way, given) in tell.items()}


def speed_of_conversations(videos: Sequence[Video], options: Sequence[Mapping[str, Any]], *, repeats: int,
                           source: AppearanceSource | None = None) -> dict[str, dict[str, float] | None]:
    """Video frames a processor second from masks to conversations, with instance and with binary masks.

    Args:
        videos: with masks; these and the script are read before the clock starts.
        options: for each video, those of :func:`tvad.language.corpus.speak` but for ``masks``.
        repeats: of the measurement.
        source: of appearances; the script where None.
    """
    source, rates = source or ScriptAppearance(), {}
    for kind in ("instances", "binary"):
        clips = [(view if kind == "instances" else
                  ClipView(view.video, view.start, view.stop, (view.masks > 0).astype(np.uint8)), given)
                 for video, given in zip(videos, options, strict=True) for view in clips_of(video, SETTINGS)]
        rates["instance" if kind == "instances" else kind] = _rate(
            lambda clips=clips, kind=kind: _speak_all(clips, source, kind), sum(map(len, videos)), repeats=repeats)
    return rates


def _speak_all(clips: Sequence[tuple[ClipView, Mapping[str, Any]]], source: AppearanceSource, kind: Masks) -> None:
    for view, given in clips:
        speak(view, source, SETTINGS, masks=kind, **given)


def _rate(work: Callable[[], None], frames: int, *, repeats: int) -> dict[str, float] | None:
    """Best and median frames a processor second after one warm-up; None without frames."""
    seconds = []
    for _ in range(repeats + 1):
        start = time.process_time()
        work()
        seconds.append(max(time.process_time() - start, 1e-9))
    return {"best": round(frames / min(seconds[1:]), 1),
            "median": round(frames / statistics.median(seconds[1:]), 1)} if frames else None


def _positive(text: str) -> int:
    if (number := int(text)) < 1:
        raise argparse.ArgumentTypeError(f"{number} is out of range; allowed: 1 or more")
    return number


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure a split and print the JSON line; ``--odd FILE`` lists the targets that were told wrong."""
    parser = argparse.ArgumentParser(prog="python -m tvad.language.bench", description=__doc__.splitlines()[0])
    parser.add_argument("--split", default="test", help="of SimCampus: train, val or test")
    parser.add_argument("--videos", type=_positive, default=None, help="only the first so many with targets")
    parser.add_argument("--repeats", type=_positive, default=3)
    parser.add_argument("--odd", type=Path, default=None, help="write the targets that were told wrong to this file")
    given = parser.parse_args(arguments)
    cv2.setNumThreads(1)
    dataset = open_dataset("simcampus")
    pairs = [pair for pair in zip(dataset.videos(given.split), dataset.recipes(given.split), strict=True)
             if not pair[0].id.endswith("_normal")][:given.videos]
    videos = [video for video, _ in pairs]
    results = compare(tqdm(videos, desc="masks to phrases", unit="video"))
    odd = {name: figures.pop("odd") for name, figures in results.items()}
    if given.odd:
        given.odd.write_text(json.dumps(odd, indent=1, allow_nan=False) + "\n")
    regime = {"split": given.split, "videos": len(videos), "warm_up": 1, "repeats": given.repeats, "near_frames": NEAR,
              "window": SETTINGS.length, "stride": SETTINGS.stride,
              "unit": "video frames per processor second, one thread", "machine": platform.machine(),
              "python": platform.python_version(), "numpy": np.__version__, "scipy": scipy.__version__,
              "opencv": cv2.__version__}
    fast = speed([video.masks(0, len(video)) for video in videos[:8]], repeats=given.repeats)
    options = [{"split": given.split, "truth": SceneTruth(scene_of(recipe), video.text), "pace": walkers_pace(video.text)}
               for video, recipe in pairs[:8]]
    talks = speed_of_conversations(videos[:8], options, repeats=given.repeats)
    print(json.dumps({"bench": "tvad.language", "simulated": results, "frames_per_second": fast,
                      "conversation_frames_per_second": talks, "regime": regime}, allow_nan=False))


if __name__ == "__main__":
    main()
