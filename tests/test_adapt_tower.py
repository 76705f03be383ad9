"""Low-rank adaptation of the tower: what learns, what is saved, how crops are drawn, and the whole way on a tiny tower."""
from __future__ import annotations

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from composite_footage import toy_footage
from tiny_model import random_model_directory
from training_fakes import FakeBackbone

from tvad.adaptation.detector import AdaptedDetector
from tvad.adaptation.evidence import Fusion
from tvad.adaptation.tower import PARTS, attach, digest_of, is_adapted, load_tower, save_tower
from tvad.backbones.qwen import QwenBackbone
from tvad.checkpoints import read_weights, write_weights
from tvad.detection import DEFAULT_SCORING
from tvad.errors import BackboneError, CheckpointError, DatasetError, ParameterError
from tvad.heatmap import AnomalyHeatmapDecoder
from tvad.training.adapt import AdaptConfig, adapt
from tvad.training.adapt.pairs import normal_videos, pair_starts, split
from tvad.training.adapt.tower import Pictures, _picture, _relit, photograph, train_tower
from tvad.video.clip import Clip

SIZE = (60, 100)
SMALL = AdaptConfig(steps=2, batch_size=6, validate_every=2, composites=8, normal=6, rehearsal=0, val_composites=6,
                    val_normal=6, patches_per_pair=16, gaps=(1,), oneclass=False, tower_rank=2, tower_steps=4,
                    tower_batch=6, tower_crop=40, tower_whole=0.5, tower_after=2)


@pytest.fixture(scope="module")
def backbone(tmp_path_factory):
    folder = random_model_directory(tmp_path_factory.mktemp("qwen"))
    return QwenBackbone.from_pretrained(folder, taps=(0, 1, 2), device="cpu", dtype="float32")


def decoder_for(backbone) -> AnomalyHeatmapDecoder:
    torch.manual_seed(0)
    return AnomalyHeatmapDecoder(taps=backbone.taps, tap_width=backbone.tap_width, hidden_width=8,
                                 text_width=backbone.text_width, contrast="centred", temperature=25.0)


@pytest.fixture(scope="module")
def text(backbone):
    return torch.from_numpy(np.random.default_rng(0).normal(size=(2, backbone.text_width)).astype(np.float32))


@pytest.fixture(scope="module")
def clip():
    return Clip(toy_footage("clip", size=SIZE, frames=4, people=3)[0].read(0, 4), 10.0, 0, "clip")


@pytest.fixture(scope="module")
def clips():
    return [toy_footage(f"clip{number}", size=SIZE, frames=20, people=4, seed=number)[0] for number in range(4)]


def stirred(twin):
    """Let the adapter change something: B starts at zero."""
    generator = torch.Generator().manual_seed(1)
    for value in twin.adapter.values():
        value.data = 0.1 * torch.randn(value.shape, generator=generator)
    return twin


def taps_of(backbone, clip, twin=None):
    flat, grid = backbone.patches(clip.frames)
    with torch.no_grad():
        return (twin.backbone if twin else backbone).forward(flat, grid)[0]


def test_exactly_the_products_of_the_chosen_blocks_learn(backbone):
    twin = attach(backbone, rank=2, first=1)
    wanted = {f"blocks.{block}.{part}.lora_{side}.weight" for block in (1, 2) for part in PARTS for side in "AB"}
    assert set(twin.adapter) == wanted
    learns = [name for name, value in twin.backbone.visual.named_parameters() if value.requires_grad]
    assert len(learns) == len(wanted) and all("lora_" in name for name in learns)
    assert not any("lora_" in name for name, _ in backbone.visual.named_parameters())


def test_an_untrained_twin_sees_as_its_backbone_and_a_trained_one_does_not(backbone, clip):
    twin = attach(backbone, rank=2, first=1)
    plain = taps_of(backbone, clip)
    for one, other in zip(plain, taps_of(backbone, clip, twin)):
        torch.testing.assert_close(one, other)
    stirred(twin)
    changed = taps_of(backbone, clip, twin)
    torch.testing.assert_close(changed[0], plain[0])          # block 0 was left as it is
    assert (changed[1] - plain[1]).abs().max() > 1e-3
    for one, other in zip(changed, backbone.see(clip).taps):
        assert one.shape == other.shape                        # the backbone itself is untouched
    for one, other in zip(backbone.see(clip).taps, plain):
        torch.testing.assert_close(one, other)


