"""What both training stages share: optimizer, learning rate, and checkpoints that are whole or absent."""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import nn


class Optimizers:
    """Muon for the matrices inside the blocks, AdamW for all else, one schedule: warm-up, then a cosine to 2 %.

    In 200 steps of the tower Muon (orthogonalised momentum) came further than AdamW at the one rate tried (docs/LOG.md).
    Its steps are scaled to the size of AdamW's and then multiplied by ``gain``.
    """

    def __init__(self, named: Iterable[tuple[str, nn.Parameter]], *, learning_rate: float, steps: int, gain: float = 3.0,
                 warm_up: int = 100):
        named = list(named)
        inside = [value for name, value in named if value.ndim == 2 and ("blocks." in name or "layers." in name)]
        chosen = {id(value) for value in inside}
        rest = [value for _, value in named if id(value) not in chosen]
        fitted = {"weight_decay": 0.02, "adjust_lr_fn": "match_rms_adamw"}
        self.parts = [
            torch.optim.Muon(inside, lr=gain * learning_rate, **fitted),
            torch.optim.AdamW(rest, lr=learning_rate, weight_decay=0.02, betas=(0.9, 0.98), fused=True),
        ]

        def factor(step: int) -> float:
            return min(1, (step + 1) / warm_up) * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * min(1, step / steps))))

        self.schedules = [torch.optim.lr_scheduler.LambdaLR(part, factor) for part in self.parts]

    def step(self) -> None:
        """Update the parameters from their gradients, then the learning rates."""
        for part, schedule in zip(self.parts, self.schedules, strict=True):
            part.step()
            schedule.step()

    def zero_grad(self) -> None:
        """Forget the gradients."""
        for part in self.parts:
            part.zero_grad(set_to_none=True)

    def state_dict(self) -> dict[str, Any]:
        """All that a run needs to go on."""
        return {str(k): item.state_dict() for k, item in enumerate([*self.parts, *self.schedules])}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where ``state`` was taken."""
        for k, item in enumerate([*self.parts, *self.schedules]):
            item.load_state_dict(state[str(k)])


def save_state(path: Path, done: int, **items: Any) -> None:
    """Write the state of everything named, and how much is done; beside first, then renamed."""
    state = {name: item.state_dict() for name, item in items.items()} | {"done": done}
    torch.save(state, path.with_suffix(".part"))
    path.with_suffix(".part").rename(path)


def load_state(path: Path, *, device: str, **items: Any) -> int:
    """Bring everything named to the saved state; returns how much was done, 0 without a checkpoint."""
    if not path.exists():
        return 0
    state = torch.load(path, weights_only=True, map_location=device)
    for name, item in items.items():
        item.load_state_dict(state[name])
    return state["done"]
