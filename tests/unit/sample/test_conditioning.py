"""Guidance and noised prefixes: refused where a stage was not trained for them, and without effect at zero."""

import dataclasses
import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from cascaded_dllm.diffusion.philox import Draws
from cascaded_dllm.diffusion.process import AbsorbingProcess
from cascaded_dllm.diffusion.schedule import LogLinearSchedule
from cascaded_dllm.errors import ConfigError
from cascaded_dllm.model.prefix_settings import TRUE_PREFIXES, PrefixSettings
from cascaded_dllm.sample.conditioning import Conditioning, require_guidable, require_noisable
from cascaded_dllm.sample.predictors import predictor_from_name
from cascaded_dllm.sample.sampler import StageSampler
from tests.unit.model.tiny import VOCAB, tiny_model
from tests.unit.model.unchecked import without_type_checks

LENGTH, PREFIX_LENGTH, COUNT = 6, 3, 5
DROPPED = PrefixSettings(dropout=0.1)
NETWORKS: list[dict[str, Any]] = [
    {"parameterization": parameterization, "prefix_attention": attention}
    for parameterization in ("score", "normalized")
    for attention in ("joint", "one_way")
]
NETWORKS += [{"parameterization": "normalized", "copy_head": True, "prefix_attention": "one_way"}]
EACH_NETWORK = pytest.mark.parametrize("options", NETWORKS, ids=str)
EACH_PREDICTOR = pytest.mark.parametrize("name", ["euler", "analytic", "first_hitting"])
PREFIX = torch.randint(VOCAB, (COUNT, PREFIX_LENGTH), generator=torch.Generator().manual_seed(1))


def stage(options: dict[str, Any], trained_with: PrefixSettings = DROPPED) -> StageSampler:
    model = tiny_model(seed=3, **options)
    return StageSampler(model, AbsorbingProcess(VOCAB), LogLinearSchedule(), LENGTH, trained_with=trained_with)


def sampled(sampler: StageSampler, name: str, *, prefix: Tensor = PREFIX, **settings: Any) -> tuple[Tensor, float]:
    *_, last = sampler.states(
        prefix,
        predictor=predictor_from_name(name),
        num_steps=4,
        draws=Draws(0, "guided"),
        sample_index=torch.arange(len(prefix)),
        **settings,
    )
    return last.xt, last.nfe


@EACH_PREDICTOR
@EACH_NETWORK
def test_without_guidance_nothing_changes(options: dict[str, Any], name: str) -> None:
    """The same calls and the same bits as of a stage that was never trained for it."""
    sizes: list[int] = []
    results = []
    for sampler, settings in ((stage(options, TRUE_PREFIXES), {}), (stage(options), {"guidance": 0.0})):
        sampler.model.vocab_embed.register_forward_hook(lambda _, inputs, __: sizes.append(inputs[0].numel()))
        results.append((*sampled(sampler, name, **settings), tuple(sizes)))
        sizes.clear()
    assert torch.equal(results[0][0], results[1][0])
    assert results[0][1:] == results[1][1:]


@EACH_PREDICTOR
@EACH_NETWORK
def test_guided_calls_are_counted_twice(options: dict[str, Any], name: str) -> None:
    """What the embedding sees: every text once with its prefix and once with an empty one."""
    sampler, seen = stage(options), []
    sampler.model.vocab_embed.register_forward_hook(lambda _, inputs, __: seen.append(inputs[0].clone()))
    _, nfe = sampled(sampler, name, guidance=1.5)
    texts = torch.cat([ids[:, -LENGTH:] for ids in seen if ids.shape[1] >= LENGTH])
    assert nfe == pytest.approx(len(texts) / COUNT)
    if options["prefix_attention"] == "joint":
        prefixes = torch.cat([ids[:, :PREFIX_LENGTH] for ids in seen])
        is_empty = (prefixes == VOCAB).all(-1)
        assert int(is_empty.sum()) * 2 == len(prefixes)
    else:
        encoded = [ids for ids in seen if ids.shape[1] == PREFIX_LENGTH]
        assert [ids.tolist() for ids in encoded] == [PREFIX.tolist(), [[VOCAB] * PREFIX_LENGTH] * COUNT]
    if name == "first_hitting":
        assert nfe == 2 * LENGTH


