"""Networks by name: what can be built, with which settings, and where it was published."""

from __future__ import annotations

import copy
import difflib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from bodyreg.models.lifters.registry import LIFTERS, LifterEntry, LifterSettings

if TYPE_CHECKING:
    from torch import nn

__all__ = ["MODELS", "LifterSettings", "ModelEntry", "ModelSettings", "build", "default_settings"]


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
    backbone: str = "resnet50"
    """HMR: the network before the head, one of `bodyreg.models.hmr.BACKBONES`."""


@dataclass(frozen=True)
class ModelEntry:
    """A network that can be built.

    Attributes:
        build: from settings to a module.
        kind: regressor (images to bodies), detector (images to boxes) or lifter (2D to 3D joints).
        summary: one sentence. source: the paper.
        defaults: settings of the published or shipped member.
    """

    build: Callable[[Any], nn.Module]
    kind: str
    summary: str
    source: str
    defaults: ModelSettings | LifterSettings


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


def _dsr(settings: ModelSettings) -> nn.Module:
    from bodyreg.models.hmr import CROP_PX, HMR

    if settings.crop_size != CROP_PX or settings.num_betas != 10:
        raise ValueError(
            f"model.crop_size is {settings.crop_size} and model.num_betas {settings.num_betas}. This network takes "
            f"crops of {CROP_PX} pixels and gives 10 betas."
        )
    return HMR(settings.backbone)


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

MODELS["dsr"] = ModelEntry(
    _dsr,
    "regressor",
    "DSR's SPIN/HMR regressor on ResNet-50: loads SPIN's, EFT's and DSR's checkpoints and needs the SMPL body.",
    "Dwivedi et al., DSR, ICCV 2021 (training); Kolotouros et al., SPIN, ICCV 2019 (network)",
    ModelSettings(
        name="dsr",
        crop_size=224,
        margin=1.2,
        perspective_encoding=False,
        perspective_rotation=False,
        reference_pixels=True,
    ),
)


def _person_detector(settings: ModelSettings) -> nn.Module:
    from bodyreg.models.detector import PersonDetector

    for name, value in (("widths", settings.widths), ("depths", settings.depths)):
        if len(value) != 4:
            raise ValueError(f"model.{name} has {len(value)} numbers. Give four, one a stage.")
    return PersonDetector(settings.widths, settings.depths, settings.map_channels)


MODELS["person_detector"] = ModelEntry(
    _person_detector,
    "detector",
    "Finds the people in a photograph before a regressor poses them.",
    "Zhou et al., Objects as Points, 2019 (heads); backbone of this package",
    ModelSettings(
        name="person_detector", crop_size=512, perspective_encoding=False, perspective_rotation=False
    ),
)


def _lifter_defaults(name: str, lifter: LifterEntry) -> LifterSettings:
    return LifterSettings(name, input_set=lifter.joint_set, joint_set=lifter.joint_set)


# Lifters keep a registry of their own, with presets and clips; here they are found among all others.
MODELS.update(
    (name, ModelEntry(lifter.build, "lifter", lifter.summary, lifter.source, _lifter_defaults(name, lifter)))
    for name, lifter in LIFTERS.items()
)


def build(settings: ModelSettings | LifterSettings) -> nn.Module:
    """The network that `settings` name, freshly initialised.

    Raises:
        ValueError: an unknown name; the nearest known one is named.
    """
    return _entry(settings.name).build(settings)


def default_settings(name: str) -> ModelSettings:
    """A fresh copy of the settings a network of pictures was published or ships with.

    Raises:
        ValueError: an unknown name (the nearest known one is named), or a lifter's.
    """
    defaults = _entry(name).defaults
    if not isinstance(defaults, ModelSettings):
        raise ValueError(f"{name} is a lifter: it takes key points, not pictures. Use `LifterSettings` or `lift`.")
    return copy.deepcopy(defaults)


def _entry(name: str) -> ModelEntry:
    if name not in MODELS:
        near = difflib.get_close_matches(name, MODELS, n=1)
        hint = f"Did you mean {near[0]!r}? " if near else ""
        raise ValueError(f"There is no model named {name!r}. {hint}Known: {', '.join(MODELS)}.")
    return MODELS[name]
