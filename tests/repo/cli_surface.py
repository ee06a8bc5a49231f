"""The commands and flags of `cdllm`, read from the program itself; run as a module it rewrites the stored list."""

from typing import Any

from tests.repo.source_tree import CHECKOUT

STORED = CHECKOUT / "tests" / "golden" / "cli_flags.txt"


def commands() -> dict[str, set[str]]:
    """Every command path, "cdllm" and "cdllm train", with its flags; arguments are written <name>."""
    import typer.main

    from cascaded_dllm.cli.main import app

    found: dict[str, set[str]] = {}
    _collect("cdllm", typer.main.get_command(app), found)
    return found


def _collect(path: str, command: Any, found: dict[str, set[str]]) -> None:
    found[path] = set()
    for parameter in command.params:
        is_argument = parameter.param_type_name == "argument"
        names = [f"<{parameter.name}>"] if is_argument else [*parameter.opts, *parameter.secondary_opts]
        found[path].update(names)
    for name, child in getattr(command, "commands", {}).items():
        _collect(f"{path} {name}", getattr(child, "loaded", child), found)


def surface() -> str:
    """One line per command and flag, sorted, as it is stored."""
    lines = [f"{path} {flag}".rstrip() for path, flags in commands().items() for flag in ["", *flags]]
    return "".join(f"{line}\n" for line in sorted(lines))


def write_stored() -> None:
    STORED.write_text(surface())


if __name__ == "__main__":
    write_stored()
