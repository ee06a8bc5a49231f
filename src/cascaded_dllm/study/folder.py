"""The folder of a study: where its parts lie, and a record of every part that is settled."""

import json
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cascaded_dllm.atomic import write_json
from cascaded_dllm.errors import DataError
from cascaded_dllm.os_errors import write_errors
from cascaded_dllm.run_lock import is_held, run_lock

STUDY_FILE = "study.yaml"


@dataclass(frozen=True, slots=True)
class StudyFolder:
    """The folder of a study.

    Attributes:
        out: the folder, absolute.
    """

    out: Path

    @property
    def data(self) -> Path:
        """Preprocessed data."""
        return self.out / "data"

    @property
    def logs(self) -> Path:
        """Output of cluster jobs."""
        return self.out / "logs"

    def run(self, name: str) -> Path:
        """The folder of a training run."""
        return self.out / "runs" / name

    def arm(self, arm: str, seed: int) -> Path:
        """The folder of the bound and the texts of an arm."""
        return self.out / "arms" / arm / f"seed{seed}"

    def record(self, part: str) -> dict[str, Any] | None:
        """The record of a part; None while the part is not settled.

        Raises:
            DataError: the record is damaged.
        """
        path = self.record_file(part)
        if not path.is_file():
            return None
        try:
            record = dict(json.loads(path.read_text(encoding="utf-8")))
        except (ValueError, TypeError) as error:
            raise DataError(
                f"{path} is damaged ({type(error).__name__}); remove it, and the part is looked at again"
            ) from error
        if lacking := {"of", "status"} - record.keys():
            raise DataError(f"{path} lacks {sorted(lacking)[0]!r}; remove it, and the part is looked at again")
        return record

    def is_at_work(self, part: str) -> bool:
        """Whether a living process seems to work on a part; see `is_held`."""
        return is_held(self.out / "locks" / part)

    def settle(self, part: str, record: Mapping[str, Any]) -> None:
        """Writes the record of a part, which settles it."""
        write_json(self.record_file(part), record)

    def lock(self, part: str, go_on: Callable[[], None] | None = None) -> AbstractContextManager[None]:
        """Locks a part for this process inside the block.

        Args:
            part: its name.
            go_on: called repeatedly while it is unclear whether another owner is alive; see `run_lock`.

        Raises:
            FolderInUseError: another process has the part.
            OutputError: the folder cannot be written.
        """
        folder = self.out / "locks" / part
        with write_errors(f"{folder} cannot be made", "use --out to name a folder that you may write to"):
            folder.mkdir(parents=True, exist_ok=True)
        return run_lock(folder, other="run the study into another folder with --out", go_on=go_on)

    def record_file(self, part: str) -> Path:
        """Where the record of a part lies."""
        return self.out / "records" / f"{part}.json"
