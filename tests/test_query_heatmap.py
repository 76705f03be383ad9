"""Query heatmaps: training that listens, finding in one pass, and the rows."""
from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from query_toys import Backbone, street, streets
from sklearn.metrics import roc_auc_score
from training_fakes import GRID, SIZE

from tvad.backbones.qwen import Sight
from tvad.datasets.base import Event
from tvad.detection import DEFAULT_SCORING
from tvad.detector import TVAD
from tvad.errors import CheckpointError, DatasetError, ParameterError
from tvad.evaluation import Cell
from tvad.heatmap import AnomalyHeatmapDecoder
from tvad.queries.evaluation import choose_query_sigma, query_rows
from tvad.queries.finding import find
from tvad.queries.heatmap import EventHeatmapDecoder
from tvad.queries.words import EventBook
from tvad.record import Row
from tvad.training import queries as training
from tvad.training.cache import cache_pairs
from tvad.training.event_targets import UNNAMED, event_targets, kind_map, kinds_of
from tvad.training.queries import QueryConfig, query_loss, train_queries

SMALL = QueryConfig(steps=80, batch_size=8, validate_every=40, learning_rate=2e-2, hidden_width=16, train_pairs=48,
                    val_pairs=24, patches_per_pair=24, refilmed=0.0)


@pytest.fixture(scope="module")
def splits():
    return {"train": streets("t", 8), "val": streets("v", 4)}


@pytest.fixture(scope="module")
def trained(splits, tmp_path_factory):
    folder = tmp_path_factory.mktemp("queries")
    return {mode: train_queries(replace(SMALL, mode=mode), Backbone(), **splits, output_dir=folder / mode,
                                cache_dir=folder / "cache", progress=False) for mode in ("softmax", "binary")}


# Targets and training

def test_patches_get_the_kind_that_covers_more_of_them():
    masks = np.zeros((2, *SIZE), np.uint8)
    masks[0, 0:10, 0:16], masks[1, 0:10, 13:20], masks[1, 30:33, 40:43] = 4, 5, 6
    found = kind_map(masks, {4: "car", 5: "bicycle", 6: "tram"}, ["bicycle", "car"], GRID)
    assert found[0, :3].tolist() == [2, 1, 0] and found[3, 4] == UNNAMED and np.count_nonzero(found) == 3
    with pytest.raises(DatasetError, match="video: instance 6 is anomalous but does none of the video's events"):
        kind_map(masks, {4: "car", 5: "bicycle"}, ["car"], GRID)


def test_a_target_of_two_kinds_is_refused():
    assert kinds_of(streets("k", 3)[2]) == {3: "car", 4: "bicycle"}
    twice = replace(street("twice"), events=(Event("car", 0, 2, 7), Event("bicycle", 5, 9, 7)))
    with pytest.raises(DatasetError, match="simcampus/twice: target 7 is in the events 'car' and 'bicycle'; give each its"):
        kinds_of(twice)


def test_targets_of_cached_pairs_agree_with_the_cache_through_another_camera_too(tmp_path, splits):
    videos = splits["train"][:3]
    starts = {video.id: (5, 8, 12) for video in videos}
    for refilmed in (0.0, 0.9):
        pairs = cache_pairs(Backbone(), videos, starts=starts, root=tmp_path, refilmed=refilmed, progress=False)
        found = event_targets(videos, pairs, ["car", "bicycle"], temporal_patch_size=2, refilmed=refilmed)
        assert np.array_equal(found > 0, pairs.targets(rule="any") > 0) and set(np.unique(found)) == {0, 1, 2}
    with pytest.raises(DatasetError, match="t0: its features are cached, but the video is not in the split"):
        event_targets(videos[1:], pairs, ["car"], temporal_patch_size=2)


