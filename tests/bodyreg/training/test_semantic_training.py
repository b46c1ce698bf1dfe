"""Training with semantic rendering: both configurations by name, the joint system's gradients, SPIN's data files."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from omegaconf import OmegaConf

from bodyreg import config
from bodyreg.body import BodyModel
from bodyreg.checkpoints import load_model, read_header
from bodyreg.data import spin
from bodyreg.data.parsing import write_parsing
from bodyreg.data.synthetic.stream import ShardStream
from bodyreg.training import dsr, perspose_dsr
from bodyreg.training.run import train
from bodyreg.training.semantic import prior_of

SMALL = {
    "perspose_dsr": [
        "model.widths=[8,8,16,16]", "model.depths=[1,1,1,1]", "model.map_channels=8", "model.crop_size=64",
        "data.crop_sizes=[64]", "data.phase_ends=[1.0]", "semantic.image_size=24",
    ],
    "dsr": ["model.backbone=resnet18", "semantic.image_size=28"],
}  # fmt: skip
COMMON = [
    "data.batch_size=2", "data.bank_size=2", "data.people=6", "data.held_out_people=6", "run.accelerator=cpu",
    "run.validation_people=4", "run.steps=1", "run.validate_every=1", "run.threads=1", "semantic.warmup_steps=0",
    "semantic.prior=skinning",
]  # fmt: skip


def semantic_configs() -> list[str]:
    return [name for name, path in config.shipped_configs().items() if "semantic" in OmegaConf.load(path)]


def test_there_are_two() -> None:
    assert set(semantic_configs()) == set(SMALL)


@pytest.mark.parametrize("name", semantic_configs())
def test_every_configuration_takes_a_step_in_an_empty_folder(name, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    weights = train(name, [*COMMON, *SMALL[name]], progress=False)
    header = read_header(weights)
    assert (header["trained_steps"], header["body"]) == ("1", "free")
    assert load_model(weights).settings.name == ("dsr" if name == "dsr" else "perspose_small")
    assert list((weights.parent / "logs").glob("events*"))


@pytest.fixture(scope="module")
def joint(tmp_path_factory):
    """A joint module and a batch of clothed people with parsing maps."""
    from bodyreg.data.synthetic.prepare import prepare_synthetic

    folder = tmp_path_factory.mktemp("people")
    prepare_synthetic(folder, 6, per_shard=6, seed=3, progress=False)
    settings = config.load(
        perspose_dsr.JointSettings, "perspose_dsr", [*SMALL["perspose_dsr"], *COMMON, "semantic.image_size=48"]
    )
    torch.manual_seed(0)
    body = BodyModel.load("free")
    stream = ShardStream(folder, body, crop_size=64, batch_size=4, bank_size=2, parsing=True)
    return perspose_dsr.JointModule(settings, body), stream.batch(0)


def test_truth_decoded_is_the_body_that_was_seen(joint) -> None:
    """A network that knew everything would render the person exactly where the parsing map has it."""
    from dataclasses import replace

    from bodyreg.losses.semantic import PRESETS, dsr_losses

    module, batch = joint
    body = module._body[0]
    R = batch["R_global"]
    local = torch.cat([R[:, :1], R[:, perspose_dsr.PARENTS[1:]].mT @ R[:, 1:]], 1)
    posed = body(batch["betas"], local[:, 1:], local[:, 0])
    shift = batch["joints"][:, :1] - posed.joints[:, :1]
    options = replace(PRESETS["corrected"], image_size=64, mc_region="person")

    def at(dx: float):
        moved = posed._replace(vertices=posed.vertices + shift + torch.tensor([dx, 0, 0]), joints=posed.joints + shift)
        points = perspose_dsr.seen_bodies(moved, batch["K_crop"], 64)
        return dsr_losses(points, body.faces, module.semantic.prior, batch["parsing"], options)

    best, left, right = at(0), at(-0.15), at(0.15)
    sides(module, batch, posed._replace(vertices=posed.vertices + shift, joints=posed.joints + shift))
    assert bool(best.rendered.any())
    assert float(best.mc) < float(left.mc) and float(best.mc) < float(right.mc)


def sides(module, batch, posed) -> None:
    """Left arms in the map lie where the body's left arm is, in mirrored views too."""
    from bodyreg.cameras import project
    from priors.clothing_labels import LABELS

    pixels = project(posed.joints, batch["K_crop"])
    checked = 0
    for number, wrist in ((LABELS.index("leftArm"), 20), (LABELS.index("rightArm"), 21)):
        for k, picture in enumerate(batch["parsing"]):
            at = (picture == number).nonzero()
            other = pixels[k, 41 - wrist]
            if len(at) > 20 and float((pixels[k, wrist] - other).norm()) > 16:
                mean = at.flip(-1).float().mean(0)
                assert float((mean - pixels[k, wrist]).norm()) < float((mean - other).norm())
                checked += 1
    assert checked


