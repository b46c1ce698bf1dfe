"""Three kinds of heads on miniatures of 3DPW and Human3.6M: own joints, mesh and lifter, on one path, in one table."""

from __future__ import annotations

from types import SimpleNamespace
from typing import NamedTuple

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from bodyreg import skeletons
from bodyreg.cli import app
from bodyreg.crops import make_crop
from bodyreg.data.lifter_cameras import h36m_cameras
from bodyreg.data.sample import SampleTable, write_table
from bodyreg.data.spin import load_spin, write_spin
from bodyreg.evaluation import command, tables
from bodyreg.evaluation.evaluate import evaluate
from bodyreg.evaluation.heads import fit_head_map, lift_people, people_of_spin, people_of_table
from bodyreg.evaluation.truth import StoredJoints, open_truth
from bodyreg.models.registry import ModelSettings

K = np.array([[900.0, 0, 160], [0, 900, 120], [0, 0, 1]])
ERROR_M = 0.030


class Bodies(NamedTuple):
    """Posed bodies in the camera's frame."""

    theta: torch.Tensor
    betas: torch.Tensor
    transl: torch.Tensor
    R_local: torch.Tensor
    joints: torch.Tensor
    joints17: torch.Tensor


@pytest.fixture(scope="module")
def posed(free_body) -> Bodies:
    """Six upright people some metres before a camera, the axes of which point right, down and forward."""
    rng = np.random.default_rng(3)
    theta = torch.tensor(rng.normal(0, 0.15, (6, 24, 3)), dtype=torch.float32)
    theta[:, 0] = torch.tensor([np.pi - 0.1, 0.02, 0.03])
    betas = torch.tensor(rng.normal(0, 0.5, (6, 10)), dtype=torch.float32)
    transl = torch.tensor(rng.uniform(-0.3, 0.3, (6, 3)) + [0, 0, 7.0], dtype=torch.float32)
    with torch.no_grad():
        out = free_body(betas, theta[:, 1:], theta[:, 0], transl)
        joints17 = free_body.regress(out.vertices, "h36m-17")
    R_local = torch.cat([out.global_orient[:, None], out.body_pose], 1)
    return Bodies(theta, betas, transl, R_local, out.joints, joints17)


def box_of(points_px: np.ndarray) -> np.ndarray:
    low, high = points_px.min(0), points_px.max(0)
    return np.concatenate([low - 5, high - low + 10])


