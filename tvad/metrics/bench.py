"""``python -m tvad.metrics.bench``: time the metrics on made-up data of the sizes that matter; ends with one JSON line.

Regime: one warm-up, then the best and the median of the repeats; data already in memory; both classes mixed at 2 %
positives.
"""

from __future__ import annotations

import json
import platform
import statistics
import time
from typing import Callable

import numpy as np
import scipy

from tvad.metrics import (
    GroundTruthTracks,
    Regions,
    aupro,
    bootstrap,
    bootstrap_regions,
    micro_auc,
    pixel_auroc,
    rbdc_tbdc,
    regions_from_heatmap,
)
from tvad.metrics.pixel import _threads


def region_case(detections: int = 100_000, videos: int = 100, frames: int = 400) -> tuple[dict, dict, dict]:
    """Detections, tracks and frame numbers: two targets in each frame of half of the videos."""
    rng = np.random.default_rng(0)
    found, truth = {}, {}
    for index in range(videos):
        name, count = f"v{index:03d}", detections // videos
        corner = rng.uniform(0, 300, (2, 1, 2)) + np.arange(frames)[None, :, None] * 0.2
        boxes = np.concatenate((corner, corner + 30), axis=2)
        if index % 2:
            truth[name] = GroundTruthTracks(
                track=np.repeat((0, 1), frames), frame=np.tile(np.arange(frames), 2), box=boxes.reshape(-1, 4)
            )
        frame = rng.integers(0, frames, count)
        near = boxes[rng.integers(0, 2, count), frame] + rng.normal(0, 8, (count, 1)) + rng.choice((0, 200), (count, 1))
        found[name] = Regions(frame=frame, box=near, score=rng.random(count))
    return found, truth, {name: frames for name in found}


def pixel_case(videos: int = 50, frames: int = 40, height: int = 100, width: int = 100) -> tuple[list, list]:
    """float32 heatmaps and masks with a square target in half of the frames (2 % of the pixels)."""
    rng = np.random.default_rng(0)
    heatmaps, masks = [], []
    for _ in range(videos):
        mask = np.zeros((frames, height, width), dtype=np.uint8)
        mask[::2, height // 3 : height // 3 + height // 5, width // 4 : width // 4 + width // 5] = 1
        heatmaps.append(rng.random(mask.shape, dtype=np.float32) * 0.8 + 0.2 * mask.astype(np.float32))
        masks.append(mask)
    return heatmaps, masks


def blob_case(frames: int = 2000) -> np.ndarray:
    """A heatmap of smooth blobs, 24x36 cells."""
    noise = np.random.default_rng(0).random((frames, 24, 36), dtype=np.float32)
    smooth = scipy.ndimage.gaussian_filter(noise, (0, 1.5, 1.5))
    return (smooth - smooth.min()) / (smooth.max() - smooth.min())


def timed(function: Callable[[], object], *, repeats: int = 5) -> dict[str, float]:
    """Best and median seconds after one warm-up."""
    function()
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        function()
        seconds.append(time.perf_counter() - start)
    return {"best": round(min(seconds), 4), "median": round(statistics.median(seconds), 4)}


def main() -> None:
    """Run all cases and print the JSON line."""
    found, truth, frames = region_case()
    heatmaps, masks = pixel_case()
    blobs = blob_case()
    rng = np.random.default_rng(1)
    scores = [rng.random(150) for _ in range(50)]
    labels = [rng.random(150) < 0.3 for _ in range(50)]
    results = {
        "rbdc_tbdc_100k_detections": timed(lambda: rbdc_tbdc(found, truth, num_frames=frames)),
        "pixel_auroc_20M_pixels": timed(lambda: pixel_auroc(heatmaps, masks)),
        "aupro_20M_pixels": timed(lambda: aupro(heatmaps, masks)),
        "regions_2000_frames_4_thresholds": timed(lambda: regions_from_heatmap(blobs, thresholds=(0.5, 0.6, 0.7, 0.8))),
        "bootstrap_micro_auc_50x150": timed(lambda: bootstrap(micro_auc, (scores, labels))),
        "bootstrap_pixel_auroc_20M": timed(lambda: bootstrap(pixel_auroc, (heatmaps, masks)), repeats=2),
        "bootstrap_aupro_20M": timed(lambda: bootstrap(aupro, (heatmaps, masks)), repeats=2),
        "bootstrap_regions_100k": timed(lambda: bootstrap_regions(found, truth, num_frames=frames), repeats=2),
    }
    regime = {
        "warm_up": 1,
        "repeats": "5 (bootstrap of pixels and regions 2)",
        "threads": _threads(),
        "samples": 1000,
        "unit": "s",
        "machine": platform.machine(),
        "python": platform.python_version(),
        "numpy": np.__version__,
    }
    print(json.dumps({"bench": "tvad.metrics", "seconds": results, "regime": regime}))


if __name__ == "__main__":
    main()
