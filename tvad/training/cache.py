"""Frozen features of frame pairs, kept on disk so that decoder training never runs the vision tower.

One temporal patch (two frames) is the unit: the tower's attention never crosses temporal patches, so a pair seen alone
gives the same taps as within its clip.  At 240x360 a pair costs 1.3 MB in float16; a whole data set would be some
16 GB, so each video keeps a bounded choice of its pairs (``tvad.training.targets.choose_pairs``).

One safetensors file a video: ``taps`` (p, k, h, w, c) float16, ``share`` and ``centre`` (p, h, w) uint8 targets.  Its
name and header hold the key: hash of frames, annotation, chosen pairs, tower and taps.  Files are written beside and
renamed, so a broken run resumes after the last whole video; a damaged or foreign file is made again, and that is said.
Flips and crops of stored features are no augmentation: position is encoded in them and windows are not symmetric.
"""
from __future__ import annotations

import hashlib
import json
import logging
import re
import zlib
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Mapping, Sequence

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from safetensors.numpy import save
from torch import Tensor
from tqdm.auto import tqdm

from tvad.backbones.refilm import disturb, reframe
from tvad.cores import on_each_core
from tvad.errors import DatasetError
from tvad.record import atomic_write
from tvad.training.targets import cover, labels_of, masks_of, nearest, pair_labels
from tvad.video.clip import Clip

_LOG = logging.getLogger(__name__)
_FORMAT = "pairs-1"
_HALF_MAX = 65504.0


@dataclass(frozen=True)
class PairFile:
    """Where the pairs of one video lie: byte offset and shape of the taps within the file, and the small targets."""
    path: Path
    video: str
    starts: tuple[int, ...]
    anomalous: UInt8[np.ndarray, "p"]
    offset: int
    shape: tuple[int, ...]
    share: UInt8[np.ndarray, "p h w"]
    centre: UInt8[np.ndarray, "p h w"]


class PairSet:
    """All cached pairs of a split as one sequence of rows, in the order of its videos.

    Attributes: ``grid`` (h, w) of the heatmap; ``taps`` number of taps; ``anomalous`` (n,) 1 for a pair with an
    anomalous frame; ``videos`` (n,) index of each row's video.
    """

    def __init__(self, files: Sequence[PairFile]) -> None:
        if not files:
            raise DatasetError("no videos to cache; the split is empty")
        grids = {file.shape[2:4] for file in files}
        if len(grids) > 1:
            raise DatasetError(f"{files[0].video}: the split mixes frame sizes (heatmap grids {sorted(grids)}); "
                               "open the data set with one size")
        self.files = tuple(files)
        self.taps, self.grid = files[0].shape[1], tuple(files[0].shape[2:4])
        self.anomalous = np.concatenate([file.anomalous for file in files])
        self.videos = np.repeat(np.arange(len(files)), [len(file.starts) for file in files])
        self._place = np.concatenate([np.arange(len(file.starts)) for file in files])

    def __len__(self) -> int:
        return len(self.videos)

    @property
    def key(self) -> str:
        """Hash of what is cached, for resuming a training run."""
        names = [file.path.name for file in self.files]
        return hashlib.sha256("\n".join(names).encode()).hexdigest()[:16]

    def targets(self, *, rule: str, threshold: float = 0.25) -> UInt8[np.ndarray, "n h w"]:
        """Patch labels of all rows by ``rule`` (see ``tvad.training.targets.labels_of``)."""
        share = np.concatenate([file.share for file in self.files]).astype(np.float32) / 255
        return labels_of(share, np.concatenate([file.centre for file in self.files]), rule=rule, threshold=threshold)

    def read(self, rows: Int[np.ndarray, "b"]) -> list[Float[Tensor, "b h w c"]]:
        """The taps of some rows, float32, one tensor a tap."""
        batch = np.stack([self._map(self.files[self.videos[row]])[self._place[row]] for row in rows])
        return list(torch.from_numpy(batch.swapaxes(0, 1).astype(np.float32)))

    def read_patches(self, rows: Int[np.ndarray, "b"],
                     patches: Int[np.ndarray, "b m"]) -> list[Float[Tensor, "b 1 m c"]]:
        """Of each row only some patches (flat raster indices), float32, one tensor a tap."""
        picked = []
        for row, chosen in zip(rows, patches):
            taps = self._map(self.files[self.videos[row]])[self._place[row]]
            picked.append(taps.reshape(self.taps, -1, taps.shape[-1])[:, chosen])
        batch = np.stack(picked).swapaxes(0, 1).astype(np.float32)
        return list(torch.from_numpy(batch[:, :, None]))

    def summary(self) -> dict[str, Any]:
        """Counts for provenance: videos, pairs, anomalous pairs, share of touched patches, bytes on disk."""
        touched = np.concatenate([(file.share > 0).mean(axis=(1, 2)) for file in self.files])
        return {"videos": len(self.files), "pairs": len(self), "anomalous_pairs": int(self.anomalous.sum()),
                "anomalous_patches": float(touched.mean()), "bytes": sum(f.path.stat().st_size for f in self.files)}

    @staticmethod
    def _map(file: PairFile) -> np.ndarray:
        # Mapped anew each time: a mapping that is kept counts as the process' own memory page by page.
        return np.memmap(file.path, np.float16, "r", offset=file.offset, shape=file.shape)


