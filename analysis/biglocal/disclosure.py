"""Disclosure control of any set of tables: which cells may not leave, and which others must stay with them.

Primary rules, on one number at a time: the fewest persons behind it, residual degrees of freedom, dominance of a sum
by its largest contributors, no largest or smallest value (Griffiths et al. 2019, Handbook on Statistical Disclosure
Control for Outputs; the defaults are those of acro 1.0.2, which UK laboratories use).

Then what the rest gives away. An attacker knows all that is printed, rounded as it is printed, how the cells add up
over all tables together, and the rules. What a withheld cell can still be is an interval, found by two linear
programs. Cells whose interval is too narrow are protected by withholding others, of least cost in all: a cut from the
duals of the attacker's programs for each cell that is not safe, and a mixed-integer program over the cuts, until
every cell is safe (Fischetti and Salazar-Gonzalez 2001, Management Science 47:1008, for sliding protection). The
answer is optimal, and does not depend on the order of cells. Cells are taken as real numbers, not integers, so an
attacker who knows that counts are whole can do no better than in the programs by less than one person at each end.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from biglocal.model import DataError, Disclosure

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray

Kind = Literal["count", "sum", "mean", "regression", "extreme", "derived"]  # derived: made of other numbers alone
Rule = Literal["", "threshold", "unknown", "degrees_of_freedom", "dominance", "extreme", "complementary"]
Relation = tuple[tuple[str, float], ...]  # sum of coefficient x cell = 0
CHECKED: dict[Kind, tuple[Rule, ...]] = {
    "count": ("threshold", "complementary"),
    "sum": ("threshold", "dominance", "complementary"),
    "mean": ("threshold", "complementary"),
    "regression": ("threshold", "degrees_of_freedom", "complementary"),
    "extreme": ("extreme",),
    "derived": ("complementary",),
}
TOGETHER = 32  # programs put to the solver at a time
FREE = 1e4  # how far a withheld estimate may lie from its value, in the attacker's program: any number far above 1


@dataclass(frozen=True, slots=True)
class Cell:
    """One number that could leave.

    `persons`: the fewest persons it shows (a count shows its value), None where nobody knows. `df`: residual degrees
    of freedom of a regression. `parts`: the contributions to a sum, in any order. `cost` of withholding it.
    `printed` is False for a number that no table holds but that follows from some, say a difference of two samples.
    """

    name: str
    kind: Kind
    value: float
    persons: int | None = None
    df: float | None = None
    parts: tuple[float, ...] = ()
    cost: float = 1.0
    printed: bool = True


@dataclass(frozen=True, slots=True)
class Verdict:
    """What becomes of a cell: it may leave where `rule` is '', else `why` says in a sentence what holds it back."""

    rule: Rule = ""
    why: str = ""


def rounded(count: int, base: int) -> int:
    """The count at the nearest multiple of `base`, halves up; as it is for a base of 0 or 1."""
    return count if base < 2 else (count + base // 2) // base * base


def primary(cell: Cell, rules: Disclosure) -> Verdict:
    """The verdict on one cell by itself. Never says how many persons there are."""
    persons = round(cell.value) if cell.kind == "count" else cell.persons
    if cell.kind == "extreme":
        return Verdict("extreme", "A largest or smallest value is that of one person: not shown. Give a quantile.")
    if cell.kind == "derived":
        return Verdict()
    if persons is None:
        return Verdict("unknown", "How many persons are behind it is not known: not shown. Count them in its fit.")
    if persons < rules.min_cell and not (cell.kind == "count" and persons == 0):
        return Verdict("threshold", f"Fewer than {rules.min_cell} persons: not shown. Join levels or years.")
    if cell.kind == "regression" and cell.df is not None and cell.df < rules.min_df:
        why = f"Fewer than {rules.min_df} residual degrees of freedom: not shown. Fit a smaller model."
        return Verdict("degrees_of_freedom", why)
    if cell.kind == "sum":
        if not cell.parts:
            return Verdict("unknown", "The contributions to this sum are not known: not shown. Give them.")
        x = sorted((abs(p) for p in cell.parts), reverse=True)
        total, first = sum(x), x[0]
        n = rules.dominance_n
        if sum(x[:n]) > rules.dominance_k * total or total - sum(x[:2]) < rules.dominance_p * first:
            return Verdict("dominance", f"Its {n} largest contributors dominate this sum: not shown. Join cells.")
    return Verdict()


def protect(cells: Iterable[Cell], relations: Iterable[Relation], rules: Disclosure) -> dict[str, Verdict]:
    """The verdict on every printed cell of all tables together.

    `relations` says how cells add up; each must hold of the values. A withheld count is safe where the attacker's
    interval is at least `rules.min_cell` persons wide, a sum at least `dominance_p` of itself, any other number where
    it is not determined. A count that is not printed and is under the threshold is safe where it may be 0 or may
    reach the threshold.

    Raises `DataError` for two cells of one name that differ, and for a relation of cells that do not exist.
    """
    by_name: dict[str, Cell] = {}
    for cell in sorted(cells, key=lambda c: c.name):
        other = by_name.setdefault(cell.name, cell)
        if (other.kind, other.value, other.printed) != (cell.kind, cell.value, cell.printed):
            raise DataError(f"disclosure: two cells are named {cell.name!r} and differ. Give each its own name.")
    linked = sorted({tuple(sorted(r)) for r in relations})
    for relation in linked:
        for name, _ in relation:
            if name not in by_name:
                raise DataError(f"disclosure: a relation names {name!r}, which is no cell. Add the cell.")
    out = {name: primary(cell, rules) for name, cell in by_name.items()}
    for name, cell in by_name.items():
        if not cell.printed:
            out[name] = Verdict()
    for group in _groups(by_name, linked):
        members = [by_name[n] for n in group]
        delicate = [i for i, c in enumerate(members) if out[c.name].rule or _hidden(c, rules)]
        if delicate:
            own = set(group)
            within = [r for r in linked if r[0][0] in own]
            held = [i for i, c in enumerate(members) if out[c.name].rule or not c.printed]
            for i in _complementary(members, within, delicate, held, rules):
                out[members[i].name] = Verdict(
                    "complementary",
                    "With the other numbers it would give away one of few persons: not shown. Join the small cells.",
                )
    return {name: verdict for name, verdict in out.items() if by_name[name].printed}


def intervals(
    cells: Sequence[Cell], relations: Sequence[Relation], withheld: set[str], names: Sequence[str], rules: Disclosure
) -> dict[str, tuple[float, float]]:
    """What an attacker can conclude of the cells named, from the cells not `withheld` as printed: (least, most)."""
    index = {c.name: i for i, c in enumerate(cells)}
    held = {index[n] for n in withheld} | {i for i, c in enumerate(cells) if not c.printed}
    attack = _Attack(list(cells), list(relations), rules)
    out = {}
    for name, (low, high, _) in zip(names, attack.reach([index[n] for n in names], held), strict=True):
        out[name] = (cells[index[name]].value - low, cells[index[name]].value + high)
    return out


# --- the attacker and the defence -------------------------------------------------------------------------------


def _hidden(cell: Cell, rules: Disclosure) -> bool:
    return not cell.printed and cell.kind == "count" and 0 < cell.value < rules.min_cell


def _groups(cells: Mapping[str, Cell], relations: Sequence[Relation]) -> list[list[str]]:
    """Cells that relations link, together; alone are left out: nothing gives them away."""
    parent = {n: n for n in cells}

    def root(n: str) -> str:
        while parent[n] != n:
            parent[n] = parent[parent[n]]
            n = parent[n]
        return n

    for relation in relations:
        for name, _ in relation:
            parent[root(name)] = root(relation[0][0])
    groups: dict[str, list[str]] = {}
    for name in sorted(cells):
        groups.setdefault(root(name), []).append(name)
    return [g for g in groups.values() if len(g) > 1]


class _Attack:
    """The attacker's linear programs over one group of cells, in deviations from the true values."""

    def __init__(self, cells: list[Cell], relations: list[Relation], rules: Disclosure) -> None:
        import numpy as np
        from scipy.sparse import csr_array

        index = {c.name: i for i, c in enumerate(cells)}
        entries = [(r, index[n], x) for r, relation in enumerate(relations) for n, x in relation]
        rows, columns, values = (list(v) for v in zip(*entries, strict=True))
        self.matrix = csr_array((values, (rows, columns)), shape=(len(relations), len(cells)))
        most = 2 * max(abs(c.value) for c in cells) + 10 * rules.min_cell
        shown = np.array([_printed(c, rules) for c in cells], dtype=float)
        loose = np.array(
            [(-c.value, most) if c.kind in ("count", "sum") else (-FREE, FREE) for c in cells], dtype=float
        )
        self.shown, self.loose = (
            shown,
            np.column_stack([np.minimum(shown[:, 0], loose[:, 0]), np.maximum(shown[:, 1], loose[:, 1])]),
        )

    def reach(self, of: Sequence[int], held: set[int]) -> list[tuple[float, float, NDArray[np.float64]]]:
        """How far each cell may lie below and above its value, and what withholding each cell could add to both.

        The programs of all cells are put to the solver as one, which falls into as many parts: the solver's own
        preparation would take longer than its work.
        """
        import numpy as np
        from scipy import optimize, sparse

        linprog: Any = optimize.linprog
        bounds = self.shown.copy()
        at = sorted(held)
        bounds[at] = self.loose[at]
        k, found = len(bounds), []
        for some in (of[i : i + TOGETHER] for i in range(0, len(of), TOGETHER)):
            parts = 2 * len(some)
            c = np.zeros((parts, k))
            c[np.arange(parts), np.repeat(some, 2)] = np.tile([1.0, -1.0], len(some))
            matrix = sparse.kron(sparse.eye_array(parts), self.matrix, format="csr")
            zero = np.zeros(matrix.shape[0])
            r = linprog(c.ravel(), A_eq=matrix, b_eq=zero, bounds=np.tile(bounds, (parts, 1)), method="highs")
            x = -(c * r.x.reshape(parts, k)).sum(axis=1)
            # weak duality: with other bounds the reach is at most this linear function of them
            room = np.maximum(r.lower.marginals, 0).reshape(parts, k) * (self.shown[:, 0] - self.loose[:, 0])
            room += np.maximum(-r.upper.marginals, 0).reshape(parts, k) * (self.loose[:, 1] - self.shown[:, 1])
            found += [(float(x[2 * j]), float(x[2 * j + 1]), room[2 * j] + room[2 * j + 1]) for j in range(len(some))]
        return found


