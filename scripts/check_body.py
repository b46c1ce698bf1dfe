"""Check a body model over many shapes and poses: `python scripts/check_body.py [--motion FOLDER]`.

1,000 random shapes at rest (three genders and mixes with the child, shape numbers within 2.5) and 200 poses (frames of
motion files in AMASS's layout, or of the pose prior that ships) are posed and measured; the table says how many have
values that are not numbers, the smallest enclosed volume, and how many faces are turned inside out. Ends with exit 1
where a body fails the limits below.

**Turned faces.** A face follows the bones it is bound to: its expected normal is the one it has in the mean shape,
turned by the rotation nearest to the mean over its corners of sum_j w_j R_j (w_j skinning weight, R_j global rotation
of joint j). A face whose real normal points away from that (negative dot product) is turned. Some of that is harmless:
skin in the crease of a bent elbow, hip or armpit folds, as in every skinned body, and at rest the skin under the
breast, between the toes and behind the ears tips over in a few extreme shapes. What must not happen is a limb turned
inside out, so faces that are bound to one bone (mean weight of the corners > 0.95) are counted apart and held to less.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from bodyreg.body import BodyModel
from bodyreg.data.synthetic.poses import PoseSampler

MAX_TURNED_REST = 0.005
MAX_TURNED_POSED = 0.015
MAX_TURNED_RIGID = 0.003
VOLUME = (0.003, 0.2)
"""Limits: share of turned faces at rest, posed, and among faces of one bone; cubic metres of a baby and of a giant."""


class Report(NamedTuple):
    """One row per body: finite (N,) bool, volume (N,) cubic metres, turned (N,) and turned_rigid (N,) shares."""

    finite: np.ndarray
    volume: np.ndarray
    turned: np.ndarray
    turned_rigid: np.ndarray

    def faults(self, max_turned: float) -> list[str]:
        """Sentences about what is wrong; empty for sound bodies."""
        low, high = VOLUME
        bad = {
            "have values that are not numbers": ~self.finite,
            f"enclose less than {low} or more than {high} cubic metres": ~((self.volume > low) & (self.volume < high)),
            f"have more than {max_turned:.1%} of their faces turned": ~(self.turned <= max_turned),
            f"have more than {MAX_TURNED_RIGID:.1%} of their one-bone faces turned":
                ~(self.turned_rigid <= MAX_TURNED_RIGID),
        }  # fmt: skip
        return [f"{int(rows.sum())} of {len(rows)} bodies {what}." for what, rows in bad.items() if rows.any()]


def check(body: BodyModel, betas: np.ndarray, body_pose: np.ndarray, batch: int = 25) -> Report:
    """Pose and measure bodies; betas (N, S), body_pose (N, 23, 3) axis-angle radians."""
    faces, weights = body.faces.numpy(), body.weights.numpy()
    reference = _normals(body.v_template.numpy()[None], faces)[0]
    corner_weights = weights[faces].mean(1)
    rigid = (corner_weights > 0.95).any(1)
    rows: list[tuple[np.ndarray, ...]] = []
    for start in range(0, len(betas), batch):
        cut = slice(start, start + batch)
        with torch.no_grad():
            out = body(betas=torch.as_tensor(betas[cut]), body_pose=torch.as_tensor(body_pose[cut]))
        R = _global_rotations(out.global_orient.numpy(), out.body_pose.numpy(), body.parents)
        expected = np.stack([_turn(corner_weights, r, reference) for r in R])
        vertices = out.vertices.numpy().astype(np.float64)
        real = _normals(vertices, faces)
        turned = (real * expected).sum(-1) < 0
        p = vertices[:, faces]
        volume = np.einsum("nfi,nfi->n", np.cross(p[:, :, 0], p[:, :, 1]), p[:, :, 2]) / 6
        rows.append((np.isfinite(vertices).all((1, 2)), volume, turned.mean(1), turned[:, rigid].mean(1)))
    return Report(*(np.concatenate(column) for column in zip(*rows, strict=True)))


def random_shapes(n: int, rng: np.random.Generator) -> Iterator[tuple[str, bool, np.ndarray]]:
    """(gender, kid, betas) blocks of n shapes in all: a sixth each of three genders without and with the child mix."""
    for k, block in enumerate(np.array_split(np.arange(n), 6)):
        gender, kid = ("neutral", "male", "female")[k % 3], k >= 3
        betas = np.clip(rng.normal(0, 1.0, (len(block), 10)), -2.5, 2.5)
        if kid:
            betas = np.concatenate([betas * 0.5, rng.uniform(0, 1, (len(block), 1))], 1)
        yield gender, kid, betas.astype(np.float32)


def _normals(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    p = vertices[:, faces]
    return np.cross(p[:, :, 1] - p[:, :, 0], p[:, :, 2] - p[:, :, 0])


def _turn(weights: np.ndarray, R: np.ndarray, normals: np.ndarray) -> np.ndarray:
    """(F, 3) normals turned by the rotation nearest to each face's blend of the joints' rotations R (24, 3, 3)."""
    U, _, Vt = np.linalg.svd(np.einsum("fj,jab->fab", weights, R))
    U[:, :, 2] *= np.sign(np.linalg.det(U @ Vt))[:, None]
    return np.einsum("fab,fb->fa", U @ Vt, normals)


def _global_rotations(root: np.ndarray, local: np.ndarray, parents: tuple[int, ...]) -> np.ndarray:
    """(N, 24, 3, 3) rotations of the joints from matrices (N, 3, 3) and (N, 23, 3, 3)."""
    R = np.empty((len(local), 24, 3, 3))
    R[:, 0] = root.reshape(-1, 3, 3)
    for j in range(1, 24):
        R[:, j] = R[:, parents[j]] @ local[:, j - 1]
    return R


def _row(name: str, report: Report) -> str:
    return (
        f"{name:28} {len(report.finite):6d} {int((~report.finite).sum()):5d} {report.volume.min():8.4f} "
        f"{report.volume.max():8.4f} {100 * report.turned.mean():8.3f} {100 * report.turned.max():8.3f} "
        f"{100 * report.turned_rigid.max():8.3f}"
    )


def main() -> int:
    parser = argparse.ArgumentParser(description="Check the free body over many shapes and poses.")
    parser.add_argument("--motion", type=Path, help="motion in AMASS's layout; default: the pose prior that ships")
    parser.add_argument("--shapes", type=int, default=1000)
    parser.add_argument("--poses", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    rng = np.random.default_rng(args.seed)
    print(f"{'':28} {'bodies':>6} {'NaN':>5} {'smallest':>8} {'largest':>8} {'turned':>8} {'worst':>8} {'one bone':>8}")
    print(f"{'':28} {'':6} {'':5} {'m^3':>8} {'m^3':>8} {'mean %':>8} {'%':>8} {'worst %':>8}")
    faults: list[str] = []
    for gender, kid, betas in random_shapes(args.shapes, rng):
        body = BodyModel.load("free", gender, kid=kid)
        report = check(body, betas, np.zeros((len(betas), 23, 3), np.float32))
        print(_row(f"shapes, {gender}{', child mix' if kid else ''}", report), flush=True)
        faults += report.faults(MAX_TURNED_REST)
    # The last kind goes beyond what people do: every joint anywhere within its limits. Shown, not judged.
    kinds = {"motion": f"poses of {args.motion.name if args.motion else 'the prior'}", "limits": "poses within limits"}
    for kind, name in kinds.items():
        sampler = PoseSampler(args.motion, split="all", weights={kind: 1.0}, max_frames=4000)
        poses = sampler.sample(args.poses, rng).body_pose
        betas = np.clip(rng.normal(0, 1.0, (args.poses, 10)), -2.5, 2.5).astype(np.float32)
        report = check(BodyModel.load("free"), betas, poses)
        print(_row(name, report), flush=True)
        if kind == "motion":
            faults += report.faults(MAX_TURNED_POSED)
    print("\n".join(faults) or "All bodies are sound.")
    return 1 if faults else 0


if __name__ == "__main__":
    raise SystemExit(main())
