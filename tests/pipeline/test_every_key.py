"""No dead configuration: another value of any key changes the objects of the run, or is an error."""

import dataclasses
import functools

import pytest
import torch

from cascaded_dllm.assemble import resumable
from cascaded_dllm.assemble.run import assemble_run
from cascaded_dllm.config import TrainConfig
from cascaded_dllm.errors import CheckpointError, ConfigError, DataError, OutputError
from cascaded_dllm.train.run import Run
from tests.pipeline import tiny


def described(run: Run) -> dict[str, object]:
    """Everything about a run but the copies of its configuration."""
    trainer, model = run.trainer, run.trainer.model
    with trainer.averaged_weights():
        samples = run.sample(1) if run.sample else None
        bounds = run.measure(None) if run.measure else None
    return {
        "folder": run.folder,
        "device": trainer.device,
        "model": model.config,
        "weights": [parameter.detach().sum().item() for parameter in model.parameters()],
        "dtype": model.compute_dtype,
        "objective": dataclasses.replace(trainer.objective, prefixes=None),
        "prefixes": trainer.objective.prefixes.settings,
        "rewritten": rewritten(run),
        "dataset": [
            [array.tolist() for array in part.batch(torch.arange(3).numpy()) if array is not None]
            for part in trainer.dataset.parts
        ],
        "bounds": None if bounds is None else bounds.nll_nats.tolist(),
        "optim": trainer.optim,
        "loop": trainer.loop,
        "execution": trainer.execution,
        "settings": run.settings,
        "periods": run.periods,
        "samples": samples,
        "log": run.log,
        "peak_flops": run.peak_flops,
        "valid": run.valid,
    }


def rewritten(run: Run) -> list[list[list[int]]] | None:
    """Prefixes of three windows at three steps, if stages before write them."""
    generate = run.trainer.objective.prefixes.generate
    three = torch.arange(3)
    return generate and [generate(three, three, step, run.trainer.loop.seed).tolist() for step in three.tolist()]


def leaves(settings, path=""):
    for key, value in settings.items():
        yield from leaves(value, f"{path}{key}.") if isinstance(value, dict) else [(f"{path}{key}", value)]


def replaced(config: TrainConfig, path: str, value: object) -> TrainConfig:
    group, _, rest = path.partition(".")
    return dataclasses.replace(config, **{group: replaced(getattr(config, group), rest, value) if rest else value})


GENERATED = "training.generated_prefix"

