"""The server of the page: plain HTTP for one machine, from the standard library.

    GET  /         the page; its style sheet and scripts lie beside it
    GET  /cascade  what the page must know about the cascade
    POST /tokens   the number of tokens of an edited stage that count
    POST /write    one text: a line of JSON for every state, and one at the end

Pages of other sites can also reach a server on this machine. So every request must name this server as its host and,
if a page sent it, come from a page of this server. A POST must also be JSON, which a browser does not send to another
site without asking that site first.
"""

import json
import threading
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import closing
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, cast
from urllib.parse import urlsplit

from cascaded_dllm.demo.page import FILES, facts, page_file
from cascaded_dllm.demo.text_request import Edit, TextRequest
from cascaded_dllm.demo.trace import Trace
from cascaded_dllm.errors import CascadeError, ConfigError
from cascaded_dllm.memory import is_short_of_memory
from cascaded_dllm.sample.cascade import Cascade
from cascaded_dllm.sample.drawing import Drawing
from cascaded_dllm.typed_settings import parse_settings

MOST_BYTES = 1_000_000
"""Most bytes of a request."""
_LOCAL = ("localhost", "127.0.0.1", "::1")
_WAIT = 0.2
"""Seconds between two lines that say that another text is still being written."""
_STILL, _SLOW = 60.0, 5.0
"""Seconds that a connection may be silent before its request, and that it may leave a state unread, during which no
other text can be written."""
_ENDS: Mapping[str, Any] = {"error": "the server ends; start it again"}

Line = Mapping[str, Any]


class DemoServer(ThreadingHTTPServer):
    """Serves the page of a cascade; one text is written at a time.

    Args:
        cascade: the cascade that writes.
        host: name or address to listen on.
        port: port to listen on; 0 for any free one.

    Raises:
        ConfigError: the port is out of range, or it is not possible to listen there.
    """

    # Browsers keep idle connections open; the end of the server does not wait for them. See `close`.
    daemon_threads = True

    def __init__(self, cascade: Cascade, *, host: str, port: int) -> None:
        if not 0 <= port <= 65535:
            raise ConfigError(f"the port is {port}; it must be from 1 to 65535, or 0 for any that is free")
        self.cascade, self.asked_host = cascade, host
        self.facts = facts(cascade)
        self._writing, self._ending = threading.Lock(), threading.Event()
        try:
            super().__init__((host, port), _Handler)
        except OSError as error:
            raise ConfigError(
                f"cannot listen on port {port} of {host} ({error.strerror or error}); choose another --port, or 0 for "
                "any that is free"
            ) from error

    @property
    def address(self) -> str:
        """The address of the page on this machine."""
        host = "127.0.0.1" if is_everywhere(self.asked_host) else self.asked_host
        return f"http://{host}:{self.server_port}/"

    def is_known_as(self, name: str | None) -> bool:
        """Whether `name`, the Host header of a request, means this server."""
        if is_everywhere(self.asked_host):
            return True
        return name is not None and _hostname(f"//{name}") in (*_LOCAL, self.asked_host.lower())

    def close(self) -> None:
        """Ends the text that is being written, and waits until its last network call has returned."""
        self._ending.set()
        with self._writing:
            self.server_close()

    def lines(self, drawing: Drawing) -> Generator[Line, None, None]:
        """The lines that the page gets while one text is written.

        Args:
            drawing: how it is drawn; the caller has called `Cascade.require_drawable`.
        """
        while not self._writing.acquire(timeout=_WAIT):
            yield {"waiting": True}
        try:
            yield from iter([_ENDS]) if self._ending.is_set() else self._written(drawing)
        finally:
            self._writing.release()

    def _written(self, drawing: Drawing) -> Generator[Line, None, None]:
        trace, started = Trace(self.cascade.tokenizer), time.perf_counter()
        try:
            for seen in self.cascade.stream(1, drawing):
                yield trace.frame(seen)
                if self._ending.is_set():
                    yield _ENDS
                    return
        except CascadeError as error:
            yield {"error": str(error)}
        except (RuntimeError, MemoryError) as error:
            if not is_short_of_memory(error):
                raise
            yield {"error": f"the memory of {self.cascade.device} has no room for the text; use another device"}
        else:
            yield {"done": trace.ending(time.perf_counter() - started)}


def is_everywhere(host: str) -> bool:
    """Whether a server at `host` can be reached from other machines, whatever name they know it by."""
    return host in ("", "0.0.0.0")


def _hostname(address: str) -> str | None:
    """The host name in an address, in lower case; None if it is not an address."""
    try:
        return urlsplit(address).hostname
    except ValueError:
        return None


@dataclass(frozen=True, slots=True)
class _Edited:
    """A request to /tokens: the text of a stage."""

    text: str
    stage: int


