"""Tables of phase 3: golden text in three forms, LaTeX escapes, and nothing in a cell that no row says."""
from __future__ import annotations

import csv
import io

import pytest

from tvad.errors import StorageError
from tvad.evaluation import published
from tvad.evaluation.measures import Measure, put_measures, read_measures
from tvad.evaluation.places import LEAK, Place
from tvad.evaluation.results import Results
from tvad.evaluation.sheet import Figure, Sheet, latex_text
from tvad.evaluation.tables import TABLES
from tvad.record import Row, append_rows

SHEET = Sheet("toy_table", "Toy & co", ("system", "AUC"), (
    ("a|b_c", Figure.over((0.9, 0.8), ends=((0.7, 0.95), (0.5, 0.85)))), ("second", "not run"),
    ("third", Figure(-0.25, digits=2, signed=True))), notes=("50 % of it.",), rules=(1,), intervals=True, missing="run: x")


def row(metric="micro_auc", value=0.9, **changes):
    whole = {"system": "t-vad", "variant": "full", "dataset": "simcampus", "split": "test", "protocol": "scene-disjoint",
             "metric": metric, "value": value, "ci_low": None if value is None else value - 0.1,
             "ci_high": None if value is None else value + 0.05, "n": 8100, "seed": 0, "config": "c", "commit": None}
    if metric.endswith(("auc", "ap")):
        whole["sigma"] = 0.0
    return Row(**{**whole, **changes})


def measure(name="speed", value=30.0, **changes):
    whole = {"system": "t-vad", "variant": "full", "dataset": "simcampus", "split": "test", "protocol": "scene-disjoint",
             "name": name, "unit": "frames/s", "value": value, "n": 54, "seed": 0}
    return Measure(**{**whole, **changes})


def lines_of(sheet):
    return {line[0]: dict(zip(sheet.head, line)) for line in sheet.lines}


def test_markdown_is_golden():
    assert SHEET.markdown() == (
        "**Toy & co**\n\n"
        "| system | AUC |\n| --- | ---: |\n"
        "| a\\|b_c | 0.850 ± 0.071 [0.600, 0.900] |\n| second | not run |\n| third | -0.25 |\n\n"
        "50 % of it.\n\n*run: x*\n")


def test_latex_is_golden():
    assert SHEET.latex() == "\n".join([
        r"\begin{table}[t]", r"\centering", r"\caption{Toy \& co. 50 \% of it. run: x}", r"\label{tab:toy-table}",
        r"\vspace{1ex}", r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%",
        r"\begin{tabular}{lr}", r"\toprule", r"system & AUC \\", r"\midrule",
        r"a$|$b\_c & \shortstack[r]{\rule{0pt}{2.6ex}0.850 $\pm$ 0.071\\{}[0.600, 0.900]} \\",
        r"\midrule", r"second & not run \\",
        r"third & -0.25 \\", r"\bottomrule", r"\end{tabular}}", r"\end{table}", ""])
    wide = Sheet("x", "X", ("system", "false alarms an hour at 80 % recall"), (("T-VAD", Figure(1.0)),)).latex()
    assert r"system & \shortstack[r]{\rule{0pt}{2.6ex}false alarms an\\{}hour at 80 \%\\{}recall} \\" in wide


def test_csv_is_golden_and_whole():
    assert SHEET.csv() == ('system,AUC,"AUC, spread","AUC, low","AUC, high"\n'
                           "a|b_c,0.85,0.07071067812,0.6,0.9\nsecond,not run,,,\nthird,-0.25,,,\n")


def test_every_letter_that_latex_reads_is_escaped():
    assert latex_text(r"50 % & $x_1^2$ #{a}~\b") == (r"50 \% \& \$x\_1\textasciicircum{}2\$ \#\{a\}\textasciitilde{}"
                                                      r"\textbackslash{}b")
    assert latex_text("1 ± 2 – ≥ 3 × <4>") == r"1 $\pm$ 2 -- $\geq$ 3 $\times$ $<$4$>$"
    every = "".join(table(Results()).latex() for table in TABLES.values())
    assert not [letter for letter in every if ord(letter) > 127]