def test_merged_weights_see_what_the_adapter_saw(backbone, clip):
    twin = stirred(attach(backbone, rank=2, first=0))
    for one, other in zip(twin.merged().see(clip).taps, taps_of(backbone, clip, twin)):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)


def test_a_saved_tower_is_the_same_and_another_backbone_to_caches(backbone, clip, tmp_path):
    seeing = stirred(attach(backbone, rank=2)).merged()
    loaded = load_tower(save_tower(tmp_path / "tower.safetensors", seeing), backbone)
    for one, other in zip(seeing.see(clip).taps, loaded.see(clip).taps):
        assert (one == other).all()
    assert is_adapted(loaded) and not is_adapted(backbone)
    assert loaded.fingerprint == seeing.fingerprint and loaded.vision_fingerprint == seeing.vision_fingerprint
    assert len({seeing.fingerprint, backbone.fingerprint, attach(backbone, rank=2).merged().fingerprint}) == 3
    assert seeing.language_model is None and seeing.name.startswith(f"{backbone.name}-adapted-")


def test_files_that_do_not_fit_are_refused(backbone, tmp_path):
    path = save_tower(tmp_path / "tower.safetensors", stirred(attach(backbone, rank=2)).merged())
    tensors, record = read_weights(path)

    def written(changed=None, **facts):
        path = tmp_path / f"other{len(list(tmp_path.iterdir()))}.safetensors"
        return write_weights(path, tensors if changed is None else changed, {**record, **facts})

    first = next(iter(sorted(tensors)))
    for file, said in (
            (written(kind="ahd"), "not an adapter of a tower; adapt again"),
            (written(backbone_fingerprint="x"), "was trained on .* not on .* load that backbone, or adapt again"),
            (written(config={"rank": 2, "scale": 2.0, "first": 9}), "describes no adapter of this tower"),
            (written({key: value for key, value in tensors.items() if key != first}), "1 key missing"),
            (written({**tensors, first: tensors[first] + 1}), "not those that were saved; adapt again"),
            (tmp_path / "none.safetensors", "no such weight file; adapt again")):
        with pytest.raises(CheckpointError, match=said):
            load_tower(file, backbone)
    assert digest_of(tensors) == record["adapter_fingerprint"]


def test_towers_that_cannot_be_adapted_are_refused(backbone):
    with pytest.raises(BackboneError, match="fake: has no tower of blocks .* use tower_rank=0"):
        attach(FakeBackbone())
    with pytest.raises(BackboneError, match="adapted already; start from the backbone itself"):
        attach(attach(backbone, rank=1).merged())
    with pytest.raises(ParameterError, match="first a block from 0 to 2, got 3"):
        attach(backbone, first=3)
    with pytest.raises(BackboneError, match="not adapted; there is nothing to save"):
        save_tower("tower.safetensors", backbone)
    with pytest.raises(ParameterError, match="tower_whole 1.5 must be in 0..1"):
        AdaptConfig(tower_whole=1.5)


