import errno
import itertools
import json
import re
import shutil
import threading
from dataclasses import asdict
from types import SimpleNamespace

import pytest
import torch
import yaml
from safetensors.torch import load_file

from cascaded_dllm.errors import CheckpointError, NonFiniteError, OutputError
from cascaded_dllm.model import integrity
from cascaded_dllm.model.integrity import CHECKSUMS, newest_complete, write_checksums
from cascaded_dllm.model.pretrained import load_stage
from cascaded_dllm.train import deletion
from cascaded_dllm.train import run as run_module
from cascaded_dllm.train import trainer as trainer_module
from cascaded_dllm.train.execution import Execution
from cascaded_dllm.train.optim import OptimConfig
from cascaded_dllm.train.readings import Readings
from cascaded_dllm.train.run_events import Evaluation, NotDeleted, Resumed, Snapshot, Stopped
from cascaded_dllm.train.snapshot import SnapshotReport
from cascaded_dllm.train.trainer import StepResult
from tests.unit.train.in_processes import stop_after

MEASURED = ("seconds", "tokens_per_second", "peak_memory_bytes", "mfu")
"""Keys of a line of metrics that depend on the machine."""
NETWORKS = {
    "copy head": {"parameterization": "normalized", "copy_head": True},
    "normalized-one_way": {"parameterization": "normalized", "prefix_attention": "one_way", "time_conditioning": False},
    "score-joint-dropout": {"parameterization": "score", "prefix_attention": "joint", "dropout": 0.1},
}


def metrics(run):
    """The lines of metrics.jsonl without the numbers that differ between equal runs."""
    lines = [json.loads(line) for line in (run.folder / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key not in MEASURED} for line in lines]


def assert_same_state(first, second):
    assert first.keys() == second.keys()
    for key, value in first.items():
        if isinstance(value, dict):
            assert_same_state(value, second[key])
        elif isinstance(value, torch.Tensor):
            assert torch.equal(value, second[key]), key
        else:
            assert value == second[key], key


def assert_same_checkpoint(*runs):
    """The checkpoints of two runs after six steps, bit for bit."""
    folders = [run.checkpoints / "step_6" for run in runs]
    for name in ("model.safetensors", "ema.safetensors"):
        assert (folders[0] / name).read_bytes() == (folders[1] / name).read_bytes()
    assert_same_state(*(torch.load(folder / "trainer.pt", weights_only=True) for folder in folders))


@pytest.fixture
def damage():
    def flip(run, step):
        path = run.checkpoints / f"step_{step}" / "model.safetensors"
        path.write_bytes(path.read_bytes()[:-1] + b"?")

    return flip


def test_events_and_files(make_run):
    run = make_run()
    events = list(run.events())
    kinds = "".join(type(event).__name__[0] for event in events)
    # S for a step or its snapshot, E for a bound every second step and at the end.
    assert kinds == "SSSES" * 3
    assert [event.step for event in events if isinstance(event, StepResult)] == [1, 2, 3, 4, 5, 6]
    assert sorted(path.name for path in run.folder.iterdir()) == [
        "checkpoints",
        "config.yaml",
        "metrics.jsonl",
        "provenance.json",
        "samples",
    ]
    assert yaml.safe_load((run.folder / "config.yaml").read_text()) == {"some": "settings"}
    assert sorted(path.name for path in run.checkpoints.iterdir()) == ["latest", "step_4", "step_5", "step_6"]
    for step in range(1, 7):
        text = (run.folder / "samples" / f"step_{step}.txt").read_text()
        assert text == run.sample(step).listing()
        assert f"[stage 2] a text\n[truth] the truth\n{'=' * 80}\n" in text
        stored = json.loads((run.folder / "samples" / f"step_{step}.json").read_text())
        assert stored == json.loads(json.dumps(asdict(run.sample(step))))
    snapshots = [event for event in events if isinstance(event, Snapshot)]
    files = (run.checkpoints / "step_6", run.folder / "samples" / "step_6.txt")
    assert snapshots[-1] == Snapshot(6, *files, run.sample(6))
    assert load_stage(run.folder).settings == run.settings.at_step(6)


