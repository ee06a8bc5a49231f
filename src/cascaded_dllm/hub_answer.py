"""Questions to the Hugging Face hub that are answered within seconds, or else there is no network."""

import queue
import re
import threading
from collections.abc import Callable
from typing import TypeVar

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")
"""What a model of the hub can be called."""

DEADLINE_S = 8.0
"""Without an answer from the hub for so long there is no network; its client would go on trying for a minute."""

_Answer = TypeVar("_Answer")


def answer_of(ask: Callable[[], _Answer]) -> _Answer | Exception:
    """What `ask` returns, or what went wrong; a TimeoutError where that is not known in time.

    It is called in a thread, because no timeout ends the look-up of a host's address.
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
    """What is wrong with a model of the hub, found within seconds; None if it is there to be had.

    A download of one that is not would try again and again, and tell of every time.
    """
    from huggingface_hub import HfApi

    def ask() -> None:
        HfApi().model_info(hub_id, timeout=DEADLINE_S)

    return answer_of(ask)


def hub_errors() -> tuple[type[Exception], ...]:
    """What the hub's client raises for reasons of a name or of the network.

    Its own errors derive from OSError and from the base of whichever HTTP library its release uses.
    """
    from huggingface_hub.errors import HfHubHTTPError

    bases = (base for base in HfHubHTTPError.__bases__ if issubclass(base, Exception))
    return (OSError, ValueError, RuntimeError, *bases)


def model_errors() -> tuple[type[Exception], ...]:
    """What loading a model raises for reasons of the name, the files or the network."""
    from safetensors import SafetensorError

    return (KeyError, SafetensorError, *hub_errors())
