"""Checks of MHFormer's reference data."""

from __future__ import annotations

from functools import partial

from lifter_networks import check_model


def stages(model) -> dict:
    return {
        "enc1": model.Transformer_encoder_1,
        "enc3": model.Transformer_encoder_3,
        "hyp": model.Transformer_hypothesis,
    }


CHECKS = [("model_*", partial(check_model, small=2e-5, watched=stages))]
