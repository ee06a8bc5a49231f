"""What every test can rely on: one CPU thread, no network, a fixed search by hypothesis, and the optional real data."""

import os
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import settings

from tests.repo import error_sites

CHECKOUT = Path(__file__).resolve().parents[1]
REACHED_ERRORS = pytest.StashKey[set[tuple[str, int]]]()
IS_PARTIAL_RUN = pytest.StashKey[bool]()

# Derandomised, so that a failure seen once is seen by everyone; no deadline, because a loaded machine is not a bug.
settings.register_profile("ci", derandomize=True, deadline=None, max_examples=50, database=None)
settings.load_profile("ci")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--network", action="store_true", help="also run the tests marked `network`")


def pytest_configure(config: pytest.Config) -> None:
    # Before any test imports torch or huggingface_hub: both read these once. The tensors of the tests are tiny, and
    # one thread adds in the same order on every machine.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    if not config.getoption("--network"):
        os.environ["HF_HUB_OFFLINE"] = "1"
    config.stash[REACHED_ERRORS] = error_sites.record()
    config.stash[IS_PARTIAL_RUN] = (
        config.args_source is not pytest.Config.ArgsSource.TESTPATHS
        or bool(config.getoption("ignore"))
        or bool(config.getoption("ignore_glob"))
    )


def pytest_deselected(items: Sequence[pytest.Item]) -> None:
    items[0].config.stash[IS_PARTIAL_RUN] = True


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not config.getoption("--network"):
        skip_network = pytest.mark.skip(reason="asks a server; run pytest --network")
        for item in items:
            if item.get_closest_marker("network"):
                item.add_marker(skip_network)
    gpu_items = [item for item in items if item.get_closest_marker("gpu")]
    if gpu_items and not _has_cuda():
        skip_gpu = pytest.mark.skip(reason="no CUDA device on this machine")
        for item in gpu_items:
            item.add_marker(skip_gpu)
    # It looks back on the errors that all others have reached.
    items.sort(key=lambda item: item.name == "test_every_error_is_reached")


def _has_cuda() -> bool:
    import torch

    return torch.cuda.is_available()


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real data and larger golden files beside the checkout; a test that needs it skips without it."""
    folder = CHECKOUT.parent / "shared"
    if not folder.is_dir():
        pytest.skip("no folder ../shared beside the checkout")
    return folder


@pytest.fixture(scope="session")
def reached_errors(pytestconfig: pytest.Config) -> set[tuple[str, int]]:
    """(path, line) of every place in the package that has built one of its errors so far in this run."""
    return pytestconfig.stash[REACHED_ERRORS]


@pytest.fixture(scope="session")
def is_whole_run(pytestconfig: pytest.Config) -> bool:
    return not pytestconfig.stash[IS_PARTIAL_RUN]
