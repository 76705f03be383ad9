"""How questions and answers are worded: a table by language, at least 20 wordings a slot.

A wording is a pattern: ``(a|b|)`` is one of several, ``{name}`` a fact put in when it is used (``expand`` writes all out).
``questions`` asks for a slot, ``sentences`` answers it in whole sentences, ``short`` holds the one canonical answer, by
which answers can be compared.  Facts become words through ``speech`` (see ``tvad.language.english``).  Another language
is another entry of ``LANGUAGES``; conversations are made with ``language=`` its code.
"""
from __future__ import annotations

import itertools
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from tvad.errors import TvadError
from tvad.language.english import English

# Slots of the anomaly in the order in which they are asked (paper, figure 2), the one-line report, and the open ones.
CORE: tuple[str, ...] = ("anomaly", "target", "motion", "from", "to", "trajectory")
OPEN: tuple[str, ...] = ("when", "why", "normality", "environment", "people", "activity", "probe", "speed", "details")
SLOTS: tuple[str, ...] = (*CORE, "report", *OPEN)
LEAST = 20


class LanguageError(TvadError, ValueError):
    """A language is unknown, or a pattern cannot be read."""


@dataclass(frozen=True)
class Language:
    """Everything said in one language.

    ``questions``: patterns for each of SLOTS.  ``sentences`` and ``short``: for the answers, whose names are the slots,
    but for "anomaly_yes", "anomaly_no", "probe_yes", "probe_no", "speed_still" (of what hardly moves) and "nothing" (what
    was asked of a target that is not there).  The report is one line of short answers ("report_yes", "report_no"), never a
    sentence.  ``cue`` asks for whole sentences.
    """

    questions: Mapping[str, tuple[str, ...]]
    sentences: Mapping[str, tuple[str, ...]]
    short: Mapping[str, str]
    cue: tuple[str, ...]
    speech: Any
    _written: dict[tuple[str, str], tuple[str, ...]] = field(default_factory=dict, init=False, repr=False, compare=False)

    def wordings(self, table: str, slot: str) -> tuple[str, ...]:
        """All written-out patterns of a slot in "questions", "sentences" or "cue"."""
        if (table, slot) not in self._written:
            patterns = self.cue if table == "cue" else getattr(self, table)[slot]
            texts = dict.fromkeys(text for pattern in patterns for text in expand(pattern))
            self._written[table, slot] = tuple(texts)
        return self._written[table, slot]


@cache
def expand(pattern: str) -> tuple[str, ...]:
    """Everything that a pattern can say: ``expand("(Is|Was) it(| so)?")`` gives four texts.

    Raises :class:`LanguageError` for brackets that do not close.
    """
    deep = re.search(r"\(([^()]*)\)", pattern)
    if not deep:
        if stray := set(pattern) & set("()|"):
            raise LanguageError(f"pattern {pattern!r}: stray {min(stray)!r}; write alternatives as (one|other)")
        return (pattern,)
    head, tail = pattern[:deep.start()], pattern[deep.end():]
    return tuple(itertools.chain.from_iterable(expand(head + choice + tail) for choice in deep[1].split("|")))


def language(code: str) -> Language:
    """A language by its code. Raises :class:`LanguageError` that names the known ones."""
    if code not in LANGUAGES:
        raise LanguageError(f"unknown language {code!r}; known: {', '.join(LANGUAGES)}")
    return LANGUAGES[code]


_THEM = "({it}|the {target}|the abnormal {target})"
_CLIP = "(the|this) (video|clip)"

_QUESTIONS: Mapping[str, tuple[str, ...]] = {
    "anomaly": (f"Is there (any anomaly|anything abnormal|anything unusual|any abnormal event) in {_CLIP}?",
                f"Does {_CLIP} show (an anomaly|anything abnormal|anything unusual)?"),
    "report": ("(Report|Sum up|State) (any anomaly|anything abnormal|what is abnormal): "
               "yes or no, target, motion, from, to.",
               "(Is there any anomaly|Is anything abnormal) in the (video|clip)? "
               "(Give|Name|Add) target, motion, from and to."),
    "target": ("(Describe|Name) the (anomalous|abnormal|unusual) {target}(| in the video).",
               "What {does} the (anomalous|abnormal|unusual) {target} look like?",
               "Who or what is (anomalous|abnormal|unusual) (here|in the video)?"),
    "motion": (f"(How|In which way) {{does}} {_THEM} move?", f"What {{is}} {_THEM} doing?",
               "(Describe|Name|Give) (the motion|the state of motion|{its} motion|{its} state of motion)."),
    # Places, first and last: who walks to the right within the left third moves "to which side", and ends at the left.
    "from": (f"From (where|what place|which place|which part of the picture) {{does}} {_THEM} (come at first|start)?",),
    "to": (f"To (where|what place|which place|which part of the picture) {{does}} {_THEM} (come|go) in the end?",),
    "trajectory": (f"From where to where {{does}} {_THEM} (move|go)?",
                   "(Describe|Tell|Trace) {its} (path|way|trajectory)(| through the picture).",
                   f"Which (path|way) {{does}} {_THEM} take(| through the picture)?"),
    "when": ("When does (it|the anomaly|the event) (begin and end|start and stop)?",
             "From when to when (is the anomaly seen|does the anomaly last|is it seen|does it last)?",
             "When does the anomaly (begin|start), and when does it (end|stop)?",
             "(Give|Name|State) the (beginning and the end|time) of the anomaly."),
    "why": ("(Why is|What makes) (it|this|the video|the clip) (abnormal|anomalous|unusual|out of the ordinary)?",),
    "normality": ("(Why is|What makes) (it|this|the video|the clip) (normal|ordinary)?",
                  "Why is (this|the video|the clip) not (abnormal|anomalous|unusual)?",
                  "How can you tell that (nothing abnormal happens|this is normal|there is no anomaly)?"),
    "environment": ("(Describe|Please describe) the (environment|surroundings|scene|place)(| of the video| in the clip).",
                    "What (place|environment|scene) (is this|does the video show)?"),
    "people": ("How many people (are there|can be seen|can you see|are in the video|are in the clip|appear)"
               "(, drivers aside|, not counting drivers|, leaving out drivers|, drivers not counted)?",),
    "activity": ("What are (the ordinary people|the people around|those who do nothing abnormal) doing"
                 "(| here| in the video| in the clip)?",
                 "What do (the ordinary people|the people around|those who do nothing abnormal) do"
                 "(| here| in the video| in the clip)?"),
    "probe": ("(Is there|Do you see|Can you see|Would you say that there is) {doubt}(| here| in the video| in the clip)?",
              "Does (the video|the clip|this) show {doubt}?", "Tell me whether there is {doubt}(| here| in the video)."),
    "speed": (f"How fast {{is}} {_THEM}?", f"(How fast|At what speed|At which pace) {{does}} {_THEM} (move|go)?"),
    "details": (f"(What|Which things) {{does}} {_THEM} (wear or carry|carry or wear) (besides|in addition)?",),
}

