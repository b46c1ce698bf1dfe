"""What runs with semantic rendering share: the renderer's settings, the prior on a body, the weighted DSR terms.

`train_semantic` is the way from a configuration to weights: DSR's own regressor (model.name dsr), or a PersPose member
with a `semantic` section, the joint system.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import lightning
import torch
from torch import Tensor, nn

from bodyreg import config
from bodyreg.body import BodyModel
from bodyreg.losses.semantic import SemanticSettings, dsr_losses
from priors.clothing import ClothingPrior

__all__ = ["RendererSettings", "SemanticTerms", "prior_of", "train_semantic"]


@dataclass
class RendererSettings:
    """Which renderer draws the maps."""

    backend: str | None = None
    """One of renderers.rasterize.BACKENDS, or pytorch3d where it is installed; null takes the fastest of ours."""


def prior_of(body: BodyModel, source: str | None = None) -> Tensor:
    """(F, 20) float32 clothing prior of a body's faces.

    Args:
        source: see `SemanticSettings.prior`.

    Raises:
        ValueError: a file of another body, or none at all.
    """
    faces, weights = body.faces.cpu().numpy(), body.weights.detach().cpu().numpy()
    if source == "skinning":
        prior = ClothingPrior.from_weights(weights, faces)
    elif source is None:
        rest, joints = body.v_template.detach().cpu().numpy(), body.rest_joints()[0].detach().cpu().numpy()
        prior = ClothingPrior.load().transfer(rest, faces, joints, weights)
    else:
        prior = ClothingPrior.load(source, faces=len(faces))
        prior.check_faces(faces)
    return torch.from_numpy(prior.probabilities.copy())


class SemanticTerms(nn.Module):
    """DSR-MC and DSR-C of a batch, weighted by the settings and by how far the run has come.

    Args:
        settings, renderer: of the run. body: whose faces are rendered.
    """

    prior: Tensor
    faces: Tensor

    def __init__(self, settings: SemanticSettings, renderer: RendererSettings, body: BodyModel) -> None:
        super().__init__()
        self.settings, self.options, self.backend = settings, settings.options(), renderer.backend
        self.register_buffer("prior", prior_of(body, settings.prior), persistent=False)
        self.register_buffer("faces", body.faces.clone(), persistent=False)

    def active(self, epoch: int) -> bool:
        """Is anything to be rendered in this epoch?"""
        return self.settings.factor(epoch) > 0 and (self.settings.mc_weight > 0 or self.settings.c_weight > 0)

    def forward(self, points: Tensor, labels: Tensor, epoch: int, steps_since_start: int = 0) -> dict[str, Tensor]:
        """Terms by name, none before the start; arguments as of `losses.semantic.dsr_losses`.

        Both terms carry their weights. The names of figures that are only logged begin with `log_`.
        """
        if not self.active(epoch):
            return {}
        found = dsr_losses(points.float(), self.faces, self.prior, labels, self.options, backend=self.backend)
        factor = self.settings.factor(epoch, steps_since_start)
        return {
            "dsr_mc": factor * self.settings.mc_weight * found.mc,
            "dsr_c": factor * self.settings.c_weight * found.c,
            "log_dsr_mc": found.mc.detach(),
            "log_dsr_c": found.c.detach(),
            "log_dsr_rendered": found.rendered.float().mean(),
        }


def train_semantic(source: str | Path, overrides: Iterable[str] = (), *, progress: bool = True) -> Path:
    """Train what a configuration with semantic losses describes; arguments and result as of `run.train`.

    Raises:
        ValueError: settings that no run could end well with. MissingFileError: SMPL was asked for and is not found.
    """
    from bodyreg.training.dsr import DSRModule, DSRSettings, people_of
    from bodyreg.training.perspose_dsr import JointModule, JointSettings
    from bodyreg.training.regressor import SyntheticData
    from bodyreg.training.run import fit, render_people

    overrides = list(overrides)
    if config.model_name(source) == "dsr":
        settings = config.load(DSRSettings, source, overrides)
        settings.check()
        if not settings.sets:
            render_people(settings, progress=progress)
        lightning.seed_everything(settings.run.seed, verbose=False)
        body = BodyModel.load(settings.body)
        module = DSRModule(settings, body)
        people, options = people_of(settings, body)
        return fit(settings, module, people, body=body.name, progress=progress, **options)
    joint = config.load(JointSettings, source, overrides)
    joint.check()
    render_people(joint, progress=progress)
    lightning.seed_everything(joint.run.seed, verbose=False)
    body = BodyModel.load("free")
    return fit(joint, JointModule(joint, body), SyntheticData(joint, body, parsing=True), progress=progress)