def _printed(cell: Cell, rules: Disclosure) -> tuple[float, float]:
    """The deviations from its value that a printed cell leaves open: those that are printed alike and may be shown."""
    base = rules.round_to
    if cell.kind != "count" or base < 2 or cell.value == 0:
        return 0.0, 0.0
    middle = rounded(round(cell.value), base)
    least, most = middle - base // 2, middle + (base - 1) // 2
    if cell.value >= rules.min_cell:  # a smaller one would not be printed
        least = max(least, rules.min_cell)
    return least - cell.value, most - cell.value


def _need(cell: Cell, rules: Disclosure) -> float:
    if cell.kind == "count":
        return float(rules.min_cell)
    return rules.dominance_p * abs(cell.value) if cell.kind == "sum" else 1.0


def _complementary(
    cells: list[Cell], relations: list[Relation], delicate: list[int], held: list[int], rules: Disclosure
) -> list[int]:
    """The cells of least cost to withhold besides `held`, so that each of `delicate` is safe."""
    import numpy as np
    from scipy.optimize import Bounds, LinearConstraint, milp

    attack, fixed = _Attack(cells, relations, rules), set(held)
    # ties go to the first in the order of names, so that the answer is one
    cost = np.array([c.cost for c in cells]) * (1 + 1e-7 * np.arange(len(cells)))
    lower = np.zeros(len(cells))
    lower[held] = 1
    cuts: list[NDArray[np.float64]] = []
    now = set(fixed)
    while True:
        new = 0
        for i, (low, high, room) in zip(delicate, attack.reach(delicate, now), strict=True):
            cell, tight = cells[i], 1e-6 * max(1.0, abs(cells[i].value))
            if cell.printed:
                need = _need(cell, rules)
                if low + high >= need - tight:
                    continue
                # with nothing but `held` withheld the interval is this wide at most, and each cell adds its room
                rest = need - (low + high) + sum(room[j] for j in now - fixed)
                cut = np.minimum(room / rest, 1.0)
            else:
                if low >= cell.value - tight or high >= rules.min_cell - cell.value - tight:
                    continue
                cut = (room > 1e-9).astype(float)
                cut[list(now)] = 0
            cut[held] = 0
            if not (cut > 1e-9).any():
                return [j for j in range(len(cells)) if j not in fixed]  # nothing less can protect it
            cuts.append(cut)
            new += 1
        if not new:
            return sorted(now - fixed)
        answer: Any = milp(
            cost,
            constraints=LinearConstraint(np.array(cuts), lb=1 - 1e-9),
            integrality=np.ones(len(cells), dtype=int),
            bounds=Bounds(lower, 1),
        )
        if answer.x is None:
            return [j for j in range(len(cells)) if j not in fixed]
        after = set(np.flatnonzero(answer.x > 0.5).tolist())
        if after == now:  # a matter of the solver's tolerance: what is not safe takes all it hangs on with it
            return [j for j in range(len(cells)) if j not in fixed]
        now = after


