"""How this package compiles its Numba kernels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba
from llvmlite import ir
from numba.extending import intrinsic

LANES = 8
"""Pixels, or pixel and face pairs, that the vectorised loops work on side by side."""


def kernel(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile a function with Numba: no Python objects, GIL released, machine code kept on disk.

    Numba writes its cache beside the module, or into the user's cache folder (NUMBA_CACHE_DIR) when the package lies
    in a read-only place. Where neither can be written the kernel is compiled afresh in each process, which is slow
    but right. The cache knows a kernel by its own file only: after editing a kernel that others call, delete the
    `*.nbi` files beside it. `parallel=True` is never used: threads come from `renderers.threads`, so that results do
    not depend on a threading layer. Fused multiply-add is off (no fastmath): float32 results are those of the written
    operations.
    """
    return _compile(function)


def fast_kernel(function: Callable[..., Any]) -> Callable[..., Any]:
    """As `kernel`, with fused multiply-add and sums in any order: for blends, where no bit decides what is seen."""
    return _compile(function, fastmath={"contract", "reassoc", "nsz"})


def inlined(function: Callable[..., Any]) -> Callable[..., Any]:
    """A piece of a kernel, compiled into every loop that calls it, so that the loop can be vectorised."""
    return _compile(function, forceinline=True, no_cpython_wrapper=True, no_cfunc_wrapper=True)


def fast_inlined(function: Callable[..., Any]) -> Callable[..., Any]:
    """As `inlined`, with fused multiply-add."""
    return _compile(
        function, forceinline=True, fastmath={"contract", "nsz"}, no_cpython_wrapper=True, no_cfunc_wrapper=True
    )


def _compile(function: Callable[..., Any], **options: Any) -> Callable[..., Any]:
    try:
        return numba.njit(nogil=True, cache=True, error_model="numpy", **options)(function)
    except RuntimeError:  # "no locator available": neither folder can be written
        return numba.njit(nogil=True, error_model="numpy", **options)(function)


@intrinsic
def power_of_two(typing_context, exponent):
    """2 to the power of a whole float32 number from -126 to 127, written straight into the bits of a float32."""

    def build(context, builder, signature, arguments):
        whole = builder.fptosi(arguments[0], ir.IntType(32))
        biased = builder.add(whole, ir.Constant(ir.IntType(32), 127))
        return builder.bitcast(builder.shl(biased, ir.Constant(ir.IntType(32), 23)), ir.FloatType())

    return numba.float32(numba.float32), build


@intrinsic
def whole_log2(typing_context, x):
    """Largest whole number, as float32, that the binary logarithm of a positive normal float32 number is not below."""

    def build(context, builder, signature, arguments):
        bits = builder.bitcast(arguments[0], ir.IntType(32))
        exponent = builder.sub(builder.lshr(bits, ir.Constant(ir.IntType(32), 23)), ir.Constant(ir.IntType(32), 127))
        return builder.sitofp(exponent, ir.FloatType())

    return numba.float32(numba.float32), build


@intrinsic
def first_bit(typing_context, bits):
    """Place of the lowest set bit of a whole number that is not 0."""

    def build(context, builder, signature, arguments):
        return builder.cttz(arguments[0], ir.Constant(ir.IntType(1), 1))

    return numba.int64(numba.int64), build


@intrinsic
def positive_lanes(typing_context, values, start):
    """Which of LANES numbers of a contiguous float32 array, from `start` on, are above 0: bit c speaks of start + c."""

    def build(context, builder, signature, arguments):
        array = context.make_array(signature.args[0])(context, builder, value=arguments[0])
        lanes = ir.VectorType(ir.FloatType(), LANES)
        where = builder.bitcast(builder.gep(array.data, [arguments[1]]), lanes.as_pointer())
        some = builder.load(where, align=4)
        above = builder.fcmp_ordered(">", some, ir.Constant(lanes, [0.0] * LANES))
        return builder.zext(builder.bitcast(above, ir.IntType(LANES)), ir.IntType(64))

    return numba.int64(values, numba.int64), build
