import contextlib
import errno
import os
import random
import signal
import time
import warnings
from pathlib import Path

import numpy as np
import pytest

from cascaded_dllm.errors import DataError, OutputError
from cascaded_dllm.importance import word_blocks, word_files
from cascaded_dllm.importance.word_cache import MAX_CHARACTERS, WordCache
from cascaded_dllm.importance.word_files import WordFiles, merge_small
from tests.processes import started
from tests.unit.importance.word_vectors import WIDTH, Embed, expected

WORDS = ["sea", "na\u00efve", "\u65e5\u672c", "a_1", "stra\u00dfe"]


def contents(folder: Path) -> dict[str, bytes]:
    """What a process that comes later finds in a folder."""
    blocks = WordFiles(folder).new_blocks()
    return {word: vector.tobytes() for words, vectors in blocks for word, vector in zip(words, vectors, strict=True)}


@pytest.mark.parametrize("has_folder", [True, False])
def test_a_word_is_embedded_once(tmp_path, has_folder):
    embed = Embed()
    cache = WordCache(embed, tmp_path if has_folder else None)
    assert np.array_equal(cache.vectors(WORDS[:3]), expected(WORDS[:3]))
    assert np.array_equal(cache.vectors(WORDS[::-1]), expected(WORDS[::-1]))
    assert embed.embedded == [*WORDS[:3], *WORDS[:2:-1]]


def test_what_comes_back_is_the_callers_own():
    cache = WordCache(Embed(), None)
    cache.vectors(["sea"])[:] = 0
    assert np.array_equal(cache.vectors(["sea"]), expected(["sea"]))


def test_another_process_gets_the_same_bits_without_embedding(tmp_path):
    WordCache(Embed(), tmp_path / "new" / "folder").vectors(WORDS)
    embed = Embed()
    assert WordCache(embed, tmp_path / "new" / "folder").vectors(WORDS).tobytes() == expected(WORDS).tobytes()
    assert embed.embedded == []


def test_words_of_others_are_found_while_both_run(tmp_path):
    embeds = Embed(), Embed()
    first, second = (WordCache(embed, tmp_path) for embed in embeds)
    first.vectors(["sea"])
    second.vectors(["sea", "house"])
    first.vectors(["house", "dog"])
    second.vectors(["dog", "cat"])
    assert [embed.embedded for embed in embeds] == [["sea", "dog"], ["house", "cat"]]
    # A file for each, and nothing twice.
    assert len(list(tmp_path.iterdir())) == 2
    assert contents(tmp_path).keys() == {"sea", "house", "dog", "cat"}


def test_memory_is_bounded(tmp_path):
    embed = Embed()
    cache = WordCache(embed, tmp_path, max_words=3)
    assert np.array_equal(cache.vectors(WORDS), expected(WORDS))
    assert np.array_equal(cache.vectors(WORDS[::-1]), expected(WORDS[::-1]))
    assert embed.embedded == [*WORDS, *WORDS[:2:-1]]
    assert list(contents(tmp_path)) == WORDS[:3]
    # As is what is read: the first words of a full folder.
    small = WordCache(Embed(), tmp_path, max_words=2)
    assert np.array_equal(small.vectors(WORDS), expected(WORDS))


def test_a_word_that_several_processes_embedded_takes_one_place(tmp_path):
    for number in range(3):
        WordCache(Embed(), tmp_path / str(number)).vectors(WORDS[:3])
        (path,) = (tmp_path / str(number)).iterdir()
        path.rename(tmp_path / path.name)
    embed = Embed()
    cache = WordCache(embed, tmp_path, max_words=len(WORDS))
    for _ in range(2):
        assert np.array_equal(cache.vectors(WORDS), expected(WORDS))
    assert embed.embedded == WORDS[3:]


