"""Our own region encoder: t + 4 tokens (more with looks) that say where the heat is, in coordinates.

The published encoders make a place readable only through the order of their tokens (see ``published.py``), need 80 to
140 tokens for eight steps, and see a target that stands still badly or not at all.  Here:

- The place of a step is a soft-argmax: the heatmap's odds to a learned power, normalised over the map.  It works on
  odds because the heat of a small target may stay far below one half and yet far above its surroundings.
- A step's facts are numbers that a linear layer can turn into words: coordinates (plain and as sines), extent, velocity,
  the share of the weight in each cell of the 3x3 grid that the texts speak of, the hottest odds of each cell (several
  targets), level of heat absolute and against the clip's hottest step, time, and pooled convolutions of the map, its
  difference and the coordinates.
- Four more tokens sum the track up: the step where the heat first stands out, the one where it last does, the mean over
  the steps where it does, and the way between (difference of last and first, share of the steps).  "First" is soft:
  presence of the step times absence before it.  They pass through the same layers as the steps, so that one reading of
  a place serves "from", "to" and every moment between.
- With ``looks`` that many more tokens are the clip's hottest video tokens themselves, with their place and step: what is
  there, as the language model already reads it, from where the heat is.

Measured on synthetic tracks, one seed (``python -m tvad.region --clips 300 --held-out 100 --steps 60 --grid 8 12``), R2
of a ridge probe on untrained tokens for origin / destination, then share of the 3x3 cells named after 60 training steps:
located 0.89 / 0.87, 0.71 / 0.64; thesis 0.36 / 0.41, 0.08 / 0.14; paper -0.03 / -0.22, 0.08 / 0.13.  Sixty steps say how
fast a place is learned, not what the published encoders reach in the end.
"""
from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from tvad.errors import ParameterError
from tvad.region.base import RegionEncoder

CELLS = 3
SUMMARIES = ("first", "last", "whole", "way")
_LEAST = 1e-6  # heat is clamped to this far from 0 and 1
_SCALE = -math.log(_LEAST)
_WAVES = (1.0, 2.0, 4.0)
_NUMBERS = 3 + 4 + 2 + 2 * CELLS**2 + 4 * len(_WAVES) + 3  # facts of a step besides pooled convolutions
_LOOKED = 4 + 4 * len(_WAVES)  # facts of a look: log-odds, step, place plain and as waves


