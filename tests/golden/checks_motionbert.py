"""Checks of DSTformer's reference data."""

from __future__ import annotations

from functools import partial

from lifter_networks import check_model


def stages(model) -> dict:
    return {"block_st_0": model.blocks_st[0], "block_ts_0": model.blocks_ts[0], "after_norm": model.norm}


CHECKS = [("model_*", partial(check_model, small=1e-5, watched=stages))]
