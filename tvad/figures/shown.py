"""What all pages of figures share: where files go, how one is written with its caption and origin, how it is displayed.

    class Page(Shown):
        prefix, record = "talk_", "talks.json"      # of its files, and of their list
        figures = property(lambda self: FIGURES)    # name to a function that draws: page -> (figure, caption)
"""
from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from tvad.figures.style import save, settings, sign
from tvad.record import file_hash, provenance, write_json

WIDTH = 720         # pixels of a page-wide figure in a notebook


class Shown:
    """A page of figures; subclasses set ``params`` and give ``figures``."""

    prefix, record = "", "figures.json"
    params: Any

    @property
    def figures(self) -> Mapping[str, Callable[[Any], tuple[Figure, str]]]:
        """What the page can draw, by name."""
        return {}

    @property
    def target(self) -> Path:
        """Where figures go."""
        return self.params.target

    def show(self, name: str) -> None:
        """Draw one figure, write it, and in a notebook display it with its caption."""
        picture, caption = self.write(name)
        display_figure(picture, caption)

    def write(self, name: str) -> tuple[Path, str]:
        """Draw one figure into ``target``; returns the PNG's path and the caption.

        Captions of another configuration are not kept beside it.  Raises :class:`tvad.errors.MissingPhaseError` when a
        step that the figure needs has not been run.
        """
        with settings():
            figure, caption = self.figures[name](self)
            sign(figure, caption)
            paths = save(figure, self.target / f"{self.prefix}{name}")
        path, config = self.target / self.record, self.params.config_hash()
        known = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        entries = known["figures"] if known.get("provenance", {}).get("config") == config else {}
        entries[name] = {"caption": caption, "files": {item.name: file_hash(item) for item in paths}}
        write_json(path, {"provenance": provenance(config=config, **self.origin()),
                          "figures": dict(sorted(entries.items()))})
        return paths[0], caption

    def origin(self) -> dict[str, Any]:
        """What the provenance of its figures says besides."""
        return {}


def display_figure(picture: Path, caption: str, *, width: int = WIDTH) -> None:
    """In a notebook, a picture of so many pixels with its caption; elsewhere nothing."""
    if in_notebook():
        from IPython.display import Image, Markdown, display

        display(Image(picture.read_bytes(), width=width), Markdown(f"*{caption}*"))


def display_text(markdown: str) -> None:
    """In a notebook, text; elsewhere nothing."""
    if in_notebook():
        from IPython.display import Markdown, display

        display(Markdown(markdown))


def in_notebook() -> bool:
    """Whether something is there to display to."""
    return "IPython" in sys.modules and sys.modules["IPython"].get_ipython() is not None
