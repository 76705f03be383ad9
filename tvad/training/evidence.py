"""What a conversation about a clip is trained on, kept on disk: merged video tokens, colours, heatmap, ground-truth map.

The tower and the heatmap decoder are frozen in phase 2, so each clip passes them once; every epoch, seed and ablation
reads files.  Four safetensors files a clip, each with a key in its name and header:

    tokens  (n, d) float16      of the tower and the clip's frames; all variants share them
    paint   (t, y, x, 3) uint8  colours of the frames' cells (``tvad.region.paint``)
    heat    (t, h, w) float16   of tower, decoder and prototypes: another decoder makes new ones beside
    mask    (t, h, w) uint8     of the annotation: 1 for every patch that an anomalous target touches

At 240x360 a clip of 16 frames costs 1.2 MB, at 476x868 and 7B one of 24 frames 45 MB.
"""
from __future__ import annotations

import hashlib
import json
import logging
import re
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save
from torch import Tensor
from tqdm.auto import tqdm

from tvad.conversation.economy import thinned
from tvad.cores import on_each_core
from tvad.errors import DatasetError
from tvad.record import atomic_write
from tvad.region.paint import is_grey, paint_of, painted
from tvad.training.cache import tower_key
from tvad.training.people import Person, people_of
from tvad.training.targets import cover, masks_of
from tvad.video.clip import Clip

_LOG = logging.getLogger(__name__)
_FORMAT = "clips-3"
_HALF_MAX = 65504.0
_SEEN = ("tokens", "paint", "heat")     # made in one pass


@dataclass(frozen=True)
class ClipRange:
    """Frames ``start:stop`` of a video."""

    video: str
    start: int
    stop: int

    def __str__(self) -> str:
        return f"{self.video}-{self.start}-{self.stop}"


class ClipSet:
    """The cached clips of a split, by number in the order of ``clips``.

    ``grids``: (t, h, w) in patches of each clip; ``fps`` of each; ``patch_frames``: frames of a temporal patch,
    of which every ``every``-th was seen; ``people``: the ordinary ones of each clip, where a script knows them.
    Maps lie in memory (float32), tokens and colours are read from disk.
    """

    def __init__(self, clips: Sequence[ClipRange], *, tokens: Sequence[Path], paint: Sequence[Path],
                 heat: Sequence[np.ndarray], mask: Sequence[np.ndarray] | None, grids: Sequence[tuple[int, int, int]],
                 fps: Sequence[float], patch_frames: int, merge: int, every: int = 1,
                 people: Sequence[Sequence[Person]] = ()) -> None:
        self.clips, self.grids, self.fps = tuple(clips), tuple(grids), tuple(fps)
        self.patch_frames, self.every, self.merge, self.people = patch_frames, every, merge, tuple(people)
        self._tokens, self._paint = tuple(tokens), tuple(paint)
        self._heat, self._mask = tuple(heat), None if mask is None else tuple(mask)
        self.number: Mapping[ClipRange, int] = {clip: number for number, clip in enumerate(self.clips)}

    def __len__(self) -> int:
        return len(self.clips)

    @property
    def key(self) -> str:
        """Hash of what is cached, for resuming a training run."""
        names = [path.name for path in (*self._tokens, *self._paint)]
        sums = [zlib.crc32(part.tobytes()) for part in (*self._heat, *(self._mask or ()))]
        return hashlib.sha256(json.dumps([names, sums]).encode()).hexdigest()[:16]

    def tokens(self, number: int) -> Float[Tensor, "n d"]:
        """Merged tokens of a clip, float16, in the order in which the language model reads them."""
        with safe_open(self._tokens[number], framework="pt") as file:
            return file.get_tensor("tokens")

    def look(self, number: int) -> Float[Tensor, "n e"]:
        """The merged tokens with the colours of their cells behind them."""
        return painted(self.tokens(number), self.paint(number), self.merge)

    def paint(self, number: int) -> UInt8[np.ndarray, "t y x 3"]:
        """The colours of a clip's cells."""
        with safe_open(self._paint[number], framework="np") as file:
            return file.get_tensor("paint")

    def heat(self, number: int) -> Float[Tensor, "t h w"]:
        """The decoder's anomaly probability of each patch."""
        return torch.from_numpy(self._heat[number].astype(np.float32))

    def mask(self, number: int) -> Float[Tensor, "t h w"]:
        """1 where an anomalous target touches the patch, else 0: what a perfect decoder would say.

        Raises DatasetError where the ground truth was not cached.
        """
        if self._mask is None:
            raise DatasetError(f"{self.clips[number]}: its ground-truth map was not cached; cache_clips(…, masks=True)")
        return torch.from_numpy(self._mask[number].astype(np.float32))


