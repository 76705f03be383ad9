"""The README's pictures of the demo, taken of the real page: ``python -m tvad.widgets.screenshots --target figures/tiny``.

Serves the demo on a free port, drives Debian's chromium through it by Playwright (of the extra "test"), finds an
event, asks a question, and writes ``demo.png``, small enough to be committed.
"""
from __future__ import annotations

import argparse
import io
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tvad.errors import MissingPhaseError, TvadError
from tvad.record import atomic_write
from tvad.widgets.serve import HOST

SIZE = {"width": 1280, "height": 1080}
MAX_BYTES = 300_000
WAIT = 600_000      # milliseconds, for slow machines


def find_browser() -> str:
    """Chromium's path. Raises :class:`MissingPhaseError` where there is none."""
    found = shutil.which("chromium") or shutil.which("chromium-browser")
    if found is None:
        raise MissingPhaseError("chromium: not installed here; Debian: apt-get install chromium")
    return found


@contextmanager
def served(notebook: Path | str, *, cwd: Path | str | None = None, seconds: float = 300) -> Iterator[str]:
    """Address of the demo, served from ``notebook`` in a process of its own as ``make demo`` serves it.

    Raises :class:`MissingPhaseError` with the server's last words where it does not come up.
    """
    with socket.socket() as free:
        free.bind((HOST, 0))
        port = free.getsockname()[1]
    code = ("from tvad.widgets.serve import make_server; "
            f"make_server({str(notebook)!r}, port={port}, browser=False).start()")
    with tempfile.TemporaryFile("w+") as log:
        server = subprocess.Popen([sys.executable, "-c", code], cwd=cwd, stdout=log, stderr=log)
        try:
            until = time.monotonic() + seconds
            while server.poll() is None and not _answers(port) and time.monotonic() < until:
                time.sleep(0.5)
            if server.poll() is not None or not _answers(port):
                log.seek(0)
                raise MissingPhaseError(f"the demo's server did not start: {log.read()[-2000:]}")
            yield f"http://{HOST}:{port}"
        finally:
            server.terminate()
            server.wait(60)


def _answers(port: int) -> bool:
    with socket.socket() as line:
        return not line.connect_ex((HOST, port))


@contextmanager
def browser_page(size: dict[str, int] | None = None) -> Iterator[Any]:
    """A fresh page of a headless chromium."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as player:
        browser = player.chromium.launch(executable_path=find_browser(), args=["--no-sandbox"])
        try:
            page = browser.new_page(viewport=size or SIZE)
            page.set_default_timeout(WAIT)
            yield page
        finally:
            browser.close()


def small_png(picture: bytes, *, most: int = MAX_BYTES) -> bytes:
    """A PNG in so many colours of a palette that it has at most ``most`` bytes; the fewest tried are 32."""
    from PIL import Image

    image = Image.open(io.BytesIO(picture)).convert("RGB")
    for colours in (256, 192, 128, 64, 32):
        out = io.BytesIO()
        image.quantize(colours, dither=Image.Dither.NONE).save(out, "PNG", optimize=True)
        if out.tell() <= most:
            break
    return out.getvalue()


def take(page: Any, *, video: str, event: str, question: str) -> bytes:
    """The picture of the page at the highest score of a video, with an event found and a question answered."""
    page.wait_for_function("/scor/i.test(document.querySelector('.tv-state')?.textContent || '')")
    if video:
        label = page.locator(".tv-card select option").filter(has_text=video).first.inner_text()
        page.locator(".tv-card select").first.select_option(label=label)
        page.wait_for_timeout(2000)
    if event and page.get_by_role("button", name="Find", exact=True).is_enabled():
        page.get_by_placeholder("e.g. someone on a bike").fill(event)
        page.get_by_role("button", name="Find", exact=True).click()
        page.wait_for_selector(f".tv-layers .widget-toggle-button:has-text('{event}')")
    page.wait_for_function("/frames scored/.test(document.querySelector('.tv-state').textContent)")
    page.get_by_role("button", name="Highest score").click()
    page.wait_for_timeout(1500)
    if question and page.get_by_role("button", name="Ask", exact=True).is_enabled():
        for asked in question.split("|"):
            before = page.locator(".tv-asked").count()
            page.get_by_placeholder("Ask about this clip").fill(asked)
            page.get_by_role("button", name="Ask", exact=True).click()
            page.wait_for_function(f"document.querySelectorAll('.tv-asked').length > {before}")
            page.wait_for_function("!document.querySelector('.tv-dots') && /Answered|!/.test("
                                   "[...document.querySelectorAll('.tv-notice')].map(n => n.textContent).join())")
            page.wait_for_timeout(800)
    page.mouse.move(5, 5)
    page.wait_for_timeout(500)
    return page.screenshot()


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tvad.widgets.screenshots", description=__doc__.splitlines()[0])
    parser.add_argument("--target", default="figures/tiny", help="folder of demo.png")
    parser.add_argument("--source", default="", help="folder of the run whose weights are shown; default: runs/tiny")
    parser.add_argument("--video", default="", help="part of the label of the video; default: the first")
    parser.add_argument("--event", default="car")
    parser.add_argument("--question", default="Is there any anomaly in the video?|How does it move?", help="divided by |")
    given = parser.parse_args(arguments)
    try:
        with tempfile.TemporaryDirectory() as folder:
            with served(_notebook(Path(folder), given.source)) as address, browser_page() as page:
                page.goto(address, timeout=WAIT, wait_until="commit")
                picture = take(page, video=given.video, event=given.event, question=given.question)
        atomic_write(Path(given.target) / "demo.png", small_png(picture))
    except TvadError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 1
    print(Path(given.target) / "demo.png")
    return 0


def _notebook(folder: Path, source: str) -> Path:
    """The demo's notebook, prepared outside of the checkout, so with absolute places."""
    from papermill import execute_notebook

    from tvad.params.base import project_root

    root = project_root()
    target = folder / "demo.ipynb"
    values = {"source": str((root / (source or "runs/tiny")).resolve()), "examples": 54}
    execute_notebook(str(root / "notebooks" / "demo.ipynb"), str(target), parameters=values, prepare_only=True,
                     progress_bar=False, log_output=False)
    return target


if __name__ == "__main__":
    sys.exit(main())
