"""Our second region encoder: it says what the map shows in soft words, which a language model already can read.

A language model that is adapted in q and v alone learns slowly what an unknown vector means, but it can read words.  So
every token here is a mixture of rows of the model's own frozen input embedding, weighted by the probabilities of a small
classifier, plus a learned vector that says which field it is:

    verdict | there begins from from way way ends to to motion motion top bottom colour thing thing | the second thing ...

The heat is cut into the tracks of its warm things (``objects.py``).  Of each, the path is read from places and sizes at
steps spread over the clip; look and motion from the video tokens where it is warm.  The classifiers can be
taught by the known words (:meth:`WordedEncoder.teach`) beside the language model's own loss, which reaches them through
the mixtures.
"""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import permutations
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from tvad.errors import BackboneError, ParameterError
from tvad.region.base import RegionEncoder
from tvad.region.objects import STEP_FACTS, warm_things
from tvad.region.words import STORY, THERE, VERDICT, numbers, table

_MARKS = 8                  # moments at which a track is looked up, spread over the clip
_ENDS = 2 * 7 + 5           # first and last box, when, way between
_CLIP = 6                   # facts of the whole map
_LEAST = 1e-4
Story = Sequence[Mapping[str, str]]     # the words of each target of a clip, see ``words.story``


class WordedEncoder(RegionEncoder):
    """1 + things x 16 tokens, whatever the length of the clip.

    things: how many are told.  hidden_width: of the classifiers.  dropout: on what is read from video tokens.
    :meth:`bind` must be called once with the language model that will read the words; a saved encoder knows them.
    """

    variant = "worded"

    def __init__(self, *, text_width: int, things: int = 2, hidden_width: int = 128, dropout: float = 0.3) -> None:
        super().__init__(text_width=text_width)
        if min(things, hidden_width) < 1 or not 0 <= dropout < 1:
            raise ParameterError(f"region encoder 'worded': things {things} and hidden_width {hidden_width} must be positive, "
                                 f"dropout {dropout} in [0, 1)")
        self.things, self.hidden_width, self.dropout = things, hidden_width, dropout
        self.looks = 1
        facts, seen = STEP_FACTS * _MARKS + _ENDS, 3 * text_width
        self.path = nn.Sequential(nn.Linear(facts, hidden_width), nn.GELU(), nn.Linear(hidden_width, hidden_width),
                                  nn.GELU(), nn.LayerNorm(hidden_width))
        self.look = nn.Sequential(nn.LayerNorm(seen), nn.Dropout(dropout), nn.Linear(seen, hidden_width), nn.GELU(),
                                  nn.Dropout(dropout))
        self.clip = nn.Linear(_CLIP, hidden_width)
        self.heads = nn.ModuleDict({f"{field.name}_": nn.Linear(hidden_width * (1 + field.seen), len(field.words))
                                    for field in STORY if field is not THERE})
        self.heads["there_"] = nn.Linear(3 * hidden_width, len(THERE.words))
        self.heads["verdict_"] = nn.Linear(3 * hidden_width, len(VERDICT.words))
        for field in (VERDICT, *STORY):
            self.register_buffer(f"words_{field.name}", torch.zeros(len(field.words), field.length, text_width))
        self.roles = nn.Parameter(torch.randn(self.tokens(1), text_width) * 0.05)

    @property
    def told(self) -> int:
        """Tokens of one thing."""
        return sum(field.length for field in STORY)

    def tokens(self, steps: int) -> int:
        return VERDICT.length + self.things * self.told

    def config(self) -> dict[str, Any]:
        return {**super().config(), "things": self.things, "hidden_width": self.hidden_width, "dropout": self.dropout}

    def flops(self, t: int, h: int, w: int) -> int:
        """As in :class:`RegionEncoder`; cutting the map into things, which is no matrix product, is left out."""
        hidden, n = self.hidden_width, self.things
        trunk = n * hidden * (STEP_FACTS * _MARKS + _ENDS + hidden + 3 * self.text_width) + _CLIP * hidden
        heads = sum(n * hidden * (1 + field.seen) * len(field.words) for field in STORY if field is not THERE)
        heads += 3 * hidden * (n * len(THERE.words) + len(VERDICT.words))
        spoken = self.text_width * (sum(n * len(field.words) * field.length for field in STORY) + len(VERDICT.words))
        return 2 * (trunk + heads + spoken)

    def bind(self, tokenizer: Any, rows: Float[Tensor, "v d"]) -> None:
        """Take the words' rows of a language model's input embedding. Raises :class:`BackboneError` for another width."""
        if rows.shape[1] != self.text_width:
            raise BackboneError(f"region encoder 'worded': the embedding is {rows.shape[1]} wide, the tokens {self.text_width}")
        for field in (VERDICT, *STORY):
            made = table(field, tokenizer, rows, capital=field is VERDICT)
            getattr(self, f"words_{field.name}").copy_(made)

    def read(self, heatmap: Float[Tensor, "b t h w"], seen: Float[Tensor, "b m d"]) -> dict[str, Float[Tensor, "b n k"]]:
        """Logits of every field for each thing (b, n, words), of the verdict (b, words)."""
        self._check(heatmap, seen)
        with torch.autocast(heatmap.device.type, enabled=False):
            return self._read(heatmap.float(), seen.float())[0]

    def teach(self, heatmap: Float[Tensor, "b t h w"], seen: Float[Tensor, "b m d"], stories: Sequence[Story], *,
              seen_too: bool = True) -> Float[Tensor, ""]:
        """Mean cross-entropy of the known words. Things and targets are paired, in order, as costs least; a thing left
        over is not there. seen_too: False where nothing is seen but the map (synthetic blobs)."""
        self._check(heatmap, seen)
        with torch.autocast(heatmap.device.type, enabled=False):
            logits, found = self._read(heatmap.float(), seen.float())
        fields = [field for field in STORY if seen_too or not field.seen]
        verdict = torch.tensor([int(bool(told)) for told in stories], device=heatmap.device)
        losses = [F.cross_entropy(logits["verdict"], verdict)]
        wanted = torch.full((len(stories), self.things, len(fields)), -1, dtype=torch.long)
        with torch.no_grad():
            chances = {field.name: logits[field.name].log_softmax(-1).cpu() for field in fields}
        for row, told in enumerate(stories):
            wanted[row, :, 0] = 0
            paired = self._paired(fields, told, {name: value[row] for name, value in chances.items()}, found[row])
            for thing, target in paired:
                for place, field in enumerate(fields):
                    wanted[row, thing, place] = field.number(told[target].get(field.name, ""))
            wanted[row, found[row]:] = -1
        wanted = wanted.to(heatmap.device)
        for place, field in enumerate(fields):
            known = wanted[..., place] >= 0
            if known.any():
                losses.append(F.cross_entropy(logits[field.name][known], wanted[..., place][known]))
        return torch.stack(losses).mean()

    def _paired(self, fields, told: Story, chances: Mapping[str, Tensor], found: int) -> list[tuple[int, int]]:
        """(thing, target) pairs that keep the order of both."""
        places = [field for field in fields if field.name in ("from", "to", "way", "begins", "ends")]
        cost = np.zeros((found, len(told)))
        for field in places:
            for target, number in enumerate(numbers(told, field)):
                if number >= 0:
                    cost[:, target] -= chances[field.name][:found, number].numpy()
        count = min(found, len(told))
        ways = [list(zip(things, targets)) for things in permutations(range(found), count)
                for targets in permutations(range(len(told)), count) if list(things) == sorted(things)]
        return min(ways, key=lambda way: sum(cost[pair] for pair in way)) if count else []

    def _tokens(self, heatmap: Tensor, seen: Tensor | None) -> Tensor:
        logits, _ = self._read(heatmap, seen)
        spoken = [torch.einsum("bnk,kld->bnld", logits[field.name].softmax(-1), getattr(self, f"words_{field.name}"))
                  for field in STORY]
        verdict = torch.einsum("bk,kld->bld", logits["verdict"].softmax(-1), self.words_verdict)
        return torch.cat([verdict, torch.cat(spoken, 2).flatten(1, 2)], 1) + self.roles

    def _read(self, heatmap: Tensor, seen: Tensor) -> tuple[dict[str, Tensor], list[int]]:
        facts, views, clip, found = self._facts(heatmap, seen)
        path, look, whole = self.path(facts), self.look(views), self.clip(clip)
        both = torch.cat([path, look], -1)
        logits = {field.name: self.heads[f"{field.name}_"](both if field.seen else path) for field in STORY if field is not THERE}
        logits["there"] = self.heads["there_"](torch.cat([both, whole[:, None].expand_as(path)], -1))
        logits["verdict"] = self.heads["verdict_"](torch.cat([path.amax(1), look.amax(1), whole], -1))
        absent = torch.arange(self.things, device=heatmap.device) >= torch.tensor(found, device=heatmap.device)[:, None]
        logits["there"] = logits["there"] + absent[..., None] * logits["there"].new_tensor([20.0, 0.0])
        return logits, found

    @torch.no_grad()
    def _facts(self, heatmap: Tensor, seen: Tensor) -> tuple[Tensor, Tensor, Tensor, list[int]]:
        """Facts (b, n, f) and views (b, n, 3 d) of things, facts of the clip (b, c), and how many things there are."""
        b, t, h, w = heatmap.shape
        side = round((t * h * w / seen.shape[1]) ** 0.5)
        tokens = seen.view(b, t, h // side, w // side, -1)
        mean = tokens.mean((1, 2, 3))
        facts = np.zeros((b, self.things, STEP_FACTS * _MARKS + _ENDS), np.float32)
        views, found = mean.new_zeros(b, self.things, 3 * seen.shape[-1]), []
        for row, heat in enumerate(heatmap.cpu().numpy()):
            things = warm_things(heat, most=self.things)
            found.append(len(things))
            for number, thing in enumerate(things):
                facts[row, number] = _told(thing.facts)
                own = torch.from_numpy(thing.heat).to(seen)
                own = own.view(t, h // side, side, w // side, side).amax((2, 4))
                share = own / own.sum()
                hot = tokens[row][own > 0.3 * own.max()].amax(0)
                views[row, number] = torch.cat([(tokens[row] * share[..., None]).sum((0, 1, 2)), hot, mean[row]])
        heat = heatmap.flatten(1)
        top = heat.topk(min(5, heat.shape[1]), 1).values
        peaks = heatmap.amax((2, 3))
        clip = torch.stack([torch.logit(top[:, 0], _LEAST), torch.logit(top.mean(1), _LEAST), torch.logit(heat.mean(1), _LEAST),
                            torch.logit(peaks.mean(1), _LEAST), torch.logit(peaks.amin(1), _LEAST),
                            (heat > 0.5).float().mean(1).sqrt() * 10], 1) / 5
        return torch.from_numpy(facts).to(heatmap), views, clip, found


def _told(facts: np.ndarray) -> np.ndarray:
    """A track's facts at ``_MARKS`` moments of the clip, then of its first and last step."""
    steps = len(facts)
    marks = np.linspace(0, steps - 1, _MARKS).round().astype(int)
    there = np.flatnonzero(facts[:, 0] > 0)
    first, last = there[0], there[-1]
    way = facts[last, 1:3] - facts[first, 1:3]
    ends = np.concatenate([facts[first, 1:8], facts[last, 1:8], way, [first / steps, (steps - 1 - last) / steps,
                                                                      len(there) / steps]])
    return np.concatenate([facts[marks].ravel(), ends]).astype(np.float32)
