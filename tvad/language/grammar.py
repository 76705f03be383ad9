"""The fixed small grammar of trajectories: ``phrase`` writes a :class:`Path`, ``parse`` reads it back, each undoing the
other exactly.

    phrase    := begin (", " leg)+ ", " end
    begin     := "enters from the " SIDE | "appears " AT | "starts " AT
    leg       := "moves towards the " WAY       the first leg
               | "turns towards the " WAY       after a moving leg
               | "goes on towards the " WAY     after a stop
               | "stays"                        the first leg: no motion at all
               | "stops"                        after a moving leg
    end       := ("leaves" | "disappears" | "stays in view") [" " AT]
    AT        := "in the middle" | "at the " SIDE
    SIDE, WAY := "top left" | "top" | "top right" | "left" | "right" | "bottom left" | "bottom" | "bottom right"

Two things go unsaid, so that phrases read like the paper's: after "enters from the right" the leg towards the opposite
side if a turn follows ("enters from the right, turns towards the top right, leaves"); and the place of the end where
the legs tell it (it leaves where it headed; it stayed where it began).  A phrase that says them all the same is refused,
so that each path has one phrase.
"""
from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tvad.errors import TvadError

# 3x3 places of the picture in raster order (thesis tracker); ways are the same names without the middle.
PLACES: tuple[str, ...] = (
    "top-left", "top", "top-right", "left", "middle", "right", "bottom-left", "bottom", "bottom-right",
)
WAYS: tuple[str, ...] = tuple(place for place in PLACES if place != "middle")
STOP = "stop"
BEGINNINGS: tuple[str, ...] = ("enters", "appears", "starts")   # at the border; elsewhere; there in the first frame
ENDINGS: tuple[str, ...] = ("leaves", "disappears", "stays")    # at the border; elsewhere; there in the last frame
_ENDS: Mapping[str, str] = {"leaves": "leaves", "disappears": "disappears", "stays": "stays in view"}
_OPPOSITE: Mapping[str, str] = dict(zip(PLACES, reversed(PLACES)))


class PhraseError(TvadError, ValueError):
    """A text is no phrase of the trajectory grammar, or a path has no phrase."""


@dataclass(frozen=True)
class Path:
    """A trajectory in words.

    Args:
        begins: of BEGINNINGS.
        origin: of PLACES, where it is first seen; an "enters" origin is never the middle.
        legs: one or more, each a WAY to move or STOP; no two neighbours are equal.
        ends: of ENDINGS.
        destination: of PLACES, where it is last seen; a "leaves" destination is never the middle.

    Raises:
        PhraseError: anything else.
    """

    begins: str
    origin: str
    legs: tuple[str, ...]
    ends: str
    destination: str

    def __post_init__(self) -> None:
        for name, value, known in (("begins", self.begins, BEGINNINGS), ("ends", self.ends, ENDINGS),
                                   ("origin", self.origin, WAYS if self.begins == "enters" else PLACES),
                                   ("destination", self.destination, WAYS if self.ends == "leaves" else PLACES)):
            if value not in known:
                raise PhraseError(f"path: {name} is {value!r}; choose one of {', '.join(known)}")
        if not self.legs:
            raise PhraseError(f"path: it has no leg; give at least one, {STOP!r} for a target that does not move")
        for place, leg in enumerate(self.legs):
            if leg != STOP and leg not in WAYS:
                raise PhraseError(f"path: leg {place} is {leg!r}; choose {STOP!r} or one of {', '.join(WAYS)}")
            if place and leg == self.legs[place - 1]:
                raise PhraseError(f"path: legs {place - 1} and {place} are both {leg!r}; join them")


def at(place: str) -> str:
    """A place with its preposition: "in the middle", "at the top left"."""
    return "in the middle" if place == "middle" else f"at the {spoken(place)}"


def spoken(place: str) -> str:
    """A place as it is said: "top-left" becomes "top left"."""
    return place.replace("-", " ")


