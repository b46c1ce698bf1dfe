"""Lifters: 2D key points of a sequence to 3D joints. `registry` builds them by name; one file a network."""

from __future__ import annotations

from importlib import import_module
from typing import Any

# Public names in the order a reader would use them, and the module of each, which is loaded when it is first used.
_HOMES = {
    "LIFTERS": "registry",
    "LifterEntry": "registry",
    "LifterSettings": "registry",
    "lifter_entry": "registry",
    "build_lifter": "registry",
    "VideoPose3D": "videopose",
    "MixSTE": "mixste",
    "KTPFormer": "ktpformer",
    "DSTformer": "motionbert",
    "MHFormer": "mhformer",
    "MotionAGFormer": "motionagformer",
    "Pruning": "hot",
    "Pruned": "hot",
    "FrameSelector": "hot",
    "TokenRecovery": "hot",
    "Diffusion": "diffusion",
    "load_published_lifter": "published",
}

__all__ = [*_HOMES]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}. Its public names: {', '.join(__all__)}.")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
