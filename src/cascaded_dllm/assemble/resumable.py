"""Which settings decide the course of a training run, and which may change when the run is resumed."""

from cascaded_dllm.assemble.start import plain
from cascaded_dllm.config import TrainConfig, leaves
from cascaded_dllm.config_groups import FREE_IN_TRAINING
from cascaded_dllm.data.order import TABLE_LIMIT
from cascaded_dllm.data.stages import StageArrays
from cascaded_dllm.train.prefixes import PrefixTraining

_FREE = ("run_dir", "device", "ngpus", "data", "logging")
_FREE_OF_SNAPSHOTS = ("sampling", "evaluation", "earlier_stages", "stage1_root_dir", "stage2_root_dir")
"""With `_FREE`, the keys that may change when a run is resumed, besides those of the group `training`."""


def course_of(config: TrainConfig, arrays: StageArrays, prefixes: PrefixTraining) -> dict[str, object]:
    """All settings that decide the course of training, by key.

    It does not depend on where and how often results go, on the number of processes and parts in which a batch is
    computed, or on the paths of data and models, but on their content. The trainer checks the number of steps.
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
    # The fingerprint covers the packing, which is listed for readers.
    settings["data"] = {"packing": arrays.packing, "path (fingerprint of its windows)": arrays.fingerprint}
    if arrays.num_windows > TABLE_LIMIT:
        # Older checkpoints lack this key: they ordered so many windows in another way and cannot be resumed.
        settings["data"]["order"] = "bijection"
    return dict(leaves(plain(settings)))
