"""Registry entries of the convolutional and graph lifters."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from bodyreg import skeletons
from bodyreg.models.lifters.record import Figure, LifterEntry, LifterSettings, product_of_widths

if TYPE_CHECKING:
    from torch import nn

__all__ = ["ENTRIES"]


def _videopose3d(settings: LifterSettings, options: Mapping[str, Any]) -> nn.Module:
    from bodyreg.models.lifters.videopose import VideoPose3D

    joints_in, joints_out = (len(skeletons.get(name)) for name in (settings.input_set, settings.joint_set))
    return VideoPose3D(joints_in, joints_out, **options)


ENTRIES: tuple[LifterEntry, ...] = (
    LifterEntry(
        name="videopose3d",
        builder=_videopose3d,
        presets={
            "243": {"filter_widths": [3, 3, 3, 3, 3], "channels": 1024, "dropout": 0.25},
            "81": {"filter_widths": [3, 3, 3, 3]},
            "27": {"filter_widths": [3, 3, 3]},
            "1": {"filter_widths": [1, 1, 1, 1, 1]},
            "small": {"filter_widths": [3, 3, 3], "channels": 128, "dropout": 0.1},
        },
        output="centre",
        summary="Dilated temporal convolutions: the plain baseline of all lifters.",
        source="Pavllo et al., 3D human pose estimation in video with temporal convolutions, CVPR 2019",
        receptive_field=product_of_widths,
        any_length=True,
        figures=(
            Figure("Human3.6M, CPN, 243 frames", {"MPJPE": 46.8}, "its README"),
            Figure("HumanEva, three actions", {"P-MPJPE": 33.0}, "its README"),
        ),
    ),
)
