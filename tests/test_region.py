"""The region encoders: golden sizes and slow twins of the published ones, where ours looks, the probe, the weight file."""
from __future__ import annotations

import json
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch.utils.flop_counter import FlopCounterMode

from tvad.checkpoints import read_weights
from tvad.errors import BackboneError, CheckpointError, ParameterError
from tvad.region import ENCODERS, RegionEncoder, load_encoder, make_encoder
from tvad.region.blobs import blob_tracks, cells
from tvad.region.located import _membership
from tvad.region.probe import read_back, tokens_of

WIDTH = 12
OPTIONS = {"paper": dict(hidden_width=10, widths=(3, 4, 5)), "thesis": {}, "located": dict(hidden_width=16, channels=3),
           "worded": dict(hidden_width=16)}


def encoder(variant: str, seed: int = 0, **changes) -> RegionEncoder:
    torch.manual_seed(seed)
    return make_encoder(variant, text_width=WIDTH, **{**OPTIONS[variant], **changes})


def heatmaps(b=2, t=4, h=7, w=9, seed=1) -> torch.Tensor:
    return torch.rand(b, t, h, w, generator=torch.Generator().manual_seed(seed))


def test_thesis_keys_shapes_and_size_at_full_width():
    with torch.device("meta"):
        model = make_encoder("thesis", text_width=3584)
    assert {key: tuple(value.shape) for key, value in model.state_dict().items()} == {
        "backbone.0.weight": (32, 1, 3, 3), "backbone.0.bias": (32,), "backbone.2.weight": (48, 32, 3, 3),
        "backbone.2.bias": (48,), "backbone.4.weight": (96, 48, 3, 3), "backbone.4.bias": (96,),
        "region_attn_conv.weight": (9, 96, 1, 1), "region_attn_conv.bias": (9,), "region_fc.weight": (3584, 96),
        "region_fc.bias": (3584,), "global_fc.weight": (3584, 96), "global_fc.bias": (3584,), "base_prompt": (1, 3584)}
    assert sum(value.numel() for value in model.parameters()) == 755_513
    assert model.tokens(12) == 120


def test_paper_size_and_tokens_at_full_width():
    with torch.device("meta"):
        model = make_encoder("paper", text_width=3584)
    assert sum(value.numel() for value in model.parameters()) == 7_539_456
    assert model.tokens(12) == 220


def test_thesis_equals_its_slow_twin():
    model, maps = encoder("thesis"), heatmaps()
    rows = []
    for clip in maps:
        for step in clip:
            features = model.backbone(step[None, None])[0]
            attention = model.region_attn_conv(features[None])[0]
            for region in range(9):
                weight = torch.exp(attention[region]) / torch.exp(attention[region]).sum()
                pooled = (features * weight).sum((1, 2)) / (weight.sum() + 1e-6)
                rows.append(model.region_fc(pooled) + model.base_prompt[0])
            rows.append(model.global_fc(features.mean((1, 2))) + model.base_prompt[0])
    assert torch.allclose(model(maps), torch.stack(rows).view(2, 40, WIDTH), atol=1e-5)


def test_paper_equals_its_slow_twin_and_an_image_is_compared_with_nothing():
    model, maps = encoder("paper"), heatmaps(h=6, w=9)

    def step(change):
        features = model.backbone(change[None, None])[0]
        parts = [features[:, 2 * i:2 * i + 2, 3 * j:3 * j + 3].mean((1, 2)) for i in range(3) for j in range(3)]
        regions = [model.region_head(part) for part in parts]
        return [*model.base_prompt, *regions, model.global_head(features.mean((1, 2)))]

    slow = torch.stack([torch.stack([row for k in range(3) for row in step(clip[k + 1] - clip[k])]) for clip in maps])
    assert torch.allclose(model(maps), slow, atol=1e-5)
    assert torch.allclose(model(maps[:1, :1])[0], torch.stack(step(maps[0, 0])), atol=1e-5)
    still = maps[:, :1].expand(-1, 4, -1, -1)
    assert torch.allclose(model(still), model(torch.zeros_like(still)), atol=1e-6)  # why ours keeps the map itself


@pytest.mark.parametrize("variant", ENCODERS)
@pytest.mark.parametrize("steps", [1, 2, 5])
def test_token_counts_flops_and_gradients(variant, steps):
    model, maps = encoder(variant), heatmaps(1, steps, 8, 10)
    with FlopCounterMode(display=False) as counted:
        tokens = model(maps)
    assert tokens.shape == (1, model.tokens(steps), WIDTH) and tokens.dtype == torch.float32
    assert model.flops(steps, 8, 10) == counted.get_total_flops()
    tokens.square().sum().backward()
    for name, value in model.named_parameters():
        assert value.grad is not None and torch.isfinite(value.grad).all(), name


