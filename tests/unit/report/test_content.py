"""What a report says, against cases that are computed by hand."""

import json
import math
from typing import Any

import pytest

from cascaded_dllm.report.content import report
from cascaded_dllm.report.curves import value_at
from cascaded_dllm.report.page import page
from cascaded_dllm.report.summary import summary
from tests.unit.report import made_up


def plain(name: str, seed: int, nats: float, error: float | None = 0.3, **changed: Any) -> dict[str, Any]:
    """An arm of one stage whose bound is exactly `nats`."""
    made = made_up.arm(name, seed, [nats])
    return made | {"bound": made_up.bound([nats], error=error)} | changed


def pair(seed: int, nats: float, error: float, one: str = "a", other: str = "b") -> dict[str, Any]:
    return {"arm": one, "other": other, "seed": seed, "mean_nats_per_window": nats, "standard_error_nats": error}


def content(tmp_path, arms, pairs=(), **changed):
    return report(made_up.read(tmp_path, made_up.results(arms, list(pairs), **changed)))


def test_bound_of_an_arm_over_seeds(tmp_path):
    found = content(tmp_path, [plain("a", 0, 30.0, 0.3), plain("a", 1, 32.0, 0.5)])
    [arm] = found.arms
    assert arm.bound is not None
    assert (arm.bound.nats.mean, arm.bound.nats.num_seeds) == (31.0, 2)
    # s^2 = 1 + 1 over 1, of the mean 2 / 2; all seeds see the same windows, whose error does not shrink.
    assert arm.bound.nats.standard_error == pytest.approx(1.0, rel=1e-15)
    assert arm.bound.over_windows == pytest.approx(0.4, rel=1e-15)
    assert arm.bound.standard_error == pytest.approx(math.sqrt(1 + 0.16), rel=1e-15)
    assert arm.bound.nats_per_token.mean == pytest.approx(31 / 40, rel=1e-15)
    assert arm.bound.ppl is not None
    assert arm.bound.ppl.mean == pytest.approx((math.exp(30 / 40) + math.exp(32 / 40)) / 2, rel=1e-15)


def test_stages_and_costs_are_summed_and_averaged(tmp_path):
    one, two = made_up.arm("a", 0, [9.0, 8.0], layout=2.0), made_up.arm("a", 1, [9.0, 8.0], layout=4.0)
    one["bound"], two["bound"] = made_up.bound([9.0, 8.0], 2.0), made_up.bound([11.0, 8.0], 4.0)
    two["runs"][0] |= {"token_forwards": 2_500_100.0, "seconds": 61.0}
    [arm] = content(tmp_path, [one, two]).arms
    assert arm.bound is not None
    first, second = arm.bound.stages
    assert (first.nats.mean, first.layout, second.nats.standard_error) == (10.0, None, 0.0)
    assert second.layout is not None
    assert (second.layout.mean, second.layout.standard_error) == (3.0, pytest.approx(1.0))
    assert arm.cost is not None
    assert (arm.cost.parameters, arm.cost.num_steps, arm.cost.token_forwards) == (264_000, 800, 5_000_050)
    assert (arm.cost.seconds, arm.cost.flops) == (119, pytest.approx(1.2e12))
    two["runs"][0] |= {"flops": None, "parameters": None}
    [arm] = content(tmp_path, [one, two]).arms
    assert arm.cost is not None
    assert (arm.cost.flops, arm.cost.parameters) == (None, None)


