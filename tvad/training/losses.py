"""Pixel losses of phase 1, all on two-class logits in float32.

The paper trains with plain cross-entropy.  An anomalous target covers about one patch in a hundred, so three other
losses are offered; which one is used is a measured choice (see ``docs/LOG.md``), never a matter of taste.

Every loss takes ``weight``: patches are drawn from the maps, not all of them used (see ``phase1``), and the weights
make the weighted mean over the drawn patches an unbiased estimate of the mean over the whole maps.
"""
from __future__ import annotations

from typing import Callable, Mapping

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from tvad.errors import ParameterError

PixelLoss = Callable[..., Float[Tensor, ""]]


def _per_patch(logits: Float[Tensor, "b 2 h w"], target: Float[Tensor, "b h w"]) -> Float[Tensor, "b h w"]:
    # Two-class softmax cross-entropy is the binary one on the difference; this form stays exact for large logits.
    logits = logits.float()
    return F.binary_cross_entropy_with_logits(logits[:, 1] - logits[:, 0], target.float(), reduction="none")


def _mean(values: Float[Tensor, "b h w"], weight: Float[Tensor, "b h w"] | None) -> Float[Tensor, ""]:
    return values.mean() if weight is None else (values * weight).sum() / weight.sum().clamp_min(1e-12)


def cross_entropy(logits: Float[Tensor, "b 2 h w"], target: Float[Tensor, "b h w"], *,
                  weight: Float[Tensor, "b h w"] | None = None, positive_weight: float = 1.0) -> Float[Tensor, ""]:
    """Pixel cross-entropy of the paper (specification 3.1 and 3.3). ``positive_weight`` is not used."""
    return _mean(_per_patch(logits, target), weight)


def balanced(logits: Float[Tensor, "b 2 h w"], target: Float[Tensor, "b h w"], *,
                   weight: Float[Tensor, "b h w"] | None = None, positive_weight: float = 1.0) -> Float[Tensor, ""]:
    """Cross-entropy with the anomalous patches counted ``positive_weight`` times, renormalised to a weighted mean."""
    share = 1 + (positive_weight - 1) * target.float()
    return _mean(_per_patch(logits, target), share if weight is None else share * weight)


def focal(logits: Float[Tensor, "b 2 h w"], target: Float[Tensor, "b h w"], *,
          weight: Float[Tensor, "b h w"] | None = None, positive_weight: float = 1.0,
          gamma: float = 2.0) -> Float[Tensor, ""]:
    """Focal loss (Lin et al., ICCV 2017, eq. 4) without the class factor: easy patches count little."""
    entropy = _per_patch(logits, target)
    miss = -torch.expm1(-entropy)                       # 1 - p of the true class
    return _mean(miss.clamp_min(0) ** gamma * entropy, weight)


def dice(logits: Float[Tensor, "b 2 h w"], target: Float[Tensor, "b h w"], *,
         weight: Float[Tensor, "b h w"] | None = None, positive_weight: float = 1.0) -> Float[Tensor, ""]:
    """Soft Dice of the anomalous class over the batch (V-Net, Milletari et al. 2016), plus cross-entropy.

    Dice alone has no gradient for a normal patch in a batch without targets, hence the sum.
    """
    probability = torch.sigmoid((logits[:, 1] - logits[:, 0]).float())
    target = target.float()
    weights = torch.ones_like(target) if weight is None else weight
    overlap = 2 * (weights * probability * target).sum() + 1
    total = (weights * (probability ** 2 + target ** 2)).sum() + 1
    return 1 - overlap / total + cross_entropy(logits, target, weight=weight)


LOSSES: Mapping[str, PixelLoss] = {
    "cross_entropy": cross_entropy, "balanced": balanced, "focal": focal, "dice": dice,
}


def pixel_loss(name: str) -> PixelLoss:
    """The loss of that name.

    Raises:
        ParameterError: no such loss; the message lists the names.
    """
    if name not in LOSSES:
        raise ParameterError(f"unknown loss {name!r}; give one of {', '.join(sorted(LOSSES))}")
    return LOSSES[name]