@pytest.mark.parametrize("variant", ENCODERS)
def test_float32_under_autocast_and_finite_on_flat_and_saturated_maps(variant):
    model = encoder(variant)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(model(heatmaps().bfloat16()), model(heatmaps().bfloat16().float()))
    for value in (0.0, 0.5, 1.0):
        assert torch.isfinite(model(torch.full((1, 3, 6, 6), value))).all()


@pytest.mark.parametrize("variant", ENCODERS)
def test_clips_of_any_shapes_are_encoded_as_if_alone(variant):
    model = encoder(variant)
    mixed = [heatmaps(1, t, h, w, seed)[0] for seed, (t, h, w) in enumerate([(4, 6, 9), (1, 6, 9), (4, 6, 9), (3, 8, 8)])]
    for one, tokens in zip(mixed, model.encode(mixed), strict=True):
        assert torch.allclose(tokens, model(one[None])[0], atol=1e-5)


def spot(places, *, h=24, w=36, level=0.3, floor=1e-3) -> torch.Tensor:
    """One clip with a 3x3 spot at each (row, column); None for a step without."""
    maps = torch.full((1, len(places), h, w), floor)
    for step, place in enumerate(places):
        if place:
            maps[0, step, place[0] - 1:place[0] + 2, place[1] - 1:place[1] + 2] = level
    return maps


def test_located_looks_at_the_spot_though_it_is_far_from_one_half():
    model = encoder("located")
    weights = model.weights(spot([(5, 30), (12, 18)], level=0.05))
    rows = weights.sum(3) @ (torch.arange(24) + 0.5) / 24
    columns = weights.sum(2) @ (torch.arange(36) + 0.5) / 36
    assert torch.allclose(rows[0], torch.tensor([5.5, 12.5]) / 24, atol=0.02)
    assert torch.allclose(columns[0], torch.tensor([30.5, 18.5]) / 36, atol=0.02)
    assert torch.allclose(weights.sum((2, 3)), torch.ones(1, 2))


def test_located_summaries_are_the_first_and_last_present_step():
    model = encoder("located")
    maps = spot([None, (5, 5), (10, 15), (20, 30), None])
    assert torch.allclose(model.present(maps).round(), torch.tensor([[0.0, 1, 1, 1, 0]]))
    read = model(maps)[0] - torch.cat([model.base_prompt[:1].expand(5, -1), model.base_prompt[1:5]])
    away = torch.cdist(read[5:7], read[:5])  # of "first" and "last" from every step's token
    assert away.argmin(1).tolist() == [1, 3]
    assert not torch.allclose(model(spot([(5, 5), (20, 30)])), model(spot([(20, 30), (5, 5)])), atol=1e-4)


def test_cells_follow_the_rule_of_the_texts():
    for count in (24, 34, 36, 62):
        assert _membership(count, torch.zeros(1)).argmax(1).tolist() == [int(3 * (i + 0.5) / count) for i in range(count)]
    assert cells(torch.tensor([[0.1, 0.1], [0.9, 0.1], [0.5, 0.5], [0.34, 0.99], [1.0, 1.0]])).tolist() == [0, 2, 4, 7, 8]


def test_the_looks_are_the_hottest_video_tokens_with_their_places():
    model = encoder("located", looks=3)
    seen = torch.randn(1, 2 * 6 * 9, WIDTH, generator=torch.Generator().manual_seed(3))
    maps = torch.full((1, 2, 12, 18), 1e-3)
    maps[0, 1, 4:6, 10:12] = 0.6  # exactly the merged token (1, 2, 5)
    maps[0, 0, 11, 0] = 0.4       # one patch of (0, 5, 0)
    maps[0, 1, 0, 17] = 0.2       # one of (1, 0, 8)
    tokens = model(maps, seen)
    assert tokens.shape[1] == model.tokens(2) == 2 + 4 + 3
    looked = tokens[0, -3:] - model.base_prompt[-1]
    for one, (step, row, column) in zip(looked, ((1, 2, 5), (0, 5, 0), (1, 0, 8))):
        heat = maps[0, step, 2 * row:2 * row + 2, 2 * column:2 * column + 2].max()
        x, y, when = (2 * column + 1) / 9 - 1, (2 * row + 1) / 6 - 1, step - 0.5
        angles = torch.tensor([[math.pi / 2 * value * wave for wave in (1, 2, 4)] for value in (x, y)])
        facts = torch.cat([torch.tensor([float(torch.logit(heat)) / -math.log(1e-6), when, x, y]),
                           torch.cat([angles.sin(), angles.cos()], -1).flatten()])
        expected = seen[0, step * 54 + row * 9 + column] + model.look_place.weight @ facts
        assert torch.allclose(one, expected, atol=1e-4)
    assert torch.allclose(model.encode([maps[0]], [seen[0]])[0], tokens[0], atol=1e-6)
    with pytest.raises(BackboneError, match=r"looks: wants the clip's video tokens.*tokens=True"):
        model(maps)
    with pytest.raises(BackboneError, match=r"video tokens \(1, 54, 12\) do not fit heatmaps \(1, 2, 12, 18\)"):
        model(maps, seen[:, :54])
    with pytest.raises(BackboneError, match="3 looks, but a clip of only 2 video tokens; give the encoder fewer looks"):
        model(torch.full((1, 2, 2, 2), 0.1), torch.zeros(1, 2, WIDTH))


