"""Pose and mesh metrics on tensors: one formula each, one value a sample, millimetres only in the caller's tables.

Conventions that all functions share:

* `pred`, `true`: (..., J, 3) points in one frame, metres; any number of leading axes, J at least 1. The root is
  subtracted by the caller with `root_relative`, because protocols differ in it.
* Results have one value for each sample (the leading axes) or frame; `.mean()` gives the figure of a table. Shares
  (PCK, AUC) are in [0, 1].
* dtype and device are the inputs'. A NaN in a prediction stays a NaN of its sample, so that the evaluator can name it.

Raises ValueError when shapes differ or when there is no sample at all: an empty mean is an error, never NaN.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

PCK_THRESHOLD = 0.150  # metres
AUC_THRESHOLDS = tuple(0.005 * i for i in range(31))  # metres: 0, 5, ..., 150 mm
CHALLENGE_THRESHOLDS = tuple(i / 1000 for i in range(200))  # metres: 0, 1, ..., 199 mm
MPJAE_PARTS = (0, 1, 2, 4, 5, 16, 17, 18, 19)  # of SMPL-24: pelvis, hips, knees, shoulders, elbows


class Similarity(NamedTuple):
    """A similarity per sample: aligned = scale * points @ R^T + t, and the points it was fitted to, aligned."""

    aligned: Tensor  # (..., J, 3)
    R: Tensor  # (..., 3, 3), a proper rotation
    scale: Tensor  # (...)
    t: Tensor  # (..., 3)

    def apply(self, points: Tensor) -> Tensor:
        """(..., N, 3) other points of the same samples, moved as those it was fitted to."""
        return self.scale[..., None, None] * (points @ self.R.transpose(-1, -2)) + self.t[..., None, :]


def root_relative(points: Tensor, root: int | tuple[int, ...] | list[int] | Tensor) -> Tensor:
    """(..., J, 3) points minus their root: a joint, the mean of several joints, or given (..., 3) positions."""
    if isinstance(root, Tensor):
        return points - root[..., None, :]
    rows = [root] if isinstance(root, int) else list(root)
    return points - points[..., rows, :].mean(-2, keepdim=True)


def point_errors(pred: Tensor, true: Tensor) -> Tensor:
    """(..., J) Euclidean distance of each point."""
    _check(pred, true)
    return torch.linalg.vector_norm(pred - true, dim=-1)


def mpjpe(pred: Tensor, true: Tensor) -> Tensor:
    """(...) mean per-joint position error, "protocol #1". A root row of zeros stays in the mean."""
    return point_errors(pred, true).mean(-1)


def align(pred: Tensor, true: Tensor, *, scale: bool = True) -> Similarity:
    """Best similarity (rigid motion if not `scale`) that takes `pred` to `true`, sample by sample; no reflection.

    Umeyama's solution: K = sum_j p_j g_j^T = U S V^T, R = V diag(1, 1, sign(det(U V^T))) U^T, s = tr(R K) / sum |p|^2.
    A determinant of exactly zero counts as positive. A prediction whose points all coincide is moved to the mean of
    `true`, with scale 0 and R = identity.
    """
    _check(pred, true)
    pred_mean, true_mean = pred.mean(-2, keepdim=True), true.mean(-2, keepdim=True)
    p, g = pred - pred_mean, true - true_mean
    variance = p.square().sum((-2, -1))
    finite = torch.isfinite(pred).all(-1).all(-1) & torch.isfinite(true).all(-1).all(-1)
    K = p.transpose(-1, -2) @ g
    # The decomposition throws on NaN; such samples come out as NaN below.
    U, S, Vh = torch.linalg.svd(torch.where(finite[..., None, None], K, torch.zeros_like(K)))
    V, Ut = Vh.transpose(-1, -2), U.transpose(-1, -2)
    sign = torch.where(torch.linalg.det(V @ Ut) < 0, -1.0, 1.0).to(pred.dtype)
    Z = torch.stack([torch.ones_like(sign), torch.ones_like(sign), sign], -1)
    degenerate = variance == 0
    R = torch.where(
        degenerate[..., None, None], torch.eye(3, dtype=pred.dtype, device=pred.device), (V * Z[..., None, :]) @ Ut
    )
    s = (S * Z).sum(-1) / torch.where(degenerate, torch.ones_like(variance), variance)
    s = torch.where(degenerate, torch.zeros_like(s), s) if scale else torch.ones_like(s)
    s = torch.where(finite, s, torch.full_like(s, torch.nan))
    t = true_mean[..., 0, :] - s[..., None] * (R @ pred_mean[..., 0, :, None])[..., 0]
    aligned = s[..., None, None] * (p @ R.transpose(-1, -2)) + true_mean
    return Similarity(aligned, R, s, t)


def pa_mpjpe(pred: Tensor, true: Tensor) -> Tensor:
    """(...) MPJPE after Procrustes alignment of each sample, "protocol #2", "reconstruction error"."""
    return mpjpe(align(pred, true).aligned, true)


def n_mpjpe(pred: Tensor, true: Tensor) -> Tensor:
    """(...) MPJPE after the best scale of each sample, s = sum <g, p> / sum <p, p>, without centring.

    A prediction of zeros keeps scale 1.
    """
    _check(pred, true)
    energy = pred.square().sum((-2, -1))
    s = (pred * true).sum((-2, -1)) / torch.where(energy == 0, torch.ones_like(energy), energy)
    return mpjpe(s[..., None, None] * pred, true)


def scaled_difference(pred: Tensor, true: Tensor) -> Tensor:
    """(..., J, C) s pred - true with the best scale of each sample, s = sum <p, g> / sum <p, p>, without centring."""
    energy = pred.square().sum((-2, -1), keepdim=True)
    s = (pred * true).sum((-2, -1), keepdim=True) / torch.where(energy == 0, torch.ones_like(energy), energy)
    return s * pred - true


def normed_difference(pred: Tensor, true: Tensor) -> Tensor:
    """(..., J, C) s pred + t - true with the best scale and shift (..., 1, C) of each sample.

    A prediction whose points all coincide is moved to the mean of `true`.
    """
    mean = true.mean(-2, keepdim=True)
    return scaled_difference(pred - pred.mean(-2, keepdim=True), true - mean)


def angle_between(a: Tensor, b: Tensor) -> Tensor:
    """(...) angle in radians between vectors (..., 3) of any length, by the arc cosine of the clipped dot product."""
    a, b = torch.nn.functional.normalize(a, dim=-1), torch.nn.functional.normalize(b, dim=-1)
    return torch.acos((a * b).sum(-1).clamp(-1, 1))


def mpjve(pred: Tensor, true: Tensor) -> Tensor:
    """(..., F - 1) mean error of the frame-to-frame difference of one sequence, metres a frame (not divided by time).

    `pred`, `true`: (..., F, J, 3) root-relative joints of one sequence, F >= 2; call it per sequence, so that no
    difference crosses a seam.
    """
    _check(pred, true)
    _check_frames(pred, 2)
    return mpjpe(pred.diff(dim=-3), true.diff(dim=-3))


def acceleration_error(pred: Tensor, true: Tensor, *, fps: float | None = None) -> Tensor:
    """(..., F - 2) mean error of x[t-1] - 2 x[t] + x[t+1] of one sequence: metres a frame^2, with `fps` m/s^2.

    `pred`, `true`: (..., F, J, 3), F >= 3.
    """
    _check(pred, true)
    _check_frames(pred, 3)
    error = mpjpe(pred.diff(n=2, dim=-3), true.diff(n=2, dim=-3))
    return error if fps is None else error * fps**2


def jitter(points: Tensor, fps: float) -> Tensor:
    """(..., F - 3) mean third difference of one sequence (..., F, J, 3), m/s^3; WHAM's tables divide it by 10."""
    _check_frames(points, 4)
    return torch.linalg.vector_norm(points.diff(n=3, dim=-3), dim=-1).mean(-1) * fps**3


