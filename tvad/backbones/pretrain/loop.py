"""What both training stages share: optimizer, learning rate, and checkpoints that are whole or absent."""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import nn


def adamw(parameters: Iterable[nn.Parameter], *, learning_rate: float, steps: int):
    """AdamW and its schedule: 100 steps of warm-up, then a cosine to 2 % of the peak."""
    optimizer = torch.optim.AdamW(parameters, lr=learning_rate, weight_decay=0.02, betas=(0.9, 0.98), fused=True)

    def factor(step: int) -> float:
        return min(1, (step + 1) / 100) * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * min(1, step / steps))))

    return optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, factor)


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
