"""Whole held-out clips: how they are composed, and what is chosen on them."""
from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from composite_footage import toy_footage
from training_fakes import fake_model, toy_clips

import tvad.training.adapt.run as run
from tvad.adaptation.detector import AdaptedDetector
from tvad.adaptation.evidence import Calibration, Fusion, Levels, blurred, squash
from tvad.detection import Scoring, top_mean
from tvad.errors import ParameterError
from tvad.metrics.frame import micro_auc, smooth
from tvad.scenes.composite import crowd
from tvad.scenes.composite.compose import ORDINARY_ALONE, Compositor
from tvad.scenes.composite.survey import survey
from tvad.training.adapt import AdaptConfig, adapt
from tvad.training.adapt.assembly import Assembly, judged, settled
from tvad.training.adapt.clips import Watched, choose, watch, windows
from tvad.training.adapt.pairs import Stretch
from tvad.video.frames import ArrayFrames

FLAT = Levels(np.zeros((6, 9), np.float32), np.ones((6, 9), np.float32))
SMALL = AdaptConfig(steps=2, batch_size=8, validate_every=2, composites=12, normal=8, rehearsal=0, val_composites=10,
                    val_normal=8, patches_per_pair=16, zooms=(1.0,), clips=8)


@pytest.fixture(scope="module")
def footage():
    return toy_footage("walk", frames=60, people=5)[0]


@pytest.fixture(scope="module")
def compositor(footage):
    return Compositor(survey([footage], samples=60))


def detector(**fusion):
    model = fake_model()
    scale = Calibration({"heat@2": FLAT}, zero=2.0, unit=0.5, frame=0.6)
    return AdaptedDetector(model.backbone, model.decoder, model.prototypes, scale,
                           Fusion("none", 0.0, **{"gaps": (2,), **fusion}), scoring=Scoring(top_fraction=0.02, sigma=3.0))


def stretch(count, start=0, stop=None, fps=10.0):
    return Stretch(ArrayFrames(np.zeros((count, 4, 6, 3), np.uint8), fps, f"part{count}"), start, stop or count)


