import errno
import hashlib
import json
import os
import re
import shutil
import socket
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from cascaded_dllm import atomic
from cascaded_dllm.atomic import file_sha256
from cascaded_dllm.errors import CheckpointError, OutputError
from cascaded_dllm.model import integrity
from cascaded_dllm.model.integrity import newest_complete
from cascaded_dllm.train import checkpoint, deletion
from cascaded_dllm.train.checkpoint import (
    HostCopy,
    Keeping,
    TrainerState,
    load_trainer_state,
    parts_beside,
    save_checkpoint,
)
from cascaded_dllm.train.deletion import Deletion

FILES = ["checksums.json", "config.json", "ema.safetensors", "model.safetensors", "tokenizer.json", "trainer.pt"]


@pytest.fixture
def save(tmp_path):
    tokenizer = tmp_path / "tokenizer.json"
    tokenizer.write_text("{}")

    old = Deletion(tmp_path / "checkpoints")

    def call(step, *, keep=10, every=None, value=None, deletion=old, **parts):
        weight = torch.full((2, 3), float(step if value is None else value))
        return save_checkpoint(
            tmp_path / "checkpoints",
            config_json=json.dumps({"step": step}),
            content=HostCopy(
                model={"w": weight.T},
                ema={"w": weight + 0.5},
                state=TrainerState(step, 20, step, {"state": {}, "param_groups": []}, {"optim.lr": 0.5}),
                parts={},
            ),
            tokenizer_file=tokenizer,
            keeping=Keeping(newest=keep, every=every),
            deletion=deletion,
            **parts,
        )

    return call


def flip_byte(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))


def truncate(path):
    path.write_bytes(path.read_bytes()[:-1])


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def loop(path):
    """Makes a file that exists and cannot be read, as those of a broken disk or of another user, even for root."""
    path.unlink()
    path.symlink_to(path.name)


DAMAGES = {
    "no weights": (lambda folder: (folder / "model.safetensors").unlink(), "model.safetensors is missing"),
    "no average": (lambda folder: (folder / "ema.safetensors").unlink(), "ema.safetensors is missing"),
    "cut off": (lambda folder: truncate(folder / "trainer.pt"), "trainer.pt does not have its recorded checksum"),
    "one bit": (lambda folder: flip_byte(folder / "ema.safetensors"), "ema.safetensors does not have its recorded"),
    "unreadable": (lambda folder: loop(folder / "trainer.pt"), r"trainer.pt cannot be read \(Too many levels of symb"),
    "no checksums": (lambda folder: (folder / "checksums.json").unlink(), r"cannot be read \(FileNotFoundError\)"),
    "half of the checksums": (
        lambda folder: (folder / "checksums.json").write_text('{"config.json": "12'),
        r"checksums.json cannot be read \(JSONDecodeError\)",
    ),
    "no checksum in it": (lambda folder: (folder / "checksums.json").write_text("{}"), "checksums.json lists no"),
    "no object": (lambda folder: (folder / "checksums.json").write_text("[]"), "checksums.json lists no"),
    "only a folder": (lambda folder: [path.unlink() for path in folder.iterdir()], "checksums.json cannot be read"),
}


def test_holds_every_file_and_its_checksum(save, tmp_path):
    folder = save(3)
    assert folder == tmp_path / "checkpoints" / "step_3"
    assert names(folder) == FILES
    assert sorted(json.loads((folder / "checksums.json").read_text())) == FILES[1:]
    assert torch.equal(load_file(folder / "model.safetensors")["w"], torch.full((3, 2), 3.0))
    assert torch.equal(load_file(folder / "ema.safetensors")["w"], torch.full((2, 3), 3.5))
    state = load_trainer_state(folder)
    assert (state.step, state.num_steps, state.ema_updates, state.course) == (3, 20, 3, {"optim.lr": 0.5})
    assert newest_complete(tmp_path / "checkpoints") == (folder, [])


def test_latest_is_a_link_to_the_newest(save, tmp_path):
    for step in (1, 2, 10):
        save(step)
        latest = tmp_path / "checkpoints" / "latest"
        assert latest.is_symlink()
        assert latest.resolve() == tmp_path / "checkpoints" / f"step_{step}"
        assert newest_complete(tmp_path / "checkpoints")[0] == latest.resolve()


