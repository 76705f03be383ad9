"""The heatmap decoder's weight file in all its failures, and the author's file that becomes one."""
from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from heatmap_toys import decoder, features, slow_logits, text
from safetensors.torch import load_file, save_file

from tvad.checkpoints import read_weights
from tvad.errors import CheckpointError
from tvad.heatmap import AUTHOR_CONFIG, AnomalyHeatmapDecoder, convert_author_checkpoint

# The weight file

def backbone(**changes) -> SimpleNamespace:
    tiny = dict(name="tiny", fingerprint="abc", taps=(0, 2, 5), tap_width=6, text_width=14)
    return SimpleNamespace(**{**tiny, **changes})


def test_save_and_load_give_the_same_decoder_and_the_same_bytes(tmp_path):
    model = decoder(contrast="centred", temperature=12.5)
    extra = {"backbone": "tiny", "a": "1"}
    path = model.save(tmp_path / "run" / "ahd.safetensors", backbone_fingerprint="abc", extra=extra)
    state = torch.get_rng_state()
    again = AnomalyHeatmapDecoder.load(path, backbone=backbone())
    assert torch.equal(torch.get_rng_state(), state)
    assert again.config() == model.config() and again.taps == (0, 2, 5)
    assert again.record["backbone_fingerprint"] == "abc" and again.record["extra"] == extra
    assert torch.equal(again(features(), text()), model(features(), text()))
    assert all(p.requires_grad and p.dtype == torch.float32 for p in again.parameters())
    turned = dict(reversed(extra.items()))
    twin = again.save(tmp_path / "twin.safetensors", backbone_fingerprint="abc", extra=turned)
    assert twin.read_bytes() == path.read_bytes()
    assert sorted(item.name for item in tmp_path.rglob("*.safetensors")) == ["ahd.safetensors", "twin.safetensors"]


def test_half_precision_files_load_as_float32(tmp_path):
    path = decoder().bfloat16().save(tmp_path / "ahd.safetensors", backbone_fingerprint="")
    assert {p.dtype for p in AnomalyHeatmapDecoder.load(path).parameters()} == {torch.float32}


def edited(tmp_path, edit, record_edit=lambda record: None):
    path = decoder().save(tmp_path / "ahd.safetensors", backbone_fingerprint="abc", extra={"backbone": "tiny"})
    tensors, record = load_file(path), read_weights(path)[1]
    edit(tensors)
    record_edit(record)
    save_file(tensors, path, metadata={"tvad": json.dumps(record)})
    return path


@pytest.mark.parametrize("edit, message", [
    (lambda state: [state.pop(f"mlps.2.model.{part}") for part in ("0.weight", "0.bias", "2.weight")],
     r"ahd.safetensors: 3 keys missing, first 'mlps.2.model.0.weight'; was it made by phase 1\? run: make reproduce"),
    (lambda state: state.pop("fuse_weights"), "1 key missing, first 'fuse_weights'"),
    (lambda state: state.update(extra=torch.zeros(1)), "1 key unexpected, first 'extra'"),
    (lambda state: state.update({"fuse_weights": torch.zeros(4)}),
     r"1 tensor of another shape, first 'fuse_weights' \(4,\) instead of \(3,\)"),
    (lambda state: state["mlps.1.model.2.bias"].fill_(float("nan")), "'mlps.1.model.2.bias' holds values that"),
])
def test_wrong_tensors_are_refused_by_name(tmp_path, edit, message):
    with pytest.raises(CheckpointError, match=message):
        AnomalyHeatmapDecoder.load(edited(tmp_path, edit))


@pytest.mark.parametrize("edit, message", [
    (lambda record: record.update(kind="prototypes"), "holds 'prototypes' of format 1, not a heatmap decoder"),
    (lambda record: record.update(format=99), "format 99, not a heatmap decoder of format 1"),
    (lambda record: record.pop("config"), "does not describe a heatmap decoder"),
    (lambda record: record["config"].update(variant="other"), "does not describe a heatmap decoder"),
])
def test_wrong_records_are_refused(tmp_path, edit, message):
    with pytest.raises(CheckpointError, match=message):
        AnomalyHeatmapDecoder.load(edited(tmp_path, lambda state: None, edit))


