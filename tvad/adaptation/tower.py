"""Low-rank adaptation of the vision tower to one camera: a twin of the backbone whose blocks learn, and its file.

    twin = attach(backbone, rank=16, seed=0)        # trainable; the backbone given stays as it is
    seeing = twin.merged()                          # as quick as the tower it came from
    save_tower("tower.safetensors", seeing)
    seeing = load_tower("tower.safetensors", backbone)

PEFT's LoRA lies on the products of attention and MLP of the blocks from ``first`` on.  Detection runs on merged weights:
the products are added in float32 and rounded once to the tower's own type, so that a saved and loaded tower is the one
that was validated.  A twin is another backbone to every cache and every decoder file: its fingerprint is that of the
base and of the adapter together.
"""
from __future__ import annotations

import copy
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tvad.checkpoints import check_state, read_weights, write_weights
from tvad.errors import BackboneError, CheckpointError, ParameterError

KIND, FORMAT_VERSION = "tower-adapter", 1
PARTS = ("attn.qkv", "attn.proj", "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj")
_REMEDY = "adapt again: make adapt VIDEO=…"
_IDENTITIES = ("vision_fingerprint", "fingerprint", "language_fingerprint")


class TowerTwin:
    """A backbone with a trainable adapter in its tower; ``backbone`` sees with it, ``adapter`` holds its parameters.

    ``config``: rank, scale and first block, as :func:`attach` took them; ``base``: the backbone it was made from.
    """

    def __init__(self, base: Any, *, rank: int, scale: float, first: int, seed: int) -> None:
        self.base, self.config = base, {"rank": rank, "scale": scale, "first": first}
        self.backbone = _twin(base)
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            _inject(self.backbone.visual, self.config)
        self.adapter: dict[str, nn.Parameter] = {
            _plain(name): value for name, value in self.backbone.visual.named_parameters() if "lora_" in name}
        for value in self.adapter.values():
            value.data = value.data.float()     # the tower may be in half precision, what learns is not
            value.requires_grad_(True)

    def merged(self) -> Any:
        """A plain backbone that sees with the weights adapted so far; :func:`save_tower` writes what it added."""
        return _merged(self.base, self.config, self.adapter)


def attach(backbone: Any, *, rank: int = 16, scale: float = 2.0, first: int = 1, seed: int = 0) -> TowerTwin:
    """A trainable twin of a backbone, which sees as the backbone does until it is trained (B is zero).

    ``rank`` of each product's adapter, ``scale``: factor on it; ``first``: the first block that learns, those before it
    need no backward pass.  Raises as :func:`check_adaptable`.
    """
    check_adaptable(backbone, rank=rank, scale=scale, first=first)
    return TowerTwin(backbone, rank=rank, scale=float(scale), first=first, seed=seed)


def check_adaptable(backbone: Any, *, rank: int = 16, scale: float = 2.0, first: int = 1) -> None:
    """Raise what :func:`attach` would, at no cost: :class:`ParameterError` for a rank or block that cannot be,
    :class:`BackboneError` for a backbone that has no tower of blocks, or an adapted one."""
    visual = getattr(backbone, "visual", None)
    if visual is None or not hasattr(visual, "blocks"):
        raise BackboneError(f"{getattr(backbone, 'name', 'backbone')}: has no tower of blocks that could be adapted; use "
                            "tower_rank=0, which adapts the decoder alone")
    if is_adapted(backbone):
        raise BackboneError(f"{backbone.name}: its tower is adapted already; start from the backbone itself")
    if rank < 1 or not scale > 0 or not 0 <= first < len(visual.blocks):
        raise ParameterError(f"tower adapter: rank {rank} must be at least 1, scale {scale} above 0 and first a block "
                             f"from 0 to {len(visual.blocks) - 1}, got {first}")


def is_adapted(backbone: Any) -> bool:
    """Whether a backbone sees with an adapted tower."""
    return getattr(backbone, "tower_adapter", None) is not None


