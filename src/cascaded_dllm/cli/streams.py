"""Standard streams that are all there, and whose errors are told from those of files."""

import codecs
import contextlib
import errno
import io
import os
import sys
from collections.abc import Iterator
from typing import Any, TextIO, final

import typer

from cascaded_dllm.cli.console import EXIT_ERROR, report
from cascaded_dllm.errors import OutputStreamError

_ESCAPES = "cdllm-escapes"
_WRITTEN_ALL_THE_SAME = {"strict": "backslashreplace", "surrogateescape": _ESCAPES}
"""How a stream treats the characters that it cannot write, by how Python would, which would raise an error."""
_STREAMS = {"stdout": (1, "the standard output"), "stderr": (2, "the standard error")}


@final
class App(typer.Typer):
    """An application that ends with one line and an exit code if what it prints cannot be written."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Runs the command that the arguments of the process name, and exits."""
        try:
            with told_streams():
                return super().__call__(*args, **kwargs)
        except OutputStreamError as error:
            # Help and the like, which no command prints.
            report(str(error))
            sys.exit(EXIT_ERROR)


@contextlib.contextmanager
def told_streams() -> Iterator[None]:
    """Errors of writing to the standard streams inside the block are OutputStreamErrors, one for each stream.

    Without this, a full disk under a redirected output looks like an error of the file that is being written meanwhile.
    After its error, a stream leads to the null device, so that what is printed about the error has a place.

    A stream that was closed before the program began leads there from the start. Otherwise the next file that is opened
    would get its number, and with it everything that libraries and worker processes print.
    """
    _open_closed()
    codecs.register_error(_ESCAPES, _escaped)
    before = {name: getattr(sys, name) for name in _STREAMS}
    for name, stream in before.items():
        # Anything else was put there by the program around this one, which reads it.
        if isinstance(stream, io.TextIOWrapper) and isinstance(_raw(stream), io.FileIO):
            setattr(sys, name, _told(stream, _STREAMS[name][1]))
    try:
        yield
    finally:
        for name, stream in before.items():
            current = getattr(sys, name)
            if current is not stream:
                current.flush()
                setattr(sys, name, stream)


def _escaped(error: UnicodeError) -> tuple[str | bytes, int]:
    """Bytes of file names as they are, and other characters that the encoding lacks as escapes."""
    try:
        return codecs.lookup_error("surrogateescape")(error)
    except UnicodeError:
        return codecs.backslashreplace_errors(error)


def _open_closed() -> None:
    """Opens the null device for every standard stream that is closed, for worker processes as well."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            # The lowest free number is given out first.
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
    for name, (number, _) in _STREAMS.items():
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, "w", encoding="utf-8", closefd=False))  # noqa: SIM115


def _raw(stream: io.TextIOWrapper) -> Any:
    """The file under a stream; with PYTHONUNBUFFERED, there is no buffer between them."""
    return getattr(stream.buffer, "raw", stream.buffer)


def _told(stream: io.TextIOWrapper, name: str) -> TextIO:
    """A stream like `stream` whose errors are told from those of files, and which writes every character."""
    stream.flush()
    file = _StandardFile(stream.fileno(), name)
    return io.TextIOWrapper(
        # As in Python itself.
        file if _raw(stream) is stream.buffer else io.BufferedWriter(file),
        encoding=stream.encoding,
        # A letter that the encoding lacks, or a byte of a file name that is no text, must stop no command.
        errors=_WRITTEN_ALL_THE_SAME.get(str(stream.errors), stream.errors),
        line_buffering=stream.line_buffering,
        write_through=stream.write_through,
    )


@final
class _StandardFile(io.FileIO):
    """The file under a standard stream."""

    def __init__(self, number: int, name: str) -> None:
        super().__init__(number, "w", closefd=False)
        self._name, self._is_terminal = name, self.isatty()

    def write(self, content: Any, /) -> int:
        """Writes, and returns how many bytes.

        What is printed to a terminal that is closed by now goes to the null device: nobody waits for it, and work that
        was asked to stop by this goes on to keep what it has.

        Raises:
            OutputStreamError: they cannot be written; a closed pipe, whose reader wants no more, is no such error.
        """
        if not content:
            # Typer only tries whether the stream takes bytes, and passes over any error.
            return 0
        try:
            return super().write(content)
        except BrokenPipeError:
            raise
        except OSError as error:
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, self.fileno())
            os.close(null)
            if self._is_terminal and error.errno == errno.EIO:
                return len(content)
            raise OutputStreamError(
                f"what is printed cannot be written to {self._name} ({error.strerror}); lead it to a terminal, or to a "
                "file that has room, and give the command again: the files that it has finished stay"
            ) from error
