"""Building networks without memory for their weights, which a file then gives them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

__all__ = ["weightless"]


class _NoDraws(TorchFunctionMode):
    """Leaves out the drawing of initial values, which on the meta device means nothing and loads torch's compiler:
    two seconds."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in (Tensor.normal_, Tensor.uniform_) or getattr(func, "__module__", None) == torch.nn.init.__name__:
            return args[0] if args else kwargs["tensor"]
        return func(*args, **(kwargs or {}))


@contextlib.contextmanager
def weightless() -> Iterator[None]:
    """Within it, networks are built on the meta device: how large they get costs nothing, and no time is spent on
    initial values that would be overwritten at once."""
    with torch.device("meta"), _NoDraws():
        yield
