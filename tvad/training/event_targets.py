"""Which event each patch of the cached pairs shows: the targets of query heatmaps.

The feature cache keeps where anomalous targets are, not which.  The masks of a pair hold its instances, and the video's
events say what each instance does, so the kinds are read anew from there, through the same camera as the features were.
Where targets of two kinds touch a patch, the one that covers more of it counts.
"""
from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Int, UInt8

from tvad.errors import DatasetError
from tvad.training.cache import PairSet, seen_pair
from tvad.training.targets import cover

UNNAMED = 255


def event_targets(videos: Sequence[Any], pairs: PairSet, names: Sequence[str], *, temporal_patch_size: int,
                  refilmed: float = 0.0) -> UInt8[np.ndarray, "n h w"]:
    """For each row of ``pairs`` and each patch: 0 nothing, 1 + k the event ``names[k]``, ``UNNAMED`` any other.

    ``videos`` are those the pairs were cached from, in any order; ``refilmed`` as it was then.
    Raises :class:`DatasetError` where an anomalous instance belongs to no event, or a video is missing.
    """
    known = {video.id: video for video in videos}
    maps = []
    for file in pairs.files:
        if file.video not in known:
            raise DatasetError(f"{file.video}: its features are cached, but the video is not in the split; open the "
                               "split that the pairs were made from")
        video = known[file.video]
        kinds = kinds_of(video)
        for start, share in zip(file.starts, file.share):
            if not share.any():
                maps.append(np.zeros(pairs.grid, np.uint8))
                continue
            _, masks = seen_pair(video, start, temporal_patch_size, refilmed)
            maps.append(kind_map(masks, kinds, names, pairs.grid, video.id))
    return np.stack(maps)


def kinds_of(video: Any) -> dict[int, str]:
    """The event of each anomalous target of a video, by its id in the masks.

    Raises :class:`DatasetError` where a target does two kinds of events, which masks do not tell apart.
    """
    kinds: dict[int, str] = {}
    for event in video.events:
        if kinds.setdefault(event.target, event.kind) != event.kind:
            raise DatasetError(f"{video.dataset}/{video.id}: target {event.target} is in the events "
                               f"{kinds[event.target]!r} and {event.kind!r}; give each its own target")
    return kinds


def kind_map(masks: Int[np.ndarray, "t h w"], kinds: dict[int, str], names: Sequence[str], grid: tuple[int, int],
             video: str = "video") -> UInt8[np.ndarray, "gh gw"]:
    """The kinds of one pair on the patch grid, coded as in :func:`event_targets`; ``kinds``: event of each instance."""
    shares: dict[int, np.ndarray] = {}
    for target in np.unique(masks[masks > 0]).tolist():
        if target not in kinds:
            raise DatasetError(f"{video}: instance {target} is anomalous but does none of the video's events; query "
                               "heatmaps need a data set that names the event of each target")
        code = names.index(kinds[target]) + 1 if kinds[target] in names else UNNAMED
        part = cover(masks == target, grid)
        shares[code] = np.maximum(shares.get(code, 0), part)
    found, best = np.zeros(grid, np.uint8), np.zeros(grid, np.float32)
    for code, share in shares.items():
        found[share > best] = code
        best = np.maximum(best, share)
    return found
