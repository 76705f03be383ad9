"""The page's shell: every control sets off its action, messages stay in the page, and the browser may send anything."""
from __future__ import annotations

import re

import pytest
import torch
from demo_fakes import models, no_weights, offers
from tiny_model import random_model_directory
from training_fakes import SIZE
from video_samples import scene, write_video

from tvad.backbones.qwen import QwenBackbone
from tvad.heatmap import AnomalyHeatmapDecoder
from tvad.params.demo import Demo
from tvad.queries.heatmap import EventHeatmapDecoder
from tvad.queries.words import TextSpace
from tvad.video.read import open_frames
from tvad.widgets.browser import answer_upload
from tvad.widgets.footage import Offer, Receiver
from tvad.widgets.models import find_models, load_models
from tvad.widgets.page import DemoPage
from tvad.widgets.worker import Worker


def page_of(load=lambda *_, **__: models(), offer=offers) -> DemoPage:
    page = DemoPage(Demo(), load=load, offer=offer, threaded=False)
    page.worker.drain()
    return page


def test_the_page_is_up_before_the_model_and_then_shows_the_first_video_scored():
    page = DemoPage(Demo(), load=lambda *_, **__: models(), offer=offers, threaded=False)
    assert "Loading the model" in page.video_notice.value and page.question.disabled and page.player.track["frames"] == 0
    page.worker.drain()
    assert page.choice.options == (("one", 0), ("two", 1)) and page.choice.value == 0 and page.upload.ready
    assert page.player.state == "40 frames scored" and len(page.player.track["curves"][0]["values"]) == 40
    assert page.player.peak == int(page.session.analysis.scores().argmax()) and page.video_notice.value == ""
    assert not page.question.disabled and page.layer_row.layout.display == "none"


def test_frames_layers_and_switches_repaint():
    page = page_of()
    first = page.player.picture
    page.player.frame = 12
    assert page.player.shown == 12 and page.player.picture != first and "1.6 s" not in page.ask_title.value
    shown = page.player.picture
    page.heat.value = False
    assert page.player.picture != shown
    page.threshold.value = 0.2
    assert page.player.track["threshold"] == 0.2 and page.view.threshold == 0.2


def test_a_query_is_found_by_button_chip_and_enter_and_taken_away():
    page = page_of()
    page.query.value = "bike"
    page.find_button.click()
    page.worker.drain()
    assert page.layers.value == "bike" and page.view.layer == "bike" and "looked for as: bicycle" in page.find_notice.value
    assert page.player.badge.startswith("bike ") and page.layer_row.layout.display == ""
    page.query.value = "van"
    page.query._handle_msg({"content": {"data": {"method": "custom", "content": {"event": "submit"}}}, "buffers": []})
    page.worker.drain()
    assert [value for _, value in page.layers.options] == ["", "bike", "van"]
    page.layers.value = ""
    assert page.player.badge.startswith("anomaly ")
    page.layers.value = "van"
    page.drop.click()
    assert [value for _, value in page.layers.options] == ["", "bike"] and page.view.layer == ""
    page.query.value = "  "
    page.find_button.click()
    assert "Looking for" not in page.find_notice.value


def test_a_question_is_answered_once_and_the_box_is_free_again():
    page = page_of()
    page.question.value = "<i>odd?</i>"
    page.ask_button.click()
    page.ask_button.click()
    assert page.ask_button.disabled
    page.worker.drain()
    assert len(page.session.said) == 1 and "&lt;i&gt;odd?" in page.log.value and "Yes, turn 1" in page.log.value
    assert page.question.value == "" and not page.ask_button.disabled and "Answered in" in page.ask_notice.value
    page.hints[0].click()
    page.worker.drain()
    assert page.session.said[1].question == "Is there any anomaly in the video?"


