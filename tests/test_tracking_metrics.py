"""HOTA, identity switches and entry and exit errors on cases worked out by hand, and HOTA against a slow twin."""
from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest

from tvad.metrics import GroundTruthTracks, MetricError
from tvad.metrics.region import box_iou
from tvad.metrics.tracking import ALPHAS, edge_errors, hota, identity_switches

HERE, THERE = (0, 0, 9, 9), (50, 0, 59, 9)


def table(*rows):
    """(track, frame, box) rows."""
    return GroundTruthTracks(track=[row[0] for row in rows], frame=[row[1] for row in rows],
                             box=np.array([row[2] for row in rows], float).reshape(-1, 4))


def steady(track, frames, box=HERE):
    return [(track, frame, box) for frame in frames]


def test_a_perfect_tracking_scores_one_whatever_the_ids():
    truth = table(*steady(1, range(4)), *steady(2, range(4), THERE))
    found = table(*steady(9, range(4)), *steady(3, range(4), THERE))
    result = hota({"v": found}, {"v": truth})
    assert (result.hota, result.detection, result.association) == pytest.approx((1, 1, 1))
    assert identity_switches(found, truth) == 0
    assert edge_errors(found, truth).within(0) == (1.0, 1.0)


def test_a_track_broken_in_the_middle():
    # DetA 1; each of the 4 hits has TPA 2, FNA 2, FPA 0: AssA 1/2, HOTA sqrt(1/2).
    truth, found = table(*steady(1, range(4))), table(*steady(7, (0, 1)), *steady(8, (2, 3)))
    result = hota({"v": found}, {"v": truth})
    assert (result.detection, result.association) == pytest.approx((1, 0.5))
    assert result.hota == pytest.approx(np.sqrt(0.5)) and result.by_alpha == pytest.approx(np.full(19, np.sqrt(0.5)))
    assert identity_switches(found, truth) == 1
    errors = edge_errors(found, truth)
    assert errors.found.tolist() in ([7], [8]) and errors.within(2) in ((1.0, 1.0),) and errors.within(1)[0] in (0.0, 1.0)


def test_two_targets_that_exchange_their_names_switch_twice():
    truth = table(*steady(1, range(6)), *steady(2, range(6), THERE))
    found = table(*steady(1, range(3)), *steady(2, range(3), THERE),
                  *steady(2, range(3, 6)), *steady(1, range(3, 6), THERE))
    assert identity_switches(found, truth) == 2
    # every hit: TPA 3, FNA 3, FPA 3
    assert hota({"v": found}, {"v": truth}).association == pytest.approx(1 / 3)


def test_boxes_that_overlap_by_half_count_up_to_their_iou():
    # 10x10 against 10x5 in it: IoU 0.5, a hit at the ten alphas up to 0.5, a miss and a false alarm beyond.
    truth, found = table(*steady(1, range(3))), table(*steady(1, range(3), (0, 0, 9, 4)))
    result = hota({"v": found}, {"v": truth})
    assert result.by_alpha == pytest.approx([1.0] * 10 + [0.0] * 9) and result.hota == pytest.approx(10 / 19)


def test_misses_false_alarms_and_gaps():
    # 3 of 4 true boxes found, 2 false: DetA 3 / 6; AssA 3 / 4, as the false boxes belong to another track.
    truth, found = table(*steady(1, range(4))), table(*steady(1, (0, 1, 3)), *steady(2, (2, 3), THERE))
    result = hota({"v": found}, {"v": truth})
    assert (result.detection, result.association) == pytest.approx((0.5, 0.75))
    assert identity_switches(found, truth) == 0  # the gap keeps its name
    # over two videos counts are summed: 3 + 4 hits of 6 + 4 boxes
    both = hota({"v": found, "w": truth}, {"v": truth, "w": truth})
    assert both.detection == pytest.approx(7 / 10) and both.association == pytest.approx((3 * 0.75 + 4) / 7)


def test_a_pair_is_kept_while_it_lasts():
    # A second found track fits better from frame 1 on; CLEAR MOT stays with the first while its IoU is enough.
    truth = table(*steady(1, range(4)))
    found = table(*steady(5, range(3), (0, 0, 9, 6)), *steady(6, range(1, 4)))
    assert identity_switches(found, truth) == 1  # at frame 3, when track 5 has gone


