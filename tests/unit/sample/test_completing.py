"""Texts that are missing are drawn, and a batch for which there is no room is told with the size that has it."""

import os
import weakref
from types import SimpleNamespace

import pytest
import torch

from cascaded_dllm.errors import BatchTooLargeError, CheckpointError
from cascaded_dllm.sample import completing
from cascaded_dllm.sample.completing import draw_missing
from cascaded_dllm.sample.drawing import Drawing
from cascaded_dllm.sample.output import SampleRun
from cascaded_dllm.sample.settings import RunSettings, SampleSettings

CPU = "[enforce fail at x.cpp:1] DefaultCPUAllocator: can't allocate memory: you tried to allocate {} bytes. Error"


@pytest.fixture
def run(drawn_from, tmp_path):
    """A run of 9 texts."""
    texts = SampleSettings.of(drawn_from, Drawing(seed=3), ["somebody/stage1", tmp_path / "stage2"])
    return SampleRun.begin(tmp_path, RunSettings(num_samples=9, batch_size=4, device="cpu", judge=None, texts=texts))


def draw(run, cascade, *, batch_size=4, on_state=lambda state: None, should_stop=lambda: False):
    told = []
    progress = draw_missing(
        run,
        cascade,
        batch_size=batch_size,
        on_progress=lambda *now: told.append(now),
        on_state=on_state,
        should_stop=should_stop,
    )
    return progress, told


def test_all_at_once(run, drawn_from):
    progress, told = draw(run, drawn_from)
    assert (progress.num_finished, progress.devices) == (9, ("cpu",))
    assert told[-1] == (18, 18)
    expected = drawn_from.generate(9, seed=3)
    assert [ids.tolist() for ids in run.samples().ids] == [ids.tolist() for ids in expected.ids]
    assert run.samples().texts == expected.texts
    assert [calls / 9 for calls in progress.calls_per_stage] == list(expected.nfe)
    assert progress.token_forwards == expected.token_forwards


def test_stopped_and_taken_up_with_other_batches(run, drawn_from):
    """Between two batches of which the second is lost, and again, with another size each time."""
    calls = []

    def should_stop():
        calls.append(1)
        return len(calls) > 13  # a batch takes 11 steps and states

    assert draw(run, drawn_from, should_stop=should_stop)[0].num_finished == 4
    calls.clear()
    assert draw(run, drawn_from, batch_size=1, should_stop=should_stop)[0].num_finished == 5
    progress, told = draw(run, drawn_from, batch_size=3)
    assert (told[0], told[-1]) == ((10, 18), (18, 18))
    expected = drawn_from.generate(9, seed=3)
    assert run.samples().texts == expected.texts
    assert progress.token_forwards == expected.token_forwards
    assert draw(run, drawn_from) == (progress, [])


def test_who_looks_takes_no_time_of_sampling(run, drawn_from, monkeypatch):
    """On a clock that goes on while a text is looked at, by a second, and when stage 1 begins, by a minute."""
    now, states = [0.0], type(drawn_from.stages[0]).states

    def look(state):
        now[0] += 1.0

    def slow_states(self, *arguments, **settings):
        now[0] += 60.0 * (self is drawn_from.stages[0])
        return states(self, *arguments, **settings)

    monkeypatch.setattr(type(drawn_from.stages[0]), "states", slow_states)
    monkeypatch.setattr(completing, "time", SimpleNamespace(perf_counter=lambda: now[0]))
    progress, _ = draw(run, drawn_from, on_state=look)
    assert now[0] > 3 * 60 + 20, "three batches"
    assert progress.seconds == 3 * 60


class Memory:
    """That of a device which has room for a network call of so many texts."""

    def __init__(self, cascade, monkeypatch, *, room, error):
        self.sizes, self.kept = [], []
        for stage in cascade.stages:
            monkeypatch.setattr(stage.model, "states", self.limited(stage.model.states, room, error))

    def limited(self, states, room, error):
        def call(xt, *given, **more):
            self.sizes.append(len(xt))
            if len(xt) > room:
                big = torch.zeros(3)
                self.kept.append(weakref.ref(big))
                raise type(error)(*error.args)
            # What a batch that failed had on the device is free before another size is tried.
            assert all(found() is None for found in self.kept)
            return states(xt, *given, **more)

        return call


