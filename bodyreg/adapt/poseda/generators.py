"""Local pose augmentation: networks that change bone angles, bone lengths and orientation (LPA)."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from bodyreg.adapt.poseda.kinematics import bone_vectors, joints_from_bones, matrix_from_rotvec, scale_bones
from bodyreg.models.lifters.simple_baseline import LinearStack

__all__ = ["Augmented", "BoneAngles", "BoneLengths", "PoseGenerator", "Rotation"]

_SLOPE = 0.01
# Pelvis to spine and spine to thorax keep their direction: they carry the body.
_STIFF = (6, 7)
_THORAX = 4


class Augmented(NamedTuple):
    """What the generator made of poses, step by step."""

    angles: Tensor
    """(N, 16, 3) after the bones turned."""
    lengths: Tensor
    """(N, 16, 3) after they changed length."""
    pose: Tensor
    """(N, 16, 3) after the body turned; the root at zero, or at the drawn translation."""
    angle_change: Tensor
    """(N, 15) one minus the cosine between old and new directions."""
    ratios: Tensor
    """(N, 9) relative change of length."""


class _Generator(LinearStack):
    """A stack on the root-relative pose and fresh noise."""

    def __init__(self, noise: int) -> None:
        super().__init__(slope=_SLOPE)
        self.noise = noise

    def draw(self, like: Tensor) -> Tensor:
        return torch.randn(len(like), self.noise, dtype=like.dtype, device=like.device)

    @staticmethod
    def flat(pose: Tensor) -> Tensor:
        return (pose - pose[:, :1]).flatten(1)


class BoneAngles(_Generator):
    """Turns bones; lengths, the two bones of the trunk and the root stay."""

    def __init__(self, width: int = 256, stages: int = 2, noise: int = 48) -> None:
        super().__init__(noise)
        self.add_stack(48 + noise, 45, width, stages)

    def forward(self, pose: Tensor, noise: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Poses (N, 16, 3) to changed ones and (N, 15) one minus the cosine of each bone's turn."""
        bones = bone_vectors(pose)
        lengths, old = bones.norm(dim=-1, keepdim=True), F.normalize(bones, dim=-1)
        x = torch.cat([self.flat(pose), self.draw(pose) if noise is None else noise], -1)
        new = F.normalize(old + self.run_stack(x).unflatten(-1, (15, 3)), dim=-1)
        stiff = torch.zeros(15, 1, dtype=torch.bool, device=pose.device)
        stiff[list(_STIFF)] = True
        new = torch.where(stiff, old, new)
        return joints_from_bones(new * lengths) + pose[:, :1], 1 - (old * new).sum(-1)


class BoneLengths(_Generator):
    """Changes nine lengths, left and right alike, by up to `limit`; the thorax keeps its own, since size and distance
    cannot be told apart."""

    def __init__(self, width: int = 256, stages: int = 2, noise: int = 48, limit: float = 0.2) -> None:
        super().__init__(noise)
        self.limit = limit
        self.add_stack(48 + 15 + noise, 9, width, stages, "_BL")

    def forward(self, pose: Tensor, changed: Tensor, noise: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The pose as it was and as `BoneAngles` left it, to one with other lengths and the (N, 9) ratios."""
        lengths = bone_vectors(pose).norm(dim=-1)
        x = torch.cat([self.flat(pose), lengths, self.draw(pose) if noise is None else noise], -1)
        free = torch.ones(9, dtype=pose.dtype, device=pose.device)
        free[_THORAX] = 0
        ratios = self.limit * torch.tanh(self.run_stack(x, "_BL") * free)
        return scale_bones(changed, ratios), ratios


class Rotation(_Generator):
    """Turns the whole body about its root; alignment places it. The translation branch is kept for its weights."""

    def __init__(self, width: int = 256, stages: int = 2, noise: int = 48) -> None:
        super().__init__(noise)
        self.add_stack(48 + noise, 3, width, stages, "_R")
        self.add_stack(48 + noise, 3, width, stages, "_T")

    def forward(
        self, pose: Tensor, changed: Tensor, noise_r: Tensor | None = None, noise_t: Tensor | None = None, *,
        use_translation: bool = False,
    ) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
        """Poses to turned ones, rotation vectors (N, 3) and translations (N, 1, 3), metres."""
        flat = self.flat(pose)
        noise_r = self.draw(pose) if noise_r is None else noise_r
        rotvec = 3.1415 * torch.tanh(self.run_stack(torch.cat([flat, noise_r], -1), "_R"))
        turned = (changed - changed[:, :1]) @ matrix_from_rotvec(rotvec).mT
        if not use_translation:
            return turned, rotvec, torch.zeros_like(turned[:, :1])
        noise_t = self.draw(pose) if noise_t is None else noise_t
        shift = self.run_stack(torch.cat([flat, noise_t], -1), "_T")
        shift = torch.cat([shift[:, :2], shift[:, 2:].square()], -1)[:, None]
        return turned + shift, rotvec, shift


class PoseGenerator(torch.nn.Module):
    """Angles, then lengths, then rotation, each seeing the original pose and noise of its own."""

    def __init__(self, width: int = 256, stages: int = 2, noise: int = 48, limit: float = 0.2) -> None:
        super().__init__()
        self.BAprocess = BoneAngles(width, stages, noise)
        self.BLprocess = BoneLengths(width, stages, noise, limit)
        self.RTprocess = Rotation(width, stages, noise)

    def forward(self, pose: Tensor) -> Augmented:
        """(N, 16, 3) poses to changed ones, the root of the last at zero."""
        angles, change = self.BAprocess(pose)
        lengths, ratios = self.BLprocess(pose, angles)
        turned, _, _ = self.RTprocess(pose, lengths)
        return Augmented(angles, lengths, turned, change, ratios)
