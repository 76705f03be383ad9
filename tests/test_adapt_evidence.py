"""Evidence of an adapted detector: levels by place, fusion, the scale, the bank of normal patches."""
from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from training_fakes import FakeBackbone

from tvad.adaptation.evidence import Calibration, Fusion, Levels, fuse, squash
from tvad.adaptation.oneclass import NormalBank
from tvad.checkpoints import read_weights, write_weights
from tvad.errors import CheckpointError, DatasetError, ParameterError
from tvad.training.adapt import AdaptConfig


def test_a_place_counts_by_its_own_levels():
    values = np.random.default_rng(0).normal(0, 1, (400, 4, 5)).astype(np.float32)
    values[:, 1, 2] = values[:, 1, 2] * 4 - 6
    levels = Levels.fit(values, reach=0, share=1.0)
    assert levels.middle[1, 2] == pytest.approx(-6, abs=0.6) and levels.spread[1, 2] == pytest.approx(4 * 2.33, rel=0.2)
    assert np.quantile(levels(values), 0.99, axis=0) == pytest.approx(np.ones((4, 5)), abs=1e-3)
    with pytest.raises(DatasetError, match="no normal frames"):
        Levels.fit(values[:0])


def test_evidence_adds_up_and_is_squashed_without_ties(tmp_path):
    rng = np.random.default_rng(1)
    names = ("heat@1", "heat@3", "oneclass@1", "oneclass@3")
    parts = {name: rng.normal(size=(3, 2, 2)).astype(np.float32) for name in names}
    levels = {name: Levels(np.full((2, 2), index, np.float32), np.full((2, 2), 2, np.float32))
              for index, name in enumerate(parts)}
    calibration = Calibration(levels, zero=1.5, unit=0.5)
    wanted = np.mean([(parts[f"heat@{gap}"] - middle) / 2 + 0.25 * (parts[f"oneclass@{gap}"] - other) / 2
                      for gap, middle, other in ((1, 0, 2), (3, 1, 3))], axis=0)
    np.testing.assert_allclose(fuse(parts, calibration, Fusion("place", 0.25, (1, 3))), wanted, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(fuse(parts, calibration, Fusion("none", 0.0, (3,))), parts["heat@3"])
    values = squash(np.array([-40.0, 1.5, 30.0, 31.0]), calibration)
    assert values[1] == 0.5 and (np.diff(values) > 0).all() and 0 < values[0] and values[-1] < 1
    loaded = Calibration.load(replace(calibration, frame=0.8).save(tmp_path / "levels.safetensors"))
    assert (loaded.zero, loaded.frame) == (1.5, 0.8) and (loaded.levels["heat@3"].middle == 1).all()
    tensors, record = read_weights(tmp_path / "levels.safetensors")
    del record["frame"]         # as files were before frames had a level
    assert Calibration.load(write_weights(tmp_path / "old.safetensors", tensors, record)).frame == 0.5


def test_fusions_that_make_no_sense_are_refused():
    with pytest.raises(ParameterError, match="place or none"):
        Fusion(levels="row")
    with pytest.raises(ParameterError, match="heat 0.0 must be at least 0, and above where oneclass is 0"):
        Fusion(heat=0.0)
    with pytest.raises(ParameterError, match="units of levels"):
        Fusion("none", 0.5)
    with pytest.raises(ParameterError, match="must be among gaps"):
        AdaptConfig(gaps=(1,), fusion=Fusion(gaps=(2,)))
    with pytest.raises(ParameterError, match="needs oneclass=True"):
        AdaptConfig(oneclass=False, fusion=Fusion("place", 0.5))
    for wrong, text in (({"steps": 0}, "steps must be at least 1"),
                        ({"val_composites": 1}, "val_composites must be at least 2"),
                        ({"gaps": (0,)}, "different numbers from 1"), ({"gaps": (2, 2)}, "different numbers from 1"),
                        ({"target_rule": "most"}, "target_rule 'most' must be one of")):
        with pytest.raises(ParameterError, match=text):
            AdaptConfig(**wrong)


def random_taps(seed: int, shift: float = 0.0, n: int = 6):
    generator = torch.Generator().manual_seed(seed)
    middle = torch.tensor([shift, 0, 0, 1.0])
    return [0.3 * torch.randn(n, 3, 5, 4, generator=generator) + middle for _ in range(2)]


def test_a_bank_scores_by_the_nearest_normal_patches(tmp_path):
    bank = NormalBank.fit(lambda: iter([random_taps(1), random_taps(2)]), width=5, size=40, neighbours=2)
    found = bank.score(random_taps(3))
    joined = torch.cat([torch.nn.functional.normalize(tap, dim=-1) for tap in random_taps(3)], -1)
    slow = torch.empty(found.shape)
    for n in range(6):
        for row in range(3):
            for column in range(5):
                point = (joined[n, row, column] - bank.mean) @ bank.projection
                distance = ((bank.patches[row] - point) ** 2).sum(-1).sqrt()
                slow[n, row, column] = distance.sort().values[:2].mean()
    torch.testing.assert_close(found, slow, rtol=1e-3, atol=1e-3)
    assert bank.score(random_taps(4, shift=9.0)).mean() > 1.5 * found.mean()
    again = NormalBank.load(bank.save(tmp_path / "bank.safetensors", backbone_fingerprint="x"))
    torch.testing.assert_close(again.score(random_taps(3)), found, rtol=0.02, atol=0.01)
    with pytest.raises(CheckpointError, match="adapt again"):
        bank.score([tap[:, :2] for tap in random_taps(3)])
    with pytest.raises(CheckpointError, match="another backbone than fake"):
        NormalBank.load(tmp_path / "bank.safetensors", backbone=FakeBackbone())
    with pytest.raises(CheckpointError, match="no such weight file; adapt again: make adapt VIDEO="):
        NormalBank.load(tmp_path / "none.safetensors")
    with pytest.raises(DatasetError, match="no normal footage"):
        NormalBank.fit(lambda: iter([]))
    still = [torch.ones(2, 3, 5, 4)] * 2
    assert NormalBank.fit(lambda: iter([still]), width=5, size=40).score(still).max() < 1e-3
