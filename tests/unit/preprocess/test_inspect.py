import itertools
import shutil

import numpy as np
import pytest

from cascaded_dllm.cascade.spec import CascadeSpec
from cascaded_dllm.data.preprocessed import PreprocessedDataset
from cascaded_dllm.data.row_groups import RowGroup, row_groups
from cascaded_dllm.data.stages import StageArrays
from cascaded_dllm.data.windows import Tokens
from cascaded_dllm.errors import ConfigError, DataError
from cascaded_dllm.importance.custom import BACKGROUND
from cascaded_dllm.preprocess import inspect_choice, inspect_statistics
from cascaded_dllm.preprocess.inspect import inspect_dataset
from cascaded_dllm.preprocess.inspect_facts import Loss, facts, looked_at, losses, stage_names, without_stages
from cascaded_dllm.preprocess.inspect_page import page
from cascaded_dllm.preprocess.inspect_statistics import importance_name
from cascaded_dllm.text.tokenizer import Tokenizer
from tests.unit.preprocess.look import TOKENIZER, write_dataset

SPEC = CascadeSpec((3, 6, 16))
TEXTS = [
    "The fox found a key.",
    "日本語 and 😀😀",
    "x",
    "a" * 36,
    "Once more, with feeling: été.",
    "\t\x00\x1b[31m",
    "<b>&amp;",
    "The quick brown fox jumps over the lazy dog, and then it goes home.",
]


@pytest.fixture(scope="module", params=[(1, 1 << 20), (2, 12)], ids=["one row group", "many"])
def folder(request, tmp_path_factory):
    num_shards, group_tokens = request.param
    place = tmp_path_factory.mktemp("look") / "data"
    return write_dataset(place, TEXTS, num_shards=num_shards, group_tokens=group_tokens)


def look(folder, packing="stream", num_windows=1000, spec=SPEC, **choice):
    return inspect_dataset(folder, spec, packing=packing, num_windows=num_windows, **choice)


def text_of(spans):
    return "".join(span.text for span in spans)


@pytest.mark.parametrize("unique", [True, False])
@pytest.mark.parametrize("method", ["constituency", "keybert_no_stopword"])
def test_windows_and_stages_are_those_of_training(tmp_path, method, unique):
    folder = write_dataset(tmp_path / "data", TEXTS, method=method, num_shards=2, group_tokens=12)
    arrays = StageArrays.build(folder, SPEC, packing="stream", unique=unique)
    inspection = look(folder, unique=unique)
    assert ("repeated tokens", "kept once" if unique else "kept") in facts(inspection)
    assert inspection.statistics.num_dropped == arrays.dropped["too_few_distinct_tokens"]
    assert (
        len(inspection.windows)
        == inspection.num_windows
        == arrays.num_windows + arrays.dropped["too_few_distinct_tokens"]
    )
    assert inspection.tail_tokens == arrays.dropped["tail_tokens"]
    kept = [window for window in inspection.windows if window.stages]
    assert len(kept) == arrays.num_windows > 3
    for row, window in enumerate(kept):
        assert text_of(window.spans) == TOKENIZER.decode(arrays.stages[-1][row].tolist())
        for shortened, array in zip(window.stages, arrays.stages[:-1], strict=True):
            assert text_of(shortened) == TOKENIZER.decode(array[row].tolist())
        # The first stage that keeps a token, from the positions that training uses.
        expected = np.full(SPEC.window_length, 3)
        for stage in (2, 1):
            expected[arrays.positions[stage - 1][row]] = stage
        places = itertools.pairwise(itertools.accumulate((len(span.tokens) for span in window.spans), initial=0))
        assert [span.stage for span in window.spans] == [expected[start:end].min() for start, end in places]
    for window in inspection.windows:
        assert (window.num_distinct >= 6) == bool(window.stages)


def test_windows_by_document_are_those_of_training(folder, tmp_path):
    arrays = StageArrays.build(folder, SPEC, packing="document", out=tmp_path)
    inspection = look(folder, "document")
    assert (inspection.num_windows, inspection.tail_tokens) == (None, None)
    assert inspection.choice == "one window each of 8 of 8 documents, drawn with seed 0"
    shown = [text_of(window.spans) for window in inspection.windows if window.stages]
    assert set(shown) <= {TOKENIZER.decode(ids) for ids in arrays.stages[-1].tolist()}
    assert sorted(window.documents for window in inspection.windows) == [(f"d{i}",) for i in range(8)]


