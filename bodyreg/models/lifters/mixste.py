"""MixSTE (Zhang et al., CVPR 2022): attention over joints and attention over frames take turns.

Pruned by `Pruning` it is HoT-MixSTE or TPC-MixSTE (Li et al., CVPR 2024). `SpaceTimeStack` is what MixSTE and KTPFormer
share. Module names are those of the published networks.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from bodyreg.models.lifters.hot import PrunableLifter, Pruning
from bodyreg.models.lifters.layers import Block, check_clip, depth_rates

__all__ = ["MixSTE", "SpaceTimeStack"]


class SpaceTimeStack(PrunableLifter):
    """Pairs of a spatial and a temporal block with two shared norms, and the head.

    A subclass gives the tokens that enter the pairs: `_first_stage`, (B, F, J, C) key points -> (B, F, J, C).
    """

    name = "MixSTE"

    def __init__(
        self, frames: int, joints: int, channels_in: int, width: int, heads: int, hidden: int, rates: list[float], *,
        qkv_bias: bool, scale: float | None, dropout: float, attention_dropout: float,
    ) -> None:  # fmt: skip
        super().__init__()
        self.frames, self.joints, self.channels_in = frames, joints, channels_in

        def blocks() -> nn.ModuleList:
            return nn.ModuleList(
                Block(width, heads, hidden, qkv_bias=qkv_bias, scale=scale, dropout=dropout,
                      attention_dropout=attention_dropout, drop_path=rate)
                for rate in rates
            )  # fmt: skip

        self.STEblocks, self.TTEblocks = blocks(), blocks()
        self.Spatial_norm = nn.LayerNorm(width, eps=1e-6)
        self.Temporal_norm = nn.LayerNorm(width, eps=1e-6)
        self.head = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, 3))

    def _spatial(self, block: nn.Module, x: Tensor) -> Tensor:
        """A block over the joints of each frame: (B, F, J, C') -> (B, F, J, C)."""
        return self.Spatial_norm(block(x.flatten(0, 1))).unflatten(0, x.shape[:2])

    def _temporal(self, block: nn.Module, x: Tensor, position: Tensor | None = None) -> Tensor:
        """A block over the frames of each joint: (B, F, J, C) -> (B, F, J, C)."""
        batch, _, joints, _ = x.shape
        tokens = x.transpose(1, 2).flatten(0, 1)
        tokens = tokens if position is None else tokens + position
        return self.Temporal_norm(block(tokens)).unflatten(0, (batch, joints)).transpose(1, 2)

    def _first_stage(self, x: Tensor, condition: Tensor | None) -> Tensor:
        raise NotImplementedError

    def _stages(
        self, x: Tensor, noise: Tensor | None, index: Tensor | None, condition: Tensor | None, first: int
    ) -> tuple[Tensor, Tensor | None]:
        """All stages. `first` is the pair after the first stage, `condition` (B, C) joins its spatial embedding."""
        check_clip(x, self.frames, self.joints, self.channels_in, self.name)
        x, kept = self._first_stage(x, condition), None
        stages_before = 1 - first  # of stages that are no pair of the stack
        for i in range(first, len(self.STEblocks)):
            if self.pruning is not None and i + stages_before == self.pruning.layer_index:
                x, kept = self._prune(x, noise, index)
            x = self._temporal(self.TTEblocks[i], self._spatial(self.STEblocks[i], x))
        return self.head(self._regrow(x)), kept


class MixSTE(SpaceTimeStack):
    """MixSTE, plain or pruned.

    Args:
        frames, joints: of a clip. channels: numbers a key point. width: C. hidden: of the perceptrons, 0 for 2C.
        depth: pairs. heads: of attention. drop_path: highest rate of stochastic depth. pruning: HoT or TPC.
    """

    def __init__(
        self, frames: int = 243, joints: int = 17, channels: int = 2, width: int = 512, hidden: int = 0,
        depth: int = 8, heads: int = 8, drop_path: float = 0.1, pruning: Pruning | None = None,
    ) -> None:  # fmt: skip
        super().__init__(
            frames, joints, channels, width, heads, hidden or 2 * width, depth_rates(drop_path, depth), qkv_bias=True,
            scale=None, dropout=0.0, attention_dropout=0.0,
        )  # fmt: skip
        self.Spatial_patch_to_embedding = nn.Linear(channels, width)
        self.Spatial_pos_embed = nn.Parameter(torch.zeros(1, joints, width))
        self.Temporal_pos_embed = nn.Parameter(torch.zeros(1, frames, width))
        self._add_pruning(pruning, frames, width, heads, blocks=depth)

    def _first_stage(self, x: Tensor, condition: Tensor | None) -> Tensor:
        tokens = self.Spatial_patch_to_embedding(x) + self.Spatial_pos_embed
        tokens = tokens if condition is None else tokens + condition[:, None, None]
        tokens = self._spatial(self.STEblocks[0], tokens)
        return self._temporal(self.TTEblocks[0], tokens, self.Temporal_pos_embed)

    def _lift(
        self, x: Tensor, noise: Tensor | None, index: Tensor | None, condition: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        return self._stages(x, noise, index, condition, first=1)
