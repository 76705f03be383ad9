"""The study of phase 2: cells are made once, beside the rows of phase 1; trials see validation alone."""
from __future__ import annotations

from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import pytest
from phase2_fakes import TALKS, TEXT, VIDEOS

from tvad.errors import ParameterError
from tvad.params import Phase1, Phase2
from tvad.record import SPOKEN, Row, append_rows, read_rows
from tvad.study import __main__ as command
from tvad.study import ablation, speaking
from tvad.study.ablation import Ablation
from tvad.study.speaking import Spoken
from tvad.study.tables import study_tables
from tvad.training.variants import VARIANTS

pytest_plugins = ("phase2_fakes",)
PARAMS = Phase2(steps=1, word_steps=2, blob_steps=1, blob_batch=2, batch_size=2, validate_every=2, scene_share=0.0, every=1,
                token_step=1, pool=1, looks=2, val_conversations=4, bootstrap_samples=10)
HEAT = Row(system="t-vad", variant="full", dataset="simcampus", split="test", protocol="scene-disjoint", metric="micro_auc",
           value=0.9, ci_low=None, ci_high=None, n=4, seed=0, config="phase1", commit=None)


@pytest.fixture
def study(backbone, decoder, root, tmp_path, monkeypatch):
    asked = []

    def spoken(params, dataset, folder):
        open_set = "-open" if params.protocol == "open-set" else ""
        splits = [f"{name}{open_set}" for name in ("train", "val", "test")]
        assert params.split == splits[-1] and str(folder).endswith(
            "runs/study/open-set/dialogue" if open_set else "runs/tiny/dialogue")
        return Spoken(dict.fromkeys(splits, TALKS[:2]), dict.fromkeys(splits, VIDEOS), protocol=params.protocol)

    phase1 = SimpleNamespace(params=Phase1(), decoder=lambda *_, protocol, seed: asked.append((protocol, seed)) or decoder)
    monkeypatch.setattr(ablation, "open_backbone", lambda _, load_language_model: load_language_model and backbone)
    monkeypatch.setattr(speaking, "answer_split", partial(speaking.answer_split, limit=3))
    monkeypatch.setattr(ablation, "dialogue_set", lambda params: None)
    monkeypatch.setattr(ablation, "opened", lambda params: None)
    monkeypatch.setattr(ablation.Spoken, "of", spoken)
    monkeypatch.setattr(ablation, "OPEN_SET_EVENTS", ("car",))
    monkeypatch.setattr(ablation, "prototypes", lambda *_, **__: TEXT)
    # No profile sets how many blobs the classifiers of the region encoder see.
    config = Ablation.config
    monkeypatch.setattr(Ablation, "config", lambda *given: replace(config(*given), word_blobs=8))

    def make(**options):
        made = Ablation("tiny", root=tmp_path, params=PARAMS, phase1=phase1, **options)
        made.cache = root
        return made
    make.asked = asked
    return make


@pytest.fixture
def told(monkeypatch):
    """Cells without training: which were asked for, and a row of each split."""
    seen = []

    def cell(config, backbone, decoder, data, *, splits, output, **options):
        seen.append((config.variant, config.seed, data.protocol))
        key = output.parent.name
        return [replace(HEAT, variant=config.variant, seed=config.seed, split=split, protocol=data.protocol, config=key,
                        metric="bleu4_target") for split in splits]

    monkeypatch.setattr(ablation, "speak_cell", cell)
    return seen


def test_every_variant_is_trained_and_told_beside_the_rows_of_phase_1(study, tmp_path):
    path = tmp_path / "figures" / "tiny" / "study.jsonl"
    append_rows(path, [HEAT])
    assert study(seeds=(0,)).run() == [path]
    rows = read_rows(path)
    assert rows[0] == HEAT                      # the rows of phase 1 of the same variant, split and seed stay
    spoken = [row for row in rows if row.metric in SPOKEN]
    assert {row.variant for row in spoken} == {*VARIANTS, "swapped"} and len(spoken) == len(rows) - 1
    assert {row.split for row in spoken if row.variant == "no-lora"} == {"val", "test"}
    opened = [row for row in spoken if row.split == "test-open"]
    assert {row.variant for row in opened} == {"full", "swapped"} and {row.event for row in opened} == {None, "kept-out"}
    assert VARIANTS.keys() == set(Phase2.__dataclass_fields__["variant"].metadata["choices"])
    assert {row.choice for row in spoken if row.split == "val"} == {"in-sample"}
    assert {row.choice for row in spoken if row.split != "val"} == {"fixed"}
    assert len({row.config for row in spoken if row.protocol == "scene-disjoint"}) == 1
    assert set(study.asked) == {("scene-disjoint", 0), ("open-set", 0)}
    tables = study_tables(rows)
    assert "not one study" not in tables and "test split (scene-disjoint), answers, seeds 0" in tables
    models = {path.parent.name for path in tmp_path.rglob("model") if path.is_dir()}
    assert models == {*(f"{name}-scene-disjoint-seed0" for name in VARIANTS), "full-open-set-seed0"}


