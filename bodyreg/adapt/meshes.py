"""Bodies refined to 2D key points under the uncertainty of their first prediction: UAO's idea for meshes.

UAO (Wang et al., IEEE TMM 2025) moves a lifter's input until its poses reproject onto the detections, and holds joints
of which the network is sure. Here pose, shape and place of SMPL bodies move themselves, in the full perspective of the
photograph, down

    sum_j c_j rho(|project(x_j) - k_j|^2 / s^2)  +  sum_j |x_j - x_j^0|^2 / sigma_j^2  +  priors,

with key points k of confidence c, joints x relative to the pelvis, and the first prediction x^0. The scale s is each
person's own: the residual that is left, in pixels of a crop 256 wide, and never below a stated value. Where key points
and body come together only by leaving the prediction, the key points are noisy, s stays large and the prediction holds.
rho is Geman and McClure's (1985): a single wild key point counts for nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from bodyreg import skeletons
from bodyreg.body import BodyModel
from bodyreg.body_joints import regressor_matrix
from bodyreg.cameras import project
from bodyreg.rotations import aa_from_matrix, matrix_from_aa
from bodyreg.skinning import SkinningTensors, SparseWeights, Tree, coordinate_major, skin
from priors.pose import PosePrior

__all__ = ["UNIT_CROP", "BodyParameters", "ImageTerm", "MeshSettings", "RefinedBodies", "refine_bodies"]

UNIT_CROP = 256.0
"""Side of the crop, pixels, in which residuals and scales are told, whatever the photograph's resolution."""

ImageTerm = Callable[[Tensor, Tensor], Tensor]
"""Vertices (n, V, 3) in the cameras' frames, metres, and the rows (n,) of their people, to a cost (n,)."""

_LEAST_POINTS = 3
_AROUND = 1.25  # a person's crop is this many times the extent of the projected joints
_NEAREST = 0.05  # metres before the camera
_SHIFT_PX = 5.0  # what one unit of the free shift in the picture means
# How far predicted joints are from the truth, relative to ankles and wrists: measured, and rounded to the likes.
_REACH = dict.fromkeys(("ankle", "wrist"), 1.0) | dict.fromkeys(("foot", "hand"), 1.15)
_REACH |= {"elbow": 0.75, "knee": 0.55, "shoulder": 0.45, "head": 0.4, "neck": 0.3, "collar": 0.3, "spine3": 0.2}
_TRUNK = 0.15
_LEAST_SPREAD = 5e-3  # metres: no network deserves to be held harder


@dataclass(frozen=True)
class MeshSettings:
    """Scales of the terms; lengths in the picture are pixels of a crop 256 wide."""

    iterations: int = 50
    lr: float = 0.15
    """Of Adam, in units of each parameter's spread below; it falls to nothing along a cosine."""
    least_noise_px: float = 2.0
    """Standard deviation of good key points; no person's scale falls below it."""
    noise_weight: float = 4.0
    """How many key points of the least noise stand behind the estimate of a person's scale."""
    outlier: float = 3.0
    """A key point this many times the scale away counts a quarter."""
    joint_m: float = 0.6
    """Spread of predicted ankles and wrists, relative to the pelvis, about the true ones, where none is given; joints
    nearer to the pelvis have less, hips a seventh. Wider than the errors of the small network on the synthetic people
    it knows: it is further off on photographs."""
    pose_rad: float = 0.6
    """Spread of each component of a joint's rotation about its first prediction."""
    orient_rad: float = 0.8
    """The same for the whole body."""
    beta: float = 1.0
    """Spread of each shape number about its first prediction."""
    depth: float = 0.1
    """Spread of the logarithm of the distance to the camera."""
    prior_weight: float = 0.1
    """Of minus the log density of the pose prior."""
    image_weight: float = 100.0
    """Of the picture's term."""


class BodyParameters(NamedTuple):
    """SMPL's parameters: global_orient (B, 3) and body_pose (B, 69) axis-angle, betas (B, S), transl (B, 3) metres."""

    global_orient: Tensor
    body_pose: Tensor
    betas: Tensor
    transl: Tensor


