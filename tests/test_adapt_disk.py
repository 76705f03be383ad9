"""Room on the disk for features, what killed runs leave, and folders of detectors that are whole or told to be not."""
from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from composite_footage import toy_footage
from training_fakes import GRID, SIZE, FakeBackbone, fake_model, toy_video

from tvad.adaptation.detector import AdaptedDetector
from tvad.adaptation.evidence import Calibration, Fusion, Levels, fuse, squash
from tvad.adaptation.oneclass import NormalBank
from tvad.detection import Scoring, top_mean
from tvad.errors import CheckpointError, ParameterError, StorageError
from tvad.training.adapt import AdaptConfig, adapt
from tvad.training.adapt.assembly import _calibrated
from tvad.training.adapt.disk import features_bytes, pair_bytes, scratch
from tvad.training.cache import cache_pairs


class Told(FakeBackbone):
    """A backbone that says how large it sees."""
    patch_size = 10

    def seen_size(self, height, width):
        return height, width


@pytest.fixture(scope="module")
def model():
    return fake_model(Told())


def test_the_estimate_is_what_the_cache_takes_and_what_lies_there_is_not_counted(tmp_path):
    videos, backbone = [toy_video(f"v{number}") for number in range(2)], Told()
    starts = {"v0": (0, 4, 8), "v1": (2, 30)}
    told = features_bytes(backbone, videos, starts=starts, root=tmp_path)
    assert told == 5 * pair_bytes(backbone, SIZE)
    pairs = cache_pairs(backbone, videos, starts=starts, root=tmp_path, progress=False)
    assert told < pairs.summary()["bytes"] < told + 2 * 2000        # and a header a file
    assert features_bytes(backbone, videos, starts=starts, root=tmp_path) == 0
    assert features_bytes(backbone, videos, starts={**starts, "v1": (2,)}, root=tmp_path) == pair_bytes(backbone, SIZE)
    assert pair_bytes(FakeBackbone(), SIZE) == 0


def test_a_disk_without_room_is_said_before_any_feature_is_made(model, tmp_path, monkeypatch):
    clips = [toy_footage(f"clip{number}", size=SIZE, frames=20, people=3, seed=number)[0] for number in range(4)]
    monkeypatch.setattr("tvad.training.adapt.disk.shutil.disk_usage", lambda path: SimpleNamespace(free=10_000))
    monkeypatch.setattr("tvad.training.adapt.run.cache_pairs", lambda *_, **__: pytest.fail("made features"))
    config = AdaptConfig(composites=2000, normal=900, val_composites=10, val_normal=10, gaps=(1,), rehearsal=0)
    said = (r"cache: the features of \d+ pairs need 0\.00 GB more, 0\.00 GB are free; free space there, or adapt with "
            r"fewer pairs \(composites.* zooms=\(1\.0,\) or to smaller footage")
    with pytest.raises(StorageError, match=said):
        adapt(model, clips, output_dir=tmp_path / "out", config=config, cache_dir=tmp_path / "no" / "cache", progress=False)


def test_what_killed_runs_left_is_cleared_and_what_runs_is_not(tmp_path):
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    with scratch(tmp_path, "features-") as own:
        assert f"-{os.getpid()}-" in own
        left = tmp_path / Path(own).name.replace(f"-{os.getpid()}-", f"-{gone.pid}-")
        left.mkdir()
        (left / "normal.npy").write_bytes(b"x")
        others = [tmp_path / name for name in ("features-elsewhere-1-abc", "features-old", f"pictures-{left.name[9:]}")]
        for folder in others:
            folder.mkdir()
        with scratch(tmp_path, "features-"):
            assert not left.exists() and Path(own).exists() and all(folder.exists() for folder in others)
    assert not Path(own).exists()


def detector_of(model, *, oneclass: float, bank: bool) -> AdaptedDetector:
    levels = {name: Levels(np.zeros(GRID, np.float32), np.ones(GRID, np.float32)) for name in ("heat@1", "oneclass@1")}
    taps = [torch.randn(2, *GRID, 6, generator=torch.Generator().manual_seed(0)) for _ in range(2)]
    return AdaptedDetector(model.backbone, model.decoder, model.prototypes, Calibration(levels),
                           Fusion("place", oneclass, (1,)),
                           NormalBank.fit(lambda: iter([taps]), width=4, size=8) if bank else None)


def test_a_folder_holds_one_detector_and_nothing_of_those_before(model, tmp_path):
    def load(**options):
        return AdaptedDetector.load(tmp_path, model.backbone, prototypes=model.prototypes, **options)

    detector_of(model, oneclass=0.5, bank=True).save(tmp_path)
    assert load().bank is not None and load(fusion=Fusion(gaps=(1,))).bank is None
    detector_of(model, oneclass=0.0, bank=True).save(tmp_path)
    (tmp_path / "bank.safetensors").write_bytes(b"damaged, and not asked for")
    (tmp_path / "tower.safetensors").write_bytes(b"of an earlier detector")
    assert load().bank is None
    detector_of(model, oneclass=0.0, bank=False).save(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"ahd.safetensors", "levels.safetensors", "detector.json",
                                                          "fusion.json"}
    with pytest.raises(ParameterError, match="there is no bank; adapt with oneclass on"):
        load(fusion=Fusion("place", 0.5, (1,)))


def test_a_folder_that_was_left_half_written_is_refused(model, tmp_path, monkeypatch):
    whole = detector_of(model, oneclass=0.0, bank=False)
    whole.save(tmp_path)
    monkeypatch.setattr(Scoring, "save", lambda *_: (_ for _ in ()).throw(StorageError("the disk is full")))
    with pytest.raises(StorageError, match="the disk is full"):
        whole.save(tmp_path)
    with pytest.raises(CheckpointError, match="fusion.json: no adapted detector .* run: make adapt VIDEO="):
        AdaptedDetector.load(tmp_path, model.backbone, prototypes=model.prototypes)


def test_one_ordinary_pair_in_a_hundred_passes_the_level_of_alarms():
    heat = np.random.default_rng(0).normal(size=(500, *GRID)).astype(np.float32)
    levels, fusion = {"heat@1": Levels.fit(heat)}, Fusion("place", 0.0, (1,))
    scoring = Scoring(top_fraction=0.05)
    found = _calibrated(levels, {"heat@1": heat}, fusion, scoring)
    scores = squash(top_mean(fuse({"heat@1": heat}, found, fusion), scoring.top_fraction), found)
    assert (scores > found.frame).sum() == 5 and 0 < found.frame < 1
