"""Compile the CUDA kernels for a GPU that need not be there, and print what each takes: registers, stack, seconds.

A stack means spilled registers. Needs triton and no GPU:

    python scripts/compile_kernels.py --arch 90
    python scripts/compile_kernels.py --only silhouette paint
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from typing import Any

os.environ.pop("TRITON_INTERPRET", None)  # before the kernels are imported

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from renderers.backends import cuda, cuda_geometry, cuda_paint, cuda_silhouette

TABLES = dict.fromkeys(("tile_begin", "entry_face", "entry_slot", "slot_begin"), "*i32")
WHOLE = dict.fromkeys(("height", "width", "across", "tiles", "channels", "pixels", "k", "count"), "i32")
REAL = dict.fromkeys(("blur", "scale", "sharp", "limit", "least", "near", "far", "radius"), "fp32")
LONG = dict.fromkeys(("pix_to_face", "which"), "*i64")
TYPES = {**TABLES, **WHOLE, **REAL, **LONG}  # all others are arrays of float32


def cases() -> Iterator[tuple[str, str, Any, dict, dict, dict]]:
    """(group, label, kernel, constants, types that differ, options) of typical calls."""
    soft = dict(PAIRED=False, SIDE=8), {"pairs": "*i32"}, {"num_warps": 1}
    yield "silhouette", "forward", cuda_silhouette._cover, *soft
    yield "silhouette", "backward", cuda_silhouette._cover_gradient, *soft
    rules = dict(FRONT=0, PERSPECTIVE=True, SCREEN=False, UNIT=False, CUT=False, PAIRED=False, SIDE=8)
    for corners in (3, 1):
        const = {**rules, "CORNERS": corners}
        where = "corners" if corners == 3 else "faces"
        yield "paint", f"forward, {where}", cuda_paint._paint, const, *soft[1:]
        const = const | dict(DETACH=False, WANTED=False)
        yield "paint", f"backward, {where}", cuda_paint._gradient, const, *soft[1:]
    const = dict(FRONT=-1, PERSPECTIVE=True, SCREEN=True, UNIT=True, CUT=True, CORNERS=3, PAIRED=True, SIDE=8)
    cut = {"pairs": "*i64"}, {"num_warps": 1}
    yield "paint", "forward, SoftRas, cut faces", cuda_paint._paint, const, *cut
    const = const | dict(DETACH=True, WANTED=True)
    yield "paint", "backward, SoftRas, cut faces", cuda_paint._gradient, const, *cut
    for k in (1, 8, 50, 150):
        slots = triton.next_power_of_2(k)
        pixels = max(1, min(64, cuda._PER_PROGRAM // slots))
        const = dict(K=k, SLOTS=slots, PIXELS=pixels, SIDE=8, PERSPECTIVE=True, CLIP=True, PAIRED=False)
        options = {"num_warps": max(1, min(4, pixels * slots // 128)), "enable_fp_fusion": False}
        yield "fragments", f"forward, K = {k}", cuda._keep, const, {"pairs": "*i32"}, options
    const = dict(PERSPECTIVE=True, CLIP=True, ATOMIC=True, BLOCK=128)
    types = {"slots": "*i64", "rows": "*fp64"}
    yield "fragments", "backward", cuda._gradient, const, types, {"enable_fp_fusion": False}
    yield "sum", "slots", cuda_geometry._sum_slots, dict(FACES=32, WIDTH=16), {"faces": "i32"}, {}


def compile_case(kernel: Any, constants: dict, types: dict, options: dict, arch: int) -> tuple[int, int, float]:
    """Registers, bytes of stack, seconds."""
    names = kernel.arg_names
    signature = {n: "constexpr" if n in constants else types.get(n, TYPES.get(n, "*fp32")) for n in names}
    fixed = {(i,): constants[n] for i, n in enumerate(names) if n in constants}
    aligned = {(i,): [["tt.divisibility", 16]] for i, n in enumerate(names) if signature[n].startswith("*")}
    start = time.perf_counter()
    options = {"enable_fp_fusion": True, **options}
    target = GPUTarget("cuda", arch, 32)
    compiled = triton.compile(ASTSource(kernel, signature, fixed, aligned), target=target, options=options)
    seconds = time.perf_counter() - start
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(compiled.asm["cubin"])
        file.flush()
        tool = triton.knobs.nvidia.cuobjdump.path
        usage = subprocess.run([tool, "-res-usage", file.name], capture_output=True, text=True, check=True)
    found = re.search(r"REG:(\d+) STACK:(\d+)", usage.stdout + usage.stderr)
    if found is None:
        raise ValueError(f"{tool} says nothing on registers. Compile with another version of triton.")
    return int(found[1]), int(found[2]), seconds


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--arch", type=int, default=90, help="compute capability, 90 for H100 and H200")
    parser.add_argument("--only", nargs="*", help="groups: silhouette, paint, fragments, sum")
    options = parser.parse_args(arguments)
    print(f"triton {triton.__version__}, sm_{options.arch}")
    print("| kernel | registers | stack, bytes | compiled in, s |\n|---|---|---|---|")
    for group, label, kernel, constants, types, extra in cases():
        if not options.only or group in options.only:
            registers, stack, seconds = compile_case(kernel, constants, types, extra, options.arch)
            print(f"| {group} {label} | {registers} | {stack} | {seconds:.1f} |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
