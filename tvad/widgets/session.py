"""What a visitor of the demo has before them: the video, its maps, the queries, the conversation; no widget in it.

Every action returns a :class:`Notice` for the page and leaves everything as it was where it fails.  The page calls
``picture`` and ``timeline`` from its own thread and the slow actions from another, one at a time (``tvad.widgets.worker``);
a lock guards what both touch.
"""
from __future__ import annotations

import copy
import logging
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from tvad.errors import TvadError
from tvad.widgets.models import Models
from tvad.widgets.picture import TRAIL, View, card, jpeg, paint

_LOG = logging.getLogger(__name__)
# What a button says, and what it asks: in the words that phase 2 is trained on.
QUESTIONS = {"Any anomaly?": "Is there any anomaly in the video?",
             "What does it look like?": "What does the anomalous target look like?",
             "How does it move?": "How does it move?",
             "From where to where?": "From where to where does it move?"}
MAX_QUERY, MAX_QUESTION, MAX_LAYERS = 80, 300, 4
_UNREADABLE = ("This frame cannot be read", "The file is damaged here; the other frames are shown as usual.")


@dataclass(frozen=True)
class Notice:
    """Something to tell: ``kind`` is "good", "info" or "error"."""

    kind: str
    text: str


@dataclass(frozen=True)
class Said:
    """A question about the clip of frames ``start:stop``, and its answer so far; ``chance``: of yes, where asked for."""

    question: str
    answer: str
    start: int
    stop: int
    chance: float | None = None


class Session:
    """One visitor's video and conversation; ``models`` as loaded, or without weights, which every action then says."""

    def __init__(self, models: Models | None = None) -> None:
        self.models = models or Models(no_detector="The model is being loaded.")
        self.analysis: Any = None
        self.opened: Any = None
        self.said: list[Said] = []
        self.lock = threading.RLock()
        self._shown: Any = None                 # frames of the page's own thread
        self._talks: dict[int, Any] = {}

    @property
    def ready(self) -> bool:
        """Whether a video is open."""
        return self.analysis is not None

    def open(self, opening: Callable[[], Any]) -> Notice:
        """Show another video; ``opening`` gives a :class:`tvad.widgets.footage.Opened`.  The old one stays on errors."""
        if self.models.detector is None:
            return Notice("error", self.models.no_detector)
        from tvad.widgets.analysis import Analysis

        try:
            opened = opening()
            if not len(opened.frames):
                return Notice("error", f"{opened.name}: the video has no frames")
            shown = copy.deepcopy(opened.frames)
            shown.read(0, 1)
            analysis = Analysis(self.models.detector, opened.frames, name=opened.name)
        except (TvadError, OSError, MemoryError) as error:
            return Notice("error", _first_line(error))
        except Exception as error:  # a visitor's file may make a library fail in ways of its own
            _LOG.exception("a video could not be opened")
            return Notice("error", f"The video cannot be opened ({type(error).__name__}); convert it to MP4 and try again.")
        with self.lock:
            self.opened, self.analysis, self._shown = opened, analysis, shown
            self.said, self._talks = [], {}
        return Notice("info", " ".join(opened.notes)) if opened.notes else Notice("good", "")

    def score_next(self, near: int = 0) -> bool:
        """Score one more window; whether anything was done."""
        analysis = self.analysis
        return analysis is not None and analysis.step(near=near) is not None

    def find(self, query: str) -> Notice:
        """Add a map for what the visitor names; says what the words were taken for."""
        query = " ".join(str(query).split())
        analysis = self.analysis
        if analysis is None:
            return Notice("error", "Choose a video first.")
        if self.models.no_queries:
            return Notice("error", self.models.no_queries)
        if not query or len(query) > MAX_QUERY:
            return Notice("error", f"Name what to look for, in up to {MAX_QUERY} letters, such as: bicycle.")
        if query not in analysis.layers and len(analysis.layers) > MAX_LAYERS:
            return Notice("error", f"There are {MAX_LAYERS} queries already; take one away first.")
        try:
            layer = analysis.listen(query)
        except TvadError as error:
            return Notice("error", _first_line(error))
        return Notice("good", meaning_of(layer.meanings))

    def forget(self, query: str) -> None:
        """Take a query away."""
        if self.analysis is not None:
            self.analysis.forget(query)

    def ask(self, question: str, frame: int, *, hear: Callable[[Said], None] | None = None) -> Notice:
        """Ask about the clip that shows ``frame``; ``hear`` gets the answer as it grows.  Follow-up questions about the
        same clip go on with the same conversation.  Whether there is an anomaly is answered by yes or no."""
        question = " ".join(str(question).split())
        if self.analysis is None:
            return Notice("error", "Choose a video first.")
        if self.models.talker is None:
            return Notice("error", self.models.no_talker)
        if not question or len(question) > MAX_QUESTION:
            return Notice("error", f"Ask a question of up to {MAX_QUESTION} letters.")
        try:
            span = self.analysis.span_at(frame)
            said = _answered(self._talk(span), Said(question, "", *span), hear)
        except (TvadError, MemoryError) as error:
            return Notice("error", _first_line(error))
        with self.lock:
            self.said.append(said)
        if hear is not None:
            hear(said)
        return Notice("good", "")

    def _talk(self, span: Any) -> Any:
        if span.start not in self._talks:
            from tvad.video.clip import Clip

            frames = self.analysis.frames
            clip = Clip(frames.read(*span), frames.fps, span.start, self.analysis.name)
            self._talks = {span.start: self.models.talker.converse(clip)}   # caches are large: one clip at a time
        return self._talks[span.start]

    def picture(self, view: View) -> bytes:
        """The JPEG of what ``view`` asks for."""
        analysis, shown = self.analysis, self._shown
        if analysis is None:
            return jpeg(card(("No video chosen", "Choose one on the right, or upload your own.")))
        with self.lock:
            number = int(np.clip(view.frame, 0, len(analysis) - 1))
            layer = view.layer if view.layer in analysis.layers else ""
            try:
                frame = shown.read(number, number + 1)[0]
            except TvadError:
                return jpeg(card(_UNREADABLE))
            boxes = trails = None
            if view.boxes:
                boxes = analysis.boxes(number, view.threshold, layer)
                if view.trails and analysis.complete:
                    from tvad.widgets.analysis import at_frames

                    trails = at_frames(analysis.regions(view.threshold, layer), number - TRAIL + 1, number)
            return jpeg(paint(frame, analysis.heat(number, layer), view=view, boxes=boxes, trails=trails))

    def timeline(self, view: View) -> dict[str, Any]:
        """What the timeline draws: curves with null where nothing is scored, the labelled intervals, the threshold."""
        analysis = self.analysis
        if analysis is None:
            return {"frames": 0, "fps": 1.0, "curves": [], "truth": [], "threshold": view.threshold, "lost": []}
        curves = [{"name": name, "active": name == view.layer,
                   "values": [None if np.isnan(value) else round(float(value), 3) for value in analysis.scores(name)]}
                  for name in list(analysis.layers)]
        return {"frames": len(analysis), "fps": analysis.frames.fps, "curves": curves,
                "truth": [list(span) for span in self.opened.truth], "threshold": view.threshold,
                "lost": [list(span) for span in sorted(analysis.lost)]}

    def summary(self, view: View) -> Mapping[str, Any]:
        """Facts of the current frame and of the whole: times, score, progress, the highest score and where it lies."""
        analysis = self.analysis
        scores = analysis.scores(view.layer if view.layer in analysis.layers else "")
        known = np.isfinite(scores)
        number = int(np.clip(view.frame, 0, len(analysis) - 1))
        return {"frame": number, "frames": len(analysis), "seconds": float(analysis.frames.times[number]),
                "score": None if not known[number] else float(scores[number]), "progress": analysis.progress,
                "peak": int(np.nanargmax(scores)) if known.any() else None, "lost": len(analysis.lost)}

    def export(self, kind: str, folder: Path | str, view: View) -> tuple[Path | None, Notice]:
        """Write "mp4", "csv" or "json" into ``folder``; the path, None where it failed, and what to tell."""
        from tvad.widgets import export

        analysis = self.analysis
        if analysis is None:
            return None, Notice("error", "Choose a video first.")
        path = Path(folder) / f"{_file_name(analysis.name)}.{kind}"
        try:
            if kind == "csv":
                export.write_scores(path, analysis)
            elif kind == "json":
                export.write_findings(path, analysis, threshold=view.threshold, talks=self.transcript(),
                                      models={"backbone": self.models.name, "detector": self.models.detector.fingerprint})
            elif kind == "mp4":
                export.write_video(path, analysis, view=view)
            else:
                return None, Notice("error", f"{kind}: no such export; there are {', '.join(export.KINDS)}")
        except TvadError as error:
            return None, Notice("error", _first_line(error))
        left = "" if analysis.complete else " Scoring is still going on: frames without a score are empty."
        return path, Notice("good", f"{path.name} is ready.{left}")

    def transcript(self) -> list[dict[str, Any]]:
        """The conversation so far, as JSON."""
        return [{"frames": [said.start, said.stop], "question": said.question, "answer": said.answer,
                 "probability_of_yes": said.chance} for said in self.said]


