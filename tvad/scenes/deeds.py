"""Postures of the events: loitering, falling, jumping, throwing, fighting, riding a board.

Pure functions like those of :mod:`tvad.scenes.poses`; ``clock`` is seconds since the activity began, ``style`` in 0..1
picks among variants.
"""

from __future__ import annotations

from math import cos, exp, pi, sin

from tvad.scenes.body import Body, Foot, Pose, Reach, Swing
from tvad.scenes.poses import blend, smooth, walk


def pace(body: Body, phase: float, speed: float, clock: float, style: float, *, peer: float = 0.0) -> Pose:
    """Loitering: round back, head low and turning, hands in pockets or behind; ``peer`` 0..1 bends to look closely."""
    h, leg = body.height, body.leg
    if style < 0.5:
        arms = (
            Reach(0.03, 0.13, 0.54 * h, (-1.0, 0.5, 0.0)),
            Reach(0.03, -0.13, 0.54 * h, (-1.0, -0.5, 0.0)),
        )  # pockets
    else:
        arms = (
            Reach(-0.22, 0.02, 0.54 * h, (-0.4, 1.0, 0.0)),
            Reach(-0.22, -0.02, 0.56 * h, (-0.4, -1.0, 0.0)),
        )  # behind
    pose = walk(body, phase, speed)
    look = 1.05 * sin(1.1 * clock + 7.0 * style) * (1.0 - 0.7 * peer)
    lean = 0.40 + 0.68 * peer
    f, left, u = pose.pelvis
    if peer > 0.3:
        shadow = Reach(0.30, -0.12, 0.62 * h, (0.0, -1.0, -0.4))
        arms = (Reach(0.20, 0.14, 0.34 * h), shadow)  # a hand on the knee, one held to the brow
    return pose._replace(
        pelvis=(f - 0.08 - 0.14 * peer, left, u - (0.03 + 0.10 * peer) * 2 * leg),
        arms=arms,
        lean=lean,
        nod=0.32 - 0.27 * peer,
        look=look,
        twist=0.0,
    )


def stumble_and_fall(body: Body, clock: float, *, phase: float, speed: float, rise: float, way: float) -> Pose:
    """A fall, ``clock`` seconds after the stumble; ``rise``: when getting up begins; ``way``: direction of the fall."""
    h, leg = body.height, body.leg
    trip = smooth(clock / 0.35)
    topple = min(1.0, max(0.0, clock - 0.30) / 0.60)
    tilt = 1.50 * topple * topple
    up = smooth((clock - rise) / 1.6)
    flail = sin(14.0 * clock) * exp(-0.8 * clock) * (1.0 - topple)
    flat = topple * topple
    arms = (
        Swing(blend(1.9 * trip + 0.5 * flail, 2.5, flat), blend(0.6, 0.9, flat), 0.5),
        Swing(blend(2.2 * trip - 0.5 * flail, 0.15, flat), blend(0.7, 0.75, flat), 0.3),
    )
    rest = 0.06 * sin(1.3 * clock) * topple
    pelvis = (0.06 * trip * (1.0 - flat), 0.0, body.ankle + (1.985 - 0.18 * trip * (1.0 - 0.5 * flat)) * leg)
    feet = (
        Foot(blend(0.28 * trip + 0.05, 0.02, flat), 0.09 * h, 0.05 * trip),
        Foot(blend(-0.30 * trip, -0.03, flat), -0.10 * h, blend(0.22, 0.12, flat) * trip),
    )
    if up <= 0.0:
        return Pose(
            pelvis, feet, arms, lean=0.65 * trip * (1.0 - flat), tilt=tilt, tilt_way=way, look=0.5 * trip + rest
        )
    # Up again through hands and knees: the topple unwinds while hips and knees are deeply bent.
    bent = sin(pi * up)
    low = (pelvis[0] - 0.10 * bent, 0.0, body.ankle + (1.80 + 0.185 * up - 0.75 * bent) * leg)
    return Pose(
        low,
        (Foot(0.10 + 0.2 * bent, 0.08 * h), Foot(-0.2 * (1 - up) - 0.05, -0.08 * h, 0.15 * (1 - up))),
        (Swing(blend(2.5, 0.1, up), 0.9 - 0.8 * up, 0.4), Swing(0.15 + 0.9 * bent, 0.75 - 0.65 * up, 0.3)),
        lean=0.9 * bent,
        tilt=1.50 * (1.0 - smooth(up / 0.7)),
        tilt_way=way,
    )


