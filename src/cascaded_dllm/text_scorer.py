"""Bounds on -log p of continuations and of whole texts, under a flat model or a cascade; and continuations of contexts.

For a continuation, a flat model gives its bound on -log p(continuation | context). A cascade writes whole texts, so it
gives its joint bound on -log p of context and continuation together. Both rank the continuations of one context, which
must be asked for together if the context is too long for a window; what a continuation alone costs a cascade is not
known.

A continuation is short, and in the integral over time its few tokens are rarely masked, so the estimate scatters. If
the network of a flat model is normalised and does not see the time, it is evaluated token by token in random orders
instead; see `sequential`.
"""

import zlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch

from cascaded_dllm.cascade.select import INELIGIBLE_LABEL, select_positions
from cascaded_dllm.checks import require_whole
from cascaded_dllm.diffusion.bound import MEASURED_FROM
from cascaded_dllm.diffusion.philox import Draws
from cascaded_dllm.errors import ConfigError
from cascaded_dllm.evaluate.sequential import sequential_nats, writes_in_any_order
from cascaded_dllm.model.devices import host_by_default, require_precise_default
from cascaded_dllm.sample.cascade import Cascade
from cascaded_dllm.sample.control import Pin
from cascaded_dllm.sample.outline import english_importance
from cascaded_dllm.train.objective import Batch, Objective


