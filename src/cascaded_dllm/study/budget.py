"""The cost of a step of every run of an arm, and the number of steps that a budget pays for."""

import itertools
import math
import typing
from collections.abc import Sequence
from dataclasses import replace

from cascaded_dllm.assemble.rewriting import Writer, rewriting_cost
from cascaded_dllm.assemble.stage import layout_config, model_config, schedule
from cascaded_dllm.config import TrainConfig
from cascaded_dllm.errors import ConfigError
from cascaded_dllm.model.placed import Halves
from cascaded_dllm.study_config import BudgetSettings
from cascaded_dllm.train.flops import mean_masked_share
from cascaded_dllm.train.meter import Shape, StepCost, step_cost
from cascaded_dllm.train.prefixes import NO_COST, WritingCost

_NEARLY = 0.95
"""Share of the largest number of steps from which on the smallest may replace it."""


def cost_of_step(config: TrainConfig, vocab_size: int) -> StepCost:
    """The cost of an optimizer step of a run, computed without its data."""
    model = model_config(config, vocab_size)
    number = len(config.stage_lengths) if config.baseline else config.stage
    length = config.stage_lengths[number - 1]
    prefix = 0 if config.baseline or number == 1 else config.stage_lengths[number - 2]
    layout = layout_config(config, model, num_tokens=prefix, num_new=length - prefix) if config.is_placed else None
    shapes = [Shape(prefix, length, length) if layout is None else Shape(0, length, length - prefix)]
    if config.training.fills:
        shapes += [Shape(0, m, m - n) for n, m in itertools.pairwise((0, *config.stage_lengths))]
    return step_cost(
        model,
        layout,
        batch_size=config.training.batch_size,
        shapes=shapes,
        masked_share=mean_masked_share(schedule(config), config.training.t_min),
        halves=typing.cast(Halves, config.training.halves),
        rewriting=_rewriting(config, vocab_size),
    )


def _rewriting(config: TrainConfig, vocab_size: int) -> WritingCost:
    """The mean cost per sequence of prefixes that earlier stages rewrite; these need not be trained yet.

    They are taken to have the settings of this stage except its number. While no paths are set, only the stage just
    before rewrites.
    """
    generated = config.training.generated_prefix
    if generated.prob == 0 or not config.has_prefix:
        return NO_COST
    lengths = (0, *config.stage_lengths)
    writers = [
        Writer(
            model_config(replace(config, stage=number), vocab_size),
            schedule(config),
            lengths[number],
            lengths[number - 1],
        )
        for number in range(config.stage - max(len(generated.stage_paths), 1), config.stage)
    ]
    cost = rewriting_cost(writers, generated)
    return WritingCost(generated.prob * cost.token_forwards, generated.prob * cost.flops)


def amount_of(cost: StepCost, budget: BudgetSettings) -> float:
    """The cost in the unit of a budget."""
    return cost.flops if budget.unit == "flops" else float(cost.token_forwards)


def steps_of_runs(budget: BudgetSettings, costs: Sequence[StepCost], arm: str) -> list[int]:
    """The number of steps of every run of an arm; together they cost at most the budget.

    Args:
        budget: of the arm.
        costs: of a step of each run.
        arm: its name, for the error.

    Raises:
        ConfigError: a run would not have a single step.
    """
    amounts = [amount_of(cost, budget) for cost in costs]
    match budget.split:
        case "windows":
            steps = [math.floor(budget.amount / sum(amounts))] * len(amounts)
        case "equal":
            steps = [math.floor(budget.amount / len(amounts) / amount) for amount in amounts]
        case _:
            raise AssertionError(budget.split)
    if min(steps) < 1:
        raise ConfigError(
            f"budget.{budget.unit} is {budget.amount:g}, and a step of every run of arm {arm} costs {sum(amounts):g} "
            f"({', '.join(f'{amount:g}' for amount in amounts)}); give more, or smaller batches "
            "(training.batch_size in base)"
        )
    return steps


def shared_first(numbers: Sequence[int]) -> int | None:
    """The number of steps of a first run that several arms share; None if theirs differ too much.

    It is the smallest of `numbers`, the steps that each arm alone would give this run, if that is nearly the largest.
    """
    return min(numbers) if min(numbers) >= _NEARLY * max(numbers) else None


def with_first(budget: BudgetSettings, costs: Sequence[StepCost], first: int) -> list[int]:
    """The steps of every run of an arm whose first run has `first`; the others get equally many from the rest."""
    amounts = [amount_of(cost, budget) for cost in costs]
    rest = budget.amount - first * amounts[0]
    return [first, *[math.floor(rest / sum(amounts[1:]))] * (len(amounts) - 1)]
