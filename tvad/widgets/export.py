"""What can be taken away from the demo: an annotated MP4, the scores as CSV, regions and answers as JSON."""
from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

from tvad.errors import StorageError
from tvad.record import atomic_path, atomic_write
from tvad.widgets.analysis import ANOMALY, Analysis, at_frame, at_frames
from tvad.widgets.picture import TRAIL, View, paint

KINDS: Mapping[str, str] = {"mp4": "video/mp4", "csv": "text/csv", "json": "application/json"}


def write_scores(path: Path | str, analysis: Analysis) -> Path:
    """One line a frame: number, seconds, the anomaly score smoothed and raw, then each query's; empty where not scored."""
    queries = [name for name in analysis.layers if name != ANOMALY]
    columns = [analysis.scores(), analysis.scores(smoothed=False), *(analysis.scores(name) for name in queries)]
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["frame", "seconds", "anomaly", "anomaly_raw", *queries])
    for number, values in enumerate(zip(*columns)):
        table.writerow([number, f"{analysis.frames.times[number]:.3f}",
                        *("" if np.isnan(value) else f"{value:.6f}" for value in values)])
    atomic_write(path, text.getvalue().encode())
    return Path(path)


def write_findings(path: Path | str, analysis: Analysis, *, threshold: float, talks: Sequence[Mapping[str, Any]] = (),
                   models: Mapping[str, str] | None = None) -> Path:
    """Regions of every layer at ``threshold`` (boxes in pixels x1 y1 x2 y2, inclusive), answers, and what made them."""
    layers = []
    for name, layer in analysis.layers.items():
        found = analysis.regions(threshold, name)
        layers.append({
            "query": name or None, "meaning": [str(meaning) for meaning in layer.meanings],
            "regions": [{"frame": int(frame), "box": [round(float(side), 1) for side in box],
                         "score": round(float(score), 4), "track": int(track) if track >= 0 else None}
                        for frame, box, score, track in zip(found.frame, found.box, found.score, found.track)]})
    height, width = analysis.frames.size
    content = {"video": Path(analysis.name).name, "frames": len(analysis), "fps": analysis.frames.fps, "width": width,
               "height": height, "threshold": threshold, "complete": analysis.complete and not analysis.lost,
               "unreadable": [list(span) for span in sorted(analysis.lost)], "models": dict(models or {}),
               "layers": layers, "conversations": [dict(talk) for talk in talks]}
    atomic_write(path, (json.dumps(content, indent=1) + "\n").encode())
    return Path(path)


def write_video(path: Path | str, analysis: Analysis, *, view: View) -> Path:
    """The video as the page shows it, every frame painted, H.264; frames that cannot be read are left out.

    Raises :class:`StorageError` when the disk refuses or no frame can be read.
    """
    frames, written = analysis.frames, 0
    regions = analysis.regions(view.threshold, view.layer)
    with atomic_path(path) as beside:
        with av.open(str(beside), "w", format="mp4", options={"movflags": "faststart"}) as container:
            stream = container.add_stream("libx264", rate=_rate(frames.fps), options={"preset": "veryfast", "crf": "20"})
            for span in analysis.spans:
                if span in analysis.lost:
                    continue
                first = max(span.start, written)
                for number, frame in zip(range(first, span.stop), frames.read(first, span.stop)):
                    shown = paint(frame, analysis.heat(number, view.layer), view=view, boxes=at_frame(regions, number),
                                  trails=at_frames(regions, number - TRAIL + 1, number))
                    shown = shown[:shown.shape[0] // 2 * 2, :shown.shape[1] // 2 * 2]
                    if not written:
                        stream.height, stream.width, stream.pix_fmt = *shown.shape[:2], "yuv420p"
                    container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(shown), format="rgb24")))
                    written = number + 1
            if not written:
                raise StorageError(f"{path}: not written, no frame of {analysis.name} can be read; choose another video")
            container.mux(stream.encode(None))
    return Path(path)


def _rate(fps: float) -> Fraction:
    return Fraction(fps).limit_denominator(1001)
