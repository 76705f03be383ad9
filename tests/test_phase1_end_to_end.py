"""Phase 1 on a real, tiny, random Qwen2.5-VL: train, reload, detect, measure; and what the cache takes for granted."""
from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from tiny_model import random_model_directory
from training_fakes import SIZE, toy_split

from tvad import bench
from tvad.backbones.qwen import QwenBackbone
from tvad.detection import Scoring
from tvad.detector import TVAD, StaticView
from tvad.errors import CheckpointError
from tvad.evaluation import Cell, evaluate, score_dataset
from tvad.training.cache import tower_key
from tvad.training.phase1 import Phase1Config, train_heatmap, untrained_decoder
from tvad.video.clip import Clip

CONFIG = Phase1Config(steps=6, batch_size=4, validate_every=3, hidden_width=8, train_pairs=12, val_pairs=24,
                      patches_per_pair=16)


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    return random_model_directory(tmp_path_factory.mktemp("zoo") / "tiny")


@pytest.fixture(scope="module")
def backbone(directory):
    return QwenBackbone.from_pretrained(directory, taps=(0, 1, 2), device="cpu")


def test_a_pair_seen_alone_gives_the_taps_of_its_clip(backbone):
    video = toy_split("t", 1)[0]
    whole = backbone.see(Clip(video.frames.read(4, 12), 10.0, 4, "t"))
    alone = backbone.see(Clip(video.frames.read(8, 10), 10.0, 8, "t"))
    for tap, expected in zip(alone.taps, whole.taps):
        torch.testing.assert_close(tap[0], expected[2], rtol=1e-4, atol=1e-4)


def test_from_training_to_rows_and_back_from_disk(directory, backbone, tmp_path):
    train, val, test = toy_split("a", 4), toy_split("v", 4), toy_split("t", 3)
    result = train_heatmap(CONFIG, backbone, train=train, val=val, output_dir=tmp_path / "phase1",
                           cache_dir=tmp_path / "cache", progress=False)
    Scoring(frames_per_clip=8, stride=8, sigma=1.0).save(tmp_path / "phase1" / "detector.json")
    model = TVAD.from_pretrained(directory, result.path, device="cpu", cache_dir=tmp_path / "cache")
    assert model.scoring.sigma == 1.0 and model.backbone.taps == (0, 1, 2)
    scored = score_dataset(model, test, tmp_path / "detections", progress=False).check()
    heat = scored.detections["t0"].heatmap
    height, width = model.backbone.input_size(*SIZE)
    assert heat.shape == (40, height // 10, width // 10) and 0 <= heat.min() <= heat.max() <= 1
    cell = Cell(variant="full", dataset="simcampus", split="test", protocol="scene-disjoint", seed=0, config="c",
                sigma=1.0, samples=20)
    rows = evaluate(scored.detections, test, cell)
    assert {row.metric for row in rows} == {"micro_auc", "macro_auc", "ap", "pixel_auroc", "aupro", "rbdc", "tbdc"}
    assert all(row.value is not None for row in rows)
    again = TVAD.from_pretrained(backbone, result.path, cache_dir=tmp_path / "cache").detect(test[0])
    np.testing.assert_array_equal(again.heatmap, heat)
    with pytest.raises(CheckpointError, match="ahd.safetensors.*was trained on"):
        TVAD.from_pretrained(backbone.randomised(seed=1), result.path)


def test_each_control_has_features_and_a_decoder_of_its_own(backbone):
    views = [backbone, StaticView(backbone), backbone.randomised(seed=0), backbone.randomised(seed=1)]
    assert len({tower_key(view) for view in views}) == len({view.fingerprint for view in views}) == 4
    video = toy_split("t", 1)[0]
    clip = Clip(video.frames.read(10, 14), 10.0, 10, "t")
    seen = [view.see(clip).taps[1] for view in views]
    assert all(not torch.allclose(seen[0], other, atol=1e-3) for other in seen[1:])
    one, two = untrained_decoder(CONFIG, views[0]), untrained_decoder(CONFIG, views[1])
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters()))


def test_the_bench_ends_with_one_json_line(directory, capsys):
    bench.main(["--backbone", str(directory), "--frames", "16", "--repeats", "1"])
    line = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert set(line["frames_per_second"]) == {"rendering_240x360_one_thread", "heatmap_mode_240x360"}
    assert all(0 < speed["median"] <= speed["best"] for speed in line["frames_per_second"].values())
    assert line["regime"]["frames"] == 16 and line["regime"]["unit"] == "frames/s"
