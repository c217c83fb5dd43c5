"""ANCOVA: held against statsmodels, and the laws it has of its own (unit effects are not absorbed)."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from biglocal.estimators import ancova
from biglocal.model import Inapplicable, Sample
from panels import panel


def with_covariate(seed: int = 4) -> Sample:
    sample = panel(seed=seed)
    return replace(sample, frame=sample.frame.assign(x=np.sin(sample.frame["unit"])), covariates=("x",))


def test_against_statsmodels() -> None:
    import statsmodels.formula.api as smf

    sample = with_covariate()
    f = sample.frame.assign(wy=lambda g: g["y"] * g["weight"])
    after = f["time"] >= 5
    later, before = (g["wy"].sum() / g["weight"].sum() for g in (f[after].groupby("unit"), f[~after].groupby("unit")))
    of = f.groupby("unit").agg(
        treated=("treated", "first"), cluster=("cluster", "first"), x=("x", "first"), w=("weight", "mean")
    )
    of = of.assign(before=before, later=later)
    fit = smf.wls("later ~ treated + before + x", of, weights=of["w"]).fit(
        cov_type="cluster", cov_kwds={"groups": of["cluster"]}, use_t=True
    )
    (term,) = ancova.estimate(sample).terms
    assert term.estimate == pytest.approx(fit.params["treated"], rel=1e-10)
    assert term.std_error == pytest.approx(fit.bse["treated"], rel=1e-10)
    assert term.df == of["cluster"].nunique() - 1


@pytest.mark.parametrize("scale", [-100.0, 0.01])
def test_scale(scale: float) -> None:
    sample = with_covariate()
    one = ancova.estimate(sample).terms[0]
    two = ancova.estimate(replace(sample, frame=sample.frame.assign(y=scale * sample.frame["y"] + 5))).terms[0]
    assert (two.estimate, two.std_error) == pytest.approx((scale * one.estimate, abs(scale) * one.std_error), rel=1e-8)


def test_order_of_rows_changes_nothing_and_a_planted_effect_is_found() -> None:
    sample = with_covariate()
    one = ancova.estimate(sample).terms[0]
    shuffled = ancova.estimate(replace(sample, frame=sample.frame.sample(frac=1, random_state=1))).terms[0]
    assert shuffled.estimate == pytest.approx(one.estimate, rel=1e-10)
    planted = ancova.estimate(replace(sample, frame=sample.frame.assign(y=sample.frame["y"] + 0.6 * sample.frame["d"])))
    assert planted.terms[0].estimate == pytest.approx(one.estimate + 0.6, rel=1e-10)


def test_units_without_a_side_leave_and_are_counted() -> None:
    sample = panel(seed=2)
    fit = ancova.estimate(replace(sample, frame=sample.frame[(sample.frame["unit"] > 2) | (sample.frame["time"] < 5)]))
    assert "3 units without a row" in fit.caution
    assert fit.n_units == 117


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda f: f.assign(first_treated=f["first_treated"] + (f["cluster"] % 2)), "one common start"),
        (lambda f: f[f["treated"] == 1], "0 comparison"),
        (lambda f: f[f["time"] >= 5], "no period before"),
        (lambda f: f.assign(weight=0.0), "weights are zero"),
        (lambda f: f.assign(y=f["y"].where(f["time"] >= 5, 1.0)), "the level of y is the same.*collinear"),
        (lambda f: f[:0], "no rows"),
    ],
)
def test_what_it_cannot_use_is_refused(change: object, reason: str) -> None:
    sample = panel(seed=2)
    with pytest.raises(Inapplicable, match=reason):
        ancova.estimate(replace(sample, frame=change(sample.frame)))  # type: ignore[operator]


def test_levels_are_refused() -> None:
    with pytest.raises(Inapplicable, match="no test of a difference"):
        ancova.estimate(replace(panel(seed=2), levels=("even", "odd")))
