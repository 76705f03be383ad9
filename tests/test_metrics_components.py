"""Regions of heatmaps and tracks of masks against twins that look at one frame and one component at a time."""

import numpy as np
import pytest
from scipy import ndimage

from tvad.metrics import MetricError, components, regions_from_heatmap, tracks_from_masks
from tvad.metrics.region import box_iou


def slow_regions(heatmap, thresholds, min_area, score, limit):
    rows = []
    for frame, heat in enumerate(heatmap):
        found = []
        for threshold in thresholds:
            labels, count = ndimage.label(heat > threshold, structure=np.ones((3, 3)))
            for index in range(1, count + 1):
                y, x = np.nonzero(labels == index)
                if len(y) >= min_area:
                    value = heat[y, x].astype(float)
                    found.append(
                        (float(value.mean() if score == "mean" else value.max()), (x.min(), y.min(), x.max(), y.max()))
                    )
        kept = []
        for value, box in sorted(found, key=lambda row: (-row[0], row[1])):
            if all(box != other and box_iou(np.array(box), np.array(other)) <= limit for _, other in kept):
                kept.append((value, box))
        rows += [(frame, *box, value) for value, box in kept]
    return np.array(rows, dtype=float).reshape(-1, 6)


def blobs(seed, size=(6, 14, 18), spread=1.5):
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).random(size), (0, spread, spread))
    return ((noise - noise.min()) / (noise.max() - noise.min())).astype(np.float32)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("score", ["mean", "max"])
@pytest.mark.parametrize("min_area, limit", [(1, 0.9), (4, 0.6), (1, 1.0)])
def test_regions_equal_the_slow_twin(seed, score, min_area, limit):
    heatmap, thresholds = blobs(seed), (0.35, 0.4, 0.45, 0.5, 0.7)
    fast = regions_from_heatmap(heatmap, thresholds=thresholds, min_area=min_area, score=score, duplicate_iou=limit)
    slow = slow_regions(heatmap, thresholds, min_area, score, limit)
    assert len(slow) > 20
    assert np.column_stack((fast.frame, fast.box, fast.score)) == pytest.approx(slow, abs=1e-9)


def test_large_boxes_that_nearly_agree_are_suppressed_in_one_frame_only():
    heatmap = np.zeros((2, 30, 30))
    heatmap[:, 5:25, 5:25] = 0.5
    heatmap[0, 5:25, 5:24] = 0.9  # 20x19 inside 20x20: IoU 0.95
    found = regions_from_heatmap(heatmap, thresholds=(0.2, 0.7))
    assert found.frame.tolist() == [0, 1]
    assert found.box.tolist() == [[5, 5, 23, 24], [5, 5, 24, 24]] and found.score == pytest.approx([0.9, 0.5])
    assert len(regions_from_heatmap(heatmap, thresholds=(0.2, 0.7), duplicate_iou=0.96)) == 3


def test_frames_never_touch_corners_do_and_boxes_are_scaled():
    heatmap = np.zeros((2, 3, 4), dtype=np.float32)
    heatmap[0, 2, 1] = heatmap[1, 0, 1] = 1  # bottom row of one frame, top row of the next
    heatmap[1, 1, 2] = 1  # touches by a corner
    found = regions_from_heatmap(heatmap, thresholds=(0.5,), scale=(10, 20))
    assert found.frame.tolist() == [0, 1]
    assert found.box.tolist() == [[20, 20, 39, 29], [20, 0, 59, 19]]


def test_parts_give_the_same_regions_and_tracks(monkeypatch):
    heatmap = blobs(5)
    masks = (heatmap > 0.55).astype(np.uint8)
    whole, tracks = regions_from_heatmap(heatmap, thresholds=(0.4, 0.6)), tracks_from_masks(masks, kind="binary")
    monkeypatch.setattr(components, "_PIXELS_AT_ONCE", 14 * 18 * 2)
    again, linked = regions_from_heatmap(heatmap, thresholds=(0.4, 0.6)), tracks_from_masks(masks, kind="binary")
    assert (whole.box == again.box).all() and (whole.frame == again.frame).all() and (whole.score == again.score).all()
    assert (tracks.track == linked.track).all() and (tracks.box == linked.box).all()


def test_empty_heatmaps_and_bad_options():
    assert len(regions_from_heatmap(np.zeros((3, 4, 4)), thresholds=(0.5,))) == 0
    assert len(regions_from_heatmap(np.zeros((0, 4, 4)), thresholds=(0.5,))) == 0
    with pytest.raises(MetricError, match="thresholds is empty"):
        regions_from_heatmap(np.zeros((1, 2, 2)), thresholds=())
    with pytest.raises(MetricError, match="heatmap of frame 1 holds NaN"):
        regions_from_heatmap(np.array([[[0.0]], [[np.nan]]]), thresholds=(0.5,))
    with pytest.raises(MetricError, match=r"heatmap must be a stack of frames \(n, h, w\), got shape \(2, 2\)"):
        regions_from_heatmap(np.zeros((2, 2)), thresholds=(0.5,))
    with pytest.raises(MetricError, match="score must be 'mean' or 'max', got 'median'"):
        regions_from_heatmap(np.zeros((1, 2, 2)), thresholds=(0.5,), score="median")


def test_instance_masks_give_one_box_an_id_and_frame():
    rng = np.random.default_rng(0)
    masks = rng.choice((0, 0, 0, 0, 2, 7, 300), (5, 6, 7)).astype(np.uint16)
    masks[2] = 0
    rows = []
    for frame, mask in enumerate(masks):
        for track in np.unique(mask[mask > 0]):
            y, x = np.nonzero(mask == track)
            rows.append((track, frame, x.min(), y.min(), x.max(), y.max()))
    found = tracks_from_masks(masks)
    assert np.column_stack((found.track, found.frame, found.box)).tolist() == np.array(rows, dtype=float).tolist()
    least = tracks_from_masks(masks, min_area=6)
    assert len(least) == sum((masks[frame] == track).sum() >= 6 for track, frame, *_ in rows) < len(rows)
    assert len(tracks_from_masks(np.zeros((2, 3, 3), dtype=np.uint8))) == 0


def test_binary_masks_are_linked_by_overlap():
    masks = np.zeros((5, 20, 40), dtype=np.uint8)
    for frame in range(5):
        masks[frame, 2:8, 3 + 3 * frame : 11 + 3 * frame] = 1  # moves by less than its width
        if frame != 2:
            masks[frame, 12:16, 30:35] = 255  # gone for one frame: two tracks
    found = tracks_from_masks(masks, kind="binary")
    assert found.track.tolist() == [0, 1, 0, 1, 0, 0, 2, 0, 2]
    assert found.frame.tolist() == [0, 0, 1, 1, 2, 3, 3, 4, 4]
    assert found.box[2].tolist() == [6, 2, 13, 7]
    # where two become one, the larger share goes on
    merge = np.zeros((2, 4, 10), dtype=bool)
    merge[0, 1:3, 0:6] = merge[0, 1:3, 7:10] = merge[1, 1:3] = True
    assert tracks_from_masks(merge, kind="binary").track.tolist() == [0, 1, 0]


def test_bad_masks_are_named():
    with pytest.raises(MetricError, match="negative id -1"):
        tracks_from_masks(np.full((1, 2, 2), -1))
    with pytest.raises(MetricError, match="whole numbers or booleans, got float64"):
        tracks_from_masks(np.zeros((1, 2, 2)))
    with pytest.raises(MetricError, match="kind must be 'instance' or 'binary', got 'both'"):
        tracks_from_masks(np.zeros((1, 2, 2), dtype=int), kind="both")