def cache_clips(backbone: Any, decoder: Any, clips: Sequence[ClipRange], videos: Mapping[str, Any], *,
                prototypes: Float[Tensor, "2 d"], root: Path | str, masks: bool = False, every: int = 1,
                batch: int = 4, part: tuple[int, int] = (0, 1), progress: bool = True) -> ClipSet | None:
    """Make what is missing under ``root`` and open the clips.

    ``videos`` by id. ``masks``: also the ground-truth maps. ``every``: the tower sees every so-manyth temporal patch of a
    clip; it looks at each by itself, so nothing else changes and a clip costs that much less. ``batch``: clips of one
    size a pass of the tower. ``part``: (rank, count) makes every ``count``-th clip and returns None where other ranks
    have more to make; call it again after a barrier with (0, 1).
    Raises DatasetError for an unknown video or a range outside it, StorageError when the disk refuses.
    """
    for clip in clips:
        _check(clip, videos)
    store = _Store(Path(root) / "clips", backbone, decoder, prototypes, every)
    own = list(clips)[part[0]::part[1]]
    missing = [clip for clip in own if not store.has(clip, videos[clip.video])]
    groups = _alike(missing, videos, batch)
    jobs = (store.read(group, videos) for group in groups)
    for _ in tqdm(on_each_core(store.see, jobs, device=getattr(backbone, "device", "cpu")), desc="clip features",
                  unit="pass", total=len(groups), disable=not (progress and groups)):
        pass
    if part[1] > 1:
        return None
    found = [store.open(clip, videos[clip.video], masks=masks) for clip in own]
    return ClipSet(own, tokens=[item.tokens for item in found], paint=[item.paint for item in found],
                   heat=[item.heat for item in found], mask=[item.mask for item in found] if masks else None,
                   grids=[item.grid for item in found], fps=[videos[clip.video].frames.fps for clip in own],
                   patch_frames=backbone.temporal_patch_size, merge=backbone.merge_size, every=every,
                   people=[item.people for item in found])


def decoder_key(decoder: Any, prototypes: Float[Tensor, "2 d"]) -> str:
    """Hash of what makes heatmaps of tapped features: the decoder's weights and the prototypes."""
    digest = hashlib.sha256(prototypes.float().cpu().numpy().tobytes())
    for name, value in sorted(decoder.state_dict().items()):
        digest.update(name.encode() + value.cpu().float().numpy().tobytes())
    return digest.hexdigest()[:16]


def _check(clip: ClipRange, videos: Mapping[str, Any]) -> None:
    if clip.video not in videos:
        raise DatasetError(f"{clip.video}: the conversations speak of a video that is not among the {len(videos)} given; "
                           "were they made from this data set and split?")
    if not 0 <= clip.start < clip.stop <= len(videos[clip.video]):
        raise DatasetError(f"{clip.video}: frames {clip.start} to {clip.stop} asked for, the video has "
                           f"{len(videos[clip.video])}; were the conversations made from this data set?")


def _alike(clips: Sequence[ClipRange], videos: Mapping[str, Any], batch: int) -> list[list[ClipRange]]:
    by_size: dict[tuple, list[ClipRange]] = {}
    for clip in clips:
        by_size.setdefault(tuple(videos[clip.video].frames.size), []).append(clip)
    return [group[first:first + batch] for group in by_size.values() for first in range(0, len(group), batch)]


@dataclass(frozen=True)
class _Opened:
    """A clip's files and what is kept of them in memory."""

    tokens: Path
    paint: Path
    heat: np.ndarray
    mask: np.ndarray | None
    grid: tuple[int, int, int]
    people: tuple[Person, ...]


