"""Anatomical limits of SMPL's 23 body joints, as ranges of swing and twist.

Every rotation is split as R = R_swing R_twist, the twist about the bone (x for the arms, y for trunk, head and legs, in
SMPL's rest frame: y up, the person looks along +z, left is +x). The twist's angle and the two components of the swing's
axis-angle vector each have a range. The ranges are textbook ranges of motion, widened where recorded motion goes beyond
them: SMPL's joints share what anatomy splits otherwise (scapula and shoulder, forearm and wrist), and knees and elbows
of fitted bodies leave their hinge planes.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np

from priors.rotations import aa_from_quaternion, cross, quaternion_from_aa, swing_twist

__all__ = ["MIRROR", "NAMES", "JointLimits", "joint_limits", "mirror"]

NAMES = (
    "left_hip right_hip spine1 left_knee right_knee spine2 left_ankle right_ankle spine3 left_foot right_foot neck "
    "left_collar right_collar head left_shoulder right_shoulder left_elbow right_elbow left_wrist right_wrist "
    "left_hand right_hand"
).split()
"""The 23 joints that have a parent, in SMPL's order (SMPL's joint 1 first)."""

MIRROR = np.array([NAMES.index(n.replace("left", "#").replace("right", "left").replace("#", "right")) for n in NAMES])
"""(23,) index of each joint's partner on the other side."""

# Degrees: twist axis, then (least, greatest) of the x, y and z components. Left and central joints; the right side is
# the mirror (y and z change sign). Signs for the left side: hip x- flexes, z+ spreads, y+ turns the toes out; knee x+
# bends; ankle x- lifts the toes; trunk and head x+ nods; shoulder z+ lifts, y- swings forward, x- turns outward;
# elbow y- bends; wrist and hand z- closes the palm.
_DEGREES = {
    "left_hip": ("y", (-138, 45), (-55, 100), (-40, 85)),
    "spine1": ("y", (-35, 60), (-35, 35), (-35, 35)),
    "left_knee": ("y", (-6, 155), (-20, 25), (-12, 15)),
    "spine2": ("y", (-60, 40), (-30, 30), (-25, 25)),
    "left_ankle": ("y", (-42, 60), (-30, 35), (-38, 38)),
    "spine3": ("y", (-25, 35), (-30, 30), (-25, 25)),
    "left_foot": ("y", (-55, 30), (-10, 10), (-8, 8)),
    "neck": ("y", (-45, 45), (-45, 45), (-35, 35)),
    "left_collar": ("x", (-20, 20), (-25, 25), (-22, 45)),
    "head": ("y", (-45, 50), (-50, 50), (-40, 40)),
    "left_shoulder": ("x", (-165, 100), (-140, 75), (-112, 120)),
    "left_elbow": ("x", (-80, 80), (-155, 4), (-15, 65)),
    "left_wrist": ("x", (-80, 80), (-40, 40), (-75, 70)),
    "left_hand": ("x", (-10, 10), (-15, 15), (-70, 20)),
}


@dataclass(frozen=True)
class JointLimits:
    """Ranges of the swing's axis-angle components and of the twist angle, joint by joint.

    twist_axis: (23, 3) unit axis of the twist in the rest frame.
    low, high: (23, 3) radians; in the column of the twist axis the twist's range, in the others the swing's.
    """

    twist_axis: np.ndarray
    low: np.ndarray
    high: np.ndarray

    def coordinates(self, poses: np.ndarray) -> np.ndarray:
        """(..., 23, 3) swing components, the twist angle in the twist's column, of axis-angle poses (..., 23, 3)."""
        axis = self.twist_axis.astype(poses.dtype)
        swing, twist = swing_twist(poses, axis)
        return swing * (1 - axis) + twist[..., None] * axis

    def compose(self, coordinates: np.ndarray) -> np.ndarray:
        """Inverse of `coordinates`: axis-angle poses (..., 23, 3) of angle at most pi."""
        axis = self.twist_axis.astype(coordinates.dtype)
        swing = quaternion_from_aa(coordinates * (1 - axis))
        twist = quaternion_from_aa(coordinates * axis)
        w, v = swing[..., :1], swing[..., 1:]
        tw, tv = twist[..., :1], twist[..., 1:]
        # v is at right angles to tv, so the real part of the product is w tw alone
        return aa_from_quaternion(np.concatenate([w * tw, w * tv + tw * v + cross(v, tv)], axis=-1))

    def clamp(self, poses: np.ndarray) -> np.ndarray:
        """Poses (..., 23, 3) with each coordinate moved to the nearest value within its range.

        Rotations already within their ranges come back unchanged.
        """
        poses = np.asarray(poses)
        coordinates = self.coordinates(poses)
        low, high = self.low.astype(poses.dtype), self.high.astype(poses.dtype)
        outside = ((coordinates < low) | (coordinates > high)).any(-1)
        result = poses.copy()
        if outside.any():
            # only the joints that violate: far fewer than all
            joints = np.broadcast_to(np.arange(len(low)), outside.shape)[outside]
            part = JointLimits(self.twist_axis[joints], low[joints], high[joints])
            result[outside] = part.compose(np.clip(coordinates[outside], part.low, part.high))
        return result

    def violation(self, poses: np.ndarray) -> np.ndarray:
        """(..., 23) largest excess of any coordinate over its range, radians; 0 within the limits."""
        coordinates = self.coordinates(np.asarray(poses))
        return np.maximum(np.maximum(self.low - coordinates, coordinates - self.high), 0).max(-1)

    def sample(self, n: int, rng: np.random.Generator, *, concentration: float = 2.0) -> np.ndarray:
        """(n, 23, 3) poses with coordinates drawn independently over the ranges, the rest pose most likely.

        Each coordinate lies at a fraction t of the way from rest to one end of its range, the end drawn by its length;
        t has density proportional to (1 - t)^(concentration - 1), so 1 is uniform.
        """
        side = rng.random((n, *self.low.shape)) * (self.high - self.low) < self.high
        end = np.where(side, self.high, self.low)
        fraction = 1 - rng.random(end.shape) ** (1 / concentration)
        coordinates = (end * fraction).astype(np.float32)
        # In a corner of its ranges a shoulder's swing would pass the half turn, where the vector wraps around.
        is_twist = self.twist_axis.astype(bool)
        angle = np.linalg.norm(np.where(is_twist, 0, coordinates), axis=-1, keepdims=True)
        shrink = np.minimum(1, np.float32(0.95 * np.pi) / np.maximum(angle, 1e-6))
        return self.compose(coordinates * np.where(is_twist, 1, shrink))


@cache
def joint_limits() -> JointLimits:
    """The limits of all 23 joints."""
    axis, low, high = np.zeros((23, 3)), np.zeros((23, 3)), np.zeros((23, 3))
    sign = np.array([1, -1, -1])
    for name, (twist, *ranges) in _DEGREES.items():
        j = NAMES.index(name)
        axis[j, "xyz".index(twist)] = 1
        low[j], high[j] = np.deg2rad(np.array(ranges, dtype=float).T)
        if name.startswith("left"):
            k = MIRROR[j]
            axis[k] = axis[j]
            both = np.sort([sign * low[j], sign * high[j]], axis=0)
            low[k], high[k] = both
    return JointLimits(axis, low, high)


def mirror(poses: np.ndarray) -> np.ndarray:
    """Poses (..., 23, 3) of the mirror image: sides exchanged, y and z of the axis-angle vectors negated."""
    return poses[..., MIRROR, :] * np.array([1, -1, -1], dtype=poses.dtype)
