"""Phase 1 on real footage, seen twice: as the camera films it, and with its view matched (``tvad.training.adapt.view``)."""
from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

from tvad.detection import Scoring
from tvad.errors import DatasetError
from tvad.evaluation import evaluate, score_dataset
from tvad.record import Row, append_rows, read_rows, replace_rows
from tvad.study.report import Table, table_of
from tvad.training.adapt import VIEWING, AdaptConfig, match_view
from tvad.training.adapt.clips import RULES

VIEW, VIEW_ROWS = "matched-view", "view_rows.jsonl"


def match(run: Any, normal: Sequence[Any]) -> Table:
    """Evaluate a phase-1 run's part once more with the view that ``normal``, the camera's ordinary videos, ask for.

    Rows are of variant "matched-view", in ``view_rows.jsonl`` and the run's ``results.jsonl``.  Where there is too little
    ordinary footage nothing is written, and the table says why.
    """
    part, folder, config = run.test_part, run.folder / "view", AdaptConfig(seed=run.params.seed)
    forget(run)
    try:
        viewed = match_view(run.model(Scoring.load(run.folder / "detector.json")), normal, output_dir=folder,
                            cache_dir=run.cache, config=config).detector
    except DatasetError as error:
        return Table(f"The view cannot be matched: {error}")
    found = score_dataset(viewed, part.videos, folder / "detections").check().detections
    cell = run.cell(part, viewed.scoring, variant=VIEW)
    settings = json.dumps([cell.config, asdict(config), sorted(VIEWING.items()), RULES])
    rows = evaluate(found, part.videos, replace(cell, config=hashlib.sha256(settings.encode()).hexdigest()[:12]))
    append_rows(run.folder / VIEW_ROWS, rows)
    replace_rows(run.params.output / "results.jsonl", rows)
    return views_table(read_rows(run.folder / "rows.jsonl"), rows)


def forget(run: Any) -> None:
    """Take away what an earlier decoder of this run gave with its view matched."""
    (run.folder / VIEW_ROWS).unlink(missing_ok=True)
    path = run.params.output / "results.jsonl"
    rows = read_rows(path) if path.is_file() else []
    if any(row.variant == VIEW for row in rows):
        path.unlink()
        append_rows(path, [row for row in rows if row.variant != VIEW])


def views_table(native: Sequence[Row], matched: Sequence[Row]) -> Table:
    """The figures of all videos together as the camera films them and with its view matched, with 95 % intervals."""
    before = {(row.metric, bool(row.sigma)): row for row in native if row.event is None}
    lines = []
    for row in (row for row in matched if row.event is None):
        smoothed = "" if row.sigma is None else ", smoothed" if row.sigma else ", raw"
        lines.append((row.metric + smoothed, _said(before.get((row.metric, bool(row.sigma)))), _said(row)))
    return table_of(("metric", "as filmed", "view matched"), lines)


def _said(row: Row | None) -> str:
    if row is None or row.value is None:
        return "undefined"
    return f"{row.value:.3f}" + ("" if row.ci_low is None else f" ({row.ci_low:.3f} to {row.ci_high:.3f})")
