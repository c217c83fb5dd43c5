"""Stacked difference-in-differences against the weighted regression of its paper, built row by row."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from biglocal.estimators import fit
from biglocal.estimators._fixest import linear
from biglocal.estimators._within import codes
from biglocal.model import Inapplicable
from panels import panel
from reference_cases import data

MPDTA: dict[str, Any] = {"y": "lemp", "unit": "countyreal", "time": "year", "first_treated": "first_treat"}


def stack(f: pd.DataFrame, pre: int, post: int, starts: tuple[int, ...]) -> pd.DataFrame:
    """The stacked frame with corrective weights, as Wing, Freedman and Hollingsworth describe it."""
    parts = []
    for g in starts:
        side = (f["first"] == g) | (f["first"] > g + post) | (f["first"] == 0)
        part = f[f["time"].between(g - pre, g + post) & side]
        parts.append(part.assign(sub=g, e=part["time"] - g, now=(part["first"] == g).astype(int)))
    s = pd.concat(parts, ignore_index=True)
    mass = s.pivot_table(index=["sub", "e"], columns="now", values="weight", aggfunc="sum")
    share = mass / mass.groupby("e").transform("sum")
    q = (share[1] / share[0]).rename("q").reset_index()
    s = s.merge(q, on=["sub", "e"])
    return s.assign(weight=s["weight"] * np.where(s["now"] == 1, 1, s["q"]))


@pytest.mark.parametrize("effects", ["unit", "group"])
@pytest.mark.parametrize("weighted", [False, True])
def test_it_is_the_regression_on_the_stack(effects: str, weighted: bool) -> None:
    """Coefficients and clustered errors, with fixed effects of units or of the treated."""
    f = data("mpdta.csv").rename(columns={"lemp": "y", "countyreal": "unit", "year": "time", "first_treat": "first"})
    f = f.assign(weight=np.exp(f["lpop"]) if weighted else 1.0, cluster=f["unit"])
    ours = fit("stacked", f, y="y", unit="unit", time="time", first_treated="first", weight="weight", options={"kappa_pre": 1, "kappa_post": 1, "effects": effects})  # fmt: skip
    s = stack(f, 1, 1, (2004, 2006))
    columns = {f"e{e}": ((s["e"] == e) & (s["now"] == 1)).to_numpy(dtype=float) for e in (0, 1)}
    own = codes(s["unit"], s["sub"]) if effects == "unit" else codes(s["now"])
    theirs = linear(s, columns, {"own": own, "e": codes(s["e"])})
    found = [t for t in ours.terms if t.name == "event_time" and t.tested]
    assert [t.estimate for t in found] == pytest.approx(theirs.beta.tolist(), rel=1e-8)
    assert [t.std_error for t in found] == pytest.approx(np.sqrt(np.diag(theirs.vcov)).tolist(), rel=1e-8)
    mean = np.full(2, 0.5)
    assert ours.terms[0].estimate == pytest.approx(mean @ theirs.beta, rel=1e-8)
    assert ours.terms[0].std_error == pytest.approx(np.sqrt(mean @ theirs.vcov @ mean), rel=1e-8)
    assert "2007" in ours.caution
    assert ours.facts["experiments"] == (2004.0, 2006.0)


def test_it_averages_the_experiments_with_the_shares_of_the_treated() -> None:
    """Each coefficient is the treated-weighted mean of the experiments' own differences in differences."""
    f = data("mpdta.csv")
    ours = fit("stacked", f, **MPDTA, options={"kappa_pre": 1, "kappa_post": 1})
    total, size = 0.0, 0
    for g in (2004, 2006):
        side = {1: f["first_treat"] == g, 0: (f["first_treat"] > g + 1) | (f["first_treat"] == 0)}
        change = {
            k: f[w & (f["year"] == g + 1)]["lemp"].mean() - f[w & (f["year"] == g - 1)]["lemp"].mean()
            for k, w in side.items()
        }
        n = int((side[1] & (f["year"] == g)).sum())
        total, size = total + n * (change[1] - change[0]), size + n
    last = next(t for t in ours.terms if t.period == 1)
    assert last.estimate == pytest.approx(total / size, rel=1e-9)


def test_covariates_and_gaps_are_taken() -> None:
    f = panel(seed=12, effect=0.5).frame
    first = f["first_treated"] + f["cluster"] % 2
    f = f.assign(first_treated=first, first=first.fillna(0)).sample(frac=0.9, random_state=2)
    ours = fit("stacked", f, y="y", unit="unit", time="time", first_treated="first_treated", cluster="cluster", weight="weight", covariates=["x"])  # fmt: skip
    pre, post = ours.facts["kappa"]
    assert (pre, post) == (5, 1)
    s = stack(f, pre, post, (5, 6))
    rest = [e for e in range(-pre, post + 1) if e != -1]
    columns = {f"e{i}": ((s["e"] == e) & (s["now"] == 1)).to_numpy(dtype=float) for i, e in enumerate(rest)}
    theirs = linear(s, {**columns, "x": s["x"].to_numpy()}, {"own": codes(s["unit"], s["sub"]), "e": codes(s["e"])})
    found = [t for t in ours.terms if t.name == "event_time" and t.tested]
    assert [t.estimate for t in found] == pytest.approx(theirs.beta[:-1].tolist(), rel=1e-7)
    assert [t.std_error for t in found] == pytest.approx(np.sqrt(np.diag(theirs.vcov))[:-1].tolist(), rel=1e-7)


@pytest.mark.parametrize(
    ("options", "reason"),
    [({"kappa_pre": 0}, "window of 0"), ({"kappa_pre": 9}, "no cohort has 9"), ({"kappa_post": -1}, "-1 after")],
)
def test_a_window_that_cannot_be_is_refused(options: dict[str, int], reason: str) -> None:
    with pytest.raises(Inapplicable, match=reason):
        fit("stacked", data("mpdta.csv"), **MPDTA, options=options)
