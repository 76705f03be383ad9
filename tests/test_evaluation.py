"""Scoring a data set, the rows it gives, and the study: resumable, exact, with failures told and not hidden."""
from __future__ import annotations

import logging
from dataclasses import replace

import numpy as np
import pytest
from training_fakes import GRID, SIZE, FakeBackbone, toy_split, toy_video

from tvad.detection import Scoring, finish
from tvad.errors import DatasetError, StorageError, VideoError
from tvad.evaluation import Cell, evaluate, evaluate_events, score_dataset
from tvad.metrics import event_auc, micro_auc, pixel_auroc, rbdc_tbdc, smooth
from tvad.params import Phase1
from tvad.record import append_rows, latest_rows, read_rows
from tvad.study import __main__ as command
from tvad.study import run as study_run
from tvad.study.tables import compare_table, study_tables

CELL = Cell(variant="full", dataset="simcampus", split="test", protocol="scene-disjoint", seed=0, config="c", sigma=2.0,
            samples=50)
SCORING = Scoring(sigma=2.0, thresholds=(0.5,))


class ToyDetector:
    """Heat from the masks with noise; refuses the videos it is told to."""
    name = "toy"

    def __init__(self, fingerprint="f", noise=0.3, broken=()):
        self.fingerprint, self.noise, self.broken, self.calls = fingerprint, noise, broken, []

    def score(self, video, events=()):
        self.calls.append(video.id)
        if video.id in self.broken:
            raise VideoError(f"{video.id}.mp4: 3 of 40 frames are readable; copy the file again")
        return heat_detection(video, self.noise)


def heat_detection(video, noise):
    rng = np.random.default_rng(list(video.id.encode()))
    truth = video.masks(0, len(video)).reshape(-1, GRID[0], 10, GRID[1], 10).any(axis=(2, 4))
    heat = (truth * (1 - noise) + noise * rng.random(truth.shape)).astype(np.float32)
    raw = np.clip(0.5 * video.labels + noise * rng.random(len(video)), 0, 1).astype(np.float32)
    return finish(video.id, raw, heat, size=SIZE, scoring=SCORING)


@pytest.fixture(scope="module")
def videos():
    return toy_split("t", 8)


def found(rows, metric, event=None, smoothed=None):
    chosen = [row for row in rows if (row.metric, row.event) == (metric, event)
              and (smoothed is None or (row.sigma > 0) == smoothed)]
    assert len(chosen) == 1
    return chosen[0]


# Scoring

def test_scoring_goes_on_where_it_stopped(tmp_path, videos):
    first = ToyDetector()
    score_dataset(first, videos[:3], tmp_path, progress=False)
    second = ToyDetector()
    scored = score_dataset(second, videos, tmp_path, progress=False)
    assert second.calls == [video.id for video in videos[3:]] and not scored.failures
    for video in videos:
        assert np.array_equal(scored.detections[video.id].heatmap, heat_detection(video, 0.3).heatmap)


def test_another_detector_or_other_words_score_anew(tmp_path, videos, caplog):
    score_dataset(ToyDetector(), videos[:2], tmp_path, progress=False)
    other = ToyDetector("g")
    with caplog.at_level(logging.WARNING):
        score_dataset(other, videos[:2], tmp_path, progress=False)
    assert len(other.calls) == 2 and "was made by another detector or from another video" in caplog.text
    worded = ToyDetector("g")
    score_dataset(worded, videos[:2], tmp_path, events=["a dog"], progress=False)
    assert len(worded.calls) == 2


def test_a_damaged_detection_is_scored_again(tmp_path, videos):
    score_dataset(ToyDetector(), videos[:2], tmp_path, progress=False)
    path = sorted(tmp_path.glob("*.npz"))[0]
    path.write_bytes(path.read_bytes()[:100])
    again = ToyDetector()
    assert len(score_dataset(again, videos[:2], tmp_path, progress=False).detections) == 2 and len(again.calls) == 1


def test_a_broken_video_does_not_take_the_others_with_it(tmp_path, videos, caplog):
    with caplog.at_level(logging.WARNING):
        scored = score_dataset(ToyDetector(broken=("t1",)), videos, tmp_path, progress=False)
    assert len(scored.detections) == 7 and "t1: not scored: t1.mp4: 3 of 40 frames" in caplog.text
    with pytest.raises(DatasetError, match="1 videos could not be scored, t1: t1.mp4: 3 of 40.*the others are kept"):
        scored.check()


