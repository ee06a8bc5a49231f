"""Overrides key=value: which key each sets, and whether a command has left it free."""

from collections.abc import Collection, Iterable

from cascaded_dllm.errors import ConfigError


def require_free(overrides: Iterable[str], decided: Collection[str], complaint: str) -> None:
    """Checks that no override is of a key that is decided elsewhere.

    Args:
        overrides: key=value, in Hydra's grammar.
        decided: keys, and groups of keys, that are not free.
        complaint: the message, with {key} for the key.

    Raises:
        ConfigError: one is.
    """
    for override in overrides:
        key = override.partition("=")[0].lstrip("+~").partition("@")[0]
        if key in decided or key.partition(".")[0] in decided:
            raise ConfigError(complaint.format(key=key))