def test_metrics_are_the_events(make_run):
    run = make_run()
    expected = []
    for event in run.events():
        if isinstance(event, StepResult):
            fields = ("step", "loss_nats_per_token", "grad_norm", "lr", "tokens")
            line = {name: getattr(event, name) for name in fields}
            # Batches of 8 sequences of 3 + 7 tokens.
            expected.append(line | {"token_forwards": 80 * event.step})
        elif isinstance(event, Evaluation):
            expected.append(
                {
                    "step": event.step,
                    "bound_nats_per_token": event.bound_nats_per_token,
                    "standard_error": event.standard_error,
                    "omitted_nats_per_token_at_most": 0.5,
                    "num_windows": 6,
                    "num_windows_in_set": 20,
                    "num_windows_dropped": 2,
                }
            )
        elif isinstance(event, Snapshot):
            # Written before the event, which tells that the checkpoint is there.
            expected.append({"step": event.step, "conditional/multiset_overlap_mean_stage1_in_stage2": 0.5})
    assert metrics(run) == expected
    assert len(expected) == 15


def test_the_peak_of_memory_begins_with_the_run(make_run, monkeypatch):
    """Else the lines of a run would have the peak of another one, which the same process trained before."""
    begun = []
    monkeypatch.setattr(run_module, "forget_peak_memory", begun.append)
    run = make_run()
    next(run.events())
    assert begun == [run.trainer.device]


def test_periods(make_run, make_trainer):
    """Whatever the periods, the last step is logged, measured and kept."""
    run = make_run(trainer=make_trainer(num_steps=7), log_every=3, eval_every=5, snapshot_every=4, sample=None, keep=5)
    events = list(run.events())
    assert [line["step"] for line in metrics(run) if "lr" in line] == [3, 6, 7]
    assert [event.step for event in events if isinstance(event, Evaluation)] == [5, 7]
    assert [(event.step, event.samples) for event in events if isinstance(event, Snapshot)] == [(4, None), (7, None)]
    assert not (run.folder / "samples").exists()


class SlowDevice:
    """A second of it a step, of which the host feels nothing until it reads a number; nothing else takes time."""

    def __init__(self, monkeypatch):
        self.now, read = 0.0, Readings.read

        def waiting_read(readings):
            self.now += len(readings._unread)
            return read(readings)

        monkeypatch.setattr(Readings, "read", waiting_read)
        monkeypatch.setattr(trainer_module, "time", SimpleNamespace(perf_counter=lambda: self.now))


@pytest.mark.parametrize(
    "others", [{"eval_every": 15, "snapshot_every": 100}, {"eval_every": 100, "snapshot_every": 7}]
)
def test_speed_where_numbers_are_needed_between_lines(make_run, make_trainer, monkeypatch, others):
    """Bounds and checkpoints wait for steps that are done; the time is that of training all the same."""
    SlowDevice(monkeypatch)
    trainer = make_trainer(num_steps=30)
    trainer.execution = Execution(read_every=10)
    run = make_run(trainer=trainer, log_every=10, sample=None, peak_flops=1e9, **others)
    seconds = sum(event.seconds for event in run.events() if isinstance(event, StepResult))
    lines = [json.loads(line) for line in (run.folder / "metrics.jsonl").read_text().splitlines()]
    lines = [line for line in lines if "lr" in line]
    # 8 sequences of 7 tokens a second.
    assert [(line["step"], line["tokens_per_second"]) for line in lines] == [(10, 56), (20, 56), (30, 56)]
    assert len({line["mfu"] for line in lines}) == 1
    assert seconds == 30


@pytest.mark.parametrize("read_every", [1, 5])
@pytest.mark.parametrize("stop_at", [None, 4, 7])
def test_logged_loss_is_the_mean_since_the_last_line(make_run, make_trainer, read_every, stop_at):
    """Also where a bound or a checkpoint reads the numbers in between, and where the run goes on between two lines."""
    every = list(make_trainer(num_steps=12).steps())
    expected = [
        (last, sum(result.loss_nats_per_token for result in every[first:last]) / (last - first))
        for first, last in ((0, 5), (5, 10), (10, 12))
    ]

    def run():
        trainer = make_trainer(num_steps=12)
        trainer.execution = Execution(read_every=read_every)
        return make_run(trainer=trainer, log_every=5, eval_every=3, snapshot_every=4)

    if stop_at is not None:
        first = run()
        list(first.events(should_stop=lambda: first.trainer.step == stop_at))
        assert len(first.trainer.losses) == {4: 4, 7: 2}[stop_at]
    last = run()
    list(last.events())
    lines = [(line["step"], line["loss_nats_per_token"]) for line in metrics(last) if "lr" in line]
    assert lines == [(step, pytest.approx(loss, rel=1e-6)) for step, loss in expected]


