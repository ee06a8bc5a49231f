"""Stages on the terminal: the colours of tokens, texts under way, and what is shown while they are written."""

import io
from types import SimpleNamespace

import pytest
import torch
from rich.console import Console

from cascaded_dllm.cli import show
from cascaded_dllm.cli.show import require_terminal, stage_lines, story_lines
from cascaded_dllm.errors import ConfigError
from cascaded_dllm.sample.cascade import Cascade
from cascaded_dllm.sample.samples import CascadeSamples, CascadeState
from cascaded_dllm.sample.state import SamplerState
from cascaded_dllm.text.tokenizer import Tokenizer


def test_lines_show_every_stage_without_end_of_text():
    tokenizer = Tokenizer.train(["The fox found a key."], 400)
    cascade = Cascade((), tokenizer, ())
    whole, eos = tokenizer.encode("The fox found a key.").ids, tokenizer.eos_id
    short = [whole[0], whole[-1]]
    samples = CascadeSamples(
        ids=(torch.tensor([short, short]), torch.tensor([whole, [eos] * len(whole)])),
        texts=(["", ""], ["", ""]),
        nfe=(1.0, 1.0),
        token_forwards=1,
        first_stage=1,
        final_texts=["The fox found a key.", ""],
    )
    lines = story_lines(cascade, samples, 0)
    assert lines.plain == f"  1  {tokenizer.decode(short)}\n  2  The fox found a key.\n"
    styles = {lines.plain[span.start : span.end]: span.style for span in lines.spans}
    assert styles[tokenizer.decode(whole[:1])] == "bold yellow"
    # What one stage wrote is shown in one piece, so that no character is torn.
    assert styles[tokenizer.decode(whole[1:-1])] == "cyan"
    assert story_lines(cascade, samples, 1).plain.endswith("  2  \n")


def test_a_text_under_way():
    """What is not written is a dot; the colour of a stage is its own, also where the first ones are unknown."""
    tokenizer = Tokenizer.train(["The fox found a key. " * 9], 300)
    whole = tokenizer.encode("The fox").ids
    half = [whole[0], *[tokenizer.mask_id] * 2]
    lines = stage_lines(tokenizer, [whole, half], first_stage=2)
    assert lines.plain == f"  2  The fox\n  3  {tokenizer.decode(whole[:1])} · ·\n"
    assert [str(span.style) for span in lines.spans] == ["dim", "cyan", "dim", "cyan", "dim"]


def test_control_characters_of_a_text_are_pictures():
    """So that a network that has learnt nothing does not clear the screen."""
    tokenizer = Tokenizer.train(["The fox found a key."], 400)
    ids = tokenizer.encode("fox\x1b[2J").ids
    assert stage_lines(tokenizer, [ids]).plain == "  1  fox\u241b[2J\n"


def test_watching_needs_a_terminal():
    with pytest.raises(ConfigError, match="--watch needs a terminal, and the output goes elsewhere; leave it out"):
        require_terminal()


def test_the_first_texts_are_watched(monkeypatch):
    """A later stage stands below the one before; with the next batch it begins anew."""
    tokenizer = Tokenizer.train(["The fox found a key. " * 9], 300)
    whole = torch.tensor([tokenizer.encode("The fox").ids] * 3)
    shown = []
    monkeypatch.setattr(show, "console", Console(file=io.StringIO(), force_terminal=True, width=80))
    monkeypatch.setattr(show.Live, "update", lambda self, text, refresh=False: shown.append(text.plain))
    with show.live_states(Cascade((), tokenizer, ()), 6) as tell:
        tell(CascadeState(1, 0, SamplerState(torch.full_like(whole, tokenizer.mask_id), 0, 2, 0.0)))
        tell(CascadeState(1, 0, SamplerState(whole, 2, 2, 2.0)))
        tell(CascadeState(2, 0, SamplerState(whole, 1, 2, 1.0)))
        tell(CascadeState(1, 3, SamplerState(whole, 2, 2, 2.0)))
    dots = " ·" * whole.shape[1]
    assert shown == [
        "texts from 0 of 6, stage 1: step 0 of 2\n" + f"  1  {dots}\n\n" * 2,
        "texts from 0 of 6, stage 1: step 2 of 2\n" + "  1  The fox\n\n" * 2,
        "texts from 0 of 6, stage 2: step 1 of 2\n" + "  1  The fox\n  2  The fox\n\n" * 2,
        "texts from 3 of 6, stage 1: step 2 of 2\n" + "  1  The fox\n\n" * 2,
    ]


@pytest.mark.parametrize(("num_steps", "call", "slept"), [(4, 0.0, 0.05), (200, 0.0, 0.01), (4, 0.02, 0.03), (4, 1, 0)])
def test_the_first_batch_is_slow_enough_to_be_seen(monkeypatch, num_steps, call, slept):
    """Every state stays for a twentieth of a second, but a stage not for more than two seconds because of that."""
    tokenizer = Tokenizer.train(["The fox found a key. " * 9], 300)
    ids, now, pauses = torch.tensor([tokenizer.encode("The fox").ids]), 0.0, []

    def sleep(seconds: float) -> None:
        nonlocal now
        pauses.append(seconds)
        now += seconds

    monkeypatch.setattr(show, "console", Console(file=io.StringIO(), force_terminal=True, width=80))
    monkeypatch.setattr(show, "time", SimpleNamespace(monotonic=lambda: now, sleep=sleep))
    with show.live_states(Cascade((), tokenizer, ()), 2) as tell:
        for step in range(4):
            tell(CascadeState(1, 0, SamplerState(ids, step, num_steps, 0.0)))
            now += call
        assert pauses == [0.0, *[pytest.approx(slept)] * 3]
        tell(CascadeState(1, 1, SamplerState(ids, 1, num_steps, 0.0)))
        tell(CascadeState(1, 1, SamplerState(ids, 2, num_steps, 0.0)))
    assert len(pauses) == 4, "the batches behind it go as fast as they can"
