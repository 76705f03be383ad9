"""How long a visitor of the demo waits: ``python -m tvad.widgets.bench``, part of ``make bench``.

Seconds from choosing a video to its first frame with a heatmap, for a whole scored video, and for the first and a further
answer about a clip.  Where phase 2 has left no weights, an untrained region encoder and adapter stand in: they are as slow.
"""
from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from tvad.params.demo import Demo
from tvad.record import versions
from tvad.widgets.footage import find_offers, open_offer
from tvad.widgets.models import Models, find_models, load_models
from tvad.widgets.picture import View
from tvad.widgets.session import QUESTIONS, Session


def measure(models: Models, opening: Callable[[], Any], *, questions: Sequence[str] = tuple(QUESTIONS.values())) -> dict:
    """Wall and CPU seconds of what a visitor waits for, on a fresh session."""
    found: dict[str, dict[str, float]] = {}

    def timed(name: str, action: Callable[[], Any]) -> Any:
        wall, cpu = time.perf_counter(), time.process_time()
        result = action()
        found[name] = {"wall": round(time.perf_counter() - wall, 3), "cpu": round(time.process_time() - cpu, 3)}
        return result

    session = Session(models)

    def first_frame() -> None:
        told = session.open(opening)
        if told.kind == "error":
            raise RuntimeError(told.text)
        session.score_next()
        session.picture(View())

    def rest() -> None:
        while session.score_next():
            pass

    timed("first frame with heatmap", first_frame)
    if models.talker is not None:
        timed("first answer", lambda: session.ask(questions[0], 0))
        timed("further answer", lambda: session.ask(questions[1], 0))
    timed(f"the other {len(session.analysis.missing)} windows", rest)
    timed("picture of one frame", lambda: session.picture(View(frame=1)))
    return found


def stand_in(models: Models, run: Path) -> Models:
    """``models`` with an untrained speaker where there is none."""
    from tvad.backbones.qwen import QwenBackbone
    from tvad.conversation import TVAU
    from tvad.training.speaker import Lora, attach
    from tvad.training.variants import VARIANTS

    tower = QwenBackbone.from_pretrained(models.name, taps=models.detector.backbone.taps, load_language_model=True)
    speaker = attach(tower, VARIANTS["full"], lora=Lora(), region={"variant": "located"}, seed=0)
    with tempfile.TemporaryDirectory() as folder:
        speaker.save(folder, extra={"economy": {"every": 2, "token_step": 2, "pool": 3}})
        speaker.release()
        return replace(models, talker=TVAU.from_phase2(tower, find_models(run).ahd, folder, batch=1, queries=False))


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; ends with one JSON line."""
    parser = argparse.ArgumentParser(prog="python -m tvad.widgets.bench", description=__doc__.splitlines()[0])
    parser.add_argument("--source", default="", help="folder of the run whose weights are used; default: runs/tiny")
    parser.add_argument("--repeats", type=int, default=3)
    given = parser.parse_args(arguments)
    params = Demo(source=given.source)
    models = load_models(params.run, backbone=params.backbone)
    if models.detector is None:
        print(models.no_detector, file=sys.stderr)
        return 0        # a fresh clone has no weights, and the other benches still count
    trained = models.talker is not None
    models = models if trained else stand_in(models, params.run)
    offers, trouble = find_offers(params)
    if not offers:
        print(trouble, file=sys.stderr)
        return 1
    offer = offers[0]
    offer.open().read(0, 1)         # rendered, where it was not yet
    runs = [measure(models, lambda: open_offer(offer, backbone=models.detector.backbone)) for _ in range(given.repeats)]
    # The first run warms up; of the others the fastest, since another program can only slow them.
    best = {name: {clock: min(run[name][clock] for run in runs[1:] or runs) for clock in ("wall", "cpu")}
            for name in runs[0]}
    for name, seconds in best.items():
        print(f"{name:28}{seconds['wall']:9.3f} s   (CPU {seconds['cpu']:.3f} s)")
    print(json.dumps({"bench": "demo", "seconds": best, "cold": runs[0], "video": offer.label, "trained_speaker": trained,
                      "repeats": given.repeats, "cpus": os.cpu_count(), "load": os.getloadavg()[0],
                      "threads": os.environ.get("OMP_NUM_THREADS"), "versions": versions()}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
