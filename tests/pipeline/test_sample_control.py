"""`cdllm sample` told what the texts should hold, on the disk and again; and what is said of what cannot be."""

import itertools
import json
import re
from pathlib import Path

import pytest

from cascaded_dllm.text.listing import listing, texts_of_listing
from tests.pipeline.commands import failure, success


def sampled(runs: Path, out: Path, *options: object) -> Path:
    """The folder of a new run."""
    before = set(out.iterdir()) if out.exists() else set()
    success("sample", "--stage", runs / "stage1", "--stage", runs / "stage2", "--output-dir", out, *options)
    (found,) = set(out.iterdir()) - before
    return found


def records(run: Path) -> list[dict]:
    return [json.loads(line) for line in (run / "samples.jsonl").read_text().splitlines()]


def summary(run: Path) -> dict:
    return json.loads((run / "summary.json").read_text())


def test_from_keywords_to_an_edited_stage_and_on(runs, tmp_path):
    """What a person does: a keyword, a look at stage 1, another word in its place, and on from there."""
    first = sampled(runs, tmp_path, "--num-samples", 3, "--keywords", "fox", "--require-coverage")
    assert all(" fox" in record["stages"][k]["text"] for record in records(first) for k in (0, 1))
    assert summary(first)["figures"]["ordered_coverage_mean_stage1_in_stage2"] == 1.0
    assert summary(first)["control"] == {
        "keywords": ["fox"], "outline": None, "pins": [], "given": None, "require_coverage": True,
    }  # fmt: skip
    for record in records(first):
        assert record["stages"][0]["written_by"] == [1] * 4
        assert sorted(record["stages"][1]["written_by"]) == [1] * 4 + [2] * 4

    file = first / "sample_stage1.txt"
    texts = texts_of_listing(file.read_text())
    assert texts == [record["stages"][0]["text"] for record in records(first)]
    edited = tmp_path / "edited.txt"
    edited.write_text(listing([" hare"] * 2))
    second = sampled(
        runs, tmp_path, "--num-samples", 4, "--from-stage", 1, "--input", edited, "--require-coverage",
        "--pin", "2:end:.",
    )  # fmt: skip
    for record in records(second):
        assert " hare" in record["stages"][0]["text"]
        assert " hare" in record["stages"][1]["text"]
        assert record["stages"][1]["text"].endswith(".")
    assert summary(second)["control"]["given"] == {"stage": 1, "texts": 2}


@pytest.mark.parametrize(
    ("flag", "said"),
    [
        ([], r"all keywords are words of \d of 3 final texts; --require-coverage keeps what stage 1 contains\n"),
        (["--require-coverage"], r"all keywords are words of \d of 3 final texts\n"),
        (
            ["--keywords", "cat dog"],
            r"--require-coverage keeps what stage 1 contains; 'cat dog' is one keyword, commas separate",
        ),
    ],
)
def test_it_is_said_how_many_texts_hold_the_keywords(runs, tmp_path, flag, said):
    stages = ["--stage", runs / "stage1", "--stage", runs / "stage2"]
    result = success("sample", *stages, "--num-samples", 3, "--keywords", "fox", "--output-dir", tmp_path, *flag)
    assert re.search(said, result.stdout)


def test_nothing_is_advised_where_no_stage_can_lose_a_keyword(runs, tmp_path):
    alone = ["--stage", runs / "stage1", "--num-samples", 3, "--keywords", "fox", "--output-dir", tmp_path]
    assert re.search(r"all keywords are words of \d of 3 final texts\n", success("sample", *alone).stdout)


def test_a_run_is_gone_on_from(runs, tmp_path):
    """The same seed writes the same stage 2 upon the ids of stage 1, and a resumed run has nothing to add."""
    first = sampled(runs, tmp_path, "--num-samples", 3)
    second = sampled(runs, tmp_path, "--num-samples", 3, "--from-stage", 1, "--input", first)
    for before, after in zip(records(first), records(second), strict=True):
        assert [stage["ids"] for stage in before["stages"]] == [stage["ids"] for stage in after["stages"]]
    assert summary(second)["nfe_per_stage"][0] == 0
    assert "is complete" in success("sample", "--resume", second).output
    assert "--from-stage is 2, and the run in" in failure("sample", "--resume", second, "--from-stage", 2)


