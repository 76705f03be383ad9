"""Invented reports of ordinary people and things, and questions whose answers must be read out of them.

A report is told in one of three ways: in *blanks* (the very sentences in which the worded region encoder speaks, every
fact in a fixed number of tokens), in *clauses* (such sentences in any wording, order and choice), or as plain *text*.
Blanks and clauses are rows of weights over the vocabulary, not ids: a word may be said with doubt, a share of it spread
over other words of its field, and a whole subject may fade into full stops.  The right answer is then still the word
said loudest.  Every lesson is a pure function of its generator; no fact of one helps to guess those of another.

The words and their spelling are those of ``tvad.language``.  No label says anomaly: where a question of the conversations
does, the school asks without that word.
"""
from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from jaxtyping import Float32

from tvad.language.appearance import COLOURS, TONES, VEHICLES, Look
from tvad.language.english import English
from tvad.language.grammar import PLACES, STOP, WAYS, Path, phrase, spoken
from tvad.language.phrasings import expand, language

Turn = tuple[str, str, str]             # slot, question, answer
Rows = Float32[np.ndarray, "n v"]       # tokens of input, each a mixture of rows of the embedding
NOTHING, FILL, SUBJECT = "none", ".", "It"
ORDINALS = ("first", "second", "third")
SLOTS = ("there", "target", "motion", "from", "to", "trajectory")
WAYS_OF_TELLING = ("blanks", "clauses", "text")
_PLACES = tuple(map(spoken, PLACES))
# Words of each field, and in how many tokens one is said.
FIELDS: Mapping[str, tuple[str, ...]] = {
    "verdict": ("No", "Yes"),
    "begins": ("starts", "appears", "enters"), "from": _PLACES, "way": ("stays", *map(spoken, WAYS)),
    "ends": ("stays", "leaves", "disappears"), "to": _PLACES,
    "motion": ("pushing", "riding", "driving", "gliding", "fighting", "running", "jumping", "falling", "lying", "throwing",
               "pacing", "standing", "walking", "hurrying", "sitting", "talking"),
    **{name: (NOTHING, *COLOURS, "dark", "light") for name in ("top", "bottom", "colour")},
    "thing": (NOTHING, "bicycle", "motorcycle", "scooter", "hand truck", "stroller", "skateboard", "car", "van", "cart",
              "ball", "bag", "box"),
}
LENGTHS = {"verdict": 2, "from": 2, "way": 2, "to": 2, "motion": 2, "thing": 2}
BLANKS = ("It is a person in a {top} top and {bottom} trousers {motion} a {colour} {thing} . It is {motion} . It comes "
          "from the {from} . It goes to the {to} . It {begins} at the {from} , moves towards the {way} , {ends} in view at "
          "the {to} .")
# What may be told in clauses, by the slot that it answers.
CLAUSES: Mapping[str, tuple[str, ...]] = {
    "target": ("It is a person in a {top} top and {bottom} trousers {motion} a {colour} {thing} .",
               "It shows as a {colour} {thing} , a person in {bottom} trousers and a {top} top , {motion} .",
               "I see {motion} , a {thing} , {colour} , a person , the top {top} , the trousers {bottom} ."),
    "motion": ("It is {motion} .", "It moves : {motion} .", "One sees it {motion} .", "The motion is {motion} ."),
    "from": ("It comes from the {from} .", "It is first seen at the {from} .", "From the {from} it comes ."),
    "to": ("It goes to the {to} .", "It is last seen at the {to} .", "To the {to} it goes ."),
    "trajectory": ("It {begins} at the {from} , moves towards the {way} , {ends} in view at the {to} .",
                   "The path : {begins} , from {from} , towards {way} , {ends} , to {to} ."),
}
_OTHERS = ("There is a tree at the {}.", "Somebody walks at the {}.", "People stand and talk at the {}.",
           "A bench stands at the {}.", "A parked car can be seen at the {}.", "Others go to the {}.")
