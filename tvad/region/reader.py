"""The worded encoder's classifiers: facts of warm things to logits of the words of their stories, and how these are taught.

Each field is read from that alone in which it shows, since a few hundred targets teach little: places and ways from the
path, where what the texts' own rules say counts before anything learned; colours from the views, which ordinary people
teach as well; thing and motion from the video tokens, and yes or no from the heat of the whole clip, by logistic
regressions, which are fitted once (:meth:`Reader.fit`); to thing and motion a trained classifier adds its opinion.
"""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from tvad.region.facts import CLIP_FACTS, LOOK_FACTS, VIEW, VIEWS, Facts
from tvad.region.paths import OUTLINES, PATH_FACTS, RULE_FACTS, RULED
from tvad.region.words import ABSENT, STORY, THERE, VERDICT, Field, numbers

Story = Sequence[Mapping[str, str]]     # the words of each target of a clip, see ``words.story``
_SURE = 20.0            # logit for what is not there
_TRUST = {"way": 2.0}   # in the rules' words, as logits at the start
_USUAL = 8.0
_WEIGHTY = 2.0          # logits by the logarithm of a thing's share of the heat of the strongest, at the start
_DOUBT = 0.0            # logit against the right half of a thing as another
_FIGHTING = next(field for field in STORY if field.name == "motion").number("fighting")
_DIM, _SPREAD = 0.4, 0.25   # of the views' numbers, 0 to 1
_EYE = (24, 48)         # channels of what looks at the views
_FITTED = {"motion": 0.03, "thing": 0.03, "verdict": 1.0}   # inverse strength of the regressions' penalty
_TWICE = tuple(field for field in STORY if field.name in _FITTED)       # said by a trained classifier as well
_NEVER = -12.0          # bias of a word that no clip was told with