@pytest.mark.parametrize(("room", "remedy"), [(3, "--batch-size 2 fits, go on"), (1, "--batch-size 1 fits, go on")])
def test_device_that_is_short_of_memory(run, drawn_from, monkeypatch, room, remedy):
    """The texts before are kept, and every stage has tried the size that is named."""
    draw(run, drawn_from, batch_size=1, should_stop=iter([False] * 11 + [True] * 9).__next__)
    memory = Memory(drawn_from, monkeypatch, room=room, error=torch.OutOfMemoryError("CUDA out of memory. Tried"))
    with pytest.raises(
        BatchTooLargeError,
        match=rf"no room for the batch in the memory of cpu \(CUDA out of memory\); 1 of 9 texts are kept: {remedy}, "
        rf"with cdllm sample --resume {run.folder}",
    ):
        draw(run, drawn_from, batch_size=5)
    assert memory.sizes == {3: [5, 2, 2], 1: [5, 2, 1, 1]}[room]
    assert draw(run, drawn_from, batch_size=room)[0].num_finished == 9


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory. "), MemoryError()])
def test_not_even_one_text_fits(run, drawn_from, monkeypatch, error):
    Memory(drawn_from, monkeypatch, room=0, error=error)
    with pytest.raises(BatchTooLargeError, match="not even one text fits, go on with a --device that has more memory"):
        draw(run, drawn_from, batch_size=1)


@pytest.mark.parametrize(
    ("asked_for", "free", "remedy"),
    [
        # A text takes at least 10 bytes, so that 3 texts may have room in 39.
        (80, 39, "8 texts do not fit, try --batch-size 3 or less"),
        (80, 1, "8 texts do not fit, try --batch-size 1 or less"),
        (80, 10**6, "8 texts do not fit, try --batch-size 4 or less"),
        (None, 10**6, "8 texts do not fit, try --batch-size 4 or less"),
    ],
)
def test_cpu_that_is_short_of_memory(run, drawn_from, monkeypatch, asked_for, free, remedy):
    monkeypatch.setattr(os, "sysconf", {"SC_AVPHYS_PAGES": free, "SC_PAGE_SIZE": 1}.__getitem__)
    error = RuntimeError(CPU.format(asked_for)) if asked_for else MemoryError()
    memory = Memory(drawn_from, monkeypatch, room=4, error=error)
    with pytest.raises(BatchTooLargeError, match=remedy):
        draw(run, drawn_from, batch_size=8)
    assert memory.sizes == [8], "on a CPU nothing is tried"


def test_system_that_does_not_say_what_is_free(run, drawn_from, monkeypatch):
    monkeypatch.setattr(os, "sysconf_names", {})
    Memory(drawn_from, monkeypatch, room=4, error=RuntimeError(CPU.format(80)))
    with pytest.raises(BatchTooLargeError, match="8 texts do not fit, try --batch-size 4 or less"):
        draw(run, drawn_from, batch_size=8)


def test_other_errors_pass(run, drawn_from, monkeypatch):
    Memory(drawn_from, monkeypatch, room=0, error=RuntimeError("shape mismatch"))
    with pytest.raises(RuntimeError, match="shape mismatch"):
        draw(run, drawn_from)


def test_other_weights_and_tokenizer(run, drawn_from, tmp_path):
    run.settings.texts.require_same_cascade(drawn_from)
    before = run.settings.texts.weights_fingerprints
    assert before[0] != before[1]
    changed = RunSettings.read(run.folder)
    assert changed == run.settings
    assert changed.texts.stage_paths == ("somebody/stage1", str(tmp_path / "stage2"))
    weight = drawn_from.stages[1].model.output_layer.linear.weight
    with torch.no_grad():
        weight[0, 0] += 1
        message = rf"weights {before[1]} of stage 2, and those in \S+stage2 are now .*from a checkpoint that stays"
        with pytest.raises(CheckpointError, match=message):
            run.settings.texts.require_same_cascade(drawn_from)
        weight[0, 0] -= 1
    text = run.settings.to_json().replace(drawn_from.tokenizer.fingerprint, "0123")
    (run.folder / "settings.json").write_text(text)
    with pytest.raises(CheckpointError, match="written with the tokenizer 0123, and the stages now have"):
        RunSettings.read(run.folder).texts.require_same_cascade(drawn_from)
