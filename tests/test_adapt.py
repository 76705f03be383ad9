"""Adaptation to a camera: split, virtual videos, and the whole way on toy footage."""
from __future__ import annotations

import copy
import json
import subprocess
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from composite_footage import toy_footage
from training_fakes import GRID, SIZE, FakeBackbone, fake_model, toy_clips, toy_split

from tvad.adaptation.detector import AdaptedDetector, detect_all
from tvad.adaptation.evidence import Calibration, Fusion
from tvad.adaptation.views import beginning, reduced
from tvad.detector import TVAD
from tvad.errors import CheckpointError, DatasetError, ParameterError, VideoError
from tvad.params import project_root
from tvad.record import is_complete
from tvad.scenes.composite.compose import Compositor
from tvad.scenes.composite.survey import survey
from tvad.training.adapt import AdaptConfig, adapt
from tvad.training.adapt.__main__ import main
from tvad.training.adapt.loop import Source, counts_of, rows_of
from tvad.training.adapt.pairs import Stretch, composite_videos, normal_videos, pair_starts, split
from tvad.training.adapt.run import folder_of, footage_of
from tvad.training.adapt.tempo import automatic_gap
from tvad.video.frames import ArrayFrames

SMALL = AdaptConfig(steps=4, batch_size=8, validate_every=2, composites=12, normal=8, rehearsal=6, val_composites=10,
                    val_normal=8, patches_per_pair=16, gaps=(1, 2), fusion=Fusion("place", 0.5, (1, 2)), oneclass=True)


@pytest.fixture(scope="module")
def clips():
    return toy_clips()


@pytest.fixture(scope="module")
def model():
    return fake_model()


@pytest.fixture(scope="module")
def adapted(clips, model, tmp_path_factory):
    root = tmp_path_factory.mktemp("adapt")
    before = {name: value.clone() for name, value in model.decoder.state_dict().items()}
    result = adapt(model, clips, output_dir=root / "whole", config=SMALL, rehearsal=toy_split("sim"),
                   cache_dir=root / "cache", progress=False)
    for name, value in model.decoder.state_dict().items():      # the decoder that was given stays as it was
        assert (value == before[name]).all()
    return root, result


def test_videos_are_on_one_side_of_the_split_only(clips):
    train, val = split(clips, 0.25, gap=1)
    assert {part.frames.name for part in train} & {part.frames.name for part in val} == set()
    assert (len(train), len(val)) == (3, 1)


def test_few_videos_are_split_by_time(clips):
    train, val = split(clips[:2], 0.25, gap=1)
    for one, other in zip(train, val):
        assert one.frames is other.frames and one.stop <= other.start and other.stop == 20
        # what is estimated from training footage cannot read a held-out frame
        assert len(one.footage) == one.stop and one.footage.fingerprint != one.frames.fingerprint
        np.testing.assert_array_equal(one.footage.read(0, 3), one.frames.read(0, 3))
        with pytest.raises(VideoError, match=f"has {one.stop}; ask for less"):
            one.footage.take([other.start])
    whole, _ = split(clips, 0.25, gap=1)
    assert whole[0].footage is whole[0].frames
    with pytest.raises(VideoError, match="wanted the first 21 frames, the video has 20"):
        beginning(clips[0], 21)


def test_too_little_footage_is_refused():
    short = ArrayFrames(np.zeros((9, 20, 20, 3), np.uint8), 10.0, "short")
    with pytest.raises(DatasetError, match="longest of 9 frames; give at least one of 16"):
        split([short], 0.25, gap=1)
    with pytest.raises(DatasetError, match="no footage"):
        footage_of([])
    train, _ = split([ArrayFrames(np.zeros((20, 20, 20, 3), np.uint8), 10.0, "slow")], 0.25, gap=1)
    with pytest.raises(DatasetError, match="no pair of frames 18 apart in stretches of at most 14 frames"):
        normal_videos(train, 4, gap=18, reach=18, seed=0)
    with pytest.raises(ParameterError, match="footage that is no path names no folder; give output_dir"):
        folder_of([short])
    assert folder_of("some/my_camera/") == project_root() / "runs" / "adapted" / "my_camera"


