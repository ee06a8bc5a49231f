"""The server answers the page, and nobody else."""

import dataclasses
import http.client
import itertools
import json
import re
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from cascaded_dllm.demo import page
from cascaded_dllm.demo import server as server_module
from cascaded_dllm.demo.page import FILES
from cascaded_dllm.demo.server import MOST_BYTES, DemoServer
from cascaded_dllm.errors import ConfigError
from cascaded_dllm.sample.cascade import Cascade
from tests.unit.demo.serving import serving
from tests.unit.sample.random_cascade import random_cascade

JSON = {"Content-Type": "application/json"}


@pytest.fixture(scope="module")
def server(cascade: Cascade) -> Iterator[DemoServer]:
    with serving(cascade) as found:
        yield found


def ask(
    server: DemoServer, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None
) -> tuple[int, http.client.HTTPMessage, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=30)
    connection.request(method, path, body, dict(headers or {}))
    answer = connection.getresponse()
    return answer.status, answer.headers, answer.read()


def post(server: DemoServer, path: str, value: object, **headers: str) -> tuple[int, Any]:
    status, _, content = ask(server, "POST", path, json.dumps(value).encode(), {**JSON, **headers})
    return status, json.loads(content) if path != "/write" or status != 200 else content.decode()


def lines(server: DemoServer, **asked: Any) -> list[dict[str, Any]]:
    status, content = post(server, "/write", asked)
    assert status == 200, content
    return [json.loads(line) for line in content.splitlines()]


def test_the_page_and_its_parts(server: DemoServer) -> None:
    for path, (_, kind) in FILES.items():
        status, headers, content = ask(server, "GET", f"{path}?again")
        assert status == 200
        assert headers["Content-Type"] == f"{kind}; charset=utf-8"
        assert int(headers["Content-Length"]) == len(content) > 300
        assert "default-src 'none'" in headers["Content-Security-Policy"]
    # What they name are these files, all of them, and nothing elsewhere.
    texts = {path: ask(server, "GET", path)[2].decode() for path in FILES}
    named = {name for text in texts.values() for name in re.findall(r'(?:href|src|from)[= ]"(/[^"]*)"', text)}
    assert named == set(FILES) - {"/"}
    assert [path for path, text in texts.items() if "://" in text] == []
    assert {path.name for path in Path(page.__file__).with_name("static").iterdir()} == {
        name for name, _ in FILES.values()
    }
    style = ask(server, "GET", "/page.css")[2].decode()
    assert [f".s{stage} {{" in style for stage in (1, 2, 3)] == [True, True, False]


def test_what_the_page_has_to_know(server: DemoServer) -> None:
    facts = json.loads(ask(server, "GET", "/cascade")[2])
    assert facts["lengths"] == [5, 8, 12]
    assert (facts["can_control"], facts["can_guide"], facts["can_cover"]) == (True, False, True)
    assert {entry["name"]: entry["has_grid"] for entry in facts["predictors"]}["analytic"] is True


def test_keywords_that_a_cascade_would_write() -> None:
    """Those of the first text that it writes; pieces of words are none, and a flat model has no stage of them."""
    stories = Cascade.from_pretrained("stories")
    shown = page.facts(stories)["example"].split(", ")
    first = stories.tokenizer.decode(stories.generate(1).ids[0][0].tolist()).split()
    assert shown == list(dict.fromkeys(word for word in first if len(word) > 2))[:3]
    tokens = [" Tom", " after", "noon", " Tom", " an", " été", " 1999", " kite", ".", " a_b", " boat"]
    assert page.whole_words(tokens) == ["Tom", "été", "boat"]
    assert page.facts(random_cascade((5,), vocab_size=290))["example"] == ""