_SENTENCES: Mapping[str, tuple[str, ...]] = {
    "anomaly_yes": ("Yes(,|:|;) (I see|I can see|one sees|one can see|the video shows|the clip shows|this shows) "
                    "{targets}.",),
    "anomaly_no": ("No, (nothing abnormal|nothing unusual|no anomaly) (is seen|can be seen|is to be seen)"
                   "(| here| in the video| in the clip).",),
    "target": ("The{nth} (abnormal|anomalous|unusual|striking) target "
               "(is|looks like|shows as|appears as|can be described as) {target}.",),
    "nothing": ("(There is|I see|One sees|The video shows|The clip shows|The scene holds) no "
                "(abnormal|anomalous|unusual|striking) target.",),
    "motion": ("{name} (is|is seen|can be seen|is shown|is filmed) {motion}(| here| in the clip| in the video).",),
    "from": ("{name} (is first seen|first shows|first appears|can first be seen|is at first) "
             "{at}(| of the picture| of the frame| of the view).",),
    "to": ("{name} (is last seen|last shows|is at last|can last be seen|is in the end) "
           "{at}(| of the picture| of the frame| of the view).",),
    "trajectory": ("(|In the clip, |In the video, |Here, |In this view, )"
                   "(|I see that |one sees that |the picture shows that ){name} {path}.",),
    "when": ("(|In the clip, |In this clip, )(the anomaly|what is abnormal) "
             "(can be seen|is seen|is in view|is visible) {span}.",),
    "why": ("(It|This|The clip|The video|The scene) is (abnormal|anomalous|unusual|out of the ordinary) "
            "because {reason}.",),
    "normality": ("(It|This|The clip|The video|The scene) is (normal|ordinary|not abnormal|as usual) because {ordinary}.",),
    "environment": ("(|Seen from a fixed camera, |From a fixed camera, )"
                    "(this is|one sees|I see|the picture shows|the view shows|there is|the scene is) {place}.",),
    "people": ("(I count|I see|One sees|One can count|The clip shows|The video shows|The picture holds) {people}"
               "(|, drivers aside|, not counting drivers).",),
    "activity": ("(There is|I see|One sees|The clip shows|The video shows) {doings}"
                 "(| here| among the people| among those present).",),
    "probe_yes": ("(Yes, |Yes: |Yes; |Indeed, )(I see|one sees|the clip shows|the video shows|this shows) {targets}.",),
    "probe_no": ("(No, |No: |No; |Not at all: )(|here |in fact |I see that |one can see that ){harmless}.",),
    "speed": ("{name} (moves|goes|gets along|goes along) {pace}(| here| in the clip| in the video| in this view).",),
    "speed_still": ("{name} (hardly moves|scarcely moves|barely moves|moves hardly at all)"
                    "(| here| in the clip| in the video| in this view).",),
    "details": ("{name} (has|is seen with|comes with|shows) {things}(| besides| in addition| as well| too).",),
}

_SHORT: Mapping[str, str] = {
    "anomaly_yes": "yes", "anomaly_no": "no", "report_yes": "yes; {report}", "report_no": "no", "nothing": "none",
    "target": "{target}", "motion": "{motion}", "from": "from {place}", "to": "to {place}", "trajectory": "{path}",
    "when": "{span}", "why": "{reason}", "normality": "only {doings}", "environment": "{place}", "people": "{number}",
    "activity": "{doings}", "probe_yes": "yes; {targets}", "probe_no": "no; {harmless}", "speed": "{pace}",
    "details": "{things}", "no_details": "nothing else", "empty": "nobody is there",
    "unremarkable": "nothing remarkable happens",
    "ordinary": "there is only {doings}", "report_target": "{target}; {motion}; from {origin}; to {destination}",
}

LANGUAGES: dict[str, Language] = {
    "en": Language(_QUESTIONS, _SENTENCES, _SHORT,
                   ("(Answer|Please answer|Reply|Speak) in (full|whole|complete) sentences.",
                    "(Use|Please use) (full|whole|complete) sentences.", "(Full|Whole|Complete) sentences, please."),
                   English()),
}
