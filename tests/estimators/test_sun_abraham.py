"""Sun and Abraham's estimator against R's fixest::sunab, and against the regression it stands for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from biglocal import inference
from biglocal.estimators import estimator, fit, sample
from biglocal.estimators._fixest import linear
from biglocal.estimators._within import codes
from biglocal.model import Inapplicable
from panels import panel
from reference_cases import case, data

if TYPE_CHECKING:
    import pandas as pd

STAGG: dict[str, Any] = {"y": "y", "unit": "id", "time": "year", "first_treated": "g", "covariates": ["x1"]}
MPDTA: dict[str, Any] = {"y": "lemp", "unit": "countyreal", "time": "year", "first_treated": "first_treat"}


def frame(name: str) -> pd.DataFrame:
    found = data(name)
    if name == "base_stagg.csv":  # fixest's 10000 for never: a start after the panel's end counts as never
        found["g"] = found["year_treated"]
    return found


def key(term: str, kind: str) -> tuple[str, int | None, str]:
    """The term of ours for one of R's: `year::2`, `ATT`, `cohort::5`, `year::2:cohort::5`."""
    if kind == "att":
        return ("att", None, "")
    parts = [int(p.split("::")[1]) for p in term.replace(":cohort", "|cohort").split("|")]
    if kind == "period":
        return ("event_time", parts[0], "")
    if kind == "cohort":
        return ("group", parts[0], "")
    return ("att_gt", parts[0] + parts[1], str(parts[1]))


@pytest.mark.parametrize("kind", ["period", "att", "cohort", "raw"])
@pytest.mark.parametrize(
    ("name", "file", "columns"), [("sunab_base_stagg", "base_stagg.csv", STAGG), ("sunab_mpdta", "mpdta.csv", MPDTA)]
)
def test_reference(name: str, file: str, columns: dict[str, Any], kind: str) -> None:
    """Cluster errors. The HC1 results of sunab_base_stagg are out: errors here are clustered by convention."""
    expected, tolerance = case(name)["results"]["cluster_unit"], case(name)["tolerance"]
    s = sample(frame(file), **columns)
    done = inference.cluster(
        estimator("sun_abraham"), s, estimator("sun_abraham")(s), np.random.default_rng(0), conf_level=0.95
    )
    ours = {(t.name, t.period, t.level): t for t in done.terms}
    for i, term in enumerate(expected[kind]["term"]):
        theirs = expected[kind]["estimate"][i], expected[kind]["se"][i]
        if term == "x1":
            assert done.facts["coefficients"]["x1"] == pytest.approx(theirs, **tolerance)
            continue
        found = ours[key(term, kind)]
        assert (found.estimate, found.std_error) == pytest.approx(theirs, **tolerance)
        assert found.p_value == pytest.approx(expected[kind]["p"][i], rel=1e-5)
        assert found.df == case(name)["results"]["cluster_unit"].get("df_t", 94)


def test_the_closed_form_is_the_regression_with_a_dummy_for_each_cohort_and_period() -> None:
    """Weights, gaps, clusters above units and a covariate, through pyfixest."""
    f = panel(seed=7, units=60).frame
    first = f["first_treated"] + f["cluster"] % 2
    f = f.assign(first_treated=first, d=(f["time"] >= first).astype(float)).sample(frac=0.9, random_state=3)
    ours = fit("sun_abraham", f, y="y", unit="unit", time="time", first_treated="first_treated", cluster="cluster", weight="weight", covariates=["x"])  # fmt: skip
    dummies = {
        f"g{g:g}t{t}": ((f["first_treated"] == g) & (f["time"] == t)).to_numpy(dtype=float)
        for g in (5, 6)
        for t in range(8)
        if t != g - 1
    }
    theirs = linear(f, {**dummies, "x": f["x"].to_numpy()}, {"unit": codes(f["unit"]), "time": codes(f["time"])})
    at = {n: i for i, n in enumerate(theirs.names)}
    cells = [t for t in ours.terms if t.name == "att_gt"]
    assert len(cells) == len(dummies)
    for t in cells:
        i = at[f"g{t.level}t{t.period}"]
        assert t.estimate == pytest.approx(theirs.beta[i], rel=1e-8)
        assert t.std_error == pytest.approx(np.sqrt(theirs.vcov[i, i]), rel=1e-8)
    assert ours.facts["coefficients"]["x"][0] == pytest.approx(theirs.beta[at["x"]], rel=1e-8)
    post = [t for t in cells if (t.period or 0) >= float(t.level)]
    mass = [f.loc[(f["first_treated"] == float(t.level)) & (f["time"] == t.period), "weight"].sum() for t in post]
    share = np.zeros(len(theirs.beta))
    share[[at[f"g{t.level}t{t.period}"] for t in post]] = np.array(mass) / np.sum(mass)
    assert ours.terms[0].estimate == pytest.approx(share @ theirs.beta, rel=1e-9)
    assert ours.terms[0].std_error == pytest.approx(np.sqrt(share @ theirs.vcov @ share), rel=1e-9)


def test_with_one_start_it_is_the_event_study() -> None:
    s = panel(seed=8, effect=0.4)
    one = {t.period: t for t in estimator("event_study")(s).terms if t.name == "event_time"}
    two = {t.period: t for t in estimator("sun_abraham")(s).terms if t.name == "event_time"}
    assert one.keys() == two.keys()
    for e in one:
        assert two[e].estimate == pytest.approx(one[e].estimate, rel=1e-7, abs=1e-9)
        assert two[e].std_error == pytest.approx(one[e].std_error, rel=1e-7, nan_ok=True)
    leads = [next(t for t in estimator(n)(s).terms if t.name == "leads") for n in ("event_study", "sun_abraham")]
    assert leads[1].statistic == pytest.approx(leads[0].statistic, rel=1e-6)


def test_without_never_treated_the_last_cohort_is_the_comparison() -> None:
    f = data("mpdta.csv").query("first_treat > 0")
    ours = fit("sun_abraham", f, **MPDTA)
    never = f.query("year < 2007").assign(first_treat=lambda g: g["first_treat"].where(g["first_treat"] < 2007, 0))
    theirs = fit("sun_abraham", never, **MPDTA)
    assert "2007" in ours.caution
    one, two = ([(t.estimate, t.std_error) for t in x.terms if t.name == "att_gt"] for x in (ours, theirs))
    assert np.array(one) == pytest.approx(np.array(two), rel=1e-9)


def test_units_treated_throughout_leave_and_are_counted() -> None:
    f = data("mpdta.csv").assign(first_treat=lambda g: g["first_treat"].replace(2004, 2003))
    ours, without = fit("sun_abraham", f, **MPDTA), fit("sun_abraham", f[f["first_treat"] != 2003], **MPDTA)
    assert "20 units" in ours.caution
    assert ours.terms[0].estimate == pytest.approx(without.terms[0].estimate, rel=1e-10)
    assert ours.terms[0].std_error == pytest.approx(without.terms[0].std_error, rel=1e-10)


def test_a_cohort_without_a_period_before_cannot_be_compared() -> None:
    f = (
        data("mpdta.csv")
        .query("first_treat in (0, 2004)")
        .assign(first_treat=lambda g: g["first_treat"].replace(2004, 2003))
    )
    with pytest.raises(Inapplicable, match="before"):
        fit("sun_abraham", f, **MPDTA)
