"""Real footage seen twice in phase 1: as filmed, and with its view matched; simulated footage has no other view."""
from __future__ import annotations

from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
from composite_footage import toy_footage
from training_fakes import SIZE, fake_model

from tvad.datasets.base import Video
from tvad.detection import Scoring
from tvad.detector import TVAD
from tvad.evaluation import Cell, evaluate
from tvad.metrics import tracks_from_masks
from tvad.params import Phase1
from tvad.record import append_rows, read_rows
from tvad.study import viewing
from tvad.study.phase1 import Phase1Run
from tvad.training.adapt import AdaptConfig


def video(name, seed, *, anomalous, frames=20):
    footage = toy_footage(name, size=SIZE, frames=frames, people=5, seed=seed)[0]
    masks = np.zeros((frames, *SIZE), np.uint8)
    masks[frames // 2 if anomalous else frames:, 20:34, 20:34] = 1
    return Video(id=name, dataset="ucsd_ped2", frames=footage, labels=masks.any((1, 2)).astype(np.uint8),
                 masks=lambda start, stop: masks[start:stop], tracks=tracks_from_masks(masks))


@pytest.fixture
def run(tmp_path, monkeypatch):
    """What ``match`` needs of a phase-1 run that has been evaluated."""
    monkeypatch.setattr(viewing, "AdaptConfig", partial(AdaptConfig, val_composites=8, val_normal=6))
    given = fake_model()

    def cell(part, scoring, *, variant="full"):
        return Cell(variant=variant, dataset=part.dataset, split=part.split, protocol=part.protocol, seed=0, config="c",
                    sigma=scoring.sigma, samples=20, choice="fixed")

    part = SimpleNamespace(dataset="ucsd_ped2", split="test", protocol="official",
                           videos=[video(f"test{n}", 10 + n, anomalous=True) for n in range(2)])
    made = SimpleNamespace(folder=tmp_path / "phase1", cache=tmp_path / "cache", test_part=part, cell=cell,
                           params=SimpleNamespace(output=tmp_path, seed=0),
                           model=lambda scoring: TVAD(given.backbone, given.decoder, prototypes=given.prototypes,
                                                      scoring=scoring))
    Scoring(sigma=2.0, chosen_on="simcampus/val").save(made.folder / "detector.json")
    plain = made.model(Scoring(sigma=2.0))
    append_rows(made.folder / "rows.jsonl", evaluate({one.id: plain.score(one) for one in part.videos}, part.videos,
                                                     cell(part, plain.scoring)))
    return made


def test_rows_of_both_views_stand_beside_each_other(run):
    table = repr(viewing.match(run, [video(f"train{n}", n, anomalous=False) for n in range(4)]))
    rows = read_rows(run.folder / viewing.VIEW_ROWS)
    assert {row.variant for row in rows} == {"matched-view"} and {row.split for row in rows} == {"test"}
    assert read_rows(run.params.output / "results.jsonl") == rows
    smoothed = next(row for row in rows if row.metric == "micro_auc" and row.sigma and row.event is None)
    before = next(row for row in read_rows(run.folder / "rows.jsonl") if row.metric == "micro_auc" and row.sigma)
    line = next(line for line in table.splitlines() if line.startswith("| micro_auc, smoothed"))
    assert f"| {before.value:.3f} (" in line and f"| {smoothed.value:.3f} (" in line
    assert "| metric | as filmed | view matched |" in table and "| pixel_auroc |" in table
    again = viewing.match(run, [video(f"train{n}", n, anomalous=False) for n in range(4)])
    assert repr(again) == table and read_rows(run.folder / viewing.VIEW_ROWS) == rows


def test_too_little_ordinary_footage_is_said_and_leaves_no_rows_of_an_earlier_run(run):
    rows = read_rows(run.folder / "rows.jsonl")
    append_rows(run.folder / viewing.VIEW_ROWS, [replace(row, variant=viewing.VIEW) for row in rows])
    append_rows(run.params.output / "results.jsonl", [*rows, *(replace(row, variant=viewing.VIEW) for row in rows)])
    said = repr(viewing.match(run, [video("train0", 0, anomalous=False, frames=2)]))
    assert said.startswith("The view cannot be matched: adapt: ") and "give at least one of 16 frames" in said
    assert not (run.folder / viewing.VIEW_ROWS).exists() and read_rows(run.params.output / "results.jsonl") == rows


def test_simulated_scenes_have_no_other_view():
    run = SimpleNamespace(test_part=SimpleNamespace(dataset="simcampus"), params=Phase1())
    assert repr(Phase1Run.match(run)) == ("simcampus is what the decoder learnt from; there is no other view to match.")
