"""Score weights on person-centred crops against surface landmarks of another system.

    python scripts/eval_landmarks.py --crops FOLDER --landmarks FOLDER [--weights FILE] [--data SHARDS] --out DIR
    bodyreg infer CROPS --out RESULTS --people pose --refine --formats npz
    python scripts/eval_landmarks.py --crops CROPS --landmarks FOLDER --results RESULTS --out DIR

The first scores the network on whole crops, the last the largest person of each picture of a result folder.

DIR receives `landmarks.json` and `landmarks.md` (millimetres, the mean pose beside the network) and, for each crop, a
picture of the predicted body over it. The landmarks are a yardstick, not ground truth.
"""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import torch

from bodyreg.body import BodyModel
from bodyreg.cameras import resolve_camera
from bodyreg.checkpoints import default_weights, load_model
from bodyreg.data.folder import read_image
from bodyreg.data.synthetic.prepare import ensure_shards
from bodyreg.data.synthetic.scenes import SceneSettings
from bodyreg.evaluation.synthetic import evaluate_landmarks, markdown_table, mean_vertices, write_scores
from bodyreg.files import atomic_write
from bodyreg.inference.results import read_person
from renderers.shading import contact_sheet, overlay

_HELD_OUT = 1024


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Score weights on crops with landmarks of another system.")
    parser.add_argument("--crops", type=Path, required=True, help="folder of square, person-centred PNG pictures")
    parser.add_argument("--landmarks", type=Path, required=True, help="folder of a JSON file a crop")
    parser.add_argument("--model", default="perspose_small", help="network whose shipped weights are scored")
    parser.add_argument("--weights", type=Path, help="weights file; default: those that ship for the model")
    parser.add_argument("--results", type=Path, help="result folder of the crops, with npz files, to score instead")
    parser.add_argument("--data", type=Path, default=Path("data/synthetic/held_out"),
                        help="held-out shards the mean pose is made from; rendered when there are none")  # fmt: skip
    parser.add_argument("--out", type=Path, required=True, help="folder of the table and the pictures")
    args = parser.parse_args(arguments)

    loaded = load_model(args.weights or default_weights(args.model))
    body = BodyModel.load(loaded.body)
    # The folder of `bodyreg evaluate`, whose people wear painted clothes as the published figures do.
    settings = None if any(args.data.glob("*.npz")) else SceneSettings(garments="painted")
    ensure_shards(args.data, _HELD_OUT, held_out=True, settings=settings)
    mean_pose = mean_vertices(body, args.data)
    vertices_of = partial(_first_person, args.results, body) if args.results else None
    scores, bodies = evaluate_landmarks(loaded, body, args.crops, args.landmarks, mean_pose, vertices_of)

    args.out.mkdir(parents=True, exist_ok=True)
    write_scores(args.out / "landmarks.json", loaded, scores, data="person-centred crops, landmarks of another system")
    table = markdown_table(scores)
    with atomic_write(args.out / "landmarks.md") as temporary:
        temporary.write_text(table, encoding="utf-8")
    pictures = []
    for stem, vertices in bodies.items():
        pictures.append(_picture(args.crops / f"{stem}.png", vertices, body.faces.numpy()))
        _save(args.out / f"{stem}.png", pictures[-1])
    _save(args.out / "sheet.png", contact_sheet(pictures, list(bodies)))
    print(table, end="")
    return 0


def _first_person(results: Path, body: BodyModel, crop: Path) -> torch.Tensor:
    """(V, 3) vertices of the largest person of a crop in a result folder."""
    person = read_person(results / f"{crop.stem}_0.npz")
    rows = (person.betas, person.body_pose.reshape(23, 3), person.global_orient, person.transl)
    return body(*(torch.from_numpy(row).float()[None] for row in rows)).vertices[0]


def _picture(crop: Path, vertices: torch.Tensor, faces: np.ndarray) -> np.ndarray:
    """The crop, and beside it the crop with the body over it."""
    rgb = read_image(crop).rgb
    drawn = overlay(rgb, [vertices.numpy()], faces, resolve_camera(rgb.shape[:2]).K)
    return np.concatenate([rgb, drawn], 1)


def _save(path: Path, rgb: np.ndarray) -> None:
    with atomic_write(path) as temporary:
        if not cv2.imwrite(str(temporary), cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR)):
            raise OSError(f"{path} could not be written. Make room on the disk or choose another folder.")


if __name__ == "__main__":
    raise SystemExit(main())