class LocatedEncoder(RegionEncoder):
    """Tokens in the order: one a step, then first, last, whole, way, then the looks, hottest first.

    hidden_width: middle of the readout.  channels: of the two convolutions.  sharpness: power of the odds at the start.
    looks: how many of the hottest video tokens to add (forward then wants them).  rank: of their learned correction.
    scale: root mean square of the tokens at the start; about that of the video tokens, beside which they stand.
    """

    variant = "located"

    def __init__(
        self, *, text_width: int, hidden_width: int = 128, channels: int = 16, sharpness: float = 2.0,
        looks: int = 0, rank: int = 32, scale: float = 1.0,
    ) -> None:
        super().__init__(text_width=text_width)
        if min(hidden_width, channels, rank) < 1 or looks < 0 or not sharpness > 0 or not scale > 0:
            raise ParameterError(f"region encoder 'located': hidden_width {hidden_width}, channels {channels}, rank "
                                 f"{rank}, sharpness {sharpness} and scale {scale} must be positive, looks {looks} not "
                                 "negative")
        self.hidden_width, self.channels, self.looks, self.rank = hidden_width, channels, looks, rank
        self.log_sharpness = nn.Parameter(torch.tensor(math.log(sharpness)))
        self.presence = nn.Parameter(torch.tensor([2.0, 2.0]))  # slope; margin in log-odds below the hottest step
        self.backbone = nn.Sequential(nn.Conv2d(4, channels, 3, padding=1), nn.ReLU(),
                                      nn.Conv2d(channels, channels, 3, padding=1), nn.ReLU())
        facts = _NUMBERS + 2 * channels
        self.read = nn.Sequential(nn.Linear(facts, hidden_width), nn.GELU(), nn.Linear(hidden_width, hidden_width),
                                  nn.GELU(), nn.LayerNorm(hidden_width))
        self.way = nn.Sequential(nn.Linear(2 * facts + 1, hidden_width), nn.GELU(), nn.LayerNorm(hidden_width))
        self.out = nn.Linear(hidden_width, text_width, bias=False)
        nn.init.normal_(self.out.weight, std=scale / math.sqrt(hidden_width))
        self.base_prompt = nn.Parameter(torch.randn(1 + len(SUMMARIES) + bool(looks), text_width) * scale)
        if looks:
            self.look_down = nn.Linear(text_width, rank, bias=False)
            self.look_up = nn.Linear(rank, text_width, bias=False)
            nn.init.zeros_(self.look_up.weight)  # the video tokens as they are, until training says otherwise
            self.look_place = nn.Linear(_LOOKED, text_width, bias=False)
            nn.init.normal_(self.look_place.weight, std=scale / math.sqrt(_LOOKED))

    def tokens(self, steps: int) -> int:
        return steps + len(SUMMARIES) + self.looks

    def flops(self, t: int, h: int, w: int) -> int:
        """As in :class:`RegionEncoder`; sums along one axis and the choice of looks are left out."""
        hidden, facts = self.hidden_width, _NUMBERS + 2 * self.channels
        pixels, rows = t * h * w, t + len(SUMMARIES) - 1
        convolved = 2 * 9 * pixels * self.channels * (4 + self.channels)
        cells = 2 * t * CELLS * (h * w + CELLS * w) + 2 * pixels * self.channels  # masses of the cells; pooling
        summed = 2 * 3 * t * facts
        read = 2 * rows * hidden * (facts + hidden) + 2 * hidden * (2 * facts + 1)
        out = 2 * (rows + 1) * hidden * self.text_width
        looked = 2 * self.looks * self.text_width * (2 * self.rank + _LOOKED)
        return convolved + cells + summed + read + out + looked

    def config(self) -> dict[str, Any]:
        return {**super().config(), "hidden_width": self.hidden_width, "channels": self.channels, "looks": self.looks,
                "rank": self.rank}

    def weights(self, heatmap: Float[Tensor, "b t h w"]) -> Float[Tensor, "b t h w"]:
        """Where each step's heat is: the odds to the learned power, summing to 1 over the step's map."""
        return (self.log_sharpness.exp() * _log_odds(heatmap.float())).flatten(2).softmax(-1).view(heatmap.shape)

    def present(self, heatmap: Float[Tensor, "b t h w"]) -> Float[Tensor, "b t"]:
        """How far each step's hottest odds stand out against the clip's, 0 to 1; always high at the hottest step."""
        peak = _log_odds(heatmap.float()).amax((2, 3))
        return self._presence(peak)

    def _presence(self, peak: Float[Tensor, "b t"]) -> Float[Tensor, "b t"]:
        slope, margin = self.presence
        return torch.sigmoid(slope * (peak - peak.amax(1, keepdim=True) + margin))

    def _tokens(self, heatmap: Tensor, seen: Tensor | None) -> Tensor:
        odds = _log_odds(heatmap)
        facts, presence, weights = self._facts(heatmap, odds)
        absent_before = F.pad((1 - presence).cumprod(1)[:, :-1], (1, 0), value=1.0)
        absent_after = F.pad((1 - presence).flip(1).cumprod(1)[:, :-1], (1, 0), value=1.0).flip(1)
        shares = torch.stack([presence * absent_before, presence * absent_after, presence], 1)
        shares = shares / shares.sum(-1, keepdim=True).clamp_min(1e-6)
        summed = shares @ facts
        first, last, whole = summed.unbind(1)
        way = self.way(torch.cat([last - first, whole, presence.mean(1, keepdim=True)], 1))[:, None]
        hidden = torch.cat([self.read(torch.cat([facts, summed], 1)), way], 1)
        steps, roles = heatmap.shape[1], self.base_prompt
        base = torch.cat([roles[:1].expand(steps, -1), roles[1:1 + len(SUMMARIES)]])
        tokens = self.out(hidden) + base
        if seen is None:
            return tokens
        return torch.cat([tokens, self._looked(odds, seen) + roles[-1:]], 1)

    def _facts(self, heatmap: Tensor, odds: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Facts (b, t, f), presence (b, t) and weights (b, t, h, w)."""
        b, t, h, w = heatmap.shape
        weights = self.weights(heatmap)
        peak = odds.amax((2, 3))
        presence = self._presence(peak)
        y, x = _axis(h, heatmap), _axis(w, heatmap)
        rows, columns = weights.sum(3), weights.sum(2)
        place = torch.stack([columns @ x, rows @ y], -1)
        spread = torch.stack([columns @ x.square(), rows @ y.square()], -1) - place.square()
        extent = spread.clamp_min(1e-6).sqrt()
        step = torch.cat([torch.zeros_like(place[:, :1]), place.diff(dim=1)], 1)
        step = step * (presence * presence.roll(1, 1))[..., None]  # a jump from nowhere is no motion
        cells = (_membership(h, heatmap).T @ weights @ _membership(w, heatmap)).flatten(2)
        hottest = F.adaptive_max_pool2d(odds, CELLS).flatten(2) / _SCALE
        waves = _waves(place)
        levels = torch.stack([peak / _SCALE, presence, heatmap.mean((2, 3)).clamp_min(_LEAST).log() / _SCALE], -1)
        when = _axis(t, heatmap)
        time = torch.stack([when, (math.pi / 2 * when).sin(), (math.pi / 2 * when).cos()], -1).expand(b, -1, -1)
        pooled = self._convolved(odds / _SCALE, weights, y, x)
        return torch.cat([levels, place, extent, step, cells, hottest, waves, time, pooled], -1), presence, weights

    def _convolved(self, odds: Tensor, weights: Tensor, y: Tensor, x: Tensor) -> Tensor:
        b, t, h, w = odds.shape
        change = torch.cat([torch.zeros_like(odds[:, :1]), odds.diff(dim=1)], 1)
        places = torch.stack([y[:, None].expand(h, w), x.expand(h, w)]).expand(b * t, 2, h, w)
        maps = torch.cat([torch.stack([odds, change], 2).flatten(0, 1), places], 1)
        features = self.backbone(maps).flatten(2)
        here = features @ weights.flatten(0, 1).flatten(1)[..., None]
        return torch.cat([here[..., 0], features.mean(2)], -1).unflatten(0, (b, t))

    def _looked(self, odds: Tensor, seen: Tensor) -> Tensor:
        """The hottest video tokens of the clip, corrected by a learned low-rank map, with their places."""
        b, t, h, w = odds.shape
        side = round((t * h * w / seen.shape[1]) ** 0.5)
        merged = odds.unflatten(3, (w // side, side)).unflatten(2, (h // side, side)).amax((3, 5))
        heat, at = merged.flatten(1).topk(self.looks)
        view = seen.gather(1, at[..., None].expand(-1, -1, seen.shape[2]))
        step, row, column = at // (h // side * (w // side)), at // (w // side) % (h // side), at % (w // side)
        place = torch.stack([_axis(w // side, odds)[column], _axis(h // side, odds)[row]], -1)
        when = _axis(t, odds)[step]
        facts = torch.cat([heat[..., None] / _SCALE, when[..., None], place, _waves(place)], -1)
        return view + self.look_up(self.look_down(view)) + self.look_place(facts)


def _waves(place: Tensor) -> Tensor:
    """Sines and cosines of coordinates, flat."""
    angles = math.pi / 2 * place[..., None] * place.new_tensor(_WAVES)
    return torch.cat([angles.sin(), angles.cos()], -1).flatten(-2)


def _log_odds(heatmap: Tensor) -> Tensor:
    return torch.logit(heatmap.clamp(_LEAST, 1 - _LEAST))


def _axis(count: int, like: Tensor) -> Tensor:
    """Centres of ``count`` bins on -1 to 1."""
    return (torch.arange(count, device=like.device, dtype=like.dtype) * 2 + 1) / count - 1


def _membership(count: int, like: Tensor) -> Tensor:
    """(count, 3): which third each bin's centre lies in, by the rule of the texts, int(3 * centre / size)."""
    centre = (torch.arange(count, device=like.device) * 2 + 1) * CELLS // (2 * count)
    return F.one_hot(centre, CELLS).to(like.dtype)
