"""A posed body as GLB with its skeleton and skin, for Blender, three.js and whatever else animates glTF.

The mesh is stored in the rest pose, with the body's shape; the pose is in the joints' nodes, and the pose's correctives
are one morph target of weight 1. Skinned as glTF 2.0 says (its section 3.7.3), that is the posed body to the precision
of float32. Who turns joints afterwards keeps the correctives of the pose that was saved, or sets the weight to 0.

Frame: y up, as glTF demands; `photograph_from_gltf` in `extras` leads back into the photograph's camera frame. Metres.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from bodyreg import skeletons
from bodyreg.inference.results import FRAME, UNITS, PersonResult
from bodyreg.rotations import matrix_from_aa

if TYPE_CHECKING:
    from bodyreg.body import BodyModel

__all__ = ["rigged_glb"]

PHOTOGRAPH_FROM_GLTF = np.diag([1.0, -1.0, -1.0, 1.0])
"""(4, 4) half turn about x, its own inverse."""
CORRECTIVES = "pose_correctives"
_COLOUR = (0.35, 0.51, 0.79, 1.0)  # linear
_FIRST_JOINT = 1  # among the nodes; the mesh stands before it
_PER_SET = 4  # joints in each JOINTS_n and WEIGHTS_n


def rigged_glb(person: PersonResult, body: BodyModel) -> bytes:
    """The file's bytes for a person and the body model of their parameters.

    Raises:
        ValueError: the parameters belong to another body model.
    """
    import pygltflib as gltf
    import torch

    body.check_origin(person.body_name, person.body_hash)
    betas = person.betas[None]
    R_local = matrix_from_aa(torch.from_numpy(np.concatenate([person.global_orient, person.body_pose]).reshape(24, 3)))
    with torch.no_grad():
        rest = body.rest_vertices(betas)[0].double().cpu().numpy()
        joints = body.rest_joints(betas)[0].double().cpu().numpy()
        feature = (R_local[1:] - torch.eye(3, dtype=R_local.dtype)).reshape(207)
        correctives = (body.posedirs @ feature.to(body.posedirs)).cpu().numpy()
    faces = body.faces.cpu().numpy()
    file = _Buffer(gltf)
    attributes = gltf.Attributes(
        POSITION=file.add(rest.astype("<f4"), gltf.ARRAY_BUFFER, bounds=True),
        NORMAL=file.add(_normals(rest, faces).astype("<f4"), gltf.ARRAY_BUFFER),
    )
    for number, (which, weights) in enumerate(_influences(body.weights.cpu().numpy())):
        setattr(attributes, f"JOINTS_{number}", file.add(which, gltf.ARRAY_BUFFER))
        setattr(attributes, f"WEIGHTS_{number}", file.add(weights, gltf.ARRAY_BUFFER))
    target = {"POSITION": file.add(correctives.astype("<f4"), gltf.ARRAY_BUFFER, bounds=True)}
    index_type = "<u2" if len(rest) < 65535 else "<u4"
    indices = file.add(faces.reshape(-1).astype(index_type), gltf.ELEMENT_ARRAY_BUFFER)
    inverse_bind = np.tile(np.eye(4), (24, 1, 1))
    inverse_bind[:, :3, 3] = -joints
    extras = {
        "photograph_from_gltf": PHOTOGRAPH_FROM_GLTF.tolist(), "photograph_frame": FRAME, "units": UNITS,
        "body_name": person.body_name, "body_hash": person.body_hash, "gender": person.gender,
    }  # fmt: skip
    skin = gltf.Skin(
        joints=[_FIRST_JOINT + j for j in range(24)], skeleton=_FIRST_JOINT, name="smpl",
        inverseBindMatrices=file.add(inverse_bind.transpose(0, 2, 1).astype("<f4")),  # by columns
    )  # fmt: skip
    mesh = gltf.Mesh(
        primitives=[gltf.Primitive(attributes=attributes, indices=indices, targets=[target], material=0)],
        weights=[1.0], name="body", extras={"targetNames": [CORRECTIVES]},
    )  # fmt: skip
    surface = gltf.PbrMetallicRoughness(baseColorFactor=list(_COLOUR), metallicFactor=0.0, roughnessFactor=0.6)
    content = gltf.GLTF2(
        asset=gltf.Asset(version="2.0", generator="bodyreg"), scene=0, extras=extras,
        scenes=[gltf.Scene(nodes=[0, _FIRST_JOINT], extras=extras)],
        nodes=[
            gltf.Node(name="body", mesh=0, skin=0),
            *_joint_nodes(gltf, body, joints, R_local.numpy(), person.transl),
        ],
        meshes=[mesh], skins=[skin], materials=[gltf.Material(name="body", pbrMetallicRoughness=surface)],
        accessors=file.accessors, bufferViews=file.views, buffers=[gltf.Buffer(byteLength=len(file.data))],
    )  # fmt: skip
    content.set_binary_blob(bytes(file.data))
    return b"".join(content.save_to_bytes())


def _joint_nodes(gltf: Any, body: BodyModel, joints: np.ndarray, R_local: np.ndarray, transl: np.ndarray) -> list[Any]:
    """Nodes of the 24 joints, posed; the first one's outer frame is glTF's, the others' their parent's."""
    from scipy.spatial.transform import Rotation

    turn = PHOTOGRAPH_FROM_GLTF[:3, :3]
    nodes = []
    for j, name in enumerate(skeletons.get("smpl-24").joints):
        parent = body.parents[j]
        R = R_local[j] if parent >= 0 else turn @ R_local[j]
        offset = joints[j] - joints[parent] if parent >= 0 else turn @ (joints[j] + transl)
        nodes.append(
            gltf.Node(
                name=name, translation=offset.tolist(), rotation=Rotation.from_matrix(R).as_quat().tolist(),
                children=[_FIRST_JOINT + k for k, other in enumerate(body.parents) if other == j],
            )  # fmt: skip
        )
    return nodes


def _influences(weights: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """Joints (V, 4) uint8 and weights (V, 4) float32 summing to 1, strongest first, as many sets as it takes."""
    most = int((weights > 0).sum(1).max())
    count = _PER_SET * -(-most // _PER_SET)
    order = np.argsort(-weights, axis=1, kind="stable")[:, :count]
    kept = np.take_along_axis(weights, order, 1).astype(np.float64)
    kept /= kept.sum(1, keepdims=True)
    order[kept == 0] = 0  # glTF wants unused joints to be 0
    return [
        (order[:, k : k + _PER_SET].astype("u1"), kept[:, k : k + _PER_SET].astype("<f4"))
        for k in range(0, count, _PER_SET)
    ]


def _normals(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Unit normals (V, 3), by area; vertices of no face look along y."""
    corners = vertices[faces]
    normal = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    total = np.zeros_like(vertices)
    np.add.at(total, faces, normal[:, None])
    length = np.linalg.norm(total, axis=1, keepdims=True)
    return np.where(length > 0, total / np.maximum(length, 1e-30), [0.0, 1.0, 0.0])


