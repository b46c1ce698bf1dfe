"""The nearest-surface kernels against a brute-force twin in numpy."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from renderers.backends.cpu import interpolate, interpolate_normals, rasterize_hard, vertex_normals


def brute_force(vertices: np.ndarray, faces: np.ndarray, size_hw: tuple[int, int], near: float = 1e-3):
    """Every pixel against every face in float64: depth of the nearest face that holds the centre, and its margin.

    Returns (face, z, bary, margin): margin is the least distance, in pixels, of the centre to any edge line; where it
    is tiny, which face owns the centre is a matter of rounding.
    """
    h, w = size_hw
    py, px = np.mgrid[0:h, 0:w] + 0.5
    face, z_best = np.full((h, w), -1), np.full((h, w), np.inf)
    bary_best, margin = np.zeros((h, w, 3)), np.full((h, w), np.inf)
    for f, corners in enumerate(vertices.astype(np.float64)[faces]):
        if not (np.isfinite(corners).all() and (corners[:, 2] >= near).all()):
            continue
        edge = np.zeros((3, h, w))
        for k in range(3):
            a, b = corners[(k + 1) % 3, :2], corners[(k + 2) % 3, :2]
            edge[k] = (b[0] - a[0]) * (py - a[1]) - (b[1] - a[1]) * (px - a[0])
            length = np.hypot(*(b - a))
            if length > 0:
                margin = np.minimum(margin, abs(edge[k]) / length)
        (ux, uy), (vx, vy) = corners[1:, :2] - corners[0, :2]
        area = ux * vy - uy * vx
        if area == 0:
            continue
        weights = edge / area
        inside = (weights > 0).all(0)
        over_z = weights / corners[:, 2, None, None]
        z = 1 / np.where(inside, over_z.sum(0), 1)
        nearer = inside & (z < z_best)
        face[nearer], z_best[nearer] = f, z[nearer]
        bary_best[nearer] = np.moveaxis(over_z * z, 0, -1)[nearer]
    return face, np.where(face >= 0, z_best, 0), bary_best, margin


def soup(rng: np.random.Generator, count: int, size_hw: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Random triangles: ordinary, slivers, edge-on, behind the camera, not finite, huge."""
    h, w = size_hw
    corners = rng.uniform([-0.3 * w, -0.3 * h, 0.5], [1.3 * w, 1.3 * h, 5.0], (count, 3, 3))
    corners[0::7, 1] = corners[0::7, 0] + rng.normal(0, 1e-3, (len(corners[0::7]), 3))  # slivers
    corners[1::7, 2] = (corners[1::7, 0] + corners[1::7, 1]) / 2  # edge-on
    corners[2::7, 0, 2] *= -1  # a corner behind the camera
    corners[3::7, 0, :2] *= 1e6  # reaches far outside
    corners[4] = np.nan
    corners[5, 1, 0] = np.inf
    return corners.reshape(-1, 3).astype(np.float32), np.arange(3 * count, dtype=np.int32).reshape(-1, 3)


@pytest.mark.parametrize("size_hw", [(33, 48), (40, 21), (1, 1)])
@pytest.mark.parametrize("seed", [0, 1])
def test_agrees_with_brute_force(seed: int, size_hw: tuple[int, int]) -> None:
    vertices, faces = soup(np.random.default_rng(seed), 60, size_hw)
    hard = rasterize_hard(vertices, faces, size_hw)
    with np.errstate(all="ignore"):
        face, z, bary, margin = brute_force(vertices, faces, size_hw)
    clear = margin > 1e-4
    assert clear.mean() > 0.9 or size_hw == (1, 1)
    np.testing.assert_array_equal(hard.face[clear], face[clear])
    np.testing.assert_allclose(hard.zbuf[clear], z[clear], rtol=2e-5)
    np.testing.assert_allclose(hard.bary[clear], bary[clear], atol=1e-4)
    assert np.isfinite(hard.zbuf).all() and np.isfinite(hard.bary).all()
    np.testing.assert_allclose(hard.bary[hard.face >= 0].sum(-1), 1, atol=1e-6)


def test_adjacent_faces_leave_no_hole_and_no_overlap() -> None:
    # A grid whose edges and vertices run through pixel centres, then a randomly shaken one.
    rng = np.random.default_rng(3)
    n = 12
    for shake in (0.0, 0.3):
        y, x = np.mgrid[0 : n + 1, 0 : n + 1] * 2.0 + 0.5
        inner = np.s_[1:-1, 1:-1]
        x[inner] += rng.normal(0, shake, x[inner].shape)
        y[inner] += rng.normal(0, shake, y[inner].shape)
        vertices = np.stack([x, y, np.ones_like(x)], -1).reshape(-1, 3).astype(np.float32)
        a = (np.arange(n)[:, None] * (n + 1) + np.arange(n)).ravel()
        faces = np.concatenate([np.stack([a, a + 1, a + n + 2], 1), np.stack([a, a + n + 2, a + n + 1], 1)])
        owners = sum(
            (rasterize_hard(vertices, faces[k : k + 1], (2 * n + 1,) * 2).face >= 0).astype(int)
            for k in range(len(faces))
        )
        assert (owners[1:-1, 1:-1] == 1).all()


