"""Scripts depend on commands and flags: none disappears or changes its name unnoticed."""

import typer

from tests.repo import cli_surface


def test_commands_and_flags_are_the_stored_ones() -> None:
    assert cli_surface.STORED.is_file(), "run: make golden"
    message = "if this is intended, run `make golden` and name the change in CHANGELOG.md"
    assert cli_surface.surface() == cli_surface.STORED.read_text(), message


def test_every_command_has_a_help_text() -> None:
    import typer.main

    from cascaded_dllm.cli.main import app

    root = typer.main.get_command(app)
    children = getattr(root, "commands", {})
    assert [name for name, command in children.items() if not command.help] == []


def test_collects_nested_commands_and_both_forms_of_a_switch() -> None:
    app, inner = typer.Typer(), typer.Typer()
    app.add_typer(inner, name="inner")

    @app.command()
    def outer(name: str, is_loud: bool = typer.Option(False, "--loud/--quiet", "-l")) -> None: ...

    @inner.command()
    def deep(steps: int = 3) -> None: ...

    found: dict[str, set[str]] = {}
    cli_surface._collect("x", typer.main.get_command(app), found)
    assert found["x outer"] - {"--help"} == {"<name>", "--loud", "--quiet", "-l"}
    assert found["x inner deep"] - {"--help"} == {"--steps"}
