"""Every error of ours is built by some test, and every test that expects one says which message it means."""

import ast
from pathlib import Path

import pytest

from tests.repo.error_sites import (
    ErrorSite,
    accepts_any_message,
    constructions,
    error_names,
    expectations_without_match,
    written_sites,
)

ALLOWED = Path(__file__).with_name("unreached_errors.txt")


def allowed_fragments() -> list[tuple[str, str]]:
    """(path, part of the source) of every excused error; each line must also give the reason."""
    lines = [line for line in ALLOWED.read_text().splitlines() if line.strip() and not line.startswith("#")]
    fields = [[field.strip() for field in line.split(" | ")] for line in lines]
    assert [line for line, parts in zip(lines, fields, strict=True) if len(parts) != 3 or not all(parts)] == []
    return [(path, fragment) for path, fragment, _reason in fields]


def excused_sites(sites: list[ErrorSite]) -> list[ErrorSite]:
    excused = []
    for path, fragment in allowed_fragments():
        found = [site for site in sites if site.path == path and fragment in site.source]
        assert len(found) == 1, f"{ALLOWED.name}: {fragment!r} names {len(found)} errors of {path}, it must name one"
        excused += found
    return excused


def test_expected_errors_name_their_message() -> None:
    assert list(expectations_without_match(error_names())) == [], "add match=..."


def test_excuses_fit_the_source() -> None:
    excused_sites(written_sites())


def test_checks_find_what_they_look_for(reached_errors: set[tuple[str, int]]) -> None:
    from cascaded_dllm.errors import ConfigError, MissingExtraError

    assert {"ConfigError", "DataError", "MissingExtraError"} <= error_names()
    source = (
        "def f():\n    raise errors.ConfigError(\n        'a')\ndef g():\n    return DataError('b')\nraise DataError"
    )
    found = list(constructions(ast.parse(source), {"ConfigError", "DataError"}))
    assert sorted(node.lineno for node in found) == [2, 5, 6]
    site = ErrorSite("a.py", 3, 5, "")
    assert site.is_reached({("a.py", 5)})
    assert not site.is_reached({("a.py", 6), ("b.py", 4)})
    for text, expected in [
        ("pytest.raises(ConfigError)", True),
        ("pytest.raises((KeyError, errors.ConfigError))", True),
        ("pytest.raises(ConfigError, match='x')", False),
        ("pytest.raises(KeyError)", False),
    ]:
        call = ast.parse(text, mode="eval").body
        assert isinstance(call, ast.Call)
        assert accepts_any_message(call, {"ConfigError"}) is expected
    # An error that a test builds itself is not evidence, and recording leaves the message as it was.
    before = set(reached_errors)
    assert str(ConfigError("steps is 0")) == "steps is 0"
    assert "pip install 'cascaded-dllm[eval]'" in str(MissingExtraError("x", extra="eval", purpose="y"))
    assert reached_errors == before


def test_every_error_is_reached(request: pytest.FixtureRequest, reached_errors: set[tuple[str, int]]) -> None:
    """Runs last, see tests/conftest.py; says nothing about a partial or failing run."""
    if not request.getfixturevalue("is_whole_run"):
        pytest.skip("only a run of all tests can tell which errors no test reaches")
    if request.session.testsfailed:
        pytest.skip(f"{request.session.testsfailed} tests failed, and may have stopped before an error was reached")
    sites = written_sites()
    excused = excused_sites(sites)
    unreached = [str(site) for site in sites if not site.is_reached(reached_errors) and site not in excused]
    if unreached:
        listing = "\n".join(unreached)
        pytest.fail(f"no test reaches these errors; test or, with a reason, excuse them in {ALLOWED.name}:\n{listing}")
    assert [str(site) for site in excused if site.is_reached(reached_errors)] == [], f"remove it from {ALLOWED.name}"
