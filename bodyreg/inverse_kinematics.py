"""Inverse kinematics: from 24 joints and orthogonal twists to SMPL pose, shape and translation, without iterations.

The analytic solver of PersPose (Hao and Li, ICCV 2025), in the line of HybrIK (Li et al., CVPR 2021): the pelvis is
fitted to its three neighbours, the chain is walked outwards with bones of the body's own lengths, the spine's
branching is a Kabsch rotation, and what a bone's direction leaves open, the turn about it, comes from a regressed
vector perpendicular to the bone. The first shape number, which is mostly stature, is searched on a grid so that the
body fits the joints as seen.

All samples, and all grid values, are solved at once; joints of the same depth in the skeleton too. Everything is
metres in one camera frame (OpenCV axes). Derivatives are finite for every input: where the method rounds or jumps, the
derivative is that of the smooth rotation beside it (see `bodyreg.rotations.swing`), and the searched shape number
passes its derivative straight through to the regressed one.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal, NamedTuple

import torch
from torch import Tensor

from bodyreg import skeletons
from bodyreg.rotations import kabsch, rodrigues, swing, swing_angle, unit

if TYPE_CHECKING:
    from bodyreg.body import BodyModel

PARENTS = skeletons.get("smpl-24").parents
"""SMPL's kinematic tree; the pelvis's -1 also serves as an index where the method lets it."""
LEAF_JOINTS = (22, 23, 10, 11, 15)
"""Joints whose local rotation is not to be had from joint positions, in the order of the regressed rotations."""
TWIST_JOINTS = (4, 5, 6, 7, 8, 9, 10, 11, 15, 16, 17, 18, 19, 20, 21, 22, 23)
"""Joints whose orthogonal twist is used: those that alone decide the rotation of their parent."""
BETA0_GRID = tuple(i / 10 for i in range(-20, 20))
"""Values tried for the first shape number."""

# Joints in the order they are placed: all joints of a tuple have parents in earlier ones.
_LEVELS_BEFORE_SPINE = ((4, 5, 6), (7, 8, 9), (10, 11))
_LEVELS_AFTER_SPINE = ((15, 16, 17), (18, 19), (20, 21), (22, 23))
_SPINE, _SPINE_CHILDREN = 9, (14, 12, 13)
# Aimed bones whose direction differs by less than this from the way to the aimed joint do not replace it, metres.
_BONE_TOLERANCE = 0.015
_DEGENERATE = 1e-9

Mode = Literal["xy", "final"]


class Solved(NamedTuple):
    """Joints reached with the body's own bone lengths."""

    joints: Tensor
    """(B, 24, 3) joints, metres; the root is fitted and generally not the aimed one."""
    bones: Tensor
    """(B, 24, 3) each joint minus its parent; row 0 is joint 0 itself."""
    R0: Tensor
    """(B, 3, 3) global rotation of the pelvis."""
    R9: Tensor
    """(B, 3, 3) global rotation of the upper spine, joint 9."""


class IKResult(NamedTuple):
    """SMPL parameters of the solution, ready for `BodyModel.forward`."""

    R_local: Tensor
    """(B, 24, 3, 3) rotations relative to the parent, the global orientation first."""
    transl: Tensor
    """(B, 3) translation, metres."""
    betas: Tensor
    """(B, S) shape numbers, the first one searched."""


