"""Mixing: shares, coverage, no state, processes that partition an epoch, exact resume."""

from __future__ import annotations

import numpy as np
import pytest

from bodyreg.data.mixing import MixedBatches, Mixture, in_order


def naive_row(mixture: Mixture, i: int, epoch: int) -> tuple[int, int]:
    """The rule for one position, in plain Python."""
    p, before = i / mixture.samples, 0.0
    for k, share in enumerate(mixture.shares):
        if share > 0 and (p < before + share or k == np.flatnonzero(mixture.shares).max()):
            draw = round(share * mixture.samples * ((p - before) / share + epoch))
            return k, int(mixture.tables[k][draw % len(mixture.tables[k])])
        before += share
    raise AssertionError("no set")


def test_rows_equal_the_rule_position_by_position():
    mixture = Mixture([7, 3, 12], [0.25, 0.5, 0.25], 64, seed=9)
    for epoch in (0, 3, 1000):
        rows = mixture.rows(np.arange(64), epoch)
        assert [tuple(r) for r in rows.tolist()] == [naive_row(mixture, i, epoch) for i in range(64)]


def test_shares_hold_and_every_sample_comes_up():
    mixture = Mixture([50, 20, 0, 10], [3, 4, 0, 3], 1000)
    rows = np.concatenate([mixture.rows(np.arange(1000), epoch) for epoch in range(3)])
    assert np.bincount(rows[:, 0], minlength=4).tolist() == [900, 1200, 0, 900]
    for k, size in ((0, 50), (1, 20), (3, 10)):
        assert set(rows[rows[:, 0] == k, 1]) == set(range(size))


@pytest.mark.parametrize(
    ("sizes", "shares", "samples", "message"),
    [
        ([1], [1, 1], 5, "one share a set"),
        ([1, 1], [1, -1], 5, "at least 0"),
        ([1, 1], [0, 0], 5, "positive"),
        ([1, 0], [1, 1], 5, "Prepare them"),
        ([1, 1], [1, 1], 0, "at least 1"),
    ],
)
def test_bad_mixtures_are_refused(sizes, shares, samples, message):
    with pytest.raises(ValueError, match=message):
        Mixture(sizes, shares, samples)


def test_order_of_evaluation():
    assert in_order([2, 0, 1]).tolist() == [[0, 0], [0, 1], [2, 0]]
    assert in_order([]).shape == (0, 2)


def test_processes_share_an_epoch_without_overlap():
    mixture = Mixture([1000], [1.0], 40)
    alone = [row for batch in MixedBatches(mixture, 40) for row in batch]
    shared = [row for rank in range(2) for batch in MixedBatches(mixture, 10, rank=rank, world=2) for row in batch]
    assert sorted(alone) == sorted(shared)
    assert len(MixedBatches(mixture, 15, world=2)) == 1
    with pytest.raises(ValueError, match="does not fill"):
        MixedBatches(mixture, 21, world=2)


def test_a_resumed_run_sees_what_an_undisturbed_one_would():
    mixture = Mixture([30, 30], [1, 2], 50)
    undisturbed = MixedBatches(mixture, 8, seed=3)
    seen = [batch for _ in range(3) for batch in undisturbed]
    assert len(seen) == 18 and seen[:6] != seen[6:12]
    for step in (0, 5, 6, 13):
        resumed = MixedBatches(mixture, 8, seed=3)
        resumed.seek(step)
        rest = [batch for _ in range(3 - step // 6) for batch in resumed]
        assert rest == seen[step:]
