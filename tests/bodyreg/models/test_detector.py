"""The network that finds people: boxes come back from their targets, and a small one learns a picture by heart."""

import pytest
import torch

from bodyreg.losses.detector import SceneTruth, _shares, detector_loss, detector_targets
from bodyreg.models.detector import STRIDE, DetectorOutput, PersonDetector, boxes_from_sides, cell_centres, find_peaks

BOXES = torch.tensor([[[8.0, 10.0, 40.0, 90.0], [60.0, 20.0, 80.0, 60.0], [0.0, 0.0, 0.0, 0.0]]])
TRUTH = SceneTruth(
    BOXES,
    torch.tensor([[True, True, False]]),
    torch.tensor([[False, False, False]]),
    torch.zeros(1, 96 // STRIDE, 128 // STRIDE),
)


def perfect(truth: SceneTruth) -> DetectorOutput:
    """What a network that knows the truth would say."""
    heat, _, owner = detector_targets(truth, STRIDE)
    wanted = torch.gather(truth.boxes, 1, owner.flatten(1)[..., None].expand(-1, -1, 4)).mT.view(1, 4, *heat.shape[1:])
    x, y = cell_centres(heat.shape[1], heat.shape[2])
    near = torch.stack([x - wanted[:, 0], y[:, None] - wanted[:, 1]], 1)
    far = torch.stack([wanted[:, 2] - x, wanted[:, 3] - y[:, None]], 1)
    return DetectorOutput(torch.logit(heat, 1e-4), torch.cat([near, far], 1), torch.full_like(heat, -9))


def test_boxes_come_back_from_perfect_maps_best_first():
    ((boxes, scores),) = find_peaks(perfect(TRUTH), min_score=0.5)
    assert len(scores) == 2 and (scores > 0.99).all()
    torch.testing.assert_close(boxes[boxes[:, 0].argsort()], BOXES[0, :2])


def test_perfect_maps_cost_next_to_nothing_and_wrong_ones_more():
    output = perfect(TRUTH)
    terms = detector_loss(output.heat, boxes_from_sides(output.sides), output.mask, TRUTH, STRIDE)
    assert terms["box"] < 1e-5 and terms["mask"] < 1e-3
    moved = detector_loss(output.heat, boxes_from_sides(output.sides) + 8, output.mask, TRUTH, STRIDE)
    blind = detector_loss(torch.full_like(output.heat, -9), boxes_from_sides(output.sides), output.mask, TRUTH, STRIDE)
    assert moved["box"] > 0.3 and blind["heat"] > 10 * terms["heat"]


def test_what_is_asked_of_a_middle_is_shared_out_around_it():
    heat, _, owner = detector_targets(TRUTH, STRIDE)
    shares = _shares(heat, owner, 3)
    sums = [float(shares[owner == row].sum()) for row in range(2)]
    assert sums == pytest.approx([1, 1], abs=1e-5)
    large, small = (shares[owner == row].max() for row in range(2))
    assert large < small < 1


def test_ignored_people_are_neither_asked_for_nor_denied():
    truth = TRUTH._replace(ignored=torch.tensor([[False, True, False]]))
    heat, weight, _ = detector_targets(truth, STRIDE)
    there = (int(40 // STRIDE), int(70 // STRIDE))
    assert heat[0][there] < 0.01 and weight[0][there] == 0 and weight.mean() > 0.9
    assert int((heat == 1).sum()) == 1


def test_a_scene_without_people_has_no_box_to_learn():
    nobody = TRUTH._replace(real=torch.zeros(1, 3, dtype=torch.bool))
    output = perfect(TRUTH)
    terms = detector_loss(output.heat, boxes_from_sides(output.sides), output.mask, nobody, STRIDE)
    assert terms["box"] == 0 and terms["heat"] > 1


def test_maps_have_a_cell_for_every_eight_pixels():
    with torch.inference_mode():
        output = PersonDetector((8, 8, 16, 16), (1, 1, 1, 1), 8).eval()(torch.zeros(2, 3, 64, 96))
    assert output.heat.shape == output.mask.shape == (2, 8, 12) and output.sides.shape == (2, 4, 8, 12)
    assert (output.sides > 0).all()


def test_a_picture_is_learned_by_heart():
    torch.manual_seed(0)
    model = PersonDetector((8, 16, 16, 32), (1, 1, 1, 1), 16)
    image = torch.zeros(1, 3, 96, 128)
    image[:, 0, 10:90, 8:40], image[:, 1, 20:60, 60:80] = 1, 1
    optimiser = torch.optim.AdamW(model.parameters(), 3e-3)
    for _ in range(120):
        output = model(image)
        loss = sum(detector_loss(output.heat, boxes_from_sides(output.sides), output.mask, TRUTH, STRIDE).values())
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    ((boxes, scores),) = find_peaks(model.eval()(image), min_score=0.3)
    assert len(scores) == 2
    assert (boxes[boxes[:, 0].argsort()] - BOXES[0, :2]).abs().max() < STRIDE


@pytest.mark.parametrize("min_score", (0.2, 0.9))
def test_no_detection_is_below_the_score_asked_for(min_score):
    output = perfect(TRUTH)._replace(heat=torch.linspace(-3, 3, 12 * 16).view(1, 12, 16))
    ((boxes, scores),) = find_peaks(output, min_score=min_score)
    assert (scores >= min_score).all() and len(boxes) == len(scores)
