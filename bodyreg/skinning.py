"""SMPL's linear blend skinning on plain tensors, arranged for speed.

Formulas: Loper et al., "SMPL: A Skinned Multi-Person Linear Model" (SIGGRAPH Asia 2015). The arrangement
is ours: shape and pose correctives are one matrix product, coordinates are stored before vertices so that everything
runs along contiguous memory, and the chain is walked by levels of the tree instead of joint by joint. On processors, in
float32, kernels do the same (`bodyreg.skinning_cpu`).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

#: Without gradients the batch is skinned in slices of this many bodies, so that the memory for blended transforms
#: (12 numbers a vertex) stays small; measured fastest on one thread for 6,890 vertices among 4, 8, 16, 32.
SLICE = 32


class SparseWeights(NamedTuple):
    """The weights (V, 24) that are not zero and their joints: those of vertex v are from begin[v] to begin[v + 1]."""

    begin: np.ndarray
    joint: np.ndarray
    weight: np.ndarray

    @staticmethod
    def of(weights: np.ndarray, dtype: type = np.float32) -> SparseWeights | None:
        """None where vertices hang on so many joints, more than eight in the mean, that nothing is won."""
        vertex, joint = np.nonzero(weights)
        if len(vertex) > 8 * len(weights):
            return None
        begin = np.searchsorted(vertex, np.arange(len(weights) + 1))
        return SparseWeights(begin, joint, weights[vertex, joint].astype(dtype))


class SkinningTensors(NamedTuple):
    """template (1, 3V), x of all vertices first; dirs (S + 207, 3V) shape then pose correctives, fastest if its
    transpose is contiguous; rest (24, 3) joints of the mean shape and rest_dirs (S, 72) their change with each beta;
    weights (V, 24), and the same as `sparse` for processors. Metres."""

    template: Tensor
    dirs: Tensor
    rest: Tensor
    rest_dirs: Tensor
    weights: Tensor
    sparse: SparseWeights | None = None


class Tree(NamedTuple):
    """parents: index of each joint's parent, root first; levels: the other joints grouped by distance from the root."""

    parents: tuple[int, ...]
    levels: tuple[tuple[int, ...], ...]

    @staticmethod
    def of(parents: tuple[int, ...]) -> Tree:
        """The tree of parents that come before their children."""
        depth = [0] * len(parents)
        for j in range(1, len(parents)):
            depth[j] = depth[parents[j]] + 1
        levels = (tuple(j for j in range(len(parents)) if depth[j] == d) for d in range(1, max(depth) + 1))
        return Tree(parents, tuple(levels))


def coordinate_major(dirs: np.ndarray) -> np.ndarray:
    """(V, 3, K) -> (K, 3V) with all x first, then y, then z."""
    return dirs.transpose(2, 1, 0).reshape(dirs.shape[2], -1)


