"""Global position alignment: source poses put where the target's 2D poses lie, at their size (GPA)."""

from __future__ import annotations

import torch
from torch import Tensor

from bodyreg import lens

__all__ = ["align_position", "draw_pairs", "usable"]

# A target box smaller than this, or a joint nearer than this, says nothing of a distance.
_SMALLEST_BOX, _NEAREST = 1e-3, 0.2


def align_position(source: Tensor, target: Tensor, camera: Tensor, *, refine: int = 0) -> Tensor:
    """Move each source pose so that its image takes the place and the size of its target pose.

    The root projects exactly onto the target's; under weak perspective the image's box has exactly the target's sum of
    width and height, under full perspective to a few per cent, which `refine` steps take away. Orientation and shape
    are untouched. Differentiable in the source.

    Args:
        source: (N, J, 3) joints in the camera's frame, metres; or (N, T, J, 3) clips, whose motion relative to their
            centre frame's root is kept. target: (N, J, 2) normalised screen coordinates.
        camera: (N, 4) or (4,) fx fy cx cy of these coordinates; further numbers (distortion) are not used.
        refine: fixed-point steps on the depth (ours).

    Returns:
        (N, J, 3) or (N, T, J, 3) aligned joints. Degenerate rows are told by `usable`.
    """
    if source.ndim == 4:
        middle = source[:, source.shape[1] // 2]
        shift = align_position(middle, target, camera, refine=refine)[:, :1] - middle[:, :1]
        return source + shift[:, None]
    focal, centre = camera[..., :2], camera[..., 2:4]
    box = _extent(target).sum(-1)
    body = (focal * _extent(source[..., :2])).sum(-1)
    ray = (target[:, 0] - centre) / focal
    shape = source - source[:, :1]
    depth = body / box.clamp(min=1e-12)

    def placed(depth: Tensor) -> Tensor:
        return shape + torch.cat([ray * depth[:, None], depth[:, None]], -1)[:, None]

    for _ in range(refine):
        image = lens.project_linear(placed(depth), camera.unsqueeze(-2))
        depth = depth * _extent(image).sum(-1) / box.clamp(min=1e-12)
    return placed(depth)


def usable(aligned: Tensor, target: Tensor) -> Tensor:
    """(N,) rows whose target has an extent and whose joints all lie before the camera (ours)."""
    box = _extent(target).sum(-1) / 2
    return (box >= _SMALLEST_BOX) & (aligned[..., 2].flatten(1).amin(1) > _NEAREST)


def draw_pairs(sources: int, targets: int, generator: torch.Generator | None = None) -> Tensor:
    """(sources,) target rows: each once while they last, in random order, then drawn again (ours)."""
    rounds = -(-sources // targets)
    order = [torch.randperm(targets, generator=generator) for _ in range(rounds)]
    return torch.cat(order)[:sources]


def _extent(points: Tensor) -> Tensor:
    """Width and height (..., 2) of the box around (..., J, 2)."""
    return points.amax(-2) - points.amin(-2)
