"""The stock Qwen2.5-VL vision tower, made quick and tapped in raster order.

Differences from calling ``model.visual`` as it ships:

* Block outputs come in **window order** and in groups of ``merge**2`` patches; :func:`raster` undoes both, so that a tap
  is a ``t h w c`` map (the stock class restores the order of the merged tokens alone).
* The patch embedding is a Conv3d whose kernel equals its stride, hence a matrix product; :class:`LinearPatchEmbed`
  computes it so (some GPU/torch pairs pick a convolution kernel that is orders of magnitude slower).
* Without FlashAttention the stock class calls SDPA once a window; :class:`BatchedWindowAttention` runs all windows of one
  length in one call.

Both replacements keep every parameter's name and shape: a checkpoint of the stock class loads and saves unchanged.
Source: T-VAD, features V_i after vision block i (eq. 5); window attention as in the Qwen2.5-VL report.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from contextvars import ContextVar

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import (
    Qwen2_5_VisionPatchEmbed,
    Qwen2_5_VisionTransformerPretrainedModel,
    Qwen2_5_VLVisionAttention,
    apply_rotary_pos_emb_vision,
)
from transformers.vision_utils import get_vision_window_index

from tvad.cores import on_each_core
from tvad.errors import BackboneError

STEPS = 2  # temporal patches a core looks at in one go: more fall out of its caches
# What the tapped blocks of the pass under way in this thread gave; hooks that come and go would meet another thread's pass.
_KEPT: ContextVar[dict[int, Tensor] | None] = ContextVar("kept", default=None)


class LinearPatchEmbed(Qwen2_5_VisionPatchEmbed):
    """The stock patch embedding computed as one matrix product; same parameters."""

    def forward(self, hidden_states: Float[Tensor, "n p"]) -> Float[Tensor, "n c"]:
        weight = self.proj.weight.flatten(1)
        return F.linear(hidden_states.view(-1, weight.shape[1]).to(weight.dtype), weight)


class BatchedWindowAttention(Qwen2_5_VLVisionAttention):
    """The stock attention with one SDPA call for each window length instead of one for each window."""

    def forward(self, hidden_states, cu_seqlens, position_embeddings=None, max_seqlen=None, **kwargs):
        if self.config._attn_implementation != "sdpa":
            return super().forward(hidden_states, cu_seqlens, position_embeddings, max_seqlen, **kwargs)
        tokens = hidden_states.shape[0]
        query, key, value = self.qkv(hidden_states).reshape(tokens, 3, self.num_heads, -1).unbind(1)
        query, key = apply_rotary_pos_emb_vision(query, key, *position_embeddings)
        lengths = (cu_seqlens[1:] - cu_seqlens[:-1]).tolist()
        if len(set(lengths)) == 1:
            mixed = self._attend(query, key, value, windows=len(lengths))
        else:
            mixed = torch.empty_like(value)
            starts = cu_seqlens[:-1]
            for length in sorted(set(lengths)):
                chosen = torch.tensor([i for i, n in enumerate(lengths) if n == length], device=starts.device)
                rows = (starts[chosen].long()[:, None] + torch.arange(length, device=starts.device)).flatten()
                mixed = mixed.index_copy(0, rows, self._attend(query[rows], key[rows], value[rows], windows=len(chosen)))
        return self.proj(mixed.reshape(tokens, -1))

    def _attend(self, query, key, value, *, windows: int):
        query, key, value = (x.unflatten(0, (windows, -1)).transpose(1, 2) for x in (query, key, value))
        if query.device.type == "cpu" and query.dtype == torch.bfloat16:
            # PyTorch's CPU flash kernel loses to two plain products in bfloat16 (measured: 1.4 times).
            mixed = ((query * self.scaling) @ key.transpose(-1, -2)).softmax(-1) @ value
        else:
            mixed = F.scaled_dot_product_attention(query, key, value, scale=self.scaling)
        return mixed.transpose(1, 2).flatten(0, 1)


def quicken(visual: Qwen2_5_VisionTransformerPretrainedModel) -> Qwen2_5_VisionTransformerPretrainedModel:
    """Swap the two slow forwards in place, make blocks tappable; parameters, names and results (to rounding) stay."""
    # Only the class changes: the modules keep their tensors, so loaded, quantised or sharded weights all survive.
    visual.patch_embed.__class__ = LinearPatchEmbed
    for number, block in enumerate(visual.blocks):
        if not isinstance(block.attn, BatchedWindowAttention):      # else it has been here before
            block.register_forward_hook(functools.partial(_keep, number))
        block.attn.__class__ = BatchedWindowAttention
    return visual


def _keep(number: int, _block: nn.Module, _inputs: tuple, output: Tensor) -> None:
    kept = _KEPT.get()
    if kept is not None and number in kept:
        kept[number] = output


def patchify(
    frames: UInt8[Tensor, "n h w 3"],
    *,
    patch: int,
    merge: int,
    temporal: int,
    mean: Sequence[float],
    std: Sequence[float],
) -> tuple[Float[Tensor, "p d"], tuple[int, int, int]]:
    """Frames to the flat patches that the stock processor makes (rescaled and normalised), and their grid (t, h, w).

    An odd clip repeats its last frame to fill the temporal patch, as the stock processor does.
    Height and width must be multiples of ``patch * merge``.
    """
    if short := -len(frames) % temporal:
        frames = torch.cat([frames, frames[-1:].expand(short, -1, -1, -1)])
    n, height, width, _ = frames.shape
    t, h, w = n // temporal, height // patch, width // patch
    scale = torch.tensor([1 / (255 * s) for s in std], device=frames.device)
    shift = torch.tensor([m / s for m, s in zip(mean, std, strict=True)], device=frames.device)
    pixels = frames.to(torch.float32) * scale - shift
    pixels = pixels.view(t, temporal, h // merge, merge, patch, w // merge, merge, patch, 3)
    flat = pixels.permute(0, 2, 5, 3, 6, 8, 1, 4, 7).reshape(t * h * w, -1)
    return flat, (t, h, w)


def raster(
    hidden: Float[Tensor, "p c"], window_index: Int[Tensor, " g"], *, grid: tuple[int, int, int], merge: int
) -> Float[Tensor, "t h w c"]:
    """Block output in window order to a map in raster order: undo the windows, then un-group the merge blocks."""
    t, h, w = grid
    groups = hidden.unflatten(0, (-1, merge * merge))[torch.argsort(window_index)]
    blocks = groups.view(t, h // merge, w // merge, merge, merge, -1)
    return blocks.transpose(2, 3).reshape(t, h, w, -1)


def run_tower(
    visual: Qwen2_5_VisionTransformerPretrainedModel,
    patches: Float[Tensor, "p d"],
    *,
    grid: tuple[int, int, int],
    taps: Sequence[int],
) -> tuple[tuple[Float[Tensor, "t h w c"], ...], Float[Tensor, "n d"]]:
    """One pass of the tower: the tapped blocks' outputs in raster order and the merged tokens for the language model.

    Only the tapped outputs are kept.  Attention never crosses temporal patches in this tower, so several clips of one size
    may be stacked along time.  Raises BackboneError for a tower that was not quickened (:func:`quicken`).
    """
    kept: dict[int, Tensor | None] = dict.fromkeys(taps)
    grid_thw = torch.tensor([grid], device=patches.device)
    merge = visual.spatial_merge_size
    before = _KEPT.set(kept)
    try:
        window_index, seqlens = get_vision_window_index(
            grid_thw, spatial_merge_size=merge, window_size=visual.window_size, patch_size=visual.patch_size
        )
        merged = visual(patches, grid_thw=grid_thw, window_index=window_index, cu_window_seqlens=seqlens).pooler_output
    finally:
        _KEPT.reset(before)
    if any(output is None for output in kept.values()):
        raise BackboneError("the tower's blocks cannot be tapped; pass it through tvad.backbones.vision.quicken first")
    return tuple(raster(kept[i], window_index, grid=grid, merge=merge) for i in taps), merged


def run_tower_by_steps(
    visual: Qwen2_5_VisionTransformerPretrainedModel,
    patches: Float[Tensor, "p d"],
    *,
    grid: tuple[int, int, int],
    taps: Sequence[int],
) -> tuple[tuple[Float[Tensor, "t h w c"], ...], Float[Tensor, "n d"]]:
    """:func:`run_tower`, a few temporal patches at a time on each core of a CPU (:mod:`tvad.cores`): the same, sooner."""
    t, h, w = grid
    if t <= STEPS or patches.device.type != "cpu":
        return run_tower(visual, patches, grid=grid, taps=taps)
    parts = patches.split(STEPS * h * w)
    seen = list(on_each_core(lambda part: run_tower(visual, part, grid=(len(part) // (h * w), h, w), taps=taps), parts))
    return tuple(torch.cat(maps) for maps in zip(*(maps for maps, _ in seen))), torch.cat([merged for _, merged in seen])


def tower_flops(config, *, t: int, h: int, w: int) -> int:
    """Multiply-adds times two of one pass over a ``t h w`` patch grid, without normalisations and rotary embedding."""
    tokens, width, inner = t * h * w, config.hidden_size, config.intermediate_size
    block = 2 * tokens * width * (4 * width + 3 * inner)
    window = (config.window_size // config.patch_size) ** 2
    full = len(config.fullatt_block_indexes)
    attention = 4 * tokens * width * (full * h * w + (config.depth - full) * min(window, h * w))
    patch = 2 * tokens * width * config.in_channels * config.temporal_patch_size * config.patch_size**2
    grouped = width * config.spatial_merge_size**2
    merger = 2 * (tokens // config.spatial_merge_size**2) * grouped * (grouped + config.out_hidden_size)
    return config.depth * block + attention + patch + merger


@torch.no_grad()
def reinitialise(visual: nn.Module, *, seed: int) -> None:
    """Give the tower new random weights in place (the 'random tower' control): normal matrices, zero biases, unit norms.

    Drawn on the CPU in float32, so that a seed means the same tower on every device and in every dtype.
    """
    generator = torch.Generator().manual_seed(seed)
    for module in visual.modules():
        if isinstance(module, nn.Linear | nn.Conv3d):
            drawn = torch.randn(module.weight.shape, generator=generator) * visual.config.initializer_range
            module.weight.copy_(drawn)
            if module.bias is not None:
                module.bias.zero_()
        elif "RMSNorm" in type(module).__name__:
            module.weight.fill_(1)
