"""The networks of a placed stage: one places the tokens of the stage before, one writes the tokens between them."""

from typing import Literal

import torch

from cascaded_dllm.model.devices import host_by_default, require_precise_default
from cascaded_dllm.model.layout import LayoutConfig, LayoutModel
from cascaded_dllm.model.score_config import ScoreModelConfig
from cascaded_dllm.model.score_model import ScoreModel

Halves = Literal["both", "layout", "fill"]
"""Which networks of a placed stage are trained."""


class PlacedModel(ScoreModel):
    """The fill, a network with the weights and parameter names of a flat one, with a layout network beside it.

    The tokens of the stage before stand in their places in `xt`, and only the others are MASK; there is no prefix.
    """

    def __init__(self, config: ScoreModelConfig, layout: LayoutConfig) -> None:
        super().__init__(config)
        self.layout = LayoutModel(layout)


@host_by_default()
def new_model(config: ScoreModelConfig, layout: LayoutConfig | None) -> ScoreModel:
    """A network with random weights, in float32 and on the host; a placed one if `layout` is given.

    Raises:
        ConfigError: torch's default dtype is in half precision.
    """
    require_precise_default()
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32)
    try:
        return ScoreModel(config) if layout is None else PlacedModel(config, layout)
    finally:
        torch.set_default_dtype(before)


def train_only(model: ScoreModel, halves: Halves) -> None:
    """Freezes the half of a placed network that is not trained; "both" freezes nothing and fits any network."""
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(halves in ("both", "layout" if name.startswith("layout.") else "fill"))


def layout_of(model: torch.nn.Module) -> LayoutModel | None:
    """The layout network of a placed stage; None for any other network."""
    return model.layout if isinstance(model, PlacedModel) else None
