"""Phase 2: train the region encoder and LoRA so that the language model speaks from the heatmap.

As in the paper: supervised fine-tuning on conversations, LoRA on q and v, bf16, two curriculum stages (whole scene, then
anomaly), starting from the best heatmap decoder, which stays frozen.  Differently:

* The loss is on answer tokens alone, each answer standing where the model will write it (the thesis wrote the answer's
  ids over the last prompt positions).
* An optional first stage of synthetic heat blobs teaches the anomaly tokens to tell place and path (``blobs.py``).
  Variants whose tokens cannot tell anything skip it.
* Video tokens and heatmaps come from a cache, so a step runs the language model alone.
* Anomalous and normal conversations come equally often in the anomaly stage.
* Validation conversations choose the checkpoint: the lowest loss on answers of the anomaly stage; the share of answers
  whose every token is the first choice is recorded by slot beside it.

Batches are a pure function of the seed, and dropout is seeded by the step, so weights, optimizer and step give the
unbroken run exactly.  Under Accelerate each process takes its share of every batch.
"""
from __future__ import annotations

import contextlib
import hashlib
import json
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from jaxtyping import Float
from torch import Tensor
from tqdm.auto import tqdm

from tvad.backbones.pretrain.language_stage import plan_batches
from tvad.errors import DatasetError, ParameterError
from tvad.prompts import prototypes as text_prototypes
from tvad.record import write_json
from tvad.training.answering import yes_no_calibration
from tvad.training.blobs import BlobWorld, blob_example
from tvad.training.checkpoint import Checkpoints, RunState
from tvad.training.common import TrainResult
from tvad.training.evidence import ClipSet, cache_clips
from tvad.training.lessons import Lessons, check_lengths, clips_of
from tvad.training.phase2_config import Phase2Config
from tvad.training.speaker import Example, Speaker, attach, fill, optimizer_groups
from tvad.training.variants import CONSTANT, evidence_maps
from tvad.training.words import teach_words

MODEL = "model"


@dataclass
class _Run:
    """One training run in memory."""

    config: Phase2Config
    speaker: Speaker
    train: Lessons
    val: Lessons
    world: BlobWorld
    accelerator: Accelerator
    plans: Mapping[str, list[list[int]]] = field(init=False)
    val_rows: list[int] = field(init=False)
    looks: list[Mapping[str, str]] = field(init=False)

    def __post_init__(self) -> None:
        self.looks = [target for one in self.train.conversations for target in getattr(one, "targets", ())
                      if target.get("target")]
        self.plans = {stage: self._plan(stage) for stage in ("scene", "anomaly") if self._steps(stage)}
        rows = self.val.rows("anomaly")
        if not rows:
            raise DatasetError("phase 2: no validation conversation has a turn about an anomaly; give a validation split "
                               "that has some")
        if 0 < self.config.val_conversations < len(rows):
            places = np.linspace(0, len(rows) - 1, self.config.val_conversations).round().astype(int)
            rows = [rows[place] for place in places]
        self.val_rows = sorted(rows, key=lambda row: self.val.length(row, "anomaly"))

    def _steps(self, stage: str) -> int:
        return sum(self.config.stage(step) == stage for step in range(self.config.total))

    def _plan(self, stage: str) -> list[list[int]]:
        rows = self.train.rows(stage)
        if not rows:
            raise DatasetError(f"phase 2: no training conversation has a turn for the {stage} stage; make the set anew "
                               "(python -m tvad.language) or, for the scene stage, set scene_share to 0")
        rows = _balanced(self.train, rows) if stage == "anomaly" else rows
        steps, size = self._steps(stage), self.config.batch_size - self.config.mixed
        plan = _Plan(self.config.seed + (stage == "scene") * 100_003, (steps * size + 1) / len(rows), size)
        batches = plan_batches([self.train.length(row, stage) for row in rows], plan)
        return [[rows[place] for place in batch] for batch in batches]

    def examples(self, step: int) -> list[Example]:
        """What this process works on in a step; empty where it has no share."""
        config, rank, world = self.config, self.accelerator.process_index, self.accelerator.num_processes
        stage = config.stage(step)
        if stage == "blobs":
            numbers = range(step * config.blob_batch, (step + 1) * config.blob_batch)[rank::world]
            return [self._blob(number) for number in numbers]
        first = config.blobs if stage == "scene" or "scene" not in self.plans else config.blobs + self._steps("scene")
        numbers = range(step * config.blob_batch, step * config.blob_batch + config.mixed)
        work = [(row, None) for row in self.plans[stage][(step - first) % len(self.plans[stage])]]
        work += [(None, number) for number in numbers]
        return [self._blob(number) if row is None
                else self.train.example(row, stage, skipping=self._skipping(step, row, stage))
                for row, number in work[rank::world]]

    def _skipping(self, step: int, row: int, stage: str) -> np.random.Generator | None:
        """Whoever talks asks what he likes: a share of the conversations about the anomaly is heard in parts."""
        rng = np.random.default_rng([self.config.seed, 17, step, row])
        return rng if stage == "anomaly" and rng.random() < self.config.skipped_share else None

    def _blob(self, number: int) -> Example:
        return blob_example(self.speaker, self.world, seed=self.config.seed, number=number, looks=self.looks)


