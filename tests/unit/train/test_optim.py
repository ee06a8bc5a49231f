import itertools
import math

import pytest
from torch import nn

from cascaded_dllm.errors import ConfigError
from cascaded_dllm.train.optim import OptimConfig, make_optimizer


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"lr": 0.0}, r"optim\.lr is 0\.0; it must be greater than 0"),
        ({"lr": math.nan}, r"optim\.lr is nan"),
        ({"lr": float("inf")}, r"optim\.lr is inf; it must be finite"),
        ({"weight_decay": float("inf")}, r"optim\.weight_decay is inf; it must be finite"),
        ({"eps": -1e-8}, r"optim\.eps is -1e-08; it must be greater than 0"),
        ({"grad_clip": 0.0}, r"optim\.grad_clip is 0\.0; it must be greater than 0"),
        ({"beta1": 1.0}, r"optim\.beta1 is 1\.0; it must be at least 0 and less than 1"),
        ({"beta2": -0.1}, r"optim\.beta2 is -0\.1; it must be at least 0 and less than 1"),
        ({"warmup": -1}, r"optim\.warmup is -1; it must be at least 0"),
        ({"weight_decay": -0.5}, r"optim\.weight_decay is -0\.5; it must be at least 0"),
        ({"weight_decay": math.nan}, r"optim\.weight_decay is nan; it must be at least 0"),
        ({"decay": "linear"}, r"optim\.decay is 'linear'; it must be one of constant, cosine"),
    ],
)
def test_settings_out_of_range(setting, message):
    with pytest.raises(ConfigError, match=message):
        OptimConfig(**setting)


def test_rate_rises_linearly_then_stays():
    config = OptimConfig(lr=0.8, warmup=4)
    assert [config.learning_rate(step, 100) for step in range(6)] == pytest.approx([0.2, 0.4, 0.6, 0.8, 0.8, 0.8])


def test_rate_without_warm_up():
    assert OptimConfig(lr=0.8, warmup=0).learning_rate(0, 100) == 0.8


def test_cosine_falls_from_the_peak_to_a_tenth():
    """At the first step after the warm-up and at the last step of the run, number `num_steps` - 1."""
    config = OptimConfig(lr=1.0, warmup=10, decay="cosine")
    rates = [config.learning_rate(step, 111) for step in range(10, 111)]
    assert rates[0] == 1.0
    assert rates[50] == pytest.approx(0.55)  # half way between 1 and 0.1
    assert rates[25] == pytest.approx(0.1 + 0.9 * (1 + math.sqrt(0.5)) / 2)
    assert rates[100] == pytest.approx(0.1)
    assert all(later < earlier for earlier, later in itertools.pairwise(rates))
    assert config.learning_rate(4, 111) == 0.5  # the warm-up is the same


def test_cosine_of_a_run_that_is_all_warm_up():
    config = OptimConfig(lr=1.0, warmup=10, decay="cosine")
    assert [config.learning_rate(step, 10) for step in (0, 9)] == [0.1, 1.0]


def test_optimizer_has_the_settings():
    config = OptimConfig(lr=0.1, beta1=0.8, beta2=0.95, eps=1e-6, weight_decay=0.02)
    (group,) = make_optimizer(nn.Linear(2, 2), config).param_groups
    found = {name: group[name] for name in ("lr", "betas", "eps", "weight_decay", "fused")}
    assert found == {"lr": 0.1, "betas": (0.8, 0.95), "eps": 1e-6, "weight_decay": 0.02, "fused": True}
    assert len(group["params"]) == 2
