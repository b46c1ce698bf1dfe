"""SPIN's data files: crops that show what their labels say, mixing, EFT's fits, and files that are wrong."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest
import torch

from bodyreg.data import spin, spin_crops
from bodyreg.data.eft import convert_eft
from bodyreg.data.parsing import write_parsing
from bodyreg.data.spin_crops import SpinAugmentation
from bodyreg.rotations import aa_from_matrix, matrix_from_aa
from priors.clothing_labels import LABELS

H, W = 120, 90
DOT = np.array([30.0, 80.0])  # a bright spot and a patch of a left arm about it


@pytest.fixture
def data(tmp_path):
    """Two people in two pictures with a dot, whose annotated key points all lie on it."""
    names = ["images/jpg_a.jpg", "images/b.jpg"]
    picture, labels = np.zeros((H, W, 3), np.uint8), np.full((H, W), LABELS.index("upperclothes"), np.uint8)
    x, y = DOT.astype(int)
    picture[y - 1 : y + 2, x - 1 : x + 2] = 255
    labels[y - 6 : y + 7, x - 6 : x + 7] = LABELS.index("leftArm")
    for name in names:
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(cv2.imencode(".png", picture)[1].tobytes())
        write_parsing(spin.parsing_path(tmp_path, name), labels)
    part = np.ones((2, 24, 3))
    part[:, :, :2] = DOT
    fields = {
        "imgname": np.array([n.encode() for n in names]), "center": np.full((2, 2), [44.0, 61.0]),
        "scale": np.full(2, 0.6), "part": part, "gender": np.array([b"m", b"f"]),
        "pose": np.random.default_rng(0).normal(0, 0.3, (2, 72)), "shape": np.ones((2, 10)),
        "has_smpl": np.array([1, 0]),
    }  # fmt: skip
    return tmp_path, fields


def crops(data, **options):
    root, fields = data
    return spin.SpinCrops(spin.load_spin(spin.write_spin(root / "set.npz", fields)), root, augment=False, **options)


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("turn", [0.0, 25.0])
def test_picture_parsing_and_key_points_show_one_place(data, mirrored, turn) -> None:
    item = crops(data).item(0, SpinAugmentation(mirrored, (1.0, 1.0, 1.0), turn, 1.1))
    bright = np.argwhere(item["image"].numpy().mean(0) > 128).mean(0)[::-1]
    arm = LABELS.index("rightArm" if mirrored else "leftArm")
    patch = np.argwhere(item["labels"].numpy() == arm).mean(0)[::-1]
    keypoint = (item["keypoints"][25:, :2].mean(0).numpy() + 1) * 112
    assert np.abs(bright - patch).max() < 1 and np.abs(bright - keypoint).max() < 2
    assert set(item["labels"].unique().tolist()) <= {0, 5, arm}


def test_the_released_code_keeps_sides_in_mirrored_parsing(data) -> None:
    item = crops(data, reference=True).item(0, SpinAugmentation(mirrored=True))
    assert LABELS.index("leftArm") in item["labels"] and LABELS.index("rightArm") not in item["labels"]


def test_pixels_beyond_the_persons_box_are_background(data) -> None:
    labels = crops(data).item(0, SpinAugmentation())["labels"].numpy()
    x, y = spin_crops.px_from_full([44.0, 61.0], 0.6)[:2] @ [*DOT, 1]
    rows, columns = np.nonzero(labels)
    assert abs(columns.min() - (x - 30)) < 3 and abs(rows.max() - (y + 30)) < 3


def test_a_pose_turns_with_the_picture(data) -> None:
    theta = np.random.default_rng(1).normal(0, 0.5, (24, 3))
    turned = spin_crops.crop_pose(theta, SpinAugmentation(turn_deg=30.0))
    turn = matrix_from_aa(torch.tensor([0, 0, -np.pi / 6], dtype=torch.float64))
    R = turn @ matrix_from_aa(torch.from_numpy(theta[0]))
    np.testing.assert_allclose(turned[0], aa_from_matrix(R), atol=1e-6)
    np.testing.assert_allclose(turned[1:], theta[1:], atol=1e-6)
    mirrored = spin_crops.crop_pose(theta, SpinAugmentation(mirrored=True))
    np.testing.assert_allclose(mirrored[1], theta[2] * [1, -1, -1], atol=1e-6)


def test_what_a_person_lacks(data) -> None:
    root, fields = data
    dataset = crops(data)
    one, other = (dataset[k, 0] for k in range(2))
    assert (bool(one["has_smpl"]), bool(other["has_smpl"])) == (True, False)
    assert (int(one["gender"]), int(other["gender"])) == (0, 1) and not bool(one["has_joints"])
    assert float(other["theta"].abs().sum()) == float(other["betas"].abs().sum()) == 0
    spin.parsing_path(root, "images/b.jpg").unlink()
    assert bool((dataset[1, 0]["labels"] == 255).all())
    write_parsing(spin.parsing_path(root, "images/b.jpg"), np.zeros((3, 3), np.uint8))
    assert bool((dataset[1, 0]["labels"] == 255).all())
    (root / "images" / "b.jpg").unlink()
    gone = dataset[1, 0]
    assert float(gone["keypoints"][:, 2].sum()) == 0 and float(gone["image"].sum()) == 0
    unseen = {**fields, "part": np.zeros((2, 24, 3))}
    assert bool((crops((root, unseen)).item(0, SpinAugmentation())["labels"] == 255).all())


def test_the_same_numbers_give_the_same_crop_and_others_another(data) -> None:
    root, fields = data
    dataset = spin.SpinCrops(spin.load_spin(spin.write_spin(root / "set.npz", fields)), root)
    a, b, c = dataset[0, 5], dataset[0, 5], dataset[0, 6]
    assert torch.equal(a["image"], b["image"]) and not torch.equal(a["image"], c["image"])


def test_sets_are_mixed_by_their_shares(data) -> None:
    one = crops(data)
    mixed = spin.MixedSpin([one, one], [0.25, 0.75], seed=1)
    sources = [int(mixed[k % 2, k]["source"]) for k in range(60)]
    assert len(mixed) == 2 and 0.55 < np.mean(sources) < 0.9
    with pytest.raises(ValueError, match="sum 1"):
        spin.MixedSpin([one], [0.5])


def test_wrong_data_files_say_what_is_wrong(data) -> None:
    root, fields = data
    for change, message in (
        ({"center": None}, "lacks center"), ({"part": np.zeros((2, 25, 3))}, "part of"),
        ({"pose": np.full((2, 72), np.nan)}, "not finite"), ({"scale": np.array([0.5, 0])}, "not positive"),
    ):  # fmt: skip
        changed = {k: v for k, v in {**fields, **change}.items() if v is not None}
        with pytest.raises(ValueError, match=message):
            spin.write_spin(root / "bad.npz", changed)
    assert not (root / "bad.npz").exists()


def test_efts_fits_become_a_data_file(tmp_path) -> None:
    rng = np.random.default_rng(0)
    aa = torch.from_numpy(rng.normal(0, 0.5, (24, 3)))
    record = {
        "parm_pose": matrix_from_aa(aa).tolist(), "parm_shape": rng.normal(0, 1, (1, 10)).tolist(),
        "bbox_center": [50.0, 60.0], "bbox_scale": 0.8, "gt_keypoint_2d": rng.uniform(0, 99, (49, 3)).tolist(),
        "imageName": "x.jpg",
    }  # fmt: skip
    (tmp_path / "fits.json").write_text(json.dumps({"ver": 0.1, "data": [record]}))
    table = spin.load_spin(convert_eft(tmp_path / "fits.json", tmp_path / "out.npz", folder="train2014"))
    np.testing.assert_allclose(table.theta[0], aa, atol=1e-5)
    np.testing.assert_allclose(table.keypoints[0], record["gt_keypoint_2d"], rtol=1e-5)
    assert table.names == ["train2014/x.jpg"] and bool(table.has_smpl[0])
    del record["parm_shape"]
    (tmp_path / "fits.json").write_text(json.dumps([record]))
    with pytest.raises(ValueError, match="parm_shape"):
        convert_eft(tmp_path / "fits.json", tmp_path / "out2.npz")


def test_boxes_of_the_demonstration() -> None:
    centre, scale = spin_crops.person_from_box(np.array([10.0, 20, 30, 60]))
    assert centre.tolist() == [25, 50] and scale == pytest.approx(0.3)
    with pytest.raises(ValueError, match="more confident"):
        spin_crops.person_from_keypoints(np.zeros((25, 3)))
