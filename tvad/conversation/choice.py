"""Yes or no as a probability: the difference of two logits, calibrated by one temperature.

The margin is logit(yes) - logit(no) where the answer begins; sigmoid(margin / T) is the probability of yes among the two.
T is fitted on validation clips (temperature scaling, Guo et al. 2017): it leaves the ranking and the answers as they are.
"""
from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int

from tvad.errors import ParameterError


def probability(
    margins: Float[np.ndarray, " n"], *, temperature: float = 1.0, bias: float = 0.0,
) -> Float[np.ndarray, " n"]:
    """Probability of yes; ``bias`` moves the point of indifference, 0 as in plain temperature scaling."""
    if not temperature > 0:
        raise ParameterError(f"yes/no temperature must be positive, got {temperature}; fit it with fit_temperature")
    logits = (np.asarray(margins, np.float64) + bias) / temperature
    return np.exp(-np.logaddexp(0, -logits))


def fit_temperature(margins: Float[np.ndarray, " n"], labels: Int[np.ndarray, " n"]) -> float:
    """The temperature that minimises the log loss of validation ``labels`` (1 yes, 0 no), between 0.01 and 100.

    Raises :class:`ParameterError` for lengths that differ, no clips, or labels other than 0 and 1.
    """
    from scipy.optimize import minimize_scalar

    margins, labels = np.asarray(margins, np.float64), np.asarray(labels)
    if margins.shape != labels.shape or margins.ndim != 1 or not len(margins) or not np.isin(labels, (0, 1)).all():
        raise ParameterError(f"fit_temperature: wants as many margins as labels 0 or 1, got shapes {margins.shape} and "
                             f"{labels.shape} with labels {sorted(set(labels.ravel().tolist()))[:5]}")
    signed = np.where(labels == 1, margins, -margins)

    def loss(log_temperature: float) -> float:
        return float(np.logaddexp(0, -signed / np.exp(log_temperature)).mean())

    return float(np.exp(minimize_scalar(loss, bounds=(np.log(0.01), np.log(100.0)), method="bounded").x))
