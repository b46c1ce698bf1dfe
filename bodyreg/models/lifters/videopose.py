"""VideoPose3D's temporal model: dilated convolutions over time (Pavllo et al., CVPR 2019)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

__all__ = ["VideoPose3D"]


class VideoPose3D(nn.Module):
    """Temporal convolutions with centre-cropped residuals; one pose a window of `receptive_field` frames.

    Block i is a convolution of `filter_widths[i]` taps, dilated by the product of the widths before it, and one of a
    single tap; batch normalisation, ReLU and dropout follow each. A clip exactly as long as the receptive field runs
    with strides instead of dilation, which computes nothing that is thrown away and gives the same numbers.

    Args:
        joints_in, joints_out: numbers of key points and of joints. filter_widths: odd.
        channels: of every layer. dropout: rate. features: numbers a key point.
        zero_root: joint 0 is not regressed but set to zero, as PoseDA does with a single frame.
    """

    def __init__(
        self,
        joints_in: int = 17,
        joints_out: int = 17,
        *,
        filter_widths: Sequence[int] = (3, 3, 3, 3, 3),
        channels: int = 1024,
        dropout: float = 0.25,
        features: int = 2,
        zero_root: bool = False,
    ) -> None:
        super().__init__()
        if not filter_widths or any(width < 1 or width % 2 == 0 for width in filter_widths):
            raise ValueError(f"The filter widths are {list(filter_widths)}. Give odd numbers of at least 1.")
        self.joints_in, self.joints_out, self.features = joints_in, joints_out, features
        self.filter_widths, self.zero_root = tuple(filter_widths), zero_root
        self.receptive_field = math.prod(filter_widths)
        self.expand_conv = nn.Conv1d(joints_in * features, channels, filter_widths[0], bias=False)
        self.expand_bn = nn.BatchNorm1d(channels, momentum=0.1)
        kernels = [kernel for width in filter_widths[1:] for kernel in (width, 1)]
        self.layers_conv = nn.ModuleList(nn.Conv1d(channels, channels, kernel, bias=False) for kernel in kernels)
        self.layers_bn = nn.ModuleList(nn.BatchNorm1d(channels, momentum=0.1) for _ in kernels)
        self.dropout = nn.Dropout(dropout)
        self.shrink = nn.Conv1d(channels, (joints_out - int(zero_root)) * 3, 1)

    def forward(self, keypoints: Tensor) -> Tensor:
        """Joints (B, T - receptive_field + 1, J', 3) of screen-normalised key points (B, T, J, features).

        Raises:
            ValueError: fewer frames than the receptive field, or another number of key points.
        """
        if keypoints.ndim != 4 or keypoints.shape[2:] != (self.joints_in, self.features):
            raise ValueError(
                f"The key points have shape {tuple(keypoints.shape)}. "
                f"Give (batch, frames, {self.joints_in}, {self.features})."
            )
        frames = keypoints.shape[1]
        if frames < self.receptive_field:
            raise ValueError(
                f"The clip has {frames} frames, and this network sees {self.receptive_field}. "
                "Repeat the edge frames until it is long enough."
            )
        x = self._features(keypoints.flatten(2).mT, strided=frames == self.receptive_field)
        joints = self.shrink(x).mT.unflatten(-1, (-1, 3))
        return torch.cat([torch.zeros_like(joints[:, :, :1]), joints], 2) if self.zero_root else joints

    def _features(self, x: Tensor, *, strided: bool) -> Tensor:
        """(B, channels, T') of (B, J * features, T)."""
        stride, dilation = self.filter_widths[0] if strided else 1, self.filter_widths[0]
        x = self._finish(_convolve(self.expand_conv, x, stride=stride), self.expand_bn)
        for i, width in enumerate(self.filter_widths[1:]):
            if strided:
                residual = x[..., width // 2 :: width]
                x = _convolve(self.layers_conv[2 * i], x, stride=width)
            else:
                margin = dilation * (width // 2)
                residual = x[..., margin : x.shape[-1] - margin]
                x = _convolve(self.layers_conv[2 * i], x, dilation=dilation)
            x = self._finish(x, self.layers_bn[2 * i])
            x = residual + self._finish(self.layers_conv[2 * i + 1](x), self.layers_bn[2 * i + 1])
            dilation *= width
        return x

    def _finish(self, x: Tensor, norm: nn.Module) -> Tensor:
        return self.dropout(torch.relu(norm(x)))


def _convolve(layer: nn.Module, x: Tensor, *, stride: int = 1, dilation: int = 1) -> Tensor:
    assert isinstance(layer, nn.Conv1d)
    return nn.functional.conv1d(x, layer.weight, stride=stride, dilation=dilation)
