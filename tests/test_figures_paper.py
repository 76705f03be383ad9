"""The paper's figures from a run of toy footage: whole files of exact width, where from, what is missing, what is shown."""
from __future__ import annotations

import json
import re
from dataclasses import replace

import numpy as np
import paper_toys as toys
import pytest
from PIL import Image
from sklearn.metrics import precision_score, recall_score

from tvad.errors import DatasetError, MissingPhaseError, ParameterError
from tvad.figures import __main__ as command
from tvad.figures import calibration, curves, exchanges, failures, gallery, learning, picks, trajectories
from tvad.figures.stored import Stored
from tvad.figures.style import MOST_BYTES
from tvad.metrics.text import Answer
from tvad.params import Phase4
from tvad.record import file_hash
from tvad.study.speaking import spread_clips
from tvad.training.lessons import clip_of, clips_of

POINTS = {85: 85 / 25.4 * 72, 170: 170 / 25.4 * 72}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("root")
    (folder / "notebooks" / "profiles").mkdir(parents=True)
    (folder / "notebooks" / "profiles" / "tiny.yaml").write_text("profile: tiny\nsteps: 3\n")
    (folder / "notebooks" / "profiles" / "empty.yaml").write_text("profile: empty\n")
    toys.write_run(folder)
    with pytest.MonkeyPatch.context() as patch:
        toys.at_root(patch, folder)
        patch.setattr("tvad.figures.stored.load_conversations", lambda folder, split, *, dataset: toys.talks())
        yield folder


@pytest.fixture(scope="module")
def made(root):
    """All figures of the profile, by name."""
    return {one.name: one for one in gallery.Gallery(Phase4(bootstrap_samples=20)).write_all()}


# What is written.

def test_every_figure_is_whole_and_of_a_column_s_or_a_page_s_width(made, root):
    assert set(made) == set(gallery.FIGURES) == set(gallery.TITLES)
    for name, one in made.items():
        assert not one.reason, (name, one.reason)
        png, pdf, *svg = one.files
        assert [path.suffix for path in svg] == ([".svg"] if name in gallery.DRAWN else [])
        assert png.stat().st_size <= MOST_BYTES and np.asarray(Image.open(png).convert("L")).std() > 5, name
        box = re.search(rb"/MediaBox \[ ?0 0 ([\d.]+) ([\d.]+)", pdf.read_bytes())
        width, height = float(box[1]), float(box[2])
        assert min(abs(width - points) for points in POINTS.values()) < 0.01, (name, width / 72 * 25.4)
        assert height < 240 / 25.4 * 72, f"{name} is higher than a page"
        # TrueType inside (type 42), never outlines of type 3; SVG needs no font of the reader's.
        assert b"/FontFile2" in pdf.read_bytes() and b"/Type3" not in pdf.read_bytes(), name
        assert all("<text" not in path.read_text() and "<path" in path.read_text() for path in svg), name
        assert "simulated" in one.caption or name == "framework", name


def test_a_figure_says_what_it_was_drawn_from(made, root):
    target, run = root / "figures" / "tiny", root / "runs" / "tiny"
    records = {name: json.loads((target / f"{name}.json").read_text()) for name in made}
    for name, record in records.items():
        assert record["files"] == {path.name: file_hash(path) for path in made[name].files}
        assert record["command"] == f"python -m tvad.figures --profile tiny --only {name}" and "commit" in record
        assert str(root) not in json.dumps(record)
    sources = records["dialogue"]["sources"]
    answers = run / "phase2" / "answers-full-test.jsonl"
    assert sources["runs/tiny/phase2/answers-full-test.jsonl"] == {
        "files": 1, "bytes": answers.stat().st_size, "sha256": file_hash(answers)}
    assert sources["runs/tiny/phase1/detections/test"]["files"] == 6
    assert sources["simcampus scene-disjoint/test"] == {"videos": 6, "split_hash": "0" * 64}
    # A figure names its own sources and not those of the one before.
    assert list(records["study"]["sources"]) == ["figures/tiny/study.jsonl"]


