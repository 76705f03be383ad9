"""What a visitor can do, without widgets: bad footage, missing weights, queries, questions, files to take away."""
from __future__ import annotations

import csv
import json
from types import SimpleNamespace

import av
import cv2
import numpy as np
import pytest
from demo_fakes import failing, models, no_weights, opened
from training_fakes import SIZE, toy_video
from video_samples import decode_all, scene, write_video

from tvad.errors import VideoError
from tvad.params.demo import Demo
from tvad.widgets import texts
from tvad.widgets.footage import MAX_BYTES, Receiver, check_upload, find_offers, open_file, own_offers
from tvad.widgets.picture import View, jpeg, paint
from tvad.widgets.session import MAX_LAYERS, QUESTIONS, Notice, Said, Session, asks_for_anomaly


def session_of(**changes) -> Session:
    session = Session(models(**changes))
    assert session.open(opened).kind == "good"
    return session


def picture(data: bytes) -> np.ndarray:
    return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]


def test_the_first_map_is_there_after_one_step_and_shown_over_the_frame():
    session = session_of()
    bare = picture(session.picture(View()))
    assert session.summary(View())["score"] is None and session.score_next()
    warm, facts = picture(session.picture(View())), session.summary(View())
    assert np.abs(warm.astype(int) - bare).mean() > 1 and facts["progress"] == pytest.approx(0.2)
    assert 0 <= facts["score"] <= 1 and texts.state(facts) == "Scoring… 20%"
    plain = picture(session.picture(View(heat=False, boxes=False)))
    assert np.abs(plain.astype(int) - bare).mean() < 1
    while session.score_next():
        pass
    assert session.timeline(View())["truth"] == [[10, 20]] and texts.state(session.summary(View())) == "40 frames scored"
    curve = session.timeline(View())["curves"][0]["values"]
    np.testing.assert_allclose(curve, session.analysis.scores(), atol=6e-4)
    json.dumps(session.timeline(View()), allow_nan=False)


@pytest.mark.parametrize("content, name, words", [
    (b"hello, this is text\n" * 50, "renamed.mp4", "renamed.mp4: not a readable video"),
    (b"", "nothing.mp4", "nothing.mp4: the file is empty"),
])
def test_a_file_that_is_no_video_is_refused_by_its_own_name_and_the_old_one_stays(tmp_path, content, name, words):
    session, path = session_of(), tmp_path / "upload7.mp4"
    path.write_bytes(content)
    before = session.analysis
    told = session.open(lambda: open_file(path, name))
    assert told.kind == "error" and words in told.text and str(tmp_path) not in told.text and "Traceback" not in told.text
    assert session.analysis is before


def test_the_readable_part_of_a_damaged_file_is_shown_and_said(tmp_path):
    whole = write_video(tmp_path / "whole.mkv", scene(40, *SIZE))
    cut = tmp_path / "cut.mkv"
    cut.write_bytes(whole.read_bytes()[:int(whole.stat().st_size * 0.6)])
    session = session_of()
    told = session.open(lambda: open_file(cut, "mine.mkv"))
    assert told.kind in ("info", "error") and "mine.mkv" in told.text + session.analysis.name
    mp4 = write_video(tmp_path / "whole.mp4", scene(40, *SIZE), gop=4, faststart=True)
    short = tmp_path / "cut.mp4"
    short.write_bytes(mp4.read_bytes()[:int(mp4.stat().st_size * 0.7)])
    told = session.open(lambda: open_file(short, "cut.mp4"))
    assert told.kind == "info" and "of 40 frames cannot be read and are left out" in told.text
    assert 4 < len(session.analysis) < 40 and session.score_next()


def test_one_frame_is_a_video(tmp_path):
    session, path = Session(models()), write_video(tmp_path / "one.mp4", scene(1, *SIZE))
    assert session.open(lambda: open_file(path, "one.mp4")).kind == "good"
    assert session.score_next() and not session.score_next()
    assert session.summary(View())["frames"] == 1 and len(session.picture(View())) > 1000
    assert session.ask("Anything?", 0).kind == "good"


def test_long_and_large_footage_is_cut_or_refused(tmp_path, monkeypatch):
    path = write_video(tmp_path / "long.mp4", scene(20, *SIZE))
    found = open_file(path, "long.mp4", max_frames=12)
    assert len(found.frames) == 12 and found.notes == ("The video has 20 frames; the first 12 are shown.",)
    monkeypatch.setattr("tvad.widgets.footage.MAX_PIXELS", 1000)
    with pytest.raises(VideoError, match=r"long\.mp4: frames of 90x60 pixels are larger than 1,000"):
        open_file(path, "long.mp4")


