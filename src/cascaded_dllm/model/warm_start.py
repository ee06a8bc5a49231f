"""Starting a network from the weights of another one: a SEDD model, a run of ours or of the original code."""

from cascaded_dllm.errors import CheckpointError
from cascaded_dllm.model.placed import layout_of
from cascaded_dllm.model.pretrained import PretrainedStage, load_stage, load_weights
from cascaded_dllm.model.score_config import ScoreModelConfig
from cascaded_dllm.model.score_model import ScoreModel
from cascaded_dllm.model.stage_settings import StageSettings, Weights


def start_from(source: str, model: ScoreModel, *, weights: Weights, tokenizer: str) -> PretrainedStage:
    """Copies the weights in `source` into `model`; returns what they came from.

    Every setting of the network must be the same but its dropout: others change its shape, or what its weights mean.
    A `one_way` network may start from a `joint` one, as their weights have the same shapes and nearly the same use. A
    stage may start from any other; a placed one, whose network fills in, from a flat one for example. Its layout
    network starts from random weights unless the other has one of the same shape. A network with a copy head may start
    from one without: the head keeps the weights that it has, those of a new one, whose gate is nearly closed, so that
    the network begins as the one it starts from.

    Args:
        source: whatever `load_stage` takes.
        model: the network in training.
        weights: the moving average or the raw weights; a SEDD model has one set and takes both.
        tokenizer: fingerprint of the tokenizer of the training data.

    Raises:
        CheckpointError: nothing can be loaded, the vocabulary is another one, or the networks differ; every difference
            is listed.
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
    """Checks that a network may start from the weights of another one, as far as that is known without them.

    Args:
        source: where the other one lies.
        settings: what its checkpoint says.
        ours: the network in training.
        tokenizer: fingerprint of the tokenizer of the training data.

    Raises:
        CheckpointError: the vocabulary is another one, or the networks differ; every difference is listed.
    """
    require_same_vocabulary(source, settings, vocab_size=ours.vocab_size, tokenizer=tokenizer)
    if differences := _differences(settings, ours):
        raise CheckpointError(
            f"{source} cannot be the start of this network: {'; '.join(differences)}; give the settings of its "
            "network, or start from another model (pretrained.model_path)"
        )


def require_same_vocabulary(source: str, settings: StageSettings, *, vocab_size: int, tokenizer: str) -> None:
    """Checks that the tokens of a network are those of data that it is to be trained on.

    Args:
        source: where the network lies.
        settings: what its checkpoint says.
        vocab_size: number of real tokens of the data.
        tokenizer: fingerprint of its tokenizer.

    Raises:
        CheckpointError: they are others.
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
    """The settings in which two networks differ, so far as it matters to their weights, a phrase a setting."""
    free = {"vocab_size", "dropout"}
    # Flat models are stage 0; so are SEDD's, which are joint.
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
