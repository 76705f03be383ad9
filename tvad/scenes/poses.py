"""Ordinary postures of a person as pure functions of a phase, a speed or a clock.

Angles are radians, lengths metres, ``clock`` seconds since the activity began, ``phase`` radians of the gait (one turn
is a stride of two steps).  ``style`` in 0..1 picks among variants of one activity.
"""

from __future__ import annotations

from math import cos, pi, sin, sqrt

from tvad.scenes.body import TAU, Body, Foot, Pose, Reach, Swing

WALK_DUTY, RUN_DUTY = 0.60, 0.33  # share of a stride that a foot spends on the ground


def smooth(x: float) -> float:
    """0 below 0, 1 above 1, a smooth step between."""
    x = min(1.0, max(0.0, x))
    return x * x * (3.0 - 2.0 * x)


def blend(a: float, b: float, share: float) -> float:
    return a + (b - a) * share


def stride(speed: float, height: float) -> float:
    """Length of a walking stride (two steps), metres; people lengthen and quicken their steps alike."""
    return height * (0.42 + 0.30 * min(speed, 2.4))


def running_stride(speed: float) -> float:
    return 0.70 * speed


def _foot(cycle: float, travel: float, lift: float, duty: float, side: float, toe: float) -> Foot:
    """An ankle at ``cycle`` in [0, 1): on the ground it goes backwards exactly as fast as the body goes forward.

    Towards the end of that the heel rises about the planted toe, ``toe`` metres in front of the ankle.
    """
    end = 0.95  # of the heel's rise, radians
    if cycle < duty:
        share = cycle / duty
        heel = max(0.0, share - 0.60) / 0.40
        raised = end * heel * heel
        return Foot(
            travel * (0.5 - share) + toe * (1.0 - cos(raised)),
            side,
            toe * sin(raised),
            0.35 * max(0.0, 1.0 - share / 0.15) - raised,
        )
    share = (cycle - duty) / (1.0 - duty)
    back = -0.5 * travel + toe * (1.0 - cos(end))
    return Foot(
        back + (0.5 * travel - back) * smooth(share),
        side,
        toe * sin(end) * (1.0 - share) ** 2 + lift * sin(pi * share),
        -end * (1.0 - share) + 0.35 * share,
    )


def walk(
    body: Body,
    phase: float,
    speed: float,
    *,
    brisk: float = 0.0,
    bag: bool = False,
    umbrella: bool = False,
    style: float = 0.5,
) -> Pose:
    """Walking; ``brisk`` 0..1 adds the lean, bent elbows and big arm swing of a person in a hurry."""
    h, leg = body.height, body.leg
    amount = min(1.0, speed / 0.5)
    travel = WALK_DUTY * stride(speed, h) * amount
    cycle = phase / TAU
    left, right = cycle % 1.0, (cycle + 0.5) % 1.0
    lift = 0.09 * amount
    side, toe = 0.050 * h, 0.105 * h * amount
    reach = min(0.30 * travel, 1.4 * leg)
    # The hips are lowest when both feet are on the ground and highest over the standing leg.
    pelvis = body.ankle + sqrt((1.985 * leg) ** 2 - reach * reach) - 0.018 * amount * cos(2.0 * phase)
    swing = (0.26 + 0.22 * min(speed, 2.2) / 1.3 + 0.15 * brisk) * amount * (0.75 + 0.5 * style)
    wave = cos(phase) * swing
    bend = 0.22 + 0.55 * brisk
    left_arm = Swing(-wave + 0.05, 0.12, bend + 0.25 * max(0.0, -wave))
    right_arm = Swing(wave + 0.05, 0.12, bend + 0.25 * max(0.0, wave))
    if bag:
        left_arm = Swing(-0.25 * wave + 0.02, 0.16, 0.06)
    if umbrella:
        right_arm = Reach(0.16, -0.10, 0.68 * h)
    return Pose(
        (0.0, 0.012 * sin(phase), pelvis),
        (_foot(left, travel, lift, WALK_DUTY, side, toe), _foot(right, travel, lift, WALK_DUTY, -side, toe)),
        (left_arm, right_arm),
        lean=0.04 + 0.02 * speed + 0.07 * brisk,
        twist=0.16 * cos(phase) * amount,
    )


