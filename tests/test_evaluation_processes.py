"""The engine among processes: failures told to all; and the command line that keeps what it measured for the tables."""
from __future__ import annotations

from types import SimpleNamespace

import pytest
from evaluation_toys import MaskDetector, open_good
from training_fakes import toy_split

from tvad.errors import DatasetError, StorageError, TvadError
from tvad.evaluation import __main__ as command
from tvad.evaluation import detectors as registry
from tvad.evaluation.engine import detections_folder, evaluate_detector
from tvad.evaluation.measures import Measure, read_measures
from tvad.evaluation.places import Place
from tvad.evaluation.scoring import score_dataset
from tvad.metrics.text import Answer
from tvad.record import Row, append_rows, read_rows
from tvad.study.answers import write_answers

# Processes

class TwoProcesses:
    """The first of two processes, with what the other told."""

    process_index, num_processes, is_main_process = 0, 2, True


def test_the_first_process_tells_the_others_failures_and_reads_their_detections(tmp_path, monkeypatch):
    videos, detector, told = toy_split("t", 4), open_good(registry.Order()), []
    monkeypatch.setattr("tvad.evaluation.engine.gather_object", lambda own: [*own, *told])
    place, shared = Place.parse("simcampus/test"), {"output": tmp_path, "name": "good", "samples": 20, "progress": False}
    with pytest.raises(DatasetError, match="2 detections that other processes wrote are not here, first of t1; give an "
                                           "output folder that all machines share"):
        evaluate_detector(detector, place, videos, accelerator=TwoProcesses(), **shared)
    score_dataset(detector, videos, detections_folder(tmp_path, "good", 0, place), part=(1, 2), progress=False)
    both = evaluate_detector(detector, place, videos, accelerator=TwoProcesses(), **shared)
    monkeypatch.undo()
    alone = evaluate_detector(detector, place, videos, **{**shared, "output": tmp_path / "alone"})
    assert both.rows == alone.rows and both.measures == alone.measures
    monkeypatch.setattr("tvad.evaluation.engine.gather_object", lambda own: [*own, *told])
    told.append((1, "t3", "t3.mp4: damaged"))
    with pytest.raises(DatasetError, match="1 videos could not be scored, t3: process 1: t3.mp4: damaged"):
        evaluate_detector(detector, place, videos, accelerator=TwoProcesses(), **shared)
    told.append((1, "", "x.npz: not written (No space left on device)"))
    with pytest.raises(StorageError, match="No space left on device"):
        evaluate_detector(detector, place, videos, accelerator=TwoProcesses(), **shared)


@pytest.mark.parametrize(("fault", "told_as"), [
    (StorageError("rows.jsonl: not written (No space left on device)"), StorageError),
    (ValueError("a metric broke"), TvadError),
])
def test_what_stops_the_first_process_is_raised_by_all(fault, told_as, tmp_path, monkeypatch):
    videos, detector, place = toy_split("t", 4), open_good(registry.Order()), Place.parse("simcampus/test")
    shared = {"name": "good", "samples": 20, "progress": False}
    told = []       # what the first process says at each meeting

    def fails(*_):
        raise fault
    score_dataset(detector, videos, detections_folder(tmp_path, "good", 0, place), part=(1, 2), progress=False)
    monkeypatch.setattr("tvad.evaluation.engine.gather_object", lambda own: told.append(own) or own)
    monkeypatch.setattr("tvad.evaluation.engine.replace_rows", fails)
    with pytest.raises(type(fault)) as caught:
        evaluate_detector(detector, place, videos, output=tmp_path, accelerator=TwoProcesses(), **shared)
    assert caught.value is fault and told == [[], [], [(type(fault).__name__, str(fault))]]

    second, heard = TwoProcesses(), iter(told)
    second.process_index, second.is_main_process = 1, False
    monkeypatch.setattr("tvad.evaluation.engine.gather_object", lambda own: [*next(heard), *own])
    text = f"process 0: {fault}" if told_as is StorageError else "process 0: ValueError: a metric broke"
    with pytest.raises(told_as) as caught:
        evaluate_detector(detector, place, videos, output=tmp_path, accelerator=second, **shared)
    assert type(caught.value) is told_as and str(caught.value) == text and next(heard, None) is None