def test_what_is_hardly_a_word_is_not_kept(tmp_path):
    embed = Embed()
    cache, long = WordCache(embed, tmp_path), "x" * (MAX_CHARACTERS + 1)
    for _ in range(2):
        assert np.array_equal(cache.vectors([long, "sea", long[1:]]), expected([long, "sea", long[1:]]))
    assert embed.embedded == [long, "sea", long[1:], long]
    assert list(contents(tmp_path)) == ["sea", long[1:]]


def file_of(folder: Path, *calls: list[str]) -> Path:
    cache = WordCache(Embed(), folder)
    for words in calls:
        cache.vectors(words)
    (path,) = folder.iterdir()
    return path


def test_half_a_block_at_the_end_is_not_read(tmp_path):
    """Wherever a writer is killed: the blocks before are good, and nobody is told."""
    path = file_of(tmp_path, ["sea", "dog"], ["house"])
    whole = path.read_bytes()
    path.write_bytes(whole[: whole.index(b"house") - 56])
    first_block = path.stat().st_size
    for size in range(len(whole)):
        path.write_bytes(whole[:size])
        assert list(contents(tmp_path)) == ([] if size < first_block else ["sea", "dog"]), size
    path.write_bytes(whole)
    assert list(contents(tmp_path)) == ["sea", "dog", "house"]


def test_a_block_is_read_once_it_is_complete(tmp_path):
    path = file_of(tmp_path, ["sea"], ["house"])
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    files = WordFiles(tmp_path)
    assert [words for words, _ in files.new_blocks()] == [["sea"]]
    path.write_bytes(whole)
    assert [words for words, _ in files.new_blocks()] == [["house"]]
    assert list(files.new_blocks()) == []


def test_a_damaged_byte_never_becomes_a_wrong_vector(tmp_path):
    path = file_of(tmp_path, ["sea", "dog"], ["house"])
    whole = path.read_bytes()
    warned = 0
    for place in range(len(whole)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0x20]) + whole[place + 1 :])
        embed = Embed()
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            vectors = WordCache(embed, tmp_path).vectors(["sea", "dog", "house"])
        assert np.array_equal(vectors, expected(["sea", "dog", "house"]))
        assert "house" in embed.embedded
        warned += len(caught)
        for own in set(tmp_path.iterdir()) - {path}:
            own.unlink()
    # Only where a length has grown is damage like a block that is being written.
    assert warned > 0.8 * len(whole)


def test_a_header_that_fits_the_length_alone_is_damage(tmp_path):
    path = file_of(tmp_path, ["sea", "dog"])
    whole = path.read_bytes()
    words_and_width = whole.index((2).to_bytes(4, "little") + WIDTH.to_bytes(4, "little"))
    swapped = WIDTH.to_bytes(4, "little") + (2).to_bytes(4, "little")
    path.write_bytes(whole[:words_and_width] + swapped + whole[words_and_width + 8 :])
    with pytest.warns(UserWarning, match="is damaged at byte 0"):
        assert contents(tmp_path) == {}


def test_damage_is_told_once_with_the_remedy(tmp_path):
    path = file_of(tmp_path, ["sea"], ["house"])
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    files = WordFiles(tmp_path)
    with pytest.warns(UserWarning, match=r"\.words in the word cache is damaged at byte \d+; .* Remove the file"):
        assert [words for words, _ in files.new_blocks()] == [["sea"]]
    assert list(files.new_blocks()) == []


def test_a_foreign_file_is_damage(tmp_path):
    (tmp_path / "notes.words").write_text("These are words of another kind, and enough of them for a header. " * 2)
    with pytest.warns(UserWarning, match="is damaged at byte 0"):
        assert contents(tmp_path) == {}


def test_a_cache_that_is_cleared_while_it_is_read(tmp_path, monkeypatch):
    path = file_of(tmp_path, ["sea"])
    listed = [path, tmp_path / "gone.words"]
    monkeypatch.setattr(Path, "glob", lambda self, pattern: iter(listed))
    assert [words for words, _ in WordFiles(tmp_path).new_blocks()] == [["sea"]]


