"""The documented entry script of sampling: its flags, our command."""

import argparse
import re
import sys

from cascaded_dllm.cli.main import app

_STAGE = re.compile(r"--stage(\d+)_model_path(?:=|$)")


def main(arguments: list[str] | None = None) -> None:
    """Runs `cdllm sample`.

    Args:
        arguments: flags of the entry, any option of the command besides; by default those of this process.
    """
    given = sys.argv[1:] if arguments is None else arguments
    # As many stages as are named, and the three of the documented command in the help.
    named = sorted({int(found[1]) for flag in given if (found := _STAGE.match(flag))})
    parser = argparse.ArgumentParser(
        description="Texts from a cascade, every stage on disk.",
        epilog="Every option of `cdllm sample` may follow, such as --num-samples, --seed, --device or --dtype.",
        allow_abbrev=False,
    )
    for number in sorted({1, 2, 3, *named}):
        parser.add_argument(
            f"--stage{number}_model_path", metavar="PATH", help=f"run, checkpoint or hub id of stage {number}"
        )
    parser.add_argument("--batch_size", default="32", help="texts drawn together, and how many (default: 32)")
    parser.add_argument("--steps", help="time steps of a stage (default: 1024; first_hitting has none)")
    parser.add_argument("--predictor", default="analytic", help="euler, analytic or first_hitting (default: analytic)")
    parser.add_argument("--output_dir", default="./sampling_outputs", help="default: ./sampling_outputs")
    parser.add_argument("--eval_perplexity", action="store_true", help="generative perplexity under gpt2-large")
    flags, rest = parser.parse_known_args(given)
    if missing := [number for number in range(1, max(named, default=1) + 1) if number not in named]:
        parser.error(f"--stage{missing[0]}_model_path is missing; give a path for every stage, from the first on")
    command = ["sample", "--batch-size", flags.batch_size, "--predictor", flags.predictor]
    command += ["--output-dir", flags.output_dir]
    for number in named:
        command += ["--stage", getattr(flags, f"stage{number}_model_path")]
    if not any(flag.split("=")[0] == "--num-samples" for flag in rest):
        command += ["--num-samples", flags.batch_size]
    if flags.steps is not None or flags.predictor != "first_hitting":
        command += ["--steps", flags.steps or "1024"]
    command += ["--eval-perplexity"] if flags.eval_perplexity else []
    app([*command, *rest], prog_name=sys.argv[0])
