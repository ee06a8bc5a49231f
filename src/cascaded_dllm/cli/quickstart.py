"""`cdllm quickstart`: trains, measures and samples a three-stage cascade from scratch, in minutes on a laptop."""

import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import typer

from cascaded_dllm.assemble.bound import joint_bound
from cascaded_dllm.assemble.inputs import stage_dataset
from cascaded_dllm.assemble.run import assemble_run, require_sound
from cascaded_dllm.atomic import write_json
from cascaded_dllm.checks import one_of, require_at_least
from cascaded_dllm.cli.building import BUILDING, shown_building
from cascaded_dllm.cli.compose import compose_config
from cascaded_dllm.cli.console import console, heading, progress_bar, reported_errors, say, working
from cascaded_dllm.cli.evaluate import bound_table
from cascaded_dllm.cli.options import Debug
from cascaded_dllm.cli.quickstart_truth import accepted_share, compare_with_grammar
from cascaded_dllm.cli.run_progress import run_with_progress
from cascaded_dllm.cli.show import story_lines
from cascaded_dllm.cli.train_run import warn_of_long_warmup
from cascaded_dllm.config import TrainConfig
from cascaded_dllm.data.dataset import evenly_spaced
from cascaded_dllm.evaluate.bound_summary import bound_summary
from cascaded_dllm.importance.base import Scorer
from cascaded_dllm.importance.pos import PosScorer
from cascaded_dllm.importance.stories_tagger import StoriesTagger
from cascaded_dllm.importance.tfidf import TfidfScorer, document_frequencies
from cascaded_dllm.overrides import require_free
from cascaded_dllm.preprocess.in_process import preprocess_corpus
from cascaded_dllm.sample.cascade import Cascade
from cascaded_dllm.sample.drawing import Drawing
from cascaded_dllm.sample.output import write_samples
from cascaded_dllm.sample.samples import CascadeSamples
from cascaded_dllm.sample.settings import RunSettings, SampleSettings
from cascaded_dllm.text.corpora import BUILT_IN, open_corpus
from cascaded_dllm.text.stories import story_tokenizer
from cascaded_dllm.text.tokenizer import Tokenizer

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)

_DECIDED = {
    "run_dir",
    "load_dir",
    "data.path",
    "data.train",
    "data.dataloader",
    "data.valid",
    "stage",
    "baseline",
    "training.seed",
    "conditioning",
    "ngpus",
}
"""Keys that the quickstart sets itself."""

_BOUND_WINDOWS, _BOUND_TIMES = 512, 16
_SAMPLES_SHOWN, _BATCH_SIZE = 4, 64


@dataclass(frozen=True, slots=True)
class _Recipe:
    """What differs between the two corpora: the importance scorer and the tokenizer."""

    scorer: Scorer
    tokenizer: Tokenizer


