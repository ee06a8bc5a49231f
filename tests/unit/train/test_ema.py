import pytest
import torch
from torch import nn

from cascaded_dllm.train.ema import Ema


@pytest.fixture
def model():
    model = nn.Linear(1, 1)
    nn.init.constant_(model.weight, 0.0)
    nn.init.constant_(model.bias, 1.0)
    return model


@torch.no_grad()
def moved_average(ema, model, weights):
    values = []
    for weight in weights:
        model.weight.fill_(weight)
        ema.update(model)
        values.append(float(ema.state_dict()["weight"]))
    return values


def test_decay_warms_up(model):
    """By hand: decays (1 + n) / (10 + n) = 2/11, 3/12, 4/13 for n = 1, 2, 3, from 0 towards 1."""
    found = moved_average(Ema(model, 0.9999), model, [1.0, 1.0, 1.0])
    after1 = 9 / 11
    after2 = after1 * 3 / 12 + 9 / 12
    after3 = after2 * 4 / 13 + 9 / 13
    assert found == pytest.approx([after1, after2, after3], rel=1e-6)


def test_decay_stops_at_its_final_value(model):
    """(1 + n) / (10 + n) is above 0.2 from n = 2 on: 2/11, then 0.2 and 0.2."""
    found = moved_average(Ema(model, 0.2), model, [1.0, 2.0, 3.0])
    after1 = 9 / 11
    after2 = 0.2 * after1 + 0.8 * 2
    assert found == pytest.approx([after1, after2, 0.2 * after2 + 0.8 * 3], rel=1e-6)


def test_decay_zero_follows_the_weights(model):
    assert moved_average(Ema(model, 0.0), model, [1.0, 2.5]) == [1.0, 2.5]


def test_average_is_its_own_copy(model):
    ema = Ema(model, 0.5)
    with torch.no_grad():
        model.bias.fill_(7.0)
    assert float(ema.state_dict()["bias"]) == 1.0


def test_loaded_average_goes_on_where_it_was(model):
    unbroken, first = Ema(model, 0.9999), Ema(model, 0.9999)
    moved_average(unbroken, model, [1.0, 2.0])
    with torch.no_grad():
        model.weight.zero_()
    moved_average(first, model, [1.0, 2.0])
    second = Ema(nn.Linear(1, 1), 0.9999)
    second.load_state_dict({name: value.clone() for name, value in first.state_dict().items()}, num_updates=2)
    assert second.num_updates == 2
    assert moved_average(second, model, [3.0, 4.0]) == moved_average(unbroken, model, [3.0, 4.0])


def test_copy_to_overwrites_the_parameters(model):
    ema = Ema(model, 0.5)
    with torch.no_grad():
        model.weight.fill_(5.0)
    ema.copy_to(model)
    assert model.weight.tolist() == [[0.0]]
    assert model.weight.requires_grad
