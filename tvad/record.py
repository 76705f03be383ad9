"""What a run leaves behind: result rows, files that are whole or absent, and where they came from.

Rows are JSON Lines beside the executed notebook; notebooks and tables draw rows and nobody retypes a number.  Every
file is written beside its place, synced and renamed, so that a crash or a full disk leaves the old one as it was.  A
folder counts as done only with a ``complete.json``, written last, whose hashes fit its files.
"""
from __future__ import annotations

import contextlib
import errno
import functools
import hashlib
import importlib.metadata
import json
import os
import platform
import resource
import secrets
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import IO, Any

from tvad.errors import StorageError, TvadError

SYSTEMS: tuple[str, ...] = ("t-vad", "anyanomaly", "videoanomalyclip", "gv-vad")
# Every set that the field measures on, so that rows of others can be compared.
DATASETS: tuple[str, ...] = (
    "simcampus", "ucsd_ped2", "ucsd_ped1", "avenue", "shanghaitech", "ubnormal", "ucf_crime", "custom",
)
METRICS: tuple[str, ...] = (
    "micro_auc", "macro_auc", "ap", "rbdc", "tbdc", "pixel_auroc", "aupro",
    "bleu4_target", "bleu4_trajectory", "yes_no_accuracy", "yes_no_balanced_accuracy",
    "query_micro_auc", "query_pixel_auroc", "query_wrong_ratio",
    "slot_class", "slot_colours", "slot_motion", "slot_from", "slot_to",
)
SPOKEN: tuple[str, ...] = tuple(name for name in METRICS if name.startswith(("bleu4_", "yes_no_", "slot_")))
QUERIED: tuple[str, ...] = tuple(name for name in METRICS if name.startswith("query_"))
COMPLETE = "complete.json"

# Libraries whose version may change a number or a pixel.
_LIBRARIES: tuple[str, ...] = (
    "tvad", "torch", "torchvision", "transformers", "accelerate", "peft", "safetensors", "flash-attn",
    "av", "decord", "torchcodec", "opencv-python-headless", "numpy", "scipy", "scikit-learn", "pillow",
)
_DISK_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS}


@dataclass(frozen=True, kw_only=True)
class Row:
    """One measured figure.  Values are fractions; the interval is a bootstrap over videos.

    ``value`` None says that the metric is undefined there (the AUC of a video without normal frames).  ``n`` counts
    what the value is taken over (frames; videos for ``macro_auc``).  ``positive_rate`` is the base rate that belongs
    beside an AP, ``event`` the class of a per-event figure, ``sigma`` the smoothing in frames, ``choice`` "fixed" for a
    setting chosen on another split, "in-sample" for one chosen on the validation videos of this very row, "oracle" for a
    published one that used test labels.
    """

    system: str
    variant: str
    dataset: str
    split: str
    protocol: str
    metric: str
    value: float | None
    ci_low: float | None
    ci_high: float | None
    n: int
    seed: int
    config: str
    commit: str | None
    positive_rate: float | None = None
    event: str | None = None
    sigma: float | None = None
    choice: str | None = None

    def __post_init__(self) -> None:
        for name, allowed in (("system", SYSTEMS), ("dataset", DATASETS), ("metric", METRICS),
                              ("choice", (None, "fixed", "in-sample", "oracle"))):
            if getattr(self, name) not in allowed:
                known = ", ".join(map(str, allowed))
                raise ValueError(f"row {name} {getattr(self, name)!r} is unknown; allowed: {known}")
        for name in ("value", "ci_low", "ci_high", "positive_rate"):
            number = getattr(self, name)
            if number is not None:
                number = float(number)      # numpy scalars are not JSON
                if not 0.0 <= number <= 1.0:
                    raise ValueError(f"row {name} of {self.metric} is {number}; allowed: a fraction, 0 to 1, or None")
                object.__setattr__(self, name, number)
        if (self.ci_low is None) != (self.ci_high is None):
            raise ValueError(f"row of {self.metric}: give both ends of the interval or none")
        if self.ci_low is not None and self.ci_low > self.ci_high:
            raise ValueError(f"row of {self.metric}: interval {self.ci_low} to {self.ci_high} is upside down")
        for name in ("n", "seed"):
            object.__setattr__(self, name, int(getattr(self, name)))

    @property
    def key(self) -> tuple:
        """What the row is about: everything but the measured numbers and where they were measured."""
        return (self.system, self.variant, self.dataset, self.split, self.protocol, self.metric, self.seed,
                self.event, self.sigma, self.choice)

    def as_dict(self) -> dict[str, Any]:
        """All the fields every row has, and those of the optional ones that are set."""
        optional = ("positive_rate", "event", "sigma", "choice")
        return {name: value for name, value in asdict(self).items() if value is not None or name not in optional}


def append_rows(path: str | Path, rows: Iterable[Row]) -> None:
    """Add rows to a JSON Lines file; after an error or a crash the file holds either all of them or none."""
    path = Path(path)
    before = path.read_bytes() if path.exists() else b""
    if before and not before.endswith(b"\n"):
        before += b"\n"
    lines = "".join(json.dumps(row.as_dict(), allow_nan=False) + "\n" for row in rows)
    atomic_write(path, before + lines.encode())


