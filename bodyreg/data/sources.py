"""What the preparers of data sets share: checking a download, sizes of pictures, intrinsics, boxes of posed bodies."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from bodyreg.data.annotations import box_around, visible_vertices
from bodyreg.files import MissingFileError

if TYPE_CHECKING:
    from bodyreg.body import BodyModel

__all__ = ["Bodies", "find_files", "image_size", "intrinsics", "placed", "read_json"]

Bodies = Mapping[str, "BodyModel"]
"""Body models by gender: neutral, male, female."""


def find_files(root: str | Path, patterns: Sequence[str], *, what: str, where: str) -> list[Path]:
    """Files below a data set's root, sorted, at least one for each pattern.

    Args:
        root: folder of the download. patterns: glob patterns below it.
        what: the data set, for the message. where: address it comes from.

    Raises:
        MissingFileError: patterns that match nothing, all of them, and where to get the files.
    """
    root = Path(root)
    found = {pattern: sorted(root.glob(pattern)) for pattern in patterns}
    missing = [pattern for pattern, paths in found.items() if not paths]
    if missing:
        raise MissingFileError(
            f"{what} is not complete in {root}: nothing matches {', '.join(missing)}. Get it at {where} and unpack it "
            "there."
        )
    return [path for paths in found.values() for path in paths]


def image_size(path: str | Path) -> tuple[int, int]:
    """Height and width in pixels, as stored; only the header is read.

    Raises:
        ValueError: no such picture, or none at all.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as image:
            return image.height, image.width
    except (OSError, UnidentifiedImageError) as error:
        raise ValueError(f"The picture {path} cannot be read ({error}). Unpack the data set's pictures.") from None


def read_json(path: str | Path) -> Any:
    """Content of a JSON file.

    Raises:
        ValueError: it is not JSON.
    """
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not a readable JSON file ({error}). Fetch it again.") from None


def intrinsics(camera: Mapping[str, Any]) -> np.ndarray:
    """(3, 3) intrinsics of a `cam_param` record: {f, c}, {focal, princpt} or {intrinsic_param: 3 x 3 or 4 x 4}.

    Raises:
        ValueError: none of these.
    """
    if "intrinsic_param" in camera:
        return np.array(camera["intrinsic_param"], dtype=np.float64)[:3, :3]
    for focal, centre in (("f", "c"), ("focal", "princpt")):
        if focal in camera and centre in camera:
            fx, fy = np.broadcast_to(np.asarray(camera[focal], np.float64), 2)
            cx, cy = np.asarray(camera[centre], np.float64)
            return np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1.0]])
    raise ValueError(f"A camera has the keys {sorted(camera)}. Give f and c, focal and princpt, or intrinsic_param.")


def placed(
    body: BodyModel, theta: np.ndarray, betas: np.ndarray, transl: np.ndarray, K: np.ndarray, size_hw: tuple[int, int]
) -> tuple[np.ndarray, int]:
    """Box (4,) around a posed body in a photograph, cut at its borders, and how many of its vertices are visible.

    Args:
        theta: (24, 3) axis-angle, camera frame. betas: (S,), filled up or cut to the body's. transl: (3,) metres.
        K: (3, 3). size_hw: of the photograph.
    """
    shape = np.zeros(body.num_betas)
    shape[: min(len(betas), body.num_betas)] = betas[: body.num_betas]
    parameters = (shape, theta[1:].reshape(-1), theta[0], transl)
    with torch.no_grad():
        posed = body(*(torch.as_tensor(np.asarray(x, np.float32))[None] for x in parameters))
    vertices = posed.vertices[0].double().numpy()
    homogeneous = vertices @ K.T
    px = homogeneous[:, :2] / np.maximum(homogeneous[:, 2:], 1e-6)
    seen = visible_vertices(px, vertices[:, 2], body.faces.numpy(), size_hw)
    return box_around(px, size_hw), int(seen.sum())
