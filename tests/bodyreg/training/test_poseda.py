"""Adaptation in three stages: it helps on a shifted domain, each stage changes its own networks, runs resume."""

import json
import math

import numpy as np
import pytest
import torch

from bodyreg import config, lens, skeletons
from bodyreg.adapt.poseda.generators import PoseGenerator
from bodyreg.data.domain_pair import shifted_pair
from bodyreg.data.lifter_cameras import LensCamera
from bodyreg.data.lifter_sets import About, LifterSet, write_lifter_set
from bodyreg.lifter_weights import load_lifter
from bodyreg.models.lifters.simple_baseline import SimpleBaseline
from bodyreg.training import poseda
from bodyreg.training.poseda import Domain, adapt_lifter, fit, score, train_generator, train_poseda
from bodyreg.training.poseda_settings import PoseDASettings

# Height above the ground, forward and sideways of h36m-17 of somebody who stands with arms out, metres.
_STANDING = np.array(
    [
        [0, 0, 0.95], [-0.13, 0, 0.95], [-0.13, 0, 0.5], [-0.13, 0, 0.07], [0.13, 0, 0.95], [0.13, 0, 0.5],
        [0.13, 0, 0.07], [0, 0, 1.2], [0, 0, 1.45], [0, 0, 1.55], [0, 0, 1.7], [0.18, 0, 1.4], [0.46, 0, 1.4],
        [0.7, 0, 1.4], [-0.18, 0, 1.4], [-0.46, 0, 1.4], [-0.7, 0, 1.4],
    ]
)  # fmt: skip


def motion(people=("001", "002"), clips=3, frames=12) -> LifterSet:
    """A miniature of the motion benchmark: bodies that sway."""
    rng = np.random.default_rng(0)
    joints, cameras, keypoints = {}, {}, {}
    for person in people:
        for clip in range(clips):
            name = f"{person}_{clip:02d}"
            world = (_STANDING + 0.08 * rng.normal(size=(frames, 17, 3))).astype(np.float32)
            joints[name, person] = world
            turn = np.array([math.sqrt(0.5), -math.sqrt(0.5), 0, 0], np.float32)  # looks along +y
            eye = np.array([0, -4.0, 1.0], np.float32)
            view = LensCamera("0", (1000, 1000), turn, eye, np.array([2.3, 2.3, 0, 0, 0, 0, 0, 0, 0], np.float32))
            cameras[name] = (view,)
            keypoints[name, person, 0] = view.pixels(view.camera_from_world(world))
    names = sorted(cameras)
    mirror = skeletons.get("h36m-17").mirror
    about = About("motion", "gt", "h36m-17", "h36m-17", 30.0, names, names[-1:], 0, mirror, mirror, ["0"])
    return LifterSet(about, cameras, keypoints, joints)


def domain(n: int, seed: int, scale: float = 1.0, focal: float = 2.0, depth: float = 4.0) -> Domain:
    """Random bodies of one size before one camera."""
    g = torch.Generator().manual_seed(seed)
    standing = torch.tensor(np.delete(_STANDING, 9, 0), dtype=torch.float32)[:, [0, 2, 1]] * torch.tensor([1.0, -1, 1])
    angle = 1.6 * torch.rand(n, generator=g) - 0.8
    turn = torch.zeros(n, 3, 3)
    turn[:, 0, 0] = turn[:, 2, 2] = angle.cos()
    turn[:, 0, 2], turn[:, 2, 0], turn[:, 1, 1] = angle.sin(), -angle.sin(), 1
    pose = scale * (standing + 0.05 * torch.randn(n, 16, 3, generator=g)) @ turn
    joints = pose - pose[:, :1] + torch.tensor([0, 0, depth]) + 0.3 * torch.randn(n, 1, 3, generator=g)
    camera = torch.tensor([focal, focal, 0, 0, 0, 0, 0, 0, 0]).expand(n, 9)
    return Domain(joints, lens.project_linear(joints, camera[:, None]), camera)


def small(**changes) -> PoseDASettings:
    settings = PoseDASettings()
    settings.lpa.batch_size = settings.adapt.batch_size = settings.pretrain.batch_size = 64
    settings.lpa.epochs, settings.adapt.epochs, settings.pretrain.epochs = 1, 12, 1
    settings.adapt.lr = 1e-3
    for name, value in changes.items():
        section, key = name.split("__")
        setattr(getattr(settings, section), key, value)
    return settings


def trained(source: Domain, epochs: int = 40) -> SimpleBaseline:
    torch.manual_seed(0)
    lifter = SimpleBaseline(16, 96, 1, dropout=0.1)
    optimiser, rng = torch.optim.Adam(lifter.parameters(), 1e-3), torch.Generator().manual_seed(0)
    for _ in range(epochs):
        fit(lifter, source.keypoints, source.rooted, optimiser, 64, rng)
    return lifter