class RefinedBodies(NamedTuple):
    """parameters: of all people, exactly as given where there was nothing to refine by; refined (B,) bool: who moved;
    before_px, after_px (B,): confidence-weighted mean distance of joints and key points, and noise_px (B,): the scale a
    person's key points were given; pixels of a crop 256 wide, NaN for people that were not refined."""

    parameters: BodyParameters
    refined: Tensor
    before_px: Tensor
    after_px: Tensor
    noise_px: Tensor


def refine_bodies(
    body: BodyModel,
    parameters: BodyParameters,
    keypoints: Tensor,
    confidence: Tensor,
    K: Tensor,
    *,
    joint_set: str,
    crop_px: Tensor | None = None,
    spread: Tensor | None = None,
    image_term: ImageTerm | None = None,
    prior: PosePrior | None = None,
    settings: MeshSettings | None = None,
) -> RefinedBodies:
    """Refine posed bodies to 2D key points, all people in one optimisation. Nobody's result depends on the others.

    Args:
        body: the model the parameters belong to.
        parameters: the first prediction, in the frame of each person's camera (OpenCV axes).
        keypoints: (B, J, 2) pixels. confidence: (B, J), 0 for key points that are not seen; those that are not finite
            count as unseen. People with fewer than three are left as they are.
        K: (B, 3, 3) or (3, 3) intrinsics, pixels.
        joint_set: of the key points; joints that the body has no regressor for are left out.
        crop_px: (B,) side of each person's square crop, pixels; default 1.25 times the extent of the projected joints.
        spread: (B, 24) metres: how far SMPL's joints are believed from the truth; NaN where unknown.
        image_term: a further cost of the posed vertices, see `bodyreg.adapt.masks`.
        prior: over poses; default the one that ships.
        settings: `MeshSettings()` by default.

    Raises:
        ValueError: shapes that do not fit together, settings that lead nowhere, an unknown joint set.
    """
    chosen = settings or MeshSettings()
    start = BodyParameters(*(value.detach().to(body.weights) for value in parameters))
    _check(start, keypoints, confidence, K, spread, joint_set, chosen)
    points = _Points(body, joint_set)
    target, K = keypoints.detach().to(body.weights), K.detach().to(body.weights).expand(len(keypoints), 3, 3)
    weight = confidence.detach().to(target).nan_to_num(0.0, 0.0, 0.0).clamp(0.0, 1.0) * points.known
    weight = torch.where(target.isfinite().all(-1), weight, 0.0)
    usable = ((weight > 0).sum(1) >= _LEAST_POINTS) & K.isfinite().flatten(1).all(1)
    usable &= torch.stack([value.isfinite().all(1) for value in start]).all(0)
    rows = usable.nonzero()[:, 0]
    numbers = target.new_full((3, len(target)), torch.nan)
    if not len(rows) or not chosen.iterations:
        return RefinedBodies(parameters, torch.zeros_like(usable), *numbers)
    problem = _Problem(
        points, BodyParameters(*(value[rows] for value in start)), target[rows].nan_to_num(0.0, 0.0, 0.0),
        weight[rows], K[rows], None if crop_px is None else crop_px.to(target)[rows],
        None if spread is None else spread.to(target)[rows], _Prior(prior or PosePrior.load(), target), chosen,
    )  # fmt: skip
    with torch.enable_grad():
        moved, measured = problem.solve(None if image_term is None else (image_term, rows))
    finite = torch.stack([value.isfinite().all(1) for value in moved]).all(0) & measured.isfinite().all(0)
    rows, moved = rows[finite], BodyParameters(*(value[finite] for value in moved))
    refined = torch.zeros_like(usable)
    refined[rows] = True
    numbers[:, rows] = measured[:, finite]
    merged = BodyParameters(*(old.index_copy(0, rows, new.to(old)) for old, new in zip(parameters, moved, strict=True)))
    return RefinedBodies(merged, refined, *numbers)


