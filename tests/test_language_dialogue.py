"""Conversations read as English, say only what is true, and hold their truth by slot."""
from __future__ import annotations

import re
from dataclasses import replace

import pytest

from tvad.language import phrasings
from tvad.language.appearance import OBJECTS, Look
from tvad.language.dialogue import STYLES, ClipFacts, Conversation, Target, conversations
from tvad.language.english import _DOUBTS, _LIGHTS, _MOTIONS, _PLACES, English
from tvad.language.grammar import parse
from tvad.language.phrasings import CORE, LEAST, SLOTS, Language, LanguageError, expand, language
from tvad.language.surroundings import Surroundings
from tvad.language.timeline import SPEEDS, Leg, Timeline
from tvad.scenes.layouts import TEMPLATES
from tvad.scenes.types import EVENTS, MOTIONS

ENGLISH = language("en")


def timeline(origin="right", destination="left", way="left", *, entry=0, leave=15, speed="fast") -> Timeline:
    begins, ends = "starts" if entry == 0 else "appears", "stays" if leave == 15 else "disappears"
    return Timeline(entry, leave, (origin,) * (leave - entry) + (destination,), (Leg(way, entry, leave + 1),), origin,
                    destination, speed, None, begins, ends)


CYCLIST = Look("bicycle", "man", "red", "blue", hat="cap", carries=("backpack",), object="bicycle", object_colour="white")
VAN = Look("car", "van", object="van", object_colour="grey")
FALLER = Look("falling", "woman", "orange", "black")
AROUND = Surroundings("plaza", "sun", {"tree": 2, "bench": 1, "parked_bicycle": 3}, 4, ("walking", "hurrying"))


def facts(*targets: Target, around: Surroundings | None = AROUND, video="v1") -> ClipFacts:
    return ClipFacts(video, 14, 30, 10.0, "simcampus", "train", "scene00", targets, around)


ONE = facts(Target(timeline(), CYCLIST, ("riding",)))
TWO = facts(Target(timeline(), CYCLIST, ("riding",)),
            Target(timeline("top", "top", "stop", entry=4, leave=9, speed="still"), FALLER, ("falling", "lying")))
NORMAL = facts()


def every(clip: ClipFacts, count: int = 40) -> list[Conversation]:
    return [talk for seed in range(count) for talk in conversations(clip, seed=seed)]


def answers(talks: list[Conversation], slot: str, style: str | None = None) -> set[str]:
    return {answer for talk in talks for name, _, answer in talk.turns() if name == slot and style in (None, talk.style)}


# -- wordings --------------------------------------------------------------------------------------------------------------

def test_patterns_are_written_out():
    assert expand("(a|b) c(| d)") == ("a c", "a c d", "b c", "b c d")
    assert expand("x ((a|b) y|z)") == ("x a y", "x z", "x b y", "x z") and expand("plain {slot}") == ("plain {slot}",)


@pytest.mark.parametrize("pattern", ["(a|b", "a|b", "a)"])
def test_a_broken_pattern_is_named(pattern):
    with pytest.raises(LanguageError, match=re.escape(f"pattern {pattern!r}: stray")):
        expand(pattern)


@pytest.mark.parametrize("slot", SLOTS)
def test_every_slot_has_twenty_wordings_and_more(slot):
    assert len(ENGLISH.wordings("questions", slot)) >= LEAST
    told = [name for name in ENGLISH.sentences if name.partition("_")[0] == slot]
    assert bool(told) == (slot != "report")     # the report is one line of short answers, never a sentence
    assert all(len(ENGLISH.wordings("sentences", name)) >= LEAST for name in told)


def fault(text: str, *, asks: bool) -> str:
    """What is wrong with the shape of a wording, "" for nothing."""
    faults = {
        "spaces": r"^ | $|  | [.,:;?]", "marks": r"[.,:;?][.,:;?]|[,:;][^ ]", "capital": r"(?<![.?] )(?<!^)\b(?!I\b)[A-Z]",
        "doubled": r"\b(\w+) \1\b", "facts": r"\{\W|\{\}|\w\}\w|\w\{(?!nth)", "start": r"^[^A-Za-z{]",
        "end": r"[^.?]$" if asks else r"[^.]$",
        "question": r"^(What|Who|Which|How|When|Why|Is|Does|Do|Can|From where)\b[^?]*$"}
    return next((name for name, pattern in faults.items() if re.search(pattern, text)), "")


