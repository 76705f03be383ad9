"""One thread a core, each computing by itself: what a small model on a CPU gains over sharing every layer.

PyTorch splits each layer among its threads and waits for the slowest.  The layers of a small tower last a millisecond, so
that on two cores a sixth of the time is waiting, and a large batch falls out of the caches besides.  Independent parts
of the work, each on a core of its own, lose neither; the parts' results do not depend on how many run at once.
"""
from __future__ import annotations

import functools
import itertools
import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

import torch

from tvad.video.clip import Clip
from tvad.video.frames import Frames
from tvad.video.stream import clips

Job = TypeVar("Job")
Result = TypeVar("Result")


def on_each_core(work: Callable[[Job], Result], jobs: Iterable[Job], *, device: Any = "cpu") -> Iterator[Result]:
    """``work`` of every job, in order, on as many threads as PyTorch would use, each with one thread of its own.

    Jobs are taken from their iterator in the caller's thread, a few ahead, so that reading footage goes on beside the
    work.  ``work`` runs under the caller's gradient mode, must be safe in threads and must not wait for another job; an
    error is raised where its result is due.  A single job, one thread, or a ``device`` that is no CPU: a plain ``map``.
    """
    threads, jobs = torch.get_num_threads(), iter(jobs)
    some = list(itertools.islice(jobs, 2))
    jobs = itertools.chain(some, jobs)
    if threads == 1 or len(some) < 2 or torch.device(device).type != "cpu":
        yield from map(work, jobs)
        return
    pool, mode = _pool(os.getpid(), threads), (torch.is_inference_mode_enabled(), torch.is_grad_enabled())
    waiting: deque[Future] = deque()
    try:
        for job in jobs:
            waiting.append(pool.submit(_in_mode, mode, work, job))
            if len(waiting) >= 2 * threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        for future in waiting:
            future.cancel()


def in_windows(frames: Frames, look: Callable[[Sequence[Clip]], Sequence[Result]], *, length: int, stride: int, name: str,
               batch: int, device: Any = "cpu") -> Iterator[tuple[Clip, Result]]:
    """Every window of a video, named ``name``, with what ``look`` says of it.

    ``look`` is given up to ``batch`` clips at once on a GPU, and one on a CPU, where they share the cores instead.
    """
    found = (Clip(clip.frames, clip.fps, clip.start, name) for clip in clips(frames, length=length, stride=stride))
    together = batch if torch.device(device).type != "cpu" else 1
    groups = iter(lambda: list(itertools.islice(found, together)), [])

    def paired(group: Sequence[Clip]) -> list[tuple[Clip, Result]]:
        return list(zip(group, look(group), strict=True))

    for pairs in on_each_core(paired, groups, device=device):
        yield from pairs


def _in_mode(mode: tuple[bool, bool], work: Callable, job: Any) -> Any:
    inference, gradients = mode
    with torch.inference_mode(inference), torch.set_grad_enabled(gradients):
        return work(job)


@functools.cache
def _pool(process: int, threads: int) -> ThreadPoolExecutor:
    """Threads of this process (a forked child has none of its parent's), all started."""
    together = threading.Barrier(threads + 1)

    def alone() -> None:
        torch.get_num_threads()     # a thread takes over the process' count when it first asks; later it would undo this
        torch.set_num_threads(1)
        together.wait()

    pool = ThreadPoolExecutor(threads, thread_name_prefix="core", initializer=alone)
    for _ in range(threads):
        pool.submit(int)
    together.wait()
    # The count is the thread's own and, too, what threads made later begin with: they are to find what was there before.
    torch.set_num_threads(threads)
    return pool
