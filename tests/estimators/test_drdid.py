"""Doubly robust difference-in-differences against DRDID 1.2.3, by derivative, and by laws."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from biglocal.estimators import drdid, sample
from biglocal.model import Sample
from reference_cases import case, data

LALONDE = ("age", "educ", "black", "married", "nodegree", "hisp", "re74")
PANEL: dict[str, dict[str, Any]] = {
    "drdid_imp": {"method": "dr_improved"},
    "drdid_trad": {"method": "dr"},
    "drdid": {"method": "dr"},
    "ordid": {"method": "reg"},
    "reg": {"method": "reg"},
    "ipwdid_hajek": {"method": "ipw"},
    "std_ipw": {"method": "ipw"},
    "ipwdid_ht": {"method": "ipw_ht"},
    "ipw": {"method": "ipw_ht"},
    "twfe": {"method": "twfe"},
}
ROWS: dict[str, dict[str, Any]] = {
    "drdid_imp_loceff": {"method": "dr_improved"},
    "drdid_trad_loceff": {"method": "dr"},
    "drdid_imp_notloceff": {"method": "dr_improved", "efficient": False},
    "drdid_trad_notloceff": {"method": "dr", "efficient": False},
    "reg": {"method": "reg"},
    "std_ipw": {"method": "ipw"},
    "ipw_ht": {"method": "ipw_ht"},
    "twfe": {"method": "twfe"},
}
CASES = [
    *(("drdid_panel_nsw_cps", n) for n in ("drdid_imp", "drdid_trad", "ordid", "ipwdid_hajek", "ipwdid_ht")),
    *(
        ("drdid_panel_nsw_control_cps_quadratic", n)
        for n in ("drdid_imp", "drdid_trad", "ordid", "ipwdid_hajek", "ipwdid_ht")
    ),
    *(("drdid_panel_nsw_experiment", n) for n in ("drdid_imp", "drdid_trad", "ordid", "ipwdid_hajek", "ipwdid_ht")),
    *(("drdid_panel_nsw_cps_lowlevel", n) for n in ("twfe", "reg", "std_ipw", "ipw", "drdid", "drdid_imp")),
    *(("drdid_rc_nsw_cps", n) for n in ROWS),
    *(("drdid_rc_sim", n) for n in ROWS),
]


def reference_sample(name: str, rows: bool) -> Sample:
    """The case's data; `rows`: every row a unit of its own, as DRDID's cross-sections and its `twfe` take them."""
    if name == "drdid_rc_sim":
        frame = data("sim_rc.csv").assign(first=lambda f: f["d"])
        return sample(frame, y="y", unit="id", time="post", first_treated="first", covariates=["x1", "x2", "x3", "x4"])
    frame = data("nsw_long.csv")
    covariates = list(LALONDE)
    if name == "drdid_panel_nsw_control_cps_quadratic":
        frame = frame[(frame["sample"] == 2) | (frame["treated"] == 0)]
        frame = frame.assign(first=np.where(frame["treated"] == 0, 1978, 0))
        frame = frame.assign(age2=frame["age"] ** 2, none74=(frame["re74"] == 0).astype(float))
        covariates += ["age2", "none74"]
    else:
        frame = frame[frame["treated"].notna()] if name.endswith("experiment") else frame
        frame = frame[(frame["sample"] == 2) | (frame["treated"] == 1)] if "cps" in name else frame
        frame = frame.assign(first=np.where(frame["treated"] == 1, 1978, 0))
    frame = frame.assign(row=np.arange(len(frame)))
    unit = "row" if rows else "id"
    return sample(frame, y="re", unit=unit, time="year", first_treated="first", covariates=covariates)


@pytest.mark.parametrize(("name", "estimator"), CASES)
def test_against_drdid(name: str, estimator: str) -> None:
    expected = case(name)["results"][estimator]
    rows = "_rc_" in name
    options = ROWS[estimator] if rows else PANEL[estimator]
    s = reference_sample(name, rows or estimator == "twfe")
    att = drdid.estimate(s, panel=not rows, **options).terms[0]
    rel = case(name)["tolerance"]["rel"]
    assert att.estimate == pytest.approx(expected["att"], rel=rel, abs=1e-7)
    assert att.std_error == pytest.approx(expected["se"], rel=rel, abs=1e-7)
    assert att.estimate - 1.96 * att.std_error == pytest.approx(expected["ci_low"], rel=rel, abs=rel * expected["se"])
    assert att.estimate + 1.96 * att.std_error == pytest.approx(expected["ci_high"], rel=rel, abs=rel * expected["se"])
