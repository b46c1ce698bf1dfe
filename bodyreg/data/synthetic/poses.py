"""Poses for synthetic people: recorded motion, widened by mixing limbs, procedural arms and legs, and joint limits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np

from bodyreg.data.motion import Motion, list_motion, read_amass, split_clips
from bodyreg.data.synthetic.arm_poses import sample_arms
from bodyreg.data.synthetic.leg_poses import LEG_STYLES, LowerBody, sample_lower_bodies
from priors.joint_limits import NAMES, joint_limits, mirror
from priors.pose import PosePrior
from priors.rotations import aa_from_matrix, aa_from_quaternion, matrix_from_aa, swing_twist

__all__ = ["KINDS", "PoseBatch", "PoseSampler"]

KINDS: dict[str, float] = {
    "motion": 0.20,  # a recorded frame, or its mirror image
    "mixed": 0.18,  # each arm, the legs and the trunk with the head from different frames
    "arms": 0.20,  # a recorded frame with procedural arms
    "legs": 0.22,  # procedural legs, trunk to match, arms of either source
    "limits": 0.07,  # everything drawn within the joint limits
    "prior": 0.05,  # the fitted pose prior
    "easy": 0.08,  # standing or walking, arms simple, facing about +z
}
"""Kinds of poses with their default shares; the index of a kind is its place here."""


def _sides(*parts: str) -> list[list[int]]:
    return [[NAMES.index(f"{side}_{part}") for part in parts] for side in ("left", "right")]


_ARMS = _sides("collar", "shoulder", "elbow", "wrist", "hand")
_LEGS = _sides("hip", "knee", "ankle", "foot")
_SPINE = [NAMES.index(name) for name in ("spine1", "spine2", "spine3")]
_TRUNK = [*_SPINE, NAMES.index("neck"), NAMES.index("head")]
# Radians (standard deviation) added to joints that motion files keep rigid or that deserve variety.
_JITTER = np.full(23, 0.03)
_JITTER[[NAMES.index(name) for name in ("left_foot", "right_foot")]] = 0.08
_JITTER[[NAMES.index(name) for name in ("left_wrist", "right_wrist", "head", "neck")]] = 0.10
_JITTER[[NAMES.index(name) for name in ("left_hand", "right_hand")]] = 0.20
# Fingers rest a little closed: z- for the left hand.
_CLOSED = np.zeros((23, 3), dtype=np.float32)
_CLOSED[NAMES.index("left_hand"), 2], _CLOSED[NAMES.index("right_hand"), 2] = -0.25, 0.25


class PoseBatch(NamedTuple):
    """body_pose: (n, 23, 3) float32 axis-angle of SMPL's joints 1 to 23, radians.
    global_orient: (n, 3, 3) float32 rotation of the root in a world with y up; at the identity the person faces +z.
    kind: (n,) int64, index into `KINDS`."""

    body_pose: np.ndarray
    global_orient: np.ndarray
    kind: np.ndarray

    @property
    def kind_names(self) -> list[str]:
        """(n,) names of the kinds."""
        names = list(KINDS)
        return [names[k] for k in self.kind]


class PoseSampler:
    """Draws poses of many kinds; holds no random state of its own.

    motion: None (frames are drawn from the prior), a list of `Motion` with y up, or a file or folder in AMASS's layout.
    prior: the pose prior; None loads the one that ships.
    split: which clips of a path to use by the rule of `split_clips`: "train", "held_out" or "all".
    weights: shares of the kinds by name; kinds left out are not drawn. Default: `KINDS`.
    max_frames: motion is thinned evenly to at most this many frames.
    tilt_std: standard deviation of the random tilt added to every person's axis, radians.
    fallen: share of people turned by an arbitrary rotation (lying, falling, upside down).
    """

    def __init__(
        self,
        motion: None | str | Path | Sequence[Motion] = None,
        *,
        prior: PosePrior | None = None,
        split: str = "train",
        weights: Mapping[str, float] | None = None,
        max_frames: int = 20_000,
        tilt_std: float = np.deg2rad(8),
        fallen: float = 0.08,
    ) -> None:
        weights = dict(KINDS if weights is None else weights)
        unknown = set(weights) - set(KINDS)
        if unknown or not sum(weights.values()) > 0 or min(weights.values()) < 0:
            raise ValueError(
                f"The weights of pose kinds are {weights}. "
                f"Give non-negative numbers, one above 0, for some of {', '.join(KINDS)}."
            )
        shares = np.array([weights.get(name, 0.0) for name in KINDS])
        self._shares = shares / shares.sum()
        self._tilt_std, self._fallen = tilt_std, fallen
        self._limits = joint_limits()
        self._given_prior = prior
        if isinstance(motion, str | Path):
            motion = _read_split(motion, split)
        if motion is None:
            body = self.prior.sample(4000, np.random.default_rng(0))
            tilt = np.broadcast_to(np.eye(3, dtype=np.float32), (len(body), 3, 3))
        else:
            body, tilt = _frames(motion, max_frames)
        self._body = self._limits.clamp(_share_forearm_turn(body) + _CLOSED)
        self._tilt = tilt
        self._frame_cdf = _rarity_cdf(self._body)

    @cached_property
    def prior(self) -> PosePrior:
        """The pose prior; the one that ships is read when first needed."""
        return PosePrior.load() if self._given_prior is None else self._given_prior

    def sample(self, n: int, rng: np.random.Generator) -> PoseBatch:
        """Draw n poses with `rng`."""
        kind = rng.choice(len(KINDS), size=n, p=self._shares)
        body = np.zeros((n, 23, 3), dtype=np.float32)
        tilt = np.zeros((n, 3, 3), dtype=np.float32)
        yaw = rng.uniform(-np.pi, np.pi, n)
        fallen = rng.random(n) < self._fallen
        for k, name in enumerate(KINDS):
            where = np.flatnonzero(kind == k)
            if len(where):
                body[where], tilt[where] = getattr(self, f"_draw_{name}")(len(where), rng)
            if name == "easy":
                yaw[where] = rng.normal(scale=np.deg2rad(25), size=len(where))
                fallen[where] = False
        jitter = rng.normal(size=body.shape).astype(np.float32) * _JITTER[:, None].astype(np.float32)
        body = self._limits.clamp(body + jitter)
        sway = np.zeros((n, 3))
        sway[:, [0, 2]] = rng.normal(scale=self._tilt_std, size=(n, 2))
        sway[kind == list(KINDS).index("easy")] *= 0.4
        R_heading = matrix_from_aa(yaw[:, None] * np.array([0.0, 1, 0])) @ matrix_from_aa(sway)
        R_heading[fallen] = _random_rotations(int(fallen.sum()), rng)
        return PoseBatch(body, (R_heading @ tilt).astype(np.float32), kind)

    def draw_frames(self, n: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """n frames, rare ones favoured, half of them mirrored: (n, 23, 3) poses and (n, 3, 3) tilts."""
        index = np.minimum(np.searchsorted(self._frame_cdf, rng.random(n)), len(self._body) - 1)
        body, tilt = self._body[index], self._tilt[index]
        flip = rng.random(n) < 0.5
        body[flip] = mirror(body[flip])
        tilt[flip] *= np.array([[1, -1, -1], [-1, 1, 1], [-1, 1, 1]], dtype=np.float32)
        return body, tilt

    def _draw_motion(self, n: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        return self.draw_frames(n, rng)

    def _draw_mixed(self, n: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        body, tilt = self.draw_frames(n, rng)
        for joints in (*_ARMS, _TRUNK):
            body[:, joints] = self.draw_frames(n, rng)[0][:, joints]
        return body + rng.normal(scale=0.06, size=body.shape).astype(np.float32), tilt

    def _draw_arms(self, n: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        body, tilt = self.draw_frames(n, rng)
        _set_arms(body, sample_arms(n, rng))
        return body, tilt

    def _draw_legs(self, n: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        body, _ = self.draw_frames(n, rng)
        lower = sample_lower_bodies(n, rng)
        _set_lower_body(body, lower)
        arms = sample_arms(n, rng)
        on_hands = lower.style == list(LEG_STYLES).index("all_fours")
        arms[on_hands] = sample_arms(int(on_hands.sum()), rng, style="propping")
        _set_arms(body, arms, on_hands | (rng.random(n) < 0.55))
        return body, lower.R_pelvis

    def _draw_limits(self, n: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        body = self._limits.sample(n, rng, concentration=2.5)
        lower = sample_lower_bodies(n, rng, style="any")
        _set_lower_body(body, lower, keep_spine=1.0)
        _set_arms(body, sample_arms(n, rng, style="any"))
        return body, lower.R_pelvis

    def _draw_prior(self, n: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        return self.prior.sample(n, rng), np.broadcast_to(np.eye(3, dtype=np.float32), (n, 3, 3))

    def _draw_easy(self, n: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        body, _ = self.draw_frames(n, rng)
        lower = sample_lower_bodies(n, rng, style="standing")
        walking = sample_lower_bodies(n, rng, style="stride")
        walks = rng.random(n) < 0.3
        lower = LowerBody(*(np.where(_like(walks, a), b, a) for a, b in zip(lower, walking, strict=True)))
        _set_lower_body(body, lower, keep_spine=0.3)
        body[:, _TRUNK[3:]] *= 0.4
        arms = sample_arms(n, rng, style="hanging")
        for style in ("out", "slanting"):
            chosen = rng.random(n) < 0.2
            arms[chosen] = sample_arms(int(chosen.sum()), rng, style=style)
        _set_arms(body, arms)
        return body, lower.R_pelvis


def _like(mask: np.ndarray, values: np.ndarray) -> np.ndarray:
    """(n,) mask with trailing axes, to broadcast against `values`."""
    return mask.reshape(-1, *[1] * (values.ndim - 1))


def _set_arms(body: np.ndarray, arms: np.ndarray, where: np.ndarray | None = None) -> None:
    """Write (n, 2, 5, 3) arms into (n, 23, 3) poses, in place; `where` (n,) chooses the people."""
    for side, joints in enumerate(_ARMS):
        body[:, joints] = (
            arms[:, side] if where is None else np.where(_like(where, body), arms[:, side], body[:, joints])
        )


def _set_lower_body(body: np.ndarray, lower: LowerBody, keep_spine: float = 0.6) -> None:
    """Write legs and the trunk's bend into (n, 23, 3) poses, in place; `keep_spine` is the share kept of the bend."""
    for side, joints in enumerate(_LEGS):
        body[:, joints] = lower.legs[:, side]
    body[:, _SPINE] *= keep_spine
    body[:, _SPINE, 0] += lower.spine_bend[:, None] * np.array([0.45, 0.35, 0.20], dtype=np.float32)
    # Who leans forward looks up: the neck and head undo about half of the whole lean.
    lean = lower.spine_bend + np.arctan2(lower.R_pelvis[:, 2, 1], lower.R_pelvis[:, 1, 1])
    body[:, _TRUNK[3:], 0] -= (0.28 * lean)[:, None]