def source_of(count=5, *, event=True, size=(60, 100)) -> Pictures:
    """Pairs whose pixels say where they lie: red is the row, green the column."""
    rows, columns = np.mgrid[:size[0], :size[1]].astype(np.uint8)
    frames = np.stack([np.stack([rows, columns, np.full_like(rows, side)], -1) for side in (10, 20)])
    targets = np.zeros((count, size[0] // 10, size[1] // 10), np.uint8)
    change = np.zeros(targets.shape, np.float32)
    change[:, 1, 1] = 1
    if event:
        targets[:, 4, 7] = 1
    return Pictures("toy", 1.0, np.repeat(frames[None], count, 0), targets, change)


def test_crops_lie_on_the_grid_and_keep_their_labels(monkeypatch):
    monkeypatch.setattr("tvad.training.adapt.tower._LIGHT", 0.0)
    source, hit = source_of(), 0
    for seed in range(60):
        pair, labels = _picture(source, 0, (40, 40), 20, 10, np.random.default_rng(seed))
        assert pair.shape == (2, 40, 40, 3) and labels.shape == (4, 4)
        top, left = int(pair[0, 0, 0, 0]), int(min(pair[0, 0, 0, 1], pair[0, 0, -1, 1]))
        assert top % 20 == 0 and left % 20 == 0
        mirrored = pair[0, 0, 0, 1] > pair[0, 0, -1, 1]
        wanted = source.targets[0, top // 10:top // 10 + 4, left // 10:left // 10 + 4]
        np.testing.assert_array_equal(labels, wanted[:, ::-1] if mirrored else wanted)
        hit += int(labels.any())
    assert 20 < hit < 60                     # the event often, but not always
    whole, labels = _picture(source, 0, (60, 100), 20, 10, np.random.default_rng(3))
    assert whole.shape == (2, 60, 100, 3) and labels.sum() == 1
    moved = [_picture(source_of(event=False), 0, (40, 40), 20, 10, np.random.default_rng(seed))[0] for seed in range(40)]
    assert np.mean([pair[0, 0, 0, 0] == 0 for pair in moved]) > 0.6          # towards what moves, which is at the top


def test_another_light_is_the_same_for_both_frames():
    pair = np.repeat(np.random.default_rng(0).integers(0, 256, (1, 8, 8, 3), dtype=np.uint8), 2, axis=0)
    lit = _relit(pair, np.random.default_rng(1))
    assert (lit[0] == lit[1]).all() and (lit != pair).any() and lit.dtype == np.uint8


def test_pictures_are_the_pairs_as_the_tower_gets_them(clips, backbone, tmp_path):
    train, _ = split(clips, 0.25, gap=1)
    videos = normal_videos(train, 5, gap=1, reach=1, seed=0)
    made = photograph("normal", videos, pair_starts(videos), 1.0, backbone=backbone, config=SMALL, folder=tmp_path,
                      progress=False)
    assert len(made.frames) == len(made.pairs) == 5 and not made.targets.any()
    np.testing.assert_array_equal(made.frames[0], videos[0].frames.read(0, 2))
    assert made.change.max() == 1 and made.change.shape[1:] == (6, 10)
    large = SimpleNamespace(input_size=lambda h, w: (40, 60), patch_size=10)
    assert photograph("small", videos, pair_starts(videos), 1.0, backbone=large, config=SMALL, folder=tmp_path,
                      progress=False).frames.shape == (5, 2, 40, 60, 3)


def test_an_enlarged_tower_learns_from_enlarged_pictures(clips, backbone, tmp_path):
    large = backbone.enlarged(1.5)
    videos = normal_videos(split(clips, 0.25, gap=1)[0], 2, gap=1, reach=1, seed=0)
    made = photograph("normal", videos, pair_starts(videos), 1.0, backbone=large, config=SMALL, folder=tmp_path,
                      progress=False)
    _, grid = large.patches(videos[0].frames.read(0, 2))
    assert made.targets.shape[1:] == made.change.shape[1:] == grid[1:] != backbone.patches(clips[0].read(0, 2))[1][1:]
    assert made.frames.shape[2:4] == tuple(10 * side for side in grid[1:]) == large.seen_size(*SIZE)
    assert backbone.seen_size(*SIZE) == backbone.input_size(*SIZE) == large.input_size(*SIZE)


def test_a_backbone_that_cannot_be_adapted_is_refused_before_the_survey(clips, tmp_path, monkeypatch):
    monkeypatch.setattr("tvad.training.adapt.run.survey", lambda *_, **__: pytest.fail("surveyed first"))
    model = SimpleNamespace(backbone=FakeBackbone())
    with pytest.raises(BackboneError, match="fake: has no tower of blocks .* use tower_rank=0"):
        adapt(model, clips, output_dir=tmp_path / "out", config=SMALL, cache_dir=tmp_path, progress=False)
    assert not (tmp_path / "out").exists()


def test_training_learns_and_a_broken_run_goes_on(backbone, text, tmp_path):
    sources = [source_of(), replace(source_of(event=False, size=(40, 60)), name="rehearsal")]     # of another size

    def run(folder, stop=None, steps=12):
        twin, decoder = attach(backbone, rank=2, seed=3), decoder_for(backbone)
        config = replace(SMALL, tower_steps=steps, tower_batch=4, validate_every=3)
        for end in (stop, None) if stop else (None,):
            twin, decoder = attach(backbone, rank=2, seed=3), decoder_for(backbone)
            losses = train_tower(twin, decoder, lambda: sources, config=config, prototypes=text, folder=tmp_path / folder,
                                 identity="x", stop_after=end, progress=False)
        return twin, losses

    whole, losses = run("whole")
    nothing = attach(backbone, rank=2, seed=3)
    done = replace(SMALL, tower_steps=12, tower_batch=4, validate_every=3)
    assert losses == train_tower(nothing, decoder_for(backbone), lambda: pytest.fail("pictures made for nothing"),
                                 config=done, prototypes=text, folder=tmp_path / "whole", identity="x", progress=False)
    assert digest_of(nothing.adapter) == digest_of(whole.adapter)
    broken, again = run("broken", stop=6)
    assert [record["step"] for record in losses] == [3, 6, 9, 12] and losses == again
    assert losses[-1]["train_loss"] < losses[0]["train_loss"]
    assert digest_of(whole.adapter) == digest_of(broken.adapter) != digest_of(attach(backbone, rank=2, seed=3).adapter)


def stop_here(*_, **__):
    raise DatasetError("this far")


def test_an_adaptation_with_its_tower_leaves_both_detectors(backbone, text, clips, tmp_path):
    model = SimpleNamespace(backbone=backbone, decoder=decoder_for(backbone), prototypes=text, scoring=DEFAULT_SCORING)
    result = adapt(model, clips, output_dir=tmp_path / "out", config=SMALL, cache_dir=tmp_path / "cache", progress=False)
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert [record["step"] for record in report["tower"]["losses"]] == [2, 4]
    assert "heat" in report["tower"]["frozen"]["options"]
    assert [record["step"] for record in report["history"]] == [0, 2, 2, 4] and report["best"] in report["history"][2:]
    assert "tower: low-rank adapter of rank 2, 4 steps" in (tmp_path / "out" / "report.txt").read_text()
    assert is_adapted(result.detector.backbone) and not is_adapted(result.frozen.detector.backbone)
    loaded = AdaptedDetector.load(tmp_path / "out", backbone, prototypes=text)
    assert loaded.fingerprint == result.detector.fingerprint != result.frozen.detector.fingerprint
    np.testing.assert_array_equal(loaded.detect(clips[3]).raw_scores, result.detector.detect(clips[3]).raw_scores)
    frozen = AdaptedDetector.load(tmp_path / "out" / "frozen", backbone, prototypes=text)
    np.testing.assert_array_equal(frozen.detect(clips[3]).raw_scores, result.frozen.detector.detect(clips[3]).raw_scores)
    left = {path.name for path in (tmp_path / "cache").iterdir()}
    assert not any(name.startswith(("pictures-", "features-")) for name in left)
    alone = adapt(model, clips, output_dir=tmp_path / "alone", config=replace(SMALL, tower_rank=0, fusion=Fusion()),
                  cache_dir=tmp_path / "cache", progress=False)
    np.testing.assert_array_equal(alone.detector.detect(clips[3]).raw_scores, frozen.detect(clips[3]).raw_scores)
    with pytest.MonkeyPatch.context() as patch:     # the same camera into the same folder, its tower left as it is
        patch.setattr("tvad.training.adapt.run.choose_zoom", lambda *_, **__: pytest.fail("tried again"))
        with pytest.raises(DatasetError, match="this far"):
            patch.setattr("tvad.training.adapt.run.fine_tune", stop_here)
            adapt(model, clips, output_dir=tmp_path / "out", config=replace(SMALL, tower_rank=0),
                  cache_dir=tmp_path / "cache", progress=False)
    assert not (tmp_path / "out" / "frozen").exists()
    (tmp_path / "out" / "tower.safetensors").unlink()
    with pytest.raises(CheckpointError, match="tower.safetensors: no such weight file; adapt again"):
        AdaptedDetector.load(tmp_path / "out", backbone, prototypes=text)