def test_killed_between_two_lines(make_run, make_trainer):
    """The steps after the last checkpoint are done again, and the line is that of an unbroken run."""
    unbroken, first, second = (
        make_run(trainer=make_trainer(), name=name, log_every=4, snapshot_every=3) for name in ("whole", "run", "run")
    )
    list(unbroken.events())
    stop_after(first, 3)
    list(second.events())
    assert metrics(second) == metrics(unbroken)


def test_checkpoint_from_before_losses_were_kept(make_run):
    """The next line is the mean of what has been done since."""
    stop_after(make_run(log_every=4), 3)
    path = (make_run().checkpoints / "step_3" / "trainer.pt").resolve()
    state = torch.load(path, weights_only=True)
    assert len(state.pop("losses")) == 3
    torch.save(state, path)
    (path.parent / CHECKSUMS).unlink()
    write_checksums(path.parent)
    run = make_run(log_every=4)
    losses = {event.step: event.loss_nats_per_token for event in run.events() if isinstance(event, StepResult)}
    assert list(losses) == [4, 5, 6]
    assert next(line["loss_nats_per_token"] for line in metrics(run) if "lr" in line) == losses[4]


def test_without_validation_data(make_run):
    run = make_run(measure=None)
    assert not any(isinstance(event, Evaluation) for event in run.events())
    assert not any("bound_nats_per_token" in line for line in metrics(run))


def test_bound_of_one_window_has_no_error(make_run, make_trainer):
    run = make_run(trainer=make_trainer(num_steps=1), eval_windows=1)
    (evaluation,) = [event for event in run.events() if isinstance(event, Evaluation)]
    assert evaluation.num_windows == 1
    assert evaluation.standard_error is None


def test_bound_and_samples_are_those_of_the_average(make_run, make_trainer):
    trainer = make_trainer(num_steps=2)
    seen = []

    def sample(step, go_on):
        seen.append(trainer.model.output_layer.linear.weight.clone())
        return SnapshotReport(step=step, groups={})

    run = make_run(trainer=trainer, sample=sample)
    list(run.events())
    assert torch.equal(seen[-1], trainer.ema.state_dict()["output_layer.linear.weight"])
    own = trainer.model.output_layer.linear.weight
    assert not torch.equal(seen[-1], own)
    stored = {name: load_file(run.checkpoints / "latest" / f"{name}.safetensors") for name in ("model", "ema")}
    assert torch.equal(stored["ema"]["output_layer.linear.weight"], seen[-1])
    assert torch.equal(stored["model"]["output_layer.linear.weight"], own)


CHANGED = {"noise_prob": 0.3, "noise_kind": "mask", "dropout": 0.3}


@pytest.mark.parametrize(
    "prefix", [pytest.param({}, marks=pytest.mark.slow), CHANGED], ids=["true prefixes", "changed prefixes"]
)
@pytest.mark.parametrize("network", NETWORKS)
def test_six_steps_are_three_and_three(make_run, make_trainer, network, prefix):
    """Bit for bit: weights, average, optimizer and metrics."""

    def trainer():
        return make_trainer(model=NETWORKS[network], accum=2, prefix=prefix)

    unbroken, first, second = (make_run(trainer=trainer(), name=name) for name in ("whole", "broken", "broken"))
    list(unbroken.events())
    stop_after(first, 3)
    events = list(second.events())
    assert events[0] == Resumed(3, [])
    assert [event.step for event in events if isinstance(event, StepResult)] == [4, 5, 6]
    states = [run.trainer.state() for run in (unbroken, second)]
    assert_same_state(states[0].optimizer, states[1].optimizer)
    assert states[0].ema_updates == states[1].ema_updates == 6
    assert_same_state(unbroken.trainer.model.state_dict(), second.trainer.model.state_dict())
    assert metrics(unbroken) == metrics(second)
    assert_same_checkpoint(unbroken, second)


