"""MotionBERT's DSTformer (Zhu et al., ICCV 2023): space-then-time and time-then-space blocks side by side.

Pruned by `Pruning` it is HoT-MotionBERT or its TPC-only variant (Li et al., CVPR 2024). With `priors` KTPFormer's graph
convolutions replace the joint embedding and enter before the first block: a combination of ours, without published
weights. Module names are those of the published network.
"""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import Tensor, nn

from bodyreg import skeletons
from bodyreg.models.lifters.hot import PrunableLifter, Pruning
from bodyreg.models.lifters.ktpformer import KPA, StackedTPA, chain, topology
from bodyreg.models.lifters.layers import Mlp, SelfAttention, check_clip

__all__ = ["DSTformer", "DualBlock"]

_EPS = 1e-6


class DualBlock(nn.Module):
    """Attention and perceptron over joints, and over frames; `time_first` swaps the two pairs."""

    def __init__(self, width: int, heads: int, hidden: int, *, time_first: bool) -> None:
        super().__init__()
        self.order = "ts" if time_first else "st"
        for axis in "st":
            self.add_module(f"norm1_{axis}", nn.LayerNorm(width, eps=_EPS))
            self.add_module(f"attn_{axis}", SelfAttention(width, heads))
            self.add_module(f"norm2_{axis}", nn.LayerNorm(width, eps=_EPS))
            self.add_module(f"mlp_{axis}", Mlp(width, hidden))

    def forward(self, x: Tensor, frames: int) -> Tensor:
        """(B * F, J, C) -> (B * F, J, C)."""
        for axis in self.order:
            part = {name: getattr(self, f"{name}_{axis}") for name in ("norm1", "attn", "norm2", "mlp")}
            h = part["norm1"](x)
            if axis == "s":
                h = part["attn"](h)
            else:
                batch, joints = len(x) // frames, x.shape[1]
                h = part["attn"](h.unflatten(0, (batch, frames)).transpose(1, 2).flatten(0, 1))
                h = h.unflatten(0, (batch, joints)).transpose(1, 2).flatten(0, 1)
            x = x + h
            x = x + part["mlp"](part["norm2"](x))
        return x


class DSTformer(PrunableLifter):
    """DSTformer, plain or pruned.

    Args:
        frames: of a clip. joint_set: whose skeleton the priors know and whose joints are lifted.
        channels: numbers a key point (x, y, confidence). width: C. rep: of the representation. depth: dual blocks.
        heads: of attention. mlp_ratio: hidden / C. priors: KTPFormer's units. pruning: HoT or TPC.
    """

    name = "MotionBERT"

    def __init__(
        self, frames: int = 243, joint_set: str = "h36m-17", channels: int = 3, width: int = 256, rep: int = 512,
        depth: int = 5, heads: int = 8, mlp_ratio: float = 4.0, *, priors: bool = False,
        pruning: Pruning | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        skeleton = skeletons.get(joint_set)
        self.frames, self.joints, self.channels_in = frames, len(skeleton), channels
        hidden = int(width * mlp_ratio)
        self.kpa, self.tpa = None, None
        if priors:
            self.kpa = KPA(topology(skeleton.parents), channels, width)
            self.tpa = StackedTPA(chain(frames), width)
        else:
            self.joints_embed = nn.Linear(channels, width)
        self.blocks_st = nn.ModuleList(DualBlock(width, heads, hidden, time_first=False) for _ in range(depth))
        self.blocks_ts = nn.ModuleList(DualBlock(width, heads, hidden, time_first=True) for _ in range(depth))
        self.norm = nn.LayerNorm(width, eps=_EPS)
        self.pre_logits = nn.Sequential(OrderedDict(fc=nn.Linear(width, rep), act=nn.Tanh()))
        self.head = nn.Linear(rep, 3)
        self.temp_embed = nn.Parameter(torch.zeros(1, frames, 1, width))
        self.pos_embed = nn.Parameter(torch.zeros(1, self.joints, width))
        self.ts_attn = nn.ModuleList(nn.Linear(2 * width, 2) for _ in range(depth))
        self._initialise()
        self._add_pruning(pruning, frames, width, heads, blocks=depth, first=0)

    def _initialise(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)
        for embedding in (self.temp_embed, self.pos_embed):
            nn.init.trunc_normal_(embedding, std=0.02)
        for fusion in self.ts_attn:
            nn.init.zeros_(fusion.weight)  # type: ignore[arg-type]
            nn.init.constant_(fusion.bias, 0.5)  # type: ignore[arg-type]

    def _embed(self, x: Tensor) -> Tensor:
        """(B, F, J, channels) -> (B, F, J, C)."""
        batch, frames, joints, _ = x.shape
        if self.kpa is None or self.tpa is None:
            return self.joints_embed(x) + self.pos_embed + self.temp_embed
        tokens = self.kpa(x.flatten(0, 1)).unflatten(0, (batch, frames)) + self.pos_embed
        tokens = self.tpa(tokens.transpose(1, 2).flatten(0, 1)).unflatten(0, (batch, joints)).transpose(1, 2)
        return tokens + self.temp_embed

    def _lift(self, x: Tensor, noise: Tensor | None, index: Tensor | None) -> tuple[Tensor, Tensor | None]:
        check_clip(x, self.frames, self.joints, self.channels_in, self.name)
        batch, frames, kept = len(x), self.frames, None
        x = self._embed(x).flatten(0, 1)
        for i, (st, ts, fusion) in enumerate(zip(self.blocks_st, self.blocks_ts, self.ts_attn, strict=True)):
            if self.pruning is not None and i == self.pruning.layer_index:
                tokens, kept = self._prune(x.unflatten(0, (batch, frames)), noise, index)
                x, frames = tokens.flatten(0, 1), tokens.shape[1]
            x_st, x_ts = st(x, frames), ts(x, frames)
            share = fusion(torch.cat([x_st, x_ts], dim=-1)).softmax(-1)
            x = x_st * share[..., :1] + x_ts * share[..., 1:]
        x = self._regrow(self.norm(x).unflatten(0, (batch, frames)))
        return self.head(self.pre_logits(x)), kept
