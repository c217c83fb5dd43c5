"""From fits to rows: what is hidden goes with what would give it away."""

from __future__ import annotations

from biglocal.estimate import _hidden


def test_a_hidden_level_takes_the_next_smallest_with_it() -> None:
    assert _hidden(["a", "b", "c", ""], [3, 40, 20, 63], 10) == [True, False, True, False]
    assert _hidden(["a", "b", ""], [3, 657, 660], 10) == [True, True, False]


def test_two_hidden_levels_hide_each_other() -> None:
    assert _hidden(["a", "b", "c"], [3, 4, 50], 10) == [True, True, False]


def test_nothing_is_hidden_without_need() -> None:
    assert _hidden(["a", "b", ""], [10, 657, 667], 10) == [False, False, False]
    assert _hidden(["", ""], [3, 3], 0) == [False, False]
