"""The flags of the documented entries become those of the command."""

import pytest

from cascaded_dllm.cli import preprocess_entry


def command_of(monkeypatch: pytest.MonkeyPatch, *flags: str) -> list[str]:
    called: list[list[str]] = []
    monkeypatch.setattr(preprocess_entry, "app", lambda arguments, prog_name: called.append(arguments))
    preprocess_entry.main("constituency", ["--dataset_name", "mine", *flags])
    return called[0]


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ((), ["--shards", "1", "--workers", "1", "--tokenizer", "gpt2"]),
        (
            ("--num_shards", "8", "--shard_idx", "3", "--n_process", "4", "--train-tokenizer", "300"),
            ["--shards", "8", "--workers", "4", "--shard", "3", "--train-tokenizer", "300"],
        ),
        # There, workers would be tasks at once.
        (
            ("--shard_idx", "0", "--executor", "ray"),
            ["--shards", "1", "--shard", "0", "--tokenizer", "gpt2", "--executor", "ray"],
        ),
        (
            ("--shard_idx", "0", "--n_process", "4", "--executor=ray"),
            ["--shards", "1", "--cpus", "4", "--shard", "0", "--tokenizer", "gpt2", "--executor", "ray"],
        ),
    ],
)
def test_flags_of_the_entry(monkeypatch: pytest.MonkeyPatch, flags: tuple[str, ...], expected: list[str]) -> None:
    begin = ["preprocess", "constituency", "--dataset", "mine", "--split", "train"]
    assert command_of(monkeypatch, *flags) == [*begin, *expected]


@pytest.mark.parametrize(
    ("method", "read", "unread"),
    [("constituency", "--tagger", "--model"), ("keybert_no_stopword", "--model", "--tagger")],
)
def test_help_offers_what_the_method_reads(capsys, method, read, unread):
    with pytest.raises(SystemExit):
        preprocess_entry.main(method, ["--help"])
    told = capsys.readouterr().out
    assert read in told
    assert unread not in told
