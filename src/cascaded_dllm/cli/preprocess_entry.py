"""The entry scripts of preprocessing, which make one shard of a job array; they run `cdllm preprocess`."""

import argparse
import sys

from cascaded_dllm.cli.main import app
from cascaded_dllm.preprocess.job import is_read


def main(method: str, arguments: list[str] | None = None) -> None:
    """Runs `cdllm preprocess <method>` for one shard, or for all.

    Args:
        method: the preprocessing method.
        arguments: flags of the script, and any options of the command; by default those of this process.
    """
    example = "--tagger" if is_read("tagger", method) else "--model"
    parser = argparse.ArgumentParser(
        description=f"Makes one shard of a corpus, or all, with importance by the method {method}.",
        epilog=f"All options of `cdllm preprocess {method}` may follow, such as {example}, --text-field or --out.",
        allow_abbrev=False,
    )
    parser.add_argument("--dataset_name", required=True, help="corpus: a name, hub id or path")
    parser.add_argument("--dataset_mode", default="train", help="split of the corpus (default: train)")
    parser.add_argument("--num_shards", default="1", help="number of shards (default: 1)")
    parser.add_argument("--shard_idx", help="the shard to make, from 0 (default: all)")
    parser.add_argument("--n_process", help="processes that score documents (default: 1)")
    parser.add_argument("--tokenizer", help="tokenizer: a file, folder or hub id (default: gpt2)")
    parser.add_argument("--executor", help="where tasks run: local, slurm or ray (default: local)")
    flags, rest = parser.parse_known_args(arguments)
    command = ["preprocess", method, "--dataset", flags.dataset_name, "--split", flags.dataset_mode]
    command += ["--shards", flags.num_shards]
    # On a cluster, --workers is the number of tasks at once, and a task has as many processes as --cpus asks for.
    if flags.executor in (None, "local"):
        command += ["--workers", flags.n_process or "1"]
    elif flags.n_process is not None:
        command += ["--cpus", flags.n_process]
    if flags.shard_idx is not None:
        command += ["--shard", flags.shard_idx]
    if flags.tokenizer is not None or not any(flag.startswith("--train-tokenizer") for flag in rest):
        command += ["--tokenizer", flags.tokenizer or "gpt2"]
    if flags.executor is not None:
        command += ["--executor", flags.executor]
    app([*command, *rest], prog_name=sys.argv[0])
