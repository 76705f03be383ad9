"""Stage 1 of the zoo: the vision tower learns ordinary dense facts of frame pairs.

Linear read-outs on two late blocks and on the merged tokens predict, for each patch, the share of every kind of surface,
object and motion, the image velocity, ground speed and size of the actor there, and its colour words (facts.py).  The
read-outs are thrown away; what stays is the stock tower and its merger.  Frame pairs are rendered in blocks, each decided
by its number alone, and a window of blocks slides over them: memory stays bounded and a run depends on its seed only.
"""

from __future__ import annotations

import logging
import math
import multiprocessing
import os
import time
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm.auto import tqdm
from transformers.image_utils import OPENAI_CLIP_MEAN as IMAGE_MEAN
from transformers.image_utils import OPENAI_CLIP_STD as IMAGE_STD

from tvad.backbones import vision
from tvad.backbones.pretrain.facts import COLOUR_INDEX, NO_COLOUR, pairs
from tvad.backbones.pretrain.loop import Optimizers, load_state, save_state
from tvad.backbones.refilm import disturb
from tvad.scenes.types import MOTIONS, PARTS

log = logging.getLogger(__name__)
SELDOM = [0.0 if motion in ("walking", "standing", "talking", "sitting", "driving") else 1.0 for motion in MOTIONS]
FIELDS = ("frames", "parts", "motions", "velocity", "colours")


@dataclass(frozen=True)
class VisionStage:
    """What decides stage 1. A visit is one frame pair seen once."""

    scenes: tuple[str, ...]
    rounds: int = 30  # one new block of pairs each
    block: int = 384  # frame pairs in a block
    window: int = 10  # blocks to draw from
    visits: int = 1280  # full-size pairs drawn in a round, or as many crops as have their patches
    batch: int = 8  # full-size pairs in a step, or as many crops as have their patches
    cropped: float = 0.8  # share of the rounds on crops around actors: nine tenths of a frame are bare ground
    crop: int = 120  # side of a crop: one attention window
    learning_rate: float = 1e-3
    method: str = "Muon (3 x learning_rate) in the blocks, AdamW elsewhere; 2"  # raise with any change of loss or draws
    seed: int = 0
    height: int = 240
    width: int = 360


def render_block(directory: str, number: int, stage: VisionStage, patch: int) -> str:
    """Render block ``number`` to ``directory``; a finished block is kept, a half-written one never seen."""
    target = Path(directory) / f"block{number:04d}.npz"
    if not target.exists():
        stream = pairs(
            scenes=list(stage.scenes), seed=stage.seed * 100_003 + number, patch=patch, size=(stage.height, stage.width)
        )
        rows = [next(stream) for _ in range(stage.block)]
        arrays = {"frames": np.stack([frames for frames, _ in rows])}
        arrays |= {name: np.stack([getattr(facts, name) for _, facts in rows]) for name in FIELDS[1:]}
        beside = target.with_suffix(".part.npz")
        np.savez(beside, **arrays)
        beside.rename(target)
    return str(target)


class Readout(nn.Module):
    """Linear read-out of all facts from one feature map."""

    SIZES = (len(PARTS), len(MOTIONS) + 1, 4, len(COLOUR_INDEX), len(COLOUR_INDEX))

    def __init__(self, width: int):
        super().__init__()
        self.norm, self.linear = nn.LayerNorm(width), nn.Linear(width, sum(self.SIZES))

    def forward(self, features: Tensor) -> tuple[Tensor, ...]:
        return self.linear(self.norm(features.float())).split(self.SIZES, -1)


def fact_loss(predicted: tuple[Tensor, ...], batch: dict[str, Tensor]) -> Tensor:
    """Soft cross-entropy of shares, Huber of numbers, cross-entropy of colours; patches with actors weigh more."""
    parts, motions, numbers, tops, bottoms = predicted
    cover = batch["motions"].sum(-1).clamp(max=1)
    seldom = batch["motions"] @ batch["motions"].new_tensor(SELDOM)
    # Small actors fill few patches: they weigh more, by their height, and large ones less.
    near = actor_area(batch["velocity"][..., 3]).sqrt().clamp(0.5, 4)
    weight = 1 + (8 * cover + 24 * seldom) / near
    still = (1 - batch["motions"].sum(-1, keepdim=True)).clamp(min=0)
    kinds = torch.cat([batch["motions"], still], -1)
    loss = (weight * -(batch["parts"] * parts.log_softmax(-1)).sum(-1)).mean() / 2
    loss = loss + (weight * -(kinds * motions.log_softmax(-1)).sum(-1)).mean()
    actors = cover.sum().clamp(min=1)
    scale = numbers.new_tensor([4.0, 4.0, 2.0, 2.0])
    shift = numbers.new_tensor([0.0, 0.0, 0.0, 5.0])
    huber = F.smooth_l1_loss(numbers, (batch["velocity"] - shift) / scale, reduction="none", beta=0.2).sum(-1)
    loss = loss + (cover * huber).sum() / actors
    for logits, wanted in ((tops, batch["colours"][..., 0]), (bottoms, batch["colours"][..., 1])):
        known = (cover > 0.2) & (wanted != NO_COLOUR)
        if known.any():
            loss = loss + 0.15 * F.cross_entropy(logits[known], wanted[known])
    return loss


