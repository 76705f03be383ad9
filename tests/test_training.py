"""Phase 1: losses against slow twins, targets, the feature cache, and training that resumes bit for bit."""
from __future__ import annotations

import json
import logging
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from training_fakes import GRID, SIZE, FakeBackbone, toy_split, toy_video

from tvad.errors import DatasetError, ParameterError, StorageError
from tvad.training import cache, phase1, targets
from tvad.training.cache import cache_pairs, prune
from tvad.training.losses import LOSSES, pixel_loss
from tvad.training.phase1 import Phase1Config, draw_patches, train_heatmap

SMALL = Phase1Config(steps=60, batch_size=8, validate_every=20, learning_rate=1e-2, hidden_width=16, train_pairs=60,
                     val_pairs=40, patches_per_pair=24)
TEXT = torch.tensor([[1.0, 0, 0, 0, 0, 0, 0, 0], [0.6, 0.8, 0, 0, 0, 0, 0, 0]])


@pytest.fixture(scope="module")
def splits():
    return {"train": toy_split("a", 8), "val": toy_split("v", 4)}


def train(splits, tmp_path, name="run", config=SMALL, **options):
    return train_heatmap(config, options.pop("backbone", FakeBackbone()), **splits, output_dir=tmp_path / name,
                         cache_dir=tmp_path / "cache", prototypes=TEXT, progress=False, **options)


# Losses

def slow_loss(name, logits, target, weight, positive_weight):
    total = norm = overlap = squares = entropy_sum = 0.0
    for (b, h, w), truth in np.ndenumerate(target.numpy()):
        normal, abnormal = (float(logits[b, c, h, w]) for c in (0, 1))
        p = math.exp(abnormal) / (math.exp(normal) + math.exp(abnormal))
        right = p if truth else 1 - p
        entropy = -math.log(right)
        share = float(weight[b, h, w])
        entropy_sum += share * entropy
        overlap += share * p * truth
        squares += share * (p * p + truth * truth)
        factor = {"focal": (1 - right) ** 2, "balanced": positive_weight if truth else 1.0}.get(name, 1.0)
        total += share * factor * entropy
        norm += share * (factor if name == "balanced" else 1.0)
    dice = 1 - (2 * overlap + 1) / (squares + 1) + entropy_sum / norm
    return dice if name == "dice" else total / norm


@pytest.mark.parametrize("name", sorted(LOSSES))
def test_losses_equal_their_slow_twins(name):
    rng = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(2, 2, 3, 4, generator=rng)
    target = (torch.rand(2, 3, 4, generator=rng) > 0.7).float()
    weight = torch.rand(2, 3, 4, generator=rng)
    expected = slow_loss(name, logits, target, weight, 5.0)
    found = pixel_loss(name)(logits, target, weight=weight, positive_weight=5.0)
    assert float(found) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("name", sorted(LOSSES))
def test_losses_stay_finite_for_confident_wrong_logits_in_half_precision(name):
    logits = torch.tensor([[[[200.0]], [[-200.0]]]], dtype=torch.bfloat16, requires_grad=True)
    loss = pixel_loss(name)(logits, torch.ones(1, 1, 1))
    loss.backward()
    assert loss.dtype == torch.float32 and torch.isfinite(loss) and torch.isfinite(logits.grad).all()


def test_an_unknown_loss_is_refused_with_the_names():
    with pytest.raises(ParameterError, match="unknown loss 'hinge'; give one of balanced, cross_entropy, dice, focal"):
        Phase1Config(loss="hinge")


# Targets

def test_a_target_smaller_than_a_patch_survives_any_and_area_but_not_nearest():
    masks = np.zeros((2, *SIZE), np.uint8)
    masks[1, 11:13, 21:23] = 7                      # four pixels off the middle of patch (1, 2), second frame only
    share, centre = targets.cover(masks, GRID)[None], targets.nearest(masks, GRID)[None]
    assert share[0, 1, 2] == pytest.approx(0.04, abs=1e-6) and np.count_nonzero(share) == 1
    assert targets.labels_of(share, centre, rule="any")[0, 1, 2] == 1
    assert targets.labels_of(share, centre, rule="area", threshold=0.5)[0, 1, 2] == 1
    assert not targets.labels_of(share, centre, rule="nearest").any()


