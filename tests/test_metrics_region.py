"""RBDC, TBDC and linking against twins written straight from the definitions, and published values."""

import json
import math

import numpy as np
import pytest
from real_data import PUBLISHED, needs_published

from tvad.metrics import GroundTruthTracks, MetricError, Regions, link_tracks, rbdc_tbdc
from tvad.metrics.region import box_iou


def slow_iou(a, b):
    wide = min(a[2], b[2]) - max(a[0], b[0]) + 1
    high = min(a[3], b[3]) - max(a[1], b[1]) + 1
    both = max(0, wide) * max(0, high)
    return both / ((a[2] - a[0] + 1) * (a[3] - a[1] + 1) + (b[2] - b[0] + 1) * (b[3] - b[1] + 1) - both)


def slow_rbdc_tbdc(detections, tracks, num_frames, alpha=0.1, beta=0.1):
    rows = [(r.score[i], name, r.frame[i], r.box[i]) for name, r in detections.items() for i in range(len(r))]
    truth = [(name, t.track[i], t.frame[i], t.box[i]) for name, t in tracks.items() for i in range(len(t))]
    members = {}
    for index, (name, track, _, _) in enumerate(truth):
        members.setdefault((name, track), []).append(index)
    found, alarms, curve = set(), 0, [(0.0, 0.0, 0.0)]
    for score in sorted({row[0] for row in rows}, reverse=True):
        for _, name, frame, box in (row for row in rows if row[0] == score):
            hits = {i for i, g in enumerate(truth) if g[0] == name and g[2] == frame and slow_iou(g[3], box) >= alpha}
            found |= hits
            alarms += not hits
        share = [len(found & set(rows_of)) / len(rows_of) >= beta for rows_of in members.values()]
        curve.append((alarms / num_frames, len(found) / len(truth), sum(share) / len(share)))
    curve.append((max(1.0, curve[-1][0]), *curve[-1][1:]))
    areas = []
    for column in (1, 2):
        area = 0.0
        for one, two in zip(curve, curve[1:]):
            x0, x1, y0, y1 = one[0], two[0], one[column], two[column]
            if x0 < 1 and x1 > x0:
                end = min(x1, 1.0)
                area += (end - x0) * (y0 + y0 + (y1 - y0) * (end - x0) / (x1 - x0)) / 2
        areas.append(area)
    return areas


def make(seed, *, decimals=6, count=40, frames=8, videos=3):
    rng = np.random.default_rng(seed)
    detections, tracks = {}, {}
    for index in range(videos):
        name = f"v{index}"
        low = rng.integers(0, 30, (count, 2))
        detections[name] = Regions(
            frame=rng.integers(0, frames, count),
            box=np.concatenate((low, low + rng.integers(0, 25, (count, 2))), 1),
            score=np.round(rng.random(count), decimals),
        )
        if index:
            low = rng.integers(0, 30, (frames * 2, 2))
            tracks[name] = GroundTruthTracks(
                track=np.repeat((4, 9), frames),
                frame=np.tile(np.arange(frames), 2),
                box=np.concatenate((low, low + rng.integers(0, 25, (frames * 2, 2))), 1),
            )
    return detections, tracks


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("decimals", [0, 1, 6])  # 0: nearly everything tied
@pytest.mark.parametrize("num_frames", [24, 500])  # with and without reaching one false positive a frame
def test_fast_equals_slow(seed, decimals, num_frames):
    detections, tracks = make(seed, decimals=decimals)
    for alpha, beta in ((0.1, 0.1), (0.3, 0.6)):
        scores = rbdc_tbdc(detections, tracks, num_frames=num_frames, alpha=alpha, beta=beta)
        assert (scores.rbdc, scores.tbdc) == pytest.approx(
            slow_rbdc_tbdc(detections, tracks, num_frames, alpha, beta), abs=1e-12
        )
    assert (scores.boxes, scores.tracks, scores.frames) == (32, 4, num_frames)


def test_order_of_rows_does_not_matter_at_ties():
    detections, tracks = make(7, decimals=1)
    rng = np.random.default_rng(0)
    shuffled = {}
    for name, part in detections.items():
        order = rng.permutation(len(part))
        shuffled[name] = Regions(frame=part.frame[order], box=part.box[order], score=part.score[order])
    one, two = (rbdc_tbdc(each, tracks, num_frames=24) for each in (detections, shuffled))
    assert (one.rbdc, one.tbdc) == (two.rbdc, two.tbdc)


