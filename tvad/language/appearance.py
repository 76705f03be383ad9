"""What a target looks like and does: from a simulator's script, from a vision-language model, or left open.

A source is asked for one track of one clip and answers with a :class:`Sighting`, or with a :class:`Drop` that says why
there is none.  The thesis' captions never held an appearance, since its captioner was skipped by an early return
(specification, 5.2); the paper aggregates frame-wise answers to a target and re-describes it on a mask-guided view with
blurred background (5.3).  Here a model's answer counts only where it names exactly one known thing, and a track needs a
majority of its frames: nonsense becomes a counted drop and never a sentence.
"""
from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np
from jaxtyping import Bool, UInt8

from tvad.datasets.base import Video
from tvad.errors import BackboneError
from tvad.language.tracks import MaskTrack
from tvad.scenes.palette import RANGES

# What belongs to each class of target: the things that it is or has, and the motions that its frames may show.
OBJECTS: Mapping[str, tuple[str, ...]] = {
    "car": ("car", "van", "cart"), "bicycle": ("bicycle",), "motorcycle": ("motorcycle", "scooter"),
    "hand_truck": ("hand truck with boxes", "hand truck"), "stroller": ("stroller",), "skateboarding": ("skateboard",),
    "throwing": ("ball", "bag", "box", "thing"),
    "running": (), "falling": (), "jumping": (), "loitering": (), "fighting": (),
}
COLOURS: tuple[str, ...] = tuple(RANGES)
TONES: tuple[str, ...] = ("dark", "grey", "light")      # what remains of colours in black-and-white footage
VEHICLES: tuple[str, ...] = OBJECTS["car"]
PERSONS: tuple[str, ...] = ("person", "man", "woman")
_LEAST_SHARE = 0.15     # of a target's frames: a motion seen for less is not told
_LEAST_IOU = 0.5        # between a track and its actor of the script


@dataclass(frozen=True)
class Look:
    """Named looks of one target; empty where unknown.

    ``kind`` is a class of EVENTS, ``noun`` of PERSONS or VEHICLES, ``top``, ``bottom`` and ``object_colour`` are of COLOURS
    (of TONES in black-and-white footage), ``object`` is of OBJECTS[kind] without its colour.  ``accessories_known`` False:
    nobody asked about ``hat`` and ``carries``, so that empty ones do not mean that there are none.
    """

    kind: str
    noun: str = "person"
    top: str = ""
    bottom: str = ""
    hat: str = ""
    carries: tuple[str, ...] = ()
    object: str = ""
    object_colour: str = ""
    accessories_known: bool = True

    @property
    def is_vehicle(self) -> bool:
        return self.noun in VEHICLES

    def without_colours(self) -> Look:
        """The look in black-and-white footage: brightness instead of colours."""
        return replace(self, **{name: tone_of(getattr(self, name)) for name in ("top", "bottom", "object_colour")})


@dataclass(frozen=True)
class Sighting:
    """What a source says of one target; ``look`` None: left open.  ``motions``: in the order in which they were seen."""

    look: Look | None
    motions: tuple[str, ...] = ()


@dataclass(frozen=True)
class Drop:
    """Why a sample was not made: a word to count by, and the case in words."""

    reason: str
    detail: str


@dataclass(frozen=True, eq=False)
class ClipView:
    """Frames ``start`` to ``stop`` (exclusive) of a video with their target masks (0 background, or 0 and 1)."""

    video: Video
    start: int
    stop: int
    masks: UInt8[np.ndarray, "n h w"]

    @property
    def name(self) -> str:
        return f"{self.video.id}:{self.start}-{self.stop}"

    def target(self, track: MaskTrack, row: int) -> Bool[np.ndarray, "h w"]:
        """Pixels of the track in its ``row``-th frame: of what fills most of its box, in the box alone."""
        x1, y1, x2, y2 = track.boxes[row].astype(int)
        inside = self.masks[int(track.frames[row]), y1:y2 + 1, x1:x2 + 1]
        ids = np.bincount(inside[inside > 0], minlength=2)
        mask = np.zeros(self.masks.shape[1:], bool)
        mask[y1:y2 + 1, x1:x2 + 1] = inside == ids.argmax() if ids.any() else False
        return mask


class AppearanceSource(Protocol):
    """Says what a track of a clip looks like and does."""

    name: str

    def of(self, view: ClipView, track: MaskTrack) -> Sighting | Drop: ...


