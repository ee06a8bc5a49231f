"""The lines of local text files, plain or compressed, as a stream."""

import gzip
import itertools
import lzma
import os
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedIOBase, BufferedReader
from pathlib import Path
from typing import NamedTuple

from cascaded_dllm.errors import DataError
from cascaded_dllm.text.line_index import LineIndex
from cascaded_dllm.text.rows import BadRecordError, unreadable
from cascaded_dllm.text.skipping import Skip

COMPRESSED = (".gz", ".xz", ".zst")
"""Suffixes of the files that are decompressed."""
_ZST_BUFFER_BYTES = 1 << 16
# As in other tools, a file with a NUL byte among its first bytes is binary; a NUL byte further on is text.
_BINARY_WITHIN_BYTES = 8000


class Line(NamedTuple):
    """A line of a file: its number from 1, the byte at which it begins, and its bytes with the line end."""

    file: Path
    number: int
    offset: int
    content: bytes

    def require_text(self) -> None:
        """Checks that this line does not show the file to be binary.

        Raises:
            DataError: it has a NUL byte among the first bytes of the file.
        """
        nul = self.offset + self.content.find(b"\0")
        if self.offset <= nul < _BINARY_WITHIN_BYTES:
            raise DataError(
                f"{self.file} line {self.number} has a NUL byte at byte {nul}; give UTF-8 text, not a binary file "
                "(texts that begin with NUL characters can be given as .parquet, or escaped in .jsonl, and texts that "
                "cdllm sample wrote by the folder of the run)"
            )

    def decode(self) -> str:
        """The line as text, without a byte-order mark at the start of the file.

        Raises:
            BadRecordError: the line is not UTF-8.
        """
        try:
            text = self.content.decode("utf-8")
        except UnicodeDecodeError as error:
            raise BadRecordError(
                f"{self.file} line {self.number} is not UTF-8 at byte {self.offset + error.start} "
                f"(0x{self.content[error.start]:02x}); convert the file to UTF-8",
                reason=BadRecordError.NOT_UTF8,
                characters=len(self.content.decode("utf-8", "replace").rstrip("\r\n")),
            ) from error
        return text.removeprefix("\ufeff") if self.number == 1 else text


def text_lines(file: Path) -> Iterator[str | BadRecordError]:
    """The lines of a text file with their line ends; for a line that is not UTF-8, the error instead.

    Raises:
        DataError: the file cannot be read to its end, or is binary.
    """
    for line in raw_lines(file):
        try:
            yield line.decode()
        except BadRecordError as error:
            yield error


def raw_lines(file: Path, skip: Skip | None = None, index: LineIndex | None = None) -> Iterator[Line]:
    r"""The lines of a text file with their line ends, which are "\n" or "\r\n" only.

    Args:
        file: plain or compressed.
        skip: the lines to skip; None for none.
        index: of a file that is not compressed; None to read through the skipped lines.

    Raises:
        DataError: the file cannot be read to its end, or is binary.
    """
    skip = Skip() if skip is None else skip
    number = offset = 0
    with _opened(file) as stream:
        if index is not None and hasattr(os, "posix_fadvise"):
            # No read-ahead: it would be three quarters of what the disk reads.
            os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_RANDOM)
        while True:
            # The first bytes are always read, so that every process notices a binary file, not just one.
            if skip.number and offset >= _BINARY_WITHIN_BYTES:
                if index is not None:
                    line, begin = index.before(number + skip.number)
                    if begin > offset:
                        _seek_line(stream, file, begin, index.num_bytes)
                        skip.number -= line - number
                        number, offset = line, begin
                for content in itertools.islice(stream, skip.number):
                    skip.number -= 1
                    number, offset = number + 1, offset + len(content)
            if not (content := next(stream, b"")):
                return
            line_here = Line(file, number + 1, offset, content)
            if offset < _BINARY_WITHIN_BYTES:
                line_here.require_text()
            number, offset = number + 1, offset + len(content)
            if not skip.take(1):
                yield line_here


def _seek_line(stream: BufferedIOBase, file: Path, begin: int, num_bytes: int) -> None:
    """Seeks the byte `begin`, where a line begins, or the end of a file of `num_bytes` bytes.

    Raises:
        DataError: no line begins there.
    """
    stream.seek(begin - 1)
    if stream.read(1) != b"\n" and begin < num_bytes:
        raise DataError(
            f"{file} has changed since it was hashed: no line of it begins at byte {begin:,} any more; leave it "
            "unchanged and run the same command again (if this error comes again, remove the dataset's folder prepared)"
        )


@contextmanager
def _opened(file: Path) -> Iterator[BufferedIOBase]:
    """The bytes of a file, decompressed by its suffix; an error while reading them names the file."""
    try:
        with _open_bytes(file) as stream:
            yield stream
    except (EOFError, lzma.LZMAError, zlib.error, OSError) as error:
        # Errors of the system have an errno; those of a foreign or broken archive do not.
        if isinstance(error, OSError) and error.errno is not None:
            raise unreadable(file, error) from error
        raise DataError(f"{file} cannot be read to its end ({error}); write or download it again") from error


def _open_bytes(file: Path) -> BufferedIOBase:
    match file.suffix.lower():
        case ".gz":
            return gzip.GzipFile(file, "rb")
        case ".xz":
            return lzma.LZMAFile(file, "rb")
        case ".zst":
            import pyarrow as pa

            return BufferedReader(pa.CompressedInputStream(pa.OSFile(str(file)), "zstd"), _ZST_BUFFER_BYTES)
        case _:
            return file.open("rb")
