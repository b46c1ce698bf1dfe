"""People to score: skeletons of random numbers of human size, with sequences and actions."""

from __future__ import annotations

import numpy as np
import pytest

from bodyreg import skeletons
from bodyreg.evaluation.accumulate import Samples
from bodyreg.evaluation.truth import StoredJoints, Truth

SEQUENCES = (("S9", "Walking", 11), ("S9", "Eating 1", 7), ("S11", "Walking 1", 5))


def make_people(joint_set: str = "h36m-17", seed: int = 0) -> tuple[np.ndarray, Samples]:
    """(23, J, 3) joints in metres about five metres before the camera, and whose they are."""
    rng = np.random.default_rng(seed)
    names, sequences, actions, subjects, frames = [], [], [], [], []
    for subject, action, count in SEQUENCES:
        for frame in range(count):
            names.append(f"{subject}/{action}/{frame}")
            sequences.append(f"{subject}/{action}")
            actions.append(action.split(" ")[0])
            subjects.append(subject)
            frames.append(frame)
    joints = rng.normal(0, 0.4, (len(names), len(skeletons.get(joint_set)), 3)) + [0, 0, 5.0]
    return joints, Samples.of(names, sequences, actions, subjects, frames=frames)


def noisy(joints: np.ndarray, metres: float = 0.06, seed: int = 1) -> np.ndarray:
    return joints + np.random.default_rng(seed).normal(0, metres, joints.shape)


@pytest.fixture(name="make_people")
def make_people_fixture():
    return make_people


@pytest.fixture(name="noisy")
def noisy_fixture():
    return noisy


@pytest.fixture
def h36m_truth() -> Truth:
    joints, samples = make_people()
    return Truth(StoredJoints(joints, "h36m-17", samples), "h36m", "made up")
