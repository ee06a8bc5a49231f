"""The options of `cdllm sample` in the order in which its help shows them; `cdllm evaluate gap` has some of them."""

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
    typer.Option(help="How many texts.", show_default=f"{_DEFAULTS.num_samples}, or as many as --input holds"),
]
Seed = Annotated[
    int | None,
    typer.Option(help="Decides everything; text i does not depend on the batch.", show_default=str(_PLAIN.seed)),
]
Keywords = Annotated[str | None, _control(help="Words with commas that stage 1 holds in this order.")]
Outline = Annotated[
    Path | None, _control(help="File with words that the first stage with room for them holds in order.")
]
FromStage = Annotated[int | None, _control(help="Stage whose texts --input holds; the ones after it are written.")]
Input = Annotated[Path | None, _control(help="A sampling run, or a file of texts such as sample_stage1.txt.")]
Pin = Annotated[
    list[str] | None, _control(help="STAGE:POSITION:TEXT at a fixed place, POSITION a number, start or end; repeat it.")
]
RequireCoverage = Annotated[
    bool | None, _control("--require-coverage", help="Every stage holds all of the one before, in order.")
]
Guidance = Annotated[
    float | None,
    _method(
        help="Weight of guidance by the prefix; twice the calls, needs training.prefix_dropout.",
        show_default=str(_PLAIN.guidance),
    ),
]
Predictor = Annotated[
    str | None,
    _method(
        help=f"{', '.join(PREDICTORS)}; one, or one for each stage with commas.",
        show_default=",".join(_PLAIN.predictor),
    ),
]
Steps = Annotated[
    str | None,
    _method(
        help=f"Time steps of a stage, for {', '.join(GRID_PREDICTORS)}; one, or one for each stage.",
        show_default=str(DEFAULT_STEPS),
    ),
]
TokensPerCall = Annotated[
    str | None,
    _method(help="Tokens written together by the other predictors; one, or one for each stage.", show_default="1"),
]
Eta = Annotated[float | None, _method(help="How much remask masks again, 0 to 1.", show_default="0.1")]
GapsPerCall = Annotated[
    int | None, _method(help="Gaps of a layout drawn together, in placed stages.", show_default="1")
]
Temperature = Annotated[float | None, _method(help="Of the law of a token; 1 leaves it.", show_default="1")]
TopK = Annotated[int | None, _method(help="Draw from the k most probable tokens only.")]
TopP = Annotated[float | None, _method(help="Draw from the most probable tokens of this probability only.")]
PrefixNoise = Annotated[
    float | None,
    _method(
        help="Share of a prefix that is replaced, as in training with training.prefix_noise.",
        show_default=str(_PLAIN.prefix_noise),
    ),
]
BatchSize = Annotated[int | None, typer.Option(help="Texts drawn together.", show_default=str(_DEFAULTS.batch_size))]
OutputDir = Annotated[
    Path | None, typer.Option(help="Where the folder of this run goes.", show_default=str(_DEFAULTS.output_dir))
]
Resume = Annotated[Path | None, typer.Option(help="Go on with the run in this folder, which needs no other option.")]
Watch = Annotated[bool, typer.Option("--watch", help="Show the first texts of a batch while they are written.")]
EvalPerplexity = Annotated[bool, typer.Option("--eval-perplexity", help="Generative perplexity of the final texts.")]
Judge = Annotated[
    str | None,
    typer.Option(
        help="Causal language model that judges them, a folder or a hub id; implies --eval-perplexity.",
        show_default=DEFAULT_JUDGE,
    ),
]
Device = Annotated[str | None, typer.Option(help="auto, cpu, mps, cuda, ...", show_default=_DEFAULTS.device)]
Dtype = Annotated[
    str | None, typer.Option(help="Of the matrix products: float32 or bfloat16.", show_default=_DEFAULTS.dtype)
]
Compile = Annotated[
    bool | None,
    typer.Option(
        "--compile/--no-compile",
        help="Blocks go through torch.compile: slower at first, faster for many texts.",
        show_default="no-compile",
    ),
]
