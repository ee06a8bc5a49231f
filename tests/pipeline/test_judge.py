"""`cdllm judge train`: a judge that tells stories from shuffled ones, bit for bit the same after an interruption."""

import json
import math
import os
import random
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from cascaded_dllm.assemble.judge import assemble_judge
from cascaded_dllm.atomic import file_sha256, write_json
from cascaded_dllm.errors import CheckpointError, ConfigError, DataError, OutputError
from cascaded_dllm.evaluate.generative_ppl import Judge, ppl_corpus_and_error
from cascaded_dllm.judge.run import JUDGE_FILE, JudgeFinished, JudgeKept, JudgeRun, JudgeStep
from cascaded_dllm.judge.settings import JudgeSettings, JudgeSize
from cascaded_dllm.judge.validation import document_texts, validation_figures
from cascaded_dllm.train.optim import OptimConfig
from cascaded_dllm.train.run_events import Resumed
from tests.pipeline.commands import failure, files, success
from tests.processes import cdllm
from tests.processes import run as run_process

pytest.importorskip("transformers", reason="the extra eval is not installed")

LENGTH = 40
FLAGS = ("--width", 16, "--blocks", 1, "--heads", 2, "--length", LENGTH, "--batch-size", 4, "--device", "cpu")


def made(data: Path, out: Path, *, steps: int = 6, seed: int = 0, **options: Any) -> JudgeRun:
    settings = JudgeSettings(
        size=JudgeSize(width=16, blocks=1, heads=2),
        length=LENGTH,
        num_steps=steps,
        batch_size=4,
        seed=seed,
        optim=OptimConfig(lr=1e-2, warmup=2, decay="cosine"),
    )
    rest: dict[str, Any] = {"valid": None, "valid_documents": 10, "stages_dir": None, "checkpoint_every": 2}
    return assemble_judge(data=data, out=out, settings=settings, device=torch.device("cpu"), **(rest | options))


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def same_judge(one: Path, other: Path) -> bool:
    first, second = weights(one), weights(other)
    is_same = first.keys() == second.keys() and all(torch.equal(value, second[name]) for name, value in first.items())
    return is_same and (one / JUDGE_FILE).read_bytes() == (other / JUDGE_FILE).read_bytes()


