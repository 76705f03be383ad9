"""The studies of query heatmaps and of adaptation: made once, resumed, rows beside those of phase 1."""
from __future__ import annotations

from dataclasses import dataclass, replace
from types import SimpleNamespace

import numpy as np
import pytest
from composite_footage import toy_footage
from evaluation_toys import MaskDetector
from query_toys import Backbone as ListeningBackbone
from query_toys import streets
from training_fakes import SIZE, FakeBackbone, toy_split

from tvad.adaptation.evidence import Fusion
from tvad.adaptation.views import reduced
from tvad.datasets.base import Video
from tvad.detection import Scoring
from tvad.detector import StaticView
from tvad.errors import MissingPhaseError, ParameterError
from tvad.evaluation.detectors import title_of
from tvad.metrics import tracks_from_masks
from tvad.params import Phase1
from tvad.record import QUERIED, Row, read_rows
from tvad.study import __main__ as command
from tvad.study import camera, queries
from tvad.study import run as study_run
from tvad.study.camera import CameraStudy
from tvad.study.queries import QueryStudy
from tvad.training.adapt import AdaptConfig
from tvad.training.queries import QueryConfig
from tvad.video.frames import ArrayFrames

QUERIES = QueryConfig(steps=10, batch_size=8, validate_every=5, learning_rate=2e-2, hidden_width=8, train_pairs=24,
                      val_pairs=12, patches_per_pair=24, refilmed=0.0)
ADAPT = AdaptConfig(steps=2, batch_size=8, validate_every=2, composites=8, normal=6, rehearsal=4, val_composites=6,
                    val_normal=6, patches_per_pair=16, gaps=(1,), fusion=Fusion("place", 0.25, (1,)),
                    oneclass=True)
SMALL = {"steps": 4, "batch_size": 8, "validate_every": 2, "hidden_width": 8, "train_pairs": 20, "val_pairs": 20,
         "patches_per_pair": 24, "refilmed": 0.0}


class Streets:
    """SimCampus of toy streets in both protocols."""

    def prepare(self, splits, *, workers=1):
        pass

    def videos(self, split):
        return streets(split, 4)


@pytest.fixture
def queried(tmp_path, monkeypatch):
    backbone = ListeningBackbone()
    monkeypatch.setattr(queries, "open_backbone", lambda params: backbone)
    monkeypatch.setattr(study_run, "open_dataset", lambda name, **_: Streets())
    return lambda **options: QueryStudy("tiny", root=tmp_path, params=Phase1(bootstrap_samples=10), config=QUERIES,
                                        **options)


def test_queries_are_trained_for_every_seed_and_protocol_once(queried, capsys, monkeypatch):
    chosen = queries.best_sigma          # 0 is a sigma too, of which rows do not say who chose it
    monkeypatch.setattr(queries, "best_sigma", lambda *each, **how: replace(chosen(*each, **how), sigma=2.0))
    path = queried(seeds=(0, 1)).run()
    rows = read_rows(path)
    assert {(row.split, row.protocol, row.seed) for row in rows} == {
        (split, protocol, seed) for seed in (0, 1) for split, protocol in
        (("val", "scene-disjoint"), ("test", "scene-disjoint"), ("test-open", "open-set"))}
    assert {row.metric for row in rows} == set(QUERIED) and {row.event for row in rows} == {None, "car", "bicycle"}
    assert {row.sigma for row in rows if row.sigma} == {2.0}
    assert {row.choice for row in rows if row.split == "val" and row.sigma} == {"in-sample"}
    assert {row.choice for row in rows if row.split != "val" and row.sigma} == {"fixed"}
    said = next(row.value for row in rows if (row.split, row.seed, row.event) == ("val", 0, None) and row.value is not None)
    assert f"queries, seed 0, scene-disjoint/val: {rows[0].metric} {said:.3f}" in capsys.readouterr().out
    assert (path.parent / "study.queries.provenance.json").is_file()
    capsys.readouterr()
    queried(seeds=(0, 1)).run()
    assert "0 of 4 cells to do" in capsys.readouterr().out and read_rows(path) == rows
    queried(seeds=(2,)).run()                                   # adds what is missing, keeps the rest
    assert read_rows(path)[:len(rows)] == rows and {row.seed for row in read_rows(path)} == {0, 1, 2}


