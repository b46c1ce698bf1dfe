"""Our skinning against the `smplx` package's, on one thread: seconds, their ratio, and how far the results are apart.

    python scripts/bench_body.py
    python scripts/bench_body.py --body free random --batches 1 8 64 --json bench_body.json

Both pose the same bodies from axis-angle in one process, turn by turn. Times are the least processor time of all turns,
and a ratio is the median over turns of the ratio within one, which other work on the machine moves least. "forward" is
without gradients, "with backward" goes back to shape, pose and place from a gradient on every vertex. `random` is a
body of SMPL's size made of random numbers, in which four joints move every vertex, the most that SMPL's files have.
Needs the extra `smplx`.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import platform
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bodyreg.body import BodyModel
from bodyreg.body_files import PARENTS


def random_arrays(vertices: int = 6890, seed: int = 0) -> dict[str, np.ndarray]:
    """Arrays under the keys of SMPL's files: ten betas, four joints a vertex, faces of a double cone."""
    rng = np.random.default_rng(seed)
    ring = np.arange(vertices - 2)
    following = np.roll(ring, -1)
    top, bottom = np.full_like(ring, vertices - 2), np.full_like(ring, vertices - 1)
    weights = np.zeros((vertices, 24))
    chosen = rng.random((vertices, 24)).argsort(1)[:, :4]
    np.put_along_axis(weights, chosen, rng.dirichlet(np.ones(4), vertices), 1)
    regressor = rng.random((24, vertices)) ** 8
    return {
        "v_template": rng.normal(size=(vertices, 3)) * 0.3,
        "shapedirs": rng.normal(size=(vertices, 3, 10)) * 0.02,
        "posedirs": rng.normal(size=(vertices, 3, 207)) * 0.004,
        "J_regressor": regressor / regressor.sum(1, keepdims=True),
        "weights": weights,
        "kintree_table": np.array([PARENTS, range(24)], dtype=np.int64),
        "f": np.concatenate([np.stack([following, ring, top], 1), np.stack([ring, following, bottom], 1)]),
    }


def load_both(name: str) -> tuple[BodyModel, Any]:
    """Our model and the package's of the same arrays, ten betas each. name: "random", or as of `BodyModel.load`."""
    import smplx

    ours = BodyModel.from_arrays(random_arrays(), num_betas=10) if name == "random" else BodyModel.load(name)
    arrays = {key: getattr(ours.arrays, key) for key in ("v_template", "posedirs", "J_regressor", "weights")}
    shapes = ours.arrays.shapedirs[:, :, :10]
    # Fewer than 300 columns make the package print a warning: zeros behind, of which it takes none.
    arrays["shapedirs"] = np.concatenate([shapes, np.zeros((*shapes.shape[:2], 290))], 2)
    arrays |= {"f": ours.arrays.faces, "kintree_table": np.array([ours.parents, range(24)])}
    with contextlib.redirect_stdout(io.StringIO()):
        theirs = smplx.SMPL(model_path="", data_struct=SimpleNamespace(**arrays), num_betas=10)
    return ours, theirs


def parameters(batch: int) -> dict[str, Tensor]:
    """Random bodies, axis-angle."""
    generator = torch.Generator().manual_seed(0)
    sizes = {"betas": 10, "body_pose": 69, "global_orient": 3, "transl": 3}
    return {key: (0.3 * torch.randn(batch, n, generator=generator)).requires_grad_() for key, n in sizes.items()}


def measure(ours: BodyModel, theirs: Any, batch: int, repeat: int) -> dict[str, Any]:
    """Least milliseconds of each, the median ratio of a turn, and the largest differences: of vertices in metres, of
    gradients relative to the largest component."""
    given = parameters(batch)
    of_vertices = torch.randn(batch, len(ours.weights), 3, generator=torch.Generator().manual_seed(1))

    def forward(model: Callable[..., Any]) -> Tensor:
        with torch.no_grad():
            return model(**given).vertices

    def backward(model: Callable[..., Any]) -> tuple[Tensor, ...]:
        return torch.autograd.grad(model(**given).vertices, list(given.values()), of_vertices)

    row: dict[str, Any] = {"batch": batch}
    with torch.no_grad():
        row["vertices_apart_m"] = float((forward(ours) - forward(theirs)).abs().max())
    pairs = zip(backward(ours), backward(theirs), strict=True)
    row["gradients_apart"] = max(float((a - b).abs().max() / b.abs().max()) for a, b in pairs)
    for label, function in (("forward", forward), ("with_backward", backward)):
        turns = np.array([[1e3 * _seconds(function, model) for model in (ours, theirs)] for _ in range(repeat)])
        least, ratio = turns.min(0), np.median(turns[:, 1] / turns[:, 0])
        row[label] = {"ours_ms": round(least[0], 2), "smplx_ms": round(least[1], 2), "ratio": round(float(ratio), 2)}
    return row


def _seconds(function: Callable[[Any], Any], model: Any) -> float:
    start = time.thread_time()
    function(model)
    return time.thread_time() - start


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--body", nargs="+", default=["free", "random"], help="free, random, smpl or a file")
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 8, 64])
    parser.add_argument("--repeat", type=int, default=30, help="turns of each")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    print(f"{platform.machine()}, one thread, torch {torch.__version__}, least of {options.repeat} turns")
    print("| body | batch | forward, ms | smplx, ms | ratio | with backward, ms | smplx, ms | ratio | apart, m |")
    print("|---|---|---|---|---|---|---|---|---|")
    rows = []
    for name in options.body:
        ours, theirs = load_both(name)
        for batch in options.batches:
            row = {"body": name, **measure(ours, theirs, batch, options.repeat)}
            rows.append(row)
            keys = ("ours_ms", "smplx_ms", "ratio")
            cells = [f"{row[part][key]}" for part in ("forward", "with_backward") for key in keys]
            print(f"| {name} | {batch} | {' | '.join(cells)} | {row['vertices_apart_m']:.1e} |", flush=True)
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
