"""`cdllm demo` as a user has it: the command, and the page in a real browser."""

import json
import re
import signal
import socket
import time
import urllib.request
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from cascaded_dllm.diffusion.process import UniformProcess
from cascaded_dllm.diffusion.schedule import LogLinearSchedule
from cascaded_dllm.sample.cascade import Cascade
from cascaded_dllm.sample.sampler import StageSampler
from cascaded_dllm.text.tokenizer import Tokenizer
from tests.browser import Page, browsing
from tests.pipeline.commands import failure
from tests.processes import Process, cdllm, started
from tests.unit.demo.serving import serving
from tests.unit.model.tiny import tiny_model

NUM_STAGES = 2
IDLE = "state.writing === null"


def demo(runs: Path, *options: object) -> AbstractContextManager[Process]:
    stages = [word for stage in (1, 2) for word in ("--stage", str(runs / f"stage{stage}"))]
    return started(cdllm, "demo", *stages, "--device", "cpu", "--no-open", *map(str, options))


def address(process: Process) -> str:
    """Of the page, once it is there."""
    for _ in range(600):
        if found := re.search(r"the page is at (http://127\.0\.0\.1:\d+/) \(Ctrl-C ends it\)", process.stdout):
            return found[1]
        assert process.poll() is None, process.stderr
        time.sleep(0.1)
    raise AssertionError(process.stdout)


@pytest.mark.slow
def test_it_serves_until_it_is_ended(runs: Path) -> None:
    with demo(runs, "--port", 0) as process:
        page = address(process)
        with urllib.request.urlopen(f"{page}cascade", timeout=30) as answer:
            assert json.load(answer)["lengths"] == [4, 8]
        process.send(signal.SIGINT)
        ended = process.wait()
    assert ended.returncode == 0
    assert ended.stdout.endswith("ended\n")
    assert ended.stderr == ""


def test_without_a_cascade_it_has_one_of_its_own() -> None:
    with started(cdllm, "demo", "--device", "cpu", "--no-open", "--port", "0") as process:
        page = address(process)
        asked = json.dumps({"keywords": ["fox", "castle"], "require_coverage": True}).encode()
        request = urllib.request.Request(f"{page}write", asked, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=60) as answer:
            *_, last = map(json.loads, answer)
        said = " ".join(process.stdout.split())
    assert said.startswith("no cascade is given; using the built-in one, stories (--stage or --cascade names another)")
    assert re.search(r"\bfox\b.*\bcastle\b", last["done"]["text"])


def test_it_says_who_can_write(runs: Path) -> None:
    with demo(runs, "--port", 0, "--host", "0.0.0.0") as process:
        assert address(process)
        said = " ".join(process.stdout.split())
    assert said.startswith(
        "everyone who can reach this machine can use the page; --host 127.0.0.1 limits it to this machine"
    )


def test_bad_input(runs: Path) -> None:
    stages = ("--stage", runs / "stage1", "--no-open")
    assert "the port is 70000" in failure("demo", *stages, "--port", 70000)
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        assert f"cannot listen on port {port} of 127.0.0.1" in failure("demo", *stages, "--port", port)


@pytest.fixture(scope="module")
def place(runs: Path) -> Iterator[str]:
    with demo(runs, "--port", 0) as process:
        yield address(process)
        assert process.stderr == ""


@pytest.fixture
def page(place: str, tmp_path: Path) -> Iterator[Page]:
    """The page with nothing on it yet."""
    with browsing(tmp_path / "profile") as found:
        found.open(place)
        opened(found)
        yield found
        assert found.console == []


def opened(page: Page) -> None:
    """Waits until the page is there, and makes what it knows known to the scripts of the tests."""
    page.wait(f"document.querySelectorAll('.stage').length === {NUM_STAGES}")
    modules = "Promise.all([import('/state.js'), import('/frames.js')])"
    page.run(f"{modules}.then((all) => {{ Object.assign(globalThis, ...all); }})")


def idle(page: Page, also: str = "true") -> None:
    """Waits until nothing is written any more, and the page shows it: that is drawn with the next frame, if any is."""
    page.wait(f"{IDLE} && {also}")
    page.run("document.hidden || new Promise(requestAnimationFrame)")


def written(page: Page, count: int) -> None:
    """Waits until the page has so many texts."""
    idle(page, f"state.versions.length === {count}")


def text(page: Page, stage: int) -> str:
    return page.run(f"document.querySelector('#stage-{stage} .text').textContent")


def click(page: Page, selector: str) -> None:
    page.run(f"document.querySelector({json.dumps(selector)}).click()")