def test_a_sheet_with_a_short_line_is_refused_and_files_are_written(tmp_path):
    with pytest.raises(ValueError, match="table x, line 0: 1 cells under 2 heads"):
        Sheet("x", "X", ("a", "b"), (("1",),))
    paths = SHEET.write(tmp_path / "new")
    assert [path.name for path in paths] == ["toy_table.csv", "toy_table.md", "toy_table.tex"]
    assert paths[1].read_text() == SHEET.markdown()


# From rows

def test_without_rows_no_table_holds_a_number_of_ours():
    for name, table in TABLES.items():
        sheet = table(Results())
        ours = [line for line in sheet.lines if "(paper)" not in line[0]]
        assert not [cell for line in ours for cell in line if isinstance(cell, Figure)], name
        assert sheet.missing.count("make study") or "python -m tvad" in sheet.missing, name


def test_the_papers_figures_stand_beside_ours_with_its_label():
    results = Results((row(value=0.8), row(value=0.9, seed=1), row(value=0.6, sigma=4.0, choice="fixed", seed=1),
                       row(value=1.0, choice="oracle", seed=2, ci_low=None, ci_high=None)))
    lines = [dict(zip(TABLES["heatmaps"](results).head, line)) for line in TABLES["heatmaps"](results).lines]
    best = next(line for line in lines if line["system"] == "T-VAD, AHD fine-tuned (paper)")
    assert best["micro AUC"].text() == "0.948" and best["split"] == "validation (as published)"
    assert best["pixel AUROC"] == "–"
    ours = next(line for line in lines if line["system"] == "T-VAD (ours)")
    # seed 0 has a raw row alone; of seed 1 the smoothed one counts; the oracle's is never taken
    assert ours["micro AUC"].text() == "0.700 ± 0.141" and ours["RBDC"] == "not run"
    assert [ours["data"], ours["split"]] == ["SimCampus, closed set (simulated)", "test (scene-disjoint)"]


def test_published_facts_are_those_of_the_paper():
    assert len(published.HEATMAPS) == 9 and published.HEATMAPS[-1].tbdc == 0.767
    ours = [line for line in published.DIALOGUE if line.method.startswith("T-VAD")]
    assert [(line.dataset, line.yes_no_accuracy) for line in ours] == [
        ("ShanghaiTech", (0.9767, 0.0012)), ("UBnormal", (0.8973, 0.0018))]
    assert len(published.DIALOGUE) == 14 and {line.variant for line in published.ABLATION} == {
        "full", "no-rae", "no-ahd", "no-rae-no-ahd"}


def test_the_ablation_has_a_line_for_every_variant_and_says_what_was_not_run():
    rows = [row("yes_no_accuracy", value, variant=variant, seed=seed) for variant, values in
            (("full", (0.9, 0.8)), ("no-rae", (0.7,))) for seed, value in enumerate(values)]
    sizes = {"tower": 3e6, "language": 8e6, "ahd": 2e5, "rae": 1e5, "lora": 5e4}
    measures = [measure(f"parameters_{part}", value, unit="parameters", dataset="custom", split="none")
                for part, value in sizes.items()]
    lines = lines_of(TABLES["ablation"](Results((*rows, row("rbdc", 0.6)), tuple(measures))))
    assert lines["full (ours)"]["yes/no"].text() == "0.850 ± 0.071"
    assert lines["without RAE (ours)"]["yes/no"].text() == "0.700" and lines["without RAE (ours)"]["RBDC"].value == 0.6
    assert lines["without AHD (ours)"]["yes/no"] == "not run" and lines["without AHD (ours)"]["RBDC"] == "–"
    assert lines["full (ours)"]["parameters (M)"].text() == "11.35"
    assert lines["without both (ours)"]["parameters (M)"].text() == "11.05"
    assert lines["without LoRA (ours)"]["parameters (M)"].text() == "11.30"
    assert lines["full (paper)"]["parameters (M)"].text() == "8,324.67"


