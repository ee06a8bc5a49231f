"""The entry script of sampling: runs `cdllm sample` with the flags and defaults of the original code."""

import argparse
import re
import sys

from cascaded_dllm.cli.main import app

_STAGE = re.compile(r"--stage([1-9]\d*)_model_path(?:=|$)")


def main(arguments: list[str] | None = None) -> None:
    """Runs `cdllm sample`.

    Args:
        arguments: flags of the script, and any options of the command; by default those of this process.
    """
    given = sys.argv[1:] if arguments is None else arguments
    # Any number of stages can be named; the help always shows three, as the original script has them.
    named = sorted({int(found[1]) for flag in given if (found := _STAGE.match(flag))})
    parser = argparse.ArgumentParser(
        description="Samples texts from a cascade, and writes every stage to disk.",
        epilog="All options of `cdllm sample` may follow, such as --num-samples, --seed, --device or --dtype; "
        "--cascade BUNDLE replaces the paths of the stages.",
        allow_abbrev=False,
    )
    for number in sorted({1, 2, 3, *named}):
        parser.add_argument(
            f"--stage{number}_model_path", metavar="PATH", help=f"run, checkpoint or hub id of stage {number}"
        )
    parser.add_argument(
        "--batch_size", help="texts drawn together, and number of texts unless --num-samples is given (default: 32)"
    )
    parser.add_argument("--steps", help="time steps of a stage (default: 1024 for predictors with a time grid)")
    parser.add_argument("--predictor", help="as in `cdllm sample`, such as euler or first_hitting (default: analytic)")
    parser.add_argument("--output_dir", help="where the folder of this run goes (default: ./sampling_outputs)")
    parser.add_argument(
        "--eval_perplexity", action="store_true", help="measure the generative perplexity under gpt2-large"
    )
    flags, rest = parser.parse_known_args(given)
    goes_on = any(flag.split("=")[0] == "--resume" for flag in rest)
    has_bundle = any(flag.split("=")[0] == "--cascade" for flag in rest)
    missing = next((number for number in range(1, max(named, default=1) + 1) if number not in named), None)
    if missing is not None and not ((goes_on or has_bundle) and not named):
        parser.error(
            f"--stage{missing}_model_path is missing; give a path for every stage, from the first on, or --cascade"
        )
    if not goes_on:
        _add_defaults(flags, rest)
    command = ["sample"]
    for number in named:
        command += ["--stage", getattr(flags, f"stage{number}_model_path")]
    for name in ("batch_size", "predictor", "output_dir", "steps"):
        if (value := getattr(flags, name)) is not None:
            command += [f"--{name.replace('_', '-')}", value]
    command += ["--eval-perplexity"] if flags.eval_perplexity else []
    app([*command, *rest], prog_name=sys.argv[0])


def _add_defaults(flags: argparse.Namespace, rest: list[str]) -> None:
    """Fills in the defaults of the original script for a new run; a resumed run has its own settings."""
    flags.batch_size = flags.batch_size or "32"
    flags.predictor = flags.predictor or "analytic"
    flags.output_dir = flags.output_dir or "./sampling_outputs"
    if not any(flag.split("=")[0] == "--num-samples" for flag in rest):
        rest += ["--num-samples", flags.batch_size]
    if flags.steps is None and _has_grid(flags.predictor):
        flags.steps = "1024"


def _has_grid(predictors: str) -> bool:
    """Whether one of the named predictors has time steps; an unknown name is left to the command."""
    # Not at the top: it loads PyTorch, for which nobody waits who only asks for help.
    from cascaded_dllm.sample.predictors import GRID_PREDICTORS

    return any(name.strip() in (*GRID_PREDICTORS, "tweedie") for name in predictors.split(","))
