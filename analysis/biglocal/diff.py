"""What moved between two runs, by how much, and why: `biglocal diff A B`.

The causes are read off the records of the two runs (provenance.json), in which everything that went in stands by
its sha256; a run whose outputs are no longer what its record says is told apart first.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from biglocal import provenance, results
from biglocal.model import DataError
from biglocal.results import Row

SHOWN = 30


def causes(before: dict[str, Any], after: dict[str, Any]) -> tuple[str, ...]:
    """What differs of what went in, a line each: tier, draws, seed, study, data, code, manuscript, lock, machine.

    Takes two records (`provenance.last`). Tables that are made from the seed differ because of it, and of code
    that makes them because of that: they are not told as causes of their own.
    """
    out = [
        f"{k}: {before.get(k)} -> {after.get(k)}" for k in ("tier", "draws", "seed") if before.get(k) != after.get(k)
    ]
    out += [f"study: {name} {how}" for name, how in _changed(before.get("study", {}), after.get("study", {}))]
    made = before.get("tier") == after.get("tier") == "synthetic"
    files = list(_changed(before.get("files", {}), after.get("files", {})))
    out += [f"data: {name} {how}" for name, how in files]
    code = list(_changed(before.get("code", {}), after.get("code", {})))
    if not made and not files and not any(name.startswith("data/") for name, _ in code):
        out += [f"data: table {n} {how}" for n, how in _changed(before.get("data", {}), after.get("data", {}))]
    out += [f"code: {name} {how}" for name, how in code]
    if "manuscript" in before and "manuscript" in after:
        out += [f"manuscript: {name} {how}" for name, how in _changed(before["manuscript"], after["manuscript"])]
    pins = {
        f"{n} {a} -> {b}": None
        for k in ("locked", "versions")
        for n, a, b in _moved(before.get(k, {}), after.get(k, {}))
    }
    if before.get("lock") != after.get("lock") or pins:
        out.append("lock: " + ("; ".join(pins) or "locks/run.txt changed, no version in it"))
    if "machine" in before and "machine" in after:
        out += [f"machine: {n} {a} -> {b}" for n, a, b in _moved(before["machine"], after["machine"])]
    return tuple(out)


def _moved(a: dict[str, str], b: dict[str, str]) -> Iterator[tuple[str, str, str]]:
    for name in sorted(a.keys() | b.keys()):
        if a.get(name) != b.get(name):
            yield name, a.get(name, "absent"), b.get(name, "absent")


def _changed(a: dict[str, str], b: dict[str, str]) -> Iterator[tuple[str, str]]:
    for name, one, other in _moved(a, b):
        yield name, "added" if one == "absent" else "removed" if other == "absent" else "changed"


def moved(before: Iterable[Row], after: Iterable[Row], alpha: float) -> tuple[tuple[float, str], ...]:
    """The rows that differ, the largest move first: (standard errors moved, sentence).

    Says by how many standard errors (those of the first run) an estimate moved, and whether its sign, its
    significance at `alpha` (after adjustment where there is one) or its status changed.
    """
    a, b = {r.key: r for r in before}, {r.key: r for r in after}
    out = [(float("inf"), f"{k}: only in the first run") for k in a.keys() - b.keys()]
    out += [(float("inf"), f"{k}: only in the second run") for k in b.keys() - a.keys()]
    for key in a.keys() & b.keys():
        if said := _row(a[key], b[key], alpha):
            out.append((said[0], f"{key}: {said[1]}"))
    return tuple(sorted(out, key=lambda m: (-m[0], m[1])))


def _row(a: Row, b: Row, alpha: float) -> tuple[float, str] | None:
    said, size = [], 0.0
    if a.status != b.status:
        said.append(f"{a.status} -> {b.status}" + (f" ({b.reason})" if b.reason else ""))
        size = float("inf")
    if a.estimate is not None and b.estimate is not None and a.estimate != b.estimate:
        far = abs(b.estimate - a.estimate) / a.std_error if a.std_error else None
        size = max(size, far or 0.0)
        said.append(
            f"{a.estimate:.6g} -> {b.estimate:.6g}" + (f" ({far:.3g} standard errors)" if far is not None else "")
        )
        if a.estimate * b.estimate < 0:
            said.append("SIGN CHANGED")
    p, q = (r.p_adjusted if r.p_adjusted is not None else r.p_value for r in (a, b))
    if p is not None and q is not None and (p < alpha) != (q < alpha):
        said.append(f"SIGNIFICANCE CHANGED at {alpha:g}: p {p:.3g} -> {q:.3g}")
    others = [
        c
        for c in ("std_error", "df", "statistic", "p_value", "p_adjusted", "conf_low", "conf_high", "n_obs", "n_units",
                  "n_treated", "n_clusters", "unit")
        if getattr(a, c) != getattr(b, c)
    ]  # fmt: skip
    if others and not said:
        said.append(", ".join(f"{c} {getattr(a, c)} -> {getattr(b, c)}" for c in others[:3]))
    if not said and a.reason != b.reason:
        said.append("another caution")
    return (size, "; ".join(said)) if said else None


def diff(first: Path, second: Path, alpha: float) -> str:
    """Two output folders compared, in words: causes first, then what moved.

    Raises `DataError` for a folder without a readable record of a run.
    """
    records = []
    lines = []
    for folder in (first, second):
        record = provenance.last(folder)
        if not record:
            raise DataError(f"{folder}: no record of a run (provenance.json). Give a folder such as outputs/synthetic.")
        records.append(record)
        lines += [f"{folder}: {wrong}" for wrong in provenance.altered(folder)]
    why = causes(*records)
    lines += [f"cause: {line}" for line in why] or ["cause: none; everything that went in is the same"]
    rows = [results.read(folder / "results.csv") for folder in (first, second)]
    found = moved(rows[0], rows[1], alpha)
    same = len({r.key for r in rows[0]} & {r.key for r in rows[1]}) - sum(1 for m in found if "only in" not in m[1])
    lines.append(f"{len(found)} rows differ, {same} are the same")
    flips = [m for m in found if "CHANGED" in m[1]]
    for said, some in (
        ("of them change sign or significance", flips),
        ("others", [m for m in found if m not in flips]),
    ):
        if some:
            lines.append(f"{len(some)} {said}, the largest move first:")
            lines += [f"  {line}" for _, line in some[:SHOWN]]
        if len(some) > SHOWN:
            lines.append(f"  and {len(some) - SHOWN} that moved less")
    return "\n".join(lines)
