"""Disclosure control of tables: planted disclosures are caught, safe tables pass, and no less would do."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy.optimize import linprog

from biglocal.disclosure import Cell, Relation, intervals, primary, protect, rounded, tables
from biglocal.model import DataError
from biglocal.study import load

RULES = load().disclosure
EXACT = replace(RULES, round_to=0)


def frame(cells: object, rows: str = "region", columns: str = "sex", margins: bool = True) -> pd.DataFrame:
    """A table of counts with its margins."""
    values = np.asarray(cells)
    out = pd.DataFrame(
        values,
        index=pd.Index([f"r{i}" for i in range(values.shape[0])], name=rows),
        columns=pd.Index([f"c{i}" for i in range(values.shape[1])], name=columns),
    )
    if margins:
        out.loc["All"] = out.sum()
        out["All"] = out.sum(axis=1)
    return out


def withheld(verdicts: dict[str, object]) -> set[str]:
    return {n for n, v in verdicts.items() if v.rule}  # type: ignore[attr-defined]


# --- planted disclosures ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cell", "rule"),
    [
        (Cell("three persons", "count", 3), "threshold"),
        (Cell("the mean of two persons", "mean", 6.5, persons=2), "threshold"),
        (Cell("the oldest", "extreme", 97, persons=5000), "extreme"),
        (Cell("few degrees of freedom", "regression", 1.2, persons=400, df=9), "degrees_of_freedom"),
        (Cell("one payer of most", "sum", 1000, persons=50, parts=(930.0, 30.0, *[1.0] * 40)), "dominance"),
        (Cell("two payers of nearly all", "sum", 1000, persons=50, parts=(500.0, 460.0, *[1.0] * 40)), "dominance"),
        (Cell("a mean of nobody knows how many", "mean", 6.5), "unknown"),
        (Cell("a sum of nobody knows what", "sum", 6.5, persons=50), "unknown"),
    ],
    ids=lambda x: x.name if isinstance(x, Cell) else "",
)
def test_one_number_that_discloses(cell: Cell, rule: str) -> None:
    verdict = primary(cell, RULES)
    assert verdict.rule == rule
    assert "not shown" in verdict.why
    assert "." in verdict.why.rstrip(".")  # which rule, then what to do


@pytest.mark.parametrize(
    "cell",
    [
        Cell("ten persons", "count", 10),
        Cell("nobody", "count", 0),
        Cell("the mean of ten", "mean", 6.5, persons=10),
        Cell("a regression", "regression", 1.2, persons=10, df=10),
        Cell("many payers", "sum", 100, persons=100, parts=(1.0,) * 100),
    ],
    ids=lambda c: c.name,
)
def test_one_number_that_does_not(cell: Cell) -> None:
    assert primary(cell, RULES).rule == ""


def test_a_cell_of_three_is_withheld_with_what_would_give_it_away() -> None:
    shown, verdicts = tables({"women": [frame([[3, 50], [40, 60]])]}, EXACT)
    assert verdicts["women: region r0, sex c0"].rule == "threshold"
    rules = [v.rule for v in verdicts.values()]
    assert rules.count("complementary") == 3
    assert "not shown: threshold" in shown["women"][0].to_numpy().tolist()[0]


def test_a_cell_derivable_by_subtraction_across_two_tables() -> None:
    """A table without margins, and another that has the margin of its first column."""
    table = frame([[3, 50], [40, 60]], margins=False)
    other = frame([[20], [23]], rows="year").loc[["All"], ["c0"]]
    assert withheld(tables({"people": [table]}, EXACT)[1]) == {"people: region r0, sex c0"}
    verdicts = tables({"people": [table, other]}, EXACT)[1]
    assert verdicts["people: region r0, sex c0"].rule == "threshold"
    assert [n for n, v in verdicts.items() if v.rule == "complementary"] in (
        ["people: region r1, sex c0"], ["people: sex c0"]
    )  # fmt: skip


def test_labels_that_leave_a_few_out() -> None:
    """The total counts four persons who gave no answer: no cell says so, the difference does."""
    table = frame([[50, 60]])[["c0", "c1", "All"]].loc[["r0"]]
    table["All"] += 4
    assert len(withheld(tables({"p": [table]}, EXACT)[1])) == 1
    table["All"] += 7
    assert withheld(tables({"p": [table]}, EXACT)[1]) == set()


def test_a_residual_table_is_protected() -> None:
    """Two safe tables, one of a part of the other's people: their difference is three persons in a cell."""
    whole, part = frame([[53, 80], [70, 90]], margins=False), frame([[50, 60], [50, 70]], margins=False)
    assert withheld(tables({"all": [whole], "answered": [part]}, EXACT)[1]) == set()
    found = tables({"all": [whole], "answered": [part]}, EXACT, within={"answered": "all"})[1]
    assert len(withheld(found)) == 1
    assert withheld(found) <= {"all: region r0, sex c0", "answered: region r0, sex c0"}


