"""How much adaptation helps on the motion benchmark: PoseDA across domains, UAO at test time.

    python scripts/bench_adaptation.py --motion data/motion/motion_gt.npz --pair data/pair --out runs/adaptation
    python scripts/bench_adaptation.py --motion data/motion/motion_noisy.npz --uao GUMLP_FILE KTPFORMER_FILE

The first line makes a pair of domains whose shift is known (other people, heights, cameras) and reports a lifter
trained on the source alone, adapted by moving poses (GPA), and by moving changed poses (GPA and LPA), over seeds. The
second refines trained lifters on the benchmark's noisy test clips, with the root solved from the picture and with the
true one (an oracle, in rows of its own). Finished runs are kept, so that an interrupted script goes on.
"""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table

from bodyreg.adapt.uao import UAOSettings, uao_optimize
from bodyreg.data.domain_pair import shifted_pair
from bodyreg.data.lifter_sets import LifterSequence, read_lifter_set, write_lifter_set
from bodyreg.evaluation.metrics import mpjpe, pa_mpjpe
from bodyreg.files import atomic_write
from bodyreg.lifter_weights import load_lifter
from bodyreg.models.lifters.registry import lifter_entry
from bodyreg.training.poseda import train_poseda


def adapt(arguments: argparse.Namespace) -> dict[str, dict[str, list[float]]]:
    """Scores of every seed by row: the source alone, GPA, GPA and LPA."""
    source, target = (arguments.pair / f"{name}.npz" for name in ("source", "target"))
    if not (source.exists() and target.exists()):
        for path, domain in zip((source, target), shifted_pair(read_lifter_set(arguments.motion)), strict=True):
            write_lifter_set(path, domain)
    rows: dict[str, dict[str, list[float]]] = {}
    for seed in track(range(arguments.seeds), "seeds"):
        for lpa in (0, None):
            out = arguments.out / arguments.lifter / f"seed{seed}_{'gpa' if lpa == 0 else 'lpa'}"
            overrides = [
                f"model.name={arguments.lifter}", f"model.preset={arguments.preset}", f"data.source={source}",
                f"data.target={target}", f"run.seed={seed}", f"run.out={out}",
                f"data.downsample={arguments.downsample}", *arguments.set,
                *([f"lpa.epochs={lpa}"] if lpa is not None else []),
            ]  # fmt: skip
            scores = out / "scores.json"
            if not scores.exists():
                train_poseda("poseda", overrides, progress=False)
            for name, values in json.loads(scores.read_text(encoding="utf-8")).items():
                if name == "source only" and lpa is None:
                    continue  # the same as in the other run of this seed
                for key, value in values.items():
                    rows.setdefault(name, {}).setdefault(key, []).append(value)
    return rows


def refine(weights: Path, arguments: argparse.Namespace) -> dict[str, dict[str, list[float]]]:
    """Scores of a lifter before and after UAO, the root solved and true."""
    loaded = load_lifter(weights)
    prepared = read_lifter_set(arguments.motion)
    frames = lifter_entry(loaded.settings.name).frames(loaded.settings)
    batches = [_windows(s, frames, arguments.every) for s in prepared.sequences(prepared.subjects("test"))]
    keypoints, joints, roots, lenses = (torch.cat(parts) for parts in zip(*batches, strict=True))
    settings = UAOSettings(iterations=arguments.iterations, lr=arguments.lr)
    rows: dict[str, dict[str, list[float]]] = {}
    for label in ("solve", "gt"):
        poses: dict[str, list[torch.Tensor]] = {"before": [], "after": []}
        true: list[torch.Tensor] = []
        for rows_of in track(torch.arange(len(keypoints)).split(arguments.batch), f"{loaded.settings.name}, {label}"):
            given = roots[rows_of] if label == "gt" else "solve"
            result = uao_optimize(
                loaded.network, keypoints[rows_of], lenses[rows_of], given, root_source="gt", settings=settings
            )
            at = slice(None) if result.after.shape[1] == frames else slice(frames // 2, frames // 2 + 1)
            true.append(joints[rows_of][:, at].flatten(0, 1))
            poses["before"].append(result.before.flatten(0, 1))
            poses["after"].append(result.after.flatten(0, 1))
        for when, parts in poses.items():
            if when == "before" and label == "gt":
                continue
            name = loaded.settings.name + ("" if when == "before" else f", UAO, root {label}")
            predicted, truth = torch.cat(parts), torch.cat(true)
            rows[name] = {
                "MPJPE": [1000 * float(mpjpe(predicted, truth).mean())],
                "P-MPJPE": [1000 * float(pa_mpjpe(predicted, truth).mean())],
            }
    return rows


def _windows(sequence: LifterSequence, frames: int, every: int) -> tuple[torch.Tensor, ...]:
    """Key points (N, T, J, 2), root-relative joints (N, T, J, 3), roots (N, T, 1, 3) and lenses (N, 9) of windows side
    by side, every n-th of them; what does not fill one at the end is left out."""
    count = len(sequence) // frames
    kept = torch.arange(0, count, every)
    keypoints, joints = (
        torch.from_numpy(points[: count * frames]).unflatten(0, (count, frames))[kept].clone()
        for points in (sequence.keypoints[..., :2], sequence.joints)
    )
    roots = joints[:, :, :1].clone()
    joints[:, :, 0] = 0
    return keypoints, joints, roots, torch.from_numpy(sequence.lens).expand(len(kept), 9)


def show(rows: dict[str, dict[str, list[float]]]) -> None:
    """A line a row: mean and, over several seeds, standard deviation."""
    names = list(dict.fromkeys(key for values in rows.values() for key in values))
    table = Table("mm, %", *names, box=None)
    for name, values in rows.items():
        cells = []
        for key in names:
            found = values[key]
            spread = f" ± {statistics.stdev(found):.1f}" if len(found) > 1 else ""
            cells.append(f"{statistics.mean(found):.1f}{spread}")
        table.add_row(name, *cells)
    Console(width=140).print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--motion", type=Path, required=True, help="prepared set, see `bodyreg prepare motion`")
    parser.add_argument("--pair", type=Path, default=Path("data/pair"), help="folder of source.npz and target.npz")
    parser.add_argument("--out", type=Path, default=Path("runs/adaptation"), help="folder of runs and of scores.json")
    parser.add_argument("--lifter", default="simple_baseline", help="single-frame lifter that PoseDA adapts")
    parser.add_argument("--preset", default="small", help="its size")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--downsample", type=int, default=5, help="keep every n-th frame of the pair")
    parser.add_argument("--set", nargs="*", default=[], help="further settings of configs/poseda.yaml")
    parser.add_argument("--uao", nargs="*", type=Path, default=[], help="weights of lifters to refine at test time")
    parser.add_argument("--iterations", type=int, default=4, help="of UAO")
    parser.add_argument("--lr", type=float, default=1e-3, help="of UAO, screen units")
    parser.add_argument("--every", type=int, default=1, help="refine every n-th window")
    parser.add_argument("--batch", type=int, default=256, help="windows refined together")
    parser.add_argument("--threads", type=int, default=None)
    arguments = parser.parse_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    rows: dict[str, dict[str, list[float]]] = {}
    if arguments.uao:
        for weights in arguments.uao:
            rows.update(refine(weights, arguments))
    else:
        rows = adapt(arguments)
    show(rows)
    arguments.out.mkdir(parents=True, exist_ok=True)
    with atomic_write(arguments.out / ("uao.json" if arguments.uao else "poseda.json")) as temporary:
        temporary.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
