import contextlib
import json
import os
import shutil
import signal
import socket
import threading
from concurrent.futures.process import BrokenProcessPool

import numpy as np
import pytest

from cascaded_dllm import lock_owner
from cascaded_dllm.cascade.select import select_positions
from cascaded_dllm.cascade.spec import CascadeSpec
from cascaded_dllm.data import build_stages, shards
from cascaded_dllm.data.dataset import StageDataset
from cascaded_dllm.data.preprocessed import PreprocessedDataset
from cascaded_dllm.data.stages import StageArrays
from cascaded_dllm.errors import ConfigError, DataError, OutputError, WorkerDiedError
from cascaded_dllm.pid_space import pid_space
from tests.reference.plain_windows import plain_windows

EOS = 49
SPEC = CascadeSpec((2, 4, 8))


def random_documents(count=60, seed=0):
    draw = np.random.default_rng(seed)
    documents = []
    for number in range(count):
        length = int(draw.integers(1, 30))
        importance = draw.choice([1, 2, 3, 7, -100], length).astype(float).tolist()
        documents.append((f"d{number}", draw.integers(0, 12, length).tolist(), importance))
    return documents


@pytest.fixture(scope="module")
def dataset_folder(tmp_path_factory, make_dataset):
    return make_dataset(tmp_path_factory.mktemp("data") / "toy", random_documents(), num_shards=2)


def by_hand(folder, spec, packing, *, unique=True):
    """Windows, their stages and positions, one at a time."""
    dataset = PreprocessedDataset.open(folder)
    documents = [
        list(zip(record.token_ids.tolist(), record.importance.tolist(), strict=True)) for record in dataset.records()
    ]
    eos = (EOS, dataset.settings.background)
    found, tail = plain_windows(documents, spec.window_length, eos=eos, packing=packing)
    chosen = []
    for window in found:
        token_ids, importance = zip(*window, strict=True)
        positions = select_positions(
            token_ids, importance, spec.stage_lengths, method=dataset.settings.method, unique=unique
        )
        if positions is not None:
            chosen.append(([[token_ids[i] for i in stage] for stage in positions], positions))
    return chosen, {"too_few_distinct_tokens": len(found) - len(chosen), "tail_tokens": len(tail)}


