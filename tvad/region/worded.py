"""Our second region encoder: it says what the map shows in soft words, which a language model can already read.

A language model that is adapted in q and v alone learns slowly what an unknown vector means, but it can read words.  So
every token here is a mixture of rows of the model's own frozen input embedding, weighted by the probabilities of a small
classifier, in the very sentences (``words.SENTENCES``) whose reading it learned at school.  A thing that is hardly there
is spoken as full stops.  A learned vector for each place in the text, small at first, is added.

The heat is cut into the tracks of its warm things (``objects.py``).  Of each, the path is told from places and sizes at
moments spread over the clip, look and motion from the video tokens where it is warm as well (``facts.py``).  The
classifiers are taught by the known words (:meth:`WordedEncoder.teach`) before the language model's own loss reaches them
through the mixtures.
"""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from tvad.errors import BackboneError, ParameterError
from tvad.region.base import RegionEncoder
from tvad.region.facts import CLIP_FACTS, LOOK_FACTS, PATH_FACTS, RULED, Facts, facts_of
from tvad.region.words import ABSENT, FILL, ORDINALS, SENTENCES, STORY, SUBJECT, THERE, VERDICT, Field, numbers, table

_SURE = 20.0                            # logit for what is not there
_TRUST = 2.0                            # in the rules' words, as logits at the start
_ROLE = 0.005                           # size of the places' own vectors at the start; rows of words are about 0.1
_FIXED = tuple(dict.fromkeys(word for word in SENTENCES if not isinstance(word, Field)))
Story = Sequence[Mapping[str, str]]     # the words of each target of a clip, see ``words.story``


