"""Work shared out among cores: the same results in the same order, errors where they are due, settings left alone."""
from __future__ import annotations

import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from tiny_model import random_model_directory
from training_fakes import FakeBackbone, toy_split

from tvad.backbones.qwen import QwenBackbone
from tvad.cores import in_windows, on_each_core
from tvad.record import atomic_write
from tvad.training.cache import cache_pairs
from tvad.video.clip import Clip
from tvad.video.frames import ArrayFrames


@pytest.fixture(params=[1, 3])
def threads(request):
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def backbone(tmp_path_factory):
    return QwenBackbone.from_pretrained(random_model_directory(tmp_path_factory.mktemp("zoo") / "tiny"), taps=(0, 1, 2),
                                        device="cpu", dtype="float32")


def clips(count, frames=7):
    pixels = np.random.default_rng(0).integers(0, 256, (count, frames, 160, 200, 3), np.uint8)
    return [Clip(part, 10.0, 0, "noise") for part in pixels]


def test_results_come_in_order_whatever_finishes_first(threads):
    late = threading.Event()

    def work(number):
        if number == 0 and threads > 1:
            assert late.wait(20)        # the first is done after the second
        late.set()
        return number * 10

    assert list(on_each_core(work, iter(range(20)))) == [number * 10 for number in range(20)]
    assert torch.get_num_threads() == threads


def test_each_job_has_one_thread_and_the_callers_mode(threads):
    def work(_):
        return torch.get_num_threads(), torch.is_grad_enabled(), torch.is_inference_mode_enabled()

    assert set(on_each_core(work, range(6))) == {(1, True, False)}
    with torch.no_grad():
        assert set(on_each_core(work, range(6))) == {(1, False, False)}
    with torch.inference_mode():
        assert set(on_each_core(work, range(6))) == {(1, False, True)}


def test_later_threads_find_the_count_that_was_set(threads):
    list(on_each_core(abs, range(4)))
    with ThreadPoolExecutor(1) as other:
        assert other.submit(torch.get_num_threads).result() == threads


@pytest.mark.parametrize(("jobs", "device"), [([3], "cpu"), ([1, 2], "cpu"), ([], "cpu"), ([1, 2, 3], "meta")])
def test_few_jobs_or_another_device_stay_in_the_callers_thread(threads, jobs, device):
    assert set(on_each_core(lambda _: threading.get_ident(), jobs, device=device)) <= {threading.get_ident()}


def test_an_error_comes_after_the_results_before_it_and_ends_the_work(threads):
    begun, found = [], []

    def work(number):
        begun.append(number)
        return 6 // (number - 4)

    with pytest.raises(ZeroDivisionError):
        for result in on_each_core(work, range(1000)):
            found.append(result)
    assert found == [6 // (number - 4) for number in range(4)] and len(begun) < 20


@pytest.mark.parametrize("first", [0, 1, 4])
def test_an_error_of_the_jobs_comes_after_the_results_before_it(threads, first):
    def jobs():
        yield from range(first)
        raise OSError("damaged")

    found = []
    with pytest.raises(OSError, match="damaged"):
        for result in on_each_core(abs, jobs()):
            found.append(result)
    assert found == list(range(first))


def test_jobs_are_taken_only_a_few_ahead_and_in_the_callers_thread(threads):
    taken = []

    def jobs():
        for number in range(100):
            taken.append(threading.get_ident())
            yield number

    results = on_each_core(abs, jobs())
    next(results)
    assert len(taken) <= threads + 2 and set(taken) == {threading.get_ident()}


def test_a_tower_sees_the_same_on_any_number_of_cores(threads, backbone):
    """The twin is one pass over all temporal patches at once."""
    some = clips(3)
    flat, grids = zip(*(backbone.patches(clip.frames) for clip in some))
    grid = (sum(one[0] for one in grids), *grids[0][1:])
    with torch.inference_mode():
        taps, merged = backbone.forward(torch.cat(flat), grid)
    sights = backbone.see_many(some, tokens=True)
    for number, tap in enumerate(taps):
        torch.testing.assert_close(torch.cat([sight.taps[number] for sight in sights]), tap)
    torch.testing.assert_close(torch.cat([sight.tokens for sight in sights]), merged)


def test_passes_in_several_threads_keep_their_taps_apart(backbone):
    some = clips(8, frames=2)
    wanted = [backbone.see(clip) for clip in some]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(backbone.see, some * 5))
    for sight, other in zip(found, wanted * 5):
        assert all(torch.equal(*pair) for pair in zip(sight.taps, other.taps))


