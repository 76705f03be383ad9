"""The three parts of the page that ipywidgets lacks: the stage with its timeline, the upload in pieces, the download.

Each is a thin shell (anywidget): its JavaScript in ``static/`` draws and sends, the Python side holds traits alone.
"""
from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import anywidget
import traitlets

from tvad.widgets.footage import MAX_BYTES, SUFFIXES, Receiver, check_upload

_STATIC = Path(__file__).parent / "static"


class Player(anywidget.AnyWidget):
    """Picture, play controls, timeline.  The browser sets ``frame``; Python sets ``picture`` and ``shown`` in answer.

    ``track``: what :meth:`tvad.widgets.session.Session.timeline` gives.  ``state``, ``badge``: words beside the controls
    and on the picture; ``hot``: whether the badge warns.  ``peak``: frame of the highest score, -1 for none.
    """

    _esm = _STATIC / "player.js"
    _css = _STATIC / "demo.css"
    picture = traitlets.Bytes(b"").tag(sync=True)
    frame = traitlets.Int(0).tag(sync=True)
    shown = traitlets.Int(-1).tag(sync=True)
    track = traitlets.Dict({"frames": 0}).tag(sync=True)
    state = traitlets.Unicode("").tag(sync=True)
    badge = traitlets.Unicode("").tag(sync=True)
    hot = traitlets.Bool(False).tag(sync=True)
    peak = traitlets.Int(-1).tag(sync=True)


class Upload(anywidget.AnyWidget):
    """A file from the visitor's disk; ``received(path, name)`` is called when it is whole, ``refused(text)`` otherwise."""

    _esm = _STATIC / "upload.js"
    suffixes = traitlets.List(list(SUFFIXES)).tag(sync=True)
    most = traitlets.Int(MAX_BYTES).tag(sync=True)
    ready = traitlets.Bool(False).tag(sync=True)

    def __init__(self, receiver: Receiver, *, received: Callable[[Path, str], None],
                 refused: Callable[[str], None]) -> None:
        super().__init__(most=receiver.most)
        self.receiver, self._received, self._refused = receiver, received, refused
        self.on_msg(self._hear)

    def _hear(self, _: Any, content: Any, buffers: Sequence[Any]) -> None:
        """One message of the browser, which may hold anything."""
        reply, refusal = answer_upload(self.receiver, content, buffers)
        if refusal:
            self._refused(refusal)
        if reply == "whole":
            path, name = self.receiver.finish()
            self._received(path, name)
        elif reply:
            self.send({"kind": reply})


def answer_upload(receiver: Receiver, content: Any, buffers: Sequence[Any]) -> tuple[str, str]:
    """What to send back ("next", "stop", "whole" for a finished file, or nothing), and a refusal in words or nothing."""
    kind = content.get("kind") if isinstance(content, dict) else None
    if kind in ("begin", "check"):
        name, size = content.get("name"), content.get("size")
        if not isinstance(name, str) or not isinstance(size, int):
            return "stop", "the browser sent no file; choose it again"
        if kind == "check":
            return "stop", check_upload(name, size, most=receiver.most)
        refusal = receiver.begin(name, size)
    elif kind == "piece":
        refusal = receiver.add(b"".join(bytes(part) for part in buffers))
    elif kind == "end":
        if receiver.progress == 1:
            return "whole", ""
        receiver.cancel()
        refusal = "the upload ended before its end; choose the file again"
    elif kind == "refused":
        return "stop", "The model is still being loaded; choose the file again in a moment."
    else:
        return "", ""
    return ("stop", refusal) if refusal else ("next", "")


class Download(anywidget.AnyWidget):
    """Hands files to the browser's own download."""

    _esm = _STATIC / "download.js"

    def save(self, path: Path, media_type: str) -> None:
        """Offer a file under its name."""
        self.send({"kind": "save", "name": path.name, "type": media_type}, buffers=[path.read_bytes()])
