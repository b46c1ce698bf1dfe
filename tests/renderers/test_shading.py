"""Pictures: what they show where, order of depth, smooth edges, sheets."""

from __future__ import annotations

import subprocess
import sys

import cv2
import numpy as np
import pytest
import torch
import trimesh

import renderers
from renderers.shading import contact_sheet, overlay, render_mesh, side_view, silhouette, top_view

SIZE = (60, 80)
K = np.array([[70.0, 0, 40], [0, 70.0, 30], [0, 0, 1]])
RED, BLUE = (0.9, 0.2, 0.1), (0.1, 0.2, 0.9)


def ball(x: float = 0, y: float = 0, z: float = 3, radius: float = 0.5) -> tuple[np.ndarray, np.ndarray]:
    mesh = trimesh.creation.icosphere(subdivisions=3, radius=radius)
    return mesh.vertices + [x, y, z], np.asarray(mesh.faces)


def test_silhouette_is_the_hull_of_a_convex_body() -> None:
    vertices, faces = ball(0.3, -0.1)
    mask = silhouette(vertices, faces, K, (240, 320))
    px = (vertices @ K.T)[:, :2] / vertices[:, 2:]
    hull = cv2.convexHull(px.astype(np.float32))
    drawn = np.zeros((240, 320), np.uint8)
    cv2.fillConvexPoly(drawn, np.round((hull - 0.5) * 256).astype(np.int32), 1, cv2.LINE_AA, shift=8)
    around = cv2.dilate(drawn, np.ones((3, 3), np.uint8)).astype(bool)
    core = cv2.erode(drawn, np.ones((3, 3), np.uint8)).astype(bool)
    assert mask.dtype == bool and mask.any() and not (mask & ~around).any() and not (core & ~mask).any()
    inside = [cv2.pointPolygonTest(hull, (c + 0.5, r + 0.5), True) for r, c in np.argwhere(mask)]
    assert min(inside) > -0.02


def test_supersampled_alpha_is_the_mean_of_the_samples() -> None:
    vertices, faces = ball(0.2)
    for n in (1, 2, 3):
        _, alpha = render_mesh(vertices, faces, K, SIZE, supersample=n)
        fine = silhouette(vertices, faces, K * [[n], [n], [1]], (SIZE[0] * n, SIZE[1] * n))
        means = fine.reshape(SIZE[0], n, SIZE[1], n).mean((1, 3))
        np.testing.assert_allclose(alpha, means, atol=1e-6)
    assert len(np.unique(alpha.round(3))) > 4


def test_light_comes_from_the_upper_left_and_colour_is_kept() -> None:
    vertices, faces = ball()
    rgb, alpha = render_mesh(vertices, faces, K, SIZE, colour=RED)
    assert rgb.dtype == np.uint8 and rgb.shape == (*SIZE, 3) and alpha.shape == SIZE
    assert rgb[25, 35].astype(int).sum() > rgb[36, 45].astype(int).sum() + 30
    body = rgb[alpha == 1].astype(int)
    assert (body[:, 0] > body[:, 1]).all() and (body[:, 0] > body[:, 2]).all() and (rgb[alpha == 0] == 0).all()
    # Faces turned inside out are lit the same: both sides are drawn, lit on the side that is seen.
    turned, _ = render_mesh(vertices, faces[:, ::-1], K, SIZE, colour=RED)
    assert np.abs(turned.astype(int) - rgb).max() <= 2
    on_white, _ = render_mesh(vertices, faces, K, SIZE, colour=RED, background=(1, 1, 1))
    assert (on_white[alpha == 0] == 255).all() and (on_white[alpha == 1] == rgb[alpha == 1]).all()


def test_shading_is_smooth_across_faces() -> None:
    vertices, faces = ball(radius=0.6)
    rgb, alpha = render_mesh(vertices, faces, K * [[4], [4], [1]], (240, 320), supersample=1)
    core = cv2.erode((alpha == 1).astype(np.uint8), np.ones((9, 9))).astype(bool)
    step = np.abs(np.diff(rgb.astype(int), axis=1)).max(-1)
    assert step[core[:, 1:]].max() <= 8