def test_a_text_is_the_one_that_the_library_draws(server: DemoServer, cascade: Cascade) -> None:
    found = lines(server, seed=5, keywords=["cat", "dog"], predictor="analytic", steps=3, require_coverage=True)
    samples = cascade.generate(1, seed=5, keywords=["cat", "dog"], predictor="analytic", steps=3, require_coverage=True)
    assert "done" in found[-1], found
    last = {line["stage"]: line for line in found[:-1]}
    for stage, ids in enumerate(samples.ids, start=1):
        assert [token for _, _, of_piece in last[stage]["pieces"] for token in of_piece] == ids[0].tolist()
        assert last[stage]["step"] == last[stage]["steps"]
    assert found[-1]["done"]["text"] == samples.final_texts[0].strip()
    assert len(found) == 1 + 3 * (3 + 1)


def test_tokens_are_counted(server: DemoServer, cascade: Cascade) -> None:
    text = " the cat<|endoftext|> é"
    expected = len(cascade.tokenizer.encode(" the cat").ids) + 1 + len(cascade.tokenizer.encode(" é").ids)
    assert post(server, "/tokens", {"text": text, "stage": 1}) == (200, {"tokens": expected})
    # Of a text that is written around, its words count.
    text = " the cat \n saw<|endoftext|>"
    assert post(server, "/tokens", {"text": text, "stage": 3}) == (200, {"tokens": 3})


@pytest.mark.parametrize(
    ("path", "asked", "message"),
    [
        ("/write", {"keyword": ["a"]}, "the key keyword is unknown"),
        ("/write", {"known": [[1, 2, 3, 4, 5, 6]]}, "text 0 of stage 1 has 6 tokens and must have 5"),
        ("/write", {"predictor": "magic"}, "the predictor is 'magic'"),
        ("/write", {"guidance": 1}, "trained without prefix dropout"),
        ("/write", ["a"], "the request is a list; send an object"),
        (
            "/write",
            {"steps": 10_001, "predictor": "analytic"},
            "steps is 10001; the page allows at most 10000; use cdllm",
        ),
        ("/write", {"keywords": ["\ud800"]}, "the request is not JSON"),
        ("/tokens", {"text": 3, "stage": 1}, "text is 3; it must be of type str"),
        ("/tokens", {"text": "a", "stage": 4}, "stage is 4; it must be from 1 to 3"),
    ],
)
def test_what_cannot_be_is_told(server: DemoServer, path: str, asked: object, message: str) -> None:
    status, answer = post(server, path, asked)
    assert status == 400
    assert message in answer["error"]


@pytest.mark.parametrize(
    ("method", "path", "body", "headers", "status", "message"),
    [
        ("POST", "/write", b"{", JSON, 400, "the request is not JSON"),
        ("POST", "/write", b"\xff", JSON, 400, "the request is not JSON"),
        (
            "POST",
            "/write",
            b"{}",
            {"Content-Type": "text/plain"},
            400,
            "the type of the request is text/plain; send app",
        ),
        ("POST", "/write", b"{}", JSON | {"Content-Length": str(MOST_BYTES + 1)}, 400, "it must be a number up to"),
        ("POST", "/write", b"{}", JSON | {"Content-Length": "-2"}, 400, "Content-Length is '-2'"),
        ("POST", "/write", b"{}", JSON | {"Content-Length": "9" * 5000}, 400, "it must be a number up to"),
        ("POST", "/write", b"[" * 100_000, JSON, 400, "the request is not JSON"),
        ("GET", "/", None, {"Host": "[::1"}, 403, "[::1 does not belong to this server"),
        ("POST", "/write", b"{}", JSON | {"Origin": "http://[x"}, 403, "http://[x does not belong to this server"),
        ("POST", "/elsewhere", b"{}", JSON, 404, "there is no /elsewhere; ask /write or /tokens"),
        ("GET", "/../server.py", None, {}, 404, "there is no /../server.py; the page is at /"),
        ("GET", "/", None, {"Host": "example.org"}, 403, "example.org does not belong to this server; open http://127"),
        ("POST", "/write", b"{}", JSON | {"Origin": "https://example.org"}, 403, "https://example.org does not belong"),
        ("POST", "/write", b"{}", JSON | {"Origin": "null"}, 403, "null does not belong to this server"),
    ],
)
def test_what_is_refused(server: DemoServer, method, path, body, headers, status, message) -> None:
    found, _, content = ask(server, method, path, body, headers)
    assert found == status
    assert message in json.loads(content)["error"]