def test_perfect_single_row_and_empty_detections():
    _, tracks = make(1)
    perfect = {name: Regions(frame=t.frame, box=t.box, score=np.ones(len(t))) for name, t in tracks.items()}
    scores = rbdc_tbdc(perfect, tracks, num_frames=24)
    assert (scores.rbdc, scores.tbdc, scores.reaches_limit) == (1.0, 1.0, False)
    nothing = rbdc_tbdc({name: Regions.empty() for name in tracks}, tracks, num_frames=24)
    assert (nothing.rbdc, nothing.tbdc) == (0.0, 0.0)
    truth = {"v": GroundTruthTracks(track=[0], frame=[3], box=[[2, 2, 5, 5]])}
    one_row = {"v": Regions(frame=[3], box=[[2, 2, 5, 5]], score=[0.5])}
    assert rbdc_tbdc(one_row, truth, num_frames=10).rbdc == 1.0


def test_one_detection_finds_several_boxes_and_a_repeat_counts_for_nothing():
    truth = {"v": GroundTruthTracks(track=[0, 1], frame=[0, 0], box=[[0, 0, 9, 9], [5, 0, 14, 9]])}
    boxes = [[2, 0, 12, 9], [2, 0, 12, 9], [100, 100, 109, 109]]
    scores = rbdc_tbdc({"v": Regions(frame=[0, 0, 0], box=boxes, score=[0.9, 0.8, 0.7])}, truth, num_frames=4)
    # one point a score at which something changes: the repeat at 0.8 leaves none
    assert scores.region_rate.tolist() == [0, 1, 1] and scores.false_positive_rate.tolist() == [0, 0, 0.25]


def test_iou_has_inclusive_corners():
    assert box_iou(np.array([[0, 0, 0, 0]]), np.array([[0, 0, 0, 1]]))[0] == 0.5
    # 1 x 10 against 1 x 1 gives exactly alpha, and counts
    truth = {"v": GroundTruthTracks(track=[0], frame=[0], box=[[0, 0, 9, 0]])}
    assert rbdc_tbdc({"v": Regions(frame=[0], box=[[0, 0, 0, 0]], score=[1])}, truth, num_frames=1).rbdc == 1.0


@pytest.mark.parametrize("size", [1, 9, 10, 11, 20, 21, 30])
def test_a_track_needs_the_least_number_of_boxes_that_is_a_tenth(size):
    truth = {"v": GroundTruthTracks(track=np.zeros(size), frame=np.arange(size), box=np.tile((0, 0, 4, 4), (size, 1)))}
    needed = next(k for k in range(1, size + 1) if k / size >= 0.1)
    for count, wanted in ((needed, 1.0), (needed - 1, 0.0)):
        part = Regions(frame=np.arange(count), box=np.tile((0, 0, 4, 4), (count, 1)), score=np.arange(count))
        assert rbdc_tbdc({"v": part}, truth, num_frames=size).tbdc == wanted


@needs_published
@pytest.mark.parametrize(
    "name, folder", [("aed_sht5", "rbdc_tbdc_sht5_detections"), ("aed_sht5_dense", "rbdc_tbdc_sht5_dense_detections")]
)
def test_published_values(name, folder):
    wanted = json.loads((PUBLISHED / "expected.json").read_text())[name]
    detections, tracks = {}, {}
    for path in sorted((PUBLISHED / folder).glob("*.txt")):
        rows = np.loadtxt(path, delimiter=",", ndmin=2)
        detections[path.stem] = Regions(frame=rows[:, 0], box=rows[:, 1:5], score=rows[:, 5])
        rows = np.loadtxt(PUBLISHED / "tracks" / path.name, delimiter=",", ndmin=2)
        tracks[path.stem] = GroundTruthTracks(track=rows[:, 0], frame=rows[:, 1], box=rows[:, 2:])
    scores = rbdc_tbdc(detections, tracks, num_frames=wanted["num_frames"])
    assert (sum(map(len, detections.values())), scores.tracks) == (wanted["n_det"], wanted["n_tracks"])
    assert (scores.rbdc, scores.tbdc) == pytest.approx((wanted["rbdc"], wanted["tbdc"]), abs=1e-12)
    assert scores.reaches_limit == wanted["fpr_reaches_1"]


