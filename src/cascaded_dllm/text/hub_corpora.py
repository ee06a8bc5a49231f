"""The corpora known by name: where they are on the Hugging Face hub, and in which form."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import final

from cascaded_dllm.text.forms import Form
from cascaded_dllm.text.rows import DEFAULT_TEXT_FIELD


@final
@dataclass(frozen=True, slots=True)
class HubCorpus:
    """A dataset of the hub, and how to read its rows.

    Attributes:
        id: "owner/name".
        config: one of the dataset's configurations; None if it has only one.
        commit: the commit to read; None for the one in the cache, or else the newest of `branch`.
        branch: used without `commit`.
        text_field: the column that holds the text.
        form: the form in which the texts are written; None for texts as people write them.
        splits: its splits, if they are known beforehand; else empty.
    """

    id: str
    config: str | None = None
    commit: str | None = None
    branch: str = "main"
    text_field: str = DEFAULT_TEXT_FIELD
    form: Form | None = None
    splits: tuple[str, ...] = ()


_WIKITEXT = HubCorpus(
    "Salesforce/wikitext",
    commit="b08601e04326c79dfdd32d625aee71d232d685c3",
    form="wikitext",
    splits=("train", "validation", "test"),
)
HUB_CORPORA: Mapping[str, HubCorpus] = {
    "wikitext103": replace(_WIKITEXT, config="wikitext-103-raw-v1"),
    "wikitext2": replace(_WIKITEXT, config="wikitext-2-raw-v1"),
    # A dataset with a loading script, which the library no longer runs; the hub has converted it on this branch.
    "ptb": HubCorpus(
        "ptb-text-only/ptb_text_only",
        branch="refs/convert/parquet",
        text_field="sentence",
        form="ptb",
        splits=("train", "validation", "test"),
    ),
    "lm1b": HubCorpus(
        "billion-word-benchmark/lm1b",
        commit="8d52bfd3cc2819fc1166dbb8144c328e2690de3e",
        form="lm1b",
        splits=("train", "test"),
    ),
    "lambada": HubCorpus(
        "EleutherAI/lambada_openai",
        config="default",
        commit="900124bf3b8235c6daf21033af9948b3f07346c4",
        form="lambada",
        splits=("test",),
    ),
    "openwebtext": HubCorpus(
        "Skylion007/openwebtext", commit="79d93d786212f7344586290adb811d4ae6a1762c", splits=("train",)
    ),
}
"""The corpora known by name, as plain files that need no code of others, at fixed commits where possible."""
