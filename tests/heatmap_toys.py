"""A small heatmap decoder with features and prototypes for it, and the recipe word for word as its slow twin."""
from __future__ import annotations

import torch
import torch.nn.functional as F

from tvad.heatmap import AnomalyHeatmapDecoder

SMALL = dict(taps=(0, 2, 5), tap_width=6, hidden_width=10, text_width=14)


def decoder(seed: int = 0, **changes) -> AnomalyHeatmapDecoder:
    torch.manual_seed(seed)
    model = AnomalyHeatmapDecoder(**{**SMALL, **changes})
    torch.nn.init.normal_(model.fuse_weights)  # unequal, so that their softmax is seen
    return model


def features(seed: int = 1, *, grid=(3, 4, 5), taps: int = 3, width: int = 6) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(*grid, width, generator=generator) for _ in range(taps)]


def text(seed: int = 2, width: int = 14) -> torch.Tensor:
    return torch.randn(2, width, generator=torch.Generator().manual_seed(seed))


def slow_logits(model: AnomalyHeatmapDecoder, taps, prototypes) -> torch.Tensor:
    """The recipe word for word: text-width features of every patch, then the variant's norm, dot, weights, sum."""
    if model.contrast == "centred":
        prototypes = prototypes - prototypes.mean(0, keepdim=True)
    unit = F.normalize(prototypes, p=2, dim=-1, eps=1e-6)
    layers = []
    for mlp, tap in zip(model.mlps, taps):
        wide = mlp.model(tap)
        # the published code calls F.normalize(x) on (T', H', W', D): its default dim=1 is the height
        wide = F.normalize(wide, dim=-1) if model.variant == "paper" else F.normalize(wide)
        layers.append(model.temperature * torch.einsum("thwd,cd->thwc", wide, unit))
    weights = torch.softmax(model.fuse_weights, 0)
    return torch.einsum("k,kthwc->tchw", weights, torch.stack(layers))