def test_seed_decides_what_is_drawn(folder):
    titles = [[window.title for window in look(folder, num_windows=4, seed=seed).windows] for seed in (1, 1, 2)]
    assert titles[0] == titles[1] != titles[2]
    assert len(set(titles[0])) == 4
    assert look(folder, num_windows=4, seed=2).choice == "4 of 12 windows, drawn with seed 2"


def test_windows_name_their_documents(folder):
    named = {name for window in look(folder).windows for name in window.documents}
    assert named == {f"d{i}" for i in range(8)}
    for window in look(folder).windows:
        # The end of text is the only sign of a border between documents.
        borders = text_of(window.spans).removesuffix("<|endoftext|>").count("<|endoftext|>")
        assert len(window.documents) == borders + 1


@pytest.mark.parametrize("packing", ["stream", "document"])
def test_windows_of_a_document(folder, packing):
    inspection = look(folder, packing, document="d3")
    joined = "".join(text_of(window.spans) for window in inspection.windows)
    assert joined.count("a" * 36) == 1
    assert all("d3" in window.documents for window in inspection.windows)
    number = len(inspection.windows)
    assert inspection.choice == f"{number} of the {number} windows that hold tokens of the document d3"
    first = look(folder, packing, num_windows=1, document="d3")
    assert first.windows == inspection.windows[:1]
    assert first.choice == f"1 of the {number} windows that hold tokens of the document d3"


def test_document_that_is_not_there(folder):
    with pytest.raises(
        DataError, match=r"no document of .* has the id 'd99'; the first ids there are 'd0', 'd\d', 'd\d'"
    ):
        look(folder, document="d99")


def test_document_in_the_tail(tmp_path):
    folder = write_dataset(tmp_path / "data", ["a" * 20, "b"])
    inspection = look(folder, document="d1")
    assert inspection.windows == ()
    assert inspection.choice == "0 of the 0 windows that hold tokens of the document d1"


@pytest.mark.parametrize("document", [None, "d1"])
def test_dataset_without_a_window(tmp_path, document):
    inspection = look(write_dataset(tmp_path / "data", ["abca", "zz"], num_shards=2), document=document)
    assert (inspection.num_windows, inspection.tail_tokens) == (0, 8)
    assert inspection.statistics.bins == ()
    assert inspection.choice == "no window: all documents have 8 tokens with their ends of text, and a window has 16"
    [shown] = inspection.windows
    assert (shown.title, shown.documents, shown.stages) == ("all documents", ("d0", "d1"), ())
    assert text_of(shown.spans) == "abca<|endoftext|>zz<|endoftext|>"
    assert {span.stage for span in shown.spans} == {3}
    assert without_stages(shown, SPEC) == "8 tokens do not fill a window of 16: choose shorter stages (--lengths)"
    assert "8 tokens do not fill a window of 16" in page(inspection)


def test_document_that_is_not_in_a_dataset_without_a_window(tmp_path):
    folder = write_dataset(tmp_path / "data", ["abca"])
    with pytest.raises(DataError, match="has the id 'd7'; the first ids there are 'd0'"):
        look(folder, document="d7")


@pytest.mark.parametrize("packing", ["stream", "document"])
@pytest.mark.parametrize("document", [None, "d3"])
def test_windows_that_nobody_reads(folder, monkeypatch, packing, document):
    """They are refused before they are read; a document must be found first, which shows how many it has."""
    monkeypatch.setattr(inspect_choice, "_MOST_SHOWN", 31)
    if document is None:
        monkeypatch.setattr(RowGroup, "read", None)
    message = r"^2 windows with 32 tokens are to be shown; it must be at most 31 tokens: give a smaller --num-windows"
    with pytest.raises(ConfigError, match=message):
        look(folder, packing, num_windows=2, document=document)


def test_no_windows_wanted(folder):
    with pytest.raises(ConfigError, match="the number of windows is 0; it must be at least 1"):
        look(folder, num_windows=0)


