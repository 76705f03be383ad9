"""Phase 1 from data to figures on toy footage: what is picked and drawn, what is left on disk, what is taken over."""
from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import roc_auc_score
from training_fakes import FakeBackbone, toy_split, toy_video

from tvad.datasets.base import hash_of, open_dataset
from tvad.detection import Scoring, finish
from tvad.errors import DatasetError, MissingPhaseError, TvadError
from tvad.evaluation import Cell, evaluate
from tvad.figures import FIGURES, Page, gallery, picks, stored, style
from tvad.figures import __main__ as command
from tvad.figures import page as page_module
from tvad.figures.panels import labelled_spans, overlay
from tvad.figures.style import few_colours
from tvad.params import Phase1
from tvad.record import append_rows, is_complete, read_rows
from tvad.study import phase1
from tvad.study.examples import first_of_each_kind, largest_target, principal_colours
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


# What is picked

def detection(video, strength, seed=0):
    rng = np.random.default_rng(seed)
    raw = (0.2 * rng.random(len(video)) + strength * video.labels).astype(np.float32)
    heat = np.zeros((len(video), 6, 9), np.float32)
    return finish(video.id, raw, heat, size=(60, 90), scoring=Scoring())


@pytest.fixture(scope="module")
def scored():
    videos = toy_split("p", 8)
    return videos, {video.id: detection(video, 0.02 * place, place) for place, video in enumerate(videos)}


def test_the_auc_of_a_pick_is_that_of_the_library():
    rng = np.random.default_rng(0)
    positive, normal = np.round(rng.random(30) + 0.2, 1), np.round(rng.random(50), 1)
    slow = roc_auc_score([1] * 30 + [0] * 50, np.r_[positive, normal])
    assert picks.auc_against(positive, normal) == pytest.approx(slow)


def test_best_median_and_worst_follow_the_ranking(scored):
    videos, detections = scored
    ranked = picks.ranked_events(detections, videos)
    assert len(ranked) == 8 and [pick.auc for pick in ranked] == sorted((p.auc for p in ranked), reverse=True)
    cell = Cell(variant="full", dataset="simcampus", split="test", protocol="scene-disjoint", seed=0, config="c", sigma=0.0,
                samples=10)
    kinds = {row.event: row.value for row in evaluate({v.id: detections[v.id] for v in videos}, videos, cell)
             if row.event}
    for kind, value in kinds.items():   # the classes' AUC is the mean over their frames, hence between its extremes
        own = [pick.auc for pick in ranked if pick.kind == kind]
        assert min(own) <= value <= max(own)
    chosen = picks.best_median_worst(detections, videos)
    assert [(pick.why, pick.video.id, pick.auc) for pick in chosen] == [
        (why, ranked[place].video.id, ranked[place].auc) for why, place in (("best", 0), ("median", 4), ("worst", 7))]
    for pick in chosen:
        assert all(pick.video.labels[frame] for frame in (pick.frame, *picks.frames_along(pick)))


def test_false_alarms_are_normal_frames_highest_first(scored):
    videos, detections = scored
    found = picks.false_alarms(detections, videos, 3)
    assert len({pick.video.id for pick in found}) == 3
    for pick in found:
        raw = detections[pick.video.id].raw_scores
        assert pick.video.labels[pick.frame] == 0 and pick.auc == raw[pick.frame] == raw[pick.video.labels == 0].max()
    assert [pick.auc for pick in found] == sorted((pick.auc for pick in found), reverse=True)


def test_the_overview_takes_median_videos_of_spaced_classes_or_spaced_events():
    kinds = ("car", "bicycle", "running", "falling", "jumping")
    videos = tuple(toy_video(f"{kind}{turn}", events=((5, 15, kind),)) for kind in kinds for turn in range(3))
    detections = {video.id: detection(video, 0.03 * (place // 3) + 0.005 * (place % 3), place)
                  for place, video in enumerate(videos)}
    four = picks.across_classes(detections, videos)
    assert [pick.kind for pick in four][::3] == ["jumping", "car"] and len({pick.kind for pick in four}) == 4
    few = [video for video in videos if video.id.startswith("car")]
    assert len(picks.across_classes({v.id: detections[v.id] for v in few}, few)) == 3


def test_examples_are_the_first_of_each_class_at_their_largest_target():
    videos = toy_split("e", 4)
    assert [video.id for video in first_of_each_kind(videos, 2)] == ["e0", "e1"]
    assert len(first_of_each_kind(videos, 3)) == 3
    with pytest.raises(DatasetError, match="no video of the evaluated split holds an event"):
        first_of_each_kind(videos[3:], 2)
    video = videos[2]
    areas = (video.masks(0, 40) > 0).sum(axis=(1, 2))
    assert areas[largest_target(video)] == areas.max()
    assert largest_target(video, "bicycle") in range(25, 33)


# How it looks

def test_heat_changes_its_own_patch_alone():
    frame = np.full((60, 90, 3), 90, np.uint8)
    heat = np.zeros((6, 9), np.float32)
    assert (overlay(frame, heat) == frame).all() and overlay(frame) is frame
    heat[2, 3] = 0.9
    changed = (overlay(frame, heat) != frame).any(-1)
    assert changed[20:30, 30:40].all() and changed.sum() == 100
    assert overlay(frame, heat)[25, 35, 0] > 180


def test_principal_colours_tell_regions_apart_whatever_the_basis():
    rng = np.random.default_rng(0)
    features = rng.normal(size=(6, 8, 5)) * 0.01
    features[:, 4:] += [3, 0, 0, 0, 0]
    first = principal_colours(features)[..., 0].astype(int)
    assert first.shape == (6, 8) and (first[:, 4:] > 200).all() and (first[:, :4] < 55).all()
    turned = features @ np.linalg.qr(rng.normal(size=(5, 5)))[0]
    again = principal_colours(turned)[..., 0].astype(int)
    assert min(np.abs(again - first).max(), np.abs(255 - again - first).max()) <= 2


def test_labelled_spans_are_the_runs_of_ones():
    assert labelled_spans(np.array([1, 1, 0, 0, 1, 0, 1], np.uint8)) == [(0, 2), (4, 5), (6, 7)]
    assert labelled_spans(np.zeros(3, np.uint8)) == []


def test_a_large_picture_is_made_small_and_keeps_its_rare_colours(tmp_path, monkeypatch):
    monkeypatch.setattr(style, "MOST_BYTES", 60_000)
    noise = np.random.default_rng(0).integers(80, 120, (200, 300, 3), dtype=np.uint8)
    noise[90:110, 140:160] = (0, 229, 255)
    assert len(np.unique(few_colours(noise).reshape(-1, 3), axis=0)) <= 128
    with style.settings():
        figure = style.canvas(3.0, 2.0)
        axes = figure.subplots()
        axes.imshow(noise)
        png, pdf = style.save(figure, tmp_path / "noise")
    assert png.stat().st_size <= 60_000 and pdf.is_file()
    picture = np.asarray(Image.open(png).convert("RGB")).astype(int)
    assert (np.abs(picture - (0, 229, 255)).sum(-1) < 60).any()
