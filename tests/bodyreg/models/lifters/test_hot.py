"""Pruning: the selection against plain loops, deterministic frames, injected noise and index, recovery."""

from __future__ import annotations

import math

import pytest
import torch

from bodyreg.models.lifters import hot
from bodyreg.models.lifters.hot import FrameSelector, Pruning, TokenRecovery, score_frames, take_frames
from bodyreg.models.lifters.mhformer import MHFormer
from bodyreg.models.lifters.mixste import MixSTE


def scores_by_loops(x: torch.Tensor, noise: torch.Tensor, k: int) -> list[float]:
    """Density-peak scores of one clip (F, C), frame by frame."""
    frames, channels = x.shape
    D = [[math.dist(x[i].tolist(), x[j].tolist()) / math.sqrt(channels) for j in range(frames)] for i in range(frames)]
    density = [math.exp(-sum(d * d for d in sorted(row)[:k]) / k) + 1e-6 * float(noise[i]) for i, row in enumerate(D)]
    furthest = max(max(row) for row in D)
    scores = []
    for i in range(frames):
        denser = [D[i][j] for j in range(frames) if density[j] > density[i]]
        scores.append(min(denser, default=furthest) * density[i])
    return scores


@pytest.mark.parametrize("k", [2, 3])
def test_scores_are_those_of_plain_loops(k):
    torch.manual_seed(0)
    x, noise = torch.randn(2, 12, 5, dtype=torch.double), torch.rand(2, 12, dtype=torch.double)
    found = score_frames(x, noise, k).score
    for b in range(2):
        expected = torch.tensor(scores_by_loops(x[b], noise[b], k), dtype=torch.double)
        assert torch.allclose(found[b], expected, atol=1e-9)


def test_distances_are_exact_where_single_precision_is_not():
    """Frames far from the origin and close to each other, as tokens are."""
    torch.manual_seed(0)
    x = 100 + 1e-2 * torch.randn(1, 60, 64)
    exact = torch.cdist(x.double(), x.double(), compute_mode="donot_use_mm_for_euclid_dist")
    found = hot.frame_distances(x)
    assert torch.allclose(found, exact, atol=1e-6) and torch.equal(found, found.transpose(1, 2))


def test_the_same_clip_gives_the_same_frames_on_every_run_and_in_every_batch():
    torch.manual_seed(0)
    pruning = Pruning(keep=6, layer_index=1)
    model = MixSTE(18, width=16, depth=2, pruning=pruning).eval()
    clips = torch.randn(5, 18, 17, 2)
    with torch.no_grad():
        together = model.lift_pruned(clips)
        torch.manual_seed(99)
        again = model.lift_pruned(clips)
        alone = [model.lift_pruned(clips[k : k + 1]) for k in range(5)]
    assert torch.equal(together.kept, again.kept) and torch.equal(together.pose, again.pose)
    assert torch.equal(torch.cat([one.kept for one in alone]), together.kept)


def test_the_seed_decides_between_mutual_neighbours():
    """Pairs of frames: of each pair one is kept, and which one is up to the noise."""
    torch.manual_seed(0)
    centres = 10 * torch.randn(8, 16)
    x = (centres[:, None] + 1e-2 * torch.randn(8, 2, 16)).reshape(1, 16, 16)
    chosen = [tuple(FrameSelector(16, 8, seed=seed).eval()(x)[0].tolist()) for seed in range(4)]
    assert len(set(chosen)) > 1
    for kept in chosen:
        assert sorted(frame // 2 for frame in kept) == list(range(8))
    assert tuple(FrameSelector(16, 8, seed=0).eval()(x)[0].tolist()) == chosen[0]


def test_noise_and_index_can_be_given_and_training_draws():
    torch.manual_seed(0)
    centres = torch.randn(6, 8)
    x = (centres[:, None] + 1e-3 * torch.randn(6, 2, 8)).reshape(1, 12, 8)
    selector = FrameSelector(12, 6).eval()
    first = torch.tensor([1.0, 0.0] * 6)
    assert (selector(x, first) % 2 == 0).all() and (selector(x, 1 - first) % 2 == 1).all()
    given = torch.tensor([[0, 1, 2, 3, 4, 5]])
    assert torch.equal(selector(x, index=given), given)
    drawn = {tuple(selector.train()(x)[0].tolist()) for _ in range(6)}
    assert len(drawn) > 1
    for wrong in ({"noise": torch.zeros(2, 12)}, {"index": given[:, :5]}):
        with pytest.raises(ValueError, match=r"has shape .* Give \(1, "):
            selector(x, **wrong)


def test_a_still_sequence_keeps_the_first_frames_and_the_centre():
    x = torch.ones(1, 9, 4)
    assert FrameSelector(9, 3)(x).tolist() == [[0, 1, 2]]
    assert FrameSelector(9, 3, centre=True)(x).tolist() == [[0, 1, 4]]
    assert FrameSelector(9, 9, centre=True)(torch.randn(1, 9, 4)).tolist() == [list(range(9))]


def test_recovery_serves_each_joint_by_its_own_kept_frames():
    torch.manual_seed(0)
    tra = TokenRecovery(9, 8, 2)
    torch.nn.init.normal_(tra.x_token)
    kept = torch.randn(6, 3, 8)
    whole = tra(kept)
    assert whole.shape == (6, 9, 8)
    assert torch.allclose(torch.cat([tra(kept[k : k + 1]) for k in range(6)]), whole, atol=1e-6)


def test_kept_tokens_are_those_of_the_index():
    x, index = torch.randn(2, 7, 3, 4), torch.tensor([[0, 3, 6], [1, 2, 5]])
    found = take_frames(x, index)
    for b in range(2):
        assert torch.equal(found[b], x[b, index[b]])


@pytest.mark.parametrize("recover", [True, False])
def test_keeping_every_frame_changes_only_what_it_must(recover):
    """A TPC network that keeps all frames is its host; HoT adds its two learned parts to it."""
    torch.manual_seed(0)
    host = MixSTE(9, width=16, depth=3).eval()
    pruned = MixSTE(9, width=16, depth=3, pruning=Pruning(9, 1, recover)).eval()
    missing = pruned.load_state_dict(host.state_dict(), strict=False).missing_keys
    added = {"pos_embed_token", "x_token"}
    assert {name for name in missing if not name.startswith("cross_attention.")} == (added if recover else set())
    x = torch.randn(1, 9, 17, 2)
    with torch.no_grad():
        if not recover:
            assert torch.allclose(pruned(x).pose, host(x), atol=1e-6)


def test_streams_of_mhformer_are_regrown_together():
    model = MHFormer(9, width=16, hidden=32, pruning=Pruning(3, 1)).eval()
    assert model.x_token.shape == (1, 9, 48)
    with torch.no_grad():
        assert model(torch.randn(2, 9, 17, 2)).shape == (2, 9, 17, 3)
