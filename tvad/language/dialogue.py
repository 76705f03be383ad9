"""The conversation about a clip: is there an anomaly, what does it look like, how does it move, from where, to where.

The order is that of the paper's interface (figure 2: yes/no, target features, state of motion, from, to; then more).
Each clip is spoken of in three styles: "turns", short canonical answers one slot at a time; "report", all slots in one
line; and "sentences", whole sentences in many wordings, for which the question asks.  Normal clips are told as honestly:
what could be taken for an event and is none, such as a parked bicycle or somebody who hurries.  Nothing is asked to which
no true answer is known.
"""
from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from tvad.language.appearance import Look
from tvad.language.phrasings import Language, language
from tvad.language.surroundings import Surroundings
from tvad.language.timeline import Timeline

STYLES: tuple[str, ...] = ("turns", "report", "sentences")
NONE = "none"
TRAVELLING = frozenset({"driving", "riding", "pushing", "gliding", "running", "walking", "hurrying"})
_LOOK_SLOTS = ("target", "class", "noun", "top", "bottom", "hat", "carries", "object", "object_colour", "colours")
_CLIP_SLOTS = ("target", "class", "colours", "motion", "from", "to", "trajectory", "speed", "begins", "ends")


@dataclass(frozen=True)
class Target:
    """One anomalous target of a clip; ``look`` None: appearance left open."""

    timeline: Timeline
    look: Look | None = None
    motions: tuple[str, ...] = ()
    paced: bool = True      # whether the pace of the scene's pedestrians is known, to which a speed class is relative

    @property
    def states(self) -> tuple[str, ...]:
        """Motion words, else what the path alone says."""
        return self.motions or ((self.timeline.motion,) if self.timeline.motion else ())

    @property
    def pace(self) -> str:
        """The speed class where it is true of the target, else "": who rides towards the camera hardly moves in the
        picture, and what is thrown flies within its thrower's mask."""
        hidden = self.timeline.speed == "still" and bool(set(self.motions) & TRAVELLING)
        thrown = self.look is not None and self.look.kind == "throwing"
        return "" if hidden or thrown or not self.paced else self.timeline.speed


@dataclass(frozen=True)
class ClipFacts:
    """All that may be said of frames ``start`` to ``stop`` (exclusive) of a video."""

    video: str
    start: int
    stop: int
    fps: float
    dataset: str
    split: str
    scene: str = ""
    targets: tuple[Target, ...] = ()
    surroundings: Surroundings | None = None

    @property
    def id(self) -> str:
        return f"{self.dataset}/{self.video}:{self.start}-{self.stop}"


@dataclass(frozen=True)
class Conversation:
    """One conversation about one clip.

    ``messages`` take the form of transformers' chat templates; each also names the ``slot`` that it asks for or answers,
    and answers hold their canonical wording in ``references`` where they do not use it.  The video part holds no path: the
    clip is ``video``, ``start``, ``stop`` of the data set.  ``slots`` is the truth by slot, "none" without a target,
    values of several targets joined by "; "; ``targets`` holds the same for each.
    """

    id: str
    video: str
    start: int
    stop: int
    fps: float
    dataset: str
    split: str
    scene: str
    anomalous: bool
    style: str
    messages: tuple[Mapping[str, Any], ...]
    slots: Mapping[str, str]
    targets: tuple[Mapping[str, str], ...] = field(default=())

    def as_dict(self) -> dict[str, Any]:
        """In JSON types, the same keys for every conversation."""
        return {**asdict(self), "messages": list(self.messages), "targets": list(self.targets)}

    @classmethod
    def from_dict(cls, row: Mapping[str, Any]) -> Conversation:
        """The inverse of :meth:`as_dict`."""
        return cls(**{**row, "messages": tuple(row["messages"]), "targets": tuple(row["targets"])})

    def turns(self) -> list[tuple[str, str, str]]:
        """(slot, question, answer) of each turn."""
        texts = [message["content"][-1]["text"] for message in self.messages]
        return [(message["slot"], ask, say) for message, ask, say in
                zip(self.messages[1::2], texts[0::2], texts[1::2], strict=True)]