def test_a_decoder_of_another_backbone_is_refused_by_name(tmp_path):
    path = decoder().save(tmp_path / "ahd.safetensors", backbone_fingerprint="abc", extra={"backbone": "tiny"})
    with pytest.raises(CheckpointError, match=r"ahd.safetensors: was trained on tiny \(fingerprint abc\), not on big "
                                              r"\(fingerprint xyz\); load that backbone, or train phase 1"):
        AnomalyHeatmapDecoder.load(path, backbone=backbone(name="big", fingerprint="xyz"))
    with pytest.raises(CheckpointError, match=r"\(0, 2, 5\), 6, 14\), but tiny has \(\(0, 1, 5\), 6, 14\)"):
        AnomalyHeatmapDecoder.load(path, backbone=backbone(taps=(0, 1, 5)))


def test_missing_pickled_and_damaged_files_are_refused(tmp_path):
    with pytest.raises(CheckpointError, match="none.safetensors: no such weight file; was it made by phase 1"):
        AnomalyHeatmapDecoder.load(tmp_path / "none.safetensors")
    for suffix in (".bin", ".pt", ".pth"):
        pickled = tmp_path / f"ahd{suffix}"
        torch.save(decoder().state_dict(), pickled)
        with pytest.raises(CheckpointError, match=rf"ahd\{suffix}: pickled weights .*convert_author_checkpoint"):
            AnomalyHeatmapDecoder.load(pickled)
    pickled.rename(tmp_path / "renamed.safetensors")
    with pytest.raises(CheckpointError, match="renamed.safetensors: damaged or no safetensors file"):
        AnomalyHeatmapDecoder.load(tmp_path / "renamed.safetensors")
    path = decoder().save(tmp_path / "ahd.safetensors", backbone_fingerprint="abc")
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(CheckpointError, match="damaged .*make it again: make reproduce"):
        AnomalyHeatmapDecoder.load(path)
    save_file({"x": torch.zeros(1)}, tmp_path / "foreign.safetensors")
    with pytest.raises(CheckpointError, match="without this workbook's record"):
        AnomalyHeatmapDecoder.load(tmp_path / "foreign.safetensors")
    with pytest.raises(CheckpointError, match="name the file"):
        decoder().save(tmp_path / "ahd.bin", backbone_fingerprint="abc")


# The author's file

def author_state(*, real: bool = False) -> dict[str, torch.Tensor]:
    """The layout at full width; without ``real`` each tensor is one stored number, so that the file is small."""
    with torch.device("meta"):
        shapes = {key: value.shape for key, value in AnomalyHeatmapDecoder(**AUTHOR_CONFIG).state_dict().items()}
    generator = torch.Generator().manual_seed(4)
    if real:
        return {key: (torch.randn(shape, generator=generator) * 0.03).bfloat16() for key, shape in shapes.items()}
    return {key: torch.full((1,), 0.01, dtype=torch.bfloat16).expand(shape) for key, shape in shapes.items()}


def test_author_layout_at_full_width_converts_and_loads(tmp_path):
    state = author_state(real=True)
    optimizer = {"state": {0: {"step": torch.tensor(3.0)}}, "param_groups": [{"lr": 1e-5, "params": [0]}]}
    wrapper = dict(epoch=2, global_step=6800, state_dict=state, optimizer=optimizer, best_miou=np.float64(0.59),
                   scaler={"scale": 65536.0})
    torch.save(wrapper, tmp_path / "step006800.pth")
    target = convert_author_checkpoint(tmp_path / "step006800.pth", tmp_path / "author.safetensors")
    qwen = backbone(name="Qwen2.5-VL-7B-Instruct", taps=(0, 7, 15, 23, 31), tap_width=1280, text_width=3584)
    model = AnomalyHeatmapDecoder.load(target, backbone=qwen)
    assert (model.variant, model.temperature, model.taps) == ("thesis", 100.0, (0, 7, 15, 23, 31))
    loaded = model.state_dict()
    assert len(loaded) == 21 and sum(value.numel() for value in loaded.values()) == 24_926_725
    assert all(torch.equal(loaded[key], value.float()) for key, value in state.items())
    taps, prototypes = features(grid=(1, 3, 2), taps=5, width=1280), text(width=3584)
    with torch.no_grad():
        torch.testing.assert_close(model(taps, prototypes), slow_logits(model, taps, prototypes), rtol=1e-4, atol=1e-3)
    with pytest.raises(CheckpointError, match="but tiny has"):
        AnomalyHeatmapDecoder.load(target, backbone=backbone())