def inverse_kinematics(
    body: BodyModel, joints24: Tensor, ortho_twist: Tensor, betas: Tensor, leaf_rot: Tensor, *, search: bool = True
) -> IKResult:
    """Pose, shape and place `body` so that it meets the joints.

    Args:
        body: the body whose bones are used; its parameters' type decides the precision.
        joints24: (B, 24, 3) aimed SMPL joints in the camera frame, metres.
        ortho_twist: (B, 24 or more, 3) orthogonal twists of the joints, camera frame, of any length; see `ortho_twist`.
        betas: (B, S) regressed shape numbers.
        leaf_rot: (B, 5, 3, 3) local rotations of `LEAF_JOINTS`.
        search: False keeps the first shape number as regressed.

    A sample with NaN comes out as NaN and leaves the others alone.
    """
    with torch.autocast(device_type=joints24.device.type, enabled=False):
        dtype = body.v_template.dtype
        joints24, ortho_twist, betas, leaf_rot = (x.to(dtype) for x in (joints24, ortho_twist, betas, leaf_rot))
        if search:
            betas = search_beta0(body, joints24, betas)
        rest = body.rest_joints(betas)
        solved = solve(joints24, rest, "final")
        R_local = compose(solved, rest, ortho_twist[:, :24], leaf_rot)
        return IKResult(R_local, solved.joints[:, 0] - rest[:, 0], betas)


def search_beta0(body: BodyModel, joints24: Tensor, betas: Tensor) -> Tensor:
    """Replace the first shape number by the grid value whose body best covers the joints as the camera sees them.

    The cost of a value is the mean distance in x and y between the aimed joints and those of mode "xy"; the first of
    equal values wins. The derivative of the searched number passes straight through to the regressed one.

    Args:
        body: gives the rest joints.
        joints24: (B, 24, 3) aimed joints, metres.
        betas: (B, S).

    Returns:
        (B, S) betas with the first column replaced.
    """
    with torch.no_grad():
        grid = torch.tensor(BETA0_GRID, dtype=torch.float32, device=betas.device).to(betas.dtype)
        batch, values = len(betas), len(grid)
        tried = betas.unsqueeze(1).repeat(1, values, 1)
        tried[..., 0] = grid
        aim = joints24.repeat_interleave(values, dim=0)
        reached = solve(aim, body.rest_joints(tried.flatten(0, 1)), "xy").joints
        cost = torch.linalg.vector_norm((reached - aim)[..., :2], dim=-1).mean(-1).view(batch, values)
        best = grid[cost.argmin(dim=1)]
    first = best + (betas[:, 0] - betas[:, 0].detach())
    return torch.cat([first[:, None], betas[:, 1:]], dim=1)


def solve(aim: Tensor, rest: Tensor, mode: Mode = "final") -> Solved:
    """Reach for the aimed joints with the bones of the rest pose.

    Args:
        aim: (B, 24, 3) aimed joints in the camera frame, metres.
        rest: (B, 24, 3) rest-pose joints, metres.
        mode: "xy" keeps each joint's aimed x and y where the bone is long enough and lets depth give way; "final" aims
        at
            the joint from where the chain has got to, or along the aimed bone where the two differ by 15 mm or more.
    """
    if mode not in ("xy", "final"):
        raise ValueError(f"Unknown mode {mode!r}. Use 'xy' or 'final'.")
    root = aim[:, :1]
    aim, rest = aim - root, rest - rest[:, :1]
    rest_bones = rest - rest[:, PARENTS]
    R0, t0 = fit_pelvis(rest[:, 1:4], aim[:, 1:4])
    reached: list[Tensor] = [t0] + [(R0 @ rest[:, k, :, None])[..., 0] + t0 for k in (1, 2, 3)] + [t0] * 20

    def walk(level: tuple[int, ...]) -> None:
        parents = [PARENTS[k] for k in level]
        start = torch.stack([reached[p] for p in parents], dim=1)
        bones = _place(aim[:, level], start, aim[:, parents], rest_bones[:, level], mode)
        for k, joint in zip(level, (start + bones).unbind(1), strict=True):
            reached[k] = joint

    for level in _LEVELS_BEFORE_SPINE:
        walk(level)
    spine = reached[_SPINE]
    R9 = kabsch(rest_bones[:, _SPINE_CHILDREN], aim[:, _SPINE_CHILDREN] - spine[:, None])
    for k in _SPINE_CHILDREN:
        reached[k] = spine + (R9 @ rest_bones[:, k, :, None])[..., 0]
    for level in _LEVELS_AFTER_SPINE:
        walk(level)

    joints = torch.stack(reached, dim=1) + root
    bones = torch.cat([joints[:, :1], joints[:, 1:] - joints[:, PARENTS[1:]]], dim=1)
    return Solved(joints, bones, R0, R9)


