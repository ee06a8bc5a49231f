"""The page in a real browser, where there is one: it fits a phone, and it prints."""

import re
import shutil
import subprocess

import pytest

from cascaded_dllm.report.content import report
from cascaded_dllm.report.page import page
from tests.browser import QUIET, browser_program
from tests.unit.report import made_up

pytestmark = pytest.mark.slow

POLICY = re.compile(r'<meta http-equiv="Content-Security-Policy"[^>]*>')
# Opens everything that is folded, and tells the page around it how wide all of it is.
MEASURE = """<script>
for (const details of document.querySelectorAll("details")) details.open = true;
addEventListener("load", () => parent.postMessage(
  `${innerWidth} ${document.scrollingElement.scrollWidth} ${document.scrollingElement.scrollHeight}`, "*"));
</script>"""
PHONE = """<!DOCTYPE html><p id="told"></p>
<script>addEventListener("message", (event) => { document.getElementById("told").textContent = event.data; });</script>
<iframe src="inside.html" style="width: 390px; height: 844px; border: 0"></iframe>"""


@pytest.fixture(scope="module")
def browse(tmp_path_factory):
    """A function that runs the browser and returns what it prints."""
    program = browser_program()
    profile = tmp_path_factory.mktemp("profile")

    def run(*arguments: str) -> str:
        command = [program, *QUIET, f"--user-data-dir={profile}", *arguments]
        done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=120)
        return done.stdout

    return run


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    """A report in which names, words and lines are long."""
    values = made_up.study()
    values["arms"].append(
        made_up.arm("a long name of an arm " * 8, 0, [9.0, 8.0, 13.0], layout=2.0, description="x" * 200)
    )
    values["arms"].append(made_up.arm("w" * 120, 0, [33.0]))
    values["command"] += f" --override {'y' * 300}"
    values["data"]["path"] = "folder/" * 40
    return page(report(made_up.read(tmp_path_factory.mktemp("study"), values)))


def widths(browse, folder, inside: str) -> tuple[int, int]:
    """How wide a phone is, and what it would have to be to show everything."""
    (folder / "inside.html").write_text(
        POLICY.sub("", inside).replace("</body>", f"{MEASURE}</body>"), encoding="utf-8"
    )
    (folder / "phone.html").write_text(PHONE, encoding="utf-8")
    dom = browse("--virtual-time-budget=5000", "--dump-dom", (folder / "phone.html").as_uri())
    match = re.search(r'<p id="told">(\d+) (\d+) (\d+)</p>', dom)
    assert match, dom
    assert int(match[3]) > 5000
    return int(match[1]), int(match[2])


def test_nothing_is_wider_than_a_phone(browse, text, tmp_path):
    screen, needed = widths(browse, tmp_path, text)
    assert screen == 390
    assert needed <= screen


def test_what_is_wider_than_a_phone_is_seen(browse, text, tmp_path):
    _, needed = widths(browse, tmp_path, text.replace("</main>", '<p style="width: 900px">wide</p></main>'))
    assert needed >= 900


def test_it_prints_with_everything_that_is_folded_on_the_screen(browse, text, tmp_path):
    (tmp_path / "report.html").write_text(text, encoding="utf-8")
    paper = tmp_path / "report.pdf"
    browse("--no-pdf-header-footer", f"--print-to-pdf={paper}", (tmp_path / "report.html").as_uri())
    assert paper.read_bytes().startswith(b"%PDF")
    reader = shutil.which("pdftotext")
    if reader is None:
        pytest.skip("no pdftotext on this machine, so what stands on the paper is not read")
    printed = subprocess.run([reader, str(paper), "-"], check=True, capture_output=True, text=True, timeout=60).stdout
    for expected in ("tiny-stories (made up)", "The study with everything filled in", '"token_forwards": 5000000'):
        assert expected in printed
    assert "distinct_bigram_share against network calls" in printed
