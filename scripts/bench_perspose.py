"""Measure PersPose: the network, and what comes behind it, on this machine's processors.

    python scripts/bench_perspose.py [--batch-size 64] [--repeat N] [--threads N] [--skip-published] [--json FILE]

Forward passes of the published network and of the compact member (images a second; memory of one batch), then what
turns their outputs into a posed body: decoding of both passes with flip merge, the search of the first shape number
over 40 values, inverse kinematics. Weights are random where none ship, which costs the same. Every figure is the best
of `--repeat` runs, since others on the machine can only add to it: elapsed time on all threads and, in brackets, time
of the processors added up, which others change less; the share is taken of the latter, on one thread.
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--skip-published", action="store_true", help="leave out the 76 million parameters")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    parser.add_argument("--only", choices=("perspose_small", "perspose"), help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.only:
        print(json.dumps(forward(options.only, options.batch_size, options.repeat, options.threads)))
        return 0

    import torch

    torch.set_num_threads(options.threads)
    figures: dict = {
        "machine": f"{platform.machine()}, {options.threads} threads, torch {torch.__version__}",
        "batch_size": options.batch_size,
    }
    for name in ("perspose_small",) if options.skip_published else ("perspose_small", "perspose"):
        figures[name] = _forward_alone(name, options, options.threads)
    figures["behind"] = behind(options.batch_size, options.repeat)
    # On one thread, where processor time is work alone: threads that wait for each other count as busy.
    torch.set_num_threads(1)
    figures["behind_on_one_thread"] = behind(options.batch_size, options.repeat)
    figures["compact_backbone_on_one_thread"] = _forward_alone("perspose_small", options, 1)["backbone"]
    behind_ms = figures["behind_on_one_thread"]["all"]["cpu_ms"]
    share = behind_ms / figures["compact_backbone_on_one_thread"]["cpu_ms"]
    figures["behind_share_of_compact_backbone"] = round(share, 4)
    _print(figures)
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    return 0


def _forward_alone(name: str, options: argparse.Namespace, threads: int) -> dict:
    """`forward` in a process of its own, whose largest memory is then its own too."""
    command = [sys.executable, __file__, "--only", name, "--batch-size", str(options.batch_size)]
    command += ["--repeat", str(options.repeat), "--threads", str(threads)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{name} could not be measured:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def forward(name: str, batch_size: int, repeat: int, threads: int) -> dict:
    """Times of one forward pass of a batch, milliseconds, and memory beyond the weights, MiB."""
    import torch

    from bodyreg.models.registry import build, default_settings

    torch.set_num_threads(threads)
    settings = default_settings(name)
    network: torch.nn.Module = build(settings).eval()
    network = network.to(memory_format=torch.channels_last)
    size = settings.crop_size
    image = torch.randn(batch_size, 3, size, size).contiguous(memory_format=torch.channels_last)
    K = torch.tensor([[2.0 * size, 0, size / 2], [0, 2.0 * size, size / 2], [0, 0, 1]]).repeat(batch_size, 1, 1)
    silent = torch.zeros(batch_size, network.backbone.encoding_channels, size // 4, size // 4)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with torch.inference_mode():
        whole = best(lambda: network(image, K), repeat)
        backbone = best(lambda: network.backbone(image, silent), repeat)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {
        "crop_size": size, "parameters": sum(p.numel() for p in network.parameters()), "forward": whole,
        "backbone": backbone, "images_per_second": round(1000 * batch_size / whole["ms"], 2),
        "memory_mib": round((peak - before) / 1024),
    }  # fmt: skip


def behind(batch_size: int, repeat: int) -> dict:
    """Milliseconds from the raw outputs of both passes to SMPL parameters, and of its parts."""
    import torch

    from bodyreg.body import BodyModel
    from bodyreg.inverse_kinematics import inverse_kinematics, search_beta0
    from bodyreg.models.decoding import merge, read_heads, unmirror, unproject

    g = torch.Generator().manual_seed(0)
    body = BodyModel.load("free")
    raw = [_raw(batch_size, body.num_betas, g) for _ in range(2)]
    K = torch.tensor([[500.0, 0, 128], [0, 500.0, 128], [0, 0, 1]]).repeat(batch_size, 1, 1)

    def decode():
        plain, mirrored = (read_heads(*heads) for heads in raw)
        return unproject(merge(plain, unmirror(mirrored, 256)), K)

    aim, twist, betas, leaf = people(body, batch_size, g)
    with torch.inference_mode():
        return {
            "decode_and_flip_merge": best(decode, repeat),
            "search": best(lambda: search_beta0(body, aim, betas), repeat),
            "inverse_kinematics": best(
                lambda: inverse_kinematics(body, aim, twist, betas, leaf, search=False), repeat
            ),
            "all": best(lambda: (decode(), inverse_kinematics(body, aim, twist, betas, leaf)), repeat),
        }  # fmt: skip


def people(body, batch_size: int, g) -> tuple:
    """Aimed joints, twists, betas and leaf rotations of posed bodies, the joints off by 2 cm as a network's are."""
    import torch

    from bodyreg.inverse_kinematics import LEAF_JOINTS, ortho_twist
    from bodyreg.rotations import matrix_from_aa

    R = matrix_from_aa(0.4 * torch.randn(batch_size, 24, 3, generator=g))
    betas = torch.randn(batch_size, body.num_betas, generator=g)
    posed = body(betas, R[:, 1:], R[:, 0], torch.tensor([0.0, 0.0, 4.0]).repeat(batch_size, 1))
    twist = ortho_twist(body.rest_joints(betas), posed.R_global)
    aim = posed.joints + 0.02 * torch.randn(batch_size, 24, 3, generator=g)
    return aim, twist, betas, R[:, list(LEAF_JOINTS)]