@app.command()
def quickstart(
    overrides: Annotated[
        list[str] | None,
        typer.Argument(
            help="Overrides key=value, as for `cdllm train`; see configs/quickstart.yaml.", show_default=False
        ),
    ] = None,
    corpus: Annotated[
        str,
        typer.Option(
            help="The corpus: stories (from a grammar of known entropy) or python-docs (docstrings of Python itself)."
        ),
    ] = "stories",
    out: Annotated[
        Path, typer.Option(help="Folder for data, runs and samples; the same command resumes what is in it.")
    ] = Path("runs/quickstart"),
    num_samples: Annotated[int, typer.Option(help="Number of texts to sample and measure.")] = 256,
    seed: Annotated[int, typer.Option(help="Seed of everything random.")] = 0,
    conditioning: Annotated[
        str,
        typer.Option(
            help="How a later stage sees the text of the stage before: prefix (in front of its own text) or placed (at "
            "its places in the text)."
        ),
    ] = "prefix",
    flat: Annotated[
        bool,
        typer.Option(
            "--flat", help="Also train a flat model for comparison, with as many token-forwards as all stages together."
        ),
    ] = False,
    debug: Debug = False,
) -> None:
    """Train, measure and sample a three-stage cascade on a built-in corpus.

    Examples:

      cdllm quickstart
      cdllm quickstart --corpus python-docs --out runs/docs
      cdllm quickstart training.num_steps=3000 --out runs/longer
      cdllm quickstart --flat --out runs/beside
      cdllm quickstart --conditioning placed --out runs/placed
    """
    with reported_errors(debug):
        one_of("--corpus", corpus, BUILT_IN)
        require_at_least("--num-samples", num_samples, 1)
        started = time.perf_counter()
        config = _config(overrides or [], corpus, out, seed, conditioning)
        recipe = _recipe(corpus)
        heading("1 of 4  corpus -> tokens with importance")
        train_data, valid_data = (_preprocess(corpus, split, recipe, out / "data") for split in ("train", "valid"))
        heading("2 of 4  one diffusion model a stage")
        config = replace(config, data=replace(config.data, path=str(train_data), valid=str(valid_data)))
        stages = _train(config, out)
        flat_run = _train_flat(config, out) if flat else None
        cascade = Cascade.from_pretrained(stages)
        heading("3 of 4  what it knows")
        valid_config = replace(config, data=replace(config.data, path=str(valid_data)))
        summary: dict[str, object] = {"corpus": corpus, "seed": seed} | _measured(cascade, corpus, valid_config)
        heading("4 of 4  what it writes")
        samples, accepted, seconds_of_drawing = _sampled(cascade, corpus, num_samples, seed)
        summary |= accepted
        if flat_run is not None:
            heading("beside it: a flat model")
            model = Cascade.from_pretrained([flat_run])
            _, accepted, _ = _sampled(model, corpus, num_samples, seed)
            summary["flat"] = _measured(model, corpus, valid_config) | accepted
            summary["training_token_forwards"] = _token_forwards(config)
        settings = RunSettings(
            num_samples=num_samples,
            batch_size=_BATCH_SIZE,
            device=str(cascade.device),
            judge=None,
            texts=SampleSettings.of(cascade, Drawing(seed=seed), stages),
        )
        folder = write_samples(out / "samples", samples, settings, summary, seconds=seconds_of_drawing)
        summary["seconds"] = round(time.perf_counter() - started, 1)
        write_json(out / "summary.json", summary)
        _say_where(out, folder, stages, time.perf_counter() - started)


def _recipe(corpus: str) -> _Recipe:
    if corpus == "stories":
        return _Recipe(PosScorer(StoriesTagger()), story_tokenizer())
    train = open_corpus(corpus, split="train")
    with working("training a tokenizer on the corpus"):
        tokenizer = Tokenizer.train((document.text for document in train.documents()), 2048)
    return _Recipe(TfidfScorer(document_frequencies(train.documents())), tokenizer)


def _preprocess(corpus: str, split: str, recipe: _Recipe, out: Path) -> Path:
    stream = open_corpus(corpus, split=split)
    with progress_bar(f"{corpus} {split}") as (_, move):
        folder = preprocess_corpus(
            stream,
            split=split,
            out_dir=out,
            tokenizer=recipe.tokenizer,
            scorer=recipe.scorer,
            on_progress=move,
        )
    say(f"{split}: {folder}")
    return folder


def _config(overrides: list[str], corpus: str, out: Path, seed: int, conditioning: str) -> TrainConfig:
    """The settings that all stages share; the data does not exist yet, so only its path is set.

    Raises:
        ConfigError: an override cannot be read, is out of range, or sets a key that the quickstart sets itself.
    """
    require_free(
        overrides, _DECIDED, "the quickstart sets {key} itself; leave it out, or use --out, --seed and --conditioning"
    )
    packing = ["data.packing=stream"] if corpus == "python-docs" else []
    paths = {"run_dir": out, "data.path": out / "data"}
    decided = [f"training.seed={seed}", f"conditioning={conditioning}"]
    config = compose_config([*packing, *overrides, *decided], name="quickstart", paths=paths, is_one_run=True)
    require_sound(config)
    warn_of_long_warmup(config)
    return config