@pytest.mark.parametrize("mode", ["softmax", "binary"])
def test_the_loss_equals_its_slow_twin(mode):
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(2, 3, 4, generator=generator)
    target = torch.tensor([[0, 1, 2, UNNAMED], [2, 2, 0, 1]])
    share, weights = torch.rand(2, 4, generator=generator) + 0.5, torch.tensor([1.0, 2.0, 0.5])
    total = norm = 0.0
    for (b, m), code in np.ndenumerate(target.numpy()):
        if code == UNNAMED:
            continue
        scale = float(share[b, m] * weights[code])
        if mode == "softmax":
            entropy = -float(logits[b, :, m].log_softmax(0)[code])
        else:
            signed = [logits[b, k, m] * (1 if k == code else -1) for k in (1, 2)]
            entropy = sum(-float(torch.nn.functional.logsigmoid(value)) for value in signed)
        total, norm = total + scale * entropy, norm + scale
    assert float(query_loss(logits, target, share, weights, mode=mode)) == pytest.approx(total / norm, rel=1e-5)


@pytest.mark.parametrize("mode", ["softmax", "binary"])
def test_training_teaches_a_query_its_event_and_leaves_the_others_dark(trained, mode):
    result, backbone = trained[mode], Backbone()
    assert result.best["val_micro_auc"] > 0.95 and result.best["val_pixel_auroc"] > 0.95
    decoder = EventHeatmapDecoder.load(result.path, backbone=backbone)
    rows = query_rows(backbone, decoder, streets("new", 8), Cell("full", "simcampus", "test", "x", 0, "c", 0.0, samples=50),
                      queries={"bicycle": "a person on a bike"}, progress=False)
    means = {row.metric: row.value for row in rows if row.event is None}
    assert means["query_micro_auc"] > 0.95 and means["query_pixel_auroc"] > 0.95 and means["query_wrong_ratio"] < 0.2


def test_validation_sees_a_wrong_query_light_though_ranks_are_perfect(splits, tmp_path):
    run = training._open(SMALL, Backbone(), **splits, root=tmp_path, progress=False)
    truth = torch.from_numpy(np.stack([run.val_targets == code for code in (1, 2)])).float()
    found = {}
    for leak in (0.0, 0.9):
        def maps(self, taps, queries, book, leak=leak):
            # The right query is at one, the other one at ``leak`` on the same pixels: below it, so that ranks are perfect.
            first = maps.read
            maps.read += len(taps[0])
            own = truth[:, first:first + len(taps[0])]
            return torch.maximum(own, leak * own.flip(0)) + 0.01
        maps.read = 0
        decoder = type("Leaky", (), {"maps": maps, "eval": lambda self: None, "train": lambda self: None,
                                     "core": type("Core", (), {"temperature": 1.0})()})()
        found[leak] = training._validate(run, decoder)
    for figures in found.values():
        assert figures["val_pixel_auroc"] == figures["val_micro_auc"] == 1
    assert found[0.0]["val_wrong_ratio"] < 0.2 and found[0.9]["val_wrong_ratio"] > 0.5


def test_a_resumed_run_equals_an_unbroken_one(splits, tmp_path):
    config = replace(SMALL, steps=20, validate_every=10)
    whole = train_queries(config, Backbone(), **splits, output_dir=tmp_path / "a", cache_dir=tmp_path / "c", progress=False)
    train_queries(config, Backbone(), **splits, output_dir=tmp_path / "b", cache_dir=tmp_path / "c", stop_after=10,
                  progress=False)
    again = train_queries(config, Backbone(), **splits, output_dir=tmp_path / "b", cache_dir=tmp_path / "c", progress=False)
    assert again.resumed_at == 10 and again.path.read_bytes() == whole.path.read_bytes()