def test_any_number_of_threads_gives_the_same_bits() -> None:
    vertices, faces = soup(np.random.default_rng(5), 80, (50, 70))
    one = rasterize_hard(vertices, faces, (50, 70), threads=1)
    for threads in (2, 3, 7, 64):
        for a, b in zip(one, rasterize_hard(vertices, faces, (50, 70), threads=threads), strict=True):
            np.testing.assert_array_equal(a, b)


def test_equal_depth_goes_to_the_lower_face() -> None:
    vertices = np.array([[1, 1, 2], [9, 1, 3], [1, 9, 4]], np.float32)
    faces = np.array([[0, 2, 1], [0, 2, 1]], np.int32)
    hard = rasterize_hard(vertices, faces, (10, 10))
    assert set(np.unique(hard.face)) == {-1, 0}


def test_coverage_matches_a_polygon_filler() -> None:
    # cv2 puts pixel centres at whole numbers and draws their border too, so the truth lies between eroded and dilated.
    rng = np.random.default_rng(11)
    for _ in range(20):
        corners = rng.uniform(5, 95, (3, 2))
        vertices = np.column_stack([corners, np.ones(3)]).astype(np.float32)
        ours = (rasterize_hard(vertices, np.array([[0, 1, 2]]), (100, 100)).face >= 0).astype(np.uint8)
        filled = np.zeros((100, 100), np.uint8)
        cv2.fillConvexPoly(filled, np.round((corners - 0.5) * 256).astype(np.int32), 1, shift=8)
        core = cv2.erode(filled, np.ones((3, 3), np.uint8))
        assert (ours <= cv2.dilate(filled, np.ones((3, 3), np.uint8))).all()
        assert (ours >= core).all()


def test_interpolation_is_perspective_correct_and_zero_outside() -> None:
    # Attribute = camera-space position: interpolated, it must lie on the ray of its pixel.
    rng = np.random.default_rng(2)
    f, c = 50.0, 20.0
    points = rng.uniform([-1, -1, 2], [1, 1, 4], (30, 3))
    vertices = np.column_stack([f * points[:, :2] / points[:, 2:] + c, points[:, 2]]).astype(np.float32)
    faces = rng.integers(0, 30, (40, 3)).astype(np.int32)
    hard = rasterize_hard(vertices, faces, (40, 40))
    xyz = interpolate(hard.face, hard.bary, points, faces)
    hit = hard.face >= 0
    assert hit.any() and (~hit).any() and (xyz[~hit] == 0).all()
    py, px = np.mgrid[0:40, 0:40] + 0.5
    np.testing.assert_allclose((f * xyz[..., 0] / np.where(hit, xyz[..., 2], 1) + c)[hit], px[hit], atol=2e-2)
    np.testing.assert_allclose((f * xyz[..., 1] / np.where(hit, xyz[..., 2], 1) + c)[hit], py[hit], atol=2e-2)
    np.testing.assert_allclose(xyz[..., 2][hit], hard.zbuf[hit], rtol=1e-4)


def test_normals_of_a_sphere_point_outwards() -> None:
    import trimesh

    ball = trimesh.creation.icosphere(subdivisions=3)
    normals = vertex_normals(ball.vertices, ball.faces)
    assert ((normals * ball.vertices).sum(-1) > 0.999).all()
    pixels = ball.vertices * [15, 15, 1] + [20, 20, 3]
    hard = rasterize_hard(pixels, ball.faces, (40, 40))
    per_pixel = interpolate_normals(hard.face, hard.bary, normals, ball.faces)
    np.testing.assert_allclose(np.linalg.norm(per_pixel, axis=-1), hard.face >= 0, atol=1e-5)


def test_empty_meshes_give_background() -> None:
    hard = rasterize_hard(np.zeros((0, 3)), np.zeros((0, 3), np.int32), (4, 5))
    assert (hard.face == -1).all() and (hard.bary == 0).all()


@pytest.mark.parametrize(
    ("vertices", "faces", "size", "message"),
    [
        (np.zeros((4, 2)), np.zeros((1, 3)), (4, 4), "vertices have shape"),
        (np.zeros((4, 3)), np.zeros((1, 4)), (4, 4), "faces have shape"),
        (np.zeros((4, 3)), np.array([[0, 1, 4]]), (4, 4), "faces use vertices 0 to 4 of 4"),
        (np.zeros((4, 3)), np.zeros((1, 3)), (0, 4), "image size is 0 x 4"),
    ],
)
def test_wrong_input_is_named(vertices, faces, size, message) -> None:
    with pytest.raises(ValueError, match=message):
        rasterize_hard(vertices, faces, size)