def watched(kinds, *, seed=0, pairs=60, flicker=2.0):
    """Clips whose event warms a quarter of the map in the middle third."""
    rng, found = np.random.default_rng(seed), []
    for kind in kinds:
        labels, masks = np.zeros(pairs, np.uint8), np.zeros((pairs, 12, 18), bool)
        if kind not in ("", ORDINARY_ALONE):
            labels[pairs // 3: 2 * pairs // 3] = 1
            masks[labels > 0, 2:8, 4:12] = True
        heat = masks[:, ::2, ::2] * 1.5
        parts = {"heat@2": (heat + rng.normal(0, flicker, heat.shape)).astype(np.float32)}
        found.append(Watched(kind, parts, labels, masks[::3].astype(np.uint8)))
    return found


KINDS = ("", ORDINARY_ALONE, "running", "car") * 2


def test_windows_are_spread_over_what_has_room():
    assert windows([stretch(17)], 4, reach=2, pace=1.0) == [] == windows([], 4, reach=2, pace=1.0)
    one = windows([stretch(40, 10)], 4, reach=2, pace=1.0)
    assert len(one) == 1 and one[0].starts[0] == 10 and one[0].starts[-1] + 2 < 40
    long = windows([stretch(4000)], 3, reach=2, pace=1.0)        # an hour's share: three windows of 15 seconds
    assert [each.starts[0] for each in long] == [0, 1924, 3848] and {len(each.starts) for each in long} == {75}
    fast = windows([stretch(4000, fps=30.0)], 1, reach=2, pace=0.5)[0]      # pairs as near as in detection, for less long
    assert len(fast.starts) == 90 and set(np.diff(fast.starts)) == {2}
    many = windows([stretch(40 + number) for number in range(9)], 3, reach=1, pace=1.0)
    assert [len(each.part.frames) for each in many] == [40, 44, 48]
    mixed = [*(stretch(400) for _ in range(3)), *(stretch(20) for _ in range(20))]       # short ones take nobody's place
    assert [len(each.part.frames) for each in windows(mixed, 4, reach=2, pace=1.0)] == [400] * 4


def test_a_clip_shows_people_who_go_on_walking(compositor, footage):
    places = list(range(0, 60, 2))
    bare = compositor.clip(footage, places, seed=3, kind="")
    np.testing.assert_array_equal(bare.frames, footage.take(places))
    assert not bare.labels.any() and not bare.masks.any()
    alone = compositor.clip(footage, places, seed=3, kind=ORDINARY_ALONE)
    assert not alone.masks.any() and not alone.labels.any()
    changed = (np.abs(alone.frames.astype(int) - bare.frames) > 25).any(-1)
    assert (changed.sum((1, 2)) > 20).mean() > 0.7 and (changed[0] ^ changed[5]).any()
    again = compositor.clip(footage, places, seed=3, kind=ORDINARY_ALONE)
    np.testing.assert_array_equal(alone.frames, again.frames)


def test_an_unknown_kind_is_refused(compositor, footage):
    with pytest.raises(ParameterError, match="event 'flying' is unknown; give one of car, bicycle"):
        compositor.clip(footage, [0, 2], seed=0, kind="flying")


def test_an_event_is_labelled_where_it_is_seen(compositor, footage):
    shares = []
    for seed in range(6):
        clip = compositor.clip(footage, list(range(0, 60, 2)), seed=seed, kind="bicycle")
        seen = (clip.masks > 0).sum((1, 2)) >= 24 * 120 * 180 / (240 * 360)
        np.testing.assert_array_equal(clip.labels, seen)
        shares.append(clip.labels.mean())
    assert 0.1 < np.mean(shares) < 0.95 and max(shares) > 0.2


def test_a_scene_whose_event_finds_no_place_has_ordinary_people_alone(compositor, monkeypatch):
    def none(*_):
        raise ValueError("no path is in view")
    monkeypatch.setattr(crowd, "_MAKERS", {"running": none})
    cast = crowd.scene(compositor.site, np.random.default_rng(2), kind="running", duration=5.0, people=1.5)
    assert cast and {kind for _, kind in cast} == {""}


def test_what_a_detector_saw_lies_beside_what_was_shown(compositor, footage):
    own, shown = detector(gaps=(2, 3)), {}

    def beside(pairs):
        return np.concatenate(list(np.moveaxis(np.asarray(pairs, np.float32).sum(-1), 1, 0)), axis=-1)

    def clip(frames, places, *, seed, kind):
        made = inner(frames, places, seed=seed, kind=kind)
        shown[seed] = dict(zip(places, zip(made.frames, made.masks)))
        return made

    inner, one = compositor.clip, Compositor(compositor.site)
    one.clip, own.parts = clip, lambda pairs, *, fps, gap: {f"heat@{gap}": beside(pairs)}
    part = Stretch(footage, 9, 60)
    clips = watch(own, one, parts=[part], count=6, progress=False)
    starts = windows([part], 1, reach=3, pace=1.0)[0].starts
    assert [each.kind for each in clips[:2]] == ["", ORDINARY_ALONE] and len({each.kind for each in clips}) == 6
    for each, pictures in zip(clips, shown.values()):
        for gap in (2, 3):
            wanted = [[pictures[start][0], pictures[start + gap][0]] for start in starts]
            np.testing.assert_array_equal(each.parts[f"heat@{gap}"], beside(wanted))
        np.testing.assert_array_equal(each.masks, [pictures[start][1] > 0 for start in starts[::3]])
        assert len(each.labels) == len(starts)
    assert any(each.labels.any() for each in clips)
    assert watch(own, one, parts=[Stretch(footage, 0, 12)], count=6, progress=False) == []


def test_smoothing_is_what_ranks_clips_best():
    clips, own = watched(KINDS), detector()
    found = choose(clips, own)
    assert found.sigma > 0 and found.blur[0] > 0
    raw = [squash(top_mean(clip.parts["heat@2"], 0.02), own.calibration) for clip in clips]
    labels = [clip.labels for clip in clips]
    reached = {sigma: micro_auc(smooth(raw, sigma / 2), labels) for sigma in (0.0, found.sigma)}    # pairs, two frames each
    assert reached[found.sigma] > reached[0.0]
    assert found.figures["micro_auc"][f"{found.sigma:g}"] == round(reached[found.sigma], 4)
    assert found.figures["clips"] == 8 and found.figures["positive_rate"] == pytest.approx(1 / 6, abs=1e-3)
    # at three times the rate the same time is three times as many pairs
    assert {"1, 0", "3, 0", "4.5, 0.7"} < set(choose(clips, own, fps=30.0).figures["pixel_auroc"])
    assert list(found.figures["pixel_auroc"]) == ["0, 0", "0, 0.7", "1, 0", "1, 0.7", "1.5, 0.7"]


def test_what_gains_nothing_is_not_taken():
    clips = watched(KINDS, flicker=0.02)        # a perfect detector
    found = choose(clips, detector())
    assert (found.sigma, found.blur) == (0.0, (0.0, 0.0))
    assert choose([], detector()) is None
    assert choose(watched(("", ORDINARY_ALONE)), detector()) is None
    brief = [replace(clip, masks=0 * clip.masks) for clip in watched(KINDS)]        # seen between the masks that are kept
    found = choose(brief, detector())
    assert found.sigma > 0 and found.blur == (0.0, 0.0) and not found.figures["pixel_auroc"]


def test_the_detector_takes_what_was_chosen_on_a_scale_of_its_own(tmp_path):
    own, clips = detector(), watched(KINDS)
    made = Assembly(own, {}, {"heat": own})
    found = json.loads(json.dumps(judged(made, clips, fps=10.0, tempo=1.0)))
    after = settled(made, found)
    assert after.plain is own and after.detector.fusion.blur == after.choices["heat"].fusion.blur == tuple(found["blur"])
    assert after.detector.scoring.sigma == found["sigma"] and after.detector.fingerprint != own.fingerprint
    bare = [clip.parts["heat@2"] for clip in clips if not clip.kind]
    steady = [blurred(maps, tuple(found["blur"])) for maps in bare]
    spread = [np.diff(np.quantile(np.concatenate(maps), (0.5, 0.999)))[0] for maps in (bare, steady)]
    scale, heat = after.detector.calibration, after.detector.calibration.of_heat(after.detector.fusion.blur)
    assert (scale.zero, scale.unit, scale.frame) == (2.0, 0.5, 0.6)     # scores are those of maps that are not smoothed
    assert heat.unit == pytest.approx(0.5 * spread[1] / spread[0], rel=1e-4) and heat.unit < 0.4
    middles = [np.median(np.concatenate(maps)) for maps in (bare, steady)]
    assert heat.zero - 2 * heat.unit == pytest.approx(1.0 + middles[1] - middles[0])
    assert scale.of_heat((0.0, 0.0)) is scale
    loaded = Calibration.load(scale.save(tmp_path / "levels.safetensors"))
    assert loaded.steady == pytest.approx(scale.steady)
    assert settled(made, {}).detector is own and judged(made, [], fps=10.0, tempo=1.0) == {}


@pytest.mark.parametrize("flicker", [1.0, 2.0, 4.0])
def test_clips_busier_than_the_pairs_do_not_make_everything_an_alarm(flicker):
    rng = np.random.default_rng(3)
    pairs = rng.normal(0, 1, (300, 6, 9)).astype(np.float32)
    zero = float(np.quantile(pairs, 0.999))
    own = replace(detector(), calibration=Calibration({"heat@2": FLAT}, zero=zero, unit=0.5 * zero, frame=0.9))
    made = Assembly(own, {}, {})
    after = settled(made, judged(made, watched(KINDS, flicker=flicker), fps=10.0, tempo=1.0))
    blur = after.detector.fusion.blur
    assert any(blur)
    calm = squash(blurred(pairs, blur), after.detector.calibration.of_heat(blur))
    assert (calm > 0.5).mean() < 0.02 and np.median(calm) < 0.25


def test_smoothing_is_chosen_on_scores_as_the_detector_makes_them():
    clips, own = watched(KINDS, seed=1), detector()
    for clip in clips:      # a few pairs that burn: squashed, they weigh no more than others
        hot = np.random.default_rng(len(clip.kind)).random(60) < 0.04
        clip.parts["heat@2"][hot] += 40
    found = choose(clips, own)
    scores = [squash(top_mean(clip.parts["heat@2"], 0.02), own.calibration) for clip in clips]
    reached = micro_auc(smooth(scores, found.sigma / 2), [clip.labels for clip in clips])
    assert found.figures["micro_auc"][f"{found.sigma:g}"] == round(reached, 4)


def test_heatmaps_are_smoothed_and_scores_are_not():
    clip = toy_clips()[3]
    plain, smoothed = detector(), detector(blur=(1.0, 0.7))
    one, other = plain.detect(clip), smoothed.detect(clip)
    np.testing.assert_array_equal(one.raw_scores, other.raw_scores)
    odds = np.concatenate([plain.parts(clip.take([min(start, 17), min(start, 17) + 2])[None], gap=2)["heat@2"]
                           for start in range(0, 20, 2)])
    np.testing.assert_allclose(other.heatmap[::2], squash(blurred(odds, (1.0, 0.7)), smoothed.calibration), atol=2e-3)
    steady = replace(smoothed, calibration=replace(smoothed.calibration, steady=(1.0, 0.25)))
    np.testing.assert_array_equal(steady.detect(clip).raw_scores, one.raw_scores)
    np.testing.assert_allclose(steady.detect(clip).heatmap[::2],
                               squash(blurred(odds, (1.0, 0.7)), Calibration({}, zero=1.0, unit=0.25)), atol=2e-3)
    assert np.abs(np.diff(other.heatmap[::2], axis=0)).mean() < np.abs(np.diff(one.heatmap[::2], axis=0)).mean()
    for wrong in ((1.0,), (-1.0, 0.0), (float("nan"), 0.0)):
        with pytest.raises(ParameterError, match="blur .* must be two numbers from 0"):
            Fusion(blur=wrong)


def test_an_adaptation_watches_once_and_says_what_it_chose(tmp_path, monkeypatch):
    model, calls = fake_model(), []
    monkeypatch.setattr(run, "watch", lambda *args, **known: calls.append(1) or watch(*args, **known))

    def make(config):
        return adapt(model, toy_clips(), output_dir=tmp_path / "out", config=config, cache_dir=tmp_path / "cache",
                     progress=False)

    first, second = make(SMALL), make(SMALL)
    assert calls == [1] and second.detector.fingerprint == first.detector.fingerprint
    found = first.report["clips"]
    assert set(found) == {"sigma", "blur", "figures"}
    assert found["figures"]["clips"] == 8 and first.detector.fusion.blur == tuple(found["blur"])
    assert first.detector.scoring.sigma == found["sigma"]
    assert "8 whole held-out clips" in (tmp_path / "out" / "report.txt").read_text()
    loaded = AdaptedDetector.load(tmp_path / "out", model.backbone, prototypes=model.prototypes)
    assert loaded.fusion == first.detector.fusion
    without = make(replace(SMALL, clips=0))
    assert calls == [1] and without.detector.fingerprint == first.plain.fingerprint and not without.report["clips"]
    assert "say nothing of smoothing (none were asked for)" in (tmp_path / "out" / "report.txt").read_text()
    banked = make(replace(SMALL, oneclass=True))        # other choices of evidence, the same training
    assert calls == [1, 1] and "oneclass alone" in banked.choices and banked.report["key"] == without.report["key"]
