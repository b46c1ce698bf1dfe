"""GUMLP: a single-frame lifter that says how sure it is of each joint (Wang et al., IEEE TMM 2025).

A graph convolution over four kinds of edges and U-shaped perceptrons over channels and joints; two heads give a
position and one log-scale a joint. Tokens are (N, J, C): poses, joints, channels.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from bodyreg.models.lifters.layers import DropPath, check_clip, depth_rates

__all__ = ["GUMLP", "Gaussian", "edge_partition"]

_BONES = (
    (0, 1), (2, 1), (3, 2), (4, 0), (5, 4), (6, 5), (7, 0), (8, 7), (9, 8), (10, 9), (11, 8), (12, 11), (13, 12),
    (14, 8), (15, 14), (16, 15),
)  # fmt: skip
_TWINS = ((6, 3), (5, 2), (4, 1), (11, 14), (12, 15), (13, 16))
# Steps from the middle of the body (the spine), joint by joint.
_FROM_CENTRE = (1, 2, 3, 4, 2, 3, 4, 0, 1, 2, 3, 2, 3, 4, 2, 3, 4)


class Gaussian(NamedTuple):
    """A prediction with its uncertainty."""

    mean: Tensor
    """(B, T, J, 3) root-relative joints, metres."""
    log_scale: Tensor
    """(B, T, J, 1) logarithm of the expected error's scale."""


def edge_partition() -> Tensor:
    """(4, 17, 17) edge weights of h36m-17: itself, from nearer the centre, from further, and the mirror joint.

    Columns of the sum over the four are one.
    """
    joints = len(_FROM_CENTRE)
    hops = torch.eye(joints, device="cpu")
    twins = torch.zeros(joints, joints, dtype=torch.bool, device="cpu")
    for pairs, is_twin in ((_BONES, False), (_TWINS, True)):
        for i, j in pairs:
            hops[i, j] = hops[j, i] = 1
            twins[i, j] = twins[j, i] = is_twin
    weights = hops / hops.sum(0)
    centre = torch.tensor(_FROM_CENTRE, device="cpu")
    further = centre[:, None] > centre
    own = torch.eye(joints, dtype=torch.bool, device="cpu")
    kinds = (own, further & ~twins & ~own, further.mT & ~twins & ~own, twins)
    return torch.stack([weights * kind for kind in kinds])


class GraphConv(nn.Module):
    """One linear map for each kind of edge, summed over the neighbours; (N, J, C) to (N, J, C')."""

    def __init__(self, width_in: int, width: int, graph: Tensor) -> None:
        super().__init__()
        self.A: Tensor
        self.register_buffer("A", graph, persistent=False)
        self.conv1d = nn.Conv1d(width_in, len(graph) * width, 1)

    def forward(self, x: Tensor) -> Tensor:
        mapped = self.conv1d(x.mT).unflatten(1, (len(self.A), -1))
        return torch.einsum("nkcv,kvw->nwc", mapped, self.A)


class _Linear(nn.Module):
    """Linear, GELU (exact), dropout."""

    def __init__(self, width_in: int, width: int, dropout: float) -> None:
        super().__init__()
        self.linear = nn.Sequential(nn.Linear(width_in, width), nn.GELU(), nn.Dropout(dropout))

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x)


class ChannelMlp(nn.Module):
    """Down, across with a skip, up again: over the last axis."""

    def __init__(self, width: int, hidden: int, dropout: float = 0.1) -> None:
        super().__init__()
        self.linear_down = _Linear(width, hidden, dropout)
        self.linear_mid = _Linear(hidden, hidden, dropout)
        self.linear_up = _Linear(hidden, width, dropout)

    def forward(self, x: Tensor) -> Tensor:
        x = self.linear_down(x)
        return self.linear_up(self.linear_mid(x) + x)


