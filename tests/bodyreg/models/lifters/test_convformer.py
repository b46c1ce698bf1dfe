"""ConvFormer: its size against the paper's tables, its footprint, its learned mixtures, learning."""

import pytest
import torch

from bodyreg import skeletons
from bodyreg.models.lifters.convformer import ConvFormer, ConvFormerBlock, DynamicConvAttention

# frames, kernels, width, spatial and temporal blocks, exact count, the paper's count in millions
TABLE = [
    (9, (7, 7, 7), 32, 2, 2, 2_561_621, 2.56), (27, (7, 7, 7), 32, 2, 2, 2_654_735, 2.65),
    (81, (7, 7, 7), 32, 2, 2, 3_431_741, 3.43), (143, (7, 7, 7), 32, 2, 2, 5_244_435, 5.24),
    (243, (7, 7, 7), 32, 2, 2, 10_241_735, 10.24), (9, (7,), 32, 2, 2, 2_468_285, 2.47),
    (9, (7, 7), 32, 2, 2, 2_514_953, 2.51), (9, (9,), 32, 2, 2, 2_481_545, 2.48),
    (9, (9, 9), 32, 2, 2, 2_541_473, 2.54), (9, (3,), 32, 2, 2, 2_441_765, 2.44),
    (9, (3, 3), 32, 2, 2, 2_461_913, 2.46), (9, (3, 3, 3), 32, 2, 2, 2_482_061, 2.48),
    (9, (5,), 32, 2, 2, 2_455_025, 2.46), (9, (5, 5), 32, 2, 2, 2_488_433, 2.49),
    (9, (5, 5, 5), 32, 2, 2, 2_521_841, 2.52), (9, (3, 5, 7), 32, 2, 2, 2_521_841, 2.52),
    (9, (5, 7, 9), 32, 2, 2, 2_561_621, 2.56), (9, (9, 9, 9), 32, 2, 2, 2_601_401, 2.60),
    (9, (7, 7, 7), 32, 2, 4, 4_947_291, 4.95), (9, (7, 7, 7), 32, 4, 2, 2_701_991, 2.70),
    (9, (7, 7, 7), 16, 2, 2, 659_445, 0.65), (9, (7, 7, 7), 16, 2, 4, 1_265_691, 1.26),
    (9, (7, 7, 7), 16, 4, 2, 694_823, 0.69), (9, (7, 7, 7), 64, 2, 2, 10_126_101, 9.97),
]  # fmt: skip


def small(**options) -> ConvFormer:
    given = {"frames": 9, "embed": 16, "heads": 4, "kernels": (3, 3, 3), "drop_path": 0.0, "aggregation_dropout": 0.0}
    return ConvFormer(**{**given, **options})


def formula(frames: int, kernels: tuple[int, ...], embed: int, spatial: int, temporal: int, joints: int = 17) -> int:
    """The count of parameters, written out."""
    taps, n, width = sum(kernels), len(kernels), joints * embed

    def block(channels: int, features: int) -> int:
        convs = 3 * (taps * channels**2 + n * channels + n)
        return convs + channels**2 + channels + 4 * features + 4 * features**2 + 3 * features

    tables = 3 * embed + joints * embed + frames * width
    heads = 2 * embed + 4 * width + 3 * joints * width + 3 * joints + frames + 1
    return tables + spatial * block(embed, embed) + temporal * block(frames, width) + heads


@pytest.mark.parametrize(("frames", "kernels", "embed", "spatial", "temporal", "count", "published"), TABLE)
def test_parameters_are_the_papers(frames, kernels, embed, spatial, temporal, count, published):
    with torch.device("meta"):
        model = ConvFormer(frames, 17, embed, spatial, temporal, 8, kernels)
    counted = sum(p.numel() for p in model.parameters())
    assert counted == count == formula(frames, kernels, embed, spatial, temporal)
    assert abs(counted / 1e6 - published) <= (0.0051 if embed == 32 else 0.02 * published)


def test_mixtures_stay_positive_and_sum_to_one():
    torch.manual_seed(0)
    model = small(kernels=(3, 5))
    attentions = [m for m in model.modules() if isinstance(m, DynamicConvAttention)]
    assert all(torch.equal(a.mixture(role), torch.full((2,), 0.5)) for a in attentions for role in "qkv")
    optimiser = torch.optim.Adam(model.parameters(), 1e-2)
    x, y = torch.randn(4, 9, 17, 2), torch.randn(4, 1, 17, 3)
    for _ in range(10):
        optimiser.zero_grad()
        (model(x) - y).norm(dim=-1).mean().backward()
        optimiser.step()
    for attention in attentions:
        for role in "qkv":
            eta = attention.mixture(role)
            assert (eta > 0).all() and abs(float(eta.detach().sum()) - 1) < 1e-6
    assert any(abs(float(a.mixture("q")[0]) - 0.5) > 1e-4 for a in attentions), "the mixtures never moved"


def test_spatial_stage_is_frame_wise_and_the_temporal_one_is_not():
    torch.manual_seed(0)
    model, x = small().eval(), torch.randn(1, 9, 17, 2)
    other = x.clone()
    other[:, 3] += 1
    changed = (model.tokens(x) != model.tokens(other)).any(-1)[0]
    assert changed.tolist() == [t == 3 for t in range(9)]
    assert (model(x) - model(other)).abs().max() > 1e-4