@pytest.mark.parametrize("name", ["checksums.json", "trainer.pt"])
@pytest.mark.parametrize("number", [errno.EACCES, errno.EMFILE])
def test_what_this_process_cannot_read_is_not_damaged(save, tmp_path, monkeypatch, name, number):
    """Otherwise a run would begin with an earlier checkpoint, and delete this one when it comes there again."""
    save(1)
    newest = save(3)

    def refusing(function):
        def read(path, *args, **kwargs):
            if path == newest / name:
                raise OSError(number, os.strerror(number), str(path))
            return function(path, *args, **kwargs)

        return read

    with monkeypatch.context() as change:
        change.setattr(integrity, "file_sha256", refusing(file_sha256))
        change.setattr(Path, "read_text", refusing(Path.read_text))
        message = rf"step_3/{name} cannot be read \({os.strerror(number)}\), and may be whole; see to the rights"
        with pytest.raises(CheckpointError, match=message):
            newest_complete(tmp_path / "checkpoints")
        with pytest.raises(CheckpointError, match=message):
            save(3)
    assert newest_complete(tmp_path / "checkpoints") == (newest, [])


@pytest.mark.parametrize(("keep", "kept"), [(1, [12]), (2, [11, 12]), (4, [9, 10, 11, 12])])
def test_keeps_the_newest(save, tmp_path, keep, kept):
    for step in (8, 9, 10, 11, 12):
        save(step, keep=keep)
    assert names(tmp_path / "checkpoints") == sorted(["latest", *(f"step_{step}" for step in kept)])


def test_keeps_every_nth_for_good(save, tmp_path):
    for step in range(2, 15, 2):
        save(step, keep=2, every=6)
    assert names(tmp_path / "checkpoints") == ["latest", "step_12", "step_14", "step_6"]


def test_parts_of_several_processes_become_a_part_of_it(save, tmp_path):
    """Checksums that their writers know are taken from them; what a killed run has left beside is removed."""
    checkpoints = tmp_path / "checkpoints"
    for step in (3, 2, 9):
        parts = parts_beside(checkpoints, step)
        parts.mkdir(parents=True)
        (parts / "__0_0.distcp").write_bytes(b"moments")
        (parts / ".metadata").write_bytes(b"where they are")
    folder = save(3, parts_folder=parts_beside(checkpoints, 3), parts_sums={"__0_0.distcp": file_sha256_of(b"moments")})
    assert names(folder / "optimizer") == [".metadata", "__0_0.distcp"]
    assert {"optimizer/.metadata", "optimizer/__0_0.distcp"} < json.loads(
        (folder / "checksums.json").read_text()
    ).keys()
    assert newest_complete(checkpoints) == (folder, [])
    assert [path.name for path in checkpoints.iterdir() if path.name[0] == "."] == [parts_beside(checkpoints, 9).name]
    (folder / "optimizer" / "__0_0.distcp").write_bytes(b"moment?")
    assert "optimizer/__0_0.distcp does not have its recorded checksum" in newest_complete(checkpoints)[1][0]


def file_sha256_of(content):
    return hashlib.sha256(content).hexdigest()


def test_other_things_in_the_folder_are_left_alone(save, tmp_path):
    save(1)
    folder = tmp_path / "checkpoints"
    shutil.copytree(folder / "step_1", folder / "step_9_backup")
    shutil.copytree(folder / "step_1", folder / "best")
    (folder / "step_12").write_text("a file")
    for step in (2, 3):
        save(step, keep=1)
    assert names(folder) == ["best", "latest", "step_12", "step_3", "step_9_backup"]
    assert newest_complete(folder) == (folder / "step_3", [])


def test_no_checkpoint_yet(tmp_path):
    assert newest_complete(tmp_path / "checkpoints") == (None, [])


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_one_is_passed_over_and_reported(save, tmp_path, damage):
    for step in (1, 2, 10):
        save(step)
    spoil, message = DAMAGES[damage]
    spoil(tmp_path / "checkpoints" / "step_10")
    found, faults = newest_complete(tmp_path / "checkpoints")
    assert found == tmp_path / "checkpoints" / "step_2"
    (fault,) = faults
    assert fault.startswith(f"{tmp_path / 'checkpoints' / 'step_10'}: ")
    assert re.search(message, fault)