def rotation_errors(R_pred: Tensor, R_true: Tensor, R_aligned_from_pred: Tensor | None = None) -> Tensor:
    """(..., P) geodesic angle, radians, between global rotations (..., P, 3, 3) of body parts.

    Their mean over `MPJAE_PARTS` is 3DPW's MPJAE. With the rotation of an alignment of the same sample (`align(...).R`,
    (..., 3, 3)) the prediction is turned by it first: MPJAE-PA.
    """
    if R_pred.shape != R_true.shape or R_pred.shape[-2:] != (3, 3):
        raise ValueError(
            f"The rotations have shapes {tuple(R_pred.shape)} and {tuple(R_true.shape)}. Give both as (..., P, 3, 3)."
        )
    if R_aligned_from_pred is not None:
        R_pred = R_aligned_from_pred[..., None, :, :] @ R_pred
    relative = R_pred.transpose(-1, -2) @ R_true
    axis = relative - relative.transpose(-1, -2)
    sine = torch.stack([axis[..., 2, 1], axis[..., 0, 2], axis[..., 1, 0]], -1).norm(dim=-1) / 2
    cosine = (relative.diagonal(dim1=-2, dim2=-1).sum(-1) - 1) / 2
    return torch.atan2(sine, cosine)  # the arc cosine alone would lose half the digits near zero


