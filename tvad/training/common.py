"""What the settings and results of all training phases share."""
from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, ClassVar, Self

from tvad.errors import ParameterError


class FromParameters:
    """Settings (a dataclass) that a notebook's parameters can fill."""

    @classmethod
    def from_params(cls, params: Any, **changes: Any) -> Self:
        """The settings that the parameters share with this by name, the rest as the defaults say; then ``changes``."""
        shared = {item.name: getattr(params, item.name) for item in fields(cls) if hasattr(params, item.name)}
        return cls(**{**shared, **changes})


@dataclass(frozen=True)
class Optimization:
    """What every training sets: AdamW's values, batch, steps between validations; ``phase`` begins its error texts.

    The rate rises linearly over ``warm_up`` of the steps to ``learning_rate`` and falls as a cosine to zero.
    Raises :class:`ParameterError` for values that cannot be.
    """
    phase: ClassVar[str] = "training"
    seed: int = 0
    steps: int = 600
    batch_size: int = 16
    validate_every: int = 150
    learning_rate: float = 1e-3
    weight_decay: float = 0.01
    warm_up: float = 0.1
    clip_norm: float = 1.0

    def __post_init__(self) -> None:
        self.check_least(steps=1, batch_size=1, validate_every=1)
        self.check_share("warm_up")
        if self.learning_rate <= 0 or self.weight_decay < 0 or self.clip_norm <= 0:
            raise ParameterError(f"{self.phase}: learning_rate {self.learning_rate} must be above 0, clip_norm "
                                 f"{self.clip_norm} too, and weight_decay {self.weight_decay} at least 0")

    def check_least(self, **bounds: int) -> None:
        """Raises ParameterError where a named setting lies below its bound."""
        for name, bound in bounds.items():
            if getattr(self, name) < bound:
                raise ParameterError(f"{self.phase}: {name} must be at least {bound}, got {getattr(self, name)}")

    def check_share(self, *names: str) -> None:
        """Raises ParameterError where a named setting is not in [0, 1)."""
        for name in names:
            if not 0 <= getattr(self, name) < 1:
                raise ParameterError(f"{self.phase}: {name} must be in [0, 1), got {getattr(self, name)}")

    def rate(self, step: int, total: int) -> float:
        """The learning rate of a step of ``total``."""
        rise = max(1, round(self.warm_up * total))
        if step < rise:
            return self.learning_rate * (step + 1) / rise
        return self.learning_rate * 0.5 * (1 + math.cos(math.pi * (step - rise) / max(1, total - rise)))


@dataclass(frozen=True)
class PairTraining(Optimization):
    """What trainings on cached frame pairs set besides, so that with equal settings they share one cache; the meaning of
    each is told at ``tvad.training.phase1.Phase1Config``."""
    patches_per_pair: int = 256
    hidden_width: int = 128
    temperature: float = 25.0
    train_pairs: int = 2500
    pairs_per_video: int = 0
    positive_share: float = 0.5
    val_pairs: int = 400
    pair_seed: int = 0
    refilmed: float = 0.7

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_least(hidden_width=1, train_pairs=1, val_pairs=1, patches_per_pair=0)


@dataclass(frozen=True)
class TrainResult:
    """A finished training: ``path`` of what it left, ``history`` one record a validation, ``best`` the chosen one,
    ``counts`` of the examples by split, ``seconds`` of this call, ``resumed_at`` the step it went on from."""

    path: Path
    history: tuple[Mapping[str, Any], ...]
    best: Mapping[str, Any]
    counts: Mapping[str, Any]
    seconds: float
    resumed_at: int = 0
