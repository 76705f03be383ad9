"""Composites: what is estimated from footage, who is pasted, and that nothing else changes."""
from __future__ import annotations

import cv2
import numpy as np
import pytest
from composite_footage import person_height, toy_footage
from real_data import ped2_root

from tvad.errors import DatasetError, ParameterError
from tvad.scenes.camera import Camera
from tvad.scenes.composite import crowd
from tvad.scenes.composite.backdrop import Background, blobs
from tvad.scenes.composite.compose import Compositor, Mixture
from tvad.scenes.composite.lens import fit_heights, person_pixels, solve_camera
from tvad.scenes.composite.looks import tone_table
from tvad.scenes.composite.sheet import examples, save_sheet, sheet
from tvad.scenes.composite.site import Look
from tvad.scenes.composite.stamp import Stamp, draw_stamps, paste, spread
from tvad.scenes.composite.sun import shadow_level, shadow_mask
from tvad.scenes.composite.survey import survey
from tvad.video.frames import ArrayFrames

SIZE = (120, 180)


@pytest.fixture(scope="module")
def toy():
    return [toy_footage(f"toy{number}", seed=number) for number in range(3)]


@pytest.fixture(scope="module")
def site(toy):
    return survey([frames for frames, _ in toy], samples=90)


@pytest.fixture(scope="module")
def compositor(site):
    return Compositor(site)


def test_the_background_is_free_of_people_and_the_foreground_is_the_people(toy):
    frames, masks = toy[0]
    back = Background(frames)
    still = masks.max(0) == 0
    assert np.abs(back.at(0)[still].astype(float) - frames.read(0, 1)[0][still]).mean() < 2.5
    found = back.foreground(frames.read(20, 21)[0], 20) > 0
    truth = masks[20] > 0
    assert (found & truth).sum() / (found | truth).sum() > 0.7
    assert 1.0 < back.noise < 2.5


def test_a_background_needs_three_frames():
    with pytest.raises(DatasetError, match="short: 2 frames; a background needs at least 3"):
        Background(ArrayFrames(np.zeros((2, 8, 8, 3), np.uint8), 10.0, "short"))


def test_each_block_of_a_long_video_has_its_own_background():
    video = np.full((40, 20, 30, 3), 60, np.uint8)
    video[20:] = 120
    back = Background(ArrayFrames(video, 1.0, "dusk"), block_seconds=20)
    assert back.at(3).max() == 60 and back.at(39).min() == 120


def test_heights_are_fitted_through_pieces_and_groups():
    rng = np.random.default_rng(1)
    feet = rng.uniform(80, 220, 300)
    heights = 8 + 0.15 * feet + rng.normal(0, 1.2, 300)
    heights[:110] *= rng.uniform(0.2, 0.75, 110)     # pieces of people
    heights[110:150] *= rng.uniform(1.3, 2.2, 40)    # groups
    (base, slope), near = fit_heights(feet, heights)
    for row in (90, 150, 210):
        assert base + slope * row == pytest.approx(8 + 0.15 * row, rel=0.05)
    assert near[150:].mean() > 0.9 and near[:110].mean() < 0.2


@pytest.mark.parametrize("camera", [Camera(6.0, 0.45, 1.3), Camera(15.0, 0.3, 2.4), Camera(4.0, 0.7, 1.0)])
def test_the_solved_camera_gives_people_their_height(camera):
    rows, size = np.array([120.0, 170.0, 230.0]), (240, 360)
    truth = person_pixels(camera, rows, size)
    slope, base = np.polyfit(rows, truth, 1)
    solved = solve_camera((base, slope), (110, 235), size)
    np.testing.assert_allclose(person_pixels(solved, rows, size), truth, rtol=0.07)


def test_a_survey_measures_scale_pace_and_look(site):
    assert site.people > 40 and site.look.grey
    for row in (60, 90, 115):
        assert site.pixels_high(row) == pytest.approx(person_height(row, SIZE), rel=0.15)
        assert float(person_pixels(site.camera, [row], SIZE)[0]) == pytest.approx(site.pixels_high(row), rel=0.12)
    assert 0.6 < site.pace < 1.6
    # toy people are dark: bright simulated clothes must not stay bright
    assert site.look.tones[200] < 130 and site.look.cast is None
    sideways = np.abs(np.cos(site.headings))
    assert np.median(sideways) > 0.9
    assert site.summary()["look"]["grey"] is True


def test_a_colour_survey_keeps_colour():
    site = survey([toy_footage("tinted", colour=True, frames=30)[0]], samples=30)
    assert not site.look.grey
    made = Compositor(site).pair(toy_footage("tinted", colour=True, frames=30)[0], 4, seed=1, anomalous=True)
    assert np.ptp(made.frames.astype(int), axis=-1).max() > 10


