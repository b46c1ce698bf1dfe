"""Pose prior: a mixture of Gaussians over the rotations of SMPL's 21 body joints."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from priors.joint_limits import JointLimits, joint_limits

__all__ = ["PosePrior"]

_BODY = 21  # joints 1 to 21; the two hand joints have no statistics
_DIM = 3 * _BODY
_ASSET = Path(__file__).parent / "assets" / "pose.npz"


@dataclass(frozen=True)
class PosePrior:
    """Mixture of K Gaussians over the axis-angle vectors of SMPL's joints 1 to 21, radians, 63 numbers a pose.

    weights: (K,) sum 1. means: (K, 63). factors: (K, 63, 63) lower Cholesky factors of the covariances.
    Poses enter and leave as (..., 23, 3) axis-angle with each rotation's angle at most pi.
    """

    weights: np.ndarray
    means: np.ndarray
    factors: np.ndarray

    @property
    def limits(self) -> JointLimits:
        """Anatomical limits of the 23 joints; samples keep them."""
        return joint_limits()

    @cached_property
    def mean_pose(self) -> np.ndarray:
        """(23, 3) mean of the mixture; hands zero."""
        return _with_hands((self.weights @ self.means)[None])[0]

    @cached_property
    def _whitening(self) -> tuple[np.ndarray, np.ndarray]:
        """Inverse factors (K, 63, 63) and log of weight times normalisation (K,)."""
        inverse = np.linalg.inv(self.factors.astype(np.float64))
        log_det = np.log(np.diagonal(self.factors, axis1=1, axis2=2)).sum(1)
        with np.errstate(divide="ignore"):
            return inverse, np.log(self.weights) - log_det - 0.5 * _DIM * np.log(2 * np.pi)

    def log_prob(self, poses: np.ndarray) -> np.ndarray:
        """(...) log density of poses (..., 23, 3) or (..., 21, 3); hands do not count."""
        poses = np.asarray(poses, dtype=np.float64)
        if poses.shape[-2:] not in ((23, 3), (_BODY, 3)):
            raise ValueError(f"The poses have shape {poses.shape}. Give (..., 23, 3) or (..., 21, 3) axis-angle.")
        flat = poses[..., :_BODY, :].reshape(-1, _DIM)
        return _log_sum_exp(self._log_joint(flat)).reshape(poses.shape[:-2])

    def _log_joint(self, flat: np.ndarray) -> np.ndarray:
        """(N, K) log of weight times density."""
        inverse, offset = self._whitening
        distance = np.empty((len(flat), len(self.means)))
        for k, (mean, L_inv) in enumerate(zip(self.means, inverse, strict=True)):
            distance[:, k] = (((flat - mean) @ L_inv.T) ** 2).sum(1)
        return offset - 0.5 * distance

    def sample(self, n: int, rng: np.random.Generator, *, spread: float = 1.0, hands: float = 0.0) -> np.ndarray:
        """Draw (n, 23, 3) float32 poses, moved to the nearest pose within the joint limits.

        spread: factor on the standard deviation within a component. hands: standard deviation of the hand joints,
        radians; 0 leaves them straight.
        """
        k = rng.choice(len(self.weights), size=n, p=self.weights / self.weights.sum())
        noise = rng.standard_normal((n, _DIM)).astype(np.float32) * np.float32(spread)
        flat = np.empty((n, _DIM), dtype=np.float32)
        for component in np.unique(k):
            where = k == component
            flat[where] = self.means[component] + noise[where] @ self.factors[component].T
        poses = _with_hands(flat)
        if hands:
            poses[:, _BODY:] = rng.normal(scale=hands, size=(n, 2, 3))
        return self.limits.clamp(poses)

    @classmethod
    def fit(
        cls,
        poses: np.ndarray,
        k: int = 64,
        seed: int = 0,
        *,
        iterations: int = 60,
        floor: float = 0.03,
        tolerance: float = 1e-3,
    ) -> PosePrior:
        """Fit by expectation maximisation, started from k-means++ centres.

        poses: (N, 23, 3) or (N, 21, 3) axis-angle, N at least 2 k. floor: least standard deviation in any direction,
        radians (its square is added to every covariance). Stops after `iterations`, or when the mean log likelihood
        gains less than `tolerance`.
        """
        flat = np.asarray(poses, dtype=np.float64)
        if flat.ndim != 3 or flat.shape[1:] not in ((23, 3), (_BODY, 3)) or not np.isfinite(flat).all():
            raise ValueError(
                f"The poses have shape {flat.shape} or hold NaN. Give finite (N, 23, 3) axis-angle vectors."
            )
        flat = flat[:, :_BODY].reshape(-1, _DIM)
        if not 1 <= k <= len(flat) // 2:
            raise ValueError(f"{k} components were asked for {len(flat)} poses. Give at least two poses a component.")
        rng = np.random.default_rng(seed)
        centres = _spread_centres(flat, k, rng)
        nearest = ((centres**2).sum(1) - 2 * flat @ centres.T).argmin(1)
        share = np.eye(k)[nearest]
        prior, before = cls._maximise(flat, share, floor), -np.inf
        for _ in range(iterations):
            log_joint = prior._log_joint(flat)
            log_prob = _log_sum_exp(log_joint)
            share = np.exp(log_joint - log_prob[:, None])
            prior = cls._maximise(flat, share, floor)
            if log_prob.mean() - before < tolerance:
                break
            before = log_prob.mean()
        return prior

    @classmethod
    def _maximise(cls, flat: np.ndarray, share: np.ndarray, floor: float) -> PosePrior:
        """The mixture that fits poses (N, 63) with responsibilities (N, K)."""
        count = share.sum(0) + 1e-9
        means = share.T @ flat / count[:, None]
        pooled = np.cov(flat.T, bias=True)
        factors = np.empty((len(count), _DIM, _DIM))
        for k in range(len(count)):
            centred = flat - means[k]
            covariance = (centred * share[:, k, None]).T @ centred
            # Small components lean on the spread of all poses: as many imagined poses as there are dimensions, narrow.
            covariance = (covariance + 0.05 * _DIM * pooled) / (count[k] + _DIM)
            factors[k] = np.linalg.cholesky(covariance + floor**2 * np.eye(_DIM))
        return cls(count / count.sum(), means, factors)

    def save(self, path: str | Path) -> None:
        """Write an npz of plain arrays; factors as float16 lower triangles."""
        rows, columns = np.tril_indices(_DIM)
        np.savez_compressed(
            path,
            weights=self.weights.astype(np.float32),
            means=self.means.astype(np.float32),
            factors=self.factors[:, rows, columns].astype(np.float16),
        )

    @classmethod
    def load(cls, path: str | Path | None = None) -> PosePrior:
        """Read what `save` wrote; None reads the prior that ships. Raises ValueError when the file is no such prior."""
        path = _ASSET if path is None else Path(path)
        with np.load(path, allow_pickle=False) as file:
            if not {"weights", "means", "factors"} <= set(file.files):
                raise ValueError(f"{path} holds {file.files}. Give a file that PosePrior.save wrote.")
            weights, means, packed = (file[key].astype(np.float32) for key in ("weights", "means", "factors"))
        k = len(weights)
        if means.shape != (k, _DIM) or packed.shape != (k, _DIM * (_DIM + 1) // 2):
            raise ValueError(
                f"{path} holds arrays {means.shape} and {packed.shape}. Give a file that PosePrior.save wrote."
            )
        factors = np.zeros((k, _DIM, _DIM), dtype=np.float32)
        factors[(slice(None), *np.tril_indices(_DIM))] = packed
        return cls(weights, means, factors)


def _with_hands(flat: np.ndarray) -> np.ndarray:
    """(N, 23, 3) float32 poses of (N, 63) body vectors, hands zero."""
    poses = np.zeros((len(flat), 23, 3), dtype=np.float32)
    poses[:, :_BODY] = flat.reshape(-1, _BODY, 3)
    return poses


def _spread_centres(flat: np.ndarray, k: int, rng: np.random.Generator, tries: int = 4) -> np.ndarray:
    """k poses drawn by greedy k-means++: of several poses, drawn with probability proportional to the squared distance
    to the centres so far, the one that leaves the least distance to all poses."""
    centres = [flat[rng.integers(len(flat))]]
    distance = ((flat - centres[0]) ** 2).sum(1)
    for _ in range(k - 1):
        total = distance.sum()
        candidates = rng.choice(len(flat), size=tries, p=distance / total if total > 0 else None)
        left = [np.minimum(distance, ((flat - flat[c]) ** 2).sum(1)) for c in candidates]
        best = int(np.argmin([d.sum() for d in left]))
        centres.append(flat[candidates[best]])
        distance = left[best]
    return np.stack(centres)


def _log_sum_exp(values: np.ndarray) -> np.ndarray:
    """Log of the sum of exponentials over the last axis."""
    top = values.max(-1, keepdims=True)
    return top[..., 0] + np.log(np.exp(values - top).sum(-1))
