"""The parts of figures: what is picked by rule, heat over frames, colours of features, pictures small enough to keep."""
from __future__ import annotations

import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import roc_auc_score
from training_fakes import toy_split, toy_video

from tvad.detection import Scoring, finish
from tvad.errors import DatasetError
from tvad.evaluation import Cell, evaluate
from tvad.figures import picks, style
from tvad.figures.panels import labelled_spans, overlay
from tvad.figures.style import few_colours
from tvad.study.examples import first_of_each_kind, largest_target, principal_colours

# What is picked

def detection(video, strength, seed=0):
    rng = np.random.default_rng(seed)
    raw = (0.2 * rng.random(len(video)) + strength * video.labels).astype(np.float32)
    heat = np.zeros((len(video), 6, 9), np.float32)
    return finish(video.id, raw, heat, size=(60, 90), scoring=Scoring())


@pytest.fixture(scope="module")
def scored():
    videos = toy_split("p", 8)
    return videos, {video.id: detection(video, 0.02 * place, place) for place, video in enumerate(videos)}


def test_the_auc_of_a_pick_is_that_of_the_library():
    rng = np.random.default_rng(0)
    positive, normal = np.round(rng.random(30) + 0.2, 1), np.round(rng.random(50), 1)
    slow = roc_auc_score([1] * 30 + [0] * 50, np.r_[positive, normal])
    assert picks.auc_against(positive, normal) == pytest.approx(slow)


def test_best_median_and_worst_follow_the_ranking(scored):
    videos, detections = scored
    ranked = picks.ranked_events(detections, videos)
    assert len(ranked) == 8 and [pick.auc for pick in ranked] == sorted((p.auc for p in ranked), reverse=True)
    cell = Cell(variant="full", dataset="simcampus", split="test", protocol="scene-disjoint", seed=0, config="c", sigma=0.0,
                samples=10)
    kinds = {row.event: row.value for row in evaluate({v.id: detections[v.id] for v in videos}, videos, cell)
             if row.event}
    for kind, value in kinds.items():   # the classes' AUC is the mean over their frames, hence between its extremes
        own = [pick.auc for pick in ranked if pick.kind == kind]
        assert min(own) <= value <= max(own)
    chosen = picks.best_median_worst(detections, videos)
    assert [(pick.why, pick.video.id, pick.auc) for pick in chosen] == [
        (why, ranked[place].video.id, ranked[place].auc) for why, place in (("best", 0), ("median", 4), ("worst", 7))]
    for pick in chosen:
        assert all(pick.video.labels[frame] for frame in (pick.frame, *picks.frames_along(pick)))


def test_false_alarms_are_normal_frames_highest_first(scored):
    videos, detections = scored
    found = picks.false_alarms(detections, videos, 3)
    assert len({pick.video.id for pick in found}) == 3
    for pick in found:
        raw = detections[pick.video.id].raw_scores
        assert pick.video.labels[pick.frame] == 0 and pick.auc == raw[pick.frame] == raw[pick.video.labels == 0].max()
    assert [pick.auc for pick in found] == sorted((pick.auc for pick in found), reverse=True)