def test_inputs_and_options_that_do_not_fit_are_refused():
    with pytest.raises(BackboneError, match=r"wants heatmaps \(b, t, h, w\), got \(4, 7, 9\); a single clip needs"):
        encoder("thesis")(heatmaps()[0])
    with pytest.raises(ParameterError, match="variant 'theses' is unknown; choose from paper, thesis, located"):
        make_encoder("theses", text_width=4)
    with pytest.raises(ParameterError, match="region encoder 'thesis': .*'sharpness'"):
        make_encoder("thesis", text_width=4, sharpness=2.0)
    with pytest.raises(ParameterError, match="text_width must be positive, got 0"):
        make_encoder("paper", text_width=0)


def test_the_probe_reads_what_is_there_and_nothing_else():
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randn(120, 3, 5, generator=generator)
    facts = {"sum": tokens.sum((1, 2))[:, None], "noise": torch.randn(120, 2, generator=generator)}
    readings = read_back(tokens, facts, held_out=40)
    assert readings["sum"].r2 > 0.98 and readings["noise"].r2 < 0.1 and readings["noise"].read.shape == (40, 2)
    truth = facts["sum"][80:].numpy()
    by_hand = 1 - ((truth - readings["sum"].read) ** 2).sum() / ((truth - facts["sum"][:80].numpy().mean()) ** 2).sum()
    assert readings["sum"].r2 == pytest.approx(by_hand)
    assert readings["sum"].error == pytest.approx(np.abs(truth - readings["sum"].read).mean())
    with pytest.raises(ParameterError, match="probe: 120 clips, 115 held out"):
        read_back(tokens, facts, held_out=115)


def test_places_and_motion_are_read_back_from_untrained_located_tokens():
    tracks = blob_tracks(240, steps=6, grid=(12, 18), seed=4)
    model = encoder("located", hidden_width=64, channels=4)
    tokens = tokens_of(model, tracks.heatmaps)
    readings = read_back(tokens, tracks.facts(), held_out=80)
    assert readings["from"].r2 > 0.7 and readings["to"].r2 > 0.7
    shuffled = read_back(tokens.roll(1, 0), tracks.facts(), held_out=80)
    assert shuffled["from"].r2 < 0.1
    thesis = read_back(tokens_of(encoder("thesis"), tracks.heatmaps), tracks.facts(), held_out=80)
    assert readings["from"].r2 > thesis["from"].r2 + 0.2


