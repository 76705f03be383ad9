"""Text metrics: BLEU against sacrebleu and nltk's published figure, yes/no and slots by hand, intervals over videos."""
from __future__ import annotations

import numpy as np
import pytest
from sacrebleu.metrics import BLEU

from tvad.metrics import MetricError
from tvad.metrics.text import (
    Answer,
    SlotRule,
    bleu4,
    bleu_counts,
    bleu_signature,
    nltk_bleu4,
    plain,
    score_text,
    yes_no,
)

PLACES = ("top left", "top", "top right", "left", "middle", "right", "bottom left", "bottom", "bottom right")
# The example of nltk's own documentation of corpus_bleu.
GUIDE = "It is a guide to action which ensures that the military always obeys the commands of the party"
GUIDES = ("It is a guide to action that ensures that the military will forever heed Party commands",
          "It is the guiding principle which guarantees the military forces always being under the command of the Party",
          "It is the practical guide for the army always to heed the directions of the party")
READ = "he read the book because he was interested in world history"
READS = ("he was interested in world history because he read the book",)


def phrases(count: int, seed: int = 0):
    rng = np.random.default_rng(seed)
    words = ["enters", "from", "the", "left", "right", "turns", "towards", "top", "leaves", ","]
    return [" ".join(rng.choice(words, rng.integers(1, 9))) for _ in range(count)]


# BLEU

def test_added_counts_equal_sacrebleus_corpus_score():
    said, wanted = phrases(40, 1), phrases(40, 2)
    said[3], said[5] = "", wanted[5]
    expected = BLEU().corpus_score(said, [wanted]).score / 100
    counts = [bleu_counts(one, [right]) for one, right in zip(said, wanted)]
    assert 0 < expected < 1
    assert bleu4(counts) == pytest.approx(expected, abs=1e-12)
    by_video = [sum(counts[:7]), sum(counts[7:19]), sum(counts[19:])]
    assert bleu4(by_video) == pytest.approx(expected, abs=1e-12)


def test_several_references_equal_sacrebleus_corpus_score():
    said, first, second = phrases(20, 1), phrases(20, 2), phrases(20, 3)
    expected = BLEU().corpus_score(said, [first, second]).score / 100
    assert bleu4([bleu_counts(*row) for row in zip(said, zip(first, second))]) == pytest.approx(expected, abs=1e-12)


def test_the_signature_states_tool_tokeniser_and_smoothing():
    signature = bleu_signature(2)
    assert "nrefs:2|" in signature and "tok:13a" in signature and "smooth:exp" in signature and "case:mixed" in signature


def test_nltks_value_is_the_one_of_its_documentation():
    assert nltk_bleu4([GUIDE, READ], [GUIDES, READS]) == pytest.approx(0.5920778868801042, abs=1e-12)
    assert nltk_bleu4([GUIDE], [GUIDES]) == pytest.approx(0.5045666840058485, abs=1e-12)


def test_nltks_value_without_a_common_four_gram_is_nothing():
    assert nltk_bleu4(["a b c d"], [("a b c e",)]) == 0.0


# Reading answers

@pytest.mark.parametrize(("text", "found"), [("Yes, there is a car.", True), ("no.", False), ("NO", False), ("", None),
                                             ("There is no anomaly", None), ("Nobody", None), ("Yesterday", None)])
def test_yes_and_no_are_read_from_the_first_word(text, found):
    assert yes_no(text) is found


def test_plain_text_has_neither_case_nor_hyphens_nor_punctuation():
    assert plain("From the Top-Left, turns.") == "from the top left turns"


def test_the_longest_term_counts():
    rule = SlotRule("from", "from", PLACES)
    assert rule.facts("from the top-left corner") == {"top left"}
    assert rule.facts("from the top, left") == {"top", "left"} == rule.facts("from the left at the top")
    assert rule.facts("it stopped upright") == set()


def test_terms_may_tell_the_same_fact():
    rule = SlotRule("class", "target", {"van": "car", "car": "car", "hand truck": "hand truck"})
    assert rule.facts("a white van") == rule.facts("A red car.") == {"car"}
    assert rule.facts("pushing a hand-truck") == {"hand truck"} and rule.facts("a caravan") == set()


def test_bound_terms_keep_the_word_that_follows():
    rule = SlotRule("colours", "target", ("red", "blue"), bound=True)
    assert rule.facts("a red top and blue trousers") == {"red top", "blue trousers"}
    assert rule.facts("a red top and blue trousers") != rule.facts("a blue top and red trousers")
    assert rule.facts("it is red.") == {"red"}


# Figures

