"""A model of this package in lm-evaluation-harness, on tasks that are defined here."""

import json
import logging
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("lm_eval", reason="the extra harness is not installed")

import lm_eval
from lm_eval.api.instance import Instance
from lm_eval.tasks import TaskManager

from cascaded_dllm.assemble.run import assemble_run
from cascaded_dllm.errors import ConfigError
from cascaded_dllm.harness import BoundModel, with_device
from tests.pipeline import tiny

SETTINGS = (
    *("model.parameterization=normalized", "model.time_conditioning=false", "optim.lr=0.1"),
    *("sampling.num_samples=0", "training.num_steps=4"),
)


@pytest.fixture(scope="module")
def model(stories: Path, tmp_path_factory: pytest.TempPathFactory) -> BoundModel:
    folder = tmp_path_factory.mktemp("harness") / "flat"
    list(assemble_run(tiny.config(stories, folder, *SETTINGS, "baseline=true")).events())
    found = lm_eval.api.registry.get_model("cdllm").create_from_arg_string(f"stages={folder},num_orders=2")
    assert isinstance(found, BoundModel)
    return found


def asked(kind: str, *pairs: tuple[object, ...]) -> list[Instance]:
    return [Instance(kind, {}, pair, number) for number, pair in enumerate(pairs)]


def test_a_local_task(model: BoundModel, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Choices are ranked by the numbers of the model, and the perplexity of a word is that of its texts."""
    caplog.set_level(logging.ERROR)
    documents = [
        {"question": "Once there was a", "choices": [" fox", " tree", " the the"], "answer": 0},
        {"question": "The old", "choices": [" cat", " a a a"], "answer": 1},
    ]
    (tmp_path / "test.jsonl").write_text("".join(json.dumps(document) + "\n" for document in documents))
    data = f"dataset_path: json\ndataset_kwargs:\n  data_files:\n    test: {tmp_path}/test.jsonl\ntest_split: test\n"
    (tmp_path / "choice.yaml").write_text(
        f"task: choice_here\n{data}output_type: multiple_choice\ndoc_to_text: question\ndoc_to_target: answer\n"
        "doc_to_choice: choices\ntarget_delimiter: ''\nmetric_list:\n  - metric: acc\n"
    )
    (tmp_path / "words.yaml").write_text(
        f"task: words_here\n{data}output_type: loglikelihood_rolling\ndoc_to_text: ''\ndoc_to_target: question\n"
        "metric_list:\n  - metric: word_perplexity\n"
    )
    manager = TaskManager(include_path=str(tmp_path), include_defaults=False)
    results = lm_eval.simple_evaluate(
        model, tasks=["choice_here", "words_here"], task_manager=manager, bootstrap_iters=0
    )["results"]
    right = 0
    for document in documents:
        pairs = [(str(document["question"]), choice) for choice in document["choices"]]  # type: ignore[attr-defined]
        values = [value for value, _ in model.loglikelihood(asked("loglikelihood", *pairs))]
        right += values.index(max(values)) == document["answer"]
    assert results["choice_here"]["acc,none"] == right / 2
    texts = [(str(document["question"]),) for document in documents]
    total = sum(model.loglikelihood_rolling(asked("loglikelihood_rolling", *texts)))
    words = sum(len(text.split()) for (text,) in texts)
    assert results["words_here"]["word_perplexity,none"] == pytest.approx(math.exp(-total / words), rel=1e-6)


def test_what_is_written_ends_where_it_should(model: BoundModel) -> None:
    options = ({"until": []}, {"until": ["", "a"]}, {"until": "e"})
    whole, short, other = model.generate_until(asked("generate_until", *(("Once there was", how) for how in options)))
    assert whole
    assert "a" not in short
    assert "e" not in other
    first_tokens = model.scorer.cascade.tokenizer.encode(whole).ids[:3]
    start = model.scorer.cascade.tokenizer.decode(first_tokens)
    for how, text in (
        ({"until": None}, whole),
        ({"max_gen_toks": 3}, start),
        ({"until": "", "max_gen_toks": 3}, start),
    ):
        assert model.generate_until(asked("generate_until", ("Once there was", how))) == [text]


def test_stages_with_plus_signs(stories: Path, tmp_path: Path) -> None:
    folders = [str(tmp_path / f"stage{k}") for k in (1, 2, 3)]
    for k, folder in enumerate(folders, start=1):
        list(assemble_run(tiny.config(stories, Path(folder), *SETTINGS, f"stage={k}")).events())
    made = BoundModel("+".join(folders), lengths="4+8+40", batch_size="auto", num_times="2")
    assert (made.scorer.batch_size, made.scorer.num_times, made.scorer.window) == (32, 2, 40)
    [(value, is_greedy)] = made.loglikelihood(asked("loglikelihood", ("Once", " there")))
    assert value < 0
    assert not is_greedy


@pytest.mark.parametrize(
    ("given", "size"),
    [
        ("batch_size=auto", 32),
        ("batch_size=auto:4", 32),
        ("batch_size=auto,max_batch_size=8", 8),
        ("batch_size=48", 48),
    ],
)
def test_batch_sizes_as_the_harness_gives_them(given: str, size: int) -> None:
    found = lm_eval.api.registry.get_model("cdllm").create_from_arg_string(f"stages=stories,{given}")
    assert isinstance(found, BoundModel)
    assert found.scorer.batch_size == size


@pytest.mark.parametrize("name", ["num_times", "num_orders", "seed", "batch_size", "max_batch_size"])
@pytest.mark.parametrize("value", ["many", 2.5])
def test_numbers_that_are_none(name: str, value: object) -> None:
    with pytest.raises(ConfigError, match=f"{name} is {value!r}; it must be a whole number"):
        BoundModel("stories", **{name: value})  # type: ignore[arg-type]


@pytest.mark.slow
def test_a_machine_without_a_gpu_needs_no_device(tmp_path: Path) -> None:
    """The documented command runs as it stands."""
    (tmp_path / "test.jsonl").write_text(json.dumps({"question": "My friend", "answer": " Tom is"}))
    (tmp_path / "task.yaml").write_text(
        f"task: here\ndataset_path: json\ndataset_kwargs:\n  data_files:\n    test: {tmp_path}/test.jsonl\n"
        "test_split: test\noutput_type: generate_until\ndoc_to_text: question\ndoc_to_target: answer\n"
        "generation_kwargs:\n  until: ['.']\n  max_gen_toks: 2\nmetric_list:\n  - metric: exact_match\n"
    )
    command = [*(sys.executable, "-m", "cascaded_dllm.harness", "run", "--model", "cdllm", "--tasks", "here")]
    command += ["--model_args", "stages=stories", "--include_path", str(tmp_path)]
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)}
    done = subprocess.run(command, check=False, capture_output=True, text=True, env=environment, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "exact_match" in done.stdout


def test_a_device_that_is_named() -> None:
    run = ["run", "--model", "cdllm"]
    assert with_device(run) == ["run", "--device", "auto", "--model", "cdllm"]
    assert with_device(run[1:]) == ["--device", "auto", "--model", "cdllm"]
    for same in ([*run, "--device", "cpu"], [*run, "--device=cpu"], [*run, "--config", "x"], ["run"], ["ls", "tasks"]):
        assert with_device(same) == same
