"""GLB with skeleton and skin: read back by trimesh and by hand, skinned as the glTF standard says, and compared."""

from __future__ import annotations

import json
from typing import NamedTuple

import numpy as np
import pytest
import trimesh
from scipy.spatial.transform import Rotation

from bodyreg import skeletons
from bodyreg.body import BodyModel
from bodyreg.inference.export import export_results, write_person
from bodyreg.inference.results import PersonResult
from bodyreg.inference.rig import rigged_glb

FLIP = np.diag([1.0, -1.0, -1.0])
PARTS = ("betas", "body_pose", "global_orient", "transl")


class Glb(NamedTuple):
    """A file's JSON and its accessors as arrays."""

    content: dict
    arrays: list[np.ndarray]

    @classmethod
    def parse(cls, data: bytes) -> Glb:
        """By the standard: a header of 12 bytes, then chunks of length, kind and content."""
        assert data[:4] == b"glTF" and int.from_bytes(data[8:12], "little") == len(data) and len(data) % 4 == 0
        length = int.from_bytes(data[12:16], "little")
        content = json.loads(data[20 : 20 + length])
        blob = data[28 + length :]
        kinds = {5121: "<u1", 5123: "<u2", 5125: "<u4", 5126: "<f4"}
        widths = {"SCALAR": (), "VEC3": (3,), "VEC4": (4,), "MAT4": (4, 4)}
        arrays = []
        for accessor in content["accessors"]:
            view = content["bufferViews"][accessor["bufferView"]]
            dtype, width = np.dtype(kinds[accessor["componentType"]]), widths[accessor["type"]]
            count = accessor["count"] * int(np.prod(width, dtype=int))
            assert view["byteOffset"] % 4 == 0 and count * dtype.itemsize == view["byteLength"]
            array = np.frombuffer(blob, dtype, count, view["byteOffset"]).reshape(-1, *width)
            if "min" in accessor:
                np.testing.assert_array_equal(accessor["min"], array.min(0))
                np.testing.assert_array_equal(accessor["max"], array.max(0))
            arrays.append(array)
        return cls(content, arrays)

    @property
    def primitive(self) -> dict:
        return self.content["meshes"][0]["primitives"][0]

    def worlds(self, turned: dict[str, np.ndarray] | None = None) -> dict[int, np.ndarray]:
        """(4, 4) of every node; `turned` gives nodes by name another rotation."""
        nodes = self.content["nodes"]
        found: dict[int, np.ndarray] = {}

        def visit(index: int, outer: np.ndarray) -> None:
            node, local = nodes[index], np.eye(4)
            R = Rotation.from_quat(node.get("rotation", [0, 0, 0, 1])).as_matrix()
            local[:3, :3] = (turned or {}).get(node["name"], R)
            local[:3, 3] = node.get("translation", [0, 0, 0])
            found[index] = outer @ local
            for child in node.get("children", []):
                visit(child, found[index])

        for root in self.content["scenes"][self.content["scene"]]["nodes"]:
            visit(root, np.eye(4))
        return found

    def skinned(self, turned: dict[str, np.ndarray] | None = None, correct: float | None = None) -> np.ndarray:
        """(V, 3) vertices: morphed, then skinned (glTF 2.0, section 3.7.3)."""
        skin, mesh, worlds = self.content["skins"][0], self.content["meshes"][0], self.worlds(turned)
        amount = mesh["weights"][0] if correct is None else correct
        attributes = self.primitive["attributes"]
        points = self.arrays[attributes["POSITION"]] + amount * self.arrays[self.primitive["targets"][0]["POSITION"]]
        inverse_bind = self.arrays[skin["inverseBindMatrices"]].transpose(0, 2, 1).astype(float)  # stored by columns
        moves = np.stack([worlds[node] for node in skin["joints"]]) @ inverse_bind
        total = np.zeros((len(points), 4, 4))
        for name, number in attributes.items():
            if name.startswith("JOINTS_"):
                weights = self.arrays[attributes["WEIGHTS_" + name[7:]]]
                total += np.einsum("vk,vkij->vij", weights, moves[self.arrays[number]])
        return (total[:, :3, :3] @ points[:, :, None])[..., 0] + total[:, :3, 3]


@pytest.fixture(scope="module")
def someone(free_body, person_parameters) -> PersonResult:
    parameters = person_parameters(3) | {"transl": np.array([[0.3, -0.2, 4.0]])}
    return person_of(free_body, parameters)


def person_of(body: BodyModel, parameters: dict[str, np.ndarray]) -> PersonResult:
    posed = body(**parameters)
    return PersonResult(
        **{name: value[0] for name, value in parameters.items()}, K=np.eye(3), image_hw=np.array([9, 9]),
        box_xywh=np.zeros(4), R_crop_from_cam=np.eye(3), joints={"smpl-24": posed.joints[0].double().numpy()},
        keypoints={}, focal_source="exif", body_name=body.name, body_hash=body.hash, gender=body.gender,
        model_name="m", weights_hash="w", found_by="box",
    )  # fmt: skip


