"""Masks to tracks: one :class:`MaskTrack` for each target, from instance masks or from binary ones.

The thesis linked centroids within a fixed distance of 87 pixels and never bridged, so a lamp post made two targets of
one.  Here a blob continues a target where it agrees with the predicted position and size (``tvad.language.linking``);
pieces of one target stay together, blobs in which two targets meet are divided, and a target that is hidden for a short
while keeps its identity.
"""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, Int

from tvad.errors import TvadError
from tvad.language.exchanging import exchange
from tvad.language.linking import link
from tvad.language.mending import divide_before, give_back, settle, stitch
from tvad.language.parting import part_people
from tvad.language.target import Blob, Target
from tvad.language.ungluing import unglue
from tvad.metrics.components import label_frames
from tvad.metrics.region import GroundTruthTracks

MAX_GAP = 15          # frames; 1.5 s at 10 frames/s, somebody passing behind a van
LEAST_AREA = 12       # pixels below which a blob founds no target; half of what SimCampus calls visible
_LARGE_ID = 2**31     # from which ids are numbered anew, so that frame times id stays a whole number of 64 bits


class MaskError(TvadError, ValueError):
    """Masks are empty, of another size or kind than said, or the columns of a track contradict each other."""


@dataclass(frozen=True, eq=False)
class MaskTrack:
    """One target: k rows, one for each frame in which it is seen.

    Args:
        id: unique among the tracks of a clip.
        frames: rising, counted from the first mask.
        boxes: x1, y1, x2, y2 of its visible pixels, inclusive.
        centres: x, y of the middle of the box (not of the pixels: a box can be had without a mask).
        areas: visible pixels; of pixels shared with another target each gets its part.

    Raises:
        MaskError: no row, columns of different length, boxes that are none, or frames that do not rise.
    """

    id: int
    frames: Int[np.ndarray, "k"]
    boxes: Float[np.ndarray, "k 4"]
    centres: Float[np.ndarray, "k 2"]
    areas: Int[np.ndarray, "k"]

    def __post_init__(self) -> None:
        rows = len(self.frames)
        if not rows:
            raise MaskError(f"track {self.id} has no frame; leave it out")
        for name, shape in (("boxes", (rows, 4)), ("centres", (rows, 2)), ("areas", (rows,))):
            if np.shape(getattr(self, name)) != shape:
                raise MaskError(f"track {self.id}: {name} has shape {np.shape(getattr(self, name))}, expected {shape} as "
                                f"frames has {rows}")
        boxes = np.asarray(self.boxes, np.float64)
        if not np.isfinite(boxes).all() or (boxes[:, 2:] < boxes[:, :2]).any():
            wrong = int(np.flatnonzero(~np.isfinite(boxes).all(1) | (boxes[:, 2:] < boxes[:, :2]).any(1))[0])
            raise MaskError(f"track {self.id}: box {boxes[wrong].tolist()} in row {wrong} is none; give x1, y1, x2, y2 as "
                            "numbers with x1 <= x2 and y1 <= y2")
        if (np.diff(self.frames) <= 0).any() or self.frames[0] < 0:
            raise MaskError(f"track {self.id}: frames must rise from 0 or more, got {np.asarray(self.frames)[:5].tolist()}"
                            f"{'...' if rows > 5 else ''}; sort the rows and drop doubles")

    def __len__(self) -> int:
        return len(self.frames)

    @classmethod
    def of(cls, id: int, frames: Sequence[int], *, boxes: Sequence[Sequence[float]],
           areas: Sequence[int] | None = None) -> MaskTrack:
        """A track from frames and boxes; ``areas`` of whole boxes where they are not known."""
        boxes = np.asarray(boxes, np.float64).reshape(-1, 4)
        if areas is None:
            areas = (boxes[:, 2] - boxes[:, 0] + 1) * (boxes[:, 3] - boxes[:, 1] + 1)
        centres = (boxes[:, :2] + boxes[:, 2:]) / 2
        return cls(int(id), np.asarray(frames, np.int64), boxes, centres, np.asarray(areas).astype(np.int64))


