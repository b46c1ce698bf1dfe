"""Cutting faces at a depth: what is kept, where it lies, and gradients."""

from __future__ import annotations

import pytest
import torch

from renderers.clipping import clip_faces


def triangles(count: int, seed: int = 0) -> torch.Tensor:
    gen = torch.Generator().manual_seed(seed)
    return torch.randn(count, 3, 3, dtype=torch.float64, generator=gen) + torch.tensor([0.0, 0.0, 0.7])


def area(verts: torch.Tensor) -> torch.Tensor:
    return torch.linalg.cross(verts[:, 1] - verts[:, 0], verts[:, 2] - verts[:, 0]).norm(dim=-1) / 2


def test_pieces_tile_the_part_in_front() -> None:
    verts = triangles(200)
    clipped = clip_faces(verts, 0.3, perspective=False)
    assert (clipped.face_verts[..., 2] >= 0.3 - 1e-12).all()
    assert (clipped.face[1:] >= clipped.face[:-1]).all()
    # Every corner is where its barycentric coordinates say, for any attribute.
    rebuilt = torch.einsum("fjk,fjc->fkc", clipped.bary, verts[clipped.face])
    torch.testing.assert_close(rebuilt, clipped.face_verts)
    torch.testing.assert_close(clipped.bary.sum(1), torch.ones_like(clipped.bary.sum(1)))
    # Areas: what is kept plus what clipping the mirrored scene keeps is the whole.
    mirrored = verts * torch.tensor([1.0, 1.0, -1.0])
    other = clip_faces(mirrored, -0.3, perspective=False)
    total = torch.zeros(200, dtype=verts.dtype).index_add(0, clipped.face, area(clipped.face_verts))
    total = total.index_add(0, other.face, area(other.face_verts))
    torch.testing.assert_close(total, area(verts))
    # Orientation is kept.
    normal = torch.linalg.cross(verts[:, 1] - verts[:, 0], verts[:, 2] - verts[:, 0])[clipped.face]
    p = clipped.face_verts
    assert ((torch.linalg.cross(p[:, 1] - p[:, 0], p[:, 2] - p[:, 0]) * normal).sum(-1) >= 0).all()


def test_neighbours_are_the_two_halves_of_one_face() -> None:
    verts = triangles(100)
    clipped = clip_faces(verts, 0.3, perspective=False)
    near = (verts[..., 2] < 0.3).sum(-1)
    for i, (face, other) in enumerate(zip(clipped.face.tolist(), clipped.neighbour.tolist(), strict=True)):
        if near[face] == 1:
            assert clipped.neighbour[other] == i and clipped.face[other] == face and abs(other - i) == 1
        else:
            assert other == -1
    assert set(near.unique().tolist()) == {0, 1, 2, 3} and not set(near[clipped.face].tolist()) & {3}


def test_projected_corners_are_cut_as_in_view_space() -> None:
    verts = triangles(100)
    verts[..., 2] += 0.05 * verts[..., 2].sign()  # away from the plane through the eye
    projected = torch.cat([verts[..., :2] / verts[..., 2:], verts[..., 2:]], -1)
    expected = clip_faces(verts, 0.3, perspective=False).face_verts
    ours = clip_faces(projected, 0.3, perspective=True).face_verts
    torch.testing.assert_close(torch.cat([ours[..., :2] * ours[..., 2:], ours[..., 2:]], -1), expected)


@pytest.mark.parametrize("perspective", [False, True])
def test_gradients(perspective: bool) -> None:
    verts = triangles(12, seed=4).requires_grad_()

    def both(v: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        clipped = clip_faces(v, 0.3, perspective=perspective)
        return clipped.face_verts, clipped.bary

    assert torch.autograd.gradcheck(both, (verts,))


def test_nothing_to_cut_changes_nothing() -> None:
    verts = triangles(20)
    clipped = clip_faces(verts, -100.0, perspective=False)
    assert torch.equal(clipped.face_verts, verts) and (clipped.neighbour == -1).all()
    assert len(clip_faces(verts, 100.0, perspective=False).face) == 0
    assert len(clip_faces(verts[:0], 0.1, perspective=True).face) == 0
