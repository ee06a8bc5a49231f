"""Versions of this package and of the software it runs on, for the records of results."""

import importlib.metadata
import platform
from collections.abc import Iterable

import cascaded_dllm


def installed_versions(libraries: Iterable[str]) -> dict[str, str]:
    """Versions of this package, of Python, and of the libraries; one that is not installed is left out."""
    versions = {"cascaded-dllm": cascaded_dllm.__version__, "python": platform.python_version()}
    for library in libraries:
        try:
            versions[library] = importlib.metadata.version(library)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions
