"""Hygiene of the notebooks: `python .ci/notebook_lint.py notebooks` prints each fault and exits 1 if there is one.

A notebook in git holds no outputs, keeps its kernelspec (papermill needs it), has one cell tagged `parameters` that
holds plain assignments alone, cells of at most 12 code lines, and fewer than 30,000 bytes.
"""
from __future__ import annotations

import json
import sys
from pathlib import Path

from tvad.params import literal_assignments

MAX_CODE_LINES = 12
MAX_BYTES = 30_000


def faults(path: Path) -> list[str]:
    """Every fault of one notebook, in words; an empty list for a clean one."""
    raw = path.read_bytes()
    found = [] if len(raw) < MAX_BYTES else [f"{len(raw):,} bytes; allowed: fewer than {MAX_BYTES:,}"]
    try:
        book = json.loads(raw)
        cells, metadata = book["cells"], book["metadata"]
    except (ValueError, KeyError, TypeError) as error:
        return [*found, f"not a notebook ({error})"]
    kernel = metadata.get("kernelspec", {}).get("name")
    if kernel != "python3":
        found.append(f"kernelspec is {kernel!r}; papermill needs 'python3'")
    if "widgets" in metadata:
        found.append("widget state is saved; clear it")
    tags = [tag for cell in cells for tag in cell.get("metadata", {}).get("tags", [])]
    if tags.count("parameters") != 1:
        found.append(f"{tags.count('parameters')} cells tagged 'parameters'; wanted: one")
    if "injected-parameters" in tags:
        found.append("holds a cell that papermill injected; this is an executed copy")
    for number, cell in enumerate(cells, start=1):
        if cell["cell_type"] == "code":
            found += [f"cell {number}: {fault}" for fault in _cell_faults(cell)]
    return found


def _cell_faults(cell: dict) -> list[str]:
    found = []
    source = "".join(cell["source"])
    if cell.get("outputs") or cell.get("execution_count") is not None:
        found.append("holds outputs or an execution count; clear them")
    lines = [line for line in source.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    tagged = "parameters" in cell.get("metadata", {}).get("tags", [])
    if len(lines) > MAX_CODE_LINES:
        found.append(f"{len(lines)} code lines; allowed: {MAX_CODE_LINES}")
    if tagged and literal_assignments(source) is None:
        found.append("the parameters cell holds more than 'name = literal' lines")
    return found


def main(arguments: list[str]) -> int:
    books = []
    for name in map(Path, arguments):
        books += [name] if name.suffix == ".ipynb" else sorted(name.rglob("*.ipynb"))
    books = [book for book in books if ".ipynb_checkpoints" not in book.parts]
    lines = [f"{book}: {fault}" for book in books for fault in faults(book)]
    print("\n".join(lines) if lines else f"{len(books)} notebooks clean")
    return 1 if lines else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