def pck(pred: Tensor, true: Tensor, threshold: float = PCK_THRESHOLD, *, inclusive: bool = False) -> Tensor:
    """(...) share of joints nearer than `threshold` metres, strictly unless `inclusive`; a NaN counts as a miss."""
    errors = point_errors(pred, true)
    return ((errors <= threshold) if inclusive else (errors < threshold)).to(pred.dtype).mean(-1)


def auc(pred: Tensor, true: Tensor, thresholds: tuple[float, ...] = AUC_THRESHOLDS) -> Tensor:
    """(...) mean of the strict PCK over the thresholds, in metres; with the default ones the first term is always 0."""
    errors = point_errors(pred, true)
    return torch.stack([(errors < limit).to(pred.dtype).mean(-1) for limit in thresholds]).mean(0)


def auc_trapezoid(pred: Tensor, true: Tensor, thresholds: tuple[float, ...] = CHALLENGE_THRESHOLDS) -> Tensor:
    """(...) area under the inclusive PCK over the thresholds, metres, divided by their range: 3DPW's challenge."""
    errors, limits = point_errors(pred, true), torch.tensor(thresholds, dtype=pred.dtype, device=pred.device)
    shares = (errors[..., None] <= limits).to(pred.dtype).mean(-2)
    return torch.trapezoid(shares, limits) / (limits[-1] - limits[0])


def pve(
    pred_vertices: Tensor, true_vertices: Tensor, pred_root: Tensor | None = None, true_root: Tensor | None = None
) -> Tensor:
    """(...) mean vertex distance (PVE, MPVPE, V2V).

    Args:
        pred_vertices, true_vertices: (..., V, 3), metres.
        pred_root, true_root: (..., 3), each side's root by the protocol's regressor and rule, subtracted from the
            vertices; None for meshes that are posed without translation. Both or neither.
    """
    if (pred_root is None) != (true_root is None):
        raise ValueError("Only one side's root was given. Give the roots of both meshes, or of none.")
    if pred_root is not None and true_root is not None:
        pred_vertices, true_vertices = root_relative(pred_vertices, pred_root), root_relative(true_vertices, true_root)
    return mpjpe(pred_vertices, true_vertices)


def pa_pve(pred_vertices: Tensor, true_vertices: Tensor) -> Tensor:
    """(...) mean vertex distance after Procrustes alignment of the vertices of each sample."""
    return pa_mpjpe(pred_vertices, true_vertices)


def pve_t_sc(pred_rest: Tensor, true_rest: Tensor) -> Tensor:
    """(...) vertex distance of the shaped bodies in the rest pose after centring and scaling: PVE-T-SC, of shape alone.

    The prediction takes the mean and the root mean square radius of the truth (Sengupta et al., BMVC 2020).
    """
    _check(pred_rest, true_rest)
    p, g = (x - x.mean(-2, keepdim=True) for x in (pred_rest, true_rest))
    size_p, size_g = (x.square().sum((-2, -1), keepdim=True).sqrt() for x in (p, g))
    return mpjpe(p * (size_g / torch.where(size_p == 0, torch.ones_like(size_p), size_p)), g)


def _check(pred: Tensor, true: Tensor) -> None:
    if pred.shape != true.shape or pred.ndim < 2 or pred.shape[-1] != 3:
        raise ValueError(
            f"The prediction has shape {tuple(pred.shape)} and the truth {tuple(true.shape)}. "
            "Give both as (..., J, 3) with equal sizes."
        )
    if pred.numel() == 0:
        raise ValueError(f"There is nothing to score: the shape is {tuple(pred.shape)}. Give at least one sample.")


def _check_frames(points: Tensor, least: int) -> None:
    if points.ndim < 3 or points.shape[-3] < least:
        raise ValueError(
            f"The sequence has shape {tuple(points.shape)}, and this metric compares {least} frames. "
            f"Give (..., F, J, 3) with F >= {least}."
        )
