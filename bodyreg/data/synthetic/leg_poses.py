"""Legs and trunk of squats, lunges, sitting, kneeling, kicks, splits: what motion capture of walking people lacks.

A leg is described against the vertical, not against the pelvis, so that feet stand flat and trunks balance: how far the
thigh is raised forward, how far the shank leans forward, how far the leg is spread and opened. Angles are for the left
leg; the right one is the mirror image.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from priors.rotations import aa_from_matrix, matrix_from_aa

__all__ = ["LEG_STYLES", "LowerBody", "sample_lower_bodies"]


class Leg(NamedTuple):
    """Ranges in degrees.

    raise_: thigh forward of the vertical. shank: lean of the shank, knee ahead of the ankle positive (the knee bends by
    raise_ + shank). knee: the knee's bend, instead of `shank`. spread: thigh away from the midline. open: turn of the
    raised leg outward about the vertical. twist: turn of the thigh outward about itself. heel: how far the heel is
    lifted with the toes on the ground; None leaves the foot in the air, hanging freely.
    """

    raise_: tuple[float, float]
    shank: tuple[float, float] | None = None
    knee: tuple[float, float] | None = None
    spread: tuple[float, float] = (-2, 8)
    open: tuple[float, float] = (-5, 15)
    twist: tuple[float, float] = (-8, 12)
    heel: tuple[float, float] | None = (0, 0)


class LegStyle(NamedTuple):
    """Leading leg, other leg (None: like the leading one), lean of the trunk in degrees (None: balanced), weight."""

    lead: Leg
    other: Leg | None = None
    lean: tuple[float, float] | None = None
    weight: float = 1.0


_STANDING = Leg((-6, 12), (-4, 8))

LEG_STYLES: dict[str, LegStyle] = {
    "standing": LegStyle(Leg((-4, 8), (-3, 6)), Leg((-8, 15), (-5, 12)), (-5, 10), 1.0),
    "half_squat": LegStyle(Leg((20, 70), (14, 36), spread=(0, 12), open=(0, 25)), weight=1.5),
    "deep_squat": LegStyle(Leg((75, 118), (15, 35), spread=(0, 8), open=(5, 35)), weight=1.5),
    "squat_on_toes": LegStyle(Leg((60, 115), (20, 50), spread=(0, 8), open=(0, 35), heel=(15, 45)), weight=0.8),
    "lunge": LegStyle(Leg((40, 95), (-8, 22)), Leg((-42, -5), knee=(8, 100), heel=(25, 60)), (-8, 35), 1.8),
    "side_lunge": LegStyle(
        Leg((45, 95), (5, 25), spread=(5, 20), open=(15, 45)), Leg((0, 15), (-3, 8), spread=(28, 50)), (5, 40), 1.0
    ),
    "chair": LegStyle(Leg((72, 102), (-30, 25), open=(-8, 28)), lean=(-22, 30), weight=1.8),
    "long_sit": LegStyle(Leg((80, 95), knee=(0, 30), open=(-3, 30), heel=None), lean=(-25, 20), weight=0.5),
    "cross_legged": LegStyle(
        Leg((72, 90), knee=(115, 138), open=(30, 48), twist=(45, 65), heel=None), lean=(-5, 25), weight=0.7
    ),
    "hugging_knees": LegStyle(Leg((105, 128), knee=(105, 138), open=(-5, 12)), lean=(-15, 20), weight=0.4),
    "kneeling": LegStyle(Leg((-8, 18), (72, 90), heel=None), lean=(-8, 25), weight=0.7),
    "on_heels": LegStyle(Leg((55, 75), (76, 88), open=(0, 18), heel=None), lean=(0, 30), weight=0.6),
    "half_kneeling": LegStyle(Leg((78, 98), (-10, 15)), Leg((-12, 12), (70, 88), heel=None), (-5, 25), 0.8),
    "all_fours": LegStyle(Leg((-15, 15), (75, 90), heel=None), lean=(70, 95), weight=0.5),
    "stooping": LegStyle(Leg((-5, 25), (-5, 10)), lean=(35, 95), weight=0.8),
    "knee_up": LegStyle(
        Leg((30, 115), knee=(20, 130), spread=(-5, 15), open=(-10, 40), heel=None), _STANDING, (-20, 20)
    ),
    "front_kick": LegStyle(Leg((40, 115), knee=(0, 30), open=(-10, 25), heel=None), _STANDING, (-30, 15), 0.8),
    "side_kick": LegStyle(
        Leg((0, 40), knee=(0, 80), spread=(30, 75), open=(0, 20), heel=None), _STANDING, (-10, 20), 0.8
    ),
    "heel_to_buttock": LegStyle(Leg((-25, 20), knee=(60, 145), heel=None), _STANDING, (-5, 25), 0.7),
    "arabesque": LegStyle(Leg((-55, -25), knee=(0, 40), heel=None), _STANDING, (10, 70), 0.4),
    "wide": LegStyle(Leg((0, 25), (0, 15), spread=(12, 42), open=(0, 15)), weight=1.2),
    "side_split": LegStyle(
        Leg((0, 20), knee=(0, 12), spread=(48, 78), open=(0, 15), heel=None), lean=(0, 35), weight=0.3
    ),
    "front_split": LegStyle(
        Leg((50, 88), knee=(0, 15), heel=None), Leg((-45, -22), knee=(0, 20), heel=None), (-5, 25), 0.4
    ),
    "stride": LegStyle(Leg((12, 45), (-30, 5)), Leg((-35, -8), knee=(5, 60), heel=(15, 55)), (-3, 15), 1.2),
    "sprint": LegStyle(
        Leg((35, 85), knee=(40, 115), heel=None), Leg((-38, -5), knee=(5, 110), heel=None), (0, 25), 1.2
    ),
    "jump": LegStyle(
        Leg((-15, 80), knee=(5, 120), spread=(-3, 35), open=(-5, 30), heel=None), lean=(-15, 35), weight=0.8
    ),
    "any": LegStyle(
        Leg((-35, 110), knee=(0, 135), spread=(-10, 50), open=(-10, 40), twist=(-25, 35), heel=None),
        Leg((-35, 110), knee=(0, 135), spread=(-10, 50), open=(-10, 40), twist=(-25, 35), heel=None),
        (-20, 50),
        1.0,
    ),
}
"""By name; weights favour what people in photographs do."""

_NAMES = list(LEG_STYLES)
_WEIGHTS = np.array([style.weight for style in LEG_STYLES.values()])
_FIELDS = Leg._fields


def _table() -> np.ndarray:
    """(styles, 2 legs, fields, 2 ends) degrees; NaN where a field is not given."""
    none = (np.nan, np.nan)
    return np.array(
        [[[end or none for end in leg] for leg in (s.lead, s.other or s.lead)] for s in LEG_STYLES.values()],
        dtype=float,
    )


_LEGS = _table()
_LEANS = np.array([style.lean or (np.nan, np.nan) for style in LEG_STYLES.values()], dtype=float)
_TWINS = np.array([style.other is None for style in LEG_STYLES.values()])


class LowerBody(NamedTuple):
    """legs: (n, 2, 4, 3) axis-angle: left and right; hip, knee, ankle, foot. R_pelvis: (n, 3, 3) pelvis in an upright
    world that faces +z. spine_bend: (n,) forward bend left for the three spine joints, radians. style: (n,) index into
    `LEG_STYLES`."""

    legs: np.ndarray
    R_pelvis: np.ndarray
    spine_bend: np.ndarray
    style: np.ndarray


def sample_lower_bodies(n: int, rng: np.random.Generator, *, style: str | None = None) -> LowerBody:
    """Draw n pairs of legs with a pelvis that fits them; `style` is one name of `LEG_STYLES`, None draws by weight."""
    if style is None:
        styles = rng.choice(len(_NAMES), size=n, p=_WEIGHTS / _WEIGHTS.sum())
    elif style in LEG_STYLES:
        styles = np.full(n, _NAMES.index(style))
    else:
        raise ValueError(f"There is no leg style {style!r}. Choose one of {', '.join(_NAMES)}.")
    fraction = rng.random((n, 2, len(_FIELDS)))
    twins = _TWINS[styles]
    near = np.clip(fraction[:, 0] + rng.normal(scale=0.08, size=fraction[:, 0].shape), 0, 1)
    fraction[twins, 1] = near[twins]
    ends = _LEGS[styles]
    raise_, shank, knee, spread, open_, twist, heel = np.moveaxis(
        np.deg2rad(ends[..., 0] * (1 - fraction) + ends[..., 1] * fraction), -1, 0
    )
    knee = np.clip(np.where(np.isnan(knee), raise_ + shank, knee), 0, np.deg2rad(152))
    lean = np.deg2rad(_LEANS[styles, 0] + (_LEANS[styles, 1] - _LEANS[styles, 0]) * rng.random(n))
    lean = np.where(np.isnan(lean), _balanced_lean(raise_, knee - raise_, rng), lean)
    # The pelvis takes a good half of the lean, the spine the rest; sideways it sways a little.
    share = rng.uniform(0.45, 0.8, n)
    pelvis = np.stack([lean * share, rng.normal(scale=0.08, size=n), rng.normal(scale=0.05, size=n)], axis=-1)
    R_pelvis = matrix_from_aa(pelvis)
    swap = rng.random(n) < 0.5
    values = [np.where(swap[:, None], a[:, ::-1], a) for a in (raise_, knee, spread, open_, twist, heel)]
    raise_, knee, spread, open_, twist, heel = values
    legs = _legs(raise_, knee, spread, open_, twist, heel, R_pelvis, rng)
    return LowerBody(legs, R_pelvis.astype(np.float32), (lean * (1 - share)).astype(np.float32), styles)


def _balanced_lean(raise_: np.ndarray, shank: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(n,) lean of the trunk that puts the centre of mass over the feet, radians, scattered by 6 degrees.

    Shank 0.40 m, thigh 0.38 m, trunk with head and arms 0.30 m above the hips; 10, 20 and 70 % of the mass.
    """
    knee_z = 0.40 * np.sin(shank).mean(1)
    hip_z = knee_z - 0.38 * np.sin(raise_).mean(1)
    legs = 0.10 * knee_z / 2 + 0.20 * (knee_z + hip_z) / 2
    over_feet = 0.05
    sine = ((over_feet - legs) / 0.70 - hip_z) / 0.30
    return np.arcsin(np.clip(sine, -0.05, 0.85)) + rng.normal(scale=0.1, size=len(raise_))


