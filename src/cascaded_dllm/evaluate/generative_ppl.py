"""Generative perplexity: how probable texts are under the judge, another language model, which is causal.

Published figures differ in what they average, so each average has its own function. Both count every token: a text is
cut into the judge's tokens as it is, its first token is judged given the judge's token for the beginning of a text, and
a text longer than the judge's context is judged in windows. SEDD and MDLM leave the first token out, which matters
little for 1,024 tokens and much for 40. A low value alone says nothing: a text that repeats one word has the lowest
(Zheng et al. 2024, arXiv:2409.02908), so diversity belongs beside it.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from cascaded_dllm.errors import ConfigError, MissingExtraError
from cascaded_dllm.evaluate.intervals import PerText, jackknife_error
from cascaded_dllm.hub_requests import model_errors, problem_with_model
from cascaded_dllm.importance.sentence_files import no_progress_bar, tokenizer_text, weights_digest

TokenNats = Float[Tensor, "_"]
"""-log p of every token of one text under the judge, in nats, float64; of length 0 for an empty text."""

PPL_DEFINITIONS = {
    "generative_ppl_per_sequence": "mean over texts of exp(mean nats a token of the judge); all texts that have one",
    "generative_ppl_corpus": "exp(nats of all texts / tokens of the judge in all texts)",
}
"""What the figures are, for those who read them without this package."""

_WEIGHTS = ("*.safetensors", "*.bin")
"""Names of the files that hold the weights of a judge in a folder."""

_CONTEXT = 1024
"""Tokens that a judge reads at once if its network has no limit."""

_Read = TypeVar("_Read")

_CALL_ELEMENTS = 1 << 26
"""Most logits of one call of the judge, 256 MB in float32."""


@dataclass(frozen=True, slots=True)
class Judge:
    """A causal language model with its own tokenizer.

    Attributes:
        model: of the transformers library, in evaluation mode and float32.
        tokenizer: its own.
        source: its name, a folder or a hub id if it was loaded.
        begin_id: token in front of every text.
        context: most tokens that it reads at once, `begin_id` included.
    """

    model: Any
    tokenizer: Any
    source: str
    begin_id: int
    context: int

    @classmethod
    def load(cls, source: str) -> "Judge":
        """The judge in a folder or, if there is no such folder, with a hub id such as `gpt2`; on the CPU.

        Raises:
            ConfigError: it cannot be found, lacks weights, has no token that begins a text, or no context to judge in.
            MissingExtraError: transformers is not installed.
        """
        library = _library()

        def read(is_local: bool) -> tuple[Any, Any, dict[str, Any]]:
            tokenizer = library.AutoTokenizer.from_pretrained(source, local_files_only=is_local)
            model, info = library.AutoModelForCausalLM.from_pretrained(
                source, local_files_only=is_local, output_loading_info=True, dtype=torch.float32
            )
            return tokenizer, model.eval().requires_grad_(False), info

        tokenizer, model, info = _read(source, read)
        _require_all_weights(info, source)
        begin_id = _begin_id(tokenizer, source)
        return cls(model, tokenizer, source, begin_id, _context(model.config, source))

    @classmethod
    def require(cls, source: str) -> None:
        """Checks without its weights that there is a judge, so that a mistake shows at once; see `load`.

        Raises:
            ConfigError: it cannot be found, is not a causal language model, has no token that begins a text, or is a
                folder without weights.
            MissingExtraError: transformers is not installed.
        """
        library, folder = _library(), Path(source)

        def read(is_local: bool) -> Any:
            config = library.AutoConfig.from_pretrained(source, local_files_only=is_local)
            # No weights are allocated, but a network that is not a causal language model is refused.
            with torch.device("meta"):
                library.AutoModelForCausalLM.from_config(config)
            return library.AutoTokenizer.from_pretrained(source, local_files_only=is_local)

        _begin_id(_read(source, read), source)
        if folder.is_dir() and not any(any(folder.glob(names)) for names in _WEIGHTS):
            raise ConfigError(
                f"the judge is {source!r}, a folder without weights ({' or '.join(_WEIGHTS)}); give the folder or hub "
                "id of a whole causal language model"
            )

    def fingerprint(self) -> str:
        """16 hex digits of all that decides its figures: weights, tokenizer and context."""
        digest = weights_digest(self.model.state_dict())
        digest.update(f"{tokenizer_text(self.tokenizer)} {self.begin_id} {self.context}".encode())
        return digest.hexdigest()[:16]

    @contextlib.contextmanager
    def on(self, device: torch.device) -> Iterator[None]:
        """Moves the judge to `device` inside the block, and back to the CPU after it, to free the device's memory."""
        self.model.to(device)
        try:
            yield
        finally:
            self.model.to("cpu")

    @torch.inference_mode()
    def token_nats(self, texts: Sequence[str], *, on_call: Callable[[], None] = lambda: None) -> list[TokenNats]:
        """-log p of every token of every text, in the order of the texts.

        A text of more than `context` - 1 tokens is read in windows that overlap by half a context. Each token is judged
        once, given at least half a context before it, or all there is.
        """
        ids = [self.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"] for text in texts]
        windows = [window for number, row in enumerate(ids) for window in self._windows(number, row)]
        # Long windows together, so that little is padded; their order changes nothing but rounding.
        windows.sort(key=lambda window: len(window.ids), reverse=True)
        found = [torch.zeros(len(row), dtype=torch.float64) for row in ids]
        start = 0
        while start < len(windows):
            per_window = len(windows[start].ids) * self.model.config.vocab_size
            part = windows[start : start + max(1, _CALL_ELEMENTS // per_window)]
            start += len(part)
            on_call()
            for window, nats in zip(part, self._window_nats(part), strict=True):
                found[window.text][window.first : window.first + window.num_judged] = nats
        return found

    def _windows(self, number: int, ids: list[int]) -> Iterator["_Window"]:
        """Pieces of one text that fit into the context, each with the tokens that it judges."""
        read, stride = [self.begin_id, *ids], max(1, self.context // 2)
        judged = 0
        while judged < len(ids):
            # The first window begins with the text; every later one half a context before what it judges.
            begin = 0 if judged == 0 else judged + 1 - stride
            piece = read[begin : begin + self.context]
            num_new = begin + len(piece) - 1 - judged
            yield _Window(number, piece, judged, num_new)
            judged += num_new

    def _window_nats(self, windows: Sequence["_Window"]) -> Iterator[TokenNats]:
        """The nats of the tokens that each window judges, from one call."""
        length = max(len(window.ids) for window in windows)
        # Padding stands behind the text, where a causal model does not see it.
        rows = [window.ids + [self.begin_id] * (length - len(window.ids)) for window in windows]
        read = torch.tensor(rows, device=self.model.device)
        mask = torch.tensor([[1] * len(w.ids) + [0] * (length - len(w.ids)) for w in windows], device=self.model.device)
        logits = self.model(input_ids=read, attention_mask=mask).logits.float()
        for window, row, ids in zip(windows, logits, read, strict=True):
            nats = F.cross_entropy(row[: len(window.ids) - 1], ids[1 : len(window.ids)], reduction="none")
            yield nats[-window.num_judged :].double().cpu()


@dataclass(frozen=True, slots=True)
class _Window:
    """A piece of a text: `ids` are read, and the last `num_judged` of them, from token `first` of the text, judged."""

    text: int
    ids: list[int]
    first: int
    num_judged: int


def ppl_per_text(token_nats: Sequence[TokenNats]) -> Float[Tensor, "_"]:
    """exp(mean nats a token) of every text that has a token, float64; `num_empty` counts the others.

    SEDD and its successors report the mean over texts: every text counts alike, so a single bad one can decide it.
    """
    found = [nats.mean().exp() for nats in token_nats if len(nats) > 0]
    return torch.stack(found) if found else torch.zeros(0, dtype=torch.float64)


def ppl_corpus_and_error(token_nats: Sequence[TokenNats]) -> tuple[float | None, float | None]:
    """exp(nats of all texts together / tokens of all texts together): what MDLM and its successors report.

    Every token counts alike, and an empty text has none. The error is the jackknife's over texts, since tokens of one
    text depend on each other.

    Returns:
        The perplexity, None if no text has a token; and its standard error, None where fewer than 2 texts have.
    """
    lengths = np.array([float(len(nats)) for nats in token_nats])
    sample = PerText(np.array([float(nats.sum()) for nats in token_nats]), lengths).counted
    if len(sample) == 0:
        return None, None
    # A perplexity beyond float64 is infinite and has no error.
    with np.errstate(over="ignore"):
        value = float(np.exp(sample.estimate))
        return value, jackknife_error(np.exp(sample.without_each)) if len(sample) > 1 else None


def num_empty(token_nats: Sequence[TokenNats]) -> int:
    """The number of texts without a token, which have no perplexity."""
    return sum(len(nats) == 0 for nats in token_nats)


def _library() -> ModuleType:
    try:
        import transformers
    except ImportError as error:
        raise MissingExtraError("transformers", extra="eval", purpose="generative perplexity") from error
    return transformers


def _context(config: Any, source: str) -> int:
    """The most tokens that a judge reads at once.

    Raises:
        ConfigError: it reads one, and the first one is not of the text.
    """
    context: int | None = getattr(config, "max_position_embeddings", None)
    if context is None or context < 1:  # -1 is how XLNet says that it has no limit
        return _CONTEXT
    if context == 1:
        raise ConfigError(
            f"the judge is {source}, which reads 1 token at a time, and the first one is not of the text; give a judge "
            "with a context of at least 2"
        )
    return context


def _begin_id(tokenizer: Any, source: str) -> int:
    """The token in front of every text.

    Raises:
        ConfigError: there is none.
    """
    # GPT-2 has one token for the beginning and the end of a text.
    begin_id = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
    if begin_id is None:
        raise ConfigError(
            f"the judge is {source!r}, whose tokenizer has no token for the beginning or the end of a text, so the "
            "first token of a text cannot be judged; choose another, for example gpt2"
        )
    return int(begin_id)


def _require_all_weights(info: dict[str, Any], source: str) -> None:
    """Checks that no weights are missing, to which the library would give random values with a mere warning.

    Raises:
        ConfigError: some are missing.
    """
    if missing := sorted(info["missing_keys"]) + sorted(map(str, info["mismatched_keys"])):
        raise ConfigError(
            f"the judge is {source!r}, whose files lack {len(missing)} weights of the network, for example "
            f"{missing[0]}; give the folder or hub id of a whole causal language model"
        )


def _read(source: str, read: Callable[[bool], _Read]) -> _Read:
    """The result of `read` on the files of a folder or of the local cache or, if it has none, of the hub.

    Args:
        source: folder or hub id.
        read: gets whether it may read local files only.

    Raises:
        ConfigError: the files are nowhere, or incomplete.
    """
    found: Exception | None = None
    for is_local in (True,) if Path(source).is_dir() else (True, False):
        if not is_local and (problem := problem_with_model(source)) is not None:
            found = problem
            break
        try:
            with no_progress_bar():
                return read(is_local)
        except model_errors() as error:
            found = error
    raise ConfigError(
        f"the judge is {source!r}, which is not a causal language model here and could not be fetched from the hub "
        f"({type(found).__name__}); check the name, give a folder, or train a judge on text of your own with "
        "`cdllm judge train`"
    )
