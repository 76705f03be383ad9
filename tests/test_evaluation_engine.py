"""The engine: registry, command line, processes, failures, paired differences, details, cost."""
from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from evaluation_toys import SCORING, MaskDetector
from test_datasets import make_dummy
from tiny_model import random_model_directory
from training_fakes import FakeBackbone, toy_split

from tvad.backbones.qwen import QwenBackbone
from tvad.detector import TVAD
from tvad.errors import DatasetError, MissingPhaseError, ParameterError
from tvad.evaluation import __main__ as command
from tvad.evaluation import detectors as registry
from tvad.evaluation.arms import arm_detections, arms_measures
from tvad.evaluation.compare import answer_differences, differences
from tvad.evaluation.cost import cost_measures, count, parameter_counts
from tvad.evaluation.details import answer_measures, diagram, scene_measures
from tvad.evaluation.engine import cell_of, detections_folder
from tvad.evaluation.measures import read_measures
from tvad.evaluation.places import Place
from tvad.evaluation.rows import Cell, evaluate
from tvad.evaluation.scoring import load_detections, score_dataset
from tvad.evaluation.tables import TABLES
from tvad.metrics import macro_auc, micro_auc, smooth
from tvad.metrics.text import Answer, score_text
from tvad.record import read_rows
from tvad.study.answers import write_answers
from tvad.training.phase1 import Phase1Config, untrained_decoder

PED2 = Place.parse("ucsd_ped2/test")
CELL = Cell(variant="full", dataset="simcampus", split="test", protocol="scene-disjoint", seed=0, config="c", sigma=1.0,
            samples=40)


@pytest.fixture
def toys(monkeypatch):
    """Three more lines in the registry."""
    for name in ("good", "poor", "broken"):
        line = registry.Entry("anyanomaly", name, f"Toy {name}", f"evaluation_toys:open_{name}")
        monkeypatch.setitem(registry.DETECTORS, name, line)


@pytest.fixture(scope="module")
def ped2(tmp_path_factory):
    root = tmp_path_factory.mktemp("sets")
    make_dummy(root, layout="frames")
    return root


def run(*arguments, root):
    return command.main([*arguments, "--root", str(root), "--on", str(PED2), "--samples", "20"])


# Registry and places

def test_a_new_system_is_one_line(toys):
    assert isinstance(registry.open_detector("good", registry.Order(seed=3)), MaskDetector)
    assert registry.title_of("anyanomaly", "good") == "Toy good" and registry.title_of("x", "y") == "x (y)"
    with pytest.raises(ParameterError, match="unknown detector 'tvda'; known: t-vad, t-vad-static"):
        registry.open_detector("tvda")


def test_places_know_their_protocol_and_training():
    found = [(place.protocol, place.trained) for place in map(Place.parse, ("simcampus/test", "simcampus/test-open",
                                                                            "ucsd_ped2/test"))]
    assert found == [("scene-disjoint",) * 2, ("open-set",) * 2, ("official", "scene-disjoint")]
    for wrong in ("simcampus", "imagenet/test", "simcampus/"):
        with pytest.raises(ParameterError, match="is no place to measure on; write dataset/split, such as simcampus/test"):
            Place.parse(wrong)


def test_a_decoder_is_found_in_the_study_newest_first_and_missing_ones_are_named(tmp_path):
    backbone = FakeBackbone()
    order = registry.Order(root=tmp_path, seed=1)
    with pytest.raises(MissingPhaseError, match="no trained decoder of full, scene-disjoint, seed 1 for backbone fake; "
                                                "run: make study, or give its file"):
        registry.find_decoder(order, backbone)
    for config, fingerprint in (("old", backbone.fingerprint), ("foreign", "another")):
        folder = tmp_path / "runs" / "study" / config / "full-scene-disjoint-seed1"
        untrained_decoder(Phase1Config(hidden_width=4), backbone).save(folder / "ahd.safetensors",
                                                                       backbone_fingerprint=fingerprint)
        os.utime(folder, (1e9, 1e9 + len(config)))
    assert registry.find_decoder(order, backbone).parent.parent.name == "old"
    given = str(tmp_path / "runs" / "study" / "old" / "full-scene-disjoint-seed1" / "ahd.safetensors")
    assert registry.find_decoder(replace(order, decoder=given, seed=9), backbone) == Path(given)


# Command line

