"""Random effects and effects within persons against R's plm and linearmodels."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from biglocal.estimators import random_effects, twfe, within_person
from biglocal.model import Inapplicable
from panels import panel
from reference_cases import case, data
from waves import survey


def test_plm__plm_grunfeld() -> None:
    found = case("plm_grunfeld")
    expected, tolerance = found["results"], found["tolerance"]

    def near(value: object) -> object:
        return pytest.approx(value, rel=tolerance["rel"], abs=tolerance["abs"])

    frame = data("grunfeld.csv")
    fit = random_effects.fit(frame, "inv ~ value + capital", unit="firm")
    assert [t.estimate for t in fit.terms] == near(expected["re"]["estimate"])
    assert [t.std_error for t in fit.terms] == near(expected["re"]["se"])
    assert fit.facts["sigma2"]["Residual"] == near(expected["re"]["sigma2_idios"])
    assert fit.facts["sigma2"]["person"] == near(expected["re"]["sigma2_id"])
    assert fit.facts["theta"] == near([expected["re"]["theta"]] * 10)
    hausman = expected["hausman"]
    assert fit.facts["hausman"] == near((hausman["chi2"], hausman["df"], hausman["p"]))
    inside = within_person.fit(frame, "inv ~ value + capital", unit="firm", errors="model")
    assert [t.estimate for t in inside.terms] == near(expected["fe"]["estimate"])
    assert [t.std_error for t in inside.terms] == near(expected["fe"]["se"])


def test_clustered_errors_are_those_of_the_convention() -> None:
    """Least squares on the rows less theta of their person's mean, solved apart."""
    import statsmodels.api as sm

    f = survey().frame
    fit = random_effects.fit(f, "y ~ d + age", unit="unit", cluster="cluster", errors="cluster")
    x = pd.DataFrame({"one": 1.0, "d": f["d"], "age": f["age"]})
    theta = pd.Series(fit.facts["theta"], index=sorted(f["unit"].unique())).reindex(f["unit"]).to_numpy()
    whole = x.assign(y=f["y"])
    less = whole - whole.groupby(f["unit"]).transform("mean").mul(theta, axis=0)
    plain = sm.OLS(less["y"], less[["one", "d", "age"]]).fit(cov_type="cluster", cov_kwds={"groups": f["cluster"]})
    assert [t.estimate for t in fit.terms] == pytest.approx(list(plain.params), rel=1e-9)
    assert [t.std_error for t in fit.terms] == pytest.approx(list(plain.bse), rel=1e-9)
    assert fit.terms[0].df == 39


def test_within_person_is_the_two_way_model_where_treatment_is_the_exposure() -> None:
    s = panel(effect=0.5)
    ours = within_person.estimate(replace(s, frame=s.frame.assign(level="")), of="association").terms[0]
    theirs = twfe.estimate(s).terms[0]
    assert (ours.estimate, ours.std_error, ours.df) == pytest.approx(
        (theirs.estimate, theirs.std_error, theirs.df), rel=1e-8
    )


def test_persons_seen_once_and_what_does_not_change_leave() -> None:
    s = survey()
    fit = within_person.estimate(s)
    size = s.frame.groupby("unit").size()
    assert fit.facts["seen_once"] == int((size == 1).sum())
    assert fit.n_units == int((size > 1).sum())
    shifted = s.frame.assign(y=s.frame["y"] + 5 * s.frame["age"] + 3 * (s.frame["unit"] % 7))
    moved = within_person.estimate(replace(s, frame=shifted))
    assert [t.estimate for t in moved.terms] == pytest.approx([t.estimate for t in fit.terms], abs=1e-9)


def test_what_cannot_be_fitted_is_refused() -> None:
    s = survey()
    once = s.frame.drop_duplicates("unit")
    with pytest.raises(Inapplicable, match="0 persons are seen twice"):
        within_person.estimate(replace(s, frame=once))
    with pytest.raises(Inapplicable, match="no person is seen twice"):
        random_effects.estimate(replace(s, frame=once))
    with pytest.raises(Inapplicable, match=r"collinear .* exposure"):
        within_person.estimate(replace(s, frame=s.frame.assign(d=s.frame["age"])), of="association")
    moving = s.frame.assign(level=np.where(s.frame["time"] == 2016, "men", "women"))
    with pytest.raises(Inapplicable, match="level of some persons changes"):
        within_person.estimate(replace(s, frame=moving, levels=("men", "women")))


def test_a_variance_of_nought_is_said() -> None:
    f = survey().frame
    y = np.random.default_rng(2).normal(size=len(f))
    y = y - pd.Series(y).groupby(f["unit"].to_numpy()).transform("mean").to_numpy()
    fit = random_effects.fit(f.assign(y=y), "y ~ x", unit="unit")
    assert fit.facts["sigma2"]["person"] == 0
    assert "at its bound" in fit.caution
