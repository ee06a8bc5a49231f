"""Every mistake a user can make ends with exit code 2 and one line that names value, limit and remedy; no file is left.

The errors themselves are tested where they are raised; here it counts that they come through, early enough, as a line.
"""

import gzip
import json
import re
import sys

import pytest
from typer.testing import CliRunner

from cascaded_dllm.cli.main import app
from cascaded_dllm.data.preprocessed import PreprocessedDataset
from cascaded_dllm.errors import CascadeError, ConfigError
from tests.pipeline import tiny
from tests.pipeline.commands import failure, files, success
from tests.processes import run


def results(folder):
    """All files but the logs, which tell what went wrong, and what the corpus' files were when the job was planned."""
    return {path for path in files(folder) if "/logs/" not in path and "/prepared/source_" not in path}


@pytest.fixture(scope="module")
def text_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("text") / "text.txt"
    path.write_text("The fox found a key. It rained on the fox.\n\nThe key opened nothing at all.\n")
    return path


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (None, b"", "nowhere.txt is not a file or folder"),
        ("a.txt", b"", r"a\.txt is empty \(0 bytes\); give a file with text, or remove it"),
        ("a.txt", b" \n\n", "holds 0 documents that are not blank; give "),
        ("a.jsonl", b'{"text": "A key."}\n{"text": \n', r"a\.jsonl line 2 is not JSON .*; repair or remove the line"),
        ("a.jsonl", b'{"body": "A key."}\n', r"a\.jsonl line 1 has no field 'text'; its fields are 'body': choose one"),
        ("a.jsonl", b'{"text": 3}\n', r"line 1 has a int in the field 'text', not a string; choose another text field"),
        ("a.txt", b"caf\xe9\n", r"a\.txt line 1 is not UTF-8 at byte 3 \(0xe9\); convert the file to UTF-8"),
        ("a.txt", b"PK\x03\x04\x00\x00", r"a\.txt line 1 has a NUL byte at byte 4; give UTF-8 text, not a binary file"),
        ("a.docx", b"PK", r"a\.docx is of an unknown kind; it must end in one of \.txt, "),
        (
            "a.txt.gz",
            gzip.compress(b"A key.\n" * 99)[:-9],
            r"a\.txt\.gz cannot be read to its end .* download it again",
        ),
        ("a.parquet", b"PAR1 and so on", r"a\.parquet is not a whole parquet file .*; write or download it again"),
    ],
    ids=["missing", "empty", "blank", "jsonl", "field", "number", "latin-1", "binary", "suffix", "cut off", "parquet"],
)
def test_corpus_that_cannot_be_read(tmp_path, tokenizer, name, content, message):
    path = tmp_path / (name or "nowhere.txt")
    if name:
        path.write_bytes(content)
    tokenizer.save(tmp_path / "tokenizer")
    before = files(tmp_path)
    out = ["--tokenizer", tmp_path / "tokenizer", "--out", tmp_path]
    for method in (["tfidf"], ["constituency", "--tagger", "stories"]):
        assert re.search(message, failure("preprocess", *method, "--dataset", path, *out))
    assert results(tmp_path) == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["magic"],
            "the method is 'magic'; it must be one of constituency, keybert_no_stopword, keybert, tfidf, random",
        ),
        (
            ["constituency"],
            r"the spaCy pipeline 'en_core_web_md' .* run: python -m spacy download en_core_web_md; or choose --tagger "
            "english, which needs no download$",
        ),
        (
            ["constituency", "--tagger", "no.npz"],
            r"no\.npz holds no tagger, or is missing or broken .*; train one with",
        ),
        (["tfidf", "--tagger", "english"], "method tfidf has no use for --tagger 'english'; leave it out, or choose"),
        (
            ["custom"],
            "the method custom needs a function of yours; name it with --scorer FILE.py:FUNCTION, or choose one",
        ),
        (["tfidf", "--executor", "cloud"], "the executor is 'cloud'; it must be one of local, slurm, ray"),
        (["tfidf", "--executor", "slurm"], "no partition is given; give --partition"),
        (["tfidf", "--partition", "cpu"], "--executor local has no use for --partition 'cpu'; leave it out, or choose"),
        (
            ["tfidf", "--ray-address", "a:1"],
            "--executor local has no use for --ray-address 'a:1'; leave it out, or choose --executor ray",
        ),
        (
            ["tfidf", "--cpus", "1"],
            r"--executor local has no use for --cpus 1 \(here --workers says how many processes there are\); leave it "
            "out, or choose --executor slurm or ray",
        ),
        (["tfidf", "--memory-gb", "4"], "--executor local has no use for --memory-gb 4; leave it out, or choose"),
        (["tfidf", "--gpus", "0"], "--executor local has no use for --gpus 0; leave it out, or choose --executor sl"),
        (["tfidf", "--time", "1:00:00"], "--executor local has no use for --time '1:00:00'; leave it out, or choose"),
        (
            ["tfidf", "--time", "1:00:00", "--executor", "ray"],
            "--executor ray has no use for --time '1:00:00'; leave it out, or choose --executor slurm$",
        ),
        (["tfidf", "--cpus", "0", "--executor", "ray"], "--cpus is 0; it must be at least 1"),
        (
            ["tfidf", "--workers", "3", "--shard", "0", "--executor", "ray"],
            "--workers 3 says how many tasks run at once, and --shard 0 is one task; leave it out",
        ),
        (
            ["keybert", "--window-words", "50"],
            "--window-words 50 says how long windows are, and the scope is document; leave it out, or choose --scope w",
        ),
        (
            ["tfidf", "--text-field", "text"],
            r"--text-field 'text' names the field or column that holds the text, but \S*text\.txt has only \.txt; le",
        ),
        (["keybert", "--scope", ""], "the scope is ''; it must be one of document, window"),
        (
            ["tfidf", "--shard", "0", "--executor", "slurm", "--partition", "x"],
            "--executor slurm submits one; leave one",
        ),
        (["tfidf", "--workers", "0"], "the number of workers is 0; it must be at least 1"),
        (["tfidf", "--workers", "10001"], "the number of workers is 10001; it must be at most 10000"),
        (["tfidf", "--shards", "9" * 20], "the number of shards is 9{20}; it must be at most 1000000$"),
        (["tfidf", "--num-documents", "9" * 20], "--num-documents is 9{20}; it must be at most 1000000000000$"),
        (["tfidf", "--shard", "1"], "shard 1 is out of range: the dataset has 1, numbered from 0 to 0; choose one"),
        (
            ["constituency", "--tagger", "stories"],
            r"at character \d+ is in no built-in story",
        ),
        (["tfidf", "--unit", "page"], "the unit is 'page'; it must be one of paragraph, line, file"),
        (["tfidf", "--num-documents", "0"], "--num-documents is 0; it must be at least 1"),
        (["tfidf", "--shards", "0"], "the number of shards is 0; it must be at least 1"),
        (["tfidf", "--split", "a/b"], "split name 'a/b' cannot be part of a folder name"),
        (
            ["tfidf", "--train-tokenizer", "300"],
            "the tokenizer is not determined; give either",
        ),
    ],
)
def test_options_of_preprocess(tmp_path, text_file, tokenizer, arguments, message):
    tokenizer.save(tmp_path / "tokenizer")
    before = files(tmp_path)
    common = ["--dataset", text_file, "--tokenizer", tmp_path / "tokenizer", "--out", tmp_path]
    assert re.search(message, failure("preprocess", *arguments, *common))
    assert results(tmp_path) == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "the tokenizer is not determined"),
        (["--train-tokenizer", "100"], "vocab_size 100 is below 257"),
        (["--train-tokenizer", "1000001"], "vocab_size is 1000001; it must be at most 1000000$"),
        (["--tokenizer", "{tmp}/nowhere.json"], "nowhere.json"),
        (["--tokenizer", "{tmp}"], "tokenizer"),
    ],
)
def test_tokenizer_that_is_none(tmp_path, text_file, arguments, message):
    chosen = [argument.format(tmp=tmp_path) for argument in arguments]
    assert re.search(message, failure("preprocess", "tfidf", "--dataset", text_file, "--out", tmp_path, *chosen))
    assert files(tmp_path) == set()


