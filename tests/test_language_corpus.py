"""From masks to the folder of conversations: counted, whole, the same each time, and readable by others."""
from __future__ import annotations

import json
import time
from dataclasses import replace

import numpy as np
import pytest
from real_data import ped2_root

from tvad.datasets import open_dataset
from tvad.datasets.base import Dataset, Video
from tvad.errors import DatasetError, MissingPhaseError, ParameterError, StorageError
from tvad.figures import talks
from tvad.language import __main__ as command
from tvad.language import corpus, run
from tvad.language.appearance import Drop, OpenAppearance, ScriptAppearance, Sighting
from tvad.language.corpus import (
    Dropped,
    Settings,
    build,
    clip_facts,
    clips_of,
    load_conversations,
    make_split,
    read_manifest,
    speak,
)
from tvad.language.surroundings import Surroundings
from tvad.language.tracks import MaskError
from tvad.params import Phase2
from tvad.record import is_complete
from tvad.video.frames import ArrayFrames

SIZE = (60, 90)


def toy_video(name: str, *, targets: int = 1, n: int = 30, value: int = 1) -> Video:
    """Squares that cross from left to right one below the other, from frame 3 on; ids count from ``value``."""
    masks = np.zeros((n, *SIZE), np.uint8)
    for k in range(3, n):
        for target in range(targets):
            masks[k, 5 + 18 * target:15 + 18 * target, 2 * k:2 * k + 8] = value + target
    frames = np.repeat(np.random.default_rng(len(name)).integers(60, 200, (n, *SIZE, 1), np.uint8), 3, axis=3)
    return Video(name, "toy", ArrayFrames(frames, 10.0, name), masks=lambda start, stop: masks[start:stop])


class Toy(Dataset):
    """Three binary videos: one target, none, and one hardly seen."""

    name, protocol = "toy", "standard"

    def splits(self):
        return ("train", "test")

    def videos(self, split):
        self._require_split(split)
        whole = toy_video(f"{split}2")
        once = (np.arange(len(whole)) == 4)[:, None, None].astype(np.uint8)
        hardly = Video("hardly", "toy", whole.frames, masks=lambda a, b: whole.masks(a, b) * once[a:b])
        return toy_video(f"{split}0"), toy_video(f"{split}1", targets=0), hardly


@pytest.fixture(scope="module")
def simcampus(tmp_path_factory):
    """A SimCampus of one short video a scene."""
    return open_dataset("simcampus", videos_per_scene=1, frames=30, cache_dir=tmp_path_factory.mktemp("footage"))


@pytest.fixture(scope="module")
def made(simcampus):
    """Conversations about two rendered videos."""
    return make_split(simcampus, "val", ScriptAppearance(), Settings(), limit=2)


def view_of(video, start=0, stop=16):
    return next(view for view in clips_of(video, Settings(stride=1)) if (view.start, view.stop) == (start, stop))


# -- one clip --------------------------------------------------------------------------------------------------------------

def test_masks_become_facts():
    facts = clip_facts(view_of(toy_video("a", targets=2)), OpenAppearance(), split="train", masks="instances")
    assert len(facts.targets) == 2 and [target.timeline.entry for target in facts.targets] == [3, 3]
    assert facts.targets[0].timeline.places[0] == "top-left" and facts.targets[0].timeline.speed != "still"
    later = clip_facts(view_of(toy_video("a"), 10, 26), OpenAppearance(), split="train", masks="binary")
    assert later.targets[0].timeline.entry == 0 and later.id == "toy/a:10-26"


def test_a_clip_without_targets_is_a_normal_one_and_never_a_sentence_about_a_target():
    talks = speak(view_of(toy_video("empty", targets=0)), OpenAppearance(), Settings(), split="train", masks="binary")
    assert {talk.anomalous for talk in talks} == {False}
    assert {answer for talk in talks for _, _, answer in talk.turns()} & {"No.", "None."}


class Around:
    """A truth of the surroundings that always says the same."""

    def __init__(self, **facts):
        self.facts = Surroundings("plaza", "sun", **facts)

    def of(self, start, stop):
        return self.facts


