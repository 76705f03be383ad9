"""What the settings and results of all training phases share."""
from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Self


class FromParameters:
    """Settings (a dataclass) that a notebook's parameters can fill."""

    @classmethod
    def from_params(cls, params: Any, **changes: Any) -> Self:
        """The settings that the parameters share with this by name, the rest as the defaults say; then ``changes``."""
        shared = {item.name: getattr(params, item.name) for item in fields(cls) if hasattr(params, item.name)}
        return cls(**{**shared, **changes})


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
