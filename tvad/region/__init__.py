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
from typing import Any, Mapping

from tvad.checkpoints import check_fingerprint, load_module
from tvad.errors import ParameterError
from tvad.region.base import FORMAT_VERSION, RegionEncoder, TextBackbone
from tvad.region.located import LocatedEncoder
from tvad.region.published import PaperEncoder, ThesisEncoder
from tvad.region.worded import WordedEncoder

ENCODERS: dict[str, type[RegionEncoder]] = {
    encoder.variant: encoder for encoder in (PaperEncoder, ThesisEncoder, LocatedEncoder, WordedEncoder)
}


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
    def check(model: RegionEncoder, record: Mapping[str, Any]) -> None:
        if backbone is not None:
            name = record.get("extra", {}).get("backbone", "another backbone")
            check_fingerprint(path, (record.get("backbone_fingerprint"), name), backbone, phase="phase 2")
            model.check_width(backbone.text_width, path)

    return load_module(path, make_encoder, kind="rae", version=FORMAT_VERSION, what="region encoder", check=check,
                       remedy="was it made by phase 2? run: make reproduce",
                       pickle_remedy="train phase 2 again: make reproduce")


__all__ = ["ENCODERS", "LocatedEncoder", "PaperEncoder", "RegionEncoder", "ThesisEncoder", "WordedEncoder",
           "load_encoder", "make_encoder"]