def test_specks_and_events_too_small_for_a_mask_are_no_normal_clips():
    empty = toy_video("empty", targets=0)
    speck = np.zeros((30, *SIZE), np.uint8)
    speck[2:12, 20:23, 30:33] = 1
    video = Video("speck", "toy", empty.frames, masks=lambda start, stop: speck[start:stop])
    options = {"split": "train", "masks": "binary"}
    said = speak(view_of(video), OpenAppearance(), Settings(), **options)
    assert said == Dropped("speck:0-16", "barely seen", "no target is large enough for a track")
    said = speak(view_of(empty), OpenAppearance(), Settings(), truth=Around(events=frozenset({"running"})), **options)
    assert isinstance(said, Dropped) and said.reason == "barely seen"
    talks = speak(view_of(empty), OpenAppearance(), Settings(), truth=Around(doings=("walking",)), **options)
    assert {talk.anomalous for talk in talks} == {False}


def test_masks_that_are_wrong_are_named_by_their_video():
    labels = toy_video("two", targets=2)
    with pytest.raises(MaskError, match=r"toy, two:0-16: binary masks expected, got a label map"):
        clip_facts(view_of(labels), OpenAppearance(), split="train", masks="binary")
    short = Video("short", "toy", labels.frames, masks=lambda start, stop: labels.masks(start, stop)[:7])
    with pytest.raises(MaskError, match=r"toy, short: masks have shape \(7, 60, 90\), expected one .* the 30 frames"):
        next(clips_of(short, Settings()))


def test_a_label_map_where_binary_is_expected_and_masks_of_another_size_are_errors():
    with pytest.raises(MaskError, match="label map"):
        clip_facts(view_of(toy_video("a", targets=2)), OpenAppearance(), split="train", masks="binary")
    video = toy_video("a")
    other = Video("b", "toy", ArrayFrames(np.zeros((30, 40, 40, 3), np.uint8), 10.0, "b"), masks=video.masks)
    with pytest.raises(MaskError, match=r"toy, b:0-16: masks are 60x90 .* the video is 40x40"):
        clip_facts(view_of(other), OpenAppearance(), split="train", masks="binary")
    with pytest.raises(DatasetError, match="has no masks"):
        next(clips_of(Video("c", "toy", video.frames), Settings()))


class Fixed:
    """A source that always says the same."""

    name = "fixed"

    def __init__(self, said):
        self.said = said

    def of(self, view, track):
        return self.said


def test_what_cannot_be_told_truly_is_dropped_with_its_reason():
    from tvad.language.appearance import Look

    view, options = view_of(toy_video("a")), {"split": "train", "masks": "binary"}
    lying = Sighting(Look("falling", top="red", bottom="blue"), ("driving",))
    said = speak(view, Fixed(lying), Settings(), **options)
    assert isinstance(said, Dropped) and said.clip == "a:0-16"
    assert said.reason == "contradiction, appearance to motion" and "falling does not allow driving" in said.detail
    said = speak(view, Fixed(Drop("captioner: no class", "answers ['??']")), Settings(), **options)
    assert (said.reason, said.detail) == ("captioner: no class", "answers ['??']")
    hardly = Toy().videos("train")[2]
    assert speak(view_of(hardly), OpenAppearance(), Settings(), **options).reason == "barely seen"


def test_black_and_white_footage_has_no_colours():
    from tvad.language.appearance import Look

    walker = Fixed(Sighting(Look("running", top="red", bottom="white"), ("running",)))
    for grey, top in ((True, "dark"), (False, "red")):
        facts = clip_facts(view_of(toy_video("a")), walker, split="train", masks="binary", grey=grey)
        assert facts.targets[0].look.top == top


# -- SimCampus -------------------------------------------------------------------------------------------------------------

def test_conversations_agree_with_the_script(simcampus, made):
    videos = {video.id: video for video in simcampus.videos("val")}
    assert len(made.conversations) >= 6 and made.frames == 64
    for talk in made.conversations:
        video = videos[talk.video]
        there = {actor["event"] for actor in video.text["actors"] if actor["event"]
                 and any(start < talk.stop and stop > talk.start for start, stop in actor["anomalous"])}
        assert set(talk.slots["class"].split("; ")) - {"none"} <= there
        assert talk.anomalous == bool(video.masks(talk.start, talk.stop).any())
        for target in talk.targets:
            truth = [actor["appearance"] for actor in video.text["actors"] if actor["event"] == target["class"]]
            assert target["object"] == "none" or any(target["object"] in look["object"] for look in truth)
            assert target["noun"] in {look["noun"] for look in truth}


