"""Training of a tower's adapter together with the decoder, on crops of the pairs from which the decoder was adapted.

Nine tenths of a frame are bare ground and full attention is quadratic in the patches, so most steps see crops of one
attention window around pasted events and around what moves; some steps see whole frames, so that the blocks of full
attention keep their reach.  Crops are mirrored and their light is varied: pictures may be, stored features may not.
Labels within a crop are those of the whole pair.  The level that a decoder learns on crops is not that of frames, which
is why the decoder is fine-tuned once more on frames afterwards (``tvad.training.adapt.run``).
"""
from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn
from tqdm.auto import tqdm

from tvad.adaptation.tower import TowerTwin
from tvad.backbones import vision
from tvad.heatmap import AnomalyHeatmapDecoder
from tvad.training.adapt.config import AdaptConfig
from tvad.training.adapt.loop import LATER, counts_of, rows_of
from tvad.training.cache import seen_pair
from tvad.training.checkpoint import Checkpoints, RunState
from tvad.training.losses import pixel_loss
from tvad.training.targets import cover, labels_of, nearest

_MOVING = 0.75      # share of the crops around what moves or what was pasted; the others lie anywhere
_LIGHT = 0.5        # share of the crops with another light


@dataclass
class Pictures:
    """Pairs of one source as the tower is to see them: ``frames`` (n, 2, h, w, 3), ``targets`` and ``change`` on the
    patch grid (n, gh, gw), the latter how much a patch moves, 0..1 of the most in its pair."""
    name: str
    share: float
    frames: UInt8[np.ndarray, "n 2 h w 3"]
    targets: UInt8[np.ndarray, "n gh gw"]
    change: Float[np.ndarray, "n gh gw"]

    @property
    def pairs(self) -> UInt8[np.ndarray, "n gh gw"]:
        """What is counted by ``rows_of``."""
        return self.targets


