"""Freed memory is kept for the next buffer, and what the environment states is left alone."""
from __future__ import annotations

import ctypes
import os
import subprocess
import sys

import pytest

from tvad.allocator import keep_freed_memory

PROGRAM = """
import resource
import numpy as np
from tvad.allocator import keep_freed_memory
kept = keep_freed_memory() if {keep} else None
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    np.ones(48 * 2**20, np.uint8)       # above the largest threshold that glibc would choose by itself
print(kept, resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
glibc = pytest.mark.skipif(os.name != "posix" or not hasattr(ctypes.CDLL(None), "gnu_get_libc_version"),
                           reason="freed memory is kept through glibc's mallopt, and this is another C library")


def faults(*, keep: bool, **stated: str) -> tuple[str, int]:
    """What ``keep_freed_memory`` said, and page faults of twenty large buffers, in a process of its own."""
    environment = {name: value for name, value in os.environ.items()
                   if not name.startswith("MALLOC_") and name != "GLIBC_TUNABLES"}
    said = subprocess.run([sys.executable, "-S", "-c", PREFIX + PROGRAM.format(keep=keep)], capture_output=True, text=True,
                          check=True, env=environment | stated)
    kept, count = said.stdout.split()
    return kept, int(count)


PREFIX = f"import sys; sys.path[:] = {sys.path!r}\n"      # without site: nothing else may set the allocator


@glibc
def test_large_buffers_reuse_their_pages():
    plain, kept = faults(keep=False), faults(keep=True)
    if kept[0] == "False":
        pytest.skip("this C library refuses the settings")
    assert plain[0] == "None"
    assert kept[1] * 5 < plain[1]


@pytest.mark.parametrize("name", ["MALLOC_TRIM_THRESHOLD_", "GLIBC_TUNABLES"])
def test_what_the_environment_states_is_left_alone(monkeypatch, name):
    monkeypatch.setenv(name, "131072" if name.startswith("MALLOC") else "glibc.malloc.trim_threshold=131072")
    assert keep_freed_memory() is False
