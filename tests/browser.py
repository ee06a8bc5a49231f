"""A real browser without a window, told what to do through a pipe by the protocol of its developer tools."""

import json
import os
import select
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

QUIET = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"),
    *("--disable-quic", "--disable-background-networking", "--disable-component-update", "--disable-sync"),
)
PATIENCE = 60.0
"""Seconds after which something that is waited for is taken to stay away."""


def browser_program() -> str:
    """The browser of this machine; the test is skipped where there is none."""
    program = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if program is None:
        pytest.skip("no chromium on this machine, so the page is not looked at in a browser")
    return program


class Connection:
    """The pipes to and from a browser.

    Attributes:
        console: what the consoles of all pages would show.
    """

    def __init__(self, send: int, receive: int) -> None:
        self._send, self._receive, self._rest, self._number = send, receive, b"", 0
        self.console: list[str] = []

    def ask(self, method: str, session: str | None = None, **parameters: Any) -> Any:
        """The answer to a method of the protocol."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        os.write(self._send, json.dumps(message | ({"sessionId": session} if session else {})).encode() + b"\0")
        while (answer := self._next()).get("id") != self._number:
            if answer.get("method") in ("Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded"):
                self.console.append(json.dumps(answer["params"]))
        assert "error" not in answer, (method, answer["error"])
        return answer["result"]

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._rest:
            assert select.select([self._receive], [], [], PATIENCE)[0], "the browser does not answer"
            part = os.read(self._receive, 1 << 16)
            assert part, "the browser has ended"
            self._rest += part
        line, self._rest = self._rest.split(b"\0", 1)
        return json.loads(line)


class Page:
    """One page of the browser."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        target = connection.ask("Target.createTarget", url="about:blank")["targetId"]
        self._session = connection.ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self.ask(f"{domain}.enable")

    @property
    def console(self) -> list[str]:
        """What the consoles of all pages would show."""
        return self._connection.console

    def another(self) -> "Page":
        """Another page of the same browser, with the same memory."""
        return Page(self._connection)

    def ask(self, method: str, **parameters: Any) -> Any:
        """The answer of this page to a method of the protocol."""
        return self._connection.ask(method, session=self._session, **parameters)

    def open(self, address: str) -> None:
        self.ask("Page.navigate", url=address)

    def run(self, script: str) -> Any:
        """The value of an expression of JavaScript on the page, once it is settled."""
        found = self.ask("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def wait(self, script: str) -> Any:
        """The value of an expression as soon as it is true."""
        end = time.monotonic() + PATIENCE
        while not (value := self.run(script)):
            assert time.monotonic() < end, (
                f"{script} stays {value!r}; the page says {self.run('document.body.innerText')}"
            )
            time.sleep(0.02)
        return value

    def type(self, text: str) -> None:
        """Types a text where the page takes it."""
        self.ask("Input.insertText", text=text)

    def press(self, key: str) -> None:
        code = {"Enter": 13, "ArrowLeft": 37, "ArrowRight": 39}[key]
        text = "\r" if key == "Enter" else ""
        for kind in ("keyDown", "keyUp"):
            self.ask("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code, text=text)


@contextmanager
def browsing(profile: Path) -> Iterator[Page]:
    """A page of a browser that is started and ended here."""
    program = browser_program()
    (its_in, send), (receive, its_out) = os.pipe(), os.pipe()
    # The browser reads what it is told from 3 and answers on 4.
    command = f'exec "$@" 3<&{its_in} 4>&{its_out}'
    arguments = [program, *QUIET, "--remote-debugging-pipe", f"--user-data-dir={profile}"]
    process = subprocess.Popen(
        ["bash", "-c", command, "bash", *arguments],
        pass_fds=(its_in, its_out),
        stderr=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
    )
    os.close(its_in)
    os.close(its_out)
    try:
        yield Page(Connection(send, receive))
    finally:
        os.close(send)
        os.close(receive)
        process.terminate()
        process.wait(timeout=PATIENCE)