def test_blob_tracks_are_where_they_say():
    tracks = blob_tracks(30, steps=5, grid=(18, 27), seed=9)
    again = blob_tracks(30, steps=5, grid=(18, 27), seed=9)
    assert torch.equal(tracks.heatmaps, again.heatmaps)
    assert not torch.equal(tracks.heatmaps, blob_tracks(30, steps=5, grid=(18, 27), seed=10).heatmaps)
    hottest = tracks.heatmaps.flatten(2).argmax(-1)
    found = torch.stack([hottest % 27 / 27, hottest // 27 / 18], -1) + torch.tensor([0.5 / 27, 0.5 / 18])
    near = (found - tracks.places).abs().amax(-1)[tracks.present]
    assert (near < 0.06).float().mean() > 0.95
    first, last = tracks.ends()
    for clip in range(30):
        there = tracks.present[clip].nonzero()[:, 0]
        assert torch.equal(first[clip], tracks.places[clip, there[0]])
        assert torch.equal(last[clip], tracks.places[clip, there[-1]])


BACKBONE = SimpleNamespace(name="tiny", fingerprint="f00", text_width=WIDTH)


@pytest.mark.parametrize("variant", ENCODERS)
def test_a_saved_encoder_comes_back_equal(variant, tmp_path):
    model = encoder(variant, **({"looks": True, "rank": 3} if variant == "located" else {}))
    path = model.save(tmp_path / "rae.safetensors", backbone_fingerprint="f00", extra={"backbone": "tiny"})
    first = path.read_bytes()
    model.save(path, backbone_fingerprint="f00", extra={"backbone": "tiny"})
    assert path.read_bytes() == first
    state = torch.get_rng_state()
    loaded = load_encoder(path, backbone=BACKBONE)
    assert torch.equal(torch.get_rng_state(), state)
    assert type(loaded) is type(model) and loaded.config() == model.config()
    assert loaded.record["extra"] == {"backbone": "tiny"}
    for key, value in model.state_dict().items():
        assert torch.equal(value, loaded.state_dict()[key])


@pytest.mark.parametrize("edit, message", [
    (lambda state: state.pop("base_prompt"), "1 key missing, first 'base_prompt'; was it made by phase 2"),
    (lambda state: state.update(more=torch.ones(1)), "1 key unexpected, first 'more'"),
    (lambda state: state.update(base_prompt=torch.ones(1, 3)), r"'base_prompt' \(1, 3\) instead of \(1, 12\)"),
    (lambda state: state.update(base_prompt=torch.full((1, WIDTH), float("nan"))), "'base_prompt' holds values that are"),
])
def test_weight_files_that_do_not_fit_are_refused(edit, message, tmp_path):
    path = encoder("thesis").save(tmp_path / "rae.safetensors", backbone_fingerprint="f00")
    state, record = load_file(path), read_weights(path)[1]
    edit(state)
    save_file(state, path, metadata={"tvad": json.dumps(record)})
    with pytest.raises(CheckpointError, match=f"rae.safetensors: .*{message}"):
        load_encoder(path)


def test_foreign_files_are_refused_by_name(tmp_path):
    path = encoder("thesis").save(tmp_path / "rae.safetensors", backbone_fingerprint="f00", extra={"backbone": "tiny"})
    other = SimpleNamespace(name="big", fingerprint="f11", text_width=WIDTH)
    with pytest.raises(CheckpointError, match=r"was trained on tiny \(fingerprint f00\), not on big \(fingerprint f11\)"):
        load_encoder(path, backbone=other)
    with pytest.raises(CheckpointError, match="its tokens are 12 wide, the language model wants 20"):
        load_encoder(path, backbone=SimpleNamespace(name="tiny", fingerprint="f00", text_width=20))
    record = read_weights(path)[1]
    for changes, message in (({"kind": "ahd"}, "holds 'ahd' of format 1, not a region encoder"),
                             ({"config": {"variant": "no"}}, "its record does not describe a region encoder")):
        save_file(load_file(path), tmp_path / "x.safetensors", metadata={"tvad": json.dumps({**record, **changes})})
        with pytest.raises(CheckpointError, match=message):
            load_encoder(tmp_path / "x.safetensors")
    with pytest.raises(CheckpointError, match="none.safetensors: no such weight file; was it made by phase 2"):
        load_encoder(tmp_path / "none.safetensors")
    with pytest.raises(CheckpointError, match=r"pickled weights \(.pt\) are not loaded"):
        load_encoder(tmp_path / "rae.pt")


def test_located_learns_to_name_the_cell_where_a_track_begins():
    """A linear reader on the tokens, both trained for forty steps; the maps of other clips tell it nothing."""
    tracks = blob_tracks(320, steps=4, grid=(9, 12), seed=2, clutter=0.1)
    wanted = cells(tracks.ends()[0])
    model = encoder("located", scale=0.3)
    reader = torch.nn.Linear(model.tokens(4) * WIDTH, 9)
    optimizer = torch.optim.Adam([*model.parameters(), *reader.parameters()], lr=3e-3)
    for step in range(40):
        rows = torch.arange(240).roll(step * 61)[:48]
        loss = F.cross_entropy(reader(model(tracks.heatmaps[rows]).flatten(1)), wanted[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        right, shuffled = ((reader(model(maps).flatten(1)).argmax(1) == wanted[240:]).float().mean().item()
                           for maps in (tracks.heatmaps[240:], tracks.heatmaps[240:].roll(1, 0)))
    assert right > 0.6 and shuffled < 0.3, (right, shuffled)
