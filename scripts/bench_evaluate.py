"""Time and memory of a full `pw3d-j14` evaluation with PVE at 3DPW's size, on random meshes that stream through.

    python scripts/bench_evaluate.py [--samples 35515] [--threads 1]

Meshes are drawn a batch at a time (their drawing is timed apart), joints are regressed from both sides' 6,890 vertices,
and the errors gathered as `bodyreg evaluate` does. Prints seconds and the peak of resident memory.
"""

from __future__ import annotations

import argparse
import resource
import sys
import time

import numpy as np
import torch

from bodyreg.body import BodyModel
from bodyreg.evaluation.accumulate import Samples
from bodyreg.evaluation.evaluate import evaluate
from bodyreg.evaluation.protocols import Protocol
from bodyreg.evaluation.tables import text
from bodyreg.evaluation.truth import Points, Truth, regressed


class RandomMeshes:
    """Meshes of the free body's template with noise, drawn anew for each batch; `seconds` is what the drawing took."""

    def __init__(self, body: BodyModel, samples: Samples, noise_m: float, seed: int) -> None:
        self.body, self.samples, self.noise_m, self.seed, self.seconds = body, samples, noise_m, seed, 0.0

    def points(self, rows: np.ndarray, protocol: Protocol) -> Points:
        start = time.perf_counter()
        generator = torch.Generator().manual_seed(self.seed + int(rows[0]))
        vertices = torch.rand(len(rows), *self.body.v_template.shape, generator=generator)
        vertices = vertices.sub_(0.5).mul_(2 * self.noise_m).add_(self.body.v_template)
        self.seconds += time.perf_counter() - start
        return Points(regressed(self.body, vertices, protocol), vertices)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--samples", type=int, default=35515)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--batch-size", type=int, default=64)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    body = BodyModel.load("free")
    samples = Samples.of([str(k) for k in range(args.samples)], ["one"] * args.samples)
    truth = RandomMeshes(body, samples, 0.02, 0)
    predictions = RandomMeshes(body, samples, 0.05, 10**9)
    before = resource.getrusage(resource.RUSAGE_SELF)
    start = time.perf_counter()
    result = evaluate(predictions, Truth(truth, "pw3d", "random"), "pw3d-j14", batch_size=args.batch_size)
    seconds = time.perf_counter() - start
    after = resource.getrusage(resource.RUSAGE_SELF)
    print(text([result], published=False))
    drawn = truth.seconds + predictions.seconds
    processor = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    peak = after.ru_maxrss / (2**30 if sys.platform == "darwin" else 2**20)
    print(
        f"{args.samples} samples, {args.threads} threads: {seconds:.1f} s, of which {drawn:.1f} s drew random meshes; "
        f"{processor:.1f} s of processor time; peak memory {peak:.2f} GiB"
    )


if __name__ == "__main__":
    main()
