"""One camera of the user's on toy footage: the whole run, its alarms and figures, what is refused; and asked examples."""
from __future__ import annotations

import csv
import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from composite_footage import toy_footage
from PIL import Image
from query_toys import Backbone, decoder_of, streets
from training_fakes import GRID, SIZE, toy_split, toy_video

from tvad.datasets.base import Event, Video, open_dataset
from tvad.detection import Scoring, finish
from tvad.detector import TVAD
from tvad.errors import CheckpointError, DatasetError
from tvad.figures.camera import CameraPage, alarms
from tvad.heatmap import AnomalyHeatmapDecoder
from tvad.params import Camera
from tvad.record import is_complete
from tvad.study import own_camera
from tvad.study.listening import write_examples
from tvad.study.own_camera import Alarm, CameraRun, frames_of_interest, stretches
from tvad.video.clip import Clip

SMALL = {"steps": 2, "validate_every": 2, "composites": 8, "normal": 6, "rehearsal": 4, "val_composites": 6,
         "val_normal": 6, "gaps": (1,)}
WORDS = ("bicycle", "car or van")


def yard(name: str, seed: int, *, anomalous: bool = False, scene: str = "yard") -> Video:
    frames = toy_footage(name, size=SIZE, frames=20, people=5, seed=seed)[0]
    masks = np.zeros((20, *SIZE), np.uint8)
    masks[10 if anomalous else 20:, 20:34, 20:34] = 1
    events = (Event("car", 10, 20, 1),) if anomalous else ()
    return Video(name, "simcampus", frames, scene=scene, labels=masks.any((1, 2)).astype(np.uint8),
                 masks=lambda start, stop: masks[start:stop], events=events)


class Campus:
    """SimCampus: two scenes, of which the first stands in for a camera."""

    def __init__(self):
        self.asked = []

    def videos(self, split):
        self.asked.append(split)
        if split == "train":
            return toy_split("sim")
        return (*(yard(f"yard{n}", n) for n in range(4)), yard("street0", 7, scene="street"),
                yard("yard4", 9, anomalous=True))


