"""Whole training states on disk, of which a broken run goes on exactly.

A checkpoint is a folder: weights, best weights and optimizer moments as safetensors, counters as JSON, and
``complete.json`` with the hash of each file, written last.  A folder without it, or whose hashes differ, is skipped and
that is said: "latest by number" alone is the commonest cause of a failed resume.
"""
from __future__ import annotations

import json
import logging
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Mapping

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from tvad.record import atomic_path, complete, is_complete, reopen, write_json

_LOG = logging.getLogger(__name__)


@dataclass
class RunState:
    """Where a run stands: ``step`` done, ``history`` of validations, the ``best`` of them with its weights, and the
    ``losses`` since the last one."""
    step: int
    history: list[dict[str, Any]]
    best: dict[str, Any] | None
    best_weights: dict[str, Tensor] | None
    losses: list[float]


class Checkpoints:
    """The checkpoints of one run under ``root``; ``key`` tells runs of other data, model or configuration apart."""

    def __init__(self, root: Path, *, key: str, keep: int = 2) -> None:
        self.root, self.keep = Path(root) / key, keep

    def save(self, state: RunState, model: torch.nn.Module, optimizer: Any) -> Path:
        """Write a checkpoint, then delete those before the last ``keep``. Raises StorageError when the disk refuses."""
        folder = self.root / f"step-{state.step:07d}"
        reopen(folder)
        tensors = {"model": model.state_dict(), "optimizer": _moments(optimizer), "best": state.best_weights or {}}
        for name, entries in tensors.items():
            with atomic_path(folder / f"{name}.safetensors") as beside:
                save_file({key: value.detach().cpu().contiguous() for key, value in entries.items()}, beside)
        write_json(folder / "state.json", {"step": state.step, "history": state.history, "best": state.best,
                                           "losses": state.losses})
        complete(folder, [*(f"{name}.safetensors" for name in tensors), "state.json"])
        for old in self._folders()[:-self.keep]:
            shutil.rmtree(old, ignore_errors=True)
        return folder

    def load(self, model: torch.nn.Module, optimizer: Any) -> RunState | None:
        """Put the last whole checkpoint into model and optimizer; None when there is none."""
        for folder in reversed(self._folders()):
            whole, reason = is_complete(folder)
            if not whole:
                _LOG.warning("checkpoint skipped: %s", reason)
                continue
            model.load_state_dict(load_file(folder / "model.safetensors"))
            _restore(optimizer, load_file(folder / "optimizer.safetensors"))
            state = json.loads((folder / "state.json").read_text(encoding="utf-8"))
            best = load_file(folder / "best.safetensors")
            return RunState(state["step"], state["history"], state["best"], best or None, state["losses"])
        return None

    def _folders(self) -> list[Path]:
        return sorted(self.root.glob("step-*"))


def _moments(optimizer: Any) -> dict[str, Tensor]:
    """AdamW's state as named tensors: no pickle."""
    state = optimizer.state_dict()["state"]
    return {f"{index}.{name}": torch.as_tensor(value)
            for index, entry in state.items() for name, value in entry.items()}


def _restore(optimizer: Any, moments: Mapping[str, Tensor]) -> None:
    state = optimizer.state_dict()
    state["state"] = {}
    for name, value in moments.items():
        index, entry = name.split(".", 1)
        state["state"].setdefault(int(index), {})[entry] = value
    optimizer.load_state_dict(state)
