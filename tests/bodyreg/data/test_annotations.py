import numpy as np
import torch

from bodyreg.data.annotations import box_around, camera_smpl_from_world, visible_vertices
from bodyreg.rotations import matrix_from_aa


def test_a_body_moved_to_the_camera_has_its_points_where_the_camera_sees_them():
    g = torch.Generator().manual_seed(0)
    aa, transl, J0, camera_aa, t, point = (torch.randn(5, 3, dtype=torch.float64, generator=g) for _ in range(6))
    R = matrix_from_aa(camera_aa)

    def place(aa, transl):  # a rigid SMPL body: turn about the rest pelvis, then translate
        return (matrix_from_aa(aa) @ (point - J0)[..., None])[..., 0] + J0 + transl

    aa_cam, transl_cam = camera_smpl_from_world(aa, transl, J0, R, t)
    seen = (R @ place(aa, transl)[..., None])[..., 0] + t
    torch.testing.assert_close(place(aa_cam, transl_cam), seen)


def test_boxes_are_cut_at_the_borders():
    points = np.array([[[10.0, 20], [30, 25]], [[-10, 20], [500, 900]], [[-10, -20], [-5, -2]]])
    np.testing.assert_allclose(box_around(points, (100, 200)), [[10, 20, 20, 5], [0, 20, 200, 80], [0, 0, 0, 0]])


def slow_visibility(px, depth, faces, size_hw):
    visible = []
    for v in range(len(px)):
        seen = (px[v] > 0).all() and px[v, 0] < size_hw[1] and px[v, 1] < size_hw[0]
        for face in faces:
            corners = px[face]
            edges = np.roll(corners, -1, axis=0) - corners
            to_v = px[v] - corners
            side = edges[:, 0] * to_v[:, 1] - edges[:, 1] * to_v[:, 0]
            if ((side > 0).all() or (side < 0).all()) and depth[face].min() < depth[v]:
                seen = False
        visible.append(seen)
    return np.array(visible)


def test_visibility_equals_the_plain_definition():
    rng = np.random.default_rng(0)
    for spread in (300, 20):
        px = rng.uniform(-20, 340, (150, 2))
        depth = rng.uniform(2, 5, 150)
        faces = np.stack([rng.permutation(150)[:3] for _ in range(60)])
        if spread == 20:  # small triangles, and coordinates that coincide
            px = np.round(px / 20) * 20 + rng.integers(0, 2, px.shape)
        expected = slow_visibility(px, depth, faces, (240, 320))
        np.testing.assert_array_equal(visible_vertices(px, depth, faces, (240, 320)), expected)
        assert 10 < expected.sum() < 140


def test_a_mesh_outside_the_picture_is_not_seen():
    px = np.array([[-5.0, -5], [-1, -5], [-5, -1]])
    assert not visible_vertices(px, np.ones(3), np.array([[0, 1, 2]]), (10, 10)).any()


def test_a_single_vertex_picture_does_not_divide_by_zero():
    px = np.array([[5.0, 5], [-1, -5], [-5, -1]])
    assert visible_vertices(px, np.ones(3), np.array([[0, 1, 2]]), (10, 10)).tolist() == [True, False, False]


def test_corners_that_project_nowhere_hide_nothing():
    px = np.array([[5.0, 5], [np.nan, -5], [np.inf, -1], [1e300, -1e300]])
    seen = visible_vertices(px, np.array([2.0, 1, 1, 1]), np.array([[0, 1, 2], [1, 2, 3], [0, 3, 2]]), (10, 10))
    assert seen.tolist() == [True, False, False, False]
