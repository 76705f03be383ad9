"""Qwen2.5-VL as the frozen backbone: ``see(clip)`` gives the tapped features of one pass of the vision tower.

Works unchanged for the 7B, 3B and the tiny model of ``data/zoo``: nothing here knows a size.  The heatmap needs the tower
and the rows of the input-embedding table alone, so by default the language model stays on disk.
Source: T-VAD, section on the Anomaly Heatmap Decoder; published taps are blocks 0, 7, 15, 23, 31 (thesis).
"""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torchvision.transforms.v2 import functional as TF

from tvad.allocator import keep_freed_memory
from tvad.backbones import stored, vision
from tvad.backbones.zoo import resolve
from tvad.errors import BackboneError
from tvad.video.clip import Clip


@dataclass(frozen=True)
class Sight:
    """What one pass of the tower saw: tapped maps in raster order and, if asked for, the language model's video tokens."""

    taps: tuple[Float[Tensor, "t h w c"], ...]
    tokens: Float[Tensor, "n d"] | None
    grid: tuple[int, int, int]


class QwenBackbone:
    """A frozen Qwen2.5-VL vision tower with its prompt embedding; make it with :meth:`from_pretrained`."""

    def __init__(
        self, *, visual, embedding, config, directory: Path, processing: dict, taps, attention, language_model=None
    ):
        self.visual = vision.quicken(visual).eval().requires_grad_(False)
        self.embedding, self.config, self.directory, self.processing = embedding, config, directory, processing
        self.language_model = language_model
        self.name, self.attention = directory.name, attention
        self.taps = tuple(taps)
        spec = config.vision_config
        self.tap_width, self.text_width = spec.hidden_size, config.text_config.hidden_size
        self.patch_size, self.temporal_patch_size = spec.patch_size, spec.temporal_patch_size
        self.merge_size = spec.spatial_merge_size
        self.randomness: int | None = None  # seed of an untrained twin
        self.zoom = 1.0  # of an enlarged twin

    @classmethod
    def from_pretrained(
        cls,
        path: str | Path,
        *,
        taps: Sequence[int] | None = None,
        device: str = "auto",
        dtype: str = "auto",
        attention: str = "auto",
        load_language_model: bool = False,
    ) -> QwenBackbone:
        """Load a model directory, zoo name or hub name.

        ``taps``: vision block numbers (0-based); by default block 0 and every full-attention block.  ``dtype`` auto is
        bfloat16 where the hardware multiplies it natively (GPUs, CPUs with AVX-512 BF16 or AMX: 2.5 times faster), else
        float32.  ``attention`` auto is FlashAttention-2 where importable on a GPU.
        Raises BackboneError when the directory is no Qwen2.5-VL model, lacks weights or the taps do not exist.
        """
        from transformers import AutoConfig

        directory = resolve(path)
        config = AutoConfig.from_pretrained(directory)
        if config.model_type != "qwen2_5_vl":
            raise BackboneError(
                f"{directory}: model_type is '{config.model_type}', wanted 'qwen2_5_vl'; give a Qwen2.5-VL model"
            )
        taps = _check_taps(taps, config.vision_config, directory)
        device = torch.device(("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device)
        if device.type == "cpu":
            keep_freed_memory()
        kind = _native_dtype(device) if dtype == "auto" else getattr(torch, dtype)
        kernel, reason = _choose_attention(attention, device)
        language_model = None
        if load_language_model:
            language_model = _load_whole(directory, kind, kernel).to(device).eval().requires_grad_(False)
            visual, embedding = language_model.model.visual, language_model.get_input_embeddings().weight
        else:
            visual, embedding = _load_tower(directory, config, kind, kernel)
            visual = visual.to(device)
        return cls(
            visual=visual,
            embedding=embedding,
            config=config,
            directory=directory,
            taps=taps,
            attention=reason,
            processing=stored.processing(directory),
            language_model=language_model,
        )

    @property
    def device(self) -> torch.device:
        return self.visual.patch_embed.proj.weight.device

    @property
    def dtype(self) -> torch.dtype:
        return self.visual.patch_embed.proj.weight.dtype

    @cached_property
    def vision_fingerprint(self) -> str:
        """Hash of what decides the taps: stored tower weights (sampled evenly), geometry, taps, normalisation.

        Key of feature caches.  It is taken from the files, so that it does not change with the dtype they are loaded in.
        """
        enlarged = () if self.zoom == 1 else (self.zoom,)  # the fingerprint of all that came before stays
        return stored.digest(self._stored["tower"], self.taps, self.processing, self.randomness, *enlarged)

    @cached_property
    def fingerprint(self) -> str:
        """Hash of tower and embedding table: the identity that an anomaly heatmap decoder is bound to."""
        return stored.digest(self.vision_fingerprint, self._stored["embedding"])

    @cached_property
    def language_fingerprint(self) -> str:
        """Hash of everything stored, the language model's layers too: the identity that an adapter is bound to."""
        return stored.digest(self.fingerprint, stored.language_digest(self.directory))

    @cached_property
    def _stored(self) -> dict[str, str]:
        return stored.digests(self.directory)

    def see(self, clip: Clip, *, tokens: bool = False) -> Sight:
        """Tapped features of one clip.  Maps are (ceil(frames / 2), h, w, c) in raster order."""
        return self.see_many([clip], tokens=tokens)[0]

    @torch.inference_mode()
    def see_many(self, clips: Sequence[Clip], *, tokens: bool = False) -> list[Sight]:
        """The same for several clips of one frame size in one pass (attention never crosses temporal patches).

        Raises BackboneError for an empty clip or clips of different sizes.
        """
        sizes = {clip.frames.shape[1:] for clip in clips}
        if len(sizes) != 1 or any(len(clip.frames) == 0 for clip in clips):
            raise BackboneError(
                f"{clips[0].video if clips else 'no clip'}: clips must be non-empty and of one size, "
                f"got {sorted(sizes)}; see them one by one"
            )
        parts = [self.patches(clip.frames) for clip in clips]
        t, (_, h, w) = sum(grid[0] for _, grid in parts), parts[0][1]
        flat = torch.cat([flat for flat, _ in parts]).to(self.dtype)
        taps, merged = vision.run_tower_by_steps(self.visual, flat, grid=(t, h, w), taps=self.taps)
        per_step = h * w // self.merge_size**2
        sights, at = [], 0
        for _, (steps, _, _) in parts:
            own = merged[at * per_step : (at + steps) * per_step] if tokens else None
            sights.append(Sight(tuple(tap[at : at + steps] for tap in taps), own, (steps, h, w)))
            at += steps
        return sights

    def forward(self, patches: Float[Tensor, "p d"], grid: tuple[int, int, int]):
        """Flat patches to (taps, merged tokens); differentiable where the tower's parameters are."""
        return vision.run_tower(self.visual, patches.to(self.dtype), grid=grid, taps=self.taps)

    def patches(self, frames: np.ndarray) -> tuple[Float[Tensor, "p d"], tuple[int, int, int]]:
        """uint8 frames (t h w 3) to the tower's input on its device, resized by the stock rule when they do not fit."""
        images = torch.from_numpy(np.ascontiguousarray(frames)).to(self.device)
        height, width = self._fitted(*frames.shape[1:3], self.zoom)
        if (height, width) != frames.shape[1:3]:
            channels_first = images.permute(0, 3, 1, 2)
            images = TF.resize(channels_first, [height, width], TF.InterpolationMode.BICUBIC, antialias=True).permute(
                0, 2, 3, 1
            )
        return vision.patchify(
            images,
            patch=self.patch_size,
            merge=self.merge_size,
            temporal=self.temporal_patch_size,
            mean=self.processing["image_mean"],
            std=self.processing["image_std"],
        )

    def input_size(self, height: int, width: int) -> tuple[int, int]:
        """Frame size at which the tower sees a video of this size (multiples of patch * merge, pixel budget kept).

        An enlarged twin enlarges what would have been seen: footage is reduced to the same size for both.
        """
        return self._fitted(height, width, 1.0)

    def seen_size(self, height: int, width: int) -> tuple[int, int]:
        """Frame size that ``patches`` cuts up: :meth:`input_size`, enlarged where this is an enlarged twin."""
        return self._fitted(height, width, self.zoom)

    def _fitted(self, height: int, width: int, zoom: float) -> tuple[int, int]:
        from transformers.models.qwen2_vl.video_processing_qwen2_vl import smart_resize

        return smart_resize(
            round(height * zoom),
            round(width * zoom),
            factor=self.patch_size * self.merge_size,
            min_pixels=round(self.processing["min_pixels"] * zoom**2),
            max_pixels=round(self.processing["max_pixels"] * zoom**2),
        )

    def embed_prompts(self, sentences: Sequence[str]) -> Float[Tensor, "n d"]:
        """Masked mean of the input-embedding rows of each sentence, float32, no special tokens, no language-model pass."""
        table = self.embedding.detach()
        rows = [self.tokenizer(s, add_special_tokens=False)["input_ids"] for s in sentences]
        return torch.stack([table[torch.tensor(ids, device=table.device)].float().mean(0) for ids in rows])

    @cached_property
    def tokenizer(self):
        """The model directory's own tokenizer."""
        from transformers import AutoTokenizer

        return AutoTokenizer.from_pretrained(self.directory)

    def randomised(self, *, seed: int) -> QwenBackbone:
        """A copy with an untrained tower: the control that says what the trained features are worth."""
        import copy

        twin = copy.copy(self)
        for name in ("vision_fingerprint", "fingerprint", "language_fingerprint"):
            twin.__dict__.pop(name, None)
        twin.visual, twin.name, twin.randomness = copy.deepcopy(self.visual), f"{self.name}-random{seed}", seed
        vision.reinitialise(twin.visual, seed=seed)
        return twin

    def enlarged(self, zoom: float) -> QwenBackbone:
        """A copy that sees pictures ``zoom`` times as large, within a pixel budget ``zoom`` squared times as large.

        Weights are shared; maps have more patches, and ``fingerprint``, so caches and checkpoints, is another one.
        Raises BackboneError for a zoom that is not a positive number, or where the tower was adapted at another one.
        """
        import copy

        if getattr(self, "tower_adapter", None) is not None:
            raise BackboneError(f"{self.name}: its tower was adapted at zoom {self.zoom:g}; enlarge the backbone first")
        if not 0 < zoom < float("inf"):
            raise BackboneError(f"{self.name}: zoom {zoom} must be a positive number")
        twin = copy.copy(self)
        for name in ("vision_fingerprint", "fingerprint", "language_fingerprint"):
            twin.__dict__.pop(name, None)
        twin.zoom = zoom
        return twin

    def flops(self, *, t: int, h: int, w: int) -> int:
        """Floating-point operations of one pass over a ``t h w`` patch grid."""
        return vision.tower_flops(self.config.vision_config, t=t, h=h, w=w)


def _check_taps(taps, spec, directory: Path) -> tuple[int, ...]:
    chosen = tuple(taps) if taps is not None else tuple(sorted({0, *spec.fullatt_block_indexes}))
    if not chosen or any(not 0 <= i < spec.depth for i in chosen):
        raise BackboneError(
            f"{directory}: taps {list(chosen)} do not exist; its vision tower has blocks 0 to {spec.depth - 1}"
        )
    return chosen


def _native_dtype(device: torch.device) -> torch.dtype:
    if device.type != "cpu":
        return torch.bfloat16
    asked = (getattr(torch.cpu, name, None) for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"))
    return torch.bfloat16 if any(probe is not None and probe() for probe in asked) else torch.float32


def _choose_attention(wanted: str, device: torch.device) -> tuple[str, str]:
    """The attention implementation and the reason, as a string that provenance records keep."""
    if wanted == "flash_attention_2" and importlib.util.find_spec("flash_attn") is None:
        raise BackboneError(
            "attention='flash_attention_2': the package flash_attn is not installed; pip install flash-attn (needs a GPU), "
            "or leave attention='auto'"
        )
    if wanted != "auto":
        return wanted, f"{wanted} (asked for)"
    if device.type != "cuda":
        return "sdpa", f"sdpa, windows batched (FlashAttention-2 needs a GPU, device is {device.type})"
    if importlib.util.find_spec("flash_attn") is None:
        reason = "sdpa, windows batched (flash_attn not importable); expect a slower vision tower, pip install flash-attn"
        warnings.warn(f"attention: {reason}", stacklevel=3)
        return "sdpa", reason
    return "flash_attention_2", "flash_attention_2"


def _load_tower(directory: Path, config, dtype: torch.dtype, kernel: str):
    """The tower and the embedding rows alone, read from the shards that hold them."""
    from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import Qwen2_5_VisionTransformerPretrainedModel

    tower, embedding = {}, None
    for name, value in stored.tensors(directory):
        if name:
            tower[name] = value.to(dtype)
        else:
            embedding = value
    config.vision_config._attn_implementation = kernel
    visual = Qwen2_5_VisionTransformerPretrainedModel._from_config(config.vision_config, dtype=dtype)
    missing = sorted(set(visual.state_dict()) - set(tower))
    if missing or embedding is None:
        first = missing[0] if missing else stored.EMBEDDING_KEYS[0]
        raise BackboneError(
            f"{directory}: {len(missing) + (embedding is None)} weights missing, first '{first}'; "
            "is the download complete? fetch the model again (tiny: make zoo)"
        )
    try:
        visual.load_state_dict(tower, strict=False)  # nothing is missing; a newer file may hold buffers we do not know
    except RuntimeError as error:
        raise BackboneError(
            f"{directory}: weights do not fit config.json ({str(error).splitlines()[-1].strip()}); "
            "are both of one model? fetch the model again (tiny: make zoo)"
        ) from error
    return visual, embedding


def _load_whole(directory: Path, dtype: torch.dtype, kernel: str):
    from transformers import Qwen2_5_VLForConditionalGeneration

    model, report = Qwen2_5_VLForConditionalGeneration.from_pretrained(
        directory, dtype=dtype, attn_implementation=kernel, output_loading_info=True
    )
    if missing := sorted(report["missing_keys"]):
        raise BackboneError(
            f"{directory}: {len(missing)} weights missing, first '{missing[0]}'; the directory holds no whole "
            "language model: the heatmap works without one, for conversations fetch the model again (tiny: make zoo)"
        )
    return model