def photograph(name: str, videos: Sequence[Any], starts: Mapping[str, Sequence[int]], share: float, *, backbone: Any,
               config: AdaptConfig, folder: Path, refilmed: float = 0.0, progress: bool = True) -> Pictures:
    """Make the pictures of a source at the tower's input size; frames lie in a file of ``folder``, not in memory."""
    places = [(video, start) for video in videos for start in starts[video.id]]
    # An enlarged tower learns from pictures as large as those that it will see.
    height, width = getattr(backbone, "seen_size", backbone.input_size)(*videos[0].frames.size)
    grid = (height // backbone.patch_size, width // backbone.patch_size)
    frames = np.lib.format.open_memmap(folder / f"{name}.npy", "w+", np.uint8, (len(places), 2, height, width, 3))
    targets, change = np.zeros((len(places), *grid), np.uint8), np.zeros((len(places), *grid), np.float32)
    for row, (video, start) in enumerate(tqdm(places, desc=f"pictures ({name})", unit="pair", disable=not progress)):
        clip, masks = seen_pair(video, start, 2, refilmed)
        frames[row] = _sized(clip.frames, (height, width))
        targets[row] = labels_of(cover(masks, grid)[None], nearest(masks, grid)[None], rule=config.target_rule,
                                 threshold=config.target_threshold)[0]
        moved = np.abs(frames[row, 1].astype(np.int16) - frames[row, 0]).max(-1).astype(np.float32)
        change[row] = moved.reshape(grid[0], height // grid[0], grid[1], width // grid[1]).mean((1, 3))
        change[row] /= max(float(change[row].max()), 1e-6)
    return Pictures(name, share, frames, targets, change)


def _sized(frames: UInt8[np.ndarray, "t h w 3"], size: tuple[int, int]) -> UInt8[np.ndarray, "2 h w 3"]:
    from torchvision.transforms.v2 import functional as transform

    if len(frames) == 1:
        frames = np.repeat(frames, 2, axis=0)
    if frames.shape[1:3] == size:
        return frames
    images = torch.from_numpy(np.ascontiguousarray(frames)).permute(0, 3, 1, 2)
    sized = transform.resize(images, list(size), transform.InterpolationMode.BICUBIC, antialias=True)
    return sized.permute(0, 2, 3, 1).numpy()


class _Both(nn.Module):
    """Decoder and adapter as one module, for checkpoints."""

    def __init__(self, decoder: AnomalyHeatmapDecoder, adapter: Mapping[str, nn.Parameter]) -> None:
        super().__init__()
        self.decoder = decoder
        self.adapter = nn.ParameterList([value for _, value in sorted(adapter.items())])


def train_tower(twin: TowerTwin, decoder: AnomalyHeatmapDecoder, pictures: Callable[[], Sequence[Pictures]], *,
                config: AdaptConfig, prototypes: Float[Tensor, "2 d"], folder: Path, identity: str,
                stop_after: int | None = None, progress: bool = True) -> list[dict[str, float]]:
    """Train adapter and decoder in place for ``config.tower_steps``; returns a record of the loss every
    ``validate_every`` steps.

    ``pictures``: makes the sources; it is not called where nothing is left to train.  ``identity``: hash of what decides
    the pictures and the weights before; it names the checkpoints under ``folder``.  A run that was broken off goes on.
    """
    both = _Both(decoder, twin.adapter)
    optimizer = torch.optim.AdamW([{"params": list(both.adapter), "lr": config.tower_rate, "weight_decay": 0.0},
                                   {"params": list(decoder.parameters()), "lr": config.learning_rate,
                                    "weight_decay": config.weight_decay}])
    peaks = [group["lr"] for group in optimizer.param_groups]
    store = Checkpoints(folder / "checkpoints", key=_key(config, identity), keep=1)
    state = store.load(both, optimizer) or RunState(step=0, history=[], best=None, best_weights=None, losses=[])
    sources = pictures() if state.step < config.tower_steps else ()
    decoder.train()
    text = prototypes.to(twin.backbone.device)
    bar = tqdm(total=config.tower_steps, initial=state.step, desc="adapting the tower", unit="step", disable=not progress)
    while state.step < config.tower_steps and (stop_after is None or state.step < stop_after):
        for group, peak in zip(optimizer.param_groups, peaks):
            group["lr"] = peak * config.rate(state.step, config.tower_steps) / config.learning_rate
        optimizer.zero_grad()
        state.losses.append(_step(twin.backbone, decoder, sources, config, state.step, text))
        torch.nn.utils.clip_grad_norm_(both.parameters(), config.clip_norm)
        optimizer.step()
        state.step += 1
        bar.update()
        if state.step % config.validate_every == 0 or state.step == config.tower_steps:
            state.history.append({"step": state.step, "train_loss": float(np.mean(state.losses))})
            state.losses.clear()
            bar.set_postfix(loss=f"{state.history[-1]['train_loss']:.4f}")
            store.save(state, both, optimizer)
    bar.close()
    decoder.eval()
    return state.history


def _key(config: AdaptConfig, identity: str) -> str:
    settings = {name: value for name, value in asdict(config).items() if name not in LATER}
    return hashlib.sha256(json.dumps(["tower-2", settings, identity], sort_keys=True).encode()).hexdigest()[:16]


def _step(backbone: Any, decoder: AnomalyHeatmapDecoder, sources: Sequence[Pictures], config: AdaptConfig, step: int,
          text: Float[Tensor, "2 d"]) -> float:
    """Gradients of one step over crops, or over whole frames of as many patches; sources of one size go together."""
    unit = backbone.patch_size * backbone.merge_size
    side = max(unit, config.tower_crop // unit * unit)
    size = tuple(min(side, *(one.frames.shape[axis] for one in sources)) for axis in (2, 3))
    # Steps of whole frames are spread evenly over the run.
    whole = math.floor((step + 1) * config.tower_whole) > math.floor(step * config.tower_whole)
    room = sources[0].frames.shape[2] * sources[0].frames.shape[3]
    batch = max(1, round(config.tower_batch * size[0] * size[1] / room)) if whole else config.tower_batch
    groups: dict[tuple[int, int], list[Any]] = {}
    for place, (source, count) in enumerate(zip(sources, counts_of(sources, batch))):
        rng, seen = np.random.default_rng([config.seed, 64, step, place]), source.frames.shape[2:4] if whole else size
        rows = rows_of(source, place, count, step, config.seed + (7 if whole else 0))
        groups.setdefault(seen, []).extend(_picture(source, row, seen, unit, backbone.patch_size, rng) for row in rows)
    total, number = 0.0, sum(map(len, groups.values()))
    for parts in groups.values():
        loss = _loss(backbone, decoder, parts, config, text) * (len(parts) / number)
        loss.backward()
        total += float(loss.detach())
    return total


def _loss(backbone: Any, decoder: AnomalyHeatmapDecoder, parts: Sequence[tuple[np.ndarray, np.ndarray]],
          config: AdaptConfig, text: Float[Tensor, "2 d"]) -> Float[Tensor, ""]:
    frames = torch.from_numpy(np.concatenate([pair for pair, _ in parts])).to(backbone.device)
    target = torch.from_numpy(np.stack([labels for _, labels in parts]).astype(np.float32)).to(backbone.device)
    flat, grid = vision.patchify(frames, patch=backbone.patch_size, merge=backbone.merge_size,
                                 temporal=backbone.temporal_patch_size, mean=backbone.processing["image_mean"],
                                 std=backbone.processing["image_std"])
    half = backbone.dtype == torch.bfloat16
    with torch.autocast(backbone.device.type, torch.bfloat16) if half else nullcontext():
        taps, _ = backbone.forward(flat, grid)
    return pixel_loss(config.loss)(decoder(taps, text), target)


def _picture(source: Pictures, row: int, size: tuple[int, int], unit: int, patch: int, rng: np.random.Generator):
    """A crop of a pair and its labels: around an event where there is one, around what moves, or anywhere."""
    frames, target = source.frames[row], source.targets[row]
    top = left = 0
    if size != frames.shape[1:3]:
        likely = target if target.any() and rng.random() < 0.6 else source.change[row] ** 2
        if rng.random() > _MOVING or not likely.any():
            likely = np.ones_like(likely)
        spot = int(rng.choice(likely.size, p=likely.ravel() / likely.sum(dtype=np.float64)))
        # Somewhere about the spot, on the grid of merged patches.
        middle = np.array(divmod(spot, likely.shape[1])) * patch - np.array(size) * rng.uniform(0.2, 0.8, 2)
        room = np.array(frames.shape[1:3]) - size
        top, left = (np.clip(np.round(middle / unit), 0, room // unit) * unit).astype(int).tolist()
    pair = frames[:, top:top + size[0], left:left + size[1]]
    labels = target[top // patch:(top + size[0]) // patch, left // patch:(left + size[1]) // patch]
    if rng.random() < 0.5:
        pair, labels = pair[:, :, ::-1], labels[:, ::-1]
    if rng.random() < _LIGHT:
        pair = _relit(pair, rng)
    return np.ascontiguousarray(pair), np.ascontiguousarray(labels)


def _relit(pair: UInt8[np.ndarray, "2 h w 3"], rng: np.random.Generator) -> UInt8[np.ndarray, "2 h w 3"]:
    """Another gamma, gain and offset, as hours and clouds give them; the same for both frames."""
    gamma, gain, offset = rng.uniform(0.8, 1.25), rng.uniform(0.85, 1.15), rng.uniform(-12, 12)
    table = np.clip(255 * (np.arange(256) / 255) ** gamma * gain + offset, 0, 255).round().astype(np.uint8)
    return table[pair]