def test_the_same_run_gives_the_same_bytes(made, root):
    before = {path: path.read_bytes() for name in ("roc_pr", "failures") for path in made[name].files}
    fresh = gallery.Gallery(Phase4(bootstrap_samples=20))
    for name in ("roc_pr", "failures"):
        fresh.write(name)
    assert {path: path.read_bytes() for path in before} == before


def test_the_learning_curve_shows_each_factor_s_mean_over_seeds(root):
    figure, caption = learning.learning(Stored(Phase4()))
    assert [axes.get_title() for axes in figure.axes] == list(learning.PANELS.values())
    lines = {line.get_label(): line for line in figure.axes[0].lines}
    assert lines["training clips"].get_xydata().tolist() == [[0.25, pytest.approx(0.5)], [1.0, pytest.approx(0.75)]]
    assert lines["steps of all stages"].get_xydata().tolist() == [[1.0, pytest.approx(0.75)]]
    assert "yes/no, balanced of 9 clips, BLEU-4, target of 5 clips" in caption and "mean of seeds 0, 1" in caption


def test_the_list_links_all_figures(made, root):
    text = (root / "figures" / "tiny" / "paper.md").read_text()
    for name, title in gallery.TITLES.items():
        assert f"| {title} | [{name}.pdf]({name}.pdf) | " in text


def test_the_reliability_diagram_shows_the_share_of_yes_in_each_bin(root, monkeypatch):
    said = [Answer("v", "anomaly", "Yes.", (truth,), None, chance) for truth, chance in
            (("Yes.", 0.97), ("Yes.", 0.93), ("No.", 0.9), ("No.", 0.12))]
    monkeypatch.setattr(Stored, "answers", lambda self: said)
    figure, caption = calibration.reliability(Stored(Phase4()))
    bars = {round(bar.get_x() + bar.get_width() / 2, 2): bar.get_height() for bar in figure.axes[0].patches}
    assert bars == {0.95: pytest.approx(2 / 3), 0.15: 0.0}
    assert [bar.get_height() for bar in figure.axes[1].patches] == [0, 1, 0, 0, 0, 0, 0, 0, 0, 3]
    assert "4 answers of variant full" in caption and "calibration error 0.230" in caption
    monkeypatch.setattr(Stored, "answers", lambda self: [replace(one, probability=None) for one in said])
    with pytest.raises(MissingPhaseError, match="answers-full-test.jsonl: no answer states a probability of yes"):
        calibration.reliability(Stored(Phase4()))


# What is missing.

def test_nothing_is_invented_where_a_run_left_nothing(root):
    page = gallery.Gallery(Phase4(profile="empty"))
    for name in ("trajectories", "curves", "roc_pr", "failures"):
        assert page.write(name).reason == ("runs/empty/phase1/detections/test: no stored detections; "
                                           "run: make reproduce PROFILE=empty"), name
    for name in ("dialogue", "reliability"):
        assert page.write(name).reason == ("runs/empty/phase2/answers-full-test.jsonl: no answers of phase 2, and none are "
                                           "invented; run: make reproduce PROFILE=empty"), name
    assert page.write("study").reason == "figures/empty/study.jsonl: no study rows are kept; run: make study PROFILE=empty"
    assert page.write("learning").reason == ("figures/empty/curve.jsonl: no curve rows are kept; "
                                             "run: python -m tvad.study run --phase curve --seeds 0 --profile empty")
    real = gallery.Gallery(Phase4(profile="empty", dataset="ucsd_ped2")).write("learning")
    assert real.reason == "phase 2 is trained on simcampus; not run for ucsd_ped2"
    assert not (root / "figures" / "empty").exists()
    page.show_list()
    text = (root / "figures" / "empty" / "paper.md").read_text()
    assert "| Multi-turn examples | not made | runs/empty/phase2/answers-full-test.jsonl: no answers" in text


