"""What every test can rely on: one CPU thread, no network, a fixed search by hypothesis, and the optional real data."""

import os
import signal
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from jaxtyping import config as jaxtyping_config

from tests.repo import error_sites

CHECKOUT = Path(__file__).resolve().parents[1]
REACHED_ERRORS = pytest.StashKey[set[tuple[str, int]]]()
IS_PARTIAL_RUN = pytest.StashKey[bool]()
SHORTCOMINGS = pytest.StashKey[list[str]]()

# Derandomised, so that a failure seen once is seen by everyone; no deadline, because a loaded machine is not a bug.
settings.register_profile("ci", derandomize=True, deadline=None, max_examples=50, database=None)
settings.load_profile("ci")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--network", action="store_true", help="also run the tests marked `network`")
    parser.addoption("--all-types", action="store_true", help="check shapes and types in all tests, not in a third")


def pytest_configure(config: pytest.Config) -> None:
    # Before any test imports torch or huggingface_hub: both read these once. The tensors of the tests are tiny, and
    # one thread adds in the same order on every machine.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    if not config.getoption("--network"):
        os.environ["HF_HUB_OFFLINE"] = "1"
    # The tests start many processes; each would compile the whole package again.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    config.stash[REACHED_ERRORS] = error_sites.record()
    config.stash[IS_PARTIAL_RUN] = config.args_source is not pytest.Config.ArgsSource.TESTPATHS or any(
        config.getoption(name) for name in ("ignore", "ignore_glob", "keyword", "markexpr", "deselect", "lf")
    )
    # A shell that starts the tests in the background makes them, and what they start, deaf to Ctrl-C.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Shapes and types are checked at every call, which takes more than half the time of a small network.

    So every third test is checked, chosen by its name, as long as `--all-types` does not ask for all of them. None is
    where thousands of texts are drawn, or whole commands run, in ways that other tests check.
    """
    is_heavy = item.path.relative_to(CHECKOUT / "tests").parts[0] in ("statistical", "pipeline")
    is_due = item.config.getoption("--all-types") or zlib.crc32(item.nodeid.encode()) % 3 == 0
    is_checked = is_due and not is_heavy
    jaxtyping_config.update("jaxtyping_disable", not is_checked)


def pytest_runtest_teardown() -> None:
    """A command that was asked to stop leaves SIGUSR1 ignored, since its program ends; this one does not."""
    if signal.getsignal(signal.SIGUSR1) is signal.SIG_IGN:
        signal.signal(signal.SIGUSR1, signal.SIG_DFL)


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


def _has_cuda() -> bool:
    import torch

    return torch.cuda.is_available()


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Collects what a process of pytest-xdist has reached; one that crashed tells nothing."""
    reached = getattr(node, "workeroutput", {}).get("reached_errors", [])
    node.config.stash[REACHED_ERRORS].update((path, line) for path, line in reached)


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fails a whole run without failures in which some error was not reached by any test."""
    config = session.config
    reached = config.stash[REACHED_ERRORS]
    if hasattr(config, "workeroutput"):
        config.workeroutput["reached_errors"] = sorted(reached)
    elif session.exitstatus == pytest.ExitCode.OK and not config.stash[IS_PARTIAL_RUN]:
        config.stash[SHORTCOMINGS] = error_sites.shortcomings(reached)
        if config.stash[SHORTCOMINGS]:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    shortcomings = config.stash.get(SHORTCOMINGS, None)
    if shortcomings is None:
        terminalreporter.write_line(
            "Whether tests reach every error is told by a run of all tests without a failure only."
        )
    for shortcoming in shortcomings or []:
        terminalreporter.write_line(f"FAILED: {shortcoming}", red=True)


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
