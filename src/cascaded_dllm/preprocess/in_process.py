"""Preprocessing of a corpus in this process alone."""

from collections.abc import Callable
from pathlib import Path

from cascaded_dllm.importance.base import Scorer
from cascaded_dllm.preprocess.encoder import Encoder
from cascaded_dllm.preprocess.pipeline import Plan
from cascaded_dllm.text.corpus import Corpus
from cascaded_dllm.text.tokenizer import Tokenizer


def preprocess_corpus(
    corpus: Corpus,
    *,
    split: str,
    out_dir: str | Path,
    tokenizer: Tokenizer,
    scorer: Scorer,
    num_shards: int = 1,
    on_progress: Callable[[int, int | None], None] | None = None,
) -> Path:
    """Preprocesses a corpus in this process and returns the folder <out_dir>/<method>/<name>_<split>.

    The folder holds the tokens of the corpus and their importance. One shard is written after the other; another call
    keeps the shards that are complete.

    Args:
        corpus: the documents; ids may repeat, empty texts are dropped and counted.
        split: name of this part of the corpus, for the folder.
        out_dir: folder of all preprocessed data.
        tokenizer: finds the tokens; saved beside the shards.
        scorer: finds the words and their importance; its method names the folder.
        num_shards: parts on disk.
        on_progress: called with the records done and, from the second shard on, about how many there are.

    Raises:
        ConfigError: a name or number cannot be used.
        DataError: there is no document with text, a document cannot be read, or the folder holds shards of other
            settings or another format.
        OutputError: the folder cannot be written, or holds foreign files.
    """
    out = Path(out_dir)
    plan = Plan.make(corpus, split=split, out_dir=out, tokenizer=tokenizer, scorer=scorer, num_shards=num_shards)
    plan.check_shards()
    encoder = Encoder(tokenizer, scorer)
    missing = plan.missing()
    if missing:
        plan.keep_indexes()
    if plan.to_be_read_once(missing):
        plan.read_once(missing, lambda _: None)
    done = 0
    total: int | None = None

    def tell(in_shard: int) -> None:
        if on_progress is not None:
            on_progress(done + in_shard, total)

    for index in missing:
        counts = plan.write(index, encoder.encode_all, tell)
        done += counts.records
        # The numbers of records in two shards differ by one at most.
        total = counts.records * len(missing) if total is None else total
    if on_progress is not None:
        on_progress(done, done)
    plan.complete(lambda: tokenizer)
    return plan.folder