def test_word_dropout_keeps_a_word_that_no_other_event_has():
    backbone = Backbone()
    book = EventBook(backbone, {"bicycle": ("riding bicycle",), "motorcycle": ("riding motorcycle", "riding")})
    phrases = training._phrases(book)
    assert [own.tolist() for _, own in phrases[0]] == [[False, True]]
    run = type("Run", (), {"book": book, "phrases": phrases, "config": replace(SMALL, word_dropout=0.9)})
    shared = book.space.direction(backbone, ["riding"])
    drawn = torch.stack([training.draw_directions(run, np.random.default_rng(seed)) for seed in range(60)])
    assert drawn.shape == (60, 3, 32) and (drawn @ shared < 0.999).all()
    alone = book.space.direction(backbone, ["bicycle"])
    assert (drawn[:, 1] @ alone > 0.999).any() and torch.equal(drawn[0, 0], book.normal)


def test_splits_without_events_are_refused(splits, tmp_path):
    with pytest.raises(DatasetError, match="needs videos with named events both in training and in validation"):
        train_queries(SMALL, Backbone(), train=splits["train"], val=(street("empty"),), output_dir=tmp_path,
                      cache_dir=tmp_path, progress=False)
    with pytest.raises(ParameterError, match="mode 'x' must be one of softmax, binary, balance 0.5 in"):
        QueryConfig(mode="x")


# Finding, the detector and the rows

def test_several_queries_cost_one_pass_of_the_tower_and_find_what_detect_would(trained):
    backbone = Backbone()
    decoder = EventHeatmapDecoder.load(trained["softmax"].path, backbone=backbone)
    video, calls = streets("f", 3)[2], []
    inner = backbone.see_many
    backbone.see_many = lambda clips, **more: calls.append(len(clips)) or inner(clips, **more)
    found = find(backbone, decoder, video, ["car", "bike", "bicycle or car"], batch=1)
    assert calls == [1, 1] and backbone.seen == 16          # 24 frames are two windows of 16
    assert list(found) == ["car", "bike", "bicycle or car"]
    for kind, query in (("car", "car"), ("bicycle", "bike")):
        spans = [event for event in video.events if event.kind == kind]
        truth = np.zeros(len(video.frames))
        truth[spans[0].start:spans[0].stop] = 1
        assert roc_auc_score(truth, found[query].frame_scores) > 0.9
    assert found["bike"].answers["meaning"] == ["'bike': the event 'bicycle'"]
    assert found["bike"].heatmap.shape == (24, *GRID)
    with pytest.raises(ParameterError, match="a query is given twice"):
        find(backbone, decoder, video, ["car", "car"])


def test_the_detector_listens_and_its_general_map_does_not_change(trained, tmp_path):
    backbone = Backbone()
    general = AnomalyHeatmapDecoder(taps=backbone.taps, tap_width=6, hidden_width=5, text_width=32)
    path = general.save(tmp_path / "ahd.safetensors", backbone_fingerprint=backbone.fingerprint)
    plain = TVAD.from_pretrained(backbone, path)
    (tmp_path / "queries.safetensors").write_bytes(trained["softmax"].path.read_bytes())
    model = TVAD.from_pretrained(backbone, path)
    video = streets("d", 3)[2]
    sight: Sight = backbone.see(type("Clip", (), {"frames": video.frames.read(0, 16)}))
    assert torch.equal(model.heatmap(sight), plain.heatmap(sight)) and model.fingerprint == plain.fingerprint
    seen = backbone.seen
    maps = model.heatmap(sight, events=["bicycle", "car"])
    assert maps.shape == (2, 8, *GRID) and backbone.seen == seen and 0 <= maps.min() and maps.max() <= 1
    np.testing.assert_allclose(model.find(video, ["car"])["car"].heatmap[:8:2], maps[1, :4].numpy(), atol=1e-6)
    with pytest.raises(CheckpointError, match="no decoder of query heatmaps, so it cannot find events by name"):
        plain.heatmap(sight, events=["car"])
    with pytest.raises(CheckpointError, match="no decoder of query heatmaps"):
        plain.find(video, ["car"])
    replace(DEFAULT_SCORING, sigma=3.0).save(tmp_path / "queries.json")
    smooth = TVAD.from_pretrained(backbone, path)
    assert smooth.scoring.sigma == 0 and smooth.query_scoring.sigma == 3 and model.query_scoring == model.scoring
    found = smooth.find(video, ["car"])["car"]
    assert np.ptp(found.frame_scores) < np.ptp(found.raw_scores)