JUMP_CYCLE = 0.95  # seconds from one take-off to the next


def jump(body: Body, clock: float, style: float, *, height: float = 0.42) -> Pose:
    """Repeated jumps with both feet: crouch, flight with the arms up, landing; ``style`` above 0.6: star jumps."""
    h, leg = body.height, body.leg
    share = (clock % JUMP_CYCLE) / JUMP_CYCLE
    flight = max(0.0, min(1.0, (share - 0.36) / 0.56))
    air = 4.0 * flight * (1.0 - flight)
    crouch = sin(pi * min(1.0, share / 0.36)) if share < 0.36 else max(0.0, (share - 0.92) / 0.08) * 0.3
    star = style > 0.6
    raised = smooth((share - 0.18) / 0.22) * (1.0 - smooth((share - 0.80) / 0.2))
    spread = (0.06 + (0.16 * air if star else 0.0)) * h
    tuck = 0.0 if star else 0.34 * air * leg
    arm = Swing(blend(-0.7 * crouch, 2.75, raised), blend(0.15, 0.35, raised), 0.25)
    arms = (arm, arm)
    if star:
        arms = (Swing(0.0, blend(0.15, 2.35, raised), 0.1), Swing(0.0, blend(0.15, 2.35, raised), 0.1))
    return Pose(
        (-0.12 * crouch, 0.0, body.ankle + (1.985 - 0.75 * crouch) * leg),
        (Foot(-0.3 * tuck, spread, tuck, -0.4 * air), Foot(-0.3 * tuck, -spread, tuck, -0.4 * air)),
        arms,
        lean=0.7 * crouch + 0.04,
        nod=-0.3 * crouch,
        lift=height * air,
    )


THROW_LENGTH = 1.35  # seconds from wind-up to the end of the follow-through
RELEASE = 0.72  # when the thing leaves the hand


def throw(body: Body, clock: float, *, overarm: bool) -> Pose:
    """Wind-up, throw with the right arm and follow-through."""
    h, leg = body.height, body.leg
    back = smooth(clock / 0.45) * (1.0 - smooth((clock - 0.56) / 0.20))
    forth = smooth((clock - 0.56) / 0.20) * (1.0 - smooth((clock - 0.95) / 0.40))
    if overarm:
        pitch = 3.55 * back + 1.45 * forth
        right = Swing(pitch, 0.45 * back + 0.1, 1.25 * back + 0.12)
        lean, twist = -0.34 * back + 0.50 * forth, -0.9 * back + 0.7 * forth
        left = Swing(1.45 * back - 0.5 * forth, 0.25, 0.15)
        rear = -0.12 * back + 0.10 * forth
    else:
        right = Swing(-1.45 * back + 2.1 * forth, 0.12, 0.08)
        left = Swing(0.6 * back - 0.6 * forth, 0.45, 0.3)
        lean, twist, rear = 0.55 * back + 0.05 * forth, -0.5 * back + 0.4 * forth, -0.05 * back + 0.06 * forth
    step = smooth(clock / 0.6) * (1.0 - smooth((clock - 1.0) / 0.35))
    lift = 0.16 * sin(pi * min(1.0, max(0.0, clock - 0.30) / 0.36)) if clock < 0.66 else 0.0
    return Pose(
        (rear, 0.0, body.ankle + (1.985 - 0.12 * step) * leg),
        (Foot(0.34 * step, 0.06 * h, lift), Foot(-0.30 * step, -0.06 * h, 0.04 * forth, -0.6 * forth)),
        (left, right),
        lean=lean,
        twist=twist,
        nod=-0.5 * lean,
    )


FIGHT_BEAT = 0.62  # seconds a blow


