"""What a target looks like and does, as a vision-language model says it.

The thesis' captions never held an appearance, since its captioner was skipped by an early return (specification, 5.2);
the paper aggregates frame-wise answers to a target and re-describes it on a mask-guided view with blurred background
(5.3).  Here an answer counts only where it names exactly one known thing, and a track needs a majority of its frames:
nonsense becomes a counted drop and never a sentence.
"""
from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from jaxtyping import Bool, UInt8

from tvad.errors import BackboneError, ParameterError
from tvad.language.appearance import COLOURS, OBJECTS, ClipView, Drop, Look, Sighting
from tvad.language.tracks import MaskTrack

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
_DENIAL = re.compile(r"\b(?:no|not|cannot|without|never|neither|nor|none|nothing|hardly|maybe|perhaps|unclear|unsure|could"
                     r"|might|whether|toy)\b|n['\u2019]t\b")
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
    """The one entry of ``table`` (name: regular expression) that an answer names, "" for none, several, denial, doubt."""
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

    Raises:
        ParameterError: fewer than one frame.
    """

    def __init__(self, captioner: Captioner, *, name: str = "captioner", frames: int = 5) -> None:
        if frames < 1:
            raise ParameterError(f"captioner: frames must be at least 1, got {frames}; 5 is usual")
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
            return Drop("captioner: no class", f"{view.name}, track {track.id}: answers {_shown(answers)}")
        motion, said = self._vote(pictures, QUESTIONS["motion"],
                                  _BOARD_MOTIONS if kind == "skateboarding" else _MOTIONS)
        if not motion:
            return Drop("captioner: no motion", f"{view.name}, track {track.id}: answers {_shown(said)}")
        # What class it is was asked; whether a van, a cart or a scooter stands in the same answers.
        thing = majority(answers, _THINGS)
        thing = thing if thing in OBJECTS[kind] else _USUAL.get(kind, "")
        asked = [] if kind == "car" else ["top", "bottom"]
        asked += ["object_colour"] if thing else []
        colours = {slot: self._vote(pictures, QUESTIONS[slot].format(thing=thing), _COLOURS)[0] for slot in asked}
        noun = thing if kind == "car" else majority(answers, _PEOPLE) or "person"
        return Sighting(Look(kind, noun, object=thing, accessories_known=False, **colours), (motion,))

    def _vote(self, pictures: Sequence[np.ndarray], question: str, table: Mapping[str, str]) -> tuple[str, list[str]]:
        """The majority's answer and all answers; what is no text says nothing."""
        given = (self.captioner(picture, question) for picture in pictures)
        answers = [answer if isinstance(answer, str) else "" for answer in given]
        return majority(answers, table), answers


def _shown(answers: Sequence[str]) -> list[str]:
    """Answers cut to a length that a report can hold."""
    return [answer[:80] for answer in answers]


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

