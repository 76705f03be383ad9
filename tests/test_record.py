"""Rows round-trip, files are whole or untouched, and a folder is complete only with hashes that fit."""
from __future__ import annotations

import errno
import json
import os
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tvad import record
from tvad.errors import StorageError
from tvad.record import (
    SPOKEN,
    Row,
    append_rows,
    atomic_path,
    atomic_write,
    complete,
    has_rows,
    is_complete,
    latest_rows,
    origin,
    read_rows,
    reopen,
    replace_rows,
)

ROW = Row(system="t-vad", variant="full", dataset="simcampus", split="test", protocol="scene-disjoint",
          metric="micro_auc", value=0.95, ci_low=0.94, ci_high=0.96, n=4800, seed=0, config="abc", commit=None)
NO_SPACE = OSError(errno.ENOSPC, "No space left on device")


def test_rows_round_trip_and_appending_keeps_what_was_there(tmp_path):
    path = tmp_path / "runs" / "results.jsonl"
    per_event = replace(ROW, event="car", positive_rate=0.1, choice="fixed", value=None, ci_low=None, ci_high=None)
    append_rows(path, [ROW])
    append_rows(path, [per_event])
    assert read_rows(path) == [ROW, per_event]
    first = json.loads(path.read_text().splitlines()[0])
    assert list(first) == ["system", "variant", "dataset", "split", "protocol", "metric", "value", "ci_low", "ci_high",
                           "n", "seed", "config", "commit"]


def test_numpy_numbers_become_plain_ones():
    row = replace(ROW, value=np.float32(0.5), n=np.int64(7))
    assert json.dumps(row.as_dict()) and type(row.value) is float and type(row.n) is int


@pytest.mark.parametrize(("change", "message"), [
    ({"metric": "auc"}, "row metric 'auc' is unknown; allowed: micro_auc, macro_auc"),
    ({"system": "tvad"}, "row system 'tvad' is unknown; allowed: t-vad"),
    ({"choice": "best"}, "row choice 'best' is unknown; allowed: None, fixed, in-sample, oracle"),
    ({"value": 95.0}, "row value of micro_auc is 95.0; allowed: a fraction"),
    ({"value": float("nan")}, "row value of micro_auc is nan"),
    ({"ci_low": None}, "give both ends of the interval or none"),
    ({"ci_low": 0.99}, "interval 0.99 to 0.96 is upside down"),
])
def test_a_row_that_breaks_the_contract_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        replace(ROW, **change)


def test_unreadable_rows_name_file_and_line(tmp_path):
    path = tmp_path / "results.jsonl"
    with pytest.raises(StorageError, match=r"results.jsonl: no result rows here.* run: make reproduce"):
        read_rows(path)
    append_rows(path, [ROW])
    for bad in ('{"system": "t-v', '{"colour": 1}', "{}"):
        path.write_text(path.read_text().splitlines()[0] + "\n" + bad + "\n")
        with pytest.raises(StorageError, match=r"results.jsonl, line 2: not a result row"):
            read_rows(path)


def test_a_repeated_measurement_replaces_the_earlier_one():
    again = replace(ROW, value=0.96, config="def")
    other = replace(ROW, seed=1)
    assert latest_rows([ROW, other, again]) == [again, other]


def test_rows_of_the_same_splits_are_replaced_whatever_their_sigma(tmp_path):
    path = tmp_path / "rows.jsonl"
    replace_rows(path, [replace(ROW, sigma=3.0), replace(ROW, metric="ap")])
    replace_rows(path, [replace(ROW, seed=1)])
    replace_rows(path, [replace(ROW, sigma=5.0)])
    assert read_rows(path) == [replace(ROW, seed=1), replace(ROW, sigma=5.0)]


def test_what_a_file_holds_is_told_by_any_of_its_fields(tmp_path):
    path = tmp_path / "rows.jsonl"
    assert not has_rows(path, "split", ["test"], seed=0)
    append_rows(path, [ROW, replace(ROW, split="val", seed=1), replace(ROW, split="val", metric="bleu4_target")])
    assert has_rows(path, "split", ["test", "val"], seed=0) and has_rows(path, "split", [], seed=9)
    assert not has_rows(path, "split", ["test", "val"], seed=0, config="other")
    assert not has_rows(path, "split", ["test", "val"], metrics=SPOKEN) and has_rows(path, "split", ["val"], metrics=SPOKEN)
    assert has_rows(path, "seed", [0, 1], split="val") and not has_rows(path, "seed", [0, 1], split="test")


def test_rows_of_answers_and_of_heat_do_not_replace_each_other(tmp_path):
    path, said = tmp_path / "rows.jsonl", replace(ROW, metric="bleu4_target")
    for rows in ([ROW], [said], [replace(said, value=0.5, metric="slot_from")], [replace(ROW, value=0.5)]):
        replace_rows(path, rows)
    assert read_rows(path) == [replace(said, value=0.5, metric="slot_from"), replace(ROW, value=0.5)]


