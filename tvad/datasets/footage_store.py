"""Rendered footage on disk: one safetensors file a video, quick to read at any frame.

Pictures are JPEG (quality 95, about 24 KB each instead of 260), so that what is decoded here, not what was rendered, is
the data; instance and part labels are exact (zlib, frame by frame).  A file's name carries a hash of the recipe, its
folder one of the simulator, so that a changed simulator renders anew and never mixes with the old.
"""
from __future__ import annotations

import functools
import hashlib
import json
import threading
import warnings
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Int, UInt8
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

import tvad.scenes
from tvad.errors import VideoError
from tvad.record import atomic_path
from tvad.scenes.types import MOTIONS, ActorTrack, Appearance, Footage
from tvad.video.frames import Frames

FORMAT = 1
QUALITY = 95  # 0.6 grey levels off on average
_ARRAYS = ("present", "anomalous", "box", "position", "velocity", "visible")


@functools.cache
def simulator_hash() -> str:
    """Hash of all that decides on the bytes of a rendering: the simulator's source, its libraries, the format."""
    digest = hashlib.sha256(f"{FORMAT} {QUALITY} {cv2.__version__} {np.__version__}".encode())
    for folder in tvad.scenes.__path__:
        for path in sorted(Path(folder).glob("*.py")):
            digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:16]


class StoredFootage:
    """Footage in ``path``; ``make`` renders it when it is not there yet or cannot be read.

    ``count`` and ``size`` are what ``make`` will give.  Reading is safe from several processes: a file appears whole.
    """

    def __init__(self, path: Path, make: Callable[[], Footage], *, count: int, size: tuple[int, int]) -> None:
        self.path, self.make, self.count, self.size = path, make, count, size
        self._file = None
        self._lock = threading.Lock()

    def ensure(self) -> None:
        """Render and write, unless that is done. Raises :class:`StorageError` if the disk does not take it."""
        with self._lock:
            self._open()

    def pictures(self, indices: Sequence[int]) -> Iterator[UInt8[np.ndarray, "h w 3"]]:
        """Frames at ``indices`` as RGB."""
        for index in indices:
            frame = cv2.imdecode(np.frombuffer(self._blob("picture", index), np.uint8), cv2.IMREAD_COLOR)
            if frame is None:
                raise VideoError(f"{self.path}: frame {index} is damaged; delete the file, it will be rendered again")
            yield cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)

    def labels(self, kind: str, start: int, stop: int) -> UInt8[np.ndarray, "m h w"]:
        """``kind`` "instances" or "parts" of frames ``start:stop``."""
        if not 0 <= start <= stop <= self.count:
            raise VideoError(f"{self.path.name}: wanted labels {start}:{stop}, there are {self.count}; ask for less")
        out = np.empty((stop - start, *self.size), np.uint8)
        for index in range(start, stop):
            try:
                out[index - start].reshape(-1)[:] = np.frombuffer(zlib.decompress(self._blob(kind, index)), np.uint8)
            except (zlib.error, ValueError) as error:
                raise VideoError(f"{self.path}: the {kind} of frame {index} are damaged ({error}); delete the file, it "
                                 "will be rendered again") from error
        return out

    @functools.cached_property
    def fps(self) -> float:
        """Frames a second."""
        return self._header["fps"]

    @functools.cached_property
    def area(self) -> Int[np.ndarray, "a n"]:
        """Visible pixels of each actor in each frame."""
        return self._read("area")

    @functools.cached_property
    def actors(self) -> tuple[ActorTrack, ...]:
        """Tracks of all actors, as rendered."""
        arrays = {name: self._read(name) for name in _ARRAYS}
        motion = self._read("motion")
        words = (*MOTIONS, "")
        return tuple(
            ActorTrack(id=item["id"], kind=item["kind"], event=item["event"],
                       appearance=Appearance(**{**item["appearance"], "carries": tuple(item["appearance"]["carries"])}),
                       motion=tuple(words[k] for k in motion[row]),
                       **{name: array[row] for name, array in arrays.items()})
            for row, item in enumerate(self._header["actors"]))

    def footage(self) -> Footage:
        """Everything at once; about 60 MB for 150 frames."""
        frames = np.stack(list(self.pictures(range(self.count))))
        return Footage(frames, self.labels("instances", 0, self.count), self.labels("parts", 0, self.count), self.fps,
                       self._header["scene"], self._header["seed"], self.actors)

    def close(self) -> None:
        """Let go of the file."""
        self._file = None

    def __getstate__(self) -> dict:
        state = {key: value for key, value in self.__dict__.items() if key in ("path", "make", "count", "size")}
        return {**state, "_file": None}

    def __setstate__(self, state: dict) -> None:
        self.__dict__.update(state)
        self._lock = threading.Lock()

    @functools.cached_property
    def _header(self) -> dict:
        with self._lock:
            return json.loads(self._open().metadata()["footage"])

    @functools.cached_property
    def _offsets(self) -> dict[str, np.ndarray]:
        return {kind: self._read(f"{kind}_offsets") for kind in ("picture", "instances", "parts")}

    def _read(self, name: str) -> np.ndarray:
        with self._lock:
            return self._open().get_tensor(name)

    def _blob(self, kind: str, index: int) -> bytes:
        start, stop = self._offsets[kind][index:index + 2].tolist()
        with self._lock:
            return self._open().get_slice(kind)[start:stop].tobytes()

    def _open(self) -> safe_open:
        if self._file is None:
            if self.path.is_file():
                try:
                    self._file = safe_open(self.path, framework="numpy")
                    return self._file
                except (SafetensorError, OSError) as error:
                    warnings.warn(f"{self.path}: damaged ({error}); rendering it again", stacklevel=2)
            write(self.path, self.make())
            self._file = safe_open(self.path, framework="numpy")
        return self._file