@pytest.mark.parametrize("packing", ["stream", "document"])
def test_statistics_add_up(folder, tmp_path, packing):
    arrays = StageArrays.build(folder, SPEC, packing=packing, out=tmp_path)
    found = look(folder, packing).statistics
    assert found.num_dropped == arrays.dropped["too_few_distinct_tokens"]
    assert found.num_windows == arrays.num_windows + found.num_dropped
    by_stage = np.array([row.counts for row in found.bins]).sum(axis=0)
    assert by_stage.tolist() == [*(arrays.num_windows * tokens for tokens in (3, 3, 10)), found.num_dropped * 16]
    labels = ["head proper noun", "proper noun", "noun", "other", "in no word"]
    assert [row.label for row in found.bins] == labels
    # Nothing in no word is kept by a shortened stage.
    assert found.bins[-1].counts[:2] == (0, 0)


@pytest.fixture
def counts_little(monkeypatch):
    """Sixteen windows of sixteen tokens, from four row groups, are enough."""
    monkeypatch.setattr(inspect_statistics, "_TOKENS", 16 * 16)
    monkeypatch.setattr(inspect_statistics, "_NUM_GROUPS", 4)


@pytest.mark.usefixtures("counts_little")
@pytest.mark.parametrize("packing", ["stream", "document"])
@pytest.mark.parametrize(("num_shards", "group_tokens"), [(1, 1 << 20), (1, 200), (4, 200), (16, 200)])
def test_statistics_are_of_all_parts_of_a_corpus(tmp_path, packing, num_shards, group_tokens):
    """Of one whose end is another text, from which no stage can be made; where shards begin, all is alike."""
    texts = ["The quick brown fox jumps over the lazy dog."] * 128 + ["a" * 44] * 128
    folder = write_dataset(tmp_path / "data", texts, num_shards=num_shards, group_tokens=group_tokens)
    arrays = StageArrays.build(folder, SPEC, packing=packing)
    share = arrays.dropped["too_few_distinct_tokens"] / (arrays.num_windows + arrays.dropped["too_few_distinct_tokens"])
    found = look(folder, packing, num_windows=1).statistics
    assert not found.is_all
    assert 8 <= found.num_windows <= 24
    assert abs(found.num_dropped / found.num_windows - share) < 0.2
    assert sum(sum(row.counts) for row in found.bins) == found.num_windows * 16


@pytest.mark.parametrize("packing", ["stream", "document"])
@pytest.mark.parametrize(("group_tokens", "counted"), [(5, 30), (5, 85), (12, 30), (40, 30), (200, 30)])
def test_statistics_are_of_windows_of_training(tmp_path, monkeypatch, packing, group_tokens, counted):
    """Also where row groups are read without the one before, and are shorter than a window."""
    monkeypatch.setattr(inspect_statistics, "_TOKENS", counted * 16)
    monkeypatch.setattr(inspect_statistics, "_NUM_GROUPS", 3)
    draw = np.random.default_rng(0)
    texts = ["".join(map(chr, draw.integers(97, 123, draw.integers(1, 30)))) for _ in range(120)]
    folder = write_dataset(tmp_path / "data", texts, num_shards=2, group_tokens=group_tokens)
    every = StageArrays.build(folder, SPEC, packing=packing, unique=False, out=tmp_path).stages[-1].tolist()
    layout = look(folder, packing).layout
    groups = row_groups(PreprocessedDataset.open(folder))
    spread = inspect_statistics.spread_windows(groups, layout)
    assert 8 <= len(spread.windows.token_ids) < len(every)
    places = [every.index(window) for window in spread.windows.token_ids.tolist()]
    assert places == sorted(set(places))
    assert not spread.is_all
    monkeypatch.setattr(inspect_statistics, "_TOKENS", 1 << 19)
    spread = inspect_statistics.spread_windows(groups, layout)
    assert spread.windows.token_ids.tolist() == every
    assert spread.is_all


@pytest.mark.usefixtures("counts_little")
def test_few_row_groups_of_a_large_dataset_are_read(tmp_path, monkeypatch):
    folder = write_dataset(tmp_path / "data", ["The fox found a key."] * 300, num_shards=2, group_tokens=100)
    groups, layout = row_groups(PreprocessedDataset.open(folder)), look(folder).layout
    read = []
    real_read = inspect_statistics.RowGroup.read
    monkeypatch.setattr(
        inspect_statistics.RowGroup, "read", lambda self: (read.append(self.number), real_read(self))[1]
    )
    inspect_statistics.spread_windows(groups, layout)
    assert len(read) == 4


