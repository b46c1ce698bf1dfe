"""ST-GCN on single frames: joints, then body parts, then both (Cai et al., ICCV 2019), as PoseDA adapts it.

Feature maps are (N, C, 1, V). Sixteen joints come in; a seventeenth between thorax and head is put in for the graph
and taken out of the result.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from bodyreg.models.lifters.gumlp import edge_partition
from bodyreg.models.lifters.layers import check_clip

__all__ = ["STGCN", "part_partition"]

_PARTS = ((11, 12, 13), (14, 15, 16), (4, 5, 6), (1, 2, 3), (0, 7, 8, 9, 10))
_JOINTS, _ADDED = 16, 9


def part_partition() -> Tensor:
    """(4, 5, 5) edge weights of arms, legs and trunk: itself, from the limbs, from the trunk, between twins."""
    parts = torch.zeros(4, 5, 5, device="cpu")
    parts[0].fill_diagonal_(1)
    parts[1, :4, 4] = 1
    parts[2, 4, :4] = 1
    for a, b in ((0, 1), (2, 3)):
        parts[3, a, b] = parts[3, b, a] = 1
    return parts / parts.sum((0, 1))


class _GraphConv(nn.Module):
    def __init__(self, width_in: int, width: int, graph: Tensor) -> None:
        super().__init__()
        self.A: Tensor
        self.register_buffer("A", graph, persistent=False)
        self.conv = nn.Conv2d(width_in, len(graph) * width, 1)

    def forward(self, x: Tensor) -> Tensor:
        return torch.einsum("nkctv,kvw->nctw", self.conv(x).unflatten(1, (len(self.A), -1)), self.A)


class _Block(nn.Module):
    """Graph convolution and a map over channels, with a residual where asked for."""

    def __init__(self, width_in: int, width: int, graph: Tensor, dropout: float, residual: bool = True) -> None:
        super().__init__()
        self.gcn = _GraphConv(width_in, width, graph)
        self.tcn = nn.Sequential(
            nn.BatchNorm2d(width), nn.ReLU(), nn.Dropout(dropout), nn.Conv2d(width, width, 1), nn.BatchNorm2d(width),
            nn.Dropout(dropout),
        )  # fmt: skip
        self.skips = residual
        self.residual: nn.Module = nn.Identity()
        if residual and width_in != width:
            self.residual = nn.Sequential(nn.Conv2d(width_in, width, 1), nn.BatchNorm2d(width))

    def forward(self, x: Tensor) -> Tensor:
        y = self.tcn(self.gcn(x))
        return torch.relu(y + self.residual(x) if self.skips else y)


class _NonLocal(nn.Module):
    """Every joint attends to every joint (embedded Gaussian: Wang et al., CVPR 2018)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        inner = width // 2
        self.g = nn.Conv2d(width, inner, 1)
        self.W = nn.Sequential(nn.Conv2d(inner, width, 1), nn.BatchNorm2d(width))
        self.theta = nn.Conv2d(width, inner, 1)
        self.phi = nn.Conv2d(width, inner, 1)
        nn.init.zeros_(self.W[1].get_parameter("weight"))
        nn.init.zeros_(self.W[1].get_parameter("bias"))

    def forward(self, x: Tensor) -> Tensor:
        theta, phi, g = (layer(x).flatten(2) for layer in (self.theta, self.phi, self.g))
        weights = (theta.mT @ phi).softmax(-1)
        return x + self.W((g @ weights.mT).unflatten(-1, x.shape[2:]))


class _Network(nn.Module):
    def __init__(self, widths: Sequence[int], width: int, dropout: float) -> None:
        super().__init__()
        joints, parts = edge_partition(), part_partition()
        a, b, c = widths
        self.data_bn = nn.BatchNorm1d(2 * (_JOINTS + 1), eps=0.1)
        blocks = [(2, a, False), (a, b, True), (b, c, True)]
        self.st_gcn_networks = nn.ModuleList(_Block(i, o, joints, dropout, skip) for i, o, skip in blocks)
        self.st_gcn_pool = nn.ModuleList([_Block(c, width, parts, dropout), _Block(width, width, parts, dropout)])
        self.conv4 = _mapped(width, width, dropout)
        self.conv2 = _mapped(2 * width, c, dropout)
        self.non_local = _NonLocal(2 * c)
        self.fcn = nn.Sequential(nn.Dropout(dropout), nn.Conv2d(2 * c, 3, 1))

    def forward(self, x: Tensor) -> Tensor:
        """(N, 17, 2) to (N, 17, 3)."""
        x = self.data_bn(x.flatten(1)).unflatten(1, (-1, 2)).mT[:, :, None]
        for block in self.st_gcn_networks:
            x = block(x)
        pooled = torch.stack([x[..., list(part)].amax(-1) for part in _PARTS], -1)
        for block in self.st_gcn_pool:
            pooled = block(pooled)
        whole = self.conv4(pooled.amax(-1, keepdim=True))
        parts = self.conv2(torch.cat([whole.expand_as(pooled), pooled], 1))
        spread = torch.empty_like(x)
        for k, part in enumerate(_PARTS):
            spread[..., list(part)] = parts[..., k, None]
        return self.fcn(self.non_local(torch.cat([x, spread], 1)))[:, :, 0].mT


class STGCN(nn.Module):
    """2D joints of single frames to 3D joints; the root is regressed like every joint.

    Args:
        widths: channels of the three blocks over joints. width: channels of the two blocks over body parts.
        dropout: within blocks.
    """

    def __init__(self, widths: Sequence[int] = (128, 128, 256), width: int = 512, dropout: float = 0.25) -> None:
        super().__init__()
        self.stgcn = _Network(widths, width, dropout)

    def forward(self, keypoints: Tensor) -> Tensor:
        """(B, T, 16, 2) normalised screen coordinates to (B, T, 16, 3) joints, metres; each frame alone."""
        check_clip(keypoints, keypoints.shape[1] if keypoints.ndim > 1 else 1, _JOINTS, 2, "ST-GCN")
        x = keypoints.flatten(0, 1)
        between = (x[:, _ADDED - 1 : _ADDED] + x[:, _ADDED : _ADDED + 1]) / 2
        x = self.stgcn(torch.cat([x[:, :_ADDED], between, x[:, _ADDED:]], 1))
        return torch.cat([x[:, :_ADDED], x[:, _ADDED + 1 :]], 1).unflatten(0, keypoints.shape[:2])


def _mapped(width_in: int, width: int, dropout: float) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(width_in, width, 1), nn.BatchNorm2d(width), nn.ReLU(), nn.Dropout(dropout))
