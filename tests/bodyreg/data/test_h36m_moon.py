"""Human3.6M in PoseNet's JSON form: joints in the cameras' frames, frames and sequences that each test keeps."""

import json

import numpy as np
import pytest

from bodyreg.data.prepare import prepare_dataset
from bodyreg.data.sample import SampleTable
from bodyreg.evaluation.truth import open_truth

TURN = [[0.0, -1, 0], [0, 0, -1], [1, 0, 0]]
PLACE = [10.0, 20, 4000]


def release(root, subjects=(9, 11), frames=130):
    """A miniature of the annotations: one camera, two sequences of a subject."""
    rng = np.random.default_rng(0)
    (root / "annotations").mkdir(parents=True)
    truth = {}
    for subject in subjects:
        images, labels, joints = [], [], {}
        for action, part in ((5, 2), (2, 1)):
            poses = rng.normal(0, 300, (frames, 17, 3))
            joints.setdefault(str(action), {})[str(part)] = {str(i): pose.tolist() for i, pose in enumerate(poses)}
            folder = f"s_{subject:02d}_act_{action:02d}_subact_{part:02d}_ca_01"
            for i, pose in enumerate(poses):
                name = f"{folder}/{folder}_{i + 1:06d}.jpg"
                images.append({
                    "id": len(images), "file_name": name, "width": 1000, "height": 1002, "subject": subject,
                    "action_name": "Eating", "action_idx": action, "subaction_idx": part, "cam_idx": 1, "frame_idx": i,
                })  # fmt: skip
                labels.append({"image_id": len(labels), "bbox": [100, 200, 300, 400]})
                truth[f"images/{name}"] = (pose @ np.array(TURN).T + PLACE) / 1000
        camera = {"1": {"R": TURN, "t": PLACE, "f": [1145.0, 1143], "c": [512.0, 515]}}
        parts = {"data": {"images": images, "annotations": labels}, "camera": camera, "joint_3d": joints}
        for kind, content in parts.items():
            (root / "annotations" / f"Human36M_subject{subject}_{kind}.json").write_text(json.dumps(content))
    return truth


@pytest.mark.parametrize(("split", "frames", "sequences"), [("test", 3, 4), ("test50", 3, 4), ("test20", 7, 2)])
def test_each_test_keeps_its_frames_and_sequences(tmp_path, split, frames, sequences):
    truth = release(tmp_path)
    table = SampleTable(prepare_dataset("h36m-moon", tmp_path, tmp_path, split=split))
    assert table.source == "h36m" and len(table) == frames * sequences
    for row in table:
        np.testing.assert_allclose(row.joints17, truth[row.image], atol=1e-5)
        assert row.K[0, 0] == 1145 and row.K[1, 2] == 515 and row.size_hw == (1002, 1000)


def test_it_is_truth_that_the_evaluator_reads(tmp_path):
    release(tmp_path)
    truth = open_truth(prepare_dataset("h36m-moon", tmp_path, tmp_path), bodies=lambda gender: None)
    assert truth.dataset == "h36m" and set(truth.source.samples.subjects) == {"S9", "S11"}


def test_what_is_missing_is_named(tmp_path):
    release(tmp_path, subjects=(9,))
    with pytest.raises(ValueError, match="subject11_data.json"):
        prepare_dataset("h36m-moon", tmp_path, tmp_path)
    path = tmp_path / "annotations" / "Human36M_subject9_joint_3d.json"
    path.write_text("{}")
    with pytest.raises(ValueError, match="subject 9 .* lack '5'"):
        prepare_dataset("h36m-moon", tmp_path, tmp_path)
