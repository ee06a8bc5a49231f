"""A file as a list of texts, all of them, blank ones too: what is measured text by text."""

from pathlib import Path

from cascaded_dllm.errors import DataError
from cascaded_dllm.text.document import Dropped
from cascaded_dllm.text.listing import SEPARATOR, texts_of_listing
from cascaded_dllm.text.local import Unit, unread_rows
from cascaded_dllm.text.local_files import LocalFiles


def read_text_list(path: Path, unit: Unit = "line") -> list[str]:
    """The texts of a file, in order.

    Of a .txt file every line is a text; where one of its lines is 80 "=", as in sample_stage<k>.txt, texts end there
    and may have several lines. With another `unit` it is what a document is in preprocessing, whatever the lines. Of a
    .jsonl or .parquet file it is what stands under `text`. All but the last may also end in .gz, .xz or .zst.

    Raises:
        DataError: there is no such file, it is empty, not UTF-8 or of an unknown kind, or something in it has no text.
    """
    if not path.is_file():
        raise DataError(f"{path} is no file; give a text file, with one text a line, or a .jsonl file")
    texts: list[str] = []
    LocalFiles(path).checked_files()
    for read in unread_rows(path, text_field="text", unit=unit):
        record = read()
        if isinstance(record, Dropped):
            raise DataError(f"{record.id} has no text to measure ({record.reason}); write one, or remove the line")
        texts.append(record.text)
    is_listing = unit == "line" and ".txt" in path.suffixes and SEPARATOR in texts
    return texts_of_listing("".join(f"{line}\n" for line in texts)) if is_listing else texts
