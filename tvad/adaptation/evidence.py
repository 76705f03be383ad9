"""Evidence of an adapted detector: what is usual at each place of one camera, and how parts of evidence become one map.

``Levels`` says what is usual at each place of the heatmap, from normal footage: a value becomes the number of spreads
above the usual there, which makes places and clips comparable.  Evidence in such units adds up (a sum of standardised
scores, as of log-likelihoods).  The result is squashed to 0..1 by u / (1 + |u|), which never saturates into ties.
"""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Float32
from scipy import ndimage
from torch import Tensor

from tvad.checkpoints import read_weights, write_weights
from tvad.errors import CheckpointError, DatasetError, ParameterError
from tvad.heatmap import AnomalyHeatmapDecoder


@dataclass(frozen=True)
class Levels:
    """What is usual at each place: ``middle`` (median) and ``spread`` (99 % quantile less median), both (h, w)."""
    middle: Float32[np.ndarray, "h w"]
    spread: Float32[np.ndarray, "h w"]

    @classmethod
    def fit(cls, values: Float[np.ndarray, "n h w"], *, reach: int = 1, share: float = 0.7) -> Levels:
        """From values on normal frames; neighbours within ``reach`` patches are pooled, and ``share`` of the spread is
        local, the rest that of the whole picture, so that a place where nothing happened is not infinitely sure.

        Raises :class:`DatasetError` where there are no values.
        """
        if not len(values):
            raise DatasetError("levels: no normal frames; give at least one pair")
        values = np.asarray(values, np.float32)
        low, high = np.quantile(values, (0.5, 0.99), axis=0)
        # The largest high quantile nearby: people walk a patch farther left tomorrow.
        high = ndimage.maximum_filter(high, size=2 * reach + 1, mode="nearest")
        low = ndimage.uniform_filter(low, size=2 * reach + 1, mode="nearest")
        whole = max(float(np.quantile(values, 0.99) - np.quantile(values, 0.5)), 1e-4)
        spread = share * np.maximum(high - low, 0) + (1 - share) * whole
        return cls(low.astype(np.float32), spread.astype(np.float32))

    def __call__(self, values: Float[np.ndarray, "n h w"]) -> Float32[np.ndarray, "n h w"]:
        """Values in spreads above the usual."""
        return ((np.asarray(values, np.float32) - self.middle) / self.spread).astype(np.float32)


@dataclass(frozen=True)
class Fusion:
    """Which evidence counts. ``levels``: heat by place ("place") or as the decoder gives it ("none"); ``oneclass`` and
    ``heat``: weights of the one-class score and of the heat (0: off); ``gaps``: frames between the two of a pair, averaged;
    () where they are still to be chosen; ``blur``: of the heatmap, standard deviations over pairs and over patches; scores
    are those of the maps before it."""
    levels: str = "none"
    oneclass: float = 0.0
    gaps: tuple[int, ...] = ()
    heat: float = 1.0
    blur: tuple[float, float] = (0.0, 0.0)

    def __post_init__(self) -> None:
        object.__setattr__(self, "gaps", tuple(int(gap) for gap in self.gaps))
        if self.levels not in ("place", "none") or self.oneclass < 0 or min(self.gaps, default=1) < 1:
            raise ParameterError(f"fusion: levels {self.levels!r} must be place or none, oneclass {self.oneclass} at least "
                                 f"0 and gaps {self.gaps} numbers from 1")
        object.__setattr__(self, "blur", tuple(float(value) for value in self.blur))
        if len(self.blur) != 2 or not all(0 <= value < np.inf for value in self.blur):
            raise ParameterError(f"fusion: blur {self.blur} must be two numbers from 0, over pairs and over patches")
        if self.heat < 0 or not self.heat + self.oneclass:
            raise ParameterError(f"fusion: heat {self.heat} must be at least 0, and above where oneclass is 0")
        if self.oneclass and self.levels == "none":
            raise ParameterError("fusion: a one-class score can only be added in units of levels; set levels=\"place\"")