@pytest.mark.parametrize("strength", [0.15, 1.0, 2.5])
def test_pasted_people_are_as_colourful_as_real_ones(strength):
    frames, masks = toy_footage("tinted", colour=True, frames=30, strength=strength)
    site = survey([frames], samples=30)
    real = np.ptp(frames.read(0, 30)[masks > 0].astype(int), axis=1).mean()
    stamps = []
    for seed in range(40):
        cast = crowd.ordinary(site, np.random.default_rng(seed))
        states = [member.actor.state(member.time) for member in cast]
        stamps += draw_stamps([member.actor.shapes(state) for member, state in zip(cast, states)],
                              np.array([state.position for state in states]), camera=site.camera, size=site.size,
                              look=site.look, seeds=range(len(cast)))
    inner = np.concatenate([stamp.colour[stamp.alpha > 0.9] for stamp in stamps if stamp is not None])
    assert np.ptp(inner, axis=1).mean() == pytest.approx(real, rel=0.25)


def test_an_event_whose_way_runs_out_of_view_is_put_elsewhere(site, monkeypatch):
    tried, inner = [], crowd._MAKERS["running"]

    def running(place, rng, duration):
        tried.append(place)
        if len(tried) < 3:
            raise ValueError("no path is in view")
        return inner(place, rng, duration)
    monkeypatch.setattr(crowd, "_MAKERS", {**crowd._MAKERS, "running": running})
    assert crowd.event(site, np.random.default_rng(1), "running") and len(tried) >= 3
    monkeypatch.setattr(crowd, "_MAKERS", {"running": lambda *_: (_ for _ in ()).throw(ValueError("none"))})
    assert crowd.event(site, np.random.default_rng(1), "running") == []


def test_grey_footage_with_a_tint_keeps_it_where_nothing_is_pasted():
    grey = toy_footage("tint", frames=30)[0].read(0, 30)
    tinted = np.clip(grey.astype(int) + (2, 0, 0), 0, 255).astype(np.uint8)
    frames = ArrayFrames(tinted, 10.0, "tint")
    site = survey([frames], samples=30)
    assert site.look.grey
    made = Compositor(site).pair(frames, 4, seed=1, anomalous=True)
    assert (made.frames == tinted[4:6]).all(-1).mean() > 0.5 and made.masks.any()


def test_a_survey_refuses_nothing_and_mixed_sizes(toy):
    with pytest.raises(DatasetError, match="no footage"):
        survey([])
    with pytest.raises(DatasetError, match="different sizes"):
        survey([toy[0][0], ArrayFrames(np.zeros((9, 60, 60, 3), np.uint8), 10.0, "other")])


def test_footage_without_people_gets_a_usual_camera(caplog):
    rng = np.random.default_rng(3)
    empty = ArrayFrames(np.clip(rng.normal(120, 2, (12, 120, 180, 1)), 0, 255).astype(np.uint8), 10.0, "empty")
    site = survey([empty], samples=12)
    assert site.people == 0 and "the camera is guessed" in caplog.text
    made = Compositor(site).pair(empty, 0, seed=3, anomalous=True)
    assert made.masks.any()


def test_a_composite_is_a_function_of_its_arguments(toy, compositor, site):
    one, two = (Compositor(site).pair(toy[0][0], 7, gap=2, seed=5, anomalous=True) for _ in range(2))
    assert (one.frames == two.frames).all() and (one.masks == two.masks).all() and one.kinds == two.kinds
    other = compositor.pair(toy[0][0], 7, gap=2, seed=6, anomalous=True)
    assert (one.frames != other.frames).any()


def test_masks_mark_events_alone(toy, compositor):
    for seed in range(8):
        event = compositor.pair(toy[1][0], 10, seed=seed, anomalous=True)
        assert event.kinds and event.masks.any() and event.masks.max() <= len(event.kinds)
        plain = compositor.pair(toy[1][0], 10, seed=seed, anomalous=False)
        assert not plain.kinds and not plain.masks.any()
        assert (plain.frames != toy[1][0].read(10, 12)).any() or not plain.pasted


def test_pixels_away_from_the_pasted_stay_as_they_were(toy, compositor):
    made = compositor.pair(toy[2][0], 5, seed=2, anomalous=True)
    real = toy[2][0].read(5, 7)
    assert (made.frames == real).mean() > 0.5
    changed = (made.frames != real).any(-1)
    assert changed[made.masks > 0].mean() > 0.8     # an event is visible where its mask is


def test_a_pair_beyond_the_end_and_another_size_are_refused(toy, compositor):
    with pytest.raises(ParameterError, match=r"no pair \(39, 40\) in 40 frames"):
        compositor.pair(toy[0][0], 39, seed=0, anomalous=False)
    with pytest.raises(ParameterError, match="survey this camera on its own"):
        compositor.pair(ArrayFrames(np.zeros((9, 60, 60, 3), np.uint8), 10.0, "small"), 0, seed=0, anomalous=False)


def test_a_mixture_names_unknown_events():
    with pytest.raises(ParameterError, match=r"\['unicycle'\] are unknown.*bicycle"):
        Mixture(events=("unicycle",))
    with pytest.raises(ParameterError, match="second"):
        Mixture(second=2.0)


