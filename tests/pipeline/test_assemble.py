"""From configuration to objects: every process has its device, data and models fit, mistakes are named."""

import dataclasses
import json
import math
import shutil
from pathlib import Path

import pytest
import torch

from cascaded_dllm.assemble import devices, inputs
from cascaded_dllm.assemble.bound import _num_characters, joint_bound
from cascaded_dllm.assemble.devices import process_device
from cascaded_dllm.assemble.inputs import stage_dataset
from cascaded_dllm.assemble.run import assemble_run, require_launchable, require_sound
from cascaded_dllm.config_groups import DataSettings
from cascaded_dllm.data import stages as stages_module
from cascaded_dllm.data.preprocessed import PreprocessedDataset
from cascaded_dllm.data.stages import BuildCallbacks
from cascaded_dllm.errors import CheckpointError, ConfigError, DataError, OutputError
from cascaded_dllm.importance.random_scores import RandomScorer
from cascaded_dllm.importance.stories_tagger import StoriesTagger
from cascaded_dllm.importance.tfidf import TfidfScorer, document_frequencies
from cascaded_dllm.model.devices import choose_device
from cascaded_dllm.sample.cascade import Cascade
from cascaded_dllm.text.corpora import open_corpus
from cascaded_dllm.text.tokenizer import Tokenizer
from cascaded_dllm.train.run_events import Evaluation
from cascaded_dllm.train.trainer import StepResult
from cascaded_dllm.train.world import World
from tests.pipeline import tiny

GOLDEN = Path(__file__).parents[1] / "golden"
COPYING = ["model.copy_head=true", "model.parameterization=normalized"]


def world(local_rank=1, local_size=2, has_store=True):
    place = {"address": "127.0.0.1", "port": 1, "has_store": has_store}
    return World(rank=local_rank, size=4, local_rank=local_rank, local_size=local_size, **place)


@pytest.fixture
def gpus(monkeypatch):
    """A machine that shows so many GPUs, of which none is touched."""

    def show(number):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: number > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: number)
        monkeypatch.setattr(devices, "choose_device", torch.device)
        monkeypatch.setattr(torch.cuda, "set_device", chosen.append)

    chosen: list[torch.device] = []
    show.chosen = chosen
    return show


def test_every_process_has_a_gpu_of_its_own(gpus):
    gpus(4)
    assert process_device("auto", world(local_rank=1)) == torch.device("cuda:1")
    assert process_device("cuda", world(local_rank=3, local_size=4)) == torch.device("cuda:3")
    assert gpus.chosen == [torch.device("cuda:1"), torch.device("cuda:3")]
    assert process_device("cpu", world()) == torch.device("cpu")
    assert process_device("cuda:2", None) == torch.device("cuda:2")
    assert len(gpus.chosen) == 2


def test_slurm_may_show_every_task_its_own_gpu_alone(gpus):
    gpus(1)
    assert process_device("cuda", world(local_rank=1, has_store=False)) == torch.device("cuda:0")


def test_processes_share_the_cpu(gpus):
    gpus(0)
    assert process_device("auto", world()) == torch.device("cpu")


@pytest.mark.parametrize("name", ["mps", "cuda:1"])
def test_one_device_for_many(gpus, name):
    gpus(4)
    with pytest.raises(
        ConfigError, match=f"device is {name} and 4 processes train; give device=cuda or device=cpu, or"
    ):
        process_device(name, world())


def test_fewer_gpus_than_processes(stories, tmp_path, gpus):
    gpus(1)
    message = "processes are to compute on the GPUs of this machine, and it shows 1; start as many processes as there"
    with pytest.raises(ConfigError, match=f"2 {message}"):
        process_device("cuda", world())
    config = tiny.config(stories, tmp_path, "device=auto", "ngpus=4")
    with pytest.raises(ConfigError, match=f"4 {message}"):
        require_launchable(config, 4)
    with pytest.raises(ConfigError, match=r"batch_size is 4, which does not divide among 3 processes in 1 parts"):
        require_launchable(config, 3)
    require_launchable(dataclasses.replace(config, device="cpu"), 4)


