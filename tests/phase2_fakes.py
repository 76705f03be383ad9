"""What the tests of phase 2 share: a random tiny model, toy videos in noise, conversations, cached clips.

Test modules name this one in ``pytest_plugins`` for its fixtures.
"""
from __future__ import annotations

import numpy as np
import pytest
import torch
from tiny_model import random_model_directory

from tvad.backbones.qwen import QwenBackbone
from tvad.datasets.base import Event, Video
from tvad.heatmap import AnomalyHeatmapDecoder
from tvad.language.dialogue import Conversation
from tvad.training import variants
from tvad.training.evidence import ClipRange, cache_clips
from tvad.training.lessons import Lessons
from tvad.training.phase2_config import Phase2Config
from tvad.training.speaker import Lora, attach
from tvad.training.variants import VARIANTS
from tvad.video.frames import ArrayFrames

SIZE, FRAMES = (80, 120), 6
TEXT = torch.nn.functional.normalize(torch.randn(2, 256, generator=torch.Generator().manual_seed(3)), dim=1)
LORA = Lora(4, 8, 0.05)
SMALL = Phase2Config(steps=4, batch_size=2, validate_every=2, lora_rank=4, lora_alpha=8, scene_share=0.5, blob_steps=2,
                     blob_batch=2, val_conversations=4, learning_rate=1e-2, region_learning_rate=1e-2, warm_up=0.0)


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    return random_model_directory(tmp_path_factory.mktemp("zoo") / "tiny")


def opened(directory) -> QwenBackbone:
    return QwenBackbone.from_pretrained(directory, taps=(0, 1), device="cpu", dtype="float32", load_language_model=True)


@pytest.fixture(scope="module")
def shared(directory):
    return opened(directory)


@pytest.fixture
def backbone(shared):
    """The shared backbone, given back as it was."""
    yield shared
    assert not any("lora_" in name for name, _ in shared.language_model.named_parameters()), "a speaker was not released"


@pytest.fixture(scope="module")
def decoder():
    torch.manual_seed(1)
    return AnomalyHeatmapDecoder(taps=(0, 1), tap_width=48, hidden_width=8, text_width=256).eval()


def toy_video(name: str, anomalous: bool) -> Video:
    rng = np.random.default_rng(list(name.encode()))
    frames = rng.integers(0, 256, (12, *SIZE, 3), np.uint8)
    masks = np.zeros((12, *SIZE), np.uint8)
    if anomalous:
        masks[2:, 31:38, 52:63] = 1
    events = (Event("car", 2, 12, 1),) if anomalous else ()
    return Video(id=name, dataset="simcampus", frames=ArrayFrames(frames, 10.0, name), events=events,
                 labels=masks.any(axis=(1, 2)).astype(np.uint8), masks=lambda start, stop: masks[start:stop])


def told(name: str, anomalous: bool, start: int = 0, stop: int = FRAMES) -> Conversation:
    said = [("anomaly", "Is there any anomaly?", "Yes." if anomalous else "No.", [])]
    if anomalous:
        said += [("target", "Name the abnormal target.", "I see a red car.", ["A red car."]),
                 ("from", "Where does it come from?", "From the top left.", [])]
    said.append(("people", "How many people are there?", "One.", []))
    messages = []
    for slot, question, reply, references in said:
        content = ([] if messages else [{"type": "video"}]) + [{"type": "text", "text": question}]
        messages += [{"role": "user", "slot": slot, "references": [], "content": content},
                     {"role": "assistant", "slot": slot, "references": references,
                      "content": [{"type": "text", "text": reply}]}]
    slots = {"anomaly": "yes" if anomalous else "no", "class": "car" if anomalous else "none"}
    target = {"target": "a red car", "motion": "driving", "top": "none", "bottom": "none", "object": "car",
              "object_colour": "red", "from": "top left", "to": "middle",
              "trajectory": "starts at the top left, moves towards the right, stays in view in the middle"}
    return Conversation(f"{name}:{start}", name, start, stop, 10.0, "simcampus", "train", "s", anomalous, "turns",
                        tuple(messages), slots, (target,) if anomalous else ())


NAMES = {"a": True, "b": False, "c": True, "d": False}
VIDEOS = {name: toy_video(name, anomalous) for name, anomalous in NAMES.items()}
TALKS = [told(name, anomalous) for name, anomalous in NAMES.items()]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def clips(shared, decoder, root):
    ranges = [ClipRange(name, 0, FRAMES) for name in NAMES]
    return cache_clips(shared, decoder, ranges, VIDEOS, prototypes=TEXT, root=root, masks=True, progress=False)


def spoken(backbone, clips, name="full", talks=TALKS, seed=0, **options):
    speaker = attach(backbone, VARIANTS[name], lora=LORA, region={"variant": "located"}, seed=seed)
    heat = variants.evidence_maps(clips, VARIANTS[name].evidence, seed=0)
    return Lessons(talks, clips, speaker, backbone=backbone, heat=heat, **options)
