"""Parameters are refused with the nearest known name or the allowed values, before anything is computed."""
from __future__ import annotations

import os

import pytest

from tvad.errors import ParameterError
from tvad.params import Parameters, Phase1, literal_assignments, project_root


@pytest.fixture(autouse=True)
def no_smoke(monkeypatch):
    monkeypatch.delenv("TVAD_SMOKE", raising=False)


def test_defaults_hold_and_a_namespace_changes_only_what_it_sets():
    params = Phase1.read({"seed": 3, "_hidden": 1, "os": os, "print": print, "Phase1": Phase1})
    assert (params.seed, params.profile, params.taps) == (3, "tiny", (0, 1, 3, 5))


@pytest.mark.parametrize(("name", "near"), [("leraning_rate", "learning_rate"), ("sead", "seed"), ("tap", "taps")])
def test_an_unknown_name_is_refused_with_the_nearest_one(name, near):
    with pytest.raises(ParameterError) as caught:
        Phase1.read({name: 1})
    assert str(caught.value) == f"unknown parameter '{name}' (did you mean '{near}'?)"


def test_an_unknown_name_that_is_near_to_nothing_lists_the_known_ones():
    known = r"unknown parameter 'zzz' \(known: profile, output_dir, dataset, .*attention\)"
    with pytest.raises(ParameterError, match=known):
        Phase1.read({"zzz": 1})


@pytest.mark.parametrize(("given", "message"), [
    ({"seed": 1.5}, r"seed: 1.5 is a float; allowed: a whole number"),
    ({"seed": True}, r"seed: True is a bool; allowed: a whole number"),
    ({"learning_rate": True}, r"learning_rate: True is a bool; allowed: a number"),
    ({"learning_rate": "1e-3"}, r"learning_rate: '1e-3' is a str; allowed: a number"),
    ({"taps": 3}, r"taps: 3 is a int; allowed: a list, each entry a whole number"),
    ({"taps": [0, "1"]}, r"taps\[1\]: '1' is a str; allowed: a whole number"),
    ({"sigma": "validation"}, r"sigma: 'validation' is a str; allowed: a number or None"),
    ({"data_root": 7}, r"data_root: 7 is a int; allowed: text or None"),
    ({"backbone": None}, r"backbone: None is a NoneType; allowed: text"),
])
def test_a_wrong_type_names_the_allowed_one(given, message):
    with pytest.raises(ParameterError, match=message):
        Phase1.read(given)


@pytest.mark.parametrize(("given", "message"), [
    ({"learning_rate": 0}, r"learning_rate: 0.0 is out of range; allowed: 1e-08 to 1.0"),
    ({"learning_rate": float("nan")}, r"learning_rate: nan is out of range"),
    ({"frames_per_clip": 1}, r"frames_per_clip: 1 is out of range; allowed: 2 to 256"),
    ({"max_videos": -1}, r"max_videos: -1 is out of range; allowed: at least 0"),
    ({"taps": [0, 500]}, r"taps: 500 is out of range; allowed: 0 to 127"),
    ({"taps": [3, 1]}, r"taps: \[3, 1\] is not allowed; allowed: one block or more, ascending, each once"),
    ({"taps": []}, r"taps: \[\] is not allowed"),
    ({"loss": "focul"}, r"loss: 'focul' is not allowed \(did you mean 'focal'\?\); "
                        r"allowed: cross_entropy, balanced, focal, dice"),
    ({"device": "gpu"}, r"device: 'gpu' is not allowed; allowed: auto, cpu, cuda or cuda:<n>"),
    ({"profile": "../x"}, r"profile: '../x' is not allowed"),
    ({"protocol": "open-set"}, r"train_protocol: 'scene-disjoint' is not allowed with protocol 'open-set'.*allowed: open"),
    ({"stride": 17}, r"stride: 17 would leave frames between windows unseen; allowed: 1 to frames_per_clip \(16\)"),
])
def test_a_value_out_of_range_names_the_range(given, message):
    with pytest.raises(ParameterError, match=message):
        Phase1.read(given)


def test_whole_numbers_serve_as_numbers_and_lists_as_tuples():
    params = Phase1.read({"temperature": 50, "taps": [0, 2], "sigma": 3})
    assert params.temperature == 50.0 and type(params.temperature) is float
    assert params.taps == (0, 2) and params.sigma == 3.0


def test_a_second_run_of_the_cell_ignores_what_the_notebook_has_made_since():
    cells = ["", "import math", "# sizes\nseed = 1\ntaps = [0, 1]", "seed = 2", "params = Phase1.read(globals())",
             "rows = [1, 2]\nprint(rows)", "seed = 5", "params = Phase1.read(globals())"]
    namespace = {"In": cells, "seed": 5, "taps": [0, 1], "rows": [1, 2], "heat": 0.5}
    assert Phase1.read(namespace).seed == 5
    with pytest.raises(ParameterError, match="unknown parameter 'sed' "):
        Phase1.read(namespace | {"In": [*cells, "sed = 3", "params = Phase1.read(globals())"], "sed": 3})