@pytest.mark.slow
def test_from_keywords_to_a_text(page: Page) -> None:
    """Both stages hold the keywords; the list has the text, also when the page is opened again."""
    page.run("document.getElementById('keywords').focus()")
    page.type("fox, castle")
    page.press("Enter")
    written(page, 1)
    for stage in (1, 2):
        assert re.search("fox.*castle", text(page, stage)), text(page, stage)
    final = page.run("state.shown.text")
    assert final
    assert page.run("document.getElementById('status').textContent").startswith(
        page.run("`${state.shown.calls} network calls`")
    )
    assert page.run("document.querySelector('#history button').textContent").startswith(final[:20])
    shown = [text(page, stage) for stage in (1, 2)]
    page.ask("Page.reload")
    opened(page)
    page.wait("document.querySelectorAll('#history button').length === 1")
    click(page, "#history button")
    assert [text(page, stage) for stage in (1, 2)] == shown


@pytest.mark.slow
def test_an_edited_stage_is_gone_on_from(page: Page) -> None:
    click(page, "#write")
    written(page, 1)
    seed = page.run("state.shown.asked.seed")
    click(page, "#stage-1 .edit")
    page.wait("document.querySelector('#stage-1 .count').textContent === '4 of 4 tokens'")
    page.run("document.querySelector('#stage-1 textarea').select()")
    page.type("fox castle bell and one more than there is room for")
    page.wait("document.querySelector('#stage-1 .count').textContent.endsWith('too many')")
    assert page.run("document.querySelector('#stage-1 .go').disabled")
    page.run("document.querySelector('#stage-1 textarea').select()")
    page.type("fox castle")
    page.wait(
        "document.querySelector('#stage-1 .count').textContent === '2 of 4 tokens; the rest is written around them'"
    )
    click(page, "#stage-1 .go")
    written(page, 2)
    assert re.search("fox.*castle", text(page, 1))
    assert page.run("state.shown.asked.seed") == seed + 1
    # The last stage is written around words.
    before = text(page, 1)
    click(page, "#stage-2 .edit")
    page.run("document.querySelector('#stage-2 textarea').select()")
    page.type("castle bell")
    page.wait("document.querySelector('#stage-2 .count').textContent.startsWith('2 of 8 tokens')")
    page.run("document.getElementById('require_coverage').checked = false")
    click(page, "#stage-2 .go")
    written(page, 3)
    assert text(page, 1) == before
    assert re.search("castle.*bell", text(page, 2))


@pytest.mark.slow
def test_locked_words_stay_where_they_are(page: Page) -> None:
    click(page, "#write")
    written(page, 1)
    former = page.run("idsOf(state.shown.stages[1])")
    place = page.run("wordsOf(state.shown.stages[1]).findIndex((word) => word.isText)")
    word = page.run(f"wordsOf(state.shown.stages[1])[{place}]")
    click(page, "#stage-2 .word")
    assert page.run("document.querySelector('#stage-2 .again').textContent") == "Write the rest again"
    first = text(page, 1)
    page.run("document.getElementById('require_coverage').checked = false")
    click(page, "#stage-2 .again")
    written(page, 2)
    ids = page.run("idsOf(state.shown.stages[1])")
    kept = slice(word["position"], word["position"] + word["length"])
    assert ids[kept] == former[kept]
    assert ids != former
    assert text(page, 1) == first


@pytest.mark.slow
def test_the_way_of_a_text_can_be_seen_again(page: Page) -> None:
    click(page, "#write")
    written(page, 1)
    count = page.run("state.shown.frames.length")
    assert count == 4 + 8 + 2
    page.run("Object.assign(document.getElementById('time'), {value: 2}).dispatchEvent(new Event('input'))")
    assert page.run("document.querySelectorAll('#stage-1 .masked').length") == 2
    assert page.run("document.querySelectorAll('#stage-2 .text > *').length") == 0
    # The list takes clicks meanwhile, for which it must stay as it is.
    page.run("globalThis.entry = document.querySelector('#history button'); 0")
    # What is under way can be neither edited nor locked.
    assert page.run("document.querySelectorAll('.edit:not([hidden]), .word').length") == 0
    click(page, "#play")
    page.wait("isAtEnd()")
    assert page.run("document.querySelectorAll('.masked').length") == 0
    assert page.run("entry.isConnected")


@pytest.mark.slow
def test_errors_are_told_and_nothing_is_lost(page: Page) -> None:
    click(page, "#write")
    written(page, 1)
    shown = text(page, 2)
    page.run("document.getElementById('keywords').value = 'one, two, three, four, five, six'")
    click(page, "#write")
    page.wait("document.getElementById('status').classList.contains('bad')")
    assert "stage 1 writes 4; leave some out" in page.run("document.getElementById('status').textContent")
    assert text(page, 2) == shown
    assert page.run("state.versions.length") == 1
    # The browser notes the refusal; it is what this test is about.
    assert [entry for entry in page.console if "400 (Bad Request)" not in entry] == []
    page.console.clear()


