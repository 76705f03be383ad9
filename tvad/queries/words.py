"""What a user asks for in words, as directions in text space: wordings of known events, nearest meaning of others.

A query such as "someone on a bike" is cut into content words; each word goes through the backbone's own text embedding
(``embed_prompts``, as the published prototypes do); the mean of the unit word vectors is the query's direction.  Raw
embedding rows of language models share a few large directions (the cosine of two unrelated sentences is above 0.999 with
the tiny model), so the text space is centred on a reference vocabulary and its strongest common components are taken out
("all but the top", Mu & Viswanath, ICLR 2018).  After that "bicycle" lies near "motorcycle" and far from "jumping".

A query whose words are a wording of a known event means that event (similarity 1).  Any other means what it lies nearest
to, and the similarity is reported, so that a caller can say how far it had to reach.  Words that lie near nothing are an
error, never a guess.
"""
from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from tvad.errors import BackboneError, ParameterError
from tvad.prompts import EmbedsPrompts

WORDINGS: Mapping[str, tuple[str, ...]] = {
    "car": ("car", "van", "vehicle", "a moving car", "a van driving", "a car on the walkway", "a vehicle on the path",
            "a car drives", "automobile", "cart", "driving", "a golf cart", "lorry"),
    "bicycle": ("bicycle", "bike", "cyclist", "a person riding a bicycle", "someone cycling", "cycling",
                "a person on a bike", "a person with a bicycle", "a person pushing a bicycle",
                "a bicycle rider", "a bicycle rides", "bicyclist"),
    "fighting": ("fighting", "fight", "people fighting", "two people fighting", "brawl", "a person fights another",
                 "people hitting each other", "assault", "a scuffle", "punching"),
    "throwing": ("throwing", "a person throwing something", "a person throws a bag", "object being thrown",
                 "a thrown object", "something thrown", "tossing", "an object flies", "throw", "throwing a ball"),
    "hand_truck": ("hand truck", "a person pushing a hand truck", "a hand truck with boxes", "hand truck pushed",
                   "trolley", "dolly", "someone with a trolley", "sack truck", "moving boxes with a hand truck"),
    "running": ("running", "a person running", "someone runs", "runner", "sprinting", "a person runs", "jogging",
                "a running person", "people running"),
    "skateboarding": ("skateboarding", "skateboard", "a person riding a skateboard", "skateboarder", "skater", "skating",
                      "a person on a skateboard", "someone glides", "a skateboard glides"),
    "falling": ("falling", "a person falling", "a person falls", "someone falls down", "fall", "a person falling down",
                "a fallen person", "a person lying on the ground", "someone lies down", "collapsing"),
    "jumping": ("jumping", "a person jumping", "someone jumps", "a person jumps", "leaping", "hopping", "jump",
                "a person jumping up and down", "people jumping"),
    "loitering": ("loitering", "a person loitering", "someone loitering", "a person pacing", "pacing", "lingering",
                  "a person paces", "hanging around", "a person pacing up and down", "lurking"),
    "motorcycle": ("motorcycle", "motorbike", "a person riding a motorcycle", "motorcyclist", "scooter", "moped",
                   "a person on a motorcycle", "a motorcycle driving", "a motorcycle rides"),
    "stroller": ("stroller", "a person pushing a stroller", "pram", "baby carriage", "pushchair", "baby stroller",
                 "someone with a stroller", "a woman pushes a stroller", "buggy"),
}
"""Wordings of the simulated events; the first of each names it."""
NORMAL_WORDINGS: tuple[str, ...] = (
    "people walking", "a person walks", "a person standing", "people talking", "sitting on a bench", "a tree",
    "a parked car", "a parked bicycle", "the ground", "a person with an umbrella", "a person hurrying", "a bench",
)
"""Wordings of what is always there; their mean stands for "none of the events"."""
# Words that name no event, to spread the reference vocabulary beyond the wordings.
_PLAIN = (
    "red blue green yellow white black grey brown orange pink purple left right top bottom middle man woman bag trousers "
    "umbrella bench tree place way number colour picking sits stands talks walks walking standing talking sitting".split())
