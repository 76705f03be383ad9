"""Does a probability mean what it says?  Reliability diagram, expected calibration error and Brier score.

The probability is that of "yes" and the outcome whether yes was right, so a bin compares the mean probability with the
share of yes (Naeini, Cooper and Hauskrecht 2015; the diagram: DeGroot and Fienberg 1983).  Bins have equal width; the
last one holds 1.0.
"""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from tvad.metrics.common import MetricError
from tvad.metrics.paired import Weighted


@dataclass(frozen=True, eq=False)
class Reliability:
    """A reliability diagram: for each of b bins its answers, their mean probability of yes, and the share of yes.

    The last two are NaN for empty bins.  ``ece``: mean distance of both over the answers; ``mce``: the largest;
    ``brier``: mean squared error; ``base``: share of yes; ``n`` answers.
    """

    edges: Float[np.ndarray, "b+1"]
    count: Int[np.ndarray, "b"]
    probability: Float[np.ndarray, "b"]
    share: Float[np.ndarray, "b"]
    ece: float
    mce: float
    brier: float
    base: float
    n: int


def reliability(probabilities: Sequence[float], outcomes: Sequence[bool], *, bins: int = 10) -> Reliability:
    """The diagram of some answers.

    Raises:
        MetricError: no answers, unequal numbers, probabilities outside [0, 1], or fewer than one bin.
    """
    chance, truth = _checked(probabilities, outcomes, bins)
    sums = _bin_sums(chance, truth, bins)
    with np.errstate(invalid="ignore"):
        probability, share = sums[1] / sums[0], sums[2] / sums[0]
    gaps = np.abs(sums[1] - sums[2])
    return Reliability(np.linspace(0, 1, bins + 1), sums[0].astype(np.int64), probability, share,
                       ece=float(gaps.sum() / len(chance)), mce=float(np.nanmax(np.abs(probability - share))),
                       brier=float(((chance - truth) ** 2).mean()), base=float(truth.mean()), n=len(chance))


def ece_weighted(probabilities: Sequence[Sequence[float]], outcomes: Sequence[Sequence[bool]], *,
                 bins: int = 10) -> Weighted:
    """The expected calibration error as a function of video multiplicities; one list of answers a video."""
    parts = []
    for chances, truths in zip(probabilities, outcomes, strict=True):
        parts.append(_bin_sums(*_checked(chances, truths, bins), bins) if len(chances) else np.zeros((3, bins)))
    table = np.stack(parts)

    def evaluate(weights: np.ndarray) -> np.ndarray:
        count, chance, truth = np.einsum("sv,vkb->ksb", np.asarray(weights, np.float64), table)
        total = count.sum(axis=1)
        return np.divide(np.abs(chance - truth).sum(axis=1), total, out=np.full(len(total), np.nan), where=total > 0)

    return evaluate


def brier_weighted(probabilities: Sequence[Sequence[float]], outcomes: Sequence[Sequence[bool]]) -> Weighted:
    """The Brier score as a function of video multiplicities; one list of answers a video."""
    pairs = [np.asarray(chances, np.float64) - np.asarray(truths, np.float64)
             for chances, truths in zip(probabilities, outcomes, strict=True)]
    sums, counts = np.array([(part**2).sum() for part in pairs]), np.array([len(part) for part in pairs], np.float64)
    return lambda weights: (weights @ sums) / (weights @ counts)


def _checked(probabilities: Sequence[float], outcomes: Sequence[bool], bins: int) -> tuple[np.ndarray, np.ndarray]:
    chance, truth = np.asarray(probabilities, np.float64), np.asarray(outcomes, np.float64)
    if not len(chance) or len(chance) != len(truth) or bins < 1:
        raise MetricError(f"reliability needs answers and as many outcomes, got {len(chance)} and {len(truth)} in {bins} "
                          "bins; let the model answer some yes/no questions first")
    if not (chance >= 0).all() or not (chance <= 1).all():
        raise MetricError(f"reliability needs probabilities in [0, 1], got {chance.min()} to {chance.max()}")
    return chance, truth


def _bin_sums(chance: np.ndarray, truth: np.ndarray, bins: int) -> Float[np.ndarray, "3 b"]:
    """Count, sum of probabilities and number of yes of each bin."""
    place = np.minimum((chance * bins).astype(np.int64), bins - 1)
    return np.stack([np.bincount(place, weights=part, minlength=bins) for part in (np.ones_like(chance), chance, truth)])
