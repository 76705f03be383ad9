"""Two runs with one seed leave the same bytes: weights, detections, rows, measures, answers."""
from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from phase2_fakes import SMALL, TALKS, TEXT, VIDEOS
from training_fakes import toy_split

from tvad.detection import Scoring
from tvad.detector import TVAD
from tvad.evaluation.engine import evaluate_detector
from tvad.evaluation.places import Place
from tvad.record import append_rows
from tvad.study.speaking import Spoken, speak_cell
from tvad.training.phase1 import Phase1Config, train_heatmap

pytest_plugins = ("phase2_fakes",)
HEAT = Phase1Config(steps=4, batch_size=4, validate_every=2, hidden_width=8, train_pairs=12, val_pairs=24,
                    patches_per_pair=16)


def left(folder: Path, *endings: str) -> dict[str, bytes]:
    """What a run left, by name; its caches and the seconds that it took aside."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*"))
            if path.suffix in endings and "cache" not in path.parts and "checkpoints" not in path.parts}


def phases_1_and_3(folder: Path, backbone, *, seed: int) -> dict[str, bytes]:
    """Trained, scored and measured from nothing."""
    trained = train_heatmap(replace(HEAT, seed=seed), backbone, train=toy_split("a", 4), val=toy_split("v", 4),
                            output_dir=folder, cache_dir=folder / "cache", prototypes=TEXT, progress=False)
    Scoring(frames_per_clip=8, stride=8, sigma=1.0).save(folder / "detector.json")
    model = TVAD.from_pretrained(backbone, trained.path, cache_dir=folder / "cache")
    evaluate_detector(model, Place.parse("simcampus/test"), toy_split("t", 4), output=folder, name="t-vad", seed=seed,
                      samples=20, progress=False)
    return left(folder, ".safetensors", ".npz", ".jsonl")


def test_phases_1_and_3_give_the_same_bytes_and_another_seed_others(shared, tmp_path):
    first = phases_1_and_3(tmp_path / "one", shared, seed=0)
    assert phases_1_and_3(tmp_path / "two", shared, seed=0) == first
    assert {"ahd.safetensors", "rows.jsonl", "measures.jsonl"} < set(first) and len(first) == 3 + 4
    other = phases_1_and_3(tmp_path / "three", shared, seed=1)
    assert not [name for name in ("ahd.safetensors", "rows.jsonl") if other[name] == first[name]]


def test_phase_2_gives_the_same_bytes(backbone, decoder, tmp_path):
    data = Spoken({"train": TALKS, "val": TALKS}, {"train": VIDEOS, "val": VIDEOS})
    config = replace(SMALL, steps=2, blob_steps=1, validate_every=3, asked="core")
    found = []
    for name in ("one", "two"):
        folder = tmp_path / name
        append_rows(folder / "rows.jsonl", speak_cell(config, backbone, decoder, data, prototypes=TEXT, output=folder,
                                                      cache_dir=folder / "cache", splits=("val",), samples=10,
                                                      progress=False))
        found.append(left(folder, ".safetensors", ".jsonl"))
    assert found[0] == found[1]
    assert {"rows.jsonl", "answers-full-val.jsonl", "answers-swapped-val.jsonl", "model/rae.safetensors"} < set(found[0])
