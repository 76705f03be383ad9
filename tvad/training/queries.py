"""Train the decoder of query heatmaps on the cached features of phase 1, so that a word lights its event and no other.

Every step draws frame pairs and patches as phase 1 does.  The text side varies too: half of the time an event is compared
with a random wording of it, from which words are dropped (never all that tell it from other events), so that a user's own
wording works; else with the mean of its wordings.

``softmax`` mode learns cross-entropy over [none, events], ``binary`` one binary cross-entropy for each event, where all the
others are its negatives.  Events that cover few patches count more (``balance``: the power of their rarity).

Validation videos choose the checkpoint: the best mean of pixel AUROC, micro AUC and how dark wrong queries stay (one less
their share of the right query's heat), each the mean over events.  Ranks alone would not do: on easy footage they are
perfect long before the events are told apart.  Smoothing is chosen afterwards, by
``tvad.queries.evaluation.choose_query_sigma``.  Draws are pure functions of (seed, step), so a resumed run equals an
unbroken one.
"""
from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor
from tqdm.auto import tqdm

from tvad.detection import top_mean
from tvad.errors import DatasetError, ParameterError
from tvad.metrics.frame import micro_auc
from tvad.metrics.pixel import pixel_auroc
from tvad.queries.heatmap import MODES, EventHeatmapDecoder
from tvad.queries.words import NORMAL_WORDINGS, WORDINGS, EventBook, content_words, legible, reference_words
from tvad.record import write_json
from tvad.training.cache import PairSet, cache_pairs
from tvad.training.checkpoint import Checkpoints, RunState
from tvad.training.common import FromParameters, PairTraining, TrainResult
from tvad.training.event_targets import UNNAMED, event_targets
from tvad.training.phase1 import draw_patches
from tvad.training.targets import choose_pairs, spaced_pairs


@dataclass(frozen=True)
class QueryConfig(FromParameters, PairTraining):
    """Everything that decides the trained weights.

    What is not said here as in ``Phase1Config`` (with equal pair settings its cached features are used).
    ``mode``: see ``tvad.queries.heatmap``.  ``sharpen``: factor on the temperature once trained; at the temperature of
    training a thousand dark patches together outweigh a small target.
    ``word_dropout``: chance of each word of a wording to go.  ``balance``: 0 counts every patch alike, 1 every event alike.
    """
    phase: ClassVar[str] = "query training"
    sharpen: float = 2.0
    mode: str = "softmax"
    word_dropout: float = 0.25
    balance: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_least(patches_per_pair=1)
        self.check_share("word_dropout")
        if self.mode not in MODES or not 0 <= self.balance <= 1 or self.sharpen <= 0:
            raise ParameterError(f"query training: mode {self.mode!r} must be one of {', '.join(MODES)}, balance "
                                 f"{self.balance} in [0, 1] and sharpen {self.sharpen} above 0")


@dataclass
class _Run:
    """One training run in memory; targets as ``event_targets`` codes them."""
    config: QueryConfig
    book: EventBook
    train: PairSet
    val: PairSet
    targets: UInt8[np.ndarray, "n h w"]
    val_targets: UInt8[np.ndarray, "n h w"]
    device: Any
    weights: Float[Tensor, " k"] = field(init=False)
    phrases: list[list[tuple[Float[Tensor, "m d"], np.ndarray]]] = field(init=False)

    def __post_init__(self) -> None:
        counts = np.bincount(self.targets.ravel(), minlength=256)[:len(self.book.names) + 1].astype(np.float64)
        missing = [name for name, count in zip(self.book.names, counts[1:]) if not count]
        if missing:
            raise DatasetError(f"query training: no training pair shows {', '.join(map(repr, missing))}; leave such events "
                               "out, or take a split that has them")
        scale = (counts[1:].mean() / counts[1:]) ** self.config.balance
        self.weights = torch.tensor([1.0, *scale], dtype=torch.float32, device=self.device)
        self.phrases = _phrases(self.book)

    @property
    def steps_per_epoch(self) -> int:
        return math.ceil(len(self.train) / self.config.batch_size)