def cache_pairs(backbone: Any, videos: Sequence[Any], *, starts: Mapping[str, Sequence[int]], root: Path | str,
                batch: int = 8, part: tuple[int, int] = (0, 1), refilmed: float = 0.0,
                progress: bool = True) -> PairSet | None:
    """Make what is missing under ``root`` and open the pairs of all ``videos``.

    ``starts``: the chosen pairs of each video id. ``refilmed``: share of the pairs that are seen through another
    camera's photometry (``tvad.backbones.refilm``), drawn by video and start. ``batch``: pairs that the tower sees
    together.
    ``part``: (rank, count) makes only every ``count``-th video and returns None where other ranks have more to make;
    call it again after a barrier with (0, 1).
    Raises :class:`tvad.errors.DatasetError` for anomalous frames without masks, and StorageError when the disk refuses.
    """
    rank, count = part
    own = [video for video in videos[rank::count] if len(starts[video.id])]
    jobs = (_wanted(backbone, video, tuple(map(int, starts[video.id])), Path(root), refilmed) for video in own)
    done = on_each_core(partial(_made, backbone, batch), jobs, device=getattr(backbone, "device", "cpu"))
    files = list(tqdm(done, desc="tower features", unit="video", total=len(own), disable=not progress))
    return PairSet(files) if count == 1 else None


def pairs_missing(backbone: Any, videos: Sequence[Any], *, starts: Mapping[str, Sequence[int]], root: Path | str,
                  refilmed: float = 0.0) -> int:
    """How many pairs :func:`cache_pairs` would have to make, told by the names of the files alone."""
    chosen = [(video, tuple(map(int, starts[video.id]))) for video in videos]
    return sum(len(own) for video, own in chosen
               if own and not _path(backbone, video, _key(backbone, video, own, refilmed), Path(root)).is_file())


def prune(root: Path | str, *, keep: Sequence[PairSet], limit_bytes: int) -> int:
    """Delete cached files that no set in ``keep`` uses, oldest first, until ``root`` is within the limit.

    Returns the bytes freed, those that another process frees meanwhile among them.
    """
    used = {file.path for pairs in keep for file in pairs.files}
    found = []
    for path in Path(root).glob("*/*.safetensors"):
        with suppress(FileNotFoundError):
            found.append((path.stat().st_mtime, path.stat().st_size, path))
    size, freed = sum(own for _, own, _ in found), 0
    for _, own, path in sorted(found):
        if size - freed <= limit_bytes:
            break
        if path not in used:
            freed += own
            path.unlink(missing_ok=True)
    return freed


def tower_key(backbone: Any) -> str:
    """Identity of the features: the tower's own hash where the backbone tells it apart from its text part."""
    return getattr(backbone, "vision_fingerprint", backbone.fingerprint)


def _key(backbone: Any, video: Any, starts: tuple[int, ...], refilmed: float) -> str:
    annotation = zlib.crc32(np.asarray(video.labels, np.uint8).tobytes())
    # Fingerprints are of the stored weights; features also differ with the dtype they are computed in.
    parts = [_FORMAT, tower_key(backbone), str(getattr(backbone, "dtype", "")), list(backbone.taps), video.dataset,
             video.id, video.frames.fingerprint, annotation,
             [[event.kind, event.start, event.stop] for event in video.events], starts,
             *([refilmed] if refilmed else [])]
    return hashlib.sha256(json.dumps(parts, default=str).encode()).hexdigest()[:24]


def _path(backbone: Any, video: Any, key: str, root: Path) -> Path:
    name = re.sub(r"[^\w.-]+", "_", f"{video.dataset}-{video.id}")
    return root / tower_key(backbone)[:16] / f"{name}-{key}.safetensors"


