"""The joint system: PersPose's network and true crop camera, trained through semantic rendering of the posed body.

PersPose (Hao and Li, ICCV 2025) knows the camera but hears nothing of shape from pictures; DSR (Dwivedi et al., ICCV
2021) hears of shape but looks through a weak camera. Here the joints, twists and betas of the network become a body by
inverse kinematics, which is differentiable, and the body is rendered through the crop's own intrinsics. Few samples may
have labels in 3D, as in the wild; key points and parsing maps teach from the others.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor

from bodyreg.body import BodyModel, BodyOutput
from bodyreg.cameras import project
from bodyreg.inverse_kinematics import PARENTS, inverse_kinematics
from bodyreg.losses.keypoints import masked_mean
from bodyreg.losses.semantic import SemanticSettings, ndc_vertices
from bodyreg.models.decoding import Decoded
from bodyreg.training.regressor import RegressorModule, head_losses, regress
from bodyreg.training.semantic import RendererSettings, SemanticTerms
from bodyreg.training.settings import RegressorSettings

__all__ = [
    "BodyWeights",
    "JointModule",
    "JointSettings",
    "body_losses",
    "joint_terms",
    "labelled",
    "posed_bodies",
    "seen_bodies",
]

_IN_PICTURE = ("heatmap", "uv")
_WEAK_FOCAL_PX = 5000.0


@dataclass
class BodyWeights:
    """Factors of the losses on the posed body."""

    keypoints: float = 0.05
    """Of its joints in the picture, pixels of a crop 256 wide."""
    pose: float = 1.0
    """Of local rotations, squared difference of matrices."""
    vertices: float = 5.0
    """Of vertices about the pelvis, metres."""


@dataclass
class JointSettings(RegressorSettings):
    """Everything about training the joint system."""

    body: BodyWeights = field(default_factory=BodyWeights)
    semantic: SemanticSettings = field(
        default_factory=lambda: SemanticSettings(mc_weight=1.0, c_weight=1.0, start_epoch=-1, image_size=96)
    )
    renderers: RendererSettings = field(default_factory=RendererSettings)
    labelled: float = 1.0
    """Share of the people with labels in 3D; the others have key points and parsing maps alone."""
    camera: str = "true"
    """Camera the body is rendered through: the crop's true one, or "weak", SPIN's far one about the pelvis."""

    def check(self) -> None:
        super().check()
        self.semantic.options()
        if not 0 <= self.labelled <= 1:
            raise ValueError(f"labelled is {self.labelled}. Give a share between 0 and 1.")
        if self.camera not in ("true", "weak"):
            raise ValueError(f"There is no camera {self.camera!r}. Choose true or weak.")


class JointModule(RegressorModule):
    """Losses of the joint system; optimiser and validation are those of the regressor.

    Args:
        settings: of the run. body: of the synthetic people.
    """

    settings: JointSettings

    def __init__(self, settings: JointSettings, body: BodyModel) -> None:
        super().__init__(settings)
        self._body = [body]
        self.semantic = SemanticTerms(settings.semantic, settings.renderers, body)

    def training_step(self, batch: dict[str, Tensor], index: int) -> Tensor:
        terms = self.terms(batch, self.global_step)
        total = torch.stack([value for name, value in terms.items() if not name.startswith("log_")]).sum()
        self.log("loss", total, prog_bar=True)
        self.log_dict({f"train/{name}": value for name, value in terms.items()})
        return total

    def terms(self, batch: dict[str, Tensor], step: int) -> dict[str, Tensor]:
        """`joint_terms` of this module's network and body."""
        body = self._body[0] = self._body[0].to(self.device)
        return joint_terms(self.model, body, self.semantic, batch, step, self.settings)


