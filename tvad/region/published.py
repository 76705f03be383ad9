"""The two published region encoders.

- ``paper`` (eq. 10 to 12): differences of the heatmap in time, three convolutions of growing width, 3x3 adaptive pooling
  with a region head, a spatial mean with a global head, and ten learnable base tokens repeated each step:
  (t - 1) x 20 tokens.  Not public: the input channels (here one, the probability), the widths (here those that fit the
  published parameter count: 7,539,456 at width 3584) and what an image is compared with (here an empty map, so that
  one step still gives 20 tokens).
- ``thesis`` (the published code): nine learned attention maps plus a global mean on the heatmap itself, one base vector
  added to all ten tokens of a step: t x 10 tokens, 755,513 parameters at width 3584, its key names kept.  The base
  vector starts at the scale of the heads' output; the code drew it with deviation 1, far above token embeddings.

Neither says where it is: convolution, pooling and spatial mean carry a place only as the order of nine tokens, and the
thesis' maps are tied to no place at all.  Differences in time vanish where the target stands still.
"""
from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tvad.errors import ParameterError
from tvad.region.base import RegionEncoder

REGIONS = 9
GRID = 3


def _convolutions(widths: tuple[int, ...]) -> nn.Sequential:
    layers: list[nn.Module] = []
    for before, after in zip((1, *widths), widths):
        layers += [nn.Conv2d(before, after, 3, padding=1), nn.ReLU()]
    return nn.Sequential(*layers)


def _convolution_flops(widths: tuple[int, ...], pixels: int) -> int:
    return sum(2 * 9 * before * after * pixels for before, after in zip((1, *widths), widths))


class PaperEncoder(RegionEncoder):
    """The encoder of the paper, (t - 1) x 20 tokens: of each step ten base tokens, nine regions in reading order, one
    global token.

    widths: channels of the three convolutions.  hidden_width: middle of both heads.  base_tokens: learnable tokens a
    step.  scale: deviation of the base tokens at the start.
    """

    variant = "paper"

    def __init__(
        self, *, text_width: int, widths: tuple[int, ...] = (16, 32, 64), hidden_width: int = 1024,
        base_tokens: int = 10, scale: float = 0.02,
    ) -> None:
        super().__init__(text_width=text_width)
        if min((*widths, hidden_width)) < 1 or not widths or base_tokens < 0:
            raise ParameterError(f"region encoder 'paper': widths {tuple(widths)} and hidden_width {hidden_width} must "
                                 f"be positive, base_tokens {base_tokens} not negative")
        self.widths, self.hidden_width, self.base_tokens = tuple(widths), hidden_width, base_tokens
        self.backbone = _convolutions(self.widths)
        self.region_head = self._head()
        self.global_head = self._head()
        self.base_prompt = nn.Parameter(torch.randn(base_tokens, text_width) * scale)

    def _head(self) -> nn.Sequential:
        return nn.Sequential(nn.Linear(self.widths[-1], self.hidden_width), nn.ReLU(),
                             nn.Linear(self.hidden_width, self.text_width))

    def tokens(self, steps: int) -> int:
        return max(steps - 1, 1) * (self.base_tokens + REGIONS + 1)

    def flops(self, t: int, h: int, w: int) -> int:
        steps, last = max(t - 1, 1), self.widths[-1]
        heads = 2 * (REGIONS + 1) * self.hidden_width * (last + self.text_width)
        return steps * (_convolution_flops(self.widths, h * w) + heads)

    def config(self) -> dict[str, Any]:
        return {**super().config(), "widths": list(self.widths), "hidden_width": self.hidden_width,
                "base_tokens": self.base_tokens}

    def _tokens(self, heatmap: Tensor, seen: Tensor | None) -> Tensor:
        change = heatmap.diff(dim=1) if heatmap.shape[1] > 1 else heatmap
        features = self.backbone(change.flatten(0, 1)[:, None])
        regions = self.region_head(F.adaptive_avg_pool2d(features, GRID).flatten(2).transpose(1, 2))
        whole = self.global_head(features.mean((2, 3)))[:, None]
        base = self.base_prompt.expand(len(features), -1, -1)
        return torch.cat([base, regions, whole], 1).unflatten(0, change.shape[:2]).flatten(1, 2)


class ThesisEncoder(RegionEncoder):
    """The encoder of the published code, t x 10 tokens: of each step nine attended regions and one global token."""

    variant = "thesis"
    WIDTHS = (32, 48, 96)

    def __init__(self, *, text_width: int, scale: float = 0.02) -> None:
        super().__init__(text_width=text_width)
        last = self.WIDTHS[-1]
        self.backbone = _convolutions(self.WIDTHS)
        self.region_attn_conv = nn.Conv2d(last, REGIONS, 1)
        self.region_fc = nn.Linear(last, text_width)
        self.global_fc = nn.Linear(last, text_width)
        self.base_prompt = nn.Parameter(torch.randn(1, text_width) * scale)

    def tokens(self, steps: int) -> int:
        return steps * (REGIONS + 1)

    def flops(self, t: int, h: int, w: int) -> int:
        last = self.WIDTHS[-1]
        attention = 4 * last * REGIONS * h * w  # the maps, and the sums that they weight
        heads = 2 * last * self.text_width * (REGIONS + 1)
        return t * (_convolution_flops(self.WIDTHS, h * w) + attention + heads)

    def _tokens(self, heatmap: Tensor, seen: Tensor | None) -> Tensor:
        features = self.backbone(heatmap.flatten(0, 1)[:, None])
        weights = self.region_attn_conv(features).flatten(2).softmax(-1)
        pooled = weights @ features.flatten(2).transpose(1, 2) / (weights.sum(-1, keepdim=True) + 1e-6)
        whole = self.global_fc(features.mean((2, 3)))[:, None]
        tokens = torch.cat([self.region_fc(pooled), whole], 1) + self.base_prompt
        return tokens.unflatten(0, heatmap.shape[:2]).flatten(1, 2)
