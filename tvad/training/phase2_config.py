"""Settings of phase 2, and which curriculum stage a step belongs to."""
from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

from tvad.errors import ParameterError
from tvad.training.speaker import Lora
from tvad.training.variants import Variant, variant_named


@dataclass(frozen=True)
class Phase2Config:
    """Everything that decides the trained weights.

    ``steps`` of conversations, of which the first ``scene_share`` are the scene stage, come after ``blob_steps`` of
    synthetic blobs (``blob_batch`` a step). ``batch_size`` counts conversations; ``micro_batch`` of them at a time go
    through the model (0: all). ``learning_rate`` is LoRA's, ``region_learning_rate`` that of region encoder and token
    rows. ``token_step``: the language model sees every so-manyth temporal patch, the heatmap keeps them all.
    ``region`` names the region encoder's variant. ``val_conversations`` evenly spaced ones validate (0: all).
    ``evidence_seed`` deals out the maps of ``shuffled-evidence``. ``checkpointing`` recomputes activations, for large
    models.
    """

    variant: str = "full"
    region: str = "located"
    seed: int = 0
    steps: int = 600
    scene_share: float = 0.3
    blob_steps: int = 0
    blob_batch: int = 32
    batch_size: int = 8
    micro_batch: int = 0
    validate_every: int = 150
    val_conversations: int = 120
    learning_rate: float = 2e-4
    region_learning_rate: float = 1e-3
    weight_decay: float = 0.01
    warm_up: float = 0.1
    clip_norm: float = 1.0
    lora_rank: int = 16
    lora_alpha: int = 32
    lora_dropout: float = 0.05
    token_step: int = 1
    evidence_seed: int = 0
    checkpointing: bool = False

    def __post_init__(self) -> None:
        variant_named(self.variant)
        for name in ("steps", "batch_size", "blob_batch", "validate_every", "lora_rank", "lora_alpha", "token_step"):
            if getattr(self, name) < 1:
                raise ParameterError(f"phase 2: {name} must be at least 1, got {getattr(self, name)}")
        for name in ("blob_steps", "micro_batch", "val_conversations"):
            if getattr(self, name) < 0:
                raise ParameterError(f"phase 2: {name} must be at least 0, got {getattr(self, name)}")
        if min(self.learning_rate, self.region_learning_rate) <= 0:
            raise ParameterError(f"phase 2: learning_rate {self.learning_rate} and region_learning_rate "
                                 f"{self.region_learning_rate} must be above 0")
        for name in ("scene_share", "warm_up", "lora_dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise ParameterError(f"phase 2: {name} must be in [0, 1), got {getattr(self, name)}")

    @classmethod
    def from_params(cls, params: Any, **changes: Any) -> Phase2Config:
        """The settings that a notebook's parameters share with this by name, the rest as the defaults say."""
        shared = {item.name: getattr(params, item.name) for item in fields(cls) if hasattr(params, item.name)}
        return cls(**{**shared, **changes})

    @property
    def kind(self) -> Variant:
        """The ablation that ``variant`` names."""
        return variant_named(self.variant)

    @property
    def blobs(self) -> int:
        """Steps of the blob stage: none where the anomaly tokens cannot tell anything."""
        return self.blob_steps if self.kind.region and self.kind.evidence != "constant" else 0

    @property
    def total(self) -> int:
        """All optimizer steps."""
        return self.blobs + self.steps

    def stage(self, step: int) -> str:
        """``blobs``, ``scene`` or ``anomaly``."""
        if step < self.blobs:
            return "blobs"
        return "scene" if step < self.blobs + round(self.scene_share * self.steps) else "anomaly"

    @property
    def lora(self) -> Lora:
        """LoRA's settings."""
        return Lora(self.lora_rank, self.lora_alpha, self.lora_dropout)
