"""Clips of sequences for training and test: both window schemes, flips, reversal, shuffling, jittered targets.

Rows of windows are (sequence, start, end, flip, reverse); see `bodyreg.windows` for the rules.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from bodyreg import windows as rules
from bodyreg.data.lifter_sets import LifterSequence

__all__ = [
    "ClipBatches", "ClipTable", "flip_lens", "flip_points", "jitter_targets", "permutations", "plan_windows",
    "training_windows",
]  # fmt: skip

JITTER_DEGREES, JITTER_SCALES = (-5.0, 0.0, 5.0), (0.95, 1.0, 1.05)


def flip_points(points: np.ndarray, mirror: Sequence[int]) -> np.ndarray:
    """Points (..., J, C) of the mirrored person: x negated, left and right exchanged. A copy."""
    flipped = points[..., list(mirror), :].copy()
    flipped[..., 0] *= -1
    return flipped


def flip_lens(lens: np.ndarray) -> np.ndarray:
    """Lens (..., 9) of the mirrored picture: cx and p1 negated. A copy."""
    flipped = lens.copy()
    flipped[..., [2, 7]] *= -1
    return flipped


def jitter_targets(joints: np.ndarray, degrees: np.ndarray, scales: np.ndarray) -> np.ndarray:
    """GLA-GCN's noise on targets (..., J, 3): turned about the optical axis, x and y scaled, z left alone.

    Args:
        degrees, scales: one a sample, of the leading axes' shape.
    """
    angle = np.deg2rad(np.asarray(degrees))[..., None]
    factor = np.asarray(scales)[..., None]
    x, y = joints[..., 0], joints[..., 1]
    moved = joints.copy()
    moved[..., 0] = factor * (x * np.cos(angle) - y * np.sin(angle))
    moved[..., 1] = factor * (x * np.sin(angle) + y * np.cos(angle))
    return moved


def plan_windows(
    lengths: Sequence[int] | np.ndarray,
    rule: Callable[[int], np.ndarray],
    *,
    flip: bool = False,
    reverse: bool = False,
    flips_last: bool = False,
) -> np.ndarray:
    """(W, 5) rows of windows over sequences: for each the plain ones, then the augmented ones.

    Args:
        lengths: of the sequences. rule: length -> windows (N, 2).
        flip: also the mirrored windows. reverse: also the windows backwards in time; the mirrored ones then run
            backwards as well, as HoT's loader has it.
        flips_last: the mirrored windows of all sequences follow the plain ones of all.
    """
    variants = [(0, 0)] + ([(0, 1)] if reverse else []) + ([(1, int(reverse))] if flip else [])
    parts = []
    for number, length in enumerate(lengths):
        found = rule(int(length))
        for flipped, reversed_ in variants:
            rows = np.zeros((len(found), 5), np.int64)
            rows[:, 0], rows[:, 1:3], rows[:, 3], rows[:, 4] = number, found, flipped, reversed_
            parts.append(rows)
    plan = np.concatenate(parts) if parts else np.zeros((0, 5), np.int64)
    return plan[np.argsort(plan[:, 3], kind="stable")] if flips_last else plan


def training_windows(
    lengths: Sequence[int] | np.ndarray, scheme: str, frames: int, stride: int, *, flip: bool, reverse: bool = False
) -> np.ndarray:
    """(W, 5) rows of the windows that one of the schemes trains on.

    Args:
        lengths: of the sequences. frames: of a clip. stride: between clips ("strided" only).
        scheme: "chunks", side by side (KTPFormer); "strided" (HoT; sequences much shorter than a clip may have none);
            "frame", one around each frame.

    Raises:
        ValueError: an unknown scheme, or no window at all.
    """
    schemes: dict[str, Callable[[int], np.ndarray]] = {
        "chunks": lambda length: rules.centred_chunks(length, frames),
        "strided": lambda length: rules.strided(length, frames, stride),
        "frame": rules.every_frame,
    }
    if scheme not in schemes:
        raise ValueError(f"There is no window scheme {scheme!r}. Choose one of {', '.join(schemes)}.")
    found = plan_windows(lengths, schemes[scheme], flip=flip, reverse=reverse)
    if not len(found):
        raise ValueError(
            f"Sequences of {sorted(set(map(int, lengths)))[:5]} frames have no windows of {frames}. Use a shorter clip."
        )
    return found


def permutations(count: int, seed: int = 1234, start: int = 0) -> Iterator[np.ndarray]:
    """Orders of `count` things, epoch after epoch from `start`, as all systems of VideoPose3D's line shuffle."""
    generator = np.random.RandomState(seed)
    for _ in range(start):
        generator.permutation(count)
    while True:
        yield generator.permutation(count)


