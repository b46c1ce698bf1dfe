"""Linear blend skinning on processors: one blend product, and kernels that fuse all that is around it.

The function is `bodyreg.skinning.skin`'s, with a hand-written derivative. Inside, the batch is the arrays' last axis,
so that every loop runs over bodies side by side, whatever joints a vertex hangs on; each vertex visits only those that
move it.

Notation: a vertex's rest position is y = template + dirs [betas, R - I] (the blend product), the joints' transforms are
A_j = [R_j, o_j] with o_j = x_j - R_j r_j (x posed, r resting joint), and the posed vertex is T [y, 1] + transl with
T = sum_j w_j A_j.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from renderers.backends.jit import fast_inlined, fast_kernel
from renderers.threads import map_threads

if TYPE_CHECKING:
    from bodyreg.skinning import SkinningTensors, SparseWeights, Tree

__all__ = ["FusedSkinning"]

_BODIES = 64  # skinned at once: what belongs to a joint then stays in the first caches
_VERTICES = 2304  # shaped at once: the blend product's result stays in the second
_BLOCK = 8  # placed at once, so that each body's part of memory is visited an eighth as often
_PIECES = 4  # of those vertices, each summed apart; fixed, so that sums do not depend on the number of threads
_PIECE_WORK = 32_768  # vertices times bodies; below, there is one piece


class _Posed(NamedTuple):
    """What the joints of a slice of bodies give. feature (B, S + 207) stacked [betas, R - I]; rest and joints (B, 24,
    3); R_global (B, 24, 3, 3); transforms (24, 12 B), the nine rows of R_j, then o_j."""

    feature: np.ndarray
    rest: np.ndarray
    joints: np.ndarray
    R_global: np.ndarray
    transforms: np.ndarray


class FusedSkinning(torch.autograd.Function):
    """`apply(model, tree, betas, R_local, transl)` gives what `bodyreg.skinning.skin` gives, for contiguous tensors on
    the CPU and a model with sparse weights. A derivative of the derivative is taken through that function."""

    @staticmethod
    def forward(ctx: Any, model: SkinningTensors, tree: Tree, betas: Tensor, R_local: Tensor,
                transl: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        _sparse(model)
        vertices = betas.new_empty(len(betas), len(model.weights), 3)
        joints, R_global = torch.empty_like(R_local[:, :, 0]), torch.empty_like(R_local)
        keep = any(ctx.needs_input_grad)
        slices: list[tuple[_Posed, list[Tensor]]] = []
        for some in _slices(len(betas), _BODIES):
            posed = _pose(model, tree, betas[some], R_local[some])
            slices.append((posed, _place(model, posed, transl[some], vertices[some], keep)))
            joints[some] = torch.from_numpy(posed.joints) + transl[some, None]
            R_global[some] = torch.from_numpy(posed.R_global)
        if keep:
            ctx.save_for_backward(betas, R_local, transl)
            ctx.model, ctx.tree, ctx.slices = model, tree, slices
            ctx.set_materialize_grads(False)
        return vertices, joints, R_global

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        inputs = ctx.saved_tensors
        if torch.is_grad_enabled():  # to be differentiated once more
            return None, None, *_plain_gradient(ctx.model, ctx.tree, inputs, grads)
        found = tuple(torch.zeros_like(value) for value in inputs)
        parents, rest_dirs = np.array(ctx.tree.parents), ctx.model.rest_dirs.numpy()
        for some, (posed, shaped) in zip(_slices(len(found[0]), _BODIES), ctx.slices, strict=True):
            of_vertices, of_joints, of_R = (None if g is None else g[some].contiguous().numpy() for g in grads)
            of_betas, of_local, of_transl = (value[some].numpy() for value in found)
            of_feature, of_transforms = np.zeros_like(posed.feature), np.zeros_like(posed.transforms)
            if of_vertices is not None:
                _place_gradient(ctx.model, posed, shaped, of_vertices, of_feature, of_transforms, of_transl)
            of_joints = np.zeros_like(posed.joints) if of_joints is None else of_joints
            of_R = np.zeros_like(posed.R_global) if of_R is None else of_R
            _pose_gradient(inputs[1][some].numpy(), posed.rest, posed.R_global, rest_dirs, parents, of_feature,
                           of_transforms, of_joints, of_R, of_betas, of_local, of_transl)  # fmt: skip
        return None, None, *found


def _plain_gradient(model: SkinningTensors, tree: Tree, inputs: Sequence[Tensor],
                    grads: Sequence[Tensor | None]) -> list[Tensor | None]:
    """The derivative as operations that can be differentiated themselves."""
    from bodyreg.skinning import skin_plain

    given = [(out, grad) for out, grad in zip(skin_plain(model, tree, *inputs), grads, strict=True) if grad is not None]
    outputs, of_outputs = [out for out, _ in given], [grad for _, grad in given]
    wanted = [value for value in inputs if value.requires_grad]
    found = iter(torch.autograd.grad(outputs, wanted, of_outputs, create_graph=True, allow_unused=True))
    return [next(found) if value.requires_grad else None for value in inputs]


def _slices(count: int, most: int) -> list[slice]:
    return [slice(first, min(first + most, count)) for first in range(0, count, most)]


def _pieces(some: slice, batch: int) -> list[tuple[int, int]]:
    count = _PIECES if (some.stop - some.start) * batch > _PIECE_WORK else 1
    bounds = [some.start + (some.stop - some.start) * k // count for k in range(count + 1)]
    return list(zip(bounds, bounds[1:], strict=False))


def _sparse(model: SkinningTensors) -> SparseWeights:
    if model.sparse is None:
        raise ValueError("This body has no sparse weights. Skin it with `bodyreg.skinning.skin_plain`.")
    return model.sparse


def _room(rows: int, batch: int, dtype: np.dtype) -> tuple[np.ndarray, np.ndarray]:
    """The same memory as (rows, B) and as (rows B,): a loop over either is one that compilers vectorise."""
    room = np.empty((rows, batch), dtype)
    return room, room.reshape(-1)


def _pose(model: SkinningTensors, tree: Tree, betas: Tensor, R_local: Tensor) -> _Posed:
    batch = len(betas)
    sizes = (batch, betas.shape[1] + 207), (batch, 24, 3), (batch, 24, 3), (batch, 24, 3, 3), (24, 12 * batch)
    posed = _Posed(*(np.empty(size, betas.numpy().dtype) for size in sizes))
    _pose_joints(model.rest.numpy(), model.rest_dirs.numpy(), np.array(tree.parents), betas.numpy(), R_local.numpy(),
                 *posed)  # fmt: skip
    return posed


def _place(model: SkinningTensors, posed: _Posed, transl: Tensor, vertices: Tensor, keep: bool) -> list[Tensor]:
    """Fill vertices (B, V, 3); the shaped ones of each slice of vertices, (3, v, B), if they are to be kept."""
    v_count, batch = len(model.weights), len(transl)
    dirs, feature = model.dirs.t().view(3, v_count, -1), torch.from_numpy(posed.feature).t()
    template, weights = model.template.view(3, -1).numpy(), _sparse(model)
    shift, out = transl.t().contiguous().numpy(), vertices.view(batch, -1).numpy()
    space = torch.empty(0 if keep else 3 * min(_VERTICES, v_count) * batch, dtype=vertices.dtype)
    kept = []
    for some in _slices(v_count, _VERTICES):
        size = 3, some.stop - some.start, batch
        shaped = vertices.new_empty(size) if keep else space[: math.prod(size)].view(size)
        for rows, result in zip(dirs[:, some], shaped, strict=True):
            torch.mm(rows, feature, out=result)
        moved = shaped.numpy()

        def place_piece(piece: tuple[int, int], start: int = some.start, moved: np.ndarray = moved) -> None:
            room = *_room(12, batch, out.dtype), np.empty((3 * _BLOCK, batch), out.dtype)
            _skin(*piece, start, template, moved, posed.transforms, *weights, shift, *room, out)

        threads = torch.get_num_threads()
        map_threads(place_piece, _pieces(some, batch) if threads > 1 else [(some.start, some.stop)], threads)
        if keep:
            kept.append(shaped)
    return kept


def _place_gradient(model: SkinningTensors, posed: _Posed, kept: list[Tensor], of_vertices: np.ndarray,
                    of_feature: np.ndarray, of_transforms: np.ndarray, of_transl: np.ndarray) -> None:
    """Back through `_place`; adds to the last three."""
    v_count, batch = len(model.weights), len(of_vertices)
    dirs, total = model.dirs.t().view(3, v_count, -1), torch.from_numpy(of_feature)
    template, weights = model.template.view(3, -1).numpy(), _sparse(model)
    space = torch.empty(kept[0].numel(), dtype=kept[0].dtype)
    for some, shaped in zip(_slices(v_count, _VERTICES), kept, strict=True):
        of_shaped = space[: shaped.numel()].view(shaped.shape)
        moved, of_moved = shaped.numpy(), of_shaped.numpy()

        def piece_gradient(piece: tuple[int, int], start: int = some.start, moved: np.ndarray = moved,
                           of_moved: np.ndarray = of_moved) -> list[np.ndarray]:
            sums = [np.zeros(size, of_moved.dtype) for size in ((24, 9 * batch), (24, 3 * batch), 3 * batch)]
            given = np.empty((3 * _BLOCK, batch), of_moved.dtype)
            room = *_room(9, batch, given.dtype), *_room(9, batch, given.dtype), given, given.reshape(_BLOCK, -1)
            _skin_gradient(*piece, start, template, moved, posed.transforms, *weights, of_vertices.reshape(batch, -1),
                           *room, of_moved, *sums)  # fmt: skip
            return sums

        for of_R, of_offset, transl in map_threads(piece_gradient, _pieces(some, batch), torch.get_num_threads()):
            of_transforms += np.concatenate([of_R, of_offset], 1)
            of_transl += transl.reshape(3, -1).T
        for rows, result in zip(dirs[:, some], of_shaped, strict=True):
            total.addmm_(result.t(), rows)


# ---- kernels --------------------------------------------------------------------------------------------------------


@fast_kernel
def _pose_joints(rest, rest_dirs, parents, betas, R_local, feature, rest_of, joints, R_global, transforms):
    """Resting joints of the shaped bodies, the chain, and what the vertices need of them: see `_Posed`."""
    n, shapes = betas.shape
    for b in range(n):
        for s in range(shapes):
            feature[b, s] = betas[b, s]
        for j in range(24):
            for c in range(3):
                value = rest[j, c]
                for s in range(shapes):
                    value += betas[b, s] * rest_dirs[s, 3 * j + c]
                rest_of[b, j, c] = value
        for j in range(24):
            p = parents[j]
            for r in range(3):
                for c in range(3):
                    if j == 0:
                        R_global[b, 0, r, c] = R_local[b, 0, r, c]
                    else:
                        feature[b, shapes + 9 * (j - 1) + 3 * r + c] = R_local[b, j, r, c] - (1 if r == c else 0)
                        R_global[b, j, r, c] = (
                            R_global[b, p, r, 0] * R_local[b, j, 0, c] + R_global[b, p, r, 1] * R_local[b, j, 1, c]
                            + R_global[b, p, r, 2] * R_local[b, j, 2, c]
                        )  # fmt: skip
            for r in range(3):
                place, turned = rest_of[b, 0, r], rest.dtype.type(0)
                if j > 0:
                    place = joints[b, p, r]
                    for c in range(3):
                        place += R_global[b, p, r, c] * (rest_of[b, j, c] - rest_of[b, p, c])
                for c in range(3):
                    turned += R_global[b, j, r, c] * rest_of[b, j, c]
                    transforms[j, (3 * r + c) * n + b] = R_global[b, j, r, c]
                joints[b, j, r] = place
                transforms[j, (9 + r) * n + b] = place - turned


@fast_kernel
def _pose_gradient(R_local, rest_of, R_global, rest_dirs, parents, of_feature, of_transforms, of_joints, of_R, of_betas,
                   of_local, of_transl):
    """Back through `_pose_joints`; adds to the last three."""
    n, shapes = of_betas.shape
    of_rest = np.empty((24, 3), R_local.dtype)
    of_place = np.empty((24, 3), R_local.dtype)
    of_global = np.empty((24, 3, 3), R_local.dtype)
    for b in range(n):
        for j in range(24):
            for r in range(3):
                of_rest[j, r] = 0
                of_place[j, r] = of_joints[b, j, r] + of_transforms[j, (9 + r) * n + b]
                of_transl[b, r] += of_joints[b, j, r]
            for r in range(3):
                offset = of_transforms[j, (9 + r) * n + b]  # o = x - R r
                for c in range(3):
                    of_both = of_R[b, j, r, c] + of_transforms[j, (3 * r + c) * n + b]
                    of_global[j, r, c] = of_both - offset * rest_of[b, j, c]
                    of_rest[j, c] -= R_global[b, j, r, c] * offset
        for j in range(23, 0, -1):
            p = parents[j]
            for r in range(3):
                for c in range(3):
                    total = of_feature[b, shapes + 9 * (j - 1) + 3 * r + c]
                    back = of_place[j, r] * (rest_of[b, j, c] - rest_of[b, p, c])
                    for k in range(3):
                        total += R_global[b, p, k, r] * of_global[j, k, c]
                        back += of_global[j, r, k] * R_local[b, j, c, k]
                    of_local[b, j, r, c] += total
                    of_global[p, r, c] += back
                of_place[p, r] += of_place[j, r]
            for c in range(3):
                bone = rest_of.dtype.type(0)
                for r in range(3):
                    bone += R_global[b, p, r, c] * of_place[j, r]
                of_rest[j, c] += bone
                of_rest[p, c] -= bone
        for r in range(3):
            of_rest[0, r] += of_place[0, r]
            for c in range(3):
                of_local[b, 0, r, c] += of_global[0, r, c]
        for s in range(shapes):
            total = of_feature[b, s]
            for j in range(24):
                for c in range(3):
                    total += of_rest[j, c] * rest_dirs[s, 3 * j + c]
            of_betas[b, s] += total


@fast_inlined
def _blend(blended, transforms, begin, end, joint, weight):
    """blended = sum of weight times the first numbers of a joint's row of `transforms` (24, 12 B)."""
    j, w = joint[begin], weight[begin]
    for m in range(len(blended)):
        blended[m] = w * transforms[j, m]
    for k in range(begin + 1, end):
        j, w = joint[k], weight[k]
        for m in range(len(blended)):
            blended[m] += w * transforms[j, m]