def test_area_drops_patches_that_are_barely_touched_beside_a_full_one():
    masks = np.zeros((1, *SIZE), np.uint8)
    masks[0, 10:20, 20:31] = 1
    share, centre = targets.cover(masks, GRID)[None], targets.nearest(masks, GRID)[None]
    assert targets.labels_of(share, centre, rule="any").sum() == 2
    assert np.argwhere(targets.labels_of(share, centre, rule="area", threshold=0.25)[0]).tolist() == [[1, 2]]


def test_an_unknown_target_rule_is_refused():
    with pytest.raises(ParameterError, match="unknown target rule 'some'; give one of any, area, nearest"):
        targets.labels_of(np.zeros((1, 2, 2)), np.zeros((1, 2, 2)), rule="some")


def test_pairs_cover_every_event_and_both_classes():
    video = toy_video("x", events=((3, 5, "car"), (10, 38, "bicycle")), n=60)
    starts = targets.choose_pairs(video, 8, seed=0)
    labels = targets.pair_labels(video)[list(starts)]
    assert len(set(starts)) == len(starts) == 8 and labels.sum() == 4
    assert any(2 <= start < 5 for start in starts) and any(10 <= start < 38 for start in starts)
    assert targets.choose_pairs(video, 8, seed=0) == starts != targets.choose_pairs(video, 8, seed=1)


def test_short_videos_give_all_their_pairs():
    assert targets.choose_pairs(toy_video("s", events=(), n=5), 10, seed=0) == (0, 1, 2, 3)
    assert targets.spaced_pairs(toy_video("s", events=(), n=1), 10) == (0,)
    assert targets.spaced_pairs(toy_video("s", events=(), n=9), 3) == (0, 4, 7)


def test_annotation_that_is_missing_is_named():
    video = replace(toy_video("m"), labels=None)
    with pytest.raises(DatasetError, match="simcampus/m: no frame labels, which training needs"):
        targets.choose_pairs(video, 4, seed=0)
    video = replace(toy_video("m"), masks=None)
    with pytest.raises(DatasetError, match="simcampus/m: frames 10 to 11 are anomalous but have no masks"):
        targets.masks_of(video, 10, 12, SIZE)
    assert not targets.masks_of(video, 0, 2, SIZE).any()


# Cache

def pairs_of(videos, tmp_path, backbone=None, count=6):
    starts = {video.id: targets.choose_pairs(video, count, seed=0) for video in videos}
    return cache_pairs(backbone or FakeBackbone(), videos, starts=starts, root=tmp_path, progress=False, batch=4)


def test_cached_rows_are_what_the_tower_saw(tmp_path, splits):
    from tvad.video.clip import Clip
    videos, backbone = splits["train"][:2], FakeBackbone()
    pairs = pairs_of(videos, tmp_path, backbone)
    start = pairs.files[1].starts[2]
    seen = backbone.see(Clip(videos[1].frames.read(start, start + 2), 10.0, start, "b"))
    rows = pairs.read(np.array([8, 0]))
    for tap, expected in zip(rows, seen.taps):
        torch.testing.assert_close(tap[0], expected[0], rtol=1e-3, atol=1e-3)
    patches = np.array([[5, 53, 0], [7, 7, 1]])
    for tap, part in zip(rows, pairs.read_patches(np.array([8, 0]), patches)):
        assert torch.equal(part[:, 0], torch.stack([tap[i].flatten(0, 1)[list(patches[i])] for i in range(2)]))
    assert pairs.summary()["pairs"] == len(pairs) == 12 and pairs.summary()["anomalous_pairs"] == pairs.anomalous.sum()


def test_the_cache_goes_on_after_the_last_whole_video(tmp_path, splits):
    backbone = FakeBackbone()
    pairs_of(splits["train"][:2], tmp_path, backbone)
    before = backbone.seen
    pairs_of(splits["train"][:3], tmp_path, backbone)
    assert backbone.seen - before == 6


def test_damaged_and_foreign_cache_files_are_made_again_and_that_is_said(tmp_path, splits, caplog):
    pairs = pairs_of(splits["train"][:2], tmp_path)
    expected = pairs.read(np.arange(12))
    data = bytearray(pairs.files[0].path.read_bytes())
    data[-5] ^= 1
    pairs.files[0].path.write_bytes(data)
    pairs.files[1].path.write_bytes(pairs.files[1].path.read_bytes()[:300])
    with caplog.at_level(logging.WARNING):
        again = pairs_of(splits["train"][:2], tmp_path)
    assert "damaged (checksum of share); making it again" in caplog.text and caplog.text.count("making it again") == 2
    assert all(torch.equal(one, two) for one, two in zip(expected, again.read(np.arange(12))))
    pairs.files[0].path.write_bytes(pairs.files[1].path.read_bytes())
    with caplog.at_level(logging.WARNING):
        again = pairs_of(splits["train"][:2], tmp_path)
    assert "holds the features of another video or tower" in caplog.text
    assert all(torch.equal(one, two) for one, two in zip(expected, again.read(np.arange(12))))


