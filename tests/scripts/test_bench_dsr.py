"""The benchmark of semantic rendering times a part of the very step it reports, and changes nothing of it."""

import time

import torch

from bodyreg import config
from bodyreg.body import BodyModel
from bodyreg.data.synthetic.prepare import prepare_synthetic
from bodyreg.data.synthetic.stream import ShardStream
from bodyreg.training.perspose_dsr import JointModule, JointSettings, joint_terms

TINY = [
    "model.widths=[8,8,16,16]", "model.depths=[1,1,1,1]", "model.map_channels=8", "model.crop_size=64",
    "semantic.image_size=24", "semantic.warmup_steps=0", "semantic.prior=skinning",
]  # fmt: skip


def test_timing_leaves_the_gradient_as_it_is(load_scripts, tmp_path):
    (bench,) = load_scripts("bench_dsr")
    settings, body = config.load(JointSettings, "perspose_dsr", TINY), BodyModel.load("free")
    torch.manual_seed(0)
    module = JointModule(settings, body).eval()  # statistics of batches would move between the two steps
    prepare_synthetic(tmp_path, 2, per_shard=2, seed=0, progress=False)
    batch = ShardStream(tmp_path, body, crop_size=64, batch_size=2, bank_size=2, parsing=True).batch(0)
    gradients = []
    timed = bench.Timed(module.semantic, time.process_time)
    for semantic in (module.semantic, timed):
        module.zero_grad()
        terms = joint_terms(module.model, body, semantic, batch, 0, settings)
        sum(value for name, value in terms.items() if not name.startswith("log_")).backward()
        gradients.append(torch.cat([p.grad.flatten() for p in module.parameters() if p.grad is not None]))
    assert torch.allclose(*gradients, rtol=1e-3, atol=1e-4 * float(gradients[0].abs().max()))
    assert timed.forward > 0 and timed.backward > 0 and timed.rendered > 0


def test_figures_are_printed_for_each_size_of_maps(load_scripts, capsys):
    (bench,) = load_scripts("bench_dsr")
    line = ["--batch", "2", "--crop", "64", "--repeats", "1", "--weights", "none", "--prior", "skinning", "--maps"]
    line += ["16", "24", "--precision", "32-true", *(part for value in TINY[:4] for part in ("--set", value))]
    costs = bench.main(line)
    assert set(costs) == {16, 24} and all(0 < cost.share < 1 for cost in costs.values())
    said = capsys.readouterr().out.splitlines()
    assert len(said) == 2 and all("% of the step" in text for text in said)
