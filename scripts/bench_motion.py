"""Lifters on the motion benchmark, small members with equal budgets, in one table.

    bodyreg prepare motion --root AMASS_DIR --out data/motion
    python scripts/bench_motion.py --data data/motion/motion_noisy.npz --epochs 30
    python scripts/bench_motion.py --data data/motion/motion_noisy.npz --seconds 600

Every network learns from every frame of the training clips equally often, or trains for the same processor seconds (how
many steps that is, a short trial tells); each with the losses and windows of its configuration, all with Adam and a
cosine rate; then it is scored on the test clips with the flip test. Beside the errors stand parameters, operations
(counted) and clips a second of processor time at inference. Training is on a GPU where there is one. Finished trainings
and scores are kept, so that an interrupted script goes on, and `--only` can share the networks among processes.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from bodyreg import config
from bodyreg.evaluation.lifters import score_lifter_set
from bodyreg.files import atomic_write
from bodyreg.lifter_weights import load_lifter
from bodyreg.models.lifters.cost import lifter_cost
from bodyreg.models.lifters.registry import build_lifter, lifter_entry
from bodyreg.training.lifter_settings import LifterTraining
from bodyreg.training.lifters import Clips, LifterModule, train_lifter


@dataclass(frozen=True)
class Member:
    """A network of the comparison: its configuration, clips a batch, and what makes it small."""

    config: str
    batch: int
    options: tuple[str, ...] = ("model.preset=small",)


_SEQUENCE = ("model.preset=small", "model.options={width: 32, depth: 4}")
MEMBERS = {
    "videopose3d": Member("videopose3d", 256),
    "mixste": Member("mixste", 16, _SEQUENCE),
    "ktpformer": Member("ktpformer", 16, (*_SEQUENCE, "loss.squared=false")),
    "hot_mixste": Member("hot_mixste", 16, (_SEQUENCE[0], "model.options={width: 32, depth: 4, layer_index: 1}")),
    "gla_gcn": Member("gla_gcn", 128, ("model.preset='27'", "model.options={channels: 32}")),
    "convformer": Member("convformer", 256),
    "gumlp": Member("gumlp", 256),
}
_TRIAL_STEPS = 6


def train(name: str, arguments: argparse.Namespace) -> Path:
    """Weights of a member after its budget."""
    member, out = MEMBERS[name], arguments.out / name
    weights = out / f"{member.config}.safetensors"
    if weights.exists():
        return weights
    overrides = [
        f"data.prepared={arguments.data}", *member.options, f"data.batch_size={member.batch * arguments.batches}",
        "optimiser.name=adam", f"optimiser.lr={arguments.lr}",
        "optimiser.schedule=cosine", "optimiser.weight_decay=0", "optimiser.lowest=1e-5", "optimiser.clip=1.0",
        f"run.seed={arguments.seed}", f"run.out={out}", "run.validation_sequences=1",
    ]  # fmt: skip
    plan = out / "plan.json"
    if not plan.exists():
        settings = config.load(LifterTraining, member.config, overrides)
        clips = Clips(settings)
        per_epoch = len(clips.batches(0, 1))
        if arguments.epochs:
            steps = arguments.epochs * per_epoch
        else:
            steps = max(20, int(arguments.seconds / step_seconds(settings, clips, per_epoch)))
        out.mkdir(parents=True, exist_ok=True)
        epochs = -(-steps // per_epoch)
        with atomic_write(plan) as temporary:
            temporary.write_text(json.dumps({"steps": steps, "epochs": epochs}), encoding="utf-8")
    planned = json.loads(plan.read_text(encoding="utf-8"))
    steps, epochs = planned["steps"], planned["epochs"]
    limits = [f"run.max_steps={steps}", f"run.epochs={epochs}", f"run.validate_every={steps}"]
    return train_lifter(member.config, [*overrides, *limits], progress=False)


def step_seconds(settings: LifterTraining, clips: Clips, per_epoch: int) -> float:
    """Processor seconds of a training step: the median of a few, the first left out."""
    torch.manual_seed(0)
    module = LifterModule(settings, per_epoch, tuple(clips.table.mirror_in), tuple(clips.table.mirror_out))
    optimiser = torch.optim.Adam(module.parameters(), lr=1e-4)
    times, batches = [], iter(clips.batches(0, 1))
    for _ in range(_TRIAL_STEPS):
        start = time.process_time()
        loss = torch.stack(list(module.losses(next(batches)).values())).sum()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        times.append(time.process_time() - start)
    return sorted(times[1:])[len(times) // 2 - 1]


def clips_per_second(settings: Any, repeats: int = 5) -> float:
    """Clips a second of processor time, in batches of sixteen: the fastest of a few."""
    network = build_lifter(settings).eval()
    entry = lifter_entry(settings.name)
    clips = torch.randn(16, entry.frames(settings), 17, entry.channels)
    best = float("inf")
    with torch.inference_mode():
        for _ in range(repeats):
            start = time.process_time()
            network(clips)
            best = min(best, time.process_time() - start)
    return len(clips) / best


def measure(name: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """One line of the table."""
    path = arguments.out / name / "row.json"
    if path.exists():
        return json.loads(path.read_text(encoding="utf-8"))
    loaded = load_lifter(train(name, arguments))
    result = score_lifter_set(loaded, arguments.data)
    cost = lifter_cost(loaded.settings)
    row = {
        "errors": {key: 1000 * value for key, value in result.errors.items()}, "parameters": cost.parameters,
        "flops": cost.flops, "frames": cost.frames, "steps": int(loaded.facts["trained_steps"]),
        "clips_per_second": clips_per_second(loaded.settings), "output": lifter_entry(name).output,
    }  # fmt: skip
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(row, indent=1) + "\n", encoding="utf-8")
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="prepared set, see `bodyreg prepare motion`")
    parser.add_argument("--out", type=Path, default=Path("runs/bench_motion"))
    parser.add_argument("--seconds", type=float, default=600, help="processor seconds of training for each network")
    parser.add_argument("--epochs", type=int, help="passes over the training clips for each network, and not seconds")
    parser.add_argument("--batches", type=int, default=1, help="how many times the usual batch sizes, for a GPU")
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--only", nargs="*", choices=list(MEMBERS), default=list(MEMBERS))
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    console = Console(width=160)
    rows = {}
    for name in arguments.only:
        rows[name] = measure(name, arguments)
        console.print(name, rows[name])
    errors = next(iter(rows.values()))["errors"]
    table = Table("mm", *errors, "parameters", "MFLOPs a clip", "frames", "poses", "clips/s")
    for name, row in rows.items():
        flops = "-" if row["flops"] is None else f"{row['flops'] / 1e6:.1f}"
        table.add_row(
            name, *(f"{value:.1f}" for value in row["errors"].values()), f"{row['parameters']:,}", flops,
            str(row["frames"]), row["output"], f"{row['clips_per_second']:.0f}",
        )  # fmt: skip
    console.print(table)
    with atomic_write(arguments.out / "table.json") as temporary:
        temporary.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
