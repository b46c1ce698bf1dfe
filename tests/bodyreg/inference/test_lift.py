"""Lifting files of key points: formats in and out, pictures, and input that is no use."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image

from bodyreg import skeletons
from bodyreg.inference import lift
from bodyreg.inference.skeleton_pictures import draw_frame
from bodyreg.lifter_weights import load_lifter, save_lifter
from bodyreg.models.lifters.registry import LifterSettings, build_lifter

SETTINGS = LifterSettings("videopose3d", "small", options={"channels": 8, "filter_widths": [3, 3]})


@pytest.fixture
def weights(tmp_path):
    torch.manual_seed(0)
    path = tmp_path / "weights.safetensors"
    save_lifter(path, build_lifter(SETTINGS), SETTINGS, half=True, fps=30.0)
    return path


def walk(frames: int, joint_set: str) -> np.ndarray:
    """A standing figure that sways, in pixels."""
    rng = np.random.default_rng(0)
    points = rng.uniform(200, 700, (1, len(skeletons.get(joint_set)), 3)) + np.zeros((frames, 1, 1))
    points[..., 0] += 20 * np.sin(np.arange(frames) / 4)[:, None]
    points[..., 2] = 0.8
    return points


def test_an_npz_becomes_npz_json_gif_and_sheet(tmp_path, weights):
    np.savez(tmp_path / "walk.npz", keypoints=walk(12, "coco-17"), joint_set=np.array("coco-17"))
    written = lift.lift_file(tmp_path / "walk.npz", tmp_path / "out", weights=weights, size_wh=(1000, 800),
                             formats=lift.FORMATS)  # fmt: skip
    assert [path.name for path in written] == [f"walk_lifted.{name}" for name in lift.FORMATS]
    with np.load(written[0], allow_pickle=False) as stored:
        assert stored["joints"].shape == (12, 17, 3) and str(stored["joint_set"]) == "h36m-17"
        assert (stored["joints"][:, 0] == 0).all() and np.isfinite(stored["joints"]).all()
    content = json.loads(written[1].read_text())
    np.testing.assert_allclose(content["joints"], np.load(written[0])["joints"], atol=1e-4)
    with Image.open(written[2]) as gif:
        assert gif.n_frames == 12
    with Image.open(written[3]) as sheet:
        assert np.asarray(sheet.convert("RGB")).std() > 5


def test_openpose_folders_and_coco_results_give_the_same_frames(tmp_path, weights):
    points = walk(11, "openpose-25")
    folder = tmp_path / "poses"
    folder.mkdir()
    for i, frame in enumerate(points):
        people = [{"pose_keypoints_2d": frame.ravel().tolist()}] if i != 5 else []
        (folder / f"frame{i}_keypoints.json").write_text(json.dumps({"people": people}))
    (track,) = lift.read_tracks(folder)
    assert track.frames == tuple(f"frame{i}" for i in range(11))  # frame10 comes last
    assert (track.points[5] == 0).all()
    coco = skeletons.convert(points, "openpose-25", "coco-17")
    entries = [{"image_id": i, "keypoints": f.ravel().tolist(), "score": 1.0} for i, f in enumerate(coco) if i != 5]
    (tmp_path / "coco.json").write_text(json.dumps(entries))
    (other,) = lift.read_tracks(tmp_path / "coco.json")
    assert other.frames == tuple(str(i) for i in range(11) if i != 5)
    loaded = load_lifter(weights)
    lifted = lift.lift_track(track, loaded, size_wh=(1000, 1000))
    assert lifted.joints.shape == (11, 17, 3) and lifted.filled == 17
    kept = lift.lift_track(other, loaded, size_wh=(1000, 1000))
    np.testing.assert_allclose(kept.keypoints[0], lifted.keypoints[0], atol=1e-6)


def test_the_most_visible_person_of_a_frame_is_followed(tmp_path):
    faint, clear = walk(1, "coco-17")[0], walk(1, "coco-17")[0] + [50, 0, 0.1]
    entries = [{"image_id": 7, "keypoints": p.ravel().tolist()} for p in (faint, clear)]
    (tmp_path / "coco.json").write_text(json.dumps(entries))
    (track,) = lift.read_tracks(tmp_path / "coco.json")
    np.testing.assert_allclose(track.points[0], clear)


def test_smoothing_takes_the_trembling_out(weights):
    points = walk(40, "h36m-17")
    points[..., :2] += np.random.default_rng(1).normal(0, 15, points[..., :2].shape)
    track = lift.Track(points, "h36m-17", tuple(map(str, range(40))), "walk")
    rough, smooth = (lift.lift_track(track, load_lifter(weights), smooth=sigma).joints for sigma in (0.0, 2.0))
    assert np.abs(np.diff(smooth, 2, axis=0)).mean() < 0.5 * np.abs(np.diff(rough, 2, axis=0)).mean()


def test_one_frame_is_enough(weights):
    track = lift.Track(walk(1, "coco-17"), "coco-17", ("a",), "one")
    assert lift.lift_track(track, load_lifter(weights)).joints.shape == (1, 17, 3)


def test_left_and_right_have_their_colours():
    joints = np.zeros((17, 3))
    names = skeletons.get("h36m-17").joints
    for i, name in enumerate(names):
        joints[i] = [-0.5 if "right" in name else 0.5 if "left" in name else 0, i / 20 - 0.4, 0]
    picture = draw_frame(joints, "h36m-17", 200, 1.0).astype(int)
    redder = picture[..., 0] - picture[..., 2]
    assert redder[:, :80].min() < -100 and redder[:, 120:].max() > 100
    turned = draw_frame(joints, "h36m-17", 200, 1.0, np.pi).astype(int)
    assert (turned[..., 0] - turned[..., 2])[:, :80].max() > 100


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"keypoints": np.zeros((3, 17, 2))}, "Give `keypoints`"),
        ({"keypoints": np.zeros((3, 16, 2)), "joint_set": np.array("coco-17")}, r"\(frames, 17, 2 or 3\)"),
        ({"keypoints": np.zeros((0, 17, 2)), "joint_set": np.array("coco-17")}, r"\(frames, 17, 2 or 3\)"),
        ({"keypoints": np.zeros((3, 17, 3)), "joint_set": np.array("coco-17")}, "confidence above 0"),
        ({"keypoints": np.ones((3, 14, 3)), "joint_set": np.array("lsp-14")}, "has no pelvis"),
        ({"keypoints": np.ones((3, 17, 3)), "joint_set": np.array("coco17")}, "Did you mean 'coco-17'"),
    ],
)
def test_files_that_cannot_be_lifted(tmp_path, weights, arrays, message):
    np.savez(tmp_path / "bad.npz", **arrays)
    with pytest.raises(ValueError, match=message):
        lift.lift_file(tmp_path / "bad.npz", tmp_path / "out", weights=weights)


def test_wrong_options(tmp_path, weights):
    np.savez(tmp_path / "walk.npz", keypoints=walk(3, "coco-17"), joint_set=np.array("coco-17"))
    for options, message in (
        ({"formats": ("obj",)}, "Unknown formats obj"), ({"model": "mixste"}, "holds the lifter 'videopose3d'"),
        ({"fps": 0.0}, "above 0"), ({"model": "mixte"}, "Did you mean"), ({"size_wh": (0, 5)}, "pictures' size"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=message):
            lift.lift_file(tmp_path / "walk.npz", tmp_path / "out", **{"weights": weights, **options})


def test_a_result_folder_is_a_sequence_of_its_largest_person(tmp_path, weights, tiny_weights, save_photo):
    from bodyreg.inference.folder import infer_folder

    photos = tmp_path / "photos"
    photos.mkdir()
    for i in (10, 2, 1):
        save_photo(photos / f"frame{i}.png", (120, 90), seed=i)
    infer_folder(photos, tmp_path / "out", weights=tiny_weights, people="whole", formats=("npz",), overlay=False)
    (track,) = lift.read_tracks(tmp_path / "out")
    assert track.frames == ("frame1.png", "frame2.png", "frame10.png") and track.size_wh == (120, 90)
    assert track.points.shape == (3, 17, 3) and (track.points[..., 2] == 1).all() and track.joint_set == "h36m-17"
    written = lift.lift_file(tmp_path / "out", tmp_path / "out", weights=weights, formats=("npz",), smooth=1.0)
    assert written == [tmp_path / "out" / "out_lifted.npz"]
    with np.load(written[0], allow_pickle=False) as stored:
        assert stored["joints"].shape == (3, 17, 3)