def test_rounding_may_protect_what_would_else_need_another_cell() -> None:
    table = frame([[3, 50, 60]])[["c0", "c1", "c2", "All"]].loc[["r0"]]
    assert len(withheld(tables({"p": [table]}, EXACT)[1])) == 2
    assert len(withheld(tables({"p": [table]}, replace(RULES, round_to=10))[1])) == 1


# --- nothing safe is blocked, nothing more than needed ------------------------------------------------------------


def test_none_of_a_hundred_safe_tables_is_blocked() -> None:
    rng = np.random.default_rng(11)
    for i in range(100):
        counts = rng.integers(10, 400, size=rng.integers(2, 7, size=2))
        counts[rng.random(counts.shape) < 0.1] = 0
        part = np.where(rng.random(counts.shape) < 0.5, counts, np.maximum(counts - rng.integers(10, 60), 0))
        part = np.where((part > 0) & (part < 10), 0, part)
        part = np.where((counts - part > 0) & (counts - part < 10), counts, part)
        rules = EXACT if i % 2 else RULES
        verdicts = tables({"a": [frame(counts)], "b": [frame(part, margins=False)]}, rules, within={"b": "a"})[1]
        assert withheld(verdicts) == set(), i


def attacker(cells: list[Cell], relations: list[Relation], held: set[str], name: str) -> float:
    """The width of what is possible for one cell: the same question put plainly, in values and not in deviations."""
    index = {c.name: i for i, c in enumerate(cells)}
    matrix = np.zeros((len(relations), len(cells)))
    for r, relation in enumerate(relations):
        for n, x in relation:
            matrix[r, index[n]] = x
    bounds = [(0, 1e5) if c.name in held else (c.value, c.value) for c in cells]
    ends = []
    for sign in (1, -1):
        c = np.zeros(len(cells))
        c[index[name]] = sign
        ends.append(sign * linprog(c, A_eq=matrix, b_eq=np.zeros(len(relations)), bounds=bounds).fun)
    return float(ends[1] - ends[0])


@pytest.mark.parametrize("seed", range(12))
def test_the_least_cost_of_all_patterns(seed: int) -> None:
    """Against every pattern there is, each asked whether it protects."""
    rng = np.random.default_rng(seed)
    counts = rng.integers(10, 60, size=(2, 3))
    counts.flat[rng.choice(6, size=2, replace=False)] = rng.integers(1, 10, size=2)
    table = frame(counts)
    names = {(r, c): f"{r} {c}" for r in table.index for c in table.columns}
    cells = [Cell(n, "count", float(table.loc[k]), cost=float(rng.integers(1, 9))) for k, n in names.items()]
    relations: list[Relation] = [
        (*((f"{r} {c}", 1.0) for c in table.columns if c != "All"), (f"{r} All", -1.0)) for r in table.index
    ] + [(*((f"{r} {c}", 1.0) for r in table.index if r != "All"), (f"All {c}", -1.0)) for c in table.columns]
    small = {c.name for c in cells if c.value < 10}
    found = withheld(protect(cells, relations, EXACT))
    assert small <= found

    def safe(held: set[str]) -> bool:
        return all(attacker(cells, relations, held, n) >= 10 - 1e-6 for n in small)

    assert safe(found)
    others = [c for c in cells if c.name not in small]
    cost = {c.name: c.cost for c in cells}
    best = min(
        sum(cost[n] for n in more)
        for size in range(len(others) + 1)
        for more in itertools.combinations([c.name for c in others], size)
        if sum(cost[n] for n in more) <= sum(cost[n] for n in found - small) and safe(small | set(more))
    )
    assert sum(cost[n] for n in found - small) == pytest.approx(best)


