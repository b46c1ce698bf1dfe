"""KTPFormer (Peng et al., CVPR 2024): MixSTE whose first stage knows the skeleton and the chain of frames.

`KPA` (kinematics prior attention) and `StackedTPA` (trajectory prior attention) are the two learnable graph
convolutions. They are units of their own: MotionBERT takes them too (`motionbert.DSTformer(priors=True)`).
Module names are those of the published network; the graphs are arguments and not part of its state.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from bodyreg import skeletons
from bodyreg.models.lifters.hot import Pruning
from bodyreg.models.lifters.layers import DropPath, Mlp, SelfAttention, depth_rates
from bodyreg.models.lifters.mixste import SpaceTimeStack

__all__ = ["KPA", "TPA", "KTPFormer", "LearnableGraphConv", "PriorBlock", "StackedTPA", "chain", "topology"]


def topology(parents: Sequence[int]) -> Tensor:
    """(N, N) graph of a tree: each row its neighbours' share, 1 / degree, and 1 on the diagonal.

    Args:
        parents: of each node; -1 for a root. A chain of frames is a tree whose parent is the frame before.
    """
    n = len(parents)
    adjacency = torch.zeros(n, n, device="cpu")
    for node, parent in enumerate(parents):
        if parent >= 0:
            adjacency[node, parent] = adjacency[parent, node] = 1
    adjacency = adjacency / adjacency.sum(1, keepdim=True).clamp(min=1)
    return adjacency.fill_diagonal_(1)


def chain(frames: int) -> Tensor:
    """(F, F) graph of consecutive frames."""
    return topology(range(-1, frames - 1))


class LearnableGraphConv(nn.Module):
    """Graph convolution with learned edges and a learned gain for each node and channel.

    S = sym(A + adj2); y = (S o I) (M o x W0) + (S o (1 - I)) (M o x W1) + bias, o elementwise.

    Args:
        adjacency: (N, N) graph, fixed. inputs, outputs: channels.
    """

    def __init__(self, adjacency: Tensor, inputs: int, outputs: int) -> None:
        super().__init__()
        nodes = len(adjacency)
        self.register_buffer("adjacency", adjacency.clone(), persistent=False)
        self.adjacency: Tensor
        self.W = nn.Parameter(torch.empty(2, inputs, outputs))
        self.M = nn.Parameter(torch.ones(nodes, outputs))
        self.adj2 = nn.Parameter(torch.full((nodes, nodes), 1e-6))
        self.bias = nn.Parameter(torch.empty(outputs))
        nn.init.xavier_uniform_(self.W, gain=1.414)
        nn.init.uniform_(self.bias, -1 / math.sqrt(outputs), 1 / math.sqrt(outputs))

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, inputs) -> (B, N, outputs)."""
        edges = self.adjacency + self.adj2
        edges = (edges + edges.T) / 2
        own = edges.diagonal()[:, None] * self.M
        others = edges - edges.diagonal().diag_embed()
        return own * (x @ self.W[0]) + others @ (self.M * (x @ self.W[1])) + self.bias