def test_the_page_itself_is_not_refused(server: DemoServer) -> None:
    """Through a tunnel the port is another one."""
    for host in (f"localhost:{server.server_port}", "127.0.0.1:99", "[::1]:8765"):
        headers = {"Host": host, "Origin": f"http://{host}"}
        assert post(server, "/tokens", {"text": "a", "stage": 1}, **headers)[0] == 200


def test_names_of_a_server_for_everyone(cascade: Cascade) -> None:
    with serving(cascade, "0.0.0.0") as server:
        assert server.address == f"http://127.0.0.1:{server.server_port}/"
        headers = {"Host": "box.local:1", "Origin": "http://box.local:1"}
        assert post(server, "/tokens", {"text": "a", "stage": 1}, **headers)[0] == 200
        assert post(server, "/tokens", {"text": "a", "stage": 1}, Host="box.local", Origin="http://elsewhere")[0] == 403


def begin(server: DemoServer, **asked: Any) -> http.client.HTTPResponse:
    """An answer to /write of which only the first line has been read."""
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=30)
    connection.request("POST", "/write", json.dumps(asked).encode(), JSON)
    answer = connection.getresponse()
    assert json.loads(answer.readline())["stage"] == 1
    return answer


class Slow(Cascade):
    """A cascade that draws a state only when it is told to."""

    go: threading.Semaphore

    def stream(self, *arguments: Any, **options: Any) -> Iterator[Any]:
        for state in super().stream(*arguments, **options):
            self.go.acquire()
            yield state


class Failing(Cascade):
    """A cascade that cannot go on after its first state."""

    error: Exception

    def stream(self, *arguments: Any, **options: Any) -> Iterator[Any]:
        yield next(iter(super().stream(*arguments, **options)))
        raise self.error


def made(kind: type[Cascade], cascade: Cascade, **attributes: Any) -> Any:
    """The same cascade as another kind; attributes are those of a class of its own."""
    values = {field.name: getattr(cascade, field.name) for field in dataclasses.fields(cascade)}
    return type(kind.__name__, (kind,), attributes)(**values)


def test_one_text_at_a_time(cascade: Cascade) -> None:
    slow = made(Slow, cascade, go=threading.Semaphore(1))
    with serving(slow) as server:
        first = begin(server)
        second = threading.Thread(target=lambda: told.extend(lines(server, seed=1)))
        told: list[dict[str, Any]] = []
        second.start()
        time.sleep(2.5 * server_module._WAIT)
        slow.go.release(1000)
        assert "done" in json.loads(first.read().splitlines()[-1])
        second.join()
    assert told[0] == {"waiting": True}
    assert told[-1]["done"]["text"] == cascade.generate(1, seed=1).final_texts[0].strip()


def test_whoever_goes_makes_room(cascade: Cascade) -> None:
    """The text of a page that is closed is not finished, and the next one is written."""
    slow = made(Slow, cascade, go=threading.Semaphore(1))
    with serving(slow) as server:
        begin(server, seed=1).close()
        slow.go.release(1000)
        assert "done" in lines(server, seed=2)[-1]


def test_an_end_in_the_middle(cascade: Cascade) -> None:
    """A text that is being written is ended after the step, and whoever reads it is told."""
    slow = made(Slow, cascade, go=threading.Semaphore(1))
    server = DemoServer(slow, host="127.0.0.1", port=0)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    answer = begin(server)
    server.shutdown()
    thread.join()
    closing = threading.Thread(target=server.close)
    closing.start()
    closing.join(timeout=0.3)
    assert closing.is_alive()
    slow.go.release(1000)
    closing.join(timeout=30)
    assert not closing.is_alive()
    assert json.loads(answer.read().splitlines()[-1]) == {"error": "the server ends; start it again"}


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (ConfigError("the words do not fit; pin less"), "the words do not fit; pin less"),
        (MemoryError(), "the memory of cpu has no room for the text; use another device"),
    ],
)
def test_what_goes_wrong_on_the_way_is_told(cascade: Cascade, error: Exception, message: str) -> None:
    with serving(made(Failing, cascade, error=error)) as server:
        assert lines(server)[-1] == {"error": message}