def test_other_towers_and_other_annotation_have_files_of_their_own(tmp_path):
    video = toy_video("k")
    names = {pairs_of([v], tmp_path, b).files[0].path for v, b in (
        (video, FakeBackbone()), (video, FakeBackbone("fake-1")), (toy_video("k", seed=1), FakeBackbone()),
        (replace(video, events=video.events * 2), FakeBackbone()))}
    assert len(names) == 4


def test_a_full_disk_is_named_and_leaves_what_was_cached(tmp_path, splits, monkeypatch):
    kept = pairs_of(splits["train"][:1], tmp_path).files[0].path

    def full(*_):
        raise OSError(28, "No space left on device")
    with monkeypatch.context() as patch:
        patch.setattr("os.replace", full)
        with pytest.raises(StorageError, match="No space left on device.*free space there"):
            pairs_of(splits["train"][:2], tmp_path)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [kept]
    assert len(pairs_of(splits["train"][:2], tmp_path)) == 12


def test_stale_files_are_pruned_but_never_those_in_use(tmp_path, splits):
    old = pairs_of(splits["train"][:2], tmp_path, FakeBackbone("fake-old"))
    new = pairs_of(splits["train"][:2], tmp_path)
    assert prune(tmp_path, keep=[new], limit_bytes=10**9) == 0
    stale = old.summary()["bytes"]
    gone = next(tmp_path.glob("*/")) / "gone.safetensors"       # another process deletes it between being listed and asked
    gone.symlink_to(tmp_path / "nowhere")
    assert prune(tmp_path, keep=[new], limit_bytes=0) == stale
    assert not old.files[0].path.exists() and all(file.path.exists() for file in new.files)


def test_videos_of_different_sizes_are_refused(tmp_path):
    one = pairs_of([toy_video("k")], tmp_path).files[0]
    with pytest.raises(DatasetError, match="mixes frame sizes"):
        cache.PairSet([one, replace(one, shape=(*one.shape[:2], 3, 3, 6))])


# Training

def test_drawn_patches_estimate_the_whole_map_without_bias():
    target = np.zeros((6, 9), np.uint8)
    target[2, 3:6] = 1
    values = np.arange(54.0)
    for count in (8, 20, 53, 80):
        sums = []
        for seed in range(400):
            picks, weights = draw_patches(target, count, np.random.default_rng(seed))
            assert len(set(picks)) == len(picks) == min(count, 54)
            sums.append((values[picks] * weights).sum())
        assert np.mean(sums) == pytest.approx(values.sum(), rel=0.05)
    picks, _ = draw_patches(target, 20, np.random.default_rng(0))
    assert target.ravel()[picks].sum() == 3


def test_the_learning_rate_rises_for_a_tenth_and_falls_to_zero():
    rates = [Phase1Config(learning_rate=1.0).rate(step, 100) for step in range(100)]
    assert rates[9] == 1.0 and rates[0] == pytest.approx(0.1) and rates[99] < 1e-3
    assert all(a <= b for a, b in zip(rates[:10], rates[1:10])) and all(a >= b for a, b in zip(rates[10:], rates[11:]))


def test_training_learns_and_validation_chooses_the_checkpoint(tmp_path, splits):
    result = train(splits, tmp_path)
    assert result.best["val_micro_auc"] > 0.95 and result.best["val_pixel_auroc"] > 0.95
    assert [record["step"] for record in result.history] == [20, 40, 60]
    assert result.best["selection"] == max(record["selection"] for record in result.history)
    assert json.loads(result.path.with_name("history.json").read_text()) == list(result.history)


def test_a_broken_run_gives_the_weights_of_an_unbroken_one_bit_for_bit(tmp_path, splits, caplog):
    whole = train(splits, tmp_path, "whole")
    train(splits, tmp_path, "broken", stop_after=37)         # in the middle of an interval: goes on from step 20
    train(splits, tmp_path, "broken", stop_after=40)
    last = sorted((tmp_path / "broken" / "checkpoints").glob("*/step-*"))[-1]
    assert last.name == "step-0000040"
    (last / "complete.json").unlink()                        # as if broken off while writing
    with caplog.at_level(logging.WARNING):
        resumed = train(splits, tmp_path, "broken")
    assert "checkpoint skipped" in caplog.text and "step-0000040" in caplog.text and resumed.resumed_at == 20
    one, two = load_file(whole.path), load_file(resumed.path)
    assert all(torch.equal(one[name], two[name]) for name in one) and whole.history == resumed.history