def answers(slot: str, rows, videos=None):
    return [Answer(f"v{number if videos is None else videos[number]}", slot, said, (wanted,))
            for number, (said, wanted) in enumerate(rows)]


def test_yes_no_figures_by_hand():
    rows = [("Yes, a car.", "Yes.")] * 6 + [("No.", "Yes.")] * 2 + [("no", "No.")] * 1 + [("maybe", "No.")] * 1
    scores = score_text(answers("anomaly", rows), samples=200)
    assert set(scores) == {"yes_no_accuracy", "yes_no_balanced_accuracy"}
    plainly, balanced = scores["yes_no_accuracy"], scores["yes_no_balanced_accuracy"]
    assert plainly.value == pytest.approx(0.7) and balanced.value == pytest.approx((6 / 8 + 1 / 2) / 2)
    assert balanced.detail == {"yes": 8, "no": 2, "right_yes": 6, "right_no": 1, "unreadable": 1}
    assert plainly.base == pytest.approx(0.8) and plainly.n == 10
    assert plainly.low < plainly.value < plainly.high


def test_balanced_accuracy_of_one_class_is_left_out():
    assert set(score_text(answers("anomaly", [("Yes.", "Yes.")] * 3))) == {"yes_no_accuracy"}


def test_slot_figures_by_hand():
    rules = [SlotRule("to", "to", PLACES), SlotRule("colours", "target", ("red", "blue"), bound=True)]
    rows = [("to the top left", "to the top-left"), ("to the top", "to the top left"), ("right", "the right"), ("", "top")]
    looks = [("a man, blue top", "a man with a blue top"), ("a red car", "a car"), ("a red top", "a red jumper")]
    scores = score_text([*answers("to", rows), *answers("target", looks)], rules=rules, samples=50)
    assert scores["slot_to"].value == 0.5 and scores["slot_to"].base == 0.5 and scores["slot_to"].detail["classes"] == 3
    assert scores["slot_colours"].value == 0.5 and scores["slot_colours"].n == 2
    assert scores["slot_colours"].detail["untold"] == 1
    assert {"bleu4_target", "slot_to", "slot_colours"} == set(scores)


def test_bleu_figures_hold_signature_and_nltks_value():
    rows = list(zip(phrases(30, 1), phrases(30, 2)))
    score = score_text(answers("trajectory", rows), samples=50)["bleu4_trajectory"]
    assert score.value == pytest.approx(BLEU().corpus_score(*[[r[0] for r in rows], [[r[1] for r in rows]]]).score / 100)
    assert score.detail["nltk"] == nltk_bleu4([r[0] for r in rows], [(r[1],) for r in rows])
    assert "smooth:exp" in score.detail["signature"] and "nrefs:1" in score.detail["signature"]
    mixed = [Answer("a", "target", "x y", ("x y",)), Answer("b", "target", "x y", ("x y", "y x"))]
    assert score_text(mixed, samples=5)["bleu4_target"].detail["signature"].startswith("nrefs:var|")


def test_intervals_draw_videos_not_answers():
    rows = [("Yes.", "Yes.")] * 20 + [("No.", "Yes.")] * 20
    alone = score_text(answers("anomaly", rows), samples=300)["yes_no_accuracy"]
    together = score_text(answers("anomaly", rows, videos=[0] * 20 + [1] * 20), samples=300)["yes_no_accuracy"]
    assert alone.value == together.value == 0.5
    assert (together.low, together.high) == (0, 1) and 0.3 < alone.low < alone.high < 0.7


def test_an_interval_that_resamples_leave_undefined_is_left_out():
    # one video with yes alone among many with no: most draws of two videos lack a class
    rows = [("Yes.", "Yes."), ("No.", "No.")]
    score = score_text(answers("anomaly", rows), samples=100, seed=1)["yes_no_balanced_accuracy"]
    assert score.value == 1.0 and (score.low is None) == (score.high is None)


def test_bad_input_is_named():
    with pytest.raises(MetricError, match="no answers to score"):
        score_text([])
    with pytest.raises(MetricError, match="v0: the right answer 'A car.' is neither yes nor no"):
        score_text(answers("anomaly", [("Yes.", "A car.")]))
    with pytest.raises(MetricError, match="v0: the right answer 'upwards' holds no to known to the rule"):
        score_text(answers("to", [("top", "upwards")]), rules=[SlotRule("to", "to", PLACES)])
    with pytest.raises(MetricError, match="slot to: wanted is 'top'; give a tuple"):
        Answer("v", "to", "top", "top")
    with pytest.raises(MetricError, match="BLEU-4 is undefined"):
        bleu4([])