@pytest.mark.parametrize("temporal", [False, True])
def test_footprint_of_a_query(temporal):
    """A temporal query sees all frames of a window of columns; a spatial one all channels of a window of joints."""
    torch.manual_seed(0)
    frames, joints, width = 5, 17, 8
    tokens, features = (frames, joints * width) if temporal else (joints, width)
    attention = DynamicConvAttention(frames if temporal else width, 4, (3, 5), temporal=temporal).eval()
    x = torch.randn(1, tokens, features, requires_grad=True)
    token, feature = 2, 6 if not temporal else 50
    attention.aggregate(x, "q")[0, token, feature].backward()
    seen = x.grad[0] != 0
    window = torch.zeros_like(seen)
    if temporal:
        window[:, feature - 2 : feature + 3] = True
    else:
        window[token - 2 : token + 3] = True
    assert torch.equal(seen, window)


@pytest.mark.parametrize("frames", [1, 9, 27])
def test_shapes(frames):
    assert small(frames=frames).eval()(torch.zeros(2, frames, 17, 2)).shape == (2, 1, 17, 3)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"frames": 8}, "odd number"), ({"kernels": (3, 4)}, "odd sizes"), ({"heads": 3}, "do not divide")],
)
def test_what_does_not_fit_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        small(**options)


def test_another_clip_length_is_refused():
    with pytest.raises(ValueError, match=r"\(B, 9, 17, 2\)"):
        small()(torch.zeros(1, 27, 17, 2))


def test_evaluation_is_deterministic_and_knows_no_batch_training_repeats_with_its_seed():
    torch.manual_seed(0)
    model, x = ConvFormer(9, 17, 16, 2, 2, 4, (3, 3, 3)), torch.randn(3, 9, 17, 2)
    model.eval()
    assert torch.equal(model(x), model(x))
    torch.testing.assert_close(model(x)[1:2], model(x[1:2]), atol=1e-6, rtol=0)
    model.train()
    runs = []
    for _ in range(2):
        torch.manual_seed(5)
        runs.append(model(x))
    assert torch.equal(*runs) and not torch.equal(runs[0], model(x))


def test_exchanging_two_kernels_changes_nothing():
    torch.manual_seed(0)
    attention = DynamicConvAttention(8, 4, (5, 5, 3), temporal=False).eval()
    x = torch.randn(2, 17, 8)
    with torch.no_grad():
        for role in "qkv":
            getattr(attention, f"{role}_eta").normal_()
        before = attention(x)
        for role in "qkv":
            convs, eta = getattr(attention, f"{role}_convs"), getattr(attention, f"{role}_eta")
            for a, b in ((convs[0].weight, convs[1].weight), (convs[0].bias, convs[1].bias), (eta[:1], eta[1:2])):
                kept = a.clone()
                a.copy_(b)
                b.copy_(kept)
        torch.testing.assert_close(attention(x), before, atol=1e-6, rtol=0)


def test_learns_a_batch_by_heart():
    torch.manual_seed(0)
    model = small()
    x, y = torch.randn(32, 9, 17, 2), 0.3 * torch.randn(32, 1, 17, 3)
    optimiser = torch.optim.Adam(model.parameters(), 1e-3, amsgrad=True)
    errors = []
    for _ in range(101):
        loss = (model(x) - y).norm(dim=-1).mean()
        errors.append(1000 * float(loss.detach()))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert errors[0] > 300 and errors[-1] < 20


def test_flip_test_is_mirror_consistent():
    torch.manual_seed(0)
    model, x = small().eval(), torch.randn(2, 9, 17, 2)
    order = list(skeletons.get("h36m-17").mirror)

    def mirrored(points: torch.Tensor) -> torch.Tensor:
        points = points[:, :, order].clone()
        points[..., 0] *= -1
        return points

    def averaged(points: torch.Tensor) -> torch.Tensor:
        return (model(points) + mirrored(model(mirrored(points)))) / 2

    torch.testing.assert_close(averaged(mirrored(x)), mirrored(averaged(x)), atol=1e-6, rtol=0)


def test_one_kernel_of_one_tap_is_plain_attention():
    torch.manual_seed(0)
    block = ConvFormerBlock(8, 8, 2, (1,), temporal=False).eval()
    plain = torch.nn.MultiheadAttention(8, 2, batch_first=True).eval()
    convs = [getattr(block.attn, f"{role}_convs")[0] for role in "qkv"]
    with torch.no_grad():
        plain.in_proj_weight.copy_(torch.cat([c.weight[..., 0] for c in convs]))
        plain.in_proj_bias.copy_(torch.cat([c.bias for c in convs]))
        plain.out_proj.weight.copy_(block.attn.proj.weight)
        plain.out_proj.bias.copy_(block.attn.proj.bias)
        x = torch.randn(3, 17, 8)
        torch.testing.assert_close(block.attn(x), plain(x, x, x)[0], atol=1e-6, rtol=0)