def test_faults_of_the_program_are_on_the_terminal(cascade: Cascade, capfd: pytest.CaptureFixture[str]) -> None:
    """The page sees an answer without an end, and the next text is written."""
    failing = made(Failing, cascade, error=RuntimeError("a fault of ours"))
    with serving(failing) as server:
        assert [line["stage"] for line in lines(server)] == [1]
        type(failing).error = ConfigError("now another")
        assert lines(server)[-1] == {"error": "now another"}
    assert "RuntimeError: a fault of ours" in capfd.readouterr().err


def test_no_text_begins_after_the_end(cascade: Cascade) -> None:
    """Whoever waited for the text before is told as well."""
    slow = made(Slow, cascade, go=threading.Semaphore(1))
    server = DemoServer(slow, host="127.0.0.1", port=0)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    first = begin(server)
    waiting = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=30)
    waiting.request("POST", "/write", b"{}", JSON)
    second = waiting.getresponse()
    assert json.loads(second.readline()) == {"waiting": True}
    server.shutdown()
    thread.join()
    closing = threading.Thread(target=server.close)
    closing.start()
    slow.go.release(1000)
    closing.join(timeout=30)
    assert not closing.is_alive()
    ends = {"error": "the server ends; start it again"}
    assert json.loads(first.read().splitlines()[-1]) == ends
    told = [json.loads(line) for line in second.read().splitlines()]
    assert told[-1] == ends
    assert all(line == {"waiting": True} for line in told[:-1])


class Endless(Cascade):
    """A cascade that never comes to the end of the text of seed 0."""

    def stream(self, num_samples: int, drawing: Any) -> Iterator[Any]:
        states = list(super().stream(num_samples, drawing))
        yield from itertools.cycle(states) if drawing.seed == 0 else states


@pytest.mark.slow
def test_a_reader_that_stops_does_not_keep_others_waiting(cascade: Cascade, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "_SLOW", 0.1)
    with serving(made(Endless, cascade)) as server, socket.socket() as reader:
        reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
        reader.connect(("127.0.0.1", server.server_port))
        head = "POST /write HTTP/1.0\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: 2"
        reader.sendall(f"{head}\r\n\r\n{{}}".encode())
        assert reader.recv(15) == b"HTTP/1.0 200 OK"
        assert "done" in lines(server, seed=1)[-1]


@pytest.mark.parametrize("name", ["MyBox.lan", "mybox.LAN"])
def test_names_are_the_same_in_capitals(cascade: Cascade, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(cascade) as server:
        monkeypatch.setattr(server, "asked_host", name)
        assert server.is_known_as("mybox.lan:80")
        assert not server.is_known_as("other.lan:80")


@pytest.mark.parametrize("port", [-1, 65536])
def test_ports_that_are_none(cascade: Cascade, port: int) -> None:
    with pytest.raises(ConfigError, match=f"the port is {port}; it must be from 1 to 65535"):
        DemoServer(cascade, host="127.0.0.1", port=port)


def test_a_port_that_is_taken(server: DemoServer, cascade: Cascade) -> None:
    with pytest.raises(ConfigError, match=f"cannot listen on port {server.server_port} of 127.0.0.1 .*another --p"):
        DemoServer(cascade, host="127.0.0.1", port=server.server_port)


def test_a_host_that_is_none(cascade: Cascade) -> None:
    with pytest.raises(ConfigError, match=r"cannot listen on port 0 of nowhere\.invalid"):
        DemoServer(cascade, host="nowhere.invalid", port=0)