def test_the_overview_takes_median_videos_of_spaced_classes_or_spaced_events():
    kinds = ("car", "bicycle", "running", "falling", "jumping")
    videos = tuple(toy_video(f"{kind}{turn}", events=((5, 15, kind),)) for kind in kinds for turn in range(3))
    detections = {video.id: detection(video, 0.03 * (place // 3) + 0.005 * (place % 3), place)
                  for place, video in enumerate(videos)}
    four = picks.across_classes(detections, videos)
    assert [pick.kind for pick in four][::3] == ["jumping", "car"] and len({pick.kind for pick in four}) == 4
    few = [video for video in videos if video.id.startswith("car")]
    assert len(picks.across_classes({v.id: detections[v.id] for v in few}, few)) == 3


def test_examples_are_the_first_of_each_class_at_their_largest_target():
    videos = toy_split("e", 4)
    assert [video.id for video in first_of_each_kind(videos, 2)] == ["e0", "e1"]
    assert len(first_of_each_kind(videos, 3)) == 3
    with pytest.raises(DatasetError, match="no video of the evaluated split holds an event"):
        first_of_each_kind(videos[3:], 2)
    video = videos[2]
    areas = (video.masks(0, 40) > 0).sum(axis=(1, 2))
    assert areas[largest_target(video)] == areas.max()
    assert largest_target(video, "bicycle") in range(25, 33)


# How it looks

def test_heat_changes_its_own_patch_alone():
    frame = np.full((60, 90, 3), 90, np.uint8)
    heat = np.zeros((6, 9), np.float32)
    assert (overlay(frame, heat) == frame).all() and overlay(frame) is frame
    heat[2, 3] = 0.9
    changed = (overlay(frame, heat) != frame).any(-1)
    assert changed[20:30, 30:40].all() and changed.sum() == 100
    assert overlay(frame, heat)[25, 35, 0] > 180


def test_principal_colours_tell_regions_apart_whatever_the_basis():
    rng = np.random.default_rng(0)
    features = rng.normal(size=(6, 8, 5)) * 0.01
    features[:, 4:] += [3, 0, 0, 0, 0]
    first = principal_colours(features)[..., 0].astype(int)
    assert first.shape == (6, 8) and (first[:, 4:] > 200).all() and (first[:, :4] < 55).all()
    turned = features @ np.linalg.qr(rng.normal(size=(5, 5)))[0]
    again = principal_colours(turned)[..., 0].astype(int)
    assert min(np.abs(again - first).max(), np.abs(255 - again - first).max()) <= 2


def test_labelled_spans_are_the_runs_of_ones():
    assert labelled_spans(np.array([1, 1, 0, 0, 1, 0, 1], np.uint8)) == [(0, 2), (4, 5), (6, 7)]
    assert labelled_spans(np.zeros(3, np.uint8)) == []


def test_a_large_picture_is_made_small_and_keeps_its_rare_colours(tmp_path, monkeypatch):
    monkeypatch.setattr(style, "MOST_BYTES", 60_000)
    noise = np.random.default_rng(0).integers(80, 120, (200, 300, 3), dtype=np.uint8)
    noise[90:110, 140:160] = (0, 229, 255)
    assert len(np.unique(few_colours(noise).reshape(-1, 3), axis=0)) <= 128
    with style.settings():
        figure = style.canvas(3.0, 2.0)
        axes = figure.subplots()
        axes.imshow(noise)
        png, pdf = style.save(figure, tmp_path / "noise")
    assert png.stat().st_size <= 60_000 and pdf.is_file()
    picture = np.asarray(Image.open(png).convert("RGB")).astype(int)
    assert (np.abs(picture - (0, 229, 255)).sum(-1) < 60).any()


def test_a_picture_is_signed_with_the_footage_that_its_caption_names():
    with style.settings():
        for caption, words in (("SimCampus (simulated), test split. Scores.", "SimCampus (simulated)"),
                               ("SimCampus (simulated), validation, against UCSD Ped2 (real).",
                                "SimCampus (simulated) · UCSD Ped2 (real)"), ("Shapes of the model.", None)):
            figure = style.canvas(style.COLUMN, 2.0)
            figure.subplots().set_xlabel("step")
            style.sign(figure, caption)
            assert figure.get_size_inches().tolist() == pytest.approx([style.COLUMN, 2.11 if words else 2.0])
            assert (figure._supxlabel and figure._supxlabel.get_text()) == words
            if words:       # below the axes and their label
                figure.draw_without_rendering()
                axes = figure.axes[0].get_tightbbox()
                assert figure._supxlabel.get_window_extent().y1 <= axes.y0 + 0.5
