"""The commands of the README's section on training, as they stand there, on small corpora of the names they speak of.

Only overrides are added: a tiny network that keeps the name of the documented one, and a few steps.
"""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from safetensors.torch import save_file

from cascaded_dllm.importance.pos import PosScorer
from cascaded_dllm.importance.stories_tagger import StoriesTagger
from cascaded_dllm.model.score_config import ScoreModelConfig
from cascaded_dllm.model.score_model import ScoreModel
from cascaded_dllm.preprocess.in_process import preprocess_corpus
from cascaded_dllm.text.corpus import Corpus
from cascaded_dllm.text.stories import Stories
from tests.repo.shell_blocks import shell_commands
from tests.repo.source_tree import CHECKOUT

pytestmark = pytest.mark.slow

SIZES = {"hidden_size": 16, "num_heads": 2, "num_blocks": 1, "cond_dim": 8}
ADDED = ["model=tiny", *(f"model.{key}={value}" for key, value in SIZES.items()), "device=cpu"]
ADDED += ["training.batch_size=4", "training.eval_windows=2", "training.eval_times=1", "training.log_every=1"]
ADDED += ["sampling.num_steps=2", "sampling.num_samples=1", "optim.warmup=0"]

# `python train.py` runs the script, and `cdllm` the command, in one process: starting one takes seconds.
RUN = """
import json, os, runpy, sys
from cascaded_dllm.cli.main import app
for number, words in enumerate(json.loads(sys.argv[1])):
    try:
        if words[:2] == ["python", "train.py"]:
            sys.argv = words[1:]
            runpy.run_path(os.path.join(os.environ["CHECKOUT"], "train.py"), run_name="__main__")
        else:
            assert words[0] == "cdllm", words
            app(words[1:])
    except SystemExit as end:
        if end.code:
            sys.exit(f"command {number}, {' '.join(words)}, ended with {end.code}")
"""


def documented() -> list[list[str]]:
    """The words of every command in the section."""
    readme = (CHECKOUT / "README.md").read_text(encoding="utf-8")
    (section,) = re.findall(r"^## Training\n(.*?)^## ", readme, re.MULTILINE | re.DOTALL)
    return list(shell_commands(section))


def with_overrides(words: list[str]) -> list[str]:
    """A command with what makes it small; a longer run is longer by one step here as well."""
    (model,) = [word.removeprefix("model=") for word in words if word.startswith("model=")] or ["small"]
    is_longer = any(word.startswith("training.num_steps=") for word in words)
    return [*words, *ADDED, f"model.name={model}", f"training.num_steps={3 if is_longer else 2}"]


class Scored(PosScorer):
    """The stories' own words under the name of another method, whose models the test does without."""

    def __init__(self, method: str) -> None:
        super().__init__(StoriesTagger())
        self.method = method


@pytest.fixture(scope="module")
def place(tokenizer, tmp_path_factory):
    """A folder with the data that the commands speak of, a hub cache with the default model, and what came of them."""
    place = tmp_path_factory.mktemp("readme")
    for method, corpora in {
        "constituency": ("openwebtext", "wikitext103"),
        "keybert": ("openwebtext", "wikitext103"),
        "keybert_no_stopword": ("openwebtext", "wikitext103"),
    }.items():
        for seed, corpus in enumerate(corpora):
            for split, num in (("train", 60), ("validation", 30)):
                if (corpus, split) != ("openwebtext", "validation"):
                    preprocess_corpus(
                        Corpus(corpus, Stories(num, seed)),
                        split=split,
                        out_dir=place / "data" / "preprocessed",
                        tokenizer=tokenizer,
                        scorer=Scored(method),
                    )
    make_hub_cache(place / "hub", tokenizer.vocab_size)
    environment = os.environ | {
        "HF_HUB_CACHE": str(place / "hub"),
        "CHECKOUT": str(CHECKOUT),
        "HOME": str(place / "home"),
    }
    done = subprocess.run(
        [sys.executable, "-c", RUN, json.dumps([with_overrides(words) for words in documented()])],
        cwd=place,
        env=os.environ | environment,
        check=False,
        capture_output=True,
        text=True,
        timeout=290,
    )
    assert done.returncode == 0, f"{done.stdout[-2000:]}\n{done.stderr}"
    return place


def make_hub_cache(folder: Path, vocab_size: int) -> None:
    """`louaaron/sedd-small` as a download leaves it, with a network of the tiny size."""
    model = ScoreModel(ScoreModelConfig(vocab_size=vocab_size, **SIZES))
    repository = folder / "models--louaaron--sedd-small"
    snapshot = repository / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("0" * 40)
    sizes = {"hidden_size": 16, "n_heads": 2, "n_blocks": 1, "cond_dim": 8, "dropout": 0.0, "scale_by_sigma": True}
    settings = {"tokens": vocab_size, "graph": {"type": "absorb"}, "noise": {"type": "loglinear"}, "model": sizes}
    (snapshot / "config.json").write_text(json.dumps(settings))
    save_file(model.state_dict(), snapshot / "model.safetensors")


def test_every_kind_of_command_is_documented():
    commands = [" ".join(words) for words in documented()]
    for part in (
        "python train.py stage@_global_=stage1-lr3e-4-32_64_128 model=small",
        "stage@_global_=stage2-lr3e-4-32_64_128",
        "stage@_global_=stage3-lr3e-4-32_64_128",
        "-16_32_128",
        "model=medium",
        "data.dataloader=keybert",
        "data.dataloader=keybert_no_stopword",
        "baseline=true",
        "pretrained.use_pretrained=true",
        "load_dir=",
        "graph.type=uniform",
        "noise.type=geometric",
        "cdllm train ",
    ):
        assert any(part in command for command in commands), part


def test_every_command_runs_and_leaves_the_run_it_speaks_of(place):
    runs = {path.name: yaml.safe_load((path / "config.yaml").read_text()) for path in (place / "runs").iterdir()}
    assert runs.keys() == {
        "openwebtext-small-stage1",
        "openwebtext-small-stage2",
        "openwebtext-small-stage3",
        "openwebtext-small-flat",
        "openwebtext-medium-stage3",
        "wikitext103-small-stage2",
        "openwebtext-small-stage1-uniform",
        "openwebtext-small-stage1-bfloat16",
        "openwebtext-small-stage1-finetuning",
        "openwebtext-small-stage2-finetuning",
    }
    assert {name: config["run_dir"] for name, config in runs.items()} == {name: f"runs/{name}" for name in runs}
    medium = runs["openwebtext-medium-stage3"]
    assert (medium["stage"], medium["stage_lengths"], medium["optim"]["lr"]) == (3, [16, 32, 128], 5e-4)
    preprocessed = place / "data" / "preprocessed"
    assert medium["data"]["path"] == str(preprocessed / "keybert_no_stopword" / "openwebtext_train")
    assert medium["data"]["valid"] == str(preprocessed / "keybert_no_stopword" / "wikitext103_validation")
    assert runs["wikitext103-small-stage2"]["data"]["path"] == str(preprocessed / "keybert" / "wikitext103_train")
    assert {path.name for path in place.iterdir()} <= {"data", "hub", "home", "runs"}


def test_the_run_that_was_taken_up_is_longer(place):
    run = place / "runs" / "openwebtext-small-stage1"
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "lr" in line] == [1, 2, 3]
    starts = json.loads((run / "provenance.json").read_text())["starts"]
    assert [start["step"] for start in starts] == [0, 2, 2]
