"""Files that are whole or absent: written beside their place, synced and renamed; folders that say when they are done."""
from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from tvad.errors import StorageError, TvadError

COMPLETE = "complete.json"
_DISK_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS}


@contextlib.contextmanager
def atomic_path(path: str | Path, *, synced: bool = True) -> Iterator[Path]:
    """Yield a name beside ``path`` for a library to write to; on success it is synced and takes ``path``'s place.

    ``synced=False`` leaves out the syncing, which can last longer than the writing: for files with a checksum that are
    made again if a power cut spoils them.
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
            if synced:
                _sync(beside)
            os.replace(beside, path)
            if synced:
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


def atomic_write(path: str | Path, content: bytes | str | None = None, *, text: bool = False, synced: bool = True) -> Any:
    """Write ``path`` so that it is whole or untouched: all of ``content`` at once, or by parts in a ``with`` block.

    ``atomic_write(path, content)`` writes and returns None.  ``with atomic_write(path) as file:`` opens for bytes (with
    ``text`` for UTF-8 text).  Raises :class:`StorageError` as :func:`atomic_path` does, whose ``synced`` this
    takes too.
    """
    if content is None:
        return _atomic_open(path, text=text, synced=synced)
    with _atomic_open(path, text=isinstance(content, str), synced=synced) as file:
        file.write(content)
    return None


@contextlib.contextmanager
def _atomic_open(path: str | Path, *, text: bool, synced: bool) -> Iterator[IO]:
    with atomic_path(path, synced=synced) as beside:
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


def remembered(path: str | Path, key: str, find: Callable[[], Mapping[str, Any]]) -> dict[str, Any]:
    """What ``path`` keeps under ``key``, the hash of all that decides it; else what ``find`` finds, kept there, as JSON
    gives it back."""
    try:
        stored = json.loads(Path(path).read_text(encoding="utf-8"))
        if stored["key"] == key:
            return dict(stored["found"])
    except (OSError, ValueError, KeyError, TypeError):
        pass        # none yet, or damaged: it is found again
    found = json.loads(json.dumps(find()))
    write_json(path, {"key": key, "found": found})
    return found


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
