"""Training augmentation of photographs, as PersPose was trained (Hao and Li, ICCV 2025, released training code).

What changes the geometry is drawn first and given to `bodyreg.crops.make_crop`, so that labels follow; what changes
pixels alone is done on the finished crop. Everything drawn comes from the generator that is passed in.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import cv2
import numpy as np

__all__ = ["Augmentation", "change_pixels", "cut_out", "draw_augmentation"]

_NONE, _ROTATED, _SCALED, _CUT_OUT = 0.2, 0.5, 0.2, 0.4
_LARGEST_TURN = math.radians(30)
_AIM = 0.1
_BLURRED, _NOISY, _CONTRAST, _COLOURED, _ONE_CHANNEL = 0.1, 0.3, 0.5, 0.5, 0.1


class Augmentation(NamedTuple):
    """What is done to one sample."""

    in_plane_rad: float = 0.0
    """Turn of the picture in its plane."""
    scale: float = 1.0
    """Factor on the crop's magnification."""
    aim: tuple[float, float] = (0.0, 0.0)
    """Where the turned camera aims beside the principal point, in parts of the box's longer side."""
    cut_out: bool = False
    """Hide a rectangle of the crop."""
    pixels: bool = False
    """Change colours and sharpness."""


def draw_augmentation(rng: np.random.Generator, *, aim_jitter: bool = False) -> Augmentation:
    """One sample's augmentation: nothing for a fifth of them, else each kind with its own probability.

    Args:
        aim_jitter: also draw `aim`, which is drawn for every sample.
    """
    aim = tuple(rng.uniform(-_AIM, _AIM, 2).tolist()) if aim_jitter else (0.0, 0.0)
    if rng.random() < _NONE:
        return Augmentation(aim=aim)
    return Augmentation(
        in_plane_rad=rng.uniform(-_LARGEST_TURN, _LARGEST_TURN) if rng.random() < _ROTATED else 0.0,
        scale=rng.uniform(0.7, 1.1) if rng.random() < _SCALED else 1.0,
        aim=aim,
        cut_out=rng.random() < _CUT_OUT,
        pixels=True,
    )


def cut_out(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A copy of (h, w, 3) uint8 with one rectangle hidden by noise or by one colour.

    Its area is 0.08 to 0.4 of the picture, its aspect 0.3 to 3.33, its centre at least two pixels inside; what of it
    lies outside is cut off.
    """
    h, w = image.shape[:2]
    area = 0.4 * rng.uniform(0.2, 1.0) * h * w
    aspect = rng.uniform(0.3, 1 / 0.3)
    size = math.sqrt(area / aspect), math.sqrt(area * aspect)  # width, height
    centre = rng.uniform(2, w - 2), rng.uniform(2, h - 2)
    x0, y0 = (max(0, round(c - s / 2)) for c, s in zip(centre, size, strict=True))
    x1, y1 = (min(n, round(c + s / 2)) for c, s, n in zip(centre, size, (w, h), strict=True))
    patch = (y1 - y0, x1 - x0, 3) if rng.random() < 0.5 else (1, 1, 3)
    result = image.copy()
    result[y0:y1, x0:x1] = rng.integers(0, 256, patch, dtype=np.uint8)
    return result


def change_pixels(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A copy of (h, w, 3) uint8 RGB, by chance blurred or sharpened, noisy, of other contrast, colours and channels."""
    x = image.astype(np.float32)
    if rng.random() < _BLURRED:
        x = _blur_or_sharpen(x, rng)
    if rng.random() < _NOISY:
        x = _clipped(x + rng.standard_normal(x.shape, dtype=np.float32) * (x.mean() / 5))
    if rng.random() < _CONTRAST:
        mean = x.mean()
        x = _clipped((x - mean) * rng.uniform(0.5, 1.7) + mean + 0.5 * mean * rng.uniform(-1, 1))
    if rng.random() < _COLOURED:
        x = _recolour(x, rng)
    if rng.random() < _ONE_CHANNEL:
        if rng.random() < 0.5:
            grey = x[..., rng.integers(3)]
        else:
            grey = x @ rng.dirichlet(np.ones(3)).astype(np.float32)
        x = np.repeat(grey[..., None], 3, axis=2)
    return np.rint(_clipped(x)).astype(np.uint8)


def _blur_or_sharpen(x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    h, w = x.shape[:2]
    kind = rng.integers(3)
    if kind == 0:
        factor = rng.choice([1.6, 2.0, 2.67])
        small = cv2.resize(x, (max(1, round(w / factor)), max(1, round(h / factor))), interpolation=cv2.INTER_LINEAR)
        return cv2.resize(small, (w, h), interpolation=cv2.INTER_LINEAR)
    if kind == 1:
        k = int(rng.choice([7, 11, 15]))
        return cv2.GaussianBlur(x, (k, k), 0)
    k = int(rng.choice([3, 7, 11, 15]))
    return _clipped(x + 2 * (x - cv2.GaussianBlur(x, (k, k), k)))


def _recolour(x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    # In bytes: OpenCV's hue has 180 units there, saturation 255.
    hsv = cv2.cvtColor(np.rint(x).astype(np.uint8), cv2.COLOR_RGB2HSV).astype(np.float32)
    hsv[..., 0] = (hsv[..., 0] + rng.uniform(-40, 40)) % 180
    hsv[..., 1] *= rng.uniform(0, 1) * 255 / (1 + hsv[..., 1].max())
    return cv2.cvtColor(_clipped(hsv).astype(np.uint8), cv2.COLOR_HSV2RGB).astype(np.float32)


def _clipped(x: np.ndarray) -> np.ndarray:
    return np.clip(x, 0, 255)
