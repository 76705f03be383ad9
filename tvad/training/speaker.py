"""What phase 2 trains: region encoder, LoRA on the language model, and the rows of the three new tokens.

The stock Qwen2.5-VL is composed, never forked: PEFT adapts ``q_proj`` and ``v_proj`` of the language model's layers by a
regular expression (bare names would match other towers too), ``trainable_token_indices`` trains three rows of the
embedding table, and the pads of the prompt are replaced in ``inputs_embeds``.  The vision tower is not run: its merged
tokens come from the cache.

On disk a speaker is a folder (``tvad.conversation.saved``); ``tvad.conversation.TVAU.from_phase2`` speaks from it.
"""
from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from tvad.backbones.chat import IGNORED, ChatFormat, Dialogue, answer_logits, splice
from tvad.conversation.saved import ADAPTER, ENCODER, FORMAT_VERSION, RECORD, check_trained_on, load_adapter, read_record
from tvad.errors import BackboneError
from tvad.record import complete, reopen, write_json
from tvad.region import RegionEncoder, WordedEncoder, load_encoder, make_encoder
from tvad.training.variants import VARIANTS, Variant

LORA_TARGETS = r"model\.language_model\.layers\.\d+\.self_attn\.(q_proj|v_proj)"


@dataclass(frozen=True)
class Lora:
    """Rank, scale and dropout of the adaptation (paper draft: 16, 32, 0.05)."""

    rank: int = 16
    alpha: int = 32
    dropout: float = 0.05


@dataclass(frozen=True, eq=False)
class Example:
    """One conversation with what fills its pads: ``seen`` video tokens ((0, d) without a video) and the ``heat`` map.

    ``look``: all video tokens of the map's steps, for region encoders that look; None: a clip in which nothing is seen.
    ``told``: words of the targets that the region encoder says instead of reading the map, with what ``doubt``.
    """

    dialogue: Dialogue
    seen: Float[Tensor, "m d"]
    heat: Float[Tensor, "t h w"] | None
    look: Float[Tensor, "n d"] | None = None
    told: Sequence[Mapping[str, str]] | None = None
    doubt: float = 0.0

    def answered(self) -> Int[Tensor, "k"]:
        """For each answer token the number of its turn (answers are runs of labels, questions stand between)."""
        marked = (self.dialogue.labels != IGNORED).long()
        return (marked.diff(prepend=marked.new_zeros(1)).clamp_min(0).cumsum(0) - 1)[marked.bool()]


