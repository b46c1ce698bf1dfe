"""The body function against smplx and against its own laws."""

from __future__ import annotations

import contextlib
import io
from types import SimpleNamespace

import numpy as np
import pytest
import roma
import smplx
import torch

from bodyreg import skeletons
from bodyreg.body import BodyModel
from bodyreg.body_files import PARENTS
from bodyreg.body_joints import LANDMARKS, left_first, regressor_matrix
from bodyreg.files import MissingFileError

SMPL_MIRROR = list(skeletons.get("smpl-24").mirror)


def parameters(batch: int, num_betas: int, dtype=torch.float64, seed: int = 0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    sizes = {"betas": num_betas, "body_pose": 69, "global_orient": 3, "transl": 3}
    return {key: 0.6 * torch.randn(batch, n, generator=generator, dtype=dtype) for key, n in sizes.items()}


@pytest.fixture(scope="module")
def free() -> BodyModel:
    return BodyModel.load("free")


def quiet_smpl(arrays: dict, **options) -> smplx.SMPL:
    """The package's model of the arrays, padded so that it offers all betas, without its prints."""
    arrays = dict(arrays)
    short = 300 - arrays["shapedirs"].shape[2]
    arrays["shapedirs"] = np.concatenate([arrays["shapedirs"], np.zeros((*arrays["v_template"].shape, short))], 2)
    with contextlib.redirect_stdout(io.StringIO()):
        return smplx.SMPL(model_path="", data_struct=SimpleNamespace(**arrays), **options)


@pytest.mark.parametrize(("dtype", "ring", "components"), [(torch.float64, 48, 10), (torch.float32, 37, 16)])
def test_equals_smplx_package_directly(make_smpl_arrays, dtype, ring, components):
    arrays = make_smpl_arrays(ring, components)
    ids = {key: 0 for key in smplx.vertex_ids.vertex_ids["smplh"]}
    theirs = quiet_smpl(arrays, num_betas=components, batch_size=5, vertex_ids=ids, dtype=dtype)
    given = parameters(5, components, dtype)
    ours = BodyModel.from_arrays(arrays, num_betas=components, dtype=dtype)(**given)
    expected = theirs(**given)
    torch.testing.assert_close(ours.vertices, expected.vertices, atol=1e-6, rtol=0)
    torch.testing.assert_close(ours.joints, expected.joints[:, :24], atol=1e-6, rtol=0)


def test_engine_smplx_equals_own_and_prints_nothing(smpl_arrays, capsys):
    own = BodyModel.from_arrays(smpl_arrays, num_betas=11, dtype=torch.float64)
    other = BodyModel.from_arrays(smpl_arrays, num_betas=11, engine="smplx", dtype=torch.float64)
    given = parameters(4, 11)
    for name, ours, theirs in zip(own(**given)._fields, own(**given), other(**given), strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=0, msg=name)
    assert capsys.readouterr().out == ""


def test_free_body_equals_smplx_with_sixteen_betas():
    own = BodyModel.load("free", "female", num_betas=16)
    other = BodyModel.load("free", "female", num_betas=16, engine="smplx")
    given = parameters(3, 16, torch.float32)
    ours, theirs = own(**given), other(**given)
    torch.testing.assert_close(ours.vertices, theirs.vertices, atol=1e-6, rtol=0)
    torch.testing.assert_close(ours.joints, theirs.joints, atol=1e-6, rtol=0)


def test_landmarks_are_the_packages_slots(free):
    arrays = free.arrays
    data = {key: getattr(arrays, key) for key in ("v_template", "shapedirs", "posedirs", "J_regressor", "weights")}
    data |= {"f": arrays.faces, "kintree_table": np.array([arrays.parents, range(24)])}
    joints = quiet_smpl(data, num_betas=10)().joints[0, 24:].detach()
    picked = free().vertices[0, [v for name, v in free.landmarks.items() if name != "head_top"]]
    torch.testing.assert_close(picked, joints, atol=1e-6, rtol=0)


@pytest.mark.parametrize("argument", ["betas", "body_pose", "global_orient", "transl"])
def test_gradcheck(make_smpl_arrays, argument):
    body = BodyModel.from_arrays(make_smpl_arrays(6, 4), dtype=torch.float64)
    given = parameters(2, 4)

    def function(x):
        out = body(**{**given, argument: x})
        return out.vertices, out.joints

    assert torch.autograd.gradcheck(function, given[argument].requires_grad_(), atol=1e-7)


def test_gradient_at_the_rest_pose_is_finite(smpl_arrays):
    body = BodyModel.from_arrays(smpl_arrays, dtype=torch.float64)
    pose = torch.zeros(1, 69, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: body(body_pose=x).vertices[:, ::7], pose, atol=1e-6)


def test_accepts_every_layout_of_rotations_and_numpy(smpl_arrays):
    body = BodyModel.from_arrays(smpl_arrays, dtype=torch.float64)
    given = parameters(3, 10)
    expected = body(**given)
    matrices = roma.rotvec_to_rotmat(given["body_pose"].view(3, 23, 3))
    root = roma.rotvec_to_rotmat(given["global_orient"])
    layouts = [
        {"body_pose": given["body_pose"].view(3, 23, 3), "global_orient": given["global_orient"][:, None]},
        {"body_pose": matrices, "global_orient": root},
        {"body_pose": expected.body_pose, "global_orient": root[:, None]},
        {key: value.numpy() for key, value in given.items()},
    ]
    for layout in layouts:
        torch.testing.assert_close(body(**{**given, **layout}).vertices, expected.vertices)
    one = body(betas=given["betas"][:1], body_pose=given["body_pose"])
    assert one.betas.shape == (3, 10) and one.transl.shape == (3, 3)
    torch.testing.assert_close(body().vertices[0], body.v_template)


def test_batches_without_gradients_equal_single_bodies(smpl_arrays, monkeypatch):
    monkeypatch.setattr("bodyreg.skinning.SLICE", 4)
    body = BodyModel.from_arrays(smpl_arrays)
    given = parameters(11, 10, torch.float32)
    with torch.no_grad():
        many = body(**given)
        for i in range(11):
            single = body(**{key: value[i : i + 1] for key, value in given.items()})
            torch.testing.assert_close(many.vertices[i], single.vertices[0], atol=1e-6, rtol=0)
    assert many.vertices.is_contiguous()


def test_turning_about_the_rest_pelvis(smpl_arrays):
    """R applied to a placed body is global_orient R R0 with t' = R (J0 + t) - J0."""
    body = BodyModel.from_arrays(smpl_arrays, dtype=torch.float64)
    given = parameters(2, 10)
    R = roma.random_rotmat(2, dtype=torch.float64)
    out, J0 = body(**given), body.rest_joints(given["betas"])[:, 0]
    turned = body(given["betas"], given["body_pose"], R @ out.global_orient,
                  (R @ (J0 + given["transl"])[..., None])[..., 0] - J0)
    torch.testing.assert_close(turned.vertices, out.vertices @ R.mT)
    torch.testing.assert_close(turned.R_global, R[:, None] @ out.R_global)


def test_joints_follow_the_global_rotations(smpl_arrays):
    body = BodyModel.from_arrays(smpl_arrays, dtype=torch.float64)
    out = body(**parameters(2, 10))
    rest = body.rest_joints(out.betas)
    for j in range(1, 24):
        bone = out.R_global[:, PARENTS[j]] @ (rest[:, j] - rest[:, PARENTS[j]])[..., None]
        torch.testing.assert_close(out.joints[:, j] - out.joints[:, PARENTS[j]], bone[..., 0])


def test_rest_functions_agree_with_forward(smpl_arrays):
    body = BodyModel.from_arrays(smpl_arrays, dtype=torch.float64)
    betas = parameters(3, 10)["betas"]
    torch.testing.assert_close(body.rest_vertices(betas), body(betas).vertices)
    torch.testing.assert_close(body.rest_joints(betas), body(betas).joints)
    torch.testing.assert_close(body.rest_joints(betas), body.J_regressor @ body.rest_vertices(betas))


def test_autocast_does_not_blur_the_body(smpl_arrays):
    body = BodyModel.from_arrays(smpl_arrays)
    given = parameters(2, 10, torch.float32)
    expected = body(**given).vertices
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(body(**given).vertices, expected, atol=0, rtol=0)


def test_array_views_are_the_files_arrays(smpl_arrays):
    body = BodyModel.from_arrays(smpl_arrays, dtype=torch.float64)
    for key in ("v_template", "shapedirs", "posedirs", "J_regressor", "weights"):
        np.testing.assert_array_equal(getattr(body, key).numpy(), smpl_arrays[key], err_msg=key)
    assert body.faces.dtype == torch.int64 and body.faces.tolist() == smpl_arrays["f"].tolist()
    assert body.state_dict() == {}
    assert body.to(torch.float32)().vertices.dtype == torch.float32


# ------------------------------------------------------------------------------------------------------- shape columns


def test_kid_column_equals_the_packages(smpl_arrays, tmp_path):
    np.save(tmp_path / "kid.npy", smpl_arrays["kid_template"])
    ids = {key: 0 for key in smplx.vertex_ids.vertex_ids["smplh"]}
    data = {key: value for key, value in smpl_arrays.items() if key != "kid_template"}
    with contextlib.redirect_stdout(io.StringIO()):
        theirs = smplx.SMPL(model_path="", data_struct=SimpleNamespace(**data), age="kid", num_betas=10, vertex_ids=ids,
                            kid_template_path=str(tmp_path / "kid.npy"), dtype=torch.float64, batch_size=2)
    given = parameters(2, 11)
    by_flag = BodyModel.from_arrays(smpl_arrays, kid=True, dtype=torch.float64)
    by_count = BodyModel.from_arrays(smpl_arrays, num_betas=11, dtype=torch.float64)
    for body in (by_flag, by_count):
        assert body.has_kid and body.num_betas == 11
        torch.testing.assert_close(body(**given).vertices, theirs(**given).vertices, atol=1e-6, rtol=0)


def test_number_of_betas(make_smpl_arrays):
    arrays = make_smpl_arrays(components=16)
    assert BodyModel.from_arrays(arrays).num_betas == 10
    plain = BodyModel.from_arrays(arrays, num_betas=11)
    assert not plain.has_kid
    np.testing.assert_allclose(plain.shapedirs.numpy(), arrays["shapedirs"][:, :, :11], rtol=1e-6)
    mixed = BodyModel.from_arrays(arrays, num_betas=11, kid=True)
    np.testing.assert_allclose(mixed.shapedirs[:, :, :10].numpy(), arrays["shapedirs"][:, :, :10], rtol=1e-6)
    with pytest.raises(ValueError, match="18 betas were asked.*at most"):
        BodyModel.from_arrays(arrays, num_betas=18)
    del arrays["kid_template"]
    with pytest.raises(MissingFileError, match="no child template"):
        BodyModel.from_arrays(arrays, kid=True)


# ------------------------------------------------------------------------------------------- names, joints, identities


def test_name_hash_and_repr(make_smpl_arrays, free):
    body = BodyModel.from_arrays(make_smpl_arrays(), gender="male")
    same = BodyModel.from_arrays(make_smpl_arrays(), num_betas=3)
    other = BodyModel.from_arrays(make_smpl_arrays(seed=1))
    assert body.name == "unknown" and body.hash == same.hash != other.hash
    assert "unknown, male, 50 vertices" in repr(body) and body.hash[:12] in repr(body)
    assert free.name == "free" and free.gender == "neutral"
    body.check_origin(same.name, same.hash)
    with pytest.raises(ValueError, match="belong to the body 'unknown'"):
        body.check_origin(other.name, other.hash)
    assert BodyModel.from_arrays(make_smpl_arrays(6888)).name == "smpl"


def test_regress_is_applied_about_the_mean(smpl_arrays):
    body = BodyModel.from_arrays(smpl_arrays, dtype=torch.float64)
    matrix = np.random.default_rng(0).random((17, 50))
    matrix *= 0.9996 / matrix.sum(1, keepdims=True)
    near = body.regress(body().vertices, matrix)
    far = body.regress(body(transl=[[1.0, 2.0, 50.0]]).vertices, matrix)
    torch.testing.assert_close(far - near, torch.tensor([1.0, 2.0, 50.0]).to(near).expand_as(near))
    mean = body().vertices.mean(1, keepdim=True)
    torch.testing.assert_close(near, torch.from_numpy(matrix) @ (body().vertices - mean) + mean)
    torch.testing.assert_close(body.regress(body().vertices, "smpl-24"), body.rest_joints())


def test_regress_refuses_what_it_cannot_know(smpl_arrays):
    body = BodyModel.from_arrays(smpl_arrays)
    with pytest.raises(ValueError, match="no regressor for 'h36m-17'"):
        body.regress(body().vertices, "h36m-17")
    with pytest.raises(ValueError, match="h36m"):
        body.regress(body().vertices, "h63m-17")
    with pytest.raises(ValueError, match=r"needs \(\.\.\., 50, 3\)"):
        body.regress(torch.zeros(1, 6890, 3), "smpl-24")


def published_h36m(left: bool) -> np.ndarray:
    """A made-up (17, 6890) matrix whose legs lie on the sides that SMPL's vertex order gives them."""
    rng = np.random.default_rng(3)
    matrix = np.zeros((17, 6890))
    for row in range(17):
        low = 0 if (row in (1, 2, 3)) == left or row in (11, 12, 13) else 3500
        matrix[row, rng.integers(low, low + 3300, 5)] = 0.2
    return matrix


@pytest.fixture
def real_smpl(make_smpl_arrays) -> BodyModel:
    """A body of SMPL's size that is not the free one: stands for a licensed file."""
    return BodyModel.from_arrays(make_smpl_arrays(6888))


@pytest.mark.parametrize("left", [True, False])
def test_published_regressor_is_put_right_first_whatever_its_file(real_smpl, left, tmp_path, monkeypatch):
    matrix = published_h36m(left)
    assert left_first(matrix) == left
    np.save(tmp_path / "J_regressor_h36m.npy", matrix)
    monkeypatch.setenv("BODYREG_DATA", str(tmp_path))
    found = regressor_matrix("h36m-17", real_smpl.arrays)
    legs = [4, 5, 6, 1, 2, 3] if left else [1, 2, 3, 4, 5, 6]
    np.testing.assert_array_equal(found[1:7], matrix[legs])
    np.testing.assert_array_equal(regressor_matrix("h36m-17-left", real_smpl.arrays)[1:4], found[4:7])
    lsp = regressor_matrix("lsp-14", real_smpl.arrays)
    np.testing.assert_array_equal(lsp, found[[3, 2, 1, 4, 5, 6, 16, 15, 14, 11, 12, 13, 8, 10]])


def test_missing_published_regressor_says_where_it_was_sought(real_smpl, tmp_path, monkeypatch):
    monkeypatch.setenv("BODYREG_DATA", str(tmp_path))
    with pytest.raises(MissingFileError, match="J_regressor_h36m.npy") as caught:
        real_smpl.regress(real_smpl().vertices, "h36m-17")
    assert str(tmp_path) in str(caught.value)


def test_spin_and_openpose_joints_of_real_smpl(real_smpl, tmp_path, monkeypatch):
    extra = np.random.default_rng(0).random((9, 6890))
    np.save(tmp_path / "J_regressor_extra.npy", extra / extra.sum(1, keepdims=True))
    monkeypatch.setenv("BODYREG_DATA", str(tmp_path))
    vertices = real_smpl().vertices
    joints = real_smpl.rest_joints()[0]
    spin, names = real_smpl.regress(vertices, "spin-49")[0], skeletons.get("spin-49").joints
    openpose = real_smpl.regress(vertices, "openpose-25")[0]
    torch.testing.assert_close(spin[:25], openpose)
    chain = skeletons.get("smpl-24").joints
    for i, name in enumerate(skeletons.get("openpose-25").joints):
        if name in LANDMARKS:
            expected = vertices[0, LANDMARKS[name]]
        else:
            expected = joints[chain.index({"mid_hip": "pelvis"}.get(name, name))]
        torch.testing.assert_close(openpose[i], expected, atol=1e-5, rtol=0, msg=name)
    torch.testing.assert_close(spin[25:][names[25:].index("left_ear")], vertices[0, LANDMARKS["left_ear"]])
    hip = real_smpl.regress(vertices, extra / extra.sum(1, keepdims=True))[0, 0]
    torch.testing.assert_close(spin[25:][names[25:].index("right_hip")], hip)


def test_part_labels_and_mirror(free):
    assert free.part_labels.shape == (6890,) and set(free.part_labels.tolist()) == set(range(24))
    mirror = free.mirror
    assert torch.equal(mirror[mirror], torch.arange(6890))
    assert mirror[free.landmarks["left_heel"]] == free.landmarks["right_heel"]
    assert torch.equal(free.part_labels[mirror], torch.tensor(SMPL_MIRROR)[free.part_labels])


def test_mirrored_pose_gives_the_mirrored_mesh(free):
    pose = 0.4 * torch.randn(1, 24, 3, generator=torch.Generator().manual_seed(0))
    flipped = pose[:, SMPL_MIRROR] * torch.tensor([1.0, -1.0, -1.0])
    betas = torch.randn(1, 10, generator=torch.Generator().manual_seed(1))
    out, other = (free(betas, p[:, 1:], p[:, 0]).vertices for p in (pose, flipped))
    expected = out[:, free.mirror] * torch.tensor([-1.0, 1.0, 1.0])
    torch.testing.assert_close(other, expected, atol=2e-4, rtol=0)


def test_mirror_without_a_table_is_found_by_place(free, smpl_arrays):
    from dataclasses import replace

    from bodyreg.body_files import mirror_map

    found = mirror_map(replace(free.arrays, mirror=None))
    np.testing.assert_array_equal(found, free.mirror.numpy())
    lopsided = {**smpl_arrays, "v_template": smpl_arrays["v_template"] + np.linspace(0, 1, 50)[:, None]}
    with pytest.raises(ValueError, match="does not return to its start"):
        _ = BodyModel.from_arrays(lopsided).mirror


# -------------------------------------------------------------------------------------------------------- refused input


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"betas": torch.zeros(2, 12)}, r"takes \(B, 10\)"),
        ({"body_pose": torch.zeros(2, 72)}, r"body_pose has shape \(2, 72\)"),
        ({"global_orient": torch.zeros(2, 4)}, r"global_orient has shape \(2, 4\)"),
        ({"transl": torch.zeros(2, 2)}, r"transl has shape \(2, 2\)"),
        ({"betas": torch.zeros(2, 10), "transl": torch.zeros(3, 3)}, "Batch sizes differ"),
    ],
)
def test_wrong_shapes_are_refused(smpl_arrays, given, message):
    with pytest.raises(ValueError, match=message):
        BodyModel.from_arrays(smpl_arrays)(**given)


def test_unknown_options_are_refused(smpl_arrays):
    with pytest.raises(ValueError, match="Unknown body engine 'jax'"):
        BodyModel.from_arrays(smpl_arrays, engine="jax")
    with pytest.raises(ValueError, match="Unknown gender 'boy'"):
        BodyModel.load("free", "boy")