def test_a_full_disk_stops_at_once_and_keeps_what_is_scored(tmp_path, videos, monkeypatch):
    score_dataset(ToyDetector(), videos[:2], tmp_path, progress=False)

    def full(*_):
        raise OSError(28, "No space left on device")
    with monkeypatch.context() as patch:
        patch.setattr("os.replace", full)
        with pytest.raises(StorageError, match="free space there"):
            score_dataset(ToyDetector(), videos, tmp_path, progress=False)
    again = ToyDetector()
    assert len(score_dataset(again, videos, tmp_path, progress=False).detections) == 8 and len(again.calls) == 6


def test_parts_cover_the_split_once(tmp_path, videos):
    parts = [score_dataset(ToyDetector(), videos, tmp_path, part=(index, 3), progress=False) for index in range(3)]
    names = [name for part in parts for name in part.detections]
    assert sorted(names) == sorted(video.id for video in videos)


# Rows

def test_a_perfect_detector_scores_one_everywhere(videos):
    exact = {}
    for video in videos:
        heat = (video.masks(0, len(video)) > 0).astype(np.float32)       # a patch a pixel
        exact[video.id] = finish(video.id, video.labels.astype(np.float32), heat, size=SIZE, scoring=SCORING)
    rows = evaluate(exact, videos, replace(CELL, sigma=0.0))
    assert {(row.metric, round(row.value, 9)) for row in rows} == {(name, 1.0) for name in (
        "micro_auc", "macro_auc", "ap", "pixel_auroc", "aupro", "rbdc", "tbdc")}
    assert {row.event for row in rows} == {None, "car", "bicycle"}
    assert all(min(row.ci_low, row.ci_high) > 1 - 1e-9 for row in rows)


def test_rows_hold_the_metrics_of_the_detections(videos):
    detections = {video.id: heat_detection(video, 0.6) for video in videos}
    rows = evaluate(detections, videos, CELL)
    ordered = [detections[video.id] for video in videos]
    raw, labels = [d.raw_scores for d in ordered], [video.labels for video in videos]
    assert found(rows, "micro_auc", smoothed=False).value == pytest.approx(micro_auc(raw, labels))
    smoothed = found(rows, "micro_auc", smoothed=True)
    assert smoothed.value == pytest.approx(micro_auc(smooth(raw, 2.0), labels), abs=1e-6)
    assert (smoothed.choice, smoothed.sigma) == ("fixed", 2.0)
    spans = [[(e.start, e.stop) for e in video.events if e.kind == "car"] for video in videos]
    assert found(rows, "micro_auc", "car", False).value == pytest.approx(event_auc(raw, labels, spans=spans))
    masks = [video.masks(0, len(video)) for video in videos]
    assert found(rows, "pixel_auroc").value == pytest.approx(pixel_auroc([d.heatmap for d in ordered], masks))
    scores = rbdc_tbdc({d.video: d.regions for d in ordered}, {v.id: v.tracks for v in videos if len(v.tracks)},
                       num_frames=40 * len(videos))
    assert (found(rows, "rbdc").value, found(rows, "tbdc").value) == pytest.approx((scores.rbdc, scores.tbdc))
    assert all(row.ci_low <= row.value <= row.ci_high for row in rows)
    assert smoothed.n == 320 and smoothed.positive_rate == pytest.approx(np.concatenate(labels).mean())
    assert found(rows, "macro_auc", smoothed=True).n == len(videos)


