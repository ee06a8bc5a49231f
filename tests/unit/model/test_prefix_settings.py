import math

import pytest

from cascaded_dllm.errors import ConfigError
from cascaded_dllm.model.prefix_settings import TRUE_PREFIXES, PrefixSettings

SETTINGS = PrefixSettings(noise_prob=0.1, noise_kind="mask", dropout=0.2, generated_prob=0.3, generated_level=0.4)


def test_settings_come_back():
    assert PrefixSettings.from_dict(SETTINGS.to_dict()) == SETTINGS
    assert PrefixSettings.from_dict({}) == TRUE_PREFIXES


def test_unknown_key():
    with pytest.raises(ConfigError, match=r"have the unknown keys \['colour'\]; it was written by a later version"):
        PrefixSettings.from_dict({"colour": 1})


@pytest.mark.parametrize("value", [-0.1, 1.1, math.nan])
@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("noise_prob", r"training\.prefix_noise\.prob"),
        ("dropout", r"training\.prefix_dropout"),
        ("generated_prob", r"training\.generated_prefix\.prob"),
        ("generated_level", r"training\.generated_prefix\.level"),
    ],
)
def test_values_out_of_range(name, key, value):
    with pytest.raises(ConfigError, match=rf"{key} is {value}; it must lie between 0 and 1"):
        PrefixSettings(**{name: value})


def test_unknown_kind():
    with pytest.raises(ConfigError, match=r"training\.prefix_noise\.kind is 'swap'; it must be one of random, mask"):
        PrefixSettings(noise_kind="swap")


def test_what_needs_a_mask():
    SETTINGS.require_mask("absorbing")
    PrefixSettings(noise_prob=0.1, noise_kind="random").require_mask("uniform")
    PrefixSettings(noise_kind="mask").require_mask("uniform")  # the kind is of no account where nothing is replaced
    message = r"kind is mask and graph\.type uniform, which has no MASK; set training\.prefix_noise\.kind=random or gr"
    with pytest.raises(ConfigError, match=message):
        PrefixSettings(noise_prob=0.1, noise_kind="mask").require_mask("uniform")
    message = r"prefix_dropout is 0\.2 and graph\.type uniform, which has no MASK to put .*; set training\.prefix_drop"
    with pytest.raises(ConfigError, match=message):
        PrefixSettings(dropout=0.2).require_mask("uniform")
