"""Time the renderer's back ends against each other and against PyTorch3D and nvdiffrast where those can be imported.

python scripts/bench_renderer.py [--mesh FILE] [--cases silhouette,k1] [--batch 1,8] [--size 224] [--json FILE]
python scripts/bench_renderer.py --profile        preparation, forward and backward of the cpu back end
python scripts/bench_renderer.py --gradients      vertex gradients against float64 truth

All are timed in one process, one after the other, the best of several runs. PyTorch3D takes seconds to minutes for one
picture on a CPU: there it runs `--slow-repeat` times, and only for a batch of 1; fused cases are its fragments of fifty
faces a pixel and a blend of them. nvdiffrast knows only the hard case
k1. Ratios are to PyTorch3D where it runs. With `--clock cpu` the times of one thread are those that the process had
the processor, which others on the machine disturb less. `--mesh`: an npz with verts (P, V, 3), x and y in NDC and
depth, and faces.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import json
import os
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor


class Case(NamedTuple):
    """What is drawn: fragments of the `k` nearest faces, or a fused picture of `channels` (0: silhouette)."""

    k: int
    sigma: float
    channels: int = 0
    gamma: float = 1e-4


RIVAL_FACES = 50
"""Faces a pixel that PyTorch3D keeps where ours count all."""

CASES = {
    "k1": Case(1, 0.0),
    "k8": Case(8, 1e-5),
    "k50": Case(50, 1e-5),
    "k50-soft": Case(50, 1e-4),
    "silhouette": Case(0, 1e-4),
    "semantic25": Case(0, 1e-4, 25),
    "semantic25-sharp": Case(0, 1e-5, 25),
    "semantic7": Case(0, 1e-5, 7),
}


class Body(NamedTuple):
    """Bodies in NDC: (P, V, 3) vertices, (F, 3) faces."""

    verts: Tensor
    faces: Tensor

    def batch(self, count: int) -> Tensor:
        """(count F, 3, 3) corners."""
        return torch.cat([self.verts[i % len(self.verts)][self.faces] for i in range(count)])


def load_body(path: Path | None) -> Body:
    """The meshes of the file, or the free body seen from eight sides."""
    if path is not None:
        with np.load(path) as data:
            name = {key.split("/")[-1]: key for key in data.files}
            return Body(torch.from_numpy(data[name["verts"]]).float(), torch.from_numpy(data[name["faces"]]).long())
    from bodyreg.free_body import load_free_body

    body = load_free_body()
    points = torch.as_tensor(body["v_template"]).float()
    points = points - (points.amax(0) + points.amin(0)) / 2
    turns = torch.arange(8) * (torch.pi / 4)
    x = points[:, 0] * turns.cos()[:, None] + points[:, 2] * turns.sin()[:, None]
    z = points[:, 2] * turns.cos()[:, None] - points[:, 0] * turns.sin()[:, None] + 2.6
    return Body(torch.stack([2.4 * x / z, 2.4 * points[:, 1] / z, z], -1), torch.as_tensor(body["f"]).long())


def job(
    case: Case, body: Body, batch: int, size: int, backend: str, device: str, threads: int, backward: bool
) -> Callable[[], Any]:
    """A call that draws once, and that takes the gradient to the corners."""
    from renderers import (
        Blend,
        blend_silhouette,
        blend_softmax,
        blur_for,
        interpolate_corners,
        rasterize,
        soft_render,
        soft_silhouette,
    )  # fmt: skip

    corners = body.batch(batch).to(device).requires_grad_(backward)
    counts = [len(body.faces)] * batch
    options: dict[str, Any] = dict(image_size=size, backend=backend, threads=threads)
    generator = torch.Generator().manual_seed(0)
    attributes = torch.rand(len(body.verts[0]), max(case.channels, 1), generator=generator)[body.faces].repeat(
        batch, 1, 1
    )
    attributes, background = attributes.to(device), torch.zeros(case.channels, device=device)
    upstream: list[Tensor] = []

    def draw() -> list[Tensor]:
        if case.k:
            blur = blur_for(case.sigma) if case.sigma else 0.0
            return list(rasterize(corners, counts, blur_radius=blur, faces_per_pixel=case.k, **options)[1:])
        if backend == "pytorch3d":  # what its users do: fifty faces a pixel, then a blend
            fragments = rasterize(
                corners, counts, blur_radius=blur_for(case.sigma), faces_per_pixel=RIVAL_FACES, **options
            )
            if not case.channels:
                return [blend_silhouette(fragments, case.sigma)]
            values = interpolate_corners(fragments, attributes)
            return list(blend_softmax(fragments, values, background, sigma=case.sigma, gamma=case.gamma))
        if not case.channels:
            return [soft_silhouette(corners, counts, sigma=case.sigma, **options)]
        blend = Blend(sigma=case.sigma, gamma=case.gamma)
        return list(soft_render(corners, attributes, background, counts, blend=blend, **options))

    def once() -> None:
        out = draw()
        if backward:
            if not upstream:
                upstream.extend(torch.rand(x.shape, generator=generator).to(x) for x in out)
            torch.autograd.grad(out, corners, upstream)

    return once


def nvdiffrast_job(body: Body, batch: int, size: int) -> Callable[[], Any]:
    """nvdiffrast's rasterisation of the same bodies: one surface a pixel, forward only."""
    rival = importlib.import_module("nvdiffrast.torch")
    context = rival.RasterizeCudaContext()
    verts = torch.stack([body.verts[i % len(body.verts)] for i in range(batch)]).cuda()
    z = verts[..., 2:]
    clip = torch.cat([verts[..., :1] * z, verts[..., 1:2] * z, 1.02 * z - 0.2, z], -1).contiguous()
    faces = body.faces.int().cuda()
    return lambda: rival.rasterize(context, clip, faces, resolution=[size, size])


CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}


def best(once: Callable[[], Any], repeat: int, options: argparse.Namespace) -> float:
    """Seconds of the fastest of `repeat` runs, after one that compiles and warms up if there are several."""
    clock = CLOCKS[options.clock]
    seconds = []
    for i in range(repeat + (repeat > 2)):
        start = clock()
        once()
        if options.device == "cuda":
            torch.cuda.synchronize()
        if i or repeat <= 2:
            seconds.append(clock() - start)
    return min(seconds)


def peak_memory(once: Callable[[], Any], device: str) -> float | None:
    """MB that one run takes beyond what is held before it; None where the system does not tell."""
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        once()
        return (torch.cuda.max_memory_allocated() - before) / 1e6
    status = Path("/proc/self/status")

    def kilobytes(field: str) -> int:
        return int(re.findall(rf"{field}:\s+(\d+)", status.read_text())[0])

    try:
        Path("/proc/self/clear_refs").write_text("5")  # the high-water mark starts anew
        before = kilobytes("VmRSS")
        once()
        return max(0, kilobytes("VmHWM") - before) / 1e3
    except (OSError, IndexError):
        return None


def bench(options: argparse.Namespace, body: Body) -> list[dict]:
    """One row for each case, size, batch and back end."""
    rows = []
    for name in options.cases.split(","):
        for size in (int(x) for x in options.size.split(",")):
            for batch in (int(x) for x in options.batch.split(",")):
                found = []
                for backend in options.backends:
                    slow = options.device == "cpu" and backend in ("pytorch3d", "naive")
                    if slow and (batch > 1 or size > options.slow_size):
                        continue
                    row = {"case": name, "size": size, "batch": batch, "backend": backend}
                    repeat = options.slow_repeat if slow else options.repeat
                    if backend == "nvdiffrast":
                        if name != "k1":
                            continue
                        once = nvdiffrast_job(body, batch, size)
                        row["forward_ms"] = 1e3 * best(once, repeat, options)
                    else:
                        which = (CASES[name], body, batch, size)
                        where = (backend, options.device, options.threads)
                        row["forward_ms"] = 1e3 * best(job(*which, *where, False), repeat, options)
                        once = job(*which, *where, True)
                        row["both_ms"] = 1e3 * best(once, repeat, options)
                    row["peak_mb"] = peak_memory(once, options.device)
                    found.append(row)
                    print(
                        " ".join(f"{k}={v:.4g}" if isinstance(v, float) else f"{k}={v}" for k, v in row.items()),
                        file=sys.stderr,
                        flush=True,
                    )
                slowest = next((r for r in found if r["backend"] == "pytorch3d"), None)
                for row in found:
                    if slowest and "both_ms" in row:
                        row["times_pytorch3d"] = slowest["both_ms"] / row["both_ms"]
                rows += found
    return rows


def profile(options: argparse.Namespace, body: Body) -> list[dict]:
    """Preparation (checks, faces into tiles), forward and backward of the cpu back end."""
    from renderers.backends.cpu_silhouette import prepare
    from renderers.blending import blur_for
    from renderers.rasterize import check_faces
    from renderers.soft import Blend, Scene

    rows = []
    size = int(options.size.split(",")[0])
    corners, counts = body.batch(1), [len(body.faces)]
    for name in options.cases.split(","):
        case = CASES[name]
        blend = Blend(sigma=case.sigma or 1e-4, blur_radius=blur_for(case.sigma) if case.sigma else 0.0)

        def preparation(blend: Blend = blend) -> None:
            check_faces(corners, counts, (size, size), blend.blur, 1)
            prepare(corners, Scene(corners, counts, None, (size, size)), blend, options.threads)

        which = (case, body, 1, size, "cpu", "cpu", options.threads)
        first = best(preparation, options.repeat, options)
        forward = best(job(*which, False), options.repeat, options)
        both = best(job(*which, True), options.repeat, options)
        figures = {"preparation_ms": first, "forward_ms": forward - first, "backward_ms": both - forward}
        rows.append({"case": name, "size": size} | {k: 1e3 * v for k, v in figures.items()})
    return rows


