"""The demo as a page: Voila on loopback that runs nobody's code, and the page in a real browser."""
from __future__ import annotations

import json
import os
import shutil
import time
import urllib.error
import urllib.request
import uuid
from pathlib import Path

import pytest
import yaml

from tvad.errors import MissingPhaseError, ParameterError
from tvad.widgets import serve
from tvad.widgets.__main__ import main
from tvad.widgets.screenshots import browser_page, served, small_png

ROOT = Path(__file__).resolve().parent.parent
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
WAIT = 600_000      # milliseconds: two busy cores import for a while
# A page over the fakes of the tests, so that the browser waits for no training; heavy imports wait, as in the demo.
FAKE = """
import sys

from tvad.params.demo import Demo
from tvad.widgets.page import DemoPage

sys.path.insert(0, {tests!r})

def load(*_, **__):
    from demo_fakes import models
    return models()

def offer(_):
    from demo_fakes import offers
    return offers(_)

DemoPage(Demo(), load=load, offer=offer).root
"""


def test_the_settings_keep_visitors_to_the_page():
    chosen = serve.settings(port=1)
    assert chosen["Voila"]["ip"] == serve.HOST == "127.0.0.1"
    page = chosen["VoilaConfiguration"]
    assert page["strip_sources"] and not page["show_tracebacks"] and page["file_allowlist"] == []
    assert (page["allow_template_override"], page["allow_theme_override"]) == ("NO", "NO")
    policy = chosen["Voila"]["tornado_settings"]["headers"]["Content-Security-Policy"]
    assert "default-src 'self'" in policy and "http:" not in policy and "https:" not in policy


def test_the_notebook_is_prepared_with_the_profiles_values_and_a_wrong_profile_is_named(tmp_path, capsys):
    (tmp_path / "notebooks" / "profiles").mkdir(parents=True)
    shutil.copy(ROOT / "notebooks" / "demo.ipynb", tmp_path / "notebooks")
    (tmp_path / "notebooks" / "profiles" / "mine.yaml").write_text(yaml.safe_dump(
        {"profile": "mine", "dataset": "ucsd_ped2", "protocol": "official", "split": "test", "steps": 5}))
    made = serve.prepare("mine", videos=str(tmp_path), root=tmp_path)
    assert made == tmp_path / "runs" / "mine" / "demo.ipynb"
    sources = ["".join(cell["source"]) for cell in json.loads(made.read_text())["cells"]]
    injected = next(source for source in sources if "ucsd_ped2" in source)
    assert 'profile = "mine"' in injected and str(tmp_path) in injected and "steps" not in injected
    with pytest.raises(ParameterError, match="no such profile; profiles here: mine"):
        serve.prepare("other", root=tmp_path)
    (tmp_path / "notebooks" / "profiles" / "bad.yaml").write_text("profile: bad\nexamples: many\n")
    with pytest.raises(ParameterError, match="examples: 'many' is a str; allowed: a whole number"):
        serve.prepare("bad", root=tmp_path)
    with pytest.raises(MissingPhaseError, match="the demo's notebook is missing"):
        serve.prepare("tiny", root=tmp_path / "elsewhere")
    assert main(["--profile", "no-such-profile", "--no-browser"]) == 1
    assert "no such profile" in capsys.readouterr().err


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    """The demo over the fakes, served as ``make demo`` serves it."""
    folder = tmp_path_factory.mktemp("served")
    book = json.loads((ROOT / "notebooks" / "demo.ipynb").read_text(encoding="utf-8"))
    book["cells"] = [{"cell_type": "code", "id": "only", "metadata": {}, "execution_count": None, "outputs": [],
                      "source": FAKE.format(tests=str(ROOT / "tests"))}]
    (folder / "secret.png").write_bytes(b"secret")
    (folder / "demo.ipynb").write_text(json.dumps(book))
    with served(folder / "demo.ipynb", cwd=ROOT) as found:
        yield found


def status(address: str, path: str, **headers: str) -> int:
    try:
        with urllib.request.urlopen(urllib.request.Request(address + path, headers=headers), timeout=240) as reply:
            return reply.status
    except urllib.error.HTTPError as error:
        return error.code


