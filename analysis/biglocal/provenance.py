"""Where results come from and whether they still hold: digests, the record of a run, verification.

A digest is made of everything a row depends on, so that a row whose digest is unchanged need not be
computed again, and one that is can be told apart in a diff of results.csv.
"""

from __future__ import annotations

import ast
import json
import math
import platform
import re
from collections.abc import Sequence
from dataclasses import asdict
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from biglocal import results
from biglocal.model import Analysis, DataError, Run, Study, Tolerance, VerifyError
from biglocal.results import Row, digest
from biglocal.study import HERE, MONEY, ON_REQUEST, ROOT, baseline, family, file_of, sources, tables

if TYPE_CHECKING:
    from biglocal.data.load import Tier

LIBRARIES = ("linearmodels", "matplotlib", "numpy", "pandas", "pyarrow", "pyfixest", "scipy", "statsmodels", "typst")
RESAMPLING = ("wild_bootstrap", "randomisation", "romano_wolf")
ALWAYS = ("estimate.py", "sample.py")  # and what these import
POLICY_OF: dict[str, tuple[str, ...]] = {  # the parts whose rows depend on a policy; the rest of [policy] all do on
    "placebo_lists": ("placebo",),
    "placebo_effect": ("placebo",),
    "simulations": ("simulation",),
    "simulation_effects": ("simulation",),
    "recoveries": ("recovery",),
    "draws_quick": (),  # the number in use stands in the digest, for what is resampled
    "draws_full": (),
    "min_months": (),  # in the digest of the data
    "balance_threshold": (),  # figures alone
    "multiplicity": (),  # p_adjusted is made anew from the whole table
}


@cache
def versions() -> dict[str, str]:
    """Library -> installed version, and Python's."""
    found = {"python": platform.python_version()}
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


def lock() -> str:
    """Digest of the lock file of the main job; of the installed versions where the lock is not at hand."""
    path = ROOT / "locks" / "run.txt"
    return digest(path.read_bytes()) if path.is_file() else digest(json.dumps(versions(), sort_keys=True))


def locked() -> dict[str, str]:
    """Library -> version, or versions where Pythons differ, as locks/run.txt pins them; none without it."""
    path = ROOT / "locks" / "run.txt"
    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    out: dict[str, str] = {}
    for name, pin in re.findall(r"^([\w.-]+)==([^ ;\\]+)", text, re.MULTILINE):
        out[name] = f"{out[name]}, {pin}" if name in out else pin
    return out


@cache
def code(*files: str) -> str:
    """Digest of source files of the package and of all that they import from it, found in their text."""
    wanted, seen = list(files), set[str]()
    while wanted:
        file = wanted.pop()
        if file not in seen:
            seen.add(file)
            wanted += _imports(file)
    return digest(*(part for f in sorted(seen) for part in (f, (HERE / f).read_bytes())))


@cache
def where(file: str, function: str) -> tuple[int, str]:
    """The line on which a function of a source file begins, and the file's digest."""
    text = (HERE / file).read_bytes()
    found = (n.lineno for n in ast.walk(ast.parse(text)) if isinstance(n, ast.FunctionDef) and n.name == function)
    return next(found, 1), digest(text)


