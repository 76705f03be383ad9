"""Shared folders: round trips, refusals by name, the card and its five lines, the hub through a client that is not one."""
from __future__ import annotations

import errno
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from conversation_fakes import clip
from tiny_model import random_model_directory
from video_samples import scene, write_video

from tvad.backbones.qwen import QwenBackbone
from tvad.conversation import TVAU
from tvad.detection import Scoring
from tvad.detector import TVAD
from tvad.errors import CheckpointError, MissingPhaseError, StorageError
from tvad.heatmap import AnomalyHeatmapDecoder
from tvad.queries.heatmap import EventHeatmapDecoder
from tvad.queries.words import TextSpace
from tvad.record import Row, append_rows, write_json
from tvad.sharing import folder as folder_module
from tvad.sharing import from_pretrained, push_to_hub, save_pretrained, verify
from tvad.training.speaker import Lora, attach
from tvad.training.variants import VARIANTS
from tvad.video.frames import ArrayFrames

ROW = dict(system="t-vad", variant="full", dataset="simcampus", split="test", protocol="scene-disjoint", n=100, seed=0,
           config="0" * 12, commit=None)
SPLIT = {"role": "training", "dataset": "simcampus", "split": "train", "protocol": "scene-disjoint", "videos": 5,
         "frames": 150, "hash": "abc"}


@pytest.fixture(scope="module")
def zoo(tmp_path_factory):
    folder = tmp_path_factory.mktemp("zoo")
    random_model_directory(folder / "random-tiny")
    return folder


@pytest.fixture(autouse=True)
def in_zoo(zoo, monkeypatch):
    monkeypatch.setattr("tvad.backbones.zoo.ZOO", zoo)
    monkeypatch.setattr(folder_module, "ZOO", zoo)


@pytest.fixture(scope="module")
def run(zoo, tmp_path_factory):
    """What phases 1 and 2 leave, of untrained models."""
    run = tmp_path_factory.mktemp("runs") / "tiny"
    backbone = QwenBackbone.from_pretrained(zoo / "random-tiny", device="cpu", dtype="float32", load_language_model=True)
    torch.manual_seed(1)
    shape = dict(taps=backbone.taps, tap_width=48, hidden_width=8, text_width=256)
    extra = {"backbone": backbone.name, "phase1": json.dumps({"steps": 3}), "best": json.dumps({"val_micro_auc": 0.9})}
    AnomalyHeatmapDecoder(**shape).save(run / "phase1" / "ahd.safetensors", backbone_fingerprint=backbone.fingerprint,
                                        extra=extra)
    Scoring(frames_per_clip=8, stride=8, sigma=2.0).save(run / "phase1" / "detector.json")
    space = TextSpace(torch.zeros(256), torch.eye(256)[:1])
    EventHeatmapDecoder(**shape, wordings={"bicycle": ("bicycle",)}, normal=("person",), space=space).save(
        run / "phase1" / "queries.safetensors", backbone_fingerprint=backbone.fingerprint)
    write_json(run / "phase1" / "data.json", [SPLIT])
    write_json(run / "phase1" / "params.json", {"dataset": "simcampus", "steps": 3, "data_root": "/secret/place"})
    append_rows(run / "results.jsonl", [Row(**ROW, metric="micro_auc", value=0.875, ci_low=0.8, ci_high=0.9)])
    speaker = attach(backbone, VARIANTS["full"], lora=Lora(rank=2), region={"hidden_width": 16, "channels": 2}, seed=0)
    speaker.save(run / "phase2" / "full" / "model", extra={"calibration": 2.0, "economy": {"every": 2}})
    return run


