"""What a second turn costs: measured beside a fresh conversation, told in JSON, and without weights said and no error."""
from __future__ import annotations

import json
from types import SimpleNamespace

import pytest
from conversation_fakes import clip, lively_backbone, model_of
from tiny_model import random_model_directory

from tvad.conversation import bench
from tvad.conversation.bench import turn_cost
from tvad.video.frames import ArrayFrames


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return model_of(lively_backbone(random_model_directory(tmp_path_factory.mktemp("zoo") / "tiny")))


def test_the_cost_of_a_second_turn_is_measured_and_its_answer_is_that_of_a_fresh_conversation(model):
    cost = turn_cost(model, clip(3), rounds=1, limit=3)
    assert cost.same and 0 < cost.first_token and 0 < cost.turn and 0 < cost.encode
    assert "times cheaper" in str(cost) and "same tokens as encoding again" in str(cost)


def test_the_bench_says_its_regime_in_json_and_without_weights_what_to_run(model, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(bench, "project_root", lambda: tmp_path)
    assert bench.main([]) == 0
    said = capsys.readouterr()
    assert said.out == "" and said.err == (f"{tmp_path}/runs/tiny/phase1/ahd.safetensors: no such file, so no conversation "
                                           "is measured; run: make reproduce\n")
    for name in ("phase1/ahd.safetensors", "phase2/model/complete.json"):
        (tmp_path / "runs" / "tiny" / name).parent.mkdir(parents=True)
        (tmp_path / "runs" / "tiny" / name).write_text("{}")
    assert bench.main([]) == 1 and "CheckpointError" in capsys.readouterr().err     # damaged is not missing
    frames = ArrayFrames(clip(6).frames, 10.0, "v")
    data = SimpleNamespace(videos=lambda split: [SimpleNamespace(frames=frames)])
    monkeypatch.setattr(bench, "open_dataset", lambda *_, **__: data)
    monkeypatch.setattr(bench.AnomalyHeatmapDecoder, "load", lambda path: model.decoder)
    monkeypatch.setattr(bench.QwenBackbone, "from_pretrained", lambda *_, **__: model.backbone)
    monkeypatch.setattr(bench.TVAU, "from_phase2", lambda *_, **__: model)
    monkeypatch.setattr(bench, "ROUNDS", 1)
    assert bench.main(["--frames", "4"]) == 0
    *_, regime, line = capsys.readouterr().out.splitlines()
    found = json.loads(line)
    assert found["bench"] == "conversation" and found["encode"] > 0 and found["same"]
    assert found["regime"]["frames"] == 4 and regime.startswith("unit processor seconds, statistic median, rounds 1")
