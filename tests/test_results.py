"""The one table: what is written is what is read, and what is not a results table is refused."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from biglocal import inference, results
from biglocal.model import DataError
from biglocal.results import Row

ROW = Row(
    "effects/a", "d", "effects", "a", "all", "", "nearest", "start", "twfe", "cluster", "att", None, -0.5, 0.2, 99.0,
    -2.5, 0.014, 0.028, -0.9, -0.1, 0.95, "points", 1000, 100, 20, 50, "ok", "", "synthetic",
)  # fmt: skip


@given(
    st.builds(
        lambda e, p, r: replace(ROW, estimate=e, period=p, reason=r),
        st.none() | st.floats(-1e300, 1e300),
        st.none() | st.integers(-99, 2100),
        st.text(st.characters(blacklist_categories=("Cs", "Cc"))),
    )
)
def test_written_and_read(row: Row) -> None:
    (back,) = results.loads(results.dumps([row]), "x.csv")
    assert (back.period, back.reason) == (row.period, row.reason)
    if row.estimate is None:
        assert back.estimate is None
    else:
        assert back.estimate == pytest.approx(row.estimate, rel=1e-9)
    assert results.dumps([back]) == results.dumps([row])


def test_a_journal_is_read_up_to_its_last_whole_analysis(tmp_path: Path) -> None:
    """Wherever a kill cut it, within a line, a letter of two bytes, or between two lines of one analysis."""
    first, second = (results.dumps([replace(ROW, analysis=n, reason="−0.1")] * 2) for n in ("effects/a", "effects/b"))
    whole = (first + results.WHOLE).encode()
    text = whole + (second.split("\n", 1)[1] + results.WHOLE).encode()
    path = tmp_path / "j.csv"
    for end in range(text.index(b"\n") + 1, len(text) + 1):
        path.write_bytes(text[:end])
        there = 0 if end < len(whole) else 2 if end < len(text) else 4
        assert len(results.read(path, torn=True)) == there
    with pytest.raises(DataError, match="line 3"):
        results.loads(first[:-20], "j.csv")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,b\n1,2\n", "not a results table"),
        (results.dumps([ROW]).replace("-0.5", "minus", 1), "line 2, column estimate: 'minus'"),
        ("", "not a results table"),
    ],
)
def test_refused(text: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        results.loads(text, "results.csv")


def test_select() -> None:
    rows = (ROW, replace(ROW, outcome="b"), replace(ROW, outcome="c"))
    assert [r.outcome for r in results.select(rows, outcome=["a", "c"], term="att")] == ["a", "c"]
    with pytest.raises(KeyError, match="no column 'outcom'"):
        results.select(rows, outcom="a")


def test_nothing_half_written_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.csv"
    results.write_text(path, "old")

    def fail(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        results.write_text(path, "new")
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["x.csv"]


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_adjusted_p_values_keep_order_and_never_fall(p: list[float]) -> None:
    for method in ("holm", "fdr_bh"):
        adjusted = inference.adjust(p, method)
        assert all(a >= b - 1e-12 and a <= 1 for a, b in zip(adjusted, p, strict=True))
        order = sorted(range(len(p)), key=lambda i: p[i])
        assert all(adjusted[i] <= adjusted[j] + 1e-12 for i, j in pairwise(order))
