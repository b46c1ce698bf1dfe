"""MHFormer (Li et al., CVPR 2022): three hypotheses, each refined alone, then in exchange with the others.

With `Pruning(recover=False)` it is TPC-MHFormer (Li et al., CVPR 2024). With `recover` it regrows its three streams
side by side, a variant of ours without published weights. Module names are those of the published network.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from bodyreg.models.lifters.hot import PrunableLifter, Pruning
from bodyreg.models.lifters.layers import Block, CrossAttention, DropPath, Mlp, SelfAttention, check_clip, depth_rates

__all__ = ["MHFormer"]

_STREAMS = (1, 2, 3)
_FRAME_HEADS = 9
_DROPOUT, _DROP_PATH = 0.1, 0.2
_EPS = 1e-6
_SHORT = 27  # up to so many frames the embeddings are normalised


class _FrameEncoder(nn.Module):
    """Four plain blocks whose tokens are the coordinates and whose channels are the frames."""

    def __init__(self, frames: int, coordinates: int, depth: int = 4) -> None:
        super().__init__()
        self.pos_embed = nn.Parameter(torch.zeros(1, coordinates, frames))
        self.dropout = nn.Dropout(_DROPOUT)
        self.blocks = nn.ModuleList(
            Block(frames, _FRAME_HEADS, 2 * frames, dropout=_DROPOUT, attention_dropout=_DROPOUT, drop_path=rate)
            for rate in depth_rates(_DROP_PATH, depth)
        )
        self.norm = nn.LayerNorm(frames, eps=_EPS)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 2J, F) -> (B, 2J, F)."""
        x = self.dropout(x + self.pos_embed)
        for block in self.blocks:
            x = block(x)
        return self.norm(x)


def _triple(streams: list[Tensor], mlp: Mlp, norm: nn.LayerNorm, drop_path: DropPath) -> list[Tensor]:
    """One perceptron over the three streams side by side."""
    x = torch.cat(streams, dim=-1)
    return list((x + drop_path(mlp(norm(x)))).chunk(3, dim=-1))


class _Refinement(nn.Module):
    """Self-hypothesis refinement (SHR): each stream attends to itself."""

    def __init__(self, width: int, heads: int, hidden: int, drop_path: float) -> None:
        super().__init__()
        for k in _STREAMS:
            self.add_module(f"norm1_{k}", nn.LayerNorm(width, eps=_EPS))
            self.add_module(f"attn_{k}", SelfAttention(width, heads, attention_dropout=_DROPOUT, dropout=_DROPOUT))
        self.norm2 = nn.LayerNorm(3 * width, eps=_EPS)
        self.mlp = Mlp(3 * width, hidden, _DROPOUT)
        self.drop_path = DropPath(drop_path)

    def forward(self, streams: list[Tensor]) -> list[Tensor]:
        attended = [
            x + self.drop_path(getattr(self, f"attn_{k}")(getattr(self, f"norm1_{k}")(x)))
            for k, x in zip(_STREAMS, streams, strict=True)
        ]
        return _triple(attended, self.mlp, self.norm2, self.drop_path)


class _Interaction(nn.Module):
    """Cross-hypothesis interaction (CHI): each stream asks the others, which may have been updated before."""

    # Of streams 1, 2, 3: whose tokens are queries, keys and values.
    roles = ((1, 2, 0), (0, 2, 1), (0, 1, 2))

    def __init__(self, width: int, heads: int, hidden: int, drop_path: float) -> None:
        super().__init__()
        for k in _STREAMS:
            for role in _STREAMS:
                self.add_module(f"norm3_{k}{role}", nn.LayerNorm(width, eps=_EPS))
            self.add_module(f"attn_{k}", CrossAttention(width, heads, attention_dropout=_DROPOUT, dropout=_DROPOUT))
        self.norm2 = nn.LayerNorm(3 * width, eps=_EPS)
        self.mlp = Mlp(3 * width, hidden, _DROPOUT)
        self.drop_path = DropPath(drop_path)

    def forward(self, streams: list[Tensor]) -> list[Tensor]:
        streams = list(streams)
        for k, sources in zip(_STREAMS, self.roles, strict=True):
            q, key, v = (
                getattr(self, f"norm3_{k}{role}")(streams[source])
                for role, source in zip(_STREAMS, sources, strict=True)
            )
            streams[k - 1] = streams[k - 1] + self.drop_path(getattr(self, f"attn_{k}")(q, key, v))
        return _triple(streams, self.mlp, self.norm2, self.drop_path)


