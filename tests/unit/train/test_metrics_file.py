import pytest

from cascaded_dllm.errors import CheckpointError
from cascaded_dllm.train.metrics_file import forget_after


def test_lines_of_steps_that_are_done_again_are_dropped(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n{"step": 2}\n{"step": 2, "bound": 3}\n{"step": 3}\n{"step": 4, "lo')
    forget_after(tmp_path, 2)
    assert path.read_text() == '{"step": 1}\n{"step": 2}\n{"step": 2, "bound": 3}\n'
    path.unlink()
    forget_after(tmp_path, 2)
    assert path.read_text() == ""


def test_lines_of_something_else(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\nby hand\n')
    with pytest.raises(
        CheckpointError, match=r"metrics\.jsonl line 2 is not a line of metrics \(JSONDecodeError\); rem"
    ):
        forget_after(tmp_path, 2)
    assert path.read_text() == '{"step": 1}\nby hand\n'
    path.write_bytes(b'{"step": 1}\n\xff\n')
    with pytest.raises(CheckpointError, match=r"metrics\.jsonl line 2 is not a line of metrics \(UnicodeDecodeError\)"):
        forget_after(tmp_path, 2)