def test_paired_difference_of_several_seeds(tmp_path):
    arms = [plain(name, seed, nats) for name, nats in (("a", 30.0), ("b", 31.0)) for seed in (0, 1)]
    # The second pair stands the other way round.
    found = content(tmp_path, arms, [pair(0, -0.8, 0.1), pair(1, 1.2, 0.3, "b", "a")])
    [difference] = found.ranking.against_best
    assert (difference.arm, difference.other, difference.is_paired) == ("a", "b", True)
    assert difference.nats is not None
    assert difference.nats.mean == pytest.approx(-1.0)
    # s^2 = 0.04 + 0.04 over 1, of the mean 0.04; over windows (0.1 + 0.3) / 2.
    assert difference.nats.standard_error == pytest.approx(0.2)
    assert difference.over_windows == pytest.approx(0.2)
    assert difference.standard_error == pytest.approx(math.sqrt(0.08))
    assert difference.verdict == "lower"
    assert shown(found) == '"a" wins: its bound is 1.00 ± 0.28 nats a window below that of "b".'


def shown(found) -> str:
    return found.ranking.sentence.replace("\N{NO-BREAK SPACE}", " ")


def test_without_pairs_the_errors_of_both_arms_are_added(tmp_path):
    found = content(tmp_path, [plain("a", 0, 30.0, 0.3), plain("b", 0, 31.0, 0.4)])
    [difference] = found.ranking.against_best
    assert not difference.is_paired
    assert difference.standard_error == pytest.approx(0.5)
    assert difference.verdict == "not seen"
    assert shown(found).startswith(
        'There is no difference that this study can see between "a", whose bound is the lowest, and the next: it is '
        '1.00 ± 0.50 nats a window below that of "b".'
    )


@pytest.mark.parametrize(("error", "verdict"), [(0.5001, "not seen"), (0.4999, "lower")])
def test_a_difference_counts_from_two_standard_errors_on(tmp_path, error, verdict):
    found = content(tmp_path, [plain("a", 0, 30.0), plain("b", 0, 31.0)], [pair(0, -1.0, error)])
    assert found.ranking.against_best[0].verdict == verdict
    assert ("wins" in found.ranking.sentence) == (verdict == "lower")


@pytest.mark.parametrize(
    ("one", "two", "error", "is_noted"),
    [
        (1.1, 0.5, 0.1, True),
        (0.5, 1.1, 0.1, True),
        (0.9, 0.5, 0.1, False),
        (1.1, 1.1, 0.1, False),
        (1.1, 0.5, 0.6, False),
    ],
)
def test_a_difference_no_larger_than_what_bounds_leave_out(tmp_path, one, two, error, is_noted):
    """A cascade leaves out other terms than a flat model, two cascades the same; what is not seen needs no note."""
    arms = [plain("a", 0, 30.0), plain("b", 0, 31.0)]
    for arm, omitted in zip(arms, (one, two), strict=True):
        arm["bound"]["omitted_nats_per_window_at_most"] = omitted
    found = content(tmp_path, arms, [pair(0, -1.0, error)])
    note = (
        f'Bounds leave out the ends of time, at most {one} nats a window of "a" and {two} of "b"; their difference may '
        "come from that."
    )
    assert (note in found.notes) == is_noted
    assert any("leave out" in text for text in found.notes) == is_noted


def test_figures_of_different_numbers_of_texts(tmp_path):
    def notes(*numbers: int, real: float | None = None) -> list[str]:
        made = made_up.arm("a", 0, [30.0])
        made["sampling"] = [
            drawing | {"num_samples": number} for drawing, number in zip(made["sampling"], numbers, strict=False)
        ]
        reference = {"figures": {"num_texts": real}, "errors": {}}
        return [note for note in content(tmp_path, [made], reference=reference).notes if "self-BLEU" in note]

    [note] = notes(256, 64)
    assert note.startswith(
        "Distinct shares, self-BLEU and MAUVE depend on the number of texts, which is 256 for "
        '"first_hitting" and 64 for "analytic, 16 steps": they do not compare'
    )
    assert len(notes(256, 256, real=100.0)) == 1
    assert notes(256, 256) == notes(256, 256, real=256.0) == []


