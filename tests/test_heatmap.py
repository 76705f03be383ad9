"""The heatmap decoder: slow twins of both variants, golden sizes, learning, and what is refused."""
from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from heatmap_toys import SMALL, decoder, features, slow_logits, text
from torch.utils.flop_counter import FlopCounterMode

from tvad.errors import BackboneError, ParameterError
from tvad.heatmap import AUTHOR_CONFIG, AnomalyHeatmapDecoder


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
