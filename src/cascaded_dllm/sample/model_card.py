"""The model card of a bundle: the facts in its checkpoints, for readers and for the hub."""

import re
import shlex
from collections.abc import Sequence
from typing import Any

from cascaded_dllm.data.manifest import learnt_choice
from cascaded_dllm.errors import ConfigError
from cascaded_dllm.model.prefix_settings import PrefixSettings
from cascaded_dllm.model.score_model import ScoreModel
from cascaded_dllm.model.stage_settings import StageSettings
from cascaded_dllm.text.tokenizer import Tokenizer

_LICENSE = re.compile(r"[A-Za-z0-9][A-Za-z0-9.+-]*")
_COLUMNS = (
    "stage",
    "tokens",
    "given",
    "parameters",
    "weights",
    "blocks x width, heads",
    "process",
    "parameterization",
    "prefix attention",
    "noise",
    "steps trained",
)


def require_license(license: str | None) -> None:
    """Checks that a licence is an identifier such as the hub uses; None is fine.

    Raises:
        ConfigError: it is not.
    """
    if license is not None and not _LICENSE.fullmatch(license):
        raise ConfigError(f"the license is {license!r}; it must be an identifier such as mit, apache-2.0 or cc-by-4.0")


def model_card(
    name: str,
    description: dict[str, Any],
    models: Sequence[ScoreModel],
    settings: Sequence[StageSettings],
    tokenizer: Tokenizer,
    *,
    license: str | None,
) -> str:
    """The text of README.md.

    Args:
        name: path or hub id under which the bundle is loaded.
        description: the content of cascade.json.
        models: networks of the stages.
        settings: settings of the stages.
        tokenizer: the tokenizer of all stages.
        license: identifier of a licence; with None the card names none.
    """
    lengths = description["stage_lengths"]
    rows = [_row(*stage) for stage in zip(lengths, [0, *lengths[:-1]], models, settings, strict=True)]
    lines = [_line(row) for row in (_COLUMNS, ["---"] * len(_COLUMNS), *rows)]
    load = f"from cascaded_dllm import Cascade\n\ncascade = Cascade.from_pretrained({name!r})"
    return "\n".join(
        [
            *("---", "library_name: cascaded-dllm", "pipeline_tag: text-generation"),
            *("tags:", "- text-diffusion", "- discrete-diffusion"),
            *([] if license is None else [f'license: "{license}"']),
            *("---", "", f"# {name.rstrip('/').split('/')[-1]}", "", _purpose(description), ""),
            *("## How to load it", "", "With the path or the hub id of this model:", "", "```python", load),
            *("samples = cascade.generate(num_samples=4, seed=0)", "print(samples.final_texts[0])", "```", ""),
            *("```bash", f"cdllm sample --cascade {shlex.quote(name)} --num-samples 4", "```", ""),
            *("## Stages", "", *lines, ""),
            *("## What is known of the training", ""),
            *(f"* {fact}" for fact in _facts(description, settings, tokenizer)),
            "",
        ]
    )


def _purpose(description: dict[str, Any]) -> str:
    """What the model is, in one to three sentences."""
    lengths, trained = description["stage_lengths"], description["trained_lengths"]
    if description["is_flat"]:
        return f"A discrete diffusion language model without stages, which writes texts of {lengths[-1]} tokens."
    if len(trained) == 1:
        return f"A discrete diffusion language model of one stage, which writes texts of {lengths[-1]} tokens."
    listed = ", ".join(map(str, trained))
    whole = (
        f"A cascaded discrete diffusion language model: texts are written in {len(trained)} stages of {listed} tokens, "
        "first the words that matter. Each stage is a diffusion model that reads the text of the stage before."
    )
    if len(lengths) == len(trained):
        return whole
    return f"{whole} This model has only the stages 1 to {len(lengths)}, so its last texts are shorter versions."


def _row(length: int, num_given: int, model: ScoreModel, settings: StageSettings) -> list[str]:
    """The cells of the table for a stage that writes `length` tokens from a prefix of `num_given`."""
    config = model.config
    num_bytes = sum(tensor.numel() * tensor.element_size() for tensor in model.state_dict().values())
    noise = ", ".join(str(value) if key == "type" else f"{key} {value}" for key, value in settings.noise.items())
    return [
        "flat" if settings.stage == 0 else str(settings.stage),
        str(length),
        f"{num_given} tokens" if num_given else "nothing",
        f"{sum(weight.numel() for weight in model.parameters()):,}",
        f"{num_bytes / 1e6:,.1f} MB",
        f"{config.num_blocks} x {config.hidden_size}, {config.num_heads}",
        config.process,
        f"{config.parameterization}, copy head" if config.copy_head else config.parameterization,
        config.prefix_attention if settings.layout is None else "placed",
        noise,
        f"{settings.step:,}" if settings.step else "not said",
    ]


def _facts(description: dict[str, Any], settings: Sequence[StageSettings], tokenizer: Tokenizer) -> list[str]:
    """Sentences on the training: what the checkpoints say of it, and what they do not."""
    weights = {"ema": "the moving average where a checkpoint has one", "raw": "the weights themselves, not averaged"}
    packing = f"packing `{description['packing']}`" if description["packing"] else "not said by the checkpoints"
    prefixes = [
        f"Prefixes of stage {stage.stage} in training: {_prefixes(stage.prefix)}."
        for stage in settings
        if stage.stage > 1
    ]
    return [
        f"Weights: `{description['weights']}`, {weights[description['weights']]}.",
        f"Tokenizer: {tokenizer.vocab_size:,} tokens, fingerprint `{tokenizer.fingerprint}`; it is in the bundle.",
        f"Windows that it was trained on: {description['trained_lengths'][-1]} tokens, {packing}.",
        *_choice(settings),
        *prefixes,
        "The texts that it was trained on are not stored in a checkpoint, so they are not named here.",
    ]


def _choice(settings: Sequence[StageSettings]) -> list[str]:
    """How the tokens of the shorter stages were chosen; empty for a flat model, or if no checkpoint says."""
    said = [stage for stage in settings if stage.stage > 0 and stage.method]
    if not said:
        return []
    by = ", ".join(filter(None, (f"the method `{said[0].method}`", learnt_choice(said[0].choice))))
    return [f"Tokens of shorter texts: chosen by {by}; {'each once' if said[0].unique else 'repeated ones too'}."]


def _prefixes(prefix: PrefixSettings) -> str:
    """How the prefixes of a stage were changed in training."""
    done = [
        *([f"{prefix.noise_prob:g} of the tokens replaced ({prefix.noise_kind})"] if prefix.noise_prob else []),
        *([f"{prefix.dropout:g} of the prefixes left out"] if prefix.dropout else []),
        *(
            [
                f"{prefix.generated_prob:g} of the prefixes rewritten by the stages before, each token with a "
                f"probability of up to {prefix.generated_level:g}"
            ]
            if prefix.generated_prob
            else []
        ),
    ]
    return ", ".join(done) or "the true ones"


def _line(cells: Sequence[str]) -> str:
    """A line of a table."""
    return f"| {' | '.join(cells)} |"