class OpenAppearance:
    """Leaves the appearance open: for footage of which nothing but masks is known."""

    name = "open"

    def of(self, view: ClipView, track: MaskTrack) -> Sighting:
        """No look, no motion word; the timeline alone speaks."""
        return Sighting(None)


class ScriptAppearance:
    """The truth of SimCampus' script (``Video.text``): looks and motions of the actor that a track follows.

    The actor is found by the overlap of boxes, so that binary masks serve as well as instance masks.
    """

    name = "script"

    def of(self, view: ClipView, track: MaskTrack) -> Sighting | Drop:
        """Look and motions; a drop where no anomalous actor fits the track."""
        actors = view.video.text.get("actors")
        if actors is None:
            return Drop("no script", f"{view.name}: the data set has no script; choose another source of appearance")
        frames = [view.start + int(frame) for frame in track.frames]
        fits = [(_overlap(actor, frames, track.boxes), actor) for actor in actors if actor["event"] and actor["anomalous"]]
        fit, actor = max(fits, key=lambda pair: pair[0], default=(0.0, None))
        if fit < _LEAST_IOU:
            return Drop("no actor fits", f"{view.name}: the best actor overlaps track {track.id} by {fit:.2f}")
        return Sighting(look_of(actor), motions_of(actor, frames))


def look_of(actor: Mapping[str, Any]) -> Look:
    """The look of an actor of a SimCampus script."""
    seen = actor["appearance"]
    colour, _, thing = seen["object"].partition(" ")
    return Look(actor["kind"], seen["noun"], top=seen["top"], bottom=seen["bottom"], hat=seen["hat"],
                carries=tuple(seen["carries"]), object=thing, object_colour=colour)


def motions_of(actor: Mapping[str, Any], frames: Sequence[int]) -> tuple[str, ...]:
    """Motion words of an actor over ``frames`` of the video, first seen first, without what shows for a moment only.

    The script calls both the fall and the way up "falling"; after "lying" it is told as "getting_up".
    """
    words = np.empty(actor["motion"][-1][1], object)
    before = ""
    for start, stop, word in actor["motion"]:
        words[start:stop] = "getting_up" if (word, before) == ("falling", "lying") else word
        before = word
    seen = [word for word in words[list(frames)] if word]
    counts = Counter(seen)
    return tuple(word for word in dict.fromkeys(seen) if counts[word] >= max(1.0, _LEAST_SHARE * len(seen)))


def _overlap(actor: Mapping[str, Any], frames: Sequence[int], boxes: np.ndarray) -> float:
    """Mean IoU of a track's boxes and an actor's, 0 where the actor is absent."""
    total = 0.0
    for frame, box in zip(frames, boxes, strict=True):
        other = actor["box"][frame]
        if other is not None:
            width = min(box[2], other[2]) - max(box[0], other[0]) + 1
            height = min(box[3], other[3]) - max(box[1], other[1]) + 1
            shared = max(0.0, width) * max(0.0, height)
            total += shared / (_area(box) + _area(other) - shared)
    return total / max(1, len(frames))


def _area(box: Sequence[float]) -> float:
    return (box[2] - box[0] + 1) * (box[3] - box[1] + 1)


def tone_of(colour: str) -> str:
    """What is left of a colour word without colour: "dark", "grey" or "light" by its luma (BT.601); "" of ""."""
    if colour not in RANGES:
        return colour
    luma = np.mean(RANGES[colour], axis=0) @ (0.299, 0.587, 0.114)
    return "dark" if luma < 100 else "grey" if luma < 155 else "light"


def is_black_and_white(frame: UInt8[np.ndarray, "h w 3"]) -> bool:
    """Whether a frame has no colours, apart from what its coding adds."""
    return float(np.ptp(frame.astype(np.int16), axis=2).mean()) < 2.0


# -- any vision-language model ----------------------------------------------------------------------------------------

Captioner = Callable[[UInt8[np.ndarray, "h w 3"], str], str]     # picture, question: answer

