"""What a second turn costs beside encoding the clip again, and whether both say the same.

    python -m tvad.conversation.bench                   # of the model that runs/tiny holds; part of make bench
    python -m tvad.conversation.bench --ahd runs/mine/phase1/ahd.safetensors --model runs/mine/phase2/model

The first turn has encoded the clip: the tower, the heatmap, the anomaly tokens and the prompt's keys and values.  A
second one adds its question and writes its answer.  Encoding again would do all of the first part anew before it could.
Processor seconds on one thread, the median of several rounds; ends with one JSON line.  Where phase 1 or 2 has left no
weights nothing is measured, which is said and is no error.
"""
from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from tvad.backbones.qwen import QwenBackbone
from tvad.conversation.model import QUESTION, TVAU
from tvad.datasets import open_dataset
from tvad.errors import TvadError
from tvad.heatmap import AnomalyHeatmapDecoder
from tvad.params import project_root
from tvad.record import COMPLETE, versions
from tvad.video.clip import Clip

LATER = "To where does it go?"
MODEL, ROUNDS = "model", 5      # tvad.training.phase2 leaves its model under this name


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


def turn_cost(model: TVAU, clip: Clip, *, rounds: int = ROUNDS, limit: int = 24) -> TurnCost:
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
    """Command line; returns the exit status, 0 too where there are no weights, so that the other benches go on."""
    run = project_root() / "runs" / "tiny"
    parser = argparse.ArgumentParser(prog="python -m tvad.conversation.bench", description=__doc__.splitlines()[0])
    parser.add_argument("--ahd", type=Path, default=run / "phase1" / "ahd.safetensors", help="decoder that phase 1 left")
    parser.add_argument("--model", type=Path, default=run / "phase2" / MODEL, help="folder that phase 2 left")
    parser.add_argument("--backbone", default="qwen2.5-vl-tiny")
    parser.add_argument("--frames", type=int, default=16)
    given = parser.parse_args(arguments)
    missing = next((path for path in (given.ahd, given.model / COMPLETE) if not path.is_file()), None)
    if missing is not None:
        print(f"{missing}: no such file, so no conversation is measured; run: make reproduce", file=sys.stderr)
        return 0
    torch.set_num_threads(1)
    try:
        taps = AnomalyHeatmapDecoder.load(given.ahd).taps
        backbone = QwenBackbone.from_pretrained(given.backbone, taps=taps, load_language_model=True)
        model = TVAU.from_phase2(backbone, given.ahd, given.model, queries=False)
        frames = open_dataset("simcampus", protocol="scene-disjoint").videos("val")[0].frames
        cost = turn_cost(model, Clip(frames.read(0, given.frames), frames.fps, 0, frames.name), rounds=ROUNDS)
    except TvadError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 1
    print(cost)
    regime = {"unit": "processor seconds", "statistic": "median", "rounds": ROUNDS, "threads": torch.get_num_threads(),
              "frames": given.frames, "size": list(frames.size), "device": str(backbone.device), "cpus": os.cpu_count(),
              "load": os.getloadavg()[0], "machine": platform.machine()}
    print(", ".join(f"{name} {value}" for name, value in regime.items()))
    print(json.dumps({"bench": "conversation", **asdict(cost), "regime": regime, "versions": versions()}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
