"""The Anomaly Heatmap Decoder (AHD): from tapped vision features and two text prototypes to a heatmap a patch.

Each tapped block has its own MLP into text space; the similarity to the prototypes of "normal" and "abnormal" is the
block's logit; the blocks are summed with softmaxed learnable weights; softmax over the two classes gives the heatmap.

Two variants with the same tensors (``fuse_weights``, ``mlps.{i}.model.{0,2}.weight/.bias``):

- ``paper``: cosine over the features (eq. 7).  The text-width features are never built.  With hidden activations z,
  last layer (W, b) and unit prototype p: p.(Wz + b) = z.(W'p) + b.p and |Wz + b|^2 = z'(W'W)z + 2 z.(W'b) + b.b, all
  linear in z but for one row product.  One product with the (hidden, hidden + 3) matrix [W'W | W'p | W'b] does it: it
  costs hidden/text of the plain way, so keep hidden below text width (equal widths break even).
- ``thesis``: what the published code does and its released weights need.  The norm is taken along the height axis
  for each (time, column, channel), so the values are no cosines; five taps, temperature 100.

Where this differs from the papers: the whole decoder computes in float32, under autocast and from bf16 weights too
(a bf16 logit at temperature 100 collapses into ties); whether the paper softmaxes its weights and keeps the
temperature is not public, here both are as in the thesis; ``contrast="centred"`` is ours (see the class).
"""
from __future__ import annotations

import math
from pathlib import Path
from typing import Any, Mapping, Protocol, Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from tvad.checkpoints import (
    check_fingerprint,
    check_finite,
    check_state,
    load_module,
    read_pickled_state,
    write_weights,
)
from tvad.errors import BackboneError, CheckpointError, ParameterError

VARIANTS = ("paper", "thesis")
CONTRASTS = ("raw", "centred")
FORMAT_VERSION = 1
AUTHOR_CONFIG: dict[str, Any] = {
    "taps": [0, 7, 15, 23, 31], "tap_width": 1280, "hidden_width": 1024, "text_width": 3584, "variant": "thesis",
    "temperature": 100.0, "contrast": "raw",
}
"""The decoder of the published code for Qwen2.5-VL-7B: 21 tensors, 24,926,725 parameters."""
_AUTHOR_PREFIXES = ("model.anomaly_maps_decoder.", "model.language_model.anomaly_maps_decoder.")
_CONVERT = "convert an author's file once with tvad.heatmap.convert_author_checkpoint(pth, safetensors)"


class KnownBackbone(Protocol):
    """What loading compares with the backbone in use."""

    name: str
    fingerprint: str
    taps: tuple[int, ...]
    tap_width: int
    text_width: int


class TapMLP(nn.Module):
    """Linear, ReLU, Linear: one tapped block's features into text space."""

    def __init__(self, tap_width: int, hidden_width: int, text_width: int) -> None:
        super().__init__()
        self.model = nn.Sequential(nn.Linear(tap_width, hidden_width), nn.ReLU(), nn.Linear(hidden_width, text_width))

    def hidden(self, tap: Float[Tensor, "... c"]) -> Float[Tensor, "... k"]:
        """The hidden activations, in float32."""
        first = self.model[0]
        return F.relu(F.linear(tap.float(), first.weight.float(), first.bias.float()))


