"""A preview sheet of composites: pictures in a grid, for a person to judge whether they are believable."""
from __future__ import annotations

from pathlib import Path
from typing import Sequence

import cv2
import numpy as np
from jaxtyping import UInt8

from tvad.errors import DatasetError
from tvad.record import atomic_write
from tvad.scenes.composite.compose import Composite, Compositor
from tvad.video.frames import Frames

_RED, _BLUE = (230, 40, 30), (60, 120, 230)


def examples(compositor: Compositor, videos: Sequence[Frames], *, count: int = 12, seed: int = 0,
             gap: int = 1) -> list[Composite]:
    """Composites at random places of the videos, three of four with an event.

    Raises :class:`DatasetError` where no video holds a pair.
    """
    rng = np.random.default_rng([seed, 35])
    videos = [video for video in videos if len(video) > gap]
    if not videos:
        raise DatasetError(f"examples: no video holds two frames {gap} apart; give longer videos")
    made = []
    for number in range(count):
        video = videos[int(rng.integers(len(videos)))]
        start = int(rng.integers(0, len(video) - gap))
        made.append(compositor.pair(video, start, gap=gap, seed=seed + number, anomalous=number % 4 != 3))
    return made


def sheet(made: Sequence[Composite], *, columns: int = 3, marked: bool = True,
          width: int = 480) -> UInt8[np.ndarray, "h w 3"]:
    """The first frames in a grid, each ``width`` pixels wide; ``marked``: events outlined in red and named, pasted
    ordinary people underlined in blue."""
    cells = []
    for one in made:
        picture, scale = one.frames[0], width / one.frames.shape[2]
        picture = cv2.resize(picture, (width, round(picture.shape[0] * scale)), interpolation=cv2.INTER_CUBIC)
        if marked:
            mask = cv2.resize(one.masks[0], picture.shape[1::-1], interpolation=cv2.INTER_NEAREST)
            for target in np.unique(mask[mask > 0]).tolist():
                x, y, w, h = cv2.boundingRect((mask == target).astype(np.uint8))
                cv2.rectangle(picture, (x - 3, y - 3), (x + w + 2, y + h + 2), _RED, 1)
                cv2.putText(picture, one.kinds[target - 1], (max(2, x - 3), max(10, y - 6)), cv2.FONT_HERSHEY_SIMPLEX, 0.4,
                            _RED, 1, cv2.LINE_AA)
            for x1, _, x2, y2 in one.pasted:
                row = round((y2 + 2) * scale)
                cv2.line(picture, (round(x1 * scale), row), (round(x2 * scale), row), _BLUE, 1)
        cells.append(picture)
    cells += [np.zeros_like(cells[0])] * (-len(cells) % columns)
    return np.vstack([np.hstack(cells[first:first + columns]) for first in range(0, len(cells), columns)])


def save_sheet(path: Path | str, picture: UInt8[np.ndarray, "h w 3"]) -> Path:
    """Write a PNG, atomically. Raises :class:`tvad.errors.StorageError` when the disk refuses."""
    coded = cv2.imencode(".png", np.ascontiguousarray(picture[..., ::-1]), [cv2.IMWRITE_PNG_COMPRESSION, 9])[1]
    with atomic_write(path) as file:
        file.write(coded.tobytes())
    return Path(path)
