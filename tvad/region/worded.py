"""Our second region encoder: it says what the map shows in soft words, which a language model can already read.

A language model that is adapted in q and v alone learns slowly what an unknown vector means, but it can read words.  So
every token here is a mixture of rows of the model's own frozen input embedding, weighted by the probabilities of a small
classifier, in the very sentences (``words.SENTENCES``) whose reading it learned at school.  A thing that is hardly there
is spoken as full stops.  A learned vector for each place in the text, small at first, is added.

The heat is cut into the tracks of its warm things (``objects.py``).  Of each, the path is told from places and sizes at
moments spread over the clip (``paths.py``), thing and motion from the video tokens where it is warm, colours from the
pixels there (``paint.py``).  The classifiers (``reader.py``) are taught by the known words before the language model's own
loss reaches them through the mixtures.
"""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from tvad.errors import BackboneError, ParameterError
from tvad.region.base import RegionEncoder
from tvad.region.facts import Facts, facts_of
from tvad.region.geometry import Geometry
from tvad.region.reader import Reader, Story
from tvad.region.words import ABSENT, FILL, ORDINALS, SENTENCES, STORY, SUBJECT, THERE, VERDICT, Field, table

_ROLE = 0.005                           # size of the places' own vectors at the start; rows of words are about 0.1
_FIXED = tuple(dict.fromkeys(word for word in SENTENCES if not isinstance(word, Field)))