class _Buffer:
    """Arrays one after another, with the accessors that describe them."""

    def __init__(self, gltf: Any) -> None:
        self._gltf = gltf
        self.data = bytearray()
        self.accessors: list[Any] = []
        self.views: list[Any] = []

    def add(self, array: np.ndarray, target: int | None = None, bounds: bool = False) -> int:
        """Append an array, (N,), (N, C) or (N, 4, 4), and give the number of its accessor."""
        gltf = self._gltf
        kinds = {1: gltf.SCALAR, 3: gltf.VEC3, 4: gltf.VEC4, 16: gltf.MAT4}
        types = {"uint8": gltf.UNSIGNED_BYTE, "uint16": gltf.UNSIGNED_SHORT, "uint32": gltf.UNSIGNED_INT}
        self.data += b"\0" * (-len(self.data) % 4)
        view = gltf.BufferView(buffer=0, byteOffset=len(self.data), byteLength=array.nbytes, target=target)
        self.data += np.ascontiguousarray(array).tobytes()
        accessor = gltf.Accessor(
            bufferView=len(self.views), componentType=types.get(array.dtype.name, gltf.FLOAT), count=len(array),
            type=kinds[array[0].size], min=array.min(0).tolist() if bounds else None,
            max=array.max(0).tolist() if bounds else None,
        )  # fmt: skip
        self.views.append(view)
        self.accessors.append(accessor)
        return len(self.accessors) - 1
