"""T-VAD with its voice: the detector, the region encoder and the language model in one object.

    model = TVAU.from_phase2("qwen2.5-vl-tiny", "runs/tiny/phase1/ahd.safetensors", "runs/tiny/phase2/model")
    talk = model.converse(clip)                     # one pass of the tower: video tokens, heatmap, anomaly tokens
    talk.ask("Is there any anomaly in the video?")
    for piece in talk.stream("Describe its movement trajectory."): ...

The stock Qwen2_5_VLForConditionalGeneration is composed, not changed; LoRA comes through PEFT.  Everything that the
detector does (``see``, ``heatmap``, ``detect``, ``find``, ``score``) works as in :class:`tvad.detector.TVAD`.
"""
from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from tvad.backbones.chat import ChatFormat, View, base_model
from tvad.backbones.qwen import QwenBackbone, Sight
from tvad.conversation.economy import WHOLE, Economy, thinned
from tvad.conversation.saved import ADAPTER, ENCODER, check_trained_on, load_adapter, read_record
from tvad.conversation.talk import Evidence, Talk, Talks, hash_of
from tvad.detection import DEFAULT_SCORING, Scoring
from tvad.detector import TVAD
from tvad.errors import BackboneError
from tvad.heatmap import AnomalyHeatmapDecoder
from tvad.queries.heatmap import EventHeatmapDecoder
from tvad.region import RegionEncoder, load_encoder, make_encoder
from tvad.region.paint import paint_of, painted
from tvad.video.clip import Clip, stitch, windows

QUESTION = "Is there any anomaly in the video?"