class WordedEncoder(RegionEncoder):
    """1 + things x 61 tokens, whatever the length of the clip; it reads all video tokens of the map's steps.

    things: how many are told.  hidden_width: of the classifiers.  dropout: on what is read from video tokens.
    :meth:`bind` must be called once with the language model that will read the words; a saved encoder knows them.
    """

    variant = "worded"

    def __init__(self, *, text_width: int, things: int = 2, hidden_width: int = 128, dropout: float = 0.3) -> None:
        super().__init__(text_width=text_width)
        if not 1 <= things <= len(ORDINALS) or hidden_width < 1 or not 0 <= dropout < 1:
            raise ParameterError(f"region encoder 'worded': things {things} must be 1 to {len(ORDINALS)}, hidden_width "
                                 f"{hidden_width} positive, dropout {dropout} in [0, 1)")
        self.things, self.hidden_width, self.dropout = things, hidden_width, dropout
        self.looks = 1
        seen = LOOK_FACTS * text_width
        self.path = nn.Sequential(nn.Linear(PATH_FACTS, hidden_width), nn.GELU(), nn.Linear(hidden_width, hidden_width),
                                  nn.GELU(), nn.LayerNorm(hidden_width), nn.Dropout(dropout))
        self.look = nn.Sequential(nn.LayerNorm(seen), nn.Dropout(dropout), nn.Linear(seen, hidden_width), nn.GELU(),
                                  nn.Dropout(dropout))
        self.clip = nn.Linear(CLIP_FACTS, hidden_width)
        # "to" alone would hide a method of the module
        self.heads = nn.ModuleDict({f"{field.name}_": nn.Linear(hidden_width * (1 + field.seen), len(field.words))
                                    for field in STORY if field is not THERE})
        self.heads["there_"] = nn.Linear(3 * hidden_width, len(THERE.words))
        self.heads["verdict_"] = nn.Linear(3 * hidden_width, len(VERDICT.words))
        self.trust = nn.Parameter(torch.full((len(RULED),), _TRUST))      # in what the rules say, as logits
        for field in (VERDICT, *STORY):
            self.register_buffer(f"words_{field.name}", torch.zeros(len(field.words), field.length, text_width))
        self.register_buffer("words_subject", torch.zeros(1 + things, text_width))
        self.register_buffer("words_fixed", torch.zeros(len(_FIXED), text_width))
        self.register_buffer("words_fill", torch.zeros(text_width))
        self.roles = nn.Parameter(torch.randn(self.tokens(1), text_width) * _ROLE)

    def tokens(self, steps: int) -> int:
        return VERDICT.length + self.things * sum(getattr(word, "length", 1) for word in SENTENCES)

    def config(self) -> dict[str, Any]:
        return {**super().config(), "things": self.things, "hidden_width": self.hidden_width, "dropout": self.dropout}

    def flops(self, t: int, h: int, w: int) -> int:
        """As in :class:`RegionEncoder`; cutting the map into things, which is no matrix product, is left out."""
        hidden, n = self.hidden_width, self.things
        trunk = n * hidden * (PATH_FACTS + hidden + LOOK_FACTS * self.text_width) + CLIP_FACTS * hidden
        heads = sum(n * hidden * (1 + field.seen) * len(field.words) for field in STORY if field is not THERE)
        heads += 3 * hidden * (n * len(THERE.words) + len(VERDICT.words))
        spoken = sum(n * len(word.words) * word.length for word in SENTENCES if isinstance(word, Field))
        spoken = self.text_width * (spoken + len(VERDICT.words) * VERDICT.length)
        return 2 * (trunk + heads + spoken)

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
        return facts_of(heatmap, seen, most=self.things)

    def _blank(self, heatmap: Tensor) -> Tensor:
        return heatmap.new_zeros(len(heatmap), heatmap[:1].numel(), self.text_width)

    def read(self, facts: Facts) -> dict[str, Float[Tensor, "b n k"]]:
        """Logits of every field for each thing (b, n, words), of the verdict (b, words)."""
        path, look, whole = self.path(facts.path), self.look(facts.look), self.clip(facts.clip)
        both = torch.cat([path, look], -1)
        logits = {field.name: self.heads[f"{field.name}_"](both if field.seen else path)
                  for field in STORY if field is not THERE}
        said = facts.path[..., PATH_FACTS - sum(len(field.words) for field in RULED):]
        for field, trust, rule in zip(RULED, self.trust, said.split([len(field.words) for field in RULED], -1)):
            logits[field.name] = logits[field.name] + trust * rule
        there = self.heads["there_"](torch.cat([both, whole[:, None].expand_as(path)], -1))
        absent = torch.arange(self.things, device=path.device) >= facts.found[:, None]
        logits["there"] = there + absent[..., None] * there.new_tensor([_SURE, 0.0])
        logits["verdict"] = self.heads["verdict_"](torch.cat([path.amax(1), look.amax(1), whole], -1))
        return logits

    def teach(self, facts: Facts, stories: Sequence[Story], *, seen_too: bool = True) -> Float[Tensor, ""]:
        """Mean over the fields of the cross-entropy of the known words.

        Things and targets are paired, in order, as is likeliest; a thing left over is not there.  seen_too: False where
        nothing is seen but the map (synthetic blobs), which then say nothing of look, motion and verdict.
        """
        logits, device = self.read(facts), facts.path.device
        fields = [field for field in STORY if seen_too or not field.seen]
        losses = []
        if seen_too:
            verdict = torch.tensor([int(bool(told)) for told in stories], device=device)
            losses.append(F.cross_entropy(logits["verdict"], verdict))
        wanted = torch.full((len(stories), self.things, len(fields)), -1, dtype=torch.long)
        chances = {field.name: logits[field.name].detach().log_softmax(-1).cpu() for field in fields}
        for row, told in enumerate(stories):
            found = int(facts.found[row])
            wanted[row, :found, fields.index(THERE)] = THERE.number(ABSENT)
            for thing, target in _paired(told, {name: value[row] for name, value in chances.items()}, found):
                wanted[row, thing] = torch.tensor([field.number(told[target].get(field.name, "")) for field in fields])
        wanted = wanted.to(device)
        for place, field in enumerate(fields):
            known = wanted[..., place] >= 0
            if known.any():
                losses.append(F.cross_entropy(logits[field.name][known], wanted[..., place][known]))
        return torch.stack(losses).mean()

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


def _paired(told: Story, chances: Mapping[str, Tensor], found: int) -> list[tuple[int, int]]:
    """(thing, target) pairs, in the order of both, whose paths are the likeliest."""
    cost = np.zeros((found, len(told)))
    for field in STORY:
        if field.place:
            for target, number in enumerate(numbers(told, field)):
                cost[:, target] -= chances[field.name][:found, number].numpy() if number >= 0 else 0
    count = min(found, len(told))
    ways = [list(zip(things, targets)) for things in combinations(range(found), count)
            for targets in combinations(range(len(told)), count)]
    return min(ways, key=lambda way: sum(cost[pair] for pair in way))
