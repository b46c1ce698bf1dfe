"""Training runs: in an empty folder, resumed as if never stopped, learning, or refused before they waste time."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

from bodyreg import config
from bodyreg.checkpoints import load_model, read_header
from bodyreg.data.synthetic.shards import load_shard
from bodyreg.data.synthetic.stream import ShardStream
from bodyreg.training import regressor
from bodyreg.training.regressor import RegressorModule, regressor_losses
from bodyreg.training.run import train
from bodyreg.training.settings import DataSettings, RegressorSettings, RunSettings

TINY = [
    "model.widths=[8,8,16,16]", "model.depths=[1,1,1,1]", "model.map_channels=8", "model.crop_size=64",
    "data.crop_sizes=[32,64]", "data.phase_ends=[0.5,1.0]", "data.batch_size=4", "data.bank_size=2",
    "run.accelerator=cpu", "run.validation_people=8", "optimiser.warmup_steps=2",
]  # fmt: skip


def synthetic_configs() -> list[str]:
    """Shipped configurations of runs on synthetic people: those that this schema can read."""
    keys = {name for name in OmegaConf.structured(DataSettings)}
    contents = {name: OmegaConf.load(path) for name, path in config.shipped_configs().items()}
    return [name for name, c in contents.items() if set(c.get("data", {})) <= keys and "semantic" not in c]


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def run(shard_folder, here):
    """Train on the shared shards with further overrides; the run's folder is `out` unless given."""

    def run(*overrides, source="perspose_small"):
        folders = [f"data.shards={shard_folder}", f"data.held_out={shard_folder}", "run.out=out"]
        return train(source, [*TINY, *folders, *overrides], progress=False)

    return run


def test_there_are_synthetic_configurations():
    assert "perspose_small" in synthetic_configs()


@pytest.mark.parametrize("name", synthetic_configs())
def test_every_configuration_takes_a_step_in_an_empty_folder(name, here, capfd):
    """By name: people are rendered, a step is made and validated in mixed precision, the weights load."""
    people = ["data.people=6", "data.held_out_people=6", "run.steps=1", "run.validate_every=1"]
    weights = train(name, [*TINY, *people], progress=False)
    loaded = load_model(weights)
    settings = config.load(RegressorSettings, weights.parent / "config.yaml")
    assert loaded.settings == settings.model and settings.run.precision == "bf16-mixed"
    header = read_header(weights)
    assert (header["trained_steps"], header["pictures_seen"], header["seed"]) == ("1", "4", "0")
    for folder in (settings.data.shards, settings.data.held_out):
        worn = {load_shard(path).garments for path in Path(folder).glob("*.npz")}
        assert worn == {settings.data.garments or "geometry"}
    assert list((weights.parent / "logs").glob("events*"))
    said = "".join(capfd.readouterr()).lower()
    assert not any(word in said for word in ("litlogger", "litmodels", "gpu available", "leafspec", "num_workers"))


def test_interrupted_and_resumed_equals_undisturbed(run, monkeypatch):
    """Killed after a checkpoint in the second phase: the same batches, and the same weights to the last bit."""
    seen: dict[str, list] = {"whole": [], "parts": []}
    real = RegressorModule.training_step

    def watched(name, stop_at=None):
        def training_step(self, batch, index):
            if self.global_step == stop_at:
                raise RuntimeError("killed")
            seen[name].append((self.global_step, batch["image"].clone()))
            return real(self, batch, index)

        monkeypatch.setattr(RegressorModule, "training_step", training_step)

    options = ("run.steps=6", "run.precision=32-true", "run.checkpoint_every=4", "run.validate_every=100")
    watched("whole")
    whole = load_model(run(*options, "run.out=whole")).model.state_dict()
    watched("parts", stop_at=5)
    with pytest.raises(RuntimeError, match="killed"):
        run(*options, "run.out=parts")
    watched("parts")
    parts = load_model(run(*options, "run.out=parts")).model.state_dict()
    steps = {step: image for step, image in seen["parts"]}
    assert [step for step, _ in seen["parts"]] == [0, 1, 2, 3, 4, 4, 5]
    assert all(torch.equal(steps[step], image) for step, image in seen["whole"])
    assert [image.shape[-1] for _, image in seen["whole"]] == [32, 32, 32, 64, 64, 64]
    assert all(torch.equal(value, parts[name]) for name, value in whole.items())


def test_finished_run_started_again_ends_at_once_with_the_same_weights(run):
    options = ("run.steps=2", "run.validate_every=100", "run.checkpoint_every=2", "run.precision=32-true")
    first = load_model(run(*options)).model.state_dict()
    again = load_model(run(*options)).model.state_dict()
    assert all(torch.equal(value, again[name]) for name, value in first.items())


def test_validation_scores_the_network_beside_the_mean_pose(run, people, monkeypatch):
    logged = {}
    real = RegressorModule.log_dict
    monkeypatch.setattr(
        RegressorModule, "log_dict", lambda self, values, **kw: logged.update(values) or real(self, values, **kw)
    )
    run("run.steps=1", "run.validate_every=1", "run.validation_people=10000")
    scores = {name: float(value) for name, value in logged.items() if name.startswith("val/")}
    assert set(scores) == {f"val/{who}{kind}_mm" for who in ("", "mean_pose_") for kind in ("mpjpe", "pa_mpjpe")}
    joints = torch.from_numpy(people.shard.labels["joints"])
    joints = joints - joints[:, :1]
    expected = 1000 * (joints - joints.mean(0)).norm(dim=-1).mean()
    assert scores["val/mean_pose_mpjpe_mm"] == pytest.approx(float(expected), rel=1e-4)
    assert scores["val/mpjpe_mm"] > scores["val/mean_pose_mpjpe_mm"] / 4