def test_detections_that_the_first_process_cannot_see_stop_the_second(tmp_path, monkeypatch):
    videos, detector = toy_split("t", 4), open_good(registry.Order())
    second, meetings = TwoProcesses(), iter([[], [("DatasetError", "x: 2 detections are not here")]])
    second.process_index, second.is_main_process = 1, False
    monkeypatch.setattr("tvad.evaluation.engine.gather_object", lambda own: [*next(meetings), *own])
    with pytest.raises(DatasetError, match="^process 0: x: 2 detections are not here$"):
        evaluate_detector(detector, Place.parse("simcampus/test"), videos, output=tmp_path, name="good", samples=20,
                          progress=False, accelerator=second)


# What is kept

@pytest.fixture
def root(tmp_path, monkeypatch):
    """A project root with one profile, and a place without footage."""
    (tmp_path / "notebooks" / "profiles").mkdir(parents=True)
    (tmp_path / "notebooks" / "profiles" / "tiny.yaml").write_text("profile: tiny\n")
    monkeypatch.setattr(command, "project_root", lambda: tmp_path)
    monkeypatch.setattr(command.Place, "videos", lambda self, **_: ())
    return tmp_path


def measure(name, value, **changes):
    return Measure(**{"system": "t-vad", "variant": "full", "dataset": "custom", "split": "none", "protocol": "none",
                      "name": name, "unit": "count", "value": value, "n": 1, **changes})


def leak_row(protocol, seed, value):
    return Row(system="t-vad", variant="leak", dataset="simcampus", split="held-out-clips", protocol=protocol,
               metric="micro_auc", value=value, ci_low=None, ci_high=None, n=3, seed=seed, config="c", commit=None,
               sigma=0.0)


def test_the_leak_is_kept_in_the_place_of_what_it_measured_before(root, monkeypatch, capsys):
    from tvad.backbones.qwen import QwenBackbone

    monkeypatch.setattr(QwenBackbone, "from_pretrained", lambda *_, **__: SimpleNamespace())
    found = ([leak_row(protocol, 0, 0.9) for protocol in ("random-clips", "scene-disjoint")],
             [measure("leak_held_out_clips", 7.0)])
    monkeypatch.setattr("tvad.evaluation.leak.leak_study", lambda *_, **__: found)
    figures = root / "figures" / "tiny"
    append_rows(figures / "leak.jsonl", [leak_row("random-clips", 0, 0.5), leak_row("random-clips", 1, 0.6)])
    append_rows(figures / "study.jsonl", [leak_row("random-clips", 0, 0.1)])
    before = (figures / "study.jsonl").read_bytes()
    assert command.main(["leak"]) == 0 and len(read_rows(figures / "leak.jsonl")) == 2     # unless it is asked for
    assert not (figures / "measures.jsonl").exists()
    for _ in range(2):
        assert command.main(["leak", "--keep", "tiny"]) == 0
        assert read_rows(figures / "leak.jsonl") == [leak_row("random-clips", 1, 0.6), *found[0]]
        assert read_measures(figures / "measures.jsonl") == found[1]
    assert f"kept in {figures}: 1 measures, 2 rows" in capsys.readouterr().out
    assert (figures / "study.jsonl").read_bytes() == before


