"""Every error of ours is built by some test, and every test that expects one says which message it means."""

import ast
from pathlib import Path

import pytest

from cascaded_dllm.text.lines import Line
from cascaded_dllm.text.rows import BadRecordError
from tests.repo.error_sites import (
    ErrorSite,
    accepts_any_message,
    constructions,
    error_names,
    excused_sites,
    expectations_without_match,
    shortcomings,
    written_sites,
)


@pytest.mark.slow
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
    # One that takes more than a message is seen where it is built, and not in its own constructor.
    built = [site for site in written_sites() if site.path == "text/lines.py" and "is not UTF-8" in site.source]
    with pytest.raises(BadRecordError, match="is not UTF-8 at byte 0"):
        Line(Path("a.txt"), 1, 0, b"\xff\n").decode()
    assert [site.is_reached(reached_errors) for site in built] == [True]
    # An error that a test builds itself is not evidence, and recording leaves the message as it was.
    before = set(reached_errors)
    assert str(ConfigError("steps is 0")) == "steps is 0"
    assert "pip install 'cascaded-dllm[eval]'" in str(MissingExtraError("x", extra="eval", purpose="y"))
    assert reached_errors == before


def test_whole_run_is_told_what_it_misses() -> None:
    """See tests/conftest.py, which asks at the end of a run."""
    sites = written_sites()
    excused = excused_sites(sites)
    everything = {(site.path, site.first_line) for site in sites}
    needless = [line for line in shortcomings(everything) if "it is reached" in line]
    assert len(needless) == len(excused)
    enough = {(site.path, site.first_line) for site in sites if site not in excused}
    assert shortcomings(enough) == []
    missed = next(site for site in sites if site not in excused)
    told = shortcomings({(path, line) for path, line in enough if path != missed.path})
    assert f"no test reaches {missed}; test it, or excuse it with a reason in unreached_errors.txt" in told