def test_loss_falls_on_eight_samples(shard_folder, free_body):
    torch.manual_seed(0)
    settings = config.load(RegressorSettings, "perspose_small", [*TINY, "optimiser.lr=2e-3"])
    module = RegressorModule(settings)
    options = module.configure_optimizers()
    batch = ShardStream(shard_folder, free_body, crop_size=64, batch_size=8, bank_size=2, augment=False).batch(0)
    weights = vars(settings.loss)
    first, seen = {}, []
    for _ in range(130):
        losses = regressor_losses(module.model, batch)
        total = sum(weights[name] * value for name, value in losses.items())
        seen.append({name: float(value.detach()) for name, value in losses.items()})
        first = first or seen[-1]
        options["optimizer"].zero_grad()
        total.backward()
        options["optimizer"].step()
    assert set(first) == set(weights)
    # The density leaps at this rate, first up and later to and fro: what the last steps reach at least is what counts.
    last = {name: min(losses[name] for losses in seen[-30:]) for name in first}
    fallen = {name: last[name] / first[name] for name in last}
    assert sum(weights[name] * (last[name] - 0.5 * first[name]) for name in last) < 0, fallen
    assert all(fallen[name] < 0.9 for name in ("uv", "depth", "density", "xyz", "twist", "leaf", "dense")), fallen
    assert fallen["heatmap"] < 0.995  # eight channels draw 25 maps: slow, but down


def test_every_weight_is_taught(shard_folder, free_body):
    settings = config.load(RegressorSettings, "perspose_small", TINY)
    module = RegressorModule(settings)
    batch = ShardStream(shard_folder, free_body, crop_size=32, batch_size=4, bank_size=2).batch(0)
    sum(regressor_losses(module.model, batch).values()).backward()
    assert not [name for name, p in module.named_parameters() if p.grad is None or not p.grad.isfinite().all()]
    assert not [name for name, p in module.named_parameters() if p.ndim > 1 and not p.grad.any()]


def test_rate_warms_up_and_decays():
    settings = replace(RegressorSettings(), run=RunSettings(steps=1000))
    settings.model.widths, settings.model.depths = [8] * 4, [1] * 4
    options = RegressorModule(settings).configure_optimizers()
    factor = options["lr_scheduler"]["scheduler"].lr_lambdas[0]
    assert factor(0) == pytest.approx(1 / 300) and factor(299) == pytest.approx(1)
    rates = [factor(step) for step in range(300, 1000)]
    assert rates == sorted(rates, reverse=True) and rates[0] == pytest.approx(1.001) and rates[-1] < 0.002
    decayed = {group["weight_decay"] for group in options["optimizer"].param_groups}
    assert decayed == {0.0, settings.optimiser.weight_decay}


@pytest.mark.parametrize(
    "override, reason",
    [
        ("data.phase_ends=[0.5,0.9]", "phase_ends is .* the last 1.0"),
        ("data.phase_ends=[1.0,0.5]", "phase_ends is"),
        ("data.phase_ends=[0.0,1.0]", "phase_ends is"),
        ("data.phase_ends=[1.0]", "crop_sizes has 2 numbers and data.phase_ends 1"),
        ("data.crop_sizes=[50,64]", "multiples of 32"),
        ("model.crop_size=100", "multiples of 32"),
        ("data.batch_size=0", "data.batch_size is 0"),
        ("run.steps=0", "run.steps is 0"),
        ("run.validation_people=-1", "run.validation_people is -1"),
    ],
)
def test_runs_that_could_not_end_well_are_refused_at_once(run, here, override, reason):
    with pytest.raises(ValueError, match=reason):
        run(override)
    assert not list(here.iterdir())


def test_stream_covers_every_step(shard_folder, free_body):
    """However the shares of the phases round, the last phase lasts to the last step."""
    for steps in (1, 2, 3, 7):
        settings = config.load(
            RegressorSettings, "perspose_small", [*TINY, f"data.shards={shard_folder}", f"run.steps={steps}"]
        )
        trainer = type("Trainer", (), {"global_step": 0, "global_rank": 0, "world_size": 1})()
        assert sum(1 for _ in regressor._Phases(settings, free_body, trainer)) == steps


def test_a_run_can_begin_with_the_weights_of_another(run, here):
    """Fine-tuning at a rate of zero gives the weights back, from a checkpoint and from a weights file of ours."""
    first = run("run.steps=2", "run.checkpoint_every=1", "run.out=first")
    still = ["run.steps=1", "optimiser.lr=0", "run.precision=32-true"]
    for source in ("first/checkpoints/last.ckpt", str(first)):
        again = run(*still, f"run.start_from={source}", f"run.out=again_{Path(source).suffix[1:]}")
        kept = dict(load_model(again).model.named_parameters())
        assert all(torch.equal(value, kept[name]) for name, value in load_model(first).model.named_parameters())
    with pytest.raises(ValueError, match="does not fit the network: .* Give weights of the same settings"):
        run("run.steps=1", f"run.start_from={first}", "run.out=other", "model.map_channels=16")
