"""SemGCN: graph convolutions with a learned weight for every edge (Zhao et al., CVPR 2019), as PoseDA adapts it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from bodyreg.models.lifters.layers import check_clip

__all__ = ["SemGCN"]


class _EdgeConv(nn.Module):
    """Own and neighbours' features through two matrices, weighed by a softmax over each joint's edges."""

    def __init__(self, width_in: int, width: int, edges: Tensor) -> None:
        super().__init__()
        self.edges: Tensor
        self.register_buffer("edges", edges, persistent=False)
        self.W = nn.Parameter(torch.empty(2, width_in, width))
        self.e = nn.Parameter(torch.ones(1, int(edges.sum())))
        self.bias = nn.Parameter(torch.empty(width))
        nn.init.xavier_uniform_(self.W, gain=1.414)
        bound = width**-0.5
        nn.init.uniform_(self.bias, -bound, bound)

    def forward(self, x: Tensor) -> Tensor:
        logits = torch.full_like(self.edges, -9e15, dtype=x.dtype)
        weights = logits.masked_scatter(self.edges, self.e.to(x.dtype)).softmax(1)
        own = torch.diag(weights)
        return own[:, None] * (x @ self.W[0]) + (weights - torch.diag(own)) @ (x @ self.W[1]) + self.bias


class _Layer(nn.Module):
    """Graph convolution, batch normalisation over channels, ReLU."""

    def __init__(self, width_in: int, width: int, edges: Tensor) -> None:
        super().__init__()
        self.gconv = _EdgeConv(width_in, width, edges)
        self.bn = nn.BatchNorm1d(width)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.bn(self.gconv(x).mT).mT)


class _Residual(nn.Module):
    def __init__(self, width: int, edges: Tensor) -> None:
        super().__init__()
        self.gconv1 = _Layer(width, width, edges)
        self.gconv2 = _Layer(width, width, edges)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.gconv2(self.gconv1(x))


class SemGCN(nn.Module):
    """2D joints of single frames to 3D joints; the root is regressed like every joint.

    Args:
        parents: of the J joints, -1 for the root: edges run along the tree, both ways, and to itself.
        width: channels. layers: residual layers of two graph convolutions.
    """

    def __init__(self, parents: Sequence[int], width: int = 128, layers: int = 4) -> None:
        super().__init__()
        self.joints = len(parents)
        edges = torch.eye(self.joints, dtype=torch.bool, device="cpu")
        for child, parent in enumerate(parents):
            if parent >= 0:
                edges[child, parent] = edges[parent, child] = True
        self.gconv_input = nn.Sequential(_Layer(2, width, edges))
        self.gconv_layers = nn.Sequential(*(_Residual(width, edges) for _ in range(layers)))
        self.gconv_output = _EdgeConv(width, 3, edges)

    def forward(self, keypoints: Tensor) -> Tensor:
        """(B, T, J, 2) normalised screen coordinates to (B, T, J, 3) joints, metres; each frame alone."""
        check_clip(keypoints, keypoints.shape[1] if keypoints.ndim > 1 else 1, self.joints, 2, "SemGCN")
        x = self.gconv_layers(self.gconv_input(keypoints.flatten(0, 1)))
        return self.gconv_output(x).unflatten(0, keypoints.shape[:2])
