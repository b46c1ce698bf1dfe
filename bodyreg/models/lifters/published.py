"""Lifters' weights as their authors publish them, loaded strictly and without running code.

Weights lie under `model_pos` (KTPFormer, MixSTE, MotionBERT), `model` (MotionAGFormer), or are the whole file (HoT,
MHFormer); names may begin with `module.`, as parallel training writes them. A training run's random state beside them
becomes an inert object. The skeletons and the lengths of clips are no part of the weights: they come from the settings.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor

from bodyreg.files import load_checkpoint
from bodyreg.models.lifters.registry import LifterSettings, build_lifter
from bodyreg.models.published import refuse_misfit, state_dict_of
from bodyreg.models.weightless import weightless

if TYPE_CHECKING:
    from torch import nn

__all__ = ["lifter_state", "load_published_lifter"]

_PLACES = ("model_pos", "model", "state_dict")


def lifter_state(path: str | Path) -> dict[str, Tensor]:
    """State dict of the lifter in a published checkpoint, without the prefix of parallel training.

    Raises:
        UnsafeFileError: the file holds more than tensors, plain values and a random state.
        ValueError: it holds no weights.
    """
    loaded = load_checkpoint(path)
    key = next((key for key in _PLACES if isinstance(loaded, Mapping) and key in loaded), _PLACES[0])
    return state_dict_of(loaded, path, key)


def load_published_lifter(path: str | Path, settings: LifterSettings) -> nn.Module:
    """A lifter holding all tensors of a published checkpoint and nothing else, in float32 and evaluation mode.

    Args:
        path: of the authors' file. settings: which lifter, its clip length and its skeleton.

    Raises:
        UnsafeFileError: the file holds more than tensors, plain values and a random state.
        ValueError: names or shapes are not those of the lifter.
    """
    state = lifter_state(path)
    with weightless():
        model = build_lifter(settings)
    refuse_misfit(model.state_dict(), state, f"{path} does not fit the lifter {settings.name!r}")
    state = {name: value.float() if value.is_floating_point() else value for name, value in state.items()}
    model.load_state_dict(state, strict=True, assign=True)
    return model.eval().requires_grad_(False)