def _read_split(path: str | Path, split: str) -> list[Motion]:
    paths = list_motion(path)
    train, held_out = split_clips(paths)
    chosen = {"train": train, "held_out": held_out, "all": paths}.get(split)
    if chosen is None:
        raise ValueError(f"The split is {split!r}. Choose 'train', 'held_out' or 'all'.")
    if not chosen:
        raise ValueError(f"No clip of {path} belongs to the split {split!r}. Give more clips, or split='all'.")
    return [read_amass(p) for p in chosen]


def _frames(motion: Sequence[Motion], max_frames: int) -> tuple[np.ndarray, np.ndarray]:
    """Evenly thinned frames: (m, 23, 3) body poses and (m, 3, 3) root rotations with the heading taken out."""
    if not motion or any(clip.up != "y" for clip in motion):
        raise ValueError("The motion is empty or has z up. Give at least one clip read with up='y'.")
    total = sum(len(clip) for clip in motion)
    keep = np.linspace(0, total - 1, min(total, max_frames)).round().astype(int)
    poses = np.concatenate([clip.poses for clip in motion])[keep]
    R_root = matrix_from_aa(poses[:, 0])
    heading = np.arctan2(R_root[:, 0, 2], R_root[:, 2, 2])
    R_undo = matrix_from_aa(-heading[:, None] * np.array([0, 1, 0], dtype=np.float32))
    return poses[:, 1:].copy(), R_undo @ R_root


