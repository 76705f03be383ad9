"""The words and the HTML of the demo; whatever a visitor or a file said is escaped here and nowhere else."""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tvad.widgets.session import Notice, Said


def header(name: str, *, simulated: bool) -> str:
    """The top of the page: what this is and which model speaks."""
    note = " · trained on simulated footage" if simulated else ""
    return ('<div class="tv-header"><div><h1>T-VAD</h1><p>Text-guided, fine-grained video anomaly detection</p></div>'
            f'<div class="tv-model">{escape(name)}{note}</div></div>')


def title(text: str, detail: str = "") -> str:
    """The head of a card."""
    small = f'<span class="tv-detail">{escape(detail)}</span>' if detail else ""
    return f'<h2 class="tv-title">{escape(text)}{small}</h2>'


def notice(one: Notice | None) -> str:
    """A notice as a line with a mark; nothing for an empty one."""
    if one is None or not one.text:
        return ""
    mark = {"error": "!", "good": "✓"}.get(one.kind, "i")
    role = "alert" if one.kind == "error" else "status"
    return (f'<div class="tv-notice tv-{escape(one.kind)}" role="{role}"><b aria-hidden="true">{mark}</b>'
            f"<span>{escape(one.text)}</span></div>")


def clip_words(start: int, stop: int, fps: float) -> str:
    """A clip as seconds: "4.8 to 6.3 s"."""
    return f"{start / fps:.1f} to {(stop - 1) / fps:.1f} s"


def chat(said: Sequence[Said], *, fps: float, pending: Said | None = None) -> str:
    """The conversation; every clip spoken of has a line of its own."""
    if not said and pending is None:
        return '<div class="tv-chat tv-empty">Ask about the clip at the play head. The answer knows the heatmap.</div>'
    parts, span = [], None
    for one in (*said, *([pending] if pending is not None else [])):
        if (one.start, one.stop) != span:
            span = (one.start, one.stop)
            parts.append(f'<div class="tv-clip">{clip_words(*span, fps)}</div>')
        parts.append(f'<div class="tv-say tv-asked">{escape(one.question)}</div>')
        waits = one is pending and not one.answer
        answer = '<span class="tv-dots" aria-label="thinking">…</span>' if waits else escape(one.answer)
        chance = "" if one.chance is None else f'<span class="tv-chance">P(yes) = {one.chance:.2f}</span>'
        parts.append(f'<div class="tv-say tv-answer">{answer}{chance}</div>')
    # column-reverse keeps the newest line in view without a script
    return f'<div class="tv-chat" role="log"><div class="tv-lines">{"".join(parts)}</div></div>'


def state(facts: Mapping[str, Any]) -> str:
    """How far scoring has come."""
    lost = f"; {facts['lost']} part{'s' * (facts['lost'] > 1)} unreadable" if facts["lost"] else ""
    if facts["progress"] >= 1:
        return f"{facts['frames']} frame{'s' * (facts['frames'] != 1)} scored{lost}"
    return f"Scoring… {facts['progress']:.0%}{lost}"


def badge(facts: Mapping[str, Any], layer: str) -> str:
    """The mark on the picture: the score of the frame."""
    name = layer or "anomaly"
    return f"{name}: not scored yet" if facts["score"] is None else f"{name} {facts['score']:.2f}"
