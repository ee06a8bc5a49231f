"""Lines of metrics, and what TensorBoard shows of them; Weights & Biases is met in tests/pipeline/test_viewers.py."""

import errno
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest

from cascaded_dllm.errors import ConfigError, MissingExtraError, OutputError
from cascaded_dllm.train.run_log import LogChoice, RunLog, open_log, require_viewers

NONE = LogChoice()


class Viewer:
    """Writes down what it is shown."""

    def __init__(self):
        self.shown = []

    def metrics(self, entry):
        self.shown.append(entry)

    def texts(self, step, name, texts):
        self.shown.append((step, name, texts))


def lines(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_every_entry_is_a_line_at_once(tmp_path):
    with open_log(tmp_path, NONE, config={}, step=0) as log:
        log.metrics({"step": 1, "loss_nats_per_token": 2.5, "mfu": None})
        assert lines(tmp_path) == [{"step": 1, "loss_nats_per_token": 2.5, "mfu": None}]
        log.texts(1, "samples", ["one"])
        log.metrics({"step": 2, "loss_nats_per_token": 2.25, "mfu": 0.5})
    with open_log(tmp_path, NONE, config={}, step=2) as log:
        log.metrics({"step": 3})
    assert [line["step"] for line in lines(tmp_path)] == [1, 2, 3]
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.jsonl"]


def test_viewers_are_shown_the_same(tmp_path):
    viewer = Viewer()
    with (tmp_path / "metrics.jsonl").open("wb", buffering=0) as file:
        log = RunLog(file, [viewer])
        log.metrics({"step": 1, "lr": 0.5})
        log.texts(1, "samples", ["one", "two"])
    assert viewer.shown == [{"step": 1, "lr": 0.5}, (1, "samples", ["one", "two"])]
    assert lines(tmp_path) == [{"step": 1, "lr": 0.5}]


@pytest.mark.parametrize(
    ("package", "choice"),
    [
        ("wandb", LogChoice(wandb="offline")),
        ("wandb", LogChoice(wandb="online")),
        ("tensorboard", LogChoice(tensorboard=True)),
    ],
)
def test_viewer_that_is_not_installed(monkeypatch, package, choice):
    require_viewers(choice)
    monkeypatch.setitem(sys.modules, package, None)
    require_viewers(NONE)
    with pytest.raises(
        MissingExtraError, match=rf"logging\.{package} needs {package}, which is not installed; run: pip install '.*log"
    ):
        require_viewers(choice)


class Wandb(ModuleType):
    """Stands for the library; writes down what it is told, and fails if it is told to."""

    class Error(Exception):
        pass

    class Settings(dict):
        pass

    def __init__(self, fails=False, full=()):
        super().__init__("wandb")
        self.full = full
        self.fails, self.inits, self.defined, self.logged, self.finished = fails, [], [], [], []

    def write(self, what):
        if what in self.full:
            raise OSError(errno.ENOSPC, "No space left on device", "somewhere/else")

    def Table(self, columns, data):
        self.write("table")

    def init(self, **arguments):
        self.write("init")
        if self.fails:
            raise Wandb.Error("No API key\n configured.")
        self.inits.append(arguments)
        return self

    def define_metric(self, name, step_metric):
        self.defined.append((name, step_metric))

    def log(self, entry):
        self.write("log")
        self.logged.append(entry)

    def finish(self, exit_code=0):
        self.finished.append(exit_code)
        self.write("finish")


@pytest.mark.parametrize(("mode", "resume"), [("offline", None), ("online", "allow")])
def test_wandb_is_asked_for_the_same_run(tmp_path, monkeypatch, mode, resume):
    monkeypatch.setitem(sys.modules, "wandb", wandb := Wandb())
    choice = LogChoice(wandb=mode, project="stories", name="stories-tiny-stage1")
    for step in (0, 5):
        with open_log(tmp_path, choice, config={"stage": 1}, step=step) as log:
            log.metrics({"step": step + 1, "lr": 0.5, "mfu": None})
    first, second = wandb.inits
    assert first == second
    assert (first["mode"], first["resume"], first["project"], first["name"]) == (mode, resume, "stories", choice.name)
    assert (first["config"], first["dir"]) == ({"stage": 1}, str(tmp_path))
    assert first["id"] == (tmp_path / "wandb_id.txt").read_text().strip()
    assert wandb.defined == [("*", "step")] * 2
    assert wandb.logged == [{"step": 1, "lr": 0.5}, {"step": 6, "lr": 0.5}]
    assert wandb.finished == [0, 0]


def test_wandb_is_told_of_a_run_that_breaks_down(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", wandb := Wandb())

    def break_down():
        with open_log(tmp_path, LogChoice(wandb="offline"), config={}, step=0):
            raise KeyError("inside")

    with pytest.raises(KeyError, match="inside"):
        break_down()
    assert wandb.finished == [1]


WITHOUT_ROOM = (
    r"run/wandb cannot be written \(No space left on device\); make room, or go on without the viewer "
    r"\(logging\.wandb=disabled\), and give the same command again"
)


@pytest.mark.parametrize("full", [("init",), ("log", "finish"), ("table", "finish"), ("finish",)])
def test_no_room_for_wandb(tmp_path, monkeypatch, full):
    """The same error wherever it happens first; it is told of what fails, also where that fails as well."""
    monkeypatch.setitem(sys.modules, "wandb", wandb := Wandb(full=full))
    (tmp_path / "run").mkdir()

    def show():
        with open_log(tmp_path / "run", LogChoice(wandb="offline"), config={}, step=0) as log:
            log.metrics({"step": 1})
            log.texts(1, "samples", ["one"])

    with pytest.raises(OutputError, match=WITHOUT_ROOM):
        show()
    assert wandb.finished == {"init": [], "finish": [0]}.get(full[0], [1])


def test_closing_wandb_never_hides_an_error(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", Wandb(full=("finish",)))
    with (
        pytest.raises(KeyError, match="inside"),
        open_log(tmp_path, LogChoice(wandb="offline"), config={}, step=0),
    ):
        raise KeyError("inside")


def test_wandb_that_cannot_be_reached(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", Wandb(fails=True))
    message = r"Weights & Biases cannot be used \(No API key configured\.\); run `wandb login`, or give "
    with (
        pytest.raises(ConfigError, match=message),
        open_log(tmp_path, LogChoice(wandb="online"), config={}, step=0),
    ):
        pass
    assert not (tmp_path / "metrics.jsonl").exists()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="the system has no disk that is always full")
def test_line_that_cannot_be_written(tmp_path):
    """The error is ours to the end, also when the file is closed."""
    (tmp_path / "metrics.jsonl").symlink_to("/dev/full")
    message = (
        r"metrics\.jsonl cannot be written \(No space left on device\); make room, and give the same command again"
    )
    with (
        pytest.raises(OutputError, match=message),
        open_log(tmp_path, NONE, config={}, step=0) as log,
    ):
        log.metrics({"step": 1})