@pytest.mark.parametrize("base", [0, 5, 10])
@pytest.mark.parametrize("seed", range(4))
def test_no_whole_number_table_narrows_a_withheld_cell(seed: int, base: int) -> None:
    """By counting: every table of whole numbers that would be printed alike, with an eye on the withheld cell."""
    rng = np.random.default_rng(seed)
    rules = replace(RULES, round_to=base)
    row = [int(rng.integers(1, 10)), *(int(x) for x in rng.integers(10, 40, size=2))]
    table = frame([row]).loc[["r0"]]
    shown, verdicts = tables({"p": [table]}, rules)
    printed = shown["p"][0].loc["r0"].tolist()

    def alike(value: int, seen: object) -> bool:
        if isinstance(seen, str):
            return True
        return rounded(value, base) == seen and value >= rules.min_cell

    possible = {
        a
        for a, b, c in itertools.product(range(130), repeat=3)
        if alike(a, printed[0]) and alike(b, printed[1]) and alike(c, printed[2]) and alike(a + b + c, printed[3])
    }
    assert row[0] in possible
    assert max(possible) - min(possible) >= rules.min_cell - 1  # the end points of whole numbers
    name = "p: region r0, sex c0"
    assert verdicts[name].rule == "threshold"


# --- laws ---------------------------------------------------------------------------------------------------------


def test_order_and_names_change_nothing() -> None:
    table = frame(np.random.default_rng(2).integers(4, 60, size=(4, 4)))
    one = withheld(tables({"p": [table]}, EXACT)[1])
    other = withheld(tables({"p": [table.iloc[::-1, ::-1]]}, EXACT)[1])
    assert one == other
    assert len(one) > 2
    turned = withheld(tables({"p": [table.T]}, EXACT)[1])
    assert turned == one


def test_what_is_withheld_is_safe_and_said_so_by_the_attacker() -> None:
    rng = np.random.default_rng(5)
    cells = [Cell(f"x{i}", "count", float(v)) for i, v in enumerate(rng.integers(2, 30, size=12))]
    total = Cell("all", "count", sum(c.value for c in cells))
    relation = (*((c.name, 1.0) for c in cells), ("all", -1.0))
    found = withheld(protect([*cells, total], [relation], EXACT))
    small = [c.name for c in cells if c.value < 10]
    for low, high in intervals([*cells, total], [relation], found, small, EXACT).values():
        assert high - low >= EXACT.min_cell - 1e-6


def test_an_estimate_that_follows_from_the_others_takes_one_with_it() -> None:
    """The effect in two levels and over all: a level withheld would be the difference."""
    levels = [Cell("few", "regression", 1.0, persons=4, df=50), Cell("many", "regression", 2.0, persons=900, df=50)]
    whole = Cell("all", "regression", 1.9, persons=904, df=50, cost=5)
    relation = (("few", 0.1), ("many", 0.9), ("all", -1.0))
    verdicts = protect([*levels, whole], [relation], RULES)
    assert {n: v.rule for n, v in verdicts.items()} == {"few": "threshold", "many": "complementary", "all": ""}


def test_refusals() -> None:
    with pytest.raises(DataError, match="two cells are named 'a' and differ"):
        protect([Cell("a", "count", 1), Cell("a", "count", 2)], [], RULES)
    with pytest.raises(DataError, match="names 'b', which is no cell"):
        protect([Cell("a", "count", 1)], [(("a", 1.0), ("b", -1.0))], RULES)
    wrong = frame([[20, 30], [40, 50]])
    wrong.loc["All", "All"] -= 1
    with pytest.raises(DataError, match="less than its parts"):
        tables({"p": [wrong]}, RULES)
    with pytest.raises(DataError, match="Name both its axes"):
        tables({"p": [frame([[20, 30]]).rename_axis(index=None)]}, RULES)
