"""A first signal is a wish, a second one does what it always did."""

import os
import signal

import pytest

from cascaded_dllm.cli.interrupt import stop_request

NUMBERS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)


@pytest.fixture(autouse=True)
def handlers():
    """None is ignored, as SIGHUP is under nohup, and all are what they were before once a test ends."""
    before = {number: signal.getsignal(number) for number in NUMBERS}
    for number in NUMBERS:
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture(params=NUMBERS)
def number(request):
    return request.param


def test_no_request():
    before = signal.getsignal(signal.SIGINT)
    with stop_request() as request:
        assert not request.is_made()
        assert signal.getsignal(signal.SIGINT) != before
    assert signal.getsignal(signal.SIGINT) == before


def test_first_signal_makes_the_request_and_the_second_is_handled_as_before(number):
    """But SIGUSR1 and SIGHUP, of which a batch system and a closed terminal send several, never do more than ask."""
    told = []
    signal.signal(number, lambda received, _: told.append(received))
    with stop_request() as request:
        os.kill(os.getpid(), number)
        assert request.is_made()
        assert request.exit_code == (130 if number == signal.SIGINT else 75)
        assert told == []
        os.kill(os.getpid(), number)
        assert told == ([] if number in (signal.SIGUSR1, signal.SIGHUP) else [number])


def test_a_request_is_answered_once(number, capsys):
    with stop_request() as request:
        assert not request.is_made_and_answered("stopping")
        assert capsys.readouterr().err == ""
        os.kill(os.getpid(), number)
        assert request.is_made_and_answered("stopping")
        assert request.is_made_and_answered("stopping")
    assert capsys.readouterr().err == "stopping\n"


def test_a_second_kind_of_signal_is_a_wish_again():
    """Slurm announces the end of the time by SIGUSR1 and sends SIGTERM when it has come: what is kept is kept."""
    with stop_request() as request:
        os.kill(os.getpid(), signal.SIGUSR1)
        os.kill(os.getpid(), signal.SIGTERM)
        assert request.signal_number == signal.SIGUSR1


@pytest.mark.parametrize("first", [signal.SIGUSR1, signal.SIGHUP, signal.SIGTERM])
def test_a_program_that_is_about_to_end_is_not_ended_by_the_wish_that_it_should(first):
    """Whoever passes on a signal to many processes may come late; by itself a late signal would kill this one."""
    with stop_request():
        os.kill(os.getpid(), first)
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    os.kill(os.getpid(), signal.SIGUSR1)
    os.kill(os.getpid(), signal.SIGHUP)


def test_keyboard_interrupt_is_the_second_one():
    with stop_request() as request:
        os.kill(os.getpid(), signal.SIGINT)
        assert request.exit_code == 130
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


def test_a_signal_that_is_ignored_stays_so(number):
    """As in a job that a shell has put in the background."""
    signal.signal(number, signal.SIG_IGN)
    with stop_request() as request:
        assert signal.getsignal(number) == signal.SIG_IGN
        os.kill(os.getpid(), number)
        assert not request.is_made()


def test_handlers_come_back_after_an_error(number):
    before = signal.getsignal(number)
    with pytest.raises(ZeroDivisionError), stop_request():
        raise ZeroDivisionError
    assert signal.getsignal(number) == before
