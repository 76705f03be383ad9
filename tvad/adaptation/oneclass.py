"""How far a patch's features lie from those of normal footage: nearest neighbours in a bank of one camera's own patches.

No labels and no training: the frozen tower's tapped features of normal frames are reduced by principal components and
kept, for each row of the heatmap, as a bank of patches from that row and its neighbours (at one row people are of one
scale).  A patch's score is its mean distance to the nearest few.  Patches that differ from the usual content of their
place, the moving people, are kept with more weight than the ground, of which a few tell all.
"""
from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Callable, Iterator, Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from tvad.checkpoints import read_weights, write_weights
from tvad.errors import CheckpointError, DatasetError

Taps = Sequence[Float[Tensor, "n h w c"]]
_SAMPLE = 24      # patches a map that the components are computed from


class NormalBank:
    """A bank of normal patches; make it with :meth:`fit` or :meth:`load`.

    ``mean``, ``projection``: (c,) and (c, d) of the joined taps; ``patches``: (h, m, d), for each heatmap row m patches.
    """

    def __init__(self, mean: Float[Tensor, "c"], projection: Float[Tensor, "c d"], patches: Float[Tensor, "h m d"], *,
                 neighbours: int = 3) -> None:
        self.mean, self.projection, self.patches = mean.float(), projection.float(), patches.float()
        self.neighbours = neighbours

    @classmethod
    def fit(cls, maps: Callable[[], Iterator[Taps]], *, width: int = 48, size: int = 1200, reach: int = 1,
            neighbours: int = 3, whiten: float = 0.5, seed: int = 0) -> NormalBank:
        """The bank of the normal footage that ``maps()`` yields, batch by batch, twice over.

        ``width`` components, each divided by the ``whiten``-th power of its spread; ``size`` patches a row, from rows
        within ``reach``.  Raises :class:`DatasetError` where there are no maps.
        """
        rng = np.random.default_rng([seed, 41])
        sample = []
        for taps in maps():
            joined = _joined(taps).flatten(1, 2)
            picks = np.stack([rng.choice(joined.shape[1], min(_SAMPLE, joined.shape[1]), replace=False) for _ in joined])
            sample.append(torch.stack([one[torch.from_numpy(chosen)] for one, chosen in zip(joined, picks)]).flatten(0, 1))
        if not sample:
            raise DatasetError("one-class score: no normal footage; give at least one frame pair")
        flat = torch.cat(sample).double()
        mean = flat.mean(0)
        centred = flat - mean
        values, vectors = torch.linalg.eigh(centred.T @ centred / len(flat))
        width = min(width, len(values))
        values, vectors = values[-width:].flip(0).clamp_min(1e-9), vectors[:, -width:].flip(1)
        projection = vectors / values.sqrt() ** whiten
        reduced = torch.cat([(_joined(taps) - mean.float()) @ projection.float() for taps in maps()])
        unusual = (reduced - reduced.mean(0)).norm(dim=-1).numpy().astype(np.float64)
        rows = reduced.shape[1]
        patches = []
        for row in range(rows):
            near = slice(max(0, row - reach), min(rows, row + reach + 1))
            weight = (unusual[:, near] + 0.05 * unusual.mean() + 1e-9).ravel()    # a still picture has nothing unusual
            pool = reduced[:, near].reshape(-1, width)
            chosen = rng.choice(len(pool), size, replace=len(pool) < size, p=weight / weight.sum())
            patches.append(pool[torch.from_numpy(np.sort(chosen))])
        return cls(mean, projection, torch.stack(patches), neighbours=neighbours)

    @torch.inference_mode()
    def score(self, taps: Taps) -> Float[Tensor, "n h w"]:
        """Mean distance of each patch to its nearest neighbours, float32, at least 0.

        Raises :class:`CheckpointError` for maps of another height or width of features.
        """
        joined = _joined(taps)
        if joined.shape[1] != len(self.patches) or joined.shape[3] != len(self.mean):
            raise CheckpointError(f"one-class bank: made for {len(self.patches)} rows of width {len(self.mean)}, got "
                                  f"{tuple(joined.shape[1:])}; adapt again with this backbone and frame size")
        device = joined.device
        reduced = (joined - self.mean.to(device)) @ self.projection.to(device)
        rows = reduced.transpose(0, 1).flatten(1, 2)                                   # (h, n * w, d)
        distance = torch.cdist(rows, self.patches.to(device))
        near = distance.topk(min(self.neighbours, distance.shape[-1]), largest=False).values.mean(-1)
        return near.view(len(self.patches), len(joined), -1).transpose(0, 1).contiguous()

    def save(self, path: Path | str, *, backbone_fingerprint: str) -> Path:
        """Write as safetensors, atomically. Raises :class:`tvad.errors.StorageError` when the disk refuses."""
        state = {"mean": self.mean, "projection": self.projection, "patches": self.patches.half()}
        return write_weights(path, state, {"kind": "normal-bank", "neighbours": self.neighbours,
                                           "backbone_fingerprint": backbone_fingerprint})

    @classmethod
    def load(cls, path: Path | str, *, backbone: Any = None) -> NormalBank:
        """Read what :meth:`save` wrote. Raises :class:`CheckpointError` for another kind of file or backbone."""
        state, record = read_weights(path, remedy="adapt again: make adapt VIDEO=…")
        if record.get("kind") != "normal-bank":
            raise CheckpointError(f"{path}: holds {json.dumps(record.get('kind'))}, wanted a bank of normal patches; "
                                  "adapt again: make adapt VIDEO=…")
        if backbone is not None and record.get("backbone_fingerprint") != backbone.fingerprint:
            raise CheckpointError(f"{path}: made with another backbone than {backbone.name}; "
                                  "adapt again: make adapt VIDEO=…")
        return cls(state["mean"], state["projection"], state["patches"], neighbours=int(record["neighbours"]))


def _joined(taps: Taps) -> Float[Tensor, "n h w k"]:
    """All taps side by side, each with its own length set to one, so that no block outweighs the others."""
    return torch.cat([torch.nn.functional.normalize(tap.float(), dim=-1) for tap in taps], -1)
