"""``python -m tvad.backbones.pretrain``: build ``data/zoo/qwen2.5-vl-tiny`` from nothing but the simulator.

Stage 1 trains the vision tower on dense facts, stage 2 the language model on questions, stage 3 its blocks on reports to
be read (see the three modules).  All resume where they were interrupted.  ``--start MODEL`` takes tower, embedding and
language model of a finished directory and trains stage 3 alone.  The model directory is written beside and renamed, with a
card that states recipe and metrics.
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
from typing import Any

import torch

from tvad.allocator import keep_freed_memory
from tvad.backbones import vision
from tvad.backbones.pretrain.language_stage import LanguageStage, answers_right, train_language
from tvad.backbones.pretrain.reading_stage import ReadingStage, reading_right, train_reading
from tvad.backbones.pretrain.tiny import ROPE, TOWER, make_config, make_processor, make_tokenizer, save_model
from tvad.backbones.pretrain.vision_stage import VisionStage, train_vision
from tvad.backbones.zoo import ZOO
from tvad.datasets.footage_store import simulator_hash
from tvad.errors import BackboneError
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


def told_hash() -> str:
    """Hash of what decides the invented reports: their teller and the wordings it takes."""
    from tvad.backbones.pretrain import stories
    from tvad.language import english, grammar, phrasings

    sources = b"".join(Path(module.__file__).read_bytes() for module in (stories, english, grammar, phrasings))
    return hashlib.sha256(sources).hexdigest()[:8]


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
        "training scenes only) with ordinary facts, captions and questions, and then, tower and input embedding frozen, on",
        "invented reports of ordinary people and things, told in words or in doubtful mixtures of words between the",
        "anomaly-prompt tokens, to be read and asked about. No label says anomaly. It stands in for",
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


def read_card(directory: Path) -> tuple[dict, dict]:
    """Recipe and metrics of a model's card. Raises BackboneError where it has none."""
    card = directory / "README.md"
    blocks = re.findall(r"```json\n(.*?)\n```", card.read_text(), flags=re.DOTALL) if card.is_file() else []
    if len(blocks) != 2:
        raise BackboneError(f"{card}: no card with recipe and metrics; start from a directory that this command made")
    return json.loads(blocks[0]), json.loads(blocks[1])


def reopened(directory: Path) -> tuple[Any, Any]:
    """Model (float32) and processor of a finished directory, with the positions that stage 3 is to learn."""
    from transformers import AutoConfig, AutoProcessor, Qwen2_5_VLForConditionalGeneration

    config = AutoConfig.from_pretrained(directory)
    config.text_config.rope_parameters = dict(ROPE)
    model = Qwen2_5_VLForConditionalGeneration.from_pretrained(directory, config=config, dtype=torch.float32)
    vision.quicken(model.model.visual)
    return model, AutoProcessor.from_pretrained(directory)


def how_it_reads(model: Any, processor: Any, *, count: int = 100) -> dict[str, dict[str, float]]:
    """Answers to unseen reports right word for word: told in text, and in blanks with 0, 30 and 50 % doubt."""
    ways = {"text": ("text", None), **{f"blanks, {doubt:.0%} doubt": ("blanks", doubt) for doubt in (0.0, 0.3, 0.5)}}
    return {name: reading_right(model, processor, count=count, seed=7, way=way, doubt=doubt)
            for name, (way, doubt) in ways.items()}


def options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tvad.backbones.pretrain", description=__doc__.splitlines()[0])
    parser.add_argument(
        "--work", type=Path, default=Path("runs/zoo"), help="checkpoints and rendered blocks; safe to delete"
    )
    parser.add_argument("--output", type=Path, default=ZOO / NAME)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--rounds", type=int, help="rounds of stage 1 (fewer for a trial)")
    parser.add_argument("--lessons", type=int, help="lessons of stage 2 (fewer for a trial)")
    parser.add_argument("--epochs", type=float, help="passes over the lessons in stage 2")
    parser.add_argument("--reading-steps", type=int, help="steps of stage 3 (fewer for a trial)")
    parser.add_argument("--start", type=Path, help="a finished model's directory: train stage 3 alone, from its weights")
    parser.add_argument("--stop-after", choices=("vision", "language", "reading"), default="reading",
                        help="vision: save no language model; language: leave stage 3 out")
    return parser.parse_args(arguments)