def _raw(batch_size: int, num_betas: int, g) -> tuple:
    """Outputs of the heads of one pass of a 256 pixel crop."""
    import torch

    shapes = ((25, 64, 64), (25,), (1,), (75,), (num_betas,), (30,))
    return tuple(torch.randn(batch_size, *shape, generator=g) for shape in shapes)


def best(call: Callable[[], object], repeat: int) -> dict[str, float]:
    """Shortest of `repeat` runs after one that warms up, milliseconds elapsed and of all processors."""
    call()
    elapsed, processor = [], []
    for _ in range(repeat):
        begin, begin_cpu = time.perf_counter(), time.process_time()
        call()
        elapsed.append(time.perf_counter() - begin)
        processor.append(time.process_time() - begin_cpu)
    return {"ms": round(1000 * min(elapsed), 1), "cpu_ms": round(1000 * min(processor), 1)}


def _print(figures: dict) -> None:
    print(f"{figures['machine']}, batch of {figures['batch_size']}; best of all runs, elapsed (processors)")
    for name in ("perspose_small", "perspose"):
        if row := figures.get(name):
            size = f"{row['crop_size']} px, {row['parameters'] / 1e6:.1f} M parameters"
            print(
                f"{name}: {size}, forward {_text(row['forward'])}, {row['images_per_second']:.1f} images/s, "
                f"{row['memory_mib']} MiB of activations"
            )
    for name, value in figures["behind"].items():
        print(f"{name.replace('_', ' ')}: {_text(value)}, on one thread {_text(figures['behind_on_one_thread'][name])}")
    share = 100 * figures["behind_share_of_compact_backbone"]
    backbone = _text(figures["compact_backbone_on_one_thread"])
    print(f"all behind the network on one thread: {share:.1f} % of the compact backbone's {backbone}")


def _text(value: dict[str, float]) -> str:
    return f"{value['ms']:.0f} ms ({value['cpu_ms']:.0f})"


if __name__ == "__main__":
    raise SystemExit(main())
