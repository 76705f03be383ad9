"""One thread for everything slow: what the visitor asks for first, and, when there is nothing, the next window to score.

One thread and not several, since the model shares two cores with itself; a question thus waits for one window at most.
"""
from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable

_LOG = logging.getLogger(__name__)


class Worker:
    """Runs jobs in order, and ``idle`` in between as long as it says that it did something.

    failed: told the error of a job that failed unexpectedly, which is also logged; the worker goes on.
    threaded: False runs nothing until :meth:`drain`, for tests and scripts.
    """

    def __init__(self, idle: Callable[[], bool], *, failed: Callable[[Exception], None], threaded: bool = True) -> None:
        self._idle, self._failed = idle, failed
        self._jobs: deque[Callable[[], None]] = deque()
        self._wake, self._closed = threading.Condition(), False
        self._thread = threading.Thread(target=self._run, name="tvad-demo", daemon=True) if threaded else None
        if self._thread is not None:
            self._thread.start()

    def submit(self, job: Callable[[], None]) -> None:
        """Do ``job`` as soon as what runs now is done."""
        with self._wake:
            self._jobs.append(job)
            self._wake.notify()

    def drain(self, *, jobs_only: bool = False) -> None:
        """Without a thread: do all jobs, then idle until nothing is left."""
        while self._one(jobs_only=jobs_only):
            pass

    def close(self) -> None:
        """End after the job that runs now."""
        with self._wake:
            self._closed = True
            self._wake.notify()

    def _run(self) -> None:
        while not self._closed:
            if not self._one():
                with self._wake:
                    if not self._jobs and not self._closed:
                        self._wake.wait()

    def _one(self, *, jobs_only: bool = False) -> bool:
        with self._wake:
            job = self._jobs.popleft() if self._jobs else None
        try:
            if job is not None:
                job()
                return True
            return not jobs_only and self._idle()
        except Exception as error:  # a page must outlive whatever goes wrong in one action
            _LOG.exception("the demo met an error")
            self._failed(error)
            return job is not None
