"""Cameras: records, the focal rule, projections, weak perspective and distortion."""

from __future__ import annotations

import math

import cv2
import numpy as np
import pytest
import torch

from bodyreg import cameras
from bodyreg.cameras import Camera, resolve_camera

SIZE = (600, 800)


@pytest.mark.parametrize("bad", [float("nan"), 0.0, -5.0, float("inf"), "abc", None])
def test_bad_focal_lengths_are_refused_with_two_sentences(bad):
    for make in (Camera.from_focal, Camera.from_fov, Camera.from_f35):
        with pytest.raises(ValueError, match=r"^The .*\. Give .*\.$"):
            make(bad, SIZE)


@pytest.mark.parametrize(
    "entry", [(0, 0, math.nan), (0, 0, 0.0), (1, 1, -3.0), (0, 2, math.inf), (2, 2, 2.0), (2, 0, 9.0)]
)
def test_bad_intrinsics_are_refused(entry):
    K = np.array([[500.0, 0, 400], [0, 500, 300], [0, 0, 1]])
    K[entry[0], entry[1]] = entry[2]
    with pytest.raises(ValueError, match="The .*intrinsics|The focal lengths"):
        Camera(K, SIZE)


def test_bad_shapes_are_refused():
    with pytest.raises(ValueError, match="shape"):
        Camera(np.eye(4), SIZE)
    with pytest.raises(ValueError, match="size"):
        Camera(np.eye(3), (0, 5))
    with pytest.raises(ValueError, match="180 degrees"):
        Camera.from_fov(math.pi, SIZE)


def test_camera_keeps_its_own_read_only_matrix():
    K = np.array([[500.0, 0, 400], [0, 510, 300], [0, 0, 1]])
    camera = Camera(K, SIZE)
    K[0, 0] = 1
    assert (camera.fx, camera.fy, camera.cx, camera.cy, camera.h, camera.w) == (500, 510, 400, 300, 600, 800)
    with pytest.raises(ValueError):
        camera.K[0, 0] = 2


def test_factories_agree():
    assert Camera.from_fov(math.radians(90), SIZE).fx == pytest.approx(400)
    assert Camera.from_f35(36, SIZE).fx == pytest.approx(800)
    assert Camera.from_f35(36, (800, 600)).fx == pytest.approx(800)
    assert Camera.from_f35(36, (800, 600), reference_rule=True).fx == pytest.approx(600)
    # 35 mm equivalent and field of view: mm = 18 / tan(fov / 2)
    assert Camera.from_f35(18 / math.tan(math.radians(30)), SIZE).fov_x == pytest.approx(math.radians(60))


def test_focal_precedence_and_its_record():
    given = {
        "K": np.array([[1.0, 0, 2], [0, 3, 4], [0, 0, 1]]),
        "focal_px": 700.0,
        "focal_mm": 40.0,
        "exif_f35": 30.0,
        "fov": 1.0,
        "name": "a/IMG_26_f35.JPG",
    }
    want = [
        ("intrinsics", 1.0),
        ("focal_px", 700.0),
        ("focal_mm", 40 / 36 * 800),
        ("exif", 30 / 36 * 800),
        ("fov", 400 / math.tan(0.5)),
        ("file_name", 26 / 36 * 800),
        ("heuristic", 1000.0),
    ]
    for (source, focal), key in zip(want, [*given, "end"], strict=True):
        camera = resolve_camera(SIZE, **given)
        assert camera.focal_source == source
        assert camera.fx == pytest.approx(focal)
        given.pop(key, None)


@pytest.mark.parametrize("unknown", [0, -1, math.nan, None])
def test_unknown_exif_focal_length_is_passed_over(unknown):
    assert resolve_camera(SIZE, exif_f35=unknown).focal_source == "heuristic"


def test_a_bad_given_value_is_not_passed_over():
    with pytest.raises(ValueError, match="nan"):
        resolve_camera(SIZE, focal_mm=math.nan, exif_f35=28)
    with pytest.raises(ValueError, match="NaN"):
        resolve_camera(SIZE, K=np.full((3, 3), np.nan), exif_f35=28)


