"""Pinhole cameras: one record, one rule for the focal length, projection, weak perspective, lens distortion.

Camera frame: OpenCV (x right, y down, z forward), metres. Pixels: the origin is the outer corner of the upper left
pixel and pixel centres lie at + 0.5, so a picture of size (h, w) covers [0, w] x [0, h] and its middle is (w/2, h/2).
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:  # torch is only needed where a caller already holds tensors
    import torch

FILM_LONG_SIDE_MM = 36.0
"""Long side of the 24 x 36 mm film frame that "35 mm equivalent" focal lengths refer to."""

_NAME_F35 = re.compile(r"_(\d+(?:\.\d+)?)_f35$", re.IGNORECASE)


@dataclass(frozen=True, eq=False)
class Camera:
    """A pinhole camera without distortion.

    Attributes:
        K: (3, 3) float64 read-only intrinsics in pixels, mapping a ray (x, y, 1) to pixel coordinates; upper
            triangular with last row (0, 0, 1).
        size_hw: height and width of the (upright) picture in pixels.
        focal_source: where the focal length came from, e.g. "given", "intrinsics", "exif", "heuristic".

    Raises:
        ValueError: for NaN, a focal length that is not positive, a matrix of another form, or an empty picture.
    """

    K: np.ndarray
    size_hw: tuple[int, int]
    focal_source: str = "given"

    def __post_init__(self) -> None:
        object.__setattr__(self, "K", check_intrinsics(self.K))
        size = tuple(int(s) for s in self.size_hw)
        if len(size) != 2 or min(size) <= 0:
            raise ValueError(
                f"The camera's picture size is {tuple(self.size_hw)}. Give (height, width) in whole pixels, both > 0."
            )
        object.__setattr__(self, "size_hw", size)

    @property
    def fx(self) -> float:
        return float(self.K[0, 0])

    @property
    def fy(self) -> float:
        return float(self.K[1, 1])

    @property
    def cx(self) -> float:
        return float(self.K[0, 2])

    @property
    def cy(self) -> float:
        return float(self.K[1, 2])

    @property
    def h(self) -> int:
        return self.size_hw[0]

    @property
    def w(self) -> int:
        return self.size_hw[1]

    @property
    def fov_x(self) -> float:
        """Horizontal field of view in radians (of a centred principal point)."""
        return 2.0 * math.atan(0.5 * self.w / self.fx)

    @classmethod
    def from_focal(cls, f_px: float, size_hw: tuple[int, int], focal_source: str = "focal_px") -> Camera:
        """Camera with square pixels, focal length `f_px` in pixels and the principal point in the middle."""
        f_px = _positive(f_px, "focal length in pixels")
        h, w = size_hw
        return cls(np.array([[f_px, 0, w / 2], [0, f_px, h / 2], [0, 0, 1]]), size_hw, focal_source)

    @classmethod
    def from_fov(cls, fov_x_rad: float, size_hw: tuple[int, int], focal_source: str = "fov") -> Camera:
        """Camera from its horizontal field of view in radians, between 0 and pi."""
        fov = _positive(fov_x_rad, "field of view")
        if fov >= math.pi:
            raise ValueError(
                f"The field of view is {fov:g} rad ({math.degrees(fov):g} degrees). Give a horizontal angle below pi "
                "(180 degrees)."
            )
        return cls.from_focal(0.5 * size_hw[1] / math.tan(0.5 * fov), size_hw, focal_source)

    @classmethod
    def from_f35(
        cls, mm: float, size_hw: tuple[int, int], focal_source: str = "focal_mm", *, reference_rule: bool = False
    ) -> Camera:
        """Camera from a 35 mm-equivalent focal length in millimetres: f = mm / 36 * (long side).

        36 mm is the long side of the film frame, so a portrait picture is measured by its height. With
        `reference_rule` the width is used whatever the orientation, as PersPose's demo (arXiv 2508.17239) does.
        """
        mm = _positive(mm, "35 mm-equivalent focal length")
        side = size_hw[1] if reference_rule else max(size_hw)
        return cls.from_focal(mm / FILM_LONG_SIDE_MM * side, size_hw, focal_source)

    def project(self, points_cam: np.ndarray) -> np.ndarray:
        """Pixels (..., 2) of points (..., 3) in the camera frame; NaN for points not in front of the camera."""
        points = np.asarray(points_cam, dtype=np.float64)
        homogeneous = points @ self.K.T
        depth = np.where(homogeneous[..., 2:] > 0, homogeneous[..., 2:], np.nan)
        return homogeneous[..., :2] / depth

    def unproject(self, points_px: np.ndarray, depth: np.ndarray | float = 1.0) -> np.ndarray:
        """Points (..., 3) in the camera frame at `depth` (metres along z) behind pixels (..., 2)."""
        px = np.asarray(points_px, dtype=np.float64)
        rays = np.concatenate([px, np.ones_like(px[..., :1])], axis=-1) @ np.linalg.inv(self.K).T
        return rays * np.asarray(depth, dtype=np.float64)[..., None]


def check_intrinsics(K: Any) -> np.ndarray:
    """Checked read-only float64 copy of an intrinsic matrix (3, 3). Raises ValueError saying what is wrong."""
    try:
        K = np.array(K, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"The intrinsics are not numbers ({error}). Give a 3 x 3 matrix in pixels.") from error
    if K.shape != (3, 3):
        raise ValueError(f"The intrinsics have shape {K.shape}. Give a 3 x 3 matrix in pixels.")
    if not np.isfinite(K).all():
        raise ValueError("The intrinsics hold NaN or infinity. Give finite fx, fy, cx, cy in pixels.")
    if K[0, 0] <= 0 or K[1, 1] <= 0:
        raise ValueError(
            f"The focal lengths are fx = {K[0, 0]:g} and fy = {K[1, 1]:g} pixels. Give values greater than zero."
        )
    if not np.allclose([K[1, 0], K[2, 0], K[2, 1], K[2, 2] - 1], 0, atol=1e-9):
        raise ValueError(
            "The intrinsics are not of the form [[fx, s, cx], [0, fy, cy], [0, 0, 1]]. Normalise the matrix and check "
            "that it is not transposed."
        )
    K.flags.writeable = False
    return K


def resolve_camera(
    size_hw: tuple[int, int],
    *,
    K: np.ndarray | None = None,
    focal_px: float | None = None,
    focal_mm: float | None = None,
    fov: float | None = None,
    exif_f35: float | None = None,
    name: str | Path | None = None,
    reference_rule: bool = False,
) -> Camera:
    """The one rule by which a photograph gets its camera; `Camera.focal_source` records which line applied.

    1. "intrinsics": `K` (3, 3) in pixels; 2. "focal_px": pixels; 3. "focal_mm": 35 mm-equivalent millimetres;
    4. "exif": the photograph's own 35 mm-equivalent focal length; 5. "fov": a horizontal field of view in radians;
    6. "file_name": a stem ending in `_<mm>_f35`; 7. "heuristic": the focal length equals the picture's diagonal in
    pixels, i.e. a diagonal field of view of 53 degrees, as of a 43 mm lens on 35 mm film.

    `size_hw` is the size of the upright picture. `reference_rule` is passed to `Camera.from_f35`. An EXIF value that
    is zero (the standard's "unknown"), negative or not finite is passed over; a bad value given by the user is refused.

    Raises:
        ValueError: for a given K, focal length or field of view that is NaN, zero or negative.
    """
    if K is not None:
        return Camera(K, size_hw, "intrinsics")
    if focal_px is not None:
        return Camera.from_focal(focal_px, size_hw, "focal_px")
    if focal_mm is not None:
        return Camera.from_f35(focal_mm, size_hw, "focal_mm", reference_rule=reference_rule)
    if exif_f35 is not None and math.isfinite(exif_f35) and exif_f35 > 0:
        return Camera.from_f35(exif_f35, size_hw, "exif", reference_rule=reference_rule)
    if fov is not None:
        return Camera.from_fov(fov, size_hw, "fov")
    named = f35_from_name(name) if name is not None else None
    if named is not None:
        return Camera.from_f35(named, size_hw, "file_name", reference_rule=reference_rule)
    return Camera.from_focal(math.hypot(*size_hw), size_hw, "heuristic")


def f35_from_name(name: str | Path) -> float | None:
    """35 mm-equivalent focal length of a file called `<anything>_<mm>_f35.<suffix>`, or None."""
    match = _NAME_F35.search(Path(name).stem)
    mm = float(match.group(1)) if match else 0.0
    return mm if mm > 0 else None


# ---- batched projection on tensors ----------------------------------------------------------------------------------


def project(points_cam: torch.Tensor, K: torch.Tensor, min_depth: float = 1e-6) -> torch.Tensor:
    """Pixels (B, N, 2) of points (B, N, 3) in metres in the camera frame under intrinsics K (B, 3, 3) or (3, 3).

    Differentiable. Depths are clamped from below at `min_depth` metres, so that points behind the camera give large
    finite values instead of mirrored ones.
    """
    homogeneous = points_cam @ K.transpose(-1, -2)
    return homogeneous[..., :2] / homogeneous[..., 2:].clamp(min=min_depth)


def unproject(points_px: torch.Tensor, depth: torch.Tensor, K: torch.Tensor) -> torch.Tensor:
    """Points (B, N, 3) in the camera frame at `depth` (B, N) metres behind pixels (B, N, 2); K (B, 3, 3) or (3, 3)."""
    import torch

    homogeneous = torch.cat([points_px, torch.ones_like(points_px[..., :1])], dim=-1)
    return homogeneous @ torch.linalg.inv(K).transpose(-1, -2) * depth[..., None]


# ---- weak perspective -----------------------------------------------------------------------------------------------


def full_from_weak(weak: Any, focal_px: Any, box_size_px: Any, offset_px: Any = (0.0, 0.0)) -> Any:
    """Translation (..., 3) in metres of a body given by a weak perspective camera on a square crop.

    The weak camera (s, tx, ty) (..., 3) maps a point to crop coordinates s * (x + tx, y + ty) in [-1, 1] (Kanazawa et
    al., CVPR 2018). The crop has side `box_size_px` in the photograph and its centre lies `offset_px` = (box centre -
    principal point) from the principal point: tz = 2 f / (s b), tx' = tx + 2 ox / (s b) (Li et al., CLIFF, ECCV 2022).
    Arrays or tensors; the result is of the kind of `weak`.
    """
    scale = weak[..., 0] * box_size_px
    ox, oy = _last_two(offset_px)
    return _stack([weak[..., 1] + 2 * ox / scale, weak[..., 2] + 2 * oy / scale, 2 * focal_px / scale], weak)


def weak_from_full(transl: Any, focal_px: Any, box_size_px: Any, offset_px: Any = (0.0, 0.0)) -> Any:
    """Inverse of `full_from_weak`: (s, tx, ty) (..., 3) of a translation (..., 3) in metres with positive depth."""
    scale = 2 * focal_px / transl[..., 2]
    ox, oy = _last_two(offset_px)
    return _stack([scale / box_size_px, transl[..., 0] - 2 * ox / scale, transl[..., 1] - 2 * oy / scale], transl)


def transl_from_spin(weak: torch.Tensor, focal_px: float = 5000.0, crop_px: int = 224) -> torch.Tensor:
    """Translation (B, 3) in metres that SPIN (Kolotouros et al., ICCV 2019) gives a weak camera (B, 3) s, tx, ty.

    (tx, ty, 2 f / (n s + 1e-9)) for the focal length f and side n of the crop, both in pixels. Nothing keeps s from
    being zero or negative; then the depth is huge or negative.
    """
    import torch

    return torch.cat([weak[:, 1:], 2 * focal_px / (crop_px * weak[:, :1] + 1e-9)], 1)


def fit_translation(joints: torch.Tensor, keypoints_px: torch.Tensor, focal_px: float, size_px: float) -> torch.Tensor:
    """Translation (B, 3) in metres that best brings joints (B, J, 3) to key points (B, J, 3) x, y, confidence.

    Weighted least squares of the projection equations multiplied by depth, through 3 x 3 normal equations (SPIN): the
    principal point is the middle of a picture `size_px` wide. Where no solution is determined (no confidence) it is
    (1, 1, 1), as in SPIN.
    """
    import torch

    root = keypoints_px[..., 2].sqrt().repeat_interleave(2, 1)
    offset = keypoints_px[..., :2] - size_px / 2
    B, J = joints.shape[:2]
    A = joints.new_zeros(B, 2 * J, 3)
    A[:, 0::2, 0] = A[:, 1::2, 1] = focal_px
    A[..., 2] = -offset.reshape(B, -1)
    b = (offset * joints[..., 2:] - focal_px * joints[..., :2]).reshape(B, -1)
    A, b = A * root[..., None], b * root
    normal, right = (A.mT @ A).double(), (A.mT @ b[..., None]).double()
    solvable = torch.linalg.det(normal).abs() > 1e-9
    eye = torch.eye(3, dtype=normal.dtype, device=normal.device)
    found = torch.linalg.solve(torch.where(solvable[:, None, None], normal, eye), right)[..., 0]
    return torch.where(solvable[:, None], found, torch.ones_like(found)).to(joints.dtype)


# ---- lens distortion ------------------------------------------------------------------------------------------------


def distort(points: np.ndarray, coefficients: np.ndarray) -> np.ndarray:
    """Distorted normalised coordinates (..., 2) of ideal ones (x/z, y/z), OpenCV's model (k1, k2, p1, p2[, k3]).

    x' = x (1 + k1 r^2 + k2 r^4 + k3 r^6) + 2 p1 x y + p2 (r^2 + 2 x^2), and y' with p1 and p2 exchanged (Brown 1966,
    in OpenCV's order of coefficients).
    """
    points = np.asarray(points, dtype=np.float64)
    return _distort(points[..., 0], points[..., 1], _coefficients(coefficients))[0]


def undistort(points: np.ndarray, coefficients: np.ndarray, iterations: int = 20) -> np.ndarray:
    """Ideal normalised coordinates (..., 2) of distorted ones: the inverse of `distort` by Newton's method.

    Points outside the range where the model can be inverted (strong barrel distortion folds) come back as NaN.
    """
    target = np.asarray(points, dtype=np.float64)
    k = _coefficients(coefficients)
    x, y = target[..., 0].copy(), target[..., 1].copy()
    with np.errstate(all="ignore"):
        for _ in range(iterations):
            value, (xx, xy, yy) = _distort(x, y, k)
            ex, ey = value[..., 0] - target[..., 0], value[..., 1] - target[..., 1]
            determinant = xx * yy - xy * xy
            x, y = x - (yy * ex - xy * ey) / determinant, y - (xx * ey - xy * ex) / determinant
        value, (xx, xy, yy) = _distort(x, y, k)
        found = np.abs(value - target).max(-1) < 1e-9 * (1 + np.abs(target).max(-1))
        found &= (xx * yy - xy * xy > 0) & (xx > 0)  # beyond the fold the map turns inside out
    return np.where(found[..., None], np.stack([x, y], -1), np.nan)


def distort_pixels(points_px: np.ndarray, K: np.ndarray, coefficients: np.ndarray) -> np.ndarray:
    """Pixels (..., 2) as the real lens images them, from the pixels (..., 2) of an ideal pinhole camera K."""
    return _through_rays(points_px, K, coefficients, distort)


def undistort_pixels(points_px: np.ndarray, K: np.ndarray, coefficients: np.ndarray) -> np.ndarray:
    """Pixels (..., 2) of the ideal pinhole camera K, from those (..., 2) of the real lens; NaN beyond its range."""
    return _through_rays(points_px, K, coefficients, undistort)


def _distort(x: np.ndarray, y: np.ndarray, k: np.ndarray) -> tuple[np.ndarray, tuple[np.ndarray, ...]]:
    """Distorted points and the (symmetric) Jacobian's entries dx'/dx, dx'/dy = dy'/dx, dy'/dy."""
    k1, k2, p1, p2, k3 = k
    r2 = x * x + y * y
    radial = 1 + r2 * (k1 + r2 * (k2 + r2 * k3))
    slope = 2 * (k1 + r2 * (2 * k2 + r2 * 3 * k3))  # d radial / dx = slope * x
    distorted = np.stack(
        [x * radial + 2 * p1 * x * y + p2 * (r2 + 2 * x * x), y * radial + 2 * p2 * x * y + p1 * (r2 + 2 * y * y)], -1
    )
    xx = radial + slope * x * x + 2 * p1 * y + 6 * p2 * x
    yy = radial + slope * y * y + 2 * p2 * x + 6 * p1 * y
    xy = slope * x * y + 2 * p1 * x + 2 * p2 * y
    return distorted, (xx, xy, yy)


def _through_rays(points_px: np.ndarray, K: np.ndarray, coefficients: np.ndarray, change: Any) -> np.ndarray:
    K = check_intrinsics(K)
    px = np.asarray(points_px, dtype=np.float64)
    rays = np.concatenate([px, np.ones_like(px[..., :1])], axis=-1) @ np.linalg.inv(K).T
    return change(rays[..., :2], coefficients) @ K[:2, :2].T + K[:2, 2]


def _coefficients(coefficients: Any) -> np.ndarray:
    k = np.asarray(coefficients, dtype=np.float64).ravel()
    if k.size not in (4, 5) or not np.isfinite(k).all():
        raise ValueError(
            f"The lens distortion is {k.tolist()}. Give the four or five finite OpenCV coefficients k1, k2, p1, p2, k3."
        )
    return np.append(k, 0.0)[:5]


# ---- small helpers --------------------------------------------------------------------------------------------------


def _positive(value: Any, what: str) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError) as error:
        raise ValueError(f"The {what} is {value!r}, not a number. Give one greater than zero.") from error
    if not math.isfinite(number) or number <= 0:
        raise ValueError(f"The {what} is {number:g}. Give a finite number greater than zero.")
    return number


def _last_two(offset: Any) -> tuple[Any, Any]:
    return (offset[0], offset[1]) if isinstance(offset, (tuple, list)) else (offset[..., 0], offset[..., 1])


def _stack(parts: list[Any], like: Any) -> Any:
    if isinstance(like, np.ndarray):
        return np.stack(np.broadcast_arrays(*parts), axis=-1)
    import torch

    return torch.stack(torch.broadcast_tensors(*parts), dim=-1)
