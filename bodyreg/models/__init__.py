"""Networks: `registry` builds them by name, `perspose` is the family, `compact` and `hrnet` are its backbones,
`decoding` turns what the heads say into joints in metres, `published` reads the authors' weights.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

# Public names in the order a reader would use them, and the module of each, which is loaded when it is first used.
_HOMES = {
    "MODELS": "registry",
    "ModelSettings": "registry",
    "build": "registry",
    "default_settings": "registry",
    "PersPose": "perspose",
    "RawOutputs": "perspose",
    "normalise_image": "perspose",
    "Decoded": "decoding",
    "Readout": "decoding",
    "CompactBackbone": "compact",
    "HRNet": "hrnet",
    "HMR": "hmr",
    "MobileNetV2": "mobilenet",
    "ResNet": "resnet",
}

__all__ = [*_HOMES]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}. Its public names: {', '.join(__all__)}.")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