def test_a_write_that_fails_leaves_the_old_file_and_no_litter(tmp_path):
    path = tmp_path / "note.txt"
    atomic_write(path, "old")
    with pytest.raises(KeyError), atomic_write(path, text=True) as file:
        file.write("new")
        raise KeyError("an error of the caller passes unchanged")
    with pytest.raises(FileNotFoundError), atomic_write(path) as file:
        (tmp_path / "absent").read_bytes()
    assert path.read_text() == "old" and os.listdir(tmp_path) == ["note.txt"]


@pytest.mark.parametrize("step", ["open", "fsync", "replace"])
def test_a_full_disk_at_any_step_is_named_with_its_remedy(tmp_path, monkeypatch, step):
    path = tmp_path / "results.jsonl"
    append_rows(path, [ROW])
    before = path.read_bytes()

    def refuse(*_arguments, **_options):
        raise NO_SPACE

    with monkeypatch.context() as patch:
        if step == "open":
            patch.setattr("builtins.open", refuse)
        else:
            patch.setattr(os, step, refuse)
        with pytest.raises(StorageError, match=r"results.jsonl: not written \(No space left on device\); what was "
                                               r"there before is untouched; free space there, then run the same"):
            append_rows(path, [ROW])
    assert path.read_bytes() == before and os.listdir(tmp_path) == ["results.jsonl"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full on this system")
def test_a_full_disk_met_by_the_kernel_itself_is_named(tmp_path, monkeypatch):
    path = tmp_path / "big.bin"
    path.write_bytes(b"old")
    real = open
    monkeypatch.setattr("builtins.open", lambda name, *rest, **more: real(
        "/dev/full" if ".tmp" in str(name) else name, *("wb" if part == "xb" else part for part in rest), **more))
    with pytest.raises(StorageError, match=r"big.bin: not written \(No space left on device\)"):
        atomic_write(path, b"x" * 100_000)
    assert path.read_bytes() == b"old"


def test_a_full_disk_inside_a_library_is_named_too(tmp_path):
    path = tmp_path / "ahd.safetensors"
    with pytest.raises(StorageError, match="ahd.safetensors: not written"), atomic_path(path) as beside:
        beside.write_bytes(b"half")
        raise RuntimeError("Error while serializing: I/O error: No space left on device (os error 28)")
    assert os.listdir(tmp_path) == []


def test_a_folder_that_cannot_be_made_is_a_storage_error(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="not written .*check the disk and the path"):
        atomic_write(tmp_path / "file" / "inside.txt", "x")


def test_a_link_is_written_through(tmp_path):
    (tmp_path / "real.txt").write_text("old")
    (tmp_path / "link.txt").symlink_to(tmp_path / "real.txt")
    atomic_write(tmp_path / "link.txt", "new")
    assert (tmp_path / "real.txt").read_text() == "new" and (tmp_path / "link.txt").is_symlink()


def test_a_folder_is_complete_only_while_its_files_fit(tmp_path):
    folder = tmp_path / "phase1"
    assert is_complete(folder) == (False, f"{folder}: no such folder")
    atomic_write(folder / "a" / "x.bin", b"123")
    assert "an earlier run stopped before its end" in is_complete(folder)[1]
    complete(folder, ["a/x.bin"])
    assert is_complete(folder) == (True, "complete")
    (folder / "a" / "x.bin").write_bytes(b"124")
    assert is_complete(folder) == (False, f"{folder / 'a' / 'x.bin'}: changed since complete.json was written")
    (folder / "a" / "x.bin").unlink()
    assert "x.bin: missing, though complete.json lists it" in is_complete(folder)[1]
    (folder / "complete.json").write_text("{}")
    assert is_complete(folder) == (False, f"{folder / 'complete.json'}: damaged")
    reopen(folder)
    assert "no complete.json" in is_complete(folder)[1]
    with pytest.raises(StorageError, match="x.bin: missing, so .* cannot be marked complete"):
        complete(folder, [(folder / "a" / "x.bin").absolute()])


def test_provenance_is_json_and_names_no_place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    made = record.provenance(config="abc", device="cpu", decoder="pyav", attention="sdpa", started=time.perf_counter(),
                             profile="tiny")
    text = json.dumps(made)
    assert made["versions"]["numpy"] == np.__version__ and made["profile"] == "tiny"
    assert 0 <= made["wall_seconds"] < 60 and 0.01 < made["peak_memory_gib"] < 1000
    assert str(Path.home()) not in text and str(tmp_path) not in text and os.uname().nodename not in text


def test_the_commit_is_known_in_a_checkout_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(origin, "__file__", str(tmp_path / "tvad" / "record" / "origin.py"))
    record.commit.cache_clear()
    try:
        assert record.commit() is None
        (tmp_path / ".git").mkdir()
        answers = {"rev-parse": "0123456789ab", "status": " M tvad/detector.py"}
        monkeypatch.setattr(origin, "_git", lambda root, command, *rest: answers[command])
        record.commit.cache_clear()
        assert record.commit() == "0123456789ab+changes"
    finally:
        record.commit.cache_clear()
