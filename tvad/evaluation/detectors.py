"""The registry of detectors: what can be scored by name.

A new system is one line of ``DETECTORS``: its name, the system and variant that its rows carry, and the function that
opens it, as "module:function".  The function takes an :class:`Order` and returns an object with ``name``,
``fingerprint`` and ``score(video, events) -> Detection``; where it has a ``scoring`` (``tvad.detection.Scoring``), its
smoothing is what rows are made with.

T-VAD's decoders come from ``Order.decoder`` (a file), else from the study (``runs/study/<configuration>/<arm>``), else,
for seed 0, from the run of phase 1.
"""
from __future__ import annotations

import importlib
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from tvad.backbones.qwen import QwenBackbone
from tvad.detection import DEFAULT_SCORING, Scoring
from tvad.detector import TVAD, StaticView
from tvad.errors import CheckpointError, MissingPhaseError, ParameterError
from tvad.heatmap import AnomalyHeatmapDecoder
from tvad.params import Phase1, project_root
from tvad.prompts import prototypes
from tvad.training.phase1 import Phase1Config, untrained_decoder

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Order:
    """How a detector is wanted.

    ``variant`` is filled in by the registry. ``decoder``: a weight file instead of the study's. ``trained``: protocol of
    the training (``scene-disjoint`` or ``open-set``). ``options``: whatever else a system's opener understands.
    """

    variant: str = "full"
    backbone: str = "qwen2.5-vl-tiny"
    decoder: str = ""
    trained: str = "scene-disjoint"
    seed: int = 0
    device: str = "auto"
    batch: int = 4
    root: Path = field(default_factory=project_root)
    profile: str = "tiny"
    options: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))


@dataclass(frozen=True)
class Entry:
    """A line of the registry: names for rows, what tables call it, and the opener."""

    system: str
    variant: str
    title: str
    open: str


_TVAD = "tvad.evaluation.detectors:open_tvad"
DETECTORS: dict[str, Entry] = {
    "t-vad": Entry("t-vad", "full", "T-VAD", _TVAD),
    "t-vad-static": Entry("t-vad", "control-static", "T-VAD without motion (control)", _TVAD),
    "t-vad-random-tower": Entry("t-vad", "control-random-tower", "T-VAD on a random tower (control)", _TVAD),
    "t-vad-untrained": Entry("t-vad", "control-untrained", "T-VAD, decoder untrained (control)", _TVAD),
}


def entry_of(name: str) -> Entry:
    """A line of the registry. Raises :class:`ParameterError` that lists the known names."""
    if name not in DETECTORS:
        raise ParameterError(f"unknown detector {name!r}; known: {', '.join(DETECTORS)}")
    return DETECTORS[name]


# Variants that studies measure and that no name opens: they belong to the camera that they were adapted to.
ADAPTED: dict[str, str] = {
    "adapted": "T-VAD, adapted to the camera", "adapted-frozen": "T-VAD, adapted, tower frozen (the default)",
    "adapted-tower": "T-VAD, adapted, the tower too", "adapted-native-size": "T-VAD, adapted, pictures not enlarged",
    "adapted-all-new": "T-VAD, adapted, no weights kept",
    "adapted-no-clips": "T-VAD, adapted, nothing chosen on whole clips",
    "adapted-heat-unsmoothed": "T-VAD, adapted, heatmaps not smoothed",
    "adapted-smoothed-in-frames": "T-VAD, adapted, smoothed as simulated scenes ask for",
    "adapted-top-percent": "T-VAD, adapted, scored over the top percent",
    "adapted-five-thresholds": "T-VAD, adapted, regions at five thresholds",
    "adapted-levels": "T-VAD, adapted, heat by place", "adapted-oneclass": "T-VAD, adapted, with a one-class score",
    "adapted-oneclass-alone": "T-VAD, one-class score alone", "simulated-only": "T-VAD, from simulation alone",
    "matched-view": "T-VAD, from simulation alone, the camera's view matched",
    "matched-view-control-random-tower": "T-VAD, view matched, on a random tower (control)",
    "adapted-control-static": "T-VAD, adapted, without motion (control)",
    "adapted-control-random-tower": "T-VAD, adapted, on a random tower (control)",
}


