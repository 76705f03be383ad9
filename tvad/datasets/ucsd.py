"""UCSD Ped1 and Ped2 (Mahadevan et al., CVPR 2010), in the official layout and in that of a common jpg re-encoding.

official:   Train/Train001/001.tif   Test/Test001/001.tif   Test/Test001_gt/001.bmp     Test/UCSDped2.m
frames:     training/frames/01/*.jpg testing/frames/01/*.jpg testing/masks/01/*.png     UCSDped2.m

Frame labels are those of the MATLAB script, whose ranges are 1-based and inclusive, several a clip in Ped1.  Ped1 has
pixel masks for ten clips only.  Pixel masks that contradict the script raise when the clip's labels are read.  Training
clips are normal throughout; their masks are empty.
"""
from __future__ import annotations

import os
import re
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from tvad.datasets.base import Dataset, Event, Video, data_root
from tvad.errors import DatasetError
from tvad.metrics.components import tracks_from_masks
from tvad.metrics.region import GroundTruthTracks
from tvad.video.folder import list_images, natural_key, read_image
from tvad.video.read import open_frames

PAGE = "http://www.svcl.ucsd.edu/projects/anomaly/dataset.htm"
FPS = 10.0  # the owners give none; 10 is the rate used by the literature


@dataclass(frozen=True)
class _Clip:
    """Where the files of one clip are."""

    id: str
    frames: Path
    masks: Path | None


def parse_script(path: Path) -> list[list[tuple[int, int]]]:
    """Ranges of anomalous frames, one list a test clip, as 0-based half-open (start, stop).

    Reads lines such as ``TestVideoFile{end+1}.gt_frame = [5:90, 140:200];``.  Raises :class:`DatasetError` where a
    range cannot be read.
    """
    text = re.sub(r"%[^\n]*", "", path.read_text(encoding="latin-1"))
    clips = []
    for body in re.findall(r"gt_frame\s*=\s*\[([^\]]*)\]", text):
        ranges = []
        for item in re.split(r"[,;]|(?<=\d)\s+(?=\d)", body.strip()):
            match = re.fullmatch(r"\s*(\d+)\s*(?::\s*(\d+)\s*)?", item)
            if not match or not 1 <= int(match[1]) <= int(match[2] or match[1]):
                raise DatasetError(f"{path}: cannot read the range {item.strip()!r} of clip {len(clips) + 1}; "
                                   f"fetch the file again from {PAGE}")
            ranges.append((int(match[1]) - 1, int(match[2] or match[1])))
        clips.append(ranges)
    return clips


class PackedMasks:
    """Binary masks of one clip, read when first asked for and kept as bits."""

    def __init__(self, paths: list[Path], *, size: tuple[int, int], clip: str) -> None:
        self._paths, self._size, self._clip, self._bits = paths, size, clip, None

    def __call__(self, start: int, stop: int) -> UInt8[np.ndarray, "m h w"]:
        """Masks of frames ``start:stop``, 0 and 1."""
        if not 0 <= start <= stop <= len(self._paths):
            raise DatasetError(f"{self._clip}: wanted masks {start}:{stop}, the clip has {len(self._paths)}")
        return np.unpackbits(self._load()[start:stop], axis=2, count=self._size[1])

    def labels(self) -> UInt8[np.ndarray, "n"]:
        """1 where a mask has a pixel."""
        return self._load().any(axis=(1, 2)).astype(np.uint8)

    def _load(self) -> np.ndarray:
        if self._bits is None:
            rows = []
            for path in self._paths:
                mask = read_image(path)[..., 0] > 127
                if mask.shape != self._size:
                    raise DatasetError(f"{path}: clip {self._clip} has frames of {self._size} (height, width), its "
                                       f"mask is {mask.shape}; fetch the set again from {PAGE}")
                rows.append(np.packbits(mask, axis=1))
            self._bits = np.stack(rows)
        return self._bits


