"""What the tests of the demo share: a detector that reads its maps off the pixels, and a partner with fixed answers."""
from __future__ import annotations

import torch
from training_fakes import FakeBackbone, toy_video

from tvad.detection import Scoring
from tvad.detector import TVAD
from tvad.errors import VideoError
from tvad.heatmap import AnomalyHeatmapDecoder
from tvad.queries.heatmap import EventHeatmapDecoder
from tvad.queries.words import EventBook
from tvad.widgets.footage import Offer, Opened
from tvad.widgets.models import Models

WORDS = {"car": ("car", "van"), "bicycle": ("bicycle", "bike")}


class Backbone(FakeBackbone):
    """The fake whose text space is wide enough that words are nearly at right angles."""
    text_width = 32


def detector(*, queries: bool = True, **scoring) -> TVAD:
    torch.manual_seed(0)
    backbone = Backbone()
    shape = dict(taps=backbone.taps, tap_width=6, hidden_width=5, text_width=32)
    decoder, listener = AnomalyHeatmapDecoder(**shape, temperature=20.0, contrast="centred"), None
    if queries:
        listener = EventHeatmapDecoder(**shape, wordings=WORDS, normal=("walking",), space=EventBook(backbone, WORDS).space)
    text = torch.nn.functional.normalize(torch.randn(2, 32), dim=1)
    return TVAD(backbone, decoder, prototypes=text, queries=listener, batch=1,
                scoring=Scoring(**{"frames_per_clip": 8, "stride": 8, "sigma": 1.5, **scoring}))


class Talk:
    """Says what it was asked about, in two pieces, and remembers."""

    def __init__(self, clip, asked=()):
        self.clip, self.asked = clip, list(asked)

    def stream(self, question):
        self.asked.append(question)
        yield "Yes, "
        yield f"turn {len(self.asked)} about frame {self.clip.start}"

    def decide(self, question, *, options):
        self.asked.append(question)
        return options[1], 0.125

    def fork(self):
        return Talk(self.clip, self.asked)

    def probability(self, question):
        return 0.25 if len(self.asked) == 0 else 0.75


class Talker:
    def converse(self, clip):
        return Talk(clip)


def models(**changes) -> Models:
    return Models(**{"detector": detector(), "talker": Talker(), "name": "fake", **changes})


def opened(n=40, **video) -> Opened:
    one = toy_video("toy", n=n, **video)
    return Opened("toy (simulated)", one.frames, ((10, 20),))


def failing(frames, first, stop):
    """``frames`` of which ``first:stop`` cannot be read."""
    read = frames.read

    def guarded(start, end):
        if start < stop and end > first:
            raise VideoError(f"toy: wanted {len(frames)} frames, got {first}; the data are damaged")
        return read(start, end)

    frames.read = guarded
    return frames


def no_weights(*_, **__) -> Models:
    return Models(no_detector="There are no weights in runs/tiny/phase1 yet. In a terminal, run: make reproduce")


def offers(_=None):
    """Two videos, the first with a labelled interval, and no trouble."""
    return [Offer("one", lambda: opened().frames, lambda: ((10, 20),)), Offer("two", lambda: opened(n=16).frames)], ""
