"""The estimators and their inference beside other libraries: what `nox -s benchmark` runs, and its targets.

    nox -s benchmark                                       # the whole table, to tests/benchmarks/results.md
    nox -s benchmark -- estimators --task wild --runs 3    # a part of it, printed only

Warm: medians of runs that alternate in one process, after one that is not counted. Cold: the first call of a fresh
process, imports and compiling in it, the data in memory before; its peak memory is that of this one thing, of which
`data` is what the process held before it. Every task starts from a plain frame: ours includes making the sample and
its checks. Libraries that are not installed leave out; diff-diff, csdid, differences and wildboottest (with numba) are in
no lock. R's seconds are quoted from the references (TIMINGS.md), from their machine.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import measure
import numpy as np
import pandas as pd

HERE = Path(__file__).resolve().parent
Found = tuple[float, float]  # the effect and its standard error (randomisation: its p-value; NaN: none given)
PANEL = {"y": "y", "unit": "unit", "time": "year", "first_treated": "g"}
FIVE, TEN = ([f"x{i}" for i in range(1, k + 1)] for k in (5, 10))
SEVEN = [*FIVE, "pre1", "pre2"]
COLUMNS = {
    "units": ["unit", "region", "treated", *SEVEN],
    "panel": ["unit", "area", "year", "g", "d", "y", "count", *FIVE],
    "big": ["id", "t", "w", "d", "y", *TEN],
}
NONE = float("nan")
R_MACHINE = "2 cores AMD EPYC, 24 GiB, Debian 12, R 4.2.2, OpenBLAS 0.3.21 with 2 threads, fixest with 2"


def ours(name: str, **columns: Any) -> Callable[[pd.DataFrame], Found]:
    def run(frame: pd.DataFrame) -> Found:
        from biglocal.estimators import fit

        terms = fit(name, frame, **columns).terms
        return terms[0].estimate, terms[0].std_error

    return run


def feols(formula: str, cluster: str, weights: str | None = None) -> Callable[[pd.DataFrame], Found]:
    def run(frame: pd.DataFrame) -> Found:
        import pyfixest as pf

        how: dict[str, Any] = {"copy_data": False, "store_data": False, "lean": True, "vcov": {"CRV1": cluster}}
        fit = pf.feols(formula, frame, weights=weights, **how)
        return float(fit.coef()["d"]), float(fit.se()["d"])

    return run


def feols_event(frame: pd.DataFrame) -> Found:
    """Years since treatment for each, by the year; the last year before is the base, and so is never."""
    import pyfixest as pf

    made = frame.assign(since=np.where(frame["g"] > 0, frame["year"] - frame["g"], -1))
    fit = pf.feols("y ~ i(since, ref=-1) | unit + year", made, vcov={"CRV1": "area"}, copy_data=False, store_data=False)
    first = min(fit.coef().index, key=lambda n: float(n.split("::")[-1].split("T.")[-1].rstrip("]")))
    return float(fit.coef()[first]), float(fit.se()[first])


def event(frame: pd.DataFrame) -> Found:
    from biglocal.estimators import fit

    term = next(t for t in fit("event_study", frame, **PANEL, cluster="area").terms if t.name == "event_time")
    return term.estimate, term.std_error


def linearmodels(frame: pd.DataFrame) -> Found:
    from linearmodels import PanelOLS

    f = frame.set_index(["unit", "year"])
    model = PanelOLS(f["y"], f[["d"]], entity_effects=True, time_effects=True)
    alike = {"auto_df": False, "count_effects": False, "group_debias": True}
    fit = model.fit(cov_type="clustered", clusters=f["area"], **alike)
    return float(fit.params["d"]), float(fit.std_errors["d"])


def statsmodels(frame: pd.DataFrame) -> Found:
    """On columns from which the effects were taken: with 32,844 dummies there is no memory for it."""
    import statsmodels.api as sm

    f = frame.sort_values(["unit", "year"])
    wide = {c: f[c].to_numpy(dtype=float).reshape(-1, f["year"].nunique()) for c in ("y", "d")}
    left = {c: (v - v.mean(axis=1, keepdims=True) - v.mean(axis=0) + v.mean()).ravel() for c, v in wide.items()}
    fit = sm.OLS(left["y"], left["d"]).fit(cov_type="cluster", cov_kwds={"groups": f["area"].to_numpy()})
    return float(fit.params[0]), float(fit.bse[0])


def csdid(frame: pd.DataFrame) -> Found:
    import contextlib
    import io

    from csdid.att_gt import ATTgt

    columns = {"yname": "y", "gname": "g", "idname": "unit", "tname": "year", "xformla": f"y~{'+'.join(FIVE)}"}
    with contextlib.redirect_stdout(io.StringIO()):
        made = ATTgt(**columns, data=frame.copy(), control_group="nevertreated").fit(est_method="dr", bstrap=False)
        found = made.aggte(typec="simple").atte
    return float(found["overall_att"]), float(found["overall_se"])


def differences(frame: pd.DataFrame) -> Found:
    from differences import ATTgt

    f = frame.assign(g=frame["g"].where(frame["g"] > 0).astype(float)).set_index(["unit", "year"])
    made = ATTgt(data=f, cohort_column="g")
    made.fit(f"y ~ {' + '.join(FIVE)}", est_method="dr", boot_iterations=999, random_state=1, progress_bar=False)
    found = made.aggregate("simple")
    return float(found.iloc[0, 0]), float(found.iloc[0, 1])


def matched(**options: Any) -> Callable[[pd.DataFrame], Found]:
    """The number of treated and of comparison units matched, in the place of effect and error."""

    def run(frame: pd.DataFrame) -> Found:
        from biglocal.matching import nearest

        found = nearest.match(
            frame,
            treated="treated",
            covariates=SEVEN,
            ratio=5,
            caliper=0.2,
            exact=["region"],
            distance="probability",
            **options,
        )
        treated = frame["treated"].to_numpy() == 1
        return float((found.weights[treated] > 0).sum()), float((found.weights[~treated] > 0).sum())

    return run


def balanced(frame: pd.DataFrame) -> Found:
    from biglocal.matching import entropy

    weights = entropy.match(frame, treated="treated", covariates=SEVEN).weights
    treated = frame["treated"].to_numpy() == 1
    return float(np.average(frame["x1"][~treated], weights=weights[~treated])), NONE


def families(frame: pd.DataFrame) -> Found:
    """Three outcomes together: the adjusted p-value of the first."""
    from biglocal.estimators import sample, twfe
    from biglocal.inference.multiplicity import together

    samples = []
    for outcome in ("y", "count", "x1"):
        made = frame.assign(x1=frame["x1"] * frame["year"] + frame["count"]) if outcome == "x1" else frame
        samples.append(sample(made, **{**PANEL, "y": outcome}, cluster="area"))
    fits = [twfe.estimate(s) for s in samples]
    done = together(samples, fits, rng=np.random.default_rng(1), conf_level=0.95, draws=9_999)
    return fits[0].terms[0].estimate, next(t for t in done[0].terms if t.name == "romano_wolf").p_value


def fepois(frame: pd.DataFrame) -> Found:
    import pyfixest as pf

    fit = pf.fepois("count ~ d | unit + year", frame, vcov={"CRV1": "area"}, copy_data=False, store_data=False)
    return float(fit.coef()["d"]), float(fit.se()["d"])


def cohorts(frame: pd.DataFrame) -> Found:
    from biglocal.estimators import callaway_santanna, sample

    s = sample(frame, **PANEL, covariates=FIVE)
    fit = callaway_santanna.estimate(s, draws=999, rng=np.random.default_rng(1))
    att = next(t for t in fit.terms if t.name == "att")
    return att.estimate, att.std_error


def diff_diff(name: str, **columns: Any) -> Callable[[pd.DataFrame], Found]:
    """An estimator of diff-diff; `columns` that are settings of it go to it, the rest to its fit."""

    def run(frame: pd.DataFrame) -> Found:
        import diff_diff as dd

        covariates = columns.get("covariates")
        settings = {k: v for k, v in columns.items() if k != "covariates"}
        words = {"outcome": "y", "unit": "unit", "time": "year", "first_treat": "g"}
        fit = getattr(dd, name)(**settings).fit(frame, **words, **({"covariates": covariates} if covariates else {}))
        return float(fit.overall_att), float(fit.overall_se)

    return run


def wild(frame: pd.DataFrame) -> Found:
    from biglocal.estimators import sample, twfe
    from biglocal.inference.wild import wild_bootstrap

    s = sample(frame, **PANEL, cluster="area")
    fit = twfe.estimate(s)
    term = wild_bootstrap(twfe.estimate, s, fit, np.random.default_rng(1), conf_level=0.95, draws=9_999).terms[0]
    return term.estimate, NONE


def wildboottest(frame: pd.DataFrame) -> Found:
    """On columns from which the fixed effects were taken before: with them it runs out of memory here."""
    import pyfixest as pf

    from biglocal.estimators._within import codes, projector

    project = projector([codes(frame["unit"]), codes(frame["year"])], np.ones(len(frame)))
    left = {name: project(frame[name].to_numpy(dtype=float)) for name in ("y", "d")}
    plain = pd.DataFrame({**left, "area": frame["area"].to_numpy()})
    fit = pf.feols("y ~ d - 1", plain, vcov={"CRV1": "area"})
    fit.wildboottest(param="d", reps=9_999, seed=1)
    return float(fit.coef()["d"]), NONE


def shuffled(assigned: str, statistic: str) -> Callable[[pd.DataFrame], Found]:
    def run(frame: pd.DataFrame) -> Found:
        from biglocal.estimators import sample
        from biglocal.inference.randomisation import randomise

        f = sample(frame, **PANEL, cluster="area").frame
        first = f["first_treated"]
        if assigned == "cluster":  # whole areas are dealt the start of their first treated unit
            first = first.groupby(f["cluster"]).transform("min").where(f["cluster"] % 4 == 0)
        test = randomise(
            f["y"], first, f[assigned], rng=np.random.default_rng(1), time=f["time"], fixed=(f["unit"], f["time"]),
            cluster=f["cluster"], statistic=statistic,  # type: ignore[arg-type]
        )  # fmt: skip
        return test.estimate, test.p_value

    return run


@dataclass(frozen=True)
class Target:
    """`engine` takes at most `at_most` times what `against` takes: another engine, or seconds with their source.

    With an engine clocks are compared, as both ran in turn. Seconds were taken on a quiet machine: with them our
    processor seconds are, of one thread, which is what a quiet machine's clock would say.
    """

    engine: str
    at_most: float
    against: str | tuple[float, str]


@dataclass(frozen=True)
class Task:
    title: str
    data: str
    engines: dict[str, Callable[[pd.DataFrame], Found]]
    targets: tuple[Target, ...] = ()
    memory: tuple[str, float] | None = None  # an engine, and the MB it may take at its peak
    r: str = ""  # what R took for it, and where: package and seconds of TIMINGS.md


TWFE = ours("twfe", **PANEL, cluster="area")
SURVEY = {"y": "y", "unit": "id", "time": "t", "d": "d", "weight": "w", "covariates": TEN}
TASKS: dict[str, Task] = {
    "panel": Task(
        "Two-way fixed effects, 394,128 rows, 600 clusters", "panel",
        {"pyfixest": feols("y ~ d | unit + year", "area"), "linearmodels": linearmodels,
         "statsmodels, effects taken out": statsmodels, "biglocal": TWFE},
        (Target("biglocal", 1, "pyfixest"),), r="fixest 0.109",
    ),
    "event_study": Task(
        "Event study by years since treatment", "panel", {"pyfixest": feols_event, "biglocal": event},
        (Target("biglocal", 1, "pyfixest"), Target("biglocal", 1, (1.045, "R fixest"))), r="fixest 1.045",
    ),
    "matching": Task(
        "Nearest neighbours 5:1, caliper, region, 900 of 32,844", "units", {"biglocal": matched()},
        (Target("biglocal", 1, (0.129, "R MatchIt")),), r="MatchIt 0.129",
    ),
    "mahalanobis": Task(
        "The same, Mahalanobis inside the caliper", "units", {"biglocal": matched(mahvars=SEVEN)},
        (Target("biglocal", 1, (1.516, "R MatchIt")),), r="MatchIt 1.516",
    ),
    "entropy": Task(
        "Entropy balancing, 7 covariates, 32,844 units", "units", {"biglocal": balanced},
        (Target("biglocal", 1, (0.094, "R WeightIt")),), r="WeightIt 0.094",
    ),
    "counts": Task(
        "Poisson, the same panel", "panel",
        {"pyfixest": fepois, "biglocal": ours("poisson", **{**PANEL, "y": "count"}, cluster="area")},
        (Target("biglocal", 1, "pyfixest"),), r="fixest 0.501, unit clusters",
    ),
    "cohorts": Task(
        "Callaway-Sant'Anna dr, 5 covariates, 3 cohorts, 999 draws", "panel",
        {"diff-diff": diff_diff("CallawaySantAnna", covariates=FIVE, control_group="never_treated", n_bootstrap=999,
                                pscore_trim=1e-6, seed=1),
         "csdid, no draws": csdid, "differences": differences, "biglocal": cohorts},
        (Target("biglocal", 1 / 8, (17.5, "R did")), Target("biglocal", 1, "diff-diff")), r="did 17.5, faster mode 8.07",
    ),
    "wild": Task(
        "Wild cluster bootstrap, 9,999 draws, 600 clusters", "panel",
        {"pyfixest wildboottest, effects taken out, p only": wildboottest, "biglocal, with interval": wild},
        (Target("biglocal, with interval", 1 / 5, "pyfixest wildboottest, effects taken out, p only"),),
        r="fwildclusterboot 6.634, p only",
    ),
    "randomisation": Task(
        "Randomisation, 9,999 draws, with interval", "panel",
        {"one refit": TWFE,
         "600 areas, coefficient": shuffled("cluster", "coefficient"),
         "600 areas, t": shuffled("cluster", "t"),
         "32,844 units, coefficient": shuffled("unit", "coefficient"),
         "32,844 units, t": shuffled("unit", "t")},
        tuple(Target(name, 20, "one refit") for name in (
            "600 areas, coefficient", "600 areas, t", "32,844 units, coefficient", "32,844 units, t")),
    ),
    "survey": Task(
        "Survey regression, 2,700,000 rows, weights, 10 covariates", "big",
        {"pyfixest": feols(f"y ~ d + {' + '.join(TEN)} | id + t", "id", "w"),
         "biglocal": ours("repeated_cross_section", **SURVEY)},
        (Target("biglocal", 1, "pyfixest"),), ("biglocal", 3 * 1024), r="fixest 2.753",
    ),
    "imputation": Task(
        "Imputation (Borusyak, Jaravel, Spiess)", "panel",
        {"diff-diff": diff_diff("ImputationDiD", cluster="area"), "biglocal": ours("imputation", **PANEL, cluster="area")},
        (Target("biglocal", 1, "diff-diff"),),
    ),
    "sun_abraham": Task(
        "Sun-Abraham", "panel",
        {"diff-diff": diff_diff("SunAbraham", cluster="area"), "biglocal": ours("sun_abraham", **PANEL, cluster="area")},
        (Target("biglocal", 1, (2.502, "R fixest")), Target("biglocal", 1, "diff-diff")), r="fixest 2.502",
    ),
    "gardner": Task(
        "Two-stage (Gardner)", "panel",
        {"biglocal": ours("imputation", **PANEL, cluster="area", options={"errors": "gardner"})},
        (Target("biglocal", 1, (3.786, "R did2s")),), r="did2s 3.786",
    ),
    "families": Task("Romano-Wolf, 3 outcomes, 9,999 draws", "panel", {"biglocal": families}),
    "stacked": Task("Stacked, corrective weights", "panel", {"biglocal": ours("stacked", **PANEL, cluster="area")}),
    "goodman_bacon": Task("Goodman-Bacon", "panel", {"biglocal": ours("goodman_bacon", **PANEL, cluster="area")}),
    "synthetic_did": Task(
        "Synthetic DiD, exact, jackknife", "panel", {"biglocal": ours("synthetic_did", **PANEL, cluster="area")}
    ),
}  # fmt: skip
NEEDS = {
    "diff-diff": ("diff_diff",), "csdid, no draws": ("csdid",), "differences": ("differences",), "pyfixest wildboottest, effects taken out, p only": ("wildboottest", "numba"),
}  # fmt: skip


def there(task: Task) -> dict[str, Callable[[pd.DataFrame], Found]]:
    """The engines that are installed."""
    return {e: run for e, run in task.engines.items() if all(map(find_spec, NEEDS.get(e, ())))}


def columns_of(folder: Path, name: str) -> pd.DataFrame:
    """A column a file, so that reading costs no memory of its own."""
    return pd.DataFrame({c: np.load(folder / f"{name}.{c}.npy") for c in COLUMNS[name]}, copy=False)


def child(folder: Path, task: Task, engine: str, runs: int) -> dict[str, Any]:
    """In a process of its own: one engine cold and its memory, or all of a task in turn, warm."""
    frame = columns_of(folder, task.data)
    if engine != "all":
        before = measure.peak()
        start = time.perf_counter()
        found = task.engines[engine](frame)
        return {"cold": time.perf_counter() - start, "found": found, "data": before, "peak": measure.peak()}
    took = measure.in_turn({e: lambda run=run: run(frame) for e, run in there(task).items()}, runs)  # type: ignore[misc]
    return {e: (t.seconds, t.processor) for e, t in took.items()}


def spawn(folder: Path, task: str, engine: str, runs: int) -> dict[str, Any]:
    words = [sys.executable, "-W", "ignore", __file__, "--folder", str(folder), "--task", task, "--engine", engine]
    one = {**os.environ, "OMP_NUM_THREADS": "1"}  # as a run of the package has it; pyfixest's own threads stay
    done = subprocess.run([*words, "--runs", str(runs)], stdout=subprocess.PIPE, text=True, check=True, env=one)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def measured(folder: Path, name: str, runs: int) -> tuple[list[list[str]], list[list[str]]]:
    """The rows of one task, and of what it is held to."""
    task = TASKS[name]
    warm = spawn(folder, name, "all", runs)
    cold = {e: spawn(folder, name, e, 1) for e in warm}
    base, *_ = warm
    rows = [[f"**{task.title}**", task.r, *[""] * 8]]
    for e, (seconds, processor) in warm.items():
        c = cold[e]
        effect, error = c["found"]
        rows.append([
            e, "", f"{c['cold']:.2f}", f"{seconds:.3f}", f"{seconds / warm[base][0]:.2f}", f"{processor:.3f}",
            f"{c['peak']:,.0f}", f"{c['data']:,.0f}", f"{effect:.10f}", "" if error != error else f"{error:.10f}",
        ])  # fmt: skip
    held = []
    for t in task.targets:
        if isinstance(t.against, str) and t.against not in warm:
            held.append([task.title, t.engine, f"{t.at_most:.3g} x {t.against}", "not installed", ""])
            continue
        at, source = (warm[t.against][0], t.against) if isinstance(t.against, str) else t.against
        ratio = warm[t.engine][0 if isinstance(t.against, str) else 1] / at
        limit = f"at most {t.at_most:.3g} x {source} ({at:.3f} s)"
        held.append([task.title, t.engine, limit, f"{ratio:.3g} x", "yes" if ratio <= t.at_most else "**no**"])
    if task.memory:
        engine, most = task.memory
        used = cold[engine]["peak"]
        held.append(
            [task.title, engine, f"at most {most:,.0f} MB", f"{used:,.0f} MB", "yes" if used <= most else "**no**"]
        )
    return rows, held


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, help="where panel.csv and big.csv are, or will be made")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--task", choices=list(TASKS), nargs="+")
    parser.add_argument("--engine", help="for the processes this starts itself")
    args = parser.parse_args()
    if args.engine:
        measure.say(json.dumps(child(args.folder, TASKS[args.task[0]], args.engine, args.runs)))
        return
    began, rows, held = measure.load(), [], []
    with tempfile.TemporaryDirectory() as temporary:
        folder = measure.simulated(args.folder or Path(temporary))
        kept = Path(temporary)
        for name in args.task or TASKS:
            data = TASKS[name].data
            if not (kept / f"{data}.y.npy").is_file():
                frame = pd.read_csv(folder / f"{data}.csv", usecols=COLUMNS[data])
                for column in COLUMNS[data]:
                    np.save(kept / f"{data}.{column}.npy", frame[column].to_numpy())
                del frame
            more = measured(kept, name, args.runs)
            rows += more[0]
            held += more[1]
            sys.stderr.write("\n".join(" | ".join(r) for r in (*more[0], *more[1])) + "\n")
    header = [
        "",
        "R, its machine",
        "cold s",
        "warm s",
        "ratio",
        "processor s",
        "peak MB",
        "of which data",
        "effect",
        "error or p",
    ]
    bare = measure.command(["-c", "import pandas"])[0]
    packages = ["numpy", "pandas", "scipy", "pyfixest", "linearmodels", "statsmodels", "diff-diff", "csdid", "differences",
                "wildboottest"]  # fmt: skip
    targets = measure.table(["", "", "target", "measured", "holds"], held)
    side = f"""Warm: medians of {args.runs} runs in turn, in one process; the ratio is to the first line of each block. Cold: the first call of a
fresh process, on top of the {bare:.1f} s that a Python with pandas takes to start. Linear algebra runs on one thread. R's
seconds are quoted, from {R_MACHINE}: medians of three, nothing else running; against them processor
seconds count. diff-diff's trimming of propensities is turned off, so that its effect is that of R's did.
Matching gives the numbers of treated and comparison units matched in the place of effect and error.

{measure.table(header, rows)}"""
    if args.task:
        measure.say(f"{targets}\n{side}")
        return
    measure.head(f"""# Benchmark

Made by `nox -s benchmark`; how each figure is taken is in the file of that name. The input is simulated: no figure here
is about Big Local.

{measure.machine(packages)}
Processes that wanted a core when it began and ended: {began} and {measure.load()}.

""")
    measure.put("Targets", targets)
    measure.put("Side by side", side)


if __name__ == "__main__":
    main()
