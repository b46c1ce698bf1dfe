"""Measure lifters at their published sizes: time, peak memory, fused against explicit attention, pruning, bfloat16.

python scripts/bench_lifters.py [NAME ...] [--preset P] [--batch N] [--repeat N] [--threads N] [--attention] ...

Rivals take turns within one process and the fastest run of each counts, so that other work on the machine weighs on
all of them alike. Peak memory is that of a process of its own above the loaded network. Weights are random: they change
no time, and of bfloat16's error they show the order of magnitude only.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor, nn

NAMES = ("mixste", "hot_mixste", "tpc_mixste")
HOSTS = {"hot_": "HoT", "tpc_": "TPC"}


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", default=NAMES, metavar="NAME", help="lifters; default: MixSTE and its kin")
    parser.add_argument("--preset", default="", help="of every lifter; default: its published size")
    parser.add_argument("--batch", type=int, default=1, help="clips a forward pass")
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--threads", type=int, default=min(2, os.cpu_count() or 1))
    parser.add_argument("--processor-time", action="store_true", help="of one thread, for machines with other work")
    parser.add_argument("--no-memory", action="store_true", help="leave the peak memory out")
    parser.add_argument("--no-bfloat16", action="store_true", help="leave bfloat16 out")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    parser.add_argument("--attention", action="store_true", help="single attention layers instead of whole lifters")
    parser.add_argument("--peak", choices=["fused", "explicit"], help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)

    import torch

    options.threads = 1 if options.processor_time else options.threads
    torch.set_num_threads(options.threads)
    if options.attention:
        report_attention(options)
        return 0
    try:
        networks = {name: made(name, options.preset, options.batch) for name in options.names}
    except ValueError as error:
        print(error, file=sys.stderr)
        return 1
    if options.peak:
        ((model, x),) = networks.values()
        print(peak(model, x, fused=options.peak == "fused"))
        return 0
    figures = {
        "machine": {
            "processor": platform.processor() or platform.machine(), "threads": options.threads,
            "clock": "processor time" if options.processor_time else "wall", "torch": torch.__version__,
            "batch": options.batch, "load": round(os.getloadavg()[0], 1),
        },
        "lifters": {name: cost(model, x) for name, (model, x) in networks.items()},
    }  # fmt: skip
    for name, seconds in timed(networks, options).items():
        figures["lifters"][name].update(seconds)
    for name, (model, x) in networks.items():
        row = figures["lifters"][name]
        if not options.no_bfloat16:
            row["bfloat16_error"] = bfloat16_error(model, x)
        if not options.no_memory:
            row.update({f"peak_mib_{kind}": measured_peak(name, kind, options) for kind in ("fused", "explicit")})
    report(figures)
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    return 0


def made(name: str, preset: str, batch: int) -> tuple[nn.Module, Tensor]:
    """A lifter in evaluation mode and clips for it."""
    import torch

    from bodyreg import skeletons
    from bodyreg.models.lifters.registry import LifterSettings, build_lifter, lifter_entry

    settings = LifterSettings(name, preset)
    entry = lifter_entry(name)
    torch.manual_seed(0)
    joints = len(skeletons.get(settings.input_set))
    x = torch.rand(batch, entry.frames(settings), joints, entry.channels) * 2 - 1
    return build_lifter(settings).eval().requires_grad_(False), x


def cost(model: nn.Module, x: Tensor) -> dict[str, Any]:
    """Parameters, and operations a clip: of linear layers and convolutions alone, and of everything."""
    from torch.utils.flop_counter import FlopCounterMode

    from bodyreg.models.lifters.layers import set_fused

    set_fused(model, False)  # the counter does not know the processor's fused kernel
    with FlopCounterMode(display=False) as counter:
        model(x[:1])
    by_kind = counter.get_flop_counts()["Global"]
    layers = sum(n for kind, n in by_kind.items() if str(kind).split(".")[-1] in ("mm", "addmm", "convolution"))
    return {
        "parameters": sum(p.numel() for p in model.parameters()),
        "gflops_layers": layers / 1e9,
        "gflops": counter.get_total_flops() / 1e9,
    }


def timed(networks: dict[str, tuple[nn.Module, Tensor]], options: argparse.Namespace) -> dict[str, dict[str, float]]:
    """Seconds of the fastest pass of each network with fused, explicit and bfloat16 attention, and of its selection."""
    import torch

    from bodyreg.models.lifters.layers import set_fused

    found: dict[str, dict[str, float]] = {name: {} for name in networks}
    clock = time.process_time if options.processor_time else time.perf_counter

    def note(name: str, what: str, run: Callable[[], object]) -> None:
        start = clock()
        run()
        found[name][what] = min(found[name].get(what, float("inf")), clock() - start)

    features_of = {name: selected_from(model, x) for name, (model, x) in networks.items() if hasattr(model, "selector")}
    for _ in range(options.repeat):
        for name, (model, x) in networks.items():
            for fused in (True, False):
                set_fused(model, fused)
                note(name, "seconds_fused" if fused else "seconds_explicit", lambda model=model, x=x: model(x))
            set_fused(model, True)
            if not options.no_bfloat16:
                with torch.autocast("cpu", torch.bfloat16):
                    note(name, "seconds_bfloat16", lambda model=model, x=x: model(x))
            if hasattr(model, "selector"):
                note(name, "seconds_selection", lambda model=model, f=features_of[name]: model.selector(f))
    return found


def selected_from(model: nn.Module, x: Tensor) -> Tensor:
    """The features that frames are selected by."""
    seen: dict[str, Tensor] = {}
    hook = model.selector.register_forward_pre_hook(lambda _module, args: seen.update(features=args[0]))
    model(x)
    hook.remove()
    return seen["features"]


def bfloat16_error(model: nn.Module, x: Tensor) -> float:
    """Mean distance between the joints of bfloat16 and float32, as a share of their mean distance from the root."""
    import torch

    kwargs = {}
    if hasattr(model, "selector"):  # the same frames in both
        kwargs["index"] = model.lift_pruned(x).kept

    def pose() -> Tensor:
        y = model(x, **kwargs)
        return (y.pose if isinstance(y, tuple) else y).float()

    plain = pose()
    with torch.autocast("cpu", torch.bfloat16):
        rough = pose()
    return float((rough - plain).norm(dim=-1).mean() / plain.norm(dim=-1).mean())


def resident_mib(highest: bool) -> float:
    """Resident memory of this process, MiB: its highest since the last reset, or now."""
    key = "VmHWM:" if highest else "VmRSS:"
    for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
        if line.startswith(key):
            return int(line.split()[1]) / 1024
    raise ValueError("The system does not tell a process's memory. Pass --no-memory.")


def peak(model: nn.Module, x: Tensor, *, fused: bool) -> float:
    """MiB that a forward pass needs above the loaded network."""
    from bodyreg.models.lifters.layers import set_fused

    set_fused(model, fused)
    before = resident_mib(highest=False)
    model(x)
    return max(0.0, resident_mib(highest=True) - before)


def report_attention(options: argparse.Namespace) -> None:
    """Milliseconds of the layers that lifters of 243 frames are made of: over joints, over frames, over kept frames."""
    import torch

    from bodyreg.models.lifters.layers import SelfAttention, attend

    clock = time.process_time if options.processor_time else time.perf_counter
    torch.manual_seed(0)
    for samples, tokens, width in ((243, 17, 512), (17, 243, 512), (81, 17, 512), (17, 81, 512), (17, 243, 256)):
        layer, x = SelfAttention(width, 8).eval().requires_grad_(False), torch.randn(samples, tokens, width)
        q, k, v = layer.qkv(x).unflatten(-1, (3, 8, -1)).permute(2, 0, 3, 1, 4).unbind(0)
        best = dict.fromkeys((True, False), float("inf"))
        for _ in range(5 * options.repeat):
            for fused in best:
                start = clock()
                attend(q, k, v, layer.scale, fused=fused).transpose(1, 2).flatten(2)
                best[fused] = min(best[fused], clock() - start)
        print(f"{samples} x {tokens} tokens of {width} channels: fused {1000 * best[True]:.2f} ms, explicit "
              f"{1000 * best[False]:.2f} ms, {best[False] / best[True]:.2f} times")  # fmt: skip


def measured_peak(name: str, kind: str, options: argparse.Namespace) -> float:
    """`peak` in a process of its own."""
    command = [sys.executable, __file__, name, "--peak", kind, "--preset", options.preset, "--batch",
               str(options.batch), "--threads", str(options.threads)]  # fmt: skip
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1])


def report(figures: dict[str, Any]) -> None:
    """Two tables: the lifters, and the pruned ones beside their hosts."""
    rows = figures["lifters"]
    print(" ".join(f"{key} {value}" for key, value in figures["machine"].items()))
    titles = "params GFLOPs +attn. fused_s explicit ratio clips/s bf16_s error MiB expl.".split()
    widths = (11, 8, 8, 8, 8, 6, 8, 8, 7, 6, 6)
    print("\n" + " ".join([f"{'lifter':20s}", *(f"{t:>{w}s}" for t, w in zip(titles, widths, strict=True))]))
    batch = figures["machine"]["batch"]
    for name, row in rows.items():
        fused, explicit = row["seconds_fused"], row["seconds_explicit"]
        print(f"{name:20s} {row['parameters']:11,d} {row['gflops_layers']:8.2f} {row['gflops']:8.2f} {fused:8.3f}"
              f" {explicit:8.3f} {explicit / fused:6.2f} {batch / fused:8.2f} {row.get('seconds_bfloat16', 0):8.3f}"
              f" {row.get('bfloat16_error', 0):7.4f} {row.get('peak_mib_fused', 0):6.0f}"
              f" {row.get('peak_mib_explicit', 0):6.0f}")  # fmt: skip
    for name, row in rows.items():
        kind = next((prefix for prefix in HOSTS if name.startswith(prefix)), None)
        host = rows.get(name.removeprefix(kind)) if kind else None
        if host:
            print(f"\n{name}: {host['seconds_fused'] / row['seconds_fused']:.2f} times as fast as its host, "
                  f"{1 - row['gflops_layers'] / host['gflops_layers']:.1%} fewer operations, "
                  f"selection {row['seconds_selection'] / row['seconds_fused']:.2%} of the time")  # fmt: skip


if __name__ == "__main__":
    raise SystemExit(main())
