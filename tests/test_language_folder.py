"""The folder of conversations: counted, whole, the same each time, and readable by others."""
from __future__ import annotations

import json

import pytest
from language_toys import Toy

from tvad.errors import DatasetError, MissingPhaseError, ParameterError, StorageError
from tvad.language import __main__ as command
from tvad.language import corpus
from tvad.language.appearance import OpenAppearance
from tvad.language.corpus import Settings, build, load_conversations, read_manifest
from tvad.record import is_complete


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