def _train(config: TrainConfig, out: Path) -> list[Path]:
    """Train all stages, one after another; their run folders."""
    folders = []
    for number, length in enumerate(config.stage_lengths, start=1):
        folders.append(out / f"stage{number}")
        with shown_building(BUILDING) as building:
            run = assemble_run(replace(config, stage=number, run_dir=str(folders[-1])), building=building)
        run_with_progress(run, f"stage {number}, {length} tokens", is_last=False)
    return folders


def _token_forwards(config: TrainConfig) -> int:
    """Positions that go through the networks of all stages in training, prefixes and gaps included."""
    lengths = config.stage_lengths
    positions = sum(prefix + length for prefix, length in zip((0, *lengths), lengths, strict=False))
    if config.conditioning == "placed":
        positions += len(lengths) - 1  # n tokens have n + 1 gaps
    return config.training.num_steps * config.training.batch_size * positions


def _train_flat(config: TrainConfig, out: Path) -> Path:
    """Train a flat model until it has computed as many positions as all stages together; its run folder."""
    length, batch_size = config.stage_lengths[-1], config.training.batch_size
    num_steps = round(_token_forwards(config) / (batch_size * length))
    training = replace(config.training, num_steps=num_steps)
    folder = out / "flat"
    with working("building windows"):
        run = assemble_run(replace(config, baseline=True, run_dir=str(folder), training=training))
    run_with_progress(run, f"flat, {length} tokens, {num_steps} steps", is_last=False)
    return folder


def _measured(cascade: Cascade, corpus: str, config: TrainConfig) -> dict[str, object]:
    """Measures and shows the joint bound on windows of `config.data.path`; for stories, also the true surprisal."""
    with progress_bar("measuring the bound") as (_, move):
        bound = joint_bound(
            cascade,
            config.data,
            num_windows=_BOUND_WINDOWS,
            num_times=_BOUND_TIMES,
            batch_size=128,
            seed=config.training.seed,
            on_progress=move,
        )
    console.print(bound_table(bound))
    if corpus != "stories":
        return bound_summary(bound)
    assert config.data.path is not None, "the quickstart names its folders"
    arrays, _ = stage_dataset(config.data.path, config)
    windows = arrays.stages[-1][evenly_spaced(arrays.num_windows, _BOUND_WINDOWS)].tolist()
    return bound_summary(bound) | compare_with_grammar(bound, [cascade.tokenizer.decode_window(ids) for ids in windows])


def _sampled(
    cascade: Cascade, corpus: str, num_samples: int, seed: int
) -> tuple[CascadeSamples, dict[str, object], float]:
    """Samples texts and shows the first ones; for stories, also the share that the grammar accepts.

    Returns:
        The texts, the figures of their acceptance, and the seconds that drawing them took.
    """
    started = time.perf_counter()
    with progress_bar("texts of all stages") as (_, move):
        samples = cascade.generate(num_samples, seed=seed, batch_size=_BATCH_SIZE, on_progress=move)
    seconds = time.perf_counter() - started
    for i in range(min(_SAMPLES_SHOWN, num_samples)):
        console.print(story_lines(cascade, samples, i))
    return samples, accepted_share(samples.final_texts) if corpus == "stories" else {}, seconds


def _say_where(out: Path, samples: Path, runs: list[Path], seconds: float) -> None:
    stages = " ".join(f"--stage {run}" for run in runs)
    console.rule()
    for line in (
        f"done in {seconds:.0f} s",
        f"data      {out / 'data'}",
        f"runs      {', '.join(map(str, runs))} (config.yaml, metrics.jsonl, checkpoints/)",
        f"samples   {samples}",
        f"numbers   {out / 'summary.json'}",
        f"more      cdllm sample {stages} --num-samples 16 --seed 1",
        f"a page    cdllm demo {stages}",
    ):
        say(line)