def tracks_from_instances(
    masks: Int[np.ndarray, "n h w"],
    *,
    ids: Literal["track", "frame"] = "track",
    size: tuple[int, int] | None = None,
    max_gap: int = MAX_GAP,
) -> tuple[MaskTrack, ...]:
    """Tracks of instance masks (0 background, each other value one target), by first appearance.

    Args:
        masks: whole numbers.
        ids: "track" if a value stays with its target through the clip; "frame" if values tell targets apart within one
            frame only (the output of a segmenter), then they are linked by predicted position and size.
        size: (height, width) that the masks must have.
        max_gap: with ids of a frame, the most frames that a target may be hidden and keep its identity.

    Returns:
        The tracks; none for masks of background alone.

    Raises:
        MaskError: no frame at all, another size, fractions, negative values, or values of 2**63 and more.
    """
    masks = _checked(masks, size)
    if ids not in ("track", "frame"):
        raise MaskError(f"ids must be 'track' or 'frame', got {ids!r}")
    rows = _instance_rows(masks)
    if ids == "track":
        found = [(int(value), np.flatnonzero(rows[:, 0] == value)) for value in np.unique(rows[:, 0])]
        tracks = [MaskTrack.of(value, rows[at, 1], boxes=rows[at, 2:6], areas=rows[at, 6]) for value, at in found]
        return tuple(sorted(tracks, key=lambda track: (track.frames[0], track.id)))
    frames: list[list[Blob]] = [[] for _ in range(len(masks))]
    for value, frame, *box, area in rows.tolist():
        frames[frame].append(Blob(*box, area, value))
    return _as_tracks(link(frames, None, max_gap=_gap(max_gap), least_area=1))


def tracks_from_binary(
    masks: Bool[np.ndarray, "n h w"],
    *,
    size: tuple[int, int] | None = None,
    max_gap: int = MAX_GAP,
    least_area: int = LEAST_AREA,
) -> tuple[MaskTrack, ...]:
    """Tracks of binary masks (booleans, or 0 and one other value), by first appearance.

    Args:
        masks: where any target is.
        size: (height, width) that the masks must have.
        max_gap: the most frames that a target may be hidden and keep its identity; ``mending.STAYED`` times as many where
            it comes out about where it was, as large: one who lingers behind a van.
        least_area: fewer pixels than these found no target (they may still belong to one).

    Returns:
        The tracks; none for masks of background alone.

    Raises:
        MaskError: no frame at all, another size, fractions, or more than two values: a label map where a binary mask
            is expected.
    """
    masks = _checked(masks, size)
    if masks.dtype != bool:
        high = int(masks.max())
        if not ((masks == 0) | (masks == high)).all():
            odd = (masks != 0) & (masks != high)
            values = sorted({int(value) for value in np.unique(masks[odd])[:3]} | {high})
            raise MaskError(f"binary masks expected, got a label map with values {', '.join(map(str, values))}; use "
                            "tracks_from_instances, or masks > 0 if the labels are not to be told apart")
    if not isinstance(least_area, (int, np.integer)) or least_area < 1:
        raise MaskError(f"least_area must be 1 pixel or more, got {least_area}")
    targets, labels = targets_of_binary(masks, max_gap=_gap(max_gap), least_area=int(least_area))
    return _as_tracks([person for target in targets for person in part_people(target, labels)])


def targets_of_binary(masks: Bool[np.ndarray, "n h w"], *, max_gap: int = MAX_GAP,
                      least_area: int = LEAST_AREA) -> tuple[list[Target], Int[np.ndarray, "n h w"]]:
    """Linked targets of binary masks before people are told apart, and the label map of their blobs."""
    labels, table = label_frames(masks)
    frames: list[list[Blob]] = [[] for _ in range(len(masks))]
    for label, (frame, *rest) in enumerate(table.tolist(), start=1):
        frames[frame].append(Blob(*rest, label))
    targets = link(frames, labels, max_gap=max_gap, least_area=least_area)
    targets = unglue(targets, frames, labels, max_gap=max_gap, least_area=least_area)
    exchange(targets)
    targets = give_back(stitch(targets, max_gap=max_gap))
    settle(targets, table[:, 5])
    for target in targets:
        divide_before(target, labels)
    return targets, labels