def test_heat_and_queries_of_one_split_do_not_replace_each_other(queried, tmp_path):
    path = queried(seeds=(0,)).run()
    asked = read_rows(path)[0]
    heat = replace(asked, metric="micro_auc")
    study_run.replace_rows(path, [heat])
    assert asked in read_rows(path) and heat in read_rows(path)
    study_run.replace_rows(path, [replace(asked, value=0.5)])
    assert heat in read_rows(path) and asked not in read_rows(path)


class Camera:
    """A real set: normal training clips, test clips whose second half shows a bright target."""

    def prepare(self, splits, *, workers=1):
        pass

    def videos(self, split):
        if split != "test":
            return tuple(self._video(f"train{n}", n, False) for n in range(4))
        return tuple(self._video(f"test{n}", 10 + n, True) for n in range(2))

    @staticmethod
    def _video(name, seed, anomalous):
        frames = toy_footage(name, size=SIZE, frames=20, people=5, seed=seed)[0]
        masks = np.zeros((20, *SIZE), np.uint8)
        masks[10 if anomalous else 20:, 20:34, 20:34] = 1
        return Video(id=name, dataset="ucsd_ped2", frames=frames, labels=masks.any((1, 2)).astype(np.uint8),
                     masks=lambda start, stop: masks[start:stop], tracks=tracks_from_masks(masks))


class Campus(Streets):
    def videos(self, split):
        return toy_split(split.partition("-")[0])


@pytest.fixture
def adapted(tmp_path, monkeypatch):
    backbone = FakeBackbone()
    monkeypatch.setattr(camera, "open_backbone", lambda params: backbone)
    # The toy backbone has no tower that could be adapted.
    monkeypatch.setattr(camera, "CHANGED", {**camera.CHANGED, camera.TOWER: {"tower_rank": 0, "people": 1.0}})
    monkeypatch.setattr(study_run, "open_backbone", lambda params: backbone)
    monkeypatch.setattr(study_run, "open_dataset", lambda name, **_: Camera() if name == "ucsd_ped2" else Campus())
    monkeypatch.setattr("tvad.prompts.PromptEnsemble.normal", ("nothing happens",))
    monkeypatch.setattr("tvad.prompts.PromptEnsemble.abnormal", ("a car drives by",))
    params = Phase1(profile="ped2", dataset="ucsd_ped2", protocol="official", bootstrap_samples=10)

    def make(**options):
        made = CameraStudy("ped2", root=tmp_path, params=params, config=ADAPT, **options)
        made.phase1.config = replace(made.phase1.config, **SMALL)
        return made, backbone
    return make


def test_an_adaptation_gives_its_rows_and_those_of_its_parts(adapted, capsys):
    study, backbone = adapted(seeds=(0,))
    for arm in (study_run.Arm(tower, "scene-disjoint", 0) for tower in ("full", *camera.CONTROLS)):
        Scoring(sigma=2.0, chosen_on="simcampus/val").save(
            study.phase1.work / study.phase1.config_hash(backbone) / arm.name / "detector.json")
    path = study.run()
    rows = read_rows(path)
    assert {row.variant for row in rows} == set(camera.VARIANTS) and {row.dataset for row in rows} == {"ucsd_ped2"}
    assert {row.choice for row in rows if row.sigma} == {"fixed"}
    sigmas = {variant: {row.sigma for row in rows if row.sigma and row.variant == variant} for variant in camera.VARIANTS}
    assert sigmas["simulated-only"] == sigmas["adapted-smoothed-in-frames"] == {2.0}
    # rows of smoothed scores are left out where clips chose none
    assert all(len(one) <= 1 for one in sigmas.values()) and len(sigmas[camera.PLAIN]) == 1
    values = {row.variant: row.value for row in rows if row.metric == "micro_auc" and not row.sigma and row.event is None}
    assert len(set(values.values())) > 2
    record = (path.parent / "study.camera.provenance.json").read_text()
    assert '"val_composites": 6' in record
    seen = backbone.seen
    adapted(seeds=(0,))[0].run()
    assert "0 of 8 adaptations to do" in capsys.readouterr().out and backbone.seen == seen and read_rows(path) == rows


