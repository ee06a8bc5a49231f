"""Versions of this package and of what it runs on, for the records of results."""

import importlib.metadata
import platform
from collections.abc import Iterable

import cascaded_dllm


def installed_versions(libraries: Iterable[str]) -> dict[str, str]:
    """Versions of this package, of Python, and of those of the libraries that are installed."""
    versions = {"cascaded-dllm": cascaded_dllm.__version__, "python": platform.python_version()}
    for library in libraries:
        try:
            versions[library] = importlib.metadata.version(library)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions
