"""Weights of the SPIN/HMR regressor as SPIN, EFT and DSR publish them, loaded strictly and without running code.

Three layouts circulate: SPIN's (flat names below `model`), Lightning's (below `state_dict`, with prefixes and SMPL's
arrays between), and EFT's (flat, at the top, without the mean parameters).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from bodyreg.files import load_checkpoint
from bodyreg.models.hmr import HMR, MeanParameters, mean_parameters
from bodyreg.models.published import refuse_misfit, state_dict_of
from bodyreg.models.registry import ModelSettings, build, default_settings
from bodyreg.models.weightless import weightless

__all__ = ["hmr_state", "holds_hmr", "load_published_hmr"]

_HEAD = ("fc1.", "fc2.", "decpose.", "decshape.", "deccam.", "init_")
# Buffers of the body, and what remains of classifiers: none of it is the regressor's.
_OTHERS = ("smpl", "J_regressor", "avgpool.", "fc.", "classifier.")
_STARTS = ("init_pose", "init_shape", "init_cam")


def holds_hmr(loaded: Any) -> bool:
    """Does what a checkpoint holds contain the regressor's head, in any of the three layouts?"""
    return any(
        isinstance(part, Mapping) and any(str(name).endswith("decpose.weight") for name in part)
        for part in (loaded, *(loaded.get(key) for key in ("model", "state_dict") if isinstance(loaded, Mapping)))
    )


def hmr_state(path: str | Path, start: MeanParameters | None = None) -> dict[str, Tensor]:
    """State dict of `HMR` in a published checkpoint.

    Args:
        path: of the authors' file, in any of the three layouts.
        start: mean parameters for a file without them; by default SPIN's, found by the search list.

    Raises:
        UnsafeFileError: the file holds more than tensors and plain values.
        ValueError: it holds no weights, or two of one name. MissingFileError: the means are needed and not found.
    """
    loaded = load_checkpoint(path)
    key = "state_dict" if isinstance(loaded, Mapping) and "state_dict" in loaded else "model"
    state: dict[str, Tensor] = {}
    for name, value in state_dict_of(loaded, path, key).items():
        plain = name.removeprefix("model.")
        if plain.startswith(_OTHERS):
            continue
        plain = plain.removeprefix("backbone.").removeprefix("head.")
        plain = ("head." if plain.startswith(_HEAD) else "backbone.") + plain
        if plain in state:
            raise ValueError(f"{path} holds {plain} twice. Pass the file that its authors publish.")
        state[plain] = value
    if not any(f"head.{name}" in state for name in _STARTS):
        means = mean_parameters() if start is None else start
        state.update({f"head.init_{name}": value[None].clone() for name, value in means._asdict().items()})
    return state


def load_published_hmr(
    path: str | Path, settings: ModelSettings | None = None, start: MeanParameters | None = None
) -> HMR:
    """The regressor of a published checkpoint, strictly loaded, in float32 and evaluation mode.

    Args:
        path: of the authors' file. settings: of the network, ResNet-50 by default. start: see `hmr_state`.

    Raises:
        UnsafeFileError: the file holds more than tensors and plain values.
        ValueError: names or shapes are not those of the network.
    """
    settings = default_settings("dsr") if settings is None else settings
    state = hmr_state(path, start)
    with weightless():
        model: Any = build(settings)
    refuse_misfit(model.state_dict(), state, f"{path} is no checkpoint of the SPIN/HMR regressor")
    state = {name: value.float() if value.is_floating_point() else value for name, value in state.items()}
    model.load_state_dict(state, strict=True, assign=True)
    return model.eval().requires_grad_(False)
