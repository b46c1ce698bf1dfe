"""PersPose: units of the readout, crops of any size, flip test, ablation, and silence when no camera is known."""

import pytest
import torch

from bodyreg.encoding import mirror_intrinsics
from bodyreg.models.compact import CompactBackbone
from bodyreg.models.perspose import UNIT_CROP, PersPose, normalise_image, scale_intrinsics
from bodyreg.skeletons import get as joint_set

MIRROR = [*joint_set("smpl-24").mirror, 24]


def make(**options):
    torch.manual_seed(0)
    model = PersPose(CompactBackbone((8, 8, 16, 16), (1, 1, 1, 1), 8), 10, joint_pooling=True, dense=True, **options)
    return model.eval().requires_grad_(False)


def intrinsics(size, batch=2):
    K = torch.tensor([[1.3 * size, 0, size / 2], [0, 1.3 * size, size / 2], [0, 0, 1]])
    return K.expand(batch, 3, 3)


@pytest.fixture
def image():
    return normalise_image(torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(1)))


def test_raw_outputs_have_the_shapes_they_are_said_to_have(image):
    model = make()
    raw = model(image, intrinsics(64))
    shapes = [tuple(value.shape) for value in raw if value is not None]
    assert shapes == [(2, 25, 16, 16), (2, 25), (2, 1), (2, 75), (2, 10), (2, 30), (2, 50)]
    assert raw.dense is None and model.train()(image, intrinsics(64)).dense.shape == (2, 7, 16, 16)


def test_normalised_images_have_zero_mean_and_unit_variance_of_imagenet():
    grey = torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1).expand(1, 3, 4, 4)
    assert normalise_image(grey).abs().max() < 1e-6
    assert torch.allclose(normalise_image(grey + 0.229)[:, 0], torch.ones(1, 4, 4))


def test_intrinsics_scale_with_the_sampling():
    K = scale_intrinsics(intrinsics(64), 4.0)
    assert torch.allclose(K, intrinsics(256))


@pytest.mark.parametrize("size", [64, 96])
def test_readout_is_in_pixels_of_a_256_wide_crop_at_any_size(size):
    """A heat map with one hot cell reads as that cell's centre, whatever the crop was sampled at."""
    model = make()
    raw = model(torch.zeros(1, 3, size, size), intrinsics(size, 1))
    cells = size // 4
    heat = torch.full((1, 25, cells, cells), -1e4)
    heat[..., cells // 2, cells // 4] = 1e4
    raw = raw._replace(heatmap=heat, offset=torch.full((1, 50), 0.25))
    uv = model.read(raw).uv
    pixel = UNIT_CROP / cells
    assert torch.allclose(uv[..., 0], torch.tensor((cells // 4 + 0.5) * pixel + 64), atol=1e-3)
    assert torch.allclose(uv[..., 1], torch.tensor((cells // 2 + 0.5) * pixel + 64), atol=1e-3)


def test_prediction_projects_onto_its_own_pixels(image):
    decoded = make().predict(image, intrinsics(64), flip_test=False)
    points = decoded.xyz + decoded.xyz0
    K = intrinsics(256)
    uv = points[..., :2] / points[..., 2:] * K[:, None, [0, 1], [0, 1]] + K[:, None, :2, 2]
    assert torch.allclose(uv, decoded.uv, atol=0.05)
    assert decoded.xyz[:, 0].abs().max() == 0


def test_flip_test_of_the_mirrored_crop_is_the_mirrored_prediction(image):
    model, K = make(), intrinsics(64)
    one, two = model.predict(image, K), model.predict(image.flip(-1), mirror_intrinsics(K, 64))
    flip = torch.tensor([-1.0, 1.0, 1.0])
    assert torch.allclose(one.xyz, two.xyz[:, MIRROR] * flip, atol=1e-4)
    assert torch.allclose(one.beta, two.beta, atol=1e-5) and torch.allclose(one.rho0, two.rho0, atol=1e-7)
    plain = model.predict(image, K, flip_test=False)
    assert not torch.allclose(plain.xyz, one.xyz, atol=1e-4)


def test_camera_is_heard_unless_switched_off_or_unknown(image):
    wide, narrow = intrinsics(64), scale_intrinsics(intrinsics(64), 1.0).clone()
    narrow[:, [0, 1], [0, 1]] *= 3
    model, deaf = make(), make(perspective_encoding=False)
    assert not torch.allclose(model(image, wide).depth, model(image, narrow).depth)
    assert torch.equal(deaf(image, wide).depth, deaf(image, narrow).depth)
    unknown = torch.tensor([True, False])
    one, two = (model(image, K, unknown).depth for K in (wide, narrow))
    assert not torch.equal(one[0], two[0]) and torch.equal(one[1], two[1])


def test_heads_are_float32_under_mixed_precision(image):
    with torch.autocast("cpu", torch.bfloat16):
        raw = make()(image, intrinsics(64))
    assert all(value.dtype == torch.float32 and value.isfinite().all() for value in raw if value is not None)