@pytest.mark.parametrize("camera", ["true", "weak"])
def test_semantic_terms_reach_every_head_through_inverse_kinematics(joint, camera) -> None:
    module, batch = joint
    module.settings.camera = camera
    terms = module.terms(batch, 0)
    assert {"heatmap", "depth", "body_keypoints", "body_pose", "body_vertices", "dsr_mc", "dsr_c"} <= set(terms)
    module.zero_grad()
    (terms["dsr_mc"] + terms["dsr_c"]).backward()
    heads = ("hm_layer", "depth_layer_global", "rho0_layer", "twist_layer", "shape_layer", "leaf_rot_layer")
    for name in heads:
        gradient = getattr(module.model, name).weight.grad
        assert gradient is not None and bool(gradient.isfinite().all()) and float(gradient.abs().sum()) > 0, name
    module.settings.camera = "true"


def test_every_shape_number_is_pushed_only_where_it_changes_the_body(joint) -> None:
    """One whose derivative is passed on from a search has no say in the body, and drifts without end."""
    module, batch = joint
    with torch.no_grad():
        _, decoded = perspose_dsr.regress(module.model, batch)
    weights = torch.randn(6890, 3, generator=torch.Generator().manual_seed(5))
    score = lambda betas: (  # noqa: E731
        perspose_dsr.posed_bodies(module._body[0], decoded._replace(beta=betas)).vertices * weights
    ).sum((1, 2))
    betas = decoded.beta.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(score(betas).sum(), betas)
    with torch.no_grad():
        for k in (0, 1):
            step = torch.zeros_like(betas)
            step[:, k] = 0.02
            torch.testing.assert_close(
                gradient[:, k], (score(betas + step) - score(betas - step)) / 0.04, rtol=0.05, atol=0.2
            )


def test_people_without_labels_in_three_dimensions_teach_by_key_points_and_parsing_alone(joint) -> None:
    module, batch = joint
    module.settings.labelled = 0.0
    terms = module.terms(batch, 0)
    module.settings.labelled = 1.0
    assert set(terms) == {"heatmap", "uv", "body_keypoints"} | {n for n in terms if "dsr" in n}
    betas = torch.randn(2000, 10, generator=torch.Generator().manual_seed(0))
    known = perspose_dsr.labelled(betas, 0.3)
    assert abs(float(known.float().mean()) - 0.3) < 0.05
    assert torch.equal(known.flip(0), perspose_dsr.labelled(betas.flip(0), 0.3))


def spin_files(root: Path, people: int = 3) -> Path:
    rng = np.random.default_rng(0)
    names = [f"images/p_{k}.jpg" for k in range(people)]
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), rng.integers(0, 255, (120, 90, 3), dtype=np.uint8))
        labels = np.zeros((120, 90), np.uint8)
        labels[20:100, 20:70] = 5
        labels[30:60, 10:20] = 14
        write_parsing(spin.parsing_path(root, name), labels)
    keypoints = np.concatenate([rng.uniform(20, 90, (people, 24, 2)), np.ones((people, 24, 1))], -1)
    return spin.write_spin(
        root / "set.npz",
        {
            "imgname": np.array(names), "center": np.full((people, 2), [45.0, 60]), "scale": np.full(people, 0.5),
            "part": keypoints, "pose": rng.normal(0, 0.2, (people, 72)), "shape": rng.normal(0, 1, (people, 10)),
        },
    )  # fmt: skip


def test_the_regressor_trains_on_data_files_in_spins_layout(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    npz = spin_files(tmp_path / "set")
    weights = train(
        "dsr", [*COMMON, *SMALL["dsr"], f"sets={{own: {npz}}}", f"roots={{own: {tmp_path / 'set'}}}", "run.steps=2",
                "epochs=3"], progress=False,
    )  # fmt: skip
    assert read_header(weights)["trained_steps"] == "2"


def test_settings_that_cannot_be_meant_are_refused() -> None:
    for overrides, message in (
        (["sets={a: x.npz}"], "root"), (["body=smpl"], "free body"), (["data.crop_sizes=[192]"], "224"),
        (["semantic.preset=paper"], "preset"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=message):
            config.load(dsr.DSRSettings, "dsr", overrides).check()
    for overrides, message in ((["labelled=2"], "labelled"), (["camera=far"], "camera")):
        with pytest.raises(ValueError, match=message):
            config.load(perspose_dsr.JointSettings, "perspose_dsr", overrides).check()


def test_a_prior_with_the_wrong_number_of_faces_is_refused(tmp_path) -> None:
    np.save(tmp_path / "prior.npy", np.full((1, 100, 20), 0.05, np.float32))
    with pytest.raises(ValueError, match="faces"):
        prior_of(BodyModel.load("free"), str(tmp_path / "prior.npy"))
