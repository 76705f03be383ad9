"""Do the looks, the motion and the path of a target agree?  Samples in which they do not are dropped and counted.

The paper checks in both directions (step 3: appearance implies motion, motion implies appearance) and drops what fails.
Here both directions are tables of what can be, and a third witness is added that no captioner writes: the timeline made
from the masks.  A class of target says which things it has and which motions it shows; a motion says which things it
needs and how fast and far it can lead.  No motion is refused for being slow: a rider who comes straight at the camera
moves less in the picture than two who fight.
"""
from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from tvad.language.appearance import OBJECTS, PERSONS, VEHICLES, Look
from tvad.language.grammar import PLACES, STOP
from tvad.language.timeline import MOTION_STATES, SPEEDS, Timeline
from tvad.language.tracks import MaskTrack

# Appearance implies motion: what frames of a class may show.
MOTIONS_OF: Mapping[str, frozenset[str]] = {
    "car": frozenset({"driving"}), "bicycle": frozenset({"riding", "pushing"}), "motorcycle": frozenset({"riding"}),
    "hand_truck": frozenset({"pushing"}), "stroller": frozenset({"pushing"}), "skateboarding": frozenset({"gliding"}),
    "running": frozenset({"running"}), "falling": frozenset({"falling", "lying", "getting_up"}),
    "jumping": frozenset({"jumping"}), "loitering": frozenset({"pacing"}), "fighting": frozenset({"fighting"}),
    # A thrown thing flies on while its thrower stands or walks again.
    "throwing": frozenset({"throwing", "standing", "walking"}),
}
# Motion implies appearance: one of these things must be there ("" for nothing in the hands).
THINGS_FOR: Mapping[str, frozenset[str]] = {
    "driving": frozenset(VEHICLES), "riding": frozenset({*OBJECTS["bicycle"], *OBJECTS["motorcycle"]}),
    "pushing": frozenset({*OBJECTS["hand_truck"], *OBJECTS["stroller"], *OBJECTS["bicycle"]}),
    "gliding": frozenset(OBJECTS["skateboarding"]), "throwing": frozenset(OBJECTS["throwing"]),
    **{word: frozenset({""}) for word in ("running", "falling", "lying", "getting_up", "jumping", "pacing", "fighting")},
}
# Motion implies path: the highest speed class, and the most cells of the 3x3 grid between its ends.
_ANY = (SPEEDS[-1], 2)
BOUNDS: Mapping[str, tuple[str, int]] = {
    **{word: ("slow", 1) for word in ("lying", "getting_up", "standing", "sitting", "talking")},
    **{word: ("walking", 1) for word in ("falling", "jumping", "fighting", "pacing")},
}
_LEAST_FRAMES = 6       # a target seen for less has no speed to speak of
_BREATH = 1.6           # most ratio of widths of one thing that stays
_LEAST_SHARE = 0.12     # of the picture's shorter side: who gets as far does not stay


def contradictions(look: Look | None, motions: Sequence[str], timeline: Timeline) -> tuple[str, ...]:
    """Every contradiction between look, motion words and timeline, in words; none for a sound sample.

    A look or motion that was left open (None, empty) contradicts nothing.
    """
    # A thrown thing belongs to its thrower's mask and flies as fast as it likes.
    bounded = motions if look is None or look.kind != "throwing" else ()
    return (*_within(look), *_look_and_motion(look, motions), *_motion_and_look(look, motions), *_path(bounded, timeline))


def told_still(timeline: Timeline, track: MaskTrack, *, size: tuple[int, int]) -> str:
    """Why a timeline that says "stays" is not true to its track, "" where it is: it went too far, or ends elsewhere."""
    if any(leg.way != STOP for leg in timeline.legs):
        return ""
    if timeline.origin != timeline.destination:
        return f"track to path: it stays, yet from {timeline.origin} to {timeline.destination}"
    moved = float(np.linalg.norm(track.centres[-1] - track.centres[0]))
    if moved < _LEAST_SHARE * min(size):
        return ""
    return f"track to path: it stays, yet its middle moved by {moved:.0f} pixels"


