"""Statistics of clothed, posed people. Arrays in, arrays out."""

from priors.clothing import ClothingPrior
from priors.clothing_learning import LabelCounts, learn
from priors.joint_limits import JointLimits, joint_limits
from priors.pose import PosePrior
from priors.shape import log_prob_betas, sample_betas

__all__ = [
    "ClothingPrior",
    "JointLimits",
    "LabelCounts",
    "PosePrior",
    "joint_limits",
    "learn",
    "log_prob_betas",
    "sample_betas",
]