@pytest.fixture(scope="module")
def pw3d(posed, tmp_path_factory):
    """Two people in three pictures of one sequence, the second after the first, as 3DPW is prepared."""
    root = tmp_path_factory.mktemp("pw3d")
    rows = []
    for k in range(6):
        image = f"imageFiles/walk_00/image_{k % 3:05d}.jpg"
        (root / image).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (320, 240), (90, 120, 90)).save(root / image)
        px = posed.joints[k].double().numpy() @ K.T
        rows.append(
            {
                "image": image, "size_hw": (240, 320), "box_xywh": box_of(px[:, :2] / px[:, 2:]), "K": K,
                "gender": ("male", "female")[k // 3], "theta": posed.theta[k].numpy(), "betas": posed.betas[k].numpy(),
                "transl": posed.transl[k].numpy(), "seen": True,
            }
        )  # fmt: skip
    return root, write_table(root / "pw3d_test.npz", "pw3d", "test", "smpl", rows)


@pytest.fixture(scope="module")
def h36m(posed, tmp_path_factory):
    """Six pictures of the frontal camera in SPIN's layout: centred joints, 2D joints, boxes."""
    root = tmp_path_factory.mktemp("h36m")
    camera = next(c for c in h36m_cameras()["S9"] if c.name == "60457274")
    S, part, centre, scale, names = np.zeros((6, 24, 4)), np.zeros((6, 24, 3)), [], [], []
    for k in range(6):
        name = f"S9_{('Eating', 'Walking')[k // 3]}_1.60457274_{5 * (k % 3) + 1:06d}.jpg"
        Image.new("RGB", camera.size_wh, (90, 90, 120)).save(root / name)
        joints = posed.joints17[k].double().numpy()
        at = [i for i in skeletons.matching("h36m-17", "spin-24")]
        has = [i is not None for i in at]
        px = camera.pixels(joints)
        picked = [i for i in at if i is not None]
        S[k, has, :3], S[k, has, 3] = (joints - joints[:1])[picked], 1
        part[k, has, :2], part[k, has, 2] = px[picked], 1
        box = box_of(px)
        centre.append(box[:2] + box[2:] / 2)
        scale.append(max(box[2:]) / 200)
        names.append(name)
    fields = {"imgname": np.array(names), "center": np.array(centre), "scale": np.array(scale), "S": S, "part": part}
    return root, write_spin(root / "h36m_valid_protocol2.npz", fields)


class Oracle:
    """A regressor that knows the bodies, in its crops' turned frames; its own joints are off by a known length."""

    def __init__(self, posed: Bodies, body, people, margin: float) -> None:
        self.posed, self.body, self.people, self.margin, self.at = posed, body, people, margin, 0
        self.settings, self.crop_hw = ModelSettings(crop_size=64), (64, 64)
        self.weights_hash, self.device = "0123456789abcdef", torch.device("cpu")

    def predict(self, crops, K_crop):
        rows = list(range(self.at, self.at + len(crops)))
        self.at += len(crops)
        assert crops.shape == (len(rows), 64, 64, 3) and crops.dtype == np.uint8 and crops.any()
        found = [make_crop(self.people.cameras[k], self.people.boxes[k], (64, 64), margin=self.margin) for k in rows]
        np.testing.assert_allclose(K_crop, [crop.K_crop for crop in found])
        R = torch.from_numpy(np.stack([crop.R_crop_from_cam for crop in found])).float()
        p = Bodies(*(value[rows] for value in self.posed))
        R_local = p.R_local.clone()
        R_local[:, 0] = R @ R_local[:, 0]
        J0 = self.body.rest_joints(p.betas)[:, 0]
        transl = (R @ (J0 + p.transl)[..., None])[..., 0] - J0
        xyz = torch.cat([p.joints, p.joints17[:, :1]], 1)
        xyz[:, :24, 0] += ERROR_M
        return SimpleNamespace(R_local=R_local, betas=p.betas, transl=transl, xyz=xyz @ R.mT)


def test_the_map_from_own_joints_is_affine_and_close(free_body):
    found = fit_head_map(free_body, poses=96)
    torch.testing.assert_close(found.weights.sum(1), torch.ones(17, dtype=torch.float64))
    torch.testing.assert_close(found.weights[0], torch.eye(25, dtype=torch.float64)[24], atol=1e-6, rtol=0)
    assert 0 < found.residual_m < 0.012


def test_three_heads_in_one_table(pw3d, h36m, posed, free_body):
    results = []
    for (root, data), protocol, spin in ((pw3d, "pw3d-j14", False), (h36m, "h36m-mesh-p2", True)):
        truth = open_truth(data, lambda gender: free_body)
        people = people_of_spin(load_spin(data), root) if spin else people_of_table(truth.table, truth.source)
        margin = 1.0 if spin else ModelSettings().margin
        true17 = (posed.joints17 - posed.joints17[:, :1]).double()
        seen = []

        def lifter(screen, true17=true17, seen=seen):
            rows = range(3 * len(seen), 3 * len(seen) + screen.shape[1])
            seen.append(screen)
            off = torch.zeros(17, 3, dtype=torch.float64)
            off[1:, 2] = ERROR_M
            return (true17[list(rows)] + off)[None]

        regressor = Oracle(posed, free_body, people, margin)
        found = command.score_regressor(
            regressor, data, root, protocol, name="oracle", bodies=lambda gender: free_body, lifter=lifter, batch_size=4
        )
        own, mesh, lifted = found
        assert [r.system for r in found] == ["oracle, own joints", "oracle, mesh", "lifter"]
        assert {r.samples for r in found} == {6} and own.weights_hash == regressor.weights_hash
        assert mesh.errors["MPJPE"] < 1e-5 and own.errors["MPJPE"] == pytest.approx(ERROR_M, abs=0.012)
        assert lifted.errors["MPJPE"] == pytest.approx(ERROR_M, abs=1e-5)
        assert ("PVE" in mesh.errors) == (protocol == "pw3d-j14") and "PVE" not in lifted.errors
        assert "linear map" in own.notes[0] and len(seen) == 2 and seen[0].shape == (1, 3, 17, 2)
        h, w = people.cameras[0].size_hw
        px = (seen[0][0].double().numpy() + [1, h / w]) * w / 2
        wanted = people.keypoints[:3]
        np.testing.assert_allclose(px, wanted, atol=1e-3)
        results += found
    text = tables.text(results)
    assert len([line for line in text.splitlines() if line.startswith(("oracle,", "lifter "))]) >= 6
    assert "PersPose (published)" in text and "DSR (published)" in text


def test_people_of_a_picture_have_names_and_tracks_of_their_own(pw3d, h36m, free_body):
    samples = open_truth(pw3d[1], lambda gender: free_body).source.samples
    assert samples.names[3] == "imageFiles/walk_00/image_00000.jpg#1"
    assert samples.sequences == ("walk_00#0",) * 3 + ("walk_00#1",) * 3
    samples = open_truth(h36m[1], lambda gender: free_body).source.samples
    assert samples.actions == ("Eating",) * 3 + ("Walking",) * 3 and set(samples.subjects) == {"S9"}


def test_genders_of_the_truth_follow_the_protocol(pw3d, free_body):
    asked = []

    def bodies(gender):
        asked.append(gender)
        return free_body

    truth = open_truth(pw3d[1], bodies)
    evaluate(StoredJoints(np.zeros((6, 17, 3)), "h36m-17", truth.source.samples), truth, "pw3d-j14")
    assert set(asked) == {"male", "female"}
    asked.clear()
    evaluate(StoredJoints(np.zeros((6, 17, 3)), "h36m-17", truth.source.samples), truth, "pw3d-j14-vibe")
    assert set(asked) == {"neutral"}


def test_lifters_need_2d_joints_and_give_a_pose_a_frame(pw3d, free_body):
    table = SampleTable(pw3d[1])
    with pytest.raises(ValueError, match="no 2D joints"):
        lift_people(lambda x: x, people_of_table(table))
    people = people_of_table(table, open_truth(pw3d[1], lambda gender: free_body).source)
    with pytest.raises(ValueError, match="a pose for every frame"):
        lift_people(lambda screen: torch.zeros(1, 1, 17, 3), people)


def test_the_command_scores_files_of_predictions(pw3d, posed, tmp_path):
    root, data = pw3d
    names = [f"{root}/imageFiles/walk_00/image_{k % 3:05d}.jpg" for k in range(6)]
    np.savez(tmp_path / "theirs.npz", joints=posed.joints17.numpy(), joint_set="h36m-17", imgname=np.array(names))
    line = ["evaluate", "--predictions", str(tmp_path / "theirs.npz"), "--data", str(data), "--protocol", "pw3d-j14"]
    line += ["--body", "free", "--out", str(tmp_path / "table.json"), "--by", "joints", "--plots", str(tmp_path)]
    result = CliRunner().invoke(app, line)
    assert result.exit_code == 0, result.output
    assert "theirs" in result.output and "PersPose (published)" in result.output and "right_ankle" in result.output
    assert (tmp_path / "table.json").exists() and (tmp_path / "joints.png").exists()
    wrong = CliRunner().invoke(app, [*line[:5], "--protocol", "h36m-mesh-p2", "--body", "free"])
    assert wrong.exit_code == 1 and "pw3d-j14" in wrong.output
    assert "mpi3dhp-lift-17" in CliRunner().invoke(app, ["evaluate", "--protocol", "list"]).output
    assert CliRunner().invoke(app, ["evaluate", "--protocol", "pw3d-j14"]).exit_code == 1


def test_shipped_weights_score_three_heads_from_the_command_line(pw3d, tmp_path):
    """Grey pictures tell nothing: errors are large and finite, and every head has its row."""
    root, data = pw3d
    line = ["evaluate", "--model", "perspose_small", "--data", str(data), "--images", str(root), "--protocol",
            "pw3d-j14", "--lifter", "videopose3d", "--device", "cpu", "--out", str(tmp_path / "rows.json")]  # fmt: skip
    result = CliRunner().invoke(app, line)
    assert result.exit_code == 0, result.output
    for system in ("perspose_small, own joints", "perspose_small, mesh", "videopose3d, true 2D joints"):
        assert system in result.output
    wrong = CliRunner().invoke(app, [*line[:-5], "nowhere"])
    assert wrong.exit_code == 1 and "no lifter named 'nowhere'" in wrong.output
