"""What refining bodies to 2D key points gains under noise, and how fast it is.

    python scripts/bench_refine.py --held-out data/synthetic/held_out --people 256
    python scripts/bench_refine.py --speed

The first line poses held-out synthetic people with the weights that ship, takes the true body's key points, adds
Gaussian noise (standard deviation of each coordinate, in pixels of the crop 256 wide) and refines; errors are of SMPL's
24 joints and of all vertices relative to the pelvis. The second times 64 people refined together on two threads.
"""

from __future__ import annotations

import argparse
import json
import resource
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bodyreg.adapt.meshes import UNIT_CROP, BodyParameters, MeshSettings, refine_bodies
from bodyreg.body import BodyModel, BodyOutput
from bodyreg.cameras import project
from bodyreg.checkpoints import default_weights, load_model
from bodyreg.data.synthetic.stream import ShardStream
from bodyreg.evaluation.metrics import mpjpe, pve
from bodyreg.files import atomic_write
from bodyreg.inference.regress import Regressor
from bodyreg.rotations import aa_from_matrix


class People:
    """Predicted and true bodies in the cameras of their crops, and those cameras."""

    def __init__(self, held_out: Path, model: str, people: int) -> None:
        loaded = load_model(default_weights(model))
        self.body = BodyModel.load(loaded.body)
        self.crop = loaded.settings.crop_size
        stream = ShardStream(
            held_out, self.body, crop_size=self.crop, batch_size=64, seed=1, augment=False, bank_size=64,
            perspective_rotation=loaded.settings.perspective_rotation,
        )  # fmt: skip
        regressor = Regressor(loaded, self.body, "cpu")
        predicted, true, cameras = [], [], []
        for batch in stream.once(people):
            estimate = regressor.predict(batch["image"].permute(0, 2, 3, 1).numpy(), batch["K_crop"].numpy())
            predicted.append(self._parameters(estimate.R_local, estimate.betas, estimate.transl))
            parents = torch.tensor(self.body.parents).clamp(min=0)
            local = batch["R_global"][:, parents].mT @ batch["R_global"]
            local[:, 0] = batch["R_global"][:, 0]
            transl = batch["joints"][:, 0] - self.body.rest_joints(batch["betas"])[:, 0]
            true.append(self._parameters(local, batch["betas"], transl))
            cameras.append(batch["K_crop"])
        self.predicted, self.true = (BodyParameters(*map(torch.cat, zip(*x, strict=True))) for x in (predicted, true))
        self.K = torch.cat(cameras)

    @staticmethod
    def _parameters(R_local: Tensor, betas: Tensor, transl: Tensor) -> BodyParameters:
        pose = aa_from_matrix(R_local)
        return BodyParameters(pose[:, 0], pose[:, 1:].flatten(1), betas, transl)

    @torch.no_grad()
    def pose(self, parameters: BodyParameters) -> BodyOutput:
        """The bodies of all people."""
        return self.body(**parameters._asdict())

    def keypoints(self, joint_set: str, noise: float, seed: int = 0) -> Tensor:
        """(B, J, 2) noisy key points of the true bodies, pixels of the crops."""
        clean = project(self.body.regress(self.pose(self.true).vertices, joint_set), self.K)
        generator = torch.Generator().manual_seed(seed)
        return clean + noise * self.crop / UNIT_CROP * torch.randn(clean.shape, generator=generator)


def accuracy(people: People, joint_set: str, noises: list[float], seed: int) -> list[dict[str, Any]]:
    """A row for the first prediction and one a level of noise: errors in millimetres, gain in percent."""
    truth = people.pose(people.true)

    def errors(found: BodyOutput) -> tuple[Tensor, Tensor]:
        root, true_root = found.joints[:, :1], truth.joints[:, :1]
        return (
            1000 * mpjpe(found.joints - root, truth.joints - true_root),
            1000 * pve(found.vertices - root, truth.vertices - true_root),
        )

    before = errors(people.pose(people.predicted))
    rows: list[dict[str, Any]] = [_row("before", joint_set, before, before)]
    count = len(people.K)
    for noise in noises:
        points = people.keypoints(joint_set, noise, seed)
        refined = refine_bodies(
            people.body, people.predicted, points, torch.ones(points.shape[:2]), people.K, joint_set=joint_set,
            crop_px=torch.full((count,), float(people.crop)),
        )  # fmt: skip
        row = _row(f"{noise:g} px", joint_set, errors(people.pose(refined.parameters)), before)
        rows.append(row | {"estimated_noise_px": float(refined.noise_px.nanmean())})
    return rows


