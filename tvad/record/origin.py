"""Where a result came from: commit, versions, device, memory, time; no path and no host name."""
from __future__ import annotations

import contextlib
import functools
import importlib.metadata
import os
import platform
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

# Libraries whose version may change a number or a pixel.
_LIBRARIES: tuple[str, ...] = (
    "tvad", "torch", "torchvision", "transformers", "accelerate", "peft", "safetensors", "flash-attn",
    "av", "decord", "torchcodec", "opencv-python-headless", "numpy", "scipy", "scikit-learn", "pillow",
)


def provenance(*, config: str | None = None, device: str | None = None, decoder: str | None = None,
               attention: str | None = None, started: float | None = None, **more: Any) -> dict[str, Any]:
    """Where a result came from, ready for JSON; ``started`` is the :func:`time.perf_counter` of the run's start.

    Peak memory is that of this process or of its largest child, in GiB.  No path and no host name is recorded.
    """
    peak = max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    # Linux counts KiB, macOS bytes.
    peak_gib = peak / (2**30 if sys.platform == "darwin" else 2**20)
    return {
        "config": config, "commit": commit(), "device": device, "decoder": decoder, "attention": attention,
        "wall_seconds": None if started is None else round(time.perf_counter() - started, 2),
        "peak_memory_gib": round(peak_gib, 3), "peak_gpu_memory_gib": _peak_gpu_memory(),
        "written": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "python": platform.python_version(), "system": f"{platform.system()} {platform.machine()}",
        "cpus": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "versions": versions(), **more,
    }


def versions() -> dict[str, str]:
    """Installed versions of the libraries that results depend on."""
    found = {}
    for name in _LIBRARIES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


@functools.cache
def commit() -> str | None:
    """Short id of the checkout's commit, with ``+changes`` where tracked files differ; None outside a checkout."""
    root = Path(__file__).resolve().parents[2]
    # An installed package may lie inside some other project's checkout, whose commit says nothing.
    if not (root / ".git").exists():
        return None
    try:
        head = _git(root, "rev-parse", "--short=12", "HEAD")
        changed = _git(root, "status", "--porcelain", "--untracked-files=no")
    except (OSError, subprocess.SubprocessError):
        return None
    return head + ("+changes" if changed else "")


def _git(root: Path, *arguments: str) -> str:
    # --no-optional-locks: a look at the state must not collide with a commit that is under way.
    done = subprocess.run(["git", "--no-optional-locks", "-C", str(root), *arguments],
                          capture_output=True, text=True, timeout=20, check=True)
    return done.stdout.strip()


def _peak_gpu_memory() -> float | None:
    # Only asked of a torch that is there and has used a GPU: this module imports nothing heavy.
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_available() or not torch.cuda.is_initialized():
        return None
    return round(max(torch.cuda.max_memory_allocated(index) for index in range(torch.cuda.device_count())) / 2**30, 3)
