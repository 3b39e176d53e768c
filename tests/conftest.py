"""What every test shares: seeds, one torch thread under xdist, the folder of real clips, the gpu mark."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import settings

# The same examples in every run: a change is judged by what it changes. HYPOTHESIS_PROFILE=default draws new ones.
settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "repeatable"))


def pytest_configure(config: pytest.Config) -> None:
    if os.environ.get("PYTEST_XDIST_WORKER"):
        torch.set_num_threads(1)  # workers already fill the cores


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if torch.cuda.is_available():
        return
    for item in items:
        if "gpu" in item.keywords:
            item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)
    np.random.seed(0)  # noqa: NPY002  (third-party code draws from the global generator)


@pytest.fixture(scope="session")
def clips() -> Path:
    """Real clips with truth (`davis/`, `composited/`): $DAS3R_CLIPS, or `../shared/clips` beside the checkout."""
    folder = Path(os.environ.get("DAS3R_CLIPS", Path(__file__).parents[2] / "shared" / "clips"))
    if not folder.is_dir():
        pytest.skip(f"no real clips at {folder}; set DAS3R_CLIPS")
    return folder


@pytest.fixture(scope="session")
def data() -> Path:
    """Folder of small numerical fixtures."""
    return Path(__file__).parent / "data"
