"""The three-level prompt ensemble and the text prototypes of "normal" and "abnormal".

An event word stands in a phrase, the phrase in a sentence: 12 events x 7 phrases x 5 sentences x 4 language mixes =
1,680 sentences a class.  With Qwen2.5-VL's own tokenizer the longest has 21 tokens, so a padded batch is (1680, 21);
other tokenizers give other lengths.  A prototype is the plain mean over the sentences of each sentence's mean token
embedding (the published code: rows of the input-embedding table, no language-model pass).  No norm is applied here, the
heatmap decoder does that.

Where this differs from the published code: the prototypes are computed once and kept on disk, not once a forward pass;
and the event words and languages may be the user's own.
"""
from __future__ import annotations

import hashlib
import logging
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Iterator, Protocol, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from tvad.checkpoints import read_weights, write_weights
from tvad.errors import BackboneError, CheckpointError, ParameterError

_LOG = logging.getLogger(__name__)

EVENTS: dict[str, tuple[str, ...]] = {
    "en": (
        "person running", "people fighting", "person loitering", "person jumping", "object being thrown",
        "crowd gathering", "person riding bicycle", "person skateboarding", "person falling down", "abandoned object",
        "vehicle on walkway", "anomaly",
    ),
    "zh": (
        "有人奔跑", "多人打斗", "有人徘徊", "有人跳跃", "有物体被抛掷", "人群聚集", "有人骑自行车",
        "有人玩滑板", "有人摔倒", "有遗弃物", "有车辆在走道上", "异常事件",
    ),
}
NORMAL_PHRASES: dict[str, tuple[str, ...]] = {
    "en": (
        "no {} present", "normal campus scene without {}", "ordinary surveillance video free of {}",
        "calm campus walkway without {}", "surveillance video without {}", "CCTV footage free of {}",
        "scene devoid of {}",
    ),
    "zh": (
        "当前无{}发生", "正常的校园场景，没有{}", "普通的监控视频，没有{}", "平静的校园通道，没有{}",
        "监控视频中没有{}", "闭路电视画面没有{}", "场景中没有{}",
    ),
}
ABNORMAL_PHRASES: dict[str, tuple[str, ...]] = {
    "en": (
        "{}", "surveillance video of {}", "CCTV footage showing {}", "{} happening on campus", "anomalous event: {}",
        "security camera captures {}", "unusual incident on campus - {}",
    ),
    "zh": (
        "{}", "监控视频中出现{}", "闭路电视画面显示{}", "校园内发生了{}", "异常事件：{}",
        "安全摄像头拍到{}", "校园异常事件 - {}",
    ),
}
SENTENCES: dict[str, tuple[str, ...]] = {
    "en": (
        "a surveillance video of {}.", "a CCTV footage of the {}.", "a grainy security-camera clip showing {}.",
        "a low-resolution campus video containing {}.", "a short surveillance clip where {} occurs.",
    ),
    "zh": (
        "一段关于{}的监控视频。", "一段包含{}的闭路电视画面。", "一段模糊的监控视频，显示{}。",
        "一段低分辨率的校园视频，包含{}。", "一段简短的监控片段，发生了{}。",
    ),
}
MIXES: tuple[tuple[str, str], ...] = (("en", "en"), ("zh", "zh"), ("zh", "en"), ("en", "zh"))
"""(language of the templates, language of the event words), in the published order."""


class EmbedsPrompts(Protocol):
    """What the prototypes need of a backbone."""

    fingerprint: str

    def embed_prompts(self, sentences: Sequence[str]) -> Float[Tensor, "n d"]:
        """The mean token embedding of each sentence (masked: no padding, no special tokens)."""