def skin(model: SkinningTensors, tree: Tree, betas: Tensor, R_local: Tensor,
         transl: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Pose bodies: betas (B, S), R_local (B, 24, 3, 3), transl (B, 3) metres.

    Returns:
        (B, V, 3) vertices, (B, 24, 3) joints, (B, 24, 3, 3) global rotations.
    """
    if _fused(model, betas, R_local, transl):
        from bodyreg.skinning_cpu import FusedSkinning  # Numba is slow to import

        return FusedSkinning.apply(model, tree, betas.contiguous(), R_local.contiguous(), transl.contiguous())
    return skin_plain(model, tree, betas, R_local, transl)


def _fused(model: SkinningTensors, *inputs: Tensor) -> bool:
    """Whether the kernels can do it. Whoever transforms or compiles functions of tensors gets plain operations."""
    return (
        model.sparse is not None
        and all(x.device.type == "cpu" and x.dtype == torch.float32 for x in inputs)
        and not any(x.requires_grad for x in model[:5])
        and not torch.compiler.is_compiling()
        and not any(torch._C._functorch.is_functorch_wrapped_tensor(x) for x in inputs)
        and not any(torch.autograd.forward_ad.unpack_dual(x).tangent is not None for x in inputs)
    )


def skin_plain(model: SkinningTensors, tree: Tree, betas: Tensor, R_local: Tensor,
               transl: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """As `skin`, by PyTorch's operations alone: any device, any type, any order of derivatives."""
    batch = len(betas)
    rest = torch.addmm(model.rest.reshape(1, 72), betas, model.rest_dirs).view(-1, 24, 3)
    R_global, joints = chain(R_local, rest, tree)
    offset = joints - (R_global @ rest.unsqueeze(-1)).squeeze(-1)
    transforms = torch.cat([R_global, offset.unsqueeze(-1)], -1).reshape(batch, 24, 12)
    eye = torch.eye(3, dtype=betas.dtype, device=betas.device)
    feature = torch.cat([betas, (R_local[:, 1:] - eye).reshape(batch, 207)], 1)
    if batch > SLICE and not (torch.is_grad_enabled() and (feature.requires_grad or transforms.requires_grad)):
        vertices = torch.empty(batch, len(model.weights), 3, dtype=betas.dtype, device=betas.device)
        for i in range(0, batch, SLICE):
            vertices[i : i + SLICE] = _blend(model, feature[i : i + SLICE], transforms[i : i + SLICE])
    else:
        vertices = _blend(model, feature, transforms).contiguous()
    # Last, not inside the transforms: metres of distance would cost the skinning its last digits.
    return vertices + transl[:, None], joints + transl[:, None], R_global


def _blend(model: SkinningTensors, feature: Tensor, transforms: Tensor) -> Tensor:
    """(B, V, 3) from the stacked [betas, R - I] (B, S + 207) and joint transforms (B, 24, 12)."""
    batch = len(feature)
    rest = torch.addmm(model.template, feature, model.dirs).view(batch, 3, 1, -1)
    blended = (transforms.transpose(1, 2).reshape(batch * 12, 24) @ model.weights.t()).view(batch, 3, 4, -1)
    out = torch.addcmul(blended[:, :, 3], blended[:, :, 0], rest[:, 0])
    out = torch.addcmul(out, blended[:, :, 1], rest[:, 1])
    return torch.addcmul(out, blended[:, :, 2], rest[:, 2]).transpose(1, 2)


def chain(R_local: Tensor, rest: Tensor, tree: Tree) -> tuple[Tensor, Tensor]:
    """Forward kinematics: global rotations (B, 24, 3, 3) and joints (B, 24, 3) from local rotations and rest joints."""
    parents = tree.parents
    bones = (rest - rest[:, [max(p, 0) for p in parents]]).unsqueeze(-1)
    R_of, joint_of = [R_local[:, 0]] * len(parents), [rest[:, 0]] * len(parents)
    for level in tree.levels:
        first, last = level[0], level[-1] + 1
        # A level's joints are consecutive in SMPL's order; other trees fall back to picking them.
        own = slice(first, last) if last - first == len(level) else list(level)
        R_parent = torch.stack([R_of[parents[j]] for j in level], 1)
        R_level = R_parent @ R_local[:, own]
        joints = torch.stack([joint_of[parents[j]] for j in level], 1) + (R_parent @ bones[:, own]).squeeze(-1)
        for k, j in enumerate(level):
            R_of[j], joint_of[j] = R_level[:, k], joints[:, k]
    return torch.stack(R_of, 1), torch.stack(joint_of, 1)


def global_rotations(R_local: Tensor, tree: Tree) -> Tensor:
    """(B, 24, 3, 3) products of the local rotations along the chain."""
    R_of = list(R_local.unbind(1))
    for j in (j for level in tree.levels for j in level):
        R_of[j] = R_of[tree.parents[j]] @ R_of[j]
    return torch.stack(R_of, 1)
