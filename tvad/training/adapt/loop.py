"""Fine-tuning of a heatmap decoder on cached pairs of several sources, and what validation says of it.

Each batch holds fixed shares of composites, real normal pairs and rehearsal (see ``AdaptConfig.shares``); a draw of each
pair's patches is seen, as in phase 1.  Every draw is a function of (seed, step), so a resumed run equals the unbroken.
The checkpoint is chosen by held-out footage: the mean of pixel AUROC on its composites and of micro AUC between pairs with
an event and pairs without (real ones and composites of ordinary people); the weights before training take part.
"""
from __future__ import annotations

import copy
import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float32, UInt8
from torch import Tensor
from tqdm.auto import tqdm

from tvad.adaptation.evidence import log_odds
from tvad.detection import top_mean
from tvad.heatmap import AnomalyHeatmapDecoder
from tvad.metrics.frame import micro_auc
from tvad.metrics.pixel import pixel_auroc
from tvad.training.adapt.config import AdaptConfig
from tvad.training.cache import PairSet
from tvad.training.checkpoint import Checkpoints, RunState
from tvad.training.losses import pixel_loss
from tvad.training.phase1 import patch_batch

_CHUNK = 32
# Settings that the weights do not depend on by themselves.
LATER = ("kept", "fusion", "oneclass", "smoothing", "spot", "thresholds", "clips")


@dataclass
class Source:
    """One kind of training pairs and its share of every batch."""
    name: str
    pairs: PairSet
    share: float
    targets: UInt8[np.ndarray, "n h w"] = field(init=False)

    def prepare(self, config: AdaptConfig) -> None:
        """Compute the patch labels."""
        self.targets = self.pairs.targets(rule=config.target_rule, threshold=config.target_threshold)


@dataclass(frozen=True)
class HeldOut:
    """Validation pairs: ``composites``, of which about half show an event, and real ``normal`` ones."""
    composites: PairSet
    normal: PairSet

    @property
    def events(self) -> UInt8[np.ndarray, "c"]:
        """1 for a composite whose event is to be seen: one that stayed hidden behind real people is nothing to find."""
        return self.composites.targets(rule="any").any((1, 2)).astype(np.uint8)

    @property
    def labels(self) -> UInt8[np.ndarray, "n"]:
        """1 for a pair with an event: composites first, then real normal pairs."""
        return np.concatenate([self.events, np.zeros(len(self.normal), np.uint8)])

    def targets(self) -> UInt8[np.ndarray, "n h w"]:
        """Patch labels of all pairs, in the order of ``labels``."""
        masks = self.composites.targets(rule="any")     # wherever an event is touched, whatever training counts
        return np.concatenate([masks, np.zeros((len(self.normal), *masks.shape[1:]), np.uint8)])


@torch.no_grad()
def odds_of(decoder: AnomalyHeatmapDecoder, pairs: PairSet, prototypes: Float[Tensor, "2 d"],
            device: Any = "cpu") -> Float32[np.ndarray, "n h w"]:
    """The decoder's log odds on all pairs of a set."""
    chunks = np.array_split(np.arange(len(pairs)), math.ceil(len(pairs) / _CHUNK))
    return np.concatenate([log_odds(decoder, [tap.to(device) for tap in pairs.read(rows)], prototypes)
                           for rows in chunks])


def quality(maps: Float[np.ndarray, "n h w"], targets: UInt8[np.ndarray, "n h w"], labels: UInt8[np.ndarray, "n"], *,
            top_fraction: float = 0.01) -> dict[str, float]:
    """Pixel AUROC over all pairs and micro AUC of the pairs' scores (mean of the top patches), and their mean."""
    scores = top_mean(maps, top_fraction)
    found = {"val_pixel_auroc": float(pixel_auroc([maps], [targets])),
             "val_micro_auc": float(micro_auc([scores], [labels]))}
    return {**found, "selection": (found["val_pixel_auroc"] + found["val_micro_auc"]) / 2}


def fine_tune(decoder: AnomalyHeatmapDecoder, sources: Sequence[Source], held_out: HeldOut, *, config: AdaptConfig,
              prototypes: Float[Tensor, "2 d"], folder: Path, identity: str, top_fraction: float = 0.01,
              device: Any = "cpu", stop_after: int | None = None, progress: bool = True) -> RunState:
    """Train ``decoder`` in place from its current weights; the best weights are in the state that is returned.

    ``identity``: hash of what the decoder was before and of its backbone; with configuration and data it names the
    checkpoints under ``folder``. ``top_fraction``: of the patches, for the pairs' scores. ``stop_after``: end early after
    that many steps, as an interruption would.
    """
    for source in sources:
        source.prepare(config)
    targets, labels = held_out.targets(), held_out.labels
    optimizer = torch.optim.AdamW(decoder.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay)
    store = Checkpoints(folder / "checkpoints", key=run_key(sources, held_out, config, prototypes, identity))
    state = store.load(decoder, optimizer)
    if state is None:
        state = RunState(step=0, history=[], best=None, best_weights=None, losses=[])
        _validate(decoder, held_out, targets, labels, prototypes, state, device, top_fraction)
    decoder.train()
    bar = tqdm(total=config.steps, initial=state.step, desc="adapting", unit="step",
               disable=not progress or stop_after == 0)
    while state.step < config.steps and (stop_after is None or state.step < stop_after):
        state.losses.append(_step(decoder, optimizer, sources, config, state.step, prototypes, device))
        state.step += 1
        bar.update()
        if state.step % config.validate_every == 0 or state.step == config.steps:
            _validate(decoder, held_out, targets, labels, prototypes, state, device, top_fraction)
            latest = state.history[-1]
            bar.set_postfix(pixel=f"{latest['val_pixel_auroc']:.4f}", micro=f"{latest['val_micro_auc']:.4f}")
            store.save(state, decoder, optimizer)
    bar.close()
    return state