@pytest.mark.parametrize("network", NETWORKS)
def test_a_finished_run_is_made_longer(make_run, make_trainer, network):
    """Bit for bit a run that was planned so long, as the learning rate is constant."""
    unbroken, first, second = (
        make_run(trainer=make_trainer(model=NETWORKS[network], num_steps=num_steps), name=name)
        for name, num_steps in (("whole", 6), ("longer", 3), ("longer", 6))
    )
    list(unbroken.events())
    list(first.events())
    assert [event.step for event in second.events() if isinstance(event, StepResult)] == [4, 5, 6]
    assert_same_checkpoint(unbroken, second)
    # What is measured at the end of a run is measured at the former end as well.
    steps = [[line for line in metrics(run) if "lr" in line] for run in (unbroken, second)]
    assert steps[0] == steps[1]


def test_a_cosine_is_not_made_longer(make_run, make_trainer):
    first, second = (
        make_run(trainer=make_trainer(optim=OptimConfig(lr=1e-2, warmup=1, decay="cosine"), num_steps=num_steps))
        for num_steps in (3, 6)
    )
    list(first.events())
    with pytest.raises(CheckpointError, match=r"training\.num_steps was 3 and is 6: with optim\.decay=cosine"):
        list(second.events())


def test_killed_writes_go_when_a_run_starts(make_run):
    """Those of a step that is never written again, of another machine, of other processes: the lock says they ended."""
    stop_after(make_run(), 2)
    run = make_run()
    for name in ("step_73@another-host-1-0123abcd", "optimizer-73", "latest@another-host-1-0123abcd"):
        shutil.copytree(run.checkpoints / "step_2", run.checkpoints / f".incomplete-{name}")
    shutil.copytree(run.checkpoints / "step_2", run.checkpoints / ".deleted-step_1-0123abcd")
    assert next(run.events()) == Resumed(2, [])
    assert sorted(path.name for path in run.checkpoints.iterdir()) == ["latest", "step_1", "step_2"]


def test_killed_write_that_cannot_be_deleted(make_run, monkeypatch):
    """The run goes on, and says so."""
    stop_after(make_run(), 2)
    run = make_run()
    shutil.copytree(run.checkpoints / "step_2", run.checkpoints / ".incomplete-step_73@another-host-1-0123abcd")

    def busy(folder, ignore_errors=False):
        if not ignore_errors:
            raise OSError(errno.EBUSY, "Device or resource busy")

    with monkeypatch.context() as patched:
        patched.setattr(deletion.shutil, "rmtree", busy)
        events = list(run.events())
    (told,) = [event for event in events if isinstance(event, NotDeleted)]
    assert re.search(r"step_73@another-host-\S+ cannot be deleted \(Device or resource busy\)", told.fault)


@pytest.mark.parametrize("stop_at", [1, 2, 3, 4, 6])
def test_a_run_that_is_asked_to_stop_keeps_its_last_step(make_run, stop_at):
    """At any step: between checkpoints, at one, at a bound; what comes of it equals an unbroken run."""
    periods = {"snapshot_every": 4, "eval_every": 2, "keep": 9}
    unbroken, first, second = (make_run(name=name, **periods) for name in ("whole", "run", "run"))
    list(unbroken.events())
    events = list(first.events(should_stop=lambda: first.trainer.step == stop_at))
    # What is due at the step is left to the next start: a batch system does not wait for it.
    left_out = ("bound",) * (stop_at in (2, 4, 6)) + ("samples",) * (stop_at in (4, 6))
    checkpoint = first.checkpoints / f"step_{stop_at}"
    assert events[-2:] == [Snapshot(stop_at, checkpoint, None), Stopped(stop_at, checkpoint, left_out)]
    assert newest_complete(first.checkpoints) == (checkpoint, [])
    assert (stop_at, "bound_nats_per_token") not in [(line["step"], list(line)[1]) for line in metrics(first)]
    assert next(second.events()) == Resumed(stop_at, [])
    assert_equal_in_the_end(second, unbroken)


def test_a_run_that_is_asked_to_stop_while_a_first_batch_is_tried(make_run):
    """No step is made, which may take as long again; there is nothing to keep, or what was kept stands."""
    run = make_run()
    assert list(run.events(should_stop=lambda: True)) == [Stopped(0, None, ("bound",))]
    list(run.events(should_stop=lambda: run.trainer.step == 2))
    again = make_run()
    assert list(again.events(should_stop=lambda: True)) == [
        Resumed(2, []),
        Stopped(2, run.checkpoints / "step_2", ("bound", "samples")),
    ]


