"""The lines of text files on this machine, plain or compressed, read as a stream."""

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
from cascaded_dllm.text.passing_over import Gap
from cascaded_dllm.text.rows import BadRecordError, unreadable

COMPRESSED = (".gz", ".xz", ".zst")
"""Suffixes of what is decompressed."""
_ZST_BUFFER_BYTES = 1 << 16
# A file with a NUL byte among its first ones is taken for a binary one, as other tools do; further on it is text.
_BINARY_WITHIN_BYTES = 8000


class Line(NamedTuple):
    """A line as it stands in a file: its number from 1, where it begins, its bytes with the line end."""

    file: Path
    number: int
    offset: int
    content: bytes

    def require_text(self) -> None:
        """Whether the file is text, as far as this line shows it.

        Raises:
            DataError: it is binary.
        """
        nul = self.offset + self.content.find(b"\0")
        if self.offset <= nul < _BINARY_WITHIN_BYTES:
            raise DataError(
                f"{self.file} line {self.number} has a NUL byte at byte {nul}; give UTF-8 text, not a binary file "
                "(texts that begin with NUL characters can be given as .parquet, or escaped in .jsonl)"
            )

    def decode(self) -> str:
        """The line as text; a byte-order mark at the head of the file is dropped.

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
    """The lines of a text file with their line ends, and what is wrong with those that cannot be read.

    Raises:
        DataError: the file cannot be read to its end, or is binary.
    """
    for line in raw_lines(file):
        try:
            yield line.decode()
        except BadRecordError as error:
            yield error


def raw_lines(file: Path, gap: Gap | None = None, index: LineIndex | None = None) -> Iterator[Line]:
    r"""The lines of a text file with their line ends, which are "\n" or "\r\n" only.

    Args:
        file: plain or compressed.
        gap: the lines that are not wanted; None where all are.
        index: of the file, which is plain then; None to read through what is not wanted.

    Raises:
        DataError: the file cannot be read to its end, or is binary.
    """
    gap = Gap() if gap is None else gap
    number = offset = 0
    with _opened(file) as stream:
        if index is not None and hasattr(os, "posix_fadvise"):
            # Nothing ahead of a wanted line is fetched, which would be three quarters of what a disk reads.
            os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_RANDOM)
        while True:
            # The head is looked at in any case: that a file is binary is not for one of many processes to find.
            if gap.number and offset >= _BINARY_WITHIN_BYTES:
                if index is not None:
                    line, begin = index.before(number + gap.number)
                    if begin > offset:
                        _seek_line(stream, file, begin, index.num_bytes)
                        gap.number -= line - number
                        number, offset = line, begin
                for content in itertools.islice(stream, gap.number):
                    gap.number -= 1
                    number, offset = number + 1, offset + len(content)
            if not (content := next(stream, b"")):
                return
            line_here = Line(file, number + 1, offset, content)
            if offset < _BINARY_WITHIN_BYTES:
                line_here.require_text()
            number, offset = number + 1, offset + len(content)
            if not gap.take(1):
                yield line_here


def _seek_line(stream: BufferedIOBase, file: Path, begin: int, num_bytes: int) -> None:
    """Goes to the byte at which a line begins, or to the end of a file of so many bytes.

    Raises:
        DataError: no line begins there.
    """
    stream.seek(begin - 1)
    if stream.read(1) != b"\n" and begin < num_bytes:
        raise DataError(
            f"{file} has changed since it was hashed: no line of it begins at byte {begin:,}, where one did; leave it "
            "alone and run the same command again (if it says so once more, remove the folder prepared of the dataset)"
        )


@contextmanager
def _opened(file: Path) -> Iterator[BufferedIOBase]:
    """The bytes of a file, decompressed by its suffix; an error while reading them names the file."""
    try:
        with _open_bytes(file) as stream:
            yield stream
    except (EOFError, lzma.LZMAError, zlib.error, OSError) as error:
        # A foreign or broken archive is none of the system's errors, which have numbers.
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