def test_bad_records_are_refused_with_the_remedy_or_dropped_and_counted(tmp_path, tokenizer):
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"text": "A fox."}\n{"text": \nno\n[1]\n{"text": "caf\xe9"}\n\n{"text": "A key."}\n')
    tokenizer.save(tmp_path / "tokenizer")
    common = ["tfidf", "--dataset", path, "--tokenizer", tmp_path / "tokenizer", "--out", tmp_path, "--workers", 1]
    assert re.search(
        r"line 2 is not JSON .*, or drop and count such records with --bad-records drop$",
        failure("preprocess", *common),
    )
    said = success("preprocess", *common, "--bad-records", "drop", "--shards", 2).stdout
    for dropped in ("2: not JSON", "1: not an object", "1: not UTF-8", "1: empty"):
        assert f"dropped {dropped}" in said
    counts = PreprocessedDataset.open(tmp_path / "tfidf" / "a_train").counts
    assert (counts.documents, counts.records) == (2, 7)
    assert "was made with other settings (source: " in failure(
        "preprocess", *common, "--shards", 2, "--num-documents", 1
    )


def test_unknown_split_of_a_built_in_corpus(tmp_path):
    flags = ["--split", "dev", "--train-tokenizer", "300", "--out", tmp_path]
    message = failure("preprocess", "tfidf", "--dataset", "stories", *flags)
    assert "the split of stories is 'dev'; it must be one of train, valid, test" in message


def test_other_settings_for_existing_data(tmp_path, text_file):
    flags = ["--dataset", text_file, "--out", tmp_path]
    assert CliRunner().invoke(app, ["preprocess", "tfidf", *map(str, flags), "--train-tokenizer", "300"]).exit_code == 0
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.*") if path.is_file()}
    message = failure("preprocess", "tfidf", *flags, "--train-tokenizer", "270")
    assert re.search(r"shard_0 was made with other settings .*; choose another output folder", message)
    assert before.items() <= {path: path.read_bytes() for path in tmp_path.rglob("*.*") if path.is_file()}.items()


def test_file_in_place_of_the_output_folder(tmp_path, text_file, runs, stories):
    file = tmp_path / "file"
    file.write_text("a file")
    preprocess = ["preprocess", "tfidf", "--dataset", text_file, "--train-tokenizer", "300", "--out"]
    for out in (file, file / "deeper"):
        assert re.search(
            r"tokenizer_300_\w+ cannot be written \(Not a directory\); choose an output", failure(*preprocess, out)
        )
    train = ["train", "--data", stories, *tiny.OVERRIDES, "--out"]
    assert "file exists and is not a run folder" in failure(*train, file)
    assert "file/deeper cannot be written (Not a directory)" in failure(*train, file / "deeper")
    sample = ["sample", "--stage", runs / "stage1", "--num-samples", "1", "--output-dir"]
    assert "file is a file; name a folder for the samples with --output-dir" in failure(*sample, file)
    assert re.search(
        r"file/deeper cannot be written \(Not a directory\); use --output-dir", failure(*sample, file / "deeper")
    )
    measure = ["evaluate", "likelihood", "--stage", runs / "stage1", "--data", stories, "--out"]
    assert re.search(
        "--out is .*file/x.json; it must be a file, new or old, in a folder", failure(*measure, file / "x.json")
    )
    assert "--out is" in failure(*measure, tmp_path)
    quickstart = ["quickstart", "--out"]
    assert "cannot be written (Not a directory)" in failure(*quickstart, file)
    assert file.read_text() == "a file"
    assert files(tmp_path) == {"file"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--lengths", "8,4,40"], r"stage_lengths \(8, 4, 40\) has 4 after 8; lengths must strictly increase"),
        (["--lengths", "8,8,40"], r"has 8 after 8"),
        (["--lengths", "0,8"], r"stage_lengths \(0, 8\) holds 0; every length must be a whole number of at least 1"),
        (["--lengths", "8,x"], "--lengths is '8,x'; it must be whole numbers with commas, for example 32,64,128"),
        (["--lengths", "8;16"], "--lengths is '8;16'; it must be whole numbers with commas"),
        (["--lengths", "4,8,90000", "data.packing=stream"], r"needs 90000; give .* \(--lengths\)$"),
        (["--stage", "4"], r"stage 4 does not exist; a cascade of \(4, 8, 40\) has 1\.\.3"),
        (["--stage", "0"], "stage 0 does not exist"),
        (["--stage", "2", "stage=3"], "stage is 3, and --stage says stage=2; give only one of them"),
        (
            ["--stage", "2", "--flat"],
            r"--stage is 2, and a flat model \(--flat\) is not a stage; give only one of them",
        ),
        (["--device", "tpu"], "device 'tpu' cannot be used"),
        (["--model", "huge"], "^model is 'huge'; it must be one of medium, quick, small, tiny$"),
        (["training.num_stepz=3"], r"the key training\.num_stepz is unknown; did you mean training\.num_steps\?"),
        (["modle=tiny"], r"the key modle is unknown; did you mean model\?"),
        (["optim.lr=fast"], r"optim\.lr is 'fast'; it must be of type float"),
        (["optim.decay=linear"], r"optim\.decay is 'linear'; it must be one of constant, cosine"),
        (["training.num_steps"], r"the override 'training\.num_steps' has no key and '='; write key=value"),
        (["training.batch_size=1000001"], r"training\.batch_size is 1000001; it must be at most 1000000$"),
        (["training.num_steps=0"], r"training\.num_steps is 0; it must be at least 1"),
        (["noise.type=cosine"], r"noise\.type is 'cosine'; it must be one of loglinear, geometric"),
        (["sampling.predictor=magic"], r"sampling\.predictor is 'magic'; it must be one of euler, analytic"),
        (["sampling.num_steps=0"], r"sampling\.num_steps is 0; it must be at least 1"),
        (
            ["optim.lr=[1"],
            r"the override 'optim\.lr=\[1' cannot be read \(.*\); write key=value, close every bracket",
        ),
        (["=3"], r"the override '=3' has no key and '='"),
        (["model=3"], "model is '3'; it must be one of medium, quick, small, tiny"),
        (["run_dir=${nowhere}"], "the configuration cannot be composed: .*nowhere"),
    ],
)
def test_options_of_train(tmp_path, stories, arguments, message):
    before = files(stories)
    flags = {"--lengths": "stage_lengths=", "--device": "device=", "--model": "model="}
    replaced = tuple(flags[argument] for argument in arguments if argument in flags)
    overrides = [override for override in tiny.OVERRIDES if not override.startswith(replaced)]
    common = [*overrides, f"run_dir='{tmp_path}/run'", "--data", stories]
    assert re.search(message, failure("train", *common, *arguments))
    assert files(tmp_path) == set()
    assert not [path for path in files(stories) - before if "incomplete" in path]