_TRUCK = r"(?<!hand )(?<!hand-)trucks?"        # a hand truck is none
_KINDS: Mapping[str, str] = {
    "car": rf"cars?|vans?|{_TRUCK}|suvs?|vehicles?|carts?", "bicycle": r"bicycles?|bikes?|cyclists?|cycling",
    "motorcycle": r"motorcycles?|motorbikes?|scooters?|mopeds?", "hand_truck": r"hand[ -]?trucks?|trolleys?",
    "stroller": r"strollers?|prams?|pushchairs?", "skateboarding": r"skateboards?|skateboarders?|skateboarding|skating",
    "running": r"runners?|running|runs|jogging", "falling": r"falling|falls|fallen|lying",
    "jumping": r"jumping|jumps|leaping",
    "loitering": r"loitering|loiters|lingering", "fighting": r"fighting|fights?|brawl\w*|scuffling",
    "throwing": r"throwing|throws|thrown",
}
_MOTIONS: Mapping[str, str] = {
    "riding": r"riding|rides|cycling", "driving": r"driving|drives", "pushing": r"pushing|pushes",
    "gliding": r"gliding|skating|skateboarding", "running": r"running|runs|jogging", "fighting": r"fighting|fights",
    "throwing": r"throwing|throws", "falling": r"falling|falls", "lying": r"lying|lies", "jumping": r"jumping|jumps",
    "pacing": r"pacing|paces|loitering", "standing": r"standing|stands", "walking": r"walking|walks",
}
# Who rides a skateboard glides; elsewhere "riding" is for bicycles and motorcycles.
_BOARD_MOTIONS: Mapping[str, str] = {**{name: words for name, words in _MOTIONS.items() if name != "riding"},
                                     "gliding": rf"{_MOTIONS['gliding']}|{_MOTIONS['riding']}"}
_DENIAL = re.compile(r"\b(?:no|not|cannot|without|never|neither|nor|none|nothing)\b|n['\u2019]t\b")
_PEOPLE: Mapping[str, str] = {"man": r"man|boy|male", "woman": r"woman|girl|female"}
_THINGS: Mapping[str, str] = {"scooter": r"scooters?|mopeds?", "van": rf"vans?|{_TRUCK}", "cart": r"carts?"}
_COLOURS: Mapping[str, str] = {**{colour: colour for colour in COLOURS}, "grey": "gr[ea]y"}
_USUAL: Mapping[str, str] = {"car": "car", "bicycle": "bicycle", "motorcycle": "motorcycle", "hand_truck": "hand truck",
                             "stroller": "stroller", "skateboarding": "skateboard", "throwing": "thing"}
QUESTIONS: Mapping[str, str] = {
    "kind": "What is the sharp target in the blurred picture? Answer with a few words, such as: a person riding a bicycle.",
    "motion": "What is the sharp target doing? Answer with one word, such as: riding, pushing, running, lying.",
    "top": "Which colour is the clothing on the upper body of the person? Answer with one word.",
    "bottom": "Which colour are the trousers of the person? Answer with one word.",
    "object_colour": "Which colour is the {thing}? Answer with one word.",
}


def named(answer: str, table: Mapping[str, str]) -> str:
    """The one entry of ``table`` (name: regular expression) that an answer names, "" for none, several, or a denial."""
    text = answer.lower()
    if _DENIAL.search(text):    # "there is no car" names a car and means none
        return ""
    found = [name for name, words in table.items() if re.search(rf"\b(?:{words})\b", text)]
    return found[0] if len(found) == 1 else ""


def majority(answers: Sequence[str], table: Mapping[str, str]) -> str:
    """What more than half of the answers name, each one thing alone; else ""."""
    votes = Counter(name for answer in answers if (name := named(answer, table)))
    best, count = votes.most_common(1)[0] if votes else ("", 0)
    return best if count > len(answers) / 2 else ""


