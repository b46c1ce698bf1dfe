"""Registry entries of the lifters that see one frame: those that UAO refines and PoseDA adapts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from bodyreg import skeletons
from bodyreg.models.lifters.record import Figure, LifterEntry, LifterSettings

if TYPE_CHECKING:
    from torch import nn

__all__ = ["ENTRIES"]

_POSEDA = "Chai et al., Global Adaptation meets Local Generalization (PoseDA), ICCV 2023, its README"


def _gumlp(settings: LifterSettings, options: Mapping[str, Any]) -> nn.Module:
    from bodyreg.models.lifters.gumlp import GUMLP

    return GUMLP(**options)


def _simple_baseline(settings: LifterSettings, options: Mapping[str, Any]) -> nn.Module:
    from bodyreg.models.lifters.simple_baseline import SimpleBaseline

    return SimpleBaseline(len(skeletons.get(settings.joint_set)), **options)


def _semgcn(settings: LifterSettings, options: Mapping[str, Any]) -> nn.Module:
    from bodyreg.models.lifters.semgcn import SemGCN

    return SemGCN(skeletons.get(settings.joint_set).parents, **options)


def _stgcn(settings: LifterSettings, options: Mapping[str, Any]) -> nn.Module:
    from bodyreg.models.lifters.stgcn import STGCN

    return STGCN(**options)


def _one_frame(options: Mapping[str, Any]) -> int:
    return 1


def _shift(source_only: float, adapted: float) -> tuple[Figure, ...]:
    """Human3.6M to MPI-INF-3DHP, ground-truth 2D."""
    return (
        Figure("Human3.6M to MPI-INF-3DHP, source only", {"MPJPE": source_only}, _POSEDA),
        Figure("Human3.6M to MPI-INF-3DHP, with global alignment", {"MPJPE": adapted}, _POSEDA),
    )


ENTRIES: tuple[LifterEntry, ...] = (
    LifterEntry(
        name="gumlp",
        builder=_gumlp,
        presets={
            "3": {"layers": 3, "channels": 512},
            "1": {"layers": 1},
            "5": {"layers": 5},
            "small": {"channels": 128},
        },
        output="sequence",
        summary="Graph convolutions and U-shaped perceptrons with an uncertainty a joint: what UAO optimises under.",
        source="Wang et al., Uncertainty-Aware Testing-Time Optimization for 3D Human Pose Estimation, IEEE TMM 2025",
        receptive_field=_one_frame,
        dense=True,
        figures=(
            Figure("Human3.6M, CPN, one frame", {"MPJPE": 49.4}, "its README"),
            Figure("Human3.6M, CPN, one frame, UAO with the true root", {"MPJPE": 46.7}, "its README"),
        ),
    ),
    LifterEntry(
        name="simple_baseline",
        builder=_simple_baseline,
        presets={"published": {"width": 1024, "stages": 2, "dropout": 0.25}, "small": {"width": 256}},
        output="sequence",
        summary="Residual linear layers on one frame, the root at zero, as PoseDA adapts it.",
        source="Martinez et al., A simple yet effective baseline for 3D human pose estimation, ICCV 2017",
        receptive_field=_one_frame,
        dense=True,
        figures=_shift(81.23, 69.19),
    ),
    LifterEntry(
        name="semgcn",
        builder=_semgcn,
        presets={"published": {"width": 128, "layers": 4}},
        output="sequence",
        summary="Graph convolutions with a learned weight for every edge, on one frame, as PoseDA adapts it.",
        source="Zhao et al., Semantic Graph Convolutional Networks for 3D Human Pose Regression, CVPR 2019",
        receptive_field=_one_frame,
        dense=True,
        figures=_shift(95.96, 86.56),
    ),
    LifterEntry(
        name="stgcn",
        builder=_stgcn,
        presets={"published": {"widths": [128, 128, 256], "width": 512, "dropout": 0.25}},
        output="sequence",
        joint_set="h36m-16",
        summary="Graph convolutions over joints and body parts, on one frame of h36m-16, as PoseDA adapts it.",
        source="Cai et al., Exploiting Spatial-temporal Relationships for 3D Pose Estimation, ICCV 2019",
        receptive_field=_one_frame,
        dense=True,
        figures=_shift(81.19, 74.41),
    ),
)
