"""Metrics of a conversation: corpus BLEU-4, yes/no accuracy, and whether the slots of an answer are right.

BLEU-4 is sacrebleu's corpus score (13a tokens, exponential smoothing, case kept; ``TextScore.detail`` holds its
signature) over all answers of a slot at once, several right wordings allowed, as a fraction.  Tools differ by a point
(the specification does not name the paper's), so nltk's default is computed beside it: words split at blanks, no
smoothing.  BLEU rewards wording; slot accuracy asks whether the facts are right, whatever the words around them.

Intervals draw videos, as everywhere in this package: the answers about one video hang together.
"""
from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Int
from sacrebleu.metrics import BLEU

from tvad.metrics.bootstrap import bootstrap
from tvad.metrics.common import MetricError

ORDER = 4
YES_NO = "anomaly"
BLEU_SLOTS: Mapping[str, str] = {"bleu4_target": "target", "bleu4_trajectory": "trajectory"}
# effective_order only silences sacrebleu's warning about single sentences: the counts do not depend on it
_BLEU = BLEU(effective_order=True)


@dataclass(frozen=True)
class Answer:
    """What a model said to one question about a video, and what is right.

    ``slot``: what was asked (``anomaly`` is the yes/no question). ``wanted``: right wordings, the reference first.
    ``event``: class of the anomaly, for figures by class. ``probability`` of yes, where the model gave one.
    """

    video: str
    slot: str
    said: str
    wanted: tuple[str, ...]
    event: str | None = None
    probability: float | None = None

    def __post_init__(self) -> None:
        if isinstance(self.wanted, str) or not self.wanted:
            raise MetricError(f"{self.video}, slot {self.slot}: wanted is {self.wanted!r}; give a tuple of right answers")


@dataclass(frozen=True)
class SlotRule:
    """Which facts of an answer count: those of ``terms`` that occur in it, longest first ("top left" before "top").

    ``name``: of the figure (``slot_<name>``). ``slot``: whose answers are read. ``terms``: words or, by mapping, what
    fact they tell ("van": "car"). ``bound``: a term counts together with the word that follows it, so that "red top, blue
    trousers" is not "blue top, red trousers".
    """

    name: str
    slot: str
    terms: tuple[str, ...] | Mapping[str, str]
    bound: bool = False

    def facts(self, text: str) -> frozenset[str]:
        """The facts in ``text``, in lower case and without hyphens; no fact reaches over a comma or a full stop."""
        meant = {plain(term): self.terms[term] if isinstance(self.terms, Mapping) else plain(term) for term in self.terms}
        tail = r"(?:\s+\w+)?" if self.bound else ""
        terms = "|".join(re.escape(term) for term in sorted(meant, key=len, reverse=True))
        found = re.findall(rf"\b(?:{terms}){tail}\b", plain(text, stop=" | "))
        return frozenset(found if self.bound else (meant[term] for term in found))


@dataclass(frozen=True)
class TextScore:
    """A figure with its bootstrap interval over videos (None where resamples leave it undefined), and ``n`` answers.

    ``base``: what the commonest right answer alone would score; for yes/no the share of yes. ``detail``: class counts,
    the signature and nltk's value of BLEU.
    """

    value: float
    low: float | None
    high: float | None
    n: int
    base: float | None = None
    detail: Mapping[str, Any] = field(default_factory=dict)


def plain(text: str, *, stop: str = " ") -> str:
    """Lower case, hyphens as blanks, ``stop`` for other punctuation, single blanks."""
    return " ".join(re.sub(r"[^\w\s]", stop, text.lower().replace("-", " ")).split())


def yes_no(text: str) -> bool | None:
    """True or False where an answer begins with yes or no, None where it does neither."""
    first = plain(text).split(" ", 1)[0]
    return {"yes": True, "no": False}.get(first)


# BLEU