def test_a_winner_must_beat_all_others(tmp_path):
    arms = [plain("c", 0, 36.0), plain("b", 0, 31.0), plain("a", 0, 30.0)]
    pairs = [pair(0, -1.0, 0.9), pair(0, -6.0, 0.5, "a", "c"), pair(0, -5.0, 0.5, "b", "c")]
    found = content(tmp_path, arms, pairs)
    assert found.ranking.names == ("a", "b", "c")
    assert [arm.name for arm in found.arms] == ["c", "b", "a"]
    assert "wins" not in shown(found)
    assert '1.00 ± 0.90 nats a window below that of "b"' in shown(found)
    assert 'By more than 2 standard errors it is 6.00 ± 0.50 nats a window below that of "c".' in shown(found)
    assert [(other.arm, other.other) for other in found.ranking.other_pairs] == [("b", "c")]
    assert any("3 arms are compared" in note for note in found.notes)


def test_common_seeds_may_contradict_the_means(tmp_path):
    arms = [plain("a", 0, 29.0), plain("a", 1, 33.0), plain("b", 1, 31.5)]
    found = content(tmp_path, arms, [pair(1, 1.5, 0.1)])
    assert found.ranking.names == ("a", "b")
    assert found.ranking.against_best[0].verdict == "higher"
    assert "wins" not in found.ranking.sentence


def test_arms_without_a_common_seed_or_error_are_not_judged(tmp_path):
    found = content(tmp_path, [plain("a", 0, 29.0), plain("b", 1, 33.0)])
    assert found.ranking.against_best[0].nats is None
    assert 'Whether the bound of "a", the lowest, is lower than that of "b" cannot be said' in found.ranking.sentence
    found = content(tmp_path, [plain("a", 0, 29.0, None), plain("b", 0, 33.0)])
    assert found.ranking.against_best[0].verdict == "not known"


def test_one_arm_and_none(tmp_path):
    assert content(tmp_path, []).ranking.sentence == "No arm has a bound, so none is ranked."
    found = content(tmp_path, [plain("a", 0, 30.0)])
    assert found.ranking.sentence == '"a" is the only arm with a bound; there is nothing to compare it with.'
    assert any("one seed" in note for note in found.notes)


def test_lost_arms_are_named_and_not_ranked(tmp_path):
    arms = [
        plain("a", 0, 30.0),
        plain("b", 0, 31.0),
        made_up.diverged("b", 1, "the loss was not finite"),
        made_up.diverged("c", 0, "no memory", "failed"),
        made_up.diverged("c", 1, "", "missing"),
        plain("d", 0, 30.0, bound=None),
    ]
    found = content(tmp_path, arms)
    assert found.ranking.names == ("a", "b")
    assert '"b": seed 1 diverged; it is judged by its other seeds, which may flatter it.' in found.notes
    assert '"c": seed 0 failed and seed 1 has not been run; not ranked.' in found.notes
    assert '"d": no bound was measured; not ranked.' in found.notes
    assert found.arms[1].bound is not None
    assert found.arms[1].bound.nats.num_seeds == 1


def test_a_lost_seed_has_no_part_in_any_mean(tmp_path):
    """Whatever it had measured before it was lost."""
    lost = plain("a", 1, 5.0, status="diverged", reason="the loss was not finite")
    lost["runs"][0]["token_forwards"] = 1.0
    found = content(tmp_path, [plain("a", 0, 30.0), lost, plain("b", 0, 31.0), plain("b", 1, 32.0)])
    arm = found.arms[0]
    assert arm.bound is not None
    assert arm.bound.nats.mean == 30.0
    assert arm.cost is not None
    assert arm.cost.token_forwards == 5_000_000
    assert {quality.nfe.num_seeds for quality in arm.qualities} == {1}
    assert {(curve.arm, curve.seed) for curve in found.joint} == {("a", 0), ("b", 0), ("b", 1)}
    assert {(curve.arm, curve.seed) for curve in found.losses} == {("a", 0), ("a", 1), ("b", 0), ("b", 1)}
    difference = found.ranking.against_best[0].nats
    assert difference is not None
    assert (difference.mean, difference.num_seeds) == (-1.0, 1)