def test_the_injected_cell_of_a_profile_is_checked_together_with_the_cell_before_it():
    namespace = {"In": ["", "seed = 1", "# Parameters\nbackbon = 'x'\n", "params = Phase1.read(globals())"], "seed": 1}
    with pytest.raises(ParameterError, match=r"unknown parameter 'backbon' \(did you mean 'backbone'\?\)"):
        Phase1.read(namespace | {"backbon": "x"})


def test_history_without_a_cell_of_assignments_falls_back_to_the_namespace():
    with pytest.raises(ParameterError, match="unknown parameter 'sed' "):
        Phase1.read({"In": ["", "import os\nsed = 3", "params = Phase1.read(globals())"], "sed": 3})


def test_literal_assignments_are_told_from_other_code():
    assert literal_assignments("a = 1\nb: float = -2.5  # why\nc = ['x']\nd = None") == {
        "a": 1, "b": -2.5, "c": ["x"], "d": None}
    assert literal_assignments("# nothing") == {}
    for other in ("a = f()", "import os", "a, b = 1, 2", "a.b = 1", "%time a = 1", "a = b = 1"):
        assert literal_assignments(other) is None, other


def test_a_profile_is_read_under_the_same_rules_and_errors_name_it(tmp_path):
    (tmp_path / "tiny.yaml").write_text("profile: tiny\ntaps: [0, 1]\nlearning_rate: 0.01\nsigma: null\n")
    params = Phase1.from_profile(tmp_path / "tiny.yaml")
    assert (params.taps, params.learning_rate, params.sigma) == ((0, 1), 0.01, None)
    with pytest.raises(ParameterError, match="none.yaml: no such profile; profiles here: tiny"):
        Phase1.from_profile(tmp_path / "none.yaml")
    for text, message in (("sede: 1", "unknown parameter 'sede'"), ("- 1", "holds a list"), ("a: [", "not readable")):
        (tmp_path / "bad.yaml").write_text(text)
        with pytest.raises(ParameterError, match=f"bad.yaml: .*{message}"):
            Phase1.from_profile(tmp_path / "bad.yaml")


def test_config_hash_follows_what_changes_results_and_nothing_else():
    base = Phase1()
    assert base.config_hash() == Phase1(output_dir="elsewhere", data_root="x", device="cpu").config_hash()
    assert base.config_hash() != Phase1(seed=1).config_hash()
    assert Phase1(temperature=50).config_hash() == Phase1(temperature=50.0).config_hash()
    assert Phase1(taps=[0, 1]).as_dict()["taps"] == [0, 1]


def test_smoke_cuts_sizes_and_moves_the_output(monkeypatch):
    monkeypatch.setenv("TVAD_SMOKE", "1")
    params = Phase1.read({"steps": 500, "max_videos": 0, "profile": "ped2"})
    assert (params.steps, params.max_videos, params.output_dir) == (6, 2, "runs/smoke/ped2")
    assert Phase1.read({"max_videos": 1}).max_videos == 1
    monkeypatch.setenv("TVAD_SMOKE", "0")
    assert Phase1.read({"steps": 500}).steps == 500


def test_the_output_folder_is_the_same_from_the_top_and_from_the_notebooks(tmp_path, monkeypatch):
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "tvad").mkdir()
    (tmp_path / "pyproject.toml").touch()
    for folder in (tmp_path, tmp_path / "notebooks"):
        monkeypatch.chdir(folder)
        assert Phase1().output == tmp_path.resolve() / "runs" / "tiny"
    assert Phase1(output_dir=str(tmp_path / "own")).output == tmp_path / "own"
    (tmp_path / "pyproject.toml").unlink()
    assert project_root(tmp_path / "notebooks") == (tmp_path / "notebooks").resolve()


def test_the_training_takes_over_the_parameters_it_shares_and_their_defaults_agree():
    from tvad.training.phase1 import Phase1Config

    made = Phase1Config.from_params(Phase1(seed=4, loss="focal", steps=2, validate_every=1))
    assert (made.seed, made.loss, made.steps, made.validate_every) == (4, "focal", 2, 1)
    # One list of defaults: the two may not drift apart.
    assert Phase1Config.from_params(Phase1()) == Phase1Config()


def test_every_parameter_says_what_it_means():
    from dataclasses import fields

    assert issubclass(Phase1, Parameters)
    assert all(len(item.metadata["help"]) > 3 for item in fields(Phase1))


def test_the_thesis_variant_wants_what_its_weights_were_made_with():
    with pytest.raises(ParameterError, match="set contrast to raw and temperature to 100"):
        Phase1(variant="thesis")
    assert Phase1(variant="thesis", contrast="raw", temperature=100.0).variant == "thesis"