def test_a_detection_that_is_missing_or_damaged_is_named(root, tmp_path):
    toys.write_run(tmp_path, "other")
    folder = tmp_path / "runs" / "other" / "phase1" / "detections" / "test"
    sorted(folder.iterdir())[2].write_bytes(b"no zip")
    with pytest.raises(MissingPhaseError, match=r"paper2.*no detection .*6 videos of simcampus/test are wanted"):
        _ = Stored(Phase4(source=str(tmp_path / "runs" / "other"))).detections


def test_videos_of_one_class_of_frames_have_no_curve(root, monkeypatch):
    shown = Stored(Phase4())
    normal = [video for video in toys.videos() if not video.events]
    monkeypatch.setattr(Stored, "videos", normal)
    for draw, words in ((curves.roc_pr, "frames of one class alone"), (curves.curves, "no event among the 1 scored"),
                        (trajectories.trajectories, "no target among the 1 scored videos travels 25%")):
        with pytest.raises(MissingPhaseError, match=words):
            draw(shown)


def test_an_arm_of_the_study_is_a_run_too_and_its_raw_scores_are_smoothed(root, tmp_path):
    toys.write_run(tmp_path)
    arm, phase1 = tmp_path / "arm", tmp_path / "runs" / "tiny" / "phase1"
    arm.mkdir()
    (arm / "detector.json").write_bytes((phase1 / "detector.json").read_bytes())
    (arm / "detections").mkdir()
    (phase1 / "detections" / "test").rename(arm / "detections" / "simcampus")
    found = Stored(Phase4(source=str(arm))).detections
    for video in toys.videos():
        np.testing.assert_array_equal(found[video.id].frame_scores, toys.detection(video).frame_scores)
        assert (toys.detection(video, sigma=0).frame_scores != found[video.id].frame_scores).any()


def test_the_command_line_draws_lists_what_is_missing_and_knows_the_profiles(made, root, capsys):
    assert command.main(["--profile", "tiny", "--only", "study", "talk_counts", "scores"]) == 0
    said = capsys.readouterr()
    assert said.out.endswith("figures/tiny/study.png\n") and len(said.out.splitlines()) == 1
    assert "not made: scores: runs/tiny/phase1/params.json: phase 1 has not been run here" in said.err
    assert "not made: talk_counts: " in said.err
    assert command.main(["--profile", "empty", "--only", "curves", "roc_pr"]) == 1
    assert capsys.readouterr().err.startswith("not made: curves, roc_pr: runs/empty/phase1/detections/test: no stored")
    assert command.main(["--profile", "tinny"]) == 1
    assert "notebooks/profiles/tinny.yaml: no such profile; profiles here: empty, tiny" in capsys.readouterr().err
    with pytest.raises(ParameterError, match="threshold: 2.0 is out of range; allowed: 0.01 to 0.99"):
        Phase4(threshold=2.0)


# Conversations.

def test_answers_find_their_clips_again(root):
    talks = toys.talks()
    given = toys.answers(talks)
    found = exchanges.joined(given, talks)
    assert [one.talk.id for one in found] == [one.id for one in talks] and len(found) == 18
    assert [one for group in found for one in group.answers] == given
    question, first = next(found[0].turns())
    assert question == "What is the anomaly, please?" and first.slot == "anomaly"
    # Fewer clips than the set holds: those that the study's rule chooses.
    chosen = set(spread_clips(clips_of(talks), 6))
    some = [talk for talk in talks if clip_of(talk) in chosen]
    assert [one.talk.id for one in exchanges.joined(toys.answers(some), talks)] == [one.id for one in some]
    other = [replace(one, wanted=("A blue van.",)) if one.slot == "target" else one for one in given]
    with pytest.raises(DatasetError, match="paper0: its answers are not about the dialogue set that lies beside them"):
        exchanges.joined(other, talks)


@pytest.mark.parametrize(("slot", "said", "wanted", "right"), [
    ("anomaly", "Yes, there is.", "Yes.", True), ("anomaly", "No.", "Yes.", False), ("anomaly", "", "No.", False),
    ("from", "It comes from the top left.", "From the top left.", True),
    ("from", "From the top.", "From the top left.", False),
    ("target", "a red car", "A red car.", True), ("target", "A blue car.", "A red car.", False),
    ("trajectory", "Starts at the left, stays.", "Starts at the top, stays.", False),
])
def test_an_answer_is_right_by_its_facts(slot, said, wanted, right):
    assert exchanges.is_right(Answer("v", slot, said, (wanted,))) is right


