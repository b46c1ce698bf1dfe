"""Draw synthetic people in garments, tight to very loose, and their parsing maps: `python scripts/garment_sheet.py`."""

from __future__ import annotations

import argparse
from pathlib import Path

import cv2
import numpy as np
import torch

from bodyreg.body import BodyModel
from bodyreg.data.synthetic.compose import paint_person
from bodyreg.data.synthetic.garment_labels import FIT
from bodyreg.data.synthetic.garments import Tailor, sample_garments
from bodyreg.data.synthetic.outfits import OUTFIT
from bodyreg.data.synthetic.poses import PoseSampler
from bodyreg.data.synthetic.scenes import Scenes
from bodyreg.data.synthetic.shards import Shard, render_buffers
from priors.clothing_labels import PALETTE
from renderers.backends.cpu import vertex_normals
from renderers.shading import contact_sheet

OUT = Path(__file__).resolve().parents[1] / "docs" / "garments.png"
_SIDE, _CROP, _FOCAL, _DISTANCE = 300, 190, 560.0, 4.0
_TORSO_SKIN = 10
_LOOSENESS = (0.0, 0.33, 0.66, 1.0)
_O = OUTFIT()
# What the rows of the upper half wear; everything else is drawn.
_KINDS = (
    {"upper_kind": 5, "lower_kind": 9, "sleeve": 0.4, "shirt_hem": 0.02, "trouser_end": 0.97, "neckline": 1.0},
    {"upper_kind": 7, "lower_kind": 9, "sleeve": 0.97, "shirt_hem": 0.55, "trouser_end": 0.97, "neckline": 1.0},
    {"upper_kind": 6, "lower_kind": 9, "sleeve": -0.1, "shirt_hem": 0.6, "trouser_end": -1.0, "neckline": 0.95},
)


class Wardrobe:
    """Dresses and draws people of the free body on paper."""

    def __init__(self) -> None:
        self.body = BodyModel.load("free")
        self.tailor = Tailor(self.body)

    def shard(self, betas: np.ndarray, pose: np.ndarray, outfit: np.ndarray, fit: np.ndarray, yaw: float) -> Shard:
        """Geometry buffers of one dressed person in a picture of `_SIDE` pixels."""
        c, s = np.cos(yaw), np.sin(yaw)
        turn = np.diag([1.0, -1.0, -1.0]) @ np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]])
        shape = torch.from_numpy(betas[None])
        with torch.no_grad():
            out = self.body(shape, torch.from_numpy(pose[None]))
            rest, rest_joints = self.body.rest_vertices(shape)[0].numpy(), self.body.rest_joints(shape)[0].numpy()
        posed, joints, R = out.vertices[0].numpy(), out.joints[0].numpy(), out.R_global[0].numpy()
        clothed = self.tailor.dress(betas, rest, rest_joints, posed, joints, R, np.array([0.0, -1.0, 0.0]), outfit, fit)
        cam = ((clothed.vertices - joints[0]) @ turn.T + (0, -0.06, _DISTANCE)).astype(np.float32)
        K = np.array([[_FOCAL, 0, _SIDE / 2], [0, _FOCAL, _SIDE / 2], [0, 0, 1]], np.float32)
        scenes = Scenes(
            cam[None], vertex_normals(cam, self.tailor.faces)[None], {"K_crop": K[None], "outfit": outfit[None]},
            clothed.fields[None],
        )  # fmt: skip
        return render_buffers(scenes, self.tailor.faces, self.tailor.rest, self.body.part_labels.numpy(), _SIDE)

    def cell(self, shard: Shard, rng: np.random.Generator) -> np.ndarray:
        """The painted person beside the parsing map."""
        canvas = np.full((_SIDE, _SIDE, 3), 238, np.float32)
        paint_person(canvas, shard, 0, rng, self.tailor.atlas)
        labels = np.zeros((_SIDE, _SIDE), np.uint8)
        labels[np.unpackbits(shard.where[0], axis=1, count=_SIDE) > 0] = shard.pixels[:, -1]
        labels[labels == len(PALETTE)] = _TORSO_SKIN
        left = (_SIDE - _CROP) // 2
        both = [np.clip(canvas, 0, 255).astype(np.uint8), PALETTE[labels]]
        small = [
            cv2.resize(x[:, left : left + _CROP], None, fx=0.8, fy=0.8, interpolation=cv2.INTER_AREA) for x in both
        ]
        return np.hstack(small)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--seed", type=int, default=4)
    parser.add_argument("--people", type=int, default=16, help="drawn at random below the rows of rising looseness")
    args = parser.parse_args()
    wardrobe, rng = Wardrobe(), np.random.default_rng(args.seed)
    cells, captions = [], []

    def add(outfit: np.ndarray, fit: np.ndarray, betas: np.ndarray, pose: np.ndarray, yaw: float, paint: int) -> None:
        shard = wardrobe.shard(betas, pose, outfit, fit, yaw)
        cells.append(wardrobe.cell(shard, np.random.default_rng(paint)))
        captions.append(f"looseness {fit[FIT().looseness]:.2f}")

    standing = PoseSampler(weights={"easy": 1.0}, tilt_std=0.0, fallen=0.0)
    for row, kind in enumerate(_KINDS):
        pose = np.asarray(standing.sample(1, rng).body_pose[0], np.float32)
        for loose in _LOOSENESS:
            drawn = np.random.default_rng(args.seed + row)
            outfit, fit = (x[0] for x in sample_garments(drawn, 1, (loose, loose)))
            for name, value in kind.items():
                outfit[getattr(_O, name)] = value
            add(outfit, fit, np.zeros(10, np.float32), pose, 0.3, 20 + row)
    poses = PoseSampler(tilt_std=0.0, fallen=0.0).sample(args.people, rng).body_pose
    outfits, fits = sample_garments(rng, args.people)
    for k in range(args.people):
        betas = rng.normal(0, 0.8, 10).astype(np.float32)
        add(outfits[k], fits[k], betas, np.asarray(poses[k], np.float32), rng.uniform(-np.pi, np.pi), k)
    sheet = contact_sheet(cells, captions, columns=4, gap=4)
    # An adaptive palette of 256 colours shows this as well as 16 million, in a third of the file.
    from PIL import Image

    args.out.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(sheet).quantize(256, dither=Image.Dither.NONE).save(args.out, optimize=True)
    print(f"{args.out}: {len(cells)} people, {args.out.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    main()
