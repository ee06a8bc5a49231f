"""Texts of a cascade on the terminal, finished or in progress; each token has the colour of the stage that wrote it."""

import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from rich.live import Live
from rich.text import Text

from cascaded_dllm.cascade.provenance import provenance
from cascaded_dllm.cli.console import console, visible
from cascaded_dllm.errors import ConfigError
from cascaded_dllm.sample.cascade import Cascade
from cascaded_dllm.sample.samples import CascadeSamples, CascadeState
from cascaded_dllm.text.tokenizer import Tokenizer

_STYLES = ("bold yellow", "cyan", "white", "magenta", "green")
_MASKED = " ·"
_NUM_WATCHED = 2
"""Texts shown while they are written."""
_REFRESHES = 20
"""Refreshes a second."""
_SECONDS_OF_STAGE = 2.0
"""Least time a stage of the first texts is shown, if it has enough steps; a small network writes it in an instant."""


def story_lines(cascade: Cascade, samples: CascadeSamples, index: int) -> Text:
    """All stages of one text, one below the other."""
    stages = [ids[index].tolist() for ids in samples.ids]
    return stage_lines(cascade.tokenizer, stages, first_stage=samples.first_stage)


def stage_lines(tokenizer: Tokenizer, stages: Sequence[Sequence[int]], *, first_stage: int = 1) -> Text:
    """All stages of one text, one below the other, without ends of text; a dot stands for a masked token."""
    shown = [[token for token in ids if token != tokenizer.eos_id] for ids in stages]
    text = Text()
    for number, (ids, origins) in enumerate(
        zip(shown, provenance(shown, first_stage=first_stage), strict=True), start=first_stage
    ):
        text.append(f"  {number}  ", style="dim")
        # Tokens of one stage are decoded together, because a character may span several tokens.
        pairs = zip(ids, origins, strict=True)
        for (origin, is_masked), run in itertools.groupby(pairs, lambda pair: (pair[1], pair[0] == tokenizer.mask_id)):
            tokens = [token for token, _ in run]
            if is_masked:
                text.append(_MASKED * len(tokens), style="dim")
            else:
                text.append(visible(tokenizer.decode(tokens)), style=_STYLES[(origin - 1) % len(_STYLES)])
        text.append("\n")
    return text


def require_terminal() -> None:
    """Checks that standard output is a terminal, which `--watch` needs.

    Raises:
        ConfigError: it is not.
    """
    if not console.is_terminal:
        raise ConfigError("--watch needs a terminal, and the output goes elsewhere; leave it out")


@contextmanager
def live_states(cascade: Cascade, total: int) -> Iterator[Callable[[CascadeState], None]]:
    """Shows the first texts of each batch while they are written; yields the function to call with every state.

    Finished texts stay on the terminal. The states of the first batch are slowed down so that they can be seen; those
    of later batches are shown only as long as the network takes.

    Args:
        cascade: cascade that writes the texts.
        total: number of texts in all.
    """
    with Live(console=console, transient=True, refresh_per_second=_REFRESHES) as live:
        stages: dict[int, list[list[int]]] = {}
        first_of_all, seen_until = None, 0.0

        def show(seen: CascadeState) -> None:
            nonlocal first_of_all, seen_until
            stage, first, state = seen
            first_of_all = first if first_of_all is None else first_of_all
            if first == first_of_all:
                time.sleep(max(0.0, seen_until - time.monotonic()))
                seen_until = time.monotonic() + min(1 / _REFRESHES, _SECONDS_OF_STAGE / max(state.num_steps, 1))
            for later in [number for number in stages if number > stage]:
                del stages[later]
            stages[stage] = state.xt[:_NUM_WATCHED].tolist()
            text = Text()
            for i in range(len(stages[stage])):
                shown = [stages[number][i] for number in sorted(stages)]
                text.append_text(stage_lines(cascade.tokenizer, shown, first_stage=min(stages))).append("\n")
            if stage == len(cascade.stages) and state.step == state.num_steps:
                live.update("", refresh=True)
                live.console.print(text, end="")
                return
            header = f"texts from {first} of {total}, stage {stage}: step {state.step} of {state.num_steps}\n"
            # The first and the last state of a stage are always drawn, however fast the network is.
            live.update(Text(header).append_text(text), refresh=state.step in (0, state.num_steps))

        yield show
