"""Pictures of lifted skeletons: a moving GIF, or a sheet of frames, seen from the camera and from its side."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from bodyreg import skeletons
from bodyreg.files import atomic_write

__all__ = ["draw_frame", "write_gif", "write_sheet"]

_LEFT, _RIGHT, _MIDDLE = (214, 95, 60), (52, 110, 190), (90, 90, 96)  # RGB
_PAPER, _FLOOR = (250, 250, 248), (228, 228, 224)
_MARGIN, _WIDTHS = 0.08, (4, 3)


def draw_frame(joints: np.ndarray, joint_set: str, size: int, extent: float, turn: float = 0.0) -> np.ndarray:
    """One skeleton, orthographic, in a square picture.

    Args:
        joints: (J, 3) metres, root-relative, in a camera's frame (x right, y down, z forward).
        joint_set: their set. size: side of the picture, pixels. extent: metres from its middle to its border.
        turn: radians by which the figure is turned about the vertical first.

    Returns:
        (size, size, 3) uint8 RGB; the person's left is red, the right blue, limbs far away are drawn first.
    """
    import cv2

    c, s = math.cos(turn), math.sin(turn)
    turned = joints @ np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]], joints.dtype).T
    scale = size * (0.5 - _MARGIN) / extent
    # Four bits below the pixel keep thin lines from jumping.
    places = np.round((turned[:, :2] * scale + size / 2) * 16).astype(np.int32)
    picture = np.full((size, size, 3), _PAPER, np.uint8)
    names, parents = skeletons.get(joint_set).joints, skeletons.get(joint_set).parents
    bones = [(child, parent) for child, parent in enumerate(parents) if parent >= 0]
    for child, parent in sorted(bones, key=lambda bone: -float(turned[list(bone), 2].mean())):
        colour = _LEFT if "left" in names[child] else _RIGHT if "right" in names[child] else _MIDDLE
        start, end = (tuple(int(v) for v in places[i]) for i in (parent, child))
        cv2.line(picture, start, end, colour, max(2, round(size * _WIDTHS[0] / 320)), cv2.LINE_AA, 4)
        cv2.circle(picture, end, round(16 * size * _WIDTHS[1] / 320), colour, -1, cv2.LINE_AA, 4)
    return picture


def write_gif(path: str | Path, joints: np.ndarray, joint_set: str, fps: float, *, size: int = 320) -> Path:
    """A GIF of a sequence (T, J, 3): from the camera, and beside it from the person's side.

    At most 30 pictures a second and 250 in all: long sequences skip frames and keep their speed as far as that allows.
    """
    from PIL import Image

    step = max(1, math.ceil(fps / 30), math.ceil(len(joints) / 250))
    extent = _extent(joints)
    frames = [
        Image.fromarray(
            np.concatenate([draw_frame(j, joint_set, size, extent, turn) for turn in (0.0, math.pi / 2)], 1)
        )
        for j in joints[::step]
    ]
    path = Path(path)
    with atomic_write(path) as temporary, temporary.open("wb") as file:
        frames[0].save(file, format="GIF", save_all=True, append_images=frames[1:], duration=round(1000 * step / fps),
                       loop=0)  # fmt: skip
    return path


def write_sheet(path: str | Path, joints: np.ndarray, joint_set: str, *, columns: int = 6, size: int = 220) -> Path:
    """A PNG of a few frames, evenly spread: one column a frame, above from the camera, below from the side."""
    from PIL import Image

    extent = _extent(joints)
    chosen = np.unique(np.linspace(0, len(joints) - 1, columns).round().astype(int))
    rows = [
        np.concatenate([draw_frame(joints[i], joint_set, size, extent, turn) for i in chosen], 1)
        for turn in (0.0, math.pi / 2)
    ]
    sheet = np.concatenate([rows[0], np.full((2, rows[0].shape[1], 3), _FLOOR, np.uint8), rows[1]])
    path = Path(path)
    with atomic_write(path) as temporary, temporary.open("wb") as file:
        Image.fromarray(sheet).save(file, format="PNG")
    return path


def _extent(joints: np.ndarray) -> float:
    """Metres from the root to the farthest joint of any frame."""
    return max(0.3, float(np.abs(joints).max()))
