"""`cdllm preprocess stages`: builds windows and stages of a dataset before a training needs them."""

from pathlib import Path

from cascaded_dllm.cli import preprocess_flags as flags
from cascaded_dllm.cli.building import BUILDING, shown_building
from cascaded_dllm.cli.console import console, reported_errors, say
from cascaded_dllm.cli.inspect import asked_windows, pairs
from cascaded_dllm.cli.options import Debug
from cascaded_dllm.data.build_stages import useful_workers
from cascaded_dllm.data.stages import StageArrays, stages_folder


def stages(
    folder: flags.Folder,
    lengths: flags.Lengths = None,
    packing: flags.Packing = None,
    unique: flags.Unique = None,
    stages_dir: flags.StagesFolder = None,
    workers: flags.BuildWorkers = None,
    debug: Debug = False,
) -> None:
    """Build the windows and nested stages of a preprocessed dataset ahead of training.

    Training builds them itself if they are missing; this command does so in a job without a GPU. Training finds them
    only if its --lengths, data.packing, data.unique and --stages are the same as here. Flat models and all stages of a
    cascade share them.

    Examples:

      cdllm preprocess stages data/preprocessed/constituency/mine_train
      cdllm preprocess stages D --lengths 16,32,128 --packing document --no-unique
      cdllm preprocess stages /read/only/D --stages scratch/stages --workers 4
    """
    with reported_errors(debug):
        spec, chosen_packing, is_unique = asked_windows(lengths, packing, unique)
        with shown_building(BUILDING) as building:
            arrays = StageArrays.build(
                folder,
                spec,
                packing=chosen_packing,
                unique=is_unique,
                out=stages_dir,
                workers=useful_workers() if workers is None else workers,
                on_progress=building.on_progress,
                on_wait=building.on_wait,
            )
        _show(arrays, stages_folder(folder, stages_dir) / arrays.fingerprint)


def _show(arrays: StageArrays, folder: Path) -> None:
    """Prints what was built, what was dropped, and the folder."""
    num_dropped = arrays.dropped["too_few_distinct_tokens"]
    size = sum(path.stat().st_size for path in folder.iterdir())
    console.print(
        pairs(
            [
                ("stage lengths", ", ".join(map(str, arrays.spec.stage_lengths))),
                ("packing", arrays.packing),
                ("repeated tokens", "kept once" if arrays.unique else "kept"),
                ("windows", f"{arrays.num_windows:,}"),
                (
                    "windows dropped for too few distinct tokens",
                    f"{num_dropped:,} of {arrays.num_windows + num_dropped:,}",
                ),
                ("tokens at the end that fill no window", f"{arrays.dropped['tail_tokens']:,}"),
                ("on the disk", f"{size / 1e6:,.1f} MB"),
            ]
        )
    )
    say(f"stages: {folder}")
