"""Perspective Encoding (PersPose): tell a network which viewing ray each cell of its feature map looks along."""

from __future__ import annotations

import torch
from torch import Tensor


def perspective_encoding(
    K_crop: Tensor, size_hw: tuple[int, int], stride: int = 4, *, known: Tensor | None = None
) -> Tensor:
    """Map of viewing rays of a crop camera, without normalisation.

    For the cell in row i and column j, centred at u = stride (j + 0.5), v = stride (i + 0.5) pixels of the crop,
    the two channels are x and y of K_crop^-1 [u, v, 1].

    Args:
        K_crop: (B, 3, 3) intrinsics of the crops, pixels (pixel centres at + 0.5); third row 0 0 1.
        size_hw: height and width of the crop, pixels; multiples of `stride`.
        stride: pixels per cell.
        known: (B,) bool, False for samples whose camera is unknown: their map is zero.

    Returns:
        (B, 2, h / stride, w / stride) tensor, dtype and device of `K_crop`.
    """
    h, w = size_hw
    if h % stride or w % stride:
        raise ValueError(f"The crop is {h} x {w} pixels. Use a height and width that are multiples of {stride}.")
    if K_crop.ndim != 3 or K_crop.shape[-2:] != (3, 3):
        raise ValueError(f"K_crop has shape {tuple(K_crop.shape)}. Pass intrinsics of shape (B, 3, 3).")
    u = stride * (torch.arange(w // stride, dtype=K_crop.dtype, device=K_crop.device) + 0.5)
    v = stride * (torch.arange(h // stride, dtype=K_crop.dtype, device=K_crop.device) + 0.5)
    K = K_crop[:, :, :, None, None]
    # K is upper triangular, so back substitution inverts it without the rounding of a general inverse.
    y = ((v[:, None] - K[:, 1, 2]) / K[:, 1, 1]).expand(-1, -1, len(u))
    x = (u - K[:, 0, 2] - K[:, 0, 1] * y) / K[:, 0, 0]
    encoding = torch.stack([x, y], dim=1)
    if known is not None:
        # `where`, not a product: a placeholder camera may hold anything, NaN included.
        encoding = torch.where(known[:, None, None, None], encoding, torch.zeros_like(encoding))
    return encoding


def mirror_intrinsics(K: Tensor, width: float) -> Tensor:
    """Intrinsics (..., 3, 3) of the horizontally mirrored image of `width` pixels: cx -> width - cx, skew -> -skew."""
    K = K.clone()
    K[..., 0, 2] = width - K[..., 0, 2]
    K[..., 0, 1] = -K[..., 0, 1]
    return K
