"""The network that finds people, at work: boxes in pixels of the photograph, one a person; its own weights alone."""

import numpy as np
import pytest
import torch
from torch import nn

from bodyreg.checkpoints import default_weights, save_weights
from bodyreg.inference.detect import boxes_of, load_detector
from bodyreg.inference.folder import load_regressor
from bodyreg.inference.people import MODES, find_people
from bodyreg.inference.pictures import read_inputs
from bodyreg.models.detector import STRIDE, DetectorOutput
from bodyreg.models.registry import build, default_settings


class Knows(nn.Module):
    """Says that a person of a fixed size is wherever the picture is bright."""

    def __init__(self, size_wh: tuple[float, float]) -> None:
        super().__init__()
        self.apart = nn.Parameter(torch.tensor(size_wh) / 2)

    def forward(self, image: torch.Tensor) -> DetectorOutput:
        bright = nn.functional.avg_pool2d(image.mean(1), STRIDE)
        sides = self.apart.repeat(2).view(1, 4, 1, 1).expand(len(image), 4, *bright.shape[1:])
        return DetectorOutput(3 * bright, sides, bright)


def spots(size_hw, *at_xy):
    """A black picture with spots that fade from their middles."""
    y, x = np.mgrid[: size_hw[0], : size_hw[1]]
    far = np.min([np.hypot(x - at[0], y - at[1]) for at in at_xy], axis=0)
    return np.repeat(np.clip(255 - 12 * far, 0, 255).astype(np.uint8)[..., None], 3, 2)


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A network that was never trained."""
    torch.manual_seed(0)
    settings = default_settings("person_detector")
    settings.widths, settings.depths, settings.map_channels = [8, 8, 16, 16], [1, 1, 1, 1], 8
    path = tmp_path_factory.mktemp("detector") / "detector.safetensors"
    save_weights(path, build(settings), settings)
    return path


def test_boxes_are_in_the_pixels_of_the_photograph():
    boxes, scores = boxes_of(Knows((16, 32)), spots((512, 1024), (300, 200)), min_score=0.9, sides_px=[512])
    assert boxes.shape == (1, 4) and scores[0] > 0.9
    np.testing.assert_allclose(boxes[0, :2] + boxes[0, 2:] / 2, (300, 200), atol=6)
    np.testing.assert_allclose(boxes[0, 2:], (32, 64))  # searched at half the size


def test_boxes_end_where_the_photograph_does():
    ((x, y, w, h),) = boxes_of(Knows((64, 64)), spots((256, 256), (10, 120)), min_score=0.9, sides_px=[512])[0]
    assert x == 0 and x + w < 60 and 0 < y and h > 60 / 2


def test_one_person_is_found_once_and_two_twice():
    rgb = spots((512, 512), (200, 200), (220, 200))
    assert len(boxes_of(Knows((200, 200)), rgb, min_score=0.9, sides_px=[512])[0]) == 1
    assert len(boxes_of(Knows((20, 60)), rgb, min_score=0.9, sides_px=[512])[0]) == 2


@pytest.mark.parametrize("size_hw", [(1, 1), (7, 900), (900, 7), (33, 31)])
def test_pictures_of_any_shape_are_searched(size_hw, weights):
    boxes, _ = boxes_of(load_detector(weights), np.zeros((*size_hw, 3), np.uint8), min_score=0.0)
    assert (boxes >= 0).all() and (boxes[:, :2] + boxes[:, 2:] <= np.array(size_hw[::-1]) + 1e-6).all()


def test_people_are_found_by_given_weights(weights):
    rgb = np.random.default_rng(0).integers(0, 255, (400, 500, 3), np.uint8)
    people = find_people(rgb, "net", detector=weights, min_score=0.0)
    assert people and {person.how for person in people} == {"net"}
    areas = [person.box_xywh[2] * person.box_xywh[3] for person in people]
    assert areas == sorted(areas, reverse=True)
    assert find_people(rgb, "net", detector=weights, min_score=1.0) == []
    assert [person.how for person in find_people(rgb, "auto", detector=weights, min_score=1.0)] == ["whole"]


def test_weights_of_another_network_are_refused():
    assert "net" in MODES
    with pytest.raises(ValueError, match="finds nobody"):
        find_people(np.zeros((400, 500, 3), np.uint8), "net", detector=default_weights("perspose_small"))


def test_a_finder_of_people_poses_nobody(weights):
    with pytest.raises(ValueError, match="poses nobody"):
        load_regressor("person_detector", weights)


def test_the_folder_job_takes_the_weights(weights):
    assert read_inputs(people="net", detector=weights).detector == weights
    with pytest.raises(ValueError, match="no weights file"):
        read_inputs(detector=weights.with_name("missing.safetensors"))
