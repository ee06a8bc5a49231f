"""Drawing layouts: one gap after another in a random order, which is first hitting for a time-agnostic network."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from cascaded_dllm.diffusion.categorical import sample_tokens
from cascaded_dllm.diffusion.layout import gap_log_law
from cascaded_dllm.diffusion.philox import Draws
from cascaded_dllm.model.layout import LayoutModel
from cascaded_dllm.sample.layout_rules import LayoutRules
from cascaded_dllm.sample.required import Word
from cascaded_dllm.sample.writing import no_law


@dataclass(frozen=True, slots=True)
class LayoutRequest:
    """How the layouts of a batch are drawn.

    Attributes:
        together: for each text, all its tokens, grouped into words that stay in one piece; None if every token stands
            alone.
        rules: what layouts must leave room for; None for nothing.
        gaps_per_call: gaps that are drawn from the laws of one network call.
    """

    together: Sequence[Sequence[Word]] | None = None
    rules: LayoutRules | None = None
    gaps_per_call: int = 1


@torch.inference_mode()
def draw_gaps(
    model: LayoutModel,
    z: Int[Tensor, "B n"],
    known: Int[Tensor, "B G"],
    *,
    draws: Draws,
    sample_index: Int[Tensor, " B"],
    gaps_per_call: int = 1,
    rules: LayoutRules | None = None,
) -> Int[Tensor, "B G"]:
    """The gaps of every text, which sum to its number of new tokens; known gaps stay.

    Args:
        model: the layout network.
        z: ids of the texts that are laid out.
        known: the label of every gap, `hidden_label` where it is to be drawn; at least one gap of every text is.
        draws: the stream of random numbers.
        sample_index: number of each text.
        gaps_per_call: gaps that are drawn from the laws of one network call. Without rules, a later one of them only
            knows how many new tokens the earlier ones leave.
        rules: what layouts must leave room for; None for nothing.

    Raises:
        ConfigError: no layout leaves room for it.
        NonFiniteScoresError: the network answers with NaN or infinity.
    """
    gaps, every = known.clone(), torch.arange(len(z), device=z.device)
    is_hidden = gaps == model.hidden_label
    num_hidden = is_hidden.sum(-1)
    left = model.config.num_new - torch.where(is_hidden, 0, gaps).sum(-1)
    position = torch.arange(gaps.shape[1], device=z.device)
    # Known gaps come last in the order, and are never drawn.
    order = (draws.uniform_pair(sample_index[:, None], 0, position)[0] + ~is_hidden).argsort(dim=-1)
    turns, logits = int(num_hidden.max()), torch.zeros(len(z), gaps.shape[1], model.config.num_labels, device=z.device)
    is_lost = torch.zeros_like(is_hidden[:, 0])
    for turn in range(turns):
        # The last hidden gap takes all new tokens that are left, whatever the network says.
        if turn < turns - 1 and turn % gaps_per_call == 0:
            logits = model(z, gaps)
        place = order[:, turn]
        # Where all gaps of a text are drawn already, this draw is discarded.
        is_due = turn < num_hidden
        if rules is None:
            log_law = gap_log_law(logits[every, place], left, turn >= num_hidden - 1)
        else:
            log_law = rules.log_law(_log_laws(model, logits, gaps), place).to(logits)
        label = sample_tokens(log_law, draws.uniform_pair(sample_index, turn + 1, place))
        is_lost |= is_due & (label < 0)
        label = label.clamp_min(0)
        gaps[every, place] = torch.where(is_due, label, gaps[every, place])
        left = left - torch.where(is_due, label, 0)
    if is_lost.any():
        raise no_law(int(is_lost.sum()), gaps)
    return gaps


def _log_laws(model: LayoutModel, logits: Float[Tensor, "B G S"], gaps: Int[Tensor, "B G"]) -> Float[Tensor, "B G S"]:
    """The log law of every gap by itself; a known gap has its size with probability 1."""
    is_hidden = (gaps == model.hidden_label)[..., None]
    is_size = torch.arange(logits.shape[-1], device=gaps.device) == gaps[..., None]
    return torch.where(is_hidden, F.log_softmax(logits, dim=-1), torch.where(is_size, 0.0, -torch.inf))


def layout_calls(num_gaps: int, gaps_per_call: int) -> int:
    """Calls of the layout network for a text without known gaps; drawing the last gap takes none."""
    return -(-(num_gaps - 1) // gaps_per_call)


def known_gaps(model: LayoutModel, words: Sequence[Sequence[Word]], device: torch.device) -> Int[Tensor, "B G"]:
    """Labels of the gaps in which only the gaps inside a word are known: they are 0, which keeps the word together.

    Args:
        model: the layout network.
        words: for each text, its words, which are all its tokens; or none, if every token stands alone.
        device: where the labels go.
    """
    known = torch.full((len(words), model.config.num_gaps), model.hidden_label)
    for row, of_text in zip(known, words, strict=True):
        place = 0
        for word in of_text:
            row[place + 1 : place + len(word)] = 0
            place += len(word)
    return known.to(device)
