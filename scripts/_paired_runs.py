"""What experiments with paired runs share: several runs at once, pictures painted once for all variants of a seed,
training that goes on where it was killed, errors that are kept in files."""

from __future__ import annotations

import argparse
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bodyreg.body import BodyModel
from bodyreg.evaluation.metrics import mpjpe, pa_mpjpe, pve, pve_t_sc
from bodyreg.files import atomic_write, load_checkpoint
from bodyreg.inverse_kinematics import inverse_kinematics
from bodyreg.models.perspose import normalise_image
from bodyreg.training.regressor import RegressorModule
from bodyreg.training.run import start_from

log = logging.getLogger("paired")


def add_arguments(parser: argparse.ArgumentParser, *, crop_size: int) -> None:
    """What every experiment is asked: where its people are, its budget, and how the machine is used."""
    parser.add_argument("--out", type=Path, required=True, help="folder of runs, tables and the plot")
    parser.add_argument("--motion", type=Path, help="folder of AMASS-layout files; default: the shipped pose prior")
    parser.add_argument("--train", type=Path, help="shards of people to train on; default: rendered into DIR")
    parser.add_argument("--held-out", type=Path, help="shards of people not trained on; default: rendered into DIR")
    parser.add_argument("--train-people", type=int, default=12288, help="rendered, where there are none")
    parser.add_argument("--people", type=int, default=2000, help="test people")
    parser.add_argument("--samples", type=int, default=20000, help="budget of a run")
    parser.add_argument("--seeds", type=int, default=3, help="paired seeds")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--crop-size", type=int, default=crop_size, help="side of the crops, pixels")
    parser.add_argument("--lr", type=float, default=3e-4, help="highest rate: warm-up of a tenth, then a cosine")
    parser.add_argument("--bank-size", type=int, default=400, help="backgrounds kept in memory")
    parser.add_argument("--threads", type=int, default=1, help="of tensor operations in each process")
    parser.add_argument("--device", default="cpu", help="where runs train: cpu or cuda")
    parser.add_argument("--jobs", type=int, default=1, help="runs at once, each in a process of its own")
    parser.add_argument("--keep", type=Path, help="folder of painted batches; default: each run paints its own")


def each(work: Callable[..., None], calls: Sequence[tuple[Any, ...]], *, jobs: int, threads: int) -> None:
    """Call `work` with every tuple of arguments, in this process or up to `jobs` at once in processes of their own.

    Raises:
        Exception: what the first call to fail raised, after the others have ended.
    """
    if jobs <= 1:
        for arguments in calls:
            work(*arguments)
        return
    with ProcessPoolExecutor(jobs, get_context("spawn"), initializer=_start, initargs=(threads,)) as pool:
        for future in [pool.submit(work, *arguments) for arguments in calls]:
            future.result()


def _start(threads: int) -> None:
    torch.set_num_threads(threads)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")


def painted(folder: Path | None, number: int, paint: Callable[[int], dict[str, Tensor]]) -> dict[str, Tensor]:
    """Batch `number`: the one kept in `folder`, painted and kept first where there is none; None keeps nothing."""
    if folder is None:
        return paint(number)
    path = folder / f"{number:05d}.pt"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as temporary:
            torch.save(paint(number), temporary)
    return load_checkpoint(path)


def all_painted(path: Path | None, paint: Callable[[], Iterator[dict[str, Tensor]]]) -> Iterator[dict[str, Tensor]]:
    """Every batch of `paint`: those kept in the file, painted and kept first where it is not; None keeps nothing."""
    if path is None:
        return paint()
    if not path.exists():
        with atomic_write(path) as temporary:
            torch.save(list(paint()), temporary)
    return iter(load_checkpoint(path))


def to(batch: dict[str, Tensor], device: str) -> dict[str, Tensor]:
    """A batch on a device."""
    return {name: value.to(device, non_blocking=True) for name, value in batch.items()}


