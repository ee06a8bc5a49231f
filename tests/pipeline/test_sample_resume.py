"""`cdllm sample` killed, stopped or out of room keeps what it has finished, and --resume ends as if it had not been."""

import json
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from cascaded_dllm.cli.main import app
from cascaded_dllm.cli.sample_entry import main
from cascaded_dllm.evaluate.generative_ppl import Judge
from cascaded_dllm.sample import output
from cascaded_dllm.sample.output import SampleRun
from cascaded_dllm.sample.writing import TokenWriter
from tests.pipeline.commands import failure, success
from tests.processes import cdllm
from tests.processes import run as run_process

CALLS_OF_A_BATCH = 4 + 8


# The process signals itself, so that it does so at the same place on every machine.
def signalled_at_call(call: int, number: signal.Signals, times: int, arguments: list[str]) -> None:
    """In a process: while a network call of this number is made."""
    ask, calls = TokenWriter.ask, []

    def signalling(self: Any, *given: Any) -> Any:
        calls.append(1)
        if len(calls) == call:
            for _ in range(times):
                os.kill(os.getpid(), number)
        return ask(self, *given)

    TokenWriter.ask = signalling  # type: ignore[method-assign]
    cdllm(*arguments)


def killed_in_a_line(name: str, arguments: list[str]) -> None:
    """In a process: within the second batch that is put into the file `name`."""
    append, times = SampleRun._append, []

    def killing(self: SampleRun, file: str, content: bytes) -> None:
        times.append(file)
        if times.count(name) == 2:
            append(self, file, content[:-20])
            os.kill(os.getpid(), signal.SIGKILL)
        append(self, file, content)

    SampleRun._append = killing  # type: ignore[method-assign]
    cdllm(*arguments)


def killed_before_writing(name: str, arguments: list[str]) -> None:
    """In a process: when all texts are there, and the file `name` for readers is not."""
    write = {"write_text": output.write_text, "write_json": output.write_json}

    def killing(function: str) -> Any:
        def writing(path: Path, content: Any) -> None:
            if path.name == name:
                os.kill(os.getpid(), signal.SIGKILL)
            write[function](path, content)

        return writing

    for function in write:
        setattr(output, function, killing(function))
    cdllm(*arguments)


def killed_before_forgetting(_: str, arguments: list[str]) -> None:
    """In a process: when everything is written."""
    SampleRun.forget_batches = lambda _: os.kill(os.getpid(), signal.SIGKILL)  # type: ignore[method-assign]
    cdllm(*arguments)


@pytest.fixture(scope="module")
def arguments(runs: Path) -> list[str]:
    """Seven texts of two stages in three batches."""
    stages = ["--stage", f"{runs}/stage1", "--stage", f"{runs}/stage2"]
    return ["sample", *stages, "--num-samples", "7", "--batch-size", "3", "--seed", "5", "--device", "cpu"]


