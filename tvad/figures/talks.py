"""Figures of the dialogue set: a clip with its conversation, what the set counts, and a sample that was dropped.

    page = TalkPage(params)     # Phase2 parameters, after ``dialogue_set(params)``
    page.show("clip")

Clips are picked by rule: the first of the evaluated split, by name, whose target moves (else with a target, else the
first); the first dropped one.  The caption says which.
"""
from __future__ import annotations

import textwrap
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from tvad.errors import MissingPhaseError
from tvad.figures.panels import bare, frame_panel
from tvad.figures.shown import Shown
from tvad.figures.style import BLUE, GREEN, GREY, NAMES, ORANGE, PAGE, PURPLE, SKY, VERMILION, canvas
from tvad.language.appearance import ClipView
from tvad.language.corpus import load_conversations, make_command, read_manifest
from tvad.language.dialogue import Conversation
from tvad.language.grammar import PLACES, spoken
from tvad.language.run import folder_of, opened
from tvad.language.timeline import timeline_of
from tvad.language.tracks import MaskTrack, tracks_from_binary, tracks_from_instances

_TARGETS = (VERMILION, BLUE, GREEN, PURPLE, ORANGE, SKY)


class TalkPage(Shown):
    """The dialogue set of ``params`` as its figures see it."""

    prefix, record = "talk_", "talks.json"

    def __init__(self, params: Any) -> None:
        self.params, self.folder = params, folder_of(params)

    @property
    def figures(self) -> Mapping[str, Callable]:
        return FIGURES

    @cached_property
    def manifest(self) -> dict[str, Any]:
        """Counts and drops. Raises :class:`MissingPhaseError` where the set is not made."""
        return read_manifest(self.folder, dataset=self.params.dataset)

    @cached_property
    def dataset(self) -> Any:
        return opened(self.params)

    @property
    def split(self) -> str:
        """The evaluated split, or the first one that the set has."""
        return self.params.split if self.params.split in self.manifest["splits"] else next(iter(self.manifest["splits"]))

    @cached_property
    def talks(self) -> list[Conversation]:
        """Conversations of the evaluated split."""
        return load_conversations(self.folder, self.split, dataset=self.params.dataset)

    @property
    def name(self) -> str:
        """Data set and split, as captions say them."""
        return f"{NAMES.get(self.params.dataset, self.params.dataset)}, {self.split} split"

    def view(self, split: str, video: str, start: int, stop: int) -> ClipView:
        """A clip with its masks."""
        found = next((one for one in self.dataset.videos(split) if one.id == video), None)
        if found is None:
            raise MissingPhaseError(f"{self.folder}: speaks of {video}, which is not in split {split} any more; make the "
                                    f"set again: {make_command(self.folder, self.params.dataset)}")
        return ClipView(found, start, stop, found.masks(start, stop))

    def tracks(self, view: ClipView) -> tuple[MaskTrack, ...]:
        """Tracks of a clip, in the order in which its conversation speaks of them."""
        track = tracks_from_instances if self.params.dataset == "simcampus" else tracks_from_binary
        return tuple(sorted(track(view.masks), key=lambda one: (one.frames[0], one.centres[0, 0], one.id)))

    def example(self) -> Conversation:
        """The first conversation in short answers whose target moves, else the first about a target, else the first."""
        short = [talk for talk in self.talks if talk.style == "turns"]
        if not short:
            raise MissingPhaseError(f"{self.folder}: no conversation in short answers in split {self.split}; make the set "
                                    "again with more videos (dialogue_videos, --limit): "
                                    f"{make_command(self.folder, self.params.dataset)}")
        moving = [talk for talk in short if "towards" in talk.slots["trajectory"]]
        return (moving or [talk for talk in short if talk.anomalous] or short)[0]


