"""What all region encoders share: the interface, the checks of their inputs, and the weight file."""
from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, Mapping, Protocol, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from tvad.checkpoints import write_weights
from tvad.errors import BackboneError, CheckpointError, ParameterError
from tvad.region.paint import CELLS

FORMAT_VERSION = 1


class TextBackbone(Protocol):
    """What loading compares with the backbone in use."""

    name: str
    fingerprint: str
    text_width: int


class RegionEncoder(nn.Module, ABC):
    """Heatmaps (b, t, h, w) of anomaly probabilities to anomaly tokens (b, n, d) of the language model's width d.

    Everything is computed in float32, under autocast too; the caller casts to the language model's type.  A step is one
    temporal patch; clips of one batch have one shape, :meth:`encode` takes any mixture.
    """

    variant: str = ""
    looks = 0  # how many video tokens forward picks; it then wants them all
    painted = False  # whether they may carry the colours of their cells, see ``paint.py``

    def __init__(self, *, text_width: int) -> None:
        super().__init__()
        if text_width < 1:
            raise ParameterError(f"region encoder: text_width must be positive, got {text_width}")
        self.text_width = text_width
        self.record: dict[str, Any] = {}  # what the file said that this encoder was loaded from

    def forward(
        self, heatmap: Float[Tensor, "b t h w"], seen: Float[Tensor, "b m d"] | None = None,
    ) -> Float[Tensor, "b n d"]:
        """The anomaly tokens, float32, on the heatmap's device, n = :meth:`tokens` (t).

        seen: the tower's merged video tokens of the same clips, flat in raster order; only encoders with ``looks``
        use them.  Raises :class:`BackboneError` for inputs of another shape.
        """
        self._check(heatmap, seen)
        with torch.autocast(heatmap.device.type, enabled=False):
            return self._tokens(heatmap.float(), seen.float() if self.looks else None)

    def encode(
        self, heatmaps: Sequence[Float[Tensor, "t h w"]], seen: Sequence[Float[Tensor, "m d"]] | None = None,
    ) -> list[Float[Tensor, "n d"]]:
        """The tokens of clips of any lengths and sizes; clips of one shape share a pass."""
        groups: dict[tuple[int, ...], list[int]] = {}
        looking = bool(self.looks) and seen is not None
        for index, heatmap in enumerate(heatmaps):
            groups.setdefault((*heatmap.shape, seen[index].shape[1] if looking else 0), []).append(index)
        made: list[Any] = [None] * len(heatmaps)
        for members in groups.values():
            together = torch.stack([heatmaps[i] for i in members])
            views = torch.stack([seen[i].float() for i in members]) if looking else None
            for index, tokens in zip(members, self(together, views)):
                made[index] = tokens
        return made

    @abstractmethod
    def tokens(self, steps: int) -> int:
        """How many anomaly tokens a clip of this many steps gets."""

    @abstractmethod
    def flops(self, t: int, h: int, w: int) -> int:
        """Floating-point operations of the convolutions and matrix products of one clip; a multiply-add counts as two."""

    def config(self) -> dict[str, Any]:
        """The arguments of :func:`tvad.region.make_encoder`, as JSON can hold them."""
        return {"variant": self.variant, "text_width": self.text_width}

    def save(self, path: Path | str, *, backbone_fingerprint: str, extra: Mapping[str, str] | None = None) -> Path:
        """Write weights and configuration as safetensors, atomically; extra: further facts for the record, such as the
        backbone's name under ``backbone``.  Raises :class:`StorageError` when the disk refuses."""
        record = {"kind": "rae", "format": FORMAT_VERSION, "config": self.config(),
                  "backbone_fingerprint": backbone_fingerprint, "extra": dict(extra or {})}
        return write_weights(path, self.state_dict(), record)

    def check_width(self, text_width: int, path: Path | str) -> None:
        """Refuse a language model of another width, naming the file that holds this encoder."""
        if text_width != self.text_width:
            raise CheckpointError(f"{path}: its tokens are {self.text_width} wide, the language model wants "
                                  f"{text_width}; train phase 2 on this backbone: make reproduce")

    @abstractmethod
    def _tokens(self, heatmap: Tensor, seen: Tensor | None) -> Tensor:
        """The tokens of checked float32 inputs."""

    def _check(self, heatmap: Tensor, seen: Tensor | None) -> None:
        if heatmap.ndim != 4 or 0 in heatmap.shape:
            raise BackboneError(f"region encoder: wants heatmaps (b, t, h, w), got {tuple(heatmap.shape)}; a single "
                                "clip needs [None] in front")
        if not self.looks:
            return
        b, t, h, w = heatmap.shape
        if seen is None:
            raise BackboneError("region encoder with looks: wants the clip's video tokens beside the heatmap; see "
                                "the clip with backbone.see(clip, tokens=True)")
        side = round((t * h * w / max(seen.shape[1], 1)) ** 0.5)
        widths = (self.text_width, self.text_width + 3 * (side * CELLS) ** 2 * self.painted)
        fits = side > 0 and h % side == w % side == 0 and tuple(seen.shape[:2]) == (b, t * (h // side) * (w // side))
        if not fits or seen.shape[2] not in widths:
            raise BackboneError(f"region encoder: video tokens {tuple(seen.shape)} do not fit heatmaps {(b, t, h, w)} "
                                f"and width {self.text_width}; are both of the same clips and backbone?")
        if seen.shape[1] < self.looks:
            raise BackboneError(f"region encoder: {self.looks} looks, but a clip of only {seen.shape[1]} video tokens; "
                                "give the encoder fewer looks")
