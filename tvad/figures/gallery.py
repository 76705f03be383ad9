"""The paper's figures, redrawn from what runs left: ``python -m tvad.figures`` and notebook phase 4.

    gallery = Gallery(params)          # a tvad.params.Phase4
    gallery.show("trajectories")       # PDF, SVG, PNG and a provenance JSON; shown with its caption in a notebook

A figure whose rows or arrays are missing is not made: ``show`` says so and which command makes them, and nothing is
drawn in its place.  ``paper.md`` in the target lists all of them, made or not.
"""
from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from matplotlib.figure import Figure

from tvad.errors import BackboneError, DatasetError, MissingPhaseError, TvadError
from tvad.figures import curves, exchanges, failures, framework, trajectories
from tvad.figures.stored import Stored
from tvad.figures.style import save, settings
from tvad.params import Phase4, project_root
from tvad.record import atomic_write, file_hash, provenance, write_json

FIGURES: Mapping[str, Callable[[Stored], tuple[Figure, str]]] = {
    "framework": framework.framework, "dialogue": exchanges.dialogue, "trajectories": trajectories.trajectories,
    "curves": curves.curves, "roc_pr": curves.roc_pr, "failures": failures.failures, "study": curves.study,
}
TITLES: Mapping[str, str] = {
    "framework": "Framework overview", "dialogue": "Multi-turn examples", "trajectories": "Trajectory overlays",
    "curves": "Score curves with labelled intervals", "roc_pr": "ROC and precision-recall",
    "failures": "Failure gallery", "study": "Study over seeds, with controls",
}
# What a figure lacks, as opposed to what is broken.
_MISSING = (MissingPhaseError, DatasetError, BackboneError)


@dataclass(frozen=True)
class Made:
    """A figure that was written: its files (PNG first) and its caption; or the reason why it was not, and no files."""

    name: str
    files: tuple[Path, ...] = ()
    caption: str = ""
    reason: str = ""

    @property
    def sentence(self) -> str:
        """One line for a list."""
        return f"{self.files[0]}" if self.files else f"not made: {self.name}: {self.reason}"


class Gallery:
    """The figures of ``params``; each is drawn when it is asked for."""

    def __init__(self, params: Phase4) -> None:
        self.params, self.stored = params, Stored(params)

    def show(self, name: str) -> None:
        """Draw one figure of ``FIGURES``; in a notebook display it with its caption, or the sentence why it is not made."""
        made = self.write(name)
        if "IPython" in sys.modules and sys.modules["IPython"].get_ipython() is not None:
            from IPython.display import Image, Markdown, display

            pictures = [Image(made.files[0].read_bytes(), width=720)] if made.files else []
            display(*pictures, Markdown(f"*{made.caption}*" if made.files else f"**Not made.** {made.reason}"))

    def write(self, name: str) -> Made:
        """Draw one figure into the target, with its provenance; a missing phase or data set is a reason, no error.

        Raises :class:`tvad.errors.StorageError` when the disk refuses, and what a damaged file raises.
        """
        self.stored.note_from_here()
        try:
            with settings():
                figure, caption = FIGURES[name](self.stored)
                files = save(figure, self.params.target / name, svg=True)
        except _MISSING as error:
            return Made(name, reason=_portable(error))
        record = provenance(config=self.params.config_hash())
        write_json(self.params.target / f"{name}.json", {
            "figure": name, "title": TITLES[name], "caption": caption, "command": self.command(name),
            "commit": record["commit"], "files": {path.name: file_hash(path) for path in files},
            "sources": self.stored.sources(), "provenance": record})
        return Made(name, tuple(files), caption)

    def write_all(self) -> list[Made]:
        """Every figure that can be made, and ``paper.md`` with all of them."""
        made = [self.write(name) for name in FIGURES]
        self._list(made)
        return made

    def command(self, name: str) -> str:
        """What draws this figure again."""
        params = self.params
        more = f" --runs {self.stored.named(params.run)}" if params.source else ""
        return f"python -m tvad.figures --profile {params.profile}{more} --only {name}"

    def _list(self, made: list[Made]) -> None:
        lines = [f"# Figures of profile {self.params.profile}", "", "| figure | file | what it shows |", "|---|---|---|"]
        for one in made:
            file = f"[{one.files[1].name}]({one.files[1].name})" if one.files else "not made"
            lines.append(f"| {TITLES[one.name]} | {file} | {one.caption or one.reason} |".replace("\n", " "))
        atomic_write(self.params.target / "paper.md", "\n".join(lines) + "\n")


def _portable(error: TvadError) -> str:
    """An error's words without this machine's folders."""
    return str(error).replace(f"{project_root()}/", "")