def phrase(path: Any) -> str:
    """The sentence of a :class:`Path`, or of anything that has one as its ``path`` (a ``Timeline``)."""
    path = getattr(path, "path", path)
    begin = f"enters from the {spoken(path.origin)}" if path.begins == "enters" else f"{path.begins} {at(path.origin)}"
    clauses = [_clause(path.legs, place) for place in range(len(path.legs))]
    if _first_is_told(path.begins, path.origin, path.legs):
        del clauses[0]
    end = _ENDS[path.ends]
    if path.destination != _told_end(path.ends, path.origin, path.legs):
        end += f" {at(path.destination)}"
    return ", ".join((begin, *clauses, end))


def parse(text: str) -> Path:
    """The path of a phrase. Raises :class:`PhraseError` for a text that :func:`phrase` would not write."""
    clauses = text.split(", ")
    if len(clauses) < 3:
        raise PhraseError(f"no trajectory: {text!r}; it needs a beginning, legs and an end, divided by commas")
    begins, origin = _read(_BEGIN, clauses[0], text)
    legs = [_read_leg(clause, text) for clause in clauses[1:-1]]
    if begins == "enters" and clauses[1].startswith("turns "):
        legs.insert(0, _OPPOSITE[origin])
    ends, destination = _read(_END, clauses[-1], text)
    ends = "stays" if ends == "stays in view" else ends
    destination = destination or _told_end(ends, origin, legs)
    if destination is None:
        raise PhraseError(f"no trajectory: {text!r}; the end must say where, as in 'stays in view at the left'")
    path = Path(begins, origin, tuple(legs), ends, destination)
    if (again := phrase(path)) != text:  # one phrase a path: whatever is said otherwise is refused
        raise PhraseError(f"no trajectory: {text!r}; written {again!r}")
    return path


def _clause(legs: tuple[str, ...], place: int) -> str:
    leg, before = legs[place], legs[place - 1] if place else None
    if leg == STOP:
        return "stops" if place else "stays"
    verb = "moves" if before is None else "goes on" if before == STOP else "turns"
    return f"{verb} towards the {spoken(leg)}"


def _first_is_told(begins: str, origin: str, legs: tuple[str, ...]) -> bool:
    return begins == "enters" and len(legs) > 1 and legs[1] != STOP and legs[0] == _OPPOSITE[origin]


def _told_end(ends: str, origin: str, legs: tuple[str, ...] | list[str]) -> str | None:
    """The destination that goes without saying, if there is one."""
    if ends == "leaves":
        return legs[-1] if legs[-1] != STOP else None
    return origin if list(legs) == [STOP] else None


_SIDE = "|".join(sorted(map(spoken, WAYS), key=len, reverse=True))
_AT = f"(?:at the (?P<side>{_SIDE})|in the (?P<middle>middle))"
_BEGIN = re.compile(f"(?:(?P<enters>enters) from the (?P<from>{_SIDE})|(?P<verb>appears|starts) {_AT})")
_LEG = re.compile(f"(?:stays|stops|(?:moves|turns|goes on) towards the (?P<side>{_SIDE}))")
_END = re.compile(f"(?P<verb>leaves|disappears|stays in view)(?: {_AT})?")


def _read(pattern: re.Pattern, clause: str, text: str) -> tuple[str, str | None]:
    found = pattern.fullmatch(clause)
    if not found:
        raise PhraseError(f"no trajectory: {text!r}; cannot read {clause!r}")
    groups = found.groupdict()
    place = groups.get("from") or groups["side"] or groups["middle"]
    return groups.get("enters") or groups["verb"], place.replace(" ", "-") if place else None


def _read_leg(clause: str, text: str) -> str:
    found = _LEG.fullmatch(clause)
    if not found:
        raise PhraseError(f"no trajectory: {text!r}; cannot read {clause!r}")
    return found["side"].replace(" ", "-") if found["side"] else STOP