def test_entry_and_exit_errors_have_a_sign_and_know_a_missed_track():
    truth = table(*steady(1, range(10, 20)), *steady(2, range(5, 9), THERE), *steady(3, range(4), (90, 90, 99, 99)))
    found = table(*steady(4, range(8, 19)), *steady(6, range(5, 9), THERE))
    errors = edge_errors(found, truth)
    assert errors.track.tolist() == [1, 2, 3] and errors.found.tolist() == [4, 6, -1]
    assert errors.entry[:2].tolist() == [-2, 0] and errors.exit[:2].tolist() == [-1, 0] and np.isnan(errors.entry[2])
    assert errors.within(2) == pytest.approx((2 / 3, 2 / 3)) and errors.within(1) == pytest.approx((1 / 3, 2 / 3))


def slow_hota(found, truth):
    """One video, from the formulas, trying every assignment."""
    mine, its = np.unique(truth.track), np.unique(found.track)
    every = sorted(set(truth.frame) | set(found.frame))

    def boxes(tracks, frame):
        return {t: b for t, f, b in zip(tracks.track, tracks.frame, tracks.box) if f == frame}

    together = {(a, b): 0.0 for a in mine for b in its}
    for frame in every:
        ours, theirs = boxes(truth, frame), boxes(found, frame)
        for a in ours:
            for b in theirs:
                iou = float(box_iou(ours[a], theirs[b]))
                others = sum(float(box_iou(ours[a], x)) for x in theirs.values())
                others += sum(float(box_iou(x, theirs[b])) for x in ours.values())
                together[a, b] += iou / (others - iou) if iou else 0.0
    long = {a: (truth.track == a).sum() for a in mine}
    far = {b: (found.track == b).sum() for b in its}
    agree = {(a, b): together[a, b] / (long[a] + far[b] - together[a, b]) for a, b in together}
    values = []
    for alpha in ALPHAS:
        pairs, hits = {}, 0
        for frame in every:
            ours, theirs = boxes(truth, frame), boxes(found, frame)
            short, wide = sorted((list(ours), list(theirs)), key=len)
            best, chosen = -1.0, []
            for order in permutations(wide, len(short)):
                options = [(a, b) if short == list(ours) else (b, a) for a, b in zip(short, order)]
                total = sum(agree[a, b] * float(box_iou(ours[a], theirs[b])) for a, b in options)
                if total > best:
                    best, chosen = total, options
            for a, b in chosen:
                if box_iou(ours[a], theirs[b]) >= alpha - 1e-9:
                    pairs[a, b] = pairs.get((a, b), 0) + 1
                    hits += 1
        detection = hits / (len(truth) + len(found) - hits)
        association = sum(n * n / (long[a] + far[b] - n) for (a, b), n in pairs.items()) / max(hits, 1)
        values.append(np.sqrt(detection * association))
    return np.array(values)


@pytest.mark.parametrize("seed", range(4))
def test_hota_equals_the_slow_twin(seed):
    rng = np.random.default_rng(seed)
    tables = []
    for jitter in (0, 2):
        rows = []
        for track in range(3):
            for frame in range(7):
                if rng.random() < 0.8:
                    corner = np.array([12 * track + 2 * frame, 5]) + rng.integers(-jitter, jitter + 1, 2)
                    name = track if not jitter or frame < 4 else (track + 1) % 3
                    rows.append((name, frame, (*corner, *(corner + 10))))
        tables.append(table(*rows))
    truth, found = tables
    assert hota({"v": found}, {"v": truth}).by_alpha == pytest.approx(slow_hota(found, truth))


def test_nothing_found_and_bad_input_are_named():
    truth, none = table(*steady(1, range(3))), table()
    assert hota({"v": none}, {"v": truth}).hota == 0 and identity_switches(none, truth) == 0
    assert edge_errors(none, truth).within(100) == (0.0, 0.0)
    with pytest.raises(MetricError, match="HOTA is undefined: no box"):
        hota({"v": none}, {"v": none})
    with pytest.raises(MetricError, match="'w' is in truth alone"):
        hota({"v": truth}, {"v": truth, "w": truth})
    with pytest.raises(MetricError, match="v: track 1 has two boxes in frame 0"):
        hota({"v": table(*steady(1, (0, 0)))}, {"v": truth})
    with pytest.raises(MetricError, match="no true track"):
        edge_errors(truth, none).within(2)