# Another value for every key; an error is what the value must lead to.
OTHERS = {
    "run_dir": "elsewhere",
    "device": ConfigError("device 'tpu' cannot be used .*; choose auto, cpu, mps or cuda"),
    "ngpus": ConfigError("ngpus is 2 and 1 process assembles the run; `cdllm train` starts that many; elsewhere"),
    "dtype": "bfloat16",
    "stage": 2,
    "baseline": True,
    "stage_lengths": (4, 9, 40),
    "conditioning": "placed",
    "layout.num_blocks": 2,
    "earlier_stages": ConfigError(r"1 earlier stages are named \(elsewhere\) and stage 1 has 0"),
    "stage1_root_dir": ConfigError(r"1 earlier stages are named \(elsewhere\) and stage 1 has 0"),
    "stage2_root_dir": ConfigError("stage2_root_dir is elsewhere and stage1_root_dir is not given; name stage 1 as"),
    "data.root": DataError("elsewhere/constituency/stories_validation is not there, the data of data.valid=stories"),
    "data.dataloader": DataError("data.dataloader is tfidf, and .* was made of constituency; leave one of the two out"),
    "data.train": DataError("data.train is elsewhere, and .* was made of stories; leave one of the two out"),
    "data.path": DataError(r"elsewhere is not there, the data of --data \(data\.path\); name the folder"),
    "data.valid": DataError(
        "constituency/elsewhere_validation is not there, the data of data.valid=elsewhere; make it"
    ),
    "data.packing": "stream",
    "data.unique": False,
    "data.stages_dir": OutputError("cannot be written"),
    "model.hidden_size": 32,
    "model.num_heads": 1,
    "model.num_blocks": 2,
    "model.cond_dim": 4,
    "model.dropout": 0.5,
    "model.scale_by_sigma": False,
    "model.parameterization": "normalized",
    "model.time_conditioning": False,
    "model.prefix_attention": "one_way",
    "model.absolute_positions": True,
    "model.copy_head": False,
    "graph.type": "uniform",
    "noise.type": "geometric",
    "noise.eps": 0.01,
    "noise.sigma_min": 0.001,
    "noise.sigma_max": 10.0,
    "pretrained.use_pretrained": CheckpointError(
        "elsewhere does not exist here and is not a hub id|elsewhere is not a folder"
    ),
    "pretrained.model_path": CheckpointError(
        "elsewhere does not exist here and is not a hub id|elsewhere is not a folder"
    ),
    "pretrained.weights": "raw",
    "logging.wandb": "offline",
    "logging.project": "other",
    "logging.name": "other",
    "logging.tensorboard": True,
    "training.batch_size": 6,
    "training.accum": 2,
    "training.num_steps": 7,
    "training.ema": 0.5,
    "training.t_min": 0.2,
    "training.seed": 3,
    "training.log_every": 9,
    "training.eval_every": 9,
    "training.eval_windows": 9,
    "training.eval_times": 9,
    "training.snapshot_every": 9,
    "training.keep": 9,
    "training.keep_every": 4,
    "training.halves": "layout",
    "training.fills": True,
    "training.compile": True,
    "training.deterministic": True,
    "training.peak_flops": 1e12,
    "training.prefix_noise.prob": 0.3,
    "training.prefix_noise.kind": "mask",
    "training.prefix_dropout": 0.3,
    "training.generated_prefix.prob": 0.3,
    "training.generated_prefix.stage_paths": CheckpointError(
        "elsewhere does not exist here and is not a hub id|not a folder"
    ),
    "training.generated_prefix.level": 1.0,
    "training.generated_prefix.predictor": "first_hitting",
    "training.generated_prefix.num_steps": 1,
    "optim.lr": 0.5,
    "optim.beta1": 0.5,
    "optim.beta2": 0.5,
    "optim.eps": 0.5,
    "optim.weight_decay": 0.5,
    "optim.warmup": 5,
    "optim.decay": "cosine",
    "optim.grad_clip": 0.5,
    "sampling.predictor": "first_hitting",
    "sampling.num_steps": 1,
    "sampling.num_samples": 2,
    "evaluation.judge": ConfigError("the judge is 'elsewhere', which is not a causal language model here"),
}
# Values that lead to those errors, where it is not a folder that does not exist.
INVALID = {
    "device": "tpu",
    "ngpus": 2,
    "data.stages_dir": __file__,
    "data.dataloader": "tfidf",
    "pretrained.use_pretrained": True,
    "earlier_stages": ("elsewhere",),
    "training.generated_prefix.stage_paths": ("elsewhere",),
}
# Keys that are read only if other ones have these values.
NEEDS = {
    "training.fills": {"baseline": True},
    "training.halves": {
        "stage": 2,
        "conditioning": "placed",
        "pretrained.use_pretrained": True,
    },
    "conditioning": {"stage": 2},
    "graph.type": {"model.scale_by_sigma": False},
    "layout.num_blocks": {"stage": 2, "conditioning": "placed"},
    "noise.sigma_min": {"noise.type": "geometric"},
    "noise.sigma_max": {"noise.type": "geometric"},
    "data.root": {"data.valid": "stories"},
    "model.copy_head": {"stage": 2, "model.parameterization": "normalized"},
    "pretrained.use_pretrained": {"pretrained.model_path": "elsewhere"},
    "pretrained.model_path": {"pretrained.use_pretrained": True},
    "pretrained.weights": {"pretrained.use_pretrained": True},
}
# For people only: it is shown by `cdllm train` and stored, and two runs that differ in it are not the same run.
SHOWN_ONLY = {"model.name"}
# Says how several processes share the work; see tests/pipeline/test_train_processes.py.
OF_SEVERAL_PROCESSES = {"training.strategy"}