def test_cells_that_have_rows_are_not_made_again(study, told, tmp_path, capsys):
    study(seeds=(0,), variants=("full", "no-rae")).run()
    assert told == [("full", 0, "scene-disjoint"), ("no-rae", 0, "scene-disjoint"), ("full", 0, "open-set")]
    assert "phase 2, scene-disjoint: 2 of 2 cells to do" in capsys.readouterr().out
    study(seeds=(0, 1), variants=("full", "no-rae")).run()
    assert told[3:] == [("full", 1, "scene-disjoint"), ("no-rae", 1, "scene-disjoint"), ("full", 1, "open-set")]
    path = tmp_path / "figures" / "tiny" / "study.jsonl"
    rows = read_rows(path)
    path.unlink()
    append_rows(path, [row for row in rows if (row.variant, row.split) != ("no-rae", "test")])     # half a cell is none
    study(seeds=(0, 1), variants=("full", "no-rae")).run()
    assert told[6:] == [("no-rae", 0, "scene-disjoint"), ("no-rae", 1, "scene-disjoint")]
    assert sorted(map(str, read_rows(path))) == sorted(map(str, rows))


def test_a_trial_answers_validation_alone_and_leaves_the_study_as_it_is(study, told, tmp_path):
    one, = study(seeds=(0,), variants=("full",), changes={"steps": 2}).run()
    two, = study(seeds=(0,), variants=("full",), changes={"steps": 3, "learning_rate": 1e-3}).run()
    assert one != two and one.name == two.name == "trial.jsonl" and tmp_path / "runs" in one.parents
    assert {row.split for row in read_rows(one) + read_rows(two)} == {"val"} and told == [("full", 0, "scene-disjoint")] * 2
    assert not (tmp_path / "figures").exists()
    assert study(changes={"steps": 2}).config("no-rae", 4).steps == 2
    with pytest.raises(ParameterError, match=r"unknown parameter 'learning_rat' \(did you mean 'learning_rate'\?\)"):
        study(changes={"learning_rat": 1.0})
    inner = study(changes={"lora_rank": 4, "hidden_width": 64, "region": "worded"}).config("full", 0)
    assert (inner.lora_rank, inner.encoder) == (4, {"variant": "worded", "hidden_width": 64})
    for wrong in ({"lora_rank": "abc"}, {"lora_rank": 8.5}):
        with pytest.raises(ParameterError, match=r"lora_rank: .* must be of type int"):
            study(changes=wrong)
    with pytest.raises(ParameterError, match="unknown variant 'half'"):
        study(variants=("half",))
    with pytest.raises(ParameterError, match="phase 2 is trained on simcampus, not on ucsd_ped2"):
        Ablation("ped2", root=tmp_path, params=Phase2(dataset="ucsd_ped2"))


def test_the_command_runs_the_phase_that_it_is_told(monkeypatch, capsys):
    made = []

    class Told:
        def __init__(self, name):
            self.name = name

        def __call__(self, profile, **options):
            made.append((self.name, profile, options))
            return SimpleNamespace(run=lambda: None)

    monkeypatch.setattr(command, "Study", Told("phase 1"))
    monkeypatch.setattr(command, "Ablation", Told("phase 2"))
    assert command.main(["run"]) == 0 and made[-1] == (
        "phase 1", "tiny", {"seeds": (0, 1, 2), "variants": command.VARIANTS})
    assert command.main(["run", "--phase", "2", "--seeds", "4", "--variants", "no-rae", "--set", "steps=5",
                         "asked=all"]) == 0
    assert made[-1] == ("phase 2", "tiny", {"seeds": [4], "variants": ["no-rae"], "changes": {"steps": 5, "asked": "all"}})
    assert command.main(["run", "--phase", "2"]) == 0 and made[-1][2]["variants"] == tuple(VARIANTS)
    for wrong, said in ((["--variants", "no-rae"], "variant 'no-rae' is not of phase 1; choose from full, control"),
                        (["--set", "steps=5"], "--set is for run --phase 2")):
        with pytest.raises(SystemExit):
            command.main(["run", *wrong])
        assert said in capsys.readouterr().err
    assert command.main(["run", "--phase", "2", "--set", "steps"]) == 1
    assert "--set steps: not NAME=VALUE" in capsys.readouterr().err