def fight(body: Body, clock: float, style: float) -> Pose:
    """A brawl: big swinging blows, shoves and kicks in an order that ``style`` decides, leaning and shifting about."""
    h, leg = body.height, body.leg
    beat = clock / FIGHT_BEAT + 3.0 * style
    index, share = int(beat), beat % 1.0
    act = int((sin(12.9898 * index + 78.233 * style) * 43758.5453) % 1.0 * 6.0)
    blow = sin(pi * min(1.0, share / 0.7)) ** 1.5 if share < 0.7 else 0.0
    wind = sin(pi * min(1.0, share / 0.3)) if share < 0.3 else 0.0
    sway = 0.10 * sin(2.3 * clock + 9.0 * style)
    guard_left, guard_right = Reach(0.26, 0.12, 0.78 * h), Reach(0.20, -0.12, 0.76 * h)
    left_foot, right_foot = (
        Foot(0.24, 0.08 * h, 0.04 * abs(sin(4 * clock))),
        Foot(-0.24, -0.09 * h, 0.04 * abs(cos(4 * clock))),
    )
    lean, twist, side, crouch = 0.26 + sway, 0.0, 0.0, 0.10
    left: Swing | Reach = guard_left
    right: Swing | Reach = guard_right
    if act == 0:  # straight right
        right, twist, lean = (
            Reach(0.15 + 0.55 * blow - 0.25 * wind, -0.08, 0.80 * h),
            0.7 * blow - 0.4 * wind,
            0.28 + 0.22 * blow,
        )
    elif act == 1:  # straight left
        left, twist, lean = Reach(0.20 + 0.50 * blow - 0.25 * wind, 0.05, 0.82 * h), -0.7 * blow, 0.26 + 0.20 * blow
    elif act == 2:  # wide swing from above
        right, twist, lean = (
            Swing(blend(3.3, 1.1, smooth(share / 0.55)), 0.7 * (1 - share), 0.3),
            0.9 * share - 0.4,
            0.1 + 0.45 * blow,
        )
    elif act == 3:  # kick
        right_foot = Foot(-0.24 + 0.95 * blow, -0.05 * h, 0.52 * h * blow * 0.9, 0.5 * blow)
        lean, left, right = 0.10 - 0.42 * blow, Swing(0.3, 0.9 * blow + 0.2, 0.6), Swing(-0.4, 0.8 * blow + 0.2, 0.5)
    elif act == 4:  # shove with both hands
        left, right = Reach(0.22 + 0.42 * blow, 0.15, 0.74 * h), Reach(0.22 + 0.42 * blow, -0.15, 0.74 * h)
        lean = 0.20 + 0.38 * blow
    else:  # ducks away
        lean, side, crouch = 0.15 - 0.45 * blow, 0.35 * blow, 0.10 + 0.35 * blow
        left, right = Reach(0.22, 0.10, 0.86 * h), Reach(0.2, -0.10, 0.88 * h)
    return Pose(
        (sway, 0.0, body.ankle + (1.93 - crouch) * leg),
        (left_foot, right_foot),
        (left, right),
        lean=lean,
        twist=twist,
        side=side,
        nod=0.1,
    )


def glide(body: Body, clock: float, style: float, *, push: float = 0.0, phase: float = 0.0) -> Pose:
    """On a skateboard (deck 0.1 m up), side-on with bent knees and arms out; ``push`` 0..1 turns forward to kick."""
    leg = body.leg
    way = 1.0 if style < 0.5 else -1.0  # which foot leads
    balance = 0.12 * sin(1.9 * clock + 6.0 * style)
    deck = 0.105
    yaw = way * 1.30 * (1.0 - push)
    # In the body's frame, along the board lies at the angle -yaw.
    cf, cl = cos(-yaw), sin(-yaw)
    front, rear = 0.24, -0.24
    feet = [Foot(front * cf, front * cl, deck), Foot(rear * cf, rear * cl, deck)]
    if push > 0.0:
        kick = 0.35 * cos(phase)
        feet[1] = Foot(
            blend(rear, kick, push) * cf,
            blend(rear, kick, push) * cl - 0.16 * push * way,
            deck * (1 - push) + 0.10 * push * max(0.0, sin(phase)),
        )
    if way > 0:
        # Turned left, the left foot would be at the board's tail, so the trunk's left is the rear of travel.
        feet = [feet[1], feet[0]]
    crouch = 0.24 + 0.34 * ((7.0 * style) % 1.0) + 0.06 * sin(1.1 * clock)
    out = 0.40 + 0.60 * ((13.0 * style) % 1.0) * (1.0 - 0.5 * push)
    arms = (Swing(0.25 + balance, out + balance, 0.5), Swing(0.10 - balance, 0.7 * out - balance, 0.35))
    return Pose(
        (-0.05, 0.0, body.ankle + deck + (1.97 - crouch) * leg),
        (feet[0], feet[1]),
        arms,
        lean=0.26 + 0.12 * push,
        side=0.4 * balance,
        yaw=yaw,
        look=-yaw * 0.95,
    )
