"""Phase 1: train the Anomaly Heatmap Decoder on cached features of the frozen tower.

As in the paper: AdamW, peak learning rate 1e-3 with a warm-up of one tenth, pixel cross-entropy.  Differently:

* Each step sees a batch of frame pairs and, of each, a draw of its patches (all anomalous ones up to half of the draw,
  the rest uniform, weighted so that the loss stays an unbiased estimate of the full map's).  The paper variant treats
  patches independently; the thesis variant couples rows, so it always sees whole maps.
* The learning rate follows a cosine instead of the thesis' home-made rule, which dies within half an epoch.
* Validation videos choose the checkpoint: the one with the best mean of pixel AUROC and micro AUC over evenly spaced
  validation pairs (a pair's score is the mean of its top 1 % of patches).  Both are what the detector is measured by;
  the validation loss is recorded beside them.

Every random draw is a pure function of (seed, epoch, row), so a resumed run needs no generator state: weights,
optimizer and step give the unbroken run bit for bit.  Under Accelerate each process takes its share of every batch.
"""
from __future__ import annotations

import hashlib
import json
import math
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Sequence

import numpy as np
import torch
from accelerate import Accelerator
from jaxtyping import Float, Int, UInt8
from torch import Tensor
from tqdm.auto import tqdm

from tvad.detection import top_mean
from tvad.errors import DatasetError, ParameterError
from tvad.heatmap import AnomalyHeatmapDecoder
from tvad.metrics.frame import micro_auc
from tvad.metrics.pixel import pixel_auroc
from tvad.prompts import prototypes as text_prototypes
from tvad.record import write_json
from tvad.training.cache import PairSet, cache_pairs
from tvad.training.checkpoint import Checkpoints, RunState
from tvad.training.common import FromParameters, PairTraining, TrainResult
from tvad.training.losses import pixel_loss
from tvad.training.targets import RULES, choose_pairs, spaced_pairs


@dataclass(frozen=True)
class Phase1Config(FromParameters, PairTraining):
    """Everything that decides the trained weights.

    ``train_pairs`` frame pairs, spread over the training videos (``pairs_per_video`` each where that is not 0, so that
    splits of different size share cached videos), and ``val_pairs`` evenly spaced validation pairs are cached.
    ``pair_seed`` chooses them and is apart from ``seed`` (initial weights, order, patch draws), so that several seeds
    share one cache.  ``refilmed`` of the training pairs are seen through another camera; validation pairs
    never are.  ``batch_size`` counts pairs; ``patches_per_pair`` 0 means whole maps.
    """
    phase: ClassVar[str] = "phase 1"
    loss: str = "cross_entropy"
    target_rule: str = "any"
    target_threshold: float = 0.25
    variant: str = "paper"
    contrast: str = "centred"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.target_rule not in RULES:
            raise ParameterError(f"phase 1: unknown target_rule {self.target_rule!r}; give one of {', '.join(RULES)}")
        pixel_loss(self.loss)


@dataclass
class _Run:
    """One training run in memory."""
    config: Phase1Config
    train: PairSet
    val: PairSet
    text: Float[Tensor, "2 d"]
    accelerator: Accelerator
    targets: UInt8[np.ndarray, "n h w"] = field(init=False)
    val_targets: UInt8[np.ndarray, "n h w"] = field(init=False)

    def __post_init__(self) -> None:
        rule = {"rule": self.config.target_rule, "threshold": self.config.target_threshold}
        self.targets, self.val_targets = self.train.targets(**rule), self.val.targets(rule="any")
        if not self.targets.any() or not self.val.anomalous.any():
            raise DatasetError("phase 1 needs anomalous pairs both in training and in validation; this split has none "
                               "in one of them")
        # At most 20: rarer than that, single patches would rule a batch.
        self.positive_weight = min(20.0, float(1 / self.targets.mean() - 1))
        self.text = self.text.to(self.accelerator.device)

    @property
    def steps_per_epoch(self) -> int:
        return math.ceil(len(self.train) / self.config.batch_size)


