"""Prints the settings of configs/quickstart.yaml as overrides for `cdllm train`, one a line, which stories_*.sh share.

python scripts/reproduce/quickstart_settings.py
"""

import sys

import yaml

from cascaded_dllm.cli.compose import config_folder
from cascaded_dllm.config import leaves
from cascaded_dllm.overrides import as_written


def main() -> None:
    """Groups first, as Hydra has them in `defaults`, then every key of the file itself."""
    settings = yaml.safe_load((config_folder() / "quickstart.yaml").read_text(encoding="utf-8"))
    chosen = [entry for entry in settings.pop("defaults") if isinstance(entry, dict)]
    groups = [f"{group.removeprefix('override ')}={name}" for entry in chosen for group, name in entry.items()]
    keys = [f"{key}={as_written(value)}" for key, value in leaves(settings)]
    sys.stdout.writelines(f"{override}\n" for override in (*groups, *keys))


if __name__ == "__main__":
    main()
