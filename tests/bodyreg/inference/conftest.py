"""A network of a few thousand numbers, the free body, and photographs of a few thousand pixels."""

from __future__ import annotations

import threading
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from bodyreg.body import BodyModel
from bodyreg.checkpoints import load_model, save_weights
from bodyreg.crops import make_crop, rotate_smpl
from bodyreg.inference.regress import BodyEstimate, Regressor
from bodyreg.models.registry import ModelSettings, build
from bodyreg.rotations import matrix_from_aa

collect_ignore = [] if find_spec("ray") else ["test_ray.py"]

TINY = ModelSettings(widths=[8, 8, 16, 16], depths=[1, 1, 1, 1], map_channels=8, crop_size=64)


def save_tiny(path: Path, body: str = "free") -> Path:
    torch.manual_seed(0)
    save_weights(path, build(TINY), TINY, body=body)
    return path


@pytest.fixture(scope="session")
def tiny_weights(tmp_path_factory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("weights") / "tiny.safetensors")


@pytest.fixture(scope="session")
def tiny_smpl_weights(tmp_path_factory) -> Path:
    """The same network, but its header says that it was trained on SMPL."""
    return save_tiny(tmp_path_factory.mktemp("weights") / "tiny_smpl.safetensors", body="smpl")


@pytest.fixture(scope="session")
def free_body() -> BodyModel:
    return BodyModel.load("free", "neutral", 10)


@pytest.fixture(scope="session")
def regressor(tiny_weights, free_body) -> Regressor:
    return Regressor(load_model(tiny_weights), free_body, "cpu")


def save_photo(path: Path, size_wh: tuple[int, int] = (120, 90), seed: int = 0, **options) -> Path:
    """A noisy picture; `options` go to Pillow's `save`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (size_wh[1] // 5, size_wh[0] // 5, 3), dtype=np.uint8)
    Image.fromarray(pixels).resize(size_wh).save(path, **options)
    return path


@pytest.fixture(name="save_photo", scope="session")
def save_photo_fixture():
    return save_photo


def person_parameters(seed: int = 0) -> dict[str, np.ndarray]:
    """An upright person in a random pose: betas (1, 10), body_pose (1, 69), global_orient (1, 3), all float64."""
    rng = np.random.default_rng(seed)
    return {
        "betas": rng.normal(0, 0.7, (1, 10)),
        "body_pose": rng.normal(0, 0.18, (1, 69)),
        "global_orient": np.array([[np.pi, 0.0, 0.0]]) + rng.normal(0, 0.15, (1, 3)),
    }


@pytest.fixture(name="person_parameters", scope="session")
def person_parameters_fixture():
    return person_parameters


class KnowingRegressor(Regressor):
    """Answers with true bodies, in the frames of the crops it is shown: everything but the network is at work.

    `people` are parameters of `BodyModel.forward` in the photograph's camera frame; a crop's body is the one whose box
    centre it was made for.
    """

    def __init__(self, loaded, body, monkeypatch) -> None:
        super().__init__(loaded, body, "cpu")
        self.people: list[tuple[np.ndarray, dict[str, np.ndarray]]] = []
        self._crops: dict[bytes, object] = {}
        lock = threading.Lock()

        def remember(*args, **kwargs):
            crop = make_crop(*args, **kwargs)
            with lock:
                self._crops[crop.K_crop.tobytes()] = crop
            return crop

        monkeypatch.setattr("bodyreg.inference.pictures.make_crop", remember)

    def predict(self, crops, K_crop):
        rows = []
        for K in K_crop:
            crop = self._crops[np.ascontiguousarray(K).tobytes()]
            _, true = min(self.people, key=lambda item: float(np.abs(item[0] - crop.box_xywh).max()))
            R_local = matrix_from_aa(
                torch.from_numpy(np.concatenate([true["global_orient"], true["body_pose"]], 1)).view(24, 3)
            )
            J0 = self.body.rest_joints(true["betas"])[0, 0].double().numpy()
            R_root, transl = rotate_smpl(R_local[0].numpy(), true["transl"][0], J0, crop.R_crop_from_cam)
            R_local[0] = torch.from_numpy(R_root)
            rows.append((R_local.float(), torch.from_numpy(true["betas"][0]), torch.from_numpy(transl).float()))
        R_local, betas, transl = (torch.stack(column) for column in zip(*rows, strict=True))
        joints = self.body(betas, R_local[:, 1:], R_local[:, 0], transl).joints
        uv = torch.zeros(len(rows), 25, 2)
        return BodyEstimate(R_local, betas.float(), transl, joints, uv, torch.zeros(len(rows), 25, 3))


@pytest.fixture
def knowing(tiny_weights, free_body, monkeypatch) -> KnowingRegressor:
    return KnowingRegressor(load_model(tiny_weights), free_body, monkeypatch)


def tree(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, hidden ones too, by relative path."""
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.fixture(scope="session")
def tree_of():
    """The function `tree` itself."""
    return tree