@fast_kernel
def _skin(first, last, start, template, shaped, transforms, begin, joint, weight, transl, blended, flat, placed, out):
    """Vertices `first` to `last` of all bodies. shaped (3, v, B), vertices from `start` on without the template; transl
    (3, B); out (B, 3 V). blended (12, B), flat (the same numbers in one row) and placed (3 _BLOCK, B) are room to work
    in."""
    n = shaped.shape[2]
    for v0 in range(first, last, _BLOCK):
        count = min(_BLOCK, last - v0)
        for k in range(count):
            v = v0 + k
            _blend(flat, transforms, begin[v], begin[v + 1], joint, weight)
            i, x0, y0, z0 = v - start, template[0, v], template[1, v], template[2, v]
            for r in range(3):
                for b in range(n):
                    placed[3 * k + r, b] = (
                        blended[3 * r, b] * (shaped[0, i, b] + x0) + blended[3 * r + 1, b] * (shaped[1, i, b] + y0)
                        + blended[3 * r + 2, b] * (shaped[2, i, b] + z0) + blended[9 + r, b] + transl[r, b]
                    )  # fmt: skip
        for b in range(n):  # a body's numbers lie far from the next one's, so several at each visit
            row = out[b, 3 * v0 : 3 * (v0 + count)]
            for m in range(3 * count):
                row[m] = placed[m, b]