def test_vertex_colours_are_interpolated() -> None:
    vertices, faces = ball()
    colours = np.where(vertices[:, :1] < 0, RED, BLUE)
    rgb, _ = render_mesh(vertices, faces, K, SIZE, colour=colours)
    assert rgb[30, 34, 0] > rgb[30, 34, 2] and rgb[30, 46, 0] < rgb[30, 46, 2]


def test_nearer_people_hide_farther_ones_in_any_order() -> None:
    photo = np.full((*SIZE, 3), 90, np.uint8)
    (near, faces), (far, _) = ball(z=2.5, radius=0.3), ball(z=4, radius=0.9)
    first = overlay(photo, [near, far], faces, K, colours=[RED, BLUE], opacity=1)
    second = overlay(photo, [far, near], [faces, faces], K, colours=[BLUE, RED], opacity=1)
    np.testing.assert_array_equal(first, second)
    assert first[30, 40, 0] > first[30, 40, 2] and first[30, 27, 2] > first[30, 27, 0]
    assert (first[0, 0] == 90).all() and (photo == 90).all()
    half = overlay(photo, [near, far], faces, K, colours=[RED, BLUE], opacity=0.5)
    assert np.abs(half[30, 40].astype(int) - (first[30, 40].astype(int) + 90) / 2).max() <= 1
    np.testing.assert_array_equal(overlay(photo, [], faces, K), photo)
    np.testing.assert_array_equal(overlay(photo, near, faces, K), overlay(photo, [near], faces, K))


def test_any_number_of_threads_gives_the_same_picture() -> None:
    rng = np.random.default_rng(0)
    photo = rng.integers(0, 255, (300, 200, 3), dtype=np.uint8)
    meshes = [ball(*rng.uniform([-1, -1, 2], [1, 1, 4]))[0] for _ in range(5)]
    pictures = [overlay(photo, meshes, ball()[1], K * [[3], [3], [1]], threads=t) for t in (1, 2, 5)]
    assert all((p == pictures[0]).all() for p in pictures[1:])


def test_a_body_around_the_camera_is_cut_not_garbled() -> None:
    # The eye is inside a large ball whose back half lies behind it: its inner wall fills the picture.
    vertices, faces = ball(z=0.3, radius=2)
    rgb, alpha = render_mesh(vertices, faces, K, SIZE, colour=RED)
    assert (alpha == 1).all() and (rgb[..., 0] > rgb[..., 2]).all()
    assert silhouette(vertices, faces, K, SIZE).all()
    _, behind = render_mesh(ball(z=-3)[0], faces, K, SIZE)
    assert (behind == 0).all()
    # A long rod that runs past the eye, to its right, leaves the left of the picture free.
    rod = trimesh.creation.box(extents=(0.2, 0.2, 10))
    mask = silhouette(rod.vertices + [0.4, 0, 1], rod.faces, K, SIZE)
    assert mask[30, 79] and not mask[:, :40].any()


@pytest.mark.parametrize("view", [side_view, top_view])
@pytest.mark.parametrize("size_hw", [(120, 200), (200, 90)])
def test_views_frame_everybody(view, size_hw) -> None:
    meshes = [ball(-2, 0.4, 5)[0], ball(1, 0, 9)[0], ball(0, 0, 3, 0.2)[0]]
    for group in (meshes, meshes[:1]):
        picture = view(group, ball()[1], size_hw, colours=[RED] * len(group), ground=False)
        body = picture[..., 0].astype(int) > picture[..., 2].astype(int) + 40
        rows, columns = np.flatnonzero(body.any(1)), np.flatnonzero(body.any(0))
        assert picture.shape == (*size_hw, 3) and rows[0] > 0 and rows[-1] < size_hw[0] - 1
        assert columns[0] > 0 and columns[-1] < size_hw[1] - 1
        filled = max(np.ptp(rows) / size_hw[0], np.ptp(columns) / size_hw[1])
        assert filled > 0.6
    with_ground = view(group, ball()[1], size_hw, colours=[RED])
    assert (np.abs(with_ground.astype(int) - picture).max(-1) > 5).mean() > 0.02


