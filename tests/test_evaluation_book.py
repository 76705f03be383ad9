"""The notebook's book: what is there is shown, what is missing is said with the command that makes it."""
from __future__ import annotations

from dataclasses import replace

import pytest
from evaluation_toys import SCORING, MaskDetector
from training_fakes import toy_split

from tvad.evaluation.book import Book
from tvad.evaluation.engine import figures_of
from tvad.evaluation.measures import read_measures
from tvad.evaluation.places import Place
from tvad.evaluation.rows import Cell
from tvad.evaluation.scoring import score_dataset
from tvad.evaluation.tables import TABLES
from tvad.metrics.text import Answer
from tvad.params import Phase3
from tvad.record import append_rows, write_json
from tvad.study.answers import write_answers


@pytest.fixture
def book(tmp_path, monkeypatch):
    for place in ("tvad.evaluation.book.project_root", "tvad.params.base.project_root"):
        monkeypatch.setattr(place, lambda: tmp_path)
    return Book(Phase3(profile="toy", bootstrap_samples=20))


def test_a_fresh_clone_says_what_is_missing_and_how_to_make_it(book, tmp_path):
    said = book.sources().markdown()
    assert "| rows of studies and other systems | 0 | make study |" in said
    assert "phase 1 has not been run here; run: make reproduce PROFILE=toy" in said
    assert "no answers-full-test.jsonl; phase 2 has not been run here" in said
    real = Book(replace(book.params, dataset="ucsd_ped2", protocol="official"))
    assert "test.jsonl; phase 2 is trained on simcampus; not run for ucsd_ped2" in real.reliability().missing
    for sheet in (book.breakdown("scenes"), book.breakdown("alarms"), book.reliability()):
        assert sheet.lines == () and "run: make reproduce" in sheet.missing
    found = book.finish()
    assert found["tables"] == len(TABLES) and found["rows"] == 0 and not found["folder"].startswith("/")
    assert (tmp_path / "figures" / "toy" / "tables" / "heatmaps.tex").is_file()
    assert (tmp_path / "runs" / "toy" / "phase3" / "provenance.json").is_file()


def test_a_run_is_broken_down_from_its_detections_and_answers(book, monkeypatch):
    videos = toy_split("t", 5)
    monkeypatch.setattr(Place, "videos", lambda *_, **__: videos)
    run = book.params.output
    write_json(run / "phase1" / "params.json", {"max_videos": 4})
    SCORING.save(run / "phase1" / "detector.json")
    scored = score_dataset(MaskDetector(), videos[:4], run / "phase1" / "detections" / "test", progress=False)
    cell = Cell(variant="full", dataset="simcampus", split="test", protocol="scene-disjoint", seed=0, config="c", sigma=1.0,
                samples=20)
    append_rows(run / "results.jsonl", figures_of(scored.detections, videos[:4], cell)[0])
    write_answers(run / "phase2" / "deep" / "answers-full-test.jsonl", [
        Answer(f"t{index}", "anomaly", "Yes.", ("Yes." if index % 2 else "No.",), None, 0.75) for index in range(4)])
    said = book.sources().markdown()
    assert "| detections of this run | 4 |" in said and "| answers of this run | 4 |" in said
    alarms = book.breakdown("alarms")
    assert alarms.name == "alarms_run" and len(alarms.lines) == 1 and not alarms.missing
    diagram = book.reliability()
    assert diagram.lines[7][:2] == ("0.7 to 0.8", "4") and diagram.lines[7][3].value == 0.5 and diagram.lines[0][2] == "–"
    assert "ECE 0.250" in diagram.notes[0]
    (run / "phase2" / "deep" / "answers-full-test.jsonl").rename(run / "phase2" / "deep" / "answers-no-rae-test.jsonl")
    other = Book(replace(book.params, variant="no-rae"))
    assert other.reliability().notes == diagram.notes
    assert {one.variant for one in read_measures(other.folder / "measures.jsonl")} == {"full", "no-rae"}
    assert "no answers-full-test.jsonl" in Book(book.params).reliability().missing
    heat = [line[0] for line in book.table("heatmaps").lines]
    assert heat.count("T-VAD, this run (ours)") == 1
    assert book.results.measures == ()        # a run never stands for the study