def test_stages_and_flat_models_start_from_different_weights(stories, tmp_path):
    weights = [
        next(assemble_run(tiny.config(stories, tmp_path, *change)).trainer.model.parameters())
        for change in (["stage=1"], ["stage=2"], ["stage=1"])
    ]
    assert torch.equal(weights[0], weights[2])
    assert not torch.equal(weights[0], weights[1])


def test_flat_model_is_the_same_beside_any_stage(stories, tmp_path):
    """It is no stage: a file of stages that is chosen with it says nothing of its seed, and changes no course."""
    one, other = (
        assemble_run(tiny.config(stories, tmp_path, "baseline=true", f"stage={stage}")).trainer for stage in (1, 3)
    )
    assert one.course == other.course
    weights, others = one.model.state_dict(), other.model.state_dict()
    assert all(torch.equal(weights[name], others[name]) for name in weights)


def test_who_asks_is_told_how_windows_are_built(stories, tmp_path):
    """Those to train on and those to measure on, where they are not there yet."""
    told = []
    building = BuildCallbacks(on_progress=lambda *numbers: told.append(numbers), on_wait=told.append)
    config = tiny.config(stories, tmp_path / "run", f"data.valid='{stories}'", f"data.stages_dir='{tmp_path / 'new'}'")
    assemble_run(config, building=building)
    done, total = told[-1]
    assert done == total > 0
    told.clear()
    assemble_run(config, building=building)
    assert told == []


def test_assembling_leaves_the_global_generator_alone(stories, tmp_path):
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    assemble_run(tiny.config(stories, tmp_path))
    assert torch.equal(torch.rand(3), expected)


def test_no_samples(stories, tmp_path):
    assert assemble_run(tiny.config(stories, tmp_path, "sampling.num_samples=0")).sample is None


def test_snapshot_has_as_many_samples_as_there_are_windows(stories, valid_stories, tmp_path):
    run = assemble_run(
        tiny.config(stories, tmp_path, f"data.valid='{valid_stories}'", "sampling.num_samples=30", "stage=2")
    )
    assert len(run.sample(7).groups["conditional"].samples) == 20


@pytest.mark.parametrize(("windows", "num"), [("5", 5), ("null", 20), ("99", 20)])
def test_bound_is_of_the_same_windows_at_the_same_times(stories, valid_stories, tmp_path, windows, num):
    """The first so many, or all; weights that did not change give the same number, window by window."""
    run = assemble_run(
        tiny.config(
            stories,
            tmp_path / "run",
            f"data.valid='{valid_stories}'",
            f"training.eval_windows={windows}",
            "training.num_steps=3",
            "training.eval_every=1",
            "training.ema=0.999999",
        )
    )
    before = run.measure(None).nll_nats
    assert len(before) == num
    assert torch.equal(before, run.measure(None).nll_nats)
    evaluations = [event for event in run.events() if isinstance(event, Evaluation)]
    assert [(event.num_windows, event.num_windows_in_set) for event in evaluations] == [(num, 20)] * 3
    after = run.measure(None).nll_nats
    assert not torch.equal(before, after)
    assert torch.corrcoef(torch.stack([before, after]))[0, 1] > 0.9, "the same windows in the same order"


def test_bound_has_the_same_noise_whatever_the_seed_of_a_run(stories, valid_stories, tmp_path):
    overrides = [f"data.valid='{valid_stories}'", "stage=2", "conditioning=placed"]
    first, *others = (assemble_run(tiny.config(stories, tmp_path, *overrides, f"training.seed={n}")) for n in range(3))
    bound = first.measure(None).nll_nats
    for other in others:
        other.trainer.model.load_state_dict(first.trainer.model.state_dict())
        assert torch.equal(bound, other.measure(None).nll_nats)