def _share_forearm_turn(body: np.ndarray) -> np.ndarray:
    """Move part of each wrist's turn about the forearm into the elbow, the hand's orientation unchanged.

    Motion files often hold the forearm's whole turn in the wrist, which wrings the skin there.
    """
    body = body.copy()
    for joints in _ARMS:
        elbow, wrist = joints[2], joints[3]
        # the turn stands left of the rest: split the inverse, whose turn stands right
        _, turn = swing_twist(-body[:, wrist], np.array([1, 0, 0], dtype=body.dtype))
        half = matrix_from_aa((0.6 * np.clip(-turn, -2.0, 2.0))[:, None] * np.array([1, 0, 0], dtype=body.dtype))
        body[:, elbow] = aa_from_matrix(matrix_from_aa(body[:, elbow]) @ half)
        body[:, wrist] = aa_from_matrix(np.swapaxes(half, -1, -2) @ matrix_from_aa(body[:, wrist]))
    return body


def _rarity_cdf(body: np.ndarray) -> np.ndarray:
    """(m,) cumulative probabilities of frames; a frame counts less the more frames are like it.

    Frames go to the nearest of up to 256 evenly spaced ones; weights are the inverse root of the group's size.
    """
    flat = body.reshape(len(body), -1)
    centres = flat[np.linspace(0, len(flat) - 1, min(256, len(flat))).round().astype(int)]
    distance = (centres**2).sum(1) - 2 * flat @ centres.T
    nearest = distance.argmin(1)
    weight = np.bincount(nearest, minlength=len(centres))[nearest] ** -0.5
    cdf = np.cumsum(weight)
    return cdf / cdf[-1]


def _random_rotations(n: int, rng: np.random.Generator) -> np.ndarray:
    """(n, 3, 3) uniformly distributed rotations."""
    quaternion = rng.normal(size=(n, 4))
    quaternion /= np.linalg.norm(quaternion, axis=-1, keepdims=True)
    return matrix_from_aa(aa_from_quaternion(quaternion))