def test_uploads_are_refused_by_name_and_size_before_a_byte_is_sent():
    assert check_upload("a.MP4", 10) == ""
    assert "no kind of video" in check_upload("script.py", 10)
    assert "allowed: up to 200 MB" in check_upload("a.mp4", MAX_BYTES + 1)
    assert "is empty" in check_upload("a.mp4", 0)
    assert check_upload("../../x\\evil\n.exe", 5).startswith("evil?.exe:")


def test_the_receiver_keeps_to_its_folder_and_to_what_was_announced():
    receiver = Receiver(most=100)
    assert receiver.add(b"x") == "no upload is under way; choose the file again"
    assert receiver.begin("../../mine.mp4", 6) == "" and receiver.add(b"abc") == "" and receiver.finish() is None
    assert receiver.progress == 0.5 and receiver.add(b"def") == ""
    path, name = receiver.finish()
    assert (path.read_bytes(), path.name, name) == (b"abcdef", "upload1.mp4", "mine.mp4")
    assert receiver.begin("b.mp4", 2) == "" and "more was sent than announced" in receiver.add(b"abc")
    assert [one.name for one in path.parent.iterdir()] == ["upload1.mp4"]
    assert "101" not in receiver.begin("c.mp4", 101) and receiver.finish() is None


def test_queries_become_layers_and_say_what_they_were_taken_for():
    session = session_of()
    session.score_next()
    assert session.find(" bike ") == Notice("good", "“bike” is looked for as: bicycle.")
    assert session.find("car").text == "“car” is a known event."
    assert [curve["name"] for curve in session.timeline(View(layer="bike"))["curves"]] == ["", "bike", "car"]
    assert session.picture(View(layer="bike")) != session.picture(View())
    for wrong in ("", "x" * 81, "?!"):
        assert session.find(wrong).kind == "error"
    for number in range(MAX_LAYERS - 2):
        assert session.find("car or bike" + " or van" * number).kind == "good"
    assert "4 queries already" in session.find("van").text and session.find("bike").kind == "good"
    session.forget("bike")
    assert "bike" not in session.analysis.layers and session.picture(View(layer="bike")) == session.picture(View())


def test_questions_go_on_within_a_clip_and_begin_anew_in_another():
    session, heard = session_of(), []
    assert session.ask("  Is it   odd? ", 3, hear=heard.append).kind == "good"
    assert session.ask("How?", 7).kind == "good" and session.ask("And here?", 20).kind == "good"
    assert [(said.answer, said.start) for said in session.said] == [
        ("Yes, turn 1 about frame 0", 0), ("Yes, turn 2 about frame 0", 0), ("Yes, turn 1 about frame 16", 16)]
    assert [said.answer for said in heard[:2]] == ["Yes, ", "Yes, turn 1 about frame 0"]
    assert heard[0].question == "Is it odd?"
    assert [said.chance for said in session.said] == [0.25, 0.75, 0.25]     # asked before the answer, not after it
    assert session.ask(" ", 0).kind == session.ask("x" * 301, 0).kind == "error" and len(session.said) == 3
    assert session.transcript()[2] == {"frames": [16, 24], "question": "And here?", "answer": "Yes, turn 1 about frame 16",
                                       "probability_of_yes": 0.25}
    session.open(opened)
    assert session.said == []


@pytest.mark.parametrize("question", ["Is there any anomaly in the video?", "is there any ANOMALY in the video"])
def test_whether_there_is_an_anomaly_is_decided_as_in_evaluation(question):
    session, heard = session_of(), []
    assert session.ask(question, 0, hear=heard.append).kind == "good"
    assert heard == session.said and (heard[0].answer, heard[0].chance) == ("No.", 0.125)
    assert session.ask("Is it odd?", 0).kind == "good"
    assert session.said[1].answer == "Yes, turn 2 about frame 0"        # the decision is a turn, and others are streamed
    assert not asks_for_anomaly("Is it odd?") and asks_for_anomaly(QUESTIONS["Any anomaly?"])


@pytest.mark.parametrize("answer, chance", [("None.", None), ("Nothing moves.", None), ("Yesterday.", None), ("no", 0.25)])
def test_only_yes_and_no_have_a_chance(monkeypatch, answer, chance):
    session = session_of()
    monkeypatch.setattr(type(session.models.talker.converse(None)), "stream", lambda self, question: iter([answer]))
    session.ask("How many?", 0)
    assert (session.said[0].answer, session.said[0].chance) == (answer, chance)


@pytest.mark.parametrize("dataset, given", [("ucsd_ped2", {}), ("simcampus", {"protocol": "official"})])
def test_only_simcampus_is_opened_with_a_protocol(monkeypatch, dataset, given):
    def fake(name, **options):
        assert (name, options) == (dataset, given)
        return SimpleNamespace(name=name, videos=lambda split: (toy_video(f"{split}1"), toy_video("b")))

    monkeypatch.setattr("tvad.datasets.open_dataset", fake)
    offers, trouble = find_offers(Demo(dataset=dataset, protocol="official", examples=1))
    assert trouble == "" and [one.label for one in offers] == [
        "test1 (simulated)" if dataset == "simcampus" else "test1 (real)"]


