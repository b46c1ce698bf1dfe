"""From the raw heads of a PersPose network to metric joints: soft-argmax, depths, densities, and the flip test.

The network reports, for 25 joints (SMPL's 24 and, last, the pelvis of the Human3.6M regressor), a position in the crop,
a depth relative to SMPL's pelvis and, once, the pelvis's density: its depth over the focal length, metres per pixel.
Together they place every joint in the crop's camera frame (PersPose, Hao and Li, ICCV 2025): OpenCV axes, metres.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from bodyreg import skeletons
from bodyreg.inverse_kinematics import LEAF_JOINTS
from bodyreg.rotations import matrix_from_6d, mirror_matrix

NUM_JOINTS = 25
_MIRROR = (*skeletons.get("smpl-24").mirror, 24)
_MIRROR_LEAVES = tuple(LEAF_JOINTS.index(_MIRROR[k]) for k in LEAF_JOINTS)
_DEPTH_RANGE_M = 2.2
_DENSITY_CENTRE, _DENSITY_LOG_RANGE = 7e-3, 3.0
_LEAF_EPS = 1e-6


class Readout(NamedTuple):
    """What the heads say, in units, before it is lifted into the camera frame."""

    uv: Tensor
    """(B, 25, 2) joints in the crop, pixels."""
    depth: Tensor
    """(B, 25, 1) depth relative to joint 0, metres; exactly 0 for joint 0."""
    rho0: Tensor
    """(B, 1, 1) density of joint 0, metres per pixel."""
    ortho_twist: Tensor
    """(B, 25, 3) orthogonal twist vectors in the crop's camera frame, of any length."""
    leaf_rot: Tensor
    """(B, 5, 3, 3) local rotations of `LEAF_JOINTS`."""
    beta: Tensor
    """(B, S) shape coefficients."""


class Decoded(NamedTuple):
    """A `Readout` together with the metric joints it implies."""

    uv: Tensor
    """(B, 25, 2) joints in the crop, pixels."""
    depth: Tensor
    """(B, 25, 1) depth relative to joint 0, metres."""
    rho0: Tensor
    """(B, 1, 1) density of joint 0, metres per pixel."""
    density: Tensor
    """(B, 25, 1) depth over focal length of every joint, metres per pixel."""
    xyz: Tensor
    """(B, 25, 3) joints relative to joint 0, crop's camera frame, metres."""
    xyz0: Tensor
    """(B, 1, 3) joint 0, crop's camera frame, metres."""
    ortho_twist: Tensor
    """(B, 25, 3) orthogonal twist vectors in the crop's camera frame, of any length."""
    leaf_rot: Tensor
    """(B, 5, 3, 3) local rotations of `LEAF_JOINTS`."""
    beta: Tensor
    """(B, S) shape coefficients."""


def decode(
    heatmap_logits: Tensor,
    depth_logit: Tensor,
    rho0_logit: Tensor,
    twist: Tensor,
    shape: Tensor,
    leaf6d: Tensor,
    K_crop: Tensor,
    stride: float = 4,
) -> Decoded:
    """Decode one pass of a network: `unproject(read_heads(...), K_crop)`; see these for shapes."""
    return unproject(read_heads(heatmap_logits, depth_logit, rho0_logit, twist, shape, leaf6d, stride), K_crop)


def read_heads(
    heatmap_logits: Tensor,
    depth_logit: Tensor,
    rho0_logit: Tensor,
    twist: Tensor,
    shape: Tensor,
    leaf6d: Tensor,
    stride: float = 4,
) -> Readout:
    """Turn raw head outputs into pixels, metres and rotations, in single precision at least.

    Args:
        heatmap_logits: (B, 25, h / stride, w / stride).
        depth_logit: (B, 25); depth = 2.2 (sigmoid - 0.5) metres.
        rho0_logit: (B, 1); density = 7e-3 exp(3 (sigmoid - 0.5)) metres per pixel.
        twist: (B, 75) or (B, 25, 3).
        shape: (B, S).
        leaf6d: (B, 30) or (B, 5, 6).
        stride: pixels of the crop per cell of the heatmap.
    """
    depth_logit, rho0_logit, twist, shape, leaf6d = (
        _single(x) for x in (depth_logit, rho0_logit, twist, shape, leaf6d)
    )
    depth = _DEPTH_RANGE_M * (torch.sigmoid(depth_logit) - 0.5)
    depth = torch.cat([torch.zeros_like(depth[:, :1]), depth[:, 1:]], dim=1)
    rho0 = _DENSITY_CENTRE * torch.exp(_DENSITY_LOG_RANGE * (torch.sigmoid(rho0_logit) - 0.5))
    return Readout(
        uv=soft_argmax(heatmap_logits, stride),
        depth=depth.unsqueeze(-1),
        rho0=rho0.reshape(-1, 1, 1),
        ortho_twist=twist.reshape(-1, NUM_JOINTS, 3),
        leaf_rot=matrix_from_6d(leaf6d.reshape(-1, len(LEAF_JOINTS), 6), eps=_LEAF_EPS),
        beta=shape,
    )