def test_the_command_scores_compares_and_goes_on_where_it_stopped(toys, ped2, tmp_path, capsys):
    shared = ["--output", str(tmp_path)]
    assert run("score", "--detector", "good", "poor", "--seeds", "0", "1", "--incomplete", *shared, root=ped2) == 0
    said = capsys.readouterr().out
    assert said.count("3 videos in") == 4 and "good on ucsd_ped2/test, seed 1" in said
    rows = read_rows(tmp_path / "rows.jsonl")
    assert {(row.system, row.variant, row.seed) for row in rows} == {("anyanomaly", name, seed) for name in ("good", "poor")
                                                                     for seed in (0, 1)}
    assert {row.choice for row in rows if row.sigma} == {"fixed"} and {row.protocol for row in rows} == {"official"}
    names = {one.name for one in read_measures(tmp_path / "measures.jsonl")}
    assert {"latency_ap", "false_alarms_at_recall_80", "delay_at_recall_95", "false_frames_at_recall_80"} <= names
    before = (tmp_path / "rows.jsonl").read_bytes()
    assert run("score", "--detector", "good", "--seeds", "0", "--incomplete", *shared, root=ped2) == 0
    assert sorted((tmp_path / "rows.jsonl").read_bytes().splitlines()) == sorted(before.splitlines())


def test_failed_videos_are_reported_at_the_end_and_the_others_kept(toys, ped2, tmp_path, capsys, caplog):
    assert run("score", "--detector", "broken", "--incomplete", "--output", str(tmp_path), root=ped2) == 1
    said = capsys.readouterr().err
    assert "DatasetError: 2 videos could not be scored, test_02: test_02.mp4: 3 frames are readable" in said
    assert "test_03: RuntimeError: the detector broke down" in said and "Traceback" in caplog.text
    assert len(list(tmp_path.rglob("test_01-*.npz"))) == 1 and not (tmp_path / "rows.jsonl").exists()


@pytest.mark.parametrize(("arguments", "message"), [
    (["score", "--detector", "nothing"], "ParameterError: unknown detector 'nothing'; known: t-vad"),
    (["score", "--on", "moon/test"], "ParameterError: 'moon/test' is no place to measure on"),
    (["compare", "t-vad"], "ParameterError: compare: name two detectors or more"),
    (["study", "--study", "none"], "MissingPhaseError: none: no study here; run: make study"),
    (["answers", "none.jsonl"], "StorageError: none.jsonl: no answers here"),
])
def test_mistakes_end_with_one_line(arguments, message, tmp_path, capsys):
    assert command.main([*arguments, "--output", str(tmp_path)]) == 1
    said = capsys.readouterr().err
    assert said.startswith(message) and said.count("\n") == 1


def test_tables_are_written_from_what_there_is(tmp_path, capsys):
    assert command.main(["tables", "--output", str(tmp_path)]) == 0
    assert len(capsys.readouterr().out.split()) == len(list(tmp_path.iterdir())) == 3 * len(TABLES)


# Processes