def test_files_reach_the_browser_and_failures_stay_in_the_page(monkeypatch):
    page, sent = page_of(), []
    page.download.send = lambda content, buffers=None: sent.append((content, buffers))
    page.saves["csv"].click()
    page.worker.drain()
    assert sent[0][0] == {"kind": "save", "name": "one.csv", "type": "text/csv"}
    assert sent[0][1][0].startswith(b"frame,seconds")
    monkeypatch.setattr(page.session, "export", lambda *_: 1 / 0)
    page.saves["json"].click()
    page.worker.drain()
    assert "Something went wrong here (ZeroDivisionError)" in page.video_notice.value and page.session.ready
    assert "Traceback" not in page.video_notice.value


def test_no_weights_are_said_in_the_page_and_nothing_can_be_pressed():
    page = page_of(load=no_weights)
    assert "make reproduce" in page.video_notice.value and page.choice.disabled and not page.upload.ready
    assert page.question.disabled and page.query.disabled and all(button.disabled for button in page.saves.values())
    page = page_of(load=lambda *_, **__: models(talker=None, no_talker="needs phase 2", no_queries="needs queries"))
    assert "needs phase 2" in page.ask_notice.value and "needs queries" in page.find_notice.value
    assert page.ask_button.disabled and page.find_button.disabled and page.player.state == "40 frames scored"
    page = page_of(offer=lambda _: ([], "the data set is not here"))
    assert "the data set is not here" in page.video_notice.value and page.choice.options == (("Upload a video", -1),)


def upload(page, name, content, piece=100_000):
    said = []
    page.upload.send = said.append
    page.upload._hear(None, {"kind": "begin", "name": name, "size": len(content)}, [])
    for start in range(0, len(content), piece):
        page.upload._hear(None, {"kind": "piece"}, [memoryview(content[start:start + piece])])
    page.upload._hear(None, {"kind": "end"}, [])
    page.worker.drain()
    return [one["kind"] for one in said]


def test_an_upload_is_shown_and_can_be_chosen_again_and_a_bad_one_changes_nothing(tmp_path):
    page = page_of()
    content = write_video(tmp_path / "x.mp4", scene(12, *SIZE)).read_bytes()
    assert set(upload(page, "mine.mp4", content, piece=3000)) == {"next"}
    assert page.player.state == "12 frames scored" and page.choice.label == "mine.mp4"
    assert upload(page, "text.mp4", b"no video at all " * 20)
    assert "text.mp4: not a readable video" in page.video_notice.value and page.player.state == "12 frames scored"
    assert [label for label, _ in page.choice.options] == ["one", "two", "mine.mp4"]
    page.choice.value = 1
    page.worker.drain()
    assert page.player.state == "16 frames scored"
    page.choice.value = 2
    page.worker.drain()
    assert page.player.state == "12 frames scored"
    page.offers[0] = Offer("one", lambda: 1 / 0)
    page.offers[1] = Offer("two", lambda: open_frames(tmp_path / "gone.mp4"))
    for number, words in ((1, "gone.mp4: no such file"), (0, "cannot be opened (ZeroDivisionError)")):
        page.choice.value = number
        page.worker.drain()
        assert words in page.video_notice.value and page.player.state == "12 frames scored"
        assert page.choice.label == page.session.opened.name == "mine.mp4"


@pytest.mark.parametrize("content, reply, words", [
    ({"kind": "begin", "name": "x.sh", "size": 5}, "stop", "no kind of video"),
    ({"kind": "begin", "name": 7, "size": 5}, "stop", "sent no file"),
    ({"kind": "begin", "name": "x.mp4", "size": 10**12}, "stop", "allowed: up to"),
    ({"kind": "check", "name": "x.mp4", "size": 10**12}, "stop", "make demo VIDEOS="),
    ({"kind": "end"}, "stop", "ended before its end"), ({"kind": "refused"}, "stop", "still being loaded"),
    ({"kind": "eval", "code": "1/0"}, "", ""), ("nonsense", "", ""), (None, "", ""),
])
def test_whatever_the_browser_sends_has_an_answer(content, reply, words):
    got, refusal = answer_upload(Receiver(), content, [])
    assert got == reply and words in refusal


