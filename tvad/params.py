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
class Phase1(Parameters):
    """Parameters of ``notebooks/phase1_ahd.ipynb``: train the Anomaly Heatmap Decoder, then measure and draw it."""

    profile: str = setting("tiny", "name of the run's folder", pattern=r"[a-z0-9][a-z0-9._-]*", hashed=False)
    # Data.
    dataset: str = setting("simcampus", "data set that is evaluated", choices=DATASETS)
    protocol: str = setting("scene-disjoint", "how the evaluated data set is split",
                            choices=("scene-disjoint", "open-set", "official"))
    split: str = setting("test", "split that is evaluated", choices=("test", "val", "test-open"))
    train_dataset: str = setting("simcampus", "data set that the decoder learns from", choices=DATASETS)
    train_protocol: str = setting("scene-disjoint", "how the training data set is split",
                                  choices=("scene-disjoint", "open-set", "official"))
    data_root: str | None = setting(None, "folder of the data sets; None: TVAD_DATA, else data/", hashed=False)
    max_videos: int = setting(0, "evaluate the first so many videos; 0: all", low=0, smoke=2)
    decoder: str = setting("pyav", "library that decodes videos", choices=("pyav", "decord", "torchcodec"))
    frames_per_clip: int = setting(16, "frames of one window", low=2, high=256)
    stride: int = setting(16, "frames from window to window in evaluation", low=1, high=256)
    # Model.
    backbone: str = setting("qwen2.5-vl-tiny", "name in data/zoo, a folder, or a hub name")
    taps: tuple[int, ...] = setting((0, 1, 3, 5), "tapped blocks of the vision tower, from 0", low=0, high=127)
    variant: str = setting("paper", "similarity of the decoder", choices=("paper", "thesis"))
    contrast: str = setting("raw", "text prototypes as they are, or less their mean", choices=("raw", "centred"))
    hidden_width: int = setting(128, "hidden width of the decoder's per-tap layers", low=8, high=8192)
    temperature: float = setting(100.0, "factor on the similarities before the softmax", low=0.01, high=1000.0)
    # Training; tvad.training.phase1.Phase1Config takes over what it shares by name.
    seed: int = setting(0, "seed of initial weights, order and patch draws", low=0, high=2**31 - 1)
    loss: str = setting("cross_entropy", "pixel loss", choices=("cross_entropy", "balanced", "focal", "dice"))
    target_rule: str = setting("any", "which patches of a mask count as anomalous", choices=("any", "area", "nearest"))
    target_threshold: float = setting(0.25, "share of a patch that the mask covers, for rule area", low=0.0, high=1.0)
    steps: int = setting(600, "optimizer steps", low=1, high=10_000_000, smoke=6)
    batch_size: int = setting(16, "frame pairs a step", low=1, high=65_536, smoke=4)
    validate_every: int = setting(150, "steps between validations", low=1, high=1_000_000, smoke=3)
    learning_rate: float = setting(1e-3, "peak learning rate of AdamW", low=1e-8, high=1.0)
    weight_decay: float = setting(0.01, "weight decay of AdamW", low=0.0, high=1.0)
    patches_per_pair: int = setting(256, "patches drawn of each pair; 0: whole maps", low=0, high=1_000_000)
    train_pairs: int = setting(2500, "cached training frame pairs in all", low=1, high=10_000_000, smoke=24)
    pairs_per_video: int = setting(0, "cached pairs of each training video; 0: spread evenly", low=0, high=100_000)
    refilmed: float = setting(0.7, "share of training pairs seen through another camera", low=0.0, high=1.0)
    val_pairs: int = setting(400, "cached validation frame pairs in all", low=1, high=10_000_000, smoke=24)
    # Measurement.
    sigma: float | None = setting(None, "smoothing of frame scores in frames; None: chosen on validation",
                                  low=0.0, high=1000.0)
    top_fraction: float = setting(0.01, "share of heatmap pixels that make the frame score", low=1e-6, high=1.0)
    bootstrap_samples: int = setting(1000, "bootstrap samples over videos", low=10, high=100_000, smoke=20)
    # Where it runs; nothing here may change a result beyond rounding.
    output_dir: str = setting("", "folder of the results; empty: runs/<profile>", hashed=False)
    device: str = setting("auto", "auto, cpu, cuda or cuda:<n>", pattern=r"auto|cpu|mps|cuda(:\d+)?", hashed=False)
    dtype: str = setting("auto", "number format of the backbone", choices=("auto", "float32", "bfloat16", "float16"))
    attention: str = setting("auto", "attention kernel of the backbone",
                             choices=("auto", "sdpa", "eager", "flash_attention_2"), hashed=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.taps or list(self.taps) != sorted(set(self.taps)):
            raise ParameterError(f"taps: {list(self.taps)} is not allowed; allowed: one block or more, ascending, "
                                 "each once")
        if self.dataset == self.train_dataset and self.protocol != self.train_protocol:
            raise ParameterError(f"train_protocol: {self.train_protocol!r} is not allowed with protocol "
                                 f"{self.protocol!r} of the same data set, a decoder must be measured by the protocol "
                                 f"that it was trained under; allowed: {self.protocol}")
        if self.stride > self.frames_per_clip:
            raise ParameterError(f"stride: {self.stride} would leave frames between windows unseen; allowed: "
                                 f"1 to frames_per_clip ({self.frames_per_clip})")

    @property
    def output(self) -> Path:
        """Folder that everything of this run is written to; relative names start at the checkout."""
        return project_root() / (self.output_dir or f"runs/{self.profile}")

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