def bleu_counts(said: str, wanted: Sequence[str]) -> Int[np.ndarray, "10"]:
    """What corpus BLEU-4 adds up: matches and totals of 1- to 4-grams, length of ``said`` and of the nearest reference."""
    score = _BLEU.sentence_score(said, list(wanted))
    return np.array([*score.counts, *score.totals, score.sys_len, score.ref_len], dtype=np.int64)


def bleu4(counts: Sequence[Int[np.ndarray, "10"]]) -> float:
    """Corpus BLEU-4 as a fraction from any number of ``bleu_counts`` (or their sums, one a video).

    Raises MetricError where there is no answer at all.
    """
    if not len(counts):
        raise MetricError("BLEU-4 is undefined: no answer given")
    total = np.sum(counts, axis=0).tolist()
    found = BLEU.compute_bleu(total[:ORDER], total[ORDER : 2 * ORDER], total[-2], total[-1], smooth_method="exp")
    return found.score / 100


def bleu_signature(references: int = 1) -> str:
    """sacrebleu's own description of the score: references, case, tokeniser, smoothing, version."""
    plainly = BLEU()
    plainly.corpus_score(["a"], [["a"]] * references)
    return str(plainly.get_signature())


def nltk_bleu4(said: Sequence[str], wanted: Sequence[Sequence[str]]) -> float:
    """nltk's ``corpus_bleu`` with its defaults: words split at blanks, no smoothing (Papineni 2002), as a fraction."""
    matches, totals, length, reference = [0] * ORDER, [0] * ORDER, 0, 0
    for text, rights in zip(said, wanted, strict=True):
        words, references = text.split(), [right.split() for right in rights]
        length += len(words)
        reference += min((abs(len(right) - len(words)), len(right)) for right in references)[1]
        for order in range(1, ORDER + 1):
            grams = _grams(words, order)
            most = Counter()
            for right in references:
                most |= _grams(right, order)
            matches[order - 1] += sum((grams & most).values())
            totals[order - 1] += max(1, sum(grams.values()))
    if not all(matches):
        return 0.0
    brevity = 0.0 if length >= reference else 1 - reference / length
    return math.exp(brevity + sum(math.log(m / t) for m, t in zip(matches, totals)) / ORDER)


def _grams(words: Sequence[str], order: int) -> Counter:
    return Counter(zip(*(words[start:] for start in range(order))))


# Shares that add up over videos

def share(counts: Sequence[Int[np.ndarray, "2"]]) -> float:
    """Right answers over all answers, from (right, all) a video."""
    right, count = np.sum(counts, axis=0) if len(counts) else (0, 0)
    if not count:
        raise MetricError("accuracy is undefined: no answer given")
    return float(right / count)


def balanced_share(counts: Sequence[Int[np.ndarray, "4"]]) -> float:
    """Mean of the two classes' accuracies, from (right yes, all yes, right no, all no) a video."""
    right_yes, yes, right_no, no = np.sum(counts, axis=0) if len(counts) else (0, 0, 0, 0)
    if not yes or not no:
        raise MetricError(f"balanced accuracy is undefined: no {'yes' if not yes else 'no'} among {yes + no} right answers")
    return float((right_yes / yes + right_no / no) / 2)


# All figures of some answers

def score_text(answers: Sequence[Answer], *, rules: Iterable[SlotRule] = (), samples: int = 1000,
               seed: int = 0) -> dict[str, TextScore]:
    """Every figure that the answers allow, by name.

    ``bleu4_target``, ``bleu4_trajectory`` from the slots of these names; ``yes_no_accuracy`` and
    ``yes_no_balanced_accuracy`` from slot ``anomaly`` (an answer that is neither yes nor no is wrong, and counted);
    ``slot_<name>`` for each rule: the share of answers whose facts are exactly the right ones (questions whose right
    answer tells no such fact are left out and counted as ``untold``).
    A figure without an answer, or undefined (balanced accuracy of one class), is left out.

    Raises:
        MetricError: no answers; a right answer that is neither yes nor no; a rule whose terms no right answer holds.
    """
    if not answers:
        raise MetricError("no answers to score; let the model answer some conversations first")
    options = {"samples": samples, "seed": seed}
    scores = {name: _bleu_score([a for a in answers if a.slot == slot], **options) for name, slot in BLEU_SLOTS.items()}
    asked = [answer for answer in answers if answer.slot == YES_NO]
    scores |= _yes_no_scores(asked, **options)
    for rule in rules:
        scores[f"slot_{rule.name}"] = _slot_score(rule, [a for a in answers if a.slot == rule.slot], **options)
    return {name: score for name, score in scores.items() if score is not None}