def test_the_worker_outlives_a_job_that_fails_and_ends_when_told():
    told, done = [], []
    worker = Worker(lambda: False, failed=told.append)
    worker.submit(lambda: 1 / 0)
    worker.submit(lambda: done.append(1))
    worker.submit(worker.close)
    worker._thread.join(20)
    assert done == [1] and isinstance(told[0], ZeroDivisionError) and not worker._thread.is_alive()


def test_weights_are_found_in_a_run_and_their_absence_is_put_into_words(tmp_path):
    run = tmp_path / "runs" / "tiny"
    assert find_models(run).ahd is None
    assert "no weights in runs/tiny/phase1 yet. In a terminal, run: make reproduce (" in load_models(run).no_detector
    assert "run: make reproduce PROFILE=ped2 (" in load_models(tmp_path / "runs" / "ped2").no_detector
    for name in ("phase1/ahd.safetensors", "phase1/queries.safetensors", "phase2/full/model/phase2.json",
                 "phase2/full/model/complete.json", "phase2/no-rae/model/phase2.json", "phase2/no-rae/model/complete.json",
                 "phase2/broken/model/phase2.json"):
        (run / name).parent.mkdir(parents=True, exist_ok=True)
        (run / name).write_text("{}")
    found = find_models(run)
    assert (found.ahd, found.queries) == (run / "phase1/ahd.safetensors", run / "phase1/queries.safetensors")
    assert found.speaker == run / "phase2/full/model"
    damaged = load_models(run)
    assert damaged.detector is None and "damaged" in damaged.no_detector and str(tmp_path) not in damaged.no_detector


@pytest.mark.parametrize("content, words", [
    (None, "runs/tiny/phase1/queries.safetensors; run: make reproduce"),
    (b"{}", r"runs/tiny/phase1/queries\.safetensors: .*make reproduce"),
    ("foreign", "fingerprint other.*, not on .*make reproduce"),
])
def test_a_queries_decoder_that_cannot_be_used_is_left_out_and_said(tmp_path, content, words):
    run, towers = tmp_path / "runs" / "tiny", random_model_directory(tmp_path / "tower")
    tower = QwenBackbone.from_pretrained(towers, device="cpu", dtype="float32")
    shape = dict(taps=tower.taps, tap_width=48, hidden_width=8, text_width=256)
    AnomalyHeatmapDecoder(**shape).save(run / "phase1" / "ahd.safetensors", backbone_fingerprint=tower.fingerprint)
    path = run / "phase1" / "queries.safetensors"
    if content == "foreign":
        EventHeatmapDecoder(**shape, wordings={"car": ("car",)}, normal=("person",),
                            space=TextSpace(torch.zeros(256), torch.eye(256)[:1])).save(path, backbone_fingerprint="other")
    elif content is not None:
        path.write_bytes(content)
    found = load_models(run, backbone=str(towers), cache_dir=tmp_path)
    assert found.no_detector == "" and found.detector is not None and found.detector.queries is None
    assert re.search(words, found.no_queries) and str(tmp_path) not in found.no_queries
    assert "phase 2, which runs/tiny/phase2 does not hold yet. In a terminal, run: make reproduce, then" in found.no_talker


def test_without_a_conversation_for_real_footage_the_page_says_what_can_be_asked(tmp_path):
    run, towers = tmp_path / "runs" / "ped2", random_model_directory(tmp_path / "tower")
    tower = QwenBackbone.from_pretrained(towers, device="cpu", dtype="float32")
    AnomalyHeatmapDecoder(taps=tower.taps, tap_width=48, hidden_width=8, text_width=256).save(
        run / "phase1" / "ahd.safetensors", backbone_fingerprint=tower.fingerprint)
    found = load_models(run, backbone=str(towers), cache_dir=tmp_path, dataset="ucsd_ped2")
    assert "phase 2 is trained on simcampus; not run for ucsd_ped2. The model of the simulated scenes can be asked about " \
           "your own footage: make demo VIDEOS=" in found.no_talker
    assert found.no_queries.endswith("run: make reproduce PROFILE=ped2")
