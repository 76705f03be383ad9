"""How the C library keeps freed memory, which decides on half of a tower's speed on a CPU.

Every layer asks for the same buffers of some MiB and frees them again.  glibc hands such blocks back to the kernel at
once, and the next layer gets new pages that have to be zeroed: on two cores the tiny tower saw 61 frames a second with
glibc's own settings and 102 with these, a third of its processor time having been the kernel's.
"""
from __future__ import annotations

import ctypes
import os

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3       # numbers of mallopt(3), from malloc.h
_KEPT = 2**31 - 1                               # bytes kept for reuse
_LARGEST = (2**30, 2**25)                       # blocks above are mapped one by one, as ever; older glibc takes the second
_STATED = ("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "GLIBC_TUNABLES")


def keep_freed_memory() -> bool:
    """Let this process keep up to 2 GiB of freed memory for its next buffers; True where that could be set.

    Nothing is set, and False returned, for another C library than glibc, or where the environment already states how
    memory is kept (``MALLOC_MMAP_THRESHOLD_``, ``MALLOC_TRIM_THRESHOLD_``, ``GLIBC_TUNABLES``).  Calling it again does no
    harm.
    """
    if any(os.environ.get(name) for name in _STATED):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if os.name == "posix" else None
    if mallopt is None or not any(mallopt(_MMAP_THRESHOLD, size) for size in _LARGEST):
        return False
    return bool(mallopt(_TRIM_THRESHOLD, _KEPT))
