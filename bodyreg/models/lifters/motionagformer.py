"""MotionAGFormer (Mehraban et al., WACV 2024): an attention branch and a graph branch side by side.

Pruned by `Pruning` it is HoT-MotionAGFormer or its TPC-only variant (Li et al., CVPR 2024). Module names are those of
the published network. Published weights load into networks with other numbers of heads or neighbours than they were
trained with: both are to be taken from their configuration.
"""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import Tensor, nn

from bodyreg.models.lifters.hot import PrunableLifter, Pruning
from bodyreg.models.lifters.layers import Mlp, SelfAttention, check_clip

__all__ = ["GCN", "H36M_NEIGHBOURS", "MotionAGFormer", "MultiScaleTCN", "normalised"]

# Of each joint of h36m-17; the list is directed. Joint 0 lacks 4, joint 8 lacks 11 and 14: weights depend on it.
H36M_NEIGHBOURS = (
    (1, 7), (2, 0), (3, 1), (2,), (5, 0), (6, 4), (5,), (0, 8), (7, 9), (8, 10), (9,), (12, 8), (13, 11), (12,),
    (15, 8), (16, 14), (15,),
)  # fmt: skip


def normalised(adjacency: Tensor) -> Tensor:
    """D^-1/2 A D^-1/2 of (..., N, N) graphs, D the row sums."""
    scale = adjacency.sum(-1).rsqrt()
    return scale[..., :, None] * adjacency * scale[..., None, :]


def _skeleton() -> Tensor:
    joints = len(H36M_NEIGHBOURS)
    adjacency = torch.zeros(joints, joints, device="cpu")
    for joint, neighbours in enumerate(H36M_NEIGHBOURS):
        adjacency[joint, list(neighbours)] = 1
    return adjacency


def _forward_links(frames: int, length: int) -> Tensor:
    """(F, F): each frame is linked to itself and to the next `length` ones."""
    ones = torch.ones(frames, frames, device="cpu")
    return ones.triu() * ones.tril(length)


class GCN(nn.Module):
    """relu(x + BN(A V(x) + U(x))): a graph convolution whose batch normalisation runs over the nodes.

    Args:
        inputs, outputs: channels. nodes: N, joints or frames. mode: "spatial" or "temporal".
        similarity: temporal: each frame is linked to those that resemble it most, found anew for every clip and
            joint; otherwise to the next `length` frames. neighbours: of each frame by similarity; frames as alike as
            the last of them are links too.
    """

    def __init__(
        self, inputs: int, outputs: int, nodes: int, mode: str, *, similarity: bool = True, neighbours: int = 4,
        length: int = 1,
    ) -> None:  # fmt: skip
        super().__init__()
        if mode == "spatial" and nodes != len(H36M_NEIGHBOURS):
            raise ValueError(f"The spatial graph has {len(H36M_NEIGHBOURS)} joints (h36m-17), not {nodes}.")
        self.mode, self.residual = mode, inputs == outputs
        self.similarity = similarity and mode == "temporal"
        self.neighbours = min(neighbours, nodes)
        if not self.similarity:
            graph = _skeleton() if mode == "spatial" else _forward_links(nodes, length)
            self.register_buffer("graph", normalised(graph), persistent=False)
            self.graph: Tensor
        self.U, self.V = nn.Linear(inputs, outputs), nn.Linear(inputs, outputs)
        for linear in (self.U, self.V):
            nn.init.normal_(linear.weight, std=(2 / inputs) ** 0.5)
        self.batch_norm = nn.BatchNorm1d(nodes)

    def _resemblance(self, x: Tensor) -> Tensor:
        """(M, F, C) -> (M, F, F) normalised graph of the most similar frames."""
        likeness = x @ x.transpose(1, 2)
        least = likeness.topk(self.neighbours, dim=-1).values[..., -1:]
        return normalised((likeness >= least).to(x.dtype))

    def forward(self, x: Tensor) -> Tensor:
        """(B, F, J, C) -> (B, F, J, outputs)."""
        over_time = self.mode == "temporal"
        y = x.transpose(1, 2) if over_time else x
        outer, y = y.shape[:2], y.flatten(0, 1)
        graph = self._resemblance(y) if self.similarity else self.graph
        mixed = self.batch_norm(graph @ self.V(y) + self.U(y))
        y = torch.relu(y + mixed if self.residual else mixed).unflatten(0, outer)
        return y.transpose(1, 2) if over_time else y


