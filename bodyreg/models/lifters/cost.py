"""What a lifter costs: parameters, operations and frames, counted on the network itself."""

from __future__ import annotations

from typing import NamedTuple

import torch

from bodyreg import skeletons
from bodyreg.models.lifters.record import LifterSettings
from bodyreg.models.lifters.registry import build_lifter, lifter_entry

__all__ = ["LifterCost", "lifter_cost"]


class LifterCost(NamedTuple):
    """What a clip costs.

    parameters. flops: two for each multiply-add of linear layers, convolutions and plain matrix products; the products
    inside fused attention are not counted, as papers on lifters count. None where what is computed depends on the
    numbers. frames: of a clip.
    """

    parameters: int
    flops: int | None
    frames: int


def lifter_cost(settings: LifterSettings) -> LifterCost:
    """Count a lifter. Its forward pass runs on tensors that have shapes and no numbers, so that size does not matter.

    Raises:
        ValueError: an unknown lifter, preset or option.
    """
    from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode
    from torch.utils.flop_counter import FlopCounterMode

    entry = lifter_entry(settings.name)
    frames, points = entry.frames(settings), len(skeletons.get(settings.input_set))
    network = build_lifter(settings).eval()
    counter = FlopCounterMode(display=False)
    parameters = sum(p.numel() for p in network.parameters())
    try:
        with FakeTensorMode(allow_non_fake_inputs=True), torch.no_grad(), counter:
            network(torch.zeros(1, frames, points, entry.channels))
    except DataDependentOutputException:
        return LifterCost(parameters, None, frames)
    return LifterCost(parameters, counter.get_total_flops(), frames)