class ClipTable:
    """Sequences side by side in memory, cut into clips by index.

    Args:
        sequences: at least one, of one joint set. mirror_in, mirror_out: mirror images of key points and joints.
        root: index of the joint whose target is zero; None leaves the absolute root in the targets.

    Raises:
        ValueError: no sequence, or sequences of different joints or channels.
    """

    def __init__(
        self, sequences: Sequence[LifterSequence], mirror_in: Sequence[int], mirror_out: Sequence[int],
        root: int | None = 0,
    ) -> None:  # fmt: skip
        shapes = {(s.keypoints.shape[1:], s.joints.shape[1:]) for s in sequences}
        if len(shapes) != 1 or any(len(s) == 0 for s in sequences):
            raise ValueError(f"The sequences have shapes {sorted(shapes)}. Give sequences of frames and one joint set.")
        self.sequences, self.mirror_in, self.mirror_out = list(sequences), tuple(mirror_in), tuple(mirror_out)
        self.lengths = np.array([len(s) for s in sequences])
        self._starts = np.concatenate([[0], np.cumsum(self.lengths)[:-1]])
        self.keypoints = np.concatenate([s.keypoints for s in sequences])
        self.joints = np.concatenate([s.joints for s in sequences])
        if root is not None:
            self.joints[:, root] = 0
        self.lens = np.stack([s.lens for s in sequences])

    def clips(self, windows: np.ndarray, pad: int = 0, *, whole_target: bool = True) -> dict[str, np.ndarray]:
        """A batch of clips.

        Args:
            windows: (B, 5) rows. pad: frames by which key points reach beyond each window on either side.
            whole_target: joints of the padded window; else of the window alone.

        Returns:
            keypoints (B, F + 2 pad, J, C), joints (B, F (+ 2 pad), J', 3), lens (B, 9), sequence (B,).
        """
        keypoints = self.keypoints[self._frames(windows, pad)]
        joints = self.joints[self._frames(windows, pad if whole_target else 0)]
        lens = self.lens[windows[:, 0]].copy()
        flip = windows[:, 3] == 1
        if flip.any():
            keypoints[flip] = flip_points(keypoints[flip], self.mirror_in)
            joints[flip] = flip_points(joints[flip], self.mirror_out)
            lens[flip] = flip_lens(lens[flip])
        return {"keypoints": keypoints, "joints": joints, "lens": lens, "sequence": windows[:, 0].copy()}

    def test_keypoints(self, windows: np.ndarray, pad: int = 0) -> np.ndarray:
        """(B, 2, F + 2 pad, J, C) key points of windows, as they are and mirrored."""
        keypoints = self.keypoints[self._frames(windows, pad)]
        return np.stack([keypoints, flip_points(keypoints, self.mirror_in)], 1)

    def _frames(self, windows: np.ndarray, pad: int) -> np.ndarray:
        frames = rules.frames_of(windows[:, 1:3], self.lengths[windows[:, 0]], pad)
        backwards = windows[:, 4] == 1
        frames[backwards] = frames[backwards, ::-1]
        return frames + self._starts[windows[:, 0], None]


class ClipBatches:
    """Batches of clips, epoch after epoch, that can begin at any step; the last, short batch of an epoch is kept.

    Args:
        table: the sequences. windows: (W, 5) rows. batch_size: clips a batch and process.
        pad, whole_target: as for `ClipTable.clips`. seed: of the shuffling; None keeps the order.
        jitter: noise on the targets (`jitter_targets`). rank, world: this process and how many there are.

    Raises:
        ValueError: a batch size below one, or fewer windows than processes.
    """

    def __init__(
        self, table: ClipTable, windows: np.ndarray, batch_size: int, *, pad: int = 0, whole_target: bool = True,
        seed: int | None = 1234, jitter: bool = False, rank: int = 0, world: int = 1,
    ) -> None:  # fmt: skip
        if batch_size < 1 or len(windows) < world:
            raise ValueError(
                f"{len(windows)} windows in batches of {batch_size} for {world} processes. Give each at least one."
            )
        self.table, self.windows, self.batch_size = table, windows, batch_size
        self.pad, self.whole_target, self.seed, self.jitter = pad, whole_target, seed, jitter
        self.rank, self.world, self.step = rank, world, 0

    def __len__(self) -> int:
        """Batches an epoch and process."""
        return -(-(len(self.windows) // self.world) // self.batch_size)

    def seek(self, step: int) -> None:
        """Begin with the batch that this step would see."""
        self.step = step

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        """From the step sought to the end of its epoch."""
        epoch, first = divmod(self.step, len(self))
        order = np.arange(len(self.windows))
        if self.seed is not None:
            order = next(permutations(len(self.windows), self.seed, epoch))
        share = len(self.windows) // self.world * self.world
        mine = order[: share if self.world > 1 else None][self.rank :: self.world]
        for number in range(first, len(self)):
            rows = self.windows[mine[number * self.batch_size : (number + 1) * self.batch_size]]
            yield self._batch(rows, epoch, number)

    def _batch(self, rows: np.ndarray, epoch: int, number: int) -> dict[str, Tensor]:
        batch = self.table.clips(rows, self.pad, whole_target=self.whole_target)
        if self.jitter:
            # By the step, not by a running state: a resumed run draws the same noise.
            rng = np.random.default_rng([self.seed or 0, epoch, number, self.rank])
            shape = (len(rows), 1)
            batch["joints"] = jitter_targets(
                batch["joints"], rng.choice(JITTER_DEGREES, shape), rng.choice(JITTER_SCALES, shape)
            ).astype(np.float32)
        return {name: torch.from_numpy(np.ascontiguousarray(value)) for name, value in batch.items()}
