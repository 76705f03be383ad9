"""``python -m tvad.backbones.pretrain``: build ``data/zoo/qwen2.5-vl-tiny`` from nothing but the simulator.

Stage 1 trains the vision tower on dense facts, stage 2 the language model on questions (see the two modules).  Both resume
where they were interrupted.  The model directory is written beside and renamed, with a card that states recipe and metrics.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
import re
import shutil
import time
from dataclasses import asdict, replace
from pathlib import Path

import torch

from tvad.backbones.pretrain.language_stage import LanguageStage, answers_right, train_language
from tvad.backbones.pretrain.tiny import TOWER, make_config, make_processor, make_tokenizer, save_model
from tvad.backbones.pretrain.vision_stage import VisionStage, train_vision
from tvad.backbones.zoo import ZOO
from tvad.datasets.footage_store import simulator_hash
from tvad.language.phrasings import language

TRAIN_SCENES = tuple(f"scene{i:02d}" for i in range(8))
VALIDATION_SCENES = ("scene08", "scene09")
NAME = "qwen2.5-vl-tiny"


def corpus(count: int = 400) -> list[str]:
    """Texts that the tokenizer learns its merges from: questions, answers, and all wordings of the conversations."""
    from tvad.backbones.pretrain.language_stage import lessons
    from tvad.backbones.pretrain.questions import DOINGS, MOVES, THINGS

    texts = [
        text
        for lesson in lessons(scenes=list(TRAIN_SCENES), seed=999, count=count, size=(60, 90))
        for turn in lesson.turns
        for text in turn
    ]
    words = [*THINGS.values(), *DOINGS.values(), *MOVES.values()]
    english = language("en")
    spoken = [text for table in ("questions", "sentences") for slot in getattr(english, table)
              for text in english.wordings(table, slot)]
    spoken = [re.sub(r"\{\w+\}", "it", text) for text in spoken] + [*english.wordings("cue", ""), "Yes.", "No."] * 20
    return texts + spoken + [f"{word}, a {word}." for word in words] * 20


def keep(path: Path, result: dict) -> dict:
    """The result of a stage as its own run stated it: a resumed, finished stage has nothing new to say."""
    if not path.exists():
        path.write_text(json.dumps(result))
    return json.loads(path.read_text())


def key_of(*stages) -> str:
    """Name of the working folder: another recipe or another simulator never resumes this one's run."""
    facts = json.dumps([simulator_hash(), *(asdict(stage) for stage in stages)], sort_keys=True)
    return hashlib.sha256(facts.encode()).hexdigest()[:12]


def round_to_half(module: torch.nn.Module) -> None:
    """Round the parameters to what half precision can hold; buffers such as rotary frequencies stay exact."""
    for parameter in module.parameters():
        parameter.data = parameter.data.half().float()


def write_card(directory: Path, *, recipe: dict, metrics: dict) -> None:
    """Model card with recipe, seeds, minutes, metrics and the weights' hash."""
    weights = directory / "model.safetensors"
    digest = hashlib.sha256(weights.read_bytes()).hexdigest()
    lines = [
        "---",
        "library_name: transformers",
        "license: mit",
        "pipeline_tag: image-text-to-text",
        "---",
        f"# {NAME}",
        "",
        "A small `Qwen2_5_VLForConditionalGeneration`, trained from scratch on simulated surveillance scenes (SimCampus,",
        "training scenes only) with ordinary facts, captions and questions. No label says anomaly. It stands in for",
        "Qwen2.5-VL-7B where there is no GPU: same class, processor, special tokens and chat format, its own tokenizer.",
        "All numbers below are on **simulated** validation scenes that training never saw.",
        "",
        "Rebuild with `make zoo`. Not a general model: it knows simulated street scenes of 240x360 pixels and small words.",
        "",
        "## Recipe",
        "```json",
        json.dumps(recipe, indent=1),
        "```",
        "## Metrics",
        "```json",
        json.dumps(metrics, indent=1),
        "```",
        f"sha256 of model.safetensors: `{digest}` ({weights.stat().st_size / 1e6:.1f} MB, half precision)",
        "",
    ]
    (directory / "README.md").write_text("\n".join(lines))


def main(arguments: list[str] | None = None) -> Path:
    from transformers import Qwen2_5_VLForConditionalGeneration

    parser = argparse.ArgumentParser(prog="python -m tvad.backbones.pretrain", description=__doc__.splitlines()[0])
    parser.add_argument(
        "--work", type=Path, default=Path("runs/zoo"), help="checkpoints and rendered blocks; safe to delete"
    )
    parser.add_argument("--output", type=Path, default=ZOO / NAME)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--rounds", type=int, help="rounds of stage 1 (fewer for a trial)")
    parser.add_argument("--lessons", type=int, help="lessons of stage 2 (fewer for a trial)")
    parser.add_argument("--epochs", type=float, help="passes over the lessons in stage 2")
    parser.add_argument(
        "--stop-after", choices=("vision", "language"), default="language", help="vision: save no language model"
    )
    chosen = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.manual_seed(0)
    began = time.perf_counter()
    first = VisionStage(scenes=TRAIN_SCENES)
    second = LanguageStage(scenes=TRAIN_SCENES)
    first = replace(first, rounds=chosen.rounds or first.rounds)
    second = replace(second, lessons=chosen.lessons or second.lessons, epochs=chosen.epochs or second.epochs)
    work = chosen.work / key_of(first, second)
    tokenizer = make_tokenizer(corpus())
    model = Qwen2_5_VLForConditionalGeneration(make_config(tokenizer))
    processor = make_processor(tokenizer)
    results = {
        "vision": keep(work / "vision.json", train_vision(model.model.visual, first, work=work, device=chosen.device))
    }
    # What is committed is half precision: everything downstream must learn on exactly the rounded tower.
    round_to_half(model.model.visual)
    if chosen.stop_after == "language":
        results["language"] = keep(
            work / "language.json", train_language(model, processor, second, work=work, device=chosen.device)
        )
        round_to_half(model)
        results["answers_right"] = answers_right(
            model, processor, list(VALIDATION_SCENES), count=200, seed=7
        )
    # A resumed stage states its last process alone, so this sum is a lower bound.
    results["minutes_of_stages"] = sum(results[name]["minutes"] for name in ("vision", "language") if name in results)
    results["minutes_of_this_process"] = (time.perf_counter() - began) / 60
    beside = chosen.output.with_name(chosen.output.name + ".part")
    shutil.rmtree(beside, ignore_errors=True)
    save_model(model.cpu(), processor, beside, parts=("",) if chosen.stop_after == "language" else TOWER)
    write_card(
        beside,
        recipe={
            "vision": asdict(first),
            "language": asdict(second),
            "device": chosen.device,
            "torch": torch.__version__,
        },
        metrics=results,
    )
    shutil.rmtree(chosen.output, ignore_errors=True)
    beside.rename(chosen.output)
    print(json.dumps(results))
    return chosen.output


if __name__ == "__main__":
    main()
