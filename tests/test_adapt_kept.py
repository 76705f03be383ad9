"""What an adaptation keeps of the decoder from before: a share of its weights, or all where only a view is matched."""
from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from training_fakes import fake_model, toy_clips, toy_split

from tvad.errors import ParameterError
from tvad.training.adapt import AdaptConfig, adapt, match_view

SMALL = AdaptConfig(steps=4, batch_size=8, validate_every=2, composites=12, normal=8, rehearsal=6, val_composites=10,
                    val_normal=8, patches_per_pair=16, gaps=(1,))


@pytest.fixture(scope="module")
def clips():
    return toy_clips()


@pytest.fixture(scope="module")
def model():
    return fake_model()


@pytest.fixture(scope="module")
def make(clips, model, tmp_path_factory):
    root = tmp_path_factory.mktemp("kept")

    def made(**changes):
        return adapt(model, clips, output_dir=root / "camera", config=replace(SMALL, **changes), cache_dir=root / "cache",
                     rehearsal=toy_split("sim"), progress=False)
    return made


def test_a_share_of_the_weights_stays_as_it_was(make, model):
    whole, part = make(kept=0.0), make(kept=0.25)
    weights = [list(one.parameters()) for one in (whole.detector.decoder, part.detector.decoder, model.decoder)]
    for new, mixed, old in zip(*weights):
        torch.testing.assert_close(mixed, 0.75 * new + 0.25 * old)
    assert any(not torch.equal(new, old) for new, old in zip(weights[0], weights[2]))
    assert "mixes that step with 25% of the weights from before, pixel AUROC 0" in (part.folder / "report.txt").read_text()


def test_another_share_is_another_detector_and_no_other_training(make):
    first = make(kept=0.0)
    text = (first.folder / "report.txt").read_text()
    steps = sorted((first.folder / "checkpoints").iterdir())
    other = make(kept=0.5)
    assert other.report["key"] != first.report["key"] and other.detector.fingerprint != first.detector.fingerprint
    assert sorted((first.folder / "checkpoints").iterdir()) == steps and "mixes" not in text
    assert make(kept=0.5).report["key"] == other.report["key"]


def test_a_matched_view_trains_nothing(clips, model, tmp_path):
    viewed = match_view(model, clips, output_dir=tmp_path / "view", config=replace(SMALL, gaps=()),
                        cache_dir=tmp_path / "cache", progress=False)
    assert all(torch.equal(*pair) for pair in zip(viewed.detector.decoder.parameters(), model.decoder.parameters()))
    assert "nothing was trained" in (viewed.folder / "report.txt").read_text()
    assert len(viewed.report["history"]) == 1 and viewed.report["best"]["step"] == 0
    assert viewed.detector.scoring.region_score == "max"        # regions and scores are on the camera's scale
    assert viewed.detector.detect(clips[0]).heatmap.shape[0] == 20


def test_a_share_that_is_none_is_refused():
    with pytest.raises(ParameterError, match=r"adapt: kept must be in \[0, 1\), got 1.0"):
        AdaptConfig(kept=1.0)
