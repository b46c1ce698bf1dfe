"""Transformer lifters: sizes and costs of the published networks, layers against plain formulas, training, refusals."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from bodyreg.models.lifters.entries_transformers import ENTRIES
from bodyreg.models.lifters.hot import Pruned, Pruning
from bodyreg.models.lifters.ktpformer import KTPFormer, LearnableGraphConv, topology
from bodyreg.models.lifters.layers import CrossAttention, DropPath, SelfAttention, set_fused
from bodyreg.models.lifters.mhformer import MHFormer
from bodyreg.models.lifters.mixste import MixSTE
from bodyreg.models.lifters.motionagformer import GCN, MotionAGFormer
from bodyreg.models.lifters.motionbert import DSTformer
from bodyreg.models.lifters.registry import LIFTERS, LifterSettings, build_lifter

# Name, preset: parameters, entries of the state dict, and 10^9 operations of linear layers and convolutions (two a
# multiplication) that the published networks have; None where no text tells.
PUBLISHED = {
    ("mixste", "243"): (33_783_811, 204, 277.25),
    ("hot_mixste", "243"): (35_000_323, 214, 167.51),
    ("tpc_mixste", "243"): (33_783_811, 204, 251.28),
    ("ktpformer", "27"): (34_765_014, 229, None),
    ("ktpformer", "81"): (34_859_622, 229, None),
    ("ktpformer", "243"): (35_213_430, 229, None),
    ("ktpformer", "351"): (35_507_622, 229, None),
    ("motionbert", "243"): (16_001_549, 260, 131.09),
    ("hot_motionbert", "243"): (16_347_661, 270, 63.21),
    ("mhformer", "351"): (31_516_125, 273, 14.15),
    ("tpc_mhformer", "351"): (31_516_125, 273, 8.22),
    ("motionagformer", "base"): (11_723_811, 1065, 95.92),
    ("motionagformer", "xs"): (2_241_531, None, None),
    ("hot_motionagformer", "base"): (11_828_031, 1072, 60.52),
}


@pytest.mark.parametrize(("name", "preset"), PUBLISHED)
def test_published_sizes_to_the_digit(name, preset):
    parameters, entries, gflops = PUBLISHED[name, preset]
    with torch.device("meta"):
        model = build_lifter(LifterSettings(name, preset)).eval()
        assert sum(p.numel() for p in model.parameters()) == parameters
        assert entries is None or len(model.state_dict()) == entries
    if gflops:
        model.to("meta")  # the graphs and the fixed noise have memory even in a network without
        entry = LIFTERS[name]
        set_fused(model, False)
        frames = entry.frames(LifterSettings(name, preset))
        with FlopCounterMode(display=False) as counter:
            model(torch.zeros(1, frames, 17, entry.channels, device="meta"))
        kinds = counter.get_flop_counts()["Global"]
        layers = sum(n for kind, n in kinds.items() if str(kind).split(".")[-1] in ("mm", "addmm", "convolution"))
        if name.startswith("hot_"):  # the reference asks the same questions once for each joint, this network once
            layers += 16 * frames * 2 * model.x_token.shape[-1] ** 2
        assert layers / 1e9 == pytest.approx(gflops, abs=0.006)


def test_prior_units_have_the_published_sizes():
    with torch.device("meta"):
        model = build_lifter(LifterSettings("ktpformer", "351"))
    units = (model.kpattention.attn.kpa, model.tpattention.attn.tpa)
    assert [sum(p.numel() for p in unit.parameters()) for unit in units] == [12_577, 1_657_474]


def tiny(name: str, **more) -> LifterSettings:
    """A lifter that takes no time."""
    options = {"frames": 9, "width": 16} | ({"layers": 2} if "agformer" in name else {})
    options |= {"depth": 2} if any(kind in name for kind in ("mixste", "ktpformer", "motionbert")) else {}
    options |= {"timesteps": 20, "sampling_timesteps": 2, "hypotheses": 2} if "diffusion" in name else {}
    if name.startswith(("hot_", "tpc_")):
        options |= {"keep": 4, "layer_index": 1}
    return LifterSettings(name, "small", options=options | more)


NAMES = [entry.name for entry in ENTRIES]


@pytest.mark.parametrize("name", NAMES)
def test_poses_come_for_the_frames_that_the_entry_promises(name):
    entry, model = LIFTERS[name], build_lifter(tiny(name)).eval()
    with torch.no_grad():
        y = model(torch.randn(2, 9, 17, entry.channels))
    if entry.output == "kept":
        assert isinstance(y, Pruned) and y.pose.shape == (2, 4, 17, 3) and y.kept.shape == (2, 4)
        assert (y.kept == 4).any(1).all() and (y.kept.diff(dim=1) > 0).all()
    else:
        assert y.shape == (2, 9, 17, 3)


@pytest.mark.parametrize(
    "name", ["hot_mixste", "tpc_mhformer", "hot_motionagformer", "motionbert_priors"]
)
def test_no_graph_breaks_and_explicit_attention_gives_the_same(name):
    """One graph for the whole network: what torch.compile needs to be worth its while."""
    torch._dynamo.reset()
    model = build_lifter(tiny(name)).eval()
    x = torch.randn(1, 9, 17, LIFTERS[name].channels)

    def pose(network) -> torch.Tensor:
        with torch.no_grad():
            y = network(x)
        return y[0] if isinstance(y, tuple) else y

    plain = pose(model)
    assert torch.allclose(pose(torch.compile(model, fullgraph=True, backend="eager")), plain, atol=1e-5)
    set_fused(model, False)
    assert torch.allclose(pose(model), plain, atol=1e-5)


@pytest.mark.parametrize("name", ["hot_mixste", "ktpformer", "motionbert_priors", "tpc_mixste"])
def test_training_lowers_the_loss(name):
    torch.manual_seed(0)
    model = build_lifter(tiny(name, width=32)).train()
    x = torch.randn(4, 9, 17, LIFTERS[name].channels)
    target = torch.cat([x[..., :2] * 0.3, x[..., :1] * x[..., 1:2] * 0.2], dim=-1)
    optimiser, losses = torch.optim.AdamW(model.parameters(), 5e-3), []
    for _ in range(25):
        y = model(x)
        wanted = target
        if isinstance(y, Pruned):
            wanted, y = target[torch.arange(4)[:, None], y.kept], y.pose
        loss = (y - wanted).norm(dim=-1).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert sum(losses[-3:]) < 0.7 * sum(losses[:3])
    assert all(p.grad is not None for p in model.parameters())


def test_attention_is_its_formula():
    torch.manual_seed(0)
    layer = SelfAttention(12, 3).double()
    x = torch.randn(2, 5, 12, dtype=torch.double)
    q, k, v = layer.qkv(x).split(12, dim=-1)
    out = torch.zeros_like(x)
    for b in range(2):
        for h in range(3):
            part = slice(4 * h, 4 * h + 4)
            for i in range(5):
                weights = torch.stack([(q[b, i, part] * k[b, j, part]).sum() / 2 for j in range(5)]).softmax(0)
                out[b, i, part] = sum(weights[j] * v[b, j, part] for j in range(5))
    assert torch.allclose(layer(x), layer.proj(out))


def test_one_query_serves_all_samples():
    layer, query, key = CrossAttention(8, 2), torch.randn(1, 6, 8), torch.randn(3, 4, 8)
    assert torch.allclose(layer(query, key, key), layer(query.expand(3, -1, -1), key, key), atol=1e-6)


def test_stochastic_depth_drops_whole_samples_and_keeps_the_mean():
    torch.manual_seed(0)
    layer, x = DropPath(0.25), torch.ones(4000, 3)
    y = layer.train()(x)
    assert (y == y[:, :1]).all() and y.unique().tolist() == pytest.approx([0, 4 / 3])
    assert y.mean() == pytest.approx(1, abs=0.05) and torch.equal(layer.eval()(x), x)


def test_graph_convolution_is_its_formula():
    torch.manual_seed(0)
    unit = LearnableGraphConv(topology([-1, 0, 1, 1]), 2, 5)
    nn.init.normal_(unit.adj2)
    nn.init.normal_(unit.M)
    x = torch.randn(3, 4, 2)
    S = (unit.adjacency + unit.adj2 + (unit.adjacency + unit.adj2).T) / 2
    one, H0, H1 = torch.eye(4), x @ unit.W[0], x @ unit.W[1]
    assert torch.allclose(unit(x), (S * one) @ (unit.M * H0) + (S * (1 - one)) @ (unit.M * H1) + unit.bias, atol=1e-6)


def test_temporal_graph_links_the_most_similar_frames():
    torch.manual_seed(0)
    unit = GCN(4, 4, 6, "temporal", neighbours=2)
    x = torch.randn(1, 6, 4)
    links = unit._resemblance(x)[0] > 0
    for i in range(6):
        best = sorted(range(6), key=lambda j: -float(x[0, i] @ x[0, j]))[:2]
        assert set(links[i].nonzero().flatten().tolist()) == set(best)


def test_half_precision_stays_near():
    torch.manual_seed(0)
    model = build_lifter(tiny("hot_mixste", width=64)).eval()
    x = torch.randn(2, 9, 17, 2)
    with torch.no_grad():
        plain, kept = model.lift_pruned(x)
        with torch.autocast("cpu", torch.bfloat16):
            rough = model(x, index=kept).float()
    assert 0 < (rough - plain).norm(dim=-1).mean() < 0.03 * plain.norm(dim=-1).mean()


@pytest.mark.parametrize("name", ["mixste", "hot_ktpformer", "motionbert", "mhformer", "motionagformer"])
@pytest.mark.parametrize("shape", [(1, 5, 17, 2), (1, 9, 16, 2), (9, 17, 2), (1, 9, 17, 4)])
def test_clips_of_another_shape_are_refused(name, shape):
    with pytest.raises(ValueError, match=r"It takes \(B, 9, 17, [23]\): clips of 9 frames"):
        build_lifter(tiny(name))(torch.zeros(shape))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: KTPFormer(frames=1), "A chain needs two or more"),
        (lambda: KTPFormer(frames=4, width=16, depth=1, adjacency=torch.zeros(3, 4)), r"Give \(3, 3\)"),
        (lambda: MHFormer(frames=10), "multiple of 9"),
        (lambda: MixSTE(9, width=10, depth=2), "cannot be split into 8 heads"),
        (lambda: MixSTE(9, width=16, depth=3, pruning=Pruning(3, 0)), "Set layer_index from 1 to 2"),
        (lambda: DSTformer(9, width=16, depth=3, pruning=Pruning(3, 3)), "Set layer_index from 0 to 2"),
        (lambda: MixSTE(9, width=16, depth=3, pruning=Pruning(10, 1)), "Keep between 1 and 9"),
        (lambda: MotionAGFormer(9, tcn=True, width=18, heads=2, layers=1), "do not split into 4 branches"),
        (lambda: build_lifter(tiny("mixste"))(torch.zeros(1, 9, 17, 2), torch.zeros(9)), "is not pruned"),
        (lambda: build_lifter(tiny("mixste")).lift_pruned(torch.zeros(1, 9, 17, 2)), "keeps all frames"),
        (lambda: build_lifter(LifterSettings("mixste", "small", "coco-17")), "Convert the key points"),
        (lambda: build_lifter(LifterSettings("motionagformer", "xs", "lsp-14", "lsp-14")), "h36m-17 only"),
    ],
)
def test_wrong_arguments_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_other_skeletons():
    model = build_lifter(LifterSettings("ktpformer", "small", "humaneva-15", "humaneva-15", {"frames": 9})).eval()
    with torch.no_grad():
        assert model(torch.randn(1, 9, 15, 2)).shape == (1, 9, 15, 3)