def test_what_must_be_given(tmp_path):
    place = f"data.root='{tmp_path}'"
    message = failure("train", place)
    assert f"{tmp_path}/constituency/openwebtext_train is not there, the data of data.train=openwebtext and" in message
    assert (
        f"make it with `cdllm preprocess constituency --dataset openwebtext --tokenizer gpt2 --out {tmp_path}`"
        in message
    )
    message = failure("train", "data.train=null", "data.dataloader=null")
    assert (
        "there is no data to train on: data.path is null, data.train null and data.dataloader null; name a" in message
    )
    message = failure("train", place, "data.dataloader=magic")
    assert "data.dataloader is 'magic'; it must be one of constituency, keybert_no_stopword, keybert, tfidf" in message
    message = "no --data is given; name a folder that `cdllm preprocess` made"
    assert failure("evaluate", "likelihood", "--stage", tmp_path) == message
    for command in (["sample"], ["evaluate", "likelihood", "--data", tmp_path]):
        message = "no --stage is given; name at least 1 run folder, checkpoint or hub id, or a bundle of all stages"
        assert failure(*command) == f"{message} with --cascade; --cascade stories is built in"


def test_data_that_is_none(tmp_path, runs):
    message = failure("train", "--data", tmp_path / "nowhere", "--out", tmp_path / "run", "device=cpu")
    assert (
        "nowhere is not there, the data of --data (data.path); name the folder that `cdllm preprocess` printed"
        in message
    )
    (tmp_path / "train.txt").write_text("A text.")
    message = failure("train", "--data", tmp_path / "train.txt", "--out", tmp_path / "run", "device=cpu")
    assert "train.txt is a file, but a preprocessed dataset is a folder; make one from it with `cdllm prep" in message
    (tmp_path / "train.txt").unlink()
    message = failure("evaluate", "likelihood", "--stage", runs / "stage1", "--data", tmp_path)
    assert "is not a complete preprocessed dataset: it has no manifest.json; name the folder" in message
    assert files(tmp_path) == set()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--steps", "0", "--predictor", "euler"], "steps is 0; it must be at least 1, for example 128"),
        (["--steps", "1000001", "--predictor", "euler"], "steps is 1000001; it must be at most 1000000"),
        (["--steps", "9"], "steps is 9 and the predictor first_hitting, which has no time grid"),
        (["--steps", "-5", "--predictor", "euler"], "steps is -5; it must be at least 1"),
        (["--num-samples", "0"], "num_samples is 0; it must be at least 1"),
        (["--num-samples", "9" * 20], "num_samples is 99999999999999999999; it must be at most 1000000000000"),
        (["--batch-size", "0"], "batch_size is 0; it must be at least 1"),
        (["--predictor", "ddim"], "the predictor is 'ddim'; it must be one of euler, analytic, ancestral"),
        (["--device", "tpu"], "device 'tpu' cannot be used"),
        (["--dtype", "float16"], "dtype is 'float16'; it must be one of float32, bfloat16"),
        (["--lengths", "4;8"], "--lengths is '4;8'; it must be whole numbers with commas"),
        (["--lengths", "4,9,40"], "the lengths are [4, 9, 40], and "),
    ],
)
def test_options_of_sample(tmp_path, runs, arguments, message):
    assert message in failure("sample", "--stage", runs / "stage1", "--output-dir", tmp_path, *arguments)
    assert files(tmp_path) == set()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--num-windows", "0"], "num_windows is 0; it must be at least 1"),
        (["--num-times", "0"], "num_times is 0; it must be at least 1"),
        (["--num-times", "9" * 20], "num_times is 99999999999999999999; it must be at most 1000000000000"),
        (["--batch-size", "-1"], "batch_size is -1; it must be at least 1"),
        (["--t-min", "0"], "t_min is 0.0; it must lie between 0 and 1"),
        (["--t-min", "1"], "t_min is 1.0; it must lie between 0 and 1"),
        (
            ["--packing", "loose"],
            "has windows of packing 'loose', and the models were trained with windows of packing 'document'",
        ),
    ],
)
def test_options_of_evaluate(stories, runs, arguments, message):
    common = ["--stage", runs / "stage1", "--data", stories]
    assert message in failure("evaluate", "likelihood", *common, *arguments)