def run(body: Body, phase: float, speed: float) -> Pose:
    """Running: leaning, elbows at a right angle, heels up behind and knees high in front, a flight between steps."""
    h, leg = body.height, body.leg
    cycle = phase / TAU
    travel = min(RUN_DUTY * running_stride(speed), 1.15)
    feet = []
    for way, turn in ((1.0, cycle % 1.0), (-1.0, (cycle + 0.5) % 1.0)):
        if turn < RUN_DUTY:
            share = turn / RUN_DUTY
            feet.append(
                Foot(travel * (0.5 - share), way * 0.03 * h, 0.10 * max(0.0, share - 0.6), -0.8 * max(0.0, share - 0.4))
            )
        else:
            share = (turn - RUN_DUTY) / (1.0 - RUN_DUTY)
            # Heel towards the seat first, then the knee comes up in front before the foot reaches out.
            rear, front = sin(pi * min(1.0, share / 0.62)), sin(pi * max(0.0, share - 0.30) / 0.70)
            feet.append(
                Foot(
                    travel * (smooth(share) - 0.5) - 0.16 * rear + 0.16 * front,
                    way * 0.03 * h,
                    0.30 * h * rear * (1.0 - 0.35 * share) + 0.16 * h * front,
                    -1.2 * rear + 0.2 * front,
                )
            )
    bounce = 0.045 * cos(2.0 * phase - 2.0 * TAU * RUN_DUTY / 2.0 + pi)
    wave = cos(phase)
    return Pose(
        (0.0, 0.0, body.ankle + 1.86 * leg + bounce),
        (feet[0], feet[1]),
        (Swing(-1.0 * wave - 0.05, 0.16, 1.55), Swing(1.0 * wave - 0.05, 0.16, 1.55)),
        lean=0.26 + 0.03 * max(0.0, speed - 3.5),
        twist=0.30 * wave,
        nod=-0.12,
    )


def stand(body: Body, clock: float, style: float, *, bag: bool = False, umbrella: bool = False) -> Pose:
    """Standing about: arms down, folded, a telephone, a hand on the hip, hands in pockets."""
    h, leg = body.height, body.leg
    sway = 0.02 * sin(0.9 * clock + 6.0 * style)
    arms = (Swing(0.02, 0.10, 0.15), Swing(0.04, 0.10, 0.18))
    nod, look = 0.0, 0.7 * sin(0.37 * clock + 9.0 * style) * abs(sin(0.21 * clock))
    if umbrella:
        arms = (arms[0], Reach(0.16, -0.10, 0.68 * h))
    elif bag:
        arms = (Swing(0.02, 0.14, 0.05), arms[1])
    elif style < 0.22:
        arms, nod, look = (Swing(0.02, 0.1, 0.15), Reach(0.24, -0.06, 0.70 * h)), 0.35, 0.1 * look  # reads a phone
    elif style < 0.34:
        arms = (Swing(0.02, 0.1, 0.15), Reach(0.10, -0.09, 0.90 * h, (0.0, -0.8, -0.6)))  # on the phone
    elif style < 0.50:
        arms = (Reach(0.15, -0.10, 0.65 * h), Reach(0.18, 0.08, 0.66 * h))  # arms folded
    elif style < 0.62:
        arms = (Swing(0.02, 0.1, 0.15), Reach(0.02, -0.13, 0.56 * h, (-0.2, -1.0, 0.0)))  # hand on hip
    return Pose(
        (0.0, sway, body.ankle + 1.985 * leg),
        (Foot(0.02, 0.055 * h, 0.0), Foot(-0.03, -0.055 * h, 0.0)),
        arms,
        lean=0.02,
        side=0.5 * sway,
        nod=nod,
        look=look,
    )