def train_queries(config: QueryConfig, backbone: Any, *, train: Sequence[Any], val: Sequence[Any], output_dir: Path | str,
                  cache_dir: Path | str = "data/cache", stop_after: int | None = None,
                  progress: bool = True) -> TrainResult:
    """Cache the features that are missing, train, and leave ``output_dir/queries.safetensors``.

    ``train``, ``val``: videos with masks and events; the decoder learns the events of the training videos, by their
    wordings in ``tvad.queries.words`` or else by their name.  ``stop_after``: end early, as an interruption would.  A
    run that was broken off goes on from its last whole checkpoint.
    Raises :class:`DatasetError` for unusable splits, :class:`StorageError` when the disk refuses.
    """
    began = time.monotonic()
    run = _open(config, backbone, train, val, Path(cache_dir), progress)
    decoder = _new_decoder(config, backbone, run.book).to(run.device)
    optimizer = torch.optim.AdamW(decoder.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay)
    store = Checkpoints(Path(output_dir) / "checkpoints", key=_run_key(run, backbone))
    state = store.load(decoder, optimizer) or RunState(step=0, history=[], best=None, best_weights=None, losses=[])
    resumed_at = state.step
    bar = tqdm(total=config.steps, initial=state.step, desc="query heatmaps", unit="step", disable=not progress)
    while state.step < config.steps and (stop_after is None or state.step < stop_after):
        state.losses.append(_step(run, decoder, optimizer, state.step))
        state.step += 1
        bar.update()
        if state.step % config.validate_every == 0 or state.step == config.steps:
            _close_interval(run, decoder, state)
            store.save(state, decoder, optimizer)
    bar.close()
    path = Path(output_dir) / "queries.safetensors"
    if state.best is not None:
        best = _new_decoder(config, backbone, run.book)
        best.load_state_dict(state.best_weights)
        best.core.temperature = config.temperature * config.sharpen
        extra = {"backbone": backbone.name, "queries": json.dumps(asdict(config), sort_keys=True),
                 "best": json.dumps(state.best, sort_keys=True)}
        best.save(path, backbone_fingerprint=backbone.fingerprint, extra=extra)
        write_json(path.with_name("queries_history.json"), state.history)
    pairs = {name: made.summary() for name, made in (("train", run.train), ("val", run.val))}
    return TrainResult(path, tuple(state.history), state.best or {}, pairs, time.monotonic() - began, resumed_at)


def known_events(videos: Sequence[Any]) -> dict[str, tuple[str, ...]]:
    """The wordings of the events that occur in videos, in the order of ``WORDINGS``, others by name after."""
    found = {event.kind for video in videos for event in video.events}
    order = [name for name in WORDINGS if name in found] + sorted(found - set(WORDINGS))
    return {name: WORDINGS.get(name, (name.replace("_", " "),)) for name in order}