@pytest.mark.slow
def test_a_text_is_stopped(page: Page) -> None:
    """What was there before stays; a stopped text is shown as far as it came, and is not kept."""
    page.run(
        "Object.assign(document.getElementById('predictor'), {value: 'analytic'}).dispatchEvent(new Event('change'))"
    )
    page.run("document.getElementById('steps').value = 600")
    click(page, "#write")
    page.wait("state.shown?.frames.at(-1).stage === 2")
    click(page, "#stop")
    idle(page)
    assert page.run("document.getElementById('status').textContent") == "stopped; what was finished is shown"
    assert page.run("state.versions.length") == 0
    assert page.run("state.shown.frames.length") <= 400
    # The finished stage can be gone on from, the other one only be written anew.
    page.wait("document.querySelector('#stage-1 .edit:not([hidden])') !== null")
    assert page.run("document.querySelector('#stage-2 .edit').hidden")
    first = text(page, 1)
    page.run("document.getElementById('steps').value = 3")
    click(page, "#stage-2 .again")
    written(page, 1)
    assert text(page, 1) == first


def type_over(page: Page, stage: int, words: str) -> None:
    page.run(f"document.querySelector('#stage-{stage} textarea').select()")
    page.type(words)


def status(page: Page) -> str:
    return page.run("document.getElementById('status').textContent")


@pytest.mark.slow
def test_what_was_typed_is_there_after_a_failure(page: Page, place: str) -> None:
    """Also where the server is gone."""
    click(page, "#write")
    written(page, 1)
    page.wait("!document.getElementById('replay').hidden")
    click(page, "#stage-1 .edit")
    # The way of the text is not shown meanwhile: what is edited is its end.
    assert page.run("document.getElementById('replay').hidden")
    type_over(page, 1, "fox castle")
    page.run("globalThis.fetched = fetch; globalThis.fetch = () => Promise.reject(new TypeError('no network')); 0")
    click(page, "#stage-1 .go")
    idle(page, "document.getElementById('status').classList.contains('bad')")
    assert status(page) == "the server does not answer; is cdllm demo still running?"
    assert page.run("document.querySelector('#stage-1 textarea').value") == "fox castle"
    assert not page.run("document.querySelector('#stage-1 .editor').hidden")
    page.run("globalThis.fetch = fetched; 0")
    click(page, "#stage-1 .go")
    written(page, 2)
    assert re.search("fox.*castle", text(page, 1))


@pytest.mark.slow
def test_seeds_go_on_and_settings_come_back(page: Page) -> None:
    page.run("document.getElementById('temperature').value = 0.73")
    for count in (1, 2):
        click(page, "#write")
        written(page, count)
    page.run("document.getElementById('temperature').value = 1")
    page.ask("Page.reload")
    opened(page)
    click(page, "#write")
    written(page, 3)
    assert page.run("state.versions.map(({asked}) => asked.seed)") == [0, 1, 2]
    assert page.run("state.versions.map(({asked}) => asked.temperature)") == [0.73, 0.73, 1]
    page.run("document.querySelectorAll('#history button')[2].focus()")
    page.press("Enter")
    assert page.run("['seed', 'temperature'].map((id) => document.getElementById(id).value)") == ["0", "0.73"]
    assert page.run("document.activeElement.parentElement.parentElement.id") == "history"


@pytest.mark.slow
def test_alternatives_are_written_one_after_the_other(page: Page) -> None:
    """Each from the next seed, also where a seed is to stay; of one stage on the same text before; and until a stop."""
    page.run("document.getElementById('reseed').checked = false; document.getElementById('texts').value = 3")
    click(page, "#write")
    written(page, 3)
    assert page.run("state.versions.map(({asked}) => asked.seed)") == [0, 1, 2]
    click(page, "#stage-2 .again")
    written(page, 6)
    assert page.run("state.versions.map(({asked}) => asked.seed)") == [0, 1, 2, 2, 3, 4]
    first = page.run("state.versions.slice(2).map(({asked, stages}) => asked.known ?? [idsOf(stages[0])])")
    assert all(known == first[0] for known in first)
    assert page.run("new Set(state.versions.slice(3).map(({text}) => text)).size") == 3
    page.run(
        "Object.assign(document.getElementById('predictor'), {value: 'analytic'}).dispatchEvent(new Event('change'))"
    )
    page.run("document.getElementById('steps').value = 600")
    click(page, "#write")
    page.wait("state.shown?.frames.at(-1).stage === 2")
    click(page, "#stop")
    idle(page)
    time.sleep(0.3)
    assert page.run(f"state.versions.length === 6 && {IDLE}")