def test_every_row_of_the_camera_study_has_a_title():
    assert all(title_of("t-vad", variant) != f"t-vad ({variant})" for variant in camera.VARIANTS)


def test_the_key_of_the_camera_study_knows_composites_and_clips(adapted, monkeypatch):
    keys = [adapted(seeds=(0,))[0].key]
    assert adapted(seeds=(0,))[0].key == keys[0]
    monkeypatch.setattr(camera, "source_hash", lambda: "other actors")
    keys.append(adapted(seeds=(0,))[0].key)
    whole = Camera.videos
    monkeypatch.setattr(Camera, "videos", lambda self, split: whole(self, split)[:3])
    keys.append(adapted(seeds=(0,))[0].key)
    assert len(set(keys)) == 3


def test_a_control_keeps_its_tower_and_the_frozen_row_is_of_the_frozen_detector(adapted, monkeypatch):
    @dataclass
    class Weights:
        decoder: str
        scoring: Scoring
        fusion: Fusion = Fusion(blur=(1.0, 0.0))

    ranks, stops = [], []

    def adapt(model, clips, *, config, stop_after=None, **_):
        ranks.append(config.tower_rank)
        stops.append(stop_after)

        def made(name):
            one = Weights(name, Scoring(sigma=17.0, top_fraction=0.004))
            return SimpleNamespace(detector=one, choices=dict.fromkeys(camera.PARTS.values(), one), seconds=1.0,
                                   report={"best": {}}, frozen=None,
                                   plain=replace(one, scoring=replace(one.scoring, sigma=20.0), fusion=Fusion()))
        result = made("tower")
        result.frozen = made("frozen") if config.tower_rank else None
        return result
    monkeypatch.setattr(camera, "adapt", adapt)
    monkeypatch.setattr("tvad.training.adapt.view.adapt", adapt)
    study, _ = adapted(seeds=(0,))
    monkeypatch.setattr(camera, "CHANGED", {camera.TOWER: {"tower_rank": 16}})
    model, arm = SimpleNamespace(scoring=Scoring(sigma=8.0)), study_run.Arm("full", "scene-disjoint", 0)
    found = {name: study._adapted(model, arm, name) for name in ("full", camera.TOWER, *camera.CONTROLS)}
    assert ranks == [0, 16, 0, 0] and set(found["full"]) == set(camera.FULL) - {"simulated-only"}
    assert list(found[camera.TOWER]) == [camera.TOWER]
    assert {name for name, one in found["full"].items() if one.scoring.sigma == 8.0} == {"adapted-smoothed-in-frames"}
    assert {name for name, one in found["full"].items() if one.scoring.top_fraction == 0.01} == {"adapted-top-percent"}
    assert {name for name, one in found["full"].items() if one.scoring.thresholds == camera.THRESHOLDS} == {
        "adapted-five-thresholds"}
    assert {name for name, one in found["full"].items() if one.fusion.blur == (0.0, 0.0)} == {camera.PLAIN, camera.UNSTEADY}
    assert found["full"][camera.PLAIN].scoring.sigma == 20.0 and found["full"][camera.UNSTEADY].scoring.sigma == 17.0
    assert list(found["control-static"]) == ["adapted-control-static"]
    study.config = replace(study.config, tower_rank=4)
    whole = study._adapted(model, arm, "full")
    study._adapted(model, arm, "control-static")
    assert set(stops) == {None}
    viewed = [study._adapted(model, arm, name) for name in camera.VIEWED]       # nothing is trained
    assert stops[-2:] == ranks[-2:] == [0, 0] and [list(one) for one in viewed] == [[name] for name in camera.VIEWED]
    assert ranks[-4:-2] == [4, 0] and {name for name, one in whole.items() if one.decoder == "frozen"} == {camera.FROZEN}
    assert sorted(map(len, camera.together(whole))) == [1, len(whole) - 1]