def test_no_wording_is_misshapen():
    for table in ("questions", "sentences"):
        for slot in getattr(ENGLISH, table):
            found = {text: fault(text, asks=table == "questions") for text in ENGLISH.wordings(table, slot)}
            assert not {text: name for text, name in found.items() if name}


@pytest.mark.parametrize(("text", "name"), [
    ("It is  here.", "spaces"), ("It is here .", "spaces"), (" It is here.", "spaces"), ("It is here,.", "marks"),
    ("Here,it is.", "marks"), ("Here, The picture shows it.", "capital"), ("It is in in the clip.", "doubled"),
    ("It is {} here.", "facts"), ("{name}is here.", "facts"), ("- it is here.", "start"), ("It is here", "end"),
    ("Is it here?", "end"), ("What is it.", "question"), ("It is here.", ""), ("{name} is {at}.", ""),
])
def test_a_misshapen_wording_is_seen(text, name):
    assert fault(text, asks=name == "question") == name


def test_places_lights_and_speeds_read_as_english():
    looks = {speed: facts(Target(timeline("top", "top", "stop", speed=speed), FALLER, ("lying",))) for speed in SPEEDS}
    said = {text for speed in SPEEDS for text in answers(every(looks[speed]), "speed", "sentences")}
    still = answers(every(looks["still"]), "speed", "sentences")
    assert len(still) >= 10 and all(re.search("hardly|scarcely|barely", text) for text in still)
    for place in _PLACES:
        assert _PLACES[place].startswith(("a ", "an "))
        for light in _LIGHTS:
            phrase = English().surroundings(Surroundings(place, light, {"tree": 2}))
            said |= {text.format(place=phrase) for text in ENGLISH.wordings("sentences", "environment")}
    assert len(said) > 100
    for text in said:
        assert not re.search(r"\b(is|there is) (paths|steps|crossing paths)", text), text
        assert not re.search(r"\b(goes|gets|along) (hardly|along hardly)", text), text


def test_from_and_to_ask_for_places_first_and_last_and_not_for_a_way():
    for slot, said in (("from", r"come at first\?$|start\?$"), ("to", r"in the end\?$")):
        for text in ENGLISH.wordings("questions", slot):
            assert text.startswith(slot.capitalize()) and re.search(said, text) and "side" not in text, text


def test_an_unknown_language_is_named():
    with pytest.raises(LanguageError, match="unknown language 'xx'; known: en"):
        conversations(ONE, seed=0, code="xx")


def test_another_language_is_another_table(monkeypatch):
    class Loud(English):
        def sentence(self, text):
            return text.upper()

    table = Language(ENGLISH.questions, ENGLISH.sentences, ENGLISH.short, ENGLISH.cue, Loud())
    monkeypatch.setitem(phrasings.LANGUAGES, "loud", table)
    assert {text for talk in conversations(ONE, seed=0, code="loud", styles=("turns",))
            for _, ask, say in talk.turns() for text in (ask, say) if text != text.upper()} == set()


def test_everything_has_a_word():
    assert set(_MOTIONS) >= {*MOTIONS, "getting_up"} and set(_DOUBTS) == set(EVENTS) and set(_PLACES) == set(TEMPLATES)
    say = English()
    for kind, things in OBJECTS.items():
        look = Look(kind, things[0] if kind == "car" else "man", object=(*things, "")[0])
        assert say.reason(look, ("riding",)) and say.name(look, ("riding",)).startswith("the ")
        assert " ." not in say.target(look, ("riding",)) and "  " not in say.target(look, ("riding",))
    assert all(say.pace(timeline(speed=speed)) for speed in SPEEDS)