@pytest.fixture(scope="module")
def whole(stories: Path, valid_stories: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A judge of 6 steps, never interrupted."""
    folder = tmp_path_factory.mktemp("judge") / "whole"
    list(made(stories, folder, valid=valid_stories).events())
    return folder


def test_what_a_judge_is(whole: Path, valid_stories: Path) -> None:
    assert files(whole) == {
        *("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"),
        *("judge.json", "judge_run.json"),
    }
    summary = json.loads((whole / JUDGE_FILE).read_text())
    assert [point["step"] for point in summary["loss_curve"]] == [1, 2, 3, 4, 5, 6]
    assert summary["settings"] == json.loads((whole / "judge_run.json").read_text())
    assert summary["data"]["num_windows"] >= 200
    judge = Judge.load(str(whole))
    assert judge.context == LENGTH + 1
    texts = document_texts(valid_stories, 10)
    nats = torch.cat(judge.token_nats(texts))
    found = summary["validation"]
    assert (found["num_documents"], found["num_tokens"]) == (10, len(nats))
    assert found["ppl_per_token"] == pytest.approx(ppl_corpus_and_error([nats])[0], rel=1e-6)
    characters = sum(map(len, texts))
    assert found["bpc_bits"] == pytest.approx(float(nats.sum()) / math.log(2) / characters, rel=1e-6)


def test_progress_of_the_measurement(whole: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cascaded_dllm.judge.validation._AT_ONCE", 2)
    told: list[tuple[int, int]] = []
    validation_figures(Judge.load(str(whole)), ["a", "b", "c"], lambda done, total: told.append((done, total)))
    assert told == [(2, 3), (3, 3)]


@pytest.mark.parametrize("after", [1, 3, 4, 6])
def test_broken_off_without_warning(
    whole: Path, stories: Path, valid_stories: Path, tmp_path: Path, after: int
) -> None:
    """After a step with a checkpoint or without one, before any and after the last, when no judge is written yet."""
    out = tmp_path / "judge"
    for event in made(stories, out, valid=valid_stories).events():
        if isinstance(event, JudgeStep) and event.step == after:
            break
    if after == 6:
        kept = [event for event in made(stories, out, valid=valid_stories).events() if isinstance(event, JudgeKept)]
        assert [event.step for event in kept] == [6]
    resumed = list(made(stories, out, valid=valid_stories).events())
    assert isinstance(resumed[0], JudgeStep if after == 1 else JudgeFinished if after == 6 else Resumed)
    assert same_judge(out, whole)
    assert files(out) == files(whole)


def test_killed_before_the_judge_is_written(
    whole: Path, stories: Path, valid_stories: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "judge"
    with monkeypatch.context() as patch:
        patch.setattr("cascaded_dllm.judge.run.write_json", killed_at(JUDGE_FILE))
        with pytest.raises(KeyboardInterrupt):
            list(made(stories, out, valid=valid_stories).events())
    resumed, finished = made(stories, out, valid=valid_stories).events()
    assert resumed == Resumed(6, [])
    assert isinstance(finished, JudgeFinished)
    assert same_judge(out, whole)


def test_killed_before_the_checkpoints_are_removed(whole: Path, stories: Path, valid_stories: Path) -> None:
    left = whole / "checkpoints" / "step_6"
    left.mkdir(parents=True)
    [finished] = made(stories, whole, valid=valid_stories).events()
    assert isinstance(finished, JudgeFinished)
    assert not finished.is_new
    assert not left.parent.exists()


def killed_at(name: str) -> Callable[[Path, Any], None]:
    def write(path: Path, value: Any) -> None:
        if path.name == name:
            raise KeyboardInterrupt
        write_json(path, value)

    return write


def test_a_damaged_checkpoint_is_passed_over(
    whole: Path, stories: Path, valid_stories: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The one before is taken, and the damaged one written again."""
    out = tmp_path / "judge"
    with monkeypatch.context() as patch:
        patch.setattr("cascaded_dllm.judge.checkpoint.numbered", lambda checkpoints: [])
        for event in made(stories, out, valid=valid_stories).events():
            if isinstance(event, JudgeKept) and event.step == 4:
                break
    (out / "checkpoints" / "step_4" / "trainer.pt").write_bytes(b"half")
    resumed, *rest = made(stories, out, valid=valid_stories).events()
    assert isinstance(resumed, Resumed)
    assert resumed.step == 2
    assert "trainer.pt does not have its recorded checksum" in resumed.faults[0]
    assert isinstance(rest[-1], JudgeFinished)
    assert same_judge(out, whole)


def test_no_checkpoint_is_complete(stories: Path, tmp_path: Path) -> None:
    out = tmp_path / "judge"
    for event in made(stories, out).events():
        if isinstance(event, JudgeKept):
            break
    checkpoint = out / "checkpoints" / "step_2"
    assert Judge.load(str(checkpoint)).context == LENGTH + 1
    sums = json.loads((checkpoint / "checksums.json").read_text())
    (checkpoint / "trainer.pt").write_bytes(b"half")
    with pytest.raises(CheckpointError, match=r"no checkpoint in .* is complete \(.*; remove .*judge to start again"):
        list(made(stories, out).events())
    (checkpoint / "checksums.json").write_text(
        json.dumps(sums | {"trainer.pt": file_sha256(checkpoint / "trainer.pt")})
    )
    with pytest.raises(CheckpointError, match=r"trainer.pt does not hold the state of a judge .*; remove .*judge"):
        list(made(stories, out).events())


def test_another_judge_is_left_alone(whole: Path, stories: Path, valid_stories: Path, tmp_path: Path) -> None:
    out = Path(shutil.copytree(whole, tmp_path / "judge"))
    with pytest.raises(
        CheckpointError, match=r"holds a judge of other settings: seed was 0 and is 1; give those again"
    ):
        list(made(stories, out, valid=valid_stories, seed=1).events())
    with pytest.raises(CheckpointError, match=r"valid \(fingerprint\) was .* and is null"):
        list(made(stories, out).events())
    (finished,) = made(stories, out, valid=valid_stories).events()
    assert isinstance(finished, JudgeFinished)
    assert not finished.is_new
    (out / JUDGE_FILE).write_text("half")
    with pytest.raises(CheckpointError, match=r"judge.json cannot be read .*; remove .*, or give another --out"):
        list(made(stories, out, valid=valid_stories).events())
    (out / JUDGE_FILE).write_text("[]")
    with pytest.raises(CheckpointError, match=r"judge.json is not a JSON object; remove "):
        list(made(stories, out, valid=valid_stories).events())


def test_places_for_a_judge(stories: Path, tmp_path: Path) -> None:
    """They are looked for before windows are built."""
    (tmp_path / "notes").write_text("mine")
    is_foreign = "which holds something other than a judge; name a new folder"
    for taken in (tmp_path, tmp_path / "notes"):
        with pytest.raises(OutputError, match=is_foreign):
            made(stories, taken)
    with pytest.raises(OutputError, match=r"which cannot be written .*; name a folder that you may write to"):
        made(stories, tmp_path / "notes" / "judge")
    assert files(tmp_path) == {"notes"}
    run = made(stories, tmp_path / "judge")
    (tmp_path / "judge").mkdir()
    (tmp_path / "judge" / "notes").write_text("mine, since the windows were built")
    with pytest.raises(OutputError, match=is_foreign):
        list(run.events())
    assert files(tmp_path) == {"notes", "judge/notes"}


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"checkpoint_every": 0}, ConfigError, "--checkpoint-every is 0; it must be at least 1"),
        ({"valid_documents": 0}, ConfigError, "--valid-documents is 0; it must be at least 1"),
    ],
)
def test_bad_numbers(stories: Path, tmp_path: Path, options: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        made(stories, tmp_path / "judge", **options)


def test_windows_are_kept_elsewhere(stories: Path, tmp_path: Path) -> None:
    made(stories, tmp_path / "judge", stages_dir=tmp_path / "windows")
    assert any(name.endswith("stage1.npy") for name in files(tmp_path / "windows"))


def test_command(stories: Path, valid_stories: Path, tmp_path: Path) -> None:
    flags = (
        *("--data", stories, "--valid", valid_stories, "--valid-documents", 5, "--out", tmp_path / "judge", *FLAGS),
        *("--steps", 4, "--checkpoint-every", 3, "--lr", 0.01, "--warmup", 1, "--weight-decay", 0.5, "--seed", 3),
        *("--dropout", 0.2, "--packing", "stream", "--model", "small", "--stages", tmp_path / "windows"),
    )
    shown = success("judge", "train", *flags).output
    assert "judge: step 3 of 4, loss" in shown
    assert "5 validation texts: perplexity" in shown
    settings = json.loads((tmp_path / "judge" / JUDGE_FILE).read_text())["settings"]
    of_size = {"width": 16, "blocks": 1, "heads": 2, "length": LENGTH, "packing": "stream"}
    expected = of_size | {"num_steps": 4, "batch_size": 4, "seed": 3}
    of_optim = {"optim.lr": 0.01, "optim.warmup": 1, "optim.weight_decay": 0.5, "optim.decay": "cosine"}
    expected |= of_optim | {"dropout": 0.2, "valid_documents": 5}
    assert {key: settings[key] for key in expected} == expected
    assert any(name.endswith("stage1.npy") for name in files(tmp_path / "windows"))
    assert "finished already" in success("judge", "train", *flags).output


def interrupted_in_step_3(arguments: list[str]) -> None:
    """In a process: Ctrl-C during the third step."""
    step, calls = torch.optim.AdamW.step, []

    def interrupting_step(self: Any, *arguments: Any) -> Any:
        calls.append(1)
        if len(calls) == 3:
            os.kill(os.getpid(), signal.SIGINT)
        return step(self, *arguments)

    torch.optim.AdamW.step = interrupting_step
    cdllm(*arguments)


@pytest.mark.slow
def test_ctrl_c(stories: Path, tmp_path: Path) -> None:
    """The step is kept; the same command ends with the bits of one that was not interrupted."""

    def flags(name: str) -> list[str]:
        given = ("judge", "train", "--data", stories, "--out", tmp_path / name, *FLAGS, "--steps", 5)
        return [str(flag) for flag in given]

    stopped = run_process(interrupted_in_step_3, flags("parts"))
    assert stopped.returncode == 130
    assert "judge: stopped at step 3 of 5, which is kept in" in stopped.stderr
    assert "judge: resumed at step 3" in success(*flags("parts")).output
    success(*flags("whole"))
    assert same_judge(tmp_path / "parts", tmp_path / "whole")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (
            ["--out", "judge"],
            "no --data is given; --data names a folder that `cdllm preprocess` made, --out a new folder",
        ),
        (["--data", "DATA"], "no --out is given"),
        (["--data", "nowhere", "--out", "OUT"], "nowhere"),
        (["--data", "DATA", "--out", "OUT", "--length", "1"], "--length is 1; it must be at least 2"),
        (["--data", "DATA", "--out", "OUT", "--batch-size", "9999"], "windows of 256 tokens, and a batch 9999; give"),
        (
            ["--data", "DATA", "--out", "OUT", "--packing", "stream", "--length", "100000"],
            "one window needs 100000; give more data, a smaller --length or --packing document",
        ),
        (["--data", "DATA", "--out", "OUT", "--valid", "nowhere"], "nowhere"),
        (["--data", "DATA", "--out", "OUT", "--lr", "0"], "optim.lr is 0.0; it must be greater than 0"),
        (["--data", "DATA", "--out", "OUT", "--device", "abacus"], "device 'abacus' cannot be used"),
    ],
)
def test_bad_input(stories: Path, tmp_path: Path, flags: list[str], message: str) -> None:
    places = {"DATA": str(stories), "OUT": str(tmp_path / "judge")}
    assert message in failure("judge", "train", *[places.get(flag, flag) for flag in flags])
    assert not (tmp_path / "judge").exists()


