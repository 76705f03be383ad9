"""A run of phase 2 as its notebook makes it: for other footage than SimCampus it says so and the notebook goes on."""
from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
from language_toys import Toy
from matplotlib.figure import Figure

from tvad.errors import MissingPhaseError
from tvad.figures import exchanges, talks, voice
from tvad.figures.stored import Stored
from tvad.language import run as language_run
from tvad.params import Phase1, Phase2, Phase4
from tvad.record import write_json
from tvad.study.phase2 import Phase2Run

NOTEBOOKS = Path(__file__).resolve().parent.parent / "notebooks"
REASON = "phase 2 is trained on simcampus; not run for ucsd_ped2"


def run_cells(name: str, **parameters) -> dict:
    """The code cells of a notebook in their order, with parameters put in after the tagged cell, as papermill does."""
    space: dict = {"__name__": "notebook"}
    for cell in json.loads((NOTEBOOKS / name).read_text())["cells"]:
        if cell["cell_type"] == "code":
            exec(compile("".join(cell["source"]), name, "exec"), space)  # noqa: S102 -- our own notebook
            if "parameters" in cell["metadata"].get("tags", ()):
                space |= parameters
    return space


def test_the_notebook_runs_through_for_real_footage(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(language_run, "opened", lambda params: Toy())
    monkeypatch.setattr(talks, "opened", lambda params: Toy())
    made = run_cells("phase2_rae_lora.ipynb", profile="ped2", dataset="ucsd_ped2", protocol="official",
                     output_dir=str(tmp_path))
    said = capsys.readouterr().out
    assert made["rows"] == [] and said.count(f"\n{REASON}\n") == 1 and said.count(f"Not made. {REASON}\n") == 3
    assert made["run"].table().text == REASON and made["run"].finish()["not_run"] == REASON
    assert (tmp_path / "dialogue" / "manifest.json").is_file() and not (tmp_path / "phase2").exists()
    assert not list((tmp_path / "figures").glob("voice*"))
    with pytest.raises(MissingPhaseError, match=f"^{REASON}$"):
        made["voice"].write("training")


def test_simcampus_wants_phase_1_and_reads_its_parameters(tmp_path):
    params = Phase2(output_dir=str(tmp_path))
    with pytest.raises(MissingPhaseError, match=r"phase 2 starts from the heatmap decoder of phase 1.*make reproduce"):
        Phase2Run(params)
    (tmp_path / "phase1").mkdir()
    (tmp_path / "phase1" / "ahd.safetensors").write_bytes(b"")
    run = Phase2Run(params)
    with pytest.raises(MissingPhaseError, match="phase 1 has not been run here; run: make reproduce"):
        _ = run.phase1
    write_json(tmp_path / "phase1" / "params.json", {**Phase1(steps=7).as_dict(), "since_taken_away": 1})
    assert run.not_run == "" and run.phase1.steps == 7


def page_of(folder, **more) -> voice.VoicePage:
    params = Phase2(output_dir=str(folder), **more)
    return voice.VoicePage(SimpleNamespace(params=params, not_run="", model=folder / "phase2" / "model"))


def test_tokens_of_a_variant_without_region_encoder_are_not_made_and_that_is_said(tmp_path, capsys):
    page_of(tmp_path, variant="no-rae").show("tokens")
    said = capsys.readouterr().out
    assert said.startswith("Not made. ") and "rae.safetensors: no trained region encoder (variant no-rae)" in said


def test_captions_of_a_run_of_other_parameters_are_not_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(voice, "FIGURES", {name: lambda page: (Figure(), page.params.variant) for name in "ab"})

    def captions(**more):
        for name in more.pop("names"):
            page_of(tmp_path, **more).write(name)
        figures = json.loads((tmp_path / "figures" / "voice.json").read_text())["figures"]
        return {name: entry["caption"] for name, entry in figures.items()}

    assert captions(names="ab") == {"a": "full", "b": "full"}
    assert captions(names="a") == {"a": "full", "b": "full"}
    assert captions(names="a", variant="no-lora") == {"a": "no-lora"}


def test_conversations_are_shown_in_the_style_that_was_answered(tmp_path, monkeypatch):
    stored, asked = Stored(Phase4(source=str(tmp_path))), []
    with pytest.raises(MissingPhaseError, match=f"^{REASON}$"):
        exchanges.dialogue(Stored(Phase4(source=str(tmp_path), dataset="ucsd_ped2", protocol="official")))
    monkeypatch.setattr(Stored, "answers", lambda self: [])
    monkeypatch.setattr(Stored, "conversations", lambda self, style: asked.append(style) or [])
    monkeypatch.setattr(exchanges, "joined", lambda answers, conversations: 1 / 0)
    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            exchanges.dialogue(stored)
        write_json(tmp_path / "phase2" / "params.json", {"style": "sentences"})
    assert asked == ["turns", "sentences"] and any(name.endswith("params.json") for name in stored.sources())
