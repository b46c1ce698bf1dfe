"""How this package compiles its Numba kernels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba


def kernel(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile a function with Numba: no Python objects, GIL released, machine code kept on disk.

    Numba writes its cache beside the module, or into the user's cache folder (NUMBA_CACHE_DIR) when the package lies
    in a read-only place. Where neither can be written the kernel is compiled afresh in each process, which is slow
    but right. The cache knows a kernel by its own file only: after editing a kernel that others call, delete the
    `*.nbi` files beside it. `parallel=True` is never used: threads come from `renderers.threads`, so that results do
    not depend on a threading layer. Fused multiply-add is off (no fastmath): float32 results are those of the written
    operations.
    """
    try:
        return numba.njit(nogil=True, cache=True, error_model="numpy")(function)
    except RuntimeError:  # "no locator available": neither folder can be written
        return numba.njit(nogil=True, error_model="numpy")(function)
