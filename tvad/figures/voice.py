"""Figures of phase 2's training: what the anomaly tokens hold, how it learned, and conversations right and wrong.

    page = VoicePage(run)       # tvad.study.phase2.Phase2Run, after ``run.speak()``
    page.show("tokens")

The conversations are those of the paper's figures (``tvad.figures.exchanges``), picked by rule.
"""
from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from tvad.conversation.saved import ENCODER
from tvad.errors import MissingPhaseError
from tvad.figures.exchanges import dialogue
from tvad.figures.shown import Shown
from tvad.figures.stored import Stored
from tvad.figures.style import BLUE, GREY, ORANGE, PAGE, canvas
from tvad.params import Phase4
from tvad.region import load_encoder
from tvad.region.blobs import blob_tracks
from tvad.region.probe import read_back, tokens_of

_CLIPS, _HELD_OUT = 300, 100
_FACTS = {"from": "where it comes from", "to": "where it goes", "motion": "motion a step"}


class VoicePage(Shown):
    """A run of phase 2 as its figures see it."""

    prefix, record = "voice_", "voice.json"

    def __init__(self, run: Any) -> None:
        self.run, self.params = run, run.params

    @property
    def figures(self) -> Mapping[str, Callable]:
        return FIGURES

    @cached_property
    def stored(self) -> Stored:
        """What the run left on disk."""
        params = self.params
        return Stored(Phase4(profile=params.profile, dataset=params.dataset, protocol=params.protocol, split=params.split,
                             data_root=params.data_root, source=str(params.output), variant=params.variant))

    def show(self, name: str) -> None:
        """As every page, but what is missing is said and not raised, since the notebook goes on for other footage."""
        try:
            super().show(name)
        except MissingPhaseError as error:
            print(f"Not made. {error}")

    def write(self, name: str) -> tuple[Path, str]:
        """As every page. Raises :class:`MissingPhaseError` also where phase 2 is not run for the data set."""
        if self.run.not_run:
            raise MissingPhaseError(self.run.not_run)
        return super().write(name)


def tokens(page: VoicePage) -> tuple[Figure, str]:
    """Places and motion of synthetic blobs, read back from the trained encoder's tokens by ridge regression."""
    path = page.run.model / ENCODER
    if not path.is_file():
        raise MissingPhaseError(f"{page.stored.named(path)}: no trained region encoder (variant {page.params.variant}), so "
                                "there are no tokens to read; variant full has one, run: make reproduce")
    encoder = load_encoder(path).eval()
    frames, every = page.params.frames_per_clip, page.params.every * page.run.backbone.temporal_patch_size
    tracks = blob_tracks(_CLIPS, steps=-(-frames // every), seed=page.params.seed)
    facts = tracks.facts()
    readings = read_back(tokens_of(encoder, tracks.heatmaps), facts, held_out=_HELD_OUT)
    figure = canvas(PAGE, PAGE / 3)
    for axes, (name, title) in zip(figure.subplots(1, 3), _FACTS.items()):
        truth = facts[name][-_HELD_OUT:].numpy()
        for axis, (label, colour, marker) in enumerate((("across", BLUE, "o"), ("down", ORANGE, "x"))):
            axes.plot(truth[:, axis], readings[name].read[:, axis], marker, color=colour, ms=2.5, mew=0.7, label=label)
        ends = [float(truth.min()), float(truth.max())]
        axes.plot(ends, ends, color=GREY, lw=0.6)
        axes.set(title=f"{title}, R2 {readings[name].r2:.2f}", xlabel="true", ylabel="read")
    figure.axes[0].legend(loc="upper left", handletextpad=0.2)
    return figure, (f"Synthetic blobs (simulated), {_CLIPS - _HELD_OUT} clips fitted and {_HELD_OUT} shown: places (share "
                    f"of the picture) and motion (share a step), read from the tokens of the trained region encoder "
                    f"({encoder.variant}, {encoder.tokens(tracks.heatmaps.shape[1])} tokens) by ridge regression.")


def training(page: VoicePage) -> tuple[Figure, str]:
    """Loss and right answers over the optimizer steps."""
    history = page.run.history()
    steps = [entry["step"] for entry in history]
    best = min(history, key=lambda entry: entry["val_loss"])
    figure = canvas(PAGE, 2.0)
    loss, right = figure.subplots(1, 2)
    loss.plot(steps, [entry["train_loss"] for entry in history], "o-", ms=2.5, color=BLUE, label="training")
    loss.plot(steps, [entry["val_loss"] for entry in history], "o--", ms=2.5, color=ORANGE, label="validation")
    loss.set(xlabel="optimizer step", ylabel="nats an answer token")
    for place, slot in enumerate(sorted(history[-1]["val_slots"])):
        right.plot(steps, [entry["val_slots"].get(slot) for entry in history], "o-", ms=2.5, color=f"C{place}", label=slot)
    right.set(xlabel="optimizer step", ylabel="answers right in every token")
    for axes in (loss, right):
        axes.axvline(best["step"], color=GREY, lw=0.7, ls=":")
        axes.legend(loc="best")
    return figure, (f"Training of phase 2 on SimCampus (simulated), variant {page.params.variant}: mean loss since the "
                    "last validation and on validation answers, and the share of these whose every token is the model's "
                    "first choice given the right answers before it. Dotted: the kept checkpoint.")


def conversations(page: VoicePage) -> tuple[Figure, str]:
    """Clips, heatmaps and what was said."""
    return dialogue(page.stored)


FIGURES: Mapping[str, Callable[[VoicePage], tuple[Figure, str]]] = {
    "tokens": tokens, "training": training, "conversations": conversations}