def asks_for_anomaly(question: str) -> bool:
    """Whether a question is one of those for an anomaly, which are answered by yes or no, in any of their wordings."""
    from tvad.language.phrasings import language
    from tvad.metrics.text import YES_NO, plain

    return plain(question) in {plain(one) for one in language("en").wordings("questions", YES_NO)}


def _answered(talk: Any, said: Said, hear: Callable[[Said], None] | None) -> Said:
    """``said`` with its answer; whether there is an anomaly is decided as in evaluation, by the calibrated chance."""
    from tvad.metrics.text import yes_no

    if asks_for_anomaly(said.question):
        answer, chance = talk.decide(said.question, options=("Yes.", "No."))
        return replace(said, answer=answer, chance=chance)
    before = talk.fork()        # asked for the probability, so that it does not hear its own answer
    for piece in talk.stream(said.question):
        said = replace(said, answer=said.answer + piece)
        if hear is not None:
            hear(said)
    said = replace(said, answer=said.answer.strip() or "(no answer)")
    return said if yes_no(said.answer) is None else replace(said, chance=before.probability(said.question))


def meaning_of(meanings: tuple[Any, ...]) -> str:
    """What the words of a query were taken for."""
    parts = []
    for meaning in meanings:
        name = meaning.nearest.replace("_", " ")
        if meaning.known:
            same = meaning.text.lower() == name
            parts.append(f"“{meaning.text}” is a known event" if same else f"“{meaning.text}” is looked for as: {name}")
        else:
            parts.append(f"“{meaning.text}” is no known event; the nearest is {name} (similarity {meaning.similarity:.2f})")
    return "; ".join(parts) + "."


def _first_line(error: BaseException) -> str:
    if isinstance(error, MemoryError):
        return "There is not enough memory for this video; choose a smaller one."
    return str(error).splitlines()[0] if str(error) else type(error).__name__


def _file_name(name: str) -> str:
    stem = Path(name.split(" (")[0]).stem
    return "".join(letter if letter.isalnum() or letter in "-_+" else "_" for letter in stem)[:60] or "video"