@pytest.fixture(scope="module")
def bundle(run, zoo, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(folder_module, "ZOO", zoo)
        return save_pretrained(run, tmp_path_factory.mktemp("shared") / "bundle", limits=["Only a test."])


@pytest.fixture
def copy(bundle, tmp_path):
    return shutil.copytree(bundle, tmp_path / "copy")


def chance(model, shown):
    """What the model thinks, finer than what it says."""
    return model.converse(shown).probability("Where is the bicycle?", options=("bicycle", "red"))


def listing(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_a_bundle_says_what_the_run_says_without_anything_else(run, bundle, zoo):
    inside = listing(bundle)
    assert {"README.md", "tvad.json", "ahd.safetensors", "detector.json", "queries.safetensors", "speaker/phase2.json",
            "speaker/rae.safetensors", "speaker/adapter/adapter_model.safetensors",
            "backbone/model.safetensors"} <= set(inside)
    assert all(name.endswith((".safetensors", ".json", ".jinja", ".txt", "README.md")) for name in inside)
    shared = from_pretrained(bundle, device="cpu", dtype="float32")
    own = TVAU.from_phase2(zoo / "random-tiny", run / "phase1" / "ahd.safetensors", run / "phase2" / "full" / "model",
                           device="cpu", dtype="float32")
    shown = clip(6)
    assert torch.equal(shared.heatmap(shared.see(shown)), own.heatmap(own.see(shown)))
    assert chance(shared, shown) == chance(own, shown) != chance(own, clip(6, seed=1))
    assert (shared.calibration, shared.economy.every, shared.scoring.sigma) == (2.0, 2, 2.0)
    assert shared.backbone.name == "random-tiny"
    asked = [one.heatmap(one.see(shown), events=["bicycle"]) for one in (shared, own)]
    assert torch.equal(*asked) and asked[0].shape[0] == 1
    assert list(shared.find(ArrayFrames(shown.frames, 10.0, "v"), ["bicycle"])) == ["bicycle"]
    mute = TVAU.from_pretrained(shared.backbone, run / "phase1" / "ahd.safetensors", queries=False)
    assert mute.queries is None and own.query_scoring == own.scoring


def test_a_decoder_alone_goes_round_from_a_run_and_from_a_model_at_hand(run, tmp_path):
    first = save_pretrained(run, tmp_path / "first", kind="ahd", include_backbone=False)
    assert listing(first) == ["README.md", "ahd.safetensors", "detector.json", "queries.safetensors", "tvad.json"]
    model = from_pretrained(first, device="cpu", dtype="float32")
    assert type(model) is TVAD and model.backbone.name == "random-tiny"
    again = save_pretrained(model, tmp_path / "again", include_backbone=False)
    other = from_pretrained(again, backbone=model.backbone)
    assert other.fingerprint == model.fingerprint
    for name in ("decoder", "queries"):
        ours, theirs = getattr(model, name).state_dict(), getattr(other, name).state_dict()
        assert ours.keys() == theirs.keys() and all(torch.equal(ours[key], theirs[key]) for key in ours)
    with pytest.raises(CheckpointError, match="heatmap decoders alone can be shared"):
        save_pretrained(model, tmp_path / "no", kind="bundle")


def test_a_speaker_alone_wants_a_decoder(run, bundle, tmp_path):
    folder = save_pretrained(run, tmp_path / "speaker", kind="speaker")
    assert not (folder / "ahd.safetensors").exists()
    with pytest.raises(CheckpointError, match="a speaker without a heatmap decoder; give one as ahd="):
        from_pretrained(folder)
    spoken = from_pretrained(folder, ahd=run / "phase1" / "ahd.safetensors", device="cpu", dtype="float32")
    other = from_pretrained(folder, ahd=bundle, device="cpu", dtype="float32")
    assert chance(spoken, clip(4)) == chance(other, clip(4))


@pytest.mark.parametrize("harm, words", [
    (lambda at: (at / "detector.json").unlink(), r"detector\.json: missing, though tvad\.json lists it"),
    (lambda at: shutil.rmtree(at / "speaker"), r"speaker/adapter/adapter_config\.json: missing \(and 4 more\)"),
    (lambda at: (at / "more.safetensors").write_bytes(b"x"), r"more\.safetensors: not listed in tvad\.json; take it away"),
    (lambda at: (at / "speaker" / "evil.py").write_text("1"), r"speaker/evil\.py: not listed"),
    (lambda at: (at / "queries.safetensors").open("ab").write(b"x"), r"queries\.safetensors: changed since"),
    (lambda at: (at / "tvad.json").unlink(), r"no tvad\.json, so this is no shared model"),
    (lambda at: (at / "tvad.json").write_text("{"), r"tvad\.json: damaged"),
])
def test_what_is_missing_added_or_changed_is_refused_by_name(copy, harm, words):
    verify(copy)
    harm(copy)
    with pytest.raises(CheckpointError, match=words):
        from_pretrained(copy)


def test_the_card_may_be_edited_and_the_hubs_own_files_may_lie_there(copy):
    (copy / "README.md").write_text("my words")
    (copy / ".gitattributes").write_text("")
    (copy / ".cache").mkdir()
    (copy / ".cache" / "x").write_text("")
    assert verify(copy)["kind"] == "bundle"


@pytest.mark.parametrize("name", ["../outside.json", "/etc/passwd.txt", "weights.bin", "run.py"])
def test_a_manifest_cannot_name_what_is_outside_or_may_run_code(copy, name):
    content = json.loads((copy / "tvad.json").read_text())
    content["files"][name] = {"bytes": 1, "sha256": "0"}
    (copy / "tvad.json").write_text(json.dumps(content))
    with pytest.raises(CheckpointError, match="may not be in a shared model"):
        verify(copy)


def test_the_card_says_what_it_is_and_the_hub_can_read_it(bundle):
    from huggingface_hub import ModelCard

    card = ModelCard.load(bundle / "README.md")
    assert card.data.library_name == "tvad" and card.data.license == "mit"
    result = card.data.eval_results[0]
    assert (result.metric_type, result.metric_value) == ("micro_auc", 0.875) and "simulated" in result.dataset_name
    assert "| simcampus (simulated) | test, scene-disjoint | micro_auc | 0.875 (0.800 to 0.900) |" in card.text
    assert "| training | simcampus | train | scene-disjoint | 5 | 150 | abc |" in card.text
    assert "- Only a test." in card.text and "says nothing about real cameras" in card.text
    files = json.loads((bundle / "tvad.json").read_text())["files"]
    assert all(entry["sha256"] in card.text for entry in files.values()) and len(files) >= 9
    assert "secret" not in card.text and "secret" not in (bundle / "tvad.json").read_text()


@pytest.mark.parametrize("kind", ["bundle", "ahd"])
def test_the_five_lines_of_the_card_run(run, tmp_path, monkeypatch, capsys, kind):
    folder = save_pretrained(run, tmp_path / "mine", kind=kind)
    code = re.search(r"```python\n(.*?)```", (folder / "README.md").read_text(), re.S)[1]
    assert len(code.strip().splitlines()) == 5 and max(map(len, code.splitlines())) <= 124
    write_video(tmp_path / "video.mp4", scene(20, 80, 120))
    monkeypatch.chdir(tmp_path)
    exec(compile(code.replace("path/to/this/folder", "mine"), "card", "exec"), {})  # noqa: S102 -- our own card
    assert len(capsys.readouterr().out.splitlines()) == (1 if kind == "bundle" else 2)


class Api:
    """A model hub in a folder."""
    endpoint = "hub"

    def __init__(self, folder):
        self.folder, self.calls = folder, []

    def create_repo(self, repo_id, **options):
        self.calls.append((repo_id, options["private"], options["exist_ok"]))

    def upload_folder(self, *, folder_path, ignore_patterns, **_):
        shutil.copytree(folder_path, self.folder, ignore=shutil.ignore_patterns("README.md"))

    def upload_file(self, *, path_in_repo, path_or_fileobj, **_):
        (self.folder / path_in_repo).write_bytes(path_or_fileobj)


def test_a_pushed_bundle_comes_back_by_its_name(bundle, copy, tmp_path, monkeypatch):
    api = Api(tmp_path / "remote")
    assert push_to_hub(bundle, "somebody/tiny", api=api) == "hub/somebody/tiny"
    assert api.calls == [("somebody/tiny", True, True)]
    assert 'from_pretrained("somebody/tiny")' in (api.folder / "README.md").read_text()
    asked = {}
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda name, **options: asked.update(options) or api.folder)
    model = from_pretrained("somebody/tiny", revision="v1", device="cpu", dtype="float32")
    assert isinstance(model, TVAU) and asked["revision"] == "v1"
    assert not any(np.char.endswith(pattern, (".bin", ".pt", ".py")).any() for pattern in asked["allow_patterns"])
    (copy / "detector.json").unlink()
    with pytest.raises(CheckpointError, match="missing"):
        push_to_hub(copy, "somebody/tiny", api=api)


def test_a_hub_that_refuses_is_put_into_words(bundle, monkeypatch):
    class Closed(Api):
        def create_repo(self, repo_id, **options):
            raise OSError("401 unauthorised")

    with pytest.raises(CheckpointError, match=r"a/b: not put on the hub \(OSError: 401 unauthorised\); log in with"):
        push_to_hub(bundle, "a/b", api=Closed(None))

    def offline(*_, **__):
        raise OSError("offline")

    monkeypatch.setattr("huggingface_hub.snapshot_download", offline)
    with pytest.raises(CheckpointError, match=r"a/b: no such folder here, and the hub does not give it \(OSError\)"):
        from_pretrained("a/b")
    with pytest.raises(CheckpointError, match="no such folder; give a shared folder, or a hub name"):
        from_pretrained("nowhere")


def test_what_is_not_there_or_not_ours_is_neither_shared_nor_replaced(run, bundle, tmp_path):
    with pytest.raises(CheckpointError, match="kind 'all' is unknown; choose one of bundle, ahd, speaker"):
        save_pretrained(run, tmp_path / "x", kind="all")
    with pytest.raises(MissingPhaseError, match="phase 1 has left no decoder here; run: make reproduce"):
        save_pretrained(tmp_path / "empty", tmp_path / "x")
    only = tmp_path / "only"
    shutil.copytree(run / "phase1", only / "phase1")
    with pytest.raises(MissingPhaseError, match="phase 2 has left no finished model here"):
        save_pretrained(only, tmp_path / "x", kind="bundle")
    mine = tmp_path / "diary"
    mine.mkdir()
    (mine / "page.txt").write_text("dear diary")
    with pytest.raises(CheckpointError, match="no tvad.json, so this is no shared model"):
        save_pretrained(run, mine, kind="ahd")
    assert listing(mine) == ["page.txt"] and not [path for path in tmp_path.iterdir() if path.name.startswith(".")]
    again = save_pretrained(only, tmp_path / "x")
    assert listing(save_pretrained(only, again)) == listing(again)


@pytest.mark.parametrize("existed", [True, False])
def test_a_folder_that_cannot_be_put_in_its_place_leaves_the_old_one_there(run, tmp_path, monkeypatch, existed):
    target, rename = tmp_path / "mine", Path.rename
    if existed:
        save_pretrained(run, target, kind="ahd", include_backbone=False)
    before = listing(target)

    def refusing(path, to):
        if path.name == "new":
            raise OSError(errno.EACCES, "Permission denied")
        return rename(path, to)

    monkeypatch.setattr(Path, "rename", refusing)
    with pytest.raises(StorageError, match=r"mine: the folder could not be put in its place \(Permission denied\); what"):
        save_pretrained(run, target, kind="bundle", include_backbone=False)
    assert listing(target) == before and bool(before) == existed and target.exists() == existed
    assert [path.name for path in tmp_path.iterdir()] == (["mine"] if existed else [])