@dataclass(frozen=True)
class PromptEnsemble:
    """Sentences that describe each event as absent (``normal``) and as present (``abnormal``).

    The default is the published ensemble.  For words of one's own::

        PromptEnsemble.of(["dog off the leash"], language="en")
        PromptEnsemble(english=("dog off the leash",), chinese=("有狗未拴绳",))

    english, chinese: the event words; an empty tuple drops the mixes of that language.
    mixes: pairs (template language, word language) to use.
    Raises :class:`ParameterError` for no words, an empty or repeated word, or an unknown language.
    """

    english: tuple[str, ...] = EVENTS["en"]
    chinese: tuple[str, ...] = EVENTS["zh"]
    mixes: tuple[tuple[str, str], ...] = MIXES

    def __post_init__(self) -> None:
        if not self.mixes or not set(self.mixes) <= set(MIXES) or len(set(self.mixes)) != len(self.mixes):
            raise ParameterError(f"prompts: language mixes {self.mixes!r} are not among {MIXES}; "
                                 "give each pair (template language, word language) once")
        if isinstance(self.english, str) or isinstance(self.chinese, str):
            raise ParameterError("prompts: event words came as one string; give a tuple of strings")
        for language, words in (("en", self.english), ("zh", self.chinese)):
            if any(not word.strip() for word in words) or len(set(words)) != len(words):
                raise ParameterError(f"prompts: event words {words!r} ({language}) hold an empty or repeated entry; "
                                     "give each event once")
        if not self.normal:
            raise ParameterError(f"prompts: no event words for the language mixes {self.mixes!r}; give at least one")

    @classmethod
    def of(cls, events: Sequence[str], *, language: str = "en") -> PromptEnsemble:
        """The ensemble of the user's own events in one language, with the templates of both."""
        if language not in EVENTS:
            raise ParameterError(f"prompts: unknown language {language!r}; choose from {sorted(EVENTS)}")
        words = events if isinstance(events, str) else tuple(events)
        mixes = tuple(mix for mix in MIXES if mix[1] == language)
        return cls(english=words if language == "en" else (), chinese=words if language == "zh" else (), mixes=mixes)

    @cached_property
    def normal(self) -> tuple[str, ...]:
        """The sentences that say the events are absent (1,680 by default)."""
        return tuple(self._sentences(NORMAL_PHRASES))

    @cached_property
    def abnormal(self) -> tuple[str, ...]:
        """The sentences that say the events are there, in the order of :attr:`normal`."""
        return tuple(self._sentences(ABNORMAL_PHRASES))

    @cached_property
    def sha256(self) -> str:
        """Hash of all sentences of both classes in order (hexadecimal)."""
        return hashlib.sha256("\n".join((*self.normal, "", *self.abnormal)).encode()).hexdigest()

    def _sentences(self, phrases: dict[str, tuple[str, ...]]) -> Iterator[str]:
        words = {"en": self.english, "zh": self.chinese}
        for template, language in self.mixes:
            for word in words[language]:
                for phrase in phrases[template]:
                    for sentence in SENTENCES[template]:
                        yield sentence.format(phrase.format(word))


def prototypes(
    backbone: EmbedsPrompts, *, cache_dir: Path | str | None = None, ensemble: PromptEnsemble | None = None,
    batch: int = 240,
) -> Float[Tensor, "2 d"]:
    """The text prototypes [normal, abnormal] in the backbone's text space, float32 on the CPU, not normalised.

    Eq. 4 of the paper with the published code's order of means: over the tokens of a sentence, then over sentences.
    cache_dir: where a prototype is kept, one file for a backbone's fingerprint and a set of prompts; a damaged file is
    made again.  batch: sentences embedded at once.
    Raises :class:`BackboneError` when the embeddings have the wrong shape or are not finite.
    """
    ensemble = ensemble or PromptEnsemble()
    cache = None
    if cache_dir is not None:
        key = hashlib.sha256(f"{backbone.fingerprint}\n{ensemble.sha256}".encode()).hexdigest()
        cache = Path(cache_dir) / f"prototypes-{key[:24]}.safetensors"
        if cache.is_file():
            try:
                return _cached(cache, backbone.fingerprint, ensemble.sha256)
            except CheckpointError as error:
                _LOG.warning("%s; computing the prototypes again", error)
    table = torch.stack([_mean(backbone, sentences, batch) for sentences in (ensemble.normal, ensemble.abnormal)])
    if cache is not None:
        record = {"kind": "prototypes", "backbone_fingerprint": backbone.fingerprint, "prompts": ensemble.sha256}
        write_weights(cache, {"prototypes": table}, record)
    return table


def _cached(path: Path, fingerprint: str, prompts: str) -> Float[Tensor, "2 d"]:
    tensors, record = read_weights(path)
    table = tensors.get("prototypes")
    if (record.get("backbone_fingerprint"), record.get("prompts")) != (fingerprint, prompts):
        raise CheckpointError(f"{path}: holds the prototypes of another backbone or of other prompts")
    if table is None or table.ndim != 2 or len(table) != 2 or table.dtype != torch.float32:
        raise CheckpointError(f"{path}: does not hold a (2, d) float32 table 'prototypes'")
    return table


@torch.no_grad()
def _mean(backbone: EmbedsPrompts, sentences: Sequence[str], batch: int) -> Float[Tensor, " d"]:
    """Mean over the sentences, summed in float64 so that the batch size does not show in the result."""
    total: Tensor | float = 0.0
    for start in range(0, len(sentences), batch):
        part = list(sentences[start:start + batch])
        rows = backbone.embed_prompts(part)
        if rows.ndim != 2 or len(rows) != len(part):
            raise BackboneError(f"{backbone.fingerprint}: embed_prompts gave shape {tuple(rows.shape)} for {len(part)} "
                                "sentences; it must give one row for each")
        total = total + rows.detach().cpu().double().sum(0)
    mean = (total / len(sentences)).float()
    if not torch.isfinite(mean).all():
        raise BackboneError(f"{backbone.fingerprint}: prompt embeddings are not finite; check the model's weights")
    return mean
