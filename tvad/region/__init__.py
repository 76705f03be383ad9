"""The Region-aware Anomaly Encoder (RAE): from a clip's heatmap to a few tokens that the language model reads.

    encoder = make_encoder("located", text_width=256)
    tokens = encoder(heatmap)                   # Float[Tensor, "b t h w"] -> Float[Tensor, "b n d"]
    encoder.save(path, backbone_fingerprint=backbone.fingerprint)
    encoder = load_encoder(path, backbone=backbone)

Variants: ``paper`` and ``thesis`` (``published.py``) and our own ``located`` (``located.py``, which says why).
``probe.py`` reads position and motion back from the tokens; ``blobs.py`` makes synthetic heatmaps with known tracks;
``python -m tvad.region`` compares the variants on them.
"""
from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from tvad.checkpoints import check_state, read_weights
from tvad.errors import CheckpointError, ParameterError
from tvad.region.base import FORMAT_VERSION, RegionEncoder, TextBackbone
from tvad.region.located import LocatedEncoder
from tvad.region.published import PaperEncoder, ThesisEncoder

ENCODERS: dict[str, type[RegionEncoder]] = {
    encoder.variant: encoder for encoder in (PaperEncoder, ThesisEncoder, LocatedEncoder)
}
_MAKE_AGAIN = "was it made by phase 2? run: make reproduce"


def make_encoder(variant: str = "located", *, text_width: int, **options: Any) -> RegionEncoder:
    """A fresh encoder; ``options`` are the variant's own (see its class).

    Raises :class:`ParameterError` for an unknown variant or option.
    """
    if variant not in ENCODERS:
        raise ParameterError(f"region encoder: variant {variant!r} is unknown; choose from {', '.join(ENCODERS)}")
    try:
        return ENCODERS[variant](text_width=text_width, **options)
    except TypeError as error:
        raise ParameterError(f"region encoder {variant!r}: {error}; see {ENCODERS[variant].__name__}") from error


def load_encoder(path: Path | str, *, backbone: TextBackbone | None = None) -> RegionEncoder:
    """The encoder in a file of :meth:`RegionEncoder.save`, float32 on the CPU; ``.record`` keeps the file's record.

    backbone: refuse the file unless it was trained for this backbone.
    Raises :class:`CheckpointError` for a missing, pickled, damaged, incomplete or foreign file.
    """
    tensors, record = read_weights(path, pickle_remedy="train phase 2 again: make reproduce")
    if record.get("kind") != "rae" or record.get("format") != FORMAT_VERSION:
        raise CheckpointError(f"{path}: holds {record.get('kind')!r} of format {record.get('format')!r}, not a region "
                              f"encoder of format {FORMAT_VERSION}; {_MAKE_AGAIN}")
    with torch.device("meta"):  # no initialisation to throw away, and no random numbers drawn
        try:
            model = make_encoder(**record["config"])
        except (KeyError, TypeError, ParameterError) as error:
            raise CheckpointError(f"{path}: its record does not describe a region encoder ({error}); "
                                  f"{_MAKE_AGAIN}") from error
    check_state(path, tensors, {key: tuple(value.shape) for key, value in model.state_dict().items()},
                remedy=_MAKE_AGAIN)
    if backbone is not None:
        known = record.get("backbone_fingerprint")
        if known != backbone.fingerprint:
            name = record.get("extra", {}).get("backbone", "another backbone")
            raise CheckpointError(f"{path}: was trained for {name} (fingerprint {known}), not for {backbone.name} "
                                  f"(fingerprint {backbone.fingerprint}); load that backbone, or train phase 2 on "
                                  "this one: make reproduce")
        model.check_width(backbone.text_width, path)
    model.load_state_dict({key: value.float() for key, value in tensors.items()}, strict=True, assign=True)
    model.record = record
    return model


__all__ = ["ENCODERS", "LocatedEncoder", "PaperEncoder", "RegionEncoder", "ThesisEncoder", "load_encoder",
           "make_encoder"]
