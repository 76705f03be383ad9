"""Multi-turn examples: a frame with the way that was answered, the heatmap, and what was asked and said, marked right or
wrong.

Answers are read from phase 2's file; it names a video and a slot, so the clip of each conversation is found again by the
rule that chose it (``tvad.study.speaking``) and checked against the right answers in the file.  Shown are the best, the
median and the worst conversation about a target and the median one about a normal clip, by the share of right answers.
"""
from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch

from tvad.errors import DatasetError
from tvad.figures.panels import frame_at, frame_panel, place_of
from tvad.figures.stored import Stored
from tvad.figures.style import BLUE, GREY, ORANGE, PAGE, TRUTH, VERMILION, canvas
from tvad.language.dialogue import Conversation
from tvad.language.grammar import PLACES, spoken
from tvad.metrics.text import YES_NO, Answer, plain, yes_no
from tvad.study.answers import slot_rules
from tvad.study.speaking import spread_clips
from tvad.training.lessons import clip_of, clips_of

_SIZE = 6.0             # points of the conversation's type
_WIDTH = 66             # its letters a line
_LINE = 0.104           # inches a line


@dataclass(frozen=True)
class Exchange:
    """What was said about one clip: its conversation, and the answers that were given, in order."""

    talk: Conversation
    answers: tuple[Answer, ...]

    @property
    def right(self) -> float:
        """Share of right answers."""
        return float(np.mean([is_right(one) for one in self.answers]))

    def turns(self) -> Iterator[tuple[str, Answer]]:
        """(question, answer) of each turn that was asked."""
        asked = {slot: question for slot, question, _ in self.talk.turns()}
        return ((asked[one.slot], one) for one in self.answers)

    def said(self, slot: str) -> str:
        """The answer in a slot, "" where it was not asked."""
        return next((one.said for one in self.answers if one.slot == slot), "")


def is_right(answer: Answer) -> bool:
    """Whether an answer says what it should: yes or no; the facts of its slot, where rules know them; else the words."""
    if answer.slot == YES_NO:
        return yes_no(answer.said) is not None and yes_no(answer.said) == yes_no(answer.wanted[0])
    if plain(answer.said) in {plain(one) for one in answer.wanted}:
        return True
    rules = [rule for rule in slot_rules() if rule.slot == answer.slot and rule.facts(answer.wanted[0])]
    return bool(rules) and all(rule.facts(answer.said) == rule.facts(answer.wanted[0]) for rule in rules)


def joined(answers: Sequence[Answer], conversations: Sequence[Conversation]) -> list[Exchange]:
    """Answers put to the clips that they are about.

    A file holds the answers of one conversation in a row; a conversation begins where the video changes or a slot comes
    again.  Raises :class:`DatasetError` where the right answers in the file are not those of the dialogue set.
    """
    groups: list[list[Answer]] = []
    for one in answers:
        if not groups or groups[-1][0].video != one.video or one.slot in {other.slot for other in groups[-1]}:
            groups.append([])
        groups[-1].append(one)
    chosen = set(spread_clips(clips_of(conversations), len(groups)))
    talks = [talk for talk in conversations if clip_of(talk) in chosen]
    for talk, group in zip(talks, groups):
        known = {slot: said for slot, _, said in talk.turns()}
        if talk.video != group[0].video or any(known.get(one.slot) not in one.wanted for one in group):
            raise DatasetError(f"{group[0].video}: its answers are not about the dialogue set that lies beside them (first "
                               f"other clip: {talk.id}); the set was made again since. Answer it again: make reproduce")
    return [Exchange(talk, tuple(group)) for talk, group in zip(talks, groups)]