class Speaker(nn.Module):
    """The composed model; make it with :func:`attach` or :func:`load_speaker`.

    ``language`` is the PEFT-wrapped stock model, ``region`` the region encoder or None, ``format`` its chat format,
    ``settings`` what :func:`attach` was given.
    """

    def __init__(self, language: nn.Module, region: RegionEncoder | None, *, variant: Variant, format: ChatFormat,
                 counter: RegionEncoder, settings: Mapping[str, Any], backbone: Any) -> None:
        super().__init__()
        self.language, self.region = language, region
        self.variant, self.format, self.settings = variant, format, dict(settings)
        self.name, self.fingerprint = backbone.name, backbone.fingerprint
        self.language_fingerprint = backbone.language_fingerprint
        self._counter = [counter]       # in a list, so that it is no submodule: it only counts tokens
        text = self.stock.model.language_model.config
        self._attention = text._attn_implementation
        if self.device.type == "cpu":   # on short sequences the plain product is a fifth faster than the fused kernel
            text._attn_implementation = "eager"

    @property
    def stock(self) -> Any:
        """The Qwen2.5-VL inside PEFT's wrapper."""
        return self.language.get_base_model()

    @property
    def device(self) -> torch.device:
        """Where the language model lies."""
        return self.stock.lm_head.weight.device

    @property
    def width(self) -> int:
        """Width of the language model."""
        return self.stock.config.text_config.hidden_size

    def evidence_tokens(self, steps: int) -> int:
        """Anomaly tokens in the prompt of a clip with ``steps`` heatmap steps; 0 for a variant without the block."""
        return 0 if self.variant.evidence is None else self._counter[0].tokens(steps)

    def trainable(self) -> dict[str, nn.Parameter]:
        """All parameters that training may change, by name."""
        return {name: value for name, value in self.named_parameters() if value.requires_grad}

    def evidence(self, heat: Sequence[Float[Tensor, "t h w"]],
                 looks: Sequence[Float[Tensor, "m d"] | None] | None = None) -> list[Float[Tensor, "n d"] | None]:
        """Anomaly tokens of each map, in order: zero vectors where the variant has no region encoder, None where it has
        no anomaly block. ``looks``: all video tokens of the clips, for encoders that look; None: nothing is seen."""
        if self.variant.evidence is None:
            return [None] * len(heat)
        if self.region is None:
            return [one.new_zeros(self.evidence_tokens(len(one)), self.width) for one in heat]
        if not self.region.looks:
            return self.region.encode(heat)
        blank = [one.new_zeros(one.numel() // self.merge**2, self.width) for one in heat]
        given = looks or [None] * len(heat)
        return self.region.encode(heat, [b if one is None else one.to(b.device) for b, one in zip(blank, given)])

    @property
    def merge(self) -> int:
        """Patches a side that make one video token."""
        return self.stock.config.vision_config.spatial_merge_size

    def forward(self, examples: Sequence[Example]) -> tuple[Float[Tensor, "k"], Bool[Tensor, "k"]]:
        """Cross-entropy of every answer token (example by example), and whether it is the model's first choice.

        Raises BackboneError where pads and tokens differ in number.
        """
        seen = [example.seen.to(self.device) for example in examples]
        mapped = [example for example in examples if example.heat is not None and example.told is None]
        told = [example for example in examples if example.told is not None]
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.stock.dtype == torch.bfloat16):
            found = iter(self.evidence([one.heat.to(self.device) for one in mapped], [one.look for one in mapped]))
            said = iter(self.region.recite([one.told for one in told], doubt=[one.doubt for one in told]) if told else ())
            anomaly = [next(found if one.told is None else said) for one in examples
                       if one.heat is not None or one.told is not None] or None
            batch = splice(self.language, self.format, [one.dialogue for one in examples], seen=seen, anomaly=anomaly)
            logits, wanted = answer_logits(self.language, batch)
        return F.cross_entropy(logits.float(), wanted, reduction="none"), logits.argmax(-1) == wanted

    def save(self, folder: Path | str, *, extra: Mapping[str, Any]) -> Path:
        """Write everything trained into a folder, complete or marked as not; ``extra`` goes into its record."""
        folder = Path(folder)
        reopen(folder)
        files = [RECORD, f"{ADAPTER}/adapter_config.json", f"{ADAPTER}/adapter_model.safetensors"]
        # "auto" would ask the hub for the base model's vocabulary
        self.language.save_pretrained(folder / ADAPTER, save_embedding_layers=False)
        if self.region is not None:
            said = {"backbone": self.name, **{key: json.dumps(extra[key]) for key in ("calibration", "bias", "economy")
                                              if key in extra}}
            self.region.save(folder / ENCODER, backbone_fingerprint=self.fingerprint, extra=said)
            files.append(ENCODER)
        write_json(folder / RECORD, {"format": FORMAT_VERSION, "variant": self.variant.name, "settings": self.settings,
                                     "evidence": self.variant.evidence,
                                     "backbone": self.name, "language_fingerprint": self.language_fingerprint, **extra})
        complete(folder, files)
        return folder

    def release(self) -> Any:
        """Take the adaptation off the stock model, which is then as it was, and return it."""
        self.stock.model.language_model.config._attn_implementation = self._attention
        return self.language.unload()


def attach(backbone: Any, variant: Variant, *, lora: Lora, region: Mapping[str, Any], seed: int,
           checkpointing: bool = False) -> Speaker:
    """Adapt a backbone's language model in place and put a new region encoder beside it, initialised by ``seed``.

    ``region``: arguments of :func:`tvad.region.make_encoder` but the width. All but what phase 2 trains is frozen.
    Raises BackboneError for a backbone without its language model, or whose language model is adapted already.
    """
    from peft import LoraConfig, TrainableTokensConfig, get_peft_model

    stock, form = _unadapted(backbone)
    rows = list(form.anomaly_ids) if variant.evidence is not None else None
    stock.requires_grad_(False)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        encoder = make_encoder(**{**region, "text_width": stock.config.text_config.hidden_size})
        if isinstance(encoder, WordedEncoder):
            encoder.bind(backbone.tokenizer, stock.get_input_embeddings().weight)
        if variant.lora:
            adaptation = LoraConfig(r=lora.rank, lora_alpha=lora.alpha, lora_dropout=lora.dropout,
                                    target_modules=LORA_TARGETS, trainable_token_indices=rows)
        else:
            adaptation = TrainableTokensConfig(token_indices=rows)
        language = get_peft_model(stock, adaptation)
    language.peft_config["default"].base_model_name_or_path = backbone.name     # the name, not a folder of this machine
    if checkpointing:
        stock.gradient_checkpointing_enable({"use_reentrant": False})
    for value in language.parameters():
        if value.requires_grad:     # PEFT leaves token rows in the base model's half precision
            value.data = value.data.float()
    settings = {"lora": asdict(lora), "region": encoder.config()}
    return _speaker(backbone, language, encoder, variant, form, settings)


def load_speaker(folder: Path | str, backbone: Any) -> Speaker:
    """A trained speaker on its backbone, ready to answer (evaluation mode, everything frozen).

    Raises MissingPhaseError for an unfinished folder, CheckpointError for one of another kind or backbone.
    """
    record = read_record(folder)
    check_trained_on(folder, record, backbone)
    variant, settings = VARIANTS[record["variant"]], record["settings"]
    stock, form = _unadapted(backbone)
    encoder = make_encoder(**settings["region"])
    if variant.region:
        encoder = load_encoder(Path(folder) / ENCODER, backbone=backbone)
    language = load_adapter(stock, Path(folder) / ADAPTER)
    return _speaker(backbone, language, encoder, variant, form, settings).eval().requires_grad_(False)


def _unadapted(backbone: Any) -> tuple[Any, ChatFormat]:
    stock = getattr(backbone, "language_model", None)
    if stock is None:
        raise BackboneError(f"{backbone.name}: phase 2 needs the language model; open the backbone with "
                            "load_language_model=True")
    if any("lora_" in name or "trainable_tokens" in name for name, _ in stock.named_parameters()):
        raise BackboneError(f"{backbone.name}: its language model is adapted already; call release() on the speaker "
                            "that holds it first")
    return stock, ChatFormat.of(stock, backbone.tokenizer)


def _speaker(backbone: Any, language: Any, encoder: RegionEncoder, variant: Variant, form: ChatFormat,
             settings: Mapping[str, Any]) -> Speaker:
    speaker = Speaker(language, encoder if variant.region else None, variant=variant, format=form, counter=encoder,
                      settings=settings, backbone=backbone)
    if speaker.region is not None:
        speaker.region.to(speaker.device)
    return speaker


def fill(parameters: Mapping[str, nn.Parameter], values: Mapping[str, Tensor]) -> None:
    """Copy values into parameters of the same names."""
    with torch.no_grad():
        for name, value in parameters.items():
            value.copy_(values[name])


def optimizer_groups(speaker: Speaker, *, learning_rate: float, region_learning_rate: float,
                     weight_decay: float, taught_rate: float = 1.0) -> list[dict[str, Any]]:
    """LoRA at its rate; region encoder and token rows (which do not decay) at theirs; ``peak`` keeps the rate.

    ``taught_rate``: share of its rate for the part of a region encoder that was taught words before.
    """
    parameters = speaker.trainable()
    taught = {f"region.{name}" for name in getattr(speaker.region, "taught", lambda: ())()}
    kinds = {"lora": (learning_rate, weight_decay), "region": (region_learning_rate, weight_decay),
             "taught": (taught_rate * region_learning_rate, weight_decay), "rows": (region_learning_rate, 0.0)}
    members: dict[str, list[nn.Parameter]] = {kind: [] for kind in kinds}
    for name, value in parameters.items():
        kind = ("taught" if name in taught else "region" if name.startswith("region.") else
                "rows" if "trainable_tokens" in name else "lora")
        members[kind].append(value)
    return [{"params": members[kind], "lr": rate, "peak": rate, "weight_decay": decay}
            for kind, (rate, decay) in kinds.items() if members[kind]]