def conversations(facts: ClipFacts, *, seed: int, styles: Iterable[str] = STYLES, code: str = "en") -> list[Conversation]:
    """Conversations about a clip, one in each style; the same for the same arguments.

    Raises :class:`tvad.language.phrasings.LanguageError` for an unknown language.
    """
    made = []
    for style in styles:
        digest = hashlib.sha256(f"{seed}/{facts.id}/{style}".encode()).digest()
        speaker = _Speaker(facts, language(code), np.random.default_rng(np.frombuffer(digest[:16], np.uint32)), style)
        made.append(speaker.conversation())
    return made


def slots_of(target: Target, facts: ClipFacts, words: Language) -> dict[str, str]:
    """The truth about one target by slot; "none" for what is unknown or not there."""
    look, path, say = target.look, target.timeline, words.speech
    known = dict.fromkeys(_LOOK_SLOTS, "")
    if look is not None:
        colours = [f"{look.top} top" if look.top else "", f"{look.bottom} trousers" if look.bottom else "",
                   f"{look.object_colour} {look.object}" if look.object_colour and look.object else ""]
        known |= {"target": say.target(look, target.motions), "class": look.kind, "noun": look.noun, "top": look.top,
                  "bottom": look.bottom, "hat": look.hat, "carries": ", ".join(look.carries), "object": look.object,
                  "object_colour": look.object_colour, "colours": ", ".join(filter(None, colours))}
    return {name: value or NONE for name, value in known.items()} | {
        "motion": say.motion(target.states) or NONE, "speed": target.pace or NONE,
        "from": path.origin.replace("-", " "), "to": path.destination.replace("-", " "), "trajectory": say.trajectory(path),
        "begins": f"{path.entry / facts.fps:.1f}", "ends": f"{(path.exit + 1) / facts.fps:.1f}"}


