"""The back ends behind the fronts `renderers.rasterize` and `renderers.soft`: who they are and which of them run here.

naive      torch operations alone: any device and precision; what the others are held against
cpu        Numba kernels for float32 on the CPU
cuda       Triton kernels for float32 on NVIDIA GPUs (and, slowly, in Triton's interpreter on the CPU)
pytorch3d  PyTorch3D, where it is installed

Each offers the same three operations with the same arguments, see `Operation`. A back end is imported when first used.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

if TYPE_CHECKING:
    from torch import Tensor

Operation = Literal["rasterize_fragments", "silhouette", "paint"]
"""What a back end does:

rasterize_fragments(face_verts, counts, neighbour, settings, threads) -> pix_to_face, zbuf, bary, dists
silhouette(scene, blend, threads) -> (N, H, W) coverage
paint(scene, attributes, background, blend, threads) -> Picture
"""


class _Home(NamedTuple):
    fragments: str
    silhouette: str
    paint: str
    remedy: str


_HOMES = {
    "naive": _Home("naive", "naive_soft", "naive_soft", "Install torch."),
    "cpu": _Home("cpu_fragments", "cpu_silhouette", "cpu_paint", "Install it with: pip install numba."),
    "cuda": _Home("cuda", "cuda_silhouette", "cuda_paint", "Install it with: pip install triton (Linux)."),
    "pytorch3d": _Home(
        "pytorch3d",
        "pytorch3d",
        "pytorch3d",
        "Install it as https://github.com/facebookresearch/pytorch3d/blob/main/INSTALL.md says.",
    ),
}
BACKENDS = tuple(_HOMES)


def why_missing(name: str) -> str | None:
    """One sentence on what the back end lacks to be imported, or None where it can be.

    Raises:
        ValueError: there is no back end of that name.
    """
    home = _home(name)
    try:
        for module in sorted({home.fragments, home.silhouette, home.paint}):
            importlib.import_module(f"renderers.backends.{module}")
    except (ImportError, OSError) as error:  # OSError: a library that belongs to another version of torch
        return f"{error}."
    return None


def why_idle(name: str) -> str | None:
    """One sentence on why the back end cannot draw on this machine, or None where it can."""
    missing = why_missing(name)
    if missing is not None or name != "cuda":
        return missing
    import torch

    from renderers.backends.cuda import INTERPRETED

    if torch.cuda.is_available() or INTERPRETED:
        return None
    return "There is no CUDA device."


def remedy(name: str) -> str:
    """One sentence on how to get the back end.

    Raises:
        ValueError: there is no back end of that name.
    """
    return _home(name).remedy


def available() -> dict[str, str | None]:
    """Every back end, and why it cannot draw on this machine; None where it can."""
    return {name: why_idle(name) for name in BACKENDS}


def choose(faces: Tensor, name: str | None = None) -> str:
    """The back end for faces of this device and precision, or the one that is asked for.

    CUDA float32: cuda where Triton is installed; CPU float32: cpu; all others: naive.

    Raises:
        ValueError: there is no back end of that name, or it cannot be imported.
    """
    import torch

    if name is None:
        if faces.dtype != torch.float32:
            return "naive"
        if faces.device.type == "cuda":
            return "cuda" if why_missing("cuda") is None else "naive"
        return "cpu" if faces.device.type == "cpu" else "naive"
    missing = why_missing(name)
    if missing is not None:
        raise ValueError(f"The back end {name} cannot be imported: {missing} {_home(name).remedy}")
    return name


def operation(name: str, what: Operation) -> Callable[..., Any]:
    """The function of a back end that does `what`."""
    home = _home(name)
    module = {"rasterize_fragments": home.fragments, "silhouette": home.silhouette, "paint": home.paint}[what]
    return getattr(importlib.import_module(f"renderers.backends.{module}"), what)


def _home(name: str) -> _Home:
    if name not in _HOMES:
        raise ValueError(f"There is no back end {name!r}. Choose one of {', '.join(BACKENDS)}.")
    return _HOMES[name]
