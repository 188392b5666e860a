"""Curves thinned to a few points."""

import pytest

from cns_core.curves import thinned


def test_short_curves_stay_as_they_are():
    curves = thinned({"a": [1.0, 2.0, 3.0]}, 3)
    assert curves.points == {"a": (1.0, 2.0, 3.0)} and (curves.every, curves.steps) == (1, 3)


def test_long_ones_become_means_and_the_rest_is_no_outlier():
    curves = thinned({"a": [float(i) for i in range(10)], "b": [1.0] * 10}, 4)
    assert curves.points == {"a": (1.0, 4.0, 7.0, 9.0), "b": (1.0,) * 4} and curves.every == 3
    assert len(thinned({"a": [0.0] * 100_001}, 160).points["a"]) <= 160


def test_numbers_are_short_in_json():
    told = thinned({"a": [1 / 3]}, 5).as_json()
    assert told == {"points": {"a": [0.3333]}, "every": 1, "steps": 1}


def test_nothing_is_no_curve():
    assert thinned({}, 5).as_json() == {"points": {}, "every": 1, "steps": 0}


def test_curves_of_several_lengths_are_refused():
    with pytest.raises(ValueError, match=r"Curves of \[1, 2\] values"):
        thinned({"a": [1.0], "b": [1.0, 2.0]}, 5)