def write(path: Path, footage: Footage) -> None:
    """Write ``footage`` to ``path`` in one step: the file is there whole, or not at all."""
    pictures = []
    for frame in footage.frames:
        done, code = cv2.imencode(".jpg", cv2.cvtColor(frame, cv2.COLOR_RGB2BGR), (cv2.IMWRITE_JPEG_QUALITY, QUALITY))
        if not done:
            raise VideoError(f"{path}: a frame of {footage.scene}, seed {footage.seed} cannot be encoded; report this")
        pictures.append(code.tobytes())
    tensors = dict(_joined("picture", pictures))
    for kind in ("instances", "parts"):
        tensors.update(_joined(kind, [zlib.compress(labels.tobytes(), 6) for labels in getattr(footage, kind)]))
    count = len(footage.frames)
    for name in _ARRAYS:
        rows = [getattr(actor, name) for actor in footage.actors]
        tensors[name] = np.stack(rows) if rows else np.zeros((0, count))
    places = {word: place for place, word in enumerate((*MOTIONS, ""))}
    tensors["motion"] = np.array([[places[word] for word in actor.motion] for actor in footage.actors],
                                 np.uint8).reshape(-1, count)
    histogram = np.stack([np.bincount(labels.reshape(-1), minlength=256) for labels in footage.instances], axis=1)
    tensors["area"] = histogram[[actor.id for actor in footage.actors]].astype(np.int32)
    header = {"scene": footage.scene, "seed": footage.seed, "fps": footage.fps, "actors": [
        {"id": actor.id, "kind": actor.kind, "event": actor.event, "appearance": asdict(actor.appearance)}
        for actor in footage.actors]}
    with atomic_path(path) as beside:
        save_file({name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}, beside,
                  metadata={"footage": json.dumps(header)})


def _joined(kind: str, blobs: list[bytes]) -> Iterator[tuple[str, np.ndarray]]:
    yield kind, np.frombuffer(b"".join(blobs), np.uint8)
    yield f"{kind}_offsets", np.cumsum([0, *map(len, blobs)], dtype=np.int64)


class StoredFrames(Frames):
    """The pictures of stored footage."""

    def __init__(self, store: StoredFootage, *, name: str, fps: float, fingerprint: str) -> None:
        self._store = store
        super().__init__(name, fps=fps, size=store.size, positions=np.arange(store.count), fingerprint=fingerprint)

    def _decode(self, indices: Sequence[int]) -> Iterator[UInt8[np.ndarray, "h w 3"]]:
        return self._store.pictures(indices)

    def close(self) -> None:
        """As ``Frames.close``."""
        super().close()
        self._store.close()
