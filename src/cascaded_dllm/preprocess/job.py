"""A preprocessing job as plain data: everything that a worker on another machine needs to make one shard."""

from dataclasses import asdict, dataclass
from typing import final

from cascaded_dllm.cascade.select import SELECTION_METHODS
from cascaded_dllm.checks import one_of, require_at_least
from cascaded_dllm.errors import ConfigError
from cascaded_dllm.importance.random_scores import DRAWN_PER

TAGGED = ("constituency",)
"""Methods that take a tagger."""
EMBEDDED = ("keybert", "keybert_no_stopword")
"""Methods that take a sentence model."""
CUSTOM = ("custom",)
"""Methods that take a function of the user."""
COUNTED = ("tfidf",)
"""Methods that count the words of a corpus."""
DEFAULT_SCOPE = "document"
"""What the methods with a sentence model compare a word with by default."""
MOST_SHARDS = 1_000_000
_READERS: dict[str, tuple[str, ...]] = {
    "tagger": TAGGED,
    **dict.fromkeys(("model", "scope", "window_words", "precision", "device", "word_cache"), EMBEDDED),
    **dict.fromkeys(("seed", "per"), ("random",)),
    "scorer": CUSTOM,
    "word_counts": COUNTED,
}
"""The methods that read each setting of `ScorerChoice`; all methods read settings that are not listed."""


def is_read(setting: str, method: str) -> bool:
    """Whether a method reads the setting of this name."""
    return method in _READERS.get(setting, (method,))


@final
@dataclass(frozen=True, slots=True)
class CorpusChoice:
    """Which documents are preprocessed; see `text.corpora.open_corpus`.

    Attributes:
        dataset: a corpus by name, a hub id or a path.
        split: its split.
        name: of the folder; None for the corpus' own name.
        form: corpus whose detokenizer and record rule apply to local files; None for plain text.
        text_field: field or column that holds the text; None for the default.
        unit: what a document of a .txt is; None for the default.
        streaming: whether a hub dataset is read over the network instead of being stored first.
        revision: of a hub dataset; None for the default one.
        num_documents: how many records are read, from the first on; None for all.
        bad_records: whether records that cannot be read are refused or dropped; None for refused.
        holdout: one in this many records of the train split is held out; these are the split valid, the rest is train.
    """

    dataset: str
    split: str = "train"
    name: str | None = None
    form: str | None = None
    text_field: str | None = None
    unit: str | None = None
    streaming: bool = False
    revision: str | None = None
    num_documents: int | None = None
    bad_records: str | None = None
    holdout: int | None = None


@final
@dataclass(frozen=True, slots=True)
class ScorerChoice:
    """How importance is found.

    Attributes:
        method: one of SELECTION_METHODS.
        tagger: of constituency.
        model: sentence-transformers model of the KeyBERT methods.
        scope: of the KeyBERT methods: what a word is compared with, the "document" or its "window".
        window_words: of the KeyBERT methods: number of words in a window.
        precision: of the KeyBERT methods: of the documents' embeddings.
        device: of the KeyBERT methods.
        word_cache: of the KeyBERT methods: folder of the embedded words; None keeps them in memory only.
        seed: of random.
        per: of random: what gets a number of its own, one of `random_scores.DRAWN_PER`.
        scorer: of custom: FILE.py:NAME, see `importance.custom.CustomScorer`.
        word_counts: of tfidf: a dataset of this method whose word counts are used; None to count the corpus itself.
    """

    method: str
    tagger: str | None = None
    model: str | None = None
    scope: str | None = None
    window_words: int | None = None
    precision: str | None = None
    device: str | None = None
    word_cache: str | None = None
    seed: int | None = None
    per: str | None = None
    scorer: str | None = None
    word_counts: str | None = None

    def check(self) -> None:
        """Checks, before any work, that the method is known and that the other settings belong to it.

        Raises:
            ConfigError: the method or the value of `per` is unknown, a setting of another method is given,
                `window_words` is given without the scope "window", or the method custom has no function.
        """
        one_of("the method", self.method, SELECTION_METHODS)
        for key, value in asdict(self).items():
            if value is not None and not is_read(key, self.method):
                option = "--" + key.replace("_", "-")
                raise ConfigError(
                    f"method {self.method} has no use for {option} {value!r}; leave it out, or choose "
                    f"{' or '.join(_READERS[key])}"
                )
        if self.window_words is not None and self.scope != "window":
            raise ConfigError(
                f"--window-words {self.window_words} says how long windows are, and the scope is "
                f"{self.scope or DEFAULT_SCOPE}; leave it out, or choose --scope window"
            )
        if self.per is not None:
            one_of("--per", self.per, DRAWN_PER)
        if self.method in CUSTOM and self.scorer is None:
            raise ConfigError(
                "the method custom needs a function of yours; name it with --scorer FILE.py:FUNCTION, or choose one of "
                f"{', '.join(method for method in SELECTION_METHODS if method not in CUSTOM)}"
            )


@final
@dataclass(frozen=True, slots=True)
class Job:
    """Everything that decides a preprocessed dataset, and where it goes.

    Attributes:
        corpus: which documents are preprocessed.
        scorer: how importance is found.
        tokenizer: file, folder or hub id; None if it is to be trained.
        train_tokenizer: vocabulary size of a tokenizer to be trained on the corpus, or None.
        num_shards: parts on disk; document j goes to shard j % num_shards.
        out: the dataset lies in <out>/<method>/<name>_<split>.
    """

    corpus: CorpusChoice
    scorer: ScorerChoice
    tokenizer: str | None
    train_tokenizer: int | None
    num_shards: int
    out: str

    def check(self) -> None:
        """Checks what can be checked before any work.

        Raises:
            ConfigError: the method is unknown, its settings are wrong, the tokenizer is not determined, or there are
                no shards or too many.
        """
        self.scorer.check()
        if (self.tokenizer is None) == (self.train_tokenizer is None):
            raise ConfigError(
                "the tokenizer is not determined; give either --tokenizer (a file, a folder or a hub id such as gpt2) "
                "or --train-tokenizer with a vocabulary size"
            )
        require_at_least("the number of shards", self.num_shards, 1, most=MOST_SHARDS)


def require_shard(index: int, num_shards: int) -> None:
    """Checks that a dataset has a shard of this number.

    Raises:
        ConfigError: it has none.
    """
    if not 0 <= index < num_shards:
        raise ConfigError(
            f"shard {index} is out of range: the dataset has {num_shards}, numbered from 0 to {num_shards - 1}; choose "
            "one of them, or another number of shards for all"
        )
