"""What a Qwen2.5-VL directory holds on disk: the tower's weights, the embedding table, their hashes, its processing.

Hashes are taken from the files and not from loaded models, so that they do not change with the dtype of loading.
"""
from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from tvad.errors import BackboneError

EMBEDDING_KEYS = ("model.embed_tokens.weight", "model.language_model.embed_tokens.weight")
_VISION_PREFIXES = ("visual.", "model.visual.")


def processing(directory: Path) -> dict:
    """Normalisation and pixel budget as the model directory's own processor states them."""
    from transformers import AutoVideoProcessor

    video = AutoVideoProcessor.from_pretrained(directory)
    return {
        "image_mean": list(video.image_mean),
        "image_std": list(video.image_std),
        "min_pixels": int(video.size["shortest_edge"]),
        "max_pixels": int(video.size["longest_edge"]),
    }


def tensors(directory: Path) -> Iterator[tuple[str, Tensor]]:
    """The tower's weights by their names within the tower, and the embedding table under an empty name."""
    from safetensors import SafetensorError, safe_open

    for shard in sorted(directory.glob("*.safetensors")):
        try:
            with safe_open(shard, framework="pt") as file:
                for key in file.keys():
                    prefix = next((p for p in _VISION_PREFIXES if key.startswith(p)), None)
                    if prefix or key in EMBEDDING_KEYS:
                        yield key.removeprefix(prefix) if prefix else "", file.get_tensor(key)
        except SafetensorError as error:
            raise BackboneError(f"{shard}: damaged ({error}); fetch the model again (tiny: make zoo)") from error


def digests(directory: Path, count: int = 4096) -> dict[str, str]:
    """Hashes of the stored tower and embedding table, from evenly sampled values of every tensor."""
    samples: dict[str, dict[str, str]] = {"tower": {}, "embedding": {}}
    for name, value in tensors(directory):
        flat = value.flatten()
        values = flat[:: max(1, flat.numel() // count)].float().numpy().tobytes()
        samples["tower" if name else "embedding"][name or "rows"] = hashlib.sha256(values).hexdigest()
    return {kind: digest(found) for kind, found in samples.items()}


def language_digest(directory: Path, rows: int = 8) -> str:
    """Hash of the first and middle rows of every stored tensor beside tower and embedding table."""
    from safetensors import safe_open

    found = {}
    for shard in sorted(directory.glob("*.safetensors")):
        with safe_open(shard, framework="pt") as file:
            for key in file.keys():
                if not key.startswith(_VISION_PREFIXES) and key not in EMBEDDING_KEYS:
                    part = file.get_slice(key)
                    middle = part.get_shape()[0] // 2
                    values = torch.cat([part[:rows], part[middle:middle + rows]]).float().numpy().tobytes()
                    found[key] = hashlib.sha256(values).hexdigest()
    return digest(found)


def digest(*parts) -> str:
    """16 hexadecimal digits of plain values."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=list).encode()).hexdigest()[:16]