def test_unreadable_file(tmp_path):
    (tmp_path / "a.words").mkdir()
    with pytest.raises(DataError, match=r"a\.words in the word cache cannot be read \(Is a directory\); remove it, or"):
        WordCache(Embed(), tmp_path).vectors(["sea"])


def test_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match=r"cannot be written .*; name a folder that you may write to and that"):
        WordCache(Embed(), tmp_path / "file" / "cache").vectors(["sea"])


def write(folder: Path, first: int, *, step: int, calls: int) -> None:
    """In a process: words from `first` on, some of which it has had before."""
    cache = WordCache(Embed(), folder)
    for number in range(first, first + calls * step, step):
        cache.vectors([f"word{place}" for place in range(number, number + 3 * step)])


def write_small(folder: Path, first: int) -> None:
    write(folder, first, step=7, calls=200)


def write_much(folder: Path) -> None:
    write(folder, 0, step=4000, calls=10**6)


def test_processes_that_write_at_the_same_time(tmp_path):
    with contextlib.ExitStack() as stack:
        processes = [stack.enter_context(started(write_small, tmp_path, first)) for first in (0, 300, 0)]
        assert [process.wait().returncode for process in processes] == [0, 0, 0]
    assert len(list(tmp_path.iterdir())) <= 3
    found = contents(tmp_path)
    assert len(found) == 300 + 199 * 7 + 21
    assert all(found[word] == expected([word]).tobytes() for word in found)


def test_a_writer_that_is_killed(tmp_path):
    generator = random.Random(0)
    for _ in range(5):
        files = set(tmp_path.iterdir())
        with started(write_much, tmp_path) as process:
            while set(tmp_path.iterdir()) == files and process.poll() is None:
                time.sleep(0.01)
            time.sleep(generator.random() / 5)
            process.send(signal.SIGKILL)
            assert process.wait().returncode == -signal.SIGKILL
    found = contents(tmp_path)
    assert len(found) >= 12_000
    assert all(found[word] == expected([word]).tobytes() for word in found)


def write_one(folder: Path, first: int, num: int = 2) -> None:
    """What a short run leaves: a small file with a block."""
    WordFiles(folder).append(
        [f"word{place}" for place in range(first, first + num)],
        expected([f"word{place}" for place in range(first, first + num)]),
    )


def make_old(folder: Path) -> None:
    for path in folder.glob("*.words"):
        os.utime(path, (time.time() - 10_000,) * 2)


def test_many_small_files_become_one(tmp_path):
    for number in range(40):
        write_one(tmp_path, number)
    before = contents(tmp_path)
    assert len(list(tmp_path.iterdir())) == 40, "nobody knows whether their processes still run"
    make_old(tmp_path)
    embed = Embed()
    words = [f"word{place}" for place in range(41)]
    assert np.array_equal(WordCache(embed, tmp_path).vectors(words), expected(words))
    assert embed.embedded == []
    (path,) = tmp_path.iterdir()
    assert path.suffix == ".words"
    assert contents(tmp_path) == before
    # A block for all, and no word twice.
    assert path.stat().st_size == 56 + len("\n".join(words)) + 4 * WIDTH * 41


@pytest.mark.parametrize("num", [2, 15, 16, 17])
def test_few_files_are_left_alone(tmp_path, num):
    for number in range(num):
        write_one(tmp_path, number)
    make_old(tmp_path)
    merge_small(tmp_path)
    assert len(list(tmp_path.iterdir())) == (num if num < 16 else 1)


def test_large_files_and_files_in_use_stay(tmp_path, monkeypatch):
    monkeypatch.setattr(word_files, "_SMALL_BYTES", 1000)
    write_one(tmp_path, 0, num=100)
    (large,) = tmp_path.iterdir()
    for number in range(20):
        write_one(tmp_path, number)
    make_old(tmp_path)
    write_one(tmp_path, 500)
    (used,) = (path for path in tmp_path.iterdir() if time.time() - path.stat().st_mtime < 1000)
    merge_small(tmp_path)
    assert {large, used} < set(tmp_path.iterdir())
    assert len(list(tmp_path.iterdir())) == 3