@pytest.mark.parametrize("batch", [1, 4])
@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_windows_come_in_order_with_what_was_said_of_them(threads, batch, device):
    frames = ArrayFrames(np.arange(37, dtype=np.uint8)[:, None, None, None].repeat(3, -1), 10.0, "file")
    sizes = []

    def look(group):
        sizes.append(len(group))
        return [(int(clip.frames.max()), clip.video) for clip in group]

    found = list(in_windows(frames, look, length=8, stride=8, name="mine", batch=batch, device=device))
    assert found == [(start, 8, (start + 7, "mine")) for start in (0, 8, 16, 24, 29)]
    assert max(sizes) == (batch if device == "meta" else 1)     # a GPU takes several at once


def test_cached_pairs_are_the_same_on_any_number_of_cores(threads, tmp_path):
    videos, backbone = toy_split("train", 5), FakeBackbone()
    starts = {video.id: list(range(0, 30, 3)) for video in videos}
    made = cache_pairs(backbone, videos, starts=starts, root=tmp_path / "many", progress=False)
    torch.set_num_threads(1)
    twin = cache_pairs(backbone, videos, starts=starts, root=tmp_path / "one", progress=False)
    rows = np.arange(len(made))
    assert len(made) == len(twin) == 50 and [file.video for file in made.files] == [video.id for video in videos]
    assert all(torch.equal(*taps) for taps in zip(made.read(rows), twin.read(rows)))
    np.testing.assert_array_equal(made.targets(rule="any"), twin.targets(rule="any"))


@pytest.mark.parametrize("spoil", [lambda path: path.write_bytes(path.read_bytes()[:-100]),
                                   lambda path: path.write_bytes(b"\0" * path.stat().st_size)])
def test_a_file_that_a_power_cut_spoilt_is_made_again(tmp_path, spoil, caplog):
    videos, backbone = toy_split("train", 1), FakeBackbone()
    first = cache_pairs(backbone, videos, starts={videos[0].id: [0, 2]}, root=tmp_path, progress=False)
    wanted = first.read(np.arange(2))
    spoil(first.files[0].path)
    again = cache_pairs(backbone, videos, starts={videos[0].id: [0, 2]}, root=tmp_path, progress=False)
    assert "making it again" in caplog.text and all(torch.equal(*taps) for taps in zip(again.read(np.arange(2)), wanted))


def test_a_forked_child_has_threads_of_its_own():
    program = ("import os, torch; from tvad.cores import on_each_core; torch.set_num_threads(2); "
               "assert list(on_each_core(abs, range(3))) == [0, 1, 2]; child = os.fork(); "
               "done = list(on_each_core(abs, range(3))); "
               "os._exit(0) if not child else print(done, os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))")
    said = subprocess.run([sys.executable, "-W", "ignore", "-c", program], capture_output=True, text=True, timeout=60)
    assert said.stdout.split("]")[-1].strip() == "0", said.stderr


def test_a_file_may_be_written_without_waiting_for_the_disk(tmp_path, monkeypatch):
    monkeypatch.setattr("os.fsync", lambda _: pytest.fail("synced"))
    with atomic_write(tmp_path / "features", synced=False) as file:
        file.write(b"whole")
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"whole"]