def test_all_damaged(save, tmp_path):
    for step in (1, 2):
        flip_byte(save(step) / "model.safetensors")
    found, faults = newest_complete(tmp_path / "checkpoints")
    assert found is None
    assert [fault.split(": ")[0][-6:] for fault in faults] == ["step_2", "step_1"]


def test_what_a_killed_process_leaves_is_no_checkpoint(save, tmp_path):
    """A whole copy under the temporary name that a writer uses, with a later step."""
    save(1)
    folder = tmp_path / "checkpoints"
    shutil.copytree(folder / "step_1", folder / ".incomplete-step_7@host-1-0123abcd")
    assert newest_complete(folder) == (folder / "step_1", [])


def test_what_killed_writers_left_goes_with_the_old_ones(save, tmp_path):
    """Of any step and any machine, just now; parts of the next checkpoint are other processes' work."""
    checkpoints = tmp_path / "checkpoints"
    save(1)
    left = checkpoints / f".incomplete-step_73@{socket.gethostname()}-elsewhere-{os.getpid()}-0123abcd"
    shutil.copytree(checkpoints / "step_1", left)
    (checkpoints / ".incomplete-latest@host-1-0123abcd").symlink_to("step_1")
    (checkpoints / ".incomplete-optimizer-of mine").write_text("by hand")
    for step in (2, 3):
        parts_beside(checkpoints, step).mkdir()
    save(2)
    assert names(checkpoints) == [parts_beside(checkpoints, 3).name, "latest", "step_1", "step_2"]
    assert newest_complete(checkpoints) == (checkpoints / "step_2", [])


def test_a_complete_one_of_the_same_step_stays(save):
    inode = (save(3) / "model.safetensors").stat().st_ino
    assert (save(3) / "model.safetensors").stat().st_ino == inode


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_one_of_the_same_step_is_written_again(save, tmp_path, damage):
    save(2)
    DAMAGES[damage][0](save(3))
    folder = save(3)
    assert newest_complete(tmp_path / "checkpoints") == (folder, [])
    assert names(folder) == FILES
    assert (tmp_path / "checkpoints" / "latest").resolve() == folder


def test_damaged_later_ones_do_not_push_out_the_new_one(save, tmp_path):
    """A run went on from step 1, since 5 and 6 were damaged, with other periods: step 2 is its newest now."""
    for step in (1, 5, 6):
        save(step)
    for step in (5, 6):
        flip_byte(tmp_path / "checkpoints" / f"step_{step}" / "model.safetensors")
    save(2, keep=2)
    save(3, keep=2)
    found, faults = newest_complete(tmp_path / "checkpoints")
    assert found == tmp_path / "checkpoints" / "step_3" == (tmp_path / "checkpoints" / "latest").resolve()
    assert len(faults) == 2
    assert (tmp_path / "checkpoints" / "step_2").is_dir()
    assert not (tmp_path / "checkpoints" / "step_1").exists()


def test_folder_that_cannot_be_written(save, tmp_path):
    (tmp_path / "checkpoints").write_text("a file")
    with pytest.raises(OutputError, match=r"step_1 cannot be written .*choose an output folder that you may write to"):
        save(1)


def full_disk(*arguments, **options):
    raise OSError(errno.ENOSPC, "No space left on device")


def full_disk_as_torch_says_it(*arguments, **options):
    try:
        full_disk()
    finally:
        raise RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 576 vs 534")


def full_disk_as_safetensors_says_it(*arguments, **options):
    raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")


@pytest.mark.parametrize(
    ("function", "fault"),
    [
        ("torch.save", full_disk_as_torch_says_it),
        ("save_file", full_disk_as_safetensors_says_it),
        ("save_file", full_disk),
    ],
)
def test_full_disk(save, tmp_path, monkeypatch, function, fault):
    """The libraries have errors of their own for it; tests/pipeline/test_full_disk.py has a real one."""
    first = save(1)
    monkeypatch.setattr(checkpoint.torch if function == "torch.save" else checkpoint, function.split(".")[-1], fault)
    with pytest.raises(OutputError, match=r"step_2 cannot be written \(No space left on device\); choose an"):
        save(2)
    assert names(tmp_path / "checkpoints") == ["latest", "step_1"]
    assert newest_complete(tmp_path / "checkpoints") == (first, [])