@pytest.mark.parametrize(("look", "motions", "short", "full"), [
    (CYCLIST, ("riding",), "a person in a red top and blue trousers riding a white bicycle",
     "a man in a cap, a red top and blue trousers with a backpack riding a white bicycle"),
    (CYCLIST, ("pushing",), "a person in a red top and blue trousers pushing a white bicycle", None),
    (FALLER, ("falling", "lying"), "a person in an orange top and black trousers falling, then lying on the ground", None),
    (VAN, ("driving",), "a grey van", "a grey van"),
    (Look("throwing", top="red", bottom="blue", object="ball", object_colour="orange"), ("throwing", "standing"),
     "a person in a red top and blue trousers throwing an orange ball", None),
    (Look("throwing", top="red", bottom="blue", object="ball", object_colour="orange"), ("standing",),
     "a person in a red top and blue trousers after throwing an orange ball", None),
    (Look("loitering", top="red", bottom="blue"), ("pacing",), "a person in a red top and blue trousers loitering", None),
    (Look("hand_truck", object="hand truck with boxes", object_colour="grey"), ("pushing",),
     "a person pushing a grey hand truck with boxes", None),
    (None, ("moving",), "a target", "a target"),
])
def test_looks_in_words(look, motions, short, full):
    assert English().target(look, motions) == short
    if full:
        assert English().target(look, motions, full=True) == full


# -- what is said ----------------------------------------------------------------------------------------------------------

def test_the_paper_s_conversation_in_canonical_answers():
    (talk,) = conversations(ONE, seed=0, styles=("turns",))
    assert [(slot, answer) for slot, _, answer in talk.turns()][:6] == [
        ("anomaly", "Yes."), ("target", "A person in a red top and blue trousers riding a white bicycle."),
        ("motion", "Riding."), ("from", "From the right."), ("to", "To the left."),
        ("trajectory", "Starts at the right, moves towards the left, stays in view at the left.")]
    assert talk.slots == {
        "anomaly": "yes", "target": "a person in a red top and blue trousers riding a white bicycle", "class": "bicycle",
        "colours": "red top, blue trousers, white bicycle", "motion": "riding", "from": "right", "to": "left",
        "trajectory": "starts at the right, moves towards the left, stays in view at the left", "speed": "fast",
        "begins": "0.0", "ends": "1.6"}
    assert talk.targets[0]["top"] == "red" and talk.targets[0]["carries"] == "backpack"
    assert (talk.video, talk.start, talk.stop, talk.anomalous) == ("v1", 14, 30, True)


def test_the_report_holds_all_slots_in_one_line():
    line = "Yes; a person in a red top and blue trousers riding a white bicycle; riding; from the right; to the left."
    assert answers(every(ONE), "report") == {line}
    assert answers(every(TWO), "report") == {
        "Yes; first, " + line[5:-1] + "; second, a person in an orange top and black trousers falling, then lying on the "
        "ground; falling, then lying on the ground; from the top; to the top."}
    assert answers(every(NORMAL), "report") == {"No."}


def test_several_targets_are_each_spoken_of():
    talks = every(TWO)
    assert answers(talks, "from", "turns") == {"First, from the right; second, from the top."}
    assert answers(talks, "motion", "turns") == {"First, riding; second, falling, then lying on the ground."}
    assert talks[0].slots["class"] == "bicycle; falling" and len(talks[0].targets) == 2
    assert all("first target" in said and "second target" in said for said in answers(talks, "to", "sentences"))
    asked = {ask for talk in talks for slot, ask, _ in talk.turns() if slot in CORE[2:]}
    assert not [ask for ask in asked if re.search(r"\b(it|its|does|is|target)\b", ask)]


def test_an_answer_in_sentences_tells_the_canonical_one_too():
    for talk in conversations(ONE, seed=3, styles=("sentences",)):
        asked, said = talk.messages[0], talk.messages[1]
        assert "entences" in asked["content"][1]["text"] and said["references"] == ["Yes."]
    assert len(answers(every(ONE), "motion", "sentences")) >= LEAST - 3
    # The wording never takes the truth away.
    assert all("riding" in text for text in answers(every(ONE), "motion", "sentences"))
    assert all("red top and blue trousers" in text for text in answers(every(ONE), "target", "sentences"))