def test_an_outline_in_a_file(runs, tmp_path):
    """Words for which stage 1 has no room: it holds the most important of them, and stage 2 all."""
    file = tmp_path / "outline.txt"
    file.write_text("the fox found\na red key")
    run = sampled(runs, tmp_path / "out", "--num-samples", 2, "--outline", file)
    for record in records(run):
        first, second = (stage["text"] for stage in record["stages"])
        assert "fox" in first.split()
        assert set(first.split()) <= {"the", "fox", "found", "a", "red", "key"}
        # An untrained network may write half a character beside a word.
        assert re.search(".*".join(f" {word}" for word in ["the", "fox", "found", "a", "red", "key"]), second)
    assert summary(run)["nfe_per_stage"][0] == 0
    assert "is complete" in success("sample", "--resume", run).output


def test_as_many_texts_as_are_given(runs, tmp_path):
    file = tmp_path / "given.txt"
    file.write_text(listing([" fox", " red key", " fox found"]))
    run = sampled(runs, tmp_path / "out", "--from-stage", 1, "--input", file)
    assert [record["stages"][0]["text"].count(" fox") for record in records(run)] == [1, 0, 1]
    assert len(records(sampled(runs, tmp_path / "out", "--from-stage", 1, "--input", file, "--num-samples", 2))) == 2


def test_each_stage_in_its_own_way(runs, tmp_path):
    run = sampled(
        runs, tmp_path, "--num-samples", 2, "--predictor", "analytic,entropy", "--steps", "3,-",
        "--tokens-per-call", "-,4", "--temperature", 0.8, "--top-k", 20, "--top-p", 0.95,
    )  # fmt: skip
    found = summary(run)
    assert run.name.startswith("sample_cascade_calls_6_len_8_")
    assert found["nfe_per_stage"][1] == 2
    assert found["law"] == {"temperature": 0.8, "top_k": 20, "top_p": 0.95}
    assert [found[name] for name in ("predictor", "steps", "tokens_per_call")] == [
        ["analytic", "entropy"],
        [3, None],
        [None, 4],
    ]
    assert "--top-k is 3, and the run in" in failure("sample", "--resume", run, "--top-k", 3)
    assert "--keywords is a, and the run in" in failure("sample", "--resume", run, "--keywords", "a")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--keywords", "a,,b"], "keyword 2 of 3 is empty"),
        (["--keywords", "fox hare owl fox hare owl fox hare owl"], "tokens and stage 1 writes 4; leave some out"),
        (["--from-stage", 1], "--input is missing; --from-stage names the stage whose texts --input contains"),
        (["--input", "{here}"], "--from-stage is missing"),
        (["--from-stage", 1, "--input", "nowhere"], "--input is nowhere, which does not exist; name a sampling run"),
        (["--from-stage", 2, "--input", "{here}"], "from_stage is 2; it must be from 1 to 1"),
        (["--from-stage", 1, "--input", "{here}", "--keywords", "a"], "--input is given with --keywords or --outline"),
        (["--pin", "3:0:x"], "text is pinned in stage 3; the stages are 1 to 2"),
        (["--pin", "x"], "--pin is 'x'; it must be STAGE:POSITION:TEXT"),
        (["--outline", "nowhere"], "nowhere does not exist; name a text file that holds the outline"),
        (["--steps", "3"], "steps is 3 and the predictor first_hitting, which has no time grid"),
        (["--tokens-per-call", "1,2,3"], "3 tokens_per_call are given for 2 stages; give one for all of them"),
        (["--eta", "2", "--predictor", "remask"], "eta is 2.0; it must lie between 0"),
        (["--temperature", "-1"], "temperature is -1.0; it must be at least 0"),
        (["--watch"], "--watch needs a terminal"),
    ],
    ids=str,
)
def test_what_cannot_be(runs, tmp_path, options, message):
    """One message, and no folder."""
    here = tmp_path / "here.txt"
    here.write_text("the fox")
    options = [str(option).format(here=here) for option in options]
    out = tmp_path / "out"
    named = ["--stage", runs / "stage1", "--stage", runs / "stage2"]
    assert message in failure("sample", *named, "--output-dir", out, *options)
    assert not out.exists()


def test_pinned_text_in_order(runs, tmp_path):
    """Pins of one stage in any order, and a number of texts that the batch does not divide."""
    run = sampled(
        runs, tmp_path, "--num-samples", 3, "--batch-size", 2, "--pin", "2:end:.", "--pin", "2:start:The fox",
    )  # fmt: skip
    texts = [record["stages"][1]["text"] for record in records(run)]
    assert all(text.startswith("The fox") and text.endswith(".") for text in texts)
    assert all(one != other for one, other in itertools.combinations(texts, 2))