def _open(config: QueryConfig, backbone: Any, train: Sequence[Any], val: Sequence[Any], root: Path, progress: bool) -> _Run:
    wordings = known_events(train)
    if not wordings or not known_events(val):
        raise DatasetError("query training needs videos with named events both in training and in validation; this split "
                           "has none in one of them")
    count = config.pairs_per_video or max(1, config.train_pairs // len(train))
    starts = {video.id: choose_pairs(video, count, seed=config.pair_seed, positive_share=config.positive_share)
              for video in train}
    starts |= {video.id: spaced_pairs(video, max(1, config.val_pairs // len(val))) for video in val}
    book, pairs, targets = EventBook(backbone, wordings), [], []
    for videos, refilmed in ((train, config.refilmed), (val, 0.0)):
        pairs.append(cache_pairs(backbone, videos, starts=starts, root=root, refilmed=refilmed, progress=progress))
        targets.append(event_targets(videos, pairs[-1], book.names, temporal_patch_size=backbone.temporal_patch_size,
                                     refilmed=refilmed))
    return _Run(config, book, *pairs, *targets, getattr(backbone, "device", "cpu"))


def _new_decoder(config: QueryConfig, backbone: Any, book: EventBook) -> EventHeatmapDecoder:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        return EventHeatmapDecoder(taps=tuple(backbone.taps), tap_width=backbone.tap_width, mode=config.mode,
                                   hidden_width=config.hidden_width, text_width=backbone.text_width, space=book.space,
                                   wordings=book.wordings, normal=NORMAL_WORDINGS, temperature=config.temperature)


def _run_key(run: _Run, backbone: Any) -> str:
    parts = [asdict(run.config), backbone.fingerprint, run.train.key, run.val.key, run.book.wordings, NORMAL_WORDINGS,
             reference_words()]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def _phrases(book: EventBook) -> list[list[tuple[Float[Tensor, "m d"], np.ndarray]]]:
    """For each event its readable wordings: the word vectors, and which of the words no other event uses."""
    worded = [list(dict.fromkeys(words for words in map(content_words, texts)
                                 if all(legible(book.backbone, word) for word in words)))
              for texts in book.wordings.values()]
    users: dict[str, int] = {}
    for words in (set().union(*texts) for texts in worded):
        for word in words:
            users[word] = users.get(word, 0) + 1
    return [[(book.space.words(book.backbone, words), np.array([users[word] == 1 for word in words])) for words in texts]
            for texts in worded]


def draw_directions(run: Any, rng: np.random.Generator) -> Float[Tensor, "k d"]:
    """The text directions of one step: "none", then of each event its prototype or a random wording with words dropped."""
    rows = [run.book.normal]
    for prototype, phrases in zip(run.book.prototypes, run.phrases):
        if not phrases or rng.random() < 0.5:
            rows.append(prototype)
            continue
        vectors, own = phrases[rng.integers(len(phrases))]
        keep = rng.random(len(own)) >= run.config.word_dropout
        if own.any() and not (keep & own).any():
            keep[rng.choice(np.flatnonzero(own))] = True
        # A wording of shared words alone ("riding") would teach the wrong thing.
        rows.append(F.normalize(vectors[keep].mean(0), dim=0) if (keep & own).any() else prototype)
    return torch.stack(rows)


def _step(run: _Run, decoder: EventHeatmapDecoder, optimizer: Any, step: int) -> float:
    config = run.config
    epoch, place = divmod(step, run.steps_per_epoch)
    order = np.random.default_rng([config.seed, 1, epoch]).permutation(len(run.train))
    rows = order[place * config.batch_size:(place + 1) * config.batch_size]
    drawn = [draw_patches((run.targets[row] > 0).astype(np.uint8), config.patches_per_pair,
                          np.random.default_rng([config.seed, 2, epoch, int(row)])) for row in rows]
    patches, share = np.stack([chosen for chosen, _ in drawn]), np.stack([weights for _, weights in drawn])
    target = np.take_along_axis(run.targets[rows].reshape(len(rows), -1), patches, 1).astype(np.int64)
    taps = [tap.to(run.device) for tap in run.train.read_patches(rows, patches)]
    directions = draw_directions(run, np.random.default_rng([config.seed, 3, step]))
    logits = decoder(taps, directions.to(run.device))[:, :, 0]
    loss = query_loss(logits, torch.from_numpy(target).to(run.device), torch.from_numpy(share).to(run.device),
                      run.weights, mode=config.mode)
    for group in optimizer.param_groups:
        group["lr"] = config.rate(step, config.steps)
    optimizer.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(decoder.parameters(), config.clip_norm)
    optimizer.step()
    return float(loss.detach())


def query_loss(logits: Float[Tensor, "b k m"], target: Any, share: Float[Tensor, "b m"], weights: Float[Tensor, " k"], *,
               mode: str) -> Float[Tensor, ""]:
    """Mean over the patches of the cross-entropy of ``mode``; column 0 of ``logits`` is "none of them".

    target: (b, m) codes of ``event_targets``, where patches of unnamed events do not count.  share: what each drawn patch
    stands for.  weights: of the classes.
    """
    counted = target != UNNAMED
    target = torch.where(counted, target, torch.zeros_like(target))
    weight = share * weights[target] * counted
    if mode == "softmax":
        entropy = F.cross_entropy(logits.float(), target, reduction="none")
    else:
        truth = F.one_hot(target, logits.shape[1])[..., 1:].movedim(-1, 1).float()
        entropy = F.binary_cross_entropy_with_logits(logits[:, 1:].float(), truth, reduction="none").sum(1)
    return (entropy * weight).sum() / weight.sum().clamp_min(1e-12)


@torch.no_grad()
def _validate(run: _Run, decoder: EventHeatmapDecoder) -> dict[str, float]:
    decoder.eval()
    decoder.core.temperature = run.config.temperature * run.config.sharpen
    queries = [run.book.resolve(texts[0]) for texts in run.book.wordings.values()]
    maps = []
    for rows in np.array_split(np.arange(len(run.val)), math.ceil(len(run.val) / 32)):
        maps.append(decoder.maps([tap.to(run.device) for tap in run.val.read(rows)], queries, run.book).cpu().numpy())
    decoder.train()
    decoder.core.temperature = run.config.temperature
    heat = np.concatenate(maps, 1)
    shown = np.stack([(run.val_targets == code).any((1, 2)) for code in range(1, len(heat) + 1)])
    found: dict[str, list[float]] = {"val_pixel_auroc": [], "val_micro_auc": [], "val_wrong_ratio": []}
    for code, heatmap in enumerate(heat, 1):
        own = shown[code - 1]
        if not own.any() or own.all():
            continue
        found["val_pixel_auroc"].append(pixel_auroc([heatmap], [run.val_targets == code]))
        found["val_micro_auc"].append(micro_auc([top_mean(heatmap)], [own.astype(np.uint8)]))
        absent = ~shown[:, own]                                              # (k, pairs): queries wrong for the pair
        if absent.any():
            wrong = heat[:, own].mean((2, 3))[absent].mean()
            found["val_wrong_ratio"].append(min(1.0, float(wrong / max(heatmap[own].mean(), 1e-9))))
    if not found["val_micro_auc"]:
        raise DatasetError("query training: validation shows none of the events that training knows; take another split")
    return {name: float(np.mean(values)) for name, values in found.items() if values}


def _close_interval(run: _Run, decoder: EventHeatmapDecoder, state: RunState) -> None:
    """Validate, add the record, and keep the weights if they are the best so far (ties: the earlier)."""
    record = {"step": state.step, "train_loss": float(np.mean(state.losses)), **_validate(run, decoder)}
    figures = [record["val_pixel_auroc"], record["val_micro_auc"]]
    if "val_wrong_ratio" in record:      # with a single event no query is wrong
        figures.append(1 - record["val_wrong_ratio"])
    record["selection"] = float(np.mean(figures))
    state.history.append(record)
    state.losses.clear()
    if state.best is None or record["selection"] > state.best["selection"]:
        state.best = record
        state.best_weights = {name: value.detach().cpu().clone() for name, value in decoder.state_dict().items()}
