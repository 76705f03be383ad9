"""English: how looks, motions, places, times and surroundings are put into words.

Short forms are canonical, one wording a fact, so that answers can be compared; the wordings around them stand in
``tvad.language.phrasings``.  Another language is another class with the same methods.
"""
from __future__ import annotations

from collections.abc import Mapping, Sequence

from tvad.language.appearance import Look
from tvad.language.grammar import at, phrase, spoken
from tvad.language.surroundings import Surroundings
from tvad.language.timeline import Timeline
from tvad.scenes.palette import article

_MOTIONS: Mapping[str, str] = {
    "riding": "riding", "driving": "driving", "pushing": "pushing", "gliding": "gliding on a board", "running": "running",
    "fighting": "fighting", "throwing": "throwing", "falling": "falling", "lying": "lying on the ground",
    "getting_up": "getting up", "jumping": "jumping", "pacing": "pacing about", "standing": "standing",
    "walking": "walking", "hurrying": "hurrying", "talking": "talking", "sitting": "sitting",
    "picking_up": "picking up a bag", "putting_down": "putting down a bag", "moving": "moving",
    "staying": "staying in place", "stop-and-go": "stopping and going on", "flying": "flying",
}
_PACES: Mapping[str, str] = {"still": "hardly at all", "slow": "slowly", "walking": "at walking pace", "fast": "fast",
                             "very fast": "very fast"}