_ASIDE = ("It is a paved square.", "The sun shines.", "It is dark.", "Nobody else is near.", "The camera is fixed.")
_THERE = ("Is (anything|anybody|somebody or something) (told of|spoken of|to be seen)(| here)?",
          "(Is there|Do you see) (anything|somebody or something)(| here| in the video| in the clip)?",
          "Does (the video|the clip|this) (show|hold) anything?")
# Beside the conversations' own wordings, which may change after a model was made.
_MORE: Mapping[str, tuple[str, ...]] = {
    "target": ("(Who or what|What) {is} ({it}|the {target})?", "(Describe|Name) who or what is (there|seen|told of)."),
    "motion": ("What {does} ({it}|the {target}) do?", "How {does} ({it}|the {target}) go?"),
    "from": ("From (where|which side|what place|which part of the picture) {does} ({it}|the {target}) (come|start|move)?",
             "Where {does} ({it}|the {target}) come from?", "Where {is} ({it}|the {target}) first seen?"),
    "to": ("To (where|which side|what place|which part of the picture) {does} ({it}|the {target}) (go|move|come)?",
           "Where {does} ({it}|the {target}) go?", "Where {is} ({it}|the {target}) last seen?"),
    "trajectory": ("Describe the (path|way) of ({it}|the {target}).", "Which way {does} ({it}|the {target}) go?"),
}
_DETAILS: Mapping[str, str] = {"top": "Which colour is {its} top?", "bottom": "Which colour are {its} trousers?",
                               "colour": "Which colour does the thing have?", "begins": "How does {its} path begin?",
                               "way": "Towards which side does {it} move?", "ends": "How does {its} path end?"}
_ENGLISH, _LANGUAGE = English(), language("en")
_LABEL = re.compile("anomal|abnormal|unusual")


@dataclass(frozen=True)
class Subject:
    """One of whom a report tells: look, motions and path, as the conversations know them."""

    look: Look
    motions: tuple[str, ...]
    path: Path

    def words(self) -> dict[str, str]:
        """Its word in each field but the verdict."""
        look, path = self.look, self.path
        way = "stays" if path.legs[0] == STOP else spoken(path.legs[0])
        return {"begins": path.begins, "from": spoken(path.origin), "way": way, "ends": path.ends,
                "to": spoken(path.destination), "motion": self.motions[0], "top": look.top or NOTHING,
                "bottom": look.bottom or NOTHING, "colour": look.object_colour or NOTHING,
                "thing": look.object.split(" with ")[0] or NOTHING}

    def answers(self) -> dict[str, str]:
        """The short answer to each slot but "there"."""
        return {"target": _ENGLISH.target(self.look, self.motions), "motion": _ENGLISH.motion(self.motions),
                "from": f"from the {spoken(self.path.origin)}", "to": f"to the {spoken(self.path.destination)}",
                "trajectory": phrase(self.path)}


@dataclass(frozen=True)
class Told:
    """A lesson: how the report is told, its ``tokens`` as weights over the vocabulary (blanks, clauses; None for text),
    and the turns; of a plain text it stands in the first question."""

    way: str
    tokens: Rows | None
    turns: tuple[Turn, ...]


def draw_subject(rng: np.random.Generator, *, grey: bool) -> Subject:
    """Anybody or anything: every thing and motion about as often, colours and paths of all kinds."""
    def colour() -> str:
        return str(rng.choice(TONES if grey else COLOURS))

    kind = str(rng.choice(("car", "bicycle", "motorcycle", "hand_truck", "stroller", "skateboarding", "throwing",
                           "loitering", "afoot"), p=(.1, .09, .09, .09, .09, .09, .09, .08, .28)))
    noun, thing = "person", {"bicycle": "bicycle", "hand_truck": "hand truck with boxes", "stroller": "stroller",
                             "skateboarding": "skateboard"}.get(kind, "")
    motions: tuple[str, ...] = {"car": ("driving",), "motorcycle": ("riding",), "skateboarding": ("gliding",),
                                "loitering": ("pacing",)}.get(kind, ("pushing",))
    if kind == "car":
        noun = thing = str(rng.choice(VEHICLES))
    elif kind == "motorcycle":
        thing = str(rng.choice(("motorcycle", "scooter")))
    elif kind == "bicycle":
        motions = (str(rng.choice(("riding", "pushing"))),)
    elif kind == "throwing":
        thing = str(rng.choice(("ball", "bag", "box")))
        motions = (str(rng.choice(("throwing", "standing", "walking"), p=(.6, .25, .15))),)
    elif kind == "afoot":
        motions = (str(rng.choice(("fighting", "running", "jumping", "falling", "lying", "standing", "walking", "hurrying",
                                   "sitting", "talking"), p=(.2, .15, .15, .15, .13, .06, .06, .04, .03, .03))),)
    if motions == ("falling",):     # who falls lies, whether that is told or not
        motions = ("falling", "lying")
    dressed = {} if kind == "car" else {"top": colour(), "bottom": colour()}
    look = Look(kind, noun, object=thing, object_colour=colour() if thing else "", **dressed)
    return Subject(look, motions, draw_path(rng))


