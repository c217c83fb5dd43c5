"""Where results come from and whether they still hold: digests, and the record of a run.

A digest is made of everything a row depends on, so that a row whose digest is unchanged need not be
computed again, and one that is can be told apart in a diff of results.csv.
"""

from __future__ import annotations

import json
import platform
import re
from collections.abc import Sequence
from dataclasses import asdict
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from biglocal.model import Analysis, Run, Study, VerifyError
from biglocal.results import digest
from biglocal.specifications import DIMENSIONS, multiverse
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
    "simulation_effects": ("simulation", "simulated_power"),
    "power_simulations": ("simulated_power",),
    "power_areas": ("simulated_power",),
    "power_effects": ("simulated_power",),
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


@cache
def machine() -> dict[str, str]:
    """What the last digits depend on besides the libraries: system, and the kernels chosen for this processor.

    OpenBLAS and numpy pick code by what the processor can do, so sums round otherwise on another one.
    """
    import numpy as np
    from threadpoolctl import threadpool_info

    blas = [f"{p['internal_api']} {p['version']} {p.get('architecture', '')}".strip()
            for p in threadpool_info() if p["user_api"] == "blas" and "numpy" in p["filepath"]]  # fmt: skip
    config: Any = np.show_config(mode="dicts")
    return {
        "platform": f"{platform.system()} {platform.machine()}",
        "blas": ", ".join(blas) or "not known",
        "simd": " ".join(config.get("SIMD Extensions", {}).get("found", ())) or "baseline",
    }


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
    return digest(*(part for f in sorted(seen) for part in (f, _sha(f))))


@cache
def _sha(file: str) -> str:
    return digest((HERE / file).read_bytes())


@cache
def where(file: str, function: str) -> tuple[int, str]:
    """The line on which a function of a source file begins, and the file's digest."""
    text = (HERE / file).read_text(encoding="utf-8")
    found = re.search(rf"^[ \t]*def {function}\b", text, re.MULTILINE)
    return text.count("\n", 0, found.start()) + 1 if found else 1, _sha(file)


_IMPORT = re.compile(r"^[ \t]*from biglocal([\w.]*) import (\([^)]*\)|[^\n]*)", re.MULTILINE)


@cache
def _imports(file: str) -> tuple[str, ...]:
    """What a source file imports of the package, by pattern: to parse every file takes a third of a second."""
    found = set[str]()
    for module, names in _IMPORT.findall((HERE / file).read_text(encoding="utf-8")):
        base = module.strip(".").replace(".", "/")
        listed = re.findall(r"\w+", re.sub(r"#.*", "", names))
        for name in (base, *(f"{base}/{one}".strip("/") for one in listed)):
            found |= {f for f in (f"{name}.py", f"{name}/__init__.py") if (HERE / f).is_file()}
    return tuple(sorted(found))


def of_plan(study: Study, tier: Tier, plan: Sequence[Analysis], draws: int) -> dict[str, str]:
    """Analysis id -> digest of its settings, its data, its estimator's code, and the lock.

    One that is made of other rows depends on all that they depend on.
    """
    whole = asdict(study)
    base = (lock(), repr(versions()))
    known: dict[str, str] = {}
    upstream = sources(study) if study.cost_benefit else ()

    def of(analysis: Analysis) -> str:
        if analysis.id not in known:
            if analysis.part == MONEY:
                used = [analysis.id, whole["cost_benefit"], study.seed, [of(a) for a in upstream]]
                files = ["worth.py"]
            else:
                used, files = _used(study, whole, tier, analysis, draws)
            known[analysis.id] = digest(json.dumps(used, sort_keys=True), code(*files), *base)
        return known[analysis.id]

    return {a.id: of(a) for a in plan}


