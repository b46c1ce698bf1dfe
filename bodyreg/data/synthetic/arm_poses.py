"""Arms held in ways that motion capture of walking people hardly shows: up, out, akimbo, folded, reaching, waving.

An arm is described as one describes it in words: where the upper arm points in the chest's frame (azimuth from the
side through the front, elevation), the upper arm's turn about itself, the elbow's bend and the forearm's turn. Angles
are for the left arm; the right one is the mirror image.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from priors.rotations import aa_from_matrix, matrix_from_aa

__all__ = ["ARM_STYLES", "sample_arms"]


class ArmStyle(NamedTuple):
    """Ranges in degrees.

    azimuth: direction of the upper arm seen from above: 0 to the side, 90 forward, above that across the chest.
    elevation: -90 down, 0 level, 90 up. twist: turn of the upper arm about itself after the shortest rotation from the
    rest pose (negative outward), None for the whole range that the direction allows. bend: elbow. turn: forearm,
    positive turns the thumb inward. weight: how often.
    """

    azimuth: tuple[float, float]
    elevation: tuple[float, float]
    twist: tuple[float, float] | None
    bend: tuple[float, float]
    turn: tuple[float, float] = (-60, 60)
    weight: float = 1.0


ARM_STYLES: dict[str, ArmStyle] = {
    "hanging": ArmStyle((-20, 80), (-84, -62), (-20, 25), (0, 45), (-30, 60), 2.0),
    "out": ArmStyle((-15, 30), (-20, 20), (-60, 30), (0, 25), (-70, 70), 1.5),
    "slanting": ArmStyle((-25, 60), (-65, -20), (-40, 40), (0, 50), (-60, 60), 1.0),
    "up": ArmStyle((-10, 80), (35, 86), (-120, -60), (0, 70), (-60, 60), 1.5),
    "surrender": ArmStyle((-5, 40), (-25, 30), (-115, -65), (60, 115), (-40, 60), 0.7),
    "akimbo": ArmStyle((-60, -20), (-66, -52), (40, 68), (58, 90), (-20, 50), 1.2),
    "folded": ArmStyle((50, 100), (-72, -50), (35, 58), (75, 120), (-20, 50), 1.2),
    "reaching": ArmStyle((60, 115), (-45, 45), (-90, 20), (0, 50), (-70, 70), 1.2),
    "holding": ArmStyle((20, 90), (-80, -40), (-15, 45), (60, 120), (-70, 60), 1.2),
    "to_face": ArmStyle((15, 80), (-55, 35), (-75, -10), (115, 145), (-60, 40), 1.0),
    "behind_head": ArmStyle((-10, 50), (35, 68), (-125, -95), (100, 130), (-40, 40), 0.7),
    "waving": ArmStyle((-15, 50), (-10, 40), (-110, -60), (25, 120), (-60, 60), 0.8),
    "behind_back": ArmStyle((-100, -50), (-75, -55), (55, 90), (25, 90), (-20, 70), 0.5),
    "across": ArmStyle((100, 128), (-40, 25), (-60, 10), (10, 110), (-50, 60), 0.6),
    "propping": ArmStyle((75, 100), (-15, 15), (-60, 0), (0, 30), (20, 75), 0.3),
    "any": ArmStyle((-40, 125), (-85, 85), None, (0, 145), (-75, 75), 2.0),
}
"""By name; a tuple so that a training stream covers what photographs hold."""

_NAMES = list(ARM_STYLES)
_TABLE = {
    field: np.array([getattr(style, field) or (np.nan, np.nan) for style in ARM_STYLES.values()], dtype=float)
    for field in ("azimuth", "elevation", "twist", "bend", "turn")
}
_WEIGHTS = np.array([style.weight for style in ARM_STYLES.values()])
# Share of the forearm's turn that the elbow joint takes; the wrist takes the rest, so that the skin does not wring.
_ELBOW_SHARE = 0.6


def sample_arms(n: int, rng: np.random.Generator, *, style: str | None = None, both_alike: float = 0.55) -> np.ndarray:
    """Draw n pairs of arms.

    style: one name of `ARM_STYLES` for all, or None to draw by weight. both_alike: share of people whose right arm has
    the left one's style (with its own angles, near the left one's).
    Returns (n, 2, 5, 3) axis-angle, radians: left and right; collar, shoulder, elbow, wrist, hand.
    """
    if style is None:
        styles = rng.choice(len(_NAMES), size=(n, 2), p=_WEIGHTS / _WEIGHTS.sum())
        alike = rng.random(n) < both_alike
        styles[alike, 1] = styles[alike, 0]
    elif style in ARM_STYLES:
        styles = np.full((n, 2), _NAMES.index(style))
        alike = rng.random(n) < both_alike
    else:
        raise ValueError(f"There is no arm style {style!r}. Choose one of {', '.join(_NAMES)}.")
    fraction = rng.random((5, n, 2))
    near = np.clip(fraction[:, :, 0] + rng.normal(scale=0.15, size=(5, n)), 0, 1)
    fraction[:, alike, 1] = near[:, alike]
    azimuth, elevation, twist, bend, turn = (
        _TABLE[field][styles, 0] * (1 - t) + _TABLE[field][styles, 1] * t
        for field, t in zip(_TABLE, fraction, strict=True)
    )
    low, high = _twist_range(azimuth, elevation)
    twist = np.where(np.isnan(twist), low + (high - low) * fraction[2], twist)
    azimuth, elevation, twist, bend, turn = np.deg2rad([azimuth, elevation, twist, bend, turn])
    arms = _left_arms(azimuth, elevation, twist, bend, turn, rng)
    arms[:, 1] *= np.array([1, -1, -1], dtype=np.float32)  # the right arm mirrors the left
    return arms


def _twist_range(azimuth: np.ndarray, elevation: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Degrees of upper-arm turn that a shoulder has in a direction: with the arm down the forearm can bend across the
    belly or outward, level it can bend forward, up or (at the side) down, raised it can only bend behind the head."""
    up, down = np.clip(elevation / 80, 0, 1), np.clip(-elevation / 80, 0, 1)
    level = 1 - up - down
    forward = np.clip(azimuth / 90, 0, 1)
    low = -150 * up - 95 * level - 40 * down
    high = -50 * up + (60 - 40 * forward) * level + 65 * down
    return low, high


