"""Pixel metrics against twins written straight from the definitions, and against published programs' values."""

import json

import numpy as np
import pytest
from real_data import PUBLISHED, needs_published
from scipy import ndimage
from sklearn.metrics import roc_auc_score

from tvad.metrics import MetricError, aupro, pixel, pixel_auroc
from tvad.metrics.common import area_under


def slow_aupro(heatmaps, masks, limit):
    """Threshold by threshold: false positive rate and mean share of the regions, trapezoids up to the limit."""
    heat, regions = [], []
    for stack, truth in zip(heatmaps, masks):
        for frame, mask in zip(stack, truth):
            labels, count = ndimage.label(mask != 0, structure=np.ones((3, 3)))
            regions += [frame[labels == index + 1] for index in range(count)]
            heat.append(frame[mask == 0])
    normal = np.concatenate(heat)
    curve = [(0.0, 0.0)]
    for threshold in sorted(set(normal.tolist()) | set(np.concatenate(regions).tolist()), reverse=True):
        curve.append(((normal >= threshold).mean(), np.mean([(region >= threshold).mean() for region in regions])))
    area = 0.0
    for (x0, y0), (x1, y1) in zip(curve, curve[1:]):
        if x0 < limit and x1 > x0:
            end = min(x1, limit)
            area += (end - x0) * (y0 + y0 + (y1 - y0) * (end - x0) / (x1 - x0)) / 2
    return area / limit


def make(seed=0, decimals=2, dtype=np.float32, sizes=((4, 12, 9), (3, 8, 10), (2, 6, 6))):
    rng = np.random.default_rng(seed)
    heatmaps, masks = [], []
    for index, size in enumerate(sizes):
        mask = ndimage.gaussian_filter(rng.random(size), (0, 1, 1)) > 0.58
        if index == len(sizes) - 1:
            mask[:] = False  # a video without any anomalous pixel
        heatmaps.append(np.round(rng.random(size) * 0.8 + 0.3 * mask * rng.random(size), decimals).astype(dtype))
        masks.append(mask.astype(np.uint8) * 3)
    return heatmaps, masks


@pytest.mark.parametrize("decimals", [1, 2, 7])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_pixel_auroc_is_exact_with_ties(decimals, dtype):
    heatmaps, masks = make(1, decimals, dtype)
    truth, score = (np.concatenate([part.ravel() for part in parts]) for parts in (masks, heatmaps))
    assert pixel_auroc(heatmaps, masks) == pytest.approx(roc_auc_score(truth > 0, score.astype(np.float64)), abs=1e-12)


@pytest.mark.parametrize("decimals", [1, 2, 7])
@pytest.mark.parametrize("limit", [0.05, 0.3, 1.0])
def test_aupro_is_exact_with_ties(decimals, limit):
    heatmaps, masks = make(2, decimals)
    assert aupro(heatmaps, masks, limit=limit) == pytest.approx(slow_aupro(heatmaps, masks, limit), abs=1e-12)


def test_values_by_hand():
    mask = np.array([[[1, 1, 0, 0, 0, 1]]])
    heat = np.array([[[0.9, 0.3, 0.5, 0.1, 0.1, 0.5]]])
    # pairs: 0.9 beats three, 0.3 beats two, 0.5 beats two and ties with one
    assert pixel_auroc([heat], [mask]) == pytest.approx((3 + 2 + 2.5) / 9)
    # overlap 1/4 at once; the tie at 0.5 takes the rate to 1/3 and the overlap to 3/4
    assert aupro([heat], [mask], limit=1 / 3) == pytest.approx((0.25 + 0.75) / 2)
    assert aupro([heat], [mask], limit=1.0) == pytest.approx(0.5 / 3 + 2 / 3)


