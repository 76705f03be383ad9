"""The same scene through another camera: what is seen and where it is stay together, and a draw is decided by its seed."""

import numpy as np
import torch
from training_fakes import FakeBackbone, toy_split

from tvad.backbones.refilm import disturb, reframe
from tvad.scenes.tracks import LEGIBLE
from tvad.scenes.world import SCENES
from tvad.training.cache import cache_pairs


def scene_of_a_box():
    frames, masks = np.full((2, 60, 90, 3), 40, np.uint8), np.zeros((2, 60, 90), np.uint8)
    frames[:, 20:40, 30:50], masks[:, 20:40, 30:50] = 200, 3
    return frames, masks


def test_masks_go_where_the_pixels_go():
    frames, masks = scene_of_a_box()
    moved = 0
    for seed in range(30):
        seen, kept = reframe(frames, masks, np.random.default_rng(seed))
        assert seen.shape == frames.shape and kept.shape == masks.shape and set(np.unique(kept)) <= {0, 3}
        moved += not np.array_equal(kept, masks)
        bright, inside = seen[0, :, :, 0] > 120, kept[0] > 0
        assert (bright & inside).sum() >= 0.85 * max(bright.sum(), inside.sum())  # borders are blurred
    assert moved == 30


def test_a_still_scene_stays_still_and_a_draw_repeats():
    frames, masks = scene_of_a_box()
    seen, kept = reframe(frames, masks, np.random.default_rng(4))
    assert np.array_equal(seen[0], seen[1]) and np.array_equal(kept[0], kept[1])
    assert np.array_equal(reframe(frames, masks, np.random.default_rng(4))[0], seen)
    assert not np.array_equal(reframe(frames, masks, np.random.default_rng(5))[0], seen)
    noisy = disturb(torch.from_numpy(frames)[None], torch.Generator().manual_seed(4))
    assert torch.equal(noisy, disturb(torch.from_numpy(frames)[None], torch.Generator().manual_seed(4)))


def test_only_the_wanted_share_of_cached_pairs_is_refilmed(tmp_path):
    videos = toy_split("v", 4)
    starts = {video.id: tuple(range(0, 38, 2)) for video in videos}
    clean = cache_pairs(FakeBackbone(), videos, starts=starts, root=tmp_path / "default", progress=False)
    none, half, every = (
        cache_pairs(FakeBackbone(), videos, starts=starts, root=tmp_path / str(share), refilmed=share, progress=False)
        for share in (0.0, 0.5, 1.0)
    )
    rows = np.arange(len(clean))

    def changed(pairs):
        return np.mean([not torch.equal(a, b) for a, b in zip(pairs.read(rows)[0], clean.read(rows)[0], strict=True)])

    assert none.key == clean.key and len({clean.key, half.key, every.key}) == 3
    assert changed(none) == 0 and changed(every) == 1 and 0.3 < changed(half) < 0.7
    # What is cached as the target is what the tower was shown: the bright square, wherever it went.
    targets = every.targets(rule="any")
    brightest = (every.read(rows)[0] @ torch.linalg.pinv(FakeBackbone().mix[0]))[..., 1].numpy()
    shown = np.flatnonzero(targets.any(axis=(1, 2)))
    gaps = [brightest[row][targets[row] > 0].mean() - brightest[row][targets[row] == 0].mean() for row in shown]
    assert len(shown) > 5 and np.median(gaps) > 0.1


def test_most_events_happen_where_a_person_can_name_them():
    from tvad.scenes.script import cast

    scene, heights = SCENES["scene09"], []  # a wide view: people are 8 to 44 pixels high
    events = ("fighting", "falling", "jumping", "throwing")
    for seed in range(12):
        for actor in cast(scene, seed=seed, duration=6.0, events=events, density=1.0):
            spots = [s.position[:2] for s in (actor.state(k / 5) for k in range(30)) if s.present and s.anomalous]
            if spots:
                heights.append(np.median([scene.metre(spot) for spot in spots]))
    clear = np.mean(np.array(heights) >= 0.9 * LEGIBLE)
    assert len(heights) > 40 and 0.7 < clear < 1.0