def _left_arms(azimuth, elevation, twist, bend, turn, rng) -> np.ndarray:
    """(..., 5, 3) axis-angle of left arms from angles in radians, each (...)."""
    direction = np.stack(
        [np.cos(elevation) * np.cos(azimuth), np.sin(elevation), np.cos(elevation) * np.sin(azimuth)], axis=-1
    )
    # Shortest rotation from the rest direction +x: axis x cross d, angle arccos(d_x).
    axis = np.stack([np.zeros_like(azimuth), -direction[..., 2], direction[..., 1]], axis=-1)
    axis /= np.maximum(np.linalg.norm(axis, axis=-1, keepdims=True), 1e-9)
    swing = matrix_from_aa(axis * np.arccos(np.clip(direction[..., :1], -1, 1)))
    R_arm = swing @ matrix_from_aa(twist[..., None] * np.array([1.0, 0, 0]))
    # The collar lifts with a raised arm and follows it forward.
    shape = azimuth.shape
    arms = rng.normal(scale=0.04, size=(*shape, 5, 3))
    arms[..., 0, 1] -= 0.10 * direction[..., 2]
    arms[..., 0, 2] += 0.12 + 0.28 * direction[..., 1]
    arms[..., 1, :] = aa_from_matrix(np.swapaxes(matrix_from_aa(arms[..., 0, :]), -1, -2) @ R_arm)
    hinge = np.stack([np.zeros(shape), -bend, np.zeros(shape)], axis=-1)
    R_turn = matrix_from_aa((_ELBOW_SHARE * turn)[..., None] * np.array([1.0, 0, 0]))
    arms[..., 2, :] = aa_from_matrix(matrix_from_aa(hinge) @ R_turn)
    arms[..., 3, 0] = (1 - _ELBOW_SHARE) * turn
    arms[..., 3, 1] = rng.normal(scale=0.12, size=shape)
    arms[..., 3, 2] = rng.normal(scale=0.3, size=shape)
    arms[..., 4, 2] = -np.abs(rng.normal(scale=0.35, size=shape))
    return arms.astype(np.float32)