@pytest.mark.parametrize("num_bytes", [0, 5])
def test_killed_between_the_samples_and_their_line_of_metrics(make_run, num_bytes):
    """The samples are drawn again, though their file is there, so that metrics.jsonl lacks no line."""
    unbroken, first, second = (make_run(name=name, snapshot_every=4) for name in ("whole", "run", "run"))
    list(unbroken.events())
    list(first.events())
    path = first.folder / "metrics.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:-1]) + lines[-1][:num_bytes])
    assert_equal_in_the_end(second, unbroken)


def assert_equal_in_the_end(run, unbroken):
    """Once it has gone on: weights, lines of metrics, and which samples there are."""
    assert not any(isinstance(event, Stopped) for event in run.events())
    ends = [folder.checkpoints / "step_6" / "model.safetensors" for folder in (unbroken, run)]
    assert ends[0].read_bytes() == ends[1].read_bytes()
    assert metrics(run) == metrics(unbroken)
    names = [sorted(path.name for path in (each.folder / "samples").iterdir()) for each in (unbroken, run)]
    assert names[0] == names[1]


@pytest.mark.parametrize("step", [2, 6])
def test_stopped_while_a_bound_is_measured(make_run, step):
    """Between two batches of it, also where the next start is stopped in the same bound again."""
    unbroken, first, second = (make_run(name=name, snapshot_every=4) for name in ("whole", "run", "run"))
    list(unbroken.events())
    for run in (first, second):
        told = []
        events = list(
            run.events(
                should_stop=lambda run=run, told=told: run.trainer.step == step and bool(told),
                on_measured=lambda done, total, run=run, told=told: run.trainer.step == step and told.append(done),
            )
        )
        # The first of two batches: four windows of six.
        assert told == [4]
        left_out = ("bound", "samples") if step == 6 else ("bound",)
        assert events[-1] == Stopped(step, run.checkpoints / f"step_{step}", left_out)
    assert [event for event in events if isinstance(event, StepResult)] == []
    assert_equal_in_the_end(make_run(name="run", snapshot_every=4), unbroken)


def test_bound_before_the_first_step(make_run):
    """Of the weights that a run begins with, once: a run that goes on does not measure them again."""
    run = make_run(measures_start=True, snapshot_every=4)
    with run.trainer.averaged_weights():
        expected = run.measure(None).nll_nats.mean() / 7
    events = list(run.events(should_stop=lambda: run.trainer.step == 3))
    assert isinstance(events[0], Evaluation)
    assert (events[0].step, events[0].bound_nats_per_token) == (0, pytest.approx(float(expected)))
    assert [event.step for event in events if isinstance(event, Evaluation)] == [0, 2]
    last = make_run(measures_start=True, snapshot_every=4)
    assert [event.step for event in last.events() if isinstance(event, Evaluation)] == [4, 6]
    assert [line["step"] for line in metrics(last) if "bound_nats_per_token" in line] == [0, 2, 4, 6]
    assert not make_run().measures_start


def test_stopped_before_the_first_step(make_run):
    """In the bound of the weights that it begins with: there is nothing to keep, and the next start begins again."""
    told = []
    run = make_run(measures_start=True)
    events = list(run.events(should_stop=lambda: bool(told), on_measured=lambda done, total: told.append(done)))
    assert events == [Stopped(0, None, ("bound",))]
    assert told == [4]
    assert not run.checkpoints.exists()
    unbroken = make_run(name="whole", measures_start=True)
    list(unbroken.events())
    assert_equal_in_the_end(make_run(measures_start=True), unbroken)


def test_stopped_at_the_end_of_a_bound(make_run):
    """One that is all measured is kept."""
    told = []
    run = make_run(sample=None)
    events = list(run.events(should_stop=lambda: told[-1:] == [6], on_measured=lambda done, total: told.append(done)))
    assert told == [4, 6]
    assert isinstance(events[-3], Evaluation)
    assert events[-1] == Stopped(2, run.checkpoints / "step_2", ())


