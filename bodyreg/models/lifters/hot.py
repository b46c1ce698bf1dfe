"""Hourglass tokenizer (Li et al., CVPR 2024): a lifter goes on with few frames and regrows all of them at its end.

`FrameSelector` is the token pruning cluster (TPC), `TokenRecovery` the token recovering attention (TRA); neither knows
the network it serves. `PrunableLifter` is the base of networks that offer both.

The method breaks ties between mutual nearest neighbours by noise. Here the noise of evaluation is one fixed draw for
every clip, so that the same clip gives the same frames on every run and in every batch; training draws afresh. Noise
and index can be given instead. Distances are found in double precision: in single precision the rounding of a matrix
product is as large as the noise.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from bodyreg.models.lifters.layers import CrossAttention

__all__ = [
    "FrameScores", "FrameSelector", "PrunableLifter", "Pruned", "Pruning", "TokenRecovery", "choose_frames",
    "cluster_of", "frame_distances", "score_frames", "take_frames",
]  # fmt: skip

_NOISE = 1e-6


class FrameScores(NamedTuple):
    """How much each frame of a clip stands for others (Rodriguez and Laio, Science 2014).

    distances: (B, F, F) between frames; density: (B, F) of its neighbourhood; parent: (B, F) distance to the nearest
    denser frame; score: (B, F) product of the last two.
    """

    distances: Tensor
    density: Tensor
    parent: Tensor
    score: Tensor


@dataclass(frozen=True)
class Pruning:
    """How a lifter is pruned.

    Attributes:
        keep: K, frames that go on. layer_index: host blocks that run at full length before.
        recover: regrow all frames at the end (HoT); otherwise the kept frames are the output (TPC alone), and the
            centre frame is among them.
        seed: of the fixed noise of evaluation.
    """

    keep: int
    layer_index: int
    recover: bool = True
    seed: int = 0


class Pruned(NamedTuple):
    """pose: (B, F or K, J, 3) root-relative joints, metres; kept: (B, K) frames that went on, ascending."""

    pose: Tensor
    kept: Tensor


def frame_distances(features: Tensor) -> Tensor:
    """(B, F, F) Euclidean distances between the frames of (B, F, C) features; symmetric, zeros on the diagonal.

    By a matrix product, which is fast, in double precision, so that its rounding stays far below the noise.
    """
    x = features.double()
    products = x @ x.transpose(1, 2)
    lengths = products.diagonal(dim1=1, dim2=2)
    squares = lengths[:, :, None] + lengths[:, None, :] - products - products.transpose(1, 2)
    return squares.clamp_min(0).sqrt()


def score_frames(features: Tensor, noise: Tensor, neighbours: int = 2) -> FrameScores:
    """Scores of density-peak clustering, in double precision; no gradient.

    Args:
        features: (B, F, C). noise: (B, F) or (F,), in [0, 1); a millionth of it is added to the density.
        neighbours: k, of which the frame itself is one.
    """
    with torch.no_grad():
        distances = frame_distances(features) / features.shape[-1] ** 0.5
        near = distances.topk(neighbours, dim=-1, largest=False).values
        density = (-near.square().mean(-1)).exp() + _NOISE * noise.to(distances)
        furthest = distances.amax((1, 2), keepdim=True)
        denser = density[:, None, :] > density[:, :, None]
        parent = torch.where(denser, distances, furthest).amin(-1)
        return FrameScores(distances, density, parent, parent * density)


def choose_frames(score: Tensor, keep: int, centre: int | None = None) -> Tensor:
    """(B, keep) frames of the highest scores in descending order, the earlier frame first where two are equal.

    With `centre`, keep - 1 frames other than the centre: the caller adds it.
    """
    if centre is not None:
        barred = torch.arange(score.shape[1], device=score.device) == centre
        score, keep = score.masked_fill(barred, -torch.inf), keep - 1
    return score.argsort(dim=-1, descending=True, stable=True)[:, :keep]


def cluster_of(distances: Tensor, chosen: Tensor) -> Tensor:
    """(B, F) rank of the nearest chosen frame; chosen frames have their own.

    Args:
        distances: (B, F, F). chosen: (B, K) frames.
    """
    rows = distances.gather(1, chosen[:, :, None].expand(-1, -1, distances.shape[2]))
    ranks = torch.arange(chosen.shape[1], device=chosen.device).expand_as(chosen)
    return rows.argmin(1).scatter(1, chosen, ranks)


def take_frames(x: Tensor, index: Tensor) -> Tensor:
    """(B, K, ...) frames of x (B, F, ...) at index (B, K)."""
    return x.gather(1, index.reshape(index.shape + (1,) * (x.dim() - 2)).expand(-1, -1, *x.shape[2:]))


class FrameSelector(nn.Module):
    """TPC: which frames to keep. It has no parameters and adds nothing to a state dict.

    Args:
        frames: F. keep: K. centre: always keep the middle frame. neighbours: k of the density.
        seed: of the noise of evaluation.
    """

    def __init__(self, frames: int, keep: int, *, centre: bool = False, neighbours: int = 2, seed: int = 0) -> None:
        super().__init__()
        if not 1 <= keep <= frames:
            raise ValueError(f"{keep} of {frames} frames cannot be kept. Keep between 1 and {frames}.")
        if not 1 <= neighbours <= frames:
            raise ValueError(f"A clip of {frames} frames has no {neighbours} neighbours. Take longer clips.")
        self.frames, self.keep, self.neighbours = frames, keep, neighbours
        self.centre = (frames - 1) // 2 if centre else None
        # On the CPU whatever the default device: weights may be loaded into a network built without memory.
        fixed = torch.rand(frames, generator=torch.Generator().manual_seed(seed), device="cpu")
        self.register_buffer("fixed_noise", fixed, persistent=False)
        self.fixed_noise: Tensor

    def forward(self, features: Tensor, noise: Tensor | None = None, index: Tensor | None = None) -> Tensor:
        """(B, K) frames to keep, ascending.

        Args:
            features: (B, F, C) one vector a frame.
            noise: (B, F) or (F,) in place of the draw. index: (B, K) in place of the selection.

        Raises:
            ValueError: an index or noise of another shape.
        """
        batch = len(features)
        if index is not None:
            if index.shape != (batch, self.keep):
                raise ValueError(
                    f"The index has shape {tuple(index.shape)}. Give ({batch}, {self.keep}): the frames to keep."
                )
            return index
        if noise is None:
            shape = (batch, self.frames)
            noise = torch.rand(shape, device=features.device) if self.training else self.fixed_noise
        elif noise.shape not in ((batch, self.frames), (self.frames,)):
            raise ValueError(f"The noise has shape {tuple(noise.shape)}. Give ({batch}, {self.frames}).")
        chosen = choose_frames(score_frames(features, noise, self.neighbours).score, self.keep, self.centre)
        if self.centre is not None:
            chosen = torch.cat([chosen, chosen.new_full((batch, 1), self.centre)], dim=1)
        return chosen.sort(dim=-1).values


def recover(token: Tensor, attention: CrossAttention, kept: Tensor) -> Tensor:
    """token + attention(query = token, key = value = kept): (1, F, C) and (N, K, C) -> (N, F, C)."""
    return token + attention(token, kept, kept)


class TokenRecovery(nn.Module):
    """TRA: all frames from the kept ones. A learned token for each frame asks the kept ones of its joint."""

    def __init__(self, frames: int, width: int, heads: int, *, qkv_bias: bool = True) -> None:
        super().__init__()
        self.x_token = nn.Parameter(torch.zeros(1, frames, width))
        self.cross_attention = CrossAttention(width, heads, qkv_bias=qkv_bias)

    def forward(self, kept: Tensor) -> Tensor:
        """(N, K, C) kept tokens of one joint each -> (N, F, C)."""
        return recover(self.x_token, self.cross_attention, kept)


class PrunableLifter(nn.Module):
    """Base of lifters that HoT or TPC can make cheaper.

    A subclass implements `_lift`, calls `_add_pruning` in its constructor, `_prune` in front of the block at
    `pruning.layer_index`, and `_regrow` in front of its head.
    """

    pruning: Pruning | None = None
    name = "The lifter"

    def _add_pruning(
        self, pruning: Pruning | None, frames: int, width: int, heads: int, *, blocks: int, qkv_bias: bool = True,
        first: int = 1,
    ) -> None:  # fmt: skip
        """Register the selector, and TRA's parameters under the names of the published networks.

        Args:
            blocks: of the host. first: the earliest block in front of which it can prune.
        """
        self.pruning = pruning
        if pruning is None:
            return
        if not first <= pruning.layer_index < blocks:
            raise ValueError(
                f"{self.name} of {blocks} blocks cannot be pruned before block {pruning.layer_index}. "
                f"Set layer_index from {first} to {blocks - 1}."
            )
        self.selector = FrameSelector(frames, pruning.keep, centre=not pruning.recover, seed=pruning.seed)
        if pruning.recover:
            self.pos_embed_token = nn.Parameter(torch.zeros(1, pruning.keep, width))
            recovery = TokenRecovery(frames, width, heads, qkv_bias=qkv_bias)
            self.x_token, self.cross_attention = recovery.x_token, recovery.cross_attention

    def _prune(self, x: Tensor, noise: Tensor | None, index: Tensor | None) -> tuple[Tensor, Tensor]:
        """(B, F, J, C) tokens -> kept tokens (B, K, J, C) and their index (B, K)."""
        assert self.pruning is not None
        index = self.selector(x.mean(2), noise, index)
        x = take_frames(x, index)
        return (x + self.pos_embed_token[:, :, None] if self.pruning.recover else x), index

    def _regrow(self, x: Tensor) -> Tensor:
        """(B, K, J, C) -> (B, F, J, C) for HoT; other tokens come back as they are."""
        if self.pruning is None or not self.pruning.recover:
            return x
        batch, _, joints, _ = x.shape
        y = recover(self.x_token, self.cross_attention, x.transpose(1, 2).flatten(0, 1))
        return y.unflatten(0, (batch, joints)).transpose(1, 2)

    def _lift(self, x: Tensor, noise: Tensor | None, index: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """(B, F, J, C) key points -> pose and, of pruned networks, the index."""
        raise NotImplementedError

    def forward(self, x: Tensor, noise: Tensor | None = None, index: Tensor | None = None) -> Any:
        """Lift clips.

        Args:
            x: (B, F, J, C) screen-normalised key points.
            noise: (B, F), pruned networks: in place of the draw. index: (B, K), in place of the selection.

        Returns:
            (B, F, J, 3) root-relative joints, metres; of a TPC-only network `Pruned` (K frames).

        Raises:
            ValueError: a clip of another shape, or noise or index for a network that is not pruned.
        """
        if self.pruning is None or self.pruning.recover:
            if self.pruning is None and (noise is not None or index is not None):
                raise ValueError(f"{self.name} is not pruned. Give no noise and no index, or build it with pruning.")
            return self._lift(x, noise, index)[0]
        return self.lift_pruned(x, noise, index)

    def lift_pruned(self, x: Tensor, noise: Tensor | None = None, index: Tensor | None = None) -> Pruned:
        """Pose and kept frames of a pruned network; arguments as in `forward`.

        Raises:
            ValueError: the network is not pruned.
        """
        pose, kept = self._lift(x, noise, index)
        if kept is None:
            raise ValueError(f"{self.name} is not pruned, so it keeps all frames. Call it directly.")
        return Pruned(pose, kept)