def _place(aim: Tensor, start: Tensor, aim_parent: Tensor, rest_bone: Tensor, mode: Mode) -> Tensor:
    """Posed bones (B, K, 3) from `start` towards the aimed joints, as long as the rest bones."""
    length = torch.linalg.vector_norm(rest_bone, dim=-1, keepdim=True)
    way = aim - start
    bone = length * _direction(way, rest_bone)
    if mode == "xy":
        left = length.square() - way[..., :2].square().sum(-1, keepdim=True)
        reaches = left > 0
        dz = torch.sqrt(torch.where(reaches, left, torch.ones_like(left)))
        return torch.where(reaches, torch.cat([way[..., :2], torch.sign(way[..., 2:]) * dz], dim=-1), bone)
    aimed_bone = length * _direction(aim - aim_parent, rest_bone)
    far = torch.linalg.vector_norm((aimed_bone - bone).detach(), dim=-1, keepdim=True) >= _BONE_TOLERANCE
    return torch.where(far, aimed_bone, bone)


def _direction(v: Tensor, instead: Tensor) -> Tensor:
    """Unit vectors of v, or of `instead` where v has no direction, so that bones keep their length."""
    short = torch.linalg.vector_norm(v.detach(), dim=-1, keepdim=True) <= _DEGENERATE
    return unit(torch.where(short, instead, v))


def fit_pelvis(rest: Tensor, aim: Tensor) -> tuple[Tensor, Tensor]:
    """Rigid motion of the pelvis from the triangle of its neighbours (both hips and the lower spine).

    The triangle's plane is swung onto the aimed plane; within it, the turn is the mean of the three corners' turns
    about the centroid, two at a time, on the circle.

    Args:
        rest: (B, 3, 3) corners in the rest pose.
        aim: (B, 3, 3) aimed corners.

    Returns:
        R0 (B, 3, 3) and t0 (B, 3), with aim = R0 rest + t0 in the mean.
    """
    c1, c2 = rest.mean(1), aim.mean(1)
    n1, n2 = (torch.linalg.cross(p[:, 1] - p[:, 0], p[:, 2] - p[:, 0], dim=-1) for p in (rest, aim))
    R1 = swing(n1, n2)
    swung = (rest - c1[:, None]) @ R1.mT
    angles = _signed_angle(swung, aim - c2[:, None], n2[:, None])
    angle = _mean_angle(_mean_angle(angles[:, 0], angles[:, 1]), angles[:, 2])
    R0 = rodrigues(unit(n2) * angle[:, None]) @ R1
    return R0, c2 - (R0 @ c1[..., None])[..., 0]


def _signed_angle(v1: Tensor, v2: Tensor, normal: Tensor) -> Tensor:
    """Angles (...,) from v1 to v2 about `normal` as PersPose rounds them, with the derivative of the unrounded
    angle."""
    sine = (torch.linalg.cross(v1, v2, dim=-1) * unit(normal)).sum(-1)
    magnitude = swing_angle(v1.detach(), v2.detach())
    angle = torch.where(sine.detach() > 0, magnitude, -magnitude)
    if not (torch.is_grad_enabled() and sine.requires_grad):
        return angle
    cosine = (v1 * v2).sum(-1)
    somewhere = (sine.detach().square() + cosine.detach().square()) > _DEGENERATE**2
    sine = torch.where(somewhere, sine, torch.zeros_like(sine))
    smooth = torch.atan2(sine, torch.where(somewhere, cosine, torch.ones_like(cosine)))
    return angle + (smooth - smooth.detach())


def _mean_angle(x: Tensor, y: Tensor) -> Tensor:
    """Mean of two angles on the circle: half the sum, turned round where the angles lie more than pi apart."""
    turn = torch.where(x + y > 0, math.pi, -math.pi)
    return (x + y) / 2 - torch.where((x - y).abs() > math.pi, turn, torch.zeros_like(turn)).to(x)