@cache
def _imports(file: str) -> tuple[str, ...]:
    found = set[str]()
    for node in ast.walk(ast.parse((HERE / file).read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("biglocal"):
            base = (node.module or "").removeprefix("biglocal").strip(".").replace(".", "/")
            for name in (base, *(f"{base}/{alias.name}".strip("/") for alias in node.names)):
                found |= {f for f in (f"{name}.py", f"{name}/__init__.py") if (HERE / f).is_file()}
    return tuple(sorted(found))


def of_analysis(study: Study, tier: Tier, analysis: Analysis, draws: int) -> str:
    """Digest of one analysis: its settings, its data, its estimator's code, and the lock.

    One that is made of other rows depends on all that they depend on.
    """
    if analysis.part == MONEY:
        upstream = [of_analysis(study, tier, a, draws) for a in sources(study)]
        money = [analysis.id, asdict(study)["cost_benefit"], study.seed, upstream]
        return digest(json.dumps(money, sort_keys=True), code("worth.py"), lock(), repr(versions()))
    used: dict[str, Any] = {
        "analysis": asdict(analysis),
        "policy": {
            k: v for k, v in asdict(study.policy).items() if analysis.part in POLICY_OF.get(k, (analysis.part,))
        },
        "seed": study.seed,
        "tier": tier.name,
        "data": {t: tier.digest(t) for t in tables(study, analysis)},
        "draws": draws if analysis.inference in RESAMPLING and analysis.part not in ON_REQUEST else None,
    }
    files = [*ALWAYS, f"estimators/{file_of(study, analysis.estimator)}.py"]
    if analysis.part in ON_REQUEST:
        files.append(f"{analysis.part}.py")
    for kind, name in (
        ("outcomes", analysis.outcome),
        ("subgroups", analysis.subgroup),
        ("comparisons", analysis.comparison),
        ("treatments", analysis.treatment),
        ("respondents", analysis.respondents),
        ("exposures", analysis.exposure),
    ):
        entry = getattr(study, kind).get(name)
        if entry is not None:
            used[kind] = asdict(entry)
    if analysis.part == "families":
        used["family"] = [asdict(study.outcomes[o]) for o in family(study, analysis)]
    if analysis.estimator in study.estimators:
        used["estimator"] = asdict(study.estimators[analysis.estimator])
    if analysis.comparison:
        chosen = study.comparisons[analysis.comparison]
        files.append(f"matching/{chosen.method}.py")
        if chosen.baseline or analysis.outcome not in study.outcomes:  # levels and trends before the main treatment
            used["before"] = study.treatments[study.main_treatment].year
            used["baseline"] = {x: study.outcomes[o].column for x, (o, _) in baseline(study).items()}
    return digest(json.dumps(used, sort_keys=True), code(*files), lock(), repr(versions()))


# --- the record of a run ----------------------------------------------------------------------------------


def choices(study: Study) -> dict[str, str]:
    """Each entry of study.toml by its place (`policy`, `comparisons.nearest`) -> digest; the seed apart."""
    whole = asdict(study)
    del whole["seed"]
    entries: dict[str, Any] = {}
    for section, content in whole.items():
        named = section not in ("policy", "tolerance") and isinstance(content, dict)
        entries |= {f"{section}.{k}": v for k, v in content.items()} if named else {section: content}
    return {k: digest(json.dumps(v, sort_keys=True, default=str)) for k, v in sorted(entries.items())}


def record(
    run: Run,
    study: Study,
    rows_text: str,
    draws: str,
    rendered_from: str,
    files: Sequence[Path],
    out: Path,
) -> str:
    """provenance.json: what went in and what came out, by sha256. No clock, no path outside `out`.

    `rendered_from` is '' while the report is not yet, or no longer, that of these rows.
    """
    return (
        json.dumps(
            {
                "tier": run.tier,
                "banner": run.banner,
                "draws": draws,
                "seed": study.seed,
                "study": choices(study),
                "lock": lock(),
                "locked": locked(),
                "code": {
                    str(p.relative_to(HERE).as_posix()): digest(p.read_bytes()) for p in sorted(HERE.rglob("*.py"))
                },
                "data": run.digests,
                "files": run.files,
                "notes": list(run.notes),
                "lacks": run.lacks,
                "versions": run.versions,
                "results": digest(rows_text),
                "rendered_from": rendered_from,
                "outputs": {p.relative_to(out).as_posix(): digest(p.read_bytes()) for p in sorted(files)},
            },
            indent=1,
            sort_keys=True,
        )
        + "\n"
    )


def last(out: Path) -> dict[str, Any]:
    """The record of the run before, empty where there is none that can be read."""
    try:
        found = json.loads((out / "provenance.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) and isinstance(found.get("outputs", {}), dict) else {}


def notes(out: Path, digests: dict[str, str]) -> tuple[str, ...] | None:
    """The notes that the last run took of the same data; None where there is no such record."""
    record = last(out)
    return tuple(record["notes"]) if record.get("data") == digests and "notes" in record else None


def altered(out: Path) -> tuple[str, ...]:
    """Outputs that are not what provenance.json says: `name: changed` or `name: lost`.

    Raises `VerifyError` where there is no readable record.
    """
    recorded = last(out).get("outputs")
    if recorded is None:
        raise VerifyError(f"provenance.json: no record of a run in {out.name}/. Run `biglocal reproduce` first.")
    found = []
    for name, sha in recorded.items():
        file = out / name
        if not file.is_file():
            found.append(f"{name}: lost")
        elif digest(file.read_bytes()) != sha:
            found.append(f"{name}: changed after the run")
    return tuple(found)


def unaltered(out: Path) -> bool:
    """Whether there are outputs, and all of them are what the last run wrote."""
    return bool(last(out).get("outputs")) and not altered(out)


# --- verification ------------------------------------------------------------------------------------------

NUMBERS = (
    "estimate", "std_error", "df", "statistic", "p_value", "p_adjusted", "conf_low", "conf_high", "conf_level",
)  # fmt: skip
EXACT = ("part", "outcome", "subgroup", "comparison", "treatment", "estimator", "inference", "unit", "n_obs", "n_units",
         "n_treated", "n_clusters", "status", "reason", "tier", "df_num", "n_treated_clusters")  # fmt: skip


def compare(seen: Sequence[Row], expected: Sequence[Row], tolerance: Tolerance, alpha: float) -> tuple[str, ...]:
    """Every cell in which two results tables differ beyond `tolerance`, in words; none if they agree.

    A number may move by `absolute` + `relative` x its size, an estimate or interval also by `std_errors`
    standard errors. Whatever the tolerance, an estimate may not change sign, nor a p-value cross `alpha`.
    """

    ours, theirs = {r.key: r for r in seen}, {r.key: r for r in expected}
    found = [f"{name}: missing from the outputs" for name in sorted(theirs.keys() - ours.keys())]
    found += [f"{name}: not in the reference" for name in sorted(ours.keys() - theirs.keys())]
    for name in sorted(ours.keys() & theirs.keys()):
        a, b = ours[name], theirs[name]
        for column in EXACT:
            x, y = getattr(a, column), getattr(b, column)
            if x != y:
                found.append(f"{name}: {column} is {x!r}, reference {y!r}")
        se = b.std_error or 0.0
        for column in NUMBERS:
            x, y = getattr(a, column), getattr(b, column)
            if x is None or y is None or math.isinf(x) or math.isinf(y):
                if x != y:
                    found.append(f"{name}: {column} is {x}, reference {y}")
                continue
            room = tolerance.absolute + tolerance.relative * abs(y)
            if column in ("estimate", "conf_low", "conf_high"):
                room = max(room, tolerance.std_errors * se)
            if abs(x - y) > room:
                how = f", {abs(x - y) / se:.3g} standard errors apart" if se else ""
                found.append(f"{name}: {column} is {x:.10g}, reference {y:.10g}{how}")
            elif column == "estimate" and se and x * y < 0 and abs(x - y) > tolerance.absolute:
                found.append(f"{name}: estimate changes sign, {x:.10g} against {y:.10g}")
            elif column in ("p_value", "p_adjusted") and (x < alpha) != (y < alpha):
                found.append(f"{name}: {column} crosses {alpha:g}, {x:.10g} against {y:.10g}")
    return tuple(found)


def verify(out: Path, expected: Path, study: Study) -> str:
    """Hold `out` against its own record and against the committed reference; a sentence when all is well.

    Raises `VerifyError` naming up to twenty cells or files that differ, and `DataError` for files that
    are not results tables.
    """
    wrong = list(altered(out))
    if not expected.is_file():
        raise VerifyError(
            f"no reference for this tier and number of draws ({expected.name}). "
            f"Only the tier synthetic has a committed one; `biglocal verify --accept` makes one of your outputs."
        )
    rows = results.read(out / "results.csv")
    try:
        reference = results.read(expected)
    except DataError:
        raise VerifyError(
            f"the reference {expected.name} was made by another version of the package. "
            f"Check the results, then make it anew by `biglocal verify --accept`."
        ) from None
    wrong += compare(rows, reference, study.tolerance, 1 - study.policy.conf_level)
    if wrong:
        more = f"\n  and {len(wrong) - 20} more" if len(wrong) > 20 else ""
        listed = "\n  ".join(wrong[:20])
        raise VerifyError(
            f"{len(wrong)} difference{'s' if len(wrong) > 1 else ''} from {expected.name}:\n  {listed}{more}\n"
            f"Run `biglocal reproduce` again; if the differences stay, the data, the code or a library has changed "
            f"(provenance.json says which)."
        )
    return f"verified: {len(rows):,} rows and every output agree with {expected.name}"
