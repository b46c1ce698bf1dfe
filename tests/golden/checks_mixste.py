"""Checks of MixSTE's reference data."""

from __future__ import annotations

from functools import partial

from lifter_networks import check_model


def stages(model) -> dict:
    """The shared norms: their first outputs are those of the first pair."""
    return {"after_first_spatial": model.Spatial_norm, "after_first_temporal": model.Temporal_norm}


CHECKS = [("model_*", partial(check_model, small=1e-5, watched=stages))]
