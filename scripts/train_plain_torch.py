"""The joint system of configs/perspose_dsr.yaml in plain PyTorch, for people who bring their own training loop.

    python scripts/train_plain_torch.py [section.key=value ...]

No Lightning and no module of ours around the loop: a network, synthetic people, and functions that give loss terms.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from bodyreg import config
from bodyreg.body import BodyModel
from bodyreg.checkpoints import save_weights
from bodyreg.data.synthetic.stream import ShardStream
from bodyreg.models.registry import build
from bodyreg.training.perspose_dsr import JointSettings, joint_terms
from bodyreg.training.run import render_people
from bodyreg.training.semantic import SemanticTerms


def main(overrides: list[str]) -> Path:
    settings = config.load(JointSettings, "perspose_dsr", overrides)
    settings.check()
    run, data = settings.run, settings.data
    render_people(settings)
    torch.manual_seed(run.seed)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    body = BodyModel.load("free").to(device)
    model = build(settings.model).to(device).train()
    semantic = SemanticTerms(settings.semantic, settings.renderers, body).to(device)
    optimiser = torch.optim.AdamW(model.parameters(), lr=settings.optimiser.lr)
    people = ShardStream(
        data.shards, BodyModel.load("free"), crop_size=data.crop_sizes[-1], batch_size=data.batch_size, seed=run.seed,
        bank_size=data.bank_size, parsing=True,
    )  # fmt: skip
    for step, batch in zip(range(run.steps), people, strict=False):
        batch = {name: value.to(device) for name, value in batch.items()}
        terms = joint_terms(model, body, semantic, batch, step, settings)
        loss = torch.stack([value for name, value in terms.items() if not name.startswith("log_")]).sum()
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), settings.optimiser.clip)
        optimiser.step()
        print(f"step {step}: loss {float(loss.detach()):.3f}, DSR-MC {float(terms.get('log_dsr_mc', 0)):.3f}")
    weights = Path(run.out) / f"{settings.model.name}.safetensors"
    save_weights(weights, model, settings.model, trained_steps=run.steps, seed=run.seed)
    return weights


if __name__ == "__main__":
    print(main(sys.argv[1:]))
