"""The folder that phase 2 leaves of a trained speaker, and how it is read back.

    rae.safetensors    region encoder, of variants that have one
    adapter/           LoRA and the rows of the new tokens, in PEFT's own format
    phase2.json        variant, settings, evidence, economy, calibration, backbone
    complete.json      hashes, written last
"""
from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from tvad.checkpoints import check_fingerprint
from tvad.errors import CheckpointError, MissingPhaseError
from tvad.record import is_complete

RECORD, ENCODER, ADAPTER = "phase2.json", "rae.safetensors", "adapter"
FORMAT_VERSION = 2


def read_record(folder: Path | str) -> dict[str, Any]:
    """What ``phase2.json`` states.

    Raises :class:`MissingPhaseError` for an unfinished folder, :class:`CheckpointError` for one of another format.
    """
    whole, reason = is_complete(folder)
    if not whole:
        raise MissingPhaseError(f"{reason}; phase 2 leaves its model there, run: make reproduce")
    record = json.loads((Path(folder) / RECORD).read_text(encoding="utf-8"))
    if record.get("format") != FORMAT_VERSION:
        raise CheckpointError(f"{folder}/{RECORD}: format {record.get('format')}, wanted {FORMAT_VERSION}; train phase 2 "
                              "again: make reproduce")
    return record


def check_trained_on(folder: Path | str, record: Mapping[str, Any], backbone: Any) -> None:
    """Refuse a folder that was trained on another language model, before anything of it is put into this one.

    ``backbone.fingerprint``, which the heatmap is bound to, is not enough: it does not know the language model's layers.
    Raises :class:`CheckpointError`.
    """
    ours = SimpleNamespace(name=backbone.name, fingerprint=backbone.language_fingerprint)
    check_fingerprint(folder, (record.get("language_fingerprint"), record["backbone"]), ours, phase="phase 2")


def load_adapter(language_model: Any, folder: Path | str) -> Any:
    """The language model with the adapter of ``folder`` inside, frozen; a PEFT model.

    Raises :class:`CheckpointError` for a folder without a safetensors adapter or one of another model.
    """
    from peft import PeftModel

    folder = Path(folder)
    for name in ("adapter_config.json", "adapter_model.safetensors"):  # never the pickled kind
        if not (folder / name).is_file():
            raise CheckpointError(f"{folder / name}: no such file; was the adapter made by phase 2? run: make reproduce")
    try:
        return PeftModel.from_pretrained(language_model, folder, is_trainable=False, use_safetensors=True).eval()
    except (RuntimeError, ValueError) as error:
        raise CheckpointError(f"{folder}: the adapter does not fit this language model ({error}); train phase 2 on this "
                              "backbone: make reproduce") from error