class _Store:
    """The files of one tower and decoder."""

    def __init__(self, root: Path, backbone: Any, decoder: Any, prototypes: Float[Tensor, "2 d"], every: int) -> None:
        self.root, self.backbone, self.decoder, self.prototypes = root, backbone, decoder, prototypes.float()
        self.every = every
        self.decoder_key = decoder_key(decoder, prototypes)

    def path(self, clip: ClipRange, video: Any, kind: str, *, grid: Sequence[int] = ()) -> Path:
        tower, dtype = tower_key(self.backbone), str(getattr(self.backbone, "dtype", ""))
        made_by = {"tokens": [tower, dtype], "paint": [tower],
                   "heat": [tower, dtype, list(self.backbone.taps), self.decoder_key],
                   "mask": [list(grid), *_annotation(video)]}[kind]
        parts = [_FORMAT, self.every, kind, made_by, video.dataset, str(clip), video.frames.fingerprint]
        key = hashlib.sha256(json.dumps(parts, default=str).encode()).hexdigest()[:24]
        name = re.sub(r"[^\w.-]+", "_", f"{video.dataset}-{clip}")
        return self.root / tower[:16] / f"{name}-{kind}-{key}.safetensors"

    def has(self, clip: ClipRange, video: Any) -> bool:
        return all(_read(self.path(clip, video, kind)) is not None for kind in _SEEN)

    def read(self, group: Sequence[ClipRange], videos: Mapping[str, Any]) -> list[tuple[Clip, list[Path]]]:
        """The clips as the tower is to see them, and where what it sees belongs."""
        found = []
        for clip in group:
            frames = videos[clip.video].frames
            shown = thinned(frames.read(clip.start, clip.stop), every=self.every, patch=self.backbone.temporal_patch_size)
            found.append((Clip(shown, frames.fps, clip.start, clip.video),
                          [self.path(clip, videos[clip.video], kind) for kind in _SEEN]))
        return found

    def see(self, group: Sequence[tuple[Clip, Sequence[Path]]]) -> None:
        """One pass of the tower over some clips; writes what was seen."""
        for (clip, paths), sight in zip(group, self.backbone.see_many([clip for clip, _ in group], tokens=True)):
            with torch.inference_mode():
                heat = self.decoder.heatmap(sight.taps, self.prototypes)
            tokens = sight.tokens.float().clamp(-_HALF_MAX, _HALF_MAX)
            grid = json.dumps(list(sight.grid))
            paint = paint_of(clip.frames, sight.grid, patch_frames=self.backbone.temporal_patch_size)
            values = tokens.half().cpu().numpy(), paint, heat.half().cpu().numpy()
            for path, kind, value in zip(paths, _SEEN, values, strict=True):
                _write(path, kind, value, grid)

    def open(self, clip: ClipRange, video: Any, *, masks: bool) -> _Opened:
        read = {kind: _read(self.path(clip, video, kind)) for kind in _SEEN}
        for kind, found in read.items():
            if found is None:
                raise DatasetError(f"{self.path(clip, video, kind)}: unreadable right after writing; check the disk and "
                                   "run again")
        heat, grid = read["heat"]
        mask = self._mask(clip, video, grid) if masks else None
        starts = thinned(np.arange(clip.start, clip.stop), every=self.every, patch=self.backbone.temporal_patch_size)
        people = people_of(video, starts[::self.backbone.temporal_patch_size], grid=grid, grey=is_grey(read["paint"][0]))
        return _Opened(self.path(clip, video, "tokens"), self.path(clip, video, "paint"), heat, mask, grid, people)

    def _mask(self, clip: ClipRange, video: Any, grid: tuple[int, int, int]) -> np.ndarray:
        path = self.path(clip, video, "mask", grid=grid)
        found = _read(path)
        if found is None:
            masks = masks_of(video, clip.start, clip.stop, tuple(video.frames.size))
            step = self.backbone.temporal_patch_size
            masks = thinned(masks, every=self.every, patch=step)
            maps = [cover(masks[first:first + step], grid[1:]) > 0 for first in range(0, len(masks), step)]
            _write(path, "mask", np.stack(maps).astype(np.uint8), json.dumps(list(grid)))
            found = _read(path)
        return found[0]


def _annotation(video: Any) -> list:
    labels = 0 if video.labels is None else zlib.crc32(np.asarray(video.labels, np.uint8).tobytes())
    return [labels, [[event.kind, event.start, event.stop] for event in video.events]]


def _write(path: Path, kind: str, value: np.ndarray, grid: str) -> None:
    with atomic_write(path, synced=False) as file:
        file.write(save({kind: np.ascontiguousarray(value)}, {"grid": grid, "crc": str(zlib.crc32(value.tobytes()))}))


def _read(path: Path) -> tuple[np.ndarray, tuple[int, int, int]] | None:
    """A file's array and grid; None where it is missing or damaged, which is said."""
    if not path.is_file():
        return None
    try:
        with safe_open(path, framework="np") as file:
            header = file.metadata()
            value = file.get_tensor(next(iter(file.keys())))
            if str(zlib.crc32(value.tobytes())) == header["crc"]:
                return value, tuple(json.loads(header["grid"]))
    except (SafetensorError, OSError, KeyError, TypeError, ValueError, StopIteration) as error:
        _LOG.warning("%s: damaged (%s); making it again", path, error)
        return None
    _LOG.warning("%s: damaged (checksum); making it again", path)
    return None
