"""The documents of a shard in batches, and the counts of what is none."""

from collections.abc import Iterator
from typing import final

from cascaded_dllm.data.shards import ShardWriter, SourceHash
from cascaded_dllm.text.document import Document, Dropped

# Documents are scored and tokenised together up to these limits; the result does not depend on them.
BATCH_DOCUMENTS = 256
BATCH_CHARACTERS = 1_000_000


@final
class Batches(Iterator[list[Document]]):
    """The documents of a shard in lists of bounded size; what is dropped goes to the counts at once."""

    def __init__(self, records: Iterator[Document | Dropped], source: SourceHash, writer: ShardWriter) -> None:
        self._records = records
        self._source = source
        self._writer = writer

    def __next__(self) -> list[Document]:
        batch: list[Document] = []
        characters = 0
        for record in self._records:
            if isinstance(record, Dropped):
                self._writer.drop(record.reason, record.characters)
                continue
            self._source.add(record.id, record.text)
            batch.append(record)
            characters += len(record.text)
            if len(batch) == BATCH_DOCUMENTS or characters >= BATCH_CHARACTERS:
                break
        if not batch:
            raise StopIteration
        return batch