def test_masks_to_conversations_is_quick_enough(simcampus):
    video = simcampus.videos("val")[0]
    views = list(clips_of(video, Settings()))
    speak(views[0], ScriptAppearance(), Settings(), split="val", masks="instances")
    began = time.process_time()
    for view in views:
        speak(view, ScriptAppearance(), Settings(), split="val", masks="instances")
    assert sum(len(view.masks) for view in views) / (time.process_time() - began) > 500


# -- the folder ------------------------------------------------------------------------------------------------------------

@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    target = tmp_path_factory.mktemp("sets") / "dialogue"
    build(Toy(), ["train", "test"], OpenAppearance(), target)
    return target


def test_the_manifest_counts_what_the_files_hold(folder):
    manifest = read_manifest(folder)
    talks = load_conversations(folder, "train")
    train = manifest["splits"]["train"]
    assert train["conversations"] == len(talks) == 15 and train["clips"] == 5 and train["anomalous_clips"] == 2
    assert train["styles"] == {"report": 5, "sentences": 5, "turns": 5} and train["targets_a_clip"] == {"0": 3, "1": 2}
    assert train["answers"]["anomaly"] >= 10 and train["values"]["motion"] == {"moving": 2}
    assert train["dropped"]["clips"] == 1 and train["dropped"]["reasons"] == {"barely seen": 1}
    assert train["dropped"]["examples"][0]["clip"] == "hardly:0-16"
    assert is_complete(folder) == (True, "complete") and set(manifest["files"]) == {"train.jsonl", "test.jsonl"}


def test_the_same_call_writes_the_same_bytes_and_keeps_a_finished_set(folder, tmp_path):
    again = build(Toy(), ["train", "test"], OpenAppearance(), tmp_path / "again")
    assert again == read_manifest(folder)
    for name in ("train.jsonl", "test.jsonl", "manifest.json", "README.md"):
        assert (tmp_path / "again" / name).read_bytes() == (folder / name).read_bytes()
    written = (folder / "manifest.json").stat().st_mtime_ns
    build(Toy(), ["train", "test"], OpenAppearance(), folder)
    assert (folder / "manifest.json").stat().st_mtime_ns == written
    other = build(Toy(), ["train"], OpenAppearance(), tmp_path / "again", settings=Settings(seed=1))
    assert other["files"]["train.jsonl"] != again["files"]["train.jsonl"]
    assert list(tmp_path.iterdir()) == [tmp_path / "again"]


def test_a_failed_build_leaves_the_old_set(folder, tmp_path, monkeypatch):
    build(Toy(), ["train"], OpenAppearance(), tmp_path / "set")
    before = {path.name: path.read_bytes() for path in (tmp_path / "set").iterdir()}

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(corpus, "data_card", full)
    with pytest.raises(StorageError, match="not written .No space left on device.*untouched"):
        build(Toy(), ["train"], OpenAppearance(), tmp_path / "set", settings=Settings(seed=5))
    assert {path.name: path.read_bytes() for path in (tmp_path / "set").iterdir()} == before
    assert list(tmp_path.iterdir()) == [tmp_path / "set"]


