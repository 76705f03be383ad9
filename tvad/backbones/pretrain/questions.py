"""Ordinary questions and answers about simulated footage, from the simulator's truth: the tiny model's schooling.

What is there, how many, in which colours, where, which way and how it moves, and how clearly a named thing is present on a
scale from 0 to 1.  The word anomaly never occurs: objects and motions are ordinary facts here, as they are to a general
vision-language model.  Asked of clips, of single frames, of frames darkened outside a region and of 2x2 grids of frames.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int, UInt8

from tvad.backbones.pretrain.reports import presence_turn, reports, singled_out
from tvad.language.appearance import is_black_and_white, tone_of
from tvad.scenes.types import PART_INDEX, PARTS, Footage

Turn = tuple[str, str]
NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
PLACES = (("top left", "top", "top right"), ("left", "middle", "right"), ("bottom left", "bottom", "bottom right"))
WAYS = (
    "to the right",
    "to the bottom right",
    "downwards",
    "to the bottom left",
    "to the left",
    "to the top left",
    "upwards",
    "to the top right",
)
THINGS = {
    "bicycle": "bicycle",
    "motorcycle": "motorcycle",
    "car": "car",
    "hand_truck": "hand truck",
    "stroller": "stroller",
    "skateboard": "skateboard",
    "bag": "bag",
    "umbrella": "umbrella",
    "bench": "bench",
    "tree": "tree",
    "parked_bicycle": "parked bicycle",
    "parked_car": "parked car",
}
DOINGS = {
    "walking": "person walking",
    "hurrying": "person hurrying",
    "standing": "person standing",
    "talking": "people talking",
    "sitting": "person sitting",
    "running": "person running",
    "riding": "person riding",
    "gliding": "person skateboarding",
    "pushing": "person pushing something",
    "fighting": "people fighting",
    "throwing": "person throwing something",
    "falling": "person falling",
    "lying": "person lying on the ground",
    "jumping": "person jumping",
    "pacing": "person pacing about",
    "picking_up": "person picking something up",
    "driving": "car driving",
}
MOVES = {
    "riding": "rides",
    "gliding": "glides on a board",
    "driving": "drives",
    "pacing": "paces about",
    "picking_up": "picks something up",
    "putting_down": "puts something down",
    "falling": "falls",
    "lying": "lies",
    "flying": "flies",
    "jumping": "jumps",
    "running": "runs",
    "hurrying": "hurries",
    "fighting": "fights",
    "throwing": "throws something",
    "pushing": "pushes something",
    "walking": "walks",
    "standing": "stands",
    "talking": "stands and talks",
    "sitting": "sits",
}
SMALLEST = 10  # visible pixels below which nobody could tell that something is there


@dataclass(frozen=True)
class Seen:
    """One actor as it shows in the frames asked about."""

    name: str
    noun: str
    wears: str
    place: str
    way: str
    move: str


def turns(
    footage: Footage, frames: slice, *, rng: np.random.Generator, moving: bool = True, region=None, count: int = 12
) -> list[Turn]:
    """Up to ``count`` questions with answers about ``frames``; ``region`` (y1, y2, x1, x2) limits what can be seen."""
    instances, parts = footage.instances[frames], footage.parts[frames]
    if region is not None:
        y1, y2, x1, x2 = region
        hidden = np.ones(instances.shape[1:], bool)
        hidden[y1:y2, x1:x2] = False
        instances, parts = np.where(hidden, 0, instances), np.where(hidden, 0, parts)
    seen = _actors(footage, frames, instances, region)
    clear = presence(footage, frames, instances, parts)
    asked = [_counting(seen, rng), _listing(seen)] if region is None else []
    asked += [turn for one in seen for turn in _about(one, seen, rng, moving)]
    asked = [asked[i] for i in rng.permutation(len(asked))[: count // 3]]
    if moving:
        told = reports(footage, frames, singled_out(footage, frames, _areas(instances, 256), least=SMALLEST), rng=rng)
        asked += [told[i] for i in rng.permutation(len(told))[: count // 3]]
    present, absent = [n for n, v in clear.items() if v > 0], [n for n, v in clear.items() if v == 0]
    share = max(1, count // 8)
    present, absent = rng.permutation(present), rng.permutation(absent)
    asked += [scale_turn(str(name), clear[name], rng) for name in [*present[: share + 1], *absent[:share]]]
    asked += [presence_turn(str(name), clear[name] > 0, rng, still=not moving)
              for name in [*present[share + 1 : 2 * share + 1], *absent[share : 2 * share]]]
    return [asked[i] for i in rng.permutation(len(asked))]


def scale_turn(name: str, value: float, rng: np.random.Generator) -> Turn:
    """The question for the 0-to-1 scale, in one of its wordings."""
    wordings = (
        "How clearly is there a {} on a scale from 0 to 1?",
        "From 0 to 1, how clearly do you see a {}?",
        "Is there a {}? Answer with a number from 0 to 1.",
        "Rate from 0 to 1 how clearly this shows a {}.",
    )
    return wordings[rng.integers(len(wordings))].format(name).replace("a people", "people"), f"{value:.1f}"


def presence(footage: Footage, frames: slice, instances, parts) -> dict[str, float]:
    """How clearly each thing or doing shows, 0 to 1: the side of its visible area against 30 pixels, best frame."""

    def level(areas: Int[np.ndarray, " n"]) -> float:
        area = areas.max()
        return 0.0 if area < SMALLEST else round(float(np.clip(0.3 + 0.7 * np.sqrt(area) / 30, 0.3, 1.0)), 1)

    moving = _areas(parts + len(PARTS) * (instances > 0), 2 * len(PARTS))
    by_part = moving[:, : len(PARTS)] + moving[:, len(PARTS) :]
    clear = {name: level(by_part[:, PART_INDEX[part]]) for part, name in THINGS.items()}
    limbs = [len(PARTS) + PART_INDEX[part] for part in ("head", "torso", "arm", "leg")]
    clear["person"] = level(moving[:, limbs].sum(1))
    by_actor = _areas(instances, 256)
    doing = {name: np.zeros(len(instances), np.int64) for name in DOINGS.values()}
    for actor in footage.actors:
        for offset, motion in enumerate(actor.motion[frames]):
            if motion in DOINGS:
                doing[DOINGS[motion]][offset] += by_actor[offset, actor.id]
    return clear | {name: level(areas) for name, areas in doing.items()}


def _areas(labels: UInt8[np.ndarray, "n h w"], kinds: int) -> Int[np.ndarray, "n k"]:
    """Pixels of each label in each frame."""
    n = len(labels)
    shifted = labels.reshape(n, -1).astype(np.int32) + kinds * np.arange(n, dtype=np.int32)[:, None]
    return np.bincount(shifted.ravel(), minlength=n * kinds).reshape(n, kinds)


def _actors(footage: Footage, frames: slice, instances, region) -> list[Seen]:
    seen, (height, width) = [], instances.shape[1:]
    areas = _areas(instances, 256)
    tone = tone_of if is_black_and_white(footage.frames[frames][0]) else str  # no colour can be seen in grey footage
    for actor in footage.actors:
        pixels = areas[:, actor.id]
        if pixels.max() < 2 * SMALLEST:
            continue
        shown = np.flatnonzero(pixels >= SMALLEST)
        middles = _middles(actor.box[frames], shown)
        y, x = middles[:, 1].mean(), middles[:, 0].mean()
        place = PLACES[min(2, int(3 * y / height))][min(2, int(3 * x / width))]
        look = actor.appearance
        seen.append(
            Seen(
                name=_name(actor),
                noun=look.noun or "person",
                place=place,
                wears=f"a {tone(look.top)} top and {tone(look.bottom)} trousers" if look.top and look.bottom else "",
                way=_way(actor.velocity[frames][shown[:-1]], len(shown) - 1),
                move=MOVES[max(set(actor.motion[frames]), key=actor.motion[frames].count)],
            )
        )
    return seen


def _name(actor) -> str:
    thing = THINGS.get({"skateboarding": "skateboard"}.get(actor.kind, actor.kind))
    return thing if thing else "person"


def _middles(box: Float[np.ndarray, "n 4"], shown) -> Float[np.ndarray, "m 2"]:
    return np.stack([(box[shown, 0] + box[shown, 2]) / 2, (box[shown, 1] + box[shown, 3]) / 2], 1)


def _way(velocity: Float[np.ndarray, "n 2"], frames: int) -> str:
    """Where the motion from frame to frame leads, in pixels; less than half a pixel a frame is none."""
    step = np.nan_to_num(velocity).sum(0)
    if np.hypot(*step) < 0.5 * max(1, frames):
        return "stays in place"
    return WAYS[int(np.round(np.arctan2(step[1], step[0]) / (np.pi / 4))) % 8]


def _counting(seen: list[Seen], rng) -> Turn:
    number = len(seen)
    answer = NUMBERS[number] if number < len(NUMBERS) else "many"
    wordings = ("How many people and vehicles are there?", "How many people and vehicles can you see?")
    return wordings[rng.integers(2)], answer


def _listing(seen: list[Seen]) -> Turn:
    names = [one.name for one in seen]
    parts = []
    for name in sorted(set(names), key=lambda n: (n != "person", n)):
        count = names.count(name)
        plural = {"person": "people"}.get(name, name + "s") if count > 1 else name
        number = NUMBERS[count] if count < len(NUMBERS) else "many"
        parts.append(f"{number} {plural}")
    return "What is there to see?", " and ".join(parts) if parts else "nobody"


def _about(one: Seen, seen: list[Seen], rng, moving: bool) -> list[Turn]:
    """Questions about one actor, which its name and place must single out."""
    asked = []
    if sum(other.name == one.name for other in seen) == 1 and one.name != "person":
        asked.append((f"Where is the {one.name}?", one.place))
        subject = f"the {one.name}"
    elif sum((other.name, other.place) == (one.name, one.place) for other in seen) == 1:
        subject = f"the {one.name} at the {one.place}"
    else:
        return asked
    if one.wears:
        asked.append((f"Which colours does {subject} show?", one.wears))
    asked.append((f"What does {subject} do?", f"{'it' if one.name == 'car' else 'the ' + one.noun} {one.move}"))
    if moving:
        asked.append((f"Which way does {subject} move?", one.way))
    return asked
