"""The manifest of a dialogue set's folder, and the command that makes such a folder."""
from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tvad.errors import DatasetError, MissingPhaseError


def read_manifest(folder: str | Path, *, dataset: str = "simcampus") -> dict[str, Any]:
    """The manifest of a dialogue set; ``dataset`` is for the command that a message names.

    Raises:
        MissingPhaseError: there is none.
        DatasetError: it is damaged.
    """
    path = Path(folder) / "manifest.json"
    if not path.is_file():
        raise MissingPhaseError(f"{path}: no dialogue set here; run: {make_command(folder, dataset)}")
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        if not {"key", "splits", "files"} <= set(manifest) or "dataset" not in manifest["key"]:
            raise ValueError("key, splits or files are missing")
    except (ValueError, TypeError) as error:
        raise DatasetError(f"{path}: damaged ({error}); make the set again: {make_command(folder, dataset)}") from error
    return manifest


def make_command(folder: str | Path, dataset: str, *, splits: Iterable[str] = ()) -> str:
    """The command that makes a dialogue set in ``folder``, of ``splits`` or of all."""
    chosen = "".join(f" {split}" for split in splits)
    return f"python -m tvad.language --dataset {dataset}{' --splits' + chosen if chosen else ''} --output {folder}"