_FILLERS = frozenset(
    "a an the of on in at to by is are was be being with and his her their its each other another some any up down one two "
    "person people someone somebody something man woman there this that as for from who which it person's object video "
    "clip".split())
ALTERNATIVES = re.compile(r"\s+or\s+|[/,;|]")
LEAST_SIMILARITY = 0.25
_COMMON_SHARE = 256          # one common component for so many dimensions (they advise 100; more cut meaning away here)
_LEAST_PIECE = 2.5           # letters a token


def content_words(text: str) -> tuple[str, ...]:
    """The words that carry meaning, in order, lower case: fillers ("a", "person", "of") go unless nothing else is left."""
    words = tuple(re.findall(r"[^\W\d_]+", text.lower()))
    return tuple(word for word in words if word not in _FILLERS) or words


def legible(backbone: EmbedsPrompts, word: str) -> bool:
    """Whether the backbone's tokenizer knows the word in pieces that can carry meaning, not letter by letter.

    The tiny model's tokenizer spells words it never met; the mean of such letters lies anywhere.  A backbone without a
    tokenizer is taken at its word.
    """
    tokenizer = getattr(backbone, "tokenizer", None)
    if tokenizer is None:
        return True
    return len(word) >= _LEAST_PIECE * len(tokenizer(f" {word}", add_special_tokens=False)["input_ids"])


@dataclass(frozen=True)
class TextSpace:
    """The centred text space: ``mean`` (d,) of the reference words and ``common`` (k, d) their strongest directions.

    ``words`` and ``direction`` give unit vectors, so that dot products are cosines.
    """

    mean: Float[Tensor, " d"]
    common: Float[Tensor, "k d"]

    @classmethod
    def of(cls, backbone: EmbedsPrompts, vocabulary: Sequence[str] | None = None) -> TextSpace:
        """Fit it to a vocabulary, by default the words of all wordings.

        Raises :class:`BackboneError` when the embedding is not finite or tells no words apart.
        """
        words = sorted(set(vocabulary or reference_words()))
        rows = _rows(backbone, [word for word in words if legible(backbone, word)] or words)
        mean = rows.mean(0)
        _, size, directions = torch.linalg.svd(rows - mean, full_matrices=False)
        if not torch.isfinite(rows).all() or size[0] < 1e-9:
            raise BackboneError(f"{backbone.fingerprint}: the text embedding gives the same or no finite vector for all "
                                "words, so nothing can be asked in words; check the model's weights")
        count = max(1, round(rows.shape[1] / _COMMON_SHARE))
        return cls(mean, directions[:count].contiguous())

    def words(self, backbone: EmbedsPrompts, words: Sequence[str]) -> Float[Tensor, "n d"]:
        """Unit vectors of single words (float32, CPU)."""
        rows = _rows(backbone, words) - self.mean
        return F.normalize(rows - rows @ self.common.T @ self.common, dim=-1, eps=1e-6)

    def direction(self, backbone: EmbedsPrompts, words: Sequence[str]) -> Float[Tensor, " d"]:
        """The unit direction of a text's words."""
        return _unit_mean(self.words(backbone, words))


@dataclass(frozen=True)
class Meaning:
    """What one alternative of a query was taken for.

    ``text`` the user's words, ``nearest`` the known event that lies nearest, ``similarity`` their cosine in text space (1
    for a wording of that event), ``known`` whether the words are its own, ``direction`` (d,) of the user's words,
    ``unread`` those of them that the text embedding cannot read.
    """

    text: str
    nearest: str
    similarity: float
    known: bool
    direction: Float[Tensor, " d"]
    unread: tuple[str, ...] = ()

    def __str__(self) -> str:
        if self.known:
            return f"{self.text!r}: the event {self.nearest!r}"
        return f"{self.text!r}: not a known event, nearest {self.nearest!r} (similarity {self.similarity:.2f})"


