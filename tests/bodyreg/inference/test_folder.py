"""The folder job from files to files, with a tiny untrained network or one that knows the truth."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest
import torch
import trimesh

from bodyreg.cameras import Camera
from bodyreg.data.folder import read_image
from bodyreg.inference.export import export_results
from bodyreg.inference.folder import infer_folder
from bodyreg.inference.results import read_person, read_results
from renderers.shading import silhouette


def place(body, parameters, camera: Camera, ray_px, distance: float):
    """Parameters with the translation that puts the person's middle `distance` metres along the ray through a pixel,
    the vertices there, and their box."""
    with torch.no_grad():
        vertices = body(**parameters).vertices[0].double().numpy()
    ray = camera.unproject(np.asarray(ray_px, float))
    transl = ray / np.linalg.norm(ray) * distance - (vertices.min(0) + vertices.max(0)) / 2
    vertices = vertices + transl
    pixels = camera.project(vertices)
    box = np.concatenate([pixels.min(0), pixels.max(0) - pixels.min(0)])
    return {**parameters, "transl": transl[None]}, vertices, box


def boundary_error(overlay: np.ndarray, photo: np.ndarray, vertices, faces, K, fine: int = 8) -> float:
    """How far, in pixels, any pixel that the overlay changed lies outside the mesh's projection, or any that it left
    lies inside; the projection is filled triangle by triangle on a grid `fine` times finer, without our rasteriser."""
    h, w = photo.shape[:2]
    homogeneous = vertices @ K.T
    px = homogeneous[:, :2] / homogeneous[:, 2:]
    mask = np.zeros((h * fine, w * fine), np.uint8)
    for triangle in np.round((px[faces] * fine - 0.5) * 16).astype(np.int32):
        cv2.fillConvexPoly(mask, triangle, 255, shift=4)
    at = np.ix_(np.arange(h) * fine + fine // 2, np.arange(w) * fine + fine // 2)
    outside = cv2.distanceTransform(255 - mask, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)[at] / fine
    inside = cv2.distanceTransform(mask, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)[at] / fine
    changed = (overlay != photo).any(-1)
    assert changed.sum() > 100
    return float(max(outside[changed].max(initial=0), inside[~changed].max(initial=0)))


def read_png(path) -> np.ndarray:
    return cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB)


# focal length in 35 mm terms, picture width and height as stored, EXIF orientation, pixel of the upright picture
SCENES = {
    "left edge of a wide lens": (14, (300, 200), 1, (25, 110)),
    "upper right corner of a wide lens": (16, (280, 240), 1, (250, 40)),
    "turned by a quarter": (24, (260, 200), 6, (60, 190)),
    "turned the other way, mirrored": (20, (260, 200), 7, (160, 70)),
    "upside down": (28, (260, 200), 3, (200, 60)),
}


@pytest.mark.parametrize("scene", SCENES)
def test_the_true_body_comes_back_and_lies_on_its_silhouette(tmp_path, scene, knowing, save_photo, person_parameters):
    focal_mm, size_wh, orientation, ray_px = SCENES[scene]
    from PIL import Image

    exif = Image.Exif()
    exif[274] = orientation
    path = save_photo(tmp_path / "in" / "scene.jpg", size_wh, exif=exif, quality=95)
    photo = read_image(path)
    upright_hw = size_wh if orientation in (5, 6, 7, 8) else size_wh[::-1]
    assert photo.size_hw == upright_hw
    camera = Camera.from_f35(focal_mm, upright_hw)
    true, vertices, box = place(knowing.body, person_parameters(len(scene)), camera, ray_px, 4.0)
    knowing.people = [(box, true)]
    summary = infer_folder(
        tmp_path / "in", tmp_path / "out", regressor=knowing, boxes={"scene.jpg": [box]}, focal_mm=focal_mm, threads=2
    )
    assert summary.count("done") == 1 and summary.records[0].orientation == orientation

    saved = read_person(tmp_path / "out" / "scene_0.npz")
    mesh = trimesh.load(tmp_path / "out" / "scene_0.obj", process=False)
    assert np.abs(mesh.vertices - vertices).max() < 1e-4
    assert mesh.is_watertight and np.isfinite(mesh.vertices).all()
    np.testing.assert_allclose(saved.K, camera.K)
    np.testing.assert_allclose(saved.transl, true["transl"][0], atol=1e-4)
    joints = knowing.body(**true).joints[0].double().numpy()
    np.testing.assert_allclose(saved.joints["smpl-24"], joints, atol=1e-4)
    np.testing.assert_allclose(saved.keypoints["smpl-24"], camera.project(joints), atol=0.05)
    turned = saved.R_crop_from_cam @ camera.unproject(box[:2] + box[2:] / 2)
    assert np.hypot(*turned[:2]) / turned[2] < 1e-3  # the box's middle is on the turned camera's axis

    overlay = read_png(tmp_path / "out" / "scene_overlay.png")
    assert overlay.shape == photo.rgb.shape
    error = boundary_error(overlay, photo.rgb, np.asarray(mesh.vertices), np.asarray(mesh.faces), saved.K)
    assert error <= 0.5, f"{error} px"
    changed = (overlay != photo.rgb).any(-1)
    assert not (silhouette(vertices, mesh.faces, camera.K, upright_hw) & ~changed).any()


def test_boundary_error_notices_half_a_pixel(tmp_path, knowing, person_parameters):
    camera = Camera.from_f35(20, (160, 160))
    _, vertices, _ = place(knowing.body, person_parameters(), camera, (70, 80), 4.0)
    faces = knowing.body.faces.numpy()
    black = np.zeros((160, 160, 3), np.uint8)
    drawn = black.copy()
    drawn[silhouette(vertices, faces, camera.K, (160, 160))] = 255
    assert boundary_error(drawn, black, vertices, faces, camera.K) < 0.2
    moved = camera.K.copy()
    moved[0, 2] += 0.75  # a sub-pixel slip, or a forgotten half pixel
    assert boundary_error(drawn, black, vertices, faces, moved) > 0.5


def test_people_are_numbered_by_size_and_all_are_drawn(tmp_path, knowing, save_photo, person_parameters):
    save_photo(tmp_path / "in" / "two.png", (240, 160))
    camera = Camera.from_focal(150, (160, 240))
    far = place(knowing.body, person_parameters(1), camera, (60, 80), 6.0)
    near = place(knowing.body, person_parameters(2), camera, (170, 80), 3.0)
    knowing.people = [(far[2], far[0]), (near[2], near[0])]
    infer_folder(
        tmp_path / "in", tmp_path / "out", regressor=knowing, boxes={"two": [far[2], near[2]]}, focal_px=150,
        formats=("npz", "ply", "glb"),
    )  # fmt: skip
    first, second = (read_person(tmp_path / "out" / f"two_{k}.npz") for k in (0, 1))
    np.testing.assert_allclose(first.box_xywh, near[2])
    np.testing.assert_allclose(second.box_xywh, far[2])
    np.testing.assert_allclose(second.transl, far[0]["transl"][0], atol=1e-4)
    records, _ = read_results(tmp_path / "out")
    assert records[0].people[0]["box_xywh"] == first.box_xywh.tolist()
    assert sorted(records[0].files) == sorted(
        [f"two_{k}.{kind}" for k in (0, 1) for kind in ("npz", "ply", "glb")] + ["two_overlay.png", "two_views.png"]
        + [f"index_files/two_{name}" for name in ("photo.jpg", "mesh.jpg", "thumb.jpg", "data.js")]
    )
    assert all((tmp_path / "out" / name).is_file() for name in records[0].files)
    assert (tmp_path / "out" / "contact_sheet.png").is_file()


def test_saved_parameters_give_the_exported_mesh_again(tmp_path, regressor, save_photo):
    save_photo(tmp_path / "in" / "a.png")
    infer_folder(tmp_path / "in", tmp_path / "out", regressor=regressor)
    export_results([tmp_path / "out"], tmp_path / "again", ["obj"])
    assert (tmp_path / "again" / "a_0.obj").read_bytes() == (tmp_path / "out" / "a_0.obj").read_bytes()


def test_records_say_what_the_contract_says(tmp_path, regressor, save_photo):
    save_photo(tmp_path / "in" / "deep" / "er" / "IMG_26_f35.png")
    summary = infer_folder(tmp_path / "in", tmp_path / "out", regressor=regressor)
    data = json.loads((tmp_path / "out" / "deep" / "er" / "IMG_26_f35_0.json").read_text())
    for name, shape in {"global_orient": (3,), "body_pose": (69,), "transl": (3,), "K": (3, 3), "image_hw": (2,),
                        "box_xywh": (4,), "R_crop_from_cam": (3, 3), "joints_smpl-24": (24, 3),
                        "joints_h36m-17": (17, 3), "keypoints_coco-17": (17, 2)}.items():  # fmt: skip
        assert np.shape(data[name]) == shape, name
    assert data["focal_source"] == "file_name" and data["K"][0][0] == pytest.approx(26 / 36 * 120)
    assert data["body_name"] == "free" and data["body_hash"] == regressor.body.hash
    assert data["model_name"] == "perspose_small" and data["weights_hash"] == regressor.weights_hash
    assert data["found_by"].startswith("whole") and "OpenCV" in data["frame"] and "metres" in data["units"]
    assert summary.records[0].file == "deep/er/IMG_26_f35.png" and summary.people == 1
    assert "1 people" in str(summary)


def test_found_boxes_are_drawn_anew_once_and_given_ones_are_kept(tmp_path, regressor, save_photo, monkeypatch):
    save_photo(tmp_path / "in" / "a.png", (200, 160))
    save_photo(tmp_path / "in" / "b.png", (200, 160))
    passes = []

    def locate(crops, K_crop):
        passes.append(len(crops))
        # joints in the middle of the crop: 16 x 32 of its 64 x 64 pixels
        return np.tile(np.array([[24.0, 16.0], [40.0, 48.0]]), (len(crops), 12, 1))

    monkeypatch.setattr(regressor, "locate", locate)
    summary = infer_folder(
        tmp_path / "in", tmp_path / "out", regressor=regressor, boxes={"b.png": [[20, 30, 50, 60]]}, focal_px=5000
    )
    a, b = (record.people[0] for record in summary.records)
    assert passes == [1]
    assert b["found_by"] == "box" and b["box_xywh"] == [20, 30, 50, 60]
    # a crop pixel is 200 / 64 pixels of the whole picture; the new box is 1.2 times the joints
    scale = 200 / 64
    expected = [100 - 9.6 * scale, 80 - 19.2 * scale, 19.2 * scale, 38.4 * scale]
    assert a["found_by"] == "whole+refined"
    np.testing.assert_allclose(a["box_xywh"], expected, atol=0.2)


@pytest.mark.parametrize("joint", [[32.0, 32.0], [np.nan, 1.0], [1e9, 1e9]])
def test_joints_that_make_no_box_leave_the_first_one(tmp_path, regressor, save_photo, monkeypatch, joint):
    save_photo(tmp_path / "in" / "a.png")
    monkeypatch.setattr(regressor, "locate", lambda crops, K_crop: np.tile(np.array(joint), (len(crops), 24, 1)))
    person = infer_folder(tmp_path / "in", tmp_path / "out", regressor=regressor).records[0].people[0]
    assert person["found_by"] == "whole" and person["box_xywh"] == [0, 0, 120, 90]


def test_key_points_say_where_people_are(tmp_path, regressor, save_photo):
    save_photo(tmp_path / "in" / "a.png", (200, 160))
    points = np.zeros((1, 17, 3))
    points[0, :4] = [[50, 40, 1], [90, 40, 1], [50, 120, 1], [90, 120, 0.6]]
    np.savez(tmp_path / "points.npz", keypoints=points, joint_set="coco-17", files=["a.png"])
    summary = infer_folder(tmp_path / "in", tmp_path / "out", regressor=regressor, keypoints=tmp_path / "points.npz")
    person = summary.records[0].people[0]
    assert person["found_by"] == "keypoints" and person["score"] == pytest.approx(0.9)
    np.testing.assert_allclose(person["box_xywh"], [46, 32, 48, 96])


def test_batches_span_photographs_and_never_exceed_their_size(tmp_path, regressor, save_photo, monkeypatch):
    for k in range(5):
        save_photo(tmp_path / "in" / f"{k}.png", seed=k)
    sizes = []
    predict = regressor.predict
    monkeypatch.setattr(regressor, "predict", lambda c, K: sizes.append(len(c)) or predict(c, K))
    boxes = {"0.png": [[10, 10, 40, 60], [50, 10, 40, 60]], "*": [[20, 10, 50, 70]]}
    summary = infer_folder(tmp_path / "in", tmp_path / "out", regressor=regressor, boxes=boxes, batch_size=3)
    assert summary.people == 6 and sorted(sizes) == [1, 2, 3]


def test_a_small_memory_holds_up_the_reading_but_not_the_job(tmp_path, regressor, save_photo, monkeypatch):
    monkeypatch.setattr("bodyreg.inference.pipeline.LIVE_PIXELS", 20_000)
    monkeypatch.setattr("bodyreg.inference.pipeline.GROUP_PIXELS", 15_000)
    for k in range(6):
        save_photo(tmp_path / "in" / f"{k}.png", seed=k)
    summary = infer_folder(tmp_path / "in", tmp_path / "out", regressor=regressor, overlay=False)
    assert summary.count("done") == 6


def test_without_overlay_and_page_there_are_only_the_files_asked_for(tmp_path, regressor, save_photo, tree_of):
    save_photo(tmp_path / "in" / "a.png")
    infer_folder(tmp_path / "in", tmp_path / "out", regressor=regressor, overlay=False, page=False, formats=["json"])
    assert set(tree_of(tmp_path / "out")) == {"a_0.json", "results.json"}


def test_nobody_in_the_picture_is_a_record_too(tmp_path, regressor):
    (tmp_path / "in").mkdir()
    cv2.imwrite(str(tmp_path / "in" / "grey.png"), np.full((90, 120, 3), 127, np.uint8))
    seen = []
    summary = infer_folder(
        tmp_path / "in", tmp_path / "out", regressor=regressor, people="hog",
        progress=lambda done, total, label: seen.append((done, total, label)),
    )  # fmt: skip
    assert summary.records[0].status == "nobody"
    assert summary.records[0].files == [f"index_files/grey_{name}" for name in ("photo.jpg", "thumb.jpg", "data.js")]
    assert seen == [(1, 1, "grey.png")] and not (tmp_path / "out" / "contact_sheet.png").exists()


def test_results_inside_the_photographs_folder_are_not_taken_for_photographs(tmp_path, regressor, save_photo):
    save_photo(tmp_path / "a.png")
    for _ in range(2):
        assert len(infer_folder(tmp_path, tmp_path / "out", regressor=regressor).records) == 1


def test_a_list_and_a_single_photograph(tmp_path, regressor, save_photo):
    one = save_photo(tmp_path / "x" / "a.png")
    two = save_photo(tmp_path / "y" / "a.png")
    listed = infer_folder([two, one, one], tmp_path / "out", regressor=regressor, overlay=False)
    assert [record.file for record in listed.records] == ["x/a.png", "y/a.png"]
    single = infer_folder(str(one), tmp_path / "single", regressor=regressor, overlay=False)
    assert [record.file for record in single.records] == ["a.png"]
    with pytest.raises(ValueError, match="empty"):
        infer_folder([], tmp_path / "none", regressor=regressor)


def test_the_stages_are_timed(tmp_path, regressor, save_photo):
    save_photo(tmp_path / "in" / "a.png")
    stages = infer_folder(tmp_path / "in", tmp_path / "out", regressor=regressor).stages
    assert all(seconds > 0 for seconds in stages.values()) and "network" in stages


def test_a_person_the_network_loses_is_noted(tmp_path, regressor, save_photo, monkeypatch):
    save_photo(tmp_path / "in" / "a.png")
    save_photo(tmp_path / "in" / "b.png")
    predict = regressor.predict

    def broken(crops, K_crop):
        estimate = predict(crops, K_crop)
        estimate.transl[:2] = torch.nan  # the one person of a, and the larger of b
        return estimate

    monkeypatch.setattr(regressor, "predict", broken)
    boxes = {"a.png": [[10, 10, 50, 70]], "b.png": [[10, 10, 50, 70], [60, 10, 40, 60]]}
    summary = infer_folder(tmp_path / "in", tmp_path / "out", regressor=regressor, boxes=boxes)
    a, b = summary.records
    assert a.status == "refused" and "not finite" in a.reason
    assert b.status == "done" and len(b.people) == 1 and "not finite" in b.notes[0]
    assert read_person(tmp_path / "out" / "b_0.npz").box_xywh[2] == 40


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"formats": ("stl",)}, "stl"),
        ({"up": "z"}, "up direction"),
        ({"people": "yolo"}, "yolo"),
        ({"batch_size": 0}, "batch size"),
        ({"focal_mm": float("nan")}, "focal length"),
        ({"fov": 4.0}, "field of view"),
        ({"fov": -1.0, "focal_mm": 30.0}, "field of view"),
    ],
)
def test_wrong_options_are_one_error_and_leave_nothing(tmp_path, regressor, save_photo, options, match):
    save_photo(tmp_path / "in" / "a.png")
    with pytest.raises(ValueError, match=match):
        infer_folder(tmp_path / "in", tmp_path / "out", regressor=regressor, **options)
    assert not (tmp_path / "out").exists()


def test_large_pictures_are_shrunk_before_they_are_warped(knowing):
    from bodyreg.crops import crop_image, make_crop
    from bodyreg.inference.pictures import sharp_crop

    # A fine checkerboard of black and white: sampled it is noise, averaged it is grey.
    board = (np.indices((1200, 1600)).sum(0) % 2 * 255).astype(np.uint8)
    board = np.repeat(board[..., None], 3, 2)
    board[:, :800] //= 2
    camera = Camera.from_focal(1500, (1200, 1600))
    crop = make_crop(camera, np.array([500.0, 200, 700, 800]), (64, 64))
    sharp = sharp_crop(board, crop).astype(float)
    split = crop.crop_px_from_full_px(np.array([800.0, 600.0]))[0]
    columns = np.arange(64) + 0.5
    assert abs(sharp[:, columns < split - 1.5].mean() - 63) < 1.5 and sharp[:, columns < split - 1.5].std() < 2
    assert abs(sharp[:, columns > split + 1.5].mean() - 127) < 1.5 and sharp[:, columns > split + 1.5].std() < 2
    assert crop_image(board, crop).astype(float).std() > 20
    # the edge lies where the homography says, to a tenth of a crop pixel
    dark, light = sharp[32, 5, 0], sharp[32, -5, 0]
    edge = ((light - sharp[32, :, 0]) / (light - dark)).sum()
    assert edge == pytest.approx(split, abs=0.15)


def test_smooth_pictures_look_the_same_shrunk_first():
    from bodyreg.crops import crop_image, make_crop
    from bodyreg.inference.pictures import sharp_crop

    y, x = np.indices((900, 1200)) + 0.5
    picture = np.stack([x / 5, y / 4, 128 + 100 * np.sin(x / 150) * np.cos(y / 130)], -1).round().astype(np.uint8)
    camera = Camera.from_focal(700, (900, 1200))
    for box in ([30.0, 100, 400, 700], [-100.0, -50, 500, 600], [700.0, 300, 500, 600]):
        crop = make_crop(camera, np.array(box), (48, 48))
        difference = np.abs(sharp_crop(picture, crop).astype(int) - crop_image(picture, crop).astype(int))
        assert np.quantile(difference, 0.97) <= 2