# --- tables of counts ---------------------------------------------------------------------------------------------

Key = tuple[str, frozenset[tuple[str, str]]]  # population, and what its persons are counted by: (dimension, label)


def tables(
    frames: Mapping[str, Sequence[pd.DataFrame]],
    rules: Disclosure,
    *,
    within: Mapping[str, str] | None = None,
    total: str = "All",
) -> tuple[dict[str, list[pd.DataFrame]], dict[str, Verdict]]:
    """Tables of counts of persons as they may leave, and the verdict on each of their cells.

    `frames`: population -> its tables, (rows x columns) of counts; `index.name` and `columns.name` say what they
    are counted by. A row or column labelled `total` is a margin, and the margin of every table of its population.
    Labels that do not exhaust their margin leave a rest, which is protected too. `within`: population -> the
    population it is a part of; their difference is protected like a table. In what comes back counts are rounded,
    and a withheld one is the text `not shown: <rule>`.

    Raises `DataError` for a dimension without a name, a cell that has two values, and a margin or a whole smaller
    than its parts.
    """
    values: dict[Key, float] = {}
    labels: set[tuple[str, str, tuple[str, ...]]] = set()
    for population, some in frames.items():
        for frame in some:
            for key, value in _keys(population, frame, total).items():
                if values.setdefault(key, value) != value:
                    raise DataError(f"disclosure: {_name(key)} is {values[key]:g} in one table, {value:g} in a second.")
            for axis in (frame.index, frame.columns):
                labels.add((population, str(axis.name), tuple(sorted(str(v) for v in axis if v != total))))
    cells = {_name(k): Cell(_name(k), "count", v, cost=1 + v * 1e-6) for k, v in values.items()}
    relations: list[Relation] = []

    def adds_up(whole: Key, parts: list[Key], rest: str) -> None:
        left = values[whole] - sum(values[p] for p in parts)
        if left < 0:
            raise DataError(f"disclosure: {_name(whole)} is less than its parts in sum. Correct the table.")
        terms = [(_name(whole), -1.0), *((_name(p), 1.0) for p in parts)]
        if left > 0:
            cells[rest] = Cell(rest, "count", left, printed=False)
            terms.append((rest, 1.0))
        relations.append(tuple(terms))

    for population, dimension, seen in sorted(labels):
        for whole in [k for k in values if k[0] == population and dimension not in dict(k[1])]:
            parts = [(population, whole[1] | {(dimension, label)}) for label in seen]
            if parts and all(p in values for p in parts):
                adds_up(whole, parts, f"{_name(whole)} less those by {dimension} ({', '.join(seen)})")
    for part, wider in (within or {}).items():
        for key in [k for k in values if k[0] == part and (wider, k[1]) in values]:
            adds_up((wider, key[1]), [key], f"{wider} less {_name(key)}")
    verdicts = protect(cells.values(), relations, rules)
    out: dict[str, list[pd.DataFrame]] = {}
    for population, some in frames.items():
        out[population] = []
        for frame in some:
            rules_of = [verdicts[_name(k)].rule for k in _keys(population, frame, total)]
            texts = [
                f"not shown: {rule}" if rule else rounded(round(float(v)), rules.round_to)
                for rule, v in zip(rules_of, frame.to_numpy().ravel(), strict=True)
            ]
            width = len(frame.columns)
            shown = frame.astype(object)
            for i in range(len(frame)):
                shown.iloc[i] = texts[i * width : (i + 1) * width]
            out[population].append(shown)
    return out, verdicts


def _keys(population: str, frame: pd.DataFrame, total: str) -> dict[Key, float]:
    """The cells of a table, row by row."""
    rows, columns = frame.index.name, frame.columns.name
    if rows is None or columns is None:
        raise DataError(f"disclosure: a table of {population} does not say what it is counted by. Name both its axes.")
    numbers = frame.to_numpy(dtype=float)
    return {
        (population, frozenset((str(d), str(v)) for d, v in ((rows, r), (columns, c)) if v != total)): numbers[i, j]
        for i, r in enumerate(frame.index)
        for j, c in enumerate(frame.columns)
    }


def _name(key: Key) -> str:
    return f"{key[0]}: {', '.join(f'{d} {v}' for d, v in sorted(key[1])) or 'all'}"
