"""The paper's figures, redrawn from what runs left: ``python -m tvad.figures`` and notebook phase 4.

    gallery = Gallery(params)          # a tvad.params.Phase4
    gallery.show("trajectories")       # PDF (SVG), PNG and a provenance JSON; shown with its caption in a notebook

A figure whose rows or arrays are missing is not made: ``show`` says so and which command makes them, and nothing is
drawn in its place.  ``paper.md`` in the target lists all of them, made or not.
"""
from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from matplotlib.figure import Figure

from tvad.errors import BackboneError, DatasetError, MissingPhaseError, TvadError
from tvad.figures import calibration, curves, exchanges, failures, framework, learning, trajectories
from tvad.figures.shown import display_figure, display_text
from tvad.figures.stored import Stored
from tvad.figures.style import PAGE, save, settings, sign
from tvad.params import Phase4, project_root
from tvad.record import atomic_write, file_hash, provenance, write_json

FIGURES: Mapping[str, Callable[[Stored], tuple[Figure, str]]] = {
    "framework": framework.framework, "dialogue": exchanges.dialogue, "trajectories": trajectories.trajectories,
    "curves": curves.curves, "roc_pr": curves.roc_pr, "failures": failures.failures, "reliability": calibration.reliability,
    "study": curves.study, "learning": learning.learning,
}
TITLES: Mapping[str, str] = {
    "framework": "Framework overview", "dialogue": "Multi-turn examples", "trajectories": "Trajectory overlays",
    "curves": "Score curves with labelled intervals", "roc_pr": "ROC and precision-recall",
    "failures": "Failure gallery", "reliability": "Calibration of the yes/no answers",
    "study": "Study over seeds, with controls", "learning": "Learning curve of the answers",
}
# Lines and type: these are written as SVG too.  The others show footage, which is no vector and makes an SVG large.
DRAWN = ("framework", "curves", "roc_pr", "reliability", "study", "learning")
# What a figure lacks, as opposed to what is broken.
_MISSING = (MissingPhaseError, DatasetError, BackboneError)
_SCREEN = 780       # pixels of a page-wide figure in a notebook


@dataclass(frozen=True)
class Made:
    """A figure that was written: its files (PNG, PDF, SVG of the ``DRAWN``), caption and width; or why it was not made."""

    name: str
    files: tuple[Path, ...] = ()
    caption: str = ""
    reason: str = ""
    inches: float = 0.0


class Gallery:
    """The figures of ``params``; each is drawn when it is asked for."""

    def __init__(self, params: Phase4) -> None:
        self.params, self.stored = params, Stored(params)
        self.made: dict[str, Made] = {}

    def show(self, name: str) -> None:
        """Draw one figure of ``FIGURES``; in a notebook display it with its caption, or the sentence why it is not made."""
        made = self.write(name)
        if made.files:      # 85 mm are half of 170 mm on the screen too
            display_figure(made.files[0], made.caption, width=round(_SCREEN * made.inches / PAGE))
        else:
            display_text(f"**Not made.** {made.reason}")

    def show_list(self) -> None:
        """Write ``paper.md`` of the figures drawn so far, and display it in a notebook."""
        display_text(self._list(list(self.made.values())))

    def write(self, name: str) -> Made:
        """Draw one figure into the target, with its provenance; a missing phase or data set is a reason, no error.

        Raises :class:`tvad.errors.StorageError` when the disk refuses, and what a damaged file raises.
        """
        self.stored.note_from_here()
        try:
            with settings():
                figure, caption = FIGURES[name](self.stored)
                sign(figure, caption)
                files = save(figure, self.params.target / name, svg=name in DRAWN)
        except _MISSING as error:
            older = (self.params.target / f"{name}.pdf").is_file()
            self.made[name] = Made(name, reason=portable(error) + ("; the one that lies there is older" if older else ""))
            return self.made[name]
        record = provenance(config=self.params.config_hash())
        write_json(self.params.target / f"{name}.json", {
            "figure": name, "title": TITLES[name], "caption": caption, "command": self.command(name),
            "commit": record["commit"], "files": {path.name: file_hash(path) for path in files},
            "sources": self.stored.sources(), "provenance": record})
        self.made[name] = Made(name, tuple(files), caption, inches=float(figure.get_size_inches()[0]))
        return self.made[name]

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

    def _list(self, made: list[Made]) -> str:
        lines = [f"# Figures of profile {self.params.profile}", "", "| figure | file | what it shows |", "|---|---|---|"]
        for one in made:
            file = f"[{one.files[1].name}]({one.files[1].name})" if one.files else "not made"
            lines.append(f"| {TITLES[one.name]} | {file} | {one.caption or one.reason} |".replace("\n", " "))
        text = "\n".join(lines) + "\n"
        atomic_write(self.params.target / "paper.md", text)
        return text


def portable(words: TvadError | Path) -> str:
    """An error's words, or a path, without this machine's folders."""
    return str(words).replace(f"{project_root()}/", "")