def tracks_from_boxes(truth: GroundTruthTracks) -> tuple[MaskTrack, ...]:
    """Tracks from annotated boxes (``Video.tracks``), by first appearance; areas are those of the boxes."""
    tracks = []
    for value in np.unique(truth.track):
        at = np.flatnonzero(truth.track == value)
        at = at[np.argsort(truth.frame[at], kind="stable")]
        tracks.append(MaskTrack.of(int(value), truth.frame[at], boxes=truth.box[at]))
    return tuple(sorted(tracks, key=lambda track: (track.frames[0], track.id)))


def boxes_of(tracks: Sequence[MaskTrack]) -> GroundTruthTracks:
    """Tracks as the table of boxes that metrics take."""
    if not tracks:
        return GroundTruthTracks(track=np.zeros(0), frame=np.zeros(0), box=np.zeros((0, 4)))
    return GroundTruthTracks(track=np.concatenate([np.full(len(track), track.id) for track in tracks]),
                             frame=np.concatenate([track.frames for track in tracks]),
                             box=np.concatenate([track.boxes for track in tracks]))


def _checked(masks: np.ndarray, size: tuple[int, int] | None) -> np.ndarray:
    masks = np.asarray(masks)
    if masks.ndim != 3:
        raise MaskError(f"masks must be (frames, height, width), got shape {masks.shape}")
    if 0 in masks.shape:
        raise MaskError(f"masks are empty, shape {masks.shape}; give at least one frame with pixels")
    if size is not None and tuple(size) != masks.shape[1:]:
        raise MaskError(f"masks are {masks.shape[1]}x{masks.shape[2]} (height x width), the video is {size[0]}x{size[1]}; "
                        "resize the masks with nearest neighbour first")
    if masks.dtype != bool and not np.issubdtype(masks.dtype, np.integer):
        raise MaskError(f"masks must hold booleans or whole numbers, got {masks.dtype}; threshold a heatmap first")
    if masks.dtype == np.uint64 and masks.max() > np.iinfo(np.int64).max:
        raise MaskError(f"masks hold the value {masks.max()}; ids must be below 2**63, number them anew from 1")
    if np.issubdtype(masks.dtype, np.signedinteger) and masks.min() < 0:
        raise MaskError(f"masks hold the negative value {masks.min()}; 0 is background and ids count up from 1")
    return masks


def _gap(frames: int) -> int:
    if not isinstance(frames, (int, np.integer)) or frames < 0:
        raise MaskError(f"max_gap must be 0 or more frames, got {frames!r}")
    return int(frames)


def _instance_rows(masks: Int[np.ndarray, "n h w"]) -> Int[np.ndarray, "k 7"]:
    """Rows (id, frame, x1, y1, x2, y2, area), by frame and id; a box spans all pixels of its id."""
    place = np.flatnonzero(masks)
    value = masks.reshape(-1)[place].astype(np.int64)
    rest, x = np.divmod(place, masks.shape[2])
    frame, y = np.divmod(rest, masks.shape[1])
    if not len(place):
        return np.zeros((0, 7), np.int64)
    number = value if int(value.max()) < _LARGE_ID else np.unique(value, return_inverse=True)[1]
    key = frame * (int(number.max()) + 1) + number
    order = np.argsort(key, kind="stable")
    key, x, y = key[order], x[order], y[order]
    starts = np.flatnonzero(np.r_[True, key[1:] != key[:-1]])
    sides = [side.reduceat(axis, starts) for side in (np.minimum, np.maximum) for axis in (x, y)]
    areas = np.diff(np.r_[starts, len(key)])
    return np.column_stack((value[order][starts], frame[order][starts], *sides, areas))


def _as_tracks(targets: list[Target]) -> tuple[MaskTrack, ...]:
    targets = sorted(targets, key=lambda target: (target.frames[0], target.boxes[0]))
    return tuple(MaskTrack.of(number, target.frames, boxes=target.boxes, areas=target.areas)
                 for number, target in enumerate(targets, start=1))
