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
    people move as far as simulated ones do.  ``zooms``: how many times as large the tower may see the
    pictures; the one at which pasted events stand out most is taken (``zoom.py``).  ``events``: kinds to paste, () for all
    that a pair can show.  ``refilmed``: share of the training pairs that are seen through another camera's photometry.
    ``kept``: share of the decoder's weights from before the adaptation in those that it leaves (``loop.blended``), for what
    is learnt of composites is, in part, that they are composites; an adapted tower gets a decoder of its own, all new.
    ``oneclass``: make the bank of normal patches, which only evidence that counts it needs.  ``fusion``: evidence of the
    detector left behind.
    ``clips``: whole held-out clips with pasted actors, on which the smoothing of scores and heatmaps is chosen
    (``clips.py``); about as many, 0 for none.
    Scores: ``smoothing`` over time, where no clips choose it, as the model has it in "frames", or with the people's "pace";
    ``spot``: the patches that count are as many as a "person" covers, or the "model"'s share of all.  ``thresholds`` of
    regions, 0.5 being the level that one held-out normal patch in a thousand passes.
    Tower: ``tower_rank`` of its low-rank adapter (0: frozen), trained for ``tower_steps`` from the decoder adapted to the
    frozen tower, blocks before ``tower_first`` left as they are; a step sees ``tower_batch`` crops of ``tower_crop`` pixels
    or, in a share of ``tower_whole`` of the steps, whole frames of as many patches; ``tower_rate``: of the adapter;
    ``tower_after``: steps of the decoder alone on the adapted tower.
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
    zooms: tuple[float, ...] = (1.0, 1.25, 1.5)
    refilmed: float = 0.0
    kept: float = 0.5
    events: tuple[str, ...] = ()
    people: float = 1.5
    oneclass: bool = False
    clips: int = 24
    smoothing: str = "pace"
    spot: str = "person"
    thresholds: tuple[float, ...] = (0.4,)
    tower_rank: int = 0
    tower_first: int = 1
    tower_steps: int = 700
    tower_batch: int = 24
    tower_crop: int = 120
    tower_whole: float = 0.3
    tower_rate: float = 2e-3
    tower_after: int = 500
    fusion: Fusion = Fusion()

    def __post_init__(self) -> None:
        super().__post_init__()
        # Two composites: one with an event, one without.
        self.check_least(composites=2, normal=1, val_composites=2, val_normal=1, patches_per_pair=0, rehearsal=0,
                         clips=0, tower_rank=0, tower_first=0, tower_steps=1, tower_batch=1, tower_crop=1, tower_after=1)
        object.__setattr__(self, "thresholds", tuple(float(value) for value in self.thresholds))
        if not self.thresholds or not all(0 < value < 1 for value in self.thresholds):
            raise ParameterError(f"adapt: thresholds {self.thresholds} must be numbers in (0, 1), at least one")
        if self.smoothing not in ("pace", "frames"):
            raise ParameterError(f"adapt: smoothing {self.smoothing!r} must be pace or frames")
        if self.spot not in ("person", "model"):
            raise ParameterError(f"adapt: spot {self.spot!r} must be person or model")
        if not 0 <= self.tower_whole <= 1 or not self.tower_rate > 0:
            raise ParameterError(f"adapt: tower_whole {self.tower_whole} must be in 0..1 and tower_rate {self.tower_rate} "
                                 "above 0")
        if min(self.gaps, default=1) < 1 or len(set(self.gaps)) < len(self.gaps):
            raise ParameterError(f"adapt: gaps {self.gaps} must be different numbers from 1")
        if min(self.zooms, default=0) <= 0 or len(set(self.zooms)) < len(self.zooms):
            raise ParameterError(f"adapt: zooms {self.zooms} must be different numbers above 0, one at least")
        if self.target_rule not in RULES or not 0 <= self.refilmed <= 1:
            raise ParameterError(f"adapt: target_rule {self.target_rule!r} must be one of {', '.join(RULES)} and refilmed "
                                 f"{self.refilmed} in 0..1")
        self.check_share("kept")
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