def title_of(system: str, variant: str) -> str:
    """What tables call a system's variant."""
    found = [entry.title for entry in DETECTORS.values() if (entry.system, entry.variant) == (system, variant)]
    known = ADAPTED.get(variant, "") if system == "t-vad" else ""
    return found[0] if found else known or f"{system} ({variant})"


def open_detector(name: str, order: Order | None = None) -> Any:
    """Open a detector of the registry.

    Raises:
        ParameterError: unknown name.
        MissingPhaseError, CheckpointError: nothing trained is there, or it does not fit.
    """
    entry = entry_of(name)
    module, _, function = entry.open.partition(":")
    return getattr(importlib.import_module(module), function)(replace(order or Order(), variant=entry.variant))


def open_tvad(order: Order) -> TVAD:
    """T-VAD's full system or one of its controls; its one option is ``load_language_model``, to count its parameters."""
    config = Phase1Config.from_params(Phase1(), seed=order.seed)
    stock = QwenBackbone.from_pretrained(order.backbone, taps=_taps(order), device=order.device,
                                         load_language_model=bool(order.options.get("load_language_model")))
    backbone = _tower(stock, order)
    cache = order.root / "data" / "cache"
    if order.variant != "control-untrained" or order.decoder:
        return TVAD.from_pretrained(backbone, find_decoder(order, backbone), cache_dir=cache, batch=order.batch)
    decoder = untrained_decoder(config, backbone).eval().to(backbone.device)
    arm = _arms(order)
    scoring = next((Scoring.load(path / "detector.json") for path in arm if (path / "detector.json").is_file()),
                   DEFAULT_SCORING)
    return TVAD(backbone, decoder, prototypes=prototypes(backbone, cache_dir=cache), scoring=scoring, batch=order.batch)


def find_decoder(order: Order, backbone: Any) -> Path:
    """The decoder file of an order, of this backbone; the newest where the study holds several configurations.

    Raises:
        MissingPhaseError: none, naming the folders searched and the commands that make one.
        CheckpointError: the file given does not fit the backbone.
    """
    if order.decoder:
        AnomalyHeatmapDecoder.load(order.decoder, backbone=backbone)
        return Path(order.decoder)
    places = [folder / "ahd.safetensors" for folder in _arms(order)]
    if (order.variant, order.trained, order.seed) == ("full", "scene-disjoint", 0):
        places.append(order.root / "runs" / order.profile / "phase1" / "ahd.safetensors")
    for path in places:
        if not path.is_file():
            continue
        try:
            AnomalyHeatmapDecoder.load(path, backbone=backbone)
        except CheckpointError as error:
            _LOG.warning("%s", error)
            continue
        return path
    raise MissingPhaseError(f"{order.root / 'runs' / 'study'}: no trained decoder of {order.variant}, {order.trained}, "
                            f"seed {order.seed} for backbone {backbone.name}; run: make study, or give its file "
                            "(--decoder)")


def _arms(order: Order) -> list[Path]:
    """Folders of the study's arm, the newest first."""
    name = f"{order.variant}-{order.trained}-seed{order.seed}"
    found = (order.root / "runs" / "study").glob(f"*/{name}")
    return sorted(found, key=lambda folder: folder.stat().st_mtime, reverse=True)


def _taps(order: Order) -> tuple[int, ...]:
    return AnomalyHeatmapDecoder.load(order.decoder).taps if order.decoder else Phase1().taps


def _tower(stock: QwenBackbone, order: Order) -> Any:
    if order.variant == "control-static":
        return StaticView(stock)
    return stock.randomised(seed=order.seed) if order.variant == "control-random-tower" else stock
