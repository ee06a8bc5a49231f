"""Requests to the Hugging Face hub with a deadline of seconds, after which the network counts as absent."""

import queue
import re
import threading
from collections.abc import Callable
from typing import TypeVar

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")
"""A valid id of a model on the hub."""

DEADLINE_S = 8.0
"""Seconds without an answer after which the network counts as absent; the hub's client would try for a minute."""

_Answer = TypeVar("_Answer")


def with_deadline(ask: Callable[[], _Answer]) -> _Answer | Exception:
    """What `ask` returns, or the error that it raises; a TimeoutError if neither happens in time.

    `ask` runs in a thread, because no timeout ends the look-up of a host's address.
    """
    answers: queue.SimpleQueue[_Answer | Exception] = queue.SimpleQueue()
    errors = hub_errors()

    def put() -> None:
        try:
            answers.put(ask())
        except errors as error:
            answers.put(error)

    threading.Thread(target=put, daemon=True).start()
    try:
        return answers.get(timeout=DEADLINE_S)
    except queue.Empty:
        return TimeoutError(f"no answer in {DEADLINE_S:g} s")


def problem_with_model(hub_id: str) -> Exception | None:
    """Why the hub does not show a model, found within seconds; None if the hub knows it and answers.

    The download itself would try again and again, and log every attempt.
    """
    from huggingface_hub import HfApi

    def ask() -> None:
        HfApi().model_info(hub_id, timeout=DEADLINE_S)

    return with_deadline(ask)


def hub_errors() -> tuple[type[Exception], ...]:
    """The errors that the hub's client raises because of a name or of the network.

    Its own errors derive from OSError and from the base of whichever HTTP library its release uses.
    """
    from huggingface_hub.errors import HfHubHTTPError

    bases = (base for base in HfHubHTTPError.__bases__ if issubclass(base, Exception))
    return (OSError, ValueError, RuntimeError, *bases)


def model_errors() -> tuple[type[Exception], ...]:
    """The errors that loading a model raises because of its name, its files or the network."""
    from safetensors import SafetensorError

    return (KeyError, SafetensorError, *hub_errors())
