"""What is in a picture besides the person: a background, things in front, and the faults of the camera."""

from __future__ import annotations

import cv2
import numpy as np

__all__ = ["background_window", "camera_faults", "occlude"]


def background_window(rng: np.random.Generator, bank: np.ndarray, size: int, least: float = 1 / 3) -> np.ndarray:
    """A random window of a random background, at least that share of its side, sometimes mirrored, with its own
    exposure."""
    picture = bank[rng.integers(len(bank))]
    side = int(rng.integers(int(least * len(picture)), len(picture) + 1))
    y, x = rng.integers(0, len(picture) - side + 1, 2)
    window = picture[y : y + side, x : x + side]
    if rng.random() < 0.5:
        window = window[:, ::-1]
    how = cv2.INTER_AREA if side > size else cv2.INTER_LINEAR
    window = cv2.resize(np.ascontiguousarray(window), (size, size), interpolation=how)
    return window.astype(np.float32) * np.float32(rng.uniform(0.6, 1.25))


def occlude(rng: np.random.Generator, canvas: np.ndarray, bank: np.ndarray, parsing: np.ndarray | None = None) -> None:
    """One to three boxes, discs, rails or rags of another picture in front of the person; background in `parsing`."""
    size = len(canvas)
    for _ in range(rng.integers(1, 4)):
        mask = np.zeros((size, size), np.uint8)
        x, y = (int(v) for v in rng.uniform(0, size, 2))
        w, h = (int(v) for v in size * rng.uniform(0.05, 0.32, 2))
        kind = rng.integers(4)
        if kind == 0:
            cv2.rectangle(mask, (x, y), (x + w, y + h), 255, -1)
        elif kind == 1:
            cv2.ellipse(mask, (x, y), (w // 2 + 1, h // 2 + 1), float(rng.uniform(0, 180)), 0, 360, 255, -1)
        elif kind == 2:
            points = np.array([x, y]) + rng.normal(0, size * 0.12, (5, 2))
            cv2.fillPoly(mask, [points.astype(np.int32)], 255)
        else:
            x2, y2 = (int(v) for v in rng.uniform(0, size, 2))
            cv2.line(mask, (x, y), (x2, y2), 255, int(rng.integers(1, max(2, size // 14))))
        fill = background_window(rng, bank, size) if rng.random() < 0.6 else np.float32(rng.uniform(0, 255, 3))
        canvas[:] = np.where(mask[..., None] > 0, fill, canvas)
        if parsing is not None:
            parsing[mask > 0] = 0


def _motion_blur(picture: np.ndarray, length: float, angle: float) -> np.ndarray:
    """A picture (S, S, 3) smeared along a line of `length` pixels at `angle` radians."""
    half = int(np.ceil(length / 2)) + 1
    rows, columns = np.mgrid[-half : half + 1, -half : half + 1]
    along = np.abs(np.cos(angle) * columns + np.sin(angle) * rows)
    across = np.abs(np.cos(angle) * rows - np.sin(angle) * columns)
    smear = np.clip(length / 2 + 0.5 - along, 0, 1) * np.clip(1 - across, 0, 1)
    return cv2.filter2D(picture, -1, (smear / smear.sum()).astype(np.float32))


def camera_faults(rng: np.random.Generator, picture: np.ndarray, motion: bool = False) -> np.ndarray:
    """Exposure, colour cast, blur, noise, compression; (S, S, 3) float32 to uint8. With `motion` a third of the blurs
    are of a moving camera."""
    size = len(picture)
    if rng.random() < 0.3:  # uneven light
        field = rng.uniform(0.5, 1.3, (3, 3)).astype(np.float32)
        picture = picture * cv2.resize(field, (size, size), interpolation=cv2.INTER_CUBIC)[..., None]
    if rng.random() < 0.5:
        picture = picture * (1 + rng.normal(0, 0.07, 3)).astype(np.float32)
    if rng.random() < 0.5:
        mean = picture.mean()
        picture = (picture - mean) * np.float32(rng.uniform(0.6, 1.4)) + mean * np.float32(rng.uniform(0.7, 1.3))
    if rng.random() < 0.06:
        picture = np.repeat(picture.mean(2, keepdims=True), 3, axis=2)
    kind = rng.random()
    if motion and kind < 0.1:
        length, angle = rng.uniform(2, 0.06 * size), rng.uniform(0, np.pi)
        picture = _motion_blur(picture, float(length), float(angle))
    elif kind < 0.3:
        picture = cv2.GaussianBlur(picture, (0, 0), float(rng.uniform(0.3, 0.012 * size)))
    elif kind < 0.42:
        small = max(24, int(size / rng.uniform(1.2, 2.7)))
        picture = cv2.resize(cv2.resize(picture, (small, small), interpolation=cv2.INTER_AREA), (size, size))
    elif kind < 0.55:
        picture = picture + rng.uniform(0.3, 1.0) * (picture - cv2.GaussianBlur(picture, (0, 0), 1.2))
    if rng.random() < 0.35:
        picture = picture + rng.standard_normal(picture.shape, np.float32) * np.float32(rng.uniform(2, 14))
    out = np.clip(picture, 0, 255).astype(np.uint8)
    if rng.random() < 0.2:
        _, data = cv2.imencode(".jpg", out, [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(25, 80))])
        out = cv2.imdecode(data, cv2.IMREAD_COLOR)
    return out
