import json
import re
from dataclasses import asdict

import pytest

from cascaded_dllm.data.manifest import (
    FORMAT_VERSION,
    Counts,
    choice_of,
    fingerprint,
    header,
    learnt_choice,
    parse_counts,
    parse_settings,
    parse_text,
    read_manifest,
)
from cascaded_dllm.errors import DataError


def write(folder, value):
    (folder / "manifest.json").write_text(value if isinstance(value, str) else json.dumps(value))


def test_header_names_format_and_versions(tmp_path):
    write(tmp_path, header("shard"))
    manifest = read_manifest(tmp_path, "shard")
    assert manifest["format_version"] == FORMAT_VERSION
    assert {"cascaded-dllm", "python", "numpy", "pyarrow", "tokenizers"} <= manifest["versions"].keys()


def test_library_that_is_not_installed_has_no_version(monkeypatch):
    monkeypatch.setattr("cascaded_dllm.data.manifest._LIBRARIES", ("numpy", "no-such-library"))
    assert header("shard")["versions"].keys() == {"cascaded-dllm", "python", "numpy"}


def test_settings_and_counts_survive_json(make_settings, tmp_path):
    settings, counts = make_settings(), Counts(1, 2, 3, {"empty": 4})
    manifest = json.loads(json.dumps({"settings": asdict(settings), "counts": asdict(counts)}))
    assert parse_settings(manifest, tmp_path) == settings
    assert parse_counts(manifest, tmp_path) == counts


def test_differences_name_both_values(make_settings):
    assert make_settings().differences(make_settings()) == ""
    mine, theirs = make_settings(num_shards=2, split="test"), make_settings()
    assert mine.differences(theirs) == "split: 'test', not 'train'; num_shards: 2, not 1"


def files(*contents):
    return [{"name": f"f{number:02d}", "sha256": content} for number, content in enumerate(contents)]


@pytest.mark.parametrize(
    ("mine", "theirs", "difference"),
    [
        ({"unit": "line"}, {"unit": "paragraph"}, "unit 'line', not 'paragraph'"),
        ({}, {"bad_records": "drop"}, "bad_records None, not 'drop'"),
        ({"files": files(*"abc")}, {"files": files(*"axcd")}, "other content or another list of files, in f01, f03"),
        (
            {"files": files(*"a" * 20), "unit": "line"},
            {"files": files(*"b" * 20), "unit": "file"},
            "other content or another list of files, in f00, f01, f02, f03, f04, f05, f06, f07 and 12 more, "
            "unit 'line', not 'file'",
        ),
        ({"files": files(*"ab")}, {"files": files(*"ab")[::-1]}, "the same files in another order"),
        ({"kind": "files", "files": files(*"ab")}, {"kind": "hub"}, "files 2, not None, kind 'files', not 'hub'"),
    ],
)
def test_differences_of_the_source_are_short(make_settings, mine, theirs, difference):
    """However many files a corpus has."""
    one, two = make_settings(source=mine), make_settings(source=theirs)
    assert one.differences(two) == f"source: {difference}"


def test_settings_without_the_list_of_files(make_settings):
    whole = make_settings(source={"files": files(*"abc"), "unit": "line"})
    brief = whole.brief()
    assert brief.source["files"] == 3
    assert brief.brief() == brief
    assert whole.differences(brief) == brief.differences(whole) == ""
    other = make_settings(source={"files": files(*"abx"), "unit": "line"})
    assert re.fullmatch(r"source: files_sha256 '\w{64}', not '\w{64}'", other.differences(brief))
    assert (
        make_settings(source={"files": files(*"ab"), "unit": "line"}).differences(brief).startswith("source: files 2, ")
    )
    plain = make_settings(source={"kind": "hub"})
    assert plain.brief() == plain


def test_counts_add_up():
    total = Counts(1, 2, 3, {"empty": 1}, 4) + Counts(10, 20, 30, {"empty": 1, "other": 5}, 40)
    assert total == Counts(11, 22, 33, {"empty": 2, "other": 5}, 44)
    assert total.records == 18


def test_fingerprint_depends_on_values_and_not_on_order():
    assert fingerprint({"a": 1, "b": [2]}) == fingerprint({"b": [2], "a": 1})
    assert fingerprint({"a": 1}) != fingerprint({"a": 2})
    assert len(fingerprint({})) == 16


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", r"manifest.json is broken .* preprocess again"),
        ("[]", r"describes \[\], not 'shard'"),
        ({"kind": "stages"}, "describes 'stages', not 'shard'"),
        ({}, "describes None, not 'shard'"),
        (
            {"kind": "shard", "format_version": 1},
            r"has format version 1, and this version of the package reads 2; remove .* and preprocess again",
        ),
    ],
)
def test_foreign_manifest(tmp_path, content, message):
    write(tmp_path, content)
    with pytest.raises(DataError, match=message):
        read_manifest(tmp_path, "shard")


def test_missing_manifest(tmp_path):
    with pytest.raises(DataError, match=r"is not a complete shard: it has no manifest.json"):
        read_manifest(tmp_path, "shard")
    with pytest.raises(DataError, match=r"is not a complete shard"):
        read_manifest(tmp_path / "missing", "shard")


def test_manifest_that_is_no_text(tmp_path):
    (tmp_path / "manifest.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match=r"manifest.json is broken"):
        read_manifest(tmp_path, "shard")


@pytest.mark.parametrize("manifest", [{}, {"settings": {}, "counts": {}}, {"settings": 3, "counts": {"more": 1}}])
def test_incomplete_manifest(tmp_path, manifest):
    for parse in (parse_settings, parse_counts):
        with pytest.raises(DataError, match=r"manifest.json is incomplete .* remove"):
            parse(manifest, tmp_path)


def test_text_field_that_is_none(tmp_path):
    with pytest.raises(DataError, match=r"manifest.json is incomplete \('fingerprint'\)"):
        parse_text({"fingerprint": 3}, "fingerprint", tmp_path)


def test_what_decides_beside_the_method():
    assert choice_of("tfidf", {"words": 3}) is None
    assert learnt_choice(choice_of("random", {"seed": 3})) == "chance per occurrence"
    assert learnt_choice(choice_of("random", {"seed": 3, "per": "word"})) == "chance per word with the seed 3"
    of_file = {"function": "mine.py:f", "sha256": "0123456789abcdef", "placeholder": "<unk>"}
    assert learnt_choice(choice_of("custom", of_file)) == "mine.py:f of SHA-256 0123456789ab"
    # An object of a program says of itself what it likes.
    one, other = (choice_of("custom", {"layers": number}) for number in (1, 2))
    assert one != other
    assert learnt_choice(one) == f"a scorer of SHA-256 {fingerprint({'layers': 1})[:12]}"