class EventBook:
    """The events that a decoder knows, by name and wordings, and their prototypes in text space.

    ``prototypes`` (k, d): the unit mean of each event's wordings, in the order of ``names``; ``normal`` (d,) likewise.
    """

    def __init__(self, backbone: EmbedsPrompts, wordings: Mapping[str, Sequence[str]], *, space: TextSpace | None = None,
                 normal: Sequence[str] = NORMAL_WORDINGS) -> None:
        if not wordings or not all(wordings.values()):
            raise ParameterError("events: give at least one event, and for each at least one wording")
        self.backbone, self.wordings = backbone, {name: tuple(texts) for name, texts in wordings.items()}
        self.names, self.space = tuple(self.wordings), space or TextSpace.of(backbone)
        self.directions = {name: self._directions(texts) for name, texts in self.wordings.items()}
        self.prototypes = torch.stack([_unit_mean(rows) for rows in self.directions.values()])
        self.normal_directions = self._directions(normal)
        self.normal = _unit_mean(self.normal_directions)
        self._known = {_key(content_words(text)): name for name, texts in self.wordings.items()
                       for text in (name.replace("_", " "), *texts)}

    def resolve(self, query: str) -> tuple[Meaning, ...]:
        """What a query means, one entry for each of its alternatives ("car or van", "bike, scooter").

        Raises :class:`ParameterError` for an empty query and for words that lie near no known event.
        """
        parts = [part.strip() for part in ALTERNATIVES.split(query.replace("_", " ")) if content_words(part)]
        if not parts:
            raise ParameterError(f"query {query!r}: holds no word; name what to look for, such as {examples()}")
        return tuple(self._meaning(part, query) for part in parts)

    def _meaning(self, text: str, query: str) -> Meaning:
        words = content_words(text)
        name = self._known.get(_key(words))
        if name is not None:
            return Meaning(text, name, 1.0, True, self.prototypes[self.names.index(name)])
        read = [word for word in words if legible(self.backbone, word)]
        if not read:
            raise ParameterError(f"query {query!r}: the text embedding cannot read {', '.join(map(repr, words))}, and no "
                                 f"known event is called so; use other words, such as {examples(self.wordings)}")
        direction = self.space.direction(self.backbone, read)
        best = {name: float((rows @ direction).max()) for name, rows in self.directions.items()}
        nearest = max(best, key=best.get)
        if best[nearest] < LEAST_SIMILARITY:
            raise ParameterError(f"query {query!r}: {text!r} lies near no known event (nearest {nearest!r}, similarity "
                                 f"{best[nearest]:.2f}, below {LEAST_SIMILARITY}); use other words, such as "
                                 f"{examples(self.wordings)}")
        return Meaning(text, nearest, min(1.0, best[nearest]), False, direction, tuple(set(words) - set(read)))

    def _directions(self, texts: Sequence[str]) -> Float[Tensor, "n d"]:
        """The directions of the wordings that can be read; of all of them where none can."""
        words = [content_words(text) for text in texts]
        clear = [part for part in words if all(legible(self.backbone, word) for word in part)]
        return torch.stack([self.space.direction(self.backbone, part) for part in dict.fromkeys(clear or words)])


def _key(words: Sequence[str]) -> tuple[str, ...]:
    """Words without order and without the plural's or the verb's s."""
    return tuple(sorted(word[:-1] if len(word) > 3 and word.endswith("s") and not word.endswith("ss") else word
                        for word in words))


def reference_words() -> tuple[str, ...]:
    """The vocabulary that text space is centred on: every content word of the wordings, and plain words besides."""
    texts = [*(text for texts in WORDINGS.values() for text in texts), *NORMAL_WORDINGS]
    return tuple(dict.fromkeys([*(word for text in texts for word in content_words(text)), *_PLAIN]))


def examples(wordings: Mapping[str, Sequence[str]] = WORDINGS, count: int = 4) -> str:
    """The first wordings of the first few events, for error texts."""
    return ", ".join(repr(texts[0]) for texts in list(wordings.values())[:count])


def _unit_mean(rows: Float[Tensor, "n d"]) -> Float[Tensor, " d"]:
    return F.normalize(rows.mean(0), dim=0, eps=1e-6)


@torch.no_grad()
def _rows(backbone: EmbedsPrompts, words: Sequence[str]) -> Float[Tensor, "n d"]:
    # A leading space: tokenizers know a word in the middle of a sentence apart from one at its start.
    return backbone.embed_prompts([f" {word}" for word in words]).detach().float().cpu()