@pytest.mark.parametrize(
    ("name", "mm"),
    [("x_26_f35.jpg", 26), ("x_26.5_F35.png", 26.5), ("x_f35.jpg", None), ("x_0_f35.jpg", None), ("26_f35x.jpg", None)],
)
def test_focal_length_from_the_file_name(name, mm):
    assert cameras.f35_from_name(name) == mm


def test_project_and_unproject_are_inverse_and_match_the_tensor_functions():
    rng = np.random.default_rng(0)
    camera = Camera(np.array([[500.0, 2, 410], [0, 520, 290], [0, 0, 1]]), SIZE)
    points = rng.normal(size=(2, 7, 3)) + [0, 0, 5]
    px = camera.project(points)
    np.testing.assert_allclose(camera.unproject(px, points[..., 2]), points, atol=1e-12)
    K = torch.from_numpy(camera.K.copy()).expand(2, 3, 3)
    px_torch = cameras.project(torch.from_numpy(points), K)
    np.testing.assert_allclose(px_torch, px, atol=1e-9)
    np.testing.assert_allclose(cameras.unproject(px_torch, torch.from_numpy(points[..., 2]), K), points, atol=1e-12)
    # the optical axis meets the principal point
    np.testing.assert_allclose(camera.project([0, 0, 3.0]), [410, 290])


def test_points_behind_the_camera():
    camera = Camera.from_focal(500, SIZE)
    assert np.isnan(camera.project([[0.1, 0, -1], [0.1, 0, 0]])).all()
    behind = torch.tensor([[[0.1, 0.0, -1.0]]], requires_grad=True)
    px = cameras.project(behind, torch.from_numpy(camera.K.copy()).float()[None])
    px.sum().backward()
    assert torch.isfinite(px).all() and torch.isfinite(behind.grad).all()


@pytest.mark.parametrize("kind", [np.asarray, torch.as_tensor])
def test_weak_perspective_round_trip_and_meaning(kind):
    weak = kind(np.array([[0.9, 0.1, -0.2], [0.5, -0.3, 0.4]]))
    transl = cameras.full_from_weak(weak, 1000.0, 300.0, (120.0, -40.0))
    np.testing.assert_allclose(cameras.weak_from_full(transl, 1000.0, 300.0, (120.0, -40.0)), weak, atol=1e-12)
    # a point in the body's root plane projects to the place in the crop that the weak camera says
    point = np.array([0.25, -0.15, 0.0])
    px = 1000.0 * (point + np.asarray(transl))[:, :2] / np.asarray(transl)[:, 2:]
    crop = (px - [120.0, -40.0]) / 150.0
    np.testing.assert_allclose(crop, np.asarray(weak)[:, :1] * (point[:2] + np.asarray(weak)[:, 1:]), atol=1e-12)


def test_distortion_matches_opencv_and_inverts():
    rng = np.random.default_rng(1)
    k = np.array([-0.21, 0.24, 0.0009, -0.0016, -0.003])
    K = np.array([[1145.0, 0, 512], [0, 1143, 515], [0, 0, 1]])
    rays = rng.uniform(-0.5, 0.5, (50, 2))
    ideal = rays * [1145, 1143] + [512, 515]
    want, _ = cv2.projectPoints(np.c_[rays, np.ones(50)], np.zeros(3), np.zeros(3), K, k)
    seen = cameras.distort_pixels(ideal, K, k)
    np.testing.assert_allclose(seen, want[:, 0], atol=1e-9)
    np.testing.assert_allclose(cameras.undistort_pixels(seen, K, k), ideal, atol=1e-6)
    np.testing.assert_allclose(cameras.undistort(cameras.distort(rays, k[:4]), k[:4]), rays, atol=1e-10)


def test_distortion_beyond_the_fold_is_nan_and_bad_coefficients_are_refused():
    k = np.array([-0.3, 0.0, 0.0, 0.0])
    assert np.isnan(cameras.undistort(np.array([5.0, 0.0]), k)).all()
    with pytest.raises(ValueError, match="coefficients"):
        cameras.distort(np.zeros(2), np.zeros(3))