@pytest.mark.slow
def test_no_file_is_served_no_foreign_name_answered_and_no_code_run(address, tmp_path):
    from websockets.sync.client import connect

    assert status(address, "/voila/files/secret.png") in (403, 404)
    assert status(address, "/voila/files/demo.ipynb") in (403, 404)
    assert status(address, "/", Host="evil.example") == 403
    with urllib.request.urlopen(address + "/", timeout=240) as reply:
        page = reply.read().decode()
    assert "demo_fakes" not in page and "frame-ancestors 'self'" in reply.headers["Content-Security-Policy"]
    kernel = page.partition('"kernelId": "')[2].partition('"')[0]
    assert len(kernel) == 36
    marker = tmp_path / "code-ran"
    header = {"msg_id": uuid.uuid4().hex, "session": uuid.uuid4().hex, "username": "x", "version": "5.3", "date": ""}
    asked = {"channel": "shell", "parent_header": {}, "metadata": {}, "buffers": []}
    run = {**asked, "header": {**header, "msg_type": "execute_request"},
           "content": {"code": f"open({str(marker)!r}, 'w')", "silent": False}}
    info = {**asked, "header": {**header, "msg_id": uuid.uuid4().hex, "msg_type": "kernel_info_request"}, "content": {}}
    with connect(f"ws{address[4:]}/api/kernels/{kernel}/channels") as line:
        line.send(json.dumps(run))
        line.send(json.dumps(info))
        until = time.monotonic() + 120
        while time.monotonic() < until:     # the second message is answered, so the first was not merely late
            if json.loads(line.recv(timeout=120))["header"]["msg_type"] == "kernel_info_reply":
                break
    assert not marker.exists()


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="no chromium here; Debian: apt-get install chromium")
def test_a_visitor_plays_finds_asks_and_takes_away(address, tmp_path):
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed; pip install playwright")
    pictures = Path(os.environ.get("TVAD_SCREENSHOTS") or tmp_path)
    with browser_page() as page:
        hosts, faults = set(), []
        page.on("response", lambda reply: hosts.add(reply.url.split("/")[2]) if reply.url.startswith("http") else None)
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.goto(address, timeout=WAIT, wait_until="commit")
        state = page.locator(".tv-state")
        api.expect(state).to_have_text("40 frames scored", timeout=WAIT)
        first = page.locator(".tv-picture").get_attribute("src")
        page.get_by_role("button", name="play", exact=True).click()
        page.wait_for_function("document.querySelector('.tv-time').textContent.startsWith('0:03.9')")
        assert page.locator(".tv-picture").get_attribute("src") != first
        box = page.locator(".tv-timeline").bounding_box()
        page.mouse.click(box["x"] + 34 + (box["width"] - 44) * 0.5, box["y"] + 50)
        page.wait_for_function("/^0:0(1.9|2.0)/.test(document.querySelector('.tv-time').textContent)")
        page.keyboard.press("ArrowRight")
        page.wait_for_function("/^0:02.[01]/.test(document.querySelector('.tv-time').textContent)")
        page.get_by_placeholder("e.g. someone on a bike").fill("bike")
        page.keyboard.press("Enter")
        api.expect(page.locator(".tv-badge")).to_contain_text("bike 0.", timeout=WAIT)
        api.expect(page.locator(".tv-legend")).to_contain_text("bike")
        page.get_by_placeholder("Ask about this clip").fill("Is <b>anything</b> odd?")
        page.get_by_role("button", name="Ask", exact=True).click()
        api.expect(page.locator(".tv-answer")).to_contain_text("Yes, turn 1 about frame 16")
        api.expect(page.locator(".tv-asked")).to_have_text("Is <b>anything</b> odd?")
        with page.expect_download() as taken:
            page.get_by_role("button", name="Scores (CSV)").click()
        assert Path(taken.value.path()).read_text().startswith("frame,seconds,anomaly,anomaly_raw,bike\n0,0.000,0.")
        (tmp_path / "text.mp4").write_text("no video")
        page.locator(".tv-drop input").set_input_files(tmp_path / "text.mp4")
        api.expect(page.locator(".tv-error")).to_contain_text("text.mp4: not a readable video")
        api.expect(state).to_have_text("40 frames scored")
        picture = page.screenshot(path=pictures / "demo_fakes.png")
    assert 10_000 < len(small_png(picture)) <= 300_000
    assert hosts == {address[7:]} and not [fault for fault in faults if "Traceback" in fault]
