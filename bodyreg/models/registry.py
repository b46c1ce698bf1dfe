"""Networks by name: what can be built, with which settings, and where it was published."""

from __future__ import annotations

import copy
import difflib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn

__all__ = ["MODELS", "ModelEntry", "ModelSettings", "build", "default_settings"]


@dataclass
class ModelSettings:
    """Which network, and its free numbers."""

    name: str = "perspose_small"
    """Name in the registry."""
    widths: list[int] = field(default_factory=lambda: [48, 96, 192, 320])
    """Channels of the backbone's four stages (compact) or branches (HRNet)."""
    depths: list[int] = field(default_factory=lambda: [2, 2, 3, 2])
    """Residual blocks of the backbone's four stages (HRNet: of each branch in each module)."""
    modules: list[int] = field(default_factory=lambda: [1, 4, 3])
    """HRNet: modules of stages 2, 3 and 4."""
    head_widths: list[int] = field(default_factory=lambda: [32, 64, 128, 256])
    """HRNet: a quarter of the channels with which each branch joins the global vector."""
    vector_channels: int = 2048
    """HRNet: size of the global vector."""
    map_channels: int = 64
    """Channels of the stride-4 map."""
    crop_size: int = 192
    """Side of the crops the network is run on, pixels."""
    margin: float = 1.1
    """The crop shows this many times the person's box."""
    num_betas: int = 10
    """Shape components regressed."""
    perspective_encoding: bool = True
    """Tell the network the viewing ray of every cell; off only for ablation."""
    perspective_rotation: bool = True
    """Turn the camera onto the person before cropping; off only for ablation."""
    reference_pixels: bool = False
    """Cut crops as the published code does, half a pixel off; right for weights that were trained so."""


@dataclass(frozen=True)
class ModelEntry:
    """A network that can be built.

    Attributes:
        build: from settings to a module.
        kind: regressor (images to bodies) or lifter (2D to 3D joints).
        summary: one sentence. source: the paper.
        defaults: settings of the published or shipped member.
    """

    build: Callable[[ModelSettings], nn.Module]
    kind: str
    summary: str
    source: str
    defaults: ModelSettings


def _perspose_small(settings: ModelSettings) -> nn.Module:
    from bodyreg.models.compact import CompactBackbone
    from bodyreg.models.perspose import PersPose

    for name, value in (("widths", settings.widths), ("depths", settings.depths)):
        if len(value) != 4:
            raise ValueError(f"model.{name} has {len(value)} numbers. Give four, one a stage.")
    backbone = CompactBackbone(tuple(settings.widths), tuple(settings.depths), settings.map_channels)
    return PersPose(
        backbone,
        settings.num_betas,
        joint_pooling=True,
        dense=True,
        perspective_encoding=settings.perspective_encoding,
    )


def _perspose(settings: ModelSettings) -> nn.Module:
    from bodyreg.models.hrnet import HRNet
    from bodyreg.models.perspose import PersPose

    if len(settings.depths) != 4:
        raise ValueError(f"model.depths has {len(settings.depths)} numbers. Give four, one a stage.")
    backbone = HRNet(
        settings.widths,
        settings.modules,
        settings.depths[1:],
        settings.head_widths,
        settings.vector_channels,
        layer1_blocks=settings.depths[0],
    )
    return PersPose(backbone, settings.num_betas, perspective_encoding=settings.perspective_encoding)


MODELS: dict[str, ModelEntry] = {
    "perspose_small": ModelEntry(
        _perspose_small,
        "regressor",
        "PersPose's encoding, rotation and heads on a light residual backbone for CPUs; ships with weights.",
        "Hao and Li, PersPose, ICCV 2025 (heads); backbone of this package",
        ModelSettings(),
    ),
    "perspose": ModelEntry(
        _perspose,
        "regressor",
        "PersPose as published, on HRNet-W48: loads the authors' checkpoints and needs the SMPL body.",
        "Hao and Li, PersPose, ICCV 2025",
        ModelSettings(
            name="perspose",
            widths=[48, 96, 192, 384],
            depths=[4, 4, 4, 4],
            map_channels=48,
            crop_size=256,
            margin=1.2,
            num_betas=11,
            reference_pixels=True,
        ),
    ),
}


def build(settings: ModelSettings) -> nn.Module:
    """The network that `settings` name, freshly initialised.

    Raises:
        ValueError: an unknown name; the nearest known one is named.
    """
    return _entry(settings.name).build(settings)


def default_settings(name: str) -> ModelSettings:
    """A fresh copy of the settings a model was published or ships with.

    Raises:
        ValueError: an unknown name; the nearest known one is named.
    """
    return copy.deepcopy(_entry(name).defaults)


def _entry(name: str) -> ModelEntry:
    if name not in MODELS:
        near = difflib.get_close_matches(name, MODELS, n=1)
        hint = f"Did you mean {near[0]!r}? " if near else ""
        raise ValueError(f"There is no model named {name!r}. {hint}Known: {', '.join(MODELS)}.")
    return MODELS[name]
