"""The importance of the tokens of an outline, for the stages before the one that the outline enters."""

from collections.abc import Sequence

from cascaded_dllm.importance.linear_tagger import LinearTagger
from cascaded_dllm.importance.pos import PosScorer
from cascaded_dllm.preprocess.encoder import Encoder
from cascaded_dllm.sample.constraints import Importance
from cascaded_dllm.text.document import Document
from cascaded_dllm.text.tokenizer import Tokenizer


def english_importance(tokenizer: Tokenizer) -> Importance:
    """Importance by part of speech with the tagger of this package, as in preprocessing with `--tagger english`.

    The returned function raises a MissingExtraError if spaCy or TextBlob is not installed.
    """

    def importance(text: str) -> tuple[Sequence[int], Sequence[float], str]:
        scorer = PosScorer(LinearTagger.shipped())
        (encoded,) = Encoder(tokenizer, scorer).encode([Document("outline", text)])
        return encoded.token_ids.tolist(), encoded.importance.tolist(), scorer.method

    return importance
