"""The front of the rasteriser: triangles in normalised device coordinates to per-pixel fragments.

Frame, pixel centres and every rule of coverage, order and padding are PyTorch3D's (Ravi et al., 2020), so that results
can be exchanged: x left, y up, the shorter image side spans [-1, 1], z is the view depth in world units. Gradients are
the true ones also where the reference's are not: with perspective correction and clipping, barycentric coordinates are
clipped first and corrected afterwards, which gives the same values with denominators that cannot vanish.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from renderers.backends import choose, operation
from renderers.clipping import clip_faces


class Fragments(NamedTuple):
    """The faces at every pixel, nearest first; slots without a face hold -1 in all four."""

    pix_to_face: Tensor
    """(N, H, W, K) int64 index into the packed faces of the batch."""
    zbuf: Tensor
    """(N, H, W, K) view depth."""
    bary: Tensor
    """(N, H, W, K, 3) barycentric coordinates."""
    dists: Tensor
    """(N, H, W, K) squared NDC distance to the nearest edge, negative inside the face."""


class Settings(NamedTuple):
    """What every back end takes, besides the faces."""

    size_hw: tuple[int, int]
    blur: float
    k: int
    perspective: bool
    clip: bool
    cull: bool


def rasterize(
    face_verts: Tensor,
    faces_per_mesh: Sequence[int] | None = None,
    *,
    image_size: int | tuple[int, int] = 256,
    blur_radius: float = 0.0,
    faces_per_pixel: int = 8,
    perspective_correct: bool = True,
    clip_barycentric: bool | None = None,
    cull_backfaces: bool = False,
    z_clip: float | None = None,
    backend: str | None = None,
    threads: int | None = None,
) -> Fragments:
    """Find the `faces_per_pixel` nearest faces at every pixel centre of every image.

    Args:
        face_verts: (F, 3, 3) corners of the faces of all meshes, packed: x and y in NDC, view depth z. Differentiable.
        faces_per_mesh: number of faces of each of the N meshes, in order; one mesh by default.
        image_size: (H, W) or one number for a square, pixels.
        blur_radius: squared NDC distance outside its edges at which a face still counts.
        perspective_correct: correct barycentric coordinates for perspective.
        clip_barycentric: limit them to [0, 1]; by default where there is blur.
        cull_backfaces: leave out faces whose corners run clockwise as displayed.
        z_clip: depth at which faces are cut (None: a face with a corner at or behind the camera is left out).
        backend: one of `renderers.backends.BACKENDS`; by default by device and precision, see `backends.choose`.
        threads: of the cpu back end, see `renderers.threads.thread_count`; results do not depend on it.

    Raises:
        ValueError: wrong shapes, counts that do not add up, vertices that are not finite, a back end that is not
            installed or cannot take these faces.
    """
    size_hw = (image_size, image_size) if isinstance(image_size, int) else (int(image_size[0]), int(image_size[1]))
    counts = [len(face_verts)] if faces_per_mesh is None else [int(n) for n in faces_per_mesh]
    check_faces(face_verts, counts, size_hw, blur_radius, faces_per_pixel)
    clip = blur_radius > 0 if clip_barycentric is None else clip_barycentric
    settings = Settings(size_hw, float(blur_radius), faces_per_pixel, perspective_correct, clip, cull_backfaces)
    if z_clip is None:
        return _dispatch(face_verts, counts, None, settings, backend, threads)

    clipped = clip_faces(face_verts, z_clip, perspective=perspective_correct)
    fragments = _dispatch(clipped.face_verts, clipped.counts(counts), clipped.neighbour, settings, backend, threads)
    hit = fragments.pix_to_face >= 0
    piece = fragments.pix_to_face[hit]
    bary = fragments.bary.clone()
    # Written out: a matrix product rounds as the device likes.
    (a, b, c), (u, v, w) = clipped.bary[piece].unbind(-1), fragments.bary[hit][:, :, None].unbind(1)
    bary[hit] = a * u + b * v + c * w
    pix_to_face = fragments.pix_to_face.clone()
    pix_to_face[hit] = clipped.face[piece]
    return Fragments(pix_to_face, fragments.zbuf, bary, fragments.dists)


def pixel_centres(size: int, other: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """NDC coordinate of the pixel centres along a side of `size` pixels, from the left (or top) on: falling values.

    `other` is the length of the other side. The order of operations, in the given precision, is part of the rule: it
    decides which pixels lie inside a face.
    """
    span = torch.tensor(2.0, dtype=dtype)
    if size > other:
        span = span * size / other
    offset = span / 2
    index = torch.arange(size - 1, -1, -1).to(dtype)
    return -offset + (span * index + offset) / size


def _dispatch(
    face_verts: Tensor,
    counts: list[int],
    neighbour: Tensor | None,
    settings: Settings,
    backend: str | None,
    threads: int | None,
) -> Fragments:
    compute = operation(choose(face_verts, backend), "rasterize_fragments")
    return Fragments(*compute(face_verts, counts, neighbour, settings, threads))


def _finite(values: Tensor) -> bool:
    # A sum is finite only if all its terms are; where it is not, they are looked at one by one. On the CPU NumPy adds
    # up: torch would do so in threads of its own, which go on spinning for milliseconds on the cores that draw next.
    if values.dtype in (torch.float32, torch.float64) and values.device.type == "cpu":
        with np.errstate(all="ignore"):
            return bool(np.isfinite(values.numpy().sum()) or np.isfinite(values.numpy()).all())
    return bool(torch.isfinite(values.sum()) or torch.isfinite(values).all())


def check_faces(face_verts: Tensor, counts: list[int], size_hw: tuple[int, int], blur: float, k: int) -> None:
    """Refuse what cannot be drawn, with a message that says why."""
    if face_verts.ndim != 3 or face_verts.shape[1:] != (3, 3):
        raise ValueError(f"The faces have shape {tuple(face_verts.shape)}. Give (F, 3, 3) corners: x, y, depth.")
    if not face_verts.is_floating_point():
        raise ValueError(f"The faces are {face_verts.dtype}. Give floating point numbers.")
    if not _finite(face_verts.detach()):
        bad = int((~torch.isfinite(face_verts.detach())).flatten(1).any(1).nonzero()[0, 0])
        raise ValueError(f"Face {bad} has a corner that is not finite. Repair or remove such vertices first.")
    if sum(counts) != len(face_verts) or min(counts, default=0) < 0:
        raise ValueError(f"faces_per_mesh adds up to {sum(counts)} of {len(face_verts)}. Give a count per mesh.")
    if min(size_hw) < 1 or k < 1 or not blur >= 0:
        raise ValueError(
            f"The image is {size_hw[0]} x {size_hw[1]} with {k} faces per pixel and blur {blur}. "
            "Give at least 1, 1, 1 and a blur of 0 or more."
        )
