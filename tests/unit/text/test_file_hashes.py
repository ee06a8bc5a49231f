import hashlib
import os
import time

import pytest

from cascaded_dllm.errors import DataError
from cascaded_dllm.text import file_hashes
from cascaded_dllm.text.file_hashes import HashedFile, hashed, known_hashes, remember

LONG_AGO = 10**18


@pytest.fixture
def digests(monkeypatch):
    """The files that are read to hash them, in a process that knows none."""
    monkeypatch.setattr(file_hashes, "_known", {})
    names, real = [], hashlib.file_digest
    monkeypatch.setattr(hashlib, "file_digest", lambda file, kind: names.append(file.name) or real(file, kind))
    return names


def write(path, text, modified_ns=LONG_AGO):
    path.write_text(text)
    os.utime(path, ns=(modified_ns, modified_ns))
    return path


def test_a_file_is_read_once_until_it_changes(tmp_path, digests):
    file = write(tmp_path / "a.txt", "One")
    expected = HashedFile(str(file), 3, LONG_AGO, hashlib.sha256(b"One").hexdigest())
    assert [hashed(file), hashed(file)] == [expected, expected]
    assert len(digests) == 1
    assert hashed(write(file, "Two", LONG_AGO + 1)).sha256 == hashlib.sha256(b"Two").hexdigest()
    assert hashed(write(file, "Three", LONG_AGO + 1)).sha256 == hashlib.sha256(b"Three").hexdigest()
    assert len(digests) == 3


def test_a_file_that_changed_just_now_may_change_unseen(tmp_path, digests):
    now = time.time_ns()
    file = write(tmp_path / "a.txt", "One", now)
    first = hashed(file)
    write(file, "Two", now)
    assert hashed(file).sha256 != first.sha256
    assert known_hashes([file]) == ()


def test_what_another_process_knows(tmp_path, digests):
    file = write(tmp_path / "a.txt", "One")
    other = write(tmp_path / "b.txt", "One")
    handed_on = [hashed(file)]
    assert known_hashes([file, other]) == tuple(handed_on)
    file_hashes._known.clear()
    digests.clear()
    remember(handed_on)
    assert hashed(file) == handed_on[0]
    assert digests == []
    write(file, "Two", LONG_AGO + 1)
    assert hashed(file).sha256 == hashlib.sha256(b"Two").hexdigest()


def test_a_file_out_of_reach(tmp_path):
    with pytest.raises(DataError, match=r"a\.txt cannot be read \(No such file or directory\)"):
        hashed(tmp_path / "a.txt")