def test_detectors_lists_every_system_and_any_other_with_rows():
    other = row(system="anyanomaly", dataset="ucsd_ped2", protocol="official", value=0.7)
    undefined = row("pixel_auroc", None, variant="control-static")
    sheet = TABLES["detectors"](Results((other, undefined, row(value=0.95, config="d"))))
    cells = [dict(zip(sheet.head, line)) for line in sheet.lines]
    assert len(cells) == 3 * 4 + 1 and sheet.rules == (0, 4, 8)
    found = next(cell for cell in cells if cell["system"] == "anyanomaly (full)")
    assert (found["data"], found["micro AUC"].text(interval=True)) == ("UCSD Ped2 (real)", "0.700 [0.600, 0.750]")
    assert next(cell for cell in cells if "without motion" in cell["system"])["pixel AUROC"] == "undefined"
    assert "simulated" in sheet.markdown()


def test_what_was_asked_for_is_told_by_event_and_place():
    rows = [row(name, value, event=event, split=place.split, protocol=place.protocol, sigma=None, ci_low=None, ci_high=None)
            for place, gain in ((Place.parse("simcampus/test"), 0.0), (Place.parse("simcampus/test-open"), -0.2))
            for name in ("query_micro_auc", "query_wrong_ratio") for event, value in (
                (None, 0.8 + gain), ("hand_truck", 0.6 + gain), ("car", 1.0 + gain))]
    sheet = TABLES["queries"](Results(tuple(rows)))
    assert [line[0] for line in sheet.lines] == ["all, mean", "car", "hand truck (kept out)"]
    shown = [dict(zip(sheet.head, line)) for line in sheet.lines]
    assert shown[1]["micro AUC, open-set"].value == 0.8 and shown[0]["wrong queries' heat, scene-disjoint"].value == 0.8
    assert shown[0]["pixel AUROC, open-set"] == "not run" and sheet.missing and sheet.rules == (1,)


def test_paired_p_values_are_corrected_over_the_systems_compared():
    gaps = [measure("micro_auc", 0.1, unit="difference", ci_low=0.05, ci_high=0.15, against=f"t-vad/{name}", p=p, seed=None)
            for name, p in (("control-static", 0.01), ("control-untrained", 0.04))]
    sheet = TABLES["paired"](Results(measures=tuple(gaps)))
    cells = [dict(zip(sheet.head, line)) for line in sheet.lines]
    assert [cell["p"].text() for cell in cells] == ["0.0200", "0.0400"]
    assert cells[0]["second"] == "T-VAD without motion (control)"
    assert cells[0]["difference"].text(interval=True) == "+0.100 [+0.050, +0.150]"


def test_scenes_alarms_calibration_and_cost_come_from_measures():
    measures = (measure("micro_auc", 0.8, unit="fraction", scene="scene10"),
                measure("micro_auc", 0.9, unit="fraction", scene="scene11", seed=0),
                measure("latency_ap", 0.7, unit="fraction"), measure("latency_ap", 0.5, unit="fraction", seed=1),
                measure("false_alarms_at_recall_80", None, unit="alarms/h"),
                measure("ece", 0.04, unit="fraction", ci_low=0.02, ci_high=0.06),
                measure("speed", 31.4, dataset="custom", split="none", note="cpu, 2 threads"),
                measure("parameters_tower", 2.5e6, unit="parameters", dataset="custom", split="none"))
    results = Results((row(value=0.9),), measures)
    assert [line[2:4] for line in TABLES["scenes"](results).lines][0][0] == "scene10"
    alarms = dict(zip(TABLES["alarms"](results).head, TABLES["alarms"](results).lines[0]))
    assert alarms["latency-aware AP"].text() == "0.600 ± 0.141"
    assert alarms["false alarms/h at 80 % recall"] == "undefined" and alarms["delay at 95 % (s)"] == "not run"
    assert TABLES["calibration"](results).lines[0][2].text(interval=True) == "0.040 [0.020, 0.060]"
    cost = TABLES["cost"](results)
    shown = dict(zip(cost.head, cost.lines[0]))
    assert shown["tower (M)"].text() == "2.50" and shown["RAE (M)"] == "–" and shown["micro AUC"].text() == "0.900"
    assert cost.notes == ("Measured on cpu, 2 threads.",)