class _Speaker:
    """Words one conversation."""

    def __init__(self, facts: ClipFacts, words: Language, rng: np.random.Generator, style: str) -> None:
        self.facts, self.words, self.say, self.rng, self.style = facts, words, words.speech, rng, style
        self.targets = facts.targets
        self.pronouns = self.say.pronouns(len(self.targets))
        self.known = all(target.look is not None for target in self.targets)
        self.messages: list[dict[str, Any]] = []

    def conversation(self) -> Conversation:
        facts = self.facts
        for slot in self.plan():
            self.turn(slot)
        rows = [slots_of(target, facts, self.words) for target in self.targets]
        slots = {"anomaly": "yes" if rows else "no",
                 **{name: "; ".join(row[name] for row in rows) if rows else NONE for name in _CLIP_SLOTS}}
        return Conversation(f"{facts.id}/{self.style}", facts.video, facts.start, facts.stop, facts.fps, facts.dataset,
                            facts.split, facts.scene, bool(rows), self.style, tuple(self.messages), slots, tuple(rows))

    # -- what is asked ---------------------------------------------------------------------------------------------

    def plan(self) -> list[str]:
        """Slots in the order asked: the anomaly's, then some of the open ones."""
        if not self.targets:
            core = ["report"] if self.style == "report" else ["anomaly"]
            core += ["target"] if self.style != "report" and self.rng.random() < 0.5 else []
            return core + self.some([("normality", bool(self.surroundings)), *self.scenery()], 3)
        if self.style == "report":
            core = ["report"] if self.known else ["anomaly"]
        else:
            core = ["anomaly", *(["target"] if self.known else []), "motion", "from", "to", "trajectory"]
        paced = all(target.pace for target in self.targets)
        about = [("when", True), ("why", self.known), ("speed", paced), ("details", self.has_details())]
        return core + self.some([*about, *self.scenery()], 3)

    @property
    def surroundings(self) -> Surroundings | None:
        return self.facts.surroundings

    def scenery(self) -> list[tuple[str, bool]]:
        around = self.surroundings
        if around is None:
            return []
        return [("environment", True), ("people", True), ("activity", bool(around.doings)), ("probe", bool(self.doubts()))]

    def some(self, slots: Sequence[tuple[str, bool]], count: int) -> list[str]:
        """``count`` of the slots that can be answered, in their usual order."""
        can = [slot for slot, possible in slots if possible]
        kept = sorted(self.rng.choice(len(can), size=min(count, len(can)), replace=False))
        return [can[index] for index in kept]

    def has_details(self) -> bool:
        people = [target.look for target in self.targets if target.look is not None and not target.look.is_vehicle]
        asked = all(look.accessories_known for look in people)
        return self.known and asked and len(people) == len(self.targets) and (
            self.style != "sentences" or all(self.say.things(look) for look in people))

    def doubts(self) -> list[tuple[str, str]]:
        """(class asked about, the harmless thing that is like it, or "!" for a class that is there)."""
        there = [target.look.kind for target in self.targets if target.look is not None]
        return [(kind, "!") for kind in dict.fromkeys(there)] + self.surroundings.lookalikes()

    # -- how it is said --------------------------------------------------------------------------------------------

    def turn(self, slot: str) -> None:
        """One question and its answer."""
        facts, reference = getattr(self, f"_{slot}")()
        question = self.draw("questions", slot).format(**self.pronouns, **facts)
        answers = reference if isinstance(reference, tuple) else (reference, None)
        short, sentences = self.say.sentence(answers[0]), answers[1]
        said, references = short, []
        if self.style == "sentences" and sentences is not None:
            said, references = " ".join(self.say.sentence(text) for text in sentences()), [short]
        content = [{"type": "video"}] if not self.messages else []
        if not self.messages and self.style == "sentences":
            question += " " + self.draw("cue", slot)
        self.messages += [
            {"role": "user", "slot": slot, "references": [],
             "content": [*content, {"type": "text", "text": self.say.sentence(question)}]},
            {"role": "assistant", "slot": slot, "references": references, "content": [{"type": "text", "text": said}]}]

    def draw(self, table: str, slot: str) -> str:
        texts = self.words.wordings(table, slot)
        return texts[int(self.rng.integers(len(texts)))]

    def short(self, name: str, **facts: str) -> str:
        return self.words.short[name].format(**facts)

    def whole(self, name: str, **facts: str) -> Callable[[], list[str]]:
        """One sentence."""
        return lambda: [self.draw("sentences", name).format(**facts)]

    def on_each(self, slot: str, facts: Callable[[Target], dict[str, str]], *,
                wording: Callable[[Target], str] | None = None) -> tuple[dict, tuple[str, Callable]]:
        """Answers about every target: a short one, and a sentence for each (of the slot that ``wording`` gives)."""
        count = len(self.targets)
        short = self.say.each([self.short(slot, **facts(target)) for target in self.targets])

        def sentences() -> list[str]:
            return [self.draw("sentences", wording(target) if wording else slot).format(
                name=self.say.name(target.look, target.motions, place=place, of=count), nth=self.say.nth(place, of=count),
                **facts(target)) for place, target in enumerate(self.targets)]

        return {}, (short, sentences)

    def all_targets(self, *, kind: str | None = None) -> str:
        """Every target (of one class) in full, as a list."""
        if len(self.targets) > 1 and not any(target.look for target in self.targets):
            return self.say.unknown(len(self.targets))
        return self.say.listing([self.say.target(target.look, target.motions, full=True) for target in self.targets
                                 if kind in (None, target.look.kind if target.look else None)])

    def _anomaly(self):
        if not self.targets:
            return {}, (self.short("anomaly_no"), self.whole("anomaly_no"))
        return {}, (self.short("anomaly_yes"), self.whole("anomaly_yes", targets=self.all_targets()))

    def _report(self):
        if not self.targets:
            return {}, self.short("report_no")
        lines = [self.short("report_target", target=self.say.target(target.look, target.motions),
                            motion=self.say.motion(target.states), origin=self.say.place(target.timeline.origin),
                            destination=self.say.place(target.timeline.destination)) for target in self.targets]
        return {}, self.short("report_yes", report=self.say.each(lines))

    def _target(self):
        if not self.targets:
            return {}, (self.short("nothing"), self.whole("nothing"))
        full = self.style == "sentences"
        short, _ = self.on_each("target", lambda t: {"target": self.say.target(t.look, t.motions)})[1]
        _, sentences = self.on_each("target", lambda t: {"target": self.say.target(t.look, t.motions, full=full)})[1]
        return {}, (short, sentences)

    def _motion(self):
        return self.on_each("motion", lambda t: {"motion": self.say.motion(t.states)})

    def _from(self):
        return self.on_each("from", lambda t: self._at(t.timeline.origin))

    def _to(self):
        return self.on_each("to", lambda t: self._at(t.timeline.destination))

    def _at(self, place: str) -> dict[str, str]:
        return {"place": self.say.place(place), "at": self.say.at(place)}

    def _trajectory(self):
        return self.on_each("trajectory", lambda t: {"path": self.say.trajectory(t.timeline)})

    def _speed(self):
        return self.on_each("speed", lambda t: {"pace": self.say.pace(t.timeline)},
                            wording=lambda t: "speed_still" if t.pace == "still" else "speed")

    def _details(self):
        return self.on_each("details", lambda t: {"things": self.say.things(t.look) or self.words.short["no_details"]})

    def _when(self):
        frames, fps = self.facts.stop - self.facts.start, self.facts.fps
        span = self.say.listing([self.say.span(first, last, frames=frames, fps=fps) for first, last in self.spans()])
        return {}, (self.short("when", span=span), self.whole("when", span=span))

    def spans(self) -> list[tuple[int, int]]:
        """First and last frame of every stretch in which any target is seen, in order."""
        joined: list[tuple[int, int]] = []
        for first, last in sorted((target.timeline.entry, target.timeline.exit) for target in self.targets):
            # A gap that seconds with one decimal do not show is none.
            if joined and (first - joined[-1][1] - 1) / self.facts.fps < 0.1 - 1e-9:
                joined[-1] = (joined[-1][0], max(joined[-1][1], last))
            else:
                joined.append((first, last))
        return joined

    def _why(self):
        reasons = dict.fromkeys(self.say.reason(target.look, target.motions) for target in self.targets)
        reason = self.say.listing(list(reasons))
        return {}, (self.short("why", reason=reason), self.whole("why", reason=reason))

    def _normality(self):
        doings = self.say.activities(self.surroundings.doings)
        if not doings:
            empty = self.words.short["empty" if not self.surroundings.people else "unremarkable"]
            return {}, (empty, self.whole("normality", ordinary=empty))
        return {}, (self.short("normality", doings=doings),
                    self.whole("normality", ordinary=self.short("ordinary", doings=doings)))

    def _environment(self):
        place = self.say.surroundings(self.surroundings)
        return {}, (self.short("environment", place=place), self.whole("environment", place=place))

    def _people(self):
        count = self.surroundings.people
        return {}, (self.short("people", number=self.say.people(count, noun=False)),
                    self.whole("people", people=self.say.people(count, noun=True)))

    def _activity(self):
        doings = self.say.activities(self.surroundings.doings)
        return {}, (self.short("activity", doings=doings), self.whole("activity", doings=doings))

    def _probe(self):
        doubts = self.doubts()
        kind, why = doubts[int(self.rng.integers(len(doubts)))]
        asked = {"doubt": self.say.doubt(kind)}
        if why == "!":
            short = self.say.listing([self.say.target(target.look, target.motions) for target in self.targets
                                      if target.look.kind == kind])
            full = self.all_targets(kind=kind)
            return asked, (self.short("probe_yes", targets=short), self.whole("probe_yes", targets=full))
        return asked, (self.short("probe_no", harmless=self.say.harmless(why)),
                       self.whole("probe_no", harmless=self.say.harmless(why)))