@pytest.mark.parametrize("placing", ["prefix", "placed"])
def test_bound_is_the_same_whatever_times_a_run_trains_at(stories, valid_stories, tmp_path, placing):
    """It is the integral over all times, so that it bounds, and says how little it leaves out."""
    overrides = [f"data.valid='{valid_stories}'", "stage=2", f"conditioning={placing}"]
    runs = [assemble_run(tiny.config(stories, tmp_path, *overrides, f"training.t_min={t}")) for t in (1e-3, 0.1, 0.5)]
    assert [run.trainer.objective.t_min for run in runs] == [1e-3, 0.1, 0.5]
    first, *others = (run.measure(None).nll_nats for run in runs)
    assert all(torch.equal(first, other) for other in others)
    # Of a token that is written: log V for the 0.1 % that never move and for the 0.0999 % that move before 0.001.
    written = (8 - 4) / 8 if placing == "placed" else 1.0
    omitted = written * math.log(runs[0].trainer.model.config.vocab_size) * (1e-3 + 0.999e-3)
    assert [run.valid.omitted_nats_per_token for run in runs] == [pytest.approx(omitted, rel=1e-9)] * 3


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["stage=0"], r"stage 0 does not exist; a cascade of \(4, 8, 40\) has 1\.\.3"),
        (["stage=4"], r"stage 4 does not exist"),
        (["stage_lengths=[8,4,40]"], r"stage_lengths \(8, 4, 40\) has 4 after 8; lengths must strictly increase"),
        (["stage_lengths=[]"], "stage_lengths is empty"),
        (
            ["data.packing=loose"],
            r"packing is 'loose'; it must be one of stream, document",
        ),
        (["noise.type=linear"], r"noise\.type is 'linear'; it must be one of loglinear, geometric"),
        (["noise.eps=2"], r"noise\.eps is 2\.0"),
        (["noise.type=geometric", "noise.sigma_min=30"], r"noise\.sigma_min is 30\.0 and noise\.sigma_max 20"),
        (["training.batch_size=0"], r"training\.batch_size is 0"),
        (["training.accum=3"], r"training\.accum is 3; it must divide"),
        (["sampling.predictor=magic"], r"^sampling\.predictor is 'magic'; it must be one of euler, analytic"),
        (["sampling.predictor=magic", "sampling.num_samples=0"], r"^sampling\.predictor is 'magic'"),
        (["sampling.num_steps=0"], r"^sampling\.num_steps is 0; it must be at least 1"),
        (["model.hidden_size=18"], r"model\.hidden_size is 18 and model\.num_heads 2"),
        (["device=tpu"], "device 'tpu' cannot be used"),
        (["stage=2", "model.copy_head=true"], r"model\.copy_head is true and model\.parameterization score"),
        ([*COPYING, "stage=1"], "copy_head is true, and stage 1 has no prefix to copy from; set model.copy_head=false"),
        ([*COPYING, "stage=2", "baseline=true"], "is true, and a flat model has no prefix to copy from"),
    ],
)
def test_settings_that_make_no_run(stories, tmp_path, overrides, message):
    with pytest.raises(ConfigError, match=message):
        assemble_run(tiny.config(stories, tmp_path / "run", *overrides))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "override",
    [
        "stage=4",
        "stage_lengths=[8,4]",
        "data.packing=loose",
        "noise.eps=2",
        "optim.lr=-1",
        "training.ema=1.5",
        "training.accum=3",
        "model.hidden_size=18",
        "sampling.predictor=magic",
        "sampling.num_steps=0",
        "device=tpu",
        "model.copy_head=true",
    ],
)
def test_what_needs_no_data_is_judged_without_it(tmp_path, override):
    config = tiny.config(tmp_path / "no data", tmp_path / "run", override)
    with pytest.raises(ConfigError, match="; "):
        require_sound(config)
    assert list(tmp_path.iterdir()) == []