@pytest.fixture(scope="module")
def unbroken(arguments: list[str], tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The files of a run that was never broken off."""
    folder = tmp_path_factory.mktemp("unbroken")
    success(*arguments, "--output-dir", folder)
    return contents(only(folder))


def only(folder: Path) -> Path:
    (found,) = folder.iterdir()
    return found


def contents(run: Path) -> dict[str, bytes]:
    """Every file of a run; of the summary all but the seconds."""
    found = {path.name: path.read_bytes() for path in run.iterdir()}
    summary = json.loads(found["summary.json"])
    assert summary["seconds"] > 0
    found["summary.json"] = json.dumps(summary | {"seconds": 0}).encode()
    return found


def num_lines(path: Path) -> int:
    return path.read_bytes().count(b"\n")


@pytest.mark.parametrize("batch_size", [1, 32])
def test_batches_change_nothing_but_what_is_said_of_them(arguments, unbroken, tmp_path, batch_size):
    success(*arguments, "--batch-size", batch_size, "--output-dir", tmp_path)
    found = contents(only(tmp_path))
    for name in ("samples.jsonl", "sample_stage1.txt", "sample_stage2.txt"):
        assert found[name] == unbroken[name]
    summaries = [json.loads(files["summary.json"]) | {"batch_size": 0} for files in (found, unbroken)]
    assert summaries[0] == summaries[1]
    success(*arguments, "--seed", 6, "--output-dir", tmp_path / "other")
    assert contents(only(tmp_path / "other"))["sample_stage2.txt"] != unbroken["sample_stage2.txt"]


@pytest.mark.parametrize(
    ("broken", "given", "num_batches", "num_texts"),
    [
        (signalled_at_call, (3, signal.SIGKILL, 1), 0, 0),
        (signalled_at_call, (CALLS_OF_A_BATCH + 6, signal.SIGKILL, 1), 1, 3),
        (killed_in_a_line, ("samples.jsonl",), 1, 5),
        (killed_in_a_line, ("batches.jsonl",), 1, 6),
        (killed_before_writing, ("sample_stage2.txt",), 3, 7),
        (killed_before_writing, ("summary.json",), 3, 7),
    ],
    ids=["first batch", "second batch", "texts", "count of texts", "listing", "summary"],
)
def test_killed(arguments, unbroken, tmp_path, broken, given, num_batches, num_texts):
    """The half-written is dropped, the finished kept, and the end has the same bytes."""
    killed = run_process(broken, *given, [*arguments, "--output-dir", str(tmp_path)])
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    run = only(tmp_path)
    assert (num_lines(run / "batches.jsonl"), num_lines(run / "samples.jsonl")) == (num_batches, num_texts)
    assert not (run / "summary.json").exists()
    said = success("sample", "--resume", run).stdout
    kept = min(7, 3 * num_batches)
    assert ("of which" in said) == (kept > 0)
    assert f"sampling 7 texts{f', of which {kept} are there,' if kept else ''} from 2 stages (4, 8 tokens)" in said
    assert contents(run) == unbroken


def test_killed_when_all_was_written(arguments, unbroken, tmp_path):
    killed = run_process(killed_before_forgetting, "", [*arguments, "--output-dir", str(tmp_path)])
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    run = only(tmp_path)
    assert "is complete: all of 7 texts are there, and nothing is changed" in success("sample", "--resume", run).stdout
    assert contents(run) == unbroken


@pytest.mark.parametrize(("name", "exit_code"), [("SIGINT", 130), ("SIGTERM", 75), ("SIGUSR1", 75)])
def test_stopped_in_order(arguments, unbroken, tmp_path, name, exit_code):
    """After the step, with the batches before it; readers see what there is and that it is not all."""
    words = [*arguments, "--output-dir", str(tmp_path)]
    stopped = run_process(signalled_at_call, CALLS_OF_A_BATCH + 6, signal.Signals[name], 1, words)
    assert stopped.returncode == exit_code, stopped.stderr
    run = only(tmp_path)
    assert stopped.stderr.splitlines() == [
        "stopping after this step, with the finished batches kept; a second signal stops at once",
        f"stopped with 3 of 7 texts, which are kept in {run}; cdllm sample --resume {run} goes on from there",
    ]
    assert "sampling 7 texts from 2 stages (4, 8 tokens) with first_hitting on cpu into" in stopped.stdout
    summary = json.loads((run / "summary.json").read_text())
    assert [summary[key] for key in ("complete", "num_finished", "num_samples", "judge")] == [False, 3, 7, None]
    assert (summary["nfe_per_stage"], summary["figures"]["num_samples"]) == ([4, 8], 3)
    assert (run / "sample_stage2.txt").read_text().count("=" * 80 + "\n") == 3
    assert not (run / "run.lock").exists()
    success("sample", "--resume", run)
    assert contents(run) == unbroken


def test_stopped_before_anything_is_finished(arguments, unbroken, tmp_path):
    stopped = run_process(signalled_at_call, 2, signal.SIGINT, 1, [*arguments, "--output-dir", str(tmp_path)])
    assert stopped.returncode == 130, stopped.stderr
    assert "stopped with 0 of 7 texts" in stopped.stderr
    run = only(tmp_path)
    assert json.loads((run / "summary.json").read_text())["figures"] == {}
    success("sample", "--resume", run)
    assert contents(run) == unbroken


def test_stopped_twice(arguments, unbroken, tmp_path):
    """At once, without a traceback; the first batch stands."""
    words = [*arguments, "--output-dir", str(tmp_path)]
    stopped = run_process(signalled_at_call, CALLS_OF_A_BATCH + 6, signal.SIGINT, 2, words)
    assert (stopped.returncode, stopped.stderr) == (130, "interrupted\n")
    run = only(tmp_path)
    assert not (run / "summary.json").exists()
    success("sample", "--resume", run)
    assert contents(run) == unbroken


@pytest.fixture(scope="module")
def stopped_once(arguments: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("stopped")
    words = [*arguments, "--output-dir", str(folder)]
    assert run_process(signalled_at_call, CALLS_OF_A_BATCH + 6, signal.SIGINT, 1, words).returncode == 130
    return only(folder)


@pytest.fixture
def stopped(stopped_once: Path, tmp_path: Path) -> Path:
    """A run of which three of seven texts are there."""
    return shutil.copytree(stopped_once, tmp_path / "out" / stopped_once.name)


def test_options_of_a_run_that_goes_on(stopped, runs, unbroken, tmp_path, monkeypatch):
    """What agrees may be said again, from anywhere; what contradicts is refused, and the folder stays as it was."""
    before = {path: path.read_bytes() for path in stopped.iterdir()}
    for flags, message in (
        (["--seed", 6], "--seed is 6, and the run in .* was begun with 5; all its texts are drawn alike: leave --seed"),
        (
            ["--num-samples", 8],
            "--num-samples is 8, and .* begun with 7; in a new folder the texts of the same .*: leave",
        ),
        (["--stage", runs / "stage1"], "--stage is .*stage1, and .* begun with .*stage1, .*stage2; all its texts"),
        (["--steps", 3], "--steps is 3, and .* begun with none; all its texts"),
        (["--predictor", "euler"], "--predictor is euler, and .* begun with first_hitting"),
        (["--guidance", 1], "--guidance is 1.0, and .* begun with 0.0"),
        (["--prefix-noise", 1], "--prefix-noise is 1.0, and .* begun with 0.0"),
        (["--lengths", "4,8"], "--lengths is 4, 8, and .* begun with none"),
        (["--tokenizer", "gpt2"], "--tokenizer is gpt2, and .* begun with none"),
        (["--weights", "raw"], "--weights is raw, and .* begun with ema"),
        (["--pin", "2:start: a", "--pin", "1:0: b"], "--pin is 2:start: a, 1:0: b, and .* begun with none; all its"),
        (["--dtype", "bfloat16"], "--dtype is bfloat16, and .* begun with float32"),
        (["--output-dir", tmp_path], "--output-dir is .*, and .* begun with .*out; all its texts"),
        (["--input", tmp_path], "--input is .*, and .* begun with texts that it stores itself: leave --input out"),
        (["--input", tmp_path], "--input is .*, and .* begun with texts that it stores itself: leave --input out"),
        (["--batch-size", 0], "batch_size is 0; it must be at least 1"),
    ):
        assert_matches(failure("sample", "--resume", stopped, *flags), message)
    assert {path: path.read_bytes() for path in stopped.iterdir()} == before
    monkeypatch.chdir(tmp_path)
    same = ["--seed", 5, "--num-samples", 7, "--stage", runs / "stage1", "--stage", runs / "stage2"]
    same += ["--output-dir", "out", "--predictor", "first_hitting", "--dtype", "float32", "--weights", "ema"]
    success("sample", "--resume", stopped.relative_to(tmp_path), *same)
    assert contents(stopped) == unbroken


def assert_matches(found: str, pattern: str) -> None:
    with pytest.raises(AssertionError, match=pattern):
        raise AssertionError(found)


def test_going_on_with_other_batches(stopped, unbroken):
    success("sample", "--resume", stopped, "--batch-size", 1)
    found = contents(stopped)
    assert json.loads(found["summary.json"])["batch_size"] == 1
    assert {**found, "summary.json": b""} == {**unbroken, "summary.json": b""}


def test_going_on_with_other_batches_of_few_digits(arguments, tmp_path):
    """A matrix product of other size may round differently in bfloat16, and it is said."""
    words = [*arguments, "--dtype", "bfloat16", "--output-dir", str(tmp_path)]
    assert run_process(signalled_at_call, CALLS_OF_A_BATCH + 6, signal.SIGINT, 1, words).returncode == 130
    result = CliRunner().invoke(app, ["sample", "--resume", str(only(tmp_path)), "--batch-size", "2"])
    assert result.exit_code == 0, result.output
    assert (
        "drawn in batches of 3: in bfloat16, a batch of 2 may round differently, so a text can differ" in result.stderr
    )


def test_going_on_on_another_device(stopped):
    """Two devices may round differently, and it is said."""
    path = stopped / "batches.jsonl"
    path.write_text(path.read_text().replace('"cpu"', '"cuda:0"'))
    result = CliRunner().invoke(app, ["sample", "--resume", str(stopped), "--device", "cpu"])
    assert result.exit_code == 0, result.output
    assert "the texts so far were drawn on cuda:0: cpu may round differently, so a text can differ" in result.stderr
    assert json.loads((stopped / "summary.json").read_text())["device"] == "cuda:0, cpu"


def test_documented_entry_goes_on(stopped, unbroken):
    """Without its defaults, which are those of a new run."""
    with pytest.raises(SystemExit) as ended:
        main(["--resume", str(stopped)])
    assert not ended.value.code
    assert contents(stopped) == unbroken


def test_other_weights(stopped, runs, tmp_path):
    moved = tmp_path / "stage2"
    shutil.copytree(runs / "stage2", moved, symlinks=True)
    settings = stopped / "settings.json"
    weights = (moved / "checkpoints" / "latest").resolve()
    settings.write_text(settings.read_text().replace(f"{runs}/stage2", str(weights)))
    success("sample", "--resume", shutil.copytree(stopped, tmp_path / "good"))
    (weights / "checksums.json").unlink()
    shutil.copy(weights / "model.safetensors", weights / "ema.safetensors")
    message = failure("sample", "--resume", stopped)
    assert_matches(
        message, r"were drawn with the weights \w{16} of stage 2, and those in .*step_2 are now \w{16}: it was"
    )
    assert num_lines(stopped / "samples.jsonl") == 3


def test_run_that_is_complete(unbroken, arguments, tmp_path):
    success(*arguments, "--output-dir", tmp_path)
    run = only(tmp_path)
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in run.iterdir()}
    assert "is complete: all of 7 texts are there, and nothing is changed" in success("sample", "--resume", run).stdout
    assert {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in run.iterdir()} == before
    assert "--seed is 1, and the run in" in failure("sample", "--resume", run, "--seed", 1)


@pytest.mark.parametrize(
    ("flags", "ranking"),
    [
        (["--predictor", "first_hitting,confidence", "--temperature", 0.5], "network"),
        (["--predictor", "entropy"], None),
        (["--temperature", 0.5], None),
    ],
)
def test_runs_whose_positions_were_ranked_otherwise(arguments, tmp_path, flags, ranking):
    """A run of before its settings said by which law: refused where it matters, and only while texts are missing."""
    words = [*map(str, [*arguments, *flags]), "--output-dir", str(tmp_path)]
    assert run_process(signalled_at_call, CALLS_OF_A_BATCH + 6, signal.SIGINT, 1, words).returncode == 130
    run = only(tmp_path)
    path = run / "settings.json"
    stored = json.loads(path.read_text())
    assert stored["texts"].pop("ranking") == ranking
    before = shutil.copytree(run, tmp_path / "before")
    (before / "settings.json").write_text(json.dumps(stored))
    if ranking is None:
        success("sample", "--resume", before)
    else:
        message = failure("sample", "--resume", before)
        assert "in which first_hitting, confidence ranked positions by the law at temperature 0.5; now" in message
        assert num_lines(before / "samples.jsonl") == 3
    success("sample", "--resume", run)
    path.write_text(json.dumps(stored))
    assert "nothing is changed" in success("sample", "--resume", run).stdout


def test_run_that_another_process_has(stopped):
    with SampleRun.open(stopped).lock():
        message = failure("sample", "--resume", stopped)
    assert_matches(message, f"{stopped} belongs to a run that is going on: process .*, or sample into a new folder")


def test_folder_that_is_no_sampling_run(runs, tmp_path):
    for folder in (runs / "stage1", tmp_path / "nowhere"):
        assert f"{folder} is not the folder of a sampling run" in failure("sample", "--resume", folder)


def judged(*words: object) -> str:
    """What a command prints that must end well, and in which the library of the judge shows a bar of its own."""
    result = CliRunner().invoke(app, [str(word) for word in words])
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.mark.slow
def test_judge_of_a_run_that_goes_on(arguments, judge, tmp_path):
    """It is remembered, asked when all texts are there, and may also be asked later."""
    folders = {name: tmp_path / name for name in ("whole", "stopped", "later")}
    judged(*arguments, "--judge", judge, "--output-dir", folders["whole"])
    expected = contents(only(folders["whole"]))
    again = judged("sample", "--resume", only(folders["whole"]), "--eval-perplexity")
    assert "nothing is changed" in again, "the judge is the one that the run was begun with"
    words = [*arguments, "--judge", str(judge), "--output-dir", str(folders["stopped"])]
    ended = run_process(signalled_at_call, CALLS_OF_A_BATCH + 6, signal.SIGINT, 1, words)
    assert ended.returncode == 130, ended.stderr
    assert "generative perplexity under" in judged("sample", "--resume", only(folders["stopped"]))
    assert contents(only(folders["stopped"])) == expected
    judged(*arguments, "--output-dir", folders["later"])
    later = ["sample", "--resume", only(folders["later"]), "--judge", judge]
    assert "generative perplexity under" in judged(*later)
    found = contents(only(folders["later"]))
    assert found["summary.json"] == expected["summary.json"]
    assert "nothing is changed" in judged(*later)


def test_default_judge_of_a_run_that_is_complete(arguments, judge, tmp_path, monkeypatch):
    success(*arguments, "--output-dir", tmp_path)
    load = Judge.load
    asked = []
    monkeypatch.setattr(Judge, "load", lambda source: asked.append(source) or load(str(judge)))
    assert "generative perplexity under" in judged("sample", "--resume", only(tmp_path), "--eval-perplexity")
    assert asked == ["gpt2-large"]


@pytest.mark.slow
def test_judge_that_was_not_asked_is_asked_later(arguments, judge, tmp_path, monkeypatch):
    words = [*arguments, "--judge", str(judge), "--output-dir", str(tmp_path / "stopped")]
    # In the last call of the last batch.
    ended = run_process(signalled_at_call, 3 * CALLS_OF_A_BATCH, signal.SIGTERM, 1, words)
    assert ended.returncode == 75, ended.stderr
    assert "stopped with 7 of 7 texts" in ended.stderr
    assert "generative perplexity under" in judged("sample", "--resume", only(tmp_path / "stopped"))
    with monkeypatch.context() as patched:

        def failing(*_: Any, **__: Any) -> None:
            raise KeyboardInterrupt

        patched.setattr(Judge, "token_nats", failing)
        with pytest.raises(AssertionError, match="interrupted"):
            judged(*arguments, "--judge", judge, "--output-dir", tmp_path / "failed")
    run = only(tmp_path / "failed")
    assert SampleRun.open(run).is_complete()
    assert "generative perplexity under" in judged("sample", "--resume", run)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--num-samples", 0], "num_samples is 0; it must be at least 1"),
        (["--batch-size", 0], "batch_size is 0; it must be at least 1"),
        (["--predictor", "magic"], "the predictor is 'magic'"),
        (["--predictor", "euler", "--steps", 0], "steps is 0; it must be at least 1"),
        (["--steps", 5], "steps is 5 and the predictor first_hitting"),
        (["--dtype", "int8"], "dtype"),
        (["--device", "nothing"], "device 'nothing' cannot be used"),
        (["--output-dir", __file__], "is a file; name a folder for the samples with --output-dir"),
        (["--output-dir", f"{__file__}/a"], "cannot be written (Not a directory)"),
    ],
)
def test_what_is_told_before_a_checkpoint_is_read(flags, message, tmp_path):
    """Although there is no stage at this place."""
    assert message in failure("sample", "--stage", tmp_path / "nowhere", "--output-dir", tmp_path / "out", *flags)
    assert not (tmp_path / "out").exists()


def test_no_stage():
    assert failure("sample").startswith("no --stage is given; name at least 1 run folder")


def test_short_of_memory(arguments, unbroken, tmp_path, monkeypatch):
    """In the second batch: the first is kept, and the command that is named goes on."""
    ask, calls = TokenWriter.ask, []

    def limited(self: Any, xt: torch.Tensor, *given: Any) -> Any:
        calls.append(1)
        if len(calls) > CALLS_OF_A_BATCH + 6 and len(xt) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return ask(self, xt, *given)

    with monkeypatch.context() as patched:
        patched.setattr(TokenWriter, "ask", limited)
        message = failure(*arguments, "--output-dir", tmp_path)
    run = only(tmp_path)
    assert_matches(message, rf"3 of 7 texts are kept: --batch-size 1 fits, go on, with cdllm sample --resume {run}")
    assert not (run / "run.lock").exists()
    success("sample", "--resume", run, "--batch-size", 1)
    assert contents(run)["samples.jsonl"] == unbroken["samples.jsonl"]


def no_room_beyond(megabytes: int, arguments: list[str]) -> None:
    """In a process: no more memory than it has when this begins, and a little."""
    import resource

    import cascaded_dllm.cli.sample

    assert cascaded_dllm.cli.sample
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + megabytes * 2**20, resource.RLIM_INFINITY))
    cdllm(*arguments)


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="the size of a process is asked of Linux")
def test_batch_that_is_larger_than_the_memory(arguments, tmp_path):
    """The real error of the CPU."""
    flags = ["--num-samples", "400000", "--batch-size", "400000", "--output-dir", str(tmp_path)]
    short = run_process(no_room_beyond, 300, [*arguments, *flags])
    assert short.returncode == 2, short.stdout + short.stderr
    assert_matches(
        short.stderr,
        r"no room for the batch in the memory of cpu \([\d,]+ bytes more were asked for\); 0 of 400000 texts are kept: "
        r"400000 texts do not fit, try --batch-size \d+ or less, with cdllm sample --resume",
    )