@EACH_PREDICTOR
@EACH_NETWORK
def test_guided_text_does_not_see_its_batch(options: dict[str, Any], name: str) -> None:
    sampler = stage(options)
    together, _ = sampled(sampler, name, guidance=0.7)
    first_two, _ = sampled(sampler, name, prefix=PREFIX[:2], guidance=0.7)
    assert torch.equal(first_two, together[:2])


@EACH_NETWORK
def test_guidance_matters(options: dict[str, Any]) -> None:
    sampler = stage(options)
    texts = [sampled(sampler, "first_hitting", guidance=weight)[0] for weight in (0.0, 1.0, 4.0)]
    assert not torch.equal(texts[0], texts[1])
    assert not torch.equal(texts[1], texts[2])


def test_guided_logits() -> None:
    """Eq. 6 of Ho & Salimans, normalised; a constant in the logits of either does not matter."""
    generator = torch.Generator().manual_seed(0)
    given, free = torch.randn(2, 4, 7, generator=generator, dtype=torch.float64)
    weight = 1.5
    expected = F.softmax(given, -1) ** (1 + weight) / F.softmax(free, -1) ** weight
    conditioning = Conditioning(None, None, weight)
    found = F.softmax(conditioning.guided(given + 3, free - 2), -1)
    torch.testing.assert_close(found, expected / expected.sum(-1, keepdim=True), rtol=1e-12, atol=0)
    assert conditioning.guided(given, None) is given


@pytest.mark.parametrize(
    ("guidance", "settings", "length", "message"),
    [
        (-0.5, DROPPED, 3, "guidance is -0.5; it must be at least 0"),
        (math.nan, DROPPED, 3, "guidance is nan; it must be at least 0"),
        (math.inf, DROPPED, 3, "guidance is inf; it must be .* finite"),
        (1.0, DROPPED, 0, "guidance is 1.0, and the stage has no prefix to guide by; set guidance to 0"),
        (1.0, TRUE_PREFIXES, 3, r"trained without prefix dropout, .* or train it with training\.prefix_dropout=0\.1"),
    ],
)
def test_guidance_that_is_refused(guidance: float, settings: PrefixSettings, length: int, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        require_guidable(guidance, settings, length)


def test_a_stage_refuses_guidance_itself() -> None:
    with pytest.raises(ConfigError, match=r"guidance is 1\.0, and the stage was trained without prefix dropout"):
        sampled(stage({}, TRUE_PREFIXES), "euler", guidance=1.0)
    sampler = dataclasses.replace(stage({}), prefix_length=0)
    with pytest.raises(ConfigError, match=r"guidance is 1\.0, and the stage has no prefix"):
        list(
            sampler.states(
                None,
                predictor=predictor_from_name("euler"),
                num_steps=1,
                draws=Draws(0, "x"),
                sample_index=torch.arange(1),
                guidance=1.0,
            )
        )


@pytest.mark.parametrize(
    ("prob", "settings", "length", "message"),
    [
        (-0.1, PrefixSettings(noise_prob=0.1), 3, "prefix_noise is -0.1; it must lie between 0, which is none, and 1"),
        (1.5, PrefixSettings(noise_prob=0.1), 3, "prefix_noise is 1.5; it must lie"),
        (0.1, PrefixSettings(noise_prob=0.1), 0, "prefix_noise is 0.1, and the stage has no prefix to put it in"),
        (0.1, TRUE_PREFIXES, 3, r"trained on prefixes without noise; .* train it with training\.prefix_noise\.prob=0"),
    ],
)
def test_noise_that_is_refused(prob: float, settings: PrefixSettings, length: int, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        require_noisable(prob, settings, length)


@without_type_checks()
def test_what_is_no_number() -> None:
    with pytest.raises(ConfigError, match=r"^guidance is 'much'; it must be a number$"):
        require_guidable("much", DROPPED, 3)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"^prefix_noise is None; it must be a number$"):
        require_noisable(None, DROPPED, 3)  # type: ignore[arg-type]


def test_what_needs_no_training() -> None:
    require_guidable(0.0, TRUE_PREFIXES, 0)
    require_noisable(0.0, TRUE_PREFIXES, 0)
