"""What the documents tell a reader to type exists: commands, flags, make targets, files, extras."""

import functools
import re
import tomllib
from pathlib import Path

import pytest

from tests.repo import cli_surface
from tests.repo.shell_blocks import shell_commands
from tests.repo.source_tree import CHECKOUT, project_files

DOCUMENTS = [path for path in project_files() if path.suffix == ".md"]
LINK = re.compile(r"\]\(([^)\s]+)\)")
BLOCK = re.compile(r"^[ \t]*```.*?^[ \t]*```", re.MULTILINE | re.DOTALL)
COMMAND_IN_SENTENCE = re.compile(r"`(cdllm [^`]+)`")


def relative_name(path: Path) -> str:
    return str(path.relative_to(CHECKOUT))


EACH_DOCUMENT = pytest.mark.parametrize("document", DOCUMENTS, ids=relative_name)


@functools.cache
def make_targets() -> set[str]:
    return set(re.findall(r"^([a-z]+):", (CHECKOUT / "Makefile").read_text(), re.MULTILINE))


@functools.cache
def extras() -> set[str]:
    return set(tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]["optional-dependencies"])


def fault(words: list[str]) -> str | None:
    """What a command names that does not exist, or None."""
    program, arguments = words[0].removeprefix(".venv/bin/"), words[1:]
    match program:
        case "cdllm":
            return unknown_flag(words)
        case "make":
            targets = [word for word in arguments if not word.startswith("-") and "=" not in word]
            return next((f"make {target}" for target in targets if target not in make_targets()), None)
        case "python" | "python3" | "bash" | "sh" | "sbatch":
            script = next((word for word in arguments if not word.startswith("-")), None)
            is_module = arguments[:1] in (["-m"], ["-c"])
            return script if script and not is_module and not (CHECKOUT / script).is_file() else None
        case "pip":
            named = {name for word in arguments for name in re.findall(r"(?:\.|cascaded-dllm)\[([\w,]+)\]", word)}
            return next((name for name in ",".join(named).split(",") if name and name not in extras()), None)
        case "conda" | "mamba":
            files = [word for word in arguments if word.endswith((".yml", ".yaml"))]
            return next((name for name in files if not (CHECKOUT / name).is_file()), None)
    return words[0] if "/" in words[0] and not (CHECKOUT / words[0]).is_file() else None


def anchors(markdown: str) -> set[str]:
    """What GitHub calls the headings of a document: in small letters, hyphens for spaces, copies numbered."""
    headings = re.findall(r"^#{1,6} +(.+?) *$", BLOCK.sub("", markdown), re.MULTILINE)
    slugs = [re.sub(r"[^\w\- ]", "", LINK.sub("]", heading).lower()).replace(" ", "-") for heading in headings]
    return {f"{slug}-{before}" if (before := slugs[:i].count(slug)) else slug for i, slug in enumerate(slugs)}


def dead_links(document: Path) -> list[str]:
    """Relative links of a document to files that are not there, or to headings that their file does not have."""
    dead = []
    for link in LINK.findall(BLOCK.sub("", document.read_text(encoding="utf-8"))):
        if "://" in link or link.startswith("mailto:"):
            continue
        name, _, anchor = link.partition("#")
        target = document.parent / name if name else document
        if not target.exists() or (anchor and anchor not in anchors(target.read_text(encoding="utf-8"))):
            dead.append(link)
    return dead


def unknown_flag(words: list[str]) -> str | None:
    """The first command or flag of a `cdllm` line that the program does not have."""
    known = cli_surface.commands()
    path, rest = "cdllm", words[1:]
    while rest and f"{path} {rest[0]}" in known:
        path, rest = f"{path} {rest[0]}", rest[1:]
    has_commands = any(name.startswith(f"{path} ") for name in known)
    if has_commands and rest and not rest[0].startswith("-"):
        return f"{path} {rest[0]}"
    flags = [word.split("=")[0] for word in rest if re.match(r"^--?[a-zA-Z]", word)]
    return next((f"{path} {flag}" for flag in flags if flag not in known[path] | {"--help"}), None)


