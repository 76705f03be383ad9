"""Weight files: safetensors with one JSON record in the header, written whole or not at all, loaded strictly.

:func:`load_module` is the one way from a file to a module: the decoder, the region encoder and whatever else phases train.

Pickled weights (`.bin`, `.pt`, `.pth`) can run code when read, so :func:`read_weights` refuses them; an author's
published pickle is read once by :func:`read_pickled_state`, which builds tensors and plain values, nothing else.
The record is one header entry, so equal weights and an equal record give equal bytes (several entries would be stored
in random order).
"""
from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any, Callable, Mapping, Protocol, Sequence

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from tvad.errors import CheckpointError, ParameterError
from tvad.record import atomic_write

PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")
_ENTRY = "tvad"
_REMEDY = "was it made by phase 1? run: make reproduce"
_SCALAR = np.float64(0).__reduce__()[0]
# a stored metric may be a NumPy number: these rebuild a plain number and nothing else, under both of its module names
_NUMPY_NUMBERS = [np.dtype, np.dtypes.Float64DType, np.dtypes.Float32DType, (_SCALAR, "numpy.core.multiarray.scalar"),
                  (_SCALAR, "numpy._core.multiarray.scalar")]


class Named(Protocol):
    """The backbone in use, as far as a file is compared with it."""

    name: str
    fingerprint: str


def write_weights(path: Path | str, tensors: Mapping[str, Tensor], record: Mapping[str, Any]) -> Path:
    """Write tensors and a JSON record to ``path`` (safetensors), beside first, then renamed.

    Raises :class:`CheckpointError` for another suffix and :class:`StorageError` when the disk refuses.
    """
    path = Path(path)
    if path.suffix != ".safetensors":
        raise CheckpointError(f"{path}: weights are written as safetensors; name the file *.safetensors")
    plain = {key: tensor.detach().cpu().contiguous() for key, tensor in tensors.items()}
    text = json.dumps(dict(record), sort_keys=True, ensure_ascii=False)
    atomic_write(path, save(plain, metadata={_ENTRY: text}))
    return path


def load_module(
    path: Path | str, make: Callable[..., nn.Module], *, kind: str, version: int, what: str, remedy: str,
    pickle_remedy: str, check: Callable[[nn.Module, Mapping[str, Any]], None] | None = None,
) -> Any:
    """The module in a weight file, float32 on the CPU; its ``record`` keeps the file's record.

    make: builds the module from the record's ``config`` as keywords.  kind, version: what the record must state.  what:
    the module's name in errors.  remedy, pickle_remedy: what errors advise.  check: further refusals, given module and
    record before the weights are put in.
    Raises :class:`CheckpointError` for a missing, pickled, damaged, incomplete or foreign file.
    """
    tensors, record = read_weights(path, remedy=remedy, pickle_remedy=pickle_remedy)
    if record.get("kind") != kind or record.get("format") != version:
        raise CheckpointError(f"{path}: holds {record.get('kind')!r} of format {record.get('format')!r}, not a {what} of "
                              f"format {version}; {remedy}")
    with torch.device("meta"):  # no initialisation to throw away, and no random numbers drawn
        try:
            module = make(**record["config"])
        except (KeyError, TypeError, ParameterError) as error:
            raise CheckpointError(f"{path}: its record does not describe a {what} ({error}); {remedy}") from error
    check_state(path, tensors, {key: tuple(value.shape) for key, value in module.state_dict().items()}, remedy=remedy)
    if check is not None:
        check(module, record)
    module.load_state_dict({key: value.float() for key, value in tensors.items()}, strict=True, assign=True)
    module.record = record
    return module


def check_fingerprint(path: Path | str, trained: tuple[str | None, str], backbone: Named, *, phase: str) -> None:
    """Refuse what was trained on another backbone.

    trained: fingerprint and name of the backbone that the file states.  phase: that makes such files, as "phase 1".
    Raises :class:`CheckpointError`.
    """
    fingerprint, name = trained
    if fingerprint != backbone.fingerprint:
        raise CheckpointError(f"{path}: was trained on {name} (fingerprint {fingerprint}), not on {backbone.name} "
                              f"(fingerprint {backbone.fingerprint}); load that backbone, or train {phase} on this "
                              "one: make reproduce")