def to_maps(raw: dict[str, np.ndarray]) -> dict[str, Tensor]:
    """Stored facts (n, k, h, w) to float maps (n, h, w, k)."""
    maps = {name: torch.from_numpy(raw[name]).movedim(1, -1) for name in FIELDS[1:]}
    return {
        "parts": maps["parts"].float() / 255,
        "motions": maps["motions"].float() / 255,
        "velocity": maps["velocity"].float(),
        "colours": maps["colours"].long(),
    }


def merge_maps(maps: dict[str, Tensor], merge: int) -> dict[str, Tensor]:
    """Facts at the coarser grid of the merged tokens: shares are averaged, numbers taken where the actor covers most."""

    def grouped(x: Tensor) -> Tensor:
        n, h, w, k = x.shape
        return x.view(n, h // merge, merge, w // merge, merge, k).permute(0, 1, 3, 2, 4, 5).flatten(3, 4)

    cover = grouped(maps["motions"].sum(-1, keepdim=True)).squeeze(-1).argmax(-1)[..., None, None]
    coarse = {name: grouped(maps[name]).mean(3) for name in ("parts", "motions")}
    for name in ("velocity", "colours"):
        groups = grouped(maps[name])
        coarse[name] = groups.gather(3, cover.expand(*groups.shape[:3], 1, groups.shape[-1])).squeeze(3)
    return coarse


def train_vision(
    visual: nn.Module, stage: VisionStage, *, work: Path, device: str = "cpu", stop_after: int | None = None
) -> dict[str, float]:
    """Train the tower in place; resumes from ``work/vision.pt``.  Returns the last losses and the minutes spent.

    ``stop_after``: end early after that many rounds, as an interruption would.
    """
    work.mkdir(parents=True, exist_ok=True)
    spec, began = visual.config, time.perf_counter()
    merge = spec.spatial_merge_size
    vision.quicken(visual).to(device).train()
    torch.manual_seed(stage.seed)
    late = [spec.depth - 1, spec.fullatt_block_indexes[-2]]
    heads = nn.ModuleList([Readout(spec.hidden_size), Readout(spec.hidden_size), Readout(spec.out_hidden_size)]).to(device)
    parameters = [*visual.parameters(), *heads.parameters()]
    steps_a_round = stage.visits // stage.batch
    total = stage.rounds * steps_a_round
    named = [*visual.named_parameters(), *heads.named_parameters()]
    optimizer = Optimizers(named, learning_rate=stage.learning_rate, steps=total)
    average = torch.optim.swa_utils.AveragedModel(visual, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.999))
    state = dict(visual=visual, heads=heads, optimizer=optimizer, average=average)
    losses, checkpoint = [], work / "vision.pt"
    if first := load_state(checkpoint, device=device, **state):
        log.warning("resuming stage 1 at round %d of %d (%s)", first, stage.rounds, checkpoint)
    blocks = _Blocks(work / "blocks", stage, spec.patch_size)
    with blocks, tqdm(total=total, initial=first * steps_a_round, desc="vision facts", mininterval=5) as bar:
        for number in range(first, min(stage.rounds, stop_after or stage.rounds)):
            window = blocks.window(number)
            generator = torch.Generator().manual_seed(stage.seed * 7919 + number)
            small = number < stage.cropped * stage.rounds
            times = stage.height * stage.width // stage.crop**2 if small else 1
            drawn = torch.randint(len(window) * stage.block, (stage.visits * times,), generator=generator)
            for rows in drawn.split(stage.batch * times):
                raw = blocks.gather(window, rows.tolist())
                raw = crop_pairs(raw, generator, side=stage.crop, patch=spec.patch_size, merge=merge) if small else raw
                loss = _step(visual, heads, raw, generator, late=late, merge=merge, device=device)
                optimizer.zero_grad()
                loss.backward()
                nn.utils.clip_grad_norm_(parameters, 1.0)
                optimizer.step()
                average.update_parameters(visual)
                losses.append(loss.item())
                bar.update()
                bar.set_postfix(loss=f"{np.mean(losses[-50:]):.3f}", round=number, refresh=False)
            save_state(checkpoint, number + 1, **state)
    visual.load_state_dict(average.module.state_dict())
    return {
        "loss": float(np.mean(losses[-100:])) if losses else math.nan,
        "minutes": (time.perf_counter() - began) / 60,
    }