def train_heatmap(config: Phase1Config, backbone: Any, *, train: Sequence[Any], val: Sequence[Any],
                  output_dir: Path | str, cache_dir: Path | str = "data/cache",
                  prototypes: Float[Tensor, "2 d"] | None = None, stop_after: int | None = None,
                  progress: bool = True) -> TrainResult:
    """Cache the features that are missing, train, and leave ``output_dir/ahd.safetensors``.

    ``train``, ``val``: videos with frame labels and masks. ``prototypes``: (normal, abnormal) text features, computed
    from the prompt ensemble when not given. ``stop_after``: end early after that many steps, as an interruption would.
    A run that was broken off goes on from its last whole checkpoint; a finished one with the same configuration, data
    and backbone returns at once.
    Raises :class:`DatasetError` for unusable splits, :class:`StorageError` when the disk refuses.
    """
    began = time.monotonic()
    accelerator = Accelerator()
    pairs = {name: _cached(config, backbone, videos, name, Path(cache_dir), accelerator, progress)
             for name, videos in (("train", train), ("val", val))}
    text = text_prototypes(backbone, cache_dir=Path(cache_dir)) if prototypes is None else prototypes
    run = _Run(config, pairs["train"], pairs["val"], text.float(), accelerator)
    decoder = _new_decoder(config, backbone).to(accelerator.device)
    optimizer = torch.optim.AdamW(decoder.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay)
    store = Checkpoints(Path(output_dir) / "checkpoints", key=_run_key(run, backbone))
    state = store.load(decoder, optimizer) or RunState(step=0, history=[], best=None, best_weights=None, losses=[])
    resumed_at = state.step
    wrapped, optimizer = accelerator.prepare(decoder, optimizer)
    total = config.steps
    bar = tqdm(total=total, initial=state.step, desc="heatmap decoder", unit="step",
               disable=not (progress and accelerator.is_main_process))
    while state.step < total and (stop_after is None or state.step < stop_after):
        state.losses.append(_step(run, wrapped, optimizer, state.step, total))
        state.step += 1
        bar.update()
        if state.step % config.validate_every == 0 or state.step == total:
            _close_interval(run, decoder, state, bar)
            if accelerator.is_main_process:
                store.save(state, decoder, optimizer)
    bar.close()
    path = Path(output_dir) / "ahd.safetensors"
    if accelerator.is_main_process and state.best is not None:
        _save_best(path, config, backbone, state)
    accelerator.wait_for_everyone()
    return TrainResult(path, tuple(state.history), state.best or {}, {name: p.summary() for name, p in pairs.items()},
                       time.monotonic() - began, resumed_at)


