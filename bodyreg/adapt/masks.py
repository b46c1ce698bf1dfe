"""What a picture's silhouette or parsing map says about bodies, as a further cost for `bodyreg.adapt.meshes`.

The body is rendered softly into a square window about the person and compared: with a silhouette by intersection over
union; with a parsing map by DSR's losses (Dwivedi et al., ICCV 2021), which ask only bare skin and shoes to overlap and
the body to stay inside its clothes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from bodyreg.adapt.meshes import ImageTerm
from bodyreg.body import BodyModel
from bodyreg.losses.semantic import PRESETS, dsr_losses, ndc_vertices
from bodyreg.losses.semantic_pixels import image_iou_loss
from priors.clothing import ClothingPrior
from renderers.soft import soft_silhouette

__all__ = ["Windows", "parsing_term", "silhouette_term", "windows"]

SIZE = 64
"""Side of the windows, pixels: a body's outline to a few centimetres, at a few hundredths of a second a person."""
_AROUND = 1.3  # a window is this many times the box
# Softness of outlines, squared NDC, a third of a window's pixel: hundreds of small faces add up beyond an outline, and
# ten times as much makes arms twice as thick.
_SIGMA = 1e-4
_NEAREST = 0.05  # metres before the camera that a body must keep to be rendered


class Windows(NamedTuple):
    """values (B, n, n) uint8 masks or label maps; K (B, 3, 3) intrinsics of the windows; given (B,) bool."""

    values: Tensor
    K: Tensor
    given: Tensor


def windows(maps: Sequence[np.ndarray | None], boxes_xywh: np.ndarray, K: np.ndarray, size: int = SIZE) -> Windows:
    """Square windows of full-size maps about people's boxes.

    Args:
        maps: B (H, W) uint8 maps of the photographs, None where there is none; outside them is background.
        boxes_xywh: (B, 4) pixels. K: (B, 3, 3) intrinsics of the photographs.
    """
    values, cameras = [], []
    for picture, box, camera in zip(maps, boxes_xywh, K, strict=True):
        side = _AROUND * max(box[2:])
        corner = box[:2] + box[2:] / 2 - side / 2
        window_from_full = np.array([[1, 0, -corner[0]], [0, 1, -corner[1]], [0, 0, side / size]]) * (size / side)
        cameras.append(window_from_full @ camera)
        values.append(np.zeros((size, size), np.uint8) if picture is None else _cut(picture, corner, side, size))
    given = torch.tensor([picture is not None for picture in maps])
    return Windows(torch.from_numpy(np.stack(values)), torch.from_numpy(np.stack(cameras)).float(), given)


def silhouette_term(body: BodyModel, masks: Windows) -> ImageTerm:
    """One minus the soft intersection over union of body and mask (any value above 0); 0 where none is given."""

    def cost(vertices: Tensor, rows: Tensor) -> Tensor:
        chosen = Windows(*(value.to(vertices.device)[rows] for value in masks))
        points = ndc_vertices(vertices, chosen.K.to(vertices), _size(chosen))
        seen = chosen.given & _renderable(points)
        out = vertices.new_zeros(len(vertices))
        if not seen.any():
            return out
        faces = points[seen][:, body.faces]
        picture = soft_silhouette(
            faces.flatten(0, 1), [faces.shape[1]] * len(faces), image_size=_size(chosen), sigma=_SIGMA
        )
        mask = (chosen.values[seen] > 0).to(picture)
        return out.index_put((seen.nonzero()[:, 0],), image_iou_loss(picture, mask))

    return cost


def parsing_term(body: BodyModel, labels: Windows, prior: ClothingPrior | None = None) -> ImageTerm:
    """DSR-MC and DSR-C of LIP's 20 labels with the corrected preset; 0 where none are given.

    Raises:
        ValueError: a clothing prior of another body.
    """
    prior = prior or ClothingPrior.load(faces=len(body.faces))
    prior.check_faces(body.faces.cpu().numpy())
    table = torch.from_numpy(prior.probabilities).to(body.weights)
    options = replace(PRESETS["corrected"], image_size=labels.values.shape[-1], sigma=_SIGMA)

    def cost(vertices: Tensor, rows: Tensor) -> Tensor:
        chosen = Windows(*(value.to(vertices.device)[rows] for value in labels))
        pivot = vertices.detach()[..., 2].mean(1)
        points = ndc_vertices(vertices, chosen.K.to(vertices), _size(chosen), pivot=pivot)
        values = torch.where(chosen.given[:, None, None], chosen.values, 0)
        losses = dsr_losses(points, body.faces, table, values, options)
        return losses.mc_each + losses.c_each

    return cost


def _cut(picture: np.ndarray, corner: np.ndarray, side: float, size: int) -> np.ndarray:
    """(size, size) nearest pixels of a square of the picture; background beyond its border."""
    centres = (np.arange(size) + 0.5) * side / size
    x, y = np.floor(corner[0] + centres).astype(int), np.floor(corner[1] + centres).astype(int)
    inside = ((y >= 0) & (y < picture.shape[0]))[:, None] & ((x >= 0) & (x < picture.shape[1]))[None]
    cut = picture[np.ix_(y.clip(0, picture.shape[0] - 1), x.clip(0, picture.shape[1] - 1))]
    return np.where(inside, cut, 0).astype(np.uint8)


def _size(chosen: Windows) -> tuple[int, int]:
    return chosen.values.shape[-2], chosen.values.shape[-1]


def _renderable(points: Tensor) -> Tensor:
    flat = points.detach()
    return flat.isfinite().flatten(1).all(1) & (flat[..., 2] > _NEAREST).all(1)
