"""The notebook lint finds each kind of fault, and the notebooks in git have none."""
from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = sorted(path for path in (ROOT / "notebooks").rglob("*.ipynb") if ".ipynb_checkpoints" not in path.parts)
PROFILES = sorted((ROOT / "notebooks" / "profiles").glob("*.yaml"))


@pytest.fixture(scope="module")
def lint():
    spec = importlib.util.spec_from_file_location("notebook_lint", ROOT / ".ci" / "notebook_lint.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def book(**changes) -> dict:
    cells = [
        {"cell_type": "markdown", "id": "a", "metadata": {}, "source": ["# Title"]},
        {"cell_type": "code", "id": "b", "metadata": {"tags": ["parameters"]}, "source": ["seed = 0"], "outputs": [],
         "execution_count": None},
        {"cell_type": "code", "id": "c", "metadata": {}, "source": ["print(seed)"], "outputs": [],
         "execution_count": None},
    ]
    made = {"cells": cells, "metadata": {"kernelspec": {"name": "python3"}}, "nbformat": 4, "nbformat_minor": 5}
    for key, value in changes.items():
        if key in made["cells"][2]:
            made["cells"][2][key] = value
        else:
            made[key] = value
    return made


def faults(lint, folder: Path, content: dict | str) -> list[str]:
    path = folder / "book.ipynb"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return lint.faults(path)


def test_a_clean_notebook_has_no_fault(lint, tmp_path, capsys):
    assert faults(lint, tmp_path, book()) == []
    assert lint.main([str(tmp_path)]) == 0
    assert capsys.readouterr().out == "1 notebooks clean\n"


@pytest.mark.parametrize(("changes", "fault"), [
    ({"outputs": [{"output_type": "stream", "name": "stdout", "text": ["0"]}]}, "cell 3: holds outputs"),
    ({"execution_count": 2}, "cell 3: holds outputs or an execution count"),
    ({"source": [f"x{index} = 1\n" for index in range(13)]}, "cell 3: 13 code lines; allowed: 12"),
    ({"metadata": {"tags": ["parameters"]}, "source": ["x = 1"]}, "2 cells tagged 'parameters'; wanted: one"),
    ({"source": ["# " + "x" * 30_000]}, "bytes; allowed: fewer than 30,000"),
])
def test_each_fault_of_a_cell_is_named(lint, tmp_path, changes, fault):
    found = faults(lint, tmp_path, book(**changes))
    assert len(found) == 1 and fault in found[0]
    assert lint.main([str(tmp_path)]) == 1


def test_comments_and_blank_lines_are_no_code(lint, tmp_path):
    assert faults(lint, tmp_path, book(source=["# why\n", "\n"] * 10 + ["x = 1\n"] * 12)) == []


def test_each_fault_of_the_notebook_is_named(lint, tmp_path):
    bare = book()
    bare["metadata"] = {"widgets": {}}
    bare["cells"][1]["metadata"] = {}
    assert faults(lint, tmp_path, bare) == [
        "kernelspec is None; papermill needs 'python3'", "widget state is saved; clear it",
        "0 cells tagged 'parameters'; wanted: one"]
    executed = book(metadata={"tags": ["injected-parameters"]})
    assert faults(lint, tmp_path, executed) == ["holds a cell that papermill injected; this is an executed copy"]
    code = book()
    code["cells"][1]["source"] = ["import os\n", "seed = os.getpid()"]
    assert faults(lint, tmp_path, code) == ["cell 2: the parameters cell holds more than 'name = literal' lines"]
    assert "not a notebook" in faults(lint, tmp_path, "{")[0]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_the_notebooks_in_git_are_clean(lint, path):
    assert lint.faults(path) == []


@pytest.mark.parametrize("path", PROFILES, ids=lambda path: path.stem)
def test_each_profile_is_named_after_its_file_and_passes_the_parameters(path):
    from tvad.params import Phase1

    assert Phase1.from_profile(path).profile == path.stem