class Reader(nn.Module):
    """Classifiers of ``things`` things with video tokens of ``text_width``; see the module's head."""

    def __init__(self, *, text_width: int, things: int, hidden_width: int, dropout: float) -> None:
        super().__init__()
        self.things, self.hidden_width, self.text_width = things, hidden_width, text_width
        self.path = nn.Sequential(nn.Linear(PATH_FACTS, hidden_width), nn.GELU(), nn.Linear(hidden_width, hidden_width),
                                  nn.GELU(), nn.LayerNorm(hidden_width), nn.Dropout(dropout))
        seen, cells = LOOK_FACTS * text_width, VIEW[1] * VIEW[2] // 16
        self.look = nn.Sequential(nn.LayerNorm(seen), nn.Dropout(dropout), nn.Linear(seen, hidden_width), nn.GELU(),
                                  nn.Dropout(dropout))
        self.eye = nn.Sequential(nn.Conv2d(VIEW[0], _EYE[0], 3, padding=1), nn.GELU(), nn.AvgPool2d(2),
                                 nn.Conv2d(*_EYE, 3, padding=1), nn.GELU(), nn.AvgPool2d(2), nn.Flatten(),
                                 nn.Dropout(dropout), nn.Linear(_EYE[1] * cells, hidden_width), nn.GELU())
        # "to" alone would hide a method of the module
        self.heads = nn.ModuleDict({f"{field.name}_": nn.Linear(self._width(field), len(field.words))
                                    for field in (*STORY, VERDICT)})
        self.second = nn.ModuleDict({f"{field.name}_": nn.Linear(2 * hidden_width, len(field.words)) for field in _TWICE})
        for name in _FITTED:
            nn.init.zeros_(self.heads[f"{name}_"].weight)
        trust = torch.tensor([_TRUST.get(field.name, _USUAL) for field in RULED]) / len(OUTLINES)
        self.weighty = nn.Parameter(torch.tensor(_WEIGHTY))    # in the thing with the most heat, as logits
        self.trust = nn.Parameter(trust.repeat(len(OUTLINES), 1))       # in what the rules say, by outline and field

    def _width(self, field: Field) -> int:
        """Of how many numbers a field is told."""
        if field is VERDICT:
            return CLIP_FACTS
        told = sum(len(other.words) for other in _TWICE)
        if field is THERE:
            return self.hidden_width + told
        if field.name in _FITTED:
            return LOOK_FACTS * self.text_width
        return self.hidden_width * (1 + field.dress)

    def flops(self) -> int:
        """Multiply-adds of one clip."""
        hidden, n = self.hidden_width, self.things
        trunk = hidden * (PATH_FACTS + hidden)
        eye = LOOK_FACTS * self.text_width * hidden
        eye += VIEWS * VIEW[1] * VIEW[2] * (9 * VIEW[0] * _EYE[0] + 9 * _EYE[0] * _EYE[1] // 4 + _EYE[1] * hidden // 16)
        heads = sum(self._width(field) * len(field.words) for field in STORY)
        heads += sum(2 * hidden * len(field.words) for field in _TWICE)
        return n * (trunk + eye + heads) + CLIP_FACTS * len(VERDICT.words)

    def forward(self, facts: Facts, *, taught: bool = False) -> dict[str, Float[Tensor, "b n k"]]:
        """Logits of every field for each thing (b, n, words), of the verdict (b, words).

        Motion and thing are the mean of two opinions; ``taught``: of that alone which is trained by steps.
        """
        path, look = self.path(facts.path), self.look(facts.look)
        logits = self._paths(facts, path) | self._dress(look, facts.views)
        for field in _TWICE:
            own = self.second[f"{field.name}_"](torch.cat([path, look], -1))
            logits[field.name] = own if taught else (own + self.heads[f"{field.name}_"](facts.look)) / 2
        seen = torch.cat([logits[field.name].detach().softmax(-1) for field in _TWICE], -1)
        there = self.heads["there_"](torch.cat([path, seen], -1))
        there = there + self.weighty * facts.share[..., None] * there.new_tensor([0.0, 1.0])
        number = torch.arange(self.things, device=there.device)
        fight = logits["motion"][:, :1, _FIGHTING].detach() - _others(logits["motion"][:, :1].detach())
        half = torch.minimum(fight - _DOUBT, there[:, :1, 1] - there[:, :1, 0])     # of the whole that is halved
        half = half[..., None] * there.new_tensor([0.0, 1.0])
        there = torch.where((number >= facts.found[:, None])[..., None], half, there)
        absent = (number >= facts.told[:, None])[..., None]
        logits["there"] = there - absent * there.new_tensor([0.0, _SURE])
        logits["verdict"] = self.heads["verdict_"](facts.clip)
        return logits

    def paths(self, facts: Facts) -> dict[str, Float[Tensor, "b n k"]]:
        """Logits of the fields that are of the path."""
        return self._paths(facts, self.path(facts.path))

    def _paths(self, facts: Facts, path: Float[Tensor, "b n d"]) -> dict[str, Float[Tensor, "b n k"]]:
        logits = {}
        said = facts.path[..., PATH_FACTS - len(OUTLINES) * RULE_FACTS:].unflatten(-1, (len(OUTLINES), RULE_FACTS))
        rules = said.split([len(field.words) for field in RULED], -1)
        for field, trust, rule in zip(RULED, self.trust.unbind(1), rules):
            logits[field.name] = self.heads[f"{field.name}_"](path) + trust @ rule
        return logits

    def _dress(self, look: Float[Tensor, "*n d"], views: Float[Tensor, "*n k 4 r c"]) -> dict[str, Float[Tensor, "*n k"]]:
        """Logits of the colours, from the tokens and the mean of what is seen in a thing's views."""
        eye = self.eye((views.flatten(0, -4) - _DIM) / _SPREAD).view(*views.shape[:-3], -1).mean(-2)
        trunk = torch.cat([look, eye], -1)
        return {field.name: self.heads[f"{field.name}_"](trunk) for field in STORY if field.dress}

    # Teaching

    def teach(self, facts: Facts, wanted: Mapping[str, Int[Tensor, "b n"]], *, seen_too: bool = True) -> Float[Tensor, ""]:
        """Mean over the fields of the cross-entropy of the ``wanted`` words, without what is fitted.

        seen_too: False where nothing is seen but the map, which then teaches the path alone.
        """
        logits, losses = self(facts, taught=True) if seen_too else self.paths(facts), []
        for field in STORY:
            if field.name not in logits:
                continue
            own = wanted[field.name].to(facts.path.device)
            known = own >= 0
            if known.any():
                losses.append(F.cross_entropy(logits[field.name][known], own[known]))
        return torch.stack(losses).mean() if losses else 0.0 * self.trust.sum()

    def teach_dress(self, look: Float[Tensor, "n v"], views: Float[Tensor, "n k 4 r c"],
                    wanted: Mapping[str, Int[Tensor, " n"]]) -> Float[Tensor, ""]:
        """Mean cross-entropy of the clothes of people whose looks are known, ordinary ones too."""
        logits = self._dress(self.look(look), views)
        return torch.stack([F.cross_entropy(logits[name], words.to(look.device), ignore_index=-1)
                            for name, words in wanted.items()]).mean()

    @torch.no_grad()
    def fit(self, facts: Facts, stories: Sequence[Story]) -> None:
        """Fit motion and thing of the things that are targets, and the verdict; what has fewer than two words stays.

        Each clip counts once, for those who fight are two, and halves are left out.
        """
        verdicts = np.array([int(bool(told)) for told in stories])
        self._fit(VERDICT, facts.clip.cpu().numpy(), verdicts)
        wanted = self.wanted(facts, stories)
        for field in STORY:
            if field.name in _FITTED:
                known = (wanted[field.name] >= 0) & (torch.arange(self.things) < facts.found.cpu()[:, None])
                weights = (1 / torch.tensor([max(1, len(told)) for told in stories]))[:, None].expand(known.shape)
                self._fit(field, facts.look.cpu()[known].numpy(), wanted[field.name][known].numpy(), weights[known].numpy())

    @torch.no_grad()
    def _fit(self, field: Field, facts: Float[np.ndarray, "n f"], words: Int[np.ndarray, " n"],
             weights: Float[np.ndarray, " n"] | None = None) -> None:
        from sklearn.linear_model import LogisticRegression
        from threadpoolctl import threadpool_limits

        known = np.unique(words)
        if len(known) < 2:
            return
        mean, spread = facts.mean(0), facts.std(0) + 1e-6
        model = LogisticRegression(C=_FITTED[field.name], max_iter=300)
        with threadpool_limits(1):      # so small a fit takes up to 80 times as long where threads wait for each other
            model.fit((facts - mean) / spread, words, sample_weight=weights)
        weight, bias = model.coef_ / spread, model.intercept_
        if len(known) == 2:      # it gives the second word's alone
            weight, bias = np.concatenate([-weight, weight]) / 2, np.concatenate([-bias, bias]) / 2
        head = self.heads[f"{field.name}_"]
        head.weight.zero_()
        head.bias.fill_(_NEVER)
        head.weight[known] = torch.as_tensor(weight, dtype=torch.float32, device=head.weight.device)
        head.bias[known] = torch.as_tensor(bias - weight @ mean, dtype=torch.float32, device=head.weight.device)

    @torch.no_grad()
    def wanted(self, facts: Facts, stories: Sequence[Story]) -> dict[str, Int[Tensor, "b n"]]:
        """The word of each field that each thing should be told with, -1 where nothing is known.

        Things and targets are paired, in order, as the paths read make likeliest; a thing left over is not there.
        """
        logits = self.paths(facts)
        shape = (len(stories), self.things)
        wanted = {field.name: torch.full(shape, -1, dtype=torch.long) for field in STORY}
        chances = {field.name: logits[field.name].detach().log_softmax(-1).cpu() for field in RULED}
        for row, told in enumerate(stories):
            found, most = int(facts.found[row]), int(facts.told[row])
            wanted["there"][row, :most] = THERE.number(ABSENT)
            found = most if len(told) > found else found     # a half is a target only where there are several
            for thing, target in _paired(told, {name: value[row] for name, value in chances.items()}, found):
                for field in STORY:
                    wanted[field.name][row, thing] = field.number(told[target].get(field.name, ""))
        return wanted


def _others(motions: Float[Tensor, "*n k"]) -> Float[Tensor, "*n"]:
    """The logit of any motion but fighting."""
    return torch.cat([motions[..., :_FIGHTING], motions[..., _FIGHTING + 1:]], -1).logsumexp(-1)


def _paired(told: Story, chances: Mapping[str, Tensor], found: int) -> list[tuple[int, int]]:
    """(thing, target) pairs, in the order of both, whose paths are the likeliest."""
    cost = np.zeros((found, len(told)))
    for field in RULED:
        for target, number in enumerate(numbers(told, field)):
            cost[:, target] -= chances[field.name][:found, number].numpy() if number >= 0 else 0
    count = min(found, len(told))
    ways = [list(zip(things, targets)) for things in combinations(range(found), count)
            for targets in combinations(range(len(told)), count)]
    return min(ways, key=lambda way: sum(cost[pair] for pair in way))