def test_a_finished_run_is_not_trained_again_but_a_changed_one_is(tmp_path, splits):
    first = load_file(train(splits, tmp_path).path)
    assert train(splits, tmp_path).resumed_at == SMALL.steps
    other = train(splits, tmp_path, config=replace(SMALL, seed=1))
    assert other.resumed_at == 0
    assert not torch.equal(load_file(other.path)["mlps.0.model.0.weight"], first["mlps.0.model.0.weight"])


def test_a_full_disk_while_saving_loses_no_earlier_checkpoint(tmp_path, splits, monkeypatch):
    train(splits, tmp_path, stop_after=20)

    def full(*_):
        raise OSError(28, "No space left on device")
    monkeypatch.setattr("tvad.training.checkpoint.save_file", full)
    with pytest.raises(StorageError, match="No space left"):
        train(splits, tmp_path)
    monkeypatch.undo()
    assert train(splits, tmp_path).resumed_at == 20


@pytest.mark.parametrize("change", [{"loss": "focal"}, {"loss": "dice"}, {"loss": "balanced"}, {"variant": "thesis"},
                                    {"patches_per_pair": 0, "target_rule": "area"}])
def test_every_choice_trains(tmp_path, splits, change):
    config = replace(SMALL, steps=12, validate_every=12, **change)
    result = train(splits, tmp_path, config=config)
    assert all(math.isfinite(value) for value in result.best.values()) and result.path.is_file()


def test_splits_without_anomalies_are_refused(tmp_path, splits):
    normal = (toy_video("n", events=()),)
    with pytest.raises(DatasetError, match="needs anomalous pairs both in training and in validation"):
        train({"train": splits["train"], "val": normal}, tmp_path)
    with pytest.raises(DatasetError, match="no videos to cache; the split is empty"):
        train({"train": (), "val": normal}, tmp_path)


def test_settings_come_from_the_notebooks_parameters_by_name():
    class Params:
        seed, steps, loss, unrelated = 3, 77, "focal", "x"
    wanted = Phase1Config(seed=3, steps=77, loss="focal", batch_size=2)
    assert Phase1Config.from_params(Params(), batch_size=2) == wanted
    with pytest.raises(ParameterError, match="steps must be at least 1, got 0"):
        Phase1Config(steps=0)
    with pytest.raises(ParameterError, match="learning_rate -1.0 must be above 0"):
        Phase1Config(learning_rate=-1.0)


def test_processes_share_each_batch_without_changing_it(splits, tmp_path):
    """The weighted mean over the ranks' gradients is the gradient of the whole batch (slow twin of the exchange)."""
    run = _toy_run(splits, tmp_path)
    whole = _gradient(run, ranks=1)
    for ranks in (2, 3, 16):                                  # 16: more processes than rows in the batch
        assert torch.allclose(_gradient(run, ranks=ranks), whole, rtol=1e-4, atol=1e-7)


class _Rank:
    """Stands in for an Accelerator of one of several processes; keeps the gradient instead of exchanging it."""
    device = torch.device("cpu")

    def __init__(self, index, count):
        self.process_index, self.num_processes = index, count

    def backward(self, loss):
        loss.backward()

    def clip_grad_norm_(self, parameters, limit):
        self.gradient = torch.cat([p.grad.flatten() for p in parameters]).clone()

    def reduce(self, value, reduction):
        return value


def _toy_run(splits, tmp_path):
    starts = {name: {video.id: targets.spaced_pairs(video, 5) for video in videos} for name, videos in splits.items()}
    sets = {name: cache_pairs(FakeBackbone(), videos, starts=starts[name], root=tmp_path, progress=False)
            for name, videos in splits.items()}
    return phase1._Run(SMALL, sets["train"], sets["val"], TEXT, _Rank(0, 1))


def _gradient(run, *, ranks):
    parts = []
    for index in range(ranks):
        run.accelerator = _Rank(index, ranks)
        decoder = phase1.untrained_decoder(SMALL, FakeBackbone())
        phase1._step(run, decoder, torch.optim.SGD(decoder.parameters(), lr=0.0), 4, 30)
        parts.append(run.accelerator.gradient)
    return torch.stack(parts).mean(0)
