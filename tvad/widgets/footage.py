"""Which videos the demo can show: those of a data set, the user's own, and uploads, each checked before it is opened.

An upload comes in pieces, so that no message is large, and is refused before its first byte when its name or size says
no.  It is written under a name of ours in a folder of ours; the visitor's name is only ever shown.
"""
from __future__ import annotations

import copy
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tvad.errors import TvadError, VideoError
from tvad.video.frames import Frames
from tvad.video.read import open_frames, probe

SUFFIXES = (".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".webm")
MAX_BYTES = 200 << 20
MAX_FRAMES = 3000               # five minutes at ten frames a second
MAX_PIXELS = 4096 * 2304        # of one frame


@dataclass(frozen=True)
class Offer:
    """A video that can be chosen: its label, how it is opened, and the intervals labelled as anomalous, where known."""

    label: str
    open: Callable[[], Frames]
    truth: Callable[[], tuple[tuple[int, int], ...]] = tuple
    note: str = ""


@dataclass(frozen=True)
class Opened:
    """Frames ready to be scored; ``notes`` say what was left out."""

    name: str
    frames: Frames
    truth: tuple[tuple[int, int], ...] = ()
    notes: tuple[str, ...] = ()


def find_offers(params: Any) -> tuple[list[Offer], str]:
    """What ``params`` (:class:`tvad.params.demo.Demo`) offers, the user's own videos first, and what is wrong, in words,
    where a source cannot be read."""
    from tvad.datasets import open_dataset

    offers: list[Offer] = []
    try:
        if params.videos:
            offers += own_offers(Path(params.videos).expanduser())
        if params.examples:
            options = {} if params.data_root is None else {"root": params.data_root}
            if params.dataset == "simcampus":       # only it has several protocols
                options["protocol"] = params.protocol
            data = open_dataset(params.dataset, **options)
            offers += offers_of(data, params.split, params.examples)
    except TvadError as error:
        return offers, str(error)
    return offers, ""


def offers_of(dataset: Any, split: str, count: int) -> list[Offer]:
    """The first ``count`` videos of a split, spread over its scenes; nothing is read or rendered yet."""
    by_scene: dict[str, list[Any]] = {}
    for video in dataset.videos(split):
        by_scene.setdefault(video.scene or "", []).append(video)
    order = [video for rank in range(max(map(len, by_scene.values()), default=0))
             for own in by_scene.values() for video in own[rank:rank + 1]]
    simulated = "simulated" if dataset.name == "simcampus" else "real"
    return [Offer(f"{video.id} ({simulated})", lambda video=video: copy.deepcopy(video.frames),
                  lambda video=video: _truth(video)) for video in order[:count]]


def own_offers(path: Path | str) -> list[Offer]:
    """The user's video, or every video in the user's folder.

    Raises :class:`tvad.errors.DatasetError` where there is none.
    """
    from tvad.datasets.custom import CustomVideos

    found = CustomVideos(root=path)
    base = found.path if found.path.is_dir() else found.path.parent
    return [Offer(source.name if source == base else str(source.relative_to(base)),
                  lambda source=source: open_frames(source)) for source in found._sources]


def open_offer(offer: Offer, *, backbone: Any = None, max_frames: int = MAX_FRAMES) -> Opened:
    """Open a video that is offered, at the size at which the model sees it where the footage is larger.

    Raises :class:`VideoError` for what cannot be read at all.
    """
    frames = offer.open()
    return _prepared(offer.label, frames, offer.truth(), (offer.note,) if offer.note else (), backbone, max_frames)


def open_file(path: Path | str, name: str, *, backbone: Any = None, max_frames: int = MAX_FRAMES) -> Opened:
    """Open an uploaded file, shown as ``name``; of a damaged one the readable part, with a note.

    Raises :class:`VideoError`, in which the file is called by ``name``, for what is no video or holds no readable frame.
    """
    try:
        info = probe(path)
        if info.height * info.width > MAX_PIXELS:
            raise VideoError(f"{path}: frames of {info.width}x{info.height} pixels are larger than "
                             f"{MAX_PIXELS:,} pixels; make it smaller first")
        try:
            frames, notes = open_frames(path), ()
        except VideoError:
            frames = open_frames(path, damaged="keep")
            lost = sum(loss.stop - loss.start for loss in frames.losses)
            notes = (f"The file is damaged: {lost} of {lost + len(frames)} frames cannot be read and are left out.",)
    except VideoError as error:
        raise VideoError(str(error).replace(str(path), name)) from None
    return _prepared(name, frames, (), notes, backbone, max_frames)


def _prepared(name: str, frames: Frames, truth: tuple, notes: tuple[str, ...], backbone: Any, most: int) -> Opened:
    from tvad.adaptation.views import beginning, reduced

    if len(frames) > most:
        notes = (*notes, f"The video has {len(frames):,} frames; the first {most:,} are shown.")
        frames = beginning(frames, most)
        truth = tuple((start, min(stop, most)) for start, stop in truth if start < most)
    return Opened(name, frames if backbone is None else reduced(frames, backbone), truth, notes)


def _truth(video: Any) -> tuple[tuple[int, int], ...]:
    from tvad.widgets.analysis import runs

    return () if video.labels is None else tuple(runs(video.labels))


def check_upload(name: str, size: int, *, most: int = MAX_BYTES) -> str:
    """Why a file may not be uploaded, in words; empty where it may."""
    ending = Path(name).suffix.lower()
    if ending not in SUFFIXES:
        return f"{_shown(name)}: this is no kind of video that can be uploaded; allowed: {' '.join(SUFFIXES)}"
    if not 0 < size <= most:
        return (f"{_shown(name)}: the file has {size / 2**20:,.1f} MB; allowed: up to {most / 2**20:,.0f} MB. "
                "Cut it, or put it into a folder of yours and start: make demo VIDEOS=<folder>"
                if size > 0 else f"{_shown(name)}: the file is empty")
    return ""


class Receiver:
    """Puts the pieces of uploads together; files lie in a temporary folder that goes when this does."""

    def __init__(self, *, most: int = MAX_BYTES) -> None:
        self.most = most
        self._folder = tempfile.TemporaryDirectory(prefix="tvad-demo-")
        self._count, self._name, self._size, self._got = 0, "", 0, 0
        self._path: Path | None = None

    def begin(self, name: str, size: int) -> str:
        """Start a file; returns why not, or nothing.  An upload that was under way is given up."""
        self.cancel()
        refusal = check_upload(str(name), int(size), most=self.most)
        if not refusal:
            self._count += 1
            self._name, self._size, self._got = _shown(name), int(size), 0
            self._path = Path(self._folder.name) / f"upload{self._count}{Path(name).suffix.lower()}"
            self._path.write_bytes(b"")
        return refusal

    def add(self, piece: bytes) -> str:
        """Append a piece; returns why not, or nothing.  More than was announced ends the upload."""
        if self._path is None:
            return "no upload is under way; choose the file again"
        if self._got + len(piece) > self._size:
            self.cancel()
            return f"{self._name}: more was sent than announced; choose the file again"
        try:
            with open(self._path, "ab") as file:
                file.write(piece)
        except OSError as error:
            name = self._name
            self.cancel()
            return f"{name}: not stored ({error.strerror}); free space on this machine, then choose the file again"
        self._got += len(piece)
        return ""

    @property
    def progress(self) -> float:
        """Share of the announced bytes that are here."""
        return self._got / self._size if self._path is not None else 0.0

    def finish(self) -> tuple[Path, str] | None:
        """Path and shown name of the whole file; None while something is missing."""
        if self._path is None or self._got != self._size:
            return None
        path, self._path = self._path, None
        return path, self._name

    def cancel(self) -> None:
        """Throw away an upload that is under way."""
        if self._path is not None:
            self._path.unlink(missing_ok=True)
            self._path = None


def _shown(name: str) -> str:
    """The last part of a visitor's file name, printable and short."""
    last = str(name).replace("\\", "/").rsplit("/", 1)[-1]
    text = "".join(letter if letter.isprintable() else "?" for letter in last)
    return text if len(text) <= 60 else text[:40] + "…" + text[-18:]


