"""How every figure looks and is written: a journal's column widths, small type, colours that all can tell apart.

Colours are those of Okabe and Ito; heat is shown in ``inferno``, which stays ordered in grey and to colour-blind eyes.
Nothing here touches pyplot's global state: figures are objects, and the settings hold inside :func:`settings` alone.
"""
from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from tvad.record import atomic_path, atomic_write

MILLIMETRE = 1 / 25.4
COLUMN, PAGE = 85 * MILLIMETRE, 170 * MILLIMETRE
BLUE, SKY, GREEN, ORANGE, VERMILION, PURPLE, GREY = (
    "#0072B2", "#56B4E9", "#009E73", "#E69F00", "#D55E00", "#CC79A7", "#7F7F7F")
INTERVAL = "#F7DFB0"        # the labelled interval behind a curve
TRUTH = "#00E5FF"           # outline of the ground truth: none of inferno's colours, bright on dark and grey ground
HEAT = "inferno"
NAMES = {"simcampus": "SimCampus (simulated)", "ucsd_ped2": "UCSD Ped2 (real)", "ucsd_ped1": "UCSD Ped1 (real)"}
MOST_BYTES = 300_000        # of a picture that git keeps
_SIGN = 0.11                # inches of the line in the corner
_SETTINGS = {
    "font.family": "sans-serif", "font.sans-serif": ["DejaVu Sans"], "font.size": 7, "axes.titlesize": 7.5,
    "axes.labelsize": 7, "xtick.labelsize": 7, "ytick.labelsize": 7, "legend.fontsize": 7, "axes.linewidth": 0.6,
    "lines.linewidth": 1.0, "xtick.major.width": 0.6, "ytick.major.width": 0.6, "xtick.major.size": 2.5,
    "ytick.major.size": 2.5, "axes.spines.top": False, "axes.spines.right": False, "legend.frameon": False,
    # Fonts travel with the file: as TrueType in PDF, as outlines in SVG.
    "pdf.fonttype": 42, "svg.fonttype": "path", "svg.hashsalt": "tvad", "figure.dpi": 110,
    # No cropping: a figure made 85 or 170 mm wide is 85 or 170 mm wide in the file.
    "image.interpolation": "none", "savefig.dpi": 220, "savefig.bbox": "standard",
    "figure.constrained_layout.h_pad": 0.03, "figure.constrained_layout.w_pad": 0.02,
}


@contextlib.contextmanager
def settings() -> Iterator[None]:
    """Inside, all figures are made and saved in this style."""
    with matplotlib.rc_context(_SETTINGS):
        yield


def canvas(width: float, height: float) -> Figure:
    """An empty figure of ``width`` and ``height`` in inches (see ``COLUMN`` and ``PAGE``)."""
    return Figure(figsize=(width, height), layout="constrained")


def sign(figure: Figure, caption: str) -> None:
    """Put the data sets that a caption names into the corner: a picture says "simulated" without its caption too."""
    told = " · ".join(name for name in NAMES.values() if name in caption)
    if told:
        width, height = figure.get_size_inches()
        figure.set_size_inches(width, height + _SIGN)       # the panels keep their size
        figure.supxlabel(told, x=0.995, ha="right", fontsize=6, color=GREY)


def save(figure: Figure, stem: Path | str, *, svg: bool = False) -> list[Path]:
    """Write ``stem``.png, ``stem``.pdf and, where wanted, ``stem``.svg, each whole or untouched; returns the paths.

    The PNG is cut to ``MOST_BYTES`` by fewer dots first and fewer colours then; PDF and SVG keep type and lines as
    vectors, carry their fonts and no date, so that the same figure gives the same bytes.
    Raises StorageError when the disk refuses.
    """
    stem = Path(stem)
    paths = [stem.with_suffix(".png"), stem.with_suffix(".pdf")]
    atomic_write(paths[0], _small_png(figure))
    with atomic_path(paths[1]) as beside:
        figure.savefig(beside, metadata={"CreationDate": None, "Creator": None, "Producer": None})
    if svg:
        paths.append(stem.with_suffix(".svg"))
        with atomic_path(paths[2]) as beside:
            figure.savefig(beside, metadata={"Date": None, "Creator": None})
    return paths


def _small_png(figure: Figure) -> bytes:
    content = b""
    for dots, colours in ((220, None), (180, None), (180, 256), (150, 256), (120, 256), (100, 128)):
        plain, small = io.BytesIO(), io.BytesIO()
        figure.savefig(plain, format="png", dpi=dots)
        picture = Image.open(plain).convert("RGB")
        _reduced(picture, colours).save(small, format="PNG", optimize=True, dpi=(dots, dots))
        content = small.getvalue()
        if len(content) <= MOST_BYTES:
            break
    return content


def few_colours(picture: np.ndarray, colours: int = 128) -> np.ndarray:
    """An RGB picture (h, w, 3) in at most ``colours`` colours: what makes a PDF with many frames small."""
    return np.asarray(_reduced(Image.fromarray(picture), colours).convert("RGB"))


def _reduced(picture: Image.Image, colours: int | None) -> Image.Image:
    # Maximum coverage keeps rare colours, such as outlines and clothes; the median cut lets the lawn have them all.
    if colours is None:
        return picture
    return picture.quantize(colours, method=Image.Quantize.MAXCOVERAGE, kmeans=1, dither=Image.Dither.NONE)
