"""Critics: networks that tell real poses from generated ones, and the pool they are shown old fakes from.

The paper calls its critic an anchor discriminator and does not say how it is built. Ours are two least-squares critics
in PoseAug's forms: one on the local 3D pose, its real samples being source poses, and one on the 2D pose, its real
samples being the target's.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bodyreg.adapt.poseda.kinematics import PARTS, bone_vectors, kcs

__all__ = ["Critic2d", "Critic3d", "ReplayPool"]

_SLOPE = 0.01


class _PartCritic(nn.Module):
    def __init__(self, width: int, last: int) -> None:
        super().__init__()
        self.kcs_layer_1 = nn.Linear(225, width)
        self.kcs_layer_2 = nn.Linear(width, width)
        self.kcs_layer_3 = nn.Linear(width, width)
        self.layer_last = nn.Linear(width, last)
        self.layer_pred = nn.Linear(last, 1)

    def forward(self, x: Tensor) -> Tensor:
        first = F.leaky_relu(self.kcs_layer_1(x), _SLOPE)
        x = self.kcs_layer_3(F.leaky_relu(self.kcs_layer_2(first), _SLOPE)) + first
        return self.layer_pred(F.leaky_relu(self.layer_last(x), _SLOPE))


class Critic3d(nn.Module):
    """Five scores of a pose, one for each part in `PARTS`; blind to place, size of bones and orientation."""

    def __init__(self, width: int = 256, last: int = 100) -> None:
        super().__init__()
        for k in range(1, len(PARTS) + 1):
            self.add_module(f"kcs_path_{k}", _PartCritic(width, last))

    def forward(self, pose: Tensor) -> Tensor:
        """(N, 16, 3) joints, metres, to (N, 5)."""
        bones = F.normalize(bone_vectors(pose), dim=-1)
        scores = [critic(kcs(bones, part).flatten(1)) for critic, part in zip(self.children(), PARTS, strict=True)]
        return torch.cat(scores, -1)


class Critic2d(nn.Module):
    """One score of a 2D pose."""

    def __init__(self, joints: int = 16, width: int = 100) -> None:
        super().__init__()
        self.pose_layer_1 = nn.Linear(2 * joints, width)
        self.pose_layer_2 = nn.Linear(width, width)
        self.pose_layer_3 = nn.Linear(width, width)
        self.pose_layer_4 = nn.Linear(width, width)
        self.layer_last = nn.Linear(width, width)
        self.layer_pred = nn.Linear(width, 1)

    def forward(self, keypoints: Tensor) -> Tensor:
        """(N, J, 2) normalised screen coordinates to (N, 1)."""
        first = F.leaky_relu(self.pose_layer_1(keypoints.flatten(1)), _SLOPE)
        x = F.leaky_relu(self.pose_layer_2(first), _SLOPE)
        x = self.pose_layer_4(F.leaky_relu(self.pose_layer_3(x) + first, _SLOPE))
        return self.layer_pred(F.leaky_relu(self.layer_last(x), _SLOPE))


class ReplayPool:
    """Keeps generated poses, so that a critic does not forget what it saw before (Shrivastava et al., CVPR 2017).

    While not full it stores and returns what it is given; afterwards, for each sample, with probability one half it
    returns a stored one and puts the new one in its place.
    """

    def __init__(self, size: int = 4096, seed: int = 0) -> None:
        self.size, self._generator, self._held = size, torch.Generator().manual_seed(seed), torch.empty(0)

    def __len__(self) -> int:
        return len(self._held)

    def __call__(self, fakes: Tensor) -> Tensor:
        """As many as given, (N, ...), without gradient."""
        fakes = fakes.detach()
        if len(self._held) == 0:
            self._held = fakes[:0].clone()
        room = self.size - len(self._held)
        fresh, rest = fakes[:room], fakes[room:]
        self._held = torch.cat([self._held, fresh])
        returned = [fresh]
        for fake in rest:
            if torch.rand((), generator=self._generator) < 0.5:
                place = int(torch.randint(len(self._held), (), generator=self._generator))
                returned.append(self._held[place : place + 1].clone())
                self._held[place] = fake
            else:
                returned.append(fake[None])
        return torch.cat(returned)