class UCSD(Dataset):
    """Common loader; splits "train" (normal clips) and "test".

    Args:
        root: folder of the data sets, else ``TVAD_DATA``, else ``data/``.
        complete: insist on the owners' counts of clips and frames.
        on_conflict: what to do where pixel masks contradict the script: "raise", or "script" to trust its labels.
    """

    folder = ""
    aliases: tuple[str, ...] = ()
    script = ""
    counts: dict[str, tuple[int, int]] = {}  # split: (clips, frames)

    def __init__(self, *, root: str | os.PathLike | None = None, protocol: str = "standard", complete: bool = True,
                 on_conflict: str = "raise") -> None:
        if protocol != "standard":
            raise DatasetError(f"{self.name}: unknown protocol {protocol!r}; it has one, 'standard'")
        if on_conflict not in ("raise", "script"):
            raise DatasetError(f"{self.name}: on_conflict={on_conflict!r} is unknown; choose raise or script")
        self.protocol, self._complete, self._on_conflict = protocol, complete, on_conflict
        self._videos: dict[str, tuple[Video, ...]] = {}
        self.path = self._find(data_root(root))
        self.layout = "official" if (self.path / "Test").is_dir() else "frames"

    def _find(self, root: Path) -> Path:
        places = [root / name for name in (self.folder, *self.aliases)]
        for place in places:
            if (place / "Test").is_dir() or (place / "testing" / "frames").is_dir():
                return place
        raise DatasetError(f"{self.name}: not found; wanted {places[0]} with Train/ and Test/ (or training/frames and "
                           f"testing/frames) inside; fetch it from {PAGE}, or set TVAD_DATA to the folder above it")

    def splits(self) -> tuple[str, ...]:
        """("train", "test")."""
        return "train", "test"

    def videos(self, split: str) -> tuple[Video, ...]:
        """Clips of a split. Raises :class:`DatasetError` if the set is incomplete."""
        self._require_split(split)
        if split not in self._videos:
            clips = self._clips(split)
            videos = self._test(clips) if split == "test" else tuple(self._train(clip) for clip in clips)
            got = len(videos), sum(len(video) for video in videos)
            if self._complete and got != self.counts[split]:
                wanted = self.counts[split]
                raise DatasetError(f"{self.path}: wanted {wanted[0]} {split} clips with {wanted[1]} frames in all, got "
                                   f"{got[0]} with {got[1]}; the set is incomplete, fetch it again from {PAGE}")
            self._videos[split] = videos
        return self._videos[split]

    def _clips(self, split: str) -> list[_Clip]:
        if self.layout == "official":
            base, pattern = self.path / split.capitalize(), rf"{split}(\d+)"
        else:
            base, pattern = self.path / f"{split}ing" / "frames", r"(\d+)"
        inside = [folder for folder in base.iterdir() if folder.is_dir()] if base.is_dir() else []
        found = sorted((folder for folder in inside if re.fullmatch(pattern, folder.name, re.IGNORECASE)),
                       key=lambda folder: natural_key(folder.name))
        if not found:
            raise DatasetError(f"{base}: no {split} clips; the set is incomplete, fetch it again from {PAGE}")
        clips = []
        for number, folder in enumerate(found, 1):
            if int(re.search(r"\d+$", folder.name)[0]) != number:
                raise DatasetError(f"{base}: clip {number} is missing before {folder.name}; the set is incomplete, "
                                   f"fetch it again from {PAGE}")
            masks = base / f"{folder.name}_gt" if self.layout == "official" else base.parent / "masks" / folder.name
            clips.append(_Clip(f"{split}_{number:02d}", folder, masks if masks.is_dir() else None))
        return clips

    def _train(self, clip: _Clip) -> Video:
        frames = open_frames(clip.frames, native_fps=FPS)
        return Video(clip.id, self.name, frames, scene=self.name, labels=np.zeros(len(frames), np.uint8),
                     masks=partial(_no_masks, len(frames), frames.size), tracks=_no_tracks)

    def _test(self, clips: list[_Clip]) -> tuple[Video, ...]:
        places = [self.path / "Test" / self.script, self.path / self.script]
        script = next((place for place in places if place.is_file()), None)
        if script is None:
            raise DatasetError(f"{places[self.layout != 'official']}: the script with the frame labels is missing; "
                               f"fetch it from {PAGE}")
        ranges = parse_script(script)
        if len(ranges) != len(clips):
            raise DatasetError(f"{script}: it labels {len(ranges)} clips, there are {len(clips)} in "
                               f"{clips[0].frames.parent}; the set is incomplete, fetch it again from {PAGE}")
        return tuple(self._labelled(clip, spans, script) for clip, spans in zip(clips, ranges, strict=True))

    def _labelled(self, clip: _Clip, spans: list[tuple[int, int]], script: Path) -> Video:
        frames = open_frames(clip.frames, native_fps=FPS)
        if spans and max(stop for _, stop in spans) > len(frames):
            raise DatasetError(f"{script}: it labels frame {max(stop for _, stop in spans)} of clip {clip.id}, which "
                               f"has {len(frames)} in {clip.frames}; fetch the set again from {PAGE}")
        labels = np.zeros(len(frames), np.uint8)
        for start, stop in spans:
            labels[start:stop] = 1
        masks = None
        if clip.masks is not None:
            paths = list_images(clip.masks)
            if len(paths) != len(frames):
                raise DatasetError(f"{clip.masks}: wanted {len(frames)} masks for clip {clip.id}, got {len(paths)}; "
                                   f"fetch the set again from {PAGE}")
            masks = PackedMasks(paths, size=frames.size, clip=clip.id)
        return Video(clip.id, self.name, frames, scene=self.name, masks=masks,
                     labels=partial(self._checked, clip.id, labels, masks, script),
                     tracks=partial(_tracks, masks, len(frames)) if masks else None,
                     events=tuple(Event("anomaly", start, stop) for start, stop in spans))

    def _checked(self, clip: str, labels: UInt8[np.ndarray, "n"], masks: PackedMasks | None, script: Path
                 ) -> UInt8[np.ndarray, "n"]:
        if masks is not None and self._on_conflict == "raise":
            differing = np.flatnonzero(masks.labels() != labels)
            if len(differing):
                raise DatasetError(f"{script}: clip {clip}: its pixel masks contradict it in {len(differing)} of "
                                   f"{len(labels)} frames, first in frame {differing[0] + 1} (counted from 1); fetch "
                                   f"the set again from {PAGE}, or pass on_conflict='script' to trust the script")
        return labels