class KPA(nn.Module):
    """Graph convolution, batch normalisation over samples and nodes, ReLU."""

    def __init__(self, adjacency: Tensor, inputs: int, outputs: int) -> None:
        super().__init__()
        self.gconv = LearnableGraphConv(adjacency, inputs, outputs)
        self.bn = nn.BatchNorm1d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, inputs) -> (B, N, outputs)."""
        y = self.gconv(x)
        return torch.relu(self.bn(y.flatten(0, 1)).unflatten(0, y.shape[:2]))


TPA = KPA  # the same unit over the chain of frames


class StackedTPA(nn.Module):
    """x + TPA(TPA(x))."""

    def __init__(self, adjacency: Tensor, width: int) -> None:
        super().__init__()
        self.gconv1 = TPA(adjacency, width, width)
        self.gconv2 = TPA(adjacency, width, width)

    def forward(self, x: Tensor) -> Tensor:
        """(B, F, C) -> (B, F, C)."""
        return x + self.gconv2(self.gconv1(x))


class _PriorAttention(SelfAttention):
    """h = prior(x) + position; h + attention(norm(h)). The residual begins behind the graph convolution."""

    def __init__(
        self, prior: str, unit: nn.Module, nodes: int, width: int, heads: int, *, qkv_bias: bool, scale: float | None,
        dropout: float, attention_dropout: float,
    ) -> None:  # fmt: skip
        super().__init__(
            width, heads, qkv_bias=qkv_bias, scale=scale, attention_dropout=attention_dropout, dropout=dropout
        )
        self._unit, self._position = prior, {"kpa": "Spatial_pos_embed", "tpa": "Temporal_pos_embed"}[prior]
        self.add_module(prior, unit)
        self.register_parameter(self._position, nn.Parameter(torch.zeros(1, nodes, width)))
        self.norm1 = nn.LayerNorm(width)
        self.drop_path = DropPath()
        self.position_dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, condition: Tensor | None = None) -> Tensor:
        h = getattr(self, self._unit)(x) + getattr(self, self._position)
        h = self.position_dropout(h if condition is None else h + condition[:, None])
        return h + self.drop_path(super().forward(self.norm1(h)))


class PriorBlock(nn.Module):
    """Prior attention over the nodes of a graph, then a perceptron.

    Args:
        prior: "kpa", joints, or "tpa", frames. adjacency: (N, N) graph. inputs: channels of raw joints ("kpa").
        width: C. heads: of attention. hidden: of the perceptron.
    """

    def __init__(
        self, prior: str, adjacency: Tensor, inputs: int, width: int, heads: int, hidden: int, *,
        qkv_bias: bool = True, scale: float | None = None, dropout: float = 0.0, attention_dropout: float = 0.0,
        drop_path: float = 0.0,
    ) -> None:  # fmt: skip
        super().__init__()
        unit = KPA(adjacency, inputs, width) if prior == "kpa" else StackedTPA(adjacency, width)
        self.attn = _PriorAttention(
            prior, unit, len(adjacency), width, heads, qkv_bias=qkv_bias, scale=scale, dropout=dropout,
            attention_dropout=attention_dropout,
        )  # fmt: skip
        self.attn.drop_path.rate = drop_path
        self.norm2 = nn.LayerNorm(width, eps=1e-6)
        self.mlp = Mlp(width, hidden, dropout)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor, condition: Tensor | None = None) -> Tensor:
        """(B, N, inputs) -> (B, N, C); `condition` (B, C) is added beside the position."""
        x = self.attn(x, condition)
        return x + self.drop_path(self.mlp(self.norm2(x)))


class KTPFormer(SpaceTimeStack):
    """KTPFormer, plain or pruned.

    Args:
        frames: of a clip. joint_set: of the 3D joints, which names the skeleton. channels: numbers a key point.
        width: C. depth: pairs behind the prior stage. heads: of attention. mlp_ratio: hidden / C.
        drop_path: highest rate of stochastic depth. adjacency, adjacency_temporal: (J, J) and (F, F) graphs in place
            of those of the skeleton and of the chain. pruning: HoT or TPC; its layer_index counts the prior stage.
    """

    name = "KTPFormer"

    def __init__(
        self, frames: int = 243, joint_set: str = "h36m-17", channels: int = 2, width: int = 512, depth: int = 7,
        heads: int = 8, mlp_ratio: float = 2.0, drop_path: float = 0.1, *, qkv_bias: bool = True,
        scale: float | None = None, dropout: float = 0.0, attention_dropout: float = 0.0,
        adjacency: Tensor | None = None, adjacency_temporal: Tensor | None = None, pruning: Pruning | None = None,
    ) -> None:  # fmt: skip
        if frames < 2:
            raise ValueError(f"KTPFormer was asked for clips of {frames} frame. A chain needs two or more.")
        adjacency = topology(skeletons.get(joint_set).parents) if adjacency is None else adjacency
        adjacency_temporal = chain(frames) if adjacency_temporal is None else adjacency_temporal
        for graph, nodes in ((adjacency, len(adjacency)), (adjacency_temporal, frames)):
            if graph.shape != (nodes, nodes):
                raise ValueError(f"A graph has shape {tuple(graph.shape)}. Give ({nodes}, {nodes}).")
        rates, hidden = depth_rates(drop_path, depth + 1), int(width * mlp_ratio)
        common = {"qkv_bias": qkv_bias, "scale": scale, "dropout": dropout, "attention_dropout": attention_dropout}
        super().__init__(frames, len(adjacency), channels, width, heads, hidden, rates[1:], **common)  # type: ignore[arg-type]
        prior = {**common, "drop_path": rates[0]}
        self.kpattention = PriorBlock("kpa", adjacency, channels, width, heads, hidden, **prior)  # type: ignore[arg-type]
        self.tpattention = PriorBlock("tpa", adjacency_temporal, width, width, heads, hidden, **prior)  # type: ignore[arg-type]
        self._add_pruning(pruning, frames, width, heads, blocks=depth + 1, qkv_bias=qkv_bias)

    def _first_stage(self, x: Tensor, condition: Tensor | None) -> Tensor:
        batch, frames = x.shape[:2]
        each = None if condition is None else condition.repeat_interleave(frames, 0)
        tokens = self.Spatial_norm(self.kpattention(x.flatten(0, 1), each)).unflatten(0, (batch, frames))
        return self._temporal(self.tpattention, tokens)

    def _lift(
        self, x: Tensor, noise: Tensor | None, index: Tensor | None, condition: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        return self._stages(x, noise, index, condition, first=0)