def test_open_questions_are_answered_from_the_facts():
    talks = every(ONE)
    assert answers(talks, "when", "turns") == {"From the start to the end."}
    assert answers(talks, "why", "turns") == {"A bicycle is ridden where people walk."}
    assert answers(talks, "people", "turns") == {"Four."}
    assert answers(talks, "activity", "turns") == {"Walking and hurrying."}
    assert answers(talks, "speed", "turns") == {"Fast."}
    assert answers(talks, "details", "turns") == {"A cap and a backpack."}
    assert answers(talks, "environment", "turns") == {
        "A paved square before a building in the sun with trees, a bench and parked bicycles."}
    assert answers(every(TWO), "why", "turns") == {
        "A bicycle is ridden where people walk and somebody falls and may be hurt."}
    late = facts(Target(timeline(entry=3, leave=11), CYCLIST, ("riding",)))
    assert answers(every(late), "when", "turns") == {"From 0.3 s to 1.2 s."}


def test_normal_clips_are_told_honestly_hard_ones_too():
    talks = every(NORMAL)
    assert answers(talks, "anomaly", "turns") == {"No."} and answers(talks, "target", "turns") == {"None."}
    assert answers(talks, "normality", "turns") == {"Only walking and hurrying."}
    assert answers(talks, "probe", "turns") == {"No; somebody hurries but does not run.",
                                                "No; every bicycle in view is parked."}
    assert {talk.slots["anomaly"] for talk in talks} == {"no"} and {talk.slots["motion"] for talk in talks} == {"none"}
    for talk in talks:
        for slot, ask, _ in talk.turns():
            if slot == "probe":
                assert "somebody running" in ask or "somebody with a bicycle" in ask
    empty = facts(around=Surroundings("parking", "dark"))
    assert answers(every(empty), "normality", "turns") == {"Nobody is there."}
    assert answers(every(empty), "people", "turns") == {"None."} and not answers(every(empty), "activity")


def test_a_lookalike_is_not_denied_where_the_thing_itself_may_be():
    # A cyclist too small to be a target rides through: nobody may say that all bicycles are parked.
    talks = every(facts(around=replace(AROUND, events=frozenset({"bicycle"}))))
    assert answers(talks, "probe", "turns") == {"No; somebody hurries but does not run."}
    assert "Yes; a person in a red top and blue trousers riding a white bicycle." in answers(every(
        facts(ONE.targets[0], around=replace(AROUND, events=frozenset({"bicycle"})))), "probe", "turns")


def test_a_motorcycle_beside_a_parked_car_is_no_reason_to_say_no():
    rider = Look("motorcycle", "man", "red", "blue", object="motorcycle", object_colour="black")
    around = replace(AROUND, things={"parked_car": 2}, doings=("walking",), events=frozenset({"motorcycle"}))
    for clip in (facts(Target(timeline(), rider, ("riding",)), around=around), facts(around=around)):
        denied = {ask for talk in every(clip) for slot, ask, say in talk.turns()
                  if slot == "probe" and not re.match("Yes|Indeed", say)}
        assert denied and all("a moving car, van or cart" in ask and "vehicle" not in ask for ask in denied)


def test_what_nobody_asked_about_is_not_denied():
    seen = replace(CYCLIST, hat="", carries=())
    assert answers(every(facts(Target(timeline(), seen, ("riding",)))), "details", "turns") == {"Nothing else."}
    asked = {ask for talk in every(facts(Target(timeline(), seen, ("riding",)))) for slot, ask, _ in talk.turns()
             if slot == "details"}
    assert asked and all(re.search("besides|in addition", ask) for ask in asked)    # clothes have been told
    open_look = replace(seen, accessories_known=False)
    for targets in ((open_look,), (CYCLIST, open_look)):
        clip = facts(*(Target(timeline(), look, ("riding",)) for look in targets))
        assert not answers(every(clip), "details")


