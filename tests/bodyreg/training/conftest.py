"""Miniatures of prepared data sets that several files of tests train on."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from bodyreg.body import BodyModel
from bodyreg.data.sample import write_table

HW = (120, 160)
K = np.array([[150.0, 0, 84], [0, 150, 57], [0, 0, 1]])


@pytest.fixture(scope="session")
def bodies():
    body = BodyModel.load("free", "neutral", 11)
    return {"neutral": body, "male": body, "female": body}


@pytest.fixture(scope="session")
def prepared(tmp_path_factory):
    """Prepared files and pictures of three kinds of sets: four people each to train on, five to validate on."""
    folder = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)
    rows: dict[str, list] = {"pw3d": [], "mpi3dhp": [], "coco": []}
    for name, kind in rows.items():
        (folder / name).mkdir()
        for k in range(9):
            picture = cv2.resize(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8), HW[::-1])
            cv2.imwrite(str(folder / name / f"{k}.png"), picture)
            theta = rng.normal(0, 0.2, (24, 3))
            theta[0] = [np.pi + rng.normal(0, 0.1), 0, 0]
            joints = rng.normal(0, 0.3, (17, 3)) + [0.2, 0, 4]
            kind.append(
                {"image": f"{k}.png", "size_hw": HW, "box_xywh": [70 + 4 * (k % 4), 20, 40, 80], "K": K,
                 "gender": "male", "theta": theta, "betas": rng.normal(0, 0.5, 10),
                 "transl": [0.4 - 0.3 * (k % 4), 0.1, 3.5], "seen": True, "joints17": joints, "height": 1.7,
                 "keypoints17": np.append(rng.uniform(20, 110, (17, 2)), 2 * np.ones((17, 1)), 1)}
            )  # fmt: skip
    write_table(folder / "pw3d_train.npz", "pw3d", "train", "smpl", rows["pw3d"][:4])
    write_table(folder / "mpi3dhp_train_v2.npz", "mpi3dhp", "train_v2", "joints", rows["mpi3dhp"][:4])
    write_table(folder / "coco_train2017.npz", "coco", "train2017", "keypoints", rows["coco"][:4])
    write_table(folder / "pw3d_test.npz", "pw3d", "test", "smpl", rows["pw3d"][4:])
    write_table(folder / "mpi3dhp_test.npz", "mpi3dhp", "test", "joints", rows["mpi3dhp"][4:])
    return folder
