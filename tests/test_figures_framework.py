"""The framework overview states what the models really make: its shapes against a real pass, its counts against weights."""
from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import paper_toys as toys
import pytest
import torch
from tiny_model import random_model_directory

from tvad.backbones.qwen import QwenBackbone
from tvad.errors import BackboneError
from tvad.figures import gallery, shapes
from tvad.heatmap import AnomalyHeatmapDecoder
from tvad.params import Phase1, Phase4
from tvad.region import make_encoder
from tvad.video.clip import Clip


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    return random_model_directory(tmp_path_factory.mktemp("zoo") / "random")


def test_shapes_are_those_of_a_real_pass(directory):
    region = {"variant": "located", "text_width": 256, "looks": 3}
    told = shapes.shapes_of(str(directory), size=(80, 120), frames=5, region=region,
                            phase2={"economy": {"every": 2, "token_step": 1, "pool": 3}, "phase2": {"lora_rank": 4}})
    backbone = QwenBackbone.from_pretrained(directory, device="cpu", dtype="float32", load_language_model=True)
    clip = Clip(np.zeros((5, 80, 120, 3), np.uint8), 10.0, 0, "v")
    sight = backbone.see(clip, tokens=True)
    assert told.grid == sight.grid and told.taps == backbone.taps and told.clip == (5, 80, 120)
    assert {tuple(tap.shape) for tap in sight.taps} == {(*told.grid, told.widths[0])}
    decoder = AnomalyHeatmapDecoder(taps=backbone.taps, tap_width=backbone.tap_width, text_width=256,
                                    hidden_width=Phase1().hidden_width)
    with torch.no_grad():
        assert tuple(decoder(sight.taps, torch.randn(2, 256)).shape) == told.heat
    # Every second of three steps is looked at, and the tower gives each its share of the tokens.
    assert told.steps == 2 and told.seen == 2 * len(sight.tokens) // 3 and told.read == 2 * 2 * 2
    encoder = make_encoder(**region)
    assert told.anomaly == encoder(torch.rand(1, 2, *told.grid[1:]), torch.rand(1, told.seen, 256)).shape[1]
    counted = {"tower": backbone.visual, "decoder": decoder, "regions": encoder}
    for name, module in counted.items():
        assert told.parameters[name] == sum(value.numel() for value in module.parameters()), name
    whole = sum(value.numel() for value in backbone.language_model.parameters())
    assert told.parameters["tower"] + told.parameters["language"] == whole
    assert told.trained == ("regions",) and told.region == "located" and told.rank == 4


def test_lora_of_the_published_size_counts_as_published():
    text = SimpleNamespace(hidden_size=3584, num_hidden_layers=28, num_attention_heads=28, num_key_value_heads=4)
    assert shapes.lora_parameters(text, 16) == 5_046_272


def test_numbers_and_shapes_in_words():
    assert [shapes.in_words(count) for count in (900, 71_680, 230_916, 3_571_264, 7_615_616_512)] == [
        "900", "72k", "0.23M", "3.6M", "7.6B"]
    assert shapes.times((8, 1728, 256)) == "8 × 1,728 × 256"


def test_a_model_that_is_not_there_is_a_reason(tmp_path, monkeypatch):
    toys.at_root(monkeypatch, tmp_path)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "config.json").write_text('{"model_type": "bert"}')
    made = gallery.Gallery(Phase4(backbone=str(tmp_path / "other"))).write("framework")
    assert made.reason == "other: model_type is 'bert', wanted 'qwen2_5_vl'; give a Qwen2.5-VL model" and not made.files
    with pytest.raises(BackboneError, match="no model directory"):
        shapes.shapes_of("qwen9", size=(80, 120), frames=4)


def test_without_a_run_the_framework_is_drawn_and_says_so(directory, tmp_path, monkeypatch):
    toys.at_root(monkeypatch, tmp_path)
    made = gallery.Gallery(Phase4(backbone=str(directory), dataset="ucsd_ped2")).write("framework")
    assert len(made.files) == 3 and "Frame and heatmap" not in made.caption
    assert "Not trained yet in this run, drawn as the notebooks would make it: decoder, regions." in made.caption
    assert "blocks 0, 1 (from 0)" in made.caption and "the tower looks at 4 of the clip's 8 steps" in made.caption