def read_rows(path: str | Path) -> list[Row]:
    """All rows of a JSON Lines file, in order.  Raises :class:`StorageError` that names file and line."""
    path = Path(path)
    if not path.is_file():
        raise StorageError(f"{path}: no result rows here; the run that writes them has not been made, "
                           "run: make reproduce")
    known = {item.name for item in fields(Row)}
    rows = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        if not line.strip():
            continue
        try:
            content = json.loads(line)
            unknown = sorted(set(content) - known)
            if unknown:
                raise ValueError(f"unknown field {unknown[0]!r}")
            rows.append(Row(**content))
        except (ValueError, TypeError) as error:
            raise StorageError(f"{path}, line {number}: not a result row ({error}); "
                               "delete the line or restore the file") from None
    return rows


def replace_rows(path: str | Path, rows: Iterable[Row]) -> None:
    """Put rows in the place of all that were measured on the same splits before; the others stay.

    "The same" is system, variant, data set, split, protocol and seed, and whether a figure is of heat, of answers or of
    queries: these are measured apart.  All of them go, since another smoothing or configuration gives other
    rows, whose forerunners would stay beside the new.  Whole or not at all.
    """
    def place(row: Row) -> tuple:
        kind = next((kind for kind in (SPOKEN, QUERIED) if row.metric in kind), ())
        return row.system, row.variant, row.dataset, row.protocol, row.split, row.seed, kind

    path, rows = Path(path), list(rows)
    places = {place(row) for row in rows}
    kept = [row for row in read_rows(path) if place(row) not in places] if path.is_file() else []
    lines = [json.dumps(row.as_dict(), allow_nan=False) + "\n" for row in (*kept, *rows)]
    atomic_write(path, "".join(lines))


def latest_rows(rows: Iterable[Row]) -> list[Row]:
    """The last row of each :attr:`Row.key`: what a repeated run measured replaces what it measured before."""
    return list({row.key: row for row in rows}.values())


