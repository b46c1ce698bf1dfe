"""Preparing data sets: miniatures of each download go in, samples in the camera's frame come out."""

from __future__ import annotations

import json
import pickle

import joblib
import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from bodyreg import skeletons
from bodyreg.body import BodyModel
from bodyreg.cli import app
from bodyreg.data import bedlam
from bodyreg.data.prepare import DATASETS, load_bodies, prepare_dataset
from bodyreg.data.released import prepare_released
from bodyreg.data.sample import SampleTable, write_table
from bodyreg.files import MissingFileError
from bodyreg.rotations import aa_from_matrix, matrix_from_aa

K = np.array([[900.0, 0, 160], [0, 900, 120], [0, 0, 1]])
HW = (240, 320)


@pytest.fixture(scope="module")
def bodies():
    body = BodyModel.load("free", "neutral", 11)
    return {"neutral": body, "male": body, "female": body}


def posed(body, theta, betas, transl):
    shape = np.zeros(body.num_betas)
    shape[: len(betas)] = betas
    x = [torch.tensor(np.asarray(v, np.float32))[None] for v in (shape, theta[1:].ravel(), theta[0], transl)]
    with torch.no_grad():
        return body(*x)


def person(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """theta (24, 3), betas (10,), transl (3,) of an upright person some metres before an OpenCV camera."""
    rng = np.random.default_rng(seed)
    theta = rng.normal(0, 0.1, (24, 3))
    theta[0] = [np.pi - 0.05, 0.02, 0.03]
    return theta, rng.normal(0, 0.5, 10), np.array([0.1, 0.2, 7.0])


def save_picture(path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", HW[::-1]).save(path)


def check_box(sample, body) -> None:
    """The box is the extent of the posed body as the sample places it, and it is seen."""
    vertices = posed(body, sample.theta, sample.betas, sample.transl).vertices[0].numpy()
    px = vertices @ sample.K.T
    px = px[:, :2] / px[:, 2:]
    low, high = np.maximum(px.min(0), 0), np.minimum(px.max(0), (HW[1], HW[0]))
    np.testing.assert_allclose(sample.box_xywh, [*low, *(high - low)], atol=0.05)
    assert sample.seen and sample.size_hw == HW


def test_3dpw_goes_from_world_to_camera(tmp_path, bodies):
    theta, betas, transl = person(1)
    rng = np.random.default_rng(2)
    frames = 3
    R = matrix_from_aa(torch.tensor(rng.normal(0, 0.7, (frames, 3)))).numpy()
    t = rng.normal(0, 0.3, (frames, 3))
    # World parameters of the same person for each camera: found with the body, not with the formula under test.
    in_camera = posed(bodies["male"], theta, betas, transl).vertices[0].double().numpy()
    J0 = bodies["male"].rest_joints(torch.tensor(np.pad(betas, (0, 1)), dtype=torch.float32)[None])[0, 0].numpy()
    poses, trans = [], []
    for k in range(frames):
        turned = R[k].T @ matrix_from_aa(torch.tensor(theta[0])).numpy()
        pelvis = R[k].T @ (J0 + transl - t[k])
        poses.append(np.concatenate([aa_from_matrix(torch.tensor(turned)).numpy()[None], theta[1:]]).ravel())
        trans.append(pelvis - J0)
    cam_poses = np.tile(np.eye(4), (frames, 1, 1))
    cam_poses[:, :3, :3], cam_poses[:, :3, 3] = R, t
    data = {
        "sequence": "walk_00", "poses": [np.array(poses)] * 2, "betas": [np.append(betas, 9.0)] * 2,
        "trans": [np.array(trans)] * 2, "cam_poses": cam_poses, "cam_intrinsics": K, "genders": ["m", "f"],
        "campose_valid": [np.array([1, 0, 1]), np.array([0, 1, 0])],
    }  # fmt: skip
    (tmp_path / "sequenceFiles" / "train").mkdir(parents=True)
    with open(tmp_path / "sequenceFiles" / "train" / "walk_00.pkl", "wb") as file:
        pickle.dump(data, file, protocol=2)
    save_picture(tmp_path / "imageFiles" / "walk_00" / "image_00000.jpg")
    table = SampleTable(prepare_dataset("pw3d", tmp_path, tmp_path / "out", bodies=bodies))
    assert (table.source, table.split, table.kind, len(table)) == ("pw3d", "train", "smpl", 3)
    assert [s.image[-15:] for s in table] == ["image_00000.jpg", "image_00002.jpg", "image_00001.jpg"]
    assert [s.gender for s in table] == ["male", "male", "female"]
    for sample in table:
        found = posed(bodies["male"], sample.theta, sample.betas, sample.transl).vertices[0].double().numpy()
        np.testing.assert_allclose(found, in_camera, atol=2e-5)
        assert sample.betas[10] == 0
        check_box(sample, bodies["male"])


def test_coco_keeps_people_with_a_labelled_limb(tmp_path):
    limbs, face = np.zeros((17, 3)), np.zeros((17, 3))
    limbs[9], face[0] = (30, 40, 2), (10, 10, 2)
    people = [
        {"image_id": 7, "bbox": [1, 2, 30, 40], "keypoints": limbs.ravel().tolist(), "iscrowd": 0},
        {"image_id": 7, "bbox": [1, 2, 30, 40], "keypoints": face.ravel().tolist(), "iscrowd": 0},
        {"image_id": 7, "bbox": [1, 2, 30, 40], "keypoints": limbs.ravel().tolist(), "iscrowd": 1},
        {"image_id": 7, "bbox": [1, 2, 0, 40], "keypoints": limbs.ravel().tolist(), "iscrowd": 0},
    ]
    content = {"images": [{"id": 7, "file_name": "0007.jpg", "width": 320, "height": 240}], "annotations": people}
    (tmp_path / "annotations").mkdir()
    (tmp_path / "annotations" / "person_keypoints_val2017.json").write_text(json.dumps(content))
    table = SampleTable(prepare_dataset("coco", tmp_path, tmp_path, split="val2017"))
    (sample,) = table
    assert (sample.image, sample.size_hw, sample.kind, sample.K) == ("val2017/0007.jpg", (240, 320), "keypoints", None)
    np.testing.assert_allclose(sample.keypoints17, limbs)


def test_densepose_keeps_coco_people_whose_surface_was_labelled(tmp_path):
    limbs, face = np.zeros((17, 3)), np.zeros((17, 3))
    limbs[9], face[0] = (30, 40, 2), (10, 10, 2)
    surface = {"dp_I": [1.0, 2.0], "dp_U": [0.1, 0.2], "dp_V": [0.3, 0.4], "dp_x": [5.0, 6.0], "dp_y": [7.0, 8.0]}
    person = {"id": 3, "image_id": 7, "bbox": [1, 2, 30, 40], "keypoints": limbs.ravel().tolist(), "iscrowd": 0}
    without = {**person, "id": 4, "bbox": [2, 2, 30, 40]}
    headless = {**person, **surface, "id": 5, "keypoints": face.ravel().tolist()}
    image = {"id": 7, "file_name": "COCO_val2014_0007.jpg", "width": 320, "height": 240}
    (tmp_path / "annotations").mkdir()
    file = tmp_path / "annotations" / "densepose_coco_2014_minival.json"

    def write(*people):
        file.write_text(json.dumps({"images": [image], "annotations": people}))

    write({**person, **surface}, without, headless)
    table = SampleTable(prepare_dataset("densepose-coco", tmp_path, tmp_path, split="minival"))
    (sample,) = table
    assert (table.source, sample.kind, sample.image) == ("densepose", "keypoints", "val2014/COCO_val2014_0007.jpg")
    np.testing.assert_allclose(sample.keypoints17, limbs)
    np.testing.assert_allclose(sample.box_xywh, [1, 2, 30, 40])
    write(without)
    with pytest.raises(ValueError, match="Nobody in .* has surface labels .*prepare coco"):
        prepare_dataset("densepose", tmp_path, tmp_path, split="minival")
    write({**person, **surface, "dp_U": [0.1]})
    with pytest.raises(ValueError, match="annotation 3 .* differ in length"):
        prepare_dataset("densepose", tmp_path, tmp_path, split="minival")


@pytest.mark.parametrize(("split", "count"), [("train_v2", 28), ("test", 17)])
def test_3dhp_becomes_human36m_order_in_metres(tmp_path, split, count):
    rng = np.random.default_rng(count)
    joints = rng.normal(0, 300, (count, 3)) + [0, 0, 4000]
    name = {"train_v2": "S4/Seq1/imageSequence/video_0/frame_000001.jpg", "test": "TS1/img_000001.jpg"}[split]
    content = {
        "images": [{"id": 1, "file_name": name, "width": 2048, "height": 2048}],
        "annotations": [
            {"image_id": 1, "bbox": [5, 6, 70, 80], "keypoints_cam": joints.tolist(),
             "cam_param": {"intrinsic_param": np.pad(K, (0, 1)).tolist()}}
        ],
    }  # fmt: skip
    (tmp_path / f"annotation_mpi_inf_3dhp_{split}.json").write_text(json.dumps(content))
    (sample,) = SampleTable(prepare_dataset("mpi3dhp", tmp_path, tmp_path, split=split))
    expected, source = skeletons.get("h36m-17"), skeletons.get(f"mpi3dhp-{count}")
    for joint in ("right_knee", "left_wrist", "left_ankle"):
        true = joints[source.index(joint)] / 1000
        np.testing.assert_allclose(sample.joints17[expected.index(joint)], true, atol=1e-5)
    np.testing.assert_allclose(sample.K, K)
    assert sample.height == pytest.approx(1.6546 if split == "train_v2" else 1.75, abs=1e-4)


def h36m_json(body, names: list[str]) -> dict:
    theta, betas, transl = person(3)
    vertices = posed(body, theta, betas, transl).vertices
    joints = 1000 * body.regress(vertices, "h36m-17")[0].numpy()
    label = {"bbox": [0, 0, 1, 1], "thetas": theta.tolist(), "betas": betas.tolist(), "h36m_joints": joints.tolist()}
    camera = {"width": 320, "height": 240, "cam_param": {"f": [900, 900], "c": [160, 120]}}
    return {
        "images": [{"id": k, "file_name": name, **camera} for k, name in enumerate(names)],
        "annotations": [{**label, "image_id": k} for k in range(len(names))],
    }


def test_human36m_every_fifth_frame_placed_by_its_joints(tmp_path, bodies):
    video = lambda s, a, p: f"s_{s:02d}_act_{a:02d}_subact_{p:02d}_ca_01"  # noqa: E731
    kept, drifted, other = video(9, 3, 1), video(9, 5, 2), video(1, 3, 1)
    names = [f"{v}/{v}_{frame:06d}.jpg" for v in (kept, drifted, other) for frame in range(1, 12)]
    (tmp_path / "annotations").mkdir()
    (tmp_path / "annotations" / "Sample_test.json").write_text(json.dumps(h36m_json(bodies["neutral"], names)))
    table = SampleTable(prepare_dataset("h36m", tmp_path, tmp_path, split="test", bodies=bodies))
    assert [s.image for s in table] == [f"images/{kept}/{kept}_{frame:06d}.jpg" for frame in (1, 6, 11)]
    np.testing.assert_allclose(table[0].transl, person(3)[2], atol=1e-4)
    check_box(table[0], bodies["neutral"])


def test_bedlam_every_third_frame_of_people_in_view(tmp_path, bodies):
    theta, betas, transl = person(4)
    names = [f"seq_000000/seq_000000_{k:04d}.png" for k in range(7)]
    ext = np.tile(np.eye(4), (7, 1, 1))
    ext[:, :3, 3] = (0.05, 0.0, 1.0)
    away = np.tile(transl - ext[0, :3, 3], (7, 1))
    away[3] += (90, 0, 0)  # out of view
    labels = {
        "imgname": np.array(names), "pose_cam": np.tile(theta.ravel(), (7, 1)),
        "shape": np.tile(np.pad(betas, (0, 1)), (7, 1)),
        "trans_cam": away, "cam_ext": ext, "cam_int": np.tile(K, (7, 1, 1)),
    }  # fmt: skip
    (tmp_path / "labels").mkdir()
    for k in range(22):
        rows = 7 if k in (0, 21) else 0
        np.savez(tmp_path / "labels" / f"scene_{k:02d}.npz", **{n: v[:rows] for n, v in labels.items()})
    for scene in ("scene_00", "scene_21"):
        save_picture(tmp_path / "data" / scene / "png" / names[0])
        save_picture(tmp_path / "data" / scene / "png" / names[6])
    (tmp_path / "data" / "scene_21" / "png" / names[6]).unlink()
    save_picture(tmp_path / "data" / "scene_21" / "jpg" / names[6].replace(".png", ".jpg"))
    for split, scene in (("train", "scene_00"), ("val", "scene_21")):
        table = SampleTable(bedlam.prepare(tmp_path, tmp_path / "b.npz", bodies, split, least_visible=50))
        kind = "jpg" if scene == "scene_21" else "png"
        last = names[6].replace("png", kind)
        assert [s.image for s in table] == [f"data/{scene}/png/{names[0]}", f"data/{scene}/{kind}/{last}"]
        np.testing.assert_allclose(table[0].transl, transl, atol=1e-6)
        check_box(table[0], bodies["neutral"])


def test_the_authors_own_files_are_read(tmp_path, bodies):
    theta, betas, transl = person(5)
    data = {
        "id": np.arange(2), "file_name": np.array(["a/1.jpg", "a/2.jpg"]), "image_wh": np.array([[320, 240]] * 2),
        "bbox": np.array([[1.0, 2, 30, 40]] * 2), "cam_intrinsics": np.stack([K, K]),
        "gender": np.array(["male", "neutral"]), "smpl_theta": np.stack([theta.ravel()] * 2),
        "smpl_beta": np.stack([betas] * 2), "smpl_transl": np.stack([transl] * 2),
        "vis": np.array([[False] * 5, [False, True] + [False] * 3]),
    }  # fmt: skip
    joblib.dump(data, tmp_path / "densepose_train.pt", compress=3)
    table = SampleTable(prepare_released(tmp_path / "densepose_train.pt", tmp_path / "t.npz", "pw3d", "train"))
    assert [(s.gender, s.seen) for s in table] == [("male", False), ("neutral", True)]
    np.testing.assert_allclose(table[1].theta, theta, atol=1e-6)
    joblib.dump({"id": 1}, tmp_path / "bad.pt")
    with pytest.raises(ValueError, match="lacks file_name"):
        prepare_released(tmp_path / "bad.pt", tmp_path / "t.npz", "pw3d", "train")


@pytest.mark.parametrize("name", ["3dpw", "h36m", "h36m-moon", "bedlam", "3dhp", "3dhp-raw", "coco", "densepose"])
def test_every_data_set_has_its_command(tmp_path, name):
    assert len(DATASETS) == 8
    result = CliRunner().invoke(app, ["prepare", name, "--root", str(tmp_path), "--split", "none"])
    assert result.exit_code == 1 and "has no part 'none'" in result.output


@pytest.mark.parametrize("name", DATASETS)
def test_an_incomplete_download_says_what_is_missing_and_where_it_is(tmp_path, name):
    with pytest.raises(MissingFileError, match=r"nothing matches .*http"):
        prepare_dataset(name, tmp_path, tmp_path, bodies={})


def test_smpl_needs_eleven_components_of_its_own(tmp_path, make_smpl_arrays, monkeypatch):
    """A child template must not stand in for the component that a file of ten lacks."""
    monkeypatch.setenv("BODYREG_DATA", str(tmp_path))
    np.savez(tmp_path / "SMPL_MALE.npz", **make_smpl_arrays(components=10))
    with pytest.raises(ValueError, match="male .*child template.*at least 11"):
        load_bodies(("male",))
    np.savez(tmp_path / "SMPL_MALE.npz", **make_smpl_arrays(components=11))
    assert load_bodies(("male",))["male"].num_betas == 11


def test_unknown_names_and_parts(tmp_path):
    with pytest.raises(ValueError, match="Did you mean 'bedlam'"):
        prepare_dataset("bedlm", tmp_path, tmp_path)
    with pytest.raises(MissingFileError, match="3DPW is not complete"):
        prepare_dataset("3DPW", tmp_path, tmp_path, bodies={})
    with pytest.raises(ValueError, match="train2017"):
        prepare_dataset("coco", tmp_path, tmp_path, split="dev")


def test_tables_refuse_what_would_train_wrongly(tmp_path):
    row = {"image": "é.jpg", "size_hw": HW, "box_xywh": [0, 0, 1, 1], "keypoints17": np.zeros((17, 3))}
    path = write_table(tmp_path / "t.npz", "coco", "val", "keypoints", [row])
    assert SampleTable(path)[-1].image == "é.jpg"
    with pytest.raises(IndexError):
        SampleTable(path)[1]
    for change, message in (
        ({"box_xywh": [0, np.nan, 1, 1]}, "not finite in row 0"),
        ({"keypoints17": np.zeros((16, 3))}, "should be"),
    ):
        with pytest.raises(ValueError, match=message):
            write_table(tmp_path / "t.npz", "coco", "val", "keypoints", [row | change])
    with pytest.raises(ValueError, match="left to write"):
        write_table(tmp_path / "t.npz", "coco", "val", "keypoints", [])
    with pytest.raises(ValueError, match="lack 'joints17'|lack 'K'"):
        write_table(tmp_path / "t.npz", "x", "val", "joints", [row])
    np.savez(tmp_path / "other.npz", a=1)
    with pytest.raises(ValueError, match="no prepared data set"):
        SampleTable(tmp_path / "other.npz")


def test_the_command_prepares_and_says_what_is_missing(tmp_path):
    result = CliRunner().invoke(app, ["prepare", "coco", "--root", str(tmp_path), "--out", str(tmp_path)])
    assert result.exit_code == 1 and "person_keypoints_train2017.json" in result.output
    limbs = np.zeros((17, 3))
    limbs[9] = (30, 40, 2)
    label = {"image_id": 7, "bbox": [1, 2, 30, 40], "keypoints": limbs.ravel().tolist()}
    content = {"images": [{"id": 7, "file_name": "7.jpg", "width": 320, "height": 240}], "annotations": [label]}
    (tmp_path / "annotations").mkdir()
    (tmp_path / "annotations" / "person_keypoints_train2017.json").write_text(json.dumps(content))
    result = CliRunner().invoke(app, ["prepare", "coco", "--root", str(tmp_path), "--out", str(tmp_path)])
    assert result.exit_code == 0 and len(SampleTable(tmp_path / "coco_train2017.npz")) == 1