def test_tree_names_every_module_and_folder_of_the_package() -> None:
    """Those of the first level; what is below stands beside its folder."""
    text = (CHECKOUT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    lines = re.findall(r"^  ((?:[a-z_][\w.]+(?:\.py|/) +)+)\S", text, re.MULTILINE)
    named = {name for line in lines for name in line.split()}
    package = CHECKOUT / "src" / "cascaded_dllm"
    here = {path.name for path in package.glob("*.py")} | {
        f"{path.parent.name}/" for path in package.glob("*/__init__.py")
    }
    assert here - named == {"__init__.py"}


def test_readme_names_the_two_commands() -> None:
    commands = list(shell_commands((CHECKOUT / "README.md").read_text(encoding="utf-8")))
    assert ["make", "quickstart"] in commands
    assert ["make", "test"] in commands
    assert any(words[0] == "cdllm" for words in commands)


@EACH_DOCUMENT
def test_commands_exist(document: Path) -> None:
    commands = shell_commands(document.read_text(encoding="utf-8"))
    assert [(shown, wrong) for words in commands if (wrong := fault(words)) for shown in [" ".join(words)]] == []


@pytest.mark.parametrize("document", [path for path in DOCUMENTS if path.name != "CHANGELOG.md"], ids=relative_name)
def test_commands_in_sentences_exist(document: Path) -> None:
    """`cdllm train --data D` between words; the changelog also speaks of commands by halves, and of those of before."""
    sentences = BLOCK.sub("", document.read_text(encoding="utf-8"))
    commands = [shown.replace("\n", " ").split() for shown in COMMAND_IN_SENTENCE.findall(sentences)]
    assert [" ".join(words) for words in commands if unknown_flag(words)] == []


@EACH_DOCUMENT
def test_links_lead_to_files_and_headings(document: Path) -> None:
    assert dead_links(document) == []


def test_readme_leads_to_every_page() -> None:
    readme = (CHECKOUT / "README.md").read_text(encoding="utf-8")
    linked = {link.partition("#")[0] for link in LINK.findall(readme)}
    assert [path.name for path in sorted((CHECKOUT / "docs").glob("*.md")) if f"docs/{path.name}" not in linked] == []


def test_dead_links_are_found(tmp_path: Path) -> None:
    (tmp_path / "other.md").write_text("# Title\n\n## `cdllm` in use: a *first* step\n\n## Twice\n\n## Twice\n")
    good = ["other.md", "other.md#title", "other.md#cdllm-in-use-a-first-step", "other.md#twice-1", "#here"]
    dead = ["none.md", "other.md#twice-2", "other.md#in-a-block", "#there"]
    page = tmp_path / "page.md"
    page.write_text(
        "# Here\n"
        + " ".join(f"[x]({link})" for link in [*good, *dead, "https://a.b/c#d", "mailto:a@b.c"])
        + "\n```python\n# There\nx = [0](none)\n```\n"
    )
    assert dead_links(page) == dead


def test_commands_are_taken_apart() -> None:
    markdown = """Text
```bash
# a comment
$ FOO=1 make quickstart && cdllm train \\
    data.path='a b' --steps=3 > log.txt  # why
```
```python
cdllm nothing
```
"""
    assert list(shell_commands(markdown)) == [
        ["make", "quickstart"],
        ["cdllm", "train", "data.path=a b", "--steps=3", "log.txt"],
    ]


@pytest.mark.parametrize(
    ("line", "wrong"),
    [
        ("make quickstart test", None),
        ("make PYTHON=python3.12 quikstart", "make quikstart"),
        ("python no_such_script.py --flag", "no_such_script.py"),
        ("python -m pytest tests", None),
        ("pip install '.[preprocess,eval]'", None),
        ("pip install '.[training]'", "training"),
        ("conda env create -f environment_nothing.yml", "environment_nothing.yml"),
        ("./.ci/run", None),
        ("./.ci/walk", "./.ci/walk"),
        ("cdllm tarin", "cdllm tarin"),
        ("cdllm train x=1 --no-such-flag 3", "cdllm train --no-such-flag"),
        ("cdllm train x=1 --help", None),
        ("cdllm --help", None),
    ],
)
def test_fault_finds_what_does_not_exist(line: str, wrong: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    known = {"cdllm": {"--version"}, "cdllm train": {"<overrides>", "--debug"}}
    monkeypatch.setattr(cli_surface, "commands", lambda: known)
    [words] = shell_commands(f"```bash\n{line}\n```")
    assert fault(words) == wrong