def read_on(model: Any, processor: Any, third: ReadingStage, second: LanguageStage, *, work: Path, blocks: Path,
            device: str) -> dict[str, Any]:
    """Stage 3 on a model whose weights are half precision already; its results, with what it reads afterwards."""
    model.to(device)
    before = how_it_reads(model, processor) if not (work / "reading.json").exists() else None
    result = train_reading(model, processor, third, second, work=work, blocks=blocks, device=device)
    round_to_half(model)
    if before is None:
        return keep(work / "reading.json", result)
    return keep(work / "reading.json", {**result, "read_before": before, "read_right": how_it_reads(model, processor)})


def main(arguments: list[str] | None = None) -> Path:
    from transformers import Qwen2_5_VLForConditionalGeneration

    chosen = options(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.manual_seed(0)
    keep_freed_memory()
    began = time.perf_counter()
    first = VisionStage(scenes=TRAIN_SCENES)
    second = LanguageStage(scenes=TRAIN_SCENES)
    third = ReadingStage()
    third = replace(third, steps=chosen.reading_steps or third.steps)
    first = replace(first, rounds=chosen.rounds or first.rounds)
    second = replace(second, lessons=chosen.lessons or second.lessons, epochs=chosen.epochs or second.epochs)
    unseen = {"scenes": list(VALIDATION_SCENES), "count": 200, "seed": 7}
    if chosen.start:
        recipe, results = read_card(chosen.start)
        model, processor = reopened(chosen.start)
        blocks = chosen.work / key_of(second)
        started = hashlib.sha256((chosen.start / "model.safetensors").read_bytes()).hexdigest()[:12]
    else:
        tokenizer = make_tokenizer(corpus())
        model = Qwen2_5_VLForConditionalGeneration(make_config(tokenizer))
        processor = make_processor(tokenizer)
        blocks = chosen.work / key_of(first, second)
        started = "own"
        tower = train_vision(model.model.visual, first, work=blocks, device=chosen.device)
        recipe, results = {"vision": asdict(first)}, {"vision": keep(blocks / "vision.json", tower)}
        # What is committed is half precision: everything downstream must learn on exactly the rounded tower.
        round_to_half(model.model.visual)
        if chosen.stop_after != "vision":
            talk = train_language(model, processor, second, work=blocks, device=chosen.device)
            recipe["language"], results["language"] = asdict(second), keep(blocks / "language.json", talk)
            round_to_half(model)
            results["answers_right"] = answers_right(model, processor, **unseen)
    if chosen.stop_after == "reading":
        recipe["reading"] = asdict(third)
        results["answers_right_before_reading"] = results["answers_right"]
        room = blocks / f"reading-{started}-{key_of(third)}-{told_hash()}"
        results["reading"] = read_on(model, processor, third, second, work=room, blocks=blocks, device=chosen.device)
        results["answers_right"] = answers_right(model, processor, **unseen)
    # A resumed stage states its last process alone, so this sum is a lower bound.
    results["minutes_of_stages"] = sum(results[name]["minutes"] for name in ("vision", "language", "reading")
                                       if name in results)
    results["minutes_of_this_process"] = (time.perf_counter() - began) / 60
    beside = chosen.output.with_name(chosen.output.name + ".part")
    shutil.rmtree(beside, ignore_errors=True)
    save_model(model.cpu(), processor, beside, parts=TOWER if chosen.stop_after == "vision" else ("",))
    write_card(beside, recipe={**recipe, "device": chosen.device, "torch": torch.__version__}, metrics=results)
    shutil.rmtree(chosen.output, ignore_errors=True)
    beside.rename(chosen.output)
    print(json.dumps(results))
    return chosen.output


if __name__ == "__main__":
    main()