def square_stamp(level: float = 40.0) -> Stamp:
    alpha = np.zeros((12, 12), np.float32)
    alpha[4:8, 4:8] = 1
    return Stamp(10, 10, alpha[..., None] * level, alpha, np.zeros_like(alpha), 18.0, 9.0)


def test_a_stamp_larger_than_the_bank_of_noise_is_noisy_everywhere():
    alpha, frame = np.ones((600, 40), np.float32), np.full((600, 40, 1), 100, np.float32)
    stamp = Stamp(0, 0, alpha[..., None] * 40, alpha, np.zeros_like(alpha), 599.0, 9.0)
    paste(frame, stamp, hidden=np.zeros_like(alpha), look=Look(noise=3.0, blur=0.0, shadow=1.0), noise_at=(100, 500))
    assert all(2 < part.std() < 4 for part in np.array_split(frame, 6))


def test_who_stands_nearer_hides_a_stamp():
    look, frame = Look(noise=0.0, blur=0.0, shadow=1.0), np.full((40, 40, 1), 100, np.float32)
    hidden = np.zeros((40, 40), np.float32)
    hidden[:, :16] = 1
    visible = paste(frame, square_stamp(), hidden=hidden, look=look, noise_at=(0, 0))
    assert visible[:, :6].max() == 0 and visible[4:8, 6:8].min() == 1
    assert (frame[14:18, 14:16] == 100).all() and (frame[14:18, 16:18] == 40).all()


def test_the_point_spread_blurs_and_sharpens_differences():
    layer = np.zeros((21, 21, 1), np.float32)
    layer[8:13, 8:13] = -50
    soft = spread(layer.copy(), Look(blur=1.0))
    assert soft.sum() == pytest.approx(layer.sum(), rel=0.02) and np.abs(np.diff(soft[10, :, 0])).max() < 40
    halo = spread(layer.copy(), Look(blur=0.5, sharpen=0.8))
    assert halo.max() > 2 > spread(layer.copy(), Look(blur=0.5)).max()   # a bright rim around the dark


def test_tones_follow_the_quantiles_of_the_footage():
    rng = np.random.default_rng(0)
    table = tone_table(rng.uniform(20, 220, 4000), rng.normal(70, 12, 4000), ceiling=180)
    mapped = table[rng.uniform(20, 220, 4000).astype(int)]
    assert abs(np.median(mapped) - 70) < 4 and 6 < mapped.std() < 20
    assert (np.diff(table.astype(int)) >= 0).all() and table.max() <= 180


def test_cast_shadows_are_told_from_clothes():
    rng = np.random.default_rng(4)
    ground = np.full((80, 120, 3), 160, np.uint8)
    sunny, cloudy, mask = ground.copy(), ground.copy(), np.zeros((80, 120), np.uint8)
    for x in range(5, 110, 15):
        mask[20:50, x:x + 10] = 255
        sunny[20:35, x:x + 10] = 84                       # the shadow leaves 0.52 everywhere
        sunny[35:50, x:x + 10] = rng.integers(10, 250, (15, 10, 3))
        cloudy[20:50, x:x + 10] = 62 + 0.75 * x           # clothes of every shade
    level = shadow_level([sunny] * 2, [ground] * 2, [mask] * 2)
    assert level == pytest.approx(0.525, abs=0.03)
    assert shadow_level([cloudy] * 2, [ground] * 2, [mask] * 2) is None
    assert shadow_mask(sunny, ground, level)[22:33, 7:13].all() and not shadow_mask(ground, ground, level).any()


def test_blobs_know_their_feet():
    mask = np.zeros((30, 30), np.uint8)
    cv2.rectangle(mask, (4, 6), (9, 19), 255, -1)
    found, _, _ = blobs(mask)
    assert len(found) == 1 and found[0].foot == (7.0, 20.0) and (found[0].height, found[0].width) == (14, 6)


def test_the_sheet_is_a_grid_and_is_stored(toy, compositor, tmp_path):
    made = examples(compositor, [frames for frames, _ in toy], count=4, seed=1)
    with pytest.raises(DatasetError, match="no video holds two frames 40 apart"):
        examples(compositor, [frames for frames, _ in toy], gap=40)
    picture = sheet(made, columns=3, width=90)
    assert picture.shape == (2 * 60, 3 * 90, 3)
    assert (cv2.imread(str(save_sheet(tmp_path / "sheet.png", picture)))[..., ::-1] == picture).all()


def test_ped2_people_have_their_size():
    from tvad.datasets import open_dataset
    videos = open_dataset("ucsd_ped2", root=ped2_root()).videos("train")[:3]
    site = survey([video.frames for video in videos], samples=60)
    assert site.look.grey and site.look.cast is None
    # measured by hand: 26 pixels at row 120, 38 at row 225
    assert 23 < site.pixels_high(120) < 32 and 33 < site.pixels_high(225) < 48
    assert site.pace < 0.8      # the frames were taken faster than the rate that the literature gives
