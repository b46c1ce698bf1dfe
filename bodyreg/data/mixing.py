"""Mixing data sets in fixed shares, the same way on every machine (PersPose, ICCV 2025, released training code).

An epoch has as many samples as one likes. Which set a position of the epoch draws from, and which sample of it, is a
formula of the position and the epoch: no state, so that a run resumes at any batch and processes never disagree.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch

__all__ = ["MixedBatches", "Mixture", "in_order"]

PUBLISHED_SEED = 2147483647
_TABLE_ROUNDS = 50


class Mixture:
    """Positions of an epoch to rows (set, sample).

    The position's share of the epoch picks the set by the cumulative shares of the sets. Within the set, draws of all
    epochs are counted through: draw number round(share * n * (progress within the set + epoch)), halves to even, modulo
    the length of a table that permutes fifty rounds of the set.

    Args:
        sizes: samples of each set. shares: of each set in an epoch, normalised here; a set of share 0 is never drawn.
        samples: n, samples an epoch. seed: of the tables.

    Raises:
        ValueError: lengths differ, no positive share, a negative one, or a drawn set without samples.
    """

    def __init__(
        self, sizes: Sequence[int], shares: Sequence[float], samples: int, *, seed: int = PUBLISHED_SEED
    ) -> None:
        if len(sizes) != len(shares):
            raise ValueError(f"There are {len(sizes)} sets and {len(shares)} shares. Give one share a set.")
        ratio = np.asarray(shares, dtype=np.float64)
        if not np.isfinite(ratio).all() or (ratio < 0).any() or ratio.sum() <= 0:
            raise ValueError(f"The shares are {list(shares)}. Give numbers of at least 0, one of them positive.")
        empty = [k for k, size in enumerate(sizes) if size < 1 and ratio[k] > 0]
        if empty:
            raise ValueError(f"The sets {empty} have a share but no samples. Prepare them, or set their share to 0.")
        if samples < 1:
            raise ValueError(f"An epoch of {samples} samples was asked for. Give at least 1.")
        self.samples = samples
        self.shares = ratio / ratio.sum()
        generator = torch.Generator().manual_seed(seed)
        # All tables come from one generator, sets in order, so that those not drawn count too.
        self.tables = [_table(size, generator) for size in sizes]

    def __len__(self) -> int:
        return self.samples

    def rows(self, positions: np.ndarray, epoch: int) -> np.ndarray:
        """Rows (N, 2) int64, set and sample, at positions (N,) int in [0, samples) of an epoch."""
        p = np.asarray(positions, dtype=np.int64) / self.samples
        ends = np.cumsum(self.shares)
        # Rounding may leave the last end below the last position; it must not fall into a set that is never drawn.
        last = int(np.flatnonzero(self.shares).max())
        sets = np.minimum(np.searchsorted(ends, p, side="right"), last)
        share = self.shares[sets]
        progress = (p - (ends[sets] - share)) / share
        draws = np.rint(share * self.samples * (progress + epoch)).astype(np.int64)
        rows = np.empty((len(p), 2), dtype=np.int64)
        rows[:, 0] = sets
        for k, table in enumerate(self.tables):
            mine = sets == k
            rows[mine, 1] = table[draws[mine] % max(1, len(table))]
        return rows


def in_order(sizes: Sequence[int]) -> np.ndarray:
    """Rows (N, 2) of every sample of every set once, set after set: the order of evaluation."""
    sets = np.repeat(np.arange(len(sizes)), sizes)
    samples = np.concatenate([np.arange(size) for size in sizes]) if len(sizes) else np.zeros(0, np.int64)
    return np.stack([sets, samples], axis=1).astype(np.int64)


class MixedBatches:
    """Batches of rows for one process: a `batch_sampler` of torch's DataLoader.

    A row is (set, sample, draw); the draw's number is unique over all epochs and seeds the sample's augmentation.

    Positions of an epoch are shuffled by seed and epoch, dealt to the processes in turn and cut into batches; what does
    not fill a batch on every process is left out. Iterating goes on from `epoch` and `batch`, over one epoch.

    Args:
        mixture: what to draw. batch_size: samples a batch and process. seed: of the order within epochs.
        rank, world: which process this is, of how many.

    Raises:
        ValueError: the epoch does not fill one batch on every process.
    """

    def __init__(self, mixture: Mixture, batch_size: int, *, seed: int = 0, rank: int = 0, world: int = 1) -> None:
        self.mixture, self.batch_size, self.seed, self.rank, self.world = mixture, batch_size, seed, rank, world
        self.epoch = 0
        self.batch = 0
        if len(self) < 1:
            raise ValueError(
                f"An epoch of {mixture.samples} samples does not fill one batch of {batch_size} on each of {world} "
                "processes. Lengthen the epoch or take smaller batches."
            )

    def __len__(self) -> int:
        return self.mixture.samples // (self.batch_size * self.world)

    def seek(self, step: int) -> None:
        """Go to the batch that follows `step` batches from the very start."""
        self.epoch, self.batch = divmod(step, len(self))

    def __iter__(self) -> Iterator[list[tuple[int, int, int]]]:
        order = np.random.default_rng([self.seed, self.epoch]).permutation(self.mixture.samples)
        order = order[self.rank :: self.world]
        rows = np.concatenate(
            [self.mixture.rows(order, self.epoch), (order + self.epoch * self.mixture.samples)[:, None]], axis=1
        )
        first, self.batch, self.epoch = self.batch, 0, self.epoch + 1
        for k in range(first, len(self)):
            chunk = rows[k * self.batch_size : (k + 1) * self.batch_size]
            yield [(int(a), int(b), int(c)) for a, b, c in chunk]


def _table(size: int, generator: torch.Generator) -> np.ndarray:
    if size < 1:
        return np.zeros(0, np.int32)
    return (torch.randperm(_TABLE_ROUNDS * size, generator=generator) % size).to(torch.int32).numpy()