def test_no_document_to_measure_on(stories: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cascaded_dllm.data.preprocessed.PreprocessedDataset.records", lambda self: iter(()))
    with pytest.raises(DataError, match="holds no document to measure the judge on; give another folder with --valid"):
        document_texts(stories, 3)


@pytest.mark.slow
def test_a_judge_tells_stories_from_shuffled_ones(stories: Path, valid_stories: Path, tmp_path: Path) -> None:
    """Of stories that it has not seen, under its perplexity a token, which is the library's own loss of them."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    flags = ("--width", 32, "--blocks", 1, "--heads", 2, "--length", LENGTH, "--batch-size", 16, "--steps", 150)
    rest = ("--lr", 1e-2, "--dropout", 0, "--valid", valid_stories, "--device", "cpu")
    success("judge", "train", "--data", stories, "--out", tmp_path / "judge", *flags, *rest)
    judge, texts = Judge.load(str(tmp_path / "judge")), document_texts(valid_stories, 20)
    order = random.Random(0)
    shuffled = [" ".join(order.sample(words, len(words))) for words in map(str.split, texts)]
    nats, of_shuffled = judge.token_nats(texts), judge.token_nats(shuffled)
    ppl, ppl_shuffled = (ppl_corpus_and_error(found)[0] for found in (nats, of_shuffled))
    assert ppl is not None
    assert ppl_shuffled is not None
    assert ppl_shuffled > 3 * ppl
    assert all(float(one.sum()) < float(other.sum()) for one, other in zip(nats, of_shuffled, strict=True))
    summary = json.loads((tmp_path / "judge" / JUDGE_FILE).read_text())
    assert summary["validation"]["ppl_per_token"] == pytest.approx(ppl, rel=1e-5)
    assert summary["loss_curve"][-1]["loss_nats_per_token"] < 0.5 * summary["loss_curve"][0]["loss_nats_per_token"]
    model, tokenizer = (
        library.from_pretrained(tmp_path / "judge") for library in (AutoModelForCausalLM, AutoTokenizer)
    )
    for text, found in zip(texts[:3], nats[:3], strict=True):
        read = torch.tensor([[tokenizer.bos_token_id, *tokenizer(text)["input_ids"]]])
        with torch.no_grad():
            assert float(found.mean()) == pytest.approx(float(model(read, labels=read).loss), rel=1e-5)