def compose(solved: Solved, rest: Tensor, ortho_twist: Tensor, leaf_rot: Tensor) -> Tensor:
    """Local rotations from posed bones and twists.

    Each bone with its twist is a frame F = [bone, twist, bone x twist]; F_posed F_rest^T is the global rotation of the
    joint the bone starts from. Pelvis and upper spine, from which several bones start, have their own rotations.

    Args:
        solved: of mode "final".
        rest: (B, 24, 3) rest-pose joints of the same betas.
        ortho_twist: (B, 24, 3) orthogonal twists, camera frame; their part along the bone is taken away.
        leaf_rot: (B, 5, 3, 3) local rotations of `LEAF_JOINTS`.

    Returns:
        (B, 24, 3, 3) rotations relative to the parent; the first is the global orientation.
    """
    children = list(TWIST_JOINTS)
    rest_bones = rest - rest[:, PARENTS]
    posed = _frame(solved.bones[:, children], ortho_twist[:, children])
    resting = _frame(rest_bones[:, children], rest_twist(rest)[:, children])
    of_parent = dict(zip((PARENTS[k] for k in children), (posed @ resting.mT).unbind(1), strict=True))
    # Joint 9 carries no bone of its own in `children`; joints 10, 11, 15, 22, 23 carry none at all.
    R_global = [of_parent.get(k, solved.R0) for k in range(24)]
    R_global[0], R_global[_SPINE] = solved.R0, solved.R9
    G = torch.stack(R_global, dim=1)
    local = list(torch.cat([G[:, :1], G[:, PARENTS[1:]].mT @ G[:, 1:]], dim=1).unbind(1))
    for k, R in zip(LEAF_JOINTS, leaf_rot.unbind(1), strict=True):
        local[k] = R
    return torch.stack(local, dim=1)


def _frame(bone: Tensor, twist: Tensor) -> Tensor:
    """Rotation (..., 3, 3) with columns bone, twist made perpendicular to it, and their cross product."""
    b = unit(bone)
    t = twist - (twist * b).sum(-1, keepdim=True) * b
    # A twist along the bone says nothing: any perpendicular keeps the frame a rotation.
    spare = torch.nn.functional.one_hot(b.detach().abs().argmin(-1), 3).to(b)
    spare = spare - (spare * b).sum(-1, keepdim=True) * b
    t = _direction(t, spare)
    return torch.stack([b, t, torch.linalg.cross(b, t, dim=-1)], dim=-1)


def rest_twist(rest: Tensor) -> Tensor:
    """Orthogonal twists (B, 24, 3) of the rest pose: unit vectors perpendicular to each joint's bone.

    For the bone b = joint - parent: -normalise(-b_x b_z / (b_x^2 + b_y^2), -b_y b_z / (b_x^2 + b_y^2), 1), the
    direction away from z within the plane of b and z. The pelvis's row is finite and means nothing.
    """
    b = rest - rest[:, PARENTS]
    across = b[..., :2].square().sum(-1, keepdim=True)
    along_z = across.detach() <= _DEGENERATE**2
    xy = -b[..., :2] * b[..., 2:] / torch.where(along_z, torch.ones_like(across), across)
    twist = -unit(torch.cat([xy, torch.ones_like(across)], dim=-1))
    return torch.where(along_z, b.new_tensor([1.0, 0.0, 0.0]), twist)


def ortho_twist(rest: Tensor, R_global: Tensor) -> Tensor:
    """Orthogonal twists (B, 24, 3) of a posed body, the training label: the rest twist turned with the parent joint.

    Args:
        rest: (B, 24, 3) rest-pose joints.
        R_global: (B, 24, 3, 3) rotations of the joints relative to the camera frame (`BodyOutput.R_global`).
    """
    return (R_global[:, PARENTS] @ rest_twist(rest)[..., None])[..., 0]