@dataclass(frozen=True, slots=True, kw_only=True)
class TextScorer:
    """Estimates the costs of texts, in nats; each depends on the seed and the text, not on the other texts.

    Under a cascade, how much is kept of a context that is too long also depends on its other continuations.

    Attributes:
        cascade: a flat model, or all stages of a cascade.
        num_times: times of the integral for each text, if there is an integral.
        num_orders: orders for each text, if a flat model is evaluated token by token.
        seed: decides times, orders and noise.
        batch_size: texts computed together.
    """

    cascade: Cascade
    num_times: int = 32
    num_orders: int = 8
    seed: int = 0
    batch_size: int = 32

    def __post_init__(self) -> None:
        if not self.cascade.is_flat and self.cascade.stage_lengths != self.cascade.trained_lengths:
            raise ConfigError(
                f"{len(self.cascade.stages)} of {len(self.cascade.trained_lengths)} stages are given, which do not "
                "write a whole text; give all of them"
            )
        for name in ("num_times", "num_orders", "batch_size"):
            require_whole(name, getattr(self, name), 1)
        require_whole("seed", self.seed)

    @property
    def window(self) -> int:
        """The number of tokens in a window."""
        return self.cascade.trained_lengths[-1]

    @host_by_default()
    def continuation_nats(self, pairs: Sequence[tuple[str, str]]) -> list[float]:
        """The cost of every (context, continuation) in nats: of the continuation alone, or with a cascade of both.

        Raises:
            ConfigError: a continuation has no token, or more than fit into a window.
        """
        found = [self._pair(*pair) for pair in pairs]
        if self.cascade.is_flat:
            return self._flat_costs(found)
        by_context: Mapping[str, list[int]] = defaultdict(list)
        for number, (context, _) in enumerate(pairs):
            by_context[context].append(number)
        texts = [""] * len(pairs)
        for members in by_context.values():
            for number, text in zip(members, self._whole_texts([found[number] for number in members]), strict=True):
                texts[number] = text
        return [sum(self._window_costs(text)) for text in texts]

    @host_by_default()
    def text_nats(self, texts: Sequence[str]) -> list[float]:
        """The cost of every text in nats, summed over consecutive windows; a flat model knows the token before each."""
        return [self._flat_text(text) if self.cascade.is_flat else sum(self._window_costs(text)) for text in texts]

    def _flat_text(self, text: str) -> float:
        ids = [self.cascade.tokenizer.eos_id, *self.cascade.tokenizer.encode(text).ids]
        starts = range(1, len(ids), self.window - 1)
        return sum(self._flat_costs([(ids[s - 1 : s], ids[s : s + self.window - 1]) for s in starts]))

    def written(self, contexts: Sequence[str]) -> list[str]:
        """The text written after every context.

        The context is pinned at the start of the last stage. If it is longer than half of the tokens that this stage
        adds, only its end is kept.
        """
        tokenizer, last = self.cascade.tokenizer, len(self.cascade.stages)
        new = self.window if last == 1 else self.window - self.cascade.stage_lengths[-2]
        found = []
        for number, context in enumerate(contexts):
            ids = tokenizer.encode(context).ids
            kept = ids[max(0, len(ids) - new // 2) :]
            # Their text would be cut into other tokens if they begin inside a character.
            pins = (Pin(last, "start", tuple(kept)),) if kept else ()
            written = self.cascade.generate(1, pinned=pins, seed=self.seed + number).ids[-1][0].tolist()
            found.append(tokenizer.decode_window(written[len(kept) :]))
        return found

    def _pair(self, context: str, continuation: str) -> tuple[list[int], list[int]]:
        """The tokens of context and continuation, tokenized together as in a text, so that both agree on the border.

        Raises:
            ConfigError: the continuation has no token, or too many.
        """
        tokenizer = self.cascade.tokenizer
        # A space at the end of the context belongs to the word that follows.
        kept = context.rstrip()
        whole = tokenizer.encode(context + continuation).ids
        num_context = len(tokenizer.encode(kept).ids)
        before, after = whole[:num_context], whole[num_context:]
        if not after or len(after) > self.window - 1:
            raise ConfigError(
                f"a continuation has {len(after)} tokens, and the models write {self.window}, of which one is the end "
                f"of text before or after; give 1 to {self.window - 1} tokens"
            )
        if self.cascade.is_flat:
            # The start of a text follows the end of another one. Without room for all of it, its end is kept.
            return [tokenizer.eos_id, *before][-(self.window - len(after)) :], after
        return before, after

    def _whole_texts(self, pairs: Sequence[tuple[list[int], list[int]]]) -> list[str]:
        """The texts of one context and its continuations, with as much of the end of the context as fits into a window.

        A cascade pays for the context too. So all continuations get the same part of it, for which the longest decides.
        """
        tokenizer = self.cascade.tokenizer
        # An end of text follows, which needs room too.
        num_cut = max(0, *(len(before) + len(after) - (self.window - 1) for before, after in pairs))
        while True:
            texts = [(before[num_cut:], after) for before, after in pairs]
            decoded = [tokenizer.decode([*end, *after]) for end, after in texts]
            # A text that begins inside a character or a word may be cut into more tokens than there is room for.
            if all(
                not end or tokenizer.encode(text).ids == [*end, *after]
                for (end, after), text in zip(texts, decoded, strict=True)
            ):
                return decoded
            num_cut += 1

    def _flat_costs(self, pairs: Sequence[tuple[list[int], list[int]]]) -> list[float]:
        """The cost of every continuation given its context under a flat model, in nats."""
        by_shape: Mapping[tuple[int, int], list[int]] = defaultdict(list)
        for number, (before, after) in enumerate(pairs):
            by_shape[len(before), len(after)].append(number)
        costs = [0.0] * len(pairs)
        for (num_known, _), members in by_shape.items():
            places = torch.arange(num_known)
            for first in range(0, len(members), self.batch_size):
                part = members[first : first + self.batch_size]
                ids = [[*pairs[number][0], *pairs[number][1]] for number in part]
                batch = Batch(torch.tensor(ids), None, _numbers(ids), places=places.expand(len(part), -1))
                for number, cost in zip(part, self._bound(0, batch), strict=True):
                    costs[number] = cost
        return costs

    def _window_costs(self, text: str) -> list[float]:
        """The joint bound of every window of a text, in nats; ends of text fill up the last window."""
        ids, importance, method = english_importance(self.cascade.tokenizer)(text)
        length = self.window
        filled = -len(ids) % length
        tokens = [*ids, *[self.cascade.tokenizer.eos_id] * filled]
        values = [*importance, *[float(INELIGIBLE_LABEL)] * filled]
        costs = []
        for first in range(0, len(ids), length):
            window, of_window = tokens[first : first + length], values[first : first + length]
            lengths = self.cascade.stage_lengths
            positions = select_positions(window, of_window, lengths, method=method, unique=self.cascade.unique)
            # Repeated tokens fill a stage that lacks distinct ones: the bound holds for any choice of shorter stages.
            chosen = positions or select_positions(window, of_window, lengths, method=method, unique=False)
            assert chosen is not None, "with repeated tokens, no window lacks tokens"
            costs.append(self._cascade_cost(window, chosen))
        return costs

    def _cascade_cost(self, window: list[int], positions: list[list[int]]) -> float:
        """The joint bound of one window whose stages keep the tokens at these positions, in nats."""
        index, total = _numbers([window]), 0.0
        for stage, (before, kept) in enumerate(pairwise([[], *positions])):
            target = torch.tensor([[window[place] for place in kept]])
            prefix = torch.tensor([[window[place] for place in before]]) if before else None
            places = None
            if self.cascade.stages[stage].is_placed:
                places = torch.tensor([[kept.index(place) for place in before]])
            [cost] = self._bound(stage, Batch(target, prefix, index, places=places))
            total += cost
        return total

    def _bound(self, stage: int, batch: Batch) -> list[float]:
        """The bound of every target of a batch, in nats.

        Raises:
            ConfigError: torch's default dtype is too coarse.
        """
        require_precise_default()
        found = self.cascade.stages[stage]
        there = batch.to(self.cascade.device)
        if self.cascade.is_flat and writes_in_any_order(found.model, found.process):
            draws = Draws(self.seed, "harness-orders")
            return sequential_nats(
                found.model, there, draws=draws, num_orders=self.num_orders, num_rows=self.batch_size
            ).tolist()
        objective = Objective(found.process, found.schedule, MEASURED_FROM)
        draws = Draws(self.seed, f"harness-{stage}")
        estimate = objective.bound(found.model, there, draws=draws, num_times=self.num_times)
        return estimate.nll_nats.tolist()


def _numbers(texts: Sequence[Sequence[int]]) -> torch.Tensor:
    """A number for every text that depends on its tokens alone, so that its noise does not depend on its neighbours."""
    return torch.tensor([zlib.crc32(repr(list(ids)).encode()) for ids in texts])