@contextlib.contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Yield a name beside ``path`` for a library to write to; on success it is synced and takes ``path``'s place.

    On any error the old file stays as it was and the new one is removed; a disk error becomes a
    :class:`StorageError`, all others pass unchanged.
    """
    # A link is written through, not replaced.
    path = Path(os.path.realpath(path))
    # The ending is kept, since libraries choose the format by it.
    beside = path.with_name(f".{path.stem}.{os.getpid()}-{secrets.token_hex(4)}.tmp{path.suffix}")
    try:
        with _disk_errors_named(path):
            path.parent.mkdir(parents=True, exist_ok=True)
        yield beside
        with _disk_errors_named(path):
            _sync(beside)
            os.replace(beside, path)
            _sync(path.parent)
    except TvadError:
        raise
    except Exception as error:
        named = _as_storage_error(path, error)
        if named is None:
            raise
        raise named from error
    finally:
        with contextlib.suppress(OSError):
            beside.unlink(missing_ok=True)


def atomic_write(path: str | Path, content: bytes | str | None = None, *, text: bool = False) -> Any:
    """Write ``path`` so that it is whole or untouched: all of ``content`` at once, or by parts in a ``with`` block.

    ``atomic_write(path, content)`` writes and returns None.  ``with atomic_write(path) as file:`` opens for bytes (with
    ``text`` for UTF-8 text).  Raises :class:`StorageError` as :func:`atomic_path` does.
    """
    if content is None:
        return _atomic_open(path, text=text)
    with _atomic_open(path, text=isinstance(content, str)) as file:
        file.write(content)
    return None


@contextlib.contextmanager
def _atomic_open(path: str | Path, *, text: bool) -> Iterator[IO]:
    with atomic_path(path) as beside:
        with _disk_errors_named(path):
            file = open(beside, "x" if text else "xb", encoding="utf-8" if text else None)
        try:
            yield file
        except BaseException:
            # What is still buffered may not fit either; the first error is the one to report.
            with contextlib.suppress(OSError):
                file.close()
            raise
        file.close()


def write_json(path: str | Path, content: Any) -> None:
    """Write ``content`` as indented JSON, atomically.  NaN raises ValueError: no JSON reader need accept it."""
    atomic_write(path, json.dumps(content, indent=2, allow_nan=False) + "\n")


def reopen(folder: str | Path) -> None:
    """Before files of a finished folder are written anew: take its ``complete.json`` away."""
    (Path(folder) / COMPLETE).unlink(missing_ok=True)


def complete(folder: str | Path, files: Iterable[str | Path]) -> Path:
    """Write ``complete.json`` with size and SHA-256 of ``files`` (names inside ``folder``).  Call it last."""
    folder = Path(folder)
    listed = {}
    for name in files:
        inside = Path(name) if not Path(name).is_absolute() else Path(name).relative_to(folder.absolute())
        if not (folder / inside).is_file():
            raise StorageError(f"{folder / inside}: missing, so {folder} cannot be marked complete; run the step again")
        listed[inside.as_posix()] = {"bytes": (folder / inside).stat().st_size, "sha256": file_hash(folder / inside)}
    write_json(folder / COMPLETE, {"files": dict(sorted(listed.items()))})
    return folder / COMPLETE


def is_complete(folder: str | Path) -> tuple[bool, str]:
    """Whether a folder was finished and is as it was then, and the reason in words where it is not."""
    folder = Path(folder)
    if not folder.is_dir():
        return False, f"{folder}: no such folder"
    if not (folder / COMPLETE).is_file():
        return False, f"{folder}: no {COMPLETE}, so an earlier run stopped before its end"
    try:
        listed = json.loads((folder / COMPLETE).read_text(encoding="utf-8"))["files"]
        expected = [(folder / name, entry["bytes"], entry["sha256"]) for name, entry in listed.items()]
    except (ValueError, KeyError, TypeError, AttributeError):
        return False, f"{folder / COMPLETE}: damaged"
    for file, size, digest in expected:
        if not file.is_file():
            return False, f"{file}: missing, though {COMPLETE} lists it"
        if file.stat().st_size != size or file_hash(file) != digest:
            return False, f"{file}: changed since {COMPLETE} was written"
    return True, "complete"


def file_hash(path: str | Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def provenance(*, config: str | None = None, device: str | None = None, decoder: str | None = None,
               attention: str | None = None, started: float | None = None, **more: Any) -> dict[str, Any]:
    """Where a result came from, ready for JSON; ``started`` is the :func:`time.perf_counter` of the run's start.

    Peak memory is that of this process or of its largest child, in GiB.  No path and no host name is recorded.
    """
    peak = max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    # Linux counts KiB, macOS bytes.
    peak_gib = peak / (2**30 if sys.platform == "darwin" else 2**20)
    return {
        "config": config, "commit": commit(), "device": device, "decoder": decoder, "attention": attention,
        "wall_seconds": None if started is None else round(time.perf_counter() - started, 2),
        "peak_memory_gib": round(peak_gib, 3), "peak_gpu_memory_gib": _peak_gpu_memory(),
        "written": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "python": platform.python_version(), "system": f"{platform.system()} {platform.machine()}",
        "cpus": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "versions": versions(), **more,
    }


def versions() -> dict[str, str]:
    """Installed versions of the libraries that results depend on."""
    found = {}
    for name in _LIBRARIES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


@functools.cache
def commit() -> str | None:
    """Short id of the checkout's commit, with ``+changes`` where tracked files differ; None outside a checkout."""
    root = Path(__file__).resolve().parent.parent
    # An installed package may lie inside some other project's checkout, whose commit says nothing.
    if not (root / ".git").exists():
        return None
    try:
        head = _git(root, "rev-parse", "--short=12", "HEAD")
        changed = _git(root, "status", "--porcelain", "--untracked-files=no")
    except (OSError, subprocess.SubprocessError):
        return None
    return head + ("+changes" if changed else "")


def _git(root: Path, *arguments: str) -> str:
    # --no-optional-locks: a look at the state must not collide with a commit that is under way.
    done = subprocess.run(["git", "--no-optional-locks", "-C", str(root), *arguments],
                          capture_output=True, text=True, timeout=20, check=True)
    return done.stdout.strip()


def _peak_gpu_memory() -> float | None:
    # Only asked of a torch that is there and has used a GPU: this module imports nothing heavy.
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_available() or not torch.cuda.is_initialized():
        return None
    return round(max(torch.cuda.max_memory_allocated(index) for index in range(torch.cuda.device_count())) / 2**30, 3)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextlib.contextmanager
def _disk_errors_named(path: str | Path) -> Iterator[None]:
    """Around our own file operations: every OSError is about ``path``."""
    try:
        yield
    except TvadError:
        raise
    except OSError as error:
        raise _storage_error(path, error.errno, error.strerror or str(error)) from error


def _as_storage_error(path: Path, error: Exception) -> StorageError | None:
    """A disk error that a library met while writing, however it wraps it; None for anything else."""
    if isinstance(error, OSError) and error.errno in _DISK_ERRORS:
        return _storage_error(path, error.errno, error.strerror or str(error))
    # safetensors and torch put the system's words into exceptions of their own.
    if any(words in str(error) for words in ("No space left", "os error 28", "Disk quota exceeded")):
        return _storage_error(path, errno.ENOSPC, "No space left on device")
    return None


def _storage_error(path: str | Path, number: int | None, cause: str) -> StorageError:
    if number in (errno.ENOSPC, errno.EDQUOT):
        remedy = "free space there, then run the same command again: it goes on from what is complete"
    elif number in (errno.EACCES, errno.EPERM, errno.EROFS):
        remedy = "make the folder writable or set output_dir to one that is"
    else:
        remedy = "check the disk and the path, then run the same command again"
    return StorageError(f"{path}: not written ({cause}); what was there before is untouched; {remedy}")
