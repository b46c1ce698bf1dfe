"""What the toolkit knows of a lifter: how it is built, its published sizes and figures, the clips it takes."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from torch import nn

__all__ = ["Figure", "LifterEntry", "LifterSettings", "frames_option", "product_of_widths"]

# A stranger's file may ask for any network; no lifter comes near these numbers.
_LARGEST_NUMBER, _LONGEST_LIST = 8192, 32


@dataclass
class LifterSettings:
    """Which lifter, and its free numbers."""

    name: str = "videopose3d"
    """Name in the registry."""
    preset: str = ""
    """Published size to start from; empty for the first one."""
    input_set: str = "h36m-17"
    """Joint set of the 2D key points."""
    joint_set: str = "h36m-17"
    """Joint set of the 3D joints."""
    options: dict[str, Any] = field(default_factory=dict)
    """Arguments of the network that differ from the preset's."""


@dataclass(frozen=True)
class Figure:
    """A published result.

    Attributes:
        setting: data set, 2D input and frames. values: measure -> number, millimetres unless it says otherwise.
        source: where the figure stands, and how sure it is.
    """

    setting: str
    values: Mapping[str, float]
    source: str


def frames_option(options: Mapping[str, Any]) -> int:
    """Receptive field of a network whose clip length is its option `frames`."""
    return int(options["frames"])


def product_of_widths(options: Mapping[str, Any]) -> int:
    """Receptive field of a network that reduces time by its `filter_widths`, one after the other."""
    frames = 1
    for width in options["filter_widths"]:
        frames *= int(width)
    return frames


@dataclass(frozen=True)
class LifterEntry:
    """A lifter that can be built. `forward(keypoints (B,T,J,C)) -> (B,T,J',3)`, or (B,1,J',3) of the centre frame.

    Key points are screen-normalised (x in [-1, 1], y with the same unit); joints are root-relative, metres, in the
    camera's frame (x right, y down, z forward).

    Attributes:
        name: in the registry.
        builder: (settings, complete options) -> network. It imports what it needs, so that listing stays quick.
        presets: name -> options of the network. The first is the default and names every option; the others name what
            differs from it.
        output: "sequence", a pose for every frame of the clip; "centre", one for the middle frame; "kept", poses of a
            part of the frames and their indices.
        summary: one sentence. source: the paper.
        receptive_field: options -> frames of a clip.
        channels: numbers a key point: 2, or 3 with confidence.
        dense: a longer clip than the receptive field gives a pose for each place the field has in it.
        figures: published results. joint_set: the one it was published for.
    """

    name: str
    builder: Callable[[LifterSettings, Mapping[str, Any]], nn.Module]
    presets: Mapping[str, Mapping[str, Any]]
    output: Literal["sequence", "centre", "kept"]
    summary: str
    source: str
    receptive_field: Callable[[Mapping[str, Any]], int] = frames_option
    channels: int = 2
    dense: bool = False
    figures: tuple[Figure, ...] = ()
    joint_set: str = "h36m-17"

    @property
    def seq2seq(self) -> bool:
        """Does a clip give a pose for each of its frames?"""
        return self.output == "sequence"

    def options(self, settings: LifterSettings) -> dict[str, Any]:
        """The complete options of a network: the first preset's, the chosen preset's, the settings' own.

        Raises:
            ValueError: an unknown preset or option, or a value of another kind than the preset's.
        """
        default = next(iter(self.presets))
        preset = settings.preset or default
        if preset not in self.presets:
            raise ValueError(f"{self.name} has no preset {preset!r}. Known: {', '.join(self.presets)}.")
        found = {**self.presets[default], **self.presets[preset]}
        for key, value in settings.options.items():
            if key not in found:
                near = difflib.get_close_matches(str(key), found, n=1)
                hint = f"Did you mean {near[0]!r}? " if near else ""
                raise ValueError(f"{self.name} has no option {str(key)[:40]!r}. {hint}Known: {', '.join(found)}.")
            if not _alike(value, found[key]):
                raise ValueError(
                    f"The option {key} of {self.name} is {str(value)[:60]!r}. Give a value like {found[key]!r}."
                )
            found[key] = value
        return found

    def frames(self, settings: LifterSettings) -> int:
        """Receptive field, frames."""
        return self.receptive_field(self.options(settings))

    def build(self, settings: LifterSettings) -> nn.Module:
        """The network, freshly initialised."""
        return self.builder(settings, self.options(settings))


def _alike(value: Any, like: Any) -> bool:
    """Is a value of the kind of a preset's, and no larger than any network needs?"""
    if isinstance(like, bool):
        return isinstance(value, bool)
    if isinstance(like, str):
        return isinstance(value, str) and len(value) <= 64
    if isinstance(like, list | tuple):
        fits = isinstance(value, list | tuple) and 0 < len(value) <= _LONGEST_LIST
        return fits and all(_alike(v, like[0]) for v in value)
    whole = type(value) is int and abs(value) <= _LARGEST_NUMBER
    if isinstance(like, float):
        return whole or (type(value) is float and abs(value) <= _LARGEST_NUMBER)
    return whole and value >= 0
