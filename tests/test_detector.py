"""The detector: heatmap to scores and regions, windows that cover every frame, shared passes, files, calibration."""
from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from training_fakes import GRID, SIZE, FakeBackbone, toy_split, toy_video

from tvad.detection import (
    DEFAULT_SCORING,
    SIGMAS,
    Detection,
    Scoring,
    calibrate,
    choose_sigma,
    finish,
    rescore,
    top_mean,
)
from tvad.detector import TVAD, StaticView, score_many
from tvad.errors import CheckpointError, ParameterError, StorageError, VideoError
from tvad.heatmap import AnomalyHeatmapDecoder
from tvad.metrics import micro_auc, smooth
from tvad.prompts import prototypes
from tvad.video.clip import Clip

TEXT = torch.tensor([[1.0, 0, 0, 0, 0, 0, 0, 0], [0.6, 0.8, 0, 0, 0, 0, 0, 0]])


def decoder(seed=0, taps=FakeBackbone.taps, **settings):
    torch.manual_seed(seed)
    return AnomalyHeatmapDecoder(taps=taps, tap_width=6, hidden_width=5, text_width=8, **settings).eval()


def slow_scores(backbone, model, frames, length, stride):
    """Window by window, frame by frame, with running sums."""
    n = len(frames)
    starts = list(range(0, max(1, n - length + 1), stride))
    if starts[-1] + length < n:
        starts.append(n - length)
    total, count = np.zeros(n), np.zeros(n)
    for start in starts:
        clip = Clip(frames[start:start + length], 10.0, start, "slow")
        maps = model.heatmap(backbone.see(clip).taps, TEXT).detach().numpy()
        for place in range(len(clip.frames)):
            values = np.sort(maps[place // 2].ravel())[::-1]
            total[start + place] += values[:max(1, -(-len(values) // 100))].mean()
            count[start + place] += 1
    return total / count


@pytest.mark.parametrize("n, length, stride", [(40, 16, 16), (37, 16, 16), (37, 8, 5), (7, 16, 16), (1, 4, 4)])
def test_scores_equal_the_slow_twin_for_any_length(n, length, stride):
    video, backbone, model = toy_video("t", events=(), n=n), FakeBackbone(), decoder()
    scoring = Scoring(frames_per_clip=length, stride=stride)
    found = score_many(backbone, {"a": model}, video, prototypes=TEXT, scoring=scoring, batch=3)["a"]
    expected = slow_scores(backbone, model, video.frames.read(0, n), length, stride)
    np.testing.assert_allclose(found.raw_scores, expected, rtol=1e-5)
    assert found.heatmap.shape == (n, *GRID) and found.heatmap.dtype == found.frame_scores.dtype == np.float32
    assert found.size == SIZE and found.video == "t"


def test_the_top_share_is_rounded_up_to_whole_patches():
    maps = np.arange(900, dtype=np.float32).reshape(1, 30, 30)
    assert top_mean(maps)[0] == np.arange(891, 900).mean()
    assert top_mean(maps[:, :2, :5])[0] == 34 and top_mean(maps, 1.0)[0] == maps.mean()


def test_several_decoders_share_one_pass_and_score_as_alone():
    video, backbone = toy_video("t"), FakeBackbone()
    models = {"a": decoder(0), "b": decoder(1)}
    together = score_many(backbone, models, video, prototypes=TEXT)
    passes = backbone.seen
    for name, model in models.items():
        alone = score_many(backbone, {"x": model}, video, prototypes=TEXT)["x"]
        assert np.array_equal(alone.heatmap, together[name].heatmap)
        assert np.array_equal(alone.raw_scores, together[name].raw_scores)
    assert backbone.seen == 3 * passes


def test_decoders_of_other_taps_or_windows_are_refused():
    with pytest.raises(CheckpointError, match=r"decoder b: made for taps \(0, 1\), the backbone fake gives \(0, 3\)"):
        score_many(FakeBackbone(), {"b": decoder(taps=(0, 1))}, toy_video("t"), prototypes=TEXT)
    with pytest.raises(CheckpointError, match="need the same windows"):
        score_many(FakeBackbone(), {"a": decoder(), "b": decoder()}, toy_video("t"), prototypes=TEXT,
                   scoring={"a": Scoring(), "b": Scoring(stride=8)})


def test_regions_lie_on_the_bright_patches_in_video_pixels():
    heat = np.zeros((4, *GRID), np.float32)
    heat[1:3, 2:4, 3:5] = 0.9
    found = finish("v", top_mean(heat), heat, size=SIZE, scoring=Scoring(thresholds=(0.5,)))
    assert found.regions.frame.tolist() == [1, 2] and set(found.regions.track) == {0}
    np.testing.assert_array_equal(found.regions.box, [[30, 20, 49, 39]] * 2)
    np.testing.assert_allclose(found.regions.score, 0.9, rtol=1e-6)


def test_smoothing_is_applied_once_and_rescoring_replaces_it():
    found = score_many(FakeBackbone(), {"a": decoder()}, toy_video("t"), prototypes=TEXT)["a"]
    smoothed = rescore(rescore(found, Scoring(sigma=9.0)), Scoring(sigma=2.0))
    np.testing.assert_allclose(smoothed.frame_scores, smooth([found.raw_scores], 2.0)[0], rtol=1e-6)
    assert np.array_equal(smoothed.raw_scores, found.raw_scores)


# Controls

def test_a_static_view_shows_each_temporal_patch_twice_the_same_frame():
    backbone = FakeBackbone()
    view, video = StaticView(backbone), toy_video("t", n=7)
    clip = Clip(video.frames.read(0, 7), 10.0, 0, "t")
    frozen = Clip(clip.frames[[0, 0, 2, 2, 4, 4, 6]], 10.0, 0, "t")
    for tap, expected, moving in zip(view.see(clip).taps, backbone.see(frozen).taps, backbone.see(clip).taps):
        assert torch.equal(tap, expected) and not torch.equal(tap, moving)
    assert view.fingerprint != backbone.fingerprint and view.taps == backbone.taps
    backbone.device = torch.device("meta")          # the decoder of a control must lie where its features come from
    assert view.device == torch.device("meta")


# Assembly

def saved(tmp_path, backbone):
    return decoder().save(tmp_path / "ahd.safetensors", backbone_fingerprint=backbone.fingerprint)


def test_from_pretrained_takes_scoring_from_beside_the_weights(tmp_path):
    backbone = FakeBackbone()
    path = saved(tmp_path, backbone)
    assert TVAD.from_pretrained(backbone, path).scoring == DEFAULT_SCORING
    Scoring(sigma=3.0, chosen_on="simcampus/val", thresholds=(0.1, 0.5)).save(tmp_path / "detector.json")
    model = TVAD.from_pretrained(backbone, path)
    assert model.scoring == Scoring(sigma=3.0, chosen_on="simcampus/val", thresholds=(0.1, 0.5))
    assert torch.equal(model.prototypes, prototypes(backbone))
    (tmp_path / "detector.json").write_text("{}}")
    with pytest.raises(CheckpointError, match="detector.json: no scoring record"):
        TVAD.from_pretrained(backbone, path)


def test_a_decoder_of_another_backbone_is_refused(tmp_path):
    path = saved(tmp_path, FakeBackbone())
    with pytest.raises(CheckpointError, match=r"ahd.safetensors: was trained on another backbone \(fingerprint fake-0"):
        TVAD.from_pretrained(FakeBackbone("fake-1"), path)


def test_detect_takes_videos_frames_and_paths_and_the_heatmap_is_that_of_see(tmp_path):
    import cv2
    backbone = FakeBackbone()
    model = TVAD.from_pretrained(backbone, saved(tmp_path, backbone))
    video = toy_video("t", n=16)
    one, two = model.score(video, ["somebody runs"]), model.detect(video.frames)
    assert np.array_equal(one.heatmap, two.heatmap)
    clip = Clip(video.frames.read(0, 16), 10.0, 0, "t")
    maps = model.heatmap(model.see(clip))
    np.testing.assert_array_equal(np.repeat(maps.numpy(), 2, axis=0), one.heatmap)
    (tmp_path / "frames").mkdir()
    for index, frame in enumerate(video.frames.read(0, 16)):
        cv2.imwrite(str(tmp_path / "frames" / f"{index}.png"), frame[:, :, ::-1])
    assert np.array_equal(model.detect(tmp_path / "frames").heatmap, one.heatmap)
    with pytest.raises(VideoError, match="missing.mp4"):
        model.detect(tmp_path / "missing.mp4")


def test_the_fingerprint_follows_weights_and_scoring(tmp_path):
    one = TVAD(FakeBackbone(), decoder(0), prototypes=TEXT)
    others = [TVAD(FakeBackbone(), decoder(1), prototypes=TEXT), TVAD(FakeBackbone("b"), decoder(0), prototypes=TEXT),
              TVAD(FakeBackbone(), decoder(0), prototypes=TEXT, scoring=Scoring(sigma=1.0)),
              TVAD(FakeBackbone(), decoder(0), prototypes=2 * TEXT),
              TVAD(FakeBackbone(), decoder(0, temperature=7.0), prototypes=TEXT),
              TVAD(FakeBackbone(), decoder(0, contrast="centred"), prototypes=TEXT)]
    assert len({one.fingerprint, *(other.fingerprint for other in others)}) == 7
    assert TVAD(FakeBackbone(), decoder(0), prototypes=TEXT).fingerprint == one.fingerprint


# Files

def test_detections_survive_the_disk_exactly(tmp_path):
    found = replace(score_many(FakeBackbone(), {"a": decoder()}, toy_video("t"), prototypes=TEXT)["a"],
                    answers={"Is there any anomaly?": "No"})
    again = Detection.load(found.save(tmp_path / "t.npz", key="k"), key="k")
    for name in ("frame_scores", "raw_scores", "heatmap"):
        assert np.array_equal(getattr(found, name), getattr(again, name))
    for name in ("frame", "box", "score", "track"):
        assert np.array_equal(getattr(found.regions, name), getattr(again.regions, name))
    assert (again.video, again.size, again.answers) == (found.video, found.size, found.answers)
    assert Detection.load(replace(found, heatmap=None).save(tmp_path / "u.npz")).heatmap is None


def test_damaged_and_foreign_detections_are_refused(tmp_path):
    found = finish("v", np.zeros(3, np.float32), np.zeros((3, *GRID), np.float32), size=SIZE, scoring=DEFAULT_SCORING)
    path = found.save(tmp_path / "v.npz", key="mine")
    with pytest.raises(CheckpointError, match="v.npz: was made by another detector or from another video"):
        Detection.load(path, key="other")
    whole = path.read_bytes()
    for place in range(0, len(whole), 7):               # any byte: the zip, its compressed streams, the headers inside
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0xFF]) + whole[place + 1:])
        try:
            Detection.load(path, key="mine")            # a byte that nobody reads
        except CheckpointError as error:
            assert "v.npz: " in str(error)
    path.write_bytes(whole[:200])
    with pytest.raises(CheckpointError, match="v.npz: no detection .*delete it and score again"):
        Detection.load(path)
    with pytest.raises(CheckpointError, match="w.npz: no detection"):
        Detection.load(tmp_path / "w.npz")


def test_a_full_disk_leaves_the_old_detection(tmp_path, monkeypatch):
    found = finish("v", np.zeros(3, np.float32), np.zeros((3, *GRID), np.float32), size=SIZE, scoring=DEFAULT_SCORING)
    path = found.save(tmp_path / "v.npz", key="old")

    def full(*_):
        raise OSError(28, "No space left on device")
    monkeypatch.setattr("os.replace", full)
    with pytest.raises(StorageError, match="what was there before is untouched"):
        found.save(path, key="new")
    assert Detection.load(path, key="old").video == "v" and len(list(tmp_path.iterdir())) == 1


# Calibration

def noisy(videos, seed=0):
    rng = np.random.default_rng(seed)
    found = []
    for video in videos:
        masks = video.masks(0, len(video)).reshape(-1, GRID[0], 10, GRID[1], 10).any(axis=(2, 4))
        heat = np.clip(0.6 * masks + 0.45 * rng.random(masks.shape), 0, 1).astype(np.float32)
        raw = (0.2 * video.labels + 0.5 * rng.random(len(video))).astype(np.float32)
        found.append(finish(video.id, raw, heat, size=SIZE, scoring=DEFAULT_SCORING))
    return found


def test_sigma_is_the_best_on_validation_and_of_equals_the_smallest():
    videos = toy_split("v", 6)
    found = noisy(videos)
    sigma = choose_sigma(found, videos)
    raw, labels = [d.raw_scores for d in found], [v.labels for v in videos]
    best = micro_auc(smooth(raw, sigma), labels)
    assert sigma > 0 and all(best >= micro_auc(smooth(raw, other), labels) for other in SIGMAS)
    perfect = [replace(d, raw_scores=v.labels.astype(np.float32)) for d, v in zip(found, videos)]
    assert choose_sigma(perfect, videos) == 0.0


def test_calibration_records_where_it_was_chosen_and_finds_thresholds_that_separate():
    videos = toy_split("v", 4)
    chosen = calibrate(noisy(videos), videos, Scoring(thresholds=(0.05,)), chosen_on="toy/val")
    assert chosen.chosen_on == "toy/val" and max(chosen.thresholds) >= 0.5
    bare = tuple(replace(video, tracks=None) for video in videos)
    assert calibrate(noisy(videos), bare, Scoring(thresholds=(0.05,)), chosen_on="x").thresholds == (0.05,)


def test_scoring_refuses_what_cannot_be():
    with pytest.raises(ParameterError, match="stride 20 must be 1 to frames_per_clip 16"):
        Scoring(stride=20)
    with pytest.raises(ParameterError, match="sigma nan at least 0"):
        Scoring(sigma=float("nan"))
    with pytest.raises(ParameterError, match="thresholds is empty"):
        Scoring(thresholds=())


def test_rows_of_the_split_that_settings_were_chosen_on_say_so():
    plain, given = Scoring(chosen_on="simcampus/val"), Scoring(sigma=2.0, chosen_on="simcampus/val; sigma given")
    for scoring in (plain, given):
        assert scoring.choice_on("simcampus/val") == "in-sample" and scoring.choice_on("simcampus/test") == "fixed"