def picked(exchanges: Sequence[Exchange]) -> list[tuple[str, Exchange]]:
    """The best, median and worst about a target, the median about a normal clip.

    Of equals those whose target moves come first, then the first by name.
    """
    found = []
    for kind, names in ((True, ("best", "median", "worst")), (False, ("normal",))):
        own = sorted((one for one in exchanges if one.talk.anomalous is kind),
                     key=lambda one: (-one.right, "towards" not in one.talk.slots.get("trajectory", ""), one.talk.id))
        places = (0, len(own) // 2, len(own) - 1) if kind else (len(own) // 2,)
        shown = dict(zip(reversed(places), reversed(names)))      # of a single clip it is the best
        found += [(shown[place], own[place]) for place in sorted(shown) if own]
    return found


def style_of(stored: Stored) -> str:
    """The style of conversation that was answered: as the parameters beside the answers say, else short turns."""
    params = stored.json(str(stored.answers_path.with_name("params.json"))) or {}
    return params.get("style", "turns")


def dialogue(stored: Stored) -> tuple[Figure, str]:
    """Four clips: the answered way on a frame, the heatmap, the conversation.

    Raises :class:`MissingPhaseError` where nothing was answered, :class:`DatasetError` as :func:`joined`.
    """
    answers = stored.answers()
    exchanges = joined(answers, stored.conversations(style_of(stored)))
    rows = picked(exchanges)
    heights = [max(len(_lines(one)) * _LINE, 0.27 * PAGE * 2 / 3) + 0.22 for _, one in rows]
    figure = canvas(PAGE, sum(heights) + 0.1)
    grid = figure.add_gridspec(len(rows), 3, width_ratios=(1, 1, 1.75), height_ratios=heights)
    for row, (why, one) in enumerate(rows):
        _row([figure.add_subplot(grid[row, column]) for column in range(3)], stored, one, why, heights[row])
    shares = [one.right for one in exchanges]
    return figure, (f"{stored.place}; {len(exchanges)} clips were spoken of, {np.mean(shares):.0%} of the answers are "
                    "right. Shown by rule: of the clips with a target the best, the median and the worst by share of right "
                    "answers, and the median normal clip. Left: the middle frame with the way of the target, cyan as it "
                    "was, orange as answered (from place to place of the 3 x 3 grid; a ring: it stays). Middle: heatmap "
                    f"(inferno, 0 to 1). Right: questions in grey, the answers of variant {stored.params.variant}, ticked "
                    "where right; where wrong, the right answer follows.")


def _row(panels: Sequence[Axes], stored: Stored, one: Exchange, why: str, inches: float) -> None:
    frame_axes, heat_axes, text_axes = panels
    talk, video = one.talk, stored.video(one.talk.video)
    frame = (talk.start + talk.stop) // 2
    picture = frame_at(video, frame)
    frame_panel(frame_axes, picture, inches=PAGE / 4)
    height, width = picture.shape[:2]
    _true_way(frame_axes, video, talk)
    _said_way(frame_axes, one, (height, width))
    frame_axes.set_title(f"{why}: {place_of(video)}, {talk.start / talk.fps:.1f} s", pad=2)
    frame_panel(heat_axes, picture, heat=stored.detections[video.id].heatmap[frame], inches=PAGE / 4)
    heat_axes.set_title("heatmap", pad=2)
    for axes in (frame_axes, heat_axes):
        axes.set_anchor("N")
    for number, (words, colour) in enumerate(_lines(one)):
        text_axes.text(0, 1 - number * _LINE / (inches - 0.22), words, color=colour, fontsize=_SIZE, va="top",
                       transform=text_axes.transAxes)
    text_axes.axis("off")


def _lines(one: Exchange) -> list[tuple[str, str]]:
    """The conversation as lines of text with their colours."""
    lines: list[tuple[str, str]] = []
    for question, answer in one.turns():
        lines += [(part, GREY) for part in textwrap.wrap(question, _WIDTH)]
        right = is_right(answer)
        chance = "" if answer.probability is None else f"  (P(yes) = {answer.probability:.2f})"
        words = f"{'✓' if right else '✗'} {answer.said or '(nothing)'}{chance}"
        lines += [(part, BLUE if right else VERMILION)
                  for part in textwrap.wrap(words, _WIDTH, initial_indent="  ", subsequent_indent="     ")]
        if not right:
            lines += [(part, "black") for part in textwrap.wrap(f"right: {answer.wanted[0]}", _WIDTH,
                                                                initial_indent=5 * " ", subsequent_indent=5 * " ")]
    return lines


def _true_way(axes: Axes, video: Any, talk: Conversation) -> None:
    if video.tracks is None:
        return
    inside = (video.tracks.frame >= talk.start) & (video.tracks.frame < talk.stop)
    for track in np.unique(video.tracks.track[inside]):
        own = inside & (video.tracks.track == track)
        order = np.argsort(video.tracks.frame[own])
        middles = ((video.tracks.box[own, :2] + video.tracks.box[own, 2:] + 1) / 2)[order]
        _arrow(axes, middles[0], middles[-1], TRUTH)


def _said_way(axes: Axes, one: Exchange, size: tuple[int, int]) -> None:
    """An arrow from each answered origin to the answered destination of the same target, where both are named."""
    origins, destinations = (places_said(one.said(slot)) for slot in ("from", "to"))
    if len(origins) == len(destinations):
        for origin, destination in zip(origins, destinations):
            if origin and destination:
                _arrow(axes, middle_of(origin, size), middle_of(destination, size), ORANGE)


def places_said(text: str) -> list[str]:
    """The place that an answer names for each target ("First, from the top left; second, from the top."), "" for none or
    several."""
    rule = next(rule for rule in slot_rules() if rule.name == "from")
    names = {plain(spoken(place)): place for place in PLACES}
    found = [sorted(rule.facts(part)) for part in text.split(";")]
    return [names[facts[0]] if len(facts) == 1 else "" for facts in found]


def middle_of(place: str, size: tuple[int, int]) -> tuple[float, float]:
    """The middle (x, y) of one of the nine places of a picture (height, width)."""
    row, column = divmod(PLACES.index(place), 3)
    return (column + 0.5) / 3 * size[1], (row + 0.5) / 3 * size[0]


def _arrow(axes: Axes, start: Sequence[float], stop: Sequence[float], colour: str) -> None:
    if np.hypot(stop[0] - start[0], stop[1] - start[1]) < 8:
        for edge, width in (("black", 2.2), (colour, 1.2)):
            axes.plot(*start, "o", mfc="none", mec=edge, mew=width, ms=6)
        return
    for edge, width in (("black", 2.4), (colour, 1.3)):
        axes.add_patch(FancyArrowPatch(tuple(start), tuple(stop), arrowstyle="-|>", mutation_scale=8, color=edge,
                                       linewidth=width, shrinkA=0, shrinkB=0))
