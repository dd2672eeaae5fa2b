"""Every kernel test runs with uninitialised memory full of NaN."""

import os
from collections.abc import Iterator

import pytest
import torch

os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # which torch wants for deterministic products


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Tests marked `full` run where BIGSMALL_KERNELS_FULL=1 is set, as in .ci/run."""
    if os.environ.get("BIGSMALL_KERNELS_FULL") != "1":
        left_out = [item for item in items if item.get_closest_marker("full")]
        items[:] = [item for item in items if item not in left_out]
        config.hook.pytest_deselected(items=left_out)


@pytest.fixture(autouse=True)
def poisoned_memory() -> Iterator[None]:
    torch.manual_seed(0)
    before = torch.utils.deterministic.fill_uninitialized_memory
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = True
    yield
    torch.use_deterministic_algorithms(False)
    torch.utils.deterministic.fill_uninitialized_memory = before


@pytest.fixture
def threads() -> Iterator[None]:
    """A test that changes the number of threads leaves it as it was."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)
