"""Fused skinning against the plain one: values, derivatives of both orders, threads, and when it is used."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

from bodyreg import skinning, skinning_cpu
from bodyreg.body import BodyModel
from bodyreg.skinning import SparseWeights, skin_plain
from bodyreg.skinning_cpu import FusedSkinning


def sparse_arrays(make_smpl_arrays, ring: int, components: int = 10, joints: int = 4) -> dict[str, np.ndarray]:
    """A random body on whose vertices `joints` joints pull at most, and on some but one."""
    arrays = make_smpl_arrays(ring, components)
    weights = arrays["weights"].copy()
    weights[weights < np.sort(weights, 1)[:, -joints, None]] = 0
    weights[::5] = np.eye(24)[weights[::5].argmax(1)]
    arrays["weights"] = weights / weights.sum(1, keepdims=True)
    return arrays


def inputs(batch: int, num_betas: int, dtype: torch.dtype, seed: int = 0) -> list[torch.Tensor]:
    """betas, R_local (near rotations, but any matrices do) and transl that want gradients."""
    generator = torch.Generator().manual_seed(seed)
    sizes = (num_betas,), (24, 3, 3), (3,)
    values = [0.4 * torch.randn(batch, *size, generator=generator, dtype=dtype) for size in sizes]
    values[1] += torch.eye(3, dtype=dtype)
    return [value.requires_grad_() for value in values]


def tensors(body: BodyModel) -> skinning.SkinningTensors:
    """What the body skins with, its sparse weights in its own type."""
    return body._tensors()._replace(sparse=SparseWeights.of(body.weights.numpy(), body.weights.numpy().dtype))


@pytest.fixture(scope="module")
def free() -> BodyModel:
    return BodyModel.load("free")


@pytest.mark.parametrize("batch", [1, 5, 70])
def test_equals_the_plain_function(free, batch):
    given = inputs(batch, 10, torch.float32)
    exact = [value.detach().double().requires_grad_() for value in given]
    outputs = FusedSkinning.apply(tensors(free), free._tree, *given)
    expected = skin_plain(tensors(BodyModel.load("free", dtype=torch.float64)), free._tree, *exact)
    generator = torch.Generator().manual_seed(1)
    grads = [torch.randn(out.shape, generator=generator) for out in outputs]
    for ours, plain in zip(outputs, expected, strict=True):
        torch.testing.assert_close(ours.double(), plain, atol=1e-6 * float(plain.detach().abs().max()), rtol=0)
    found = torch.autograd.grad(outputs, given, grads)
    wanted = torch.autograd.grad(expected, exact, [grad.double() for grad in grads])
    for ours, plain in zip(found, wanted, strict=True):
        torch.testing.assert_close(ours.double(), plain, atol=float(1e-5 * plain.abs().max()), rtol=0)
    with torch.no_grad():
        free_of_gradients = FusedSkinning.apply(tensors(free), free._tree, *given)
    assert all(torch.equal(a, b) for a, b in zip(outputs, free_of_gradients, strict=True))


def test_derivatives_are_those_of_finite_differences(make_smpl_arrays, monkeypatch):
    monkeypatch.setattr(skinning_cpu, "_BODIES", 2)
    monkeypatch.setattr(skinning_cpu, "_VERTICES", 7)
    body = BodyModel.from_arrays(sparse_arrays(make_smpl_arrays, 13, 3), dtype=torch.float64)

    def function(*values):
        return FusedSkinning.apply(tensors(body), body._tree, *values)

    given = inputs(3, 3, torch.float64)
    assert torch.autograd.gradcheck(function, given, atol=1e-6)
    assert torch.autograd.gradgradcheck(function, inputs(1, 3, torch.float64), atol=1e-6, fast_mode=True)
    for ours, plain in zip(function(*given), skin_plain(body._tensors(), body._tree, *given), strict=True):
        torch.testing.assert_close(ours, plain)


def test_each_output_alone_has_its_gradient(free):
    for index in range(3):
        given, again = (inputs(2, 10, torch.float32, seed=3) for _ in range(2))
        ours = FusedSkinning.apply(tensors(free), free._tree, *given)[index]
        plain = skin_plain(free._tensors(), free._tree, *again)[index]
        found = torch.autograd.grad(ours.square().sum(), given, allow_unused=True)
        wanted = torch.autograd.grad(plain.square().sum(), again, allow_unused=True)
        for a, b in zip(found, wanted, strict=True):
            b = torch.zeros_like(a) if b is None else b
            torch.testing.assert_close(a, b, atol=1e-5 * max(1.0, float(b.abs().max())), rtol=0)


def test_result_does_not_depend_on_the_threads(free, monkeypatch):
    seen = []
    for threads in (1, 3):
        monkeypatch.setattr(torch, "get_num_threads", lambda threads=threads: threads)
        given = inputs(40, 10, torch.float32)
        outputs = FusedSkinning.apply(tensors(free), free._tree, *given)
        seen.append([*outputs, *torch.autograd.grad(outputs[0].square().sum(), given)])
    assert all(torch.equal(a, b) for a, b in zip(*seen, strict=True))


def test_bodies_take_the_kernels_where_they_can(make_smpl_arrays, monkeypatch):
    calls = []
    monkeypatch.setattr(FusedSkinning, "apply", lambda *given: calls.append(1) or skin_plain(*given))
    body = BodyModel.from_arrays(sparse_arrays(make_smpl_arrays, 20))
    pose = torch.zeros(2, 69)
    body(body_pose=pose)
    copy.deepcopy(body)(body_pose=pose)
    assert len(calls) == 2
    copy.deepcopy(body).double()(body_pose=pose)
    BodyModel.from_arrays(make_smpl_arrays(20))(body_pose=pose)  # every joint moves every vertex: nothing to be won
    torch.func.jacfwd(lambda x: body(body_pose=x).joints)(pose)
    torch.func.vmap(lambda x: body(body_pose=x[None]).vertices)(pose)
    assert len(calls) == 2


def test_weights_are_listed_by_vertex(make_smpl_arrays):
    weights = sparse_arrays(make_smpl_arrays, 20)["weights"]
    sparse = SparseWeights.of(weights, np.float64)
    dense = np.zeros_like(weights)
    for v in range(len(weights)):
        entries = slice(sparse.begin[v], sparse.begin[v + 1])
        dense[v, sparse.joint[entries]] = sparse.weight[entries]
    np.testing.assert_array_equal(dense, weights)
    with pytest.raises(ValueError, match="no sparse weights"):
        model = BodyModel.load("free")._tensors()._replace(sparse=None)
        FusedSkinning.apply(model, None, *inputs(1, 10, torch.float32))