def test_few_seeds_are_said_to_be_few(tmp_path):
    arms = [plain("a", seed, 30.0 + seed) for seed in range(3)]
    [note] = [note for note in content(tmp_path, arms).notes if "3 seeds" in note]
    assert "with a chance of 18%, not 5%" in note
    arms = [plain("a", seed, 30.0 + seed) for seed in range(10)]
    assert not [note for note in content(tmp_path, arms).notes if "chance" in note]


def test_budgets_are_compared_in_their_unit(tmp_path):
    one, two = plain("a", 0, 30.0), plain("b", 0, 31.0)
    equal = "All ranked arms spent the same token-forwards, to within 2%."
    assert equal in content(tmp_path, [one, two]).notes
    two["runs"][0]["token_forwards"] = 5_090_000
    assert equal in content(tmp_path, [one, two]).notes
    two["runs"][0]["token_forwards"] = 6_000_000
    [note] = [note for note in content(tmp_path, [one, two]).notes if "not equal" in note]
    assert '"b" spent 6e+06 token-forwards and "a" 5e+06' in note
    assert any("same flops" in note for note in content(tmp_path, [one, two], budget={"flops": 1e12}).notes)
    two["runs"][0]["flops"] = None
    [note] = [note for note in content(tmp_path, [one, two], budget={"flops": 1e12}).notes if "spent" in note]
    assert note == "What every arm spent is not known in the unit of the budget, flops."


@pytest.mark.parametrize(("nats", "is_below"), [(27.9, True), (28.1, False)])
def test_a_bound_below_the_truth_is_not_believed(tmp_path, nats, is_below):
    found = content(tmp_path, [plain("a", 0, nats, 0.3)], truth_nats_per_window=28.6)
    assert any("do not believe it" in note for note in found.notes) == is_below


def test_quality_over_seeds_and_figures_that_some_seeds_lack(tmp_path):
    one, two = plain("a", 0, 30.0), plain("a", 1, 30.0)
    one["sampling"], two["sampling"] = one["sampling"][:1], two["sampling"][:1]
    one["sampling"][0] |= {"nfe": 10.0, "num_samples": 3, "figures": {"x": 1.0, "y": None, "z": 4.0}}
    two["sampling"][0] |= {"nfe": 14.0, "num_samples": 4, "figures": {"x": 3.0, "y": None, "z": None}}
    [quality] = content(tmp_path, [one, two]).arms[0].qualities
    assert (quality.nfe.mean, quality.nfe.standard_error, quality.num_samples) == (12.0, pytest.approx(2.0), 7)
    assert quality.figures["x"] is not None
    assert (quality.figures["x"].mean, quality.figures["x"].standard_error) == (2.0, pytest.approx(1.0))
    assert quality.figures["y"] is None
    assert quality.figures["z"] is not None
    assert (quality.figures["z"].mean, quality.figures["z"].num_seeds) == (4.0, 1)


def test_errors_of_figures_hold_texts_and_seeds(tmp_path):
    """With errors over texts as of each seed, and in results from before they were measured."""
    one, two = plain("a", 0, 30.0), plain("a", 1, 30.0)
    for entry, value in ((one, 1.0), (two, 3.0)):
        entry["sampling"] = entry["sampling"][:1]
        entry["sampling"][0] |= {"figures": {"x": value, "y": 2.0}, "errors": {"x": 0.5, "y": 4.0}}
    values = made_up.results([one, two])
    [quality] = report(made_up.read(tmp_path, values)).arms[0].qualities
    assert quality.figures["x"].standard_error == pytest.approx(1.0)
    assert quality.figures["y"].standard_error == pytest.approx(4 / 2**0.5)
    for entry in (one, two):
        del entry["sampling"][0]["errors"]
    del values["reference"]["errors"]
    before = report(made_up.read(tmp_path, values))
    assert before.arms[0].qualities[0].figures["y"].standard_error == 0
    assert before.results.reference_errors == {}