def unclear(timeline: Timeline, track: MaskTrack) -> str:
    """Why "stays" may not be said of a target of which nothing but masks is known, "" where it may.

    What crosses the border is on its way, however little of it is seen yet; and a mask whose width comes and goes may be
    two riders that meet.
    """
    if any(leg.way != STOP for leg in timeline.legs):
        return ""
    if timeline.begins == "enters" or timeline.ends == "leaves":
        return f"track to path: it stays, yet {timeline.begins} and {timeline.ends}"
    narrow, wide = np.percentile(track.boxes[:, 2] - track.boxes[:, 0] + 1, (10, 90))
    if wide > _BREATH * narrow:
        return f"track to path: it stays, yet is {narrow:.0f} to {wide:.0f} pixels wide"
    return ""


def _within(look: Look | None) -> list[str]:
    """The look by itself: the thing of its class, and clothes on people alone."""
    if look is None:
        return []
    found = []
    if look.kind not in OBJECTS:
        return [f"class {look.kind!r} is unknown"]
    if look.object not in (OBJECTS[look.kind] or ("",)):
        found.append(f"appearance: {look.kind} with {look.object or 'no thing'!r}")
    if look.noun not in (VEHICLES if look.kind == "car" else PERSONS):
        found.append(f"appearance: {look.kind} looks like a {look.noun}")
    if look.is_vehicle and (look.top or look.bottom or look.hat or look.carries):
        found.append(f"appearance: a {look.noun} that wears clothes")
    return found


def _look_and_motion(look: Look | None, motions: Sequence[str]) -> list[str]:
    allowed = MOTIONS_OF.get(look.kind) if look else None
    odd = [word for word in motions if allowed is not None and word not in allowed and word not in MOTION_STATES]
    return [f"appearance to motion: {look.kind} does not allow {word}" for word in odd]


def _motion_and_look(look: Look | None, motions: Sequence[str]) -> list[str]:
    if look is None:
        return []
    return [f"motion to appearance: {word} does not go with {look.object or 'empty hands'}" for word in motions
            if word in THINGS_FOR and look.object not in THINGS_FOR[word]]


def _path(motions: Sequence[str], timeline: Timeline) -> list[str]:
    """Motion against path, and the path's ends against its legs."""
    found = []
    steps = [_cell(timeline.destination)[axis] - _cell(timeline.origin)[axis] for axis in (0, 1)]
    bounds = [BOUNDS.get(word, _ANY) for word in motions]
    if bounds and timeline.exit - timeline.entry + 1 >= _LEAST_FRAMES:
        said = " and ".join(motions)
        if SPEEDS.index(timeline.speed) > max(SPEEDS.index(bound[0]) for bound in bounds):
            found.append(f"motion to path: {said}, yet it moves {timeline.speed}")
        if max(map(abs, steps)) > max(bound[1] for bound in bounds):
            found.append(f"motion to path: {said}, yet it goes from {timeline.origin} to {timeline.destination}")
    ways = [leg.way for leg in timeline.legs]
    for step, sides in zip(steps, (("top", "bottom"), ("left", "right"))):
        forth, back = sides[step > 0], sides[step <= 0]
        if step and not _agrees(ways, forth, back, far=abs(step) > 1):
            found.append(f"path: from {timeline.origin} to {timeline.destination}, yet its legs are {', '.join(ways)}")
            break
    return found


def _agrees(ways: Sequence[str], forth: str, back: str, *, far: bool) -> bool:
    """Whether legs can lead ``forth``: over two cells a leg must name it; over one, not all that move name the contrary."""
    moving = [way.split("-") for way in ways if way != STOP]
    if far:
        return any(forth in way for way in moving)
    return not moving or not all(back in way for way in moving)


def _cell(place: str) -> tuple[int, int]:
    return divmod(PLACES.index(place), 3)