@pytest.mark.parametrize("step", [3, 6])
def test_stopped_while_samples_are_drawn(make_run, step):
    is_asked, calls = [], []

    def sample(number, go_on):
        if number == step and not is_asked:
            go_on()
            is_asked.append(True)
            calls.append(number)
            go_on()
            calls.append("never")
        return SnapshotReport(step=number, groups={})

    def none(number, go_on):
        return SnapshotReport(step=number, groups={})

    unbroken = make_run(name="whole", sample=none)
    list(unbroken.events())
    first = make_run(sample=sample)
    events = list(first.events(should_stop=lambda: bool(is_asked)))
    assert calls == [step]
    checkpoint = first.checkpoints / f"step_{step}"
    assert events[-2:] == [Snapshot(step, checkpoint, None), Stopped(step, checkpoint, ("samples",))]
    assert_equal_in_the_end(make_run(sample=sample), unbroken)


def test_progress_of_a_measurement(make_run, make_trainer):
    told = []
    run = make_run(trainer=make_trainer(num_steps=2))
    list(run.events(on_measured=lambda done, total: told.append((done, total))))
    assert told == [(4, 6), (6, 6)]


def test_training_goes_on_while_a_checkpoint_is_written(make_run, monkeypatch):
    """The write of step 1 waits for step 2 to be done: what it writes is what was there at step 1 all the same."""
    reference, run = make_run(name="reference"), make_run(name="run")
    stop_after(reference, 1)
    is_later, save = threading.Event(), run_module.save_checkpoint
    monkeypatch.setattr(run_module, "save_checkpoint", lambda *a, **o: is_later.wait(60) and save(*a, **o))
    for event in run.events():
        if isinstance(event, StepResult) and event.step == 2:
            is_later.set()
            break
    assert is_later.is_set()
    for name in ("model.safetensors", "ema.safetensors", "trainer.pt"):
        written = [folder.checkpoints / "step_1" / name for folder in (reference, run)]
        assert written[0].read_bytes() == written[1].read_bytes()


@pytest.mark.parametrize("at_the_end", [False, True])
def test_error_of_the_writer_is_not_lost(make_run, monkeypatch, at_the_end):
    """It ends the run at the next step, or when the run ends; the checkpoint before stands."""
    run = make_run(trainer=None, snapshot_every=2)
    save = run_module.save_checkpoint

    def fail(*arguments, content, **options):
        if content.state.step == (6 if at_the_end else 4):
            raise OutputError("step_n cannot be written (No space left on device)")
        return save(*arguments, content=content, **options)

    monkeypatch.setattr(run_module, "save_checkpoint", fail)
    done = []
    with pytest.raises(OutputError, match="No space left on device"):
        done.extend(event.step for event in run.events() if isinstance(event, StepResult))
    assert newest_complete(run.checkpoints)[0].name == ("step_4" if at_the_end else "step_2")
    monkeypatch.setattr(run_module, "save_checkpoint", save)
    assert next(make_run().events()) == Resumed(4 if at_the_end else 2, [])


def test_old_checkpoint_that_cannot_be_deleted(make_run, monkeypatch):
    """The run ends well, and says it once, also where it happens at the very end."""

    def busy(folder, ignore_errors=False):
        if not ignore_errors:
            raise OSError(errno.EBUSY, "Device or resource busy")

    with monkeypatch.context() as patched:
        patched.setattr(deletion.shutil, "rmtree", busy)
        run, late = make_run(name="run", keep=2), make_run(name="late", keep=5)
        faults = [[event for event in each.events() if isinstance(event, NotDeleted)] for each in (run, late)]
    for told, each in zip(faults, (run, late), strict=True):
        (event,) = told
        assert re.fullmatch(
            rf"{each.checkpoints}/\.deleted-step_1-[0-9a-f]{{8}} cannot be deleted \(Device or resource busy\)",
            event.fault,
        )
    assert faults[1][0].step == 6
    assert newest_complete(run.checkpoints) == (run.checkpoints / "step_6", [])


def test_parts_that_cannot_be_written(make_run, monkeypatch):
    run = make_run()

    def fail(parts, folder):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(run.trainer.parallel.storage, "write_parts", fail)
    with pytest.raises(OutputError, match=r"optimizer-1 cannot be written \(No space .*\); make room"):
        list(run.events())