def clip(page: TalkPage) -> tuple[Figure, str]:
    """Masks, tracks, timeline strip and conversation of one clip, side by side."""
    talk = page.example()
    view = page.view(page.split, talk.video, talk.start, talk.stop)
    height, width = view.masks.shape[1:]
    figure = canvas(PAGE, 3.3)
    grid = figure.add_gridspec(3, 3, height_ratios=(1, 1, 0.62), width_ratios=(1, 1, 1.75))
    tracks = page.tracks(view)
    chosen = np.linspace(0, len(view.masks) - 1, 3).round().astype(int)
    frames = view.video.frames.read(view.start, view.stop)
    for place, number in enumerate(chosen):
        axes = figure.add_subplot(grid[place // 2, place % 2])
        frame_panel(axes, frames[number], mask=view.masks[number], inches=PAGE / 4)
        axes.set_title(f"masks, {number / talk.fps:.1f} s", pad=2)
    axes = figure.add_subplot(grid[1, 1])
    _tracks_panel(axes, tracks, size=(height, width))
    _strip(figure.add_subplot(grid[2, :2]), tracks, talk, size=(height, width))
    _text(figure.add_subplot(grid[:, 2]), talk)
    where = f"{page.name}. Frames {talk.start} to {talk.stop - 1} of {talk.video}, the first clip of the split"
    if not talk.anomalous:
        return figure, f"{where}; none has a target. No masks, no tracks; the conversation in short answers."
    which = "with a target that moves" if "towards" in talk.slots["trajectory"] else "with a target; none moves"
    return figure, (f"{where} {which}: masks (cyan outline), tracks from first (ring) to last place (dot) on the 3x3 grid, "
                    "timeline with the place in each frame, and the conversation in short answers.")


def _tracks_panel(axes: Axes, tracks: Sequence[MaskTrack], *, size: tuple[int, int]) -> None:
    height, width = size
    for part in (1 / 3, 2 / 3):
        axes.axhline(height * part, color=GREY, lw=0.4)
        axes.axvline(width * part, color=GREY, lw=0.4)
    for track, colour in zip(tracks, _colours(len(tracks))):
        axes.plot(*track.centres.T, color=colour, lw=1.2)
        axes.plot(*track.centres[0], "o", color=colour, mfc="white", ms=4)
        axes.plot(*track.centres[-1], "o", color=colour, ms=4)
    axes.set_aspect("equal")
    bare(axes, width, height)
    axes.set_title("tracks", pad=2)


def _strip(axes: Axes, tracks: Sequence[MaskTrack], talk: Conversation, *, size: tuple[int, int]) -> None:
    """One bar a target over the clip's frames, divided and named by place."""
    length = talk.stop - talk.start
    for row, (track, colour) in enumerate(zip(tracks, _colours(len(tracks)))):
        line = timeline_of(track, frames=length, size=size)
        places = np.array([PLACES.index(place) for place in line.places])
        edges = [0, *(np.flatnonzero(np.diff(places)) + 1).tolist(), len(places)]
        for start, stop in zip(edges, edges[1:]):
            axes.barh(row, stop - start, left=line.entry + start, height=0.7, color=colour, alpha=0.35, ec=colour, lw=0.6)
            name = spoken(line.places[start]).replace(" ", "\n")
            axes.text(line.entry + (start + stop) / 2, row, name, ha="center", va="center", fontsize=5.5)
    axes.set(xlim=(0, length), ylim=(max(len(tracks), 1) - 0.5, -0.5), yticks=range(len(tracks)))
    axes.set_xlabel("frame of the clip")
    axes.set_yticklabels([f"target {row + 1}" for row in range(len(tracks))])


def _text(axes: Axes, talk: Conversation) -> None:
    lines: list[tuple[str, str]] = []
    for _, ask, say in talk.turns():
        lines += [(GREY, line) for line in textwrap.wrap(ask, 64)]
        lines += [("black", "  " + line) for line in textwrap.wrap(say, 62)]
    step = min(1 / max(len(lines), 1), 0.045)
    for number, (colour, line) in enumerate(lines):
        axes.text(0, 1 - number * step, line, color=colour, fontsize=5.8, va="top")
    axes.set(xlim=(0, 1), ylim=(0, 1))
    axes.axis("off")


def counts(page: TalkPage) -> tuple[Figure, str]:
    """Clips a class, answers a slot, and dropped clips a reason, by split."""
    splits: Mapping[str, Any] = page.manifest["splits"]
    figure = canvas(PAGE, 2.5)
    panels = figure.subplots(1, 3)
    tables = (("targets by class", "targets", [part["classes"] for part in splits.values()]),
              ("answers by slot", "answers", [part["answers"] for part in splits.values()]),
              ("dropped clips by reason", "clips", [part["dropped"]["reasons"] for part in splits.values()]))
    for axes, (title, unit, rows) in zip(panels, tables):
        _bars(axes, rows, list(splits))
        axes.set_title(title, pad=3)
        axes.set_xlabel(f"number of {unit}")
    panels[0].legend(loc="lower right", handlelength=1)
    total = sum(part["conversations"] for part in splits.values())
    clips = sum(part["clips"] for part in splits.values())
    name = NAMES.get(page.params.dataset, page.params.dataset)
    return figure, (f"{name}: {total:,} conversations about {clips:,} clips. Targets by class, answers by slot, and clips "
                    "that gave no conversation by reason, in each split.")


def _bars(axes: Axes, rows: Sequence[Mapping[str, int]], splits: Sequence[str]) -> None:
    names = sorted({name for row in rows for name in row}, key=lambda name: -sum(row.get(name, 0) for row in rows))
    left = np.zeros(len(names))
    for row, split, colour in zip(rows, splits, _TARGETS):
        values = np.array([row.get(name, 0) for name in names])
        axes.barh(range(len(names)), values, left=left, color=colour, label=split, height=0.75)
        left += values
    axes.set(yticks=range(len(names)), ylim=(max(len(names), 5) - 0.5, -0.5))
    axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
    axes.set_yticklabels([textwrap.fill(name.replace("_", " "), 18) for name in names])
    if not names:
        axes.text(0.5, 0.5, "none", ha="center", va="center", transform=axes.transAxes)
        axes.set(xticks=[])


def dropped(page: TalkPage) -> tuple[Figure, str]:
    """A sample that was dropped, and why."""
    split, sample = next(((split, part["dropped"]["examples"][0]) for split, part in page.manifest["splits"].items()
                          if part["dropped"]["examples"]), ("", None))
    if sample is None:
        figure = canvas(PAGE, 0.5)
        figure.text(0.5, 0.5, "no clip was dropped", ha="center", va="center")
        name = NAMES.get(page.params.dataset, page.params.dataset)
        return figure, f"{name}: no clip was dropped (splits: {', '.join(page.manifest['splits'])})."
    video, _, span = sample["clip"].rpartition(":")
    start, stop = map(int, span.split("-"))
    view = page.view(split, video, start, stop)
    seen = np.flatnonzero(view.masks.any(axis=(1, 2)))
    chosen = {*spaced(seen, 4)}
    # What is seen for a moment is shown among the frames in which it is not.
    chosen = sorted(chosen | {*spaced(np.setdiff1d(np.arange(len(view.masks)), seen), 4 - len(chosen))})
    height, width = view.masks.shape[1:]
    figure = canvas(PAGE, PAGE / 4 * height / width + 0.42)
    figure.suptitle(textwrap.shorten(sample["detail"], 130), fontsize=7)
    panels = figure.subplots(1, 4)
    for axes in panels[len(chosen):]:
        axes.set_visible(False)
    for axes, number in zip(panels, chosen):
        frame_panel(axes, view.video.frames.read(start + number, start + number + 1)[0], mask=view.masks[number],
                    inches=PAGE / 4)
        axes.set_title(f"frame {number}", pad=2)
    return figure, (f"{page.name.partition(',')[0]}, {split} split. The first dropped clip ({sample['clip']}): it gives no "
                    f"conversation. Reason: {sample['reason']}.")


def spaced(frames: np.ndarray, count: int) -> list[int]:
    """At most ``count`` of some frames, evenly spaced from the first to the last."""
    places = np.linspace(0, len(frames) - 1, min(count, len(frames))).round().astype(int)
    return frames[places].tolist()


def _colours(count: int) -> list[str]:
    return [_TARGETS[place % len(_TARGETS)] for place in range(count)]


FIGURES: Mapping[str, Callable[[TalkPage], tuple[Figure, str]]] = {"clip": clip, "counts": counts, "dropped": dropped}