def test_the_leak_shows_both_protocols_and_the_tested_gap():
    rows = tuple(row(value=value, variant="leak", split=LEAK.split, protocol=protocol, ci_high=min(1, value + 0.05))
                 for protocol, value in (("random-clips", 0.97), ("scene-disjoint", 0.9)))
    gap = measure("micro_auc", 0.07, unit="difference", split=LEAK.split, ci_low=0.04, ci_high=0.1, p=0.002,
                  against="t-vad/scene-disjoint", seed=None)
    sheet = TABLES["leak"](Results(rows, (gap, measure("leak_touched_by_training", 0.98, unit="fraction"))))
    assert [line[0] for line in sheet.lines] == ["random split of clips (the thesis')", "scene-disjoint (ours)",
                                                 "gap: what the leak adds"]
    assert sheet.lines[2][1].text(interval=True) == "+0.070 [+0.040, +0.100]" and sheet.lines[2][4] == "–"
    assert "touched by training: 0.98" in sheet.markdown() and "micro AUC 0.0020" in sheet.markdown()
    assert len(TABLES["paired"](Results((), (gap,))).lines) == 0
    assert len(TABLES["leak"](Results(rows[:1])).lines) == 1


def test_results_are_gathered_from_the_committed_files_and_the_newest_win(tmp_path):
    append_rows(tmp_path / "figures" / "tiny" / "study.jsonl", [row(value=0.8)])
    append_rows(tmp_path / "figures" / "tiny" / "evaluation.jsonl", [row(system="gv-vad", value=0.5)])
    append_rows(tmp_path / "runs" / "evaluation" / "rows.jsonl", [row(value=0.85)])
    append_rows(tmp_path / "runs" / "tiny" / "results.jsonl", [row(value=0.81)])
    put_measures(tmp_path / "figures" / "tiny" / "measures.jsonl", [measure()])
    found = Results.gather(tmp_path, run=tmp_path / "runs" / "tiny", more=[tmp_path / "runs" / "evaluation"])
    assert {(one.system, one.value) for one in found.rows} == {("t-vad", 0.85), ("gv-vad", 0.5)}
    assert [one.value for one in found.run] == [0.81] and len(found.measures) == 1
    place = Place.parse("simcampus/test")
    assert found.systems(place) == [("t-vad", "full"), ("gv-vad", "full")] and found.seeds(place) == [0]


def test_measures_replace_their_forerunners_and_damage_is_named(tmp_path):
    path = tmp_path / "measures.jsonl"
    put_measures(path, [measure(value=1.0), measure(seed=1, value=2.0)])
    put_measures(path, [measure(value=3.0)])
    assert [one.value for one in read_measures(path)] == [3.0, 2.0] and read_measures(tmp_path / "none") == []
    with pytest.raises(ValueError, match="unknown unit 'miles'"):
        measure(unit="miles")
    with pytest.raises(ValueError, match="value is nan; give a finite number or None"):
        measure(value=float("nan"))
    path.write_text(path.read_text() + '{"colour": 1}\n')
    with pytest.raises(StorageError, match=r"measures.jsonl, line 3: not a measure \(unknown field 'colour'\); delete the"):
        read_measures(path)


def test_csv_of_every_table_reads_back():
    results = Results((row(value=0.8), row(value=0.9, seed=1)))
    for table in TABLES.values():
        sheet = table(results)
        lines = list(csv.reader(io.StringIO(sheet.csv())))
        assert len(lines) == 1 + len(sheet.lines) and {len(line) for line in lines} == {len(lines[0])}