def test_a_finished_run_does_nothing(make_run):
    first, second = make_run(), make_run()
    list(first.events())
    before = metrics(first)
    assert list(second.events()) == [Resumed(6, [])]
    assert metrics(second) == before


@pytest.mark.parametrize("num_damaged", [1, 2])
def test_damaged_checkpoints_are_passed_over(make_run, damage, num_damaged):
    """The run goes on from the one before, says so, and ends as if nothing had been damaged."""
    unbroken, first, second, third = (make_run(name=name) for name in ("whole", "run", "run", "run"))
    list(unbroken.events())
    stop_after(first, 5)
    newest = [5, 4][:num_damaged]
    for step in newest:
        damage(first, step)
    events = list(second.events())
    assert events[0].step == 5 - num_damaged
    for step, fault in zip(newest, events[0].faults, strict=True):
        assert f"step_{step}: model.safetensors does not have its recorded checksum" in fault
    assert metrics(second) == metrics(unbroken)
    ends = [run.checkpoints / "latest" / "model.safetensors" for run in (unbroken, second)]
    assert ends[0].read_bytes() == ends[1].read_bytes()
    assert list(third.events()) == [Resumed(6, [])], "the damaged ones were written again"


def test_all_damaged(make_run, damage):
    run = make_run()
    stop_after(run, 2)
    for step in (1, 2):
        damage(run, step)
    before = (run.folder / "metrics.jsonl").read_text()
    with pytest.raises(CheckpointError, match=r"no checkpoint in .* is complete \(.*step_2: mo.*; .*step_1: mo"):
        list(make_run().events())
    assert (run.folder / "metrics.jsonl").read_text() == before


def test_other_settings_are_refused(make_run, make_trainer):
    stop_after(make_run(), 2)
    other = make_run(trainer=make_trainer(course={"some.key": "changed"}), config={"some": "other settings"})
    with pytest.raises(
        CheckpointError, match=r"some\.key was the same and is changed; give the settings of the run's config\.yaml, or"
    ):
        list(other.events())
    assert yaml.safe_load((other.folder / "config.yaml").read_text()) == {"some": "settings"}


def test_another_network_is_refused(make_run, make_trainer):
    stop_after(make_run(), 2)
    other = make_run(trainer=make_trainer(model={"num_blocks": 2}))
    with pytest.raises(CheckpointError, match=r"do not fit the network: missing blocks\.1"):
        list(other.events())


def test_settings_that_may_change_are_stored(make_run):
    stop_after(make_run(), 2)
    list(make_run(config={"some": "other periods"}).events())
    assert yaml.safe_load((make_run().folder / "config.yaml").read_text()) == {"some": "other periods"}


@pytest.mark.parametrize("cut", ["", '{"step": 4, "loss_na', '{"step": 4}'])
def test_metrics_after_resuming_have_every_step_once(make_run, cut):
    """The process died after steps 4 and 5, of which no checkpoint remains, and in the middle of a line."""
    unbroken, first, second = (make_run(name=name) for name in ("whole", "run", "run"))
    list(unbroken.events())
    stop_after(first, 5)
    for step in (4, 5):
        shutil.rmtree(first.checkpoints / f"step_{step}")
    with (first.folder / "metrics.jsonl").open("a") as file:
        file.write(cut)
    assert next(second.events()) == Resumed(3, [])
    list(make_run().events())
    assert metrics(second) == metrics(unbroken)


def test_metrics_that_are_none(make_run):
    run = make_run()
    stop_after(run, 2)
    path = run.folder / "metrics.jsonl"
    path.write_text(path.read_text() + "edited by hand\n")
    with pytest.raises(CheckpointError, match=r"metrics\.jsonl line 6 is not a line of metrics .*; remove the line"):
        list(make_run().events())


def test_missing_metrics_are_begun_anew(make_run):
    stop_after(make_run(), 2)
    run = make_run()
    (run.folder / "metrics.jsonl").unlink()
    list(run.events())
    assert [line["step"] for line in metrics(run) if "lr" in line] == [3, 4, 5, 6]


