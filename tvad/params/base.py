"""Parameters of the notebooks: one frozen dataclass a notebook, the single list of what may be set.

A notebook has one cell tagged ``parameters`` that holds plain assignments; papermill adds a second one with the values
of a profile.  ``params = Phase1.read(globals())`` in the next cell takes them over and checks names, types and ranges,
because papermill itself only warns of a mistyped name and goes on with the default.

``TVAD_SMOKE=1`` in the environment cuts every size to the ``smoke`` value of its field and moves the output to
``runs/smoke/<profile>``: the check that a notebook runs from top to bottom, which no figure may come from.
"""
from __future__ import annotations

import ast
import difflib
import hashlib
import json
import os
import re
import types
import typing
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Self

from tvad.errors import ParameterError

# Those that have a loader and the labels that phase 1 needs; a test holds them against tvad.datasets.
DATASETS: tuple[str, ...] = ("simcampus", "ucsd_ped2", "ucsd_ped1")

# What IPython itself puts into a notebook's namespace.
_IPYTHON_NAMES = frozenset({"In", "Out", "exit", "quit", "get_ipython", "open", "display"})
_PLAIN_NAMES: Mapping[type, str] = {str: "text", int: "a whole number", float: "a number", bool: "True or False"}


def setting(default: Any, help: str, *, choices: tuple = (), low: float | None = None, high: float | None = None,
            pattern: str | None = None, smoke: Any = None, hashed: bool = True) -> Any:
    """Declare one parameter: its default, its meaning and what values it may take.

    ``choices`` and ``low``/``high`` (both inclusive) hold for each entry of a tuple.  ``smoke`` caps a number (or
    replaces anything else) under ``TVAD_SMOKE=1``.  ``hashed=False`` keeps what cannot change a result, such as a
    folder, out of :meth:`Parameters.config_hash`.
    """
    return field(default=default, metadata={"help": help, "choices": choices, "low": low, "high": high,
                                            "pattern": pattern, "smoke": smoke, "hashed": hashed})


def project_root(start: Path | None = None) -> Path:
    """The checkout that ``start`` (default: the working folder) lies in; ``start`` itself where there is none.

    A kernel of JupyterLab starts in ``notebooks/``, one of papermill at the top; both must find the same ``runs/``.
    """
    start = Path.cwd() if start is None else start.resolve()
    for folder in (start, *start.parents):
        if (folder / "pyproject.toml").is_file() and (folder / "tvad").is_dir():
            return folder
    return start


