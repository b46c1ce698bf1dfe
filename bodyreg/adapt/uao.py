"""Test-time optimisation under the network's own uncertainty (UAO: Wang et al., IEEE TMM 2025), for any lifter.

The network is frozen; what moves is its input. A few steps of Adam pull the projection of the 3D joints to the detected
2D joints, while joints of which the network is sure are held at its first prediction.

Where the body is matters: the projection needs the root in the camera's frame. Published gains use the true one; `root`
says which is used, and the result names it, so that no table can hide it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from bodyreg import lens, skeletons
from bodyreg.losses.uncertainty import gaussian_distance

__all__ = ["UAOHistory", "UAOResult", "UAOSettings", "solve_root", "uao_optimize"]

# Nobody stands nearer to a camera than this, metres.
_NEAREST = 0.2
# A scale below this would hold a joint harder than any lifter deserves, metres.
_SMALLEST_SCALE = 1e-3


@dataclass(frozen=True)
class UAOSettings:
    """The published numbers."""

    iterations: int = 4
    lr: float = 1e-3
    """Of Adam; each step moves a coordinate by about this much, in screen units."""
    weight_proj: float = 1.0
    """Of the distance between projected and detected joints, screen units."""
    weight_gaussian: float = 0.005
    """Of the distance to the first prediction, weighed by certainty."""
    flip: bool = True
    """Also optimise the mirrored pose, and average both."""


class UAOHistory(NamedTuple):
    """What happened; lists over iterations, the inputs with one entry more."""

    losses: Tensor
    """(n, 5): total; anchor terms of the plain and mirrored pass; projection terms likewise (unweighted)."""
    z: list[Tensor]
    z_flip: list[Tensor]
    grad: list[Tensor]
    grad_flip: list[Tensor]
    log_scale: list[Tensor]
    log_scale_flip: list[Tensor]


class UAOResult(NamedTuple):
    """Poses before and after, (B, T', J, 3) root-relative joints with the root at 0, metres, camera axes."""

    before: Tensor
    after: Tensor
    root: Tensor
    """(B, T', 1, 3) place of the root that was used, metres."""
    root_source: str
    """Where it came from: gt (an oracle), given or solve."""
    history: UAOHistory


def uao_optimize(
    model: nn.Module | Callable[[Tensor], Any],
    keypoints: Tensor,
    camera: Tensor,
    root: Tensor | Literal["solve"] = "solve",
    *,
    root_source: Literal["gt", "given"] = "given",
    joint_set: str = "h36m-17",
    log_scale: Tensor | Literal["flip"] | None = None,
    settings: UAOSettings | None = None,
) -> UAOResult:
    """Refine a lifter's poses to the 2D joints it was given.

    Args:
        model: any lifter: (B, T, J, 2) to (B, T', J, 3), T' being T or 1 (then the middle frame). One with a method
            `gaussian` gives its own uncertainty. Its weights, mode and gradients are left as found.
        keypoints: (B, T, J, 2) detected joints, normalised screen coordinates.
        camera: (B, 9) or (9,) lens of these coordinates, see `bodyreg.lens`; zeros from the fifth number on for a
            pinhole camera.
        root: (B, T', 1, 3) or (B, 1, 1, 3) place of the root in the camera's frame, metres; or "solve": from the 2D
            joints and the first prediction.
        root_source: whether a given root is the truth ("gt") or an estimate; kept in the result.
        joint_set: of the joints, for mirroring.
        log_scale: uncertainty for models without one: (B or 1, T' or 1, J, 1) logarithms of metres; "flip": from how
            much the plain and the mirrored pass differ; None: all joints alike.
        settings: the published ones by default.

    Raises:
        ValueError: shapes that do not fit together, or values that are not finite.
    """
    chosen = settings or UAOSettings()
    _check(keypoints, camera, chosen)
    lift, order = _Lifter(model), list(skeletons.get(joint_set).mirror)

    def mirrored(x: Tensor) -> Tensor:
        return _mirror(x, order)

    lens_ = camera.reshape(-1, 1, 1, 9)
    with torch.enable_grad(), _frozen(model):
        plain = keypoints.detach().clone()
        latents = [plain.clone(), mirrored(plain)] if chosen.flip else [plain.clone()]
        with torch.no_grad():
            anchors = [undo(lift(z).mean) for z, undo in zip(latents, (_same, mirrored), strict=False)]
        detected = plain if anchors[0].shape[1] == plain.shape[1] else plain[:, plain.shape[1] // 2, None]
        scale = _given_scale(log_scale, anchors)
        place, source = _place(root, root_source, torch.stack(anchors).mean(0), detected, lens_)
        step = _Step(lift, anchors, detected, lens_, place, scale, mirrored, order, chosen)
        history = _descend(latents, step, chosen)
        with torch.no_grad():
            after = [undo(lift(z).mean) for z, undo in zip(latents, (_same, mirrored), strict=False)]
    before, final = (_at_zero(torch.stack(poses).mean(0)) for poses in (anchors, after))
    return UAOResult(before, final, place, source, history)


def solve_root(joints: Tensor, keypoints: Tensor, camera: Tensor) -> Tensor:
    """The place of the root that best puts root-relative joints on their rays, in closed form.

    Minimises over t the sum over joints of (X + t_x - a (Z + t_z))^2 + (Y + t_y - b (Z + t_z))^2, (a, b, 1) being a
    joint's undistorted ray. The result stays far enough away for every joint to lie before the camera.

    Args:
        joints: (..., J, 3) metres. keypoints: (..., J, 2) screen coordinates. camera: (..., 1, 9) or (9,).

    Returns:
        (..., 1, 3) metres.
    """
    rays = lens.rays(keypoints, camera)
    a, b = rays.unbind(-1)
    one, nil = torch.ones_like(a), torch.zeros_like(a)
    A = torch.cat([torch.stack([one, nil, -a], -1), torch.stack([nil, one, -b], -1)], -2).double()
    offset = (joints[..., :2] - rays * joints[..., 2:]).double()
    y = -torch.cat([offset[..., 0], offset[..., 1]], -1)[..., None]
    normal = A.mT @ A + 1e-9 * torch.eye(3, dtype=torch.float64, device=A.device)
    t = torch.linalg.solve(normal, A.mT @ y).mT.to(joints.dtype)
    nearest = _NEAREST - joints[..., 2].amin(-1)[..., None]
    return torch.cat([t[..., :2], torch.maximum(t[..., 2], nearest)[..., None]], -1)


class _Lifter:
    """A lifter's poses and log-scales, whichever kind it is."""

    def __init__(self, model: nn.Module | Callable[[Tensor], Any]) -> None:
        self.call: Callable[[Tensor], Any] = getattr(model, "gaussian", model)

    def __call__(self, z: Tensor) -> _Pose:
        out = self.call(z)
        return _Pose(out[0], out[1]) if isinstance(out, tuple) else _Pose(out, None)


class _Pose(NamedTuple):
    mean: Tensor
    log_scale: Tensor | None


@dataclass(frozen=True)
class _Step:
    """One evaluation of the objective."""

    lift: _Lifter
    anchors: list[Tensor]
    detected: Tensor
    camera: Tensor
    root: Tensor
    scale: Tensor
    mirrored: Callable[[Tensor], Tensor]
    order: list[int]
    settings: UAOSettings

    def __call__(self, latents: list[Tensor]) -> tuple[Tensor, list[Tensor], list[Tensor]]:
        """Total loss, the unweighted terms (anchor of each pass, projection of each pass), log-scales of each pass."""
        anchor, projection, scales = [], [], []
        for k, (z, held) in enumerate(zip(latents, self.anchors, strict=True)):
            pose = self.lift(z)
            mean, scale = pose.mean, self.scale if pose.log_scale is None else pose.log_scale.detach()
            if k == 1:
                mean = self.mirrored(mean)
                scale = scale[..., self.order, :] if pose.log_scale is not None else scale
            anchor.append(gaussian_distance(mean, scale.expand(*mean.shape[:-1], 1), held))
            # The root is where it is: only the other joints are moved to it.
            points = torch.cat([self.root.expand_as(mean[..., :1, :]), mean[..., 1:, :] + self.root], -2)
            projection.append((lens.project(points, self.camera) - self.detected).norm(dim=-1).mean())
            scales.append(scale)
        weights = self.settings
        total = weights.weight_gaussian * sum(anchor) + weights.weight_proj * sum(projection)
        return torch.as_tensor(total), [*anchor, *projection], scales


def _descend(latents: list[Tensor], step: _Step, settings: UAOSettings) -> UAOHistory:
    """Adam on the latents, in place; what happened."""
    history = UAOHistory(torch.empty(0), *([] for _ in range(6)))
    rows = []
    optimiser = torch.optim.Adam(latents, lr=settings.lr)
    _record(history.z, history.z_flip, latents)
    for _ in range(settings.iterations):
        for z in latents:
            z.requires_grad_(True)
        total, terms, scales = step(latents)
        grads = torch.autograd.grad(total, latents, allow_unused=True)
        for z, grad in zip(latents, grads, strict=True):
            z.grad = torch.zeros_like(z) if grad is None else grad
        optimiser.step()
        plain = terms if settings.flip else [terms[0], terms[0] * 0, terms[1], terms[1] * 0]
        rows.append(torch.stack([total, *plain]).detach())
        _record(history.grad, history.grad_flip, [z.grad for z in latents if z.grad is not None])
        _record(history.log_scale, history.log_scale_flip, scales)
        for z in latents:
            z.requires_grad_(False)
        _record(history.z, history.z_flip, latents)
    losses = torch.stack(rows) if rows else latents[0].new_zeros(0, 5)
    return history._replace(losses=losses)


def _record(plain: list[Tensor], flipped: list[Tensor], values: list[Tensor]) -> None:
    for kept, value in zip((plain, flipped), values, strict=False):
        kept.append(value.detach().clone())


def _same(x: Tensor) -> Tensor:
    return x


def _mirror(x: Tensor, order: list[int]) -> Tensor:
    """Sides exchanged and x negated."""
    x = x[..., order, :]
    return torch.cat([-x[..., :1], x[..., 1:]], -1)


def _at_zero(joints: Tensor) -> Tensor:
    return torch.cat([torch.zeros_like(joints[..., :1, :]), joints[..., 1:, :]], -2)


def _given_scale(log_scale: Tensor | str | None, anchors: list[Tensor]) -> Tensor:
    """(B or 1, T' or 1, J, 1) for models that give none."""
    if isinstance(log_scale, Tensor):
        return log_scale.detach()
    if log_scale is None:
        return anchors[0].new_zeros(1, 1, anchors[0].shape[-2], 1)
    if log_scale != "flip":
        raise ValueError(f"log_scale is {log_scale!r}. Give a tensor, 'flip' or None.")
    if len(anchors) < 2:
        raise ValueError("log_scale is 'flip' but the mirrored pass is off. Turn settings.flip on, or give a tensor.")
    return (anchors[0] - anchors[1]).norm(dim=-1, keepdim=True).clamp(min=_SMALLEST_SCALE).log()


def _place(root: Tensor | str, source: str, anchor: Tensor, detected: Tensor, camera: Tensor) -> tuple[Tensor, str]:
    if isinstance(root, str):
        if root != "solve":
            raise ValueError(f"The root is {root!r}. Give its place (B, T, 1, 3) in metres, or 'solve'.")
        return solve_root(anchor, detected, camera), "solve"
    if root.ndim != 4 or root.shape[-2:] != (1, 3) or root.shape[0] not in (1, len(anchor)):
        raise ValueError(f"The root has shape {tuple(root.shape)}. Give (B, T, 1, 3) metres in the camera's frame.")
    return root.detach().to(anchor), source


def _check(keypoints: Tensor, camera: Tensor, settings: UAOSettings) -> None:
    if keypoints.ndim != 4 or keypoints.shape[-1] != 2:
        raise ValueError(f"The key points have shape {tuple(keypoints.shape)}. Give (B, T, J, 2) screen coordinates.")
    if camera.shape[-1:] != (9,) or camera.ndim > 2 or (camera.ndim == 2 and len(camera) not in (1, len(keypoints))):
        raise ValueError(f"The camera has shape {tuple(camera.shape)}. Give (B, 9) or (9,): f, c, k1 to k3, p1, p2.")
    if not (keypoints.isfinite().all() and camera.isfinite().all()):
        raise ValueError("The key points or the camera are not finite. Leave out frames without a detection.")
    if settings.iterations < 0 or not settings.lr > 0:
        raise ValueError(f"{settings.iterations} steps of {settings.lr} lead nowhere. Give 0 or more, above 0.")


@contextmanager
def _frozen(model: Any) -> Iterator[None]:
    """Evaluation mode without gradients of the weights; mode and flags come back."""
    if not isinstance(model, nn.Module):
        yield
        return
    modes = {module: module.training for module in model.modules()}
    flags = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    model.eval().requires_grad_(False)
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode
        for parameter, flag in flags:
            parameter.requires_grad_(flag)