def gradients(options: argparse.Namespace, body: Body) -> list[dict]:
    """Vertex gradients of a softmax RGB picture at 128 pixels against the naive back end in float64."""
    from renderers import blend_softmax, blur_for, interpolate_corners, rasterize

    rows = []
    generator = torch.Generator().manual_seed(0)
    colours = torch.rand(body.verts.shape[1], 3, generator=generator)[body.faces]
    for gamma in (1e-4, 1e-2):
        truth = None
        for backend in ("naive", *(b for b in options.backends if b not in ("naive", "nvdiffrast"))):
            real = torch.float64 if backend == "naive" else torch.float32
            verts = body.verts[0].to(real).requires_grad_()
            fragments = rasterize(
                verts[body.faces], image_size=128, blur_radius=blur_for(1e-4), faces_per_pixel=8, backend=backend
            )
            painted = interpolate_corners(fragments, colours.to(real))
            picture = blend_softmax(fragments, painted, torch.zeros(3, dtype=real), sigma=1e-4, gamma=gamma)
            weights = torch.rand(128 * 128 * 4, generator=torch.Generator().manual_seed(1)).to(real) - 0.5
            everything = torch.cat([picture.colour.reshape(-1), picture.alpha.reshape(-1)])
            grad = torch.autograd.grad((everything * weights).sum(), verts)[0].double().flatten()
            truth = grad if truth is None else truth
            cosine = float(grad @ truth / (grad.norm() * truth.norm()))
            rows.append(
                {
                    "gamma": gamma,
                    "backend": backend,
                    "precision": str(real)[6:],
                    "cosine": cosine,
                    "norm_ratio": float(grad.norm() / truth.norm()),
                }
            )
    return rows


def show(rows: list[dict], title: str) -> None:
    """A table of the rows on standard output."""
    from rich.console import Console
    from rich.table import Table

    names = list(dict.fromkeys(name for row in rows for name in row))
    table = Table(*names, title=title)
    for row in rows:
        table.add_row(*(f"{row[n]:.4g}" if isinstance(row.get(n), float) else str(row.get(n, "")) for n in names))
    Console(width=max(100, 16 * len(names))).print(table)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mesh", type=Path, help="bodies to draw; default: the free body from eight sides")
    parser.add_argument("--cases", default=",".join(CASES), help=f"some of {', '.join(CASES)}")
    parser.add_argument("--size", default="224,512", help="sides of the square picture, pixels")
    parser.add_argument("--batch", default="1,8,64")
    parser.add_argument("--backends", help="default: all that can draw here, naive excepted")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--clock", default="wall", choices=tuple(CLOCKS), help="cpu: processor time, on a busy machine")
    parser.add_argument("--repeat", type=int, default=7)
    parser.add_argument("--slow-repeat", type=int, default=1, help="runs of back ends that take seconds")
    parser.add_argument("--slow-size", type=int, default=224, help="no larger pictures from those")
    parser.add_argument("--profile", action="store_true")
    parser.add_argument("--gradients", action="store_true")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    options = parser.parse_args(arguments)
    unknown = set(options.cases.split(",")) - set(CASES)
    if unknown:
        print(f"There is no case {sorted(unknown)[0]!r}. Choose some of {', '.join(CASES)}.", file=sys.stderr)
        return 1

    from renderers.backends import available

    torch.set_num_threads(options.threads)
    if options.backends is None:
        own = ("cuda",) if options.device == "cuda" else ("cpu",)
        here = [name for name, idle in available().items() if idle is None and name in (*own, "pytorch3d")]
        rival = options.device == "cuda" and importlib.util.find_spec("nvdiffrast") is not None
        options.backends = [*here, *(["nvdiffrast"] if rival else [])]
    else:
        options.backends = options.backends.split(",")
    body = load_body(options.mesh)
    task = profile if options.profile else (gradients if options.gradients else bench)
    rows = task(options, body)
    show(rows, f"{len(body.faces)} faces, {options.device}, {options.threads} threads")
    if options.json:
        machine = {"cores": os.cpu_count(), "torch": torch.__version__, "threads": options.threads}
        options.json.write_text(json.dumps({"machine": machine, "rows": rows}, indent=1))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