def test_merged_piece_by_piece(tmp_path, monkeypatch):
    """Memory is bounded, and words are in blocks of bounded size."""
    monkeypatch.setattr(word_files, "_MERGED_BYTES", 1500)
    monkeypatch.setattr(word_blocks, "_BLOCK_WORDS", 3)
    for number in range(40):
        write_one(tmp_path, number)
    before = contents(tmp_path)
    sizes = [path.stat().st_size for path in tmp_path.iterdir()]
    make_old(tmp_path)
    merge_small(tmp_path)
    assert contents(tmp_path) == before
    assert 1 < len(list(tmp_path.iterdir())) <= 2 * sum(sizes) // 1500 + 1


def test_damaged_files_are_not_merged(tmp_path):
    for number in range(20):
        write_one(tmp_path, 2 * number)
    damaged = sorted(tmp_path.iterdir())[3]
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"?")
    make_old(tmp_path)
    merge_small(tmp_path)
    assert damaged in tmp_path.iterdir()
    assert len(list(tmp_path.iterdir())) == 2
    with pytest.warns(UserWarning, match="is damaged at byte 0"):
        assert len(contents(tmp_path)) == 38


def test_half_a_block_of_a_killed_writer_goes(tmp_path):
    for number in range(20):
        write_one(tmp_path, 2 * number)
    for path in tmp_path.iterdir():
        path.write_bytes(path.read_bytes() + path.read_bytes()[:60])
    make_old(tmp_path)
    merge_small(tmp_path)
    assert len(list(tmp_path.iterdir())) == 1
    assert len(contents(tmp_path)) == 40


@pytest.mark.parametrize("moment", ["before", "while it is written"])
def test_a_block_is_written_again_where_its_file_was_merged(tmp_path, monkeypatch, moment):
    files = WordFiles(tmp_path)
    files.append(["sea"], expected(["sea"]))
    (own,) = tmp_path.iterdir()
    if moment == "before":
        own.unlink()
    else:
        fstat = os.fstat
        monkeypatch.setattr(os, "fstat", lambda number: (own.unlink(missing_ok=True), fstat(number))[1])
    files.append(["dog"], expected(["dog"]))
    monkeypatch.undo()
    assert own not in tmp_path.iterdir()
    assert list(contents(tmp_path)) == ["dog"]


@pytest.mark.parametrize("number", [errno.ESTALE, errno.EROFS, errno.EMFILE])
def test_a_file_that_the_system_does_not_know_or_cannot_write(tmp_path, monkeypatch, number):
    """A network file system says the first of a file that another machine has removed."""
    files = WordFiles(tmp_path)
    files.append(["sea"], expected(["sea"]))
    (own,) = tmp_path.iterdir()
    fstat, left = os.fstat, [number]

    def fail_once(descriptor):
        if left:
            raise OSError(left.pop(), "it fails")
        return fstat(descriptor)

    monkeypatch.setattr(os, "fstat", fail_once)
    if number != errno.ESTALE:
        remedy = "raise the limit of open files" if number == errno.EMFILE else "name a folder that you may"
        with pytest.raises(OutputError, match=rf"cannot be written \(it fails\); {remedy}"):
            files.append(["dog"], expected(["dog"]))
        return
    files.append(["dog"], expected(["dog"]))
    (new,) = set(tmp_path.iterdir()) - {own}
    assert b"dog" in new.read_bytes()


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_said_once_and_costs_no_more_than_the_cache(tmp_path, monkeypatch, number):
    def fail(*_):
        raise OSError(number, "it is full")

    embed = Embed()
    cache = WordCache(embed, tmp_path)
    cache.vectors(["sea"])
    with monkeypatch.context() as patch:
        patch.setattr(os, "fstat", fail)
        with pytest.warns(UserWarning, match=r"cannot be written \(it is full\); its words are kept .* Make room"):
            assert np.array_equal(cache.vectors(["dog"]), expected(["dog"]))
        assert np.array_equal(cache.vectors(["fox"]), expected(["fox"]))
    # A block may be there in part, after which no other would be read.
    cache.vectors(["dog", "fox", "key"])
    assert embed.embedded == ["sea", "dog", "fox", "key"]
    assert "key" not in contents(tmp_path)


