"""GLA-GCN: which windows it takes, what it refuses, how it starts, and that the paper's variant learns."""

import pickle

import pytest
import torch

from bodyreg.models.lifters.gla_gcn import GLAGCN, GRAPHS, GLAGCNPaper, graph_partition, legal_lengths


def naive_partition(pairs, joints):
    """Each edge counts one over the number of edges that leave its source, in loops."""
    out = torch.zeros(3, joints, joints)
    for part, edges in ((1, pairs), (2, [(j, i) for i, j in pairs])):
        for i, j in edges:
            out[part, j, i] = 1 / sum(1 for a, _ in edges if a == i)
    out[0].fill_diagonal_(1)
    return out


@pytest.mark.parametrize("name", GRAPHS)
def test_partition_equals_its_naive_twin(name):
    joints = 1 + max(max(edge) for edge in GRAPHS[name])
    torch.testing.assert_close(graph_partition(GRAPHS[name], joints), naive_partition(GRAPHS[name], joints))


def test_a_joint_without_edges_stays_alone():
    partition = graph_partition([(1, 0)], 3)
    assert partition[1:, :, 2].eq(0).all() and partition[1:, 2].eq(0).all()


def test_legal_lengths_are_those_that_run():
    legal = legal_lengths([3, 3], 30)
    assert legal == [4, 5, 6, 8, 9, 11, 12, 14, 15, 17, 18, 23, 24, 26, 27]
    model = GLAGCN([3, 3], channels=8).eval()
    for length in range(1, 31):
        x = torch.randn(1, length, 17, 2)
        if length in legal:
            out = model(x)
            assert out.shape == (1, 1, 17, 3) and out.isfinite().all()
        else:
            with pytest.raises(ValueError, match=f"A window of {length} frames"):
                model(x)


def test_short_windows_never_give_nan_in_silence():
    """At these lengths a stage would be entered with one frame, whose residual is empty."""
    model = GLAGCN([3, 3, 3], channels=8).eval()
    for length in (4, 5, 6, 8, 9):
        with pytest.raises(ValueError, match="Give 27 frames"):
            model(torch.randn(1, length, 17, 2))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"filter_widths": [3, 2]}, "odd numbers"),
        ({"filter_widths": []}, "odd numbers"),
        ({"graph": "h37m"}, "no graph 'h37m'"),
        ({"causal": True}, "never worked"),
    ],
)
def test_what_cannot_work_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        GLAGCN(**{"channels": 8, **options})


def test_wrong_joints_are_refused_and_coco_fits_only_its_variant():
    with pytest.raises(ValueError, match="takes 15"):
        GLAGCN([3, 3], channels=8, graph="humaneva15")(torch.zeros(1, 9, 17, 2))
    model = GLAGCN([3, 3], channels=8, graph="humaneva_mrcnn").eval()
    assert model(torch.randn(1, 9, 17, 2)).shape == (1, 1, 15, 3)


def test_unequal_widths_reduce_by_their_product():
    model = GLAGCN([5, 3], channels=8).eval()
    assert model.receptive_field == 15 and model(torch.randn(1, 15, 17, 2)).shape == (1, 1, 17, 3)


def test_starts_as_its_skip_paths_and_survives_pickling():
    torch.manual_seed(0)
    model = GLAGCN([3, 3], channels=8)
    block = model.layers_tcngcn[0].gcn1
    assert float(block.bn.weight.detach().max()) == pytest.approx(1e-6) and block.PA.detach().eq(1e-6).all()
    x = torch.randn(2, 9, 17, 2)
    model.eval()
    assert torch.equal(pickle.loads(pickle.dumps(model))(x), model(x))


def test_trains_in_place_of_a_dropout_that_would_not():
    model = GLAGCN([3, 3], channels=8).train()
    model(torch.randn(2, 9, 17, 2)).sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize("connected", ["shared", "unshared", "mix"])
def test_the_papers_variant_learns_both_heads(connected):
    torch.manual_seed(0)
    model = GLAGCNPaper([3, 3], channels=8, dropout=0.0, blocks=2, connected=connected)
    x, y = torch.randn(8, 9, 17, 2), 0.3 * torch.randn(8, 9, 17, 3)
    optimiser = torch.optim.Adam(model.parameters(), 1e-2)
    losses = []
    for _ in range(15):
        centre, sequence = model.forward_sequence(x)
        loss = (centre - y[:, 4:5]).norm(dim=-1).mean() + (sequence - y).norm(dim=-1).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert sequence.shape == y.shape and float(sequence.detach().min()) < 0
    assert losses[-1] < 0.85 * losses[0]


def test_shared_and_unshared_layers_differ_by_joint():
    """With equal features at all joints, shared layers give equal joints and unshared ones do not."""
    x = torch.randn(1, 8, 1).expand(1, 8, 17)
    shared = GLAGCNPaper([3, 3], channels=8, connected="shared")._head(x)
    own = GLAGCNPaper([3, 3], channels=8, connected="unshared")._head(x)
    assert shared.std(2).max() < 1e-5 and own.std(2).min() > 1e-3
