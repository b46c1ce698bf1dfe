"""Lifters by name. Listing them imports no torch; `build` does.

Each family of networks keeps its entries in a light module of its own, whose `ENTRIES` are gathered here.
"""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING

from bodyreg.models.lifters import entries, entries_single, entries_transformers
from bodyreg.models.lifters.record import LifterEntry, LifterSettings

if TYPE_CHECKING:
    from torch import nn

__all__ = ["LIFTERS", "LifterEntry", "LifterSettings", "build_lifter", "lifter_entry"]

LIFTERS: dict[str, LifterEntry] = {
    entry.name: entry for entry in (*entries.ENTRIES, *entries_transformers.ENTRIES, *entries_single.ENTRIES)
}


def lifter_entry(name: str) -> LifterEntry:
    """The entry of a lifter.

    Raises:
        ValueError: an unknown name; the nearest known one is named.
    """
    if name not in LIFTERS:
        near = difflib.get_close_matches(str(name), LIFTERS, n=1)
        hint = f"Did you mean {near[0]!r}? " if near else ""
        raise ValueError(f"There is no lifter named {name!r}. {hint}Known: {', '.join(LIFTERS)}.")
    return LIFTERS[name]


def build_lifter(settings: LifterSettings) -> nn.Module:
    """The network that `settings` name, freshly initialised.

    Raises:
        ValueError: an unknown name, preset or option.
    """
    return lifter_entry(settings.name).build(settings)
