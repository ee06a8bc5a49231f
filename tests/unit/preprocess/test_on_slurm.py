"""What is asked of Slurm and made of its answers; its programs are stand-ins here, and real in tests/pipeline."""

import json

import pytest

from cascaded_dllm.errors import DataError, OutputError
from cascaded_dllm.preprocess.executors import Resources, Tasks
from cascaded_dllm.preprocess.on_slurm import require_no_job, submit_slurm, submitted_jobs

CONFIG = "echo 'MaxArraySize            = 2'"
SUBMIT = 'echo "$@" >> {folder}/asked; number=$(($(cat {folder}/number) + 1)); echo $number > {folder}/number; '
SUBMIT += "echo Submitted batch job $number"


@pytest.fixture
def tasks(tmp_path):
    return Tasks(print, tmp_path / "data", 5, [0, 1, 2, 3, 4], [])


@pytest.fixture
def programs(monkeypatch, tmp_path):
    """Puts programs that do what they are given in the place of Slurm's."""
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "number").write_text("6")
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")

    def put(**scripts):
        for name, script in ({"sinfo": "exit 1"} | scripts).items():
            (folder / name).write_text("#!/bin/sh\n" + script.replace("{folder}", str(folder)) + "\n")
            (folder / name).chmod(0o755)
        return folder

    return put


def submit(tasks):
    pytest.importorskip("datatrove")
    return submit_slurm(tasks, Resources(partition="main"), "cdllm-random")


def test_machine_without_slurm(tasks, monkeypatch, tmp_path, programs):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(DataError, match="scontrol is not on this machine; submit from a login node of the cluster"):
        submit(tasks)
    folder = programs(scontrol=CONFIG)
    monkeypatch.setenv("PATH", str(folder))
    with pytest.raises(DataError, match="sbatch is not on this machine; submit from a login node of the cluster"):
        submit(tasks)


@pytest.mark.parametrize(
    ("scontrol", "message"),
    [
        (
            "echo broken >&2; exit 1",
            r"scontrol show config failed \(exit code 1: broken\); check that Slurm",
        ),
        ("echo MaxArraySize = 0", "scontrol show config tells no MaxArraySize above 0"),
        ("echo", "scontrol show config tells no MaxArraySize above 0"),
    ],
)
def test_slurm_that_does_not_say_how_large_arrays_may_be(tasks, programs, scontrol, message):
    programs(scontrol=scontrol)
    with pytest.raises(DataError, match=message):
        submit(tasks)


def test_job_that_slurm_refuses(tasks, programs):
    programs(scontrol=CONFIG, sbatch="exit 7")
    with pytest.raises(DataError, match=r"Slurm refused the job \(exit code 7\)"):
        submit(tasks)
    assert submitted_jobs(tasks.folder) == []


def test_arrays_are_as_large_as_slurm_allows(tasks, programs):
    folder = programs(scontrol=CONFIG, sbatch=SUBMIT)
    assert submit(tasks) == ["7", "8", "9"]
    assert submitted_jobs(tasks.folder) == ["7", "8", "9"]
    asked = (folder / "asked").read_text().splitlines()
    assert ["--dependency=afterany:7" in line for line in asked] == [False, True, False]
    assert "--array=0-1\n" in (tasks.logs / "launch_script.slurm").read_text()


def test_arrays_of_which_the_second_is_refused_are_noted(tasks, programs):
    programs(scontrol=CONFIG, sbatch="[ ! -e {folder}/asked ] || exit 7; " + SUBMIT)
    with pytest.raises(DataError, match="Slurm refused the job"):
        submit(tasks)
    assert submitted_jobs(tasks.folder) == ["7"]


def test_number_of_a_job_on_one_of_several_clusters(tasks, programs):
    programs(scontrol="echo MaxArraySize = 9", sbatch=SUBMIT + " on cluster alpha")
    assert submit(tasks) == ["7"]
    programs(scontrol="echo MaxArraySize = 9", sbatch="echo alpha 9", squeue="echo")
    with pytest.raises(DataError, match="sbatch said 'alpha 9', which has no job number; see with squeue"):
        submit(tasks)


def test_jobs_that_are_not_over_stay_noted(tasks, programs):
    programs(scontrol=CONFIG, sbatch=SUBMIT, squeue="echo '8 cdllm-random'; echo '9 somebody else'")
    submit(tasks)
    assert submit(tasks) == ["10", "11", "12"]
    assert submitted_jobs(tasks.folder) == ["8", "10", "11", "12"]
    programs(scontrol=CONFIG, sbatch=SUBMIT, squeue="exit 3")
    submit(tasks)
    assert submitted_jobs(tasks.folder) == ["8", *map(str, range(10, 16))]


def test_a_number_is_noted_as_soon_as_it_is_known(tasks, programs):
    noted = tasks.logs / "slurm.json"
    programs(scontrol=CONFIG, sbatch=f"[ ! -e {{folder}}/asked ] || cp {noted} {{folder}}/seen; " + SUBMIT)
    submit(tasks)
    seen = json.loads((tasks.folder.parent / "bin" / "seen").read_text())
    assert seen["jobs"] == ["7", "8"], "before the third"


@pytest.mark.parametrize(
    ("squeue", "still"),
    [
        ("echo '8 cdllm-random'; echo '8 cdllm-random'; echo '9 cdllm-random'", "Slurm still has job 8 and job 9 for"),
        ("echo '8 somebody else'", None),
        ("echo 'slurm_load_jobs error: Invalid job id specified' >&2; exit 1", None),
        ("echo", None),
    ],
)
def test_jobs_that_are_not_over(tasks, programs, squeue, still):
    programs(scontrol=CONFIG, sbatch=SUBMIT, squeue=squeue)
    require_no_job(tasks.folder)
    submit(tasks)
    if still is None:
        require_no_job(tasks.folder)
        return
    with pytest.raises(OutputError, match=f"{still}.*queued or running.*scancel 8 9.*--submit-anyway"):
        require_no_job(tasks.folder)


def test_queue_that_does_not_answer(tasks, programs):
    programs(scontrol=CONFIG, sbatch=SUBMIT, squeue="exit 3")
    submit(tasks)
    with pytest.raises(DataError, match=r"squeue .* failed"):
        require_no_job(tasks.folder)


def test_the_number_of_a_job_is_kept_for_people_too(tasks, programs):
    programs(scontrol=CONFIG, sbatch=SUBMIT)
    submit(tasks)
    assert json.loads((tasks.logs / "slurm.json").read_text()) == {"name": "cdllm-random", "jobs": ["7", "8", "9"]}
