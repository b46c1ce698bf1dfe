"""Training lifters: every shipped configuration runs a step, learning lowers the loss, resuming changes nothing."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
import yaml

from bodyreg import skeletons
from bodyreg.config import load, shipped_configs
from bodyreg.data.lifter_cameras import h36m_cameras, no_lens
from bodyreg.data.lifter_sets import About, LifterSet, write_lifter_set
from bodyreg.data.videopose import project_ground_truth
from bodyreg.lifter_weights import load_lifter
from bodyreg.models.lifters.registry import LIFTERS
from bodyreg.training.lifter_settings import LifterTraining
from bodyreg.training.lifters import Clips, LifterModule
from bodyreg.training.run import train

CONTENTS = {name: yaml.safe_load(path.read_text()) for name, path in shipped_configs().items()}
# An adaptation trains lifters, too, with settings of its own.
CONFIGS = [n for n, c in CONTENTS.items() if c["model"]["name"] in LIFTERS and "adaptation" not in c]
# Whatever a network calls its size, made small.
TINY = {
    "channels": 8, "width": 16, "hidden": 32, "rep": 16, "embed": 8, "heads": 2, "depth": 2, "layers": 2, "blocks": 1,
    "filter_widths": [3, 3], "frames": 9, "keep": 4, "layer_index": 1, "kernels": [3], "timesteps": 20,
    "sampling_timesteps": 2, "hypotheses": 2,
}  # fmt: skip


def moving_people(joint_set: str, frames: int = 20, subjects=("S1", "S9")) -> LifterSet:
    """A set of swaying figures before Human3.6M's cameras."""
    rng, count = np.random.default_rng(0), len(skeletons.get(joint_set))
    rest = rng.normal(0, 0.4, (count, 3)) + [0, 0, 1]
    time = np.arange(frames)[:, None, None] / 10
    joints = {
        (subject, action): (rest + 0.2 * np.sin(time + rng.uniform(0, 6, (count, 3)))).astype(np.float32)
        for subject in subjects
        for action in ("Walking 1", "Jog 1")
    }
    joint_set_ = skeletons.get(joint_set)
    cameras = {subject: h36m_cameras()[subject] for subject in subjects}
    about = About("h36m", "projected", joint_set, joint_set, 50.0, ["S1"], ["S9"], joint_set_.root, joint_set_.mirror,
                  joint_set_.mirror, [c.name for c in cameras["S1"]], "h36m-lift-17")  # fmt: skip
    return project_ground_truth(about, joints, cameras)


def write(tmp_path, joint_set: str = "h36m-17", **options) -> str:
    return str(write_lifter_set(tmp_path / f"{joint_set}.npz", moving_people(joint_set, **options)))


def tiny(name: str, tmp_path) -> list[str]:
    settings = load(LifterTraining, name)
    entry = LIFTERS[settings.model.name]
    known = entry.options(settings.model)
    options = {key: value for key, value in TINY.items() if key in known}
    if "hidden" in known and known["hidden"] == 0:
        del options["hidden"]
    return [
        f"data.prepared={write(tmp_path, settings.model.joint_set)}", "data.batch_size=2", "data.stride=0",
        *(f"model.options.{key}={value}" for key, value in options.items()), "run.max_steps=1",
        "run.validation_sequences=1", "run.accelerator=cpu", f"run.out={tmp_path / 'run'}",
    ]  # fmt: skip


@pytest.mark.parametrize("name", CONFIGS)
def test_every_configuration_runs_a_step(name, tmp_path):
    weights = train(name, tiny(name, tmp_path), progress=False)
    loaded = load_lifter(weights)
    assert loaded.facts["trained_steps"] == "1" and loaded.settings.name == load(LifterTraining, name).model.name
    assert all(p.isfinite().all() for p in loaded.network.parameters())


def test_there_is_a_configuration_for_every_published_system():
    systems = {"videopose3d", "mixste", "ktpformer", "ktpformer_diffusion", "motionbert", "mhformer", "motionagformer",
               "hot_mixste", "tpc_mixste", "hot_motionbert", "hot_motionagformer", "tpc_mhformer", "gla_gcn",
               "gla_gcn_paper", "convformer"}  # fmt: skip
    assert systems <= {load(LifterTraining, name).model.name for name in CONFIGS}


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("videopose3d", {"filter_widths": [3, 3], "channels": 32, "dropout": 0.0}),
        ("hot_mixste", {"frames": 9, "width": 16, "depth": 2, "keep": 4, "layer_index": 1, "drop_path": 0.0}),
        ("tpc_mixste", {"frames": 9, "width": 16, "depth": 2, "keep": 4, "layer_index": 1, "drop_path": 0.0}),
        ("gla_gcn_paper", {"filter_widths": [3, 3], "channels": 8, "dropout": 0.0}),
    ],
)
def test_learning_lowers_the_loss(name, options, tmp_path):
    torch.manual_seed(0)
    settings = LifterTraining()
    settings.model.name, settings.model.options = name, options
    settings.data.prepared, settings.data.batch_size = write(tmp_path), 12
    settings.data.scheme = "frame" if LIFTERS[name].output == "centre" else "chunks"
    settings.loss.sequence = 1.0 if name == "gla_gcn_paper" else 0.0
    clips = Clips(settings)
    module = LifterModule(settings, 1, clips.table.mirror_in, clips.table.mirror_out).train()
    (batch, *_) = list(clips.batches())
    optimiser = torch.optim.Adam(module.parameters(), 2e-3)
    values = []
    for _ in range(30):
        optimiser.zero_grad()
        loss = torch.stack(list(module.losses(batch).values())).sum()
        loss.backward()
        optimiser.step()
        values.append(loss.item())
    assert values[-1] < 0.6 * values[0]


