"""Writing in the background: one job at a time, and no error is lost."""

import threading

import pytest

from cascaded_dllm.train.writer import BackgroundWriter


def failing():
    raise OSError("disk full")


def test_jobs_run_one_after_another_beside_the_caller():
    order, gate = [], threading.Event()
    with BackgroundWriter() as writer:
        writer.begin(lambda: (gate.wait(10), order.append("first")))
        order.append("caller")
        writer.check()  # does not wait
        gate.set()
        writer.begin(lambda: order.append("second"))
        order_when_second_began = list(order[:2])
    assert order_when_second_began == ["caller", "first"]
    assert order == ["caller", "first", "second"]


def test_an_error_is_raised_where_the_next_job_begins():
    with BackgroundWriter() as writer:
        writer.begin(failing)
        with pytest.raises(OSError, match="disk full"):
            writer.begin(lambda: None)


def test_an_error_is_raised_when_it_is_asked_for_and_once():
    with BackgroundWriter() as writer:
        done = threading.Event()

        def fail_and_tell():
            done.set()
            failing()

        writer.begin(fail_and_tell)
        done.wait(10)
        with pytest.raises(OSError, match="disk full"):
            writer.finish()
        writer.check()


def test_an_error_is_raised_at_the_end():
    with pytest.raises(OSError, match="disk full"), BackgroundWriter() as writer:
        writer.begin(failing)


def test_an_error_is_not_lost_behind_another_one():
    def fail_twice():
        with BackgroundWriter() as writer:
            writer.begin(failing)
            raise ZeroDivisionError

    with pytest.raises(OSError, match="disk full") as raised:
        fail_twice()
    assert isinstance(raised.value.__context__, ZeroDivisionError)


def test_the_end_waits_for_the_job():
    written = []
    gate = threading.Event()
    with BackgroundWriter() as writer:
        writer.begin(lambda: (gate.wait(10), written.append(1)))
        threading.Timer(0.05, gate.set).start()
    assert written == [1]
