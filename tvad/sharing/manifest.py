"""``tvad.json``: what a shared folder is and the hash of every file in it; a folder that differs is refused by name."""
from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from tvad.errors import CheckpointError
from tvad.record import file_hash, write_json

MANIFEST, CARD = "tvad.json", "README.md"
FORMAT_VERSION = 1
# The card may be edited on the hub; the others are the hub's own.
_FREE = (CARD, MANIFEST, ".gitattributes")
_SUFFIXES = (".safetensors", ".json", ".jinja", ".txt", ".md")


def write_manifest(folder: Path | str, facts: Mapping[str, Any]) -> dict[str, Any]:
    """Write ``tvad.json`` of everything that lies in the folder, with ``facts``, and return it."""
    folder = Path(folder)
    files = {str(name): {"bytes": (folder / name).stat().st_size, "sha256": file_hash(folder / name)}
             for name in sorted(_listed(folder))}
    content = {"format": FORMAT_VERSION, **facts, "files": files}
    write_json(folder / MANIFEST, content)
    return content


def read_manifest(folder: Path | str) -> dict[str, Any]:
    """What ``tvad.json`` says, before any file is looked at.

    Raises :class:`CheckpointError` for a folder without one, a damaged one, one of another format, or one that names files
    outside of the folder or of a kind that may run code.
    """
    path = Path(folder) / MANIFEST
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        files, kind = content["files"], content["kind"]
        entries = [(str(name), entry["sha256"]) for name, entry in files.items()]
    except FileNotFoundError:
        raise CheckpointError(f"{folder}: no {MANIFEST}, so this is no shared model of the workbook; share one with "
                              "tvad.sharing.save_pretrained") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{path}: damaged ({type(error).__name__}: {error}); get the folder again") from error
    if content.get("format") != FORMAT_VERSION:
        raise CheckpointError(f"{path}: {kind!r} of format {content.get('format')!r}, this version reads {FORMAT_VERSION}; "
                              "share it again with this version of the workbook")
    for name, _ in entries:
        inside = PurePosixPath(name)
        if inside.is_absolute() or ".." in inside.parts or inside.suffix not in _SUFFIXES:
            raise CheckpointError(f"{path}: lists {name!r}, which may not be in a shared model (safetensors and text "
                                  "alone, inside the folder); do not use this folder")
    return content


def verify(folder: Path | str) -> dict[str, Any]:
    """Check a shared folder against its manifest, which is returned; the card alone may differ.

    Raises :class:`CheckpointError` naming the first file that is missing, was added or was changed, and how many more.
    """
    folder = Path(folder)
    content = read_manifest(folder)
    wanted, found = content["files"], set(map(str, _listed(folder)))
    missing = sorted(set(wanted) - found)
    if missing:
        raise CheckpointError(f"{folder / missing[0]}: missing{_more(missing)}, though {MANIFEST} lists it; get the folder "
                              "again")
    extra = sorted(found - set(wanted))
    if extra:
        raise CheckpointError(f"{folder / extra[0]}: not listed in {MANIFEST}{_more(extra)}; take it away, or share the "
                              "folder again")
    changed = [name for name, entry in sorted(wanted.items()) if file_hash(folder / name) != entry["sha256"]]
    if changed:
        raise CheckpointError(f"{folder / changed[0]}: changed since {MANIFEST} was written{_more(changed)}; get the "
                              "folder again, or share it again")
    return content


def _more(names: list[str]) -> str:
    return f" (and {len(names) - 1} more)" if len(names) > 1 else ""


def _listed(folder: Path) -> Iterable[PurePosixPath]:
    """Files below ``folder`` by relative name; the card, the manifest and what a download keeps for itself are left out."""
    for path in folder.rglob("*"):
        name = path.relative_to(folder)
        if name.parts[0] in (".cache", ".git") or str(name) in _FREE:
            continue
        if path.is_file() or path.is_symlink():
            yield PurePosixPath(name.as_posix())
