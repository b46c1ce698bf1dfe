"""The compact backbone: two outputs of known sizes, an encoding that is heard, every weight taught."""

import pytest
import torch

from bodyreg.models.compact import CompactBackbone


@pytest.fixture
def backbone():
    torch.manual_seed(0)
    return CompactBackbone((8, 8, 16, 24), (1, 2, 1, 1), 12).train()


@pytest.mark.parametrize("size", [(64, 64), (32, 96)])
def test_outputs_have_the_sizes_they_are_said_to_have(backbone, size):
    h, w = size
    features, vector = backbone(torch.randn(2, 3, h, w), torch.zeros(2, 8, h // 4, w // 4))
    assert features.shape == (2, backbone.map_channels, h // 4, w // 4) == (2, 12, h // 4, w // 4)
    assert vector.shape == (2, backbone.vector_channels) == (2, 24)
    assert backbone.encoding_channels == 8


def test_the_encoding_is_heard(backbone):
    backbone.eval()
    image, silent = torch.randn(1, 3, 64, 64), torch.zeros(1, 8, 16, 16)
    plain, said = backbone(image, silent), backbone(image, silent + 0.1)
    assert not torch.allclose(plain[0], said[0]) and not torch.allclose(plain[1], said[1])


def test_every_weight_gets_a_derivative(backbone):
    features, vector = backbone(torch.randn(3, 3, 64, 64), torch.randn(3, 8, 16, 16))
    (features.square().mean() + vector.square().mean()).backward()
    dead = [name for name, p in backbone.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert not dead


def test_first_stage_sees_a_cell_and_its_neighbours_alone(backbone):
    """Cells of the map at stride 4 line up with the picture: a changed pixel moves the cell it lies in most."""
    backbone.eval()
    image = torch.zeros(1, 3, 64, 64)
    changed = image.clone()
    changed[..., 22, 41] = 5.0
    stem = (backbone.stem(changed) - backbone.stem(image)).abs().sum(1)[0]
    assert stem.nonzero().amin(0).tolist() >= [4, 9] and stem.nonzero().amax(0).tolist() <= [6, 11]
    assert stem[5, 10] > 0