@dataclass(frozen=True)
class _Wanted:
    """A file that is to be made, and the pairs with their masks that go into it."""
    video: Any
    starts: tuple[int, ...]
    path: Path
    key: str
    seen: list[tuple[Clip, UInt8[np.ndarray, "t h w"]]]


def _wanted(backbone: Any, video: Any, starts: tuple[int, ...], root: Path, refilmed: float) -> PairFile | _Wanted:
    """The video's file if it is there, else what is needed to make it."""
    key = _key(backbone, video, starts, refilmed)
    path = _path(backbone, video, key, root)
    if path.is_file():
        found = _open(path, key, video, starts)
        if isinstance(found, PairFile):
            return found
        _LOG.warning("%s: %s; making it again", path, found)
    seen = [seen_pair(video, start, backbone.temporal_patch_size, refilmed) for start in starts]
    return _Wanted(video, starts, path, key, seen)


def _made(backbone: Any, batch: int, job: PairFile | _Wanted) -> PairFile:
    if isinstance(job, PairFile):
        return job
    arrays = _extract(backbone, job.seen, batch)
    header = {"key": job.key, "format": _FORMAT, "crc": json.dumps({name: zlib.crc32(a) for name, a in arrays.items()})}
    with atomic_write(job.path, synced=False) as file:
        file.write(save(arrays, header))
    found = _open(job.path, job.key, job.video, job.starts)
    if not isinstance(found, PairFile):
        raise DatasetError(f"{job.path}: {found} right after writing; check the disk and run again")
    return found


def seen_pair(video: Any, start: int, length: int, refilmed: float) -> tuple[Clip, UInt8[np.ndarray, "t h w"]]:
    """The pair as the tower is to see it, and its masks: as filmed, or by chance through another camera."""
    stop = min(start + length, len(video.frames))
    frames = video.frames.read(start, stop)
    masks = masks_of(video, start, stop, frames.shape[1:3])
    rng = np.random.default_rng([zlib.crc32(video.id.encode()), start])
    if rng.random() < refilmed:
        frames, masks = reframe(frames, masks.astype(np.uint8), rng)
        generator = torch.Generator().manual_seed(int(rng.integers(2**31)))
        frames = disturb(torch.from_numpy(frames)[None], generator)[0].numpy()
    return Clip(frames, video.frames.fps, start, video.id), masks


def _extract(backbone: Any, seen: Sequence[tuple[Clip, UInt8[np.ndarray, "t h w"]]], batch: int) -> dict[str, np.ndarray]:
    parts, share, centre = [], [], []
    for first in range(0, len(seen), batch):
        some = seen[first:first + batch]
        for (_, masks), sight in zip(some, backbone.see_many([clip for clip, _ in some])):
            stacked = torch.stack([tap[0] for tap in sight.taps]).float().clamp(-_HALF_MAX, _HALF_MAX)
            parts.append(stacked.half().cpu().numpy())
            share.append(cover(masks, parts[-1].shape[1:3]))
            centre.append(nearest(masks, parts[-1].shape[1:3]))
    # 255 levels of cover are enough for every rule; rounding up keeps a touched patch touched.
    levels = np.ceil(np.stack(share) * 255).astype(np.uint8)
    return {"taps": np.stack(parts), "share": levels, "centre": np.stack(centre)}


def _open(path: Path, key: str, video: Any, starts: tuple[int, ...]) -> PairFile | str:
    """The file's layout, or what is wrong with it."""
    try:
        with open(path, "rb") as file:
            length = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(length))
            meta, taps = header["__metadata__"], header["taps"]
            if meta.get("key") != key:
                return "holds the features of another video or tower"
            crc, small = json.loads(meta["crc"]), {}
            for name in ("share", "centre", "taps"):
                begin, end = header[name]["data_offsets"]
                file.seek(8 + length + begin)
                small[name] = file.read(end - begin)
                if zlib.crc32(small[name]) != crc[name]:
                    return f"damaged (checksum of {name})"
    except (OSError, ValueError, KeyError, TypeError, OverflowError, MemoryError) as error:
        return f"damaged ({type(error).__name__}: {error})"
    share, centre = (np.frombuffer(small[name], np.uint8).reshape(header[name]["shape"]) for name in ("share", "centre"))
    return PairFile(path, video.id, starts, pair_labels(video)[list(starts)], 8 + length + begin,
                    tuple(taps["shape"]), share, centre)