class _Points:
    """Only those vertices of a body from which the joints of a set are regressed: a hundred of thousands.

    known: (J,) bool, the joints of the set that this body can say.
    """

    def __init__(self, body: BodyModel, joint_set: str) -> None:
        self.body = body
        self._tree = Tree.of(body.parents)
        dtype, device = body.weights.dtype, body.weights.device
        matrix, known = np.zeros((24, len(body.weights))), np.ones(24, bool)
        self.chain = joint_set == "smpl-24"  # SMPL's own joints are the chain's, not regressed from posed vertices
        if not self.chain:
            matrix, known = _regressor(body, joint_set)
        self.known = torch.from_numpy(known).to(device)
        used = np.flatnonzero(matrix.any(0)) if matrix.any() else np.array([0])
        self._matrix = torch.from_numpy(matrix[:, used]).to(device, dtype)
        index = torch.from_numpy(used).to(device)
        dirs = torch.cat([body.shapedirs[index], body.posedirs[index]], 2).cpu().numpy()
        rest = body.rest_joints()[0]
        rest_dirs = torch.einsum("jv,vcs->sjc", body.J_regressor, body.shapedirs).reshape(body.num_betas, 72)
        self._model = SkinningTensors(
            body.v_template[index].t().reshape(1, -1), torch.from_numpy(coordinate_major(dirs)).to(device, dtype), rest,
            rest_dirs, body.weights[index], SparseWeights.of(body.weights[index].cpu().numpy()),
        )  # fmt: skip

    def __call__(self, betas: Tensor, R_local: Tensor, transl: Tensor) -> tuple[Tensor, Tensor]:
        """SMPL's joints (B, 24, 3) and the set's (B, J, 3)."""
        vertices, joints, _ = skin(self._model, self._tree, betas, R_local, transl)
        if self.chain:
            return joints, joints
        mean = vertices.mean(1, keepdim=True)  # as in BodyModel.regress: rows need not sum to one exactly
        return joints, self._matrix @ (vertices - mean) + mean


def _regressor(body: BodyModel, joint_set: str) -> tuple[np.ndarray, np.ndarray]:
    """(J, V) matrix of a joint set and (J,) which rows mean something; by name from another set where need be."""
    wanted = skeletons.get(joint_set)
    for name in dict.fromkeys((joint_set, "openpose-25", "smpl-24")):
        try:
            matrix = regressor_matrix(name, body.arrays)
        except (ValueError, OSError):  # a published file that is not at hand is an OSError
            continue
        known = np.array([index is not None for index in skeletons.matching(name, joint_set)])
        if known.sum() >= _LEAST_POINTS:
            return np.asarray(skeletons.convert(matrix, name, joint_set, fill=0.0)), known
    raise ValueError(
        f"The {body.name} body can say none of the {len(wanted)} joints of {joint_set!r}. Give key points of another "
        "set, openpose-25 or coco-17 say."
    )


class _Prior:
    """Minus the log density of a `PosePrior`, differentiable, without its constant."""

    def __init__(self, prior: PosePrior, like: Tensor) -> None:
        inverse, offset = np.linalg.inv(prior.factors.astype(np.float64)), np.log(np.maximum(prior.weights, 1e-12))
        offset = offset - np.log(np.diagonal(prior.factors, axis1=1, axis2=2)).sum(1)
        self._inverse, self._offset, self._means = (
            torch.from_numpy(np.asarray(value)).to(like) for value in (inverse, offset - offset.max(), prior.means)
        )

    def __call__(self, pose: Tensor) -> Tensor:
        """(B,) of poses (B, 69)."""
        centred = (pose[:, : self._means.shape[1]] - self._means[:, None]).mT  # (K, 63, B)
        distance = (self._inverse @ centred).square().sum(1)
        return -torch.logsumexp(self._offset[:, None] - distance / 2, 0)


