"""What do the anomaly tokens say?  Ridge regression reads position and motion back from them.

A probe answers whether a fact is linearly in the tokens, which a language model needs to put it into words; how much of
it the answers use is another question, which the ablations ask.
"""
from __future__ import annotations

from dataclasses import dataclass
from typing import Mapping, Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from tvad.errors import ParameterError
from tvad.region.base import RegionEncoder

PENALTIES = tuple(10.0**power for power in range(-2, 7))


@dataclass(frozen=True)
class Reading:
    """How well one fact was read on held-out clips: R2 over all its columns (1 perfect, 0 the mean's), mean absolute
    error in the fact's own unit, the readings, and the penalty that the training clips chose."""

    r2: float
    error: float
    read: Float[np.ndarray, "n k"]
    penalty: float


def read_back(
    tokens: Float[Tensor, "n m d"] | Float[np.ndarray, "n f"], facts: Mapping[str, Float[Tensor, "n k"]], *,
    held_out: int, penalties: Sequence[float] = PENALTIES,
) -> dict[str, Reading]:
    """Fit each fact on all clips but the last ``held_out``, and read it on those.

    Features are the tokens of a clip side by side, standardised on the fitted clips; the penalty is chosen there by
    leave-one-out.  Clips must have the same number of tokens.
    Raises :class:`ParameterError` when the counts differ or too few clips are left to fit.
    """
    from sklearn.linear_model import RidgeCV
    from sklearn.preprocessing import StandardScaler

    features = np.asarray(torch.as_tensor(tokens).detach().float().flatten(1).cpu(), np.float64)
    fitted = len(features) - held_out
    if held_out < 1 or fitted < 10 or any(len(values) != len(features) for values in facts.values()):
        raise ParameterError(f"probe: {len(features)} clips, {held_out} held out, facts of "
                             f"{sorted({len(values) for values in facts.values()})} clips; it needs one fact a clip, "
                             "one clip held out and ten to fit")
    scaler = StandardScaler().fit(features[:fitted])
    known, asked = scaler.transform(features[:fitted]), scaler.transform(features[fitted:])
    readings = {}
    for name, values in facts.items():
        truth = np.asarray(torch.as_tensor(values).float().cpu(), np.float64).reshape(len(features), -1)
        model = RidgeCV(alphas=penalties).fit(known, truth[:fitted])
        read = model.predict(asked).reshape(held_out, -1)
        missed = ((truth[fitted:] - read) ** 2).sum()
        spread = ((truth[fitted:] - truth[:fitted].mean(0)) ** 2).sum()
        readings[name] = Reading(float(1 - missed / spread) if spread > 0 else float("nan"),
                                 float(np.abs(truth[fitted:] - read).mean()), read, float(model.alpha_))
    return readings


@torch.no_grad()
def tokens_of(encoder: RegionEncoder, heatmaps: Float[Tensor, "n t h w"], *, batch: int = 64) -> Float[Tensor, "n m d"]:
    """The tokens of many clips of one shape, in batches."""
    return torch.cat([encoder(part) for part in heatmaps.split(batch)])