@pytest.mark.slow
def test_two_pages_keep_each_others_texts(page: Page, place: str) -> None:
    other = page.another()
    other.open(place)
    opened(other)
    click(page, "#write")
    written(page, 1)
    written(other, 1)
    click(other, "#write")
    written(other, 2)
    written(page, 2)
    assert page.run("JSON.parse(localStorage.getItem(localStorage.key(0))).length") == 2


@pytest.mark.slow
@pytest.mark.parametrize("stored", ['[{"text":1', '[{"text":"a"}]', '"a"'])
def test_a_memory_that_cannot_be_read_stops_nothing(page: Page, stored: str) -> None:
    page.run(f"localStorage.setItem(`cascaded-dllm/1:${{state.cascade.name}}`, {json.dumps(stored)})")
    page.ask("Page.reload")
    opened(page)
    assert page.run("state.versions.length") == 0
    click(page, "#write")
    written(page, 1)


@pytest.mark.slow
def test_a_memory_that_is_full_is_told(page: Page) -> None:
    page.run("Storage.prototype.setItem = () => { throw new DOMException('', 'QuotaExceededError'); }")
    click(page, "#write")
    written(page, 1)
    assert status(page) == "this browser keeps no more texts (QuotaExceededError); save them to a file"


@pytest.mark.slow
def test_words_are_locked_from_the_keyboard(page: Page) -> None:
    click(page, "#write")
    written(page, 1)
    assert page.run("document.querySelectorAll('#stage-2 .word[tabindex=\"0\"]').length") == 1
    page.run("document.querySelector('#stage-2 .word').focus()")
    page.press("ArrowRight")
    page.press("Enter")
    pressed = "[...document.querySelectorAll('#stage-2 .word')].map((word) => word.getAttribute('aria-pressed'))"
    assert page.run(pressed)[:2] == ["false", "true"]
    page.press("Enter")
    assert "true" not in page.run(pressed)


@pytest.mark.slow
def test_a_text_from_right_to_left(page: Page) -> None:
    """Its direction is that of its letters, and so is the way of the arrow keys."""
    click(page, "#write")
    written(page, 1)
    click(page, "#stage-1 .edit")
    type_over(page, 1, "\u05e9\u05dc")
    page.run("document.getElementById('keywords').value = '\u05e9\u05dc'")
    page.run("document.querySelector('#history button').firstChild.data = '\u05e9\u05dc'")
    words = "document.querySelectorAll('#stage-2 .word')"
    page.run(f"{words}.forEach((word) => {{ word.textContent = '\u05e9\u05dc'; }})")
    for place in ("#keywords", "#history button", "#stage-1 textarea", "#stage-2 .text"):
        assert page.run(f"getComputedStyle(document.querySelector('{place}')).direction") == "rtl"
    page.run(f"{words}[0].focus()")
    page.press("ArrowLeft")
    assert page.run(f"document.activeElement === {words}[1]")
    page.press("ArrowRight")
    assert page.run(f"document.activeElement === {words}[0]")


@pytest.mark.slow
def test_a_process_that_can_be_held_to_nothing(tmp_path: Path) -> None:
    """The uniform one: its page offers what there is, and a text is gone on from."""
    tokenizer = Tokenizer.train(["the cat saw the dog and the dog saw the cat"] * 3, vocab_size=290)
    size = tokenizer.vocab_size
    stages = tuple(
        StageSampler(
            tiny_model(vocab_size=size, seed=length, process="uniform", scale_by_sigma=False),
            UniformProcess(size),
            LogLinearSchedule(),
            length,
        )
        for length in (4, 8)
    )
    with serving(Cascade(stages, tokenizer, (4, 8))) as server, browsing(tmp_path / "profile") as page:
        page.open(server.address)
        opened(page)
        assert page.run("[...document.querySelectorAll('#predictor option')].map(({value}) => value)") == [
            *("euler", "analytic")
        ]
        page.run("document.getElementById('steps').value = 3")
        click(page, "#write")
        written(page, 1)
        assert page.run("document.querySelectorAll('.word').length") == 0
        assert page.run("document.querySelector('#stage-2 .edit').hidden")
        first = text(page, 1)
        click(page, "#stage-2 .again")
        written(page, 2)
        assert text(page, 1) == first
        assert page.console == []


@pytest.mark.slow
def test_a_phone_shows_all_of_it(page: Page) -> None:
    page.ask("Emulation.setDeviceMetricsOverride", width=390, height=844, deviceScaleFactor=1, mobile=True)
    click(page, "#write")
    written(page, 1)
    page.run("document.querySelector('details').open = true")
    assert page.run("document.scrollingElement.scrollWidth") <= 390