def soft_argmax(logits: Tensor, stride: float = 4) -> Tensor:
    """Expected pixel position (B, J, 2), x then y, under the softmax over all cells of logits (B, J, rows, columns).

    The cell in row i and column j stands for the pixel (stride (j + 0.5), stride (i + 0.5)).
    """
    rows, columns = logits.shape[-2:]
    p = torch.softmax(_single(logits).flatten(-2), dim=-1)
    x = stride * (torch.arange(columns, dtype=p.dtype, device=p.device) + 0.5)
    y = stride * (torch.arange(rows, dtype=p.dtype, device=p.device) + 0.5)
    # One sum over all cells, as the published network does it: in single precision, marginals differ by 3e-5 pixels.
    return torch.stack([(p * x.repeat(rows)).sum(-1), (p * y.repeat_interleave(columns)).sum(-1)], dim=-1)


def unmirror(readout: Readout, width: int) -> Readout:
    """What the heads say about the original crop, from a `Readout` of the mirrored one (or the other way round).

    Left and right joints change places, u -> width - u, twists and leaf rotations are mirrored at x = 0.
    """
    signs = readout.ortho_twist.new_tensor([-1.0, 1.0, 1.0])
    uv = readout.uv[:, _MIRROR]
    return Readout(
        uv=torch.stack([width - uv[..., 0], uv[..., 1]], dim=-1),
        depth=readout.depth[:, _MIRROR],
        rho0=readout.rho0,
        ortho_twist=readout.ortho_twist[:, _MIRROR] * signs,
        leaf_rot=mirror_matrix(readout.leaf_rot[:, _MIRROR_LEAVES]),
        beta=readout.beta,
    )


def merge(plain: Readout, unmirrored: Readout) -> Readout:
    """Flip test: the mean of the plain pass and the un-mirrored pass; leaf rotations come from the plain pass alone."""
    mean = Readout(*((a + b) / 2 for a, b in zip(plain, unmirrored, strict=True)))
    return mean._replace(leaf_rot=plain.leaf_rot)


def unproject(readout: Readout, K_crop: Tensor) -> Decoded:
    """Lift a `Readout` into the camera frame of the crop.

    With f the mean focal length and pp the principal point: density_j = depth_j / f + rho0, xy_j = (uv_j - pp)
    density_j, joints relative to joint 0 (xy_j - xy_0, depth_j), joint 0 at (xy_0, f density_0).

    Args:
        readout: of the crop.
        K_crop: (B, 3, 3) intrinsics of the crop, pixels.
    """
    K = K_crop.to(readout.uv)
    f = ((K[:, 0, 0] + K[:, 1, 1]) / 2)[:, None, None]
    density = readout.depth / f + readout.rho0
    xy = (readout.uv - K[:, None, :2, 2]) * density
    return Decoded(
        uv=readout.uv,
        depth=readout.depth,
        rho0=readout.rho0,
        density=density,
        xyz=torch.cat([xy - xy[:, :1], readout.depth], dim=-1),
        xyz0=torch.cat([xy[:, :1], f * density[:, :1]], dim=-1),
        ortho_twist=readout.ortho_twist,
        leaf_rot=readout.leaf_rot,
        beta=readout.beta,
    )


def _single(x: Tensor) -> Tensor:
    """At least single precision: half-precision heads of a mixed-precision network are decoded in float32."""
    return x if x.dtype == torch.float64 else x.float()