class AnomalyHeatmapDecoder(nn.Module):
    """Decodes tapped features to normal/abnormal logits, one pair a patch.

    taps: indices of the tapped blocks, in the order of the features given.  tap_width, hidden_width, text_width: widths
    of the block outputs, the MLPs' middle and the prototypes.  temperature: factor on the similarities.
    contrast: ``raw`` compares with both prototypes as they are (the paper).  ``centred`` first subtracts their mean,
    which leaves two opposite directions and so a :meth:`reach` of 2 x temperature whatever the prompts; raw reaches
    temperature x |p_abnormal - p_normal|, small when the prompts of both classes share most of their words.  On a toy
    problem only the reach mattered: 20 to 50 learned best, 3 ranked well but could not say "surely", 1 learned nothing.
    Raises :class:`ParameterError` for values outside these choices.
    """

    def __init__(
        self, *, taps: Sequence[int], tap_width: int, hidden_width: int, text_width: int, variant: str = "paper",
        temperature: float = 100.0, contrast: str = "raw",
    ) -> None:
        super().__init__()
        if variant not in VARIANTS or contrast not in CONTRASTS:
            raise ParameterError(f"heatmap decoder: variant {variant!r} and contrast {contrast!r} must be among "
                                 f"{VARIANTS} and {CONTRASTS}")
        widths = (tap_width, hidden_width, text_width)
        if not taps or len(set(taps)) != len(taps) or min(widths) < 1 or not 0 < temperature < math.inf:
            raise ParameterError(f"heatmap decoder: taps {tuple(taps)} must be distinct and at least one, widths "
                                 f"{widths} and temperature {temperature} positive")
        self.taps, self.variant, self.contrast = tuple(int(tap) for tap in taps), variant, contrast
        self.tap_width, self.hidden_width, self.text_width = tap_width, hidden_width, text_width
        self.temperature = float(temperature)
        self.record: dict[str, Any] = {}  # what the file said that this decoder was loaded from
        self.fuse_weights = nn.Parameter(torch.ones(len(self.taps)))
        self.mlps = nn.ModuleList(TapMLP(tap_width, hidden_width, text_width) for _ in self.taps)

    def forward(
        self, taps: Sequence[Float[Tensor, "t h w c"]], prototypes: Float[Tensor, "2 d"],
    ) -> Float[Tensor, "t 2 h w"]:
        """The logits H_c (channel 0 normal, 1 abnormal), float32, on the taps' device.

        taps: one raster-order map a tapped block, any float type.  Steps in time do not mix, so clips of one size may
        be flattened into t; in the thesis variant the rows of a map do mix, so maps must come whole.
        Raises :class:`BackboneError` when number, shape or width of the inputs do not fit.
        """
        self._check(taps, prototypes)
        with torch.autocast(taps[0].device.type, enabled=False):
            text = self._directions(prototypes.to(taps[0].device))
            score = self._cosine if self.variant == "paper" else self._height_normalised
            weights = self.fuse_weights.float().softmax(0)
            fused = sum(weight * score(mlp, tap, text) for weight, mlp, tap in zip(weights, self.mlps, taps))
            return (self.temperature * fused).movedim(-1, 1)

    def heatmap(
        self, taps: Sequence[Float[Tensor, "t h w c"]], prototypes: Float[Tensor, "2 d"],
    ) -> Float[Tensor, "t h w"]:
        """The probability of "abnormal" a patch (eq. 9), float32, 0 to 1; inputs and errors as in :meth:`forward`."""
        return self(taps, prototypes).softmax(1)[:, 1]

    def similarities(
        self, taps: Sequence[Float[Tensor, "t h w c"]], directions: Float[Tensor, "k d"],
    ) -> Float[Tensor, "t k h w"]:
        """The fused cosines (paper variant) with any number of unit directions, -1 to 1, float32, on the taps' device.

        Raises :class:`BackboneError` when number, shape or width of the inputs do not fit.
        """
        self._check(taps, directions, count=len(directions))
        with torch.autocast(taps[0].device.type, enabled=False):
            text, weights = directions.to(taps[0].device).float(), self.fuse_weights.float().softmax(0)
            fused = sum(weight * self._cosine(mlp, tap, text) for weight, mlp, tap in zip(weights, self.mlps, taps))
            return fused.movedim(-1, 1)

    def reach(self, prototypes: Float[Tensor, "2 d"]) -> float:
        """The largest logit difference that cosines can give with these prototypes; below about 5 (a probability of
        0.993) use ``contrast="centred"`` or a higher temperature.  It does not bound the thesis variant."""
        normal, abnormal = self._directions(prototypes)
        return self.temperature * (abnormal - normal).norm().item()

    def flops(self, t: int, h: int, w: int) -> int:
        """Floating-point operations of the matrix products in one :meth:`forward` over a (t, h, w) grid.

        A multiply-add counts as two; additions, norms and softmax are left out.
        """
        patches, hidden, text = t * h * w, self.hidden_width, self.text_width
        first = patches * self.tap_width * hidden
        if self.variant == "thesis":
            last = patches * text * (hidden + 2)
        else:
            last = patches * hidden * (hidden + 3) + (hidden * text + text) * (hidden + 3)
        return 2 * len(self.taps) * (first + last)

    def save(self, path: Path | str, *, backbone_fingerprint: str, extra: Mapping[str, str] | None = None) -> Path:
        """Write weights and configuration as safetensors, atomically; extra: further facts for the record, such as the
        backbone's name under ``backbone``.  Raises :class:`StorageError` when the disk refuses."""
        record = {"kind": "ahd", "format": FORMAT_VERSION, "config": self.config(),
                  "backbone_fingerprint": backbone_fingerprint, "extra": dict(extra or {})}
        return write_weights(path, self.state_dict(), record)

    @classmethod
    def load(cls, path: Path | str, *, backbone: KnownBackbone | None = None) -> AnomalyHeatmapDecoder:
        """The decoder in a file of :meth:`save` or of ``convert_author_checkpoint``, float32 on the CPU.

        backbone: refuse the file unless it was trained on this backbone; where the file does not say (the author's),
        taps and widths must agree.  ``.record`` keeps the file's own record.
        Raises :class:`CheckpointError` for a missing, pickled, damaged, incomplete or foreign file.
        """
        def check(model: AnomalyHeatmapDecoder, record: Mapping[str, Any]) -> None:
            if backbone is not None:
                check_backbone(path, record, model, backbone)

        return load_module(path, cls, kind="ahd", version=FORMAT_VERSION, what="heatmap decoder", check=check,
                           remedy="was it made by phase 1? run: make reproduce", pickle_remedy=_CONVERT)

    def config(self) -> dict[str, Any]:
        """The constructor's arguments, as JSON can hold them."""
        return {"taps": list(self.taps), "tap_width": self.tap_width, "hidden_width": self.hidden_width,
                "text_width": self.text_width, "variant": self.variant, "temperature": self.temperature,
                "contrast": self.contrast}

    def _directions(self, prototypes: Float[Tensor, "2 d"]) -> Float[Tensor, "2 d"]:
        text = prototypes.float()
        if self.contrast == "centred":
            text = text - text.mean(0)
        return F.normalize(text, dim=-1, eps=1e-6)

    @staticmethod
    def _cosine(mlp: TapMLP, tap: Float[Tensor, "t h w c"], text: Float[Tensor, "k d"]) -> Float[Tensor, "t h w k"]:
        z = mlp.hidden(tap).flatten(0, 2)
        weight, bias = mlp.model[2].weight.float(), mlp.model[2].bias.float()
        right = torch.cat([weight, text.T, bias[:, None]], dim=1)
        products, offset = z @ (weight.T @ right), bias @ right  # columns: W'W z (hidden), W'p (k), W'b (1)
        hidden = z.shape[1]
        square = (z * products[:, :hidden]).sum(-1) + 2 * products[:, -1] + offset[-1]
        dots = products[:, hidden:-1] + offset[hidden:-1]
        # the floor only meets vectors that cancel to rounding error, where a cosine means nothing
        return (dots * square.clamp_min(1e-12).rsqrt()[:, None]).view(*tap.shape[:3], len(text))

    @staticmethod
    def _height_normalised(
        mlp: TapMLP, tap: Float[Tensor, "t h w c"], text: Float[Tensor, "2 d"],
    ) -> Float[Tensor, "t h w 2"]:
        weight, bias = mlp.model[2].weight.float(), mlp.model[2].bias.float()
        steps = []
        for step in tap:  # one step at a time: at full size each is 30 MB of text-width features
            features = F.linear(mlp.hidden(step), weight, bias)
            steps.append(F.normalize(features, dim=0, eps=1e-12) @ text.T)  # dim 0 is the height
        return torch.stack(steps)

    def _check(self, taps: Sequence[Tensor], prototypes: Tensor, *, count: int = 2) -> None:
        shapes = [tuple(tap.shape) for tap in taps]
        fits = len(taps) == len(self.taps) and len(set(shapes)) == 1 and taps[0].ndim == 4
        if not fits or shapes[0][-1] != self.tap_width:
            raise BackboneError(f"heatmap decoder for blocks {self.taps}: wants {len(self.taps)} maps (t, h, w, "
                                f"{self.tap_width}), got {shapes}; is this decoder of this backbone?")
        if tuple(prototypes.shape) != (count, self.text_width):
            raise BackboneError(f"heatmap decoder: wants prototypes {(count, self.text_width)}, got "
                                f"{tuple(prototypes.shape)}; compute them with this backbone: "
                                "tvad.prompts.prototypes(backbone)")


