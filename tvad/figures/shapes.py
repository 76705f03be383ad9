"""Shapes and sizes of the real models, read from their configurations: what the framework overview states.

Nothing is loaded or computed: the models are built without memory (torch's ``meta`` device), the decoder runs once on fake
tensors, and the region encoder is asked, so that the shapes drawn are those that the code makes.
"""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode  # as torch.export uses it; meta tensors know no autocast

from tvad.backbones.zoo import resolve
from tvad.conversation.economy import Economy
from tvad.errors import BackboneError
from tvad.heatmap import AnomalyHeatmapDecoder
from tvad.params import Phase1, Phase2
from tvad.prompts import PromptEnsemble
from tvad.region import make_encoder
from tvad.training.phase2_config import Phase2Config


@dataclass(frozen=True)
class Shapes:
    """A clip's way through the system in numbers.

    ``grid``: (steps, rows, columns) of patches. ``heat``: shape of the logits H_c. In a conversation the tower looks at
    ``steps`` of the steps and gives ``seen`` video tokens, of which the language model reads ``read``, beside ``anomaly``
    tokens. ``widths``: tap, hidden, text. ``parameters``: tower, language, decoder, regions, lora.
    ``trained``: which of the two trained parts were read from a run's files, "decoder" and "regions".
    """

    model: str
    clip: tuple[int, int, int]
    grid: tuple[int, int, int]
    depth: int
    taps: tuple[int, ...]
    widths: tuple[int, int, int]
    heat: tuple[int, ...]
    steps: int
    seen: int
    read: int
    anomaly: int
    layers: int
    region: str
    rank: int
    sentences: int
    parameters: dict[str, int]
    trained: tuple[str, ...] = ()


def shapes_of(model: str, *, size: tuple[int, int], frames: int, decoder: dict[str, Any] | None = None,
              region: dict[str, Any] | None = None, phase2: dict[str, Any] | None = None) -> Shapes:
    """The shapes of ``model`` (zoo name, folder or hub name) for clips of ``frames`` frames of ``size`` (height, width).

    decoder, region: the ``config`` that trained weight files state; without them, those of the notebooks' parameters.
    phase2: ``phase2.json`` of a trained speaker, for what the language model reads and LoRA's rank; else the same.
    Raises :class:`BackboneError` for a model that is not there or no Qwen2.5-VL.
    """
    from transformers import AutoConfig, AutoVideoProcessor, Qwen2_5_VLForConditionalGeneration
    from transformers.models.qwen2_vl.video_processing_qwen2_vl import smart_resize

    directory = resolve(model)
    config = AutoConfig.from_pretrained(directory)
    if config.model_type != "qwen2_5_vl":
        raise BackboneError(f"{directory}: model_type is '{config.model_type}', wanted 'qwen2_5_vl'; give a Qwen2.5-VL "
                            "model")
    spec, text = config.vision_config, config.text_config
    budget = AutoVideoProcessor.from_pretrained(directory).size
    height, width = smart_resize(*size, factor=spec.patch_size * spec.spatial_merge_size,
                                 min_pixels=int(budget["shortest_edge"]), max_pixels=int(budget["longest_edge"]))
    grid = (-(-frames // spec.temporal_patch_size), height // spec.patch_size, width // spec.patch_size)
    first, second = Phase1(), Phase2()
    # Without a choice the backbone taps block 0 and those that attend to the whole picture.
    taps = tuple(dict.fromkeys((0, *spec.fullatt_block_indexes)))
    asked = decoder or {"taps": taps, "tap_width": spec.hidden_size, "hidden_width": first.hidden_width,
                        "text_width": text.hidden_size, "variant": first.variant, "temperature": first.temperature,
                        "contrast": first.contrast}
    told = (phase2 or {}).get("phase2", {})
    economy = Economy(**(phase2 or {}).get("economy", {"every": second.every, "token_step": second.token_step,
                                                         "pool": second.pool}))
    rank = told.get("lora_rank", 16)
    plan = region or {**Phase2Config.from_params(second).encoder, "text_width": text.hidden_size}
    with torch.device("meta"):
        whole, rae = Qwen2_5_VLForConditionalGeneration(config), make_encoder(**plan)
    with FakeTensorMode():
        ahd = AnomalyHeatmapDecoder(**asked)
        maps = [torch.empty(*grid, asked["tap_width"]) for _ in asked["taps"]]
        logits = ahd(maps, torch.empty(2, asked["text_width"]))
    seen_grid = (-(-grid[0] // economy.every), *grid[1:])
    merged = seen_grid[0] * grid[1] * grid[2] // spec.spatial_merge_size**2
    read = economy.read_grid(seen_grid, spec.spatial_merge_size)
    tower = count(whole.model.visual)
    trained = tuple(name for name, given in (("decoder", decoder), ("regions", region)) if given)
    return Shapes(
        model=directory.name, clip=(frames, height, width), grid=grid, depth=spec.depth, taps=tuple(asked["taps"]),
        widths=(asked["tap_width"], asked["hidden_width"], asked["text_width"]), heat=tuple(logits.shape),
        steps=seen_grid[0], seen=merged, read=read[0] * read[1] * read[2] // spec.spatial_merge_size**2,
        anomaly=rae.tokens(seen_grid[0]), layers=text.num_hidden_layers, region=plan["variant"], rank=rank,
        sentences=len(PromptEnsemble().normal),
        parameters={"tower": tower, "language": count(whole) - tower, "decoder": count(ahd), "regions": count(rae),
                    "lora": lora_parameters(text, rank)}, trained=trained)


def lora_parameters(text: Any, rank: int) -> int:
    """Weights of LoRA on q_proj and v_proj of every layer of a text model with this configuration."""
    head = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    outputs = head * (text.num_attention_heads + text.num_key_value_heads)
    return rank * text.num_hidden_layers * (2 * text.hidden_size + outputs)


def count(module: nn.Module) -> int:
    """Parameters of a module, those that two names share once."""
    return sum(value.numel() for value in module.parameters())


def in_words(number: int) -> str:
    """A count of parameters as a label shows it: 744,713 is 0.74M, 7,615,616,512 is 7.6B."""
    for size, letter in ((1e9, "B"), (1e6, "M")):
        if number >= 0.1 * size:
            return f"{number / size:.{2 if number < size else 1}f}{letter}"
    return f"{number / 1e3:.0f}k" if number >= 1000 else str(number)


def times(shape: Sequence[int]) -> str:
    """A shape as a label shows it."""
    return " × ".join(f"{side:,}" for side in shape)