def _bleu_score(answers: Sequence[Answer], **options: Any) -> TextScore | None:
    if not answers:
        return None
    counts = [bleu_counts(answer.said, answer.wanted) for answer in answers]
    references = {len(answer.wanted) for answer in answers}
    detail = {"signature": bleu_signature(references.pop()) if len(references) == 1 else "nrefs:var|" + _unreferenced(),
              "nltk": nltk_bleu4([a.said for a in answers], [a.wanted for a in answers])}
    return _score(bleu4, answers, counts, detail=detail, **options)


def _unreferenced() -> str:
    return bleu_signature().split("|", 1)[1]


def _yes_no_scores(answers: Sequence[Answer], **options: Any) -> dict[str, TextScore | None]:
    if not answers:
        return {}
    counts, unread = [], 0
    for answer in answers:
        wanted, said = yes_no(answer.wanted[0]), yes_no(answer.said)
        if wanted is None:
            raise MetricError(f"{answer.video}: the right answer {answer.wanted[0]!r} is neither yes nor no; "
                              f"only yes/no questions may have slot {YES_NO!r}")
        unread += said is None
        counts.append([said is True, 1, 0, 0] if wanted else [0, 0, said is False, 1])
    table = np.array(counts, dtype=np.int64)
    right_yes, yes, right_no, no = table.sum(0).tolist()
    detail = {"yes": yes, "no": no, "right_yes": right_yes, "right_no": right_no, "unreadable": unread}
    plainly = np.stack([table[:, 0] + table[:, 2], np.ones(len(table), np.int64)], 1)
    scores = {"yes_no_accuracy": _score(share, answers, plainly, base=yes / len(answers), detail=detail, **options)}
    if yes and no:
        scores["yes_no_balanced_accuracy"] = _score(balanced_share, answers, table, base=yes / len(answers),
                                                    detail=detail, **options)
    return scores


def _slot_score(rule: SlotRule, answers: Sequence[Answer], **options: Any) -> TextScore | None:
    if not answers:
        return None
    read = [(answer, rule.facts(answer.wanted[0])) for answer in answers]
    told = [(answer, facts) for answer, facts in read if facts]
    if not told:
        raise MetricError(f"{answers[0].video}: the right answer {answers[0].wanted[0]!r} holds no {rule.name} known to "
                          "the rule, nor does any other; give the rule the terms that answers use")
    answers, right = zip(*told)
    hits = np.array([[rule.facts(answer.said) == facts, 1] for answer, facts in zip(answers, right)], dtype=np.int64)
    commonest = Counter(right).most_common(1)[0][1]
    detail = {"classes": len(set(right)), "untold": len(read) - len(told)}
    return _score(share, answers, hits, base=commonest / len(answers), detail=detail, **options)


def _score(metric: Callable[..., float], answers: Sequence[Answer], counts: Sequence[Any], *, samples: int, seed: int,
           **more: Any) -> TextScore:
    """The metric over the answers' counts, summed by video first, with its interval."""
    videos: dict[str, np.ndarray] = {}
    for answer, row in zip(answers, np.asarray(counts)):
        videos[answer.video] = videos.get(answer.video, 0) + row
    parts = list(videos.values())
    try:
        found = bootstrap(metric, [parts], samples=samples, seed=seed)
    except MetricError:  # defined on the videos as they are, but not on half of the resamples
        return TextScore(metric(parts), None, None, len(answers), **more)
    return TextScore(found.value, found.low, found.high, len(answers), **more)
