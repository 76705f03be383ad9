"""The heatmap decoder: slow twins of both variants, golden sizes, learning, and the weight file in all its failures."""
from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch.utils.flop_counter import FlopCounterMode

from tvad.checkpoints import read_weights
from tvad.errors import BackboneError, CheckpointError, ParameterError
from tvad.heatmap import AUTHOR_CONFIG, AnomalyHeatmapDecoder, convert_author_checkpoint

SMALL = dict(taps=(0, 2, 5), tap_width=6, hidden_width=10, text_width=14)


def decoder(seed: int = 0, **changes) -> AnomalyHeatmapDecoder:
    torch.manual_seed(seed)
    model = AnomalyHeatmapDecoder(**{**SMALL, **changes})
    torch.nn.init.normal_(model.fuse_weights)  # unequal, so that their softmax is seen
    return model


def features(seed: int = 1, *, grid=(3, 4, 5), taps: int = 3, width: int = 6) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(*grid, width, generator=generator) for _ in range(taps)]


def text(seed: int = 2, width: int = 14) -> torch.Tensor:
    return torch.randn(2, width, generator=torch.Generator().manual_seed(seed))


def slow_logits(model: AnomalyHeatmapDecoder, taps, prototypes) -> torch.Tensor:
    """The recipe word for word: text-width features of every patch, then the variant's norm, dot, weights, sum."""
    if model.contrast == "centred":
        prototypes = prototypes - prototypes.mean(0, keepdim=True)
    unit = F.normalize(prototypes, p=2, dim=-1, eps=1e-6)
    layers = []
    for mlp, tap in zip(model.mlps, taps):
        wide = mlp.model(tap)
        # the published code calls F.normalize(x) on (T', H', W', D): its default dim=1 is the height
        wide = F.normalize(wide, dim=-1) if model.variant == "paper" else F.normalize(wide)
        layers.append(model.temperature * torch.einsum("thwd,cd->thwc", wide, unit))
    weights = torch.softmax(model.fuse_weights, 0)
    return torch.einsum("k,kthwc->tchw", weights, torch.stack(layers))


@pytest.mark.parametrize("variant", ["paper", "thesis"])
@pytest.mark.parametrize("contrast", ["raw", "centred"])
@pytest.mark.parametrize("hidden", [10, 31])
def test_equals_the_slow_twin_forward_and_backward(variant, contrast, hidden):
    model = decoder(variant=variant, contrast=contrast, hidden_width=hidden, temperature=7.0)
    upstream = torch.randn(3, 2, 4, 5)
    grads, values = [], []
    for run in (model, lambda *inputs: slow_logits(model, *inputs)):
        taps, prototypes = [tap.requires_grad_() for tap in features()], text().requires_grad_()
        out = run(taps, prototypes)
        values.append(out)
        grads.append(torch.autograd.grad((out * upstream).sum(), [*taps, prototypes, *model.parameters()]))
    assert values[0].shape == (3, 2, 4, 5) and values[0].dtype == torch.float32
    torch.testing.assert_close(values[0], values[1], rtol=1e-5, atol=1e-5)
    for fast, slow in zip(*grads, strict=True):
        torch.testing.assert_close(fast, slow, rtol=1e-5, atol=1e-5 * max(1.0, slow.abs().max().item()))