def _used(study: Study, whole: dict[str, Any], tier: Tier, analysis: Analysis, draws: int) -> tuple[Any, list[str]]:
    """Settings and data that an analysis of microdata rests on, and the files of its code; `whole`: study as a dict."""
    used: dict[str, Any] = {
        "analysis": asdict(analysis),
        "policy": {k: v for k, v in whole["policy"].items() if analysis.part in POLICY_OF.get(k, (analysis.part,))},
        "seed": study.seed,
        "tier": tier.name,
        "data": {t: tier.digest(t) for t in tables(study, analysis)},
        "draws": draws if analysis.inference in RESAMPLING and analysis.part not in ON_REQUEST else None,
    }
    files = [*ALWAYS, *([f"estimators/{file_of(study, analysis.estimator)}.py"] if analysis.estimator else [])]
    if analysis.part == "multiverse" and study.multiverse:
        used["multiverse"] = _of_multiverse(study, whole, analysis.outcome)
        files += [f"matching/{study.comparisons[c].method}.py" for c in study.multiverse.comparison]
    if analysis.part in ON_REQUEST:
        files.append(f"{analysis.part}.py")
    for kind, name in (
        ("outcomes", analysis.outcome),
        ("subgroups", analysis.subgroup),
        ("comparisons", analysis.comparison),
        ("treatments", analysis.treatment),
        ("respondents", analysis.respondents),
        ("exposures", analysis.exposure),
        ("estimators", analysis.estimator),
    ):
        if name in whole[kind]:
            used[kind] = whole[kind][name]
    if analysis.part == "families":
        used["family"] = [whole["outcomes"][o] for o in family(study, analysis)]
    if analysis.comparison:
        chosen = study.comparisons[analysis.comparison]
        files.append(f"matching/{chosen.method}.py")
        if chosen.baseline or analysis.outcome not in study.outcomes:  # levels and trends before the main treatment
            used["before"] = whole["treatments"][study.main_treatment]["year"]
            used["baseline"] = {x: study.outcomes[o].column for x, (o, _) in baseline(study).items()}
    return used, files


def _of_multiverse(study: Study, whole: dict[str, Any], outcome: str) -> dict[str, Any]:
    """What an outcome's specifications rest on: options, not the words for them; rules for it, not why; and of the
    study the comparisons and treatments that are named, and what is matched on."""
    m = multiverse(study)

    def bare(entry: dict[str, Any]) -> dict[str, Any]:
        return {k: v for k, v in entry.items() if k not in ("label", "reason")}

    chosen = {d: {k: bare(v) for k, v in whole["multiverse"][d].items()} for d in DIMENSIONS}
    before = sorted({o for c in m.comparison for o in study.comparisons[c].baseline})
    return {
        "options": chosen,
        "rules": [r.out for r in m.rules if not r.outcomes or outcome in r.outcomes],
        "draws": m.draws,
        "bands": m.bands,
        "comparisons": {c: bare(whole["comparisons"][c]) for c in m.comparison},
        "treatments": {t: bare(whole["treatments"][t]) for t in m.treatment},
        "before": study.treatments[study.main_treatment].year if before else None,
        "baseline": {o: study.outcomes[o].column for o in before},
    }


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
    manuscript: Path,
) -> str:
    """provenance.json: what went in, where it was made, and what came out, by sha256. No clock, no path outside `out`.

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
                "code": sources_of(HERE),
                "manuscript": texts_of(manuscript, ROOT),
                "data": run.digests,
                "files": run.files,
                "notes": list(run.notes),
                "lacks": run.lacks,
                "versions": run.versions,
                "machine": machine(),
                "results": digest(rows_text),
                "rendered_from": rendered_from,
                "outputs": {p.relative_to(out).as_posix(): digest(p.read_bytes()) for p in sorted(files)},
            },
            indent=1,
            sort_keys=True,
        )
        + "\n"
    )


def sources_of(package: Path) -> dict[str, str]:
    """Each source file of the package, wherever it lies -> digest."""
    return {p.relative_to(package).as_posix(): digest(p.read_bytes()) for p in sorted(package.rglob("*.py"))}


def texts_of(manuscript: Path, root: Path) -> dict[str, str]:
    """Each template, and each list of sources, published values and costs that templates read -> digest."""
    found = {p.relative_to(manuscript).as_posix(): p for p in manuscript.rglob("*") if p.is_file()}
    read = ("data-raw/published.toml", "data-raw/sources.toml", "analysis/timings.toml")
    found |= {p.name: p for name in read if (p := root / name).is_file()}
    return {name: digest(p.read_bytes()) for name, p in sorted(found.items())}


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
