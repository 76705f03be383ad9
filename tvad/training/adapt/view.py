"""A camera's view matched to what the decoder learnt from, without training anything.

    viewed = match_view(model, "my_camera/", output_dir="runs/view").detector

From normal footage alone is found how large the tower should see the pictures, how many frames apart the two of a pair
should be, how many patches a person covers, how quickly people pass, and on which scale ordinary footage has its scores.
The decoder stays as it was.
"""
from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from tvad.training.adapt.config import AdaptConfig
from tvad.training.adapt.run import AdaptResult, adapt

# Scale and report need few pairs, and nothing learns from composites or rehearses.
VIEWING: Mapping[str, Any] = {"composites": 2, "normal": 100, "rehearsal": 0, "kept": 0.0, "tower_rank": 0}


def match_view(model: Any, source: Any, *, output_dir: Path | str, config: AdaptConfig | None = None,
               cache_dir: Path | str = "data/cache", progress: bool = True) -> AdaptResult:
    """:func:`tvad.training.adapt.adapt` up to its first step: result and errors are the same.

    ``config``: gaps, zooms, validation pairs and scores are taken from it; ``VIEWING`` says what is not.
    """
    return adapt(model, source, output_dir=output_dir, config=replace(config or AdaptConfig(), **VIEWING),
                 cache_dir=cache_dir, stop_after=0, progress=progress)