class TVAU(TVAD):
    """Detector and conversation partner; make it with :meth:`from_phase2` or :meth:`from_pretrained`.

    regions: the region encoder, or None for a conversation without anomaly tokens.  language_model: by default the
    backbone's; the same in a PEFT wrapper where it was adapted.  calibration, bias: of yes/no
    probabilities and decisions (``choice.py``).  batch: clips a pass.  economy: how much of a clip is looked at and read,
    as in training.  silent: of a model trained without region encoder, what counts the zero tokens that stand in its place
    (ablation no-rae).  constant: a level that stands in place of every heatmap (ablation no-ahd).
    queries, query_scoring: as of ``TVAD``.
    """

    def __init__(
        self, backbone: Any, decoder: AnomalyHeatmapDecoder, *, prototypes: Float[Tensor, "2 d"],
        regions: RegionEncoder | None = None, language_model: Any = None, calibration: float = 1.0,
        bias: float = 0.0, scoring: Scoring = DEFAULT_SCORING, batch: int = 4, economy: Economy = WHOLE,
        silent: RegionEncoder | None = None, constant: float | None = None, queries: EventHeatmapDecoder | None = None,
        query_scoring: Scoring | None = None,
    ) -> None:
        super().__init__(backbone, decoder, prototypes=prototypes, scoring=scoring, batch=batch, queries=queries,
                         query_scoring=query_scoring)
        language_model = language_model if language_model is not None else backbone.language_model
        if language_model is None:
            raise BackboneError(f"{backbone.name}: opened without its language model, which conversations need; open it "
                                "with QwenBackbone.from_pretrained(..., load_language_model=True)")
        self.regions = regions.eval() if regions is not None else None
        self.calibration, self.bias = calibration, bias
        self.economy, self.silent, self.constant = economy, silent, constant
        self.language_model = language_model.eval()
        self.format = ChatFormat.of(base_model(language_model), backbone.tokenizer)

    @classmethod
    def from_pretrained(
        cls, backbone: Any, ahd: Path | str, *, rae: Path | str | None = None, adapter: Path | str | None = None,
        calibration: float | None = None, bias: float | None = None, scoring: Scoring | None = None,
        cache_dir: Path | str | None = None, batch: int = 4, economy: Economy | None = None,
        queries: Path | str | Literal[False] | None = None, **options: Any,
    ) -> TVAU:
        """Assemble from a backbone (object, zoo name, folder or hub name), a decoder of phase 1, and what phase 2 left.

        rae: file of the region encoder.  adapter: folder of the LoRA adapter, put into the backbone's language model in
        place.  calibration, bias, economy: by default what the encoder's file states, else 1, 0 and everything.
        queries: as of ``TVAD.from_pretrained``.
        Raises :class:`CheckpointError` for files of another backbone or damaged ones.
        """
        if isinstance(backbone, (str, Path)):
            options.setdefault("taps", AnomalyHeatmapDecoder.load(ahd).taps)
            backbone = QwenBackbone.from_pretrained(backbone, load_language_model=True, **options)
        plain = TVAD.from_pretrained(backbone, ahd, scoring=scoring, cache_dir=cache_dir, batch=batch, queries=queries)
        regions = None if rae is None else load_encoder(rae, backbone=backbone).to(backbone.device)
        stated = regions.record["extra"] if regions is not None else {}
        model = cls(backbone, plain.decoder, prototypes=plain.prototypes, regions=regions,
                    calibration=float(stated.get("calibration", 1.0)) if calibration is None else calibration,
                    bias=float(stated.get("bias", 0.0)) if bias is None else bias,
                    economy=Economy(**json.loads(stated.get("economy", "{}"))) if economy is None else economy,
                    scoring=plain.scoring, batch=batch, queries=plain.queries, query_scoring=plain.query_scoring)
        if adapter is not None:
            model.language_model = load_adapter(model.language_model, adapter)
        return model

    @classmethod
    def from_phase2(cls, backbone: Any, ahd: Path | str, folder: Path | str, **options: Any) -> TVAU:
        """The model that phase 2 left in ``folder``, of any variant, speaking as in training; options of
        :meth:`from_pretrained`.

        A variant that reads ground truth or other clips' maps gets them by ``look(clips, heatmaps=…)``, else the decoder's.
        Raises :class:`MissingPhaseError` for an unfinished folder, :class:`CheckpointError` as loading does.
        """
        folder, record = Path(folder), read_record(folder)
        rae = folder / ENCODER
        model = cls.from_pretrained(backbone, ahd, rae=rae if rae.is_file() else None,
                                    calibration=float(record.get("calibration", 1.0)),
                                    bias=float(record.get("bias", 0.0)),
                                    economy=Economy(**record.get("economy", {})), **options)
        check_trained_on(folder, record, model.backbone)
        model.language_model = load_adapter(model.language_model, folder / ADAPTER)
        if model.regions is None and record["evidence"] is not None:
            model.silent = make_encoder(**record["settings"]["region"])
        model.constant = record.get("constant") if record["evidence"] == "constant" else None
        return model

    @torch.no_grad()
    def look(self, clips: Sequence[Clip], *, heatmaps: Sequence[Float[Tensor, "t h w"]] | None = None) -> list[Evidence]:
        """What the language model gets of each clip, from one pass of the tower a group of clips of one size.

        heatmaps: use these instead of the decoder's (another clip's, or the ground truth's), one a clip.
        """
        sights: list[Any] = [None] * len(clips)
        sizes: dict[tuple[int, int], list[int]] = {}
        for index, clip in enumerate(clips):
            sizes.setdefault(clip.frames.shape[1:3], []).append(index)
        for members in sizes.values():
            for at in range(0, len(members), self.batch):
                group = members[at:at + self.batch]
                shown = [self._thin(clips[i]) for i in group]
                for index, sight in zip(group, self.backbone.see_many(shown, tokens=True)):
                    sights[index] = sight
        maps = [self.heatmap(sight) for sight in sights] if heatmaps is None else list(heatmaps)
        return [self.evidence(clip, sight, heat) for clip, sight, heat in zip(clips, sights, maps, strict=True)]

    @torch.no_grad()
    def evidence(self, clip: Clip, sight: Sight, heatmap: Float[Tensor, "t h w"]) -> Evidence:
        """The evidence of a clip already seen (``backbone.see(clip, tokens=True)``, of the steps that ``economy`` keeps),
        with a heatmap of its steps."""
        full, heat = sight.tokens.clone(), heatmap.to(self.backbone.device).clone()  # no longer inference tensors
        if self.constant is not None:
            heat = torch.full_like(heat, self.constant)
        anomaly, merge, economy = None, self.backbone.merge_size, self.economy
        if self.regions is not None:
            looked = full if self.regions.looks else None
            if self.regions.painted:
                paint = paint_of(self._thin(clip).frames, sight.grid, patch_frames=self.backbone.temporal_patch_size)
                looked = painted(full, paint, merge)
            anomaly = self.regions(heat[None], None if looked is None else looked[None])[0]
        elif self.silent is not None:
            anomaly = heat.new_zeros(self.silent.tokens(len(heat)), full.shape[-1])
        view = View.of(self.backbone, economy.read_grid(sight.grid, merge), frames=len(clip.frames),
                       fps=clip.fps / (economy.every * economy.token_step))
        seen = economy.read(full, sight.grid, merge)
        return Evidence(view, seen, anomaly, heat, f"{clip.video}:{clip.start}", hash_of(clip.frames))

    def _thin(self, clip: Clip) -> Clip:
        frames = thinned(clip.frames, every=self.economy.every, patch=self.backbone.temporal_patch_size)
        return replace(clip, frames=frames)

    def converse(self, clip: Clip | Evidence) -> Talk:
        """A conversation about a clip, or about evidence at hand."""
        return Talk(self.converse_many([clip]))

    def converse_many(self, clips: Sequence[Clip | Evidence]) -> Talks:
        """Conversations in step, one a clip; lengths, sizes, pictures and videos may be mixed."""
        fresh = iter(self.look([clip for clip in clips if isinstance(clip, Clip)]))
        evidence = [next(fresh) if isinstance(clip, Clip) else clip for clip in clips]
        return Talks(self.language_model, self.format, evidence, calibration=self.calibration,
                     bias=self.bias)

    def answer(
        self, clips: Sequence[Clip | Evidence], questions: Sequence[str] | Sequence[Sequence[str]], *, limit: int = 64,
        batch: int | None = None,
    ) -> list[list[str]]:
        """For evaluation: every clip's answers to its questions, asked in turn in one conversation, clips in batches.

        questions: one list for all clips, or one list a clip, all of one length.
        """
        shared = not questions or isinstance(questions[0], str)
        each = [list(questions)] * len(clips) if shared else [list(own) for own in questions]
        size, answers = batch or self.batch, []
        for at in range(0, len(clips), size):
            talks = self.converse_many(clips[at:at + size])
            for asked in zip(*each[at:at + size], strict=True):
                talks.ask(list(asked), limit=limit)
            answers += [[turn.answer for turn in turns] for turns in talks.histories]
        return answers

    def yes_scores(self, video: Any, *, question: str = QUESTION) -> Float[np.ndarray, " n"]:
        """The conversation as a score: probability of yes of every frame, windows as in scoring, overlaps averaged.

        ``video``: a data set's ``Video`` or ``Frames``.
        """
        frames = getattr(video, "frames", video)
        spans = windows(len(frames), length=self.scoring.frames_per_clip, stride=self.scoring.stride)
        parts = []
        for at in range(0, len(spans), self.batch):
            clips = [Clip(frames.read(start, stop), frames.fps, start, frames.name)
                     for start, stop in spans[at:at + self.batch]]
            chances = self.converse_many(clips).probabilities(question)
            parts += [(clip.start, np.full(len(clip.frames), chance)) for clip, chance in zip(clips, chances)]
        return stitch(parts, len(frames))