class JointMlp(nn.Module):
    """Up in two steps, across with a skip, down in two steps: over the last axis."""

    def __init__(self, width: int, hidden: int, dropout: float = 0.05) -> None:
        super().__init__()
        self.linear_up1 = _Linear(width, hidden // 2, dropout)
        self.linear_up2 = _Linear(hidden // 2, hidden, dropout)
        self.linear_mid = _Linear(hidden, hidden, dropout)
        self.linear_down1 = _Linear(hidden, hidden // 2, dropout)
        self.linear_down2 = _Linear(hidden // 2, width, dropout)

    def forward(self, x: Tensor) -> Tensor:
        x = self.linear_up2(self.linear_up1(x))
        return self.linear_down2(self.linear_down1(self.linear_mid(x) + x))


class GraphMlpBlock(nn.Module):
    """A graph convolution, then perceptrons over channels and over joints, each with a skip."""

    def __init__(self, width: int, joints: int, graph: Tensor, hidden: int = 256, drop_path: float = 0.0) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(joints, eps=1e-6)
        self.gcn1 = GraphConv(width, width, graph)
        self.norm2 = nn.LayerNorm(width, eps=1e-6)
        self.channel_mlp = ChannelMlp(width, hidden)
        self.norm3 = nn.LayerNorm(joints, eps=1e-6)
        self.spatial_mlp = JointMlp(joints, 6 * joints)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.drop_path(self.gcn1(self.norm1(x.mT).mT))
        return x + self.drop_path(self.channel_mlp(self.norm2(x)) + self.spatial_mlp(self.norm3(x.mT)).mT)


class GraphMlp(nn.Module):
    """The trunk: blocks, and two normalisations of the same features for the two heads."""

    def __init__(self, depth: int, width: int, joints: int, graph: Tensor, hidden: int = 256) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            GraphMlpBlock(width, joints, graph, hidden, rate) for rate in depth_rates(0.2, depth)
        )
        self.norm_mu = nn.LayerNorm(width, eps=1e-6)
        self.norm_s = nn.LayerNorm(width, eps=1e-6)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        for block in self.blocks:
            x = block(x)
        return self.norm_mu(x), self.norm_s(x)


class TwoLinear(nn.Module):
    """Two linear maps, nothing between: the encoder, and each head."""

    def __init__(self, width_in: int, hidden: int, width: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width_in, hidden)
        self.fc5 = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc5(self.fc1(x))


class GUMLP(nn.Module):
    """2D joints of single frames to 3D joints and the logarithm of each joint's uncertainty.

    Args:
        layers: blocks. channels: width; the perceptrons over channels are half as wide.
    """

    joints = 17

    def __init__(self, layers: int = 3, channels: int = 512) -> None:
        super().__init__()
        self.encoder = TwoLinear(2, 64, channels)
        self.GCN_MLP = GraphMlp(layers, channels, self.joints, edge_partition(), channels // 2)
        self.pred_mu = TwoLinear(channels, 256, 3)
        self.pred_s = TwoLinear(channels, 256, 1)

    def forward(self, keypoints: Tensor) -> Tensor:
        """(B, T, 17, 2) normalised screen coordinates to (B, T, 17, 3) root-relative joints, metres."""
        return self.gaussian(keypoints).mean

    def gaussian(self, keypoints: Tensor) -> Gaussian:
        """The same with log-scales; each frame on its own.

        Raises:
            ValueError: another shape than (B, T, 17, 2).
        """
        check_clip(keypoints, keypoints.shape[1] if keypoints.ndim > 1 else 1, self.joints, 2, "GUMLP")
        mean, scale = self.GCN_MLP(self.encoder(keypoints.flatten(0, 1)))
        clip = keypoints.shape[:2]
        return Gaussian(self.pred_mu(mean).unflatten(0, clip), self.pred_s(scale).unflatten(0, clip))

    def load_state_dict(self, state_dict, strict: bool = True, assign: bool = False):
        """As always; the constant graph, which some published files carry, is checked and left out."""
        graph = edge_partition()
        kept = {}
        for name, value in state_dict.items():
            if name == "A" or name.endswith("gcn1.adj"):
                if value.shape != graph.shape or not torch.allclose(value.cpu().float(), graph, atol=1e-6):
                    raise ValueError(f"The weights were trained on another graph ({name}). Use GUMLP's own weights.")
                continue
            kept[name] = value
        return super().load_state_dict(kept, strict=strict, assign=assign)
