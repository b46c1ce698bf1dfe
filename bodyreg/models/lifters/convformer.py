"""ConvFormer: attention whose queries, keys and values come from convolutions (Diaz-Arias and Shin, 2024).

No code was released: this is a reconstruction from the paper, with its sizes pinned by the paper's parameter tables.
Softmax weights of the aggregation, the place of its dropout, attention scaled by the head's width, and the place of
the head's normalisation are our readings; no published weights exist to compare with.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from bodyreg.models.lifters.layers import DropPath, Mlp, attend, check_clip, depth_rates

__all__ = ["ConvFormer", "ConvFormerBlock", "DynamicConvAttention"]


class DynamicConvAttention(nn.Module):
    """Dynamic multi-headed convolutional self-attention (equations 4 to 7).

    Each of query, key and value is a learned mixture of convolutions over (B, tokens, features). "spatial": channels
    are the features, the kernel slides over tokens (joints), and the projection mixes features. "temporal": channels
    are the tokens (frames), the kernel slides over the joint-major features, and the projection mixes frames.

    Args:
        channels: features (spatial) or tokens (temporal). heads: groups of features. kernels: odd sizes, may repeat.
        temporal: the mode. dropout: on the aggregated queries, keys and values.
    """

    def __init__(
        self, channels: int, heads: int, kernels: Sequence[int], *, temporal: bool, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.heads, self.temporal = heads, temporal
        for role in "qkv":
            convs = [nn.Conv1d(channels, channels, size, padding=(size - 1) // 2) for size in kernels]
            setattr(self, f"{role}_convs", nn.ModuleList(convs))
            setattr(self, f"{role}_eta", nn.Parameter(torch.zeros(len(kernels))))
        self.proj = nn.Linear(channels, channels)
        self.drop = nn.Dropout(dropout)

    def mixture(self, role: str) -> Tensor:
        """(n,) positive weights, sum 1, of the kernels of "q", "k" or "v" (equation 6)."""
        return torch.softmax(getattr(self, f"{role}_eta"), 0)

    def aggregate(self, x: Tensor, role: str) -> Tensor:
        """(B, tokens, features) queries, keys or values: the mixture of the convolved input."""
        x = x if self.temporal else x.mT
        weights = self.mixture(role)
        convs: nn.ModuleList = getattr(self, f"{role}_convs")
        total = weights[0] * convs[0](x)
        for weight, conv in zip(weights[1:], list(convs)[1:], strict=True):
            total = total + weight * conv(x)
        return self.drop(total if self.temporal else total.mT)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (self.aggregate(x, role).unflatten(-1, (self.heads, -1)).transpose(1, 2) for role in "qkv")
        y = attend(q, k, v, q.shape[-1] ** -0.5).transpose(1, 2).flatten(2)
        return self.proj(y.mT).mT if self.temporal else self.proj(y)


class ConvFormerBlock(nn.Module):
    """Attention and feed-forward layers, each normalised before and skipped over (equation 8).

    Args:
        features: F of (B, tokens, F). channels, heads, kernels, temporal, dropout: of the attention.
        mlp_ratio: hidden over outer width. drop_path: chance that a sample skips a branch in training.
    """

    def __init__(
        self, features: int, channels: int, heads: int, kernels: Sequence[int], *, temporal: bool,
        mlp_ratio: float = 2, drop_path: float = 0.0, dropout: float = 0.0,
    ) -> None:  # fmt: skip
        super().__init__()
        self.norm1 = nn.LayerNorm(features, eps=1e-6)
        self.attn = DynamicConvAttention(channels, heads, kernels, temporal=temporal, dropout=dropout)
        self.norm2 = nn.LayerNorm(features, eps=1e-6)
        self.mlp = Mlp(features, int(features * mlp_ratio))
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.drop_path(self.attn(self.norm1(x)))
        return x + self.drop_path(self.mlp(self.norm2(x)))


class ConvFormer(nn.Module):
    """A clip of 2D joints to the 3D joints of its middle frame.

    Args:
        frames: odd clip length. joints: J. embed: width of a joint. spatial_blocks, temporal_blocks: depths.
        heads: of the attention. kernels: odd sizes of the convolutions. mlp_ratio: of the feed-forward layers.
        drop_path: of the last block of each stack, growing from 0. aggregation_dropout: see `DynamicConvAttention`.

    Raises:
        ValueError: an even clip length or kernel, or a width that the heads do not divide.
    """

    def __init__(
        self, frames: int = 9, joints: int = 17, embed: int = 32, spatial_blocks: int = 2, temporal_blocks: int = 2,
        heads: int = 8, kernels: Sequence[int] = (7, 7, 7), mlp_ratio: float = 2, drop_path: float = 0.2,
        aggregation_dropout: float = 0.2,
    ) -> None:  # fmt: skip
        super().__init__()
        if frames < 1 or frames % 2 == 0:
            raise ValueError(f"The clip has {frames} frames. Give an odd number, so that it has a middle.")
        if not kernels or any(size < 1 or size % 2 == 0 for size in kernels):
            raise ValueError(f"The kernels are {list(kernels)}. Give odd sizes.")
        if embed % heads:
            raise ValueError(f"{heads} heads do not divide a width of {embed}. Choose numbers that fit.")
        self.frames, self.joints = frames, joints
        width = joints * embed
        self.joint_embed = nn.Linear(2, embed)
        self.spatial_pos = nn.Parameter(torch.zeros(1, joints, embed))
        self.temporal_pos = nn.Parameter(torch.zeros(1, frames, width))

        def stack(depth: int, features: int, channels: int, temporal: bool) -> nn.ModuleList:
            return nn.ModuleList(
                ConvFormerBlock(
                    features, channels, heads, kernels, temporal=temporal, mlp_ratio=mlp_ratio, drop_path=rate,
                    dropout=aggregation_dropout,
                )
                for rate in depth_rates(drop_path, depth)
            )  # fmt: skip

        self.spatial_blocks = stack(spatial_blocks, embed, embed, False)
        self.spatial_norm = nn.LayerNorm(embed, eps=1e-6)
        self.temporal_blocks = stack(temporal_blocks, width, frames, True)
        self.temporal_norm = nn.LayerNorm(width, eps=1e-6)
        self.head_norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, 3 * joints)
        self.frame_mix = nn.Conv1d(frames, 1, 1)

    def forward(self, keypoints: Tensor) -> Tensor:
        """(B, T, J, 2) normalised screen coordinates to (B, 1, J, 3) root-relative joints, metres, camera axes.

        Raises:
            ValueError: another clip length or joint count than the network's.
        """
        check_clip(keypoints, self.frames, self.joints, 2, "ConvFormer")
        x = self.tokens(keypoints) + self.temporal_pos
        for block in self.temporal_blocks:
            x = block(x)
        x = self.head(self.head_norm(self.temporal_norm(x)))
        return self.frame_mix(x).unflatten(-1, (self.joints, 3))

    def tokens(self, keypoints: Tensor) -> Tensor:
        """(B, T, J, 2) to (B, T, J * embed), joint-major: what the spatial stage makes of each frame."""
        x = (self.joint_embed(keypoints) + self.spatial_pos).flatten(0, 1)
        for block in self.spatial_blocks:
            x = block(x)
        return self.spatial_norm(x).flatten(1).unflatten(0, keypoints.shape[:2])
