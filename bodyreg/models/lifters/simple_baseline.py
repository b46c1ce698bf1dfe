"""The plain perceptron that started the field (Martinez et al., ICCV 2017), in the form PoseDA adapts it."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bodyreg.models.lifters.layers import check_clip

__all__ = ["LinearStack", "SimpleBaseline"]


class _Stage(nn.Module):
    """Twice a linear map, batch normalisation, activation and dropout."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.w1 = nn.Linear(width, width)
        self.batch_norm1 = nn.BatchNorm1d(width)
        self.w2 = nn.Linear(width, width)
        self.batch_norm2 = nn.BatchNorm1d(width)

    def forward(self, x: Tensor, finish: Callable[[Tensor], Tensor]) -> Tensor:
        x = finish(self.batch_norm1(self.w1(x)))
        return finish(self.batch_norm2(self.w2(x)))


class LinearStack(nn.Module):
    """Linear maps with batch normalisation: one in, stages of two, one out.

    Modules stand under names with a suffix, so that one module can hold several stacks under published keys.

    Args:
        dropout: after each activation. slope: of the leaky ReLU; 0 is a plain one. residual: skips over each stage.
    """

    def __init__(self, dropout: float = 0.0, slope: float = 0.0, residual: bool = False) -> None:
        super().__init__()
        self.drop, self.slope, self.skips = nn.Dropout(dropout), slope, residual

    def add_stack(self, width_in: int, width_out: int, width: int, stages: int, suffix: str = "") -> None:
        """Build a stack (…, width_in) -> (…, width_out) with weights as He et al. (ICCV 2015) start them."""
        first = "batch_norm" + (suffix or "1")
        self.add_module("w1" + suffix, nn.Linear(width_in, width))
        self.add_module(first, nn.BatchNorm1d(width))
        self.add_module("linear_stages" + suffix, nn.ModuleList(_Stage(width) for _ in range(stages)))
        self.add_module("w2" + suffix, nn.Linear(width, width_out))
        for name, parameter in self.named_parameters():
            if parameter.ndim == 2 and name.split(".")[0].endswith(suffix):
                nn.init.kaiming_normal_(parameter)

    def run_stack(self, x: Tensor, suffix: str = "") -> Tensor:
        """(N, width_in) to (N, width_out)."""
        x = self._finish(self.get_submodule("batch_norm" + (suffix or "1"))(self.get_submodule("w1" + suffix)(x)))
        for stage in self.get_submodule("linear_stages" + suffix).children():
            y = stage(x, self._finish)
            x = x + y if self.skips else y
        return self.get_submodule("w2" + suffix)(x)

    def _finish(self, x: Tensor) -> Tensor:
        return self.drop(F.leaky_relu(x, self.slope))


class SimpleBaseline(LinearStack):
    """2D joints of single frames to 3D joints, the root at zero.

    Args:
        joints: J. width: of the layers. stages: residual stages. dropout: after each layer.
    """

    def __init__(self, joints: int = 16, width: int = 1024, stages: int = 2, dropout: float = 0.25) -> None:
        super().__init__(dropout, residual=True)
        self.joints = joints
        self.add_stack(2 * joints, 3 * (joints - 1), width, stages)

    def forward(self, keypoints: Tensor) -> Tensor:
        """(B, T, J, 2) normalised screen coordinates to (B, T, J, 3) root-relative joints, metres; frames alone."""
        check_clip(keypoints, keypoints.shape[1] if keypoints.ndim > 1 else 1, self.joints, 2, "SimpleBaseline")
        joints = self.run_stack(keypoints.flatten(0, 1).flatten(1)).unflatten(-1, (self.joints - 1, 3))
        return torch.cat([torch.zeros_like(joints[:, :1]), joints], 1).unflatten(0, keypoints.shape[:2])
