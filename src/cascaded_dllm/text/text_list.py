"""A file as a list of texts, blank ones included, for measuring them one by one."""

from pathlib import Path

from cascaded_dllm.errors import DataError
from cascaded_dllm.text.document import Dropped
from cascaded_dllm.text.lines import text_lines
from cascaded_dllm.text.listing import SEPARATOR, texts_of_listing, with_line_feeds
from cascaded_dllm.text.local import Unit, lazy_rows
from cascaded_dllm.text.local_files import LocalFiles


def read_text_list(path: Path, unit: Unit = "line") -> list[str]:
    """The texts of a file, in order.

    In a .txt file every line is a text. If one of its lines is 80 "=", as in sample_stage<k>.txt, texts end at these
    lines instead, may have several lines, and keep their carriage returns. With another `unit`, a text is a document as
    in preprocessing. In a .jsonl or .parquet file it is the field `text`. .txt and .jsonl files may also end in .gz,
    .xz or .zst.

    Raises:
        DataError: there is no such file, it is empty, not UTF-8 or of an unknown kind, or a record has no text.
    """
    if not path.is_file():
        raise DataError(f"{path} is not a file; give a text file with one text a line, or a .jsonl file")
    texts: list[str] = []
    LocalFiles(path).checked_files()
    for read in lazy_rows(path, text_field="text", unit=unit):
        record = read()
        if isinstance(record, Dropped):
            raise DataError(f"{record.id} has no text to measure ({record.reason}); write one, or remove the line")
        texts.append(record.text)
    is_listing = unit == "line" and ".txt" in path.suffixes and SEPARATOR in texts
    if not is_listing:
        return texts
    # Read again, since the lines above have lost the carriage returns at their ends, which may be of the texts.
    return texts_of_listing(with_line_feeds("".join(map(str, text_lines(path)))))
