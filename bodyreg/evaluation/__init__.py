"""Evaluation: metrics, protocols and the tables made of them.

`metrics` stands on torch alone; `protocols` names what a number means; `evaluate` scores any source of people under any
protocol, `command` and `lifters` do so from files; `synthetic` scores regressors on synthetic people and on crops with
landmarks.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

# Public names in the order a reader would use them, and the module of each, which is loaded when it is first used.
_HOMES = {
    "Score": "synthetic",
    "evaluate_synthetic": "synthetic",
    "evaluate_landmarks": "synthetic",
    "mean_vertices": "synthetic",
    "table": "synthetic",
    "markdown_table": "synthetic",
    "write_scores": "synthetic",
    "PROTOCOLS": "protocols",
    "Protocol": "protocols",
    "Result": "evaluate",
    "read_predictions": "predictions",
    "score_files": "command",
    "score_regressor": "command",
    "score_lifter_set": "lifters",
    "mpjpe": "metrics",
    "pa_mpjpe": "metrics",
    "pve": "metrics",
    "align": "metrics",
    "point_errors": "metrics",
    "root_relative": "metrics",
}

__all__ = [*_HOMES]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}. Its public names: {', '.join(__all__)}.")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