def draw_path(rng: np.random.Generator) -> Path:
    """One leg from anywhere to anywhere, in half of the draws to where it leads."""
    begins = str(rng.choice(("starts", "appears", "enters"), p=(.55, .2, .25)))
    ends = str(rng.choice(("stays", "leaves", "disappears"), p=(.55, .25, .2)))
    origin = str(rng.choice(WAYS if begins == "enters" else PLACES))
    leg = STOP if rng.random() < 0.15 else str(rng.choice(WAYS))
    if leg == STOP:
        likely = origin
    elif rng.random() < 0.4:
        likely = origin
    else:
        row, column = (np.array(divmod(PLACES.index(place), 3)) for place in (origin, leg))
        moved = np.clip(row + column - 1, 0, 2)
        likely = PLACES[3 * moved[0] + moved[1]]
    destination = likely if rng.random() < 0.7 else str(rng.choice(PLACES))
    if ends == "leaves" and destination == "middle":
        destination = leg if leg != STOP else str(rng.choice(WAYS))
    return Path(begins, origin, (leg,), ends, destination)


@cache
def wordings(slot: str) -> tuple[str, ...]:
    """All ways to ask for a slot, those of the conversations without their label; with pronouns to be filled in."""
    if slot == "there":
        return tuple(text for pattern in _THERE for text in expand(pattern))
    own = [re.sub(r"(abnormal|anomalous|unusual) ", "", text) for text in _LANGUAGE.wordings("questions", slot)]
    own += [text for pattern in _MORE[slot] for text in expand(pattern)]
    return tuple(dict.fromkeys(text for text in own if not _LABEL.search(text)))


