"""Phase 1 from data to figures on toy footage: what is picked and drawn, what is left on disk, what is taken over."""
from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from training_fakes import FakeBackbone, toy_split

from tvad.datasets.base import hash_of, open_dataset
from tvad.detection import Scoring
from tvad.errors import DatasetError, MissingPhaseError, ParameterError, TvadError
from tvad.figures import FIGURES, Page, gallery, stored, style
from tvad.figures import __main__ as command
from tvad.figures import page as page_module
from tvad.params import Phase1
from tvad.record import append_rows, is_complete, read_rows
from tvad.study import phase1
from tvad.study.report import environment, splits_table, steps_table


class ToyCampus:
    """SimCampus' interface over toy footage."""

    def __init__(self, protocol):
        self.protocol = protocol

    def prepare(self, splits, *, workers=1):
        assert set(splits) <= {"train", "val", "test"}

    def videos(self, split):
        return toy_split(split, {"train": 8, "val": 4, "test": 5}[split])

    def split_hash(self, split):
        return hash_of([video.id for video in self.videos(split)])


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A project root of toy data; everything that would open a data set or compute 3,360 prompts is cut short."""
    folder = tmp_path_factory.mktemp("root")
    (folder / "notebooks" / "profiles").mkdir(parents=True)
    for profile in ("tiny", "nothing"):
        (folder / "notebooks" / "profiles" / f"{profile}.yaml").write_text(f"profile: {profile}\n")
    with pytest.MonkeyPatch.context() as patch:
        for module in (phase1, page_module, command, gallery, stored):
            patch.setattr(module, "project_root", lambda: folder)
        patch.setattr("tvad.params.base.project_root", lambda: folder)
        patch.setattr(phase1, "open_dataset", lambda name, *, root=None, protocol=None: ToyCampus(protocol))
        patch.setattr(phase1, "open_backbone", lambda *_, **__: pytest.fail("a model was loaded"))
        patch.setattr("tvad.prompts.PromptEnsemble.normal", ("nothing happens",))
        patch.setattr("tvad.prompts.PromptEnsemble.abnormal", ("a car drives by",))
        yield folder


def toy_params(**changes):
    return Phase1(**{"steps": 20, "batch_size": 8, "validate_every": 10, "hidden_width": 8, "train_pairs": 64,
                     "val_pairs": 32, "patches_per_pair": 24, "learning_rate": 1e-2, "bootstrap_samples": 20, **changes})


def made(params, backbone):
    run = phase1.Phase1Run(params, backbone=backbone)
    records = run.data()
    run.look()
    run.train()
    run.calibrate()
    rows = run.evaluate()
    run.listen()
    return run, records, rows, run.finish()


@pytest.fixture(scope="module")
def run(root):
    """A whole run of profile tiny, with study rows of the system and one control beside it."""
    found = made(toy_params(), FakeBackbone())
    rows = [replace(row, seed=seed, variant=variant) for seed in (0, 1) for row in found[2]
            for variant in ("full", "control-static")]
    append_rows(root / "figures" / "tiny" / "study.jsonl", rows)
    return found


@pytest.fixture(scope="module")
def drawn(run, root):
    page = Page(toy_params())
    page.write_all()
    return page


def test_a_run_leaves_rows_weights_and_a_record_that_is_complete(run, root):
    _, records, rows, record = run
    assert is_complete(root / "runs" / "tiny" / "phase1") == (True, "complete")
    assert [(part["role"], part["videos"], part["frames"]) for part in records] == [
        ("training", 8, 320), ("validation", 4, 160), ("evaluated", 5, 200)]
    labels = np.concatenate([video.labels for video in toy_split("test", 5)])
    assert records[2]["positive_rate"] == pytest.approx(labels.mean())
    kept = read_rows(root / "runs" / "tiny" / "results.jsonl")
    assert {row.split for row in kept} == {"val", "test"} and [row for row in kept if row.split == "test"] == rows
    assert {row.event for row in rows} == {None, "car", "bicycle"}
    assert set(record["seconds"]) == {"rendering", "training", "validation scoring", "scoring", "evaluation",
                                      "queries"}
    assert record["attention"] == "none" and "peak memory" in repr(steps_table(record))
    assert "SimCampus (simulated)" in repr(splits_table(records))
    assert "fake, fingerprint fake-0, taps [0, 3]" in repr(environment(run[0]))


def test_each_figure_is_small_whole_and_says_data_split_and_number(drawn, root):
    target = root / "figures" / "tiny"
    noted = json.loads((target / "figures.json").read_text())
    assert set(noted["figures"]) == set(FIGURES) and noted["provenance"]["config"] == toy_params().config_hash()
    for name, entry in noted["figures"].items():
        assert "SimCampus" in entry["caption"] and "simulated" in entry["caption"] or name == "taps", name
        assert "test split" in entry["caption"] or name == "training", name
        assert set(entry["files"]) == {f"{name}.png", f"{name}.pdf"}
        assert (target / f"{name}.png").stat().st_size <= style.MOST_BYTES
        assert np.asarray(Image.open(target / f"{name}.png").convert("L")).std() > 5, f"{name} is blank"
        assert (target / f"{name}.pdf").read_bytes().startswith(b"%PDF")


def test_the_table_gives_intervals_and_the_study_with_its_controls(drawn, root, run):
    text = (root / "figures" / "tiny" / "results.md").read_text()
    value = next(row for row in run[2] if row.metric == "pixel_auroc")
    assert f"| pixel AUROC | **{value.value:.3f}** | {value.ci_low:.3f} to {value.ci_high:.3f} |" in text
    assert "| study | no motion |" in text and "seeds 0, 1, taken from the committed rows" in text
    assert "SimCampus (simulated), test split (scene-disjoint), n = 5 videos, 200 frames**, base rate" in text
    assert "UBnormal, split called validation there" in text
    assert "random tower" not in text


def test_without_a_study_the_table_says_that_controls_are_missing(run, root, monkeypatch):
    page = Page(toy_params())
    monkeypatch.setattr(page_module, "project_root", lambda: root / "elsewhere")
    text = page_module.results_table(page)
    assert "controls are missing; they come from: make study PROFILE=tiny" in text


def test_figures_are_redrawn_from_disk_with_the_same_bytes(drawn, root, capsys):
    before = (root / "figures" / "tiny" / "scores.pdf").read_bytes()
    assert command.main(["--profile", "tiny", "--only", "scores"]) == 0
    assert capsys.readouterr().out.endswith("scores.png\n")
    assert (root / "figures" / "tiny" / "scores.pdf").read_bytes() == before


def test_a_run_that_is_missing_or_stopped_early_is_named(root, capsys):
    assert command.main(["--profile", "nothing", "--only", "scores", "gap"]) == 1
    said = capsys.readouterr().err
    assert said.startswith("not made: scores, gap: ") and len(said.splitlines()) == 1
    assert "phase 1 has not been run here; run: make reproduce PROFILE=nothing" in said
    early = Page(toy_params(profile="early"))
    for name, lacking in (("training", "history.json"), ("events", "rows.jsonl"), ("taps", "examples.npz"),
                          ("scores", "the scored videos")):
        with pytest.raises(MissingPhaseError, match=f"early/phase1: {lacking} missing.*make reproduce PROFILE=early"):
            early.write(name)


def test_another_profile_takes_over_the_decoder_of_a_finished_run(run, root):
    backbone = FakeBackbone()
    other = phase1.Phase1Run(toy_params(profile="other", bootstrap_samples=10), backbone=backbone)
    assert [part["positive_rate"] is None for part in other.data()] == [True, True, False]
    assert other.train()["taken_over_from"] == "tiny" and backbone.seen == 0
    own, given = root / "runs" / "other" / "phase1", root / "runs" / "tiny" / "phase1"
    for name in ("ahd.safetensors", "detector.json", "val_rows.jsonl"):
        assert (own / name).read_bytes() == (given / name).read_bytes()
    assert other.calibrate() == Scoring.load(given / "detector.json") and backbone.seen == 0
    for changes, tower in (({"seed": 1}, FakeBackbone()), ({}, FakeBackbone("fake-1"))):
        assert phase1.Phase1Run(toy_params(profile="third", **changes), backbone=tower).donor is None


def taking_over(profile):
    """A run that takes the decoder of profile tiny over, up to where it listens."""
    other = phase1.Phase1Run(toy_params(profile=profile, bootstrap_samples=10), backbone=FakeBackbone())
    other.data()
    other.look()
    other.train()
    return other


def test_query_heatmaps_are_taken_over_where_words_and_settings_are_the_same(run, root, monkeypatch):
    trained = []
    monkeypatch.setattr(phase1, "train_queries", lambda config, *_, output_dir, **__: trained.append(config) or write(
        output_dir))
    given = root / "runs" / "tiny" / "phase1"

    def write(folder):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "queries.safetensors").write_bytes((given / "queries.safetensors").read_bytes())
    other = taking_over("hears")
    assert other.listen() == other.folder / "queries.npz" and not trained
    assert (other.folder / "queries.safetensors").read_bytes() == (given / "queries.safetensors").read_bytes()
    made = json.loads((other.folder / "listening.json").read_text())
    assert made == {"key": other.query_key, "taken_over_from": "tiny", "missing": None}
    for name, value in (("WORDINGS", {"car": ("car",)}), ("NORMAL_WORDINGS", ("grass",)), ("reference_words", lambda: ())):
        with monkeypatch.context() as patch:
            patch.setattr(phase1, name, value)
            stranger = taking_over("hears")
            assert stranger.donor == given and stranger.query_key != made["key"]
            stranger.listen()
    assert trained == [other.query_config] * 3
    assert json.loads((other.folder / "listening.json").read_text())["taken_over_from"] is None


def test_whole_maps_of_phase_1_are_no_setting_of_the_queries_and_wrong_ones_are_said_first(root, monkeypatch):
    whole = phase1.Phase1Run(toy_params(profile="whole", patches_per_pair=0), backbone=FakeBackbone())
    assert (whole.config.patches_per_pair, whole.query_config.patches_per_pair) == (0, 256)
    assert phase1.Phase1Run(toy_params(profile="whole"), backbone=FakeBackbone()).query_config.patches_per_pair == 24

    class Strict(phase1.QueryConfig):
        def __post_init__(self):
            raise ParameterError("query training: mode 'none' must be one of softmax, binary")
    monkeypatch.setattr(phase1, "QueryConfig", Strict)
    with pytest.raises(ParameterError, match="query training: mode 'none' must be one of softmax, binary"):
        phase1.Phase1Run(toy_params(profile="wrong"), backbone=FakeBackbone())
    assert not (root / "runs" / "wrong").exists()


def test_pairs_that_do_not_show_every_event_cost_the_queries_and_nothing_else(run, root, monkeypatch, capsys):
    def few(*_, **__):
        raise DatasetError("query training: no training pair shows 'car'; leave such events out, or take a split that has "
                           "them")
    monkeypatch.setattr(phase1, "train_queries", few)
    monkeypatch.setattr(phase1, "NORMAL_WORDINGS", ("grass",))
    other = taking_over("deaf")
    (other.folder / "queries.safetensors").write_bytes(b"of an earlier run")
    other.calibrate()
    other.evaluate()
    other.listen()
    assert "no query heatmaps: query training: no training pair shows 'car'" in capsys.readouterr().out
    assert not (other.folder / "queries.safetensors").exists()
    assert "no training pair shows 'car'" in json.loads((other.folder / "listening.json").read_text())["missing"]
    other.finish()
    assert is_complete(other.folder) == (True, "complete")
    picture, caption = Page(toy_params(profile="deaf", bootstrap_samples=10)).write("queries")
    assert "test split" in caption and "No query heatmaps: query training: no training pair shows 'car'; leave" in caption
    assert np.asarray(Image.open(picture).convert("L")).std() > 5
    monkeypatch.undo()
    later = taking_over("later")                    # the heat may be of one run, the queries of another
    later.listen()
    assert later.donor == other.folder
    assert json.loads((later.folder / "listening.json").read_text())["taken_over_from"] == "tiny"
    (other.folder / "complete.json").unlink()       # so that other tests see one finished run


def test_an_unfinished_run_gives_its_decoder_to_nobody(run, root):
    folder = root / "runs" / "tiny" / "phase1"
    kept = (folder / "complete.json").read_bytes()
    try:
        (folder / "complete.json").unlink()
        assert phase1.Phase1Run(toy_params(profile="third"), backbone=FakeBackbone()).donor is None
    finally:
        (folder / "complete.json").write_bytes(kept)


def test_rows_of_an_earlier_smoothing_do_not_stay(root):
    for sigma in (2.0, 3.0):
        made(toy_params(profile="sigma", sigma=sigma), FakeBackbone())
    rows = read_rows(root / "runs" / "sigma" / "results.jsonl")
    assert {row.sigma for row in rows} == {None, 0.0, 3.0} and len({row.key for row in rows}) == len(rows)


def test_a_missing_data_set_is_the_named_error_and_touches_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(phase1, "open_dataset", open_dataset)
    params = Phase1(profile="ped2", dataset="ucsd_ped2", protocol="official", data_root=str(tmp_path / "none"),
                    output_dir=str(tmp_path / "run"))
    with pytest.raises(DatasetError, match="ucsd_ped2: not found; wanted .*none/ucsd_ped2"):
        phase1.Phase1Run(params, backbone=FakeBackbone())
    assert not (tmp_path / "run").exists()
    with pytest.raises(TvadError, match="unknown split 'test-open'"):
        phase1.evaluated_part(replace(params, dataset="simcampus", protocol="scene-disjoint", split="test-open"))