def test_without_weights_every_action_says_what_to_run():
    bare = Session(no_weights())
    assert "make reproduce" in bare.open(opened).text and not bare.ready
    assert bare.ask("?", 0).text == bare.find("car").text == "Choose a video first."
    session = session_of(talker=None, no_talker="run: make reproduce", no_queries="train it")
    assert session.ask("Is it odd?", 0) == Notice("error", "run: make reproduce")
    assert session.find("car") == Notice("error", "train it") and session.score_next()
    assert len(bare.picture(View())) > 1000 and bare.timeline(View())["frames"] == 0


def test_frames_that_cannot_be_read_are_named_and_the_rest_is_scored():
    session = Session(models())
    session.open(lambda: type(opened())("toy", failing(opened().frames, 8, 10)))
    while session.score_next():
        pass
    assert texts.state(session.summary(View())) == "40 frames scored; 1 part unreadable"
    assert texts.state({**session.summary(View()), "frames": 1}).startswith("1 frame scored")
    assert session.timeline(View())["lost"] == [[8, 16]] and session.ask("?", 9).kind == "error"


def test_scores_findings_and_video_can_be_taken_away(tmp_path):
    session = Session(models())
    session.open(lambda: opened(n=16))
    session.score_next()
    session.find("bike")
    early, told = session.export("csv", tmp_path, View())
    assert told.text == "toy.csv is ready. Scoring is still going on: frames without a score are empty."
    assert list(csv.reader(early.open()))[16][2] == ""
    while session.score_next():
        pass
    session.ask("Is it odd?", 0)
    table = list(csv.DictReader(session.export("csv", tmp_path, View())[0].open()))
    assert len(table) == 16 and list(table[0]) == ["frame", "seconds", "anomaly", "anomaly_raw", "bike"]
    np.testing.assert_allclose([float(row["anomaly"]) for row in table], session.analysis.scores(), atol=1e-6)
    level = float(np.median(session.analysis.heat(3)))
    view = View(threshold=level)
    found = json.loads(session.export("json", tmp_path, view)[0].read_text())
    regions = session.analysis.regions(level)
    assert found["complete"] and [layer["query"] for layer in found["layers"]] == [None, "bike"]
    assert [one["frame"] for one in found["layers"][0]["regions"]] == regions.frame.tolist()
    assert found["conversations"][0]["answer"] == "Yes, turn 1 about frame 0"
    assert found["models"]["detector"] == session.models.detector.fingerprint
    path, _ = session.export("mp4", tmp_path, view)
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert (stream.frames, stream.width, float(stream.average_rate)) == (16, 768, 10.0)
    shown = picture(session.picture(View(frame=12, threshold=level)))
    assert np.abs(decode_all(path)[12].astype(int) - shown[:512]).mean() < 4
    assert session.export("exe", tmp_path, view) == (None, Notice("error", "exe: no such export; there are mp4, csv, json"))
    blocked = tmp_path / "file"
    blocked.write_text("")
    assert "not written" in session.export("csv", blocked, view)[1].text


def test_the_heat_is_where_the_map_is_and_nothing_is_painted_elsewhere():
    frame, heat = np.full((60, 90, 3), 90, np.uint8), np.zeros((6, 9), np.float32)
    heat[4, 7] = 1
    warm = paint(frame, heat, view=View(boxes=False), width=360)
    assert (warm[:120, :200] == 90).all() and np.abs(warm[180, 300].astype(int) - 90).max() > 60
    assert picture(jpeg(warm)).shape == (240, 360, 3)
    outlined = paint(frame, heat * 0, view=View(threshold=0.5), width=None)
    assert (outlined == frame).all()


def test_own_videos_are_offered_by_name(tmp_path):
    write_video(tmp_path / "b.mp4", scene(3))
    (tmp_path / "in").mkdir()
    write_video(tmp_path / "in" / "a.mkv", scene(3))
    assert [offer.label for offer in own_offers(tmp_path)] == ["b.mp4", "in/a.mkv"]
    assert len(own_offers(tmp_path / "b.mp4")[0].open()) == 3


def test_texts_escape_what_visitors_say():
    evil = "<img src=x onerror=alert(1)>"
    html = texts.chat([Said(evil, evil, 0, 16, 0.5)], fps=10) + texts.notice(Notice("error", evil))
    html += texts.header(evil, simulated=True)
    assert "<img" not in html and html.count("&lt;img") == 4 and "0.0 to 1.5 s" in html
    assert texts.notice(None) == texts.notice(Notice("info", "")) == ""