def _balanced(lessons: Lessons, rows: Sequence[int]) -> list[int]:
    """The rows with those of the rarer kind, anomalous or normal, so often that both are equally many: the share of
    anomalies differs between splits, and yes/no must not learn that of training."""
    kinds = [[row for row in rows if bool(lessons.conversations[row].anomalous) is kind] for kind in (True, False)]
    most = max(map(len, kinds))
    return sorted(row for own in kinds if own for row in (own * (most // len(own) + 1))[:most])


@dataclass(frozen=True)
class _Plan:
    """What ``plan_batches`` wants to know."""

    seed: int
    epochs: float
    batch: int


class _Trainable:
    """The trained parameters alone, as checkpoints want a module: the frozen rest is not theirs."""

    def __init__(self, parameters: Mapping[str, torch.nn.Parameter]) -> None:
        self.parameters = parameters

    def state_dict(self) -> dict[str, Tensor]:
        return {name: value.detach() for name, value in self.parameters.items()}

    def load_state_dict(self, values: Mapping[str, Tensor]) -> None:
        fill(self.parameters, values)


def train_speaker(config: Phase2Config, backbone: Any, decoder: Any, *, train: Sequence[Any], val: Sequence[Any],
                  videos: Mapping[str, Any], output_dir: Path | str, cache_dir: Path | str = "data/cache",
                  prototypes: Float[Tensor, "2 d"] | None = None, stop_after: int | None = None,
                  progress: bool = True) -> TrainResult:
    """Cache what is missing, train, and leave the folder ``output_dir/model`` (see ``speaker.py``).

    The backbone is afterwards as it was; ``load_speaker`` adapts it again.

    ``backbone`` with its language model; ``decoder``: the best heatmap decoder of phase 1, on the backbone's device.
    ``train``, ``val``: conversations; ``videos``: all videos that they speak of, by id. ``stop_after``: end early after
    that many steps, as an interruption would.
    A run that was broken off goes on from its last whole checkpoint; a finished one with the same configuration, data
    and models returns at once.
    Raises DatasetError for unusable conversations, StorageError when the disk refuses.
    """
    began = time.monotonic()
    accelerator = Accelerator()
    text = text_prototypes(backbone, cache_dir=Path(cache_dir)) if prototypes is None else prototypes
    clips = [open_clips(config, backbone, decoder, part, videos, prototypes=text, cache_dir=cache_dir,
                        accelerator=accelerator, progress=progress) for part in (train, val)]
    speaker = new_speaker(config, backbone)
    path = Path(output_dir) / MODEL
    try:
        lessons = [open_lessons(config, speaker, part, cached, backbone=backbone)
                   for part, cached in zip((train, val), clips)]
        run = _Run(config, speaker, *lessons, world_of(clips[0], backbone), accelerator)
        state, resumed_at = _train(run, Path(output_dir), _run_key(run), stop_after, progress)
        if accelerator.is_main_process and state.best is not None:
            fill(speaker.trainable(), state.best_weights)
            calibration, bias = yes_no_calibration(run.val, run.val.rows("anomaly"))
            speaker.save(path, extra={"phase2": config.given, "best": state.best, "calibration": calibration,
                                      "bias": bias, "economy": asdict(config.economy), "constant": CONSTANT})
            write_json(Path(output_dir) / "history.json", state.history)
        accelerator.wait_for_everyone()
    finally:
        speaker.release()
    return TrainResult(path, tuple(state.history), state.best or {}, {"train": len(train), "val": len(val)},
                        time.monotonic() - began, resumed_at)


def open_clips(config: Phase2Config, backbone: Any, decoder: Any, conversations: Sequence[Any], videos: Mapping[str, Any],
               *, prototypes: Float[Tensor, "2 d"], cache_dir: Path | str, accelerator: Accelerator | None = None,
               masks: bool = False, progress: bool = True) -> ClipSet:
    """The cached clips of some conversations, made where they are missing (shared out among Accelerate's processes).

    ``masks``: with the ground-truth maps, also where the variant does not read them.
    """
    clips = clips_of(conversations)
    made = {"prototypes": prototypes, "root": cache_dir, "masks": masks or config.kind.reads_masks,
            "every": config.every}
    if accelerator is not None and accelerator.num_processes > 1:
        cache_clips(backbone, decoder, clips, videos, **made, progress=progress,
                    part=(accelerator.process_index, accelerator.num_processes))
        accelerator.wait_for_everyone()
    return cache_clips(backbone, decoder, clips, videos, **made, progress=progress)


def new_speaker(config: Phase2Config, backbone: Any) -> Speaker:
    """The untrained speaker of a configuration; ``release()`` it when done."""
    region = config.encoder
    if config.region == "worded":
        region |= {"patch": backbone.patch_size, "patch_frames": backbone.temporal_patch_size, "every": config.every}
    return attach(backbone, config.kind, lora=config.lora, region=region, seed=config.seed,
                  checkpointing=config.checkpointing)


def open_lessons(config: Phase2Config, speaker: Speaker, conversations: Sequence[Any], clips: ClipSet, *, backbone: Any,
                 evidence: str | None = None) -> Lessons:
    """Conversations with the evidence of the variant, or another ``evidence`` (see ``variants``) for a test of reading."""
    kind = config.kind.evidence if evidence is None else evidence
    heat = evidence_maps(clips, kind, seed=config.evidence_seed)
    lessons = Lessons(conversations, clips, speaker, backbone=backbone, heat=heat, economy=config.economy,
                      slots=config.slots)
    check_lengths(lessons, speaker.stock.config.text_config.max_position_embeddings)
    return lessons


def world_of(clips: ClipSet, backbone: Any) -> BlobWorld:
    """Blobs are drawn for clips like the first."""
    steps, rows, columns = clips.grids[0]
    return BlobWorld(steps, (rows, columns), backbone.patch_size, clips.patch_frames * clips.every, clips.fps[0],
                     shown=clips.patch_frames)


def _run_key(run: _Run) -> str:
    said = [[lessons.number, [[asdict(turn) for turn in turns] for turns in lessons.turns],
             [getattr(one, "targets", ()) for one in lessons.conversations]] for lessons in (run.train, run.val)]
    model = [run.speaker.settings, run.speaker.language_fingerprint]
    parts = [run.config.given, model, run.train.clips.key, run.val.clips.key, said]
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:16]


def _train(run: _Run, output: Path, key: str, stop_after: int | None, progress: bool) -> tuple[RunState, int]:
    config, accelerator, speaker = run.config, run.accelerator, run.speaker
    trained = _Trainable(speaker.trainable())
    optimizer = torch.optim.AdamW(optimizer_groups(speaker, learning_rate=config.learning_rate,
                                                   region_learning_rate=config.region_learning_rate,
                                                   weight_decay=config.weight_decay,
                                                   taught_rate=config.taught_rate))
    store = Checkpoints(output / "checkpoints", key=key)
    state = store.load(trained, optimizer)
    if state is None:
        state = RunState(step=0, history=[], best=None, best_weights=None, losses=[])
        teach_words(config, speaker, run.train, run.world, progress=progress and accelerator.is_main_process)
    resumed_at = state.step
    wrapped, optimizer = accelerator.prepare(speaker, optimizer)
    bar = tqdm(total=config.total, initial=state.step, desc=f"phase 2 ({config.variant})", unit="step",
               disable=not (progress and accelerator.is_main_process))
    while state.step < config.total and (stop_after is None or state.step < stop_after):
        state.losses.append(_step(run, wrapped, optimizer, state.step))
        state.step += 1
        bar.update()
        if state.step % config.validate_every == 0 or state.step == config.total:
            _close_interval(run, trained, state, bar)
            if accelerator.is_main_process:
                store.save(state, trained, optimizer)
    bar.close()
    return state, resumed_at


def _step(run: _Run, model: torch.nn.Module, optimizer: Any, step: int) -> float:
    config, accelerator = run.config, run.accelerator
    own = run.examples(step)
    share = 1.0 if own else 0.0
    if not own:     # a process without a share still takes part in the gradient exchange, with weight zero
        own = [run._blob(0)] if config.stage(step) == "blobs" else [
            run.train.example(run.train.rows(config.stage(step))[0], config.stage(step))]
    answered = share * sum(len(one.answered()) for one in own)
    count = accelerator.reduce(torch.tensor(answered, device=accelerator.device), reduction="sum")
    for group in optimizer.param_groups:
        group["lr"] = group["peak"] * config.rate(step, config.total) / config.learning_rate
    optimizer.zero_grad()
    size, total = config.micro_batch or len(own), 0.0
    chunks = [own[first:first + size] for first in range(0, len(own), size)]
    model.train()
    with torch.random.fork_rng():
        torch.manual_seed(int(np.random.default_rng([config.seed, 3, step, accelerator.process_index]).integers(2**62)))
        for chunk in chunks:
            waits = accelerator.no_sync(model) if chunk is not chunks[-1] else contextlib.nullcontext()
            with waits:
                losses, _ = model(chunk)
                loss = losses.sum() * share / count
                # gradients are averaged over processes, the loss is a sum over them
                accelerator.backward(loss * accelerator.num_processes)
            total += loss.detach()
    accelerator.clip_grad_norm_(model.parameters(), config.clip_norm)
    optimizer.step()
    return float(accelerator.reduce(total, reduction="sum"))


@torch.no_grad()
def validate(lessons: Lessons, rows: Sequence[int], *, batch: int) -> dict[str, Any]:
    """Loss on the answers of the anomaly stage, given the right answers before them, and the share of answers that are
    right in every token, in all and by slot."""
    speaker = lessons.speaker.eval()
    total, count, right = 0.0, 0, {}
    for first in range(0, len(rows), batch):
        part = rows[first:first + batch]
        examples = [lessons.example(row, "anomaly") for row in part]
        losses, hits = speaker(examples)
        total, count = total + float(losses.sum()), count + len(losses)
        owners = [example.answered() for example in examples]
        for row, turn, own in zip(part, owners, hits.cpu().split([len(turn) for turn in owners])):
            for number, asked in enumerate(lessons.chosen(row, "anomaly")):
                right.setdefault(asked.slot, []).append(bool(own[turn == number].all()))
    everything = [hit for found in right.values() for hit in found]
    return {"val_loss": total / count, "val_exact": float(np.mean(everything)),
            "val_slots": {slot: float(np.mean(found)) for slot, found in sorted(right.items())}}


def _close_interval(run: _Run, trained: _Trainable, state: RunState, bar: Any) -> None:
    """Validate, add the record, and keep the weights if they are the best so far (ties: the earlier)."""
    found = validate(run.val, run.val_rows, batch=run.config.micro_batch or run.config.batch_size)
    record = {"step": state.step, "stage": run.config.stage(state.step - 1),
              "train_loss": float(np.mean(state.losses)), **found}
    if not math.isfinite(record["train_loss"] + record["val_loss"]):
        raise ParameterError(f"phase 2: the loss is not finite at step {state.step}; lower learning_rate "
                             f"({run.config.learning_rate}) or region_learning_rate ({run.config.region_learning_rate})")
    record["selection"] = -record["val_loss"]
    state.history.append(record)
    state.losses.clear()
    bar.set_postfix(loss=f"{record['train_loss']:.3f}", val=f"{record['val_loss']:.3f}", exact=f"{record['val_exact']:.3f}")
    if state.best is None or record["selection"] > state.best["selection"]:
        state.best = record
        state.best_weights = {name: value.detach().cpu().clone() for name, value in trained.state_dict().items()}
