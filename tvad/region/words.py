"""What the worded encoder can say: fields of a target's story, each a choice between a few words of the dialogue set.

A field is spoken as a fixed number of tokens; a word of fewer leaves full stops behind it, one of more is cut.
"""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

NOTHING = ABSENT = "none"


@dataclass(frozen=True)
class Field:
    """``words`` to choose from, spoken in ``length`` tokens; ``place``: it is of the path; ``seen``: told by what is seen,
    not by the map alone; ``dress``: by colours alone."""

    name: str
    words: tuple[str, ...]
    length: int = 1
    place: bool = False
    seen: bool = False
    dress: bool = False

    def number(self, word: str) -> int:
        """Which of the words it is, -1 for none of them."""
        return self.words.index(word) if word in self.words else -1


_PLACES = ("top left", "top", "top right", "left", "middle", "right", "bottom left", "bottom", "bottom right")
_COLOURS = (NOTHING, "black", "white", "grey", "dark", "light", "red", "blue", "green", "yellow", "orange", "brown",
            "purple", "pink")
_MOTIONS = ("pushing", "riding", "driving", "gliding", "fighting", "running", "jumping", "falling", "lying", "throwing",
            "pacing", "standing", "walking")
_THINGS = (NOTHING, "bicycle", "motorcycle", "scooter", "hand truck", "stroller", "skateboard", "car", "van", "cart",
           "ball", "bag", "box")
THERE = Field("there", (ABSENT, "it"))
SUBJECT, FILL = "It", "."
ORDINALS = ("first", "second", "third", "fourth")       # stand for the subject where several things are there
VERDICT = Field("verdict", ("No", "Yes"), 2)
STORY: tuple[Field, ...] = (
    THERE,
    Field("begins", ("starts", "appears", "enters"), place=True),
    Field("from", _PLACES, 2, place=True),
    Field("way", ("stays", *(place for place in _PLACES if place != "middle")), 2, place=True),
    Field("ends", ("stays", "leaves", "disappears"), place=True),
    Field("to", _PLACES, 2, place=True),
    Field("motion", _MOTIONS, 2, seen=True),
    Field("top", _COLOURS, seen=True, dress=True),
    Field("bottom", _COLOURS, seen=True, dress=True),
    Field("colour", _COLOURS, seen=True, dress=True),
    Field("thing", _THINGS, 2, seen=True),
)
_PATH = ("there", *(field.name for field in STORY if field.place))
DRESS = tuple(field for field in STORY if field.name in ("top", "bottom"))


# What is said of a thing, word by word, as texts of the language model's schooling say it (``pretrain.stories``).
SENTENCES: tuple[str | Field, ...] = tuple(
    next((field for field in STORY if f"{{{field.name}}}" == word), word) for word in (
        "It is a person in a {top} top and {bottom} trousers {motion} a {colour} {thing} . It is {motion} . It comes from "
        "the {from} . It goes to the {to} . It {begins} at the {from} , moves towards the {way} , {ends} in view at the "
        "{to} .").split())


def story(target: Mapping[str, str]) -> dict[str, str]:
    """The words of a target as a conversation holds it (``targets``): those fields of which something is known."""
    first, *legs, last = target["trajectory"].split(", ")
    said = {"there": "it", "begins": first.split()[0], "from": target["from"], "way": legs[0].split(" the ")[-1],
            "ends": last.split()[0], "to": target["to"], "motion": target.get("motion", "").split(",")[0].split(" ")[0],
            "top": target.get("top"), "bottom": target.get("bottom"), "colour": target.get("object_colour"),
            "thing": target.get("object", "").split(" with ")[0]}
    return {name: word for name, word in said.items() if word}


_SWAPPED = {"enters": "leaves", "appears": "disappears", "starts": "stays"}
_BACK = {**_SWAPPED, **{last: first for first, last in _SWAPPED.items()}}
_OPPOSITE = {place: _PLACES[-1 - number] for number, place in enumerate(_PLACES)}


def mirrored(told: Mapping[str, str]) -> dict[str, str]:
    """The path of a story in the mirrored picture, left for right; its look, which is not shown, is left out."""
    turned = {"left": "right", "right": "left"}
    return {name: " ".join(turned.get(part, part) for part in word.split()) for name, word in told.items() if name in _PATH}


def reversed_in_time(told: Mapping[str, str]) -> dict[str, str]:
    """The path of a story told backwards, without its look; the way, of which only the first leg is known, as if it had no
    other."""
    back = {"there": told["there"], "begins": _BACK[told["ends"]], "from": told["to"], "to": told["from"],
            "ends": _BACK[told["begins"]], "way": told["way"] if told["way"] == "stays" else _OPPOSITE[told["way"]]}
    return back


def table(words: Sequence[str], length: int, tokenizer: Any, rows: Float[Tensor, "v d"]) -> Float[Tensor, "k l d"]:
    """What each word is as ``length`` tokens of input of the language model: rows of its embedding, as in a sentence."""
    def ids(word: str) -> list[int]:
        text = word if word[0].isupper() or not word[0].isalpha() else f" {word}"
        return tokenizer(text, add_special_tokens=False)["input_ids"]

    fill = ids(FILL)[:1]
    chosen = [(ids(word) + fill * length)[:length] for word in words]
    return torch.stack([rows[own].detach().float().cpu() for own in chosen])


def numbers(stories: Sequence[Mapping[str, str]], field: Field) -> list[int]:
    """The choice of each story, -1 where it says nothing of the field."""
    return [field.number(told.get(field.name, "")) for told in stories]