def fit(
    module: RegressorModule, start: Path, out: Path, loss: Callable[[int], Tensor], *, steps: int, batch_size: int,
    checkpoint_every: int = 100, device: str = "cpu",
) -> None:  # fmt: skip
    """Train from `start` for `steps` batches; `out` gets last.ckpt, from which a killed run goes on.

    Args:
        module: its network and optimiser. start: weights or a checkpoint to begin with.
        loss: of a batch by its number, which alone decides what is in it: a run that goes on sees what an undisturbed
            one would. device: where the module is trained.
    """
    last = out / "last.ckpt"
    out.mkdir(parents=True, exist_ok=True)
    module.to(device)
    options = module.configure_optimizers()
    optimiser, schedule = options["optimizer"], options["lr_scheduler"]["scheduler"]
    done = 0
    if last.exists():
        state = load_checkpoint(last)
        done = int(state["step"])
        module.load_state_dict(state["state_dict"])
        optimiser.load_state_dict(state["optimiser"])
        schedule.load_state_dict(state["schedule"])
    else:
        start_from(module.model, start)
    module.train()
    begin = time.monotonic()
    for step in range(done, steps):
        total = loss(step)
        optimiser.zero_grad(set_to_none=True)
        total.backward()
        torch.nn.utils.clip_grad_norm_(module.parameters(), module.settings.optimiser.clip)
        optimiser.step()
        schedule.step()
        if (step + 1) % checkpoint_every == 0 or step + 1 == steps:
            with atomic_write(last) as temporary:
                torch.save({"step": step + 1, "state_dict": module.state_dict(), "optimiser": optimiser.state_dict(),
                            "schedule": schedule.state_dict()}, temporary)  # fmt: skip
            rate = (step + 1 - done) * batch_size / (time.monotonic() - begin)
            log.info("%s: step %d of %d, loss %.3f, %.0f samples/s", out.name, step + 1, steps, total.item(), rate)


def kept(path: Path, measure: Callable[[], dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """The columns of a file, measured and written first where there is none."""
    if not path.exists():
        columns = measure()
        with atomic_write(path) as temporary, open(temporary, "wb") as stream:
            np.savez(stream, **columns)
        name, values = next(iter(columns.items()))
        log.info("%s: %s %.4f", path, name, values.mean())
    with np.load(path, allow_pickle=False) as data:
        return {name: data[name] for name in data.files}


def body_errors(
    network: Any,
    body: BodyModel,
    batches: Iterator[dict[str, Tensor]],
    also: tuple[str, ...] = (),
    device: str = "cpu",
) -> dict[str, np.ndarray]:
    """Errors of every person's body after inverse kinematics with flip test, metres, about the pelvis.

    Args:
        network: a PersPose network. batches: of `ShardStream`. also: entries of the batches that become columns.
        device: where the bodies are worked out.
    """
    network, body = network.to(device), body.to(device)
    parents = torch.as_tensor(body.parents).clamp(min=0).to(device)
    rows: dict[str, list[Tensor]] = {}
    with torch.no_grad():  # not inference mode: what the body keeps for later calls may have to be differentiable
        for batch in (to(batch, device) for batch in batches):
            decoded = network.predict(normalise_image(batch["image"].float() / 255), batch["K_crop"])
            aim = decoded.xyz[:, :24] + decoded.xyz0
            solved = inverse_kinematics(body, aim, decoded.ortho_twist, decoded.beta, decoded.leaf_rot)
            posed = body(solved.betas, solved.R_local[:, 1:], solved.R_local[:, 0])
            R = batch["R_global"]
            true = body(batch["betas"], (R[:, parents].mT @ R)[:, 1:], R[:, 0])
            joints, true_joints = posed.joints - posed.joints[:, :1], true.joints - true.joints[:, :1]
            values = {
                "MPJPE": mpjpe(joints, true_joints), "PA-MPJPE": pa_mpjpe(joints, true_joints),
                "PVE": pve(posed.vertices - posed.joints[:, :1], true.vertices - true.joints[:, :1]),
                "PVE-T-SC": pve_t_sc(body(solved.betas).vertices, body(batch["betas"]).vertices),
                **{name: batch[name] for name in ("betas", *also)},
            }  # fmt: skip
            for name, value in values.items():
                rows.setdefault(name, []).append(value.cpu())
    return {name: torch.cat(values).numpy() for name, values in rows.items()}