def test_settings_that_are_sound(tmp_path):
    require_sound(tiny.config(tmp_path / "no data", tmp_path / "run"))
    # The stage of a flat model is of no account.
    require_sound(tiny.config(tmp_path / "no data", tmp_path / "run", "baseline=true", "stage=9"))


def test_windows_to_train_on_are_read_here_and_there(stories, valid_stories, tmp_path, monkeypatch):
    """Others are read in order too, by a study for example."""
    advised = []
    monkeypatch.setattr(stages_module, "expect_random_rows", lambda array: advised.append(array.shape))
    assemble_run(tiny.config(stories, tmp_path, f"data.valid='{valid_stories}'"))
    assert advised == [(200, 4), (200, 8), (200, 40), (200, 4), (200, 8)]


def test_lengths_beyond_the_corpus(stories, tmp_path):
    """A document fills its window with end of text, so only a stream can be too short."""
    assert len(stage_dataset(str(stories), tiny.config(stories, tmp_path, "stage_lengths=[4,8,9000]"))[1]) == 200
    with pytest.raises(DataError, match=r"has \d+ tokens in 200 documents, and one window needs 9000; give a larger"):
        assemble_run(tiny.config(stories, tmp_path, "stage_lengths=[4,8,9000]", "data.packing=stream"))


def test_a_place_for_the_run_is_looked_for_before_windows_are_built(stories, tmp_path, monkeypatch):
    def never(path, config, building):
        raise AssertionError("windows are built")

    monkeypatch.setattr(inputs, "stage_dataset", never)
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match=r"file/run cannot be written \(Not a directory\); use --out"):
        assemble_run(tiny.config(stories, tmp_path / "file" / "run"))
    with pytest.raises(AssertionError, match="windows are built"):
        assemble_run(tiny.config(stories, tmp_path / "new" / "run"))
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["data.valid=./nowhere"], r"nowhere is not there, the data of --valid \(data\.valid\); name the folder"),
        (
            ["pretrained.use_pretrained=true", "pretrained.model_path=a/b/c"],
            "a/b/c does not exist here and is not a hub id",
        ),
        (
            ["pretrained.use_pretrained=true", "pretrained.model_path='{hub_model}'"],
            "hub_model has 60 tokens, and the data",
        ),
        (
            ["pretrained.use_pretrained=true", "pretrained.model_path='{runs}/stage1'", "model.hidden_size=32"],
            r"stage1 cannot be the start of this network: model\.hidden_size is 16 there and 32 here; give the",
        ),
        (
            ["training.generated_prefix.prob=1", "training.generated_prefix.stage_paths=['{runs}/stage2']", "stage=2"],
            "is stage 2 of .*, and stage 1 of lengths",
        ),
        (["earlier_stages=[a/b/c]", "stage=2"], "a/b/c does not exist here and is not a hub id"),
        (
            ["earlier_stages=['{runs}/stage1']", "stage=2", "stage_lengths=[4,9,40]"],
            r"\(earlier_stages, or stage1_root_dir and stage2_root_dir\)",
        ),
        (["evaluation.judge='{runs}/stage1'"], "stage1', which is not a causal language model here"),
    ],
)
def test_other_models_are_looked_at_before_windows_are_built(stories, runs, tmp_path, monkeypatch, overrides, message):
    def never(path, config, building):
        raise AssertionError("windows are built")

    monkeypatch.setattr(inputs, "stage_dataset", never)
    places = {"runs": runs, "hub_model": GOLDEN / "hub_model"}
    config = tiny.config(stories, tmp_path / "run", *(override.format(**places) for override in overrides))
    with pytest.raises((CheckpointError, ConfigError, DataError), match=message):
        assemble_run(config)
    # Without samples neither the stages before nor a judge are needed.
    if "earlier_stages" in overrides[0] or "judge" in overrides[0]:
        with pytest.raises(AssertionError, match="windows are built"):
            assemble_run(dataclasses.replace(config, sampling=dataclasses.replace(config.sampling, num_samples=0)))


