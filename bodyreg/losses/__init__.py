"""Losses, one subject a file: joints in the picture, what becomes a body, dense maps, PersPose, SPIN and DSR as
published.

Each is a function of predictions and truth to a scalar; how they are weighted is the configuration's business.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

# Public names in the order a reader would use them, and the module of each, which is loaded when it is first used.
_HOMES = {
    "heatmap_cross_entropy": "keypoints",
    "uv_distance": "keypoints",
    "masked_mean": "keypoints",
    "depth_distance": "smpl",
    "density_distance": "smpl",
    "twist_distance": "smpl",
    "leaf_distance": "smpl",
    "dense_loss": "dense",
    "hmr_losses": "hmr",
    "dsr_losses": "semantic",
    "ndc_vertices": "semantic",
    "SemanticOptions": "semantic",
    "PRESETS": "semantic",
    "semantic_targets": "semantic_targets",
}

__all__ = [*_HOMES]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}. Its public names: {', '.join(__all__)}.")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
