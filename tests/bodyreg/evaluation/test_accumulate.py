"""Gathering errors: one process and two give the same table to the last digit, whatever arrives twice or not at all."""

from __future__ import annotations

import socket

import numpy as np
import pytest
import torch
import torch.multiprocessing as multiprocessing

from bodyreg.evaluation import metrics, protocols, tables
from bodyreg.evaluation.accumulate import ErrorAccumulator, MeanError, Samples, batch_means, group_means, sample_errors
from bodyreg.evaluation.evaluate import evaluate
from bodyreg.evaluation.truth import StoredJoints, Truth

PROTOCOLS = (
    "h36m-lift-17", "h36m-mesh-p1", "h36m-lift-17[aggregate=batches]", "h36m-mesh-p1[metrics=MPJPE+PCK+AUC+Accel]",
)  # fmt: skip


def tables_of(truth: Truth, pred: np.ndarray) -> list[str]:
    found = []
    for name in PROTOCOLS:
        result = evaluate(StoredJoints(pred, "h36m-17", truth.source.samples), truth, name, batch_size=5)
        found += [tables.text([result], digits=9), tables.json_table([result])]
    return found


def one_of_two(rank: int, port: int, folder: str, truth: Truth, pred: np.ndarray) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    found = tables_of(truth, pred)
    mean = MeanError(metrics.mpjpe)
    for start, stop in (((0, 4), (4, 9)), ((9, 23),))[rank]:  # uneven batches, and an uneven number of them
        mean.update(torch.tensor(pred[start:stop]), truth.source.joints[start:stop])
    twice = ErrorAccumulator(protocols.get("h36m-mesh-p1"), truth.source.samples)
    for rows in ((range(0, 10),), (range(8, 23),))[rank]:  # 8 and 9 are scored by both, as samplers do at the end
        rows = np.array(rows)
        twice.update(rows, torch.tensor(pred[rows]), truth.source.joints[rows])
    idle = ErrorAccumulator(protocols.get("h36m-lift-17"), truth.source.samples)
    if rank == 0:
        idle.update(np.arange(23), torch.tensor(pred), truth.source.joints)
    totals = [group_means(a.compute(), a.samples, a.protocol).total for a in (twice, idle)]
    torch.save({"tables": found, "mean": mean.compute(), "totals": totals}, f"{folder}/{rank}.pt")
    torch.distributed.destroy_process_group()


def test_two_processes_give_the_table_of_one(h36m_truth, noisy, tmp_path):
    pred = noisy(h36m_truth.source.joints.numpy())
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    multiprocessing.spawn(one_of_two, (port, str(tmp_path), h36m_truth, pred), nprocs=2)
    alone = tables_of(h36m_truth, pred)
    mean = metrics.mpjpe(torch.tensor(pred), h36m_truth.source.joints).mean()
    single = ErrorAccumulator(protocols.get("h36m-mesh-p1"), h36m_truth.source.samples)
    single.update(np.arange(23), torch.tensor(pred), h36m_truth.source.joints)
    whole = group_means(single.compute(), single.samples, single.protocol).total
    for rank in range(2):
        found = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        assert found["tables"] == alone
        torch.testing.assert_close(found["mean"], mean, atol=1e-12, rtol=0)
        assert found["totals"][0] == whole
        assert set(found["totals"][1]) == set(protocols.get("h36m-lift-17").metrics)


def test_the_order_of_batches_does_not_matter(h36m_truth, noisy):
    pred, true = torch.tensor(noisy(h36m_truth.source.joints.numpy())), h36m_truth.source.joints
    found = []
    for order in (np.arange(23), np.random.default_rng(0).permutation(23)):
        accumulator = ErrorAccumulator(protocols.get("h36m-lift-17"), h36m_truth.source.samples)
        for rows in np.array_split(order, 4):
            accumulator.update(rows, pred[rows], true[rows])
        found.append(group_means(accumulator.compute(), accumulator.samples, accumulator.protocol))
    assert found[0] == found[1]
    accumulator.reset()
    with pytest.raises(ValueError, match="No sample could be scored"):
        group_means(accumulator.compute(), accumulator.samples, accumulator.protocol)


def test_no_mesh_is_kept(free_body):
    protocol = protocols.get("pw3d-j14")
    accumulator = ErrorAccumulator(protocol, Samples.of("abc"))
    vertices = free_body.v_template.expand(3, -1, -1).contiguous()
    joints = free_body.regress(vertices, "h36m-17")
    accumulator.update(np.arange(3), joints, joints + 0.01, vertices, vertices + 0.01)
    states = ("values", "joints", "points", "index", "batch")
    assert sum(t.numel() for name in states for t in getattr(accumulator, name)) < 3 * 100


def test_vertices_are_compared_about_the_protocols_root():
    rng = torch.Generator().manual_seed(0)
    pred, true = (torch.randn(2, 17, 3, generator=rng, dtype=torch.float64) for _ in range(2))
    pv, tv = (torch.randn(2, 40, 3, generator=rng, dtype=torch.float64) for _ in range(2))
    about_pelvis = metrics.pve(pv - pred[:, :1], tv - true[:, :1])
    about_hips = metrics.pve(pv - pred[:, [1, 4]].mean(1, True), tv - true[:, [1, 4]].mean(1, True))
    found = {name: sample_errors(protocols.get(name), pred, true, pv, tv).values["PVE"]
             for name in ("pw3d-j14", "pw3d-j14-midhip", "pw3d-j14-vibe")}  # fmt: skip
    torch.testing.assert_close(found["pw3d-j14"], about_pelvis)
    torch.testing.assert_close(found["pw3d-j14-midhip"], about_hips)
    torch.testing.assert_close(found["pw3d-j14-vibe"], metrics.pve(pv, tv))


def test_means_of_batches_replace_their_samples():
    values = torch.tensor([1.0, 3.0, 10.0, 20.0, 60.0])
    expected = torch.tensor([2.0, 2.0, 30.0, 30.0, 30.0])
    torch.testing.assert_close(batch_means(values, torch.tensor([4, 4, 7, 7, 7])), expected)


def test_a_mean_of_nothing_is_an_error():
    with pytest.raises(ValueError, match="Nothing was scored"):
        MeanError(metrics.mpjpe).compute()
