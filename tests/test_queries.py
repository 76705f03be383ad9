"""Queries in words: text space, wordings of known events, nearest meaning of other words, and errors that say why."""
from __future__ import annotations

import pytest
import torch

from tvad.errors import BackboneError, ParameterError
from tvad.queries.words import (
    NORMAL_WORDINGS,
    WORDINGS,
    EventBook,
    TextSpace,
    content_words,
    legible,
    reference_words,
)
from tvad.scenes.types import EVENTS

BOOK = {"car": ("car", "van", "a car driving"), "bicycle": ("bicycle", "someone cycling", "a person riding a bicycle"),
        "jumping": ("jumping", "someone leaping")}
KIN = {"motorcycle": ("bicycle", 0.8), "lorry": ("car", 0.6), "hopping": ("jumping", 0.7)}
NORMAL = ("walking", "tree")


class Words:
    """Every word a direction of its own, some leaning on another, and over all of them one large common direction."""

    fingerprint, text_width = "words-0", 32

    def embed_prompts(self, sentences):
        return torch.stack([torch.stack([self.row(word) for word in text.split()]).mean(0) for text in sentences])

    def row(self, word):
        row = 20 * torch.ones(self.text_width)
        if word in KIN:
            other, share = KIN[word]
            return share * self.row(other) + (1 - share) * self.own(word) + (1 - share) * row
        return row + self.own(word)

    def own(self, word):
        code = sum(ord(letter) * 31 ** place for place, letter in enumerate(word))
        generator = torch.Generator().manual_seed(code % 2**31)
        return torch.randn(self.text_width, generator=generator)


class Spelling(Words):
    """The same with a tokenizer that knows few words and spells the rest."""

    def tokenizer(self, text, add_special_tokens):
        word = text.strip()
        known = {word for texts in (*BOOK.values(), NORMAL) for part in texts for word in part.split()} | set(KIN)
        return {"input_ids": [0] if word in known - {"van"} else list(range(len(word)))}


@pytest.fixture(scope="module")
def book():
    backbone = Words()
    worded = {word for texts in (*BOOK.values(), NORMAL) for text in texts for word in content_words(text)}
    return EventBook(backbone, BOOK, normal=NORMAL, space=TextSpace.of(backbone, sorted({*KIN, *worded, *"pqrstuvw"})))


def test_every_simulated_event_has_wordings_that_no_other_event_has():
    assert set(WORDINGS) == set(EVENTS)
    owners: dict = {}
    for name, texts in WORDINGS.items():
        assert len(texts) >= 8 and len(set(texts)) == len(texts)
        for text in texts:
            assert owners.setdefault(tuple(sorted(content_words(text))), name) == name, text
    assert not {tuple(sorted(content_words(text))) for text in NORMAL_WORDINGS} & set(owners)
    assert len(reference_words()) == len(set(reference_words())) > 100


def test_fillers_go_unless_nothing_else_is_left():
    assert content_words("A person riding the Bicycle, in red!") == ("riding", "bicycle", "red")
    assert content_words("a person") == ("a", "person") and content_words(" 12 ?! ") == ()


def test_text_space_takes_the_common_direction_away():
    backbone = Words()
    space = TextSpace.of(backbone, [chr(97 + place) * 3 for place in range(26)] + list(KIN))
    raw = torch.nn.functional.normalize(backbone.embed_prompts(["car", "jumping"]), dim=1)
    ours = space.words(backbone, ["car", "jumping"])
    assert raw[0] @ raw[1] > 0.99 and abs(float(ours[0] @ ours[1])) < 0.7
    torch.testing.assert_close(ours.norm(dim=1), torch.ones(2))
    torch.testing.assert_close(ours @ space.common.T, torch.zeros(2, len(space.common)), atol=1e-5, rtol=0)


def test_an_embedding_that_tells_no_words_apart_is_refused():
    flat = Words()
    flat.embed_prompts = lambda sentences: torch.ones(len(sentences), 32)
    with pytest.raises(BackboneError, match="words-0: the text embedding gives the same or no finite vector"):
        TextSpace.of(flat)