def test_bad_regions_are_named():
    detections, tracks = make(0)
    with pytest.raises(MetricError, match="no ground-truth box in any of 3 videos"):
        rbdc_tbdc(detections, {}, num_frames=24)
    with pytest.raises(MetricError, match="no detections for 1 annotated videos, first 'v1'"):
        rbdc_tbdc({name: part for name, part in detections.items() if name != "v1"}, tracks, num_frames=24)
    with pytest.raises(MetricError, match="num_frames lacks 2 videos, first 'v1'"):
        rbdc_tbdc(detections, tracks, num_frames={"v0": 8})
    with pytest.raises(MetricError, match="v0: a detection lies in frame 7 but the video has 5 frames"):
        rbdc_tbdc(detections, tracks, num_frames={"v0": 5, "v1": 8, "v2": 8})
    with pytest.raises(MetricError, match="num_frames must be positive, got 0"):
        rbdc_tbdc(detections, tracks, num_frames=0)
    with pytest.raises(MetricError, match=r"alpha must lie in \(0, 1\], got 0"):
        rbdc_tbdc(detections, tracks, num_frames=24, alpha=0)


@pytest.mark.parametrize(
    "columns, message",
    [
        (dict(frame=[0, 1], box=[[0, 0, 1, 1]], score=[1, 1]), r"Regions.box has shape \(1, 4\), expected \(2, 4\)"),
        (dict(frame=[0], box=[[0, 0, 1, 1]], score=[math.nan]), "Regions.score holds NaN, first in row 0"),
        (dict(frame=[0], box=[[4, 0, 1, 1]], score=[1]), r"Regions.box row 0 is \[4.0, 0.0, 1.0, 1.0\]"),
        (dict(frame=[-1], box=[[0, 0, 1, 1]], score=[1]), "frames count from 0"),
        (dict(frame=[0.5], box=[[0, 0, 1, 1]], score=[1]), "Regions.frame must hold whole numbers"),
    ],
)
def test_bad_columns_are_named(columns, message):
    with pytest.raises(MetricError, match=message):
        Regions(**columns)


def test_links_follow_two_crossing_targets_and_bridge_a_gap():
    frames = [frame for frame in range(12) if frame not in (4, 5)]
    one = [[10 * f, 20, 10 * f + 19, 39] for f in frames]  # to the right
    two = [[120 - 10 * f, 60, 139 - 10 * f, 79] for f in frames]  # to the left, another row
    regions = Regions(
        frame=np.repeat(frames, 2), box=np.stack((one, two), 1).reshape(-1, 4), score=np.tile((0.9, 0.8), len(frames))
    )
    linked = link_tracks(regions, min_iou=0.1, max_distance=2.0, max_gap=2)
    assert linked.track.reshape(-1, 2).tolist() == [[0, 1]] * len(frames)
    cut = link_tracks(regions, min_iou=0.1, max_distance=2.0, max_gap=1)
    assert cut.track.reshape(-1, 2).tolist() == [[0, 1]] * 4 + [[2, 3]] * 6
    assert (linked.box == regions.box).all() and (regions.track == -1).all()


def test_links_are_gated_and_empty_regions_pass():
    far = Regions(frame=[0, 1], box=[[0, 0, 9, 9], [50, 0, 59, 9]], score=[1, 1])
    assert link_tracks(far).track.tolist() == [0, 1]
    assert link_tracks(far, max_distance=4.0).track.tolist() == [0, 0]
    grown = Regions(frame=[0, 1], box=[[0, 0, 3, 3], [0, 0, 39, 39]], score=[1, 1])
    assert link_tracks(grown).track.tolist() == [0, 1]
    assert len(link_tracks(Regions.empty())) == 0
    # a forbidden pair must not pull an allowed one apart
    pair = Regions(frame=[0, 0, 1], box=[[0, 0, 9, 9], [5, 0, 14, 9], [6, 0, 15, 9]], score=[0.9, 0.8, 0.7])
    assert link_tracks(pair).track.tolist() == [0, 1, 1]