def detector(*, queries=True) -> TVAD:
    backbone = Backbone()
    torch.manual_seed(0)
    decoder = AnomalyHeatmapDecoder(taps=backbone.taps, tap_width=6, hidden_width=12, text_width=32, contrast="centred",
                                    temperature=25.0)
    text = backbone.embed_prompts(["normal", "abnormal"])
    return TVAD(backbone, decoder, prototypes=text, queries=decoder_of()[0] if queries else None)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A project root of toy data with the decoder of profile tiny, whose content nobody reads."""
    folder = tmp_path_factory.mktemp("root")
    (folder / "notebooks" / "profiles").mkdir(parents=True)
    (folder / "runs" / "tiny" / "phase1").mkdir(parents=True)
    (folder / "runs" / "tiny" / "phase1" / "ahd.safetensors").write_bytes(b"")
    with pytest.MonkeyPatch.context() as patch:
        for place in ("tvad.study.own_camera.project_root", "tvad.params.base.project_root"):
            patch.setattr(place, lambda: folder)
        patch.setattr(own_camera, "open_dataset", lambda name, **_: Campus())
        patch.setattr(TVAD, "from_pretrained", lambda *_, **__: detector())
        yield folder


@pytest.fixture(scope="module")
def run(root):
    return CameraRun(Camera(**SMALL, events=WORDS))


def found_of(video, scores):
    heat = np.zeros((len(scores), *GRID), np.float32)
    return finish(video, np.asarray(scores, np.float32), heat, size=SIZE, scoring=Scoring(sigma=0.0))


# The whole run

def test_a_scene_of_validation_stands_in_for_a_camera(run, root):
    assert [video.id for video in run.ordinary] == [f"yard{n}" for n in range(4)] and run.simulated
    assert [video.id for video in run.watched] == [f"yard{n}" for n in range(5)]
    assert run.folder == root / "runs" / "tiny" / "camera"
    assert len(CameraRun(Camera(**SMALL, max_videos=2)).watched) == 2


def test_the_whole_run_leaves_a_detector_detections_alarms_and_a_mark(run):
    assert list(run.adapted.report["config"]["gaps"]) == [1]
    assert run.adapted.report["config"]["val_composites"] == 6 and run.adapted.folder == run.folder / "adapted"
    # what is asked for by name is not what is pasted
    assert list(run.adapted.report["config"]["events"]) == []
    assert set(run.detections) == {video.id for video in run.watched}
    again = run.detector.score(run.watched[4])
    np.testing.assert_array_equal(run.detections["yard4"].raw_scores, again.raw_scores)
    assert {event: set(each) for event, each in run.found.items()} == {word: set(run.detections) for word in WORDS}
    expected = run.model.find(run.watched[1], list(WORDS))["car or van"]
    np.testing.assert_array_equal(run.found["car or van"]["yard1"].heatmap, expected.heatmap)
    assert run.finish() == run.folder and is_complete(run.folder) == (True, "complete")
    assert json.loads((run.folder / "provenance.json").read_text())["config"] == run.params.config_hash()
    written = list(csv.DictReader((run.folder / "alarms.csv").open()))
    assert run.level == run.detector.calibration.frame != 0.5
    assert len(written) == len(run.alarms) == sum(len(stretches(name, one, above=run.level))
                                                  for name, one in run.detections.items())


def test_a_camera_that_was_adapted_to_is_opened_again_without_looking_at_its_footage(run, root, monkeypatch):
    first, asked = run.adapted, []
    monkeypatch.setattr(own_camera, "adapt", lambda *_, **__: asked.append(1) or first)
    again = CameraRun(Camera(**SMALL, events=WORDS))
    assert again.detector.fingerprint == first.detector.fingerprint and again.level == run.level and not asked
    assert again.adapted.report == json.loads(json.dumps(first.report)) and again.adapted.folder == first.folder
    np.testing.assert_array_equal(again.detector.score(run.watched[4]).raw_scores, run.detections["yard4"].raw_scores)
    kept = (run.folder / "adapted.json").read_text()
    try:        # other settings, and a folder that was changed since, are adapted to
        assert CameraRun(Camera(**{**SMALL, "steps": 3}, events=WORDS)).adapted is first and len(asked) == 1
        (run.folder / "adapted.json").write_text(kept.replace(first.report["key"], "another"))
        assert CameraRun(Camera(**SMALL, events=WORDS)).adapted is first and len(asked) == 2
    finally:
        (run.folder / "adapted.json").write_text(kept)


def test_figures_are_written_whatever_was_found(run):
    page = CameraPage(run)
    for name in ("composites", "validation", "alarms", "found"):
        page.show(name)
        assert np.asarray(Image.open(run.folder / "figures" / f"{name}.png").convert("L")).std() > 5, f"{name} is blank"
        assert (run.folder / "figures" / f"{name}.pdf").read_bytes().startswith(b"%PDF")


# Alarms

def test_stretches_are_runs_of_frames_from_one_half_on():
    found = found_of("v", [0.5, 0.4, 0.6, 0.9, 0.7, 0.1, 0.49, 0.8])
    assert [(one.start, one.stop, one.peak) for one in stretches("v", found)] == [(0, 1, 0), (2, 5, 3), (7, 8, 7)]
    assert [one.score for one in stretches("v", found)] == pytest.approx([0.5, 0.9, 0.8])
    assert [(one.start, one.stop) for one in stretches("v", found, above=0.45)] == [(0, 1), (2, 5), (6, 8)]
    assert stretches("v", found_of("v", [0.1, 0.2])) == []


def test_frames_of_interest_are_the_highest_alarms_then_other_videos():
    detections = {"a": found_of("a", [0.1, 0.9, 0.1, 0.8]), "b": found_of("b", [0.2, 0.1]), "c": found_of("c", [0.1, 0.4])}
    alarms = [Alarm("a", 1, 2, 1, 0.9), Alarm("a", 3, 4, 3, 0.8)]
    assert frames_of_interest(alarms, detections, 1) == [("a", 1)]
    assert frames_of_interest(alarms, detections, 3) == [("a", 1), ("a", 3), ("c", 1)]
    assert frames_of_interest(alarms, detections, 9) == [("a", 1), ("a", 3), ("c", 1), ("b", 0)]
    assert frames_of_interest([], detections, 1) == [("a", 1)]


def test_alarms_are_written_with_their_seconds(root):
    run = CameraRun(Camera(profile="alarms"))
    run.level = 0.5
    run.detections = {"yard0": found_of("yard0", [0.1, 0.6, 0.7, 0.2]), "yard1": found_of("yard1", [0.9, 0.1, 0.1, 0.5])}
    assert run.write_alarms().read_text() == (
        "video,first_frame,last_frame,first_second,last_second,peak_frame,score\n"
        "yard1,0,0,0.00,0.00,0,0.9000\n"
        "yard0,1,2,0.10,0.20,2,0.7000\n"
        "yard1,3,3,0.30,0.30,3,0.5000\n")


# What is refused, and what is missing

def test_a_missing_decoder_is_named_with_its_command(root):
    run = CameraRun(Camera(profile="new"))
    with pytest.raises(CheckpointError, match=r"runs/new/phase1/ahd\.safetensors: no decoder to start from; run: make "
                                              r"reproduce PROFILE=new \(or give ahd=, the ahd\.safetensors of another"):
        _ = run.model
    with pytest.raises(CheckpointError, match=r"^other\.safetensors: no decoder to start from"):
        _ = CameraRun(Camera(profile="new", ahd="other.safetensors")).model


@pytest.mark.parametrize("setting", ["ordinary", "watched"])
def test_footage_that_is_not_there_is_said_before_any_work(setting, root, tmp_path, monkeypatch):
    monkeypatch.setattr(own_camera, "open_dataset",
                        lambda name, **given: open_dataset(name, **given) if name == "custom" else Campus())
    params = Camera(profile="early", **{setting: str(tmp_path / "nowhere")})
    with pytest.raises(DatasetError, match="nowhere: no such file or folder; pass the path of a video or of a folder"):
        CameraRun(params)
    assert not (root / "runs" / "early").exists()


def test_footage_of_the_users_own_has_no_truth_to_draw(run, root, monkeypatch):
    asked = {}

    def opened(name, *, root):
        asked[name] = root
        return SimpleNamespace(videos=lambda split: tuple(
            replace(yard(f"own{n}", n), labels=None, masks=None, events=(), scene=None) for n in range(2)))
    monkeypatch.setattr(own_camera, "open_dataset", opened)
    own = CameraRun(Camera(profile="own", ordinary="footage"))
    assert asked == {"custom": "footage"} and not own.simulated and own.watched is own.ordinary
    own.level = 0.7
    own.detections = {video.id: run.detector.score(video) for video in own.watched}
    page = CameraPage(own)
    page.show("alarms")
    assert "scores of 0.700 and above" in alarms(own)[1]
    assert (own.folder / "figures" / "alarms.png").stat().st_size > 1000


@pytest.mark.parametrize(("queries", "events"), [(False, WORDS), (True, ())])
def test_without_a_decoder_of_queries_or_a_question_nothing_is_found_and_the_figure_says_so(queries, events, root):
    from tvad.figures.camera import found

    run = CameraRun(Camera(profile="deaf", events=events))
    run.model = detector(queries=queries)
    assert run.found == {}
    figure, caption = found(run)
    assert [text.get_text() for text in figure.texts] == [
        "nothing was asked for, or there is no decoder of query heatmaps"]
    assert caption == "A decoder of query heatmaps comes with `make reproduce`; `events` says what to find."


# Examples that are asked for

def asking(tmp_path, videos, events):
    decoder, backbone = decoder_of()
    path = decoder.save(tmp_path / "queries.safetensors", backbone_fingerprint=backbone.fingerprint)
    run = SimpleNamespace(backbone=backbone, test_part=SimpleNamespace(videos=videos), folder=tmp_path,
                          params=SimpleNamespace(events=events))
    with np.load(write_examples(run, path)) as file:
        return {name: file[name] for name in file.files}, decoder, backbone


def test_examples_are_asked_for_the_events_of_their_own_videos(tmp_path):
    videos = streets("t", 4)
    found, decoder, backbone = asking(tmp_path, videos, ("never asked",))
    assert found["words"].tolist() == ["car", "bicycle"] and found["videos"].tolist() == ["t0", "t1", "t2"]
    assert found["heat"].shape == (3, 2, *GRID)
    for video, frame, heat in zip(videos, found["frames"], found["heat"]):       # slow twin: one word at a time
        assert video.masks(frame, frame + 1).any()
        clip = Clip(video.frames.read(frame, frame + 2), 10.0, int(frame), video.id)
        for word, own in zip(("car", "bicycle"), heat):
            np.testing.assert_allclose(own, decoder.heatmaps(backbone.see(clip).taps, [word], backbone)[0, 0], atol=1e-6)


def test_footage_that_names_no_events_is_asked_for_the_parameters(tmp_path):
    videos = [toy_video(f"v{n}", events=((5, 15, "anomaly"),)) for n in range(2)]
    found, *_ = asking(tmp_path, videos, ("bike", "car or van"))
    assert found["words"].tolist() == ["bike", "car or van"] and found["heat"].shape == (2, 2, *GRID)
    silent, *_ = asking(tmp_path, videos, ())
    assert {name: str(value) for name, value in silent.items()} == {
        "why": "the footage names no events, and the parameter events asks for none"}