@pytest.mark.usefixtures("counts_little")
def test_what_part_is_counted_is_said(tmp_path):
    folder = write_dataset(tmp_path / "data", TEXTS * 20, num_shards=2, group_tokens=100)
    said = {packing: looked_at(look(folder, packing)) for packing in ("stream", "document")}
    numbers = {packing: look(folder, packing).statistics.num_windows for packing in said}
    assert said["stream"] == f"{numbers['stream']} of {look(folder).num_windows} windows, evenly spaced"
    assert said["document"] == f"{numbers['document']} windows, evenly spaced over 160 documents"
    assert losses(look(folder))[1].reason == f"windows dropped for too few distinct tokens, of {said['stream']}"
    assert f"Tokens of {said['stream']} by importance" in page(look(folder))


def test_scores_are_counted_in_ranges(tmp_path, monkeypatch):
    folder = write_dataset(tmp_path / "data", TEXTS, method="tfidf")
    assert [row.label for row in look(folder).statistics.bins] == ["1.1", "1", "0.5", "0", "-0.25", "-1.2"]
    monkeypatch.setattr(inspect_statistics, "_MAX_BINS", 2)
    found = look(folder).statistics
    assert [row.label for row in found.bins] == ["-0.05 to 1.1", "-1.2 to -0.05"]
    assert sum(sum(row.counts) for row in found.bins) == found.num_windows * 16


def test_what_lies_in_no_word_is_no_part_of_a_range(tmp_path, monkeypatch):
    folder = write_dataset(tmp_path / "data", TEXTS, method="custom", least=BACKGROUND)
    assert [row.label for row in look(folder).statistics.bins] == ["1.1", "1", "0.5", "0", "-0.25", "in no word"]
    monkeypatch.setattr(inspect_statistics, "_MAX_BINS", 2)
    found = look(folder).statistics
    assert [row.label for row in found.bins] == ["0.425 to 1.1", "-0.25 to 0.425", "in no word"]
    assert sum(sum(row.counts) for row in found.bins) == found.num_windows * 16


def test_numbers_far_apart(monkeypatch):
    """As a user's own may be: float32 has no number for their distance."""
    monkeypatch.setattr(inspect_statistics, "_MAX_BINS", 2)
    windows = Tokens(np.zeros((1, 3), np.int32), np.array([[-3e38, 1.0, 3e38]], np.float32))
    spread = inspect_statistics.Spread(windows, is_all=True)
    found = inspect_statistics.statistics(spread, CascadeSpec((1, 3)), "custom")
    assert [sum(row.counts) for row in found.bins] == [2, 1]


def test_names_of_importance():
    assert importance_name("constituency", 1.0) == "head proper noun"
    assert importance_name("constituency", -100.0) == "in no word"
    assert importance_name("constituency", 2.5) == "2.5"
    assert importance_name("custom", BACKGROUND) == "in no word"
    assert importance_name("tfidf", 1.0) == "1"
    assert importance_name("tfidf", 0.123456) == "0.1235"


def test_facts_and_losses(folder):
    inspection = look(folder)
    named = dict(facts(inspection))
    assert named["source"] == "kind: by hand, files: 2"
    assert named["importance by"] == "tagger: by hand"
    assert named["documents"] == "8"
    assert named["windows"] == "12"
    assert "windows" not in dict(facts(look(folder, "document")))
    found = losses(inspection)
    assert found[0] == Loss("records dropped by preprocessing", 0, 8, "records")
    assert found[1].reason == "windows dropped for too few distinct tokens, of all 12 windows"
    assert found[2][1:] == (inspection.tail_tokens, inspection.counts.tokens + 8, "tokens")
    assert len(losses(look(folder, "document"))) == 2


def unfinished(folder, *numbers, num_shards=4):
    """A dataset of which only some shards are there, as long as others are made."""
    write_dataset(folder, TEXTS, num_shards=num_shards)
    (folder / "manifest.json").unlink()
    for number in set(range(num_shards)) - set(numbers):
        shutil.rmtree(folder / f"shard_{number}")
    return folder


