"""Statistics of clothed, posed people. Arrays in, arrays out."""

from priors.joint_limits import JointLimits, joint_limits
from priors.pose import PosePrior
from priors.shape import log_prob_betas, sample_betas

__all__ = ["JointLimits", "PosePrior", "joint_limits", "log_prob_betas", "sample_betas"]
