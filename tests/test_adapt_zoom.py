"""The magnification at which a camera is seen is chosen by what stands out, not by its size."""
from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from composite_footage import toy_footage
from torch import nn

from tvad.record import remembered
from tvad.scenes.composite.compose import Compositor
from tvad.scenes.composite.survey import survey
from tvad.training.adapt.pairs import Stretch, split
from tvad.training.adapt.zoom import choose_zoom


class Eye:
    """Sees the difference of a pair to its video's real one; blind at magnifications outside ``sharp``."""

    def __init__(self, real: set[bytes], sharp: tuple[float, ...], zoom: float = 1.0) -> None:
        self.real, self.sharp, self.zoom = real, sharp, zoom

    def enlarged(self, zoom: float) -> Eye:
        return Eye(self.real, self.sharp, zoom)

    def see(self, clip) -> SimpleNamespace:
        level = float(clip.frames.tobytes() not in self.real) if self.zoom in self.sharp else 0.5
        return SimpleNamespace(taps=(torch.full((1, 4, 4), level),))


class Heat(nn.Module):
    """The tap is the heat."""

    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Parameter(torch.ones(()))

    def heatmap(self, taps, prototypes):
        return taps[0] * self.one


@pytest.fixture(scope="module")
def camera():
    clips = [toy_footage(f"clip{number}", size=(60, 90), frames=20, people=5, seed=number)[0] for number in range(4)]
    parts, _ = split(clips, 0.25, gap=1)
    real = {np.stack(list(part.footage.take((start, start + 1)))).tobytes() for part in parts
            for start in range(part.start, part.stop - 1)}
    return Compositor(survey([part.footage for part in parts], seed=0)), parts, real


@pytest.mark.parametrize("sharp, wanted", [((1.5,), 1.5), ((1.0, 1.5, 2.0), 1.0), ((1.5, 2.0), 1.5), ((), 1.0)])
def test_the_smallest_of_the_best_is_chosen(camera, sharp, wanted):
    compositor, parts, real = camera
    chosen, found = choose_zoom(Eye(real, sharp), Heat(), torch.zeros(2, 3), compositor, parts, zooms=(2.0, 1.0, 1.5),
                                gap=1, count=6)
    assert chosen == wanted
    assert found == {f"{zoom:g}": (1.0 if zoom in sharp else 0.5) for zoom in (1.0, 1.5, 2.0)}


def test_clips_without_room_for_a_pair_are_said_by_whoever_makes_pairs(camera):
    compositor, parts, _ = camera
    for zooms, wanted in (((2.0, 1.0, 1.5), 1.0), ((2.0, 1.5), 1.5)):
        assert choose_zoom(None, Heat(), torch.zeros(2, 3), compositor, parts, zooms=zooms, gap=40) == (wanted, {})


def test_of_many_clips_only_as_many_are_tried_as_there_are_pairs_to_make(monkeypatch):
    asked = []
    monkeypatch.setattr("tvad.training.adapt.zoom._pairs",
                        lambda compositor, part, count, gap, number: asked.append((part.start, count, number)) or [])

    def pairs_of(count, lengths):
        asked.clear()
        parts = [Stretch(None, number, number + length) for number, length in enumerate(lengths)]
        choose_zoom(None, Heat(), torch.zeros(2, 3), None, parts, zooms=(1.0, 1.5), gap=1, count=count)
        return list(asked)

    assert pairs_of(48, [20] * 12) == [(number, 4, number) for number in range(12)]     # few: as they come
    assert pairs_of(3, [20] * 9) == [(0, 1, 0), (4, 1, 4), (8, 1, 8)]
    assert pairs_of(3, [1, 20, 20, 1, 20, 1]) == [(1, 1, 1), (2, 1, 2), (4, 1, 4)]      # those with room alone


def test_a_choice_is_kept_for_what_decides_it(tmp_path):
    made, path = [], tmp_path / "zoom.json"

    def find():
        made.append(1)
        return {"zoom": 1.25, "tried": {"1": 0.5}, "pair": (1, 2)}

    for key, times in (("a", 1), ("a", 1), ("b", 2)):
        assert remembered(path, key, find) == {"zoom": 1.25, "tried": {"1": 0.5}, "pair": [1, 2]} and len(made) == times
    for damaged in ("{", "[]", '{"key": "b"}', '{"key": "b", "found": 3}'):
        path.write_text(damaged)
        assert remembered(path, "b", find)["zoom"] == 1.25
    assert len(made) == 6


def test_a_single_magnification_is_not_tried(camera):
    compositor, parts, _ = camera
    assert choose_zoom(None, Heat(), torch.zeros(2, 3), compositor, parts, zooms=(1.25,), gap=1) == (1.25, {})
