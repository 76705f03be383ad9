"""What a second turn costs beside encoding the clip again, and whether both say the same.

    python -m tvad.conversation.bench --ahd runs/tiny/phase1/ahd.safetensors --model runs/tiny/phase2/model

The first turn has encoded the clip: the tower, the heatmap, the anomaly tokens and the prompt's keys and values.  A
second one adds its question and writes its answer.  Encoding again would do all of the first part anew before it could.
Processor seconds on one thread, the median of several rounds.
"""
from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from tvad.backbones.qwen import QwenBackbone
from tvad.conversation.model import QUESTION, TVAU
from tvad.datasets import open_dataset
from tvad.errors import TvadError
from tvad.heatmap import AnomalyHeatmapDecoder
from tvad.video.clip import Clip

LATER = "To where does it go?"


@dataclass(frozen=True)
class TurnCost:
    """Processor seconds: ``encode`` a clip up to its first question, ``first_token`` of a second turn, the ``turn`` with
    its whole answer of ``tokens`` tokens; ``same``: a fresh conversation gives the same answer."""

    encode: float
    first_token: float
    turn: float
    tokens: int
    same: bool

    def __str__(self) -> str:
        return (f"encoding {1e3 * self.encode:.0f} ms; second turn {1e3 * self.first_token:.1f} ms to the first token "
                f"({self.encode / self.first_token:.1f} times cheaper), {1e3 * self.turn:.1f} ms with its answer of "
                f"{self.tokens} tokens ({self.encode / self.turn:.1f} times cheaper); "
                f"{'same tokens' if self.same else 'OTHER TOKENS'} as encoding again")


def turn_cost(model: TVAU, clip: Clip, *, rounds: int = 5, limit: int = 24) -> TurnCost:
    """Measure a model on one clip."""
    talk = model.converse(clip)
    talk.ask(QUESTION, limit=limit)
    encode, first, turn, said = [], [], [], ""
    for _ in range(rounds):
        encode.append(_seconds(model.converse, clip)[0])
        first.append(_seconds(talk.fork().ask, LATER, limit=1)[0])
        spent, said = _seconds(talk.fork().ask, LATER, limit=limit)
        turn.append(spent)
    again = model.converse(clip)
    again.ask(QUESTION, limit=limit)
    tokens = len(model.format.tokenizer(said, add_special_tokens=False)["input_ids"])
    return TurnCost(statistics.median(encode), statistics.median(first), statistics.median(turn), tokens,
                    again.ask(LATER, limit=limit) == said)


def _seconds(work: Callable[..., Any], *given: Any, **options: Any) -> tuple[float, Any]:
    began = time.process_time()
    result = work(*given, **options)
    return time.process_time() - began, result


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tvad.conversation.bench", description=__doc__.splitlines()[0])
    parser.add_argument("--ahd", type=Path, default=Path("runs/tiny/phase1/ahd.safetensors"))
    parser.add_argument("--model", type=Path, default=Path("runs/tiny/phase2/model"), help="folder that phase 2 left")
    parser.add_argument("--backbone", default="qwen2.5-vl-tiny")
    parser.add_argument("--frames", type=int, default=16)
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    try:
        taps = AnomalyHeatmapDecoder.load(given.ahd).taps
        backbone = QwenBackbone.from_pretrained(given.backbone, taps=taps, load_language_model=True)
        model = TVAU.from_phase2(backbone, given.ahd, given.model)
        frames = open_dataset("simcampus", protocol="scene-disjoint").videos("val")[0].frames
        print(turn_cost(model, Clip(frames.read(0, given.frames), frames.fps, 0, frames.name)))
    except TvadError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
