"""Ordinary actors in the sentences of the conversations: what one looks like, does, where it comes from and goes to.

The facts are the simulator's, the words those of ``tvad.language``, which the dialogue set speaks too, so that a model
knows its spelling before it is ever asked about an anomaly.  That word does not occur here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Int

from tvad.language.appearance import Look, is_black_and_white
from tvad.language.english import English
from tvad.language.timeline import timeline_of
from tvad.language.tracks import MaskTrack
from tvad.scenes.palette import article
from tvad.scenes.types import ActorTrack, Footage

Turn = tuple[str, str]
PATH_FRAMES = 8  # fewer do not show a path
_WORDS = English()
_LOOKS = ("What does {} look like?", "Describe {}.", "Who or what is {}?")
_DOINGS = ("What is {} doing?", "How does {} move?", "In which way does {} move?")
_ORIGINS = ("From where does {} come?", "From which side does {} come?", "From what place does {} start?")
_GOALS = ("To where does {} go?", "To which side does {} go?", "To what place does {} move?")
_PLACES = ("Where is {}?", "Where do you see {}?", "In which part of the picture is {}?")
_PATHS = ("Describe the path of {}.", "From where to where does {} go?", "Which way does {} take through the picture?")
_ABOUT = {
    "look": ("What does {} look like?", "Describe {}.", "Who or what is {}?"), "doing": _DOINGS, "origin": _ORIGINS,
    "goal": _GOALS, "path": (*_PATHS, "Tell the way of {}.", "Trace the path of {} through the picture."),
}
_PRESENT = ("Is there {} in the {}?", "Do you see {}?", "Does this show {}?", "Can you see {} here?")


@dataclass(frozen=True)
class Named:
    """An actor with the words that single it out ("the person in the red top"), and its rows in the frames asked about."""

    actor: ActorTrack
    subject: str
    look: Look
    track: MaskTrack


def reports(footage: Footage, frames: slice, named: Sequence[Named], *, rng: np.random.Generator) -> list[Turn]:
    """Questions and whole-sentence answers about ``named`` actors in ``frames`` of the footage, in a fixed order.

    Paths, origins and destinations are asked only of clips of at least ``PATH_FRAMES`` frames.
    """
    count = len(range(*frames.indices(len(footage.frames))))
    asked = []
    for one in named:
        motions = _motions(one, frames)
        said = [(_LOOKS, _WORDS.target(one.look, motions)), (_DOINGS, _WORDS.motion(motions))]
        line = timeline_of(one.track, frames=count, size=footage.instances.shape[1:])
        if count < PATH_FRAMES:
            said.append((_PLACES, _WORDS.at(line.origin)))
        else:
            said += [(_ORIGINS, f"from {_WORDS.place(line.origin)}"), (_GOALS, f"to {_WORDS.place(line.destination)}"),
                     (_PATHS, _WORDS.trajectory(line))]
        asked += [(ways[rng.integers(len(ways))].format(one.subject), _WORDS.sentence(words)) for ways, words in said]
    return asked


def reading(footage: Footage, frames: slice, named: Sequence[Named], *, rng: np.random.Generator) -> list[Turn]:
    """A lesson without any picture: one or two actors are described in words, then asked about; [] without any actor.

    What is told of an actor, in which order and of whom first is drawn anew, so that the answers must be read.
    """
    count = len(range(*frames.indices(len(footage.frames))))
    chosen = [named[i] for i in rng.permutation(len(named))[: 1 + int(rng.random() < 0.4)]]
    told, asked = [], []
    for place, one in enumerate(chosen):
        line = timeline_of(one.track, frames=count, size=footage.instances.shape[1:])
        motions = _motions(one, frames)
        facts = {"look": _WORDS.target(one.look, motions), "doing": _WORDS.motion(motions),
                 "origin": f"from {_WORDS.place(line.origin)}", "goal": f"to {_WORDS.place(line.destination)}",
                 "path": _WORDS.trajectory(line)}
        who = "it" if len(chosen) == 1 else ("the first", "the second")[place]
        clauses = {"look": f"{who} is {facts['look']}", "doing": f"{who} is {facts['doing']}",
                   "origin": f"{who} comes {facts['origin']}", "goal": f"{who} goes {facts['goal']}",
                   "path": f"{who} {facts['path']}"}
        kept = [str(name) for name in rng.permutation(list(facts)) if rng.random() < 0.7] or ["path"]
        told += [_WORDS.sentence(clauses[name]) for name in kept]
        ways = [_ABOUT[name][rng.integers(len(_ABOUT[name]))] for name in kept]
        asked += [(way.format(who), _WORDS.sentence(facts[name])) for way, name in zip(ways, kept, strict=True)]
    asked = [asked[i] for i in rng.permutation(len(asked))]
    if asked:
        asked[0] = (" ".join([*told, asked[0][0]]), asked[0][1])
    return asked


def presence_turn(name: str, present: bool, rng: np.random.Generator, *, still: bool) -> Turn:
    """Is it there, yes or no."""
    words = name if name.startswith("people") else article(name)
    wording = _PRESENT[rng.integers(len(_PRESENT))].format(words, "picture" if still else "video")
    return wording, "Yes." if present else "No."


def singled_out(footage: Footage, frames: slice, areas: Int[np.ndarray, "n k"], *, least: int) -> list[Named]:
    """The actors that a few words single out among all that show at least ``least`` pixels in some frame.

    ``areas``: visible pixels of every id in every frame of ``frames``.  A vehicle or its like is named when it is the only
    one, anybody in clothes by the colour of the top when no other wears it.  In grey footage colours are dark or light.
    """
    grey = is_black_and_white(footage.frames[frames][0])
    seen = []
    for actor in footage.actors:
        rows = np.flatnonzero((areas[:, actor.id] >= least) & ~np.isnan(actor.box[frames]).any(1))
        if len(rows) and areas[:, actor.id].max() >= 2 * least:
            look = _look(actor)
            seen.append((actor, rows, look.without_colours() if grey else look))
    names = [_name(look) for _, _, look in seen]
    found = []
    for (actor, rows, look), name in zip(seen, names, strict=True):
        if names.count(name) == 1:
            found.append(Named(actor, f"the {name}", look, _track(actor, rows, frames, areas, footage.instances.shape[1:])))
    return found


def _look(actor: ActorTrack) -> Look:
    seen = actor.appearance
    colour, _, thing = seen.object.partition(" ")
    return replace(Look(actor.kind, seen.noun or "person"), top=seen.top, bottom=seen.bottom, object=thing,
                   object_colour=colour)


def _name(look: Look) -> str:
    if look.is_vehicle:
        return f"{look.object_colour} {look.object or look.noun}".strip()
    worn = f"person in the {look.top} top" if look.top else "person"
    return f"{worn} with the {look.object}" if look.object else worn


def _track(actor: ActorTrack, rows, frames: slice, areas, size: tuple[int, int]) -> MaskTrack:
    box = actor.box[frames][rows]
    box = np.clip(box, 0, [size[1] - 1, size[0] - 1] * 2)
    middles = np.stack([(box[:, 0] + box[:, 2]) / 2, (box[:, 1] + box[:, 3]) / 2], 1)
    return MaskTrack(actor.id, rows, box, middles, areas[rows, actor.id])


def _motions(one: Named, frames: slice) -> tuple[str, ...]:
    """The doing seen most, as the clips are short."""
    shown = [one.actor.motion[frames][row] for row in one.track.frames]
    return (max(dict.fromkeys(shown), key=shown.count),)
