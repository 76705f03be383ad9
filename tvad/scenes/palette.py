"""Colour words, what people wear in them, and the sentence that names a look.

A colour word stands for a small range of RGB, so that no two red tops are the same red.  The eleven words are the
basic colour terms that people agree on across cameras; hair and vehicles use the same words plus ``blond``.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tvad.scenes.types import Appearance, Colour

# Darkest and lightest RGB of each word; a draw lies on the line between them, plus a little noise in each channel.
RANGES: dict[str, tuple[Colour, Colour]] = {
    "black": ((16, 16, 18), (44, 43, 46)),
    "grey": ((88, 90, 94), (150, 151, 153)),
    "white": ((206, 206, 202), (246, 245, 242)),
    "red": ((146, 20, 24), (214, 42, 40)),
    "orange": ((206, 98, 16), (240, 136, 36)),
    "yellow": ((208, 176, 28), (246, 220, 74)),
    "green": ((24, 92, 44), (66, 152, 76)),
    "blue": ((24, 46, 116), (58, 104, 196)),
    "purple": ((82, 34, 118), (138, 74, 172)),
    "pink": ((212, 108, 146), (244, 160, 186)),
    "brown": ((78, 50, 28), (128, 88, 56)),
}
COLOURS: tuple[str, ...] = tuple(RANGES)
HAIR: dict[str, tuple[Colour, Colour]] = {
    "black": ((14, 12, 12), (36, 32, 30)),
    "brown": ((52, 32, 20), (96, 64, 40)),
    "blond": ((164, 130, 74), (214, 184, 120)),
    "grey": ((128, 128, 128), (188, 188, 186)),
    "red": ((128, 58, 24), (164, 82, 40)),
}
SKIN: tuple[Colour, Colour] = ((84, 54, 38), (236, 192, 164))
HATS: tuple[str, ...] = ("cap", "hat", "hood")  # riders may also wear a "helmet"
BAGS: tuple[str, ...] = ("bag", "backpack", "umbrella")

# How often each colour is met, in the order of COLOURS: dark clothes are the rule on a street, as on real footage.
_TOP_WEIGHTS = np.array([20, 14, 17, 9, 5, 6, 8, 12, 4, 5, 6], float)
_BOTTOM_WEIGHTS = np.array([28, 16, 6, 2, 1, 1, 4, 30, 1, 1, 10], float)
_BAG_WEIGHTS = np.array([26, 10, 6, 10, 6, 6, 8, 12, 4, 4, 10], float)
_VEHICLE_WEIGHTS = np.array([14, 14, 24, 14, 4, 5, 7, 14, 1, 1, 2], float)
_OBJECT_WEIGHTS = np.array([10, 5, 14, 18, 12, 10, 8, 10, 3, 4, 8], float)


@dataclass(frozen=True)
class Dress:
    """The RGB behind an :class:`Appearance`, and the small unnamed differences between people."""

    skin: Colour
    hair: Colour
    top: Colour
    bottom: Colour
    shoes: Colour
    bag: Colour
    hat: Colour
    long_hair: bool = False
    short_sleeves: bool = False


def mix(low: Colour, high: Colour, *, share: float, jitter: tuple[float, float, float] = (0.0, 0.0, 0.0)) -> Colour:
    """The colour at ``share`` (0..1) of the way from ``low`` to ``high``, clipped to 0..255."""
    return tuple(int(min(255, max(0, a + (b - a) * share + j))) for a, b, j in zip(low, high, jitter))


def draw(rng: np.random.Generator, word: str, *, ranges: dict[str, tuple[Colour, Colour]] = RANGES) -> Colour:
    """One RGB of the colour called ``word``; a ``KeyError`` names an unknown word."""
    low, high = ranges[word]
    return mix(low, high, share=rng.random(), jitter=tuple(rng.normal(0.0, 3.0, 3)))


def shade(colour: Colour, factor: float) -> Colour:
    """``colour`` made darker (``factor`` < 1) or lighter (> 1)."""
    return tuple(min(255, int(channel * factor)) for channel in colour)


def pick(rng: np.random.Generator, weights: np.ndarray) -> str:
    """A colour word drawn with ``weights`` over :data:`COLOURS`."""
    return COLOURS[int(rng.choice(len(COLOURS), p=weights / weights.sum()))]


def vehicle_colour(rng: np.random.Generator) -> tuple[str, Colour]:
    """Colour word and RGB of a car, motorcycle, bicycle or stroller."""
    word = pick(rng, _VEHICLE_WEIGHTS)
    return word, draw(rng, word)


def object_colour(rng: np.random.Generator) -> tuple[str, Colour]:
    """Colour word and RGB of a thrown thing."""
    word = pick(rng, _OBJECT_WEIGHTS)
    return word, draw(rng, word)


def dress(rng: np.random.Generator, *, hooded: bool = False, carry: float = 1.0) -> tuple[Appearance, Dress]:
    """Looks of a random person.

    ``hooded`` makes a hood or cap certain; ``carry`` scales the chance of a bag, backpack or umbrella (0: none).
    """
    noun = ("man", "woman", "person")[int(rng.choice(3, p=(0.48, 0.42, 0.10)))]
    top, bottom = pick(rng, _TOP_WEIGHTS), pick(rng, _BOTTOM_WEIGHTS)
    hair = tuple(HAIR)[int(rng.choice(5, p=(0.38, 0.32, 0.14, 0.12, 0.04)))]
    hat = ""
    if hooded:
        hat = ("hood", "cap")[int(rng.random() < 0.35)]
    elif rng.random() < 0.22:
        hat = HATS[int(rng.choice(3, p=(0.5, 0.25, 0.25)))]
    draw_bag = rng.random()
    carries: tuple[str, ...] = ()
    if draw_bag < 0.34 * carry:
        carries = ("backpack",)
    elif draw_bag < 0.56 * carry:
        carries = ("bag",)
    elif draw_bag < 0.62 * carry:
        carries = ("umbrella",)
    top_colour = draw(rng, top)
    # People of one tone from head to foot are unreadable: keep top and bottom apart in brightness or colour.
    bottom_colour = draw(rng, bottom)
    for _ in range(8):
        if sum(abs(a - b) for a, b in zip(top_colour, bottom_colour)) > 70:
            break
        bottom = pick(rng, _BOTTOM_WEIGHTS)
        bottom_colour = draw(rng, bottom)
    hat_colour = shade(top_colour, 0.8) if hat == "hood" else draw(rng, pick(rng, _BAG_WEIGHTS))
    colours = Dress(
        skin=mix(*SKIN, share=float(rng.beta(2.2, 1.3)), jitter=tuple(rng.normal(0, 3, 3))),
        hair=draw(rng, hair, ranges=HAIR),
        top=top_colour,
        bottom=bottom_colour,
        shoes=draw(
            rng, ("black", "white", "grey", "brown", "red")[int(rng.choice(5, p=(0.45, 0.2, 0.15, 0.15, 0.05)))]
        ),
        bag=draw(rng, pick(rng, _BAG_WEIGHTS)),
        hat=hat_colour,
        long_hair=bool(rng.random() < {"woman": 0.7, "man": 0.05, "person": 0.3}[noun]),
        short_sleeves=bool(rng.random() < 0.4) and hat != "hood",
    )
    return Appearance(top=top, bottom=bottom, hair=hair, hat=hat, carries=carries, noun=noun), colours


def article(words: str) -> str:
    """``words`` with "a" or "an" in front."""
    return ("an " if words[:1] in "aeiou" else "a ") + words


def describe(appearance: Appearance) -> str:
    """A noun phrase for a look: "a man in a red top and blue trousers with a backpack", "a white van"."""
    if not appearance.top:
        return article(appearance.object or appearance.noun)
    words = f"{article(appearance.noun)} in {article(appearance.top + ' top')} and {appearance.bottom} trousers"
    worn = [article(thing) for thing in ((appearance.hat,) if appearance.hat else ()) + tuple(appearance.carries)]
    if appearance.object:
        worn.append(article(appearance.object))
    if worn:
        words += " with " + (", ".join(worn[:-1]) + " and " if len(worn) > 1 else "") + worn[-1]
    return words
