"""The SPIN/HMR regressor: a residual network and a head that corrects pose, shape and camera three times.

"End-to-end Recovery of Human Shape and Pose" (Kanazawa et al., CVPR 2018) with the 6D rotations of SPIN (Kolotouros et
al., ICCV 2019); the network of DSR (Dwivedi et al., ICCV 2021). Its camera is weak: s, t_x, t_y on a crop of 224 pixels
seen at a focal length of 5,000 pixels.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from bodyreg.files import find_licensed, safe_load_npz
from bodyreg.models.mobilenet import MOBILENETS, MobileNetV2
from bodyreg.models.resnet import RESNETS, ResNet
from bodyreg.rotations import matrix_from_6d

__all__ = ["BACKBONES", "CROP_PX", "FOCAL_PX", "HMR", "HMRHead", "HMROutput", "MeanParameters", "mean_parameters"]

FOCAL_PX = 5000.0
"""Focal length of the camera of a crop `CROP_PX` wide, pixels; a constant of the method, not the photograph's."""
CROP_PX = 224
"""Side of the crops, pixels."""
BACKBONES = (*RESNETS, *MOBILENETS)
"""Names of the networks that may stand before the head."""
_POSE, _SHAPE, _CAM = 144, 10, 3


class HMROutput(NamedTuple):
    """R_local (B, 24, 3, 3) rotations relative to the parent, the global orientation first; betas (B, 10); weak (B, 3)
    camera s, t_x, t_y: a point (x, y) of the body lies at s (x + t_x, y + t_y) of the crop, which spans [-1, 1]."""

    R_local: Tensor
    betas: Tensor
    weak: Tensor


class MeanParameters(NamedTuple):
    """Where the head starts: pose (144,) 6D, shape (10,), cam (3,)."""

    pose: Tensor
    shape: Tensor
    cam: Tensor

    @classmethod
    def neutral(cls) -> MeanParameters:
        """The rest pose upright before a camera (y down), mean shape, nine tenths of the crop: for the free body."""
        R = torch.eye(3).repeat(24, 1, 1)
        R[0] = torch.diag(torch.tensor([1.0, -1.0, -1.0]))
        return cls(R[..., :2].reshape(_POSE), torch.zeros(_SHAPE), torch.tensor([0.9, 0.0, 0.0]))


def find_mean_parameters(given: str | Path | None = None) -> Path:
    """SPIN's smpl_mean_params.npz; raises MissingFileError where it is nowhere."""
    return find_licensed(
        ("smpl_mean_params.npz",), given, what="SPIN's mean parameters", subfolders=("", "smpl", "spin"),
        register="https://smpl.is.tue.mpg.de",
    )  # fmt: skip


def mean_parameters(given: str | Path | None = None) -> MeanParameters:
    """The mean pose, shape and camera that SPIN distributes (smpl_mean_params.npz), found by the search list.

    Raises:
        MissingFileError: it is nowhere. ValueError: a file of other arrays.
    """
    path = find_mean_parameters(given)
    arrays = safe_load_npz(path)
    sizes = {"pose": _POSE, "shape": _SHAPE, "cam": _CAM}
    wrong = [n for n, size in sizes.items() if n not in arrays or arrays[n].size != size or arrays[n].dtype.kind != "f"]
    if wrong or not all(np.isfinite(arrays[name]).all() for name in sizes):
        raise ValueError(
            f"{path} does not hold finite pose (144), shape (10) and cam (3); wrong: {', '.join(wrong) or 'NaN'}. Pass "
            "SPIN's smpl_mean_params.npz."
        )
    return MeanParameters(*(torch.from_numpy(arrays[name].reshape(-1).astype(np.float32)) for name in sizes))


class HMRHead(nn.Module):
    """Iterative error feedback: features and the present estimate to a correction of it, three times.

    Args:
        channels: of the features. start: where to begin, by default `MeanParameters.neutral`.
        size: cells of the feature map's side that are pooled.
    """

    init_pose: Tensor
    init_shape: Tensor
    init_cam: Tensor

    def __init__(self, channels: int, start: MeanParameters | None = None, *, size: int = CROP_PX // 32) -> None:
        super().__init__()
        self.avgpool = nn.AvgPool2d(size, stride=1)
        self.fc1 = nn.Linear(channels + _POSE + _SHAPE + _CAM, 1024)
        self.drop1 = nn.Dropout()
        self.fc2 = nn.Linear(1024, 1024)
        self.drop2 = nn.Dropout()
        self.decpose = nn.Linear(1024, _POSE)
        self.decshape = nn.Linear(1024, _SHAPE)
        self.deccam = nn.Linear(1024, _CAM)
        for layer in (self.decpose, self.decshape, self.deccam):
            nn.init.xavier_uniform_(layer.weight, gain=0.01)
        for name, value in (start or MeanParameters.neutral())._asdict().items():
            self.register_buffer(f"init_{name}", value[None].clone())

    def start_from(self, start: MeanParameters) -> None:
        """Begin at these means from now on."""
        for name, value in start._asdict().items():
            getattr(self, f"init_{name}").copy_(value[None])

    def forward(
        self, features: Tensor, start: tuple[Tensor, Tensor, Tensor] | None = None, iterations: int = 3
    ) -> HMROutput:
        """(B, C, 7, 7) features to parameters.

        Args:
            start: pose (B, 144), shape (B, 10) and cam (B, 3) to begin with instead of the means.
        """
        x = self.avgpool(features).flatten(1)
        batch = len(x)
        if start is None:
            start = tuple(v.expand(batch, -1) for v in (self.init_pose, self.init_shape, self.init_cam))  # type: ignore[assignment]
        pose, shape, cam = start  # type: ignore[misc]
        for _ in range(iterations):
            # No activation between the two layers: the published head has none.
            h = self.drop2(self.fc2(self.drop1(self.fc1(torch.cat([x, pose, shape, cam], 1)))))
            pose, shape, cam = pose + self.decpose(h), shape + self.decshape(h), cam + self.deccam(h)
        pose, shape, cam = (v if v.dtype == torch.float64 else v.float() for v in (pose, shape, cam))
        return HMROutput(matrix_from_6d(pose.view(batch, 24, 6)), shape, cam)


def hmr_backbone(name: str) -> ResNet | MobileNetV2:
    """A network of features at stride 32 with the attribute `channels`.

    Raises:
        ValueError: a name that is not among `BACKBONES`.
    """
    if name not in BACKBONES:
        raise ValueError(f"There is no backbone {name!r}. Choose one of {', '.join(BACKBONES)}.")
    return MobileNetV2() if name in MOBILENETS else ResNet(name)


class HMR(nn.Module):
    """Crop to SMPL pose, shape and weak-perspective camera.

    Args:
        backbone: one of `BACKBONES`. start: where the head begins.
    """

    def __init__(self, backbone: str = "resnet50", start: MeanParameters | None = None) -> None:
        super().__init__()
        self.backbone: ResNet | MobileNetV2 = hmr_backbone(backbone)
        self.head = HMRHead(self.backbone.channels, start)

    def forward(self, image: Tensor) -> HMROutput:
        """(B, 3, 224, 224) RGB, normalised as `normalise_image` does."""
        return self.head(self.backbone(image))