def test_targets_that_do_not_overlap_in_time_have_each_their_span():
    def when(*spans, fps=10.0):
        clip = facts(*(Target(timeline(entry=entry, leave=leave), CYCLIST, ("riding",)) for entry, leave in spans))
        return answers(every(replace(clip, fps=fps)), "when", "turns")

    assert when((12, 15), (0, 3)) == {"From the start to 0.4 s and from 1.2 s to the end."}
    assert when((0, 3), (2, 8), (9, 15)) == {"From the start to the end."}
    assert when((0, 3), (6, 8), (7, 10), (13, 15)) == {
        "From the start to 0.4 s, from 0.6 s to 1.1 s and from 1.3 s to the end."}
    assert when((0, 7), (9, 15), fps=30.0) == {"From the start to the end."}     # a gap of 0.03 s cannot be told


def test_who_comes_straight_at_the_camera_has_no_speed_told():
    still = facts(Target(timeline("top", "top", "stop", speed="still"), CYCLIST, ("riding",)))
    assert not answers(every(still), "speed")
    lying = facts(Target(timeline("top", "top", "stop", speed="still"), FALLER, ("lying",)))
    assert answers(every(lying), "speed", "turns") == {"Hardly at all."}


def test_an_open_appearance_leaves_no_gap_and_no_guess():
    clip = ClipFacts("Test001", 0, 16, 10.0, "ucsd_ped2", "test", "", (Target(replace(timeline(), motion="moving")),), None)
    talks = every(clip)
    asked = {slot for talk in talks for slot, _, _ in talk.turns()}
    assert asked == {"anomaly", "motion", "from", "to", "trajectory", "when", "speed"}
    assert talks[0].slots["target"] == talks[0].slots["class"] == "none" and talks[0].slots["motion"] == "moving"
    assert answers(talks, "motion", "turns") == {"Moving."}


def test_the_same_seed_says_the_same_and_another_something_else():
    assert conversations(TWO, seed=1) == conversations(TWO, seed=1)
    one, other = (conversations(TWO, seed=seed, styles=("sentences",))[0] for seed in (1, 2))
    assert one.messages != other.messages and one.slots == other.slots


def test_all_text_reads_as_sentences():
    for clip in (ONE, TWO, NORMAL):
        for talk in every(clip, 40):
            for _, ask, say in talk.turns():
                for text in (ask, say):
                    assert text[0].isupper() or text[0].isdigit(), text
                    assert text[-1] in ".?" and not re.search(r"[{}|()]|  | \.| ,|\.\.|\bnone\b", text), text
                    assert not re.search(r"\ba [aeio]\w|\ban [^aeiouh]", text), text


def test_rows_come_back_as_they_were_and_all_have_the_same_keys():
    talks = [talk for clip in (ONE, TWO, NORMAL) for talk in conversations(clip, seed=0)]
    assert [Conversation.from_dict(talk.as_dict()) for talk in talks] == talks
    assert [talk.style for talk in talks[:3]] == list(STYLES)
    assert len({tuple(sorted(talk.slots)) for talk in talks}) == 1
    assert len({tuple(sorted(target)) for talk in talks for target in talk.targets}) == 1
    for talk in talks:
        assert all(set(message) == {"role", "slot", "references", "content"} for message in talk.messages)
        assert [message["role"] for message in talk.messages] == ["user", "assistant"] * (len(talk.messages) // 2)
        assert parse(talk.slots["trajectory"].split("; ")[0]) if talk.anomalous else True


def test_messages_pass_the_chat_template_with_one_video():
    from tvad.backbones.pretrain.tiny import make_tokenizer

    tokenizer = make_tokenizer(["Yes; a person in a red top"])
    for talk in conversations(TWO, seed=0):
        text = tokenizer.apply_chat_template(list(talk.messages), tokenize=False)
        assert text.count("<|video_pad|>") == 1 and text.index("<|video_pad|>") < text.index(talk.turns()[0][1])
        assert all(f"<|im_start|>assistant\n{answer}<|im_end|>" in text for _, _, answer in talk.turns())
