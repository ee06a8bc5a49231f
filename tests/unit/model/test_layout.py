"""The layout network: what it is told, and what its settings must be."""

import pytest
import torch

from cascaded_dllm.errors import ConfigError
from cascaded_dllm.model.layout import LayoutConfig
from tests.unit.model.tiny import tiny_placed


def test_settings() -> None:
    config = tiny_placed(3, 4).layout.config
    assert (config.num_gaps, config.num_labels) == (4, 5)
    assert LayoutConfig.from_dict(config.to_dict()) == config
    with pytest.raises(ConfigError, match=r"layout\.num_blocks is 0; it must be at least 1"):
        LayoutConfig(**(config.to_dict() | {"num_blocks": 0}))


def test_every_gap_sees_tokens_and_known_gaps() -> None:
    """Another token or another known gap, whichever, changes the law of every gap."""
    layout = tiny_placed(3, 4).layout
    z, gaps = torch.tensor([[1, 2, 3]]), torch.tensor([[layout.hidden_label, 1, layout.hidden_label, 0]])
    with torch.no_grad():
        before = layout(z, gaps)
        assert before.shape == (1, 4, 5)
        for place in range(3):
            other = z.clone()
            other[0, place] = 7
            assert (layout(other, gaps) != before).any(-1).all()
        for place in range(4):
            other = gaps.clone()
            other[0, place] = 2
            assert (layout(z, other) != before).any(-1).all()
