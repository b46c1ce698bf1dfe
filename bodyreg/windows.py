"""Which frames of a sequence belong to which window: the rules of the published lifters, as index arithmetic.

A window is [start, end) in frames of its sequence and may reach beyond it; `frames_of` repeats the edge frame there.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np

__all__ = [
    "blend_windows", "centred_chunks", "every_frame", "frames_of", "hashed_start", "mirror_map", "strided",
    "subset_of", "tail_aligned", "tiled",
]  # fmt: skip


def frames_of(windows: np.ndarray, length: int | np.ndarray, pad: int = 0) -> np.ndarray:
    """Frame indices (N, frames) of windows (N, 2), widened by `pad` on both sides, the edges repeated.

    Args:
        windows: start and end, all of one width. length: of the sequence, or one (N,) for each window.

    Raises:
        ValueError: windows of different widths, or an empty sequence.
    """
    windows = np.asarray(windows)
    widths = np.unique(windows[:, 1] - windows[:, 0])
    lengths = np.broadcast_to(np.asarray(length), len(windows))
    if len(widths) > 1 or (len(widths) and widths[0] + 2 * pad < 1) or (lengths < 1).any():
        raise ValueError(f"The windows have widths {widths.tolist()}. Give one width and sequences of a frame or more.")
    width = int(widths[0]) if len(widths) else 1
    indices = windows[:, :1] + np.arange(-pad, width + pad)
    return np.clip(indices, 0, lengths[:, None] - 1)


def centred_chunks(length: int, frames: int) -> np.ndarray:
    """KTPFormer's training windows: as few as cover the sequence, side by side, the overhang shared by both ends."""
    _check(length, frames)
    count = -(-length // frames)
    offset = (count * frames - length) // 2
    starts = np.arange(count) * frames - offset
    return np.stack([starts, starts + frames], 1)


def tail_aligned(length: int, frames: int) -> np.ndarray:
    """KTPFormer's test windows: side by side, the last one moved back so that it ends with the sequence.

    A sequence shorter than a window starts at 0 and is repeated on the right.
    """
    _check(length, frames)
    starts = np.arange(-(-length // frames)) * frames
    starts[-1] = max(0, length - frames)
    return np.stack([starts, starts + frames], 1)


def strided(length: int, frames: int, stride: int) -> np.ndarray:
    """HoT's windows: every `stride` frames, ceil((T - F) / stride + 1) of them, the overhang shared by both ends."""
    _check(length, frames)
    if stride < 1:
        raise ValueError(f"The stride is {stride}. Give at least 1.")
    count = -((frames - length) // stride) + 1
    offset = ((count - 1) * stride + frames - length) // 2
    starts = np.arange(count) * stride - offset
    return np.stack([starts, starts + frames], 1)


def every_frame(length: int) -> np.ndarray:
    """One window a frame, [t, t + 1): widen it by half the receptive field for the network's input."""
    starts = np.arange(length)
    return np.stack([starts, starts + 1], 1)


def tiled(length: int, frames: int, overlap: int = 0) -> np.ndarray:
    """Windows for inference: `overlap` frames in common, centred on the sequence, every frame in at least one.

    Raises:
        ValueError: an overlap as long as the window.
    """
    _check(length, frames)
    if not 0 <= overlap < frames:
        raise ValueError(f"The overlap is {overlap} of {frames} frames. Give 0 or more and less than the window.")
    step = frames - overlap
    count = max(1, -((frames - length) // step) + 1)
    offset = ((count - 1) * step + frames - length) // 2
    starts = np.arange(count) * step - offset
    return np.stack([starts, starts + frames], 1)


def blend_windows(windows: np.ndarray, length: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """How frames of overlapping windows make a sequence again.

    Inside an overlap the weight runs linearly from one window to the next, so that nothing jumps at a seam; frames
    beyond the sequence have none.

    Returns:
        Positions (M,) in the flattened (N * frames) poses, the frame (M,) each one belongs to, and weights (M,) that
        sum to one for every frame of the sequence.
    """
    width = int(windows[0, 1] - windows[0, 0])
    step = int(windows[1, 0] - windows[0, 0]) if len(windows) > 1 else width
    overlap = width - step
    ramp = np.minimum(np.arange(width) + 1, np.arange(width)[::-1] + 1).clip(max=overlap + 1) / (overlap + 1)
    frames = windows[:, :1] + np.arange(width)
    inside = (frames >= 0) & (frames < length)
    weights = np.broadcast_to(ramp, frames.shape)[inside]
    total = np.bincount(frames[inside], weights, minlength=length)
    return np.flatnonzero(inside.ravel()), frames[inside], weights / total[frames[inside]]


def hashed_start(low: int, high: int, text: str) -> int:
    """A start between `low` and `high` that depends on nothing but a text (VideoPose3D's subsets)."""
    number = int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "little")
    return int(number / (2**32 - 1) * (high - low)) + low


def subset_of(length: int, share: float, downsample: int = 1) -> tuple[int, int]:
    """[start, end) of the part of a sequence that training on a share of the data keeps: one run of frames.

    Raises:
        ValueError: a share outside (0, 1].
    """
    if not 0 < share <= 1:
        raise ValueError(f"The subset is {share}. Give a share of the data above 0 and at most 1.")
    if share == 1:
        return 0, length
    count = round(length // downsample * share) * downsample
    start = hashed_start(0, length - count + 1, str(length))
    return start, start + count


def mirror_map(count: int, left: Sequence[int], right: Sequence[int]) -> tuple[int, ...]:
    """Index of each point's mirror image, from lists of left and right points that are paired by position."""
    if len(left) != len(right) or len({*left, *right}) != 2 * len(left) or not {*left, *right} <= set(range(count)):
        raise ValueError(f"The mirror lists {list(left)} and {list(right)} do not pair {count} points. Mend the lists.")
    mirror = list(range(count))
    for a, b in zip(left, right, strict=True):
        mirror[a], mirror[b] = b, a
    return tuple(mirror)


def _check(length: int, frames: int) -> None:
    if length < 1 or frames < 1:
        raise ValueError(f"A sequence of {length} frames has no windows of {frames}. Both must be at least 1.")