_NAMES: Mapping[str, str] = {
    "running": "the runner", "skateboarding": "the skateboarder", "jumping": "the person who jumps",
    "loitering": "the person who loiters", "fighting": "the fighter", "throwing": "the thrower",
}
_REASONS: Mapping[str, str] = {
    "car": "a vehicle drives where people walk", "hand_truck": "goods are moved through where people walk",
    "stroller": "a stroller is unusual here", "running": "people walk here and do not run",
    "skateboarding": "a skateboard is ridden where people walk", "falling": "somebody falls and may be hurt",
    "jumping": "jumping is unusual here", "loitering": "somebody lingers without going anywhere",
    "fighting": "people fight", "throwing": "a thrown thing may hit somebody",
}
_DOUBTS: Mapping[str, str] = {
    "car": "a moving car, van or cart", "bicycle": "somebody with a bicycle", "motorcycle": "a motorcycle",
    "running": "somebody running", "hand_truck": "somebody with a hand truck",
    "stroller": "somebody with a stroller", "jumping": "somebody jumping",
    "skateboarding": "somebody on a skateboard", "falling": "somebody lying on the ground", "fighting": "a fight",
    "loitering": "somebody loitering", "throwing": "somebody throwing something",
}
# What could be taken for an event and is none: why not.
_HARMLESS: Mapping[str, str] = {
    "parked_bicycle": "every bicycle in view is parked", "parked_car": "every car in view is parked",
    "hurrying": "somebody hurries but does not run", "sitting": "somebody sits", "talking": "people stand and talk",
    "standing": "somebody stands and waits", "putting_down": "somebody puts down a bag",
    "picking_up": "somebody picks up a bag",
}
_PLACES: Mapping[str, str] = {
    "plaza": "a paved square before a building", "sidewalk": "a broad pavement beside a lawn",
    "crossing": "a street with a crossing", "lawn": "a lawn crossed by paths", "courtyard": "a yard between buildings",
    "roof": "a crossing of paths between lawns", "parking": "a car park with a footway",
    "terrace": "a flight of broad steps between two levels",
}
_LIGHTS: Mapping[str, str] = {"sun": "in the sun", "dull": "in dull light", "dark": "in the dark"}
_THINGS: Mapping[str, tuple[str, str]] = {
    "tree": ("a tree", "trees"), "bench": ("a bench", "benches"), "parked_bicycle": ("a parked bicycle", "parked bicycles"),
    "parked_car": ("a parked car", "parked cars"), "pole": ("a lamp post", "lamp posts"),
}
_NUMBERS = ("none", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
_ORDINALS = ("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth")


class English:
    """The words of one language; every method takes facts and gives a phrase without capital and full stop."""

    def target(self, look: Look | None, motions: Sequence[str], *, full: bool = False) -> str:
        """A look with what it does: "a person in a red top and blue trousers riding a white bicycle".

        ``full`` says man or woman, and hat and bag.
        """
        if look is None:
            return "a target"
        if look.is_vehicle:
            return article(f"{look.object_colour} {look.object or look.noun}".strip())
        words = article(look.noun if full else "person")
        worn = [article(look.hat)] if full and look.hat else []
        worn += [article(f"{look.top} top")] if look.top else []
        worn += [f"{look.bottom} trousers"] if look.bottom else []
        if worn:
            words += " in " + self.listing(worn)
        if full and look.carries:
            words += " with " + self.listing([article(thing) for thing in look.carries])
        return f"{words} {self._deed(look, motions)}".strip()

    def _deed(self, look: Look, motions: Sequence[str]) -> str:
        thing = article(f"{look.object_colour} {look.object}".strip()) if look.object else ""
        if look.kind == "throwing" and "throwing" not in motions:
            return f"after throwing {thing}"
        verb = {"bicycle": "pushing" if "pushing" in motions else "riding", "motorcycle": "riding", "hand_truck": "pushing",
                "stroller": "pushing", "skateboarding": "riding", "throwing": "throwing"}.get(look.kind)
        if verb:
            return f"{verb} {thing}"
        return "loitering" if look.kind == "loitering" else self.motion(motions)

    def name(self, look: Look | None, motions: Sequence[str], *, place: int = 0, of: int = 1) -> str:
        """What sentences call it: "the cyclist", and among several "the second target"."""
        if of > 1:
            return f"the {_ordinal(place)} target"
        if look is None:
            return "the target"
        if look.kind == "bicycle":
            return "the person with the bicycle" if "pushing" in motions else "the cyclist"
        return _NAMES.get(look.kind, f"the {look.object}" if look.is_vehicle else
                          f"the person with the {look.object.split(' with ')[0]}" if look.object else "the person")

    def motion(self, motions: Sequence[str]) -> str:
        """Motion words in the order seen: "falling, then lying on the ground"."""
        return ", then ".join(_MOTIONS.get(word, word.replace("_", " ")) for word in motions)

    def place(self, place: str) -> str:
        """"the top left", "the middle"."""
        return f"the {spoken(place)}"

    def at(self, place: str) -> str:
        """"at the top left", "in the middle"."""
        return at(place)

    def trajectory(self, timeline: Timeline) -> str:
        """The phrase of the fixed grammar."""
        return phrase(timeline)

    def pace(self, timeline: Timeline) -> str:
        """"at walking pace"."""
        return _PACES[timeline.speed]

    def span(self, first: int, last: int, *, frames: int, fps: float) -> str:
        """When it is seen, from its first and last frame: "from the start to 0.9 s"; seconds of the clip."""
        begin = "the start" if first == 0 else f"{first / fps:.1f} s"
        end = "the end" if last == frames - 1 else f"{(last + 1) / fps:.1f} s"
        return f"from {begin} to {end}"

    def things(self, look: Look) -> str:
        """Hat and what is carried, "" for nothing."""
        return self.listing([article(thing) for thing in ((look.hat,) if look.hat else ()) + look.carries])

    def reason(self, look: Look, motions: Sequence[str]) -> str:
        """Why it is abnormal, as a clause."""
        if look.kind in ("bicycle", "motorcycle"):
            return f"a {look.object} is {'pushed' if 'pushing' in motions else 'ridden'} where people walk"
        if look.kind == "falling" and "falling" not in motions:
            return "somebody lies on the ground" if "lying" in motions else "somebody has fallen"
        return _REASONS[look.kind]

    def doubt(self, kind: str) -> str:
        """What a question about one class asks for: "somebody running"."""
        return _DOUBTS[kind]

    def harmless(self, what: str) -> str:
        """Why a harmless lookalike is none, as a clause."""
        return _HARMLESS[what]

    def surroundings(self, seen: Surroundings) -> str:
        """"a paved square before a building in the sun with trees and a bench"."""
        words = f"{_PLACES[seen.place]} {_LIGHTS[seen.light]}"
        things = [_THINGS[name][count > 1] for name, count in seen.things.items() if count]
        return words + (" with " + self.listing(things) if things else "")

    def people(self, count: int, *, noun: bool) -> str:
        """A number, alone or with its noun: "seven", "no person"."""
        word = _NUMBERS[count] if count < len(_NUMBERS) else str(count)
        if not noun:
            return word
        return "no person" if count == 0 else "one person" if count == 1 else f"{word} people"

    def unknown(self, count: int) -> str:
        """Several targets of open appearance: "two targets"."""
        return f"{self.people(count, noun=False)} targets"

    def activities(self, motions: Sequence[str]) -> str:
        """Ordinary doings: "walking, standing and talking"."""
        return self.listing([_MOTIONS[word] for word in motions])

    def listing(self, items: Sequence[str]) -> str:
        """"a, b and c"."""
        return " and ".join([", ".join(items[:-1]), items[-1]]) if len(items) > 1 else "".join(items)

    def nth(self, place: int, *, of: int) -> str:
        """What tells one of several targets in front of a noun: " second"; nothing for a single one."""
        return f" {_ordinal(place)}" if of > 1 else ""

    def each(self, items: Sequence[str]) -> str:
        """Answers about several targets: "first, ...; second, ..."; of one target the answer itself."""
        if len(items) == 1:
            return items[0]
        return "; ".join(f"{_ordinal(place)}, {item}" for place, item in enumerate(items))

    def pronouns(self, count: int) -> dict[str, str]:
        """What stands for one target or several in a question."""
        if count > 1:
            return {"it": "they", "its": "their", "does": "do", "is": "are", "target": "targets"}
        return {"it": "it", "its": "its", "does": "does", "is": "is", "target": "target"}

    def sentence(self, text: str) -> str:
        """With a capital, and a full stop unless it ends as a sentence does."""
        text = text[:1].upper() + text[1:]
        return text if text.endswith((".", "?", "!")) else text + "."


def _ordinal(place: int) -> str:
    return _ORDINALS[place] if place < len(_ORDINALS) else f"{place + 1}th"