def read_weights(
    path: Path | str, *, remedy: str = _REMEDY, pickle_remedy: str = "convert it to safetensors first",
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors and the JSON record of a file that :func:`write_weights` wrote; all tensors are checked to be finite.

    remedy, pickle_remedy: what errors advise.
    Raises :class:`CheckpointError` for a missing, pickled, damaged or foreign file.
    """
    path = Path(path)
    if path.suffix in PICKLES:
        raise CheckpointError(f"{path}: pickled weights ({path.suffix}) are not loaded, they can run code; "
                              f"{pickle_remedy}")
    if not path.is_file():
        raise CheckpointError(f"{path}: no such weight file; {remedy}")
    try:
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            tensors = {key: file.get_tensor(key) for key in file.keys()}
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path}: damaged or no safetensors file ({error}); make it again: "
                              "make reproduce") from error
    try:
        record = json.loads(header[_ENTRY])
    except (KeyError, json.JSONDecodeError) as error:
        raise CheckpointError(f"{path}: a safetensors file without this workbook's record; {remedy}") from error
    check_finite(path, tensors)
    return tensors, record


def check_finite(path: Path | str, tensors: Mapping[str, Tensor]) -> None:
    """Refuse weights that hold NaN or infinity, naming the first."""
    for key, tensor in tensors.items():
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            raise CheckpointError(f"{path}: tensor '{key}' holds values that are not finite; the training that wrote "
                                  "it diverged, take an earlier checkpoint")


def check_state(
    path: Path | str, found: Mapping[str, Tensor], wanted: Mapping[str, tuple[int, ...]], *, remedy: str = _REMEDY,
) -> None:
    """Refuse a state dict with missing or unexpected keys or other shapes; wanted: shape by key.

    The error names the file, how many keys are wrong and the first of them, and the remedy.
    """
    missing = [key for key in wanted if key not in found]
    extra = [key for key in found if key not in wanted]
    other = [key for key in wanted if key in found and tuple(found[key].shape) != tuple(wanted[key])]
    said = [f"{len(keys)} key{'s' * (len(keys) > 1)} {what}, first '{keys[0]}'"
            for keys, what in ((missing, "missing"), (extra, "unexpected")) if keys]
    if other:
        said.append(f"{len(other)} tensor{'s' * (len(other) > 1)} of another shape, first '{other[0]}' "
                    f"{tuple(found[other[0]].shape)} instead of {tuple(wanted[other[0]])}")
    if said:
        raise CheckpointError(f"{path}: {'; '.join(said)}; {remedy}")


def read_pickled_state(
    source: Path | str, *, entry: str = "state_dict", prefixes: Sequence[str] = (),
) -> dict[str, Tensor]:
    """The state dict in an author's PyTorch file, read with ``weights_only`` and mapped, not copied, where possible.

    entry: where a training state keeps the weights; a file without it is taken as the bare state dict.
    prefixes: names under which a whole model may keep the module; where one occurs only its tensors are taken, with the
    prefix off.  Without a prefix every entry counts, so that a foreign file is noticed.
    Raises :class:`CheckpointError` for a missing or damaged file or one that holds more than tensors and plain values.
    """
    source = Path(source)
    if not source.is_file():
        raise CheckpointError(f"{source}: no such file; download the author's checkpoint and name it here")
    loaded = _unpickle(source)
    state = loaded.get(entry, loaded) if isinstance(loaded, dict) else None
    if not isinstance(state, dict) or not all(isinstance(key, str) for key in state):
        raise CheckpointError(f"{source}: holds no state dict; it must be the author's training state or the "
                              "weights alone")
    for prefix in prefixes:
        inside = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
        if inside:
            state = inside
            break
    odd = [key for key, value in state.items() if not isinstance(value, Tensor)]
    if odd:
        raise CheckpointError(f"{source}: entry '{odd[0]}' of the state dict is no tensor; it must be the author's "
                              "training state or the weights alone")
    return dict(state)


def _unpickle(source: Path) -> Any:
    try:
        with torch.serialization.safe_globals(_NUMPY_NUMBERS):
            try:
                return torch.load(source, map_location="cpu", weights_only=True, mmap=True)
            except RuntimeError:  # the oldest torch format cannot be mapped
                return torch.load(source, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(f"{source}: damaged, or holds Python objects beyond tensors and plain values, which are "
                              "not loaded because they can run code; download it again from its author") from error
    except (RuntimeError, EOFError, OSError, ValueError) as error:
        raise CheckpointError(f"{source}: damaged or no PyTorch checkpoint ({error}); download it again") from error