def test_costs_and_measures_of_the_study_are_merged_by_what_they_are_of(root, monkeypatch):
    values = iter((1.0, 2.0))
    monkeypatch.setattr(registry, "open_detector", lambda *_: SimpleNamespace())
    monkeypatch.setattr("tvad.evaluation.cost.cost_measures", lambda *_, **__: [measure("speed", next(values))])
    monkeypatch.setattr("tvad.evaluation.arms.arms_measures", lambda *_, **__: ([measure("alarms", 3.0)], []))
    (root / "study").mkdir()
    kept = root / "figures" / "tiny" / "measures.jsonl"
    for arguments, expected in ((["cost"], {"speed": 1.0}),
                                (["study", "--study", str(root / "study"), "--on", "simcampus/test"],
                                 {"speed": 1.0, "alarms": 3.0}),
                                (["cost"], {"speed": 2.0, "alarms": 3.0})):
        assert command.main([*arguments, "--keep", "tiny"]) == 0
        assert {one.name: one.value for one in read_measures(kept)} == expected
        assert {one.name: one.value for one in read_measures(root / "runs" / "evaluation" / "measures.jsonl")} == expected
    assert not (kept.parent / "leak.jsonl").exists()


def test_scored_systems_are_kept_for_the_tables_and_rows_of_ours_are_the_studys(root, monkeypatch, capsys):
    videos, seen = toy_split("t", 4), iter((0.3, 0.6, 0.3))
    monkeypatch.setattr(command.Place, "videos", lambda self, **_: videos)
    monkeypatch.setattr(registry, "open_detector", lambda *_: MaskDetector(next(seen)))
    monkeypatch.setitem(registry.DETECTORS, "good", registry.Entry("anyanomaly", "full", "Toy", "nowhere:nothing"))
    figures, score = root / "figures" / "tiny", ["score", "--device", "cpu", "--samples", "20", "--on", "simcampus/test"]
    for _ in range(2):      # another measurement takes the place of the first
        assert command.main([*score, "--detector", "good", "--keep", "tiny"]) == 0
    rows = read_rows(figures / "evaluation.jsonl")
    assert {row.system for row in rows} == {"anyanomaly"} and {row.config for row in rows} == {"mask-0.6"}
    assert rows == read_rows(root / "runs" / "evaluation" / "rows.jsonl")
    assert command.main([*score, "--detector", "t-vad", "--keep", "tiny"]) == 0
    assert read_rows(figures / "evaluation.jsonl") == rows and "measures, 0 rows" in capsys.readouterr().out
    kept = read_measures(figures / "measures.jsonl")
    assert {one.system for one in kept if one.name == "latency_ap"} == {"anyanomaly", "t-vad"}
    assert kept == read_measures(root / "runs" / "evaluation" / "measures.jsonl")
    for part in (["--max-videos", "2"], ["--incomplete"]):
        assert command.main([*score, "--keep", "tiny", *part]) == 1
        assert "figures of some videos do not stand for a split; leave --max-videos" in capsys.readouterr().err


def test_calibration_and_comparisons_are_kept_where_that_is_asked(root, monkeypatch):
    write_answers(root / "a.jsonl", [Answer("v", "anomaly", "Yes.", ("Yes.",), "car", 0.75)])
    gap = measure("micro_auc", 0.1, unit="difference", against="t-vad/control-static", ci_low=0.0, ci_high=0.2, p=0.04)
    monkeypatch.setattr("tvad.evaluation.compare.differences", lambda *_, **__: [gap])
    monkeypatch.setattr("tvad.evaluation.scoring.load_detections", lambda *_: {})
    kept = root / "figures" / "tiny" / "measures.jsonl"
    assert command.main(["answers", str(root / "a.jsonl")]) == 0 and not kept.exists()
    assert command.main(["answers", str(root / "a.jsonl"), "--keep", "tiny"]) == 0
    assert {one.name: one.value for one in read_measures(kept)} == {"ece": 0.25, "brier": 0.0625}
    assert command.main(["compare", "t-vad", "t-vad-static", "--on", "simcampus/test", "--keep", "tiny"]) == 0
    assert read_measures(kept)[2:] == [gap]


def test_an_unknown_profile_is_said_before_any_work(root, monkeypatch, capsys):
    monkeypatch.setattr(command, "_leak", lambda *_: pytest.fail("it worked"))
    assert command.main(["leak", "--keep", "tyni"]) == 1
    assert capsys.readouterr().err == "ParameterError: --keep 'tyni': no such profile; choose one of tiny\n"