def test_skinning_the_file_gives_the_posed_body(free_body, someone):
    glb = Glb.parse(rigged_glb(someone, free_body))
    vertices = free_body(**{name: getattr(someone, name)[None] for name in PARTS}).vertices[0].numpy()
    np.testing.assert_allclose(glb.skinned(), vertices @ FLIP, atol=2e-6)
    worlds, skin = glb.worlds(), glb.content["skins"][0]
    joints = np.stack([worlds[node][:3, 3] for node in skin["joints"]])
    np.testing.assert_allclose(joints, someone.joints["smpl-24"] @ FLIP, atol=2e-6)
    back = np.array(glb.content["scenes"][0]["extras"]["photograph_from_gltf"])
    np.testing.assert_allclose(glb.skinned() @ back[:3, :3].T + back[:3, 3], vertices, atol=2e-6)


def test_joints_turn_as_those_of_the_body(free_body, someone):
    """Who animates the file gets the body's own skinning, with the correctives of the saved pose or without any."""
    glb = Glb.parse(rigged_glb(someone, free_body))
    other = someone.body_pose.reshape(23, 3).copy()
    other[[3, 17]] += 0.6  # left knee, left elbow
    names = skeletons.get("smpl-24").joints[1:]
    turned = {name: Rotation.from_rotvec(pose).as_matrix() for name, pose in zip(names, other, strict=True)}
    uncorrected = BodyModel.from_arrays(
        {
            "v_template": free_body.rest_vertices(someone.betas[None])[0].numpy(),
            "J_regressor": free_body.J_regressor.numpy(), "weights": free_body.weights.numpy(),
            "shapedirs": np.zeros((6890, 3, 1)), "posedirs": np.zeros((6890, 3, 207)),
            "kintree_table": np.array([free_body.parents, range(24)]), "f": free_body.faces.numpy(),
        }
    )  # fmt: skip
    want = uncorrected(None, other.reshape(1, 69), someone.global_orient[None], someone.transl[None])
    np.testing.assert_allclose(glb.skinned(turned, correct=0.0), want.vertices[0].numpy() @ FLIP, atol=5e-6)
    worlds = glb.worlds(turned)
    joints = np.stack([worlds[node][:3, 3] for node in glb.content["skins"][0]["joints"]])
    np.testing.assert_allclose(joints, want.joints[0].numpy() @ FLIP, atol=5e-6)
    assert np.abs(glb.skinned(turned) - glb.skinned(turned, correct=0.0)).max() > 1e-4


def test_the_skeleton_is_the_body_s_tree(free_body, someone):
    content = Glb.parse(rigged_glb(someone, free_body)).content
    skin, nodes = content["skins"][0], content["nodes"]
    assert tuple(nodes[node]["name"] for node in skin["joints"]) == skeletons.get("smpl-24").joints
    place = {node: j for j, node in enumerate(skin["joints"])}
    parents = [-1] * 24
    for node in skin["joints"]:
        for child in nodes[node].get("children", []):
            parents[place[child]] = place[node]
    assert tuple(parents) == free_body.parents and skin["skeleton"] == skin["joints"][0]
    assert nodes[0]["skin"] == 0 and "rotation" not in nodes[0]


def test_other_programs_find_the_rest_pose_and_normals(tmp_path, free_body, someone):
    faces = free_body.faces.numpy()
    (path,) = write_person(tmp_path / "a_0", someone, np.zeros((6890, 3)), faces, ["glb"], body=free_body)
    mesh = trimesh.load(path, process=False, force="mesh")
    np.testing.assert_allclose(mesh.vertices, free_body.rest_vertices(someone.betas[None])[0], atol=1e-6)
    np.testing.assert_array_equal(mesh.faces, free_body.faces)
    assert mesh.is_watertight and mesh.volume > 0.02
    glb = Glb.parse(path.read_bytes())
    normals = glb.arrays[glb.primitive["attributes"]["NORMAL"]]
    np.testing.assert_allclose(np.linalg.norm(normals, axis=1), 1, atol=1e-5)
    assert (normals * mesh.vertex_normals).sum(1).mean() > 0.98


def test_weights_of_more_than_four_joints_fill_a_second_set(smpl_arrays):
    """Random bodies have weights for all 24 joints at every vertex."""
    body = BodyModel.from_arrays(smpl_arrays)
    rng = np.random.default_rng(0)
    person = person_of(
        body, {"betas": rng.normal(size=(1, 10)), "body_pose": rng.normal(size=(1, 69)) / 3,
               "global_orient": rng.normal(size=(1, 3)), "transl": np.array([[0.1, 0.2, 3.0]])},
    )  # fmt: skip
    glb = Glb.parse(rigged_glb(person, body))
    assert "JOINTS_5" in glb.primitive["attributes"]
    posed = body(**{name: getattr(person, name)[None] for name in PARTS})
    np.testing.assert_allclose(glb.skinned(), posed.vertices[0].numpy() @ FLIP, atol=1e-5)


def test_parameters_of_another_body_are_refused(someone):
    with pytest.raises(ValueError, match="belong to the body"):
        rigged_glb(someone, BodyModel.load("free", "male"))


def test_export_from_saved_parameters_has_the_skin_too(tmp_path, free_body, someone):
    write_person(tmp_path / "a_0", someone, np.zeros((3, 3)), np.zeros((1, 3), int), ["npz"])
    (path,) = export_results([tmp_path / "a_0.npz"], tmp_path / "out", ["glb"])
    assert path.read_bytes() == rigged_glb(someone, free_body)
