"""Training: `run.train` takes a configuration (`settings`) to weights; `regressor` is a step and a validation."""

from __future__ import annotations

from importlib import import_module
from typing import Any

# Public names in the order a reader would use them, and the module of each, which is loaded when it is first used.
_HOMES = {
    "train": "run",
    "RegressorSettings": "settings",
    "DataSettings": "settings",
    "LossWeights": "settings",
    "OptimiserSettings": "settings",
    "RunSettings": "settings",
    "RegressorModule": "regressor",
    "SyntheticData": "regressor",
    "regressor_losses": "regressor",
    "DSRSettings": "dsr",
    "JointSettings": "perspose_dsr",
    "joint_terms": "perspose_dsr",
}

__all__ = [*_HOMES]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}. Its public names: {', '.join(__all__)}.")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
