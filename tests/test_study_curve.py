"""The learning curve: which points there are, what each changes, and that its rows are those of a trial on validation."""
from __future__ import annotations

import json
from dataclasses import replace
from types import SimpleNamespace

import pytest

from tvad.errors import ParameterError
from tvad.params import Phase2
from tvad.record import Row, append_rows, read_rows
from tvad.study import curve
from tvad.study.curve import AXES, LearningCurve, points
from tvad.training.phase2_config import Phase2Config

ROW = Row(system="t-vad", variant="full", dataset="simcampus", split="val", protocol="scene-disjoint",
          metric="bleu4_target", value=0.4, ci_low=None, ci_high=None, n=4, seed=0, config="c", commit=None)


def test_each_point_changes_one_setting_of_the_profile():
    params = Phase2()
    found = {point.variant: dict(point.changes) for point in points(params, Phase2Config.from_params(params), clips=1110)}
    assert list(found)[:3] == ["full", "full, clips x 0.25", "full, steps x 0.25"] and found["full"] == {}
    assert found["full, clips x 0.25"] == {"train_clips": 150} and found["full, clips x 1.85"] == {"train_clips": 1110}
    assert found["full, steps x 2"] == {"word_steps": 800, "blob_steps": 160, "steps": 160}
    assert found["full, width x 4"] == {"hidden_width": 512}
    assert found["full, rank x 0.25"] == {"lora_rank": 4, "lora_alpha": 8}
    assert len(found) == 1 + sum(map(len, AXES.values()))


def test_points_that_cannot_be_are_left_out():
    params = Phase2(region="located", train_clips=0)
    found = {point.variant for point in points(params, Phase2Config.from_params(params), clips=40)}
    assert "full, clips x 0.25" in found and not any("width" in name for name in found)
    assert not any(name.startswith("full, clips x 1") for name in found)        # all clips are the profile itself


def test_rows_are_those_of_trials_under_the_points_names(tmp_path, monkeypatch):
    seen = []

    def ablation(profile, *, root, phase1, seeds, variants, changes):
        def run():
            seen.append(dict(changes))
            path = tmp_path / "runs" / f"{len(seen)}.jsonl"
            append_rows(path, [replace(ROW, value=len(seen) / 100), replace(ROW, variant="swapped")])
            return [path]
        assert (profile, seeds, variants) == ("tiny", (0,), ("full",))
        params = Phase2(train_clips=2)
        talks = [SimpleNamespace(video="v", start=start, stop=start + 16) for start in range(4)]
        return SimpleNamespace(params=params, config=lambda variant, seed: Phase2Config.from_params(params), run=run,
                               spoken=lambda protocol: SimpleNamespace(conversations={"train": talks}))

    monkeypatch.setattr(curve, "Study", lambda profile, root: None)
    monkeypatch.setattr(curve, "clips_of", lambda talks: [one.start for one in talks])
    stale = [replace(ROW, variant="full, clips x 7"), replace(ROW, seed=3)]      # of other settings, of another seed
    append_rows(tmp_path / "figures" / "tiny" / "curve.jsonl", stale)
    path = LearningCurve("tiny", root=tmp_path, ablation=ablation).run()
    rows = {row.variant: row for row in read_rows(path)}
    assert "full, clips x 7" not in rows and {row.seed for row in read_rows(path)} == {0}
    assert seen[0] == {"val_clips": 0} and {"val_clips": 0, "train_clips": 4} in seen
    assert rows["full"].value == 0.01 and "full, clips x 2" in rows and "swapped" not in rows
    assert all(one == {"val_clips": 0} or len(one) > 1 for one in seen)
    record = json.loads((tmp_path / "figures" / "tiny" / "curve.provenance.json").read_text())
    assert record["points"]["full, clips x 0.5"] == {"changes": {"train_clips": 1}, "trained": None}


def test_a_width_can_be_set_for_the_worded_encoder_alone():
    said = "hidden_width 64 can be set for region 'worded' alone, not 'paper'; leave it out or choose"
    with pytest.raises(ParameterError, match=said):
        Phase2Config(region="paper", hidden_width=64)
    with pytest.raises(ParameterError, match="hidden_width must be at least 1, got 0"):
        Phase2Config(region="worded", hidden_width=0)
    assert "hidden_width" not in Phase2Config().given and Phase2Config(region="worded", hidden_width=64).encoder == {
        "variant": "worded", "hidden_width": 64}
