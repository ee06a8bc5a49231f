"""OUT/results.json: all that a study has found so far, for its report and for programs; see docs/study.md."""

import platform
from collections.abc import Mapping
from itertools import combinations
from typing import Any

import torch

import cascaded_dllm
from cascaded_dllm.assemble.start import plain
from cascaded_dllm.atomic import write_json
from cascaded_dllm.file_names import DIVERGED, DONE, FAILED, MISSING, RESULTS_FILE, RESULTS_FORMAT
from cascaded_dllm.model.devices import choose_device
from cascaded_dllm.study.callbacks import StudyCallbacks
from cascaded_dllm.study.measuring import read_nats
from cascaded_dllm.study.pairs import pairs
from cascaded_dllm.study.plan import PlannedArm, PlannedRun, described, settings_of
from cascaded_dllm.study.training import read_course
from cascaded_dllm.study.work import Work
from cascaded_dllm.train.provenance import device_facts


def write_results(work: Work, command: str, callbacks: StudyCallbacks) -> dict[str, Any]:
    """Writes the results of a study so far to results.json, and returns them.

    Args:
        work: of the study.
        command: the command that runs the study.
        callbacks: may stop the wait while another process writes.

    Raises:
        StoppedError: it is time to stop.
        OutputError: the file cannot be written.
    """
    with callbacks.waiting_for(work.folder, "results"):
        results = collect(work, command)
        write_json(work.folder.out / RESULTS_FILE, results)
    return results


def collect(work: Work, command: str) -> dict[str, Any]:
    """The results of a study so far, as results.json holds them."""
    study, arms = work.study, [_arm(work, arm) for arm in work.arms]
    nats = {
        (entry["arm"], entry["seed"]): read_nats(work.folder, entry["arm"], entry["seed"])
        for entry in arms
        if entry["bound"] is not None
    }
    reference = work.record(work.reference_part()) if study.sampling else None
    definitions = dict(_definitions(reference))
    for arm in work.arms:
        for part in work.sample_parts(arm):
            definitions |= _definitions(work.record(part))
    grammar = work.windows.grammar
    return {
        "format": RESULTS_FORMAT,
        "name": study.name,
        "study": plain(study.to_dict()),
        "command": command,
        "versions": {
            "cascaded_dllm": cascaded_dllm.__version__,
            "torch": torch.__version__,
            "python": platform.python_version(),
        },
        "device": _device(work.arms[0].config.device),
        "data": _data(work),
        "budget": {study.budget.unit: study.budget.token_forwards or study.budget.flops, "split": study.budget.split},
        "lengths": list(study.lengths),
        "truth_nats_per_window": work.windows.truth_nats_per_window,
        "entropy_nats_per_text": None if grammar is None else grammar.entropy,
        "reference": {key: {} if reference is None else reference.get(key, {}) for key in ("figures", "errors")},
        "definitions": definitions,
        "arms": arms,
        "paired": pairs(nats, [(arm.name, other.name) for other, arm in combinations(study.arms, 2)]),
    }


def _arm(work: Work, arm: PlannedArm) -> dict[str, Any]:
    """The results so far of an arm with one seed."""
    runs, bound = [(run, work.record(work.run_part(run))) for run in arm.runs], work.record(work.bound_part(arm))
    drawings = list(zip(work.study.sampling, map(work.record, work.sample_parts(arm)), strict=True))
    records = [record for _, record in runs] + [bound] + [record for _, record in drawings]
    status, reason = _status(records)
    done = [(settings, record) for settings, record in drawings if record is not None and record["status"] == DONE]
    return {
        "arm": arm.settings.name,
        "seed": arm.seed,
        "status": status,
        "reason": reason,
        "description": described(arm),
        "settings": settings_of(arm),
        "runs": [_run(work, arm, run, record) for run, record in runs],
        "token_forwards": sum(run.config.training.num_steps * run.cost.token_forwards for run in arm.runs),
        "flops": sum(run.config.training.num_steps * run.cost.flops for run in arm.runs),
        "bound": None if bound is None or bound["status"] != DONE else bound["bound"],
        "sampling": [
            {"name": settings.name}
            | {
                key: record[key]
                for key in (
                    *("options", "num_samples", "nfe", "token_forwards_per_text", "seconds_per_text", "figures"),
                    *("reasons_for_none", "folder"),
                )
            }
            # Records from before these errors were measured lack them.
            | {"errors": record.get("errors", {})}
            for settings, record in done
        ],
        "texts": done[0][1]["texts"] if done else [],
    }


def _status(records: list[dict[str, Any] | None]) -> tuple[str, str | None]:
    """The status of an arm and its reason; a part that broke down outweighs those that are missing because of it."""
    for status in (DIVERGED, FAILED):
        for record in records:
            if record is not None and record["status"] == status:
                return status, record["reason"]
    return (MISSING if None in records else DONE), None


def _run(work: Work, arm: PlannedArm, run: PlannedRun, record: Mapping[str, Any] | None) -> dict[str, Any]:
    """A run, finished or not, with the arms that share it."""
    course = read_course(run)
    users = [other.settings.name for other in work.arms if any(mine.key == run.key for mine in other.runs)]
    is_done = record is not None and record["status"] == DONE
    return {
        "stage": run.stage,
        "writes_text": run in arm.stages,
        "folder": str(run.folder.relative_to(work.folder.out)),
        "shared_by": users,
        "num_steps": run.config.training.num_steps,
        "batch_size": run.config.training.batch_size,
        "token_forwards": run.config.training.num_steps * run.cost.token_forwards,
        "flops": run.config.training.num_steps * run.cost.flops,
        "seconds": course.seconds,
        "parameters": record["parameters"] if record is not None and is_done else None,
        "num_windows": record["num_windows"] if record is not None and is_done else None,
        "curve": course.curve,
        "bound_curve": course.bound_curve,
    }


def _definitions(record: Mapping[str, Any] | None) -> dict[str, str]:
    return {} if record is None else dict(record.get("definitions", {}))


def _device(name: str) -> str:
    facts = device_facts(choose_device(name))
    threads = f", {facts['threads']} threads" if "threads" in facts else ""
    return f"{facts['type']} {facts['name']}{threads}"


def _data(work: Work) -> dict[str, Any]:
    """The data of the first method, and the folders of all."""
    first = next(iter(work.data.values()))
    settings = first.train_identity.settings
    return {
        "path": str(first.train),
        "fingerprint": first.train_identity.fingerprint,
        "valid": str(first.valid),
        "num_windows": len(work.windows.measured),
        "num_common_windows": len(work.windows.windows),
        "tokenizer": settings.tokenizer,
        "vocab_size": settings.vocab_size,
        "methods": {
            method: {"train": str(data.train), "valid": str(data.valid), "fingerprint": data.train_identity.fingerprint}
            for method, data in work.data.items()
        },
    }
