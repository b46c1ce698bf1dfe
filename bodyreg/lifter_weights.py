"""Weights of lifters on disk: safetensors with the settings inside, no code; and those that ship."""

from __future__ import annotations

import json
from dataclasses import asdict, fields
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from bodyreg.files import atomic_write, sha256_file
from bodyreg.models.lifters.published import load_published_lifter
from bodyreg.models.lifters.registry import LifterSettings, build_lifter, lifter_entry
from bodyreg.models.published import refuse_misfit
from bodyreg.models.weightless import weightless

if TYPE_CHECKING:
    from torch import nn

__all__ = ["DEFAULT_LIFTER", "LoadedLifter", "default_lifter", "load_lifter", "named_settings", "save_lifter"]

DEFAULT_LIFTER = "videopose3d"
"""The lifter that ships with weights."""
_FORMAT = "bodyreg-lifter-1"
_FOREIGN = (".pth", ".pt", ".tar", ".ckpt", ".bin", ".tr")


class LoadedLifter(NamedTuple):
    """A lifter ready to run, what it is, the hash of its file, and the facts it was saved with."""

    network: nn.Module
    settings: LifterSettings
    weights_hash: str
    facts: dict[str, str]


def save_lifter(
    path: str | Path, network: nn.Module, settings: LifterSettings, *, half: bool = False, **facts: str | int | float
) -> None:
    """Write a lifter's weights and settings.

    Args:
        path: of the safetensors file. network: as `build_lifter` made it. settings: it was built from.
        half: store numbers in half precision, for files that travel. facts: further plain values for the header.

    Raises:
        ValueError: weights that are not finite in the precision they are stored in.
    """
    tensors = {}
    for name, value in network.state_dict().items():
        value = value.half() if half and value.is_floating_point() else value
        if not value.isfinite().all():
            raise ValueError(
                f"The weights {name!r} are not finite. The training has diverged: lower optimiser.lr and go on from an "
                "earlier checkpoint."
            )
        tensors[name] = value.detach().cpu().contiguous().clone()
    header = {**{name: str(value) for name, value in facts.items()}, "format": _FORMAT,
              "settings": json.dumps(asdict(settings))}  # fmt: skip
    with atomic_write(path) as temporary:
        save_file(tensors, str(temporary), metadata=header)


def load_lifter(weights: str | Path, settings: LifterSettings | None = None) -> LoadedLifter:
    """Build the lifter that a weights file describes and load it strictly, in float32 and evaluation mode.

    Args:
        weights: safetensors file of ours, or a checkpoint as a lifter's authors publish it.
        settings: of a published checkpoint, which says nothing of itself; a file of ours needs none.

    Raises:
        UnsafeFileError: a checkpoint that holds more than tensors, plain values and a random state.
        ValueError: no such file, a damaged one, or one that does not fit its settings.
    """
    path = Path(weights)
    if not path.is_file():
        raise ValueError(f"There is no weights file {path}. Check the path given as --weights.")
    if path.suffix.lower() in _FOREIGN:
        if settings is None:
            raise ValueError(
                f"{path} does not say which lifter it is of. Name it, with its preset: --model NAME:PRESET."
            )
        return LoadedLifter(load_published_lifter(path, settings), settings, sha256_file(path), {})
    header, state = _read(path)
    found = _settings(header.get("settings", ""), path)
    try:
        with weightless():  # how large it gets is bounded by the file, not by what the file says
            network = build_lifter(found)
    except (RuntimeError, TypeError, IndexError, ZeroDivisionError) as error:
        raise ValueError(f"{path} describes no lifter that can be built ({error}). Pass other weights.") from None
    refuse_misfit(network.state_dict(), state, f"{path} does not fit the lifter {found.name!r}")
    state = {name: value.float() if value.is_floating_point() else value for name, value in state.items()}
    if broken := [name for name, value in state.items() if not value.isfinite().all()]:
        raise ValueError(f"{path} holds numbers that are not finite in {broken[:5]}. Fetch or train the weights again.")
    network.load_state_dict(state, strict=True, assign=True)
    facts = {name: value for name, value in header.items() if name not in ("format", "settings")}
    return LoadedLifter(network.eval().requires_grad_(False), found, sha256_file(path), facts)


def default_lifter(name: str = DEFAULT_LIFTER) -> Path:
    """The weights that ship for a lifter.

    Raises:
        ValueError: an unknown lifter, or none ship for it.
    """
    lifter_entry(name)
    path = Path(__file__).parent / "assets" / "weights" / f"{name}_small.safetensors"
    if not path.exists():
        raise ValueError(f"No weights ship for the lifter {name!r}. Pass --weights FILE, or train it first.")
    return path


def named_settings(model: str, input_set: str = "", joint_set: str = "") -> LifterSettings:
    """Settings from a name such as "mixste" or "mixste:81", for the lifter's own joint sets if none are named.

    Raises:
        ValueError: an unknown lifter or preset.
    """
    name, _, preset = model.partition(":")
    entry = lifter_entry(name)
    settings = LifterSettings(name, preset, input_set or entry.joint_set, joint_set or entry.joint_set)
    entry.options(settings)
    return settings


def _read(path: Path) -> tuple[dict[str, str], dict[str, torch.Tensor]]:
    try:
        with safe_open(str(path), framework="pt") as stream:
            header = stream.metadata() or {}
            state = {name: stream.get_tensor(name) for name in stream.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError) as error:
        raise ValueError(
            f"{path} is not a readable safetensors file ({error}). Pass weights written by bodyreg."
        ) from None
    if header.get("format") != _FORMAT:
        raise ValueError(f"{path} holds no lifter of bodyreg. Pass weights that `bodyreg train` wrote for a lifter.")
    return header, state


def _settings(text: str, path: Path) -> LifterSettings:
    """The settings in a header; names, presets and options are checked where the network is built from them."""
    try:
        given = json.loads(text)
    except (ValueError, RecursionError):
        given = None
    known = {field.name for field in fields(LifterSettings)}
    plain = isinstance(given, dict) and set(given) <= known and isinstance(given.get("options", {}), dict)
    if not plain or any(not isinstance(value, str) for name, value in given.items() if name != "options"):
        raise ValueError(f"{path} carries no readable settings of a lifter. Use the version of bodyreg that wrote it.")
    settings = LifterSettings(**given)
    lifter_entry(settings.name).options(settings)
    return settings
