"""Draw the free body in poses, shapes and outfits on one sheet: `python scripts/body_contact_sheet.py [--out FILE]`."""

from __future__ import annotations

import argparse
from pathlib import Path

import cv2
import numpy as np
from _painting import R_cam_from_world, Stand, paint, place, shadows

from bodyreg.body import BodyModel
from bodyreg.cameras import Camera
from bodyreg.data.synthetic.arm_poses import sample_arms
from bodyreg.data.synthetic.outfits import OUTFIT, sample_outfits
from bodyreg.data.synthetic.poses import PoseSampler
from renderers.shading import contact_sheet, render_mesh

OUT = Path(__file__).resolve().parents[1] / "docs" / "free_body.png"
COLUMNS = 8
SIZE_HW = (330, 250)
_EYE, _DISTANCE, _PITCH = 1.35, 4.6, np.radians(6.0)
_PAPER = 236
_CLAY = {"neutral": (0.70, 0.66, 0.62), "male": (0.50, 0.62, 0.74), "female": (0.80, 0.60, 0.56)}
_ARMS = [[12, 15, 17, 19, 21], [13, 16, 18, 20, 22]]
_BARE = np.zeros(len(OUTFIT()), np.float32)


def _yaw(degrees: float) -> np.ndarray:
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]])


def _picture(body: BodyModel, stand: Stand, rng: np.random.Generator, *, painted: bool) -> np.ndarray:
    """One person on plain paper, with a shadow; in clay, or in clothes."""
    camera = Camera.from_fov(np.radians(25), SIZE_HW)
    R = R_cam_from_world(_PITCH)
    person = place(body, stand, R, _EYE)
    paper = np.full((*SIZE_HW, 3), _PAPER, np.uint8)
    paper = shadows(paper, body, [person], camera, R, _EYE, (0.35, -0.25))
    if painted:
        return paint(paper, body, [person], [stand.outfit], camera, rng)
    faces = body.faces.numpy()
    picture, alpha = render_mesh(person.clothed, faces, camera.K, SIZE_HW, colour=_CLAY[body.gender])
    return np.round(picture * alpha[..., None] + paper * (1 - alpha[..., None])).astype(np.uint8)


def _standing(rng: np.random.Generator) -> np.ndarray:
    pose = np.zeros((23, 3), np.float32)
    pose[_ARMS] = sample_arms(1, rng, style="slanting")[0]
    return pose


def poses(rng: np.random.Generator, count: int) -> list[tuple[np.ndarray, str]]:
    """Bodies of random shape in poses of every kind that training draws."""
    body = BodyModel.load("free")
    kinds = ("easy", "motion", "arms", "legs", "mixed", "legs", "limits", "prior")
    out = []
    for k in range(count):
        kind = kinds[k % len(kinds)]
        drawn = PoseSampler(weights={kind: 1.0}, tilt_std=0.0, fallen=0.0).sample(1, rng)
        betas = rng.normal(0, 0.8, 10).clip(-2, 2)
        # Recorded people face anywhere; here all of them show their fronts, turned a little.
        R = drawn.global_orient[0].astype(float)
        heading = np.degrees(np.arctan2(R[0, 2], R[2, 2]))
        stand = Stand(_BARE, betas, drawn.body_pose[0], _yaw(rng.uniform(-50, 50) - heading) @ R, (0.0, -_DISTANCE))
        out.append((_picture(body, stand, rng, painted=False), f"pose: {kind}"))
    return out


def shapes(rng: np.random.Generator) -> list[tuple[np.ndarray, str]]:
    """Three genders, the first shape numbers at both ends, and mixes with the child."""
    pose = _standing(np.random.default_rng(5))
    cells: list[tuple[str, bool, dict[int, float], str]] = [(g, False, {}, g) for g in _CLAY]
    cells += [("neutral", False, {k: s}, f"beta {k} = {s:+.1f}") for k in (0, 1, 2, 3) for s in (-2.5, 2.5)]
    cells += [("male", False, {0: 1.0, 1: 2.5}, "male, beta 1.0 2.5")]
    cells += [("female", False, {0: -1.0, 1: 2.5}, "female, beta -1.0 2.5")]
    cells += [("neutral", True, {10: m}, f"child mix {m:.1f}") for m in (0.4, 0.7, 1.0)]
    out = []
    for gender, kid, values, caption in cells:
        body = BodyModel.load("free", gender, kid=kid)
        betas = np.zeros(body.num_betas)
        for k, value in values.items():
            betas[k] = value
        stand = Stand(_BARE, betas, pose, _yaw(-20), (0.0, -_DISTANCE))
        out.append((_picture(body, stand, rng, painted=False), caption))
    return out


def outfits(rng: np.random.Generator, count: int) -> list[tuple[np.ndarray, str]]:
    """Painted clothes on people who stand about."""
    out = []
    genders = ("female", "male", "neutral")
    sampler = PoseSampler(weights={"easy": 1.0}, tilt_std=0.0, fallen=0.0)
    for k, outfit in enumerate(sample_outfits(rng, count)):
        body = BodyModel.load("free", genders[k % 3])
        drawn = sampler.sample(1, rng)
        stand = Stand(outfit, rng.normal(0, 0.8, 10), drawn.body_pose[0], _yaw(rng.uniform(-35, 35)), (0.0, -_DISTANCE))
        upper = {5: "shirt", 6: "dress", 7: "coat"}[int(outfit[OUTFIT().upper_kind])]
        lower = "" if upper == "dress" else {9: " and trousers", 12: " and skirt"}[int(outfit[OUTFIT().lower_kind])]
        out.append((_picture(body, stand, rng, painted=True), f"{upper}{lower}"))
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description="Draw the contact sheet of the free body.")
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--seed", type=int, default=3)
    args = parser.parse_args()
    rng = np.random.default_rng(args.seed)
    cells = poses(rng, 2 * COLUMNS) + shapes(rng) + outfits(rng, 2 * COLUMNS)
    sheet = contact_sheet([picture for picture, _ in cells], [caption for _, caption in cells], columns=COLUMNS, gap=6)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    if not cv2.imwrite(str(args.out), sheet[..., ::-1], [cv2.IMWRITE_PNG_COMPRESSION, 9]):
        raise SystemExit(f"{args.out} could not be written. Give the name of a PNG in a folder that can be written.")
    print(f"{args.out}: {len(cells)} bodies, {args.out.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
