"""What the worded encoder can say: fields of a target's story, each a choice between a few words of the dialogue set.

A field is spoken as a fixed number of tokens; a word of fewer leaves the rest empty (zero vectors), one of more is cut.
"""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

NOTHING = "none"


@dataclass(frozen=True)
class Field:
    """``words`` to choose from, spoken in ``length`` tokens; ``seen``: told by what is seen, not by the map alone."""

    name: str
    words: tuple[str, ...]
    length: int = 1
    seen: bool = False

    def number(self, word: str) -> int:
        """Which of the words it is, -1 for none of them."""
        return self.words.index(word) if word in self.words else -1


_PLACES = ("top left", "top", "top right", "left", "middle", "right", "bottom left", "bottom", "bottom right")
_COLOURS = (NOTHING, "black", "white", "grey", "dark", "light", "red", "blue", "green", "yellow", "orange", "brown", "purple",
            "pink")
THERE = Field("there", ("none", "it"))
STORY: tuple[Field, ...] = (
    THERE,
    Field("begins", ("starts", "appears", "enters")),
    Field("from", _PLACES, 2),
    Field("way", ("stays", *(place for place in _PLACES if place != "middle")), 2),
    Field("ends", ("stays", "leaves", "disappears")),
    Field("to", _PLACES, 2),
    Field("motion", ("pushing", "riding", "driving", "gliding", "fighting", "running", "jumping", "falling", "lying",
                     "throwing", "pacing", "standing", "walking"), 2, True),
    Field("top", _COLOURS, 1, True),
    Field("bottom", _COLOURS, 1, True),
    Field("colour", _COLOURS, 1, True),
    Field("thing", (NOTHING, "bicycle", "motorcycle", "scooter", "hand truck", "stroller", "skateboard", "car", "van", "cart",
                    "ball", "bag", "box"), 2, True),
)
VERDICT = Field("verdict", ("No", "Yes"))


def story(target: Mapping[str, str]) -> dict[str, str]:
    """The words of a target as a conversation holds it (``targets``): those fields of which something is known."""
    first, *legs, last = target["trajectory"].split(", ")
    said = {"there": "it", "begins": first.split()[0], "from": target["from"], "ends": last.split()[0], "to": target["to"],
            "motion": target.get("motion", "").split(",")[0].split(" ")[0], "top": target.get("top"),
            "bottom": target.get("bottom"), "colour": target.get("object_colour"), "thing": _thing(target.get("object"))}
    if legs:
        said["way"] = legs[0].split(" the ")[-1]
    return {name: word for name, word in said.items() if word}


def _thing(said: str | None) -> str | None:
    return said.split(" with ")[0] if said else said


def table(field: Field, tokenizer: Any, rows: Float[Tensor, "v d"], *, capital: bool = False) -> Float[Tensor, "k l d"]:
    """What each word of a field is as input of the language model: rows of its embedding, as within a sentence."""
    made = torch.zeros(len(field.words), field.length, rows.shape[1])
    for number, word in enumerate(field.words):
        ids = tokenizer(word if capital else f" {word}", add_special_tokens=False)["input_ids"][:field.length]
        made[number, :len(ids)] = rows[ids].detach().float().cpu()
    return made


def numbers(stories: Sequence[Mapping[str, str]], field: Field) -> list[int]:
    """The choice of each story, -1 where it says nothing of the field."""
    return [field.number(told.get(field.name, "")) for told in stories]