@pytest.mark.parametrize("packing", ["stream", "document"])
def test_dataset_that_is_not_complete(tmp_path, packing):
    folder = unfinished(tmp_path / "data", 3, 1)
    inspection = look(folder, packing)
    named = {name for window in inspection.windows for name in window.documents}
    assert named == {"d1", "d3", "d5", "d7"}
    assert inspection.counts.documents == 4
    assert inspection.choice.startswith(f"of the 2 of 4 shards of {folder} that are there: ")
    known = dict(facts(inspection))
    assert known["shards"] == "2 of 4 are there, and only they are shown and counted"
    assert known["fingerprint"] == "none yet: the dataset is not complete"
    assert losses(inspection)[0].total == 4
    assert "2 of 4 are there" in page(inspection)
    with pytest.raises(DataError, match=r"no document of the 2 of 4 shards of .* that are there has the id 'd0'"):
        look(folder, packing, document="d0")


@pytest.mark.parametrize("packing", ["stream", "document"])
def test_only_shards_without_a_document_are_there(tmp_path, packing):
    folder = unfinished(tmp_path / "data", len(TEXTS), num_shards=len(TEXTS) + 1)
    with pytest.raises(
        DataError, match=r"the 1 of \d+ shards of .* that are there hold 0 documents, .* wait until more"
    ):
        look(folder, packing)


def test_shard_that_is_made_again_is_not_shown(tmp_path):
    folder = write_dataset(tmp_path / "data", TEXTS, num_shards=3)
    (folder / "shard_1" / "manifest.json").write_text("{")
    assert look(folder).num_shards == 2
    shutil.rmtree(folder / "shard_1")
    assert look(folder).num_shards == 2


def test_tokenizer_of_a_dataset_that_is_not_complete(tmp_path):
    folder = unfinished(tmp_path / "data", 0)
    Tokenizer.train(["another"], 258).save(folder)
    with pytest.raises(
        DataError, match=r"the tokenizer of .*, with the fingerprint \w{16}, is not there yet; it comes"
    ):
        look(folder)
    # It may have been trained for the dataset.
    TOKENIZER.save(folder / "prepared" / "tokenizer_257_abc")
    assert look(folder).num_shards == 1


def test_shards_that_do_not_belong_together(tmp_path):
    folder = unfinished(tmp_path / "data", 0)
    write_dataset(tmp_path / "other", TEXTS, num_shards=4, method="tfidf")
    (tmp_path / "other" / "shard_2").rename(folder / "shard_2")
    with pytest.raises(DataError, match=r"shard_2 does not belong to .*shard_0: it was made with method: 'tfidf', not"):
        look(folder)


def test_folder_without_a_shard(tmp_path):
    with pytest.raises(DataError, match=r"is not a complete preprocessed dataset: it has no manifest\.json"):
        look(tmp_path)
    with pytest.raises(DataError, match="holds 0 shards; name the folder that preprocessing printed, or wait until"):
        PreprocessedDataset.open_unfinished(tmp_path)


def test_records_that_were_dropped(tmp_path):
    folder = write_dataset(tmp_path / "data", ["The fox found a key.", "", ""])
    assert losses(look(folder))[0] == Loss("records dropped by preprocessing: empty", 2, 3, "records")


def test_cascade_of_one_stage(folder):
    inspection = look(folder, spec=CascadeSpec((16,)))
    assert stage_names(inspection.spec) == ["stage 1: all 16"]
    assert all(window.stages == () for window in inspection.windows)
    assert without_stages(inspection.windows[0], inspection.spec) == "there is one stage, the window"
    assert {span.stage for window in inspection.windows for span in window.spans} == {1}


def test_why_a_window_is_dropped(folder):
    [window, *_] = [window for window in look(folder).windows if not window.stages]
    assert (
        without_stages(window, SPEC)
        == f"dropped: {window.num_distinct} distinct tokens can be kept, and stage 2 needs 6"
    )


def test_row_group_is_read_once_for_windows_beside_each_other(tmp_path, monkeypatch):
    folder = write_dataset(tmp_path / "data", TEXTS)
    read = []
    real_read = inspect_choice.RowGroup.read
    monkeypatch.setattr(inspect_choice.RowGroup, "read", lambda self: (read.append(1), real_read(self))[1])
    look(folder)
    # Once for the windows and once for the statistics.
    assert len(read) == 2