def test_smoothing_of_queries_is_the_best_of_validation(trained):
    backbone = Backbone()
    decoder = EventHeatmapDecoder.load(trained["softmax"].path, backbone=backbone)
    videos, sigmas = streets("s", 4), (0.0, 2.0, 9.0)
    cells = {sigma: Cell("full", "simcampus", "val", "x", 0, "c", sigma, samples=2) for sigma in sigmas}
    slow = {}
    for sigma, cell in cells.items():
        rows = query_rows(backbone, decoder, videos, cell, progress=False)
        slow[sigma] = next(row.value for row in rows if row.metric == "query_micro_auc" and row.event is None)
    best = max(sigmas, key=lambda sigma: (slow[sigma], -sigma))
    chosen = choose_query_sigma(backbone, decoder, videos, chosen_on="simcampus/val", sigmas=sigmas, progress=False)
    assert chosen == replace(DEFAULT_SCORING, sigma=best, chosen_on="simcampus/val") and len(set(slow.values())) > 1
    assert chosen.choice_on("simcampus/val") == "in-sample" and chosen.choice_on("simcampus/test") == "fixed"


def test_rows_equal_slow_metrics_and_are_storable(trained):
    backbone = Backbone()
    decoder = EventHeatmapDecoder.load(trained["binary"].path, backbone=backbone)
    videos = streets("r", 4)
    rows = query_rows(backbone, decoder, videos, Cell("full", "simcampus", "val", "x", 0, "c", 2.0, samples=40),
                      progress=False)
    assert all(isinstance(row, Row) for row in rows) and len(rows) == 9
    table = {(row.metric, row.event): row for row in rows}
    found = {video.id: find(backbone, decoder, video, ["bicycle", "car"], scoring=replace(DEFAULT_SCORING, sigma=2.0))
             for video in videos}
    truth, scores, pixels, heat, right, wrong = [], [], [], [], [], []
    for video in videos:
        maps = found[video.id]["car"].heatmap.astype(np.float16)
        target = next((event for event in video.events if event.kind == "car"), None)
        masks = video.masks(0, 24) == (target.target if target else 255)
        truth.append(masks.any(axis=(1, 2)))
        scores.append(found[video.id]["car"].frame_scores)
        pixels.append(masks)
        heat.append(maps.repeat(10, axis=1).repeat(10, axis=2))
        if target:
            right += maps[truth[-1]].mean((1, 2), dtype=np.float64).tolist()
            if all(event.kind == "car" for event in video.events):
                other = found[video.id]["bicycle"].heatmap.astype(np.float16)[truth[-1]]
                wrong += other.mean((1, 2), dtype=np.float64).tolist()
    slow = roc_auc_score(np.concatenate(truth), np.concatenate(scores))
    assert table["query_micro_auc", "car"].value == pytest.approx(slow, abs=1e-6)
    slow = roc_auc_score(np.concatenate(pixels).ravel(), np.concatenate(heat).ravel().astype(np.float64))
    assert table["query_pixel_auroc", "car"].value == pytest.approx(slow, abs=1e-9)
    assert table["query_wrong_ratio", "car"].value == pytest.approx(min(1, np.mean(wrong) / np.mean(right)), rel=1e-6)
    mean = np.mean([table["query_micro_auc", kind].value for kind in ("car", "bicycle")])
    assert table["query_micro_auc", None].value == pytest.approx(mean) and table["query_micro_auc", None].sigma == 2.0
    with pytest.raises(DatasetError, match="no video of the split names an event"):
        query_rows(backbone, decoder, (street("none"),), Cell("full", "simcampus", "val", "x", 0, "c", 0.0))