def test_a_wording_means_its_event_in_any_order_case_and_number(book):
    for query in ("bicycle", "Bicycles", "riding a BICYCLE", "a person riding a bicycle.", "someone cycling"):
        (meaning,) = book.resolve(query)
        assert (meaning.nearest, meaning.similarity, meaning.known) == ("bicycle", 1.0, True), query
        assert torch.equal(meaning.direction, book.prototypes[book.names.index("bicycle")])
    assert str(book.resolve("van")[0]) == "'van': the event 'car'"


def test_the_name_of_an_event_means_it_although_no_wording_has_it():
    backbone = Words()
    book = EventBook(backbone, {"hand_truck": ("trolley",)}, space=TextSpace.of(backbone), normal=NORMAL)
    assert book.resolve("hand_truck")[0].known and book.resolve("Hand trucks")[0].known


def test_other_words_mean_what_they_lie_nearest_to_and_say_how_near(book):
    (meaning,) = book.resolve("motorcycle")
    assert meaning.nearest == "bicycle" and not meaning.known and 0.5 < meaning.similarity < 1
    rows = book.directions["bicycle"]
    assert meaning.similarity == pytest.approx(float((rows @ meaning.direction).max()), abs=1e-6)
    assert str(meaning) == f"'motorcycle': not a known event, nearest 'bicycle' (similarity {meaning.similarity:.2f})"
    assert book.resolve("hopping")[0].nearest == "jumping"


def test_alternatives_are_meant_one_by_one(book):
    assert [m.nearest for m in book.resolve("bicycle or van")] == ["bicycle", "car"]
    assert [m.nearest for m in book.resolve("car/jumping, motorcycle | ")] == ["car", "jumping", "bicycle"]


@pytest.mark.parametrize("query", ["", "   ", "?!", "1234", " or ", "/"])
def test_an_empty_query_is_refused_with_examples(book, query):
    with pytest.raises(ParameterError, match="holds no word; name what to look for, such as 'car', 'bicycle'"):
        book.resolve(query)


def test_words_near_nothing_are_refused_with_the_nearest_and_the_bar(book):
    far = -book.prototypes.mean(0)
    book_far = EventBook(book.backbone, BOOK, space=book.space, normal=NORMAL)
    book_far.space = type("Far", (), {"direction": staticmethod(lambda backbone, words: far / far.norm())})
    with pytest.raises(ParameterError, match=r"query 'zig zag': 'zig zag' lies near no known event \(nearest '\w+', "
                                             r"similarity -\d\.\d\d, below 0.25\); use other words, such as 'car'"):
        book_far.resolve("zig zag")


def test_words_that_the_tokenizer_only_spells_mean_nothing_unless_they_are_a_wording():
    backbone = Spelling()
    assert legible(backbone, "bicycle") and not legible(backbone, "asdfgh") and legible(Words(), "asdfgh")
    book = EventBook(backbone, BOOK, space=TextSpace.of(Words()), normal=NORMAL)
    assert book.resolve("vans")[0].known
    with pytest.raises(ParameterError, match="query 'a blorb qqq': the text embedding cannot read 'blorb', 'qqq', and no "
                                             "known event is called so; use other words"):
        book.resolve("a blorb qqq")
    (meaning,) = book.resolve("blorb motorcycle")
    assert meaning.nearest == "bicycle" and meaning.unread == ("blorb",)
    # what can only be spelled has no say in its event's prototype
    assert len(book.directions["car"]) == 2 and len(EventBook(Words(), BOOK, space=book.space).directions["car"]) == 3


def test_a_book_needs_events_with_wordings(book):
    for wordings in ({}, {"car": ()}):
        with pytest.raises(ParameterError, match="give at least one event, and for each at least one wording"):
            EventBook(book.backbone, wordings, space=book.space)