def check_backbone(
    path: Path | str, record: Mapping[str, Any], model: AnomalyHeatmapDecoder, backbone: KnownBackbone,
) -> None:
    """Refuse a decoder file that was trained on another backbone, or whose taps and widths differ from this one's.

    record: the file's own; model: the decoder made from it.  Raises :class:`CheckpointError`.
    """
    if known := record.get("backbone_fingerprint"):
        name = record.get("extra", {}).get("backbone", "another backbone")
        check_fingerprint(path, (known, name), backbone, phase="phase 1")
    ours = (model.taps, model.tap_width, model.text_width)
    theirs = (tuple(backbone.taps), backbone.tap_width, backbone.text_width)
    if ours != theirs:
        raise CheckpointError(f"{path}: made for (taps, tap width, text width) {ours}, but {backbone.name} has "
                              f"{theirs}; open the backbone with these taps, or train phase 1 on it: make reproduce")


def convert_author_checkpoint(source_pth: Path | str, target_safetensors: Path | str) -> Path:
    """Convert the thesis author's file (``step006800.pth``) once; :meth:`AnomalyHeatmapDecoder.load` reads the result.

    Takes the training state ``{epoch, global_step, state_dict, optimizer, best_miou, scaler}`` or a bare state dict,
    perhaps of the whole model; tensors keep their type.  The file does not say which backbone it was trained on, so
    loading compares taps and widths instead.  Raises :class:`CheckpointError`, writing nothing, for a missing, damaged
    or unsafe file, missing or unexpected keys, other shapes, or values that are not finite.
    """
    source = Path(source_pth)
    state = read_pickled_state(source, prefixes=_AUTHOR_PREFIXES)
    with torch.device("meta"):
        wanted = {key: tuple(value.shape) for key, value in AnomalyHeatmapDecoder(**AUTHOR_CONFIG).state_dict().items()}
    check_state(source, state, wanted, remedy="this is not the decoder of the published code; download it again")
    check_finite(source, state)
    record = {"kind": "ahd", "format": FORMAT_VERSION, "config": AUTHOR_CONFIG, "backbone_fingerprint": "",
              "extra": {"backbone": "Qwen2.5-VL-7B-Instruct", "source": source.name}}
    return write_weights(target_safetensors, state, record)
