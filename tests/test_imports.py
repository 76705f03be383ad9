"""Imports run downhill and in no circle, low floors are light, and files name no machine and no undeclared package."""
from __future__ import annotations

import ast
import importlib.metadata
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
# The floor of each room; the longest matching prefix counts.  A module imports from its own floor or below.
FLOORS = {
    "tvad.allocator": 0, "tvad.errors": 0, "tvad.params": 0, "tvad.record": 0,
    "tvad.video": 1, "tvad.scenes": 1, "tvad.metrics": 1,
    "tvad.cores": 2, "tvad.backbones": 2, "tvad.language": 2, "tvad.datasets": 2,
    "tvad.heatmap": 3, "tvad.region": 3, "tvad.prompts": 3, "tvad.checkpoints": 3,
    "tvad.queries": 3, "tvad.queries.finding": 4, "tvad.queries.evaluation": 5,
    "tvad.adaptation": 3, "tvad.adaptation.detector": 4,
    "tvad.detector": 4, "tvad.detection": 4, "tvad.conversation": 4, "tvad.training": 4, "tvad.peers": 4,
    "tvad.sharing": 5,
    "tvad.evaluation": 5, "tvad.study": 5, "tvad.figures": 5, "tvad.widgets": 5, "tvad.bench": 5,
    "tvad": 6,
}
# Installed by hand where wanted; the code that imports them says so when they are missing.
OPTIONAL = {"decord", "torchcodec", "flash_attn", "diffusers", "voila"}
# A folder of one machine: absolute, at the start of a word, below one of these.
MACHINE_PATH = re.compile(r"(?<![\w.:~/>}\])-])/(?:home|root|Users|work|tmp|mnt|opt|scratch|media)/[\w.]")
TEXT_ENDINGS = {".py", ".md", ".toml", ".yaml", ".yml", ".cff", ".lock", ".ipynb", ".txt", ".json", ".jsonl", ""}


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in sorted((ROOT / "tvad").rglob("*.py"))}


def floor(module: str) -> int | None:
    fitting = [room for room in FLOORS if module == room or (room != "tvad" and module.startswith(room + "."))]
    return FLOORS[max(fitting, key=len)] if fitting else None


def imported(path: Path, module: str) -> set[str]:
    """Full names of all modules that a file imports, inside functions too; relative ones resolved."""
    found = set()
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            # `from tvad import errors` imports a module, `from tvad.errors import TvadError` a name of one.
            found |= {f"{base}.{alias.name}" if f"{base}.{alias.name}" in MODULES else base for alias in node.names}
    return found


GRAPH = {module: {name for name in imported(path, module) if name in MODULES} - {module}
         for module, path in MODULES.items()}


def find_circle(graph: dict[str, set[str]]) -> list[str]:
    """The modules of one circle, or an empty list (depth-first search)."""
    done: set[str] = set()

    def visit(module: str, trail: list[str]) -> list[str]:
        if module in trail:
            return [*trail[trail.index(module):], module]
        if module in done:
            return []
        for target in sorted(graph.get(module, ())):
            if circle := visit(target, [*trail, module]):
                return circle
        done.add(module)
        return []

    return next((circle for module in sorted(graph) if (circle := visit(module, []))), [])


def test_the_search_for_circles_finds_one():
    assert find_circle({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c", "b"]
    assert find_circle({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == []


def test_every_module_has_a_floor():
    assert [module for module in MODULES if floor(module) is None] == []


def test_imports_run_downhill():
    uphill = [f"{module} (floor {floor(module)}) imports {target} (floor {floor(target)})"
              for module, targets in GRAPH.items() for target in sorted(targets)
              if (floor(target) or 0) > (floor(module) or 0)]
    assert uphill == []


def test_imports_form_no_circle():
    # A package's __init__ may gather its own modules, and they import their siblings, never the package.
    assert find_circle(GRAPH) == []


def test_the_two_lowest_floors_import_without_torch():
    low = sorted(module for module in MODULES if (floor(module) or 0) <= 1 and not module.endswith("__main__"))
    code = f"import sys, importlib\nfor name in {low!r}: importlib.import_module(name)\n" \
           "print(sorted({'torch', 'transformers', 'matplotlib.pyplot', 'IPython'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.strip() == "[]"


def lock() -> dict[str, str]:
    lines = (ROOT / "requirements.lock").read_text().splitlines()
    wanted = [line.split(";")[0].strip() for line in lines if line.strip() and not line.startswith("#")]
    return {re.sub(r"[-_.]+", "-", name).lower(): version for name, version in (line.split("==") for line in wanted)}


def test_the_lock_holds_exact_versions_and_no_address():
    for line in (ROOT / "requirements.lock").read_text().splitlines():
        assert line.startswith("#") or re.fullmatch(r"[\w.-]+==[\w.!+]+( ; [\w\" .>=]+)?", line), line


def test_the_lock_is_what_is_installed_and_torch_fits_its_torchvision():
    import torch
    import torchvision

    installed = {"torch": torch.__version__, "torchvision": torchvision.__version__}
    assert {name: version.split("+")[0] for name, version in installed.items()} == {
        name: lock()[name] for name in installed}, "run: make setup"
    # A torch of another build fails here with "operator torchvision::nms does not exist".
    boxes = torch.tensor([[0.0, 0.0, 2.0, 2.0], [0.0, 0.0, 2.0, 2.0], [5.0, 5.0, 6.0, 6.0]])
    assert torchvision.ops.nms(boxes, torch.tensor([0.5, 0.9, 0.1]), 0.5).tolist() == [1, 2]


def test_every_import_from_outside_is_in_the_lock():
    providers = importlib.metadata.packages_distributions()
    used = {name.split(".")[0] for module, path in MODULES.items() for name in imported(path, module)}
    for path in (ROOT / "tests").glob("*.py"):
        used |= {name.split(".")[0] for name in imported(path, f"tests.{path.stem}")}
    own = {path.stem for path in (ROOT / "tests").glob("*.py")} | {"tvad", "tests"}
    missing = []
    for name in sorted(used - own - OPTIONAL - set(sys.stdlib_module_names)):
        distributions = {re.sub(r"[-_.]+", "-", found).lower() for found in providers.get(name, ["?"])}
        if not distributions & set(lock()):
            missing.append(name)
    assert missing == []


def text_files() -> list[Path]:
    listed = subprocess.run(["git", "-C", str(ROOT), "ls-files", "-co", "--exclude-standard"],
                            capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("not a git checkout, so the project's own files are not known")
    paths = [ROOT / name for name in listed.stdout.splitlines()]
    return [path for path in paths if path.is_file() and path.suffix in TEXT_ENDINGS and path.stat().st_size < 2**20]


def test_the_pattern_of_machine_paths_knows_them_from_others():
    for bad in ('open("' + '/home/' + 'me/x")', "see /" + "root/x", "cd /" + "work/main"):
        assert MACHINE_PATH.search(bad), bad
    for good in ("https://a.org/home/x", "runs/tmp/x", "../work/x", "#!/usr/bin/env bash", "$HOME/tmp/x"):
        assert not MACHINE_PATH.search(good), good


def test_no_file_names_a_folder_of_some_machine():
    found = [f"{path.relative_to(ROOT)}:{number}: {line.strip()[:80]}" for path in text_files()
             for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), start=1)
             if MACHINE_PATH.search(line)]
    assert found == []