def test_cosine_at_working_width_and_never_text_wide():
    model = decoder(tap_width=192, hidden_width=128, text_width=256, temperature=100.0)
    taps, prototypes = features(grid=(2, 24, 36), width=192), text(width=256)
    seen = []

    class Watch(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            out = func(*args, **(kwargs or {}))
            seen.extend(part.numel() for part in (out if isinstance(out, (tuple, list)) else [out])
                        if isinstance(part, torch.Tensor))
            return out

    with torch.no_grad():
        with Watch():
            fast = model(taps, prototypes)
        # 1e-5 is the bar on the cosine; the logits are 100 times that
        torch.testing.assert_close(fast / 100, slow_logits(model, taps, prototypes) / 100, rtol=0, atol=1e-5)
    assert max(seen) < 2 * 24 * 36 * 256


def test_variants_differ_and_the_height_norm_is_the_published_one():
    model = decoder(variant="thesis", temperature=100.0)
    taps = features()
    assert not torch.allclose(model(taps, text()), decoder()(taps, text()), atol=1.0)
    # a map of one row: every feature divided by its own size is its sign
    row = [tap[:, :1] for tap in taps]
    unit = F.normalize(text(), dim=-1)
    signs = torch.stack([mlp.model(tap).sign() @ unit.T for mlp, tap in zip(model.mlps, row)])
    wanted = 100 * torch.einsum("k,kthwc->tchw", model.fuse_weights.softmax(0), signs)
    torch.testing.assert_close(model(row, text()), wanted, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("variant", ["paper", "thesis"])
def test_steps_in_time_do_not_mix(variant):
    model, taps = decoder(variant=variant), features()
    whole = model(taps, text())
    for step in range(3):
        torch.testing.assert_close(model([tap[step:step + 1] for tap in taps], text())[0], whole[step])


def test_heatmap_is_the_softmax_of_the_abnormal_channel():
    model, taps = decoder(temperature=3.0), features()
    heat = model.heatmap(taps, text())
    logits = slow_logits(model, taps, text()).detach().double()
    assert heat.shape == (3, 4, 5) and heat.dtype == torch.float32
    torch.testing.assert_close(heat.detach().double(), logits[:, 1].exp() / logits.exp().sum(1), rtol=1e-4, atol=1e-6)
    assert heat.min() >= 0 and heat.max() <= 1


@pytest.mark.parametrize("variant", ["paper", "thesis"])
def test_float32_under_autocast_and_from_half_features(variant):
    model, taps = decoder(variant=variant), features()
    plain = model(taps, text())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = model(taps, text())
    assert mixed.dtype == torch.float32 and torch.equal(mixed, plain)
    half = model([tap.half() for tap in taps], text())
    assert half.dtype == torch.float32
    assert torch.equal(half, model([tap.half().float() for tap in taps], text()))
    assert decoder(variant=variant).bfloat16().heatmap(taps, text()).dtype == torch.float32


def test_vanishing_features_give_finite_logits_and_gradients():
    model = decoder()
    for mlp in model.mlps:
        torch.nn.init.zeros_(mlp.model[2].bias)
        torch.nn.init.constant_(mlp.model[0].bias, -100.0)  # the hidden layer is all zero
    out = model(features(), text())
    out.sum().backward()
    assert torch.isfinite(out).all() and all(torch.isfinite(p.grad).all() for p in model.parameters())


def test_golden_full_size():
    with torch.device("meta"):
        state = AnomalyHeatmapDecoder(**AUTHOR_CONFIG).state_dict()
    assert len(state) == 21 and sum(value.numel() for value in state.values()) == 24_926_725
    wanted = {"fuse_weights": (5,)}
    for index in range(5):
        wanted |= {f"mlps.{index}.model.0.weight": (1024, 1280), f"mlps.{index}.model.0.bias": (1024,),
                   f"mlps.{index}.model.2.weight": (3584, 1024), f"mlps.{index}.model.2.bias": (3584,)}
    assert {key: tuple(value.shape) for key, value in state.items()} == wanted


@pytest.mark.parametrize("variant", ["paper", "thesis"])
def test_flops_are_those_of_the_matrix_products(variant):
    model = decoder(variant=variant)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(features(), text())
    assert model.flops(3, 4, 5) == counter.get_total_flops()
    with torch.device("meta"):
        full = AnomalyHeatmapDecoder(**{**AUTHOR_CONFIG, "variant": variant})
    macs = full.flops(12, 34, 62) / 2e12
    assert macs == pytest.approx(0.63, abs=0.005) if variant == "thesis" else macs < 0.33


def test_reach_is_the_largest_logit_difference():
    prototypes = torch.zeros(2, 14)
    prototypes[:, 0], prototypes[0, 1], prototypes[1, 1] = 1.0, -0.01, 0.01
    assert decoder().reach(prototypes) == pytest.approx(2.0, rel=1e-3)
    assert decoder(contrast="centred", temperature=10.0).reach(prototypes) == pytest.approx(20.0, rel=1e-5)


@pytest.mark.parametrize("changes", [dict(), dict(contrast="centred", temperature=10.0)])
def test_learns_a_small_anomaly_from_near_parallel_prototypes(changes):
    generator = torch.Generator().manual_seed(0)
    base = F.normalize(torch.randn(32, generator=generator), dim=0)
    prototypes = torch.stack([base, base]) + 0.02 * torch.randn(2, 32, generator=generator)
    model = decoder(taps=(0, 1), tap_width=16, hidden_width=24, text_width=32, **changes)
    truth = (torch.rand(8, 12, 12, generator=generator) < 0.05).long()
    side = torch.randint(0, 2, truth.shape, generator=generator) * 2 - 1  # two kinds, on either side of normal
    taps = [torch.randn(8, 12, 12, 16, generator=generator) for _ in range(2)]
    for tap in taps:
        tap[..., 0] += 6 * truth * side
    optimiser = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(150):
        loss = F.cross_entropy(model([tap[:6] for tap in taps], prototypes), truth[:6])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    with torch.no_grad():
        logits = model([tap[6:] for tap in taps], prototypes)
    held = truth[6:]
    assert F.cross_entropy(logits, held) < 0.08  # the base rate alone costs about 0.2
    difference = logits[:, 1] - logits[:, 0]
    assert difference[held == 0].median() < -4 and difference[held == 1].median() > 1


@pytest.mark.parametrize("changes, message", [
    (dict(variant="papers"), "variant 'papers'"), (dict(contrast="off"), "contrast 'off'"),
    (dict(taps=()), "at least one"), (dict(taps=(1, 1)), "distinct"),
    (dict(temperature=0.0), "temperature 0.0 positive"),
    (dict(hidden_width=0), "widths"),
])
def test_bad_constructions_are_refused(changes, message):
    with pytest.raises(ParameterError, match=message):
        AnomalyHeatmapDecoder(**{**SMALL, **changes})


def test_unfit_inputs_are_refused():
    model, taps = decoder(), features()
    narrow, batched = [tap[..., :5] for tap in taps], [tap[None] for tap in taps]
    for wrong in (taps[:2], [], narrow, [*taps[:2], taps[2][:, :2]], batched):
        with pytest.raises(BackboneError, match=r"\(0, 2, 5\): wants 3 maps \(t, h, w, 6\), got .*this backbone\?"):
            model(wrong, text())
    with pytest.raises(BackboneError, match=r"wants prototypes \(2, 14\), got \(2, 13\); compute them"):
        model(taps, text(width=13))


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