@pytest.fixture(scope="module")
def base(stories, valid_stories, runs, tmp_path_factory):
    """Weights to start from are there, and are not used unless a key says so."""
    overrides = ["sampling.num_steps=3", f"data.valid='{valid_stories}'", f"pretrained.model_path='{runs}/stage1'"]
    return tiny.config(stories, tmp_path_factory.mktemp("base"), *overrides)


def in_its_place(base: TrainConfig, path: str) -> TrainConfig:
    """The settings among which a key is read."""
    needed = NEEDS.get(path, {})
    if path.startswith("training.generated_prefix."):
        # Stage 2, whose prefixes the weights to start from may write.
        needed = {"stage": 2, f"{GENERATED}.prob": 0.5, f"{GENERATED}.stage_paths": (base.pretrained.model_path,)}
    for key, value in needed.items():
        base = replaced(base, key, value)
    return base


@pytest.fixture(scope="module")
def describe():
    """`described`, once for equal settings."""

    @functools.cache
    def describe(config: TrainConfig) -> dict[str, object]:
        return described(assemble_run(config))

    return describe


@pytest.mark.parametrize("path", ["stage", f"{GENERATED}.level"])
def test_equal_runs_are_found_equal(base, describe, path):
    base = in_its_place(base, path)
    assert described(assemble_run(base)) == describe(base)


def test_every_key_has_another_value(base):
    assert {path for path, _ in leaves(base.to_dict())} == OTHERS.keys() | SHOWN_ONLY | OF_SEVERAL_PROCESSES


@pytest.mark.slow
@pytest.mark.parametrize("path", OTHERS)
def test_every_key_is_read(base, describe, path):
    other, base = OTHERS[path], in_its_place(base, path)
    if isinstance(other, Exception):
        value = INVALID.get(path, "elsewhere")
        with pytest.raises(type(other), match=str(other)):
            assemble_run(replaced(base, path, value))
        return
    assert described(assemble_run(replaced(base, path, other))) != describe(base)


def test_the_name_of_a_model_is_part_of_the_run(base):
    courses = [assemble_run(replaced(base, "model.name", name)).trainer.course for name in ("a", "b", "b")]
    assert courses[0] != courses[1] == courses[2]


@pytest.mark.parametrize(
    ("path", "is_free"),
    [(path, path.split(".")[0] in ("run_dir", "sampling", "logging")) for path in OTHERS if path[:4] != "data"],
)
def test_what_may_change_when_a_run_is_resumed(base, path, is_free):
    """Where results go and how often, and how a step is carried out; all else decides the course, by its own name.

    The number of steps is judged by the trainer, as it matters to some schedules only.
    """
    if isinstance(OTHERS[path], Exception):
        return
    is_period_or_execution = path.removeprefix("training.") in {
        "log_every",
        "eval_every",
        "eval_windows",
        "eval_times",
        "snapshot_every",
        "keep",
        "keep_every",
        "num_steps",
        "accum",
        "compile",
        "deterministic",
        "peak_flops",
    }
    base = in_its_place(base, path)
    courses = [assemble_run(base).trainer.course, assemble_run(replaced(base, path, OTHERS[path])).trainer.course]
    differing = {key for key in courses[0] if courses[0][key] != courses[1][key]}
    assert courses[0].keys() == courses[1].keys()
    assert (differing - {"data.path (fingerprint of its windows)"}) == (
        set() if is_free or is_period_or_execution else {path}
    )


def test_order_of_very_many_windows_is_another_course(base, monkeypatch):
    few = assemble_run(base).trainer.course
    monkeypatch.setattr(resumable, "TABLE_LIMIT", 1)
    many = assemble_run(base).trainer.course
    assert many == few | {"data.order": "bijection"}


def test_other_packing_or_content_is_another_course(base, make_stories, tmp_path):
    course = assemble_run(base).trainer.course
    packed = assemble_run(replaced(base, "data.packing", "stream")).trainer.course
    other = assemble_run(replaced(base, "data.path", str(make_stories(tmp_path, split="x", num=5, seed=3))))
    windows = "data.path (fingerprint of its windows)"
    assert {key for key in course if course[key] != packed[key]} == {"data.packing", windows}
    assert {key for key in course if course[key] != other.trainer.course[key]} == {windows}
