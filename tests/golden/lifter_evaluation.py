"""Whole tests of reference lifters on synthetic data: windows, flip averaging, metrics, means over actions.

Two test loops are rebuilt here with the toolkit's windows and metrics: KTPFormer's, whose frames all count once for
each window they are in and whose predicted root stays, and HoT's, which counts clips.
"""

from __future__ import annotations

import numpy as np
import torch
from lifter_data_checks import h36m_set, synthetic, table_of_set
from lifter_networks import build_ktpformer, build_mixste, close, load, tensor

from bodyreg import windows as rules
from bodyreg.data import clips
from bodyreg.evaluation import accumulate, metrics

MM_TOL = 1e-2


def flip_average(model, both: np.ndarray, mirror: list[int]) -> torch.Tensor:
    """Mean of the poses of (N, 2, F, J, 2) key points, plain and mirrored, the latter mirrored back."""
    with torch.no_grad():
        plain, flipped = (model(tensor(both[:, k])) for k in (0, 1))
    return (plain + tensor(clips.flip_points(flipped.numpy(), mirror))) / 2


def actions_of(table: clips.ClipTable) -> list[str]:
    return [sequence.action.split(" ")[0] for sequence in table.sequences]


def check_ktpformer_test(golden) -> None:
    config = golden.config
    model = load(build_ktpformer(golden), golden)
    check_tta(golden, model)
    frames = config["frames"]
    table = table_of_set(h36m_set(golden.inputs, config["keypoints"]), "test", config["subjects"])
    sums: dict[str, np.ndarray] = {}
    counts: dict[str, int] = {}
    for number, action in enumerate(actions_of(table)):
        lengths = table.lengths[number : number + 1]
        plan = clips.plan_windows(lengths, lambda length: rules.tail_aligned(length, frames))
        plan[:, 0] = number
        truth = tensor(table.clips(plan)["joints"])
        truth[:, :, 0] = 0
        pose = flip_average(model, table.test_keypoints(plan), list(table.mirror_out))
        each = [
            metrics.mpjpe(pose, truth).mean(),
            metrics.pa_mpjpe(pose, truth).mean(),
            metrics.n_mpjpe(pose, truth).mean(),
            metrics.mpjve(pose.flatten(0, 1), truth.flatten(0, 1)).mean(),  # windows side by side, seams included
        ]
        weight = pose.shape[0] * pose.shape[1]
        sums[action] = sums.get(action, np.zeros(4)) + weight * np.array([float(value) for value in each])
        counts[action] = counts.get(action, 0) + weight
    means = {action: 1000 * sums[action] / counts[action] for action in sums}
    for name in golden.names("action/"):
        close(means[name.split("/")[1]], golden.out(name), MM_TOL, name)
    close(np.mean(list(means.values()), 0), golden.out("action_mean"), MM_TOL, "mean over actions")


def check_tta(golden, model) -> None:
    """Flip averaging alone."""
    mirror = rules.mirror_map(17, [4, 5, 6, 11, 12, 13], [1, 2, 3, 14, 15, 16])
    x = golden.inputs["tta/x"]
    both = np.stack([x, clips.flip_points(x, mirror)], 1)
    with torch.no_grad():
        close(model(tensor(both[:, 0])), golden.out("tta/plain"), 1e-5, "plain")
        close(model(tensor(both[:, 1])), golden.out("tta/flip_raw"), 1e-5, "mirrored")
    close(flip_average(model, both, mirror), golden.out("tta/average"), 1e-5, "average")


def check_hot_test(golden) -> None:
    config = golden.config
    assert config["model"]["kind"] == "mixste.mixste"
    model = load(build_mixste("mixste", config, golden.state), golden)
    stored = synthetic(golden)
    prepared = h36m_set(stored.inputs, "cpn_ft_h36m_dbb", stored.config["metadata"])
    table = table_of_set(prepared, "test")
    frames, size = config["frames"], config["batch_size"]
    modes = {name.split("/")[0] for name in golden.names()}
    for mode in modes:
        centre = mode == "seq2frame"
        pad = (frames - 1) // 2 if centre else 0
        rule = rules.every_frame if centre else lambda length: rules.strided(length, frames, frames)
        plan, names = clips.plan_windows(table.lengths, rule), np.array(actions_of(table))
        errors = []
        for start in range(0, len(plan), size):
            rows = plan[start : start + size]
            pose = flip_average(model, table.test_keypoints(rows, pad), list(table.mirror_out))
            truth = tensor(table.clips(rows, pad)["joints"])
            if centre:
                pose, truth = pose[:, pad : pad + 1], truth[:, pad : pad + 1]
            pose[:, :, 0] = truth[:, :, 0] = 0  # the other joints are relative to the root already
            errors.append(clip_errors(pose, truth, names[rows[:, 0]]))
        p1, p2 = torch.cat([e[0] for e in errors]), torch.cat([e[1] for e in errors])
        check_hot_sums(golden, mode, p1, p2, names[plan[:, 0]])


def clip_errors(pose: torch.Tensor, truth: torch.Tensor, actions: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
    """P1 and P2 of each clip; in a batch of several actions the reference counts the batch's mean P2 for each clip."""
    p1, p2 = metrics.mpjpe(pose, truth).mean(-1), metrics.pa_mpjpe(pose, truth).mean(-1)
    if len(set(actions)) > 1:
        p2 = accumulate.batch_means(p2, torch.zeros(len(p2), dtype=torch.long))
    return p1, p2


def check_hot_sums(golden, mode: str, p1: torch.Tensor, p2: torch.Tensor, actions: np.ndarray) -> None:
    present = [n.split("/")[1] for n in golden.names(f"{mode}/") if not n.split("/")[1].startswith("action_mean")]
    assert set(present) == set(actions.tolist())
    means = []
    for action in present:
        rows = torch.from_numpy(actions == action)
        count = int(rows.sum())
        found = np.array([float(p1[rows].sum()), count, float(p2[rows].sum()), count])
        expected = golden.out(f"{mode}/{action}")
        assert np.abs(found / expected - 1).max() <= 1e-4, f"{mode} {action}: {found}, reference {expected}"
        means.append([1000 * found[0] / count, 1000 * found[2] / count])
    for name, value in zip(("p1", "p2"), np.mean(means, 0), strict=True):
        expected = float(golden.out(f"{mode}/action_mean_{name}_mm"))
        assert abs(value / expected - 1) <= 1e-4, f"{mode} mean {name}"