class _Hypotheses(nn.Module):
    """Position embeddings, two refinements, one interaction, norm over the three streams side by side."""

    def __init__(self, frames: int, width: int, heads: int, hidden: int) -> None:
        super().__init__()
        for k in _STREAMS:
            self.register_parameter(f"pos_embed_{k}", nn.Parameter(torch.zeros(1, frames, width)))
        self.dropout = nn.Dropout(_DROPOUT)
        rates = depth_rates(_DROP_PATH, 3)
        self.SHR_blocks = nn.ModuleList(_Refinement(width, heads, hidden, rate) for rate in rates[:2])
        self.CHI_blocks = nn.ModuleList([_Interaction(width, heads, hidden, rates[2])])
        self.norm = nn.LayerNorm(3 * width, eps=_EPS)

    def start(self, streams: list[Tensor]) -> list[Tensor]:
        """Add the positions to three streams (B, F, C)."""
        return [self.dropout(x + getattr(self, f"pos_embed_{k}")) for k, x in zip(_STREAMS, streams, strict=True)]

    def forward(self, streams: list[Tensor]) -> Tensor:
        """Interaction and norm of three streams (B, F, C) -> (B, F, 3C)."""
        for block in self.CHI_blocks:
            streams = block(streams)
        return self.norm(torch.cat(streams, dim=-1))


class MHFormer(PrunableLifter):
    """MHFormer, plain or with pruned frames (TPC).

    Args:
        frames: of a clip, a multiple of 9. joints, joints_out: of input and output. channels: numbers a key point.
        width: C of a stream. hidden: of the perceptrons over all streams. heads: of attention over frames.
        pruning: TPC or HoT, before refinement 0 or 1.
    """

    name = "MHFormer"

    def __init__(
        self, frames: int = 351, joints: int = 17, joints_out: int = 17, channels: int = 2, width: int = 512,
        hidden: int = 1024, heads: int = 8, pruning: Pruning | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        if frames < 1 or frames % _FRAME_HEADS:
            raise ValueError(f"MHFormer was asked for clips of {frames} frames. Give a multiple of {_FRAME_HEADS}.")
        self.frames, self.joints, self.channels_in = frames, joints, channels
        coordinates = channels * joints
        for k in _STREAMS:
            self.add_module(f"norm_{k}", nn.LayerNorm(frames))
            self.add_module(f"Transformer_encoder_{k}", _FrameEncoder(frames, coordinates))
            convolution = nn.Conv1d(coordinates, width, 1)
            short = nn.Sequential(convolution, nn.BatchNorm1d(width), nn.ReLU(), nn.Dropout(0.25))
            self.add_module(f"embedding_{k}", short if frames <= _SHORT else convolution)
        self.Transformer_hypothesis = _Hypotheses(frames, width, heads, hidden)
        self.regression = nn.Sequential(nn.BatchNorm1d(3 * width), nn.Conv1d(3 * width, 3 * joints_out, 1))
        self._add_pruning(pruning, frames, 3 * width, heads, blocks=2, first=0)

    def _generate(self, x: Tensor) -> list[Tensor]:
        """(B, F, J, 2) -> three hypotheses (B, F, C), each built on the one before."""
        x = x.flatten(2).transpose(1, 2)
        streams = []
        for k in _STREAMS:
            x = x + getattr(self, f"Transformer_encoder_{k}")(getattr(self, f"norm_{k}")(x))
            streams.append(getattr(self, f"embedding_{k}")(x).transpose(1, 2))
        return streams

    def _lift(self, x: Tensor, noise: Tensor | None, index: Tensor | None) -> tuple[Tensor, Tensor | None]:
        check_clip(x, self.frames, self.joints, self.channels_in, self.name)
        hypotheses, kept = self.Transformer_hypothesis, None
        streams = hypotheses.start(self._generate(x))
        for i, block in enumerate(hypotheses.SHR_blocks):
            if self.pruning is not None and i == self.pruning.layer_index:
                # The three streams side by side are the tokens of one joint.
                tokens, kept = self._prune(torch.cat(streams, dim=-1)[:, :, None], noise, index)
                streams = list(tokens.squeeze(2).chunk(3, dim=-1))
            streams = block(streams)
        tokens = self._regrow(hypotheses(streams)[:, :, None]).squeeze(2)
        return self.regression(tokens.transpose(1, 2)).transpose(1, 2).unflatten(2, (-1, 3)), kept