def test_moving_poses_to_the_target_lowers_its_error():
    """The target's people are as large but nearer, through a wider lens: the source's sizes mislead."""
    source, pool, test = domain(800, 0), domain(200, 1, focal=1.2, depth=3.0), domain(200, 2, focal=1.2, depth=3.0)
    lifter = trained(source)
    before = score(lifter, test)
    adapt_lifter(lifter, None, source, pool, small())
    after = score(lifter, test)
    assert after["MPJPE"] < 0.9 * before["MPJPE"] and after["PCK"] >= before["PCK"]


def test_each_stage_changes_its_own_networks_and_stays_finite():
    source, pool = domain(200, 0), domain(80, 1)
    torch.manual_seed(0)
    generator, lifter = PoseGenerator(32), trained(source, 1)
    frozen = {k: v.clone() for k, v in lifter.state_dict().items()}
    start = {k: v.clone() for k, v in generator.state_dict().items()}
    train_generator(generator, source, pool, small())
    assert all(torch.equal(frozen[k], v) for k, v in lifter.state_dict().items())
    assert any(not torch.equal(start[k], v) for k, v in generator.state_dict().items())
    assert all(v.isfinite().all() for v in generator.state_dict().values())
    after = {k: v.clone() for k, v in generator.state_dict().items()}
    adapt_lifter(lifter, generator, source, pool, small(adapt__epochs=1))
    assert all(torch.equal(after[k], v) for k, v in generator.state_dict().items())
    assert any(not torch.equal(frozen[k], v) for k, v in lifter.state_dict().items())


def test_poses_moved_to_the_sources_own_images_look_like_them():
    source = domain(1500, 0)
    rng = torch.Generator().manual_seed(0)
    keypoints, joints = poseda.moved_poses(source, source, None, 0.0, rng, small().adapt)
    assert len(keypoints) > 1400 and joints[:, 0].eq(0).all()
    box = lambda x: (x.amax(1) - x.amin(1)).sum(-1).sort().values  # noqa: E731
    a, b = box(keypoints), box(source.keypoints)
    at = torch.cat([a, b]).sort().values
    gap = torch.searchsorted(a, at, right=True) / len(a) - torch.searchsorted(b, at, right=True) / len(b)
    assert gap.abs().max() < 0.05


def test_a_run_from_its_configuration_resumes_and_scores(tmp_path):
    source, target = shifted_pair(motion())
    write_lifter_set(tmp_path / "source.npz", source)
    write_lifter_set(tmp_path / "target.npz", target)
    overrides = [
        f"data.source={tmp_path}/source.npz", f"data.target={tmp_path}/target.npz", f"run.out={tmp_path}/run",
        "model.preset=small", "model.options={width: 32, stages: 1}", "pretrain.epochs=2", "lpa.epochs=1",
        "adapt.epochs=1", "pretrain.batch_size=16", "lpa.batch_size=16", "adapt.batch_size=16",
    ]  # fmt: skip
    weights = train_poseda("poseda", overrides, progress=False)
    first = load_lifter(weights).network.state_dict()
    scores = json.loads((tmp_path / "run" / "scores.json").read_text())
    assert set(scores) == {"source only", "GPA and LPA"}
    assert all(np.isfinite(value) for line in scores.values() for value in line.values())
    before = (tmp_path / "run" / "source_only.pt").stat().st_mtime_ns
    weights.unlink()
    (tmp_path / "run" / "adapted.pt").unlink()
    again = load_lifter(train_poseda("poseda", overrides, progress=False)).network.state_dict()
    assert all(torch.equal(first[key], value) for key, value in again.items())
    assert (tmp_path / "run" / "source_only.pt").stat().st_mtime_ns == before


def test_nobody_is_in_both_domains():
    source, target = shifted_pair(motion(("001", "002", "003")))
    persons = [{clip.split("_")[0] for clip in [*s.about.train, *s.about.test]} for s in (source, target)]
    assert persons == [{"001", "003"}, {"002"}]
    assert not set(target.about.train) & set(target.about.test)
    height = [np.ptp(next(iter(s.joints.values()))[..., 2]) for s in (source, target)]
    assert height[1] < 0.95 * height[0]
    with pytest.raises(ValueError, match="1 person"):
        shifted_pair(motion(("001",)))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("adaptation=posedad", "no adaptation"),
        ("model.input_set=h36m-17", "works on h36m-16"),
        ("model.name=videopose3d", "sees 243 frames"),
        ("lpa.probability=2", "from 0 to 1"),
        ("adapt.epochs=0", "at least 1"),
        ("data.source=nowhere.npz", "no prepared set"),
    ],
)
def test_settings_that_lead_nowhere_are_refused(tmp_path, override, message):
    presets = ["model.preset=''"] if "videopose" in override else []
    with pytest.raises(ValueError, match=message):
        train_poseda("poseda", [f"run.out={tmp_path}", *presets, override], progress=False)


def test_shipped_configuration_is_the_default():
    assert config.load(PoseDASettings, "poseda").run.out == "runs/poseda"
