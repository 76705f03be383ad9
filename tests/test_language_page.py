"""The notebook's page on a dialogue set, and its parameters."""
from __future__ import annotations

import json
from dataclasses import replace

import pytest
from language_toys import Toy

from tvad.errors import MissingPhaseError, ParameterError
from tvad.figures import talks
from tvad.language import run
from tvad.language.corpus import Settings, load_conversations
from tvad.params import Phase2


@pytest.fixture
def page(tmp_path, monkeypatch):
    """The notebook's page on the toy set."""
    monkeypatch.setattr(run, "opened", lambda params: Toy())
    monkeypatch.setattr(talks, "opened", lambda params: Toy())
    params = Phase2(dataset="ucsd_ped2", protocol="official", output_dir=str(tmp_path))
    assert run.dialogue_set(params)["splits"].keys() == {"test"}
    return talks.TalkPage(params)


@pytest.mark.parametrize("name", talks.FIGURES)
def test_figures_are_drawn_with_a_caption(page, name):
    picture, caption = page.write(name)
    assert picture == page.target / f"talk_{name}.png" and 3_000 < picture.stat().st_size <= 300_000
    assert caption.startswith("UCSD Ped2 (real)")
    noted = json.loads((page.target / "talks.json").read_text())
    assert noted["figures"][name]["caption"] == caption and noted["provenance"]["config"] == page.params.config_hash()


def test_the_page_shows_a_clip_whose_target_moves_and_the_first_that_was_dropped(page):
    assert "towards" in page.example().slots["trajectory"] and page.example().style == "turns"
    assert "hardly:0-16" in page.write("dropped")[1] and "barely seen" in page.write("dropped")[1]


def test_captions_say_which_clip_is_shown(page):
    talk = page.example()
    assert "the first clip of the split with a target that moves: masks" in talks.clip(page)[1]
    still = replace(talk, slots={**talk.slots, "trajectory": "starts at the left, stays, stays in view"})
    page.talks = [still]
    assert "the first clip of the split with a target; none moves: masks" in talks.clip(page)[1]
    page.talks = [one for one in load_conversations(page.folder, "test") if not one.anomalous]
    assert "the first clip of the split; none has a target. No masks, no tracks" in talks.clip(page)[1]
    for part in page.manifest["splits"].values():
        part["dropped"] = {"clips": 0, "reasons": {}, "examples": []}
    assert talks.dropped(page)[1] == "UCSD Ped2 (real): no clip was dropped (splits: test)."


def test_a_page_without_its_set_names_the_command(tmp_path):
    with pytest.raises(MissingPhaseError, match="no dialogue set here; run: python -m tvad.language --dataset simcampus"):
        talks.TalkPage(Phase2(output_dir=str(tmp_path))).write("counts")


def test_parameters_of_the_dialogue_set():
    assert run.settings_of(Phase2(clip_stride=8, dialogue_seed=4)) == Settings(length=16, stride=8, seed=4)
    assert Phase2(dialogue_videos=0).smoke().dialogue_videos == 2
    assert str(Phase2().smoke().output).endswith("runs/smoke/tiny")
    with pytest.raises(ParameterError, match="clip_stride: 17 would leave frames between clips unseen; allowed: 1 to"):
        Phase2(clip_stride=17)
    assert run.appearance_source("auto", "simcampus").name == "script"
    assert run.appearance_source("auto", "ucsd_ped2").name == "open"