def _cached(config: Phase1Config, backbone: Any, videos: Sequence[Any], split: str, root: Path,
            accelerator: Accelerator, progress: bool) -> PairSet:
    if split == "train":
        count = config.pairs_per_video or max(1, config.train_pairs // max(1, len(videos)))
        starts = {video.id: choose_pairs(video, count, seed=config.pair_seed, positive_share=config.positive_share)
                  for video in videos}
    else:
        count = max(1, config.val_pairs // max(1, len(videos)))
        starts = {video.id: spaced_pairs(video, count) for video in videos}
    world, refilmed = accelerator.num_processes, config.refilmed if split == "train" else 0.0
    if world > 1:
        part = (accelerator.process_index, world)
        cache_pairs(backbone, videos, starts=starts, root=root, part=part, refilmed=refilmed, progress=progress)
        accelerator.wait_for_everyone()
    return cache_pairs(backbone, videos, starts=starts, root=root, refilmed=refilmed,
                       progress=progress and accelerator.is_main_process)


def _new_decoder(config: Phase1Config, backbone: Any) -> AnomalyHeatmapDecoder:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        return AnomalyHeatmapDecoder(taps=tuple(backbone.taps), tap_width=backbone.tap_width,
                                     hidden_width=config.hidden_width, text_width=backbone.text_width,
                                     variant=config.variant, temperature=config.temperature, contrast=config.contrast)


def untrained_decoder(config: Phase1Config, backbone: Any) -> AnomalyHeatmapDecoder:
    """The decoder as training would start it: the control that says what training adds."""
    return _new_decoder(config, backbone)


def _run_key(run: _Run, backbone: Any) -> str:
    text = hashlib.sha256(run.text.cpu().numpy().tobytes()).hexdigest()
    parts = [asdict(run.config), backbone.fingerprint, run.train.key, run.val.key, text]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def draw_patches(target: UInt8[np.ndarray, "h w"], count: int, rng: np.random.Generator):
    """``count`` patches of a map, flat indices, and their weights: anomalous ones first (up to half), the rest uniform.

    The weighted sum of a quantity over the draw estimates its sum over the map without bias.
    """
    flat = target.ravel()
    count = min(count, flat.size)
    positive, normal = np.flatnonzero(flat), np.flatnonzero(flat == 0)
    from_positive = max(min(len(positive), count // 2), count - len(normal))
    picks, weights = [], []
    for group, number in ((positive, from_positive), (normal, count - from_positive)):
        if number:
            picks.append(rng.choice(group, number, replace=False))
            weights.append(np.full(number, len(group) / number, np.float32))
    return np.concatenate(picks), np.concatenate(weights)


def _rows(run: _Run, step: int) -> np.ndarray:
    epoch, place = divmod(step, run.steps_per_epoch)
    order = np.random.default_rng([run.config.seed, 1, epoch]).permutation(len(run.train))
    return order[place * run.config.batch_size:(place + 1) * run.config.batch_size]


def patch_batch(pairs: Any, targets: UInt8[np.ndarray, "n h w"], rows: Int[np.ndarray, "b"], *, count: int,
                draw: Sequence[int]) -> tuple[list[Tensor], Float[Tensor, "b ..."], Float[Tensor, "b ..."]]:
    """Taps, targets and weights of some rows: ``count`` drawn patches a pair as (b, 1, m), or whole (b, h, w) maps for 0.

    ``pairs``: a ``PairSet``. ``draw``: seeds, to which each row adds its own, so that a draw depends on nothing else.
    """
    if not count:
        target = torch.from_numpy(targets[rows]).float()
        return pairs.read(rows), target, torch.ones_like(target)
    drawn = [draw_patches(targets[row], count, np.random.default_rng([*draw, int(row)])) for row in rows]
    patches = np.stack([chosen for chosen, _ in drawn])
    target = np.take_along_axis(targets[rows].reshape(len(rows), -1), patches, 1).astype(np.float32)
    weight = np.stack([weights for _, weights in drawn])
    return pairs.read_patches(rows, patches), torch.from_numpy(target[:, None]), torch.from_numpy(weight[:, None])


def _batch(run: _Run, rows: np.ndarray, epoch: int):
    """Taps, targets and weights of some rows; (b, 1, m) patches, or whole (b, h, w) maps for the thesis variant."""
    config = run.config
    # The thesis variant couples the rows of a map.
    count = config.patches_per_pair if config.variant == "paper" else 0
    return patch_batch(run.train, run.targets, rows, count=count, draw=[config.seed, 2, epoch])


def _step(run: _Run, model: torch.nn.Module, optimizer: Any, step: int, total: int) -> float:
    accelerator, rows = run.accelerator, _rows(run, step)
    own = rows[accelerator.process_index::accelerator.num_processes]
    # A process without a row still takes part in the gradient exchange, with weight zero.
    share = len(own) * accelerator.num_processes / len(rows)
    taps, target, weight = _batch(run, own if len(own) else rows[:1], step // run.steps_per_epoch)
    device = accelerator.device
    logits = model([tap.to(device) for tap in taps], run.text)
    loss = pixel_loss(run.config.loss)(logits, target.to(device), weight=weight.to(device),
                                       positive_weight=run.positive_weight)
    for group in optimizer.param_groups:
        group["lr"] = run.config.rate(step, total)
    optimizer.zero_grad()
    accelerator.backward(loss * share)
    accelerator.clip_grad_norm_(model.parameters(), run.config.clip_norm)
    optimizer.step()
    return float(accelerator.reduce(loss.detach() * share, reduction="mean"))


@torch.no_grad()
def _validate(run: _Run, decoder: AnomalyHeatmapDecoder) -> dict[str, float]:
    maps, losses = [], []
    for rows in np.array_split(np.arange(len(run.val)), math.ceil(len(run.val) / 32)):
        logits = decoder([tap.to(run.accelerator.device) for tap in run.val.read(rows)], run.text)
        target = torch.from_numpy(run.val_targets[rows]).float().to(logits.device)
        loss = pixel_loss(run.config.loss)(logits, target, positive_weight=run.positive_weight)
        losses.append(float(loss) * len(rows))
        maps.append(logits.softmax(1)[:, 1].cpu().numpy())
    heat = np.concatenate(maps)
    return {"val_loss": sum(losses) / len(run.val), "val_pixel_auroc": float(pixel_auroc([heat], [run.val_targets])),
            "val_micro_auc": float(micro_auc([top_mean(heat)], [run.val.anomalous]))}


def _close_interval(run: _Run, decoder: AnomalyHeatmapDecoder, state: RunState, bar: Any) -> None:
    """Validate, add the record, and keep the weights if they are the best so far (ties: the earlier)."""
    record = {"step": state.step, "train_loss": float(np.mean(state.losses)),
              **_validate(run, decoder)}
    record["selection"] = (record["val_pixel_auroc"] + record["val_micro_auc"]) / 2
    state.history.append(record)
    state.losses.clear()
    bar.set_postfix(loss=f"{record['train_loss']:.4f}", pixel=f"{record['val_pixel_auroc']:.4f}",
                    micro=f"{record['val_micro_auc']:.4f}")
    if state.best is None or record["selection"] > state.best["selection"]:
        state.best = record
        state.best_weights = {name: value.detach().cpu().clone() for name, value in decoder.state_dict().items()}


def _save_best(path: Path, config: Phase1Config, backbone: Any, state: RunState) -> None:
    decoder = _new_decoder(config, backbone)
    decoder.load_state_dict(state.best_weights)
    extra = {"backbone": backbone.name, "phase1": json.dumps(asdict(config), sort_keys=True),
             "best": json.dumps(state.best, sort_keys=True)}
    decoder.save(path, backbone_fingerprint=backbone.fingerprint, extra=extra)
    write_json(path.with_name("history.json"), state.history)
