"""The documents of a shard in batches; dropped records are counted."""

from collections.abc import Iterable, Iterator

from cascaded_dllm.data.shards import ShardWriter, SourceHash
from cascaded_dllm.text.document import Document, Dropped

# Limits of the documents that are scored and tokenised together; the result does not depend on them.
BATCH_DOCUMENTS = 256
BATCH_CHARACTERS = 1_000_000


def batches_of(
    records: Iterable[Document | Dropped], source: SourceHash, writer: ShardWriter
) -> Iterator[list[Document]]:
    """The documents of a shard in lists of bounded size, each hashed into `source`; `writer` counts dropped records."""
    batch: list[Document] = []
    characters = 0
    for record in records:
        if isinstance(record, Dropped):
            writer.drop(record.reason, record.characters)
            continue
        source.add(record.id, record.text)
        batch.append(record)
        characters += len(record.text)
        if len(batch) == BATCH_DOCUMENTS or characters >= BATCH_CHARACTERS:
            yield batch
            batch, characters = [], 0
    if batch:
        yield batch