def test_a_resumed_run_ends_with_the_same_weights(tmp_path):
    common = [o for o in tiny("gla_gcn", tmp_path) if "max_steps" not in o and "run.out" not in o]
    common += ["run.checkpoint_every=3", "run.validate_every=100", "optimiser.lr=0.003"]
    whole = train("gla_gcn", [*common, "run.max_steps=6", f"run.out={tmp_path / 'a'}"], progress=False)
    train("gla_gcn", [*common, "run.max_steps=3", f"run.out={tmp_path / 'b'}"], progress=False)
    resumed = train("gla_gcn", [*common, "run.max_steps=6", f"run.out={tmp_path / 'b'}"], progress=False)
    first, second = (load_lifter(path).network.state_dict() for path in (whole, resumed))
    for name, value in first.items():
        torch.testing.assert_close(second[name], value, msg=name)


def test_the_momentum_of_norms_falls_but_not_that_of_shortcuts(tmp_path):
    settings = load(LifterTraining, "gla_gcn", ["model.options.channels=8", "model.options.filter_widths=[3]"])
    module = LifterModule(settings, 1, (), ())
    type(module).epoch, kept = property(lambda self: 40), type(module).epoch
    try:
        module.on_train_batch_start(None, 0)
    finally:
        type(module).epoch = kept
    momenta = {name: m.momentum for name, m in module.model.named_modules() if isinstance(m, torch.nn.BatchNorm2d)}
    assert momenta["expand_gcn.gcn1.bn"] == pytest.approx(0.01) and momenta["expand_gcn.residual.bn"] == 0.1


def test_fine_tuning_begins_with_the_weights_of_a_file(tmp_path):
    options = tiny("videopose3d", tmp_path)
    weights = train("videopose3d", options, progress=False)
    again = [o for o in options if "run.out" not in o] + [
        f"run.start_from={weights}", "optimiser.lr=1e-12", f"run.out={tmp_path / 'second'}",
    ]  # fmt: skip
    second = load_lifter(train("videopose3d", again, progress=False)).network.state_dict()
    for name, value in load_lifter(weights).network.state_dict().items():
        if name.endswith("weight"):
            torch.testing.assert_close(second[name], value, atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["data.scheme=middle"], "Choose one of chunks"),
        (["data.scheme=chunks"], "Use frame"),
        (["optimiser.name=sgd"], "Choose one of adamw"),
        (["optimiser.lr=0"], "Give a rate above 0"),
        (["loss.mpjpe=0"], "No loss has a factor above 0"),
        (["run.epochs=0"], "Give at least 1"),
        (["data.prepared=nowhere.npz"], "bodyreg prepare motion"),
        (["model.options.chanels=3"], "Did you mean 'channels'"),
        (["model.preset=9"], "has no preset '9'"),
    ],
)
def test_settings_that_cannot_end_well_are_refused(overrides, message):
    with pytest.raises(ValueError, match=message):
        train("videopose3d", overrides, progress=False)


def test_data_of_another_joint_set_are_refused(tmp_path):
    settings = load(LifterTraining, "videopose3d", [f"data.prepared={write(tmp_path, 'humaneva-15')}"])
    with pytest.raises(ValueError, match="Set model.input_set and model.joint_set"):
        Clips(settings)


def test_sets_without_a_lens_train_too(tmp_path):
    seen = moving_people("h36m-17")
    cameras = {who: tuple(replace(c, lens=no_lens()) for c in rig) for who, rig in seen.cameras.items()}
    prepared = replace(seen, cameras=cameras)
    settings = load(LifterTraining, "mixste", tiny("mixste", tmp_path))
    clips = Clips(settings, prepared)
    module = LifterModule(settings, 1, clips.table.mirror_in, clips.table.mirror_out)
    (batch, *_) = list(clips.batches())
    assert not batch["lens"].any() and module.losses(batch)["weighted_mpjpe"].isfinite()
