"""How an adaptation is judged: a simulated scene as the user's camera, ways of scoring maps, and the scale of scores."""
from __future__ import annotations

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from composite_footage import toy_footage
from training_fakes import GRID, SIZE, FakeBackbone, fake_model

from tvad.datasets.base import Video
from tvad.detection import Scoring, top_mean
from tvad.errors import DatasetError, ParameterError
from tvad.training.adapt import AdaptConfig
from tvad.training.adapt.tempo import scoring_of, tempo
from tvad.training.adapt.trial import SCORES, SMALL, main, measured, pieces, trial

TINY = replace(SMALL, composites=6, normal=6, val_composites=6, val_normal=4, steps=2, batch_size=6, validate_every=2,
               gaps=(1,), patches_per_pair=16)


def yard(name: str, seed: int, *, anomalous: bool) -> Video:
    frames = toy_footage(name, size=SIZE, frames=20, people=5, seed=seed)[0]
    masks = np.zeros((20, *SIZE), np.uint8)
    masks[10 if anomalous else 20:, 20:34, 20:34] = 1
    return Video(name, "simcampus", frames, scene="yard", labels=masks.any((1, 2)).astype(np.uint8),
                 masks=lambda start, stop: masks[start:stop])


@pytest.fixture(scope="module")
def model():
    return fake_model()


def test_a_scene_is_adapted_to_by_its_normal_videos_and_judged_on_the_others(model, tmp_path, monkeypatch):
    scene = [*(yard(f"normal{n}", n, anomalous=False) for n in range(3)), yard("event", 9, anomalous=True)]
    learnt = []
    from tvad.training.adapt import trial as module
    inner = module.adapt
    monkeypatch.setattr(module, "adapt", lambda model, videos, **options: learnt.extend(videos) or inner(model, videos,
                                                                                                         **options))
    found = trial(model, scene, output_dir=tmp_path, config=TINY, cache_dir=tmp_path / "cache", progress=False)
    assert [video.id for video in learnt] == ["normal0", "normal1"]
    assert set(found) == {"simulated only", "frozen"} and json.loads((tmp_path / "trial.json").read_text()) == found
    for one in found.values():
        assert set(one["whole"]) == set(one["pieces"]) == set(SCORES) and 0 <= one["pixel_auroc"] <= 1
    with pytest.raises(DatasetError, match="1 normal videos of 2; a scene needs two, and one with an event"):
        trial(model, scene[2:], output_dir=tmp_path, config=TINY)


class Enlargeable(FakeBackbone):
    """Its maps have ``zoom`` times as many rows and columns."""
    zoom = 1.0

    def enlarged(self, zoom):
        twin = Enlargeable(f"fake-{zoom:g}")
        twin.zoom = zoom
        return twin

    def see_many(self, clips, *, tokens=False):
        rows, columns = (np.arange(round(side * self.zoom)) * side // round(side * self.zoom) for side in GRID)
        return [replace(sight, taps=tuple(tap[:, rows][:, :, columns] for tap in sight.taps))
                for sight in super().see_many(clips, tokens=tokens)]


def test_a_detector_of_enlarged_pictures_is_compared_with_one_that_sees_them_as_they_are(model, tmp_path, monkeypatch):
    scene = [*(yard(f"normal{n}", n, anomalous=False) for n in range(3)), yard("event", 9, anomalous=True)]
    seen = {}
    from tvad.training.adapt import trial as module
    monkeypatch.setattr(module, "pixel_auroc", lambda maps, masks: seen.update(
        {maps[0].shape[1:]: [(one.shape, mask.shape, int(mask.sum())) for one, mask in zip(maps, masks)]}) or 0.5)
    trial(SimpleNamespace(**{**vars(model), "backbone": Enlargeable()}), scene, output_dir=tmp_path,
          config=replace(TINY, zooms=(1.5,)), cache_dir=tmp_path / "cache", progress=False)
    assert set(seen) == {GRID, (9, 14)}
    for each in seen.values():
        assert all(maps == masks for maps, masks, _ in each) and each[-1][2] > 0


def test_a_score_that_compares_a_clip_with_itself_fails_where_it_is_anomalous_throughout():
    rng = np.random.default_rng(0)
    labels = [np.r_[np.zeros(20, int), np.ones(20, int)], np.zeros(40, int)]
    # The level of each clip is its own, the event is clear within its clip.
    maps = [(rng.normal(0, 0.1, (40, 4, 5)) + level + 2 * own[:, None, None]).astype(np.float32)
            for level, own in zip((0.0, 3.0), labels)]
    found, less = measured(maps, labels), "top 1 % less the clip's 5 % quantile"
    assert found["whole"][less] > 0.99 > 0.6 > found["whole"]["top 1 %"]
    assert found["pieces"][less] < 0.7
    assert [len(part) for part, _ in pieces(maps[0], labels[0])] == [20, 20]
    for part, own in pieces(maps[0], labels[0]):
        assert len(part) == len(own) and len(set(own)) == 1


def test_every_way_of_scoring_gives_a_number_a_pair_and_sees_a_hot_spot():
    maps = np.random.default_rng(1).normal(0, 0.1, (6, 24, 36)).astype(np.float32)
    maps[4, 10:13, 10:13] += 5
    for name, score in SCORES.items():
        found = score(maps)
        assert found.shape == (6,) and int(np.argmax(found)) == 4, name
    np.testing.assert_array_equal(SCORES["top 1 %"](maps), top_mean(maps))


def test_settings_that_are_none_are_named(capsys):
    assert main(["--set", "tower=3"]) == 1
    assert "'tower' is no setting of AdaptConfig" in capsys.readouterr().err
    assert main(["--set", "steps=many"]) == 1
    assert "'many' is no value" in capsys.readouterr().err


def test_scores_follow_the_size_and_the_pace_of_the_people():
    assert tempo(10, 1.0) == 1.0 and tempo(25, 0.5) == 5.0
    model, config = Scoring(sigma=8.0), AdaptConfig()
    site = SimpleNamespace(fps=25.0, pace=0.5, size=(200, 300), pixels_high=lambda row: {100.0: 40.0}[row])
    found = scoring_of(model, site, config, (20, 30))
    assert found.sigma == 40.0 and found.top_fraction == pytest.approx(0.35 * 1600 / 60000, abs=1e-5)
    assert (found.min_area, found.thresholds, found.region_score) == (3, (0.4,), "max")      # of 5.6 patches a person
    kept = scoring_of(model, site, replace(config, smoothing="frames", spot="model"), (20, 30))
    assert kept == replace(model, thresholds=(0.4,), region_score="max")
    site.pixels_high = lambda row: 4.0
    small = scoring_of(model, site, config, (20, 30))
    assert (small.top_fraction, small.min_area) == (0.001, 1)
    site.pixels_high = lambda row: 190.0
    assert scoring_of(model, site, config, (20, 30)).top_fraction == 0.05
    for wrong, text in (({"smoothing": "seconds"}, "smoothing 'seconds' must be pace or frames"),
                        ({"spot": "car"}, "spot 'car' must be person or model"),
                        ({"thresholds": (1.5,)}, r"thresholds \(1.5,\) must be numbers in \(0, 1\)")):
        with pytest.raises(ParameterError, match=text):
            AdaptConfig(**wrong)