def joint_terms(
    model: Any, body: BodyModel, semantic: SemanticTerms, batch: dict[str, Tensor], step: int, settings: JointSettings
) -> dict[str, Tensor]:
    """Every term of a batch of `ShardStream` with parsing maps, weighted; figures to log begin with `log_`.

    Args:
        model: a PersPose network. body: of the people. semantic: their DSR terms. step: of the run, for the warm-up.
    """
    raw, decoded = regress(model, batch)
    known = labelled(batch["betas"], settings.labelled)
    weights = asdict(settings.loss)
    with torch.autocast(raw.heatmap.device.type, enabled=False):
        losses = {name: value for name, value in head_losses(raw, decoded, batch).items() if name in _IN_PICTURE}
        if bool(known.any()):
            pick = lambda record: type(record)(*(None if v is None else v[known] for v in record))  # noqa: E731
            part = {name: value[known] for name, value in batch.items()}
            losses |= {n: v for n, v in head_losses(pick(raw), pick(decoded), part).items() if n not in _IN_PICTURE}
        terms = {name: weights[name] * value for name, value in losses.items()}
        posed = posed_bodies(body, decoded)
        terms |= body_losses(body, posed, batch, known, settings.body)
        points = seen_bodies(posed, batch["K_crop"], batch["image"].shape[-1], settings.camera)
        return terms | semantic(points, batch["parsing"], 0, step)


def seen_bodies(posed: BodyOutput, K: Tensor, size: int, camera: str = "true") -> Tensor:
    """(B, V, 3) what the renderer takes of bodies in crops of `size` pixels, through the "true" camera or a "weak" one.

    The weak camera shows the pelvis as large and where the true one does, but from so far away that all depths look
    alike.
    """
    pelvis = posed.joints[:, :1]
    if camera == "true":
        return ndc_vertices(posed.vertices, K, (size, size), pivot=pelvis[:, 0, 2])
    far = K.clone()
    far[:, 0, 0] = far[:, 1, 1] = _WEAK_FOCAL_PX
    depth = _WEAK_FOCAL_PX * pelvis[:, :, 2:] / K[:, None, :1, 0]
    offset = (project(pelvis, K) - far[:, None, :2, 2]) * depth / _WEAK_FOCAL_PX
    moved = posed.vertices - pelvis + torch.cat([offset, depth], -1)
    return ndc_vertices(moved, far, (size, size), pivot=depth[:, 0, 0])


def labelled(betas: Tensor, share: float) -> Tensor:
    """(B,) bool, whether a person has labels in 3D: a share of people, each the same whenever it is drawn."""
    if share >= 1:
        return torch.ones(len(betas), dtype=torch.bool, device=betas.device)
    return (betas.double() * torch.arange(1, betas.shape[1] + 1, device=betas.device)).sum(1).mul(997.0) % 1 < share


def posed_bodies(body: BodyModel, decoded: Decoded) -> BodyOutput:
    """Bodies in the frames of their crops from what the network says, differentiable in all of it.

    All shape numbers are the regressed ones. With the first one searched and its derivative passed on, losses that it
    cannot lower, since the search answers to joints alone, would push the regressed one ever farther.
    """
    aim = (decoded.xyz + decoded.xyz0)[:, :24]
    solved = inverse_kinematics(body, aim, decoded.ortho_twist, decoded.beta, decoded.leaf_rot, search=False)
    return body(solved.betas, solved.R_local[:, 1:], solved.R_local[:, 0], solved.transl)


def body_losses(
    body: BodyModel, posed: BodyOutput, batch: dict[str, Tensor], known: Tensor, weights: BodyWeights
) -> dict[str, Tensor]:
    """Weighted losses on posed bodies: key points of everybody, pose and vertices of people with labels in 3D.

    Args:
        posed: from `posed_bodies`. batch: of `ShardStream`. known: (B,) bool.
    """
    size = batch["image"].shape[-1]
    true_px, own_px = (project(x, batch["K_crop"], min_depth=0.1) for x in (batch["joints"][:, :24], posed.joints))
    inside = ((true_px > 0) & (true_px < size)).all(-1)
    apart = torch.linalg.vector_norm(own_px - true_px, dim=-1).clamp(max=2 * size) * (256 / size)
    terms: dict[str, Any] = {"body_keypoints": weights.keypoints * masked_mean(apart, inside)}
    if not bool(known.any()):
        return terms
    R = batch["R_global"][known]
    local = torch.cat([R[:, :1], R[:, PARENTS[1:]].mT @ R[:, 1:]], 1)
    with torch.no_grad():
        true = body(batch["betas"][known], local[:, 1:], local[:, 0])
    own = torch.cat([posed.global_orient[:, None], posed.body_pose], 1)[known]
    terms["body_pose"] = weights.pose * (own - local).square().mean()
    shape = (posed.vertices - posed.joints[:, :1])[known] - (true.vertices - true.joints[:, :1])
    terms["body_vertices"] = weights.vertices * shape.abs().mean()
    return terms