def crop_pairs(
    raw: dict[str, np.ndarray], generator: torch.Generator, *, side: int, patch: int, merge: int
) -> dict[str, np.ndarray]:
    """Every pair and its facts cut to a square of ``side`` pixels around an actor, aligned to the merge blocks.

    The place is drawn from the patches that actors cover, so that a small actor is met as often as a large one and seldom
    motions four times as often, and shifted by chance; a pair without actors is cut anywhere.
    """
    n, _, height, width, _ = raw["frames"].shape
    step, cells = patch * merge, side // (patch * merge)
    rows, columns = height // step - cells, width // step - cells
    cover = torch.from_numpy(raw["motions"]).float().movedim(1, -1)
    likely = cover @ (1 + 3 * torch.tensor(SELDOM)) / 255
    likely = likely / actor_area(torch.from_numpy(raw["velocity"][:, 3]).float()) + 1e-9
    centre = torch.multinomial(likely.flatten(1), 1, generator=generator)[:, 0]
    shift = torch.randint(-(cells // 3), cells // 3 + 1, (2, n), generator=generator) - cells // 2
    tops = (centre // (width // patch) // merge + shift[0]).clamp(0, rows).tolist()
    lefts = (centre % (width // patch) // merge + shift[1]).clamp(0, columns).tolist()

    def cut(array: np.ndarray, unit: int) -> np.ndarray:
        places = [
            (slice(top * unit, (top + cells) * unit), slice(left * unit, (left + cells) * unit))
            for top, left in zip(tops, lefts, strict=True)
        ]
        return np.stack([item[:, r, c] for item, (r, c) in zip(array, places, strict=True)])

    return {name: cut(value, step if name == "frames" else merge) for name, value in raw.items()}


def actor_area(log_height: Tensor) -> Tensor:
    """Area of an actor relative to one of 32 pixels height, from 1/8 up: facts hold log2 of the height in pixels."""
    return (4 ** (log_height - 5)).clamp(min=1 / 8)


def _step(visual, heads, raw, generator, *, late, merge, device) -> Tensor:
    frames = disturb(torch.from_numpy(raw["frames"]), generator).flatten(0, 1).to(device)
    maps = {name: value.to(device) for name, value in to_maps(raw).items()}
    flat, grid = vision.patchify(frames, patch=visual.patch_size, merge=merge, temporal=2, mean=IMAGE_MEAN, std=IMAGE_STD)
    with torch.autocast(torch.device(device).type, torch.bfloat16):
        taps, merged = vision.run_tower(visual, flat, grid=grid, taps=late)
    t, h, w = grid
    loss = fact_loss(heads[0](taps[0]), maps) + 0.4 * fact_loss(heads[1](taps[1]), maps)
    return loss + 0.5 * fact_loss(heads[2](merged.view(t, h // merge, w // merge, -1)), merge_maps(maps, merge))


class _Blocks:
    """Blocks on disk, rendered ahead by worker processes, read through memory maps."""

    def __init__(self, directory: Path, stage: VisionStage, patch: int):
        self.directory, self.stage, self.patch = directory, stage, patch
        self.waiting: dict[int, Future] = {}
        self.open: dict[int, dict[str, np.ndarray]] = {}

    def __enter__(self):
        self.directory.mkdir(parents=True, exist_ok=True)
        self.pool = ProcessPoolExecutor(
            2, mp_context=multiprocessing.get_context("spawn"), initializer=os.nice, initargs=(15,)
        )
        return self

    def __exit__(self, *_):
        self.pool.shutdown(wait=False, cancel_futures=True)

    def window(self, number: int) -> list[int]:
        """Block numbers of round ``number``; waits for them and orders the next ones."""
        last = number + self.stage.window
        for block in range(number, last + 2):
            if block not in self.waiting:
                self.waiting[block] = self.pool.submit(render_block, str(self.directory), block, self.stage, self.patch)
        for block in range(number, last):
            if block not in self.open:
                with np.load(self.waiting[block].result()) as stored:
                    self.open[block] = {name: stored[name] for name in FIELDS}
        for block in [b for b in self.open if b < number]:
            del self.open[block]
            (self.directory / f"block{block:04d}.npz").unlink(missing_ok=True)
        return list(range(number, last))

    def gather(self, window: list[int], rows: list[int]) -> dict[str, np.ndarray]:
        places = [(window[row // self.stage.block], row % self.stage.block) for row in rows]
        return {name: np.stack([self.open[block][name][at] for block, at in places]) for name in FIELDS}
