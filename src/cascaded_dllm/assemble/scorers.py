"""The scorer of a preprocessing job, its tagger, and the encoder that every process makes."""

import difflib
from dataclasses import dataclass
from pathlib import Path
from typing import final

from cascaded_dllm.data.manifest import fingerprint
from cascaded_dllm.errors import ConfigError, DataError
from cascaded_dllm.importance.base import Scorer
from cascaded_dllm.importance.custom import CustomScorer
from cascaded_dllm.importance.keybert import DEFAULT_MODEL, KeybertScorer
from cascaded_dllm.importance.linear_tagger import LinearTagger
from cascaded_dllm.importance.placeholders import WithoutPlaceholders
from cascaded_dllm.importance.pos import PosScorer, Tagger
from cascaded_dllm.importance.random_scores import DRAWN_PER, RandomScorer
from cascaded_dllm.importance.stories_tagger import StoriesTagger
from cascaded_dllm.importance.taggers import LexiconTagger, SpacyTagger
from cascaded_dllm.importance.tfidf import TfidfScorer, load_frequencies
from cascaded_dllm.preprocess.encoder import Encoder
from cascaded_dllm.preprocess.job import DEFAULT_SCOPE, ScorerChoice
from cascaded_dllm.text.tokenizer import Tokenizer

DEFAULT_TAGGER = "en_core_web_md"
BUILT_IN_TAGGERS = ("english", "lexicon", "stories")
DEFAULT_WINDOW_WORDS = 96


@final
@dataclass(frozen=True, slots=True)
class MakeEncoder:
    """Makes the encoder of a job, in any process.

    Attributes:
        scorer: how importance is found.
        tokenizer: file, folder or hub id.
        frequencies: for tfidf, the file with the word counts of the corpus.
        identity: `encoder_identity` of the tokenizer and the scorer with which the job was planned.
    """

    scorer: ScorerChoice
    tokenizer: str
    frequencies: str | None
    identity: str

    def __call__(self) -> Encoder:
        """The encoder.

        Raises:
            DataError: the tokenizer, the tagger or the model has changed since the job was planned.
        """
        frequencies = None if self.frequencies is None else Path(self.frequencies)
        encoder = Encoder(Tokenizer.load(self.tokenizer), make_scorer(self.scorer, frequencies))
        # This process may run hours after the plan was made, and on another machine.
        if encoder_identity(encoder.tokenizer, encoder.scorer) != self.identity:
            raise DataError(
                f"the tokenizer {self.tokenizer}, or the model or function with which {self.scorer.method} finds "
                "importance, has changed since the job began; put it back and run the same command again, or start "
                "anew in another output folder"
            )
        return encoder


def encoder_identity(tokenizer: Tokenizer, scorer: Scorer) -> str:
    """A fingerprint of everything that decides tokens and their importance."""
    return fingerprint({"tokenizer": tokenizer.fingerprint, "scorer": scorer.describe()})


def make_scorer(choice: ScorerChoice, frequencies: Path | None = None) -> Scorer:
    """The scorer of a preprocessing method; placeholders do not count as words.

    Args:
        choice: the method and its settings.
        frequencies: for tfidf, the file with the word counts of the corpus.

    Raises:
        ConfigError: the method is unknown, or a setting belongs to another one.
        DataError: a model is missing.
        MissingExtraError: the library of a tagger or a model is not installed.
    """
    choice.check()
    return WithoutPlaceholders(_scorer_of(choice, frequencies))


def _scorer_of(choice: ScorerChoice, frequencies: Path | None) -> Scorer:
    match choice.method:
        case "constituency":
            return PosScorer(make_tagger(DEFAULT_TAGGER if choice.tagger is None else choice.tagger))
        case "keybert_no_stopword" | "keybert":
            return KeybertScorer(
                DEFAULT_MODEL if choice.model is None else choice.model,
                stop_words_last=choice.method == "keybert_no_stopword",
                scope=DEFAULT_SCOPE if choice.scope is None else choice.scope,
                window_words=DEFAULT_WINDOW_WORDS if choice.window_words is None else choice.window_words,
                precision="float32" if choice.precision is None else choice.precision,
                device="auto" if choice.device is None else choice.device,
                cache_dir=choice.word_cache,
            )
        case "random":
            return RandomScorer(choice.seed or 0, choice.per or DRAWN_PER[0])
        case "custom":
            assert choice.scorer is not None
            return CustomScorer(choice.scorer)
    assert frequencies is not None
    return TfidfScorer(load_frequencies(frequencies))


def make_tagger(name: str) -> Tagger:
    """The tagger called `name`: a built-in one, weights in a file that ends in .npz, or a spaCy model's name or folder.

    Raises:
        ConfigError: the name is close to that of a built-in one, which it does not equal.
        DataError: there are no such weights, or no such model.
        MissingExtraError: spaCy or TextBlob is not installed.
    """
    match name:
        case "english":
            return LinearTagger.shipped()
        case "lexicon":
            return LexiconTagger()
        case "stories":
            return StoriesTagger()
        case _ if name.endswith(".npz"):
            return LinearTagger.load(Path(name))
    if (near := difflib.get_close_matches(name, BUILT_IN_TAGGERS, n=1)) and not Path(name).exists():
        raise ConfigError(f"there is no tagger {name!r}; did you mean {near[0]}?")
    return SpacyTagger(name)
