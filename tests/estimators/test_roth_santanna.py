"""Roth and Sant'Anna's efficient estimator against R's staggered, and against chance itself."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from biglocal.estimators import estimator, fit
from biglocal.model import Fit, Inapplicable, Sample
from panels import panel
from reference_cases import case, data

VERSIONS = {"efficient": "efficient", "cs": "callaway_santanna", "sa": "sun_abraham"}
TERMS = {"simple": "att", "cohort": "att_group", "calendar": "att_calendar"}


def officers(version: str) -> Fit:
    f = data("pj_officers.csv")
    f = f.assign(q=(f["period"] - 1) // 6 + 1, gq=(f["first_trained"] - 1) // 6 + 1)
    f = f.groupby(["uid", "q", "gq"], as_index=False)["complaints"].sum()
    columns = {"y": "complaints", "unit": "uid", "time": "q", "first_treated": "gq"}
    return fit("roth_santanna", f, **columns, options={"version": version})


@pytest.mark.parametrize("kind", ["simple", "cohort", "calendar", "eventstudy"])
@pytest.mark.parametrize("version", VERSIONS)
def test_staggered_pj_officers(version: str, kind: str) -> None:
    expected, tolerance = case("staggered_pj_officers")["results"], case("staggered_pj_officers")["tolerance"]
    theirs, found = expected[f"{version}_{kind}"], officers(VERSIONS[version])
    ours = {(t.name, t.period): t for t in found.terms}
    for i, e in enumerate(theirs["eventTime"] or [None]):
        key = ("event_time", e) if kind == "eventstudy" else (TERMS[kind], None)
        assert ours[key].estimate == pytest.approx(theirs["estimate"][i], rel=tolerance["rel"])
        assert ours[key].std_error == pytest.approx(theirs["se"][i], rel=tolerance["rel"])
        assert found.facts["neyman"][key] == pytest.approx(theirs["se_neyman"][i], rel=tolerance["rel"])


def shuffled(seed: int = 1, **more: Any) -> Sample:
    """Starts dealt at random: periods 2, 4, 6 or never; outcomes that depend on their past."""
    rng = np.random.default_rng(seed)
    units, years = 120, 8
    first = rng.permutation(np.repeat([2.0, 4.0, 6.0, np.nan], units // 4))
    y = rng.normal(size=(units, 1)) + rng.normal(size=(units, years)).cumsum(axis=1) + rng.normal(size=years)
    time = np.arange(years)
    y += 0.5 * (time >= first[:, None])
    unit = np.repeat(np.arange(units), years)
    f = pd.DataFrame({"y": y.ravel(), "unit": unit, "time": np.tile(time, units), "cluster": unit, "weight": 1.0})
    f = f.assign(first_treated=np.repeat(first, years), level="")
    f["treated"] = f["first_treated"].notna().astype(int)
    f["d"] = (f["time"] >= f["first_treated"]).astype(float)
    return replace(Sample(f, "points"), **more)


def test_with_beta_one_it_is_callaway_and_santanna() -> None:
    """Points by their own estimator, controls not yet treated."""
    s = shuffled()
    f = s.frame.drop(columns=["d", "treated"])
    columns = {"y": "y", "unit": "unit", "time": "time", "first_treated": "first_treated"}
    theirs = fit("callaway_santanna", f, **columns, options={"control": "notyet"})
    at = {(t.name, t.period): t.estimate for t in theirs.terms}
    ours = estimator("roth_santanna")(s, version="callaway_santanna")  # type: ignore[call-arg]
    for t in ours.terms:
        if t.name in ("att", "event_time"):
            assert t.estimate == pytest.approx(at[t.name, t.period], rel=1e-9)


def test_it_is_less_variable_where_starts_are_random_and_its_interval_covers() -> None:
    """100 draws of the order of starts: unbiased, 95% intervals that cover (binomial bounds at 99.9%)."""
    run = estimator("roth_santanna")
    found = {v: [run(shuffled(seed), version=v).terms[0] for seed in range(100)] for v in ("efficient", "callaway_santanna")}  # type: ignore[call-arg]  # fmt: skip
    spread = {v: np.std([t.estimate for t in terms]) for v, terms in found.items()}
    assert spread["efficient"] < spread["callaway_santanna"]
    mean = np.mean([t.estimate for t in found["efficient"]])
    assert mean == pytest.approx(0.5, abs=3.3 * spread["efficient"] / np.sqrt(100))
    covered = sum(abs(t.estimate - 0.5) < 1.96 * t.std_error for t in found["efficient"])
    assert 86 <= covered <= 100


@pytest.mark.parametrize("version", VERSIONS.values())
@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda f: f.sample(frac=1, random_state=2), id="shuffle rows"),
        pytest.param(lambda f: f.assign(unit=999 - 7 * f["unit"], cluster=f["unit"]), id="relabel units"),
        pytest.param(lambda f: f.assign(weight=5 * f["weight"]), id="scale weights"),
        pytest.param(lambda f: f.set_axis(f.index * 3 + 1), id="another index"),
        pytest.param(lambda f: f.assign(time=f["time"] + 9, first_treated=f["first_treated"] + 9), id="shift time"),
        pytest.param(lambda f: pd.concat([f, f]).assign(weight=lambda g: g["weight"] / 2), id="every row twice"),
        pytest.param(lambda f: f.assign(y=f["y"] + np.sin(f["time"])), id="common shocks"),
    ],
)
def test_nothing_moves(version: str, change: Any) -> None:
    run = estimator("roth_santanna")
    one, two = (run(x, version=version) for x in (shuffled(), shuffled(frame=change(shuffled().frame))))  # type: ignore[call-arg]
    for a, b in zip(one.terms, two.terms, strict=True):
        assert (b.name, b.period) == (a.name, a.period)
        assert (b.estimate, b.std_error) == pytest.approx((a.estimate, a.std_error), rel=1e-7)


def test_estimates_scale_with_the_outcome() -> None:
    f = shuffled().frame
    one, two = (estimator("roth_santanna")(shuffled(frame=g)) for g in (f, f.assign(y=5 - 100 * f["y"])))
    for a, b in zip(one.terms, two.terms, strict=True):
        assert (b.estimate, b.std_error) == pytest.approx((-100 * a.estimate, 100 * a.std_error), rel=1e-7)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda f: f[f["treated"] == 0], "1 cohort"),
        (lambda f: f.sample(frac=0.9, random_state=1), "unbalanced"),
        (lambda f: f.assign(y=3.0), "constant"),
        (lambda f: f.assign(weight=0.0), "weights are zero"),
        (lambda f: f.assign(weight=1.0 + f["unit"]), "no weights"),
        (lambda f: f.assign(cluster=f["unit"] // 2), "clusters"),
        (lambda f: f[:0], "no rows"),
        (lambda f: f[f["time"] < 2], "1 cohort"),
    ],
)
def test_degenerate_input_is_refused_with_a_reason(change: Any, reason: str) -> None:
    with pytest.raises(Inapplicable, match=reason):
        estimator("roth_santanna")(shuffled(frame=change(shuffled().frame)))


def test_cohorts_of_one_leave_and_covariates_are_refused() -> None:
    f = shuffled().frame
    f = f.assign(first_treated=f["first_treated"].where(f["unit"] != 0, 5.0), treated=1)
    found = estimator("roth_santanna")(shuffled(frame=f))
    assert "1 units" in found.caution
    with pytest.raises(Inapplicable, match="covariates"):
        estimator("roth_santanna")(replace(panel(), covariates=("x",)))