@pytest.mark.parametrize("prefix", ["", "model.anomaly_maps_decoder.", "model.language_model.anomaly_maps_decoder."])
@pytest.mark.parametrize("wrapped", [True, False])
def test_author_prefixes_and_bare_state(tmp_path, monkeypatch, prefix, wrapped):
    written = {}
    monkeypatch.setattr("tvad.heatmap.write_weights", lambda path, state, record: written.update(state))
    state = {prefix + key: value for key, value in author_state().items()}
    if prefix:
        state["model.visual.blocks.0.norm1.weight"] = torch.ones(3)
    torch.save({"state_dict": state, "epoch": 1} if wrapped else state, tmp_path / "a.pth",
               _use_new_zipfile_serialization=wrapped)  # the oldest format is read too
    convert_author_checkpoint(tmp_path / "a.pth", tmp_path / "a.safetensors")
    assert {key: value.shape for key, value in written.items()} == {k: v.shape for k, v in author_state().items()}


@pytest.mark.parametrize("edit, message", [
    (lambda state: state.pop("mlps.4.model.2.bias"),
     r"a.pth: 1 key missing, first 'mlps.4.model.2.bias'; this is not the decoder of the published code"),
    (lambda state: state.update({"model.visual.x": torch.ones(1)}), "1 key unexpected, first 'model.visual.x'"),
    (lambda state: state.update({"mlps.0.model.0.bias": torch.ones(1280)}),
     r"first 'mlps.0.model.0.bias' \(1280,\) instead of \(1024,\)"),
    (lambda state: state.update({"fuse_weights": torch.full((5,), float("inf"))}), "'fuse_weights' holds values"),
    (lambda state: state.update({"fuse_weights": [1.0] * 5}), "entry 'fuse_weights' of the state dict is no tensor"),
])
def test_author_files_that_do_not_fit_are_refused_by_name(tmp_path, edit, message):
    state = author_state()
    edit(state)
    torch.save({"epoch": 1, "state_dict": state}, tmp_path / "a.pth")
    with pytest.raises(CheckpointError, match=message):
        convert_author_checkpoint(tmp_path / "a.pth", tmp_path / "a.safetensors")
    assert not (tmp_path / "a.safetensors").exists()


class Harmful:
    """A pickle that would run a call when read."""

    def __reduce__(self):
        return (print, ("ran",))


def test_unsafe_damaged_and_missing_author_files_are_refused(tmp_path, capsys):
    source, target = tmp_path / "a.pth", tmp_path / "a.safetensors"
    with pytest.raises(CheckpointError, match="a.pth: no such file; download"):
        convert_author_checkpoint(source, target)
    torch.save({"state_dict": {}, "epoch": Harmful()}, source)
    with pytest.raises(CheckpointError, match="a.pth: .*Python objects beyond tensors and plain values"):
        convert_author_checkpoint(source, target)
    assert "ran" not in capsys.readouterr().out
    torch.save({"state_dict": author_state()}, source)
    for damaged in (source.read_bytes()[:-200], b"", b"no pickle at all"):
        source.write_bytes(damaged)
        with pytest.raises(CheckpointError, match="a.pth: damaged"):
            convert_author_checkpoint(source, target)
    torch.save([1, 2], source)
    with pytest.raises(CheckpointError, match="a.pth: holds no state dict"):
        convert_author_checkpoint(source, target)
    assert not target.exists()