def test_stages_are_summed_at_the_same_share_of_their_training(tmp_path):
    arm = made_up.arm("a", 0, [3.0, 2.0])
    arm["runs"][0]["bound_curve"] = [[100, 10.0], [200, 6.0]]
    arm["runs"][1]["bound_curve"] = [[10, 5.0], [40, 3.0], [20, None]]
    [curve] = content(tmp_path, [arm]).joint
    # Shares of the first 0.5 and 1, of the second 0.25 and 1: before 0.5 the first is not measured. At 0.5, which is 20
    # token-forwards of the second, it lies a third of the way from 5 to 3.
    assert curve.points == ((120.0, pytest.approx(10 + 5 - 2 / 3)), (240.0, pytest.approx(9.0)))
    assert (curve.stage, curve.num_not_finite) == (0, 1)
    arm["runs"][1]["bound_curve"] = []
    assert content(tmp_path, [arm]).joint == ()


def test_a_network_that_stages_share_is_paid_for_and_has_no_line_among_whole_arms(tmp_path):
    arm = made_up.arm("a", 0, [3.0, 2.0])
    arm["runs"][0]["stage"] = 0
    found = content(tmp_path, [arm])
    assert found.joint == ()
    assert [curve.stage for curve in found.bounds] == [0, 2]
    assert found.arms[0].cost is not None
    assert found.arms[0].cost.token_forwards == 5_000_000
    assert "a: no line, since stages share a network." not in page(found)
    both = page(content(tmp_path, [arm, made_up.arm("b", 0, [3.0])]))
    assert "a: no line, since stages share a network." in both
    assert "the number of its stage, 0 for a network that stages share" in both


def test_a_flat_arm_has_a_line_whatever_number_its_only_run_has(tmp_path):
    arm = made_up.arm("flat", 0, [3.0])
    arm["runs"][0] |= {"stage": 0, "bound_curve": [[10, 9.0], [20, 3.0]]}
    found = content(tmp_path, [arm])
    assert [curve.points for curve in found.joint] == [((10.0, 9.0), (20.0, 3.0))]
    assert "stages share a network" not in page(found)


def test_values_between_points_lie_on_straight_lines():
    points = [(1.0, 4.0), (3.0, 8.0)]
    assert [value_at(points, place) for place in (0.0, 1.0, 2.0, 3.0, 9.0)] == [4.0, 4.0, 6.0, 8.0, 8.0]


def test_summary_holds_the_numbers_and_what_they_depend_on(tmp_path):
    found = report(made_up.read(tmp_path, made_up.study()))
    values: Any = json.loads(json.dumps(summary(found), allow_nan=False))
    assert values["format"] == "cascaded-dllm-report/1"
    assert values["verdict"] == found.ranking.sentence
    assert values["ranking"][0] == "placed"
    assert values["comparisons"][0]["other"] == "cascade"
    assert values["comparisons"][0]["verdict"] == "lower"
    assert values["comparisons"][0]["difference_nats_per_window"]["mean"] == pytest.approx(-1.15)
    assert len(values["comparisons"]) == 6
    [flat] = [arm for arm in values["arms"] if arm["arm"] == "flat"]
    assert found.arms[0].bound is not None
    assert flat["bound"]["nats_per_window"]["mean"] == found.arms[0].bound.nats.mean
    assert flat["sampling"][0]["figures"]["mauve"] is None
    assert values["arms"][3]["seeds"][1] == {
        "seed": 1,
        "status": "diverged",
        "reason": "the loss was not finite at step 120 of stage 2",
    }
    assert values["repeat"]["data"]["fingerprint"] == "sha256:6a1f0c3be2"
    assert values["repeat"]["settings"]["flat"]["optim"] == {"lr": 3e-4}
    losses = values["curves"]["loss_nats_per_token"]
    assert sum(curve["num_not_finite"] for curve in losses) == 1
    assert len(values["curves"]["bound_of_all_stages_nats_per_window"]) == 10
