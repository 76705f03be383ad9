"""Settings of an adaptation."""
from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from tvad.adaptation.evidence import Fusion
from tvad.errors import ParameterError
from tvad.scenes.composite.compose import Mixture
from tvad.training.common import Optimization
from tvad.training.losses import pixel_loss
from tvad.training.targets import RULES


@dataclass(frozen=True)
class AdaptConfig(Optimization):
    """Everything that decides an adapted decoder; the defaults know no camera.

    Pairs: ``composites`` (half with an event) and ``normal`` real ones of the training footage, ``rehearsal`` of the
    videos with masks that the decoder was first trained on, ``val_composites`` and ``val_normal`` of held-out footage.
    ``held_out``: share of the videos (of the time, below four videos) kept for validation.  ``shares``: of a batch, in
    the order composites, normal, rehearsal.  ``gaps``: frames between the two of a pair, () for the one at which
    people move as far as simulated ones do.  ``events``: kinds to paste, () for all
    that a pair can show.  ``refilmed``: share of the training pairs that are seen through another camera's photometry.
    ``oneclass``: make the bank of normal patches.  ``fusion``: evidence of the detector left behind.
    Raises :class:`ParameterError` for values outside these choices.
    """
    phase: ClassVar[str] = "adapt"
    steps: int = 1500
    batch_size: int = 24
    validate_every: int = 150
    learning_rate: float = 1e-3
    loss: str = "cross_entropy"
    target_rule: str = "any"
    target_threshold: float = 0.25
    patches_per_pair: int = 256
    composites: int = 1600
    normal: int = 700
    rehearsal: int = 500
    val_composites: int = 320
    val_normal: int = 320
    held_out: float = 0.25
    shares: tuple[float, float, float] = (0.55, 0.25, 0.20)
    gaps: tuple[int, ...] = ()
    refilmed: float = 0.0
    events: tuple[str, ...] = ()
    people: float = 1.5
    oneclass: bool = True
    fusion: Fusion = Fusion()

    def __post_init__(self) -> None:
        super().__post_init__()
        # Two composites: one with an event, one without.
        self.check_least(composites=2, normal=1, val_composites=2, val_normal=1, patches_per_pair=0, rehearsal=0)
        if min(self.gaps, default=1) < 1 or len(set(self.gaps)) < len(self.gaps):
            raise ParameterError(f"adapt: gaps {self.gaps} must be different numbers from 1")
        if self.target_rule not in RULES or not 0 <= self.refilmed <= 1:
            raise ParameterError(f"adapt: target_rule {self.target_rule!r} must be one of {', '.join(RULES)} and refilmed "
                                 f"{self.refilmed} in 0..1")
        if not 0 < self.held_out < 1:
            raise ParameterError(f"adapt: held_out {self.held_out} must be in (0, 1)")
        if len(self.shares) != 3 or min(self.shares) < 0 or self.shares[0] <= 0:
            raise ParameterError(f"adapt: shares {self.shares} must be three numbers from 0, the first above 0")
        if not set(self.fusion.gaps) <= set(self.gaps):
            raise ParameterError(f"adapt: fusion.gaps {self.fusion.gaps} must be among gaps {self.gaps}")
        if self.fusion.oneclass and not self.oneclass:
            raise ParameterError("adapt: fusion.oneclass needs oneclass=True, which makes the bank")
        pixel_loss(self.loss)
        self.mixture()

    def mixture(self) -> Mixture:
        """What is pasted."""
        return Mixture(people=self.people, **({"events": tuple(self.events)} if self.events else {}))