class Teller:
    """Tells stories to one tokenizer: :meth:`lesson`.

    ``columns``: rows of the embedding table that the weights are over.
    """

    def __init__(self, tokenizer: Any, columns: int) -> None:
        self.tokenizer, self.columns = tokenizer, columns
        self._known: dict[str, Rows] = {}
        self._said = {name: [self._rows([*self.ids(word), *self.ids(FILL) * LENGTHS.get(name, 1)][:LENGTHS.get(name, 1)])
                             for word in words] for name, words in FIELDS.items()}

    def ids(self, word: str) -> list[int]:
        """Ids of a word as it stands within a sentence, or at its beginning if it has a capital."""
        text = word if word[0].isupper() or not word[0].isalpha() else f" {word}"
        return self.tokenizer(text, add_special_tokens=False)["input_ids"]

    def lesson(self, rng: np.random.Generator, *, way: str | None = None, doubt: float | None = None) -> Told:
        """One report and its turns. ``doubt``: the share that every word gives away; None: drawn, at most 0.6."""
        way = way or str(rng.choice(WAYS_OF_TELLING, p=(.62, .23, .15)))
        count = int(rng.choice(4, p=(.1, .62, .25, .03)) if way == "blanks" else rng.choice((1, 2, 3), p=(.72, .25, .03)))
        grey = rng.random() < 0.35
        subjects = [draw_subject(rng, grey=grey) for _ in range(count)]
        if way == "blanks":
            return Told(way, self._blanks(subjects, rng, doubt, grey), _turns(subjects, SLOTS, rng))
        slots = [slot for slot in SLOTS[1:] if rng.random() < 0.75] or ["target"]
        if way == "clauses":
            return Told(way, self._clauses(subjects, slots, rng, doubt), _turns(subjects, slots, rng))
        (slot, question, answer), *rest = _turns(subjects, slots, rng)
        return Told(way, None, ((slot, f"{_text(subjects, slots, rng)} {question}", answer), *rest))

    def _blanks(self, subjects: Sequence[Subject], rng: np.random.Generator, doubt: float | None, grey: bool) -> Rows:
        """Verdict, and as many places for a subject as an encoder may have; an empty one is silent, or whispers of
        somebody."""
        places = max(len(subjects), int(rng.choice((1, 2, 3), p=(.15, .8, .05))))
        sure = [1.0 - (rng.random() < 0.5) * rng.uniform(0, 0.4) for _ in subjects]
        sure += [(rng.random() < 0.5) * rng.uniform(0, 0.35) for _ in range(places - len(subjects))]
        told = [*subjects, *(draw_subject(rng, grey=grey) for _ in range(places - len(subjects)))]
        doubt = _level(rng, doubt)
        parts = [self._field("verdict", _chances("verdict", "Yes" if subjects else "No", doubt, rng))]
        for place, (one, there) in enumerate(zip(told, sure, strict=True)):
            several = float(np.clip(sum(sure) - there, 0, 1) * there)
            who = (1 - several) * self._fixed(SUBJECT) + several * self._fixed(ORDINALS[place])
            said = self._sentence(BLANKS, self._doubted(one, doubt, rng), who)
            parts.append(np.float32(there) * said + np.float32(1 - there) * self._fixed(FILL))
        return np.concatenate(parts)

    def _clauses(self, subjects: Sequence[Subject], slots: Sequence[str], rng: np.random.Generator,
                 doubt: float | None) -> Rows:
        parts, doubt = [], _level(rng, doubt)
        for place, one in enumerate(subjects):
            several = len(subjects) > 1
            words = self._doubted(one, doubt, rng)
            for slot in rng.permutation(slots):
                # of several each clause must say of whom
                texts = [text for text in CLAUSES[slot] if not several or re.search(r"\b[Ii]t\b", text)]
                who = self._fixed(ORDINALS[place] if several else SUBJECT)
                parts.append(self._sentence(texts[int(rng.integers(len(texts)))], words, who))
        return np.concatenate(parts)

    def _doubted(self, one: Subject, doubt: float | None, rng: np.random.Generator) -> dict[str, Rows]:
        return {name: self._field(name, _chances(name, word, doubt, rng)) for name, word in one.words().items()}

    def _sentence(self, text: str, words: Mapping[str, Rows], who: Rows) -> Rows:
        return np.concatenate([words[word[1:-1]] if word[0] == "{" else who if word.lower() == "it" else self._fixed(word)
                               for word in text.split()])

    def _field(self, name: str, chances: Sequence[float]) -> Rows:
        return sum(np.float32(share) * rows for share, rows in zip(chances, self._said[name], strict=True) if share)

    def _fixed(self, word: str) -> Rows:
        if word not in self._known:
            self._known[word] = self._rows(self.ids(word)[:1])
        return self._known[word]

    def _rows(self, ids: Sequence[int]) -> Rows:
        made = np.zeros((len(ids), self.columns), np.float32)
        made[np.arange(len(ids)), list(ids)] = 1
        return made


def _level(rng: np.random.Generator, doubt: float | None) -> float | None:
    """The doubt of a report's words; None where it is drawn anew for each."""
    return 0.0 if doubt is None and rng.random() < 0.3 else doubt


