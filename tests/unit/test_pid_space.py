"""Two processes share a space of numbers, or do not."""

import subprocess
import sys

import pytest

from cascaded_dllm import pid_space as module
from cascaded_dllm.pid_space import pid_space

SAY = "from cascaded_dllm.pid_space import pid_space; print(pid_space())"


def test_processes_beside_one_another():
    said = subprocess.run([sys.executable, "-c", SAY], check=True, capture_output=True, text=True).stdout
    assert said == f"{pid_space()}\n"


def test_host_boot_and_namespace_each_make_another(monkeypatch, tmp_path):
    here, link, boot = pid_space(), tmp_path / "pid", tmp_path / "boot_id"
    link.symlink_to("pid:[4026539999]")
    boot.write_text("another boot\n")
    changes = [
        (module.socket, "gethostname", lambda: "another-host"),
        (module, "_BOOT", boot),
        (module, "_NAMESPACE", link),
    ]
    found = []
    for target, name, value in changes:
        with monkeypatch.context() as patched:
            patched.setattr(target, name, value)
            found.append(pid_space())
    assert len({here, *found}) == 4


@pytest.mark.parametrize("name", ["_BOOT", "_NAMESPACE"])
def test_systems_that_do_not_tell(monkeypatch, tmp_path, name):
    monkeypatch.setattr(module, name, tmp_path / "none")
    assert pid_space() == pid_space()
