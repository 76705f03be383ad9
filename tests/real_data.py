"""Where tests find real footage and published values: named by the environment, or in ``data/``; else they are skipped."""
from __future__ import annotations

import os
from pathlib import Path

import pytest

from tvad.datasets import data_root

# Published values of the metrics: a folder "metrics" in TVAD_FIXTURES, else in data/fixtures.
PUBLISHED = Path(os.environ.get("TVAD_FIXTURES") or data_root() / "fixtures") / "metrics"
needs_published = pytest.mark.skipif(not PUBLISHED.is_dir(), reason="published values not found; set TVAD_FIXTURES")


def ped2_root() -> Path:
    """Folder that holds ``ucsd_ped2``; skips the test where there is none."""
    root = data_root()
    if not (root / "ucsd_ped2").is_dir():
        pytest.skip("UCSD Ped2 not found; set TVAD_DATA")
    return root