def _chances(name: str, word: str, doubt: float | None, rng: np.random.Generator) -> list[float]:
    """How loud each word of a field is said: what the right one gives away is spread unevenly, but none is as loud."""
    words = FIELDS[name]
    number, doubt = words.index(word), float(rng.uniform(0, 0.6)) if doubt is None else doubt
    if len(words) == 2:
        doubt = min(doubt, 0.45)
    weights = rng.dirichlet(np.full(len(words), 0.3 if rng.random() < 0.7 else 30.0))
    weights[number] = 0
    weights = np.minimum(weights * doubt / max(weights.sum(), 1e-9), 0.9 * (1 - doubt))
    weights[number] = 1 - weights.sum()
    return weights.tolist()


# -- what is asked ---------------------------------------------------------------------------------------------------

def _turns(subjects: Sequence[Subject], slots: Sequence[str], rng: np.random.Generator) -> tuple[Turn, ...]:
    """Turns about what is told: in the order of the conversations in six of ten lessons, else in any, with details."""
    if not subjects:
        asked = [_ask("there", 1, rng, "no")]
        return tuple([*asked, _ask("target", 1, rng, NOTHING)] if rng.random() < 0.5 else asked)
    count, answers = len(subjects), [one.answers() for one in subjects]
    said = {slot: "yes" if slot == "there" else _ENGLISH.each([own[slot] for own in answers]) for slot in slots}
    asked = [_ask(slot, count, rng, said[slot]) for slot in slots]
    if rng.random() < 0.6:
        return tuple(asked)
    if count > 1:       # one of several alone
        for slot in [slot for slot in slots if slot != "there" and rng.random() < 0.5]:
            place = int(rng.integers(count))
            asked.append(_ask(slot, 1, rng, answers[place][slot], who=f"the {ORDINALS[place]}"))
    else:
        asked += _details(subjects[0], slots, rng)
    order = rng.permutation(len(asked))[:int(rng.integers(3, 8))]
    return tuple(asked[i] for i in order)


def _ask(slot: str, count: int, rng: np.random.Generator, answer: str, *, who: str = "") -> Turn:
    names = _ENGLISH.pronouns(count)
    if who:
        names |= {"it": who, "its": f"the {who.split()[-1]} one's", "target": f"{who.split()[-1]} target"}
    ways = wordings(slot)
    if who:     # a wording that names nobody would ask about all
        ways = tuple(text for text in ways if re.search(r"\{(it|its|target)\}", text))
    return slot, ways[int(rng.integers(len(ways)))].format(**names), _ENGLISH.sentence(answer)


def _details(one: Subject, slots: Sequence[str], rng: np.random.Generator) -> list[Turn]:
    """Single words of the report, and whether one of them is true."""
    words, names = one.words(), _ENGLISH.pronouns(1)
    known = [*(("top", "bottom", "colour") if "target" in slots else ()),
             *(("begins", "way", "ends") if "trajectory" in slots else ())]
    asked = [("detail", _DETAILS[name].format(**names), _ENGLISH.sentence(words[name]))
             for name in known if words[name] != NOTHING and rng.random() < 0.4]
    if "motion" in slots:
        guess = words["motion"] if rng.random() < 0.5 else str(rng.choice(FIELDS["motion"]))
        asked.append(("detail", f"Is it {_ENGLISH.motion((guess,))}?", "Yes." if guess in one.motions else "No."))
    return asked


def _text(subjects: Sequence[Subject], slots: Sequence[str], rng: np.random.Generator) -> str:
    """A report in plain sentences, subject by subject, with others' doings between."""
    told = []
    for place, one in enumerate(subjects):
        who, facts = "it" if len(subjects) == 1 else f"the {ORDINALS[place]}", one.answers()
        says = {"target": f"{who} is {facts['target']}", "motion": f"{who} is {facts['motion']}",
                "from": f"{who} comes {facts['from']}", "to": f"{who} goes {facts['to']}",
                "trajectory": f"{who} {facts['trajectory']}"}
        told += [_ENGLISH.sentence(says[slots[i]]) for i in rng.permutation(len(slots))]
        if rng.random() < 0.4:
            told.append(str(rng.choice(_OTHERS)).format(rng.choice(_PLACES)) if rng.random() < 0.7
                        else str(rng.choice(_ASIDE)))
    return " ".join(told)
