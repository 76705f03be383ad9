"""What the tests of conversations share: a lively random model, clips of noise, and the slow twin of a conversation."""
from __future__ import annotations

import numpy as np
import torch

from tvad.backbones.qwen import QwenBackbone
from tvad.conversation import TVAU, Evidence
from tvad.conversation import talk as talk_module
from tvad.heatmap import AnomalyHeatmapDecoder
from tvad.region import make_encoder
from tvad.video.clip import Clip

QUESTIONS = ("Where is the bicycle?", "one person in a red top?", "How many?")


def clip(frames=6, height=80, width=120, seed=0) -> Clip:
    pixels = np.random.default_rng(seed).integers(0, 256, (frames, height, width, 3), np.uint8)
    return Clip(pixels, 10.0, 0, f"noise{seed}")


def lively_backbone(directory) -> QwenBackbone:
    """A fresh model hardly attends; a livelier one says something else to every clip."""
    made = QwenBackbone.from_pretrained(directory, device="cpu", dtype="float32", load_language_model=True)
    with torch.no_grad():
        generator = torch.Generator().manual_seed(5)
        for name, value in made.language_model.model.language_model.named_parameters():
            if value.ndim == 2:
                value.copy_(torch.randn(value.shape, generator=generator) * (1.0 if "embed" in name else 0.12))
    return made


def model_of(backbone, **options) -> TVAU:
    """With an untrained decoder and region encoder."""
    torch.manual_seed(3)
    decoder = AnomalyHeatmapDecoder(taps=backbone.taps, tap_width=48, hidden_width=8, text_width=256)
    regions = make_encoder("located", text_width=256, hidden_width=16, channels=2, scale=1.0)
    return TVAU(backbone, decoder, prototypes=torch.randn(2, 256), **{"regions": regions, **options})


def fresh_greedy(model, evidence: Evidence, questions, *, limit=8) -> list[list[int]]:
    """The slow twin: for every single token the whole sequence again, no cache, positions from the stock rule."""
    said: list[list[int]] = []
    form = model.format
    for number in range(len(questions)):
        said.append([])
        for _ in range(limit):
            extra = 0 if evidence.anomaly is None else len(evidence.anomaly)
            ids = form.head(still=evidence.view.still, seen=len(evidence.seen), anomaly=extra)
            for turn in range(number + 1):
                ids = ids + (form.later(questions[turn]) if turn else form.first(questions[turn])) + said[turn]
                ids = ids + ([form.end_of_turn] if turn < number else [])
            table = model.language_model.get_input_embeddings()
            embeds = table(torch.tensor(ids)).detach().clone()
            embeds[[i for i, token in enumerate(ids) if token in (form.image_pad, form.video_pad)]] = evidence.seen
            if extra:
                embeds[[i for i, token in enumerate(ids) if token == form.anomaly_pad]] = evidence.anomaly
            with torch.no_grad():
                out = model.language_model(inputs_embeds=embeds[None],
                                           position_ids=form.positions(model.language_model, ids, evidence.view)[:, None])
            token = int(out.logits[0, -1].index_fill(0, form.unsayable(model.language_model), -torch.inf).argmax())
            if token == form.end_of_turn or token in talk_module._stop_ids(model.language_model, form):
                break
            said[-1].append(token)
    return said


def texts(model, rows) -> list[str]:
    return [model.format.tokenizer.decode(row, skip_special_tokens=True).strip() for row in rows]
