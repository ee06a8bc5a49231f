"""Starting a network from the weights of another one: a SEDD model, a run of this package or of the original code."""

from cascaded_dllm.errors import CheckpointError
from cascaded_dllm.model.placed import layout_of
from cascaded_dllm.model.pretrained import PretrainedStage, load_stage, load_weights
from cascaded_dllm.model.score_config import ScoreModelConfig
from cascaded_dllm.model.score_model import ScoreModel
from cascaded_dllm.model.stage_settings import StageSettings, Weights


def start_from(source: str, model: ScoreModel, *, weights: Weights, tokenizer: str) -> PretrainedStage:
    """Copies the weights in `source` into `model`; returns the stage that they came from.

    The settings of the two networks must agree, except dropout: others change the shape or the meaning of weights. But
    a `one_way` network may start from a `joint` one, since their weights have the same shapes and nearly the same use,
    and any network may start from one that had no prefix. Any stage may start from any other, for example a placed one
    from a flat model; its layout network keeps its random weights unless the other has one of the same shape. A network
    with a copy head may start from one without: the head keeps its new weights, whose gate is nearly closed, so the
    network begins nearly as the other one.

    Args:
        source: whatever `load_stage` takes.
        model: the network in training.
        weights: the moving average or the raw weights; a SEDD model has one set and accepts either.
        tokenizer: fingerprint of the tokenizer of the training data.

    Raises:
        CheckpointError: nothing can be loaded, the vocabularies differ, or the networks differ; every difference is
            listed.
    """
    stage = load_stage(source, weights=weights)
    require_startable(source, stage.settings, model.config, tokenizer=tokenizer)
    state = stage.model.state_dict()
    ours, theirs = layout_of(model), stage.settings.layout
    if ours is None or ours.config != theirs:
        state = {name: tensor for name, tensor in state.items() if not name.startswith("layout.")}
    if ours is not None and ours.config != theirs:
        state |= {f"layout.{name}": tensor for name, tensor in ours.state_dict().items()}
    if model.copy_head is not None and stage.model.copy_head is None:
        state |= {f"copy_head.{name}": weight for name, weight in model.copy_head.state_dict().items()}
    load_weights(model, state, source=source)
    return stage


def require_startable(source: str, settings: StageSettings, ours: ScoreModelConfig, *, tokenizer: str) -> None:
    """Checks from its settings alone that a network may start from another one.

    Args:
        source: where the other network comes from.
        settings: the settings in its checkpoint.
        ours: configuration of the network in training.
        tokenizer: fingerprint of the tokenizer of the training data.

    Raises:
        CheckpointError: the vocabularies differ, or the networks differ; every difference is listed.
    """
    require_same_vocabulary(source, settings, vocab_size=ours.vocab_size, tokenizer=tokenizer)
    if differences := _differences(settings, ours):
        raise CheckpointError(
            f"{source} cannot be the start of this network: {'; '.join(differences)}; give the settings of its "
            "network, or start from another model (pretrained.model_path)"
        )


def require_same_vocabulary(source: str, settings: StageSettings, *, vocab_size: int, tokenizer: str) -> None:
    """Checks that a network has the vocabulary of the data that it will be trained on.

    Args:
        source: where the network comes from.
        settings: the settings in its checkpoint.
        vocab_size: number of real tokens of the data.
        tokenizer: fingerprint of the tokenizer of the data.

    Raises:
        CheckpointError: the number of tokens or the tokenizer differs.
    """
    remedy = (
        "what a token means was learnt with the tokenizer: preprocess the text with that of the model (--tokenizer "
        "gpt2 for SEDD's, a checkpoint folder for one of this package), or train from random weights"
    )
    if settings.model.vocab_size != vocab_size:
        raise CheckpointError(f"{source} has {settings.model.vocab_size} tokens, and the data {vocab_size}; {remedy}")
    if settings.tokenizer not in ("", tokenizer):
        raise CheckpointError(
            f"{source} was trained with the tokenizer {settings.tokenizer}, the data has {tokenizer}; {remedy}"
        )


def _differences(settings: StageSettings, ours: ScoreModelConfig) -> list[str]:
    """The settings that matter to the weights and differ between two networks, a phrase for each."""
    free = {"vocab_size", "dropout"}
    # Flat models, SEDD's among them, are stage 0.
    had_no_prefix = settings.stage in (0, 1)
    if had_no_prefix or ours.prefix_attention == "one_way":
        free.add("prefix_attention")
    if ours.copy_head:
        free.add("copy_head")
    theirs, wanted = settings.model.to_dict(), ours.to_dict()
    return [
        f"{'graph.type' if key == 'process' else f'model.{key}'} is {value} there and {wanted[key]} here"
        for key, value in theirs.items()
        if key not in free and value != wanted[key]
    ]
