"""Networks by name: what can be built, with which settings, and where it was published."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn

__all__ = ["MODELS", "ModelEntry", "ModelSettings", "build"]


@dataclass
class ModelSettings:
    """Which network, and its free numbers."""

    name: str = "perspose_small"
    """Name in the registry."""
    widths: list[int] = field(default_factory=lambda: [48, 96, 192, 320])
    """Channels of the compact backbone's four stages."""
    depths: list[int] = field(default_factory=lambda: [2, 2, 3, 2])
    """Residual blocks of the compact backbone's four stages."""
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


@dataclass(frozen=True)
class ModelEntry:
    """A network that can be built.

    Attributes:
        build: from settings to a module.
        kind: regressor (images to bodies) or lifter (2D to 3D joints).
        summary: one sentence. source: the paper.
    """

    build: Callable[[ModelSettings], nn.Module]
    kind: str
    summary: str
    source: str


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


MODELS: dict[str, ModelEntry] = {
    "perspose_small": ModelEntry(
        _perspose_small,
        "regressor",
        "PersPose's encoding, rotation and heads on a light residual backbone for CPUs; ships with weights.",
        "Hao and Li, PersPose, ICCV 2025 (heads); backbone of this package",
    ),
}


def build(settings: ModelSettings) -> nn.Module:
    """The network that `settings` name, freshly initialised.

    Raises:
        ValueError: an unknown name; the nearest known one is named.
    """
    if settings.name not in MODELS:
        near = difflib.get_close_matches(settings.name, MODELS, n=1)
        hint = f"Did you mean {near[0]!r}? " if near else ""
        raise ValueError(f"There is no model named {settings.name!r}. {hint}Known: {', '.join(MODELS)}.")
    return MODELS[settings.name].build(settings)