def _legs(raise_, knee, spread, open_, twist, heel, R_pelvis, rng) -> np.ndarray:
    """(n, 2, 4, 3) axis-angle of both legs from the left leg's angles in radians, each (n, 2)."""
    n = len(raise_)
    side = np.array([1.0, -1.0])
    R_open = _about(1, side * open_)
    R_thigh = _about(2, side * spread) @ R_open @ _about(0, -raise_) @ _about(1, side * twist)
    R_shank = R_thigh @ _about(0, knee)
    # On the ground the sole is level and points where the knee points; lifted heels pitch it down.
    on_ground = ~np.isnan(heel)
    heel = np.where(on_ground, heel, 0)
    toes_out = side * (open_ + twist + rng.normal(scale=0.08, size=(n, 2)))
    R_sole = _about(1, toes_out) @ _about(0, heel)
    legs = np.zeros((n, 2, 4, 3))
    legs[:, :, 0] = aa_from_matrix(np.swapaxes(R_pelvis, -1, -2)[:, None] @ R_thigh)
    legs[:, :, 1, 0] = knee
    hanging = rng.normal(scale=0.15, size=(n, 2, 3)) + np.array([0.35, 0, 0])
    planted = aa_from_matrix(np.swapaxes(R_shank, -1, -2) @ R_sole)
    legs[:, :, 2] = np.where(on_ground[..., None], planted, hanging)
    legs[:, :, 3, 0] = -heel + rng.normal(scale=0.08, size=(n, 2))
    return legs.astype(np.float32)


def _about(axis: int, angle: np.ndarray) -> np.ndarray:
    """(..., 3, 3) rotations about a coordinate axis."""
    return matrix_from_aa(angle[..., None] * np.eye(3)[axis])
