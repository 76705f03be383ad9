"""What the notebook says about a run in tables: where it computes, on which splits, how long its steps took."""
from __future__ import annotations

import importlib.util
import os
import platform
from collections.abc import Mapping, Sequence
from typing import Any

_DECODERS = {"pyav": "av", "decord": "decord", "torchcodec": "torchcodec"}
_DATASETS = {"simcampus": "SimCampus (simulated)"}


class Table:
    """Markdown that a notebook shows as a table and a terminal as text."""

    def __init__(self, text: str) -> None:
        self.text = text

    def _repr_markdown_(self) -> str:
        return self.text

    def __repr__(self) -> str:
        return self.text


def environment(run: Any) -> Table:
    """Device, number format, attention kernel with its reason, decoder, model and configuration of a run."""
    params, backbone = run.params, run.backbone
    installed = [name for name, module in _DECODERS.items() if importlib.util.find_spec(module)]
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return table_of(("", ""), [
        ("device", f"{getattr(backbone, 'device', 'cpu')}, {cores} CPU cores, {platform.machine()}"),
        ("number format", str(getattr(backbone, "dtype", "")).removeprefix("torch.")),
        ("attention kernel", backbone.attention),
        ("video decoder", f"{params.decoder} (installed: {', '.join(installed)})"),
        ("backbone", f"{backbone.name}, fingerprint {backbone.fingerprint}, taps {list(backbone.taps)}"),
        ("profile, configuration", f"{params.profile}, {params.config_hash()}"),
    ])


def splits_table(records: Sequence[Mapping[str, Any]]) -> Table:
    """Role, data set, split, sizes, base rate and hash of each split (see ``Phase1Run.data``)."""
    lines = []
    for part in records:
        rate = part["positive_rate"]
        lines.append((part["role"], _DATASETS.get(part["dataset"], part["dataset"]),
                      f"{part['split']} ({part['protocol']})", f"{part['videos']}", f"{part['frames']:,}",
                      "not opened" if rate is None else f"{rate:.3f}", f"`{part['hash']}`"))
    return table_of(("role", "data set", "split", "videos", "frames", "anomalous frames", "hash"), lines)


def steps_table(record: Mapping[str, Any]) -> Table:
    """Seconds of each step, the whole and the peak memory (see ``Phase1Run.finish``)."""
    lines = [(name, f"{seconds:.1f} s") for name, seconds in record["seconds"].items()]
    lines += [("whole notebook", f"{record['wall_seconds']:.1f} s"),
              ("peak memory", f"{record['peak_memory_gib']} GiB"), ("commit", str(record["commit"]))]
    return table_of(("step", ""), lines)


def table_of(head: Sequence[str], lines: Sequence[Sequence[str]]) -> Table:
    """Markdown of a head and its lines."""
    rows = [head, ["---"] * len(head), *lines]
    return Table("\n".join("| " + " | ".join(map(str, row)) + " |" for row in rows))
