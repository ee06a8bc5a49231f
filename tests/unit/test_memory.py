"""The memory that a process may use, from the files in which Linux says it."""

import os
from pathlib import Path

import pytest

from cascaded_dllm.memory import memory_limit

OF_MACHINE = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
UNLIMITED_V1 = "9223372036854771712\n"


@pytest.mark.parametrize(
    ("groups", "limits", "limit"),
    [
        pytest.param(None, {}, OF_MACHINE, id="no control groups"),
        pytest.param("0::/\n", {}, OF_MACHINE, id="none with a limit"),
        pytest.param("0::/job/step\n", {"job/step/memory.max": "max\n"}, OF_MACHINE, id="unlimited"),
        pytest.param("0::/job/step\n", {"job/step/memory.max": "4096\n"}, 4096, id="own"),
        pytest.param(
            "0::/job/step\n", {"job/step/memory.max": "max\n", "job/memory.max": "8192\n"}, 8192, id="of the job"
        ),
        pytest.param(
            "0::/job/step\n", {"job/step/memory.max": "4096\n", "job/memory.max": "2048\n"}, 2048, id="the smaller one"
        ),
        pytest.param("0::/seen/outside\n", {"memory.max": "4096\n"}, 4096, id="in a container"),
        pytest.param("0::/job\n", {"step/memory.max": "4096\n"}, OF_MACHINE, id="another's"),
        pytest.param(
            "5:cpu,cpuacct:/a\n4:memory:/job\n0::/\n",
            {"memory/job/memory.limit_in_bytes": "4096\n", "memory/memory.limit_in_bytes": UNLIMITED_V1},
            4096,
            id="v1",
        ),
        pytest.param(
            "4:memory:/\n", {"memory/memory.limit_in_bytes": UNLIMITED_V1}, OF_MACHINE, id="unlimited, version 1"
        ),
    ],
)
def test_limit(tmp_path: Path, groups: str | None, limits: dict[str, str], limit: int) -> None:
    files = {f"sys/fs/cgroup/{name}": text for name, text in limits.items()}
    files |= {} if groups is None else {"proc/self/cgroup": groups}
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert memory_limit(tmp_path) == limit


def test_of_this_process() -> None:
    assert 0 < memory_limit() <= OF_MACHINE


def test_a_limit_that_the_system_does_not_show(tmp_path: Path) -> None:
    """For some users and containers the files are there and cannot be read, as a folder cannot."""
    (tmp_path / "sys/fs/cgroup/memory.max").mkdir(parents=True)
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/cgroup").write_text("0::/\n")
    assert memory_limit(tmp_path) == OF_MACHINE