class UCSDPed2(UCSD):
    """UCSD Pedestrian 2: 16 normal clips, 12 test clips of 2,010 frames, 1,648 of them anomalous."""

    name = folder = "ucsd_ped2"
    aliases = ("UCSDped2", "UCSD_Anomaly_Dataset.v1p2/UCSDped2")
    script = "UCSDped2.m"
    counts = {"train": (16, 2550), "test": (12, 2010)}


class UCSDPed1(UCSD):
    """UCSD Pedestrian 1: 34 normal clips and 36 test clips of 200 frames."""

    name = folder = "ucsd_ped1"
    aliases = ("UCSDped1", "UCSD_Anomaly_Dataset.v1p2/UCSDped1")
    script = "UCSDped1.m"
    counts = {"train": (34, 6800), "test": (36, 7200)}


def _no_masks(count: int, size: tuple[int, int], start: int, stop: int) -> UInt8[np.ndarray, "m h w"]:
    if not 0 <= start <= stop <= count:
        raise DatasetError(f"wanted masks {start}:{stop}, the clip has {count}")
    return np.zeros((stop - start, *size), np.uint8)


def _no_tracks() -> GroundTruthTracks:
    return GroundTruthTracks(track=np.zeros(0, int), frame=np.zeros(0, int), box=np.zeros((0, 4)))


def _tracks(masks: PackedMasks, count: int) -> GroundTruthTracks:
    return tracks_from_masks(masks(0, count), kind="binary")
