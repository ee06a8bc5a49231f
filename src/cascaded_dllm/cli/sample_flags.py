"""The options of `cdllm sample`, in the order of its help; `cdllm evaluate gap` shares some of them."""

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from cascaded_dllm.cli.sample_options import SampleOptions
from cascaded_dllm.sample.drawing import DEFAULT_STEPS, Drawing
from cascaded_dllm.sample.predictors import GRID_PREDICTORS, PREDICTORS

DEFAULT_JUDGE = "gpt2-large"

_DEFAULTS, _PLAIN = SampleOptions(), Drawing()
_control = partial(typer.Option, rich_help_panel="What the texts hold")
_method = partial(typer.Option, rich_help_panel="How they are drawn")

NumSamples = Annotated[
    int | None,
    typer.Option(
        help="Number of texts to write.", show_default=f"{_DEFAULTS.num_samples}, or as many as --input contains"
    ),
]
Seed = Annotated[
    int | None,
    typer.Option(
        help="Seed of everything random; text i depends on it, not on the batch.",
        show_default=str(_PLAIN.seed),
    ),
]
Keywords = Annotated[str | None, _control(help="Words, separated by commas, that stage 1 must contain in this order.")]
Outline = Annotated[
    Path | None,
    _control(
        help="File with words that the first stage with room for them must contain in this order; with --from-stage, "
        "the stage after that."
    ),
]
FromStage = Annotated[
    int | None, _control(help="Stage whose texts are in --input; only the stages after it are written.")
]
Input = Annotated[
    Path | None,
    _control(help="Texts for --from-stage: a sampling run, or a file of texts such as sample_stage1.txt."),
]
Pin = Annotated[
    list[str] | None,
    _control(
        help="STAGE:POSITION:TEXT, a text at a fixed place of a stage; POSITION is a number from 0 on, start or end; "
        "repeat it for several."
    ),
]
RequireCoverage = Annotated[
    bool | None,
    _control("--require-coverage", help="Every stage must contain all tokens of the stage before, in order."),
]
Guidance = Annotated[
    float | None,
    _method(
        help="Weight of classifier-free guidance by the prefix; doubles the network calls, and needs stages trained "
        "with training.prefix_dropout.",
        show_default=str(_PLAIN.guidance),
    ),
]
Predictor = Annotated[
    str | None,
    _method(
        help=f"Predictor: {', '.join(PREDICTORS)}; one, or one for each stage, separated by commas.",
        show_default=",".join(_PLAIN.predictor),
    ),
]
Steps = Annotated[
    str | None,
    _method(
        help=f"Time steps of a stage, for {', '.join(GRID_PREDICTORS)}; one value, or one for each stage.",
        show_default=str(DEFAULT_STEPS),
    ),
]
TokensPerCall = Annotated[
    str | None,
    _method(
        help="Tokens written in one network call, for the other predictors; one value, or one for each stage.",
        show_default="1",
    ),
]
Eta = Annotated[
    float | None, _method(help="How often the predictor remask rewrites written tokens, 0 to 1.", show_default="0.1")
]
GapsPerCall = Annotated[
    int | None, _method(help="Gaps of a layout drawn in one network call, in placed stages.", show_default="1")
]
Temperature = Annotated[
    float | None,
    _method(
        help="Temperature; below 1, probable tokens become more probable, and 0 takes the most probable one.",
        show_default="1",
    ),
]
TopK = Annotated[int | None, _method(help="Draw only from the k most probable tokens.")]
TopP = Annotated[
    float | None,
    _method(help="Draw only from the fewest most probable tokens whose total probability is at least this."),
]
PrefixNoise = Annotated[
    float | None,
    _method(
        help="Probability that a prefix token is replaced, as in training; needs stages trained with "
        "training.prefix_noise.",
        show_default=str(_PLAIN.prefix_noise),
    ),
]
BatchSize = Annotated[int | None, typer.Option(help="Texts written together.", show_default=str(_DEFAULTS.batch_size))]
OutputDir = Annotated[
    Path | None,
    typer.Option(help="Folder in which this run gets a folder of its own.", show_default=str(_DEFAULTS.output_dir)),
]
Resume = Annotated[Path | None, typer.Option(help="Complete the run in this folder; no other option is needed.")]
Watch = Annotated[bool, typer.Option("--watch", help="Show the first texts of a batch while they are written.")]
EvalPerplexity = Annotated[
    bool, typer.Option("--eval-perplexity", help="Measure the generative perplexity of the final texts.")
]
Judge = Annotated[
    str | None,
    typer.Option(
        help="Causal language model for the perplexity: a folder or a hub id; implies --eval-perplexity.",
        show_default=DEFAULT_JUDGE,
    ),
]
Device = Annotated[
    str | None,
    typer.Option(help="Device of the networks: auto, cpu, mps, cuda, ...", show_default=_DEFAULTS.device),
]
Dtype = Annotated[
    str | None,
    typer.Option(help="Precision of the matrix products: float32 or bfloat16.", show_default=_DEFAULTS.dtype),
]
Compile = Annotated[
    bool | None,
    typer.Option(
        "--compile/--no-compile",
        help="Send the blocks of the networks through torch.compile: slower at first, faster for many texts.",
        show_default="no-compile",
    ),
]