def test_options_of_quickstart(tmp_path):
    message = "--corpus is 'wikitext'; it must be one of stories, python-docs"
    assert message in failure("quickstart", "--corpus", "wikitext", "--out", tmp_path)
    assert "--num-samples is 0; it must be at least 1" in failure("quickstart", "--num-samples", "0", "--out", tmp_path)
    assert files(tmp_path) == set()


def results_of(commands: list[list[str]]) -> None:
    """In a process: how the commands end and what they say on stderr, as JSON."""
    results = [CliRunner().invoke(app, arguments) for arguments in commands]
    print(json.dumps([[result.exit_code, result.stderr] for result in results]))


@pytest.mark.slow
def test_choices_that_are_checked_by_type_as_well(tmp_path, stories, runs):
    """In a process of its own: the type checks of the tests would stop these before the program does."""
    stage, data = str(runs / "stage1"), str(stories)
    train = ["train", "--data", data, "--out", str(tmp_path / "run"), *tiny.OVERRIDES]
    commands = {
        "weights is 'best'; it must be one of ema, raw": ["sample", "--stage", stage, "--weights", "best"],
        "model.parameterization is 'x0'; it must be one of score, normalized": [*train, "model.parameterization=x0"],
        "model.prefix_attention is 'none'; it must be one of joint, one_way": [*train, "model.prefix_attention=none"],
        "process (graph.type) is 'gaussian'; it must be one of absorbing, uniform": [*train, "graph.type=gaussian"],
    }
    done = run(results_of, list(commands.values()))
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    for (exit_code, stderr), message in zip(found, commands, strict=True):
        assert exit_code == 2
        assert re.fullmatch(rf"error: {re.escape(message)}\n", stderr)
    assert files(tmp_path) == set()


def test_debug_shows_the_error_itself():
    for arguments in (["sample"], ["evaluate", "likelihood"], ["train", "stage=7"], ["quickstart", "--corpus", "x"]):
        result = CliRunner().invoke(app, [*arguments, "--debug"])
        assert isinstance(result.exception, ConfigError)
        assert result.exit_code == 1
    result = CliRunner().invoke(app, ["preprocess", "magic", "--dataset", "nowhere", "--debug"])
    assert isinstance(result.exception, CascadeError)


def test_missing_extra(tmp_path, text_file, monkeypatch):
    monkeypatch.setitem(sys.modules, "spacy", None)
    flags = ["--dataset", text_file, "--tagger", "english", "--train-tokenizer", "300", "--out", tmp_path]
    assert failure("preprocess", "constituency", *flags).endswith(
        "run: pip install 'cascaded-dllm[preprocess]' (in a clone: pip install '.[preprocess]')"
    )
    assert files(tmp_path) == set()