def save_tower(path: Path | str, seeing: Any) -> Path:
    """Write the adapter of a merged backbone as safetensors, atomically, with the fingerprints of base and adapter.

    Raises :class:`BackboneError` for a backbone that is not adapted, :class:`tvad.errors.StorageError` when the disk
    refuses.
    """
    if not is_adapted(seeing):
        raise BackboneError(f"{seeing.name}: its tower is not adapted; there is nothing to save")
    record, tensors = seeing.tower_adapter
    return write_weights(path, tensors, record)


def load_tower(path: Path | str, backbone: Any) -> Any:
    """The backbone with the adapter of a file merged into its tower.

    Raises :class:`CheckpointError` for a missing, damaged or incomplete file, one of another backbone, or one whose values
    are not those that were written.
    """
    tensors, record = read_weights(path, remedy=_REMEDY)
    if record.get("kind") != KIND or record.get("format") != FORMAT_VERSION:
        raise CheckpointError(f"{path}: holds {record.get('kind')!r} of format {record.get('format')!r}, not an adapter of "
                              f"a tower; {_REMEDY}")
    if record.get("backbone_fingerprint") != backbone.fingerprint:
        raise CheckpointError(f"{path}: was trained on {record.get('backbone')} (fingerprint "
                              f"{record.get('backbone_fingerprint')}), not on {backbone.name} (fingerprint "
                              f"{backbone.fingerprint}); load that backbone, or {_REMEDY}")
    try:
        fresh = attach(backbone, **record["config"])
    except (KeyError, TypeError, ParameterError) as error:
        raise CheckpointError(f"{path}: its record describes no adapter of this tower ({error}); {_REMEDY}") from error
    check_state(Path(path), tensors, {name: tuple(value.shape) for name, value in fresh.adapter.items()}, remedy=_REMEDY)
    if digest_of(tensors) != record.get("adapter_fingerprint"):
        raise CheckpointError(f"{path}: its values are not those that were saved; {_REMEDY}")
    return _merged(backbone, record["config"], tensors)


def digest_of(adapter: Mapping[str, Tensor]) -> str:
    """Hash of an adapter's values."""
    digest = hashlib.sha256()
    for name, value in sorted(adapter.items()):
        digest.update(name.encode() + value.detach().cpu().float().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def _twin(base: Any) -> Any:
    """A copy with a tower of its own; it has no language model, whose tower would be the old one."""
    twin = copy.copy(base)
    for name in _IDENTITIES:
        twin.__dict__.pop(name, None)
    twin.visual, twin.language_model = copy.deepcopy(base.visual), None
    return twin


def _inject(visual: nn.Module, config: Mapping[str, Any]) -> nn.Module:
    from peft import LoraConfig, inject_adapter_in_model

    wanted = [f"blocks.{number}.{part}" for number in range(config["first"], len(visual.blocks)) for part in PARTS]
    lora = LoraConfig(r=config["rank"], lora_alpha=config["scale"] * config["rank"], lora_dropout=0.0,
                      target_modules=wanted)
    return inject_adapter_in_model(lora, visual)


def _plain(name: str) -> str:
    return name.replace(".default", "")


@torch.no_grad()
def _merged(base: Any, config: Mapping[str, Any], adapter: Mapping[str, Tensor]) -> Any:
    """Weights plus ``scale`` * B A, summed in float32 and rounded once: PEFT would round the product first."""
    twin = _twin(base)
    digest = digest_of(adapter)
    for name in sorted({key.rpartition(".lora_")[0] for key in adapter}):
        weight = twin.visual.get_submodule(name).weight
        down, up = (adapter[f"{name}.lora_{side}.weight"].to(weight.device, torch.float32) for side in "AB")
        weight.copy_(weight.float() + config["scale"] * (up @ down))
    record = {"kind": KIND, "format": FORMAT_VERSION, "config": dict(config), "backbone": base.name,
              "backbone_fingerprint": base.fingerprint, "adapter_fingerprint": digest}
    twin.tower_adapter = (record, {name: value.detach().cpu().clone() for name, value in adapter.items()})
    twin.name = f"{base.name}-adapted-{digest[:6]}"
    joined = hashlib.sha256(f"{base.vision_fingerprint} {sorted(config.items())} {digest}".encode()).hexdigest()[:16]
    twin.__dict__["vision_fingerprint"] = joined    # in place of what the stored files say
    return twin
