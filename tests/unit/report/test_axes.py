import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from cascaded_dllm.report.axes import axis_of, measured_text, number_text

# As large and as small as a file may hold.
VALUES = st.floats(-1e150, 1e150, allow_subnormal=False).map(lambda value: value if abs(value) >= 1e-150 else 0.0)


@given(st.lists(VALUES, max_size=6), st.booleans(), st.booleans())
@example([1e-150, 1e150], False, True)
@example([1.0, 1.0 + 1e-16], False, False)
@example([0.1, 20 * 0.1], False, True)
@example([-1e-150], True, False)
def test_an_axis_has_room_for_all_values_and_marks_some(values, from_zero, may_be_log):
    axis = axis_of(values, from_zero=from_zero, may_be_log=may_be_log)
    assert axis.low < axis.high
    assert all(0 <= axis.share(value) <= 1 for value in values)
    assert all(axis.low <= tick <= axis.high for tick in axis.ticks)
    assert 2 <= len(set(axis.ticks)) == len(axis.ticks) <= 10
    assert list(axis.ticks) == sorted(axis.ticks)
    assert [tick for tick, _ in axis.labelled()] == list(axis.ticks)
    assert len({label for _, label in axis.labelled()}) == len(axis.ticks)
    assert axis.share(axis.low) == 0
    assert axis.share(axis.high) == pytest.approx(1)
    if from_zero:
        assert axis.low <= 0 <= axis.high


@pytest.mark.parametrize(
    ("values", "ticks"),
    [
        ([0.0, 30.2], (0, 10, 20, 30, 40)),
        ([0.11, 0.29], (0.1, 0.15, 0.2, 0.25, 0.3)),
        ([3.0, 3.0], (1, 2, 3, 4, 5)),
        ([], (0, 0.2, 0.4, 0.6, 0.8, 1)),
        ([-4.0, 4.0], (-4, -2, 0, 2, 4)),
    ],
)
def test_ticks_are_round_numbers(values, ticks):
    assert axis_of(values).ticks == ticks


@pytest.mark.parametrize(
    ("values", "labels"),
    [
        ([1024.1, 1024.9], ["1.024k", "1.0242k", "1.0244k", "1.0246k", "1.0248k", "1.025k"]),
        ([5e6, 5.0004e6], ["5M", "5.0001M", "5.0002M", "5.0003M", "5.0004M"]),
        ([0.0, 30.2], ["0", "10", "20", "30", "40"]),
    ],
)
def test_labels_of_ticks_differ(values, labels):
    assert [label for _, label in axis_of(values).labelled()] == labels


def test_a_wide_range_of_positive_numbers_may_be_logarithmic():
    assert axis_of([2e3, 3e6], may_be_log=True).ticks == (1e4, 1e5, 1e6)
    near = axis_of([12.0, 300.0], may_be_log=True)
    assert near.ticks == (20, 50, 100, 200)
    assert near.share((12 * 300) ** 0.5) == pytest.approx(0.5)
    assert not axis_of([0.0, 300.0], may_be_log=True).is_log
    assert not axis_of([100.0, 300.0], may_be_log=True).is_log
    assert not axis_of([1.0, 300.0]).is_log


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"),
        (1_500_000.0, "1.5M"),
        (999_999.0, "1M"),
        (-2000.0, "-2k"),
        (0.02, "0.02"),
        (3.14159, "3.142"),
        (1.2e12, "1.2T"),
        (4e-7, "4e-07"),
        (1e150, "1e+150"),
    ],
)
def test_numbers_are_short(value, text):
    assert number_text(value) == text


@pytest.mark.parametrize(
    ("mean", "error", "text"),
    [
        (28.6123, 0.1234, "28.61 ± 0.12"),
        (28.6123, None, "28.61"),
        (128.0, 0.0, "128"),
        (1498.0, 1.6e-13, "1.498k"),
        (1234.5, 3.21, "1,234.5 ± 3.2"),
        (5_000_000.0, 120_000.0, "5M ± 1.2e+05"),
        (-1.15, 0.012, "-1.150 ± 0.012"),
        (0.5, 1e-8, "0.5 ± 1e-08"),
    ],
)
def test_an_error_decides_the_digits(mean, error, text):
    assert measured_text(mean, error).replace("\N{NO-BREAK SPACE}", " ") == text


@given(VALUES, VALUES.map(abs) | st.none())
def test_every_measurement_can_be_written(mean, error):
    assert measured_text(mean, error)