def test_detections_of_other_weights_are_not_taken_for_these(adapted, monkeypatch):
    study, _ = adapted(seeds=(0,))
    arm, made = study_run.Arm("full", "scene-disjoint", 0), []

    def detect(detectors, video):
        made.append((*detectors, video.id))
        return {variant: MaskDetector().score(video) for variant in detectors}
    monkeypatch.setattr(camera, "detect_all", detect)
    first, other = ({"adapted": SimpleNamespace(fingerprint=f"weights {number}")} for number in (1, 2))
    found = [study._detections(detectors, study._folder("full", arm)) for detectors in (first, first, other)]
    assert made == [("adapted", "test0"), ("adapted", "test1")] * 2
    assert set(found[1]["adapted"]) == {"test0", "test1"}


def test_a_view_without_motion_reduces_footage_as_its_tower_does():
    frames = ArrayFrames(np.zeros((4, 120, 180, 3), np.uint8), 10.0, "large")
    tower = FakeBackbone()
    assert StaticView(tower).input_size is None and reduced(frames, StaticView(tower)) is frames
    tower.input_size = lambda height, width: (60, 90)
    assert reduced(frames, StaticView(tower)).size == reduced(frames, tower).size == (60, 90)


def test_what_is_told_of_rows_leaves_out_events_and_undefined_values():
    row = Row(system="t-vad", variant="full", dataset="simcampus", split="val", protocol="scene-disjoint",
              metric="micro_auc", value=0.98765, ci_low=None, ci_high=None, n=3, seed=0, config="c",
              commit=None)
    rows = [row, replace(row, event="car"), replace(row, value=None), replace(row, metric="ap", value=0.5)]
    assert study_run.said(rows) == "micro_auc 0.988, ap 0.500" and study_run.said([]) == ""


def test_phase_1_must_have_chosen_the_smoothing(adapted):
    with pytest.raises(MissingPhaseError, match="no smoothing chosen for full-scene-disjoint-seed0; run first: python -m"):
        adapted(seeds=(0,), adaptations=("full",))[0].run()


def test_simulated_scenes_are_no_camera():
    with pytest.raises(ParameterError, match="profile tiny: adaptation is measured on real footage, not on simcampus"):
        CameraStudy("tiny")


def test_the_command_runs_what_a_profile_has(monkeypatch, capsys):
    told = []
    for name in ("Study", "Ablation", "QueryStudy", "CameraStudy"):
        monkeypatch.setattr(command, name, lambda profile, name=name, **_: SimpleNamespace(
            params=Phase1(dataset="ucsd_ped2" if profile == "ped2" else "simcampus"),
            run=lambda: told.append((name, profile))))
    assert command.main(["run", "--phase", "all"]) == command.main(["run", "--profile", "ped2", "--phase", "all"]) == 0
    assert told == [("Study", "tiny"), ("Ablation", "tiny"), ("QueryStudy", "tiny"), ("Study", "ped2"),
                    ("CameraStudy", "ped2")]
    with pytest.raises(SystemExit):
        command.main(["run", "--phase", "queries", "--variants", "full"])
    assert "variant 'full' is not of phase queries; it has none to choose" in capsys.readouterr().err
