"""Learn the clothing prior that ships from synthetic clothed people: `python scripts/learn_clothing_prior.py`.

Each person has a random shape, pose and outfit, skin-tight to very loose. Each view shows the clothed person (the scan,
with its label map) and the naked body in the same camera (the fit, which tells the face at each pixel); pixels where
the two lie farther apart in depth than --reach do not count. The same numbers come out for the same arguments.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import torch
from rich.progress import track

from bodyreg.body import BodyModel
from bodyreg.data.synthetic.garment_labels import BARE_TORSO
from bodyreg.data.synthetic.garments import Tailor, label_vertices, sample_garments
from bodyreg.data.synthetic.poses import PoseSampler
from bodyreg.data.synthetic.shards import label_image
from priors.clothing import ClothingPrior
from priors.clothing_labels import LABELS, MC_LABELS, MIRROR, PALETTE
from priors.clothing_learning import LabelCounts, learn, mirror_faces
from priors.shape import sample_betas
from renderers.backends.cpu import rasterize_hard
from renderers.shading import contact_sheet, render_mesh
from renderers.threads import map_threads

ROOT = Path(__file__).resolve().parents[1]
OUT, PICTURE = ROOT / "priors" / "assets" / "clothing.npz", ROOT / "docs" / "clothing_prior.png"
_CHUNK, _SIDE, _DISTANCE = 32, 160, 4.0
_FOCAL = _SIDE * _DISTANCE / 2.3
_TORSO_SKIN = 10
_STEPS = 1024


class Chunk(NamedTuple):
    """What some people gave: counts of the fit's faces, and the distribution that made them, summed over people."""

    counts: LabelCounts
    generating: np.ndarray


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--people", type=int, default=2000)
    parser.add_argument("--views", type=int, default=2, help="views of each person, from random sides")
    parser.add_argument("--gender", choices=("neutral", "male", "female", "pooled"), default="pooled")
    parser.add_argument("--reach", type=float, default=0.15, help="metres in depth between scan and fit that count")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--picture", type=Path, default=PICTURE)
    args = parser.parse_args()
    genders = ("male", "female") if args.gender == "pooled" else (args.gender,)
    body = BodyModel.load("free", "neutral" if args.gender == "pooled" else args.gender)
    faces = body.faces.numpy()
    counts, generating = LabelCounts(len(faces)), np.zeros((len(faces), len(LABELS)))
    for gender in genders:
        chunk = count_people(BodyModel.load("free", gender), args.people // len(genders), args)
        counts, generating = counts + chunk.counts, generating + chunk.generating
    across = mirror_faces(faces, body.mirror.numpy())
    rest = body.v_template.numpy()
    meta = {"source": "synthetic clothed people of the free body", "people": args.people, "gender": args.gender}
    prior = learn(
        counts, faces, mirror=across, meta={**meta, "seed": args.seed, "reach": args.reach},
        centroids=rest[faces].mean(1), joints=body.rest_joints()[0].numpy(),
    )  # fmt: skip
    args.out.parent.mkdir(parents=True, exist_ok=True)
    prior.save(args.out, steps=_STEPS)
    report(prior, counts, generating / args.people, across)
    cv2.imwrite(str(args.picture), picture(prior, body)[..., ::-1], [cv2.IMWRITE_PNG_COMPRESSION, 9])
    print(f"{args.out}: {args.out.stat().st_size / 1e3:.0f} kB; {args.picture}")


def count_people(body: BodyModel, people: int, args: argparse.Namespace) -> Chunk:
    """Counts of `people` people of one body; chunks have generators of their own, so threads change nothing."""
    tailor, sampler = Tailor(body), PoseSampler()
    sizes = [min(_CHUNK, people - k) for k in range(0, people, _CHUNK)]
    total, generating = LabelCounts(len(body.faces)), np.zeros((len(body.faces), len(LABELS)))
    for k, size in enumerate(track(sizes, description=f"counting on {body.gender} bodies")):
        rng = np.random.default_rng([args.seed, len(body.gender), k])
        chunk = _count(body, tailor, sampler, size, rng, args)
        total, generating = total + chunk.counts, generating + chunk.generating
    return Chunk(total, generating)


def _count(
    body: BodyModel, tailor: Tailor, sampler: PoseSampler, n: int, rng: np.random.Generator, args: argparse.Namespace
) -> Chunk:
    betas = sample_betas(n, rng)
    pose = torch.from_numpy(np.asarray(sampler.sample(n, rng).body_pose, np.float32))
    outfits, fits = sample_garments(rng, n)
    yaw, pitch = rng.uniform(-np.pi, np.pi, (n, args.views)), rng.normal(0, 0.25, (n, args.views))
    with torch.no_grad():
        out = body(betas, pose)
        shaped, rest_joints = body.rest_vertices(betas).numpy(), body.rest_joints(betas).numpy()
    posed, joints, R = out.vertices.numpy(), out.joints.numpy(), out.R_global.numpy()

    def one(i: int) -> Chunk:
        down = np.array([0.0, -1.0, 0.0])
        clothed = tailor.dress(
            betas[i], shaped[i], rest_joints[i], posed[i], joints[i], R[i], down, outfits[i], fits[i]
        )
        counts = LabelCounts(len(tailor.faces))
        for k in range(args.views):
            turn = _turn(yaw[i, k], pitch[i, k])
            scan, fit = (_project(v - joints[i, 0], turn) for v in (clothed.vertices, posed[i]))
            seen, true = (rasterize_hard(v, tailor.faces, (_SIDE, _SIDE)) for v in (scan, fit))
            labels = label_image(seen, tailor.faces, clothed.fields, outfits[i])
            labels[labels == BARE_TORSO] = _TORSO_SKIN
            counts.add(true.face, labels, np.abs(seen.zbuf - true.zbuf) < args.reach)
        return Chunk(counts, _generating(clothed.fields, tailor.faces, outfits[i]))

    total, generating = LabelCounts(len(tailor.faces)), np.zeros((len(tailor.faces), len(LABELS)))
    for chunk in map_threads(one, range(n), threads=args.threads):
        total, generating = total + chunk.counts, generating + chunk.generating
    return Chunk(total, generating)


def _generating(fields: np.ndarray, faces: np.ndarray, outfit: np.ndarray) -> np.ndarray:
    """(F, 20): one at the label that the middle of each face has."""
    labels = label_vertices(fields[faces].mean(1), outfit)
    labels[labels == BARE_TORSO] = _TORSO_SKIN
    return np.eye(len(LABELS))[labels]


def _turn(yaw: float, pitch: float) -> np.ndarray:
    """(3, 3) OpenCV camera from a y-up body, seen from the side `yaw` and from above by `pitch`."""
    c, s = np.cos(yaw), np.sin(yaw)
    R_yaw = np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]])
    c, s = np.cos(pitch), np.sin(pitch)
    return np.array([[1, 0, 0], [0, c, -s], [0, s, c]]) @ np.diag([1.0, -1.0, -1.0]) @ R_yaw