@fast_kernel
def _skin_gradient(first, last, start, template, shaped, transforms, begin, joint, weight, of_out, blended,
                   flat_blended, outer, flat_outer, given, flat_given, of_shaped, of_R, of_offset, of_transl):
    """Back through `_skin`: sets `of_shaped` (3, v, B), adds to `of_R` (24, 9 B), `of_offset` (24, 3 B) and `of_transl`
    (3 B). blended and outer (9, B), given (3 _BLOCK, B), each followed by the same numbers as (9 B,), (9 B,) and
    (_BLOCK, 3 B), are room to work in."""
    n = shaped.shape[2]
    for v0 in range(first, last, _BLOCK):
        count = min(_BLOCK, last - v0)
        for b in range(n):
            row = of_out[b, 3 * v0 : 3 * (v0 + count)]
            for m in range(3 * count):
                given[m, b] = row[m]
        for k in range(count):
            v = v0 + k
            i = v - start
            _blend(flat_blended, transforms, begin[v], begin[v + 1], joint, weight)
            for c in range(3):
                base = template[c, v]
                for b in range(n):
                    of_shaped[c, i, b] = (
                        blended[c, b] * given[3 * k, b] + blended[3 + c, b] * given[3 * k + 1, b]
                        + blended[6 + c, b] * given[3 * k + 2, b]
                    )  # fmt: skip
                for r in range(3):
                    for b in range(n):
                        outer[3 * r + c, b] = given[3 * k + r, b] * (shaped[c, i, b] + base)
            for m in range(3 * n):
                of_transl[m] += flat_given[k, m]
            for entry in range(begin[v], begin[v + 1]):
                j, w = joint[entry], weight[entry]
                for m in range(9 * n):
                    of_R[j, m] += w * flat_outer[m]
                for m in range(3 * n):
                    of_offset[j, m] += w * flat_given[k, m]
