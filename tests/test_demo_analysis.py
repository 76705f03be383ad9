"""A video scored window by window: equal to the detector, nearest first, queries at any time, damage left out."""
from __future__ import annotations

import numpy as np
import pytest
from demo_fakes import detector, failing, opened
from training_fakes import toy_video

from tvad.errors import CheckpointError, ParameterError
from tvad.metrics.frame import smooth
from tvad.queries.finding import find
from tvad.video.clip import Window
from tvad.widgets.analysis import ANOMALY, Analysis, at_frames, runs


def all_of(analysis):
    done = []
    while (span := analysis.step()) is not None:
        done.append(span)
    return done


@pytest.mark.parametrize("n, length, stride", [(40, 8, 8), (37, 8, 8), (37, 8, 5), (5, 8, 8), (1, 8, 8)])
def test_the_finished_analysis_equals_the_detector(n, length, stride):
    model, video = detector(frames_per_clip=length, stride=stride), toy_video("toy", events=(), n=n)
    analysis = Analysis(model, video.frames)
    all_of(analysis)
    got, wanted = analysis.detection(), model.detect(video)
    np.testing.assert_allclose(got.frame_scores, wanted.frame_scores, atol=1e-6)
    np.testing.assert_allclose(got.heatmap, wanted.heatmap, atol=1e-6)
    np.testing.assert_array_equal(got.regions.frame, wanted.regions.frame)
    np.testing.assert_allclose(analysis.scores(), wanted.frame_scores, atol=1e-6)
    assert analysis.complete and analysis.progress == 1


def test_the_window_at_the_play_head_comes_first_then_those_behind_it():
    analysis = Analysis(detector(), opened().frames)
    assert analysis.step(near=18) == Window(16, 24)
    assert np.isnan(analysis.scores()[:16]).all() and np.isfinite(analysis.scores()[16:24]).all()
    assert analysis.heat(16) is not None and analysis.heat(15) is None
    assert [analysis.step(near=18) for _ in range(5)] == [(24, 32), (32, 40), (0, 8), (8, 16), None]


def test_stretches_are_smoothed_by_themselves_until_all_are_there():
    analysis = Analysis(detector(), opened().frames)
    analysis.step(near=0)
    analysis.step(near=24)
    raw = analysis.scores(smoothed=False)
    for start in (0, 24):
        expected = smooth([raw[start:start + 8]], 1.5)[0]
        np.testing.assert_allclose(analysis.scores()[start:start + 8], expected, atol=1e-6)


def test_a_query_uses_what_was_seen_and_equals_find():
    model = detector()
    analysis = Analysis(model, opened().frames)
    analysis.step()
    seen = model.backbone.seen
    layer = analysis.listen("bike")
    assert model.backbone.seen == seen and layer.meanings[0].nearest == "bicycle"
    assert analysis.heat(0, "bike") is not None and analysis.heat(20, "bike") is None
    all_of(analysis)
    wanted = find(model.backbone, model.queries, opened().frames, ["bike"], scoring=model.query_scoring)["bike"]
    np.testing.assert_allclose(analysis.detection("bike").heatmap, wanted.heatmap, atol=1e-6)
    np.testing.assert_allclose(analysis.scores("bike"), wanted.frame_scores, atol=1e-6)
    analysis.forget("bike")
    analysis.forget(ANOMALY)
    assert list(analysis.layers) == [ANOMALY]


def test_features_that_were_let_go_are_seen_again_for_a_late_query():
    model = detector()
    analysis = Analysis(model, opened().frames, feature_bytes=0)
    all_of(analysis)
    assert len(analysis._kept) == 1
    analysis.listen("van")
    assert not analysis.complete
    before = model.backbone.seen
    all_of(analysis)
    assert model.backbone.seen - before == 16       # four windows of eight frames, two a step; the fifth was kept
    wanted = find(model.backbone, model.queries, opened().frames, ["van"], scoring=model.query_scoring)["van"]
    np.testing.assert_allclose(analysis.scores("van"), wanted.frame_scores, atol=1e-6)


def test_words_without_meaning_and_a_detector_that_does_not_listen_change_nothing():
    analysis = Analysis(detector(), opened().frames)
    with pytest.raises(ParameterError, match="holds no word"):
        analysis.listen("?!")
    deaf = Analysis(detector(queries=False), opened().frames)
    with pytest.raises(CheckpointError, match="no decoder of query heatmaps"):
        deaf.listen("car")
    assert list(analysis.layers) == list(deaf.layers) == [ANOMALY]


def test_windows_that_cannot_be_read_are_left_out_and_named():
    analysis = Analysis(detector(), failing(opened().frames, 8, 10))
    all_of(analysis)
    assert analysis.complete and list(analysis.lost) == [Window(8, 16)]
    assert "damaged" in analysis.lost[Window(8, 16)]
    assert np.isnan(analysis.scores()[8:16]).all() and np.isfinite(analysis.scores()[16:]).all()
    assert analysis.detection().raw_scores[8:16].tolist() == [0.0] * 8


def test_boxes_have_tracks_once_everything_is_scored():
    analysis = Analysis(detector(), opened().frames)
    analysis.step()
    level = float(np.median(analysis.heat(3)))
    early = analysis.boxes(3, level)
    assert len(early) and set(early.frame) == {3} and set(early.track) == {-1}
    assert len(analysis.boxes(30, level)) == 0
    all_of(analysis)
    late = analysis.boxes(3, level)
    np.testing.assert_allclose(late.box, early.box)
    assert (late.track >= 0).all()
    assert set(at_frames(analysis.regions(level), 3, 5).frame) <= {3, 4, 5}


def test_runs_are_the_true_stretches():
    assert runs(np.array([0, 1, 1, 0, 1], bool)) == [(1, 3), (4, 5)] and runs(np.zeros(3, bool)) == []
