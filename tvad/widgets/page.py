"""The demo's page: widgets, and which action of the session each sets off.

    page = DemoPage(Demo())
    page.root                       # in JupyterLab: the last line of a cell; through Voila: the page

The page is up at once; weights are loaded in the background.  All that can be decided without a widget lies in
``session.py`` and ``texts.py``.
"""
from __future__ import annotations

import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import ipywidgets as widgets

from tvad.errors import TvadError
from tvad.params.base import project_root
from tvad.params.demo import Demo
from tvad.widgets import texts
from tvad.widgets.browser import Download, Player, Upload
from tvad.widgets.footage import Offer, Receiver, find_offers, open_file, open_offer
from tvad.widgets.models import Models, load_models
from tvad.widgets.picture import View
from tvad.widgets.session import MAX_QUESTION, QUESTIONS, Notice, Said, Session
from tvad.widgets.worker import Worker

EVENTS = ("bicycle", "car", "running", "skateboarding", "stroller", "someone falls down")
_MEDIA = {"mp4": "video/mp4", "csv": "text/csv", "json": "application/json"}


class DemoPage:
    """The widgets of one visitor; ``root`` is what to display.

    load, offer: how weights and videos are found.  threaded: False runs slow actions only in ``worker.drain()``.
    """

    def __init__(self, params: Demo, *, load: Callable[..., Models] = load_models,
                 offer: Callable[[Demo], tuple[list[Offer], str]] = find_offers, threaded: bool = True) -> None:
        self.params, self.session, self.view = params, Session(), View()
        self._load, self._offer = load, offer
        self._busy, self._chosen, self._listing, self._painting = "", 0, False, threading.Lock()
        self.receiver = Receiver()
        self._exports = tempfile.TemporaryDirectory(prefix="tvad-demo-")
        self.offers: list[Offer] = []
        self._build()
        self._connect()
        self.worker = Worker(self._score, failed=self._failed, threaded=threaded)
        self._refresh()
        self.tell(Notice("info", "Loading the model…"))
        self.worker.submit(self._start)

    # ---- what it is made of
    def _build(self) -> None:
        self.head = widgets.HTML(texts.header(self.params.backbone, simulated=self.params.backbone.endswith("-tiny")))
        self.player = Player()
        self.heat = widgets.Checkbox(True, description="Heat", indent=False)
        self.boxes = widgets.Checkbox(True, description="Boxes", indent=False)
        self.trails = widgets.Checkbox(True, description="Tracks", indent=False)
        slider = partial(widgets.FloatSlider, min=0.05, max=0.95, step=0.05, readout_format=".2f")
        self.threshold = slider(value=self.view.threshold, description="Threshold")
        self.opacity = slider(value=self.view.opacity, description="Strength")
        self.choice = widgets.Dropdown(options=[("Loading…", -1)], disabled=True)
        self.choice.layout.width = "auto"
        self.upload = Upload(self.receiver, received=self.open_upload, refused=self.refuse)
        self.video_notice, self.find_notice = widgets.HTML(), widgets.HTML()
        self.ask_notice, self.save_notice = widgets.HTML(), widgets.HTML()
        self.query = widgets.Text(placeholder="e.g. someone on a bike")
        self.find_button = widgets.Button(description="Find", button_style="primary")
        self.layers = widgets.ToggleButtons(options=[("anomaly", "")])
        self.drop = widgets.Button(description="Remove", tooltip="Take the shown query away")
        self.chips = [widgets.Button(description=text) for text in EVENTS]
        self.ask_title, self.log = widgets.HTML(), widgets.HTML()
        self.question = widgets.Text(placeholder="Ask about this clip")
        self.ask_button = widgets.Button(description="Ask", button_style="primary")
        self.hints = [widgets.Button(description=text, tooltip=asked) for text, asked in QUESTIONS.items()]
        self.saves = {kind: widgets.Button(description=label) for kind, label in
                      (("mp4", "Video (MP4)"), ("csv", "Scores (CSV)"), ("json", "Findings (JSON)"))}
        self.download = Download()
        self.root = self._laid_out()

    def _laid_out(self) -> widgets.Widget:
        def box(kind: type, children: list, *classes: str) -> widgets.Box:
            made = kind(children)
            for name in classes:
                made.add_class(name)
            return made

        row, column = partial(box, widgets.HBox), partial(box, widgets.VBox)
        self.layer_row = row([self.layers, self.drop], "tv-row", "tv-layers")
        stage = column([self.player, row([self.heat, self.boxes, self.trails, self.threshold, self.opacity],
                                         "tv-row", "tv-settings")], "tv-left")
        cards = column([
            column([widgets.HTML(texts.title("Video")), self.choice, self.upload, self.video_notice], "tv-card"),
            column([widgets.HTML(texts.title("Find an event", "in your own words")),
                    row([self.query, self.find_button], "tv-row", "tv-entry"), row(self.chips, "tv-chips"),
                    self.layer_row, self.find_notice], "tv-card"),
            column([self.ask_title, self.log, row(self.hints, "tv-chips"),
                    row([self.question, self.ask_button], "tv-row", "tv-entry"), self.ask_notice], "tv-card"),
            column([widgets.HTML(texts.title("Take it with you")), row(list(self.saves.values()), "tv-row", "tv-saves"),
                    self.save_notice], "tv-card"),
        ], "tv-right")
        return column([self.head, row([stage, cards], "tv-main"), self.download], "tv-page")

    def _connect(self) -> None:
        self.player.observe(lambda change: self.change_view(frame=change["new"]), "frame")
        for name in ("heat", "boxes", "trails", "threshold", "opacity"):
            getattr(self, name).observe(lambda change, name=name: self.change_view(**{name: change["new"]}), "value")
        self.layers.observe(lambda change: self.change_view(layer=change["new"] or ""), "value")
        self.choice.observe(lambda change: self._listing or self.choose(change["new"]), "value")
        self.query.on_msg(partial(_entered, lambda: self.find(self.query.value)))
        self.find_button.on_click(lambda _: self.find(self.query.value))
        self.drop.on_click(lambda _: self.forget(self.view.layer))
        for chip in self.chips:
            chip.on_click(lambda button: self.find(button.description))
        self.question.on_msg(partial(_entered, lambda: self.ask(self.question.value)))
        self.ask_button.on_click(lambda _: self.ask(self.question.value))
        for hint in self.hints:
            hint.on_click(lambda button: self.ask(QUESTIONS[button.description]))
        for kind, button in self.saves.items():
            button.on_click(lambda _, kind=kind: self.save(kind))

    # ---- what a visitor does
    def change_view(self, **changes: Any) -> None:
        """Another frame, layer, threshold or mark."""
        before, self.view = self.view, replace(self.view, **changes)
        self._paint()
        if before.threshold != self.view.threshold or before.layer != self.view.layer:
            self._draw_track()

    def choose(self, number: int) -> None:
        """Open one of the videos offered."""
        if 0 <= number < len(self.offers):
            offer = self.offers[number]
            self._open(lambda: open_offer(offer, backbone=self._backbone()), offer.label,
                       opened=lambda: setattr(self, "_chosen", number))

    def _list_offers(self, chosen: int) -> None:
        self._listing = True        # setting the options chooses one, which nobody asked to open
        try:
            self.choice.options = [(offer.label, at) for at, offer in enumerate(self.offers)] or [("Upload a video", -1)]
            self.choice.disabled = not self.offers
            if self.offers:
                self.choice.value = min(chosen, len(self.offers) - 1)
        finally:
            self._listing = False

    def open_upload(self, path: Path, name: str) -> None:
        """Open an upload; the file goes again where it cannot be shown."""
        def opening() -> Any:
            try:
                return open_file(path, name, backbone=self._backbone())
            except TvadError:
                path.unlink(missing_ok=True)
                raise

        def keep() -> None:
            # It can be chosen again as long as the page is open.
            note = " ".join(self.session.opened.notes)
            self.offers.append(Offer(name, lambda: opening().frames, note=note))
            self._chosen = len(self.offers) - 1
            self._list_offers(self._chosen)

        self._open(opening, name, opened=keep)

    def find(self, query: str) -> None:
        """Look for what the visitor names."""
        if not query.strip():
            return

        def job() -> None:
            told = self.session.find(query)
            self.find_notice.value = texts.notice(told)
            if told.kind != "error":
                self._list_layers(" ".join(query.split()))

        self.find_notice.value = texts.notice(Notice("info", f"Looking for “{query.strip()}”…"))
        self.worker.submit(job)

    def forget(self, query: str) -> None:
        """Take the query away that is shown."""
        self.session.forget(query)
        self.find_notice.value = ""
        self._list_layers("")

    def ask(self, question: str) -> None:
        """Ask about the clip at the play head; one question at a time."""
        if not question.strip() or self._busy == "ask":
            return
        self._busy = "ask"
        frame = self.view.frame
        self._enable()
        self.worker.submit(lambda: self._answer(question, frame))

    def _answer(self, question: str, frame: int) -> None:
        began, fps = time.perf_counter(), self._fps()
        try:
            if self.session.models.talker is not None and self.session.ready:
                waiting = Said(question.strip()[:MAX_QUESTION], "", *self.session.analysis.span_at(frame))
                self.log.value = texts.chat(self.session.said, fps=fps, pending=waiting)
            told = self.session.ask(question, frame, hear=lambda said: self._hear(said, fps))
            took = f"Answered in {time.perf_counter() - began:.1f} s."
            self.ask_notice.value = texts.notice(Notice("info", took) if told.kind == "good" else told)
            if told.kind == "good":
                self.question.value = ""
        finally:
            self._busy = ""
            self.log.value = texts.chat(self.session.said, fps=fps)
            self._enable()

    def _hear(self, said: Said, fps: float) -> None:
        if said not in self.session.said:
            self.log.value = texts.chat(self.session.said, fps=fps, pending=said)

    def save(self, kind: str) -> None:
        """Make a file and hand it to the browser."""
        def job() -> None:
            path, told = self.session.export(kind, self._exports.name, self.view)
            self.save_notice.value = texts.notice(told)
            if path is not None:
                self.download.save(path, _MEDIA[kind])

        self.save_notice.value = texts.notice(Notice("info", "Being made…"))
        self.worker.submit(job)

    # ---- in the background
    def _start(self) -> None:
        models = self._load(self.params.run, backbone=self.params.backbone, cache_dir=project_root() / "data" / "cache",
                            dataset=self.params.dataset)
        self.session.models = models
        self.offers, trouble = self._offer(self.params)
        if models.detector is None:
            self.choice.options = [("No model yet", -1)]
            return self.tell(Notice("error", models.no_detector))
        self.upload.ready = True
        self._say_what_is_missing()
        self._list_offers(0)
        self._refresh()
        self.tell(Notice("error", trouble))
        self.choose(0)

    def _open(self, opening: Callable[[], Any], label: str, *, opened: Callable[[], None] | None = None) -> None:
        def job() -> None:
            told = self.session.open(opening)
            if told.kind != "error":
                if opened is not None:
                    opened()
                self.view = replace(self.view, frame=0, layer="")
                self.player.frame = 0
                self._say_what_is_missing()
                self._score()                   # the first map before anything else
                self._list_layers("")
            else:
                self._list_offers(self._chosen)     # the one that is still shown
            self._refresh()
            self.tell(told)

        self.tell(Notice("info", f"Opening {label}…"))
        self.worker.submit(job)

    def _say_what_is_missing(self) -> None:
        self.find_notice.value = texts.notice(Notice("info", self.session.models.no_queries))
        self.ask_notice.value = texts.notice(Notice("info", self.session.models.no_talker))
        self.save_notice.value = ""

    def _score(self) -> bool:
        done = self.session.score_next(self.view.frame)
        if done:
            self._paint()
            self._draw_track()
        return done

    def _failed(self, error: Exception) -> None:
        self._busy = ""
        self._enable()
        self.tell(Notice("error", f"Something went wrong here ({type(error).__name__}); what was shown is kept. The reason "
                                  "stands in the log of the server."))

    def refuse(self, text: str) -> None:
        """Say why an upload was refused."""
        self.tell(Notice("error", text))

    def tell(self, one: Notice | None) -> None:
        """A notice in the card of the video."""
        self.video_notice.value = texts.notice(one)

    # ---- drawing
    def _paint(self) -> None:
        with self._painting, self.player.hold_sync():     # both threads paint
            picture = self.session.picture(self.view)
            self.player.picture, self.player.shown = picture, self.view.frame
            if self.session.ready:
                facts = self.session.summary(self.view)
                self.player.badge, self.player.state = texts.badge(facts, self.view.layer), texts.state(facts)
                self.player.hot = facts["score"] is not None and facts["score"] >= self.view.threshold
                self.player.peak = -1 if facts["peak"] is None else facts["peak"]
        self._head_of_chat()

    def _draw_track(self) -> None:
        self.player.track = self.session.timeline(self.view)

    def _list_layers(self, chosen: str) -> None:
        names = list(self.session.analysis.layers) if self.session.ready else [""]
        self.layers.options = [(name or "anomaly", name) for name in names]
        self.layers.value = chosen if chosen in names else ""
        self.view = replace(self.view, layer=self.layers.value or "")
        self._refresh()

    def _head_of_chat(self) -> None:
        detail = ""
        if self.session.ready:
            detail = "the clip at " + texts.clip_words(*self.session.analysis.span_at(self.view.frame), self._fps())
        head = texts.title("Ask", detail)
        if self.ask_title.value != head:
            self.ask_title.value = head

    def _refresh(self) -> None:
        self._paint()
        self._draw_track()
        self.log.value = texts.chat(self.session.said, fps=self._fps())
        self._enable()

    def _enable(self) -> None:
        models, ready = self.session.models, self.session.ready
        for one in (self.query, self.find_button, *self.chips):
            one.disabled = not ready or bool(models.no_queries)
        for one in (self.question, self.ask_button, *self.hints):
            one.disabled = not ready or models.talker is None or self._busy == "ask"
        for one in self.saves.values():
            one.disabled = not ready
        several = ready and len(self.session.analysis.layers) > 1
        self.layer_row.layout.display = "" if several else "none"
        self.drop.layout.display = "" if self.view.layer else "none"

    def _fps(self) -> float:
        return self.session.analysis.frames.fps if self.session.ready else 1.0

    def _backbone(self) -> Any:
        return getattr(self.session.models.detector, "backbone", None)


def _entered(action: Callable[[], None], _: Any, content: Any, __: Any) -> None:
    """Do ``action`` when a text box says that Enter was pressed in it."""
    if isinstance(content, dict) and content.get("event") == "submit":
        action()