def test_coarse_heatmaps_equal_repeated_ones():
    heatmaps, masks = make(4, 2)
    coarse = [heat[:, ::2, ::1][:, : mask.shape[1] // 2] for heat, mask in zip(heatmaps, masks)]
    fine = [np.repeat(heat, 2, axis=1) for heat in coarse]
    assert pixel_auroc(coarse, masks) == pytest.approx(pixel_auroc(fine, masks), abs=1e-13)
    assert aupro(coarse, masks) == pytest.approx(slow_aupro(fine, masks, 0.3), abs=1e-12)


def test_small_blocks_and_functions_instead_of_arrays_change_nothing(monkeypatch):
    heatmaps, masks = make(5, 2)
    wanted = pixel_auroc(heatmaps, masks), aupro(heatmaps, masks)
    monkeypatch.setattr(pixel, "_BLOCK", 100)
    lazy = [[lambda part=part: part for part in parts] for parts in (heatmaps, masks)]
    assert (pixel_auroc(*lazy), aupro(*lazy)) == pytest.approx(wanted, abs=1e-13)
    coarse = [heat[:, ::2] for heat in heatmaps]
    fine = [np.repeat(heat, 2, axis=1) for heat in coarse]
    assert aupro(coarse, masks) == pytest.approx(slow_aupro(fine, masks, 0.3), abs=1e-12)
    for heat, again in zip(heatmaps, make(5, 2)[0]):
        assert (heat == again).all()  # sorting left the inputs alone


def test_perfect_and_constant_maps():
    mask = np.zeros((2, 5, 5), dtype=bool)
    mask[0, 1:3, 1:3] = True
    assert pixel_auroc([mask.astype(np.float32)], [mask]) == aupro([mask.astype(np.float32)], [mask]) == 1.0
    assert pixel_auroc([np.zeros(mask.shape)], [mask]) == 0.5
    assert aupro([np.zeros(mask.shape)], [mask]) == pytest.approx(0.15)  # the diagonal up to 0.3


@needs_published
@pytest.mark.parametrize("name", ["aupro_ped2_clips04_09", "aupro_ped2_ties"])
def test_published_values(name):
    with np.load(PUBLISHED / f"{name}.npz") as data:
        heatmaps, masks = [data["scores"]], [data["masks"]]
    wanted = json.loads((PUBLISHED / "expected.json").read_text())[name]
    assert pixel_auroc(heatmaps, masks) == pytest.approx(wanted["pixel_auroc_sklearn"], abs=1e-12)
    found = pixel._positives(heatmaps, masks, by_region=True, metric="AUPRO")
    rate, overlap = pixel._pro_curve(found, pixel._count_pooled(heatmaps, masks, found))
    rough = rate.astype(np.float32).astype(np.float64)
    for limit in (0.05, 0.3, 1.0):
        # The published program rounds its false positive rates to float32; rounded alike, ours is the same number.
        assert area_under(rough, overlap, limit) / limit == pytest.approx(wanted[f"aupro@{limit}"], abs=1e-12)
        assert aupro(heatmaps, masks, limit=limit) == pytest.approx(wanted[f"aupro@{limit}"], abs=5e-9)


@pytest.mark.parametrize(
    "heat, mask, message",
    [
        (
            np.zeros((2, 4, 4)),
            np.zeros((2, 6, 4)),
            "masks of 6x4 pixels are no whole multiple of the heatmap's 4x4 cells",
        ),
        (np.zeros((2, 4, 4)), np.zeros((3, 4, 4)), r"heatmap \(2, 4, 4\) and mask \(3, 4, 4\)"),
        (np.full((2, 4, 4), np.nan), np.eye(4)[None].repeat(2, 0), "heatmap of frame 0 holds NaN"),
        (np.zeros((2, 4, 4)), np.zeros((2, 4, 4)), "no anomalous pixel among 32"),
        (np.zeros((2, 4, 4)), np.ones((2, 4, 4)), "no normal pixel among 32"),
        (np.zeros((2, 4, 4), dtype=complex), np.ones((2, 4, 4)), "heatmap must hold numbers, got complex128"),
    ],
)
def test_bad_stacks_are_named(heat, mask, message):
    for metric in (pixel_auroc, aupro):
        with pytest.raises(MetricError, match=message):
            metric([heat], [mask])


def test_bad_limits_and_counts_are_named():
    heatmaps, masks = make()
    with pytest.raises(MetricError, match=r"limit must lie in \(0, 1\], got 30"):
        aupro(heatmaps, masks, limit=30)
    with pytest.raises(MetricError, match="3 heatmaps but 2 masks"):
        pixel_auroc(heatmaps, masks[:2])
