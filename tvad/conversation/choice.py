"""Yes or no as a probability: the difference of two logits, calibrated by a temperature and a point of indifference.

The margin is logit(yes) - logit(no) where the answer begins; sigmoid(margin / T) is the probability of yes among the two.
T is fitted on validation clips (temperature scaling, Guo et al. 2017): it leaves the ranking and the answers as they are.
Where validation and training differ in how many clips are anomalous, the answers themselves lean; ``fit_choice`` fits both
numbers with either answer weighing the same (Platt 1999), and the choice is then yes above a probability of one half.
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

    margins, labels = _checked(margins, labels)
    signed = np.where(labels == 1, margins, -margins)

    def loss(log_temperature: float) -> float:
        return float(np.logaddexp(0, -signed / np.exp(log_temperature)).mean())

    return float(np.exp(minimize_scalar(loss, bounds=(np.log(0.01), np.log(100.0)), method="bounded").x))


def fit_choice(margins: Float[np.ndarray, " n"], labels: Int[np.ndarray, " n"]) -> tuple[float, float]:
    """Temperature and bias that minimise the log loss, yes and no weighing the same; ``labels`` must have both.

    The bias is 0 where no other makes more of the choices right, in the mean of both answers' shares.
    Raises :class:`ParameterError` as :func:`fit_temperature` does, and for labels of one kind.
    """
    from scipy.optimize import minimize

    margins, labels = _checked(margins, labels)
    yes = labels == 1
    if yes.all() or not yes.any():
        raise ParameterError("fit_choice: wants labels of both kinds; give clips with and without an anomaly")

    def loss(parameters: Float[np.ndarray, "2"]) -> float:
        logits = (margins + parameters[1]) / np.exp(np.clip(parameters[0], np.log(0.01), np.log(100.0)))
        return float(np.logaddexp(0, -logits[yes]).mean() + np.logaddexp(0, logits[~yes]).mean())

    def right(bias: float) -> float:
        chosen = margins + bias >= 0
        return float(chosen[yes].mean() + (~chosen[~yes]).mean())

    start = np.array([np.log(max(margins.std(), 0.01)), -(margins[yes].mean() + margins[~yes].mean()) / 2])
    found = minimize(loss, start, method="Nelder-Mead").x
    bias = float(found[1])
    if right(bias) <= right(0.0):
        return fit_temperature(margins, labels), 0.0
    return float(np.exp(np.clip(found[0], np.log(0.01), np.log(100.0)))), bias


def _checked(margins, labels) -> tuple[Float[np.ndarray, " n"], Int[np.ndarray, " n"]]:
    margins, labels = np.asarray(margins, np.float64), np.asarray(labels)
    if margins.shape != labels.shape or margins.ndim != 1 or not len(margins) or not np.isin(labels, (0, 1)).all():
        raise ParameterError(f"fit_temperature: wants as many margins as labels 0 or 1, got shapes {margins.shape} and "
                             f"{labels.shape} with labels {sorted(set(labels.ravel().tolist()))[:5]}")
    return margins, labels