@pytest.fixture(scope="module", params=[10, 100, 1 << 20])
def folder_of_row_groups(request, tmp_path_factory, make_dataset):
    """The same documents in many row groups, some of them shorter than a window, and in one a shard."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shards, "ROW_GROUP_TOKENS", request.param)
        return make_dataset(tmp_path_factory.mktemp("data") / "toy", random_documents(), num_shards=2)


@pytest.mark.slow
@pytest.mark.parametrize("packing", ["stream", "document"])
@pytest.mark.parametrize("lengths", [(8,), (3, 9), (2, 4, 8), (1, 2, 3, 5), (2, 4, 40)])
@pytest.mark.parametrize("batch", [1, 4096])
def test_arrays_equal_the_selection_by_hand(folder_of_row_groups, tmp_path, monkeypatch, packing, lengths, batch):
    monkeypatch.setattr(build_stages, "_BATCH_WINDOWS", batch)
    spec = CascadeSpec(lengths)
    arrays = StageArrays.build(folder_of_row_groups, spec, packing=packing, out=tmp_path)
    expected, dropped = by_hand(folder_of_row_groups, spec, packing)
    assert arrays.num_windows == len(expected) > 0
    assert arrays.dropped == dropped
    assert len(arrays.stages) == len(lengths)
    assert len(arrays.positions) == len(lengths) - 1
    for k, stage in enumerate(arrays.stages):
        assert stage.dtype == np.uint8
        assert stage.tolist() == [stages[k] for stages, _ in expected]
    for k, positions in enumerate(arrays.positions):
        assert positions.tolist() == [chosen[k] for _, chosen in expected]
        np.testing.assert_array_equal(np.take_along_axis(arrays.stages[-1], positions, axis=1), arrays.stages[k])


@pytest.mark.parametrize("packing", ["stream", "document"])
def test_with_copies_no_window_is_dropped(dataset_folder, tmp_path, packing):
    spec = CascadeSpec((3, 6, 7))
    arrays = StageArrays.build(dataset_folder, spec, packing=packing, unique=False, out=tmp_path)
    expected, dropped = by_hand(dataset_folder, spec, packing, unique=False)
    assert arrays.num_windows == len(expected)
    assert arrays.dropped == dropped == {"too_few_distinct_tokens": 0, "tail_tokens": dropped["tail_tokens"]}
    for k, stage in enumerate(arrays.stages):
        assert stage.tolist() == [stages[k] for stages, _ in expected]
    once = StageArrays.build(dataset_folder, spec, packing=packing, out=tmp_path)
    assert once.num_windows < arrays.num_windows
    assert (once.unique, arrays.unique, StageArrays.open(tmp_path / arrays.fingerprint).unique) == (True, False, False)


def test_windows_that_would_be_dropped_may_keep_copies(dataset_folder, tmp_path):
    """The others are what they are without them, and these what they are where all keep copies."""
    spec = CascadeSpec((3, 6, 7))
    once, copies, mixed = (
        StageArrays.build(dataset_folder, spec, packing="stream", out=tmp_path, **rule)
        for rule in ({}, {"unique": False}, {"keeps_all": True})
    )
    assert once.num_windows < mixed.num_windows == copies.num_windows
    assert mixed.dropped["too_few_distinct_tokens"] == 0
    rows = {tuple(window): [stage.tolist() for stage in stages] for window, *stages in zip(
        once.stages[-1].tolist(), *once.stages[:-1], strict=True)}  # fmt: skip
    assert len(rows) > 3
    for number, window in enumerate(mixed.stages[-1].tolist()):
        expected = rows.get(tuple(window), [stage[number].tolist() for stage in copies.stages[:-1]])
        assert [stage[number].tolist() for stage in mixed.stages[:-1]] == expected
    # Where copies are kept anyway, nothing is left to decide.
    same = StageArrays.build(dataset_folder, spec, packing="stream", out=tmp_path, unique=False, keeps_all=True)
    assert same.fingerprint == copies.fingerprint


def test_scores_are_selected_like_labels(tmp_path, make_dataset):
    draw = np.random.default_rng(3)
    documents = [("d", draw.integers(0, 12, 200).tolist(), draw.choice([-1.2, 0, 0.5, 1.1], 200).tolist())]
    folder = make_dataset(tmp_path / "toy", documents, method="keybert_no_stopword", background=-1.2)
    expected, _ = by_hand(folder, SPEC, "stream")
    arrays = StageArrays.build(folder, SPEC, packing="stream")
    assert [array.tolist() for array in arrays.stages] == [[stages[k] for stages, _ in expected] for k in range(3)]


def test_arrays_carry_what_training_needs(dataset_folder, tmp_path):
    arrays = StageArrays.build(dataset_folder, SPEC, packing="stream", out=tmp_path)
    assert (arrays.spec, arrays.packing, arrays.method) == (SPEC, "stream", "constituency")
    assert (arrays.eos_id, arrays.vocab_size, arrays.tokenizer) == (EOS, 50, "0123456789abcdef")
    assert arrays.scorer == {"tagger": "by hand"}
    assert (tmp_path / arrays.fingerprint).is_dir()


def test_folders_as_texts(dataset_folder, tmp_path):
    built = StageArrays.build(str(dataset_folder), SPEC, packing="stream", out=str(tmp_path / "stages"))
    assert (tmp_path / "stages" / built.fingerprint).is_dir()


def test_built_once(dataset_folder, tmp_path):
    folder = shutil.copytree(dataset_folder, tmp_path / "toy")
    first = StageArrays.build(folder, SPEC, packing="stream")
    cached = folder / "stages" / first.fingerprint
    assert sorted(path.name for path in cached.iterdir()) == [
        "manifest.json",
        "positions1.npy",
        "positions2.npy",
        "stage1.npy",
        "stage2.npy",
        "stage3.npy",
    ]
    # Opening does not look at the shards, of which there may be thousands.
    for shard in folder.glob("shard_*"):
        shutil.rmtree(shard)
    again = StageArrays.build(folder, SPEC, packing="stream")
    np.testing.assert_array_equal(again.stages[0], first.stages[0])


@pytest.mark.parametrize(
    ("vocab_size", "length", "kinds"),
    [(256, 256, ("uint8", "uint8")), (257, 257, ("uint16", "uint16")), (65536, 8, ("uint16", "uint8")),
     (65537, 8, ("int32", "uint8"))],
)  # fmt: skip
def test_vocabulary_and_length_decide_how_numbers_are_stored(tmp_path, make_dataset, vocab_size, length, kinds):
    """Also the largest ones come to training as they are."""
    ids = [*range(vocab_size - 300, vocab_size)] if vocab_size > 300 else [*range(vocab_size)] * 2
    folder = make_dataset(tmp_path / "toy", [("d", ids, [1.0] * len(ids))], vocab_size=vocab_size)
    arrays = StageArrays.build(folder, CascadeSpec((3, length)), packing="stream", unique=False)
    assert (arrays.stages[0].dtype, arrays.stages[1].dtype, arrays.positions[0].dtype) == (kinds[0], kinds[0], kinds[1])
    assert arrays.stages[-1].ravel().tolist() == ids[: arrays.stages[-1].size]
    prefix, target = StageDataset(arrays, 2).batch(np.arange(arrays.num_windows))
    assert (prefix.dtype, target.dtype) == (np.int64, np.int64)
    np.testing.assert_array_equal(target, arrays.stages[-1])
    places = StageDataset(arrays, 2, is_placed=True).places(np.arange(arrays.num_windows))
    assert places.dtype == np.int64
    np.testing.assert_array_equal(np.take_along_axis(target, places, axis=1), prefix)


def test_stages_of_before_are_opened(dataset_folder, tmp_path):
    """All numbers were int32."""
    arrays = StageArrays.build(dataset_folder, SPEC, packing="stream", out=tmp_path)
    for path in (tmp_path / arrays.fingerprint).glob("*.npy"):
        # In its place, as the arrays are maps of the file.
        np.save(tmp_path / "wide.npy", np.load(path).astype(np.int32))
        (tmp_path / "wide.npy").replace(path)
    old = StageArrays.build(dataset_folder, SPEC, packing="stream", out=tmp_path)
    assert {array.dtype for array in (*old.stages, *old.positions)} == {np.dtype(np.int32)}
    rows = np.arange(old.num_windows)
    for stage in (2, 3):
        for now, before in zip(
            (*StageDataset(arrays, stage).batch(rows), StageDataset(arrays, stage, is_placed=True).places(rows)),
            (*StageDataset(old, stage).batch(rows), StageDataset(old, stage, is_placed=True).places(rows)),
            strict=True,
        ):
            np.testing.assert_array_equal(now, before)


def test_token_that_is_not_in_the_vocabulary(tmp_path, make_dataset):
    folder = make_dataset(tmp_path / "toy", [("d", [1, 2, 300, 4, 5, 6, 7, 8], [1.0] * 8)])
    with pytest.raises(DataError, match="the token id 300, and its manifest a vocabulary whose ids are at most 255; "):
        StageArrays.build(folder, SPEC, packing="stream")


def test_fingerprint_depends_on_lengths_packing_and_data(dataset_folder, tmp_path, make_dataset):
    other = make_dataset(tmp_path / "other", random_documents(seed=1))
    built = [
        StageArrays.build(dataset_folder, SPEC, packing="stream", out=tmp_path / "out"),
        StageArrays.build(dataset_folder, CascadeSpec((4, 8)), packing="stream", out=tmp_path / "out"),
        StageArrays.build(dataset_folder, SPEC, packing="document", out=tmp_path / "out"),
        StageArrays.build(other, SPEC, packing="stream", out=tmp_path / "out"),
        StageArrays.build(dataset_folder, SPEC, packing="stream", unique=False, out=tmp_path / "out"),
    ]
    assert len({arrays.fingerprint for arrays in built}) == 5


def test_of_two_that_want_the_same_stages_one_builds_them(dataset_folder, tmp_path, monkeypatch):
    monkeypatch.setattr(lock_owner, "_POLL_SECONDS", 0.01)
    is_waited_for, told, waiting = threading.Event(), [], []

    def wait_and_open():
        arrays = StageArrays.build(
            dataset_folder, SPEC, packing="stream", out=tmp_path,
            on_progress=lambda *numbers: told.append(numbers),
            on_wait=lambda owner: (waiting.append(owner), is_waited_for.set()),
        )  # fmt: skip
        waiting.append(arrays)

    other = threading.Thread(target=wait_and_open)

    def on_progress(done, total):
        if done == 30:
            other.start()
            assert is_waited_for.wait(20)

    outer = StageArrays.build(dataset_folder, SPEC, packing="stream", out=tmp_path, on_progress=on_progress)
    other.join()
    assert told == []
    assert waiting[0] == f"process {os.getpid()} on {socket.gethostname()}"
    np.testing.assert_array_equal(outer.stages[-1], waiting[1].stages[-1])
    assert [path.name for path in tmp_path.iterdir()] == [outer.fingerprint]


def test_what_killed_builds_have_left_goes_with_the_next_one(dataset_folder, tmp_path):
    """Also that of another machine, and of other stages only that of nobody who lives."""
    fingerprint = StageArrays.build(dataset_folder, SPEC, packing="stream", out=tmp_path / "first").fingerprint
    out = tmp_path / "second"
    out.mkdir()
    owner = {"host": "another-machine", "pid": 1, "started": "7", "token": "ab"}
    lock = out / f"{fingerprint}.lock"
    lock.write_text(json.dumps(owner))
    os.utime(lock, (1e9, 1e9))
    for name in (fingerprint, "another"):
        (out / f".incomplete-{name}@another-machine-0123abcd-1-0123abcd").mkdir()
    (out / f".incomplete-another@{socket.gethostname()}-{pid_space()}-{2**22 + 1}-0123abcd").mkdir()
    StageArrays.build(dataset_folder, SPEC, packing="stream", out=out)
    kept = {".incomplete-another@another-machine-0123abcd-1-0123abcd", fingerprint}
    assert {path.name for path in out.iterdir()} == kept


def test_exception_leaves_nothing(dataset_folder, tmp_path):
    def on_progress(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        StageArrays.build(dataset_folder, SPEC, packing="stream", out=tmp_path, on_progress=on_progress)
    assert list(tmp_path.iterdir()) == []


def test_progress_counts_documents(dataset_folder, tmp_path):
    told = []
    StageArrays.build(
        dataset_folder, SPEC, packing="stream", out=tmp_path, on_progress=lambda done, total: told.append((done, total))
    )
    assert told == [(30, 60), (60, 60)]


def test_corpus_too_small_for_a_window(tmp_path, make_dataset):
    folder = make_dataset(tmp_path / "toy", [("d", [1, 2, 3], [1.0, 1.0, 1.0])])
    with pytest.raises(DataError, match="has 3 tokens in 1 documents, and one window needs 8; give a larger corpus"):
        StageArrays.build(folder, SPEC, packing="stream")
    assert list((folder / "stages").iterdir()) == []


def test_corpus_without_enough_distinct_tokens(tmp_path, make_dataset):
    folder = make_dataset(tmp_path / "toy", [("d", [1] * 40, [1.0] * 40)])
    message = r"none of the 5 windows of 8 tokens .* has the 4 distinct tokens that cons.* \(data.unique=false\)$"
    with pytest.raises(DataError, match=message):
        StageArrays.build(folder, SPEC, packing="stream")


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def processes_for_little(monkeypatch):
    """Processes are started for a few tokens already."""
    monkeypatch.setattr(build_stages, "_GROUPS_PER_PROCESS", 1)


@pytest.mark.slow
@pytest.mark.usefixtures("processes_for_little")
@pytest.mark.parametrize("packing", ["stream", "document"])
def test_processes_build_the_same_bytes(folder_of_row_groups, tmp_path, packing):
    one, two = (
        tmp_path
        / name
        / StageArrays.build(
            folder_of_row_groups, SPEC, packing=packing, out=tmp_path / name, workers=workers
        ).fingerprint
        for name, workers in (("one", 1), ("two", 2))
    )
    assert contents(one) == contents(two)


@pytest.mark.slow
@pytest.mark.usefixtures("processes_for_little")
def test_killed_process_leaves_nothing_and_the_next_build_completes(dataset_folder, tmp_path, monkeypatch):
    real_pool = build_stages.process_pool

    @contextlib.contextmanager
    def pool_with_a_killed_process(num_processes):
        with real_pool(num_processes) as pool:
            with contextlib.suppress(BrokenProcessPool):
                pool.submit(os.kill, pool.submit(os.getpid).result(), signal.SIGKILL).result()
            yield pool

    monkeypatch.setattr(build_stages, "process_pool", pool_with_a_killed_process)
    with pytest.raises(WorkerDiedError, match=r"builds the stages of .* was killed, .* run the same command again"):
        StageArrays.build(dataset_folder, SPEC, packing="stream", out=tmp_path, workers=2)
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setattr(build_stages, "process_pool", real_pool)
    assert StageArrays.build(dataset_folder, SPEC, packing="stream", out=tmp_path, workers=2).num_windows > 0


def test_few_row_groups_need_no_processes(dataset_folder, tmp_path, monkeypatch):
    monkeypatch.setattr(build_stages, "process_pool", None)
    assert StageArrays.build(dataset_folder, SPEC, packing="stream", out=tmp_path, workers=2).num_windows > 0


@pytest.mark.slow
@pytest.mark.usefixtures("processes_for_little")
def test_error_in_a_process_is_the_same_as_here(tmp_path, dataset_folder):
    folder = damaged(dataset_folder, tmp_path / "toy")
    with pytest.raises(DataError, match="was changed; remove"):
        StageArrays.build(folder, SPEC, packing="stream", workers=2)
    assert list((folder / "stages").iterdir()) == []


def test_data_that_is_read_only(dataset_folder, tmp_path):
    folder = shutil.copytree(dataset_folder, tmp_path / "toy")
    (folder / "stages").write_text("in the way, whatever the rights of who runs the tests")
    with pytest.raises(OutputError, match=r"not built yet, and .* cannot be written .*--stages or data.stages_dir"):
        StageArrays.build(folder, SPEC, packing="stream")
    with pytest.raises(OutputError, match=r"^[^,]*/stages/[^,]* cannot be written"):
        StageArrays.build(folder, SPEC, packing="stream", out=folder / "stages")
    arrays = StageArrays.build(folder, SPEC, packing="stream", out=tmp_path / "elsewhere")
    assert [path.name for path in (tmp_path / "elsewhere").iterdir()] == [arrays.fingerprint]


def test_no_workers(dataset_folder, tmp_path):
    with pytest.raises(ConfigError, match="workers is 0; it must be at least 1"):
        StageArrays.build(dataset_folder, SPEC, packing="stream", out=tmp_path, workers=0)


def damaged(dataset_folder, folder):
    shutil.copytree(dataset_folder, folder)
    with (folder / "shard_1" / "documents.parquet").open("r+b") as file:
        file.seek(20)
        file.write(b"\x00\x01\x02")
    return folder


def test_damaged_dataset_is_noticed(tmp_path, dataset_folder):
    with pytest.raises(DataError, match="was changed; remove"):
        StageArrays.build(damaged(dataset_folder, tmp_path / "toy"), SPEC, packing="stream")


def test_unknown_packing(dataset_folder, tmp_path):
    with pytest.raises(ConfigError, match="packing is 'sorted'; it must be one of stream, document"):
        StageArrays.build(dataset_folder, SPEC, packing="sorted", out=tmp_path)


@pytest.fixture
def built_folder(dataset_folder, tmp_path):
    return tmp_path / StageArrays.build(dataset_folder, SPEC, packing="stream", out=tmp_path).fingerprint


@pytest.mark.parametrize("name", ["stage1.npy", "stage3.npy", "positions2.npy"])
def test_missing_array(built_folder, name):
    (built_folder / name).unlink()
    with pytest.raises(DataError, match=f"{name} is missing or broken"):
        StageArrays.open(built_folder)


def test_array_of_another_build(built_folder):
    shutil.copy(built_folder / "stage1.npy", built_folder / "stage2.npy")
    with pytest.raises(DataError, match=r"stage2.npy holds uint8 .* the manifest says \(\d+, 4\), of uint8"):
        StageArrays.open(built_folder)


@pytest.mark.parametrize(
    "change",
    [
        {"stage_lengths": [4, 2]},
        {"stage_lengths": 3},
        {"counts": {}},
        {"counts": None},
        {"eos_id": None},
        {"scorer": None},
    ],
)
def test_incomplete_manifest(built_folder, change):
    path = built_folder / "manifest.json"
    manifest = json.loads(path.read_text()) | change
    path.write_text(json.dumps({key: value for key, value in manifest.items() if value is not None}))
    with pytest.raises(DataError, match=r"manifest.json is incomplete .* it will be built again"):
        StageArrays.open(built_folder)


def test_folder_without_stages(tmp_path):
    with pytest.raises(DataError, match="is not a complete stages"):
        StageArrays.open(tmp_path)
