"""Cameras of the data sets that lifters are trained on: orientation, place and lens, by subject."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bodyreg import lens

__all__ = ["LensCamera", "h36m_cameras", "h36m_fps", "humaneva_cameras", "humaneva_fps", "no_lens"]

_TABLE = Path(__file__).parents[1] / "assets" / "lifter_cameras.json"


@dataclass(frozen=True, eq=False)
class LensCamera:
    """A camera of a lifting data set.

    Attributes:
        name: in its data set.
        size_wh: width and height of its pictures, pixels.
        orientation: (4,) float32 quaternion w x y z, world from camera.
        centre: (3,) float32 place in the world, metres.
        lens: (9,) float32 fx fy cx cy k1 k2 k3 p1 p2, of screen coordinates (see `bodyreg.lens`); zeros where the data
            set has none.
    """

    name: str
    size_wh: tuple[int, int]
    orientation: np.ndarray
    centre: np.ndarray
    lens: np.ndarray

    @property
    def has_lens(self) -> bool:
        """Do we know how it projects?"""
        return bool(self.lens.any())

    def camera_from_world(self, points: np.ndarray) -> np.ndarray:
        """(..., 3) float32 points in the camera's frame, metres."""
        orientation, centre = (torch.from_numpy(a) for a in (self.orientation, self.centre))
        return lens.camera_from_world(torch.from_numpy(np.asarray(points, np.float32)), orientation, centre).numpy()

    def pixels(self, points_cam: np.ndarray) -> np.ndarray:
        """(..., 2) float32 pixels of points (..., 3) in the camera's frame.

        Raises:
            ValueError: the camera has no lens.
        """
        if not self.has_lens:
            raise ValueError(
                f"The lens of camera {self.name} is not known. Use the key points of the data set's files."
            )
        screen = lens.project(torch.from_numpy(np.asarray(points_cam, np.float32)), torch.from_numpy(self.lens))
        return lens.pixels_from_screen(screen, self.size_wh).numpy()

    def screen(self, points_px: np.ndarray) -> np.ndarray:
        """(..., 2) float32 screen coordinates of pixels; further columns, such as confidence, are kept."""
        points = torch.from_numpy(np.asarray(points_px, np.float32))
        screen = lens.screen_from_pixels(points[..., :2], self.size_wh)
        return torch.cat([screen, points[..., 2:]], -1).numpy()


def no_lens() -> np.ndarray:
    """(9,) zeros: the lens of a camera of which nothing is known."""
    return np.zeros(9, np.float32)


@cache
def h36m_cameras() -> dict[str, tuple[LensCamera, ...]]:
    """Subject -> the four cameras of Human3.6M (Ionescu et al., TPAMI 2014)."""
    return _cameras("h36m")


@cache
def humaneva_cameras() -> dict[str, tuple[LensCamera, ...]]:
    """Subject S1, S2, S3 -> the three cameras of HumanEva-I (Sigal et al., IJCV 2010); no lens is known."""
    return _cameras("humaneva")


def h36m_fps() -> float:
    """Pictures a second of Human3.6M."""
    return float(_table()["h36m"]["fps"])


def humaneva_fps() -> float:
    """Pictures a second of HumanEva-I."""
    return float(_table()["humaneva"]["fps"])


@cache
def _table() -> dict[str, Any]:
    return json.loads(_TABLE.read_text(encoding="utf-8"))


def _cameras(name: str) -> dict[str, tuple[LensCamera, ...]]:
    table = _table()[name]
    return {
        subject: tuple(_camera(inner, outer) for inner, outer in zip(table["intrinsics"], poses, strict=True))
        for subject, poses in table["extrinsics"].items()
    }


def _camera(inner: dict[str, Any], outer: dict[str, Any]) -> LensCamera:
    size = (int(inner["res_w"]), int(inner["res_h"]))
    numbers = no_lens()
    if "focal_length" in inner:
        parts = ("focal_length", "center", "radial_distortion", "tangential_distortion")
        numbers = np.concatenate([np.asarray(inner[part], np.float32) for part in parts])
        numbers = lens.screen_lens(torch.from_numpy(numbers), size).numpy()
    orientation = np.asarray(outer["orientation"], np.float32)
    centre = np.asarray(outer["translation"], np.float32) / 1000
    return LensCamera(inner["id"], size, orientation, centre, numbers)