def test_a_run_without_a_checkpoint_starts_again(make_run):
    """With the settings of now; the metrics of before lie beside its own, however often that happens."""
    first = make_run(snapshot_every=100)
    for _ in itertools.islice(first.events(), 3):
        pass
    assert len(metrics(first)) == 3
    second = make_run(config={"some": "other settings"})
    events = list(second.events())
    assert not any(isinstance(event, Resumed) for event in events)
    assert [line["step"] for line in metrics(second) if "lr" in line] == [1, 2, 3, 4, 5, 6]
    assert yaml.safe_load((second.folder / "config.yaml").read_text()) == {"some": "other settings"}
    before = second.folder / "metrics_before_1.jsonl"
    assert [json.loads(line)["step"] for line in before.read_text().splitlines()] == [1, 2, 2]
    shutil.rmtree(second.checkpoints)
    list(make_run().events())
    assert len((second.folder / "metrics_before_2.jsonl").read_text().splitlines()) > 3
    assert before.is_file()


@pytest.mark.parametrize("broken", [3, 6])
def test_checkpoint_is_kept_when_samples_cannot_be_drawn(make_run, broken):
    """The stages before may be somebody else's, and a judge may not fit; what is missing is drawn by the next start."""
    asked = []

    def sample(step, go_on):
        asked.append(step)
        if asked.count(broken) == 1 and step == broken:
            raise CheckpointError("the stage before is gone")
        return SnapshotReport(step=step, groups={})

    with pytest.raises(CheckpointError, match="the stage before is gone"):
        list(make_run(sample=sample).events())
    run = make_run(sample=sample)
    first, second, *rest = run.events()
    assert first == Resumed(broken, [])
    assert isinstance(second, Snapshot)
    assert (second.step, second.checkpoint) == (broken, run.checkpoints / f"step_{broken}")
    assert asked == [*range(1, broken + 1), *range(broken, 7)]
    assert sorted(path.name for path in (run.folder / "samples").glob("*.json")) == [
        f"step_{step}.json" for step in range(1, 7)
    ]
    assert [event.step for event in rest if isinstance(event, Snapshot)] == list(range(broken + 1, 7))


def test_checkpoint_that_goes_while_it_is_looked_at_is_not_damaged(make_run, monkeypatch):
    """As where a run at work removes its old ones; one that stays and lacks a file is."""
    run = make_run()
    list(run.events())
    newest, before = run.checkpoints / "step_6", run.checkpoints / "step_5"
    look = integrity.file_sha256

    def look_too_late(path):
        if newest in path.parents:
            shutil.rmtree(newest)
            raise FileNotFoundError(path)
        return look(path)

    with monkeypatch.context() as patch:
        patch.setattr(integrity, "file_sha256", look_too_late)
        assert newest_complete(run.checkpoints) == (before, [])
    (before / "ema.safetensors").unlink()
    found, faults = newest_complete(run.checkpoints)
    assert (found, faults) == (run.checkpoints / "step_4", [f"{before}: ema.safetensors is missing"])


def test_last_checkpoint_stands_when_training_breaks_down(make_run):
    run = make_run()
    events = run.events()
    while not isinstance(next(events), Snapshot):
        pass
    with torch.no_grad():
        run.trainer.model.output_layer.linear.bias[0] = float("nan")
    with pytest.raises(NonFiniteError, match="the loss is nan at step 2"):
        list(events)
    assert {line["step"] for line in metrics(run)} == {1}
    assert next(make_run().events()) == Resumed(1, [])


@pytest.mark.parametrize("where", ["run/thesis.tex", "run"])
def test_folder_of_something_else(make_run, tmp_path, where):
    path = tmp_path / where
    path.parent.mkdir(exist_ok=True)
    path.write_text("three years of work")
    with pytest.raises(OutputError, match="run exists and is not a run folder; name an empty or a new one with --out"):
        list(make_run().events())
    assert path.read_text() == "three years of work"
    assert not (tmp_path / "run" / "config.yaml").exists()


def test_folder_that_cannot_be_made(make_run, tmp_path):
    (tmp_path / "file").write_text("a file")
    with pytest.raises(OutputError, match=r"file/run cannot be written \(Not a directory\); use --out"):
        list(make_run(name="file/run").events())


def test_folder_of_a_run_that_was_killed_at_its_start(make_run, tmp_path):
    """It was making config.yaml; nothing else is there, so the run simply starts."""
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / ".incomplete-config.yaml@elsewhere-1-0123abcd").write_text("")
    run = make_run()
    assert next(run.events()).step == 1