def talk(body: Body, clock: float, style: float, *, bag: bool = False) -> Pose:
    """Standing in talk: the hands come up lightly in turns, the head nods and turns."""
    h = body.height
    pose = stand(body, clock, 0.62 + 0.38 * style, bag=bag)
    turn = sin(0.55 * clock + 20.0 * style)
    lively = smooth((turn - 0.1) / 0.4)
    hand = Reach(
        0.20 + 0.10 * lively * sin(4.2 * clock), -0.16, (0.52 + 0.14 * lively + 0.03 * lively * sin(5.1 * clock)) * h
    )
    right = hand if lively > 0.02 else pose.arms[1]
    left = pose.arms[0]
    if style > 0.55 and lively > 0.5 and not bag:
        left = Reach(0.22, 0.17, (0.60 + 0.03 * sin(4.6 * clock + 1.0)) * h)
    return pose._replace(
        arms=(left, right), look=0.45 * sin(0.4 * clock + 11.0 * style), nod=0.10 * lively * sin(3.0 * clock)
    )


def sit(body: Body, clock: float, style: float) -> Pose:
    """Sitting on a seat 0.45 m high whose front edge is at the ground point."""
    h, leg = body.height, body.leg
    fidget = 0.02 * sin(0.6 * clock + 5.0 * style)
    hands = 0.47 + 0.10 * h
    arms = (Reach(0.16, 0.10, hands), Reach(0.16, -0.08, hands))
    nod, lean = 0.05, 0.02 + fidget
    if style < 0.45:
        arms, nod = (Reach(0.18, 0.04, hands + 0.16), Reach(0.18, -0.04, hands + 0.17)), 0.45
    elif style < 0.65:
        arms, lean = (Reach(0.22, 0.12, 0.62), Reach(0.22, -0.12, 0.62)), 0.42
    return Pose(
        (-0.14, 0.0, 0.45 + 0.055 * h),
        (Foot(leg - 0.10, 0.07 * h), Foot(leg - 0.02 - 0.1 * style, -0.07 * h)),
        arms,
        lean=lean,
        nod=nod,
        look=0.6 * sin(0.3 * clock + 8.0 * style),
    )


def stoop(
    body: Body, depth: float, *, hand: Reach | None = None, bag: tuple[float, float, float] | None = None
) -> Pose:
    """Bending down to the ground with bent knees; ``depth`` 0 (upright) to 1 (the left hand at the ground)."""
    h, leg = body.height, body.leg
    left = Swing(0.9 * depth, 0.15, 0.06) if hand is None else hand
    return Pose(
        (-0.16 * depth, 0.0, body.ankle + (1.985 - 0.62 * depth) * leg),
        (Foot(0.06, 0.06 * h), Foot(-0.10, -0.06 * h)),
        (left, Swing(0.35 * depth, 0.12, 0.4 * depth + 0.15)),
        lean=1.15 * depth,
        nod=-0.35 * depth,
        bag=bag,
    )


def handle_bag(body: Body, clock: float, *, length: float = 1.6, down: bool = True) -> Pose:
    """Putting a bag down (or, ``down`` False, picking it up): down and up again within ``length`` seconds."""
    share = min(1.0, clock / length)
    depth = smooth(share / 0.45) * (1.0 - smooth((share - 0.55) / 0.45))
    spot = (0.30, 0.14, 0.14)
    on_ground = (share > 0.5) == down
    near = smooth(depth / 0.9)
    hand = Reach(
        blend(0.05, spot[0], near), blend(0.22, spot[1], near), blend(0.46 * body.height, spot[2] + 0.16, near)
    )
    return stoop(body, depth, hand=hand, bag=spot if on_ground else None)


def beside_bag(body: Body, clock: float, style: float) -> Pose:
    """Standing beside the bag that has been put down."""
    return stand(body, clock, style)._replace(bag=(0.30, 0.14, 0.14))


def push(body: Body, phase: float, speed: float, *, handle: tuple[float, float], lean: float = 0.16) -> Pose:
    """Walking with both hands on a bar at (forward, up) metres."""
    reach_left, reach_right = Reach(handle[0], 0.20, handle[1]), Reach(handle[0], -0.20, handle[1])
    return walk(body, phase, speed)._replace(arms=(reach_left, reach_right), lean=lean, twist=0.0)
