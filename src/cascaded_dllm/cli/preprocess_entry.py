"""The documented entry scripts of preprocessing, which make one shard of a job array: their flags, our command."""

import argparse
import sys

from cascaded_dllm.cli.main import app
from cascaded_dllm.preprocess.job import is_read


def main(method: str, arguments: list[str] | None = None) -> None:
    """Runs `cdllm preprocess <method>` for one shard, or for all.

    Args:
        method: the preprocessing method.
        arguments: flags of the entry, any option of the command besides; by default those of this process.
    """
    example = "--tagger" if is_read("tagger", method) else "--model"
    parser = argparse.ArgumentParser(
        description=f"One shard of a corpus with importance by the method {method}.",
        epilog=f"Every option of `cdllm preprocess {method}` may follow, such as {example}, --text-field or --out.",
        allow_abbrev=False,
    )
    parser.add_argument("--dataset_name", required=True, help="corpus by name, hub id or path")
    parser.add_argument("--dataset_mode", default="train", help="its split (default: train)")
    parser.add_argument("--num_shards", default="1", help="parts of the dataset (default: 1)")
    parser.add_argument("--shard_idx", help="the part to be made, from 0 (default: all)")
    parser.add_argument("--n_process", help="processes that score documents (default: 1)")
    parser.add_argument("--tokenizer", help="file, folder or hub id (default: gpt2)")
    parser.add_argument("--executor", help="local, slurm or ray (default: local)")
    flags, rest = parser.parse_known_args(arguments)
    command = ["preprocess", method, "--dataset", flags.dataset_name, "--split", flags.dataset_mode]
    command += ["--shards", flags.num_shards]
    # On a cluster workers are tasks at once, and the processes of a task are the cores that it asks for.
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
