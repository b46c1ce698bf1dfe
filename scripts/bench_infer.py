"""Measure the folder job: photographs a second, and what each stage takes of the processor's time.

python scripts/bench_infer.py [PHOTOS] [--repeat N] [--json FILE] [--weights FILE] [--boxes FILE] ...

The job is run twice over the photographs (copies of them, until there are `--photos`): once as users run it, on all
cores with stages overlapping, for photographs a second; once on one thread, for the shares, where each stage's own
processor time can be told apart.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import sys
import tempfile
from pathlib import Path

DEMO = Path(__file__).resolve().parent / "demo_photos"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path, default=DEMO, help="photographs; default: those of the demo")
    parser.add_argument("--photos", type=int, default=32, help="copies are made until there are this many")
    parser.add_argument("--boxes", type=Path, help="person boxes, as of `bodyreg infer`")
    parser.add_argument("--people", default="auto")
    parser.add_argument("--model", default="perspose_small")
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--bfloat16", action="store_true", help="run the network in bfloat16")
    parser.add_argument("--no-overlay", action="store_true")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    options = parser.parse_args(arguments)

    import cv2
    import torch

    from bodyreg.data.folder import list_images, read_image
    from bodyreg.data.inputs import lookup, read_boxes
    from bodyreg.inference.folder import infer_folder, load_regressor
    from bodyreg.inference.stages import StageClock
    from renderers.threads import thread_count

    try:
        sources = list_images(options.folder)
        given = read_boxes(options.boxes) if options.boxes else {}
        regressor = load_regressor(options.model, options.weights, device=options.device, bfloat16=options.bfloat16)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 1
    with tempfile.TemporaryDirectory() as temporary:
        photos, boxes, megapixels = Path(temporary, "photos"), {}, 0.0
        photos.mkdir()
        for k in range(max(options.photos, len(sources))):
            source = sources[k % len(sources)]
            copy = photos / f"{k:04d}_{source.name}"
            shutil.copy(source, copy)
            found = lookup(given, source.relative_to(options.folder) if options.folder.is_dir() else source.name)
            if found is not None:
                boxes[copy.name] = found
        for source in sources:
            h, w = read_image(source).size_hw
            megapixels += h * w / 1e6 / len(sources)

        def run(name: str, threads: int, clock: StageClock):
            return infer_folder(
                photos, Path(temporary, name), regressor=regressor, boxes=boxes, people=options.people,
                overlay=not options.no_overlay, batch_size=options.batch_size, threads=threads, clock=clock,
            )  # fmt: skip

        infer_folder(  # kernels are compiled and disk caches filled
            [photos / sorted(os.listdir(photos))[0]], Path(temporary, "warm"), regressor=regressor
        )
        whole = run("whole", thread_count(), StageClock())
        torch.set_num_threads(1)
        cv2.setNumThreads(1)
        shares = run("shares", 1, StageClock(cpu=True))

    total, count = sum(shares.stages.values()), len(shares.records)
    figures = {
        "machine": f"{platform.machine()}, {thread_count()} cores, {regressor.device}, torch {torch.__version__}",
        "model": regressor.settings.name,
        "bfloat16": options.bfloat16,
        "photographs": len(whole.records),
        "mean_megapixels": round(megapixels, 2),
        "people": whole.people,
        "seconds": round(whole.seconds, 2),
        "photographs_per_second": round(len(whole.records) / whole.seconds, 2),
        "stages": {
            stage: {
                "ms_a_photograph": round(1e3 * seconds / count, 2),
                "share": round(seconds / total, 4),
            }
            for stage, seconds in shares.stages.items()
        },
        "largest": max(shares.stages, key=lambda stage: shares.stages[stage]),
    }
    print(f"{figures['machine']}")
    print(
        f"{figures['photographs']} photographs of {megapixels:.1f} megapixels, {whole.people} people: "
        f"{whole.seconds:.1f} s, {figures['photographs_per_second']} photographs/s"
    )
    print(f"{'stage':10s} {'ms/photo':>9s} {'share':>7s}   (one thread, processor time)")
    for stage, row in sorted(figures["stages"].items(), key=lambda item: -item[1]["share"]):
        print(f"{stage:10s} {row['ms_a_photograph']:9.1f} {100 * row['share']:6.1f}%")
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