def focus_view(frame: UInt8[np.ndarray, "h w 3"], mask: Bool[np.ndarray, "h w"], *, context: float = 1.0,
               least: int = 96) -> UInt8[np.ndarray, "a b 3"]:
    """The target sharp before a blurred background (paper, step 2), cut out with ``context`` of its size on each side.

    The view is at least ``least`` pixels wide and high where the frame is.  Raises ``ValueError`` for an empty mask.
    """
    ys, xs = np.nonzero(mask)
    if not len(ys):
        raise ValueError("focus_view: the mask is empty; ask only for frames in which the target is seen")
    side = max(np.ptp(ys), np.ptp(xs)) + 1
    reach = int(max(least, (1 + 2 * context) * side)) // 2
    sharp = cv2.dilate(mask.astype(np.uint8), np.ones((5, 5), np.uint8)).astype(np.float32)
    sharp = cv2.GaussianBlur(sharp, (0, 0), 1.5)[..., None]
    blurred = cv2.GaussianBlur(frame, (0, 0), max(3.0, side / 6))
    mixed = (sharp * frame + (1 - sharp) * blurred).round().astype(np.uint8)
    spans = []
    for places, limit in ((ys, mask.shape[0]), (xs, mask.shape[1])):
        start = min(max(0, (places.min() + places.max()) // 2 - reach), max(0, limit - 2 * reach))
        spans.append(slice(int(start), int(min(limit, start + 2 * reach))))
    return mixed[spans[0], spans[1]]


class CaptionedAppearance:
    """Asks a vision-language model frame by frame and keeps what most frames agree on.

    Args:
        captioner: ``(picture, question) -> answer``; see :class:`HubCaptioner`.
        name: for the manifest.
        frames: how many frames of a track are asked about, evenly spaced.
    """

    def __init__(self, captioner: Captioner, *, name: str = "captioner", frames: int = 5) -> None:
        self.captioner, self.name, self.frames = captioner, name, frames

    def of(self, view: ClipView, track: MaskTrack) -> Sighting | Drop:
        """Look and motion, or a drop where the answers name no class and motion that most frames agree on."""
        rows = np.unique(np.linspace(0, len(track.frames) - 1, self.frames).round().astype(int))
        pictures = []
        for row in rows:
            frame = view.start + int(track.frames[row])
            pictures.append(focus_view(view.video.frames.read(frame, frame + 1)[0], view.target(track, row)))
        kind, answers = self._vote(pictures, QUESTIONS["kind"], _KINDS)
        if not kind:
            return Drop("captioner: no class", f"{view.name}, track {track.id}: answers {answers}")
        motion, said = self._vote(pictures, QUESTIONS["motion"],
                                  _BOARD_MOTIONS if kind == "skateboarding" else _MOTIONS)
        if not motion:
            return Drop("captioner: no motion", f"{view.name}, track {track.id}: answers {said}")
        # What class it is was asked; whether a van, a cart or a scooter stands in the same answers.
        thing = majority(answers, _THINGS)
        thing = thing if thing in OBJECTS[kind] else _USUAL.get(kind, "")
        asked = [] if kind == "car" else ["top", "bottom"]
        asked += ["object_colour"] if thing else []
        colours = {slot: self._vote(pictures, QUESTIONS[slot].format(thing=thing), _COLOURS)[0] for slot in asked}
        noun = thing if kind == "car" else majority(answers, _PEOPLE) or "person"
        return Sighting(Look(kind, noun, object=thing, accessories_known=False, **colours), (motion,))

    def _vote(self, pictures: Sequence[np.ndarray], question: str, table: Mapping[str, str]) -> tuple[str, list[str]]:
        """The majority's answer and all answers (cut to a length that can be shown)."""
        answers = [self.captioner(picture, question)[:80] for picture in pictures]
        return majority(answers, table), answers


class HubCaptioner:
    """Any ``AutoModelForImageTextToText`` as a captioner; greedy, one picture and one question at a time."""

    def __init__(self, model: Any, processor: Any, *, name: str, max_new_tokens: int = 24) -> None:
        self.model, self.processor, self.name, self.max_new_tokens = model, processor, name, max_new_tokens

    @classmethod
    def from_pretrained(cls, path: str | Path, *, device: str = "auto", dtype: str = "auto") -> HubCaptioner:
        """Load model and processor by folder or hub name. Raises :class:`BackboneError` that names it and the remedy."""
        import torch
        from transformers import AutoModelForImageTextToText, AutoProcessor

        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        try:
            model = AutoModelForImageTextToText.from_pretrained(path, dtype=dtype).to(device).eval()
            processor = AutoProcessor.from_pretrained(path)
        except (OSError, ValueError, KeyError) as error:
            raise BackboneError(f"{path}: cannot be loaded as a captioner ({' '.join(str(error).split())[:300]}); give a "
                                "folder or hub name that AutoModelForImageTextToText takes") from error
        return cls(model, processor, name=str(path))

    def __call__(self, picture: UInt8[np.ndarray, "h w 3"], question: str) -> str:
        """The model's answer in words."""
        import torch
        from PIL import Image

        content = [{"type": "image"}, {"type": "text", "text": question}]
        text = self.processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True,
                                                  tokenize=False)
        inputs = self.processor(text=[text], images=[Image.fromarray(picture)], return_tensors="pt").to(self.model.device)
        with torch.inference_mode():
            output = self.model.generate(**inputs, max_new_tokens=self.max_new_tokens, do_sample=False)
        said = output[:, inputs["input_ids"].shape[1]:]
        return self.processor.batch_decode(said, skip_special_tokens=True)[0].strip()