def test_a_file_that_grows_while_it_is_merged_stays(tmp_path, monkeypatch):
    files = WordFiles(tmp_path)
    files.append(["sea"], expected(["sea"]))
    for number in range(20):
        write_one(tmp_path, number)
    make_old(tmp_path)
    write_bytes = word_files.write_bytes

    def grow_meanwhile(path, content):
        files.append(["dog"], expected(["dog"]))
        write_bytes(path, content)

    monkeypatch.setattr(word_files, "write_bytes", grow_meanwhile)
    merge_small(tmp_path)
    assert len(list(tmp_path.iterdir())) == 2
    assert {"sea", "dog", "word0"} < contents(tmp_path).keys()


def test_one_process_merges_at_a_time(tmp_path):
    for number in range(20):
        write_one(tmp_path, number)
    make_old(tmp_path)
    turn = tmp_path / "merging"
    turn.touch()
    merge_small(tmp_path)
    assert len(list(tmp_path.glob("*.words"))) == 20
    # One that was killed has the turn for a while, and no longer.
    os.utime(turn, (time.time() - 10_000,) * 2)
    merge_small(tmp_path)
    merge_small(tmp_path)
    assert len(list(tmp_path.iterdir())) == 1


def test_a_folder_that_is_read_only_serves_as_it_is(tmp_path, monkeypatch):
    for number in range(20):
        write_one(tmp_path, 2 * number)
    make_old(tmp_path)

    def fail(self, *_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "touch", fail)
    assert len(contents(tmp_path)) == 40


def test_files_that_are_merged_while_they_are_read(tmp_path):
    for number in range(20):
        write_one(tmp_path, 2 * number)
    files = WordFiles(tmp_path)
    blocks = files.new_blocks()
    found = set(next(blocks)[0])
    make_old(tmp_path)
    merge_small(tmp_path)
    for words, _ in blocks:
        found.update(words)
    assert len(found) == 40


def write_and_merge(folder: Path, first: int, calls: int) -> None:
    """In a process: short runs, one after the other, all of which merge what they find."""
    word_files._SETTLED_SECONDS = 0.0
    word_files._MERGED_FROM = 2
    for number in range(first, first + calls):
        WordCache(Embed(), folder).vectors([f"word{number}", f"word{number + 1}"])
        with (folder.parent / f"{first}.done").open("a") as file:
            file.write(f"{number}\n")


def test_processes_that_merge_and_are_killed(tmp_path):
    """What a call has come back from is there, whoever is killed when, and however many merge and read."""
    generator = random.Random(0)
    cache = tmp_path / "cache"
    for round_ in range(4):
        with contextlib.ExitStack() as stack:
            firsts = [10_000 * (3 * round_ + place) for place in range(3)]
            processes = [stack.enter_context(started(write_and_merge, cache, first, 10_000)) for first in firsts]
            while not all((tmp_path / f"{first}.done").exists() for first in firsts):
                time.sleep(0.01)
            for process in processes:
                time.sleep(generator.random() / 3)
                process.send(signal.SIGKILL)
                assert process.wait().returncode == -signal.SIGKILL
    done = [int(line) for path in tmp_path.glob("*.done") for line in path.read_text().splitlines()]
    assert len(done) > 30
    found = contents(cache)
    assert {f"word{number}" for number in done} <= found.keys()
    assert all(found[word] == expected([word]).tobytes() for word in found)
