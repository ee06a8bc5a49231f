"""Run folders of the original code: the documented command of sampling on them, and bundles of them."""

import json
import runpy
import shutil
import sys
from pathlib import Path

import pytest
import torch
from tokenizers import models, pre_tokenizers

from cascaded_dllm.model.stage_settings import Weights
from cascaded_dllm.sample.cascade import Cascade
from cascaded_dllm.text.tokenizer import Tokenizer
from cascaded_dllm.text.tokenizer_canonical import END_OF_TEXT
from cascaded_dllm.text.tokenizer_files import byte_level
from tests.repo.source_tree import CHECKOUT

FOLDER = Path(__file__).parent
NUM_TOKENS = 60
LENGTHS = (4, 8, 16)
NEEDED = "Ab  \r\n\tcé e\u0301  日\U0001f600 ﬁ 1½.  "
"""What a tokenizer must give back to be taken for a lossless one."""


@pytest.fixture
def tokenizer(tmp_path: Path) -> Path:
    """One of 60 tokens, the number that the networks have: no merges, and far from all bytes."""
    split = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    letters = "".join(piece for piece, _ in split.pre_tokenize_str(NEEDED + "adfghijklmnopqrstuvwxyzBCDEFGHIJKLMNOP"))
    tokens = [*list(dict.fromkeys(letters))[: NUM_TOKENS - 1], END_OF_TEXT]
    made = Tokenizer(
        byte_level(models.BPE(vocab={token: i for i, token in enumerate(tokens)}, merges=[])), origin="here"
    )
    assert made.vocab_size == NUM_TOKENS
    made.save(tmp_path / "tokenizer")
    return tmp_path / "tokenizer"


@pytest.fixture
def stages(tmp_path: Path) -> list[Path]:
    """The stored run as every stage of its cascade: the networks of all stages have the same shape."""
    folders = [tmp_path / f"stage{number}" for number in (1, 2, 3)]
    for number, folder in enumerate(folders, start=1):
        shutil.copytree(FOLDER / "legacy_run", folder)
        settings = folder / ".hydra" / "config.yaml"
        settings.write_text(settings.read_text().replace("\nstage: 3\n", f"\nstage: {number}\n"))
    return folders


@pytest.mark.parametrize("weights", ["ema", "raw"])
def test_bundle_of_runs_of_the_original_code(
    stages: list[Path], tokenizer: Path, tmp_path: Path, weights: Weights
) -> None:
    """It holds the tokenizer that the runs lack, and gives their texts bit for bit."""
    before = Cascade.from_pretrained(stages, tokenizer=tokenizer, weights=weights)
    again = Cascade.from_pretrained(before.save_pretrained(tmp_path / "b"))
    assert (again.weights, again.stage_lengths, again.settings) == (weights, LENGTHS, before.settings)
    for predictor, steps in (("analytic", 3), ("first_hitting", None)):
        one, other = (made.generate(2, predictor=predictor, steps=steps, seed=1) for made in (before, again))
        assert all(torch.equal(ids, same) for ids, same in zip(one.ids, other.ids, strict=True))
        assert one.texts == other.texts


def test_bundle_of_a_model_of_sedd(tokenizer: Path, tmp_path: Path) -> None:
    """Of the stored hub folder, with the length and the tokenizer that it does not say."""
    before = Cascade.from_pretrained(FOLDER / "hub_model", lengths=[12], tokenizer=tokenizer)
    again = Cascade.from_pretrained(before.save_pretrained(tmp_path / "b"))
    assert (again.is_flat, again.stage_lengths) == (True, (12,))
    assert torch.equal(before.generate(3, seed=1).ids[0], again.generate(3, seed=1).ids[0])


def test_documented_command(
    stages: list[Path], tokenizer: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = [word for k, folder in enumerate(stages, start=1) for word in (f"--stage{k}_model_path", str(folder))]
    flags = ["--batch_size", "3", "--steps", "5", "--predictor", "analytic", "--output_dir", str(tmp_path / "out")]
    command = ["run_sample_cascade.py", *paths, *flags, "--tokenizer", str(tokenizer), "--device", "cpu"]
    monkeypatch.setattr(sys, "argv", command)
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(CHECKOUT / "run_sample_cascade.py"), run_name="__main__")
    assert not ended.value.code
    (run,) = (tmp_path / "out").glob("sample_cascade_steps_5_len_16_*")
    names = [f"sample_stage{k}.txt" for k in (1, 2, 3)]
    assert sorted(path.name for path in run.iterdir()) == [*names, "samples.jsonl", "settings.json", "summary.json"]
    records = [json.loads(line) for line in (run / "samples.jsonl").read_text().splitlines()]
    assert [record["sample"] for record in records] == [0, 1, 2]
    for k, name in enumerate(names):
        texts = [record["stages"][k]["text"].encode() for record in records]
        assert (run / name).read_bytes() == b"".join(text + b"\n" + b"=" * 80 + b"\n" for text in texts)
        assert {len(record["stages"][k]["ids"]) for record in records} == {LENGTHS[k]}
    summary = json.loads((run / "summary.json").read_text())
    assert [summary[key] for key in ("complete", "num_samples", "steps", "seed")] == [True, 3, [5], 0]
    assert summary["tokenizer"] == str(tokenizer)
    # The original's networks are not normalized: they are called in every step in which something is masked.
    assert all(1 <= calls <= 6 for calls in summary["nfe_per_stage"])
    calls = [round(3 * mean) for mean in summary["nfe_per_stage"]]
    positions = [4, 4 + 8, 8 + 16]
    assert summary["token_forwards"] == sum(n * size for n, size in zip(calls, positions, strict=True))
    for figure in ("multiset_overlap_mean_stage1_in_stage2", "ordered_coverage_mean_stage2_in_stage3"):
        assert 0 <= summary["figures"][figure] <= 1