@pytest.mark.slow
def test_two_processes_give_the_rows_of_one(ped2, tmp_path):
    model = random_model_directory(tmp_path / "zoo")
    backbone = QwenBackbone.from_pretrained(model, taps=(0, 1, 2), device="cpu")
    decoder = untrained_decoder(Phase1Config(hidden_width=8), backbone)
    decoder.save(tmp_path / "ahd.safetensors", backbone_fingerprint=backbone.fingerprint)
    arguments = ["score", "--backbone", str(model), "--decoder", str(tmp_path / "ahd.safetensors"), "--device", "cpu",
                 "--on", str(PED2), "--root", str(ped2), "--incomplete", "--samples", "20", "--output"]
    assert command.main([*arguments, str(tmp_path / "one")]) == 0
    launcher = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2",
                "--main_process_port", "0", "-m", "tvad.evaluation"]
    done = subprocess.run([*launcher, *arguments, str(tmp_path / "two")], capture_output=True, text=True, timeout=280,
                          cwd=Path(command.__file__).parents[2], env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("3 videos in") == 1
    for name in ("rows.jsonl", "measures.jsonl"):
        assert (tmp_path / "two" / name).read_bytes() == (tmp_path / "one" / name).read_bytes()
    folder = detections_folder(tmp_path / "two", "t-vad", 0, PED2)
    assert len(list(folder.glob("*.npz"))) == 3


# Details and differences

def found_by(noise, videos):
    detector = MaskDetector(noise=noise)
    return {video.id: detector.score(video) for video in videos}


def test_scene_measures_are_the_rows_of_the_scene():
    videos = [replace(video, scene=f"scene{index % 2}") for index, video in enumerate(toy_split("t", 8))]
    found = found_by(0.6, videos)
    measures = scene_measures(found, videos, CELL)
    own = [video for video in videos if video.scene == "scene1"]
    expected = {row.metric: row.value for row in evaluate(found, own, CELL) if row.event is None and row.sigma != 0}
    assert {one.name: one.value for one in measures if one.scene == "scene1"} == {
        name: expected[name] for name in ("micro_auc", "ap", "pixel_auroc", "rbdc", "tbdc")}
    assert scene_measures(found, own, CELL) == []


def test_differences_are_those_of_the_means_over_seeds():
    videos = toy_split("t", 6)
    good, poor = [found_by(noise, videos) for noise in (0.3, 0.4)], [found_by(0.95, videos)]
    measures = {one.name: one for one in differences(good, poor, videos, CELL, against="t-vad/control-static")}
    labels = [video.labels for video in videos]

    def value(metric, found):
        return metric([found[video.id].frame_scores for video in videos], labels)
    for name, metric in (("micro_auc", micro_auc), ("macro_auc", macro_auc), ("video_auc", macro_auc)):
        expected = np.mean([value(metric, found) for found in good]) - value(metric, poor[0])
        assert measures[name].value == pytest.approx(expected), name
    assert measures["micro_auc"].against == "t-vad/control-static" and measures["video_auc"].p in (2 / 2**4, 2 / 2**5)
    assert {"ap", "latency_ap", "pixel_auroc", "rbdc", "tbdc"} < set(measures)
    assert all(one.value > 0 for one in measures.values() if one.name in ("pixel_auroc", "rbdc"))
    with pytest.raises(DatasetError, match="t0: one of both systems has no detection of this video; score both first"):
        differences(good, [{}], videos, CELL, against="x/y")


def answers(right, probability=None):
    made = []
    for index in range(8):
        truth = "Yes." if index % 2 else "No."
        said = truth if index in right else ("No." if index % 2 else "Yes.")
        made.append(Answer(f"v{index // 2}", "anomaly", said, (truth,), "car" if index % 2 else None,
                           0.9 if said == "Yes." else 0.2))
        if index % 2:
            made.append(Answer(f"v{index // 2}", "target", "a red car on the road" if index in right else "a man", (
                "a red car on the road",), "car"))
    return made


def test_answers_are_compared_question_by_question():
    first, second = answers(range(8)), answers((0, 2, 3))
    measures = {one.name: one for one in answer_differences([first], [second], CELL, against="t-vad/no-rae")}
    gaps = {name: score_text(first)[name].value - score_text(second)[name].value for name in measures}
    assert set(gaps) == {"yes_no_accuracy", "bleu4_target"}
    assert {name: one.value for name, one in measures.items()} == pytest.approx(gaps) and gaps["yes_no_accuracy"] == 5 / 8
    with pytest.raises(DatasetError, match="do not answer the same questions"):
        answer_differences([first], [second[1:]], CELL, against="t-vad/no-rae")


def test_calibration_of_answers():
    said = answers((0, 1, 2, 3, 4))
    found = diagram(said)
    assert found.n == 8 and found.base == 0.5 and found.count[[2, 9]].tolist() == [5, 3]
    measures = {one.name: one for one in answer_measures(said, CELL)}
    assert measures["ece"].value == pytest.approx(found.ece) and measures["brier"].value == pytest.approx(found.brier)
    assert measures["ece"].n == 8 and answer_measures([replace(one, probability=None) for one in said], CELL) == []


def test_answers_from_files_are_calibrated_and_compared(tmp_path, capsys):
    for name, right in (("full", range(8)), ("other", (0, 2, 3))):
        write_answers(tmp_path / f"{name}.jsonl", answers(right))
    assert command.main(["answers", str(tmp_path / "full.jsonl"), "--against", str(tmp_path / "other.jsonl"),
                         "--against-variant", "no-rae", "--output", str(tmp_path)]) == 0
    assert "yes_no_accuracy +0.6250 difference, n 4" in capsys.readouterr().out
    found = read_measures(tmp_path / "measures.jsonl")
    assert [one.name for one in found] == ["ece", "brier", "yes_no_accuracy", "bleu4_target"]
    assert found[-1].against == "t-vad/no-rae" and found[-1].split == "test"


def test_stored_detections_are_read_without_their_detector(tmp_path):
    videos = toy_split("t", 2)
    score_dataset(MaskDetector(), videos, tmp_path, progress=False)
    assert set(load_detections(tmp_path, videos)) == {"t0", "t1"}
    with pytest.raises(MissingPhaseError, match="the split is not scored as a whole, run: python -m tvad.evaluation score"):
        load_detections(tmp_path, toy_split("t", 3))
    cell = cell_of(MaskDetector(), Place.parse("simcampus/val"), variant="full", seed=2)
    assert (cell.choice, cell.sigma, cell.system) == ("in-sample", 1.0, "anyanomaly")


def test_the_studys_detections_are_put_together_again(tmp_path):
    videos, place = toy_split("t", 4), Place.parse("simcampus/test")
    for variant, noise in (("full", 0.3), ("control-static", 0.9)):
        for seed in (0, 1):
            arm = tmp_path / "c0ffee" / f"{variant}-scene-disjoint-seed{seed}"
            if (variant, seed) != ("control-static", 1):
                score_dataset(MaskDetector(noise + 0.01 * seed), videos, arm / "detections" / "simcampus", progress=False)
                replace(SCORING, sigma=3.0).save(arm / "detector.json")
    found, scoring = arm_detections(tmp_path / "c0ffee" / "full-scene-disjoint-seed0", place, videos)
    raw = MaskDetector(0.3).score(videos[0]).raw_scores
    np.testing.assert_allclose(found["t0"].frame_scores, smooth([raw], 3.0)[0], atol=1e-6)
    measures, missing = arms_measures(tmp_path / "c0ffee", place, videos, variants=("full", "control-static"), seeds=(0, 1),
                                      samples=20)
    assert missing == [f"{tmp_path / 'c0ffee' / 'control-static-scene-disjoint-seed1'}: not scored on simcampus/test; run: "
                       "make study"]
    assert len([one for one in measures if one.name == "latency_ap" and one.unit == "fraction"]) == 3
    gap = next(one for one in measures if one.name == "micro_auc" and one.unit == "difference")
    assert gap.against == "t-vad/control-static" and gap.config == "c0ffee"
    labels = [video.labels for video in videos]
    other, _ = arm_detections(tmp_path / "c0ffee" / "control-static-scene-disjoint-seed0", place, videos)
    values = [micro_auc([side[video.id].frame_scores for video in videos], labels) for side in (found, other)]
    assert gap.value == pytest.approx(values[0] - values[1])        # of the one seed that both have


# Cost

def test_cost_counts_what_is_there(tmp_path):
    model = random_model_directory(tmp_path / "zoo")
    backbone = QwenBackbone.from_pretrained(model, taps=(0, 1, 2), device="cpu")
    system = TVAD(backbone, untrained_decoder(Phase1Config(hidden_width=8), backbone),
                  prototypes=backbone.embed_prompts(["one person", "bicycle"]))
    found = {one.name: one for one in cost_measures(system, frames=16, repeats=1)}
    assert found["parameters_ahd"].value == sum(value.numel() for value in system.decoder.parameters())
    assert found["parameters_tower"].value == count(backbone.visual.parameters()) > 0 and "parameters_rae" not in found
    whole = QwenBackbone.from_pretrained(model, taps=(0, 1, 2), device="cpu", load_language_model=True)
    parts = parameter_counts(TVAD(whole, system.decoder, prototypes=system.prototypes))
    assert parts["tower"] + parts["language"] == count(whole.language_model.parameters())       # neither is counted twice
    grid = backbone.see(command_clip()).grid
    assert found["flops_ahd"].value == pytest.approx(system.decoder.flops(*grid) / 16, rel=0.02)
    assert found["speed"].value > 0 and found["speed"].unit == "frames/s" and "cpu" in found["speed"].note
    assert found["flops_tower"].value > found["flops_ahd"].value and found["peak_memory"].value > 0.1


def command_clip():
    from tvad.evaluation.cost import SIZE
    from tvad.video.clip import Clip

    return Clip(np.zeros((16, *SIZE, 3), np.uint8), 10.0, 0, "clip")