class _Handler(BaseHTTPRequestHandler):
    """One request; its connection ends with the answer."""

    server_version, sys_version = "cdllm", ""
    timeout = _STILL

    @property
    def demo(self) -> DemoServer:
        """The server that this request came to."""
        return cast(DemoServer, self.server)

    def do_GET(self) -> None:
        """Answers with a file of the page, or with the facts about the cascade."""
        self._do(self._get)

    def do_POST(self) -> None:
        """Writes a text, or counts tokens."""
        self._do(self._post)

    def _do(self, answer: Callable[[str], None]) -> None:
        """Answers a request if it comes from a page of this server; `answer` gets the path."""
        try:
            if (stranger := self._stranger()) is not None:
                self._refuse(
                    HTTPStatus.FORBIDDEN,
                    f"{stranger} does not belong to this server; open {self.demo.address}, or start it with --host",
                )
                return
            try:
                answer(self.path.partition("?")[0])
            except CascadeError as error:
                self._refuse(HTTPStatus.BAD_REQUEST, str(error))
        except (ConnectionError, TimeoutError):
            # The client has closed the connection, or no longer reads.
            self.close_connection = True

    def _get(self, path: str) -> None:
        if path == "/cascade":
            self._answer_json(self.demo.facts)
        elif path in FILES:
            self._answer(*page_file(path, self.demo.cascade))
        else:
            self._refuse(HTTPStatus.NOT_FOUND, f"there is no {path}; the page is at /")

    def _post(self, path: str) -> None:
        match path:
            case "/write":
                self._write(TextRequest.parse(self._asked()))
            case "/tokens":
                edit = parse_settings(_Edited, self._asked())
                self._answer_json({"tokens": Edit.read(edit.text, edit.stage, self.demo.cascade).num_tokens})
            case _:
                self._refuse(HTTPStatus.NOT_FOUND, f"there is no {path}; ask /write or /tokens")

    def _write(self, request: TextRequest) -> None:
        drawing = request.drawing(self.demo.cascade)
        self.demo.cascade.require_drawable(drawing)
        self._begin("application/x-ndjson")
        self.connection.settimeout(_SLOW)
        with closing(self.demo.lines(drawing)) as lines:
            for line in lines:
                self.wfile.write(json.dumps(line, ensure_ascii=False, separators=(",", ":")).encode() + b"\n")

    def _asked(self) -> dict[str, Any]:
        """The JSON object of a request.

        Raises:
            ConfigError: the request is not a JSON object, or too large.
        """
        if self.headers.get_content_type() != "application/json":
            raise ConfigError(f"the type of the request is {self.headers.get_content_type()}; send application/json")
        length = self.headers.get("Content-Length", "")
        if not length.isdecimal() or len(length) > len(str(MOST_BYTES)) or int(length) > MOST_BYTES:
            raise ConfigError(f"Content-Length is {length[:20]!r}; it must be a number up to {MOST_BYTES}")
        try:
            values = json.loads(self.rfile.read(int(length)))
            # Half of a surrogate pair, which JSON can hold, is not text and cannot be encoded.
            json.dumps(values, ensure_ascii=False).encode()
        except (ValueError, RecursionError) as error:
            raise ConfigError(f"the request is not JSON ({error}); send an object") from error
        if not isinstance(values, dict):
            raise ConfigError(f"the request is a {type(values).__name__}; send an object")
        return values

    def _stranger(self) -> str | None:
        """The host that was asked for or the page that asked, if it is not of this server; None if both are."""
        host, origin = self.headers.get("Host"), self.headers.get("Origin")
        if not self.demo.is_known_as(host):
            return str(host)
        return None if origin is None or origin == f"http://{host}" else origin

    def _answer_json(self, value: object) -> None:
        self._answer(json.dumps(value, ensure_ascii=False).encode(), "application/json")

    def _refuse(self, status: HTTPStatus, message: str) -> None:
        self._answer(json.dumps({"error": message}).encode(), "application/json", status)

    def _answer(self, content: bytes, kind: str, status: HTTPStatus = HTTPStatus.OK) -> None:
        self._begin(kind, status, length=len(content))
        self.wfile.write(content)

    def _begin(self, kind: str, status: HTTPStatus = HTTPStatus.OK, *, length: int | None = None) -> None:
        self.send_response(status)
        self.send_header("Content-Type", f"{kind}; charset=utf-8")
        if length is not None:
            self.send_header("Content-Length", str(length))
        self.send_header("Cache-Control", "no-store")
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Referrer-Policy", "no-referrer")
        self.send_header(
            "Content-Security-Policy",
            "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; "
            "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
        )
        self.end_headers()

    def log_message(self, format: str, *arguments: object) -> None:
        """Logs no answered requests; a failed one still prints its traceback to the terminal."""