@dataclass(frozen=True)
class Calibration:
    """Levels of every part of evidence at every gap, e.g. ``"heat@1"``, and where 0.5 lies: ``zero`` is the level that one
    normal patch in a thousand passes, ``unit`` how far the squashing goes linearly.  ``frame``: the score, 0..1, that one
    held-out normal pair in a hundred passes; a score is a mean of few patches, the hottest, so it lies above 0.5.
    ``steady``: ``zero`` and ``unit`` of heatmaps that are smoothed, None for the same."""
    levels: Mapping[str, Levels]
    zero: float = 0.0
    unit: float = 1.0
    frame: float = 0.5
    steady: tuple[float, float] | None = None

    def of_heat(self, blur: tuple[float, float]) -> Calibration:
        """The scale of heatmaps smoothed by ``blur``; scores keep their own."""
        if not any(blur) or self.steady is None:
            return self
        return replace(self, zero=self.steady[0], unit=self.steady[1], steady=None)

    @property
    def grid(self) -> tuple[int, int]:
        """Height and width of the camera's maps, in patches."""
        return next(iter(self.levels.values())).middle.shape

    def save(self, path: Path | str) -> Path:
        """Write as safetensors, atomically. Raises :class:`tvad.errors.StorageError` when the disk refuses."""
        state = {f"{name}.{part}": torch.from_numpy(np.asarray(getattr(level, part)))
                 for name, level in self.levels.items() for part in ("middle", "spread")}
        return write_weights(path, state, {"kind": "levels", "zero": self.zero, "unit": self.unit,
                                           "frame": self.frame, **({"steady": list(self.steady)} if self.steady else {})})

    @classmethod
    def load(cls, path: Path | str) -> Calibration:
        """Read what :meth:`save` wrote. Raises :class:`CheckpointError` for another kind of file."""
        state, record = read_weights(path)
        if record.get("kind") != "levels":
            raise CheckpointError(f"{path}: no levels of a camera; adapt again: make adapt VIDEO=…")
        names = sorted({key.rpartition(".")[0] for key in state})
        return cls({name: Levels(state[f"{name}.middle"].numpy(), state[f"{name}.spread"].numpy()) for name in names},
                   float(record["zero"]), float(record["unit"]), float(record.get("frame", 0.5)),
                   tuple(record["steady"]) if "steady" in record else None)


def log_odds(decoder: AnomalyHeatmapDecoder, taps: Sequence[Float[Tensor, "n h w c"]],
             prototypes: Float[Tensor, "2 d"]) -> Float32[np.ndarray, "n h w"]:
    """The decoder's abnormal minus normal logit: the heat before it is squashed, so that "surely" has degrees."""
    logits = decoder(taps, prototypes)
    return (logits[:, 1] - logits[:, 0]).float().cpu().numpy()


def fuse(parts: Mapping[str, Float[np.ndarray, "n h w"]], calibration: Calibration,
         fusion: Fusion) -> Float32[np.ndarray, "n h w"]:
    """Evidence of one or several gaps (``"heat@1"``, ``"oneclass@1"``, ...) as one map, in spreads, not yet squashed."""
    maps = []
    for gap in fusion.gaps or (1,):
        heat = np.asarray(parts[f"heat@{gap}"], np.float32)
        total = fusion.heat * (calibration.levels[f"heat@{gap}"](heat) if fusion.levels == "place" else heat)
        if fusion.oneclass:
            total = total + fusion.oneclass * calibration.levels[f"oneclass@{gap}"](parts[f"oneclass@{gap}"])
        maps.append(total)
    return np.mean(maps, axis=0, dtype=np.float32)


def blurred(maps: Float[np.ndarray, "n h w"], blur: tuple[float, float]) -> Float32[np.ndarray, "n h w"]:
    """Maps of successive pairs smoothed over time and place by Gaussians of these standard deviations (pairs, patches)."""
    maps = np.asarray(maps, np.float32)
    if not any(blur):
        return maps
    return ndimage.gaussian_filter(maps, (blur[0], blur[1], blur[1]), mode="nearest")


def squash(values: Float[np.ndarray, "*s"], calibration: Calibration) -> Float32[np.ndarray, "*s"]:
    """To 0..1, 0.5 at ``calibration.zero``."""
    u = (np.asarray(values, np.float64) - calibration.zero) / calibration.unit
    return (0.5 * (1 + u / (1 + np.abs(u)))).astype(np.float32)