def test_a_folder_of_something_else_is_not_replaced(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(StorageError, match="not a dialogue set, so it is not replaced"):
        build(Toy(), ["train"], OpenAppearance(), tmp_path)
    assert (tmp_path / "thesis.tex").read_text() == "years of work"


def test_an_output_that_is_a_file_is_named_and_kept(tmp_path):
    (tmp_path / "set").write_text("notes")
    with pytest.raises(StorageError, match="set: a file, and the set is a folder; give another --output"):
        build(Toy(), ["train"], OpenAppearance(), tmp_path / "set")
    assert (tmp_path / "set").read_text() == "notes"


@pytest.mark.parametrize("text", ['{"key": {"datas', "[]", "{}", '{"key": [], "splits": {}, "files": {}}', "7"])
def test_a_damaged_manifest_is_named_and_replaced(tmp_path, text):
    target = tmp_path / "set"
    build(Toy(), ["test"], OpenAppearance(), target)
    (target / "manifest.json").write_text(text)
    for call in (lambda: read_manifest(target, dataset="toy"), lambda: load_conversations(target, "test", dataset="toy")):
        with pytest.raises(DatasetError, match=r"manifest\.json: damaged .*--dataset toy --output .*set$"):
            call()
    build(Toy(), ["test"], OpenAppearance(), target)
    assert load_conversations(target, "test")


def test_what_is_missing_or_damaged_is_named(folder, tmp_path):
    with pytest.raises(MissingPhaseError, match="no dialogue set here; run: python -m tvad.language --dataset ucsd_ped2"):
        load_conversations(tmp_path, "train", dataset="ucsd_ped2")
    with pytest.raises(MissingPhaseError, match=r"the set has the splits train, test; run: python -m tvad.language "
                                                r"--dataset toy --splits train test val --output .*dialogue$"):
        load_conversations(folder, "val")
    build(Toy(), ["test"], OpenAppearance(), tmp_path / "set")
    with open(tmp_path / "set" / "test.jsonl", "a") as file:
        file.write('{"id": "half')
    with pytest.raises(DatasetError, match=r"test.jsonl, line 16: no conversation .*--dataset toy --splits test --output"):
        load_conversations(tmp_path / "set", "test")


def test_others_can_read_the_folder(folder):
    """What ``datasets.load_dataset`` relies on: the card's file list, and one schema for all lines."""
    import yaml

    front = yaml.safe_load((folder / "README.md").read_text().split("---")[1])
    assert front["configs"][0]["data_files"] == [{"split": "train", "path": "train.jsonl"},
                                                 {"split": "test", "path": "test.jsonl"}]

    def shape(value):
        if isinstance(value, dict):
            return {name: shape(inner) for name, inner in value.items()}
        return [shape(value[0])] if isinstance(value, list) and value else type(value).__name__

    rows = [json.loads(line) for line in (folder / "train.jsonl").read_text().splitlines()]
    assert len({json.dumps({name: shape(value) for name, value in row.items() if name not in ("messages", "targets")},
                           sort_keys=True) for row in rows}) == 1
    parts = {tuple(sorted(part)) for row in rows for message in row["messages"] for part in message["content"]}
    # A reader that fills absent keys with None must not make a video of a text part: so no part has a key "video".
    assert parts == {("type",), ("text", "type")}


def test_the_command_makes_a_set_and_names_what_it_cannot(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(command, "open_dataset", lambda name, **_: Toy())
    arguments = ["--dataset", "toy", "--splits", "train", "--output", str(tmp_path / "set"), "--seed", "3"]
    assert command.main(arguments) == 0
    told = capsys.readouterr().out
    assert "train: 15 conversations about 5 clips of 3 videos, 2 clips anomalous; dropped 1 clips" in told
    assert read_manifest(tmp_path / "set")["key"]["settings"]["seed"] == 3
    assert command.main([*arguments[:2], "--splits", "val", "--output", str(tmp_path / "other")]) == 2
    assert "DatasetError: toy: unknown split 'val'" in capsys.readouterr().err


@pytest.mark.parametrize(("arguments", "said"), [
    (["--stride", "0"], "stride: 0 would leave"), (["--stride", "17"], "stride: 17 would leave frames between clips"),
    (["--length", "2"], "length: 2 frames are too few"), (["--length", "8", "--stride", "9"], "length of a clip, 8"),
    (["--limit", "-1"], "limit: -1 videos cannot be"), (["--workers", "0"], "workers: 0 processes cannot be"),
])
def test_what_is_out_of_range_is_refused_before_anything_is_opened(arguments, said, capsys, monkeypatch):
    monkeypatch.setattr(command, "open_dataset", lambda *_, **__: pytest.fail("opened"))
    assert command.main(arguments) == 2
    told = capsys.readouterr().err
    assert told.startswith("ParameterError: ") and said in told


def test_a_negative_limit_is_refused_by_build_too(tmp_path):
    with pytest.raises(ParameterError, match="limit: -2 videos cannot be; allowed: 1 or more, or 0 for all"):
        build(Toy(), ["train"], OpenAppearance(), tmp_path / "set", limit=-2)


def test_real_masks_of_ped2_become_conversations():
    dataset = open_dataset("ucsd_ped2", root=ped2_root())
    made = make_split(dataset, "test", OpenAppearance(), Settings(), limit=1)
    video = dataset.videos("test")[0]
    clips = {(talk.start, talk.stop) for talk in made.conversations} | {
        tuple(map(int, drop.clip.rpartition(":")[2].split("-"))) for drop in made.dropped}
    assert clips == {(view.start, view.stop) for view in clips_of(video, Settings())}
    assert {talk.anomalous for talk in made.conversations} == {True, False}
    for talk in made.conversations:
        assert talk.anomalous == bool(video.masks(talk.start, talk.stop).any()) and talk.video == video.id
        assert talk.slots["target"] == talk.slots["colours"] == "none"      # appearance is left open
    # The cyclist comes in at frame 60 of the script; what is told of that clip must say so.
    told = {(talk.slots["trajectory"].partition(",")[0], talk.slots["begins"]) for talk in made.conversations
            if talk.start == 56}
    assert told == {("enters from the left", "0.4")}
    assert all(drop.reason and drop.detail for drop in made.dropped)


# -- the notebook's part ---------------------------------------------------------------------------------------------------

@pytest.fixture
def page(tmp_path, monkeypatch):
    """The notebook's page on the toy set."""
    monkeypatch.setattr(run, "opened", lambda params: Toy())
    monkeypatch.setattr(talks, "opened", lambda params: Toy())
    params = Phase2(dataset="ucsd_ped2", protocol="official", output_dir=str(tmp_path))
    assert run.dialogue_set(params)["splits"].keys() == {"test"}
    return talks.TalkPage(params)


@pytest.mark.parametrize("name", talks.FIGURES)
def test_figures_are_drawn_with_a_caption(page, name):
    picture, caption = page.write(name)
    assert picture == page.target / f"talk_{name}.png" and 3_000 < picture.stat().st_size <= 300_000
    assert caption.startswith("UCSD Ped2 (real)")
    noted = json.loads((page.target / "talks.json").read_text())
    assert noted["figures"][name]["caption"] == caption and noted["provenance"]["config"] == page.params.config_hash()


def test_the_page_shows_a_clip_whose_target_moves_and_the_first_that_was_dropped(page):
    assert "towards" in page.example().slots["trajectory"] and page.example().style == "turns"
    assert "hardly:0-16" in page.write("dropped")[1] and "barely seen" in page.write("dropped")[1]


def test_captions_say_which_clip_is_shown(page):
    talk = page.example()
    assert "the first clip of the split with a target that moves: masks" in talks.clip(page)[1]
    still = replace(talk, slots={**talk.slots, "trajectory": "starts at the left, stays, stays in view"})
    page.talks = [still]
    assert "the first clip of the split with a target; none moves: masks" in talks.clip(page)[1]
    page.talks = [one for one in load_conversations(page.folder, "test") if not one.anomalous]
    assert "the first clip of the split; none has a target. No masks, no tracks" in talks.clip(page)[1]
    for part in page.manifest["splits"].values():
        part["dropped"] = {"clips": 0, "reasons": {}, "examples": []}
    assert talks.dropped(page)[1] == "UCSD Ped2 (real): no clip was dropped (splits: test)."


def test_a_page_without_its_set_names_the_command(tmp_path):
    with pytest.raises(MissingPhaseError, match="no dialogue set here; run: python -m tvad.language --dataset simcampus"):
        talks.TalkPage(Phase2(output_dir=str(tmp_path))).write("counts")


def test_parameters_of_the_dialogue_set():
    assert run.settings_of(Phase2(clip_stride=8, dialogue_seed=4)) == Settings(length=16, stride=8, seed=4)
    assert Phase2(dialogue_videos=0).smoke().dialogue_videos == 2
    assert str(Phase2().smoke().output).endswith("runs/smoke/tiny")
    with pytest.raises(ParameterError, match="clip_stride: 17 would leave frames between clips unseen; allowed: 1 to"):
        Phase2(clip_stride=17)
    assert run.appearance_source("auto", "simcampus").name == "script"
    assert run.appearance_source("auto", "ucsd_ped2").name == "open"
