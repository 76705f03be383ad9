"""One cell of the phase 2 ablation: train a variant with one seed, let it answer, and make rows of the answers.

    data = Spoken.of(params, dataset, "runs/tiny/dialogue")
    rows = speak_cell(Phase2Config.from_params(params), backbone, decoder, data, prototypes=text, output=folder)

``shuffled-evidence`` is measured in two ways: trained and answered with other clips' maps, as every variant by its own
training run; and ``swapped`` rows, the ``full`` model answering with another clip's map, which says whether it reads it.
The folder keeps the model, the history, every answer and the seconds of each part; a finished training is not repeated.
"""
from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from torch import Tensor

from tvad.datasets.base import hash_of
from tvad.errors import DatasetError
from tvad.evaluation import Cell
from tvad.language.corpus import load_conversations
from tvad.record import Row, write_json
from tvad.study.answers import STYLE, answer_split, event_rows, text_rows
from tvad.study.run import TRAINING_SPLITS
from tvad.training.evidence import decoder_key
from tvad.training.lessons import clip_of, clips_of
from tvad.training.phase2 import train_speaker
from tvad.training.phase2_config import Phase2Config

SWAPPED = "other"       # the evidence of the shuffled answers of a full model
SECONDS = "seconds.json"


@dataclass(frozen=True)
class Spoken:
    """Conversations by split, and the videos that they speak of by split and id."""

    conversations: Mapping[str, Sequence[Any]]
    videos: Mapping[str, Mapping[str, Any]]
    dataset: str = "simcampus"
    protocol: str = "scene-disjoint"

    @classmethod
    def open(cls, folder: Path | str, dataset: Any, *, splits: Sequence[str]) -> Spoken:
        """The dialogue set of a folder with the videos of its data set. Raises MissingPhaseError, DatasetError."""
        return cls({split: load_conversations(folder, split, dataset=dataset.name) for split in splits},
                   {split: {video.id: video for video in dataset.videos(split)} for split in splits},
                   dataset.name, dataset.protocol)

    @classmethod
    def of(cls, params: Any, dataset: Any, folder: Path | str) -> Spoken:
        """What the parameters of a notebook or study (``tvad.params.Phase2``) ask for: splits, style, numbers of clips."""
        train, val = TRAINING_SPLITS.get(params.protocol, ("train", "val"))
        clips = {params.split: params.test_clips, val: params.val_clips, train: params.train_clips}
        opened = cls.open(folder, dataset, splits=(train, val, params.split)).styled(params.style)
        return opened.spread(**clips)

    def spread(self, /, **clips: int) -> Spoken:
        """At most so many clips of each split named, evenly spaced over its videos and over the time in them.

        The first clips of all videos come before any second one, and these begin ever later in the video.
        Raises DatasetError for an unknown split.
        """
        kept = dict(self.conversations)
        for split, count in clips.items():
            if split not in kept:
                raise DatasetError(f"{self.dataset}: no conversations of split {split!r}; there are {', '.join(kept)}")
            chosen = set(spread_clips(clips_of(kept[split]), count))
            kept[split] = [one for one in kept[split] if clip_of(one) in chosen]
        return replace(self, conversations=kept)

    def styled(self, style: str) -> Spoken:
        """The conversations of one style alone."""
        kept = {split: [one for one in part if one.style == style] for split, part in self.conversations.items()}
        return replace(self, conversations=kept)

    @property
    def key(self) -> str:
        """Hash of what is said, and of the footage that it is said of."""
        said = {split: [one.as_dict() for one in part] for split, part in self.conversations.items()}
        seen = {split: [self.videos[split][name].frames.fingerprint for name in dict.fromkeys(one.video for one in part)]
                for split, part in self.conversations.items()}
        return hash_of([said, seen])[:12]


def spread_clips(clips: Sequence[Any], count: int) -> list[Any]:
    """``count`` clips, as many of each video as possible and no two next to each other where that can be helped; 0: all."""
    if not 0 < count < len(clips):
        return list(clips)
    by_video: dict[str, list[Any]] = {}
    for clip in clips:
        by_video.setdefault(clip.video, []).append(clip)
    order = []
    for number, own in enumerate(by_video.values()):
        # the k-th clip of a video is a step of the golden section further on: any first few lie far apart
        places = (np.arange(len(own)) + number) * 0.6180339887 % 1
        order += [(rank, own[place]) for rank, place in enumerate(np.argsort(places, kind="stable"))]
    last = sorted(rank for rank, _ in order)[count - 1]     # the round in which only some videos give a clip
    whole = [clip for rank, clip in order if rank < last]
    partial = [clip for rank, clip in order if rank == last]
    chosen = {*whole, *(partial[i] for i in np.linspace(0, len(partial), count - len(whole), endpoint=False).astype(int))}
    return [clip for clip in clips if clip in chosen]


def speak_cell(config: Phase2Config, backbone: Any, decoder: Any, data: Spoken, *, prototypes: Float[Tensor, "2 d"],
               output: Path | str, cache_dir: Path | str = "data/cache", train: str = "train", val: str = "val",
               splits: Sequence[str] = ("val", "test"), style: str | None = STYLE, samples: int = 1000,
               kinds: Sequence[str] = (), progress: bool = True) -> list[Row]:
    """Train ``config.variant`` with ``config.seed`` and measure it on ``splits``.

    ``kinds``: classes whose rows are also made by themselves (``event`` = "kept-out"), for the open-set protocol.
    The folder ``output`` keeps model, history, answers and seconds.
    Raises DatasetError for unusable conversations, StorageError when the disk refuses.
    """
    output = Path(output)
    key = cell_key(config, backbone, decoder, data, prototypes=prototypes)
    shared = {"prototypes": prototypes, "cache_dir": cache_dir, "progress": progress}
    seconds = read_seconds(output)
    videos = {**data.videos[train], **data.videos[val]}
    result = train_speaker(config, backbone, decoder, train=data.conversations[train], val=data.conversations[val],
                           videos=videos, output_dir=output, **shared)
    if result.resumed_at == 0:      # what goes on, or is done already, says nothing of the whole
        seconds["training"] = result.seconds
    rows: list[Row] = []
    for split in splits:
        began = time.monotonic()
        ways = {config.variant: None, **({"swapped": SWAPPED} if config.variant == "full" else {})}
        for name, evidence in ways.items():
            answers = answer_split(result.path, backbone, decoder, data.conversations[split], data.videos[split],
                                   output=output / f"answers-{name}-{split}.jsonl", evidence=evidence, style=style,
                                   **shared)
            cell = Cell(variant=name, dataset=data.dataset, split=split, protocol=data.protocol, seed=config.seed,
                        config=key, sigma=0.0, samples=samples,
                        choice="in-sample" if split == val else "fixed")
            rows += text_rows(answers, cell)
            rows += event_rows(answers, cell, kinds=kinds, name="kept-out") if kinds else []
        seconds[f"answering {split}"] = time.monotonic() - began
    write_json(output / SECONDS, seconds)
    return rows


def read_seconds(folder: Path | str) -> dict[str, float]:
    """The seconds of each part of a cell, as far as it was run."""
    path = Path(folder) / SECONDS
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def cell_key(config: Phase2Config, backbone: Any, decoder: Any, data: Spoken, *, prototypes: Float[Tensor, "2 d"]) -> str:
    """Hash of all that the rows of one ablation share: settings but variant and seed, models, conversations."""
    settings = {name: value for name, value in config.given.items() if name not in ("variant", "seed")}
    return hash_of([settings, backbone.language_fingerprint, decoder_key(decoder, prototypes), data.key])[:12]