def test_full_disk_at_the_link(save, tmp_path, monkeypatch):
    """The checkpoint is whole; a run that goes on finds it without the link."""
    save(1)
    monkeypatch.setattr(atomic.Path, "symlink_to", full_disk)
    with pytest.raises(OutputError, match=r"latest cannot be written \(No space left on device\); choose an"):
        save(2)
    assert newest_complete(tmp_path / "checkpoints") == (tmp_path / "checkpoints" / "step_2", [])
    assert names(tmp_path / "checkpoints") == ["latest", "step_1", "step_2"]


class Reader:
    """Has a file of checkpoint 1 open, on a file system that keeps it for as long."""

    def __init__(self, monkeypatch):
        self.is_there, self._remove = True, shutil.rmtree
        monkeypatch.setattr(deletion.shutil, "rmtree", self.remove)

    def remove(self, folder, *arguments, **options):
        if self.is_there and "step_1-" in folder.name:
            (folder / "checksums.json").unlink(missing_ok=True)
            raise OSError(errno.EBUSY, "Device or resource busy", str(folder / ".nfs0001"))
        self._remove(folder, *arguments, **options)


def test_old_one_that_somebody_reads(save, tmp_path, monkeypatch):
    """Nothing fails for it, what is left of it is no checkpoint, and it goes when the reader has."""
    checkpoints, old, reader = tmp_path / "checkpoints", Deletion(tmp_path / "checkpoints"), Reader(monkeypatch)
    for step in (1, 2, 3):
        save(step, keep=1, deletion=old)
    (left,) = checkpoints.glob(".deleted-step_1-*")
    assert names(checkpoints) == [left.name, "latest", "step_3"]
    assert newest_complete(checkpoints) == (checkpoints / "step_3", [])
    assert old.fault_to_tell() == f"{left} cannot be deleted (Device or resource busy)"
    assert old.fault_to_tell() is None
    save(4, keep=1, deletion=old)
    assert old.fault_to_tell() is None
    reader.is_there = False
    save(5, keep=2, deletion=Deletion(checkpoints))
    assert names(checkpoints) == ["latest", "step_4", "step_5"]


def test_old_one_that_keeps_its_name(save, tmp_path, monkeypatch):
    checkpoints, old = tmp_path / "checkpoints", Deletion(tmp_path / "checkpoints")

    def refuse(source, target, replace=os.replace):
        if target.name.startswith(".deleted"):
            raise PermissionError(errno.EACCES, "Permission denied")
        replace(source, target)

    save(1)
    with monkeypatch.context() as patched:
        patched.setattr(deletion.os, "replace", refuse)
        save(2, keep=1, deletion=old)
        assert old.fault_to_tell() == f"{checkpoints / 'step_1'} cannot be deleted (Permission denied)"
        flip_byte(checkpoints / "step_2" / "model.safetensors")
        message = r"step_2 is damaged and cannot be written again \(Permission denied\); make sure that you may"
        with pytest.raises(OutputError, match=message):
            save(2)
    save(2, keep=1, deletion=old)
    assert names(checkpoints) == ["latest", "step_2"]


@pytest.mark.parametrize(
    ("function", "error"),
    [("torch.save", RuntimeError("of another kind")), ("save_file", SafetensorError("of another kind"))],
)
def test_errors_that_are_not_the_disks(save, monkeypatch, function, error):
    def fail(*arguments, **options):
        raise error

    monkeypatch.setattr(checkpoint.torch if function == "torch.save" else checkpoint, function.split(".")[-1], fail)
    with pytest.raises(type(error), match="of another kind"):
        save(2)


class Foreign:
    """Something that a checkpoint may not hold."""


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "EOFError"),
        (b"no trainer state at all", "UnpicklingError"),
        ({"step": 1}, "KeyError"),
        ([1, 2], "TypeError"),
        (Foreign(), "UnpicklingError"),
        (None, "FileNotFoundError"),
    ],
    ids=["empty", "text", "lacks fields", "list", "object", "missing"],
)
def test_foreign_trainer_state(tmp_path, content, reason):
    path = tmp_path / "trainer.pt"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        torch.save(content, path)
    with pytest.raises(CheckpointError, match=rf"trainer\.pt holds no trainer state \({reason}\); resume from another"):
        load_trainer_state(tmp_path)


def test_cut_off_trainer_state(save):
    folder = save(1)
    path = folder / "trainer.pt"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(CheckpointError, match=r"holds no trainer state \((RuntimeError|UnpicklingError|EOFError)"):
        load_trainer_state(folder)