@pytest.mark.parametrize("what", ["tokenizer", "method"])
def test_validation_data_of_another_kind(stories, make_stories, tmp_path, what):
    if what == "tokenizer":
        other = make_stories(tmp_path, split="valid", num=5, seed=1, tokenizer=Tokenizer.train(["Once more."], 260))
    else:
        other = tfidf_stories(tmp_path, stories)
    config = tiny.config(stories, tmp_path / "run", f"data.valid='{other}'")
    with pytest.raises(DataError, match=rf"has the {what} \w+ and .* \w+; preprocess both alike, the first with "):
        assemble_run(config)


def test_validation_data_of_another_tagger(stories, make_stories, tmp_path, monkeypatch):
    monkeypatch.setattr(StoriesTagger, "name", "stories of old")
    other = make_stories(tmp_path, split="valid", num=5, seed=1)
    config = tiny.config(stories, tmp_path / "run", f"data.valid='{other}'")
    with pytest.raises(DataError, match=r"has the tagger stories of old and .* stories; .* the first with --tagger"):
        assemble_run(config)


@pytest.mark.parametrize(("key", "what"), [("model_sha256", "sentence model"), ("scope", "scope")])
def test_validation_data_of_another_sentence_model(make_stories, tmp_path, key, what):
    """Words that are near to their document under one model need not be so under another."""

    @dataclasses.dataclass
    class Embedded:
        described: dict[str, str]
        method, background = "keybert", -1.2

        def score(self, texts):
            return RandomScorer(0).score(texts)

        def describe(self):
            return self.described

    def data(split, **described):
        scorer = Embedded({"model_sha256": "a", "scope": "document"} | described)
        return make_stories(tmp_path, split=split, num=5, seed=1, scorer=scorer)

    config = tiny.config(data("train"), tmp_path / "run", f"data.valid='{data('valid', **{key: 'b'})}'")
    with pytest.raises(
        DataError, match=rf"has the {what} b and .* (a|document); .* the first with --\w+, as for the o"
    ):
        assemble_run(config)


def tfidf_stories(out: Path, stories: Path) -> Path:
    from cascaded_dllm.preprocess.in_process import preprocess_corpus

    corpus = open_corpus("stories", split="valid").first(5)
    return preprocess_corpus(
        corpus,
        split="valid",
        out_dir=out,
        tokenizer=Tokenizer.load(stories / "tokenizer.json"),
        scorer=TfidfScorer(document_frequencies(corpus.documents())),
    )


def test_joint_bound_is_measured_on_windows_as_in_training(stories, tmp_path):
    """Windows cut from a stream hold other texts than those that a document begins."""
    folder = tmp_path / "run"
    list(assemble_run(tiny.config(stories, folder)).events())
    cascade = Cascade.from_pretrained([folder])
    assert cascade.packing == "document"
    data = DataSettings.of_folder(str(stories), packing="stream", stages_dir=None)
    message = "has windows of packing 'stream', and the models were .* of packing 'document': .*; leave --packing out"
    with pytest.raises(ConfigError, match=message):
        joint_bound(cascade, data, num_windows=4, num_times=1, batch_size=4, seed=0, t_min=1e-3)


@pytest.mark.parametrize(("flags", "num_stages"), [(["stage=1"], 3), (["baseline=true"], 1)])
def test_bound_of_a_part_of_a_cascade_and_of_a_flat_model(stories, tmp_path, flags, num_stages):
    list(assemble_run(tiny.config(stories, tmp_path / "run", *flags)).events())
    data = DataSettings.of_folder(str(stories), packing="document", stages_dir=None)
    cascade = Cascade.from_pretrained([tmp_path / "run"])
    bound = joint_bound(cascade, data, num_windows=4, num_times=1, batch_size=4, seed=0, t_min=1e-3)
    assert (bound.num_stages, bound.is_whole) == (num_stages, num_stages == 1)


