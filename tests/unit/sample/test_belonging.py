"""Whether checkpoints belong to data: what both say must agree, and what one of them does not say is no reason."""

import dataclasses
from typing import Any

import pytest

from cascaded_dllm.errors import CheckpointError
from cascaded_dllm.model.stage_settings import StageSettings
from cascaded_dllm.sample.belonging import TextKind, require_before
from tests.unit.model.tiny import VOCAB, tiny_model

LENGTHS = (3, 5, 8)
TEXTS = TextKind(tokenizer="0123", vocab_size=VOCAB, packing="document", unique=True, method="constituency")


def said(number: int, **changes: Any) -> StageSettings:
    settings = StageSettings(tiny_model(seed=0).config, {"type": "loglinear"}, number, LENGTHS, "0123", "document")
    return dataclasses.replace(settings, **changes)


def require(stages: list[StageSettings], texts: TextKind = TEXTS) -> None:
    earlier = [(f"runs/{number}", settings) for number, settings in enumerate(stages)]
    require_before(earlier, stage=3, stage_lengths=LENGTHS, texts=texts, key="earlier_stages")


@pytest.mark.parametrize("stages", [[2], [1, 2]])
def test_stages_just_before(stages: list[int]) -> None:
    require([said(number, method="constituency") for number in stages])
    # What a checkpoint of the original code does not say is not held against it.
    require([said(number, tokenizer="", packing="", method="") for number in stages])


@pytest.mark.parametrize(
    ("stages", "message"),
    [
        ([said(1)], r"runs/0 is stage 1 of lengths \[3, 5, 8\], and stage 2 of lengths .* was expected; give the"),
        ([said(2), said(1)], r"runs/0 is stage 2 of .*, and stage 1 of lengths"),
        ([said(1), said(3)], r"runs/1 is stage 3 of .*, and stage 2 of lengths"),
        (
            [said(2, stage_lengths=(3, 5, 9))],
            r"is stage 2 of lengths \[3, 5, 9\], and stage 2 of lengths \[3, 5, 8\]",
        ),
        ([said(0)], r"is a flat model of .* the stages just before stage 3 in order \(earlier_stages\)"),
        (
            [said(2, tokenizer="4567")],
            "was trained with the tokenizer 4567, and stage 3 has the tokenizer 0123; train all stages alike, on the "
            "same data$",
        ),
        (
            [said(2, packing="stream")],
            "was trained with windows of packing 'stream', and stage 3 has windows of packing 'document'; .*: "
            "data.packing=stream for this one$",
        ),
        (
            [said(2, unique=False)],
            "was trained with shortened stages of data.unique=false, and stage 3 has shortened stages of "
            "data.unique=true; .*: data.unique=false for this one$",
        ),
        (
            [said(2, method="tfidf")],
            "was trained with texts that the method tfidf chose, and stage 3 has texts that the method constituency",
        ),
    ],
)
def test_stages_that_do_not_fit(stages: list[StageSettings], message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        require(stages)


def test_another_vocabulary() -> None:
    message = f"was trained with a vocabulary of {VOCAB} tokens, and stage 3 has a vocabulary of 9 tokens"
    with pytest.raises(CheckpointError, match=message):
        require([said(2, tokenizer="")], dataclasses.replace(TEXTS, vocab_size=9))


def test_flat_model_does_not_care_how_stages_are_chosen() -> None:
    flat = TextKind.of_checkpoint(said(0, unique=False, method="tfidf"))
    assert flat.contradiction(TEXTS) is None
    assert TextKind.of_checkpoint(said(1, unique=False)).contradiction(TEXTS) is not None


PER_WORD = {"per": "word", "seed": 3}


def drawn(choice: dict[str, Any] | None) -> StageSettings:
    return said(2, method="random", choice=choice)


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        (
            {"per": "word", "seed": 4},
            r"with a choice by chance per word with the seed 4, and stage 3 has a choice by chance per word with",
        ),
        (
            {"per": "occurrence", "seed": 3},
            r"a choice by chance per occurrence, and stage 3 has a choice by chance per word",
        ),
    ],
)
def test_numbers_of_chance(choice: dict[str, Any], message: str) -> None:
    texts = TextKind.of_checkpoint(drawn(PER_WORD))
    require([drawn(PER_WORD)], texts)
    require([drawn(None)], texts)  # checkpoints of before they were told
    with pytest.raises(CheckpointError, match=message):
        require([drawn(choice)], texts)


def test_seed_of_every_occurrence_decides_nothing() -> None:
    one, other = (TextKind.of_checkpoint(drawn({"per": "occurrence", "seed": seed})) for seed in (0, 1))
    assert one == other