def test_a_grid_that_does_not_divide_the_video_is_enlarged_by_repetition(videos):
    video = videos[0]
    heat = np.random.default_rng(0).random((len(video), 7, 11)).astype(np.float32)
    odd = replace(heat_detection(video, 0.0), heatmap=heat)
    large = heat[:, np.arange(60) * 7 // 60][:, :, np.arange(90) * 11 // 90]
    expected = pixel_auroc([large], [video.masks(0, len(video))])
    assert found(evaluate({video.id: odd}, [video], CELL), "pixel_auroc").value == pytest.approx(expected)


def test_kept_out_rows_leave_out_the_frames_of_other_events(videos):
    detections = {video.id: heat_detection(video, 0.6) for video in videos}
    rows = evaluate_events(detections, videos, CELL, kinds=("bicycle",), name="kept-out")
    scores, labels, frames, alarms = [], [], 0, 0
    for video in videos:                                    # slow twin: frame by frame
        for index in range(len(video)):
            inside = {event.kind for event in video.events if event.start <= index < event.stop}
            if video.labels[index] == 0 or inside == {"bicycle"}:
                scores.append(detections[video.id].raw_scores[index])
                labels.append(video.labels[index])
                frames += 1
                alarms += int((detections[video.id].regions.frame == index).sum())
    assert found(rows, "micro_auc", "kept-out", False).value == pytest.approx(micro_auc([scores], [labels]))
    assert {row.event for row in rows} == {"kept-out"} and found(rows, "rbdc", "kept-out").n == frames
    assert found(rows, "pixel_auroc", "kept-out").value < 1.0 and alarms > 0


def test_a_video_without_a_frame_left_does_not_count_in_kept_out_rows(videos):
    full = toy_video("full", events=((0, 40, "car"),))
    some = (*videos, full)
    detections = {video.id: heat_detection(video, 0.6) for video in some}
    rows = evaluate_events(detections, some, CELL, kinds=("bicycle",), name="kept-out")
    expected = evaluate_events(detections, videos, CELL, kinds=("bicycle",), name="kept-out")
    assert found(rows, "macro_auc", "kept-out", True) == found(expected, "macro_auc", "kept-out", True)


def test_anomalous_videos_without_masks_or_tracks_are_no_false_alarms(videos):
    detections = {video.id: heat_detection(video, 0.6) for video in videos}
    partly = [replace(v, masks=None, tracks=None) if v.id in ("t1", "t2") else v for v in videos]
    rows = evaluate(detections, partly, CELL)
    rest = evaluate(detections, [v for v in videos if v.id not in ("t1", "t2")], CELL)
    for metric in ("pixel_auroc", "aupro", "rbdc", "tbdc"):
        assert found(rows, metric) == found(rest, metric)
    assert found(rows, "rbdc").n == 240 and found(rows, "micro_auc", smoothed=True).n == 320


def test_what_the_annotation_lacks_is_left_out_and_what_is_undefined_has_no_value():
    normal = toy_split("t", 1) + (toy_video("n", events=()),)
    bare = [replace(video, masks=None, tracks=None, events=()) for video in normal]
    rows = evaluate({video.id: heat_detection(old, 0.5) for video, old in zip(bare, normal)}, bare, CELL)
    assert {row.metric for row in rows} == {"micro_auc", "macro_auc", "ap"}
    only = [toy_video("n", events=())]
    rows = evaluate({"n": heat_detection(only[0], 0.5)}, only, CELL)
    assert found(rows, "micro_auc", smoothed=False).value is None and found(rows, "pixel_auroc").value is None


def test_missing_detections_and_wrong_lengths_are_named(videos):
    with pytest.raises(DatasetError, match="t0: no detection of this video; score the data set first"):
        evaluate({}, videos, CELL)
    short = replace(videos[0], labels=videos[0].labels[:-1])
    with pytest.raises(DatasetError, match="t0: 39 frame labels for 40 scores"):
        evaluate({"t0": heat_detection(videos[0], 0.1)}, [short], CELL)


# Study

class ToyCampus:
    """Both protocols of SimCampus on toy footage; counts what is opened."""

    def __init__(self, protocol):
        self.protocol = protocol

    def prepare(self, splits, *, workers=1):
        assert set(splits) <= {"train", "val", "test", "train-open", "val-open", "test-open"}

    def videos(self, split):
        base, _, is_open = split.partition("-")
        videos = toy_split(base, {"train": 8, "val": 4, "test": 4}[base])
        keep = [v for v in videos if not is_open or base == "test" or all(e.kind == "car" for e in v.events)]
        return tuple(keep)


@pytest.fixture
def toy_study(tmp_path, monkeypatch):
    backbone = FakeBackbone()
    monkeypatch.setattr(study_run.QwenBackbone, "from_pretrained", lambda *_, **__: backbone)
    monkeypatch.setattr(study_run, "open_dataset", lambda name, *, root, protocol: ToyCampus(protocol))
    monkeypatch.setattr(study_run, "OPEN_SET_EVENTS", ("bicycle",))
    monkeypatch.setattr("tvad.prompts.PromptEnsemble.normal", ("nothing happens",))
    monkeypatch.setattr("tvad.prompts.PromptEnsemble.abnormal", ("a car drives by",))

    def make(**options):
        made = study_run.Study("tiny", root=tmp_path, params=Phase1(bootstrap_samples=20), **options)
        made.config = replace(made.config, steps=20, batch_size=8, validate_every=10, hidden_width=8, train_pairs=40,
                              val_pairs=20, patches_per_pair=24, learning_rate=1e-2)
        return made, backbone
    return make


def test_the_study_measures_every_arm_once_and_goes_on_where_it_stopped(toy_study, tmp_path, capsys):
    study, backbone = toy_study(seeds=(0, 1), variants=("full",))
    path = study.run()
    rows = read_rows(path)
    splits = (("val", "scene-disjoint"), ("test", "scene-disjoint"), ("test-open", "open-set"))
    assert {(row.variant, row.split, row.protocol, row.seed) for row in rows} == {
        ("full", split, protocol, seed) for split, protocol in splits for seed in (0, 1)}
    assert {row.split for row in rows if row.event == "kept-out"} == {"test-open"}
    assert len(latest_rows(rows)) == len(rows)
    seen = backbone.seen
    toy_study(seeds=(0, 1), variants=("full",))[0].run()
    assert backbone.seen == seen and read_rows(path) == rows
    assert "0 of 4 arms to do" in capsys.readouterr().out
    toy_study(seeds=(0,))[0].run()                              # all variants: adds what is missing, keeps the rest
    assert {row.variant for row in read_rows(path)} == set(study_run.VARIANTS) and read_rows(path)[:len(rows)] == rows


def test_the_open_split_shares_the_passes_and_the_cache_of_the_closed_one(toy_study):
    study, backbone = toy_study(seeds=(0,), variants=("full",))
    study.run()
    pairs = 5 * 8 + 5 * 4 + 10 * 2                 # training pairs are shared; validation: 5 of 4 videos, 10 of 2
    passes = 24 * 4 + 24 * 4                       # val and test videos, once for both protocols: 3 windows of 8 pairs
    assert backbone.seen == pairs + passes


def test_rows_of_another_configuration_are_replaced_not_joined(toy_study, monkeypatch):
    study, _ = toy_study(seeds=(0,), variants=("full",))
    path = study.run()
    before = read_rows(path)
    monkeypatch.setattr(study_run, "simulator_hash", lambda: "another simulator")
    toy_study(seeds=(0,), variants=("full",))[0].run()
    after = read_rows(path)
    assert {row.config for row in before}.isdisjoint(row.config for row in after)
    assert {(row.split, row.metric, row.event) for row in after} >= {("test", "micro_auc", None)}


def rows_of(videos, seed, noise):
    detections = {video.id: heat_detection(video, noise) for video in videos}
    return evaluate(detections, videos, replace(CELL, seed=seed))


def test_a_run_is_compared_with_the_spread_of_the_study(videos, tmp_path, monkeypatch, capsys):
    study = [row for seed, noise in enumerate((0.60, 0.61, 0.62)) for row in rows_of(videos, seed, noise)]
    text = compare_table(rows_of(videos, 0, 0.61), study)
    assert " 0 figures" not in text and "NO" not in text and "figures lie within the study's spread" in text
    worse = compare_table(rows_of(videos, 0, 0.95), study)
    assert "NO" in worse
    other = compare_table([replace(row, split="val") for row in study[:2]], study)
    assert other.endswith("0 of 0 figures lie within the study's spread, 2 are not in the study")
    monkeypatch.setattr(command, "project_root", lambda: tmp_path)
    assert command.main(["compare", "--profile", "toy"]) == 1
    assert "no result rows here" in capsys.readouterr().err
    append_rows(tmp_path / "runs" / "toy" / "results.jsonl", study[:3])
    assert command.main(["compare", "--profile", "toy"]) == 0
    assert "study.jsonl: no study to compare with; make one: make study PROFILE=toy" in capsys.readouterr().out
    assert command.main(["tables", "--profile", "toy"]) == 1
    assert "no study of this profile; run: make study PROFILE=toy" in capsys.readouterr().err
    append_rows(tmp_path / "figures" / "toy" / "study.jsonl", study)
    assert command.main(["compare", "--profile", "toy"]) == 0 and command.main(["tables", "--profile", "toy"]) == 0
    assert "### SimCampus (simulated), test split (scene-disjoint), seeds 0, 1, 2, base rate" in capsys.readouterr().out


def test_tables_give_mean_and_spread_of_each_variant(videos):
    row = rows_of(videos, 0, 0.6)[0]
    rows = [replace(row, seed=seed, value=value, ci_low=None, ci_high=None, variant=variant)
            for variant, values in (("full", (0.8, 0.9)), ("control-static", (0.5,)))
            for seed, value in enumerate(values)]
    assert "| micro AUC, smoothed | 0.850 ± 0.071 | 0.500 ± 0.000 |" in study_tables(rows)