def test_directions_of_the_views() -> None:
    near, far = ball(-1, 0, 3, 0.3)[0], ball(1, 0, 6, 0.3)[0]
    middle = {}
    for name, view in (("side", side_view), ("top", top_view)):
        picture = view([near, far], ball()[1], (200, 200), colours=[RED, BLUE], ground=False).astype(int)
        for colour, (a, b) in {"near": (0, 2), "far": (2, 0)}.items():
            middle[name, colour] = np.argwhere(picture[..., a] > picture[..., b] + 40).mean(0)
    assert middle["side", "near"][1] < middle["side", "far"][1]  # depth grows to the right
    assert middle["top", "near"][0] > middle["top", "far"][0]  # farther is up
    assert middle["top", "near"][1] < middle["top", "far"][1]  # camera x is to the right


def test_contact_sheet_puts_each_picture_in_its_cell() -> None:
    images = [np.full((40, 60, 3), 20 * i, np.uint8) for i in range(5)] + [np.full((80, 30, 3), 200, np.uint8)]
    sheet = contact_sheet(images, columns=3, cell_hw=(40, 60), gap=4)
    assert sheet.shape == (4 + 2 * 44, 4 + 3 * 64, 3)
    for i in range(5):
        top, left = 4 + i // 3 * 44, 4 + i % 3 * 64
        assert (sheet[top : top + 40, left : left + 60] == 20 * i).all()
    last = sheet[48:88, 132:192]
    assert (last[:, 23:37] == 200).all() and (last[:, :20] == 250).all()  # shrunk to 40 x 15, not distorted
    named = contact_sheet(images, ["caption " * 40] * 6, columns=3, cell_hw=(40, 60), gap=4)
    assert named.shape[0] > sheet.shape[0] and named.shape[1] == sheet.shape[1]
    band = named[44:60, 4:64]
    assert (band < 120).any()
    assert (named[:, 64:68] == 250).all()  # text stays within its cell
    assert contact_sheet(images).shape[1] > contact_sheet(images, columns=1).shape[1]


def test_tensors_are_accepted() -> None:
    vertices, faces = ball()
    ours = silhouette(torch.tensor(vertices), torch.tensor(faces), torch.tensor(K), SIZE)
    np.testing.assert_array_equal(ours, silhouette(vertices, faces, K, SIZE))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda v, f: overlay(np.zeros((4, 4)), [v], f, K), "photograph is"),
        (lambda v, f: overlay(np.zeros((4, 4, 3), np.uint8), [v], f, K, colours=[RED, BLUE]), "2 colours"),
        (lambda v, f: render_mesh(v, f, np.eye(4), SIZE), "K has shape"),
        (lambda v, f: render_mesh(v, f, K, SIZE, supersample=0), "supersample is 0"),
        (lambda v, f: render_mesh(v * np.nan, f, K, SIZE), "not finite"),
        (lambda v, f: render_mesh(v, f, K, SIZE, colour=(1, 1)), "colour of mesh 0"),
        (lambda v, f: side_view([v * np.inf], f), "not finite"),
        (lambda v, f: contact_sheet([]), "No images"),
        (lambda v, f: contact_sheet([np.zeros((4, 4))]), "Image 0 is"),
        (lambda v, f: contact_sheet([np.zeros((4, 4, 3), np.uint8)], ["a", "b"]), "2 captions"),
    ],
)
def test_wrong_input_is_named(call, message) -> None:
    with np.errstate(invalid="ignore"), pytest.raises(ValueError, match=message):
        call(*ball())


def test_import_is_light_and_the_public_list_is_true() -> None:
    code = "import sys, renderers; print([m for m in ('numba', 'torch', 'cv2') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
    for name in renderers.__all__:
        assert getattr(renderers, name) is not None
    with pytest.raises(AttributeError, match="nothing_here"):
        _ = renderers.nothing_here