@dataclass(frozen=True, kw_only=True)
class Parameters:
    """What the parameters of every notebook can do; subclasses list the fields with :func:`setting`."""

    def __post_init__(self) -> None:
        hints = typing.get_type_hints(type(self))
        for item in fields(self):
            value = _convert(item.name, getattr(self, item.name), hints[item.name])
            for entry in value if isinstance(value, tuple) else (value,):
                _check_allowed(item.name, entry, item.metadata)
            object.__setattr__(self, item.name, value)

    @classmethod
    def read(cls, namespace: Mapping[str, Any]) -> Self:
        """Take the parameters from a notebook's ``globals()``; fields that it does not set keep their default.

        Raises :class:`ParameterError` for an unknown name (with the nearest known one), a wrong type, a value out of
        range.  Names are unknown where a parameter cell assigns them: the last run of cells in the notebook's history
        that hold plain assignments alone.  So the cell may be run again after the rest of the notebook has filled the
        namespace.  Without such a history every public plain value counts.
        """
        names = _assigned_in_history(namespace.get("In"))
        if names is None:
            names = [name for name, value in namespace.items() if _is_candidate(name, value)]
        cls._reject_unknown(names)
        given = {item.name: namespace[item.name] for item in fields(cls) if item.name in namespace}
        params = cls(**given)
        return params.smoke() if os.environ.get("TVAD_SMOKE", "0") not in ("", "0") else params

    @classmethod
    def from_profile(cls, path: str | Path) -> Self:
        """Read a profile (a YAML file as papermill takes it) under the same checks; errors name the file."""
        import yaml

        path = Path(path)
        try:
            content = yaml.safe_load(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            known = ", ".join(sorted(other.stem for other in path.parent.glob("*.yaml"))) or "none"
            raise ParameterError(f"{path}: no such profile; profiles here: {known}") from None
        except yaml.YAMLError as error:
            raise ParameterError(f"{path}: not readable as YAML ({' '.join(str(error).split())}); "
                                 "write one 'name: value' a line") from None
        content = {} if content is None else content
        if not isinstance(content, dict):
            raise ParameterError(f"{path}: a profile is a list of 'name: value' lines, this one holds "
                                 f"a {type(content).__name__}")
        try:
            cls._reject_unknown(map(str, content))
            return cls(**content)
        except ParameterError as error:
            raise ParameterError(f"{path}: {error}") from None

    @classmethod
    def _reject_unknown(cls, names: Iterable[str]) -> None:
        known = [item.name for item in fields(cls)]
        for name in names:
            if name not in known:
                near = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
                hint = f"did you mean '{near[0]}'?" if near else f"known: {', '.join(known)}"
                raise ParameterError(f"unknown parameter '{name}' ({hint})")

    def as_dict(self) -> dict[str, Any]:
        """All values as JSON knows them (tuples become lists)."""
        return json.loads(json.dumps(asdict(self)))

    def config_hash(self) -> str:
        """12 hexadecimal digits that change with every value that may change a result, and with no other."""
        hashed = {item.name: getattr(self, item.name) for item in fields(self) if item.metadata.get("hashed", True)}
        return hashlib.sha256(json.dumps(hashed, sort_keys=True).encode()).hexdigest()[:12]

    def smoke(self) -> Self:
        """The same parameters with every size cut to its ``smoke`` value."""
        cut = {}
        for item in fields(self):
            limit, value = item.metadata.get("smoke"), getattr(self, item.name)
            if limit is not None:
                cut[item.name] = min(value, limit) if isinstance(value, (int, float)) and value > 0 else limit
        return replace(self, **cut)


@dataclass(frozen=True, kw_only=True)
class RunParameters(Parameters):
    """Parameters of a notebook that leaves results in a folder of its profile."""

    profile: str = setting("tiny", "name of the run's folder", pattern=r"[a-z0-9][a-z0-9._-]*", hashed=False)
    output_dir: str = setting("", "folder of the results; empty: runs/<profile>", hashed=False)

    @property
    def output(self) -> Path:
        """Folder that everything of this run is written to; relative names start at the checkout."""
        return project_root() / (self.output_dir or f"runs/{self.profile}")

    @property
    def target(self) -> Path:
        """Where figures go: ``figures/<profile>`` for a profile's own run, a folder inside any other output."""
        own = self.output == project_root() / "runs" / self.profile
        return project_root() / "figures" / self.profile if own else self.output / "figures"

    def smoke(self) -> Self:
        """Reduced sizes, and a folder of their own, so that a check never replaces a result."""
        return replace(super().smoke(), output_dir=f"runs/smoke/{self.profile}")


def _assigned_in_history(history: Any) -> list[str] | None:
    """Names assigned by the last run of assignment-only cells in IPython's ``In``; None where there is no such cell."""
    if not isinstance(history, list):
        return None
    names: list[str] = []
    for source in reversed(history):
        assigned = literal_assignments(source)
        if not source.strip():
            continue
        if assigned is None and names:
            break
        names = [*(assigned or ()), *names]
    return names or None


def literal_assignments(source: str) -> dict[str, Any] | None:
    """``name = literal`` pairs of a cell that holds nothing else (comments aside); None for any other cell."""
    assigned: dict[str, Any] = {}
    try:
        for statement in ast.parse(source).body:
            if isinstance(statement, ast.Assign):
                target = statement.targets[0] if len(statement.targets) == 1 else None
            elif isinstance(statement, ast.AnnAssign):
                target = statement.target
            else:
                return None
            if not isinstance(target, ast.Name) or statement.value is None:
                return None
            assigned[target.id] = ast.literal_eval(statement.value)
    except (SyntaxError, ValueError):
        return None
    return assigned


def _is_candidate(name: str, value: Any) -> bool:
    hidden = name.startswith("_") or name in _IPYTHON_NAMES
    return not (hidden or callable(value) or isinstance(value, (types.ModuleType, Parameters))
                # `from __future__ import annotations` leaves such an object behind.
                or type(value).__module__ == "__future__")


def _describe(kind: Any) -> str:
    """A type hint in the words of an error message."""
    if typing.get_origin(kind) in (types.UnionType, typing.Union):
        return " or ".join("None" if part is type(None) else _describe(part) for part in typing.get_args(kind))
    if typing.get_origin(kind) is tuple:
        return f"a list, each entry {_describe(typing.get_args(kind)[0])}"
    return _PLAIN_NAMES[kind]


def _convert(name: str, value: Any, kind: Any) -> Any:
    """``value`` as ``kind``: whole numbers serve as numbers and lists as tuples, nothing else is converted."""
    if typing.get_origin(kind) in (types.UnionType, typing.Union):
        if value is None:
            return None
        kind_of_value = next(part for part in typing.get_args(kind) if part is not type(None))
    else:
        kind_of_value = kind
    if typing.get_origin(kind_of_value) is tuple and isinstance(value, (list, tuple)):
        return tuple(_convert(f"{name}[{index}]", entry, typing.get_args(kind_of_value)[0])
                     for index, entry in enumerate(value))
    if kind_of_value is float and type(value) is int:
        return float(value)
    if isinstance(kind_of_value, type) and type(value) is kind_of_value:
        return value
    raise ParameterError(f"{name}: {value!r} is a {type(value).__name__}; allowed: {_describe(kind)}")


def _check_allowed(name: str, value: Any, rule: Mapping[str, Any]) -> None:
    if value is None:
        return
    choices, low, high, pattern = rule["choices"], rule["low"], rule["high"], rule["pattern"]
    if choices and value not in choices:
        near = difflib.get_close_matches(str(value), map(str, choices), n=1)
        hint = f" (did you mean '{near[0]}'?)" if near else ""
        raise ParameterError(f"{name}: {value!r} is not allowed{hint}; allowed: {', '.join(map(str, choices))}")
    # Written so that NaN, which compares false with everything, is refused.
    if low is not None and not (value >= low and (high is None or value <= high)):
        allowed = f"at least {low}" if high is None else f"{low} to {high}"
        raise ParameterError(f"{name}: {value!r} is out of range; allowed: {allowed}")
    if pattern and not re.fullmatch(pattern, value):
        raise ParameterError(f"{name}: {value!r} is not allowed; allowed: {rule['help']} (pattern {pattern})")