class _TimeConv(nn.Module):
    """Convolution along time and batch normalisation."""

    def __init__(self, width: int, kernel: int, dilation: int) -> None:
        super().__init__()
        padding = (kernel + (kernel - 1) * (dilation - 1) - 1) // 2
        self.conv = nn.Conv2d(width, width, (kernel, 1), padding=(padding, 0), dilation=(dilation, 1))
        self.bn = nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        return self.bn(self.conv(x))


class MultiScaleTCN(nn.Module):
    """Convolutions along time at several dilations, a pooled and a plain branch, side by side, plus the input."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 5, dilations: tuple[int, ...] = (1, 2)) -> None:
        super().__init__()
        count = len(dilations) + 2
        if outputs % count or inputs != outputs:
            raise ValueError(f"{inputs} to {outputs} channels do not split into {count} branches of a residual unit.")
        width = outputs // count

        def entry() -> list[nn.Module]:
            return [nn.Conv2d(inputs, width, 1), nn.BatchNorm2d(width)]

        branches = [nn.Sequential(*entry(), nn.ReLU(), _TimeConv(width, kernel, d)) for d in dilations]
        pool = nn.MaxPool2d((3, 1), stride=1, padding=(1, 0))
        branches.append(nn.Sequential(*entry(), nn.ReLU(), pool, nn.BatchNorm2d(width)))
        branches.append(nn.Sequential(*entry()))
        self.branches = nn.ModuleList(branches)

    def forward(self, x: Tensor) -> Tensor:
        """(B, F, J, C) -> (B, F, J, C)."""
        y = x.permute(0, 3, 1, 2)
        return torch.cat([branch(y) for branch in self.branches], dim=1).permute(0, 2, 3, 1) + x


class _AxisAttention(SelfAttention):
    """Self-attention over the joints of each frame, or over the frames of each joint."""

    def __init__(self, width: int, heads: int, mode: str, *, qkv_bias: bool) -> None:
        super().__init__(width, heads, qkv_bias=qkv_bias)
        self.over_time = mode == "temporal"

    def forward(self, x: Tensor) -> Tensor:
        y = x.transpose(1, 2) if self.over_time else x
        y = super().forward(y.flatten(0, 1)).unflatten(0, y.shape[:2])
        return y.transpose(1, 2) if self.over_time else y


class _Mixed(nn.Module):
    """x += scale1 * mixer(norm1(x)); x += scale2 * mlp(norm2(x))."""

    def __init__(self, mixer: nn.Module, width: int, hidden: int, layer_scale: float | None) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.mixer = mixer
        self.mlp = Mlp(width, hidden)
        self.scaled = layer_scale is not None
        if layer_scale is not None:
            self.layer_scale_1 = nn.Parameter(torch.full((width,), layer_scale))
            self.layer_scale_2 = nn.Parameter(torch.full((width,), layer_scale))

    def forward(self, x: Tensor) -> Tensor:
        y = self.mixer(self.norm1(x))
        x = x + (self.layer_scale_1 * y if self.scaled else y)
        y = self.mlp(self.norm2(x))
        return x + (self.layer_scale_2 * y if self.scaled else y)


class _Layer(nn.Module):
    """Both branches of a layer and their fusion."""

    def __init__(
        self, width: int, frames: int, joints: int, *, heads: int, mlp_ratio: float, qkv_bias: bool,
        layer_scale: float | None, adaptive_fusion: bool, hierarchical: bool, similarity: bool, neighbours: int,
        length: int, tcn: bool, graph_only: bool,
    ) -> None:  # fmt: skip
        super().__init__()
        self.hierarchical = hierarchical
        width = width // 2 if hierarchical else width
        hidden = int(width * mlp_ratio)

        def unit(mixer: nn.Module, bare: bool = False) -> nn.Module:
            return mixer if bare else _Mixed(mixer, width, hidden, layer_scale)

        spatial = GCN(width, width, joints, "spatial")
        temporal: nn.Module = MultiScaleTCN(width, width) if tcn else GCN(
            width, width, frames, "temporal", similarity=similarity, neighbours=neighbours, length=length
        )  # fmt: skip
        self.att_spatial = unit(_AxisAttention(width, heads, "spatial", qkv_bias=qkv_bias))
        self.att_temporal = unit(_AxisAttention(width, heads, "temporal", qkv_bias=qkv_bias))
        self.graph_spatial = unit(spatial, graph_only)
        self.graph_temporal = unit(temporal, graph_only)
        self.fusion = None
        if adaptive_fusion:
            self.fusion = nn.Linear(2 * width, 2)
            nn.init.zeros_(self.fusion.weight)
            nn.init.constant_(self.fusion.bias, 0.5)

    def forward(self, x: Tensor) -> Tensor:
        """(B, F, J, C) -> (B, F, J, C)."""
        if self.hierarchical:
            attention, graph = x.chunk(2, dim=-1)
            attention = self.att_temporal(self.att_spatial(attention))
            graph = self.graph_temporal(self.graph_spatial(graph + attention))
            return torch.cat([attention, graph], dim=-1)
        attention = self.att_temporal(self.att_spatial(x))
        graph = self.graph_temporal(self.graph_spatial(x))
        if self.fusion is None:
            return (attention + graph) / 2
        share = self.fusion(torch.cat([attention, graph], dim=-1)).softmax(-1)
        return attention * share[..., :1] + graph * share[..., 1:]


class MotionAGFormer(PrunableLifter):
    """MotionAGFormer, plain or pruned.

    Args:
        frames: of a clip. channels: numbers a key point (x, y, confidence). layers, width, rep, heads: sizes.
        mlp_ratio: hidden / C. qkv_bias: of attention. layer_scale: first value of the scales of residual branches.
        use_layer_scale: have such scales. adaptive_fusion: learned weights of the branches, else their mean.
        hierarchical: split the channels between the branches. temporal_similarity, neighbours, connection_length: of
            the graph over frames (see `GCN`). tcn: convolutions in place of that graph. graph_only: a bare graph
            branch. pruning: HoT or TPC.
    """

    name = "MotionAGFormer"

    def __init__(
        self, frames: int = 243, channels: int = 3, layers: int = 16, width: int = 128, rep: int = 512,
        heads: int = 4, mlp_ratio: float = 4.0, *, qkv_bias: bool = False, use_layer_scale: bool = True,
        layer_scale: float = 1e-5, adaptive_fusion: bool = True, hierarchical: bool = False,
        temporal_similarity: bool = True, neighbours: int = 4, connection_length: int = 1, tcn: bool = False,
        graph_only: bool = False, pruning: Pruning | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        self.frames, self.joints, self.channels_in = frames, len(H36M_NEIGHBOURS), channels
        self.joints_embed = nn.Linear(channels, width)
        self.pos_embed = nn.Parameter(torch.zeros(1, self.joints, width))
        self.norm = nn.LayerNorm(width)

        def length_at(layer: int) -> int:
            return frames if pruning is None or layer < pruning.layer_index else pruning.keep

        self.layers = nn.ModuleList(
            _Layer(
                width, length_at(i), self.joints, heads=heads, mlp_ratio=mlp_ratio, qkv_bias=qkv_bias,
                layer_scale=layer_scale if use_layer_scale else None, adaptive_fusion=adaptive_fusion,
                hierarchical=hierarchical, similarity=temporal_similarity, neighbours=neighbours,
                length=connection_length, tcn=tcn, graph_only=graph_only,
            )
            for i in range(layers)
        )  # fmt: skip
        self.rep_logit = nn.Sequential(OrderedDict(fc=nn.Linear(width, rep), act=nn.Tanh()))
        self.head = nn.Linear(rep, 3)
        self._add_pruning(pruning, frames, width, heads, blocks=layers, qkv_bias=qkv_bias, first=0)

    def _lift(self, x: Tensor, noise: Tensor | None, index: Tensor | None) -> tuple[Tensor, Tensor | None]:
        check_clip(x, self.frames, self.joints, self.channels_in, self.name)
        x, kept = self.joints_embed(x) + self.pos_embed, None
        for i, layer in enumerate(self.layers):
            if self.pruning is not None and i == self.pruning.layer_index:
                x, kept = self._prune(x, noise, index)
            x = layer(x)
        return self.head(self.rep_logit(self._regrow(self.norm(x)))), kept
