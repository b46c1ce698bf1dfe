import pytest
import torch

from bodyreg.models.decoding import decode, merge, read_heads, soft_argmax, unmirror, unproject
from bodyreg.rotations import matrix_from_aa, mirror_matrix, sixd_from_matrix

K = torch.tensor([[700.0, 0, 96], [0, 720, 128], [0, 0, 1]]).expand(2, 3, 3)


def random_heads(dtype=torch.float32, seed=0):
    g = torch.Generator().manual_seed(seed)
    sizes = [(2, 25, 64, 48), (2, 25), (2, 1), (2, 75), (2, 11), (2, 30)]
    return [torch.randn(*size, generator=g).to(dtype) for size in sizes]


def test_soft_argmax_of_a_peak_is_the_centre_of_its_cell():
    logits = torch.zeros(1, 2, 8, 6)
    logits[0, 0, 5, 2] = 100
    logits[0, 1, 0, 0] = 100
    torch.testing.assert_close(soft_argmax(logits, 4), torch.tensor([[[10.0, 22.0], [2, 2]]]))
    flat = soft_argmax(torch.zeros(1, 1, 8, 6), 4)
    torch.testing.assert_close(flat, torch.tensor([[[12.0, 16.0]]]))


def test_decoded_joints_project_back_to_their_pixels_when_the_pixels_are_square():
    square = K.clone()
    square[:, 1, 1] = 700
    d = decode(*random_heads(), square)
    joints = d.xyz + d.xyz0
    px = (joints @ square.mT)[..., :2] / joints[..., 2:]
    torch.testing.assert_close(px, d.uv, atol=1e-3, rtol=0)
    torch.testing.assert_close(joints[..., 2:], d.density * 700, atol=1e-5, rtol=1e-5)
    assert (d.xyz[:, 0] == 0).all() and (d.depth[:, 0] == 0).all()


def test_ranges():
    heads = random_heads()
    heads[1], heads[2] = heads[1] * 1000, torch.tensor([[1000.0], [-1000.0]])
    r = read_heads(*heads)
    assert r.depth.abs().max() == pytest.approx(1.1)
    torch.testing.assert_close(r.rho0.flatten(), 7e-3 * torch.exp(torch.tensor([1.5, -1.5])))


def test_leaf_rotations_are_read_from_interleaved_columns():
    heads = random_heads()
    R = matrix_from_aa(torch.randn(2, 5, 3, generator=torch.Generator().manual_seed(3)))
    heads[5] = sixd_from_matrix(R).reshape(2, 30) * 3
    torch.testing.assert_close(read_heads(*heads).leaf_rot, R, atol=1e-5, rtol=0)


def test_unmirroring_twice_changes_nothing_and_swaps_sides_once():
    r = read_heads(*random_heads())
    m = unmirror(r, 192)
    for a, b in zip(unmirror(m, 192), r, strict=True):
        torch.testing.assert_close(a, b)
    left_wrist, right_wrist = 20, 21
    torch.testing.assert_close(m.uv[:, left_wrist, 0], 192 - r.uv[:, right_wrist, 0])
    torch.testing.assert_close(m.uv[:, 24, 1], r.uv[:, 24, 1])
    torch.testing.assert_close(m.leaf_rot[:, 0], mirror_matrix(r.leaf_rot[:, 1]))


def test_a_network_that_mirrors_perfectly_gains_nothing_from_the_flip_test():
    r = read_heads(*random_heads())
    for a, b in zip(merge(r, unmirror(unmirror(r, 192), 192)), r, strict=True):
        torch.testing.assert_close(a, b)


def test_merge_takes_leaf_rotations_from_the_plain_pass():
    r, other = read_heads(*random_heads()), read_heads(*random_heads(seed=1))
    merged = merge(r, other)
    torch.testing.assert_close(merged.leaf_rot, r.leaf_rot)
    torch.testing.assert_close(merged.depth, (r.depth + other.depth) / 2)


def test_half_precision_heads_are_decoded_in_single_precision():
    heads = [x.bfloat16() for x in random_heads()]
    d = decode(*heads, K)
    assert all(x.dtype == torch.float32 for x in d)
    torch.testing.assert_close(d, decode(*[x.float() for x in heads], K))


def test_everything_carries_a_gradient():
    heads = [x.requires_grad_() for x in random_heads()]
    sum(x.square().sum() for x in unproject(merge(read_heads(*heads), unmirror(read_heads(*heads), 192)), K)).backward()
    for x in heads:
        assert torch.isfinite(x.grad).all() and x.grad.abs().max() > 0