def test_best_median_and_worst_conversations_are_shown_and_a_normal_one(root):
    talks = toys.talks()
    found = exchanges.picked(exchanges.joined(toys.answers(talks), talks))
    assert [why for why, _ in found] == ["best", "median", "worst", "normal"]
    shares = [one.right for _, one in found]
    assert shares[0] >= shares[1] >= shares[2] and shares[2] < 1 and not found[3][1].talk.anomalous
    alone = [one for one in talks if one.anomalous][:1]
    assert [why for why, _ in exchanges.picked(exchanges.joined(toys.answers(alone), alone))] == ["best"]
    assert exchanges.places_said("From the top left.") == ["top-left"]
    assert exchanges.places_said("First, from the top left; second, from the top.") == ["top-left", "top"]
    assert exchanges.places_said("Nowhere.") == exchanges.places_said("The top, the bottom.") == [""]
    assert exchanges.middle_of("top-right", (60, 90)) == (75, 10) and exchanges.middle_of("middle", (60, 90)) == (45, 30)


# Trajectories.

def test_patches_and_time_are_those_of_a_loop():
    rng = np.random.default_rng(0)
    mask = rng.random((7, 10)) > 0.8
    slow = np.zeros((3, 4), bool)
    for y, x in zip(*np.nonzero(mask)):
        slow[y * 3 // 7, x * 4 // 10] = True
    np.testing.assert_array_equal(trajectories.patches_of(mask, (3, 4)), slow)
    masks = np.zeros((3, 2, 2), bool)
    masks[0, 0], masks[2, 0, 0] = True, True
    picture = trajectories.by_time(masks, np.full((4, 4, 3), 100, np.uint8))
    assert picture[0, 0, 0] > 240 and picture[0, 0, 2] < 60, "the last frame lies above, in viridis' yellow"
    assert (picture[0, 3] == [68, 1, 84]).all() and len(set(picture[3, 3])) == 1


def test_passages_are_ranked_by_how_well_the_accumulated_masks_agree():
    shown = toys.videos()
    sharp = {video.id: toys.detection(video, hit=0.2 * number) for number, video in enumerate(shown)}
    found = trajectories.ranked_passages(shown, sharp, 0.5)
    assert [one.agreement for one in found] == sorted((one.agreement for one in found), reverse=True)
    assert {one.video.id for one in found} == {video.id for video in shown if video.events}
    for one in found:
        start, stop = one.frames[0], one.frames[-1] + 1
        truth = trajectories.patches_of((one.video.masks(start, stop) > 0).any(0), (6, 9))
        hit = (sharp[one.video.id].heatmap[start:stop] > 0.5).any(0)
        assert one.agreement == pytest.approx((truth & hit).sum() / (truth | hit).sum())
    still = toys.toy_video("still", events=((10, 14, "car"),))
    assert trajectories.ranked_passages([still], {"still": toys.detection(still)}, 0.5) == [], "four frames are too few"


# Curves.

def test_roc_and_precision_on_the_grid_are_those_of_thresholds():
    rng = np.random.default_rng(1)
    labels = (rng.random(80) < 0.4).astype(int)
    scores = np.round(labels * 0.4 + rng.random(80), 1)
    roc, precision = curves.roc_on_grid(scores, labels), curves.pr_on_grid(scores, labels)
    thresholds = np.unique(scores)
    corners = [(0.0, 0.0), *(((scores >= cut)[labels == 0].mean(), recall_score(labels, scores >= cut))
                             for cut in thresholds)]
    quality = [(precision_score(labels, scores >= cut), recall_score(labels, scores >= cut)) for cut in thresholds]
    for place, at in enumerate(np.linspace(0, 1, 201)):
        # The strictest threshold that reaches the recall.
        reached = [precise for precise, recall in quality if recall >= at]
        assert precision[place] == pytest.approx(reached[-1] if at else 1.0)
        if min(abs(at - false) for false, _ in corners) > 1e-9:     # on a corner the curve is a vertical piece
            x0, y0 = max(corner for corner in corners if corner[0] < at)
            x1, y1 = min(corner for corner in corners if corner[0] > at)
            assert roc[place] == pytest.approx(y0 + (y1 - y0) * (at - x0) / (x1 - x0))


def test_the_band_resamples_videos_and_holds_the_curve():
    shown = toys.videos()
    scores = [toys.detection(video).frame_scores for video in shown]
    labels = [video.labels for video in shown]
    low, high = curves.band(curves.roc_on_grid, scores, labels, samples=60)
    whole = curves.roc_on_grid(np.concatenate(scores), np.concatenate(labels))
    assert (low <= high).all() and ((low - 0.02 <= whole) & (whole <= high + 0.02)).mean() > 0.9
    again = curves.band(curves.roc_on_grid, scores, labels, samples=60)
    assert (again[0] == low).all() and (again[1] == high).all()
    alone = curves.band(curves.roc_on_grid, scores[:1], labels[:1], samples=5)
    np.testing.assert_array_equal(*alone)       # one video gives one curve, hence no width


# Failures.

def test_misses_are_the_worst_of_each_class_where_the_target_is_plain_and_the_score_lowest():
    shown = toys.videos()
    found = {video.id: toys.detection(video, hit=0.15 * number) for number, video in enumerate(shown)}
    ranked = picks.ranked_events(found, shown)
    missed = picks.worst_missed(found, shown)
    assert missed[0].auc == ranked[-1].auc and len({pick.kind for pick in missed}) == len(missed) == 2
    for pick in missed:
        assert pick.auc == min(one.auc for one in ranked if one.kind == pick.kind)
        events = [event for event in pick.video.events if event.kind == pick.kind]
        inside = np.concatenate([np.arange(event.start, event.stop) for event in events])
        raw = found[pick.video.id].raw_scores
        assert pick.frame in inside and raw[pick.frame] == raw[inside].min(), "the square is as large in every frame"


def test_the_median_of_each_class_stands_for_it():
    shown = tuple(toys.toy_video(f"{kind}{turn}", events=((5, 15, kind),)) for kind in ("car", "falling")
                  for turn in range(3))
    found = {video.id: toys.detection(video, hit=0.3 * (place % 3) + 0.1) for place, video in enumerate(shown)}
    ranked = picks.ranked_events(found, shown)
    chosen = picks.median_of_each_class(found, shown, 4)
    assert len(chosen) == 2 and [pick.auc for pick in chosen] == sorted((pick.auc for pick in chosen), reverse=True)
    for pick in chosen:
        assert pick.auc == sorted(one.auc for one in ranked if one.kind == pick.kind)[1]
    assert len(picks.median_of_each_class(found, shown[:3], 2)) == 2, "one class: its events, best first"


def test_an_actor_under_an_alarm_is_named():
    class Known:
        text = {"actors": [
            {"kind": "pedestrian", "appearance": {"noun": "man", "carries": []},
             "motion": [[0, 1, "walking"], [1, 3, "putting_down"]],
             "box": [[0, 0, 50, 50], [0, 0, 50, 50], None]},
            {"kind": "pedestrian", "appearance": {"noun": "woman", "carries": ["umbrella"]}, "motion": [[0, 3, "walking"]],
             "box": [[10, 10, 14, 14], None, None]}]}

    assert failures.actor_at(Known, 0, (12, 12)) == "woman walking with umbrella"
    assert failures.actor_at(Known, 0, (40, 40)) == "man walking"
    assert failures.actor_at(Known, 1, (12, 12)) == "man putting something down"
    assert failures.actor_at(Known, 0, (60, 40)) == "man walking" and failures.actor_at(Known, 0, (70, 40)) == ""
    assert failures.actor_at(Known, 2, (12, 12)) == "" and failures.actor_at(toys.videos()[0], 0, (1, 1)) == ""
