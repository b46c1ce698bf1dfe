"""Layers that the transformer lifters share: attention, perceptron, stochastic depth, the plain block.

Tokens are (N, L, C): N independent sequences of L tokens of C channels. Names of parameters are those of the published
networks, so that their weights load by name.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = [
    "Block", "CrossAttention", "DropPath", "Mlp", "SelfAttention", "attend", "check_clip", "depth_rates", "set_fused",
]  # fmt: skip


def check_clip(x: Tensor, frames: int, joints: int, channels: int, network: str) -> None:
    """Refuse key points that a network of fixed clip length cannot take.

    Args:
        x: (B, F, J, C) key points. frames, joints, channels: what the network was built for. network: its name.

    Raises:
        ValueError: another shape.
    """
    if x.dim() != 4 or x.shape[1:] != (frames, joints, channels):
        what = {2: "x, y", 3: "x, y, confidence"}.get(channels, f"{channels} numbers")
        raise ValueError(
            f"{network} was given key points of shape {tuple(x.shape)}. It takes (B, {frames}, {joints}, {channels}): "
            f"clips of {frames} frames with {joints} joints ({what}); cut longer sequences into windows and pad "
            "shorter ones by repeating their last frame."
        )


def attend(q: Tensor, k: Tensor, v: Tensor, scale: float, dropout: float = 0.0, *, fused: bool = True) -> Tensor:
    """softmax(q k^T scale) v.

    Args:
        q, k, v: (N, heads, L, D); q may have another L than k and v. scale: factor of the products.
        dropout: probability with which an attention weight is dropped.
        fused: one kernel that never stores the weights; False writes the formula out, for comparison.

    Returns:
        (N, heads, L, D).
    """
    if fused:
        return F.scaled_dot_product_attention(q, k, v, dropout_p=dropout, scale=scale)
    weights = (q @ k.transpose(-2, -1) * scale).softmax(-1)
    return F.dropout(weights, dropout) @ v


def set_fused(model: nn.Module, fused: bool) -> None:
    """Let every attention of a network use the fused kernel, or the formula written out."""
    for module in model.modules():
        if isinstance(module, _Attention):
            module.fused = fused


class DropPath(nn.Module):
    """Stochastic depth (Huang et al., ECCV 2016): drops a branch for whole samples, and scales the kept ones up."""

    def __init__(self, rate: float = 0.0) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        if self.rate == 0 or not self.training:
            return x
        kept = x.new_empty(x.shape[:1] + (1,) * (x.dim() - 1)).bernoulli_(1 - self.rate)
        return x * kept / (1 - self.rate)


class Mlp(nn.Module):
    """Linear, GELU (exact), Linear, with dropout behind each."""

    def __init__(self, width: int, hidden: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        return self.dropout(self.fc2(self.dropout(F.gelu(self.fc1(x)))))


class _Attention(nn.Module):
    """What self and cross attention share: heads, scale, output projection."""

    def __init__(self, width: int, heads: int, scale: float | None, attention_dropout: float, dropout: float) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"Attention of {width} channels cannot be split into {heads} heads. Change one of them.")
        self.heads = heads
        self.scale = (width // heads) ** -0.5 if scale is None else scale
        self.attention_dropout = attention_dropout
        self.fused = True
        self.proj = nn.Linear(width, width)
        self.dropout = nn.Dropout(dropout)

    def _attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """(N, heads, L, D) each -> (N, L, C)."""
        dropout = self.attention_dropout if self.training else 0.0
        y = attend(q, k, v, self.scale, dropout, fused=self.fused)
        return self.dropout(self.proj(y.transpose(1, 2).flatten(2)))


class SelfAttention(_Attention):
    """Multi-head self-attention (Vaswani et al., NeurIPS 2017, equation 1) with one matrix for q, k and v."""

    def __init__(
        self, width: int, heads: int, *, qkv_bias: bool = True, scale: float | None = None,
        attention_dropout: float = 0.0, dropout: float = 0.0,
    ) -> None:  # fmt: skip
        super().__init__(width, heads, scale, attention_dropout, dropout)
        self.qkv = nn.Linear(width, 3 * width, bias=qkv_bias)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
        return self._attend(q, k, v)


class CrossAttention(_Attention):
    """Multi-head attention with matrices of their own for queries, keys and values."""

    def __init__(
        self, width: int, heads: int, *, qkv_bias: bool = True, scale: float | None = None,
        attention_dropout: float = 0.0, dropout: float = 0.0,
    ) -> None:  # fmt: skip
        super().__init__(width, heads, scale, attention_dropout, dropout)
        self.linear_q = nn.Linear(width, width, bias=qkv_bias)
        self.linear_k = nn.Linear(width, width, bias=qkv_bias)
        self.linear_v = nn.Linear(width, width, bias=qkv_bias)

    def forward(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """(N or 1, L, C) queries, (N, L', C) keys and values -> (N, L, C); one query may serve all N."""
        q, k, v = (
            linear(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for linear, x in ((self.linear_q, query), (self.linear_k, key), (self.linear_v, value))
        )
        return self._attend(q.expand(len(k), -1, -1, -1), k, v)


class Block(nn.Module):
    """x += attention(norm1(x)); x += mlp(norm2(x)), the branches under stochastic depth."""

    def __init__(
        self, width: int, heads: int, hidden: int, *, qkv_bias: bool = True, scale: float | None = None,
        dropout: float = 0.0, attention_dropout: float = 0.0, drop_path: float = 0.0, eps: float = 1e-6,
    ) -> None:  # fmt: skip
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=eps)
        self.attn = SelfAttention(
            width, heads, qkv_bias=qkv_bias, scale=scale, attention_dropout=attention_dropout, dropout=dropout
        )
        self.norm2 = nn.LayerNorm(width, eps=eps)
        self.mlp = Mlp(width, hidden, dropout)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.drop_path(self.attn(self.norm1(x)))
        return x + self.drop_path(self.mlp(self.norm2(x)))


def depth_rates(highest: float, blocks: int) -> list[float]:
    """Rates of stochastic depth that grow evenly from zero over the blocks of a network."""
    return torch.linspace(0, highest, blocks, device="cpu").tolist()
