"""Room on the disk for what an adaptation keeps there: asked for before hours of work, and given back after a kill.

Features of a pair take two bytes a number: at 240x360 some 1.3 MB, and zoom squared times as much where pictures are
enlarged.  What serves one run alone lies in folders that name their process, so that a later run knows which are left over.
"""
from __future__ import annotations

import os
import platform
import re
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tvad.errors import StorageError
from tvad.training.cache import pairs_missing

_HALF = 2           # bytes of a feature


def pair_bytes(backbone: Any, size: tuple[int, int]) -> int:
    """Bytes of the features of one pair of frames of ``size`` (h, w); 0 for a backbone that does not tell its geometry."""
    if not hasattr(backbone, "seen_size"):
        return 0
    height, width = backbone.seen_size(*size)
    patches = (height // backbone.patch_size) * (width // backbone.patch_size)
    return patches * (len(backbone.taps) * backbone.tap_width * _HALF + 2)      # and a byte for each of two targets


def features_bytes(backbone: Any, videos: Sequence[Any], *, starts: Mapping[str, Sequence[int]], root: Path,
                   refilmed: float = 0.0) -> int:
    """Bytes that pairs of videos still need under ``root``, as :func:`tvad.training.cache.cache_pairs` takes them."""
    missing = pairs_missing(backbone, videos, starts=starts, root=root, refilmed=refilmed)
    return missing * pair_bytes(backbone, tuple(videos[0].frames.size)) if missing else 0


def check_room(root: Path, needed: int, *, pairs: int) -> None:
    """Raise :class:`StorageError` where the disk of ``root`` has no room for ``needed`` bytes, features of ``pairs``."""
    there = root.absolute()
    while not there.exists():
        there = there.parent
    free = shutil.disk_usage(there).free
    if needed > free:
        raise StorageError(f"{root}: the features of {pairs} pairs need {needed / 1e9:.2f} GB more, {free / 1e9:.2f} GB "
                           "are free; free space there, or adapt with fewer pairs (composites, normal, val_composites, "
                           "val_normal), with zooms=(1.0,) or to smaller footage")


def scratch(cache: Path, prefix: str) -> tempfile.TemporaryDirectory:
    """A folder for what serves one run alone, beside the cached features, gone when it is closed.

    Folders that killed runs of this machine left behind are deleted.
    """
    cache.mkdir(parents=True, exist_ok=True)
    # A process number means something on its own machine alone.
    own = f"{prefix}{re.sub(r'[^A-Za-z0-9]+', '_', platform.node())}-"
    for folder in cache.glob(f"{own}*"):
        number = re.match(r"(\d+)-", folder.name[len(own):])
        if number and not _runs(int(number[1])):
            shutil.rmtree(folder, ignore_errors=True)
    return tempfile.TemporaryDirectory(prefix=f"{own}{os.getpid()}-", dir=cache)


def _runs(process: int) -> bool:
    try:
        os.kill(process, 0)     # asks, and sends nothing
    except ProcessLookupError:
        return False
    except OSError:
        pass                    # of another user
    return True