def test_a_clip_too_short_for_a_background_is_left_out_and_named(clips, caplog):
    tiny = ArrayFrames(np.zeros((2, *SIZE, 3), np.uint8), 10.0, "tiny")
    train, val = split([*clips, tiny], 0.25, gap=1)
    assert {part.frames.name for part in (*train, *val)} == {clip.name for clip in clips}
    assert "1 clips of fewer than 3 frames are left out, first tiny" in caplog.text


def test_footage_of_two_sizes_is_refused_before_any_work(clips):
    with pytest.raises(DatasetError, match=r"other has frames of \(30, 40\), clip0 of \(60, 90\); one camera has one size"):
        footage_of([clips[0], ArrayFrames(np.zeros((30, 30, 40, 3), np.uint8), 10.0, "other")])


def test_many_short_clips_show_their_share_of_events(clips):
    compositor = Compositor(survey([clips[0]], samples=30))
    parts = [Stretch(clips[0], start, start + 3) for start in range(16)]
    videos = composite_videos(compositor, parts, 16, gap=1, reach=1, seed=1)
    assert len(videos) == 16 and sum(int(video.labels[0]) for video in videos) == 8


def test_virtual_videos_hold_pairs_and_their_masks(clips):
    train, _ = split(clips, 0.25, gap=2)
    compositor = Compositor(survey([part.frames for part in train], samples=30))
    videos = composite_videos(compositor, train, 9, gap=2, reach=2, seed=3)
    again = composite_videos(compositor, train, 9, gap=2, reach=2, seed=3)
    assert sum(len(video) // 2 for video in videos) == 9
    assert [video.frames.fingerprint for video in videos] == [video.frames.fingerprint for video in again]
    other = composite_videos(compositor, train, 9, gap=2, reach=2, seed=4)
    assert videos[0].frames.fingerprint != other[0].frames.fingerprint
    one = videos[0]
    assert pair_starts(videos)[one.id] == tuple(range(0, len(one), 2))
    for start in range(0, len(one), 2):
        assert one.masks(start, start + 2).any() == bool(one.labels[start])
        assert bool(one.text["kinds"][start // 2]) == bool(one.labels[start])
    np.testing.assert_array_equal(one.frames.read(0, 2), again[0].frames.read(0, len(one))[:2])


def test_normal_pairs_are_the_footage(clips):
    train, _ = split(clips, 0.25, gap=2)
    video = normal_videos(train, 6, gap=2, reach=2, seed=None)[0]
    np.testing.assert_array_equal(video.frames.read(0, 2), train[0].frames.take([0, 2]))
    assert not video.labels.any() and not video.masks(0, len(video)).any()


def test_large_footage_is_reduced_to_what_the_tower_sees():
    frames = ArrayFrames(np.zeros((3, 120, 180, 3), np.uint8), 10.0, "large")
    small = reduced(frames, SimpleNamespace(input_size=lambda h, w: (60, 100)))
    assert small.read(0, 2).shape == (2, 60, 100, 3) and small.fingerprint != frames.fingerprint
    assert reduced(frames, SimpleNamespace(input_size=lambda h, w: (240, 360))) is frames
    assert reduced(frames, FakeBackbone()) is frames
    noise = np.random.default_rng(0).integers(0, 256, (40, 120, 180, 3), dtype=np.uint8)
    made = reduced(ArrayFrames(noise, 10.0, "noise"), SimpleNamespace(input_size=lambda h, w: (60, 90)))
    slow = noise.astype(float).reshape(40, 60, 2, 90, 2, 3).mean((2, 4))
    np.testing.assert_allclose(made.take(range(40)), slow, atol=0.51)      # more frames than are read together


def test_batches_keep_their_shares_and_epochs_see_every_pair():
    sources = [Source(name, SimpleNamespace(__len__=None), share) for name, share in (("a", 0.55), ("b", 0.25), ("c", 0.2))]
    assert counts_of(sources, 24) == [13, 6, 5]
    ten = Source("ten", list(range(10)), 1.0)
    seen = np.concatenate([rows_of(ten, 0, 4, step, seed=1) for step in range(5)])
    assert sorted(seen[:10]) == list(range(10)) and sorted(seen[10:]) == list(range(10))
    assert (rows_of(ten, 0, 4, 3, seed=1) == rows_of(ten, 0, 4, 3, seed=1)).all()


def test_the_gap_follows_the_pace():
    assert [automatic_gap(fps, pace) for fps, pace in ((10, 1.0), (10, 0.47), (25, 1.0), (2, 1.0))] == [1, 2, 2, 1]


def test_an_adaptation_leaves_a_detector_a_report_and_a_sheet(adapted, clips, model):
    root, result = adapted
    report = json.loads((root / "whole" / "report.json").read_text())
    assert [record["step"] for record in report["history"]] == [0, 2, 4]
    assert report["best"]["selection"] == max(record["selection"] for record in report["history"])
    assert {"heat", "heat by place", "oneclass alone", "heat by place, all gaps"} <= set(report["options"])
    assert "frames between the two of a pair: 1, 2" in (root / "whole" / "report.txt").read_text()
    assert (root / "whole" / "composites.png").stat().st_size > 1000
    detection = result.detector.detect(clips[3])
    assert detection.heatmap.shape == (20, *GRID) and 0 <= detection.raw_scores.min() <= detection.raw_scores.max() <= 1
    loaded = AdaptedDetector.load(root / "whole", model.backbone, prototypes=model.prototypes)
    assert loaded.fusion == result.detector.fusion and loaded.fingerprint == result.detector.fingerprint
    np.testing.assert_allclose(loaded.detect(clips[3]).raw_scores, detection.raw_scores, atol=0.01)


def test_a_resumed_adaptation_equals_the_unbroken(adapted, clips, model):
    root, whole = adapted
    for stop in (3, None):
        broken = adapt(model, clips, output_dir=root / "broken", config=SMALL, rehearsal=toy_split("sim"),
                       cache_dir=root / "cache", stop_after=stop, progress=False)
    assert broken.report["history"] == whole.report["history"]
    for name, value in whole.detector.decoder.state_dict().items():
        assert (broken.detector.decoder.state_dict()[name] == value).all()


def test_levels_of_the_one_class_score_do_not_see_patches_that_their_bank_holds(adapted, clips):
    detector = adapted[1].detector
    new = SimpleNamespace(frames=np.concatenate([clip.take([3, 4, 9, 10]) for clip in clips[:2]]))
    held = detector.bank.score(detector.backbone.see(new).taps)
    middle = detector.calibration.levels["oneclass@1"].middle
    assert middle.min() > 0 and middle.mean() > 0.5 * float(held.median())


def test_the_last_frames_are_judged_by_the_last_whole_pair(adapted, clips):
    detector = replace(adapted[1].detector, fusion=Fusion("place", 0.0, (3,)),
                       calibration=Calibration({"heat@3": adapted[1].detector.calibration.levels["heat@1"]}))
    seen, inner = [], detector.backbone.see
    detector.backbone = SimpleNamespace(see=lambda clip: seen.append(clip.frames) or inner(clip), temporal_patch_size=2)
    detector.detect(clips[0])
    pairs = np.concatenate(seen).reshape(-1, 2, *SIZE, 3)
    for pair, start in zip(pairs, (0, 2, 4, 6, 8, 10, 12, 14, 16, 16)):
        np.testing.assert_array_equal(pair, clips[0].take([start, start + 3]))


def test_choices_of_evidence_share_one_pass_of_the_tower(adapted, clips):
    choices = adapted[1].choices
    backbone, calls = adapted[1].detector.backbone, []
    assert set(choices) == set(adapted[1].report["options"])
    inner = backbone.see
    backbone.see = lambda clip: calls.append(1) or inner(clip)
    try:
        together = detect_all(choices, clips[3])
        passes = len(calls)
        apart = {title: one.detect(clips[3]) for title, one in choices.items()}
    finally:
        del backbone.see
    assert passes == 6 and len(calls) > 3 * passes          # one a gap for each four of the ten pairs
    for title, detection in apart.items():
        np.testing.assert_array_equal(together[title].raw_scores, detection.raw_scores)
        np.testing.assert_array_equal(together[title].heatmap, detection.heatmap)
    assert not np.array_equal(together["heat"].raw_scores, together["oneclass alone"].raw_scores)
    stranger = replace(choices["heat"], decoder=copy.deepcopy(choices["heat"].decoder))
    with pytest.raises(ParameterError, match="different weights; give those of one adaptation"):
        detect_all({**choices, "other": stranger}, clips[3])


def test_footage_of_another_shape_is_refused(adapted):
    detector = copy.copy(adapted[1].detector)
    detector.backbone = SimpleNamespace(see=lambda clip: SimpleNamespace(taps=[torch.zeros(2, 3, 9, 6)]))
    with pytest.raises(CheckpointError, match=r"its camera gives maps of \(6, 9\), this footage \(3, 9\)"):
        detector.parts(np.zeros((2, 2, 30, 90, 3), np.uint8))


@pytest.mark.parametrize("footage", ["nobody", "colour", "short"])
def test_any_footage_gives_a_detector(footage, model, tmp_path):
    """A still picture without people; colour at 25 frames a second; one clip of under two seconds."""
    if footage == "nobody":
        clips = [ArrayFrames(np.full((24, *SIZE, 3), 110, np.uint8), 10.0, "still")]
    elif footage == "colour":
        clips = [toy_footage("tinted", size=SIZE, frames=30, people=4, fps=25.0, colour=True)[0]]
    else:
        clips = [toy_footage("short", size=SIZE, frames=17, people=3)[0]]
    config = replace(SMALL, gaps=(), fusion=Fusion("place", 0.5), steps=2, val_composites=8)
    result = TVAD(model.backbone, model.decoder, prototypes=model.prototypes).adapt(
        clips, output_dir=tmp_path / "out", config=config, rehearsal=(), cache_dir=tmp_path, progress=False)
    detection = result.detector.detect(clips[0])
    assert np.isfinite(detection.heatmap).all() and len(detection.frame_scores) == len(clips[0])
    if footage == "nobody":
        assert "WARNING: hardly any people were seen" in (tmp_path / "out" / "report.txt").read_text()
    assert is_complete(tmp_path / "out")[0]


def test_a_missing_bank_is_named(adapted, model):
    detector = adapted[1].detector
    with pytest.raises(ParameterError, match="there is no bank"):
        AdaptedDetector(model.backbone, detector.decoder, model.prototypes, detector.calibration,
                        Fusion("place", 0.5, (1,)))


def test_the_command_line_names_what_is_missing(tmp_path, capsys):
    (tmp_path / "some.safetensors").write_bytes(b"")
    assert main(["--video", str(tmp_path), "--ahd", str(tmp_path / "no.safetensors")]) == 1
    assert "no.safetensors: no decoder to start from; run: make reproduce" in capsys.readouterr().err
    assert main(["--video", str(tmp_path / "nowhere"), "--ahd", str(tmp_path / "some.safetensors")]) == 1
    assert "nowhere: no such file or folder; pass the path of a video" in capsys.readouterr().err


def test_make_adapt_asks_for_footage():
    said = subprocess.run(["make", "-o", ".venv/.stamp", "adapt"], cwd=Path(__file__).parent.parent, capture_output=True,
                          text=True)
    assert said.returncode == 2 and "make adapt: no footage given; run: make adapt VIDEO=" in said.stderr
