"""Exports: mesh files with their frames, files made again from saved parameters, motion."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
import trimesh

from bodyreg.body import BodyModel
from bodyreg.data.motion import read_amass
from bodyreg.inference import export
from bodyreg.inference.export import amass_motion, export_results, write_mesh, write_person
from bodyreg.inference.results import PersonResult, PhotoRecord, ResultsWriter, read_person

FLIP = np.diag([1.0, -1.0, -1.0])
WORLD_FROM_CAM = np.array([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]])  # AMASS's world: z up


@pytest.fixture(scope="module")
def body() -> BodyModel:
    return BodyModel.load("free")


def person(body: BodyModel, seed: int = 0, **changes) -> PersonResult:
    rng = np.random.default_rng(seed)
    fields = {
        "global_orient": np.array([np.pi, 0, 0]) + rng.normal(size=3) / 5,
        "body_pose": rng.normal(size=69) / 5,
        "betas": rng.normal(size=10),
        "transl": np.array([0.3, 0.2, 4.0]) + rng.normal(size=3) / 10,
        "K": np.array([[500.0, 0, 320], [0, 500, 240], [0, 0, 1]]),
        "image_hw": (480, 640),
        "box_xywh": np.array([10.0, 20, 100, 200]),
        "R_crop_from_cam": np.eye(3),
        "joints": {},
        "keypoints": {},
        "focal_source": "exif",
        "body_name": body.name,
        "body_hash": body.hash,
        "gender": body.gender,
        "model_name": "m",
        "weights_hash": "w",
        "found_by": "whole",
    }
    return PersonResult(**(fields | changes))


def vertices_of(body: BodyModel, one: PersonResult) -> np.ndarray:
    args = {name: getattr(one, name)[None] for name in ("betas", "body_pose", "global_orient", "transl")}
    return body(**args).vertices[0].numpy()


def load(path) -> trimesh.Trimesh:
    return trimesh.load(path, process=False, force="mesh")


@pytest.mark.parametrize("kind", ["obj", "ply", "glb"])
@pytest.mark.parametrize("up", ["camera", "y"])
def test_meshes_come_back_in_the_frame_they_say(tmp_path, body, kind, up):
    vertices = vertices_of(body, person(body))
    faces = body.faces.numpy()
    write_mesh(tmp_path / f"a.{kind}", vertices, faces, up)
    mesh = load(tmp_path / f"a.{kind}")
    want = vertices if kind != "glb" and up == "camera" else vertices @ FLIP
    np.testing.assert_allclose(mesh.vertices, want, atol=1e-6)
    np.testing.assert_array_equal(mesh.faces, faces)
    assert mesh.is_watertight and mesh.volume > 0.02  # closed, and still the right way out after the turn


def test_glb_holds_the_way_back_to_the_photograph(tmp_path, body):
    vertices = vertices_of(body, person(body))
    write_mesh(tmp_path / "a.glb", vertices, body.faces.numpy())
    data = (tmp_path / "a.glb").read_bytes()
    header = json.loads(data[20 : 20 + int.from_bytes(data[12:16], "little")])
    for extras in (header["scenes"][0]["extras"], header["meshes"][0]["extras"]):
        matrix = np.array(extras["photograph_from_gltf"])
        back = load(tmp_path / "a.glb").vertices @ matrix[:3, :3].T + matrix[:3, 3]
        np.testing.assert_allclose(back, vertices, atol=1e-6)
    assert "NORMAL" in header["meshes"][0]["primitives"][0]["attributes"]


def test_obj_text_equals_its_naive_twin(body):
    vertices, faces = vertices_of(body, person(body)).astype(float)[:50], np.array([[0, 1, 2], [47, 48, 49]])
    lines = ["v {:.6f} {:.6f} {:.6f}".format(*v) for v in vertices] + ["f {} {} {}".format(*(f + 1)) for f in faces]
    written = [line for line in export._obj(vertices, faces).decode().splitlines() if line[:2] in ("v ", "f ")]
    assert written == lines


def test_write_person_writes_each_format_whole(tmp_path, body):
    one = person(body)
    paths = write_person(tmp_path / "sub" / "a.b_0", one, vertices_of(body, one), body.faces.numpy(), export.FORMATS)
    assert [path.name for path in paths] == [f"a.b_0.{name}" for name in export.FORMATS]
    assert sorted(path.name for path in (tmp_path / "sub").iterdir()) == sorted(path.name for path in paths)


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path, body, monkeypatch):
    one = person(body)
    (tmp_path / "a_0.json").write_text("old")

    def full(_person, file):
        file.write_text("half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(export, "write_json", full)
    with pytest.raises(OSError, match="No space"):
        write_person(tmp_path / "a_0", one, vertices_of(body, one), body.faces.numpy(), ["json"])
    assert [path.name for path in tmp_path.iterdir()] == ["a_0.json"]
    assert (tmp_path / "a_0.json").read_text() == "old"


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"formats": ["stl"]}, "stl"),
        ({"formats": []}, "none given"),
        ({"up": "z"}, "up direction"),
        ({"vertices": np.full((3, 3), np.nan)}, "finite"),
    ],
)
def test_wrong_arguments_are_refused(tmp_path, body, change, match):
    one = person(body)
    arguments = {"vertices": vertices_of(body, one), "faces": body.faces.numpy(), "formats": ["obj"]} | change
    with pytest.raises(ValueError, match=match):
        write_person(tmp_path / "a", one, **arguments)
    assert list(tmp_path.iterdir()) == []


# ---- from saved parameters ------------------------------------------------------------------------------------------


@pytest.fixture
def result_folder(tmp_path, body):
    folder = tmp_path / "results"
    writer = ResultsWriter(folder, {})
    for number, stem in enumerate(("clip/f2", "clip/f10", "still")):
        files = []
        for k in range(2):
            one = person(body, 10 * number + k)
            files += write_person(
                folder / f"{stem}_{k}", one, vertices_of(body, one), body.faces.numpy(), ["npz", "json", "obj"]
            )
        writer.add(PhotoRecord(f"{stem}.jpg", "done", files=[path.relative_to(folder).as_posix() for path in files]))
    writer.close()
    return folder


def test_export_makes_the_same_files_again(tmp_path, body, result_folder):
    written = export_results([result_folder], tmp_path / "again", ["obj", "npz", "glb"], batch_size=4)
    assert len(written) == 18
    for path in (result_folder / "clip").glob("*.obj"):
        again = tmp_path / "again" / "clip" / path.name
        np.testing.assert_allclose(load(again).vertices, load(path).vertices, atol=2e-6)
    one, other = read_person(result_folder / "still_1.npz"), read_person(tmp_path / "again" / "still_1.npz")
    np.testing.assert_array_equal(one.body_pose, other.body_pose)


def test_single_files_and_turned_axes(tmp_path, body, result_folder):
    (path,) = export_results([result_folder / "still_1.json"], tmp_path / "o", ["ply"], up="y")
    assert path == tmp_path / "o" / "still_1.ply"
    np.testing.assert_allclose(load(path).vertices, vertices_of(body, person(body, 21)) @ FLIP, atol=1e-5)


def test_parameters_of_another_body_are_refused(tmp_path, body, result_folder):
    male = BodyModel.load("free", "male")
    with pytest.raises(ValueError, match=r"belong to the body .*\. Load that body"):
        export_results([result_folder], tmp_path / "o", body=male)
    assert not (tmp_path / "o").exists()


def test_two_inputs_of_one_name_are_refused(tmp_path, result_folder):
    with pytest.raises(ValueError, match="separate folders"):
        export_results([result_folder / "still_0.npz", result_folder / "still_0.json"], tmp_path / "o", ["obj"])


def test_motion_is_in_order_and_keeps_every_pelvis_in_place(tmp_path, body, result_folder):
    (path,) = export_results([result_folder / "clip"], tmp_path / "o", ["amass"], framerate=25)
    assert path.name == "clip_amass.npz"
    with np.load(path, allow_pickle=False) as data:
        motion = dict(data)
    assert set(motion) == {"poses", "trans", "betas", "gender", "mocap_framerate"}
    assert motion["poses"].shape == (2, 72) and motion["mocap_framerate"] == 25 and motion["gender"] == "neutral"
    persons = [person(body, 0), person(body, 10)]  # frame 2 before frame 10
    np.testing.assert_allclose(motion["poses"][:, 3:], [one.body_pose for one in persons], atol=1e-12)
    posed = body(
        np.repeat(motion["betas"][None], 2, 0), motion["poses"][:, 3:], motion["poses"][:, :3], motion["trans"]
    )
    for joints, one in zip(posed.joints, persons, strict=True):
        pelvis = one.transl + body.rest_joints(one.betas[None])[0, 0].numpy()
        np.testing.assert_allclose(joints[0], pelvis @ WORLD_FROM_CAM.T, atol=1e-5)


@pytest.mark.parametrize("up", ["z", "y"])
def test_readers_of_amass_find_the_photographed_joints_again(tmp_path, body, up):
    """The camera taken for level: in the file x right, y forward, z up; our own reader can make that y up."""
    betas = np.random.default_rng(9).normal(size=10)
    persons = [person(body, seed, betas=betas) for seed in range(4)]
    for k, one in enumerate(persons):
        write_person(tmp_path / "walk" / f"{k:03d}_0", one, vertices_of(body, one), body.faces.numpy(), ["npz"])
    (path,) = export_results([tmp_path / "walk"], tmp_path / "o", ["amass"], framerate=12.5)
    motion = read_amass(path, up=up)
    assert (len(motion), motion.fps, motion.gender, motion.name) == (4, 12.5, "neutral", "walk_amass")
    np.testing.assert_allclose(motion.betas, betas, atol=1e-6)
    poses = motion.poses.reshape(4, 72).astype(float)
    posed = body(np.repeat(betas[None], 4, 0), poses[:, 3:], poses[:, :3], motion.trans)
    # Readers turn the translation with the world, which is right up to one offset (see read_amass).
    rest = body.rest_joints(betas[None])[0, 0].numpy()
    turn = WORLD_FROM_CAM if up == "z" else FLIP
    offset = 0 if up == "z" else (FLIP @ WORLD_FROM_CAM.T @ rest) - rest
    for frame, one in enumerate(persons):
        vertices = vertices_of(body, one) @ turn.T
        parameters = {name: getattr(one, name)[None] for name in ("betas", "body_pose", "global_orient", "transl")}
        joints = body(**parameters).joints[0].numpy() @ turn.T
        np.testing.assert_allclose(posed.vertices[frame].numpy() + offset, vertices, atol=2e-5)
        np.testing.assert_allclose(posed.joints[frame].numpy() + offset, joints, atol=2e-5)


def test_motion_tells_of_pictures_that_it_leaves_out(tmp_path, body, caplog):
    one = person(body)
    paths = write_person(tmp_path / "r" / "a_0", one, vertices_of(body, one), body.faces.numpy(), ["npz"])
    records = [PhotoRecord("a.jpg", "done", files=[path.name for path in paths]), PhotoRecord("b.jpg", "nobody")]
    ResultsWriter(tmp_path / "r", {}, records).close()
    export_results([tmp_path / "r"], tmp_path / "o", ["amass"])
    assert "without people: 1" in caplog.text and "b.jpg" in caplog.text


def test_motion_with_y_up_is_the_turned_motion(body):
    persons = [person(body, seed, betas=np.zeros(10)) for seed in range(3)]
    motion = amass_motion(persons, body, up="y")
    posed = body(None, motion["poses"][:, 3:], motion["poses"][:, :3], motion["trans"])
    want = torch.stack([torch.from_numpy(vertices_of(body, one)) for one in persons]) @ torch.from_numpy(FLIP).float()
    np.testing.assert_allclose(posed.vertices, want, atol=1e-5)


def test_motion_refuses_nobody_mixtures_and_bad_rates(body):
    with pytest.raises(ValueError, match="nobody"):
        amass_motion([], body)
    with pytest.raises(ValueError, match="mixes the bodies"):
        amass_motion([person(body), person(body, body_hash="other")], body)
    with pytest.raises(ValueError, match="up direction"):
        amass_motion([person(body)], body, up="x")
    for rate in (0, np.nan, -1):
        with pytest.raises(ValueError, match="frame rate"):
            amass_motion([person(body)], body, framerate=rate)