class WordedEncoder(RegionEncoder):
    """1 + things x 61 tokens, whatever the length of the clip; it reads all video tokens of the map's steps.

    things: how many are told.  hidden_width: of the classifiers.  dropout: on what is read from video tokens.
    :meth:`bind` must be called once with the language model that will read the words; a saved encoder knows them.
    """

    variant = "worded"
    painted = True

    def __init__(self, *, text_width: int, things: int = 2, hidden_width: int = 128, dropout: float = 0.3, patch: int = 14,
                 patch_frames: int = 2, every: int = 1) -> None:
        super().__init__(text_width=text_width)
        if not 1 <= things <= len(ORDINALS) or hidden_width < 1 or not 0 <= dropout < 1:
            raise ParameterError(f"region encoder 'worded': things {things} must be 1 to {len(ORDINALS)}, hidden_width "
                                 f"{hidden_width} positive, dropout {dropout} in [0, 1)")
        self.things, self.hidden_width, self.dropout = things, hidden_width, dropout
        self.geometry = Geometry(patch, patch_frames, every)
        self.looks = 1
        self.reader = Reader(text_width=text_width, things=things, hidden_width=hidden_width, dropout=dropout)
        for field in (VERDICT, *STORY):
            self.register_buffer(f"words_{field.name}", torch.zeros(len(field.words), field.length, text_width))
        self.register_buffer("words_subject", torch.zeros(1 + things, text_width))
        self.register_buffer("words_fixed", torch.zeros(len(_FIXED), text_width))
        self.register_buffer("words_fill", torch.zeros(text_width))
        self.roles = nn.Parameter(torch.randn(self.tokens(1), text_width) * _ROLE)

    def tokens(self, steps: int) -> int:
        return VERDICT.length + self.things * sum(getattr(word, "length", 1) for word in SENTENCES)

    def config(self) -> dict[str, Any]:
        return {**super().config(), "things": self.things, "hidden_width": self.hidden_width, "dropout": self.dropout,
                **asdict(self.geometry)}

    def flops(self, t: int, h: int, w: int) -> int:
        """As in :class:`RegionEncoder`; cutting the map into things, which is no matrix product, is left out."""
        spoken = sum(self.things * len(word.words) * word.length for word in SENTENCES if isinstance(word, Field))
        spoken = self.text_width * (spoken + len(VERDICT.words) * VERDICT.length)
        return 2 * (self.reader.flops() + spoken)

    def bind(self, tokenizer: Any, rows: Float[Tensor, "v d"]) -> None:
        """Take the words' rows of a language model's input embedding. Raises :class:`BackboneError` for another width."""
        if rows.shape[1] != self.text_width:
            raise BackboneError(f"region encoder 'worded': the embedding is {rows.shape[1]} wide, its tokens are "
                                f"{self.text_width}; make the encoder for this language model")
        for field in (VERDICT, *STORY):
            getattr(self, f"words_{field.name}").copy_(table(field.words, field.length, tokenizer, rows))
        self.words_subject.copy_(table((SUBJECT, *ORDINALS[:self.things]), 1, tokenizer, rows)[:, 0])
        self.words_fixed.copy_(table(_FIXED, 1, tokenizer, rows)[:, 0])
        self.words_fill.copy_(table((FILL,), 1, tokenizer, rows)[0, 0])

    def taught(self) -> list[str]:
        """Names of the parameters that :meth:`teach` trains: all but the fields' own vectors."""
        return [name for name, _ in self.named_parameters() if name != "roles"]

    def forward(self, heatmap: Float[Tensor, "b t h w"],
                seen: Float[Tensor, "b m d"] | None = None) -> Float[Tensor, "b n d"]:
        """As in :class:`RegionEncoder`; without ``seen`` there is nothing to be seen but the map."""
        return super().forward(heatmap, self._blank(heatmap) if seen is None else seen)

    def facts(self, heatmap: Float[Tensor, "b t h w"], seen: Float[Tensor, "b m d"] | None = None) -> Facts:
        """What the classifiers read of some clips; no weights enter, so it may be kept."""
        seen = self._blank(heatmap) if seen is None else seen
        self._check(heatmap, seen)
        return facts_of(heatmap, seen, width=self.text_width, most=self.things, geometry=self.geometry)

    def _blank(self, heatmap: Tensor) -> Tensor:
        return heatmap.new_zeros(len(heatmap), heatmap[:1].numel(), self.text_width)

    def read(self, facts: Facts) -> dict[str, Float[Tensor, "b n k"]]:
        """Logits of every field for each thing (b, n, words), of the verdict (b, words)."""
        return self.reader(facts)

    def _tokens(self, heatmap: Tensor, seen: Tensor | None) -> Tensor:
        return self._spoken({name: value.softmax(-1) for name, value in self.read(self.facts(heatmap, seen)).items()})

    def recite(self, stories: Sequence[Story], *, doubt: Sequence[float]) -> Float[Tensor, "b n d"]:
        """The tokens of known stories, as of maps whose words were found; what a story leaves open is any word.

        doubt: what share of each clip's words is said of all words alike.
        """
        chances: dict[str, Tensor] = {}
        unsure = torch.tensor(list(doubt), device=self.roles.device)[:, None]
        for field in STORY:
            made = torch.zeros(len(stories), self.things, len(field.words), device=self.roles.device)
            for row, told in enumerate(stories):
                for thing, words in enumerate(told[:self.things]):
                    number = field.number(words.get(field.name, ""))
                    made[row, thing] = 1 / len(field.words) if number < 0 else made[row, thing]
                    made[row, thing, number] = 1.0 if number >= 0 else made[row, thing, number]
                if field is THERE:
                    made[row, len(told):, field.number(ABSENT)] = 1.0
            share = 0.0 if field is THERE else unsure[..., None]
            chances[field.name] = (1 - share) * made + share / len(field.words)
        yes = torch.tensor([[0.0, 1.0] if told else [1.0, 0.0] for told in stories], device=self.roles.device)
        chances["verdict"] = (1 - unsure) * yes + unsure / 2
        return self._spoken(chances)

    def _spoken(self, chances: Mapping[str, Tensor]) -> Tensor:
        verdict = torch.einsum("bk,kld->bld", chances["verdict"], self.words_verdict)
        there = chances["there"][..., 1]        # one that is doubtful fades, which tells yes from no better than a word
        several = ((there.sum(1, keepdim=True) - there).clamp(0, 1) * there)[..., None]
        subject = (1 - several) * self.words_subject[0] + several * self.words_subject[1:]
        said = []
        for word in SENTENCES:
            if isinstance(word, Field):
                said.append(torch.einsum("bnk,kld->bnld", chances[word.name], getattr(self, f"words_{word.name}")))
            else:
                fixed = subject if word == SUBJECT else self.words_fixed[_FIXED.index(word)].expand_as(subject)
                said.append(fixed[:, :, None])
        told = torch.cat(said, 2)
        told = there[..., None, None] * told + (1 - there)[..., None, None] * self.words_fill
        return torch.cat([verdict, told.flatten(1, 2)], 1) + self.roles
