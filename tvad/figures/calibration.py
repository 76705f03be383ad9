"""Does the probability of yes mean what it says?  The reliability diagram of phase 2's answers.

Above: for each tenth of the stated probability, how often yes was right; on the diagonal it means what it says.  Below: how
many answers stated it.  The figures beside it are those of ``tvad.metrics.reliability``.
"""
from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from tvad.errors import MissingPhaseError
from tvad.evaluation.details import diagram, yes_no_pairs
from tvad.figures.stored import Stored
from tvad.figures.style import BLUE, COLUMN, GREY, ORANGE, canvas

_BINS = 10


def reliability(stored: Stored) -> tuple[Figure, str]:
    """The diagram of the shown split. Raises :class:`MissingPhaseError` where no answer states a probability."""
    answers = stored.answers()
    if not yes_no_pairs(answers):
        raise MissingPhaseError(f"{stored.named(stored.answers_path)}: no answer states a probability of yes; answer "
                                f"again: make reproduce PROFILE={stored.params.profile}")
    found = diagram(answers, bins=_BINS)
    figure = canvas(COLUMN, 3.3)
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    some = found.count > 0
    above.plot([0, 1], [0, 1], color=GREY, lw=0.7, ls=":", label="means what it says")
    middles, width = (found.edges[:-1] + found.edges[1:]) / 2, 1 / _BINS
    above.bar(middles[some], found.share[some], width=0.9 * width, color=BLUE, alpha=0.35, label="share of yes")
    above.plot(found.probability[some], found.share[some], "o-", color=ORANGE, mec="black", mew=0.5, ms=4, lw=0.8,
               clip_on=False, label="mean stated, share of yes")
    above.axhline(found.base, color=GREY, lw=0.7, ls="--", label=f"share of all answers, {found.base:.2f}")
    above.set(ylabel="share of clips with an anomaly", xlim=(0, 1), ylim=(0, 1.02), yticks=np.linspace(0, 1, 6))
    above.legend(loc="upper left")
    below.bar(middles, found.count, width=0.9 * width, color=GREY)
    below.set(xlabel="stated probability of yes", ylabel="answers")
    below.yaxis.set_major_locator(MaxNLocator(3, integer=True))
    return figure, (f"{stored.place}; {found.n} answers of variant {stored.params.variant} to the question whether there "
                    f"is an anomaly, in ten bins of the probability that they state. Expected calibration error "
                    f"{found.ece:.3f}, Brier score {found.brier:.3f} (lower is better).")
