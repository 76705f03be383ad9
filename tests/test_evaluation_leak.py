"""The leak demonstration: the thesis' split replayed, the same number of pairs on both sides, the same held-out clips."""
from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pytest
from training_fakes import FakeBackbone, toy_split

from tvad.errors import DatasetError
from tvad.evaluation.leak import LeakSettings, clip_of, joined, leak_study, matched, random_split
from tvad.evaluation.rows import Cell, evaluate
from tvad.metrics import micro_auc, pixel_auroc
from tvad.record import read_rows
from tvad.training.phase1 import Phase1Config
from tvad.training.targets import choose_pairs, pair_labels

SETTINGS = LeakSettings(frames=8, stride=4, pairs_per_clip=2, steps=12, samples=20)
CONFIG = Phase1Config(batch_size=8, hidden_width=8, patches_per_pair=24, learning_rate=1e-2)


def test_a_clip_is_a_stretch_of_its_video():
    video = toy_split("t", 3)[2]
    clip = clip_of(video, 6, 14)
    assert len(clip) == 8 and clip.id == "t2#6-13" and clip.frames.fps == video.frames.fps
    np.testing.assert_array_equal(clip.frames.read(2, 5), video.frames.read(8, 11))
    np.testing.assert_array_equal(clip.masks(1, 4), video.masks(7, 10))
    np.testing.assert_array_equal(clip.labels, video.labels[6:14])
    assert [(event.kind, event.start, event.stop) for event in clip.events] == [("car", 0, 3)]
    assert sorted(set(clip.tracks.frame.tolist())) == [0, 1, 2]
    assert clip.frames.fingerprint != clip_of(video, 5, 13).frames.fingerprint


def test_the_split_is_the_thesis_shuffle_and_tells_how_far_it_leaks():
    videos = toy_split("t", 4)
    split = random_split(videos, SETTINGS)
    spans = [(f"t{number}", start) for number in range(4) for start in range(0, 33, 4)]
    random.Random(42).shuffle(spans)
    cut = int(0.8 * len(spans))
    names = [{(clip.id.split("#")[0], int(clip.id.split("#")[1].split("-")[0])) for clip in part}
             for part in (split.train, split.held_out)]
    assert names == [set(spans[:cut]), set(spans[cut:])]
    touched = covered = 0
    for name, start in spans[cut:]:                    # slow twin
        seen = [any(other == name and first <= frame < first + 8 for other, first in spans[:cut])
                for frame in range(start, start + 8)]
        touched += any(seen)
        covered += all(seen)
    assert (split.touched, split.covered) == (touched / (len(spans) - cut), covered / (len(spans) - cut))
    assert split.touched > 0.9
    with pytest.raises(DatasetError, match="1 clips cannot be split 80% to the rest; give more videos"):
        random_split(videos[:1], LeakSettings(frames=40, stride=40))


def test_both_protocols_are_trained_and_measured_on_the_same_clips(tmp_path):
    backbone, source, train, val = FakeBackbone(), toy_split("t", 4), toy_split("a", 12), toy_split("v", 4)
    shared = {"source": source, "train": train, "val": val, "settings": SETTINGS, "config": CONFIG,
              "cache_dir": tmp_path / "cache", "output": tmp_path / "leak", "progress": False, "seeds": (0, 1)}
    rows, measures = leak_study(backbone, **shared)
    assert {(row.protocol, row.seed, row.variant, row.split) for row in rows} == {
        (protocol, seed, "leak", "held-out-clips") for protocol in ("random-clips", "scene-disjoint") for seed in (0, 1)}
    held_out = random_split(source, SETTINGS).held_out
    assert {row.n for row in rows if row.metric == "micro_auc" and row.event is None} == {8 * len(held_out)}
    told = {one.name: one.value for one in measures}
    assert told["leak_pairs_random-clips"] == told["leak_pairs_scene-disjoint"] <= 2 * 12
    assert abs(told["leak_anomalous_pairs_random-clips"] - told["leak_anomalous_pairs_scene-disjoint"]) <= 2
    assert told["leak_touched_by_training"] == random_split(source, SETTINGS).touched
    means = [np.mean([row.value for row in rows if (row.protocol, row.metric, row.event) == (protocol, "micro_auc", None)])
             for protocol in ("random-clips", "scene-disjoint")]
    gap = next(one for one in measures if one.name == "micro_auc" and one.unit == "difference")
    assert gap.value == pytest.approx(means[0] - means[1]) and gap.against == "t-vad/scene-disjoint"
    seen = backbone.seen
    again, _ = leak_study(backbone, **shared)
    assert backbone.seen == seen and [row.value for row in again] == [row.value for row in rows]
    assert len(read_rows(tmp_path / "leak" / "rows.jsonl")) == len(rows)
    assert not list((tmp_path / "leak").rglob("features"))      # gigabytes at full size


def test_training_clips_are_matched_to_the_other_sides_share_of_anomalies():
    split, others = random_split(toy_split("t", 8), SETTINGS), toy_split("a", 12)
    config = replace(CONFIG, pairs_per_video=2)
    chosen = matched(split.train, others, config)

    def anomalous(videos):
        return np.mean([pair_labels(video)[list(choose_pairs(video, 2, seed=0))].mean() for video in videos])
    assert len(chosen) <= 12 and [clip.id for clip in chosen] == [clip.id for clip in split.train if clip in chosen]
    assert abs(anomalous(chosen) - anomalous(others)) < abs(anomalous(split.train) - anomalous(others)) + 1e-9
    assert anomalous(chosen) == pytest.approx(anomalous(others), abs=0.1)
    normal = [video for video in others if not video.labels.any()]
    assert not np.concatenate([clip.labels for clip in matched(split.train, normal, config)]).any()


def test_joined_clips_measure_as_if_one_after_the_other():
    from evaluation_toys import MaskDetector

    clips = [clip_of(toy_split("t", 3)[2], start, start + 8) for start in (2, 10, 24)]
    detector = MaskDetector(noise=0.7)
    found = {clip.id: detector.score(clip) for clip in clips}
    video, whole = joined(clips, found)
    cell = Cell(variant="x", dataset="simcampus", split="s", protocol="p", seed=0, config="c", sigma=0.0, samples=10)
    rows = {row.metric: row.value for row in evaluate({"t2": whole}, [video], cell)}
    scores, labels = [found[clip.id].raw_scores for clip in clips], [clip.labels for clip in clips]
    assert rows["micro_auc"] == pytest.approx(micro_auc(scores, labels)) and len(video) == 24
    assert len(set(video.tracks.track.tolist())) == sum(len(set(clip.tracks.track.tolist())) for clip in clips)
    np.testing.assert_array_equal(video.masks(6, 12), np.concatenate([clip.masks(0, 8) for clip in clips])[6:12])
    assert whole.regions.frame.max() < 24 and rows["pixel_auroc"] is not None
    coarse = [np.repeat(np.repeat(found[clip.id].heatmap, 4, 1), 4, 2)[:, :60, :90] for clip in clips]
    assert rows["pixel_auroc"] == pytest.approx(pixel_auroc(coarse, [clip.masks(0, 8) for clip in clips]), abs=0.02)
