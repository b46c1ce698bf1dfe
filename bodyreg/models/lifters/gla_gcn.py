"""GLA-GCN: adaptive graph convolutions that learn who is connected to whom (Yu et al., ICCV 2023).

Two variants. `GLAGCN` is the released network, key for key. `GLAGCNPaper` is what the paper adds to it and what was
never released: a head that predicts the whole sequence for a global loss, and joint-specific last layers. The paper's
text leaves parts of these open; its class says where the choice is ours, and no published number belongs to it.

Feature maps are (N, C, T, V): channels, frames, joints.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["GRAPHS", "GLAGCN", "GLAGCNPaper", "graph_partition", "legal_lengths"]

# (i, j): i is a neighbour that j gathers from. "h36m" and "3dhp" point from child to parent. The two HumanEva lists
# mix directions, and the second has lost two edges: published weights depend on both, so they stay.
GRAPHS: dict[str, tuple[tuple[int, int], ...]] = {
    "h36m": (
        (1, 0), (2, 1), (3, 2), (4, 0), (5, 4), (6, 5), (7, 0), (8, 7), (9, 8), (10, 9), (11, 8), (12, 11), (13, 12),
        (14, 8), (15, 14), (16, 15),
    ),
    "humaneva15": (
        (14, 1), (1, 2), (2, 3), (3, 4), (1, 5), (5, 6), (6, 7), (1, 0), (0, 11), (11, 12), (12, 13), (0, 8), (8, 9),
        (9, 10),
    ),
    "humaneva_mrcnn": (
        (14, 1), (2, 3), (3, 4), (1, 2), (5, 6), (6, 7), (1, 0), (0, 11), (11, 12), (12, 13), (8, 9), (9, 10),
    ),
    "3dhp": (
        (15, 14), (1, 15), (16, 1), (0, 1), (2, 1), (3, 2), (4, 3), (5, 1), (6, 5), (7, 6), (8, 14), (9, 8), (10, 9),
        (11, 14), (12, 11), (13, 12),
    ),
}  # fmt: skip
_JOINTS = {"h36m": 17, "humaneva15": 15, "humaneva_mrcnn": 15, "3dhp": 17}
# HumanEva's 15 joints as means of COCO's 17: root and thorax lie between hips and shoulders.
_COCO_TO_HUMANEVA = (
    (11, 12), (5, 6), (5,), (7,), (9,), (6,), (8,), (10,), (11,), (13,), (15,), (12,), (14,), (16,), (0,),
)  # fmt: skip


def graph_partition(inward: Sequence[tuple[int, int]], joints: int) -> Tensor:
    """(3, V, V) matrices: identity, inward and outward edges, each column divided by its sum.

    Args:
        inward: directed pairs (i, j), from i to j. joints: V.
    """

    def normalised(pairs: Sequence[tuple[int, int]]) -> Tensor:
        matrix = torch.zeros(joints, joints, device="cpu")
        for i, j in pairs:
            matrix[j, i] = 1
        return matrix / matrix.sum(0).clamp(min=1)

    return torch.stack([torch.eye(joints, device="cpu"), normalised(inward), normalised([(j, i) for i, j in inward])])


def legal_lengths(filter_widths: Sequence[int], longest: int) -> list[int]:
    """The window lengths up to `longest` that the strides reduce to a pose.

    The two branches of every stage must end equally long, or the residual with one frame, which then serves all.
    """
    return [length for length in range(1, longest + 1) if _reduced(length, filter_widths) is not None]


def _reduced(length: int, filter_widths: Sequence[int]) -> int | None:
    for width in filter_widths:
        residual = len(range(width // 2, length, width))
        length = (length - 1) // width + 1
        if residual not in (1, length):
            return None
    return length


class TemporalConv(nn.Module):
    """Convolution along time, then batch normalisation; (N, C, T, V) to (N, C', T', V)."""

    def __init__(self, channels_in: int, channels: int, kernel_size: int = 9, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(
            channels_in, channels, (kernel_size, 1), stride=(stride, 1), padding=((kernel_size - 1) // 2, 0)
        )
        self.bn = nn.BatchNorm2d(channels)
        nn.init.kaiming_normal_(self.conv.weight, mode="fan_out")
        nn.init.constant_(self.conv.get_parameter("bias"), 0)

    def forward(self, x: Tensor) -> Tensor:
        return self.bn(self.conv(x))


class AdaptiveGraphConv(nn.Module):
    """Graph convolution over a fixed, a learned and an attended graph, summed (Shi et al., CVPR 2019).

    Args:
        channels_in, channels: of the feature maps. graph: (3, V, V) fixed partition, see `graph_partition`.
        embedding: the attention's channels are a fraction of `channels`. dropout: of the result.
    """

    def __init__(
        self, channels_in: int, channels: int, graph: Tensor, embedding: int = 4, dropout: float = 0.1
    ) -> None:
        super().__init__()
        subsets = len(graph)
        self.A: Tensor
        inner = channels // embedding or 3
        self.register_buffer("A", graph.clone(), persistent=False)
        self.PA = nn.Parameter(torch.full_like(graph, 1e-6))
        self.conv_a = nn.ModuleList(nn.Conv2d(channels_in, inner, 1) for _ in range(subsets))
        self.conv_b = nn.ModuleList(nn.Conv2d(channels_in, inner, 1) for _ in range(subsets))
        self.conv_d = nn.ModuleList(nn.Conv2d(channels_in, channels, 1) for _ in range(subsets))
        self.bn = nn.BatchNorm2d(channels)
        self.drop = nn.Dropout(dropout)
        self.down: nn.Module = nn.Identity()
        if channels_in != channels:
            self.down = nn.Sequential(nn.Conv2d(channels_in, channels, 1), nn.BatchNorm2d(channels))
        for name, parameter in self.named_parameters():
            if parameter.ndim == 4:
                nn.init.kaiming_normal_(parameter, mode="fan_out")
            elif name.endswith("bias"):
                nn.init.zeros_(parameter)
        for name, parameter in self.conv_d.named_parameters():
            if name.endswith("weight"):
                nn.init.normal_(parameter, 0, math.sqrt(2 / (channels * channels_in * subsets)))
        nn.init.constant_(self.bn.weight, 1e-6)  # each block starts as its skip path

    def attention(self, x: Tensor) -> Tensor:
        """(N, 3, V, V) attended graphs of (N, C, T, V); columns sum to one."""
        n, _, t, v = x.shape
        graphs = []
        for conv_a, conv_b in zip(self.conv_a, self.conv_b, strict=True):
            a, b = conv_a(x).reshape(n, -1, v), conv_b(x).reshape(n, -1, v)
            graphs.append(torch.softmax(a.mT @ b / a.shape[1], dim=-2))
        return torch.stack(graphs, dim=1)

    def adjacency(self, x: Tensor) -> Tensor:
        """(N, 3, V, V): the sum of the three graphs."""
        return self.attention(x) + (self.A + self.PA)

    def forward(self, x: Tensor) -> Tensor:
        graphs = self.adjacency(x)
        y = self.conv_d[0](x @ graphs[:, None, 0])
        for k in range(1, len(self.conv_d)):
            y = y + self.conv_d[k](x @ graphs[:, None, k])
        return F.relu(self.drop(self.bn(y)) + self.down(x))


class GraphBlock(nn.Module):
    """Graph convolution, temporal convolution and a residual; `activate=False` leaves out the last ReLU."""

    def __init__(
        self, channels_in: int, channels: int, graph: Tensor, stride: int = 1, residual: bool = True,
        activate: bool = True,
    ) -> None:  # fmt: skip
        super().__init__()
        self.gcn1 = AdaptiveGraphConv(channels_in, channels, graph)
        self.tcn1 = TemporalConv(channels, channels, stride=stride)
        self.skips, self.activate = residual, activate
        self.residual: nn.Module = nn.Identity()
        if residual and (channels_in != channels or stride != 1):
            self.residual = TemporalConv(channels_in, channels, kernel_size=1, stride=stride)

    def forward(self, x: Tensor) -> Tensor:
        y = self.tcn1(self.gcn1(x))
        if self.skips:
            y = y + self.residual(x)
        return F.relu(y) if self.activate else y


class GLAGCN(nn.Module):
    """The released network (there named S_AGCN): a window of 2D joints to the 3D joints of its centre frame.

    Args:
        filter_widths: odd reductions of the window; their product is the receptive field.
        channels: of the feature maps. dropout: after each block.
        graph: a name in `GRAPHS`. "humaneva_mrcnn" also takes COCO's 17 joints and skips the input normalisation, as
            published. Published 3DHP weights use "h36m" in spite of another joint order.

    Raises:
        ValueError: an unknown graph, or widths that are even or below 3.
    """

    def __init__(
        self, filter_widths: Sequence[int] = (3, 3, 3, 3, 3), channels: int = 96, dropout: float = 0.1,
        graph: str = "h36m", causal: bool = False,
    ) -> None:  # fmt: skip
        super().__init__()
        if graph not in GRAPHS:
            raise ValueError(f"There is no graph {graph!r}. Choose one of {', '.join(GRAPHS)}.")
        if not filter_widths or any(width < 3 or width % 2 == 0 for width in filter_widths):
            raise ValueError(f"The filter widths are {list(filter_widths)}. Give odd numbers from 3 on.")
        if causal:
            raise ValueError("The causal variant of GLA-GCN never worked for any window. Leave causal off.")
        self.filter_widths, self.graph, self.joints = tuple(filter_widths), graph, _JOINTS[graph]
        self.receptive_field = math.prod(filter_widths)
        A = graph_partition(GRAPHS[graph], self.joints)
        self.data_bn = nn.BatchNorm1d(2 * self.joints)
        self.expand_gcn = GraphBlock(2, channels, A)
        self.layers_tcngcn = nn.ModuleList()
        for width in filter_widths:
            self.layers_tcngcn.append(GraphBlock(channels, channels, A))
            self.layers_tcngcn.append(GraphBlock(channels, channels, A, stride=width, residual=False))
        self.drop = nn.Dropout(dropout)
        self.fc = nn.Conv1d(channels, 3, 1)

    def forward(self, keypoints: Tensor) -> Tensor:
        """(B, T, J, 2) normalised screen coordinates to (B, 1, J, 3) root-relative joints, metres, camera axes.

        Raises:
            ValueError: a joint count that does not fit, or a length at which the strides do not add up.
        """
        return self._centre(self.expand_gcn(self.normalise(self.check(keypoints))))

    def check(self, keypoints: Tensor) -> Tensor:
        """(B, T, V, 2) in the graph's joints, or a ValueError that names what fits."""
        if keypoints.ndim != 4 or keypoints.shape[-1] != 2:
            raise ValueError(f"The key points have shape {tuple(keypoints.shape)}. Give (B, T, J, 2).")
        joints, length = keypoints.shape[2], keypoints.shape[1]
        if self.graph == "humaneva_mrcnn" and joints == 17:
            parts = [keypoints[:, :, list(sources)].mean(2) for sources in _COCO_TO_HUMANEVA]
            keypoints = torch.stack(parts, dim=2)
        elif joints != self.joints:
            raise ValueError(f"The key points have {joints} joints. The graph {self.graph!r} takes {self.joints}.")
        if _reduced(length, self.filter_widths) is None:
            legal = legal_lengths(self.filter_widths, max(length, self.receptive_field) + self.filter_widths[0])
            near = sorted(sorted(legal, key=lambda n: abs(n - length))[:5])
            raise ValueError(
                f"A window of {length} frames does not divide by the filter widths {list(self.filter_widths)}. "
                f"Give {self.receptive_field} frames (others near it that work: {', '.join(map(str, near))})."
            )
        return keypoints

    def normalise(self, keypoints: Tensor) -> Tensor:
        """(B, T, V, 2) to (B, 2, T, V), each coordinate of each joint batch-normalised."""
        b, t, v, _ = keypoints.shape
        if self.graph == "humaneva_mrcnn":
            return keypoints.permute(0, 3, 1, 2)
        flat = self.data_bn(keypoints.permute(0, 2, 3, 1).reshape(b, 2 * v, t))
        return flat.reshape(b, v, 2, t).permute(0, 2, 3, 1)

    def _centre(self, x: Tensor) -> Tensor:
        return self._head(self._reduce(x))

    def _reduce(self, x: Tensor) -> Tensor:
        """(B, C, T, V) to (B, C, V): strided blocks, then the mean over what is left of time."""
        for i, width in enumerate(self.filter_widths):
            skip = x[:, :, width // 2 :: width]
            x = self.drop(self.layers_tcngcn[2 * i](x))
            x = self.drop(self.layers_tcngcn[2 * i + 1](x)) + skip
        return x.mean(2)

    def _head(self, x: Tensor) -> Tensor:
        return self.fc(x).mT[:, None]


class GLAGCNPaper(GLAGCN):
    """The paper's network as far as its text goes: a global branch over the sequence and joint-specific last layers.

    Ours where the text is silent: the number of global blocks (its figure draws three), the sequence head's last block
    without its ReLU (which could give no negative coordinate), and how shared and own layers mix (a weighted sum).

    Args:
        blocks: global blocks at full length. connected: the last layer, "shared" by all joints, "unshared" (one a
            joint) or "mix". mix: weight of the joints' own layers in "mix". Others as in `GLAGCN`.
    """

    def __init__(
        self, filter_widths: Sequence[int] = (3, 3, 3, 3), channels: int = 96, dropout: float = 0.1,
        graph: str = "h36m", *, blocks: int = 3, connected: str = "mix", mix: float = 0.5,
    ) -> None:  # fmt: skip
        super().__init__(filter_widths, channels, dropout, graph)
        if connected not in ("shared", "unshared", "mix"):
            raise ValueError(f"There are no {connected!r} connected layers. Choose shared, unshared or mix.")
        A = graph_partition(GRAPHS[graph], self.joints)
        self.global_tcngcn = nn.ModuleList(GraphBlock(channels, channels, A) for _ in range(blocks - 1))
        self.seq_head = GraphBlock(channels, 3, A, activate=False)
        self.share = {"shared": 1.0, "unshared": 0.0, "mix": 1 - mix}[connected]
        self.own = nn.Conv1d(channels * self.joints, 3 * self.joints, 1, groups=self.joints)

    def forward(self, keypoints: Tensor) -> Tensor:
        return self._centre(self._features(keypoints))

    def forward_sequence(self, keypoints: Tensor) -> tuple[Tensor, Tensor]:
        """(B, 1, J, 3) centre pose and (B, T, J, 3) sequence, whose error is the global loss; both metres."""
        features = self._features(keypoints)
        return self._centre(features), self.seq_head(features).permute(0, 2, 3, 1)

    def _features(self, keypoints: Tensor) -> Tensor:
        x = self.expand_gcn(self.normalise(self.check(keypoints)))
        for block in self.global_tcngcn:
            x = block(x)
        return x

    def _head(self, x: Tensor) -> Tensor:
        own = self.own(x.mT.reshape(len(x), -1, 1)).reshape(len(x), 1, self.joints, 3)
        return self.share * super()._head(x) + (1 - self.share) * own
