"""`cdllm evaluate samples` on a run, on text files and on what is neither, beside preprocessed and other real text."""

import json
import re
import shutil
from pathlib import Path

import pytest

from cascaded_dllm.assemble.run import assemble_run
from cascaded_dllm.cascade.spec import CascadeSpec
from cascaded_dllm.cli.measured_sources import read_reference, read_written
from cascaded_dllm.data.stages import StageArrays
from cascaded_dllm.text.listing import texts_of_listing
from tests.pipeline import tiny
from tests.pipeline.commands import failure, success
from tests.unit.importance.tiny_models import save_bert

NUM_TEXTS = 6


@pytest.fixture(scope="module")
def sampled(runs: Path, judge: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of the first two of three stages, judged when it was drawn."""
    out = tmp_path_factory.mktemp("sampled")
    options = ["--num-samples", NUM_TEXTS, "--keywords", "fox", "--judge", judge, "--output-dir", out]
    success("sample", "--stage", runs / "stage1", "--stage", runs / "stage2", *options)
    (folder,) = out.iterdir()
    return folder


def measured(*arguments: object) -> dict:
    return json.loads(success("evaluate", "samples", *arguments, "--json").stdout)


def unfinished(sampled: Path, folder: Path, num_finished: int) -> Path:
    """The run as it is when it was killed while it wrote a batch: texts are there that do not count yet."""
    shutil.copytree(sampled, folder)
    (folder / "summary.json").unlink()
    lines = (folder / "samples.jsonl").read_bytes().splitlines(keepends=True)
    batch = {
        "num_finished": num_finished,
        "num_bytes": sum(map(len, lines[:num_finished])),
        "calls_per_stage": [1, 1],
        "token_forwards": 1,
        "seconds": 1.0,
        "devices": ["cpu"],
    }
    (folder / "batches.jsonl").write_text(f"{json.dumps(batch)}\n" if num_finished else "")
    return folder


def test_a_run_beside_its_data(sampled, stories, judge, tmp_path):
    """What the summary of the run says is found again to the last digit; real texts hold their prefixes completely."""
    out = tmp_path / "figures.json"
    found = measured(sampled, "--reference", stories, "--judge", judge, "--out", out)
    assert json.loads(out.read_text()) == found
    summary = json.loads((sampled / "summary.json").read_text())
    samples, reference = found["samples"]["figures"], found["reference"]["figures"]
    said = {name: value for name, value in summary["figures"].items() if name in samples}
    assert len(said) == 10
    assert {name: samples[name] for name in said} == said
    assert reference["multiset_overlap_mean_stage1_in_stage2"] == 1
    assert reference["ordered_coverage_mean_stage1_in_stage2"] == 1
    assert samples["keyword_coverage_mean"] <= 1
    assert found["keywords"] == ["fox"]
    assert samples["num_texts"] == reference["num_texts"] == found["num_asked"] == NUM_TEXTS
    assert set(samples) == set(reference) | {"mauve", "mauve_num_clusters"}
    assert found["samples"]["reasons_for_none"].keys() == {"mauve", "mauve_num_clusters"}
    assert found["definitions"].keys() == samples.keys()
    counts = {"num_texts", "num_empty_texts", "num_judged_tokens"}
    assert found["samples"]["errors"].keys() == {name for name, value in samples.items() if value is not None} - counts
    # Its stages are cut out of its windows, so that it is 1 by construction.
    assert found["reference"]["errors"]["ordered_coverage_mean_stage1_in_stage2"] == 0
    assert found["judge"] == found["mauve_features"] == str(judge)
    assert found["notes"] == []


def test_the_reference_is_text_of_the_same_stage(sampled, stories, tmp_path):
    """All of it at once: the second of three stages of the windows of training, not eight tokens in a row."""
    arrays = StageArrays.build(stories, CascadeSpec(tiny.LENGTHS), packing="document", out=tmp_path / "stages")
    written = read_written(sampled, tokenizer=None, reference=stories)
    real = {seed: read_reference(stories, written, packing=None, seed=seed) for seed in (0, 1)}
    of_training = {
        (tuple(a), tuple(b)) for a, b in zip(arrays.stages[0].tolist(), arrays.stages[1].tolist(), strict=True)
    }
    for texts in real.values():
        pairs = zip(texts.stages[1].tolist(), texts.stages[2].tolist(), strict=True)
        assert len(texts) == NUM_TEXTS
        assert {(tuple(a), tuple(b)) for a, b in pairs} <= of_training
    assert real[0].texts != real[1].texts
    assert real[0].texts == read_reference(stories, written, packing="document", seed=0).texts


def test_the_table(sampled, stories):
    """For people; without a judge nothing is said of one. The samples.jsonl of a run means the run."""
    told = success("evaluate", "samples", sampled / "samples.jsonl", "--reference", stories).stdout
    for words in ("self_bleu_4_mean", "samples", "reference", "seq_rep_4_mean"):
        assert words in told
    assert "generative_ppl" not in told
    assert "mauve" not in told
    errors = measured(sampled, "--reference", stories)["reference"]["errors"]
    assert re.search(rf"distinct_unigram_share .* \+- {errors['distinct_unigram_share']:.4f}\b", told)
    assert "+-: standard error over texts" in told
    one = success("evaluate", "samples", sampled, "--preset", "corpus").stdout
    assert "reference" not in one


def test_one_preset(sampled, judge):
    for preset, others in (("per-sequence", "generative_ppl_corpus"), ("corpus", "generative_ppl_per_sequence")):
        figures = measured(sampled, "--judge", judge, "--preset", preset)["samples"]["figures"]
        assert f"generative_ppl_{preset.replace('-', '_')}" in figures
        assert others not in figures


def test_a_run_that_is_not_finished(sampled, tmp_path):
    folder = unfinished(sampled, tmp_path / "run", 4)
    found = measured(folder)
    assert found["samples"]["figures"]["num_texts"] == 4
    assert found["notes"] == [f"the run is not finished: 4 of {NUM_TEXTS} texts are measured"]
    assert found["notes"][0] in success("evaluate", "samples", folder).stdout
    # A single text has no scatter, and nothing is said of errors.
    single = unfinished(sampled, tmp_path / "single", 1)
    assert "+-" not in success("evaluate", "samples", single).stdout
    empty = unfinished(sampled, tmp_path / "empty", 0)
    assert f"{empty} has 0 finished texts of {NUM_TEXTS}; complete it with cdllm sample" in failure(
        "evaluate", "samples", empty
    )


def test_models_that_are_gone(runs, stories, tmp_path):
    """The texts can be measured as long as somebody names the tokenizer, and real texts come from a file."""
    shutil.copytree(runs / "stage1", tmp_path / "stage1")
    success("sample", "--stage", tmp_path / "stage1", "--num-samples", 2, "--output-dir", tmp_path / "out")
    (folder,) = (tmp_path / "out").iterdir()
    before = measured(folder)
    shutil.rmtree(tmp_path / "stage1")
    for options in ([], ["--tokenizer", stories, "--reference", stories]):
        assert "and only they say which tokenizer wrote the texts" in failure("evaluate", "samples", folder, *options)
    after = measured(folder, "--tokenizer", stories)
    assert after["samples"] == before["samples"]
    real = tmp_path / "real.txt"
    real.write_text("One fox.\nTwo foxes.\nThree foxes.\n")
    assert measured(folder, "--tokenizer", stories, "--reference", real)["reference"]["figures"]["num_texts"] == 2


def test_a_file_of_a_run(sampled, stories, judge):
    """Its texts are those of the run, to a judge and to keywords; its tokens may be cut otherwise."""
    file = sampled / "sample_stage2.txt"
    of_run = measured(sampled, "--judge", judge)["samples"]["figures"]
    of_file = measured(file, "--judge", judge, "--tokenizer", stories)["samples"]["figures"]
    assert len(texts_of_listing(file.read_text())) == of_file["num_texts"] == NUM_TEXTS
    assert of_file["generative_ppl_corpus"] == pytest.approx(of_run["generative_ppl_corpus"], rel=1e-6)
    assert not any("stage" in name for name in of_file)


def test_a_flat_run_beside_whole_windows(stories, tmp_path):
    """A flat model has the windows of a cascade without its stages."""
    flat = tmp_path / "flat"
    list(assemble_run(tiny.config(stories, flat, "baseline=true")).events())
    success("sample", "--stage", flat, "--num-samples", 2, "--output-dir", tmp_path / "out")
    (folder,) = (tmp_path / "out").iterdir()
    written = read_written(folder, tokenizer=None, reference=stories)
    real = read_reference(stories, written, packing=None, seed=0)
    assert [(number, stage.shape) for number, stage in real.stages.items()] == [(1, (2, 40))]
    assert not any("stage" in name for name in measured(folder, "--reference", stories)["reference"]["figures"])


def test_stages_that_repeat_tokens_beside_such(stories, tmp_path):
    """The reference keeps a token as often as the stages of training did."""
    list(assemble_run(tiny.config(stories, tmp_path / "stage1", "stage=1", "data.unique=false")).events())
    success("sample", "--stage", tmp_path / "stage1", "--num-samples", 150, "--output-dir", tmp_path / "out")
    (folder,) = (tmp_path / "out").iterdir()
    written = read_written(folder, tokenizer=None, reference=stories)
    real = {tuple(row) for row in read_reference(stories, written, packing=None, seed=0).stages[1].tolist()}
    spec, out = CascadeSpec(tiny.LENGTHS), tmp_path / "stages"
    of_training = {
        unique: StageArrays.build(stories, spec, packing="document", unique=unique, out=out).stages[0].tolist()
        for unique in (True, False)
    }
    assert real <= set(map(tuple, of_training[False]))
    assert not real <= set(map(tuple, of_training[True]))


def test_texts_of_a_single_token(stories, tmp_path):
    """Sampling and measuring both say that there are no pairs."""
    config = tiny.config(stories, tmp_path / "stage1", "stage=1", "stage_lengths=[1,8,40]")
    list(assemble_run(config).events())
    out = tmp_path / "out"
    told = success("sample", "--stage", tmp_path / "stage1", "--num-samples", 2, "--output-dir", out).stdout
    assert "final texts: token entropy 0.000 nats, no bigrams" in told
    (folder,) = out.iterdir()
    assert "distinct_bigram_share" not in json.loads((folder / "summary.json").read_text())["figures"]
    assert measured(folder)["samples"]["reasons_for_none"]["distinct_bigram_share"] == "no text has 2 tokens"


def test_a_bundle_beside_its_data(runs, stories, tmp_path):
    """Tokenizer and windows of a run of a bundle are those that the bundle says."""
    stages = ["--stage", runs / "stage1", "--stage", runs / "stage2"]
    success("bundle", *stages, "--out", tmp_path / "bundle")
    success("sample", "--cascade", tmp_path / "bundle", "--num-samples", 2, "--output-dir", tmp_path / "out")
    (folder,) = (tmp_path / "out").iterdir()
    figures = measured(folder, "--reference", stories)["reference"]["figures"]
    assert figures["ordered_coverage_mean_stage1_in_stage2"] == 1


def test_an_outline_is_asked_for_word_by_word(runs, tmp_path):
    outline, out = tmp_path / "outline.txt", tmp_path / "out"
    outline.write_text("red fox")
    stages = ["--stage", runs / "stage1", "--stage", runs / "stage2"]
    success("sample", *stages, "--num-samples", 2, "--outline", outline, "--output-dir", out)
    (folder,) = out.iterdir()
    found = measured(folder)
    assert found["keywords"] == ["red", "fox"]
    # Whole words, where an untrained network may write letters beside the tokens that it was made to write.
    texts = [
        record["stages"][1]["text"] for record in map(json.loads, (folder / "samples.jsonl").read_text().splitlines())
    ]
    shares = [sum(bool(re.search(rf"\b{word}\b", text)) for word in ("red", "fox")) / 2 for text in texts]
    assert found["samples"]["figures"]["keyword_coverage_mean"] == sum(shares) / 2


def test_texts_beside_windows_of_the_same_lengths(stories, tmp_path):
    """Also texts that are shorter than any window: the reference is as long, text by text, in the data's tokens."""
    path = tmp_path / "texts.jsonl"
    texts = ["My friend Zoe is an eager farmer.", "fox", "", "Last autumn she noticed an odd ball near the castle."]
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    found = measured(path, "--reference", stories, "--packing", "stream")
    samples, reference = found["samples"]["figures"], found["reference"]["figures"]
    assert samples["num_texts"] == reference["num_texts"] == 4
    assert samples["num_empty_texts"] == reference["num_empty_texts"] == 1
    # A real text that ends where it is cut has an end of text there, which is no part of it.
    assert samples["tokens_per_text_mean"] - 1 <= reference["tokens_per_text_mean"] <= samples["tokens_per_text_mean"]
    path.write_text('{"text": ""}\n')
    assert "none of the texts has a token, so no window" in failure("evaluate", "samples", path, "--reference", stories)


def test_mauve(stories, judge, tmp_path):
    """By a judge's features, an encoder's, and not at all; real texts beyond the number of samples are left out."""
    samples, real = tmp_path / "samples.txt", tmp_path / "real.txt"
    samples.write_text("".join(f"the cat saw {number} dogs\n" for number in range(100)))
    real.write_text("".join(f"the cat saw {number} dogs\n" for number in range(30, 150)))
    texts = [samples, "--reference", real, "--tokenizer", stories]
    of_judge = measured(*texts, "--judge", judge)
    assert 0 < of_judge["samples"]["figures"]["mauve"] <= 1
    assert of_judge["samples"]["figures"]["mauve_num_clusters"] >= 2
    assert of_judge["notes"] == [
        "MAUVE of 100 texts on a side scatters by several hundredths from draw to draw and is higher than that of "
        "many texts: compare it only with MAUVE of the same number of texts"
    ]
    assert of_judge["reference"]["figures"]["num_texts"] == 100
    encoder = save_bert(tmp_path)
    of_encoder = measured(*texts, "--mauve-features", encoder)
    assert of_encoder["mauve_features"] == str(encoder)
    assert of_encoder["samples"]["figures"]["mauve"] != of_judge["samples"]["figures"]["mauve"]
    none = measured(*texts, "--judge", judge, "--mauve-features", "none")
    assert "mauve" not in none["samples"]["figures"]
    assert none["mauve_features"] is None


def test_paragraphs_of_text_files(stories, tmp_path):
    samples, real = tmp_path / "samples.txt", tmp_path / "real.txt"
    samples.write_text("one fox\nran\n\ntwo foxes\n")
    real.write_text("a fox\n\na key\n\na\nmill\n")
    found = measured(samples, "--reference", real, "--tokenizer", stories, "--unit", "paragraph")
    assert [found[whose]["figures"]["num_texts"] for whose in ("samples", "reference")] == [2, 2]
    assert measured(samples, "--tokenizer", stories)["num_asked"] == 4


def test_few_real_texts(stories, tmp_path):
    samples, real = tmp_path / "samples.txt", tmp_path / "real.txt"
    samples.write_text("one fox\ntwo foxes\nthree foxes\n")
    real.write_text("a fox\n")
    told = success("evaluate", "samples", samples, "--reference", real, "--tokenizer", stories).stdout
    assert "the reference has 1 text for 3 samples: distinct shares, self-BLEU and MAUVE of different numbers" in told
    assert "no self_bleu_4_mean of the reference: it compares a text with others, and there are fewer than 2" in told


def test_options_that_contradict(sampled, stories, judge, tmp_path):
    def told(*options: object) -> str:
        return failure("evaluate", "samples", sampled, *options)

    assert told("--preset", "mean") == "--preset is 'mean'; it must be one of per-sequence, corpus, both"
    assert told("--unit", "page") == "the unit is 'page'; it must be one of paragraph, line, file"
    assert "--out is" in told("--out", tmp_path)
    assert "no --reference is given that MAUVE could compare with" in told(
        "--judge", judge, "--mauve-features", "judge"
    )
    assert "no --judge is given; name one, or a" in told("--reference", stories, "--mauve-features", "judge")
    assert "the models were trained on windows of packing 'document'; leave it out" in told(
        "--reference", stories, "--packing", "stream"
    )
    assert "which is not a causal language model here" in told("--judge", tmp_path / "nobody")
    assert f"the tokenizer {judge} has the fingerprint" in told("--tokenizer", judge)


def test_what_is_no_text(stories, judge, tmp_path):
    def told(name: str, *options: object, content: bytes | None = None) -> str:
        if content is not None:
            (tmp_path / name).write_bytes(content)
        return failure("evaluate", "samples", tmp_path / name, *options)

    fox = ("texts.txt", "--tokenizer", stories)
    assert "no --tokenizer is given, and" in told("texts.txt", content=b"a fox\n")
    assert "is a folder without settings.json, so not a sampling run" in failure("evaluate", "samples", stories)
    # That it is not there is said before anything is asked about it.
    missing = tmp_path / "nope"
    assert "nope does not exist; name the folder of a sampling run, a .txt file" in failure(
        "evaluate", "samples", missing
    )
    assert "is empty (0 bytes)" in told("empty.txt", "--tokenizer", stories, content=b"")
    assert "is not UTF-8 at byte 3" in told("latin.txt", "--tokenizer", stories, content=b"caf\xe9\n")
    assert "is not a file; give a text file" in told(*fox, "--reference", tmp_path)
    assert "nope does not exist; name a folder that `cdllm preprocess` made" in told(*fox, "--reference", missing)
    assert "has the tokenizer" in told("texts.txt", "--tokenizer", judge, "--reference", stories)