def _row(
    name: str, joint_set: str, found: tuple[Tensor, Tensor], before: tuple[Tensor, Tensor]
) -> dict[str, Any]:  # fmt: skip
    (joints, vertices), (joints_before, vertices_before) = ([float(x.mean()) for x in pair] for pair in (found, before))
    return {
        "noise": name, "joint_set": joint_set, "people": len(found[0]), "mpjpe_mm": joints, "pve_mm": vertices,
        "mpjpe_gain_percent": 100 * (1 - joints / joints_before),
        "pve_gain_percent": 100 * (1 - vertices / vertices_before),
        "worse_percent": 100 * float((found[0] > before[0] + 1e-3).float().mean()),
    }  # fmt: skip


def speed(people: int, iterations: int, threads: int, repeats: int) -> dict[str, float]:
    """Least seconds, on the clock and of the processor, for people refined together without the renderer."""
    torch.set_num_threads(threads)
    body = BodyModel.load("free")
    generator = torch.Generator().manual_seed(0)

    def some(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    upright = torch.tensor([[torch.pi, 0, 0]]) + 0.2 * some(people, 3)
    true = BodyParameters(
        upright, 0.2 * some(people, 69), some(people, 10), torch.tensor([0, 0, 4.0]).expand(people, 3)
    )
    K = torch.tensor([[600.0, 0, 300], [0, 600, 300], [0, 0, 1]])
    with torch.no_grad():
        points = project(body.regress(body(**true._asdict()).vertices, "openpose-25"), K)
    start = true._replace(body_pose=true.body_pose + 0.1 * some(people, 69))
    wall, cpu = [], []
    for _ in range(repeats):
        t, used = time.perf_counter(), _processor()
        refine_bodies(
            body, start, points, torch.ones(points.shape[:2]), K, joint_set="openpose-25",
            settings=MeshSettings(iterations=iterations),
        )  # fmt: skip
        wall.append(time.perf_counter() - t)
        cpu.append(_processor() - used)
    return {"people": people, "iterations": iterations, "threads": threads, "seconds": min(wall), "cpu_s": min(cpu)}


def _processor() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--held-out", type=Path, default=Path("data/synthetic/held_out"), help="folder of shards")
    parser.add_argument("--model", default="perspose_small")
    parser.add_argument("--people", type=int, default=256)
    parser.add_argument("--joint-set", nargs="+", default=["openpose-25", "coco-17"])
    parser.add_argument("--noise", type=float, nargs="+", default=[0, 2, 4, 8, 15], help="pixels of a crop 256 wide")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--speed", action="store_true", help="time it instead")
    parser.add_argument("--iterations", type=int, default=50)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path, help="also write the rows as JSON")
    given = parser.parse_args()
    if given.speed:
        rows: list[dict[str, Any]] = [dict(speed(64, given.iterations, given.threads, given.repeats))]
        print(
            f"{rows[0]['people']} people, {rows[0]['iterations']} iterations, {rows[0]['threads']} threads: "
            f"{rows[0]['seconds']:.2f} s, {rows[0]['cpu_s']:.2f} s of the processor"
        )
    else:
        torch.set_num_threads(given.threads)
        people = People(given.held_out, given.model, given.people)
        rows = []
        print(
            "| 2D noise | key points | MPJPE | gain | PVE | gain | people worse |\n|---|---|---:|---:|---:|---:|---:|"
        )
        for joint_set in given.joint_set:
            for row in accuracy(people, joint_set, given.noise, given.seed):
                rows.append(row)
                print(
                    f"| {row['noise']} | {joint_set} | {row['mpjpe_mm']:.1f} | {row['mpjpe_gain_percent']:.1f} % | "
                    f"{row['pve_mm']:.1f} | {row['pve_gain_percent']:.1f} % | {row['worse_percent']:.0f} % |",
                    flush=True,
                )
    if given.out:
        with atomic_write(given.out) as temporary:
            temporary.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
