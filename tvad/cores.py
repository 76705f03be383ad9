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

_LOCK = threading.Lock()
_PATIENCE = 60.0        # seconds that threads are given to start

Job = TypeVar("Job")
Result = TypeVar("Result")


def on_each_core(work: Callable[[Job], Result], jobs: Iterable[Job], *, device: Any = "cpu") -> Iterator[Result]:
    """``work`` of every job, in order, on as many threads as PyTorch would use, each with one thread of its own.

    Jobs are taken from their iterator in the caller's thread, so that reading footage goes on beside the work; at most two
    more than there are threads are under way or done and not yet asked for.  ``work`` runs under the caller's gradient
    and inference mode (not its autocast), must be safe in threads and must not wait for another job.  An error of a job or
    of the iterator is raised after the results before it.  Fewer jobs than threads, one thread, or a ``device`` that is no
    CPU: a plain ``map``.
    """
    threads, told = torch.get_num_threads(), _with_error(jobs)
    some = list(itertools.islice(told, threads))
    told = itertools.chain(some, told)
    if threads == 1 or torch.device(device).type != "cpu" or len(some) < threads or some[-1][1] is not None:
        for job, error in told:
            if error is not None:
                raise error
            yield work(job)
        return
    with _LOCK:
        pool = _pool(os.getpid(), threads)
    mode = torch.is_inference_mode_enabled(), torch.is_grad_enabled()
    waiting: deque[Future] = deque()
    try:
        for job, error in told:
            if error is not None:
                break
            waiting.append(pool.submit(_in_mode, mode, work, job))
            if len(waiting) >= threads + 2:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
        if error is not None:
            raise error
    finally:
        for future in waiting:
            future.cancel()


def _with_error(jobs: Iterable[Job]) -> Iterator[tuple[Job | None, Exception | None]]:
    """Each job, and last the error at which their iterator ended, where it did."""
    try:
        for job in jobs:
            yield job, None
    except Exception as error:
        yield None, error


def in_windows(frames: Frames, look: Callable[[Sequence[Clip]], Sequence[Result]], *, length: int, stride: int, name: str,
               batch: int, device: Any = "cpu") -> Iterator[tuple[int, int, Result]]:
    """First frame and length of every window of a video, named ``name``, with what ``look`` says of it.

    ``look`` is given up to ``batch`` clips at once on a GPU, and one on a CPU, where they share the cores instead.
    """
    found = (Clip(clip.frames, clip.fps, clip.start, name) for clip in clips(frames, length=length, stride=stride))
    together = batch if torch.device(device).type != "cpu" else 1
    groups = iter(lambda: list(itertools.islice(found, together)), [])

    def placed(group: Sequence[Clip]) -> list[tuple[int, int, Result]]:
        # Without the clip: what waits to be asked for must not hold its pictures.
        return [(clip.start, len(clip), said) for clip, said in zip(group, look(group), strict=True)]

    for windows in on_each_core(placed, groups, device=device):
        yield from windows


def _in_mode(mode: tuple[bool, bool], work: Callable, job: Any) -> Any:
    inference, gradients = mode
    with torch.inference_mode(inference), torch.set_grad_enabled(gradients):
        return work(job)


@functools.cache
def _pool(process: int, threads: int) -> ThreadPoolExecutor:
    """Threads of this process (a forked child has none of its parent's), all started."""
    together = threading.Barrier(threads + 1, timeout=_PATIENCE)

    def alone() -> None:
        torch.get_num_threads()     # a thread takes over the process' count when it first asks; later it would undo this
        torch.set_num_threads(1)
        together.wait()

    pool = ThreadPoolExecutor(threads, thread_name_prefix="core", initializer=alone)
    try:
        for _ in range(threads):
            pool.submit(int)
        together.wait()
    except BaseException:
        together.abort()        # else threads that did start would wait for those that did not
        raise
    finally:
        # The count is a thread's own and, too, what threads made later begin with: they are to find what was there before.
        torch.set_num_threads(threads)
    return pool
