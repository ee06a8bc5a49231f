import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cascaded_dllm.pages import contrast
from cascaded_dllm.report.axes import axis_of
from cascaded_dllm.report.chart_parts import (
    DARK_COLOURS,
    HEIGHT,
    LIGHT_COLOURS,
    WIDTH,
    Frame,
    clipped,
    spread,
    style_of,
)
from cascaded_dllm.report.charts import thinned


@given(st.lists(st.floats(-50, 400), min_size=1, max_size=12), st.floats(1, 60))
def test_labels_are_moved_apart_in_their_order(places, gap):
    moved = spread(places, gap, 0.0, 300.0)
    room = min(gap, 300 / max(len(places) - 1, 1))
    assert all(-1e-6 <= place <= 300 + 1e-6 for place in moved)
    ordered = [after for _, after in sorted(zip(places, moved, strict=True))]
    assert all(two - one >= room - 1e-6 for one, two in zip(sorted(ordered), sorted(ordered)[1:], strict=False))
    strictly = sorted(set(places))
    by_place = dict(zip(places, moved, strict=True))
    if len(strictly) == len(places):
        assert [by_place[place] for place in strictly] == sorted(moved)


def test_labels_that_have_room_stay_and_a_crowd_moves_to_both_sides():
    assert spread([10.0, 100.0, 40.0], 12.0, 0.0, 300.0) == [10, 100, 40]
    assert spread([50.0, 51.0, 52.0], 10.0, 0.0, 300.0) == pytest.approx([41, 51, 61])


def test_styles_of_two_hundred_arms_differ():
    assert len({style_of(place) for place in range(210)}) == 210


@pytest.mark.parametrize(("colours", "page"), [(LIGHT_COLOURS, "ffffff"), (DARK_COLOURS, "0f1318")])
def test_colours_stand_out_from_their_page(colours, page):
    """3 is what WCAG 2.1 asks of graphics."""
    for colour in colours:
        assert contrast(bytes.fromhex(colour[1:]), bytes.fromhex(page)) >= 3


@given(st.lists(st.tuples(st.integers(0, 10**9), st.integers(-(10**9), 10**9)), min_size=1, max_size=5))
def test_points_lie_inside_their_chart(points):
    places = [(x / 1000, y / 1000) for x, y in points]
    frame = Frame(axis_of([x for x, _ in places], may_be_log=True), axis_of([y for _, y in places]))
    for x, y in places:
        assert 0 < frame.left(x) < WIDTH
        assert 0 < frame.top(y) < HEIGHT


@pytest.mark.parametrize("value", [2.0, 5.0, 9.5])
def test_the_name_of_a_level_keeps_away_from_points(value):
    frame = Frame(axis_of([0.0, 10.0]), axis_of([0.0, 10.0]))
    crowd = [(frame.left(9.5), frame.top(value) + shift) for shift in (-8, 0, 8)]
    found = frame.level(value, "real text", crowd)
    assert 'text-anchor="start"' in found
    match = re.search(r' y="([\d.]+)"', found)
    assert match
    assert abs(float(match[1]) - frame.top(value)) <= 12
    assert 'text-anchor="end"' in frame.level(value, "real text", [])


def test_long_names_are_cut_and_many_points_thinned():
    assert clipped("placed", 100.0) == "placed"
    assert clipped("placed" * 40, 100.0) == "placedplacedpla…"
    points = [(float(place), 1.0) for place in range(1000)]
    kept = thinned(points)
    assert len(kept) == 200
    assert (kept[0], kept[-1]) == (points[0], points[-1])
    assert thinned(points[:200]) == points[:200]