class _Problem:
    """The objective of n people, all of whom have key points, and its descent.

    What moves is measured in spreads: zero is the first prediction, and one is as far as it is believed to be wrong.
    """

    def __init__(
        self, points: _Points, start: BodyParameters, target: Tensor, weight: Tensor, K: Tensor,
        crop_px: Tensor | None, spread: Tensor | None, prior: _Prior, settings: MeshSettings,
    ) -> None:  # fmt: skip
        self.points, self.start, self.target, self.weight, self.K = points, start, target, weight, K
        self.prior, self.settings = prior, settings
        count = len(target)
        self._R_start = matrix_from_aa(start.global_orient)
        self._pelvis = points.body.rest_joints(start.betas)[:, 0] + start.transl
        self.free = [target.new_zeros(count, width) for width in (3, 69, start.betas.shape[1], 2, 1)]
        joints, named = self._posed(self._R_start, start.body_pose, start.betas, start.transl)
        self._joints = joints - joints[:, :1]
        if crop_px is None:
            seen = project(joints, K, _NEAREST)
            crop_px = _AROUND * (seen.amax(1) - seen.amin(1)).amax(1)
        self._unit = UNIT_CROP / crop_px.clamp(min=1.0)[:, None, None]
        self._shift = _SHIFT_PX * self._pelvis[:, 2:].clamp(min=_NEAREST) / (self._unit[:, 0] * K[:, 0, :1])
        stated = settings.joint_m * joints.new_tensor(
            [
                _REACH.get(name.removeprefix("left_").removeprefix("right_"), _TRUNK)
                for name in skeletons.get("smpl-24").joints
            ]
        ).expand(count, 24)
        sigma = stated if spread is None else torch.where(spread.isfinite(), spread, stated)
        self._sigma = sigma.clamp(min=_LEAST_SPREAD)[..., None]
        self.noise = self._noise(self._residual(named), None)

    def parameters(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Rotation (n, 3, 3) of the whole, pose (n, 69) axis-angle, betas (n, S) and transl (n, 3) where we are now."""
        orient, pose, betas, shift, depth = self.free
        own = self.settings
        R = matrix_from_aa(own.orient_rad * orient) @ self._R_start
        betas = self.start.betas + own.beta * betas
        # Nearer or farther along the pelvis's own ray, so that it stays where it is in the picture.
        pelvis = self._pelvis * (own.depth * depth).exp() + torch.cat([self._shift * shift, 0 * depth], 1)
        rest = self.points.body.rest_joints(betas)[:, 0]
        return R, self.start.body_pose + own.pose_rad * pose, betas, pelvis - rest

    def solve(self, image: tuple[ImageTerm, Tensor] | None) -> tuple[BodyParameters, Tensor]:
        """Descend; the parameters, and (3, n) distances before and after and the scales."""
        before = self._distance()
        settings = self.settings
        for value in self.free:
            value.requires_grad_(True)
        optimiser = torch.optim.Adam(self.free, lr=settings.lr, betas=(0.9, 0.99))
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, settings.iterations)
        for _ in range(settings.iterations):
            gradients = torch.autograd.grad(self._cost(image).sum(), self.free)
            broken = ~torch.stack([g.isfinite().all(1) for g in gradients]).all(0)
            for value, gradient in zip(self.free, gradients, strict=True):
                value.grad = gradient.masked_fill(broken[:, None], 0.0)
            optimiser.step()
            schedule.step()
        with torch.no_grad():
            R, pose, betas, transl = self.parameters()
            turned = aa_from_matrix(matrix_from_aa(pose.view(-1, 23, 3))).flatten(1)
            measured = torch.stack([before, self._distance(), self.noise])
        return BodyParameters(aa_from_matrix(R), turned, betas, transl), measured

    def _cost(self, image: tuple[ImageTerm, Tensor] | None) -> Tensor:
        """(n,) cost where we are now; brings the scales up to date."""
        R, pose, betas, transl = self.parameters()
        joints, named = self._posed(R, pose, betas, transl)
        residual = self._residual(named)
        with torch.no_grad():
            trust = self._trust(residual)
            self.noise = self._noise(residual, trust)
            trust = trust * self.weight / self.noise[:, None].square()
        cost = (trust * residual.square().sum(-1)).sum(1) / 2
        cost = cost + (((joints - joints[:, :1] - self._joints) / self._sigma).square().sum((1, 2))) / 2
        orient, free_pose, shape, _, depth = self.free
        cost = cost + sum(value.square().sum(1) for value in (orient, free_pose, shape, depth)) / 2
        cost = cost + self.settings.prior_weight * self.prior(pose)
        if image is not None:
            term, rows = image
            vertices = self.points.body(betas, pose, R, transl).vertices
            cost = cost + self.settings.image_weight * term(vertices, rows)
        return cost

    def _posed(self, R: Tensor, pose: Tensor, betas: Tensor, transl: Tensor) -> tuple[Tensor, Tensor]:
        R_local = torch.cat([R[:, None], matrix_from_aa(pose.view(-1, 23, 3))], 1)
        return self.points(betas, R_local, transl)

    def _residual(self, named: Tensor) -> Tensor:
        """(n, J, 2) from key points to joints, pixels of a crop 256 wide."""
        return (project(named, self.K, _NEAREST) - self.target) * self._unit

    def _trust(self, residual: Tensor) -> Tensor:
        """(n, J) derivative of Geman and McClure's rho, 1 for a perfect key point."""
        far = residual.square().sum(-1) / (self.settings.outlier * self.noise[:, None]).square()
        return 1 / (1 + far).square()

    def _noise(self, residual: Tensor, trust: Tensor | None) -> Tensor:
        """(n,) standard deviation a coordinate, the key points believed in as far as `trust` says."""
        weight = self.weight if trust is None else self.weight * trust
        least, own = self.settings.least_noise_px, self.settings.noise_weight
        spent = (weight * residual.square().sum(-1)).sum(1) / 2
        return ((own * least**2 + spent) / (own + weight.sum(1))).sqrt().clamp(min=least)

    @torch.no_grad()
    def _distance(self) -> Tensor:
        residual = self._residual(self._posed(*self.parameters())[1])
        return (self.weight * residual.norm(dim=-1)).sum(1) / self.weight.sum(1)


def _check(
    start: BodyParameters, keypoints: Tensor, confidence: Tensor, K: Tensor, spread: Tensor | None, joint_set: str,
    settings: MeshSettings,
) -> None:  # fmt: skip
    count, joints = len(start.transl), len(skeletons.get(joint_set))
    if {len(value) for value in start} != {count} or [v.shape[1:] for v in (start[0], start[1], start[3])] != [
        (3,), (69,), (3,)
    ]:  # fmt: skip
        raise ValueError(
            f"The parameters have shapes {[tuple(value.shape) for value in start]}. Give (B, 3), (B, 69), (B, S) and "
            "(B, 3)."
        )
    if keypoints.shape != (count, joints, 2) or confidence.shape != (count, joints):
        raise ValueError(
            f"The key points are {tuple(keypoints.shape)} with confidence {tuple(confidence.shape)}. Give "
            f"({count}, {joints}, 2) and ({count}, {joints}) for {count} people and the joint set {joint_set!r}."
        )
    if K.shape not in ((count, 3, 3), (3, 3)):
        raise ValueError(f"The intrinsics are {tuple(K.shape)}. Give ({count}, 3, 3) or (3, 3).")
    if spread is not None and spread.shape != (count, 24):
        raise ValueError(f"The spread is {tuple(spread.shape)}. Give ({count}, 24), metres a joint of SMPL.")
    if settings.iterations < 0 or not settings.lr > 0:
        raise ValueError(f"{settings.iterations} steps of {settings.lr} lead nowhere. Give 0 or more, above 0.")
    scales = ("least_noise_px", "outlier", "joint_m", "pose_rad", "orient_rad", "beta", "depth")
    if not all(getattr(settings, name) > 0 for name in scales):
        raise ValueError(f"The scales {', '.join(scales)} must be above 0. Leave them at their defaults.")