def run_key(sources: Sequence[Source], held_out: HeldOut, config: AdaptConfig, prototypes: Float[Tensor, "2 d"],
            identity: str) -> str:
    """Hash of all that decides the adapted weights."""
    # What the tower's adapter was trained with lies in ``identity``, by its values.
    settings = {name: value for name, value in asdict(config).items()
                if name not in LATER and not name.startswith("tower_")}
    parts = [settings, identity, [[source.name, source.share, source.pairs.key] for source in sources],
             held_out.composites.key, held_out.normal.key, hashlib.sha256(prototypes.cpu().numpy().tobytes()).hexdigest()]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


@torch.no_grad()
def blended(decoder: AnomalyHeatmapDecoder, before: AnomalyHeatmapDecoder, kept: float) -> AnomalyHeatmapDecoder:
    """A decoder whose weights lie a share of ``kept`` of the way from those of ``decoder`` back to those of ``before``.

    Source: weight-space ensembles of a model before and after fine-tuning (Wortsman et al., CVPR 2022).
    """
    mixed = copy.deepcopy(decoder)
    for own, old in zip(mixed.parameters(), before.parameters(), strict=True):
        own.lerp_(old.to(own), kept)
    return mixed


def hash_of(decoder: AnomalyHeatmapDecoder, facts: str) -> str:
    """Hash of a decoder's weights and of what else decides a step."""
    digest = hashlib.sha256(facts.encode())
    for name, value in sorted(decoder.state_dict().items()):
        digest.update(name.encode() + value.cpu().float().numpy().tobytes())
    return digest.hexdigest()


def counts_of(sources: Sequence[Source], batch_size: int) -> list[int]:
    """How many pairs of a batch each source gives: its share, at least one, the first takes what rounding leaves."""
    total = sum(source.share for source in sources)
    counts = [max(1, round(batch_size * source.share / total)) for source in sources]
    counts[0] = max(1, batch_size - sum(counts[1:]))
    return counts


def rows_of(source: Source, place: int, count: int, step: int, seed: int) -> np.ndarray:
    """The rows of a source in a step: walks through a new permutation of all pairs in every epoch."""
    wanted = np.arange(step * count, (step + 1) * count)
    orders = {epoch: np.random.default_rng([seed, 61, place, epoch]).permutation(len(source.pairs))
              for epoch in np.unique(wanted // len(source.pairs)).tolist()}
    return np.array([orders[index // len(source.pairs)][index % len(source.pairs)] for index in wanted.tolist()])


def _step(decoder: AnomalyHeatmapDecoder, optimizer: Any, sources: Sequence[Source], config: AdaptConfig, step: int,
          prototypes: Float[Tensor, "2 d"], device: Any) -> float:
    for group in optimizer.param_groups:
        group["lr"] = config.rate(step, config.steps)
    optimizer.zero_grad()
    whole, loss_of = 0.0, pixel_loss(config.loss)
    counts = counts_of(sources, config.batch_size)
    for place, (source, count) in enumerate(zip(sources, counts)):
        rows = rows_of(source, place, count, step, config.seed)
        taps, target, weight = _batch(source, rows, config, decoder.variant, step)
        logits = decoder([tap.to(device) for tap in taps], prototypes.to(device))
        loss = loss_of(logits, target.to(device), weight=weight.to(device)) * (count / sum(counts))
        loss.backward()  # one source after another: gradients add up, memory does not
        whole += float(loss.detach())
    torch.nn.utils.clip_grad_norm_(decoder.parameters(), config.clip_norm)
    optimizer.step()
    return whole


def _batch(source: Source, rows: np.ndarray, config: AdaptConfig, variant: str, step: int):
    """Taps, targets and weights: (b, 1, m) patches, or whole maps where rows of a map depend on one another."""
    count = config.patches_per_pair if variant == "paper" else 0
    return patch_batch(source.pairs, source.targets, rows, count=count, draw=[config.seed, 62, step])


def _validate(decoder: AnomalyHeatmapDecoder, held_out: HeldOut, targets: np.ndarray, labels: np.ndarray,
              prototypes: Float[Tensor, "2 d"], state: RunState, device: Any, top_fraction: float) -> None:
    """Add a record; keep the weights if they are the best so far (ties: the earlier)."""
    decoder.eval()
    maps = np.concatenate([odds_of(decoder, pairs, prototypes, device) for pairs in (held_out.composites, held_out.normal)])
    decoder.train()
    record: dict[str, Any] = {"step": state.step, **quality(maps, targets, labels, top_fraction=top_fraction)}
    if state.losses:
        record["train_loss"] = float(np.mean(state.losses))
    state.history.append(record)
    state.losses.clear()
    if state.best is None or record["selection"] > state.best["selection"]:
        state.best = record
        state.best_weights = {name: value.detach().cpu().clone() for name, value in decoder.state_dict().items()}


def by_kind(scores: Float[np.ndarray, "n"], labels: UInt8[np.ndarray, "n"],
            kinds: Sequence[Sequence[str]]) -> Mapping[str, float]:
    """Micro AUC of the pairs that show one kind of event alone against all pairs without an event."""
    normal = np.asarray(labels) == 0
    found = {}
    for kind in sorted({kind for several in kinds for kind in several}):
        own = np.array([set(several) == {kind} for several in kinds]) & ~normal
        if own.any() and normal.any():
            found[kind] = float(micro_auc([scores[own | normal]], [labels[own | normal]]))
    return found
