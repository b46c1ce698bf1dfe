"""Counted costs against what the papers' tables and a count by hand say."""

import pytest

from bodyreg.models.lifters.cost import lifter_cost
from bodyreg.models.lifters.registry import LifterSettings


def test_a_small_network_by_hand():
    cost = lifter_cost(LifterSettings("videopose3d", options={"filter_widths": [3], "channels": 4}))
    assert cost.frames == 3 and cost.parameters == 34 * 3 * 4 + 8 + 4 * 51 + 51
    assert cost.flops == 2 * (34 * 3 * 4 + 4 * 51)


@pytest.mark.parametrize(
    ("name", "parameters", "gflops"), [("mixste", 33_783_811, 277.25), ("mhformer", 31_516_125, 14.15)]
)
def test_published_sizes(name, parameters, gflops):
    cost = lifter_cost(LifterSettings(name))
    assert cost.parameters == parameters and cost.flops / 1e9 == pytest.approx(gflops, abs=0.01)


def test_what_depends_on_the_numbers_is_not_counted():
    cost = lifter_cost(LifterSettings("ktpformer_diffusion", "small"))
    assert cost.flops is None and cost.parameters > 0
