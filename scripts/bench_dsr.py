"""What semantic rendering costs in a training step of the joint system: compact member, cached batches.

    python scripts/bench_dsr.py [--batch 32] [--crop 192] [--maps 96] [--repeats 5] [--threads 2] [--backend cpu]

A step is forward, inverse kinematics, body, all losses and backward; its semantic part is what it costs more than the
same step without DSR terms. The least time of the repeats counts, taken in turns, since other work on the machine only
adds. On a processor the seconds are those it worked for this process, on a GPU those that passed.
"""

from __future__ import annotations

import argparse
import tempfile
import time

import torch

from bodyreg import config
from bodyreg.body import BodyModel
from bodyreg.data.synthetic.prepare import prepare_synthetic
from bodyreg.data.synthetic.stream import ShardStream
from bodyreg.training.perspose_dsr import JointModule, JointSettings


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, value in (("batch", 32), ("crop", 192), ("maps", 96), ("repeats", 5), ("threads", 2)):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--backend", default=None)
    parser.add_argument("--preset", default="corrected")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--prior", default=None, help="a file, or skinning")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    settings = config.load(JointSettings, "perspose_dsr")
    settings.semantic.image_size, settings.semantic.warmup_steps = options.maps, 0
    settings.semantic.preset, settings.semantic.prior = options.preset, options.prior
    settings.renderers.backend = options.backend
    body, device = BodyModel.load("free"), torch.device(options.device)
    system = JointModule(settings, body).to(device).train()
    with tempfile.TemporaryDirectory() as folder:
        prepare_synthetic(folder, options.batch, per_shard=options.batch, seed=0, progress=False)
        stream = ShardStream(folder, body, crop_size=options.crop, batch_size=options.batch, bank_size=4, parsing=True)
        batch = {name: value.to(device) for name, value in stream.batch(0).items()}

    def step(semantic: bool) -> float:
        settings.semantic.start_epoch = -1 if semantic else 10
        if device.type == "cuda":
            torch.cuda.synchronize()
        clock = time.perf_counter if device.type == "cuda" else time.process_time
        start = clock()
        with torch.autocast(device.type, torch.bfloat16):
            terms = system.terms(batch, 0)
        system.zero_grad()
        torch.stack([value for name, value in terms.items() if not name.startswith("log_")]).sum().backward()
        if device.type == "cuda":
            torch.cuda.synchronize()
        return clock() - start

    for semantic in (True, False):
        step(semantic)  # compile and warm up
    seconds: dict[bool, list[float]] = {True: [], False: []}
    for _ in range(options.repeats):
        for semantic, values in seconds.items():
            values.append(step(semantic))
    whole, without = min(seconds[True]), min(seconds[False])
    print(
        f"batch {options.batch}, crops {options.crop}, maps {options.maps}, {options.preset}, {device}, "
        f"{options.threads} threads: step {whole:.2f} s, without DSR {without:.2f} s, "
        f"semantic part {100 * (1 - without / whole):.0f} %"
    )


if __name__ == "__main__":
    main()
