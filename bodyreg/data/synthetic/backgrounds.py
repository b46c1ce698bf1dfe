"""Backgrounds for synthetic people: procedural rooms, fields and clutter, or the user's own folder of pictures."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

__all__ = ["background_bank", "dead_leaves", "procedural_background"]


def procedural_background(rng: np.random.Generator, size: int = 256) -> np.ndarray:
    """(size, size, 3) uint8 RGB picture of walls, floors, noise, boxes, poles, foliage and print."""
    canvas = _two_tone(rng, size)
    for _ in range(rng.integers(1, 4)):
        octave = _value_noise(rng, size, int(rng.choice([4, 8, 16, 32, 64])))
        canvas = canvas * (1 + rng.uniform(0.1, 0.6) * (octave - 0.5)[..., None])
    if rng.random() < 0.35:
        canvas = _tiles(rng, canvas)
    canvas = np.clip(canvas, 0, 255).astype(np.uint8)
    for _ in range(rng.poisson(9)):
        _shape(rng, canvas)
    if rng.random() < 0.25:
        _print(rng, canvas)
    if rng.random() < 0.3:
        speckle = rng.normal(0, rng.uniform(8, 40), (size // 2, size // 2, 1)).astype(np.float32)
        canvas = np.clip(canvas + cv2.resize(speckle, (size, size))[..., None], 0, 255).astype(np.uint8)
    if rng.random() < 0.5:
        canvas = cv2.GaussianBlur(canvas, (0, 0), rng.uniform(0.5, 3.0))
    return canvas


def dead_leaves(rng: np.random.Generator, size: int = 256) -> np.ndarray:
    """(size, size, 3) uint8 RGB picture of textured shapes of all sizes that hide each other.

    Its edges and spectrum are those of photographs (Lee, Mumford and Huang, IJCV 2001): sizes r are drawn with density
    proportional to r^-3.
    """
    n = int(rng.integers(60, 400))
    low, high = rng.uniform(0.008, 0.03), rng.uniform(0.2, 0.6)
    radius = size / np.sqrt(rng.uniform(high**-2, low**-2, n))
    owner = np.zeros((size, size), np.uint16)
    mostly = rng.dirichlet(np.ones(3))
    for k, r in enumerate(np.sort(radius)[::-1] if rng.random() < 0.5 else radius, 1):
        x, y = (int(v) for v in rng.uniform(0, size, 2))
        kind, turn = rng.choice(3, p=mostly), float(rng.uniform(0, 180))
        across, up = int(r * rng.uniform(0.5, 1.5)) + 1, int(r) + 1
        if kind == 0:
            cv2.ellipse(owner, (x, y), (across, up), turn, 0, 360, k, -1)
        else:
            corners = cv2.boxPoints(((x, y), (2.0 * across, 2.0 * up), turn if kind == 1 else 0.0))
            cv2.fillPoly(owner, [corners[: int(rng.integers(3, 5))].astype(np.int32)], k)
    palette = np.stack([_colour(rng) for _ in range(12)])
    colours = np.clip(palette[rng.integers(12, size=n + 1)] + rng.normal(0, 20, (n + 1, 3)), 0, 255).astype(np.float32)
    fields = np.stack([_value_noise(rng, size, cells) - 0.5 for cells in (6, 24, 96)])
    strength = rng.uniform(0, 0.9, (n + 1, 3)).astype(np.float32) * rng.random((n + 1, 3), np.float32)
    shade = 1 + (strength[owner] * np.moveaxis(fields, 0, -1)).sum(-1, keepdims=True)
    picture = cv2.GaussianBlur(colours[owner] * shade, (0, 0), rng.uniform(0.3, 1.5))
    return np.clip(picture, 0, 255).astype(np.uint8)


def background_bank(
    rng: np.random.Generator, count: int, folder: str | Path | None = None, size: int = 256
) -> np.ndarray:
    """Backgrounds to draw from: random cuts of a folder's pictures where one is given, else procedural ones.

    Args:
        rng: source of all randomness. count: how many. folder: of the user's pictures, or None. size: side, pixels.

    Returns:
        (count, size, size, 3) uint8 RGB. Only one picture is held at a time.

    Raises:
        ValueError: a folder without a readable picture; those that cannot be read are passed over.
    """
    if folder is None:
        return np.stack([procedural_background(rng, size) for _ in range(count)])
    from bodyreg.data.folder import ImageError, list_images, read_image

    paths = list_images(folder)
    paths = [paths[k] for k in rng.permutation(len(paths))]
    bank = np.empty((count, size, size, 3), np.uint8)
    filled = 0
    while filled < count:
        readable = []
        windows = -(-(count - filled) // len(paths))
        for path in paths:
            try:
                rgb = read_image(path).rgb
            except ImageError:
                continue
            readable.append(path)
            wanted = min(windows, count - filled)
            bank[filled : filled + wanted] = _windows(rng, rgb, wanted, size)
            filled += wanted
            if filled == count:
                break
        if not readable:
            raise ValueError(
                f"None of the pictures in {folder} could be read. Name a folder with JPEG or PNG photographs."
            )
        paths = readable
    return bank


def _windows(rng: np.random.Generator, rgb: np.ndarray, count: int, size: int) -> np.ndarray:
    """(count, size, size, 3) random squares of a picture whose shorter side is brought to 1.5 squares."""
    scale = 1.5 * size / min(rgb.shape[:2])
    h, w = (max(size, round(s * scale)) for s in rgb.shape[:2])
    picture = cv2.resize(rgb, (w, h), interpolation=cv2.INTER_AREA)
    corners = rng.integers(0, [h - size + 1, w - size + 1], (count, 2))
    return np.stack([picture[y : y + size, x : x + size] for y, x in corners])


def _colour(rng: np.random.Generator) -> np.ndarray:
    """A colour as rooms and streets have it: mostly greyish, sometimes strong."""
    value, spread = rng.uniform(15, 245), rng.choice([8.0, 30.0, 90.0])
    return np.clip(value + rng.normal(0, spread, 3), 0, 255)


def _two_tone(rng: np.random.Generator, size: int) -> np.ndarray:
    """Wall over floor, or a smooth gradient."""
    y, x = np.mgrid[0:size, 0:size] / size
    angle = rng.normal(0, 0.15) if rng.random() < 0.7 else rng.uniform(0, 2 * np.pi)
    along = (x - 0.5) * np.sin(angle) + (y - 0.5) * np.cos(angle)
    level, width = rng.uniform(-0.2, 0.35), rng.choice([0.003, 0.02, 0.5])
    share = 1 / (1 + np.exp(-np.clip((along - level) / width, -30, 30)))
    return _colour(rng) * (1 - share[..., None]) + _colour(rng) * share[..., None]


def _value_noise(rng: np.random.Generator, size: int, cells: int) -> np.ndarray:
    return cv2.resize(rng.random((cells, cells)).astype(np.float32), (size, size), interpolation=cv2.INTER_CUBIC)


def _tiles(rng: np.random.Generator, canvas: np.ndarray) -> np.ndarray:
    """A tiled floor or a brick wall: a checker or line grid under a random perspective."""
    size = len(canvas)
    y, x = np.mgrid[0:size, 0:size] / size
    if rng.random() < 0.6:
        horizon = rng.uniform(0.2, 0.6)
        depth = 1 / np.maximum(y - horizon, 0.02)
        u, v, where = (x - rng.uniform(0.2, 0.8)) * depth * 3, depth * 2, y > horizon + 0.02
    else:
        n = rng.uniform(4, 20)
        u, v, where = x * n, y * n * rng.uniform(0.5, 2), np.ones_like(x, bool)
    if rng.random() < 0.5:
        pattern = ((np.floor(u) + np.floor(v)) % 2).astype(float)
    else:
        pattern = ((u % 1 < 0.06) | (v % 1 < 0.06)).astype(float)
    return canvas * (1 - (rng.uniform(0.1, 0.7) * pattern * where)[..., None])


def _shape(rng: np.random.Generator, canvas: np.ndarray) -> None:
    """One filled or outlined rectangle, ellipse, polygon, pole, line or blob of foliage."""
    size = len(canvas)
    colour = tuple(float(c) for c in _colour(rng))
    kind = rng.integers(6)
    x, y = (int(v) for v in rng.integers(-size // 8, size, 2))
    w, h = (int(v) for v in size * np.exp(rng.uniform(np.log(0.03), np.log(0.6), 2)))
    if kind == 0:
        cv2.rectangle(canvas, (x, y), (x + w, y + h), colour, -1 if rng.random() < 0.8 else int(rng.integers(1, 6)))
    elif kind == 1:
        axes, turn = (w // 2 + 1, h // 2 + 1), float(rng.uniform(0, 180))
        cv2.ellipse(canvas, (x, y), axes, turn, 0, 360, colour, -1, cv2.LINE_AA)
    elif kind == 2:
        points = np.array([x, y]) + rng.normal(0, max(w, h) / 2, (rng.integers(3, 7), 2))
        cv2.fillPoly(canvas, [points.astype(np.int32)], colour, cv2.LINE_AA)
    elif kind == 3:
        lean = int(rng.normal(0, size * 0.05))
        cv2.line(canvas, (x, -5), (x + lean, size + 5), colour, int(rng.integers(1, 14)), cv2.LINE_AA)
    elif kind == 4:
        x2, y2 = (int(v) for v in rng.integers(0, size, 2))
        cv2.line(canvas, (x, y), (x2, y2), colour, int(rng.integers(1, 5)), cv2.LINE_AA)
    else:
        for _ in range(40):
            px, py = (int(v) for v in (np.array([x, y]) + rng.normal(0, max(w, 8) / 3, 2)))
            shade = tuple(float(np.clip(c * rng.uniform(0.5, 1.4), 0, 255)) for c in colour)
            cv2.circle(canvas, (px, py), int(rng.integers(1, 6)), shade, -1, cv2.LINE_AA)


def _print(rng: np.random.Generator, canvas: np.ndarray) -> None:
    """Letters, as on banners and shop fronts."""
    size = len(canvas)
    text = "".join(rng.choice(list("ABCDEFGHJKLMNOPRSTUVWXYZ0123456789"), rng.integers(2, 9)))
    origin = (int(rng.integers(-10, size // 2)), int(rng.integers(10, size)))
    colour = tuple(float(c) for c in _colour(rng))
    cv2.putText(canvas, text, origin, int(rng.integers(0, 5)), float(rng.uniform(0.5, 3)), colour,
                int(rng.integers(1, 6)), cv2.LINE_AA)  # fmt: skip