def test_joint_bound_of_a_folder(stories, tmp_path):
    """As its checkpoints say how; where they do not, somebody has to."""
    list(assemble_run(tiny.config(stories, tmp_path / "run", "baseline=true")).events())
    cascade = Cascade.from_pretrained(tmp_path / "run")
    data = DataSettings.of_folder(str(stories), packing="document", stages_dir=None)
    numbers = {"num_windows": 4, "num_times": 1}
    found, expected = (joint_bound(cascade, where, **numbers) for where in (stories, data))
    assert torch.equal(found.nll_nats, expected.nll_nats)
    assert "tensor" not in repr(found)
    with pytest.raises(ConfigError, match="the checkpoints do not say how documents lie in windows; give DataSettings"):
        joint_bound(dataclasses.replace(cascade, packing=""), stories, **numbers)


def test_an_end_of_text_within_a_window_has_no_character(stories, tmp_path):
    """Windows cut from a stream hold many; their name would add 13 characters each, and so lower bits a character."""
    list(assemble_run(tiny.config(stories, tmp_path / "run", "baseline=true", "data.packing=stream")).events())
    cascade = Cascade.from_pretrained(tmp_path / "run")
    bound = joint_bound(cascade, stories, num_windows=10_000, num_times=1)
    documents = [record.token_ids.tolist() for record in PreprocessedDataset.open(stories).records()]
    stream = [token for ids in documents for token in (*ids, cascade.tokenizer.eos_id)]
    in_windows = [token for token in stream[: len(stream) // 40 * 40] if token != cascade.tokenizer.eos_id]
    assert bound.num_characters == len(cascade.tokenizer.decode(in_windows))


def test_joint_bound_needs_the_tokenizer_of_the_models(stories, make_stories, tmp_path):
    folder = tmp_path / "run"
    list(assemble_run(tiny.config(stories, folder)).events())
    other = make_stories(tmp_path, split="valid", num=5, seed=1, tokenizer=Tokenizer.train(["Once more."], 260))
    cascade = Cascade.from_pretrained([folder])
    data = DataSettings.of_folder(str(other), packing="document", stages_dir=None)
    with pytest.raises(DataError, match=r"has the tokenizer \w+, and the models .* tokenizer \w+: .*; preprocess"):
        joint_bound(cascade, data, num_windows=4, num_times=1, batch_size=4, seed=0, t_min=1e-3)


@pytest.mark.parametrize("flags", [["stage=1"], ["baseline=true"]])
def test_joint_bound_needs_the_method_of_the_stages(stories, make_stories, tmp_path, flags):
    """A flat model has no shorter stages, whoever chose them."""
    folder = tmp_path / "run"
    list(assemble_run(tiny.config(stories, folder, *flags)).events())
    tokenizer = Tokenizer.load(stories)
    other = make_stories(tmp_path, split="valid", num=5, seed=1, tokenizer=tokenizer, scorer=RandomScorer(0))
    cascade = Cascade.from_pretrained([folder])
    data = DataSettings.of_folder(str(other), packing="document", stages_dir=None)

    def bound():
        return joint_bound(cascade, data, num_windows=2, num_times=1, batch_size=2, seed=0, t_min=1e-3)

    if flags == ["baseline=true"]:
        assert bound().num_stages == 1
        return
    assert cascade.method == "constituency"
    message = r"has texts that the method random chose, .* the method constituency chose: .*; preprocess .* constit"
    with pytest.raises(DataError, match=message):
        bound()


def test_characters_that_windows_share_count_once():
    """Windows end anywhere, also between the bytes of a character."""
    tokenizer = Tokenizer.train(["\u65e5\u672c\u8a9e"], 258)
    text = "\u65e5\u672c\u8a9e\u306e\u30c6\u30ad\u30b9\u30c8\u3002 " * 7
    ids = list(tokenizer.encode(text).ids)
    for length in (7, 11, 16):
        windows = [ids[start : start + length] for start in range(0, len(ids), length)]
        assert _num_characters(tokenizer, windows) == len(text)


def test_numbers_of_chance_are_those_of_training(stories, make_stories, tmp_path):
    """Drawn per word, data of another seed keeps other words; drawn per occurrence, every seed gives the same law."""
    tokenizer = Tokenizer.load(stories)

    def data(split, per, seed):
        scorer = RandomScorer(seed, per)
        folder = tmp_path / f"{per}{seed}"
        return make_stories(folder, split=split, num=20, seed=1, tokenizer=tokenizer, scorer=scorer)

    def bound(run, folder):
        settings = DataSettings.of_folder(str(folder), packing="document", stages_dir=None)
        cascade = Cascade.from_pretrained([run])
        return joint_bound(cascade, settings, num_windows=2, num_times=1, batch_size=2, seed=0, t_min=1e-3)

    runs = {per: tmp_path / f"run {per}" for per in ("word", "occurrence")}
    for per, run in runs.items():
        list(assemble_run(tiny.config(data("train", per, 3), run, "stage=1")).events())
    config = json.loads((runs["word"] / "checkpoints" / "latest" / "config.json").read_text())
    assert config["choice"] == {"per": "word", "seed": 3}
    assert bound(runs["word"], data("valid", "word", 3)).num_stages == 3
    assert bound(runs["occurrence"], data("valid", "occurrence", 4)).num_stages == 3
    message = (
        r"has a choice by chance per word with the seed 4, and the models .* per word with the seed 3: other windows "
        r"would be measured; preprocess the text with the --per and --seed, or the --scorer, of their data"
    )
    other = data("valid", "word", 4)
    with pytest.raises(DataError, match=message):
        bound(runs["word"], other)
    overrides = (f"data.path='{tmp_path / 'word3' / 'random' / 'stories_train'}'", f"data.valid='{other}'", "stage=1")
    with pytest.raises(DataError, match=r"the choice by chance per word with the seed 4 and .* 3; .* --per and --seed"):
        assemble_run(tiny.config(stories, tmp_path / "other", *overrides))


@pytest.mark.parametrize("is_there", [True, False])
def test_automatic_device(monkeypatch, is_there):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: is_there)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert choose_device("auto").type == ("cuda" if is_there else "mps")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert choose_device("auto") == choose_device("cpu") == torch.device("cpu")


def test_device_that_is_not_on_this_machine():
    with pytest.raises(ConfigError, match=r"^device 'cuda:99' cannot be used \(.+\); choose auto, cpu, mps or cuda$"):
        choose_device("cuda:99")
    with pytest.raises(ConfigError, match=r"^device 'gpu' cannot be used \(torch knows no such device\); choose auto"):
        choose_device("gpu")


def test_a_foreign_tokenizer_beside_the_data(stories, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(stories, copy)
    (copy / "tokenizer.json").write_text("{}")
    with pytest.raises(DataError, match=r"tokenizer\.json has SHA-256 .* the dataset was made with"):
        assemble_run(tiny.config(copy, tmp_path / "run"))


@pytest.mark.parametrize(
    "ambient",
    [
        pytest.param(torch.device("meta"), id="device"),
        pytest.param(torch.no_grad(), id="no_grad"),
        pytest.param(torch.inference_mode(), id="inference_mode"),
    ],
)
def test_what_a_program_has_set_for_all_of_torch(stories, valid_stories, tmp_path, ambient):
    """Steps, bounds and samples are those of a program that has set nothing."""

    def numbers(name):
        run = assemble_run(tiny.config(stories, tmp_path / name, f"data.valid='{valid_stories}'"))
        events = list(run.events())
        bound = joint_bound(Cascade.from_pretrained([run.folder]), valid_stories, num_windows=4, num_times=2)
        return [
            [event.loss_nats_per_token for event in events if isinstance(event, StepResult)],
            [event.bound_nats_per_token for event in events if isinstance(event, Evaluation)],
            (run.folder / "samples" / "step_2.json").read_text(),
            bound.nll_nats.tolist(),
        ]

    plain = numbers("plain")
    with ambient:
        assert numbers("other") == plain