def _project(points: np.ndarray, turn: np.ndarray) -> np.ndarray:
    """(V, 3) float32 pixels and depth."""
    cam = points @ turn.T + (0, 0.05, _DISTANCE)
    px = cam[:, :2] / cam[:, 2:] * _FOCAL + _SIDE / 2
    return np.concatenate([px, cam[:, 2:]], 1).astype(np.float32)


def report(prior: ClothingPrior, counts: LabelCounts, generating: np.ndarray, across: np.ndarray) -> None:
    """Say how near the learned distribution is to the one that dressed the people."""
    generating = (generating + generating[across][:, MIRROR]) / 2
    seen = counts.counts.sum(1)
    error = np.abs(prior.probabilities - generating)
    print(f"{counts.views} views, {seen.sum():,} labelled pixels, {int((seen == 0).sum())} faces never seen")
    print(f"mean absolute error to the generating distribution: {error.mean():.5f}")
    print(f"mean half L1 distance of a face's distribution: {error.sum(1).mean() / 2:.4f}")
    same = (prior.probabilities.argmax(1) == generating.argmax(1)).mean()
    print(f"faces with the same most probable label: {100 * same:.1f} %")
    print(f"largest asymmetry: {np.abs(prior.probabilities - prior.probabilities[across][:, MIRROR]).max():.1e}")
    print(f"entropy of a face, nats: mean {prior.entropy().mean():.2f}, largest {prior.entropy().max():.2f}")


def picture(prior: ClothingPrior, body: BodyModel) -> np.ndarray:
    """The most probable label from two sides, the probability of each of DSR-MC's labels, and the entropy."""
    faces, rest = body.faces.numpy(), body.v_template.numpy()
    corners = prior.vertices(faces, len(rest)).astype(np.float64)
    palette = PALETTE.astype(np.float64) / 255
    winners = palette[corners.argmax(1)] * 0.8 + 0.15
    mixed = corners @ palette * 0.8 + 0.15

    def heat(x: np.ndarray) -> np.ndarray:
        x = np.clip(x, 0, 1)[:, None]
        return np.array([[0.86, 0.86, 0.88]]) * (1 - x) + np.array([[0.80, 0.15, 0.10]]) * x

    entropy = -(corners * np.log(np.maximum(corners, 1e-12))).sum(1) / np.log(len(LABELS))
    cells = [("most probable", winners, 0.0), ("most probable, behind", winners, np.pi), ("mixture", mixed, 0.0)]
    for name in (*MC_LABELS, "hair", "upperclothes", "pants", "skirt", "dress", "coat"):
        cells.append((name, heat(corners[:, LABELS.index(name)]), 0.35))
    cells.append(("entropy, 1 = uniform", heat(entropy), 0.0))
    K = np.array([[420.0, 0, 105], [0, 420.0, 130], [0, 0, 1]])
    pictures = []
    for _, colour, yaw in cells:
        cam = ((rest - (0, -0.15, 0)) @ _turn(yaw, 0.0).T + (0, 0, 3.7)).astype(np.float32)
        pictures.append(render_mesh(cam, faces, K, (260, 210), colour=colour, background=(0.98, 0.98, 0.98))[0])
    return contact_sheet(pictures, [name for name, _, _ in cells], columns=5, gap=4)


if __name__ == "__main__":
    main()
