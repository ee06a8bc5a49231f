"""Which settings decide the course of a training, and which may change when a run is taken up again."""

from cascaded_dllm.assemble.start import plain
from cascaded_dllm.config import TrainConfig, leaves
from cascaded_dllm.config_groups import FREE_IN_TRAINING
from cascaded_dllm.data.order import TABLE_LIMIT
from cascaded_dllm.data.stages import StageArrays
from cascaded_dllm.train.prefixes import PrefixTraining

_FREE = ("run_dir", "device", "ngpus", "data", "logging")
_FREE_OF_SNAPSHOTS = ("sampling", "evaluation", "earlier_stages", "stage1_root_dir", "stage2_root_dir")
"""Keys that may change when a run is taken up again, besides those of the group `training`."""


def course_of(config: TrainConfig, arrays: StageArrays, prefixes: PrefixTraining) -> dict[str, object]:
    """All settings that decide the course of training, by key.

    Where and how often results go decides nothing; where data and models lie neither, but what they hold; nor in how
    many processes and parts a batch is computed. The number of steps is judged by the trainer.
    """
    settings = config.to_dict() | {"stage": config.seeded_stage}
    for free in (*_FREE, *_FREE_OF_SNAPSHOTS):
        settings.pop(free)
    if not config.pretrained.use_pretrained:
        settings.pop("pretrained")
    for free in ("num_steps", *FREE_IN_TRAINING):
        settings["training"].pop(free)
    generated = settings["training"]["generated_prefix"]
    generated.pop("stage_paths")
    generated["stage_paths (fingerprint of their weights)"] = prefixes.generate and prefixes.generate.fingerprint
    # The fingerprint says everything; the packing stands beside it for the reader.
    settings["data"] = {"packing": arrays.packing, "path (fingerprint of its windows)": arrays.fingerprint}
    if arrays.num_windows > TABLE_LIMIT:
        # Checkpoints from before so many windows had an order of this kind do not say it, and cannot be gone on with.
        settings["data"]["order"] = "bijection"
    return dict(leaves(plain(settings)))
