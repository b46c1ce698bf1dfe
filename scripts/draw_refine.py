"""Draw what refining does to a rendered scene whose key points are known: photograph, first prediction, refined.

python scripts/draw_refine.py --scene wide_right_18_f35.jpg --out docs/refine.jpg
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from bodyreg.body import BodyModel
from bodyreg.cameras import Camera
from bodyreg.data.folder import read_image
from bodyreg.inference.folder import infer_folder
from bodyreg.inference.refine_folder import refine_results

PHOTOS = Path(__file__).parent / "demo_photos"


def noisy_keypoints(scene: dict[str, Any], noise_px: float, seed: int) -> list[np.ndarray]:
    """(25, 3) OpenPose key points of each person; the noise is in pixels of a crop 256 wide."""
    body, rng = BodyModel.load("free"), np.random.default_rng(seed)
    camera = Camera(np.array(scene["K"]), tuple(scene["image_hw"]), "intrinsics")
    people = []
    for person in scene["people"]:
        names = ("betas", "body_pose", "global_orient", "transl")
        posed = body(**{name: np.array([person[name]]) for name in names})
        points = camera.project(body.regress(posed.vertices, "openpose-25")[0].double().numpy())
        points += rng.normal(size=points.shape) * noise_px * 1.1 * max(person["box_xywh"][2:]) / 256
        people.append(np.concatenate([points, np.ones((25, 1))], 1))
    return people


def draw(name: str, folder: Path, noise_px: float, seed: int) -> np.ndarray:
    """Three panels side by side, (h, w, 3) BGR, about the people."""
    scene = json.loads((PHOTOS / "scenes_truth.json").read_text(encoding="utf-8"))[name]
    people = noisy_keypoints(scene, noise_px, seed)
    content = {"people": [{"pose_keypoints_2d": points.ravel().tolist()} for points in people]}
    keypoints = folder / f"{Path(name).stem}_keypoints.json"
    keypoints.write_text(json.dumps(content), encoding="utf-8")
    infer_folder(
        PHOTOS / name, folder / "first", keypoints=keypoints, intrinsics={name: np.array(scene["K"])}, formats=("npz",)
    )
    refine_results(folder / "first", keypoints, folder / "refined", photos=PHOTOS / name)
    overlays = [folder / part / f"{Path(name).stem}_overlay.png" for part in ("first", "refined")]
    panels = [read_image(path).rgb[..., ::-1].copy() for path in (PHOTOS / name, *overlays)]
    for panel in panels:
        for x, y, _ in np.concatenate(people):
            cv2.circle(panel, (int(x), int(y)), 4, (40, 40, 230), -1, cv2.LINE_AA)
    boxes = np.array([person["box_xywh"] for person in scene["people"]])
    low, high = boxes[:, :2].min(0), (boxes[:, :2] + boxes[:, 2:]).max(0)
    pad = 0.12 * (high - low).max()
    x0, y0 = np.maximum(low - pad, 0).astype(int)
    x1, y1 = (high + pad).astype(int)
    return np.concatenate([panel[y0:y1, x0:x1] for panel in panels], 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scene", default="wide_right_18_f35.jpg", help="one of scripts/demo_photos/scenes_truth.json")
    parser.add_argument("--noise", type=float, default=4.0, help="pixels of a crop 256 wide")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("docs/refine.jpg"))
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        picture = draw(given.scene, Path(folder), given.noise, given.seed)
    cv2.imwrite(str(given.out), picture, [cv2.IMWRITE_JPEG_QUALITY, 88])


if __name__ == "__main__":
    main()
