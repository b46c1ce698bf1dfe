"""One test per golden file, and the surroundings every check runs in: fixed seeds, one thread, float32."""

from __future__ import annotations

import numpy as np
import pytest
from golden import golden_files, golden_folder


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "golden_file" in metafunc.fixturenames:
        folder = golden_folder()
        files = golden_files()
        ids = [str(p.relative_to(folder).as_posix()) for p in files]
        metafunc.parametrize("golden_file", files, ids=ids)


@pytest.fixture(autouse=True)
def fixed_surroundings():
    import torch

    threads, dtype = torch.get_num_threads(), torch.get_default_dtype()
    torch.set_num_threads(1)
    torch.set_default_dtype(torch.float32)
    torch.manual_seed(0)
    np.random.seed(0)
    with torch.random.fork_rng(devices=[]):
        yield
    torch.set_num_threads(threads)
    torch.set_default_dtype(dtype)
