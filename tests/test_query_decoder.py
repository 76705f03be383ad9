"""The decoder of query heatmaps: its maps against a slow twin, what it refuses, its file."""
from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from query_toys import WORDS, Backbone, decoder_of, some_taps
from training_fakes import GRID

from tvad.errors import CheckpointError, ParameterError
from tvad.heatmap import AnomalyHeatmapDecoder
from tvad.queries.heatmap import EventHeatmapDecoder


@pytest.mark.parametrize("mode", ["softmax", "binary"])
def test_maps_equal_the_slow_twin(mode):
    decoder, backbone = decoder_of(mode)
    taps, book = some_taps(), decoder.book(backbone)
    other = book.space.direction(backbone, ["zeppelin"])
    meanings = decoder.understand(["bike", "van"], backbone)
    unknown = (replace(meanings[0][0], text="zeppelin", known=False, direction=other),)
    maps = decoder.maps(taps, [*meanings, unknown], book)
    rows = torch.cat([book.normal[None], book.prototypes, other[None]])
    weights = decoder.core.fuse_weights.softmax(0)
    logits = torch.zeros(3, *GRID, 4)
    for (t, y, x), _ in np.ndenumerate(np.zeros((3, *GRID))):
        for weight, mlp, tap in zip(weights, decoder.core.mlps, taps):
            feature = mlp.model(tap[t, y, x])
            logits[t, y, x] += weight * (feature / feature.norm() @ rows.T).detach()
    logits = 25 * (logits - (0.3 if mode == "binary" else 0))
    if mode == "binary":
        expected = [logits[..., 2].sigmoid(), logits[..., 1].sigmoid(), logits[..., 3].sigmoid()]
    else:
        expected = [logits[..., :3].softmax(-1)[..., 2], logits[..., :3].softmax(-1)[..., 1], logits.softmax(-1)[..., 3]]
    torch.testing.assert_close(maps, torch.stack(expected), atol=1e-5, rtol=1e-4)


def test_alternatives_light_one_map_and_the_number_of_queries_changes_none():
    decoder, backbone = decoder_of()
    taps = some_taps()
    car, bicycle, both, twice = decoder.heatmaps(taps, ["car", "bicycle", "car or bike", "car or van"], backbone)
    torch.testing.assert_close(both, torch.maximum(car, bicycle))
    torch.testing.assert_close(twice, car)
    torch.testing.assert_close(decoder.heatmaps(taps, ["bicycle"], backbone)[0], bicycle)


def test_the_general_decoder_gives_the_cosines_of_any_number_of_directions():
    torch.manual_seed(0)
    plain = AnomalyHeatmapDecoder(taps=(0, 3), tap_width=6, hidden_width=5, text_width=32, temperature=7.0)
    text = torch.nn.functional.normalize(torch.randn(5, 32), dim=1)
    similar = plain.similarities(some_taps(), text)
    assert similar.shape == (3, 5, *GRID) and similar.abs().max() <= 1
    torch.testing.assert_close(7 * similar[:, 1:3], plain(some_taps(), text[1:3]), atol=1e-5, rtol=1e-4)


def test_queries_that_cannot_be_are_refused():
    decoder, backbone = decoder_of()
    with pytest.raises(ParameterError, match=r"events 'car': give a list of queries, such as \['bicycle'"):
        decoder.heatmaps(some_taps(), "car", backbone)
    with pytest.raises(ParameterError, match="query '': holds no word"):
        decoder.heatmaps(some_taps(), ["car", ""], backbone)
    with pytest.raises(ParameterError, match="mode 'argmax' must be one of softmax, binary"):
        decoder_of("argmax")


def test_a_file_brings_back_the_same_maps_and_foreign_files_are_refused(tmp_path):
    decoder, backbone = decoder_of()
    path = decoder.save(tmp_path / "queries.safetensors", backbone_fingerprint=backbone.fingerprint)
    again = EventHeatmapDecoder.load(path, backbone=backbone)
    queries = ["bike", "van or bicycle"]
    torch.testing.assert_close(*(made.heatmaps(some_taps(), queries, backbone) for made in (again, decoder)))
    assert again.wordings == WORDS and again.record["kind"] == "event-heatmaps"
    with pytest.raises(CheckpointError, match="was trained on another backbone"):
        EventHeatmapDecoder.load(path, backbone=Backbone("other"))
    general = AnomalyHeatmapDecoder(taps=(0, 3), tap_width=6, hidden_width=5, text_width=32)
    general.save(tmp_path / "ahd.safetensors", backbone_fingerprint="fake-0")
    with pytest.raises(CheckpointError, match="holds 'ahd' of format 1, no decoder of query heatmaps of format 1"):
        EventHeatmapDecoder.load(tmp_path / "ahd.safetensors")
