"""What semantic rendering costs in a training step of the joint system: compact member, cached people.

    python scripts/bench_dsr.py [--maps 64 96] [--crop 96] [--batch 32] [--repeats 2] [--precision 32-true] ...

A step is forward, inverse kinematics, body, all losses and backward. Its semantic part, rendering and DSR losses with
their backward down to the rendered vertices, is timed inside the very step it is a share of. The least time of the
repeats counts, since other work on the machine only adds. On a processor the seconds are those it worked for this
process, on a GPU those that passed. The smaller the crops, the less the network does and the more the share: 96 pixels,
where most steps of a run are spent, is its worst case. So is single precision on a processor that has no arithmetic
for bfloat16 and takes several times as long to imitate it; a run's configuration decides (run.precision).
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from bodyreg import config
from bodyreg.body import BodyModel
from bodyreg.checkpoints import default_weights
from bodyreg.data.synthetic.prepare import prepare_synthetic
from bodyreg.data.synthetic.stream import ShardStream
from bodyreg.training.perspose_dsr import JointModule, JointSettings, joint_terms
from bodyreg.training.run import start_from
from bodyreg.training.semantic import SemanticTerms


class Cost(NamedTuple):
    """Seconds of a whole step, and of its semantic part forward and backward."""

    step: float
    forward: float
    backward: float
    rendered: float
    """Share of the batch that was rendered: a body off the picture costs nothing."""

    @property
    def share(self) -> float:
        return (self.forward + self.backward) / self.step


class Timed:
    """DSR terms that run their own backward at once: the same gradient, with a clock on either side of it."""

    def __init__(self, terms: SemanticTerms, clock: Callable[[], float]) -> None:
        self.terms, self.clock = terms, clock
        self.forward = self.backward = self.rendered = 0.0

    def __call__(self, points: Tensor, labels: Tensor, epoch: int, steps_since_start: int) -> dict[str, Tensor]:
        leaf = points.detach().requires_grad_()
        start = self.clock()
        terms = self.terms(leaf, labels, epoch, steps_since_start)
        middle = self.clock()
        (gradient,) = torch.autograd.grad(terms["dsr_mc"] + terms["dsr_c"], leaf)
        self.forward, self.backward = middle - start, self.clock() - middle
        self.rendered = float(terms["log_dsr_rendered"])
        return {"dsr": (points * gradient).sum()}


def step_cost(system: JointModule, batch: dict[str, Tensor], body: BodyModel) -> Cost:
    """Cost of one training step of the joint system on a batch of `ShardStream` with parsing maps."""
    device = batch["image"].device.type

    def clock() -> float:
        if device == "cuda":
            torch.cuda.synchronize()
            return time.perf_counter()
        return time.process_time()

    timed = Timed(system.semantic, clock)
    mixed = system.settings.run.precision == "bf16-mixed"
    start = clock()
    with torch.autocast(device, torch.bfloat16, enabled=mixed):
        terms = joint_terms(system.model, body, timed, batch, 0, system.settings)  # type: ignore[arg-type]
    system.zero_grad()
    torch.stack(list(terms.values())).sum().backward()
    return Cost(clock() - start, timed.forward, timed.backward, timed.rendered)


def main(arguments: list[str] | None = None) -> dict[int, Cost]:
    """Measure and print; least costs by side of the maps."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, value in (("batch", 32), ("crop", 96), ("repeats", 2), ("threads", 1)):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--maps", type=int, nargs="+", default=[64, 96], help="sides of the rendered maps, pixels")
    parser.add_argument("--precision", default="32-true", choices=["bf16-mixed", "32-true"], help="of the network")
    parser.add_argument("--backend", default=None, help="of the renderer")
    parser.add_argument("--preset", default="corrected")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--prior", default=None, help="a file, or skinning")
    parser.add_argument("--weights", default=None, help="to begin with; default: those that ship, or none")
    parser.add_argument("--set", action="append", default=[], metavar="section.key=value", help="of perspose_dsr.yaml")
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    settings = config.load(JointSettings, "perspose_dsr", options.set)
    settings.run.precision, settings.renderers.backend = options.precision, options.backend
    settings.semantic.warmup_steps = 0
    settings.semantic.preset, settings.semantic.prior = options.preset, options.prior
    device, body = torch.device(options.device), BodyModel.load("free")
    with tempfile.TemporaryDirectory() as folder:
        prepare_synthetic(folder, options.batch, per_shard=options.batch, seed=0, progress=False)
        stream = ShardStream(folder, body, crop_size=options.crop, batch_size=options.batch, bank_size=4, parsing=True)
        batch = {name: value.to(device) for name, value in stream.batch(0).items()}
    least: dict[int, Cost] = {}
    for side in options.maps:
        settings.semantic.image_size = side
        torch.manual_seed(0)
        system = JointModule(settings, body)
        if options.weights != "none":
            start_from(system.model, options.weights or default_weights("perspose_small"))
        system = system.to(device).train()
        costs = [step_cost(system, batch, body.to(device)) for _ in range(options.repeats)]
        least[side] = cost = Cost(*(min(column) for column in zip(*costs, strict=True)))
        print(
            f"batch {options.batch}, crops {options.crop}, maps {side}, {options.preset}, {settings.run.precision}, "
            f"{device}, {options.threads} threads: step {cost.step:.2f} s, DSR forward {cost.forward:.3f} s and "
            f"backward {cost.backward:.3f} s, {100 * cost.share:.1f} % of the step, "
            f"{100 * cost.rendered:.0f} % of the bodies rendered", flush=True,
        )  # fmt: skip
    return least


if __name__ == "__main__":
    main()
