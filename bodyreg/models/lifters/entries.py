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


def _gla_gcn(settings: LifterSettings, options: Mapping[str, Any]) -> nn.Module:
    from bodyreg.models.lifters.gla_gcn import GLAGCN

    return GLAGCN(**options)


def _gla_gcn_paper(settings: LifterSettings, options: Mapping[str, Any]) -> nn.Module:
    from bodyreg.models.lifters.gla_gcn import GLAGCNPaper

    return GLAGCNPaper(**options)


def _convformer(settings: LifterSettings, options: Mapping[str, Any]) -> nn.Module:
    from bodyreg.models.lifters.convformer import ConvFormer

    return ConvFormer(joints=len(skeletons.get(settings.input_set)), **options)


_CONVFORMER = "Diaz-Arias and Shin, ConvFormer, The Visual Computer 40(4), 2024"

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
        dense=True,
        figures=(
            Figure("Human3.6M, CPN, 243 frames", {"MPJPE": 46.8}, "its README"),
            Figure("HumanEva, three actions", {"P-MPJPE": 33.0}, "its README"),
        ),
    ),
    LifterEntry(
        name="gla_gcn",
        builder=_gla_gcn,
        presets={
            "243": {"filter_widths": [3, 3, 3, 3, 3], "channels": 96, "dropout": 0.1, "graph": "h36m"},
            "81": {"filter_widths": [3, 3, 3, 3]},
            "27": {"filter_widths": [3, 3, 3]},
            "humaneva": {"filter_widths": [3, 3, 3], "graph": "humaneva15"},
            "humaneva_mrcnn": {"filter_widths": [3, 3, 3], "graph": "humaneva_mrcnn"},
            "3dhp": {"filter_widths": [3, 3, 3, 3], "channels": 256, "graph": "3dhp"},
        },
        output="centre",
        summary="Adaptive graph convolutions with strided residuals, as released.",
        source="Yu et al., GLA-GCN: Global-local Adaptive Graph Convolutional Network, ICCV 2023",
        receptive_field=product_of_widths,
        figures=(
            Figure(
                "Human3.6M, CPN, 243 frames",
                {"MPJPE": 44.4, "P-MPJPE": 34.8},
                "a later paper's comparison; the released code belongs to an earlier submission",
            ),
            Figure("Human3.6M, ground truth 2D, 243 frames", {"MPJPE": 21.0}, "a later paper's comparison"),
        ),
    ),
    LifterEntry(
        name="gla_gcn_paper",
        builder=_gla_gcn_paper,
        presets={
            "81": {
                "filter_widths": [3, 3, 3, 3],
                "channels": 96,
                "dropout": 0.1,
                "graph": "h36m",
                "blocks": 3,
                "connected": "mix",
                "mix": 0.5,
            },
            "243": {"filter_widths": [3, 3, 3, 3, 3]},
            "27": {"filter_widths": [3, 3, 3]},
            "3dhp": {"channels": 256, "graph": "3dhp"},
        },
        output="centre",
        summary="GLA-GCN as its paper describes it, with a global loss: a reconstruction without published numbers.",
        source="Yu et al., GLA-GCN: Global-local Adaptive Graph Convolutional Network, ICCV 2023",
        receptive_field=product_of_widths,
    ),
    LifterEntry(
        name="convformer",
        builder=_convformer,
        presets={
            "243": {
                "frames": 243,
                "embed": 32,
                "spatial_blocks": 2,
                "temporal_blocks": 2,
                "heads": 8,
                "kernels": [7, 7, 7],
                "mlp_ratio": 2.0,
                "drop_path": 0.2,
                "aggregation_dropout": 0.2,
            },
            "143": {"frames": 143},
            "81": {"frames": 81},
            "27": {"frames": 27},
            "9": {"frames": 9},
            "small": {"frames": 9, "embed": 16, "heads": 4, "kernels": [3, 3, 3]},
        },
        output="centre",
        summary="Attention whose queries, keys and values are learned mixtures of convolutions; a reconstruction.",
        source=_CONVFORMER,
        figures=(
            Figure("Human3.6M, CPN, 243 frames", {"MPJPE": 43.2, "P-MPJPE": 34.2}, _CONVFORMER),
            Figure("Human3.6M, CPN, 143 frames", {"MPJPE": 43.7, "P-MPJPE": 34.5, "MPJVE": 2.1}, _CONVFORMER),
            Figure("Human3.6M, CPN, 81 frames", {"MPJPE": 45.0}, _CONVFORMER),
            Figure("Human3.6M, CPN, 27 frames", {"MPJPE": 47.7}, _CONVFORMER),
            Figure("Human3.6M, CPN, 9 frames", {"MPJPE": 49.4}, _CONVFORMER),
            Figure("Human3.6M, ground truth 2D, 243 frames", {"MPJPE": 29.8}, _CONVFORMER),
        ),
    ),
)
