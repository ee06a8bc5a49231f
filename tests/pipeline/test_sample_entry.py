"""The documented command of sampling, and what is said of the texts that it draws."""

import json
from pathlib import Path

import pytest
import torch

from cascaded_dllm.cli import sample_entry
from cascaded_dllm.cli.sample_entry import main
from cascaded_dllm.evaluate.figures import stage_figures
from cascaded_dllm.evaluate.generative_ppl import Judge, ppl_corpus_and_error, ppl_per_text
from cascaded_dllm.text.tokenizer import Tokenizer
from tests.pipeline.commands import failure, success


def run(*arguments: object) -> int:
    """The exit code of the entry."""
    with pytest.raises(SystemExit) as ended:
        main([str(argument) for argument in arguments])
    return int(ended.value.code or 0)


def stages(runs: Path) -> list[str]:
    return [f"--stage{number}_model_path={runs}/stage{number}" for number in (1, 2)]


def only(folder: Path) -> Path:
    (found,) = folder.iterdir()
    return found


def summary(folder: Path) -> dict:
    return json.loads((only(folder) / "summary.json").read_text())


def records(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (only(folder) / "samples.jsonl").read_text().splitlines()]


def test_documented_flags_are_those_of_the_command(runs, tmp_path):
    flags = ["--batch_size", 3, "--steps", 4, "--predictor", "analytic", "--device", "cpu"]
    assert run(*stages(runs), *flags, "--output_dir", tmp_path / "entry") == 0
    same = ["--batch-size", 3, "--num-samples", 3, "--steps", 4, "--predictor", "analytic", "--device", "cpu"]
    named = ["--stage", runs / "stage1", "--stage", runs / "stage2"]
    success("sample", *named, *same, "--output-dir", tmp_path / "command")
    assert records(tmp_path / "entry") == records(tmp_path / "command")
    assert only(tmp_path / "entry").name.startswith("sample_cascade_steps_4_len_8_")


def test_texts_and_separators_byte_for_byte(runs, tmp_path):
    assert run(*stages(runs), "--batch_size", 2, "--steps", 2, "--output_dir", tmp_path) == 0
    for number in (1, 2):
        expected = b"".join(
            record["stages"][number - 1]["text"].encode() + b"\n" + b"=" * 80 + b"\n" for record in records(tmp_path)
        )
        assert (only(tmp_path) / f"sample_stage{number}.txt").read_bytes() == expected


def test_what_is_not_given(runs, tmp_path, monkeypatch):
    """As many texts as a batch has, 1,024 steps where there are steps; what is given of the command wins."""
    flags = ["--num-samples=1", "--lengths", "4,8,40"]
    with monkeypatch.context() as patched:
        asked: list[list[str]] = []
        patched.setattr(sample_entry, "app", lambda words, prog_name: asked.append(words))
        main([*stages(runs), *flags])
    assert asked[0] == [
        *["sample", "--stage", f"{runs}/stage1", "--stage", f"{runs}/stage2", "--batch-size", "32"],
        *["--predictor", "analytic", "--output-dir", "./sampling_outputs", "--steps", "1024", *flags],
    ]
    for predictor in ("first_hitting", "confidence", "entropy,first_hitting"):
        flags = ["--predictor", predictor, "--batch_size", 2, "--output_dir", tmp_path / predictor]
        assert run(*stages(runs), *flags) == 0
        assert [summary(tmp_path / predictor)[key] for key in ("num_samples", "steps")] == [2, [None]]
    monkeypatch.setattr(sample_entry, "app", lambda words, prog_name: asked.append(words))
    for predictor in ("tweedie", "tweedie,first_hitting", "first_hitting, euler"):
        main([*stages(runs), "--predictor", predictor])
        assert asked[-1][-4:] == ["--steps", "1024", "--num-samples", "32"]


def test_a_stage_that_is_left_out(runs, capsys):
    assert run(f"--stage2_model_path={runs}/stage2") == 2
    assert "--stage1_model_path is missing; give a path for every stage" in capsys.readouterr().err
    assert run() == 2
    assert "--stage1_model_path is missing" in capsys.readouterr().err
    assert run("--stage1_model_path", f"{runs}/stage1", "--stage4_model_path", f"{runs}/stage2") == 2
    assert "--stage2_model_path is missing" in capsys.readouterr().err
    # A number that was mistyped does not fill the memory.
    assert run("--stage1_model_path", f"{runs}/stage1", "--stage99999999999_model_path", f"{runs}/stage2") == 2
    assert "--stage2_model_path is missing" in capsys.readouterr().err


