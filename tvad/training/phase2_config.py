"""Settings of phase 2, and which curriculum stage a step belongs to."""
from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, ClassVar

from tvad.conversation.economy import Economy
from tvad.errors import ParameterError
from tvad.language.phrasings import CORE
from tvad.training.common import FromParameters, Optimization
from tvad.training.speaker import Lora
from tvad.training.variants import Variant, variant_named


@dataclass(frozen=True)
class Phase2Config(FromParameters, Optimization):
    """Everything that decides the trained weights.

    ``steps`` of conversations, of which the first ``scene_share`` are the scene stage, come after ``blob_steps`` of
    synthetic blobs (``blob_batch`` a step). ``batch_size`` counts conversations; ``micro_batch`` of them at a time go
    through the model (0: all). ``learning_rate`` is LoRA's, ``region_learning_rate`` that of region encoder and token
    rows. ``blob_share`` of each batch in the later stages are blobs too, so that places are not forgotten.
    A region encoder that speaks in words (worded) is taught them before, without the language model: ``word_steps`` of
    ``word_batch`` clips, as many turned ones and of ``word_blobs`` blobs, and twice as many people; after that it learns on
    at ``taught_rate`` of its rate.
    ``skipped_share`` of the conversations of the anomaly stage lack some turns, so that questions may come in any choice.
    ``asked``: "core" trains the anomaly stage on the six core questions alone, which halves its sequences; or "all".
    ``every``, ``token_step``, ``pool``: how much of the video is looked at and read (``tvad.conversation.economy``).
    ``region`` names the region encoder's variant, ``looks`` how many video tokens it points out (located alone),
    ``hidden_width`` the width of its classifiers, which can be set for worded alone (None: its own default).
    ``val_conversations`` evenly spaced ones validate (0: all). ``evidence_seed`` deals out the maps of
    ``shuffled-evidence``. ``checkpointing`` recomputes activations, for large models.
    """

    phase: ClassVar[str] = "phase 2"
    variant: str = "full"
    region: str = "located"
    looks: int = 0
    hidden_width: int | None = None
    scene_share: float = 0.3
    skipped_share: float = 0.0
    asked: str = "all"
    blob_steps: int = 0
    blob_batch: int = 32
    blob_share: float = 0.0
    word_steps: int = 0
    word_batch: int = 32
    word_blobs: int = 1500
    taught_rate: float = 0.1
    batch_size: int = 8
    micro_batch: int = 0
    val_conversations: int = 120
    learning_rate: float = 2e-4
    region_learning_rate: float = 1e-3
    lora_rank: int = 16
    lora_alpha: int = 32
    lora_dropout: float = 0.05
    every: int = 1
    token_step: int = 1
    pool: int = 1
    evidence_seed: int = 0
    checkpointing: bool = False

    def __post_init__(self) -> None:
        variant_named(self.variant)
        super().__post_init__()
        self.check_least(blob_batch=1, lora_rank=1, lora_alpha=1, every=1, token_step=1, pool=1, word_batch=1, word_blobs=1,
                         blob_steps=0, word_steps=0, micro_batch=0, val_conversations=0, looks=0)
        self.check_share("scene_share", "lora_dropout", "blob_share", "taught_rate", "skipped_share")
        if self.asked not in ("all", "core"):
            raise ParameterError(f"phase 2: asked must be all or core, got {self.asked!r}")
        if self.hidden_width is not None and self.hidden_width < 1:
            raise ParameterError(f"phase 2: hidden_width must be at least 1, got {self.hidden_width}")
        if self.hidden_width is not None and self.region != "worded":
            raise ParameterError(f"phase 2: hidden_width {self.hidden_width} can be set for region 'worded' alone, not"
                                 f" {self.region!r}; leave it out or choose region worded")
        if self.region_learning_rate <= 0:
            raise ParameterError(f"phase 2: region_learning_rate {self.region_learning_rate} must be above 0")

    @property
    def kind(self) -> Variant:
        """The ablation that ``variant`` names."""
        return variant_named(self.variant)

    @property
    def blobs(self) -> int:
        """Steps of the blob stage: none where the anomaly tokens cannot tell anything; these variants get as many more
        steps of conversations, so that all rows of the ablation share the number of steps."""
        return self.blob_steps if self.kind.region and self.kind.evidence != "constant" else 0

    @property
    def total(self) -> int:
        """All optimizer steps."""
        return self.blob_steps + self.steps

    def stage(self, step: int) -> str:
        """``blobs``, ``scene`` or ``anomaly``."""
        if step < self.blobs:
            return "blobs"
        return "scene" if step < self.blobs + round(self.scene_share * (self.total - self.blobs)) else "anomaly"

    @property
    def lora(self) -> Lora:
        """LoRA's settings."""
        return Lora(self.lora_rank, self.lora_alpha, self.lora_dropout)

    @property
    def slots(self) -> tuple[str, ...] | None:
        """The slots of the anomaly stage; None: all."""
        return CORE if self.asked == "core" else None

    @property
    def economy(self) -> Economy:
        """How much of the video is looked at and read."""
        return Economy(self.every, self.token_step, self.pool)

    @property
    def encoder(self) -> dict[str, Any]:
        """Arguments of ``tvad.region.make_encoder`` but the width."""
        given = {"looks": self.looks} if self.region == "located" else {"hidden_width": self.hidden_width}
        return {"variant": self.region, **{name: value for name, value in given.items() if value is not None}}

    @property
    def given(self) -> dict[str, Any]:
        """The settings by name but those left to a default elsewhere, so that a new one leaves hashes as they were."""
        return {name: value for name, value in asdict(self).items() if value is not None}

    @property
    def mixed(self) -> int:
        """Blobs in each batch of the later stages, in place of conversations, of which one at least stays."""
        return min(round(self.blob_share * self.batch_size), self.batch_size - 1) if self.blobs else 0