def test_stages_are_counted_from_1(runs, tmp_path, capsys):
    """Another number is an unknown flag, and no other name of a stage."""
    assert run("--stage0_model_path", f"{runs}/stage1", "--output_dir", tmp_path / "none") == 2
    assert "--stage1_model_path is missing" in capsys.readouterr().err
    assert run(*stages(runs), "--stage01_model_path", f"{runs}/stage2", "--output_dir", tmp_path / "none") == 2
    assert "No such option: --stage01_model_path" in capsys.readouterr().err
    assert not (tmp_path / "none").exists()


def test_a_stage_in_the_place_of_another(runs, tmp_path, capsys):
    mixed = ["--stage1_model_path", runs / "stage2", "--stage2_model_path", runs / "stage1"]
    assert run(*mixed, "--output_dir", tmp_path / "none") == 2
    assert "is stage 2 of lengths [4, 8, 40], and stage 1 of lengths [4, 8, 40] was expected" in capsys.readouterr().err
    assert not (tmp_path / "none").exists()


def test_help_names_the_documented_flags(capsys):
    assert run("--help") == 0
    text = capsys.readouterr().out
    for flag in ("--stage3_model_path", "--batch_size", "--steps", "--predictor", "--output_dir", "--eval_perplexity"):
        assert flag in text


def test_figures_are_those_of_the_texts(runs, judge, tmp_path):
    """Nothing of the last batch, which is not full, is left out."""
    flags = ["--batch_size", 2, "--num-samples", 3, "--steps", 3, "--judge", judge, "--output_dir", tmp_path]
    assert run(*stages(runs), *flags) == 0
    found = summary(tmp_path)
    ids = {k: torch.tensor([record["stages"][k - 1]["ids"] for record in records(tmp_path)]) for k in (1, 2)}
    tokenizer = Tokenizer.load(runs / "stage1" / "checkpoints" / "latest" / "tokenizer.json")
    texts = [tokenizer.decode_window(row) for row in ids[2].tolist()]
    nats = Judge.load(str(judge)).token_nats(texts)
    expected = stage_figures(ids) | {
        "num_samples": 3,
        "generative_ppl_per_sequence": float(ppl_per_text(nats).mean()),
        "generative_ppl_corpus": ppl_corpus_and_error(nats)[0],
        "generative_ppl_per_sequence_standard_error": float(ppl_per_text(nats).std() / len(ppl_per_text(nats)) ** 0.5),
        "generative_ppl_corpus_standard_error": ppl_corpus_and_error(nats)[1],
        "num_judged_texts": sum(len(row) > 0 for row in nats),
        "num_empty_texts": sum(text == "" for text in texts),
        "num_judged_tokens": sum(map(len, nats)),
    }
    assert found["figures"] == pytest.approx(expected, rel=1e-5)
    assert (found["judge"], found["num_samples"]) == (str(judge), 3)
    assert found["definitions"].keys() == {"generative_ppl_per_sequence", "generative_ppl_corpus"}


def test_without_a_judge_there_is_no_perplexity(runs, tmp_path):
    said = success("sample", "--stage", runs / "stage1", "--num-samples", 2, "--output-dir", tmp_path).stdout
    assert "token entropy" in said
    assert "perplexity" not in said
    assert (summary(tmp_path)["judge"], set(summary(tmp_path)["figures"])) == (
        None,
        {"num_samples", "token_entropy_nats_mean"} | {f"distinct_{n}gram_share" for n in ("uni", "bi", "tri")},
    )


def test_a_judge_that_is_not_there_costs_no_texts(runs, tmp_path):
    flags = ["--num-samples", 2, "--judge", "nowhere/nothing", "--output-dir", tmp_path / "none"]
    said = failure("sample", "--stage", runs / "stage1", *flags)
    assert "the judge is 'nowhere/nothing', which is not a causal language model here" in said
    assert not (tmp_path / "none").exists()


def test_default_judge_of_the_documented_flag(runs, tmp_path, monkeypatch, judge):
    asked, load = [], Judge.load

    def recording(source):
        asked.append(source)
        return load(str(judge))

    monkeypatch.setattr(Judge, "load", recording)
    assert run(*stages(runs), "--batch_size", 1, "--steps", 1, "--eval_perplexity", "--output_dir", tmp_path) == 0
    assert asked == ["gpt2-large"]
    assert "generative_ppl_corpus" in summary(tmp_path)["figures"]


def test_texts_are_kept_when_the_judge_fails(runs, judge, tmp_path, monkeypatch):
    def failing(self, texts, **options):
        raise MemoryError

    monkeypatch.setattr(Judge, "token_nats", failing)
    with pytest.raises(SystemExit, match="2"):
        main([*stages(runs), "--batch_size", "2", "--steps", "1", f"--judge={judge}", f"--output_dir={tmp_path}"])
    assert len(records(tmp_path)) == 2
    assert "token_entropy_nats_mean" in summary(tmp_path)["figures"]
